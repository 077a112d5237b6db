"""The extension module and what it promises of arrays, errors, threads and signals."""

import subprocess
import sys
import threading
import types
import typing

import numpy as np
import pytest

import c2r

HEADER = c2r.TraceHeader(num_experts=8, top_k=2, layer_indices=[0], model="m")


def random_trace(path, num_tokens=500, num_experts=16, top_k=4, num_layers=3, seed=0):
    rng = np.random.default_rng(seed)
    layers = [
        np.argsort(rng.random((num_tokens, num_experts)), axis=1)[:, :top_k].astype(np.int32) for _ in range(num_layers)
    ]
    header = c2r.TraceHeader(num_experts=num_experts, top_k=top_k, layer_indices=list(range(num_layers)), model="m")
    writer = c2r.TraceWriter(path, header)
    for layer, ids in enumerate(layers):
        if layer == 0:
            writer.start_sequence()
        writer.append(layer, ids)
    writer.finish()
    return layers


def test_a_trace_holds_what_was_written(tmp_path):
    layers = random_trace(tmp_path / "t.safetensors")
    trace = c2r.Trace(tmp_path / "t.safetensors")
    assert (trace.num_tokens, trace.header.num_experts, trace.header.top_k, trace.header.model) == (500, 16, 4, "m")
    for layer, ids in enumerate(layers):
        np.testing.assert_array_equal(trace.topk_idx(layer), ids)
        np.testing.assert_array_equal(trace.topk_idx(layer, 10, 20), ids[10:20])
        np.testing.assert_array_equal(trace.stored_topk_idx(layer), ids)


def test_stored_ids_are_not_copied_and_keep_the_file_open(tmp_path):
    layers = random_trace(tmp_path / "t.safetensors")
    stored = c2r.Trace(tmp_path / "t.safetensors").stored_topk_idx(2)
    assert stored.dtype == np.uint8 and not stored.flags.writeable and not stored.flags.owndata
    np.testing.assert_array_equal(stored, layers[2])


def test_counts_match_the_definition(tmp_path):
    layers = random_trace(tmp_path / "t.safetensors")
    statistics = c2r.count_collaboration(c2r.Trace(tmp_path / "t.safetensors"))
    for layer, ids in enumerate(layers):
        expected = np.zeros((16, 16), np.int64)
        for token in ids:
            for a in token:
                for b in token:
                    expected[a, b] += 1
        np.testing.assert_array_equal(statistics.coactivation(layer), expected)


def test_lists_are_the_best_collaborators_and_ties_go_to_the_lower_expert(tmp_path):
    random_trace(tmp_path / "t.safetensors")
    statistics = c2r.count_collaboration(c2r.Trace(tmp_path / "t.safetensors"))
    lists = c2r.collaborators(statistics, 5)
    assert lists.shape == (3, 16, 5) and lists.dtype == np.int32
    for layer in range(3):
        counts = statistics.coactivation(layer)
        for e in range(16):
            others = sorted((b for b in range(16) if b != e), key=lambda b: (-counts[e, b], b))
            assert list(lists[layer, e]) == others[:5]


def constrained_by_definition(logits, lists, top_k):
    """PAPER: the best expert is free, the others are the best of its list."""
    chosen = []
    for row in logits:
        order = sorted(range(len(row)), key=lambda e: (-row[e], e))
        first = order[0]
        chosen.append([first, *[e for e in order if e in set(lists[first]) - {first}][: top_k - 1]])
    return np.array(chosen, np.int32)


def test_routing_obeys_the_lists_token_by_token():
    rng = np.random.default_rng(1)
    logits = rng.integers(-3, 4, (300, 12)).astype(np.float32)  # many ties
    lists = np.array([[b for b in rng.permutation(12) if b != e][:5] for e in range(12)], np.int32)
    policy = c2r.RoutingPolicy(4, top_t=5, collaborators=lists)
    topk_idx, topk_weights = c2r.route(logits, policy)
    np.testing.assert_array_equal(topk_idx, constrained_by_definition(logits, lists, 4))
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    # A weight is one quotient of f32 sums of 12 terms: some 14 roundings of 2^-24 each.
    np.testing.assert_allclose(topk_weights, np.take_along_axis(shares, topk_idx, 1), rtol=20 * 2.0**-24)


@pytest.mark.parametrize(
    "logits, says",
    [
        (np.zeros((2, 4)), "not float64 [2, 4]"),
        (np.zeros((2, 4), np.float16), "not float16 [2, 4]"),
        (np.zeros((4, 2), np.float32).T, "that is not contiguous"),
        (np.zeros(4, np.float32), "2 axes in the host's memory, not float32 [4]"),
    ],
)
def test_another_type_or_layout_is_refused_and_not_converted(logits, says):
    with pytest.raises(TypeError, match="logits must be a C-contiguous array of float32") as error:
        c2r.route(logits, c2r.RoutingPolicy(2))
    assert says in str(error.value) and "\n" not in str(error.value)


class OnlyDlpack:
    """An array of another library: it offers DLPack and nothing of NumPy."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **how):
        assert not how.get("copy")
        return self.array.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_arrays_of_dlpack_go_in_and_out_in_the_same_memory():
    logits = np.random.default_rng(0).random((5, 8), np.float32)
    policy = c2r.RoutingPolicy(
        2, collaborators=OnlyDlpack(np.roll(np.arange(8), -1)[:, None].astype(np.int32)), top_t=1
    )
    expected, weights = c2r.route(logits, policy)
    found, _ = c2r.route(OnlyDlpack(logits), policy)
    np.testing.assert_array_equal(found, expected)
    assert np.from_dlpack(weights).ctypes.data == weights.ctypes.data
    with pytest.raises(TypeError, match="logits must be .* not float64"):
        c2r.route(OnlyDlpack(logits.astype(np.float64)), policy)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda a: c2r.RoutingPolicy(2, selection_bias=a(np.float64, 8), scoring="sigmoid"), "selection_bias must be"),
        (lambda a: c2r.RoutingPolicy(2, top_t=3, collaborators=a(np.int64, 8, 3)), "collaborators must be"),
        (
            lambda a: c2r.Trace(HEADER, [a(np.int64, 5, 2)]),
            "topk_idx must be a C-contiguous array of int32 with 2 axes",
        ),
        (lambda a: c2r.Trace(HEADER, [a(np.int32, 4, 2)], a(np.int32, 1)), "sequence_starts must be"),
        (lambda a: c2r.plan([a(np.uint8, 5, 2)], "1x2", num_experts=8), "topk_idx must be"),
        (lambda a: c2r.RoutingPolicy(2.0), "incompatible function arguments"),
        (lambda a: c2r.plan([a(np.int32, 5, 2)], "1x2", num_experts=8, seed=1.5), "seed has another type .*: 1.5"),
        (lambda a: c2r.plan([a(np.int32, 5, 2)], "1x2", num_experts=8, fit=3), "fit has another type .*: 3"),
    ],
)
def test_nothing_is_converted_silently_anywhere(call, says):
    with pytest.raises(TypeError, match=says):
        call(lambda dtype, *shape: np.arange(np.prod(shape), dtype=dtype).reshape(shape) % 8)


def test_counts_are_not_copied():
    trace = c2r.Trace(HEADER, [np.array([[0, 1], [2, 3]], np.int32)])
    counts = c2r.count_collaboration(trace).coactivation(0)
    assert not counts.flags.writeable and not counts.flags.owndata and counts.trace() == 4


def test_other_threads_run_meanwhile():
    ids = np.argsort(np.random.default_rng(0).random((4000, 32)), axis=1)[:, :4].astype(np.int32)
    is_over, num_turns = threading.Event(), 0

    def turn():
        nonlocal num_turns
        while not is_over.wait(0.01):
            num_turns += 1

    thread = threading.Thread(target=turn)
    thread.start()
    c2r.plan([ids], "1x8", num_experts=32, effort=1e9, seconds=1.0, redundant_slots=1)
    is_over.set()
    thread.join()
    assert num_turns >= 10  # of some 100; none if the GIL were held


def test_a_bar_of_tqdm_shows_progress_where_it_is_installed(tmp_path, monkeypatch):
    class Bar:
        made: typing.ClassVar[list] = []

        def __init__(self, desc):
            self.desc, self.n, self.total = desc, 0, None
            self.made.append(self)

        def update(self, more):
            self.n += more

        __enter__ = lambda self: self
        __exit__ = lambda self, *error: None

    random_trace(tmp_path / "t.safetensors", num_tokens=20000)
    trace = c2r.Trace(tmp_path / "t.safetensors")
    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=Bar))
    c2r.count_collaboration(trace, progress=True)
    (bar,) = Bar.made
    assert bar.desc == "counting" and bar.n == bar.total > 0


def test_without_tqdm_a_line_shows_progress(tmp_path, monkeypatch, capsys):
    random_trace(tmp_path / "t.safetensors", num_tokens=20000)
    for name in ("tqdm", "tqdm.auto"):
        monkeypatch.setitem(sys.modules, name, None)
    c2r.count_collaboration(c2r.Trace(tmp_path / "t.safetensors"), progress=True)
    assert capsys.readouterr().err.endswith("counting: 100 %\n")


def test_errors_have_the_words_of_the_library(tmp_path):
    with pytest.raises(ValueError, match="top_k"):
        c2r.route(np.zeros((1, 4), np.float32), c2r.RoutingPolicy(5))
    with pytest.raises(ValueError, match="a scoring is softmax, softmax-over-chosen or sigmoid; not 'soft'"):
        c2r.RoutingPolicy(2, scoring="soft")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(OSError, match="broken.safetensors"):
        c2r.Trace(tmp_path / "broken.safetensors")
    random_trace(tmp_path / "t.safetensors")
    trace = c2r.Trace(tmp_path / "t.safetensors")
    with pytest.raises(ValueError, match="has layers 0 to 2, not 3"):
        trace.topk_idx(3)
    with pytest.raises(ValueError, match=r"tokens \[400, 501\) are not within the 500 tokens"):
        trace.topk_idx(0, 400, 501)


def test_progress_is_reported_to_its_end(tmp_path):
    random_trace(tmp_path / "t.safetensors", num_tokens=20000)
    seen = []
    c2r.count_collaboration(c2r.Trace(tmp_path / "t.safetensors"), progress=lambda *at: seen.append(at))
    assert seen and seen[-1][0] == seen[-1][1] > 0


def test_what_progress_raises_ends_the_work(tmp_path):
    random_trace(tmp_path / "t.safetensors", num_tokens=200000, num_layers=2)

    def refuse(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        c2r.count_collaboration(c2r.Trace(tmp_path / "t.safetensors"), num_threads=1, progress=refuse)


def test_the_program_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "c2r", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"c2r {c2r.__version__} ")
