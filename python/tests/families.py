"""Tiny random models of the families of transformers that c2r constrains, and the rule written out."""

import torch
import transformers

from c2r.hf.llama_moe import LlamaMoeConfig

NUM_LAYERS, NUM_EXPERTS, TOP_K, VOCABULARY = 3, 12, 4, 97
SCORE_SCALE = 3.0  # of llama_moe
_COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "num_experts_per_tok": TOP_K,
}  # fmt: skip
CONFIGS = {
    "qwen2_moe": lambda: transformers.Qwen2MoeConfig(
        **_COMMON, num_experts=NUM_EXPERTS, moe_intermediate_size=16, shared_expert_intermediate_size=24
    ),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **_COMMON, num_experts=NUM_EXPERTS, moe_intermediate_size=16, head_dim=8, norm_topk_prob=True
    ),
    "olmoe": lambda: transformers.OlmoeConfig(**_COMMON, num_experts=NUM_EXPERTS),
    "mixtral": lambda: transformers.MixtralConfig(**_COMMON, num_local_experts=NUM_EXPERTS),
    "gpt_oss": lambda: transformers.GptOssConfig(**_COMMON, num_local_experts=NUM_EXPERTS, head_dim=8),
    "llama_moe": lambda: LlamaMoeConfig(
        **{key: value for key, value in _COMMON.items() if key not in ("num_experts_per_tok", "intermediate_size")},
        num_experts=NUM_EXPERTS, num_selects=TOP_K, intermediate_size=NUM_EXPERTS * 8,
        size_experts=[[width] * NUM_EXPERTS for width in (8, 16, 8)], score_scale_factor=SCORE_SCALE,
    ),
}  # fmt: skip
NORMALIZES = {"qwen3_moe", "mixtral"}


def random_model(family, seed=0):
    """A model whose routers are decided."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[family]()).float().eval()
    for name, parameter in model.named_parameters():
        if any(part in name for part in (".mlp.gate.weight", ".mlp.router.weight", ".mlp.gate.gate_network")):
            torch.nn.init.normal_(parameter)
    return model


def random_lists(top_t, seed=1):
    """[NUM_LAYERS][NUM_EXPERTS][top_t of the layer]; top_t is a number or one for each layer."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [top_t] * NUM_LAYERS if isinstance(top_t, int) else top_t
    return [
        [
            [e for e in torch.randperm(NUM_EXPERTS, generator=generator).tolist() if e != expert][:length]
            for expert in range(NUM_EXPERTS)
        ]
        for length in lengths
    ]


def choose_by_definition(logits, lists, top_k):
    """One token: the best expert, then the best of its list; equal logits to the lower expert."""
    order = sorted(range(len(logits)), key=lambda e: (-logits[e].item(), e))
    return [order[0], *[e for e in order if e in lists[order[0]]][: top_k - 1]]


def weigh_by_definition(logits, chosen, family):
    if family == "gpt_oss":
        return logits[chosen].softmax(-1)
    if family == "llama_moe":
        return logits[chosen].softmax(-1) * SCORE_SCALE
    weights = logits.softmax(-1)[chosen]
    return weights / weights.sum() if family in NORMALIZES else weights
