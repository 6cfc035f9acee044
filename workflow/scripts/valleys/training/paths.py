"""Paths of low loss between two solutions: Bezier curves and polygonal chains whose bends are trained.

Garipov et al. 2018 (Loss surfaces, mode connectivity, and fast ensembling of DNNs), section 3; Draxler et al.
2018 found such paths by another method. A path ``phi(t)``, t in [0, 1], runs through weight space from one
solution (t = 0) to another (t = 1). It is set by its *control points*: the two solutions, which stay as they
are, and one or more *bends* between them, which are trained to lower the mean loss over t ~ U(0, 1).

Every kind of path here is a sum of control points with coefficients that depend on t alone:

``linear``
    The straight line, without bends: 1 - t and t. The one kind that goes on beyond its ends.
``bezier``
    Bernstein polynomials of degree bends + 1. The curve passes by its bends, not through them.
``chain``
    Straight segments from control point to control point, each of which takes an equal part of t.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from valleys.data.split import Split
from valleys.errors import ValleysError
from valleys.networks import copies
from valleys.networks.tensors import check_apart
from valleys.storage import files
from valleys.storage.weights import load_weights, save_weights
from valleys.training.trainer import Trainer

log = logging.getLogger("valleys")

Weights = Mapping[str, Tensor]

_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(16)


def coefficients(kind: str, points: int, t: float) -> list[float]:
    """Return the coefficient of each of `points` control points in phi(t); they sum to 1.

    At t = 0 and t = 1 all but the first or the last are exactly 0 and that one is exactly 1.

    Raises
    ------
    ValleysError
        For an unknown kind, a linear path with bends, or t outside [0, 1] on another kind.
    """
    if kind == "linear" and points == 2:
        return [1.0 - t, t]
    if kind not in ("bezier", "chain"):
        raise ValleysError(f"path: {kind!r} with {points} control points is not linear, bezier or chain")
    if not 0.0 <= t <= 1.0:
        raise ValleysError(f"path: {kind} runs from t = 0 to t = 1 and has no point at t = {t:g}")
    degree = points - 1
    if kind == "bezier":
        return [math.comb(degree, k) * t**k * (1.0 - t) ** (degree - k) for k in range(points)]
    segment = min(int(t * degree), degree - 1)
    part = t * degree - segment
    return [{segment: 1.0 - part, segment + 1: part}.get(k, 0.0) for k in range(points)]


@dataclass(frozen=True)
class WeightPath:
    """A path through weight space.

    Attributes
    ----------
    kind
        ``linear``, ``bezier`` or ``chain``.
    points
        Control points in order, each a mapping from parameter to tensor: start, bends, stop.
    """

    kind: str
    points: Sequence[Weights]

    def at(self, t: float) -> dict[str, Tensor]:
        """Return the weights phi(t): at t = 0 and t = 1 the very bits of the two ends."""
        terms = coefficients(self.kind, len(self.points), t)
        used = [(c, point) for c, point in zip(terms, self.points, strict=True) if c != 0.0]
        found = {name: used[0][0] * tensor for name, tensor in used[0][1].items()}
        for c, point in used[1:]:
            for name, tensor in found.items():
                tensor.add_(point[name].to(tensor), alpha=c)
        return found

    def lengths(self, ts: Sequence[float]) -> list[float]:
        """Return the arc length from t = 0 to each t (2-norm of weights), negative before the start.

        Exact for straight segments. That of a Bezier curve is integrated by Gauss-Legendre quadrature
        between neighbouring t (16 nodes each); its speed is known from the inner products of the
        differences of control points.
        """
        inner = self._inner_products()
        segments = len(inner)
        if self.kind != "bezier":
            ends = np.concatenate([[0.0], np.cumsum(np.sqrt(np.diag(inner)))])
            if self.kind == "linear":
                return [t * float(ends[1]) for t in ts]
            return [float(np.interp(t * segments, np.arange(segments + 1), ends)) for t in ts]
        total, before, found = 0.0, 0.0, {}
        for t in sorted(ts):
            nodes = before + (t - before) * (_NODES + 1) / 2
            terms = np.array([coefficients("bezier", segments, x) for x in nodes])
            speed = segments * np.sqrt(np.clip(np.einsum("xi,ij,xj->x", terms, inner, terms), 0, None))
            total += float(speed @ _NODE_WEIGHTS) * (t - before) / 2
            before, found[t] = t, total
        return [found[t] for t in ts]

    def _inner_products(self) -> np.ndarray:
        """Return the inner products, (n, n), of the differences of neighbouring control points."""
        n = len(self.points) - 1
        found = torch.zeros((n, n), dtype=torch.float64)
        for name in self.points[0]:
            points = [point[name].detach().double().cpu().reshape(-1) for point in self.points]
            steps = torch.stack([b - a for a, b in itertools.pairwise(points)])
            found += steps @ steps.T
        return found.numpy()


class CurveNet(nn.Module):
    """A path whose bends are its parameters; its output is that of the network at a random t.

    In train mode each call draws t ~ U(0, 1) from torch's CPU generator, which `Trainer` seeds for every
    epoch and keeps in its checkpoint. Batch norm then uses the batch's own statistics, so the buffers that
    the base network came with have no part in what is trained. `forward` is for training alone: the loss
    along a finished path is measured by `probing.line_between`, with statistics refreshed at every point.

    Parameters
    ----------
    base
        A network of the ends' architecture; copied (`copies.twin`).
    kind, start, stop
        As of `WeightPath`; the ends are fixed.
    bends
        How many; they begin evenly spaced on the straight line, where phi(t) is the line itself.
    weight_decay
        Factor of ``|phi(t)|^2 / 2`` in what is minimised. As in the code of Garipov et al. the penalty is
        on the point of the path that is evaluated, not on the bends, so that a path is drawn to small
        weights along its whole length, as the recipe drew the solutions.
    """

    bends: nn.Parameter  # (bends, number of weights)

    def __init__(
        self,
        base: nn.Module,
        kind: str,
        start: Weights,
        stop: Weights,
        bends: int = 1,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        # In a tuple, so that it is no submodule: parameters and checkpoint are those of the bends alone.
        self._base = (copies.twin(base).requires_grad_(False),)
        self.kind, self.weight_decay = kind, weight_decay
        self.shapes = {name: tensor.shape for name, tensor in base.named_parameters()}
        ends = [torch.cat([end[name].detach().reshape(-1) for name in self.shapes]) for end in (start, stop)]
        self._ends = torch.stack(ends)  # (2, number of weights)
        parts = torch.arange(1, bends + 1, dtype=ends[0].dtype, device=ends[0].device) / (bends + 1)
        self.bends = nn.Parameter(torch.lerp(ends[0], ends[1], parts[:, None]))

    def train(self, mode: bool = True) -> CurveNet:
        """Set the mode of the base network too, which is no submodule."""
        self._base[0].train(mode)
        return super().train(mode)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of the network at phi(t), t ~ U(0, 1)."""
        t = float(torch.rand(()))
        first, *inner, last = coefficients(self.kind, len(self.bends) + 2, t)
        weights = first * self._ends[0] + last * self._ends[1] + self.bends.new_tensor(inner) @ self.bends
        if self.weight_decay and weights.requires_grad:
            at = weights.detach()
            weights.register_hook(lambda gradient: gradient + self.weight_decay * at)
        pieces = weights.split([shape.numel() for shape in self.shapes.values()])
        named = {name: p.view(s) for (name, s), p in zip(self.shapes.items(), pieces, strict=True)}
        return torch.func.functional_call(self._base[0], named, (images,))

    def named_bends(self) -> list[dict[str, Tensor]]:
        """Return the bends as mappings from parameter to tensor."""
        sizes = [shape.numel() for shape in self.shapes.values()]
        return [
            {n: p.reshape(s) for (n, s), p in zip(self.shapes.items(), bend.split(sizes), strict=True)}
            for bend in self.bends.detach()
        ]


def bend_rate(epoch: int, epochs: int, lr: float) -> float:
    """Return the rate of 0-based `epoch`: that of Garipov et al.'s code.

    `lr` for the first half, then linear down to a hundredth of it at nine tenths. At a constant rate the
    bends would end as noisy as an iterate, and with them the height of the barrier.
    """
    share = epoch / epochs
    return lr * (1.0 - 0.99 * min(max(share - 0.5, 0.0) / 0.4, 1.0))


def connect(
    start: nn.Module,
    stop: nn.Module,
    train_split: Split,
    recipe: Mapping[str, Any],
    line: Mapping[str, Any],
    *,
    seed: int,
    state: Path | None = None,
    checkpoint_every: int = 10,
    after_epoch: Callable[[int, dict[str, Any]], None] = lambda epoch, row: None,
) -> list[dict[str, Tensor]]:
    """Train the bends of a path between two networks and return them.

    Loss, augmentation, batch size and optimiser are the recipe's, and its weight decay as said at `CurveNet`;
    every step is at one t, as in Garipov et al. A run that was stopped goes on from `state`, to the same
    bits.

    Parameters
    ----------
    start, stop
        The ends: networks of one architecture on one device; neither is changed.
    train_split
        The images to train on.
    recipe
        As of `trainer.Trainer`; the rate is the line's.
    line
        ``path`` (bezier or chain), ``bends``, ``epochs`` and ``lr``.
    seed
        Names the random stream of t, data order and augmentation.
    state, checkpoint_every
        As of `trainer.Trainer`.
    after_epoch
        As of `trainer.Trainer.run`.

    Raises
    ------
    Stopped, ValleysError
        See `trainer.Trainer`; a path that diverges says to lower the line's rate. When both ends are the same
        weights.
    """
    ends = [dict(net.named_parameters()) for net in (start, stop)]
    copies.check_real("connect", ends[0])
    check_apart(*ends, ends[0])
    curve = CurveNet(
        start,
        line["path"],
        *ends,
        line["bends"],
        recipe["weight_decay"],
    )
    trainer = Trainer(
        curve,
        train_split,
        {**recipe, "lr": line["lr"], "weight_decay": 0.0},  # the decay is in CurveNet
        seed=files.stable_seed("connect", seed),
        state=state,
        checkpoint_every=checkpoint_every,
    )
    try:
        trainer.run(line["epochs"], lambda e: bend_rate(e, line["epochs"], line["lr"]), after_epoch)
    except ValleysError as error:
        if "training diverged" not in str(error):
            raise
        reason = str(error).split(";")[0]
        raise ValleysError(f"{reason}; lower the line's lr (now {line['lr']:g})") from error
    return curve.named_bends()


def save_bends(path: str | Path, bends: Sequence[Weights], about: Mapping[str, Any]) -> None:
    """Write bends as safetensors, tensors named ``<bend>/<parameter>``.

    Parameters
    ----------
    about
        ``path`` (the kind), ``start`` and ``stop`` (checksums of the ends).
    """
    tensors = {f"{k}/{name}": tensor for k, bend in enumerate(bends) for name, tensor in bend.items()}
    save_weights(path, tensors, {**about, "bends": len(bends)})


def load_path(path: str | Path, start: Weights, stop: Weights, about: Mapping[str, Any]) -> WeightPath:
    """Read the bends that `save_bends` wrote and return the path from `start` to `stop`, on their device.

    Raises
    ------
    ValleysError
        When the file is damaged or its bends were trained for other ends or another kind than `about` says.
    """
    stored, header = load_weights(path, ours=True)
    wrong = [key for key in ("path", "start", "stop") if header.get(key) != about[key]]
    if wrong or not stored:
        raise ValleysError(
            f"bends file {path} has another {' and '.join(wrong) or 'content'} than this line; delete it and "
            "rerun"
        )
    bends = [
        {name: stored[f"{k}/{name}"].to(tensor) for name, tensor in start.items()}
        for k in range(header["bends"])
    ]
    return WeightPath(header["path"], [start, *bends, stop])
