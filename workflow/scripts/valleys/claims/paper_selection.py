"""Experiment 2 with descent epochs chosen as the paper's code chooses them.

``swa_paper_selection_exists``
    Share rule, over seeds: whether a descent epoch has a lower train loss and a higher test loss than swa,
    which is what the paper's code asks of an epoch to keep it.
``swa_test_loss_paper_selection``
    Never judged: the difference in test loss at epochs chosen for it. Always inconclusive; its size is given.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from valleys.claims.rows import Row, by_seed_of, share_row
from valleys.claims.rules import INCONCLUSIVE
from valleys.results import stats
from valleys.results.measures import SETTING

_SELECTED = "epochs chosen by their test loss, as the paper's code does: biased towards the claim"


def judge(training: pd.DataFrame, level: float) -> Iterator[Row]:
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
            2,
            scope,
            "SGD continued from SWA passes an epoch of lower train loss and higher test loss than SWA's",
            len(found),
            len(kept),
            measure="share of seeds with such an epoch among those of the descent",
            level=level,
            note=f"{_SELECTED}; {rows['epoch'].max()} epochs a seed, "
            f"such ones by seed: {', '.join(str(len(run)) for run in kept.values())}",
        )
        if not found:
            continue
        last, first = (pd.DataFrame({s: run.iloc[at] for s, run in found.items()}).T for at in (-1, 0))
        interval = stats.mean_interval(last["test_loss"], level)
        yield {
            "claim": "swa_test_loss_paper_selection",
            "experiment": 2,
            "scope": scope,
            "statement": "SWA's test loss is lower than at descent epochs chosen for a higher one (no test)",
            "verdict": INCONCLUSIVE,
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
