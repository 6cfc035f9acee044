"""The digits of scikit-learn are read as they are shipped."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from valleys.data.sources.load import load_source

ROOT = Path(__file__).resolve().parents[3]

SCRIPTS = ROOT / "workflow" / "scripts"


@pytest.mark.slow
@pytest.mark.long
def test_digits_needs_no_torchvision():
    code = (
        "import sys; from valleys.data.sources.load import load_source; load_source({'source': 'digits'}); "
        "print('torchvision' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.slow
def test_digits():
    from sklearn.datasets import load_digits

    train, test = load_source({"source": "digits"})
    assert (len(train), len(test), train.in_shape, train.classes) == (800, 997, (1, 8, 8), 10)
    assert (train.mean, train.std) == (test.mean, test.std)
    scaled = train.images.double() / 255
    assert train.mean[0] == pytest.approx(float(scaled.mean()), rel=1e-12)
    assert train.std[0] == pytest.approx(float(scaled.std(correction=0)), rel=1e-12)
    order = np.random.default_rng(0).permutation(1797)
    original = load_digits()
    together = torch.cat((train.images, test.images))[:, 0]
    expected = [[[round(v * 255 / 16) for v in row] for row in image] for image in original.images[order]]
    assert together.tolist() == expected
    assert torch.cat((train.labels, test.labels)).tolist() == original.target[order].tolist()
    other, _ = load_source({"source": "digits", "split_seed": 1, "train_size": 100})
    assert len(other) == 100
    assert not torch.equal(other.images, train.images[:100])
