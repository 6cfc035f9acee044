"""What claims about studies share: minima left out, shares of asymmetric directions, comparisons."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from valleys.claims.rows import Row, joined, paired_row
from valleys.results import study_outcomes


def left_out(minima: pd.DataFrame) -> str:
    """Say how many minima of some rows count as untrained."""
    cells = minima.drop_duplicates(study_outcomes.CELL_COLUMNS)
    lost = int((~cells["trained"]).sum())
    if not lost:
        return ""
    return f"{lost} of {len(cells)} minima left out: train accuracy below {study_outcomes.TRAINED:g}"


def without_index(minima: pd.DataFrame) -> str:
    """Say how many directions of some rows have no finite index."""
    lost = int((minima["directions"] - minima["indexed"]).sum())
    return f"{lost} of {int(minima['directions'].sum())} directions without an index" if lost else ""


def most_directions(
    study: study_outcomes.Study,
    plain: pd.DataFrame,
    where: study_outcomes.Levels,
    name: str,
    experiment: int,
    *,
    alpha: float,
    level: float,
    claim: str = "most_directions_are_asymmetric",
    statement: str = "most directions at an SGD minimum are asymmetric",
    comparisons: int = 1,
) -> Iterator[Row]:
    """Share of a minimum's directions that are asymmetric, by probe, for some variants of a study.

    A row of the paired rule: a minimum's share is held against one half. Whether at least one direction is
    asymmetric is not asked, as that hangs on how many were drawn.
    """
    for probe, all_rows in study.take(plain, where).groupby("probe", sort=True):
        rows = all_rows[all_rows["trained"]].set_index("seed")
        yield paired_row(
            claim,
            f"{study.name}/{name}/{probe}",
            statement,
            rows["asymmetric"] / rows["directions"],
            sign=1,
            measure="share of a minimum's directions that are asymmetric (Definition 1), mean over minima",
            unit="share",
            alpha=alpha,
            level=level,
            experiment=experiment,
            at=0.5,
            limits=(0, 1),
            note=joined(
                f"of directions {int(rows['asymmetric'].sum())} of {int(rows['directions'].sum())}",
                f"one of {comparisons} levels, p not corrected" if comparisons > 1 else "",
                left_out(all_rows),
            ),
        )


def contrast(
    claim: str,
    study: study_outcomes.Study,
    scope: str,
    statement: str,
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    comparisons: int,
    names: tuple[str, str],
    alpha: float,
    level: float,
    measure: str = "index",
    text: str = "mean |asymmetry index|",
    unit: str = "log ratio",
    experiment: int = 10,
) -> Row:
    """Return a row of the paired rule for ``first - second``, claimed to be above 0."""
    both = pd.concat([first, second])
    differences = study_outcomes.by_seed(first, second, measure)
    notes = []
    if measure == "index":
        shares = []
        for name, rows in zip(names, (first, second), strict=True):
            good = rows[rows["trained"]]
            shares.append(f"{name} {int(good['asymmetric'].sum())} of {int(good['directions'].sum())}")
        notes += [f"asymmetric directions: {', '.join(shares)}", without_index(both[both["trained"]])]
    means = ", ".join(
        f"{name} {rows.loc[rows['trained'], measure].mean():.3g}"
        for name, rows in zip(names, (first, second), strict=True)
        if np.isfinite(rows.loc[rows["trained"], measure]).any()
    )
    notes += [f"means: {means}" if means else "", left_out(both)]
    if comparisons > 1:
        notes.append(f"one of {comparisons} such comparisons in this study, p not corrected")
    return paired_row(
        claim,
        f"{study.name}/{scope}",
        statement,
        differences,
        sign=1,
        measure=f"{text}: {names[0]} - {names[1]}, within a seed",
        unit=unit,
        alpha=alpha,
        level=level,
        experiment=experiment,
        note=joined(*notes),
    )
