"""Whether the claims are decided at a look, so that no more seeds are added (`valleys.config.looks`).

At each look all twelve claims are judged, by the rules of every run, from all seeds that there are by then. A
claim is waited for where

- it is neither supported nor refuted at this look,
- a row that decides it rests on the seeds that are added: without their cells it has fewer values, and
- such a row can be decided with ``most`` seeds: its n, which grows with them, reaches the least that could
  decide it.

Sampling stops at the first look at which no claim is waited for, and at the last. The verdicts of the run are
all those of the look at which it stops. So every table, figure and verdict is of the same seeds. The other
choice is to keep of each claim the first verdict that is one. It could stop somewhat sooner, but its verdicts
would be of different seeds, and some would contradict the rows that stand below them.

Error. At each look a verdict of the twelve is false with a probability of ``alpha / K`` at most
(`valleys.claims.verdicts`, Holm's method at the level of a look). The run reports the verdicts of one of K
looks. Whichever it is, they hold a false one only where that look does, so with a probability of ``alpha`` at
most, whatever the dependence between looks and whatever stops sampling (Bonferroni).
benchmarks/sequential.py measures it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from valleys.claims.rules import NOT_DECIDABLE, REFUTED, SUPPORTED

COLUMNS = ("dataset", "model", "recipe", "seed")
DECIDED, WAITED, UNSEEDED, NEVER = (
    "decided",
    "waited for",
    "rests on no seeds that are added",
    "cannot be decided",
)
STATES = (DECIDED, WAITED, UNSEEDED, NEVER)

Rows = Sequence[Mapping[str, Any]]


def without(data: Mapping[str, pd.DataFrame], cells: Collection[Sequence[Any]]) -> dict[str, pd.DataFrame]:
    """Return tables without the rows of some cells; those that are not of cells as they are.

    Parameters
    ----------
    cells
        Data set, model, recipe and seed of each.
    """
    gone = pd.MultiIndex.from_tuples([tuple(cell) for cell in cells], names=COLUMNS)
    found = dict(data)
    for name, frame in data.items():
        if frame is not None and len(frame) and len(gone) and {*COLUMNS} <= set(frame.columns):
            found[name] = frame[~pd.MultiIndex.from_frame(frame[[*COLUMNS]]).isin(gone)]
    return found


def path(
    twelve: Rows, rows: Rows, fewer: Rows, *, seeds: int, looks: Sequence[int], alpha: float
) -> list[dict[str, Any]]:
    """Return the rows of the ``looks`` table of one look, one a claim.

    Parameters
    ----------
    twelve
        Rows of the ``verdicts`` table at this look.
    rows, fewer
        Rows of the ``claims`` table, with and without the cells of the seeds that are added.
    seeds
        Seeds at this look.
    looks
        Seeds at all looks.
    alpha
        Two-sided level of a look.
    """
    states = {row["number"]: state(row, rows, fewer, seeds=seeds, most=looks[-1]) for row in twelve}
    about = {"look": looks.index(seeds) + 1, "looks": len(looks), "seeds": seeds, "most": looks[-1]}
    about |= {"alpha": alpha, "stops": seeds == looks[-1] or WAITED not in states.values()}
    kept = ("number", "claim", "verdict", "effect", "n", "p_adjusted")
    return [{**about, **{key: row[key] for key in kept}, "state": states[row["number"]]} for row in twelve]


def state(verdict: Mapping[str, Any], rows: Rows, fewer: Rows, *, seeds: int, most: int) -> str:
    """Return what is to be done about a claim, one of `STATES`; the parameters are those of `path`."""
    if verdict["verdict"] in (SUPPORTED, REFUTED):
        return DECIDED
    before = {_key(row): row["n"] for row in fewer}
    deciding = [row for row in rows if row["number"] == verdict["number"] and row["decides"] and row["n"]]
    growing = [(row, (row["n"] - before.get(_key(row), 0)) / seeds) for row in deciding]
    growing = [(row, growth) for row, growth in growing if growth > 0]
    if deciding and not growing:
        return UNSEEDED
    return WAITED if any(_can(row, growth * (most - seeds)) for row, growth in growing) else NEVER


def _can(row: Mapping[str, Any], more: float) -> bool:
    """Whether a row can be decided once it has so many more values."""
    if row["verdict"] != NOT_DECIDABLE:
        return True
    needed = row["n_needed"]
    known = needed is not None and not math.isnan(needed)
    return known and row["n"] + more >= needed


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["number"], row["claim"], row["scope"]


def as_text(looks: pd.DataFrame) -> str:
    """Say at which look sampling stopped, and why, from the ``looks`` table: a sentence or two."""
    last = looks[looks["look"] == looks["look"].max()]
    first = last.iloc[0]
    waited = last.loc[last["state"] == WAITED, "number"].tolist()
    text = f"Stopped at look {first['look']} of {first['looks']}, with {first['seeds']} seeds: "
    if waited:
        text += f"the last look; {_claims(waited)} still open."
    else:
        text += "no claim that more seeds could decide is open."
    return f"{text} Each look has a level of {first['alpha']:.3g}."


def _claims(numbers: Iterable[int]) -> str:
    listed = [str(number) for number in numbers]
    return f"claim {listed[0]} is" if len(listed) == 1 else f"claims {', '.join(listed)} are"
