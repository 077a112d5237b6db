"""c2r's engine as a model of lm-evaluation-harness (0.4.13).

    import c2r.lm_eval                                   # registers the model "c2r"
    lm_eval.simple_evaluate(model="c2r", model_args="pretrained=model,plan=plan.json,ranks=4", tasks=["piqa"])

The release of the harness finds no plug-ins by itself, so something has to import this; `python -m c2r.evaluate` does.
Log-likelihoods are those of `c2r score --pairs` and `--rolling`, which encode texts as the harness does.
"""

import json
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from typing import Any

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model


def find_program(program: str | pathlib.Path | None = None) -> pathlib.Path:
    """The program c2r: the one that is named, the one of this package, or the one in PATH.

    Raises ValueError if there is none. The package's own runs in one process; several ranks need one with MPI.
    """
    if program is not None:
        if not pathlib.Path(program).is_file():
            raise ValueError(f"there is no program {program}")
        return pathlib.Path(program)
    of_package = pathlib.Path(__file__).with_name("c2r")
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
        return [json.loads(line) for line in done.stdout.splitlines()]


@register_model("c2r")
class C2rLM(LM):
    """The harness's model. Arguments are those of Scorer; its own batch_size and device are not used."""

    def __init__(self, pretrained: str, plan: str | None = None, dtype: str = "bf16", ranks: int = 1,
                 threads: int | None = None, program: str | None = None, **unused: Any) -> None:  # fmt: skip
        super().__init__()
        unknown = set(unused) - {"batch_size", "max_batch_size", "device"}
        if unknown:
            raise ValueError(f"the model c2r has no argument {', '.join(sorted(unknown))}")
        self._scorer = Scorer(pretrained, plan=plan, dtype=dtype, ranks=int(ranks), threads=threads, program=program)

    def loglikelihood(self, requests: list, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        rows = [{"context": context, "continuation": continuation} for context, continuation in
                (request.args for request in requests)]  # fmt: skip
        return [(score["log_likelihood"], score["is_greedy"]) for score in self._scorer.run("--pairs", rows)]

    def loglikelihood_rolling(self, requests: list, disable_tqdm: bool = False) -> list[float]:
        sums = [0.0] * len(requests)
        # As the harness: windows as long as the model allows, with one token of context.
        pieces = self._scorer.run(
            "--text", [{"text": request.args[0]} for request in requests], "--rolling", "1", "--window", str(1 << 24)
        )
        for piece in pieces:
            sums[piece["line"] - 1] += piece["log_likelihood"]
        return sums

    def generate_until(self, requests: list, disable_tqdm: bool = False) -> list[str]:
        raise NotImplementedError("the model c2r scores texts; tasks that let a model write need stop strings, which "
                                  "c2r generate does not have")  # fmt: skip
