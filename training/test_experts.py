"""Every way to compute experts gives what the definition gives, gradients included."""

import pytest
import torch

from training.experts import expert_mlp, loop, padded, torch_grouped


def expert_mlp_by_definition(x, topk_idx, topk_weights, gate_up, down):
    rows = []
    for token, (experts, weights) in enumerate(zip(topk_idx.tolist(), topk_weights)):
        out = 0.0
        for e, weight in zip(experts, weights):
            gate, up = (gate_up[e] @ x[token]).chunk(2)
            out = out + weight * (down[e] @ (torch.nn.functional.silu(gate) * up))
        rows.append(out)
    return torch.stack(rows)


def problem(num_tokens: int, num_experts: int, top_k: int, seed: int, dtype: torch.dtype):
    """Experts 0 and 1 are chosen twice as often, the last never."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(num_tokens, num_experts, generator=generator)
    scores[:, :2] *= 2
    scores[:, -1] = -1
    leaves = [
        torch.randn(*shape, generator=generator).to(dtype).requires_grad_()
        for shape in [(num_tokens, 16), (num_tokens, top_k), (num_experts, 48, 16), (num_experts, 16, 24)]
    ]
    return scores.topk(top_k).indices, leaves, torch.randn(num_tokens, 16, generator=generator)


def run(function, topk_idx, leaves, upstream, *matmul):
    """The output and the gradients of x, the weights, and both matrices."""
    for leaf in leaves:
        leaf.grad = None
    x, weights, gate_up, down = leaves
    out = function(x, topk_idx, weights, gate_up, down, *matmul)
    (out.float() * upstream).sum().backward()
    return [out.detach().float(), *(leaf.grad.float() for leaf in leaves)]


@pytest.mark.parametrize("matmul", [loop, padded])
@pytest.mark.parametrize("shape", [(1, 2, 1), (7, 4, 3), (40, 8, 2)])
def test_expert_mlp_is_its_definition(matmul, shape):
    topk_idx, leaves, upstream = problem(*shape, seed=sum(shape), dtype=torch.float64)
    expected = run(expert_mlp_by_definition, topk_idx, leaves, upstream)
    # The sum over top_k is in float32: top_k + 1 roundings of terms that stay below 2^10 here.
    tolerance = 2**10 * 4 * 2**-24
    for ours, theirs in zip(run(expert_mlp, topk_idx, leaves, upstream, matmul), expected):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def test_grouped_products_in_bf16_equal_the_loop():
    topk_idx, leaves, upstream = problem(40, 8, 2, seed=3, dtype=torch.bfloat16)
    expected = run(expert_mlp, topk_idx, leaves, upstream, loop)
    for matmul in padded, torch_grouped:
        for ours, theirs in zip(run(expert_mlp, topk_idx, leaves, upstream, matmul), expected):
            # Three bf16 roundings may each fall on the other side: 3 * 2^-8 of the largest value.
            torch.testing.assert_close(ours, theirs, rtol=0, atol=3 * 2**-8 * theirs.abs().max().item())
