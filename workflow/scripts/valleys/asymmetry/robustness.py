"""Whether a verdict survives errors of the size that a curve's losses have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from valleys.asymmetry.definition import detect_many
from valleys.asymmetry.grids import Floats
from valleys.asymmetry.spline import upsample

COPIES = 64  # of a curve, with errors, that its verdict is taken on (`next_point`, `is_robust`)


def is_robust(
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
        (`upsample`).
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
        curves = np.stack([upsample(offsets, at, curve)[0] for curve in curves])
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
