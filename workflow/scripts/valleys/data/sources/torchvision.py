"""Data sets of torchvision, from files that are there already; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from valleys.data.sources.base import Original, from_array, logger, source_line
from valleys.errors import ValleysError
from valleys.storage import files

# What torchvision looks for under `root`, for the message when it is not there.
_EXPECTED_FILES = {
    "cifar10": "cifar-10-batches-py/ (unpacked from cifar-10-python.tar.gz)",
    "cifar100": "cifar-100-python/ (unpacked from cifar-100-python.tar.gz)",
    "svhn": "train_32x32.mat and test_32x32.mat",
    "stl10": "stl10_binary/ (unpacked from stl10_binary.tar.gz)",
    "fashion_mnist": "FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte (unpacked)",
}


# --- torchvision ------------------------------------------------------------------------------------------


def read_torchvision(spec: Mapping[str, Any]) -> tuple[Original, Original]:
    """Read one of torchvision's data sets from ``root``."""
    from valleys.torchvision_compat import import_torchvision

    name = spec["source"]
    root = files.expand(spec["root"])
    datasets = import_torchvision("datasets")
    by_train = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion_mnist": "FashionMNIST"}
    by_split = {"svhn": "SVHN", "stl10": "STL10"}
    parts = []
    for part in ("train", "test"):
        logger.info("reading %s %s from %s", name, part, root)
        try:
            if name in by_train:
                read = getattr(datasets, by_train[name])(
                    root, train=part == "train", download=spec["download"]
                )
                images, labels = read.data, read.targets
            else:
                read = getattr(datasets, by_split[name])(root, split=part, download=spec["download"])
                images, labels = read.data, read.labels
            images, labels = np.asarray(images), np.asarray(labels)
        except Exception as error:  # absent, damaged or no network: torchvision raises many types
            remedy = (
                "check the network, or put the files there by hand"
                if spec["download"]
                else "put the files there, or set download: true"
            )
            raise ValleysError(
                f"{name} cannot be read from the root {root} ({source_line(error)}); "
                f"expected there: {_EXPECTED_FILES[name]}; {remedy}"
            ) from error
        if images.ndim == 3:  # Fashion-MNIST is grey
            images = images[:, None]
        elif name.startswith("cifar"):  # channels come last
            images = images.transpose(0, 3, 1, 2)
        parts.append(from_array(images, labels, f"{name} {part}"))
    return parts[0], parts[1]
