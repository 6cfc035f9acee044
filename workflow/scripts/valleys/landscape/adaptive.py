"""Curves measured where the verdict needs them, instead of at every offset."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from valleys.asymmetry import next_point, robustness
from valleys.asymmetry.spline import upsample
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.lines import CurvePoint, probe_line


def checked_points(count: int) -> list[int]:
    """Return which of a curve's points are measured in both precisions: the ends and the middle."""
    return sorted({0, count // 2, count - 1})


def confirm_precision(
    evaluator: Evaluator,
    direction: Mapping[str, Tensor],
    curve: list[CurvePoint],
    constants: Mapping[str, float],
    offsets: Sequence[float] | None = None,
) -> tuple[list[CurvePoint], dict[str, Any]]:
    """Return a curve whose verdict does not hang on the precision of its passes, and how it came about.

    A curve in bf16 is compared with fp32 at its ends and in the middle. Where errors like those found there
    (`errors_like`) could change its verdict by Definition 1 (`robustness.is_robust`), all of its points
    are measured again in fp32.

    Parameters
    ----------
    curve
        As `probe_line` returned it, in the evaluator's precision.
    constants
        Of Definition 1 (the config's ``asymmetry``).
    offsets
        All of the curve's, if it was measured at some.

    Returns
    -------
    curve, columns
        ``precision`` of the curve returned, and ``precision_error``: root mean square of the differences in
        train loss (its units) that bf16 made at the points compared; None where nothing was compared.
    """
    if evaluator.precision == "fp32":
        return curve, {"precision": "fp32", "precision_error": None}
    own, losses = ([row[key] for row in curve] for key in ("offset", "train_loss"))
    offsets = own if offsets is None else offsets
    checked = checked_points(len(offsets))
    with evaluator.in_precision("fp32"):
        exact = probe_line(evaluator, direction, [offsets[i] for i in checked])
        found = {point["offset"]: point["train_loss"] for point in exact}
        differences = [row["train_loss"] - found[row["offset"]] for row in curve if row["offset"] in found]
        error = math.sqrt(sum(d * d for d in differences) / len(differences))
        if math.isfinite(error) and all(map(math.isfinite, losses)):
            at = measured_at(offsets, curve)
            errors = robustness.errors_like(upsample(offsets, at, losses)[0], checked, differences)
            if robustness.is_robust(offsets, losses, errors[at], at=at, **constants):
                return curve, {"precision": "bf16", "precision_error": error}
        curve = _with_these(evaluator, direction, own, exact)
        return curve, {"precision": "fp32", "precision_error": error}


def probe_adaptively(
    evaluator: Evaluator,
    direction: Mapping[str, Tensor],
    offsets: Sequence[float],
    constants: Mapping[str, float],
    exact: bool = False,
) -> tuple[list[CurvePoint], dict[str, Any]]:
    """Return a curve on as many of the offsets as its shape and verdict need, and how it came about.

    Some points first (`next_point.first_points`), then one by one the point that is needed most
    (`next_point`), until none is. A point's values are those it has in `probe_line` at all offsets.
    The curve is to be read through `spline.upsample`.

    Parameters
    ----------
    offsets
        All of them, uniform and symmetric about 0.
    constants
        Of Definition 1 (the config's ``asymmetry``).
    exact
        As in `probe_line`.

    Returns
    -------
    curve, columns
        The points in the order of their offsets, and the columns of `confirm_precision`.
    """
    first = [offsets[i] for i in next_point.first_points(len(offsets))]
    axes = () if exact else (direction,)  # slopes differentiate the network as it is
    with evaluator.along(evaluator.start, *axes):
        curve = probe_line(evaluator, direction, first, exact)
        curve = _refined(evaluator, direction, offsets, curve, constants, exact)
        curve, measured = confirm_precision(evaluator, direction, curve, constants, offsets)
        if measured["precision"] != evaluator.precision:  # other points may be needed in fp32
            with evaluator.in_precision(measured["precision"]):
                curve = _refined(evaluator, direction, offsets, curve, constants, exact)
    return curve, measured


def _refined(
    evaluator: Evaluator,
    direction: Mapping[str, Tensor],
    offsets: Sequence[float],
    curve: list[CurvePoint],
    constants: Mapping[str, float],
    exact: bool,
) -> list[CurvePoint]:
    """Return the curve with the points that it needs beside its own."""
    columns = ("train_loss", "test_loss", "train_slope")
    while True:
        train, test, slopes = ([row[key] for row in curve] for key in columns)
        # One loss that is not finite settles the verdict; test losses are NaN where there are no test images.
        if not all(map(math.isfinite, train)) or any(map(math.isinf, test)):
            return curve
        known = None if any(slope is None or not math.isfinite(slope) for slope in slopes) else slopes
        at = measured_at(offsets, curve)
        wanted = next_point.next_point(offsets, at, train, slopes=known, beside=test, **constants)
        if wanted is None:
            return curve
        curve = _with_these(evaluator, direction, [offsets[wanted]], curve, exact)


def measured_at(offsets: Sequence[float], curve: list[CurvePoint]) -> list[int]:
    """Return the numbers of the offsets that the curve has, as `spline.upsample` takes them."""
    there = {row["offset"] for row in curve}
    return [i for i, offset in enumerate(offsets) if offset in there]


def _with_these(
    evaluator: Evaluator,
    direction: Mapping[str, Tensor],
    offsets: Sequence[float],
    curve: list[CurvePoint],
    exact: bool = False,
) -> list[CurvePoint]:
    """Return the curve with the points at these offsets, measured where it has none."""
    there = {row["offset"] for row in curve}
    more = probe_line(evaluator, direction, [offset for offset in offsets if offset not in there], exact)
    return sorted([*curve, *more], key=lambda row: row["offset"])
