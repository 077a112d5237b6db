"""The functions of the C++ library on NumPy arrays; the package ``c2r`` offers them under its own name."""

import json
import warnings as _warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2r import _c2r, _progress
from c2r._arguments import Cluster, Progress, Tokens, TraceOrArrays, as_trace, cluster_text
from c2r._c2r import (
    CollaborationStatistics,
    Plan,
    RoutingPolicy,
    Trace,
    TraceHeader,
    TraceWriter,
    load_statistics,
    route,
)
from c2r._imports import import_file
from c2r._report import report

__all__ = [
    "CollaborationStatistics",
    "Plan",
    "RoutingPolicy",
    "Trace",
    "TraceHeader",
    "TraceWriter",
    "collaborators",
    "compare",
    "count_collaboration",
    "engine_traffic",
    "import_file",
    "load_statistics",
    "plan",
    "report",
    "route",
    "simulate",
]


def count_collaboration(trace: Trace, *, num_threads: int = 0, progress: Progress = False) -> CollaborationStatistics:
    """Counts how often experts were chosen together, in every layer of a trace.

    Args:
      trace: a :class:`Trace`.
      num_threads: 0 means all processors. The result does not depend on it.
      progress: True shows a bar (tqdm's, if it is installed); or a callable of (done, total) tokens.

    Returns:
      :class:`CollaborationStatistics`: int64 counts [num_experts, num_experts] for each layer.

    Raises:
      OSError: the trace holds an invalid choice; the message names layer and token.
      ValueError: num_threads is negative.

    >>> header = c2r.TraceHeader(num_experts=3, top_k=2, layer_indices=[0])
    >>> trace = c2r.Trace(header, [np.array([[0, 1], [0, 1], [0, 2]], np.int32)])
    >>> c2r.count_collaboration(trace).coactivation(0).tolist()
    [[3, 2, 1], [2, 2, 0], [1, 0, 1]]
    """
    with _progress.shown(progress, "counting") as report:
        return _c2r.count_collaboration(trace, num_threads=num_threads, progress=report)


def collaborators(statistics: CollaborationStatistics, top_t: int) -> NDArray[np.int32]:
    """The Top-T lists that constrain routing (C2R, arXiv 2504.01337).

    Row e of a layer ranks the experts that were chosen together with e, most often first; equal counts go to
    the lower expert.

    Args:
      statistics: :class:`CollaborationStatistics` with counts of pairs.
      top_t: the length of a list, in [1, num_experts - 1].

    Returns:
      int32 [num_layers, num_experts, top_t].

    Raises:
      ValueError: ``top_t`` is out of range, or the statistics hold loads only.

    >>> header = c2r.TraceHeader(num_experts=3, top_k=2, layer_indices=[0])
    >>> trace = c2r.Trace(header, [np.array([[0, 1], [0, 1], [0, 2]], np.int32)])
    >>> c2r.collaborators(c2r.count_collaboration(trace), top_t=1).tolist()
    [[[1], [0], [0]]]
    """
    return np.stack([statistics.collaborators(layer, top_t) for layer in range(statistics.num_layers)])


def plan(
    trace_or_arrays: Tokens,
    cluster: Cluster,
    *,
    num_experts: int | None = None,
    fit: str = "all",
    scenarios: str = "",
    method: str | None = None,
    redundant_slots: int = 0,
    top_t: int | None = None,
    minimize: str = "copies",
    max_imbalance: float | None = None,
    imbalance_weight: float = 0.0,
    bound_on: str = "fitted",
    max_copies: float | None = None,
    hidden: int = 0,
    intermediate: int = 0,
    batch_tokens: int | None = None,
    overlap: str = "added",
    num_groups: int | None = None,
    engine: str = "",
    backend: str = "",
    phase: str = "prefill",
    hardware: str = "",
    seed: int = 0,
    effort: float = 1.0,
    seconds: float | None = None,
    num_threads: int = 0,
    progress: Progress = False,
) -> Plan:
    """Places the experts of every layer so that tokens reach few ranks and ranks are loaded alike: `c2r plan`.

    Args:
      trace_or_arrays: a :class:`Trace`, its path, or for each layer an int32 array [num_tokens, top_k] of expert ids,
        -1 for none; arrays need ``num_experts`` and are one sequence. Or :class:`CollaborationStatistics`: pair counts,
        or loads, from which the plan's predictions have the imbalance, and no copies.
      cluster: nodes x ranks per node, such as "1x8"; the path of a JSON file with bandwidths; or its content, a dict.
      fit: the sequences to fit: all, even, odd, first-half, second-half. The plan's predictions are of the others.
      scenarios: groups of the fitted sequences, in the worst of which the bound on imbalance is to hold and the
        imbalance or the time is minimized: "8", "clusters:8" or "first-half,second-half".
      method: optimize, or a baseline: contiguous, round-robin, random, eplb, balance, affinity, grace, exhaustive; by
        default optimize, and balance for loads.
      redundant_slots: slots of each rank for replicas of busy experts.
      top_t: also put the top-T collaborators of each expert into the plan.
      minimize: copies, imbalance or time; the last needs ``hidden``, ``intermediate`` and a cluster or hardware with a
        rate, and is the time of ``batch_tokens`` with copies sent as ``engine`` sends them, without reading weights.
      max_imbalance: a bound on the busiest rank's load over the mean; 1.1 if only copies are minimized.
      bound_on: fitted, or unseen: the bound is to hold on tokens that were not fitted.
      max_copies: a bound on copies, for minimize="imbalance".
      engine, backend: predict what this engine sends, such as "sglang" and "deepep", beside what it sends today.
      phase, hardware, batch_tokens, overlap: as in :func:`simulate`.
      seconds: a cut-off of the search, which has four fifths of it and then gives the best so far, and of the
        predictions, which are left out with a warning if they take longer.
      progress: True shows a bar; or a callable of (done, total).

    Returns:
      :class:`Plan`, the same bytes when saved as ``c2r plan`` writes on the same tokens. Ctrl-C raises
      KeyboardInterrupt and gives no plan.

    Raises:
      ValueError: options contradict each other or do not fit the model; OSError: the trace is broken.
      What does not prevent a plan is a UserWarning.

    >>> together = [np.array([[0, 2], [0, 2], [1, 3], [1, 3]], np.int32)]
    >>> plan = c2r.plan(together, "1x2", num_experts=4)
    >>> sorted(sorted(experts) for experts in plan.slots()[0].tolist())
    [[0, 2], [1, 3]]
    """
    options = {
        key: value
        for key, value in locals().items()
        if key not in ("trace_or_arrays", "cluster", "num_experts", "progress")
    }
    with _progress.shown(progress, "placing experts") as report:
        if isinstance(trace_or_arrays, CollaborationStatistics):
            made, messages = _c2r.make_plan_of_counts(trace_or_arrays, cluster_text(cluster), options, report)
        else:
            trace = as_trace(trace_or_arrays, num_experts)
            made, messages = _c2r.make_plan(trace, cluster_text(cluster), options, report)
    for message in messages:
        _warnings.warn(message, stacklevel=2)
    return made


def simulate(
    plan: Plan,
    trace_or_arrays: Tokens,
    *,
    constrained: TraceOrArrays | None = None,
    num_experts: int | None = None,
    on: str = "all",
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
    top_t: int | None = None,
    policy: str | None = None,
    seed: int = 0,
    num_threads: int = 0,
    progress: Progress = False,
) -> list[dict[str, Any]]:
    """What a plan saves on the tokens of a trace, step by step: `c2r simulate`.

    Args:
      plan: a :class:`Plan`.
      trace_or_arrays: as in :func:`plan`.
      constrained: a second recording, with the constraint on: one more step.
      on: the sequences to count: all, even, odd, first-half, second-half.
      engine, backend: count as this engine's backend sends; the first step is then what it sends today.
      copy_mode: per-expert, per-rank, per-node or all-gather; by default what the plan's cluster suggests.
      replica_rule: fewest-ranks (default), local-first or random.
      homes: uniform (default) or sequences.
      hidden: values of a token; then bytes are given, too.
      intermediate: the experts' inner width; then times are predicted, too. They need a cluster with a rate, or
        ``hardware``.
      hardware: the links and rates of the cluster by name, such as "h800-ib400", or the path of a JSON file.
      batch_tokens: for times: the tokens of one batch on all ranks together; None: all counted tokens.
      phase: prefill or decode: the kernel of the engine's backend that steps and times are about.
      dispatch_type, weight_type: bf16 or fp8; combine is in bf16.
      wire_width: values of a copy, if other than ``hidden`` are sent.
      overlap: for times, communication and experts: added, or overlapped in chunks.
      top_t: of a trace with logits: one more step, routed by the plan's lists of collaborators cut to ``top_t``.
      policy: of a trace with logits: one more step, routed by "device-limited:M" or "top-t:T".

    Returns:
      A list of dicts, one for each step: per-expert, deduplication, placement, replicas, constraint, and those of
      ``top_t`` and ``policy`` by the name of their rule; of each the numbers per layer and the exact counts, as
      ``c2r simulate --json`` has them. Steps of ``top_t`` and ``policy`` also have "num_choices", the recorded choices
      (a token in a layer), and "num_other_choices", those of them that are not the top-k of their logits: there the
      router looked at more than the logits.

    Raises:
      ValueError: a name is unknown, or the plan is of another model than the trace; OSError: the trace is broken.

    >>> together = [np.array([[0, 2], [0, 2], [1, 3], [1, 3]], np.int32)]
    >>> plan = c2r.plan(together, "1x2", num_experts=4)
    >>> steps = c2r.simulate(plan, together, num_experts=4)
    >>> {step["step"]: step["copies_per_token"] for step in steps}
    {'per-expert': [2.0], 'deduplication': [2.0], 'placement': [1.0]}
    """
    policies = ([] if top_t is None else [f"top-t:{top_t}"]) + ([] if policy is None else [policy])
    options = {"on": on, "engine": engine, "backend": backend, "copy_mode": copy_mode, "replica_rule": replica_rule,
               "homes": homes, "hidden": hidden, "intermediate": intermediate, "hardware": hardware,
               "batch_tokens": batch_tokens, "phase": phase, "dispatch_type": dispatch_type, "weight_type": weight_type,
               "wire_width": wire_width, "overlap": overlap, "policies": policies, "seed": seed,
               "num_threads": num_threads}  # fmt: skip
    with _progress.shown(progress, "simulating") as report:
        if isinstance(trace_or_arrays, CollaborationStatistics):
            if constrained is not None:
                raise ValueError("constrained is a second trace, but the tokens are counts")
            if policies:
                raise ValueError("top_t and policy need a trace with logits, but the tokens are counts")
            return json.loads(_c2r.simulate_counts(plan, trace_or_arrays, options, report))
        trace = as_trace(trace_or_arrays, num_experts)
        other = None if constrained is None else as_trace(constrained, num_experts)
        return json.loads(_c2r.simulate(plan, trace, other, options, report))


def engine_traffic(
    plan: Plan,
    trace_or_arrays: TraceOrArrays,
    engine: str,
    *,
    backend: str = "",
    num_experts: int | None = None,
    on: str = "all",
    homes: str | None = None,
    hidden: int = 0,
    seed: int = 0,
    num_threads: int = 0,
    progress: Progress = False,
) -> dict[str, Any]:
    """What each kernel of an engine's backend sends today and under a plan: the headline of `c2r simulate --engine`.

    Args:
      plan: a :class:`Plan`.
      trace_or_arrays: as in :func:`plan`.
      engine, backend: such as "sglang" and "deepep"; the engine's default backend without one.
      on, homes, hidden: as in :func:`simulate`.

    Returns:
      A dict with "engine", "backend", "num_layers" and "kernels", as ``c2r simulate --json`` has it.

    Raises:
      ValueError: c2r does not know the engine or the backend (it lists those that it knows), or the plan is of another
      model than the trace; OSError: the trace is broken.

    >>> together = [np.array([[0, 2], [0, 2], [1, 3], [1, 3]], np.int32)]
    >>> plan = c2r.plan(together, "1x2", num_experts=4)
    >>> traffic = c2r.engine_traffic(plan, together, "tensorrt-llm", num_experts=4)
    >>> [traffic["kernels"][0][key]["dispatch_copies_per_token"] for key in ("today", "planned")]
    [1.0, 0.5]
    """
    options = {"engine": engine, "backend": backend, "on": on, "homes": homes, "hidden": hidden, "seed": seed,
               "num_threads": num_threads}  # fmt: skip
    trace = as_trace(trace_or_arrays, num_experts)
    with _progress.shown(progress, "counting") as report:
        return json.loads(_c2r.engine_traffic(plan, trace, options, report))


def compare(
    trace_or_arrays: Tokens,
    plans: Mapping[str, Plan] | Sequence[Plan] = (),
    *,
    cluster: Cluster | None = None,
    num_experts: int | None = None,
    on: str = "all",
    fit: str | None = None,
    baselines: Sequence[str] = ("contiguous", "eplb"),
    front_points: int | None = None,
    redundant_slots: int = 0,
    engine: str = "",
    backend: str = "",
    copy_mode: str | None = None,
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
    """Sets plans beside baselines, counted on the same tokens: `c2r compare`.

    Args:
      trace_or_arrays: as in :func:`plan`.
      plans: a dict of names and :class:`Plan`, or a list of plans.
      cluster: as in :func:`plan`; by default that of the first plan.
      on, fit: the sequences that are counted, and those that baselines are fitted on (by default the others).
      engine, backend: as in :func:`simulate`; "base" is then what the engine sends today.
      hidden, intermediate, hardware, batch_tokens, phase, dispatch_type, weight_type, wire_width, overlap: as in
        :func:`simulate`; "predicted_layer_time_s" of each placement has the times.
      front_points: also optimize: so many placements from the fewest copies to the best balance.

    Returns:
      A dict with "cluster", "base", "placements", "left_out" and "notes", as ``c2r compare --json`` has them.

    Raises:
      ValueError: a name is unknown, a plan is of another model than the trace, or nothing says what the cluster is;
      OSError: the trace is broken.

    >>> together = [np.array([[0, 2], [0, 2], [1, 3], [1, 3]], np.int32)]
    >>> plan = c2r.plan(together, "1x2", num_experts=4)
    >>> compared = c2r.compare(together, {"ours": plan}, num_experts=4, fit="all", baselines=["contiguous"])
    >>> [entry["placement"] for entry in compared["placements"]]
    ['contiguous', 'ours']
    """
    named = list(plans.items()) if isinstance(plans, dict) else [(f"plan {at}", one) for at, one in enumerate(plans)]
    if cluster is None and not named:
        raise ValueError("cluster is required where no plan says what the cluster is")
    options = {"on": on, "fit": fit, "baselines": list(baselines), "front_points": front_points,
               "redundant_slots": redundant_slots, "engine": engine, "backend": backend, "copy_mode": copy_mode,
               "hidden": hidden, "intermediate": intermediate, "hardware": hardware, "batch_tokens": batch_tokens,
               "phase": phase, "dispatch_type": dispatch_type, "weight_type": weight_type, "wire_width": wire_width,
               "overlap": overlap, "seed": seed, "num_threads": num_threads}  # fmt: skip
    shape = "" if cluster is None else cluster_text(cluster)
    with _progress.shown(progress, "comparing") as report:
        if isinstance(trace_or_arrays, CollaborationStatistics):
            text = _c2r.compare_on_counts(trace_or_arrays, named, shape, options, report)
        else:
            text = _c2r.compare(as_trace(trace_or_arrays, num_experts), named, shape, options, report)
    return json.loads(text)
