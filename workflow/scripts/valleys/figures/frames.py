"""What figures take from tables: cells, finite values, means with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats as sps

from valleys.config.catalogue import SOLUTIONS
from valleys.results.measures import SETTING

Data = Mapping[str, pd.DataFrame]
Spec = Mapping[str, Any]
Floats = NDArray[np.float64]
DIRECTION = [*SETTING, "seed", "solution", "probe", "k"]


def by_cell(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield label, recipe and rows of each cell, seeds together; several recipes are named in the label."""
    several = frame["recipe"].nunique() > 1
    for (dataset, model, recipe), part in frame.groupby(SETTING, sort=False):
        yield " / ".join([dataset, model, *([recipe] if several else [])]), recipe, part


def finite_of(values: Any) -> Floats:
    """Return those values that are finite, as a flat array."""
    values = np.asarray(values, dtype=np.float64)
    return values[np.isfinite(values)]


def mean_band(table: Floats, level: float) -> tuple[Floats, Floats, Floats]:
    """Return mean and t interval of each column of (seeds, points), over its finite values."""
    good = np.isfinite(table)
    n = good.sum(axis=0)
    safe = np.where(good, table, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = safe.sum(axis=0) / n
        spread = np.sqrt((np.where(good, table - mean, 0.0) ** 2).sum(axis=0) / (n - 1))
        half = sps.t.ppf((1 + level) / 2, np.where(n > 1, n - 1, np.nan)) * spread / np.sqrt(n)
    return mean, mean - half, mean + half


def at_first(table: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """Return the first solution that a table has, and its rows at it."""
    solution = next(iter(ordered(table["solution"])), "sgd")
    return solution, table[table["solution"] == solution]


def ordered(names: Any) -> list[str]:
    """Return names once each: solutions in the order they are made, then others as they come."""
    found = list(dict.fromkeys(names))
    return sorted(found, key=lambda n: SOLUTIONS.index(n) if n in SOLUTIONS else len(SOLUTIONS))
