"""Rules of routing that a serving engineer would try instead of collaborator lists, and penalties to train a router by.

Every rule takes logits [num_tokens, num_experts] and returns the experts of each token, best first, int64
[num_tokens, top_k]; equal logits go to the lower expert. ranks: int64 [num_experts], the rank of each expert.
"""

from collections.abc import Callable

import torch
from c2r.hf.routers import find_routers
from c2r.torch.routing import select
from torch import Tensor, nn

Rule = Callable[[Tensor], Tensor]


def _best_of(logits: Tensor, is_allowed: Tensor, top_k: int) -> Tensor:
    masked = logits.detach().float().masked_fill(~is_allowed, -torch.inf)
    return masked.sort(dim=-1, descending=True, stable=True).indices[:, :top_k]


def device_limited(logits: Tensor, ranks: Tensor, max_ranks: int, top_k: int) -> Tensor:
    """The best experts of the max_ranks ranks that hold a token's best expert of a rank (DeepSeek-V2, 2405.04434)."""
    num_ranks = int(ranks.max()) + 1
    of_rank = torch.full((len(logits), num_ranks), -torch.inf, device=logits.device)
    of_rank = of_rank.scatter_reduce(1, ranks.expand(len(logits), -1), logits.detach().float(), "amax")
    chosen = of_rank.sort(dim=-1, descending=True, stable=True).indices[:, :max_ranks]
    on_chosen = torch.zeros(len(logits), num_ranks, dtype=torch.bool, device=logits.device).scatter(1, chosen, True)
    return _best_of(logits, on_chosen[:, ranks], top_k)


def group_balanced(logits: Tensor, ranks: Tensor, top_k: int) -> Tensor:
    """The best top_k / num_ranks experts of every rank (MoGE of Pangu Pro, 2505.21411): balanced, never fewer ranks."""
    num_ranks = int(ranks.max()) + 1
    if top_k % num_ranks:
        raise ValueError(f"top-{top_k} cannot be divided among {num_ranks} ranks")
    chosen = torch.cat(
        [_best_of(logits, (ranks == r).expand_as(logits), top_k // num_ranks) for r in range(num_ranks)], 1
    )
    is_chosen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, chosen, True)
    return _best_of(logits, is_chosen, top_k)


def batch_aware(logits: Tensor, num_free: int, top_k: int) -> Tensor:
    """Each token's num_free best experts, then the best of what all tokens' num_free best are (as OEA, 2511.02237).

    It lowers the distinct experts of a batch of decoding; a token alone keeps few ranks only by chance.
    """
    free = select(logits, None, num_free)
    in_batch = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
    in_batch[free.flatten()] = True
    if int(in_batch.sum()) < top_k:  # fewer experts than a token needs: all are allowed
        in_batch[:] = True
    return _best_of(logits, in_batch.expand_as(logits), top_k)


def outside_share(logits: Tensor, ranks: Tensor) -> Tensor:
    """1 - the probability on the token's best rank, mean over tokens: what a penalized router is to lower. A scalar."""
    num_ranks = int(ranks.max()) + 1
    probability = logits.float().softmax(-1)
    of_rank = probability.new_zeros(len(logits), num_ranks).index_add(1, ranks, probability)
    return (1 - of_rank.amax(1)).mean()


def divergence(logits: Tensor, before: Tensor) -> Tensor:
    """KL(before || now) of the routers' probabilities, mean over tokens: the anchor to the router as it was. A scalar."""
    old = before.float().log_softmax(-1)
    return (old.exp() * (old - logits.float().log_softmax(-1))).sum(-1).mean()


def apply_rules(model: nn.Module, rules: list[Rule]) -> list[torch.utils.hooks.RemovableHandle]:
    """Lets every router choose by its rule, from its logits; weights are the family's. remove() of each undoes it."""
    handles = []
    for router, rule in zip(find_routers(model), rules, strict=True):

        def choose(module, inputs, output, router=router, rule=rule):
            topk_idx = rule(output[0])
            return output[0], router.weights(output[0], topk_idx), topk_idx

        handles.append(router.module.register_forward_hook(choose, prepend=True))
    return handles


class RankPenalty:
    """A penalty for c2r.finetune: strength * outside_share, + anchor * divergence from the routers at the start.

    Means over layers. The old router sees the same hidden states, which are not trained where the router is alone.
    """

    def __init__(self, model: nn.Module, ranks: list[Tensor], strength: float, anchor: float = 0.0) -> None:
        self._ranks, self._strength, self._anchor = ranks, strength, anchor
        self._terms: list[Tensor] = []
        for at, router in enumerate(find_routers(model)):
            before = router.module.weight.detach().clone()
            router.module.register_forward_hook(self._hook_of(at, before))

    def _hook_of(self, at: int, before: Tensor):
        def add(module, inputs, output):
            term = self._strength * outside_share(output[0], self._ranks[at])
            if self._anchor:
                hidden = inputs[0].reshape(-1, inputs[0].shape[-1])
                term = term + self._anchor * divergence(output[0], torch.nn.functional.linear(hidden, before).detach())
            if torch.is_grad_enabled():
                self._terms.append(term)

        return add

    def __call__(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        terms, self._terms = self._terms, []
        return torch.stack(terms).mean()
