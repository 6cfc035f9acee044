"""What the sources of images share: originals, checks of arrays, work done in order; reads no file."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from valleys.errors import ValleysError

logger = logging.getLogger("valleys")
_LOG_EVERY = 10_000  # images between two lines of progress
_CHUNK = 64  # images decoded, or copied, at a time


#: When files are counted: after so many names in an image folder no other class is looked at, nor more
#: Parquet files than so many; the rest is taken to be alike.
MOST_NAMES, MOST_FILES = 50_000, 100


@dataclass(frozen=True)
class PartCount:
    """Images in one part; their (C, H, W) and classes where they are known; whether all were counted.

    ``itemsize``: bytes of one number, as it is stored when it has been read.
    """

    images: int
    shape: tuple[int, ...] | None = None
    classes: int | None = None
    exact: bool = True
    itemsize: int = 1


@dataclass(frozen=True)
class Original:
    """One part of a source, not decoded yet.

    ``take`` yields the images of the given ascending rows, a few at a time, as uint8 (n, C, H, W), or inputs
    of another kind as `data.split.Split` has them, and ``labels`` are those of its; ``where`` names a row in
    an error message.
    """

    labels: np.ndarray
    take: Callable[[np.ndarray], Iterator[np.ndarray]]
    where: Callable[[int], str]
    greatest: int = -1
    """Of tokens: the greatest there is."""


def source_line(error: BaseException) -> str:
    """Return an exception's message on one line, or its type when it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def from_array(images: np.ndarray, labels: np.ndarray, what: str) -> Original:
    """Wrap images already in memory, uint8 (N, C, H, W)."""
    if len(images) != len(labels):
        raise ValleysError(f"{what} has {len(images)} images but {len(labels)} labels; there must be as many")
    return Original(np.asarray(labels, dtype=np.int64), in_pieces(images), lambda row: f"{what}, image {row}")


def in_pieces(array: np.ndarray) -> Callable[[np.ndarray], Iterator[np.ndarray]]:
    """Return what `Original.take` is of an array in memory."""

    def take(rows: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(rows), _CHUNK):
            yield array[rows[start : start + _CHUNK]]

    return take


def cut_at_random(
    images: np.ndarray, labels: np.ndarray, spec: Mapping[str, Any], what: str
) -> tuple[Original, Original]:
    """Cut images in memory, uint8 (N, C, H, W), by ``split_seed`` into ``train_size`` images and the rest."""
    order = np.random.default_rng(spec["split_seed"]).permutation(len(images))
    train, test = (
        from_array(images[rows], labels[rows], f"{what} {part}")
        for rows, part in zip(np.split(order, [spec["train_size"]]), ("train", "test"), strict=True)
    )
    return train, test


def progress(done: int, more: int, total: int, what: str) -> None:
    """Log a line of progress when the last ``more`` images pass a round number, and at the end."""
    if done // _LOG_EVERY > (done - more) // _LOG_EVERY or done == total:
        logger.info("decoded %d of %d images of %s", done, total, what)


def pieces_of(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield `_CHUNK` items at a time."""
    items = iter(items)
    while part := list(itertools.islice(items, _CHUNK)):
        yield part


def in_order(work: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[tuple[Any, Any]]:
    """Yield each item with ``work(item)``, done by so many threads; no more than two a thread are waiting.

    Threads, not processes: PIL lets others run while it decodes and resizes, and images need no sending.
    """
    if workers == 1:
        for item in items:
            yield item, work(item)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Any, Any]] = deque()
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > 2 * workers:
                item, done = waiting.popleft()
                yield item, done.result()
        for item, done in waiting:
            yield item, done.result()


def too_large(path: Path, size: float, max_bytes: float) -> ValleysError:
    """Return the error of a file that declares more than may be read."""
    return ValleysError(
        f"{path} declares {size / 1e9:.3g} GB; execution.max_data_gb is {max_bytes / 1e9:g}, "
        "raise it if that is right"
    )


def check_arrays(
    where: str,
    images: np.dtype,
    images_shape: tuple[int, ...],
    labels: np.dtype,
    labels_shape: tuple[int, ...],
    layout: str = "HWC",
) -> None:
    """Raise unless dtypes and shapes are those of images (channels last, or first: ``CHW``) and labels."""
    check_images(where, images, images_shape, layout)
    if labels.kind not in "iu" or len(labels_shape) != 1:
        raise ValleysError(
            f"{where}: labels are {labels} of shape {labels_shape}; they must be integers of shape (N,)"
        )


def check_images(where: str, images: np.dtype, images_shape: tuple[int, ...], layout: str = "HWC") -> None:
    """Raise unless dtype and shape are those of images of bytes."""
    wanted = f"(N, H, W) or (N, {', '.join(layout)})"
    if images != np.uint8 or len(images_shape) not in (3, 4) or 0 in images_shape[1:]:
        hint = ""
        if images.kind == "f":
            hint = " (values from 0 to 1 times 255, rounded; numbers that are no pixels are called inputs)"
        elif images.hasobject:
            hint = ", not pickled objects"
        raise ValleysError(
            f"{where}: images are {images} of shape {images_shape}; they must be uint8{hint}, {wanted}"
        )
    if len(images_shape) == 4:
        channels, other = images_shape[3], images_shape[1]
        if layout == "CHW":
            channels, other = other, channels
        if channels > 4 and other <= 4:
            order = "last" if layout == "HWC" else "first"
            raise ValleysError(
                f"{where}: images have the shape {images_shape}; channels must come {order}, "
                f"(N, {', '.join(layout)})"
            )


def channels_first(images: np.ndarray) -> np.ndarray:
    """Return images (N, H, W) or (N, H, W, C) as (N, C, H, W)."""
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
