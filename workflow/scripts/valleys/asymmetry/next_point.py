"""Which point of a curve to measure next, so that the verdict of Definition 1 is settled soonest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from valleys.asymmetry.definition import detect_many
from valleys.asymmetry.robustness import COPIES
from valleys.asymmetry.spline import LARGE, spline_errors, unbent
from valleys.errors import ValleysError

FIRST = (0.0, 0.2, 0.4, 0.7, 1.0)  # of R: where an adaptive curve is measured first (`first_points`)
KNOWN = 0.015  # the greatest error between its points that is left, as a share of its range (`next_point`)
LEAST_ERROR = 1e-4  # and the smallest that is believed
DOUBT = 2.0  # times the errors expected, that those of its copies have


def first_points(points: int) -> list[int]:
    """Return the numbers of the points of a curve that are measured before it is asked which it needs.

    They are those nearest to `FIRST`, as shares of R, on both sides.

    Parameters
    ----------
    points
        Of the whole curve; odd. The middle one is at offset 0.
    """
    half = points // 2
    return sorted({half + sign * round(share * half) for share in FIRST for sign in (1, -1)})


def next_point(
    offsets: ArrayLike,
    at: Sequence[int],
    losses: ArrayLike,
    *,
    c: float = 2.0,
    zeta_max: float = 0.5,
    min_span: float = 0.25,
    minimum_within: float = 0.25,
    slopes: ArrayLike | None = None,
    noise: float = 1e-9,
    beside: ArrayLike | None = None,
) -> int | None:
    """Return the point that a curve needs most, having been measured at some: for its verdict, or its shape.

    A loss between the points measured is taken to be as far from their spline (`upsample`) as this one is
    there from a plainer interpolation: the monotone cubic one (PCHIP); where exact slopes are given, the
    spline without them. Both as asinh(rise / 10 nats), and the least error is a share `LEAST_ERROR` of the
    curve's range in it.

    - Where such an error is more than a share `KNOWN` of that range, the point with the greatest is next.
    - Else the verdict by Definition 1 is taken on `COPIES` curves with normal errors, `DOUBT` times as large.
      If any has another than the spline, next is the point whose errors differ most between these curves and
      those that agree.

    How often that gives the verdict of all points, at how many: benchmarks/README.md.

    Parameters
    ----------
    offsets : array_like, shape (n,)
        All, as in `detect`.
    at : sequence of int, length m
        Numbers of those measured, ascending; the middle one and both ends are among them.
    losses, slopes : array_like, shape (m,)
        The curve there; exact derivatives, if known.
    c, zeta_max, min_span, minimum_within, noise
        As in `detect`.
    beside : array_like, shape (m,), optional
        A second curve whose shape counts too, such as the test loss; not if a value is not finite.

    Returns
    -------
    Its number among `offsets`; None where the curve needs no other point.

    Raises
    ------
    ValleysError
        As in `detect`.
    """
    x, at, y = np.asarray(offsets, dtype=np.float64), list(at), np.asarray(losses, dtype=np.float64)
    if len(at) == len(x):
        return None
    if not np.isfinite(y).all():
        raise ValleysError(f"losses: {int((~np.isfinite(y)).sum())} of {y.size} are not finite")
    given = None if slopes is None else np.asarray(slopes, dtype=np.float64)
    spline, plain, error, size = spline_errors(x, at, y, given)
    errors = [error / size if size > 0 else error]
    if beside is not None and np.isfinite(other := np.asarray(beside, dtype=np.float64)).all():
        *_, further, spread = spline_errors(x, at, other, None)
        errors += [further / spread] if spread > 0 else []
    if (largest := np.max(errors, axis=0)).max() > KNOWN:
        return int(largest.argmax())
    error = DOUBT * np.maximum(error, max(LEAST_ERROR * size, noise / LARGE))
    error[at] = 0.0
    # Each draw and its opposite: what they have in common is then no chance.
    z = np.random.default_rng(0).standard_normal((COPIES // 2, len(x)))
    z = np.concatenate([np.zeros((1, len(x))), z, -z])
    bent = spline(x) + error * z
    copies = unbent(bent, y[at.index(len(x) // 2)])
    copies[:, at] = y
    steepness = None
    if given is not None:
        wrong = DOUBT * np.abs(spline(x, 1) - plain(x, 1))
        steepness = (spline(x, 1) + wrong * z) * LARGE * np.cosh(np.clip(bent, -640, 640))
        steepness[:, at] = given
    options = {"c": c, "zeta_max": zeta_max, "min_span": min_span, "minimum_within": minimum_within}
    verdicts = [one.status for one in detect_many(x, copies, slopes=steepness, noise=noise, **options)]
    differ = np.array([verdict != verdicts[0] for verdict in verdicts])
    if not differ.any():
        return None
    # The spline itself, which has no errors, is among those that agree.
    weight = np.abs(z[differ].mean(axis=0) - z[~differ].mean(axis=0))
    weight[at] = -1.0
    return int(weight.argmax())
