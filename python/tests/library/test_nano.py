"""examples/nano_c2r.py computes what the library computes."""

import importlib.util
import pathlib

import numpy as np
import pytest

import c2r

PROGRAM = pathlib.Path(__file__).parents[3] / "examples" / "nano_c2r.py"


@pytest.fixture(scope="module")
def nano():
    spec = importlib.util.spec_from_file_location("nano_c2r", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def layer(nano):
    return nano.make_layer(np.random.default_rng(0))


@pytest.fixture(scope="module")
def logits(nano, layer):
    values = nano.make_tokens(np.random.default_rng(2), 2000) @ layer.gate.T
    values = values.astype(np.float32)
    values[::5, 3] = values[::5, 6]  # equal logits
    return values


def trace_of(nano, topk_idx, sequence_starts=None):
    header = c2r.TraceHeader(num_experts=nano.NUM_EXPERTS, top_k=nano.TOP_K, layer_indices=[0])
    return c2r.Trace(header, [topk_idx], sequence_starts)


@pytest.mark.parametrize("top_t", [None, 2, 3, 5, 7])
def test_route(nano, layer, logits, top_t):
    constraint = {}
    lists = None
    if top_t is not None:
        lists = nano.collaborators(nano.count_collaboration(nano.profile(layer), nano.NUM_EXPERTS), top_t)
        constraint = {"top_t": top_t, "collaborators": lists}
    topk_idx, topk_weights = nano.route(logits.astype(np.float64), nano.TOP_K, lists)
    expected_idx, expected_weights = c2r.route(logits, c2r.RoutingPolicy(nano.TOP_K, **constraint))
    np.testing.assert_array_equal(topk_idx, expected_idx)
    # The library computes in float32: rounding the argument of exp, logit - largest logit, makes an error of its size
    # times 2^-24; the exp, a sum of 8 of them and a quotient are at most ten roundings more.
    largest = np.ptp(logits, axis=1).max()
    np.testing.assert_allclose(topk_weights, expected_weights, rtol=(largest + 10) * 2**-24)


def test_profile_and_lists(nano, layer):
    topk_idx = nano.profile(layer)
    counts = nano.count_collaboration(topk_idx, nano.NUM_EXPERTS)
    statistics = c2r.count_collaboration(trace_of(nano, topk_idx))
    np.testing.assert_array_equal(counts, statistics.coactivation(0))
    for top_t in (1, 3, 7):
        np.testing.assert_array_equal(nano.collaborators(counts, top_t), c2r.collaborators(statistics, top_t)[0])


def test_placement(nano, layer):
    topk_idx = nano.profile(layer)
    placed = nano.place(topk_idx, nano.NUM_EXPERTS, nano.NUM_RANKS)
    plan = c2r.plan(
        [topk_idx], f"1x{nano.NUM_RANKS}", num_experts=nano.NUM_EXPERTS, method="exhaustive", max_imbalance=1e9
    )
    steps = c2r.simulate(plan, [topk_idx], num_experts=nano.NUM_EXPERTS)
    copies = next(step for step in steps if step["step"] == "placement")["copies_per_token"][0]
    assert nano.copies_per_token(topk_idx, placed) == pytest.approx(copies, rel=1e-12)


@pytest.mark.parametrize("per_expert", [True, False])
def test_rows_on_the_wire(nano, layer, per_expert):
    rng = np.random.default_rng(3)
    x_of_rank = [nano.make_tokens(rng, num_tokens) for num_tokens in (40, 1, 25, 60)]
    routing = [nano.route(x @ layer.gate.T, nano.TOP_K) for x in x_of_rank]
    contiguous = np.arange(nano.NUM_EXPERTS) // (nano.NUM_EXPERTS // nano.NUM_RANKS)
    outs, rows = nano.expert_parallel_layer(layer, x_of_rank, routing, contiguous, per_expert)
    for out, x, chosen in zip(outs, x_of_rank, routing, strict=True):
        np.testing.assert_allclose(out, nano.plain_layer(layer, x, *chosen), rtol=0, atol=1e-12)

    # One sequence a rank; sequences are dealt to ranks in their order.
    starts = np.cumsum([0, *map(len, x_of_rank)])[:-1]
    trace = trace_of(nano, np.concatenate([topk_idx for topk_idx, _ in routing]), starts)
    plan = c2r.plan(trace, f"1x{nano.NUM_RANKS}", method="contiguous")
    copy_mode = "per-expert" if per_expert else "per-rank"
    steps = c2r.simulate(plan, trace, copy_mode=copy_mode, homes="sequences")
    counts = steps[-1]["counts"]
    assert nano.rows_on_the_wire(rows) * counts["denominator"] == counts["layers"][0]["wire_copies"]


def test_the_program_runs(nano, capsys):
    nano.main()
    assert "one row for each rank" in capsys.readouterr().out
