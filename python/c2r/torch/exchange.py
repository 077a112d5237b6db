"""Exchanges of rows between ranks, as custom operators with gradients: started, and finished later.

    ticket = start(rows, exchange)      # returns at once
    ...                                 # whatever need not wait
    received = finish(ticket, exchange)

The gradient of finish() starts the reverse exchange and the gradient of start() finishes it. Autograd runs a program
backwards, so what is computed between start and finish overlaps with the exchange in both directions. A ticket is a
tensor of one element that carries no value; its gradient is a ticket too.

Every rank of a group starts the same exchanges in the same order, those without rows as well.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from c2r.torch.traffic import count


class Exchange(NamedTuple):
    """Who sends how many rows to whom."""

    group: str  # as register_group() returned it
    send: list[int]  # rows to each rank of the group
    recv: list[int]  # rows from each rank
    layer: str  # for the counters
    step: str

    def reverse(self) -> "Exchange":
        """The way back, as a step of its own."""
        return self._replace(send=self.recv, recv=self.send)


class _Group(NamedTuple):
    group: dist.ProcessGroup
    global_ranks: list[int]
    rank: int  # of this process in the group


class _Pending(NamedTuple):
    ticket: StorageWeakRef
    work: dist.Work
    received: Tensor
    sent: Tensor  # must not be freed before the work is done


_GROUPS: dict[str, _Group] = {}
_PENDING: dict[int, _Pending] = {}


def register_group(group: dist.ProcessGroup | None) -> str:
    """Makes a group known to the operators, by its name. None is the default group."""
    group = group or dist.group.WORLD
    if group is None:
        raise ValueError("torch.distributed is not initialized; call torch.distributed.init_process_group() first")
    _GROUPS[group.group_name] = _Group(group, dist.get_process_group_ranks(group), dist.get_rank(group))
    return group.group_name


def _count_sent(name: str, send: list[int], row_bytes: int, layer: str, step: str) -> None:
    _, global_ranks, rank = _GROUPS[name]
    for other, num_rows in enumerate(send):
        if other != rank:
            count(layer, step, global_ranks[other], num_rows, row_bytes)


def _begin(rows: Tensor, send: list[int], recv: list[int], name: str, layer: str, step: str) -> Tensor:
    """Starts the exchange of rows [num_rows, width] and returns its ticket."""
    rows = rows.contiguous()
    received = rows.new_empty(sum(recv), rows.shape[1])
    # As bytes, which every backend moves, whatever the type is.
    work = dist.all_to_all_single(
        received.view(torch.uint8), rows.view(torch.uint8), recv, send, group=_GROUPS[name].group, async_op=True
    )
    _count_sent(name, send, rows.shape[1] * rows.element_size(), layer, step)
    # A recomputation that stops early leaves tickets that nobody finishes.
    for key in [key for key, pending in _PENDING.items() if pending.ticket.expired()]:
        _PENDING.pop(key).work.wait()  # other ranks have started it too
    ticket = rows.new_empty(1)
    reference = StorageWeakRef(ticket.untyped_storage())
    _PENDING[reference.cdata] = _Pending(reference, work, received, rows)
    return ticket


def _end(ticket: Tensor) -> Tensor:
    pending = _PENDING.pop(StorageWeakRef(ticket.untyped_storage()).cdata, None)
    if pending is None:
        raise RuntimeError("an exchange is finished twice; selective checkpointing must save the outputs of all "
                           "operators of c2r.torch.EXCHANGES or of none")  # fmt: skip
    pending.work.wait()
    return pending.received


@torch.library.custom_op("c2r::exchange_start", mutates_args=())
def _start(rows: Tensor, send: list[int], recv: list[int], group: str, layer: str, step: str) -> Tensor:
    return _begin(rows, send, recv, group, layer, step)


@_start.register_fake
def _(rows, send, recv, group, layer, step):
    return rows.new_empty(1)


@torch.library.custom_op("c2r::exchange_finish", mutates_args=())
def _finish(ticket: Tensor, width: int, send: list[int], recv: list[int], group: str, layer: str, step: str) -> Tensor:
    return _end(ticket)


@_finish.register_fake
def _(ticket, width, send, recv, group, layer, step):
    return ticket.new_empty(sum(recv), width)


def _keep_start(ctx, inputs, output) -> None:
    rows, *ctx.exchange = inputs
    ctx.width = rows.shape[1]


def _start_backward(ctx, gradient):
    send, recv, group, layer, step = ctx.exchange
    return _finish(gradient, ctx.width, recv, send, group, layer, f"{step}_backward"), *[None] * 5


def _keep_finish(ctx, inputs, output) -> None:
    ctx.exchange = inputs[2:]


def _finish_backward(ctx, gradient):
    send, recv, group, layer, step = ctx.exchange
    return _start(gradient, recv, send, group, layer, f"{step}_backward"), *[None] * 6


_start.register_autograd(_start_backward, setup_context=_keep_start)
_finish.register_autograd(_finish_backward, setup_context=_keep_finish)


def start(rows: Tensor, exchange: Exchange) -> Tensor:
    """Sends rows [sum of send, width] and returns a ticket at once. Collective.

    Bytes to rank d: send[d] * width * element size; what stays on its rank is copied in memory.
    """
    return _start(rows, exchange.send, exchange.recv, exchange.group, exchange.layer, exchange.step)


def finish(ticket: Tensor, width: int, exchange: Exchange) -> Tensor:
    """Waits for the exchange of `ticket` and returns what came, [sum of recv, width]. Each ticket is finished once."""
    return _finish(ticket, width, exchange.send, exchange.recv, exchange.group, exchange.layer, exchange.step)


def gather(x: Tensor, group: str) -> Tensor:
    """[ep_size, *x.shape]: x of every rank, which has the same shape on all. Collective, without a gradient."""
    received = x.new_empty(len(_GROUPS[group].global_ranks), *x.shape)
    dist.all_gather(list(received.unbind(0)), x.contiguous(), group=_GROUPS[group].group)
    return received


def id_columns(width: int, element_bytes: int) -> int:
    """Columns of `element_bytes` that hold `width` 16-bit ids.

    >>> id_columns(4, 4), id_columns(3, 4), id_columns(1, 8)
    (2, 2, 1)
    """
    return -(-2 * width // element_bytes)


@torch.library.custom_op("c2r::labels_start", mutates_args=())
def _labels_start(
    weights: Tensor, ids: Tensor, send: list[int], recv: list[int], group: str, layer: str, step: str
) -> Tensor:
    width = weights.shape[1]
    packed = weights.new_zeros(len(weights), width + id_columns(width, weights.element_size()))
    packed[:, :width] = weights
    packed.view(torch.int16)[:, width * packed.element_size() // 2 :][:, :width] = ids
    return _begin(packed, send, recv, group, layer, step)


@_labels_start.register_fake
def _(weights, ids, send, recv, group, layer, step):
    return weights.new_empty(1)


@torch.library.custom_op("c2r::labels_finish", mutates_args=())
def _labels_finish(
    ticket: Tensor, width: int, send: list[int], recv: list[int], group: str, layer: str, step: str
) -> tuple[Tensor, Tensor]:
    packed = _end(ticket)
    ids = packed.view(torch.int16)[:, width * packed.element_size() // 2 :][:, :width]
    own_memory = torch.contiguous_format  # of a single row, contiguous() would be no copy
    return packed[:, :width].clone(memory_format=own_memory), ids.clone(memory_format=own_memory)


@_labels_finish.register_fake
def _(ticket, width, send, recv, group, layer, step):
    weights = ticket.new_empty(sum(recv), width)
    return weights, torch.empty_like(weights, dtype=torch.int16)


def _labels_start_backward(ctx, gradient):
    return *_start_backward(ctx, gradient), None


_labels_start.register_autograd(
    _labels_start_backward,
    setup_context=lambda ctx, inputs, output: _keep_start(ctx, (inputs[0], *inputs[2:]), output),
)
_labels_finish.register_autograd(lambda ctx, gradient, _: _finish_backward(ctx, gradient), setup_context=_keep_finish)


def start_labels(weights: Tensor, ids: Tensor, exchange: Exchange) -> Tensor:
    """As start(), of weights [num_rows, width] and ids int16 [num_rows, width] in one buffer.

    Bytes of a row: width * element size of the weights + 2 * width, rounded up to the element size. Only the gradient
    of the weights travels back, without ids.
    """
    return _labels_start(weights, ids, exchange.send, exchange.recv, exchange.group, exchange.layer, exchange.step)


def finish_labels(ticket: Tensor, width: int, exchange: Exchange) -> tuple[Tensor, Tensor]:
    """As finish(): the weights and the ids that came, both [sum of recv, width]."""
    return _labels_finish(ticket, width, exchange.send, exchange.recv, exchange.group, exchange.layer, exchange.step)


@torch.library.custom_op("c2r::exchange_counts", mutates_args=())
def exchange_counts(counts: Tensor, group: str, layer: str) -> Tensor:
    """Row d of counts int64 [ep_size, num_counts] goes to rank d; row s of the result came from rank s."""
    counts = counts.contiguous()
    received = torch.empty_like(counts)
    dist.all_to_all_single(received, counts, group=_GROUPS[group].group)
    _count_sent(group, [1] * len(counts), counts.shape[1] * counts.element_size(), layer, "counts")
    return received


@exchange_counts.register_fake
def _(counts, group, layer):
    return torch.empty_like(counts, memory_format=torch.contiguous_format)


# What a policy of selective checkpointing names, so that a recomputation exchanges nothing again.
EXCHANGES = (
    torch.ops.c2r.exchange_start.default,
    torch.ops.c2r.exchange_finish.default,
    torch.ops.c2r.labels_start.default,
    torch.ops.c2r.labels_finish.default,
    torch.ops.c2r.exchange_counts.default,
)
