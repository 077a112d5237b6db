"""Accuracies of the experiment's models: python3 -m training.experiment.tasks MODEL --data ../shared/data --limit 20.

Adds the tasks of c2r.evaluate to records that the driver has made, of the models that it keeps. Takes the driver's
options. Rules that look at a batch see the harness's: its padding counts as tokens.
"""

import json
import os
import sys

import torch
import transformers
from c2r.evaluate.__main__ import evaluate
from c2r.evaluate.tasks import TASKS
from torch import nn

from training.experiment.driver import Experiment, make_parser, names_of, record_of, train
from training.files import new_file

LAMBADA = "lambada_openai"  # has ten times as many documents: its words have signal


def accuracies(experiment: Experiment, model: nn.Module, limit: int) -> dict[str, dict]:
    """The metrics of c2r.evaluate on the first `limit` documents of each task, and ten times as many of LAMBADA."""
    from lm_eval.models.huggingface import HFLM

    language_model = HFLM(pretrained=model.eval(), tokenizer=experiment.tokenizer, batch_size=8)
    folder = experiment.data / "eval"
    found = evaluate(language_model, [name for name in TASKS if name != LAMBADA], folder, limit)
    found |= evaluate(language_model, [LAMBADA], folder, 10 * limit)
    kept = ("documents", "acc", "acc_stderr", "perplexity")
    return {task: {key: round(metrics[key], 4) for key in kept if key in metrics} for task, metrics in found.items()}


def add_tasks(experiment: Experiment, name: str, seed: int, limit: int) -> None:
    """Evaluates the model of a record that has no tasks yet."""
    path = experiment.records / record_of(name, seed)
    if not path.exists() or "tasks" in (record := json.loads(path.read_text())):
        return
    output = experiment.folder / path.name.removesuffix(".json")
    model, _ = train(experiment, name, seed, record["trained_tokens"], output)
    record["tasks"] = accuracies(experiment, model, limit)
    with new_file(path) as new:
        new.write_text(json.dumps(record) + "\n")
    print(f"{name}, seed {seed}: {record['tasks']}", flush=True)


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
        experiment = Experiment(arguments)
        for name in names:
            for seed in map(int, arguments.seeds.split(",")):
                add_tasks(experiment, name, seed, arguments.limit)
    except (OSError, ValueError) as error:
        print(f"training.experiment.tasks: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
