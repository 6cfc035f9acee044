"""Experiment 2 with descent epochs chosen as the paper's code chooses them. Beside claim 8.

``swa_paper_selection_exists``
    Rule share, above one half. A seed's value is 1 where a descent epoch has a lower train loss and a higher
    test loss than swa, else 0. That is what the paper's code asks of an epoch to keep it.
``swa_test_loss_paper_selection``
    The difference in test loss at epochs chosen for it. No data could decide it, so it is never judged; its
    size is given.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from valleys.claims.rows import Row, by_seed_of, share_row
from valleys.claims.rules import NOT_DECIDABLE
from valleys.claims.settings import Settings
from valleys.results import stats
from valleys.results.measures import SETTING

_SELECTED = "epochs chosen by their test loss, as the paper's code does: biased towards the claim"


def judge(training: pd.DataFrame, settings: Settings) -> Iterator[Row]:
    """Experiment 2 as the paper's code selects: descent epochs whose test loss is above SWA's.

    The code keeps an epoch when its train loss is below SWA's and its test loss above; the last one kept is
    compared. That the test loss is then above SWA's is no finding. Whether there is such an epoch is one,
    though looking at all epochs makes it likely.
    """
    descent = training[training["phase"] == "descent"]
    for names, rows in descent.groupby(SETTING, sort=True):
        scope = "/".join(map(str, names))
        kept = {seed: selected_epochs(run) for seed, run in rows.groupby("seed")}
        found = {seed: run for seed, run in kept.items() if len(run)}
        yield share_row(
            "swa_paper_selection_exists",
            scope,
            "SGD continued from SWA passes an epoch of lower train loss and higher test loss than SWA's",
            np.array([len(run) > 0 for run in kept.values()], dtype=np.float64),
            at=0.5,
            measure="share of seeds with such an epoch among those of the descent",
            note=f"{_SELECTED}; {rows['epoch'].max()} epochs a seed, "
            f"such ones by seed: {', '.join(str(len(run)) for run in kept.values())}",
            experiment=2,
            number=8,
            **settings.test,
        )
        if not found:
            continue
        last, first = (pd.DataFrame({s: run.iloc[at] for s, run in found.items()}).T for at in (-1, 0))
        interval = stats.mean_interval(last["test_loss"], settings.level)
        yield {
            "claim": "swa_test_loss_paper_selection",
            "experiment": 2,
            "number": 8,
            "scope": scope,
            "statement": "SWA's test loss is lower than at descent epochs chosen for a higher one (no test)",
            "verdict": NOT_DECIDABLE,
            "measure": "test loss of swa - at the last epoch selected",
            "effect": interval.estimate,
            "unit": "nats",
            "low": interval.low,
            "high": interval.high,
            "n": interval.n,
            "p_value": None,
            "by_seed": by_seed_of(last["test_loss"]),
            "test": "t interval of the paired difference",
            "rule": "not judged: the selection fixes the sign",
            "note": f"{_SELECTED} by construction; seeds without such an epoch, left out: "
            f"{len(kept) - len(found)}; train loss of swa - at that epoch {last['train_loss'].mean():.3g}; "
            f"at the first such epoch, test loss {first['test_loss'].mean():.3g}, "
            f"train loss {first['train_loss'].mean():.3g}",
        }


def selected_epochs(run: pd.DataFrame) -> pd.DataFrame:
    """Return swa's ``train_loss`` and ``test_loss`` less those of each descent epoch that the paper keeps.

    Parameters
    ----------
    run
        One seed's rows of ``training`` in the phase descent; epoch 0 is swa.
    """
    run = run.sort_values("epoch").set_index("epoch")[["train_loss", "test_loss"]].astype(float)
    change = run.loc[0] - run.drop(index=0)
    return change[(change["train_loss"] > 0) & (change["test_loss"] < 0)]
