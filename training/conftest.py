"""What the tests of this folder share: a tiny corpus and tiny models."""

import dataclasses

import numpy as np
import pytest
import torch

from training.batches import Corpus
from training.config import Config, ModelConfig, TrainingConfig

torch.set_num_threads(1)

# rope_theta and score_scale differ from every default, so that a reader which ignores them is found out.
SHAPE = {"hidden": 32, "num_layers": 2, "num_heads": 2, "max_tokens": 16, "vocab_size": 320, "rope_theta": 500.0,
         "initializer_range": 0.2}  # fmt: skip
MODELS = {
    "qwen2_moe": ModelConfig("qwen2_moe", intermediate=24, num_experts=8, top_k=3, shared_intermediate=40, **SHAPE),
    "llama_moe": ModelConfig("llama_moe", intermediate=24, num_experts=8, top_k=2, score_scale=3.0, **SHAPE),
    "qwen2": ModelConfig("qwen2", intermediate=48, **SHAPE),
}


@pytest.fixture(params=MODELS)
def config(request) -> Config:
    """Sixteen steps of a two-layer model of each family."""
    training = TrainingConfig(num_tokens=16 * 4 * 16, batch_sequences=4, learning_rate=1e-2, warmup_steps=2,
                              balance_loss_weight=0.01, log_steps=1, evaluation_steps=8)  # fmt: skip
    return Config("tiny", dataclasses.replace(MODELS[request.param], initializer_range=0.02), training)


@pytest.fixture
def corpus() -> Corpus:
    """Two domains whose next token can be guessed: each counts up from where it was, with a step of its own."""
    generator = np.random.Generator(np.random.PCG64(1))
    tokens, facts = {}, {}
    for domain, stride in (("ones", 1), ("threes", 3)):
        for split, num_tokens in (("train", 1500), ("held_out", 200)):
            jumps = np.where(generator.random(num_tokens) < 0.1, generator.integers(0, 64, num_tokens), stride)
            tokens[f"{domain}.{split}"] = (np.cumsum(jumps) % 64).astype(np.uint16)
            facts.setdefault(domain, {})[split] = {"documents": 1, "utf8_bytes": num_tokens, "tokens": num_tokens}
        facts[domain] |= {"overlapping": 0, "repeated": 0}
    return Corpus(tokens, facts)
