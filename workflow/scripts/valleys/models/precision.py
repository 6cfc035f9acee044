"""The number format of a network's passes: ``fp32``, or ``bf16`` by autocast. Weights stay in fp32."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from valleys.errors import ValleysError

PRECISIONS = ("fp32", "bf16")


def autocast(device: torch.device | str, precision: str) -> contextlib.AbstractContextManager[object]:
    """Return a context in which a network's matrix products and convolutions are of this precision.

    Parameters
    ----------
    device
        Where the network is.
    precision
        ``fp32``: as the weights are. ``bf16``: operands of convolutions and matrix products are rounded to
        bfloat16 (8 bits of mantissa), products accumulated in float32; what torch's autocast keeps in float32
        stays so. Weights are perturbed, averaged and updated in float32 all the same.

    Raises
    ------
    ValleysError
        For any other precision.
    """
    if precision not in PRECISIONS:
        raise ValleysError(f"precision: {precision!r} is none; choose fp32 or bf16")
    if precision == "fp32":
        return contextlib.nullcontext()
    # Without the cache: it would keep the bfloat16 copies of weights that a probe has moved meanwhile.
    return torch.autocast(torch.device(device).type, torch.bfloat16, cache_enabled=False)


def at_least_fp32(logits: Tensor) -> Tensor:
    """Return logits in float32 at least: losses are taken in full precision."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
