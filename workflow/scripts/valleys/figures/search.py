"""Figure ``search``: how asymmetric a direction an ascent finds, and on which images it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from valleys.figures.frames import SETTING, Data, Spec, at_first, by_cell, finite_of
from valleys.figures.kind import Kind
from valleys.figures.layout import (
    add_heading,
    add_legend,
    add_own_legend,
    label_columns,
    line_axis,
    linear_axis,
    log_axis,
    note_size,
    panel_grid,
    plain_number,
)
from valleys.figures.style import FAINT, GREY, INK, PALE, Look
from valleys.figures.wording import LISTED, listed, number, percent, range_of, recipe_note
from valleys.results.searches import are_asymmetric, are_found
from valleys.results.stats import wilson

LANES = {
    "start": "random start",
    "search": "found, searched on",
    "judge": "found, unseen",
    "test": "found, test",
}
"""What c* is drawn of, from the top: `searches.are_asymmetric` names, and their labels."""
_DASHES = {"start": "-", "search": ":", "judge": "-", "test": "--"}
_COLUMNS = {
    "start": "start_c_star",
    "search": "search_c_star",
    "judge": "judge_c_star",
    "test": "test_c_star",
}
_MINIMUM = [*SETTING, "seed", "probe"]
_OTHERS = {"symmetric": ("s", "most symmetric"), "flat": ("D", "flattest")}
_LEAST = 0.05  # c* below is drawn here


@dataclass(frozen=True)
class _Row:
    """A row of panels: a network and a probe that searched it for an asymmetric direction.

    `found` has one row a minimum; `others` those of searches of the same network for other directions.
    """

    label: str
    probe: str
    found: pd.DataFrame
    others: pd.DataFrame


def _chosen(data: Data) -> tuple[str, pd.DataFrame]:
    """Return the first solution, and what each first search at its minima came to, with ``start_radius``."""
    table = data["searches"]
    solution, table = at_first(table[table["chosen"] & (table["k"] == 0)])
    curves = data["search_curves"]
    start = curves[(curves["of"] == "start") & (curves["images"] == "judge") & (curves["k"] == 0)]
    start = start[(start["solution"] == solution) & np.isfinite(start["loss"])]
    radius = start["offset"].abs().groupby([start[key] for key in _MINIMUM]).max().rename("start_radius")
    return solution, table.merge(radius.reset_index(), on=_MINIMUM, how="left", validate="one_to_one")


def _rows(table: pd.DataFrame) -> Iterator[_Row]:
    """Yield the rows of panels; networks searched for other directions alone come without `found`."""
    for label, _, part in by_cell(table):
        others = part[part["seek"] != "asymmetric"]
        searched = list(part[part["seek"] == "asymmetric"].groupby("probe", sort=False))
        for probe, found in searched or [("", part.iloc[:0])]:
            yield _Row(label, str(probe), found.sort_values("seed"), others)


def _draw(_part: str, data: Data, spec: Spec, look: Look) -> Figure | None:
    solution, table = _chosen(data)
    if table.empty:
        return None
    rows = list(_rows(table))
    asked = any(len(row.found) for row in rows)
    beside = any(len(row.others) for row in rows)
    widths = [*([1.15, 1.0] if asked else []), *([1.0] if beside else [])]
    height = 1.85 if len(widths) > 2 else 2.1
    figure, grid = panel_grid(look, len(rows), len(widths), height, sharex="col", width_ratios=widths)
    marks, curves = _Marks(table, spec["c"]), data["search_curves"]
    curves = curves[(curves["solution"] == solution) & (curves["k"] == 0)]
    labelled = ""
    for row, panels in zip(rows, grid, strict=True):
        words = [""] * len(panels)
        if asked and len(row.found):
            example = row.found.iloc[0]
            _strengths(panels[0], row.found, marks, look)
            _example(panels[1], example, curves, look)
            words[:2] = row.probe, f"seed {example['seed']}"
        elif asked:
            _say_not_searched(panels)
        if beside:
            _scale(panels[-1], row, look)
            words[-1] = "all minima"
        for axes, word in zip(panels, words, strict=True):
            again = axes is not panels[0] or row.label == labelled
            add_heading(axes, row.label, word, GREY, across=True, again=again)
        labelled = row.label
    if asked:
        marks.label(grid[-1, 0])
        label_columns(grid[:, :1], "c*")
        label_columns(grid[:, 1:2], "offset l / R")
    if beside:
        _scale_axes(grid[:, -1], table)
        label_columns(grid[:, -1:], "R / R of the random start")
    levels, curves, scale = _handles(table, spec, look)
    # What the found are in the last panel, the first one says.
    handles = [*curves[:-1], *levels, *curves[-1:], *scale[2:]] if asked else scale
    columns = 4 if len(widths) > 2 else 3
    add_legend(figure, handles, columns)
    if not look.alone:
        size = grid[0, 0].xaxis.get_label().get_fontsize()
        lines = -(-len(handles) // (columns if figure.get_figwidth() > 5 else 2))
        figure.set_figheight(figure.get_figheight() + 1.3 * size / 72 * (lines - 1))  # taken from no panel
    if asked:
        add_own_legend(grid[:, 0], levels)
        add_own_legend(grid[:, 1], curves)
        add_own_legend(grid[:, 2:].flat, scale)
    return figure


def _say_not_searched(panels: Sequence[Axes]) -> None:
    for axes in panels[:2]:
        axes.set_yticks([])
        axes.annotate(
            "no search for an\nasymmetric direction", (0.5, 0.5), xycoords="axes fraction",
            ha="center", va="center", color=GREY,
        )  # fmt: skip


class _Marks:
    """The axis of c*: logarithmic, with a place at its left for directions that have none."""

    def __init__(self, table: pd.DataFrame, c: float) -> None:
        sought = table[table["seek"] == "asymmetric"]
        values = finite_of(sought[list(_COLUMNS.values())].astype(float))
        values = [*values[values > 0], *finite_of(sought["bias_level"].astype(float)), c / 2, 2 * c]
        self.c = c
        self.low, self.high = max(min(values), _LEAST) / 1.2, max(values) * 1.25
        strengths = sought[list(_COLUMNS.values())].astype(float).to_numpy()
        with np.errstate(invalid="ignore"):
            self.some_lack = bool((~(strengths > 0)).any())
        room = (self.high / self.low) ** 0.09
        self.none = self.low / room
        self.left = self.none / room if self.some_lack else self.low

    def places(self, values: pd.Series) -> Any:
        """Return where values of c* are drawn."""
        x = values.astype(float).to_numpy()
        with np.errstate(invalid="ignore"):
            return np.where(x > 0, np.clip(x, self.low * 1.05, self.high), self.none)

    def label(self, axes: Axes) -> None:
        """Set scale, limits and ticks; all panels of the column share them."""
        few = np.log10(self.high / self.low) < 2.5
        ticks = [
            m * 10.0**power for power in range(-2, 7) for m in ((1, 2, 5) if few else (1,))
            if self.low <= m * 10.0**power <= self.high
        ]  # fmt: skip
        labels = [plain_number(tick) for tick in ticks]
        if self.some_lack:
            ticks, labels = [self.none, *ticks], ["none", *labels]
        axes.set_xscale("log")
        axes.set_xticks(ticks, labels)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(self.left, self.high)


def _colour(images: str, look: Look) -> str:
    return GREY if images == "start" else look.colour("test" if images == "test" else "train")


def _strengths(axes: Axes, found: pd.DataFrame, marks: _Marks, look: Look) -> None:
    """Draw c* of every minimum: a line each for the random start and for the direction found, by images."""
    line_axis(axes, list(LANES.values()))
    axes.axvline(marks.c, color=GREY, lw=0.9, zorder=1)
    for level in np.unique(finite_of(found["bias_level"].astype(float))):
        axes.axvline(level, color=INK, lw=0.9, ls="-.", zorder=1)
    if marks.some_lack:
        axes.axvline(marks.low, color=PALE, lw=0.8, zorder=1)
    spread = np.linspace(-0.3, 0.3, len(found)) if len(found) > 1 else np.zeros(1)
    lanes = [images for images in LANES if images != "test" or found["test_status"].notna().any()]
    places = {images: marks.places(found[_COLUMNS[images]]) for images in lanes}
    heights = {images: list(LANES).index(images) + spread for images in lanes}
    axes.plot(
        [places[images] for images in lanes],
        [heights[images] for images in lanes],
        color=PALE,
        lw=0.5,
        zorder=1.5,
    )
    if "test" not in lanes:
        axes.annotate(
            "no test images", (0.5, list(LANES).index("test")), xycoords=("axes fraction", "data"),
            ha="center", va="center", color=GREY,
        )  # fmt: skip
    for images in lanes:
        hit, colour = _hits(found, images).to_numpy(), _colour(images, look)
        for here, face in ((hit, colour), (~hit, "white")):
            axes.plot(
                places[images][here], heights[images][here], "o", color=colour, mfc=face, ms=3, mew=0.7,
                zorder=2,
            )  # fmt: skip
        y = list(LANES).index(images)
        middle = found[_COLUMNS[images]].astype(float).median()
        if np.isfinite(middle):
            at = marks.places(pd.Series([middle]))
            axes.plot([*at, *at], [y - 0.38, y + 0.38], color=colour, lw=1.6, zorder=2.5)
        axes.annotate(
            f"{hit.sum()}/{len(hit)}", (1.03, y), xycoords=("axes fraction", "data"), va="center", color=GREY,
            fontsize=note_size(axes, 0.85), annotation_clip=False,
        )  # fmt: skip


def _hits(found: pd.DataFrame, images: str) -> pd.Series:
    """Return the minima at which a line of `LANES` has an asymmetric direction."""
    return are_found(found) if images == "judge" else are_asymmetric(found, images)


def _example(axes: Axes, about: pd.Series, curves: pd.DataFrame, look: Look) -> None:
    """Draw the curves of one minimum: of the direction found, by images, and of the random start."""
    own = curves[(curves[_MINIMUM] == about[_MINIMUM]).all(axis=1)]
    radius = about["judge_radius"]
    for low, high in ((about["judge_zeta"], about["judge_r"]), (-about["judge_r"], -about["judge_zeta"])):
        if np.isfinite([low, high, radius]).all() and radius > 0:
            axes.axvspan(low / radius, high / radius, color=FAINT, lw=0, zorder=0)
    axes.axhline(0, color=GREY, lw=0.8, zorder=1)
    axes.axvline(0, color=GREY, lw=0.8, zorder=1)
    tops, bottoms = [0.0], [0.0]
    for images in LANES:
        of, on = ("start", "judge") if images == "start" else ("found", images)
        curve = own[(own["of"] == of) & (own["images"] == on)].sort_values("offset")
        x, rise = _rise_of(curve, about["start_radius"] if images == "start" else radius)
        if not len(x):
            continue
        if images == "start" and about["start_index"] < 0:
            x = -x
        width = {"judge": 1.8, "start": 1.2}.get(images, 1.4)
        axes.plot(x, rise, color=_colour(images, look), ls=_DASHES[images], lw=width, zorder=2)
        if images != "test" or not about["rise"] > 0:
            tops.append(rise.max())
        else:
            tops.append(min(rise.max(), 3 * about["rise"]))
        bottoms.append(rise.min())
    low, high = max(min(bottoms), -max(tops)), max(tops)
    room = 0.06 * (high - low) or 0.1
    axes.set_ylim(low - room, high + room)
    axes.set_xlim(-1.03, 1.03)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    linear_axis(axes)
    axes.set_ylabel("rise in loss [nats]")


def _rise_of(curve: pd.DataFrame, radius: float) -> tuple[Any, Any]:
    """Return offsets / R and rises above the loss at 0, where finite; nothing where the loss at 0 is not."""
    curve = curve[np.isfinite(curve["loss"])]
    zero = curve.loc[curve["offset"].abs() <= 1e-9 * (radius or 1.0), "loss"]
    if zero.empty or not radius > 0:
        return np.array([]), np.array([])
    return (curve["offset"] / radius).to_numpy(), (curve["loss"] - zero.iloc[0]).to_numpy()


def _extremes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return R in units of that of the random start (``x``), and the larger rise over the smaller (``y``)."""
    return pd.DataFrame(
        {
            "x": rows["judge_radius"].astype(float) / rows["start_radius"].astype(float),
            "y": np.exp(rows["judge_index"].astype(float).abs()),
        }
    ).replace([np.inf, 0.0], np.nan)


def _scale(axes: Axes, row: _Row, look: Look) -> None:
    """Draw how lopsided and how wide a valley is along what was searched for, and along the random starts."""
    everything = pd.concat([row.found, row.others])
    starts = np.exp(everything["start_index"].astype(float).abs())
    style: dict[str, Any] = {"ms": 3.2, "mew": 0.7, "ls": "", "zorder": 2}
    axes.axvline(1, color=GREY, lw=0.8, zorder=1)
    axes.plot(np.ones(len(starts)), starts, "o", color=GREY, alpha=0.6, **style)
    shown = [("o", look.colour("train"), row.found)]
    shown += [
        (marker, look.colour(seek), row.others[row.others["seek"] == seek])
        for seek, (marker, _) in _OTHERS.items()
    ]
    for marker, colour, rows in shown:
        at = _extremes(rows)
        axes.plot(at["x"], at["y"], marker, color=colour, alpha=0.8, **style)
    axes.set_ylabel("ratio of rises")


def _scale_axes(panels: Sequence[Axes], table: pd.DataFrame) -> None:
    """Make the axes of `_scale` logarithmic, the same in all panels."""
    at = _extremes(table)
    heights = [1.0, *finite_of(at["y"]), *finite_of(np.exp(table["start_index"].astype(float).abs())), 2.0]
    widths = [0.5, *finite_of(at["x"]), 2.0]
    for axes in panels:
        log_axis(axes, min(heights), max(heights))
    low, high = min(widths) / 1.2, max(widths) * 1.2
    few = np.log10(high / low) < 1.8
    ticks = [
        m * 10.0**k for k in range(-6, 7) for m in ((1, 2, 5) if few else (1,)) if low <= m * 10.0**k <= high
    ]
    panels[-1].set_xscale("log")
    panels[-1].set_xticks(ticks, [plain_number(tick) for tick in ticks])
    panels[-1].xaxis.set_minor_locator(NullLocator())
    panels[-1].set_xlim(low, high)


def _handles(table: pd.DataFrame, spec: Spec, look: Look) -> tuple[list[Any], list[Any], list[Any]]:
    """Return what the legend says of each of the three panels, `_strengths`, `_example` and `_scale`."""
    point: dict[str, Any] = {"ls": "", "ms": 4, "mew": 0.7}
    colour = look.colour("train")
    levels = [
        Line2D([], [], color=colour, marker="o", label="asymmetric", **point),
        Line2D([], [], color=colour, marker="o", mfc="white", label="not asymmetric", **point),
        Line2D([], [], color=GREY, lw=0.9, label=f"c = {spec['c']:g}"),
    ]
    if len(finite_of(table["bias_level"].astype(float))):
        levels.append(Line2D([], [], color=INK, lw=0.9, ls="-.", label="any weights, along a bias"))
    curves = [
        Line2D([], [], color=_colour(images, look), ls=_DASHES[images], lw=1.6, label=text)
        for images, text in LANES.items()
    ]
    seeks = {"asymmetric": ("o", "most asymmetric"), **_OTHERS}
    scale = [Line2D([], [], color=GREY, marker="o", label=LANES["start"], **point)] + [
        Line2D(
            [],
            [],
            color=look.colour("train" if seek == "asymmetric" else seek),
            marker=marker,
            label=text,
            **point,
        )
        for seek, (marker, text) in seeks.items()
        if (table["seek"] == seek).any()
    ]
    return levels, [*curves, Patch(color=FAINT, label="window of c*")], scale


def _seen(_part: str, data: Data, spec: Spec) -> str:
    solution, table = _chosen(data)
    if table.empty:
        return ""
    told = [
        (f"{row.label}, {row.probe}" if row.probe else row.label, _told(row, spec["level"]))
        for row in _rows(table)
    ]
    images = " and ".join(range_of(table[f"{part}_images"]) for part in ("search", "judge"))
    policy = ", ".join(dict.fromkeys(table["bn_policy"]))
    beside = ""
    if (table["seek"] != "asymmetric").any():
        beside = (
            " R is put in units of that of the random start, and the ratio of rises is that of the larger to"
            " the smaller at -R and R, both on unseen images and for each direction searched for."
        )
    levels = finite_of(table["bias_level"].astype(float))
    bias = f" Any weights reach c* up to {range_of(levels)} along an output's bias." if len(levels) else ""
    return (
        f"{recipe_note(table)}Directions at {solution}, at a rise of {range_of(table['rise'])} nats;"
        f" batch-norm statistics: {policy}; images searched on and unseen ones: {images}.{beside}{bias}"
        f"{_further(data, solution)} Minima with a direction found, and {percent(spec['level'])} Wilson"
        f" intervals:{listed(told, 2 * LISTED)}"
    )


def _told(row: _Row, level: float) -> str:
    """Say what was found in a row of panels."""
    parts, found = [], row.found
    if len(found):
        share = wilson(int(are_found(found).sum()), len(found), level)
        parts.append(f"{are_found(found).sum()} of {share.n} ({percent(share.low)} to {percent(share.high)})")
        lanes = [images for images in LANES if images != "test" or found["test_status"].notna().any()]
        parts += [
            f"{text} asymmetric at {_hits(found, images).sum()}"
            for images, text in (("test", "test loss"), ("start", "random start"))
            if images in lanes
        ]
        medians = [
            f"{number(values.median())} ({LANES[images].removeprefix('found, ')})"
            for images in lanes
            if np.isfinite(values := found[_COLUMNS[images]].astype(float)).any()
        ]
        parts.append(f"median c* {', '.join(medians)}" if medians else "no c*")
    for seek, (_, text) in _OTHERS.items():
        at = _extremes(row.others[row.others["seek"] == seek])
        if at["x"].notna().any():
            ratio = f", ratio of rises {number(at['y'].median())}" if at["y"].notna().any() else ""
            parts.append(f"{text} (medians): R {number(at['x'].median())} times the random start's{ratio}")
    return "; ".join(parts)


def _further(data: Data, solution: str) -> str:
    """Say how many further directions were found, where some were searched for."""
    more = data["searches"]
    more = more[(more["k"] > 0) & more["chosen"] & (more["seek"] == "asymmetric")]
    more = more[more["solution"] == solution]
    if more.empty:
        return ""
    hits = f"{are_found(more).sum()} of {len(more)}"
    return f" Of further directions, orthogonal to those before, {hits} were found."


KIND = Kind(
    name="search",
    nothing="Nothing to draw: no direction was searched for.",
    draw=_draw,
    seen=_seen,
    own_minima=True,
)
