"""What speaks against taking a solution for a minimum that SGD found, as the notes of claims tell it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from valleys.results.measures import OF_SOLUTION, SETTING, SOLUTION

_GAIN, _RAISED = OF_SOLUTION
AT_MINIMUM = 0.01
"""A solution from which the train loss falls by more along minus its gradient, nats, is no minimum: 1 % of a
rise of 1 nat. Fixed on 2026-11-27."""


def about(solutions: pd.DataFrame) -> str:
    """Say which solutions are no minimum, and where refreshed batch norm made other networks of them.

    Parameters
    ----------
    solutions
        The table of that name, or rows of any table with `SOLUTION`, and ``gradient_gain`` and
        ``refreshed_rise`` if they are known (`with_solutions`); a solution counts once.

    Returns
    -------
    str
        By `AT_MINIMUM` and `REFRESHED`; nothing where neither is so, or nothing was measured.
    """
    return "; ".join(filter(None, (_no_minimum(solutions), _refreshed(solutions))))


REFRESHED = 0.01
"""Where refreshing raises the mean test loss of sgd by more, nats, its statistics are not those that SGD had,
as where training augments images so that their mean or variance is another. Fixed on 2026-11-28."""


def _refreshed(solutions: pd.DataFrame) -> str:
    if _RAISED not in solutions:
        return ""
    rises = solutions.drop_duplicates(SOLUTION)[_RAISED].astype(float)
    rises = rises[np.isfinite(rises)]
    if rises.empty or rises.mean() <= REFRESHED:
        return ""
    return (
        f"with refreshed batch norm the test loss of sgd is {rises.mean():.3g} nats higher (mean) than with "
        "the statistics of its training batches"
    )


def _no_minimum(solutions: pd.DataFrame) -> str:
    if _GAIN not in solutions:
        return ""
    known = solutions[np.isfinite(solutions[_GAIN].astype(float))].drop_duplicates(SOLUTION)
    found = []
    for name, rows in known.groupby("solution", sort=False):
        lost = int((rows[_GAIN] > AT_MINIMUM).sum())
        if lost:
            found.append(f"{lost} of {len(rows)} {name}")
    if not found:
        return ""
    return (
        f"no minimum: {' and '.join(found)} solutions, where the loss falls by more than {AT_MINIMUM:g} nats "
        "along minus the gradient"
    )


def with_solutions(data: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return tables by name, those of directions and of solutions with what `about` asks of a solution.

    ``gradient_gain`` is that of ``solutions``, for cells of studies that of ``study``. ``refreshed_rise`` is
    by how much refreshing batch norm has raised the test loss of sgd: its own less that at the end of its
    training, whose statistics are of augmented batches. NaN where a table does not have it.
    """
    facts = _refreshed_rises(data)
    have = [data[name] for name in ("solutions", "study") if data.get(name) is not None]
    known = [table[[*SOLUTION, _GAIN]] for table in have if _GAIN in table]
    of_solutions = facts
    if known:
        gains = pd.concat(known, ignore_index=True).drop_duplicates(SOLUTION)
        facts = gains.merge(facts, on=SOLUTION, how="left")
    new = {"solutions": of_solutions, **dict.fromkeys(("asymmetry", "theory_measured", "searches"), facts)}
    return {
        name: table.merge(new[name], on=SOLUTION, how="left", validate="many_to_one")
        if name in new
        else table
        for name, table in data.items()
    }


def _refreshed_rises(data: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return `SOLUTION` and ``refreshed_rise`` of the sgd solutions whose training's end is known."""
    training, solutions = data["training"], data["solutions"]
    ends = training[(training["phase"] == "cooldown") & training["test_loss"].notna()]
    last = ends.sort_values("epoch").drop_duplicates([*SETTING, "seed"], keep="last")
    both = solutions[solutions["solution"] == "sgd"].merge(
        last[[*SETTING, "seed", "test_loss"]], on=[*SETTING, "seed"], suffixes=("", "_trained")
    )
    return both[SOLUTION].assign(**{_RAISED: both["test_loss"] - both["test_loss_trained"]})
