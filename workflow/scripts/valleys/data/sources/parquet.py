"""Encoded images and labels in Parquet files, as Hugging Face has them."""

from __future__ import annotations

import glob
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from valleys.data.sources import base
from valleys.data.sources.base import Original, PartCount, source_line, too_large
from valleys.data.sources.decoding import decoded_images
from valleys.errors import ValleysError
from valleys.storage import files
from valleys.storage.state import require

_PARQUET_BATCH = 1024  # rows read at a time
_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "fine_label", "labels")


def read(spec: Mapping[str, Any]) -> tuple[Original, Original]:
    """Read parquet files of encoded images."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ValleysError(
            "the source 'parquet' needs pyarrow; install it with: pip install pyarrow"
        ) from error
    return _parquet_part(spec, "train"), _parquet_part(spec, "test")


def count(given: str | Sequence[str]) -> PartCount:
    """Add up the rows that footers declare."""
    import pyarrow.parquet as pq

    items = [given] if isinstance(given, str) else given
    paths = [path for item in items for path in files.matching(item)]
    looked = [files.check_regular(path) for path in paths[: base.MOST_FILES]]
    rows = sum(pq.read_metadata(path).num_rows for path in looked)
    return PartCount(math.ceil(rows * len(paths) / max(len(looked), 1)), exact=len(looked) == len(paths))


def _paths(given: str | Sequence[str], part: str) -> list[Path]:
    """Expand a path, a glob pattern, or a list of them; the files of a pattern are sorted by name."""
    paths: list[Path] = []
    for item in [given] if isinstance(given, str) else given:
        path = files.expand(item)
        if path.is_dir():
            raise ValleysError(
                f"the {part} path {path} is a folder; give its files, for instance {path}/*.parquet"
            )
        if path.is_file():
            paths.append(path)
            continue
        wanted = "give a parquet file, a pattern or a list"
        if not glob.has_magic(str(path)):
            files.check_regular(path, f"the {part} file", wanted)
        matches = sorted(map(Path, files.matching(item)))
        if not matches:
            raise ValleysError(f"the {part} pattern {path} matches no file; {wanted}")
        paths.extend(files.check_regular(match, f"the {part} file", wanted) for match in matches)
    return paths


def _column(names: Sequence[str], option: str, given: str | None, usual: Sequence[str], path: Path) -> str:
    """Return the column to read: the one given, else the first usual one that the file has."""
    for name in usual if given is None else (given,):
        if name in names:
            return name
    wanted = repr(given) if given is not None else f"named {' or '.join(map(repr, usual))}"
    raise ValleysError(
        f"{path} has no column {wanted}; it has: {', '.join(names)}; set {option} to the one that is meant"
    )


def _damaged(path: Path, error: BaseException) -> ValleysError:
    """Return the error for a parquet file that pyarrow cannot read."""
    return ValleysError(
        f"{path} is not a whole parquet file, truncated or damaged ({source_line(error)}); "
        "fetch or write it again"
    )


def _check_parquet(path: Path, columns: Sequence[str], max_bytes: float) -> None:
    """Raise when a file's footer declares more labels, or more of a group's images, than memory takes."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        about = file.metadata
        needs = [8.0 * about.num_rows]
        for group in range(about.num_row_groups):
            found = about.row_group(group)
            parts = (found.column(i) for i in range(found.num_columns))
            needs += [c.total_uncompressed_size for c in parts if c.path_in_schema.split(".")[0] in columns]
    if max(needs) > max_bytes:
        raise too_large(path, max(needs), max_bytes)


def _parquet_labels(path: Path, column: str) -> np.ndarray:
    """Read a file's labels, which must be integers, none missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            kind = file.schema_arrow.field(column).type
            if not pa.types.is_integer(kind):
                raise ValleysError(
                    f"{path}: the label column {column!r} has the type {kind}; it must hold integers"
                )
            values = file.read(columns=[column]).column(column)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    if values.null_count:
        row = values.is_null().to_numpy().argmax()
        raise ValleysError(
            f"{path}, row {row}: the label in column {column!r} is missing; it must be an integer"
        )
    return values.to_numpy().astype(np.int64)


def _parquet_bytes(path: Path, column: str, rows: np.ndarray) -> Iterator[tuple[bytes, str]]:
    """Yield the encoded images of a file's ascending ``rows``, each with its name in messages.

    Only the image column is read, a batch of rows at a time, and only row groups that hold a chosen row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def is_binary(kind: pa.DataType) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    try:
        with pq.ParquetFile(path) as file:
            kind = file.schema_arrow.field(column).type
            nested = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
            if not is_binary(kind.field("bytes").type if nested else kind):
                raise ValleysError(
                    f"{path}: the image column {column!r} has the type {kind}; "
                    f"it must hold encoded images: binary, or struct<bytes: binary, path: string>"
                )
            low = 0
            for group in range(file.num_row_groups):
                high = low + file.metadata.row_group(group).num_rows
                wanted = rows[(rows >= low) & (rows < high)]
                if len(wanted):
                    for batch in file.iter_batches(_PARQUET_BATCH, row_groups=[group], columns=[column]):
                        here = wanted[(wanted >= low) & (wanted < low + batch.num_rows)]
                        values = batch.column(0).take(pa.array(here - low))
                        for row, value in zip(here, values.to_pylist(), strict=True):
                            value = value.get("bytes") if nested and value is not None else value
                            where = f"{path}, row {row}"
                            if value is None:
                                raise ValleysError(
                                    f"{where}: column {column!r} holds no image bytes; the image itself "
                                    f"must be in the file, not only its path"
                                )
                            yield value, where
                        low += batch.num_rows
                low = high
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _parquet_part(spec: Mapping[str, Any], part: str) -> Original:
    """Find one part's files and columns and read its labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    require("pyarrow")
    columns, labels = [], []
    paths = _paths(spec[part], part)
    for path in paths:
        try:
            names = pq.read_schema(path).names
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error
        columns.append(_column(names, "image_column", spec["image_column"], _IMAGE_COLUMNS, path))
        label_column = _column(names, "label_column", spec["label_column"], _LABEL_COLUMNS, path)
        _check_parquet(path, (columns[-1], label_column), spec["max_bytes"])
        labels.append(_parquet_labels(path, label_column))
    starts = np.cumsum([0, *(len(values) for values in labels)])

    def encoded(rows: np.ndarray) -> Iterator[tuple[bytes, str]]:
        for path, column, low, high in zip(paths, columns, starts[:-1], starts[1:], strict=True):
            here = rows[(rows >= low) & (rows < high)] - low
            if len(here):
                yield from _parquet_bytes(path, column, here)

    def take(rows: np.ndarray) -> Iterator[np.ndarray]:
        return decoded_images(encoded(rows), len(rows), f"parquet {part}", spec)

    def where(row: int) -> str:
        file = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{paths[file]}, row {row - starts[file]}"

    return Original(np.concatenate(labels), take, where)
