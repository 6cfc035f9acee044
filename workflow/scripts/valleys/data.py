"""The split: its images, its cache file, and the batches that training draws from it.

A split keeps its images as uint8, on whatever device it is moved to, and turns the few that are asked for
into normalised float32. Images too many for memory stay in the cache file (``valleys.stored``) and go to the
device a batch at a time; batches are the same bytes either way. All random numbers are drawn on a CPU
generator, so that the same seed gives the same batches on any device. Nothing here reads an original data
set; see ``valleys.data_sources``.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from valleys import stored
from valleys.errors import ValleysError
from valleys.storage.files import atomic
from valleys.stored import Place, Stored

AUGMENT_DEFAULTS: dict[str, Any] = {"shift": 0, "flip": False, "pad_mode": "zero"}
PAD_MODES = ("zero", "reflect")

_FORMAT = "valleys-split-1"
_RESERVED = ("format", "classes", "mean", "std", "checksum")
_REMEDY = "delete it and rerun prepare_dataset"
RESIDENT_MB = 20_000  # ``execution.resident_mb`` where nobody says
_CHUNK = 1024  # images written at a time
_BLOCK = 1 << 24  # bytes read at a time for a checksum
_LONGEST = "-1.7976931348623157e+308"  # no float of 64 bits is longer

log = logging.getLogger("valleys")


# --- the split --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set, the training or the test images, as uint8.

    Attributes
    ----------
    images
        uint8, shape (N, C, H, W): a tensor, or `Stored` where they stay in their file.
    labels
        int64, shape (N,), each in ``[0, classes)``.
    classes
        Number of classes.
    mean, std
        Per channel, of the *training* images scaled to [0, 1]; the test split carries the same numbers.
    """

    images: Tensor | Stored
    labels: Tensor
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse tensors of the wrong type or shape (cheap checks only; no value is read)."""
        problem = _shape_problem(self.images, self.labels, self.classes, self.mean, self.std)
        if problem:
            raise ValueError(problem)

    def __len__(self) -> int:
        """Return the number of images."""
        return self.images.shape[0]

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """Shape of one image: (C, H, W)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """The device that batches are on. It holds the labels, and the images unless they are in a file."""
        return self.labels.device

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        """Mean and std as (C, 1, 1) tensors beside the batches."""
        shape = (-1, 1, 1)
        return (
            torch.tensor(self.mean, dtype=torch.float32, device=self.device).view(shape),
            torch.tensor(self.std, dtype=torch.float32, device=self.device).view(shape),
        )

    def checksum(self) -> str:
        """Return the SHA-256 of all that the split holds; its images must be in memory."""
        about = {"classes": self.classes, "mean": self.mean, "std": self.std}
        digest = hashlib.sha256(json.dumps([about, self.images.shape]).encode())
        for tensor in (self.images, self.labels):
            digest.update(tensor.cpu().contiguous().numpy())
        return digest.hexdigest()

    def subset(self, n: int | None, seed: int = 0) -> Split:
        """Return a fixed random subset of ``n`` images; self when ``n`` is None or not below the length.

        The choice depends on the length, ``n`` and ``seed`` alone. A larger subset of the same seed
        contains the smaller one; the images keep their order. Of images in a file, a subset that is small
        enough for memory is read into it.
        """
        _check_subset_size(n)
        if n is None or n >= len(self):
            return self
        chosen = subset_indices(len(self), n, seed)
        if isinstance(self.images, Stored):
            images = self.images.subset(chosen)
        else:
            images = self.images[chosen.to(self.device)]
        part = replace(self, images=images, labels=self.labels[chosen.to(self.device)])
        return part.to(self.device)

    def to(self, device: torch.device | str) -> Split:
        """Return the split with its tensors on ``device``; the tensors are shared if already there.

        Images in a file stay there: their batches will be on ``device``.
        """
        images = self.images if isinstance(self.images, Stored) else self.images.to(device)
        return replace(self, images=images, labels=self.labels.to(device))

    def normalise(self, images: Tensor) -> Tensor:
        """Turn uint8 images (..., C, H, W) into float32: ``(x / 255 - mean) / std``."""
        mean, std = self._scale
        return images.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)

    def floats(self, index: Place) -> Tensor:
        """Return the images at ``index`` (a slice, a number or an index tensor), normalised float32."""
        return self.normalise(self.images[index].to(self.device))

    def pixels(self, places: Iterable[Place]) -> Iterator[Tensor]:
        """Yield the uint8 images at each place on the split's device.

        From a file to a GPU by way of pinned memory, the next ones read while these are in use.
        """
        if isinstance(self.images, Stored) and self.device.type == "cuda":
            for images in stored.ahead(partial(self.images.read, pinned=True), places):
                yield images.to(self.device, non_blocking=True)
        else:
            for at in places:
                yield self.images[at].to(self.device)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(normalised images, labels)`` in order, the last batch as long as what is left."""
        places = [slice(start, start + batch_size) for start in range(0, len(self), batch_size)]
        for at, images in zip(places, self.pixels(places), strict=True):
            yield self.normalise(images), self.labels[at]


def _shape_problem(
    images: Tensor | Stored, labels: Tensor, classes: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> str | None:
    """Say what is wrong with the parts of a split, label values aside, or return None."""
    if images.dtype != torch.uint8 or images.ndim != 4:
        return f"images are {images.dtype} of shape {tuple(images.shape)}; they must be uint8 (N, C, H, W)"
    if 0 in images.shape:
        return f"images have the empty shape {tuple(images.shape)}; at least one image is needed"
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        return (
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}; "
            f"they must be int64 of shape ({images.shape[0]},), one for each image"
        )
    if classes < 1:
        return f"classes is {classes}; it must be at least 1"
    if len(mean) != images.shape[1] or len(std) != images.shape[1]:
        return f"mean and std hold {len(mean)} and {len(std)} numbers for {images.shape[1]} channels"
    if not all(math.isfinite(m) for m in mean) or not all(math.isfinite(s) and s > 0 for s in std):
        return f"mean {list(mean)} and std {list(std)} must be finite, and std above 0"
    return None


def _label_problem(labels: Tensor, classes: int) -> str | None:
    """Name the first label outside ``[0, classes)``, or return None."""
    outside = ((labels < 0) | (labels >= classes)).nonzero()
    if not len(outside):
        return None
    row = int(outside[0])
    return f"the label of image {row} is {int(labels[row])}; labels must lie in 0..{classes - 1}"


def _check_subset_size(n: int | None) -> None:
    """Raise unless ``n`` can be the size of a subset."""
    if n is None:
        return
    if isinstance(n, bool) or not isinstance(n, int) or n <= 0:
        raise ValleysError(
            f"a subset of {n!r} images was asked for; the number must be 1 or more, or null for all"
        )


def subset_indices(total: int, n: int | None, seed: int = 0) -> Tensor:
    """Return the ascending indices (int64, CPU) of a fixed random subset of ``n`` out of ``total``.

    All indices when ``n`` is None or not below ``total``.
    """
    _check_subset_size(n)
    if n is None or n >= total:
        return torch.arange(total)
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(total, generator=generator)[:n].sort().values


class Tally:
    """How often each value occurs in each channel of uint8 images, for their mean and deviation.

    Counted a few images at a time; counts are exact, whatever the pieces.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros((), dtype=torch.int64)

    def add(self, images: Tensor) -> None:
        """Count images (N, C, H, W)."""
        channels = images.transpose(0, 1).flatten(1)
        self.counts = (
            self.counts + torch.stack([channel.bincount(minlength=256) for channel in channels]).cpu()
        )

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of each channel, as `channel_statistics` does."""
        mean, std = [], []
        for counts in self.counts.tolist():
            # In integers, so that the difference loses nothing.
            count, first, second = (sum(n * value**k for value, n in enumerate(counts)) for k in range(3))
            variance = (count * second - first**2) / count**2
            mean.append(first / count / 255)
            std.append(math.sqrt(variance) / 255 if variance > 0 else 1.0)
        return tuple(mean), tuple(std)


def channel_statistics(images: Tensor, chunk: int = 4096) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation (of the population) per channel of uint8 images scaled to [0, 1].

    Exact (`Tally`), ``chunk`` images at a time. A channel that is constant gets std 1, so that normalising it
    gives zeros rather than a division by zero.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"images are {images.dtype} {tuple(images.shape)}; non-empty uint8 (N, C, H, W) is needed"
        )
    tally = Tally()
    for part in images.split(chunk):
        tally.add(part)
    return tally.statistics()


# --- augmentation and batches -----------------------------------------------------------------------------


def check_augment(spec: Mapping[str, Any] | None, in_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return the augmentation ``spec`` with defaults filled in, or raise ``ValleysError``.

    Keys: ``shift`` (pixels of padding before the random crop, 0 for none), ``flip`` (mirror left-right with
    probability 1/2), ``pad_mode`` (``zero`` or ``reflect``). None means no augmentation.
    """
    spec = dict(spec or {})
    unknown = sorted(set(spec) - set(AUGMENT_DEFAULTS))
    if unknown:
        raise ValleysError(
            f"augment has the unknown key {unknown[0]!r}; it takes: {', '.join(AUGMENT_DEFAULTS)}"
        )
    spec = {**AUGMENT_DEFAULTS, **spec}
    shift, flip, pad_mode = spec["shift"], spec["flip"], spec["pad_mode"]
    if isinstance(shift, bool) or not isinstance(shift, int) or shift < 0:
        raise ValleysError(f"augment.shift is {shift!r}; it must be an integer of 0 or more pixels")
    if not isinstance(flip, bool):
        raise ValleysError(f"augment.flip is {flip!r}; it must be true or false")
    if pad_mode not in PAD_MODES:
        raise ValleysError(f"augment.pad_mode is {pad_mode!r}; it must be one of: {', '.join(PAD_MODES)}")
    smallest = min(in_shape[1:])
    if pad_mode == "reflect" and shift >= smallest:
        raise ValleysError(
            f"augment.shift is {shift}; to pad by reflection it must be below the image side, {smallest}"
        )
    return spec


def draw_augmentation(n: int, spec: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the random numbers for ``n`` images from the CPU ``generator``: first crops, then flips.

    Returns
    -------
    offsets : Tensor
        int64 (2, n): row and column of each crop's corner in the padded image, in ``0 .. 2 * shift``; the
        middle, ``shift``, leaves the image where it is. Nothing is drawn when ``shift`` is 0.
    flips : Tensor
        bool (n,). Nothing is drawn when ``flip`` is off.
    """
    if spec["shift"]:
        offsets = torch.randint(0, 2 * spec["shift"] + 1, (2, n), generator=generator)
    else:
        offsets = torch.zeros((2, n), dtype=torch.int64)
    if spec["flip"]:
        flips = torch.randint(0, 2, (n,), generator=generator).bool()
    else:
        flips = torch.zeros(n, dtype=torch.bool)
    return offsets, flips


def _pad(images: Tensor, shift: int, pad_mode: str) -> Tensor:
    """Pad height and width by ``shift`` pixels on each side."""
    padded = torch.nn.functional.pad(images, (shift,) * 4)
    if pad_mode == "reflect":
        # torch's own reflection padding is not promised for uint8 on every device; copying the edges is.
        for dim in (2, 3):  # the second pass reflects the rows that the first has filled, corners included
            end = shift + images.shape[dim]  # of the image within the padded one
            padded.narrow(dim, 0, shift).copy_(padded.narrow(dim, shift + 1, shift).flip(dim))
            padded.narrow(dim, end, shift).copy_(padded.narrow(dim, end - 1 - shift, shift).flip(dim))
    return padded


def apply_augmentation(images: Tensor, spec: Mapping[str, Any], offsets: Tensor, flips: Tensor) -> Tensor:
    """Crop each padded image at its offset, then mirror those whose flip is set; uint8 in, uint8 out."""
    n, _, height, width = images.shape
    if spec["shift"]:
        offsets = offsets.to(images.device)
        # Every window of every padded image, as a view; one indexing then copies the n that were drawn.
        # Channels go last before unfolding, so that the indexed dimensions are adjacent (2.5x faster).
        windows = _pad(images, spec["shift"], spec["pad_mode"]).permute(0, 2, 3, 1)
        windows = windows.unfold(1, height, 1).unfold(2, width, 1)
        images = windows[torch.arange(n, device=images.device), offsets[0], offsets[1]]
    if spec["flip"]:
        images = torch.where(flips.to(images.device)[:, None, None, None], images.flip(3), images)
    return images


def augment(images: Tensor, spec: Mapping[str, Any] | None, generator: torch.Generator) -> Tensor:
    """Shift and mirror a batch of uint8 images (N, C, H, W), each on its own; see ``check_augment``.

    The numbers come from the CPU ``generator``, whatever device holds the images. The input is not changed,
    and is itself returned when the spec asks for nothing.
    """
    spec = check_augment(spec, tuple(images.shape[1:]))
    return apply_augmentation(images, spec, *draw_augmentation(len(images), spec, generator))


def draw_permutation(split: Split, generator: torch.Generator) -> Tensor:
    """Draw an epoch's order (int64, CPU) from the CPU ``generator``."""
    return torch.randperm(len(split), generator=generator)


def epoch_batches(
    split: Split,
    permutation: Tensor,
    batch_size: int,
    generator: torch.Generator,
    augment_spec: Mapping[str, Any] | None,
    start: int = 0,
    *,
    drop_last: bool = False,
    join_last: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over one epoch: normalised float32 images and int64 labels, on the split's device.

    Parameters
    ----------
    permutation
        The epoch's order, from ``draw_permutation``; indices into the split.
    generator
        CPU generator of the augmentation. A batch's numbers are drawn when that batch is asked for and not
        before, so the generator's state after batch ``s - 1`` is the state from which batch ``s`` resumes.
    start
        Skip this many batches without drawing anything, for resuming with a restored generator.
    drop_last
        Leave out a last batch smaller than ``batch_size``.
    join_last
        Add the last batch to the one before it.
    """
    if batch_size < 1:
        raise ValleysError(f"batch_size is {batch_size}; it must be at least 1")
    if start < 0:
        raise ValueError(f"start is {start}; it must be 0 or more")
    spec = check_augment(augment_spec, split.in_shape)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        order = permutation.to(split.images.device)
        labels = split.labels[permutation.to(split.device)]
        end = len(order) - len(order) % batch_size if drop_last else len(order)
        places = [slice(low, low + batch_size) for low in range(0, end, batch_size)]
        if join_last and len(places) > 1:
            places[-2:] = [slice(places[-2].start, end)]
        places = places[start:]
        for at, images in zip(places, split.pixels(order[at] for at in places), strict=True):
            numbers = draw_augmentation(len(images), spec, generator)
            yield split.normalise(apply_augmentation(images, spec, *numbers)), labels[at]

    return batches()


# --- the cache file ---------------------------------------------------------------------------------------


def _sha(metadata: Mapping[str, str], shape: Sequence[int]) -> Any:
    """Return the SHA-256 of the metadata (the checksum aside) and the shape; images and labels follow."""
    described = {key: value for key, value in metadata.items() if key != "checksum"}
    return hashlib.sha256(json.dumps([described, list(shape)], sort_keys=True).encode())


def _checksum(metadata: Mapping[str, str], images: Tensor, labels: Tensor) -> str:
    """Return the SHA-256 over the metadata (the checksum aside), the shape, and both tensors' bytes."""
    digest = _sha(metadata, images.shape)
    digest.update(images.numpy())
    digest.update(labels.numpy())
    return digest.hexdigest()


def save_split(path: str | Path, split: Split, metadata: Mapping[str, str] | None = None) -> None:
    """Write ``split`` to one safetensors file, whole or not at all; see `write_split`."""
    write_split(
        path,
        split.labels.cpu(),
        (part.cpu() for part in split.pixels(slice(i, i + _CHUNK) for i in range(0, len(split), _CHUNK))),
        split.images.shape,
        split.classes,
        (split.mean, split.std),
        metadata,
    )


def write_split(
    path: str | Path,
    labels: Tensor,
    chunks: Iterable[Tensor],
    shape: Sequence[int],
    classes: int,
    statistics: tuple[Sequence[float] | None, Sequence[float] | None] = (None, None),
    metadata: Mapping[str, str] | None = None,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Write a split to one safetensors file, whole or not at all, without ever holding all of its images.

    The file is written under a temporary name in the same folder, synced, and renamed into place. The same
    split and metadata give the same bytes (the library's own writer orders its header at random and leaves
    the file readable by its owner alone, so the few lines of the format are written here).

    Statistics and checksum come first in the file and are known last. So the images are written behind room
    for the longest header that may come, then read once more, for the checksum, and moved up to the header.

    Parameters
    ----------
    labels
        int64 (N,), CPU.
    chunks
        The images in order, uint8 (n, C, H, W), CPU.
    shape
        (N, C, H, W).
    statistics
        Mean and std, by channel; what is None is that of these images.
    metadata
        Strings to keep beside the tensors, such as the source's options. The keys ``format``, ``classes``,
        ``mean``, ``std`` and ``checksum`` are ours.

    Returns
    -------
    mean, std

    Raises
    ------
    ValleysError
        When a label is out of range or the file cannot be written; whatever ``chunks`` raises.
    """
    path, labels = Path(path), labels.contiguous()
    metadata = dict(metadata or {})
    for key, value in metadata.items():
        if key in _RESERVED:
            raise ValueError(f"the metadata key {key!r} is reserved")
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata must map strings to strings, not {key!r} to {value!r}")
    problem = _label_problem(labels, classes)
    if problem:
        raise ValleysError(f"{path} was not written: {problem}")
    metadata |= {"format": _FORMAT, "classes": str(classes), "checksum": "0" * 64}
    expected = ([_LONGEST] * shape[1] if given is None else given for given in statistics)
    metadata |= {key: json.dumps(value) for key, value in zip(("mean", "std"), expected, strict=True)}
    room = len(_header(metadata, shape))
    size, tally, written = math.prod(shape), Tally(), hashlib.sha256()

    with atomic(path) as temporary, temporary.open("w+b", buffering=0) as file:
        begin = room + labels.nbytes
        file.seek(begin)
        for chunk in chunks:
            chunk = chunk.contiguous()
            if None in statistics:
                tally.add(chunk)
            written.update(chunk.numpy())
            _write(file, chunk.numpy())
        if file.tell() != begin + size:
            raise ValueError(f"{file.tell() - begin} bytes of images were given for the shape {tuple(shape)}")
        found = tally.statistics() if None in statistics else statistics
        mean, std = (
            tuple(by_channel if given is None else given)
            for by_channel, given in zip(found, statistics, strict=True)
        )
        metadata |= {"mean": json.dumps(mean), "std": json.dumps(std)}
        shift = room - len(_header(metadata, shape))
        digest, back, at = _sha(metadata, shape), hashlib.sha256(), begin
        while block := os.pread(file.fileno(), min(_BLOCK, begin + size - at), at):
            digest.update(block)
            back.update(block)
            if shift:
                file.seek(at - shift)
                _write(file, block)
            at += len(block)
        if back.digest() != written.digest():
            raise ValleysError(f"{path} was not written: its disk gives back other bytes than it was given")
        file.truncate(begin + size - shift)
        digest.update(labels.numpy())
        metadata["checksum"] = digest.hexdigest()
        file.seek(0)
        _write(file, _header(metadata, shape))
        _write(file, labels.numpy())  # labels first: their bytes are aligned
    return mean, std


def _header(metadata: Mapping[str, str], shape: Sequence[int]) -> bytes:
    """Return all that precedes the labels in a file."""
    middle = shape[0] * 8
    header = json.dumps(
        {
            "__metadata__": dict(sorted(metadata.items())),
            "labels": {"dtype": "I64", "shape": [shape[0]], "data_offsets": [0, middle]},
            "images": {
                "dtype": "U8",
                "shape": list(shape),
                "data_offsets": [middle, middle + math.prod(shape)],
            },
        },
        separators=(",", ":"),
    ).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def _write(file: io.FileIO, content: Any) -> None:
    """Write all of an array or of bytes: one call of the system writes 2 GB at most, or less."""
    left = memoryview(content).cast("B")
    while left:
        left = left[file.write(left) :]


def _open(path: Path) -> tuple[dict[str, str], dict[str, tuple[str, tuple[int, ...]]]]:
    """Read a cache file's metadata, and types and shapes; every failure is a ``ValleysError``."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise ValleysError(f"{path} {what}; run prepare_dataset to make it")
    try:
        # Not for torch, whose view of a file is one it could write to: Linux refuses that of a file larger
        # than memory.
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in sorted(file.keys())}
            described = {name: (s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValleysError(
            f"{path} is not a whole safetensors file, truncated or damaged ({reason}); {_REMEDY}"
        ) from error
    if set(described) != {"images", "labels"}:
        raise ValleysError(
            f"{path} holds the tensors {sorted(described)}; a split holds exactly images and labels; "
            f"{_REMEDY}"
        )
    if metadata.get("format") != _FORMAT:
        raise ValleysError(
            f"{path} has the format {metadata.get('format')!r}, but this version of prepare_dataset writes "
            f"{_FORMAT!r}; {_REMEDY}"
        )
    missing = [key for key in _RESERVED if key not in metadata]
    if missing:
        raise ValleysError(f"{path} lacks the metadata {', '.join(missing)}; {_REMEDY}")
    return metadata, described


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of a cache file, the keys of ``save_split`` among them, without its tensors."""
    return _open(Path(path))[0]


def _read_resident(path: Path) -> tuple[Tensor, Tensor]:
    """Read images and labels into memory."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            # Copied out of the mapped file, so that no later change to the file reaches us.
            return file.get_tensor("images").clone(), file.get_tensor("labels").clone()
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValleysError(
            f"{path} is not a whole safetensors file, truncated or damaged ({reason}); {_REMEDY}"
        ) from error
    except RuntimeError as error:  # torch's word for an allocation that fails
        size = path.stat().st_size / 1e6
        raise ValleysError(
            f"{path} takes {size:.0f} MB, more than there are; lower execution.resident_mb below that, and "
            "it stays in the file that prepare_dataset wrote"
        ) from error


def _find_stored(path: Path, shape: tuple[int, ...], most: float) -> tuple[Stored, Tensor, bytes]:
    """Return the images as they lie in the file, the labels, and the SHA-256 of header and labels."""
    with path.open("rb") as file:
        size = file.read(8)
        header = file.read(int.from_bytes(size, "little"))
        offsets = {name: entry.get("data_offsets") for name, entry in json.loads(header).items()}
        data = file.tell()
        file.seek(data + offsets["labels"][0])
        labels = bytearray(file.read(8 * shape[0]))
    head = hashlib.sha256(size + header + labels).digest()
    images = Stored(path, data + offsets["images"][0], shape, most)
    return images, torch.frombuffer(labels, dtype=torch.int64), head


def _check_stored(images: Stored, labels: Tensor, head: bytes, metadata: Mapping[str, str]) -> bool:
    """Return whether a file is what its checksum says, or was when the checksums of its images were kept.

    Its images are checked by these from now on.
    """
    images.digests = stored.read_digests(images.path, head, len(labels))
    if images.digests is None:
        log.info("checking %s, %d images: once, then each image when it is read", images.path, len(labels))
        whole, digests = _sha(metadata, images.shape), bytearray()
        for image in images.each():
            whole.update(image)
            digests += stored.digest(image)
        whole.update(labels.numpy())
        if whole.hexdigest() != metadata["checksum"]:
            return False
        images.digests = bytes(digests)
        stored.keep_digests(images.path, head, images.digests)
    return True


def load_split(path: str | Path, verify: bool = True, resident_mb: float = math.inf) -> Split:
    """Read a cache file and check it.

    Always checked: that the file is whole, the tensors' names, types and shapes, the statistics, and the
    labels' range. ``verify`` adds the checksum, without which a flipped bit in the images goes unseen.

    Parameters
    ----------
    resident_mb
        Images that take more MB stay in the file, and are checked when they are read (``valleys.stored``).

    Raises
    ------
    ValleysError
        On any of these; the line names the file, what is wrong, and what to do.
    """
    path = Path(path)
    metadata, described = _open(path)
    try:
        classes = int(metadata["classes"])
        mean, std = (tuple(float(value) for value in json.loads(metadata[key])) for key in ("mean", "std"))
    except (ValueError, TypeError) as error:
        raise ValleysError(f"{path} has unreadable classes, mean or std ({error}); {_REMEDY}") from error
    kind, shape = described["images"]
    as_ours = kind == "U8" and len(shape) == 4 and described["labels"] == ("I64", shape[:1])
    if as_ours and math.prod(shape) > resident_mb * 1e6:
        images, labels, head = _find_stored(path, shape, resident_mb * 1e6)
        whole = partial(_check_stored, images, labels, head, metadata)
    else:
        images, labels = _read_resident(path)
        whole = lambda: _checksum(metadata, images, labels) == metadata["checksum"]  # noqa: E731
    problem = _shape_problem(images, labels, classes, mean, std)
    if not problem and verify and not whole():
        raise ValleysError(f"{path} is damaged: its contents do not match its SHA-256 checksum; {_REMEDY}")
    problem = problem or _label_problem(labels, classes)
    if problem:
        raise ValleysError(f"{path}: {problem}; {_REMEDY}")
    return Split(images, labels, classes, mean, std)
