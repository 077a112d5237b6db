"""Compares the engine's log-probabilities with those of another implementation, on held-out text.

  python3 -m training.check_engine models/nano-qwen-moe --c2r build/release/c2r

The other implementation is transformers, or training/reference_llama_moe.py for LLaMA-MoE. Every position of every
sequence counts: the logits of all tokens of the vocabulary go into the log-probability of the next one.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import torch
from torch import Tensor

from training.batches import read_corpus
from training.held_out import held_out_sequences
from training.reference_llama_moe import ReferenceLlamaMoe

# float32 on both sides, sums in other orders. A logit is a sum of `hidden` products after `num_layers` layers; the
# published bound for the engine's logits is 1e-4 of their scale, and a log-probability is a difference of two such.
TOLERANCE = 2e-4


def other_implementation(folder: pathlib.Path):
    """A function from a sequence to its logits [num_tokens, vocab_size]."""
    if json.loads((folder / "config.json").read_text())["model_type"] == "llama_moe":
        return ReferenceLlamaMoe(folder).logits
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return lambda sequence: model(torch.tensor([sequence])).logits[0].float()


def engine_log_probabilities(c2r: pathlib.Path, folder: pathlib.Path, rows: list[list[int]]) -> list[float]:
    """Of each token but the first of each row, given those before it."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as pairs:
        for row in rows:
            for at in range(1, len(row)):
                pairs.write(json.dumps({"context": row[:at], "continuation": [row[at]]}) + "\n")
        pairs.flush()
        done = subprocess.run(
            [c2r, "score", folder, "--pairs", pairs.name, "--dtype", "f32", "--json"],
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    return [json.loads(line)["log_likelihood"] for line in done.stdout.splitlines()]


def compare(rows: list[list[int]], found: list[float], logits_of) -> tuple[float, float, int]:
    """The largest difference, the logits' scale (largest magnitude), and the number of tokens compared."""
    worst, scale, at, said = 0.0, 0.0, 0, time.monotonic()
    for index, row in enumerate(rows):
        with torch.no_grad():
            logits: Tensor = logits_of(row)
        expected = logits[:-1].double().log_softmax(-1).gather(1, torch.tensor(row[1:])[:, None])[:, 0]
        ours = torch.tensor(found[at : at + len(expected)], dtype=torch.float64)
        worst = max(worst, float((ours - expected).abs().max()))
        scale = max(scale, float(logits.abs().max()))
        at += len(expected)
        if time.monotonic() > said + 10:
            said = time.monotonic()
            print(f"{index + 1} of {len(rows)} sequences", file=sys.stderr)
    return worst, scale, at


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--c2r", type=pathlib.Path, default=pathlib.Path("build/release/c2r"), metavar="PROGRAM")
    parser.add_argument("--corpus", type=pathlib.Path, default=pathlib.Path("build/training/corpus"), metavar="FOLDER")
    parser.add_argument("--num-tokens", type=int, default=10_000, metavar="N")
    arguments = parser.parse_args()
    rows = held_out_sequences(read_corpus(arguments.corpus / "corpus.xz"), arguments.num_tokens * 64 // 63 + 64, 64)
    found = engine_log_probabilities(arguments.c2r, arguments.model, rows)
    if len(found) != sum(len(row) - 1 for row in rows):
        print(f"training.check_engine: {len(found)} log-probabilities came back", file=sys.stderr)
        return 1
    worst, scale, num_tokens = compare(rows, found, other_implementation(arguments.model))
    print(
        f"{arguments.model}: {num_tokens} held-out tokens, logits up to {scale:.1f}, log-probabilities differ by at "
        f"most {worst:.1e}, which is {worst / scale:.1e} of that; allowed {TOLERANCE:.0e}"
    )
    return 0 if worst <= TOLERANCE * scale else 1


if __name__ == "__main__":
    sys.exit(main())
