#!/usr/bin/env python3
"""`c2r plan` beside Mt-KaHyPar, the strongest hypergraph partitioner, on gpt-oss-20b.

    pip install numpy mtkahypar
    bench/compare_partitioners.py build/release/c2r ../shared/data

Fits on the even sequences and measures on the odd ones; means over the layers. Every rank gets equally
many experts, and with a bound no rank more than bound x the mean load. Mt-KaHyPar balances one weight:
an expert weighs B + its load, where B is the largest load that is allowed, so that no block within the
largest weight of a block can hold an expert too many. Exits with 1 if c2r is worse in any layer.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import mtkahypar
import numpy as np

import gpt_oss


def by_mtkahypar(instance, topk_idx, ep_size, max_imbalance, seed):
    """The rank of each expert of one layer. topk_idx [num_tokens, top_k]."""
    slots = gpt_oss.NUM_EXPERTS // ep_size
    sets, counts = np.unique(np.sort(topk_idx, axis=1), axis=0, return_counts=True)
    weights, epsilon = [1] * gpt_oss.NUM_EXPERTS, 0.0
    if max_imbalance:
        loads = np.bincount(topk_idx.ravel(), minlength=gpt_oss.NUM_EXPERTS)
        largest_load = max_imbalance * loads.sum() / ep_size
        slot_weight = int(largest_load) + 1
        weights = [slot_weight + int(load) for load in loads]
        epsilon = (slots * slot_weight + largest_load) / (sum(weights) / ep_size) - 1
    context = instance.context_from_preset(mtkahypar.PresetType.HIGHEST_QUALITY)
    context.set_partitioning_parameters(ep_size, epsilon, mtkahypar.Objective.KM1)
    context.logging = False
    mtkahypar.set_seed(seed)
    graph = instance.create_hypergraph(
        context, gpt_oss.NUM_EXPERTS, len(sets), [list(map(int, s)) for s in sets], weights,
        [int(c) for c in counts])
    result = graph.partition(context)
    return np.array([result.block_id(e) for e in range(gpt_oss.NUM_EXPERTS)])


def by_c2r(c2r, ids, ep_size, max_imbalance, seed):
    """The rank of each expert, layer by layer. ids [num_tokens, num_layers, top_k]."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        np.save(folder / "ids.npy", ids)
        subprocess.run([c2r, "import", "--from", "npy", folder / "ids.npy", "--num-experts",
                        str(gpt_oss.NUM_EXPERTS), "-o", folder / "trace"], check=True,
                       stdout=subprocess.DEVNULL)
        subprocess.run([c2r, "plan", folder / "trace", "--cluster", f"1x{ep_size}", "--seed",
                        str(seed), "--max-imbalance", str(max_imbalance or 1e9), "--prove", "-o",
                        folder / "plan.json"], check=True, stdout=subprocess.DEVNULL)
        layers = json.loads((folder / "plan.json").read_text())["layers"]
    rank_of = np.empty((len(layers), gpt_oss.NUM_EXPERTS), dtype=int)
    for layer, placed in enumerate(layers):
        for rank, experts in enumerate(placed["slots"]):
            rank_of[layer, experts] = rank
    return rank_of


def copies_per_token(rank_of, topk_idx, ep_size):
    visited = [(rank_of[topk_idx] == rank).any(axis=1) for rank in range(ep_size)]
    return np.sum(visited) / len(topk_idx)


def imbalance(rank_of, topk_idx, ep_size):
    loads = np.bincount(rank_of[topk_idx].ravel(), minlength=ep_size)
    return loads.max() / loads.mean()


def is_within(rank_of, topk_idx, ep_size, max_imbalance):
    has_equal_slots = len(set(np.bincount(rank_of, minlength=ep_size))) == 1
    return has_equal_slots and (not max_imbalance or
                                imbalance(rank_of, topk_idx, ep_size) <= max_imbalance)


def print_row(name, ranks, halves, ep_size, max_imbalance, seconds):
    """@returns the copies of each layer on the fitted tokens, and whether it is within the bound."""
    fitted, measured = halves
    layers = range(fitted.shape[1])
    within = [is_within(ranks[l], fitted[:, l], ep_size, max_imbalance) for l in layers]
    numbers = [[f(ranks[l], half[:, l], ep_size) for half in halves
                for f in (copies_per_token, imbalance)] for l in layers]
    mean = np.mean(numbers, axis=0)
    print(f"| {name} | {ep_size} | {max_imbalance or 'none'} | {mean[0]:.4f} | {mean[1]:.3f} | "
          f"{mean[2]:.4f} | {mean[3]:.3f} | {len(within) - sum(within)} | {seconds:.1f} |",
          flush=True)
    return np.array(numbers)[:, 0], np.array(within)


def compare(c2r, instance, halves, ep_size, max_imbalance, seed):
    """@returns in how many layers c2r is worse: more copies, or out of a bound that can be kept."""
    start = time.monotonic()
    theirs = [by_mtkahypar(instance, halves[0][:, layer], ep_size, max_imbalance, seed)
              for layer in range(halves[0].shape[1])]
    middle = time.monotonic()
    ours = by_c2r(c2r, halves[0], ep_size, max_imbalance, seed)
    end = time.monotonic()
    copies, within = print_row("Mt-KaHyPar", theirs, halves, ep_size, max_imbalance, middle - start)
    our_copies, our_within = print_row("c2r", ours, halves, ep_size, max_imbalance, end - middle)
    both = within & our_within
    if both.any():
        print(f"| in the {both.sum()} layers that both keep within: Mt-KaHyPar, c2r | {ep_size} | "
              f"{max_imbalance or 'none'} | {copies[both].mean():.4f}, "
              f"{our_copies[both].mean():.4f} | | | | | |", flush=True)
    return int(np.sum(within & (~our_within | (our_copies > copies))))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("c2r", help="the program")
    parser.add_argument("data", type=pathlib.Path, help="the folder of traces/")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    halves = gpt_oss.even_and_odd_tokens(args.data)
    print("| by | ranks | bound on imbalance | copies, fitted | imbalance, fitted | copies, odd | "
          "imbalance, odd | layers out of bound | s |\n|---|---|---|---|---|---|---|---|---|")
    instance = mtkahypar.initialize(2)
    num_worse = sum(compare(args.c2r, instance, halves, ep_size, bound, args.seed)
                    for ep_size in (4, 8) for bound in (None, 1.1, 1.05))
    print(f"\nc2r is worse than Mt-KaHyPar in {num_worse} layers")
    return 0 if num_worse == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
