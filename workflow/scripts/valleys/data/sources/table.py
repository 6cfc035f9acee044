"""Numbers in CSV and Parquet files, a row an example."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from valleys.data.sources.base import Original, PartCount, source_line, too_large
from valleys.data.sources.examples import from_examples
from valleys.data.tasks import task_of
from valleys.errors import ValleysError, did_you_mean
from valleys.storage import files

if TYPE_CHECKING:
    import pandas as pd

_COUNTED = 2**28  # bytes of a CSV file whose lines are counted


def read(spec: Mapping[str, Any]) -> tuple[Original, Original]:
    """Read one or two files; of one, rows are cut off at random."""
    task, names = task_of(spec), _columns(spec)
    train = _arrays(spec, "train", *names, task)
    if spec["test"] is not None:
        test = _arrays(spec, "test", *names, task)
        return from_examples(*train, task, spec["train"]), from_examples(*test, task, spec["test"])
    size, n = spec["train_size"], len(train[0])
    if size >= n:
        raise ValleysError(f"train_size is {size}, but {spec['train']} has {n} rows; it must be below that")
    order = np.random.default_rng(spec["split_seed"]).permutation(n)
    parts = [
        from_examples(
            train[0][rows], None if train[1] is None else train[1][rows], task, f"{spec['train']} {name}"
        )
        for rows, name in zip(np.split(order, [size]), ("train", "test"), strict=True)
    ]
    return parts[0], parts[1]


def count(given: str) -> PartCount:
    """Count the rows: of Parquet by its footer, of a CSV file that is not large by its lines."""
    path = files.check_regular(files.expand(given))
    if _is_parquet(path):
        import pyarrow.parquet as pq

        return PartCount(pq.read_metadata(path).num_rows, itemsize=4)
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_COUNTED)
    lines = head.count(b"\n") - 1 + (not head.endswith(b"\n"))
    rows = max(0, round(lines * size / max(len(head), 1)))
    return PartCount(rows, exact=size <= len(head), itemsize=4)


def shape(spec: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of one input by the names of columns and the first row."""
    path = files.check_regular(files.expand(spec["train"]))
    inputs, labels = _columns(spec)
    if not _is_parquet(path):
        with path.open(encoding="utf-8", newline="") as file:
            there = next(csv.reader(file))
        return (len(inputs) or len([name for name in there if name not in labels]),)
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        chosen = inputs or [name for name in file.schema_arrow.names if name not in labels]
        row = next(file.iter_batches(1, columns=chosen)).to_pylist()[0]
    values = [np.asarray(row[name]) for name in chosen]
    return values[0].shape or (1,) if len(values) == 1 else (sum(value.size for value in values),)


def _columns(spec: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the names that the entry gives, of inputs and of labels."""
    inputs, labels = (
        [] if spec[key] is None else [spec[key]] if isinstance(spec[key], str) else list(spec[key])
        for key in ("inputs", "labels")
    )
    return inputs, labels


def _arrays(
    spec: Mapping[str, Any], part: str, inputs: Sequence[str], labels: Sequence[str], task: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read one file's columns."""
    path = files.check_regular(files.expand(spec[part]), f"the {part} file", "give a CSV or Parquet file")
    if path.stat().st_size > spec["max_bytes"]:
        raise too_large(path, path.stat().st_size, spec["max_bytes"])
    frame = _frame(path)
    for name in (*inputs, *labels):
        if name not in frame:
            known = ", ".join(map(str, frame))
            raise ValleysError(f"{path} has no column {name!r}{did_you_mean(name, frame)}; it has: {known}")
    chosen = list(inputs) or [name for name in frame if name not in labels]
    both = sorted(set(chosen) & set(labels))
    if both:
        raise ValleysError(f"{path}: column {both[0]!r} is named as input and as label; choose")
    if not chosen:
        raise ValleysError(f"{path} has no columns besides the labels; there must be an input")
    if not len(frame):
        raise ValleysError(f"{path} has no rows; there must be one or more")
    return _array(frame, chosen, path), _array(frame, labels, path) if labels else None


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _frame(path: Path) -> pd.DataFrame:
    """Read a file, of Parquet or else of CSV."""
    import pandas as pd

    from valleys.storage.state import require

    kind = "Parquet" if _is_parquet(path) else "CSV"
    try:
        if kind == "Parquet":
            require("pyarrow")
            return pd.read_parquet(path)
        return pd.read_csv(path)
    except Exception as error:  # pyarrow and pandas raise many types on damaged files
        raise ValleysError(f"{path} cannot be read as a {kind} file ({source_line(error)})") from error


def _array(frame: pd.DataFrame, names: Sequence[str], path: Path) -> np.ndarray:
    """Return columns side by side: (N,) of one column of numbers, (N, K) of more, or of lists as long."""
    columns = []
    for name in names:
        column = frame[name]
        if column.isna().any():
            row = int(column.isna().to_numpy().argmax())
            raise ValleysError(f"{path}, row {row}: column {name!r} is empty; it must hold numbers")
        values = column.to_numpy()
        if values.dtype == object:
            values = _stacked(values, name, path)
        if values.dtype.kind not in "fiub":
            raise ValleysError(f"{path}: column {name!r} is of {column.dtype}; it must hold numbers")
        columns.append(values)
    if len(columns) == 1:
        return columns[0]
    return np.concatenate([c.reshape(len(c), -1) for c in columns], axis=1)


def _stacked(values: np.ndarray, name: str, path: Path) -> np.ndarray:
    """Return a column of lists as one array."""
    wanted = "it must hold numbers, or lists of numbers that are all as long"
    if isinstance(values[0], str):
        raise ValleysError(f"{path}, row 0: column {name!r} is {values[0]!r}; {wanted}")
    try:
        return np.stack([np.stack(value) if _is_nested(value) else np.asarray(value) for value in values])
    except (ValueError, TypeError) as error:
        raise ValleysError(f"{path}: column {name!r}: {wanted} ({source_line(error)})") from error


def _is_nested(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == object
