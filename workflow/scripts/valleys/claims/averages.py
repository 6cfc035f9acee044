"""Experiment 2: other averages of SWA's iterates against SWA, below claim 8. Rule mean.

A seed's value is a difference between an average and SWA, of one cell and one set of iterates. No row
decides: the paper's claim is about SWA, and these say whether another average does better than it.

``average_test_loss_swa``
    The average's test loss less SWA's, below 0. Both are on the half of the test images that no average was
    chosen on.
``average_train_loss_swa``
    The same of the train loss, below 0.

A seed whose average was refused over a barrier has no value. The note counts such seeds, and names the first
one's pair.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from valleys.claims.rows import Row, mean_row
from valleys.claims.settings import Settings
from valleys.results.measures import SETTING

_COMPARED = (
    ("test", "judged_loss", ", on the half of the test images that chose nothing"),
    ("train", "train_loss", ""),
)


def judge(averages: pd.DataFrame | None, settings: Settings) -> Iterator[Row]:
    """Experiment 2: each average's losses less SWA's, by setting; no row without averages."""
    if averages is None or averages.empty:
        return
    swa = averages[averages["average"] == "swa"].set_index([*SETTING, "seed"])
    others = averages[averages["average"] != "swa"]
    for names, rows in others.groupby([*SETTING, "average"], sort=True):
        *setting, name = map(str, names)
        own, same = rows.set_index("seed"), swa.loc[tuple(setting)]
        for split, column, where in _COMPARED:
            difference = own[column].astype(float) - same[column].reindex(own.index)
            yield mean_row(
                f"average_{split}_loss_swa",
                "/".join([*setting, name]),
                f"another average of the same iterates has a lower {split} loss than SWA",
                difference,
                sign=-1,
                measure=f"{split} loss of the average - of swa{where}",
                unit="nats",
                experiment=2,
                number=8,
                note=_refused(own),
                **settings.test,
            )


def _refused(rows: pd.DataFrame) -> str:
    """Return how many seeds' averages were refused, and the first one's pair; "" for none."""
    refused = rows["refused"].dropna()
    if refused.empty:
        return ""
    return f"refused {len(refused)} of {len(rows)}: seed {refused.index[0]}, {refused.iloc[0]}"
