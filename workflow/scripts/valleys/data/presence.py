"""Whether a data set's originals are there, by their names, before any job reads them. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from valleys.data.options import DATASET_OPTIONS
from valleys.storage import files

#: Files in ``root`` that torchvision looks for, by source.
IN_ROOT = {
    "cifar10": [
        f"cifar-10-batches-py/{name}" for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    ],
    "cifar100": ["cifar-100-python/train", "cifar-100-python/test"],
    "svhn": ["train_32x32.mat", "test_32x32.mat"],
    "stl10": [f"stl10_binary/{name}_{x}.bin" for name in ("train", "test") for x in "Xy"],
    "fashion_mnist": [
        f"FashionMNIST/raw/{part}-{what}-ubyte"
        for part in ("train", "t10k")
        for what in ("images-idx3", "labels-idx1")
    ],
}
IN_ROOT["cifar10"].append("cifar-10-batches-py/batches.meta")
IN_ROOT["cifar100"].append("cifar-100-python/meta")
IN_ROOT["stl10"].append("stl10_binary/unlabeled_X.bin")


def lacking(spec: Mapping[str, Any]) -> list[str]:
    """Return the files that torchvision looks for and that are not there; none for other sources.

    Parameters
    ----------
    spec
        As `options.validate_dataset` returns it.
    """
    if spec["source"] not in IN_ROOT:
        return []
    root = files.expand(spec["root"])
    return [name for name in IN_ROOT[spec["source"]] if not (root / name).exists()]


def absent(
    name: str, spec: Mapping[str, Any], fetch: str, is_made: Callable[[str], bool] = lambda path: False
) -> list[str]:
    """Return a line for each key of a data set's entry that leads to nothing.

    What a source's own code reads (``callable``) is its own business, and so is what a job is to download.

    Parameters
    ----------
    name, spec
        Of the data set in the config; the entry as `options.validate_dataset` returns it.
    fetch
        The command that fetches what can be had from a network, for the message.
    is_made
        Whether a rule makes a file.
    """
    source, where = DATASET_OPTIONS[spec["source"]], f"config: datasets.{name}"
    if source.upstream:
        gone = [] if spec["download"] else lacking(spec)
        return [
            f"{where}.root: {spec['root']}: there is no {gone[0]}{_seen_from(spec['root'])}; {fetch} fetches "
            f"it, or put there: {source.expected}"
        ] if gone else []  # fmt: skip
    lines = []
    for key in source.files if spec["source"] != "callable" else ():
        value = spec.get(key) or []
        for path in [value] if isinstance(value, str) else value:
            if not (files.matching(path) or is_made(path)):
                lines.append(
                    f"{where}.{key}: {path}: there is no such file or folder{_seen_from(path)}; it must be a "
                    f"{source.options[key].help.partition(';')[0]}"
                )
    return lines


def _seen_from(path: str) -> str:
    return "" if files.expand(path).is_absolute() else f" (seen from {Path(os.curdir).absolute()})"
