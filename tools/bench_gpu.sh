#!/usr/bin/env bash
# Runs on a machine with a GPU what c2r has for it, in under 20 minutes and without a network.
#
#   tools/bench_gpu.sh [--out FOLDER] [--work FOLDER] [--dry-run]
#
# 1. bench/gpu_training.py: training with spread experts, one process and two on the same device over gloo
# 2. bench/expert_parallel_torch.py: times of the exchanges beside transformers' all_to_all, likewise
# First, where `make check-gpu` has built it: build/release/cuda_test, kernels and layers against the host.
# Each result is a JSON file in --out (default build/bench-gpu), written at once; a part that fails does not
# stop the next, and the exit status is 1 in the end.
# --work: where the second part keeps routings and models (default: --out). Recording routings needs c2r's
# extension module; where it is missing, make them elsewhere by `bench/expert_parallel_torch.py --prepare
# --local RANKS` with the same --work, for RANKS 1 and 2, and bring the files routings.pt along.
# --dry-run: the same on the CPU with tiny shapes.
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
part() {  # NAME COMMAND...: at most half of the time for each
  local name=$1 start=$SECONDS
  shift
  echo "== $name"
  timeout 550 "$@" 2>&1 | tee "$out/$name.log" || failed+=" $name"
  echo "== $name took $((SECONDS - start)) s"
}
if [ $device = cuda ] && [ -x build/release/cuda_test ]; then
  part kernels build/release/cuda_test --gtest_output=json:"$out/kernels.json"
else
  echo "== kernels are left out: there is no GPU, or no build/release/cuda_test"
fi
part training "$python" bench/gpu_training.py --device $device --out "$out"
for ranks in 1 2; do
  part "times_$ranks" "$python" bench/expert_parallel_torch.py --local $ranks --device $device --work "${work:-$out}" \
    "${size[@]}"
done
[ -z "$failed" ] || { echo "bench_gpu: failed:$failed; the logs are in $out" >&2; exit 1; }
