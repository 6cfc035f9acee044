"""Batches to probe on: of a `valleys.data.split.Split`, or of a user's own loader.

A curve compares losses at many weights, so every pass must see the same images. A loader that shuffles or
augments gives others each time it is read; it is therefore read once and its batches are kept, as copies:
many loaders hand out one buffer again and again, filled anew. Where they do not fit, it is read again for
each pass, with torch's random numbers as they were the first time, and must give the same images and labels
in the same order, which is checked.
"""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from valleys.data.inputs import Inputs
from valleys.data.split import Split
from valleys.errors import ValleysError
from valleys.factories import one_line

#: Float images are kept ready when a data set needs no more than this many bytes.
RESIDENT_BYTES = 2 * 1024**3
#: Images that a network is tried on before it is used. Odd, so that few dimensions are as long by chance.
TRIED = 31

Loader = Iterable[Any]
"""Yields ``(images, labels)`` pairs or longer tuples that begin with them, as a torch ``DataLoader`` does.

Images may be `Inputs`, for a network that takes more than one tensor (`networks.adapter`).

What follows the pair may be no tensor: of three tensors one does not know which is which (`pick`).
"""


def pick(loader: Loader, images: Hashable, labels: Hashable) -> Loader:
    """Return a loader of the ``(images, labels)`` that lie at two places of each batch.

    Parameters
    ----------
    loader
        Of tuples, lists, mappings or objects. Read when the result is read.
    images, labels
        Numbers of the two in a tuple or list, keys in a mapping, attributes of an object or named tuple:
        ``pick(loader, 0, 2)``, ``pick(loader, "pixel_values", "labels")``.

    Returns
    -------
    Loader
        An iterator if `loader` is one; else it can be read again.

    Raises
    ------
    ValleysError
        When it is read, for a batch without these two.
    """
    picked = _Picked(loader, (images, labels))
    return iter(picked) if isinstance(loader, Iterator) else picked


class _Picked:
    def __init__(self, loader: Loader, at: tuple[Hashable, Hashable]) -> None:
        self.loader, self.at = loader, at

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for i, batch in enumerate(self.loader):
            try:
                pair = tuple(_part(batch, at) for at in self.at)
            except (LookupError, TypeError, AttributeError) as error:
                raise ValleysError(f"pick: batch {i} is {what(batch)}; it has no {self.at}") from error
            yield pair


def _part(batch: Any, at: Hashable) -> Any:
    try:
        return batch[at]
    except (LookupError, TypeError):
        if isinstance(batch, Mapping) or not isinstance(at, str):
            raise
        return getattr(batch, at)


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

    def first(self) -> Tensor:
        """Return the first images, `TRIED` of them or what there is."""
        return self.split.floats(slice(0, min(TRIED, self.batch_size)))

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
        When it yields no images, or anything but pairs of tensors with as many labels as images, or raises;
        later, in a pass that reads it again, when its images or labels are not those it gave first.
    """

    def __init__(self, loader: Loader, device: torch.device | str, name: str = "loader") -> None:
        self.loader, self.device, self.name = loader, torch.device(device), name
        self._random = torch.get_rng_state()
        self.kept: list[Tensor] | None = []
        self._labels: list[Tensor] = []
        self._checksums: list[tuple[int, int]] = []  # of images and labels, where they are not kept
        held = 0
        for images, labels in self._read():
            if not self._labels:
                self._first = images[:TRIED].clone()
            self._labels.append(labels)
            held += images.numel() * images.element_size()
            if self.kept is not None:
                self.kept.append(images)
                if held <= RESIDENT_BYTES:
                    continue
                if isinstance(loader, Iterator):
                    raise ValleysError(
                        f"{name}: an iterator over more than {RESIDENT_BYTES / 2**30:g} GiB of images can be "
                        "read just once; give the DataLoader itself, or fewer images"
                    )
                self._checksums = [
                    (_checksum(x), _checksum(y)) for x, y in zip(self.kept, self._labels, strict=True)
                ]
                self.kept = None
            else:
                self._checksums.append((_checksum(images), _checksum(labels)))
        if not self._labels:
            raise ValleysError(
                f"{name}: it yields no batches{_READ_BEFORE}; give a loader of (images, labels)"
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
        for images, labels in self._read():
            count += 1
            if count > len(self._checksums):
                break
            now = _checksum(images), _checksum(labels)
            for what, one, other in zip(("images", "labels"), now, self._checksums[count - 1], strict=True):
                if one != other:
                    self._changed(f"batch {count - 1} has other {what} than when it was read first")
            yield images, labels
        if count != len(self._checksums):
            more = "more" if count > len(self._checksums) else "fewer"
            self._changed(f"it yields {more} batches than the {len(self._checksums)} of its first reading")

    def _changed(self, how: str) -> None:
        raise ValleysError(
            f"{self.name}: {how}; give a DataLoader with shuffle=False that does not augment, or fewer "
            "images, so that they can be kept"
        )

    def first(self) -> Tensor:
        """Return the first images, `TRIED` of them or what there is, without reading the loader."""
        return self._first

    def labels(self) -> Iterator[Tensor]:
        """Yield the labels batch by batch, without reading images."""
        yield from self._labels

    def _read(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Read the loader with the same random numbers each time, and leave those of a user alone."""
        state = torch.get_rng_state()
        torch.set_rng_state(self._random)
        alike = _Alike(self.name)
        try:
            with one_line(f"{self.name}: reading it"):
                for i, batch in enumerate(self.loader):
                    images, labels = self._pair(batch, i)
                    alike.check(i, images=images, labels=labels)
                    yield _owned(images, self.device), _owned(labels, self.device)
        finally:
            torch.set_rng_state(state)

    def _pair(self, batch: Any, i: int) -> tuple[Tensor, Tensor]:
        pair = _unambiguous(batch, i, self.name)[:2]
        fit = len(pair) == 2 and isinstance(pair[0], Tensor | Inputs) and isinstance(pair[1], Tensor)
        if not fit:
            raise ValleysError(
                f"{self.name}: batch {i} is {what(batch)}; it must be a pair (images, labels) of tensors"
                f"{_how_to_pick(batch)}"
            )
        images, labels = pair
        if isinstance(images, Inputs):
            return pair
        if images.dim() == 0 or labels.dim() == 0 or len(images) != len(labels) or len(images) == 0:
            raise ValleysError(
                f"{self.name}: batch {i} has images of shape {tuple(images.shape)} and labels of shape "
                f"{tuple(labels.shape)}; there must be one label for each of one or more images"
            )
        return images, labels


Batches = SplitBatches | LoaderBatches
"""Batches that nobody else changes."""


def images_of(batches: Any, device: torch.device | None, name: str = "batches") -> Iterator[Tensor]:
    """Yield the images of each batch, on a device, as tensors that nobody else changes.

    Parameters
    ----------
    batches
        Tensors of images, or tuples or lists that begin with them, as a loader yields. Batches of ours
        (`SplitBatches`, `LoaderBatches`) are given as they are.
    device
        None: where the images are.

    Raises
    ------
    ValleysError
        When there are no batches, one is something else, or reading them raises.
    """
    if isinstance(batches, Batches):
        yield from (images for images, _ in batches)
        return
    if isinstance(batches, Tensor) or not isinstance(batches, Iterable):
        cut = {"Tensor": "images.split(100)", "Split": "split.batches(1000)"}
        kind = type(batches).__name__
        raise ValleysError(f"{name}: {kind} is no batches of images; give {cut.get(kind, 'a loader')}")
    alike, empty = _Alike(name), True
    with one_line(f"{name}: reading them"):
        for i, batch in enumerate(batches):
            whole = isinstance(batch, Tensor)
            images = batch if whole else next(iter(_unambiguous(batch, i, name)), None)
            if not isinstance(images, Tensor):
                raise ValleysError(
                    f"{name}: batch {i} is {what(batch)}; it must be a tensor of images, or a tuple or list "
                    f"that begins with one{_how_to_pick(batch)}"
                )
            if images.dim() == 0 or len(images) == 0:
                raise ValleysError(
                    f"{name}: batch {i} has images of shape {tuple(images.shape)}; there must be one or more"
                )
            alike.check(i, images=images)
            empty = False
            yield _owned(images, images.device if device is None else device)
    if empty:
        raise ValleysError(f"BN refresh got no images: there are no batches{_READ_BEFORE}")


_READ_BEFORE = " (an iterator gives them once)"


class _Alike:
    """Checks that batches are of one kind: a buffer of another type or rank is no batch of the same set."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kinds: dict[str, tuple[torch.dtype, int]] = {}

    def check(self, i: int, **tensors: Tensor) -> None:
        for what, tensor in tensors.items():
            first, here = self.kinds.setdefault(what, kind := (tensor.dtype, tensor.dim())), kind
            if here != first:
                raise ValleysError(
                    f"{self.name}: batch {i} has {what} of {here[0]} with {here[1]} dimensions, batch 0 of "
                    f"{first[0]} with {first[1]}; all batches must be alike"
                )


def _owned(tensor: Any, device: torch.device | str) -> Any:
    """Return a tensor's values on a device, in memory that its maker does not know; sparse ones as dense."""
    if isinstance(tensor, Inputs):
        return tensor.map(lambda each: _owned(each, device))
    if tensor.layout != torch.strided:
        return tensor.detach().to(device).to_dense()
    there = tensor.detach().to(device)
    return there.clone() if there.device == tensor.device else there  # `to` copies to another device only


def _checksum(tensor: Tensor | Inputs) -> int:
    """Return the CRC-32 of a tensor's values."""
    if isinstance(tensor, Inputs):
        return zlib.crc32(repr([_checksum(each) for each in tensor.tensors]).encode())
    return zlib.crc32(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())


def _unambiguous(batch: Any, i: int, name: str) -> tuple[Any, ...] | list[Any]:
    """Return a batch that is a tuple or list, else nothing; three tensors could be anything."""
    if not isinstance(batch, tuple | list):
        return ()
    if sum(isinstance(part, Tensor) for part in batch) > 2:
        raise ValleysError(
            f"{name}: batch {i} is {what(batch)}; which of its tensors are images and labels? Say so, as in "
            f"valleys.data.loaders.pick(loader, 0, {len(batch) - 1})"
        )
    return batch


def what(batch: Any) -> str:
    """Return what a batch is, in words for a message."""
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} of {', '.join(map(str, batch)) or 'nothing'}"
    if isinstance(batch, tuple | list):
        return f"a {type(batch).__name__} of {', '.join(type(part).__name__ for part in batch) or 'nothing'}"
    return f"a {type(batch).__name__}"


def _how_to_pick(batch: Any) -> str:
    if any(type(part).__module__ == "numpy" for part in (batch if isinstance(batch, tuple | list) else ())):
        return "; turn arrays into tensors, as torch.utils.data.default_collate does"
    if isinstance(batch, tuple | list):
        at = [i for i, part in enumerate(batch) if isinstance(part, Tensor)]
    elif isinstance(batch, Mapping):
        at = list(batch)
    else:
        at = [name for name, part in getattr(batch, "__dict__", {}).items() if isinstance(part, Tensor)]
    return (
        f"; take two, as in valleys.data.loaders.pick(loader, {at[0]!r}, {at[-1]!r})" if len(at) > 1 else ""
    )


def batches(
    data: Split | Loader, batch_size: int, device: torch.device | str, name: str = "loader"
) -> Batches:
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
