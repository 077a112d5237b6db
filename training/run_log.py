"""The log of a run: one JSON object a line, each with `event` and `step`; all that the model card states."""

import json
import pathlib

from training.files import new_file


class RunLog:
    """Appends records to a file. Continuing from a checkpoint drops what came after it."""

    def __init__(self, path: pathlib.Path, first_step: int) -> None:
        """Keeps the records of `first_step` and before; none if it is 0, where a run starts again."""
        self._path = path
        kept = [record for record in read_log(path) if record["step"] <= first_step] if first_step else []
        with new_file(path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))

    def add(self, event: str, step: int, **values: object) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"event": event, "step": step} | values) + "\n")


def read_log(path: pathlib.Path) -> list[dict]:
    """Every whole record; a last line that a kill cut off is left out. @raises ValueError if another is no record."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    try:
        return [json.loads(line) for line in lines[:-1]]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no log of a run: {error}") from None
