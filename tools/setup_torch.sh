#!/usr/bin/env bash
# Makes the Python environment of training/ and of the tests of python/c2r where it is missing or other than
# training/requirements.txt says, and prints the path of its python.
#   C2R_TORCH_VENV=FOLDER    default: build/venv-torch; one that is there and complete is used as it is
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${C2R_TORCH_VENV:-build/venv-torch}
python=$venv/bin/python
# torchtitan asks for an older `datasets` than lm_eval gets, for what c2r does not use of it.
without_dependencies=(torchtitan==0.3.0 spmd_types==0.2.3)

# The versions that are installed, and whether they were installed whole.
is_complete() {
  "$python" - "${without_dependencies[@]}" 2>/dev/null <<'EOF'
import importlib.metadata
import pathlib
import sys

from packaging.requirements import Requirement  # comes with pytest

for line in [*pathlib.Path("training/requirements.txt").read_text().splitlines(), *sys.argv[1:]]:
    if line and not line.startswith("#"):
        wanted = Requirement(line)
        assert wanted.specifier.contains(importlib.metadata.version(wanted.name)), line
import pytest, safetensors, tokenizers, torch, transformers, zstandard
EOF
}

if ! is_complete; then
  mkdir -p build
  echo "setup: installing PyTorch into $venv (3.2 GB to download, 6.3 GB on disk)" >&2
  if ! { python3 -m venv "$venv" && "$python" -m pip install -r training/requirements.txt &&
         "$python" -m pip install --no-deps "${without_dependencies[@]}"; } >build/setup_torch.log 2>&1
  then
    tail -n 20 build/setup_torch.log >&2
    echo "setup: the whole log is build/setup_torch.log; python3 -m venv needs Debian's python3-venv" >&2
    exit 1
  fi
fi
echo "$python"
