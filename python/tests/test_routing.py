"""select, weigh, Policy and the balance losses."""

import pytest
import torch
from reference import choose

import c2r.torch as ct


def random_lists(num_experts: int, top_t: int, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        [o for o in torch.randperm(num_experts, generator=generator).tolist() if o != e][:top_t]
        for e in range(num_experts)
    ]


def test_a_worked_example_is_chosen_by_hand():
    # Expert 1 is best and lists 2 and 3, so expert 0 is out although it is second.
    logits = torch.tensor([[3.0, 4.0, 1.0, 2.0]])
    mask = ct.collaborator_mask([[1, 2], [2, 3], [0, 1], [0, 1]], 4)
    assert ct.select(logits, mask, 2).tolist() == [[1, 3]]
    assert ct.select(logits, None, 2).tolist() == [[1, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("seed", range(4))
def test_choices_are_the_references_token_by_token(dtype, seed):
    num_experts, top_k = 5 + 6 * seed, 1 + seed
    top_t = max(top_k - 1, 1) + seed
    lists = random_lists(num_experts, top_t, seed) if seed else None
    mask = None if lists is None else ct.collaborator_mask(lists, num_experts)
    # Few distinct values, zeros of both signs among them: most tokens have ties.
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-3, 4, (200, num_experts), generator=generator) * 0.5
    values = torch.where(values == 0, values * torch.randint(-1, 2, values.shape, generator=generator), values)
    logits = torch.cat([values, torch.randn(200, num_experts, generator=generator)]).to(dtype)
    chosen = ct.select(logits, mask, top_k)
    assert chosen.dtype == torch.int64
    assert chosen.tolist() == [choose(row, lists, top_k) for row in logits.tolist()]


def test_layers_with_lists_of_other_lengths_and_short_lists_are_filled_up_with_no_expert():
    lists = [[1, 2, -1], [-1, -1, -1], [0, 1, 3], [0, -1, 1]]
    mask = ct.collaborator_mask(lists, 4)
    assert mask.sum(1).tolist() == [3, 1, 4, 3]
    logits = torch.eye(4)[[0, 1, 2, 3]]
    chosen = ct.select(logits, mask, 3).tolist()
    assert chosen == [choose(row, lists, 3) for row in logits.tolist()]
    assert chosen[1] == [1, -1, -1]
    assert ct.collaborator_mask(lists, 4, top_t=1).sum(1).tolist() == [2, 1, 2, 2]


def test_a_logit_of_minus_infinity_forbids_an_expert():
    logits = torch.tensor([[-torch.inf, 1.0, -torch.inf]])
    assert ct.select(logits, None, 3).tolist() == [[1, -1, -1]]
    assert ct.weigh(logits, torch.tensor([[1, -1, -1]])).tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("scoring, norm", [("softmax", False), ("softmax", True), ("softmax-over-chosen", False)])
def test_weights_are_the_definition_and_their_gradient_is_checked(scoring, norm):
    logits = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    idx = ct.select(logits, ct.collaborator_mask([[1, 2], [0, 3], [4, -1], [1, 4], [3, 2]], 5), 3)
    idx[0, 2] = -1
    weights = ct.weigh(logits, idx, scoring, norm, scale=4.0)
    for row, chosen, got in zip(logits.detach(), idx.tolist(), weights):
        exps = row.exp()
        used = [exps[e] for e in chosen if e >= 0]
        total = exps.sum() if scoring == "softmax" and not norm else sum(used)
        expected = torch.tensor([4.0 * float(e / total) for e in used] + [0.0] * (3 - len(used)), dtype=torch.float64)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(lambda x: ct.weigh(x, idx, scoring, norm, 4.0), logits)


def test_selection_compiles_as_one_graph():
    mask = ct.collaborator_mask(random_lists(8, 4, 0), 8)

    def route(logits):
        idx = ct.select(logits, mask, 3)
        return idx, ct.weigh(logits, idx)

    logits = torch.randint(0, 3, (32, 8), generator=torch.Generator().manual_seed(0)).float()
    compiled = torch.compile(route, fullgraph=True, backend="aot_eager")(logits)
    for ours, expected in zip(compiled, route(logits)):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_balance_losses_are_of_the_real_choice():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(64, 6, generator=generator)
    policy = ct.Policy(6, 2, collaborators=[[1], [0], [3], [2], [5], [4]])
    idx = ct.select(logits, policy.mask(), 2)
    routing = ct.Routing(logits, idx, policy.weigh(logits, idx))
    probabilities = logits.softmax(-1)
    share = torch.tensor([(idx == e).sum() / idx.numel() for e in range(6)])
    torch.testing.assert_close(ct.switch_loss(routing), 6 * (share * probabilities.mean(0)).sum())
    free = routing._replace(topk_idx=ct.select(logits, None, 2))
    assert abs(float(ct.switch_loss(routing) - ct.switch_loss(free))) > 1e-3

    importance = torch.zeros(6)
    for row, weights in zip(idx.tolist(), routing.topk_weights):
        for expert, weight in zip(row, weights):
            importance[expert] += weight
    torch.testing.assert_close(ct.importance_loss(routing), importance.var() / importance.mean() ** 2)
    nothing = ct.Routing(torch.zeros(0, 6), torch.zeros(0, 2).long(), torch.zeros(0, 2))
    assert float(ct.switch_loss(nothing)) == 0 and float(ct.importance_loss(nothing)) == 0


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ct.collaborator_mask([[1], [2]], 2), r"^expert 1 lists expert 2, expected \[0, 1\]$"),
        (lambda: ct.collaborator_mask([[1], [1]], 2), "^expert 1 lists expert 1 itself$"),
        (lambda: ct.collaborator_mask([[1, 1], [0, -1]], 2), "^expert 0 lists expert 1 twice$"),
        (lambda: ct.collaborator_mask([[1], [0]], 3), r"^collaborator lists have shape \[2, 1\], expected \[3, T\]$"),
        (lambda: ct.collaborator_mask([[1], [0]], 2, 2), "^top_t is 2, but the collaborator lists have 1 entries$"),
        (
            lambda: ct.select(torch.zeros(1, 2), None, 3),
            r"^top_k is 3 and logits have 2 dimensions, expected top_k in ",
        ),
        (lambda: ct.select(torch.zeros(1, 2), torch.ones(2, 2), 1), r"^mask is torch.float32 \[2, 2\], expected bool"),
        (lambda: ct.Policy(4, 5), r"^top_k is 5, expected \[1, 4\]$"),
        (lambda: ct.Policy(4, 2, "tanh"), "^scoring is 'tanh', expected one of softmax, softmax-over-chosen$"),
        (lambda: ct.Policy(4, 2, top_t=1), "^top_t is 1, but there are no collaborator lists$"),
        (
            lambda: ct.Policy(3, 3, collaborators=[[1, 2], [0, -1], [0, 1]]),
            "^expert 1 has 1 collaborators, but top_k 3 needs 2$",
        ),
        (lambda: ct.weigh(torch.zeros(1, 2), torch.zeros(1, 1).long(), "x"), "^scoring is 'x', expected one of"),
    ],
)
def test_wrong_arguments_are_refused_with_their_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()
