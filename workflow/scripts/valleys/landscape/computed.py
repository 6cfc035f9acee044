"""Kinds of directions computed from a solution's losses, from iterates or other solutions; none is drawn.

A kind is a function with ``@computed("<name>")`` and an entry in `kinds.COMPUTED`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from valleys.data.split import Split
from valleys.errors import ValleysError
from valleys.landscape.directions import Direction, parameter_group, restrict, towards, weights_of
from valleys.models.losses import Loss, PerImage
from valleys.networks import checks, copies, derivatives
from valleys.storage.weights import load_weights

log = logging.getLogger("valleys")

#: Numbers in float64 that principal components take at a time beside the iterates: 2 GiB.
AT_ONCE = 2**28


@dataclass(frozen=True)
class Sources:
    """What directions at a solution may be computed from.

    Attributes
    ----------
    networks
        Solutions of the cell by name, in eval mode.
    train
        Images whose mean loss is differentiated.
    loss
        ``loss(outputs, labels)``: a value an image, or the batch's mean.
    group
        Of parameters (`directions.parameter_group`): directions are over these.
    n
        How many directions are wanted.
    iterates
        Returns the state dicts of the averaging phase, in order, anew at each call.
    others
        The weights files of the same solution of other seeds, by its name and by seed.
    seed
        The cell's own, for messages.
    """

    networks: Mapping[str, nn.Module]
    train: Split
    loss: Loss
    group: str = "all"
    n: int = 1
    iterates: Callable[[], Iterable[Mapping[str, Tensor]]] = tuple
    others: Mapping[str, Mapping[int, str | Path]] = field(default_factory=dict)
    seed: int | str = 0


class Found(NamedTuple):
    """Directions, not normalised, and the columns of the ``directions`` table that are this kind's alone."""

    directions: list[Direction]
    columns: Sequence[dict[str, Any]] = ()


Compute = Callable[[Sources, str, list[str]], Found]
_COMPUTED: dict[str, Compute] = {}


def computed(kind: str) -> Callable[[Compute], Compute]:
    """Register a function as a computed kind of directions, of the name that `kinds.COMPUTED` has.

    It takes the `Sources`, the name of the solution that the directions are at, and the names of the
    parameters in the group.
    """

    def register(compute: Compute) -> Compute:
        if kind in _COMPUTED:
            raise ValueError(f"two functions are of the computed kind {kind!r}")
        _COMPUTED[kind] = compute
        return compute

    return register


def computed_kinds() -> list[str]:
    """Return the names of the kinds that there is a function for."""
    return list(_COMPUTED)


def compute(kind: str, sources: Sources, solution: str) -> Found:
    """Return the directions of a kind at one of the solutions.

    Raises
    ------
    ValleysError
        When the kind is unknown, the group is empty, or as the kind's own function.
    """
    if kind not in _COMPUTED:
        raise ValleysError(f"unknown computed direction kind {kind!r}; choose from {', '.join(_COMPUTED)}")
    return _COMPUTED[kind](sources, solution, parameter_group(sources.networks[solution], sources.group))


def tensors_to_store(
    kind: str, sources: Sources, solutions: Iterable[str]
) -> tuple[dict[str, Tensor], dict[str, list[dict[str, Any]]]]:
    """Return what a file of directions has: tensors named ``<solution>/<k>/<parameter>``, and columns.

    `probing.stored_directions` reads them again.
    """
    stored, columns = {}, {}
    for solution in solutions:
        found = compute(kind, sources, solution)
        log.info("%s: %d %s direction(s)", solution, len(found.directions), kind)
        for k, direction in enumerate(found.directions):
            stored |= {f"{solution}/{k}/{parameter}": tensor for parameter, tensor in direction.items()}
        if found.columns:
            columns[solution] = list(found.columns)
    return stored, columns


@computed("gradient")
def _gradient(sources: Sources, solution: str, names: list[str]) -> Found:
    """Return the gradient of the train loss."""
    return Found([restrict(gradient(sources.networks[solution], sources.train, sources.loss), names)])


@computed("hessian")
def _hessian(sources: Sources, solution: str, names: list[str]) -> Found:
    """Return the top eigenvectors of the train loss's Hessian, with their eigenvalues."""
    from valleys.landscape import hessian  # imports curvlinops, which no other kind needs

    network = sources.networks[solution]
    found, values = hessian.hessian_eigenvectors(network, sources.train, sources.loss, names, sources.n)
    return Found(found, [{"eigenvalue": value} for value in values])


@computed("pca")
def _pca(sources: Sources, _solution: str, names: list[str]) -> Found:
    """Return the first principal components of the iterates."""
    return Found(principal_components(sources.iterates(), names, sources.n))


@computed("sgd_to_swa")
def _sgd_to_swa(sources: Sources, _solution: str, names: list[str]) -> Found:
    """Return the way from the sgd to the swa solution."""
    return _difference(sources, "sgd", "swa", names)


@computed("swa_to_descent")
def _swa_to_descent(sources: Sources, _solution: str, names: list[str]) -> Found:
    """Return the way from the swa to the descent solution."""
    return _difference(sources, "swa", "descent", names)


def _difference(sources: Sources, start: str, stop: str, names: list[str]) -> Found:
    ends = (weights_of(sources.networks[name]) for name in (start, stop))
    return Found([towards(*ends, names, f"{start} and {stop}")])


@computed("searched")
def _searched(sources: Sources, solution: str, _names: list[str]) -> Found:
    """Return directions found by ascent with the defaults of `searching.searches` and of an `Evaluator`.

    A probe of this kind, which may set these, is searched for by rule ``search_directions``.
    """
    from valleys.landscape import searching  # which is made of more than any other kind needs
    from valleys.landscape.evaluator import Evaluator

    evaluator = Evaluator(sources.networks[solution], sources.train, loss=sources.loss)
    found = searching.searches(
        evaluator, sources.n, group=sources.group, seed=sources.seed, state_of=lambda _: None
    )
    return Found([search.direction for search in found])


@computed("to_seed")
def _to_seed(sources: Sources, solution: str, names: list[str]) -> Found:
    """Return the ways to the same solution of other seeds, with these."""
    own = {name: w.cpu() for name, w in restrict(weights_of(sources.networks[solution]), names).items()}
    found = [
        towards(
            own,
            load_weights(path, ours=True)[0],
            names,
            f"{solution} of seed {sources.seed} and of seed {seed}",
        )
        for seed, path in sources.others[solution].items()
    ]
    return Found(found, [{"to_seed": seed} for seed in sources.others[solution]])


@torch.inference_mode(False)
@torch.enable_grad()
def gradient(model: nn.Module, split: Split, loss: Loss, batch_size: int = 500) -> Direction:
    """Return the gradient of the mean loss over a split at the model's weights, not normalised.

    Batch norm in eval mode: the statistics stored with the solution. Accumulated batch by batch, so that one
    batch's graph is alive at a time. Parameters without use have a gradient of 0, integers none. The model is
    left as it is.

    Raises
    ------
    ValleysError
        For a network that is no function of its weights, or whose derivative by torch is not the loss's
        (`derivatives.differentiable`).
    """
    loss = PerImage(loss).on_set([split.labels])
    net = derivatives.differentiable(model, split.batches(checks.SOME), loss)
    names, parameters = zip(*((n, p) for n, p in net.named_parameters() if p.requires_grad), strict=True)
    total = [torch.zeros_like(p) for p in parameters]
    for images, labels in split.batches(batch_size):
        part = loss(net(images), labels).sum() / len(split)
        for into, g in zip(total, torch.autograd.grad(part, parameters, allow_unused=True), strict=True):
            if g is not None:
                into += g
    return dict(zip(names, total, strict=True))


def principal_components(
    iterates: Iterable[Mapping[str, Tensor]], names: list[str], k: int
) -> list[Direction]:
    """Return the first `k` principal components of a trajectory's weights, by decreasing variance.

    The Gram matrix of the centred iterates is decomposed (n x n for n iterates). It is summed over pieces of
    the weights, so that memory is that of the n iterates and of `AT_ONCE` numbers, and never a matrix of the
    size of the weights squared.

    Raises
    ------
    ValleysError
        When the trajectory has fewer than k + 1 iterates, or spans fewer than k dimensions.
    """
    states = [{n: s[n] for n in names} for s in iterates]
    if len(states) < k + 1:
        raise ValleysError(f"pca needs at least {k + 1} iterates for {k} components, there are {len(states)}")
    copies.check_real("pca", states[0])
    shapes = {n: states[0][n].shape for n in names}
    sizes = [shape.numel() for shape in shapes.values()]
    flat = [[state[n].reshape(-1) for n in names] for state in states]
    width = max(1, AT_ONCE // len(states))
    pieces = [slice(start, min(start + width, sum(sizes))) for start in range(0, sum(sizes), width)]
    gram = rows = None
    for piece in pieces:
        rows = None  # two pieces at a time would be one too many
        rows = _centred(flat, sizes, piece)
        gram = rows @ rows.T if gram is None else gram.add_(rows @ rows.T)
    values, vectors = torch.linalg.eigh(gram)
    for i in range(k):
        if (
            values[-1 - i] <= 1e-13 * values[-1]
        ):  # rounding: scaled to unit length it would pass for a direction
            raise ValleysError(f"pca needs a trajectory of {k} dimensions, this one has {i}")
    whole = torch.empty((k, sum(sizes)), dtype=torch.float64)
    for piece in reversed(pieces):  # the last one is still at hand
        if piece is not pieces[-1]:
            rows = None
            rows = _centred(flat, sizes, piece)
        for i in range(k):
            whole[i, piece] = vectors[:, -1 - i] @ rows
    components = []
    for component in whole:
        # An eigenvector's sign is arbitrary: fix it so that a rerun gives the same direction.
        component *= torch.sign(component[component.abs().argmax()])
        parts = component.split(sizes)
        components.append({n: p.view(shapes[n]).float() for n, p in zip(names, parts, strict=True)})
    return components


def _centred(flat: Sequence[Sequence[Tensor]], sizes: Sequence[int], piece: slice) -> Tensor:
    """Return a piece of the weights of all iterates less their mean, a row an iterate, in float64."""
    parts, start = [], 0
    for i, size in enumerate(sizes):
        low, high = max(piece.start - start, 0), min(piece.stop - start, size)
        parts += [(i, low, high)] if low < high else []
        start += size
    rows = torch.empty((len(flat), piece.stop - piece.start), dtype=torch.float64)
    for row, tensors in zip(rows, flat, strict=True):
        torch.cat([tensors[i][low:high].double() for i, low, high in parts], out=row)
    for columns in rows.split([high - low for _, low, high in parts], dim=1):
        columns -= columns.contiguous().mean(0)
    return rows
