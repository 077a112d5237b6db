"""Dispatch and combine with gradients: rows to the ranks of their experts, and sums back.

    handle = make_handle(topk_idx, rank_of_expert, group)
    rows, local_idx, weights = dispatch(x, topk_weights, handle)
    combined = combine(weighted_sums_of_experts(rows, local_idx, weights), handle)

A rank computes, for each row it got, the sum over the row's experts of weight * expert(row); combine() adds these sums
at home. combine() is the adjoint of what dispatch() does to rows, so gradients travel along the same handle.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from c2r.torch.exchange import finish, finish_labels, start, start_labels
from c2r.torch.handle import Handle
from c2r.torch.rows import pick, sum_rows, take_rows


class Sending(NamedTuple):
    """Rows and labels of a leg on their way to experts."""

    rows: Tensor
    labels: Tensor
    width: int  # of the rows
    leg: int


class Returning(NamedTuple):
    """Rows of a leg on their way back."""

    rows: Tensor
    width: int
    leg: int


def _check_input(x: Tensor, topk_weights: Tensor, handle: Handle) -> None:
    if x.dim() != 2 or len(x) != handle.num_tokens:
        raise ValueError(f"x has shape {list(x.shape)}, but the handle is for [{handle.num_tokens}, hidden]")
    if topk_weights.shape != handle.topk_idx.shape:
        raise ValueError(f"topk_weights have shape {list(topk_weights.shape)}, but the handle is for "
                         f"{list(handle.topk_idx.shape)}")  # fmt: skip


def _send_leg(x: Tensor, weights: Tensor, handle: Handle, at: int) -> Sending:
    leg = handle.legs[at]
    sent_weights = pick(weights, leg.choices, leg.places)
    metadata = handle.exchange(leg, "metadata")
    if at + 1 < len(handle.legs):  # relays know the ids already
        labels = start(sent_weights, metadata)
    else:
        labels = start_labels(sent_weights, leg.ids, metadata)
    return Sending(start(take_rows(x, leg.rows), handle.exchange(leg, "dispatch")), labels, x.shape[1], at)


def start_dispatch(x: Tensor, topk_weights: Tensor, handle: Handle) -> Sending:
    """Starts dispatch() and returns at once what finish_dispatch() needs. In per-node mode this is the way to relays."""
    _check_input(x, topk_weights, handle)
    weights = topk_weights.to(torch.promote_types(topk_weights.dtype, torch.float32))
    return _send_leg(x, weights, handle, 0)


def advance_dispatch(sending: Sending, handle: Handle) -> Sending:
    """In per-node mode: waits for what arrives at this relay, and starts to forward it."""
    leg = handle.legs[sending.leg]
    weights = finish(sending.labels, leg.choices.shape[1], handle.exchange(leg, "metadata"))
    rows = finish(sending.rows, sending.width, handle.exchange(leg, "dispatch"))
    return _send_leg(rows, weights, handle, sending.leg + 1)


def finish_dispatch(sending: Sending, handle: Handle) -> tuple[Tensor, Tensor, Tensor]:
    """Waits for what start_dispatch() started: the result of dispatch()."""
    while sending.leg + 1 < len(handle.legs):
        sending = advance_dispatch(sending, handle)
    leg = handle.legs[-1]
    weights, local_idx = finish_labels(sending.labels, leg.ids.shape[1], handle.exchange(leg, "metadata"))
    return finish(sending.rows, sending.width, handle.exchange(leg, "dispatch")), local_idx, weights


def dispatch(x: Tensor, topk_weights: Tensor, handle: Handle) -> tuple[Tensor, Tensor, Tensor]:
    """Sends each token to the ranks of its experts. Collective; differentiable in x and topk_weights.

    x: [num_tokens, hidden] of any floating type. topk_weights: [num_tokens, top_k], sent as float32 (float64 as it is).

    Returns what this rank computes, ordered by sending rank, then by token:
      rows       [num_rows, hidden], of x's type
      local_idx  int16 [num_rows, top_k], slots of this rank's experts that the row is for, -1 for none; in per-expert
                 mode [num_rows, 1]
      weights    float32, of the same shape, 0 where local_idx is -1

    Wire: for each row hidden * element size bytes, and 6 top_k (4 ceil(1.5 top_k) if top_k is odd) bytes of ids and
    weights; in per-node mode 4 top_k on the way to relays. The gradient sends as many rows back, with 4 top_k bytes of
    weights. Raises ValueError for shapes that are not the handle's.

    >>> handle = make_handle(torch.tensor([[1, 0], [1, -1]]), [0, 0])  # one rank with two experts
    >>> rows, local_idx, weights = dispatch(torch.eye(2), torch.tensor([[0.5, 0.25], [1.0, 0.0]]), handle)
    >>> local_idx.tolist(), weights.tolist()
    ([[1, 0], [1, -1]], [[0.5, 0.25], [1.0, 0.0]])
    """
    return finish_dispatch(start_dispatch(x, topk_weights, handle), handle)


def _return_leg(rows: Tensor, handle: Handle, at: int) -> Returning:
    ticket = start(rows, handle.exchange(handle.legs[at], "combine").reverse())
    return Returning(ticket, rows.shape[1], at)


def _sum_leg(returning: Returning, handle: Handle) -> Tensor:
    leg = handle.legs[returning.leg]
    return sum_rows(finish(returning.rows, returning.width, handle.exchange(leg, "combine").reverse()), leg.rows)


def start_combine(rows: Tensor, handle: Handle) -> Returning:
    """Starts combine() and returns at once what finish_combine() needs. In per-node mode this is the way to relays."""
    if rows.dim() != 2 or len(rows) != handle.num_rows:
        raise ValueError(f"rows have shape {list(rows.shape)}, but the handle is for [{handle.num_rows}, hidden]")
    return _return_leg(rows, handle, len(handle.legs) - 1)


def advance_combine(returning: Returning, handle: Handle) -> Returning:
    """In per-node mode: waits for what arrives at this relay, and starts to return the sums."""
    return _return_leg(_sum_leg(returning, handle), handle, returning.leg - 1)


def finish_combine(returning: Returning, handle: Handle) -> Tensor:
    """Waits for what start_combine() started: the result of combine()."""
    while returning.leg > 0:
        returning = advance_combine(returning, handle)
    return _sum_leg(returning, handle)


def combine(rows: Tensor, handle: Handle) -> Tensor:
    """Brings rows [num_rows, hidden], as dispatch() ordered them, back and adds those of each token. Collective.

    Returns [num_tokens, hidden] of the same type; a token without experts gets zeros. Each sum runs in the order of
    ranks (per-expert: of ranks, then of choices; per-node: over the ranks of a node at its relay, then over nodes), in
    float32 for narrower types, so that results are the same bits on every run. Differentiable. Raises ValueError for
    another number of rows than dispatch() returned.

    >>> handle = make_handle(torch.tensor([[1, 0], [1, -1]]), [0, 0])
    >>> combine(torch.tensor([[1.0], [2.0]]), handle).tolist()
    [[1.0], [2.0]]
    """
    return finish_combine(start_combine(rows, handle), handle)
