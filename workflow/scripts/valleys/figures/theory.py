"""Figures ``theory-average`` and ``theory-gain``: the simulations beside what is proved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats as sps

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
    ratio_axis,
)
from valleys.figures.style import GREY, INK, Look
from valleys.figures.wording import listed, number, range_of


@dataclass(frozen=True)
class _Noise:
    """One noise's look: its colour is that of the level, its marker and dashes are those of the kind."""

    kind: str
    level: float
    colour: Any
    which: int
    beside: float
    """Factor on c, so that points of several noises stand side by side."""

    @property
    def marker(self) -> str:
        return "os"[self.which]

    @property
    def dashes(self) -> str:
        return ("-", "--")[self.which]

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        return table[(table["noise"] == self.kind) & (table["level"] == self.level)].sort_values("c")


def _draw_average(_part: str, data: Data, spec: Spec, look: Look) -> Figure | None:
    table = data["theory_average"]
    if table.empty:
        return None
    shapes, rates = list(dict.fromkeys(table["shape"])), list(dict.fromkeys(table["lr"]))
    noises = list(dict.fromkeys(zip(table["noise"], table["level"], strict=True)))
    kinds, levels = (list(dict.fromkeys(column)) for column in zip(*noises, strict=True))
    figure, grid = panel_grid(look, len(rates) + 1, len(shapes), 2.0, sharex=True)
    ratios = sorted(set(table["c"]))
    z = sps.norm.ppf((1 + spec["level"]) / 2)
    shown = [
        _Noise(
            kind=kind,
            level=level,
            colour=look.nth(levels.index(level)),
            which=kinds.index(kind),
            beside=1.05 ** (i - (len(noises) - 1) / 2),
        )
        for i, (kind, level) in enumerate(noises)
    ]
    for row, lr in zip(grid, rates, strict=False):
        for axes, shape in zip(row, shapes, strict=True):
            here = table[(table["shape"] == shape) & (table["lr"] == lr) & (table["c"] > 1)]
            _mean_panel(axes, here, shown, z)
            add_heading(axes, shape, f"step size {lr:g}", GREY, again=lr != rates[0])
        label_row(row, "mean of the average [x]")
    for axes, shape in zip(grid[-1], shapes, strict=True):
        _loss_panel(axes, table[(table["shape"] == shape) & (table["lr"] == max(rates))], shown)
        add_heading(axes, shape, f"step size {max(rates):g}", GREY, again=True)
        ratio_axis(axes, ratios)
    label_columns(grid, "slope ratio c")
    label_row(grid[-1], "train loss / of iterates")
    noise = [
        Line2D([], [], color=look.nth(i), lw=3, label=f"noise up to {level:g}")
        for i, level in enumerate(levels)
    ]
    means = [
        Line2D([], [], color=GREY, marker="os"[i], ls=("-", "--")[i], ms=4, lw=1.2, label=f"{kind}; bound")
        for i, kind in enumerate(kinds)
    ]
    means.append(
        Line2D([], [], color=INK, marker="o", ls="", ms=7, mfc="none", mew=0.9, label="inside Theorem 2")
    )
    losses = [
        Line2D([], [], color=GREY, marker="o", ls="", ms=3, label="at the average"),
        Line2D([], [], color=GREY, marker="o", ls="", ms=6, mfc="none", label="at the mean of averages"),
    ]
    add_legend(figure, [*noise, *means, *losses])
    add_own_legend(grid[:-1].flat, [*noise, *means])
    add_own_legend(grid[-1], [*noise, *losses])
    return figure


def _mean_panel(axes: Axes, here: pd.DataFrame, shown: Sequence[_Noise], z: float) -> None:
    """Draw where the average lies and the bound for it; `z` standard errors to either side."""
    for noise in shown:
        part = noise.rows(here)
        seen, bound = part[part["mean"] > 0], part[part["bound"] > 0]
        axes.errorbar(
            seen["c"] * noise.beside, seen["mean"], yerr=z * seen["mean_se"], color=noise.colour,
            fmt=noise.marker, ms=4, lw=1,
        )  # fmt: skip
        inside = seen[seen["inside"].astype(bool)]
        x = inside["c"] * noise.beside
        axes.plot(x, inside["mean"], noise.marker, ms=7, mfc="none", mec=INK, mew=0.9, zorder=4)
        style = {"ls": noise.dashes, "lw": 1.2, "marker": "_", "ms": 5}
        axes.plot(bound["c"] * noise.beside, bound["bound"], color=noise.colour, **style)
    values = finite_of([*here["mean"], *here["bound"]])
    if (values > 0).any():
        log_axis(axes, values[values > 0].min() / 1.2, 1.2 * values.max())


def _loss_panel(axes: Axes, here: pd.DataFrame, shown: Sequence[_Noise]) -> None:
    """Draw the train loss at the average and at the mean of averages, as shares of the iterates'."""
    for noise in shown:
        part = noise.rows(here)
        x, style = part["c"] * noise.beside, {"color": noise.colour, "marker": noise.marker, "ls": ""}
        axes.plot(x, part["average_loss"] / part["iterate_loss"], ms=3, **style)
        axes.plot(x, part["loss_kept"], ms=6, mfc="none", mew=0.8, **style)
    axes.set_ylim(-0.04, 1)
    linear_axis(axes)


def _seen_average(_part: str, data: Data, spec: Spec) -> str:
    table = data["theory_average"]
    if table.empty:
        return ""
    told = []
    for shape, rows in table.groupby("shape", sort=False):
        uneven, even = rows[rows["c"] > 1], rows[rows["c"] == 1]
        words = []
        if len(uneven):
            flat = int((uneven["mean"] > 0).sum())
            words.append(f"the mean is on the flat side in {flat} of {len(uneven)} rows with c > 1")
            inside = uneven[uneven["inside"].astype(bool)]
            if len(inside):
                words.append(
                    f"and in {int((inside['mean'] > 0).sum())} of the {len(inside)} inside Theorem 2"
                )
            else:
                words.append("none is inside Theorem 2")
            bound = uneven[uneven["bound"] > 0]
            if len(bound):
                ratio = range_of(bound["mean"] / bound["bound"])
                words.append(f"{ratio} times the bound in the {len(bound)} where this is positive")
            else:
                words.append("no bound is positive")
            words.append(f"there {range_of(uneven['loss_kept'])} of the iterates' training loss stays")
        if len(even):
            far = range_of(even["mean"].abs() / even["mean_se"])
            words.append(f"with c = 1 the mean is {far} standard errors from 0")
            left = range_of(even["average_loss"] / even["iterate_loss"])
            words.append(f"the average has {left} of the iterates' loss")
        told.append((str(shape), "; ".join(words)))
    about = table.iloc[0]
    return (
        f"{about['chains']} chains a row, {about['iterates']} iterates averaged after {about['burn_in']}"
        f" others. {table['c'].gt(1).sum()} of {len(table)} rows are asymmetric.{listed(told)}"
    )


def _draw_gain(_part: str, data: Data, spec: Spec, look: Look) -> Figure | None:
    table = data["theory_gain"]
    if table.empty:
        return None
    scale = table["scale"].max()
    table = table[table["scale"] == scale]
    shapes, shifts = list(dict.fromkeys(table["shape"])), list(dict.fromkeys(table["shift"]))
    ratios = sorted(set(table["c"]))
    figure, grid = panel_grid(look, len(shifts), len(shapes), 2.3, sharex=True)
    z = sps.norm.ppf((1 + spec["level"]) / 2)
    for row, shift in zip(grid, shifts, strict=True):
        for axes, shape in zip(row, shapes, strict=True):
            here = table[(table["shape"] == shape) & (table["shift"] == shift)]
            axes.axhline(0, color=GREY, lw=0.8)
            for i, c in enumerate(ratios):
                part = here[here["c"] == c].sort_values("bias")
                x = part["bias"] / scale
                colour = look.nth(i)
                axes.errorbar(x, part["gain"], yerr=z * part["gain_se"], color=colour, fmt="o", ms=3.5, lw=1)
                axes.plot(x, part["exact"], color=colour, lw=1.2)
                axes.plot(x, part["bound"], color=colour, lw=0.9, ls="--")
                if c > 1 and len(part):
                    axes.plot(part["limit"].iloc[0] / scale, 0, "|", color=colour, ms=11, mew=1.6, zorder=4)
            values = finite_of([*here["gain"], *here["exact"]])
            if len(values) and values.max() > 0:  # losses may be many times the gains
                axes.set_ylim(
                    max(values.min(), -1.2 * values.max()) - 0.05 * values.max(), 1.1 * values.max()
                )
            linear_axis(axes)
            add_heading(axes, shape, f"shift {shift}", GREY, again=shift != shifts[0])
        label_row(row, "expected gain [loss]")
    label_columns(grid, "bias / d")
    handles = [Line2D([], [], color=look.nth(i), lw=3, label=f"c = {c:g}") for i, c in enumerate(ratios)]
    handles += [
        Line2D([], [], color=GREY, marker="o", ms=3.5, ls="", label="simulated"),
        Line2D([], [], color=GREY, lw=1.2, label="closed form"),
        Line2D([], [], color=GREY, lw=0.9, ls="--", label="bound"),
        Line2D([], [], color=GREY, marker="|", ms=11, mew=1.6, ls="", label="limit"),
    ]
    add_legend(figure, handles)
    return figure


def _seen_gain(_part: str, data: Data, spec: Spec) -> str:
    table = data["theory_gain"]
    if table.empty:
        return ""
    told = []
    for shape, rows in table.groupby("shape", sort=False):
        uneven, even = rows[rows["c"] > 1], rows[rows["c"] == 1]
        near, far = (
            uneven[side] for side in (uneven["bias"] < uneven["limit"], uneven["bias"] >= uneven["limit"])
        )
        words = [
            f"a gain for {int((near['gain'] > 0).sum())} of {len(near)} biases below the limit and for"
            f" {int((far['gain'] > 0).sum())} of {len(far)} others"
        ]
        inside = uneven[uneven["inside"].astype(bool)]
        if len(inside):
            words.append(f"for {int((inside['gain'] > 0).sum())} of {len(inside)} inside Theorem 1")
        if len(even):
            words.append(f"for {int((even['gain'] > 0).sum())} of {len(even)} where c = 1")
        exact = rows[np.isfinite(rows["exact"])]
        if len(exact):
            off = (exact["gain"] - exact["exact"]).abs() / exact["gain_se"]
            words.append(f"at most {number(off.max())} standard errors from the closed form")
        told.append((str(shape), "; ".join(words)))
    return (
        f"{table['draws'].iloc[0]} shifts a row; drawn for d = {number(table['scale'].max())}, told of all"
        f" {table['scale'].nunique()} values of d.{listed(told)}"
    )


AVERAGE = Kind(
    name="theory-average",
    nothing="Nothing to draw: no chain was simulated.",
    draw=_draw_average,
    seen=_seen_average,
)
GAIN = Kind(
    name="theory-gain",
    nothing="Nothing to draw: no gain was simulated.",
    draw=_draw_gain,
    seen=_seen_gain,
)
