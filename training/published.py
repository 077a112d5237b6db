"""Model folders as Hugging Face knows them: config.json, model.safetensors, generation_config.json.

Tensors have the names of the published checkpoints: Qwen1.5-MoE-A2.7B, LLaMA-MoE-v1-3.5B, Qwen2. The embedding is
also the output matrix, so there is no lm_head.weight.
"""

import json
import pathlib
from collections.abc import Iterator

import safetensors.torch
import torch
from torch import Tensor

from training.config import ModelConfig
from training.experts import GroupedMatmul, loop
from training.model import Decoder

# How the families name the matrices of expert `e` of a layer.
EXPERT_NAMES = {
    "qwen2_moe": {part: f"mlp.experts.{{e}}.{part}_proj.weight" for part in ("gate", "up", "down")},
    "llama_moe": {part: f"mlp.calculator.experts.weight_{part}.{{e}}" for part in ("gate", "up", "down")},
}


def config_json(config: ModelConfig) -> dict:
    """config.json with the keys of the family's published one, as far as a reader of the model needs them."""
    common = {
        "hidden_act": "silu",
        "hidden_size": config.hidden,
        "initializer_range": config.initializer_range,
        "max_position_embeddings": config.max_tokens,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": config.vocab_size,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    family = {
        "qwen2": lambda: {
            "architectures": ["Qwen2ForCausalLM"], "intermediate_size": config.intermediate, "use_sliding_window": False,
        },
        "qwen2_moe": lambda: {
            "architectures": ["Qwen2MoeForCausalLM"], "intermediate_size": config.shared_intermediate,
            "moe_intermediate_size": config.intermediate, "num_experts": config.num_experts,
            "num_experts_per_tok": config.top_k, "shared_expert_intermediate_size": config.shared_intermediate,
            "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": False, "use_sliding_window": False,
        },
        "llama_moe": lambda: {
            "architectures": ["LlamaMoEForCausalLM"], "intermediate_size": config.num_experts * config.intermediate,
            "size_experts": [[config.intermediate] * config.num_experts] * config.num_layers,
            "num_experts": config.num_experts, "num_selects": config.top_k, "gate_type": "TopKBalancedNoisyGate",
            "gate_network": "mlp", "gate_use_softmax": True, "gate_add_noise": True,
            "gate_noise_epsilon": config.noise_epsilon, "gate_use_balance": True,
            "calculator_type": "UniversalCalculator", "multiply_gate_scores": True,
            "score_scale_factor": config.score_scale, "add_weight_norm": False, "pretraining_tp": 1, "rope_scaling": None,
        },
    }  # fmt: skip
    return {"model_type": config.family} | family[config.family]() | common


def read_config_json(path: pathlib.Path) -> ModelConfig:
    """The inverse of config_json, also of a file that transformers 5 has saved, which renames some keys."""
    found = json.loads(path.read_text())
    found = {"num_experts": found.get("num_local_experts", 0), **(found.get("rope_parameters") or {}), **found}
    family, is_qwen_moe, is_llama_moe = (
        found["model_type"], found["model_type"] == "qwen2_moe", found["model_type"] == "llama_moe"
    )  # fmt: skip
    return ModelConfig(
        family=family, hidden=found["hidden_size"], num_layers=found["num_hidden_layers"],
        num_heads=found["num_attention_heads"],
        intermediate=(found["moe_intermediate_size"] if is_qwen_moe else
                      found["size_experts"][0][0] if is_llama_moe else found["intermediate_size"]),
        max_tokens=found["max_position_embeddings"], vocab_size=found["vocab_size"],
        num_experts=found["num_experts"],
        top_k=found.get("num_experts_per_tok", found.get("num_selects", 0)),
        shared_intermediate=found.get("shared_expert_intermediate_size", 0),
        score_scale=found.get("score_scale_factor", 1.0), noise_epsilon=found.get("gate_noise_epsilon", 0.01),
        rope_theta=found["rope_theta"], rms_norm_eps=found["rms_norm_eps"],
        initializer_range=found["initializer_range"],
    )  # fmt: skip


def published_views(model: Decoder) -> Iterator[tuple[str, Tensor]]:
    """Every published tensor's name and the part of the model's parameters that it is."""
    for name, parameter in model.named_parameters():
        layer, _, kind = name.partition("mlp.experts.")
        if not kind:
            yield f"model.{name}", parameter.data
            continue
        names = EXPERT_NAMES[model.config.family]
        for e, matrix in enumerate(parameter.data):
            parts = zip(("gate", "up"), matrix.chunk(2)) if kind == "gate_up" else [("down", matrix)]
            yield from ((f"model.{layer}{names[part].format(e=e)}", tensor) for part, tensor in parts)


def save_model(model: Decoder, folder: pathlib.Path) -> None:
    """Writes the three files into `folder`; weights are rounded to bf16."""
    tensors = {name: view.to("cpu", torch.bfloat16).clone() for name, view in published_views(model)}
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors leaves it to its owner alone
    generation = {"bos_token_id": 0, "eos_token_id": 0, "do_sample": True, "temperature": 0.8}
    for name, content in ("config", config_json(model.config)), ("generation_config", generation):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def load_weights(model: Decoder, folder: pathlib.Path) -> None:
    """Replaces the model's weights by the saved ones. @raises ValueError if a tensor is missing, left over or odd."""
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    for name, view in published_views(model):
        if name not in tensors or tensors[name].shape != view.shape:
            found = list(tensors[name].shape) if name in tensors else "missing"
            raise ValueError(f"{folder}: tensor '{name}' should be {list(view.shape)} but is {found}")
        view.copy_(tensors.pop(name))
    if tensors:
        raise ValueError(f"{folder}: unknown tensor '{min(tensors)}'")


def load_model(folder: pathlib.Path, matmul: GroupedMatmul = loop) -> Decoder:
    """The model of a folder, in float32 on the CPU, ready for evaluation."""
    model = Decoder(read_config_json(folder / "config.json"), matmul)
    load_weights(model, folder)
    return model.eval()
