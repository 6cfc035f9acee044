"""Copies of a network that can be moved, and weights put into one.

A curve, a plane and a Hessian move a copy (`twin`); the caller's own network is never touched.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from valleys.errors import ValleysError
from valleys.networks.tensors import HELD, address_of, addresses_of, movable, put_back, same_values

#: Size of a move of the weights, as a share of each tensor's root mean square.
MOVE = 0.05


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
    shared = addresses_of(own.values()) & addresses_of(new.values())
    if shared:
        name = next(n for n, p in own.items() if address_of(p) in shared)
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
        n
        for n in dict.fromkeys([*own, *new])
        if n not in own or n not in new or not same_values(own[n], new[n])
    ]
    if changed:
        refuse_folded(f"parameter {changed[0]}")
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


def refuse_folded(what: str) -> None:
    """Raise the error of a network whose weights change with its mode."""
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
            if key not in HELD and not _copies(value):
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


class Watch(TorchDispatchMode):
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
        """Run one operator and note what it changed in place."""
        kwargs = kwargs or {}
        for tensor in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self.touched.add(address_of(tensor))
                if movable(tensor) and tensor.dim():
                    self.eps = max(self.eps, torch.finfo(tensor.dtype).eps)
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.random[str(func).removeprefix("aten.").split(".")[0]] = None
        return func(*args, **kwargs)


def shake(own: Mapping[str, Tensor], before: Mapping[str, Tensor], size: float) -> None:
    """Set each parameter to what it was plus normal numbers, of `size` times its root mean square."""
    generator = torch.Generator()
    for i, (name, parameter) in enumerate(own.items()):
        start = before[name]
        if start.numel() and movable(start):
            generator.manual_seed(i)
            root = float(torch.linalg.vector_norm(start)) / math.sqrt(start.numel())
            noise = torch.randn(start.shape, generator=generator).to(start)
            torch.add(start, noise, alpha=size * (root or MOVE), out=parameter.data)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block `model` is in eval mode; after it every module is in the mode that it was in."""
    before = {module: module.training for module in model.modules()}
    own = model.training
    try:
        model.eval()
        yield
    finally:
        if own:  # a network's own train() may do more, as undo what its eval() did
            model.train()
        for module, training in before.items():
            if module.training != training:
                module.training = training
