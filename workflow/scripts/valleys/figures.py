"""Figures and their captions, drawn from the tables alone.

`draw` makes a figure by name; `caption` says in words what it plots and what is seen in it, with numbers
taken from the same tables. Rows of panels are data set / model / recipe, so a larger grid makes a longer
figure and not a denser one. pyplot is not used: nothing global is changed, and the same tables give the same
bytes.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray
from scipy import stats as sps

from valleys import files, measures, outcomes
from valleys.errors import ValleysError
from valleys.stats import Interval, mean_interval, wilson
from valleys.studies import factor_name

Data = Mapping[str, pd.DataFrame]
Spec = Mapping[str, Any]
Floats = NDArray[np.float64]

STYLE = {"dpi": 150, "width": 7.0, "palette": "petroff10", "font_size": 9}
CELL = ["dataset", "model", "recipe"]
DIRECTION = [*CELL, "seed", "solution", "probe", "k"]
SOLUTIONS = ("sgd", "swa", "descent")

_MARKERS = {"sgd": "o", "swa": "s", "descent": "D"}
_SHADE = 0.2
_GREY, _PALE, _INK = "#5f6368", "#d9dce0", "#202124"
# Which entry of a palette each thing takes: pairs that meet in one panel differ in hue and in lightness.
_ROLES = {
    "petroff10": {
        "train": 0,
        "test": 6,
        "sgd": 6,
        "swa": 4,
        "descent": 5,
        "paper": 6,
        "converged": 0,
        "fixed": 6,
        "free": 0,
    },
    "tableau-colorblind10": {
        "train": 0,
        "test": 5,
        "sgd": 1,
        "swa": 0,
        "descent": 3,
        "paper": 5,
        "converged": 0,
        "fixed": 5,
        "free": 0,
    },
    "Dark2": {
        "train": 0,
        "test": 1,
        "sgd": 1,
        "swa": 2,
        "descent": 3,
        "paper": 1,
        "converged": 2,
        "fixed": 1,
        "free": 2,
    },
}
_APART = {"petroff10": (0, 1, 6, 2, 4, 5, 7, 8, 9, 3), "tableau-colorblind10": (0, 1, 5, 3, 2, 6, 4)}
_SPLITS = {"train": "-", "test": "--"}
_MAX_PIXELS = 60_000  # Agg's limit is 2**16 a side
_STEPS = [1, 2, 5, 10]  # between ticks
_LISTED = 6  # findings told one by one in a caption; more are told as a range

CAPTIONS = {
    "training": (
        "Training: loss (logarithmic) and accuracy by epoch. Thin lines are seeds, thick lines their mean. "
        "Train values are those of the epoch as trained (augmented images, batch statistics); test values "
        "use the running statistics. The shaded epochs are those whose iterates SWA averages."
    ),
    "prevalence": (
        "Prevalence: share of probed directions that are asymmetric by Definition 1 (left), share whose "
        "rises at -R and R alone differ that much (middle), and share along which the solution is not a "
        "minimum, so that the definition cannot hold (right). Bars are Wilson "
        "intervals that take directions for independent; figures beside each panel are directions found "
        "among directions probed, all seeds together. Probes of kind sign have a figure of their own."
    ),
    "sensitivity": (
        "Sensitivity: share of directions at the sgd solution that are asymmetric by Definition 1, against "
        "the level c, for several admissions of windows (zeta, r): zeta up to zeta_max R, r − zeta at least "
        "min_span R. Bars are Wilson intervals that take directions for independent. Dashed: controls, whose "
        "entries are not U(0, 1). The dotted line marks the experiment's own setting. Where a share follows "
        "c and the windows, the verdict is about these; where it stays, about the valley."
    ),
    "curves": (
        "Curves: rise in loss along a direction, by offset l in units of the curve's radius R. Thick lines "
        "are means over directions and seeds; shade and thin lines enclose the middle 80 % of them. "
        "Directions keep the sign they were drawn with. The vertical axis is cut where a few curves leave "
        "the rest."
    ),
    "line": (
        "Line between two solutions: loss (left; logarithmic if it spans a factor of 20 around them), "
        "change of loss since the start of the line, taken within each seed (middle), and classification "
        "error (right). Lines are means over seeds, bands their t intervals; triangles mark the lowest point "
        "of each mean. Loss axes are cut so that the neighbourhood of the two solutions can be read. On a "
        "path with trained bends, dotted lines at the left are the straight line between the same ends, if "
        "that was measured. A barrier is the greatest loss above the chord between the ends, t from 0 to 1."
    ),
    "plane": (
        "Plane through weight space: train loss (left) and test loss (right) at the lowest seed. Levels rise "
        "from the least loss on the grid in steps that grow with the height above it; beyond the last the "
        "shade stays the same. Solutions are filled where they lie on the plane. They are hollow where they "
        "are projected onto it, like the iterates that SWA averages (thin line, from the first to the last): "
        "the loss seen there is that of the plane, not theirs. Crosses mark the least train and the least "
        "test loss on the grid."
    ),
    "shift": (
        "Shift: what is left of the gap between test and train loss, ξδ / ξ0, when the test loss along a "
        "direction is compared with the train loss δ further back; δ in units of the curve's radius R. The "
        "gap ξ is the largest |test − train − b| over the inner three quarters of the curve, with b = 0 or "
        "with the best b for each δ. Lines are medians over directions and seeds; shade and thin lines "
        "enclose the middle 80 % of them. If the test loss were the train loss shifted, the line would touch "
        "0 at that shift. The vertical axis is cut at 1.5."
    ),
    "sign": (
        "Signs: asymmetry index of a direction u, log of the rise at -R over the rise at +R (above 0: + is "
        "the flatter side), against the share of its entries that have the sign of w. Small points are "
        "directions, large ones means over seeds with their t intervals. Hollow: -u of directions probed, "
        "whose curve is that of u reversed, where none was probed."
    ),
    "toy-surface": (
        "2-D MLP, data draw 0: loss surface over weight and bias, with the solution of each recipe and the "
        "line through it along the probed direction (left); loss along these lines (right)."
    ),
    "toy-curves": (
        "2-D MLP: loss along the probed direction (entries U(0, 1), normalised) through the solution. Thin "
        "lines are data draws, the thick line is their mean. Recipe paper stops after a fixed number of "
        "steps, recipe converged at a minimum."
    ),
    "theory-average": (
        "SGD with bounded noise in a one-dimensional valley whose flat side is x > 0 and whose other side "
        "is c times as steep. Above, a row of panels for each step size: mean over chains of the average "
        "of the iterates (markers; intervals are smaller than these where none is seen) and the lower "
        "bound proved for it (lines, where it is positive). Below, for the greatest step size: training "
        "loss at the average (filled) and at the mean of all averages (hollow), both divided by that of "
        "the iterates: what is hollow stays however long one averages."
    ),
    "theory-gain": (
        "By how much the expected loss at a point biased to the flat side is below that at the minimum, "
        "when the loss is shifted at random by up to d to either side: simulated (markers), in closed "
        "form (lines between its values there) and the lower bound proved for it (dashed). Below 0 the "
        "bias costs. Ticks on the zero line mark the limit up to which a gain is proved: where the "
        "expected loss is least."
    ),
    "theory-measured": (
        "Theorem 1 on measured curves: by how much the expected train loss at a point biased to the flat "
        "side is below that at the solution, when the measured curve is shifted at random by up to R/4 to "
        "either side (filled markers), and by how much the measured test loss at that point is below that "
        "at the solution, with no shift (hollow, dashed). Mean over minima (seeds) of the mean over their "
        "asymmetric or symmetric directions, with t intervals over minima where there are two or more, cut "
        "off where they leave the means far behind; n: asymmetric and symmetric directions. Below 0 the bias "
        "costs. Along symmetric directions, a control, the bias goes to the side that rises less."
    ),
    "study": (
        "Study: what a minimum looks like by level of each factor. Size of the asymmetry index, |log of the "
        "rise at -R over the rise at +R|, 0 being symmetric: small points are minima (means over their "
        "directions), large ones means over minima with their t intervals. Share of directions that are "
        "asymmetric by Definition 1, with Wilson intervals that take directions for independent, though "
        "those of a minimum share its weights; counts are beside the panel. Where the study has them: the "
        "width R / |w| at which the loss has risen by the probe's target, the greatest Hessian eigenvalue, "
        "and SWA's train and test loss against those of the descent from it (thin lines join minima of one "
        "seed)."
    ),
}


# Entry points ---------------------------------------------------------------------------------------


def draw(name: str, data: Data, spec: Spec) -> Figure:
    """Draw a figure; tables without rows give a figure that says so.

    Parameters
    ----------
    name
        As listed by `valleys.config.Experiment.figures`: "training", "prevalence", "sensitivity",
        "curves-<probe>", "line-<line>", "plane-<plane>", "shift", "sign", "toy-surface", "toy-curves",
        "theory-average", "theory-gain", "theory-measured" or "study-<study>".
    data
        The tables named by `valleys.config.Experiment.figure_tables`.
    spec
        As returned by `valleys.config.Experiment.figure`.

    Raises
    ------
    ValleysError
        For a name that is none of these.
    """
    kind, part = _kind(name)
    style = _style(spec)
    with mpl.rc_context(_rc(style)):
        look = _Look(style)
        return _DRAW[kind](part, data, spec, look) or _empty(look, _NOTHING[kind].format(part))


def save(figure: Figure, png: str | Path, svg: str | Path, style: Mapping[str, Any]) -> None:
    """Write a figure as PNG and SVG, each atomically and with no dates: same figure, same bytes."""
    style = {**STYLE, **style}
    dpi = min(float(style["dpi"]), _MAX_PIXELS / max(figure.get_size_inches()))
    with mpl.rc_context(_rc(style)):
        with files.atomic(png) as temporary:
            figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})
        with files.atomic(svg) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
            files.seal_svg(temporary)


def caption(name: str, data: Data, spec: Spec) -> str:
    """Return what a figure plots and what is seen in it; parameters as for `draw`."""
    kind, part = _kind(name)
    seen = _SEEN[kind](part, data, spec)
    return f"{CAPTIONS[kind]}\n{seen}" if seen else _NOTHING[kind].format(part)


def title(name: str) -> str:
    """Return a heading for a figure."""
    kind, part = _kind(name)
    return _TITLES[kind].format(part)


def prevalence(asymmetry: pd.DataFrame, level: float, c: float) -> pd.DataFrame:
    """Count verdicts and uneven rises by cell (seeds together), probe and solution.

    Parameters
    ----------
    asymmetry
        The table of that name.
    level
        Of the Wilson intervals.
    c
        Rises at -R and R that differ by this factor or more count as uneven.

    Returns
    -------
    DataFrame
        Columns dataset, model, recipe, probe, solution, n, and for each of "asymmetric", "uneven" and
        "not_minimum" the count, ``<status>_share``, ``<status>_low`` and ``<status>_high``; then the counts
        "symmetric", "flat" and "not_finite", and the medians of c_star and asymmetry_index over the rows
        that have them.
    """
    rows = []
    for key, part in asymmetry.groupby([*CELL, "probe", "solution"], sort=False):
        row = dict(zip([*CELL, "probe", "solution"], key, strict=True)) | {"n": len(part)}
        counts = part["status"].value_counts()
        hits = {status: int(counts.get(status, 0)) for status in ("asymmetric", "not_minimum")}
        hits["uneven"] = int((part["asymmetry_index"].abs() >= math.log(c)).sum())
        for status, count in hits.items():
            share = wilson(count, len(part), level)
            row |= {status: count, f"{status}_share": share.estimate}
            row |= {f"{status}_low": share.low, f"{status}_high": share.high}
        row |= {status: int(counts.get(status, 0)) for status in ("symmetric", "flat", "not_finite")}
        rows.append(
            row | {"c_star": part["c_star"].median(), "asymmetry_index": part["asymmetry_index"].median()}
        )
    return pd.DataFrame(rows)


# Style and layout -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Look:
    """Style of one figure: sizes and the colour of each thing that has one everywhere."""

    style: Mapping[str, Any]

    @property
    def width(self) -> float:
        return float(self.style["width"])

    def nth(self, i: int) -> str:
        """Return the palette's i-th colour, in an order in which the first ones are well apart."""
        colours = _colours(self.style["palette"])
        order = _APART.get(self.style["palette"], range(len(colours)))
        return colours[list(order)[i % len(order)]]

    def colour(self, thing: str) -> str:
        palette = self.style["palette"]
        colours = _colours(palette)
        return colours[_ROLES.get(palette, _ROLES["petroff10"]).get(thing, 0) % len(colours)]


def _colours(palette: str) -> Sequence[Any]:
    if palette in mpl.color_sequences:
        return mpl.color_sequences[palette]
    if palette in matplotlib.style.library:
        return matplotlib.style.library[palette]["axes.prop_cycle"].by_key()["color"]
    raise ValleysError(f"figures.palette: {palette!r} is not a palette of matplotlib {mpl.__version__}")


def _style(spec: Spec) -> dict[str, Any]:
    return {**STYLE, **spec.get("style", {})}


def _rc(style: Mapping[str, Any]) -> dict[str, Any]:
    size = style["font_size"]
    return {
        **{key: mpl.rcParamsDefault[key] for key in ("path.simplify", "agg.path.chunksize", "savefig.bbox")},
        "font.family": ["DejaVu Sans"],
        "font.size": size,
        "axes.titlesize": size,
        "axes.labelsize": size,
        "xtick.labelsize": size - 1,
        "ytick.labelsize": size - 1,
        "legend.fontsize": size,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": _GREY,
        "axes.labelcolor": _INK,
        "text.color": _INK,
        "xtick.color": _GREY,
        "ytick.color": _GREY,
        "xtick.labelcolor": _INK,
        "ytick.labelcolor": _INK,
        "axes.linewidth": 0.8,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e8eaed",
        "grid.linewidth": 0.6,
        "axes.formatter.useoffset": False,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "figure.constrained_layout.h_pad": 0.06,
        "figure.constrained_layout.wspace": 0.05,
        "text.parse_math": False,  # names may hold any character; ticks are written out below
        "text.usetex": False,
        "svg.fonttype": "path",
        "svg.hashsalt": "valleys",
    }


def _panels(look: _Look, rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, Any]:
    width = look.width * (1 if columns == 2 else 1.35 if columns > 2 else 0.62)
    figure = Figure(figsize=(width, height * rows * look.width / 7 + 0.55), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _empty(look: _Look, sentence: str) -> Figure:
    figure = Figure(figsize=(look.width, 1.2))
    wrapped = textwrap.fill(sentence, 80)
    figure.text(0.5, 0.5, wrapped, ha="center", va="center", color=_GREY)
    return figure


def _legend(figure: Figure, handles: Sequence[Any], columns: int = 4) -> None:
    columns = min(len(handles), columns if figure.get_figwidth() > 5 else 2)
    figure.legend(handles=list(handles), loc="outside upper center", ncols=columns, handlelength=2.2)


def _cells(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield label, recipe and rows of each cell, seeds together; several recipes are named in the label."""
    several = frame["recipe"].nunique() > 1
    for (dataset, model, recipe), part in frame.groupby(CELL, sort=False):
        yield " / ".join([dataset, model, *([recipe] if several else [])]), recipe, part


def _heading(
    axes: Axes, label: str, right: str = "", colour: str = _INK, room: int = 38, pad: float | None = None
) -> None:
    """Write the cell above a panel, broken at its slashes if long, and a short word at the right."""
    lines = [""]
    for part in label.split(" / "):
        joined = f"{lines[-1]} / {part}" if lines[-1] else part
        if len(joined) > room and lines[-1]:
            lines[-1] += " /"
            lines.append(part)
        else:
            lines[-1] = joined
    size = axes.xaxis.get_label().get_fontsize()
    if right and label and len(lines[-1]) + len(right) > room:
        pad = 6 + 1.4 * size  # lifts the label above the word
    axes.set_title("\n".join(lines), loc="left", fontweight="bold", pad=pad)
    if right:
        place = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "baseline"}
        axes.annotate(right, (1, 1), xytext=(0, 6), color=colour, **place)


def _plain(value: float, _position: int = 0) -> str:
    return f"{value:g}"


def _log_axis(axes: Axes, low: float, high: float) -> None:
    """Make the y axis logarithmic with labels written out, at 1, 2 and 5 when there are few decades."""
    axes.set_yscale("log")
    decades = np.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(low / 1.15, high * 1.15)


def _linear_axis(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))


def _finite(values: Any) -> Floats:
    values = np.asarray(values, dtype=np.float64)
    return values[np.isfinite(values)]


def _band(table: Floats, level: float) -> tuple[Floats, Floats, Floats]:
    """Return mean and t interval of each column of (seeds, points), over its finite values."""
    good = np.isfinite(table)
    n = good.sum(axis=0)
    safe = np.where(good, table, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = safe.sum(axis=0) / n
        spread = np.sqrt((np.where(good, table - mean, 0.0) ** 2).sum(axis=0) / (n - 1))
        half = sps.t.ppf((1 + level) / 2, np.where(n > 1, n - 1, np.nan)) * spread / np.sqrt(n)
    return mean, mean - half, mean + half


# training -------------------------------------------------------------------------------------------


def _training(_part: str, data: Data, spec: Spec, look: _Look) -> Figure | None:
    table = data["training"]
    table = table[table["phase"] != "descent"]
    if table.empty:
        return None
    cells = list(_cells(table))
    figure, grid = _panels(look, len(cells), 2, 2.3)
    for (label, recipe, part), row in zip(cells, grid, strict=True):
        for axes, measure, scale in ((row[0], "loss", 1.0), (row[1], "accuracy", 100.0)):
            for split in _SPLITS:
                column = f"{split}_{measure}"
                kept = part[np.isfinite(part[column].astype(float))]
                for _, run in kept.groupby("seed"):
                    axes.plot(run["epoch"], scale * run[column], color=look.colour(split), lw=0.5, alpha=0.4)
                mean = kept.groupby("epoch")[column].mean()
                axes.plot(
                    mean.index, scale * mean, color=look.colour(split), lw=1.6, ls=_SPLITS[split],
                    marker="o" if len(mean) < 3 else None, ms=3,
                )  # fmt: skip
            last = float(part["epoch"].max())
            axes.set_xlim(0, max(last, 1))
            start = _swa_start(recipe, part, spec)
            if start is not None and start < last:
                axes.axvspan(start, last, color=_PALE, alpha=0.45, lw=0, zorder=0)
                axes.axvline(start, color=_GREY, lw=0.8)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=_STEPS))
            axes.set_xlabel("epoch")
        _heading(row[0], label)
        losses = _finite(part[["train_loss", "test_loss"]])
        row[0].set_ylabel("loss [nats]")
        if len(losses) and losses.min() > 0 and losses.max() / losses.min() > 3:
            _log_axis(row[0], losses.min(), losses.max())
        row[1].set_ylabel("accuracy [%]")
        row[1].set_ylim(*_accuracy_limits(part))
    _legend(
        figure,
        [*_split_handles(look, "train (as trained)", "test"), Patch(fc=_PALE, label="averaged by SWA")],
    )
    return figure


def _swa_start(recipe: str, part: pd.DataFrame, spec: Spec) -> float | None:
    start = spec.get("swa_start", {}).get(recipe)
    if start is not None:
        return float(start)
    epochs = part.loc[part["phase"] == "swa", "epoch"]
    return float(epochs.min()) - 1 if len(epochs) else None


def _accuracy_limits(part: pd.DataFrame) -> tuple[float, float]:
    low = 100 * _finite(part[["train_accuracy", "test_accuracy"]]).min(initial=1.0)
    return max(0.0, low - 3), 101.0


def _split_handles(look: _Look, train: str = "train", test: str = "test") -> list[Line2D]:
    return [
        Line2D([], [], color=look.colour(split), lw=1.6, ls=dashes, label=text)
        for (split, dashes), text in zip(_SPLITS.items(), (train, test), strict=True)
    ]


def _seen_training(_part: str, data: Data, spec: Spec) -> str:
    table = data["training"][data["training"]["phase"] != "descent"]
    if table.empty:
        return ""
    told = []
    for label, _, part in _cells(table):
        ends = part.loc[part.groupby("seed")["epoch"].idxmax()]
        tests = part[np.isfinite(part["test_loss"].astype(float))]
        tests = tests.loc[tests.groupby("seed")["epoch"].idxmax()]
        words = f"train loss {number(_mean(ends['train_loss']))} nats"
        if len(tests):
            words += f", test loss {number(_mean(tests['test_loss']))} nats, test accuracy"
            words += f" {_percent(_mean(tests['test_accuracy']))}"
        told.append((label, f"{words} ({_count(part['seed'].nunique(), 'seed')})"))
    diverged = int((~np.isfinite(table["train_loss"].astype(float))).sum())
    left_out = f"{_count(diverged, 'epoch')} without a finite train loss left out. " if diverged else ""
    return f"{_recipe_note(table)}{left_out}At the last epoch, mean over seeds:{_list(told)}"


# prevalence -----------------------------------------------------------------------------------------


def _prevalence(_part: str, data: Data, spec: Spec, look: _Look) -> Figure | None:
    table = data["asymmetry"][data["asymmetry"]["kind"] != "sign"]
    if table.empty:
        return None
    counts = prevalence(table, spec["level"], spec["c"])
    solutions = _ordered(counts["solution"])
    cells = list(_cells(counts))
    probes = [list(dict.fromkeys(part["probe"])) for _, _, part in cells]
    heights = [0.55 + len(names) * (0.1 + 0.17 * len(solutions)) for names in probes]
    figure, grid = _panels(
        look, len(cells), 3, sum(heights) / len(cells) + 0.35, height_ratios=heights, sharex=True
    )
    titles = {
        "asymmetric": f"asymmetric (c* ≥ {spec['c']:g})",
        "uneven": f"rises differ {spec['c']:g}-fold",
        "not_minimum": "not a minimum",
    }
    for (label, _, part), names, row in zip(cells, probes, grid, strict=True):
        for axes, status in zip(row, titles, strict=True):
            _shares(axes, part, status, names, solutions, look)
            _heading(axes, label if axes is row[0] else "", titles[status], _GREY, room=34)
        for axes in row[1:]:
            axes.tick_params(labelleft=False)
    for axes in grid[-1]:
        axes.set_xlabel("share of directions [%]")
    handles = [
        Line2D([], [], color=look.colour(s), marker=_MARKERS.get(s, "o"), ms=4.5, lw=1.2, label=f"at {s}")
        for s in solutions
    ]
    _legend(figure, handles)
    return figure


def _shares(
    axes: Axes, part: pd.DataFrame, status: str, probes: list[str], solutions: list[str], look: _Look
) -> None:
    """Draw one panel of shares with intervals: a line a probe, one point a solution."""
    step = 0.72 / len(solutions)
    for row in part.to_dict("records"):
        y = probes.index(row["probe"]) + (solutions.index(row["solution"]) - (len(solutions) - 1) / 2) * step
        share, low, high = (100 * row[f"{status}_{key}"] for key in ("share", "low", "high"))
        axes.errorbar(
            share, y, xerr=[[max(share - low, 0)], [max(high - share, 0)]],
            color=look.colour(row["solution"]),
            fmt=_MARKERS.get(row["solution"], "o"), ms=4.5, lw=1.2, capsize=2, clip_on=False, zorder=3,
        )  # fmt: skip
        axes.annotate(
            f"{row[status]}/{row['n']}", (1.04, y), xycoords=("axes fraction", "data"), va="center",
            fontsize=axes.xaxis.get_label().get_fontsize() * 0.8, color=_GREY, annotation_clip=False,
        )  # fmt: skip
    axes.set_yticks(range(len(probes)), probes)
    axes.set_ylim(len(probes) - 0.45, -0.55)
    axes.set_xlim(0, 100)
    axes.grid(False, axis="y")
    for y in range(1, len(probes)):
        axes.axhline(y - 0.5, color="#e8eaed", lw=0.6, zorder=0)
    axes.tick_params(axis="y", length=0)


def _seen_prevalence(_part: str, data: Data, spec: Spec) -> str:
    table = data["asymmetry"][data["asymmetry"]["kind"] != "sign"]
    if table.empty:
        return ""
    told = []
    level, c = spec["level"], spec["c"]
    for probe, part in table.groupby("probe", sort=False):
        share = wilson(int((part["status"] == "asymmetric").sum()), len(part), level)
        bounds = f"{_percent(share.low)} to {_percent(share.high)}"
        uneven = _percent((part["asymmetry_index"].abs() >= math.log(c)).mean())
        told.append(
            (str(probe), f"{_percent(share.estimate)} ({bounds}; n = {share.n}); rises uneven in {uneven}")
        )
    cells = table.groupby(CELL).ngroups
    uncertain = f"The {words}. " if (words := measures.uncertain(table)) else ""
    others = "".join(
        f"{_count(int((table['status'] == status).sum()), 'direction')} {words}. "
        for status, words in (
            ("flat", "without a rise on either side"),
            ("not_finite", "with a loss that is not finite"),
        )
        if (table["status"] == status).any()
    )
    return (
        f"{_recipe_note(table)}{others}{uncertain}"
        f"Asymmetric at c* ≥ {c:g}, all solutions of {_count(cells, 'cell')}"
        f" together ({_percent(level)} intervals):{_list(told, 2 * _LISTED)}"
    )


# sensitivity ----------------------------------------------------------------------------------------


def _probe_looks(table: pd.DataFrame, look: _Look) -> dict[str, dict[str, Any]]:
    """Return colour and dashes of each probe: solid for the paper's kind, dashed for controls."""
    kinds = dict(zip(table["probe"], table["kind"], strict=True))
    return {
        probe: {"color": look.nth(i), "marker": "osD^vPX*"[i % 8], "ls": "-" if kind == "uniform" else "--"}
        for i, (probe, kind) in enumerate(kinds.items())
    }


def _sensitivity(_part: str, data: Data, spec: Spec, look: _Look) -> Figure | None:
    table = data["sensitivity"]
    if table.empty:
        return None
    cells = list(_cells(table))
    widths, spans = sorted(set(table["zeta_max"])), sorted(set(table["min_span"]))
    figure, grid = _panels(look, len(cells) * len(spans), len(widths), 1.75, sharex=True, sharey=True)
    looks = _probe_looks(table, look)
    raised = 6 + 1.5 * float(look.style["font_size"])
    rows = [(label if i == 0 else "", part, span) for label, _, part in cells for i, span in enumerate(spans)]
    for (label, part, span), row in zip(rows, grid, strict=True):
        for axes, zeta_max in zip(row, widths, strict=True):
            here = part[(part["zeta_max"] == zeta_max) & (part["min_span"] == span)]
            _sensitivity_panel(axes, here, looks)
            about = f"zeta ≤ {zeta_max:g} R, r − zeta ≥ {span:g} R"
            _heading(axes, label if axes is row[0] else "", about, _GREY, room=200, pad=raised)
        row[0].set_ylabel("asymmetric [%]")
    levels = sorted(set(table["c"]))
    grid[0, 0].set_ylim(-3, 108)
    grid[0, 0].set_yticks([0, 25, 50, 75, 100])
    _ratio_axis(grid[0, 0], levels)
    for axes in grid[-1]:
        axes.set_xlabel("level c")
    _legend(
        figure, [Line2D([], [], ms=4, lw=1.2, label=str(probe), **style) for probe, style in looks.items()]
    )
    return figure


def _sensitivity_panel(axes: Axes, here: pd.DataFrame, looks: Mapping[str, Mapping[str, Any]]) -> None:
    for i, (probe, style) in enumerate(looks.items()):
        part = here[here["probe"] == probe].sort_values("c")
        beside = 1.018 ** (i - (len(looks) - 1) / 2)  # points of several probes side by side
        share, low, high = (100 * part[key] for key in ("share", "low", "high"))
        bars = [np.maximum(share - low, 0), np.maximum(high - share, 0)]
        axes.errorbar(part["c"] * beside, share, yerr=bars, ms=3.2, lw=1.0, elinewidth=0.7, **style)
    for c in set(here.loc[here["chosen"], "c"]):
        axes.axvline(c, color=_INK, lw=1.2, ls=":")


def _seen_sensitivity(_part: str, data: Data, spec: Spec) -> str:
    table = data["sensitivity"]
    if table.empty:
        return ""
    told = []
    for label, _, part in _cells(table):
        for probe, here in part.groupby("probe", sort=False):
            own = here[here["chosen"]]
            words = f"{_percent(here['share'].min())} to {_percent(here['share'].max())}"
            if len(own):
                words = f"{_percent(own['share'].iloc[0])} as set; {words} over all settings"
            told.append((f"{label}, {probe}", f"{words} (n = {here['n'].iloc[0]})"))
    return f"{_recipe_note(table)}Share of directions that are asymmetric:{_list(told, 4 * _LISTED)}"


# curves ---------------------------------------------------------------------------------------------


def _rises(probe: str, data: Data) -> pd.DataFrame:
    """Return the curves of a probe with offset / R as ``x`` and the rises ``train`` and ``test``."""
    curves = measures.on_all_points(data["curves"][data["curves"]["probe"] == probe])
    radii = data["directions"].loc[data["directions"]["probe"] == probe, [*DIRECTION, "radius"]]
    merged = curves.merge(radii, on=DIRECTION, how="inner", validate="many_to_one")
    merged["x"] = (merged["offset"] / merged["radius"]).round(6)
    zero = merged.loc[merged["x"] == 0, [*DIRECTION, "train_loss", "test_loss"]]
    zero = zero.rename(columns={"train_loss": "train_zero", "test_loss": "test_zero"})
    merged = merged.merge(zero, on=DIRECTION, how="inner", validate="many_to_one")
    for split in _SPLITS:
        merged[split] = merged[f"{split}_loss"] - merged[f"{split}_zero"]
    return merged


def _curves(probe: str, data: Data, spec: Spec, look: _Look) -> Figure | None:
    table = _rises(probe, data)
    if table.empty:
        return None
    solutions = _ordered(table["solution"])
    cells = list(_cells(table))
    figure, grid = _panels(look, len(cells), len(solutions), 2.3, sharex=True, sharey="row")
    for (label, _, part), row in zip(cells, grid, strict=True):
        tops, bottoms = [], []
        for axes, solution in zip(row, solutions, strict=True):
            here = part[part["solution"] == solution]
            for split, dashes in _SPLITS.items():
                values = here.loc[np.isfinite(here[split]), ["x", split]].groupby("x")[split]
                if not len(values):
                    continue
                mean, low, high = values.mean(), values.quantile(0.1), values.quantile(0.9)
                colour = look.colour(split)
                if split == "train":
                    axes.fill_between(mean.index, low, high, color=colour, alpha=_SHADE, lw=0)
                else:
                    for edge in (low, high):
                        axes.plot(mean.index, edge, color=colour, ls=dashes, lw=0.6)
                axes.plot(mean.index, mean, color=colour, ls=dashes, lw=1.6)
                # The mean may be carried off by one direction; the band says what is usual.
                tops += [float(high.max()), min(float(mean.max()), 3 * float(high.max()))]
                bottoms += [float(low.min()), float(mean.min())]
            axes.axvline(0, color=_GREY, lw=0.8)
            n = here.drop_duplicates(DIRECTION)
            _heading(axes, label if axes is row[0] else "", f"at {solution} (n = {len(n)})", _GREY)
        if tops and max(tops) > min(bottoms):
            room = 0.06 * (max(tops) - min(bottoms))
            row[0].set_ylim(min(bottoms) - room, max(tops) + room)
        row[0].set_xlim(-1, 1)
        row[0].set_xticks([-1, -0.5, 0, 0.5, 1])
        row[0].set_ylabel("rise in loss [nats]")
        _linear_axis(row[0])
    for axes in grid[-1]:
        axes.set_xlabel("offset l / R")
    train, test = _split_handles(look)
    shade = Patch(fc=look.colour("train"), alpha=_SHADE, label="middle 80 %, train")
    edges = Line2D([], [], color=look.colour("test"), lw=0.6, ls=_SPLITS["test"], label="middle 80 %, test")
    _legend(figure, [train, test, shade, edges])
    return figure


def _seen_curves(probe: str, data: Data, spec: Spec) -> str:
    table = data["asymmetry"][data["asymmetry"]["probe"] == probe]
    if table.empty or _rises(probe, data).empty:
        return ""
    told = []
    for label, _, part in _cells(table):
        for solution in _ordered(part["solution"]):
            here = part[part["solution"] == solution]
            asymmetric = int((here["status"] == "asymmetric").sum())
            minus, plus = number(here["rise_minus"].median()), number(here["rise_plus"].median())
            words = f"{minus} nats at −R and {plus} at +R, asymmetric {asymmetric} of {len(here)}"
            told.append((f"{label} at {solution}", words))
    about = data["directions"][data["directions"]["probe"] == probe]
    radius = f"R is {_range(about['radius'])} in 2-norm of weights"
    capped = int((about["radius_status"] == "capped").sum())
    if capped:
        radius += f" ({capped} of {len(about)} curves do not reach the target rise)"
    policy = ", ".join(dict.fromkeys(about["bn_policy"]))
    kind = ", ".join(dict.fromkeys(about["kind"] + ", parameter group " + about["group"]))
    return (
        f"{_recipe_note(table)}Directions: {kind}; batch-norm statistics: {policy}; {radius}."
        f" Median rise in train loss:{_list(told, 2 * _LISTED)}"
    )


# line -----------------------------------------------------------------------------------------------


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
    for label, _, part in _cells(table):
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


def _line(name: str, data: Data, spec: Spec, look: _Look) -> Figure | None:
    lines = list(_lines(name, data))
    if not lines:
        return None
    figure, grid = _panels(look, len(lines), 3, 2.35)
    level, size = spec["level"], float(look.style["font_size"])
    compared = False
    for (label, line), row in zip(lines, grid, strict=True):
        losses, changes, errors = {}, {}, {}
        for split in _SPLITS:
            losses[split] = _band(line.values[f"{split}_loss"], level)
            changes[split] = _band(line.change(split), level)
            errors[split] = _band(100 * (1 - line.values[f"{split}_accuracy"]), level)
        for axes, bands in zip(row, (losses, changes, errors), strict=True):
            _splits(axes, line.t, bands, look, lowest=axes is not row[2])
            _ends(axes, line)
        inner = _inner(line.t)
        means = _finite(np.concatenate([losses[split][0][inner] for split in _SPLITS]))
        straight = _straight(line, data)
        if straight is not None:  # beside the loss itself only: in the other panels it would flatten the path
            compared = True
            for split in _SPLITS:
                mean = _band(straight.values[f"{split}_loss"], level)[0]
                row[0].plot(straight.t, mean, color=look.colour(split), lw=0.8, ls=":")
                mean = np.interp(line.t, straight.t, mean)
                losses[f"straight {split}"] = (mean, mean, mean)  # for the axis
            means = _finite(np.concatenate([bands[0] for bands in losses.values()]))
        if len(means) and means.min() > 0 and means.max() / means.min() > 20:
            whole = _finite(np.concatenate([losses[split][0] for split in losses]))
            _log_axis(row[0], max(whole.min(), means.min() / 10), min(whole.max(), 10 * means.max()))
        else:
            _linear_axis(row[0])
            _middle(row[0], line.t, losses, reach=2, floor=0.0)
        _middle(row[1], line.t, changes, reach=2)
        _linear_axis(row[1])
        row[1].axhline(0, color=_GREY, lw=0.6)
        _linear_axis(row[2])
        highest = _finite(np.concatenate([band for split in _SPLITS for band in errors[split]])).max(
            initial=1e-3
        )
        row[2].set_ylim(0, min(1.06 * highest, 101))
        for axes, text in zip(
            row,
            (
                "loss [nats]",
                f"loss − loss at {'t = 0' if any(line.where) else line.start} [nats]",
                "error [%]",
            ),
            strict=True,
        ):
            axes.set_ylabel(text)
            axes.set_xlabel(f"position t on the {_word(line)}")
        _heading(row[0], label, pad=size + 8 + (1.3 * size if any(line.where) else 0))
    handles = [
        *_split_handles(look),
        Patch(fc=_PALE, label=f"{_percent(level)} interval over seeds"),
        Line2D([], [], color=_GREY, marker=7, ls="", ms=6, label="lowest point"),
    ]
    if compared:
        handles.append(Line2D([], [], color=_GREY, lw=0.8, ls=":", label="straight line"))
    _legend(figure, handles)
    return figure


def _word(line: _Line) -> str:
    return "line" if line.rows["path"].iloc[0] == "linear" else "path"


def _straight(line: _Line, data: Data) -> _Line | None:
    """Return, for a path with trained bends, the straight line between the same ends, t from 0 to 1."""
    if line.rows["path"].iloc[0] == "linear":
        return None
    twin = measures.straight_twin(data["interpolation"], line.rows)
    twin = twin[twin["t"].between(-1e-9, 1 + 1e-9)]
    return _as_line(twin) if len(twin) else None


def _splits(axes: Axes, t: Floats, bands: Mapping[str, Any], look: _Look, lowest: bool) -> None:
    """Draw mean and band of train and test, and a triangle above the lowest point of each mean."""
    for split, (mean, low, high) in bands.items():
        colour = look.colour(split)
        axes.fill_between(t, low, high, color=colour, alpha=_SHADE, lw=0)
        axes.plot(t, mean, color=colour, ls=_SPLITS[split], lw=1.6)
        if lowest and np.isfinite(mean).any():
            k = int(np.nanargmin(mean))
            marker, side = (6, -1) if split == "train" else (7, 1)  # carets with their tip at the point
            raised = axes.transData + ScaledTranslation(0, side * 2 / 72, axes.figure.dpi_scale_trans)
            axes.plot(t[k], mean[k], marker=marker, ms=6, color=colour, ls="", transform=raised, zorder=4)
    axes.set_xlim(t.min(), t.max())


def _ends(axes: Axes, line: _Line) -> None:
    """Mark both solutions by vertical lines with their names above the panel, and where they are."""
    # A name is on the far side of its mark where the line goes on there.
    for t, name, where, side, beyond in (
        (0.0, line.start, line.where[0], "right" if line.t.min() < 0 else "left", line.t.min() < 0),
        (1.0, line.stop, line.where[1], "left" if line.t.max() > 1 else "right", line.t.max() > 1),
    ):
        axes.axvline(t, color=_GREY, lw=0.8)
        shift = (-2 if side == "right" else 2) if beyond else 0
        words = f"{name}\n{_short(where)}" if any(line.where) else name
        axes.annotate(
            words, (t, 1), xycoords=("data", "axes fraction"), xytext=(shift, 2),
            textcoords="offset points", ha=side, va="bottom", color=_GREY, linespacing=1.1,
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
    means = _finite(np.concatenate([band[0] for band in bands.values()]))
    centre = _finite(np.concatenate([np.concatenate([b[inner] for b in band]) for band in bands.values()]))
    if not len(centre):
        return
    low, high = centre.min(), centre.max()
    span = max(high - low, 1e-12)
    top = min(max(means.max(), high), high + reach * span)
    bottom = max(min(means.min(), low), low - reach * span)
    room = 0.06 * max(top - bottom, span)
    axes.set_ylim(max(bottom - room, floor), top + room)


def _seen_line(name: str, data: Data, spec: Spec) -> str:
    told, level = [], spec["level"]
    lines = list(_lines(name, data))
    for label, line in lines:
        lowest = {split: _lowest(line, split) for split in _SPLITS}
        words = ", ".join(f"{split} at t = {_interval(lowest[split], level)}" for split in _SPLITS)
        stop = int(np.abs(line.t - 1).argmin())
        for split in _SPLITS:
            change = _finite(line.change(split)[:, stop])
            first, last = ("t = 0", "t = 1") if any(line.where) else (line.start, line.stop)
            words += f"; {split} loss at {last} − at {first}: {_interval(change, level, sign=True)} nats"
        words += f"; barrier: {_barrier(line, level)}"
        straight = _straight(line, data)
        if straight is not None:
            words += f"; on the straight line {_barrier(straight, level)}"
        told.append((label, f"{words} ({_count(line.seeds, 'seed')})"))
    if not told:
        return ""
    table = data["interpolation"][data["interpolation"]["line"] == name]
    (first, last), at = lines[0][1].where, " of "
    ends = f"Position t = 0 is {lines[0][1].start}{first and at}{first}"
    ends += f", t = 1 is {lines[0][1].stop}{last and at}{last}"
    policy = ", ".join(dict.fromkeys(table["bn_policy"]))
    return (
        f"{_recipe_note(table)}{ends}; batch-norm statistics: {policy}. Lowest loss, mean over seeds"
        f" ({_percent(level)} t interval):{_list(told)}"
    )


def _barrier(line: _Line, level: float) -> str:
    """Write the heights of a line's barriers, mean over seeds with its interval."""
    found = measures.barriers(line.rows)
    parts = [f"{split} {_interval(found[split], level, limits=(0, np.inf))}" for split in _SPLITS]
    return f"{', '.join(parts)} nats"


def _lowest(line: _Line, split: str) -> Floats:
    """Return each seed's t of lowest loss, of those with a finite loss anywhere."""
    losses = line.values[f"{split}_loss"]
    losses = losses[np.isfinite(losses).any(axis=1)]
    return line.t[np.nanargmin(losses, axis=1)] if len(losses) else np.empty(0)


# plane ----------------------------------------------------------------------------------------------


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
        rows = self.points[self.points["role"].isin(SOLUTIONS)]
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
    for label, _, part in _cells(table):
        seed = int(part["seed"].min())
        part = part[part["seed"] == seed]
        here = points[points["seed"] == seed].merge(part[CELL].drop_duplicates(), on=CELL)
        wide = {split: part.pivot(index="y", columns="x", values=f"{split}_loss") for split in _SPLITS}
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
    good = _finite(values)
    low = good.min()
    high = max(float(np.quantile(good, 0.9)) - low, 1e-9 * max(abs(low), 1.0))
    first = min(max(abs(low) / 20, high / 1000), high / 4)
    return np.concatenate([[low], low + np.geomspace(first, high, count - 1)])


def _plane(name: str, data: Data, spec: Spec, look: _Look) -> Figure | None:
    planes = list(_planes(name, data))
    if not planes:
        return None
    tall = max(np.ptp(plane.y) / np.ptp(plane.x) for _, plane in planes)
    # A little higher than panels are wide: where it is their height that limits them the layout, which
    # measures labels and bars before it fits panels, may put some outside of the figure.
    em = float(look.style["font_size"]) / 72
    height = (look.width - 14 * em) / 2 * min(max(tall, 0.5), 1.3) + 6 * em
    figure, grid = _panels(look, len(planes), 2, height * 7 / look.width)
    for (label, plane), row in zip(planes, grid, strict=True):
        for axes, split in zip(row, _SPLITS, strict=True):
            _surface(figure, axes, plane, split)
            _on_plane(axes, plane, look)
            axes.set_xlabel("x [2-norm of weights]")
        _heading(row[0], label)
        row[0].set_ylabel("y [2-norm of weights]")
    drawn = pd.concat([plane.solutions for _, plane in planes])
    handles = [
        Line2D([], [], color=look.colour(s), marker=_MARKERS[s], mec=_INK, mew=0.6, ms=6, ls="", label=s)
        for s in _ordered(drawn["role"])
    ]
    if any(len(plane.iterates) for _, plane in planes):
        handles += [
            Line2D([], [], color=_INK, lw=0.7, marker="o", ms=2, label="iterates"),
            Line2D([], [], color=_INK, marker=_FIRST, ms=5, ls="", label="first iterate"),
            Line2D([], [], color=_INK, marker=_LAST, ms=5, ls="", label="last iterate"),
        ]
    handles += [
        Line2D([], [], color=_INK, ms=8, ls="", label=f"least {split} loss", **_CROSSES[split])
        for split in _SPLITS
    ]
    _legend(figure, handles, columns=5 if len(handles) == 5 else 4)
    return figure


_FIRST, _LAST = "^", "v"
_CROSSES: dict[str, dict[str, Any]] = {
    "train": {"marker": "+", "mew": 1.8},
    "test": {"marker": "x", "mew": 1.8},
}
_PALE_TO_DARK = LinearSegmentedColormap.from_list("pale_to_dark", ["#ffffff", "#c3c7cc", "#6f7680"])
_HALO = [withStroke(linewidth=3.4, foreground="white")]


def _surface(figure: Figure, axes: Axes, plane: _Plane, split: str) -> None:
    """Draw one loss as filled contours, every second line labelled where there is room, with a colour bar."""
    values, small = plane.losses[split], axes.xaxis.get_label().get_fontsize() - 2
    axes.set(xlim=(plane.x[0], plane.x[-1]), ylim=(plane.y[0], plane.y[-1]))
    # Where the place for a panel has another shape than the plane, it stays at the corner that labels were
    # measured from: centred, they may end up outside of the figure.
    axes.set_aspect("equal", anchor="NW")
    axes.grid(False)
    for which in (axes.xaxis, axes.yaxis):
        which.set_major_locator(MaxNLocator(5, steps=_STEPS))
    if not np.isfinite(values).any():
        axes.text(0.5, 0.5, f"no finite {split} loss", transform=axes.transAxes, ha="center", color=_GREY)
        return
    levels = _levels(values)
    ticks = levels[::2]
    words = dict(zip(ticks, _distinct(ticks), strict=True))
    shown = np.ma.masked_invalid(np.clip(values, levels[0], None))
    norm = BoundaryNorm(levels, _PALE_TO_DARK.N, extend="max")
    style = {"levels": levels, "norm": norm, "cmap": _PALE_TO_DARK, "extend": "max"}
    shades = axes.contourf(plane.x, plane.y, shown, **style)
    lines = axes.contour(plane.x, plane.y, shown, levels=levels[1:], colors=_GREY, linewidths=0.45)
    spots = _label_spots(lines, ticks, plane)
    if spots:
        axes.clabel(lines, manual=spots, fmt=words, fontsize=small, colors=_INK)
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
    marks += [np.array([least[:2]]) for least in (plane.least(split) for split in _SPLITS) if least]
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


def _on_plane(axes: Axes, plane: _Plane, look: _Look) -> None:
    """Draw the iterates' path, the solutions and the least losses."""
    path = plane.iterates
    if len(path):
        axes.plot(path["x"], path["y"], color=_INK, lw=0.7, marker="o", ms=1.6, zorder=3)
        for k, marker in ((0, _FIRST), (-1, _LAST)):
            axes.plot(path["x"].iloc[k], path["y"].iloc[k], marker, color=_INK, ms=4, zorder=4)
    for row in plane.solutions.to_dict("records"):
        colour = look.colour(row["role"])
        style = {"mfc": colour, "mec": _INK, "mew": 0.6, "ms": 6}
        if not row["on_plane"]:
            style = {"mfc": "none", "mec": colour, "mew": 1.8, "ms": 8}
        axes.plot(row["x"], row["y"], _MARKERS[row["role"]], zorder=5 if row["on_plane"] else 4.8, **style)
    for split in _SPLITS:
        least = plane.least(split)
        if least:
            style = {"color": _INK, "ms": 10, "ls": "", "path_effects": _HALO, **_CROSSES[split]}
            axes.plot(
                *least[:2], zorder=4.5, clip_on=False, **style
            )  # its arms show behind a solution at the same place


def _seen_plane(name: str, data: Data, spec: Spec) -> str:
    told = []
    planes = list(_planes(name, data))
    for label, plane in planes:
        words = []
        rows = plane.points[plane.points["role"].isin(SOLUTIONS)]
        for split in _SPLITS:
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
            off.append(f"iterates {_range(path['distance'])}")
        if off:
            words.append(f"out of the plane: {', '.join(off)}")
        if len(path):
            shares = [_percent(float(path[f"explained_{axis}"].iloc[0])) for axis in ("x", "y")]
            words.append(f"the axes have {shares[0]} and {shares[1]} of the iterates' variance")
        steps = [number(float(np.ptp(values)) / (len(values) - 1)) for values in (plane.x, plane.y)]
        words.append(f"grid step {steps[0]} by {steps[1]}")
        told.append((f"{label} (seed {plane.seed})", "; ".join(words)))
    if not told:
        return ""
    table = data["planes"][data["planes"]["plane"] == name]
    policy = ", ".join(dict.fromkeys(table["bn_policy"]))
    return (
        f"{_recipe_note(table)}Batch-norm statistics: {policy}. Distances are in 2-norm of weights, and"
        f" within the plane unless said:{_list(told)}"
    )


# shift ----------------------------------------------------------------------------------------------


_WIDE = 4  # panels in a row
_CUT = 1.5
_POLICIES = {"fixed": ("-", "b = 0"), "free": ("--", "b free")}


def _at_first(table: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """Return the first solution that a table has, and its rows at it."""
    solution = next(iter(_ordered(table["solution"])), "sgd")
    return solution, table[table["solution"] == solution]


def _by_probe(
    table: pd.DataFrame,
    look: _Look,
    panel: Callable[[Axes, pd.DataFrame, _Look], None],
    x: str,
    y: str,
    **options: Any,
) -> tuple[Figure, Any]:
    """Draw a panel a probe, a cell's in rows of their own; `x` and `y` label the axes."""
    cells = [(label, list(part.groupby("probe", sort=False))) for label, _, part in _cells(table)]
    columns = min(_WIDE, max(len(probes) for _, probes in cells))
    rows = [
        (label if start == 0 else "", probes[start : start + columns])
        for label, probes in cells
        for start in range(0, len(probes), columns)
    ]
    figure, grid = _panels(look, len(rows), columns, 1.75 if columns > 2 else 2.3, **options)
    raised = 6 + 1.5 * float(look.style["font_size"])
    for (label, probes), panels in zip(rows, grid, strict=True):
        for axes, (probe, here) in zip(panels, probes, strict=False):
            panel(axes, here, look)
            _heading(axes, label if axes is panels[0] else "", str(probe), _GREY, room=200, pad=raised)
            axes.set_xlabel(x)
        for axes in panels[len(probes) :]:
            axes.remove()
        panels[0].set_ylabel(y)
    return figure, grid


def _shift_rows(data: Data) -> tuple[str, pd.DataFrame]:
    """Return the shift curves at the first solution, without those of kind sign."""
    table = data["shift"]
    return _at_first(table[table["kind"] != "sign"])


def _shift(_part: str, data: Data, spec: Spec, look: _Look) -> Figure | None:
    _, table = _shift_rows(data)
    if table.empty:
        return None
    figure, grid = _by_probe(table, look, _shift_panel, "shift δ / R", "gap ξδ / ξ0", sharey=True)
    grid[0, 0].set_ylim(0, _CUT)
    grid[0, 0].yaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
    _legend(figure, [
        *(
            Line2D([], [], color=look.colour(policy), ls=dashes, lw=1.6, label=f"{text}, median")
            for policy, (dashes, text) in _POLICIES.items()
        ),
        Patch(fc=look.colour("fixed"), alpha=_SHADE, label="middle 80 %, b = 0"),
        Line2D([], [], color=look.colour("free"), lw=0.6, ls="--", label="middle 80 %, b free"),
    ])  # fmt: skip
    return figure


def _shift_panel(axes: Axes, here: pd.DataFrame, look: _Look) -> None:
    axes.axvline(0, color=_GREY, lw=0.8)
    axes.axhline(1, color=_GREY, lw=0.8)
    for policy, (dashes, _) in _POLICIES.items():
        good = here[(here["policy"] == policy) & np.isfinite(here["relative_gap"])]
        values = good.groupby("delta_over_r")["relative_gap"]
        if not len(values):
            continue
        middle, low, high = values.median(), values.quantile(0.1), values.quantile(0.9)
        colour = look.colour(policy)
        if policy == "fixed":
            axes.fill_between(middle.index, low, high, color=colour, alpha=_SHADE, lw=0)
        else:
            for edge in (low, high):
                axes.plot(middle.index, edge, color=colour, ls=dashes, lw=0.6)
        axes.plot(middle.index, middle, color=colour, ls=dashes, lw=1.6)
    axes.set_xlim(here["delta_over_r"].min(), here["delta_over_r"].max())
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
    n = len(here.drop_duplicates(DIRECTION))
    axes.annotate(
        f"n = {n}", (0, 0), xycoords="axes fraction", xytext=(4, 4), textcoords="offset points", color=_GREY,
        fontsize=axes.xaxis.get_label().get_fontsize() * 0.9,
    )  # fmt: skip


def _seen_shift(_part: str, data: Data, spec: Spec) -> str:
    solution, table = _shift_rows(data)
    if table.empty:
        return ""
    found = measures.shifts(table, data["asymmetry"], solution)
    told = []
    for label, _, part in _cells(found):
        for probe, here in part.groupby("probe", sort=False):
            words = []
            for policy, (_, text) in _POLICIES.items():
                rows = here[here["policy"] == policy]
                left = _finite(1 - rows["share"])
                size = _finite(rows["delta"].abs())
                if len(left) and len(size):
                    words.append(
                        f"{text}: {_percent(float(np.median(left)))} left at |δ*| = "
                        f"{number(float(np.median(size)))} R"
                    )
            told.append((f"{label}, {probe}", "; ".join(words) or "no gap to remove"))
    step = np.diff(np.unique(table["delta_over_r"])).min(initial=1.0)
    return (
        f"{_recipe_note(table)}Directions at {solution}. The best shift δ* is found for each direction, finer"
        f" than the {number(step)} R between the points drawn; one much smaller than that does not show."
        f" Medians over directions:{_list(told, 4 * _LISTED)}"
    )


# sign -----------------------------------------------------------------------------------------------


def _sign_points(data: Data) -> tuple[str, pd.DataFrame]:
    """Return the first solution, and its directions of kind sign as u and as -u."""
    probed = data["asymmetry"][data["asymmetry"]["kind"] == "sign"]
    solution, _ = _at_first(probed)
    return solution, measures.signs(probed, data["directions"], solution)


def _sign(_part: str, data: Data, spec: Spec, look: _Look) -> Figure | None:
    _, points = _sign_points(data)
    if points.empty:
        return None
    cells = list(_cells(points))
    groups = list(dict.fromkeys(points["group"]))
    figure, grid = _panels(look, len(cells), len(groups), 2.1, sharex=True, sharey=True)
    colour = look.colour("sgd")
    raised = 6 + 1.5 * float(look.style["font_size"])
    for (label, _, part), row in zip(cells, grid, strict=True):
        for axes, group in zip(row, groups, strict=True):
            here = part[part["group"] == group]
            _heading(axes, label if axes is row[0] else "", str(group), _GREY, room=200, pad=raised)
            if here.empty:
                axes.annotate(
                    "not probed", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", color=_GREY
                )
                continue
            axes.axhline(0, color=_GREY, lw=0.8)
            axes.axvline(50, color=_GREY, lw=0.8)
            _sign_panel(axes, here, spec["level"], colour)
        row[0].set_ylabel("asymmetry index")
    for axes in grid[-1]:
        axes.set_xlabel("agreement in sign [%]")
    grid[0, 0].set_xlim(-6, 106)
    grid[0, 0].set_xticks([0, 25, 50, 75, 100])
    grid[0, 0].yaxis.set_major_locator(MaxNLocator(7, steps=_STEPS))
    _legend(figure, [
        Line2D([], [], color=colour, marker="o", ms=2.5, alpha=0.5, ls="", label="one direction"),
        Line2D(
            [], [], color=colour, marker="o", ms=6, lw=1.2,
            label=f"mean, {_percent(spec['level'])} interval over seeds",
        ),
        Line2D([], [], color=colour, marker="o", ms=6, mfc="white", ls="", label="the same directions as -u"),
    ])  # fmt: skip
    return figure


def _sign_panel(axes: Axes, points: pd.DataFrame, level: float, colour: Any) -> None:
    """Draw the directions of one cell and group: those probed, and -u of those where none was probed near."""
    points = points[np.isfinite(points["index"])]
    probed = _sign_means(points[~points["mirrored"]], level)
    shown = [(probe, at, interval, colour) for probe, at, interval in probed]
    for probe, at, interval in _sign_means(points[points["mirrored"]], level):
        if all(abs(at - other) > 0.1 for _, other, _ in probed):
            shown.append((probe, at, interval, "white"))
    shown = sorted(shown, key=lambda item: item[1])
    axes.plot([100 * at for _, at, _, _ in shown], [i.estimate for _, _, i, _ in shown], color=colour, lw=0.8)
    for probe, at, interval, face in shown:
        here = points[(points["probe"] == probe) & (points["mirrored"] == (face == "white"))]
        axes.plot(
            100 * here["agreement"], here["index"], "o", color=colour, mfc=face, ms=2.5, mew=0.5, alpha=0.45
        )
        bars = [[interval.estimate - interval.low], [interval.high - interval.estimate]]
        axes.errorbar(
            100 * at, interval.estimate, yerr=bars if np.isfinite(bars).all() else None, color=colour,
            fmt="o", ms=5, mfc=face, lw=1.2, capsize=2.5, zorder=3,
        )  # fmt: skip


def _sign_means(points: pd.DataFrame, level: float) -> list[tuple[str, float, Interval]]:
    """Return each probe's name, mean agreement and mean index with its interval over seeds, by agreement."""
    found = [
        (
            str(probe),
            float(rows["agreement"].mean()),
            mean_interval(rows.groupby("seed")["index"].mean(), level),
        )
        for probe, rows in points[np.isfinite(points["index"])].groupby("probe")
    ]
    return sorted(found, key=lambda item: item[1])


def _seen_sign(_part: str, data: Data, spec: Spec) -> str:
    solution, points = _sign_points(data)
    if points.empty:
        return ""
    told = []
    for label, _, part in _cells(points):
        for group, here in part.groupby("group", sort=False):
            probed = here[~here["mirrored"]]
            means = ", ".join(
                f"{number(i.estimate)} at {_percent(at)}" for _, at, i in _sign_means(probed, spec["level"])
            )
            lost = int((~np.isfinite(probed["index"])).sum())
            left_out = f"; {lost} of {len(probed)} directions have none" if lost else ""
            rho = _interval(measures.correlations(here), spec["level"], limits=(-1, 1))
            told.append(
                (
                    f"{label}, {group}",
                    f"{means or 'none'}; rank correlation within a minimum {rho}"
                    f" ({_count(here['seed'].nunique(), 'seed')}{left_out})",
                )
            )
    level = _percent(spec["level"])
    return (
        f"{_recipe_note(points)}Directions at {solution}. Mean index by share of entries with the sign of w,"
        f" and their rank correlation with its {level} t interval:{_list(told, 2 * _LISTED)}"
    )


# toy ------------------------------------------------------------------------------------------------


def _toy_surface(_part: str, data: Data, spec: Spec, look: _Look) -> Figure | None:
    surface = data["toy_2d_surface"]
    if surface.empty:
        return None
    wide = surface.pivot(index="bias", columns="weight", values="loss")
    figure, grid = _panels(look, 1, 2, 2.7)
    left, right = grid[0]
    z = wide.to_numpy()
    low, high = max(float(np.nanmin(z)), 1e-6), float(np.nanmax(z))
    levels = np.geomspace(low, max(high, low * 1.01), 15)
    z = np.clip(z, levels[0], levels[-1])
    norm = LogNorm(levels[0], levels[-1])
    shades = left.contourf(wide.columns, wide.index, z, levels=levels, norm=norm, cmap="Greys_r", alpha=0.75)
    left.contour(wide.columns, wide.index, z, levels=levels, colors="white", linewidths=0.4)
    bar = figure.colorbar(shades, ax=left, shrink=0.75, aspect=25, pad=0.02)
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
    right.axvline(0, color=_GREY, lw=0.8)
    right.set(xlabel="offset l", ylabel="loss [nats]")
    right.set_ylim(bottom=0)
    right.set_box_aspect(1)
    if handles:
        _legend(figure, handles)
    return figure


def _seen_toy_surface(_part: str, data: Data, spec: Spec) -> str:
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
    return f"{lowest}.{_list(told)}"


def _verdict(row: Mapping[str, Any]) -> str:
    words = str(row["status"]).replace("_", " ")
    return f"{words} (c* = {number(row['c_star'])})" if np.isfinite(row["c_star"]) else words


def _toy_curves(_part: str, data: Data, spec: Spec, look: _Look) -> Figure | None:
    table = data["toy_2d_curves"]
    if table.empty:
        return None
    recipes = list(dict.fromkeys(table["recipe"]))
    figure, grid = _panels(look, 1, len(recipes), 2.6, sharey=True)
    for axes, recipe in zip(grid[0], recipes, strict=True):
        here = table[table["recipe"] == recipe]
        colour = look.colour(recipe)
        for _, curve in here.groupby("draw"):
            axes.plot(curve["offset"], curve["loss"], color=colour, lw=0.5, alpha=0.35)
        mean = here.groupby("offset")["loss"].mean()
        axes.plot(mean.index, mean, color=colour, lw=2.2)
        axes.axvline(0, color=_GREY, lw=0.8)
        _heading(axes, f"recipe {recipe}", f"n = {here['draw'].nunique()}", _GREY)
        axes.set_xlabel("offset l")
        axes.set_xlim(here["offset"].min(), here["offset"].max())
    grid[0, 0].set_ylabel("loss [nats]")
    grid[0, 0].set_ylim(bottom=0)
    handles = [
        Line2D([], [], color=_GREY, lw=0.5, label="one data draw"),
        Line2D([], [], color=_GREY, lw=2.2, label="mean of the draws"),
    ]
    _legend(figure, handles)
    return figure


def _seen_toy_curves(_part: str, data: Data, spec: Spec) -> str:
    if data["toy_2d_curves"].empty:
        return ""
    told = []
    for recipe, part in data["toy_2d"].groupby("recipe", sort=False):
        share = wilson(int((part["status"] == "asymmetric").sum()), len(part), spec["level"])
        symmetric, unsettled = (int((part["status"] == s).sum()) for s in ("symmetric", "not_minimum"))
        loss, minus, plus = (number(part[key].median()) for key in ("loss", "rise_minus", "rise_plus"))
        words = (
            f"{_percent(share.estimate)} of {share.n} draws asymmetric at c* ≥ {spec['c']:g}"
            f" ({_percent(share.low)} to {_percent(share.high)}), {symmetric} symmetric, {unsettled} not at a"
            f" minimum along the line; median loss {loss} nats at the solution, median"
            f" rise {minus} nats at the lower end of the line and {plus} at the upper"
        )
        told.append((f"recipe {recipe}", words))
    return f"Verdicts of Definition 1 ({_percent(spec['level'])} Wilson intervals):{_list(told)}"


# theory ---------------------------------------------------------------------------------------------


def _ratio_axis(axes: Axes, ratios: Sequence[float]) -> None:
    """Make the x axis that of c: logarithmic, with a tick at each value."""
    axes.set_xscale("log")
    axes.set_xticks(ratios, [_plain(c) for c in ratios])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(min(ratios) / 1.25, max(ratios) * 1.25)


def _theory_average(_part: str, data: Data, spec: Spec, look: _Look) -> Figure | None:
    table = data["theory_average"]
    if table.empty:
        return None
    shapes, rates = list(dict.fromkeys(table["shape"])), list(dict.fromkeys(table["lr"]))
    noises = list(dict.fromkeys(zip(table["noise"], table["level"], strict=True)))
    kinds, levels = (list(dict.fromkeys(column)) for column in zip(*noises, strict=True))
    figure, grid = _panels(look, len(rates) + 1, len(shapes), 2.0, sharex=True)
    ratios = sorted(set(table["c"]))
    z = sps.norm.ppf((1 + spec["level"]) / 2)
    looks = [
        (kind, level, look.nth(levels.index(level)), kinds.index(kind), 1.05 ** (i - (len(noises) - 1) / 2))
        for i, (kind, level) in enumerate(noises)
    ]  # the last: points side by side
    for row, lr in zip(grid, rates, strict=False):
        for axes, shape in zip(row, shapes, strict=True):
            here = table[(table["shape"] == shape) & (table["lr"] == lr) & (table["c"] > 1)]
            for kind, level, colour, k, beside in looks:
                part = here[(here["noise"] == kind) & (here["level"] == level)].sort_values("c")
                seen, bound = part[part["mean"] > 0], part[part["bound"] > 0]
                axes.errorbar(
                    seen["c"] * beside, seen["mean"], yerr=z * seen["mean_se"], color=colour, fmt="os"[k],
                    ms=4, lw=1,
                )  # fmt: skip
                style = {"ls": ("-", "--")[k], "lw": 1.2, "marker": "_", "ms": 5}
                axes.plot(bound["c"] * beside, bound["bound"], color=colour, **style)
            values = _finite([*here["mean"], *here["bound"]])
            if (values > 0).any():
                _log_axis(axes, values[values > 0].min() / 1.2, 1.2 * values.max())
            _heading(axes, shape if lr == rates[0] else "", f"step size {lr:g}", _GREY)
        row[0].set_ylabel("mean of the average [x]")
    for axes, shape in zip(grid[-1], shapes, strict=True):
        here = table[(table["shape"] == shape) & (table["lr"] == max(rates))]
        for kind, level, colour, k, beside in looks:
            part = here[(here["noise"] == kind) & (here["level"] == level)]
            x, style = part["c"] * beside, {"color": colour, "marker": "os"[k], "ls": ""}
            axes.plot(x, part["average_loss"] / part["iterate_loss"], ms=3, **style)
            axes.plot(x, part["loss_kept"], ms=6, mfc="none", mew=0.8, **style)
        axes.set_ylim(-0.04, 1)
        _linear_axis(axes)
        _heading(axes, "", f"step size {max(rates):g}", _GREY)
        _ratio_axis(axes, ratios)
        axes.set_xlabel("slope ratio c")
    grid[-1][0].set_ylabel("train loss / of iterates")
    handles = [
        Line2D([], [], color=look.nth(i), lw=3, label=f"noise up to {level:g}")
        for i, level in enumerate(levels)
    ]
    handles += [
        Line2D([], [], color=_GREY, marker="os"[i], ls=("-", "--")[i], ms=4, lw=1.2, label=f"{kind}; bound")
        for i, kind in enumerate(kinds)
    ]
    handles += [
        Line2D([], [], color=_GREY, marker="o", ls="", ms=3, label="at the average"),
        Line2D([], [], color=_GREY, marker="o", ls="", ms=6, mfc="none", label="at the mean of averages"),
    ]
    _legend(figure, handles)
    return figure


def _seen_theory_average(_part: str, data: Data, spec: Spec) -> str:
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
            bound = uneven[uneven["bound"] > 0]
            if len(bound):
                ratio = _range(bound["mean"] / bound["bound"])
                words.append(f"{ratio} times the bound in the {len(bound)} where this is positive")
            else:
                words.append("no bound is positive")
            words.append(f"there {_range(uneven['loss_kept'])} of the iterates' training loss stays")
        if len(even):
            far = _range(even["mean"].abs() / even["mean_se"])
            words.append(f"with c = 1 the mean is {far} standard errors from 0")
            words.append(
                f"the average has {_range(even['average_loss'] / even['iterate_loss'])} of the iterates' loss"
            )
        told.append((str(shape), "; ".join(words)))
    about = table.iloc[0]
    return (
        f"{about['chains']} chains a row, {about['iterates']} iterates averaged after {about['burn_in']}"
        f" others. {table['c'].gt(1).sum()} of {len(table)} rows are asymmetric.{_list(told)}"
    )


def _theory_gain(_part: str, data: Data, spec: Spec, look: _Look) -> Figure | None:
    table = data["theory_gain"]
    if table.empty:
        return None
    scale = table["scale"].max()
    table = table[table["scale"] == scale]
    shapes, shifts = list(dict.fromkeys(table["shape"])), list(dict.fromkeys(table["shift"]))
    ratios = sorted(set(table["c"]))
    figure, grid = _panels(look, len(shifts), len(shapes), 2.3, sharex=True)
    z = sps.norm.ppf((1 + spec["level"]) / 2)
    for row, shift in zip(grid, shifts, strict=True):
        for axes, shape in zip(row, shapes, strict=True):
            here = table[(table["shape"] == shape) & (table["shift"] == shift)]
            axes.axhline(0, color=_GREY, lw=0.8)
            for i, c in enumerate(ratios):
                part = here[here["c"] == c].sort_values("bias")
                x = part["bias"] / scale
                colour = look.nth(i)
                axes.errorbar(x, part["gain"], yerr=z * part["gain_se"], color=colour, fmt="o", ms=3.5, lw=1)
                axes.plot(x, part["exact"], color=colour, lw=1.2)
                axes.plot(x, part["bound"], color=colour, lw=0.9, ls="--")
                if c > 1 and len(part):
                    axes.plot(part["limit"].iloc[0] / scale, 0, "|", color=colour, ms=11, mew=1.6, zorder=4)
            values = _finite([*here["gain"], *here["exact"]])
            if len(values) and values.max() > 0:  # losses may be many times the gains
                axes.set_ylim(
                    max(values.min(), -1.2 * values.max()) - 0.05 * values.max(), 1.1 * values.max()
                )
            _linear_axis(axes)
            _heading(axes, shape if shift == shifts[0] else "", f"shift {shift}", _GREY)
        row[0].set_ylabel("expected gain [loss]")
    for axes in grid[-1]:
        axes.set_xlabel("bias / d")
    handles = [Line2D([], [], color=look.nth(i), lw=3, label=f"c = {c:g}") for i, c in enumerate(ratios)]
    handles += [
        Line2D([], [], color=_GREY, marker="o", ms=3.5, ls="", label="simulated"),
        Line2D([], [], color=_GREY, lw=1.2, label="closed form"),
        Line2D([], [], color=_GREY, lw=0.9, ls="--", label="bound"),
        Line2D([], [], color=_GREY, marker="|", ms=11, mew=1.6, ls="", label="limit"),
    ]
    _legend(figure, handles)
    return figure


def _seen_theory_gain(_part: str, data: Data, spec: Spec) -> str:
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
        if len(even):
            words.append(f"for {int((even['gain'] > 0).sum())} of {len(even)} where c = 1")
        exact = rows[np.isfinite(rows["exact"])]
        if len(exact):
            off = (exact["gain"] - exact["exact"]).abs() / exact["gain_se"]
            words.append(f"at most {number(off.max())} standard errors from the closed form")
        told.append((str(shape), "; ".join(words)))
    return (
        f"{table['draws'].iloc[0]} shifts a row; drawn for d = {number(table['scale'].max())}, told of all"
        f" {table['scale'].nunique()} values of d.{_list(told)}"
    )


def _measured(data: Data) -> tuple[str, pd.DataFrame]:
    """Return the first solution that the table has, and means over each minimum's directions there."""
    table = data["theory_measured"]
    solution, table = _at_first(table[table["kind"] != "sign"])
    return solution, measures.gains(table, solution)


_STATUSES = ("asymmetric", "symmetric")
_DRAWN = ("uniform", 0.25)  # shift law and scale


def _theory_measured(_part: str, data: Data, spec: Spec, look: _Look) -> Figure | None:
    _, table = _measured(data)
    table = table[(table["shift"] == _DRAWN[0]) & (table["scale"] == _DRAWN[1])]
    if table.empty:
        return None

    def panel(axes: Axes, here: pd.DataFrame, look: _Look) -> None:
        _gain_panel(axes, here, spec["level"], look)
        axes.tick_params(labelbottom=True)

    figure, _ = _by_probe(table, look, panel, "bias b / R", "gain [nats]", sharex=True)
    _legend(figure, [
        Line2D([], [], color=colour, marker="o", ms=4, lw=1.4, ls=dashes, label=f"{status}, {what}",
               mfc=colour if dashes == "-" else "white")
        for status, colour in zip(_STATUSES, (look.colour("sgd"), _GREY), strict=True)
        for dashes, what in (("-", "shifted train"), ("--", "test"))
    ])  # fmt: skip
    return figure


def _gain_panel(axes: Axes, here: pd.DataFrame, level: float, look: _Look) -> None:
    axes.axhline(0, color=_GREY, lw=0.8)
    counts, means, ends = [], [0.0], []
    for i, (status, colour) in enumerate(zip(_STATUSES, (look.colour("sgd"), _GREY), strict=True)):
        part = here[here["status"] == status]
        counts.append(str(part.groupby("seed")["directions"].first().sum()))
        if part.empty:
            continue
        for column, dashes, face in (("gain", "-", colour), ("test_gain", "--", "white")):
            x = np.array(sorted(set(part["bias"])))
            wide = part.pivot(index="seed", columns="bias", values=column).to_numpy()
            mean, low, high = _band(wide, level)
            bars = np.nan_to_num([mean - low, high - mean])
            means += list(_finite(mean))
            ends += list(_finite([low, high]))
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
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
    _linear_axis(axes)
    axes.annotate(
        f"n = {' + '.join(counts)}", (0, 0), xycoords="axes fraction", xytext=(4, 4),
        textcoords="offset points", color=_GREY, fontsize=axes.xaxis.get_label().get_fontsize() * 0.85,
    )  # fmt: skip


def _seen_theory_measured(_part: str, data: Data, spec: Spec) -> str:
    solution, table = _measured(data)
    if table.empty:
        return ""
    told, level = [], spec["level"]
    half = table[(table["shift"] == _DRAWN[0]) & (table["bias"] == table["scale"] / 2)]
    for label, _, part in _cells(half):
        for probe, here in part.groupby("probe", sort=False):
            words = []
            for status in _STATUSES:
                rows = here[(here["status"] == status) & (here["scale"] == _DRAWN[1])]
                wide = here[(here["status"] == status) & (here["scale"] == 0.5)]
                if len(rows):
                    words.append(
                        f"{status} {_interval(rows['gain'], level, sign=True)} nats, test"
                        f" {_interval(rows['test_gain'], level, sign=True)}"
                        f" ({_count(len(rows), 'seed')}; shift and bias doubled:"
                        f" {_interval(wide['gain'], level, sign=True)})"
                    )
            told.append((f"{label}, {probe}", "; ".join(words)))
    all_rows = data["theory_measured"]
    positive = _percent((all_rows["bound"] > 0).mean()), _percent((all_rows["best_bound"] > 0).mean())
    return (
        f"{_recipe_note(table)}Directions at {solution}. The proved bound is positive in {positive[0]} of all"
        f" rows of the table with the window of Definition 1, and in {positive[1]} with the best window. Gain"
        f" of a bias of R/8, with its {_percent(level)} t interval over minima:{_list(told, 4 * _LISTED)}"
    )


# study ----------------------------------------------------------------------------------------------


_MEASURES = {
    "index": "|asymmetry index|",
    "share": "asymmetric [%]",
    "width": "width R / |w|",
    "eigenvalue": "top eigenvalue",
    "swa_rise": "swa − descent, train [nats]",
    "swa_gain": "descent − swa, test [nats]",
}
_PAIRED = ("width", "eigenvalue", "swa_rise", "swa_gain")
_OF_CELLS = ("swa_rise", "swa_gain")  # the same whatever was probed
_SERIES_MARKERS = "osD^vP"


@dataclass(frozen=True)
class _Series:
    """Minima that have one look in a study's figure: those of one probe, with the penalty or without."""

    name: str
    penalty: bool
    colour: Any
    marker: str
    rows: pd.DataFrame

    @property
    def text(self) -> str:
        return f"{self.name}, with penalty" if self.penalty else self.name


def _one_study(name: str, data: Data, spec: Spec) -> outcomes.Study | None:
    table = data.get("study")
    if table is None or table.empty:
        return None
    found = outcomes.studies(table[table["study"] == name], spec.get("factors"))
    return found[0] if found else None


def _series(study: outcomes.Study, look: _Look) -> list[_Series]:
    """Return the probes in the order of the table, each followed by itself with the penalty."""
    found = []
    for i, probe in enumerate(dict.fromkeys(study.minima["probe"])):
        rows = study.minima[study.minima["probe"] == probe]
        marker = _SERIES_MARKERS[i % len(_SERIES_MARKERS)]
        for penalty in sorted(set(rows["penalty"])):
            part = rows[rows["penalty"] == penalty]
            found.append(_Series(str(probe), bool(penalty), look.nth(i), marker, part))
    return found


def _rows_of(study: outcomes.Study) -> list[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """Return what stands in each row of panels: a heading, and its lines with arguments for `Study.take`."""
    if not study.factors:
        return [(" / ".join(map(str, study.minima.loc[0, CELL])), [("", {})])]
    return [
        (factor_name(f), [(outcomes.text_of(v), {"factor": f, "level": v}) for v in levels])
        for f, levels in study.factors.items()
    ]


def _held(study: outcomes.Study) -> list[str]:
    """Return the measures a study's table holds, in the order of `_MEASURES`."""
    good = study.minima[study.minima["trained"]]
    return ["index", "share", *(m for m in list(_MEASURES)[2:] if np.isfinite(good[m]).any())]


def _shown(study: outcomes.Study, series: Sequence[_Series], measure: str) -> list[_Series]:
    """Return the series that a panel shows: one for what no probe changes, else those that have values."""
    if measure in _OF_CELLS:
        cells = study.minima.drop_duplicates(outcomes.CELL)
        return [_Series("", False, _INK, "o", cells)]
    if measure in ("index", "share"):
        return list(series)
    return [one for one in series if not one.penalty and np.isfinite(one.rows[measure]).any()]


def _study(name: str, data: Data, spec: Spec, look: _Look) -> Figure | None:
    study = _one_study(name, data, spec)
    if study is None:
        return None
    series, blocks, measures_ = _series(study, look), _rows_of(study), _held(study)
    bands = 1 if len(measures_) <= 4 else 2  # rows of panels for each factor
    columns = math.ceil(len(measures_) / bands)
    tall = [0.5 + len(lines) * (0.12 + 0.14 * len(series)) for _, lines in blocks for _ in range(bands)]
    figure, grid = _panels(look, len(tall), columns, sum(tall) / len(tall) + 0.3, height_ratios=tall)
    raised = 6 + 1.5 * float(look.style["font_size"])
    for i, (heading, lines) in enumerate(blocks):
        for j in range(columns * bands):
            axes = grid[i * bands + j // columns][j % columns]
            if j >= len(measures_):
                axes.remove()
                continue
            measure = measures_[j]
            _study_panel(axes, study, measure, lines, _shown(study, series, measure), spec["level"])
            _heading(axes, heading if j % columns == 0 else "", room=200, pad=raised)
            axes.annotate(
                _MEASURES[measure], (0, 1), xycoords="axes fraction", xytext=(0, 5), color=_GREY,
                textcoords="offset points", va="baseline",
            )  # fmt: skip
            if j % columns or not study.factors:
                axes.tick_params(labelleft=False)
    for j, measure in enumerate(measures_):  # one scale for a measure, whatever the factor
        _same_scale([grid[i * bands + j // columns][j % columns] for i in range(len(blocks))], measure)
    _legend(figure, _study_handles(study, series, measures_, spec["level"]))
    return figure


def _study_panel(
    axes: Axes,
    study: outcomes.Study,
    measure: str,
    lines: Sequence[tuple[str, dict[str, Any]]],
    shown: Sequence[_Series],
    level: float,
) -> None:
    """Draw one measure: a line a level, and within it one a series."""
    step = 0.74 / max(len(shown), 1)
    lower = min(0.3 * step, 0.12)  # where minima are not hidden by the interval of their mean
    size = axes.xaxis.get_label().get_fontsize()
    if measure in _OF_CELLS:
        axes.axvline(0, color=_GREY, lw=0.8)
    for k, one in enumerate(shown):
        places: dict[Any, list[tuple[float, float]]] = {}
        style = {"color": one.colour, "marker": one.marker, "mfc": "white" if one.penalty else one.colour}
        for y, (_, where) in enumerate(lines):
            at = y + (k - (len(shown) - 1) / 2) * step
            here = study.take(one.rows, where)
            good = here[here["trained"]]
            if measure == "share":
                _study_share(axes, good, at, level, style, size)
                continue
            for seed, value in zip(good["seed"], good[measure], strict=True):
                places.setdefault(seed, []).append((value, at + lower))
            values, lost = _finite(good[measure]), _finite(here.loc[~here["trained"], measure])
            below = at + lower
            # As an artist, which has no part in the limits: such values may be far from all others.
            crosses = {"color": _GREY, "marker": "x", "ls": "", "ms": 4, "mew": 0.8}
            axes.add_artist(Line2D(lost, np.full(len(lost), below), **crosses))
            axes.plot(
                values, np.full(len(values), below), "o", color=one.colour, mfc=style["mfc"], ms=2.5, mew=0.5,
                alpha=0.45,
            )  # fmt: skip
            found = mean_interval(values, level)
            if found.n:
                bars = [[found.estimate - found.low], [found.high - found.estimate]]
                axes.errorbar(
                    found.estimate, at, xerr=bars if np.isfinite(bars).all() else None, ls="", ms=4.5, lw=1.2,
                    capsize=2, zorder=3, **style,
                )  # fmt: skip
        if measure in _PAIRED and study.design == "one_at_a_time":
            for points in places.values():
                axes.plot(*zip(*points, strict=True), color=one.colour, lw=0.5, alpha=0.4)
    axes.set_yticks(range(len(lines)), [text for text, _ in lines])
    axes.set_ylim(len(lines) - 0.45, -0.55)
    axes.grid(False, axis="y")
    for y in range(1, len(lines)):
        axes.axhline(y - 0.5, color="#e8eaed", lw=0.6, zorder=0)
    axes.tick_params(axis="y", length=0)


def _study_share(
    axes: Axes, good: pd.DataFrame, at: float, level: float, style: Mapping[str, Any], size: float
) -> None:
    hits, n = int(good["asymmetric"].sum()), int(good["directions"].sum())
    if not n:
        return
    found = wilson(hits, n, level)
    share, low, high = (100 * v for v in (found.estimate, found.low, found.high))
    axes.errorbar(
        share, at, xerr=[[max(share - low, 0)], [max(high - share, 0)]], ms=4.5, lw=1.2, capsize=2, ls="",
        clip_on=False, zorder=3, **style,
    )  # fmt: skip
    axes.annotate(
        f"{hits}/{n}", (1.04, at), xycoords=("axes fraction", "data"), va="center", fontsize=size * 0.72,
        color=_GREY, annotation_clip=False,
    )  # fmt: skip


def _same_scale(panels: Sequence[Axes], measure: str) -> None:
    """Give all panels of a measure one x axis: from 0, or about 0 where it has a sign."""
    low, high = (
        f(ends) for f, ends in zip((min, max), zip(*(a.get_xlim() for a in panels), strict=True), strict=True)
    )
    if measure == "share":
        low, high = 0, 100
    elif low > 0 or measure == "index":
        low = 0
    for axes in panels:
        axes.set_xlim(low, high)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))


def _study_handles(
    study: outcomes.Study, series: Sequence[_Series], shown: Sequence[str], level: float
) -> list[Line2D]:
    handles = [
        Line2D(
            [], [], color=one.colour, marker=one.marker, mfc="white" if one.penalty else one.colour, ms=4.5,
            lw=1.2, label=one.text,
        )
        for one in series
    ]  # fmt: skip
    if set(shown) & set(_OF_CELLS):
        handles.append(Line2D([], [], color=_INK, marker="o", ms=4.5, lw=1.2, label="swa, descent"))
    handles.append(Line2D([], [], color=_GREY, marker="o", ms=2.5, alpha=0.5, ls="", label="one minimum"))
    if not study.minima["trained"].all():
        text = f"train accuracy < {_percent(outcomes.TRAINED)}"
        handles.append(Line2D([], [], color=_GREY, marker="x", ms=4, mew=0.8, ls="", label=text))
    return handles


def _seen_study(name: str, data: Data, spec: Spec) -> str:
    study = _one_study(name, data, spec)
    if study is None:
        return ""
    level, told = spec["level"], []
    look = _Look(_style(spec))
    series, measured = _series(study, look), _held(study)
    for heading, lines in _rows_of(study):
        for one in series:
            parts = []
            for text, where in lines:
                good = study.take(one.rows, where)
                good = good[good["trained"]]
                n = int(good["directions"].sum())
                if n:
                    share = f"{int(good['asymmetric'].sum())} of {n} asymmetric"
                    index = _interval(good["index"], level, limits=(0, np.inf))
                    parts.append(f"{text} {index}, {share}".strip())
            told.append((f"{heading}, {one.text}", "; ".join(parts) or "no trained minimum"))
        for measure in measured[2:]:
            for one in _shown(study, series, measure):
                parts = []
                for text, where in lines:
                    good = study.take(one.rows, where)
                    values = _finite(good.loc[good["trained"], measure])
                    if len(values):
                        parts.append(f"{text} {_interval(values, level)}".strip())
                what = ", ".join(x for x in (heading, _MEASURES[measure], one.name) if x)
                told.append((what, "; ".join(parts)))
    cells = study.minima.drop_duplicates(outcomes.CELL)
    lost = int((~cells["trained"]).sum())
    about = f"{len(cells)} {'minimum' if len(cells) == 1 else 'minima'} at {study.solution}"
    if lost:
        about += f", {lost} of them below {_percent(outcomes.TRAINED)} train accuracy and left out"
        about += " (crosses, where they lie within the axis)"
    held = ", ".join(outcomes.label(f, v) for f, v in study.base.items())
    held = f" Other factors are held at {held}." if held else ""
    if study.design == "crossed":
        held = " Means at a level are over all levels of the other factors."
    plain = study.minima[study.minima["trained"] & ~study.minima["penalty"]]
    steep = f"{int(plain['plus_steep'].sum())} of {int(plain['indexed'].sum())}"
    return (
        f"{about}.{held} +u is the steeper side of {steep} directions. Mean |index| with its"
        f" {_percent(level)} t interval, and verdicts:{_list(told, 5 * _LISTED)}"
    )


_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")

# Words ----------------------------------------------------------------------------------------------


def number(value: float, digits: int = 3) -> str:
    """Write a number for people: significant digits, a true minus sign, powers of ten written out."""
    if not np.isfinite(value):
        return "not finite"
    if value and not 1e-4 <= abs(value) < 1e5:
        leading, power = f"{value:.{digits - 1}e}".split("e")
        text = f"{leading} × 10{str(int(power)).translate(_RAISED)}"
    else:
        text = f"{value:.0f}" if abs(value) >= 10**digits - 0.5 else f"{value:.{digits}g}"
    return text.replace("-", "−")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0") + " %" if np.isfinite(share) else "not finite"


def _mean(values: Any) -> float:
    good = _finite(values)
    return float(good.mean()) if len(good) else float("nan")


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"


def _interval(
    values: Any, level: float, sign: bool = False, limits: tuple[float, float] = (-np.inf, np.inf)
) -> str:
    found = mean_interval(_finite(values), level)
    plus = "+" if sign and found.estimate > 0 else ""
    if not np.isfinite(found.low):
        return f"{plus}{number(found.estimate)}"
    low, high = (number(float(np.clip(end, *limits))) for end in (found.low, found.high))
    return f"{plus}{number(found.estimate)} ({low} to {high})"


def _range(values: Any) -> str:
    good = _finite(values)
    if not len(good):
        return "not finite"
    low, high = number(good.min()), number(good.max())
    return low if low == high else f"{low} to {high}"


def _list(told: Sequence[tuple[str, str]], most: int = _LISTED) -> str:
    """Return findings, one a line; past `most` only so many are written, and how many more there are."""
    lines = [f"\n• {label}: {words}" for label, words in told[:most]]
    if len(told) > most:
        lines.append(f"\n• and {len(told) - most} more (see the tables)")
    return "".join(lines)


def _ordered(names: Any) -> list[str]:
    found = list(dict.fromkeys(names))
    return sorted(found, key=lambda n: SOLUTIONS.index(n) if n in SOLUTIONS else len(SOLUTIONS))


def _recipe_note(table: pd.DataFrame) -> str:
    recipes = list(dict.fromkeys(table["recipe"]))
    return f"Recipe: {recipes[0]}. " if len(recipes) == 1 else ""


def _kind(name: str) -> tuple[str, str]:
    if name in ("training", "prevalence", "sensitivity", "shift", "sign", "toy-surface", "toy-curves"):
        return name, ""
    if name in ("theory-average", "theory-gain", "theory-measured"):
        return name, ""
    kind, _, part = name.partition("-")
    if kind in ("curves", "line", "plane", "study") and part:
        return kind, part
    known = "training, prevalence, sensitivity, curves-<probe>, line-<line>, plane-<plane>, shift, sign, "
    known += "toy-surface, toy-curves, theory-average, theory-gain, theory-measured, study-<study>"
    raise ValleysError(f"figure {name!r} is not known; there are {known}")


_DRAW: dict[str, Callable[[str, Data, Spec, _Look], Figure | None]] = {
    "training": _training,
    "prevalence": _prevalence,
    "sensitivity": _sensitivity,
    "curves": _curves,
    "line": _line,
    "plane": _plane,
    "shift": _shift,
    "sign": _sign,
    "toy-surface": _toy_surface,
    "toy-curves": _toy_curves,
    "theory-average": _theory_average,
    "theory-gain": _theory_gain,
    "theory-measured": _theory_measured,
    "study": _study,
}
_SEEN: dict[str, Callable[[str, Data, Spec], str]] = {
    "training": _seen_training,
    "prevalence": _seen_prevalence,
    "sensitivity": _seen_sensitivity,
    "curves": _seen_curves,
    "line": _seen_line,
    "plane": _seen_plane,
    "shift": _seen_shift,
    "sign": _seen_sign,
    "toy-surface": _seen_toy_surface,
    "toy-curves": _seen_toy_curves,
    "theory-average": _seen_theory_average,
    "theory-gain": _seen_theory_gain,
    "theory-measured": _seen_theory_measured,
    "study": _seen_study,
}
_TITLES = {
    "training": "Training",
    "prevalence": "Prevalence of asymmetric directions",
    "sensitivity": "Prevalence against the constants of Definition 1",
    "curves": "Loss along directions: {}",
    "line": "Line between solutions: {}",
    "plane": "Plane through weight space: {}",
    "shift": "Shift between train and test loss",
    "sign": "Asymmetry and agreement in sign with the weights",
    "toy-surface": "2-D MLP: loss surface",
    "toy-curves": "2-D MLP: loss along a direction, all draws",
    "theory-average": "Averaged SGD in simulated valleys",
    "theory-gain": "Gain of a bias to the flat side under a random shift",
    "theory-measured": "Gain of a bias to the flat side on measured curves",
    "study": "Study: {}",
}
_NOTHING = {
    "training": "Nothing to draw: the training table has no rows.",
    "prevalence": "Nothing to draw: no direction was probed.",
    "sensitivity": "Nothing to draw: no direction was probed.",
    "curves": "Nothing to draw: no curve was measured for the probe {}.",
    "line": "Nothing to draw: the line {} was not measured.",
    "plane": "Nothing to draw: the plane {} was not measured.",
    "shift": "Nothing to draw: no direction was probed.",
    "sign": "Nothing to draw: no direction of kind sign was probed.",
    "toy-surface": "Nothing to draw: the 2-D surface has no points.",
    "toy-curves": "Nothing to draw: the 2-D MLP has no curves.",
    "theory-average": "Nothing to draw: no chain was simulated.",
    "theory-gain": "Nothing to draw: no gain was simulated.",
    "theory-measured": "Nothing to draw: no direction with a minimum was probed.",
    "study": "Nothing to draw: no direction was probed in the study {}.",
}
