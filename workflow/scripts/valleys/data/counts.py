"""How many images a user's own files hold, and their shape, as far as that can be told without reading them.

For the Snakefile and ``valleys plan``, before `prepare_dataset` has run: file names of an image folder, the
footers of Parquet files, the headers of npz files. No torch, no image decoded, nothing of the user's called.
What is wrong with the files is for `prepare_dataset` to say; here they are then just not counted.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from valleys.data.options import IMAGE_SUFFIXES
from valleys.storage import files

#: After so many names in an image folder no other class is looked at, nor more Parquet files than so many;
#: the rest is taken to be alike.
MOST_NAMES, MOST_FILES = 50_000, 100
_HEADER_BYTES = 1 << 14


@dataclass(frozen=True)
class Count:
    """Images in train and test; (C, H, W) and classes where they are known; whether all were counted."""

    train: int
    test: int
    shape: tuple[int, int, int] | None
    classes: int | None
    exact: bool


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
    """
    if spec["source"] not in _COUNTERS:
        return None
    try:
        (train, shape, classes, all_train), (test, _, _, all_test) = (
            _COUNTERS[spec["source"]](spec[part]) for part in ("train", "test")
        )
    except Exception:  # zipfile, numpy and pyarrow raise many types; a package may be absent here
        return None
    if spec.get("size"):
        shape = (1 if spec.get("grayscale") else 3, spec["size"], spec["size"])
    if not train or not test:
        return None
    return Count(train, test, shape, classes, all_train and all_test)


_Part = tuple[int, tuple[int, int, int] | None, int | None, bool]


def _image_folder(given: str) -> _Part:
    """Count the images below each class folder, as `ImageFolder` finds them: links are followed."""
    folder = files.expand(given)
    with os.scandir(folder) as entries:
        classes = sorted(entry.path for entry in entries if entry.is_dir())
    seen = images = done = 0
    for path in classes:
        if seen > MOST_NAMES:
            break
        for _, _, names in os.walk(path, followlinks=True):
            seen += 1 + len(names)
            images += sum(name.lower().endswith(IMAGE_SUFFIXES) for name in names)
        done += 1
    return math.ceil(images * len(classes) / max(done, 1)), None, len(classes), done == len(classes)


def _parquet(given: str | Sequence[str]) -> _Part:
    """Add up the rows that footers declare."""
    import pyarrow.parquet as pq

    items = [given] if isinstance(given, str) else given
    paths = [path for item in items for path in files.matching(item)]
    looked = [files.check_regular(path) for path in paths[:MOST_FILES]]
    rows = sum(pq.read_metadata(path).num_rows for path in looked)
    return math.ceil(rows * len(paths) / max(len(looked), 1)), None, None, len(looked) == len(paths)


def _numpy(given: str) -> _Part:
    """Read the header of the array ``images``."""
    import numpy as np

    path = files.check_regular(files.expand(given))
    with zipfile.ZipFile(path) as archive, archive.open("images.npy") as whole:
        stream = io.BytesIO(whole.read(_HEADER_BYTES))  # a header that says it is longer is a bomb
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0
        shape, _, _ = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(stream)
    n, height, width, channels = (*shape, 1)[:4]
    return n, (channels, height, width), None, True


_COUNTERS = {"image_folder": _image_folder, "parquet": _parquet, "numpy": _numpy}
