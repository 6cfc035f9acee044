"""Inputs that are no single tensor: of a batch of a dict, a tuple or an object, what a network is given."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a structure (containers or objects of tensors) with its tensors changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Inputs):
        return value.map(change)
    if isinstance(value, Mapping):
        new = copy.copy(value)
        for key, item in value.items():
            new[key] = mapped(item, change)  # type: ignore[index]
        return new
    if isinstance(value, tuple | list):
        items = [mapped(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{f.name: mapped(getattr(value, f.name), change) for f in fields(value) if f.init}
        )
    if hasattr(value, "__dict__") and any(isinstance(item, Tensor) for item in vars(value).values()):
        new = copy.copy(value)
        vars(new).update({key: mapped(item, change) for key, item in vars(value).items()})
        return new
    return value


def leaves(value: Any) -> list[Tensor]:
    """Return the tensors of a structure, in order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    mapped(value, note)
    return found


class Inputs:
    """What a network is given of `count` examples: a structure of tensors, most with a row an example.

    It stands where a tensor of images may: it has a length, rows, a device, a copy. Tensors without a row an
    example (a mask of positions, a temperature) and what is no tensor go with every part of it as they are.

    Parameters
    ----------
    value
        A tensor; a mapping, tuple, list, dataclass or object of such; nested as one likes.
    count
        The number of examples.
    """

    def __init__(self, value: Any, count: int) -> None:
        self.value, self.count = value, count

    def __len__(self) -> int:
        """Return the number of examples."""
        return self.count

    def __getitem__(self, index: Any) -> Inputs:
        """Return the examples at a slice, a number or a tensor of numbers."""
        if isinstance(index, int):
            index = slice(index, index + 1)
        rows = torch.arange(self.count)[index.cpu() if isinstance(index, Tensor) else index]

        def taken(tensor: Tensor) -> Tensor:
            if not (tensor.dim() and len(tensor) == self.count):
                return tensor
            return tensor[index.to(tensor.device) if isinstance(index, Tensor) else index]

        return Inputs(mapped(self.value, taken), len(rows))

    def map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """Return the same structure with its tensors changed."""
        return Inputs(mapped(self.value, change), self.count)

    def clone(self) -> Inputs:
        """Return a copy that shares no memory."""
        return self.map(torch.clone)

    def to(self, where: torch.device | torch.dtype | str) -> Inputs:
        """Return it on a device; or its floating-point tensors in another number format."""
        kind = isinstance(where, torch.dtype)
        return self.map(lambda t: t if kind and not t.is_floating_point() else t.to(where))

    @property
    def tensors(self) -> list[Tensor]:
        """Its tensors, in order."""
        return leaves(self.value)

    @property
    def device(self) -> torch.device:
        """Where its first tensor is."""
        return self.tensors[0].device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of its first floating-point tensor; else of its first tensor."""
        found = self.tensors
        return next((t for t in found if t.is_floating_point()), found[0]).dtype

    @property
    def shape(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of its tensors."""
        return tuple(tuple(t.shape) for t in self.tensors)

    def numel(self) -> int:
        """Return how many numbers its tensors have together."""
        return sum(t.numel() for t in self.tensors)

    def element_size(self) -> int:
        """Return the bytes of its widest number."""
        return max(t.element_size() for t in self.tensors)

    def dim(self) -> tuple[int, ...]:
        """Return the number of dimensions of each of its tensors."""
        return tuple(t.dim() for t in self.tensors)

    def is_floating_point(self) -> bool:
        """Return whether it has floating-point tensors."""
        return any(t.is_floating_point() for t in self.tensors)


def _flatten(inputs: Inputs) -> tuple[list[Tensor], Inputs]:
    return inputs.tensors, inputs


def _unflatten(tensors: Any, inputs: Inputs) -> Inputs:
    given = iter(tensors)
    return inputs.map(lambda _: next(given))


_pytree.register_pytree_node(Inputs, _flatten, _unflatten)
