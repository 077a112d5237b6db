#!/usr/bin/env python3
"""Copies and CPU time of `c2r plan` over numbers of tokens and efforts, on clustered synthetic traces.

    pip install numpy
    bench/search_sweep.py build/release/c2r --tokens 1000 4000 16000 64000 --efforts 1 2 4 8
    bench/search_sweep.py build/release/c2r --experts 256 --top-k 8 --cluster 8x8 --redundant-slots 1

A row is a trace of bench/clustered_trace.py, a column an effort: copies a token of the placement and the CPU
seconds of the whole command. More effort must not cost copies, and twice the tokens or the effort must take at
most 2.5 times as long, beyond the half second that reading and predicting take. Exits with 1 otherwise.
"""
import argparse
import json
import math
import pathlib
import resource
import subprocess
import sys
import tempfile

START_S = 0.5  # of reading, predicting and the process itself, which no doubling is of
MOST_GROWTH = 2.5


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def make_trace(options, tokens, folder):
    drawn, trace = folder / "drawn", folder / f"{tokens}.safetensors"
    here = pathlib.Path(__file__).resolve().parent
    subprocess.run([sys.executable, here / "clustered_trace.py", "--experts", str(options.experts), "--top-k",
                    str(options.top_k), "--tokens", str(tokens), "--layers", str(options.layers), "--seed",
                    str(options.seed), "-o", drawn], check=True)
    subprocess.run([options.c2r, "import", "--from", "npy", drawn / "expert_ids.npy", "--sequences",
                    drawn / "sequences.csv", "--num-experts", str(options.experts), "-o", trace],
                   check=True, stdout=subprocess.DEVNULL)
    return trace


def plan(options, trace, effort):
    """(copies a token, CPU seconds)"""
    before = cpu_seconds()
    path = trace.with_suffix(".json")
    subprocess.run([options.c2r, "plan", trace, "--cluster", options.cluster, "--redundant-slots",
                    str(options.redundant_slots), "--max-imbalance", str(options.max_imbalance), "--effort",
                    str(effort), "-o", path], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    spent = cpu_seconds() - before
    copies = json.loads(path.read_text())["predictions"][-1]["copies_per_token"]
    return sum(copies) / len(copies), spent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("c2r", type=pathlib.Path)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--top-k", type=int, default=6)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cluster", default="1x4")
    parser.add_argument("--redundant-slots", type=int, default=0)
    parser.add_argument("--max-imbalance", type=float, default=1.1)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1000, 4000, 16000, 64000])
    parser.add_argument("--efforts", type=float, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    options.c2r = options.c2r.resolve()

    wrong, column = [], {}
    print(f"{'tokens':>8} " + " ".join(f"{'effort ' + format(e, 'g'):>16}" for e in options.efforts))
    with tempfile.TemporaryDirectory() as name:
        for tokens in options.tokens:
            trace = make_trace(options, tokens, pathlib.Path(name))
            row = [plan(options, trace, effort) for effort in options.efforts]
            print(f"{tokens:8} " + " ".join(f"{copies:8.4f} {spent:5.1f} s" for copies, spent in row), flush=True)
            for (copies, spent), (more, longer), a, b in zip(row, row[1:], options.efforts, options.efforts[1:]):
                if more > copies * (1 + 1e-9):
                    wrong.append(f"{tokens} tokens: effort {b:g} has more copies than {a:g}")
                if longer > START_S + MOST_GROWTH ** math.log2(b / a) * spent:
                    wrong.append(f"{tokens} tokens: effort {b:g} takes {longer / spent:.1f} times as long as {a:g}")
            for effort, (_, spent) in zip(options.efforts, row):
                before_tokens, before = column.get(effort, (None, None))
                if before and spent > START_S + MOST_GROWTH ** math.log2(tokens / before_tokens) * before:
                    wrong.append(f"effort {effort:g}: {tokens} tokens take {spent / before:.1f} times as long as "
                                 f"{before_tokens}")
                column[effort] = (tokens, spent)
    print("\n".join(wrong) or "copies and times grow as they should")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
