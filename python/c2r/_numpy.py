"""The functions of the C++ library on NumPy arrays; the package ``c2r`` offers them under its own name."""

import numpy as np

from c2r import _progress
from c2r._c2r import CollaborationStatistics, RoutingPolicy, Trace, TraceHeader, TraceWriter, route
from c2r._c2r import count_collaboration as _count_collaboration
from c2r._c2r import read_statistics as load_statistics

__all__ = [
    "CollaborationStatistics",
    "RoutingPolicy",
    "Trace",
    "TraceHeader",
    "TraceWriter",
    "collaborators",
    "count_collaboration",
    "load_statistics",
    "route",
]


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
