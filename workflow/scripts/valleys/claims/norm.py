"""Experiment 10: batch norm and where its scales begin.

``bn_makes_asymmetric``, ``bn_directions_are_more_asymmetric``, ``bn_init_matters``
    Factors ``model.norm`` and ``model.norm_init``. Paired rule: batch norm less each other norm; within a
    minimum with batch norm, directions in its parameters less directions in all others; scales that began at
    ones less scales that began Gaussian.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from valleys.claims.minima import contrast
from valleys.claims.rows import Row
from valleys.results import study_outcomes


def judge(
    study: study_outcomes.Study, plain: pd.DataFrame, levels: list[Any], alpha: float, level: float
) -> Iterator[Row]:
    """Experiment 10: batch norm against other norms, along directions over all parameters."""
    others = [one for one in levels if one != "batch"]
    whole = plain[plain["group"] == "all"]
    if len(others) == len(levels):
        return
    comparisons = len(others) * whole["probe"].nunique()
    for probe, rows in whole.groupby("probe", sort=True):
        batch = study.at(rows, "model.norm", "batch")
        for other in others:
            yield contrast(
                "bn_makes_asymmetric",
                study,
                f"batch against {study_outcomes.text_of(other)}/{probe}",
                "minima of nets with batch norm are more asymmetric than those without",
                batch,
                study.at(rows, "model.norm", other),
                comparisons=comparisons,
                names=("batch", study_outcomes.text_of(other)),
                alpha=alpha,
                level=level,
            )


def judge_init(
    study: study_outcomes.Study, plain: pd.DataFrame, levels: list[Any], alpha: float, level: float
) -> Iterator[Row]:
    """Experiment 10: scales that begin at one against scales that begin Gaussian."""
    if not {"ones", "gaussian"} <= set(levels):
        return
    probes = plain["probe"].nunique()
    for probe, rows in plain.groupby("probe", sort=True):
        yield contrast(
            "bn_init_matters",
            study,
            f"ones against gaussian/{probe}",
            "with norm scales that begin at one a minimum is more asymmetric than with Gaussian ones",
            study.at(rows, "model.norm_init", "ones"),
            study.at(rows, "model.norm_init", "gaussian"),
            comparisons=probes,
            names=("ones", "gaussian"),
            alpha=alpha,
            level=level,
        )


def judge_directions(
    study: study_outcomes.Study, plain: pd.DataFrame, alpha: float, level: float
) -> Iterator[Row]:
    """Experiment 10: directions in the norm's parameters against those in all others, within a minimum.

    Probes are compared with those of the same kind, in the order of their names.
    """
    here = plain
    for factor, usual in (("model.norm", "batch"), ("model.norm_init", "ones")):
        if factor in study.factors:
            if usual not in study.factors[factor]:
                return
            here = study.at(here, factor, usual)
    pairs = []
    for _, rows in here.groupby("kind", sort=True):
        inside, outside = (
            sorted(set(rows.loc[rows["group"] == group, "probe"])) for group in ("bn", "not_bn")
        )
        pairs += zip(inside, outside, strict=False)
    for names in pairs:
        yield contrast(
            "bn_directions_are_more_asymmetric",
            study,
            f"batch norm/{names[0]} against {names[1]}",
            "directions in batch norm's parameters are more asymmetric than directions in all others",
            *(here[here["probe"] == name] for name in names),
            comparisons=len(pairs),
            names=names,
            alpha=alpha,
            level=level,
        )
