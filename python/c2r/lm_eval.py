"""c2r's engine as a model of lm-evaluation-harness (0.4.13).

    import c2r.lm_eval                                   # registers the model "c2r"
    lm_eval.simple_evaluate(model="c2r", model_args="pretrained=model,plan=plan.json,ranks=4", tasks=["piqa"])

The release of the harness finds no plug-ins by itself, so something has to import this; `python -m c2r.evaluate` does.
Log-likelihoods are those of `c2r score --pairs` and `--rolling`, which encode texts as the harness does.
"""

from typing import Any

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from c2r.evaluate.scorer import Scorer


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
        raise NotImplementedError("the model c2r scores texts; tasks that let a model write are not supported")
