"""Counters of what this process sends to others in dispatch and combine."""

import dataclasses
from collections import Counter


@dataclasses.dataclass(frozen=True, order=True)
class Sent:
    """What this process has sent to one peer for one layer in one step. What stays on its rank is not counted."""

    layer: str
    # "dispatch" and "combine" move rows, "metadata" ids and weights, "counts" sizes; "..._backward" gradients
    step: str
    peer: int  # global rank
    num_rows: int
    num_bytes: int


_ROWS: Counter = Counter()  # by (layer, step, peer)
_BYTES: Counter = Counter()


def traffic() -> list[Sent]:
    """What this process has sent since reset_traffic(), ordered by layer, step and peer.

    Bytes are payload. The exchanges that activation checkpointing repeats are counted each time.

    >>> reset_traffic()
    >>> traffic()
    []
    """
    return sorted(Sent(*key, _ROWS[key], num_bytes) for key, num_bytes in _BYTES.items())


def reset_traffic() -> None:
    """Sets all counters of this process to zero."""
    _ROWS.clear()
    _BYTES.clear()


def count(layer: str, step: str, peer: int, num_rows: int, row_bytes: int) -> None:
    """Adds rows that are sent to `peer`. Called by the exchanges."""
    if num_rows:
        _ROWS[layer, step, peer] += num_rows
        _BYTES[layer, step, peer] += num_rows * row_bytes
