"""Figures ``curves-<probe>``: rise in loss along directions."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from valleys.figures.frames import DIRECTION, Data, Spec, by_cell, finite_of, ordered
from valleys.figures.kind import Kind
from valleys.figures.layout import (
    add_heading,
    add_legend,
    draw_spread,
    label_columns,
    label_row,
    linear_axis,
    panel_grid,
    split_handles,
    symlog_axis,
)
from valleys.figures.style import GREY, SHADE, SPLITS, Look
from valleys.figures.wording import LISTED, listed, number, range_of, recipe_note
from valleys.results import measures

EXPLODES = 1000.0  # nats: rises beyond are drawn on a logarithmic axis, where the flat side shows


def _rises(probe: str, data: Data) -> pd.DataFrame:
    """Return the curves of a probe with offset / R as ``x``, the rises ``train`` and ``test``, and ``least``.

    That is the place of the train curve's own least point, as a share of R; NaN where it has none.
    """
    curves = measures.on_all_points(data["curves"][data["curves"]["probe"] == probe])
    radii = data["directions"].loc[data["directions"]["probe"] == probe, [*DIRECTION, "radius"]]
    merged = curves.merge(radii, on=DIRECTION, how="inner", validate="many_to_one")
    merged["x"] = (merged["offset"] / merged["radius"]).round(6)
    zero = merged.loc[merged["x"] == 0, [*DIRECTION, "train_loss", "test_loss"]]
    zero = zero.rename(columns={"train_loss": "train_zero", "test_loss": "test_zero"})
    merged = merged.merge(zero, on=DIRECTION, how="inner", validate="many_to_one")
    own = data["asymmetry"][[*DIRECTION, "minimum"]]
    merged = merged.merge(own, on=DIRECTION, how="left", validate="many_to_one")
    merged["least"] = merged["minimum"] / merged["radius"]
    for split in SPLITS:
        merged[split] = merged[f"{split}_loss"] - merged[f"{split}_zero"]
    return merged


def _draw(probe: str, data: Data, spec: Spec, look: Look) -> Figure | None:
    table = _rises(probe, data)
    if table.empty:
        return None
    solutions = ordered(table["solution"])
    cells = list(by_cell(table))
    figure, grid = panel_grid(look, len(cells), len(solutions), 2.3, sharex=True, sharey="row")
    for (label, _, part), row in zip(cells, grid, strict=True):
        tops, bottoms = [], []
        for axes, solution in zip(row, solutions, strict=True):
            here = part[part["solution"] == solution]
            for split, dashes in SPLITS.items():
                values = here.loc[np.isfinite(here[split]), ["x", split]].groupby("x")[split]
                if not len(values):
                    continue
                mean, colour = values.mean(), look.colour(split)
                low, high = draw_spread(axes, values, mean, colour, dashes, filled=split == "train")
                # The mean may be carried off by one direction; the band says what is usual.
                tops += [float(high.max()), min(float(mean.max()), 3 * float(high.max()))]
                bottoms += [float(low.min()), float(mean.min())]
            axes.axvline(0, color=GREY, lw=0.8)
            n = here.drop_duplicates(DIRECTION)
            if len(least := finite_of(n["least"])):
                axes.axvline(float(np.median(least)), color=GREY, lw=0.8, ls=":")
            about = f"at {solution} (n = {len(n)})"
            add_heading(axes, label, about, GREY, again=axes is not row[0])
        if tops and max(tops) > min(bottoms):
            room = 0.06 * (max(tops) - min(bottoms))
            row[0].set_ylim(min(bottoms) - room, max(tops) + room)
        row[0].set_xlim(-1, 1)
        row[0].set_xticks([-1, -0.5, 0, 0.5, 1])
        label_row(row, "rise in loss [nats]")
        if tops and max(tops) > EXPLODES:
            symlog_axis(row[0], min(bottoms), max(tops))
        else:
            linear_axis(row[0])
    label_columns(grid, "offset l / R")
    train, test = split_handles(look)
    shade = Patch(fc=look.colour("train"), alpha=SHADE, label="middle 80 %, train")
    edges = Line2D([], [], color=look.colour("test"), lw=0.6, ls=SPLITS["test"], label="middle 80 %, test")
    least = Line2D([], [], color=GREY, lw=0.8, ls=":", label="least point (train)")
    add_legend(figure, [train, test, shade, edges, least])
    return figure


def _seen(probe: str, data: Data, spec: Spec) -> str:
    table = data["asymmetry"][data["asymmetry"]["probe"] == probe]
    if table.empty or _rises(probe, data).empty:
        return ""
    told = []
    for label, _, part in by_cell(table):
        for solution in ordered(part["solution"]):
            here = part[part["solution"] == solution]
            asymmetric = int((here["status"] == "asymmetric").sum())
            minus, plus = number(here["rise_minus"].median()), number(here["rise_plus"].median())
            words = f"{minus} nats at −R and {plus} at +R, asymmetric {asymmetric} of {len(here)}"
            told.append((f"{label} at {solution}", words))
    about = data["directions"][data["directions"]["probe"] == probe]
    radius = f"R is {range_of(about['radius'])} in 2-norm of weights"
    capped = int(about["radius_status"].isin(["capped", "jump"]).sum())
    if capped:
        radius += f" ({capped} of {len(about)} curves do not reach the target rise)"
    policy = ", ".join(dict.fromkeys(about["bn_policy"]))
    kind = ", ".join(dict.fromkeys(about["kind"] + ", parameter group " + about["group"]))
    return (
        f"{recipe_note(table)}Directions: {kind}; batch-norm statistics: {policy}; {radius}."
        f" Median rise in train loss:{listed(told, 2 * LISTED)}"
    )


KIND = Kind(
    name="curves",
    nothing="Nothing to draw: no curve was measured for the probe {}.",
    draw=_draw,
    seen=_seen,
)
