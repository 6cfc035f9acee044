"""Trace and spectral density of a Hessian, by products with random vectors, with the sampling error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import eigh_tridiagonal

from valleys.errors import ValleysError
from valleys.landscape.hessian import Hessian
from valleys.landscape.krylov import COARSE
from valleys.storage.files import stable_seed

Floats = NDArray[np.float64]
Progress = Callable[[Iterable[int]], Iterable[int]]
#: Vectors of the sketch of `trace_within`, and the least number after it that an error is taken from.
SKETCH, LEAST = 10, 6


class Products(Protocol):
    """Products with a symmetric matrix of so many `entries`."""

    entries: int

    def __matmul__(self, vector: Any, /) -> Any:
        """Return the product with a vector, shape (entries,)."""


@dataclass(frozen=True)
class Trace:
    """The trace of a Hessian by Hutchinson's estimator.

    Attributes
    ----------
    value : float
        The mean of ``v' H v`` over random vectors v of signs.
    error : float
        Its standard error.
    low, high : float
        The 95 % interval by Student's t.
    samples : ndarray, shape (probes,)
        ``v' H v`` of each vector.
    """

    value: float
    error: float
    low: float
    high: float
    samples: Floats


@dataclass(frozen=True)
class Density:
    """The spectral density of a Hessian by stochastic Lanczos quadrature.

    Attributes
    ----------
    nodes, weights : ndarray, shape (probes, steps)
        Of each vector: Ritz values and the squared first components of their vectors, which add up to 1. A
        vector whose iteration ends early has weights of 0 behind.
    entries : int
        The size of the Hessian.
    """

    nodes: Floats
    weights: Floats
    entries: int

    def moment(self, power: int) -> tuple[float, float]:
        """Return the mean of the eigenvalues to a power, and its standard error over the vectors."""
        each = (self.weights * self.nodes**power).sum(1)
        return float(each.mean()), float(each.std(ddof=1) / math.sqrt(len(each)))

    def on(self, values: Floats, width: float) -> tuple[Floats, Floats]:
        """Return the density at some values, smoothed by a Gaussian, and its standard error over the vectors.

        Parameters
        ----------
        values
            Shape (n,).
        width
            Standard deviation of the Gaussian.
        """
        apart = (values[:, None, None] - self.nodes) / width
        kernel = np.exp(-0.5 * apart**2) / (width * math.sqrt(2 * math.pi))
        each = (kernel * self.weights).sum(2)
        return each.mean(1), each.std(1, ddof=1) / math.sqrt(each.shape[1])


def trace(hessian: Hessian, probes: int = 30, seed: int = 0, progress: Progress = iter) -> Trace:
    """Return the trace of a Hessian (Hutchinson 1989), a product for each of `probes` vectors of signs.

    Raises
    ------
    ValleysError
        For fewer than 2 vectors, from which there is no error.
    """
    _check(probes)
    samples = np.empty(probes)
    for i in progress(range(probes)):
        vector = _signs(hessian.entries, "trace", seed, i)
        samples[i] = vector @ (hessian @ vector)
    return _trace(samples)


def trace_within(
    hessian: Products,
    tolerance: float,
    seed: int = 0,
    progress: Progress = iter,
    most: int = 2000,
    least: int = LEAST,
) -> Trace:
    """Return the trace of a Hessian with a standard error of at most `tolerance` times its value.

    Hutch++ (Meyer et al. 2021): `SKETCH` vectors of signs first, whose products span most of what the largest
    eigenvalues act on. The trace there is computed by as many products more, and that of the rest is
    estimated by Hutchinson's, vector by vector, until its error is small enough. A few large eigenvalues
    make nearly all of the error of `trace`, which falls with the square root of its vectors.

    Parameters
    ----------
    tolerance
        Relative.
    most
        Products after which it ends all the same; the error then says how far it came.
    least
        Vectors that an error is taken from, at least. An end that hangs on the error comes sooner where the
        error happens to look small; the more vectors, the less so.

    Returns
    -------
    Trace
        Its samples are of the vectors after the sketch, or where its own error is small enough already, of
        the sketch.

    Raises
    ------
    ValleysError
        When `tolerance` is not a number above 0.
    """
    if not 0 < tolerance < math.inf:
        raise ValleysError(f"trace: tolerance: {tolerance!r} is not a number above 0")
    size, turns = min(SKETCH, hessian.entries), iter(progress(range(most)))
    kind = np.float32 if tolerance >= COARSE else np.float64
    samples, sketch = [], np.empty((size, hessian.entries), kind)
    for i, _ in zip(range(size), turns, strict=False):
        vector = _fair(hessian.entries, seed, i, kind)
        sketch[i] = product = hessian @ vector
        samples.append(float(vector @ product))
    found = _trace(samples) if size > 1 else None
    if found is not None and size >= least and found.error <= tolerance * abs(found.value):
        return found
    basis = np.ascontiguousarray(np.linalg.qr(sketch.T)[0].T)
    del sketch
    inside = sum(float(basis[i] @ (hessian @ basis[i])) for i, _ in zip(range(size), turns, strict=False))
    samples = []
    for i, _ in enumerate(turns, size):
        vector = _fair(hessian.entries, seed, i, kind)
        vector -= (basis @ vector) @ basis
        samples.append(inside + float(vector @ (hessian @ vector)))
        if len(samples) < least:
            continue
        found = _trace(samples)
        if found.error <= tolerance * abs(found.value):
            break
    return found if found is not None else _trace(samples)


def _fair(entries: int, seed: int, i: int, kind: type) -> Any:
    """Return a vector of signs, drawn by the byte: several times as fast as `_signs`, with others."""
    random = np.random.default_rng(stable_seed("trace within", entries, seed, i))
    return (2 * random.integers(0, 2, entries, dtype=np.int8) - 1).astype(kind)


def _trace(samples: Iterable[float]) -> Trace:
    each = np.array(samples)
    value, error = float(each.mean()), float(each.std(ddof=1) / math.sqrt(len(each)))
    reach = float(stats.t.ppf(0.975, len(each) - 1)) * error
    return Trace(value, error, value - reach, value + reach, each)


def density(
    hessian: Hessian, probes: int = 8, steps: int = 40, seed: int = 0, progress: Progress = iter
) -> Density:
    """Return the spectral density of a Hessian by Lanczos quadrature (Ghorbani et al. 2019).

    `steps` products for each of `probes` vectors. Each Lanczos basis is made orthogonal again in full, so
    that rounding makes no copies of eigenvalues; it takes ``steps * entries`` float64 numbers of memory.

    Raises
    ------
    ValleysError
        For fewer than 2 vectors or 2 steps.
    """
    _check(probes)
    if steps < 2:
        raise ValleysError(f"density: steps: {steps} is too few; it must be 2 or more")
    steps = min(steps, hessian.entries)
    nodes, weights = np.zeros((probes, steps)), np.zeros((probes, steps))
    for i in progress(range(probes)):
        found, first = _quadrature(hessian, _signs(hessian.entries, "density", seed, i), steps)
        nodes[i, : len(found)], weights[i, : len(found)] = found, first
        nodes[i, len(found) :] = found[-1]
    return Density(nodes, weights, hessian.entries)


def _quadrature(hessian: Hessian, start: Floats, steps: int) -> tuple[Floats, Floats]:
    """Return Ritz values and the squared first components of their vectors."""
    basis = np.zeros((steps, len(start)))
    basis[0] = start / np.linalg.norm(start)
    diagonal, beside = [], []
    for j in range(steps):
        vector = hessian @ basis[j]
        diagonal.append(float(basis[j] @ vector))
        for _ in range(2):  # once leaves rounding as large as the part removed
            vector -= basis[: j + 1].T @ (basis[: j + 1] @ vector)
        length = float(np.linalg.norm(vector))
        # The Krylov space is exhausted: what is left is rounding.
        if j + 1 == steps or length <= 1e-6 * max(map(abs, diagonal)):
            break
        beside.append(length)
        basis[j + 1] = vector / length
    values, vectors = eigh_tridiagonal(np.array(diagonal), np.array(beside[: len(diagonal) - 1]))
    return values, vectors[0] ** 2


def _signs(entries: int, what: str, seed: int, i: int) -> Floats:
    random = np.random.default_rng(stable_seed(what, entries, seed, i))
    return random.choice([-1.0, 1.0], entries)


def _check(probes: int) -> None:
    if isinstance(probes, bool) or not isinstance(probes, int) or probes < 2:
        raise ValleysError(f"probes: {probes!r} is too few for an error; it must be 2 or more")
