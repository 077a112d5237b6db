#!/usr/bin/env bash
# Makes the Python environment of training/ where it is missing, and prints the path of its python.
#   C2R_TORCH_VENV=FOLDER    default: build/venv-torch; one that is there and complete is used as it is
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${C2R_TORCH_VENV:-build/venv-torch}
python=$venv/bin/python

if ! "$python" -c 'import pytest, ruff, safetensors, tokenizers, torch, transformers, zstandard' 2>/dev/null; then
  mkdir -p build
  echo "setup: installing PyTorch into $venv (2.8 GB to download, 4.9 GB on disk)" >&2
  if ! { python3 -m venv "$venv" && "$python" -m pip install -r training/requirements.txt; } >build/setup_torch.log 2>&1
  then
    tail -n 20 build/setup_torch.log >&2
    echo "setup: the whole log is build/setup_torch.log; python3 -m venv needs Debian's python3-venv" >&2
    exit 1
  fi
fi
echo "$python"
