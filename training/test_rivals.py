"""Rules of routing that the experiment compares lists with, and its penalties, by worked examples."""

import math

import pytest
import torch
import transformers

from training.experiment import rivals

RANKS = torch.tensor([0, 0, 1, 1, 2, 2])
#                         rank 0      rank 1      rank 2
LOGITS = torch.tensor([[5.0, 0.0, 4.0, 1.0, 3.0, 2.0],
                       [0.0, 1.0, 2.0, 2.0, 9.0, -1.0]])  # fmt: skip


def test_device_limited_routing_keeps_the_ranks_of_the_best_experts():
    # Token 0 likes rank 0 (5) best, then rank 1 (4); token 1 rank 2 (9), then rank 1 (2, and 3 ties with 2).
    assert rivals.device_limited(LOGITS, RANKS, 1, 2).tolist() == [[0, 1], [4, 5]]
    assert rivals.device_limited(LOGITS, RANKS, 2, 3).tolist() == [[0, 2, 3], [4, 2, 3]]
    assert rivals.device_limited(LOGITS, RANKS, 3, 3).tolist() == [[0, 2, 4], [4, 2, 3]]


def test_group_balanced_routing_takes_as_many_of_every_rank():
    assert rivals.group_balanced(LOGITS, RANKS, 3).tolist() == [[0, 2, 4], [4, 2, 1]]
    with pytest.raises(ValueError, match="top-4 cannot be divided among 3 ranks"):
        rivals.group_balanced(LOGITS, RANKS, 4)


def test_batch_aware_routing_fills_up_with_what_the_batch_has():
    # Each token's best two are 0 and 2, and 4 and 2: the third comes from {0, 2, 4}.
    assert rivals.batch_aware(LOGITS, 2, 3).tolist() == [[0, 2, 4], [4, 2, 0]]
    # Best ones alone are 0 and 4, too few for three of a token: every expert is allowed.
    assert rivals.batch_aware(LOGITS, 1, 3).tolist() == [[0, 2, 4], [4, 2, 3]]


def test_the_outside_share_is_what_the_best_rank_leaves():
    logits = torch.log(torch.tensor([[0.5, 0.1, 0.2, 0.1, 0.05, 0.05], [0.1, 0.1, 0.1, 0.1, 0.3, 0.3]]))
    assert rivals.outside_share(logits, RANKS).item() == pytest.approx(((1 - 0.6) + (1 - 0.6)) / 2)


def test_the_divergence_is_kullback_and_leiblers():
    before, now = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert rivals.divergence(now, before).item() == pytest.approx(expected)
    assert rivals.divergence(now, now).item() == pytest.approx(0)


def small_model():
    torch.manual_seed(1)
    config = transformers.OlmoeConfig(
        vocab_size=31, hidden_size=16, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, num_experts=6,
        num_experts_per_tok=2, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config)


def test_a_rule_is_what_the_model_routes_by_and_can_be_taken_off():
    model, ids = small_model().eval(), torch.arange(2, 12).view(1, 10)
    seen = []
    free = model(ids).logits
    handles = rivals.apply_rules(model, [lambda logits: rivals.device_limited(logits, RANKS, 1, 2)] * 2)
    model.model.layers[1].mlp.gate.register_forward_hook(lambda module, inputs, output: seen.append(output[2]) or None)
    limited = model(ids).logits
    assert all(RANKS[a] == RANKS[b] for a, b in seen[0].tolist())
    assert not torch.equal(free, limited)
    for handle in handles:
        handle.remove()
    assert torch.equal(free, model(ids).logits)


def test_the_penalty_lowers_what_leaves_the_best_rank():
    """Steps against the penalty alone; with an anchor that outweighs it, the router moves less."""
    shares = []
    for anchor in (0.0, 10.0):
        model, ids = small_model().train(), torch.arange(2, 30).view(1, 28)
        penalty = rivals.RankPenalty(model, [RANKS, RANKS], strength=1.0, anchor=anchor)
        gates = [layer.mlp.gate.weight for layer in model.model.layers]
        optimizer = torch.optim.SGD(gates, lr=0.5)
        values = []
        for _ in range(20):
            logits = model(ids, output_router_logits=True).router_logits
            values.append(sum(rivals.outside_share(layer, RANKS).item() for layer in logits))
            loss = penalty(model, {})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        shares.append((values[0], values[-1]))
    assert shares[0][1] < shares[0][0] - 0.01
    assert shares[0][1] < shares[1][1] < shares[1][0] + 1e-3
