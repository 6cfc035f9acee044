"""Claims about studies: experiments 6 and 8 to 11.

They go by a study's factors, whatever its name. A minimum's value is the mean over its directions of the
asymmetry index's size, |log of rise at -R over rise at R|: unlike the share of asymmetric directions it has
no threshold and does not end at 1, and unlike the index itself it does not depend on which of u and -u was
drawn. It is above 0 in any valley that is not symmetric along each direction; probes of other kinds are the
control. Minima with a train accuracy below 1/2 are left out, and the note counts them.

``swa_gain``, ``swa_rise``
    Wherever each variant of a study has SWA and descent: test loss of descent less that of SWA, train loss
    of SWA less that of descent. Paired rule, at each level.
``most_directions_are_asymmetric``
    Each level of any factor that has no claims of its own; all variants of a full or sampled design together.
    A minimum's value is the share of its directions that are asymmetric. Paired rule against one half.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from valleys.claims import crossed, decay, norm, prevalence, recipes
from valleys.claims.minima import left_out, most_directions
from valleys.claims.rows import Row, joined, paired_row
from valleys.results import study_outcomes


def judge(
    study: pd.DataFrame | None,
    factors: study_outcomes.Order | None,
    c: float,
    alpha: float,
    level: float,
) -> Iterator[Row]:
    """Experiments 6 and 8 to 11: what studies show, by their factors."""
    for one in study_outcomes.studies(study, factors):
        yield from _of_study(one, c, alpha, level)


def _of_study(study: study_outcomes.Study, c: float, alpha: float, level: float) -> Iterator[Row]:
    """Judge what one study shows, by its design and factors."""
    plain = study.minima[~study.minima["penalty"]]
    if study.design == "none":
        rows = study.directions[study.directions["trained"] & ~study.directions["penalty"]]
        about = {"experiment": 8, "within": f"{study.name}/", "about": left_out(plain)}
        yield from prevalence.judge(rows.assign(solution="sgd"), c, level, **about)
    elif study.design == "crossed":
        yield from most_directions(study, plain, {}, "all variants", 11, alpha=alpha, level=level)
        yield from crossed.judge(study, plain, alpha, level)
    elif list(study.factors) == ["recipe"] and len(study.factors["recipe"]) == 2:
        yield from recipes.judge(study, plain, alpha, level)
    else:
        for factor, levels in study.factors.items():
            if factor == "recipe.weight_decay":
                yield from decay.judge(study, plain, levels, alpha, level)
            elif factor == "model.norm":
                yield from norm.judge(study, plain, levels, alpha, level)
            elif factor == "model.norm_init":
                yield from norm.judge_init(study, plain, levels, alpha, level)
            else:
                number = 11 if factor.startswith(("model", "recipe.loss")) else 1
                for one in levels:
                    where = {"factor": factor, "level": one}
                    name = study_outcomes.label(factor, one)
                    about = {"alpha": alpha, "level": level, "comparisons": len(levels)}
                    yield from most_directions(study, plain, where, name, number, **about)
        if {"model.norm", "model.norm_init"} & set(study.factors):
            yield from norm.judge_directions(study, plain, alpha, level)
    yield from _study_swa(study, plain, alpha, level)


def _study_swa(study: study_outcomes.Study, plain: pd.DataFrame, alpha: float, level: float) -> Iterator[Row]:
    """SWA against descent in a study that has both, by level."""
    cells = plain.drop_duplicates(study_outcomes.CELL_COLUMNS)
    cells = cells[np.isfinite(cells["swa_gain"])]
    experiment = 9 if "recipe.weight_decay" in study.factors else 2
    groups = [(name, where) for name, where in study.groups() if len(study.take(cells, where))]
    for claim, statement, measure in (
        ("swa_gain", "SWA's test loss is lower than that of the solution SGD reaches from it",
         "test loss of descent - of swa"),
        ("swa_rise", "SWA's train loss is higher than that of the solution SGD reaches from it",
         "train loss of swa - of descent"),
    ):  # fmt: skip
        for name, where in groups:
            rows = study.take(cells, where)
            good = rows[rows["trained"]]
            several = f"one of {len(groups)} levels, p not corrected" if len(groups) > 1 else ""
            yield paired_row(
                claim,
                f"{study.name}/{name}" if name else study.name,
                statement,
                good.set_index("seed")[claim],
                sign=1,
                measure=measure,
                unit="nats",
                alpha=alpha,
                level=level,
                experiment=experiment,
                note=joined(several, left_out(rows)),
            )
