"""Experiment 2: SWA against descent from it, and against SGD with its rate decayed (claims 6, 8). Rule mean.

A seed's value is a difference between two solutions of its cell, or between two points of a line.

``swa_train_loss_descent``, ``swa_train_loss_sgd``, ``swa_test_loss_descent``, ``swa_test_loss_sgd``
    SWA's loss less the other's: above 0 on train, below 0 on test. They decide claim 8 wherever the setting
    may decide (`Settings.may_decide`). Test accuracy stands beside. The note
    has doubts about the other (`valleys.results.doubts`).
``swa_on_flat_side``
    On the line from SWA to descent: train loss at SWA's mirror image about the line's minimum less that at
    SWA, above 0. Decides claim 6 where the setting may.
``test_minimum_towards_swa``
    On the same line: where the test loss is least, less where the train loss is, below 0. Beside.
``swa_on_flat_side_of_found``
    Along the asymmetric direction that a search found at sgd: how far SWA lies towards its flat side, above
    0. A minimum's value is the mean over such directions. At the headline rise it decides claim 6 where the
    setting may; other rises stand beside.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from valleys.claims.rows import Row, joined, mean_row
from valleys.claims.settings import Settings
from valleys.results import doubts, measures
from valleys.results.measures import SETTING

_OTHERS = {
    "descent": "the solution that SGD reaches from it",
    "sgd": "SGD with its rate decayed",
}


def judge(
    solutions: pd.DataFrame,
    interpolation: pd.DataFrame,
    directions: pd.DataFrame,
    asymmetry: pd.DataFrame,
    settings: Settings,
) -> Iterator[Row]:
    """Experiment 2: SWA's losses, and on which side of a valley it lies, by setting."""
    yield from _losses(solutions, settings)
    yield from _on_lines(interpolation, settings)
    yield from _along_found(measures.swa_sides(directions, asymmetry), settings)


def _losses(solutions: pd.DataFrame, settings: Settings) -> Iterator[Row]:
    for names, rows in solutions.groupby(SETTING, sort=True):
        wide = rows.pivot(index="seed", columns="solution")
        made = set(rows["solution"])
        for other, text in _OTHERS.items():
            if not {"swa", other} <= made:
                continue  # not made, or not given
            for column, sign, word, unit in (
                ("train_loss", 1, "train loss is higher", "nats"),
                ("test_loss", -1, "test loss is lower", "nats"),
                ("test_accuracy", 1, "test accuracy is higher", "share"),
            ):
                if rows[column].isna().all():
                    continue  # a regression has no accuracy
                yield mean_row(
                    f"swa_{column}_{other}",
                    "/".join(map(str, names)),
                    f"SWA's {word} than that of {text}",
                    wide[column]["swa"] - wide[column][other],
                    sign=sign,
                    measure=f"{column.replace('_', ' ')} of swa - of {other}",
                    unit=unit,
                    experiment=2,
                    number=8,
                    note=doubts.about(rows[rows["solution"] == other]),
                    decides=column != "test_accuracy" and settings.may_decide(names[0], names[2]),
                    **settings.test,
                )


def _on_lines(interpolation: pd.DataFrame, settings: Settings) -> Iterator[Row]:
    lines = interpolation[
        (interpolation["start"] == "swa")
        & (interpolation["stop"] == "descent")
        & (measures.kind_of_line(interpolation) == "cell")
    ]
    for names, rows in lines.groupby([*SETTING, "line"], sort=True):
        scope = "/".join(map(str, names))
        measured = pd.DataFrame({seed: line_measures(line) for seed, line in rows.groupby("seed")}).T
        about = {"note": f"BN {rows['bn_policy'].iloc[0]} on the line", "experiment": 2, "number": 6}
        yield mean_row(
            "swa_on_flat_side",
            scope,
            "SWA lies on the flat side of the minimum on its line to descent",
            measured["mirror"],
            sign=1,
            measure="train loss at swa's mirror image about the line's minimum - at swa",
            unit="nats",
            decides=settings.may_decide(names[0], names[2]),
            **about,
            **settings.test,
        )
        yield mean_row(
            "test_minimum_towards_swa",
            scope,
            "on the line the test loss is least nearer to SWA than the train loss is",
            measured["argmin"],
            sign=-1,
            measure="t of least test loss - t of least train loss (swa at 0, descent at 1)",
            unit="distance from swa to descent",
            **about,
            **settings.test,
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


def _along_found(sides: pd.DataFrame, settings: Settings) -> Iterator[Row]:
    for names, rows in sides.groupby([*SETTING, "probe"], sort=True):
        probe = str(names[-1])
        if settings.seek_of(probe) != "asymmetric":
            continue
        yield mean_row(
            "swa_on_flat_side_of_found",
            "/".join(map(str, names)),
            "SWA lies on the flat side of the asymmetric direction found at the SGD minimum",
            rows.set_index("seed")["offset"],
            sign=1,
            measure="offset of swa from sgd along the direction found, positive on its flat side",
            unit="2-norm of weights",
            note=joined(
                settings.about_rise(probe),
                f"in units of R {rows['share'].mean():.3g} (mean)",
                f"directions {int(rows['directions'].sum())}",
                doubts.about(rows),
            ),
            experiment=2,
            number=6,
            decides=settings.is_headline(probe) and settings.may_decide(names[0], names[2]),
            **settings.test,
        )
