"""One folder of images for each class."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from valleys.data.options import IMAGE_SUFFIXES
from valleys.data.sources import base
from valleys.data.sources.base import Original, PartCount, source_line
from valleys.data.sources.decoding import decoded_images
from valleys.errors import ValleysError
from valleys.storage import files


def read(spec: Mapping[str, Any]) -> tuple[Original, Original]:
    """Read folders of image files, the classes in torchvision's order."""
    from valleys.torchvision_compat import import_torchvision

    image_folder = import_torchvision("datasets").ImageFolder
    listed = {}
    for part in ("train", "test"):
        folder = files.expand(spec[part])
        if not folder.is_dir():
            raise ValleysError(
                f"the {part} folder {folder} does not exist; it must hold one sub-folder per class"
            )
        try:
            listed[part] = image_folder(folder)
        except OSError as error:  # no class folder, or one without images
            raise ValleysError(f"the {part} folder {folder} cannot be used: {source_line(error)}") from error
    train, test = listed["train"], listed["test"]
    if train.classes != test.classes:
        only = [
            f"only in {part}: {', '.join(names)}"
            for part, names in (
                ("train", sorted(set(train.classes) - set(test.classes))),
                ("test", sorted(set(test.classes) - set(train.classes))),
            )
            if names
        ]
        raise ValleysError(
            f"the class folders of {spec['train']} and {spec['test']} differ ({'; '.join(only)}); "
            f"both must have the same sub-folders"
        )
    return tuple(_files(listed[part].samples, spec, f"the {part} folder {spec[part]}") for part in listed)


def count(given: str) -> PartCount:
    """Count the images below each class folder, as `ImageFolder` finds them: links are followed."""
    folder = files.expand(given)
    with os.scandir(folder) as entries:
        classes = sorted(entry.path for entry in entries if entry.is_dir())
    names_found = images = done = 0
    for path in classes:
        if names_found > base.MOST_NAMES:
            break
        for _, _, names in os.walk(path, followlinks=True):
            names_found += 1 + len(names)
            images += sum(name.lower().endswith(IMAGE_SUFFIXES) for name in names)
        done += 1
    total = math.ceil(images * len(classes) / max(done, 1))
    return PartCount(total, classes=len(classes), exact=done == len(classes))


def _files(samples: Sequence[tuple[str, int]], spec: Mapping[str, Any], what: str) -> Original:
    """Wrap a list of image files and labels."""

    def take(rows: np.ndarray) -> Iterator[np.ndarray]:
        encoded = ((samples[row][0], samples[row][0]) for row in rows)
        return decoded_images(encoded, len(rows), what, spec)

    labels = np.array([label for _, label in samples], dtype=np.int64)
    return Original(labels, take, lambda row: samples[row][0])
