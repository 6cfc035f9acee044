"""The paper's claims, each judged from the tables by a rule that is written beside it.

A verdict is ``supported``, ``refuted`` or ``inconclusive``. `valleys.claims.rules` has the rules, and the
module of each experiment says what it applies them to.

Directions of one minimum are not independent: they share the weights, the images and, for most kinds, a mean
direction. The claims of experiments 5 and 12 therefore take one value a minimum (seed) first, and n counts
minima.

Claims are judged separately for each data set, model and recipe, simulations for each shape of valley;
p-values are not corrected for the number of rows, which each row's note and the report state, but where the
rule says so. (With the six seeds of a sign test no correction would let any of several rows reach 0.05.)
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from valleys.claims import (
    basin,
    measured_gain,
    paper_selection,
    prevalence,
    shift,
    sign,
    studies,
    swa,
    theory,
    toy,
)
from valleys.claims.rows import Row
from valleys.claims.rules import INCONCLUSIVE, REFUTED, SUPPORTED, share_verdict
from valleys.results import measures, study_outcomes

__all__ = ["INCONCLUSIVE", "REFUTED", "SUPPORTED", "Row", "as_text", "judge", "share_verdict"]

Frames = Mapping[str, pd.DataFrame]


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
        The tables ``training, solutions, directions, asymmetry, theory_measured, shift, interpolation,
        toy_2d, theory_average, theory_gain`` as data frames; ``study``, all studies stacked, where there are
        any.
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
    data = measures.with_own_minima(data)
    rows = [*prevalence.judge(data["asymmetry"], c, level)]
    rows += swa.judge(data["solutions"], data["interpolation"], alpha, level)
    rows += paper_selection.judge(data["training"], level)
    rows += shift.judge(data["shift"], data["asymmetry"], alpha, level)
    rows += basin.judge(data["interpolation"], c, level, barrier)
    rows += toy.judge(data["toy_2d"], level)
    rows += sign.judge(data["asymmetry"], data["directions"], alpha, level)
    rows += theory.judge_averaging(data["theory_average"], level)
    rows += theory.judge_gains(data["theory_gain"], level)
    rows += measured_gain.judge(data["theory_measured"], alpha, level)
    rows += studies.judge(data.get("study"), factors, c, alpha, level)
    return [{"by_seed": "", **row} for row in rows]


def as_text(claims: pd.DataFrame) -> str:
    """Return the claims as a table for the terminal."""
    from tabulate import tabulate

    lines = []
    for row in claims.itertuples():
        effect = f"{row.effect:+.3g} [{row.low:+.3g}, {row.high:+.3g}] {row.unit}"
        lines.append([row.verdict, row.claim, row.scope, effect, row.n])
    return tabulate(lines, headers=["verdict", "claim", "scope", "effect [95 % interval]", "n"])
