"""Figure ``theory-measured``: gain of a bias to the flat side on measured curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from valleys.figures.frames import Data, Spec, at_first, by_cell, finite_of, mean_band
from valleys.figures.kind import Kind
from valleys.figures.layout import STEPS, add_legend, by_probe, corner_note, linear_axis
from valleys.figures.style import GREY, Look
from valleys.figures.wording import LISTED, counted, interval_of, listed, percent, recipe_note
from valleys.results import measures

_STATUSES = ("asymmetric", "symmetric")
_DRAWN = ("uniform", 0.25)  # shift law and scale


def _measured(data: Data) -> tuple[str, pd.DataFrame]:
    """Return the first solution that the table has, and means over each minimum's directions there."""
    table = data["theory_measured"]
    solution, table = at_first(table[table["kind"] != "sign"])
    return solution, measures.gains(table, solution)


def _draw(_part: str, data: Data, spec: Spec, look: Look) -> Figure | None:
    _, table = _measured(data)
    table = table[(table["shift"] == _DRAWN[0]) & (table["scale"] == _DRAWN[1])]
    if table.empty:
        return None

    def panel(axes: Axes, here: pd.DataFrame, look: Look) -> None:
        _panel(axes, here, spec["level"], look)
        axes.tick_params(labelbottom=True)

    figure, _ = by_probe(table, look, panel, "bias b / R", "gain [nats]", sharex=True)
    add_legend(figure, [
        Line2D([], [], color=colour, marker="o", ms=4, lw=1.4, ls=dashes, label=f"{status}, {what}",
               mfc=colour if dashes == "-" else "white")
        for status, colour in zip(_STATUSES, (look.colour("sgd"), GREY), strict=True)
        for dashes, what in (("-", "shifted train"), ("--", "test"))
    ])  # fmt: skip
    return figure


def _panel(axes: Axes, here: pd.DataFrame, level: float, look: Look) -> None:
    axes.axhline(0, color=GREY, lw=0.8)
    counts, means, ends = [], [0.0], []
    for i, (status, colour) in enumerate(zip(_STATUSES, (look.colour("sgd"), GREY), strict=True)):
        part = here[here["status"] == status]
        counts.append(str(part.groupby("seed")["directions"].first().sum()))
        if part.empty:
            continue
        for column, dashes, face in (("gain", "-", colour), ("test_gain", "--", "white")):
            x = np.array(sorted(set(part["bias"])))
            wide = part.pivot(index="seed", columns="bias", values=column).to_numpy()
            mean, low, high = mean_band(wide, level)
            bars = np.nan_to_num([mean - low, high - mean])
            means += list(finite_of(mean))
            ends += list(finite_of([low, high]))
            beside = x + 0.004 * (2 * i + (column == "test_gain") - 1.5)
            axes.errorbar(beside, mean, yerr=bars, color=colour, ls=dashes, fmt="o", mfc=face, ms=3.5, lw=1.2,
                          elinewidth=0.7)  # fmt: skip
    low, high = min(means), max(means)
    span = max(high - low, 1e-12)
    room = 0.1 * span
    axes.set_ylim(
        max(min([low, *ends]), low - span / 2) - room, min(max([high, *ends]), high + span / 2) + room
    )
    axes.set_xlim(0, 1.06 * here["bias"].max())
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
    linear_axis(axes)
    corner_note(axes, f"n = {' + '.join(counts)}", 0.85)


def _seen(_part: str, data: Data, spec: Spec) -> str:
    solution, table = _measured(data)
    if table.empty:
        return ""
    told, level = [], spec["level"]
    half = table[(table["shift"] == _DRAWN[0]) & (table["bias"] == table["scale"] / 2)]
    for label, _, part in by_cell(half):
        for probe, here in part.groupby("probe", sort=False):
            words = []
            for status in _STATUSES:
                rows = here[(here["status"] == status) & (here["scale"] == _DRAWN[1])]
                wide = here[(here["status"] == status) & (here["scale"] == 0.5)]
                if len(rows):
                    words.append(
                        f"{status} {interval_of(rows['gain'], level, sign=True)} nats, test"
                        f" {interval_of(rows['test_gain'], level, sign=True)}"
                        f" ({counted(len(rows), 'seed')}; shift and bias doubled:"
                        f" {interval_of(wide['gain'], level, sign=True)})"
                    )
            told.append((f"{label}, {probe}", "; ".join(words)))
    all_rows = data["theory_measured"]
    positive = percent((all_rows["bound"] > 0).mean()), percent((all_rows["best_bound"] > 0).mean())
    return (
        f"{recipe_note(table)}Directions at {solution}. The proved bound is positive in {positive[0]} of all"
        f" rows of the table with the window of Definition 1, and in {positive[1]} with the best window. Gain"
        f" of a bias of R/8, with its {percent(level)} t interval over minima:{listed(told, 4 * LISTED)}"
    )


KIND = Kind(
    name="theory-measured",
    nothing="Nothing to draw: no direction with a minimum was probed.",
    draw=_draw,
    seen=_seen,
    own_minima=True,
)
