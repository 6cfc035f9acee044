"""Definition 1 of the paper (section 3.1): is a curve asymmetric, with which P, p, c and zeta.

A curve is a row of losses over offsets; how it was measured is none of this module's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import isfinite, log, nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valleys.asymmetry.grids import (
    OFFSET_TOLERANCE,
    RELATIVE_TOLERANCE,
    Floats,
    checked_grid,
    checked_numbers,
)
from valleys.asymmetry.own_minimum import own_minimum
from valleys.errors import ValleysError

TIE = 1e-5  # a level this much (relative) below c counts as c (`reaches`)
_CHUNK = 1_000_000  # windows held at once by detect_many: about 50 MB


@dataclass(frozen=True)
class Detection:
    """Verdict on one curve by Definition 1, with the constants at which it holds.

    Attributes
    ----------
    status : str
        "asymmetric": ``c_star`` reaches c (`reaches`). "symmetric": a minimum along u, and it does not.
        "not_minimum": the curve is lower outside ``[-minimum_within R, minimum_within R]`` than inside, by
        more than the noise, or one side does not rise in any window: it has no positive outward slope there.
        "flat": neither side rises by more than the noise.
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
    minimum, reach : float
        m, the offset of the least point of the curve, between its offsets too (`own_minimum`), and
        ``R' = R - |m|``. NaN, as the next two, for "not_minimum" and "flat".
    rise : float
        The larger of the rises about m, ``phi(m + R') - phi(m)`` and ``phi(m - R') - phi(m)``.
    asymmetry_index : float
        ``log [(phi(m - R') - phi(m)) / (phi(m + R') - phi(m))]``: 0 is symmetric, above 0 the side of -u is
        the steeper one. A symmetric curve that lies off centre has 0. NaN unless both rises are positive.
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
    minimum: float
    reach: float
    rise: float
    asymmetry_index: float

    def asdict(self) -> dict[str, str | float | int]:
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
    offsets, losses = checked_numbers(offsets, "offsets"), checked_numbers(losses, "losses")
    if losses.ndim != 1:
        raise ValleysError(f"losses: expected one curve, shape (n,), got shape {losses.shape}")
    slopes = None if slopes is None else checked_numbers(slopes, "slopes")[None]
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
    losses = checked_numbers(losses, "losses")
    if losses.ndim != 2:
        raise ValleysError(f"losses: expected curves as rows, shape (B, n), got shape {losses.shape}")
    offsets = checked_grid(offsets, losses, "losses")
    if slopes is not None:
        slopes = checked_numbers(slopes, "slopes")
        if slopes.shape != losses.shape:
            raise ValleysError(f"slopes: shape {slopes.shape} differs from the losses' {losses.shape}")
        if not np.isfinite(slopes).all():
            raise ValleysError("slopes: not all finite")
    middle = offsets.shape[1] // 2
    coarse = offsets[:, middle + 1] > zeta_max * offsets[:, -1] * (1 + OFFSET_TOLERANCE)
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
    if not 0 < min_span <= (1 - zeta_max) * (1 + RELATIVE_TOLERANCE):
        raise ValleysError(f"min_span: {min_span!r} is not in (0, 1 - zeta_max = {1 - zeta_max:g}]")
    if not 0 < minimum_within < 1:
        raise ValleysError(f"minimum_within: {minimum_within!r} is not a share between 0 and 1")
    if not (isfinite(noise) and noise >= 0):
        raise ValleysError(f"noise: {noise!r} is not a finite, non-negative loss")


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
    tolerance = OFFSET_TOLERANCE * radius

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
    bar = np.where(np.isfinite(best), best - RELATIVE_TOLERANCE * np.abs(best), np.inf)
    width = np.where(level >= bar[:, None], np.repeat(span.reshape(count, -1), 2, axis=1), -np.inf)
    chosen = (width >= width.max(axis=1, keepdims=True) * (1 - RELATIVE_TOLERANCE)).argmax(axis=1)
    start, end, side = np.unravel_index(chosen, (starts, outward.shape[-1], 2))

    # A side that rises in no window is not the side of a minimum, and c* would be infinite or mean nothing.
    judged = ~outside & ~flat & rising.any(axis=(2, 3)).all(axis=0)
    c_star = level[rows, chosen]
    p = sup[side, rows, start, end]
    reached = reaches(c_star, c)
    own = np.full((4, count), nan)
    own[:, judged] = own_minimum(
        offsets[judged],
        losses[judged],
        None if slopes is None else slopes[judged],
        lowest[judged],
        minimum_within,
    )
    for k in range(count):
        ok = bool(judged[k])
        if ok:
            status = "asymmetric" if reached[k] else "symmetric"
        else:
            status = "flat" if flat[k] else "not_minimum"
        minimum, reach, plus, minus = map(float, own[:, k])
        yield Detection(
            status=status,
            c_star=float(c_star[k]) if ok else nan,
            flat_side=(1 if side[k] == 0 else -1) if ok and c_star[k] > 1 + TIE else 0,
            zeta=float(x[k, start[k]]) if ok else nan,
            r=float(ends[k, end[k]]) if ok else nan,
            p=float(p[k]) if ok else nan,
            argmin_offset=float(argmin[k]),
            rise_plus=float(rise_plus[k]),
            rise_minus=float(rise_minus[k]),
            minimum=minimum,
            reach=reach,
            rise=max(plus, minus),
            asymmetry_index=log(minus) - log(plus) if plus > 0 and minus > 0 else nan,
        )
