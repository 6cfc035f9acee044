"""Arrays of images and labels in one ``.npz`` file of NumPy."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from valleys.data.sources.base import (
    Original,
    PartCount,
    channels_first,
    check_arrays,
    check_images,
    from_array,
    source_line,
    too_large,
)
from valleys.data.sources.examples import from_examples
from valleys.data.tasks import CLASSIFICATION, task_of
from valleys.errors import ValleysError
from valleys.storage import files

_HEADER_BYTES = 1 << 14


def read(spec: Mapping[str, Any]) -> tuple[Original, Original]:
    """Read npz files."""
    train, test = (_npz(files.expand(spec[part]), part, spec) for part in ("train", "test"))
    return train, test


def count(given: str) -> PartCount:
    """Read the header of the array ``images``, or ``inputs``."""
    path = files.check_regular(files.expand(given))
    with zipfile.ZipFile(path) as archive:
        key = "images" if "images.npy" in archive.namelist() else "inputs"
        with archive.open(f"{key}.npy") as whole:
            stream = io.BytesIO(whole.read(_HEADER_BYTES))  # a header that says it is longer is a bomb
            shape, _, _ = _read_header(stream)
    if key == "inputs":
        return PartCount(shape[0], shape=shape[1:] or (1,), itemsize=4)
    n, height, width, channels = (*shape, 1)[:4]
    return PartCount(n, shape=(channels, height, width))


def _npz(path: Path, part: str, spec: Mapping[str, Any]) -> Original:
    """Read one npz file's images, or inputs, and labels, once their headers have the right sizes."""
    max_bytes, task = spec["max_bytes"], task_of(spec)
    files.check_regular(path, f"the {part} file", "give an npz file with images and labels")
    found = {}
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValleysError(
                    f"{path} is not an npz archive; save it with numpy.savez(images=, labels=)"
                )
            if "images" in file and "inputs" in file:
                raise ValleysError(f"{path} has the arrays 'images' and 'inputs'; keep one of them")
            first = "inputs" if "inputs" in file else "images"
            wanted = [first] if task == "tokens" and "labels" not in file else [first, "labels"]
            missing = [key for key in wanted if key not in file]
            if missing:
                raise ValleysError(
                    f"{path} lacks the array {missing[0]!r}; it has: {', '.join(file.files) or 'nothing'}"
                )
            members = {key: _member(file, key) for key in wanted}
            # By the archive's directory first, as a header can be a bomb too.
            size = float(sum(member.file_size for member in members.values()))
            if size <= max_bytes:
                declared = {key: _npy_header(file, member) for key, member in members.items()}
                if first == "images" and task == CLASSIFICATION:
                    check_arrays(str(path), *declared["images"], *declared["labels"])
                sizes = {k: math.prod(shape) * dtype.itemsize for k, (dtype, shape) in declared.items()}
                size = sum(sizes.values())
            if size > max_bytes:
                raise too_large(path, size, max_bytes)
            for key, member in members.items():
                if sizes[key] > member.file_size:
                    raise ValleysError(
                        f"{path}: {key} are {sizes[key]:,} bytes by their header, and {member.file_size:,} "
                        "are in the file; write it again"
                    )
            found = {key: file[key] for key in wanted}
    except ValleysError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many types on damaged input
        raise ValleysError(
            f"{path} cannot be read as an npz file: truncated, damaged or pickled ({source_line(error)}); "
            f"write it again"
        ) from error
    if first == "inputs":
        return from_examples(found["inputs"], found.get("labels"), task, str(path))
    if task == CLASSIFICATION:
        return from_array(channels_first(found["images"]), found["labels"], str(path))
    check_images(str(path), found["images"].dtype, found["images"].shape)
    return from_examples(channels_first(found["images"]), found.get("labels"), task, str(path))


def _member(file: np.lib.npyio.NpzFile, key: str) -> zipfile.ZipInfo:
    """Return an archive's entry of an array."""
    return file.zip.getinfo(f"{key}.npy" if f"{key}.npy" in file.zip.namelist() else key)


def _npy_header(file: np.lib.npyio.NpzFile, member: zipfile.ZipInfo) -> tuple[np.dtype, tuple[int, ...]]:
    """Return dtype and shape that an array of an archive declares; its values are not read."""
    with file.zip.open(member) as stream:
        shape, _, dtype = _read_header(stream)
    return dtype, shape


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, order and dtype that an array's header declares."""
    first = np.lib.format.read_magic(stream) == (1, 0)
    return (np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0)(stream)
