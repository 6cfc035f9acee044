"""Experiment 12: the asymmetry of a direction against its agreement in sign with the weights (claim 12).

``matching_signs_flattens``
    A minimum's value is the slope of the asymmetry index on the share of agreeing signs, over all directions
    of kind sign in one parameter group, each counted as u and as -u (`measures.sign_slope`). Rule mean, above
    0, by setting and group. Probes that end at another rise, or whose directions are not orthogonal to w, are
    judged apart. Group all, orthogonal, at the headline rise decides where the setting may
    (`Settings.may_decide`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from valleys.claims.rows import Row, joined, mean_row
from valleys.claims.settings import Settings
from valleys.results import doubts, measures
from valleys.results.measures import SETTING


def judge(asymmetry: pd.DataFrame, directions: pd.DataFrame, settings: Settings) -> Iterator[Row]:
    """Experiment 12: the asymmetry of a direction against its agreement in sign with w, by cell and group."""
    signs = measures.signs(asymmetry, directions)
    how = pd.Series([_how(probe, settings) for probe in signs["probe"]], index=signs.index, dtype=str)
    for names, rows in signs.groupby([*SETTING, "group", how.rename("how")], sort=True):
        probe = rows["probe"].iloc[0]  # all of them end at one rise, and are orthogonal or not
        probed = rows[~rows["mirrored"]]
        lost = int((~np.isfinite(probed["index"])).sum())
        decides = settings.is_headline(probe) and settings.is_orthogonal(probe) and names[3] == "all"
        yield mean_row(
            "matching_signs_flattens",
            "/".join(str(name) for name in names if name),
            "the more entries of a direction have the sign of w, the flatter is its + side",
            measures.sign_slopes(rows),
            sign=1,
            measure="slope of the asymmetry index on the share of agreeing signs, within a minimum",
            unit="log ratio per share",
            note=joined(
                settings.about_rise(probe),
                f"directions a minimum: {probed.groupby('seed').size().max()}, each as u and as -u",
                f"{lost} of {len(probed)} directions left out: no index" if lost else "",
                doubts.about(probed),
            ),
            experiment=12,
            number=12,
            decides=decides and settings.may_decide(names[0], names[2]),
            **settings.test,
        )


def _how(probe: str, settings: Settings) -> str:
    """Name what directions of one row have in common: ``orthogonal, 2 nats``."""
    rise = settings.rise_of(probe)
    return ", ".join(
        part
        for part in (
            "orthogonal" if settings.is_orthogonal(probe) else "",
            "" if rise is None else f"{rise:g} nats",
        )
        if part
    )
