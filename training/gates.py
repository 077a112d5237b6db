"""The gates of the two families, and the losses that keep their experts evenly used."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Routing(NamedTuple):
    """One layer's decision for a batch of tokens."""

    topk_idx: Tensor  # int64 [num_tokens, top_k], best first
    topk_weights: Tensor  # float32 [num_tokens, top_k]
    balance_loss: Tensor  # float32 scalar


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row, best first, ties to the lower index: values, and indices int64, both
    [num_tokens, count].

    Passes of argmax and a masked sum instead of topk: torch.compile fuses them with what comes before and after,
    while topk is a kernel of its own that spends a thread block on each row, and its gradient scatters.
    """
    columns = torch.arange(scores.shape[1], device=scores.device)
    left, indices = scores.detach(), []
    for _ in range(count):
        indices.append(left.argmax(dim=-1, keepdim=True))
        left = left.masked_fill(columns == indices[-1], -torch.inf)
    index = torch.cat(indices, dim=-1)
    return torch.where(index.unsqueeze(-1) == columns, scores.unsqueeze(1), 0.0).sum(-1), index


def switch_balance_loss(probabilities: Tensor, topk_idx: Tensor) -> Tensor:
    """num_experts * sum over e of (share of choices that fall on e) * (mean probability of e); 1 if balanced.

    Switch Transformer (2101.03961), equations 4 to 6, with choices instead of tokens because top_k > 1.
    probabilities [num_tokens, num_experts].
    """
    num_experts = probabilities.shape[1]
    choices = torch.zeros_like(probabilities).scatter(1, topk_idx, 1.0).mean(0) / topk_idx.shape[1]
    return num_experts * (choices * probabilities.mean(0)).sum()


def cv_squared(x: Tensor) -> Tensor:
    """The squared coefficient of variation of x [num_experts]: variance / mean^2; 0 if all are equal."""
    return x.var() / (x.mean() ** 2 + 1e-10)


def load_probability(logits: Tensor, noisy_logits: Tensor, noise_std: Tensor, top_k: int) -> Tensor:
    """P(expert e is among the chosen | fresh noise on e alone), a smooth stand-in for the load. All [num_tokens,
    num_experts].

    Shazeer et al. (1701.06538), appendix A: the value to beat is the best not chosen for an expert that is
    chosen, and the worst chosen for the others. (LLaMA-MoE's code compares the noise instead of the noisy logits
    when it asks which experts are chosen; we follow the paper.)
    """
    values, _ = best(noisy_logits, top_k + 1)
    worst_chosen, best_left = values[:, -2:-1], values[:, -1:]
    to_beat = torch.where(noisy_logits > best_left, best_left, worst_chosen)
    return torch.special.ndtr((logits - to_beat) / noise_std)


class SoftmaxGate(nn.Linear):
    """Qwen2-MoE: softmax over all experts, then the best top_k with their probabilities as they are."""

    def __init__(self, hidden: int, num_experts: int, top_k: int) -> None:
        super().__init__(hidden, num_experts, bias=False)
        self.top_k = top_k

    # Compiled together with its block by PyTorch 2.11 for an H100, it has right gradients in the first step and wrong
    # ones later (balance loss 18 instead of 8.4 after 30 steps); by itself, it costs a tenth of the step's time. The
    # cause is not known. NoisyTanhGate compiles well.
    @torch.compiler.disable
    def forward(self, x: Tensor) -> Routing:
        probabilities = super().forward(x).float().softmax(dim=-1)
        topk_weights, topk_idx = best(probabilities, self.top_k)
        return Routing(topk_idx, topk_weights, switch_balance_loss(probabilities, topk_idx))


class NoisyTanhGate(nn.Module):
    """LLaMA-MoE: Linear, tanh, Linear; softmax over the logits of the top_k chosen. Noise only while training."""

    def __init__(self, hidden: int, num_experts: int, top_k: int, noise_epsilon: float) -> None:
        super().__init__()
        self.gate_network = nn.Sequential(
            nn.Linear(hidden, num_experts, bias=False), nn.Tanh(), nn.Linear(num_experts, num_experts, bias=False)
        )
        self.weight_noise = nn.Linear(hidden, num_experts, bias=False)
        self.top_k, self.noise_epsilon = top_k, noise_epsilon

    def forward(self, x: Tensor) -> Routing:
        logits = noisy_logits = self.gate_network(x).float()
        if self.training:
            noise_std = F.softplus(self.weight_noise(x).float()) + self.noise_epsilon
            noisy_logits = logits + torch.randn_like(logits) * noise_std
        chosen, topk_idx = best(noisy_logits, self.top_k)
        topk_weights = chosen.softmax(dim=-1)
        importance = torch.zeros_like(logits).scatter(1, topk_idx, topk_weights).sum(0)  # [num_experts]
        balance_loss = cv_squared(importance)
        if self.training:
            balance_loss = balance_loss + cv_squared(
                load_probability(logits, noisy_logits, noise_std, self.top_k).sum(0)
            )
        return Routing(topk_idx, topk_weights, balance_loss)
