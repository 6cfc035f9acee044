"""Intervals and tests: thin wrappers over SciPy that accept any sample size.

With too few values for an interval or a test the answer is NaN, without exception or warning, so that a
table with one seed can be written as well as one with ten. Values that are not finite are refused: whether a
diverged run counts is for the caller to say.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as sps

from valleys.errors import ValleysError

_LARGEST = 1e150


@dataclass(frozen=True)
class Interval:
    """An estimate with a confidence interval.

    Attributes
    ----------
    estimate, low, high : float
        In units of the data; NaN where n is too small.
    n : int
        Number of values or trials.
    """

    estimate: float
    low: float
    high: float
    n: int


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return a share with its Wilson score interval (all NaN for n = 0).

    Raises
    ------
    ValleysError
        Counts that are not whole numbers with 0 <= successes <= n, or a level outside (0, 1).
    """
    _check_level(level)
    if not 0 <= successes <= n < np.inf or int(successes) != successes or int(n) != n:
        raise ValleysError(f"wilson: {successes!r} of {n!r} are not counts with 0 <= successes <= n")
    successes, n = int(successes), int(n)
    if n == 0:
        return Interval(nan, nan, nan, 0)
    bounds = sps.binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    return Interval(successes / n, float(bounds.low), float(bounds.high), n)


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean with its two-sided t interval (bounds NaN for n < 2).

    Raises
    ------
    ValleysError
        Values that are not a flat list of finite numbers, or a level outside (0, 1).
    """
    values = _sample(values, level)
    n = len(values)
    if n == 0:
        return Interval(nan, nan, nan, 0)
    mean = float(values.mean())
    if n == 1:
        return Interval(mean, nan, nan, 1)
    half = float(sps.t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def simultaneous(
    estimates: ArrayLike, errors: ArrayLike, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ends of normal intervals that hold all together at `level` (Bonferroni: under any dependence).

    Parameters
    ----------
    estimates, errors : array_like, shape (n,)
        Estimates of large samples, and their standard errors.
    level : float
        Of all intervals together.
    """
    estimates, errors = np.asarray(estimates, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    _check_level(level)
    half = sps.norm.isf((1 - level) / 2 / max(len(estimates), 1)) * errors
    return estimates - half, estimates + half


def difference(a: Interval, b: Interval) -> Interval:
    """Return b - a of two independent estimates, with an interval made of theirs.

    The method of variance estimates recovery (Zou and Donner 2008): each end of the interval goes as far from
    the difference as the root of the sum of squares of the two distances that matter for that end. For two
    Wilson intervals it is Newcombe's method 10 (1998), for two normal ones the usual interval. Of the level
    that the two intervals have. Where the estimates are positively correlated it is too wide.

    Parameters
    ----------
    a, b
        Estimates with intervals of one level; bounds need not be symmetric.

    Returns
    -------
    Interval
        With n the smaller of the two; a bound is NaN where one that it is made of is.
    """
    d = b.estimate - a.estimate
    low = d - float(np.hypot(b.estimate - b.low, a.high - a.estimate))
    high = d + float(np.hypot(b.high - b.estimate, a.estimate - a.low))
    return Interval(d, low, high, min(a.n, b.n))


def welch(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """Return mean(b) - mean(a) of two independent samples with Welch's t interval (NaN for n < 2).

    Raises
    ------
    ValleysError
        As `mean_interval`.
    """
    a, b = _sample(a, level), _sample(b, level)
    n = min(len(a), len(b))
    d = float(b.mean() - a.mean()) if n else nan
    if n < 2:
        return Interval(d, nan, nan, n)
    if a.var() == b.var() == 0:
        return Interval(d, d, d, n)  # Welch's degrees of freedom are 0 / 0
    bounds = sps.ttest_ind(b, a, equal_var=False).confidence_interval(level)
    return Interval(d, float(bounds.low), float(bounds.high), n)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return Holm's adjusted p-values (step down; they hold under any dependence), in the order given.

    Parameters
    ----------
    p_values : array_like, shape (n,)
        Of one family of tests; NaN where a test could not be made, which stays NaN and counts for none.

    Raises
    ------
    ValleysError
        A value that is neither NaN nor in [0, 1].
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    if ((p_values < 0) | (p_values > 1)).any():
        raise ValleysError("p_values: not all between 0 and 1")
    adjusted, made = np.full(p_values.shape, nan), np.isfinite(p_values)
    # statsmodels' multipletests does the same, and collects garbage at each call: 0.1 to 1 s beside torch.
    known = p_values[made]
    order = known.argsort(kind="stable")
    steps = np.maximum.accumulate(known[order] * np.arange(len(known), 0, -1)).clip(max=1.0)
    adjusted[made] = steps[order.argsort()]
    return adjusted


def spread_of_means(
    groups: Sequence[ArrayLike], *, level: float = 0.95, n_resamples: int = 4999, seed: int = 0
) -> Interval:
    """Return the greatest less the least of the groups' means, with a bootstrap interval.

    Values are drawn anew within each group, and the interval is that between percentiles. A spread is never
    below 0 and is above it by chance alone, so that the interval is no test of a difference. Bounds are NaN
    where no group has two values; all is NaN for fewer than two groups.

    Parameters
    ----------
    groups : sequence of array_like, shape (n_i,)
        Samples; those without values are left out.
    level, n_resamples, seed
        Of the interval; one seed, one interval.

    Raises
    ------
    ValleysError
        Values that are not flat lists of finite numbers, or a level outside (0, 1).
    """
    samples = [s for s in (_sample(group, level) for group in groups) if len(s)]
    n = sum(map(len, samples))
    if len(samples) < 2:
        return Interval(nan, nan, nan, n)
    means = [s.mean() for s in samples]
    estimate = float(max(means) - min(means))
    if max(map(len, samples)) < 2:
        return Interval(estimate, nan, nan, n)
    rng = np.random.default_rng(seed)
    drawn = np.stack([s[rng.integers(len(s), size=(n_resamples, len(s)))].mean(axis=1) for s in samples])
    low, high = np.quantile(drawn.max(axis=0) - drawn.min(axis=0), [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), n)


@dataclass(frozen=True)
class Factor:
    """Test of one factor in an additive model.

    Attributes
    ----------
    f, p : float
        F ratio and permutation p; NaN where they cannot be had.
    explained : float
        Share of the variance left by the other factors that this one explains (partial eta squared).
    """

    f: float
    p: float
    explained: float


def factor_test(
    values: ArrayLike,
    own: Sequence[Hashable],
    others: Sequence[Sequence[Hashable]] = (),
    *,
    n_resamples: int = 9999,
    seed: int = 0,
) -> Factor:
    """Test whether values differ between the levels of a factor, other factors allowed for.

    The F ratio of the additive model of all factors against that without this one, and its permutation p by
    the method of Freedman and Lane (1983): residuals of the smaller model are permuted, so that neither a
    normal distribution is assumed nor that levels are balanced. Without other factors the test is exact.

    Parameters
    ----------
    values : array_like, shape (n,)
        One a run.
    own : sequence of length n
        Levels of the factor tested.
    others : sequence of sequences of length n
        Levels of each other factor.
    n_resamples : int
        Permutations; the least p is 1 / (n_resamples + 1).
    seed : int
        Of the permutations: one seed, one p.

    Raises
    ------
    ValleysError
        Values that are not a flat list of finite numbers, or levels that are not one a value.
    """
    values = _sample(values, 0.95)
    n = len(values)
    if any(len(labels) != n for labels in (own, *others)):
        raise ValleysError(f"factor_test: there are {n} values; each factor needs as many levels")
    small = _basis(n, others)
    large = _basis(n, [*others, own])
    more, left = large.shape[1] - small.shape[1], n - large.shape[1]
    if more < 1 or left < 1:
        return Factor(nan, nan, nan)
    residuals = values - small @ (small.T @ values)
    rng = np.random.default_rng(seed)
    drawn = rng.permuted(np.broadcast_to(residuals, (n_resamples, n)), axis=1)
    both = np.vstack([residuals, drawn]).T
    rest = [((both - basis @ (basis.T @ both)) ** 2).sum(axis=0) for basis in (small, large)]
    if rest[0][0] <= 1e-20 * max(float((values**2).sum()), 1e-300):
        return Factor(nan, nan, nan)  # nothing is left to explain
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (rest[0] - rest[1]) / more / (rest[1] / left)
    p = float((ratios >= ratios[0] * (1 - 1e-9)).sum()) / (n_resamples + 1)
    return Factor(float(ratios[0]), p, float(1 - rest[1][0] / rest[0][0]))


def _basis(n: int, factors: Sequence[Sequence[Hashable]]) -> NDArray[np.float64]:
    """Return an orthonormal basis of a constant and the indicators of all levels, shape (n, rank)."""
    columns = [np.ones(n)]
    for labels in factors:
        columns += [
            np.array([one == level for one in labels], dtype=float) for level in dict.fromkeys(labels)
        ]
    u, sizes, _ = np.linalg.svd(np.stack(columns, axis=1), full_matrices=False)
    return u[:, sizes > 1e-9 * sizes.max(initial=0.0)]


def _check_level(level: float) -> None:
    """Check a confidence level."""
    if not 0 < level < 1:
        raise ValleysError(f"level: {level!r} is not between 0 and 1")


def _sample(values: ArrayLike, level: float) -> NDArray[np.float64]:
    """Check a sample and a level; return the sample as an array of shape (n,)."""
    _check_level(level)
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1:
        raise ValleysError(f"values: expected a flat list, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValleysError(f"values: {int((~np.isfinite(values)).sum())} of {values.size} are not finite")
    if (np.abs(values) > _LARGEST).any():
        raise ValleysError(f"values: one is beyond {_LARGEST:g}, and squares would not be finite")
    return values
