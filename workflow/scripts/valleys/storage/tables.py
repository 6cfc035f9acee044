"""Parquet tables with declared schemas (``workflow/schemas/tables.yaml``), enforced on write and read.

Every file carries what produced it in its metadata: the config that decides its content and the versions
of the packages used. No times and no paths: the same run writes the same bytes. A checksum over these and all
values is checked on every read: Parquet's own, of its pages, do not cover page headers nor the file's footer.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from valleys.errors import ValleysError
from valleys.storage import files, schemas
from valleys.storage.state import require

SCHEMA_FILE = schemas.schema("tables.yaml")
PACKAGES = ("valleys", "snakemake", "torch", "numpy", "scipy", "pyarrow")
_ABOUT = ("table", "config", "versions")  # beside them the checksum, which tables of older runs lack

Rows = Sequence[Mapping[str, Any]]


@functools.cache
def declared() -> dict[str, dict[str, Any]]:
    """Return the declared tables: name -> ``{"meaning": ..., "columns": [{name, type, unit, ...}]}``."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast; not in every build of PyYAML
    raw = yaml.load(SCHEMA_FILE.read_text(encoding="utf-8"), loader)
    tables = {}
    for name, spec in raw.items():
        if name.startswith("_"):
            continue
        columns: list[dict[str, Any]] = []
        for entry in spec["columns"]:
            columns += entry if isinstance(entry, list) else [entry]
        tables[name] = {"meaning": spec["meaning"], "columns": columns}
    return tables


@functools.cache
def schema(table: str) -> pa.Schema:
    """Return the Arrow schema of a declared table; units and meanings are field metadata."""
    fields = []
    for column in declared()[table]["columns"]:
        about = {"meaning": column["meaning"]} | ({"unit": column["unit"]} if "unit" in column else {})
        kind = pa.bool_() if column["type"] == "bool" else pa.type_for_alias(column["type"])
        fields.append(pa.field(column["name"], kind, bool(column.get("optional", False)), about))
    return pa.schema(fields)


@functools.cache
def extras(table: str) -> frozenset[str]:
    """Return the columns that a file of a table lacks where no row has them; `read` gives nulls for them.

    So a column that only some probes have changes no byte of a file without such, and files from before
    there was one can be read.
    """
    return frozenset(c["name"] for c in declared()[table]["columns"] if c.get("optional") == "extra")


@functools.cache
def versions() -> Mapping[str, str]:
    """Return the versions of the packages a result depends on."""
    from valleys import __version__

    found = {"valleys": __version__}
    for package in PACKAGES[1:]:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write(path: str | Path, table: str, rows: Rows | pa.Table, config: object = None) -> None:
    """Write rows as a declared table, atomically.

    Parameters
    ----------
    rows
        Mappings with just the declared columns, or an Arrow table of them; those of `extras` may be left out.
    config
        JSON-able: what decided the content; kept in the file's metadata.

    Raises
    ------
    ValleysError
        When a column is missing, unknown, of another type, or null where the schema forbids it.
    """
    want = schema(table)
    if isinstance(rows, pa.Table):
        _check_names(table, set(rows.column_names), path)
        data = {name: rows[name] for name in want.names if name in rows.column_names}
        absent = {name for name in extras(table) if name not in data or data[name].null_count == len(rows)}
    else:
        for row in rows:
            _check_names(table, set(row), path)
        data = {name: [row.get(name) for row in rows] for name in want.names}
        absent = {name for name in extras(table) if all(value is None for value in data[name])}
    want = pa.schema([field for field in want if field.name not in absent])
    columns = []
    for field in want:
        try:
            values = data[field.name]
            columns.append(_cast(pa.array(values) if isinstance(values, list) else values, field.type))
        except (pa.ArrowException, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ValleysError(
                f"table {table} for {path}: column {field.name} is not {field.type}: {reason}; "
                f"see {SCHEMA_FILE.name}"
            ) from error
    data = pa.table(columns, schema=want)
    for field in want:
        if not field.nullable and data[field.name].null_count:
            raise ValleysError(
                f"table {table} for {path}: column {field.name} has nulls; see {SCHEMA_FILE.name}"
            )
    about = json.loads(json.dumps({"table": table, "config": config, "versions": versions()}, default=str))
    about["checksum"] = checksum(data, about)
    data = data.replace_schema_metadata({"valleys": _dump(about)})
    with files.atomic(path) as temporary:
        encode(data, temporary)


def encode(data: pa.Table, where: Any) -> None:
    """Write a table that `write` made, or `read` returned, to a path or binary file: the same bytes."""
    pq.write_table(data, where, compression="zstd", write_page_checksum=True)


def _dump(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True)


def checksum(data: pa.Table, about: Mapping[str, Any] = {}) -> str:
    """Return the SHA-256 of a table's columns (names, types, nulls, values) and of JSON-able `about`.

    It is that of the values, not of how Arrow holds them: chunks, dictionaries and the bits of a NaN, which
    Parquet does not keep, have no part in it.
    """
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for field in data.schema:
        digest.update(f"\x1f{field.name}\x1f{field.type}\x1f{data.num_rows}\x1f".encode())
        if pa.types.is_string(field.type):
            column = data[field.name].cast(pa.large_string()).combine_chunks()
            _, offsets, characters = (text := column.fill_null("")).buffers()
            ends = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1]
            digest.update(np.diff(ends))
            digest.update(memoryview(characters or b"")[int(ends[0]) : int(ends[-1])] if len(text) else b"")
        else:
            column = data[field.name].combine_chunks()
            empty = False if pa.types.is_boolean(field.type) else 0
            values = column.fill_null(empty).to_numpy(zero_copy_only=False)
            if pa.types.is_floating(field.type):
                values = np.where(np.isnan(values), np.nan, values)
            digest.update(np.ascontiguousarray(values))
        digest.update(np.packbits(column.is_valid().to_numpy(zero_copy_only=False)))
    return digest.hexdigest()


def _cast(column: pa.Array | pa.ChunkedArray, want: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """Cast within a kind (and whole numbers to float64); Arrow's own cast would turn text into numbers."""
    types, have = pa.types, column.type
    allowed = {
        pa.string(): types.is_string(have) or types.is_large_string(have) or types.is_string_view(have),
        pa.int64(): types.is_integer(have),
        pa.float64(): types.is_floating(have) or types.is_integer(have),
        pa.bool_(): types.is_boolean(have),
    }
    if not (allowed[want] or types.is_null(have)):
        raise TypeError(f"it holds {have}")
    return pa.nulls(len(column), want) if types.is_null(have) else column.cast(want)


def _check_names(table: str, names: set[str], path: str | Path) -> None:
    want = set(schema(table).names) - (extras(table) - names)
    if names != want:
        wrong = [f"missing {n}" for n in sorted(want - names)] + [
            f"unknown {n}" for n in sorted(names - want)
        ]
        raise ValleysError(f"table {table} for {path}: {', '.join(wrong)}; see {SCHEMA_FILE.name}")


def read(path: str | Path, table: str, *, fill: bool = True) -> pa.Table:
    """Read a table written by `write`.

    Parameters
    ----------
    fill
        Whether to add nulls for those of `extras` that it lacks.

    Raises
    ------
    ValleysError
        When the file is absent, truncated, not Parquet, or has other columns than declared, or when its
        content does not match its checksum.
    """
    path = Path(path)
    if not path.is_file():
        raise ValleysError(f"table {path} does not exist; rerun the rule that makes it")
    want = schema(table)
    require("pyarrow")
    try:
        data = pq.read_table(path, page_checksum_verification=True)
        absent = extras(table) - set(data.schema.names)
        there = [field for field in want if field.name not in absent]
        same = data.schema.names == [f.name for f in there] and data.schema.types == [f.type for f in there]
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:  # of a name, UnicodeDecodeError
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValleysError(
            f"table {path} is truncated or not Parquet ({reason}); delete it and rerun"
        ) from error
    if not same:
        raise ValleysError(
            f"table {path} does not have the columns declared for {table}; delete it and rerun"
        )
    try:
        said = json.loads((data.schema.metadata or {})[b"valleys"])
        kept = said.pop("checksum", None)
        right = set(said) == set(_ABOUT) and kept in (None, checksum(data, said))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValleysError(f"table {path} does not say what made it; delete it and rerun") from error
    if not right:
        raise ValleysError(f"table {path} does not match its checksum; delete it and rerun")
    # As it was written, also where a bit that says nothing has flipped: `encode` gives the same bytes.
    said |= {} if kept is None else {"checksum": kept}
    whole = pa.schema([want.field(name) for name in data.schema.names], {"valleys": _dump(said)})
    data = pa.Table.from_arrays(data.columns, schema=whole)
    if not absent or not fill:
        return data
    columns = [pa.nulls(len(data), f.type) if f.name in absent else data[f.name] for f in want]
    return pa.table(columns, schema=want.with_metadata(data.schema.metadata))


def of_run(folder: Path, table: str, command: str = "") -> Path:
    """Return the path of a table of a finished run.

    Parameters
    ----------
    folder
        Of the run, as in ``results/default``.
    command
        Begins the error, as in ``compare: ``.

    Raises
    ------
    ValleysError
        When the folder does not have it.
    """
    path = folder / "tables" / f"{table}.parquet"
    if not path.is_file():
        raise ValleysError(
            f"{command}{folder} has no tables/{table}.parquet; "
            "give the folder of a finished run, results/<name>"
        )
    return path


def about(path: str | Path) -> dict[str, Any]:
    """Return what produced a table: ``{"table", "config", "versions"}``, and its ``checksum``."""
    return json.loads(pq.read_schema(path).metadata[b"valleys"])


def name_in(path: str | Path) -> str:
    """Return the name under which a table file's columns are declared, as its metadata say.

    Raises
    ------
    ValleysError
        When the file is no table of this workflow.
    """
    try:
        name = about(path)["table"]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise ValleysError(f"table {path} does not say what it holds; delete it and rerun") from error
    if name not in declared():
        raise ValleysError(
            f"table {path} holds {name!r}, which is not declared in {SCHEMA_FILE.name}; delete it and rerun"
        )
    return name


def filled(frame: Any, table: str) -> Any:
    """Return a data frame of a declared table with nulls for those of `extras` that it lacks.

    Parameters
    ----------
    frame
        DataFrame with the columns of `table`, or some of them.
    table
        Name of the declaration.
    """
    absent = [c for c in declared()[table]["columns"] if c["name"] in extras(table) - set(frame.columns)]
    empty = {c["name"]: None if c["type"] in ("bool", "string") else math.nan for c in absent}
    return frame.assign(**empty) if empty else frame


def frames(paths: Iterable[str | Path]) -> dict[str, Any]:
    """Read tables into data frames by the name of their declaration, for claims and figures.

    Files with the same columns are stacked: those of several studies, with a column ``study`` (the file's
    name), and lines of the grid's cells with those of studies (rows that are in both are kept once).
    """
    named = [(path.stem, name_in(path), path) for path in map(Path, paths)]
    return stack((stem, name, read(path, name).to_pandas()) for stem, name, path in named)


def stack(parts: Iterable[tuple[str, str, Any]]) -> dict[str, Any]:
    """Stack data frames as `frames` does; each comes with its file's name and that of its declaration.

    Those of declared tables have all columns, also where a file lacks some (`extras`).
    """
    import pandas as pd

    found: dict[str, list[Any]] = {}
    for file, name, part in parts:
        frame = filled(part, name) if name in declared() else part
        found.setdefault(name, []).append(frame.assign(study=file) if name == "study" else frame)
    return {
        name: same[0] if len(same) == 1 else pd.concat(same, ignore_index=True).drop_duplicates()
        for name, same in found.items()
    }


def concat(paths: Iterable[str | Path], table: str) -> pa.Table:
    """Read and stack files of one declared table, in the order given; an empty table when there are none."""
    parts = [read(path, table).replace_schema_metadata(None) for path in paths]
    return pa.concat_tables(parts) if parts else schema(table).empty_table()
