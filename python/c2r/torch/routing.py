"""Collaboration-constrained routing: which experts a token gets, with which weights, and the balance losses.

Zhang et al., "Advancing MoE Efficiency: A Collaboration-Constrained Routing (C2R) Strategy for Better Expert
Parallelism Design" (arXiv 2504.01337): a token's best expert is chosen freely, its other top_k - 1 experts are the
best among the first T collaborators of that expert.
"""

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

NO_EXPERT = -1
SCORINGS = ("softmax", "softmax-over-chosen")


def collaborator_mask(lists: Any, num_experts: int, top_t: int | None = None) -> Tensor:
    """Which experts a token may choose once its best expert is known: bool [num_experts, num_experts] on the CPU.

    Row e is true for e itself and for the first `top_t` entries of its list.

    lists: integers [num_experts, T], row e holds the collaborators of expert e, best first; -1 fills up a list that is
    shorter than the others. A model may have another T in each layer: each layer has a mask of its own.
    top_t: how many entries of each list count, all of them by default.

    Raises ValueError for an expert out of range, an expert in its own list, one that is listed twice, and a top_t
    that is longer than the lists.

    >>> collaborator_mask([[1], [0], [1]], num_experts=3).int().tolist()
    [[1, 1, 0], [1, 1, 0], [0, 1, 1]]
    """
    lists = torch.as_tensor(lists).long().cpu()
    if lists.dim() != 2 or len(lists) != num_experts:
        raise ValueError(f"collaborator lists have shape {list(lists.shape)}, expected [{num_experts}, T]")
    top_t = lists.shape[1] if top_t is None else top_t
    if not 0 <= top_t <= lists.shape[1]:
        raise ValueError(f"top_t is {top_t}, but the collaborator lists have {lists.shape[1]} entries")
    mask = torch.eye(num_experts, dtype=torch.bool)
    for expert, row in enumerate(lists[:, :top_t].tolist()):
        listed = [other for other in row if other != NO_EXPERT]
        for other in listed:
            if not 0 <= other < num_experts:
                raise ValueError(f"expert {expert} lists expert {other}, expected [0, {num_experts - 1}]")
            if other == expert or listed.count(other) > 1:
                raise ValueError(f"expert {expert} lists expert {other} {'twice' if other != expert else 'itself'}")
        mask[expert, listed] = True
    return mask


def _select_by_torch(logits: Tensor, mask: Tensor | None, top_k: int) -> Tensor:
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32)) + 0.0  # -0 becomes +0
    if mask is not None:
        best = scores.argmax(-1)  # the first of equals
        scores = scores.masked_fill(~mask[best], -torch.inf)
    ordered, experts = scores.sort(dim=-1, descending=True, stable=True)
    return torch.where(ordered == -torch.inf, NO_EXPERT, experts)[:, :top_k]


@torch.library.custom_op("c2r::select", mutates_args=())
def _select(logits: Tensor, mask: Tensor | None, top_k: int) -> Tensor:
    return _select_by_torch(logits, mask, top_k).contiguous()


@_select.register_fake
def _(logits, mask, top_k):
    return logits.new_empty(logits.shape[0], top_k, dtype=torch.int64)


# Types of devices for which c2r::select has a kernel. On others select() is no operator, so that torch.compile sees
# what it is made of.
_devices_with_kernel: list[str] = []


def select(logits: Tensor, mask: Tensor | None, top_k: int) -> Tensor:
    """Chooses experts: int64 [num_tokens, top_k], best first; equal logits go to the lower expert, as in C++.

    logits: [num_tokens, num_experts] of any floating type; comparisons are exact.
    mask: bool [num_experts, num_experts] as collaborator_mask() makes it, on the device of the logits; None is
    unconstrained top-k.
    A choice for which no expert is left is -1: where the best expert has fewer than top_k - 1 collaborators, or where
    a logit is -inf, which forbids an expert. NaN has no order: the result is undefined.

    Has no gradient; weigh() gives the weights that have one. Works under torch.compile(fullgraph=True).
    Raises ValueError for shapes and a top_k that do not fit.
    Source: arXiv 2504.01337, section 3; c2r/routing/policy_reference.cc is the same in C++.

    >>> logits = torch.tensor([[1.0, 3.0, 2.0], [2.0, 2.0, 0.0]])
    >>> select(logits, collaborator_mask([[1], [0], [1]], 3), top_k=2).tolist()
    [[1, 0], [0, 1]]
    """
    num_experts = logits.shape[-1]
    if logits.dim() != 2 or not 1 <= top_k <= num_experts:
        raise ValueError(f"top_k is {top_k} and logits have {logits.dim()} dimensions, expected top_k in "
                         f"[1, {num_experts}] and [num_tokens, num_experts]")  # fmt: skip
    if mask is not None and (mask.dtype != torch.bool or tuple(mask.shape) != (num_experts, num_experts)):
        raise ValueError(f"mask is {mask.dtype} {list(mask.shape)}, expected bool [{num_experts}, {num_experts}]")
    choose = _select if logits.device.type in _devices_with_kernel else _select_by_torch
    return choose(logits.detach(), mask, top_k)


def weigh(
    logits: Tensor, topk_idx: Tensor, scoring: str = "softmax", norm_topk_prob: bool = False, scale: float = 1.0
) -> Tensor:
    """The weights of chosen experts, differentiable in the logits: float32 [num_tokens, top_k] (float64 of float64).

    "softmax": the softmax over all experts; with norm_topk_prob divided by its sum over the chosen ones.
    "softmax-over-chosen": the softmax over the chosen logits. All are multiplied by `scale` last. A choice of -1 weighs
    nothing.
    Raises ValueError for another scoring.
    Source: the table of c2r/routing/policy.h, which says which models use what.

    >>> weigh(torch.zeros(1, 4), torch.tensor([[0, 1]])).tolist()
    [[0.25, 0.25]]
    """
    if scoring not in SCORINGS:
        raise ValueError(f"scoring is '{scoring}', expected one of {', '.join(SCORINGS)}")
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    is_used = topk_idx >= 0
    if scoring == "softmax" and not norm_topk_prob:
        weights = scores.softmax(-1).gather(1, topk_idx.clamp(min=0))
    else:  # the common denominator cancels
        weights = scores.gather(1, topk_idx.clamp(min=0)).masked_fill(~is_used, -torch.inf).softmax(-1)
    return torch.where(is_used, weights, 0.0) * scale


class Routing(NamedTuple):
    """One layer's decision for a batch of tokens."""

    logits: Tensor  # [num_tokens, num_experts]
    topk_idx: Tensor  # int64 [num_tokens, top_k], best first, -1 is no expert
    topk_weights: Tensor  # float32 [num_tokens, top_k]


@dataclasses.dataclass(frozen=True)
class Policy:
    """A router's rule. Fields are those of RoutingPolicy in c2r/routing/policy.h.

    collaborators: None, or the lists of collaborator_mask(); top_t is their length unless it is given.
    Raises ValueError for a field out of its range.
    """

    num_experts: int
    top_k: int
    scoring: str = "softmax"
    norm_topk_prob: bool = False
    scale: float = 1.0
    collaborators: object = None  # integers [num_experts, T]
    top_t: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.num_experts:
            raise ValueError(f"top_k is {self.top_k}, expected [1, {self.num_experts}]")
        if self.scoring not in SCORINGS:
            raise ValueError(f"scoring is '{self.scoring}', expected one of {', '.join(SCORINGS)}")
        if self.collaborators is None and self.top_t is not None:
            raise ValueError(f"top_t is {self.top_t}, but there are no collaborator lists")
        mask = self.mask()
        if mask is not None and int(mask.sum(1).min()) < self.top_k:
            expert = int(mask.sum(1).argmin())
            raise ValueError(f"expert {expert} has {int(mask[expert].sum()) - 1} collaborators, but top_k "
                             f"{self.top_k} needs {self.top_k - 1}")  # fmt: skip

    def mask(self) -> Tensor | None:
        """collaborator_mask() of this policy, or None without a constraint."""
        if self.collaborators is None:
            return None
        return collaborator_mask(self.collaborators, self.num_experts, self.top_t)

    def weigh(self, logits: Tensor, topk_idx: Tensor) -> Tensor:
        """weigh() with this policy's scoring."""
        return weigh(logits, topk_idx, self.scoring, self.norm_topk_prob, self.scale)


def switch_loss(routing: Routing, is_token: Tensor | None = None) -> Tensor:
    """num_experts * sum over e of (share of choices that fall on e) * (mean probability of e); 1 if balanced.

    The choices are those that were made, under whatever constraint; probabilities are softmax over all experts. A
    float32 scalar, 0 without tokens.
    is_token: [num_tokens], 0 or False for padding, which is left out.
    Source: Switch Transformer (arXiv 2101.03961), equations 4 to 6, with choices instead of tokens because top_k > 1.
    (transformers' load_balancing_loss_func does not divide by top_k, and chooses again without the constraint.)

    >>> idx = torch.tensor([[0, 1], [2, 3]])
    >>> float(switch_loss(Routing(torch.zeros(2, 4), idx, torch.ones(2, 2))))
    1.0
    """
    probabilities = routing.logits.float().softmax(-1)
    num_tokens, num_experts = probabilities.shape
    counts = probabilities.new_ones(num_tokens) if is_token is None else is_token.to(probabilities)
    experts = torch.arange(num_experts, device=routing.topk_idx.device)
    is_chosen = (routing.topk_idx.unsqueeze(-1) == experts).sum(1)  # [num_tokens, num_experts]
    choices = counts @ is_chosen.float()
    share = choices / choices.sum().clamp(min=1)
    return num_experts * (share * (counts @ probabilities)).sum() / counts.sum().clamp(min=1)


def cv_squared(x: Tensor) -> Tensor:
    """The squared coefficient of variation of x [num_experts]: variance / mean^2; 0 if all are equal."""
    return x.var() / (x.mean() ** 2 + 1e-10)


def importance_loss(routing: Routing) -> Tensor:
    """cv^2 of the importance, the sum of the weights that each expert got: variance / mean^2. A float32 scalar.

    Source: Shazeer et al. (arXiv 1701.06538), equations 6 and 7; the part of LLaMA-MoE's loss that needs no noise.

    >>> idx = torch.tensor([[0], [1]])
    >>> float(importance_loss(Routing(torch.zeros(2, 2), idx, torch.ones(2, 1))))
    0.0
    """
    experts = torch.arange(routing.logits.shape[1], device=routing.topk_idx.device)
    is_chosen = routing.topk_idx.unsqueeze(-1) == experts  # [num_tokens, top_k, num_experts]
    importance = (is_chosen * routing.topk_weights.float().unsqueeze(-1)).sum((0, 1))
    return cv_squared(importance)
