"""From curves to rows of the ``asymmetry`` table: Definition 1 and the shift, direction by direction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from valleys import asymmetry
from valleys.errors import ValleysError
from valleys.tables import declared

_DIRECTION = ["dataset", "model", "recipe", "seed", "solution", "probe", "kind", "group", "k"]
_SHIFT = ("shift", "shift_gap", "shift_free", "shift_free_b", "shift_free_gap")


def judge(
    curves: pa.Table, directions: pa.Table, solutions: pa.Table, constants: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return one row of the ``asymmetry`` table for each direction.

    Parameters
    ----------
    curves, directions, solutions
        Tables of one or more cells.
    constants
        ``c, zeta_max, min_span, noise`` of `asymmetry.detect`.

    Raises
    ------
    ValleysError
        When a curve was measured from other weights than its solution's, or has no row in the other tables.
    """
    frame = curves.to_pandas()
    about = directions.to_pandas().set_index(_DIRECTION)
    stored = solutions.to_pandas().set_index(["dataset", "model", "recipe", "seed", "solution"])
    rows = []
    for names, curve in frame.groupby(_DIRECTION, sort=False):
        where = f"direction {'/'.join(map(str, names))}"
        for table, key, index in (("directions", names, about.index), ("solutions", names[:5], stored.index)):
            if key not in index:
                raise ValleysError(
                    f"{where} has no row in the table {table}; delete the cell's probes folder and rerun"
                )
        direction, own = about.loc[names], stored.loc[names[:5]]
        if direction["checksum"] != own["checksum"]:
            raise ValleysError(
                f"{where} was probed from other weights than the solution stored now; "
                "delete the cell's probes folder and rerun"
            )
        curve = curve.sort_values("offset")
        offsets, train, test = (curve[c].to_numpy() for c in ("offset", "train_loss", "test_loss"))
        row = dict(zip(_DIRECTION, names, strict=True)) | {"radius": float(direction["radius"])}
        rows.append(row | _verdict(offsets, train, test, constants))
    return rows


def _verdict(
    offsets: np.ndarray, train: np.ndarray, test: np.ndarray, constants: Mapping[str, float]
) -> dict[str, Any]:
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        columns = [c["name"] for c in declared()["asymmetry"]["columns"]]
        values = dict.fromkeys(columns[columns.index("c_star") : columns.index("radius")], math.nan)
        return {"status": "not_finite", **values, "flat_side": 0, **dict.fromkeys(_SHIFT, math.nan)}
    found = asymmetry.detect(offsets, train, **constants)
    plain = asymmetry.shift(offsets, train, test, free_offset=False)
    free = asymmetry.shift(offsets, train, test, free_offset=True)
    values = (plain.delta, plain.gap, free.delta, free.b, free.gap)
    return found.asdict() | dict(zip(_SHIFT, values, strict=True))
