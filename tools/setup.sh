#!/usr/bin/env bash
# Installs the Debian packages that are missing. Quick, and silent, when none is.
#   tools/setup.sh build    what building and running needs
#   tools/setup.sh python   what `pip install .` needs
#   tools/setup.sh browser  what building and the tests of reports in a browser need
#   tools/setup.sh check    what building and `make check` need
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build

packages=(g++ cmake ninja-build git python3 libfmt-dev nlohmann-json3-dev liblzma-dev zlib1g-dev libzstd-dev
          libhwy-dev libeigen3-dev libcli11-dev libpcre2-dev libutf8proc-dev libyaml-cpp-dev pkg-config)
tests=(libgtest-dev libbenchmark-dev libopenmpi-dev)
python=(python3-dev python3-venv)
case "${1:-build}" in
  build) packages+=("${tests[@]}") ;;
  python) packages+=("${python[@]}") ;;
  browser) packages+=("${tests[@]}" python3-venv chromium) ;;
  check) packages+=("${tests[@]}" "${python[@]}" ccache clang clang-format clang-tidy libclang-rt-14-dev libmpich-dev mpich iproute2) ;;
  *) echo "usage: tools/setup.sh [build|python|browser|check]" >&2; exit 2 ;;
esac

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
    missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

echo "setup: installing ${missing[*]}"
sudo=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || {
    echo "setup: needs root, or sudo, to run: apt-get install ${missing[*]}" >&2
    exit 1
  }
  sudo=(sudo)
fi
if ! { "${sudo[@]}" apt-get update -q && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
       apt-get install -q -y --no-install-recommends "${missing[@]}"; } >build/setup.log 2>&1; then
  tail -n 20 build/setup.log >&2
  echo "setup: apt-get failed; the whole log is build/setup.log" >&2
  exit 1
fi
