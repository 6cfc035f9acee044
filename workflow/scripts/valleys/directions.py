"""Directions in weight space: random kinds regenerated from a seed, computed kinds kept as tensors.

A direction is a dict from parameter name to tensor, of unit 2-norm over its parameter group. Random kinds
are named by (key, k): each has a generator of its own on the CPU, so direction 7 is the same whether 8 or
800 are drawn and whatever the device, and a table row with key, k and norm is enough to make it again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from valleys.data.split import Split
from valleys.direction_kinds import COMPUTED, GROUPS, RANDOM
from valleys.errors import ValleysError
from valleys.models.layers import classifier_name, norm_parameters
from valleys.models.losses import Loss, PerImage
from valleys.networks import checks, copies, derivatives
from valleys.networks.tensors import movable, norm, real
from valleys.storage.files import stable_seed

Direction = dict[str, Tensor]


def parameter_group(model: nn.Module, group: str) -> list[str]:
    """Return the names of the parameters in a group, in the model's order.

    Groups: ``all``; ``bn``, ``bn_weight``, ``bn_bias`` (scale and shift of every normalisation layer);
    ``not_bn`` (all but ``bn``); ``conv`` (weights of convolutions, or of hidden linear layers in a net
    without convolutions);
    ``classifier`` (last linear layer); ``layer:<name>`` (parameters whose dotted name starts with <name>).

    Raises
    ------
    ValleysError
        When the group is unknown or the model has no parameter in it.
    """
    names = [name for name, _ in model.named_parameters()]
    norms = norm_parameters(model)
    if group == "all":
        chosen = names
    elif group == "not_bn":
        chosen = [n for n in names if n not in norms]
    elif group == "bn":
        chosen = [n for n in names if n in norms]
    elif group in ("bn_weight", "bn_bias"):
        wanted = "norm_" + group.removeprefix("bn_")
        chosen = [n for n in names if norms.get(n) == wanted]
    elif group == "classifier":
        head = classifier_name(model) + "."
        chosen = [n for n in names if n.startswith(head)]
    elif group == "conv":
        shapes = {n: p.dim() for n, p in model.named_parameters()}
        layers = [f"{n}." for n, m in model.named_modules() if isinstance(m, nn.modules.conv._ConvNd)]
        chosen = [n for n in names if shapes[n] >= 3 and n.startswith(tuple(layers))]
        if not chosen:
            head = classifier_name(model) + "."
            chosen = [n for n in names if shapes[n] == 2 and not n.startswith(head)]
    elif group.startswith("layer:"):
        prefix = group.removeprefix("layer:")
        chosen = [n for n in names if n == prefix or n.startswith(prefix + ".")]
    else:
        raise ValleysError(f"unknown parameter group {group!r}; choose from {', '.join(GROUPS)}")
    if not chosen:
        layers = ", ".join(dict.fromkeys(n.split(".")[0] for n in names))
        raise ValleysError(
            f"parameter group {group!r} is empty: the model has no such parameters; its layers are {layers} "
            "(a grid entry may choose which probes apply)"
        )
    return chosen


def random_direction(
    kind: str, weights: Mapping[str, Tensor] | nn.Module, *, key: str = "", k: int = 0, share: float = 0.5
) -> tuple[Direction, float]:
    """Draw direction number `k` of a random kind over `weights`.

    Parameters
    ----------
    kind
        ``uniform`` entries U(0, 1), the paper's; ``uniform_symmetric`` U(-1, 1); ``gaussian`` N(0, 1);
        ``filter`` Gaussian, each filter scaled to the norm of the weights' filter, biases and
        normalisation parameters left at zero (Li et al. 2018, section 4); ``sign`` |N(0, 1)| with the sign
        of w in a share `share` of the entries (chosen at random) and the opposite sign in the rest (Li et
        al. 2024); and two that are not random: ``constant`` all ones, ``sign_w`` sign(w).
    weights
        The group's weights by name, in the model's order; any device. A network: all its parameters. Those
        of complex numbers have entries with both parts drawn; those of integers have none.
    key, k
        Name of the stream and number of the direction in it; the same ones give the same direction.

    Returns
    -------
    direction, norm
        Tensors of the weights' shapes, dtype and device, unit 2-norm together; the 2-norm before scaling.
    """
    if isinstance(weights, nn.Module):
        weights = dict(weights.named_parameters())
    copies.check_shapes(weights)
    generator = torch.Generator().manual_seed(stable_seed("direction", kind, key, k))
    direction: Direction = {}
    for name, weight in weights.items():
        if not movable(weight):
            continue
        w = real(weight).cpu().float()
        if kind == "uniform":
            d = torch.rand(w.shape, generator=generator)
        elif kind == "uniform_symmetric":
            d = torch.rand(w.shape, generator=generator) * 2 - 1
        elif kind == "gaussian":
            d = torch.randn(w.shape, generator=generator)
        elif kind == "filter":
            d = torch.randn(w.shape, generator=generator)
            if weight.dim() < 2:
                d.zero_()
            else:
                scale = w.flatten(1).norm(dim=1) / d.flatten(1).norm(dim=1).clamp_min(1e-12)
                d *= scale.view(-1, *[1] * (w.dim() - 1))
        elif kind == "sign":
            agree = torch.rand(w.shape, generator=generator) < share
            d = torch.randn(w.shape, generator=generator).abs()
            d *= torch.where(agree, 1.0, -1.0) * torch.where(w < 0, -1.0, 1.0)
        elif kind == "constant":
            d = torch.ones(w.shape)
        elif kind == "sign_w":
            d = torch.sign(w)
        else:
            raise ValleysError(f"unknown random direction kind {kind!r}; choose from {', '.join(RANDOM)}")
        direction[name] = torch.view_as_complex(d) if weight.is_complex() else d
    norm = _norm(direction)
    for d in direction.values():
        d /= norm  # in place: of a large net two copies would not be small
    return {n: d.to(weights[n].device, weights[n].dtype) for n, d in direction.items()}, norm


def unit(direction: Mapping[str, Tensor]) -> tuple[Direction, float]:
    """Scale to unit 2-norm (accumulated in float64); return the scaled direction and the norm it had.

    Raises
    ------
    ValleysError
        When the direction is zero or not finite.
    """
    norm = _norm(direction)
    return {name: d / norm for name, d in direction.items()}, norm


def _norm(direction: Mapping[str, Tensor]) -> float:
    length = norm(direction.values())
    if not math.isfinite(length) or length == 0.0:
        raise ValleysError(f"a direction has norm {length}: it cannot be scaled to unit length")
    return length


def sign_agreement(direction: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> float:
    """Return the share of entries, among those non-zero in both, whose signs agree; NaN if there are none."""
    same = total = 0
    for name, d in direction.items():
        product = torch.sign(real(d)) * torch.sign(real(weights[name]).to(d.device))
        same += int((product > 0).sum())
        total += int((product != 0).sum())
    return same / total if total else math.nan


def inner(direction: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> float:
    """Return the inner product of a direction with weights, over the direction's entries, in float64."""
    return sum(
        float((real(d).double() * real(weights[n]).to(d.device).double()).sum()) for n, d in direction.items()
    )


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

    The Gram matrix of the centred iterates is decomposed (n x n for n iterates), which takes the memory of
    the n iterates three times over and never a matrix of the size of the weights squared.

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
    rows = torch.empty((len(states), sum(sizes)), dtype=torch.float64)
    for row in rows:
        state = states.pop(0)  # lets go of it
        torch.cat([state[n].double().reshape(-1) for n in names], out=row)
    for columns in rows.split(sizes, dim=1):
        columns -= columns.contiguous().mean(0)
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    components = []
    for i in range(k):
        if (
            values[-1 - i] <= 1e-13 * values[-1]
        ):  # rounding: scaled to unit length it would pass for a direction
            raise ValleysError(f"pca needs a trajectory of {k} dimensions, this one has {i}")
        flat = vectors[:, -1 - i] @ rows
        # An eigenvector's sign is arbitrary: fix it so that a rerun gives the same direction.
        flat = flat * torch.sign(flat[flat.abs().argmax()])
        pieces = flat.split(sizes)
        components.append({n: p.view(shapes[n]).float() for n, p in zip(names, pieces, strict=True)})
    return components


def difference(start: Mapping[str, Tensor], stop: Mapping[str, Tensor], names: list[str]) -> Direction:
    """Return ``stop - start`` over the named parameters, not normalised."""
    return {n: stop[n] - start[n] for n in names}


def towards(
    start: Mapping[str, Tensor], stop: Mapping[str, Tensor], names: list[str], what: str
) -> Direction:
    """Return the `difference` as a direction: it has a length (`check_apart`, which raises otherwise)."""
    check_apart(start, stop, names, what)
    return difference(start, stop, names)


def check_apart(
    start: Mapping[str, Tensor],
    stop: Mapping[str, Tensor],
    names: Iterable[str],
    what: str = "start and stop",
) -> None:
    """Check that a line between two sets of weights has a length.

    Parameters
    ----------
    names
        The parameters in which the line runs.
    what
        Names the two in the error.

    Raises
    ------
    ValleysError
        When they have the same value in each of these parameters.
    """
    if all(torch.equal(start[n].detach(), stop[n].detach().to(start[n])) for n in names):
        raise ValleysError(
            f"{what} are the same weights: the line between them has length zero; give two that differ "
            "(of a checkpoint with several sets of weights, file.pt#key chooses one)"
        )


def restrict(direction: Mapping[str, Tensor], names: Iterable[str]) -> Direction:
    """Return the part of a direction in a group of parameters (drop the other entries)."""
    return {n: direction[n] for n in names}


def draw(
    spec: Mapping[str, Any], weights: Mapping[str, Tensor], key: str, computed: list[Direction] | None = None
) -> Iterator[tuple[int, Direction, float]]:
    """Yield ``(k, unit direction, norm before scaling)`` for a probe's block, one at a time.

    Only the direction in use is in memory: random kinds are generated when their turn comes.

    Parameters
    ----------
    spec
        ``kind, n, share`` of the probe.
    weights
        The group's weights, in the model's order.
    computed
        For computed kinds (``gradient``, ``hessian``, ``pca``, differences of solutions), those stored.
    """
    if spec["kind"] in COMPUTED:
        for k, direction in enumerate((computed or [])[: spec["n"]]):
            scaled, norm = unit(restrict(direction, weights))
            yield k, scaled, norm
        return
    for k in range(spec["n"]):
        direction, norm = random_direction(spec["kind"], weights, key=key, k=k, share=spec["share"])
        yield k, direction, norm
