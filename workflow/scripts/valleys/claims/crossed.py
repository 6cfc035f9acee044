"""Experiment 11: ``<factor>_changes_asymmetry`` for each factor of a full or sampled design. Rule levels."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from valleys.claims.minima import left_out
from valleys.claims.rows import Row, joined
from valleys.claims.rules import INCONCLUSIVE, SUPPORTED
from valleys.config.studies import factor_name
from valleys.results import stats, study_outcomes


def judge(study: study_outcomes.Study, plain: pd.DataFrame, alpha: float, level: float) -> Iterator[Row]:
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
        adjusted = stats.holm([test.p for test in tests.values()])
        for (factor, test), holm in zip(tests.items(), adjusted, strict=True):
            levels = study.factors[factor]
            samples = {one: study.at(rows, factor, one)["index"].to_numpy() for one in levels}
            spread = stats.spread_of_means(list(samples.values()), level=level)
            name = factor_name(factor)
            means = ", ".join(
                f"{study_outcomes.text_of(one)} {values.mean():.3g} ({len(values)})"
                for one, values in samples.items()
                if len(values)
            )
            absent = [study_outcomes.text_of(one) for one, values in samples.items() if not len(values)]
            yield {
                "claim": f"{name.replace(' ', '_')}_changes_asymmetry",
                "experiment": 11,
                "scope": f"{study.name}/{probe}",
                "statement": f"how asymmetric a minimum is depends on the {name}",
                "verdict": SUPPORTED if holm < alpha else INCONCLUSIVE,
                "measure": "greatest - least of the levels' means of a minimum's mean |asymmetry index|",
                "effect": spread.estimate,
                "unit": "log ratio",
                "low": spread.low,
                "high": spread.high,
                "n": spread.n,
                "p_value": None if math.isnan(holm) else float(holm),
                "test": "permutation of residuals in the additive model of all factors (Freedman and Lane), "
                f"of ranks, p adjusted over {len(tests)} factors (Holm); "
                "bootstrap interval, which is no test: a spread is above 0 by chance alone",
                "rule": f"supported: adjusted p < {alpha:g}; else inconclusive: absence cannot be shown",
                "note": joined(
                    f"means (minima): {means}" if means else "",
                    f"explains {test.explained:.0%} of the variance of ranks that the other factors leave; "
                    f"F = {test.f:.3g}, p = {test.p:.2g} before adjustment"
                    if math.isfinite(test.p)
                    else "no test: too few levels or minima",
                    f"no minimum at {', '.join(absent)}" if absent else "",
                    left_out(everything),
                    f"{len(trained) - len(rows)} minima without an index" if len(trained) > len(rows) else "",
                ),
            }
