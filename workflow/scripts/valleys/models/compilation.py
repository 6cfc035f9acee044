"""`torch.compile` of a network's passes (``execution.compile``): fused kernels and, on a GPU, CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from valleys.errors import ValleysError

Forward = Callable[[Tensor], Tensor]


def forward_of(model: nn.Module, compiled: bool) -> Forward:
    """Return what to call in place of `model`: the network itself, or a compiled form of it.

    The compiled form computes with `model`'s own parameters and buffers, also after they were changed in
    place, and in the mode that `model` is in. The first call of each shape compiles (seconds to minutes); on
    a GPU it is then replayed as a CUDA graph, which spares small networks the time to launch their kernels.
    Results differ from the network's own in the last bits, as those of another device do.

    Parameters
    ----------
    model
        Used, not changed. What replaces its layers' ``forward`` (`bn_refresh.refresh_bn`) calls it itself.
    compiled
        ``False``: return `model`.

    Raises
    ------
    ValleysError
        When called, if torch cannot compile the network, which on a CPU takes a C++ compiler.
    """
    if not compiled:
        return model
    # A shape at a time: with torch's own choice, code made for all sizes after the second one, the bits of a
    # resumed run would depend on the size of the batch that it resumed at.
    network = torch.compile(model, dynamic=False, mode="reduce-overhead")

    def forward(images: Tensor) -> Tensor:
        try:
            return network(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            lines = (line.strip() for line in str(error).splitlines())
            reasons = (
                line for line in lines if line and not line.endswith("raised:")
            )  # by whom, it says there
            reason = next(reasons, type(error).__name__)
            raise ValleysError(
                f"execution.compile: torch cannot compile {type(model).__name__} ({reason}); set it to false"
            ) from error

    return forward
