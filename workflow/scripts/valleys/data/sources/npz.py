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
    from_array,
    source_line,
    too_large,
)
from valleys.errors import ValleysError
from valleys.storage import files

_HEADER_BYTES = 1 << 14


def read(spec: Mapping[str, Any]) -> tuple[Original, Original]:
    """Read npz files."""
    train, test = (_npz(files.expand(spec[part]), part, spec["max_bytes"]) for part in ("train", "test"))
    return train, test


def count(given: str) -> PartCount:
    """Read the header of the array ``images``."""
    path = files.check_regular(files.expand(given))
    with zipfile.ZipFile(path) as archive, archive.open("images.npy") as whole:
        stream = io.BytesIO(whole.read(_HEADER_BYTES))  # a header that says it is longer is a bomb
        shape, _, _ = _read_header(stream)
    n, height, width, channels = (*shape, 1)[:4]
    return PartCount(n, shape=(channels, height, width))


def _npz(path: Path, part: str, max_bytes: float) -> Original:
    """Read one npz file's images and labels, once their headers have the right types, shapes and sizes."""
    files.check_regular(path, f"the {part} file", "give an npz file with images and labels")
    found = {}
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValleysError(
                    f"{path} is not an npz archive; save it with numpy.savez(images=, labels=)"
                )
            missing = [key for key in ("images", "labels") if key not in file]
            if missing:
                raise ValleysError(
                    f"{path} lacks the array {missing[0]!r}; it has: {', '.join(file.files) or 'nothing'}"
                )
            members = {key: _member(file, key) for key in ("images", "labels")}
            # By the archive's directory first, as a header can be a bomb too.
            size = float(sum(member.file_size for member in members.values()))
            if size <= max_bytes:
                declared = {key: _npy_header(file, member) for key, member in members.items()}
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
            found = {key: file[key] for key in ("images", "labels")}
    except ValleysError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many types on damaged input
        raise ValleysError(
            f"{path} cannot be read as an npz file: truncated, damaged or pickled ({source_line(error)}); "
            f"write it again"
        ) from error
    return from_array(channels_first(found["images"]), found["labels"], str(path))


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
