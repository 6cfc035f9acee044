"""What a search for a direction ascends: functions of a curve's losses at a few offsets (docs/theory.md).

Offsets are shares of R; +u is the side that is to be flat. Each objective is given the losses at `OFFSETS`
and R, and is differentiated with respect to both.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: Where a step measures the curve, as shares of R: the ends and the middle of the window (R/2, R).
OFFSETS = (-1.0, -0.75, -0.5, 0.5, 0.75, 1.0)
SMOOTHING = 0.05  # of the least and the greatest slope, as a share of the rise per R
MARGIN = 3.5  # the ascent asks for this many times the floor, so that other images keep the floor
MOST = 0.25  # of the rise: more is not asked of the flat side, or no asymmetry would be left
DIP = 0.25  # least loss at R/2 on the flat side, as a share of the rise asked for at R: that of a parabola
PENALTY = 4.0

Objective = Callable[[Tensor, Tensor, float, float], Tensor]


def asymmetric(rises: Tensor, _radius: Tensor, rise: float, floor: float) -> Tensor:
    """Return the smoothed log of Definition 1's level on the window (R/2, R).

    Parameters
    ----------
    rises
        Losses at `OFFSETS` less that at 0, shape (6,).
    rise
        The larger of the two rises at R, as asked for.
    floor
        Least rise on the flat side.
    """
    outer, middle, inner = rises[0], rises[1], rises[2]
    steep = 4 * torch.stack([middle - inner, outer - middle])  # slopes per R, outwards
    flat = 4 * torch.stack([rises[4] - rises[3], rises[5] - rises[4]])
    width = SMOOTHING * rise
    least = -width * (torch.logsumexp(-steep / width, 0) - math.log(2))
    greatest = width * (torch.logsumexp(flat / width, 0) - math.log(2))
    # Slopes below half of the floor count as that: what is flatter yet is the noise of the images.
    level = torch.log(_at_least(least, floor / 2)) - torch.log(_at_least(greatest, floor / 2))
    wanted = min(MARGIN * floor, MOST * rise)
    lack = torch.relu(1 - rises[5] / wanted)
    dip = torch.relu(1 - rises[3] / (DIP * wanted))
    return level - PENALTY * (lack.square() + dip.square())


def symmetric(rises: Tensor, _radius: Tensor, rise: float, floor: float) -> Tensor:
    """Return minus the square of the log ratio of the rises at -R and R."""
    ends = [torch.log(_at_least(rises[i], 0.01 * rise)) for i in (0, 5)]
    return -(ends[0] - ends[1]).square()


def flat(_rises: Tensor, radius: Tensor, rise: float, floor: float) -> Tensor:
    """Return the log of R: how far one goes until the loss has risen by `rise` on one side."""
    return torch.log(radius)


OBJECTIVES: dict[str, Objective] = {"asymmetric": asymmetric, "symmetric": symmetric, "flat": flat}
"""By what is searched for (`kinds.SEEKS`)."""


def _at_least(value: Tensor, least: float) -> Tensor:
    """Return the larger of the two, smoothed."""
    return least + 0.5 * least * torch.nn.functional.softplus((value - least) / (0.5 * least))
