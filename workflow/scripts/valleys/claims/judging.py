"""All claims judged in one go; what each says, and by which rule, stands in its own module.

`valleys.claims.rules` has the rules, and the module of each subject says what it applies them to. Each row
says which of the twelve claims it belongs to; `valleys.claims.verdicts` makes one verdict of the rows that
decide.

Directions of one minimum are not independent: they share the weights, the images and, for most kinds, a mean
direction. So each row takes one value a minimum first, and n counts minima.

Rows are judged separately for each data set, model and recipe, simulations for each shape of valley. Their
p-values are not adjusted for the number of rows: the twelve verdicts are what is, and they come first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from valleys.claims import (
    alignment,
    averages,
    basin,
    measured_gain,
    neighbours,
    paper_selection,
    prevalence,
    search,
    shift,
    sign,
    studies,
    swa,
    theory,
    toy,
)
from valleys.claims.rows import Row
from valleys.claims.settings import Settings
from valleys.config.catalogue import TABLES
from valleys.results import doubts, measures

Frames = Mapping[str, pd.DataFrame]
JUDGES: tuple[Callable[..., Iterable[Row]], ...] = (
    prevalence.judge,
    swa.judge,
    averages.judge,
    paper_selection.judge,
    neighbours.judge,
    shift.judge,
    basin.judge,
    alignment.judge,
    toy.judge,
    sign.judge,
    search.judge,
    theory.judge_averaging,
    theory.judge_gains,
    measured_gain.judge,
    studies.judge,
)
"""What judges claims, in the order of rows; each is given the tables that its parameters name.

The tables are those of `valleys.config.catalogue.TABLES` that have ``claims``, and ``study``: None where a
run has no such table. ``settings`` is the `Settings` of the run.
"""


def judge(data: Frames, settings: Settings) -> list[Row]:
    """Return the rows of the ``claims`` table.

    Parameters
    ----------
    data
        The tables that functions of `JUDGES` take, as data frames; ``study``, all studies stacked,
        ``averages``, ``alignment`` and those of simulations, where there are any.
    settings
        Constants of the rules, and what the config says of probes and data sets.
    """
    optional = ("study", *(name for name, table in TABLES.items() if table.asked))
    known = {
        **dict.fromkeys(optional),
        "settings": settings,
        **measures.with_own_minima(doubts.with_solutions(data)),
    }
    rows = [row for judge in JUDGES for row in judge(**{name: known[name] for name in asked_of(judge)})]
    return [{**_EMPTY, **row} for row in rows]


_EMPTY = {"by_seed": "", "number": 0, "decides": False, "p_for": None, "p_against": None, "n_needed": None}


def asked_of(judge: Callable[..., Iterable[Row]]) -> list[str]:
    """Return what a function of `JUDGES` takes: names of tables, and of settings."""
    return [name for name, one in inspect.signature(judge).parameters.items() if one.default is one.empty]


def known(effect: str) -> str:
    """Return an effect as text without what is not known, for which tables have NaN."""
    if effect.startswith("+nan"):
        return "-"
    return effect.replace(" [+nan, +nan]", "", 1)


def as_text(claims: pd.DataFrame, level: float = 0.95) -> str:
    """Return the rows of the ``claims`` table for the terminal, those of claim 1 first, of none last.

    Parameters
    ----------
    level
        Of the intervals.
    """
    from tabulate import tabulate

    lines = []
    for row in claims.sort_values(
        "number", key=lambda of: of.where(of > 0, _LAST), kind="stable"
    ).itertuples():
        effect = known(f"{row.effect:+.3g} [{row.low:+.3g}, {row.high:+.3g}] {row.unit}")
        lines.append([row.number or "", row.verdict, row.claim, row.scope, effect, row.n])
    return tabulate(lines, headers=["", "verdict", "claim", "scope", _interval(level), "n"])


_LAST = 10**6  # after every claim's number


def _interval(level: float) -> str:
    return f"effect [{100 * level:.3g} % interval]"


def verdicts_as_text(verdicts: pd.DataFrame, level: float = 0.95) -> str:
    """Return the ``verdicts`` table, one claim after another, for the terminal.

    Parameters
    ----------
    level
        Of the intervals.
    """
    from tabulate import tabulate

    lines = [
        [
            row.number,
            row.verdict,
            f"{row.statement}: {measures.LEFT_OUT}" if measures.LEFT_OUT in row.note else row.statement,
            known(row.effect) or "-",
            row.n,
            "-" if pd.isna(row.p_adjusted) else f"{row.p_adjusted:.2g}",
        ]
        for row in verdicts.itertuples()
    ]
    return tabulate(
        lines,
        headers=["", "verdict", "claim", _interval(level), "n", "p (Holm)"],
        maxcolwidths=[None, None, 44, 40, None, None],
        disable_numparse=True,
        colalign=("right", "left", "left", "left", "right", "right"),
    )
