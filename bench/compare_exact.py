#!/usr/bin/env python3
"""`c2r plan` beside proved optima: the same objective, solved exactly by HiGHS.

    pip install numpy highspy
    bench/compare_exact.py build/release/c2r ../shared/data

Copies of a token = the distinct ranks of its experts; every rank gets equally many experts, and with a
bound no rank more than bound x the mean load. HiGHS chooses among all possible contents of a rank
(set partitioning), which is the whole problem; an optimum counts where it proves it within --seconds
a layer, and layers that no placement can balance so well are left out. Exits with 1 if a layer is 1 %
above its optimum or below it, or nothing is proved.
"""
import argparse
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import highspy
import numpy as np

import gpt_oss


def official_matrix(data, name):
    """The tokens behind pair counts of a top-2 router. [num_tokens, num_layers, 2]"""
    layers = np.load(data / f"c2r-official/llama_moe_3_5b_2_8_{name}_i64.npy")
    first, second = np.triu_indices(layers.shape[1], 1)
    pairs = np.stack([first, second], axis=1)
    # Published matrices count each pair both ways.
    return np.stack([np.repeat(pairs, m[first, second], axis=0) for m in layers], axis=1)


def first_experts(data, num_experts, layers):
    """The choices of even sequences among the first experts; -1 where a token chose others."""
    ids = gpt_oss.even_and_odd_tokens(data)[0][:, layers]
    return np.where(ids < num_experts, ids.astype(np.int16), -1)


def distinct_sets(topk_idx, num_experts):
    """Bit masks of the sets that tokens choose, and how many choose each."""
    bits = np.where(topk_idx >= 0, np.uint32(1) << (topk_idx % num_experts).astype(np.uint32), 0)
    return np.unique(np.bitwise_or.reduce(bits.astype(np.uint32), axis=1), return_counts=True)


def copies_on(ranks, sets, counts):
    """The tokens that visit each of `ranks`, bit masks of experts."""
    return np.concatenate([((part[:, None] & sets) != 0) @ counts
                           for part in np.array_split(ranks, len(ranks) // 500 + 1)])


def loads_of(ranks, sets, counts, num_experts):
    load = np.array([counts[(sets >> e & 1) == 1].sum() for e in range(num_experts)])
    held = (ranks[:, None] >> np.arange(num_experts, dtype=np.uint32) & 1) == 1
    return held @ load


def exact(sets, counts, num_experts, ep_size, max_imbalance, seconds):
    """Least copies in all; infinite if no placement is within the bound, None if not proved in time."""
    contents = np.array(list(itertools.combinations(range(num_experts), num_experts // ep_size)))
    ranks = np.bitwise_or.reduce(np.uint32(1) << contents.astype(np.uint32), axis=1)
    if max_imbalance:
        loads = loads_of(ranks, sets, counts, num_experts)
        mean_load = np.bitwise_count(sets).astype(np.int64) @ counts / ep_size
        is_allowed = loads <= max_imbalance * mean_load
        contents, ranks = contents[is_allowed], ranks[is_allowed]
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(contents), num_experts
    lp.col_cost_ = copies_on(ranks, sets, counts).astype(float)
    lp.col_lower_, lp.col_upper_ = np.zeros(len(contents)), np.ones(len(contents))
    lp.row_lower_ = lp.row_upper_ = np.ones(num_experts)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = np.arange(len(contents) + 1) * contents.shape[1]
    lp.a_matrix_.index_ = contents.ravel()
    lp.a_matrix_.value_ = np.ones(contents.size)
    lp.integrality_ = [highspy.HighsVarType.kInteger] * len(contents)
    solver = highspy.Highs()
    for option, value in (("output_flag", False), ("threads", 1), ("time_limit", float(seconds)),
                          ("mip_rel_gap", 0.0), ("mip_abs_gap", 0.5)):
        solver.setOptionValue(option, value)
    solver.passModel(lp)
    solver.run()
    if solver.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
        return np.inf
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    return round(solver.getInfo().objective_function_value)


def plan(c2r, trace, ep_size, max_imbalance, folder):
    """The bit masks of the ranks' experts, layer by layer."""
    subprocess.run([c2r, "plan", trace, "--cluster", f"1x{ep_size}", "--max-imbalance",
                    str(max_imbalance or 1e9), "-o", folder / "plan.json"], check=True,
                   stdout=subprocess.DEVNULL)
    layers = json.loads((folder / "plan.json").read_text())["layers"]
    return [np.array([sum(1 << e for e in rank) for rank in layer["slots"]], dtype=np.uint32)
            for layer in layers]


def compare(c2r, name, ids, num_experts, ep_size, max_imbalance, seconds):
    """Prints one row. @returns the relative excess of each proved layer over its optimum."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        np.save(folder / "ids.npy", ids)
        subprocess.run([c2r, "import", "--from", "npy", folder / "ids.npy", "--num-experts",
                        str(num_experts), "-o", folder / "trace"], check=True,
                       stdout=subprocess.DEVNULL)
        start = time.monotonic()
        layers = plan(c2r, folder / "trace", ep_size, max_imbalance, folder)
        c2r_seconds = time.monotonic() - start
    start = time.monotonic()
    rows, num_infeasible = [], 0
    for layer, ranks in enumerate(layers):
        sets, counts = distinct_sets(ids[:, layer], num_experts)
        optimum = exact(sets, counts, num_experts, ep_size, max_imbalance, seconds)
        if optimum == np.inf:
            num_infeasible += 1
        elif optimum is not None:
            rows.append((copies_on(ranks, sets, counts).sum(), optimum))
    exact_seconds = time.monotonic() - start
    ours, optima = np.array(rows).reshape(-1, 2).T
    excess = ours / optima - 1
    numbers = (f"{optima.mean() / len(ids):.4f} | {ours.mean() / len(ids):.4f} | "
               f"{100 * excess.max():.3f} %" if rows else "| |")
    print(f"| {name} | {num_experts} | {ep_size} | {max_imbalance or 'none'} | {len(rows)} of "
          f"{len(layers) - num_infeasible} | {numbers} | {exact_seconds:.0f} | {c2r_seconds:.1f} |",
          flush=True)
    return excess


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("c2r", help="the program")
    parser.add_argument("data", type=pathlib.Path, help="the folder of traces/ and c2r-official/")
    parser.add_argument("--seconds", type=float, default=60, help="for HiGHS, a layer")
    args = parser.parse_args()

    some = [0, 12]
    instances = [(f"LLaMA-MoE, {name}", official_matrix(args.data, name), 8, ep_size, bound)
                 for name in ("base", "topt_1", "topt_5") for ep_size in (2, 4)
                 for bound in (None, 1.1)]
    for num_experts, ep_size in ((16, 4), (20, 5), (24, 6)):
        ids = first_experts(args.data, num_experts, some)
        instances += [("gpt-oss-20b", ids, num_experts, ep_size, bound) for bound in (None, 1.05)]
    print("| model | experts | ranks | bound on imbalance | layers proved | optimum, copies | c2r | "
          "worst layer | HiGHS, s | c2r, s |\n|---|---|---|---|---|---|---|---|---|---|")
    excess = np.concatenate([compare(args.c2r, *instance, args.seconds) for instance in instances])
    return 0 if len(excess) > 0 and excess.min() >= 0 and excess.max() <= 0.01 else 1


if __name__ == "__main__":
    sys.exit(main())
