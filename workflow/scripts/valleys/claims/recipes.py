"""Experiment 6 as a study: ``<first recipe>_is_sharper``.

Factor ``recipe`` with two levels, and no other. Paired rule on the width R / |w| at which the loss has
risen by the probe's target (second less first), and on the greatest eigenvalue (first less second).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from valleys.claims.minima import contrast
from valleys.claims.rows import Row
from valleys.results import study_outcomes


def judge(study: study_outcomes.Study, plain: pd.DataFrame, alpha: float, level: float) -> Iterator[Row]:
    """Experiment 6: whether the first of two recipes ends in the sharper minimum."""
    names = tuple(study_outcomes.text_of(one) for one in study.factors["recipe"])
    measures_of = (
        ("width", "width: R / |w|, mean over directions", "share of the norm", -1),
        ("eigenvalue", "greatest Hessian eigenvalue", "nats per squared 2-norm", 1),
    )
    present = [
        (probe, rows, *about)
        for about in measures_of
        for probe, rows in plain.groupby("probe", sort=True)
        if np.isfinite(rows[about[0]]).any()
    ]
    for probe, rows, measure, text, unit, sign in present:
        sides = [study.at(rows, "recipe", one) for one in study.factors["recipe"]][::sign]
        yield contrast(
            f"{names[0].replace('-', '_')}_is_sharper",
            study,
            f"{names[0]} against {names[1]}/{probe}",
            f"recipe {names[0]} ends in a sharper minimum than recipe {names[1]}",
            *sides,
            comparisons=len(present),
            names=names[::sign],
            alpha=alpha,
            level=level,
            measure=measure,
            text=text,
            unit=unit,
            experiment=6,
        )
