"""All claims judged in one go; what each says, and by which rule, stands in its own module.

A verdict is ``supported``, ``refuted`` or ``inconclusive``. `valleys.claims.rules` has the rules, and the
module of each experiment says what it applies them to.

Directions of one minimum are not independent: they share the weights, the images and, for most kinds, a mean
direction. The claims of experiments 5, 12 and 13 therefore take one value a minimum (seed) first, and n
counts minima.

Claims are judged separately for each data set, model and recipe, simulations for each shape of valley;
p-values are not corrected for the number of rows, which each row's note and the report state, but where the
rule says so. (With the six seeds of a sign test no correction would let any of several rows reach 0.05.)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from valleys.claims import (
    basin,
    measured_gain,
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
from valleys.results import measures, study_outcomes

Frames = Mapping[str, pd.DataFrame]
JUDGES: tuple[Callable[..., Iterable[Row]], ...] = (
    prevalence.judge,
    swa.judge,
    paper_selection.judge,
    shift.judge,
    basin.judge,
    toy.judge,
    sign.judge,
    search.judge,
    theory.judge_averaging,
    theory.judge_gains,
    measured_gain.judge,
    studies.judge,
)
"""What judges claims, in the order of rows; each is given the tables and settings that its parameters name.

The tables are those of `valleys.config.catalogue.TABLES` that have ``claims``, and ``study``.
"""


def judge(
    data: Frames,
    *,
    c: float = 2.0,
    alpha: float = 0.05,
    level: float = 0.95,
    barrier: float = 0.1,
    factors: study_outcomes.Order | None = None,
) -> list[Row]:
    """Return the rows of the ``claims`` table.

    Parameters
    ----------
    data
        The tables that functions of `JUDGES` take, as data frames; ``study``, all studies stacked, where
        there are any.
    c
        Level from which a direction counts as asymmetric.
    alpha
        Two-sided significance level of tests.
    level
        Confidence level of intervals.
    barrier
        Train-loss barriers below this (nats) count as none.
    factors
        Study to factor to its levels, in the order of the config.
    """
    settings = {"c": c, "alpha": alpha, "level": level, "barrier": barrier, "factors": factors}
    known = {"study": None, **settings, **measures.with_own_minima(data)}
    rows = [row for judge in JUDGES for row in judge(**{name: known[name] for name in asked_of(judge)})]
    return [{"by_seed": "", **row} for row in rows]


def asked_of(judge: Callable[..., Iterable[Row]]) -> list[str]:
    """Return what a function of `JUDGES` takes: names of tables, and of settings."""
    return [name for name, one in inspect.signature(judge).parameters.items() if one.default is one.empty]


def as_text(claims: pd.DataFrame) -> str:
    """Return the claims as a table for the terminal."""
    from tabulate import tabulate

    lines = []
    for row in claims.itertuples():
        effect = f"{row.effect:+.3g} [{row.low:+.3g}, {row.high:+.3g}] {row.unit}"
        lines.append([row.verdict, row.claim, row.scope, effect, row.n])
    return tabulate(lines, headers=["verdict", "claim", "scope", "effect [95 % interval]", "n"])
