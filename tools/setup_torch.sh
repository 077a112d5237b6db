#!/usr/bin/env bash
# Makes the Python environment of training/ and of c2r.torch's tests where it is missing or other than training/requirements.txt says, and
# prints the path of its python.
#   C2R_TORCH_VENV=FOLDER    default: build/venv-torch; one that is there and complete is used as it is
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${C2R_TORCH_VENV:-build/venv-torch}
python=$venv/bin/python

# The versions that are installed, and whether they were installed whole.
is_complete() {
  "$python" - 2>/dev/null <<'EOF'
import importlib.metadata
import pathlib

from packaging.requirements import Requirement  # comes with pytest

for line in pathlib.Path("training/requirements.txt").read_text().splitlines():
    if line and not line.startswith("#"):
        wanted = Requirement(line)
        assert wanted.specifier.contains(importlib.metadata.version(wanted.name)), line
import pytest, safetensors, tokenizers, torch, transformers, zstandard
EOF
}

if ! is_complete; then
  mkdir -p build
  echo "setup: installing PyTorch into $venv (3.2 GB to download, 6.3 GB on disk)" >&2
  if ! { python3 -m venv "$venv" && "$python" -m pip install -r training/requirements.txt; } >build/setup_torch.log 2>&1
  then
    tail -n 20 build/setup_torch.log >&2
    echo "setup: the whole log is build/setup_torch.log; python3 -m venv needs Debian's python3-venv" >&2
    exit 1
  fi
fi
echo "$python"
