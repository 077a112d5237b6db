#!/usr/bin/env python3
"""Draws a synthetic routing trace that is clustered and skewed as a trained router's, by a seed.

    pip install numpy
    bench/clustered_trace.py --experts 64 --top-k 6 --tokens 92000 --layers 4 --seed 1 -o clustered
    build/release/c2r import --from npy clustered/expert_ids.npy --sequences clustered/sequences.csv \
        --num-experts 64 -o clustered.safetensors

The same arguments give the same choices. Sequences have 200 tokens and a topic each. Half of the tokens
have the topic of their sequence; the others draw one, the first topics more often. In every layer a token
chooses the experts with the largest sum of its topic's preferences, the experts' popularity and noise. The
placements of such a trace show how a search behaves; real routers are less clustered.
"""
import argparse
import pathlib

import numpy as np

TOKENS_OF_SEQUENCE = 200
TOKENS_OF_PART = 5000  # that are drawn at a time, which bounds the memory


def draw_topics(rng, num_tokens, num_topics):
    """The topic of each token. [num_tokens]"""
    share = 1 / np.sqrt(1 + np.arange(num_topics))
    share /= share.sum()
    num_sequences = -(-num_tokens // TOKENS_OF_SEQUENCE)
    of_sequence = np.repeat(rng.choice(num_topics, size=num_sequences, p=share), TOKENS_OF_SEQUENCE)
    own = rng.choice(num_topics, size=num_tokens, p=share)
    return np.where(rng.random(num_tokens) < 0.5, of_sequence[:num_tokens], own)


def draw_layer(rng, topics, num_topics, num_experts, top_k):
    """The choices of one layer. [num_tokens, top_k]"""
    preference = 1.5 * rng.gumbel(size=(num_topics, num_experts)) + 0.5 * rng.gumbel(size=num_experts)
    chosen = np.empty((len(topics), top_k), dtype=np.uint16)
    for begin in range(0, len(topics), TOKENS_OF_PART):
        part = topics[begin:begin + TOKENS_OF_PART]
        scores = preference[part] + rng.gumbel(size=(len(part), num_experts))
        chosen[begin:begin + len(part)] = np.argpartition(-scores, top_k, axis=1)[:, :top_k]
    return chosen


def draw_trace(seed, num_tokens, num_layers, num_experts, top_k):
    """The choices of all layers. [num_tokens, num_layers, top_k]"""
    rng = np.random.default_rng(seed)
    num_topics = num_experts // 4
    topics = draw_topics(rng, num_tokens, num_topics)
    return np.stack([draw_layer(rng, topics, num_topics, num_experts, top_k)
                     for _ in range(num_layers)], axis=1)


def write_trace(ids, folder):
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "expert_ids.npy", ids)
    with open(folder / "sequences.csv", "w", encoding="utf-8") as file:
        file.write("seq,row_start,n_tokens\n")
        for sequence, begin in enumerate(range(0, len(ids), TOKENS_OF_SEQUENCE)):
            file.write(f"{sequence},{begin},{min(TOKENS_OF_SEQUENCE, len(ids) - begin)}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--top-k", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=92_000)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--out", type=pathlib.Path, required=True, help="a folder")
    args = parser.parse_args()
    if not 1 <= args.top_k < args.experts or args.experts < 4:
        parser.error("a token chooses 1 to experts - 1 of at least 4 experts")
    write_trace(draw_trace(args.seed, args.tokens, args.layers, args.experts, args.top_k), args.out)


if __name__ == "__main__":
    main()
