"""The least point of a curve, between its offsets too, and its rises at equal distances from there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline, CubicSpline

from valleys.asymmetry.grids import RELATIVE_TOLERANCE, Floats
from valleys.asymmetry.spline import LARGE, unbent


class OwnMinimum(NamedTuple):
    """What curves do about their least points; of B curves each array has shape (B,)."""

    minimum: Floats
    """m, the offset of the least point."""
    reach: Floats
    """R' = R - |m|: how far the curve goes from m on both sides."""
    rise_plus: Floats
    """phi(m + R') - phi(m)."""
    rise_minus: Floats
    """phi(m - R') - phi(m)."""


def own_minimum(
    offsets: Floats, losses: Floats, slopes: Floats | None, lowest: NDArray[np.int64], within: float
) -> OwnMinimum:
    """Return where curves are least, and how far they rise at equal distances from there.

    Between its offsets a curve is on the spline of `spline.upsample`, which has the slopes where they are
    given. Beside a kink that spline swings below the curve. No convex curve through the points is below the
    two lines that come in from either side, each through two points (with slopes: a tangent). So where the
    spline is below the point where they meet, that one is taken for the least.

    Parameters
    ----------
    offsets, losses : ndarray, shape (B, n)
        Checked, as in `definition.detect_many`.
    slopes : ndarray, shape (B, n), optional
        Exact derivatives.
    lowest : ndarray of int, shape (B,)
        Number of each curve's lowest point; the least one is sought as far as its neighbours.
    within : float
        Greatest ``|m|``, as a share of R.
    """
    radius, rows = offsets[:, -1], np.arange(len(losses))
    x, middle = offsets / radius[:, None], losses[:, losses.shape[1] // 2]
    given = None if slopes is None else slopes * radius[:, None]
    pieces = _pieces(x, losses, given)
    at, least = x[rows, lowest], losses[rows, lowest]
    right, left = (_beside(x, losses, given, pieces, lowest, side, within) for side in (1, -1))
    lower = (right[1] < least, left[1] < least)
    for (there, value), here, other in zip((right, left), lower, lower[::-1], strict=True):
        chosen = here & ~other  # lower on both sides: a spline that swings about a flat bottom
        at, least = np.where(chosen, there, at), np.where(chosen, value, least)
    reach = 1 - np.abs(at)
    plus, minus = (unbent(_values(x, pieces, at + side * reach), middle) for side in (1, -1))
    # As they were measured, where these are the ends: no rounding, and no end to what can be held.
    plus, minus = np.where(at >= 0, losses[:, -1], plus), np.where(at <= 0, losses[:, 0], minus)
    return OwnMinimum(at * radius, reach * radius, plus - least, minus - least)


def _pieces(x: Floats, losses: Floats, slopes: Floats | None) -> Floats:
    """Return the cubics of the spline of asinh(rise / `LARGE`), highest power first: shape (4, n - 1, B)."""
    rise = (losses - losses[:, losses.shape[1] // 2, None]) / LARGE
    bent = np.arcsinh(rise)
    steepness = None if slopes is None else slopes / (LARGE * np.hypot(1, rise))

    def spline(grid: Floats, part: slice) -> Floats:
        if steepness is None:
            return CubicSpline(grid, bent[part], axis=1).c
        return CubicHermiteSpline(grid, bent[part], steepness[part], axis=1).c

    if not len(x) or np.ptp(x, axis=0).max() <= RELATIVE_TOLERANCE:
        return spline(x[0], slice(None)) if len(x) else np.empty((4, x.shape[1] - 1, 0))
    return np.concatenate([spline(grid, slice(k, k + 1)) for k, grid in enumerate(x)], axis=2)


def _beside(
    x: Floats,
    losses: Floats,
    slopes: Floats | None,
    pieces: Floats,
    lowest: NDArray[np.int64],
    side: int,
    within: float,
) -> tuple[Floats, Floats]:
    """Return the least point between the lowest one and its neighbour on a side, and the loss there."""
    rows, last = np.arange(len(losses)), losses.shape[1] - 1
    behind, here, next_, beyond = (np.clip(lowest + k * side, 0, last) for k in (-1, 0, 1, 2))
    start, y = x[rows, here], losses[rows, here]
    width = side * (x[rows, next_] - start)

    # The spline's: where the derivative of its cubic passes 0 upwards.
    piece = np.minimum(here, np.minimum(next_, last - 1))
    cubic, square, slope = (pieces[k, piece, rows] for k in range(3))
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = -slope / (square + np.sqrt(square**2 - 3 * cubic * slope))
    there = x[rows, piece] + inside
    between = np.isfinite(inside) & (side * (there - start) >= 0) & (side * (there - start) <= width)
    there = np.clip(np.where(between, there, start), -within, within)
    value = unbent(_values(x, pieces, there), losses[:, last // 2])

    # Where the two lines meet; or nearer, where a slope that changes evenly from one to the other is 0, as
    # lines along a flat bottom meet far out. At the lowest point itself where they do not meet beside it.
    back, further = (side * (start - x[rows, behind]), side * (x[rows, beyond] - x[rows, next_]))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if slopes is None:
            down = (y - losses[rows, behind]) / back
            up = (losses[rows, beyond] - losses[rows, next_]) / further
            first, last_ = -back / 2, width + further / 2
        else:
            down, up = side * slopes[rows, here], side * slopes[rows, next_]
            first, last_ = np.zeros(len(x)), width
        corner = (losses[rows, next_] - up * width - y) / (down - up)
        level = first + (last_ - first) * down / (down - up)
    meet = np.clip(np.minimum(corner, level), 0, width)
    meet = np.where(np.isfinite(meet) & (down < np.minimum(up, 0)), meet, 0.0)
    meet = side * np.clip(start + side * meet, -within, within) - side * start
    floor = y + np.where(meet > 0, down * meet, 0.0)
    below = value < floor
    return np.where(below, start + side * meet, there), np.where(below, floor, value)


def _values(x: Floats, pieces: Floats, at: Floats) -> Floats:
    """Return each curve's spline at a place of its own, shape (B,)."""
    rows = np.arange(len(x))
    piece = np.clip((x <= at[:, None]).sum(axis=1) - 1, 0, x.shape[1] - 2)
    distance = at - x[rows, piece]
    value = np.zeros(len(x))
    for coefficients in pieces:
        value = value * distance + coefficients[piece, rows]
    return value
