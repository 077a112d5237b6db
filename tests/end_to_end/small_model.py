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
    (folder / "text.txt").write_text("Hello, world! 😀\n", encoding="utf-8")
