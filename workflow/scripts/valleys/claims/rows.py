"""Rows of the ``claims`` table, one function a rule: the verdict with its effect, interval, n, p and note."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from valleys.claims.rules import INCONCLUSIVE, NOT_DECIDABLE, bound_verdict, verdict
from valleys.results import inference
from valleys.results.inference import Evidence

Row = dict[str, Any]
_BOUNDS = (-math.inf, math.inf)
_POWER = "n for 80 % power at the effect seen"


def share_row(
    claim: str,
    scope: str,
    statement: str,
    values: pd.Series | np.ndarray,
    *,
    at: float,
    measure: str,
    alpha: float,
    level: float,
    least: pd.Series | None = None,
    most: pd.Series | None = None,
    note: str = "",
    **about: Any,
) -> Row:
    """Return a row of the rule share: of values in [0, 1], one a minimum, claimed to be above `at` on
    average.

    ``least`` and ``most`` are as in `inference.share`; such values are all finite. ``about`` takes
    ``experiment``, ``number`` and ``decides`` (`_row`).
    """
    values, notes = _finite(values, [note])
    evidence = inference.share(values, at, alpha=alpha, level=level, least=least, most=most)
    return _row(
        claim,
        scope,
        statement,
        evidence,
        alpha,
        notes,
        measure=measure,
        unit="share",
        test="Hoeffding's inequality",
        rule=f"supported: mean above {at:g}, p <= {alpha / 2:g}; refuted: below it",
        **about,
    )


def mean_row(
    claim: str,
    scope: str,
    statement: str,
    values: pd.Series | np.ndarray,
    *,
    sign: int,
    measure: str,
    unit: str,
    alpha: float,
    level: float,
    at: float = 0.0,
    limits: tuple[float, float] = _BOUNDS,
    note: str = "",
    **about: Any,
) -> Row:
    """Return a row of the rule mean: of values that the claim puts above `at` (sign +1) or below it (-1).

    A value without end (inf), as of a loss that is not finite, is left out of the mean. Where it lies on the
    other side of `at` than that mean, the row is refused.

    Parameters
    ----------
    values
        One a minimum or seed; a Series has the seeds as its index. Those that are not finite are left out.
    limits
        Ends that the interval cannot pass.
    about
        ``experiment``, ``number`` and ``decides`` (`_row`).
    """
    by_seed, of = by_seed_of(values), len(values)
    endless = [int((np.asarray(values, dtype=np.float64) == end).sum()) for end in _BOUNDS]
    values, notes = _finite(values, [note])
    evidence = inference.mean(values, at, above=sign > 0, alpha=alpha, level=level)
    above, below = int((values > at).sum()), int((values < at).sum())
    notes.append(f"above {at:g} in {above} of {len(values)}, below in {below}")
    side = "above" if sign > 0 else "below"
    row = _row(
        claim,
        scope,
        statement,
        evidence,
        alpha,
        notes,
        limits=limits,
        by_seed=by_seed,
        measure=measure,
        unit=unit,
        test="exact sign-flip permutation test of the mean; t interval",
        rule=f"supported: mean {side} {at:g}, p <= {alpha / 2:g}; refuted: on the other side",
        **about,
    )
    other = endless[0] if evidence.estimate > at else endless[1]
    if not other:
        return row
    return refused_row(row, f"a loss that is not finite puts {other} of {of} on the other side")


def barrier_row(
    claim: str, scope: str, statement: str, heights: pd.Series, *, claimed: bool, at: float, **about: Any
) -> Row:
    """Return a row of the rule mean for barriers on lines: claimed to be above `at`, or below it.

    Parameters
    ----------
    heights
        One a seed, nats; inf where a loss on the line is not finite.
    claimed
        Whether the claim is that there is a barrier.
    about
        As in `mean_row`.
    """
    limits = (0, math.inf)  # a barrier cannot be less
    sign = 1 if claimed else -1
    return mean_row(claim, scope, statement, heights, sign=sign, at=at, limits=limits, unit="nats", **about)


def equivalence_row(
    claim: str,
    scope: str,
    statement: str,
    values: pd.Series | np.ndarray,
    *,
    margin: float,
    measure: str,
    unit: str,
    alpha: float,
    level: float,
    note: str = "",
    **about: Any,
) -> Row:
    """Return a row of the rule equivalence: of values whose mean the claim puts within +-margin.

    ``about`` takes ``experiment``, ``number`` and ``decides`` (`_row`).
    """
    by_seed = by_seed_of(values)
    values, notes = _finite(values, [note])
    evidence = inference.equivalence(values, margin, alpha=alpha, level=level)
    return _row(
        claim,
        scope,
        statement,
        evidence,
        alpha,
        notes,
        by_seed=by_seed,
        measure=measure,
        unit=unit,
        test="two one-sided t tests; t interval",
        rule=f"supported: within -{margin:g} and {margin:g}, p <= {alpha / 2:g}; refuted: beyond",
        **about,
    )


def grid_row(
    claim: str,
    scope: str,
    statement: str,
    estimates: pd.Series,
    errors: pd.Series,
    *,
    measure: str,
    unit: str,
    alpha: float,
    level: float,
    sign: int = 1,
    bound: bool = False,
    note: str = "",
    **about: Any,
) -> Row:
    """Return the row of a claim about each of several simulated numbers, of which there is at least one.

    Rule grid, or of bounds rule bound. ``about`` takes ``experiment``, ``number`` and ``decides`` (`_row`).
    """
    evidence, _, low, high = inference.simulated(
        estimates.to_numpy(), errors.to_numpy(), sign=sign, level=level
    )
    side = "above" if sign > 0 else "below"
    rule = f"supported: all {side} 0, p <= {alpha / 2:g}; refuted: one on the other side"
    if bound:
        rule = "refuted: one interval below 0; else supported"
        note = joined(f"clearly above in {int((low > 0).sum())} of {len(low)} rows", note)
    row = _row(
        claim,
        scope,
        statement,
        evidence,
        alpha,
        [note],
        measure=f"{measure}; of the row nearest to failing",
        unit=unit,
        test="normal p-values of all rows; intervals of all together (Bonferroni)",
        rule=rule,
        **about,
    )
    if bound:
        row |= {"verdict": bound_verdict(high), "p_value": None, "p_for": None, "p_against": None}
    return row


def refused_row(row: Mapping[str, Any], why: str) -> Row:
    """Return a row without a verdict: its comparison would mean nothing, and the note says why."""
    none = dict.fromkeys(("p_value", "p_for", "p_against", "n_needed"))
    notes = [part for part in row["note"].split("; ") if not part.startswith(_POWER)]  # no n will do
    return {**row, **none, "verdict": NOT_DECIDABLE, "note": joined(why, *notes)}


def _row(
    claim: str,
    scope: str,
    statement: str,
    evidence: Evidence,
    alpha: float,
    notes: list[str],
    *,
    measure: str,
    unit: str,
    test: str,
    rule: str,
    experiment: int,
    number: int = 0,
    decides: bool = False,
    by_seed: str = "",
    limits: tuple[float, float] = _BOUNDS,
) -> Row:
    """Return a row from what a sample says.

    Parameters
    ----------
    experiment
        Number of its section in docs/experiments.md.
    number
        Of the claim that it belongs to (`valleys.claims.verdicts.CLAIMS`), 0 for none.
    decides
        Whether it has a part in that claim's verdict.
    """
    found = verdict(evidence, alpha)
    needed = evidence.n_needed if found in (INCONCLUSIVE, NOT_DECIDABLE) else None
    if found == NOT_DECIDABLE:
        notes = [f"n = {evidence.n} cannot decide it, whatever the data; {needed} can", *notes]
    elif found == INCONCLUSIVE and needed:
        notes = [f"{_POWER}: {needed}", *notes]
    return {
        "claim": claim,
        "experiment": experiment,
        "scope": scope,
        "statement": statement,
        "verdict": found,
        "measure": measure,
        "effect": evidence.estimate,
        "unit": unit,
        "low": float(np.clip(evidence.low, *limits)),
        "high": float(np.clip(evidence.high, *limits)),
        "n": evidence.n,
        "p_value": inference.two_sided(evidence.p_for, evidence.p_against) if evidence.n else None,
        "by_seed": by_seed,
        "test": test,
        "rule": rule,
        "note": joined(*notes),
        "number": number,
        "decides": decides,
        "p_for": evidence.p_for if evidence.n else None,
        "p_against": evidence.p_against if evidence.n else None,
        "n_needed": needed,
    }


def _finite(values: pd.Series | np.ndarray, notes: list[str]) -> tuple[np.ndarray, list[str]]:
    """Return the finite values, and the notes with how many were left out."""
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    lost = int((~finite).sum())
    return values[finite], [*notes, f"left out, not finite: {lost}" if lost else ""]


def by_seed_of(values: pd.Series | np.ndarray) -> str:
    """Return the ``by_seed`` of a mean: JSON of its values, if they come by seed and each seed has one."""
    if not isinstance(values, pd.Series) or values.index.has_duplicates:
        return ""
    return json.dumps({str(seed): float(value) for seed, value in values.items() if np.isfinite(value)})


def joined(*notes: str) -> str:
    """Join what a note says, without what is empty."""
    return "; ".join(note for note in notes if note)


def count_of(hit: pd.Series, counted: pd.Series) -> str:
    """Say of how many counted so many are hits."""
    return f"{int(hit.sum())} of {int(counted.sum())}"
