"""Held-out text as token ids, for the engine's commands.

python3 -m training.held_out -o held_out.jsonl --num-tokens 200000 --sequence-tokens 256
c2r profile models/nano-qwen-moe --tokens held_out.jsonl -o trace.safetensors
"""

import argparse
import json
import pathlib
import sys

from training.batches import Corpus, read_corpus, sequences


def held_out_sequences(corpus: Corpus, num_tokens: int, sequence_tokens: int) -> list[list[int]]:
    """Sequences of `sequence_tokens`, domain after domain in turn, until there are `num_tokens` or no more.

    Each domain has as many at even places as at odd ones, within its last few, so that a plan can be fitted on even
    sequences and counted on odd ones of the same kind.
    """
    domains = [sequences(corpus.tokens[f"{domain}.held_out"], sequence_tokens) for domain in corpus.domains]
    chosen: list[list[int]] = []
    for index in range(max(len(rows) for rows in domains)):
        present = [rows for rows in domains if index < len(rows)]
        if len(present) % 2 == 0 and index % 2 == 1:  # else a domain's places would all be even, or all odd
            present = present[1:] + present[:1]
        chosen += [rows[index, :-1].tolist() for rows in present]
        if len(chosen) * sequence_tokens >= num_tokens:
            break
    return chosen[: -(-num_tokens // sequence_tokens)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=pathlib.Path, default=pathlib.Path("build/training/corpus"), metavar="FOLDER",
                        help="from training.prepare (build/training/corpus)")  # fmt: skip
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True, metavar="FILE")
    parser.add_argument("--num-tokens", type=int, default=200_000, metavar="N", help="default 200,000")
    parser.add_argument("--sequence-tokens", type=int, default=256, metavar="N", help="default 256")
    arguments = parser.parse_args()
    try:
        rows = held_out_sequences(
            read_corpus(arguments.corpus / "corpus.xz"), arguments.num_tokens, arguments.sequence_tokens
        )
        arguments.output.write_text("".join(json.dumps(row) + "\n" for row in rows))
    except (OSError, ValueError) as error:
        print(f"training.held_out: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
