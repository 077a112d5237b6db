"""The layer: against one process, in chunks, under checkpointing and torch.compile."""

import functools

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from reference import moe as reference_moe
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

import c2r.torch as ct
from c2r.torch import deferred, exchange
from c2r.torch.deferred import DeferredExperts
from c2r.torch.experts import expert_mlp, grouped, loop

HIDDEN, INTERMEDIATE, NUM_EXPERTS = 8, 12, 8
LISTS = [[e ^ 1, e ^ 2, e ^ 4] for e in range(NUM_EXPERTS)]
POLICY = ct.Policy(NUM_EXPERTS, 3, norm_topk_prob=True, collaborators=LISTS)


def weights_of(dtype):
    """router, gate_up and down of all experts."""
    generator = torch.Generator().manual_seed(7)
    shapes = (NUM_EXPERTS, HIDDEN), (NUM_EXPERTS, 2 * INTERMEDIATE, HIDDEN), (NUM_EXPERTS, HIDDEN, INTERMEDIATE)
    return [torch.randn(shape, dtype=dtype, generator=generator) for shape in shapes]


def make_moe(dtype=torch.float64, copies="per-rank", num_chunks=1, placement=None):
    group = ct.make_groups(None, 2) if copies == "per-node" else None
    moe = ct.MoE(HIDDEN, INTERMEDIATE, POLICY, placement, group, copies, num_chunks, "layer 0").to(dtype)
    router, gate_up, down = weights_of(dtype)
    with torch.no_grad():
        for parameter, value in zip((moe.router, moe.gate_up, moe.down), (router, gate_up[moe.experts],
                                                                          down[moe.experts])):  # fmt: skip
            parameter.copy_(value)
    return moe


def tokens_of(rank: int, num_tokens: int, dtype=torch.float64):
    return torch.randn(num_tokens, HIDDEN, dtype=dtype, generator=torch.Generator().manual_seed(rank))


def one_process(x):
    """Output and gradients of x, router, gate_up and down, for the loss sum(out^2) + 3 switch_loss a rank."""
    leaves = [leaf.requires_grad_() for leaf in (x, *weights_of(x.dtype))]
    logits = leaves[0] @ leaves[1].T
    idx = ct.select(logits, POLICY.mask(), POLICY.top_k)
    out = reference_moe(leaves[0], idx, POLICY.weigh(logits, idx), *leaves[2:])
    out.square().sum().backward()
    return out.detach(), [leaf.grad for leaf in leaves]


def layer(rank, num_tokens, copies, num_chunks, placement):
    moe = make_moe(torch.float64, copies, num_chunks, placement)
    x = tokens_of(rank, num_tokens[rank]).requires_grad_()
    out, routing = moe(x)
    assert routing.topk_idx.shape == (num_tokens[rank], 3)
    out.square().sum().backward()
    dist.all_reduce(moe.router.grad)
    expected, (dx, drouter, dgate_up, ddown) = one_process(torch.cat([tokens_of(r, n) for r, n in
                                                                      enumerate(num_tokens)]))  # fmt: skip
    own = slice(sum(num_tokens[:rank]), sum(num_tokens[: rank + 1]))
    # Sums of at most 200 products of numbers below 1e4, in float64.
    close = functools.partial(torch.testing.assert_close, rtol=1e-10, atol=1e-9)
    close(out.detach(), expected[own])
    close(x.grad, dx[own])
    close(moe.router.grad, drouter)
    close(moe.gate_up.grad, dgate_up[moe.experts])
    close(moe.down.grad, ddown[moe.experts])
    assert not exchange._PENDING


@pytest.mark.parametrize(
    "num_tokens, copies, num_chunks, placement",
    [
        ([10], "per-rank", 1, None),
        ([10, 13], "per-rank", 3, [1, 0, 0, 1, 1, 0, 1, 0]),
        ([2, 9], "per-expert", 4, None),  # chunks without tokens
        ([5, 0, 4, 7], "per-node", 2, [3, 2, 1, 0, 3, 2, 1, 0]),
    ],
)
def test_the_layer_and_its_gradients_equal_one_process(num_tokens, copies, num_chunks, placement):
    run_ranks(len(num_tokens), layer, num_tokens, copies, num_chunks, placement)


def order_of_exchanges(rank, copies):
    """Rows of the next chunk are on their way before a chunk is computed, forward and backward."""
    events = []
    moe, x = make_moe(copies=copies, num_chunks=3), tokens_of(rank, 9).requires_grad_()

    begin, make_compute = exchange._begin, moe._make_compute

    def noted(*arguments):
        events.append(f"start {arguments[-1]}")
        return begin(*arguments)

    class Mark(torch.autograd.Function):
        @staticmethod
        def forward(ctx, rows):
            return rows.clone()

        @staticmethod
        def backward(ctx, gradient):
            events.append("compute_backward")
            return gradient

    def make_marked():
        compute = make_compute()

        def marked(rows, *rest):
            events.append("compute")
            return compute(Mark.apply(rows), *rest)

        return marked

    weight_gradient = deferred._weight_gradient

    def counted(*arguments):
        events.append(f"weights with {len(exchange._PENDING)} exchanges on their way")
        return weight_gradient(*arguments)

    moe._make_compute, exchange._begin, deferred._weight_gradient = make_marked, noted, counted
    moe(x)[0].sum().backward()
    exchange._begin, deferred._weight_gradient = begin, weight_gradient
    return [event for event in events if "metadata" not in event]


def test_the_next_chunk_travels_while_one_is_computed_in_both_directions():
    forward = ["start dispatch", "start dispatch", "compute", "start combine", "start dispatch", "compute",
               "start combine", "compute", "start combine"]  # fmt: skip
    backward = ["start combine_backward"] * 3 + ["compute_backward", "start dispatch_backward"] * 3
    # Rows and labels of the last two chunks: nobody waits for them before the matrices' gradients are made, at once for
    # all chunks.
    backward += ["weights with 4 exchanges on their way"] * 2
    for events in run_ranks(2, order_of_exchanges, "per-rank"):
        assert events == forward + backward


def test_relays_forward_one_chunk_while_another_is_computed():
    dispatch, combine = "start dispatch", "start combine"
    # Before chunk 0 is computed, all three have set off, and 0 and 1 have been forwarded. Each sum is forwarded when
    # the next chunk has been computed.
    forward = [dispatch] * 5 + ["compute", combine, dispatch, "compute", combine, combine, "compute"] + [combine] * 3
    # Likewise: three gradients set off, 2 and 1 are forwarded before 2 is computed.
    backward = [combine] * 5 + ["compute", dispatch, combine, "compute", dispatch, dispatch, "compute"] + [dispatch] * 3
    for events in run_ranks(2, order_of_exchanges, "per-node"):
        events = [event for event in events if not event.startswith("weights")]
        assert events == forward + [f"{event}_backward" for event in backward]


def run_and_count(run, x, moe):
    """[output, gradients of x and of parameters], and the rows that this rank sends, by step."""
    for leaf in (x, *moe.parameters()):
        leaf.grad = None
    ct.reset_traffic()
    out = run(x)
    out.square().sum().backward()
    rows = {}
    for sent in ct.traffic():
        rows[sent.step] = rows.get(sent.step, 0) + sent.num_rows
    return [out.detach(), *(leaf.grad for leaf in (x, *moe.parameters()))], rows


def checkpointed(rank, num_chunks):
    """The routing of a recomputation is that of the forward pass, although its router decides otherwise."""
    moe, x = make_moe(num_chunks=num_chunks), tokens_of(rank, 11).requires_grad_()
    decide = moe._decide
    calls = []

    def other_each_time(logits):
        calls.append(1)
        return decide(-logits if rank == 0 and len(calls) % 2 == 0 else logits)

    def plain(x):
        return moe(moe(x)[0])[0].sin()

    def in_one(x):
        return checkpoint(plain, x, use_reentrant=False, context_fn=ct.reuse_routing)

    def each(x):  # the first layer is recomputed after the second
        for _ in range(2):
            x = checkpoint(lambda x: moe(x)[0], x, use_reentrant=False, context_fn=ct.reuse_routing)
        return x.sin()

    moe._decide = other_each_time
    expected, once = run_and_count(plain, x, moe)
    for run in (in_one, each):
        ours, rows = run_and_count(run, x, moe)
        assert all(torch.equal(*pair) for pair in zip(ours, expected))
        assert rows["dispatch"] == 2 * once["dispatch"] and rows["counts"] == once["counts"]
        if run is each and num_chunks == 1:  # the sums need not come back again
            assert rows["combine"] == once["combine"]
    assert len(calls) == 6  # two in each forward pass, none in a recomputation
    del ours, expected
    plain(x)
    assert not exchange._PENDING  # what a recomputation left behind has been forgotten


@pytest.mark.parametrize("num_chunks", [1, 2])
def test_checkpointing_reuses_the_routing(num_chunks):
    run_ranks(2, checkpointed, num_chunks)


def forgotten(rank):
    moe, x = make_moe(), tokens_of(rank, 4).requires_grad_()
    out = checkpoint(lambda x: moe(x)[0], x, use_reentrant=False)
    with pytest.raises(RuntimeError, match="pass use_reentrant=False and context_fn=c2r.torch.reuse_routing"):
        out.sum().backward()


def test_checkpointing_without_reuse_is_refused():
    run_ranks(2, forgotten)


def selective(rank):
    """A policy that saves what exchanges return: nothing is sent again."""
    moe, x = make_moe(num_chunks=2), tokens_of(rank, 7).requires_grad_()

    def policy(context, operator, *arguments, **options):
        return CheckpointPolicy.MUST_SAVE if operator in ct.EXCHANGES else CheckpointPolicy.PREFER_RECOMPUTE

    def context_fn():
        return ct.reuse_routing(create_selective_checkpoint_contexts(policy))

    def run(x):
        return checkpoint(lambda x: moe(x)[0], x, use_reentrant=False, context_fn=context_fn)

    expected, once = run_and_count(lambda x: moe(x)[0], x, moe)
    ours, rows = run_and_count(run, x, moe)
    assert rows == once
    assert all(torch.equal(*pair) for pair in zip(ours, expected))


def test_selective_checkpointing_sees_the_exchanges():
    run_ranks(2, selective)


def compiled(rank):
    torch._dynamo.config.capture_scalar_outputs = True
    moe = make_moe(torch.float32)
    run = torch.compile(lambda x: moe(x)[0], fullgraph=True, dynamic=True, backend="aot_eager")
    for num_tokens in (6, 9):
        x = tokens_of(rank, num_tokens, torch.float32).requires_grad_()
        expected, once = run_and_count(lambda x: moe(x)[0], x, moe)
        ours, rows = run_and_count(run, x, moe)
        assert rows == once
        for pair in zip(ours, expected):
            torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-4)


def test_the_layer_compiles_as_one_graph():
    run_ranks(2, compiled)


def saved(rank):
    """What is saved under one placement is loaded under another, and is what one process holds."""
    x = tokens_of(rank, 5)
    moe = make_moe(placement=[0, 1, 1, 0, 1, 0, 0, 1])
    state = moe.full_state_dict()
    for ours, expected in zip((state["router"], state["gate_up"], state["down"]), weights_of(torch.float64)):
        assert torch.equal(ours, expected)
    other = ct.MoE(HIDDEN, INTERMEDIATE, POLICY).double()
    other.load_full_state_dict(state)
    torch.testing.assert_close(other(x)[0], moe(x)[0], rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="^the state has gate_up, expected down, gate_up, router$"):
        other.load_full_state_dict({"gate_up": state["gate_up"]})
    with pytest.raises(ValueError, match=r"^gate_up has shape \[4, 24, 8\], expected \[8, 24, 8\]$"):
        other.load_full_state_dict({**state, "gate_up": state["gate_up"][:4]})


def test_a_full_state_dict_has_every_expert_under_any_placement():
    run_ranks(2, saved)


def one_rank_is_hot(rank):
    """All tokens of all ranks choose the two experts of rank 0."""
    moe = ct.MoE(HIDDEN, INTERMEDIATE, ct.Policy(8, 2), num_chunks=2)
    with torch.no_grad():
        moe.router.zero_()[:2] = 1
    x = torch.rand(300, HIDDEN, generator=torch.Generator().manual_seed(rank)).requires_grad_()
    out, routing = moe(x)
    assert routing.topk_idx.tolist() == [[0, 1]] * 300
    out.sum().backward()
    assert float(moe.gate_up.grad.abs().max() if rank == 0 else 1 - moe.gate_up.grad.abs().max()) > 0


def test_one_hot_rank_does_not_hang():
    run_ranks(4, one_rank_is_hot)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2**-6)])
def test_grouped_products_equal_the_loop(dtype, tolerance):
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(20, 16, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(4, 8, 16, generator=generator).to(dtype).requires_grad_()
    ends, upstream = torch.tensor([7, 7, 12, 20], dtype=torch.int32), torch.randn(20, 8).to(dtype)
    results = []
    for matmul in (grouped, loop):
        rows.grad = weight.grad = None
        out = matmul(rows, weight, ends)
        out.backward(upstream)
        results.append((out.detach(), rows.grad, weight.grad))
    for ours, reference in zip(*results):  # at most 16 products, float32 sums rounded once
        torch.testing.assert_close(ours, reference, rtol=tolerance, atol=tolerance * 4)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2**-6)])
@pytest.mark.parametrize("num_rows", [[9], [5, 0, 7], [0, 0]])
def test_deferred_experts_have_the_outputs_and_gradients_of_autograd(dtype, tolerance, num_rows):
    generator = torch.Generator().manual_seed(2)
    matrices = [matrix.to(dtype).requires_grad_() for matrix in weights_of(torch.float64)[1:]]
    chunks = []
    for count in num_rows:
        idx = torch.rand(count, NUM_EXPERTS, generator=generator).argsort(-1)[:, :3]
        idx[torch.rand(idx.shape, generator=generator) < 0.3] = -1
        rows, weights = torch.randn(count, HIDDEN, generator=generator), torch.rand(count, 3, generator=generator)
        chunks.append((rows.to(dtype), idx.short(), weights * (idx >= 0), int((idx >= 0).sum())))
    results = []
    for experts in (DeferredExperts(*matrices), functools.partial(expert_mlp, gate_up=matrices[0], down=matrices[1])):
        leaves = [*matrices, *(leaf.requires_grad_() for rows, _, weights, _ in chunks for leaf in (rows, weights))]
        for leaf in leaves:
            leaf.grad = None
        out = torch.cat([experts(*chunk) for chunk in chunks])
        (out * out.detach().cos()).sum().backward()
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, reference in zip(*results):  # of bfloat16, autograd also rounds between chunks
        scale = float(reference.abs().max()) if reference.numel() else 0.0
        torch.testing.assert_close(ours, reference, rtol=tolerance, atol=tolerance * (scale + 1))


def test_experts_of_no_rows_give_no_rows_and_zero_gradients():
    gate_up, down = (matrix.float().requires_grad_() for matrix in weights_of(torch.float64)[1:])
    out = expert_mlp(torch.zeros(0, HIDDEN), torch.zeros(0, 2).short(), torch.zeros(0, 2), 0, gate_up, down)
    out.sum().backward()
    assert out.shape == (0, HIDDEN) and not gate_up.grad.any() and not down.grad.any()


def refused(rank):
    for arguments, message in (
        ((8, 8, POLICY, [0, 1]), "^the placement is for 2 experts, but the policy has 8$"),
        ((8, 8, POLICY, None, None, "x"), "^copies is 'x', expected one of per-rank, per-expert, per-node$"),
        ((8, 8, POLICY, None, None, "per-rank", 0), "^num_chunks is 0, expected at least 1$"),
        ((8, 8, POLICY, [0] * 5 + [1] * 3), "^rank 0 has 5 experts and rank 1 has 3; every rank must have as many$"),
    ):
        with pytest.raises(ValueError, match=message):
            ct.MoE(*arguments)


def test_wrong_arguments_are_refused_with_their_values():
    run_ranks(2, refused)


def narrow(rank):
    """bfloat16 as it is trained: within a few roundings of the layer in float64 on the same rounded numbers."""
    moe, x = make_moe(torch.bfloat16, num_chunks=2), tokens_of(rank, 12, torch.bfloat16).requires_grad_()
    out, routing = moe(x)
    assert out.dtype == torch.bfloat16 and routing.topk_weights.dtype == torch.float32
    out.float().square().sum().backward()
    wide = make_moe(torch.float64)
    wide.load_full_state_dict(moe.full_state_dict())
    wide._decide = lambda logits: ct.make_handles(routing.topk_idx, wide.placement, wide.groups)
    x64 = x.detach().double().requires_grad_()
    expected = wide(x64)[0]
    expected.square().sum().backward()
    # Logits, two products, an activation, two sums and the way there and back: some ten roundings by 2^-9 each, and
    # logits up to 20 make weights off by 20 of them.
    for ours, reference in ((out, expected), (x.grad, x64.grad), (moe.down.grad, wide.down.grad)):
        error = (ours.double() - reference).norm() / reference.norm()
        assert error < 30 * 2**-9, error


def test_bfloat16_is_within_its_roundings_of_float64():
    run_ranks(2, narrow)
