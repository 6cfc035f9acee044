"""Experiment 9: whether weight decay takes the asymmetry away or changes it.

``asymmetry_survives_l2``, ``l2_does_not_change_asymmetry``, ``penalty_leaves_verdicts``
    Factor ``recipe.weight_decay``. At each level a minimum's value is the share of its directions that are
    asymmetric: paired rule against one half. Unchanged rule, by the least-squares line through a seed's
    levels, which are taken for equally far apart. Share rule over directions whose verdict is the same with
    the penalty in the loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from valleys.claims.minima import left_out, most_directions, without_index
from valleys.claims.rows import Row, joined, paired_row, share_row
from valleys.claims.rules import unchanged_verdict
from valleys.results import stats, study_outcomes


def judge(
    study: study_outcomes.Study, plain: pd.DataFrame, levels: list[Any], alpha: float, level: float
) -> Iterator[Row]:
    """Experiment 9: whether weight decay takes the asymmetry away or changes it."""
    factor = "recipe.weight_decay"
    for one in levels:
        yield from most_directions(
            study,
            plain,
            {"factor": factor, "level": one},
            study_outcomes.label(factor, one),
            9,
            alpha=alpha,
            level=level,
            claim="asymmetry_survives_l2",
            statement="with weight decay or without, most directions at an SGD minimum are asymmetric",
            comparisons=len(levels),
        )
    parts = pd.concat([study.at(plain, factor, one) for one in levels])
    for probe, rows in parts.groupby("probe", sort=True):
        good = rows[rows["trained"]]
        wide = pd.DataFrame(
            {i: study.at(good, factor, one).set_index("seed")["index"] for i, one in enumerate(levels)}
        )
        whole = wide.dropna()
        steps = np.arange(len(levels)) - (len(levels) - 1) / 2
        slope = whole @ (steps / (steps @ steps))
        change = slope * (len(levels) - 1) / whole.mean(axis=1)
        ends = " to ".join(f"{one:g}" for one in (levels[0], levels[-1]))
        means = ", ".join(
            f"{mean:.3g} at {one:g}" for one, mean in zip(levels, whole.mean(), strict=True) if len(whole)
        )
        paired = stats.paired(change, level=level)
        lost = rows["seed"].nunique() - len(whole)
        yield paired_row(
            "l2_does_not_change_asymmetry",
            f"{study.name}/weight decay {ends}/{probe}",
            "weight decay does not change how asymmetric a minimum is",
            change,
            sign=1,
            measure="change of the mean |asymmetry index| from the first level to the last, over its mean",
            unit="share of the mean",
            alpha=alpha,
            level=level,
            experiment=9,
            note=joined(
                f"mean |index| {means}" if means else "",
                f"seeds without a trained minimum at each level, left out: {lost}" if lost else "",
                left_out(rows),
                without_index(good),
            ),
        ) | {
            "verdict": unchanged_verdict(paired, alpha),
            "rule": f"refuted: p < {alpha:g}; else supported: interval within -0.25 and 0.25",
        }
    yield from _penalty(study, level)


def _penalty(study: study_outcomes.Study, level: float) -> Iterator[Row]:
    """Experiment 9: verdicts of Definition 1 with the penalty in the probed loss and without."""
    rows = study.directions[study.directions["trained"]]
    names = [*study_outcomes.CELL_COLUMNS, "probe", "kind", "group", "k"]
    factor = "recipe.weight_decay"
    own = [*names, "status", study_outcomes.column(factor)]
    both = rows.loc[rows["penalty"], own].merge(
        rows.loc[~rows["penalty"], [*names, "status"]],
        on=names,
        suffixes=("", "_plain"),
        validate="one_to_one",
    )
    for (one, probe), part in both.groupby([study_outcomes.column(factor), "probe"], sort=True):
        same = part["status"] == part["status_plain"]
        moves = (part["status_plain"] + " to " + part["status"])[~same].value_counts()
        yield share_row(
            "penalty_leaves_verdicts",
            9,
            f"{study.name}/{study_outcomes.label(factor, one)}/{probe}",
            "a direction's verdict is mostly the same whether or not the probed loss has the L2 penalty",
            int(same.sum()),
            len(part),
            measure="share of directions with the same verdict (Definition 1), minima pooled",
            level=level,
            note=joined(
                *(f"{count} from {move}".replace("_", " ") for move, count in moves.items()),
                f"{part['seed'].nunique()} minima",
            ),
        )
