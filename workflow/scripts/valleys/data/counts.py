"""How many images a user's own files hold, and their shape, as far as that can be told without reading them.

For the Snakefile and ``valleys plan``, before `prepare_dataset` has run. Each source counts its own files
(``count`` in its module); no torch, no image decoded, nothing of the user's called. What is wrong with the
files is for `prepare_dataset` to say; here they are then just not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from valleys.data.options import DATASET_OPTIONS


@dataclass(frozen=True)
class Count:
    """Images in train and test; (C, H, W) and classes where they are known; whether all were counted.

    ``itemsize``: bytes of one number.
    """

    train: int
    test: int
    shape: tuple[int, ...] | None
    classes: int | None
    exact: bool
    itemsize: int


def count(spec: Mapping[str, Any]) -> Count | None:
    """Count the images of a data set that is made of files.

    Parameters
    ----------
    spec
        A checked entry of ``datasets``.

    Returns
    -------
    Count or None
        None where nothing can be told: other sources, files that are absent or not what the source reads.

    Raises
    ------
    ValleysError
        When the source's module has no ``count``, although its entry says that it counts.
    """
    source = DATASET_OPTIONS[spec["source"]]
    if not source.counted:
        return None
    module = source.module()
    try:
        train = module.count(spec["train"])
        if spec["test"] is None:  # rows are cut off
            test = replace(train, images=train.images - spec["train_size"])
            train = replace(train, images=spec["train_size"])
        else:
            test = module.count(spec["test"])
        shape = module.shape(spec) if hasattr(module, "shape") else train.shape
    except Exception:  # zipfile, numpy and pyarrow raise many types; a package may be absent here
        return None
    if spec.get("size"):
        shape = (1 if spec.get("grayscale") else 3, spec["size"], spec["size"])
    if train.images < 1 or test.images < 1:
        return None
    exact = train.exact and test.exact
    return Count(train.images, test.images, shape, train.classes, exact, train.itemsize)
