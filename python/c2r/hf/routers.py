"""The routers of transformers' Mixture-of-Experts families: where they are, and how each weighs what it has chosen."""

import re
from typing import NamedTuple

import torch
from torch import Tensor, nn

from c2r.torch.routing import weigh


class Family(NamedTuple):
    """What a router does with its logits, and in which type its weights leave it."""

    scoring: str
    always_normalizes: bool = False  # whatever the router's norm_topk_prob
    keeps_float32: bool = False


# Every one takes hidden states and returns (logits [N, E], weights [N, k], indices [N, k]).
FAMILIES = {
    "Qwen2MoeTopKRouter": Family("softmax"),
    "Qwen3MoeTopKRouter": Family("softmax"),
    "OlmoeTopKRouter": Family("softmax"),
    "MixtralTopKRouter": Family("softmax", always_normalizes=True, keeps_float32=True),
    "GptOssTopKRouter": Family("softmax-over-chosen"),
    "LlamaMoeRouter": Family("softmax-over-chosen", keeps_float32=True),  # c2r.hf.llama_moe
}
_LOOKS_LIKE_A_ROUTER = re.compile(r"Router$|Gate$", re.IGNORECASE)
_WHY_NOT = (
    (re.compile(r"Deepseek|Glm|Kimi|Mistral4", re.IGNORECASE), "it chooses within groups of experts, or by a bias"),
)


class Router(NamedTuple):
    """One MoE layer's router."""

    name: str  # in the model: "model.layers.3.mlp.gate"
    module: nn.Module
    layer_index: int  # the model's own index of the layer: dense layers count
    family: Family

    @property
    def num_experts(self) -> int:
        return self.module.num_experts

    @property
    def top_k(self) -> int:
        return self.module.top_k

    def weights(self, logits: Tensor, topk_idx: Tensor) -> Tensor:
        """The weights of chosen experts as this router gives them, differentiable in the logits. [N, k]"""
        norm = self.family.always_normalizes or getattr(self.module, "norm_topk_prob", False)
        weights = weigh(logits, topk_idx, self.family.scoring, norm, getattr(self.module, "score_scale", 1.0))
        return weights if self.family.keeps_float32 else weights.to(logits.dtype)


def _refusal(model: nn.Module, name: str, module: nn.Module) -> str:
    kind = type(module).__name__
    reason = next((why for pattern, why in _WHY_NOT if pattern.search(kind)), "c2r does not know how it weighs experts")
    return f"{type(model).__name__} cannot be constrained: of its router {kind} ({name}) {reason}; c2r knows {', '.join(FAMILIES)}"


def find_routers(model: nn.Module) -> list[Router]:
    """The routers of a model, in the order of its layers.

    Raises ValueError if it has none, or one of a family that c2r does not know; the message names it.
    """
    found = []
    for name, module in model.named_modules():
        family = FAMILIES.get(type(module).__name__)
        if family is None:
            if _LOOKS_LIKE_A_ROUTER.search(type(module).__name__) and hasattr(module, "top_k"):
                raise ValueError(_refusal(model, name, module))
            continue
        layer = re.search(r"(?:^|\.)layers\.(\d+)\.", name)
        if layer is None:
            raise ValueError(f"the router {name} is in no layer that its name tells: layers.N")
        found.append(Router(name, module, int(layer[1]), family))
    if not found:
        raise ValueError(f"{type(model).__name__} has no router that c2r knows: {', '.join(FAMILIES)}")
    return found


def device_of(router: Router) -> torch.device:
    return next(router.module.parameters()).device
