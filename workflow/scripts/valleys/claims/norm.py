"""Experiment 10: batch norm and where its scales begin (claim 5). Rule mean.

The value of a minimum is the mean size of its directions' asymmetry index. Contrasts are within a seed and at
equal rises (`valleys.claims.minima.contrast`).

``bn_makes_asymmetric``
    Factor ``model.norm``: batch norm less each other norm. Kind uniform over all parameters at the headline
    rise decides, with batch norm refreshed and frozen; other rises and kinds stand beside.
``bn_init_matters``
    Factor ``model.norm_init``: scales that began at ones less scales that began Gaussian. Beside.
``bn_directions_are_more_asymmetric``
    Within a minimum with batch norm, directions in its parameters less directions in all others. Beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from valleys.claims.minima import contrast, is_headline
from valleys.claims.rows import Row
from valleys.claims.settings import Settings
from valleys.results import study_outcomes


def judge(
    study: study_outcomes.Study, plain: pd.DataFrame, levels: list[Any], settings: Settings
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
                settings,
                comparisons=comparisons,
                names=("batch", study_outcomes.text_of(other)),
                number=5,
                decides=is_headline(rows, str(probe), settings),
            )


def judge_init(
    study: study_outcomes.Study, plain: pd.DataFrame, levels: list[Any], settings: Settings
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
            settings,
            comparisons=probes,
            names=("ones", "gaussian"),
            number=5,
        )


def judge_directions(study: study_outcomes.Study, plain: pd.DataFrame, settings: Settings) -> Iterator[Row]:
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
            settings,
            comparisons=len(pairs),
            names=names,
            number=5,
        )
