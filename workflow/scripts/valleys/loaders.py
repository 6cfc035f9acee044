"""Batches to probe on: of a `valleys.data.Split`, or of a user's own loader.

A curve compares losses at many weights, so every pass must see the same images. A loader that shuffles or
augments gives others each time it is read; it is therefore read once and its batches are kept. Where they do
not fit, it is read again for each pass, with torch's random numbers as they were the first time, and must
give the same labels in the same order, which is checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from valleys.data import Split
from valleys.errors import ValleysError

#: Float images are kept ready when a data set needs no more than this many bytes.
RESIDENT_BYTES = 2 * 1024**3

Loader = Iterable[Any]
"""Yields ``(images, labels)`` pairs or longer tuples that begin with them, as a torch ``DataLoader`` does."""


class SplitBatches:
    """Normalised batches of a split in order; kept as floats when they are small enough."""

    def __init__(self, split: Split, batch_size: int) -> None:
        self.split, self.batch_size = split, batch_size
        self.at = [slice(i, i + batch_size) for i in range(0, len(split), batch_size)]
        keep = split.images.numel() * 4 <= RESIDENT_BYTES
        self.kept = [split.floats(at) for at in self.at] if keep else None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.split)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(images, labels)`` in order."""
        if self.kept is None:
            yield from self.split.batches(self.batch_size)
        else:
            yield from zip(self.kept, self.labels(), strict=True)

    def labels(self) -> Iterator[Tensor]:
        """Yield the labels batch by batch, without making the images."""
        for at in self.at:
            yield self.split.labels[at]


class LoaderBatches:
    """Batches of a user's loader on one device: the same ones in every pass.

    Parameters
    ----------
    loader
        A `Loader`. Read once; again for each pass where its images take more than `RESIDENT_BYTES`, and then
        an iterator, which can be read only once, is refused.
    device
        Where the network is.
    name
        Of the loader, in messages.

    Raises
    ------
    ValleysError
        When it yields no images, or anything but pairs of tensors with as many labels as images; later, in a
        pass that reads it again, when its labels are not those it gave first.
    """

    def __init__(self, loader: Loader, device: torch.device | str, name: str = "loader") -> None:
        self.loader, self.device, self.name = loader, torch.device(device), name
        self._random = torch.get_rng_state()
        self.kept: list[Tensor] | None = []
        self._labels: list[Tensor] = []
        held = 0
        for images, labels in self._read():
            self._labels.append(labels)
            held += images.numel() * images.element_size()
            if self.kept is not None and held <= RESIDENT_BYTES:
                self.kept.append(images)
            else:
                self.kept = None
        if not self._labels:
            raise ValleysError(f"{name}: it yields no batches; give a loader of (images, labels)")
        if self.kept is None and isinstance(loader, Iterator):
            raise ValleysError(
                f"{name}: an iterator over more than {RESIDENT_BYTES / 2**30:g} GiB of images can be read "
                "just once; give the DataLoader itself, or fewer images"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return sum(len(labels) for labels in self._labels)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(images, labels)`` in the order of the first reading."""
        if self.kept is not None:
            yield from zip(self.kept, self._labels, strict=True)
            return
        count = 0
        for count, (images, labels) in enumerate(self._read(), start=1):
            if count > len(self._labels) or not torch.equal(labels, self._labels[count - 1]):
                break
            yield images, labels
        else:
            if count == len(self._labels):
                return
        raise ValleysError(
            f"{self.name}: batch {max(count, 1)} has other labels than when it was read first; "
            "give a DataLoader with shuffle=False, or fewer images, so that they can be kept"
        )

    def labels(self) -> Iterator[Tensor]:
        """Yield the labels batch by batch, without reading images."""
        yield from self._labels

    def _read(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Read the loader with the same random numbers each time, and leave those of a user alone."""
        state = torch.get_rng_state()
        torch.set_rng_state(self._random)
        try:
            for i, batch in enumerate(self.loader):
                yield self._pair(batch, i)
        finally:
            torch.set_rng_state(state)

    def _pair(self, batch: Any, i: int) -> tuple[Tensor, Tensor]:
        pair = batch[:2] if isinstance(batch, tuple | list) else ()
        if len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair):
            raise ValleysError(
                f"{self.name}: batch {i} is {_what(batch)}; it must be a pair (images, labels) of tensors"
            )
        images, labels = pair
        if images.dim() == 0 or labels.dim() == 0 or len(images) != len(labels) or len(images) == 0:
            raise ValleysError(
                f"{self.name}: batch {i} has images of shape {tuple(images.shape)} and labels of shape "
                f"{tuple(labels.shape)}; there must be one label for each of one or more images"
            )
        return images.to(self.device), labels.to(self.device)


def _what(batch: Any) -> str:
    if isinstance(batch, tuple | list):
        return f"a {type(batch).__name__} of {', '.join(type(part).__name__ for part in batch) or 'nothing'}"
    return f"a {type(batch).__name__}"


def batches(
    data: Split | Loader, batch_size: int, device: torch.device | str, name: str = "loader"
) -> SplitBatches | LoaderBatches:
    """Return the batches of a split, `batch_size` images each, or of a loader, which has batches of its own.

    Raises
    ------
    ValleysError
        As `LoaderBatches`.
    """
    if hasattr(data, "floats"):  # a split, or what stands in for one
        return SplitBatches(data, batch_size)
    if not isinstance(data, Iterable):
        raise ValleysError(
            f"{name}: {type(data).__name__} is no loader; give one of (images, labels) batches"
        )
    return LoaderBatches(data, device, name)
