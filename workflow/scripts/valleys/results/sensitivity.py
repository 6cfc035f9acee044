"""What the verdict of Definition 1 owes to the windows admitted and to the level c.

Prevalence counts directions at one setting of these constants. Here the same curves are judged at a grid of
settings, controls beside the paper's directions, so that a property of the valley (the share hardly moves)
can be told from one of the windows (it follows them).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from valleys.asymmetry.definition import detect_many, reaches
from valleys.results.measures import DIRECTION, SETTING, on_all_points, user_solutions_as_recipes
from valleys.results.stats import wilson

ZETA_MAX = (0.25, 0.5, 0.75)
MIN_SPAN = (0.1, 0.25)
LEVELS = (1.5, 2.0, 3.0, 4.0)


def rows(curves: pa.Table, constants: Mapping[str, float], level: float) -> list[dict[str, Any]]:
    """Return the rows of the ``sensitivity`` table.

    Directions at the sgd solution, and at those under names of the user's own
    (`measures.user_solutions_as_recipes`); those of kind sign are experiment 12. As in prevalence, a
    direction along which the solution is no minimum, or a loss is not finite, counts as not asymmetric. A
    window needs an offset of the grid within zeta_max R and zeta_max + min_span of at most 1; settings for
    which there is none have no row.

    Parameters
    ----------
    curves
        The table of that name.
    constants
        The experiment's ``c, zeta_max, min_span, minimum_within, noise``; its first three join the grid.
    level
        Of the Wilson intervals, over directions of all seeds.
    """
    frame = on_all_points(user_solutions_as_recipes(curves.to_pandas()))
    frame = frame[(frame["solution"] == "sgd") & (frame["kind"] != "sign")]
    chosen = {key: float(constants[key]) for key in ("zeta_max", "min_span", "c")}
    windows = list(product(*(_with(grid, chosen[key]) for grid, key in _GRIDS)))
    found = []
    for names, part in frame.groupby([*SETTING, "probe", "kind"], sort=False):
        batches = list(_batches(part))
        n = sum(len(losses) for _, losses, _ in batches) + _not_finite(part)
        for zeta_max, min_span in windows:
            fits = zeta_max + min_span <= 1 + 1e-9
            if not fits or any(_first(offsets) > zeta_max * (1 + 1e-9) for offsets, _, _ in batches):
                continue
            options = {key: constants[key] for key in ("minimum_within", "noise")}
            options |= {"zeta_max": zeta_max, "min_span": min_span}
            levels = [
                verdict.c_star
                for offsets, losses, slopes in batches
                for verdict in detect_many(offsets, losses, slopes=slopes, **options)
            ]
            for c in _with(LEVELS, chosen["c"]):
                # Compared as `definition.detect` does; NaN, where there is no c*, is not at least c.
                hits = int(reaches(levels, c).sum())
                share = wilson(hits, n, level)
                setting = {"zeta_max": zeta_max, "min_span": min_span, "c": c}
                found.append(
                    {
                        **dict(zip([*SETTING, "probe", "kind"], names, strict=True)),
                        **setting,
                        "chosen": setting == chosen,
                        "n": n,
                        "asymmetric": hits,
                        "share": share.estimate,
                        "low": share.low,
                        "high": share.high,
                    }
                )
    return found


_GRIDS = ((ZETA_MAX, "zeta_max"), (MIN_SPAN, "min_span"))


def _with(grid: tuple[float, ...], own: float) -> list[float]:
    return sorted({*grid, own})


def _first(offsets: np.ndarray) -> float:
    """Return the first offset above 0 as a share of R, the greatest over curves."""
    return float((offsets[:, offsets.shape[1] // 2 + 1] / offsets[:, -1]).max())


def _batches(part: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Return offsets, losses and slopes (B, n), for each number of points and kind of slope there is."""
    groups: dict[tuple[int, bool], list[np.ndarray]] = {}
    for _, curve in part.groupby(DIRECTION, sort=False):
        table = curve.sort_values("offset")[["offset", *_LOSSES, "train_slope"]].to_numpy(dtype=np.float64)
        if np.isfinite(table[:, :3]).all():
            exact = bool(np.isfinite(table[:, 3]).all())
            groups.setdefault((len(table), exact), []).append(table)
    stacked = ((np.stack(tables), exact) for (_, exact), tables in groups.items())
    return [(t[..., 0], t[..., 1], t[..., 3] if exact else None) for t, exact in stacked]


_LOSSES = ["train_loss", "test_loss"]


def _not_finite(part: pd.DataFrame) -> int:
    finite = np.isfinite(part[_LOSSES]).all(axis=1)
    return int((~finite.groupby([part[key] for key in DIRECTION], sort=False).all()).sum())
