"""c2r's own kernels beside PyTorch's, operator by operator: their bodies on the host, and on a GPU where there is one."""

import collections

import pytest
import torch

import c2r.torch as ct
from c2r.torch import experts, kernels, routing, rows

_c2r = pytest.importorskip("c2r._c2r", reason="pip install . builds the extension module")
TYPES = [torch.float32, torch.bfloat16, torch.float16]


class Counted:
    """An extension module that counts what is used of it."""

    def __init__(self, module):
        self.module, self.calls = module, collections.Counter()

    def __getattr__(self, name):
        self.calls[name] += 1
        return getattr(self.module, name)


class Run:
    """The kernels that a test runs, and where."""

    def __init__(self, device, module, why_not):
        self.device, self.module = torch.device(device), Counted(module)
        kernels.Kernels(self.module, why_not).register(device)

    def take_calls(self):
        calls, self.module.calls = dict(self.module.calls), collections.Counter()
        return calls


WHY_NOT_CUDA = ct.why_no_kernels()


@pytest.fixture(params=["cpu", "cuda"] if WHY_NOT_CUDA is None else ["cpu"])
def run(request):
    if request.param == "cuda":
        yield Run("cuda", kernels._c2r_cuda, kernels._why_not)
        kernels.Kernels(kernels._c2r_cuda, kernels._why_not).register("cuda")
        return
    reasons = []
    yield Run("cpu", _c2r, lambda device: reasons[0] if reasons else None)
    # A kernel stays registered: from here on it leaves everything to PyTorch.
    reasons.append("the test is over")
    routing._devices_with_kernel.remove("cpu")


def test_the_tests_of_this_file_run_on_a_gpu():
    if WHY_NOT_CUDA is not None:
        pytest.skip(f"the kernels do not run on a GPU here: {WHY_NOT_CUDA}")
    assert "cuda" in routing._devices_with_kernel


def random_mask(num_experts, generator):
    """A mask in which some experts have fewer collaborators than a token may need."""
    mask = torch.rand(num_experts, num_experts, generator=generator) < 0.3
    return mask | torch.eye(num_experts, dtype=torch.bool)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("num_experts, top_k", [(1, 1), (8, 2), (33, 4), (60, 4), (128, 16), (512, 16)])
def test_choices_are_those_of_pytorchs_kernels(run, dtype, num_experts, top_k):
    generator = torch.Generator().manual_seed(num_experts)
    tied = torch.randint(-3, 4, (50, num_experts), generator=generator) * 0.5
    tied[10:20] = torch.where(tied[10:20] == 0, -0.0, tied[10:20])
    tied[20:30] = torch.where(tied[20:30] < 0, -torch.inf, tied[20:30])
    tied[30:40] = 0
    tied[30:40, num_experts // 2] = 1  # one hot expert
    logits = torch.cat([tied, torch.randn(50, num_experts, generator=generator)]).to(run.device, dtype)
    for mask in (None, random_mask(num_experts, generator).to(run.device)):
        for used in (logits, logits[:1], logits.T.contiguous().T):
            run.take_calls()
            chosen = ct.select(used, mask, top_k)
            assert run.take_calls() == {"_choose": 1}
            assert torch.equal(chosen, routing._select_by_torch(used, mask, top_k))
        assert ct.select(logits[:0], mask, top_k).shape == (0, top_k)


# Each source's rows: few and many, none, and all of one hot source.
SOURCES = {"random": [40, 7], "one": [1, 1], "sparse": [5, 30], "hot": [300, 4]}


def random_rows(case, width, dtype, device):
    num_rows, num_sources = SOURCES[case]
    generator = torch.Generator().manual_seed(width)
    index = torch.randint(0, num_sources, (num_rows,), generator=generator)
    of = rows.row_map(torch.full_like(index, 2) if case == "hot" else index, num_sources)
    x = torch.randn(num_rows, width, generator=generator).to(dtype)
    weights = torch.rand(num_rows, generator=generator)
    upstream = torch.randn(num_sources, width, generator=generator).to(dtype)
    return rows.RowMap(*(part.to(device) for part in of)), x.to(device), weights.to(device), upstream.to(device)


def loop(x, weights, of):
    """The sums in the order of rows, each product and each addition rounded to float32."""
    sums = torch.zeros(len(of.offsets) - 1, x.shape[1])
    for row in of.order.tolist():
        sums[of.index[row]] += weights[row].cpu() * x[row].float().cpu()
    return sums.to(x.dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [1, 37, 264])
@pytest.mark.parametrize("case", SOURCES)
def test_sums_have_the_bits_of_a_loop_and_are_those_of_pytorchs_kernels(run, case, width, dtype):
    of, x, weights, upstream = random_rows(case, width, dtype, run.device)
    run.take_calls()
    plain, weighted = rows.sum_rows(x, of), rows.weighted_sum_rows(x, weights, of)
    gradient_x, gradient_weights = rows._weighted_sum_backward(upstream, x, weights, of.index)
    assert run.take_calls() == {"_sum_by_source": 2, "_sum_by_source_gradients": 1}
    assert torch.equal(plain.cpu(), loop(x, torch.ones_like(weights), of))
    assert torch.equal(weighted.cpu(), loop(x, weights, of))

    # PyTorch may fuse a product with its addition, and on the CPU rounds halves of bfloat16 away from zero. Each of
    # `count` additions and products is off by 2^-24 of what has been summed, in ours and in theirs; then each rounds.
    count = int(torch.diff(of.offsets).max())
    for ours, theirs, of_magnitudes in (
        (plain, rows._sum_by_torch(x, *of), loop(x.float().abs(), torch.ones_like(weights), of)),
        (weighted, rows._weighted_sum_by_torch(x, weights, *of), loop(x.float().abs(), weights, of)),
    ):
        bound = 4 * count * 2.0**-24 * of_magnitudes + torch.finfo(dtype).eps * theirs.cpu().double().abs()
        assert ((ours.double() - theirs.double()).abs().cpu() <= bound + 2.0**-24).all()
    expected_x, expected_weights = rows._weighted_sum_backward_by_torch(upstream, x, weights, of.index)
    assert torch.equal(gradient_x, expected_x)
    magnitudes = (upstream.float()[of.index] * x.float()).abs().sum(1)
    assert ((gradient_weights - expected_weights).abs() <= 2 * width * 2.0**-24 * magnitudes).all()


def test_a_layers_experts_and_gradients_are_those_of_pytorchs_kernels(run, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    x, gate_up, down, upstream = (
        torch.randn(*shape, generator=generator).to(run.device)
        for shape in ((20, 16), (4, 16, 16), (4, 16, 8), (20, 16))
    )
    weights = torch.rand(20, 4, generator=generator).to(run.device)
    local_idx = ct.select(torch.randn(20, 4, generator=generator), None, 4).to(run.device, torch.int16)
    local_idx[::3, 2:] = -1

    def results():
        leaves = [leaf.clone().requires_grad_() for leaf in (x, weights, gate_up, down)]
        out = experts.expert_mlp(leaves[0], local_idx, leaves[1], int((local_idx >= 0).sum()), *leaves[2:])
        out.backward(upstream)
        return out.detach(), *(leaf.grad for leaf in leaves)

    run.take_calls()
    ours = results()
    assert run.take_calls() == {"_sum_by_source": 2, "_sum_by_source_gradients": 1}
    # Sums of 4 experts of intermediate 8 and hidden 16, of numbers below some 100.
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "TYPES", ())
        theirs = results()
    assert not run.take_calls()
    for mine, expected in zip(ours, theirs):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-4)


def test_what_the_kernels_do_not_take_is_left_to_pytorch(run):
    of, x, weights, upstream = random_rows("random", 8, torch.float64, run.device)
    run.take_calls()
    rows.sum_rows(x, of)
    rows.weighted_sum_rows(x, weights.double(), of)
    rows.weighted_sum_rows(x.float(), weights.double(), of)
    rows._weighted_sum_backward(upstream, x, weights.double(), of.index)
    ct.select(torch.zeros(2, 8, dtype=torch.float64, device=run.device), None, 2)
    assert ct.select(torch.zeros(2, 513, device=run.device), None, 3).tolist() == [[0, 1, 2]] * 2
    assert rows.sum_rows(x[:0].float(), rows.row_map(of.index[:0], 3)).tolist() == [[0.0] * 8] * 3
    assert not run.take_calls()


def test_the_operators_with_kernels_are_as_pytorch_wants_them_and_compile(run):
    of, x, weights, upstream = random_rows("random", 8, torch.float32, run.device)
    logits, mask = torch.randn(5, 8, device=run.device), ct.collaborator_mask([[(e + 1) % 8] for e in range(8)], 8)
    mask = mask.to(run.device)
    torch.library.opcheck(routing._select, (logits, mask, 2))
    torch.library.opcheck(routing._select, (logits, None, 2))
    torch.library.opcheck(rows._sum, (x.clone().requires_grad_(), *of))
    torch.library.opcheck(rows._weighted_sum, (x.clone().requires_grad_(), weights.clone().requires_grad_(), *of))
    torch.library.opcheck(rows._weighted_sum_backward, (upstream, x, weights, of.index))

    def both(logits, x, weights):
        return ct.select(logits, mask, 2), rows.weighted_sum_rows(x, weights, of)

    run.take_calls()
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")(logits, x, weights)
    assert run.take_calls() == {"_choose": 1, "_sum_by_source": 1}
    for ours, expected in zip(compiled, both(logits, x, weights)):
        assert torch.equal(ours, expected)


def test_it_is_said_why_kernels_do_not_run():
    assert ct.why_no_kernels("cpu") == "they are for NVIDIA GPUs, not for a device of type cpu"
    if kernels._c2r_cuda is None:
        assert "built where nvcc is found" in ct.why_no_kernels()
    elif not torch.cuda.is_available():
        assert ct.why_no_kernels() == "PyTorch finds no NVIDIA GPU"
