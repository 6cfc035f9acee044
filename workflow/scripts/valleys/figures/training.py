"""Figure ``training``: loss and accuracy by epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from valleys.figures.frames import Data, Spec, by_cell, finite_of
from valleys.figures.kind import Kind
from valleys.figures.layout import (
    STEPS,
    add_heading,
    add_legend,
    log_axis,
    panel_grid,
    split_handles,
    without_accuracy,
)
from valleys.figures.style import GREY, INK, PALE, SPLITS, Look
from valleys.figures.wording import counted, listed, mean_of, number, percent, recipe_note

_SCHEDULE = ("sgd", "swa")
_COOLED = "cooldown"


def _draw(_part: str, data: Data, spec: Spec, look: Look) -> Figure | None:
    table = data["training"]
    table = table[table["phase"].isin((*_SCHEDULE, _COOLED))]
    if table.empty:
        return None
    cells = list(by_cell(table))
    figure, grid = panel_grid(look, len(cells), 2, 2.3)
    for (label, recipe, part), row in zip(cells, grid, strict=True):
        cooled = part["phase"] == _COOLED
        for axes, measure, scale in ((row[0], "loss", 1.0), (row[1], "accuracy", 100.0)):
            for split in SPLITS:
                column = f"{split}_{measure}"
                known = np.isfinite(part[column].astype(float))
                for kept, style in ((part[known & ~cooled], SPLITS[split]), (part[known & cooled], ":")):
                    for _, run in kept.groupby("seed"):
                        axes.plot(
                            run["epoch"], scale * run[column], color=look.colour(split), lw=0.5, alpha=0.4
                        )
                    mean = kept.groupby("epoch")[column].mean()
                    axes.plot(
                        mean.index, scale * mean, color=look.colour(split), lw=1.6, ls=style,
                        marker="o" if len(mean) < 3 else None, ms=3,
                    )  # fmt: skip
            axes.set_xlim(0, max(float(part["epoch"].max()), 1))
            last = float(part.loc[~cooled, "epoch"].max())
            start = _swa_start(recipe, part, spec)
            if start is not None and start < last:
                axes.axvspan(start, last, color=PALE, alpha=0.45, lw=0, zorder=0)
                axes.axvline(start, color=GREY, lw=0.8)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=STEPS))
            axes.set_xlabel("epoch")
            add_heading(axes, label, again=axes is not row[0])
        losses = finite_of(part[["train_loss", "test_loss"]])
        row[0].set_ylabel("loss [nats]")
        if len(losses) and losses.min() > 0 and losses.max() / losses.min() > 3:
            log_axis(row[0], losses.min(), losses.max())
        if not len(finite_of(part[["train_accuracy", "test_accuracy"]])):
            without_accuracy(row[1])
            continue
        row[1].set_ylabel("accuracy [%]")
        row[1].set_ylim(*_accuracy_limits(part))
    handles = [*split_handles(look, "train (as trained)", "test"), Patch(fc=PALE, label="averaged by SWA")]
    if (table["phase"] == _COOLED).any():
        handles.append(Line2D([], [], color=INK, lw=1.6, ls=":", label="rate cooled down (sgd)"))
    add_legend(figure, handles)
    return figure


def _swa_start(recipe: str, part: pd.DataFrame, spec: Spec) -> float | None:
    start = spec.get("swa_start", {}).get(recipe)
    if start is not None:
        return float(start)
    epochs = part.loc[part["phase"] == "swa", "epoch"]
    return float(epochs.min()) - 1 if len(epochs) else None


def _accuracy_limits(part: pd.DataFrame) -> tuple[float, float]:
    low = 100 * finite_of(part[["train_accuracy", "test_accuracy"]]).min(initial=1.0)
    return max(0.0, low - 3), 101.0


def _seen(_part: str, data: Data, spec: Spec) -> str:
    table = data["training"][data["training"]["phase"].isin((*_SCHEDULE, _COOLED))]
    if table.empty:
        return ""
    told = []
    for label, _, part in by_cell(table):
        cooled = part["phase"] == _COOLED
        words = _at_the_end(part[~cooled])
        if cooled.any():
            words += f"; cooled down {_at_the_end(part[cooled])}"
        told.append((label, f"{words} ({counted(part['seed'].nunique(), 'seed')})"))
    diverged = int((~np.isfinite(table["train_loss"].astype(float))).sum())
    left_out = f"{counted(diverged, 'epoch')} without a finite train loss left out. " if diverged else ""
    return f"{recipe_note(table)}{left_out}At the last epoch, mean over seeds:{listed(told)}"


def _at_the_end(part: pd.DataFrame) -> str:
    ends = part.loc[part.groupby("seed")["epoch"].idxmax()]
    tests = part[np.isfinite(part["test_loss"].astype(float))]
    tests = tests.loc[tests.groupby("seed")["epoch"].idxmax()]
    words = f"train loss {number(mean_of(ends['train_loss']))} nats"
    if len(tests):
        words += f", test loss {number(mean_of(tests['test_loss']))} nats"
        if tests["test_accuracy"].notna().any():
            words += f", test accuracy {percent(mean_of(tests['test_accuracy']))}"
    return words


KIND = Kind(
    name="training",
    nothing="Nothing to draw: the training table has no rows.",
    draw=_draw,
    seen=_seen,
)
