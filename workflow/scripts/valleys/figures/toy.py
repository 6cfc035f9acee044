"""Figures ``toy-surface`` and ``toy-curves``: the 2-D MLP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from valleys.figures.frames import Data, Spec
from valleys.figures.kind import Kind
from valleys.figures.layout import add_heading, add_legend, label_row, panel_grid
from valleys.figures.style import GREY, PALE_TO_DARK, Look
from valleys.figures.wording import listed, number, percent
from valleys.results.stats import wilson


def _draw_surface(_part: str, data: Data, spec: Spec, look: Look) -> Figure | None:
    surface = data["toy_2d_surface"]
    if surface.empty:
        return None
    wide = surface.pivot(index="bias", columns="weight", values="loss")
    figure, grid = panel_grid(look, 1, 2, 2.7)
    left, right = grid[0]
    z = wide.to_numpy()
    low, high = max(float(np.nanmin(z)), 1e-6), float(np.nanmax(z))
    levels = np.geomspace(low, max(high, low * 1.01), 15)
    z = np.clip(z, levels[0], levels[-1])
    norm = LogNorm(levels[0], levels[-1])
    shades = left.contourf(wide.columns, wide.index, z, levels=levels, norm=norm, cmap=PALE_TO_DARK)
    left.contour(wide.columns, wide.index, z, levels=levels, colors=GREY, linewidths=0.45)
    bar = figure.colorbar(shades, cax=left.inset_axes((1.03, 0, 0.045, 0.9)))  # goes where the panel goes
    bar.set_ticks(levels[::2], labels=[f"{v:.2g}" for v in levels[::2]])
    bar.ax.minorticks_off()
    bar.ax.set_title("loss [nats]", loc="left", fontsize=left.xaxis.get_label().get_fontsize() - 1)
    left.set(xlabel="weight", ylabel="bias", xlim=(wide.columns.min(), wide.columns.max()))
    left.set_ylim(wide.index.min(), wide.index.max())
    left.grid(False)
    left.set_aspect("equal")
    toy, curves = data["toy_2d"], data["toy_2d_curves"]
    handles = []
    for i, row in enumerate(toy[toy["draw"] == 0].to_dict("records")):
        colour, dashes = look.colour(row["recipe"]), ("-", "--")[i % 2]
        curve = curves[(curves["draw"] == 0) & (curves["recipe"] == row["recipe"])].sort_values("offset")
        left.plot(
            row["weight"] + curve["offset"] * row["direction_weight"],
            row["bias"] + curve["offset"] * row["direction_bias"],
            color=colour, lw=1.4, ls=dashes, path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip
        left.plot(row["weight"], row["bias"], "o", color=colour, mec="white", ms=6, zorder=4)
        right.plot(curve["offset"], curve["loss"], color=colour, lw=1.6, ls=dashes)
        right.plot(0, row["loss"], "o", color=colour, mec="white", ms=6, zorder=4)
        handles.append(
            Line2D([], [], color=colour, lw=1.6, ls=dashes, marker="o", ms=5, label=f"recipe {row['recipe']}")
        )
    right.axvline(0, color=GREY, lw=0.8)
    right.set(xlabel="offset l", ylabel="loss [nats]")
    right.set_ylim(bottom=0)
    right.set_box_aspect(1)
    if handles:
        add_legend(figure, handles)
    return figure


def _seen_surface(_part: str, data: Data, spec: Spec) -> str:
    if data["toy_2d_surface"].empty:
        return ""
    surface, toy = data["toy_2d_surface"], data["toy_2d"]
    told = []
    for row in toy[toy["draw"] == 0].to_dict("records"):
        loss, weight, bias, minus, plus = (
            number(row[key]) for key in ("loss", "weight", "bias", "rise_minus", "rise_plus")
        )
        words = (
            f"loss {loss} nats at weight {weight}, bias {bias}; rise {minus} nats at the lower end of"
            f" the line and {plus} at the upper; {_verdict(row)}"
        )
        told.append((f"recipe {row['recipe']}", words))
    lowest = f"The lowest loss on the grid is {number(surface['loss'].min())} nats"
    return f"{lowest}.{listed(told)}"


def _verdict(row: Mapping[str, Any]) -> str:
    words = str(row["status"]).replace("_", " ")
    return f"{words} (c* = {number(row['c_star'])})" if np.isfinite(row["c_star"]) else words


def _draw_curves(_part: str, data: Data, spec: Spec, look: Look) -> Figure | None:
    table = data["toy_2d_curves"]
    if table.empty:
        return None
    recipes = list(dict.fromkeys(table["recipe"]))
    figure, grid = panel_grid(look, 1, len(recipes), 2.6, sharey=True)
    for axes, recipe in zip(grid[0], recipes, strict=True):
        here = table[table["recipe"] == recipe]
        colour = look.colour(recipe)
        for _, curve in here.groupby("draw"):
            axes.plot(curve["offset"], curve["loss"], color=colour, lw=0.5, alpha=0.35)
        mean = here.groupby("offset")["loss"].mean()
        axes.plot(mean.index, mean, color=colour, lw=2.2)
        axes.axvline(0, color=GREY, lw=0.8)
        add_heading(axes, f"recipe {recipe}", f"n = {here['draw'].nunique()}", GREY)
        axes.set_xlabel("offset l")
        axes.set_xlim(here["offset"].min(), here["offset"].max())
    label_row(grid[0], "loss [nats]")
    grid[0, 0].set_ylim(bottom=0)
    handles = [
        Line2D([], [], color=GREY, lw=0.5, label="one data draw"),
        Line2D([], [], color=GREY, lw=2.2, label="mean of the draws"),
    ]
    add_legend(figure, handles)
    return figure


def _seen_curves(_part: str, data: Data, spec: Spec) -> str:
    if data["toy_2d_curves"].empty:
        return ""
    told = []
    for recipe, part in data["toy_2d"].groupby("recipe", sort=False):
        lost = int((part["status"] == "no_minimum").sum())
        part = part[part["status"] != "no_minimum"]
        share = wilson(int((part["status"] == "asymmetric").sum()), len(part), spec["level"])
        symmetric, unsettled = (int((part["status"] == s).sum()) for s in ("symmetric", "not_minimum"))
        loss, minus, plus = (number(part[key].median()) for key in ("loss", "rise_minus", "rise_plus"))
        words = (
            f"{percent(share.estimate)} of {share.n} draws asymmetric at c* ≥ {spec['c']:g}"
            f" ({percent(share.low)} to {percent(share.high)}), {symmetric} symmetric, {unsettled} not at a"
            f" minimum along the line; median loss {loss} nats at the solution, median"
            f" rise {minus} nats at the lower end of the line and {plus} at the upper"
        )
        words += f"; {lost} further draws have no minimum" if lost else ""
        told.append((f"recipe {recipe}", words))
    return f"Verdicts of Definition 1 ({percent(spec['level'])} Wilson intervals):{listed(told)}"


SURFACE = Kind(
    name="toy-surface",
    nothing="Nothing to draw: the 2-D surface has no points.",
    draw=_draw_surface,
    seen=_seen_surface,
)
CURVES = Kind(
    name="toy-curves",
    nothing="Nothing to draw: the 2-D MLP has no curves.",
    draw=_draw_curves,
    seen=_seen_curves,
)
