"""Trace and largest eigenvalue of the Hessian, on as many images as their interval needs.

Batch norm is held, so the Hessian of all images is the mean of those of the images, and a product with the
Hessian of a random group of images is one with the whole, but for an error of that mean. As in `growing`,
looks are fixed beforehand, and each may be wrong with a part of ``1 - confidence``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from valleys.asymmetry.confidence import GROUPS, quantile
from valleys.data.parts import shuffled
from valleys.errors import ValleysError
from valleys.landscape import krylov, spectrum
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.growing import LEAST_OF_GROUP, Settled, check_confidence, part_of, until_settled
from valleys.landscape.hessian import Hessian
from valleys.storage.files import stable_seed

Floats = NDArray[np.float64]
ERRORS_WITHIN = 2.6  # of how far the trace of all images may be off: its standard errors, of `GROUPS` vectors
CONFIDENCE, WITHIN = 0.95, 0.1  # of `curvature`
KEPT_BYTES = 1024**3  # of graphs, see `Hessian`
RESIDUAL = 0.1  # of a pair, as a share of how far its eigenvalue may be off


@dataclass(frozen=True)
class Within:
    """An estimate with its interval.

    Attributes
    ----------
    value, low, high : float
        The interval holds the value of all images with the confidence that was asked for, over all looks.
    settled : Settled
        Its verdict is the value, or None where the interval is not as narrow as was asked for.
    error : float
        Of a trace: its standard error.
    samples : ndarray
        Of a trace: ``v' H v`` of each vector.
    vector : ndarray or None
        Of an eigenvalue: a unit eigenvector of the images so far, or of half of them.
    residual : float
        Of that pair ``|H v - value v|``, over the images that it is of; NaN of a trace.
    """

    value: float
    low: float
    high: float
    settled: Settled
    error: float = math.nan
    samples: Floats = field(default_factory=lambda: np.empty(0))
    vector: Floats | None = None
    residual: float = math.nan


class _Looks:
    """The train images in random order, and the Hessian over parts of them: what `until_settled` grows."""

    def __init__(self, evaluator: Evaluator, names: list[str], seed: int, keep: int) -> None:
        self.evaluator, self.keep = evaluator, keep
        self.there = self.total = len(evaluator.train_batches)
        self.order = shuffled(self.there, seed)
        self.least = GROUPS * LEAST_OF_GROUP
        self.images = self.passed = 0
        evaluator.reset()
        first = self._rows(self.order[: self.least])
        self.own = Hessian(evaluator.model, first, evaluator.loss, names, keep=keep)

    def grow(self, images: int) -> None:
        """Go on to this many images."""
        self.images = images

    def _rows(self, rows: torch.Tensor) -> Any:
        return part_of(self.evaluator.train_batches, rows, self.evaluator)

    def over(self, rows: torch.Tensor) -> _Counted:
        """Return products with the Hessian over some images."""
        return _Counted(self, self.own.on(self._rows(rows), self.keep), len(rows))

    def groups(self, rows: torch.Tensor, size: int) -> Iterator[tuple[float, Any]]:
        """Yield what each group of images weighs in the mean, and the products with its Hessian."""
        for part in rows.split(size):
            batches = self._rows(part)
            try:
                weight = len(part) / self.own.per_image.factor(batches.labels())
            except ValleysError:  # every label is ignored: nothing of it counts
                continue
            self.passed += len(part)
            yield weight, self.own.on(batches)

    def top(self, rows: torch.Tensor, start: Floats, tolerance: float) -> tuple[float, Floats, float]:
        """Return the largest eigenvalue over some images, its unit vector, and the residual."""
        products = self.over(rows)
        values, vectors, residuals = krylov.top(products, start, products @ start, 1, tolerance)
        return float(values[0]), vectors[0], float(residuals[0])


class _Counted:
    """Products that count the images that they pass."""

    def __init__(self, looks: _Looks, products: Any, images: int) -> None:
        self.looks, self.products, self.images = looks, products, images
        self.entries = looks.own.entries

    def __matmul__(self, vector: Floats) -> Floats:
        """Return the product with a vector."""
        self.looks.passed += self.images
        return self.products @ vector


def trace_until(
    evaluator: Evaluator,
    names: list[str],
    *,
    confidence: float,
    within: float,
    budget: int | None = None,
    seed: int = 0,
    keep: int = KEPT_BYTES,
) -> Within:
    """Return the trace of the Hessian, on as many images as it takes to know it.

    Each group of a few images has a random vector of signs v of its own, and gives ``v' H v`` (Hutchinson
    1989) of its own mean loss. These are unbiased and independent, so that their spread has the error of the
    images and that of the vectors. Once all images are there, the error is that of vectors alone, and
    `spectrum.trace_within` takes over. Half of ``1 - confidence`` is for the looks before, half for that one.

    Parameters
    ----------
    evaluator
        All of its train images are those that the trace is about; batch norm is held as its weights have it.
    names
        The parameters to differentiate by.
    confidence, budget
        As in `until_settled`.
    within
        How far each end of the interval may be from the value, as a share of it.
    seed
        Of the order of the images, and of the vectors.
    keep
        As in `Hessian`.

    Raises
    ------
    ValleysError
        As in `until_settled` and `Hessian`; when `within` is not a number above 0.
    """
    check_confidence(confidence)
    _check(within)
    looks = _Looks(evaluator, names, seed, keep)
    values: list[float] = []  # of each group so far, and what it weighs
    weights: list[float] = []
    found: list[Any] = [math.nan, math.inf, math.nan, np.empty(0)]
    random = np.random.default_rng(stable_seed("trace until", looks.own.entries, seed))
    half = (1 - confidence) / 2
    seen = 0

    def judge(alpha: float) -> float | None:
        nonlocal seen
        rows = looks.order[seen : looks.images]
        seen = looks.images
        if looks.images == looks.total:
            trace = spectrum.trace_within(looks.over(looks.order), within / ERRORS_WITHIN, seed, least=GROUPS)
            value, error, samples, level = trace.value, trace.error, trace.samples, half
        else:
            for weight, products in looks.groups(rows, LEAST_OF_GROUP):
                vector = 2.0 * random.integers(0, 2, looks.own.entries, dtype=np.int8) - 1
                values.append(float(vector @ (products @ vector)))
                weights.append(weight)
            samples, level = np.array(values), alpha
            value, error = _ratio(samples, np.array(weights))
        reach = error * quantile(level, len(samples) - 1)
        found[:] = value, reach, error, samples
        return value if reach <= within * abs(value) else None

    settled = replace(until_settled(looks, confidence + half, budget, judge), confidence=float(confidence))
    looks.own.release()
    value, reach, error, samples = found
    return Within(value, value - reach, value + reach, settled, error, samples)


def eigenvalue_until(
    evaluator: Evaluator,
    names: list[str],
    *,
    confidence: float,
    within: float,
    budget: int | None = None,
    seed: int = 0,
    keep: int = KEPT_BYTES,
) -> tuple[Within, Hessian]:
    """Return the largest eigenvalue of the Hessian, on as many images as it takes to know it.

    That of a sample is too high on average, as the eigenvector fits the sample; ``u' H u`` of a vector u that
    other images gave is too low. Both hold for any stochastic program (Mak, Morton and Wood 1999, "Monte
    Carlo bounding techniques for determining solution quality in stochastic programs"): the eigenvalue is the
    maximum of ``u' H u``. So the images so far are halved. The mean of both halves' eigenvalues bounds the
    eigenvalue from above, and that of ``u' H u`` with each half's vector on the other half from below, each
    with an error that is taken from random groups. At all images it is computed on them.

    Parameters and errors as `trace_until`.

    Returns
    -------
    Within
        The value is the middle of both bounds.
    Hessian
        Over the first images, whose `direction` names the entries of the vector.
    """
    check_confidence(confidence)
    _check(within)
    looks = _Looks(evaluator, names, seed, keep)
    tolerance = min(RESIDUAL * within, 0.01)
    starts = [looks.own.start] * 2
    afar = looks.own.start / np.linalg.norm(looks.own.start)
    found: list[float] = [math.nan, -math.inf, math.inf]
    pair: list[Any] = [None, math.nan]

    def judge(alpha: float) -> float | None:
        rows = looks.order[: looks.images]
        if looks.images == looks.total:
            value, pair[0], pair[1] = looks.top(rows, starts[0], tolerance)
            found[:] = value, value - pair[1], value + pair[1]
            return value
        halves = rows[::2], rows[1::2]
        upper, lower, variance, freedom = [], [], [], 0
        for mine, (half, other) in enumerate((halves, halves[::-1])):
            value, vector, residual = looks.top(half, starts[mine], tolerance)
            starts[mine] = vector + afar  # alone it would hide a larger one that it has no part of
            if mine == 0:
                pair[:] = vector, residual
            upper.append(value + residual)
            groups = looks.groups(other, math.ceil(len(other) / (GROUPS // 2)))
            own = [(float(vector @ (products @ vector)), weight) for weight, products in groups]
            mean, error = _ratio(*np.array(own).reshape(-1, 2).T)
            lower.append(mean)
            variance.append(error**2)
            freedom += len(own) - 1
        error = math.sqrt(sum(variance) * (1 - looks.images / looks.total)) / 2
        reach = error * quantile(alpha, max(freedom, 1))
        low, high = sum(lower) / 2 - reach, sum(upper) / 2 + reach
        found[:] = (low + high) / 2, low, high
        return found[0] if (high - low) / 2 <= within * abs(found[0]) else None

    settled = until_settled(looks, confidence, budget, judge)
    looks.own.release()
    return Within(*found, settled, vector=pair[0], residual=pair[1]), looks.own


def curvature(evaluator: Evaluator, names: list[str]) -> dict[str, float]:
    """Return largest eigenvalue and trace to a tenth at 95 %, as columns of the table ``solutions``.

    Where all images do not give them as exactly, or they are 0, the interval says how far they are known.
    """
    options = {"confidence": CONFIDENCE, "within": WITHIN}
    eigenvalue, _ = eigenvalue_until(evaluator, names, **options)
    found = {"eigenvalue": eigenvalue, "trace": trace_until(evaluator, names, **options)}
    columns: dict[str, float] = {}
    for name, one in found.items():
        columns |= {f"curvature_{name}": one.value, f"curvature_{name}_low": one.low}
        columns |= {f"curvature_{name}_high": one.high, f"curvature_{name}_images": one.settled.images}
    return columns


def _ratio(values: Floats, weights: Floats) -> tuple[float, float]:
    """Return the weighted mean of groups' values, and its standard error (of a ratio estimator)."""
    count = len(values)
    if count < 2:
        return math.nan, math.inf
    mean = float(values @ weights / weights.sum())
    square = float((weights**2 * (values - mean) ** 2).sum()) * count / (count - 1)
    return mean, math.sqrt(square) / float(weights.sum())


def _check(within: Any) -> None:
    if isinstance(within, bool) or not isinstance(within, int | float) or not 0 < within < math.inf:
        raise ValleysError(f"within: {within!r} is no share; give a number above 0, such as 0.1")
