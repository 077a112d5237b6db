"""The program c2r, and log-likelihoods from it."""

import json
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from typing import Any


def find_program(program: str | pathlib.Path | None = None) -> pathlib.Path:
    """The program c2r: the one that is named, the one of this package, or the one in PATH.

    Raises ValueError if there is none. The package's own runs in one process; several ranks need one with MPI.
    """
    if program is not None:
        if not pathlib.Path(program).is_file():
            raise ValueError(f"there is no program {program}")
        return pathlib.Path(program)
    of_package = pathlib.Path(__file__).parents[1] / "c2r"
    if of_package.is_file():
        return of_package
    found = shutil.which("c2r")
    if found is None:
        raise ValueError("the program c2r is not installed; name it, or install the package with pip install .")
    return pathlib.Path(found)


class Scorer:
    """Runs `c2r score` on a model."""

    def __init__(
        self, model: str | pathlib.Path, *, plan: str | pathlib.Path | None = None, dtype: str = "bf16", ranks: int = 1,
        threads: int | None = None, program: str | pathlib.Path | None = None,
    ) -> None:  # fmt: skip
        """plan: its lists, and on several ranks its placement. dtype: of the arithmetic, bf16 or f32. threads: of each
        rank; None: all processors.
        """
        launcher = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
        self._command = [*launcher, str(find_program(program)), "score", str(model), "--dtype", dtype]
        if plan is not None:
            self._command += ["--plan", str(plan)]
        if threads is not None:
            self._command += ["--threads", str(threads)]

    def run(self, option: str, rows: Iterable[Any], *more: str) -> list[dict]:
        """What `c2r score` prints with --json, one object for each piece. Raises ValueError with its message."""
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            done = subprocess.run(
                [*self._command, option, file.name, *more, "--json"], capture_output=True, text=True, check=False
            )
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode} and no message"]
            raise ValueError(next((line for line in said if line.startswith("c2r ")), said[-1]))
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return [line for line in lines if "run" not in line]  # the last one, on several ranks
