"""Images and labels that a user's own function returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from valleys import factories
from valleys.data.sources.base import Original, channels_first, check_arrays, from_array
from valleys.errors import ValleysError


def read(spec: Mapping[str, Any]) -> tuple[Original, Original]:
    """Call a user's own function and check what it returns."""
    factory, wanted = spec["factory"], "it must return (train images, labels), (test images, labels)"
    parts = factories.call(factory, factories.resolve(factory), spec["kwargs"])
    try:
        (train, test) = ((images, labels) for images, labels in parts)
    except (TypeError, ValueError) as error:
        raise ValleysError(
            f"factory {factory!r} returns {type(parts).__name__} that is no pair of pairs; {wanted}"
        ) from error
    return _returned(*train, f"factory {factory!r}, train"), _returned(*test, f"factory {factory!r}, test")


def _returned(images: Any, labels: Any, where: str) -> Original:
    """Check one part's images and labels, arrays or tensors, and wrap them."""
    arrays = []
    for name, value in (("images", images), ("labels", labels)):
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
            value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        elif not isinstance(value, np.ndarray) and not (name == "labels" and isinstance(value, list | tuple)):
            raise ValleysError(
                f"{where}: {name} are a {type(value).__name__}; they must be a numpy array or a torch tensor"
            )
        arrays.append(np.asarray(value))
    layout = "CHW" if isinstance(images, torch.Tensor) else "HWC"
    pixels, numbers = arrays
    check_arrays(where, pixels.dtype, pixels.shape, numbers.dtype, numbers.shape, layout)
    if layout == "CHW":
        return from_array(pixels[:, None] if pixels.ndim == 3 else pixels, numbers, where)
    return from_array(channels_first(pixels), numbers, where)
