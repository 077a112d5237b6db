"""Input files of a model small enough to check by hand: 4 layers, 8 experts, top-2.

Experts 0-3 choose each other and 4-7 choose each other, but for one token in ten; so the right
answers are visible without a computer. Used by the tests of the command line and the documents.
"""
import json
import math
import os
import pathlib
import random
import shutil
import struct

TOKENIZER = pathlib.Path(__file__).resolve().parents[1] / "golden" / "tokenizers" / "qwen2"
# A model that can be run, with what it computes; its prompt and greedy text become tokens.jsonl.
TINY_MODEL = pathlib.Path(__file__).resolve().parents[1] / "golden" / "models" / "qwen2_moe"
NUM_TOKENS, NUM_LAYERS, NUM_EXPERTS, TOP_K = 400, 4, 8, 2


def choices():
    """[NUM_TOKENS][NUM_LAYERS] of two distinct experts."""
    rng = random.Random(1)

    def pair():
        group = rng.choice([range(4), range(4, 8)])
        return rng.sample(range(NUM_EXPERTS) if rng.random() < 0.1 else group, TOP_K)

    return [[pair() for _ in range(NUM_LAYERS)] for _ in range(NUM_TOKENS)]


def write_npy(path, descr, shape, data):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data)


def text_model(hidden, intermediate):
    """config.json and shapes of a model for TOKENIZER's 352 tokens."""
    config = {"model_type": "mixtral", "hidden_size": hidden, "vocab_size": 352, "num_hidden_layers": 1,
              "num_attention_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
              "rope_theta": 10000.0, "num_local_experts": 4, "num_experts_per_tok": 2,
              "intermediate_size": intermediate, "hidden_act": "silu"}
    shapes = {"lm_head.weight": [352, hidden], "model.embed_tokens.weight": [352, hidden],
              "model.norm.weight": [hidden]}
    layer = {"input_layernorm.weight": [hidden], "post_attention_layernorm.weight": [hidden],
             "block_sparse_moe.gate.weight": [4, hidden]}
    layer |= {f"self_attn.{p}_proj.weight": [hidden, hidden] for p in "qkvo"}
    for e in range(4):
        shape = {1: [intermediate, hidden], 2: [hidden, intermediate], 3: [intermediate, hidden]}
        layer |= {f"block_sparse_moe.experts.{e}.w{w}.weight": shape[w] for w in shape}
    return config, shapes | {f"model.layers.0.{name}": shape for name, shape in layer.items()}


def safetensors_header(shapes):
    """The first bytes of a file of f32 tensors, and how many bytes follow."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, end


def write_text_model(folder):
    """A model with random weights: it can talk, but has nothing to say."""
    config, shapes = text_model(8, 6)
    header, num_bytes = safetensors_header(shapes)
    rng = random.Random(2)
    data = struct.pack(f"<{num_bytes // 4}f", *(rng.gauss(0, 0.7) for _ in range(num_bytes // 4)))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(header + data)


def write_huge_model(folder):
    """The same with 3.3 TB of zeros, which take no room on the disk."""
    config, shapes = text_model(1 << 16, 1 << 20)
    header, num_bytes = safetensors_header(shapes)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(header)
    os.truncate(folder / "model.safetensors", len(header) + num_bytes)


def write_inputs(folder):
    """Writes the files that examples and tests start from."""
    flat = bytes(e for token in choices() for layer in token for e in layer)
    write_npy(folder / "expert_ids.npy", "|u1", (NUM_TOKENS, NUM_LAYERS, TOP_K), flat)
    (folder / "sequences.csv").write_text(
        "seq,row_start,n_tokens\n0,0,100\n1,100,250\n2,350,50\n")
    shutil.copytree(TINY_MODEL, folder / "tiny_model")
    expected = json.loads((TINY_MODEL / "expected.json").read_text())["plain"]
    (folder / "tokens.jsonl").write_text(
        "".join(json.dumps(part) + "\n" for part in (expected["prompt"], expected["greedy"])))
    (folder / "config.json").write_text(json.dumps(
        {"model_type": "small_moe", "num_experts": NUM_EXPERTS, "num_experts_per_tok": TOP_K}))
    (folder / "model").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder / "model" / name)
    write_text_model(folder / "model")
    (folder / "text.txt").write_text("Hello, world! 😀\n", encoding="utf-8")
