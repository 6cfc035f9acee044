"""Words of captions: numbers, shares and intervals as they are written for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from valleys.figures.frames import finite_of
from valleys.results.stats import mean_interval

LISTED = 6  # findings told one by one in a caption; more are told as a range
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def number(value: float, digits: int = 3) -> str:
    """Write a number for people: significant digits, a true minus sign, powers of ten written out."""
    if not np.isfinite(value):
        return "not finite"
    if value and not 1e-4 <= abs(value) < 1e5:
        leading, power = f"{value:.{digits - 1}e}".split("e")
        text = f"{leading} × 10{str(int(power)).translate(_RAISED)}"
    else:
        text = f"{value:.0f}" if abs(value) >= 10**digits - 0.5 else f"{value:.{digits}g}"
    return text.replace("-", "−")


def percent(share: float) -> str:
    """Write a share as a percentage, to a tenth."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %" if np.isfinite(share) else "not finite"


def mean_of(values: Any) -> float:
    """Return the mean of the finite values, NaN where there is none."""
    good = finite_of(values)
    return float(good.mean()) if len(good) else float("nan")


def counted(n: int, thing: str) -> str:
    """Write a number of things, in the singular or plural."""
    return f"{n} {thing}{'' if n == 1 else 's'}"


def interval_of(
    values: Any, level: float, sign: bool = False, limits: tuple[float, float] = (-np.inf, np.inf)
) -> str:
    """Write a mean over finite values and its t interval, cut at `limits`; a plus sign where asked for."""
    found = mean_interval(finite_of(values), level)
    plus = "+" if sign and found.estimate > 0 else ""
    if not np.isfinite(found.low):
        return f"{plus}{number(found.estimate)}"
    low, high = (number(float(np.clip(end, *limits))) for end in (found.low, found.high))
    return f"{plus}{number(found.estimate)} ({low} to {high})"


def range_of(values: Any) -> str:
    """Write the least and the greatest of the finite values."""
    good = finite_of(values)
    if not len(good):
        return "not finite"
    low, high = number(good.min()), number(good.max())
    return low if low == high else f"{low} to {high}"


def listed(told: Sequence[tuple[str, str]], most: int = LISTED) -> str:
    """Return findings, one a line; past `most` only so many are written, and how many more there are."""
    lines = [f"\n• {label}: {words}" for label, words in told[:most]]
    if len(told) > most:
        lines.append(f"\n• and {len(told) - most} more (see the tables)")
    return "".join(lines)


def recipe_note(table: pd.DataFrame) -> str:
    """Name the recipe where there is one only: then labels of cells leave it out."""
    recipes = list(dict.fromkeys(table["recipe"]))
    return f"Recipe: {recipes[0]}. " if len(recipes) == 1 else ""
