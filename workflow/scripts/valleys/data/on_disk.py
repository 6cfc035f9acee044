"""Images that stay in their file, too many for memory: read when asked for, checked when read.

The SHA-256 of a file of 200 GB takes minutes to compute, too long for every job, and what it vouches for may
be read from the disk again hours later. So a file is checked whole once, and in that pass the checksum of
each image goes into a small file beside it; from then on each image is checked each time it is read.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from valleys.errors import ValleysError
from valleys.storage import files

log = logging.getLogger("valleys")

DIGEST = 8  # bytes kept of an image's SHA-256
_SHA = 32
_REMEDY = "delete it and rerun prepare_dataset"

Place = slice | int | Tensor
T = TypeVar("T")
R = TypeVar("R")


def digest(image: memoryview) -> bytes:
    """Return the first `DIGEST` bytes of an image's SHA-256."""
    return hashlib.sha256(image).digest()[:DIGEST]


class Stored:
    """uint8 images (N, C, H, W) in a file. An index (slice, number or tensor) reads them into main memory.

    Read with ``pread``, not mapped: a disk that fails then gives an error with a message and not a dead
    process, and each image is one request, which matters on network file systems.

    Parameters
    ----------
    path, offset
        The file, and the byte of it at which the first image begins.
    shape
        Of all images in the file.
    most
        Bytes: a subset that takes no more is read into memory.

    Attributes
    ----------
    digests
        `DIGEST` bytes for each image of the file, which it must match when it is read; None: no check.
    """

    dtype, ndim, device = torch.uint8, 4, torch.device("cpu")

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], most: float) -> None:
        self.path, self.offset, self.shape, self.most = path, offset, tuple(shape), most
        self.digests: bytes | None = None
        self.rows = torch.arange(shape[0])  # of the file: which images these are
        self._file = path.open("rb", buffering=0)  # held open: a file put in its place later is not read

    def numel(self) -> int:
        """Return the number of bytes."""
        return math.prod(self.shape)

    def subset(self, chosen: Tensor) -> Tensor | Stored:
        """Return the images at these places: in memory where they are few, else still in the file."""
        part = copy.copy(self)
        part.rows = self.rows[chosen]
        part.shape = (len(part.rows), *self.shape[1:])
        return part[:] if part.numel() <= self.most else part

    def __getitem__(self, at: Place) -> Tensor:
        """Return the images at a slice, a number or an index tensor."""
        return self.read(at)

    def read(self, at: Place, pinned: bool = False) -> Tensor:
        """Return the images at a slice, a number or an index tensor, in memory of the host.

        Parameters
        ----------
        pinned
            In memory that a GPU can copy from on its own.

        Raises
        ------
        ValleysError
            When the file cannot be read, is too short, or an image does not match its checksum.
        """
        rows = self.rows[at]
        images = torch.empty((*rows.shape, *self.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        for image, row in zip(images.view(-1, *self.shape[1:]).numpy(), rows.view(-1).tolist(), strict=True):
            self._fill(memoryview(image).cast("B"), row)
        return images

    def _fill(self, image: memoryview, row: int) -> None:
        start, done = self.offset + row * len(image), 0
        while done < len(image):
            try:
                count = os.preadv(self._file.fileno(), [image[done:]], start + done)
            except OSError as error:
                raise ValleysError(
                    f"{self.path}: image {row} cannot be read ({error.strerror}); see to its disk, "
                    f"or {_REMEDY}"
                ) from error
            if count == 0:
                raise ValleysError(f"{self.path} is truncated at image {row}; {_REMEDY}")
            done += count
        wanted = self.digests and self.digests[row * DIGEST : (row + 1) * DIGEST]
        if wanted and digest(image) != wanted:
            raise ValleysError(
                f"{self.path} is damaged: image {row} does not match its SHA-256 checksum; {_REMEDY}"
            )

    def each(self) -> Iterator[memoryview]:
        """Yield the bytes of each image, in order; the memory is used again for the next."""
        image = memoryview(bytearray(math.prod(self.shape[1:])))
        for row in self.rows.tolist():
            self._fill(image, row)
            yield image


def digests_file(path: Path) -> Path:
    """Return where the checksums of a data file's images are kept."""
    return path.with_suffix(".digests")


def read_digests(path: Path, head: bytes, count: int) -> bytes | None:
    """Return the checksums of the images of a data file, if they are kept beside it and are whole.

    Parameters
    ----------
    path
        The data file.
    head
        SHA-256 of all that is in the data file beside the images, as it is now.
    count
        Of images.
    """
    try:
        content = digests_file(path).read_bytes()
    except OSError:
        return None
    body, seal = content[:-_SHA], content[-_SHA:]
    whole = hashlib.sha256(body).digest() == seal and len(body) == _SHA + DIGEST * count
    return body[_SHA:] if whole and body[:_SHA] == head else None


def keep_digests(path: Path, head: bytes, digests: bytes) -> None:
    """Keep the checksums of a data file's images beside it; say so where that cannot be done."""
    body = head + digests
    try:
        with files.atomic(digests_file(path)) as temporary:
            temporary.write_bytes(body + hashlib.sha256(body).digest())
    except ValleysError as error:
        log.warning("each job will check all of %s before it starts: %s", path, error)


def ahead(read: Callable[[T], R], places: Iterable[T]) -> Iterator[R]:
    """Yield ``read(place)`` for each place in turn; a thread reads the next one while one is in use."""
    with ThreadPoolExecutor(1) as reader:
        coming = None
        for place in places:
            following = reader.submit(read, place)
            if coming is not None:
                yield coming.result()
            coming = following
        if coming is not None:
            yield coming.result()
