"""Gathers, sums in a fixed order, and their registration as operators."""

import pytest
import torch

from c2r.torch.rows import _pick, _sum, _take, _weighted_sum, pick, row_map, sum_rows, take_rows, weighted_sum_rows


def random_map(num_rows: int, num_sources: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    return row_map(torch.randint(0, num_sources, (num_rows,), generator=generator), num_sources)


@pytest.mark.parametrize("num_rows, num_sources", [(0, 0), (0, 3), (1, 1), (400, 7), (5, 30)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_sums_are_those_of_a_loop_in_ascending_order(num_rows, num_sources, dtype):
    rows = random_map(num_rows, num_sources, 1) if num_sources else row_map(torch.zeros(0).long(), 0)
    x = torch.randn(num_rows, 24, generator=torch.Generator().manual_seed(2)).to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    expected = torch.zeros(num_sources, 24, dtype=wide)
    for row, source in enumerate(rows.index.tolist()):
        expected[source] += x[row].to(wide)
    # Rounded once, by at most half a step of the type; on the CPU bfloat16 rounds halves away from zero.
    half_step = torch.finfo(dtype).eps / 2 if dtype != wide else 0
    torch.testing.assert_close(sum_rows(x, rows).to(wide), expected, rtol=half_step, atol=2**-25 * (dtype != wide))


@pytest.mark.parametrize("dtype, weight_dtype", [(torch.float64, torch.float64), (torch.float32, torch.float32),
                                                 (torch.bfloat16, torch.float32), (torch.float32, torch.float64)])  # fmt: skip
def test_weighted_sums_and_their_gradients_are_those_of_a_loop(dtype, weight_dtype):
    rows = random_map(40, 7, 1)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(40, 24, generator=generator).to(dtype).requires_grad_()
    weights = torch.rand(40, generator=generator).to(weight_dtype).requires_grad_()
    upstream = torch.randn(7, 24, generator=generator).to(dtype)
    x64, weights64 = (leaf.detach().double().requires_grad_() for leaf in (x, weights))
    expected = torch.stack(
        [sum(weights64[row] * x64[row] for row in range(40) if rows.index[row] == s) for s in range(7)]
    )
    out = weighted_sum_rows(x, weights, rows)
    expected.backward(upstream.double())
    out.backward(upstream)
    # At most 24 products of numbers below 5, added in the type of the weights; rounded once to that of x.
    epsilon = 24 * 25 * torch.finfo(weight_dtype).eps
    for ours, reference in ((out, expected), (x.grad, x64.grad), (weights.grad, weights64.grad)):
        rounding = torch.finfo(ours.dtype).eps
        torch.testing.assert_close(ours.double(), reference, rtol=rounding, atol=epsilon)


def test_gradients_equal_finite_differences():
    rows = random_map(6, 4, 3)
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4), requires_grad=True)
    y = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: take_rows(x, rows), x)
    assert torch.autograd.gradcheck(lambda y: sum_rows(y, rows), y)
    index, inverse = torch.tensor([[4, -1], [0, 2]]), torch.tensor([2, -1, 3, -1, 0])
    values = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(6), requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: pick(values, index, inverse), values)
    assert pick(torch.zeros(0, 3), torch.full((2, 1), -1), torch.zeros(0, 3).long()).tolist() == [[0.0], [0.0]]


def test_the_operators_are_registered_as_pytorch_wants_them():
    rows, x, y = random_map(6, 4, 3), torch.randn(4, 3, requires_grad=True), torch.randn(6, 3, requires_grad=True)
    torch.library.opcheck(_take, (x, *rows))
    torch.library.opcheck(_sum, (y, *rows))
    torch.library.opcheck(_weighted_sum, (y, torch.rand(6, requires_grad=True), *rows))
    torch.library.opcheck(_pick, (torch.randn(3, requires_grad=True), torch.tensor([2, -1]), torch.tensor([-1, -1, 0])))
