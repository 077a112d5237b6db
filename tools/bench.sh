#!/usr/bin/env bash
# Runs every benchmark program of the release build. Arguments go to each, for example
#   tools/bench.sh --benchmark_filter=Router --benchmark_repetitions=5
set -euo pipefail
cd "$(dirname "$0")/.."
for program in build/release/*_bench; do
  echo "== $(basename "$program")"
  "$program" "$@"
done
