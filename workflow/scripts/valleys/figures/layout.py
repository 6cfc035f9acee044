"""Panels, headings, legends and axes of a figure."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    SymmetricalLogLocator,
)

from valleys.figures.frames import by_cell
from valleys.figures.sheet import Sheet
from valleys.figures.style import FAINT, GREY, INK, SHADE, SPLITS, Look
from valleys.figures.wording import number
from valleys.results.stats import Interval

STEPS = [1, 2, 5, 10]  # between ticks
_WIDE = 4  # panels in a row
_WIDTHS = {1: 0.62, 2: 1.0, 3: 1.35}  # of figures by panels in a row; what is set is that of two
_LEAST_WIDTH = 2.6
"""Inches that panels of a paper are wide at least, where several stand in a row."""
_LEAST_NOTE = 7.0
"""Points: for a paper, notes that are smaller than labels are no smaller than this, or than labels."""


def panel_grid(
    look: Look, rows: int, columns: int, height: float, alone: Sequence[float] = (), **options: Any
) -> tuple[Figure, Any]:
    """Return a figure and its panels (rows, columns), each `height` inches high at a width of 7.

    Where panels have to stand alone it is a `Sheet`. `alone` then has the inches that those of each row are
    high, where width and `height` do not say.
    """
    if look.alone:
        ratios = np.asarray(options.pop("height_ratios", [1.0] * rows))
        options.pop("width_ratios", None)
        usual = 7 * _WIDTHS.get(columns, _WIDTHS[3]) / columns
        scale = float(np.clip(width_alone(look, columns) / usual, 0.9, 1.6))
        label = 1.6 * float(look.style["font_size"]) / 72  # that of the x axis, which each has
        heights = list(alone) or list(height * scale * ratios / ratios.mean() + label)
        sheet = Sheet(look.width, rows, columns, heights, _in_a_row(look, columns), **options)
        return sheet, sheet.grid
    width = look.width * _WIDTHS.get(columns, _WIDTHS[3])
    figure = Figure(figsize=(width, height * rows * look.width / 7 + 0.55), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def width_alone(look: Look, columns: int) -> float:
    """Return the width in inches of a panel that stands alone, one of so many that would stand in a row."""
    return look.width / _in_a_row(look, columns)


def _in_a_row(look: Look, columns: int) -> int:
    """Return how many panels that stand alone are beside each other: one, unless they come in one file."""
    return min(columns, max(1, int(look.width / _LEAST_WIDTH))) if look.style.get("together") else 1


def empty_figure(look: Look, sentence: str) -> Figure:
    """Return a figure that says a sentence."""
    figure = Figure(figsize=(look.width, 1.2))
    wrapped = textwrap.fill(sentence, max(int(80 * look.width / 7), 20) if look.alone else 80)
    figure.text(0.5, 0.5, wrapped, ha="center", va="center", color=GREY)
    return figure


def add_own_legend(panels: Iterable[Axes], handles: Sequence[Any]) -> None:
    """Say which entries of the legend some panels need in a file of their own, where that is not all."""
    for axes in panels:
        if isinstance(axes.figure, Sheet):
            axes.figure.put_own_legend([axes], handles)


def are_alone(axes: Axes) -> bool:
    """Whether a panel has to say all that it shows, and may lean on none beside it."""
    return isinstance(axes.figure, Sheet)


def label_columns(grid: Any, text: str) -> None:
    """Label the x axes below the columns of panels, or below each panel that has to stand alone."""
    for axes in grid.flat if are_alone(grid[0, 0]) else grid[-1]:
        axes.set_xlabel(text)


def label_row(row: Sequence[Axes], text: str) -> None:
    """Label the y axis of a row's first panel, or of each that has to stand alone."""
    for axes in row if are_alone(row[0]) else row[:1]:
        axes.set_ylabel(text)


def add_legend(figure: Figure, handles: Sequence[Any], columns: int = 4) -> None:
    """Put a legend above the panels."""
    if isinstance(figure, Sheet):
        figure.put_legend(handles)
        return
    columns = min(len(handles), columns if figure.get_figwidth() > 5 else 2)
    figure.legend(handles=list(handles), loc="outside upper center", ncols=columns, handlelength=2.2)


def add_heading(
    axes: Axes,
    label: str,
    right: str = "",
    colour: str = INK,
    room: int = 38,
    pad: float | None = None,
    across: bool = False,
    again: bool = False,
) -> None:
    """Write the cell above a panel, broken at its slashes if long, and a short word at the right.

    `room` is how many letters a line takes; `across`: the cell stands above that word, and runs on above the
    panel beside this one; `again`: the cell is written beside this panel, or above, and here only where the
    panel has to stand alone.
    """
    size = axes.xaxis.get_label().get_fontsize()
    if isinstance(axes.figure, Sheet):
        axes.figure.head(axes, label, right, colour, pad)
        return
    label = "" if again else label
    if across:
        room, pad = _room_across(axes, size), 6 + 1.5 * size
    lines = [""]
    for part in label.split(" / "):
        joined = f"{lines[-1]} / {part}" if lines[-1] else part
        if len(joined) > room and lines[-1]:
            lines[-1] += " /"
            lines.append(part)
        else:
            lines[-1] = joined
    if right and label and pad is None and len(lines[-1]) + len(right) > room:
        pad = 6 + 1.4 * size  # lifts the label above the word
    axes.set_title("\n".join(lines), loc="left", fontweight="bold", pad=pad)
    # Room for further lines is not taken from the panels.
    axes.figure.set_figheight(axes.figure.get_figheight() + (len(lines) - 1) * 1.2 * size / 72)
    if right:
        place = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "baseline"}
        axes.annotate(right, (1, 1), xytext=(0, 6), color=colour, **place)


def _room_across(axes: Axes, size: float) -> int:
    """Return how many bold letters fit above a panel and the next.

    The layout makes room for the middle of a heading: a longer one would widen its panel's column.
    """
    columns = axes.get_subplotspec().get_gridspec().ncols
    panels = axes.figure.get_figwidth() - 0.1 * size  # inches, less the labels at the left
    return int(72 * panels * min(2 / columns, 1) / (0.7 * size))


def plain_number(value: float, _position: int = 0) -> str:
    """Write a tick label out: 0.001, not a power of ten."""
    return f"{value:g}"


def log_axis(axes: Axes, low: float, high: float) -> None:
    """Make the y axis logarithmic with labels written out, at 1, 2 and 5 when there are few decades."""
    axes.set_yscale("log")
    decades = np.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(plain_number))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(low / 1.15, high * 1.15)


def linear_axis(axes: Axes) -> None:
    """Give the y axis a few round ticks."""
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))


def symlog_axis(axes: Axes, low: float, high: float) -> None:
    """Make the y axis logarithmic in size beyond 1, linear below, from about `low` to about `high`."""
    axes.set_yscale("symlog", linthresh=1.0)
    axes.set_ylim(1.5 * min(low, 0.0) - 0.2, 3 * high)
    locator = SymmetricalLogLocator(base=10, linthresh=1.0)
    locator.set_params(numticks=6)
    axes.yaxis.set_major_locator(locator)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 1).removeprefix("1 × ")))
    axes.yaxis.set_minor_locator(NullLocator())


def line_axis(axes: Axes, labels: Sequence[str]) -> None:
    """Make the y axis one of lines with labels, the first at the top, set apart by thin rules."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.45, -0.55)
    axes.grid(False, axis="y")
    for y in range(1, len(labels)):
        axes.axhline(y - 0.5, color=FAINT, lw=0.6, zorder=0)
    axes.tick_params(axis="y", length=0)


def beside(present: Sequence[bool], step: float) -> list[float]:
    """Return where marks of several series stand about their line's middle, those present `step` apart.

    What is absent takes no room, so that the marks of every line lie about its label.
    """
    places = np.cumsum(present) - 1 - (sum(present) - 1) / 2
    return [float(step * place) for place in places]


def note_size(axes: Axes, share: float) -> float:
    """Return the size in points of a note that is `share` as large as labels; in a paper it can be read."""
    size = axes.xaxis.get_label().get_fontsize()
    return max(size * share, min(size, _LEAST_NOTE)) if are_alone(axes) else size * share


def draw_share(axes: Axes, hits: int, share: Interval, at: float, size: float, **style: Any) -> None:
    """Draw a share as a percentage at a height, with its interval, and its counts beside the panel."""
    middle, low, high = (100 * value for value in (share.estimate, share.low, share.high))
    bars = [[max(middle - low, 0)], [max(high - middle, 0)]]
    axes.errorbar(middle, at, xerr=bars, ms=4.5, lw=1.2, capsize=2, ls="", clip_on=False, zorder=3, **style)
    axes.annotate(
        f"{hits}/{share.n}", (1.04, at), xycoords=("axes fraction", "data"), va="center", color=GREY,
        fontsize=note_size(axes, size), annotation_clip=False,
    )  # fmt: skip


def draw_spread(
    axes: Axes,
    values: pd.api.typing.SeriesGroupBy,
    centre: pd.Series,
    colour: Any,
    dashes: str,
    *,
    filled: bool,
) -> tuple[pd.Series, pd.Series]:
    """Draw a line through `centre`, and what encloses the middle 80 % of `values`: a shade or thin lines.

    Returns these two edges.
    """
    low, high = values.quantile(0.1), values.quantile(0.9)
    if filled:
        axes.fill_between(centre.index, low, high, color=colour, alpha=SHADE, lw=0)
    else:
        for edge in (low, high):
            axes.plot(centre.index, edge, color=colour, ls=dashes, lw=0.6)
    axes.plot(centre.index, centre, color=colour, ls=dashes, lw=1.6)
    return low, high


def corner_note(axes: Axes, text: str, size: float) -> None:
    """Write a note into the lower left corner of a panel, `size` times as large as labels."""
    axes.annotate(
        text, (0, 0), xycoords="axes fraction", xytext=(4, 4), textcoords="offset points", color=GREY,
        fontsize=note_size(axes, size),
        path_effects=[withStroke(linewidth=2.5, foreground="white")],  # lines may pass below
    )  # fmt: skip


def split_handles(look: Look, train: str = "train", test: str = "test") -> list[Line2D]:
    """Return the legend entries of train and test."""
    return [
        Line2D([], [], color=look.colour(split), lw=1.6, ls=dashes, label=text)
        for (split, dashes), text in zip(SPLITS.items(), (train, test), strict=True)
    ]


def by_probe(
    table: pd.DataFrame,
    look: Look,
    panel: Callable[[Axes, pd.DataFrame, Look], None],
    x: str,
    y: str,
    **options: Any,
) -> tuple[Figure, Any]:
    """Draw a panel a probe, a cell's in rows of their own; `x` and `y` label the axes."""
    cells = [(label, list(part.groupby("probe", sort=False))) for label, _, part in by_cell(table)]
    columns = min(_WIDE, max(len(probes) for _, probes in cells))
    rows = [
        (label, start > 0, probes[start : start + columns])
        for label, probes in cells
        for start in range(0, len(probes), columns)
    ]
    figure, grid = panel_grid(look, len(rows), columns, 1.75 if columns > 2 else 2.3, **options)
    for (label, wrapped, probes), panels in zip(rows, grid, strict=True):
        for axes, (probe, here) in zip(panels, probes, strict=False):
            panel(axes, here, look)
            add_heading(axes, label, str(probe), GREY, across=True, again=wrapped or axes is not panels[0])
            axes.set_xlabel(x)
        label_row(panels[: len(probes)], y)
        for axes in panels[len(probes) :]:
            axes.remove()
    return figure, grid


def ratio_axis(axes: Axes, ratios: Sequence[float]) -> None:
    """Make the x axis that of c: logarithmic, with a tick at each value."""
    axes.set_xscale("log")
    axes.set_xticks(ratios, [plain_number(c) for c in ratios])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(min(ratios) / 1.25, max(ratios) * 1.25)


def without_accuracy(axes: Axes) -> None:
    """Leave a panel of accuracies empty, and say why."""
    axes.set_axis_off()
    axes.text(
        0.5, 0.5, "no accuracy: labels are no classes", transform=axes.transAxes,
        ha="center", va="center", color=GREY,
    )  # fmt: skip
