"""One small network of each architecture, and what its images are."""

import torch
from valleys.models.builder import build
from valleys.models.options import ARCHS

CIFAR = (3, 32, 32)


# One small spec and image side for each architecture that has a small version; of others the defaults.
SMALL = {
    "mlp": ({"arch": "mlp", "hidden": [16, 16]}, 8),
    "resnet8": ({"arch": "resnet8"}, 8),
    "preresnet": ({"arch": "preresnet", "depth": 14, "width": 4}, 8),
    "densenet_bc": ({"arch": "densenet_bc", "depth": 16, "growth": 4}, 8),
    "wrn": ({"arch": "wrn", "depth": 10, "widen": 1, "dropout": 0.1}, 8),
}
SMALL = {arch: SMALL.get(arch, ({"arch": arch}, 32)) for arch in ARCHS}


def small(arch, channels=3, classes=5, **options):
    spec, side = SMALL[arch]
    return build({**spec, **options}, in_shape=(channels, side, side), classes=classes)


def images(arch, n=4, channels=3):
    side = SMALL[arch][1]
    return torch.randn(n, channels, side, side)
