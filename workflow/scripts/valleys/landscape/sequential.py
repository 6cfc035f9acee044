"""Curves and segments on as many images as their verdict needs (`growing` says how it is settled)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from valleys.asymmetry import confidence as settling
from valleys.asymmetry import next_point
from valleys.asymmetry.grids import RISE_TOLERANCE, Floats
from valleys.asymmetry.spline import upsample
from valleys.errors import ValleysError
from valleys.landscape.evaluator import Evaluator, check_finite
from valleys.landscape.growing import Growing, Settled, until_settled
from valleys.landscape.lines import CurvePoint, Radius, check_direction, find_radius, line_offsets
from valleys.landscape.subsets import ERRORS, with_errors


def curve_until(
    evaluator: Evaluator,
    direction: Mapping[str, Tensor],
    *,
    confidence: float,
    first: float,
    cap: float,
    rise: float = 1.0,
    radius: float | None = None,
    points: int = 31,
    budget: int | None = None,
    index: bool = False,
    seed: int = 0,
    constants: Mapping[str, float] | None = None,
) -> tuple[list[CurvePoint], list[float], Radius, Settled]:
    """Return a curve on as many images as its verdict by Definition 1 needs.

    Points are chosen as `adaptive.probe_adaptively` does, on the images so far.

    Parameters
    ----------
    evaluator, direction
        As in `probe_line`; all of the evaluator's train images are those that the verdict is about.
    confidence, budget
        As in `until_settled`.
    first, cap, rise
        As in `find_radius`: R is found on the images of the first look. It is found anew where the rise on
        more of them is off by more than its tolerance and two standard errors.
    radius
        Or this R.
    points
        Of the grid; odd.
    index
        Whether the sign of the asymmetry index is to be settled instead.
    seed
        Of the order in which images come.
    constants
        Of Definition 1.

    Returns
    -------
    curve
        The points measured, as of `probe_line`, on the images of the last look, with the columns `ERRORS` of
        the train loss (`with_errors`): against all images, None where these were used.
    offsets
        The whole grid.
    radius, settled
        R, and the verdict.

    Raises
    ------
    ValleysError
        As in `until_settled`, `probe_line` and `find_radius`; when a loss at the solution is not finite.
    """
    check_direction(direction, evaluator.parameters)
    curve = _Curve(evaluator, direction, points, rise, first, cap, index, constants or {}, seed)
    curve.radius = None if radius is None else Radius(float(radius), "fixed")
    try:
        settled = until_settled(curve.growing, confidence, budget, curve.judge)
        return curve.rows(), curve.offsets, curve.radius, settled
    finally:
        evaluator.reset()


class _Curve:
    """A curve that grows."""

    def __init__(
        self,
        evaluator: Evaluator,
        direction: Mapping[str, Tensor],
        points: int,
        rise: float,
        first: float,
        cap: float,
        index: bool,
        constants: Mapping[str, float],
        seed: int,
    ) -> None:
        self.evaluator, self.direction, self.points = evaluator, direction, points
        self.reach = {"rise": rise, "first": first, "cap": cap}
        self.index, self.constants = index, constants
        self.growing = Growing(evaluator, seed)
        self.radius: Radius | None = None
        self.offsets: list[float] = []
        self.measured: dict[float, dict[str, float]] = {}

    def judge(self, alpha: float) -> Any:
        """Return the verdict on the images so far; None where it is not settled."""
        if self.radius is None:
            self.radius = find_radius(self.growing.so_far(), self.direction, **self.reach)
        self._measure()
        if self._off():
            self.radius = find_radius(self.growing.so_far(), self.direction, **self.reach)
            self.growing.forget()
            self.measured.clear()
            self._measure()
        at, losses = self._found()
        deviations, freedom = self.growing.errors([self.offsets[i] for i in at])
        if not np.isfinite(losses).all() or not np.isfinite(deviations).all():
            return None if self.growing.images < self.growing.total else "not_minimum"
        full, bent = _upsampled(self.offsets, at, losses, deviations)
        options = {"alpha": alpha, "freedom": freedom, **self.constants}
        settle = settling.settled_index if self.index else settling.settled_status
        return settle(self.offsets, full, bent, **options)

    def _measure(self) -> None:
        """Measure the points on the images so far, and those that the curve needs besides."""
        self.offsets = line_offsets(self.radius.radius, self.points)
        wanted = list(self.measured) or [self.offsets[i] for i in next_point.first_points(self.points)]
        for offset in wanted:
            self._point(offset)
        check_finite("the solution", self.measured[0.0]["train_loss"])
        while True:
            at, losses = self._found()
            beside = [self.measured[self.offsets[i]]["test_loss"] for i in at]
            if not np.isfinite(losses).all() or np.isinf(beside).any():
                return
            more = next_point.next_point(self.offsets, at, losses, beside=beside, **self.constants)
            if more is None:
                return
            self._point(self.offsets[more])

    def _point(self, offset: float) -> None:
        self.measured[offset] = self.growing.point(offset, lambda x: self.evaluator.move(self.direction, x))

    def _found(self) -> tuple[list[int], Floats]:
        """Return the numbers of the offsets measured, and the train losses there."""
        at = [i for i, offset in enumerate(self.offsets) if offset in self.measured]
        return at, np.array([self.measured[self.offsets[i]]["train_loss"] for i in at])

    def _off(self) -> bool:
        """Return whether the rise at R is not the one asked for."""
        if self.radius.status != "found":
            return False
        ends = {side: self.measured[side]["train_loss"] for side in (self.offsets[0], self.offsets[-1])}
        higher = max(ends, key=ends.__getitem__)
        rise, wanted = ends[higher] - self.measured[0.0]["train_loss"], self.reach["rise"]
        deviations, _ = self.growing.errors([0.0, higher])
        error = np.linalg.norm(deviations @ [-1, 1])
        return bool(abs(rise - wanted) > RISE_TOLERANCE * wanted + 2 * error)

    def rows(self) -> list[CurvePoint]:
        """Return the points measured, in the order of their offsets."""
        rows = [{"offset": x, **self.measured[x], "train_slope": None} for x in sorted(self.measured)]
        if self.growing.images == self.growing.total:
            return [{**row, **dict.fromkeys(ERRORS)} for row in rows]
        made_of, _ = self.growing.errors(sorted(self.measured))
        return with_errors(rows, {"train": self.growing.total}, {"train": made_of})


def _upsampled(
    offsets: Sequence[float], at: list[int], losses: Floats, deviations: Floats
) -> tuple[Floats, Floats]:
    """Return a curve and what its errors are made of at all offsets, through the spline's linear part."""
    full = upsample(offsets, at, losses)[0]
    if len(at) == len(offsets):
        return full, deviations
    step = 1e-5 * max(float(np.ptp(losses)), 1e-9)
    slopes = [
        (upsample(offsets, at, losses + move)[0] - upsample(offsets, at, losses - move)[0]) / (2 * step)
        for move in step * np.eye(len(at))
    ]
    return full, deviations @ np.array(slopes)


def without_errors(rows: Iterable[Mapping[str, Any]], settled: Settled | None) -> list[dict[str, Any]]:
    """Return points of a line as the table ``interpolation`` has them: how it was settled, and no errors."""
    how = {"images": settled.images, "settled": settled.verdict is not None} if settled else {}
    return [{key: value for key, value in row.items() if key != "train_error"} | how for row in rows]


def segment_until(
    evaluator: Evaluator,
    stop: Mapping[str, Tensor],
    *,
    confidence: float,
    threshold: float,
    points: int | Sequence[float] = 21,
    budget: int | None = None,
    seed: int = 0,
) -> tuple[list[dict[str, float]], Settled]:
    """Return the line to other weights on as many images as it takes to place its barrier.

    Parameters
    ----------
    evaluator
        Starts at t = 0.
    stop
        Weights of t = 1, by parameter name.
    confidence, budget, seed
        As in `curve_until`.
    threshold
        The barrier is settled to be above it or not; units of the loss.
    points
        So many t in [0, 1], evenly spaced, both ends among them, 3 or more. Or these t, ascending: 0, 1 and
        another between them, and any beyond, which the barrier does not hang on.

    Returns
    -------
    points
        ``t``, the values of `Point`, and ``train_error`` as in `curve_until`, of the rise over t = 0.
    settled
        Its verdict: whether the barrier is above the threshold.

    Raises
    ------
    ValleysError
        As in `until_settled`; for fewer points, or a loss that is not finite at an end.
    """
    if isinstance(points, int) and points < 3:
        raise ValleysError(f"path: points: {points} is too few for a barrier; give 3 or more")
    asked = [i / (points - 1) for i in range(points)] if isinstance(points, int) else list(points)
    growing, ts = Growing(evaluator, seed), [t for t in asked if 0 <= t <= 1]
    rows: list[dict[str, float]] = []

    def measured(t: float) -> dict[str, float]:
        return {"t": t, **growing.point(t, lambda t: evaluator.between(stop, t))}

    def judge(alpha: float) -> bool | None:
        rows[:] = [measured(t) for t in ts]
        losses = np.array([row["train_loss"] for row in rows])
        for t in (0, -1):
            check_finite(f"t = {ts[t]:g}", losses[t])
        deviations, freedom = growing.errors(ts)
        errors = np.linalg.norm(deviations - deviations[:, :1], axis=0)
        for row, error in zip(rows, errors.tolist(), strict=True):
            row["train_error"] = None if growing.images == growing.total else error
        if not np.isfinite(losses).all():
            return True
        options = {"alpha": alpha, "freedom": freedom, "threshold": threshold}
        return settling.settled_barrier(ts, losses, deviations, **options)

    try:
        settled = until_settled(growing, confidence, budget, judge)
        beyond = [measured(t) | {"train_error": None} for t in asked if not 0 <= t <= 1]
        return sorted([*rows, *beyond], key=lambda row: row["t"]), settled
    finally:
        evaluator.reset()
