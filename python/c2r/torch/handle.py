"""Handles: who sends which row of a batch where, for dispatch, combine and both of their gradients.

Outline of make_handles(), for N ranks and C chunks of tokens:
  1. count, for each chunk and rank, the rows that go there and the choices they serve
  2. exchange these counts; in per-node mode relays then tell the ranks of their node what they will forward
  3. bring the counts to the host: the one synchronisation
  4. sort each chunk's choices by rank into index arrays; in per-node mode relays learn the ids of what they forward
"""

import dataclasses
import itertools
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from c2r.torch.exchange import Exchange, exchange_counts, finish, start
from c2r.torch.placement import Groups, Placement, make_groups, make_placement
from c2r.torch.rows import RowMap, row_map

COPIES = ("per-rank", "per-expert", "per-node")


class Leg(NamedTuple):
    """One exchange of a chunk: from the tokens' ranks to the experts' ranks, or to or from relays."""

    send: list[int]  # rows to each rank of the group
    recv: list[int]  # rows from each rank
    group: str
    rows: RowMap  # from the leg's source rows to the rows that are sent, ordered by receiving rank
    choices: Tensor  # int64 [num_sent, width], flat index into the source's [num_sources, top_k], -1 for none
    places: Tensor  # int64 [num_sources, top_k], flat index into [num_sent, width], -1 for none
    ids: Tensor  # int16 [num_sent, width], what is sent of each choice's id, -1 for none


@dataclasses.dataclass
class Handle:
    """Where the rows of one chunk of a batch go. Made by make_handle(); serves dispatch(), combine() and gradients."""

    legs: list[Leg]  # one; two in per-node mode
    first_token: int
    num_tokens: int
    num_pairs: int  # (row, expert) pairs that this rank computes
    experts_per_rank: int
    layer: str
    topk_idx: Tensor  # int64 [num_tokens, top_k]: what the handle was made of

    def exchange(self, leg: Leg, step: str) -> Exchange:
        """The exchange of a leg, for the counters named `step`."""
        return Exchange(leg.group, leg.send, leg.recv, self.layer, step)

    @property
    def num_rows(self) -> int:
        """Rows that this rank receives."""
        return sum(self.legs[-1].recv)


def _per_destination(destinations: Tensor, num_destinations: int) -> Tensor:
    """How many choices of each token go to each destination: int64 [num_tokens, num_destinations]."""
    return (destinations.unsqueeze(-1) == torch.arange(num_destinations, device=destinations.device)).sum(1)


def _per_chunk(per_token: Tensor, bounds: list[int]) -> Tensor:
    """Sums of per_token [num_tokens, ...] over the tokens of each chunk: [num_chunks, ...]."""
    sums = F.pad(per_token.cumsum(0), (0, 0) * (per_token.dim() - 1) + (1, 0))
    return torch.stack([sums[stop] - sums[first] for first, stop in itertools.pairwise(bounds)])


def _to_host(*counts: Tensor) -> list:
    """Each tensor as nested lists (one tensor: its list), by one copy."""
    flat = torch.cat([count.flatten() for count in counts]).tolist()
    for count in flat:
        torch._check(count >= 0)  # torch.compile knows only what it is told of such numbers
    lists = []
    for tensor in counts:
        part, flat = flat[: tensor.numel()], flat[tensor.numel() :]
        for size in reversed(tensor.shape[1:]):
            part = [part[at : at + size] for at in range(0, len(part), size)]
        lists.append(part)
    return lists if len(lists) > 1 else lists[0]


def _make_leg(
    destinations: Tensor, ids: Tensor, send: list[int], recv: list[int], group: str, is_per_choice: bool
) -> Leg:
    """Sorts the choices of source rows by destination.

    destinations, ids: int64 [num_sources, top_k], destination -1 for none.
    is_per_choice: a row for each choice instead of one for each destination.
    """
    num_sources, top_k = destinations.shape
    is_used = destinations >= 0
    places_in_row = torch.arange(top_k, device=ids.device)
    # [num_sources, top_k]: the first choice with the same destination, which stands for the row
    first = places_in_row.expand(num_sources, -1)
    if not is_per_choice:
        first = (destinations.unsqueeze(-1) == destinations.unsqueeze(1)).int().argmax(-1)
    is_row = is_used & (first == places_in_row)
    key = torch.where(is_row, destinations, len(send)).flatten()
    order = key.sort(stable=True).indices
    position = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    row_of_choice = position.view(num_sources, top_k).gather(1, first)

    num_rows = sum(send)
    torch._check(num_rows <= len(order))
    lead = order[:num_rows]  # the choice that stands for each row
    source = lead // top_k
    if is_per_choice:
        choices = lead.unsqueeze(1)
        places = torch.where(is_used, row_of_choice, -1)
    else:
        is_of_row = destinations[source] == destinations.flatten()[lead].unsqueeze(1)
        choices = torch.where(is_of_row, source.unsqueeze(1) * top_k + places_in_row, -1)
        places = torch.where(is_used, row_of_choice * top_k + places_in_row, -1)
    sent_ids = torch.where(choices >= 0, ids.flatten()[choices.clamp(min=0)], -1).to(torch.int16)
    return Leg(send, recv, group, row_map(source, num_sources), choices, places, sent_ids)


class _Batch(NamedTuple):
    """What make_handles() was asked for, with choices as ranks and slots."""

    topk_idx: Tensor
    ranks: Tensor  # int64 [num_tokens, top_k], -1 for none
    slots: Tensor  # int64 [num_tokens, top_k]
    placement: Placement
    groups: Groups
    bounds: list[int]  # the first token of each chunk, and the number of tokens
    layer: str

    def handle(self, chunk: int, legs: list[Leg], num_pairs: int) -> Handle:
        first, stop = self.bounds[chunk], self.bounds[chunk + 1]
        return Handle(legs, first, stop - first, num_pairs, self.placement.experts_per_rank, self.layer,
                      self.topk_idx[first:stop])  # fmt: skip


def _one_leg(batch: _Batch, is_per_choice: bool) -> list[Handle]:
    """Handles of per-rank and per-expert mode."""
    pairs = _per_destination(batch.ranks, batch.groups.ep_size)  # [num_tokens, ep_size]
    rows = pairs if is_per_choice else (pairs > 0).long()
    sent = _per_chunk(torch.stack([rows, pairs], -1), batch.bounds).transpose(0, 1)  # [ep_size, num_chunks, 2]
    received = exchange_counts(sent.flatten(1), batch.groups.ranks, batch.layer).view_as(sent)
    # [sent or received][rows or pairs][chunk][rank]
    counts = _to_host(torch.stack([sent, received]).permute(0, 3, 2, 1))
    handles = []
    for chunk, (first, stop) in enumerate(itertools.pairwise(batch.bounds)):
        leg = _make_leg(batch.ranks[first:stop], batch.slots[first:stop], counts[0][0][chunk], counts[1][0][chunk],
                        batch.groups.ranks, is_per_choice)  # fmt: skip
        handles.append(batch.handle(chunk, [leg], sum(counts[1][1][chunk])))
    return handles


def _count_two_legs(batch: _Batch) -> list:
    """Rows of both legs of per-node mode, and pairs, on the host.

    Returns, to and from each node, [2][num_chunks][num_nodes], and, rows and pairs, to and from each rank of this node,
    [2][2][num_chunks][ranks_per_node].
    """
    groups, num_chunks = batch.groups, len(batch.bounds) - 1
    pairs = _per_destination(batch.ranks, groups.ep_size).unflatten(1, (-1, groups.ranks_per_node))
    to_node = _per_chunk((pairs.sum(2) > 0).long(), batch.bounds).T  # [num_nodes, num_chunks]
    to_rank = _per_chunk(torch.stack([(pairs > 0).long(), pairs], -1), batch.bounds)
    to_rank = to_rank.transpose(0, 1)  # [num_nodes, num_chunks, ranks_per_node, 2]
    told = torch.cat([to_node.unsqueeze(2), to_rank.flatten(2)], 2)
    told = told, exchange_counts(told.flatten(1), groups.rail, batch.layer).view_as(told)
    forwarded = told[1][:, :, 1:].sum(0).view(num_chunks, groups.ranks_per_node, 2).transpose(0, 1).contiguous()
    received = exchange_counts(forwarded.flatten(1), groups.node, batch.layer).view_as(forwarded)
    nodes = torch.stack([counts[:, :, 0].T for counts in told])
    ranks = torch.stack([forwarded, received]).permute(3, 0, 2, 1)
    return _to_host(nodes, ranks)


def _two_legs(batch: _Batch) -> list[Handle]:
    """Handles of per-node mode: to a relay in each node, which forwards to the ranks of its node."""
    groups, slots = batch.groups, batch.placement.experts_per_rank
    if groups.ranks_per_node * slots > 1 << 15:
        raise ValueError(f"a node has {groups.ranks_per_node * slots} experts, expected at most {1 << 15}")
    nodes, ranks = _count_two_legs(batch)
    node = torch.where(batch.ranks >= 0, batch.ranks // groups.ranks_per_node, -1)
    ids = batch.ranks % groups.ranks_per_node * slots + batch.slots
    handles = []
    for chunk, (first, stop) in enumerate(itertools.pairwise(batch.bounds)):
        there = _make_leg(node[first:stop], ids[first:stop], nodes[0][chunk], nodes[1][chunk], groups.rail, False)
        exchange = Exchange(groups.rail, there.send, there.recv, batch.layer, "metadata")
        with torch.no_grad():
            forwarded = finish(start(there.ids, exchange), there.ids.shape[1], exchange).long()
        rank = torch.where(forwarded >= 0, forwarded // slots, -1)
        (send, recv), (_, pairs) = ([part[chunk] for part in counts] for counts in ranks)
        on = _make_leg(rank, forwarded % slots, send, recv, groups.node, False)
        handles.append(batch.handle(chunk, [there, on], sum(pairs)))
    return handles


def make_handles(
    topk_idx: Tensor,
    placement: Placement,
    groups: Groups,
    copies: str = "per-rank",
    num_chunks: int = 1,
    layer: str = "",
) -> list[Handle]:
    """As make_handle(), for tokens cut into num_chunks parts of equal size, the last ones smaller or empty.

    All handles together cost one exchange of counts (two in per-node mode) and one synchronisation with the host. Every
    rank makes as many chunks.
    """
    if topk_idx.dim() != 2 or topk_idx.is_floating_point():
        raise ValueError(f"topk_idx is {topk_idx.dtype} {list(topk_idx.shape)}, expected integers "
                         "[num_tokens, top_k]")  # fmt: skip
    num_experts = len(placement.rank_of_expert)
    # On a GPU this would be one more synchronisation; there the look-up below fails.
    if topk_idx.device.type == "cpu" and not torch.compiler.is_compiling() and (topk_idx >= num_experts).any():
        raise ValueError(
            f"topk_idx names expert {int(topk_idx.max())}, expected [0, {num_experts - 1}], or -1 for none"
        )
    if copies not in COPIES:
        raise ValueError(f"copies is '{copies}', expected one of {', '.join(COPIES)}")
    if copies == "per-node" and groups.node is None:
        raise ValueError("copies is 'per-node', but the ranks of a node are unknown; pass make_groups(group, "
                         "ranks_per_node)")  # fmt: skip
    if placement.ep_size != groups.ep_size:
        raise ValueError(f"the placement is for {placement.ep_size} ranks, but the group has {groups.ep_size}")
    is_used = topk_idx >= 0
    expert = topk_idx.long().clamp(min=0)
    num_tokens = topk_idx.shape[0]
    size = -(-num_tokens // num_chunks)
    bounds = [min(chunk * size, num_tokens) for chunk in range(num_chunks)] + [num_tokens]
    ranks = torch.where(is_used, placement.rank_of_expert[expert], -1)
    batch = _Batch(topk_idx, ranks, placement.slot_of_expert[expert], placement, groups, bounds, layer)
    return _two_legs(batch) if copies == "per-node" else _one_leg(batch, copies == "per-expert")


def make_handle(
    topk_idx: Tensor,
    rank_of_expert: Any,
    group: dist.ProcessGroup | Groups | None = None,
    copies: str = "per-rank",
    layer: str = "",
) -> Handle:
    """Decides who sends which row where. Collective: every rank of the group calls it, with its own tokens.

    topk_idx: integers [num_tokens, top_k], each token's experts, -1 for none; a token names an expert once. No tokens
        are fine.
    rank_of_expert: integers [num_experts], the rank of each expert in the group, equally many experts on each; or a
        Placement. The same on every rank.
    group: the process group of expert parallelism, the default group if None; "per-node" needs make_groups().
    copies: "per-rank", one row for each token and rank that holds one of its experts; "per-expert", one for each token
        and expert, as MegaBlocks sends them; "per-node", one for each token and node, which a relay there forwards to
        ranks.
    layer: the layer's name in traffic().

    Cost: an exchange of 16 bytes with each rank, and one synchronisation with the host. In per-node mode 8 + 16
    ranks_per_node bytes with each node, 16 with each rank of the own node, and 2 top_k bytes for each row to a relay.
    Raises ValueError for shapes, replicas, ranks with more experts than others and an unknown `copies`.

    >>> handle = make_handle(torch.tensor([[1, 0]]), [0, 0])  # one rank with two experts
    >>> handle.num_rows, handle.num_pairs
    (1, 2)
    """
    groups = group if isinstance(group, Groups) else make_groups(group)
    placement = rank_of_expert
    if not isinstance(placement, Placement):
        placement = make_placement(rank_of_expert, groups.ep_size, topk_idx.device)
    return make_handles(topk_idx, placement, groups, copies, layer=layer)[0]
