"""Curves between measured points: a spline through them and its errors; no verdicts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicHermiteSpline, CubicSpline, PchipInterpolator

from valleys.asymmetry.grids import Floats

LARGE = 10.0  # nats: rises beyond are interpolated by their logarithms (`upsample`)


def upsample(
    offsets: ArrayLike, at: Sequence[int], values: ArrayLike, slopes: ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """Return a curve at all offsets of which it was measured at some, on a cubic spline through these.

    The spline is one of ``asinh((y - y(0)) / 10)``: of the values themselves where they are of the size of
    losses, of their logarithm where they explode, as beside a minimum whose batch norm is frozen. A spline of
    those themselves swings by thousands about the side that stays low.

    Parameters
    ----------
    offsets : array_like, shape (n,)
        All, as in `detect`.
    at : sequence of int, length m
        Numbers of those measured, ascending; the middle one and both ends are among them.
    values, slopes : array_like, shape (m,)
        At these; with `slopes` the spline has them.

    Returns
    -------
    values, slopes : ndarray, shape (n,)
        At all offsets, unchanged where they were given. Slopes are otherwise those of the spline.
    """
    x, at, y = np.asarray(offsets, dtype=np.float64), list(at), np.asarray(values, dtype=np.float64)
    given = None if slopes is None else np.asarray(slopes, dtype=np.float64)
    spline = _spline(x, at, y, given)
    bent = spline(x)
    between, steepness = unbent(bent, y[at.index(len(x) // 2)]), spline(x, 1) * LARGE * np.cosh(bent)
    between[at] = y
    if given is not None:
        steepness[at] = given
    return between, steepness


def between(
    offsets: ArrayLike, values: ArrayLike, places: ArrayLike, slopes: ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """Return a curve and its slopes at any places, on the spline of `upsample`.

    Parameters
    ----------
    offsets, values, slopes : array_like, shape (n,)
        The curve, offset 0 in the middle; with `slopes` the spline has them.
    places : array_like, shape (m,)
        Within the offsets.

    Returns
    -------
    values, slopes : ndarray, shape (m,)
    """
    x, y = np.asarray(offsets, dtype=np.float64), np.asarray(values, dtype=np.float64)
    given = None if slopes is None else np.asarray(slopes, dtype=np.float64)
    spline, places = _spline(x, list(range(len(x))), y, given), np.asarray(places, dtype=np.float64)
    bent = spline(places)
    return unbent(bent, y[len(x) // 2]), spline(places, 1) * LARGE * np.cosh(np.clip(bent, -640, 640))


def _spline(x: Floats, at: list[int], y: Floats, slopes: Floats | None) -> CubicHermiteSpline | CubicSpline:
    """Return the spline of `upsample`, of asinh(rise / `LARGE`)."""
    rise = (y - y[at.index(len(x) // 2)]) / LARGE
    if slopes is None:
        return CubicSpline(x[at], np.arcsinh(rise))
    return CubicHermiteSpline(x[at], np.arcsinh(rise), slopes / (LARGE * np.hypot(1, rise)))


def spline_errors(
    x: Floats, at: list[int], y: Floats, slopes: Floats | None
) -> tuple[CubicHermiteSpline | CubicSpline, PchipInterpolator | CubicSpline, Floats, float]:
    """Return the spline, a plainer one, how far apart they are at all offsets, and the range of the curve."""
    spline = _spline(x, at, y, slopes)
    if slopes is None:
        plain = PchipInterpolator(x[at], np.arcsinh((y - y[at.index(len(x) // 2)]) / LARGE))
    else:
        plain = _spline(x, at, y, None)
    error = np.abs(spline(x) - plain(x))
    error[at] = 0.0
    return spline, plain, error, float(np.ptp(spline(x[at])))


def unbent(bent: Floats, middle: float) -> Floats:
    """Return losses again; clipped where float64 ends."""
    return middle + LARGE * np.sinh(np.clip(bent, -640, 640))
