"""Experiment 2: SWA against the solution that SGD reaches from it. Paired rule."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from valleys.claims.rows import Row, paired_row
from valleys.results import measures
from valleys.results.measures import SETTING


def judge(solutions: pd.DataFrame, interpolation: pd.DataFrame, alpha: float, level: float) -> Iterator[Row]:
    """Experiment 2: SWA against the solution that SGD descends to from it, paired over seeds."""
    for names, rows in solutions.groupby(SETTING, sort=True):
        scope = "/".join(map(str, names))
        if not {"swa", "descent"} <= set(rows["solution"]):
            continue  # not made, or not given
        wide = rows.pivot(index="seed", columns="solution")
        for column, sign, word, unit in (
            ("train_loss", 1, "train loss is higher", "nats"),
            ("test_loss", -1, "test loss is lower", "nats"),
            ("test_accuracy", 1, "test accuracy is higher", "share"),
        ):
            yield paired_row(
                f"swa_{column}",
                scope,
                f"SWA's {word} than that of the solution SGD reaches from it",
                wide[column]["swa"] - wide[column]["descent"],
                sign=sign,
                measure=f"{column.replace('_', ' ')} of swa - of descent",
                unit=unit,
                alpha=alpha,
                level=level,
            )
    lines = interpolation[
        (interpolation["start"] == "swa")
        & (interpolation["stop"] == "descent")
        & (measures.kind_of_line(interpolation) == "cell")
    ]
    for names, rows in lines.groupby([*SETTING, "line"], sort=True):
        scope = "/".join(map(str, names))
        measured = pd.DataFrame({seed: line_measures(line) for seed, line in rows.groupby("seed")}).T
        about = f"BN {rows['bn_policy'].iloc[0]} on the line"
        if measured["mirror"].notna().any():
            yield paired_row(
                "swa_on_flat_side",
                scope,
                "SWA lies on the flat side of the minimum on its line to descent",
                measured["mirror"],
                sign=1,
                measure="train loss at swa's mirror image about the line's minimum - at swa",
                unit="nats",
                alpha=alpha,
                level=level,
                note=about,
            )
        yield paired_row(
            "test_minimum_towards_swa",
            scope,
            "on the line the test loss is least nearer to SWA than the train loss is",
            measured["argmin"],
            sign=-1,
            measure="t of least test loss - t of least train loss (swa at 0, descent at 1)",
            unit="distance from swa to descent",
            alpha=alpha,
            level=level,
            note=about,
        )


def line_measures(line: pd.DataFrame) -> dict[str, float]:
    """Return what one seed's swa-descent line says.

    ``mirror``: with the least train loss at t = m, the train loss at 2 m, which is swa's mirror image, less
    that at swa (t = 0). Where the line ends before 2 m, both points are as far from m as its end. NaN when m
    is not beyond swa, or at the line's end: then swa is on no side of a minimum. ``argmin``: t of the least
    test loss less t of the least train loss.
    """
    line = line.sort_values("t")
    t, train = line["t"].to_numpy(), line["train_loss"].to_numpy()
    m = t[train.argmin()]
    reach = min(m, t[-1] - m)
    mirror = np.interp(m + reach, t, train) - np.interp(m - reach, t, train) if reach > 0 else np.nan
    return {"mirror": mirror, "argmin": t[line["test_loss"].to_numpy().argmin()] - m}
