"""Random pictures, files of them, and the one line of an error, shared by tests of data sources."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from valleys.data.sources.load import load_source
from valleys.errors import ValleysError


def fails(spec, *words):
    """Load, expect the error, and check that it is one line with the words."""
    with pytest.raises(ValleysError) as caught:
        load_source(spec)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def pictures(n, height=5, width=4, channels=3, seed=0):
    """Random uint8 images (N, H, W, C), or (N, H, W) for one channel."""
    shape = (n, height, width) if channels == 1 else (n, height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def png(pixels, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels, **options).save(stream, "PNG")
    return stream.getvalue()


def chw(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def save_npz(folder, **parts):
    """Write train.npz and test.npz and return the options that read them."""
    for part in ("train", "test"):
        images, labels = parts.get(part, (pictures(6), np.array([0, 1, 2, 0, 1, 2])))
        np.savez(folder / f"{part}.npz", images=images, labels=labels)
    return {"source": "numpy", "train": str(folder / "train.npz"), "test": str(folder / "test.npz")}
