"""One small network of each architecture, and what its images are."""

import torch
from valleys.models.builder import build

CIFAR = (3, 32, 32)


# One small spec and image side for each architecture; vgg16 and resnet50 have no small version.
SMALL = {
    "mlp": ({"arch": "mlp", "hidden": [16, 16]}, 8),
    "resnet8": ({"arch": "resnet8"}, 8),
    "preresnet": ({"arch": "preresnet", "depth": 14, "width": 4}, 8),
    "vgg16": ({"arch": "vgg16"}, 32),
    "densenet_bc": ({"arch": "densenet_bc", "depth": 16, "growth": 4}, 8),
    "wrn": ({"arch": "wrn", "depth": 10, "widen": 1, "dropout": 0.1}, 8),
    "resnet50": ({"arch": "resnet50"}, 32),
}


def small(arch, channels=3, classes=5, **options):
    spec, side = SMALL[arch]
    return build({**spec, **options}, in_shape=(channels, side, side), classes=classes)


def images(arch, n=4, channels=3):
    side = SMALL[arch][1]
    return torch.randn(n, channels, side, side)
