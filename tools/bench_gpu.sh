#!/usr/bin/env bash
# Runs on a machine with a GPU what c2r has for it, in under 20 minutes and without a network.
#
#   tools/bench_gpu.sh [--out FOLDER] [--work FOLDER] [--dry-run]
#
# In this order, each part with a limit, and all with one of 20 minutes:
# 1. build/release/cuda_test: kernels, experts and layers against the host; a part of it under compute-sanitizer;
#    then the operators of c2r.torch with c2r's kernels, beside PyTorch's
# 2. build/release/c2r-cuda bench layer: routing, routes and one layer on one GPU, beside measured rates
# 3. bench/gpu_layer.py: the same layer's experts in transformers, and in torch with rows sorted by expert
# 4. the layer between two processes on one GPU, by the staging exchange
# 5. bench/expert_parallel_torch.py: times of the exchanges beside transformers' all_to_all, one process and two
# 6. bench/gpu_training.py: training with spread experts, one process and two on the same device over gloo
# `make check-gpu` makes the programs of 1, 2 and 4; without them these are left out.
# Each result is a JSON file in --out (default build/bench-gpu), written at once; a part that fails does not
# stop the next, and the exit status is 1 in the end.
# --work: where part 5 keeps routings and models (default: --out). Recording routings needs c2r's
# extension module; where it is missing, make them elsewhere by `bench/expert_parallel_torch.py --prepare
# --local RANKS` with the same --work, for RANKS 1 and 2, and bring the files routings.pt along.
# --dry-run: parts 3, 5 and 6 on the CPU with tiny shapes.
# C2R_PYTHON is the Python (default python3); it needs torch, transformers 5.23 or newer and pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${C2R_PYTHON:-python3}
out=build/bench-gpu work='' device=cuda
size=(--rounds 15 --tokens 2048)
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=${2:?} && shift ;;
    --work) work=${2:?} && shift ;;
    --dry-run) device=cpu size=(--rounds 6 --tokens 16 --tiny) ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
  esac
  shift
done
# An installed c2r has the extension module, the source tree has not.
"$python" -c 'import c2r' 2>/dev/null || export PYTHONPATH=$PWD/python${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$out"
"$python" - "$device" "$out/machine.json" <<'EOF' || exit 1
import json, platform, sys

try:
    import pytest, torch, transformers
except ImportError as error:
    sys.exit(f"bench_gpu: {error}; C2R_PYTHON names a Python that has it")
device, path = sys.argv[1:]
if device == "cuda" and not torch.cuda.is_available():
    sys.exit("bench_gpu: PyTorch finds no GPU; --dry-run runs on the CPU")
name = torch.cuda.get_device_name(0) if device == "cuda" else platform.processor()
versions = {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}
with open(path, "w") as file:
    json.dump({"device": name, **versions}, file)
EOF

failed=''
part() {  # NAME LIMIT_S COMMAND...: in at most so many seconds, and what is left of 20 minutes
  local name=$1 limit=$2 start=$SECONDS left=$((1200 - SECONDS))
  shift 2
  [ $left -gt 0 ] || { echo "== $name is left out: 20 minutes are over" && failed+=" $name" && return; }
  echo "== $name"
  timeout $((limit < left ? limit : left)) "$@" 2>&1 | tee "$out/$name.log" || failed+=" $name"
  echo "== $name took $((SECONDS - start)) s"
}
json_part() {  # NAME LIMIT_S COMMAND...: what the command prints is NAME.json
  local name=$1 limit=$2
  shift 2
  part "$name" "$limit" bash -c 'to=$1 && shift && "$@" >"$to.part" && mv "$to.part" "$to"' - "$out/$name.json" "$@"
}
layer() {  # NAME COMMAND...: c2r-cuda's layers of every shape that --ranks or mpirun lets it hold
  local name=$1 problem tokens
  shift
  for problem in qwen1.5-moe llama-moe olmoe mixtral-8x7b deepseek-v3; do
    for tokens in 512 4096; do
      json_part "layer-$name-$problem-$tokens" 45 "$@" bench layer $problem --device cuda --tokens $tokens --rounds 15 --json
    done
  done
}
if [ $device = cuda ] && [ -x build/release/cuda_test ] && [ -x build/release/c2r-cuda ]; then
  part kernels 120 build/release/cuda_test --gtest_output=json:"$out/kernels.json"
  if command -v compute-sanitizer >/dev/null; then
    part sanitizer 180 compute-sanitizer --error-exitcode 1 build/release/cuda_test \
      --gtest_filter='*Routes*:*Logits*:*Weighs*:*MovesRows*:*Between*:*Experts*'
  fi
  part operators 60 "$python" -m pytest -q -rs -p no:cacheprovider python/tests/test_kernels.py
  layer 1 build/release/c2r-cuda
else
  echo "== kernels and layers are left out: there is no GPU, or no build/release/cuda_test and c2r-cuda"
fi
part layer_torch 180 "$python" bench/gpu_layer.py --device $device --out "$out" $([ $device = cuda ] || echo --tiny --tokens 16)
if [ $device = cuda ] && [ -x build/release/c2r-cuda ]; then
  # Under mpirun a rank is a process, else a thread.
  if command -v mpirun >/dev/null; then
    layer 2 mpirun --oversubscribe --allow-run-as-root -n 2 build/release/c2r-cuda
  else
    echo "== no mpirun, so two processes on one GPU are left out"
  fi
fi
for ranks in 1 2; do
  part "times_$ranks" 240 "$python" bench/expert_parallel_torch.py --local $ranks --device $device --work "${work:-$out}" \
    "${size[@]}"
done
part training 300 "$python" bench/gpu_training.py --device $device --out "$out"
[ -z "$failed" ] || { echo "bench_gpu: failed:$failed; the logs are in $out" >&2; exit 1; }
