"""The functions of the C++ library on NumPy arrays; the package ``c2r`` offers them under its own name."""

import json
import os
import warnings as _warnings

import numpy as np

from c2r import _progress
from c2r._c2r import CollaborationStatistics, Plan, RoutingPolicy, Trace, TraceHeader, TraceWriter, route
from c2r._c2r import compare as _compare
from c2r._c2r import count_collaboration as _count_collaboration
from c2r._c2r import make_plan as _make_plan
from c2r._c2r import read_statistics as load_statistics
from c2r._c2r import simulate as _simulate

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
    "load_statistics",
    "plan",
    "route",
    "simulate",
]


def _trace(trace_or_arrays, num_experts):
    """A trace, of a trace, a path, or one int32 array [num_tokens, top_k] a layer."""
    if isinstance(trace_or_arrays, Trace):
        return trace_or_arrays
    if isinstance(trace_or_arrays, str | os.PathLike):
        return Trace(trace_or_arrays)
    layers = list(trace_or_arrays)
    if num_experts is None or not layers:
        raise ValueError("arrays need num_experts, and there must be at least one layer of them")
    top_k = layers[0].shape[1] if getattr(layers[0], "ndim", 0) == 2 else 0
    header = TraceHeader(num_experts=num_experts, top_k=top_k, layer_indices=list(range(len(layers))))
    return Trace(header, layers)


def _cluster(cluster):
    return json.dumps(cluster) if isinstance(cluster, dict) else os.fspath(cluster)


def count_collaboration(trace, *, num_threads=0, progress=False):
    """Counts how often experts were chosen together, in every layer of a trace.

    Args:
      trace: a :class:`Trace`.
      num_threads: 0 means all processors. The result does not depend on it.
      progress: True shows a bar (tqdm's, if it is installed); or a callable of (done, total) tokens.

    Returns:
      :class:`CollaborationStatistics`: int64 counts [num_experts, num_experts] for each layer.

    Raises:
      OSError: the trace holds an invalid choice; the message names layer and token.
    """
    with _progress.shown(progress, "counting") as report:
        return _count_collaboration(trace, num_threads=num_threads, progress=report)


def collaborators(statistics, top_t):
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
    """
    return np.stack([statistics.collaborators(layer, top_t) for layer in range(statistics.num_layers)])


def plan(
    trace_or_arrays,
    cluster,
    *,
    num_experts=None,
    fit="all",
    method="optimize",
    redundant_slots=0,
    top_t=None,
    minimize="copies",
    max_imbalance=None,
    imbalance_weight=0.0,
    bound_on="fitted",
    max_copies=None,
    hidden=0,
    intermediate=0,
    num_groups=None,
    seed=0,
    effort=1.0,
    seconds=None,
    num_threads=0,
    progress=False,
):
    """Places the experts of every layer so that tokens reach few ranks and ranks are loaded alike: `c2r plan`.

    Args:
      trace_or_arrays: a :class:`Trace`, its path, or for each layer an int32 array [num_tokens, top_k] of expert ids,
        -1 for none; arrays need ``num_experts`` and are one sequence.
      cluster: nodes x ranks per node, such as "1x8"; the path of a JSON file with bandwidths; or its content, a dict.
      fit: the sequences to fit: all, even, odd, first-half, second-half. The plan's predictions are of the others.
      method: optimize, or a baseline: contiguous, round-robin, random, eplb, affinity, grace, exhaustive.
      redundant_slots: slots of each rank for replicas of busy experts.
      top_t: also put the top-T collaborators of each expert into the plan.
      minimize: copies, imbalance or time; the last needs ``hidden``, ``intermediate`` and a cluster with a rate.
      max_imbalance: a bound on the busiest rank's load over the mean; 1.1 if only copies are minimized.
      bound_on: fitted, or unseen: the bound is to hold on tokens that were not fitted.
      max_copies: a bound on copies, for minimize="imbalance".
      seconds: a cut-off of the search, which then gives the best so far.
      progress: True shows a bar; or a callable of (done, total).

    Returns:
      :class:`Plan`, the same bytes when saved as ``c2r plan`` writes on the same tokens. Ctrl-C raises
      KeyboardInterrupt and gives no plan.

    Raises:
      ValueError: options contradict each other or do not fit the model; OSError: the trace is broken.
      What does not prevent a plan is a UserWarning.
    """
    options = {
        key: value
        for key, value in locals().items()
        if key not in ("trace_or_arrays", "cluster", "num_experts", "progress")
    }
    trace = _trace(trace_or_arrays, num_experts)
    with _progress.shown(progress, "placing experts") as report:
        made, messages = _make_plan(trace, _cluster(cluster), options, report)
    for message in messages:
        _warnings.warn(message, stacklevel=2)
    return made


def simulate(
    plan,
    trace_or_arrays,
    *,
    constrained=None,
    num_experts=None,
    on="all",
    copy_mode=None,
    replica_rule=None,
    homes=None,
    hidden=0,
    seed=0,
    num_threads=0,
    progress=False,
):
    """What a plan saves on the tokens of a trace, step by step: `c2r simulate`.

    Args:
      plan: a :class:`Plan`.
      trace_or_arrays: as in :func:`plan`.
      constrained: a second recording, with the constraint on: one more step.
      on: the sequences to count: all, even, odd, first-half, second-half.
      copy_mode: per-expert, per-rank, per-node or all-gather; by default what the plan's cluster suggests.
      replica_rule: fewest-ranks (default), local-first or random.
      homes: uniform (default) or sequences.
      hidden: values of a token; then bytes are given, too.

    Returns:
      A list of dicts, one for each step: per-expert, deduplication, placement, replicas, constraint; of each the
      numbers per layer and the exact counts, as ``c2r simulate --json`` has them.
    """
    trace = _trace(trace_or_arrays, num_experts)
    other = None if constrained is None else _trace(constrained, num_experts)
    options = {"on": on, "copy_mode": copy_mode, "replica_rule": replica_rule, "homes": homes, "hidden": hidden,
               "seed": seed, "num_threads": num_threads}  # fmt: skip
    with _progress.shown(progress, "simulating") as report:
        return json.loads(_simulate(plan, trace, other, options, report))


def compare(
    trace_or_arrays,
    plans=(),
    *,
    cluster=None,
    num_experts=None,
    on="all",
    fit=None,
    baselines=("contiguous", "eplb"),
    front_points=None,
    redundant_slots=0,
    copy_mode=None,
    hidden=0,
    seed=0,
    num_threads=0,
    progress=False,
):
    """Sets plans beside baselines, counted on the same tokens: `c2r compare`.

    Args:
      trace_or_arrays: as in :func:`plan`.
      plans: a dict of names and :class:`Plan`, or a list of plans.
      cluster: as in :func:`plan`; by default that of the first plan.
      on, fit: the sequences that are counted, and those that baselines are fitted on (by default the others).
      front_points: also optimize: so many placements from the fewest copies to the best balance.

    Returns:
      A dict with "cluster", "placements" and "left_out", as ``c2r compare --json`` has them.
    """
    named = list(plans.items()) if isinstance(plans, dict) else [(f"plan {at}", one) for at, one in enumerate(plans)]
    if cluster is None and not named:
        raise ValueError("cluster is required where no plan says what the cluster is")
    options = {"on": on, "fit": fit, "baselines": list(baselines), "front_points": front_points,
               "redundant_slots": redundant_slots, "copy_mode": copy_mode, "hidden": hidden, "seed": seed,
               "num_threads": num_threads}  # fmt: skip
    with _progress.shown(progress, "comparing") as report:
        text = _compare(
            _trace(trace_or_arrays, num_experts), named, "" if cluster is None else _cluster(cluster), options, report
        )
    return json.loads(text)
