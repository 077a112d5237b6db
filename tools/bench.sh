#!/usr/bin/env bash
# Runs every benchmark program of the release build. Arguments are Google Benchmark's, for example
#   tools/bench.sh --benchmark_filter=BM_Route --benchmark_repetitions=5
set -euo pipefail
cd "$(dirname "$0")/.."
for program in build/release/*_bench; do
  echo "== $(basename "$program")"
  case "$program" in
    *_mpi_bench) "$program" ;;  # has its own arguments
    *) "$program" "$@" ;;
  esac
done
