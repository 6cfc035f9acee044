"""From curves to rows of the ``asymmetry`` and ``shift`` tables, direction by direction."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from valleys.asymmetry.confidence import GROUPS, settled_status
from valleys.asymmetry.definition import detect
from valleys.asymmetry.shifts import shift, shift_curve
from valleys.errors import ValleysError
from valleys.results.measures import ERROR_PARTS, POLICIES, on_all_points
from valleys.storage.tables import declared, filled

_DIRECTION = ["dataset", "model", "recipe", "seed", "solution", "probe", "kind", "group", "k"]
SHIFTS = np.arange(-10, 11) / 40
"""Shifts of the ``shift`` table, as shares of R: -1/4, the largest that `shifts.shift` tries, to 1/4."""
ALPHA = 0.05
"""Chance that a verdict which is called certain on a subset of images is not that of all, at most."""
_FREEDOM = {"refreshed": GROUPS - 1}  # of errors that come from groups of images
_POINT = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
_SHIFT = ("shift", "shift_gap", "shift_free", "shift_free_b", "shift_free_gap")


def judge(
    curves: pa.Table, directions: pa.Table, solutions: pa.Table, constants: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return one row of the ``asymmetry`` table for each direction.

    Slopes are the exact ones where a curve has a finite one at every point, else differences. ``certain`` is
    there for curves with errors (`subsets.with_errors`).

    Parameters
    ----------
    curves, directions, solutions
        Tables of one or more cells.
    constants
        ``c, zeta_max, min_span, noise`` of `definition.detect`.

    Raises
    ------
    ValleysError
        When a curve was measured from other weights than its solution's, or has no row in the other tables.
    """
    frame = filled(on_all_points(curves.to_pandas()), "curves")
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
        exact = curve["train_slope"].to_numpy(dtype=np.float64, na_value=math.nan)
        slopes = exact if np.isfinite(exact).all() else None
        row = dict(zip(_DIRECTION, names, strict=True)) | {"radius": float(direction["radius"])}
        row["radius_status"] = direction["radius_status"]
        row |= _verdict(offsets, train, test, slopes, constants)
        errors = curve[ERROR_PARTS].to_numpy(dtype=np.float64, na_value=math.nan).T
        if (settled := direction.get("settled")) is not None and not pd.isna(settled):
            row["certain"] = bool(settled)
        elif np.isfinite(errors).all() and slopes is None and row["status"] != "not_finite":
            options = {"alpha": ALPHA, "freedom": _FREEDOM.get(direction["bn_policy"], math.inf), **constants}
            row["certain"] = settled_status(offsets, train, errors, **options) is not None
        rows.append(row)
    return rows


def study(
    curves: pa.Table, directions: pa.Table, solutions: pa.Table, spec: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the rows of a ``study`` table: `judge`'s verdicts with the levels of the study's factors.

    Where the study has ``penalty``, each curve is judged a second time with what SGD descends beside the
    loss, ``weight_decay / 2 |w + l u|^2``. It is known without another probe: up to a constant it is
    ``weight_decay (l <w, u> + l^2 / 2)``.

    Parameters
    ----------
    curves, directions, solutions
        Tables of the study's cells; rows of other probes and solutions are left out.
    spec
        ``asymmetry`` (constants), ``probes`` and ``solutions`` (names) and ``cells``: their names with
        ``levels`` and ``weight_decay`` (None where no penalty is asked for).

    Raises
    ------
    ValleysError
        As `judge`.
    """
    for column, key in (("probe", "probes"), ("solution", "solutions")):
        wanted = pa.array(spec[key], pa.string())
        curves, directions = (t.filter(pc.is_in(t[column], wanted)) for t in (curves, directions))
    cells = {tuple(cell[key] for key in _DIRECTION[:4]): cell for cell in spec["cells"]}
    about = directions.to_pandas().set_index(_DIRECTION)
    losses = solutions.to_pandas().set_index([*_DIRECTION[:4], "solution"])
    passes = [(False, judge(curves, directions, solutions, spec["asymmetry"]))]
    if any(cell["weight_decay"] for cell in spec["cells"]):
        decays = {names: cell["weight_decay"] or 0.0 for names, cell in cells.items()}
        penalised = _with_penalty(curves, about["projection"], decays)
        passes.append((True, judge(penalised, directions, solutions, spec["asymmetry"])))
    rows = []
    for penalty, verdicts in passes:
        for verdict in verdicts:
            names = tuple(verdict[key] for key in _DIRECTION)
            own, direction = losses.loc[names[:5]], about.loc[names]
            row = {key: value for key, value in verdict.items() if not key.startswith("shift")}
            row |= {"levels": json.dumps(cells[names[:4]]["levels"]), "penalty": penalty}
            row |= {key: float(own[key]) for key in ("weight_norm", *_POINT)}
            row |= {"bn_policy": direction["bn_policy"]}
            row |= {"sign_agreement": float(direction["sign_agreement"])}
            for key, of in (("eigenvalue", direction), ("gradient_gain", own)):
                row[key] = None if pd.isna(of[key]) else float(of[key])
            rows.append(row | _swa_against_others(losses, names[:4], spec["solutions"]))
    return rows


def _swa_against_others(
    losses: pd.DataFrame, cell: tuple[Any, ...], made: Collection[str]
) -> dict[str, float | None]:
    """Return SWA's rise in train loss and gain in test loss over descent and over sgd; None without them."""
    row: dict[str, float | None] = {}
    for name, of in (("descent", ""), ("sgd", "_sgd")):
        rise, gain = None, None
        if {"swa", name} <= set(made):
            swa, other = (losses.loc[(*cell, solution)] for solution in ("swa", name))
            rise = float(swa["train_loss"] - other["train_loss"])
            gain = float(other["test_loss"] - swa["test_loss"])
        row |= {f"swa_rise{of}": rise, f"swa_gain{of}": gain}
    return row


def _with_penalty(curves: pa.Table, projection: pd.Series, decays: Mapping[Any, float]) -> pa.Table:
    """Return the curves of cells with weight decay, the change of the penalty added to losses and slopes."""
    frame = curves.to_pandas()
    decay = np.array([decays[key] for key in zip(*(frame[c] for c in _DIRECTION[:4]), strict=True)])
    frame, decay = frame[decay > 0].reset_index(drop=True), decay[decay > 0]
    along = projection.loc[pd.MultiIndex.from_frame(frame[_DIRECTION])].to_numpy()
    l = frame["offset"].to_numpy()  # noqa: E741 (the paper's letter)
    change = decay * (l * along + l**2 / 2)
    for column in ("train_loss", "test_loss"):
        frame[column] += change
    frame["train_slope"] = frame["train_slope"].astype(float) + decay * (along + l)
    return pa.Table.from_pandas(frame, schema=curves.schema, preserve_index=False)


def shift_curves(curves: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of the ``shift`` table: the gap at each of `SHIFTS`, with b = 0 and with b free.

    Parameters
    ----------
    curves
        The table of that name, of one or more cells; `judge` checks it.
    """
    rows = []
    for names, curve in on_all_points(curves.to_pandas()).groupby(_DIRECTION, sort=False):
        curve = curve.sort_values("offset")
        offsets, train, test = (curve[c].to_numpy() for c in ("offset", "train_loss", "test_loss"))
        finite = np.isfinite(train).all() and np.isfinite(test).all()
        for policy in POLICIES:
            gaps = np.full(len(SHIFTS), math.nan)
            if finite:
                gaps = shift_curve(
                    offsets,
                    train,
                    test,
                    SHIFTS * offsets[-1],
                    max_shift=offsets[-1] / 4,
                    free_offset=policy == "free",
                )
            zero = float(gaps[SHIFTS == 0].item())
            rows += [
                dict(zip(_DIRECTION, names, strict=True))
                | {"policy": policy, "delta_over_r": float(delta), "gap": float(gap)}
                | {"relative_gap": float(gap) / zero if zero > 0 else math.nan}
                for delta, gap in zip(SHIFTS, gaps, strict=True)
            ]
    return rows


def _verdict(
    offsets: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    slopes: np.ndarray | None,
    constants: Mapping[str, float],
) -> dict[str, Any]:
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        columns = [c["name"] for c in declared()["asymmetry"]["columns"]]
        values = dict.fromkeys(columns[columns.index("c_star") : columns.index("radius")], math.nan)
        return {"status": "not_finite", **values, "flat_side": 0, **dict.fromkeys(_SHIFT, math.nan)}
    found = detect(offsets, train, slopes=slopes, **constants)
    plain = shift(offsets, train, test, free_offset=False)
    free = shift(offsets, train, test, free_offset=True)
    values = (plain.delta, plain.gap, free.delta, free.b, free.gap)
    return found.asdict() | dict(zip(_SHIFT, values, strict=True))
