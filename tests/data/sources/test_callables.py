"""Images that a user's function returns: arrays or tensors, and what is neither."""

import sys

import pytest
import torch
from source_images import fails
from valleys.data.sources.load import load_source

OWN = """
import numpy as np
import torch

def arrays(n=6, classes=3, dtype="uint8", channels=3, shape=None):
    shape = shape or (n, 5, 4, channels)
    images = (np.arange(int(np.prod(shape))) % 251).astype(dtype).reshape(shape)
    labels = np.arange(n) % classes
    return (images, labels), (images[:3], labels[:3])

def tensors(layout="CHW"):
    return tuple(
        tuple(map(torch.from_numpy, (images if layout == "HWC" else images.transpose(0, 3, 1, 2), labels)))
        for images, labels in arrays(shape=(6, 8, 8, 3))
    )

def grey():
    return tuple((images[..., 0], list(labels)) for images, labels in arrays())

def three():
    return [arrays()[0]] * 3

def none():
    pass

def lists():
    return tuple((images.tolist(), labels) for images, labels in arrays())

def brain(): return tuple((torch.rand(4, 1, 8, 8, dtype=torch.bfloat16), torch.arange(4)) for _ in "ab")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_data_under_test.py").write_text(OWN)

    def spec(name, **kwargs):
        return {"source": "callable", "factory": f"own_data_under_test:{name}", "kwargs": kwargs}

    yield spec
    sys.modules.pop("own_data_under_test", None)


def test_a_callable_returns_arrays_or_tensors(own):
    train, test = load_source(own("arrays", n=9))
    assert (train.in_shape, train.classes, len(train), len(test)) == ((3, 5, 4), 3, 9, 3)
    assert train.images[0, 1].flatten().tolist() == list(range(1, 60, 3)), "channels are not the last axis"
    as_arrays, as_tensors = (load_source(own(*args))[0] for args in (["arrays"], ["tensors"]))
    assert as_tensors.in_shape == (3, 8, 8)
    assert as_tensors.images[0, 1].flatten().tolist() == list(range(1, 192, 3))
    grey, _ = load_source(own("grey"))
    assert torch.equal(grey.images[:, 0], as_arrays.images[:, 0])
    assert torch.equal(grey.labels, as_arrays.labels)
    assert len(load_source({**own("arrays"), "max_train": 4})[0]) == 4
    brain, _ = load_source(own("brain"))  # bfloat16, which numpy has not
    assert (brain.images.dtype, brain.in_shape) == (torch.float32, (1, 8, 8))


@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        (
            "arrays",
            {"dtype": "float32"},
            ["train", "inputs have the shape (6, 5, 4, 3)", "channels must come first"],
        ),
        ("arrays", {"shape": (6, 3, 8, 8)}, ["channels must come last", "(N, H, W, C)"]),
        ("arrays", {"n": 6, "shape": (5, 5, 4, 3)}, ["5 images but 6 labels"]),
        ("arrays", {"classes": 1}, ["every training label", "two classes"]),
        ("arrays", {"size": 1}, ["called with (size=1)", "TypeError", "'size'"]),
        ("tensors", {"layout": "HWC"}, ["channels must come first", "(N, C, H, W)"]),
        ("three", {}, ["returns list that is no pair of pairs", "(train images, labels), (test images"]),
        ("none", {}, ["returns NoneType that is no pair of pairs"]),
        ("lists", {}, ["images are a list", "numpy array or a torch tensor"]),
        ("nowhere", {}, ["there is no 'nowhere' in own_data_under_test"]),
    ],
)
def test_what_a_callable_returns_is_checked(own, name, kwargs, words):
    fails(own(name, **kwargs), *words)
