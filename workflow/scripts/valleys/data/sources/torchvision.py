"""Data sets of torchvision, from files that are there already; downloads nothing unless it is asked to."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from valleys.data.options import DATASET_OPTIONS
from valleys.data.sources.base import Original, from_array, logger, source_line
from valleys.errors import ValleysError
from valleys.storage import files


def read(spec: Mapping[str, Any]) -> tuple[Original, Original]:
    """Read one of torchvision's data sets from ``root``."""
    from valleys.torchvision_compat import import_torchvision

    name, root = spec["source"], files.expand(spec["root"])
    entry = DATASET_OPTIONS[name]
    channels = entry.size_of(spec).shape[0]
    data_set = getattr(import_torchvision("datasets"), entry.upstream)
    by_train = "train" in inspect.signature(data_set).parameters  # else by the name of the split
    parts = []
    for part in ("train", "test"):
        logger.info("reading %s %s from %s", name, part, root)
        try:
            which = {"train": part == "train"} if by_train else {"split": part}
            found = data_set(root, **which, download=spec["download"])
            labels = found.targets if hasattr(found, "targets") else found.labels
            images, labels = np.asarray(found.data), np.asarray(labels)
        except Exception as error:  # absent, damaged or no network: torchvision raises many types
            remedy = (
                "check the network, or put the files there by hand"
                if spec["download"]
                else "put the files there, or set download: true"
            )
            raise ValleysError(
                f"{name} cannot be read from the root {root} ({source_line(error)}); "
                f"expected there: {entry.expected}; {remedy}"
            ) from error
        if images.ndim == 3:  # grey
            images = images[:, None]
        elif images.shape[1] != channels:  # they come last
            images = images.transpose(0, 3, 1, 2)
        parts.append(from_array(images, labels, f"{name} {part}"))
    return parts[0], parts[1]
