"""The shift between a train and a test curve (paper, section 4.2), and what a bias to one side costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator
from scipy.optimize import minimize_scalar

from valleys.asymmetry.grids import (
    OFFSET_TOLERANCE,
    RELATIVE_TOLERANCE,
    Floats,
    checked_grid,
    checked_numbers,
)
from valleys.errors import ValleysError


@dataclass(frozen=True)
class Shift:
    """Shift that best carries a training curve onto a test curve (Assumption 1, Definition 3).

    Attributes
    ----------
    delta : float
        The minimising shift: ``phi_test(l + delta)`` is closest to ``phi_train(l) + b``.
    gap : float
        Largest remaining difference, in units of loss: the shift gap.
    b : float
        Constant offset between the curves, test minus train; 0 when it was not free.
    gap_at_zero : float
        The gap at no shift (with its own best b where b is free).
    radius : float
        The differences were taken at the offsets with ``|l| <= radius``.
    at_bound : bool
        Whether delta lies at the largest shift tried, so that the true one may lie beyond.
    """

    delta: float
    gap: float
    b: float
    gap_at_zero: float
    radius: float
    at_bound: bool

    def asdict(self) -> dict[str, float | bool]:
        """Return the fields as a dict, in the order of declaration."""
        return asdict(self)


def shift(
    offsets: ArrayLike,
    train: ArrayLike,
    test: ArrayLike,
    *,
    max_shift: float | None = None,
    free_offset: bool,
) -> Shift:
    """Find the shift between a training and a test curve and the gap that remains.

    ``delta* = argmin_d max_l |phi_test(l + d) - phi_train(l) - b|`` with b = 0 (the paper's Assumption 1) or
    b free, where the best b for a given d is the midrange of the difference. The test curve is interpolated
    by PCHIP (monotone between offsets, never beyond them). l runs over the offsets with
    ``|l| <= R - max_shift``, the same for every d: dropping the points that leave the range as d grows would
    make large shifts look better than they are.

    Parameters
    ----------
    offsets : array_like, shape (n,)
        As in `detect`.
    train, test : array_like, shape (n,)
        Losses at the offsets.
    max_shift : float, optional
        Largest shift tried, in units of the offsets; R / 4 by default.
    free_offset : bool
        Whether b is free.

    Raises
    ------
    ValleysError
        Bad curves, or a ``max_shift`` that leaves fewer than 3 offsets to compare at.
    """
    offsets, train, test = _two_curves(offsets, train, test)
    max_shift = offsets[-1] / 4 if max_shift is None else float(max_shift)
    gaps = _Gaps(offsets, train, test, max_shift, free_offset)
    # An odd count, so that 0 is tried; twice as fine as the offsets, so that no dip of their size is missed.
    half = 2 * len(offsets)
    grid = max_shift * np.arange(-half, half + 1) / half
    gap = gaps(grid)
    # Equal gaps (constant curves) go to the smallest shift, and rounding must not decide which are equal.
    slack = 1e-12 * (np.abs(train).max() + np.abs(test).max())
    near = np.flatnonzero(gap <= gap.min() + slack)
    k = near[np.abs(grid[near]).argmin()]
    delta, best = float(grid[k]), float(gap[k])
    bounds = (grid[max(k - 1, 0)], grid[min(k + 1, len(grid) - 1)])
    fine = minimize_scalar(
        lambda d: gaps(np.array([d]))[0],
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-10 * float(offsets[-1])},
    )
    if fine.fun < best - slack:
        delta, best = float(fine.x), float(fine.fun)
    return Shift(
        delta=delta,
        gap=best,
        b=gaps.b(delta),
        gap_at_zero=float(gap[half]),
        radius=gaps.radius,
        at_bound=bool(abs(delta) >= max_shift * (1 - 1e-6)),
    )


def shift_curve(
    offsets: ArrayLike,
    train: ArrayLike,
    test: ArrayLike,
    deltas: ArrayLike,
    *,
    max_shift: float | None = None,
    free_offset: bool,
) -> Floats:
    """Return the gap xi_delta at each shift of a grid (the paper's plot of xi_delta against delta).

    Parameters
    ----------
    offsets, train, test, free_offset
        As in `shift`.
    deltas : array_like, shape (D,)
        Shifts, none larger in size than ``max_shift``.
    max_shift : float, optional
        Sets the offsets compared at, as in `shift`; the largest ``|deltas|`` by default.

    Returns
    -------
    ndarray, shape (D,)
        Gaps, in units of loss.

    Raises
    ------
    ValleysError
        As in `shift`, or deltas beyond ``max_shift``.
    """
    offsets, train, test = _two_curves(offsets, train, test)
    deltas = checked_numbers(deltas, "deltas")
    if deltas.ndim != 1 or not len(deltas) or not np.isfinite(deltas).all():
        raise ValleysError("deltas: expected a non-empty list of finite shifts")
    largest = float(np.abs(deltas).max())
    max_shift = largest if max_shift is None else float(max_shift)
    if largest > max_shift * (1 + RELATIVE_TOLERANCE):
        raise ValleysError(f"deltas: {largest:g} is beyond max_shift {max_shift:g}")
    return _Gaps(offsets, train, test, max_shift, free_offset)(deltas)


def _two_curves(offsets: ArrayLike, train: ArrayLike, test: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Check two curves on one grid; return them as arrays of shape (n,)."""
    curves = {"train": checked_numbers(train, "train"), "test": checked_numbers(test, "test")}
    for name, curve in curves.items():
        if curve.ndim != 1:
            raise ValleysError(f"{name}: expected one curve, shape (n,), got shape {curve.shape}")
        grid = checked_grid(offsets, curve[None], name)[0]
    return grid, curves["train"], curves["test"]


class _Gaps:
    """Differences between a shifted test curve and a training curve, on one set of offsets for all shifts."""

    def __init__(
        self, offsets: Floats, train: Floats, test: Floats, max_shift: float, free_offset: bool
    ) -> None:
        self.radius = float(offsets[-1] - max_shift)
        kept = np.abs(offsets) <= self.radius + OFFSET_TOLERANCE * offsets[-1]
        if not (isfinite(max_shift) and max_shift >= 0) or kept.sum() < 3:
            raise ValleysError(
                f"max_shift: {max_shift:g} leaves fewer than 3 offsets of [-{offsets[-1]:g}, {offsets[-1]:g}]"
            )
        self.at, self.train, self.free = offsets[kept], train[kept], free_offset
        self.limits = offsets[0], offsets[-1]
        self.test = PchipInterpolator(offsets, test)

    def _differences(self, deltas: Floats) -> Floats:
        # Clipped: at the largest shift, rounding may step over the end of the range.
        return self.test(np.clip(deltas[:, None] + self.at, *self.limits)) - self.train

    def __call__(self, deltas: Floats) -> Floats:
        """Return the gap at each shift, shape (D,)."""
        differences = self._differences(deltas)
        if self.free:
            return (differences.max(axis=1) - differences.min(axis=1)) / 2
        return np.abs(differences).max(axis=1)

    def b(self, delta: float) -> float:
        """Return the best constant at one shift: the midrange of the difference, or 0 when not free."""
        differences = self._differences(np.array([delta]))[0]
        return float(differences.max() + differences.min()) / 2 if self.free else 0.0
