"""Splits of random images, and seeded generators, shared by tests of data."""

import torch
from valleys.data.split import Split, channel_statistics


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make_split(n=50, channels=3, height=6, width=5, classes=4, seed=0):
    g = generator(seed)
    images = torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8, generator=g)
    labels = torch.randint(0, classes, (n,), generator=g)
    return Split(images, labels, classes, *channel_statistics(images))
