"""The public gpt-oss-20b trace for the comparisons of this folder."""
import csv
import lzma

import numpy as np

NUM_EXPERTS = 32


def even_and_odd_tokens(data):
    """The choices of even and of odd sequences. [num_tokens, num_layers, top_k]"""
    folder = data / "traces/gpt-oss-20b"
    with lzma.open(folder / "expert_ids_u8.npy.xz") as file:
        ids = np.load(file)
    halves = ([], [])
    with open(folder / "sequences.csv", newline="") as file:
        for row in csv.DictReader(file):
            begin = int(row["row_start"])
            halves[int(row["seq"]) % 2].append(ids[begin:begin + int(row["n_tokens"])])
    return np.concatenate(halves[0]), np.concatenate(halves[1])
