"""Weights that compute the same: units of a network permuted, or rescaled, found from its graph.

A hidden layer's units have no order. Permuting them, in all tensors that they are a dimension of, leaves the
network as it is; so does scaling what makes a unit and undoing that in what reads it, where nothing between
them but ReLU-like layers stands, or scaling what a batch norm normalises away. `trace` finds which dimensions
belong together by following the network's graph (``torch.fx``). Where it does not know an operation, the
units that it reads are left as they are, so that what it finds is right but may not be all. It is tried on
images all the same.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, fx, nn

from valleys.errors import ValleysError
from valleys.networks.copies import evaluating, line, load
from valleys.networks.tensors import distance, tensors_in

#: Of outputs, relative: what another order of sums may change.
SAME = 1e-4

#: Act on each unit by itself; of the second, on a unit f times as large they give f times as much.
_EACH = (nn.GELU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.SiLU, nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.Hardtanh)
_EACH += (nn.Hardswish, nn.ReLU6, nn.LogSigmoid, nn.Softsign)
_HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Flatten)
_HOMOGENEOUS += (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_HOMOGENEOUS += tuple(
    getattr(nn, f"{kind}Pool{n}d") for kind in ("Max", "Avg", "AdaptiveAvg", "AdaptiveMax") for n in (1, 2, 3)
)
_EACH_BY_CALL = {F.gelu, torch.tanh, F.tanh, torch.sigmoid, F.sigmoid, F.softplus, F.silu, F.elu, F.mish}
_EACH_BY_CALL |= {F.hardtanh, F.hardswish, "tanh", "sigmoid"}
_HOMOGENEOUS_BY_CALL = {F.relu, torch.relu, F.leaky_relu, F.dropout, F.max_pool2d, F.avg_pool2d, "relu"}
_HOMOGENEOUS_BY_CALL |= {F.adaptive_avg_pool2d, F.adaptive_max_pool2d, torch.clone, "clone", "contiguous"}
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ADDED = {operator.add, operator.iadd, torch.add, "add", "add_"}

Layout = list[int] | None
"""The groups that a value's units are of, one after the other; None: units that stay where they are."""
Permutations = dict[int, Tensor]


@dataclass
class Axis:
    """One dimension of one tensor, by the groups of units that lie along it.

    `role` says what the tensor does with a unit: ``makes``, ``reads``, ``normalises`` (batch norm's weight
    and bias), ``mean`` or ``variance`` (its statistics).
    """

    name: str
    dim: int
    groups: list[int]
    role: str


@dataclass
class Symmetries:
    """Groups of units of a network that may be permuted.

    Attributes
    ----------
    sizes : dict
        Units of each group.
    moving : list of int
        The groups that may be permuted; others lie beside them in concatenations.
    axes : list of Axis
        Where groups lie.
    scaled : dict
        Groups whose units may be rescaled: "relu" (what reads them undoes it) or "batch norm" (it does).
    """

    sizes: dict[int, int]
    moving: list[int]
    axes: list[Axis]
    scaled: dict[int, str]

    def random(self, seed: int = 0) -> Permutations:
        """Return a random permutation of each group that may be permuted."""
        generator = torch.Generator().manual_seed(seed)
        return {group: torch.randperm(self.sizes[group], generator=generator) for group in self.moving}

    def permuted(self, state: Mapping[str, Tensor], order: Permutations) -> dict[str, Tensor]:
        """Return a state dict with the units of each group in another order: unit i is then ``order[i]``."""
        found = dict(state)
        for axis in self.axes:
            tensor = found[axis.name]
            index = self.index(axis, tensor.shape[axis.dim], order).to(tensor.device)
            found[axis.name] = tensor.index_select(axis.dim, index)
        return found

    def rescaled(self, state: Mapping[str, Tensor], seed: int = 0, spread: float = 0.5) -> dict[str, Tensor]:
        """Return a state dict with each unit that may be of any size scaled by ``exp(spread * N(0, 1))``."""
        generator, found = torch.Generator().manual_seed(seed), dict(state)
        factors = {g: (spread * torch.randn(self.sizes[g], generator=generator)).exp() for g in self.scaled}
        for axis in self.axes:
            tensor, pieces = found[axis.name], []
            block = self.block(axis, tensor.shape[axis.dim])
            for group in axis.groups:
                power = _POWERS[self.scaled.get(group, "")].get(axis.role, 0)
                factor = factors[group] ** power if power else torch.ones(self.sizes[group])
                pieces.append(factor.repeat_interleave(block))
            shape = [-1 if d == axis.dim else 1 for d in range(tensor.dim())]
            found[axis.name] = tensor * torch.cat(pieces).view(shape).to(tensor)
        return found

    def block(self, axis: Axis, length: int) -> int:
        """Return how many entries in a row belong to a unit: more than one behind a flattened image."""
        return length // sum(self.sizes[group] for group in axis.groups)

    def index(self, axis: Axis, length: int, order: Permutations) -> Tensor:
        """Return the entries of an axis in the order of its units."""
        block, start, pieces = self.block(axis, length), 0, []
        for group in axis.groups:
            units = order.get(group, torch.arange(self.sizes[group]))
            pieces.append(((start + units)[:, None] * block + torch.arange(block)).flatten())
            start += self.sizes[group]
        return torch.cat(pieces)


#: What a unit's factor does to tensors, as a power, by how the scale is undone.
_POWERS: dict[str, dict[str, int]] = {
    "": {},
    "relu": {"makes": 1, "reads": -1},
    "batch norm": {"makes": 1, "mean": 1, "variance": 2},
}


def trace(network: nn.Module, images: Tensor) -> Symmetries:
    """Return the groups of units of a network that may be permuted, and those that may be rescaled.

    Parameters
    ----------
    network
        One that ``torch.fx`` can trace; looked at in eval mode.
    images
        A few, on which a permuted and a rescaled copy are tried.

    Raises
    ------
    ValleysError
        When it cannot be traced, no units can be permuted, or a permuted copy computes something else.
    """
    with evaluating(network):
        try:
            graph = fx.symbolic_trace(network)
        except Exception as error:  # of fx, or of a network that looks at values
            raise ValleysError(
                f"symmetries: the network cannot be traced ({line(error)}); only one whose operations do not "
                "hang on its inputs can be aligned"
            ) from error
        found = _Graph(graph, dict(network.named_modules())).follow()
        if not found.moving:
            raise ValleysError("symmetries: no units of this network can be permuted by what is known of it")
        _try(network, images, found)
    return found


@torch.no_grad()
def _try(network: nn.Module, images: Tensor, found: Symmetries) -> None:
    other, state = copy.deepcopy(network), network.state_dict()
    first = tensors_in(network(images))
    load(other, found.permuted(state, found.random()))
    if (apart := distance(first, tensors_in(other(images)))) > SAME:
        raise ValleysError(
            f"symmetries: with its units permuted the network computes something else (by {apart:.3g}): it "
            "has an operation that is not what its graph says"
        )
    load(other, found.rescaled(state))
    if distance(first, tensors_in(other(images))) > 10 * SAME:  # batch norm's eps is not rescaled
        found.scaled.clear()


class _Graph:
    """Follows the units of each layer through a traced network."""

    def __init__(self, graph: fx.GraphModule, modules: Mapping[str, nn.Module]) -> None:
        self.graph, self.modules = graph, modules
        self.sizes: dict[int, int] = {}
        self.parent: dict[int, int] = {}
        self.fixed: set[int] = set()
        self.axes: list[Axis] = []
        self.not_relu: set[int] = set()  # groups that meet an operation which is not homogeneous
        self.normed: set[int] = set()
        self.unnormed: set[int] = set()  # groups that something else than batch norm reads first

    def follow(self) -> Symmetries:
        values: dict[fx.Node, Layout] = {}
        for node in self.graph.graph.nodes:
            given = [values.get(arg) for arg in node.all_input_nodes]
            if node.op == "output":
                self._fix(*given)
            elif node.op in ("placeholder", "get_attr"):
                values[node] = None
            elif node.op == "call_module":
                values[node] = self._module(node.target, given)
            else:
                values[node] = self._call(node, given)
        return self._result()

    def _result(self) -> Symmetries:
        fixed = {self._root(group) for group in self.fixed}
        every: dict[int, list[int]] = {}
        for group in self.sizes:
            every.setdefault(self._root(group), []).append(group)
        moving = [root for root in every if root not in fixed]
        made = {axis.groups[0] for axis in self.axes if axis.role == "makes"}
        scaled = {}
        for root in moving:
            fronts = made & set(every[root])
            if fronts and not self.not_relu & set(every[root]):
                scaled[root] = "relu"
            elif fronts and fronts <= self.normed and not fronts & self.unnormed:
                scaled[root] = "batch norm"
        axes = [replace(axis, groups=[self._root(group) for group in axis.groups]) for axis in self.axes]
        axes = [axis for axis in axes if set(axis.groups) & set(moving)]
        return Symmetries({root: self.sizes[root] for root in every}, moving, axes, scaled)

    # ---- groups

    def _new(self, size: int) -> int:
        group = len(self.sizes)
        self.sizes[group], self.parent[group] = size, group
        return group

    def _root(self, group: int) -> int:
        while self.parent[group] != group:
            group = self.parent[group]
        return group

    def _fix(self, *layouts: Layout) -> None:
        self.fixed.update(group for layout in layouts for group in layout or ())

    def _mark(self, marks: set[int], *layouts: Layout) -> None:
        marks.update(group for layout in layouts for group in layout or ())

    def _joined(self, layouts: list[Layout]) -> Layout:
        """Return one layout of values that are added unit by unit."""
        first = layouts[0]
        for other in layouts[1:]:
            sizes = [[self.sizes[g] for g in layout] if layout else None for layout in (first, other)]
            if first is None or other is None or sizes[0] != sizes[1]:
                self._fix(first, other)
                first = first or other
                continue
            for a, b in zip(first, other, strict=True):
                self.parent[self._root(b)] = self._root(a)
        return first

    # ---- operations

    def _axis(self, name: str, dim: int, layout: Layout, role: str) -> None:
        if layout is not None:
            self.axes.append(Axis(name, dim, list(layout), role))

    def _module(self, name: str, given: list[Layout]) -> Layout:
        module, layout = self.modules[name], given[0] if given else None
        if isinstance(module, _LAYERS):
            return self._layer(name, module, layout)
        if isinstance(module, _BATCH_NORMS):
            return self._norm(name, module, layout)
        one_by_one = isinstance(module, nn.GroupNorm) and module.num_groups in (1, module.num_channels)
        if one_by_one or (isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1):
            for part in ("weight", "bias"):
                if getattr(module, part) is not None:
                    self._axis(f"{name}.{part}", 0, layout, "normalises")
            self._mark(self.not_relu, layout)
            self._mark(self.unnormed, layout)
            return layout
        if isinstance(module, _HOMOGENEOUS):
            self._mark(self.unnormed, layout)
            return layout
        if isinstance(module, _EACH):
            self._mark(self.not_relu, layout)
            self._mark(self.unnormed, layout)
            return layout
        self._fix(*given)
        return None

    def _layer(self, name: str, module: Any, layout: Layout) -> Layout:
        groups = getattr(module, "groups", 1)
        outputs, inputs = module.weight.shape[0], module.weight.shape[1] * groups
        units = sum(self.sizes[g] for g in layout) if layout else 0
        if layout and inputs % units:
            self._fix(layout)
            layout = None
        if groups > 1:  # depthwise and grouped: their units have places
            self._fix(layout)
            layout = None
        self._axis(f"{name}.weight", 1, layout, "reads")
        self._mark(self.unnormed, layout)
        made = [self._new(outputs)]
        if groups > 1:
            self._fix(made)
        self._axis(f"{name}.weight", 0, made, "makes")
        if module.bias is not None:
            self._axis(f"{name}.bias", 0, made, "makes")
        return made

    def _norm(self, name: str, module: Any, layout: Layout) -> Layout:
        for part in ("weight", "bias"):
            if getattr(module, part) is not None:
                self._axis(f"{name}.{part}", 0, layout, "normalises")
        if module.running_mean is None:
            self._mark(self.unnormed, layout)
        else:
            self._axis(f"{name}.running_mean", 0, layout, "mean")
            self._axis(f"{name}.running_var", 0, layout, "variance")
            self._mark(self.normed, layout)
        self._mark(self.not_relu, layout)
        if layout is None:
            return None
        # Behind it the units are the same for an order, and others for a scale.
        behind = [self._new(self.sizes[group]) for group in layout]
        self._joined([layout, behind])
        self._mark(self.not_relu, behind)
        return behind

    def _call(self, node: fx.Node, given: list[Layout]) -> Layout:
        target: Callable[..., Any] | str = node.target
        if target in _ADDED and len(given) > 1:
            self._mark(self.not_relu, *given)
            self._mark(self.unnormed, *given)
            return self._joined(given)
        if target is torch.cat or target is torch.concat:
            dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
            if dim == 1 and all(layout is not None for layout in given):
                self._mark(self.not_relu, *given)
                self._mark(self.unnormed, *given)
                return [group for layout in given for group in layout or ()]
        layout = given[0] if given else None
        if target in ("size", "dim") or (target is getattr and node.args[1] in ("shape", "ndim")):
            return None
        if target in ("view", "reshape") and node.args[2:] == (-1,):  # as x.view(x.size(0), -1)
            self._mark(self.unnormed, layout)
            return layout
        flat = target in (torch.flatten, "flatten") and node.args[1:2] == (1,)
        pooled = target in (torch.mean, "mean") and _dims(node) in ((2, 3), (-2, -1), (-1, -2), (2,))
        if len(given) == 1 and (flat or pooled or target in _HOMOGENEOUS_BY_CALL):
            self._mark(self.unnormed, layout)
            return layout
        if len(given) == 1 and target in _EACH_BY_CALL:
            self._mark(self.not_relu, layout)
            self._mark(self.unnormed, layout)
            return layout
        self._fix(*given)
        return None


def _dims(node: fx.Node) -> tuple[int, ...] | None:
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    return (dims,) if isinstance(dims, int) else tuple(dims) if isinstance(dims, tuple | list) else None


def align(
    found: Symmetries,
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    *,
    seed: int = 0,
    most: int = 100,
) -> Permutations:
    """Return the order of the second network's units in which its weights are nearest to the first's.

    Weight matching (Ainsworth et al. 2023, "Git Re-Basin", algorithm 1): group after group in random order,
    the permutation that makes the inner product of the two greatest with all other groups as they are, until
    none changes. It ends at an optimum of each group, which need not be one of all together.

    Parameters
    ----------
    found
        Of the network (`trace`).
    first, second
        State dicts. Statistics of batch norm do not count.
    seed
        Of the order of groups.
    most
        Rounds over all groups.
    """
    order = {group: torch.arange(found.sizes[group]) for group in found.moving}
    axes = [axis for axis in found.axes if axis.role not in ("mean", "variance")]
    places = {group: [axis for axis in axes if group in axis.groups] for group in found.moving}
    beside = {name: [axis for axis in axes if axis.name == name] for name in {axis.name for axis in axes}}
    generator = torch.Generator().manual_seed(seed)
    for _ in range(most):
        changed = False
        for at in torch.randperm(len(found.moving), generator=generator).tolist():
            group = found.moving[at]
            gain = torch.zeros(found.sizes[group], found.sizes[group], dtype=torch.float64)
            for axis in places[group]:
                one, other = (state[axis.name].detach().double().cpu() for state in (first, second))
                for also in beside[axis.name]:
                    if also.dim != axis.dim:
                        other = other.index_select(also.dim, found.index(also, other.shape[also.dim], order))
                others = {g: order[g] for g in order if g != group}
                other = other.index_select(axis.dim, found.index(axis, other.shape[axis.dim], others))
                one, other = (_units(found, axis, group, tensor) for tensor in (one, other))
                for a, b in zip(one, other, strict=True):
                    gain += a @ b.T
            new = torch.from_numpy(linear_sum_assignment(gain.numpy(), maximize=True)[1])
            here = torch.arange(len(new))
            # A tie, to rounding, is no change.
            if gain[here, new].sum() > gain[here, order[group]].sum() + 1e-9 * gain.abs().sum():
                order[group], changed = new, True
        if not changed:
            break
    return order


def _units(found: Symmetries, axis: Axis, group: int, tensor: Tensor) -> list[Tensor]:
    """Return the entries of a group's units, (units, entries of each), at each of its places on an axis."""
    block, start, pieces = found.block(axis, tensor.shape[axis.dim]), 0, []
    for each in axis.groups:
        length = found.sizes[each] * block
        if each == group:
            part = tensor.narrow(axis.dim, start, length).movedim(axis.dim, 0)
            pieces.append(part.reshape(found.sizes[each], -1))
        start += length
    return pieces
