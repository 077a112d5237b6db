"""Compares the engine's log-probabilities with those of another implementation, on held-out text.

  python3 -m training.check_engine models/nano-qwen-moe --c2r build/release/c2r

The other implementation is transformers, with c2r.hf.llama_moe for LLaMA-MoE. Every position of every
sequence counts: the logits of all tokens of the vocabulary go into the log-probability of the next one.
"""

import argparse
import pathlib
import sys
import time

import torch
from c2r.evaluate.scorer import Scorer
from torch import Tensor

from training.batches import read_corpus
from training.held_out import held_out_sequences

# float32 on both sides, sums in other orders. A logit is a sum of `hidden` products after `num_layers` layers; the
# published bound for the engine's logits is 1e-4 of their scale, and a log-probability is a difference of two such.
TOLERANCE = 2e-4


def other_implementation(folder: pathlib.Path):
    """A function from a sequence to its logits [num_tokens, vocab_size]."""
    import c2r.hf.llama_moe  # noqa: F401 - registers the model
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return lambda sequence: model(torch.tensor([sequence])).logits[0].float()


def engine_log_probabilities(program: pathlib.Path, model: pathlib.Path, rows: list[list[int]]) -> list[float]:
    """Of each token but the first of each row, given those before it. @raises ValueError if c2r fails."""
    pairs = [{"context": row[:at], "continuation": [row[at]]} for row in rows for at in range(1, len(row))]
    found = Scorer(model, dtype="f32", program=program).run("--pairs", pairs)
    if len(found) != len(pairs):
        raise ValueError(f"{len(found)} log-probabilities came back for {len(pairs)} tokens")
    return [score["log_likelihood"] for score in found]


def compare(rows: list[list[int]], found: list[float], logits_of) -> tuple[float, float, int]:
    """The largest difference, the logits' scale (largest magnitude), and the number of tokens compared. A NaN on
    either side makes the difference NaN."""
    differences, scales, at, said = [], [], 0, time.monotonic()
    for index, row in enumerate(rows):
        with torch.no_grad():
            logits: Tensor = logits_of(row)
        expected = logits[:-1].double().log_softmax(-1).gather(1, torch.tensor(row[1:])[:, None])[:, 0]
        ours = torch.tensor(found[at : at + len(expected)], dtype=torch.float64)
        differences.append((ours - expected).abs().max())
        scales.append(logits.abs().max())
        at += len(expected)
        if time.monotonic() > said + 10:
            said = time.monotonic()
            print(f"{index + 1} of {len(rows)} sequences", file=sys.stderr)
    return float(torch.stack(differences).max()), float(torch.stack(scales).max()), at  # unlike max(), they keep NaN


def agrees(worst: float, scale: float) -> bool:
    """False for NaN too."""
    return worst <= TOLERANCE * scale < float("inf")


def check(model: pathlib.Path, program: pathlib.Path, corpus: pathlib.Path, num_tokens: int) -> bool:
    """Prints how far the two are apart; true if that is within the tolerance."""
    rows = held_out_sequences(read_corpus(corpus / "corpus.xz"), num_tokens * 64 // 63 + 64, 64)
    found = engine_log_probabilities(program, model, rows)
    worst, scale, num_compared = compare(rows, found, other_implementation(model))
    print(
        f"{model}: {num_compared} held-out tokens, logits up to {scale:.1f}, log-probabilities differ by at "
        f"most {worst:.1e}, which is {worst / scale:.1e} of that; allowed {TOLERANCE:.0e}"
    )
    return agrees(worst, scale)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--c2r", type=pathlib.Path, default=pathlib.Path("build/release/c2r"), metavar="PROGRAM")
    parser.add_argument("--corpus", type=pathlib.Path, default=pathlib.Path("build/training/corpus"), metavar="FOLDER")
    parser.add_argument("--num-tokens", type=int, default=10_000, metavar="N")
    arguments = parser.parse_args()
    try:
        return 0 if check(arguments.model, arguments.c2r, arguments.corpus, arguments.num_tokens) else 1
    except (OSError, ValueError) as error:
        print(f"training.check_engine: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
