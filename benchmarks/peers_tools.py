"""How each tool of `peers.py` is asked for the same thing: lines, planes, eigenvalues and traces.

A tool is asked in the fastest of its own ways that gives the result, on batches that are ready tensors, with
batch norm as stored. Those that are given a function of the network get a plain loop over the batches. Each
call begins from a copy of the network, made apart, and does all that a user would have to call.
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Vector = dict[str, Tensor]
LINE, SIDE, TOP = 31, 21, 2


@dataclass(frozen=True)
class Problem:
    """A network with its data, and what is measured around it.

    Attributes
    ----------
    model
        In eval mode.
    batches
        Of images and labels.
    u, v
        Orthogonal directions, unit 2-norm, each tensor's norm the root of its number of entries over that of
        all: one tool normalises tensor by tensor, and this is what it then leaves as it is.
    radius, half
        Of the line, and half a side of the plane.
    """

    model: nn.Module
    batches: list[tuple[Tensor, Tensor]]
    u: Vector
    v: Vector
    radius: float
    half: float

    @property
    def offsets(self) -> list[float]:
        """Offsets of the line."""
        return [self.radius * i / (LINE // 2) for i in range(-(LINE // 2), LINE // 2 + 1)]

    @property
    def side(self) -> list[float]:
        """Coordinates of the plane."""
        return [self.half * i / (SIDE // 2) for i in range(-(SIDE // 2), SIDE // 2 + 1)]

    @property
    def norm(self) -> float:
        """2-norm of the weights."""
        return math.sqrt(sum(float(p.detach().double().square().sum()) for p in self.model.parameters()))

    def copy(self) -> nn.Module:
        """Return a copy of the network."""
        return copy.deepcopy(self.model)


def directions(model: nn.Module, seed: int = 0) -> tuple[Vector, Vector]:
    """Return two directions as `Problem` has them."""
    generator = torch.Generator().manual_seed(seed)
    u, v = {}, {}
    total = sum(p.numel() for p in model.parameters())
    for name, p in model.named_parameters():
        share = math.sqrt(p.numel() / total)
        one, two = (torch.randn(p.shape, generator=generator, dtype=torch.float64) for _ in range(2))
        u[name] = share * one / one.norm()
        two -= (two * u[name]).sum() / share**2 * u[name]
        v[name] = share * two / two.norm() if p.numel() > 1 else torch.zeros_like(two)
    return ({n: t.to(p) for (n, t), p in zip(w.items(), model.parameters(), strict=True)} for w in (u, v))


@torch.no_grad()
def loss_of(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Return the mean loss, in a plain loop."""
    total = sum(float(F.cross_entropy(model(x), y, reduction="sum")) for x, y in batches)
    return total / sum(len(y) for _, y in batches)


def moved(problem: Problem, points: list[tuple[float, float]], dtype: torch.dtype) -> np.ndarray:
    """Return the loss at points ``w + x u + y v``, in a plain loop in one number format."""
    model = problem.copy().to(dtype)
    batches = [(x.to(dtype), y) for x, y in problem.batches]
    start = [p.detach().clone() for p in model.parameters()]
    axes = [[problem.u[n].to(dtype), problem.v[n].to(dtype)] for n, _ in model.named_parameters()]
    found = []
    for x, y in points:
        with torch.no_grad():
            for p, s, (u, v) in zip(model.parameters(), start, axes, strict=True):
                p.copy_(s + x * u + y * v if y else s + x * u)
        found.append(loss_of(model, batches))
    return np.array(found)


def shifted(problem: Problem, x: float, y: float) -> nn.Module:
    """Return a copy of the network at ``w + x u + y v``."""
    model = problem.copy()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(problem.u[name], alpha=x).add_(problem.v[name], alpha=y)
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within it nothing is printed: some tools have bars and tables that cannot be switched off."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


# ---- lines and planes --------------------------------------------------------------------------------------


def landscape(problem: Problem) -> Any:
    """Return ours, from a network and its data."""
    from valleys import Landscape

    return Landscape(problem.model, problem.batches, bn="frozen", progress=False)


def our_line(problem: Problem) -> np.ndarray:
    """Return the losses of the line."""
    return landscape(problem).line(problem.u, offsets=problem.offsets).train_loss


def our_plane(problem: Problem) -> np.ndarray:
    """Return the losses of the plane, (y, x)."""
    share = problem.half / problem.norm
    return landscape(problem).plane(problem.u, problem.v, points=SIDE, relative=share).grid()


def plain_line(problem: Problem) -> np.ndarray:
    """Return the losses of the line, as one writes the loop."""
    return moved(problem, [(t, 0.0) for t in problem.offsets], torch.float32)


def plain_plane(problem: Problem) -> np.ndarray:
    """Return the losses of the plane, as one writes the loop."""
    points = [(x, y) for y in problem.side for x in problem.side]
    return moved(problem, points, torch.float32).reshape(SIDE, SIDE)


def _metric(problem: Problem) -> Any:
    from loss_landscapes.metrics.metric import Metric

    class Mean(Metric):
        """Its own `Loss` takes one batch, and keeps the graph of it."""

        def __call__(self, wrapper: Any) -> float:
            with torch.no_grad():
                total = sum(
                    float(F.cross_entropy(wrapper.forward(x), y, reduction="sum")) for x, y in batches
                )
            return total / count

    batches, count = problem.batches, sum(len(y) for _, y in problem.batches)
    return Mean()


def loss_landscapes_line(problem: Problem) -> np.ndarray:
    """Return the losses of the line; its first point is one step behind its start."""
    import loss_landscapes

    step = 2 * problem.radius / (LINE - 1)
    ends = (shifted(problem, at, 0.0) for at in (-problem.radius - step, problem.radius))
    return loss_landscapes.linear_interpolation(*ends, _metric(problem), steps=LINE)


def loss_landscapes_plane(problem: Problem) -> np.ndarray:
    """Return the losses of the plane: x is its second direction, y its first."""
    import loss_landscapes

    h, step = problem.half, 2 * problem.half / (SIDE - 1)
    corner = shifted(problem, -h - step, -h)
    along_y, along_x = shifted(problem, -h - step, h + step), shifted(problem, h, -h)
    return loss_landscapes.planar_interpolation(corner, along_y, along_x, _metric(problem), steps=SIDE)


def _landscaper(problem: Problem, steps: int, reach: float, *axes: Vector) -> np.ndarray:
    from landscaper.compute import compute_loss_landscape

    distance = 2 * reach / (steps - 1) * (steps / 2) / problem.norm
    given = [[t.clone() for t in axis.values()] for axis in axes]
    with quiet():
        losses, _ = compute_loss_landscape(
            problem.copy(),
            problem.batches,
            given,
            loss_of,
            steps=steps,
            distance=distance,
            dim=len(axes),
            device="cpu",
        )
    return losses


def landscaper_line(problem: Problem) -> np.ndarray:
    """Return the losses of the line."""
    return _landscaper(problem, LINE, problem.radius, problem.u)


def landscaper_plane(problem: Problem) -> np.ndarray:
    """Return the losses of the plane."""
    return _landscaper(problem, SIDE, problem.half, problem.v, problem.u)


def loss_landscape_3d_line(problem: Problem) -> np.ndarray:
    """Return the losses of the line."""
    from loss_landscape_3d import LossLandscapeCalculator

    ends = (shifted(problem, at, 0.0).state_dict() for at in (-problem.radius, problem.radius))
    shares = [i / (LINE - 1) for i in range(LINE)]
    calculator = LossLandscapeCalculator(problem.copy(), problem.batches, nn.CrossEntropyLoss())
    return calculator.calculate_1d_path(shares, *ends)


def loss_landscape_3d_plane(problem: Problem) -> np.ndarray:
    """Return the losses of the plane."""
    from loss_landscape_3d import LossLandscapeCalculator

    model = problem.copy()
    calculator = LossLandscapeCalculator(model, problem.batches, nn.CrossEntropyLoss())
    centre = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return calculator.calculate(problem.side, problem.side, problem.u, problem.v, centre).T


# ---- the Hessian -------------------------------------------------------------------------------------------

Pairs = tuple[list[float], list[np.ndarray]]


def flat(tensors: Any) -> np.ndarray:
    """Return tensors as one float64 vector."""
    return np.concatenate([t.detach().reshape(-1).double().numpy() for t in tensors])


def our_pairs(problem: Problem, tolerance: float) -> Pairs:
    """Return the top eigenvalues and eigenvectors."""
    found = landscape(problem).hessian(TOP, tolerance=tolerance)
    return found.values, [flat(one.values()) for one in found.directions]


def _curvlinops(problem: Problem, loss: nn.Module | None = None) -> Any:
    from curvlinops import HessianLinearOperator

    model = problem.copy()
    loss = nn.CrossEntropyLoss() if loss is None else loss
    return HessianLinearOperator(model, loss, list(model.parameters()), problem.batches)


def curvlinops_pairs(problem: Problem, tolerance: float) -> Pairs:
    """Return the top eigenvalues and eigenvectors, by scipy as its documentation has it."""
    from scipy.sparse.linalg import eigsh

    values, vectors = eigsh(_curvlinops(problem).to_scipy(), k=TOP, which="LA", tol=tolerance)
    return list(values[::-1]), list(vectors.T[::-1].astype(float))


def pyhessian_pairs(problem: Problem, tolerance: float) -> Pairs:
    """Return the top eigenvalues and eigenvectors; of one batch it keeps the graph."""
    from pyhessian import hessian

    one = tuple(torch.cat(parts) for parts in zip(*problem.batches, strict=True))
    with quiet():
        of = hessian(problem.copy(), nn.CrossEntropyLoss(), data=one, cuda=False)
        values, vectors = of.eigenvalues(maxIter=400, tol=tolerance, top_n=TOP)
    return values, [flat(v) for v in vectors]


def _landscaper_hessian(problem: Problem) -> Any:
    from landscaper.hessian import PyHessian

    return PyHessian(problem.copy(), nn.CrossEntropyLoss(), problem.batches, "cpu", try_cache=True)


def landscaper_pairs(problem: Problem, tolerance: float) -> Pairs:
    """Return the top eigenvalues and eigenvectors, graphs kept."""
    with quiet():
        values, vectors = _landscaper_hessian(problem).eigenvalues(maxIter=400, tol=tolerance, top_n=TOP)
    return values, [flat(v) for v in vectors]


def _eigenthings(problem: Problem) -> Any:
    from hessian_eigenthings import HessianOperator, supervised_loss

    return HessianOperator(problem.copy(), problem.batches, supervised_loss(nn.CrossEntropyLoss()))


def eigenthings_pairs(problem: Problem, steps: float) -> Pairs:
    """Return the top eigenvalues and eigenvectors; it takes as many steps as one asks for."""
    from hessian_eigenthings import lanczos

    found = lanczos(_eigenthings(problem), k=TOP, max_iter=int(steps), which="LA", seed=0)
    return found.eigenvalues.tolist(), [flat([v]) for v in found.eigenvectors]


Traced = tuple[float, float]
"""A trace and its standard error."""


def of_samples(samples: Any) -> Traced:
    """Return a mean and its standard error."""
    each = np.asarray(samples, dtype=float)
    return float(each.mean()), float(each.std(ddof=1) / math.sqrt(len(each)))


def our_trace(problem: Problem, tolerance: float) -> Traced:
    """Return the trace, to a relative standard error."""
    found = landscape(problem).trace(tolerance=tolerance)
    return found.value, found.error


def pyhessian_trace(problem: Problem, count: float) -> Traced:
    """Return the trace by so many vectors: it stops where the mean moves little, which is switched off."""
    from pyhessian import hessian

    one = tuple(torch.cat(parts) for parts in zip(*problem.batches, strict=True))
    with quiet():
        of = hessian(problem.copy(), nn.CrossEntropyLoss(), data=one, cuda=False)
        return of_samples(of.trace(maxIter=int(count), tol=-1.0))


def landscaper_trace(problem: Problem, count: float) -> Traced:
    """Return the trace by so many vectors; it returns no error."""
    with quiet():
        return float(_landscaper_hessian(problem).trace(maxIter=int(count), tol=-1.0)), math.nan


def eigenthings_trace(problem: Problem, count: float) -> Traced:
    """Return the trace by Hutch++ with so many products."""
    from hessian_eigenthings import trace

    found = trace(_eigenthings(problem), num_matvecs=int(count), method="hutch++", seed=0)
    return found.estimate, found.stderr


def curvlinops_trace(problem: Problem, count: float) -> Traced:
    """Return the trace by Hutch++ with so many products; it returns no error."""
    from curvlinops import hutchpp_trace

    return float(hutchpp_trace(_curvlinops(problem), num_matvecs=int(count))), math.nan


OURS, PLAIN = "valleys", "a plain loop"
LINES: dict[str, Callable[[Problem], np.ndarray]] = {
    OURS: our_line,
    PLAIN: plain_line,
    "loss-landscapes": loss_landscapes_line,
    "landscaper": landscaper_line,
    "loss-landscape-3d": loss_landscape_3d_line,
}
PLANES: dict[str, Callable[[Problem], np.ndarray]] = {
    OURS: our_plane,
    PLAIN: plain_plane,
    "loss-landscapes": loss_landscapes_plane,
    "landscaper": landscaper_plane,
    "loss-landscape-3d": loss_landscape_3d_plane,
}
PAIRS: dict[str, Callable[[Problem, float], Pairs]] = {
    OURS: our_pairs,
    "curvlinops": curvlinops_pairs,
    "PyHessian": pyhessian_pairs,
    "landscaper": landscaper_pairs,
    "hessian-eigenthings": eigenthings_pairs,
}
TRACES: dict[str, Callable[[Problem, float], Traced]] = {
    OURS: our_trace,
    "PyHessian": pyhessian_trace,
    "landscaper": landscaper_trace,
    "hessian-eigenthings": eigenthings_trace,
    "curvlinops": curvlinops_trace,
}
