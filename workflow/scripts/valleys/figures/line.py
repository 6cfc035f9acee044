"""Figures ``line-<line>``: loss on a line or trained path between two solutions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import Bbox, ScaledTranslation, TransformedBbox
from numpy.typing import NDArray

from valleys.figures.frames import Data, Floats, Spec, by_cell, finite_of, mean_band
from valleys.figures.kind import Kind
from valleys.figures.layout import (
    add_heading,
    add_legend,
    linear_axis,
    log_axis,
    panel_grid,
    split_handles,
    without_accuracy,
)
from valleys.figures.style import GREY, PALE, SHADE, SPLITS, Look
from valleys.figures.wording import counted, interval_of, listed, percent, recipe_note
from valleys.results import measures


@dataclass(frozen=True)
class _Line:
    """One cell's line: positions t, and per measure an array (seeds, points).

    ``where`` says in a word or two where each end is (recipe, seed), or nothing for both ends in one cell.
    """

    t: Floats
    start: str
    stop: str
    values: Mapping[str, Floats]
    rows: pd.DataFrame
    where: tuple[str, str] = ("", "")

    @property
    def seeds(self) -> int:
        return len(self.values["train_loss"])

    def change(self, split: str) -> Floats:
        """Return loss minus loss at t = 0, within each seed."""
        losses = self.values[f"{split}_loss"]
        return losses - losses[:, [int(np.abs(self.t).argmin())]]


def _lines(name: str, data: Data) -> Iterator[tuple[str, _Line]]:
    table = data["interpolation"][data["interpolation"]["line"] == name]
    for label, _, part in by_cell(table):
        yield label, _as_line(part)


def _as_line(rows: pd.DataFrame) -> _Line:
    """Return one line of one cell, all seeds, from its rows of the ``interpolation`` table."""
    part = rows.assign(at=rows["t"].round(6))
    wide = {m: part.pivot(index="seed", columns="at", values=m) for m in (
        "train_loss", "test_loss", "train_accuracy", "test_accuracy",
    )}  # fmt: skip
    values = {m: np.where(np.isfinite(w.to_numpy()), w.to_numpy(), np.nan) for m, w in wide.items()}
    t = wide["train_loss"].columns.to_numpy(dtype=np.float64)
    first = rows.iloc[0]
    return _Line(t, first["start"], first["stop"], values, rows, _where(rows))


def _where(rows: pd.DataFrame) -> tuple[str, str]:
    """Say in which recipe and at which seed the two ends are, as far as they differ."""
    first = rows.iloc[0]
    pairs = rows.drop_duplicates("seed")[["seed", "stop_seed"]]
    start, stop = [], []
    if first["stop_recipe"] != first["recipe"]:
        start, stop = [first["recipe"]], [first["stop_recipe"]]
    if (pairs["seed"] != pairs["stop_seed"]).any():
        one = len(pairs) == 1
        start.append(f"seed {first['seed']}" if one else "a seed")
        stop.append(f"seed {first['stop_seed']}" if one else "the next seed")
    return ", ".join(start), ", ".join(stop)


def _draw(name: str, data: Data, spec: Spec, look: Look) -> Figure | None:
    lines = list(_lines(name, data))
    if not lines:
        return None
    figure, grid = panel_grid(look, len(lines), 3, 2.35)
    level, size = spec["level"], float(look.style["font_size"])
    compared = False
    for (label, line), row in zip(lines, grid, strict=True):
        straight = _straight(line, data)
        compared |= straight is not None
        _loss_panel(row[0], line, straight, level, look)
        _change_panel(row[1], line, level, look)
        _error_panel(row[2], line, level, look)
        for axes in row:
            axes.set_xlabel(f"position t on the {_word(line)}")
            pad = size + 8 + (1.3 * size if any(line.where) else 0)
            add_heading(axes, label, pad=pad, again=axes is not row[0])
    handles = [*split_handles(look)]
    if any(line.seeds > 1 for _, line in lines):
        handles.append(Patch(fc=PALE, label=f"{percent(level)} interval over seeds"))
    handles.append(Line2D([], [], color=GREY, marker=7, ls="", ms=6, label="lowest point"))
    if compared:
        handles.append(Line2D([], [], color=GREY, lw=0.8, ls=":", label="straight line"))
    add_legend(figure, handles)
    return figure


def _loss_panel(axes: Axes, line: _Line, straight: _Line | None, level: float, look: Look) -> None:
    """Draw the loss, with that on the straight line between the same ends where it was measured.

    Beside the loss only: in the other panels it would flatten the path.
    """
    bands = {split: mean_band(line.values[f"{split}_loss"], level) for split in SPLITS}
    _splits(axes, line, bands, look, lowest=True)
    if straight is not None:
        for split in SPLITS:
            mean = mean_band(straight.values[f"{split}_loss"], level)[0]
            axes.plot(straight.t, mean, color=look.colour(split), lw=0.8, ls=":")
            mean = np.interp(line.t, straight.t, mean)
            bands[f"straight {split}"] = (mean, mean, mean)  # for the axis
    means = finite_of([mean[_inner(line.t)] for mean, _, _ in bands.values()])
    if len(means) and means.min() > 0 and means.max() / means.min() > 20:
        whole = finite_of([mean for mean, _, _ in bands.values()])
        log_axis(axes, max(whole.min(), means.min() / 10), min(whole.max(), 10 * means.max()))
    else:
        linear_axis(axes)
        _middle(axes, line.t, bands, reach=2, floor=0.0)
    axes.set_ylabel("loss [nats]")


def _change_panel(axes: Axes, line: _Line, level: float, look: Look) -> None:
    """Draw the change of the loss since the start of the line."""
    bands = {split: mean_band(line.change(split), level) for split in SPLITS}
    _splits(axes, line, bands, look, lowest=True)
    _middle(axes, line.t, bands, reach=2)
    linear_axis(axes)
    axes.axhline(0, color=GREY, lw=0.6)
    axes.set_ylabel(f"change since {'t = 0' if any(line.where) else line.start} [nats]")


def _error_panel(axes: Axes, line: _Line, level: float, look: Look) -> None:
    """Draw the classification error."""
    if not len(finite_of([line.values[f"{split}_accuracy"] for split in SPLITS])):
        without_accuracy(axes)
        return
    bands = {split: mean_band(100 * (1 - line.values[f"{split}_accuracy"]), level) for split in SPLITS}
    _splits(axes, line, bands, look, lowest=False)
    linear_axis(axes)
    highest = finite_of(list(bands.values())).max(initial=1e-3)
    axes.set_ylim(0, min(1.06 * highest, 101))
    axes.set_ylabel("error [%]")


def _word(line: _Line) -> str:
    return "line" if line.rows["path"].iloc[0] == "linear" else "path"


def _straight(line: _Line, data: Data) -> _Line | None:
    """Return, for a path with trained bends, the straight line between the same ends, t from 0 to 1."""
    if line.rows["path"].iloc[0] == "linear":
        return None
    twin = measures.straight_twin(data["interpolation"], line.rows)
    twin = twin[twin["t"].between(-1e-9, 1 + 1e-9)]
    return _as_line(twin) if len(twin) else None


def _splits(axes: Axes, line: _Line, bands: Mapping[str, Any], look: Look, lowest: bool) -> None:
    """Draw mean and band of train and test, a triangle above the lowest point of each mean, and both ends."""
    t = line.t
    for split, (mean, low, high) in bands.items():
        colour = look.colour(split)
        axes.fill_between(t, low, high, color=colour, alpha=SHADE, lw=0)
        axes.plot(t, mean, color=colour, ls=SPLITS[split], lw=1.6)
        if lowest and np.isfinite(mean).any():
            k = int(np.nanargmin(mean))
            marker, side = (6, -1) if split == "train" else (7, 1)  # carets with their tip at the point
            raised = axes.transData + ScaledTranslation(0, side * 2 / 72, axes.figure.dpi_scale_trans)
            (caret,) = axes.plot(
                t[k], mean[k], marker=marker, ms=6, color=colour, ls="", transform=raised, zorder=4
            )
            # Whole where the lowest point is an end of the line.
            caret.set_clip_box(TransformedBbox(Bbox([[-0.1, -0.05], [1.1, 1]]), axes.transAxes))
    axes.set_xlim(t.min(), t.max())
    _ends(axes, line)


def _ends(axes: Axes, line: _Line) -> None:
    """Mark both solutions by vertical lines with their names above the panel, and where they are."""
    # A name is on the far side of its mark where the line goes on there.
    for t, name, where, side, beyond in (
        (0.0, line.start, line.where[0], "right" if line.t.min() < 0 else "left", line.t.min() < 0),
        (1.0, line.stop, line.where[1], "left" if line.t.max() > 1 else "right", line.t.max() > 1),
    ):
        axes.axvline(t, color=GREY, lw=0.8)
        shift = (-2 if side == "right" else 2) if beyond else 0
        words = f"{name}\n{_short(where)}" if any(line.where) else name
        axes.annotate(
            words, (t, 1), xycoords=("data", "axes fraction"), xytext=(shift, 2),
            textcoords="offset points", ha=side, va="bottom", color=GREY, linespacing=1.1,
            fontsize=axes.xaxis.get_label().get_fontsize() - 1,
        )  # fmt: skip


def _short(words: str, most: int = 18) -> str:
    """Cut words that would run into the next label; the caption has them in full."""
    return words if len(words) <= most else f"{words[: most - 1]}…"


def _inner(t: Floats) -> NDArray[np.bool_]:
    """Return which positions lie between the two solutions or close by."""
    return (t >= -0.5) & (t <= 1.5)


def _middle(axes: Axes, t: Floats, bands: Mapping[str, Any], reach: float, floor: float = -np.inf) -> None:
    """Cut the y axis at what is seen around the solutions, extended `reach` times, not below `floor`."""
    inner = _inner(t)
    means = finite_of([mean for mean, _, _ in bands.values()])
    centre = finite_of([[edge[inner] for edge in band] for band in bands.values()])
    if not len(centre):
        return
    low, high = centre.min(), centre.max()
    span = max(high - low, 1e-12)
    top = min(max(means.max(), high), high + reach * span)
    bottom = max(min(means.min(), low), low - reach * span)
    room = 0.06 * max(top - bottom, span)
    axes.set_ylim(max(bottom - room, floor), top + room)


def _seen(name: str, data: Data, spec: Spec) -> str:
    told, level = [], spec["level"]
    lines = list(_lines(name, data))
    for label, line in lines:
        lowest = {split: _lowest(line, split) for split in SPLITS}
        words = ", ".join(f"{split} at t = {interval_of(lowest[split], level)}" for split in SPLITS)
        stop = int(np.abs(line.t - 1).argmin())
        for split in SPLITS:
            change = finite_of(line.change(split)[:, stop])
            first, last = ("t = 0", "t = 1") if any(line.where) else (line.start, line.stop)
            words += f"; {split} loss at {last} − at {first}: {interval_of(change, level, sign=True)} nats"
        words += f"; barrier: {_barrier(line, level)}"
        straight = _straight(line, data)
        if straight is not None:
            words += f"; on the straight line {_barrier(straight, level)}"
        told.append((label, f"{words} ({counted(line.seeds, 'seed')})"))
    if not told:
        return ""
    table = data["interpolation"][data["interpolation"]["line"] == name]
    (first, last), at = lines[0][1].where, " of "
    ends = f"Position t = 0 is {lines[0][1].start}{first and at}{first}"
    ends += f", t = 1 is {lines[0][1].stop}{last and at}{last}"
    policy = ", ".join(dict.fromkeys(table["bn_policy"]))
    return (
        f"{recipe_note(table)}{ends}; batch-norm statistics: {policy}. Lowest loss, mean over seeds"
        f" ({percent(level)} t interval):{listed(told)}"
    )


def _barrier(line: _Line, level: float) -> str:
    """Write the heights of a line's barriers, mean over seeds with its interval."""
    found = measures.barriers(line.rows)
    parts = [f"{split} {interval_of(found[split], level, limits=(0, np.inf))}" for split in SPLITS]
    return f"{', '.join(parts)} nats"


def _lowest(line: _Line, split: str) -> Floats:
    """Return each seed's t of lowest loss, of those with a finite loss anywhere."""
    losses = line.values[f"{split}_loss"]
    losses = losses[np.isfinite(losses).any(axis=1)]
    return line.t[np.nanargmin(losses, axis=1)] if len(losses) else np.empty(0)


KIND = Kind(
    name="line",
    nothing="Nothing to draw: the line {} was not measured.",
    draw=_draw,
    seen=_seen,
)
