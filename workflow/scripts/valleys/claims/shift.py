"""Experiment 5: whether the test loss along a direction is the train loss shifted.

``test_loss_is_shifted`` (b = 0) and ``test_loss_is_shifted_and_lifted`` (b free)
    A direction's value is the share of the shift gap that the best shift removes, 1 - xi_delta* / xi_0, which
    is never below 0; a minimum's is the mean over its directions. Paired rule against one half: supported
    when a shift removes most of the gap in significantly many minima, refuted when less than half.
``shift_is_symmetric`` (b = 0)
    A minimum counts when delta* points to the side where the train loss rises less in more of its directions
    than it points to the other (ties are left out). Symmetric rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from valleys.claims.rows import Row, count_of, paired_row, share_row
from valleys.claims.rules import SUPPORTED, symmetric_verdict
from valleys.results import measures, stats
from valleys.results.measures import SETTING


def judge(shift: pd.DataFrame, asymmetry: pd.DataFrame, alpha: float, level: float) -> Iterator[Row]:
    """Experiment 5: whether the test loss along a direction is the train loss shifted, by cell and probe."""
    found = measures.shifts(shift, asymmetry)
    for names, rows in found.groupby([*SETTING, "probe"], sort=True):
        scope = "/".join(map(str, names))
        fixed, free = (rows[rows["policy"] == policy] for policy in ("fixed", "free"))
        left = free["gap_zero"].reset_index(drop=True) / fixed["gap_zero"].reset_index(drop=True)
        yield _shifted_row(
            fixed,
            claim="test_loss_is_shifted",
            scope=scope,
            statement="along a direction the test loss is the train loss shifted",
            measure="share of the gap between test and train loss that the best shift removes, b = 0",
            alpha=alpha,
            level=level,
        )
        yield _shifted_row(
            free,
            claim="test_loss_is_shifted_and_lifted",
            scope=scope,
            statement="along a direction the test loss is the train loss shifted and lifted by a constant",
            measure="share of the gap left by the best constant that the best shift removes, b free",
            note=f"the constant alone removes {1 - _median(left):.0%} of the gap (median)",
            alpha=alpha,
            level=level,
        )
        yield _symmetric_row(fixed, free, scope, level)


def _shifted_row(rows: pd.DataFrame, *, note: str = "", **text: Any) -> Row:
    by_minimum = rows.groupby("seed")["share"].mean()  # of the directions that have a gap to remove
    notes = [note] if note else []
    notes.append(f"directions a minimum: {rows.groupby('seed').size().max()}")
    lost = int(rows["share"].isna().sum())
    if lost:
        notes.append(f"directions without a finite gap, left out: {lost}")
    size = rows["delta"].abs()
    notes.append(
        f"|delta*| is {_median(size):.2g} R (median), at the bound of R/4 in {(size > 0.2499).sum()}"
    )
    return paired_row(
        differences=by_minimum,
        sign=1,
        unit="share",
        note="; ".join(notes),
        experiment=5,
        at=0.5,
        limits=(0, 1),
        **text,
    )


def _symmetric_row(fixed: pd.DataFrame, free: pd.DataFrame, scope: str, level: float) -> Row:
    lean = fixed.groupby("seed")["towards_flat"].sum()  # NaN, where a loss is not finite, counts for nothing
    hits, n = int((lean > 0).sum()), int((lean != 0).sum())
    notes = [
        f"of directions, {count_of(rows['towards_flat'] > 0, rows['towards_flat'] != 0)} {policy}"
        for rows, policy in ((fixed, "with b = 0"), (free, "with b free"))
    ]
    if n < len(lean):
        notes.append(f"minima with as many on either side, left out: {len(lean) - n}")
    least = _least_symmetric(level)
    if n < least:
        notes.append(f"{n} minima cannot show symmetry; {least} can")
    row = share_row(
        "shift_is_symmetric",
        5,
        scope,
        "the test loss is shifted towards the flatter side as often as towards the steeper",
        hits,
        n,
        measure="share of SGD minima (seeds) where most delta* are towards the flatter side",
        level=level,
        note="; ".join(notes),
    )
    return row | {
        "verdict": symmetric_verdict(stats.wilson(hits, n, level)),
        "rule": "refuted: interval leaves out 0.5; else supported: interval within 0.25 and 0.75",
    }


def _least_symmetric(level: float) -> int:
    """Return the least (even) number of minima that can show symmetry."""
    return next(
        n for n in range(2, 1000, 2) if symmetric_verdict(stats.wilson(n // 2, n, level)) == SUPPORTED
    )


def _median(values: Any) -> float:
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else math.nan
