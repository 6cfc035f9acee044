"""Figure ``toy-angles``: the 2-D MLP along all directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from valleys.figures.frames import Data, Spec, finite_of
from valleys.figures.kind import Kind
from valleys.figures.layout import (
    add_heading,
    add_legend,
    add_own_legend,
    label_columns,
    label_row,
    linear_axis,
    log_axis,
    panel_grid,
)
from valleys.figures.style import FAINT, GREY, Look
from valleys.figures.wording import listed, number, percent

_DASHES = {"released": "--", "converged": "-"}
_SHOWN = 8
"""Draws whose curves are seen one by one: more hide one another."""


def _draw(_part: str, data: Data, spec: Spec, look: Look) -> Figure | None:
    table = data["toy_2d_angles"]
    if table.empty:
        return None
    recipes, rises = (list(dict.fromkeys(table[name])) for name in ("recipe", "rise"))
    figure, grid = panel_grid(look, len(recipes) + 1, len(rises), 2.0, sharex=True, sharey="row")
    lowest, highest = _span(table)
    for panels, recipe in zip(grid, recipes, strict=False):
        for axes, rise in zip(panels, rises, strict=True):
            here = table[(table["recipe"] == recipe) & (table["rise"] == rise)]
            _levels_panel(axes, here, spec["c"], look.colour(recipe))
            log_axis(axes, lowest, highest)
            about = f"recipe {recipe}"
            add_heading(axes, f"rise {rise:g} nats", about, GREY, again=recipe != recipes[0])
        label_row(panels, "c*")
    for axes, rise in zip(grid[-1], rises, strict=True):
        for recipe in recipes:
            here = table[(table["recipe"] == recipe) & (table["rise"] == rise)]
            share = here.groupby("angle")["status"].agg(lambda one: 100 * (one == "asymmetric").mean())
            axes.plot(share.index, share, color=look.colour(recipe), ls=_DASHES.get(recipe, "-"), lw=1.6)
        _random_span(axes)
        add_heading(axes, f"rise {rise:g} nats", "all draws", GREY, again=True)
        axes.set(ylim=(0, 100), xlim=(0, 180))
        axes.set_xticks(range(0, 181, 45))
        linear_axis(axes)
    label_row(grid[-1], "asymmetric [% of draws]")
    label_columns(grid, "angle [degrees]")
    shares: list[Any] = [
        Line2D([], [], color=look.colour(one), ls=_DASHES.get(one, "-"), lw=1.6, label=f"recipe {one}")
        for one in recipes
    ]
    levels = [
        Line2D([], [], color=GREY, lw=0.7, label="one data draw"),
        Line2D([], [], color=GREY, lw=2.2, label="median of all draws"),
        Line2D([], [], color=GREY, lw=0.9, ls=":", label=f"c = {spec['c']:g}"),
    ]
    angles = Patch(color=FAINT, label="U(0, 1) directions")
    add_legend(figure, [*shares, *levels, angles], columns=3)
    add_own_legend(grid[:-1].flat, [*levels, angles])
    add_own_legend(grid[-1], [*shares, angles])
    return figure


def _levels_panel(axes: Axes, here: pd.DataFrame, c: float, colour: str) -> None:
    """Draw c* against the angle: some draws, and the median of all at angles where half have one."""
    wide = here.pivot(index="angle", columns="draw", values="c_star")
    for draw in wide.columns[:_SHOWN]:
        axes.plot(wide.index, wide[draw], color=colour, lw=0.7, alpha=0.6)
    median = wide.median(axis=1).where(wide.notna().mean(axis=1) >= 0.5)
    axes.plot(wide.index, median, color=colour, lw=2.2)
    axes.axhline(c, color=GREY, lw=0.9, ls=":")
    _random_span(axes)


def _random_span(axes: Axes) -> None:
    axes.axvspan(0, 90, color=FAINT, zorder=0, lw=0)


def _span(table: pd.DataFrame) -> tuple[float, float]:
    """Return the middle 98 % of levels: a few are many times the others."""
    levels = finite_of(table["c_star"])
    levels = levels[levels > 0]
    low, high = np.quantile(levels, [0.01, 0.99]) if len(levels) else (0.5, 5.0)
    return float(low), float(max(high, 1.5 * low))


def _seen(_part: str, data: Data, spec: Spec) -> str:
    table = data["toy_2d_scans"]
    if table.empty:
        return ""
    told = []
    for (recipe, rise), rows in table.groupby(["recipe", "rise"], sort=False):
        best = rows["c_star"].dropna()
        greatest = f"greatest c* of a draw {number(best.median())} (median)" if len(best) else "no level"
        words = (
            f"an asymmetric direction whose flat side rises enough in {int(rows['found'].sum())} of "
            f"{len(rows)} draws; {percent(rows['asymmetric_angles'].mean())} of all angles and "
            f"{percent(rows['asymmetric_random'].mean())} of U(0, 1) directions are asymmetric; {greatest}"
        )
        told.append((f"recipe {recipe}, rise {number(rise)} nats", words))
    return f"Of the angles of each draw:{listed(told)}"


ANGLES = Kind(
    name="toy-angles",
    nothing="Nothing to draw: the 2-D MLP has no scan.",
    draw=_draw,
    seen=_seen,
)
