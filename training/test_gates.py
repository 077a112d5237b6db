"""The balance losses are what their papers say."""

import torch

from training.gates import NoisyTanhGate, SoftmaxGate, best, cv_squared, load_probability, switch_balance_loss


def test_the_best_are_those_of_a_stable_sort_with_its_gradients():
    scores = torch.randint(0, 4, (50, 8), generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    values, index = best(scores, 3)
    expected = scores.detach().sort(dim=1, descending=True, stable=True)
    assert torch.equal(index, expected.indices[:, :3]) and torch.equal(values, expected.values[:, :3])
    values.sum().backward()
    assert torch.equal(scores.grad, torch.zeros(50, 8).double().scatter(1, index, 1.0))


def test_switch_balance_loss_is_one_if_balanced_and_worked_by_hand_if_not():
    even = torch.full((4, 4), 0.25)
    assert switch_balance_loss(even, torch.tensor([[0, 1], [2, 3], [0, 1], [2, 3]])).item() == 1.0
    # Choices fall half on 0, half on 1; mean probabilities are 0.5 and 0.25: 4 * (0.5 * 0.5 + 0.5 * 0.25).
    skewed = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).expand(3, 4)
    assert switch_balance_loss(skewed, torch.tensor([[0, 1]] * 3)).item() == 1.5


def test_cv_squared_is_variance_over_squared_mean():
    assert cv_squared(torch.full((8,), 3.0)).item() == 0.0
    torch.testing.assert_close(cv_squared(torch.tensor([1.0, 3.0])), torch.tensor(2.0 / 4.0))


def test_load_probability_is_the_chance_to_be_chosen_under_fresh_noise():
    generator = torch.Generator().manual_seed(1)
    logits, noise_std = torch.randn(1, 6, generator=generator), torch.rand(1, 6, generator=generator) + 0.5
    noisy = logits + torch.randn(1, 6, generator=generator) * noise_std
    num_draws = 20000
    for e in range(6):
        fresh = noisy.repeat(num_draws, 1)
        fresh[:, e] = logits[0, e] + torch.randn(num_draws, generator=generator) * noise_std[0, e]
        frequency = (fresh.topk(2).indices == e).any(1).float().mean()
        # Four standard deviations of a share of 20,000 draws are at most 4 * 0.5 / sqrt(20000) = 0.0142.
        assert abs(load_probability(logits, noisy, noise_std, 2)[0, e] - frequency) < 0.0142


def test_softmax_gate_keeps_the_probabilities_as_they_are():
    gate = SoftmaxGate(4, 3, 2)
    with torch.no_grad():
        gate.weight.copy_(torch.tensor([[0.0] * 4, [1.0] * 4, [2.0] * 4]))
    routing = gate(torch.full((1, 4), 0.25))
    assert routing.topk_idx.tolist() == [[2, 1]]
    torch.testing.assert_close(routing.topk_weights, torch.tensor([0.0, 1.0, 2.0]).softmax(0)[[2, 1]].unsqueeze(0))


def test_tanh_gate_is_noisy_only_while_training():
    torch.manual_seed(1)
    gate, x = NoisyTanhGate(8, 4, 2, 0.01), torch.randn(50, 8)
    assert not torch.equal(gate(x).topk_idx, gate(x).topk_idx)
    gate.eval()
    assert torch.equal(gate(x).topk_idx, gate(x).topk_idx)
    torch.testing.assert_close(gate(x).topk_weights.sum(1), torch.ones(50))


def test_the_loss_of_the_softmax_gate_is_of_its_own_probabilities_and_choices():
    torch.manual_seed(1)
    gate, x = SoftmaxGate(8, 5, 2), torch.randn(50, 8)
    probabilities, routing = (x @ gate.weight.T).softmax(1), gate(x)
    choices = torch.bincount(routing.topk_idx.flatten(), minlength=5) / 100
    torch.testing.assert_close(routing.balance_loss, 5 * (choices * probabilities.mean(0)).sum())


def test_the_loss_of_the_tanh_gate_is_of_importance_and_while_training_of_load():
    torch.manual_seed(1)
    gate, x = NoisyTanhGate(8, 5, 2, 0.01), torch.randn(50, 8)
    torch.nn.init.normal_(gate.weight_noise.weight)

    def importance(routing):
        return sum(torch.zeros(5).index_add(0, e, w) for e, w in zip(routing.topk_idx, routing.topk_weights))

    torch.manual_seed(2)
    routing = gate(x)
    torch.manual_seed(2)
    logits = gate.gate_network(x)
    noise_std = torch.nn.functional.softplus(gate.weight_noise(x)) + 0.01
    load = load_probability(logits, logits + torch.randn(50, 5) * noise_std, noise_std, 2).sum(0)
    torch.testing.assert_close(routing.balance_loss, cv_squared(importance(routing)) + cv_squared(load))
    routing = gate.eval()(x)
    torch.testing.assert_close(routing.balance_loss, cv_squared(importance(routing)))
