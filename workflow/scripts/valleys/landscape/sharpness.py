"""Sharpness as it is published: how far the train loss rises within a small ball about the weights.

All of them are rises ``L(w + d) - L(w)`` with batch norm as the evaluator has it. Of elementwise ("adaptive")
measures the ball is scaled by the size of each weight, so that a network and a rescaled copy of it, which
computes the same, have the same ball about them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from valleys.errors import ValleysError
from valleys.landscape import directions
from valleys.landscape.ascent import Vectors
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.gradients import loss_and_gradient
from valleys.landscape.lines import find_radius
from valleys.networks.tensors import vector_norm
from valleys.storage.files import stable_seed

Progress = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True)
class Sharpness:
    """One measure of sharpness.

    Attributes
    ----------
    measure : str
        Its name: a key of `MEASURES`.
    value : float
        The rise in the loss's units; of ``filter_width`` a length, in units of the filters' norms.
    low, high : float
        95 % interval by Student's t where the measure is a mean over random draws; else NaN.
    n : int
        Draws; 0 where none.
    rho : float
        Size of the ball; of ``filter_width`` the rise at which the width is taken.
    """

    measure: str
    value: float
    low: float
    high: float
    n: int
    rho: float

    @property
    def error(self) -> float:
        """The standard error of a mean over random draws; 0 where nothing is drawn."""
        return (self.high - self.value) / float(stats.t.ppf(0.975, self.n - 1)) if self.n else 0.0

    def asdict(self) -> dict[str, float | int | str]:
        """Return the fields as a dict."""
        return asdict(self)


def sam(evaluator: Evaluator, names: Sequence[str], rho: float = 0.05) -> Sharpness:
    """Return the rise a step of length `rho` along the gradient (Foret et al. 2021, eq. 2).

    Parameters
    ----------
    evaluator
        At any weights: its start is looked at.
    names
        The parameters that move.
    rho
        2-norm of the step.

    Raises
    ------
    ValleysError
        For a `rho` that is not above 0, or a network that torch cannot differentiate.
    """
    gradient, vectors = _gradient(evaluator, names, rho)
    size = gradient.norm()
    step = rho * gradient / size if size > 0 else torch.zeros_like(gradient)
    return Sharpness("sam", _rise(evaluator, vectors, step), math.nan, math.nan, 0, rho)


def adaptive_sam(evaluator: Evaluator, names: Sequence[str], rho: float = 0.5) -> Sharpness:
    """Return the rise a step ``rho T T g / |T g|``, T = |w|: elementwise SAM (Kwon et al. 2021).

    Parameters and errors as `sam`.
    """
    gradient, vectors = _gradient(evaluator, names, rho)
    scale = _sizes(evaluator, vectors)
    length = (scale * gradient).norm()
    step = rho * scale.square() * gradient / length if length > 0 else torch.zeros_like(gradient)
    return Sharpness("adaptive_sam", _rise(evaluator, vectors, step), math.nan, math.nan, 0, rho)


def adaptive_worst(
    evaluator: Evaluator, names: Sequence[str], rho: float = 0.002, steps: int = 20
) -> Sharpness:
    """Return the greatest rise that sign ascent finds where no weight changes by more than `rho` of its size.

    The elementwise worst case in the maximum norm (Andriushchenko et al. 2023, section 3), from below: it is
    at least what is found. Steps of the gradient's signs within the ball, the size halved where a step finds
    no more, as their Auto-PGD does.

    Parameters and errors as `sam`; `steps` gradients are taken.
    """
    gradient, vectors = _gradient(evaluator, names, rho)
    scale, step = _sizes(evaluator, vectors), 2 * rho
    at = torch.zeros_like(gradient)
    best, best_at = 0.0, at
    for _ in range(steps):
        at = (best_at + step * gradient.sign()).clamp(-rho, rho)  # in units of the weights' sizes
        rise = _rise(evaluator, vectors, at * scale)
        if rise > best:
            best, best_at = rise, at
            _move(evaluator, vectors, best_at * scale)
            gradient = loss_and_gradient(evaluator, vectors.own)[1].to(vectors.dtype)
        else:
            step /= 2
    evaluator.reset()
    return Sharpness("adaptive_worst", best, math.nan, math.nan, 0, rho)


def adaptive_average(
    evaluator: Evaluator,
    names: Sequence[str],
    rho: float = 0.1,
    n: int = 30,
    seed: int = 0,
    progress: Progress = iter,
) -> Sharpness:
    """Return the mean rise under normal noise of `rho` times each weight's size, with its interval.

    The elementwise average case (Andriushchenko et al. 2023, section 3).

    Parameters and errors as `sam`; `n` draws, 2 or more.
    """
    _check(rho, n)
    vectors = Vectors(evaluator.parameters, names)
    scale, rises = _sizes(evaluator, vectors), []
    for i in progress(range(n)):
        draw = torch.Generator().manual_seed(stable_seed("sharpness", len(scale), seed, i))
        noise = torch.randn(len(scale), generator=draw).to(scale)
        rises.append(_rise(evaluator, vectors, rho * scale * noise))
    return _mean("adaptive_average", rises, rho)


def filter_width(
    evaluator: Evaluator,
    names: Sequence[str],
    rise: float = 1.0,
    n: int = 10,
    seed: int = 0,
    progress: Progress = iter,
) -> Sharpness:
    """Return how far the weights move along filter-normalised directions until the loss has risen by `rise`.

    In units of the direction before it is scaled to unit norm, each filter of which has the norm of the
    weights' (Li et al. 2018, section 4): 1 is as far as the weights are from 0. The mean over `n` directions,
    with its interval; a direction along which the loss does not rise so far counts with 2 norms of the
    weights, where it is no longer looked for.

    Parameters and errors as `sam`.
    """
    _check(rise, n)
    own = {name: evaluator.start[name] for name in names}
    norm, widths = vector_norm(own) or 1.0, []
    for k in progress(range(n)):
        direction, length = directions.random_direction("filter", own, key=f"sharpness/{seed}", k=k)
        found = find_radius(evaluator, direction, rise=rise, first=norm / 50, cap=2 * norm)
        widths.append(found.radius / length)
    return _mean("filter_width", widths, rise)


MEASURES: dict[str, Callable[..., Sharpness]] = {
    "sam": sam,
    "adaptive_sam": adaptive_sam,
    "adaptive_worst": adaptive_worst,
    "adaptive_average": adaptive_average,
    "filter_width": filter_width,
}
"""By name."""
OF_HESSIAN = ("trace", "curvature")
"""What `columns` takes beside them."""


def measure(
    evaluator: Evaluator, names: Sequence[str], chosen: Sequence[str] = (), **options: float
) -> Iterator[Sharpness]:
    """Yield measures, with those of the options that each has.

    Parameters
    ----------
    evaluator, names
        As `sam`.
    chosen
        Keys of `MEASURES`; none: all.
    options
        ``rho``, ``n``, ``seed``, ``steps``, ``rise``.

    Raises
    ------
    ValleysError
        For a measure that there is not, or an option that none of them has.
    """
    if unknown := [name for name in chosen if name not in MEASURES]:
        raise ValleysError(f"sharpness: {unknown[0]!r} is no measure; choose from {', '.join(MEASURES)}")
    taken = {name: inspect.signature(MEASURES[name]).parameters for name in chosen or MEASURES}
    if left := [key for key in options if not any(key in own for own in taken.values())]:
        raise ValleysError(f"sharpness: {left[0]!r} is no option of {', '.join(taken)}")
    for name, own in taken.items():
        yield MEASURES[name](evaluator, names, **{k: v for k, v in options.items() if k in own})


def columns(evaluator: Evaluator, chosen: Sequence[str]) -> dict[str, float]:
    """Return measures as columns of the table ``solutions``, those over random draws with their errors.

    Parameters
    ----------
    evaluator
        With batch norm held.
    chosen
        Keys of `MEASURES` and of `OF_HESSIAN`: ``curvature`` is that of `sequential_hessian`.
    """
    names = [name for name, p in evaluator.parameters.items() if p.is_floating_point()]
    found: dict[str, float] = {}
    published = [name for name in chosen if name not in OF_HESSIAN]
    for one in measure(evaluator, names, published) if published else ():  # `measure` takes none for all
        found[f"sharpness_{one.measure}"] = one.value
        if one.n:
            found[f"sharpness_{one.measure}_error"] = one.error
    if "trace" in chosen:
        from valleys.landscape import spectrum  # curvlinops takes as long to import as torch
        from valleys.landscape.hessian import Hessian

        evaluator.reset()
        hessian = Hessian(evaluator.model, evaluator.train_batches, evaluator.loss, names)
        trace = spectrum.trace(hessian)
        found |= {"hessian_trace": trace.value, "hessian_trace_error": trace.error}
    if "curvature" in chosen:
        from valleys.landscape import sequential_hessian

        found |= sequential_hessian.curvature(evaluator, names)
    return found


def _mean(measure: str, values: Sequence[float], rho: float) -> Sharpness:
    found, n = np.array(values), len(values)
    error = float(found.std(ddof=1) / math.sqrt(n))
    reach = float(stats.t.ppf(0.975, n - 1)) * error
    mean = float(found.mean())
    return Sharpness(measure, mean, mean - reach, mean + reach, n, rho)


def _check(size: float, n: int = 2) -> None:
    if not (isinstance(size, int | float) and math.isfinite(size) and size > 0):
        raise ValleysError(f"sharpness: {size!r} is no size; it must be a number above 0")
    if n < 2:
        raise ValleysError(f"sharpness: n: {n} draws are too few for an interval; it must be 2 or more")


def _gradient(evaluator: Evaluator, names: Sequence[str], rho: float) -> tuple[Tensor, Vectors]:
    _check(rho)
    evaluator.reset()
    vectors = Vectors(evaluator.parameters, names)
    try:
        _, gradient = loss_and_gradient(evaluator, list(names))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ValleysError(f"sharpness: torch cannot differentiate the network ({error})") from error
    return gradient.to(vectors.dtype), vectors


def _sizes(evaluator: Evaluator, vectors: Vectors) -> Tensor:
    return vectors.vector({name: evaluator.start[name].abs() for name in vectors.own})


def _move(evaluator: Evaluator, vectors: Vectors, step: Tensor) -> None:
    evaluator.move(vectors.direction(step), 1.0)


def _rise(evaluator: Evaluator, vectors: Vectors, step: Tensor) -> float:
    start = evaluator.at_start().train_loss
    _move(evaluator, vectors, step)
    try:
        return evaluator.train_loss()[0] - start
    finally:
        evaluator.reset()
