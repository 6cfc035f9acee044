"""Experiment 11: ``<factor>_changes_asymmetry`` for each factor of a full or sampled design (claim 11).

Rule levels. A minimum's value is the mean size of its directions' asymmetry index. Kind uniform over all
parameters at the headline rise decides; other rises and kinds stand beside. A factor whose levels' median
rises are more than two-fold apart, or fall short, is refused (`minima.not_comparable`): the index grows
with the rise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from valleys.claims.minima import is_headline, not_comparable, with_doubts
from valleys.claims.rows import Row, joined, refused_row
from valleys.claims.rules import INCONCLUSIVE, NOT_DECIDABLE, SUPPORTED
from valleys.claims.settings import Settings
from valleys.config.studies import factor_name
from valleys.results import stats, study_outcomes


def judge(study: study_outcomes.Study, plain: pd.DataFrame, settings: Settings) -> Iterator[Row]:
    """Experiment 11: factors of a full or sampled design, each with its p adjusted over all of them."""
    for probe, everything in plain.groupby("probe", sort=True):
        trained = everything[everything["trained"]]
        rows = trained[np.isfinite(trained["index"])]
        at = {factor: rows[study_outcomes.column(factor)].tolist() for factor in study.factors}
        tests = {
            factor: stats.factor_test(
                rows["index"].rank(), own, [at[other] for other in at if other != factor]
            )
            for factor, own in at.items()
        }
        about = [
            settings.about_rise(str(probe)),
            with_doubts(everything),
            f"{len(trained) - len(rows)} minima without an index" if len(trained) > len(rows) else "",
        ]
        adjusted = stats.holm([test.p for test in tests.values()])
        for (factor, test), holm in zip(tests.items(), adjusted, strict=True):
            parts = {
                study_outcomes.text_of(one): study.at(rows, factor, one) for one in study.factors[factor]
            }
            row = _row(study, str(probe), factor, parts, test, float(holm), settings)
            row["test"] += f", p adjusted over {len(tests)} factors (Holm)"
            row["note"] = joined(row["note"], *about)
            row["decides"] = is_headline(everything, str(probe), settings)
            why = not_comparable(parts)
            yield refused_row(row, why) if why else row


def _row(
    study: study_outcomes.Study,
    probe: str,
    factor: str,
    parts: Mapping[str, pd.DataFrame],
    test: stats.Factor,
    holm: float,
    settings: Settings,
) -> Row:
    """Return the row of one factor, from its minima by level and the adjusted p of its test."""
    samples = {name: part["index"].to_numpy() for name, part in parts.items()}
    spread = stats.spread_of_means(list(samples.values()), level=settings.level)
    name, tested = factor_name(factor), math.isfinite(holm)
    means = ", ".join(
        f"{level} {values.mean():.3g} ({len(values)})" for level, values in samples.items() if len(values)
    )
    absent = ", ".join(level for level, values in samples.items() if not len(values))
    verdict = SUPPORTED if holm <= settings.alpha else INCONCLUSIVE
    return {
        "claim": f"{name.replace(' ', '_')}_changes_asymmetry",
        "experiment": 11,
        "scope": f"{study.name}/{probe}",
        "statement": f"how asymmetric a minimum is depends on the {name}",
        "verdict": verdict if tested else NOT_DECIDABLE,
        "measure": "greatest - least of the levels' means of a minimum's mean |asymmetry index|",
        "effect": spread.estimate,
        "unit": "log ratio",
        "low": spread.low,
        "high": spread.high,
        "n": spread.n,
        "p_value": holm if tested else None,
        "by_seed": "",
        "test": "F ratio in the additive model of all factors, of ranks, residuals permuted (Freedman and "
        "Lane); bootstrap interval, which is no test: a spread is above 0 by chance alone",
        "rule": f"supported: adjusted p <= {settings.alpha:g}; else inconclusive: absence cannot be shown",
        "note": joined(
            f"means (minima): {means}" if means else "",
            f"explains {test.explained:.0%} of the variance of ranks that the other factors leave; "
            f"F = {test.f:.3g}, p = {test.p:.2g} before adjustment"
            if tested
            else "no test: too few levels or minima",
            f"no minimum at {absent}" if absent else "",
        ),
        "number": 11,
        "decides": False,
        "p_for": test.p / 2 if tested else None,
        "p_against": 1.0 if tested else None,
        "n_needed": None,
    }
