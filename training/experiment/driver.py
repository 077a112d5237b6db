"""Runs conditions of the experiment, one record each: python3 -m training.experiment.driver MODEL --data ../shared/data."""

import argparse
import functools
import json
import os
import pathlib
import sys
import time
from typing import Any

import c2r
import c2r.hf
import torch
import transformers
from c2r.finetune import data, run
from c2r.finetune.settings import RECIPES, Settings, with_values
from c2r.hf.routers import find_routers
from c2r.torch.placement import rank_of_expert
from torch import nn

from training.experiment import rivals, texts
from training.experiment.conditions import CONDITIONS, Condition, is_trained
from training.experiment.measure import costs, losses_and_trace
from training.files import new_file
from training.measure import Engine

NUM_RANKS = 4  # for which rules and penalties know a placement
CANDIDATES = (3, 4, 6, 8, 12, 16, 24)  # T of a layer, for lists-per-layer


class Experiment:
    """What all conditions share: texts, lists and placements of the model before training.

    Everything large is in `folder`, which is no part of the repository; records are small files in `records`.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.model, self.folder = arguments.model, arguments.output
        self.records = arguments.records or pathlib.Path("training/experiment/records") / self.model.name
        self.program, self.data = arguments.c2r.resolve(), arguments.data
        self.length, self.learning_rate = arguments.length, arguments.learning_rate
        self.folder.mkdir(parents=True, exist_ok=True)
        self.records.mkdir(parents=True, exist_ok=True)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.model)
        router = find_routers(self.load())[0]
        self.num_experts, self.top_k = router.num_experts, router.top_k
        corpora = arguments.data / "corpora"
        self.documents = texts.held_out(corpora, self.tokenizer, arguments.documents, self.length)
        self._corpora = corpora
        self._profile()

    def load(self, path: pathlib.Path | None = None) -> nn.Module:
        return transformers.AutoModelForCausalLM.from_pretrained(path or self.model, dtype=torch.float32)

    def allows(self, name: str) -> bool:
        """Whether the model can run a condition: a list has from top_k - 1 to num_experts - 1 experts, and every rank of
        a group-balanced choice has equally many.
        """
        condition = CONDITIONS[name]
        if condition.rule == "lists":
            return self.top_k - 1 <= condition.value < self.num_experts
        return condition.rule != "group-balanced" or self.top_k % NUM_RANKS == 0

    def _profile(self) -> None:
        """Lists and placement of the free model, on text to train on: `before` in the folder."""
        before = self.folder / "before"
        before.mkdir(exist_ok=True)
        trace = before / "trace.safetensors"
        if not trace.exists():
            rows = texts.to_train_on(self._corpora, self.tokenizer, 50_000, self.length)
            losses_and_trace(self.load(), [texts.Document("", row) for row in rows], trace)
        statistics = c2r.count_collaboration(c2r.Trace(trace))
        self.lists = [[list(map(int, row)) for row in layer] for layer in
                      c2r.collaborators(statistics, top_t=self.num_experts - 1)]  # fmt: skip
        Engine(self.program, before).run("plan", "trace.safetensors", "--cluster", f"1x{NUM_RANKS}", "-o", "plan.json")
        layers = json.loads((before / "plan.json").read_text())["layers"]
        self.ranks = [rank_of_expert(layer["slots"], self.num_experts) for layer in layers]

    def training_rows(self, num_tokens: int) -> list[data.Example]:
        """Raises ValueError if the corpora have fewer tokens: no text is seen twice."""
        rows = texts.to_train_on(self._corpora, self.tokenizer, num_tokens, self.length)
        if len(rows) * self.length < num_tokens:
            raise ValueError(
                f"the corpora have {len(rows) * self.length} tokens to train on, {num_tokens} are asked for"
            )
        return [data.Example(row, row) for row in rows]

    @functools.cached_property
    def layer_costs(self) -> list[list[float]]:
        """What the constraint of one layer alone costs, for each T of CANDIDATES, in nats per token of 40 sequences of
        the training text. Kept in `layer_costs.json` of the folder. [num_layers, len(CANDIDATES)]
        """
        path = self.folder / "layer_costs.json"
        if path.exists():
            return json.loads(path.read_text())
        rows = texts.to_train_on(self._corpora, self.tokenizer, 40 * self.length, self.length)
        few = [texts.Document("", row) for row in rows]
        model = self.load()
        free = _mean_loss(model, few, self.folder)
        found: list[list[float]] = [[] for _ in self.lists]
        for layer, of_layer in enumerate(found):
            for top_t in CANDIDATES:
                lengths = [len(self.lists[0][0])] * len(self.lists)
                lengths[layer] = top_t
                constraint = c2r.hf.constrain(model, self.lists, lengths)
                of_layer.append(_mean_loss(model, few, self.folder) - free)
                constraint.remove()
        with new_file(path) as new:
            new.write_text(json.dumps(found))
        return found

    def per_layer(self, budget: float) -> list[int]:
        """T of each layer: the least whose constraint on that layer alone costs at most its share of `budget`."""
        share = budget / len(self.lists)
        return [
            next((top_t for top_t, cost in zip(CANDIDATES, of_layer, strict=True) if cost <= share), CANDIDATES[-1])
            for of_layer in self.layer_costs
        ]

    def apply(self, model: nn.Module, condition: Condition) -> dict[str, Any]:
        """Puts a rule in force. Returns what the record says about it."""
        top_k = self.top_k
        rules = {
            "device-limited": lambda ranks, logits: rivals.device_limited(logits, ranks, int(condition.value), top_k),
            "group-balanced": lambda ranks, logits: rivals.group_balanced(logits, ranks, top_k),
            "batch-aware": lambda ranks, logits: rivals.batch_aware(logits, int(condition.value), top_k),
        }
        if condition.rule in rules:
            rule = rules[condition.rule]
            rivals.apply_rules(model, [lambda logits, ranks=ranks: rule(ranks, logits) for ranks in self.ranks])
            return {}
        if condition.rule == "lists":
            c2r.hf.constrain(model, self.lists, int(condition.value))
        elif condition.rule == "lists-per-layer":
            lengths = self.per_layer(condition.value)
            c2r.hf.constrain(model, self.lists, lengths)
            return {"top_t": lengths}
        return {}


def _mean_loss(model: nn.Module, documents: list[texts.Document], folder: pathlib.Path) -> float:
    losses, _ = losses_and_trace(model, documents, folder / "scratch.safetensors")
    return sum(losses) / len(losses)


def settings_for(experiment: Experiment, condition: Condition, seed: int, num_steps: int) -> Settings:
    """Of continued training: one pass over the text. The router alone learns faster, for it starts near a minimum."""
    rate = experiment.learning_rate * (10 if condition.trained == "router" else 1)
    return with_values(RECIPES["text"], {
        "batch": 8, "micro_batch": 8, "length": experiment.length, "learning_rate": rate, "seed": seed,
        "checkpointing": False, "warmup_steps": max(1, num_steps // 20), "save_steps": 20, "logging_steps": 2,
        "max_steps": num_steps, "trained": "all" if condition.trained == "nothing" else condition.trained,
    })  # fmt: skip


def train(
    experiment: Experiment, name: str, seed: int, num_tokens: int, output: pathlib.Path
) -> tuple[nn.Module, dict]:
    """The model of a condition, trained unless it is not to be; from its checkpoint on if it was killed."""
    condition = CONDITIONS[name]
    said: dict = {}
    if not is_trained(name):
        model = experiment.load()
        return model, experiment.apply(model, condition)
    if (output / "config.json").exists():
        model = experiment.load(output)
        model.config.top_t = model.config.collaborative_list = None  # as the start; apply() sets them again
        return model, experiment.apply(model, condition)
    rows = experiment.training_rows(num_tokens)
    settings = settings_for(experiment, condition, seed, len(rows) // 8)
    penalty: list[rivals.RankPenalty] = []

    def load(checkpoint: pathlib.Path | None) -> nn.Module:
        model = experiment.load(checkpoint)
        model.config.top_t = model.config.collaborative_list = None
        said.update(experiment.apply(model, condition))
        run.apply_settings(model, settings)
        if condition.penalty:
            penalty.append(rivals.RankPenalty(model, experiment.ranks, condition.penalty, condition.anchor))
        return model

    run.prepare_output(output, settings, {"condition": name, "num_tokens": num_tokens})
    model = run.train(
        load, experiment.tokenizer, rows, settings, output, dtype=torch.float32,
        ranks_of=lambda _: list(experiment.ranks),
        penalty=(lambda model, batch: penalty[-1](model, batch)) if condition.penalty else None,
    )  # fmt: skip
    return model, said


def record_of(name: str, seed: int, num_tokens: int) -> str:
    """The file of a run's record; num_tokens does not matter for a condition that is not trained."""
    words = ["".join(c if c.isalnum() else "_" for c in name), *([str(num_tokens)] if is_trained(name) else [])]
    return ".".join([*words, f"seed{seed}.json"])


def run_condition(experiment: Experiment, name: str, seed: int, num_tokens: int) -> None:
    """Trains and measures a condition, and writes its record, unless it has one."""
    path = experiment.records / record_of(name, seed, num_tokens)
    if path.exists():
        return
    began = time.monotonic()
    output = experiment.folder / path.name.removesuffix(".json")
    model, said = train(experiment, name, seed, num_tokens, output)
    output.mkdir(exist_ok=True)
    losses, distinct = losses_and_trace(model, experiment.documents, output / "trace.safetensors")
    record = {
        "condition": name, "seed": seed, "model": str(experiment.model), "length": experiment.length,
        "trained_tokens": num_tokens if is_trained(name) else 0,
        "learning_rate": experiment.learning_rate, "minutes": round((time.monotonic() - began) / 60, 2),
        "machine": f"{os.uname().machine}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads",
        "domains": [document.domain for document in experiment.documents],
        "losses": [round(loss, 5) for loss in losses], "distinct_experts_of_8_tokens": round(distinct, 3),
    } | costs(experiment.program, output) | said  # fmt: skip
    with new_file(path) as new:
        new.write_text(json.dumps(record) + "\n")
    print(f"{name}, {record['trained_tokens']} tokens, seed {seed}: loss {sum(losses) / len(losses):.4f}, copies at {NUM_RANKS} ranks "
          f"{record['traffic'][str(NUM_RANKS)]['placement']['copies_per_token']:.3f}, {record['minutes']} minutes",
          flush=True)  # fmt: skip


def tokens_per_run(experiment: Experiment, minutes: float, num_runs: int) -> int:
    """What the time allows for each run that trains, from 3 timed steps of 8 sequences; at least one step."""
    model = experiment.load().train()
    ids = torch.tensor([document.ids for document in experiment.documents[:8]])
    times = []
    for _ in range(3):
        began = time.monotonic()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        times.append(time.monotonic() - began)
    speed = ids.numel() / min(times)
    at_once = 8 * experiment.length
    # Half of the time is for optimizer steps, checkpoints and measurements.
    num_tokens = max(at_once, int(speed * 60 * minutes / 2 / max(num_runs, 1)) // at_once * at_once)
    print(f"{speed:.0f} tokens/s forward and backward; {minutes} minutes for {num_runs} runs: {num_tokens} tokens a run",
          flush=True)  # fmt: skip
    return num_tokens


def numbers(words: str) -> list[int]:
    """Of an option: positive numbers with commas."""
    found = [int(word) for word in words.split(",")]
    if min(found) < 1:
        raise ValueError(f"{min(found)} is not positive")
    return found


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m training.experiment.driver", description=__doc__)
    add = parser.add_argument
    add("model", type=pathlib.Path, metavar="MODEL")
    add("--data", type=pathlib.Path, required=True, metavar="FOLDER", help="has corpora/DOMAIN.jsonl.zst")
    add("--c2r", type=pathlib.Path, default=pathlib.Path("build/release/c2r"), metavar="PROGRAM")
    add("--conditions", default="before;free;T=4;T=8", metavar="NAMES",
        help=f"with semicolons, or all that the model allows; there are: {'; '.join(CONDITIONS)}")  # fmt: skip
    add("--seeds", type=numbers, default=[1], metavar="N,N", help="of the order of the text (default 1)")
    add("--minutes", type=float, metavar="N", help="for all runs together: decides how many tokens a run has")
    add("--tokens", type=numbers, metavar="N,N", help="of each run, instead of --minutes; with commas, several runs")
    add("--length", type=int, default=256, metavar="N", help="tokens of a sequence (default 256)")
    add("--documents", type=int, default=40, metavar="N", help="held out, of each domain (default 40)")
    add("--learning-rate", type=float, default=3e-4, metavar="R")
    add("--threads", type=int, default=1, metavar="N")
    add("-o", "--output", type=pathlib.Path, default=pathlib.Path("build/training/experiment"), metavar="FOLDER",
        help="for models and traces")  # fmt: skip
    add("--records", type=pathlib.Path, metavar="FOLDER",
        help="one record a run (default training/experiment/records/ and the name of the model)")  # fmt: skip
    add("--again", action="store_true",
        help="compute traffic and times of all records anew from their traces, after a change of the planner")  # fmt: skip
    return parser


def names_of(words: str) -> list[str]:
    """The conditions of "all" or of names with semicolons. Raises ValueError for one that is not there."""
    names = list(CONDITIONS) if words == "all" else words.split(";")
    if unknown := [name for name in names if name not in CONDITIONS]:
        raise ValueError(f"there is no condition '{unknown[0]}'; there are: {'; '.join(CONDITIONS)}")
    return names


def costs_again(experiment: Experiment) -> None:
    for path in sorted(experiment.records.glob("*.json")):
        record = json.loads(path.read_text())
        record |= costs(experiment.program, experiment.folder / path.name.removesuffix(".json"))
        with new_file(path) as new:
            new.write_text(json.dumps(record) + "\n")


def main(words: list[str] | None = None) -> int:
    arguments = make_parser().parse_args(words)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    try:
        names = names_of(arguments.conditions)
        if not arguments.again and (arguments.minutes is None) == (arguments.tokens is None):
            raise ValueError("give --minutes or --tokens, one of the two")
        experiment = Experiment(arguments)
        if arguments.conditions == "all":
            names = [name for name in names if experiment.allows(name)]
        if arguments.again:
            costs_again(experiment)
            return 0
        seeds, num_trained = arguments.seeds, sum(map(is_trained, names))
        lengths = arguments.tokens or [tokens_per_run(experiment, arguments.minutes, num_trained * len(seeds))]
        for num_tokens in lengths:
            for name in names:
                for seed in seeds if is_trained(name) else seeds[:1]:
                    run_condition(experiment, name, seed, num_tokens)
    except (OSError, ValueError) as error:
        print(f"training.experiment: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
