"""What a search saw, as rows of the tables ``searches`` and ``search_curves``, and whether that is a find."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from valleys.asymmetry.bias import bias_level as level_of_share
from valleys.asymmetry.definition import Detection, reaches
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.lines import Radius
from valleys.models.losses import ByName

NO_CURVE = Detection("not_finite", *[math.nan] * (len(fields(Detection)) - 1))
"""Of a curve with a loss that is not finite."""
_OF_DETECTION = ("rise_plus", "rise_minus", "zeta", "r", "p")  # columns of the images judged on alone


@dataclass(frozen=True)
class Seen:
    """A direction's curve on one part of the images.

    Attributes
    ----------
    radius
        Where the loss on these images has risen as asked for.
    offsets, losses, test
        Of the curve; test losses are NaN where there are no test images.
    by_image
        The loss of each image at each offset, shape (points, images).
    found
        What Definition 1 says of the curve.
    """

    radius: Radius
    offsets: list[float]
    losses: list[float]
    test: list[float]
    by_image: Tensor
    found: Detection


def why_not(seen: Seen, rise: float, floor: float, constants: Mapping[str, float]) -> str:
    """Return why a direction on the images judged on is not found, in a line; empty where it is."""
    found, c = seen.found, constants.get("c", 2.0)
    flat_rise, where = min(found.rise_plus, found.rise_minus), "on the images judged on"
    if found.status == "not_finite":
        return f"{where} the loss is not finite along it"
    if seen.radius.status == "capped":
        return f"{where} the loss does not rise by {rise:g} within reach along it"
    if seen.radius.status != "found":
        return f"{where} the loss leaps over a rise of {rise:g}, or is not finite further out, along it"
    if found.status in ("not_minimum", "flat"):
        return f"{where} the solution is no minimum along it ({found.status})"
    if not reaches(found.c_star, c):
        return f"{where} c* is {found.c_star:.3g}, below {c:g}"
    if flat_rise < floor:
        return f"{where} its flat side rises by {flat_rise:.3g}, below {floor:g}"
    return ""


def columns(part: str, found: Detection) -> dict[str, Any]:
    """Return the columns that each part of the images has."""
    return {
        f"{part}_status": found.status,
        f"{part}_c_star": found.c_star,
        f"{part}_index": found.asymmetry_index,
        f"{part}_flat_rise": min(found.rise_plus, found.rise_minus),
    }


def judged(seen: Seen, resampled: Sequence[Detection]) -> dict[str, Any]:
    """Return the columns of the images judged on; `resampled`: over images drawn anew from these."""
    values = [one.c_star for one in resampled if math.isfinite(one.c_star)]
    low, high = np.quantile(values, [0.025, 0.975]) if values else (math.nan, math.nan)
    row = columns("judge", seen.found) | {"judge_c_low": float(low), "judge_c_high": float(high)}
    row["judge_radius"] = seen.radius.radius
    return row | {f"judge_{name}": getattr(seen.found, name) for name in _OF_DETECTION}


def bias_level(evaluator: Evaluator) -> float:
    """Return the level that Definition 1 reaches along some output's bias, at any weights, from far enough.

    It is ``(1 - pi) / pi`` with pi the share of the rarest class among the train images (docs/theory.md);
    NaN where the loss is no plain softmax cross-entropy of classes.
    """
    loss = evaluator.loss.loss
    named = isinstance(loss, ByName) and loss.name == "cross_entropy"
    weighted = evaluator.loss.weighted
    plain = getattr(weighted, "function", None) is F.cross_entropy and weighted.weight is None
    labels = torch.cat(list(evaluator.train_batches.labels()))
    if not (named or (plain and not weighted.label_smoothing)) or labels.dim() != 1:
        return math.nan
    if labels.is_floating_point():
        return math.nan
    if plain:
        labels = labels[labels != weighted.ignore_index]
    counts = labels.unique(return_counts=True)[1]
    return level_of_share(int(counts.min()) / len(labels)) if len(counts) > 1 else math.nan


JUDGED = ["bias_level", *columns("judge", NO_CURVE), *columns("test", NO_CURVE)]
"""Columns that the restart alone has whose direction is chosen."""
JUDGED += [f"judge_{name}" for name in ("c_low", "c_high", "radius", *_OF_DETECTION)]


def points(of: str, images: str, seen: Seen) -> list[dict[str, Any]]:
    """Return the points of a curve; with the direction found judged, those of its test losses too."""
    named = {images: seen.losses}
    if images == "judge" and of == "found" and any(map(math.isfinite, seen.test)):
        named["test"] = seen.test
    return [
        {"of": of, "images": name, "offset": offset, "loss": loss}
        for name, losses in named.items()
        for offset, loss in zip(seen.offsets, losses, strict=True)
    ]
