"""Which rank holds which expert, checked; and the process groups of ranks that share nodes."""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from c2r.torch.exchange import register_group


class Placement(NamedTuple):
    """A checked placement of experts, every one on one rank, equally many on each."""

    rank_of_expert: Tensor  # int64 [num_experts]
    slot_of_expert: Tensor  # int64 [num_experts], its place among the experts of its rank, in ascending order
    ep_size: int
    experts_per_rank: int

    def experts_of(self, rank: int) -> list[int]:
        """The experts of a rank, by slot."""
        return (self.rank_of_expert == rank).nonzero().flatten().tolist()


def make_placement(rank_of_expert: Any, ep_size: int, device: torch.device | str = "cpu") -> Placement:
    """Checks `rank_of_expert`, integers [num_experts] in [0, ep_size).

    Raises ValueError for replicas (an expert with a list of ranks), ranks out of range and ranks with more experts
    than others: training has one copy of an expert, and sharded state needs equal shards.

    >>> make_placement([1, 0, 1, 0], ep_size=2).slot_of_expert.tolist()
    [0, 0, 1, 1]
    """
    ranks = torch.as_tensor(rank_of_expert).long().cpu()
    if ranks.dim() != 1:
        raise ValueError(f"rank_of_expert has shape {list(ranks.shape)}, expected [num_experts]; replicas of an expert "
                         "cannot be trained, so plan without replicas")  # fmt: skip
    if len(ranks) and not 0 <= int(ranks.min()) <= int(ranks.max()) < ep_size:
        bad = int(((ranks < 0) | (ranks >= ep_size)).nonzero()[0])
        raise ValueError(f"expert {bad} is on rank {int(ranks[bad])}, expected [0, {ep_size - 1}]")
    counts = torch.bincount(ranks, minlength=ep_size)
    if int(counts.min()) != int(counts.max()):
        raise ValueError(f"rank {int(counts.argmax())} has {int(counts.max())} experts and rank {int(counts.argmin())} "
                         f"has {int(counts.min())}; every rank must have as many")  # fmt: skip
    order = ranks.argsort(stable=True)
    slots = torch.empty_like(ranks).scatter_(0, order, torch.arange(len(ranks)) % max(int(counts[0]), 1))
    return Placement(ranks.to(device), slots.to(device), ep_size, int(counts[0]))


def rank_of_expert(slots: Any, num_experts: int) -> Tensor:
    """int64 [num_experts] from a plan's `slots`: for each rank, the experts that it holds.

    Raises ValueError for replicas, missing experts and experts out of range.

    >>> rank_of_expert([[2, 1], [0, 3]], num_experts=4).tolist()
    [1, 0, 0, 1]
    """
    ranks = torch.full((num_experts,), -1)
    for rank, experts in enumerate(slots):
        for expert in experts:
            if not 0 <= expert < num_experts:
                raise ValueError(f"rank {rank} holds expert {expert}, expected [0, {num_experts - 1}]")
            if ranks[expert] >= 0:
                raise ValueError(f"expert {expert} is on rank {int(ranks[expert])} and on rank {rank}; replicas cannot "
                                 "be trained, so plan without replicas")  # fmt: skip
            ranks[expert] = rank
    if num_experts and int(ranks.min()) < 0:
        raise ValueError(f"no rank holds expert {int(ranks.argmin())}")
    return ranks


def contiguous(num_experts: int, ep_size: int) -> Tensor:
    """int64 [num_experts]: experts in ascending order, equally many on each rank, as most engines place them.

    >>> contiguous(4, 2).tolist()
    [0, 0, 1, 1]
    """
    if num_experts % ep_size:
        raise ValueError(f"{num_experts} experts cannot be split evenly over {ep_size} ranks")
    return torch.arange(num_experts) // (num_experts // ep_size)


class Groups(NamedTuple):
    """The process groups of expert parallelism, by the names that exchanges use."""

    ranks: str  # all ranks
    ep_size: int
    rank: int  # of this process
    node: str | None = None  # the ranks of this node; None: nodes are not told apart
    rail: str | None = None  # the ranks with this one's position in their nodes
    ranks_per_node: int = 1


def make_groups(group: dist.ProcessGroup | None = None, ranks_per_node: int | None = None) -> Groups:
    """The groups of `group`, the default group if None. Collective over all processes when ranks_per_node is given.

    ranks_per_node: rank r is on node r // ranks_per_node. Makes two process groups for copies="per-node": the ranks of
    a node, and the ranks with the same position in each node. Make them once; every call makes new ones.

    Raises ValueError if the ranks cannot be split into such nodes.
    """
    name = register_group(group)
    ep_size, rank = dist.get_world_size(group), dist.get_rank(group)
    if ranks_per_node is None:
        return Groups(name, ep_size, rank)
    if ranks_per_node < 1 or ep_size % ranks_per_node:
        raise ValueError(f"{ep_size} ranks cannot be split into nodes of {ranks_per_node}")
    if ep_size != dist.get_world_size():
        raise ValueError(f"the group has {ep_size} of {dist.get_world_size()} processes; per-node needs all of them")
    ranks = torch.arange(ep_size).view(-1, ranks_per_node)
    node, _ = dist.new_subgroups_by_enumeration(ranks.tolist())
    rail, _ = dist.new_subgroups_by_enumeration(ranks.T.tolist())
    return Groups(name, ep_size, rank, register_group(node), register_group(rail), ranks_per_node)
