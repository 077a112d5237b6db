"""``c2r.report()``."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from c2r import _c2r, _progress
from c2r._arguments import Cluster, Path, Progress, TraceOrArrays, as_trace, cluster_text
from c2r._c2r import Plan


def report(
    trace_or_arrays: TraceOrArrays,
    plan: Plan | Path,
    output: Path | None = None,
    *,
    num_experts: int | None = None,
    on: str = "all",
    compare: Path | Mapping[str, Any] | None = None,
    constrained: Mapping[int, Path | Sequence[Mapping[str, Any]]] | None = None,
    score: Path | Mapping[int | None, Path] | None = None,
    bench: Path | None = None,
    figure: str = "",
    cluster: Cluster | None = None,
    engine: str = "",
    backend: str = "",
    copy_mode: str | None = None,
    replica_rule: str | None = None,
    homes: str | None = None,
    hidden: int = 0,
    intermediate: int = 0,
    hardware: str = "",
    batch_tokens: int | None = None,
    phase: str = "prefill",
    dispatch_type: str = "bf16",
    weight_type: str = "bf16",
    wire_width: int = 0,
    overlap: str = "added",
    seed: int = 0,
    num_threads: int = 0,
    progress: Progress = False,
) -> dict[str, Any]:
    """What a plan does to a trace, as one HTML page for people who decide: `c2r report`.

    Args:
      trace_or_arrays: as in :func:`plan`.
      plan: a :class:`Plan`, or the path of its file, which the page then names.
      output: the file to write, whole or not at all; without it there is no page.
      on: the sequences to count: all, even, odd, first-half, second-half.
      compare: what :func:`compare` returns, or the output of ``c2r compare --json``: the page shows its placements, too.
      constrained: for each T, what :func:`simulate` returns with ``constrained``, or the output of
        ``c2r simulate --constrained --json``: the page shows the traffic with routing among T collaborators.
      score: the output of ``c2r score --json``; or for each T such a file, and for None that without a constraint.
      bench: the output of ``c2r bench layer --json`` or ``c2r bench exchange --json``.
      figure: one figure as SVG instead of the page: waterfall, layers, loads, drift, front, constraint, measured, links
        or sequence.
      cluster: as in :func:`plan`; by default the plan's own.
      engine, backend, copy_mode, replica_rule, homes, hidden, intermediate, hardware, batch_tokens, phase,
        dispatch_type, weight_type, wire_width, overlap: as in :func:`simulate`.

    Returns:
      A dict with the numbers of the page, as ``c2r report --json`` has them. "answer" has "is_advised", whether to load
      the plan, and the sentences of the page: "sentence", "why", "how_sure", "reasons" and "cautions".

    Raises:
      ValueError: a name is unknown, the plan is of another model than the trace, or the page cannot have the figure;
      OSError: an input is broken, or the output cannot be written.

    >>> together = [np.array([[0, 2], [0, 2], [1, 3], [1, 3]], np.int32)]
    >>> plan = c2r.plan(together, "1x2", num_experts=4)
    >>> answer = c2r.report(together, plan, "report.html", num_experts=4)["answer"]
    >>> answer["is_advised"], answer["reasons"]
    (False, ['1 sequence is too few to know what it saves of other texts'])
    """
    is_file = isinstance(plan, str | os.PathLike)
    scores = {None: score} if isinstance(score, str | os.PathLike) else score or {}
    options = {"plan_name": os.fspath(plan) if is_file else "plan", "on": on,
               "compare": json.dumps(compare) if isinstance(compare, Mapping) else compare and os.fspath(compare),
               "constrained": [(top_t, _simulated_text(given)) for top_t, given in (constrained or {}).items()],
               "score": [(top_t, os.fspath(path)) for top_t, path in scores.items()],
               "bench": bench and os.fspath(bench), "figure": figure,
               "cluster": None if cluster is None else cluster_text(cluster), "engine": engine, "backend": backend,
               "copy_mode": copy_mode, "replica_rule": replica_rule, "homes": homes, "hidden": hidden,
               "intermediate": intermediate, "hardware": hardware, "batch_tokens": batch_tokens, "phase": phase,
               "dispatch_type": dispatch_type, "weight_type": weight_type, "wire_width": wire_width,
               "overlap": overlap, "seed": seed, "num_threads": num_threads}  # fmt: skip
    trace = as_trace(trace_or_arrays, num_experts)
    with _progress.shown(progress, "reporting") as shown:
        return json.loads(_c2r.report(Plan.load(plan) if is_file else plan, trace, output, options, shown))


def _simulated_text(given: Path | Sequence[Mapping[str, Any]]) -> str:
    """The path of a simulation, or its steps as the JSON that the command line prints."""
    return os.fspath(given) if isinstance(given, str | os.PathLike) else json.dumps({"steps": list(given)})
