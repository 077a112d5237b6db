"""make_handle, dispatch, combine and their gradients on 1 to 4 ranks."""

import functools

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from reference import copies_to, moe

import c2r.torch as ct
from c2r.torch.experts import expert_mlp

HIDDEN, INTERMEDIATE = 8, 6


def tokens_of(rank: int, num_tokens: int, num_experts: int, top_k: int, routing: str):
    """A rank's x, topk_idx and topk_weights, different on each rank, the same on each call."""
    generator = torch.Generator().manual_seed(100 + rank)
    x = torch.randn(num_tokens, HIDDEN, dtype=torch.float64, generator=generator)
    order = torch.rand(num_tokens, num_experts, generator=generator).argsort(-1)
    idx = order[:, :top_k].clone()
    if routing == "hot":  # every token chooses expert 0, most of them nothing else
        idx = torch.where(idx < 2, idx, -1)
        idx[:, 0] = 0
        idx[:, 1:][idx[:, 1:] == 0] = -1
    if routing == "holes":
        idx[torch.rand(idx.shape, generator=generator) < 0.4] = -1
    weights = torch.rand(num_tokens, top_k, dtype=torch.float64, generator=generator)
    return x, idx, weights


def experts(num_experts: int):
    generator = torch.Generator().manual_seed(7)
    gate_up = torch.randn(num_experts, 2 * INTERMEDIATE, HIDDEN, dtype=torch.float64, generator=generator)
    return gate_up, torch.randn(num_experts, HIDDEN, INTERMEDIATE, dtype=torch.float64, generator=generator)


def make_group(copies: str, ranks_per_node: int):
    return ct.make_groups(None, ranks_per_node) if copies == "per-node" else None


def naive(num_tokens, num_experts, top_k, routing):
    """Outputs and gradients of all ranks, by one process. The loss is loss_of()."""
    batches = [tokens_of(rank, n, num_experts, top_k, routing) for rank, n in enumerate(num_tokens)]
    x, idx, weights = (torch.cat(parts) for parts in zip(*batches))
    leaves = [leaf.requires_grad_() for leaf in (x, weights, *experts(num_experts))]
    out = moe(leaves[0], idx, *leaves[1:])
    loss_of(out).backward()
    return out.detach(), [leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in leaves]


def loss_of(out):
    return (out * (1 + out.detach().cos())).sum()  # upstream gradients that differ everywhere


def layer(rank, num_tokens, placement, num_experts, top_k, routing, copies, ranks_per_node):
    """This rank's output, and whatever differs from the layer in one process."""
    x, idx, weights = tokens_of(rank, num_tokens[rank], num_experts, top_k, routing)
    mine = [e for e, owner in enumerate(placement) if owner == rank]
    leaves = [leaf.requires_grad_() for leaf in (x, weights, *(matrix[mine] for matrix in experts(num_experts)))]
    handle = ct.make_handle(idx, placement, make_group(copies, ranks_per_node), copies, "layer 0")
    ct.reset_traffic()
    rows, local_idx, row_weights = ct.dispatch(leaves[0], leaves[1], handle)
    assert len(rows) == handle.num_rows and int((local_idx >= 0).sum()) == handle.num_pairs
    out = ct.combine(expert_mlp(rows, local_idx, row_weights, handle.num_pairs, *leaves[2:]), handle)
    loss_of(out).backward()

    expected, (dx, dweights, dgate_up, ddown) = naive(num_tokens, num_experts, top_k, routing)
    own = slice(sum(num_tokens[:rank]), sum(num_tokens[: rank + 1]))
    # Sums of at most 100 products of numbers of about 10, in float64: 1e-12 is thousands of roundings.
    close = functools.partial(torch.testing.assert_close, rtol=1e-11, atol=1e-11)
    close(out.detach(), expected[own])
    close(leaves[0].grad, dx[own])
    close(leaves[1].grad, dweights[own] * (idx >= 0))
    close(leaves[2].grad, dgate_up[mine])
    close(leaves[3].grad, ddown[mine])
    return {(sent.step, sent.peer): (sent.num_rows, sent.num_bytes) for sent in ct.traffic()}


def check(num_tokens, placement, top_k, routing, copies, ranks_per_node=1):
    """Runs layer() on every rank and compares what was sent with a count by definition."""
    num_experts = len(placement)
    counted = run_ranks(len(num_tokens), layer, num_tokens, placement, num_experts, top_k, routing, copies,
                        ranks_per_node)  # fmt: skip
    expected = {}
    for home, n in enumerate(num_tokens):
        idx = tokens_of(home, n, num_experts, top_k, routing)[1]
        for pair, rows in copies_to(idx, placement, home, copies, ranks_per_node).items():
            expected[pair] = expected.get(pair, 0) + rows
    width = 1 if copies == "per-expert" else top_k
    for src in range(len(num_tokens)):
        for dst in range(len(num_tokens)):
            there, back = expected.get((src, dst), 0), expected.get((dst, src), 0)
            for step, rows in (("dispatch", there), ("combine_backward", there), ("combine", back),
                               ("dispatch_backward", back)):  # fmt: skip
                assert counted[src].get((step, dst), (0, 0)) == (rows, rows * HIDDEN * 8), (src, dst, step)
            is_to_relay = copies == "per-node" and src // ranks_per_node != dst // ranks_per_node
            label_bytes = 8 * width + (0 if is_to_relay else 8 * -(-width // 4))  # float64 weights
            assert counted[src].get(("metadata", dst), (0, 0)) == (there, there * label_bytes)
            assert counted[src].get(("metadata_backward", dst), (0, 0)) == (back, back * 8 * width)


@pytest.mark.parametrize("copies", ["per-rank", "per-expert"])
@pytest.mark.parametrize(
    "num_tokens, placement, top_k, routing",
    [
        ([9], [0, 0, 0], 2, "random"),
        ([7, 12], [0, 1, 1, 0, 1, 0], 3, "random"),  # any placement
        ([0, 11, 5], [2, 0, 1, 2, 0, 1], 4, "holes"),  # a rank without tokens, tokens without experts
        ([6, 0, 3, 4], [3, 3, 2, 2, 1, 1, 0, 0], 2, "hot"),  # one hot expert; ranks 0 to 2 get little or nothing
        ([0, 0], [0, 1], 1, "random"),  # nobody has tokens
        ([1, 1], [1, 0], 2, "random"),
    ],
)
def test_the_layer_equals_one_process_and_sends_what_is_counted_by_definition(
    num_tokens, placement, top_k, routing, copies
):
    check(num_tokens, placement, top_k, routing, copies)


@pytest.mark.parametrize(
    "num_tokens, placement, top_k, routing, ranks_per_node",
    [
        ([6, 0, 9, 5], [0, 1, 2, 3, 0, 1, 2, 3], 4, "random", 2),
        ([3, 4, 0, 5], [3, 3, 2, 2, 1, 1, 0, 0], 3, "holes", 2),
        ([4, 5, 6, 0], [0, 0, 1, 1, 2, 2, 3, 3], 2, "hot", 2),
        ([5, 6], [0, 1, 0, 1], 2, "random", 2),  # one node
        ([5, 6], [0, 1, 0, 1], 2, "random", 1),  # nodes of one rank
    ],
)
def test_per_node_sends_once_to_each_node(num_tokens, placement, top_k, routing, ranks_per_node):
    check(num_tokens, placement, top_k, routing, "per-node", ranks_per_node)


def gradients_by_differences(rank, copies):
    _, idx, weights = tokens_of(rank, 3, 4, 2, "holes")
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(rank)).requires_grad_()
    handle = ct.make_handle(idx, [0, 1, 1, 0], make_group(copies, 2), copies)

    def function(x, weights):
        rows, local_idx, row_weights = ct.dispatch(x, weights, handle)
        # Local slots matter, so that a mix-up of weights is found.
        factors = (row_weights * (local_idx + 2)).sum(1, keepdim=True)
        return ct.combine(rows.sin() * factors, handle)

    assert torch.autograd.gradcheck(function, (x, weights.requires_grad_()))


@pytest.mark.parametrize("copies", ["per-rank", "per-expert", "per-node"])
def test_gradients_equal_finite_differences(copies):
    run_ranks(2, gradients_by_differences, copies)


def narrow_types(rank, dtype):
    """Row bits move unchanged, and sums in bf16 are rounded once."""
    x = (torch.arange(4 * HIDDEN).view(4, HIDDEN) + 100 * rank).to(dtype)
    idx = torch.tensor([[0, 1], [1, 0], [1, -1], [-1, -1]])
    weights = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]])
    handle = ct.make_handle(idx, [0, 1])
    rows, local_idx, row_weights = ct.dispatch(x, weights, handle)
    assert rows.dtype == dtype and local_idx.dtype == torch.int16 and row_weights.dtype == torch.float32
    tokens = [(src, t, k) for src in range(2) for t, k in ((0, rank), (1, 1 - rank), *(((2, 0),) if rank else ()))]
    for row, (src, t, k) in enumerate(tokens):
        assert torch.equal(rows[row], (torch.arange(HIDDEN) + t * HIDDEN + 100 * src).to(dtype))
        assert local_idx[row].tolist() == [0 if choice == k else -1 for choice in range(2)]
        assert row_weights[row].tolist() == [float(weights[t, k]) if choice == k else 0.0 for choice in range(2)]
    back = ct.combine(torch.full_like(rows, 1 + 2**-7 if rank else 2**-8), handle)
    assert torch.equal(back[:2].float(), torch.full((2, HIDDEN), 1 + 2**-7 + 2**-8).to(dtype).float())
    assert torch.equal(back[3], torch.zeros(HIDDEN, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_of_every_type_arrive_bit_for_bit(dtype):
    run_ranks(2, narrow_types, dtype)


def same_bits(rank):
    results = []
    for _ in range(3):
        x, idx, weights = tokens_of(rank, 40, 8, 4, "random")
        x, weights = x.float().requires_grad_(), weights.float().requires_grad_()
        handle = ct.make_handle(idx, [0, 1, 0, 1, 0, 1, 0, 1])
        rows, _, row_weights = ct.dispatch(x, weights, handle)
        out = ct.combine(rows * row_weights.sum(1, keepdim=True), handle)
        out.square().sum().backward()
        results.append((out.detach(), x.grad, weights.grad))
    for again in results[1:]:
        assert all(torch.equal(ours, first) for ours, first in zip(again, results[0]))


def test_every_run_gives_the_same_bits():
    run_ranks(2, same_bits)


def refusals(rank):
    idx = torch.tensor([[0, 1]])

    def says(message, function, *arguments):
        with pytest.raises(ValueError, match=message):
            function(*arguments)

    says("^rank_of_expert has shape .*replicas of an expert cannot be trained", ct.make_handle, idx, [[0, 1], [1, 0]])
    says("^rank 0 has 2 experts and rank 1 has 1; every rank must have as many$", ct.make_handle, idx, [0, 1, 0])
    says(r"^expert 1 is on rank 2, expected \[0, 1\]$", ct.make_handle, idx, [0, 2])
    says("^copies is 'x', expected one of per-rank, per-expert, per-node$", ct.make_handle, idx, [0, 1], None, "x")
    says("^copies is 'per-node', but the ranks of a node are", ct.make_handle, idx, [0, 1], None, "per-node")
    says(r"^topk_idx is torch.float32 \[2\], expected integers", ct.make_handle, torch.zeros(2), [0, 1])
    says(r"^topk_idx names expert 2, expected \[0, 1\], or -1 for none$", ct.make_handle, idx + 1, [0, 1])
    says("^2 ranks cannot be split into nodes of 3$", ct.make_groups, None, 3)
    says("^3 experts cannot be split evenly over 2 ranks$", ct.contiguous, 3, 2)
    says("^expert 0 is on rank 0 and on rank 1; replicas cannot be trained", ct.rank_of_expert, [[0, 1], [0, 1]], 2)
    says("^no rank holds expert 1$", ct.rank_of_expert, [[0], []], 2)
    handle = ct.make_handle(idx, [0, 1])
    says(r"^x has shape \[2, 3\], but the handle is for \[1, hidden\]$", ct.dispatch, torch.zeros(2, 3), None, handle)
    says(r"^topk_weights have shape \[1, 3\], but the handle is for \[1, 2\]$", ct.dispatch, torch.zeros(1, 3),
         torch.zeros(1, 3), handle)  # fmt: skip
    dist.barrier()


def test_wrong_arguments_are_refused_with_their_values():
    run_ranks(2, refusals)
