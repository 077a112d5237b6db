"""Input files of a model small enough to check by hand: 4 layers, 8 experts, top-2.

Experts 0-3 choose each other and 4-7 choose each other, but for one token in ten; so the right
answers are visible without a computer. Used by the tests of the command line and the documents.
"""
import json
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


def write_text_model(folder):
    """A model with random weights for TOKENIZER's 352 tokens: it can talk, but has nothing to say."""
    config = {"model_type": "mixtral", "hidden_size": 8, "vocab_size": 352, "num_hidden_layers": 1,
              "num_attention_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
              "rope_theta": 10000.0, "num_local_experts": 4, "num_experts_per_tok": 2,
              "intermediate_size": 6, "hidden_act": "silu"}
    shapes = {"lm_head.weight": [352, 8], "model.embed_tokens.weight": [352, 8],
              "model.norm.weight": [8]}
    layer = {"input_layernorm.weight": [8], "post_attention_layernorm.weight": [8],
             "block_sparse_moe.gate.weight": [4, 8]}
    layer |= {f"self_attn.{p}_proj.weight": [8, 8] for p in "qkvo"}
    for e in range(4):
        layer |= {f"block_sparse_moe.experts.{e}.w{w}.weight": [8, 6] if w == 2 else [6, 8]
                  for w in (1, 2, 3)}
    shapes |= {f"model.layers.0.{name}": shape for name, shape in layer.items()}
    rng, header, data = random.Random(2), {}, b""
    for name, shape in shapes.items():
        size = shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * size]}
        data += struct.pack(f"<{size}f", *(rng.gauss(0, 0.7) for _ in range(size)))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


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
