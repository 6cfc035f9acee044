"""Tensors of a network by name, compared, copied and put back; no passes."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from valleys.errors import ValleysError

HELD = {"_parameters", "_buffers", "_modules"}


# ---- tensors -----------------------------------------------------------------------------------------------


def address_of(tensor: Tensor) -> int:
    """Return where a tensor's memory begins, 0 if it has none of its own."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse, on meta
        return 0


def addresses_of(tensors: Iterable[Tensor]) -> set[int]:
    """Return the addresses of the memory that tensors have."""
    return {address_of(tensor) for tensor in tensors} - {0}


def held_tensors(module: nn.Module) -> Iterator[tuple[int, Tensor]]:
    """Yield floating tensors and arrays, with their place, that a module has beside its parameters."""
    plain = [value for key, value in vars(module).items() if key not in HELD]
    for value in [*plain, *module.buffers(recurse=False)]:
        inner = value.values() if isinstance(value, Mapping) else value
        for item in inner if isinstance(inner, list | tuple) or inner is not value else [value]:
            if isinstance(item, np.ndarray) and item.dtype.kind == "f":
                yield item.ctypes.data, torch.from_numpy(item)
            elif isinstance(item, Tensor) and item.is_floating_point():
                yield address_of(item), item


def tensors_in(value: Any, depth: int = 4) -> list[Tensor]:
    """Return the tensors in what a network takes or returns: a tensor, or a container or object of them."""
    if isinstance(value, Tensor):
        return [value]
    if depth == 0 or isinstance(value, str | bytes | type) or value is None:
        return []
    if isinstance(value, Mapping):
        value = list(value.values())
    elif not isinstance(value, list | tuple):
        value = list(getattr(value, "__dict__", {}).values())
    return [tensor for item in value for tensor in tensors_in(item, depth - 1)]


def floats_in(outputs: Any) -> list[Tensor]:
    """Return copies of the floating-point tensors in outputs."""
    return [tensor.detach().clone() for tensor in tensors_in(outputs) if tensor.is_floating_point()]


def copied(images: Any) -> Any:
    """Return images, or a structure of them, with tensors copied."""
    return torch.utils._pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, images)


def has_rows(tensor: Tensor, count: int) -> bool:
    """Return whether a tensor has a row for each of `count` images."""
    return tensor.dim() > 0 and len(tensor) == count


def same_values(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same values, NaN where the other has it."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if torch.equal(a, b):
        return True
    return bool(a.is_floating_point() and ((a == b) | (a.isnan() & b.isnan())).all())


def equal_values(first: list[Tensor], second: list[Tensor]) -> bool:
    """Return whether two lists have the same tensors, NaN equal to NaN."""
    return len(first) == len(second) and all(same_values(a, b) for a, b in zip(first, second, strict=True))


def distance(first: list[Tensor], second: list[Tensor]) -> float:
    """Return the greatest difference relative to the greatest value; infinite if shapes or NaN differ."""
    greatest = 0.0
    if len(first) != len(second):
        return math.inf
    for a, b in zip(first, second, strict=True):
        if same_values(a, b):
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


def movable(tensor: Tensor) -> bool:
    """Whether a tensor is of real or complex numbers, so that there is a line through it."""
    return tensor.is_floating_point() or tensor.is_complex()


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, or complex128."""
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def real(tensor: Tensor) -> Tensor:
    """Return a tensor's real numbers: (..., 2) of complex ones."""
    return torch.view_as_real(tensor.detach().resolve_conj()) if tensor.is_complex() else tensor.detach()


def vector_norm(tensors: Mapping[str, Tensor]) -> float:
    """Return the 2-norm of all entries of `tensors` together, in float64."""
    return math.sqrt(sum(float(real(t).double().square().sum()) for t in tensors.values()))


def leaf_shape(tensor: Tensor) -> str:
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


def random_numbers(device: torch.device) -> list[Any]:
    """Return the state of the random generators that a network may draw from."""
    own = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return [torch.get_rng_state(), own, random.getstate(), np.random.get_state()]


def random_numbers_equal(first: list[Any], second: list[Any]) -> bool:
    """Return whether two states of the random generators are the same."""
    return (
        torch.equal(first[0], second[0])
        and (first[1] is None or torch.equal(first[1], second[1]))
        and first[2] == second[2]
        and all(np.array_equal(a, b) for a, b in zip(first[3], second[3], strict=True))
    )


@contextlib.contextmanager
def random_numbers_kept(device: torch.device) -> Iterator[None]:
    """Leave the random numbers of torch, Python and numpy as they were before the block."""
    cpu, own, python, numpy = random_numbers(device)
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        if own is not None:
            torch.cuda.set_rng_state(own, device)
        random.setstate(python)
        np.random.set_state(numpy)


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
