#!/usr/bin/env bash
# Builds the wheel of the Python package in build/wheel, unless the one there was built of the same sources, and
# prints its path.
#   PYTHON=PROGRAM   that builds it; default: python3
set -euo pipefail
cd "$(dirname "$0")/.."
folder=build/wheel
python=${PYTHON:-python3}

# What the wheel is made of, and for which Python.
sources() {
  "$python" --version
  git ls-files -z -co --exclude-standard -- c2r cmake python/c2r python/src python/CMakeLists.txt CMakeLists.txt \
    pyproject.toml README.md LICENSE | sort -z | while IFS= read -r -d '' file; do
      if [ -f "$file" ]; then sha256sum "$file"; fi
    done
}

hash=$(sources | sha256sum | cut -d ' ' -f 1)
if [ "$(cat "$folder/sources" 2>/dev/null)" != "$hash" ]; then
  rm -rf "$folder"
  mkdir -p "$folder"
  if ! "$python" -m pip wheel --no-deps -w "$folder" . >build/wheel.log 2>&1; then
    tail -n 30 build/wheel.log >&2
    echo "build_wheel: the whole log is build/wheel.log" >&2
    exit 1
  fi
  echo "$hash" >"$folder/sources"
fi
ls "$folder"/*.whl
