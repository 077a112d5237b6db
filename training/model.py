"""Decoders of three families: Qwen2-MoE, LLaMA-MoE, and Qwen2 as their dense control.

A layer is x += attention(norm(x)); x += mlp(norm(x)), with RMSNorm, rotary positions (the two halves of a head
are the two coordinates) and tied embeddings. The families differ in
  qwen2_moe  biases of q, k, v; softmax gate; experts and a shared expert that a sigmoid weighs
  llama_moe  noisy tanh gate; weights times score_scale
  qwen2      biases of q, k, v; one MLP
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config import ModelConfig
from training.experts import GroupedMatmul, expert_mlp, loop
from training.gates import NoisyTanhGate, Routing, SoftmaxGate


class RmsNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, in float32."""

    def __init__(self, hidden: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rotary_table(config: ModelConfig) -> Tensor:
    """float32 [2, max_tokens, head_size]: cosines, then sines, of position * theta^(-2 i / head_size)."""
    frequency = config.rope_theta ** (-torch.arange(0, config.head_size, 2).float() / config.head_size)
    angle = torch.outer(torch.arange(config.max_tokens).float(), frequency).repeat(1, 2)
    return torch.stack([angle.cos(), angle.sin()])


class _Rotate(torch.autograd.Function):
    """x * cosine + half_turn(x) * sine, whose gradient is the same rotation backwards."""

    @staticmethod
    def forward(ctx, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        first, second = x.float().chunk(2, dim=-1)
        return (x.float() * cosine + torch.cat([-second, first], dim=-1) * sine).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        cosine, sine = ctx.saved_tensors
        return _Rotate.apply(gradient, cosine, -sine), None, None


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotates x [num_sequences, num_heads, num_tokens, head_size] by its tokens' positions."""
    return _Rotate.apply(x, rotary[0], rotary[1])


def side_by_side(x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """What each of `layers` makes of x, in one product, so that x is read once. All have a bias, or none has."""
    weight = torch.cat([layer.weight for layer in layers])
    bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
    return F.linear(x, weight, bias).split([layer.out_features for layer in layers], dim=-1)


class Attention(nn.Module):
    """Causal attention with as many key and value heads as query heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        has_bias = config.family != "llama_moe"
        self.q_proj = nn.Linear(config.hidden, config.hidden, bias=has_bias)
        self.k_proj = nn.Linear(config.hidden, config.hidden, bias=has_bias)
        self.v_proj = nn.Linear(config.hidden, config.hidden, bias=has_bias)
        self.o_proj = nn.Linear(config.hidden, config.hidden, bias=False)
        self.head_size = config.head_size

    def forward(self, x: Tensor, rotary: Tensor) -> Tensor:
        """x [num_sequences, num_tokens, hidden]; rotary [2, num_tokens, head_size]."""
        q, k, v = (
            rows.unflatten(-1, (-1, self.head_size)).transpose(1, 2)
            for rows in side_by_side(x, self.q_proj, self.k_proj, self.v_proj)
        )
        out = F.scaled_dot_product_attention(rotate(q, rotary), rotate(k, rotary), v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, intermediate, bias=False)
        self.up_proj = nn.Linear(hidden, intermediate, bias=False)
        self.down_proj = nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = side_by_side(x, self.gate_proj, self.up_proj)
        return self.down_proj(F.silu(gate) * up)


class Experts(nn.Module):
    """The matrices of a layer's experts; expert_mlp says what they compute."""

    def __init__(self, config: ModelConfig, matmul: GroupedMatmul) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(config.num_experts, 2 * config.intermediate, config.hidden))
        self.down = nn.Parameter(torch.empty(config.num_experts, config.hidden, config.intermediate))
        self.matmul = matmul

    def forward(self, x: Tensor, topk_idx: Tensor, topk_weights: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):  # autocast does not know grouped products
            dtype = torch.get_autocast_dtype(x.device.type)
            x, gate_up, down = x.to(dtype), self.gate_up.to(dtype), self.down.to(dtype)
        else:
            gate_up, down = self.gate_up, self.down
        return expert_mlp(x, topk_idx, topk_weights, gate_up, down, self.matmul)


class Moe(nn.Module):
    """The MoE layer of both families. Routing is in float32."""

    def __init__(self, config: ModelConfig, matmul: GroupedMatmul) -> None:
        super().__init__()
        is_qwen = config.family == "qwen2_moe"
        self.gate = (
            SoftmaxGate(config.hidden, config.num_experts, config.top_k)
            if is_qwen
            else NoisyTanhGate(config.hidden, config.num_experts, config.top_k, config.noise_epsilon)
        )
        self.experts = Experts(config, matmul)
        self.shared_expert = Mlp(config.hidden, config.shared_intermediate) if is_qwen else None
        self.shared_expert_gate = nn.Linear(config.hidden, 1, bias=False) if is_qwen else None
        self.score_scale = config.score_scale

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """x [num_tokens, hidden] -> the same shape."""
        with torch.autocast(x.device.type, enabled=False):
            routing = self.gate(x)
        out = self.experts(x, routing.topk_idx, routing.topk_weights * self.score_scale)
        if self.shared_expert is not None:
            out = out + self.shared_expert_gate(x).sigmoid() * self.shared_expert(x)
        return out, routing


class Block(nn.Module):
    """One decoder layer."""

    def __init__(self, config: ModelConfig, matmul: GroupedMatmul) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(config.hidden, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RmsNorm(config.hidden, config.rms_norm_eps)
        self.mlp = Moe(config, matmul) if config.is_moe else Mlp(config.hidden, config.intermediate)

    def forward(self, x: Tensor, rotary: Tensor) -> tuple[Tensor, Routing | None]:
        """x float32 [num_sequences, num_tokens, hidden] -> the same shape; no routing where there are no experts."""
        x = x + self.self_attn(self.input_layernorm(x), rotary)
        rows = self.post_attention_layernorm(x).flatten(0, 1)
        out, routing = self.mlp(rows) if isinstance(self.mlp, Moe) else (self.mlp(rows), None)
        return x + out.view_as(x), routing


class Output(NamedTuple):
    logits: Tensor  # [num_sequences, num_tokens, vocab_size]
    routings: list[Routing]  # one a MoE layer; its tokens are those of the sequences, one sequence after another


class Decoder(nn.Module):
    """A whole model."""

    def __init__(self, config: ModelConfig, matmul: GroupedMatmul = loop) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden)
        self.layers = nn.ModuleList(Block(config, matmul) for _ in range(config.num_layers))
        self.norm = RmsNorm(config.hidden, config.rms_norm_eps)
        self.register_buffer("rotary", rotary_table(config), persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        """Normal weights, as both families do, but smaller where a layer adds to x, and 1 / sqrt(inputs) in the two
        layers of LLaMA-MoE's gate, whose product would else hardly depend on x."""
        std = self.config.initializer_range
        for name, parameter in self.named_parameters():
            if "weight_noise" in name or name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif ".gate_network." in name:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
            elif name.endswith(("o_proj.weight", "down_proj.weight", "experts.down")):
                nn.init.normal_(parameter, std=std / math.sqrt(2 * self.config.num_layers))
            elif parameter.dim() > 1:
                nn.init.normal_(parameter, std=std)

    def forward(self, tokens: Tensor) -> Output:
        """tokens int64 [num_sequences, num_tokens], at most max_tokens long."""
        rotary = self.rotary[:, : tokens.shape[1]]
        x, routings = self.embed_tokens(tokens), []
        for layer in self.layers:
            x, routing = layer(x, rotary)
            if routing is not None:
                routings.append(routing)
        return Output(F.linear(self.norm(x), self.embed_tokens.weight), routings)


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy in nats, float32 [num_sequences * num_tokens]."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")


def num_active_parameters(model: Decoder) -> int:
    """Parameters that one token uses: all but those of the experts it does not visit. Embeddings count once."""
    config = model.config
    experts = sum(parameter.numel() for name, parameter in model.named_parameters() if ".experts." in name)
    total = sum(parameter.numel() for parameter in model.parameters())
    return total - (experts - experts * config.top_k // config.num_experts if config.is_moe else 0)
