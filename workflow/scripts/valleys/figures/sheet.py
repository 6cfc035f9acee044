"""Figures for a paper: panels that each say all they show, together at a width or in files of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

_PLAIN = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class _Heading:
    """What stands above a panel: what it is of and, at the right, a word; `pad` points from the panel."""

    label: str
    word: str
    colour: str
    pad: float | None


class Sheet(Figure):
    """Panels that can be taken apart.

    What other figures say once, beside a row or below a column, stands at each panel here: heading, labels of
    axes and of their ticks. So each can be shown alone.

    Parameters
    ----------
    width
        In inches.
    rows, columns
        Of the panels as a kind of figure draws them.
    heights
        Of a panel of each of these rows, in inches, with a heading of one line and the labels below it.
    in_a_row
        How many panels `fit` puts in a row.
    sharex, sharey
        As of `matplotlib.figure.Figure.subplots`.

    Attributes
    ----------
    grid
        The panels (rows, columns), for a kind of figure to draw in; `fit` places them.
    """

    def __init__(
        self,
        width: float,
        rows: int,
        columns: int,
        heights: Sequence[float],
        in_a_row: int = 1,
        *,
        sharex: bool | str = False,
        sharey: bool | str = False,
    ) -> None:
        super().__init__(figsize=(width, sum(heights)), layout="constrained")
        self.grid = self.subplots(rows, columns, squeeze=False)
        self._in_a_row = in_a_row
        self._heights = dict(zip(self.grid.flat, np.repeat(heights, columns), strict=True))
        self._headings: dict[Axes, _Heading] = {}
        self._handles: Sequence[Any] = ()
        self._own_handles: dict[Axes, Sequence[Any]] = {}
        for (i, j), axes in np.ndenumerate(self.grid):
            firsts = {True: (0, 0), "all": (0, 0), "row": (i, 0), "col": (0, j)}
            for share, how in ((axes.sharex, sharex), (axes.sharey, sharey)):
                first = self.grid[firsts.get(how, (i, j))]
                if first is not axes:
                    share(first)

    def head(self, axes: Axes, label: str, word: str, colour: str, pad: float | None) -> None:
        """Have a label stand above a panel, which its file is named by, and a short word at the right."""
        self._headings[axes] = _Heading(label, word, colour, pad)

    def put_legend(self, handles: Sequence[Any]) -> None:
        """Put a legend above the panels, in as many columns as there is room for."""
        self._handles = handles
        self._show_legend(handles)

    def put_own_legend(self, panels: Iterable[Axes], handles: Sequence[Any]) -> None:
        """Note which entries some panels need when they stand alone, where that is not all."""
        self._own_handles |= dict.fromkeys(panels, handles)

    def fit(self) -> None:
        """Place the panels in reading order, and make the sheet as high as they and its legend take."""
        panels = self._present()
        for axes in panels:
            if axes in self._headings:
                self._heights[axes] += self._write_heading(axes, self._headings[axes])
        rows = [panels[i : i + self._in_a_row] for i in range(0, len(panels), self._in_a_row)]
        grid = self._place([max(self._heights[axes] for axes in row) for row in rows], self._in_a_row)
        for axes, place in zip(panels, grid, strict=False):
            axes.set_subplotspec(place)

    def panels(self, name: str) -> dict[str, Axes]:
        """Return the panels by name, in reading order.

        Parameters
        ----------
        name
            Of the figure. Panels are ``<name>-<heading>-<letter>``: letters tell those of one heading apart,
            so that another network or data set renames no panel of those that were there.
        """
        found: dict[str, Axes] = {}
        counts: dict[str, int] = {}
        for axes in self._present():
            label = self._headings[axes].label if axes in self._headings else ""
            heading = _PLAIN.sub("-", label).strip("-.")
            stem = f"{name}-{heading}" if heading else name
            nth = counts[stem.lower()] = counts.get(stem.lower(), -1) + 1
            found[f"{stem}-{_letters(nth)}"] = axes
        return found

    def show_alone(self, axes: Axes) -> None:
        """Show one of the panels, with its legend, and no other; another can be shown after it."""
        self._show_legend(self._own_handles.get(axes, self._handles))
        (place,) = self._place([self._heights[axes]], 1)
        for other in self._present():
            other.set_subplotspec(place)
            other.set_visible(other is axes)
            other.set_in_layout(other is axes)

    def _write_heading(self, axes: Axes, heading: _Heading) -> float:
        """Write what stands above a panel, broken at slashes where it is too long; return inches to add."""
        size, pad = axes.xaxis.get_label().get_fontsize(), heading.pad
        beside = axes.get_tightbbox().width - axes.bbox.width  # labels of ticks, and notes at the right
        room = self.bbox.width / self._in_a_row - beside - 1.5 * self.dpi * size / 72
        lines = [""]
        for part in heading.label.split(" / "):
            joined = f"{lines[-1]} / {part}" if lines[-1] else part
            if lines[-1] and self._width_of(f"{joined} /", "bold") > room:
                lines[-1] += " /"
                lines.append(part)
            else:
                lines[-1] = joined
        if heading.word and heading.label and pad is None:
            taken = self._width_of(lines[-1], "bold") + self._width_of(heading.word, "normal")
            pad = 6 + 1.4 * size if taken + self.dpi * size / 72 > room else None
        axes.set_title("\n".join(lines), loc="left", fontweight="bold", pad=pad)
        if heading.word:
            place = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right"}
            axes.annotate(heading.word, (1, 1), xytext=(0, 6), va="baseline", color=heading.colour, **place)
        return ((len(lines) - 1) * 1.2 * size + (pad or 6) - 6) / 72

    def _width_of(self, text: str, weight: str) -> float:
        """Return how wide a text is, in pixels."""
        written = self.text(0, 0, text, fontweight=weight)
        width = float(written.get_window_extent().width)
        written.remove()
        return width

    def _present(self) -> list[Axes]:
        """Return the panels that a kind of figure has not removed."""
        return [axes for axes in self.grid.flat if axes in self.axes]

    def _place(self, heights: Sequence[float], columns: int) -> GridSpec:
        """Return places in rows of these heights (inches); the sheet gets as high as they and its legend."""
        legends = sum(legend.get_window_extent().height for legend in self.legends) / self.dpi
        self.set_figheight(sum(heights) + legends)
        return GridSpec(len(heights), columns, figure=self, height_ratios=heights)

    def _show_legend(self, handles: Sequence[Any]) -> None:
        for columns in range(min(len(handles), 4), 0, -1):
            for legend in list(self.legends):
                legend.remove()
            legend = self.legend(
                handles=list(handles), loc="outside upper center", ncols=columns, handlelength=2.2,
                columnspacing=1.2, labelspacing=0.35,
            )  # fmt: skip
            if legend.get_window_extent().width <= self.bbox.width:
                break


def _letters(nth: int) -> str:
    """Return a, b, ..., z, aa, ab, ... for 0, 1, ..."""
    return (_letters(nth // 26 - 1) if nth >= 26 else "") + "abcdefghijklmnopqrstuvwxyz"[nth % 26]
