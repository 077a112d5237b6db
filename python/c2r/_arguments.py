"""What the functions on NumPy arrays take: their types, and how they are given to the extension module."""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2r._c2r import CollaborationStatistics, Trace, TraceHeader

Path = str | os.PathLike[str]
TraceOrArrays = Trace | Path | Sequence[NDArray[np.int32]]
Tokens = TraceOrArrays | CollaborationStatistics
Cluster = str | os.PathLike[str] | dict[str, Any]
Progress = bool | Callable[[int, int], object] | None


def as_trace(trace_or_arrays: TraceOrArrays, num_experts: int | None) -> Trace:
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


def cluster_text(cluster: Cluster) -> str:
    return json.dumps(cluster) if isinstance(cluster, dict) else os.fspath(cluster)
