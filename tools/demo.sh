#!/usr/bin/env bash
# The main job on real input: import a public trace, see how its experts work together, write lists.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${C2R_DATA_DIR:-../shared/data}
source=$data/traces/gpt-oss-20b
out=build/demo
c2r=build/release/c2r

if [ ! -e "$source/expert_ids_u8.npy.xz" ]; then
  echo "demo: the gpt-oss-20b trace is not in $source" >&2
  echo "demo: put it there, or name the folder above traces/ with C2R_DATA_DIR=..." >&2
  exit 1
fi
mkdir -p "$out"
run() { echo "\$ $*"; "$@"; }

run $c2r import --from npy "$source/expert_ids_u8.npy.xz" --sequences "$source/sequences.csv" \
  --model gpt-oss-20b --num-experts 32 -o $out/trace.safetensors
echo
$c2r analyze $out/trace.safetensors --heat-map none -o $out/statistics.safetensors >$out/analysis.txt
echo "\$ $c2r analyze $out/trace.safetensors          (all 24 layers: $out/analysis.txt)"
sed -n '3p; /^\(0\|10\|22\|mean\) /p' $out/analysis.txt
echo
run $c2r collaborators $out/statistics.safetensors --top-t 12 -o $out/collaborators.json
echo
read -r _ _ _ _ partners _ _ _ ranks_of_8 < <(grep '^mean ' $out/analysis.txt)
cat <<TEXT
What this says: of 31 other experts, an expert really works with about $partners. With experts split in order
over 8 ranks a token has to reach $ranks_of_8 of them; sent once per expert it would cost 4 copies.
Putting collaborators on one rank, and routing among collaborators, is what c2r is for.
See the groups yourself:
  $c2r analyze $out/statistics.safetensors --heat-map 18
TEXT
