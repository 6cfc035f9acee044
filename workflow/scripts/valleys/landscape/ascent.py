"""One ascent over directions: from a direction given to one that is more of what is searched for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from valleys.data import parts
from valleys.landscape.directions import Direction
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.gradients import loss_and_gradient
from valleys.landscape.lines import Radius, find_radius
from valleys.landscape.objectives import OBJECTIVES, OFFSETS
from valleys.networks.tensors import vector_norm
from valleys.storage.files import stable_seed

STEP_IMAGES = 256  # images a step, and at most half of those there are: others each time
ANGLE = 0.2  # of the first steps, in radians; they shorten linearly to a tenth of that
MOMENTUM, SQUARES, AVERAGE = 0.9, 0.95, 0.8  # of Adam, and of the average of directions
REACH = 2.0  # the greatest R, in 2-norms of the weights
FROM = 0.25  # of the rise: an ascent begins low, and looks as high as asked for after half of its steps
BACK = 0.7  # factor of R where a loss is not finite
TRIES = 10  # steps in a row without a finite loss, after which an ascent ends


@dataclass(frozen=True)
class Problem:
    """What an ascent needs to know beside its evaluator.

    Attributes
    ----------
    names
        The parameters that the direction is over.
    basis
        Orthonormal vectors that the direction is orthogonal to, the gradient at w first.
    seek, rise, floor, steps
        As in `searching.find_asymmetric`.
    """

    names: list[str]
    basis: list[Tensor]
    seek: str
    rise: float
    floor: float
    steps: int


class Vectors:
    """Turns vectors of all entries of some parameters into directions and back."""

    def __init__(self, parameters: Mapping[str, Tensor], names: Sequence[str]) -> None:
        self.own = {name: parameters[name] for name in names}
        self.sizes = [w.numel() for w in self.own.values()]
        self.dtype = torch.float32
        for w in self.own.values():
            self.dtype = torch.promote_types(self.dtype, w.dtype)

    def direction(self, vector: Tensor) -> Direction:
        """Return the vector as tensors by name; they share its memory where types agree."""
        pieces = zip(self.own.items(), vector.split(self.sizes), strict=True)
        return {name: piece.view(w.shape).to(w.dtype) for (name, w), piece in pieces}

    def vector(self, direction: Mapping[str, Tensor]) -> Tensor:
        """Return a direction as one vector; parameters that it does not have are 0."""
        none = {name: torch.zeros_like(w) for name, w in self.own.items() if name not in direction}
        found = [(none | dict(direction))[name].to(w.device).flatten() for name, w in self.own.items()]
        return torch.cat([piece.to(self.dtype) for piece in found])


def orthonormal(vectors: Sequence[Tensor]) -> list[Tensor]:
    """Return an orthonormal basis of what these span; those that add nothing are left out."""
    basis: list[Tensor] = []
    for vector in vectors:
        size = float(vector.norm())
        rest = without(vector, basis)
        length = float(rest.norm())
        if math.isfinite(length) and length > 1e-5 * size:
            basis.append(rest / length)
    return basis


def without(vector: Tensor, basis: Sequence[Tensor]) -> Tensor:
    """Return a vector less its parts along a basis; twice, as the first time leaves rounding."""
    for _ in range(2):
        for other in basis:
            vector = vector - (vector @ other) * other
    return vector


@dataclass
class Ascent:
    """An ascent at some step: iterate it for the rest.

    Attributes
    ----------
    direction
        Vector of unit norm; the steep side is -u.
    average
        Of the directions so far, the last ones most: other images agree with it better.
    radius
        R at the last step.
    step, passes
        Steps taken; passes forward and backward over all images searched on.
    objective
        At the last step with finite losses.
    end
        Why it ended; empty while it goes on.
    """

    direction: Tensor
    average: Tensor
    radius: float
    moment: Tensor = field(repr=False)
    square: Tensor = field(repr=False)
    step: int = 0
    passes: float = 0.0
    objective: float = math.nan
    failed: int = 0
    end: str = ""

    def state(self) -> dict[str, Any]:
        """Return what `Ascent(**state)` goes on from."""
        return dict(vars(self))


def begin(evaluator: Evaluator, problem: Problem, start: Mapping[str, Tensor]) -> Ascent:
    """Return an ascent at a direction, before its first step."""
    vectors = Vectors(evaluator.parameters, problem.names)
    u = without(vectors.vector(start), problem.basis)
    size = float(u.norm())
    if not (math.isfinite(size) and size > 0):
        return Ascent(u, u, 0.0, u, u, end="no_rise")  # nothing is left: the basis spans all there is
    u = u / size
    found = reach(evaluator, vectors.direction(u), problem.rise)
    ends = []
    for sign in (1.0, -1.0):
        evaluator.move(vectors.direction(u), sign * found.radius)
        ends.append(evaluator.train_loss()[0])
    evaluator.reset()
    if ends[0] > ends[1]:
        u = -u
    if found.status == "capped":
        return Ascent(u, u, found.radius, u, u, end="no_rise")
    return Ascent(u, u, found.radius, torch.zeros_like(u), torch.zeros_like(u))


def reach(evaluator: Evaluator, direction: Mapping[str, Tensor], rise: float, near: float = 0.1) -> Radius:
    """Return R where the loss has risen (`lines.find_radius`), at most `REACH` norms of the weights."""
    norm = vector_norm(evaluator.parameters) or 1.0
    return find_radius(evaluator, direction, rise=rise, first=norm / 50, cap=REACH * norm, tolerance=near)


def ascend(evaluator: Evaluator, problem: Problem, at: Ascent, key: str) -> Iterator[Ascent]:
    """Take the rest of the steps of an ascent, and yield it after each.

    A step measures the loss and its gradient at `objectives.OFFSETS` on some images drawn anew. The gradient
    of the objective counts that R follows u: with F(u, R) the larger rise, ``dR/du = -(dF/du) / (dF/dR)``.
    It is projected onto the sphere and away from the basis, and scaled by entry as Adam does; the step turns
    u by an angle.

    Parameters
    ----------
    evaluator
        Of the images searched on.
    at
        Where it goes on from; changed in place.
    key
        Names the random numbers that draw images.
    """
    vectors = Vectors(evaluator.parameters, problem.names)
    cap = REACH * (vector_norm(evaluator.parameters) or 1.0)
    whole, count = evaluator.train_batches, len(evaluator.train_batches)
    images = max(1, min(STEP_IMAGES, count // 2))
    try:
        while at.step < problem.steps and not at.end:
            generator = torch.Generator().manual_seed(stable_seed("search", key, at.step))
            rows = torch.randperm(count, generator=generator)[:images].sort().values
            some = evaluator.on(parts.take(whole, rows, evaluator.batch_size))
            some.method = "exact"  # as gradients are: a rise is a difference of two losses of one kind
            _step(some, problem, at, vectors, cap)
            at.passes += (len(OFFSETS) + 1 / 3) * images / count
            yield at
    finally:
        evaluator.reset()
    at.end = at.end or "steps"


def _step(evaluator: Evaluator, problem: Problem, at: Ascent, vectors: Vectors, cap: float) -> None:
    grown = min(1.0, FROM + (1 - FROM) * 2 * at.step / problem.steps)
    evaluator.reset()
    base = evaluator.train_loss()[0]
    values, gradients = [], []
    for share in OFFSETS:
        evaluator.move(vectors.direction(at.direction), share * at.radius)
        value, gradient = loss_and_gradient(evaluator, problem.names)
        values.append(value - base)
        gradients.append(gradient.to(vectors.dtype))
    at.step += 1
    if not (all(map(math.isfinite, values)) and all(bool(g.isfinite().all()) for g in gradients)):
        at.radius *= BACK
        at.failed += 1
        at.end = "not_finite" if at.failed >= TRIES else ""
        return
    at.failed = 0
    rises = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    radius = torch.tensor(at.radius, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        objective = OBJECTIVES[problem.seek](rises, radius, grown * problem.rise, grown * problem.floor)
        by_rise, by_radius = torch.autograd.grad(objective, [rises, radius], allow_unused=True)
    weights = [0.0] * len(OFFSETS) if by_rise is None else by_rise.tolist()
    along = [float(g @ at.direction) for g in gradients]
    # The objective's own derivative with respect to R, and by way of the losses.
    change = 0.0 if by_radius is None else float(by_radius)
    change += sum(w * s * slope for w, s, slope in zip(weights, OFFSETS, along, strict=True))
    end = 0 if values[0] > values[-1] else len(OFFSETS) - 1
    if (growth := OFFSETS[end] * along[end]) > 0:
        weights[end] -= change / growth
    ascent = sum(w * s * at.radius * g for w, s, g in zip(weights, OFFSETS, gradients, strict=True))
    ascent = without(ascent, [*problem.basis, at.direction])
    at.objective = float(objective.detach())
    at.moment = MOMENTUM * at.moment + (1 - MOMENTUM) * ascent
    at.square = SQUARES * at.square + (1 - SQUARES) * ascent.square()
    scale = (at.square / (1 - SQUARES**at.step)).sqrt()
    scaled = at.moment / (scale + 1e-8 * scale.max() + torch.finfo(scale.dtype).tiny)
    scaled = without(scaled, [*problem.basis, at.direction])
    if (size := float(scaled.norm())) > 0:
        angle = ANGLE * (1 - 0.9 * (at.step - 1) / problem.steps)
        turned = without(at.direction + angle / size * scaled, problem.basis)
        at.direction = turned / turned.norm()
    mean = AVERAGE * at.average + (1 - AVERAGE) * at.direction
    at.average = mean / mean.norm()
    at.radius = _followed(at.radius, values, end, grown * problem.rise, cap)


def _followed(radius: float, rises: Sequence[float], end: int, rise: float, cap: float) -> float:
    """Return R for the next step: where a power law through the rises at R/2 and R meets the one wanted."""
    outer, half = rises[end], rises[2 if end == 0 else 3]
    power = 2.0
    if 0 < half < outer:
        power = min(max(math.log(outer / half) / math.log(2), 1.0), 4.0)
    factor = (rise / max(outer, 1e-9 * rise)) ** (1 / power)
    return min(radius * min(max(factor, 0.5), 2.0), cap)
