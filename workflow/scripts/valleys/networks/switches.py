"""torch's switches: modes of a thread or a process that a `with` block around a part of a network sets.

Coroutines on one thread (`averaging`) share them. Each coroutine needs those of its own blocks while it runs,
and whoever runs meanwhile needs his: `Switches()` reads them all, `Switches.set` sets them, and
`Switches.hold` tells in a microsecond or two whether all are as they were, as they nearly always are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.utils._device
from torch import overrides
from torch.utils import _python_dispatch

_autograd = torch._C._autograd
Setter = Callable[[Any], object]


def _function_modes(modes: list[Any]) -> None:
    while overrides._get_current_function_mode_stack():
        overrides._pop_mode()
    for mode in modes:
        overrides._push_mode(mode)


def _dispatch_modes(modes: list[Any]) -> None:
    while _python_dispatch._get_current_dispatch_mode_stack():
        _python_dispatch._pop_mode()
    for mode in modes:
        _python_dispatch._push_mode(mode)


def _saved_tensor_hooks() -> list[Any]:
    """Return the hooks for what autograd saves, the innermost last."""
    found: list[Any] = []
    while (top := _autograd._top_saved_tensors_default_hooks(True)) is not None:
        found.insert(0, top)
        _autograd._pop_saved_tensors_default_hooks()
    for pair in found:
        _autograd._push_saved_tensors_default_hooks(*pair)
    return found


def _set_saved_tensor_hooks(hooks: list[Any]) -> None:
    while _autograd._top_saved_tensors_default_hooks(True) is not None:
        _autograd._pop_saved_tensors_default_hooks()
    for pair in hooks:
        _autograd._push_saved_tensors_default_hooks(*pair)


def _autocast(device: str) -> list[tuple[Callable[[], Any], Setter]]:
    return [
        (partial(torch.is_autocast_enabled, device), partial(torch.set_autocast_enabled, device)),
        (partial(torch.get_autocast_dtype, device), partial(torch.set_autocast_dtype, device)),
    ]


def _set_device(device: Any) -> None:
    torch.utils._device.CURRENT_DEVICE = device


#: How each is read and set. Modes last: while one is on it sees what torch is asked for, these too.
_ALL: list[tuple[Callable[[], Any], Setter]] = [
    (torch.is_grad_enabled, torch._C._set_grad_enabled),
    (torch._C._is_fwd_grad_enabled, torch._C._set_fwd_grad_enabled),
    *_autocast("cpu"),
    *_autocast("cuda"),
    (torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch._C._get_flash_sdp_enabled, torch._C._set_sdp_use_flash),
    (torch._C._get_mem_efficient_sdp_enabled, torch._C._set_sdp_use_mem_efficient),
    (torch._C._get_math_sdp_enabled, torch._C._set_sdp_use_math),
    (torch._C._get_cudnn_sdp_enabled, torch._C._set_sdp_use_cudnn),
    (_saved_tensor_hooks, _set_saved_tensor_hooks),
    (lambda: torch.utils._device.CURRENT_DEVICE, _set_device),
    (_python_dispatch._get_current_dispatch_mode_stack, _dispatch_modes),
    (overrides._get_current_function_mode_stack, _function_modes),
]


_READ, _WRITE = zip(*_ALL, strict=True)
#: Those that are neither modes nor of autocast.
_FLAGS = [
    torch.is_grad_enabled,
    torch._C._is_fwd_grad_enabled,
    torch.get_default_dtype,
    torch._C._get_flash_sdp_enabled,
    torch._C._get_mem_efficient_sdp_enabled,
    torch._C._get_math_sdp_enabled,
    torch._C._get_cudnn_sdp_enabled,
]


def _on(
    inference: Callable[[], bool] = torch.is_inference_mode_enabled,
    autocast: Callable[[], bool] = torch._C._is_any_autocast_enabled,
    hooks: Callable[[bool], object] = _autograd._top_saved_tensors_default_hooks,
    functions: Callable[[], int] = torch._C._len_torch_function_stack,
    dispatches: Callable[[], int] = torch._C._len_torch_dispatch_stack,
) -> bool:
    """Whether any switch is on that takes long to compare: the others are flags."""
    return bool(inference() or autocast() or functions() or dispatches() or hooks(True) is not None)


class Switches:
    """The switches as they are when this is made."""

    def __init__(self) -> None:
        self.inference = torch.is_inference_mode_enabled()
        self.values = [read() for read in _READ]
        self.plain = not _on()
        self.flags = [read() for read in _FLAGS]

    def hold(self) -> bool:
        """Whether the switches are these now."""
        if self.plain:
            return not _on() and self.flags == [read() for read in _FLAGS]
        now = Switches()
        return self.inference == now.inference and self.values == now.values

    def set(self) -> None:
        """Set the switches so again, but for inference mode (`instead`)."""
        for read, write, value in zip(_READ, _WRITE, self.values, strict=True):
            if read() != value:
                write(value)

    @contextlib.contextmanager
    def instead(self, there: Switches) -> Iterator[None]:
        """Within the block, the switches are `there`; after it these, which they were when it began.

        The block must leave them as it finds them.
        """
        # Inference mode has no setter: its guard changes it, and puts back what it found when it is left.
        inference = torch.inference_mode(there.inference) if self.inference != there.inference else None
        if inference is not None:
            inference.__enter__()
        there.set()
        try:
            yield
        finally:
            if inference is not None:
                inference.__exit__(None, None, None)
            self.set()
