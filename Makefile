# Two commands do everything on a fresh Debian 12: `make demo` and `make check`.
.DEFAULT_GOAL := help
.PHONY: help setup configure build demo check tsan tidy check-long check-torch check-gpu bench install clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: ## install the Debian packages that building needs
	@tools/setup.sh build

configure: setup
	@cmake --preset release >build/configure.log 2>&1 || { cat build/configure.log; exit 1; }

build: configure ## build the release preset into build/release
	@cmake --build --preset release

demo: configure ## a small MoE model on 4 ranks, both ways: what placing its experts saves
	@cmake --build --preset release --target c2r
	@tools/demo.sh

check: ## every test that needs no PyTorch: format, release, asan, fuzzers, Python, documents
	@tools/setup.sh check
	@tools/check.py

tsan: ## the tests with threads again, with ThreadSanitizer
	@tools/setup.sh check
	@tools/check.py tsan

tidy: ## clang-tidy on what changed since it last read it
	@tools/setup.sh check
	@tools/check.py tidy

check-long: ## what takes longer: each file and header alone, assertions, fuzzers and MPI for longer
	@tools/setup.sh check
	@tools/check.py --long

check-torch: ## the tests of training/, c2r.torch and c2r.hf; downloads PyTorch (3.2 GB) the first time
	@tools/setup.sh python
	@python=$$(tools/setup_torch.sh) && "$$python" -m ruff check -q --no-cache training python && \
	  "$$python" -m ruff format -q --no-cache --check training python && \
	  wheel=$$(PYTHON=$$python tools/build_wheel.sh) && \
	  "$$python" -m pip install -q --no-deps --force-reinstall "$$wheel" && \
	  "$$python" -m pytest -q -p no:cacheprovider training && \
	  "$$python" -m pytest -q -rs -p no:cacheprovider --ignore=python/tests/library python/tests

check-gpu: configure ## on a machine with an NVIDIA GPU and nvcc: kernels and layers against the host; build/check-gpu.json
	@cmake --preset release -DC2R_CUDA=on >build/configure.log 2>&1 || { cat build/configure.log; exit 1; }
	@cmake --build --preset release --target cuda_test c2r_cuda_program
	@build/release/cuda_test --gtest_output=json:build/check-gpu.json
	@if command -v compute-sanitizer >/dev/null; then compute-sanitizer --error-exitcode 1 build/release/cuda_test; \
	  else echo "check-gpu: no compute-sanitizer, so memory accesses of kernels were not checked"; fi
	@python=$${C2R_PYTHON:-python3}; if "$$python" -c 'import torch, pytest, c2r._c2r_cuda' 2>/dev/null; \
	  then "$$python" -m pytest -q -rs -p no:cacheprovider python/tests/test_kernels.py; \
	  else echo "check-gpu: $$python has no PyTorch, pytest or c2r._c2r_cuda, so operators of c2r.torch were not run"; fi

bench: build ## every benchmark
	@tools/bench.sh

install: build ## install program, headers and libraries; PREFIX=/usr/local by default
	@cmake --install build/release --prefix $(or $(PREFIX),/usr/local)

clean: ## remove what was built
	rm -rf build
