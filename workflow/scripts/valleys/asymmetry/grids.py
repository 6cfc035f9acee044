"""Offsets and losses that a curve's mathematics can take: checked, as float64; no measuring here."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valleys.errors import ValleysError

Floats = NDArray[np.float64]
RELATIVE_TOLERANCE = 1e-9  # two levels or widths of windows closer than this (relative) count as equal
OFFSET_TOLERANCE = 1e-6  # two offsets closer than this share of R count as equal: they may come in float32
RISE_TOLERANCE = 0.1  # relative, of the rise that a radius is found for
_LARGEST = 1e300  # of numbers whose differences are taken
_MIN_POINTS = 5


def checked_numbers(values: ArrayLike, name: str) -> Floats:
    """Return values as float64; refuse what would lose a part on the way there."""
    try:
        given = np.asarray(values)
        numbers = given.astype(np.float64) if given.dtype.kind != "c" else None
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: tensors that need a gradient
        raise ValleysError(f"{name}: not an array of real numbers ({error})") from error
    if numbers is None or np.ma.is_masked(values):
        kind = "complex numbers" if numbers is None else "masked values"
        raise ValleysError(f"{name}: {kind}; give a real number for each point")
    if (np.isfinite(numbers) & (np.abs(numbers) > _LARGEST)).any():
        raise ValleysError(f"{name}: a value is beyond {_LARGEST:g}, and differences would not be finite")
    return numbers


def checked_grid(offsets: ArrayLike, losses: Floats, name: str) -> Floats:
    """Check grids and curves; return the offsets broadcast to the curves' shape (B, n)."""
    offsets = checked_numbers(offsets, "offsets")
    n = losses.shape[-1]
    if offsets.shape not in {(n,), losses.shape}:
        raise ValleysError(f"offsets: shape {offsets.shape} does not fit the {name}' shape {losses.shape}")
    if n < _MIN_POINTS:
        raise ValleysError(f"offsets: {n} points, need at least {_MIN_POINTS}")
    if not np.isfinite(losses).all():
        raise ValleysError(f"{name}: {int((~np.isfinite(losses)).sum())} of {losses.size} are not finite")
    grids = np.atleast_2d(offsets)
    if not np.isfinite(grids).all():
        raise ValleysError("offsets: not all finite")
    if (np.diff(grids) <= 0).any():
        raise ValleysError("offsets: must be strictly increasing")
    # Relative to R: linspace and arange leave rounding, in float32 of up to 1e-7.
    tolerance = OFFSET_TOLERANCE * np.abs(grids).max(axis=1)
    if (np.abs(grids).min(axis=1) > tolerance).any():
        raise ValleysError("offsets: 0 is not among them")
    if (np.abs(grids + grids[:, ::-1]).max(axis=1) > tolerance).any():
        raise ValleysError("offsets: not symmetric about 0")
    return np.broadcast_to(grids, losses.shape)
