"""Asymmetric directions, the shift between two curves, and the barrier between two solutions.

Source: He, Huang and Yuan, "Asymmetric Valleys: Beyond Sharp and Flat Local Minima", NeurIPS 2019:
Definition 1 (asymmetric direction), Assumption 1 and Definition 3 (shift, shift gap).

Definition 1: u is (r, p, c, zeta)-asymmetric at w, with p > 0, r > zeta > 0 and c > 1, when the curve
``phi(l) = L(w + l u)`` has ``phi'(l) < p`` and ``phi'(-l) < -c p`` for all l in (zeta, r). Then +u is the
flat side and -u the steep one. For a window (zeta, r) the strongest level at which it holds is
``c*(u; zeta, r) = inf [-phi'(-l)] / sup phi'(l)``, both over l in (zeta, r); -u is tried as well.

What is approximated: windows have their ends on the measured offsets (the first one above 0 is the smallest
zeta), and a slope is the difference quotient between neighbouring offsets. By the mean-value theorem each
quotient is a value that phi' takes in that interval, so the largest quotient is at most sup phi' and the
smallest at least inf phi': for its window c* errs upwards, by no more than the change of phi' within a grid
interval, and not at all where phi is linear between offsets. Exact derivatives can be given instead
(`valleys.probe`, ``slopes: exact``); then sup and inf run over the offsets in the closed window. As the best
window may have its ends between offsets, the greatest c* over windows then errs downwards on a coarse grid.
docs/experiments.md compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isfinite, log, nan

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicHermiteSpline, CubicSpline, PchipInterpolator
from scipy.optimize import minimize_scalar

from valleys.errors import ValleysError

Floats = NDArray[np.float64]

_RELATIVE = 1e-9  # two levels or widths of windows closer than this (relative) count as equal
_OFFSET = 1e-6  # two offsets closer than this share of R count as equal: they may come in float32
_LARGEST = 1e300  # of numbers whose differences are taken
TIE = 1e-5  # a level this much (relative) below c counts as c (`reaches`)
_MIN_POINTS = 5
LARGE = 10.0  # nats: rises beyond are interpolated by their logarithms (`finer`)
FIRST = (0.0, 0.2, 0.4, 0.7, 1.0)  # of R: where an adaptive curve is measured first (`first_points`)
KNOWN = 0.015  # the greatest error between its points that is left, as a share of its range (`next_point`)
LEAST_ERROR = 1e-4  # and the smallest that is believed
DOUBT = 2.0  # times the errors expected, that those of its copies have
COPIES = 64  # of a curve, with errors, that its verdict is taken on (`next_point`, `holds`)
_CHUNK = 1_000_000  # windows held at once by detect_many: about 50 MB


@dataclass(frozen=True)
class Detection:
    """Verdict on one curve by Definition 1, with the constants at which it holds.

    Attributes
    ----------
    status : str
        "asymmetric": ``c_star`` reaches c (`reaches`). "symmetric": a minimum along u, and it does not.
        "not_minimum": the curve is lower outside ``[-minimum_within R, minimum_within R]`` than inside, by
        more than the noise, or one side does not rise in any window. "flat": neither side rises by more than
        the noise.
    c_star : float
        Strongest level over all windows and both orientations; NaN for "not_minimum" and "flat". At most 1
        (it may be negative) when no window satisfies the definition at any c > 1.
    flat_side : int
        Sign of l on the flat side where ``c_star > 1`` by more than `TIE`, also below the threshold c; 0 when
        neither side is.
    zeta, r : float
        Window of ``c_star``, in units of the offsets. NaN where ``c_star`` is.
    p : float
        Largest slope on the flat side in that window, loss per unit of offset. NaN where ``c_star`` is.
    argmin_offset : float
        Offset of the lowest loss: within ``minimum_within R``, or anywhere where a lower outside makes it
        "not_minimum".
    rise_plus, rise_minus : float
        ``phi(R) - phi(0)`` and ``phi(-R) - phi(0)``.
    rise_ratio, asymmetry_index : float
        ``rise_minus / rise_plus`` and its log (0 = symmetric); NaN unless both rises are positive.
    """

    status: str
    c_star: float
    flat_side: int
    zeta: float
    r: float
    p: float
    argmin_offset: float
    rise_plus: float
    rise_minus: float
    rise_ratio: float
    asymmetry_index: float

    def asdict(self) -> dict[str, str | float | int]:
        """Return the fields as a dict, in the order of declaration."""
        return asdict(self)


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


@dataclass(frozen=True)
class Barrier:
    """Loss barrier on the segment between two solutions.

    Attributes
    ----------
    height : float
        ``max_t [phi(t) - ((1 - t) phi(0) + t phi(1))]`` over the measured t in [0, 1]; never below 0.
    at : float
        The t of that maximum.
    """

    height: float
    at: float

    def asdict(self) -> dict[str, float]:
        """Return the fields as a dict, in the order of declaration."""
        return asdict(self)


def reaches(level: ArrayLike, c: ArrayLike) -> NDArray[np.bool_]:
    """Return whether levels are at least c, but for the rounding of the losses that they come from.

    A curve with slopes of exactly 2 : 1 has c* = 2 on paper and 1.9999999 in floating point. Losses in
    float32 that rise by about 1 over 20 offsets give c* an error of up to 1e-5 (relative); that is `TIE`. All
    who compare a level or a ratio of rises with a threshold use this.

    Parameters
    ----------
    level : array_like
        c*, or a ratio of rises; NaN, where there is none, reaches nothing.
    c : float or array_like
        The threshold.
    """
    return np.asarray(level, dtype=np.float64) >= np.asarray(c, dtype=np.float64) * (1 - TIE)


def detect(
    offsets: ArrayLike,
    losses: ArrayLike,
    *,
    c: float = 2.0,
    zeta_max: float = 0.5,
    min_span: float = 0.25,
    minimum_within: float = 0.25,
    slopes: ArrayLike | None = None,
    noise: float = 1e-9,
) -> Detection:
    """Decide whether one curve is asymmetric, and find the window in which it is most so.

    All windows (zeta, r) on the grid are searched with ``|argmin| <= zeta <= zeta_max R``, ``r <= R`` and
    ``r - zeta >= min_span R``, R being the largest offset. The greatest c* wins; levels within 1e-9
    (relative) go to the widest window, then to the smallest zeta.

    Parameters
    ----------
    offsets : array_like, shape (n,)
        Strictly increasing, symmetric about 0 and containing 0; n >= 5; spacing may be uneven.
    losses : array_like, shape (n,)
        The curve at the offsets.
    c : float
        Level from which a direction counts as asymmetric (`reaches`); > 1.
    zeta_max : float
        How far from 0 a window may start, as a share of R; in (0, 1). The default leaves room for the flat
        bottom that the curves of deep nets have.
    min_span : float
        Least width of a window as a share of R; positive, and with ``zeta_max`` at most 1.
    minimum_within : float
        How far from 0 the minimum may lie, as a share of R (at most `zeta_max` is used); in (0, 1).
    slopes : array_like, shape (n,), optional
        Exact derivatives of the curve at the offsets, used in place of difference quotients.
    noise : float
        Differences of loss up to this size are taken for nothing; a window also needs ``sup phi'`` times its
        width above it, or its flat side has no measured slope to compare with.

    Raises
    ------
    ValleysError
        Offsets or losses that are not as described, or a grid too coarse to hold any window.
    """
    offsets, losses = _numbers(offsets, "offsets"), _numbers(losses, "losses")
    if losses.ndim != 1:
        raise ValleysError(f"losses: expected one curve, shape (n,), got shape {losses.shape}")
    slopes = None if slopes is None else _numbers(slopes, "slopes")[None]
    options = {"c": c, "zeta_max": zeta_max, "min_span": min_span, "minimum_within": minimum_within}
    options |= {"slopes": slopes, "noise": noise}
    return detect_many(offsets, losses[None], **options)[0]


def detect_many(
    offsets: ArrayLike,
    losses: ArrayLike,
    *,
    c: float = 2.0,
    zeta_max: float = 0.5,
    min_span: float = 0.25,
    minimum_within: float = 0.25,
    slopes: ArrayLike | None = None,
    noise: float = 1e-9,
) -> list[Detection]:
    """Do as `detect` for a batch of curves with the same number of points.

    Parameters
    ----------
    offsets : array_like, shape (n,) or (B, n)
        One grid for all curves, or one for each.
    losses : array_like, shape (B, n)
        The curves.
    slopes : array_like, shape (B, n), optional
        Exact derivatives.
    c, zeta_max, min_span, minimum_within, noise
        As in `detect`.

    Raises
    ------
    ValleysError
        As in `detect`.
    """
    _check_options(c, zeta_max, min_span, minimum_within, noise)
    losses = _numbers(losses, "losses")
    if losses.ndim != 2:
        raise ValleysError(f"losses: expected curves as rows, shape (B, n), got shape {losses.shape}")
    offsets = _grid(offsets, losses, "losses")
    if slopes is not None:
        slopes = _numbers(slopes, "slopes")
        if slopes.shape != losses.shape:
            raise ValleysError(f"slopes: shape {slopes.shape} differs from the losses' {losses.shape}")
        if not np.isfinite(slopes).all():
            raise ValleysError("slopes: not all finite")
    middle = offsets.shape[1] // 2
    coarse = offsets[:, middle + 1] > zeta_max * offsets[:, -1] * (1 + _OFFSET)
    if coarse.any():
        first, radius = offsets[coarse][0][[middle + 1, -1]]
        raise ValleysError(
            f"offsets: the first above 0 is {first:g}, beyond zeta_max * R = {zeta_max:g} * {radius:g},"
            " so no window fits; use a finer grid"
        )
    rows = max(1, _CHUNK // offsets.shape[1] ** 2)
    found: list[Detection] = []
    for start in range(0, len(losses), rows):
        part = slice(start, start + rows)
        part_slopes = None if slopes is None else slopes[part]
        found += _detect_rows(
            offsets[part],
            losses[part],
            part_slopes,
            c,
            zeta_max,
            min_span,
            min(minimum_within, zeta_max),
            noise,
        )
    return found


def holds(
    offsets: ArrayLike,
    losses: ArrayLike,
    error: ArrayLike,
    *,
    at: Sequence[int] | None = None,
    copies: int = COPIES,
    **constants: float,
) -> bool:
    """Return whether a curve's verdict survives errors of the size that its losses have.

    The verdict is taken again on copies of the curve with normal errors. Errors that hang together from
    point to point change slopes, and with them the verdict, less than independent ones of that size. The
    random numbers are the same in every call.

    Parameters
    ----------
    offsets, losses : array_like, shape (n,)
        As in `detect`.
    error : float or array_like, shape (n,) or (m, n)
        Standard deviation of independent errors, of one size or of that given for each point, in units of the
        losses. Or m curves: an error is then their sum, each times a standard normal number of its own.
    at : sequence of int, optional
        Numbers of the offsets that losses and errors are given at; copies take the others from a spline
        (`finer`).
    constants
        As in `detect`: ``c, zeta_max, min_span, minimum_within, noise``.

    Returns
    -------
    bool
        Whether all copies have the curve's own status.
    """
    losses, error = np.asarray(losses, dtype=np.float64), np.asarray(error, dtype=np.float64)
    draw = np.random.default_rng(0).standard_normal
    errors = error * draw((copies, len(losses))) if error.ndim < 2 else draw((copies, len(error))) @ error
    curves = np.concatenate([losses[None], losses + errors])
    if at is not None and len(at) < np.size(offsets):
        curves = np.stack([finer(offsets, at, curve)[0] for curve in curves])
    return len({found.status for found in detect_many(offsets, curves, **constants)}) == 1


def errors_like(losses: ArrayLike, at: Sequence[int], differences: ArrayLike) -> Floats:
    """Return the size of errors at all points of a curve, of differences that were found at some.

    They are taken to grow with the rise over offset 0, as ``sqrt(1 + rise^2)`` in nats: those of rounding are
    of one size about a minimum, and in proportion to losses far from it.

    Parameters
    ----------
    losses : array_like, shape (n,)
        The curve; that of offset 0 is in the middle.
    at : sequence of int
        Numbers of the points.
    differences : array_like
        At these, in units of the losses.

    Returns
    -------
    ndarray, shape (n,)
        Standard deviations, in units of the losses.
    """
    y = np.asarray(losses, dtype=np.float64)
    stretch = np.hypot(1, y - y[len(y) // 2])
    found = np.asarray(differences, dtype=np.float64) / stretch[list(at)]
    return stretch * np.sqrt(np.mean(found**2))


def finer(
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
    between, steepness = _unbent(bent, y[at.index(len(x) // 2)]), spline(x, 1) * LARGE * np.cosh(bent)
    between[at] = y
    if given is not None:
        steepness[at] = given
    return between, steepness


def _spline(x: Floats, at: list[int], y: Floats, slopes: Floats | None) -> CubicHermiteSpline | CubicSpline:
    """Return the spline of `finer`, of asinh(rise / `LARGE`)."""
    rise = (y - y[at.index(len(x) // 2)]) / LARGE
    if slopes is None:
        return CubicSpline(x[at], np.arcsinh(rise))
    return CubicHermiteSpline(x[at], np.arcsinh(rise), slopes / (LARGE * np.hypot(1, rise)))


def _errors(
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


def _unbent(bent: Floats, middle: float) -> Floats:
    """Return losses again; clipped where float64 ends."""
    return middle + LARGE * np.sinh(np.clip(bent, -640, 640))


def first_points(points: int) -> list[int]:
    """Return the numbers of the points of a curve that are measured before it is asked which it needs.

    They are those nearest to `FIRST`, as shares of R, on both sides.

    Parameters
    ----------
    points
        Of the whole curve; odd. The middle one is at offset 0.
    """
    half = points // 2
    return sorted({half + sign * round(share * half) for share in FIRST for sign in (1, -1)})


def next_point(
    offsets: ArrayLike,
    at: Sequence[int],
    losses: ArrayLike,
    *,
    c: float = 2.0,
    zeta_max: float = 0.5,
    min_span: float = 0.25,
    minimum_within: float = 0.25,
    slopes: ArrayLike | None = None,
    noise: float = 1e-9,
    beside: ArrayLike | None = None,
) -> int | None:
    """Return the point that a curve needs most, having been measured at some: for its verdict, or its shape.

    A loss between the points measured is taken to be as far from their spline (`finer`) as this one is there
    from a plainer interpolation: the monotone cubic one (PCHIP); where exact slopes are given, the spline
    without them. Both as asinh(rise / 10 nats), and the least error is a share `LEAST_ERROR` of the curve's
    range in it.

    - Where such an error is more than a share `KNOWN` of that range, the point with the greatest is next.
    - Else the verdict by Definition 1 is taken on `COPIES` curves with normal errors, `DOUBT` times as large.
      If any has another than the spline, next is the point whose errors differ most between these curves and
      those that agree.

    How often that gives the verdict of all points, at how many: docs/performance.md.

    Parameters
    ----------
    offsets : array_like, shape (n,)
        All, as in `detect`.
    at : sequence of int, length m
        Numbers of those measured, ascending; the middle one and both ends are among them.
    losses, slopes : array_like, shape (m,)
        The curve there; exact derivatives, if known.
    c, zeta_max, min_span, minimum_within, noise
        As in `detect`.
    beside : array_like, shape (m,), optional
        A second curve whose shape counts too, such as the test loss; not if a value is not finite.

    Returns
    -------
    Its number among `offsets`; None where the curve needs no other point.

    Raises
    ------
    ValleysError
        As in `detect`.
    """
    x, at, y = np.asarray(offsets, dtype=np.float64), list(at), np.asarray(losses, dtype=np.float64)
    if len(at) == len(x):
        return None
    if not np.isfinite(y).all():
        raise ValleysError(f"losses: {int((~np.isfinite(y)).sum())} of {y.size} are not finite")
    given = None if slopes is None else np.asarray(slopes, dtype=np.float64)
    spline, plain, error, size = _errors(x, at, y, given)
    errors = [error / size if size > 0 else error]
    if beside is not None and np.isfinite(other := np.asarray(beside, dtype=np.float64)).all():
        *_, further, spread = _errors(x, at, other, None)
        errors += [further / spread] if spread > 0 else []
    if (largest := np.max(errors, axis=0)).max() > KNOWN:
        return int(largest.argmax())
    error = DOUBT * np.maximum(error, max(LEAST_ERROR * size, noise / LARGE))
    error[at] = 0.0
    # Each draw and its opposite: what they have in common is then no chance.
    z = np.random.default_rng(0).standard_normal((COPIES // 2, len(x)))
    z = np.concatenate([np.zeros((1, len(x))), z, -z])
    bent = spline(x) + error * z
    copies = _unbent(bent, y[at.index(len(x) // 2)])
    copies[:, at] = y
    steepness = None
    if given is not None:
        wrong = DOUBT * np.abs(spline(x, 1) - plain(x, 1))
        steepness = (spline(x, 1) + wrong * z) * LARGE * np.cosh(np.clip(bent, -640, 640))
        steepness[:, at] = given
    options = {"c": c, "zeta_max": zeta_max, "min_span": min_span, "minimum_within": minimum_within}
    verdicts = [one.status for one in detect_many(x, copies, slopes=steepness, noise=noise, **options)]
    differ = np.array([verdict != verdicts[0] for verdict in verdicts])
    if not differ.any():
        return None
    # The spline itself, which has no errors, is among those that agree.
    weight = np.abs(z[differ].mean(axis=0) - z[~differ].mean(axis=0))
    weight[at] = -1.0
    return int(weight.argmax())


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
    deltas = _numbers(deltas, "deltas")
    if deltas.ndim != 1 or not len(deltas) or not np.isfinite(deltas).all():
        raise ValleysError("deltas: expected a non-empty list of finite shifts")
    largest = float(np.abs(deltas).max())
    max_shift = largest if max_shift is None else float(max_shift)
    if largest > max_shift * (1 + _RELATIVE):
        raise ValleysError(f"deltas: {largest:g} is beyond max_shift {max_shift:g}")
    return _Gaps(offsets, train, test, max_shift, free_offset)(deltas)


def barrier(t: ArrayLike, losses: ArrayLike) -> Barrier:
    """Return the height of the loss above the chord between two solutions, and where it is greatest.

    Parameters
    ----------
    t : array_like, shape (n,)
        Positions on the line, strictly increasing; 0 is one solution, 1 the other. Positions outside [0, 1]
        are ignored.
    losses : array_like, shape (n,)
        Losses there.

    Raises
    ------
    ValleysError
        Shapes that differ, values not finite, t not increasing, or 0 or 1 absent from t: the chord is never
        interpolated.
    """
    t, losses = _numbers(t, "barrier: t"), _numbers(losses, "barrier: losses")
    if t.ndim != 1 or t.shape != losses.shape:
        raise ValleysError(f"barrier: t and losses need one shape (n,), got {t.shape} and {losses.shape}")
    if not (np.isfinite(t).all() and np.isfinite(losses).all()):
        raise ValleysError("barrier: t and losses must be finite")
    if (np.diff(t) <= 0).any():
        raise ValleysError("barrier: t must be strictly increasing")
    ends = []
    for end in (0.0, 1.0):
        k = np.flatnonzero(np.abs(t - end) <= _RELATIVE)
        if not len(k):
            raise ValleysError(f"barrier: t has no point at {end:g}; the chord needs both solutions")
        ends.append(int(k[0]))
    t, losses = t[ends[0] : ends[1] + 1], losses[ends[0] : ends[1] + 1]
    excess = losses - ((1 - t) * losses[0] + t * losses[-1])
    excess[[0, -1]] = 0.0  # by definition, whatever the rounding
    k = int(excess.argmax())
    return Barrier(float(excess[k]), float(t[k]))


def _numbers(values: ArrayLike, name: str) -> Floats:
    """Return values as float64; refuse what would lose a part on the way there."""
    try:
        given = np.asarray(values)
        numbers = given.astype(np.float64) if given.dtype.kind != "c" else None
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: tensors that need a gradient
        raise ValleysError(f"{name}: not an array of real numbers ({error})") from error
    if numbers is None or np.ma.is_masked(values):
        kind = "complex numbers" if numbers is None else "masked values"
        raise ValleysError(f"{name}: {kind}; give a real number for each point")
    if (np.isfinite(numbers) & (np.abs(numbers) > _LARGEST)).any():
        raise ValleysError(f"{name}: a value is beyond {_LARGEST:g}, and differences would not be finite")
    return numbers


def _check_options(c: float, zeta_max: float, min_span: float, minimum_within: float, noise: float) -> None:
    """Check the constants of the search."""
    given = {"c": c, "zeta_max": zeta_max, "min_span": min_span, "minimum_within": minimum_within}
    for name, value in (given | {"noise": noise}).items():
        if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
            raise ValleysError(f"{name}: {value!r} is not a number")
    if not (isfinite(c) and c > 1):
        raise ValleysError(f"c: {c!r} is not a level above 1")
    if not 0 < zeta_max < 1:
        raise ValleysError(f"zeta_max: {zeta_max!r} is not a share between 0 and 1")
    if not 0 < min_span <= (1 - zeta_max) * (1 + _RELATIVE):
        raise ValleysError(f"min_span: {min_span!r} is not in (0, 1 - zeta_max = {1 - zeta_max:g}]")
    if not 0 < minimum_within < 1:
        raise ValleysError(f"minimum_within: {minimum_within!r} is not a share between 0 and 1")
    if not (isfinite(noise) and noise >= 0):
        raise ValleysError(f"noise: {noise!r} is not a finite, non-negative loss")


def _grid(offsets: ArrayLike, losses: Floats, name: str) -> Floats:
    """Check grids and curves; return the offsets broadcast to the curves' shape (B, n)."""
    offsets = _numbers(offsets, "offsets")
    n = losses.shape[-1]
    if offsets.shape not in {(n,), losses.shape}:
        raise ValleysError(f"offsets: shape {offsets.shape} does not fit the {name}' shape {losses.shape}")
    if n < _MIN_POINTS:
        raise ValleysError(f"offsets: {n} points, need at least {_MIN_POINTS}")
    if not np.isfinite(losses).all():
        raise ValleysError(f"{name}: {int((~np.isfinite(losses)).sum())} of {losses.size} are not finite")
    grids = np.atleast_2d(offsets)
    if not np.isfinite(grids).all():
        raise ValleysError("offsets: not all finite")
    if (np.diff(grids) <= 0).any():
        raise ValleysError("offsets: must be strictly increasing")
    # Relative to R: linspace and arange leave rounding, in float32 of up to 1e-7.
    tolerance = _OFFSET * np.abs(grids).max(axis=1)
    if (np.abs(grids).min(axis=1) > tolerance).any():
        raise ValleysError("offsets: 0 is not among them")
    if (np.abs(grids + grids[:, ::-1]).max(axis=1) > tolerance).any():
        raise ValleysError("offsets: not symmetric about 0")
    return np.broadcast_to(grids, losses.shape)


def _two_curves(offsets: ArrayLike, train: ArrayLike, test: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Check two curves on one grid; return them as arrays of shape (n,)."""
    curves = {"train": _numbers(train, "train"), "test": _numbers(test, "test")}
    for name, curve in curves.items():
        if curve.ndim != 1:
            raise ValleysError(f"{name}: expected one curve, shape (n,), got shape {curve.shape}")
        grid = _grid(offsets, curve[None], name)[0]
    return grid, curves["train"], curves["test"]


def _detect_rows(
    offsets: Floats,
    losses: Floats,
    slopes: Floats | None,
    c: float,
    zeta_max: float,
    min_span: float,
    minimum_within: float,
    noise: float,
) -> Iterator[Detection]:
    """Detect for checked curves (B, n): every window of every curve at once.

    Axes: side or orientation (2; 0 is +l), curve (B), first offset of the window (Z), last (J).
    """
    count, n = losses.shape
    middle = n // 2
    rows = np.arange(count)
    x = offsets[:, middle + 1 :]
    radius = x[:, -1]
    tolerance = _OFFSET * radius

    # The minimum near 0, ties to the nearest; and whether the curve is lower further out.
    order = np.argsort(np.abs(np.arange(n) - middle), kind="stable")
    near = np.abs(offsets[:, order]) <= (minimum_within * radius + tolerance)[:, None]
    lowest = order[np.where(near, losses[:, order], np.inf).argmin(axis=1)]
    lowest_of_all = order[losses[:, order].argmin(axis=1)]
    outside = losses[rows, lowest_of_all] < losses[rows, lowest] - noise
    flat = ~outside & (losses.max(axis=1) - losses[rows, lowest] <= noise)
    argmin = offsets[rows, np.where(outside, lowest_of_all, lowest)]

    # Outward slopes on either side, as quotients between neighbours or as given at the offsets.
    if slopes is None:
        sides = np.stack([losses[:, middle + 1 :], losses[:, middle - 1 :: -1]])
        with np.errstate(over="ignore"):
            outward = np.diff(sides) / np.diff(x)
        ends = x[:, 1:]
    else:
        outward = np.stack([slopes[:, middle + 1 :], -slopes[:, middle - 1 :: -1]])
        ends = x
    rise_plus = losses[:, -1] - losses[:, middle]
    rise_minus = losses[:, 0] - losses[:, middle]
    if not np.isfinite(outward).all():
        raise ValleysError("losses: a slope is beyond what float64 holds; give offsets in smaller units")
    starts_ok = (x >= (np.abs(offsets[rows, lowest]) - tolerance)[:, None]) & (
        x <= (zeta_max * radius + tolerance)[:, None]
    )
    starts = int(starts_ok.any(axis=0).nonzero()[0].max(initial=0)) + 1
    begun = np.arange(outward.shape[-1]) >= np.arange(starts)[:, None]
    sup = np.maximum.accumulate(np.where(begun, outward[:, :, None], -np.inf), axis=-1)
    inf = np.minimum.accumulate(np.where(begun, outward[::-1, :, None], np.inf), axis=-1)

    span = ends[:, None, :] - x[:, :starts, None]
    admissible = starts_ok[:, :starts, None] & (span >= (min_span * radius - tolerance)[:, None, None])
    rising = admissible & (np.where(admissible, sup, 0.0) * span > noise)  # and so sup > 0
    level = np.divide(inf, sup, out=np.full(sup.shape, -np.inf), where=rising)

    # Greatest level, then widest window, then smallest zeta; orientation last, where it decides nothing.
    level = np.moveaxis(level, 0, -1).reshape(count, -1)
    best = level.max(axis=1)
    bar = np.where(np.isfinite(best), best - _RELATIVE * np.abs(best), np.inf)
    width = np.where(level >= bar[:, None], np.repeat(span.reshape(count, -1), 2, axis=1), -np.inf)
    chosen = (width >= width.max(axis=1, keepdims=True) * (1 - _RELATIVE)).argmax(axis=1)
    start, end, side = np.unravel_index(chosen, (starts, outward.shape[-1], 2))

    # A side that rises in no window is not the side of a minimum, and c* would be infinite or mean nothing.
    judged = ~outside & ~flat & rising.any(axis=(2, 3)).all(axis=0)
    c_star = level[rows, chosen]
    p = sup[side, rows, start, end]
    reached = reaches(c_star, c)
    for k in range(count):
        ok = bool(judged[k])
        if ok:
            status = "asymmetric" if reached[k] else "symmetric"
        else:
            status = "flat" if flat[k] else "not_minimum"
        plus, minus = float(rise_plus[k]), float(rise_minus[k])
        rises = plus > 0 and minus > 0
        yield Detection(
            status=status,
            c_star=float(c_star[k]) if ok else nan,
            flat_side=(1 if side[k] == 0 else -1) if ok and c_star[k] > 1 + TIE else 0,
            zeta=float(x[k, start[k]]) if ok else nan,
            r=float(ends[k, end[k]]) if ok else nan,
            p=float(p[k]) if ok else nan,
            argmin_offset=float(argmin[k]),
            rise_plus=plus,
            rise_minus=minus,
            rise_ratio=minus / plus if rises else nan,
            asymmetry_index=log(minus) - log(plus) if rises else nan,
        )


class _Gaps:
    """Differences between a shifted test curve and a training curve, on one set of offsets for all shifts."""

    def __init__(
        self, offsets: Floats, train: Floats, test: Floats, max_shift: float, free_offset: bool
    ) -> None:
        self.radius = float(offsets[-1] - max_shift)
        kept = np.abs(offsets) <= self.radius + _OFFSET * offsets[-1]
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
