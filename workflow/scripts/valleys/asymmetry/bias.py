"""Definition 1 along a bias of the last layer under cross-entropy, where it holds far out at any weights.

Proved in docs/theory.md, Proposition 3 and its corollary. The loss is the mean over images of softmax
cross-entropy. Raising the bias of class k by l adds l to each image's output k. What stands here is for
classes with less than half of the images, for which the raised bias is the steep side. For a larger class
the lowered bias is: give ``1 - share``, and log-odds with their signs turned.
"""

from __future__ import annotations

from math import isfinite, log

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit

from valleys.asymmetry.grids import checked_numbers
from valleys.errors import ValleysError


def bias_level(share: float) -> float:
    """Return the level that Definition 1 comes to along a class's bias far out, ``(1 - share) / share``.

    The slope of the loss tends to ``1 - share`` where the bias is raised and to ``-share`` where it is
    lowered. Definition 1 holds there at every c below their ratio.

    Parameters
    ----------
    share : float
        Share of the images that are of the class, in (0, 1). With label smoothing s over K classes
        ``(1 - s) share + s / K``.

    Returns
    -------
    float
        Slope of the raised over slope of the lowered side: 9 for one of ten balanced classes. Below 1 for a
        share above 1/2, where the lowered side is the steep one and the level is 1 over this.

    Raises
    ------
    ValleysError
        For a share that is not between 0 and 1.
    """
    if isinstance(share, bool) or not isinstance(share, int | float | np.integer | np.floating):
        raise ValleysError(f"share: {share!r} is not a number")
    if not 0 < share < 1:
        raise ValleysError(f"share: {share!r} is not between 0 and 1; give a class's share of the images")
    return float((1 - share) / share)


def bias_rise(share: float, c: float) -> float:
    """Return a rise of loss that is needed before the raised side of a bias is as steep as `c` asks.

    The loss at `bias_zeta` is above the lowest on the line by at least this much, whatever the network. It is
    the relative entropy of (share, 1 - share) to (q, 1 - q) for q = (1 + c) share.

    Parameters
    ----------
    share : float
        As in `bias_level`; below 1/2.
    c : float
        Level of Definition 1: above 1 and below `bias_level`.

    Returns
    -------
    float
        Nats. It grows without bound as c nears the level.

    Raises
    ------
    ValleysError
        For a share or a c that is not as described.
    """
    level = _checked_level(share, c)
    return (1 - share) * log(level / (level - c)) - share * log(1 + c)


def bias_zeta(log_odds: ArrayLike, share: float, c: float) -> float:
    """Return the least zeta with which Definition 1 holds along a bias at `c` for every r above it.

    The flat side is the lowered bias and p is `share`.

    Parameters
    ----------
    log_odds : array_like, shape (N,)
        For each image the class's output less the log of the sum of ``exp`` of the others.
    share : float
        As in `bias_level`; below 1/2.
    c : float
        Level of Definition 1: above 1 and below `bias_level`.

    Returns
    -------
    float
        In units of the outputs. 0 where the raised side is steep enough from the start.

    Raises
    ------
    ValleysError
        For log-odds that are not finite or not one for each image; for a share or a c that is not as
        described.
    """
    level = _checked_level(share, c)
    odds = checked_numbers(log_odds, "log_odds")
    if odds.ndim != 1 or not odds.size:
        raise ValleysError(f"log_odds: expected one for each image, shape (N,), got shape {odds.shape}")
    if not np.isfinite(odds).all():
        raise ValleysError(f"log_odds: {int((~np.isfinite(odds)).sum())} of {odds.size} are not finite")
    # Of 1 - p, as p itself is near 1 where c is near the level.
    lack = share * (level - c)
    middle = log((1 + c) / (level - c))  # where it is if all log-odds are 0
    root = brentq(
        lambda raised: float(expit(-(odds + raised)).mean()) - lack,
        middle - float(odds.max()) - 1,
        middle - float(odds.min()) + 1,
        xtol=1e-12,
    )
    return max(float(root), 0.0)


def _checked_level(share: float, c: float) -> float:
    """Return `bias_level`, checked to be above a c that is above 1."""
    level = bias_level(share)
    if level <= 1:
        raise ValleysError(
            f"share: {share!r} is not below 1/2, and the lowered side of the bias is the steep one; "
            "give 1 - share and log-odds with their signs turned"
        )
    if isinstance(c, bool) or not isinstance(c, int | float | np.integer | np.floating) or not isfinite(c):
        raise ValleysError(f"c: {c!r} is not a number")
    if not 1 < c < level:
        raise ValleysError(f"c: {c!r} is not above 1 and below (1 - share) / share = {level:g}")
    return level
