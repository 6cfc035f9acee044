"""The digits of scikit-learn: 8x8 images, installed with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from valleys.data.sources.base import Original, from_array
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
    order = np.random.default_rng(spec["split_seed"]).permutation(len(images))
    parts = order[: spec["train_size"]], order[spec["train_size"] :]
    return tuple(
        from_array(images[rows], digits.target[rows], f"digits {name}")
        for rows, name in zip(parts, ("train", "test"), strict=True)
    )
