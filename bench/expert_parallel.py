#!/usr/bin/env python3
"""A layer's time on 4 ranks over links of several speeds, beside the per-expert baseline.

    bench/expert_parallel.py [--c2r build/release/c2r] [--data ../shared/data] [--tokens N] [--rounds N]
                             [--chunks N] [--flop-per-byte R ...] [--plan-seconds S] [--work FOLDER]
                             [--only NAME]

Needs root and Open MPI, for the cluster of namespaces (tools/cluster.sh). Two layers:
  qwen1.5-moe   its shape, routed by the public trace of gpt-oss-20b (32 experts, top-4), layer 8;
                placed for the even sequences, run on odd ones
  llama-moe     its shape and real statistics: choices drawn from the published pair counts of layer 8
                without constraint, which for top-2 are the whole distribution; placed for other draws
Each link speed stands for a system: what a rank computes (measured first, all ranks at once) over the
bytes that its link carries, in FLOP per byte. 312 TFLOP/s of an A100 over 25 GB/s of a 200 Gb/s adapter
are 12,500, over 600 GB/s of NVLink 520. "even" is where the baseline's bytes take as long as its FLOPs;
experts are placed for the least predicted time at about that speed.
Prints Markdown tables. The cluster's name is c2rbench, so that another one is left alone.
"""
import argparse
import json
import os
import pathlib
import random
import re
import statistics
import struct
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAYER = 8
RANKS = 4


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True, check=False,
                          **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def read_counts(path):
    """A little-endian i64 array [layers, experts, experts] as nested lists."""
    raw = path.read_bytes()
    header_size = struct.unpack("<H", raw[8:10])[0]
    header = raw[10:10 + header_size].decode("latin-1")
    assert "'<i8'" in header and "'fortran_order': False" in header, header
    layers, experts, _ = map(int, re.search(r"'shape': \((\d+), (\d+), (\d+)\)", header).groups())
    values = struct.unpack(f"<{layers * experts * experts}q", raw[10 + header_size:])
    rows = [values[i:i + experts] for i in range(0, len(values), experts)]
    return [rows[i:i + experts] for i in range(0, len(rows), experts)]


def write_llama_trace(c2r, counts_path, folder, num_tokens):
    """Tokens that choose pairs as often as the published counts say; 64 sequences."""
    rng = random.Random(1)
    columns = []
    for counts in read_counts(counts_path):
        pairs = [(a, b) for a in range(len(counts)) for b in range(a)]
        columns.append(rng.choices(pairs, [counts[a][b] for a, b in pairs], k=num_tokens))
    ids = bytes(expert for token in zip(*columns) for pair in token for expert in pair)
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({num_tokens}, {len(columns)}, 2), }}"
    header = header.ljust(118 - 1) + "\n"
    npy = folder / "llama_ids.npy"
    npy.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + ids)
    length = num_tokens // 64
    with open(folder / "llama_sequences.csv", "w", encoding="ascii") as file:
        file.write("seq,row_start,n_tokens\n")
        for sequence in range(64):
            file.write(f"{sequence},{sequence * length},{length}\n")
    trace = folder / "llama.safetensors"
    run(c2r, "import", "--from", "npy", npy, "--sequences", folder / "llama_sequences.csv", "--model-name",
        "llama-moe", "--num-experts", "8", "-o", trace)
    return trace


def make_problems(args):
    folder = args.work
    folder.mkdir(parents=True, exist_ok=True)
    gpt_oss = args.data / "traces" / "gpt-oss-20b"
    qwen = folder / "gpt_oss.safetensors"
    run(args.c2r, "import", "--from", "npy", gpt_oss / "expert_ids_u8.npy.xz", "--sequences",
        gpt_oss / "sequences.csv", "--model-name", "gpt-oss-20b", "--num-experts", "32", "-o", qwen)
    llama = write_llama_trace(args.c2r, args.data / "c2r-official" / "llama_moe_3_5b_2_8_base_i64.npy",
                              folder, 64 * 64 * RANKS)
    problems = []
    for name, trace, hidden, intermediate, even in (("qwen1.5-moe", qwen, 2048, 1408, 5600),
                                                    ("llama-moe", llama, 4096, 1376, 2900)):
        if args.only and name != args.only:
            continue
        plan, cluster = folder / f"{name}.json", folder / f"{name}_cluster.json"
        # A time's optimum depends on the ratio of the two rates alone.
        cluster.write_text(json.dumps({
            "num_nodes": 1, "ranks_per_node": RANKS, "device_flop_per_s": 1e12,
            "intra_node": {"bandwidth_bytes_per_s": 1e12 / even, "latency_s": 0}}))
        run(args.c2r, "plan", trace, "--cluster", cluster, "--fit", "even", "--minimize", "time", "--hidden",
            hidden, "--intermediate", intermediate, "--seconds", args.plan_seconds, "-o", plan)
        problems.append((name, trace, plan))
    return problems


def bench_words(args, problem):
    name, trace, plan = problem
    words = [args.c2r, "bench", "layer", name, "--trace", trace, "--plan", plan, "--layer", LAYER, "--on",
             "odd", "--tokens", args.tokens, "--rounds", args.rounds, "--ablate", "--timeout", 120, "--json"]
    return words + (["--chunks", args.chunks] if args.chunks else [])


def communication_share(variant):
    """Of the time of a round, what ranks do not compute experts in: medians, of the median rank."""
    phases = variant["phase_seconds"]
    computed = [a + b for a, b in zip(phases["experts"], phases["local_work"])]
    return 1 - statistics.median(computed) / variant["median_s"]


def busiest_bytes(variant):
    """The most that a rank sends or receives, there and back."""
    total = 0
    for key in ("dispatch_bytes", "combine_bytes"):
        links = variant[key]
        total += max(max(sum(row) for row in links), max(map(sum, zip(*links))))
    return total


def in_cluster(args, mbit, words):
    cluster = ROOT / "tools" / "cluster.sh"
    env = {**os.environ, "C2R_CLUSTER": "c2rbench"}
    run(cluster, "down", env=env)
    run(cluster, "up", f"1x{RANKS}", "--link", mbit, "--node", 100000, "--seconds", 3600, env=env)
    try:
        return json.loads(run(cluster, "run", *words, env=env))
    finally:
        run(cluster, "down", env=env)


def measure(args, problem):
    """Prints a table for one layer: a row for each speed, and the share of each ingredient."""
    alone = json.loads(run(*bench_words(args, problem), "--ranks", RANKS))
    baseline = alone["variants"][-1]
    rate = baseline["busiest_rank_flop"] / baseline["compute_only_s"]
    even = baseline["busiest_rank_flop"] / busiest_bytes(baseline)
    print(f"\n{problem[0]}, {args.tokens} tokens a rank; a rank computes {rate / 1e9:.1f} GFLOP/s beside "
          f"the others; the baseline does {even:.0f} FLOP for a byte\n")
    names = [v["name"] for v in alone["variants"]]
    print("| FLOP per byte | in the run | Mbit/s | chunks | " + " | ".join(names[:-1]) +
          " | baseline ms | it communicates | its bytes ms | its FLOPs ms | our bytes ms | our FLOPs ms |")
    print("|---" * (len(names) + 9) + "|")
    for ratio in [r or even for r in args.flop_per_byte]:
        mbit = max(1, round(8 * rate / ratio / 1e6))
        speed = {"bandwidth_bytes_per_s": mbit * 1e6 / 8, "latency_s": 0}
        cluster = args.work / "cluster.json"
        cluster.write_text(json.dumps({"num_nodes": 1, "ranks_per_node": RANKS, "intra_node": speed}))
        result = in_cluster(args, mbit, [*bench_words(args, problem), "--cluster", cluster])
        (args.work / f"{problem[0]}_{mbit}.json").write_text(json.dumps(result))
        variants = result["variants"]
        ours, base = variants[0], variants[-1]
        in_the_run = base["busiest_rank_flop"] / base["compute_only_s"] / (mbit * 1e6 / 8)
        cells = [f"{ratio:.0f}{' (even)' if ratio == even else ''}", f"{in_the_run:.0f}", f"{mbit}",
                 f"{ours['num_chunks']}"]
        cells += [f"{v['ratio_to_baseline']:.2f} ({v['ratio_of_best_to_baseline']:.2f})"
                  for v in variants[:-1]]
        cells += [f"{1e3 * base['median_s']:.0f}", f"{100 * communication_share(base):.0f} %"]
        cells += [f"{1e3 * s:.0f}" for s in (base["links_bound_s"], base["compute_only_s"],
                                           ours["links_bound_s"], ours["compute_only_s"])]
        print("| " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--c2r", type=pathlib.Path, default=ROOT / "build" / "release" / "c2r")
    parser.add_argument("--data", type=pathlib.Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build" / "bench")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunks", type=int, help="default: as c2r bench chooses")
    parser.add_argument("--flop-per-byte", type=float, nargs="*", default=[500, 2500, 0, 12500],
                        help="0: where the baseline's bytes take as long as its FLOPs")
    parser.add_argument("--plan-seconds", type=float, default=120)
    parser.add_argument("--only", help="qwen1.5-moe or llama-moe")
    args = parser.parse_args()
    args.c2r, args.work = args.c2r.resolve(), args.work.resolve()
    for problem in make_problems(args):
        measure(args, problem)


if __name__ == "__main__":
    main()
