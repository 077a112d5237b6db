"""What the routers choose in training, summed between two lines of the log."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from c2r.hf.routers import find_routers


class RoutingMeter:
    """Counts choices in every training pass of a model, by hooks after those of c2r.hf.constrain().

    A layer that is recomputed in the backward pass is counted twice, which leaves all ratios as they are.

    mask: which tokens count, 0 for padding, [batch, tokens]; whoever runs the model sets it. None: all.
    """

    def __init__(self, model: nn.Module, ranks_of_experts: list[Tensor] | None = None) -> None:
        """ranks_of_experts: for each MoE layer the rank of each expert, int64 [num_experts]; None: no copies."""
        self.mask: Tensor | None = None
        self._routers = find_routers(model)
        self._ranks = ranks_of_experts
        if ranks_of_experts is not None and len(ranks_of_experts) != len(self._routers):
            raise ValueError(f"there are placements of {len(ranks_of_experts)} layers, but {len(self._routers)} have "
                             "experts")  # fmt: skip
        self._sums: list[Tensor | None] = [None] * len(self._routers)
        for at, router in enumerate(self._routers):
            router.module.register_forward_hook(self._hook_of(at))

    def _hook_of(self, at: int):
        num_experts = self._routers[at].num_experts

        @torch.no_grad()
        def count(module: nn.Module, inputs, output) -> None:
            if not module.training:
                return
            logits, _, topk_idx = output
            counts = logits.new_ones(len(topk_idx), dtype=torch.float32)
            if self.mask is not None:
                counts = self.mask.reshape(-1).to(logits.device, torch.float32)
            chosen = torch.zeros(num_experts, device=logits.device)
            chosen.index_add_(0, topk_idx.reshape(-1), counts.repeat_interleave(topk_idx.shape[1]))
            probability = (logits.detach().float().softmax(-1) * counts.unsqueeze(1)).sum(0)
            sums = torch.cat([chosen, probability, counts.sum().view(1), self._copies(at, topk_idx, counts).view(1)])
            before = self._sums[at]
            self._sums[at] = sums.double() if before is None else before + sums  # float32 would stop at 2^24 tokens

        return count

    def _copies(self, at: int, topk_idx: Tensor, counts: Tensor) -> Tensor:
        """Ranks that the tokens reach, summed."""
        if self._ranks is None:
            return counts.new_zeros(())
        if self._ranks[at].device != topk_idx.device:
            self._ranks[at] = self._ranks[at].to(topk_idx.device)
        ranks = self._ranks[at][topk_idx].sort(1).values
        is_new = torch.cat([torch.ones_like(ranks[:, :1], dtype=torch.bool), ranks[:, 1:] != ranks[:, :-1]], 1)
        return (is_new.sum(1) * counts).sum()

    def take(self) -> dict[str, float]:
        """Means over layers since the last call; collective where ranks train together.

        balance_loss: num_experts * sum over e of (share of choices of e) * (mean probability of e); 1 is balanced
        expert_imbalance: choices of the busiest expert / mean over experts
        copies_per_token: distinct ranks of a token's experts, with placements only
        """
        if any(sums is None for sums in self._sums):
            return {}
        layers = torch.stack(self._sums)
        self._sums = [None] * len(self._routers)
        if dist.is_initialized():
            dist.all_reduce(layers)
        num_experts = self._routers[0].num_experts
        chosen, probability = layers[:, :num_experts], layers[:, num_experts : 2 * num_experts]
        num_tokens, copies = layers[:, -2], layers[:, -1]
        share = chosen / chosen.sum(1, keepdim=True)
        found = {
            "balance_loss": float((num_experts * (share * probability / num_tokens.unsqueeze(1)).sum(1)).mean()),
            "expert_imbalance": float((share.amax(1) * num_experts).mean()),
        }
        if self._ranks is not None:
            found["copies_per_token"] = float((copies / num_tokens).mean())
        return found
