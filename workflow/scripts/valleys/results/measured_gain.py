"""Theorem 1 on measured curves: what a bias to the flat side gains when the loss is shifted at random.

Source of the claim: He, Huang and Yuan, "Asymmetric Valleys", NeurIPS 2019, Theorem 1. `simulations.theory`
simulates it; here phi is the train loss as measured along a direction, about its own least point m, with
positive l on the flat side and m at 0: a gain is not the way back from a solution beside the minimum. Points
about m are read off the spline of `asymmetry.spline`, and phi is interpolated by PCHIP. For a shift delta,
symmetric about 0 and at most d in size,

    G(b) = E[phi(delta) - phi(b + delta)]

is what a point biased by b > 0 gains, exactly for the interpolated curve: no shifts are drawn. Beside it
stands what the test loss really did, phi_test(0) - phi_test(b), m again at 0, and a bound proved in
docs/theory.md, which holds for any curve, convex or not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from valleys.asymmetry.definition import detect
from valleys.asymmetry.spline import between
from valleys.errors import ValleysError
from valleys.results.measures import DIRECTION, on_all_points
from valleys.storage.tables import filled

Floats = NDArray[np.float64]

LAWS = ("uniform", "rademacher")
SCALES = (1 / 8, 1 / 4, 1 / 2)
"""d as shares of R' = R - |m|: up to the shifts tried in experiment 5, and one that reaches any window."""
BIASES = (0.25, 0.5, 1.0, 1.5)
"""b in units of d, as long as b + d stays within R'."""


def rows(curves: pa.Table, asymmetry: pa.Table, constants: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the rows of the ``theory_measured`` table.

    Directions of any kind with status ``asymmetric`` or ``symmetric``: along others the solution is no
    minimum, has no flat side, or a loss is not finite. The status is that of Definition 1 at the solution.
    The window and the flat side are those of Definition 1 on the curve about m. Where c* is not above 1
    there, the bias goes to the side whose rise at R' is less.

    Parameters
    ----------
    curves, asymmetry
        Tables of one or more cells.
    constants
        ``c, zeta_max, min_span, minimum_within, noise`` of `definition.detect`.

    Raises
    ------
    ValleysError
        When a curve has no row in ``asymmetry``.
    """
    verdicts = {
        tuple(row[key] for key in DIRECTION): row
        for row in asymmetry.select([*DIRECTION, *_OF_VERDICT]).to_pylist()
    }
    found = []
    for names, curve in filled(on_all_points(curves.to_pandas()), "curves").groupby(DIRECTION, sort=False):
        verdict = verdicts.get(names)
        if verdict is None:
            raise ValleysError(
                f"direction {'/'.join(map(str, names))} has no row in the table asymmetry; rerun detect"
            )
        if verdict["status"] not in ("asymmetric", "symmetric"):
            continue
        x, train, test, slopes = _about(curve.sort_values("offset"), verdict["minimum"])
        own = detect(x, train, slopes=slopes, **constants)
        side = own.flat_side or (1 if train[-1] <= train[0] else -1)
        label = dict(zip(DIRECTION, names, strict=True)) | {"status": verdict["status"], "flat_side": side}
        label |= {"rise": verdict["rise"]}
        window = own.zeta / x[-1], own.r / x[-1]
        x = x / x[-1]
        if side < 0:
            x, train, test = -x[::-1], train[::-1], test[::-1]
        found += [label | row for row in direction_rows(x, train, test, *window)]
    return found


_OF_VERDICT = ["status", "minimum", "rise"]


def _about(curve: pd.DataFrame, minimum: float) -> tuple[Floats, Floats, Floats, Floats | None]:
    """Return a curve about an offset: offsets to +-R', train and test losses there, exact slopes if known."""
    offsets, train, test = (curve[c].to_numpy() for c in ("offset", "train_loss", "test_loss"))
    exact = curve["train_slope"].to_numpy(dtype=np.float64, na_value=math.nan)
    slopes = exact if np.isfinite(exact).all() else None
    if minimum == 0:
        return offsets, train, test, slopes
    x = offsets * (1 - abs(minimum) / offsets[-1])
    places = np.clip(x + minimum, offsets[0], offsets[-1])
    values, steepness = between(offsets, train, places, slopes)
    return x, values, between(offsets, test, places)[0], None if slopes is None else steepness


def direction_rows(x: Floats, train: Floats, test: Floats, zeta: float, r: float) -> list[dict[str, Any]]:
    """Return one direction's rows: ``shift, scale, bias, gain, bound, best_bound, train_gain, test_gain``.

    Parameters
    ----------
    x : ndarray, shape (n,)
        Offsets from m as shares of R', from -1 to 1, positive on the flat side.
    train, test : ndarray, shape (n,)
        Losses there.
    zeta, r : float
        Window of Definition 1, as shares of R'; NaN where there is none.
    """
    phi, at_test = PchipInterpolator(x, train), PchipInterpolator(x, test)
    slopes = _Slopes(phi)
    found = []
    for scale in SCALES:
        for bias in (scale * share for share in BIASES if scale * (1 + share) <= 1):
            fixed = {"train_gain": float(phi(0) - phi(bias)), "test_gain": float(at_test(0) - at_test(bias))}
            reach = scale + bias
            own = slopes.steep_and_flat(zeta, r, r) if reach <= r * (1 + 1e-9) else (math.nan, math.nan)
            others = {z: slopes.steep_and_flat(z, scale, reach) for z in x if 0 <= z < scale}
            for law in LAWS:
                bounds = [lower_bound(law, scale, bias, z, *both) for z, both in others.items()]
                values = {"gain": gain(phi, law, scale, bias), **fixed}
                values |= {
                    "bound": lower_bound(law, scale, bias, zeta, *own),
                    "best_bound": _greatest(bounds),
                }
                found.append({"shift": law, "scale": scale, "bias": bias, **values})
    return found


def gain(phi: PchipInterpolator, law: str, scale: float, bias: float) -> float:
    """Return E[phi(delta) - phi(bias + delta)] for delta uniform on +-scale, or -scale or scale."""
    ends = np.array([-scale, scale])
    if law == "rademacher":
        return float((phi(ends) - phi(bias + ends)).mean())
    return float(phi.integrate(-scale, scale) - phi.integrate(bias - scale, bias + scale)) / (2 * scale)


def lower_bound(law: str, scale: float, bias: float, zeta: float, steep: float, flat: float) -> float:
    """Return ``b [(q + p) / 2 P(|delta| > zeta + b) - p]`` (docs/theory.md, Theorem 1b).

    Parameters
    ----------
    steep, flat
        q, the least of -phi' on the steep side of the window, and p, the greatest phi' anywhere to the right
        of it. NaN, as the bound then is, where the theorem does not apply.
    """
    inner = zeta + bias
    beyond = max(0.0, 1 - inner / scale) if law == "uniform" else float(scale > inner)
    return bias * ((steep + flat) / 2 * beyond - flat)


def _greatest(values: list[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return max(finite, default=math.nan)


class _Slopes:
    """Exact extremes of the slope of a piecewise cubic: at knots, inflections and the ends asked for."""

    def __init__(self, phi: PchipInterpolator) -> None:
        self.slope = phi.derivative()
        cubic, square = phi.c[0], phi.c[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            turns = -square / (3 * cubic)
        inside = np.isfinite(turns) & (turns > 0) & (turns < np.diff(phi.x))
        self.at = np.concatenate([phi.x, phi.x[:-1][inside] + turns[inside]])
        self.values = self.slope(self.at)

    def extremes(self, low: float, high: float) -> tuple[float, float]:
        """Return the least and the greatest slope on [low, high]."""
        there = [*self.values[(self.at >= low) & (self.at <= high)], *self.slope([low, high])]
        return float(min(there)), float(max(there))

    def steep_and_flat(self, zeta: float, left: float, right: float) -> tuple[float, float]:
        """Return q, the least -slope on [-left, -zeta], and p >= 0, the greatest slope on [-zeta, right].

        NaN both where q is not above 0: the theorem needs a steep side that rises throughout.
        """
        steep = -self.extremes(-left, -zeta)[1]
        flat = max(self.extremes(-zeta, right)[1], 0.0)
        return (steep, flat) if steep > 0 else (math.nan, math.nan)
