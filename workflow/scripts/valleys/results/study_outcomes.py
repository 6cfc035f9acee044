"""What studies found, minimum by minimum, for claims and figures: levels, asymmetry, width, what compares.

All is read from the table ``study`` alone, so that a study is treated by its factors and not by its name. The
order of levels alone is taken from the config, as the table does not hold it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from valleys.config.catalogue import SOLUTIONS
from valleys.config.studies import Json, factor_name, hashable, level_name
from valleys.errors import ValleysError
from valleys.results.measures import falls_short

CELL_COLUMNS = ["dataset", "model", "recipe", "seed"]
PROBE = ["probe", "kind", "group", "penalty"]
_SWA = (("swa_rise", "swa_gain"), ("swa_rise_sgd", "swa_gain_sgd"))
_MAY_LACK = (*(key for pair in _SWA for key in pair), "gradient_gain")

TRAINED = 0.5
"""Least train accuracy of a minimum that counts.

A net that has not learned to fit half of its train images is at no minimum that the paper speaks of; its loss
is flat or falls along most directions. For two classes, where chance is one half, the rule leaves out few.
"""

Order = Mapping[str, Mapping[str, Sequence[Any]]]
Levels = Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """One study's outcome.

    Attributes
    ----------
    name : str
        As in the config.
    factors : dict
        Factors that vary in it, each with its levels in order. They are as
        `valleys.config.studies.hashable` returns them.
    design : str
        ``none`` (no factor varies), ``one_at_a_time`` (each variant differs from the base in one factor at
        most, and variants share seeds) or ``crossed`` (anything else: full and sampled designs).
    base : dict
        Level of each factor in the base; empty where there is just one factor, or no base.
    solution : str
        The solution looked at: ``sgd`` if the study has it.
    directions : DataFrame
        Rows of the study's table at that solution, with ``trained`` and, for each factor, a column `column`.
    minima : DataFrame
        One row a minimum, probe and penalty; see `_minimum`.
    """

    name: str
    factors: Mapping[str, list[Any]]
    design: str
    base: Levels
    solution: str
    directions: pd.DataFrame
    minima: pd.DataFrame

    def at(self, frame: pd.DataFrame, factor: str, level: Any) -> pd.DataFrame:
        """Return the rows at a level of a factor, in one-at-a-time designs with the others at the base's."""
        keep = np.ones(len(frame), dtype=bool)
        for other, wanted in {**self.base, factor: level}.items():
            # One by one, as a level may be a tuple, which pandas would compare item by item.
            keep &= np.array([found == wanted for found in frame[column(other)]], dtype=bool)
        return frame[keep]

    def groups(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what is judged together: a label, and arguments for `at` (none: all of the study).

        One-at-a-time designs by level, the base once; others whole.
        """
        if self.design != "one_at_a_time":
            yield ("" if self.design == "none" else "all variants"), {}
            return
        for i, (factor, levels) in enumerate(self.factors.items()):
            for level in levels:
                if i and level == self.base.get(factor):
                    continue
                yield label(factor, level), {"factor": factor, "level": level}

    def take(self, frame: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
        """Return the rows of one of `groups`."""
        return self.at(frame, **where) if where else frame


def studies(table: pd.DataFrame | None, order: Order | None = None) -> list[Study]:
    """Return the studies in a stacked ``study`` table, as `valleys.storage.tables.frames` makes it.

    Parameters
    ----------
    table
        With a column ``study``; None or without rows: no studies.
    order
        Study to factor to its levels in the order of the config; others follow sorted.
    """
    if table is None or table.empty:
        return []
    order = order or {}
    return [_study(str(name), rows, order.get(str(name), {})) for name, rows in table.groupby("study")]


def column(factor: str) -> str:
    """Return the name of a factor's column: factors may be called as a column is (``recipe``)."""
    return f"level:{factor}"


def label(factor: str, level: Any) -> str:
    """Return a level with its factor, for people; a named block speaks for itself."""
    text = text_of(level)
    return text if factor in ("dataset", "model", "recipe") else f"{factor_name(factor)} {text}"


def text_of(level: Any) -> str:
    """Return a level as text."""
    return level_name(_plain(level))


def _plain(level: Any) -> Any:
    """Return a level as the config has it."""
    if isinstance(level, Json):
        return json.loads(level.text)
    return [_plain(item) for item in level] if isinstance(level, tuple) else level


def _study(name: str, rows: pd.DataFrame, order: Mapping[str, Sequence[Any]]) -> Study:
    solution = next((s for s in SOLUTIONS if (rows["solution"] == s).any()), rows["solution"].iloc[0])
    rows = rows[rows["solution"] == solution].copy()
    parsed = [{f: hashable(v) for f, v in json.loads(text).items()} for text in rows["levels"]]
    names = list(dict.fromkeys([*order, *(f for levels in parsed for f in levels)]))
    factors: dict[str, list[Any]] = {}
    for factor in names:
        values = [levels.get(factor) for levels in parsed]
        there = _ordered(values, [hashable(v) for v in order.get(factor, ())])
        if len(there) > 1:
            factors[factor] = there
            rows[column(factor)] = pd.Series(values, index=rows.index, dtype=object)
    rows["trained"] = ~(rows["train_accuracy"] < TRAINED)  # a regression has none
    design, base = _design(rows, list(factors))
    found = [
        dict(zip([*CELL_COLUMNS, *PROBE], key, strict=True))
        | {column(f): part[column(f)].iloc[0] for f in factors}
        | {"solution": solution}
        | _minimum(part)
        for key, part in rows.groupby([*CELL_COLUMNS, *PROBE], sort=False)
    ]
    minima = _without_others_swa(_with_width(pd.DataFrame(found)))
    return Study(name, factors, design, base, str(solution), rows, minima)


def _ordered(values: Sequence[Any], order: Sequence[Any]) -> list[Any]:
    """Return the values there are: first those of `order`, then the rest, numbers by size before text."""
    there = set(values)
    rest = [v for v in there if v not in order]

    def place(level: Any) -> tuple[int, float, str]:
        plain = _plain(level)
        return (0, plain, text_of(level)) if isinstance(plain, int | float) else (1, 0, text_of(level))

    rest.sort(key=place)
    if all(place(v)[0] == 0 for v in there):
        return sorted(there, key=place)
    return [*(v for v in order if v in there), *rest]


def _design(rows: pd.DataFrame, factors: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the design and its base, from the combinations of levels there are."""
    if not factors:
        return "none", {}
    columns = [column(f) for f in factors]
    cells = rows.drop_duplicates([*columns, "seed"])
    combinations = list(cells[columns].drop_duplicates().itertuples(index=False, name=None))
    shared = len(cells) > cells["seed"].nunique()
    for one in combinations:
        if shared and all(sum(a != b for a, b in zip(one, o, strict=True)) <= 1 for o in combinations):
            return "one_at_a_time", dict(zip(factors, one, strict=True)) if len(factors) > 1 else {}
    return "crossed", {}


def _minimum(rows: pd.DataFrame) -> dict[str, Any]:
    """Return what the directions of one probe say of one minimum.

    ``index`` is the mean of the asymmetry index's size over the directions that have one (``indexed``; of
    these ``plus_steep`` have the steep side at +u), NaN without any; ``asymmetric`` and ``directions`` count,
    as do ``short`` and ``short_asymmetric`` along which the loss does not rise as asked for
    (`measures.falls_short`);
    ``eigenvalue`` is the greatest; ``radius`` is the mean of R, ``relative`` that of R / |w|; ``found``: R
    meets a rise, as far as it can. ``rise`` is the mean rise about the curves' own least points, of those
    that have one, NaN without any.
    """
    index = rows["asymmetry_index"].to_numpy(dtype=np.float64)
    index = index[np.isfinite(index)]
    rises = rows["rise"].to_numpy(dtype=np.float64)
    rises = rises[np.isfinite(rises)]
    first, asymmetric, short = rows.iloc[0], rows["status"] == "asymmetric", falls_short(rows)
    curvature = rows["eigenvalue"].to_numpy(dtype=np.float64)
    curvature = curvature[np.isfinite(curvature)]
    return {
        "index": float(np.abs(index).mean()) if len(index) else math.nan,
        "indexed": len(index),
        "plus_steep": int((index < 0).sum()),
        "asymmetric": int(asymmetric.sum()),
        "short": int(short.sum()),
        "short_asymmetric": int((short & asymmetric).sum()),
        "directions": len(rows),
        "eigenvalue": float(curvature.max()) if len(curvature) else math.nan,
        "radius": float(rows["radius"].mean()),
        "rise": float(rises.mean()) if len(rises) else math.nan,
        "found": bool((rows["radius_status"] != "fixed").all()),
        "relative": float((rows["radius"] / rows["weight_norm"]).mean()),
        **{key: float(first[key]) for key in ("train_accuracy", "train_loss", "test_loss")},
        **{key: math.nan if pd.isna(first[key]) else float(first[key]) for key in _MAY_LACK},
        "trained": bool(first["trained"]),
    }


def _with_width(minima: pd.DataFrame) -> pd.DataFrame:
    """Add ``width``: R / |w| where R was found for a given rise, NaN where it was set.

    Where the rise is not met within reach, the reach stands for R: such a minimum is at least that wide.
    """
    known = minima["found"] & (minima["kind"] != "hessian")
    return minima.assign(width=minima["relative"].where(known))


def _without_others_swa(minima: pd.DataFrame) -> pd.DataFrame:
    """Blank SWA's gain and rise where a variant whose nets trained has none.

    Then the study did not ask for SWA, and what there is was made for a cell that the grid or another study
    has too: often the base alone.
    """
    trained = minima[minima["trained"]]
    for rise, gain in _SWA:
        known = np.isfinite(trained[gain]).groupby([trained[key] for key in CELL_COLUMNS[:3]]).any()
        if not known.all():
            minima = minima.assign(**{rise: math.nan, gain: math.nan})
    return minima


def by_seed(first: pd.DataFrame, second: pd.DataFrame, measure: str) -> pd.Series:
    """Return ``first - second`` of a measure by seed, of trained minima that both have.

    Raises
    ------
    ValleysError
        When a seed has two minima on one side, which the levels do not tell apart.
    """
    sides = [part[part["trained"]].set_index("seed")[measure] for part in (first, second)]
    if any(side.index.has_duplicates for side in sides):
        raise ValleysError("study: a seed has two minima with the same levels; their table is damaged")
    both = sides[0].index.intersection(sides[1].index)
    return sides[0].loc[both] - sides[1].loc[both]
