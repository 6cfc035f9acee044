"""Experiment 7: the 2-D MLP. Share rule over data draws."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from valleys.claims.rows import Row, share_row


def judge(toy_2d: pd.DataFrame, level: float) -> Iterator[Row]:
    """Experiment 7: the 2-D MLP, by recipe."""
    for recipe, rows in toy_2d.groupby("recipe", sort=True):
        counts = rows["status"].value_counts()
        others = [
            f"{n} {status}" for status, n in counts.items() if status not in ("asymmetric", "symmetric")
        ]
        yield share_row(
            "toy_2d_asymmetric",
            7,
            f"2-D MLP/{recipe}",
            "a U(0,1) direction at the solution of one neuron is asymmetric more often than not",
            int((rows["status"] == "asymmetric").sum()),
            len(rows),
            measure="share of data draws whose line is asymmetric",
            level=level,
            note=", ".join(others),
        )
