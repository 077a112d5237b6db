"""Held-out losses and the statistics of routing are what their definitions say."""

import math

import pytest
import torch

from training.batches import sequences
from training.evaluate import add_coactivation, evaluate, routing_statistics
from training.model import Decoder


def by_definition(model: Decoder, rows: torch.Tensor) -> float:
    """Mean loss of `rows`, a sequence and a token at a time, of the logits of all of them at once."""
    logits = model(rows[:, :-1]).logits.double().log_softmax(-1)
    total = -sum(logits[row, at, rows[row, at + 1]] for row in range(len(rows)) for at in range(rows.shape[1] - 1))
    return float(total) / (len(rows) * (rows.shape[1] - 1))


@pytest.mark.parametrize("max_batches", [None, 2])
def test_the_loss_is_the_mean_over_the_held_out_tokens(config, corpus, max_batches):
    torch.manual_seed(1)
    model = Decoder(config.model).eval()
    found = evaluate(model, corpus, 5, max_batches)
    for domain in corpus.domains:
        rows = torch.from_numpy(sequences(corpus.tokens[f"{domain}.held_out"], config.model.max_tokens).astype("int64"))
        assert len(rows) == 12  # so the third batch of 5 is a short one
        with torch.no_grad():
            expected = by_definition(model, rows if max_batches is None else rows[:10])
        # Means of float32 losses near 6 that were computed in batches of another size: 2^-20 of the value.
        assert found["losses"][domain] == pytest.approx(expected, rel=2**-20)


def test_coactivation_counts_the_tokens_that_chose_each_pair():
    generator = torch.Generator().manual_seed(1)
    choices = torch.rand(1000, 6, generator=generator).argsort(1)[:, :3]  # counts above 256, where bf16 rounds
    expected = torch.zeros(6, 6, dtype=torch.int64)
    for chosen in choices.tolist():
        for first in chosen:
            for second in chosen:
                expected[first, second] += 1
    counts = torch.zeros_like(expected)
    with torch.autocast("cpu", torch.bfloat16):  # as evaluation on a GPU is
        for part in choices.split(600):
            add_coactivation(counts, part)
    assert torch.equal(counts, expected)


def test_routing_statistics_of_a_worked_example():
    # Four tokens: {0, 1}, {0, 1}, {0, 2}, {1, 2}; expert 3 is never chosen and left out of the specialization.
    counts = torch.tensor([[[3, 2, 1, 0], [2, 3, 1, 0], [1, 1, 2, 0], [0, 0, 0, 0]]])
    found = routing_statistics(counts)
    assert found["expert_imbalance"] == [1.5] and found["least_load"] == [0.0] and found["unused_experts"] == [1]
    two_to_one = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)) / math.log(3)
    even = math.log(2) / math.log(3)
    assert found["specialization"] == [pytest.approx(1 - (2 * two_to_one + even) / 3)]
