"""The barrier between two solutions: how far the loss rises over the chord between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from valleys.asymmetry.grids import RELATIVE_TOLERANCE, checked_numbers
from valleys.errors import ValleysError


@dataclass(frozen=True)
class Barrier:
    """Loss barrier on the segment between two solutions.

    Attributes
    ----------
    height : float
        ``max_t [phi(t) - ((1 - t) phi(0) + t phi(1))]`` over the measured t in [0, 1]; never below 0, inf
        where a loss there is not finite.
    at : float
        The t of that maximum.
    """

    height: float
    at: float

    def asdict(self) -> dict[str, float]:
        """Return the fields as a dict, in the order of declaration."""
        return asdict(self)


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
    t, losses = checked_numbers(t, "barrier: t"), checked_numbers(losses, "barrier: losses")
    if t.ndim != 1 or t.shape != losses.shape:
        raise ValleysError(f"barrier: t and losses need one shape (n,), got {t.shape} and {losses.shape}")
    if not (np.isfinite(t).all() and np.isfinite(losses).all()):
        raise ValleysError("barrier: t and losses must be finite")
    if (np.diff(t) <= 0).any():
        raise ValleysError("barrier: t must be strictly increasing")
    ends = []
    for end in (0.0, 1.0):
        k = np.flatnonzero(np.abs(t - end) <= RELATIVE_TOLERANCE)
        if not len(k):
            raise ValleysError(f"barrier: t has no point at {end:g}; the chord needs both solutions")
        ends.append(int(k[0]))
    t, losses = t[ends[0] : ends[1] + 1], losses[ends[0] : ends[1] + 1]
    excess = losses - ((1 - t) * losses[0] + t * losses[-1])
    excess[[0, -1]] = 0.0  # by definition, whatever the rounding
    k = int(excess.argmax())
    return Barrier(float(excess[k]), float(t[k]))


def barrier_on(t: Sequence[float], losses: Sequence[float]) -> Barrier:
    """Return the barrier as `barrier` does; without end where a loss in [0, 1] is not finite, at the first.

    Raises
    ------
    ValleysError
        As `barrier`, but for losses that are not finite.
    """
    tolerance = RELATIVE_TOLERANCE
    between = [(at, loss) for at, loss in zip(t, losses, strict=True) if -tolerance <= at <= 1 + tolerance]
    for at, loss in between:
        if not math.isfinite(loss):
            return Barrier(math.inf, float(at))
    return barrier(*(np.array(values, dtype=np.float64) for values in zip(*between, strict=True)))
