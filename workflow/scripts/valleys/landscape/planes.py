"""Planes through weight space: how they are laid, what lies on them, and the loss on a grid of their points.

A plane is ``origin + x * x_axis + y * y_axis`` with orthonormal axes, so that x, y and every distance are in
2-norm units of the weights. Three ways to lay one:

``through``
    Three solutions (Izmailov et al. 2018, figure 3; Garipov et al. 2018, figure 1): x from the first to the
    second, the third at positive y.
``pca``
    The first two principal components of the iterates of the averaging phase, about their mean (Li et al.
    2018, section 7, whose trajectory ends at the solution and not about its mean).
``span``
    A solution and two directions (Li et al. 2018, section 4).

Geometry is in float64: the weights of a solution are found again at its own coordinates to the last bit or
nearly so, which `check_solutions` tests by its loss. Of a net's weights there are three copies in float64
(origin and axes) besides the models; ``pca`` has all iterates in memory while its axes are computed.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from valleys.errors import ValleysError
from valleys.landscape import computed, directions
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.lines import check_against
from valleys.landscape.probing import TOLERANCE
from valleys.networks.tensors import real, vector_norm, wide
from valleys.storage.state import load_checkpoint, save_checkpoint
from valleys.storage.weights import checksum

log = logging.getLogger("valleys")

Weights = Mapping[str, Tensor]

#: A solution this near to a plane, as a share of the origin's 2-norm, lies on it: what float32 rounding of an
#: average of iterates leaves.
ON_PLANE = 1e-6
#: Entries of a tensor that are moved at a time: their float64 intermediates stay in a core's cache.
CHUNK = 2**14
#: Bytes of weights that are made ahead, for points of a row.
AHEAD = 2**28


@dataclass(frozen=True)
class Plane:
    """Origin and two orthonormal axes, float64; each maps parameter names to tensors."""

    origin: dict[str, Tensor]
    x_axis: dict[str, Tensor]
    y_axis: dict[str, Tensor]

    def at(self, x: float, y: float) -> Iterator[tuple[str, Tensor]]:
        """Yield name and float64 value of each parameter at (x, y), one at a time."""
        for name, start in self.origin.items():
            yield name, start + x * self.x_axis[name] + y * self.y_axis[name]

    def mover(self, parameters: Weights, xs: Sequence[float]) -> Callable[[float], Iterator[float]]:
        """Return a function of y that sets parameters to their values at (x, y), those of `at` bit by bit.

        It yields each x when they are. Tensors are gone through in pieces with two small buffers, and for
        several x at a time, so that origin and axes are read once for these, and no float64 tensors are made.
        """
        size = sum(p.numel() * p.element_size() for p in parameters.values())
        together = max(1, min(len(xs), AHEAD // max(1, size)))
        into = [{name: parameters[name].data for name in self.origin}]
        if together > 1:
            into = [{n: torch.empty_like(t) for n, t in into[0].items()} for _ in range(together)]
        buffers: dict[Any, tuple[Tensor, Tensor]] = {}
        pieces = []
        for name, start in self.origin.items():
            rows = max(1, CHUNK * len(start) // max(1, start.numel())) if start.dim() else 1
            each = (start, self.x_axis[name], self.y_axis[name], *(weights[name] for weights in into))
            for part in zip(*(t.split(rows) if start.dim() else (t,) for t in each), strict=True):
                key = (part[0].shape, part[0].stride(), part[0].dtype, part[0].device)
                if key not in buffers:
                    buffers[key] = torch.empty_like(part[0]), torch.empty_like(part[0])
                pieces.append((*part[:3], part[3:], *buffers[key]))

        def move(y: float) -> Iterator[float]:
            for i in range(0, len(xs), together):
                some = xs[i : i + together]
                for start, x_axis, y_axis, targets, value, beside in pieces:
                    torch.mul(y_axis, y, out=beside)
                    for x, target in zip(some, targets, strict=False):
                        torch.mul(x_axis, x, out=value)
                        target.copy_(value.add_(start).add_(beside))
                for x, weights in zip(some, into, strict=False):
                    for name in weights if together > 1 else ():
                        parameters[name].data.copy_(weights[name])
                    yield x

        return move

    def project(self, weights: Weights) -> tuple[float, float, float]:
        """Return x, y and the distance out of the plane of any weights, in 2-norm units."""
        x = y = square = 0.0
        for name, start in self.origin.items():
            offset = {name: weights[name].detach().to(start) - start}
            x += directions.inner(offset, self.x_axis)
            y += directions.inner(offset, self.y_axis)
        # Of the residual itself: the difference of squared lengths would lose all digits near the plane.
        for name, value in self.at(x, y):
            square += float(real(weights[name].detach().to(value) - value).square().sum())
        return x, y, math.sqrt(square)

    def contains(self, distance: float) -> bool:
        """Whether weights at this distance from the plane lie on it, to rounding."""
        return distance <= ON_PLANE * vector_norm(self.origin)

    def checksum(self) -> str:
        """Return the SHA-256 of origin and axes: what decides which weights a point of the grid has."""
        parts = {"origin": self.origin, "x_axis": self.x_axis, "y_axis": self.y_axis}
        return checksum({f"{part}/{n}": t for part, w in parts.items() for n, t in w.items()})

    def to(self, device: torch.device | str) -> Plane:
        """Return the plane on a device."""
        return Plane(
            *({n: t.to(device) for n, t in w.items()} for w in (self.origin, self.x_axis, self.y_axis))
        )


def spanned(origin: Weights, first: Weights, second: Weights, what: str = "the two directions") -> Plane:
    """Return the plane through `origin` along two directions: x along `first`, y by Gram-Schmidt.

    Parameters
    ----------
    origin, first, second
        By parameter name. Directions of any length; one restricted to a group is 0 in the other parameters.
    what
        Names the directions in the error.

    Raises
    ------
    ValleysError
        When a direction is zero or not finite, or both are parallel: they span no plane.
    """
    start = {name: wide(w.detach()) for name, w in origin.items()}
    x, _ = directions.unit(_whole(first, start))
    y, _ = directions.unit(_whole(second, start))
    for _ in range(2):  # once leaves rounding as large as the part removed; twice is enough
        along = directions.inner(y, x)
        y = {name: y[name] - along * x[name] for name in y}
        if not vector_norm(y) > 1e-6:
            raise ValleysError(f"{what} are parallel: they span no plane")
        y, _ = directions.unit(y)
    return Plane(start, x, y)


def _whole(direction: Weights, like: Weights) -> dict[str, Tensor]:
    """Return a direction in float64 over all parameters, 0 where it has none."""
    return {n: direction[n].to(w) if n in direction else torch.zeros_like(w) for n, w in like.items()}


def through(first: Weights, second: Weights, third: Weights) -> Plane:
    """Return the plane through three weight vectors: `first` at (0, 0), `second` at x > 0, `third` at y > 0.

    Raises
    ------
    ValleysError
        When two of them are equal or all three are on one line.
    """
    arms = [{n: wide(w[n].detach()) - wide(s.detach()) for n, s in first.items()} for w in (second, third)]
    for arm, words in zip(arms, ("the first and the second", "the first and the third"), strict=True):
        if not vector_norm(arm) > 0:
            raise ValleysError(f"a plane through three solutions: {words} are the same weights")
    return spanned(first, *arms, what="the lines from the first of the three solutions to the others")


def principal(read: Callable[[], Iterable[Weights]], names: Sequence[str]) -> Plane:
    """Return the plane of the first two principal components of a trajectory, origin at its mean.

    Parameters
    ----------
    read
        Returns the iterates anew at each call: state dicts, of which only `names` are used.

    Raises
    ------
    ValleysError
        When there are fewer than three iterates, or they span fewer than two dimensions.
    """
    total: dict[str, Tensor] = {}
    count = 0
    for state in read():
        count += 1
        for name in names:
            value = wide(state[name])
            total[name] = total[name] + value if name in total else value
    if count < 3:
        raise ValleysError(f"a pca plane needs at least 3 iterates, there are {count}")
    axes = computed.principal_components(read(), list(names), 2)
    return spanned({name: value / count for name, value in total.items()}, *axes)


def build(
    block: Mapping[str, Any],
    networks: Mapping[str, nn.Module],
    cell: str,
    iterates: Callable[[], Iterable[tuple[int, Weights]]] = tuple,
    stored: Mapping[str, Sequence[Weights]] | None = None,
) -> Plane:
    """Return the plane of a config's block.

    Parameters
    ----------
    block
        ``at`` (name of the solution at the origin) and one of ``through`` (names of three), ``pca``, or
        ``span`` (two directions: ``kind, group, k, share`` each).
    networks
        Solutions by name.
    cell
        As in `probing.probe_solution`: a drawn direction is that of the probe.
    iterates
        For ``pca``: returns epoch and state dict of each, anew at each call.
    stored
        For a ``span`` of computed kinds: by axis, ``x`` or ``y``, the directions of that kind at ``at``.

    Raises
    ------
    ValleysError
        As `through`, `principal` and `spanned`.
    """
    if "through" in block:
        return through(*(directions.weights_of(networks[name]) for name in block["through"]))
    origin = directions.weights_of(networks[block["at"]])
    if "pca" in block:
        axes = principal(lambda: (weights for _, weights in iterates()), list(origin))
        return axes.to(next(iter(origin.values())).device)
    pair = []
    for axis, chosen in zip("xy", block["span"], strict=True):
        names = directions.parameter_group(networks[block["at"]], chosen["group"])
        if stored and stored.get(axis):
            pair.append(directions.restrict(stored[axis][chosen["k"]], names))
        else:
            group, key = directions.restrict(origin, names), f"{cell}/{chosen['group']}"
            options = {"key": key} | {name: chosen[name] for name in chosen if name not in ("kind", "group")}
            pair.append(directions.random_direction(chosen["kind"], group, **options)[0])
    return spanned(origin, *pair)


@dataclass(frozen=True)
class Grid:
    """A plane, what lies on it, and where it is measured.

    Attributes
    ----------
    plane : Plane
    points : list of dict
        Solutions and iterates, as `describe` returns them.
    xs, ys : list of float
        Coordinates, in 2-norm units (`sides`).
    """

    plane: Plane
    points: list[dict[str, Any]]
    xs: list[float]
    ys: list[float]

    def key(self) -> dict[str, Any]:
        """Return what decides which weights the points have, for `solutions.state_key`."""
        return {"plane": self.plane.checksum(), "sides": [self.xs, self.ys]}


def grid(
    block: Mapping[str, Any],
    networks: Mapping[str, nn.Module],
    cell: str,
    iterates: Callable[[], Iterable[tuple[int, Weights]]] = tuple,
    stored: Mapping[str, Sequence[Weights]] | None = None,
) -> Grid:
    """Return the plane of a config's block with its points and coordinates; parameters as for `build`."""
    plane = build(block, networks, cell, iterates, stored)
    weights = {name: directions.weights_of(network) for name, network in networks.items()}
    points = describe(plane, weights, iterates() if "pca" in block else ())
    return Grid(plane, points, *sides(block, points, vector_norm(weights[block["at"]])))


def describe(
    plane: Plane, solutions: Mapping[str, Weights], iterates: Iterable[tuple[int, Weights]] = ()
) -> list[dict[str, Any]]:
    """Return solutions and iterates as rows of the ``plane_points`` table (without the names).

    ``explained_x`` and ``explained_y`` are the shares of the iterates' variance about the origin (their mean)
    along each axis; null when there are no iterates.

    Parameters
    ----------
    solutions
        Weights by name.
    iterates
        Epoch and state dict of each.
    """
    rows = []
    for role, epoch, weights in (
        *((name, None, w) for name, w in solutions.items()),
        *(("iterate", epoch, w) for epoch, w in iterates),
    ):
        x, y, distance = plane.project(weights)
        rows.append({"role": role, "epoch": epoch, "x": x, "y": y, "distance": distance})
    path = [row for row in rows if row["role"] == "iterate"]
    variance = sum(row["x"] ** 2 + row["y"] ** 2 + row["distance"] ** 2 for row in path)
    for axis in ("x", "y"):
        share = sum(row[axis] ** 2 for row in path) / variance if path else None
        rows = [{**row, f"explained_{axis}": share} for row in rows]
    return rows


def sides(spec: Mapping[str, Any], points: Sequence[Mapping[str, Any]], norm: float) -> list[list[float]]:
    """Return the grid's coordinates along x and along y.

    Planes with ``margin`` reach so far beyond the smallest box around `points`, as a share of the longer of
    the box's sides: the same room all round, so that points nearly on a line do not give a sliver. Those with
    ``relative`` are square, of half width ``relative * norm``, about the origin.

    Parameters
    ----------
    spec
        The plane's block: ``points`` and ``margin`` or ``relative``.
    points
        Rows with ``x`` and ``y``.
    norm
        2-norm of the weights at the origin.
    """
    if "relative" in spec:
        half = spec["relative"] * norm
        ends = [(-half, half), (-half, half)]
    else:
        ends = [(min(p[axis] for p in points), max(p[axis] for p in points)) for axis in ("x", "y")]
        room = spec["margin"] * max(high - low for low, high in ends)
        ends = [(low - room, high + room) for low, high in ends]
    last = spec["points"] - 1
    # Written so that the middle of a symmetric side is exactly 0.
    return [[(low * (last - i) + high * i) / last for i in range(last + 1)] for low, high in ends]


def check_solutions(
    evaluator: Evaluator, plane: Plane, solutions: Mapping[str, nn.Module], check_stored_bn: bool
) -> list[str]:
    """Check that each solution on the plane has its own train loss at its coordinates; return their names.

    Where the stored statistics are those of the probing images (`check_stored_bn`) the solution is evaluated
    as it is stored; else its weights are, under the evaluator's own batch-norm policy.

    Raises
    ------
    ValleysError
        When a loss differs: see `lines.check_against`.
    """
    start, found = evaluator.start, []
    try:
        for name, model in solutions.items():
            weights = dict(model.named_parameters())
            x, y, distance = plane.project(weights)
            if not plane.contains(distance):
                continue
            evaluator.reset()
            evaluator.set_weights(plane.at(x, y))
            loss = evaluator.train_loss()[0]
            if check_stored_bn and evaluator.bn != "frozen":
                evaluator.load(model.state_dict())
                own = evaluator.stored().train_loss
                evaluator.load(start)
            else:
                evaluator.set_weights(weights.items())
                own = evaluator.train_loss()[0]
            tolerance = TOLERANCE[evaluator.precision]
            check_against(f"{name} at ({x:.4g}, {y:.4g})", loss, own, tolerance, on="plane")
            found.append(name)
    finally:
        evaluator.load(start)
    log.info("on the plane: %s", ", ".join(found) or "no solution")
    return found


def surface(
    evaluator: Evaluator,
    plane: Plane,
    xs: Sequence[float],
    ys: Sequence[float],
    *,
    state: Path | None = None,
    save_every_s: float = 5.0,
    progress: Callable[[Iterable[float]], Iterable[float]] = iter,
) -> list[dict[str, float]]:
    """Return ``x, y`` and the values of `evaluator.Point` on a grid, row by row, resuming from `state`.

    Parameters
    ----------
    evaluator
        Its starting batch-norm statistics are those that ``bn: frozen`` keeps.
    xs, ys
        Coordinates, 2-norm units.
    state
        File that keeps finished rows, by number; None: none are kept.
    progress
        Wraps the y of the rows, as ``tqdm`` does.

    Returns
    -------
    ``len(xs) * len(ys)`` rows, y slowest.
    """
    done: dict[int, Any] = load_checkpoint(state) if state and state.exists() else {}
    saved_at, move = time.monotonic(), plane.mover(evaluator.parameters, xs)
    try:
        with evaluator.along(plane.origin, plane.x_axis, plane.y_axis) as place:
            for j, y in enumerate(progress(ys)):
                if j in done:
                    continue
                done[j] = row = []
                for x in move(y):
                    place(x, y)
                    row.append({"x": x, "y": y, **evaluator.point().asdict()})
                log.info(
                    "row %d of %d: y %.4g, train loss %.4f to %.4f",
                    j + 1,
                    len(ys),
                    y,
                    min(point["train_loss"] for point in row),
                    max(point["train_loss"] for point in row),
                )
                if state and time.monotonic() - saved_at > save_every_s:
                    save_checkpoint(state, done)
                    saved_at = time.monotonic()
    finally:
        evaluator.reset()
    return [point for j in range(len(ys)) for point in done[j]]
