"""Theorem 1 on measured curves: what a bias to the flat side gains when the loss is shifted at random.

Source of the claim: He, Huang and Yuan, "Asymmetric Valleys", NeurIPS 2019, Theorem 1. `simulations.theory`
simulates it; here phi is the train loss as measured along a direction, interpolated by PCHIP, with positive l
on the flat side and the solution at 0. For a shift delta, symmetric about 0 and at most d in size,

    G(b) = E[phi(delta) - phi(b + delta)]

is what a point biased by b > 0 gains, exactly for the interpolated curve: no shifts are drawn. Beside it
stands what the test loss really did, phi_test(0) - phi_test(b), and a bound proved in docs/theory.md, which
holds for any curve, convex or not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from valleys.errors import ValleysError
from valleys.results.measures import DIRECTION, on_all_points

Floats = NDArray[np.float64]

LAWS = ("uniform", "rademacher")
SCALES = (1 / 8, 1 / 4, 1 / 2)
"""d as shares of R: up to the shifts tried in experiment 5, and one that reaches any window (zeta <= R/2)."""
BIASES = (0.25, 0.5, 1.0, 1.5)
"""b in units of d, as long as b + d stays within R."""


def rows(curves: pa.Table, asymmetry: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of the ``theory_measured`` table.

    Directions with status ``asymmetric`` or ``symmetric``: along others the solution is no minimum, has no
    flat side, or a loss is not finite. The bias goes to the flat side of Definition 1 where c* is above 1,
    else to the side whose rise at R is less.

    Parameters
    ----------
    curves, asymmetry
        Tables of one or more cells.

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
    for names, curve in on_all_points(curves.to_pandas()).groupby(DIRECTION, sort=False):
        verdict = verdicts.get(names)
        if verdict is None:
            raise ValleysError(
                f"direction {'/'.join(map(str, names))} has no row in the table asymmetry; rerun detect"
            )
        if verdict["status"] not in ("asymmetric", "symmetric"):
            continue
        curve = curve.sort_values("offset")
        offsets, train, test = (curve[c].to_numpy() for c in ("offset", "train_loss", "test_loss"))
        side = verdict["flat_side"] or (1 if verdict["rise_plus"] <= verdict["rise_minus"] else -1)
        label = dict(zip(DIRECTION, names, strict=True)) | {"status": verdict["status"], "flat_side": side}
        window = verdict["zeta"] / offsets[-1], verdict["r"] / offsets[-1]
        x = offsets / offsets[-1]
        if side < 0:
            x, train, test = -x[::-1], train[::-1], test[::-1]
        found += [label | row for row in direction_rows(x, train, test, *window)]
    return found


_OF_VERDICT = ["status", "flat_side", "zeta", "r", "rise_plus", "rise_minus"]


def direction_rows(x: Floats, train: Floats, test: Floats, zeta: float, r: float) -> list[dict[str, Any]]:
    """Return one direction's rows: ``shift, scale, bias, gain, bound, best_bound, train_gain, test_gain``.

    Parameters
    ----------
    x : ndarray, shape (n,)
        Offsets as shares of R, from -1 to 1, positive on the flat side.
    train, test : ndarray, shape (n,)
        Losses there.
    zeta, r : float
        Window of Definition 1, as shares of R.
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
