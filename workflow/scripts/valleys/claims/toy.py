"""Experiment 7: one neuron in the plane of its weight and bias. Rule share over data draws; claim 3.

A draw of the data is the independent repetition. Its value is whether the scan over all angles finds an
asymmetric direction (``toy_found``), the share of U(0,1) directions that is asymmetric (``toy_random``), or
whether the one line of the released code is (``toy_released``). The scan decides, at the minimum and at the
headline rise. Draws without a minimum, which are separable, are left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from valleys.claims.rows import Row, joined, share_row
from valleys.claims.settings import Settings


def judge(
    toy_2d: pd.DataFrame | None, toy_2d_scans: pd.DataFrame | None, settings: Settings
) -> Iterator[Row]:
    """Experiment 7: the 2-D MLP, by recipe and rise; no row without simulations."""
    if toy_2d is None or toy_2d_scans is None:
        return
    for (recipe, rise), rows in toy_2d_scans.groupby(["recipe", "rise"], sort=True):
        scope = f"one neuron/{recipe}/{rise:g} nats"
        lost = int(((toy_2d["recipe"] == recipe) & (toy_2d["status"] == "no_minimum")).sum())
        without = f"draws without a minimum, left out: {lost}" if lost else ""
        risen = rows["flat_rise"].dropna()
        flat = f"median rise of the flat side {risen.median():.2g} nats" if len(risen) else ""
        yield share_row(
            "toy_found",
            scope,
            "a scan over all directions of one neuron finds an asymmetric one",
            rows["found"].astype(float),
            at=settings.found,
            measure="share of data draws with an asymmetric angle whose flat side rises enough",
            note=joined(without, flat, f"median share of angles {rows['asymmetric_angles'].median():.2g}"),
            experiment=7,
            number=3,
            decides=recipe == "converged" and rise == settings.rise,
            **settings.test,
        )
        yield share_row(
            "toy_random",
            scope,
            "a U(0,1) direction of one neuron is asymmetric with decent probability",
            rows["asymmetric_random"],
            at=settings.decent,
            measure="share of U(0,1) directions that are asymmetric, a value a data draw",
            note=without,
            experiment=7,
            number=3,
            **settings.test,
        )
    for recipe, rows in toy_2d.groupby("recipe", sort=True):
        rows = rows[rows["status"] != "no_minimum"]
        counts = rows["status"].value_counts()
        others = [f"{n} {one}" for one, n in counts.items() if one not in ("asymmetric", "symmetric")]
        if len(rows):
            yield share_row(
                "toy_released",
                f"one neuron/{recipe}",
                "the line of the released code, a U(0,1) direction, is asymmetric with decent probability",
                (rows["status"] == "asymmetric").astype(float),
                at=settings.decent,
                measure="share of data draws whose line is asymmetric",
                note=joined("no stated rise", *others),
                experiment=7,
                number=3,
                **settings.test,
            )
