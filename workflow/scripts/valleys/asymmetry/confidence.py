"""Which verdicts a curve can still have, when its losses come from a part of the images."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from valleys.asymmetry.barriers import barrier
from valleys.asymmetry.definition import detect, detect_many
from valleys.asymmetry.grids import OFFSET_TOLERANCE, Floats, checked_grid, checked_numbers
from valleys.errors import ValleysError

DRAWS = 10_000  # of the greatest of all errors, from which `Band` takes its width
FEWER_DRAWS = 2_000  # where each takes a covariance of its own
GROUPS = 24  # of images, which errors are taken from where images have no losses of their own
_AT_ONCE = 500
_NEGLIGIBLE = 0.03  # share of a standard error: axes that have less of every function's are left out
_MANY = 200  # degrees of freedom from which a covariance counts as known
Verdict = TypeVar("Verdict")


class Band:
    """Bounds for linear functions of a curve's losses that all hold at once.

    Each is ``estimate -+ q s`` with s the standard error. q is the quantile of the greatest of the errors in
    units of s, drawn from the normal distribution with the covariance at hand (Hothorn, Bretz and Westfall
    2008, "Simultaneous inference in general parametric models"). Where that covariance has few degrees of
    freedom, each draw has one of its own, from Wishart's distribution: a shared one, as of a multivariate t,
    gives bounds that are too narrow. A verdict that follows from the bounds is then wrong with a chance of at
    most `alpha`, however it was chosen.

    Parameters
    ----------
    losses : ndarray, shape (n,)
        The curve, estimated.
    deviations : ndarray, shape (m, n)
        Its covariance is ``deviations.T @ deviations``.
    freedom : float
        Degrees of freedom of that covariance.
    functions : ndarray, shape (k, n)
        Weights of the linear functions, one a row.
    alpha : float
        Chance that some bound does not hold, at most.
    """

    def __init__(
        self, losses: Floats, deviations: Floats, freedom: float, functions: Floats, alpha: float
    ) -> None:
        self.freedom, self.alpha, self.estimates = freedom, alpha, functions @ losses
        # The covariance's own axes: no more of them than the curve has points.
        values, axes = np.linalg.eigh(deviations.T @ deviations)
        self.along = np.sqrt(values.clip(min=0))[:, None] * (axes.T @ functions.T)
        self.errors = np.sqrt(np.square(self.along).sum(axis=0))

    def settle(self, verdict: Callable[[Floats, Floats], Verdict | None]) -> Verdict | None:
        """Return the verdict that follows from lower and upper bounds; None where none does.

        q is drawn only where it matters: not where the bounds of one function alone settle nothing, nor
        where Bonferroni's, which are wider, do.
        """
        count = np.count_nonzero(self.errors)
        if not count or verdict(*self._bounds(quantile(self.alpha, self.freedom))) is None:
            return verdict(*self._bounds(0.0)) if not count else None
        settled = verdict(*self._bounds(quantile(self.alpha / count, self.freedom)))
        return verdict(*self._bounds(self.width)) if settled is None else settled

    def _bounds(self, width: float) -> tuple[Floats, Floats]:
        return self.estimates - width * self.errors, self.estimates + width * self.errors

    @cached_property
    def width(self) -> float:
        """q."""
        known = self.errors > 1e-9 * self.errors.max(initial=0.0)
        draw = np.random.default_rng(0)
        unit = (self.along[:, known] / self.errors[known]).astype(np.float32)
        unit = unit[np.abs(unit).max(axis=1) > _NEGLIGIBLE]
        unit /= np.linalg.norm(unit, axis=0)
        few = self.freedom if self.freedom < _MANY else None
        greatest = np.empty(DRAWS if few is None else FEWER_DRAWS)
        for start in range(0, len(greatest), _AT_ONCE):
            z = draw.standard_normal((_AT_ONCE, len(unit)), dtype=np.float32) @ unit
            if few is not None:
                z /= np.sqrt(_wishart(draw, len(z), few, unit) / few)
            greatest[start : start + len(z)] = np.maximum(z.max(axis=1), -z.min(axis=1))
        certain = self.alpha if few is None else 0.8 * self.alpha  # so few draws know it to a fifth
        return float(np.quantile(greatest, 1 - certain, method="higher"))


def _wishart(
    draw: np.random.Generator, count: int, freedom: float, unit: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return ``u.T W u`` for the columns u of `unit` (r, k), shape (count, k); W of Wishart, by Bartlett."""
    rank = len(unit)
    square = np.zeros((count, unit.shape[1]), dtype=np.float32)
    for i in range(rank):
        column = np.zeros((count, rank), dtype=np.float32)  # of the triangular root of W
        column[:, i] = np.sqrt(draw.chisquare(max(freedom - i, 1.0), count))
        column[:, i + 1 :] = draw.standard_normal((count, rank - i - 1), dtype=np.float32)
        square += (column @ unit) ** 2
    return square


def quantile(alpha: float, freedom: float) -> float:
    """Return the two-sided quantile of Student's t."""
    return float(student.ppf(1 - alpha / 2, freedom))


def settled_status(
    offsets: ArrayLike,
    losses: ArrayLike,
    deviations: ArrayLike,
    *,
    alpha: float,
    freedom: float = np.inf,
    c: float = 2.0,
    zeta_max: float = 0.5,
    min_span: float = 0.25,
    minimum_within: float = 0.25,
    noise: float = 1e-9,
) -> str | None:
    """Return the verdict that all curves within the errors have by Definition 1; None where they differ.

    A level c* is a least slope over a greatest one, and errors make the first smaller and the second greater.
    So a noisy curve looks less asymmetric than it is, and copies of it with more noise do so all the more.
    This does not ask copies. "asymmetric" is settled where in some window each slope of the steep side is at
    least c times each of the flat side, by the bounds of `Band`. "symmetric" is settled where in every window
    some pair of slopes is below that level, by the same bounds. Where the least point may lie, and whether
    the curve may be lower outside, follows from them too.

    Parameters
    ----------
    offsets, losses : array_like, shape (n,)
        As in `detect`: the curve on the images so far.
    deviations : array_like, shape (m, n)
        ``deviations.T @ deviations`` is the covariance of its errors, in squared units of the losses.
    alpha : float
        Chance of a wrong verdict, at most; in (0, 1).
    freedom : float
        Degrees of freedom of the covariance.
    c, zeta_max, min_span, minimum_within, noise
        As in `detect`.

    Returns
    -------
    str or None
        As ``Detection.status``. "flat" is never settled while there are errors.

    Raises
    ------
    ValleysError
        As in `detect`, and for deviations that do not fit.
    """
    y = checked_numbers(losses, "losses")
    x = checked_grid(offsets, y[None] if y.ndim == 1 else y, "losses")[0]
    spread = _checked(deviations, len(x), alpha)
    constants = {"c": c, "zeta_max": zeta_max, "min_span": min_span, "minimum_within": minimum_within}
    own = detect(x, y, noise=noise, **constants).status  # checks the constants
    if not spread.any():
        return own
    grid = _Grid(x, c, zeta_max, min_span, min(minimum_within, zeta_max))
    band = Band(y, spread, freedom, grid.functions, alpha)
    return band.settle(lambda low, high: grid.status(low, high, noise))


class _Grid:
    """What Definition 1 asks of a curve on a grid, as linear functions of its losses."""

    def __init__(self, x: Floats, c: float, zeta_max: float, min_span: float, within: float) -> None:
        self.x, n, middle = x, len(x), len(x) // 2
        radius, tolerance = x[-1], OFFSET_TOLERANCE * x[-1]
        self.side = x[middle + 1 :]
        self.count = len(self.side) - 1  # slopes of a side
        unit = np.eye(n)
        right, left = unit[middle + 1 :], unit[middle - 1 :: -1]
        steps = np.diff(self.side)[:, None]
        slopes = [np.diff(right, axis=0) / steps, np.diff(left, axis=0) / steps]
        # By orientation: steep slope i less c times flat slope j; +l is the flat side first.
        level = [(slopes[1 - o][:, None] - c * slopes[o][None]).reshape(-1, n) for o in (0, 1)]
        self.near = np.abs(x) <= within * radius + tolerance
        first, second = np.triu_indices(n, 1)
        asked = self.near[first] | self.near[second]
        self.first, self.second = first[asked], second[asked]
        parts = [*level, *slopes, unit[self.first] - unit[self.second]]
        self.functions = np.concatenate(parts)
        self.cuts = np.cumsum([len(part) for part in parts])[:-1]
        self.latest, self.least, self.tolerance = zeta_max * radius + tolerance, min_span * radius, tolerance

    def status(self, low: Floats, high: Floats, noise: float) -> str | None:
        """Return the status that all curves within the bounds have; None where they may differ."""
        level_low, level_high = ([p.reshape(self.count, -1) for p in self._cut(b)[:2]] for b in (low, high))
        slope_low, slope_high = (self._cut(b)[2:4] for b in (low, high))
        less, more = self._differences(self._cut(low)[4], self._cut(high)[4])
        inside, outside = np.flatnonzero(self.near), np.flatnonzero(~self.near)
        apart = np.ix_(outside, inside)
        lower_certain = bool((more[apart] < -noise).all(axis=1).any())
        lower_possible = bool((less[apart] < -noise).all(axis=1).any())
        # Offsets that may be the least one near 0: none of the others there is surely below it.
        among = less[np.ix_(inside, inside)]
        argmins = np.abs(self.x[inside[(among <= 0).all(axis=1)]])
        few = self._windows(argmins.max(initial=0.0))  # admissible wherever the least point is
        many = self._windows(argmins.min(initial=0.0))  # admissible somewhere
        rises = [any(self._rising(slope_low[o], w, noise) for w in few) for o in (0, 1)]
        may_rise = [any(self._rising(slope_high[o], w, noise) for w in many) for o in (0, 1)]

        def reached(windows: list[tuple[int, int]], level: list[Floats], slopes: list[Floats]) -> bool:
            return any(
                level[o][a : e + 1, a : e + 1].min() >= 0 and self._rising(slopes[o], (a, e), noise)
                for o in (0, 1)
                for a, e in windows
            )

        if lower_certain or not all(may_rise):
            return "not_minimum"
        if lower_possible or not all(rises):
            return None
        if reached(few, level_low, slope_low):
            return "asymmetric"
        return None if reached(many, level_high, slope_high) else "symmetric"

    def _cut(self, bounds: Floats) -> list[Floats]:
        return np.split(bounds, self.cuts)

    def _differences(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Return bounds of phi_i - phi_j, shape (n, n) each: of pairs of which one is near 0."""
        n = len(self.x)
        less, more = np.zeros((n, n)), np.zeros((n, n))
        less[self.first, self.second], more[self.first, self.second] = low, high
        less[self.second, self.first], more[self.second, self.first] = -high, -low
        return less, more

    def _windows(self, argmin: float) -> list[tuple[int, int]]:
        """Return the first and last slope of each admissible window, for a least point at that distance."""
        x = self.side
        starts = [a for a in range(self.count) if argmin - self.tolerance <= x[a] <= self.latest]
        wide = self.least - self.tolerance
        return [(a, e) for a in starts for e in range(a, self.count) if x[e + 1] - x[a] >= wide]

    def _rising(self, slopes: Floats, window: tuple[int, int], noise: float) -> bool:
        a, e = window
        return bool(slopes[a : e + 1].max() * (self.side[e + 1] - self.side[a]) > noise)


def settled_index(
    offsets: ArrayLike,
    losses: ArrayLike,
    deviations: ArrayLike,
    *,
    alpha: float,
    freedom: float = np.inf,
    **constants: float,
) -> int | None:
    """Return the sign of a curve's asymmetry index; None while 0 is within its errors.

    Parameters are those of `settled_status`. The index is log [rise on the side of -u / rise on that of u],
    about the curve's own least point. Its error is that of its linear part (the delta method).

    Raises
    ------
    ValleysError
        As in `settled_status`.
    """
    y = checked_numbers(losses, "losses")
    spread = _checked(deviations, len(y), alpha)
    step = 1e-4 * max(float(np.ptp(y)), 1e-12)
    moved = np.concatenate([y[None], y + step * np.eye(len(y)), y - step * np.eye(len(y))])
    index = np.array([found.asymmetry_index for found in detect_many(offsets, moved, **constants)])
    if not np.isfinite(index).all():
        return None
    gradient = (index[1 : len(y) + 1] - index[len(y) + 1 :]) / (2 * step)
    error = float(np.linalg.norm(spread @ gradient))
    return int(np.sign(index[0])) if abs(index[0]) > quantile(alpha, freedom) * error else None


def settled_barrier(
    t: ArrayLike,
    losses: ArrayLike,
    deviations: ArrayLike,
    *,
    alpha: float,
    freedom: float = np.inf,
    threshold: float = 0.1,
) -> bool | None:
    """Return whether the barrier on a segment is above a threshold; None while errors leave it open.

    Parameters
    ----------
    t, losses : array_like, shape (n,)
        As in `barrier`; all t are in [0, 1], both ends among them.
    deviations, alpha, freedom
        As in `settled_status`.
    threshold : float
        In units of the losses.

    Raises
    ------
    ValleysError
        As in `barrier`, and for deviations that do not fit.
    """
    t, y = checked_numbers(t, "barrier: t"), checked_numbers(losses, "barrier: losses")
    found = barrier(t, y)
    spread = _checked(deviations, len(y), alpha)
    if not spread.any():
        return found.height > threshold
    over = np.eye(len(t))[1:-1]
    over[:, 0] -= 1 - t[1:-1]
    over[:, -1] -= t[1:-1]

    def above(low: Floats, high: Floats) -> bool | None:
        if (low > threshold).any():
            return True
        return False if (high <= threshold).all() else None

    return Band(y, spread, freedom, over, alpha).settle(above)


def looks(total: int, least: int, budget: int | None = None) -> list[int]:
    """Return how many images each look has: halves of the whole from `least` on, all of them at last.

    Parameters
    ----------
    total
        Images that there are.
    least
        Of the first look, at least.
    budget
        Images that no look may have more than; None: no limit.
    """
    most = total if budget is None else min(budget, total)
    counts = [most]
    while counts[0] // 2 >= least:
        counts.insert(0, counts[0] // 2)
    return counts


def _checked(deviations: ArrayLike, points: int, alpha: float) -> Floats:
    spread = checked_numbers(deviations, "deviations")
    if spread.ndim != 2 or spread.shape[1] != points or not np.isfinite(spread).all():
        raise ValleysError(f"deviations: need finite numbers, shape (m, {points}), got shape {spread.shape}")
    if not 0 < alpha < 1:
        raise ValleysError(f"alpha: {alpha!r} is not a chance between 0 and 1")
    return spread
