"""Losses along lines, between weights, on planes, and along directions that a search found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from valleys.api.outcomes import Outcome, Rows
from valleys.asymmetry.barriers import Barrier, barrier_on
from valleys.asymmetry.definition import Detection, detect
from valleys.asymmetry.spline import upsample
from valleys.errors import ValleysError
from valleys.landscape.adaptive import measured_at
from valleys.landscape.directions import Direction, difference
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.growing import Settled
from valleys.landscape.lines import Radius
from valleys.landscape.sequential import segment_until, without_errors
from valleys.networks.tensors import vector_norm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from plotly.graph_objects import Figure

    from valleys.landscape.searching import Search

Floats = NDArray[np.float64]
NOISE = 1e-6
"""Differences of loss up to this count as none, as in the workflow's config."""


@dataclass(frozen=True, repr=False)
class Line(Outcome):
    """The loss along a direction.

    Attributes
    ----------
    points
        A dict a point: ``offset`` (2-norm units), ``train_loss``, ``train_accuracy``, ``test_loss``,
        ``test_accuracy``, ``train_slope``.
    direction
        By parameter name, unit 2-norm.
    radius
        How far it goes, and whether the loss rises there as asked for.
    kind, group, k, bn
        The direction's kind ("given" for one's own), group and number; the batch-norm policy.
    grid, settled
        Of a line that was measured until its verdict was settled: all offsets of its grid, of which `points`
        are some, and how the verdict was settled. Points then have ``train_error`` too.
    """

    points: Rows
    direction: Direction
    radius: Radius
    kind: str
    group: str
    k: int
    bn: str
    grid: Sequence[float] = ()
    settled: Settled | None = None

    @property
    def offsets(self) -> Floats:
        """Offsets, 2-norm units."""
        return np.array([point["offset"] for point in self.points])

    @property
    def train_loss(self) -> Floats:
        """Losses on the data, at the offsets."""
        return np.array([point["train_loss"] for point in self.points])

    @property
    def test_loss(self) -> Floats:
        """Losses on the test data; NaN without."""
        return np.array([point["test_loss"] for point in self.points])

    def verdict(self, *, noise: float = NOISE, **constants: Any) -> Detection:
        """Return the verdict by Definition 1 on the train curve; parameters as `valleys.detect`'s."""
        if self.grid and len(self.grid) > len(self.points):
            at = measured_at(self.grid, self.points)
            return detect(self.grid, upsample(self.grid, at, self.train_loss)[0], noise=noise, **constants)
        slopes = [point["train_slope"] for point in self.points]
        if None not in slopes:
            constants.setdefault("slopes", slopes)
        return detect(self.offsets, self.train_loss, noise=noise, **constants)

    def rows(self) -> Rows:
        """Return a dict a point."""
        return self.points

    def summary(self) -> str:
        """Return the verdict and the rises."""
        found = self.verdict()
        return (
            f"{self.kind} direction, R {self.radius.radius:.4g} ({self.radius.status}): {found.status}, "
            f"c* {found.c_star:.3g}, rises {found.rise_minus:.3g} at -R and {found.rise_plus:.3g} at +R"
            + (f"; {self.settled}" if self.settled else "")
        )

    def draw(self, axes: Axes) -> None:
        """Draw the train and the test curve."""
        axes.plot(self.offsets, self.train_loss, marker="o", ms=3, label="train")
        if np.isfinite(self.test_loss).any():
            axes.plot(self.offsets, self.test_loss, ls="--", marker="s", ms=3, label="test")
            axes.legend(frameon=False)
        axes.set_xlabel("offset [2-norm of weights]")
        axes.set_ylabel("loss")
        axes.set_title(f"{self.verdict().status}, c* {self.verdict().c_star:.3g}", fontsize="medium")

    def parts(self) -> dict[str, Rows]:
        """Return rows of ``curves``."""
        about = {**self.names, "probe": self.kind, "kind": self.kind, "group": self.group, "k": self.k}
        if self.grid:
            about["grid_points"] = len(self.grid)
        return {"curves": [{**about, "bn_policy": self.bn, **point} for point in self.points]}


@dataclass(frozen=True, repr=False)
class Segment(Outcome):
    """The loss on the straight line between two sets of weights.

    Attributes
    ----------
    points
        A dict a point: ``t`` (0 here, 1 there), ``offset`` (2-norm units) and the values of a point.
    distance
        Between the two, 2-norm.
    bn
        The batch-norm policy.
    by_example
        Losses of each example of the data at each point, (points, N); (0,) where the loss gives means alone.
    settled
        Of a path that was measured until its barrier was settled: how it was.
    """

    points: Rows
    distance: float
    bn: str
    by_example: Floats
    settled: Settled | None = None

    @property
    def barrier(self) -> Barrier:
        """How far the train loss rises over the chord between the two; inf where a loss is not finite."""
        return self.barrier_of("train")

    def barrier_of(self, split: str) -> Barrier:
        """Return how far the loss rises over the chord, as `barrier`; `split`: ``train`` or ``test``."""
        return barrier_on([p["t"] for p in self.points], [p[f"{split}_loss"] for p in self.points])

    def interval(self, level: float = 0.95, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Return an interval of the barrier's height over the choice of examples; NaN where it is not known.

        By the basic bootstrap: examples are drawn anew with replacement. Batch-norm statistics are not, so
        it is of the loss at the weights measured. It says nothing of other seeds.

        Parameters
        ----------
        level
            Of the interval.
        draws, seed
            Of the bootstrap.
        """
        if not self.by_example.ndim > 1 or not np.isfinite(self.by_example).all():
            return math.nan, math.nan
        count = self.by_example.shape[1]
        weights = (
            np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws) / count
        )
        t, curves = np.array([p["t"] for p in self.points]), weights @ self.by_example.T
        heights = (curves - (1 - t) * curves[:, :1] - t * curves[:, -1:]).max(1)
        low, high = np.quantile(heights, [(1 - level) / 2, (1 + level) / 2])
        own = self.barrier.height
        return max(0.0, float(2 * own - high)), max(0.0, float(2 * own - low))

    def rows(self) -> Rows:
        """Return a dict a point."""
        return self.points

    def summary(self) -> str:
        """Return the distance and the barrier."""
        found, (low, high) = self.barrier, self.interval()
        known = f" ({low:.3g} to {high:.3g})" if math.isfinite(high) else ""
        how = f"; {self.settled}" if self.settled else ""
        return f"distance {self.distance:.4g}, barrier {found.height:.4g}{known} at t = {found.at:.3g}{how}"

    def draw(self, axes: Axes) -> None:
        """Draw train and test loss over t."""
        ts = [p["t"] for p in self.points]
        axes.plot(ts, [p["train_loss"] for p in self.points], marker="o", ms=3, label="train")
        if any(math.isfinite(p["test_loss"]) for p in self.points):
            axes.plot(ts, [p["test_loss"] for p in self.points], ls="--", marker="s", ms=3, label="test")
            axes.legend(frameon=False)
        axes.set_xlabel("t")
        axes.set_ylabel("loss")
        axes.set_title(self.summary(), fontsize="medium")

    def parts(self) -> dict[str, Rows]:
        """Return rows of ``interpolation``."""
        cell = {key: self.names[key] for key in ("dataset", "model", "recipe", "seed")}
        about = {"line": "path", "path": "linear", "start": self.names["solution"], "stop": "other"}
        about |= {"stop_recipe": cell["recipe"], "stop_seed": cell["seed"], "bn_policy": self.bn}
        about |= {key: self.names[key] for key in ("stop", "stop_recipe", "stop_seed") if key in self.names}
        points = without_errors(self.points, self.settled)
        return {"interpolation": [{**cell, **about, **point} for point in points]}


def measure_segment(
    evaluator: Evaluator,
    there: Mapping[str, Tensor],
    points: int,
    *,
    until: float | None = None,
    threshold: float = 0.1,
    budget: int | None = None,
    seed: int = 0,
    names: Mapping[str, Any],
    progress: Callable[[Iterable[float]], Iterable[float]] = iter,
) -> Segment:
    """Return the loss on the straight line from an evaluator's weights to others.

    Parameters
    ----------
    evaluator
        Starts at t = 0.
    there
        Weights of t = 1, by parameter name.
    points
        Evenly spaced, both ends among them.
    until, threshold, budget, seed
        As `valleys.Landscape.path`'s.
    names
        Of the outcome.
    progress
        Wraps the iterator over points.

    Raises
    ------
    ValleysError
        For fewer than 2 points, and as `segment_until`.
    """
    start = {name: evaluator.start[name] for name in evaluator.parameters}
    distance = vector_norm(difference(start, there, list(start)))
    if until is not None:
        options = {"threshold": threshold, "points": points, "budget": budget, "seed": seed}
        rows, settled = segment_until(evaluator, there, confidence=until, **options)
        rows = [{**row, "offset": row["t"] * distance} for row in rows]
        return Segment(rows, distance, evaluator.bn, np.empty(0), settled, names=names)
    if points < 2:
        raise ValleysError(f"path: points: {points} is too few; both ends take 2")
    rows, kept = [], []
    if evaluator.has_image_losses():  # so that the barrier has an interval
        evaluator.drawn_from = {"train": len(evaluator.train_batches)}
    try:
        for t in progress([i / (points - 1) for i in range(points)]):
            evaluator.between(there, t)
            rows.append({"t": t, "offset": t * distance, **evaluator.point().asdict()})
            kept += [each.double().cpu().numpy() for each in evaluator.by_image.values()]
    finally:
        evaluator.drawn_from, evaluator.by_image = {}, {}
        evaluator.reset()
    return Segment(rows, distance, evaluator.bn, np.array(kept), names=names)


@dataclass(frozen=True, repr=False)
class Surface(Outcome):
    """The loss on a grid in a plane through weight space.

    Attributes
    ----------
    points
        A dict a point: ``x``, ``y`` (2-norm units) and the values of a point; y slowest.
    marks
        Where weights lie on it: ``role``, ``epoch``, ``x``, ``y``, ``distance`` out of it, and of a
        trajectory the shares of variance that the axes explain.
    bn
        The batch-norm policy.
    """

    points: Rows
    marks: Rows
    bn: str

    @property
    def xs(self) -> Floats:
        """Coordinates along the first axis."""
        return np.unique([point["x"] for point in self.points])

    @property
    def ys(self) -> Floats:
        """Coordinates along the second axis."""
        return np.unique([point["y"] for point in self.points])

    def grid(self, value: str = "train_loss") -> Floats:
        """Return a value on the grid, shape (len(ys), len(xs))."""
        return np.array([point[value] for point in self.points]).reshape(len(self.ys), len(self.xs))

    def rows(self) -> Rows:
        """Return a dict a point."""
        return self.points

    def summary(self) -> str:
        """Return the range of the loss."""
        values = self.grid()
        return (
            f"{len(self.xs)} x {len(self.ys)} points, train loss {np.nanmin(values):.4g} to "
            f"{np.nanmax(values):.4g}"
        )

    def draw(self, axes: Axes) -> None:
        """Draw the train loss as shades with contours, and what lies on it."""
        values = self.grid()
        finite = np.where(np.isfinite(values), values, np.nanmax(values[np.isfinite(values)]))
        levels = np.unique(np.quantile(finite, np.linspace(0, 1, 12)))
        levels = levels if len(levels) > 1 else levels[0] + np.array([0.0, 1.0])
        shades = axes.contourf(self.xs, self.ys, finite, levels=levels, cmap="Greys", alpha=0.7)
        axes.contour(self.xs, self.ys, finite, levels=levels, colors="0.4", linewidths=0.5)
        axes.figure.colorbar(shades, ax=axes, label="train loss", format="%.3g")
        path = [mark for mark in self.marks if mark["role"] == "iterate"]
        if path:
            axes.plot([m["x"] for m in path], [m["y"] for m in path], marker=".", lw=1, label="iterates")
        for mark in self.marks:
            if mark["role"] != "iterate":
                axes.plot(mark["x"], mark["y"], "o", ls="", label=mark["role"])
        axes.legend(fontsize="small")
        axes.set_xlabel("x [2-norm of weights]")
        axes.set_ylabel("y [2-norm of weights]")

    def plot_3d(self, path: str | Path | None = None, *, log: bool | None = None) -> Figure:
        """Return the surface as a plotly figure to turn, with a menu of train and test loss.

        Points where the loss is not finite are left out, and so are marks above them.

        Parameters
        ----------
        path
            Also write it there: one HTML file of about 5 MB that needs no network.
        log
            Whether the axis of the loss is logarithmic. By default it is where the loss explodes so far that
            a linear one would show the valley flat. A linear one ends where nine points in ten stay below if
            the highest is far above these; what is higher is drawn at its end.

        Raises
        ------
        ValleysError
            Without plotly, when no train loss is finite, for `log` of losses that are not above 0, and for a
            file that cannot be written.
        """
        from valleys.api import surfaces

        drawn = surfaces.figure([surfaces.Plane.of(self.points, self.marks)], log)
        if path is not None:
            surfaces.write(drawn, path)
        return drawn

    def parts(self) -> dict[str, Rows]:
        """Return rows of ``planes`` and ``plane_points``."""
        cell = {key: self.names[key] for key in ("dataset", "model", "recipe", "seed")} | {"plane": "plane"}
        return {
            "planes": [{**cell, "bn_policy": self.bn, **point} for point in self.points],
            "plane_points": [{**cell, **mark} for mark in self.marks],
        }


@dataclass(frozen=True, repr=False)
class Found(Outcome):
    """A direction that a search came to.

    Attributes
    ----------
    search
        The verdict, the direction, a row a restart, and curves (`valleys.landscape.Search`).
    group
        The parameter group.
    """

    search: Search
    group: str

    @property
    def verdict(self) -> str:
        """ "found", "not found", or "measured" for a search for something else."""
        return self.search.verdict

    @property
    def direction(self) -> Direction:
        """The direction, unit 2-norm, flat side at +u."""
        return self.search.direction

    def rows(self) -> Rows:
        """Return a dict a restart."""
        return self.search.restarts

    def summary(self) -> str:
        """Return the verdict, with c* on the images not searched on."""
        best = self.search.best
        why = f" ({self.search.reason})" if self.search.reason else ""
        return (
            f"{self.search.verdict}{why}: on {best['judge_images']:,} examples not searched on "
            f"{best['judge_status']}, c* {best['judge_c_star']:.3g}"
        )

    def draw(self, axes: Axes) -> None:
        """Draw the curve found on each part of the examples, as rises."""
        import pandas as pd

        curves = pd.DataFrame(self.search.curves)
        for name, curve in curves[curves["of"] == "found"].groupby("images", sort=False):
            rise = curve["loss"] - curve.loc[curve["offset"] == 0, "loss"].item()
            axes.plot(curve["offset"], rise, marker=".", label=name)
        axes.legend(frameon=False, fontsize="small")
        axes.set_xlabel("offset [2-norm of weights]")
        axes.set_ylabel("rise in loss")
        axes.set_title(self.search.verdict, fontsize="medium")

    def parts(self) -> dict[str, Rows]:
        """Return rows of ``searches`` and ``search_curves``."""
        about = {**self.names, "probe": "searched", "kind": "searched", "group": self.group, "k": 0}
        return {
            "searches": [{**about, **row} for row in self.search.restarts],
            "search_curves": [{**about, **row} for row in self.search.curves],
        }
