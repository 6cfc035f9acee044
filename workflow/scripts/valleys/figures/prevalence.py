"""Figure ``prevalence``: shares of directions by verdict, with Wilson intervals."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from valleys.figures.frames import SETTING, Data, Spec, by_cell, ordered
from valleys.figures.kind import Kind
from valleys.figures.layout import (
    add_heading,
    add_legend,
    are_alone,
    beside,
    draw_share,
    label_columns,
    line_axis,
    panel_grid,
)
from valleys.figures.style import GREY, Look
from valleys.figures.wording import LISTED, counted, listed, percent, recipe_note
from valleys.results import measures
from valleys.results.stats import Interval, wilson


def _draw(_part: str, data: Data, spec: Spec, look: Look) -> Figure | None:
    table = data["asymmetry"][~data["asymmetry"]["kind"].isin(["sign", "searched"])]
    if table.empty:
        return None
    counts = measures.prevalence(table, spec["level"], spec["c"])
    solutions = ordered(counts["solution"])
    cells = list(by_cell(counts))
    probes = [list(dict.fromkeys(part["probe"])) for _, _, part in cells]
    heights = [0.55 + len(names) * (0.1 + 0.17 * len(solutions)) for names in probes]
    figure, grid = panel_grid(
        look, len(cells), 3, sum(heights) / len(cells) + 0.35, height_ratios=heights, sharex=True
    )
    titles = {
        "asymmetric": f"asymmetric (c* ≥ {spec['c']:g})",
        "uneven": f"rises differ {spec['c']:g}-fold",
        "not_minimum": "not a minimum",
    }
    for (label, _, part), names, row in zip(cells, probes, grid, strict=True):
        for axes, status in zip(row, titles, strict=True):
            _shares(axes, part, status, names, solutions, look)
            add_heading(axes, label, titles[status], GREY, room=34, again=axes is not row[0])
            axes.tick_params(labelleft=axes is row[0] or are_alone(axes))
    label_columns(grid, "share of directions [%]")
    handles = [
        Line2D([], [], color=look.of_solution(s), marker=look.marker(s), ms=4.5, lw=1.2, label=f"at {s}")
        for s in solutions
    ]
    add_legend(figure, handles)
    return figure


def _shares(
    axes: Axes, part: pd.DataFrame, status: str, probes: list[str], solutions: list[str], look: Look
) -> None:
    """Draw one panel of shares with intervals: a line a probe, one point a solution."""
    step = 0.72 / len(solutions)
    had = part.groupby("probe")["solution"].agg(set)
    places = {probe: beside([s in had[probe] for s in solutions], step) for probe in probes}
    for row in part.to_dict("records"):
        y = probes.index(row["probe"]) + places[row["probe"]][solutions.index(row["solution"])]
        share = Interval(*(row[f"{status}_{key}"] for key in ("share", "low", "high")), row["n"])
        colour, marker = look.of_solution(row["solution"]), look.marker(row["solution"])
        draw_share(axes, row[status], share, y, 0.8, color=colour, marker=marker)
    line_axis(axes, probes)
    axes.set_xlim(0, 100)


def _seen(_part: str, data: Data, spec: Spec) -> str:
    table = data["asymmetry"][~data["asymmetry"]["kind"].isin(["sign", "searched"])]
    if table.empty:
        return ""
    told = []
    level, c = spec["level"], spec["c"]
    for probe, part in table.groupby("probe", sort=False):
        share = wilson(int((part["status"] == "asymmetric").sum()), len(part), level)
        bounds = f"{percent(share.low)} to {percent(share.high)}"
        uneven = percent(measures.uneven(part["asymmetry_index"], c).mean())
        told.append(
            (str(probe), f"{percent(share.estimate)} ({bounds}; n = {share.n}); rises uneven in {uneven}")
        )
    cells = table.groupby(SETTING).ngroups
    uncertain = f"The {words}. " if (words := measures.uncertain(table)) else ""
    others = "".join(
        f"{counted(int((table['status'] == status).sum()), 'direction')} {words}. "
        for status, words in (
            ("flat", "without a rise on either side"),
            ("not_finite", "with a loss that is not finite"),
        )
        if (table["status"] == status).any()
    )
    short = int(measures.falls_short(table).sum())
    where = f"Along {counted(short, 'direction')} of {len(table)} the loss does not rise as asked for. "
    return (
        f"{recipe_note(table)}{others}{where if short else ''}{uncertain}"
        f"Asymmetric at c* ≥ {c:g}, all solutions of {counted(cells, 'cell')}"
        f" together ({percent(level)} intervals):{listed(told, 2 * LISTED)}"
    )


KIND = Kind(
    name="prevalence",
    nothing="Nothing to draw: no direction was probed.",
    draw=_draw,
    seen=_seen,
)
