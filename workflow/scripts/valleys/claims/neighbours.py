"""Experiment 2: whether SGD and SWA lie in one neighbourhood (claim 10). Rule mean.

Both rows take straight lines between sgd and swa of one cell. A seed's value in

``sgd_and_swa_are_neighbours``
    is the barrier on its line: below `Settings.barrier`. Decides wherever the setting may
    (`Settings.may_decide`).
``swa_is_better_across_barriers``
    is SWA's test loss less SGD's, where the barrier on its line is not below that: below 0. Beside, and not
    decidable where no line has such a barrier.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from valleys.claims.rows import Row, barrier_row, joined, mean_row
from valleys.claims.settings import Settings
from valleys.results import measures
from valleys.results.measures import SETTING

_ENDS = {("sgd", "swa"), ("swa", "sgd")}


def judge(interpolation: pd.DataFrame, solutions: pd.DataFrame, settings: Settings) -> Iterator[Row]:
    """Experiment 2: barriers between sgd and swa of a cell, and SWA's test loss across them, by setting."""
    ends = pd.Series(
        [pair in _ENDS for pair in zip(interpolation["start"], interpolation["stop"], strict=True)],
        index=interpolation.index,
        dtype=bool,
    )
    lines = interpolation[ends & (measures.kind_of_line(interpolation) == "cell")]
    losses = solutions.set_index([*SETTING, "seed", "solution"])["test_loss"]
    for names, rows in lines.groupby([*SETTING, "line"], sort=True):
        scope = "/".join(map(str, names))
        found = measures.barriers(rows).set_index("seed")
        about = f"BN {rows['bn_policy'].iloc[0]} on the line"
        at_sgd, at_swa = (
            pd.Series([losses.get((*names[:3], seed, name), math.nan) for seed in found.index], found.index)
            for name in ("sgd", "swa")
        )
        apart = found["train"] >= settings.barrier
        yield barrier_row(
            "sgd_and_swa_are_neighbours",
            scope,
            "SGD and SWA lie in one neighbourhood: no barrier on the straight line between them",
            found["train"],
            claimed=False,
            at=settings.barrier,
            measure="greatest train loss above the chord between sgd and swa",
            note=joined(about, f"test-loss barrier {found['test'].mean():.3g} nats (mean)"),
            experiment=2,
            number=10,
            decides=settings.may_decide(names[0], names[2]),
            **settings.test,
        )
        yield mean_row(
            "swa_is_better_across_barriers",
            scope,
            "SWA's test loss is lower than SGD's also where a barrier lies between them",
            (at_swa - at_sgd)[apart],
            sign=-1,
            measure="test loss of swa - of sgd, where the barrier between them is "
            f"{settings.barrier:g} nats or more",
            unit="nats",
            note=joined(about, f"such a barrier on {int(apart.sum())} of {len(found)} lines"),
            experiment=2,
            number=10,
            **settings.test,
        )
