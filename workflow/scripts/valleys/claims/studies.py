"""Claims about studies: experiments 6 and 8 to 11.

They go by a study's factors, whatever its name. A minimum's value is the mean over its directions of the
asymmetry index's size, |log of the rises on both sides of the curve's own minimum|: unlike the share of
asymmetric directions it has no threshold and does not end at 1, and unlike the index itself it does not
depend on which of u and -u was drawn. It is above 0 in any valley that is not symmetric along each direction;
probes of other kinds are the control. Minima with a train accuracy below 1/2 are left out, and the note
counts them.

``swa_gain``, ``swa_gain_sgd``, ``swa_rise``, ``swa_rise_sgd``
    Wherever each variant of a study has SWA and what it is held against: descent, or SGD with its rate
    decayed. Test loss of the other less that of SWA, and train loss of SWA less that of the other. Rule mean,
    at each level. The test loss decides claim 4 in a study over weight decay, but on data sets that are
    controls; all else stands beside, in other studies below claim 8.
``most_directions_are_asymmetric``
    Each level of any factor that has no claims of its own; all variants of a full or sampled design together.
    A minimum's value is the share of its directions that are asymmetric. Rule share against one half; beside.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from valleys.claims import crossed, decay, norm, prevalence, recipes
from valleys.claims.minima import left_out, most_directions, with_doubts
from valleys.claims.rows import Row, joined, mean_row
from valleys.claims.settings import Settings
from valleys.results import study_outcomes

_OTHERS = {"": ("descent", "the solution SGD reaches from it"), "_sgd": ("sgd", "SGD with its rate decayed")}


def judge(study: pd.DataFrame | None, searches: pd.DataFrame, settings: Settings) -> Iterator[Row]:
    """Experiments 6 and 8 to 11: what studies show, by their factors."""
    for one in study_outcomes.studies(study, settings.factors):
        yield from _of_study(one, searches, settings)


def _of_study(study: study_outcomes.Study, searches: pd.DataFrame, settings: Settings) -> Iterator[Row]:
    """Judge what one study shows, by its design and factors."""
    plain = study.minima[~study.minima["penalty"]]
    if study.design == "none":
        rows = study.directions[study.directions["trained"] & ~study.directions["penalty"]]
        about = {"experiment": 8, "within": f"{study.name}/", "about": left_out(plain)}
        yield from prevalence.by_setting(rows, settings, **about)
    elif study.design == "crossed":
        yield from most_directions(study, plain, {}, "all variants", 11, settings, number=11)
        yield from crossed.judge(study, plain, settings)
    elif list(study.factors) == ["recipe"] and len(study.factors["recipe"]) == 2:
        yield from recipes.judge(study, plain, settings)
    else:
        yield from _by_factor(study, plain, searches, settings)
    yield from _study_swa(study, plain, settings)


def _by_factor(
    study: study_outcomes.Study, plain: pd.DataFrame, searches: pd.DataFrame, settings: Settings
) -> Iterator[Row]:
    """Judge each factor of a one-at-a-time design."""
    for factor, levels in study.factors.items():
        if factor == decay.FACTOR:
            yield from decay.judge(study, plain, levels, searches, settings)
        elif factor == "model.norm":
            yield from norm.judge(study, plain, levels, settings)
        elif factor == "model.norm_init":
            yield from norm.judge_init(study, plain, levels, settings)
        else:
            structure = factor.startswith(("model", "recipe.loss"))
            experiment, number = (11, 11) if structure else (1, 2)
            for one in levels:
                where = {"factor": factor, "level": one}
                name, about = study_outcomes.label(factor, one), {"comparisons": len(levels)}
                yield from most_directions(
                    study, plain, where, name, experiment, settings, number=number, **about
                )
    if {"model.norm", "model.norm_init"} & set(study.factors):
        yield from norm.judge_directions(study, plain, settings)


def _study_swa(study: study_outcomes.Study, plain: pd.DataFrame, settings: Settings) -> Iterator[Row]:
    """SWA against descent and against SGD in a study that has both, by level."""
    of_decay = decay.FACTOR in study.factors
    for of, (other, named) in _OTHERS.items():
        for claim, word, measure in (
            (f"swa_gain{of}", "test loss is lower", f"test loss of {other} - of swa"),
            (f"swa_rise{of}", "train loss is higher", f"train loss of swa - of {other}"),
        ):
            cells = plain.drop_duplicates(study_outcomes.CELL_COLUMNS)
            cells = cells[np.isfinite(cells[claim])]
            groups = [(name, where) for name, where in study.groups() if len(study.take(cells, where))]
            for name, where in groups:
                rows = study.take(cells, where)
                good = rows[rows["trained"]]
                controls = all(map(settings.is_control, rows["dataset"]))
                several = f"one of {len(groups)} levels, p not corrected" if len(groups) > 1 else ""
                yield mean_row(
                    claim,
                    f"{study.name}/{name}" if name else study.name,
                    f"SWA's {word} than that of {named}",
                    good.set_index("seed")[claim],
                    sign=1,
                    measure=measure,
                    unit="nats",
                    note=joined(several, (with_doubts if of else left_out)(rows)),
                    experiment=9 if of_decay else 2,
                    number=4 if of_decay else 8,
                    decides=of_decay and claim.startswith("swa_gain") and not controls,
                    **settings.test,
                )
