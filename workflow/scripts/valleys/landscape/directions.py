"""Directions in weight space: kinds that are drawn from a seed, differences of weights, norms, signs, groups.

Kinds that need more than the weights and a seed stand in `computed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from valleys.errors import ValleysError
from valleys.landscape.kinds import COMPUTED, GROUPS, why_not_orthogonal
from valleys.models.layers import classifier_name, norm_parameters
from valleys.networks import copies
from valleys.networks.tensors import check_apart, movable, real, vector_norm
from valleys.storage.files import stable_seed

Direction = dict[str, Tensor]
_TRIES = 100  # draws of a direction that is to be orthogonal, until it has entries of both signs


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


class Draw(NamedTuple):
    """What a drawn kind may use beside the weights."""

    generator: torch.Generator
    """Source of its random numbers, on the CPU."""
    share: float
    """The probe's option of that name."""
    dim: int
    """Dimensions of the parameter: complex weights come as real ones with one more, of length 2."""


Entries = Callable[[Tensor, Draw], Tensor]
_DRAWN: dict[str, Entries] = {}


def drawn(kind: str) -> Callable[[Entries], Entries]:
    """Register a function as a drawn kind of directions, of the name that `kinds.DRAWN` has.

    It takes the weights of one parameter (float32, CPU, real) and a `Draw`, and returns the direction's
    entries: a new tensor of that shape, not normalised.
    """

    def register(entries: Entries) -> Entries:
        if kind in _DRAWN:
            raise ValueError(f"two functions are of the drawn kind {kind!r}")
        _DRAWN[kind] = entries
        return entries

    return register


@drawn("uniform")
def _uniform(w: Tensor, draw: Draw) -> Tensor:
    """Return entries U(0, 1), as the paper's."""
    return torch.rand(w.shape, generator=draw.generator)


@drawn("uniform_symmetric")
def _uniform_symmetric(w: Tensor, draw: Draw) -> Tensor:
    """Return entries U(-1, 1)."""
    return torch.rand(w.shape, generator=draw.generator) * 2 - 1


@drawn("gaussian")
def _gaussian(w: Tensor, draw: Draw) -> Tensor:
    """Return entries N(0, 1)."""
    return torch.randn(w.shape, generator=draw.generator)


@drawn("filter")
def _filter(w: Tensor, draw: Draw) -> Tensor:
    """Return Gaussian entries, each filter scaled to the norm of the weights' filter.

    Biases and normalisation parameters stay at zero (Li et al. 2018, section 4).
    """
    d = torch.randn(w.shape, generator=draw.generator)
    if draw.dim < 2:
        return d.zero_()
    scale = w.flatten(1).norm(dim=1) / d.flatten(1).norm(dim=1).clamp_min(1e-12)
    return d.mul_(scale.view(-1, *[1] * (w.dim() - 1)))


@drawn("sign")
def _sign(w: Tensor, draw: Draw) -> Tensor:
    """Return |N(0, 1)| with the sign of w in a share of the entries, the opposite one in the rest.

    Which entries is chosen at random (Li et al. 2024).
    """
    agree = torch.rand(w.shape, generator=draw.generator) < draw.share
    d = torch.randn(w.shape, generator=draw.generator).abs()
    return d.mul_(torch.where(agree, 1.0, -1.0) * torch.where(w < 0, -1.0, 1.0))


@drawn("constant")
def _constant(w: Tensor, _draw: Draw) -> Tensor:
    """Return ones."""
    return torch.ones(w.shape)


@drawn("sign_w")
def _sign_w(w: Tensor, _draw: Draw) -> Tensor:
    """Return the signs of the weights."""
    return torch.sign(w)


def drawn_kinds() -> list[str]:
    """Return the names of the kinds that there is a function for."""
    return list(_DRAWN)


def random_direction(
    kind: str,
    weights: Mapping[str, Tensor] | nn.Module,
    *,
    key: str = "",
    k: int = 0,
    share: float = 0.5,
    orthogonal: bool = False,
) -> tuple[Direction, float]:
    """Draw direction number `k` of a kind over `weights`.

    Parameters
    ----------
    kind
        Of `kinds.DRAWN`: ``uniform``, ``uniform_symmetric``, ``gaussian``, ``filter``, ``sign``, and two that
        are not random: ``constant``, ``sign_w``.
    weights
        The group's weights by name, in the model's order; any device. A network: all its parameters. Those
        of complex numbers have entries with both parts drawn; those of integers have none.
    key, k
        Name of the stream and number of the direction in it; the same ones give the same direction.
    share
        Of kind ``sign``: the share of entries that have the sign of w.
    orthogonal
        Of kind ``sign``: whether the direction is made orthogonal to w (`orthogonal_by_size`). In a small
        group it is drawn again where all entries agree in sign with w, or none.

    Returns
    -------
    direction, norm
        Tensors of the weights' shapes, dtype and device, unit 2-norm together; the 2-norm before scaling.

    Raises
    ------
    ValleysError
        When the kind is unknown, or the direction has no length: all of its entries are 0, say. When it is
        to be orthogonal to w and is of another kind, of share 0 or 1, or in so small a group that no draw
        has entries of both signs.
    """
    if orthogonal and (why := why_not_orthogonal(kind, share)):
        raise ValleysError(f"orthogonal: {why}")
    if isinstance(weights, nn.Module):
        weights = dict(weights.named_parameters())
    copies.check_shapes(weights)
    if kind not in _DRAWN:
        raise ValleysError(f"unknown random direction kind {kind!r}; choose from {', '.join(_DRAWN)}")
    generator = torch.Generator().manual_seed(stable_seed("direction", kind, key, k))
    for _ in range(_TRIES):
        direction = _entries(kind, weights, generator, share)
        if not orthogonal or orthogonal_by_size(direction, weights):
            break
    else:
        count = sum(d.numel() for d in direction.values())
        raise ValleysError(
            f"orthogonal: in {_TRIES} draws of share {share:g} all of {count} entries agreed in sign with w "
            "or none did; take a larger group or a share nearer to 1/2"
        )
    norm = _norm(direction)
    for d in direction.values():
        d /= norm  # in place: of a large net two copies would not be small
    return {n: d.to(weights[n].device, weights[n].dtype) for n, d in direction.items()}, norm


def _entries(kind: str, weights: Mapping[str, Tensor], generator: torch.Generator, share: float) -> Direction:
    """Return a drawn direction's entries, in float32 on the CPU, not scaled."""
    direction: Direction = {}
    for name, weight in weights.items():
        if movable(weight):
            d = _DRAWN[kind](real(weight).cpu().float(), Draw(generator, share, weight.dim()))
            direction[name] = torch.view_as_complex(d) if weight.is_complex() else d
    return direction


def orthogonal_by_size(direction: Direction, weights: Mapping[str, Tensor]) -> bool:
    """Make a direction orthogonal to w by the sizes of its entries, in place; their signs stay.

    With ``A = sum |u_i w_i|`` over the entries that have the sign of w, and ``D`` the same over those with
    the opposite one, ``<u, w> = A - D``. Entries that agree are multiplied by ``sqrt(D / A)``, the others by
    ``sqrt(A / D)``; then both sums are ``sqrt(A D)``, and ``<u, w> = 0``. So moving along u changes ``|w|``
    in second order alone, and the share of agreeing signs is not told apart by a scaling of w, which nets
    with norm layers do not notice. Subtracting the projection on w would do the same and flip signs.

    Parameters
    ----------
    direction
        Not yet scaled; all parameters of the group, as the sums run over all.
    weights
        Those of the group, by the same names.

    Returns
    -------
    bool
        Whether it could be done: not where A or D is 0, as in a group of a few entries.
    """
    products = {n: real(d).double() * real(weights[n]).cpu().double() for n, d in direction.items()}
    agree = sum(float(p.clamp_min(0).sum()) for p in products.values())
    differ = -sum(float(p.clamp_max(0).sum()) for p in products.values())
    if not (agree > 0 and differ > 0):
        return False
    factor = math.sqrt(differ / agree)
    for name, d in direction.items():
        real(d).mul_(torch.where(products[name] > 0, factor, 1 / factor).float())
    return True


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


def weights_of(model: nn.Module) -> Direction:
    """Return a network's parameters by name, without their graphs; their memory is the network's own."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


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
        ``kind, n, share`` of the probe, and ``orthogonal`` if it is.
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
        options = {"share": spec["share"], "orthogonal": spec.get("orthogonal", False)}
        direction, norm = random_direction(spec["kind"], weights, key=key, k=k, **options)
        yield k, direction, norm
