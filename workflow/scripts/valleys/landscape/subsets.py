"""The error of a curve that images drawn by chance give: losses on subsets of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from valleys.asymmetry.grids import Floats
from valleys.landscape.lines import CurvePoint

#: Columns that `with_errors` adds.
ERRORS = ("train_error", "test_error", "train_error_1", "train_error_2", "train_error_3")


def with_errors(
    curve: list[CurvePoint], drawn_from: Mapping[str, int], made_of: Mapping[str, Floats] | None = None
) -> list[dict[str, Any]]:
    """Return a curve on a random subset of images with the errors that the choice of these brings.

    The error of a point is the standard error of its rise over offset 0: with d_i the change of image i's
    loss from 0 to there, s their standard deviation, and n images drawn from N,
    ``s / sqrt(n) * sqrt(1 - n / N)``. It is an error against the mean over all N images, of train and test
    split alike; seen as a sample of endless images, leave the last factor out. Errors of points of one curve
    hang together, being made by the same images: those of the train loss are given a second time as the
    three greatest of their independent parts (principal components of their covariance), whose sum, each
    times a standard normal number, is an error that the whole curve may have.

    Where batch norm is refreshed from the subset, its statistics have errors of their own. `made_of` has
    these too (`growing.errors_by_group`).

    Parameters
    ----------
    curve
        Rows with ``by_image``; one is at offset 0.
    drawn_from
        As in `Evaluator`.
    made_of
        By name of a split: ``deviations`` of `growing.Growing.errors` at the curve's points, in place of the
        losses by image.

    Returns
    -------
    The rows with the columns `ERRORS` in place of ``by_image``, in units of the loss; None of a split of
    which all images are used. Without `drawn_from`: the curve as it is.
    """
    if not drawn_from:
        return curve
    none = dict.fromkeys(ERRORS)
    rows = [{key: value for key, value in row.items() if key != "by_image"} | none for row in curve]
    at = next(k for k, row in enumerate(curve) if row["offset"] == 0)
    for name, whole in drawn_from.items():
        if made_of and name in made_of:
            given = torch.as_tensor(made_of[name])
            deviations = given - given[:, [at]]
            covariance = deviations.T @ deviations
        else:
            change = torch.stack([row["by_image"][name].double() for row in curve])
            change = change - change[[at]]
            n = change.shape[1]
            if n < 2:
                continue
            change -= change.mean(dim=1, keepdim=True)
            covariance = (change @ change.T * ((1 - n / whole) / (n * (n - 1)))).cpu()
        _add(rows, name, covariance)
    return rows


def _add(rows: list[dict[str, Any]], name: str, covariance: Tensor) -> None:
    """Add the columns of a covariance (P, P) of a split's errors to the rows of P points."""
    for row, variance in zip(rows, covariance.diag().tolist(), strict=True):
        row[f"{name}_error"] = math.sqrt(variance) if variance >= 0 else math.nan
    if name == "train" and torch.isfinite(covariance).all():
        values, vectors = torch.linalg.eigh(covariance)
        for part, i in enumerate(range(-1, -4, -1), start=1):
            along = vectors[:, i] * values[i].clamp(min=0).sqrt()
            along = along * along[along.abs().argmax()].sign()  # a sign that does not hang on LAPACK
            for row, value in zip(rows, along.tolist(), strict=True):
                row[f"train_error_{part}"] = value
