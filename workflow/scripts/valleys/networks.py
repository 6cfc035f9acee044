"""What a network must be to be probed: one that can be copied, and a function of its weights and images.

A curve, a plane and a Hessian take the loss for a function of the parameters. `twin` makes the copy that is
moved, and `check` looks for what makes a network something else: random numbers, an input changed in place,
state that outlives a pass, weights folded at ``eval()`` or kept from the first pass, outputs that hang on the
other images of the batch. `differentiable` and `differs` compare derivatives with differences of losses.
"""

from __future__ import annotations

import contextlib
import copy
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from valleys.errors import ValleysError

#: Images of the first batch that `check` passes.
IMAGES = 16
#: Passes that a network gets to show what it draws random numbers for.
DRAWS = 32
#: Size of a move of the weights, as a share of each tensor's root mean square.
MOVE = 0.05
#: Images of the batch on which gradients are compared with differences.
SOME = 128
NO_GRADIENT = "use a direction that is no gradient or eigenvector"

_HELD = {"_parameters", "_buffers", "_modules"}
_NORMS = nn.modules.batchnorm._NormBase  # keep statistics as long as their weights


# ---- copies ------------------------------------------------------------------------------------------------


class _WithoutGraph(TorchFunctionMode):
    """Within it ``copy.deepcopy`` takes the results of operations too, as tensors that have no graph."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return copy.deepcopy(tensor.detach(), memo)
        return func(*args, **(kwargs or {}))


def twin(model: nn.Module) -> nn.Module:
    """Return a copy of a network that shares no memory with it, in the mode it is in.

    As ``copy.deepcopy``, but tensors that a pass left behind (``weight`` of `torch.nn.utils.weight_norm`, an
    activation that a module keeps) are copied without their graph, and what shared memory still does in the
    copy: tied weights, views of a parameter.

    Raises
    ------
    ValleysError
        When it holds something that cannot be copied (an open file, a lock), which it names; when its copy
        is of other tensors, or has the network's own.
    """
    check_shapes(dict(model.named_parameters()))
    memo: dict[int, Any] = {}
    try:
        for parameter in model.parameters():
            if type(parameter) is nn.Parameter and _dense(parameter):
                values = copy.deepcopy(parameter.detach(), memo)
                memo[id(parameter)] = nn.Parameter(values, parameter.requires_grad)
        with _WithoutGraph(), torch.no_grad():  # a ScriptModule's are copied as results of an operation
            made = copy.deepcopy(model, memo)
    except Exception as error:
        raise ValleysError(
            f"network: {_not_copied(model)} cannot be copied ({line(error)}); remove it for the "
            "time of probing, or give its class a __deepcopy__"
        ) from error
    own, new = (dict(m.named_parameters()) for m in (model, made))
    if [(n, p.shape, p.dtype) for n, p in own.items()] != [(n, p.shape, p.dtype) for n, p in new.items()]:
        raise ValleysError(
            f"network: copy.deepcopy of {type(model).__name__} has other parameters than the network; "
            "mend its __deepcopy__ or __getstate__"
        )
    for name, parameter in new.items():
        parameter.requires_grad_(own[name].requires_grad)
    shared = _places(own.values()) & _places(new.values())
    if shared:
        name = next(n for n, p in own.items() if _place(p) in shared)
        raise ValleysError(
            f"network: copy.deepcopy of {type(model).__name__} returns the same {name}, not a copy; mend its "
            "__deepcopy__"
        )
    return made


def standing(model: nn.Module) -> nn.Module:
    """Return a `twin` in eval mode whose parameters require no gradient.

    Raises
    ------
    ValleysError
        As `twin`; when it has no parameters; when ``eval()`` raises, or makes other parameters of its own.
    """
    if not any(True for _ in model.parameters()):
        raise ValleysError(
            f"network: {type(model).__name__} has no parameters, so there is nothing to move "
            "(torch.jit.freeze and quantization fold them into constants)"
        )
    made = twin(model)
    try:
        made.eval()
    except Exception as error:
        raise ValleysError(
            f"network: eval() raises {line(error)}; give the network that was exported, compiled or converted"
        ) from error
    own, new = dict(model.named_parameters()), dict(made.named_parameters())
    changed = [
        n for n in dict.fromkeys([*own, *new]) if n not in own or n not in new or not _same(own[n], new[n])
    ]
    if changed:
        _refuse_folded(f"parameter {changed[0]}")
    for parameter in made.parameters():  # a ScriptModule has no requires_grad_ of its own
        parameter.requires_grad_(False)
    return made


def check_shapes(parameters: Mapping[str, Tensor]) -> None:
    """Raise when a parameter is lazy and has seen no batch."""
    for name, parameter in parameters.items():
        if nn.parameter.is_lazy(parameter):
            raise ValleysError(f"network: {name} has no shape yet; pass a batch through the network first")


def check_real(what: str, parameters: Mapping[str, Tensor]) -> None:
    """Raise when a parameter is none of real numbers, for what can do with these only."""
    for name, parameter in parameters.items():
        if not parameter.is_floating_point():
            raise ValleysError(
                f"{what}: parameter {name} is {parameter.dtype}; it takes those of real numbers only"
            )


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Return copies of a network's state dict, with what is no tensor in it, and of its other buffers."""
    state = {**dict(model.named_buffers()), **model.state_dict()}
    return {n: t.detach().clone() if isinstance(t, Tensor) else copy.deepcopy(t) for n, t in state.items()}


def load(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Give a network the tensors of a state dict, or all of a `snapshot`.

    As ``load_state_dict``, but a dict that does not say of which version of its modules it is (torch takes
    that for the first, which some modules refuse) is of the present one.

    Raises
    ------
    RuntimeError
        Where ``load_state_dict`` does.
    """
    own = model.state_dict()
    beside = {n: b for n, b in model.named_buffers() if n not in own and n in state}
    given = OrderedDict((n, value) for n, value in state.items() if n not in beside)
    versions = getattr(state, "_metadata", None) or getattr(own, "_metadata", None)
    if versions is not None:
        given._metadata = versions  # type: ignore[attr-defined]
    model.load_state_dict(given)
    put_back(beside, state)


def _refuse_folded(what: str) -> None:
    raise ValleysError(
        f"network: train() and eval() change {what}: it merges or folds weights when its mode changes; do so "
        "for good before probing (for example merge_and_unload), or switch it off (merge_weights=False)"
    )


def line(error: BaseException) -> str:
    """Return type and message of an exception on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _dense(tensor: Tensor) -> bool:
    """Whether no two entries are one place in memory, as after ``expand``."""
    return tensor.layout == torch.strided and all(
        size < 2 or stride > 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )


def _not_copied(model: nn.Module) -> str:
    """Say which attribute of which module ``copy.deepcopy`` refuses."""
    for name, module in model.named_modules():
        where = f"{name} ({type(module).__name__})" if name else type(module).__name__
        for key, value in vars(module).items():
            if key not in _HELD and not _copies(value):
                if key.endswith("_hooks"):
                    return f"a hook of {where}"
                return f"attribute {key!r} of {where} ({type(value).__name__})"
        for key, parameter in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if not _copies(parameter):
                return f"{key!r} of {where} ({type(parameter).__name__})"
    return type(model).__name__


def _copies(value: Any) -> bool:
    try:
        with _WithoutGraph():
            copy.deepcopy(value)
    except Exception:
        return False
    return True


# ---- the check ---------------------------------------------------------------------------------------------


class _Watch(TorchDispatchMode):
    """Notes which memory the operations within it touch, their number formats, and which draw at random."""

    def __init__(self) -> None:
        super().__init__()
        self.touched: set[int] = set()
        self.eps = 0.0
        self.random: dict[str, None] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch wraps what is below and imports its compiler, which takes seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self.touched.add(_place(tensor))
                if movable(tensor) and tensor.dim():
                    self.eps = max(self.eps, torch.finfo(tensor.dtype).eps)
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.random[str(func).removeprefix("aten.").split(".")[0]] = None
        return func(*args, **kwargs)


def check(net: nn.Module, images: Any, original: nn.Module | None = None) -> float:
    """Raise unless a network, in eval mode, is a function of its parameters and of each image.

    A handful of passes over `IMAGES` images, at the weights as they are and a little off them, where all is
    as it was in the end: weights, buffers, random numbers, and `images`. What is not a defect passes: layers
    without use, kinks, outputs that are all zero or not finite, rounding of any number format.

    Parameters
    ----------
    net
        A `twin` in eval mode whose parameters require no gradient.
    images
        The first batch, (N, ...). If they are no tensor, all of them go through together.
    original
        What `net` is a copy of, so that hooks which compute with the original are found out.

    Returns
    -------
    Relative rounding of the coarsest number format in which it computes.

    Raises
    ------
    ValleysError
        When it is none, saying of what kind it is; or when it raises on these images.
    """
    parameters = dict(net.named_parameters())
    before = {name: t.detach().clone() for name, t in (*parameters.items(), *net.named_buffers())}
    modes = [(module, module.training) for module in net.modules() if hasattr(module, "training")]
    device = next(iter(parameters.values())).device
    with random_numbers_kept(device), torch.no_grad():
        try:
            passes = _Passes(net, images, parameters, before, device)
            passes.run(original)
            return passes.eps
        finally:
            put_back(parameters, before)
            put_back(dict(net.named_buffers()), before)  # by name: a pass may have set others
            for module, training in modes:
                if module.training != training:
                    module.training = training


class _Passes:
    """The passes of `check`: one after the other, from the plainest defect to those that it could hide."""

    def __init__(
        self,
        net: nn.Module,
        images: Any,
        parameters: dict[str, Tensor],
        before: Mapping[str, Tensor],
        device: Any,
    ) -> None:
        self.net, self.parameters, self.before, self.device = net, parameters, before, device
        self.names = list(net.state_dict())
        self.whole = images
        self.images = images[:IMAGES] if isinstance(images, Tensor) else images
        self.eps = 0.0

    def run(self, original: nn.Module | None) -> None:
        first, watch, drew = self._first()
        self.eps = watch.eps or torch.finfo(torch.float32).eps
        self._own_memory(watch, original)
        self._parameters_stayed("a pass in eval mode")
        between = self._halves()
        again, later = self._watched()
        self._repeats(first, again, drew, watch)
        self._by_image(first, between)
        self._nothing_kept(watch, later)
        self._weights_count(first)

    def _pass(self, images: Any) -> list[Tensor]:
        """Return the outputs for a copy of these images, and see whether the network changed it."""
        given = _copied(images)
        found = _tensors(self.net(given))
        if not all(_same(a, b) for a, b in zip(_tensors(images), _tensors(given), strict=True)):
            raise ValleysError(
                "network: it changes its input in place, so that each pass sees other images; set "
                "inplace=False in its first layers, or let forward begin with x = x.clone()"
            )
        return [tensor.detach().clone() for tensor in found if tensor.is_floating_point()]

    def _watched(self) -> tuple[list[Tensor], _Watch]:
        watch = _Watch()
        try:
            with watch:
                return self._pass(self.images), watch
        except ValleysError:
            raise
        except Exception:  # of the network, which raises it again, or of an operation that cannot be watched
            return self._pass(self.images), _Watch()

    def _first(self) -> tuple[list[Tensor], _Watch, bool]:
        drawn = _random_numbers(self.device)
        try:
            try:
                found, watch = self._watched()
            except ValleysError:
                raise
            except Exception:  # made for batches of one size, or for no part of the images
                self.images = self.whole
                found, watch = self._watched()
        except ValleysError:
            raise
        except Exception as error:
            shapes = " and ".join(str(tuple(t.shape)) for t in _tensors(self.whole))
            raise ValleysError(f"network: given images {shapes}, it raises {line(error)}") from error
        return found, watch, not _random_numbers_equal(drawn, _random_numbers(self.device))

    def _own_memory(self, watch: _Watch, original: nn.Module | None) -> None:
        if original is None:
            return
        for name, tensor in (*original.named_parameters(), *original.named_buffers()):
            if tensor.numel() and _place(tensor) in watch.touched:
                raise ValleysError(
                    f"network: a copy of it computes with {name} of the network itself, through a hook or a "
                    "function that refers to it; let hooks use the module that they are given"
                )

    def _parameters_stayed(self, after: str) -> None:
        new = next((name for name in self.net.state_dict() if name not in self.names), None)
        if new is not None:
            raise ValleysError(
                f"network: {after} gives it the new tensor {new}; pass a batch through the network "
                "before probing"
            )
        for name, parameter in self.net.named_parameters():
            # The place too: what moves a network moves the tensors that it had.
            kept = name in self.before and _place(parameter) == _place(self.parameters[name])
            if not kept or not _same(parameter, self.before[name]):
                raise ValleysError(
                    f"network: {after} changes its parameter {name}; if it is set by the first batch, pass "
                    "one through the network before probing; if weights are merged or folded, do it for good "
                    "first, or not at all"
                )

    def _halves(self) -> list[Tensor] | None:
        """Return the outputs of each half of the images, joined; None where these cannot be cut."""
        if not isinstance(self.images, Tensor) or len(self.images) < 2:
            return None
        middle = len(self.images) // 2
        try:
            # Nothing that `state` names requires a gradient.
            with torch.enable_grad():
                low = self.net(self.images[:middle].clone())
            high = self._pass(self.images[middle:])
        except Exception:
            return None
        needs = next((t for t in _tensors(low) if t.requires_grad), None)
        if needs is not None:
            raise ValleysError(
                f"network: its outputs depend on a tensor {_leaf(needs)} that requires a gradient and is "
                "none of its parameters, so no line moves it; register it (nn.Parameter, nn.ParameterList, "
                "nn.ModuleList), or give it requires_grad=False"
            )
        low = [t.detach() for t in _tensors(low) if t.is_floating_point()]
        count = len(self.images)
        return [
            torch.cat([a, b]) if _rows(a, middle) and _rows(b, count - middle) else a.new_empty(0)
            for a, b in zip(low, high, strict=False)
        ]

    def _repeats(self, first: list[Tensor], again: list[Tensor], drew: bool, watch: _Watch) -> None:
        """Compare two passes over the same images; others came between them."""
        changed = [
            n for n, t in self.net.named_buffers() if n in self.before and not _same(t, self.before[n])
        ]
        apart = _distance(first, again)
        if drew and apart <= 20 * self.eps:  # what is drawn may matter now and then
            apart = max(_distance(first, self._pass(self.images)) for _ in range(DRAWS))
        if drew and apart > 20 * self.eps:
            by = f" ({', '.join(watch.random)})" if watch.random else ""
            raise ValleysError(
                f"network: it draws random numbers in eval mode{by}, and its outputs differ from pass to "
                "pass; switch them off there: F.dropout(x, training=self.training), no noise or dropped "
                f"paths in eval mode{self._in_train_mode()}"
            )
        if changed and apart > 0:
            raise ValleysError(
                f"network: a pass in eval mode changes {changed[0]}, and with it the outputs of the next "
                f"pass; update it only where self.training{self._in_train_mode()}"
            )
        if apart > 20 * self.eps:
            raise ValleysError(
                "network: its outputs for the same images differ from pass to pass in eval mode: it keeps "
                "something from one pass to the next (a hidden state, a memory, a count), or draws random "
                "numbers of its own; reset it in forward, or use it only where self.training"
            )

    def _by_image(self, first: list[Tensor], halves: list[Tensor] | None) -> None:
        if halves is None or len(halves) != len(first):
            return
        on_gpu = self.device.type == "cuda"
        eps = max(self.eps, 1e-3) if on_gpu else self.eps  # TF32
        for whole, cut in zip(first, halves, strict=True):
            if whole.shape != cut.shape or not (whole.isfinite().all() and cut.isfinite().all()):
                continue
            whole, cut = whole.flatten(1).double(), cut.flatten(1).double()
            spread = (whole - whole.mean(0)).abs().max()
            tolerance = max(1e-3, 20 * eps) * spread + 100 * eps * whole.abs().max()
            # A few images may flip by rounding where a network rounds, sorts or chooses.
            if ((whole - cut).abs().amax(1) > tolerance).double().mean() > 0.25:
                raise ValleysError(
                    "network: the outputs of an image depend on the other images of its batch in eval mode, "
                    "so that a loss would depend on how the images are cut; normalise by running statistics "
                    f"or by image (track_running_stats=True, GroupNorm, LayerNorm){self._in_train_mode()}"
                )

    def _nothing_kept(self, watch: _Watch, later: _Watch) -> None:
        """Find weights that are computed once and kept: the parameters behind them are never read again."""
        if not later.touched:
            return
        parameters = dict(self.net.named_parameters())
        for name, parameter in parameters.items():
            if parameter.numel() and _place(parameter) in watch.touched - later.touched:
                self._refuse_kept(name)
        unread = {n: p for n, p in parameters.items() if p.numel() > 1 and _place(p) not in later.touched}
        if not unread:
            return
        ours = _places(parameters.values())
        kept = [
            (path, module, tensor)
            for path, module in self.net.named_modules()
            for place, tensor in _held_tensors(module)
            if place in later.touched and place not in ours
        ]
        for name, parameter in unread.items():
            for path, module, tensor in kept:
                # Unused layers are common, and so are vectors of their length, and of ones.
                matrix = tensor.dim() > 1 and tensor.shape == parameter.shape
                owner = name.rpartition(".")[0]
                if (
                    (owner == path and tensor.numel() == parameter.numel() and not isinstance(module, _NORMS))
                    or (matrix and f"{owner}.".startswith(path and f"{path}."))
                    or (matrix and torch.equal(tensor.to(parameter), parameter) and parameter.std() > 0)
                ):
                    self._refuse_kept(name)

    def _refuse_kept(self, name: str) -> None:
        raise ValleysError(
            f"network: it computes with a copy of {name} that it keeps, so that moving {name} moves nothing; "
            "compute it from the parameter in every forward, or fold the weights for good and keep no others"
        )

    def _weights_count(self, first: list[Tensor]) -> None:
        """Move the weights: the outputs must follow, and be the same after train() and eval()."""
        if not first or not all(t.isfinite().all() for t in first):
            return
        for size in (MOVE, 1.0):
            _shake(self.parameters, self.before, size)
            moved = self._pass(self.images)
            if not _equal(first, moved):
                break
        there = {name: tensor.detach().clone() for name, tensor in self.parameters.items()}
        with contextlib.suppress(NotImplementedError):  # networks by torch.export have one mode
            self.net.train()
            self.net.eval()
        for name, parameter in self.net.named_parameters():
            if name not in there or not _same(parameter, there[name]):
                _refuse_folded(f"parameter {name}")
        finite = all(t.isfinite().all() for t in moved)
        if finite and _distance(moved, self._pass(self.images)) > 20 * self.eps:
            _refuse_folded("what its weights mean")
        if _equal(first, moved):
            raise ValleysError(
                "network: moving all of its parameters does not change its outputs: it computes with a copy "
                "of them, or with none; let forward use the parameters themselves"
            )
        put_back(self.parameters, self.before)
        if finite and _distance(first, self._pass(self.images)) > 20 * self.eps:
            raise ValleysError(
                "network: with its weights put back its outputs are not what they were: it keeps something "
                "from one pass to the next; compute everything in forward"
            )

    def _in_train_mode(self) -> str:
        names = [n or type(m).__name__ for n, m in self.net.named_modules() if getattr(m, "training", False)]
        return f" ({', '.join(names[:3])}: in train mode after eval())" if names else ""


# ---- derivatives -------------------------------------------------------------------------------------------


def differs(phi: Callable[[float], float], slope: float, scale: float, eps: float) -> float | None:
    """Return the central difference that a slope at 0 is not, or None where they agree.

    The two may differ by as much as a kink or the curvature between the points can make (half the second
    difference over the step, where the slope changes one way between them) and by rounding. Some steps are
    tried, until that leaves little room. Where the two disagree then, a third of the step decides: the
    difference goes to the derivative as the step to 0, and not to another number.

    Parameters
    ----------
    phi
        The loss at an offset.
    slope
        Its derivative at 0, as it is to be checked.
    scale
        An offset over which `phi` changes as losses along lines do.
    eps
        Relative rounding of the loss.
    """
    if not math.isfinite(slope):
        return None
    middle = phi(0.0)

    def compared(step: float) -> tuple[float, float, float]:
        """Return the room that there is at a step, the distance, and the difference."""
        low, high = phi(-step), phi(step)
        difference = (high - low) / (2 * step)
        bend = abs(high - 2 * middle + low) / step
        rounding = 8 * eps * max(abs(low), abs(middle), abs(high)) / step
        room = 0.75 * bend + rounding + 30 * eps ** (2 / 3) * max(abs(slope), abs(difference))
        return room, abs(slope - difference), difference

    best, found = scale * eps ** (1 / 3), []
    for step in (5 * best, best, 25 * best, best / 5):
        room, off, difference = compared(step)
        if math.isfinite(room):
            found.append((room, off, difference, step))
            if room <= 0.01 * max(abs(slope), abs(difference)):
                break
    if not found:
        return None
    room, off, difference, step = min(found)
    if off <= room:
        return None
    room, nearer, _ = compared(step / 3)
    return difference if nearer > max(room, off / 4) else None


def differentiable(
    model: nn.Module, batches: Iterable[tuple[Any, Tensor]], loss: Any, names: Sequence[str] | None = None
) -> nn.Module:
    """Return a `standing` copy whose parameters require gradients, which are those of the mean loss.

    Parameters
    ----------
    model
        The network; not changed.
    batches
        Of images and labels; the first is looked at.
    loss
        ``loss(outputs, labels)``: a value an image.
    names
        The parameters to differentiate by; None: all.

    Raises
    ------
    ValleysError
        As `standing` and `check`; and when the loss changes otherwise along its gradient, or changes with a
        parameter that torch gives no gradient for.
    """
    net = standing(model)
    images, labels = next(iter(batches))
    eps = check(net, images, model)
    for parameter in filter(movable, net.parameters()):
        parameter.requires_grad_(True)
    found = None
    fine = doubled(net, images)
    if fine is not None:
        with contextlib.suppress(Exception):  # of a loss that takes no float64
            found = _hidden_part(*fine, labels, loss, names)
    if found is None:
        coarse = max(eps, 1e-4) if next(net.parameters()).device.type == "cuda" else eps  # TF32
        try:
            found = _hidden_part(net, images, coarse, labels, loss, names)
        except RuntimeError as error:
            reason = line(error)
            raise ValleysError(f"network: torch cannot differentiate it ({reason}); {NO_GRADIENT}") from error
    if found:
        raise ValleysError(f"{found}; {NO_GRADIENT}")
    return net


def doubled(net: nn.Module, images: Any) -> tuple[nn.Module, Any, float] | None:
    """Return a copy in float64, its images, and the rounding that is left; None if it takes no float64.

    Differences of losses say little in float32: rounding over the step is as large as a slope's error may be.
    """
    try:
        made = twin(net).double()
        converted = torch.utils._pytree.tree_map(_double, images)
        with torch.no_grad(), _Watch() as watch:
            made(_copied(converted))
    except Exception:
        return None
    return made, converted, watch.eps


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _hidden_part(
    net: nn.Module, images: Any, eps: float, labels: Tensor, loss: Any, names: Sequence[str] | None
) -> str:
    """Say why the gradient by torch is not that of the mean loss of a batch; empty if it is."""
    own = {n: p for n, p in net.named_parameters() if p.requires_grad and (names is None or n in set(names))}

    def value() -> Tensor:
        return loss(net(_copied(images)), labels).mean()

    at_start = value()
    grads = torch.autograd.grad(at_start, list(own.values()), allow_unused=True)
    gradient = {name: g for name, g in zip(own, grads, strict=True) if g is not None}
    before = {name: parameter.detach().clone() for name, parameter in own.items()}
    size, length = norm(gradient.values()), norm(before.values())

    def phi(offset: float) -> float:
        for name, g in gradient.items():
            own[name].data.copy_(before[name]).add_(g / size, alpha=offset)
        return float(value())

    with torch.no_grad():
        if size > 0 and math.isfinite(size):
            other = differs(phi, size, (length or 1.0) / 50, eps)
            put_back(own, before)
            if other is not None:
                return hidden(size, other)
        unused = [name for name in own if name not in gradient]
        if unused:
            kept = _floats(net(_copied(images)))
            _shake({name: own[name] for name in unused}, before, MOVE)
            apart = _distance(kept, _floats(net(_copied(images))))
            put_back(own, before)
            if apart > 20 * eps:
                return (
                    f"network: torch gives no gradient for {unused[0]}, but outputs depend on it: forward "
                    "hides it from differentiation (no_grad, detach, .data, numpy)"
                )
    return ""


def hidden(slope: float, difference: float) -> str:
    """Return the message for a derivative that is not the one of the losses."""
    return (
        f"network: the derivative of the loss by torch, {slope:.6g}, is not that of its values, "
        f"{difference:.6g}: a part of forward is hidden from differentiation or has a gradient of its own "
        "(detach, no_grad, inference_mode, reentrant checkpointing, straight-through)"
    )


# ---- tensors -----------------------------------------------------------------------------------------------


def _place(tensor: Tensor) -> int:
    """Return where a tensor's memory begins, 0 if it has none of its own."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse, on meta
        return 0


def _places(tensors: Iterable[Tensor]) -> set[int]:
    return {_place(tensor) for tensor in tensors} - {0}


def _held_tensors(module: nn.Module) -> Iterator[tuple[int, Tensor]]:
    """Yield floating tensors and arrays, with their place, that a module has beside its parameters."""
    plain = [value for key, value in vars(module).items() if key not in _HELD]
    for value in [*plain, *module.buffers(recurse=False)]:
        inner = value.values() if isinstance(value, Mapping) else value
        for item in inner if isinstance(inner, list | tuple) or inner is not value else [value]:
            if isinstance(item, np.ndarray) and item.dtype.kind == "f":
                yield item.ctypes.data, torch.from_numpy(item)
            elif isinstance(item, Tensor) and item.is_floating_point():
                yield _place(item), item


def _tensors(value: Any, depth: int = 4) -> list[Tensor]:
    """Return the tensors in what a network takes or returns: a tensor, or a container or object of them."""
    if isinstance(value, Tensor):
        return [value]
    if depth == 0 or isinstance(value, str | bytes | type) or value is None:
        return []
    if isinstance(value, Mapping):
        value = list(value.values())
    elif not isinstance(value, list | tuple):
        value = list(getattr(value, "__dict__", {}).values())
    return [tensor for item in value for tensor in _tensors(item, depth - 1)]


def _floats(outputs: Any) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in _tensors(outputs) if tensor.is_floating_point()]


def _copied(images: Any) -> Any:
    return torch.utils._pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, images)


def _rows(tensor: Tensor, count: int) -> bool:
    return tensor.dim() > 0 and len(tensor) == count


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same values, NaN where the other has it."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if torch.equal(a, b):
        return True
    return bool(a.is_floating_point() and ((a == b) | (a.isnan() & b.isnan())).all())


def _equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(_same(a, b) for a, b in zip(first, second, strict=True))


def _distance(first: list[Tensor], second: list[Tensor]) -> float:
    """Return the greatest difference relative to the greatest value; infinite if shapes or NaN differ."""
    greatest = 0.0
    if len(first) != len(second):
        return math.inf
    for a, b in zip(first, second, strict=True):
        if _same(a, b):
            continue
        if a.shape != b.shape or not torch.equal(a.isfinite(), b.isfinite()):
            return math.inf
        a, b = (t[t.isfinite()].double() for t in (a, b))
        if a.numel():
            size = float(torch.maximum(a.abs().max(), b.abs().max()))
            greatest = max(greatest, float((a - b).abs().max()) / size if size else 0.0)
    return greatest


def put_back(state: Mapping[str, Tensor], before: Mapping[str, Any]) -> None:
    """Give tensors the values that are there by their names; those without one stay."""
    for name, tensor in state.items():
        if name not in before:
            continue
        if tensor.shape == before[name].shape:
            tensor.data.copy_(before[name])  # in place, as other tensors may be views of it
        else:
            tensor.data = before[name].clone()


def _shake(own: Mapping[str, Tensor], before: Mapping[str, Tensor], size: float) -> None:
    """Set each parameter to what it was plus normal numbers, of `size` times its root mean square."""
    generator = torch.Generator()
    for i, (name, parameter) in enumerate(own.items()):
        start = before[name]
        if start.numel() and movable(start):
            generator.manual_seed(i)
            root = float(torch.linalg.vector_norm(start)) / math.sqrt(start.numel())
            noise = torch.randn(start.shape, generator=generator).to(start)
            torch.add(start, noise, alpha=size * (root or MOVE), out=parameter.data)


def movable(tensor: Tensor) -> bool:
    """Whether a tensor is of real or complex numbers, so that there is a line through it."""
    return tensor.is_floating_point() or tensor.is_complex()


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, or complex128."""
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def real(tensor: Tensor) -> Tensor:
    """Return a tensor's real numbers: (..., 2) of complex ones."""
    return torch.view_as_real(tensor.detach().resolve_conj()) if tensor.is_complex() else tensor.detach()


def norm(tensors: Iterable[Tensor]) -> float:
    """Return the 2-norm of all entries of some tensors together, in float64."""
    return math.sqrt(sum(float(real(t).double().square().sum()) for t in tensors))


def _leaf(tensor: Tensor) -> str:
    """Return the shape of a leaf that a tensor was computed from."""
    seen, todo = set(), [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            return f"of shape {tuple(node.variable.shape)}"
        todo += [edge for edge, _ in node.next_functions]
    return f"of shape {tuple(tensor.shape)}"


# ---- random numbers ----------------------------------------------------------------------------------------


def _random_numbers(device: torch.device) -> list[Any]:
    own = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return [torch.get_rng_state(), own, random.getstate(), np.random.get_state()]


def _random_numbers_equal(first: list[Any], second: list[Any]) -> bool:
    return (
        torch.equal(first[0], second[0])
        and (first[1] is None or torch.equal(first[1], second[1]))
        and first[2] == second[2]
        and all(np.array_equal(a, b) for a, b in zip(first[3], second[3], strict=True))
    )


@contextlib.contextmanager
def random_numbers_kept(device: torch.device) -> Iterator[None]:
    """Leave the random numbers of torch, Python and numpy as they were before the block."""
    cpu, own, python, numpy = _random_numbers(device)
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        if own is not None:
            torch.cuda.set_rng_state(own, device)
        random.setstate(python)
        np.random.set_state(numpy)
