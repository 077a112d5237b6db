#!/usr/bin/env bash
# Runs every benchmark program of the release build. Arguments are Google Benchmark's, for example
#   tools/bench.sh --benchmark_filter=BM_Route --benchmark_repetitions=5
# Fails after the last one if a benchmark said that its result is wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/release
# The one that this build's MPI has; as root, and with more ranks than processors, it wants to be told.
mpiexec=$(sed -n 's/^MPIEXEC_EXECUTABLE:[^=]*=//p' $build/CMakeCache.txt)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
output=$(mktemp)
trap 'rm -f "$output"' EXIT

failed=
for program in $build/*_bench; do
  name=$(basename "$program")
  echo "== $name"
  case $name in
    *_mpi_bench) command=("$mpiexec" -n 2 "$program") ;;  # has its own arguments
    *) command=("$program" "$@") ;;
  esac
  # Google Benchmark says an error in its table, and exits with 0.
  if ! "${command[@]}" | tee "$output" || grep -q 'ERROR OCCURRED' "$output"; then
    failed+=" $name"
  fi
done
if [ ! -e $build/transport_mpi_bench ]; then
  echo "== transport_mpi_bench: left out, because this build has no MPI"
fi
if [ -n "$failed" ]; then
  echo "bench: failed:$failed" >&2
  exit 1
fi
