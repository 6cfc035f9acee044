"""Figure ``shift``: what a shift leaves of the gap between test and train loss."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from valleys.figures.frames import DIRECTION, Data, Spec, at_first, by_cell, finite_of
from valleys.figures.kind import Kind
from valleys.figures.layout import STEPS, add_legend, by_probe, corner_note, draw_spread
from valleys.figures.style import GREY, SHADE, Look
from valleys.figures.wording import LISTED, listed, number, percent, recipe_note
from valleys.results import measures

_CUT = 1.5
_POLICIES = {"fixed": ("-", "b = 0"), "free": ("--", "b free")}


def _rows(data: Data) -> tuple[str, pd.DataFrame]:
    """Return the shift curves at the first solution, without those of kind sign."""
    table = data["shift"]
    return at_first(table[table["kind"] != "sign"])


def _draw(_part: str, data: Data, spec: Spec, look: Look) -> Figure | None:
    _, table = _rows(data)
    if table.empty:
        return None
    figure, grid = by_probe(table, look, _panel, "shift δ / R", "gap ξδ / ξ0", sharey=True)
    grid[0, 0].set_ylim(0, _CUT)
    grid[0, 0].yaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
    add_legend(figure, [
        *(
            Line2D([], [], color=look.colour(policy), ls=dashes, lw=1.6, label=f"{text}, median")
            for policy, (dashes, text) in _POLICIES.items()
        ),
        Patch(fc=look.colour("fixed"), alpha=SHADE, label="middle 80 %, b = 0"),
        Line2D([], [], color=look.colour("free"), lw=0.6, ls="--", label="middle 80 %, b free"),
    ])  # fmt: skip
    return figure


def _panel(axes: Axes, here: pd.DataFrame, look: Look) -> None:
    axes.axvline(0, color=GREY, lw=0.8)
    axes.axhline(1, color=GREY, lw=0.8)
    for policy, (dashes, _) in _POLICIES.items():
        good = here[(here["policy"] == policy) & np.isfinite(here["relative_gap"])]
        values = good.groupby("delta_over_r")["relative_gap"]
        if not len(values):
            continue
        colour = look.colour(policy)
        draw_spread(axes, values, values.median(), colour, dashes, filled=policy == "fixed")
    axes.set_xlim(here["delta_over_r"].min(), here["delta_over_r"].max())
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
    corner_note(axes, f"n = {len(here.drop_duplicates(DIRECTION))}", 0.9)


def _seen(_part: str, data: Data, spec: Spec) -> str:
    solution, table = _rows(data)
    if table.empty:
        return ""
    found = measures.shifts(table, data["asymmetry"], solution)
    told = []
    for label, _, part in by_cell(found):
        for probe, here in part.groupby("probe", sort=False):
            words = []
            for policy, (_, text) in _POLICIES.items():
                rows = here[here["policy"] == policy]
                left = finite_of(1 - rows["share"])
                size = finite_of(rows["delta"].abs())
                if len(left) and len(size):
                    words.append(
                        f"{text}: {percent(float(np.median(left)))} left at |δ*| = "
                        f"{number(float(np.median(size)))} R"
                    )
            told.append((f"{label}, {probe}", "; ".join(words) or "no gap to remove"))
    step = np.diff(np.unique(table["delta_over_r"])).min(initial=1.0)
    return (
        f"{recipe_note(table)}Directions at {solution}. The best shift δ* is found for each direction, finer"
        f" than the {number(step)} R between the points drawn; one much smaller than that does not show."
        f" Medians over directions:{listed(told, 4 * LISTED)}"
    )


KIND = Kind(
    name="shift",
    nothing="Nothing to draw: no direction was probed.",
    draw=_draw,
    seen=_seen,
    own_minima=True,
)
