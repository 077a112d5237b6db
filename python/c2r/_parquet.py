"""Routing decisions in parquet files, as a trace. Needs pyarrow, which ``pip install 'c2r[parquet]'`` brings.

Two forms are read, told apart by their columns:

- one file a layer, one row a token: ``indices``, a list of expert ids, and optionally ``scores``, their weights, as
  FLAME-MoE's published traces have them (``layer_02.parquet``);
- a long table, one row a choice: ``layer``, ``token`` and ``expert``, and optionally ``weight`` and ``sequence``.
  Several files are one table. A token's rows of a layer are neighbours, and a layer's tokens count up from 0.

A batch of rows is in memory at a time.
"""

import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from c2r._c2r import Trace, TraceHeader, TraceWriter

_BATCH_ROWS = 1 << 16
_MAX_ID = 1 << 15
_Progress = Callable[[int, int], object] | None


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError("format parquet needs pyarrow: pip install 'c2r[parquet]'") from None
    return pyarrow.parquet


def _open(path: pathlib.Path) -> Any:
    parquet = _parquet()
    try:
        return parquet.ParquetFile(path)
    except FileNotFoundError:
        raise OSError(f"cannot open '{path}': there is no such file") from None
    except (ValueError, OSError) as error:
        raise OSError(f"{path}: is no parquet file: {str(error).splitlines()[0]}") from None


def _batches(path: pathlib.Path, columns: list[str]) -> Iterator[Any]:
    """Record batches of a file with exactly these columns."""
    file = _open(path)
    try:
        yield from file.iter_batches(_BATCH_ROWS, columns=columns)
    except (ValueError, OSError) as error:
        raise OSError(f"{path}: is broken: {str(error).splitlines()[0]}") from None


def _columns(paths: list[pathlib.Path], needed: list[str], optional: list[str]) -> list[str]:
    """The needed columns and those optional ones that the files have. Raises OSError where files differ."""
    names = [set(_open(path).schema_arrow.names) for path in paths]
    used = needed + [name for name in optional if name in names[0]]
    for path, columns in zip(paths, names, strict=True):
        missing = [name for name in used if name not in columns]
        more = [name for name in optional if name in columns and name not in used]
        if missing or more:
            word, name = ("no", missing[0]) if missing else ("a", more[0])
            raise OSError(f"{path}: has {word} column {name}, unlike {paths[0]}")
    return used


def _whole_numbers(column: Any, name: str, path: pathlib.Path) -> np.ndarray:
    """A column of whole numbers as int64. Raises OSError for another type and for nulls."""
    import pyarrow

    if not pyarrow.types.is_integer(column.type) or column.null_count:
        raise OSError(f"{path}: column {name} must hold whole numbers and no nulls, not {column.type}")
    return column.to_numpy(zero_copy_only=False).astype(np.int64)


def _floats(column: Any, name: str, path: pathlib.Path) -> np.ndarray:
    import pyarrow

    if not pyarrow.types.is_floating(column.type) or column.null_count:
        raise OSError(f"{path}: column {name} must hold floating-point numbers and no nulls, not {column.type}")
    return column.to_numpy(zero_copy_only=False).astype(np.float32)


def _ids(values: np.ndarray, path: pathlib.Path) -> np.ndarray:
    """Expert ids as int32; what no model has is refused here, the rest by the writer, which knows num_experts."""
    if values.size and not (-1 <= values.min() and values.max() < _MAX_ID):
        raise OSError(f"{path}: expert ids are in [{values.min()}, {values.max()}], which no model has")
    return values.astype(np.int32)


def _lists(column: Any, name: str, path: pathlib.Path) -> tuple[Any, int]:
    """The values of a column of equally long lists, and their length."""
    import pyarrow
    import pyarrow.compute

    is_list = pyarrow.types.is_list(column.type) or pyarrow.types.is_large_list(column.type)
    if not (is_list or pyarrow.types.is_fixed_size_list(column.type)) or column.null_count:
        raise OSError(f"{path}: column {name} must hold lists and no nulls, not {column.type}")
    lengths = pyarrow.compute.list_value_length(column).to_numpy(zero_copy_only=False)
    if len(lengths) and (lengths != lengths[0]).any():
        raise OSError(f"{path}: column {name} has lists of {lengths.min()} and of {lengths.max()} values")
    return column.flatten(), int(lengths[0]) if len(lengths) else 0


class _Layers:
    """One file a layer (FLAME-MoE)."""

    def __init__(self, paths: list[pathlib.Path], layer_indices: list[int] | None) -> None:
        named = [re.search(r"layer_(\d+)\.parquet$", path.name) for path in paths]
        if layer_indices is None:
            layer_indices = [int(name[1]) for name in named if name]
        if len(layer_indices) != len(paths) or sorted(set(layer_indices)) != layer_indices:
            raise ValueError(f"there are {len(paths)} files, one a layer, but their layers are {layer_indices}: name "
                             "them layer_NN.parquet, in ascending order, or give layer_indices")  # fmt: skip
        self.paths, self.layer_indices = paths, layer_indices
        self.columns = _columns(paths, ["indices"], ["scores"])
        self.has_weights = "scores" in self.columns

    def top_k(self) -> int:
        first = next(_batches(self.paths[0], ["indices"]), None)
        return 0 if first is None else _lists(first.column(0), "indices", self.paths[0])[1]

    def write(self, writer: TraceWriter, top_k: int, progress: _Progress) -> None:
        writer.start_sequence()
        for layer, path in enumerate(self.paths):
            for batch in _batches(path, self.columns):
                values = {}
                for name in self.columns:
                    values[name], length = _lists(batch.column(name), name, path)
                    if length != top_k:
                        raise OSError(f"{path}: column {name} has lists of {length} values, but top_k is {top_k}")
                ids = _ids(_whole_numbers(values["indices"], "indices", path), path).reshape(-1, top_k)
                weights = None
                if self.has_weights:
                    weights = _floats(values["scores"], "scores", path).reshape(-1, top_k)
                writer.append(layer, ids, weights, str(path))
            if progress is not None:
                progress(layer + 1, len(self.paths))


class _LongTable:
    """One row a choice."""

    def __init__(self, paths: list[pathlib.Path], layer_indices: list[int] | None) -> None:
        self.paths = paths
        self.columns = _columns(paths, ["layer", "token", "expert"], ["weight", "sequence"])
        self.has_weights, self.has_sequences = "weight" in self.columns, "sequence" in self.columns
        self.layer_indices = self._layers() if layer_indices is None else layer_indices

    def _layers(self) -> list[int]:
        found: set[int] = set()
        for path in self.paths:
            for batch in _batches(path, ["layer"]):
                found.update(np.unique(_whole_numbers(batch.column(0), "layer", path)).tolist())
        return sorted(found)

    def _pieces(self) -> Iterator[tuple[pathlib.Path, dict[str, np.ndarray]]]:
        """Rows in order, cut where another token begins."""
        rest: dict[str, np.ndarray] = {}
        for path in self.paths:
            for batch in _batches(path, self.columns):
                rows = {name: (_floats if name == "weight" else _whole_numbers)(batch.column(name), name, path)
                        for name in self.columns}  # fmt: skip
                if rest:
                    rows = {name: np.concatenate([rest[name], rows[name]]) for name in rows}
                if len(rows["token"]) == 0:
                    continue
                begins = _begins(rows)
                yield path, {name: values[: begins[-1]] for name, values in rows.items()}
                rest = {name: values[begins[-1] :] for name, values in rows.items()}
        if rest:
            yield self.paths[-1], rest

    def top_k(self) -> int:
        _, rows = next((piece for piece in self._pieces() if len(piece[1]["token"])), (None, None))
        if rows is None:
            return 0
        return int(np.diff([*_begins(rows), len(rows["token"])])[0])

    def write(self, writer: TraceWriter, top_k: int, progress: _Progress) -> None:
        self._next = dict.fromkeys(self.layer_indices, 0)
        self._sequence = np.iinfo(np.int64).min  # before the first one
        num_rows, total = 0, sum(_open(path).metadata.num_rows for path in self.paths)
        if not self.has_sequences:
            writer.start_sequence()
        for path, rows in self._pieces():
            if len(rows["token"]):
                self._write_piece(writer, path, rows, top_k)
            num_rows += len(rows["token"])
            if progress is not None:
                progress(num_rows, total)

    def _write_piece(self, writer: TraceWriter, path: pathlib.Path, rows: dict[str, np.ndarray], top_k: int) -> None:
        begins = _begins(rows)
        counts = np.diff([*begins, len(rows["token"])])
        if counts.max() > top_k:
            at = begins[counts.argmax()]
            raise OSError(f"{path}: layer {rows['layer'][at]}, token {rows['token'][at]} has {counts.max()} choices, but "
                          f"top_k is {top_k}")  # fmt: skip
        token_of_row = np.repeat(np.arange(len(begins)), counts)
        choice_of_row = np.arange(len(token_of_row)) - begins[token_of_row]
        ids = np.full((len(begins), top_k), -1, np.int32)
        ids[token_of_row, choice_of_row] = _ids(rows["expert"], path)
        weights = None
        if self.has_weights:
            weights = np.zeros((len(begins), top_k), np.float32)
            weights[token_of_row, choice_of_row] = rows["weight"]
        for at, layer in enumerate(self.layer_indices):
            of_layer = np.flatnonzero(rows["layer"][begins] == layer)
            self._check_tokens(path, layer, rows["token"][begins[of_layer]])
            sequences = rows["sequence"][begins[of_layer]] if self.has_sequences and at == 0 else None
            for part in self._parts(writer, of_layer, sequences):
                if len(part):
                    writer.append(at, ids[part], None if weights is None else weights[part], str(path))
        if not np.isin(rows["layer"], self.layer_indices).all():
            raise OSError(f"{path}: has layers beside {self.layer_indices}")

    def _check_tokens(self, path: pathlib.Path, layer: int, tokens: np.ndarray) -> None:
        first = self._next[layer]
        wrong = np.flatnonzero(tokens != first + np.arange(len(tokens)))
        if len(wrong):
            raise OSError(f"{path}: layer {layer}: token {tokens[wrong[0]]} comes where token {first + wrong[0]} is "
                          "expected: a layer's tokens must count up from 0, the rows of each together")  # fmt: skip
        self._next[layer] = first + len(tokens)

    def _parts(self, writer: TraceWriter, rows: np.ndarray, sequences: np.ndarray | None) -> Iterator[np.ndarray]:
        """Rows of one layer, cut where a sequence starts, which the writer is told."""
        if sequences is None:
            yield rows
            return
        before = np.concatenate([[self._sequence], sequences[:-1]]) if len(rows) else sequences
        starts = np.flatnonzero(sequences != before)
        continued, *new = np.split(rows, starts)
        yield continued
        for part in new:
            writer.start_sequence()
            yield part
        if len(rows):
            self._sequence = int(sequences[-1])


def _begins(rows: dict[str, np.ndarray]) -> np.ndarray:
    """The first row of each token in each layer. [num_groups]"""
    changes = (np.diff(rows["layer"]) != 0) | (np.diff(rows["token"]) != 0)
    return np.concatenate([[0], np.flatnonzero(changes) + 1])


def import_parquet(
    inputs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    num_experts: int,
    top_k: int | None,
    layer_indices: list[int] | None,
    model: str,
    progress: _Progress,
) -> Trace:
    """Writes the trace of parquet files, see the module. Raises OSError for what is wrong with a file."""
    paths = [pathlib.Path(path) for path in inputs]
    names = _open(paths[0]).schema_arrow.names
    if "indices" in names:
        table: _Layers | _LongTable = _Layers(paths, layer_indices)
    elif {"layer", "token", "expert"} <= set(names):
        table = _LongTable(paths, layer_indices)
    else:
        raise OSError(f"{paths[0]}: has the columns {', '.join(names)}; expected indices, or layer, token and expert")
    found = table.top_k() if top_k is None else top_k
    if found < 1:
        raise OSError(f"{paths[0]}: has no choices")
    header = TraceHeader(num_experts=num_experts, top_k=found, layer_indices=table.layer_indices, model=model)
    writer = TraceWriter(output, header, has_weights=table.has_weights)
    table.write(writer, found, progress)
    writer.finish()
    return Trace(output)
