"""What makes a claim ``supported``, ``refuted`` or ``inconclusive``. These rules cover all claims:

share
    The claim says that something is the case more often than not. Supported when the lower end of the Wilson
    interval of the share is above one half, refuted when the upper end is below it.
found
    The claim says that there is something at the minima that SGD finds, each of which was searched for it. As
    share, with 3/4 in place of one half. With fewer than 12 minima (at 0.95) it cannot be supported, and the
    note says so. It is refuted when too few searches succeed: that is no proof that there is nothing.
paired
    The claim says that a difference has a sign. Supported when the exact two-sided sign test over seeds has
    p < alpha and the difference has the claimed sign in most seeds, refuted when it has the other. With
    fewer seeds than can reach alpha (six at 0.05) the verdict is always inconclusive, and the note says so.
    Also for one value a seed that the claim puts above a given one: the difference is then taken from that.
symmetric
    The claim says that something is the case as often as not. Refuted when the Wilson interval of the share
    leaves out one half; else supported when it lies within 1/4 and 3/4, which takes 12 minima or more.
grid
    The claim says that a simulated number has a sign wherever it is simulated. Each row of the simulation has
    a normal interval from its Monte Carlo standard error, wide enough for all rows to hold together
    (Bonferroni). Supported when all intervals are on the claimed side of 0, refuted when one is on the other.
bound
    The claim says that a simulated number is not below a bound proved in docs/theory.md. With intervals as
    for grid: refuted when one row's interval is below its bound, else supported. A bound may be exact, and
    then the number lies on either side of it by chance; the note says in how many rows it is clearly above.
barrier
    The claim says that there is a barrier between two solutions, or that there is none. A seed's value is
    the greatest train loss above the chord between the ends, t in [0, 1], in nats. With the t interval of the
    mean over seeds: none when its upper end is below ``claims.barrier`` (0.1 nats), one when its lower end is
    above. Seeds with a loss between the ends that is not finite are left out; with fewer than two values
    inconclusive.
unchanged
    The claim says that something does not depend on a factor. Each seed has its change from the factor's
    first level to its last, as a share of the mean. Refuted when the exact two-sided sign test over seeds has
    p < alpha, whichever way; else supported when the t interval of the mean change lies within -1/4 and 1/4,
    and there are as many seeds as could have refuted it.
levels
    The claim says that something depends on a factor (`valleys.claims.crossed`). Minima are independent runs
    with levels drawn at random: F ratio of the additive model of all factors against that without this one,
    of ranks (the index has a heavy tail: single minima reach ten times the median), with its permutation
    p (Freedman and Lane), adjusted by Holm over the factors of the study (for one probe). So a strong factor
    is no noise to the others, and minima left out at one level do not speak for another. Supported when
    that p is below alpha, else inconclusive: it is never shown that a factor has no influence. The effect
    is the greatest less the least of the levels' plain means.

The effect of a grid or bound claim is that of the row nearest to failing, counted in standard errors.
"""

from __future__ import annotations

import numpy as np

from valleys.results import stats

SUPPORTED, REFUTED, INCONCLUSIVE = "supported", "refuted", "inconclusive"
MOST = 0.75
"""Share of minima that the rule found asks for."""
_ROUNDING = 1e-12  # of a simulated number that equals its bound in every draw


def share_verdict(interval: stats.Interval, half: float = 0.5) -> str:
    """Return the verdict of the share rule for a Wilson interval (NaN bounds: inconclusive).

    `half` is what the share is held against: one half, or `MOST` in the rule found.
    """
    if interval.low > half:
        return SUPPORTED
    return REFUTED if interval.high < half else INCONCLUSIVE


def paired_verdict(paired: stats.Paired, claimed_sign: int, alpha: float) -> str:
    """Return the verdict of the paired rule; `claimed_sign` is +1 or -1."""
    if not paired.p_sign < alpha:
        return INCONCLUSIVE
    majority = 1 if paired.positive > paired.negative else -1
    return SUPPORTED if majority == claimed_sign else REFUTED


def unchanged_verdict(paired: stats.Paired, alpha: float, margin: float = 0.25) -> str:
    """Return the verdict of the unchanged rule for changes as shares of the mean, one a seed."""
    if paired.p_sign < alpha:
        return REFUTED
    within = -margin < paired.low and paired.high < margin
    return SUPPORTED if within and paired.n >= stats.min_n_sign(alpha) else INCONCLUSIVE


def grid_verdict(low: np.ndarray, high: np.ndarray, claimed_sign: int) -> str:
    """Return the verdict of the grid rule for simultaneous intervals; `claimed_sign` is +1 or -1."""
    if claimed_sign < 0:
        low, high = -high, -low
    if (high < 0).any():
        return REFUTED
    return SUPPORTED if len(low) and (low > 0).all() else INCONCLUSIVE


def bound_verdict(high: np.ndarray) -> str:
    """Return the verdict of the bound rule for upper ends of what lies above the bound."""
    if not len(high):
        return INCONCLUSIVE
    return REFUTED if (high < -_ROUNDING).any() else SUPPORTED


def barrier_verdict(interval: stats.Interval, threshold: float, *, claimed: bool) -> str:
    """Return the verdict of the barrier rule (NaN bounds: inconclusive).

    Parameters
    ----------
    interval
        Of the mean barrier, nats.
    threshold
        Barriers below this count as none.
    claimed
        Whether the claim says that there is a barrier.
    """
    if interval.low > threshold:
        return SUPPORTED if claimed else REFUTED
    if interval.high < threshold:
        return REFUTED if claimed else SUPPORTED
    return INCONCLUSIVE


def symmetric_verdict(interval: stats.Interval, low: float = 0.25, high: float = 0.75) -> str:
    """Return the verdict of the symmetric rule for a Wilson interval (NaN bounds: inconclusive)."""
    if interval.low > 0.5 or interval.high < 0.5:
        return REFUTED
    return SUPPORTED if interval.low > low and interval.high < high else INCONCLUSIVE
