#!/usr/bin/env python3
"""What `c2r plan` costs, and what ten times the effort would gain.

    pip install numpy
    bench/plan_speed.py build/release/c2r gpt-oss-20b.safetensors

gpt-oss-20b is the public trace: 24 layers, 32 experts, top-4, 8 ranks, fitted on the even sequences. The
other problem is drawn in DeepSeek-V3's shape: 58 layers (--layers), 256 experts, top-8, 100,000 tokens a
layer, 8 nodes of 8 ranks with one redundant slot each, all tokens fitted. Seconds are the whole command's:
what one waits for it on all cores, and what its threads compute. Memory is at least what this script itself
had, as Linux counts it. Exits with 1 if ten times the effort saves over 2 %.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np

NUM_EXPERTS, TOP_K, NUM_TOKENS, NUM_TOPICS = 256, 8, 100_000, 64


def draw_layer(rng):
    """The choices of one layer, clustered and skewed as a trained router's. [NUM_TOKENS, TOP_K]

    Tokens draw a topic, the first ones more often, then the largest of the topic's preference + the
    expert's popularity + Gumbel noise: as c2r/placement/search/optimize_problems_internal.h.
    """
    preference = 1.5 * rng.gumbel(size=(NUM_TOPICS, NUM_EXPERTS))
    preference += 0.5 * rng.gumbel(size=NUM_EXPERTS)
    share = 1 / np.sqrt(1 + np.arange(NUM_TOPICS))
    topic = rng.choice(NUM_TOPICS, size=NUM_TOKENS, p=share / share.sum())
    chosen = np.empty((NUM_TOKENS, TOP_K), dtype=np.uint16)
    for part in np.array_split(np.arange(NUM_TOKENS), 20):
        scores = preference[topic[part]] + rng.gumbel(size=(len(part), NUM_EXPERTS))
        chosen[part] = np.argpartition(-scores, TOP_K, axis=1)[:, :TOP_K]
    return chosen


def draw_trace(c2r, num_layers, folder):
    rng = np.random.default_rng(1)
    np.save(folder / "ids.npy", np.stack([draw_layer(rng) for _ in range(num_layers)], axis=1))
    subprocess.run([c2r, "import", "--from", "npy", folder / "ids.npy", "--num-experts",
                    str(NUM_EXPERTS), "-o", folder / "trace"], check=True,
                   stdout=subprocess.DEVNULL)
    (folder / "ids.npy").unlink()
    return folder / "trace"


def plan(words, folder):
    """@returns seconds waited and of CPU, peak memory in MB, and a token's copy cost, a mean over layers."""
    start = time.monotonic()
    with open(folder / "out", "w+", encoding="utf-8") as out:
        pid = os.posix_spawn(words[0], [str(w) for w in words] + ["-o", str(folder / "plan.json")],
                             os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), 1)])
        _, status, usage = os.wait4(pid, 0)
        waited = time.monotonic() - start
        out.seek(0)
        text = out.read()
    if status != 0:
        sys.exit(f"{' '.join(map(str, words))} failed")
    copies = float(re.search(r"copies (?:per token )?of ([0-9.]+)", text).group(1))
    return waited, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6, copies


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("c2r", type=pathlib.Path, help="the program")
    parser.add_argument("trace", type=pathlib.Path, help="gpt-oss-20b, imported as docs/placement.md says")
    parser.add_argument("--layers", type=int, default=58, help="of the drawn problem")
    args = parser.parse_args()
    c2r = args.c2r.resolve()
    worst = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        gpt_oss = [c2r, "plan", args.trace, "--cluster", "1x8", "--fit", "even"]
        deepseek = [c2r, "plan", draw_trace(c2r, args.layers, folder), "--cluster", "8x8",
                    "--redundant-slots", "1"]
        print("| problem | bound on imbalance | waited, s | CPU, s | memory, MB | copy cost | with ten times "
              "the effort |\n|---|---|---|---|---|---|---|")
        for name, words in (("gpt-oss-20b, 8 ranks", gpt_oss),
                            ("DeepSeek-V3-shaped, 8x8", deepseek)):
            for bound in ("1e9", "1.1"):
                words_of_bound = [*words, "--max-imbalance", bound]
                waited, cpu_seconds, memory, copies = plan(words_of_bound, folder)
                longest, _, _, fewest = plan([*words_of_bound, "--effort", "10"], folder)
                worst = max(worst, copies / fewest - 1)
                print(f"| {name} | {'none' if bound == '1e9' else bound} | {waited:.1f} | "
                      f"{cpu_seconds:.1f} | {memory:.0f} | {copies:.4f} | {fewest:.4f} ({100 * (fewest / copies - 1):+.2f} %, "
                      f"{longest:.0f} s) |", flush=True)
    return 0 if worst <= 0.02 else 1


if __name__ == "__main__":
    sys.exit(main())
