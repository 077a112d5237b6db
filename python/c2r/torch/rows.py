"""Moving rows within a process: gathers whose adjoints are sums in a fixed order, so that results are the same bits on
every run, on CUDA too. All are custom operators: torch.compile and selective checkpointing see each as one call.

What is called ..._by_torch computes an operator with PyTorch's kernels, on every device for which
c2r.torch.kernels has no other one. A gather is one kernel of PyTorch, which reads and writes each byte once."""

from typing import NamedTuple

import torch
from torch import Tensor


class RowMap(NamedTuple):
    """Which source row each row is a copy of, and the same the other way round."""

    index: Tensor  # int64 [num_rows], the source row of each row
    order: Tensor  # int64 [num_rows], the rows by source row, ascending
    offsets: Tensor  # int64 [num_sources + 1], the rows of source s are order[offsets[s] : offsets[s + 1]]


def row_map(index: Tensor, num_sources: int) -> RowMap:
    """The map of `index` int64 [num_rows], with values in [0, num_sources).

    >>> row_map(torch.tensor([2, 0, 2]), 3).offsets.tolist()
    [0, 1, 1, 3]
    """
    ordered, order = index.sort(stable=True)
    sources = torch.arange(num_sources + 1, device=index.device)
    return RowMap(index, order, torch.searchsorted(ordered, sources))


@torch.library.custom_op("c2r::take_rows", mutates_args=())
def _take(x: Tensor, index: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
    return x.index_select(0, index)


@_take.register_fake
def _(x, index, order, offsets):
    return x.new_empty(index.shape[0], x.shape[1])


def _sum_by_torch(rows: Tensor, index: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
    if len(rows) == 0 or rows.shape[1] == 0:
        return rows.new_zeros(len(offsets) - 1, rows.shape[1])
    # Adds the rows of a bag one after the other, in float32 for narrower types.
    return torch.nn.functional.embedding_bag(order, rows, offsets, mode="sum", include_last_offset=True)


_sum = torch.library.custom_op("c2r::sum_rows", _sum_by_torch, mutates_args=())


@_sum.register_fake
def _(rows, index, order, offsets):
    return rows.new_empty(offsets.shape[0] - 1, rows.shape[1])


def _keep_map(ctx, inputs, output) -> None:
    # Not save_for_backward: non-reentrant checkpointing recomputes up to the last tensor that is saved so, and
    # the last one in a layer must not lie behind the exchange that brings rows back.
    ctx.map = inputs[1:]


_take.register_autograd(lambda ctx, gradient: (_sum(gradient, *ctx.map), None, None, None), setup_context=_keep_map)
_sum.register_autograd(lambda ctx, gradient: (_take(gradient, *ctx.map), None, None, None), setup_context=_keep_map)


def take_rows(x: Tensor, rows: RowMap) -> Tensor:
    """x[rows.index], [num_rows, width] of x [num_sources, width]; the gradient is sum_rows().

    >>> take_rows(torch.tensor([[1.0], [2.0]]), row_map(torch.tensor([1, 0, 1]), 2)).flatten().tolist()
    [2.0, 1.0, 2.0]
    """
    return _take(x, *rows)


def sum_rows(x: Tensor, rows: RowMap) -> Tensor:
    """The sums of the rows of each source, [num_sources, width] of x [num_rows, width]; the gradient is take_rows().

    Each sum runs over ascending rows, in float32 for bfloat16 and float16, and is rounded once.

    >>> sum_rows(torch.tensor([[1.0], [2.0], [4.0]]), row_map(torch.tensor([1, 0, 1]), 2)).flatten().tolist()
    [2.0, 5.0]
    """
    return _sum(x, *rows)


def _weighted_sum_by_torch(rows: Tensor, weights: Tensor, index: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
    if rows.numel() == 0:
        return rows.new_zeros(len(offsets) - 1, rows.shape[1])
    wide = rows.to(weights.dtype)
    return torch.nn.functional.embedding_bag(
        order, wide, offsets, mode="sum", include_last_offset=True, per_sample_weights=weights.index_select(0, order)
    ).to(rows.dtype)


_weighted_sum = torch.library.custom_op("c2r::weighted_sum_rows", _weighted_sum_by_torch, mutates_args=())


@_weighted_sum.register_fake
def _(rows, weights, index, order, offsets):
    return rows.new_empty(offsets.shape[0] - 1, rows.shape[1])


def _weighted_sum_backward_by_torch(
    gradient: Tensor, rows: Tensor, weights: Tensor, index: Tensor
) -> tuple[Tensor, Tensor]:
    of_rows, of_weights = torch.empty_like(rows), torch.empty_like(weights)
    # On the CPU in blocks that stay in the cache: fresh memory for all of them costs more than the arithmetic.
    size = 256 if rows.device.type == "cpu" else max(len(rows), 1)
    for block in (slice(first, first + size) for first in range(0, len(rows), size)):
        taken = gradient.index_select(0, index[block]).to(weights.dtype)
        of_weights[block] = (taken * rows[block].to(weights.dtype)).sum(1)
        of_rows[block] = taken * weights[block].unsqueeze(1)
    return of_rows, of_weights


_weighted_sum_backward = torch.library.custom_op(
    "c2r::weighted_sum_rows_backward", _weighted_sum_backward_by_torch, mutates_args=()
)


@_weighted_sum_backward.register_fake
def _(gradient, rows, weights, index):
    return torch.empty_like(rows), torch.empty_like(weights)


def _keep_weighted(ctx, inputs, output) -> None:
    rows, weights, ctx.index, _, _ = inputs
    ctx.save_for_backward(rows, weights)


_weighted_sum.register_autograd(
    lambda ctx, gradient: (*_weighted_sum_backward(gradient, *ctx.saved_tensors, ctx.index), None, None, None),
    setup_context=_keep_weighted,
)


def weighted_sum_rows(x: Tensor, weights: Tensor, rows: RowMap) -> Tensor:
    """As sum_rows(), of weights [num_rows] times x [num_rows, width]; computed in the type of the weights, float32 or
    wider, and rounded once to that of x.

    >>> rows = row_map(torch.tensor([1, 0, 1]), 2)
    >>> weighted_sum_rows(torch.ones(3, 1), torch.tensor([1.0, 2.0, 3.0]), rows).flatten().tolist()
    [2.0, 4.0]
    """
    return _weighted_sum(x, weights, *rows)


@torch.library.custom_op("c2r::pick", mutates_args=())
def _pick(values: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
    if values.numel() == 0:
        return values.new_zeros(index.shape)
    return torch.where(index >= 0, values.flatten()[index.clamp(min=0)], 0)


@_pick.register_fake
def _(values, index, inverse):
    return values.new_empty(index.shape)


def _keep_indices(ctx, inputs, output) -> None:
    _, ctx.index, ctx.inverse = inputs


_pick.register_autograd(
    lambda ctx, gradient: (_pick(gradient, ctx.inverse, ctx.index), None, None), setup_context=_keep_indices
)


def pick(values: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
    """values.flatten()[index], and 0 where index is -1: the shape of `index`.

    index int64, no value twice except -1; inverse int64 of the shape of `values`: where each value goes, -1 for nowhere.
    The gradient picks the other way round.

    >>> pick(torch.tensor([1.0, 2.0]), torch.tensor([[1, -1]]), torch.tensor([-1, 0])).tolist()
    [[2.0, 0.0]]
    """
    return _pick(values, index, inverse)
