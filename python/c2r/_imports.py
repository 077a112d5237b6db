"""``c2r.import_file()``."""

import os
import warnings as _warnings
from collections.abc import Sequence
from typing import Any

from c2r import _c2r, _progress
from c2r._arguments import Cluster, Path, Progress, cluster_text
from c2r._c2r import CollaborationStatistics, Plan, Trace


def import_file(
    inputs: Path | Sequence[Path],
    format: str | None = None,
    output: Path | None = None,
    *,
    model: str = "",
    num_experts: int | None = None,
    top_k: int | None = None,
    layer_indices: Sequence[int] | None = None,
    num_hidden_layers: int | None = None,
    weights: Path | None = None,
    sequences: Path | None = None,
    axes: str | None = None,
    placement: Path | None = None,
    skip_cached: bool = False,
    phase: str | None = None,
    drop_incomplete: bool = False,
    repair: bool = False,
    cluster: Cluster | None = None,
    progress: Progress = False,
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
                         "cluster": None if cluster is None else cluster_text(cluster)}  # fmt: skip
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
    paths: list[Path], output: Path | None, unused: dict[str, object], *, num_experts: int | None, **options: Any
) -> Trace:
    from c2r._parquet import import_parquet

    for name, value in unused.items():
        if value is not None:
            raise ValueError(f"{name} is not for format parquet")
    if output is None or num_experts is None or not paths:
        raise ValueError("format parquet needs inputs, output and num_experts")
    return import_parquet(paths, output, num_experts=num_experts, **options)
