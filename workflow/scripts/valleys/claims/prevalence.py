"""Experiments 1 and 8: how many directions at SGD minima are asymmetric. Share rule."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from valleys.claims.rows import Row, joined, share_row
from valleys.results import measures
from valleys.results.measures import SETTING


def judge(
    asymmetry: pd.DataFrame,
    c: float,
    level: float,
    *,
    experiment: int = 1,
    within: str = "",
    about: str = "",
) -> Iterator[Row]:
    """Experiment 1: asymmetric directions at SGD minima, by data set, model, recipe and probe.

    Twice: by Definition 1, which asks for slopes that differ by c throughout a window, and by the rises at
    -R and R alone. The first is the stricter: a curve whose slope grows within the window by a factor g has
    c* at most 1/g of the ratio of its slopes. Directions of kind sign are experiment 12, searched ones 13.
    For studies: their experiment, what their scopes begin with, and a remark for the notes.
    """
    at_sgd = asymmetry[(asymmetry["solution"] == "sgd") & ~asymmetry["kind"].isin(["sign", "searched"])]
    for names, rows in at_sgd.groupby([*SETTING, "probe"], sort=True):
        scope = within + "/".join(map(str, names))
        hit = rows["status"] == "asymmetric"
        counts = rows["status"].value_counts()
        others = [f"{counts[s]} {s}" for s in ("not_minimum", "flat", "not_finite") if s in counts]
        minima = rows.groupby("seed").size()
        yield share_row(
            "directions_are_asymmetric",
            experiment,
            scope,
            "a direction at an SGD minimum is asymmetric (Definition 1) more often than not",
            int(hit.sum()),
            len(hit),
            measure="share of directions that are asymmetric, minima pooled",
            level=level,
            note=joined(
                f"minima: {len(minima)}, directions at each: {minima.max()}",
                *others,
                measures.uncertain(rows),
                about,
            ),
        )
        index = rows["asymmetry_index"]
        yield share_row(
            "rises_are_uneven",
            experiment,
            scope,
            f"at the ends of a line through an SGD minimum, one side has risen {c:g} times as much",
            int(measures.uneven(index, c).sum()),
            len(rows),
            measure=f"share of directions whose rises at -R and R differ {c:g}-fold or more, minima pooled",
            level=level,
            note=joined(f"steeper on the +u side in {(index < 0).sum()} of {len(rows)}", about),
        )
