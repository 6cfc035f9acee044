"""Figure ``sensitivity``: prevalence against the constants of Definition 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from valleys.figures.frames import Data, Spec, by_cell
from valleys.figures.kind import Kind
from valleys.figures.layout import (
    add_heading,
    add_legend,
    label_columns,
    label_row,
    panel_grid,
    ratio_axis,
)
from valleys.figures.style import GREY, INK, Look
from valleys.figures.wording import LISTED, listed, percent, recipe_note


def _probe_looks(table: pd.DataFrame, look: Look) -> dict[str, dict[str, Any]]:
    """Return colour and dashes of each probe: solid for the paper's kind, dashed for controls."""
    kinds = dict(zip(table["probe"], table["kind"], strict=True))
    return {
        probe: {"color": look.nth(i), "marker": "osD^vPX*"[i % 8], "ls": "-" if kind == "uniform" else "--"}
        for i, (probe, kind) in enumerate(kinds.items())
    }


def _draw(_part: str, data: Data, spec: Spec, look: Look) -> Figure | None:
    table = data["sensitivity"]
    if table.empty:
        return None
    cells = list(by_cell(table))
    widths, spans = sorted(set(table["zeta_max"])), sorted(set(table["min_span"]))
    figure, grid = panel_grid(look, len(cells) * len(spans), len(widths), 1.75, sharex=True, sharey=True)
    looks = _probe_looks(table, look)
    rows = [(label, i > 0, part, span) for label, _, part in cells for i, span in enumerate(spans)]
    for (label, below, part, span), row in zip(rows, grid, strict=True):
        for axes, zeta_max in zip(row, widths, strict=True):
            here = part[(part["zeta_max"] == zeta_max) & (part["min_span"] == span)]
            _panel(axes, here, looks)
            about = f"zeta ≤ {zeta_max:g} R, r − zeta ≥ {span:g} R"
            add_heading(axes, label, about, GREY, across=True, again=below or axes is not row[0])
        label_row(row, "asymmetric [%]")
    levels = sorted(set(table["c"]))
    grid[0, 0].set_ylim(-3, 108)
    grid[0, 0].set_yticks([0, 25, 50, 75, 100])
    ratio_axis(grid[0, 0], levels)
    label_columns(grid, "level c")
    add_legend(
        figure, [Line2D([], [], ms=4, lw=1.2, label=str(probe), **style) for probe, style in looks.items()]
    )
    return figure


def _panel(axes: Axes, here: pd.DataFrame, looks: Mapping[str, Mapping[str, Any]]) -> None:
    for i, (probe, style) in enumerate(looks.items()):
        part = here[here["probe"] == probe].sort_values("c")
        beside = 1.018 ** (i - (len(looks) - 1) / 2)  # points of several probes side by side
        share, low, high = (100 * part[key] for key in ("share", "low", "high"))
        bars = [np.maximum(share - low, 0), np.maximum(high - share, 0)]
        axes.errorbar(part["c"] * beside, share, yerr=bars, ms=3.2, lw=1.0, elinewidth=0.7, **style)
    for c in set(here.loc[here["chosen"], "c"]):
        axes.axvline(c, color=INK, lw=1.2, ls=":")


def _seen(_part: str, data: Data, spec: Spec) -> str:
    table = data["sensitivity"]
    if table.empty:
        return ""
    told = []
    for label, _, part in by_cell(table):
        for probe, here in part.groupby("probe", sort=False):
            own = here[here["chosen"]]
            words = f"{percent(here['share'].min())} to {percent(here['share'].max())}"
            if len(own):
                words = f"{percent(own['share'].iloc[0])} as set; {words} over all settings"
            told.append((f"{label}, {probe}", f"{words} (n = {here['n'].iloc[0]})"))
    return f"{recipe_note(table)}Share of directions that are asymmetric:{listed(told, 4 * LISTED)}"


KIND = Kind(
    name="sensitivity",
    nothing="Nothing to draw: no direction was probed.",
    draw=_draw,
    seen=_seen,
)
