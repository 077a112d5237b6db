"""The harness's own tasks, over documents of a local folder: prompts and metrics stay as the harness has them."""

import json
import pathlib
from typing import Any, NamedTuple

import lm_eval


class Task(NamedTuple):
    """Where the harness describes a task, and which file has its documents."""

    yaml: str  # in lm_eval/tasks
    file: str
    fields: tuple[str, ...]  # that every document has
    changes: dict[str, Any] | None = None  # what the form of our documents makes necessary


_QUESTION = ("question", "choices", "answerKey")
TASKS = {
    "arc_challenge": Task("arc/arc_challenge.yaml", "arc_challenge.jsonl", _QUESTION),
    "arc_easy": Task("arc/arc_easy.yaml", "arc_easy.jsonl", _QUESTION),
    "boolq": Task("super_glue/boolq/default.yaml", "boolq.jsonl", ("passage", "question", "label")),
    # Our documents are already as the harness's process_docs makes them.
    "hellaswag": Task("hellaswag/hellaswag.yaml", "hellaswag.jsonl", ("query", "choices", "gold"),
                      {"process_docs": None, "doc_to_target": "{{gold}}"}),
    "lambada_openai": Task("lambada/lambada_openai.yaml", "lambada.jsonl", ("text",)),
    # Labels are numbers here, and letters in the harness's data set.
    "logiqa": Task("logiqa/logiqa.yaml", "logiqa.jsonl", ("context", "question", "options", "label"),
                   {"doc_to_target": "{{label}}"}),
    "openbookqa": Task("openbookqa/openbookqa.yaml", "openbookqa.jsonl", ("question_stem", "choices", "answerKey")),
    "piqa": Task("piqa/piqa.yaml", "piqa.jsonl", ("goal", "sol1", "sol2", "label")),
    "rte": Task("glue/rte/default.yaml", "rte.jsonl", ("sentence1", "sentence2", "label")),
    "sciq": Task("sciq/sciq.yaml", "sciq.jsonl",
                 ("question", "support", "distractor1", "distractor2", "distractor3", "correct_answer")),
    "winogrande": Task("winogrande/default.yaml", "winogrande.jsonl", ("sentence", "option1", "option2", "answer")),
}  # fmt: skip
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


def check_documents(name: str, folder: pathlib.Path) -> None:
    """Raises ValueError, naming the line, unless every line of a task's file is a document with the task's fields."""
    task = TASKS[name]
    path = folder / task.file
    if not path.is_file():
        raise ValueError(f"{path} is missing: the documents of the task {name}")
    number = 0
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                document = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: is not JSON: {error}") from None
            lacking = [field for field in task.fields if not isinstance(document, dict) or field not in document]
            if lacking:
                raise ValueError(f"{path}:{number}: a document of {name} has {', '.join(task.fields)}, but here is no "
                                 f"{lacking[0]}")  # fmt: skip
    if number == 0:
        raise ValueError(f"{path} has no documents")


def task_config(name: str, folder: pathlib.Path) -> dict[str, Any]:
    """The harness's description of a task with the documents of `folder`, which check_documents() has accepted."""
    from lm_eval.tasks._yaml_loader import load_yaml

    task = TASKS[name]
    documents = folder / task.file
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
