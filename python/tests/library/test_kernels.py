"""The kernels of c2r.torch's operators: their bodies on the host against loops, and what they refuse."""

import importlib.util

import numpy as np
import pytest

from c2r import _c2r

TYPES = [np.float32, np.float16]


def chosen_by_definition(logits, mask, top_k):
    """The best expert, then the best of those that it allows; ties to the lower one; -1 if none is left."""
    chosen = []
    for row in logits.astype(np.float32):
        allowed = np.ones(len(row), bool) if mask is None else mask[row.argmax()]
        ranked = sorted((e for e in range(len(row)) if allowed[e] and row[e] > -np.inf), key=lambda e: (-row[e], e))
        chosen.append([*ranked, *[-1] * top_k][:top_k])
    return np.array(chosen, np.int64).reshape(len(logits), top_k)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("num_experts, top_k", [(1, 1), (8, 2), (33, 4), (60, 16), (64, 64), (512, 16)])
def test_choices_are_those_of_the_definition(dtype, num_experts, top_k):
    rng = np.random.default_rng(num_experts)
    tied = rng.choice(np.array([0.0, -0.0, 1.5, -1.5, -np.inf], dtype), (20, num_experts))
    logits = np.concatenate([tied, rng.standard_normal((20, num_experts)), np.full((1, num_experts), -np.inf)])
    logits = logits.astype(dtype)
    for mask in (None, rng.random((num_experts, num_experts)) < 0.3, np.eye(num_experts, dtype=bool)):
        for used in (logits, logits[:0]):
            topk_idx = np.full((len(used), top_k), 77, np.int64)
            _c2r._choose(used, mask, topk_idx, 0)
            np.testing.assert_array_equal(topk_idx, chosen_by_definition(used, mask, top_k))


# The rows of one hot source, of none, and of sources without rows.
@pytest.mark.parametrize("sources", [[3] * 40, [], [0, 4, 4, 1, 0, 4]])
@pytest.mark.parametrize("width", [1, 37, 264])
@pytest.mark.parametrize("dtype", TYPES)
def test_sums_and_their_gradients_are_those_of_loops_bit_for_bit(dtype, width, sources):
    rng = np.random.default_rng(width)
    num_sources, num_rows = 6, len(sources)
    index = np.array(sources, np.int64)
    order = index.argsort(kind="stable")
    offsets = np.searchsorted(index[order], np.arange(num_sources + 1)).astype(np.int64)
    rows = rng.standard_normal((num_rows, width)).astype(dtype)
    weights = rng.random(num_rows).astype(np.float32)
    for used in (None, weights):
        expected = np.zeros((num_sources, width), np.float32)
        for row in order:
            expected[index[row]] += (1 if used is None else used[row]) * rows[row].astype(np.float32)
        sums = np.full((num_sources, width), 77, dtype)
        _c2r._sum_by_source(rows, used, order, offsets, sums, 0)
        np.testing.assert_array_equal(sums, expected.astype(dtype))

    dsums = rng.standard_normal((num_sources, width)).astype(dtype)
    drows, dweights = np.full_like(rows, 77), np.full_like(weights, 77)
    _c2r._sum_by_source_gradients(dsums, rows, weights, index, drows, dweights, 0)
    np.testing.assert_array_equal(drows, (weights[:, None] * dsums[index].astype(np.float32)).astype(dtype))
    products = dsums[index].astype(np.float64) * rows
    # Each of `width` products and additions is rounded once.
    bound = width * 2.0**-24 * np.abs(products).sum(1)
    assert (np.abs(dweights - products.sum(1)) <= bound).all()


FLOATS = "^logits must be a C-contiguous array of float32 or bfloat16 or float16 with 2 axes "
LOGITS, CHOSEN = np.zeros((2, 3), np.float32), np.zeros((2, 2), np.int64)


@pytest.mark.parametrize(
    "logits, mask, topk_idx, error, message",
    [
        (LOGITS.astype(np.float64), None, CHOSEN, TypeError, FLOATS + r"in the host's memory, not float64 \[2, 3\]; nothing"),
        (LOGITS.T, None, CHOSEN, TypeError, "that is not contiguous"),
        (LOGITS, np.ones((3, 3), np.uint8), CHOSEN, TypeError, "^mask must be a C-contiguous array of bool"),
        (LOGITS, np.ones((2, 3), bool), CHOSEN, ValueError, "^axis 0 of mask has length 2, but the other arrays need 3$"),
        (LOGITS, None, CHOSEN[:1], ValueError, "^axis 0 of topk_idx has length 1, but the other arrays need 2$"),
        (LOGITS, None, CHOSEN.astype(np.int32), TypeError, "^topk_idx must be a C-contiguous array of int64"),
        (LOGITS, None, np.zeros((2, 4), np.int64), ValueError, r"^top_k is 4, expected \[1, 3\]$"),
        (np.zeros((2, 513), np.float32), None, CHOSEN, ValueError, "^a kernel chooses among 1 to 512 experts, not 513$"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused_and_never_converted(logits, mask, topk_idx, error, message):
    with pytest.raises(error, match=message):
        _c2r._choose(logits, mask, topk_idx, 0)


if importlib.util.find_spec("c2r._c2r_cuda") is not None:  # built where nvcc is found

    def test_the_kernels_for_gpus_refuse_arrays_of_the_host():
        from c2r import _c2r_cuda

        with pytest.raises(TypeError, match=FLOATS + r"on a CUDA device, not float32 \[2, 3\] on another device"):
            _c2r_cuda._choose(LOGITS, None, CHOSEN, 0)
        assert _c2r_cuda.architectures
        assert isinstance(_c2r_cuda.why_not(0), str)
