"""The harness's own tasks, over documents of a local folder: prompts and metrics stay as the harness has them."""

import pathlib
from typing import Any, NamedTuple

import lm_eval


class Task(NamedTuple):
    """Where the harness describes a task, and which file has its documents."""

    yaml: str  # in lm_eval/tasks
    file: str
    changes: dict[str, Any] | None = None  # what the form of our documents makes necessary


TASKS = {
    "arc_challenge": Task("arc/arc_challenge.yaml", "arc_challenge.jsonl"),
    "arc_easy": Task("arc/arc_easy.yaml", "arc_easy.jsonl"),
    "boolq": Task("super_glue/boolq/default.yaml", "boolq.jsonl"),
    # Our documents are already as the harness's process_docs makes them.
    "hellaswag": Task(
        "hellaswag/hellaswag.yaml", "hellaswag.jsonl", {"process_docs": None, "doc_to_target": "{{gold}}"}
    ),
    "lambada_openai": Task("lambada/lambada_openai.yaml", "lambada.jsonl"),
    # Labels are numbers here, and letters in the harness's data set.
    "logiqa": Task("logiqa/logiqa.yaml", "logiqa.jsonl", {"doc_to_target": "{{label}}"}),
    "openbookqa": Task("openbookqa/openbookqa.yaml", "openbookqa.jsonl"),
    "piqa": Task("piqa/piqa.yaml", "piqa.jsonl"),
    "rte": Task("glue/rte/default.yaml", "rte.jsonl"),
    "sciq": Task("sciq/sciq.yaml", "sciq.jsonl"),
    "winogrande": Task("winogrande/default.yaml", "winogrande.jsonl"),
}
_REPLACED = ("training_split", "validation_split", "test_split", "fewshot_split", "dataset_name", "tag")


def names_of(words: str) -> list[str]:
    """The tasks of "all" or of names with commas. Raises ValueError for one that is not there."""
    if words == "all":
        return list(TASKS)
    names = words.split(",")
    for name in names:
        if name not in TASKS:
            raise ValueError(f"there is no task '{name}'; there are all, {', '.join(TASKS)}")
    return names


def task_config(name: str, folder: pathlib.Path) -> dict[str, Any]:
    """The harness's description of a task with the documents of `folder`. Raises ValueError if they are not there."""
    from lm_eval.tasks._yaml_loader import load_yaml

    task = TASKS[name]
    documents = folder / task.file
    if not documents.is_file():
        raise ValueError(f"{documents} is missing: the documents of the task {name}")
    # By path: the harness's TaskManager would read all of its 14,000 files first.
    config = load_yaml(pathlib.Path(lm_eval.__file__).parent / "tasks" / task.yaml, resolve_func=True)
    for key in _REPLACED:
        config.pop(key, None)
    config.update(dataset_path="json", dataset_kwargs={"data_files": {"test": str(documents.resolve())}},
                  test_split="test", task=name)  # fmt: skip
    for key, value in (task.changes or {}).items():
        if value is None:
            config.pop(key, None)
        else:
            config[key] = value
    return config
