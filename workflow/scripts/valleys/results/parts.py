"""Tables of the whole experiment put together in memory from those of its cells, as rules do it in files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa

from valleys.config.catalogue import LINES
from valleys.results import detection
from valleys.storage import tables


def frames(
    files: Mapping[str, Iterable[str]], studies: Mapping[str, Mapping[str, Any]]
) -> dict[str, pd.DataFrame]:
    """Return the tables that claims are judged from, by name, as `tables.frames` returns those in files.

    Parameters
    ----------
    files
        The files whose rows make up a table, by its name; those that the table of a study is made from by
        ``<study>/curves``, ``<study>/directions`` and ``<study>/solutions``.
    studies
        Study to what its table is made with (`valleys.config.params.Params.study`).

    Raises
    ------
    ValleysError
        When a file is absent or damaged, or as `detection.study`.
    """
    parts: list[tuple[str, str, pd.DataFrame]] = []
    for name, paths in files.items():
        if "/" not in name:
            declared = "interpolation" if name.endswith(LINES) else name
            parts.append((name, declared, tables.concat(paths, declared).to_pandas()))
    for name, spec in studies.items():
        inputs = (tables.concat(files[f"{name}/{of}"], of) for of in ("curves", "directions", "solutions"))
        rows = detection.study(*inputs, spec)
        parts.append((name, "study", pa.Table.from_pylist(rows, tables.schema("study")).to_pandas()))
    return tables.stack(parts)
