"""Random weights in the shapes of real models, for the engines that bench/compare_engines.py compares.

A model is a table of tensors, named as in its Hugging Face checkpoint. Values are bf16 of magnitude
2^-7 to 2^-6 with random signs and digits, cut from one block of 32 MB; norms are 1. Files are
written tensor by tensor, so that a model need not fit into memory.
"""
import json
import math
import struct

import numpy as np

BLOCK = 1 << 24  # values


def shape_of(name, num_layers=None):
    """The config.json of a model and its family. `num_layers`: fewer than it has."""
    common = {"num_key_value_heads": 16, "num_attention_heads": 16, "hidden_size": 2048,
              "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
              "tie_word_embeddings": False, "hidden_act": "silu", "bos_token_id": None,
              "eos_token_id": None, "pad_token_id": None}
    llama = common | {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 32,
                      "vocab_size": 32000, "num_hidden_layers": num_layers or 32}
    layers = llama["num_hidden_layers"]
    if name == "llama-moe":  # LLaMA-MoE-3.5B, 2 of 8 experts; its code has RoPE's theta built in
        del llama["rope_theta"]
        return llama | {"model_type": "llama_moe", "num_experts": 8, "num_selects": 2,
                        "intermediate_size": 11008, "size_experts": [[1376] * 8] * layers,
                        "score_scale_factor": [4.0] * layers, "gate_network": "mlp",
                        "gate_type": "TopKBalancedNoisyGate", "gate_use_softmax": True,
                        "calculator_type": "UniversalCalculator", "multiply_gate_scores": True}
    if name == "mixtral":  # of the same shapes, for engines that lack LLaMA-MoE
        return llama | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2,
                        "intermediate_size": 1376}
    if name == "olmoe":  # OLMoE-1B-7B
        return common | {"model_type": "olmoe", "vocab_size": 50304,
                         "num_hidden_layers": num_layers or 16, "num_experts": 64,
                         "num_experts_per_tok": 8, "intermediate_size": 1024, "norm_topk_prob": False}
    if name == "qwen1.5-moe":  # Qwen1.5-MoE-A2.7B
        return common | {"model_type": "qwen2_moe", "vocab_size": 151936,
                         "num_hidden_layers": num_layers or 24, "num_experts": 60,
                         "num_experts_per_tok": 4, "moe_intermediate_size": 1408,
                         "intermediate_size": 5632, "shared_expert_intermediate_size": 5632,
                         "norm_topk_prob": False, "decoder_sparse_step": 1, "mlp_only_layers": [],
                         "use_sliding_window": False}
    raise SystemExit(f"compare_engines.py: no shape is called '{name}'")


def num_experts(config):
    return config.get("num_local_experts") or config["num_experts"]


def top_k(config):
    return config.get("num_experts_per_tok") or config["num_selects"]


def expert_width(config):
    if config["model_type"] == "llama_moe":
        return config["size_experts"][0][0]
    return config.get("moe_intermediate_size") or config["intermediate_size"]


def expert_name(config, part):
    """Below "mlp" of a layer; {} is the expert. `part`: gate, up or down."""
    if config["model_type"] == "mixtral":
        return "block_sparse_moe.experts.{}.w%d.weight" % {"gate": 1, "down": 2, "up": 3}[part]
    if config["model_type"] == "llama_moe":
        return "mlp.calculator.experts.weight_%s.{}" % part
    return "mlp.experts.{}.%s_proj.weight" % part


def layer_tensors(config):
    """Names below model.layers.N, with shapes; experts are left out."""
    hidden, experts, kind = config["hidden_size"], num_experts(config), config["model_type"]
    shapes = {"input_layernorm.weight": [hidden], "post_attention_layernorm.weight": [hidden]}
    shapes |= {f"self_attn.{p}_proj.weight": [hidden, hidden] for p in "qkvo"}
    if kind == "llama_moe":
        shapes["mlp.gate.gate_network.0.weight"] = [experts, hidden]
        shapes["mlp.gate.gate_network.2.weight"] = [experts, experts]
    elif kind == "mixtral":
        shapes["block_sparse_moe.gate.weight"] = [experts, hidden]
    else:
        shapes["mlp.gate.weight"] = [experts, hidden]
    if kind == "olmoe":
        shapes |= {"self_attn.q_norm.weight": [hidden], "self_attn.k_norm.weight": [hidden]}
    if kind == "qwen2_moe":
        width = config["shared_expert_intermediate_size"]
        shapes |= {f"self_attn.{p}_proj.bias": [hidden] for p in "qkv"}
        shapes |= {f"mlp.shared_expert.{p}_proj.weight": [width, hidden] for p in ("gate", "up")}
        shapes |= {"mlp.shared_expert.down_proj.weight": [hidden, width],
                   "mlp.shared_expert_gate.weight": [1, hidden]}
    return shapes


def outer_tensors(config):
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    return {"model.embed_tokens.weight": [vocab, hidden], "model.norm.weight": [hidden],
            "lm_head.weight": [vocab, hidden]}


def checkpoint_tensors(config):
    """Every tensor of the checkpoint."""
    shapes = outer_tensors(config)
    hidden, width = config["hidden_size"], expert_width(config)
    for layer in range(config["num_hidden_layers"]):
        mine = layer_tensors(config)
        for part in ("gate", "up", "down"):
            for e in range(num_experts(config)):
                name = expert_name(config, part).format(e)
                mine[name] = [hidden, width] if part == "down" else [width, hidden]
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in mine.items()}
    return shapes


class RandomValues:
    """bf16 values, as 16-bit integers."""

    def __init__(self, seed=0):
        bits = np.random.default_rng(seed).integers(0, 1 << 16, BLOCK, dtype=np.uint16)
        self.block = (bits & 0x807F) | 0x3C00
        self.begin = 0

    def pieces(self, size):
        while size > 0:
            piece = self.block[self.begin:self.begin + min(size, BLOCK - self.begin)]
            self.begin = (self.begin + len(piece) + 997) % BLOCK  # so that no two tensors are alike
            size -= len(piece)
            yield piece

    def tensor(self, shape, is_norm=False):
        if is_norm:
            return np.full(shape, 0x3F80, np.uint16)
        return np.concatenate(list(self.pieces(math.prod(shape)))).reshape(shape)


def write_checkpoint(config, folder):
    """config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = checkpoint_tensors(config)
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    values = RandomValues()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            file.write(values.tensor(shape, "norm" in name).tobytes())
    (folder / "config.json").write_text(json.dumps(config))
