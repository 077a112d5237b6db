"""What placement saves for a model on held-out text, and what the constraint costs without fine-tuning.

  python3 -m training.measure models/nano-qwen-moe --c2r build/release/c2r

Prints two tables in Markdown: copies per token at 2, 4 and 8 ranks, fitted on even sequences and counted on the
odd ones; and perplexity on the odd ones for collaborator lists of several lengths, counted on the even ones.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from training.batches import read_corpus
from training.card import table
from training.held_out import held_out_sequences

SEQUENCE_TOKENS = 256
TOP_K_KEYS = {"qwen2_moe": "num_experts_per_tok", "llama_moe": "num_selects"}  # in config.json, by model type


class Engine:
    """Runs c2r on files of one temporary folder."""

    def __init__(self, program: pathlib.Path, folder: pathlib.Path) -> None:
        self.program, self.folder = program.resolve(), folder

    def run(self, *words: object) -> str:
        done = subprocess.run(
            [self.program, *map(str, words)], cwd=self.folder, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            said = done.stderr.strip() or f"{self.program} {words[0]} ended with {done.returncode} and no message"
            raise ValueError(said.splitlines()[-1])
        return done.stdout

    def steps(self, num_ranks: int, redundant_slots: int, effort: float = 1) -> dict[str, dict]:
        """The waterfall of an optimized plan: by step, means over layers. effort multiplies the work of the search."""
        self.run("plan", "trace.safetensors", "--cluster", f"1x{num_ranks}", "--fit", "even", "--redundant-slots",
                 redundant_slots, "--effort", effort, "-o", "plan.json")  # fmt: skip
        steps = json.loads(self.run("simulate", "plan.json", "trace.safetensors", "--on", "odd", "--json"))["steps"]
        return {
            step["step"]: {key: sum(step[key]) / len(step[key]) for key in ("copies_per_token", "imbalance")}
            for step in steps
        }

    def perplexity(self, model: pathlib.Path, *options: object) -> float:
        return float(self.run("score", model, "--tokens", "odd.jsonl", *options).split()[-1])


def copies_table(engine: Engine) -> str:
    rows = []
    for num_ranks in (2, 4, 8):
        alone, replicated = engine.steps(num_ranks, 0), engine.steps(num_ranks, 1)
        steps = [alone["per-expert"], alone["deduplication"], alone["placement"], replicated["replicas"]]
        rows.append([str(num_ranks), *(f"{step['copies_per_token']:.3f} at {step['imbalance']:.2f}" for step in steps)])
    return table(["ranks", "per expert", "per rank", "placed", "placed, one redundant slot per rank"], rows)


def constraint_table(engine: Engine, model: pathlib.Path, num_experts: int, top_k: int) -> str:
    free = engine.perplexity(model)
    rows = [["none", f"{free:.2f}", ""]]
    lengths = {top_k - 1, *(num_experts * share // 8 for share in (1, 2, 3, 4, 5, 6, 7)), num_experts - 2}
    for top_t in sorted((t for t in lengths if top_k - 1 <= t < num_experts - 1), reverse=True):
        engine.run("plan", "trace.safetensors", "--cluster", "1x2", "--fit", "even", "--method", "contiguous",
                   "--top-t", top_t, "-o", "constrained.json")  # fmt: skip
        constrained = engine.perplexity(model, "--plan", "constrained.json")
        rows.append([str(top_t), f"{constrained:.2f}", f"{100 * (constrained / free - 1):+.2f} %"])
    return table(["T", "perplexity", "change"], rows)


def measure(model: pathlib.Path, program: pathlib.Path, corpus: pathlib.Path, num_tokens: int) -> str:
    config = json.loads((model / "config.json").read_text())
    family = config["model_type"]
    if family not in TOP_K_KEYS:
        raise ValueError(f"{model} is a model of type {family}, not of {' or '.join(TOP_K_KEYS)}")
    num_experts, top_k = config["num_experts"], config[TOP_K_KEYS[family]]
    rows = held_out_sequences(read_corpus(corpus / "corpus.xz"), num_tokens, SEQUENCE_TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(program, pathlib.Path(folder))
        for name, part in (("all", rows), ("odd", rows[1::2])):
            (engine.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
        engine.run("profile", model.resolve(), "--tokens", "all.jsonl", "-o", "trace.safetensors")
        return (
            f"{len(rows) * SEQUENCE_TOKENS} held-out tokens in sequences of {SEQUENCE_TOKENS}. Copies per token, at "
            f"the largest over the mean load of a rank:\n\n{copies_table(engine)}\n\n"
            f"Perplexity when routing is constrained to the top-T collaborators, without fine-tuning:\n\n"
            f"{constraint_table(engine, model.resolve(), num_experts, top_k)}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--c2r", type=pathlib.Path, default=pathlib.Path("build/release/c2r"), metavar="PROGRAM")
    parser.add_argument("--corpus", type=pathlib.Path, default=pathlib.Path("build/training/corpus"), metavar="FOLDER")
    parser.add_argument("--num-tokens", type=int, default=100_000, metavar="N", help="default 100,000")
    arguments = parser.parse_args()
    try:
        print(measure(arguments.model, arguments.c2r, arguments.corpus, arguments.num_tokens))
    except (OSError, ValueError) as error:
        print(f"training.measure: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
