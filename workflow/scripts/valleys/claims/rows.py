"""Rows of the ``claims`` table, one function a rule: the verdict with its effect, interval, n, p and note."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd

from valleys.claims.rules import bound_verdict, grid_verdict, paired_verdict, share_verdict
from valleys.results import stats

Row = dict[str, Any]


def share_row(
    claim: str,
    experiment: int,
    scope: str,
    statement: str,
    hits: int,
    n: int,
    *,
    measure: str,
    level: float,
    half: float = 0.5,
    note: str = "",
) -> Row:
    """Return a row of the share rule, or of the rule found with `half` as `rules.MOST`."""
    interval = stats.wilson(hits, n, level)
    return {
        "claim": claim,
        "experiment": experiment,
        "scope": scope,
        "statement": statement,
        "verdict": share_verdict(interval, half),
        "measure": measure,
        "effect": interval.estimate,
        "unit": "share",
        "low": interval.low,
        "high": interval.high,
        "n": n,
        "p_value": None,
        "test": "Wilson interval",
        "rule": f"supported: interval above {half:g}; refuted: below {half:g}",
        "note": note,
    }


def by_seed_of(values: Any) -> str:
    """Return the ``by_seed`` of a mean: JSON of its values, if they come by seed and each seed has one."""
    if not isinstance(values, pd.Series) or values.index.has_duplicates:
        return ""
    return json.dumps({str(seed): float(value) for seed, value in values.items() if np.isfinite(value)})


def paired_row(
    claim: str,
    scope: str,
    statement: str,
    differences: pd.Series | np.ndarray,
    *,
    sign: int,
    measure: str,
    unit: str,
    alpha: float,
    level: float,
    note: str = "",
    experiment: int = 2,
    at: float | None = None,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Row:
    """Return a row of the paired rule.

    With `at`, of values that the claim puts above or below it; the interval ends at `limits`, which values
    cannot pass. A Series of differences has the seeds as its index.
    """
    by_seed = by_seed_of(differences)
    differences = np.asarray(differences, dtype=np.float64)
    what, base = ("difference", 0.0) if at is None else ("value", at)
    side = "above" if sign > 0 else "below"
    differences = differences - base
    finite = np.isfinite(differences)
    paired = stats.paired(differences[finite], level=level)
    least = stats.min_n_sign(alpha)
    notes = [note] if note else []
    if not finite.all():
        left_out = int((~finite).sum())
        notes.append(f"{left_out} seed{'s' if left_out > 1 else ''} left out: not finite")
    if paired.n < least:
        notes.append(f"{paired.n} seeds cannot reach p < {alpha:g} in a sign test; {least} can")
    notes.append(
        f"{what} above {base:g} in {paired.positive} of {paired.n} seeds, below in {paired.negative}"
    )
    return {
        "claim": claim,
        "experiment": experiment,
        "scope": scope,
        "statement": statement,
        "verdict": paired_verdict(paired, sign, alpha),
        "measure": measure,
        "effect": paired.mean + base,
        "unit": unit,
        "low": float(np.clip(paired.low + base, *limits)),
        "high": float(np.clip(paired.high + base, *limits)),
        "n": paired.n,
        "p_value": paired.p_sign,
        "by_seed": by_seed,
        "test": f"exact sign test; t interval of the {'paired difference' if at is None else 'mean'}",
        "rule": f"supported: p < {alpha:g} and {side} {base:g}; refuted: the other side",
        "note": "; ".join(notes),
    }


def joined(*notes: str) -> str:
    """Join what a note says, without what is empty."""
    return "; ".join(note for note in notes if note)


def count_of(hit: pd.Series, counted: pd.Series) -> str:
    """Say of how many counted so many are hits."""
    return f"{int(hit.sum())} of {int(counted.sum())}"


def grid_row(
    claim: str,
    experiment: int,
    scope: str,
    statement: str,
    estimates: pd.Series,
    errors: pd.Series,
    *,
    measure: str,
    unit: str,
    level: float,
    sign: int = 1,
    bound: bool = False,
    note: str = "",
) -> Row:
    """Return the row of a claim about each of several simulated numbers, of which there is at least one."""
    low, high = stats.simultaneous(estimates, errors, level)
    at = int(np.argmin(sign * estimates.to_numpy() / np.maximum(errors.to_numpy(), 1e-300)))
    side = "above" if sign > 0 else "below"
    rule = f"supported: all intervals {side} 0; refuted: one on the other side"
    if bound:
        rule = "refuted: one interval below 0; else supported"
        above = f"clearly above in {int((low > 0).sum())} of {len(low)} rows"
        note = f"{above}; {note}" if note else above
    return {
        "claim": claim,
        "experiment": experiment,
        "scope": scope,
        "statement": statement,
        "verdict": bound_verdict(high) if bound else grid_verdict(low, high, sign),
        "measure": f"{measure}; of the row nearest to failing",
        "effect": float(estimates.iloc[at]),
        "unit": unit,
        "low": float(low[at]),
        "high": float(high[at]),
        "n": len(low),
        "p_value": None,
        "test": "normal intervals of all rows together (Bonferroni)",
        "rule": rule,
        "note": note,
    }
