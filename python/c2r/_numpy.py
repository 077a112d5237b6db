"""The functions of the C++ library on NumPy arrays; the package ``c2r`` offers them under its own name."""

import json
import os
import warnings as _warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2r import _c2r, _progress
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

_Path = str | os.PathLike[str]
_TraceOrArrays = Trace | _Path | Sequence[NDArray[np.int32]]
_Tokens = _TraceOrArrays | CollaborationStatistics
_Cluster = str | os.PathLike[str] | dict[str, Any]
_Progress = bool | Callable[[int, int], object] | None


def _trace(trace_or_arrays: _TraceOrArrays, num_experts: int | None) -> Trace:
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


def _cluster_text(cluster: _Cluster) -> str:
    return json.dumps(cluster) if isinstance(cluster, dict) else os.fspath(cluster)


def count_collaboration(trace: Trace, *, num_threads: int = 0, progress: _Progress = False) -> CollaborationStatistics:
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
    trace_or_arrays: _Tokens,
    cluster: _Cluster,
    *,
    num_experts: int | None = None,
    fit: str = "all",
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
    progress: _Progress = False,
) -> Plan:
    """Places the experts of every layer so that tokens reach few ranks and ranks are loaded alike: `c2r plan`.

    Args:
      trace_or_arrays: a :class:`Trace`, its path, or for each layer an int32 array [num_tokens, top_k] of expert ids,
        -1 for none; arrays need ``num_experts`` and are one sequence. Or :class:`CollaborationStatistics`: pair counts,
        or loads, from which the plan's predictions have the imbalance, and no copies.
      cluster: nodes x ranks per node, such as "1x8"; the path of a JSON file with bandwidths; or its content, a dict.
      fit: the sequences to fit: all, even, odd, first-half, second-half. The plan's predictions are of the others.
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
      seconds: a cut-off of the search, which then gives the best so far.
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
            made, messages = _c2r.make_plan_of_counts(trace_or_arrays, _cluster_text(cluster), options, report)
        else:
            trace = _trace(trace_or_arrays, num_experts)
            made, messages = _c2r.make_plan(trace, _cluster_text(cluster), options, report)
    for message in messages:
        _warnings.warn(message, stacklevel=2)
    return made


def simulate(
    plan: Plan,
    trace_or_arrays: _Tokens,
    *,
    constrained: _TraceOrArrays | None = None,
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
    progress: _Progress = False,
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
        trace = _trace(trace_or_arrays, num_experts)
        other = None if constrained is None else _trace(constrained, num_experts)
        return json.loads(_c2r.simulate(plan, trace, other, options, report))


def engine_traffic(
    plan: Plan,
    trace_or_arrays: _TraceOrArrays,
    engine: str,
    *,
    backend: str = "",
    num_experts: int | None = None,
    on: str = "all",
    homes: str | None = None,
    hidden: int = 0,
    seed: int = 0,
    num_threads: int = 0,
    progress: _Progress = False,
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
    trace = _trace(trace_or_arrays, num_experts)
    with _progress.shown(progress, "counting") as report:
        return json.loads(_c2r.engine_traffic(plan, trace, options, report))


def compare(
    trace_or_arrays: _Tokens,
    plans: Mapping[str, Plan] | Sequence[Plan] = (),
    *,
    cluster: _Cluster | None = None,
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
    progress: _Progress = False,
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
    shape = "" if cluster is None else _cluster_text(cluster)
    with _progress.shown(progress, "comparing") as report:
        if isinstance(trace_or_arrays, CollaborationStatistics):
            text = _c2r.compare_on_counts(trace_or_arrays, named, shape, options, report)
        else:
            text = _c2r.compare(_trace(trace_or_arrays, num_experts), named, shape, options, report)
    return json.loads(text)


def report(
    trace_or_arrays: _TraceOrArrays,
    plan: Plan | _Path,
    output: _Path | None = None,
    *,
    num_experts: int | None = None,
    on: str = "all",
    compare: _Path | Mapping[str, Any] | None = None,
    constrained: Mapping[int, _Path | Sequence[Mapping[str, Any]]] | None = None,
    score: _Path | Mapping[int | None, _Path] | None = None,
    bench: _Path | None = None,
    figure: str = "",
    cluster: _Cluster | None = None,
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
    progress: _Progress = False,
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
      A dict with the numbers of the page, as ``c2r report --json`` has them. In "answer" are "is_advised", whether to
      load the plan, and "sentence", why.

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
               "cluster": None if cluster is None else _cluster_text(cluster), "engine": engine, "backend": backend,
               "copy_mode": copy_mode, "replica_rule": replica_rule, "homes": homes, "hidden": hidden,
               "intermediate": intermediate, "hardware": hardware, "batch_tokens": batch_tokens, "phase": phase,
               "dispatch_type": dispatch_type, "weight_type": weight_type, "wire_width": wire_width,
               "overlap": overlap, "seed": seed, "num_threads": num_threads}  # fmt: skip
    trace = _trace(trace_or_arrays, num_experts)
    with _progress.shown(progress, "reporting") as shown:
        return json.loads(_c2r.report(Plan.load(plan) if is_file else plan, trace, output, options, shown))


def _simulated_text(given: _Path | Sequence[Mapping[str, Any]]) -> str:
    """The path of a simulation, or its steps as the JSON that the command line prints."""
    return os.fspath(given) if isinstance(given, str | os.PathLike) else json.dumps({"steps": list(given)})


def import_file(
    inputs: _Path | Sequence[_Path],
    format: str | None = None,
    output: _Path | None = None,
    *,
    model: str = "",
    num_experts: int | None = None,
    top_k: int | None = None,
    layer_indices: Sequence[int] | None = None,
    num_hidden_layers: int | None = None,
    weights: _Path | None = None,
    sequences: _Path | None = None,
    axes: str | None = None,
    placement: _Path | None = None,
    skip_cached: bool = False,
    phase: str | None = None,
    drop_incomplete: bool = False,
    repair: bool = False,
    cluster: _Cluster | None = None,
    progress: _Progress = False,
) -> Trace | CollaborationStatistics | Plan:
    """Reads what other programs record of routing, and where they place experts: ``c2r import``, and parquet.

    Args:
      inputs: a path, or the paths in the order of their tokens in the trace; most formats also take folders of files;
        text and npy files also as .xz, .gz or .zst.
      format: of a trace: npy, megatron, orders-in-chaos, moe-beyond, table, vllm, sglang, sglang-recorder, flame-moe,
        parquet; of statistics: sglang-loads, vllm-loads, tensorrt-llm-loads, table-loads, coactivation; of a plan:
        NAME-placement for each target NAME of :meth:`Plan.export`. docs/formats.md says what each holds; parquet is
        either one file ``layer_NN.parquet`` a layer with ``indices`` and perhaps ``scores``, lists for each token, or a
        table with ``layer``, ``token``, ``expert`` and perhaps ``weight`` and ``sequence``, one row a choice. None: by
        what is in the first input, and parquet by the end of its name.
      output: the file to write; a trace needs one, statistics and plans are made in memory without it.
      model: the model's name, kept in the file.
      num_experts: routed experts of a layer; traces and placements need it.
      top_k: experts of a token; placements and most statistics need it, elsewhere it is a check.
      layer_indices: the model's own index of each MoE layer, where the input does not say; placements need it.
      num_hidden_layers: sglang: all layers of the model, dense ones too.
      weights: npy: a file with the weights of the choices.
      sequences: npy: a CSV file with ``row_start`` and ``n_tokens`` of each sequence.
      axes: npy: tokens, layers and top-k in the order of the array, such as "LTK"; None: "TLK".
      placement: tensorrt-llm-loads: the load balancer's yaml, if it counted slots.
      skip_cached: sglang, vllm: leave out tokens of the prefix cache, which were not sent.
      phase: sglang, vllm, sglang-recorder, orders-in-chaos: only prefill, or only decode.
      drop_incomplete: megatron: leave out the last step of a file whose recording was cut off.
      repair: placements: where a rank holds an expert in two slots, give the second slot another expert.
      cluster: placements: as in :func:`plan`.
      progress: True shows a bar; or a callable of (done, total).

    Returns:
      :class:`Trace`, :class:`CollaborationStatistics` or :class:`Plan`, as the format says.

    Raises:
      ImportError: parquet without pyarrow.
      OSError: an input is broken; the message names file, layer and token, and no output appears.
      ValueError: the format is unknown, or something is missing that it needs or given that it does not use.
      What was left out or assumed is a UserWarning.

    >>> np.save("ids.npy", np.array([[[0, 1]], [[2, 3]]], np.uint8))  # [num_tokens, num_layers, top_k]
    >>> c2r.import_file("ids.npy", "npy", "ids.safetensors", num_experts=4).topk_idx(0).tolist()
    [[0, 1], [2, 3]]
    """
    paths = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    layers = None if layer_indices is None else list(layer_indices)
    unused_by_parquet = {"num_hidden_layers": num_hidden_layers, "weights": weights, "sequences": sequences,
                         "axes": axes, "placement": placement, "skip_cached": skip_cached or None, "phase": phase,
                         "drop_incomplete": drop_incomplete or None, "repair": repair or None,
                         "cluster": None if cluster is None else _cluster_text(cluster)}  # fmt: skip
    is_parquet = format == "parquet" or (format is None and paths and os.fspath(paths[0]).endswith(".parquet"))
    with _progress.shown(progress, "importing") as report:
        if is_parquet:
            return _import_parquet(paths, output, unused_by_parquet, model=model, num_experts=num_experts, top_k=top_k,
                                   layer_indices=layers, progress=report)  # fmt: skip
        options = {"model": model, "num_experts": num_experts, "top_k": top_k, "layer_indices": layers,
                   **unused_by_parquet}  # fmt: skip
        made, messages = _c2r.import_file(format or "", paths, output, options, report)
    for message in messages:
        _warnings.warn(message, stacklevel=2)
    return made


def _import_parquet(
    paths: list[_Path], output: _Path | None, unused: dict[str, object], *, num_experts: int | None, **options: Any
) -> Trace:
    from c2r._parquet import import_parquet

    for name, value in unused.items():
        if value is not None:
            raise ValueError(f"{name} is not for format parquet")
    if output is None or num_experts is None or not paths:
        raise ValueError("format parquet needs inputs, output and num_experts")
    return import_parquet(paths, output, num_experts=num_experts, **options)
