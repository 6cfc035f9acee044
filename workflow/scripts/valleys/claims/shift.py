"""Experiment 5: whether the test loss along a direction is the train loss shifted. Beside claim 7.

``test_loss_is_shifted`` (b = 0) and ``test_loss_is_shifted_and_lifted`` (b free)
    A direction's value is the share of the shift gap that the best shift removes, 1 - xi_delta* / xi_0, which
    is never below 0; a minimum's is the mean over its directions. Rule mean, above one half.
``shift_is_symmetric`` (b = 0)
    A direction's value is 1 where delta* points to the side where the train loss rises less, -1 where it
    points to the other, 0 where it is 0; a minimum's is the mean over its directions. Rule equivalence: the
    mean is within +-`LEAN`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from valleys.claims.rows import Row, count_of, equivalence_row, joined, mean_row
from valleys.claims.settings import Settings
from valleys.results import measures
from valleys.results.measures import SETTING

LEAN = 0.5
"""Mean leans within +-this are little: at most three directions one way for each the other. Fixed on
2026-11-27."""


def judge(shift: pd.DataFrame, asymmetry: pd.DataFrame, settings: Settings) -> Iterator[Row]:
    """Experiment 5: whether the test loss along a direction is the train loss shifted, by cell and probe."""
    found = measures.shifts(shift, asymmetry)
    for names, rows in found.groupby([*SETTING, "probe"], sort=True):
        scope, rise = "/".join(map(str, names)), settings.about_rise(str(names[-1]))
        fixed, free = (rows[rows["policy"] == policy] for policy in ("fixed", "free"))
        left = free["gap_zero"].reset_index(drop=True) / fixed["gap_zero"].reset_index(drop=True)
        yield _shifted_row(
            fixed,
            claim="test_loss_is_shifted",
            scope=scope,
            statement="along a direction the test loss is the train loss shifted",
            measure="share of the gap between test and train loss that the best shift removes, b = 0",
            notes=[rise],
            **settings.test,
        )
        yield _shifted_row(
            free,
            claim="test_loss_is_shifted_and_lifted",
            scope=scope,
            statement="along a direction the test loss is the train loss shifted and lifted by a constant",
            measure="share of the gap left by the best constant that the best shift removes, b free",
            notes=[rise, f"the constant alone removes {1 - _median(left):.0%} of the gap (median)"],
            **settings.test,
        )
        yield _symmetric_row(fixed, free, scope, rise, settings)


def _shifted_row(rows: pd.DataFrame, *, notes: list[str], **text: Any) -> Row:
    by_minimum = rows.groupby("seed")["share"].mean()  # of the directions that have a gap to remove
    lost = int(rows["share"].isna().sum())
    size = rows["delta"].abs()
    return mean_row(
        values=by_minimum,
        sign=1,
        unit="share",
        note=joined(
            *notes,
            f"directions a minimum: {rows.groupby('seed').size().max()}",
            f"directions without a finite gap, left out: {lost}" if lost else "",
            f"|delta*| is {_median(size):.2g} R (median), at the bound of R/4 in {(size > 0.2499).sum()}",
        ),
        at=0.5,
        limits=(0, 1),
        experiment=5,
        number=7,
        **text,
    )


def _symmetric_row(fixed: pd.DataFrame, free: pd.DataFrame, scope: str, rise: str, settings: Settings) -> Row:
    counts = [
        f"of directions, {count_of(rows['towards_flat'] > 0, np.abs(rows['towards_flat']) > 0)} {policy}"
        for rows, policy in ((fixed, "with b = 0"), (free, "with b free"))
    ]
    return equivalence_row(
        "shift_is_symmetric",
        scope,
        "the test loss is shifted towards the flatter side as often as towards the steeper",
        fixed.groupby("seed")["towards_flat"].mean(),  # a loss that is not finite leaves NaN, left out
        margin=LEAN,
        measure="mean over directions of 1 for a delta* towards the flatter side and -1 for the steeper",
        unit="mean sign",
        note=joined(rise, *counts),
        experiment=5,
        number=7,
        **settings.test,
    )


def _median(values: Any) -> float:
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else math.nan
