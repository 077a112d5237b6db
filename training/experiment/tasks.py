"""Accuracies of the experiment's models: python3 -m training.experiment.tasks MODEL --data ../shared/data --tokens N.

Adds the tasks of c2r.evaluate to records that the driver has made. Takes the driver's options. c2r runs the models whose
rule it knows, transformers the others; rules that look at a batch see the harness's: its padding counts as tokens.
"""

import json
import os
import pathlib
import sys
from typing import Any

import torch
import transformers
from c2r.evaluate.__main__ import evaluate
from c2r.evaluate.tasks import TASKS
from c2r.finetune.trainer import LOG, read_log
from torch import nn

from training.experiment.conditions import CONDITIONS, is_trained
from training.experiment.driver import Experiment, make_parser, names_of, record_of, train
from training.files import new_file

LAMBADA = "lambada_openai"  # has ten times as many documents: its words have signal


def is_known_to_c2r(name: str) -> bool:
    """Whether c2r routes by the rule of a condition: it obeys the lists in the folder of a model that was trained."""
    rule = CONDITIONS[name].rule
    return rule == "free" or (is_trained(name) and rule in ("lists", "lists-per-layer"))


def language_model(experiment: Experiment, name: str, model: nn.Module, output: pathlib.Path) -> tuple[Any, str]:
    """The model for the harness, and what runs it: c2r, from the model's folder, or transformers."""
    if is_known_to_c2r(name):
        from c2r.lm_eval import C2rLM

        folder = output if is_trained(name) else experiment.model
        return C2rLM(str(folder), dtype="f32", threads=torch.get_num_threads(), program=str(experiment.program)), "c2r"
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model.eval(), tokenizer=experiment.tokenizer, batch_size=8), "transformers"


def accuracies(model: Any, folder: pathlib.Path, limit: int) -> dict[str, dict]:
    """The metrics of c2r.evaluate on the first `limit` documents of each task, and ten times as many of LAMBADA."""
    found = evaluate(model, [name for name in TASKS if name != LAMBADA], folder, limit)
    found |= evaluate(model, [LAMBADA], folder, 10 * limit)
    kept = ("documents", "acc", "acc_stderr", "perplexity", "perplexity_stderr")
    return {task: {key: round(metrics[key], 4) for key in kept if key in metrics} for task, metrics in found.items()}


def add_tasks(experiment: Experiment, name: str, seed: int, num_tokens: int, limit: int) -> None:
    """Evaluates the model of a record that has no tasks yet; trains it again if it is not kept."""
    path = experiment.records / record_of(name, seed, num_tokens)
    if not path.exists() or "tasks" in (record := json.loads(path.read_text())):
        return
    output = experiment.folder / path.name.removesuffix(".json")
    model, _ = train(experiment, name, seed, num_tokens, output)
    losses = [[line["step"], round(line["loss"], 5)] for line in read_log(output / LOG)]
    if losses != record["training_loss"]:
        raise ValueError(f"{path} is of another run than {output}: their training losses differ")
    evaluated, record["tasks_engine"] = language_model(experiment, name, model, output)
    record["tasks"] = accuracies(evaluated, experiment.data / "eval", limit)
    with new_file(path) as new:
        new.write_text(json.dumps(record) + "\n")
    print(f"{path.name}: {record['tasks']}", flush=True)


def main(words: list[str] | None = None) -> int:
    parser = make_parser()
    parser.prog, parser.description = "python3 -m training.experiment.tasks", __doc__
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="documents of each task (default 20)")
    arguments = parser.parse_args(words)
    os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    try:
        names = names_of(arguments.conditions)
        if arguments.tokens is None:
            raise ValueError("give --tokens: of which runs")
        experiment = Experiment(arguments)
        for num_tokens in arguments.tokens:
            for name in names:
                for seed in arguments.seeds:
                    add_tasks(experiment, name, seed, num_tokens, arguments.limit)
    except (OSError, ValueError) as error:
        print(f"training.experiment.tasks: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
