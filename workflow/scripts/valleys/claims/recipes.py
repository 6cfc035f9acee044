"""Experiment 6 as a study: ``<first recipe>_is_sharper`` (claim 9). Rule mean.

Factor ``recipe`` with two levels, and no other. A minimum's value is the width R / |w| at which the loss has
risen by the probe's target (second less first), or the greatest eigenvalue (first less second). The width at
the headline rise decides, of kinds filter and uniform over all parameters; all else stands beside.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from valleys.claims.minima import contrast
from valleys.claims.rows import Row
from valleys.claims.settings import Settings
from valleys.results import study_outcomes

_WIDE = {("filter", "all"), ("uniform", "all")}


def judge(study: study_outcomes.Study, plain: pd.DataFrame, settings: Settings) -> Iterator[Row]:
    """Experiment 6: whether the first of two recipes ends in the sharper minimum."""
    names = tuple(study_outcomes.text_of(one) for one in study.factors["recipe"])
    measures_of = (
        ("width", "width: R / |w|, mean over directions", "share of the norm", -1),
        ("eigenvalue", "greatest Hessian eigenvalue", "nats per squared 2-norm", 1),
    )
    present = [
        (str(probe), rows, *about)
        for about in measures_of
        for probe, rows in plain.groupby("probe", sort=True)
        if np.isfinite(rows[about[0]]).any()
    ]
    for probe, rows, measure, text, unit, sign in present:
        sides = [study.at(rows, "recipe", one) for one in study.factors["recipe"]][::sign]
        wide = measure == "width" and set(zip(rows["kind"], rows["group"], strict=True)) <= _WIDE
        yield contrast(
            f"{names[0].replace('-', '_')}_is_sharper",
            study,
            f"{names[0]} against {names[1]}/{probe}",
            f"recipe {names[0]} ends in a sharper minimum than recipe {names[1]}",
            *sides,
            settings,
            comparisons=len(present),
            names=names[::sign],
            number=9,
            decides=wide and settings.is_headline(probe),
            measure=measure,
            text=text,
            unit=unit,
            experiment=6,
        )
