"""Parquet files of routing decisions, as traces: the two forms that are read, and what is refused."""

import numpy as np
import pytest

pytest.importorskip("c2r._c2r", reason="traces are written by the extension module: pip install .")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

import c2r

NUM_TOKENS, NUM_LAYERS, NUM_EXPERTS, TOP_K = 500, 3, 12, 4
STARTS = [0, 130, 131, 400]


def choices():
    """ids [num_layers, num_tokens, top_k], and weights that float16 holds exactly."""
    scores = np.random.default_rng(0).random((NUM_LAYERS, NUM_TOKENS, NUM_EXPERTS))
    ids = np.argsort(scores, axis=-1)[..., :TOP_K]
    return ids, (ids + 1) / 16


def same(trace, ids, weights, starts):
    assert trace.has_weights and trace.sequence_starts.tolist() == starts
    for layer in range(NUM_LAYERS):
        np.testing.assert_array_equal(trace.topk_idx(layer), ids[layer])
        np.testing.assert_array_equal(trace.topk_weights(layer), np.where(ids[layer] >= 0, weights[layer], 0))


@pytest.mark.parametrize("is_fixed", [False, True])
def test_one_file_a_layer_as_flame_moe_publishes_them(tmp_path, is_fixed):
    ids, weights = choices()
    paths = []
    for layer in range(NUM_LAYERS):
        lists = pyarrow.list_(pyarrow.int16(), TOP_K if is_fixed else -1)
        values = pyarrow.list_(pyarrow.float16(), TOP_K if is_fixed else -1)
        table = pyarrow.table({
            "scores": pyarrow.array(list(weights[layer].astype(np.float16)), values),
            "indices": pyarrow.array(ids[layer].tolist(), lists),
        })  # fmt: skip
        paths.append(tmp_path / f"layer_{layer + 2:02}.parquet")
        parquet.write_table(table, paths[-1], row_group_size=77)
    trace = c2r.import_file(paths, "parquet", tmp_path / "t.safetensors", num_experts=NUM_EXPERTS, model="flame")
    same(trace, ids, weights, [0])
    assert trace.header.layer_indices == [2, 3, 4] and trace.header.model == "flame"


def long_table(ids, weights, is_layer_major):
    layer, token, _ = (part.reshape(-1) for part in np.indices(ids.shape))
    columns = {"layer": 10 + layer, "token": token, "expert": ids.reshape(-1), "weight": weights.reshape(-1),
               "sequence": np.searchsorted(STARTS, token, side="right")}  # fmt: skip
    is_choice = columns["expert"] >= 0
    columns = {name: values[is_choice] for name, values in columns.items()}
    if not is_layer_major:
        order = np.lexsort((columns["layer"], columns["token"]))
        columns = {name: values[order] for name, values in columns.items()}
    return pyarrow.table(columns)


@pytest.mark.parametrize("is_layer_major", [False, True])
@pytest.mark.parametrize("num_files", [1, 3])
def test_a_long_table_in_either_order(tmp_path, monkeypatch, is_layer_major, num_files):
    monkeypatch.setattr("c2r._parquet._BATCH_ROWS", 101)  # tokens are cut by batches
    ids, weights = choices()
    ids[1, 7, 2:] = -1  # a token with fewer choices
    table = long_table(ids, weights, is_layer_major)
    cuts = np.linspace(0, len(table), num_files + 1).astype(int)
    paths = [tmp_path / f"{at}.parquet" for at in range(num_files)]
    for path, begin, end in zip(paths, cuts, cuts[1:]):
        parquet.write_table(table.slice(begin, end - begin), path)
    seen = []
    trace = c2r.import_file(paths, "parquet", tmp_path / "t.safetensors", num_experts=NUM_EXPERTS,
                            progress=lambda *at: seen.append(at))  # fmt: skip
    same(trace, ids, weights, STARTS)
    assert trace.header.layer_indices == [10, 11, 12] and seen[-1] == (len(table), len(table))


LONG = {"layer": np.array([0, 0, 0, 0]), "token": np.array([0, 0, 1, 1]), "expert": np.array([1, 2, 3, 4])}


@pytest.mark.parametrize(
    "columns, says",
    [
        ({**LONG, "token": np.array([0, 0, 2, 2])}, "layer 0: token 2 comes where token 1 is expected"),
        ({**LONG, "token": np.array([0, 1, 0, 1])}, "layer 0: token 0 comes where token 2 is expected"),
        ({**LONG, "token": np.array([0, 1, 1, 1])}, "layer 0, token 1 has 3 choices, but top_k is 1"),
        ({**LONG, "expert": np.array([1, 2, 3, 12])}, "expert 12"),
        ({**LONG, "expert": np.array([1, 1, 3, 4])}, "token 0"),
        ({**LONG, "expert": np.array([1, 2, 3, 1 << 40])}, "which no model has"),
        (
            {**LONG, "expert": np.array([1.0, 2, 3, 4])},
            "column expert must hold whole numbers and no nulls, not double",
        ),
        ({**LONG, "layer": np.array([0, 0, 0, 1])}, "different|tokens"),
        ({"layer": LONG["layer"], "token": LONG["token"]}, "expected indices, or layer, token and expert"),
        ({"indices": [[1, 2], [3]]}, "column indices has lists of 1 and of 2 values"),
        ({"indices": [[1, 2], None]}, "column indices must hold lists and no nulls"),
        ({"indices": [1, 2]}, "column indices must hold lists"),
        ({"indices": [[]]}, "has no choices"),
    ],
)
def test_a_broken_file_is_refused_in_one_line_and_leaves_nothing(tmp_path, columns, says):
    path = tmp_path / "layer_00.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(OSError, match=says) as raised:
        c2r.import_file(path, "parquet", tmp_path / "t.safetensors", num_experts=12)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_parquet_and_files_that_do_not_fit_each_other_are_refused(tmp_path):
    whole = tmp_path / "layer_00.parquet"
    parquet.write_table(pyarrow.table({"indices": [[1, 2]], "scores": [[0.5, 0.5]]}), whole)
    (tmp_path / "layer_01.parquet").write_bytes(whole.read_bytes()[:-20])
    (tmp_path / "layer_02.parquet").write_text("no")
    parquet.write_table(pyarrow.table({"indices": [[1, 2]]}), tmp_path / "layer_03.parquet")
    parquet.write_table(
        pyarrow.table({"indices": [[1, 2, 3]], "scores": [[0.5, 0.5, 0.1]]}), tmp_path / "layer_04.parquet"
    )
    parquet.write_table(
        pyarrow.table({"indices": [[1, 2]] * 2, "scores": [[0.5, 0.5]] * 2}), tmp_path / "layer_05.parquet"
    )
    for other, says in [(1, "is no parquet file"), (2, "is no parquet file"), (3, "has no column scores, unlike"),
                        (4, "has lists of 3 values, but top_k is 2"), (5, "tokens"), (9, "there is no such file")]:  # fmt: skip
        with pytest.raises(OSError, match=says):
            c2r.import_file([whole, tmp_path / f"layer_{other:02}.parquet"], "parquet", tmp_path / "t.safetensors",
                            num_experts=12)  # fmt: skip
    with pytest.raises(ValueError, match=r"name them layer_NN.parquet, in ascending order, or give layer_indices"):
        c2r.import_file([whole, whole], "parquet", tmp_path / "t.safetensors", num_experts=12)
    assert not (tmp_path / "t.safetensors").exists()
