"""Figures ``plane-<plane>``: loss on a plane through weight space, with what lies on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from valleys.figures.frames import SETTING, Data, Floats, Spec, by_cell, finite_of, ordered
from valleys.figures.kind import Kind
from valleys.figures.layout import (
    STEPS,
    add_heading,
    add_legend,
    label_row,
    note_size,
    panel_grid,
    width_alone,
)
from valleys.figures.style import GREY, INK, PALE_TO_DARK, SPLITS, Look
from valleys.figures.wording import listed, number, percent, range_of, recipe_note

_FIRST, _LAST = "^", "v"
_CROSSES: dict[str, dict[str, Any]] = {
    "train": {"marker": "+", "mew": 1.8},
    "test": {"marker": "x", "mew": 1.8},
}
_HALO = [withStroke(linewidth=3.4, foreground="white")]


@dataclass(frozen=True)
class _Plane:
    """One cell's plane at one seed: grid coordinates, losses as arrays (y, x), and what lies on it."""

    seed: int
    x: Floats
    y: Floats
    losses: Mapping[str, Floats]
    points: pd.DataFrame

    @property
    def solutions(self) -> pd.DataFrame:
        """Rows of the solutions drawn: those on the plane, and all where iterates are projected too."""
        rows = self.points[self.points["role"] != "iterate"]
        on_plane = rows["distance"] <= 1e-3 * self.side
        return rows.assign(on_plane=on_plane)[on_plane | bool(len(self.iterates))]

    @property
    def iterates(self) -> pd.DataFrame:
        return self.points[self.points["role"] == "iterate"].sort_values("epoch")

    @property
    def side(self) -> float:
        """Longer side of the grid."""
        return float(max(np.ptp(self.x), np.ptp(self.y)))

    def least(self, split: str) -> tuple[float, float, float] | None:
        """Return x, y and loss of the least loss on the grid; None where no loss is finite."""
        values = self.losses[split]
        if not np.isfinite(values).any():
            return None
        j, i = np.unravel_index(np.nanargmin(values), values.shape)
        return float(self.x[i]), float(self.y[j]), float(values[j, i])


def _planes(name: str, data: Data) -> Iterator[tuple[str, _Plane]]:
    """Yield label and plane of each cell, at its lowest seed."""
    table, points = (data[key][data[key]["plane"] == name] for key in ("planes", "plane_points"))
    for label, _, part in by_cell(table):
        seed = int(part["seed"].min())
        part = part[part["seed"] == seed]
        here = points[points["seed"] == seed].merge(part[SETTING].drop_duplicates(), on=SETTING)
        wide = {split: part.pivot(index="y", columns="x", values=f"{split}_loss") for split in SPLITS}
        losses = {
            split: np.where(np.isfinite(w.to_numpy()), w.to_numpy(), np.nan) for split, w in wide.items()
        }
        x, y = (axis.to_numpy(dtype=np.float64) for axis in (wide["train"].columns, wide["train"].index))
        yield label, _Plane(seed, x, y, losses, here)


def _levels(values: Floats, count: int = 11) -> Floats:
    """Return contour levels from the least value, dense near it (Garipov et al. 2018 draw theirs so).

    Heights above the least value grow by one factor from a twentieth of it (but not less than a thousandth
    of the last) to the height that nine points in ten stay below.
    """
    good = finite_of(values)
    low = good.min()
    high = max(float(np.quantile(good, 0.9)) - low, 1e-9 * max(abs(low), 1.0))
    first = min(max(abs(low) / 20, high / 1000), high / 4)
    return np.concatenate([[low], low + np.geomspace(first, high, count - 1)])


def _draw(name: str, data: Data, spec: Spec, look: Look) -> Figure | None:
    planes = list(_planes(name, data))
    if not planes:
        return None
    tall = max(np.ptp(plane.y) / np.ptp(plane.x) for _, plane in planes)
    # A little higher than panels are wide: where it is their height that limits them the layout, which
    # measures labels and bars before it fits panels, may put some outside of the figure.
    em = float(look.style["font_size"]) / 72
    height = (look.width - 14 * em) / 2 * min(max(tall, 0.5), 1.3) + 6 * em
    alone = [(width_alone(look, 2) - 9 * em) * np.ptp(p.y) / np.ptp(p.x) + 7.5 * em for _, p in planes]
    figure, grid = panel_grid(look, len(planes), 2, height * 7 / look.width, alone)
    for (label, plane), row in zip(planes, grid, strict=True):
        for axes, split in zip(row, SPLITS, strict=True):
            _surface(figure, axes, plane, split)
            _on_plane(axes, plane, look)
            axes.set_xlabel("x [2-norm of weights]")
            add_heading(axes, label, again=axes is not row[0])
        label_row(row, "y [2-norm of weights]")
    drawn = pd.concat([plane.solutions for _, plane in planes])
    handles = [
        Line2D(
            [], [], color=look.of_solution(s), marker=look.marker(s), mec=INK, mew=0.6, ms=6, ls="", label=s
        )
        for s in ordered(drawn["role"])
    ]
    if any(len(plane.iterates) for _, plane in planes):
        handles += [
            Line2D([], [], color=INK, lw=0.7, marker="o", ms=2, label="iterates"),
            Line2D([], [], color=INK, marker=_FIRST, ms=5, ls="", label="first iterate"),
            Line2D([], [], color=INK, marker=_LAST, ms=5, ls="", label="last iterate"),
        ]
    handles += [
        Line2D([], [], color=INK, ms=8, ls="", label=f"least {split} loss", **_CROSSES[split])
        for split in SPLITS
    ]
    add_legend(figure, handles, columns=5 if len(handles) == 5 else 4)
    return figure


def _surface(figure: Figure, axes: Axes, plane: _Plane, split: str) -> None:
    """Draw one loss as filled contours, every second line labelled where there is room, with a colour bar."""
    size = axes.xaxis.get_label().get_fontsize()
    values, small = plane.losses[split], note_size(axes, (size - 2) / size)
    axes.set(xlim=(plane.x[0], plane.x[-1]), ylim=(plane.y[0], plane.y[-1]))
    # Where the place for a panel has another shape than the plane, it stays at the corner that labels were
    # measured from: centred, they may end up outside of the figure.
    axes.set_aspect("equal", anchor="NW")
    axes.grid(False)
    for which in (axes.xaxis, axes.yaxis):
        which.set_major_locator(MaxNLocator(5, steps=STEPS))
    if not np.isfinite(values).any():
        axes.text(0.5, 0.5, f"no finite {split} loss", transform=axes.transAxes, ha="center", color=GREY)
        return
    levels = _levels(values)
    ticks = levels[::2]
    words = dict(zip(ticks, _distinct(ticks), strict=True))
    shown = np.ma.masked_invalid(np.clip(values, levels[0], None))
    norm = BoundaryNorm(levels, PALE_TO_DARK.N, extend="max")
    style = {"levels": levels, "norm": norm, "cmap": PALE_TO_DARK, "extend": "max"}
    shades = axes.contourf(plane.x, plane.y, shown, **style)
    lines = axes.contour(plane.x, plane.y, shown, levels=levels[1:], colors=GREY, linewidths=0.45)
    spots = _label_spots(lines, ticks, plane)
    if spots:
        axes.clabel(lines, manual=spots, fmt=words, fontsize=small, colors=INK)
    # Inset, so that the bar is as high as the panel whatever the plane's shape.
    bar = figure.colorbar(shades, cax=axes.inset_axes((1.03, 0, 0.045, 1)))
    bar.set_ticks(ticks, labels=list(words.values()))
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=small, length=2)
    bar.set_label(f"{split} loss [nats]")


def _distinct(levels: Floats) -> list[str]:
    """Write levels with as few digits, two or more, as tell them apart."""
    words: list[str] = []
    for digits in range(2, 8):
        words = [number(value, digits) for value in levels]
        if len(set(words)) == len(words):
            break
    return words


def _label_spots(lines: Any, levels: Floats, plane: _Plane) -> list[tuple[float, float]]:
    """Return where to label contours: each level once, as far as can be from marks, labels and the border.

    A level without such a place is left out: its value stands at the colour bar.
    """
    marks = [plane.solutions[["x", "y"]].to_numpy(), plane.iterates[["x", "y"]].to_numpy()]
    marks += [np.array([least[:2]]) for least in (plane.least(split) for split in SPLITS) if least]
    taken = np.concatenate(marks)
    spots: list[tuple[float, float]] = []
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        if level not in levels or not len(path.vertices):
            continue
        at = path.vertices
        border = np.min([at[:, 0] - plane.x[0], plane.x[-1] - at[:, 0]], axis=0)
        border = np.min([border, at[:, 1] - plane.y[0], plane.y[-1] - at[:, 1]], axis=0)
        apart = np.hypot(*(at[:, None] - taken[None]).transpose(2, 0, 1)).min(axis=1, initial=np.inf)
        room = np.where(border > 0.06 * plane.side, np.minimum(apart, 0.25 * plane.side), 0.0)
        best = int(room.argmax())
        if room[best] > 0.1 * plane.side:
            spots.append((float(at[best, 0]), float(at[best, 1])))
            taken = np.concatenate([taken, at[[best]]])
    return spots


def _on_plane(axes: Axes, plane: _Plane, look: Look) -> None:
    """Draw the iterates' path, the solutions and the least losses."""
    path = plane.iterates
    if len(path):
        axes.plot(path["x"], path["y"], color=INK, lw=0.7, marker="o", ms=1.6, zorder=3)
        for k, marker in ((0, _FIRST), (-1, _LAST)):
            axes.plot(path["x"].iloc[k], path["y"].iloc[k], marker, color=INK, ms=4, zorder=4)
    for row in plane.solutions.to_dict("records"):
        colour = look.of_solution(row["role"])
        style = {"mfc": colour, "mec": INK, "mew": 0.6, "ms": 6}
        if not row["on_plane"]:
            style = {"mfc": "none", "mec": colour, "mew": 1.8, "ms": 8}
        axes.plot(row["x"], row["y"], look.marker(row["role"]), zorder=5 if row["on_plane"] else 4.8, **style)
    for split in SPLITS:
        least = plane.least(split)
        if least:
            style = {"color": INK, "ms": 10, "ls": "", "path_effects": _HALO, **_CROSSES[split]}
            axes.plot(
                *least[:2], zorder=4.5, clip_on=False, **style
            )  # its arms show behind a solution at the same place


def _seen(name: str, data: Data, spec: Spec) -> str:
    told = []
    planes = list(_planes(name, data))
    for label, plane in planes:
        words = []
        rows = plane.points[plane.points["role"] != "iterate"]
        for split in SPLITS:
            least = plane.least(split)
            if least is None:
                words.append(f"no finite {split} loss")
                continue
            away = [
                f"{number(math.hypot(row['x'] - least[0], row['y'] - least[1]))} from {row['role']}"
                for row in plane.solutions.to_dict("records")
            ]
            words.append(f"least {split} loss {number(least[2])} nats, {', '.join(away)}")
        off = [
            f"{row['role']} {number(row['distance'])}"
            for row in rows.to_dict("records")
            if row["distance"] > 1e-3 * plane.side
        ]
        path = plane.iterates
        if len(path):
            off.append(f"iterates {range_of(path['distance'])}")
        if off:
            words.append(f"out of the plane: {', '.join(off)}")
        if len(path):
            shares = [percent(float(path[f"explained_{axis}"].iloc[0])) for axis in ("x", "y")]
            words.append(f"the axes have {shares[0]} and {shares[1]} of the iterates' variance")
        steps = [number(float(np.ptp(values)) / (len(values) - 1)) for values in (plane.x, plane.y)]
        words.append(f"grid step {steps[0]} by {steps[1]}")
        told.append((f"{label} (seed {plane.seed})", "; ".join(words)))
    if not told:
        return ""
    table = data["planes"][data["planes"]["plane"] == name]
    policy = ", ".join(dict.fromkeys(table["bn_policy"]))
    return (
        f"{recipe_note(table)}Batch-norm statistics: {policy}. Distances are in 2-norm of weights, and"
        f" within the plane unless said:{listed(told)}"
    )


KIND = Kind(
    name="plane",
    nothing="Nothing to draw: the plane {} was not measured.",
    draw=_draw,
    seen=_seen,
)
