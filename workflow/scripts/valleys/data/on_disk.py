"""Images that stay in their file, too many for memory: read when asked for, not held, not written here.

The SHA-256 of a file of 200 GB takes minutes to compute, too long for every job. So a file is checked whole
once, and a small file beside it keeps which checksum was found, of how many bytes, written when. As long as
these are the file's, it is not checked again. While it is open, each reading sees that they still are.
"""

from __future__ import annotations

import copy
import io
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

_REMEDY = "delete it and rerun prepare_dataset"
#: A file is looked at again when it was checked sooner than this after it was written: what is written to it
#: in the same tick of the file system's clock leaves no other time.
_TICK_NS = 100_000_000

Index = slice | int | Tensor
T = TypeVar("T")
R = TypeVar("R")


class _File(io.FileIO):
    """A file that is closed with the last split that reads it."""

    def __del__(self) -> None:
        self.close()


class ImagesOnDisk:
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
    """

    dtype, ndim, device = torch.uint8, 4, torch.device("cpu")

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], most: float) -> None:
        self.path, self.offset, self.shape, self.most = path, offset, tuple(shape), most
        self.rows = torch.arange(shape[0])  # of the file: which images these are
        self._file = _File(path)  # held open: a file put in its place later is not read
        self._opened = _written(self._file)

    def numel(self) -> int:
        """Return the number of bytes."""
        return math.prod(self.shape)

    def subset(self, chosen: Tensor) -> Tensor | ImagesOnDisk:
        """Return the images at these rows: in memory where they are few, else still in the file."""
        part = copy.copy(self)
        part.rows = self.rows[chosen]
        part.shape = (len(part.rows), *self.shape[1:])
        return part[:] if part.numel() <= self.most else part

    def __getitem__(self, index: Index) -> Tensor:
        """Return the images at a slice, a number or an index tensor."""
        return self.read(index)

    def read(self, index: Index, pinned: bool = False) -> Tensor:
        """Return the images at a slice, a number or an index tensor, in memory of the host.

        Parameters
        ----------
        pinned
            In memory that a GPU can copy from on its own.

        Raises
        ------
        ValleysError
            When the file cannot be read, or has been written to since it was opened.
        """
        rows = self.rows[index]
        images = torch.empty((*rows.shape, *self.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        for image, row in zip(images.view(-1, *self.shape[1:]).numpy(), rows.view(-1).tolist(), strict=True):
            self._fill(memoryview(image).cast("B"), row)
        if _written(self._file) != self._opened:
            raise ValleysError(f"{self.path} was written to while it was being read; {_REMEDY}")
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

    def is_checked(self, checksum: str) -> bool:
        """Return whether the file was found to have this checksum and has not been written to since."""
        note = note_file(self.path)
        try:
            at_once = note.stat().st_mtime_ns - self._opened[1] < _TICK_NS
            return not at_once and note.read_text(encoding="utf-8") == self._note(checksum)
        except (OSError, ValueError):
            return False

    def keep_checked(self, checksum: str) -> None:
        """Keep beside the file that it was found to have this checksum; say so where that cannot be done."""
        try:
            files.write_text(note_file(self.path), self._note(checksum))
        except ValleysError as error:
            log.warning("each job will check all of %s before it starts: %s", self.path, error)

    def _note(self, checksum: str) -> str:
        size, time = self._opened
        return f"sha256 {checksum} of {size} bytes written at {time} ns\n"


def _written(file: io.FileIO) -> tuple[int, int]:
    """Return an open file's size and when it was last written to, in ns."""
    about = os.fstat(file.fileno())
    return about.st_size, about.st_mtime_ns


def note_file(path: Path) -> Path:
    """Return where it is kept that a data file was checked."""
    return path.with_suffix(".checked")


def ahead(read: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield ``read(item)`` for each item in turn; a thread reads the next one while one is in use."""
    with ThreadPoolExecutor(1) as reader:
        coming = None
        for item in items:
            following = reader.submit(read, item)
            if coming is not None:
                yield coming.result()
            coming = following
        if coming is not None:
            yield coming.result()
