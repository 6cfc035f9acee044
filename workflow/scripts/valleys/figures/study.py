"""Figures ``study-<study>``: minima by level of each factor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from valleys.config.studies import factor_name
from valleys.figures.frames import SETTING, Data, Spec, finite_of
from valleys.figures.kind import Kind
from valleys.figures.layout import (
    STEPS,
    add_heading,
    add_legend,
    add_own_legend,
    are_alone,
    beside,
    draw_share,
    line_axis,
    panel_grid,
)
from valleys.figures.style import GREY, INK, Look, style_of
from valleys.figures.wording import LISTED, interval_of, listed, percent
from valleys.results import study_outcomes
from valleys.results.stats import mean_interval, wilson

_MEASURES = {
    "index": "|asymmetry index|",
    "share": "asymmetric [%]",
    "width": "width R / |w|",
    "eigenvalue": "top eigenvalue",
    "swa_rise": "swa − descent, train [nats]",
    "swa_gain": "descent − swa, test [nats]",
}
_PAIRED = ("width", "eigenvalue", "swa_rise", "swa_gain")
_OF_CELLS = ("swa_rise", "swa_gain")  # the same whatever was probed
_SERIES_MARKERS = "osD^vP"


@dataclass(frozen=True)
class _Series:
    """Minima that have one look in a study's figure: those of one probe, with the penalty or without."""

    name: str
    penalty: bool
    colour: Any
    marker: str
    rows: pd.DataFrame

    @property
    def text(self) -> str:
        return f"{self.name}, with penalty" if self.penalty else self.name

    @property
    def style(self) -> dict[str, Any]:
        """Colour and marker, hollow with the penalty."""
        return {"color": self.colour, "marker": self.marker, "mfc": "white" if self.penalty else self.colour}


def _one_study(name: str, data: Data, spec: Spec) -> study_outcomes.Study | None:
    table = data.get("study")
    if table is None or table.empty:
        return None
    found = study_outcomes.studies(table[table["study"] == name], spec.get("factors"))
    return found[0] if found else None


def _series(study: study_outcomes.Study, look: Look) -> list[_Series]:
    """Return the probes in the order of the table, each followed by itself with the penalty."""
    found = []
    for i, probe in enumerate(dict.fromkeys(study.minima["probe"])):
        rows = study.minima[study.minima["probe"] == probe]
        marker = _SERIES_MARKERS[i % len(_SERIES_MARKERS)]
        for penalty in sorted(set(rows["penalty"])):
            part = rows[rows["penalty"] == penalty]
            found.append(_Series(str(probe), bool(penalty), look.nth(i), marker, part))
    return found


def _rows_of(study: study_outcomes.Study) -> list[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """Return what stands in each row of panels: a heading, and its lines with arguments for `Study.take`."""
    if not study.factors:
        return [(" / ".join(map(str, study.minima.loc[0, SETTING])), [("", {})])]
    return [
        (factor_name(f), [(study_outcomes.text_of(v), {"factor": f, "level": v}) for v in levels])
        for f, levels in study.factors.items()
    ]


def _held(study: study_outcomes.Study) -> list[str]:
    """Return the measures a study's table holds, in the order of `_MEASURES`."""
    good = study.minima[study.minima["trained"]]
    return ["index", "share", *(m for m in list(_MEASURES)[2:] if np.isfinite(good[m]).any())]


def _shown(study: study_outcomes.Study, series: Sequence[_Series], measure: str) -> list[_Series]:
    """Return the series that a panel shows: one for what no probe changes, else those that have values."""
    if measure in _OF_CELLS:
        cells = study.minima.drop_duplicates(study_outcomes.CELL_COLUMNS)
        return [_Series("", False, INK, "o", cells)]
    if measure in ("index", "share"):
        return list(series)
    return [one for one in series if not one.penalty and np.isfinite(one.rows[measure]).any()]


def _draw(name: str, data: Data, spec: Spec, look: Look) -> Figure | None:
    study = _one_study(name, data, spec)
    if study is None:
        return None
    series, blocks, measures_ = _series(study, look), _rows_of(study), _held(study)
    bands = 1 if len(measures_) <= 4 else 2  # rows of panels for each factor
    columns = math.ceil(len(measures_) / bands)
    tall = [0.5 + len(lines) * (0.12 + 0.14 * len(series)) for _, lines in blocks for _ in range(bands)]
    figure, grid = panel_grid(look, len(tall), columns, sum(tall) / len(tall) + 0.3, height_ratios=tall)
    for i, (heading, lines) in enumerate(blocks):
        for j in range(columns * bands):
            axes = grid[i * bands + j // columns][j % columns]
            if j >= len(measures_):
                axes.remove()
                continue
            measure = measures_[j]
            _panel(axes, study, measure, lines, _shown(study, series, measure), spec["level"])
            add_heading(axes, heading, across=True, again=j % columns > 0)
            add_own_legend([axes], _handles(study, _shown(study, series, measure), [measure]))
            if are_alone(axes):
                axes.set_xlabel(_MEASURES[measure])
            else:
                axes.annotate(
                    _MEASURES[measure], (0, 1), xycoords="axes fraction", xytext=(0, 5), color=GREY,
                    textcoords="offset points", va="baseline",
                )  # fmt: skip
            if (j % columns and not are_alone(axes)) or not study.factors:
                axes.tick_params(labelleft=False)
    for j, measure in enumerate(measures_):  # one scale for a measure, whatever the factor
        _same_scale([grid[i * bands + j // columns][j % columns] for i in range(len(blocks))], measure)
    add_legend(figure, _handles(study, series, measures_))
    return figure


def _panel(
    axes: Axes,
    study: study_outcomes.Study,
    measure: str,
    lines: Sequence[tuple[str, dict[str, Any]]],
    shown: Sequence[_Series],
    level: float,
) -> None:
    """Draw one measure: a line a level, and within it one a series."""
    step = 0.74 / max(len(shown), 1)
    lower = min(0.3 * step, 0.12)  # where minima are not hidden by the interval of their mean
    if measure in _OF_CELLS:
        axes.axvline(0, color=GREY, lw=0.8)
    found = [[study.take(one.rows, where) for one in shown] for _, where in lines]
    heights = [y + np.array(beside([len(rows) > 0 for rows in line], step)) for y, line in enumerate(found)]
    for k, one in enumerate(shown):
        places: dict[Any, list[tuple[float, float]]] = {}
        for line, height in zip(found, heights, strict=True):
            here, at = line[k], float(height[k])
            if measure == "share":
                _share(axes, one, here[here["trained"]], at, level)
                continue
            _means(axes, one, here, measure, at, at + lower, level)
            good = here[here["trained"]]
            for seed, value in zip(good["seed"], good[measure], strict=True):
                places.setdefault(seed, []).append((value, at + lower))
        if measure in _PAIRED and study.design == "one_at_a_time":
            for points in places.values():
                axes.plot(*zip(*points, strict=True), color=one.colour, lw=0.5, alpha=0.4)
    line_axis(axes, [text for text, _ in lines])


def _share(axes: Axes, one: _Series, good: pd.DataFrame, at: float, level: float) -> None:
    hits, n = int(good["asymmetric"].sum()), int(good["directions"].sum())
    if n:
        draw_share(axes, hits, wilson(hits, n, level), at, 0.72, **one.style)


def _means(
    axes: Axes, one: _Series, here: pd.DataFrame, measure: str, at: float, below: float, level: float
) -> None:
    """Draw the mean over minima with its interval, and the minima below it, untrained ones as crosses."""
    values, lost = (finite_of(here.loc[kept, measure]) for kept in (here["trained"], ~here["trained"]))
    # As an artist, which has no part in the limits: such values may be far from all others.
    crosses = {"color": GREY, "marker": "x", "ls": "", "ms": 4, "mew": 0.8}
    axes.add_artist(Line2D(lost, np.full(len(lost), below), **crosses))
    axes.plot(
        values, np.full(len(values), below), "o", color=one.colour, mfc=one.style["mfc"], ms=2.5, mew=0.5,
        alpha=0.45,
    )  # fmt: skip
    found = mean_interval(values, level)
    if found.n:
        bars = [[found.estimate - found.low], [found.high - found.estimate]]
        axes.errorbar(
            found.estimate, at, xerr=bars if np.isfinite(bars).all() else None, ls="", ms=4.5, lw=1.2,
            capsize=2, zorder=3, **one.style,
        )  # fmt: skip


def _same_scale(panels: Sequence[Axes], measure: str) -> None:
    """Give all panels of a measure one x axis: from 0, or about 0 where it has a sign."""
    low, high = (
        f(ends) for f, ends in zip((min, max), zip(*(a.get_xlim() for a in panels), strict=True), strict=True)
    )
    if measure == "share":
        low, high = 0, 100
    elif low > 0 or measure == "index":
        low = 0
    for axes in panels:
        axes.set_xlim(low, high)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=STEPS))


def _handles(study: study_outcomes.Study, series: Sequence[_Series], shown: Sequence[str]) -> list[Line2D]:
    """Return what the legend says of these series in panels of the measures that are shown."""
    handles = [Line2D([], [], ms=4.5, lw=1.2, label=one.text, **one.style) for one in series if one.text]
    if set(shown) & set(_OF_CELLS):
        handles.append(Line2D([], [], color=INK, marker="o", ms=4.5, lw=1.2, label="swa, descent"))
    if set(shown) == {"share"}:
        return handles
    handles.append(Line2D([], [], color=GREY, marker="o", ms=2.5, alpha=0.5, ls="", label="one minimum"))
    if not study.minima["trained"].all():
        text = f"train accuracy < {percent(study_outcomes.TRAINED)}"
        handles.append(Line2D([], [], color=GREY, marker="x", ms=4, mew=0.8, ls="", label=text))
    return handles


def _seen(name: str, data: Data, spec: Spec) -> str:
    study = _one_study(name, data, spec)
    if study is None:
        return ""
    level, told = spec["level"], []
    look = Look(style_of(spec))
    series, measured = _series(study, look), _held(study)
    for heading, lines in _rows_of(study):
        for one in series:
            parts = []
            for text, where in lines:
                good = study.take(one.rows, where)
                good = good[good["trained"]]
                n = int(good["directions"].sum())
                if n:
                    share = f"{int(good['asymmetric'].sum())} of {n} asymmetric"
                    index = interval_of(good["index"], level, limits=(0, np.inf))
                    parts.append(f"{text} {index}, {share}".strip())
            told.append((f"{heading}, {one.text}", "; ".join(parts) or "no trained minimum"))
        for measure in measured[2:]:
            for one in _shown(study, series, measure):
                parts = []
                for text, where in lines:
                    good = study.take(one.rows, where)
                    values = finite_of(good.loc[good["trained"], measure])
                    if len(values):
                        parts.append(f"{text} {interval_of(values, level)}".strip())
                what = ", ".join(x for x in (heading, _MEASURES[measure], one.name) if x)
                told.append((what, "; ".join(parts)))
    cells = study.minima.drop_duplicates(study_outcomes.CELL_COLUMNS)
    lost = int((~cells["trained"]).sum())
    about = f"{len(cells)} {'minimum' if len(cells) == 1 else 'minima'} at {study.solution}"
    if lost:
        about += f", {lost} of them below {percent(study_outcomes.TRAINED)} train accuracy and left out"
        about += " (crosses, where they lie within the axis)"
    held = ", ".join(study_outcomes.label(f, v) for f, v in study.base.items())
    held = f" Other factors are held at {held}." if held else ""
    if study.design == "crossed":
        held = " Means at a level are over all levels of the other factors."
    plain = study.minima[study.minima["trained"] & ~study.minima["penalty"]]
    steep = f"{int(plain['plus_steep'].sum())} of {int(plain['indexed'].sum())}"
    return (
        f"{about}.{held} +u is the steeper side of {steep} directions. Mean |index| with its"
        f" {percent(level)} t interval, and verdicts:{listed(told, 5 * LISTED)}"
    )


KIND = Kind(
    name="study",
    nothing="Nothing to draw: no direction was probed in the study {}.",
    draw=_draw,
    seen=_seen,
)
