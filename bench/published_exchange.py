#!/usr/bin/env python3
"""Prints predicted beside published times of dispatch and combine: the table of docs/cost_model.md.

    bench/published_exchange.py build/release/c2r

Choices are drawn at random, as the benchmarks of these kernels draw them; c2r predicts with `c2r simulate --hardware`.
Published bandwidths are turned into times by the bytes that each benchmark counts for them: a copy for each node
(RDMA) or each rank (NVLink) of a token, its own included.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
from dataclasses import dataclass

import numpy as np

HIDDEN, EXPERTS, TOP_K, TOKENS = 7168, 256, 8, 2048
COPY_BYTES = {"dispatch": HIDDEN + HIDDEN // 128 * 4, "combine": 2 * HIDDEN}
NORMAL, LOW_LATENCY = "normal", "low latency"


@dataclass(frozen=True)
class Row:
    """One published line: its numbers are GB/s of what the benchmark counts, or seconds."""

    source: str
    kernel: str
    hardware: str
    ranks: int
    dispatch: float
    combine: float
    is_gbps: bool = True
    tokens: int = 4096  # of a rank
    groups: int = 4  # nodes that a token may go to; 0: all
    is_fitted: bool = False  # its dispatch was used to fit the parameters
    reasons: tuple = ("", "")  # why dispatch and combine are more than 25 % off
    note: str = ""


V1, V2, UCCL = "DeepEP V1", "DeepEP V2", "UCCL-EP"
# The notes below the table in docs/cost_model.md.
SMS = "24 SMs (a)"
OLDER = "not explained (b)"
RINGS = "rings of 32 writes (c)"
ROWS = [
    Row(V1, NORMAL, "h800-ib400", 8, 153, 158, is_fitted=True),
    Row(V1, NORMAL, "h800-ib400", 16, 43, 43),
    Row(V1, NORMAL, "h800-ib400", 32, 58, 57, is_fitted=True),
    Row(V1, NORMAL, "h800-ib400", 64, 51, 50),
    Row(V1, LOW_LATENCY, "h800-ib400", 8, 77e-6, 114e-6, False, 128, 0),
    Row(
        V1, LOW_LATENCY, "h800-ib400", 16, 118e-6, 195e-6, False, 128, 0, is_fitted=True
    ),
    Row(V1, LOW_LATENCY, "h800-ib400", 32, 155e-6, 273e-6, False, 128, 0),
    Row(V1, LOW_LATENCY, "h800-ib400", 64, 173e-6, 314e-6, False, 128, 0),
    Row(V2, NORMAL, "h100-ib400", 16, 90, 81, tokens=8192, groups=0),
    Row(V2, NORMAL, "h100-ib400", 32, 61, 61, tokens=8192, groups=0),
    Row(V2, NORMAL, "b200-ib400", 16, 90, 91, tokens=8192, groups=0),
    Row(V2, NORMAL, "b200-ib400", 8, 726, 740, tokens=8192, groups=0, note="64 SMs"),
    Row(V2, NORMAL, "b200-ib400", 8, 643, 675, tokens=8192, groups=0, note="24 SMs"),
    Row(UCCL, NORMAL, "h200-efa400", 8, 500e-6, 973e-6, False),
    Row(UCCL, NORMAL, "h200-efa400", 16, 1196e-6, 6379e-6, False, reasons=(SMS, OLDER)),
    Row(UCCL, NORMAL, "h200-efa400", 24, 1633e-6, 6365e-6, False, reasons=(SMS, OLDER)),
    Row(UCCL, NORMAL, "h200-efa400", 32, 2022e-6, 4899e-6, False, reasons=(SMS, OLDER)),
    Row(
        UCCL,
        NORMAL,
        "b200-efa400",
        8,
        571e-6,
        727e-6,
        False,
        reasons=(SMS, SMS),
    ),
    Row(UCCL, NORMAL, "b200-efa400", 16, 1141e-6, 1965e-6, False, reasons=(SMS, SMS)),
    Row(UCCL, NORMAL, "b200-efa400", 24, 1637e-6, 2887e-6, False),
    Row(UCCL, NORMAL, "b200-efa400", 32, 2072e-6, 3724e-6, False),
    Row(UCCL, NORMAL, "mi300x-ib400", 8, 260, 304),
    Row(UCCL, NORMAL, "mi300x-ib400", 16, 74, 78),
    Row(UCCL, NORMAL, "mi300x-ib400", 32, 60, 60),
    Row(
        UCCL,
        LOW_LATENCY,
        "h200-efa400",
        16,
        226e-6,
        293e-6,
        False,
        128,
        0,
        is_fitted=True,
    ),
    Row(
        UCCL,
        LOW_LATENCY,
        "h200-efa400",
        24,
        386e-6,
        580e-6,
        False,
        128,
        0,
        reasons=(RINGS, RINGS),
    ),
    Row(
        UCCL,
        LOW_LATENCY,
        "h200-efa400",
        32,
        465e-6,
        694e-6,
        False,
        128,
        0,
        reasons=(RINGS, RINGS),
    ),
    Row(UCCL, LOW_LATENCY, "b200-efa400", 16, 228e-6, 318e-6, False, 128, 0),
    Row(
        UCCL,
        LOW_LATENCY,
        "b200-efa400",
        24,
        448e-6,
        566e-6,
        False,
        128,
        0,
        reasons=(RINGS, RINGS),
    ),
    Row(
        UCCL,
        LOW_LATENCY,
        "b200-efa400",
        32,
        406e-6,
        617e-6,
        False,
        128,
        0,
        reasons=(RINGS, RINGS),
    ),
    Row(UCCL, LOW_LATENCY, "mi300x-ib400", 8, 65e-6, 92e-6, False, 128, 0),
    Row(UCCL, LOW_LATENCY, "mi300x-ib400", 16, 136e-6, 207e-6, False, 128, 0),
    Row(
        UCCL,
        LOW_LATENCY,
        "mi300x-ib400",
        32,
        224e-6,
        341e-6,
        False,
        128,
        0,
        reasons=(RINGS, RINGS),
    ),
]
BACKENDS = {(V1, NORMAL): "deepep_high_throughput", (V1, LOW_LATENCY): "deepep_low_latency",
            (V2, NORMAL): "deepep_v2", (UCCL, NORMAL): "uccl", (UCCL, LOW_LATENCY): "uccl"}  # fmt: skip


def choices(row):
    """uint16 [TOKENS, 1, TOP_K]: top-8 of random scores, of 4 nodes at most where groups limit them."""
    num_nodes = max(1, row.ranks // 8)
    num_experts = EXPERTS if EXPERTS % row.ranks == 0 else 288
    scores = np.random.default_rng(row.ranks).random((TOKENS, num_experts))
    if 0 < row.groups < num_nodes:
        of_nodes = scores.reshape(TOKENS, num_nodes, -1)
        left_out = np.argsort(of_nodes.max(axis=2))[:, : num_nodes - row.groups]
        np.put_along_axis(of_nodes, left_out[:, :, None], -1, axis=1)
    return np.argsort(-scores)[:, None, :TOP_K].astype(np.uint16), num_experts


def published_s(row, part, ids, num_experts):
    value = getattr(row, part)
    if not row.is_gbps:
        return value
    parts = (
        row.ranks // 8 if row.ranks > 8 else row.ranks
    )  # nodes, or ranks of one node
    reached = ids[:, 0, :].astype(int) // (num_experts // parts)
    copies = sum(len(set(token)) for token in reached.tolist()) / TOKENS
    return row.tokens * copies * COPY_BYTES[part] / (value * 1e9)


def predicted_s(c2r, folder, row, ids, num_experts):
    def run(*words):
        return subprocess.run(
            [c2r, *map(str, words)],
            cwd=folder,
            check=True,
            text=True,
            capture_output=True,
        ).stdout

    np.save(folder / "ids.npy", ids)
    cluster = f"{max(1, row.ranks // 8)}x{min(8, row.ranks)}"
    run(
        "import",
        "--from",
        "npy",
        "ids.npy",
        "--num-experts",
        num_experts,
        "--model-name",
        "random",
        "-o",
        "t.st",
    )
    run("plan", "t.st", "--cluster", cluster, "--method", "contiguous", "-o", "p.json")
    step = json.loads(run("simulate", "p.json", "t.st", "--json", "--hardware", row.hardware, "--hidden", HIDDEN,
                          "--intermediate", 2048, "--dispatch-type", "fp8", "--batch-tokens", row.tokens * row.ranks,
                          "--engine", "vllm", "--backend", BACKENDS[row.source, row.kernel], "--phase",
                          "decode" if row.kernel == LOW_LATENCY else "prefill"))["steps"][0]  # fmt: skip
    return {part: step[f"predicted_{part}_s"][0] for part in COPY_BYTES}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("c2r", type=pathlib.Path, help="the program")
    c2r = parser.parse_args().c2r.resolve()
    print(
        "| source | kernel | hardware | ranks | | published us | predicted us | off by | |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    errors = {}
    with tempfile.TemporaryDirectory() as folder:
        for row in ROWS:
            ids, num_experts = choices(row)
            predicted = predicted_s(c2r, pathlib.Path(folder), row, ids, num_experts)
            for part, reason in zip(COPY_BYTES, row.reasons, strict=True):
                published = published_s(row, part, ids, num_experts)
                off = predicted[part] / published - 1
                note = (
                    "fitted"
                    if row.is_fitted and part == "dispatch"
                    else reason
                    if abs(off) > 0.25
                    else row.note
                )
                if abs(off) > 0.25 and not note:
                    note = "no reason"
                print(f"| {row.source} | {row.kernel} | {row.hardware} | {row.ranks} | {part} | {1e6 * published:.0f} "
                      f"| {1e6 * predicted[part]:.0f} | {100 * off:+.0f} % | {note} |")  # fmt: skip
                errors.setdefault(row.source, []).append(abs(off))
    for source, values in errors.items():
        print(
            f"\n{source}: at most {100 * max(values):.0f} % off, median {100 * statistics.median(values):.0f} %"
        )


if __name__ == "__main__":
    main()
