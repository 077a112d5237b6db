"""Files of other engines, read and written from Python: as the command line does it, and what is refused."""

import json
import subprocess
import sys

import numpy as np
import pytest

import c2r


def choices(num_tokens=60, num_layers=2, num_experts=8, top_k=2, seed=0):
    """int32 [num_tokens, num_layers, top_k]"""
    scores = np.random.default_rng(seed).random((num_tokens, num_layers, num_experts))
    return np.argsort(scores, axis=-1)[..., :top_k].astype(np.int32)


def run(folder, *words):
    command = [sys.executable, "-m", "c2r", *map(str, words)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)


def test_a_trace_is_that_of_the_command_line(tmp_path):
    ids = choices()
    np.save(tmp_path / "ids.npy", ids)
    (tmp_path / "sequences.csv").write_text("row_start,n_tokens\n0,25\n25,35\n")
    trace = c2r.import_file(tmp_path / "ids.npy", "npy", tmp_path / "ours.safetensors", num_experts=8, model="m",
                            sequences=tmp_path / "sequences.csv")  # fmt: skip
    np.testing.assert_array_equal(trace.topk_idx(1), ids[:, 1])
    assert trace.sequence_starts.tolist() == [0, 25]
    run(tmp_path, "import", "--from", "npy", "ids.npy", "--sequences", "sequences.csv", "--num-experts", 8,
        "--model-name", "m", "-o", "theirs.safetensors")  # fmt: skip
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def test_arrays_are_read_in_every_form_that_numpy_writes(tmp_path):
    ids = choices().astype(np.int32)

    def read(name, **options):
        trace = c2r.import_file(tmp_path / name, "npy", tmp_path / "t.safetensors", num_experts=8, **options)
        np.testing.assert_array_equal(trace.topk_idx(1), ids[:, 1])
        return trace

    np.save(tmp_path / "floats.npy", ids.astype(np.float64))
    read("floats.npy")
    np.save(tmp_path / "big_endian.npy", ids.astype(">i4"))
    read("big_endian.npy")
    np.save(tmp_path / "layers_first.npy", np.ascontiguousarray(ids.transpose(1, 0, 2)))
    read("layers_first.npy", axes="LTK")
    for save in np.savez, np.savez_compressed:
        save(tmp_path / "one.npz", ids=ids)
        read("one.npz")
        save(tmp_path / "layers.npz", **{f"L{layer + 3}_idx": ids[:, layer] for layer in range(ids.shape[1])})
        trace = read("layers.npz")
        assert list(trace.header.layer_indices) == list(range(3, 3 + ids.shape[1]))


def test_several_inputs_are_one_trace_and_what_was_left_out_is_a_warning(tmp_path):
    paths = []
    for at, first in enumerate([-1, 3]):  # the first token of the first response was cached
        rows = [[[first, 1] if first >= 0 else [-1, -1]], [[4, 5]]]
        paths.append(tmp_path / f"{at}.json")
        paths[-1].write_text(json.dumps({"choices": [{"routed_experts": rows}]}))
    with pytest.warns(UserWarning, match="left out: 1 tokens"):
        trace = c2r.import_file(paths, "vllm", tmp_path / "t.safetensors", num_experts=8)
    assert trace.topk_idx(0).tolist() == [[4, 5], [3, 1], [4, 5]]


def test_a_format_is_recognized_by_what_is_in_the_file(tmp_path):
    np.save(tmp_path / "ids.npy", choices(num_layers=3))
    with pytest.warns(UserWarning, match="read as format npy: "):
        found = c2r.import_file(tmp_path / "ids.npy", output=tmp_path / "found.safetensors", num_experts=8)
    named = c2r.import_file(tmp_path / "ids.npy", "npy", tmp_path / "named.safetensors", num_experts=8)
    np.testing.assert_array_equal(found.topk_idx(1), named.topk_idx(1))
    (tmp_path / "notes.txt").write_text("nothing\n")
    with pytest.raises((ValueError, OSError), match="notes.txt"):
        c2r.import_file(tmp_path / "notes.txt", output=tmp_path / "other.safetensors", num_experts=8)


def test_statistics_need_no_output(tmp_path):
    header = c2r.TraceHeader(num_experts=8, top_k=2, layer_indices=[0, 1], model="m")
    layers = [np.ascontiguousarray(choices()[:, layer]) for layer in range(2)]
    counted = c2r.count_collaboration(c2r.Trace(header, layers))
    pairs = np.stack([counted.coactivation(layer) for layer in range(2)])
    pairs[:, np.arange(8), np.arange(8)] = 0  # as they are published
    np.save(tmp_path / "pairs.npy", pairs)
    statistics = c2r.import_file(tmp_path / "pairs.npy", "coactivation", top_k=2, model="m")
    saved = c2r.import_file(tmp_path / "pairs.npy", "coactivation", tmp_path / "s.safetensors", top_k=2, model="m")
    for layer in range(2):
        for found in (statistics, saved, c2r.load_statistics(tmp_path / "s.safetensors")):
            np.testing.assert_array_equal(found.coactivation(layer), counted.coactivation(layer))
    assert statistics.has_pairs and statistics.num_tokens.tolist() == [60, 60]


@pytest.mark.parametrize("target, suffix", [("sglang", ".json"), ("vllm-41141", ".jsonl"), ("tensorrt-llm", ".yaml"),
                                            ("omni-infer", ".npy"), ("permutation", ".json")])  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_placement_comes_back_as_it_was_exported(tmp_path, target, suffix):
    layers = [np.ascontiguousarray(choices()[:, layer]) for layer in range(2)]
    plan = c2r.plan(layers, "1x2", num_experts=8)
    path = tmp_path / f"map{suffix}"
    assert str(path) in plan.export(target, path)
    arguments = {"num_experts": 8, "top_k": 2, "layer_indices": [0, 1], "cluster": "1x2"}
    back = c2r.import_file(path, f"{target}-placement", **arguments)
    for ours, theirs in zip(plan.slots(), back.slots(), strict=True):
        np.testing.assert_array_equal(np.sort(ours), np.sort(theirs))
    saved = c2r.import_file(path, f"{target}-placement", tmp_path / "plan.json", **arguments)
    assert saved == back == c2r.Plan.load(tmp_path / "plan.json")


@pytest.mark.parametrize(
    "arguments, error, says",
    [
        ({"format": "parquette"}, ValueError, "unknown format 'parquette'"),
        ({"format": "npy", "output": None}, ValueError, "format npy makes a trace, which is written to a file"),
        ({"format": "npy", "num_experts": None}, ValueError, "format npy needs --num-experts"),
        ({"format": "npy", "cluster": "1x2"}, ValueError, "format npy has none"),
        ({"format": "npy", "num_experts": 4}, OSError, "layer 0, token"),
        ({"format": "npy", "num_experts": 8.0}, TypeError, "num_experts has another type than is documented: 8.0"),
        ({"format": "megatron"}, OSError, "ids.npy"),
        ({"format": "parquet", "cluster": "1x2"}, ValueError, "cluster is not for format parquet"),
        ({"format": "parquet", "output": None}, ValueError, "format parquet needs inputs, output and num_experts"),
        ({"inputs": [], "format": "npy"}, ValueError, "there is no file to import"),
        ({"format": "npy", "phase": "decode"}, ValueError, "phase"),
        ({"format": "npy", "phase": "both"}, ValueError, "a phase is prefill or decode; not 'both'"),
        ({"format": "npy", "skip_cached": True}, ValueError, "skip.cached"),
        ({"format": "npy", "placement": "map.json"}, ValueError, "placement"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path, arguments, error, says):
    np.save(tmp_path / "ids.npy", choices())
    wanted = {"inputs": tmp_path / "ids.npy", "output": tmp_path / "t.safetensors", "num_experts": 8, **arguments}
    with pytest.raises(error, match=says) as raised:
        c2r.import_file(**wanted)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["ids.npy"]


def test_parquet_without_pyarrow_says_how_to_get_it(tmp_path, monkeypatch):
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"format parquet needs pyarrow: pip install 'c2r\[parquet\]'"):
        c2r.import_file(tmp_path / "layer_00.parquet", "parquet", tmp_path / "t.safetensors", num_experts=8)


def test_every_format_of_the_library_is_in_the_documentation():
    names = c2r._c2r.import_formats()
    assert {"npy", "sglang", "coactivation", "sglang-placement"} <= set(names)
    for name in names:
        if not name.endswith("-placement"):
            assert f" {name}" in c2r.import_file.__doc__
        else:
            assert name.removesuffix("-placement") in c2r.Plan.export.__doc__
