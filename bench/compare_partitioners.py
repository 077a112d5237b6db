#!/usr/bin/env python3
"""Distinct ranks per token that Mt-KaHyPar reaches on a routing trace, to compare with `optimize`.

    pip install numpy mtkahypar
    bench/compare_partitioners.py expert_ids_u8.npy.xz sequences.csv --ep-size 8

Fits on the even sequences and measures on the odd ones. Every rank gets
the same number of experts; Mt-KaHyPar balances those (its balance can hold one weight only).
"""
import argparse
import csv
import lzma
import time

import mtkahypar
import numpy as np


def split_by_sequence(ids, sequences):
    """The tokens of even and of odd sequences."""
    halves = ([], [])
    with open(sequences, newline="") as file:
        for row in csv.DictReader(file):
            begin = int(row["row_start"])
            halves[int(row["seq"]) % 2].append(ids[begin:begin + int(row["n_tokens"])])
    return np.concatenate(halves[0]), np.concatenate(halves[1])


def partition(instance, topk_idx, num_experts, ep_size, seed):
    """The rank of each expert of one layer. topk_idx [num_tokens, top_k]."""
    sets, counts = np.unique(np.sort(topk_idx, axis=1), axis=0, return_counts=True)
    context = instance.context_from_preset(mtkahypar.PresetType.HIGHEST_QUALITY)
    context.set_partitioning_parameters(ep_size, 0.0, mtkahypar.Objective.KM1)
    context.logging = False
    mtkahypar.set_seed(seed)
    graph = instance.create_hypergraph(
        context, num_experts, len(sets), [list(map(int, s)) for s in sets],
        [1] * num_experts, [int(c) for c in counts])
    result = graph.partition(context)
    return np.array([result.block_id(e) for e in range(num_experts)])


def copies_per_token(rank_of, topk_idx, ep_size):
    visited = [(rank_of[topk_idx] == rank).any(axis=1) for rank in range(ep_size)]
    return np.sum(visited) / len(topk_idx)


def imbalance(rank_of, topk_idx, ep_size):
    loads = np.bincount(rank_of[topk_idx].ravel(), minlength=ep_size)
    return loads.max() / loads.mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ids", help=".npy.xz, u8 [num_tokens, num_layers, top_k]")
    parser.add_argument("sequences", help=".csv with seq, row_start, n_tokens")
    parser.add_argument("--ep-size", type=int, default=8)
    parser.add_argument("--num-experts", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    with lzma.open(args.ids) as file:
        fitted, measured = split_by_sequence(np.load(file), args.sequences)
    instance = mtkahypar.initialize(2)
    rows, start = [], time.monotonic()
    for layer in range(fitted.shape[1]):
        rank_of = partition(instance, fitted[:, layer], args.num_experts, args.ep_size, args.seed)
        rows.append([f(rank_of, half[:, layer], args.ep_size)
                     for half in (fitted, measured) for f in (copies_per_token, imbalance)])
    mean = np.mean(rows, axis=0)
    print(f"fitted   {mean[0]:.4f} copies per token, imbalance {mean[1]:.3f}")
    print(f"measured {mean[2]:.4f} copies per token, imbalance {mean[3]:.3f}")
    print(f"time     {time.monotonic() - start:.1f} s for {len(rows)} layers")


if __name__ == "__main__":
    main()
