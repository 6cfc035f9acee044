"""Experiment 12: the asymmetry of a direction against its agreement in sign with the weights.

``matching_signs_flattens``
    A minimum's value is Spearman's correlation of sign agreement and asymmetry index, over all directions of
    kind sign in one parameter group, each counted as u and as -u. Paired rule against 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from valleys.claims.rows import Row, paired_row
from valleys.results import measures
from valleys.results.measures import SETTING


def judge(asymmetry: pd.DataFrame, directions: pd.DataFrame, alpha: float, level: float) -> Iterator[Row]:
    """Experiment 12: the asymmetry of a direction against its agreement in sign with w, by cell and group."""
    for names, rows in measures.signs(asymmetry, directions).groupby([*SETTING, "group"], sort=True):
        probed = rows[~rows["mirrored"]]
        lost = int((~np.isfinite(probed["index"])).sum())
        notes = [f"directions a minimum: {probed.groupby('seed').size().max()}, each as u and as -u"]
        if lost:
            notes.append(f"{lost} of {len(probed)} directions left out: a side does not rise")
        yield paired_row(
            "matching_signs_flattens",
            "/".join(map(str, names)),
            "the more entries of a direction have the sign of w, the flatter is its + side",
            measures.correlations(rows),
            sign=1,
            measure="rank correlation of sign agreement and asymmetry index within a minimum (Spearman)",
            unit="correlation",
            alpha=alpha,
            level=level,
            note="; ".join(notes),
            experiment=12,
            at=0.0,
            limits=(-1, 1),
        )
