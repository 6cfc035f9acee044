"""Batch norm: which layers there are, and whether their statistics can be recomputed (`bn_refresh`)."""

from __future__ import annotations

import contextlib
import copy
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from valleys.errors import ValleysError
from valleys.networks.tensors import floats_in


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch-norm layers of `model` that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def bn_policy(model: nn.Module, bn: str) -> str:
    """Return `bn` for a network with batch norm, ``none`` for one without.

    Parameters
    ----------
    bn
        ``refreshed`` or ``frozen``.

    Raises
    ------
    ValleysError
        When a batch-norm layer keeps no running statistics, which makes its output hang on the batch in eval
        mode too; for ``refreshed``, as `check_bn`.
    """
    if bn == "refreshed":
        check_bn(model)
    elif untracked := next((p for p in _problems(model) if p.always), None):
        raise ValleysError(f"batch-norm layer {untracked.layer} {untracked.what}")
    return bn if batch_norms(model) or has_unseen_bn(model) else "none"


def has_unseen_bn(model: nn.Module) -> bool:
    """Whether `check_bn` raises: batch norm that can be frozen, but not refreshed."""
    return any(True for _ in _problems(model))


def check_bn(model: nn.Module) -> None:
    """Raise when `model` has batch norm whose statistics cannot be recomputed, as far as its layers show.

    What only a pass shows, a pass finds: a layer used twice, one that normalises in a way of its own, and a
    call of ``F.batch_norm`` that takes each batch's own statistics in eval mode.

    Raises
    ------
    ValleysError
        For a layer without running statistics, with those of another layer, or one that is lazy and has seen
        no batch; for batch norm in a scripted, traced or exported network, which cannot be seen into, or of
        the user's own making.
    """
    for problem in _problems(model):
        raise ValleysError(f"batch-norm layer {problem.layer} {problem.what}")


class _Problem(NamedTuple):
    layer: str
    what: str
    always: bool = False  # also where statistics are not refreshed


def _problems(model: nn.Module) -> Iterator[_Problem]:
    """Yield what is wrong with batch-norm layers, in words that follow the layer's name."""
    owners: dict[Any, str] = {}
    closed: list[str] = []
    for name, module in model.named_modules():
        name = name or type(module).__name__
        if any(name.startswith(prefix) for prefix in closed):
            continue
        if isinstance(module, torch.jit.ScriptModule):
            closed.append(f"{name}." if "." in name or module is not model else "")
            if _compiled_batch_norm(module):
                how = "is in TorchScript, which cannot be seen into; give the network that it was made of"
                yield _Problem(f"of {name}", how)
        elif isinstance(module, torch.fx.GraphModule) and _traced_batch_norm(module):
            how = "is part of a traced graph, not a layer; give the network that it was made of"
            yield _Problem(f"of {name}", how)
        elif isinstance(module, _BatchNorm):
            if any(map(is_lazy, [*module.parameters(), *module.buffers()])):
                yield _Problem(name, "is lazy and has seen no batch; run one through the network first", True)
            elif module.running_mean is None or module.running_var is None:
                yield _Problem(name, "keeps no running statistics; set track_running_stats", True)
            else:
                other = owners.setdefault(memory_key(module.running_mean), name)
                if other != name:
                    yield _Problem(name, f"has the running statistics of {other}; give it its own")
        elif not isinstance(module, _InstanceNorm) and _updates_statistics(module):
            yield _Problem(
                name,
                f"is a {type(module).__name__} with statistics of its own, which cannot be recomputed; "
                "derive it from torch's BatchNorm1d to 3d, or leave them as stored (bn: frozen)",
            )


def memory_key(tensor: Tensor) -> tuple[int, int]:
    """Return what tells one tensor in memory from another: its address and size."""
    return tensor.data_ptr(), tensor.numel()


def _compiled_batch_norm(module: torch.jit.ScriptModule) -> bool:
    if any(name.endswith("running_mean") for name, _ in module.named_buffers()):
        return True
    with contextlib.suppress(Exception):  # a container has no forward and so no graph
        return "batch_norm(" in str(module.inlined_graph)
    return False


def _traced_batch_norm(module: torch.fx.GraphModule) -> bool:
    called = (n.target for n in module.graph.nodes if n.op == "call_function")
    return any("batch_norm" in getattr(f, "__name__", str(f)) for f in called)


def _updates_statistics(module: nn.Module) -> bool:
    """Whether a module that is none of torch's keeps statistics of what it is given in train mode.

    Eval mode is to depend on them: a queue that only training reads is none. Nor are constants (torchvision's
    FrozenBatchNorm2d). A copy is tried on noise. Where none of the shapes tried fits it, names decide.
    """
    own = {n: t for n, t in module.named_buffers(recurse=False) if t.is_floating_point()}
    if not own or type(module).__module__.startswith("torch."):
        return False
    named = [name for name, t in own.items() if t.dim() and re.search("mean|var|std", name)]
    by_name = len(named) > 1 and any("mean" in name for name in named)
    if not by_name and (module._forward_hooks or module._forward_pre_hooks):
        return False  # they would see noise; spectral norm is such a one
    tensors = [*own.values(), *module.parameters(recurse=False)]
    channels = dict.fromkeys(t.numel() if t.dim() == 1 else max(t.shape) for t in tensors if t.dim())
    with torch.random.fork_rng(devices=[]), torch.no_grad(), contextlib.suppress(Exception):
        fresh = copy.deepcopy(module).eval()
        for area, size in itertools.product(((), (3, 3), (3,), (3, 3, 3)), channels or (4,)):
            with contextlib.suppress(Exception):
                noise = torch.randn(4, size, *area).to(next(iter(own.values())))
                return _follows(module, fresh, own, noise)
    return by_name


def _follows(module: nn.Module, fresh: nn.Module, own: Mapping[str, Tensor], images: Tensor) -> bool:
    """Whether a pass in train mode changes buffers of a module on which its outputs in eval mode depend.

    `fresh` is a copy in eval mode.
    """
    before = [t.clone() for t in floats_in(fresh(images))]
    if not all(torch.equal(getattr(fresh, name), buffer) for name, buffer in own.items()):
        return False  # it changes in eval mode too, of which `checks.check` says more
    trained = copy.deepcopy(module).train()
    trained(images)
    for name, buffer in own.items():
        getattr(fresh, name).copy_(getattr(trained, name))
        if not torch.equal(getattr(trained, name), buffer):
            after = floats_in(fresh(images))
            if not all(map(torch.equal, before, after)):
                return True
    return False
