#!/bin/sh
# Builds the fuzzer and runs it on each loader for SECONDS, two at a time. Fails if one crashed, ran
# out of memory or hung; the input is kept in build/asan/findings.
# usage: tools/fuzz.sh SECONDS [LOADER...]
set -eu
if [ $# -lt 1 ]; then
  echo "usage: tools/fuzz.sh SECONDS [LOADER...]" >&2
  exit 2
fi
seconds=$1
shift
cd "$(dirname "$0")/.."
cmake --preset asan >/dev/null
cmake --build --preset asan --target fuzz_loader

seeds=$PWD/build/asan/tests/malformed
cd build/asan
mkdir -p findings corpora
[ $# -gt 0 ] || set -- $(tests/fuzz/fuzz_loader list)

# Importers write their output in memory, not on the disk.
TMPDIR=$(mktemp -d /dev/shm/c2r_fuzz.XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

run_one() {
  loader=$1
  # Where a loader reads folders, the fuzzer starts without seeds.
  mkdir -p "corpora/$loader" "$seeds/well_formed/$loader" "$seeds/files/$loader"
  if tests/fuzz/fuzz_loader -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
      -artifact_prefix="findings/$loader-" "corpora/$loader" "$seeds/well_formed/$loader" \
      "$seeds/files/$loader" -ignore_remaining_args=1 "$loader" \
      >"findings/$loader.log" 2>&1; then
    echo "$loader: ok, $(ls "corpora/$loader" | wc -l) inputs kept"
  else
    echo "$loader: FAILED, see $PWD/findings/$loader.log" >&2
    tail -n 5 "findings/$loader.log" >&2
    return 1
  fi
}

status=0
while [ $# -gt 0 ]; do
  run_one "$1" &
  first=$!
  shift
  if [ $# -gt 0 ]; then
    run_one "$1" || status=1
    shift
  fi
  wait "$first" || status=1
done
exit $status
