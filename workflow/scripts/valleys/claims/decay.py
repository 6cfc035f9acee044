"""Experiment 9: whether weight decay takes the asymmetry away or changes it (claim 4).

Factor ``recipe.weight_decay``. Directions of kind uniform over all parameters, at the headline rise, decide.

``l2_does_not_change_asymmetry``
    Rule equivalence. A seed's value is the change of its mean |asymmetry index| from the first level to the
    last, over the mean of the two. Claimed to be within `Settings.margin`. Refused where the rises at the two
    levels are more than two-fold apart.
``asymmetric_direction_is_found_with_decay``
    Rule share. A minimum's value is 1 where a search finds an asymmetric direction on images that it did not
    see (as experiment 13), over the minima of all levels. At the headline rise it decides.
``asymmetry_survives_l2``, ``penalty_leaves_verdicts``
    Rule share against one half, beside. A minimum's value is the share of its directions that are asymmetric,
    at each level; and the share whose verdict is the same with the penalty in the loss.

SWA's gain at each level is judged as in other studies (`valleys.claims.studies`), and decides this claim.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from valleys.claims.minima import (
    is_headline,
    left_out,
    most_directions,
    not_comparable,
    with_doubts,
    without_index,
)
from valleys.claims.rows import Row, equivalence_row, joined, refused_row, share_row
from valleys.claims.search import found_row
from valleys.claims.settings import Settings
from valleys.results import study_outcomes
from valleys.results.searches import of_first

FACTOR = "recipe.weight_decay"


def judge(
    study: study_outcomes.Study,
    plain: pd.DataFrame,
    levels: list[Any],
    searches: pd.DataFrame,
    settings: Settings,
) -> Iterator[Row]:
    """Experiment 9: whether weight decay takes the asymmetry away or changes it."""
    for one in levels:
        yield from most_directions(
            study,
            plain,
            {"factor": FACTOR, "level": one},
            study_outcomes.label(FACTOR, one),
            9,
            settings,
            number=4,
            claim="asymmetry_survives_l2",
            statement="with weight decay or without, most directions at an SGD minimum are asymmetric",
            comparisons=len(levels),
        )
    parts = pd.concat([study.at(plain, FACTOR, one) for one in levels])
    for probe, rows in parts.groupby("probe", sort=True):
        yield _change(study, rows, str(probe), levels, settings)
    yield from _found(study, parts, searches, settings)
    yield from _penalty(study, settings)


def _change(
    study: study_outcomes.Study, rows: pd.DataFrame, probe: str, levels: list[Any], settings: Settings
) -> Row:
    """Experiment 9: the index at the last level against that at the first."""
    by_level = [study.at(rows[rows["trained"]], FACTOR, one) for one in levels]
    first, last = by_level[0], by_level[-1]
    both = pd.DataFrame({at: side.set_index("seed")["index"] for at, side in enumerate((first, last))})
    whole = both.dropna()
    means = ", ".join(
        f"{side['index'].mean():.3g} at {one:g}"
        for one, side in zip(levels, by_level, strict=True)
        if side["index"].notna().any()
    )
    lost = rows["seed"].nunique() - len(whole)
    row = equivalence_row(
        "l2_does_not_change_asymmetry",
        f"{study.name}/weight decay {levels[0]:g} to {levels[-1]:g}/{probe}",
        "weight decay does not change how asymmetric a minimum is",
        (whole[1] - whole[0]) / whole.mean(axis=1),
        margin=settings.margin,
        measure="change of the mean |asymmetry index| from the first level to the last, over their mean",
        unit="share of the mean",
        note=joined(
            settings.about_rise(probe),
            f"mean |index| {means}" if means else "",
            f"seeds without a trained minimum at both ends, left out: {lost}" if lost else "",
            with_doubts(rows),
            without_index(rows[rows["trained"]]),
        ),
        experiment=9,
        number=4,
        decides=is_headline(rows, probe, settings),
        **settings.test,
    )
    why = not_comparable({f"{levels[at]:g}": by_level[at] for at in (0, -1)})
    return refused_row(row, why) if why else row


def _found(
    study: study_outcomes.Study, minima: pd.DataFrame, searches: pd.DataFrame, settings: Settings
) -> Iterator[Row]:
    """Experiment 9: asymmetric directions found by ascent at the minima of all levels, by probe."""
    level = study_outcomes.column(FACTOR)
    cells = minima.loc[minima["trained"], [*study_outcomes.CELL_COLUMNS, level]]
    cells = cells.drop_duplicates(study_outcomes.CELL_COLUMNS)
    first = of_first(searches)
    there = first[first["solution"] == study.solution].merge(
        cells, on=study_outcomes.CELL_COLUMNS, validate="many_to_one"
    )
    for name, rows in there.groupby("probe", sort=True):
        probe, chosen = str(name), rows[rows["chosen"]]
        counts = ", ".join(
            f"{int(part['found'].eq(True).sum())} of {len(part)} at {one:g}"
            for one, part in chosen.groupby(level, sort=True)
        )
        yield found_row(
            rows,
            f"{study.name}/all decays/{probe}",
            settings,
            claim="asymmetric_direction_is_found_with_decay",
            statement="with weight decay or without, there is an asymmetric direction at the minima that "
            "SGD finds",
            about=joined(f"found: {counts}", left_out(minima)),
            experiment=9,
            number=4,
            decides=settings.is_headline(probe),
        )


def _penalty(study: study_outcomes.Study, settings: Settings) -> Iterator[Row]:
    """Experiment 9: verdicts of Definition 1 with the penalty in the probed loss and without."""
    rows = study.directions[study.directions["trained"]]
    names = [*study_outcomes.CELL_COLUMNS, "probe", "kind", "group", "k"]
    own = [*names, "status", study_outcomes.column(FACTOR)]
    both = rows.loc[rows["penalty"], own].merge(
        rows.loc[~rows["penalty"], [*names, "status"]],
        on=names,
        suffixes=("", "_plain"),
        validate="one_to_one",
    )
    for (one, probe), part in both.groupby([study_outcomes.column(FACTOR), "probe"], sort=True):
        same = part["status"] == part["status_plain"]
        moves = (part["status_plain"] + " to " + part["status"])[~same].value_counts()
        yield share_row(
            "penalty_leaves_verdicts",
            f"{study.name}/{study_outcomes.label(FACTOR, one)}/{probe}",
            "a direction's verdict is mostly the same whether or not the probed loss has the L2 penalty",
            same.groupby([part[key] for key in study_outcomes.CELL_COLUMNS]).mean().to_numpy(),
            at=0.5,
            measure="share of a minimum's directions with the same verdict (Definition 1), mean over minima",
            note=joined(
                settings.about_rise(str(probe)),
                f"of directions {int(same.sum())} of {len(part)}",
                *(f"{count} from {move}".replace("_", " ") for move, count in moves.items()),
            ),
            experiment=9,
            number=4,
            **settings.test,
        )
