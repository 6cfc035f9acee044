"""Figure ``sign``: asymmetry against agreement in sign with the weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from valleys.figures.frames import Data, Spec, at_first, by_cell
from valleys.figures.kind import Kind
from valleys.figures.layout import STEPS, add_heading, add_legend, label_columns, label_row, panel_grid
from valleys.figures.style import GREY, Look
from valleys.figures.wording import LISTED, counted, interval_of, listed, number, percent, recipe_note
from valleys.results import measures
from valleys.results.stats import Interval, mean_interval


def _points(data: Data) -> tuple[str, pd.DataFrame]:
    """Return the first solution, and its directions of kind sign as u and as -u."""
    probed = data["asymmetry"][data["asymmetry"]["kind"] == "sign"]
    solution, _ = at_first(probed)
    return solution, measures.signs(probed, data["directions"], solution)


def _draw(_part: str, data: Data, spec: Spec, look: Look) -> Figure | None:
    _, points = _points(data)
    if points.empty:
        return None
    cells = list(by_cell(points))
    groups = list(dict.fromkeys(points["group"]))
    figure, grid = panel_grid(look, len(cells), len(groups), 2.1, sharex=True, sharey=True)
    colour = look.colour("sgd")
    for (label, _, part), row in zip(cells, grid, strict=True):
        for axes, group in zip(row, groups, strict=True):
            here = part[part["group"] == group]
            add_heading(axes, label, str(group), GREY, across=True, again=axes is not row[0])
            if here.empty:
                axes.annotate(
                    "not probed", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", color=GREY
                )
                continue
            axes.axhline(0, color=GREY, lw=0.8)
            axes.axvline(50, color=GREY, lw=0.8)
            _panel(axes, here, spec["level"], colour)
        label_row(row, "asymmetry index")
    label_columns(grid, "agreement in sign [%]")
    grid[0, 0].set_xlim(-6, 106)
    grid[0, 0].set_xticks([0, 25, 50, 75, 100])
    grid[0, 0].yaxis.set_major_locator(MaxNLocator(7, steps=STEPS))
    add_legend(figure, [
        Line2D([], [], color=colour, marker="o", ms=2.5, alpha=0.5, ls="", label="one direction"),
        Line2D(
            [], [], color=colour, marker="o", ms=6, lw=1.2,
            label=f"mean, {percent(spec['level'])} interval over seeds",
        ),
        Line2D([], [], color=colour, marker="o", ms=6, mfc="white", ls="", label="the same directions as -u"),
    ])  # fmt: skip
    return figure


def _panel(axes: Axes, points: pd.DataFrame, level: float, colour: Any) -> None:
    """Draw the directions of one cell and group: those probed, and -u of those where none was probed near."""
    points = points[np.isfinite(points["index"])]
    probed = _means(points[~points["mirrored"]], level)
    shown = [(probe, at, interval, colour) for probe, at, interval in probed]
    for probe, at, interval in _means(points[points["mirrored"]], level):
        if all(abs(at - other) > 0.1 for _, other, _ in probed):
            shown.append((probe, at, interval, "white"))
    shown = sorted(shown, key=lambda item: item[1])
    axes.plot([100 * at for _, at, _, _ in shown], [i.estimate for _, _, i, _ in shown], color=colour, lw=0.8)
    for probe, at, interval, face in shown:
        here = points[(points["probe"] == probe) & (points["mirrored"] == (face == "white"))]
        axes.plot(
            100 * here["agreement"], here["index"], "o", color=colour, mfc=face, ms=2.5, mew=0.5, alpha=0.45
        )
        bars = [[interval.estimate - interval.low], [interval.high - interval.estimate]]
        axes.errorbar(
            100 * at, interval.estimate, yerr=bars if np.isfinite(bars).all() else None, color=colour,
            fmt="o", ms=5, mfc=face, lw=1.2, capsize=2.5, zorder=3,
        )  # fmt: skip


def _means(points: pd.DataFrame, level: float) -> list[tuple[str, float, Interval]]:
    """Return each probe's name, mean agreement and mean index with its interval over seeds, by agreement."""
    found = [
        (
            str(probe),
            float(rows["agreement"].mean()),
            mean_interval(rows.groupby("seed")["index"].mean(), level),
        )
        for probe, rows in points[np.isfinite(points["index"])].groupby("probe")
    ]
    return sorted(found, key=lambda item: item[1])


def _seen(_part: str, data: Data, spec: Spec) -> str:
    solution, points = _points(data)
    if points.empty:
        return ""
    told = []
    for label, _, part in by_cell(points):
        for group, here in part.groupby("group", sort=False):
            probed = here[~here["mirrored"]]
            means = ", ".join(
                f"{number(i.estimate)} at {percent(at)}" for _, at, i in _means(probed, spec["level"])
            )
            lost = int((~np.isfinite(probed["index"])).sum())
            left_out = f"; {lost} of {len(probed)} directions have none" if lost else ""
            slope = interval_of(measures.sign_slopes(here), spec["level"])
            told.append(
                (
                    f"{label}, {group}",
                    f"{means or 'none'}; slope within a minimum {slope}"
                    f" ({counted(here['seed'].nunique(), 'seed')}{left_out})",
                )
            )
    level = percent(spec["level"])
    return (
        f"{recipe_note(points)}Directions at {solution}. Mean index by share of entries with the sign of w,"
        f" and the slope of the index on that share with its {level} t interval:{listed(told, 2 * LISTED)}"
    )


KIND = Kind(
    name="sign",
    nothing="Nothing to draw: no direction of kind sign was probed.",
    draw=_draw,
    seen=_seen,
    own_minima=True,
)
