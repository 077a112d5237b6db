#!/usr/bin/env bash
# The main job on a model and a text that every Debian machine can have: record the routing, see how
# the experts work together, place them on 4 ranks, and run the ranks both ways.
set -euo pipefail
cd "$(dirname "$0")/.."
model=models/nano-qwen-moe
out=build/demo
c2r=build/release/c2r
trap '[ $? -eq 0 ] || echo "demo: failed; what it wrote so far is in $out" >&2' EXIT
mkdir -p "$out"

# English prose: the Debian FAQ, out of its package, which need not be installed.
get_prose() {
  local folder
  folder=$(mktemp -d)
  chmod 755 "$folder"
  (cd "$folder" && apt-get download -q debian-faq && dpkg-deb -x debian-faq_*.deb .) >"$out/prose.log" 2>&1 || {
    cat "$out/prose.log" >&2
    echo "demo: apt-get could not download the package debian-faq; after apt-get update it may" >&2
    return 1
  }
  zcat "$folder/usr/share/doc/debian/FAQ/debian-faq.en.txt.gz" >"$out/prose.new"
  mv "$out/prose.new" "$out/prose.txt"
  rm -r "$folder"
}
[ -s "$out/prose.txt" ] || get_prose

say() { echo "\$ $*"; }
# Progress and such is not for this screen; mistakes are.
quietly() { "$@" 2>"$out/stderr.log" || { cat "$out/stderr.log" >&2; return 1; }; }
of_config() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" $model/config.json; }
ranks() {
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun --oversubscribe --bind-to none -n 4 "$@"
}

cat <<'TEXT'
A Mixture-of-Experts model sends each token to a few of its experts. Where experts live on several machines, each
other machine that a token needs costs a copy over the wire. c2r puts those that work together on one machine.
TEXT
echo "== Which experts does $model choose for the Debian FAQ, and which of them together?"
say c2r profile $model --text $out/prose.txt --window 256 -o $out/trace.safetensors
quietly $c2r profile $model --text $out/prose.txt --window 256 -o $out/trace.safetensors
$c2r analyze $out/trace.safetensors --ranks 4 --heat-map-cells 16 -o $out/statistics.safetensors >$out/analysis.txt
sed -n '/^layer  /p; /^mean /p' $out/analysis.txt
sed -n '/^layer [0-9]*:/,/^experts from/{/^experts from/!p}' $out/analysis.txt

# 4 machines at 10 Gbit/s, each as fast as a desktop processor.
cat >$out/cluster.json <<'JSON'
{"num_nodes": 4, "ranks_per_node": 1,
 "intra_node": {"bandwidth_bytes_per_s": 1.25e9, "latency_s": 2e-5},
 "inter_node": {"bandwidth_bytes_per_s": 1.25e9, "latency_s": 2e-5},
 "device_flop_per_s": 2e11}
JSON
echo "== Where should they live, on 4 machines with 10 Gbit/s? Fitted on half of the text, counted on the rest"
say c2r plan $out/trace.safetensors --cluster $out/cluster.json --fit even -o $out/plan.json
quietly $c2r plan $out/trace.safetensors --cluster $out/cluster.json --fit even -o $out/plan.json >$out/plan.txt
quietly $c2r plan $out/trace.safetensors --cluster $out/cluster.json --method contiguous -o $out/contiguous.json \
  >$out/contiguous.txt
quietly $c2r simulate $out/plan.json $out/trace.safetensors --on odd --hidden "$(of_config hidden_size)" \
  --intermediate "$(of_config moe_intermediate_size)" >$out/simulate.txt
sed '/^predicted on/,$d' $out/simulate.txt
echo "  (copies and load counted; ms: predicted for a pass over these tokens)"

echo "== The same model on 4 ranks of this machine, with MPI, both ways; its memory is the wire, so times hardly differ"
say "mpirun -n 4 c2r score $model --text $out/prose.txt --window 256 --plan PLAN --copy-mode MODE"
# run_ranks PLAN MODE OUTPUT: a line with the result and the time; OUTPUT has what c2r says.
run_ranks() {
  local start=$EPOCHREALTIME
  quietly ranks $c2r score $model --text $out/prose.txt --window 256 --plan "$1" --copy-mode "$2" >"$3"
  awk -v name="$(basename "$1" .json), $2:" -v a="$start" -v b="$EPOCHREALTIME" \
    '{ printf "  %-24s %s, %.1f s\n", name, $0, b - a }' "$3"
}
run_ranks $out/contiguous.json per-expert $out/score_contiguous.txt
run_ranks $out/plan.json per-rank $out/score_plan.txt
# Each rounding to bf16 is off by 2^-9 at most, as often up as down; over this many tokens they cancel.
paste $out/score_contiguous.txt $out/score_plan.txt | awk '{
  difference = ($2 - $9) / $2
  if (difference < 0) difference = -difference
  if (!(difference < 2 ^ -9)) { print "demo: the two runs disagree" > "/dev/stderr"; exit 1 }
  printf "  they agree: a relative difference of %.0e, from another order of bf16 sums\n", difference }'

say c2r generate $model --prompt "'Once upon a time'" --max-new-tokens 40 --temperature 0.7 --seed 3
quietly $c2r generate $model --prompt "Once upon a time" --max-new-tokens 40 --temperature 0.7 --seed 3 >$out/text.txt
fold -s -w 110 $out/text.txt
quietly $c2r report $out/trace.safetensors --plan $out/plan.json --on odd --hidden "$(of_config hidden_size)" \
  --intermediate "$(of_config moe_intermediate_size)" -o $out/report.html
echo "== Should the plan be loaded, and why? All figures are on one page, which a browser opens: $out/report.html"
cat <<TEXT

Together on one rank means once over the wire. In $out/ are trace.safetensors, statistics.safetensors
and plan.json. Try next:
  $c2r analyze $out/statistics.safetensors --heat-map all
  $c2r compare $out/trace.safetensors $out/plan.json --on odd
  $c2r export $out/plan.json --to sglang -o $out/expert_location.json
TEXT
