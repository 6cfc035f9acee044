"""What claims about studies share: doubts about minima, shares of asymmetric directions, contrasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from valleys.claims.rows import Row, joined, mean_row, refused_row, share_row
from valleys.claims.settings import Settings
from valleys.results import doubts, measures, study_outcomes


def left_out(minima: pd.DataFrame) -> str:
    """Say how many minima of some rows count as untrained."""
    cells = minima.drop_duplicates(study_outcomes.CELL_COLUMNS)
    lost = int((~cells["trained"]).sum())
    if not lost:
        return ""
    return f"{lost} of {len(cells)} minima left out: train accuracy below {study_outcomes.TRAINED:g}"


def with_doubts(minima: pd.DataFrame) -> str:
    """Say how many minima of some rows are `left_out`, and how many of the others are no minimum."""
    return joined(left_out(minima), doubts.about(minima[minima["trained"]]))


def without_index(minima: pd.DataFrame) -> str:
    """Say how many directions of some rows have no finite index."""
    lost = int((minima["directions"] - minima["indexed"]).sum())
    return f"{lost} of {int(minima['directions'].sum())} directions without an index" if lost else ""


def is_headline(minima: pd.DataFrame, probe: str, settings: Settings) -> bool:
    """Whether a probe's rows decide: kind uniform over all parameters, at the headline rise."""
    drawn = set(zip(minima["kind"], minima["group"], strict=True))
    return drawn == {("uniform", "all")} and settings.is_headline(probe)


def most_directions(
    study: study_outcomes.Study,
    plain: pd.DataFrame,
    where: study_outcomes.Levels,
    name: str,
    experiment: int,
    settings: Settings,
    *,
    number: int,
    claim: str = "most_directions_are_asymmetric",
    statement: str = "most directions at an SGD minimum are asymmetric",
    comparisons: int = 1,
) -> Iterator[Row]:
    """Share of a minimum's directions that are asymmetric, by probe, for some variants of a study.

    A row of the rule share: a minimum's share is held against one half. Whether at least one direction is
    asymmetric is not asked, as that hangs on how many were drawn. These rows decide no claim.
    """
    for probe, all_rows in study.take(plain, where).groupby("probe", sort=True):
        rows = all_rows[all_rows["trained"]]
        least = rows["asymmetric"] - rows["short_asymmetric"]
        yield share_row(
            claim,
            f"{study.name}/{name}/{probe}",
            statement,
            rows["asymmetric"] / rows["directions"],
            least=least / rows["directions"],
            most=(least + rows["short"]) / rows["directions"],
            at=0.5,
            measure="share of a minimum's directions that are asymmetric (Definition 1), mean over minima",
            note=joined(
                settings.about_rise(str(probe)),
                f"of directions {int(rows['asymmetric'].sum())} of {int(rows['directions'].sum())}",
                _short_of(rows, probe, settings),
                f"one of {comparisons} levels, p not corrected" if comparisons > 1 else "",
                with_doubts(all_rows),
            ),
            experiment=experiment,
            number=number,
            **settings.test,
        )


def _short_of(minima: pd.DataFrame, probe: object, settings: Settings) -> str:
    counts = (int(minima[name].sum()) for name in ("short", "short_asymmetric", "directions"))
    return measures.short_of(*counts, settings.rise_of(str(probe)))


def contrast(
    claim: str,
    study: study_outcomes.Study,
    scope: str,
    statement: str,
    first: pd.DataFrame,
    second: pd.DataFrame,
    settings: Settings,
    *,
    comparisons: int,
    names: tuple[str, str],
    number: int,
    decides: bool = False,
    measure: str = "index",
    text: str = "mean |asymmetry index|",
    unit: str = "log ratio",
    experiment: int = 10,
) -> Row:
    """Return a row of the rule mean for ``first - second``, claimed to be above 0.

    A contrast of the index is refused where the two sides are `not_comparable`. Those of other measures are
    not: a curvature has no rise, and where a radius ends before its rise is met, the minimum is at least that
    wide.
    """
    both = pd.concat([first, second])
    good = [rows[rows["trained"]] for rows in (first, second)]
    notes = [settings.about_rise(str(probe)) for probe in dict.fromkeys(both["probe"])]
    if measure == "index":
        counts = (f"{int(rows['asymmetric'].sum())} of {int(rows['directions'].sum())}" for rows in good)
        shares = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))
        notes += [f"asymmetric directions: {shares}", without_index(both[both["trained"]])]
    means = ", ".join(
        f"{name} {rows[measure].mean():.3g}"
        for name, rows in zip(names, good, strict=True)
        if np.isfinite(rows[measure]).any()
    )
    notes += [f"means: {means}" if means else "", with_doubts(both)]
    if comparisons > 1:
        notes.append(f"one of {comparisons} such comparisons in this study, p not corrected")
    row = mean_row(
        claim,
        f"{study.name}/{scope}",
        statement,
        study_outcomes.by_seed(first, second, measure),
        sign=1,
        measure=f"{text}: {names[0]} - {names[1]}, within a seed",
        unit=unit,
        note=joined(*dict.fromkeys(notes)),
        experiment=experiment,
        number=number,
        decides=decides,
        **settings.test,
    )
    why = not_comparable(dict(zip(names, good, strict=True))) if measure == "index" else ""
    return refused_row(row, why) if why else row


def not_comparable(groups: Mapping[str, pd.DataFrame]) -> str:
    """Return why the indices of some groups of minima cannot be compared; empty if they can.

    By `measures.equal_rises`, and where the loss does not rise as asked for along more than half of a group's
    directions: near the height at which it levels off both sides rise alike, however uneven the valley is.

    Parameters
    ----------
    groups
        Trained minima (`study_outcomes.Study.minima`) by the name of their group.
    """
    whys = [measures.equal_rises(*pair) for pair in combinations(groups.values(), 2)]
    for name, rows in groups.items():
        short, of = int(rows["short"].sum()), int(rows["directions"].sum())
        if 2 * short > of:
            whys.append(
                f"not comparable: the loss does not rise as asked for along {short} of {of} of {name}"
            )
    return next(filter(None, whys), "")
