"""A split: images as floats, statistics, subsets, and what it refuses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from random_splits import make_split
from valleys.data.split import Split, channel_statistics, subset_indices
from valleys.errors import ValleysError

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"


def test_importing_needs_no_reader_of_originals():
    code = (
        "import sys, valleys.data; "
        "print(sorted({'torchvision', 'PIL', 'sklearn', 'pandas', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_floats_are_normalised():
    split = make_split()
    x = split.images.numpy().astype(np.float64) / 255
    mean, std = x.mean(axis=(0, 2, 3)), x.std(axis=(0, 2, 3))
    np.testing.assert_allclose(split.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(split.std, std, rtol=1e-12)
    expected = (x - mean[:, None, None]) / std[:, None, None]
    whole = split.floats(slice(None))
    assert whole.dtype == torch.float32
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    assert torch.equal(split.floats(slice(3, 9)), whole[3:9])
    assert torch.equal(split.floats(7), whole[7])
    index = torch.tensor([4, 1, 4])
    assert torch.equal(split.floats(index), whole[index])


def test_statistics_do_not_depend_on_the_chunk():
    split = make_split(n=37)
    for chunk in (1, 5, 37, 1000):
        assert channel_statistics(split.images, chunk) == (split.mean, split.std)


def test_statistics_of_a_large_nearly_constant_channel():
    images = torch.full((2000, 1, 16, 16), 250, dtype=torch.uint8)
    images[0, 0, 0, 0] = 251
    _, std = channel_statistics(images)
    n = images.numel()
    assert std[0] == pytest.approx(np.sqrt((n - 1) / n**2) / 255, rel=1e-12)


def test_constant_channel_normalises_to_zero():
    images = torch.full((4, 2, 3, 3), 7, dtype=torch.uint8)
    images[:2, 1] = 9
    mean, std = channel_statistics(images)
    assert std[0] == 1.0
    split = Split(images, torch.zeros(4, dtype=torch.int64), 2, mean, std)
    assert split.floats(slice(None))[:, 0].abs().max() < 1e-7


def test_subset_is_fixed_and_nested():
    split = make_split(n=50)
    small, again, large = split.subset(8, 3), split.subset(8, 3), split.subset(20, 3)
    assert torch.equal(small.images, again.images)
    assert torch.equal(small.labels, again.labels)
    assert len(small) == 8
    rows = subset_indices(50, 8, 3)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert torch.equal(small.images, split.images[rows])
    assert torch.equal(small.labels, split.labels[rows])
    assert set(rows.tolist()) <= set(subset_indices(50, 20, 3).tolist())
    assert not torch.equal(rows, subset_indices(50, 8, 4))
    assert (small.mean, small.std, small.classes, small.in_shape) == (split.mean, split.std, 4, (3, 6, 5))
    assert len(large) == 20
    assert split.subset(None, 0) is split
    assert split.subset(50, 0) is split
    assert split.subset(51, 0) is split


def test_subset_indices_do_not_change_between_versions():
    # Results on a subset are only comparable while this holds.
    assert subset_indices(100, 5, 0).tolist() == [19, 44, 71, 90, 93]


@pytest.mark.parametrize("n", [0, -3, True, 2.0])
def test_subset_of_nothing(n):
    with pytest.raises(ValleysError, match="1 or more"):
        make_split().subset(n, 0)


def test_to_shares_and_moves():
    split = make_split()
    assert split.to("cpu").images is split.images
    assert split.to("meta").device.type == "meta"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"images": torch.zeros(5, 1, 2, 2).double()}, "uint8"),
        ({"images": torch.zeros(5, 2, 2, dtype=torch.uint8)}, "(N, C, H, W)"),
        ({"images": torch.zeros(0, 1, 2, 2, dtype=torch.uint8), "labels": torch.zeros(0).long()}, "empty"),
        ({"labels": torch.zeros(5)}, "int64"),
        ({"labels": torch.zeros(4).long()}, "(5,)"),
        ({"classes": 0}, "classes"),
        ({"mean": (0.0, 0.0)}, "1 channels"),
        ({"std": (0.0,)}, "above 0"),
        ({"mean": (float("nan"),)}, "finite"),
    ],
)
def test_split_refuses(change, word):
    good = {
        "images": torch.zeros(5, 1, 2, 2, dtype=torch.uint8),
        "labels": torch.zeros(5).long(),
        "classes": 2,
        "mean": (0.0,),
        "std": (1.0,),
    }
    Split(**good)
    with pytest.raises(ValueError, match=re.escape(word)):
        Split(**{**good, **change})
