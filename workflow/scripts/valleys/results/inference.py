"""What a sample says for a claim and against it: two one-sided p-values, an interval, and the n it would
take.

Each function takes one value a minimum (or a seed): n counts independent repetitions. ``p_for`` is the
p-value of the hypothesis that the claim is false, ``p_against`` that of the hypothesis that it is true, both
one-sided. A verdict compares each with alpha / 2, so that a claim on the edge gets a false verdict in alpha
of all samples at most. Both are 1 where there are too few values for a test.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import ceil, exp, log, nan

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as sps

from valleys.results import stats

EXACT = 16
"""Up to so many values a sign-flip test looks at all 2^n sign patterns, beyond at `DRAWN` random ones."""
DRAWN = 99_999
POWER = 0.8
"""Of the sample size that an inconclusive row names."""
_LARGEST_N = 10_000


@dataclass(frozen=True)
class Evidence:
    """What a sample says of a claim.

    Attributes
    ----------
    estimate, low, high : float
        With its interval, in units of the data; NaN where n is too small.
    n : int
        Number of values.
    p_for, p_against : float
        One-sided p-values, in (0, 1].
    least : float
        The least p-value that n values can give, whatever they are: of the lesser of the two.
    n_needed : int or None
        Where neither p-value reaches alpha / 2: values it takes for a verdict with a power of 0.8 at the
        effect and the scatter seen or, where `least` is too great, for any verdict at all. None where no
        number up to 10,000 will do, as where all hangs on what is undecided.
    """

    estimate: float
    low: float
    high: float
    n: int
    p_for: float
    p_against: float
    least: float
    n_needed: int | None


def mean(values: ArrayLike, at: float, *, above: bool = True, alpha: float, level: float) -> Evidence:
    """Test whether a mean lies above a number (or below it) by flipping signs.

    The null distribution is that of the mean of ``values - at`` over all choices of their signs (Fisher's
    randomisation test), exact where values lie symmetrically about `at` under the null; the interval is
    Student's.

    Parameters
    ----------
    values : array_like, shape (n,)
        One an independent repetition.
    at : float
        What the mean is held against.
    above : bool
        Whether the claim says that the mean is above.
    alpha, level : float
        Two-sided level of the test, and of the interval.

    Raises
    ------
    ValleysError
        As `stats.mean_interval`.
    """
    interval = stats.mean_interval(values, level)
    values = np.asarray(values, dtype=np.float64) - at
    if not interval.n:
        return Evidence(nan, nan, nan, 0, 1.0, 1.0, 1.0, least_n_sign_flip(alpha))
    p_above, p_below = sign_flip(values)
    least, needed = _least_sign_flip(interval.n), None
    if least > alpha / 2:
        needed = least_n_sign_flip(alpha)
    elif min(p_above, p_below) > alpha / 2:
        needed = n_for_power(values, alpha)
    return Evidence(
        interval.estimate,
        interval.low,
        interval.high,
        interval.n,
        p_above if above else p_below,
        p_below if above else p_above,
        least,
        needed,
    )


def sign_flip(values: ArrayLike) -> tuple[float, float]:
    """Return the one-sided p-values that the mean is above 0, and below, over choices of the values' signs.

    All 2^n to n = 16, beyond 99,999 random ones (one seed, one answer).
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 1:  # which SciPy refuses
        return (0.5 if values[0] > 0 else 1.0), (0.5 if values[0] < 0 else 1.0)
    found = sps.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative="greater", n_resamples=DRAWN, rng=0
    )
    exact = 2 ** len(values) <= DRAWN
    rounding = 1e-12 * np.abs(values).mean()
    below = np.sum(found.null_distribution <= found.statistic + rounding)
    patterns = len(found.null_distribution)
    return float(found.pvalue), float(below / patterns if exact else (below + 1) / (patterns + 1))


def _least_sign_flip(n: int) -> float:
    return max(2.0**-n, 1 / (DRAWN + 1)) if n > EXACT else 2.0**-n


@cache
def least_n_sign_flip(alpha: float) -> int:
    """Return the least n at which all values on one side reach p <= alpha / 2."""
    return ceil(-log(alpha / 2) / log(2) - 1e-12)


def n_for_power(values: ArrayLike, alpha: float) -> int | None:
    """Return the n at which a t test of such values against 0 has a power of 0.8; None above 10,000.

    The sign-flip test has nearly the power of the t test.
    """
    from statsmodels.stats.power import TTestPower

    values = np.asarray(values, dtype=np.float64)
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    if spread == 0:
        return None
    effect, power = abs(float(values.mean())) / spread, TTestPower().power
    return _least_n(lambda n: power(effect, n, alpha, alternative="two-sided"))


def _least_n(power: Callable[[int], float]) -> int | None:
    """Return the least n of 2 to 10,000 with a power of 0.8, which grows with n; None if there is none."""
    sizes = range(2, _LARGEST_N + 1)
    at = bisect_left(sizes, POWER, key=power)
    return sizes[at] if at < len(sizes) else None


def share(
    values: ArrayLike,
    at: float,
    *,
    alpha: float,
    level: float,
    least: ArrayLike | None = None,
    most: ArrayLike | None = None,
) -> Evidence:
    """Test whether the mean of values in [0, 1] lies above a share, whatever their distribution.

    By Hoeffding's inequality (1963, theorem 1): independent values in [0, 1] with mean m have a sample mean
    of x or more, x > m, with a probability of ``exp(-n KL(x, m))`` at most, KL being the relative entropy of
    two coins. So neither the discreteness of a share of three directions nor their correlation within a
    minimum matters. The interval holds the shares that are not rejected.

    Where part of a share is undecided, no guess is made (Manski 1990): ``p_for`` and ``low`` are of the
    values with all of it counted as misses, ``p_against`` and ``high`` with all of it counted as hits.

    Parameters
    ----------
    values : array_like, shape (n,)
        One a minimum: 0 or 1, or the share of its directions.
    at : float
        In (0, 1).
    alpha, level : float
        Two-sided level of the test, and of the interval.
    least, most : array_like, shape (n,), optional
        `values` with what is undecided counted as misses, and as hits. Without them, nothing is.
    """
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if not n:
        return Evidence(nan, nan, nan, 0, 1.0, 1.0, 1.0, _least_n_share(at, alpha))
    x = float(values.mean())
    fewest, greatest = (x if part is None else float(np.mean(part)) for part in (least, most))
    p_for = exp(-n * relative_entropy(fewest, at)) if fewest > at else 1.0
    p_against = exp(-n * relative_entropy(greatest, at)) if greatest < at else 1.0
    low, high = _hoeffding_interval(fewest, n, level)[0], _hoeffding_interval(greatest, n, level)[1]
    smallest, needed = min(at, 1 - at) ** n, None
    if smallest > alpha / 2:
        needed = _least_n_share(at, alpha)
    elif min(p_for, p_against) > alpha / 2 and not fewest <= at <= greatest:
        needed = _n_for_share(fewest if fewest > at else greatest, at, alpha)
    return Evidence(x, low, high, n, p_for, p_against, smallest, needed)


def relative_entropy(x: float, m: float) -> float:
    """Return KL(x, m) = x log(x / m) + (1 - x) log((1 - x) / (1 - m)), nats."""
    return float(sps.entropy([x, 1 - x], [m, 1 - m]))


def _hoeffding_interval(x: float, n: int, level: float) -> tuple[float, float]:
    from scipy.optimize import brentq

    bar = log(2 / (1 - level)) / n

    def distance(m: float) -> float:
        return relative_entropy(x, m) - bar

    edge = 1e-12
    low = brentq(distance, edge, x) if x > edge and distance(edge) > 0 else 0.0
    high = brentq(distance, x, 1 - edge) if x < 1 - edge and distance(1 - edge) > 0 else 1.0
    if x >= 1 - edge:
        low = exp(-bar)
    if x <= edge:
        high = 1 - exp(-bar)
    return float(low), float(high)


def _least_n_share(at: float, alpha: float) -> int:
    """Return the least n at which values that are all 1, or all 0, reach alpha / 2."""
    return ceil(log(alpha / 2) / log(min(at, 1 - at)))


def _n_for_share(x: float, at: float, alpha: float) -> int | None:
    """Return the n at which minima of which a share x hits reach alpha / 2 with a probability of 0.8."""

    def power(n: int) -> float:
        shares = np.arange(n + 1) / n
        far = n * sps.entropy([shares, 1 - shares], [[at], [1 - at]]) >= log(2 / alpha)
        return float(sps.binom.pmf(np.flatnonzero(far & ((shares > at) == (x > at))), n, x).sum())

    return _least_n(power)


def equivalence(values: ArrayLike, margin: float, *, alpha: float, level: float) -> Evidence:
    """Test whether a mean lies within +-margin: two one-sided t tests (Schuirmann 1987).

    For the claim is the greater of the two p-values that the mean is not beyond either end. Against it: that
    it is beyond one end, the lesser of two, doubled. The interval has the level of both tests together,
    ``1 - alpha``: the claim is supported where it lies within the margins.

    Parameters
    ----------
    values : array_like, shape (n,)
        One an independent repetition, in units of `margin`.
    margin : float
        Half the width of what counts as no difference.
    alpha, level : float
        Two-sided level of the tests, and of the interval.
    """
    from statsmodels.stats.weightstats import DescrStatsW

    interval = stats.mean_interval(values, level)
    if interval.n < 2:
        return Evidence(interval.estimate, nan, nan, interval.n, 1.0, 1.0, 1.0, 2)
    values = np.asarray(values, dtype=np.float64)
    if values.std() <= 1e-12 * margin:
        inside = abs(values[0]) < margin
        p_for, p_against = (0.0, 1.0) if inside else (1.0, 0.0)
    else:
        both = DescrStatsW(values)
        p_for = float(both.ttost_mean(-margin, margin)[0])
        beyond = [both.ttest_mean(margin, "larger")[1], both.ttest_mean(-margin, "smaller")[1]]
        p_against = min(1.0, 2 * float(min(beyond)))
    needed = None
    if min(p_for, p_against) > alpha / 2:
        needed = n_for_power(np.sign(interval.estimate) * values - margin, alpha)
    estimate, low, high = interval.estimate, interval.low, interval.high
    return Evidence(estimate, low, high, interval.n, p_for, p_against, 0.0, needed)


def simulated(
    estimates: ArrayLike, errors: ArrayLike, *, sign: int = 1, level: float
) -> tuple[Evidence, int, NDArray[np.float64], NDArray[np.float64]]:
    """Test whether each of several simulated numbers has a sign, from its Monte Carlo standard error.

    For the claim is the greatest p-value over the numbers (all must have the sign), against it the least,
    times their number (Bonferroni).

    Returns
    -------
    The evidence, with the number nearest to failing as estimate; its place; and the ends of intervals that
    hold all together (`stats.simultaneous`), shape (n,).
    """
    estimates, errors = np.asarray(estimates, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    low, high = stats.simultaneous(estimates, errors, level)
    scores = sign * estimates / np.maximum(errors, 1e-300)
    at = int(scores.argmin())
    p_for = float(sps.norm.sf(scores[at]))
    p_against = min(1.0, len(scores) * float(sps.norm.cdf(scores[at])))
    evidence = Evidence(
        float(estimates[at]), float(low[at]), float(high[at]), len(scores), p_for, p_against, 0.0, None
    )
    return evidence, at, low, high


def all_of(p_for: ArrayLike, p_against: ArrayLike) -> tuple[float, float]:
    """Return the p-values of the claim that several claims all hold.

    For it the greatest of theirs (intersection-union test, Berger 1982); against it the least, times their
    number (Bonferroni): one that is false is enough.
    """
    p_for, p_against = np.asarray(p_for, dtype=np.float64), np.asarray(p_against, dtype=np.float64)
    return float(p_for.max()), min(1.0, len(p_against) * float(p_against.min()))


def two_sided(p_for: float, p_against: float) -> float:
    """Return the two-sided p-value: twice the lesser of two one-sided ones, 1 at most."""
    return min(1.0, 2 * min(p_for, p_against))
