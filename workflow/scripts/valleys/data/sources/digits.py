"""The digits of scikit-learn: 8x8 images, installed with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from valleys.data.sources.base import Original, cut_at_random
from valleys.errors import ValleysError


def read(spec: Mapping[str, Any]) -> tuple[Original, Original]:
    """Read scikit-learn's digits; values 0..16 become 0..255."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValleysError(
            "the source 'digits' needs scikit-learn; install it with: pip install scikit-learn"
        ) from error
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return cut_at_random(images, digits.target, spec, "digits")
