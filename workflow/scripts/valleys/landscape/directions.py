"""Directions in weight space: random ones made anew from a seed, differences of solutions, norms, signs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from valleys.errors import ValleysError
from valleys.landscape.kinds import COMPUTED, GROUPS, RANDOM
from valleys.models.layers import classifier_name, norm_parameters
from valleys.networks import copies
from valleys.networks.tensors import check_apart, movable, real, vector_norm
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
    length = vector_norm(direction)
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


def difference(start: Mapping[str, Tensor], stop: Mapping[str, Tensor], names: list[str]) -> Direction:
    """Return ``stop - start`` over the named parameters, not normalised."""
    return {n: stop[n] - start[n] for n in names}


def towards(
    start: Mapping[str, Tensor], stop: Mapping[str, Tensor], names: list[str], what: str
) -> Direction:
    """Return the `difference` as a direction: it has a length (`check_apart`, which raises otherwise)."""
    check_apart(start, stop, names, what)
    return difference(start, stop, names)


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
