"""Which of a curve's points an adaptive probe measures first; read by the Snakefile, so without torch."""

from __future__ import annotations

import math

LEAST = 5
"""Least number of points a side of a coarse grid: windows of Definition 1 have their ends on them."""


def coarse_step(points: int, zeta_max: float = 0.5) -> int:
    """Return every how many points a curve's coarse grid has one; 1 where it is the grid itself.

    The coarse grid is uniform and shares 0 and both ends with the whole one: of 21, 31 or 41 points it has
    11. All points are measured where half of them has no divisor but itself that leaves enough on each side:
    `LEAST`, or more if it takes more for a first offset within ``zeta_max R``.

    Parameters
    ----------
    points
        Of the whole curve; odd.
    zeta_max
        Of Definition 1.
    """
    half, least = points // 2, max(LEAST, math.ceil(1 / zeta_max - 1e-9))
    return next((half // a_side for a_side in range(least, half + 1) if half % a_side == 0), 1)
