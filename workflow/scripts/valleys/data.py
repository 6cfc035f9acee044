"""Images in memory: the split, its cache file, and the batches that training draws from it.

A split keeps its images as uint8, on whatever device it is moved to, and turns the few that are asked for
into normalised float32. All random numbers are drawn on a CPU generator, so that the same seed gives the
same batches on any device. Nothing here reads an original data set; see ``valleys.data_sources``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from valleys.errors import ValleysError
from valleys.files import atomic

AUGMENT_DEFAULTS: dict[str, Any] = {"shift": 0, "flip": False, "pad_mode": "zero"}
PAD_MODES = ("zero", "reflect")

_FORMAT = "valleys-split-1"
_RESERVED = ("format", "classes", "mean", "std", "checksum")
_REMEDY = "delete it and rerun prepare_dataset"


# --- the split --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set, the training or the test images, resident as uint8.

    Attributes
    ----------
    images
        uint8, shape (N, C, H, W).
    labels
        int64, shape (N,), each in ``[0, classes)``.
    classes
        Number of classes.
    mean, std
        Per channel, of the *training* images scaled to [0, 1]; the test split carries the same numbers.
    """

    images: Tensor
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
        """The device that holds the images."""
        return self.images.device

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        """Mean and std as (C, 1, 1) tensors beside the images."""
        shape = (-1, 1, 1)
        return (
            torch.tensor(self.mean, dtype=torch.float32, device=self.device).view(shape),
            torch.tensor(self.std, dtype=torch.float32, device=self.device).view(shape),
        )

    def subset(self, n: int | None, seed: int = 0) -> Split:
        """Return a fixed random subset of ``n`` images; self when ``n`` is None or not below the length.

        The choice depends on the length, ``n`` and ``seed`` alone. A larger subset of the same seed
        contains the smaller one; the images keep their order.
        """
        _check_subset_size(n)
        if n is None or n >= len(self):
            return self
        chosen = subset_indices(len(self), n, seed).to(self.device)
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def to(self, device: torch.device | str) -> Split:
        """Return the split with its tensors on ``device``; the tensors are shared if already there."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def normalise(self, images: Tensor) -> Tensor:
        """Turn uint8 images (..., C, H, W) into float32: ``(x / 255 - mean) / std``."""
        mean, std = self._scale
        return images.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)

    def floats(self, index: slice | int | Tensor) -> Tensor:
        """Return the images at ``index`` (a slice, a number or an index tensor), normalised float32."""
        return self.normalise(self.images[index])

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(normalised images, labels)`` in order, the last batch as long as what is left."""
        for start in range(0, len(self), batch_size):
            at = slice(start, start + batch_size)
            yield self.floats(at), self.labels[at]


def _shape_problem(
    images: Tensor, labels: Tensor, classes: int, mean: tuple[float, ...], std: tuple[float, ...]
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


def channel_statistics(images: Tensor, chunk: int = 4096) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation (of the population) per channel of uint8 images scaled to [0, 1].

    The sums are taken in float64, ``chunk`` images at a time; being sums of integers they are exact. A
    channel that is constant gets std 1, so that normalising it gives zeros rather than a division by zero.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"images are {images.dtype} {tuple(images.shape)}; non-empty uint8 (N, C, H, W) is needed"
        )
    total = torch.zeros(images.shape[1], dtype=torch.float64, device=images.device)
    squares = torch.zeros_like(total)
    for part in images.split(chunk):
        values = part.to(torch.float64)
        total += values.sum(dim=(0, 2, 3))
        squares += values.square_().sum(dim=(0, 2, 3))
    count = images.numel() // images.shape[1]
    mean, std = [], []
    for first, second in zip(total.tolist(), squares.tolist(), strict=True):
        # In integers, so that the difference loses nothing.
        variance = (count * int(second) - int(first) ** 2) / count**2
        mean.append(first / count / 255)
        std.append(math.sqrt(variance) / 255 if variance > 0 else 1.0)
    return tuple(mean), tuple(std)


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
    """
    if batch_size < 1:
        raise ValleysError(f"batch_size is {batch_size}; it must be at least 1")
    if start < 0:
        raise ValueError(f"start is {start}; it must be 0 or more")
    spec = check_augment(augment_spec, split.in_shape)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        order = permutation.to(split.device)
        end = len(order) - len(order) % batch_size if drop_last else len(order)
        for low in range(start * batch_size, end, batch_size):
            chosen = order[low : low + batch_size]
            numbers = draw_augmentation(len(chosen), spec, generator)
            images = apply_augmentation(split.images[chosen], spec, *numbers)
            yield split.normalise(images), split.labels[chosen]

    return batches()


# --- the cache file ---------------------------------------------------------------------------------------


def _checksum(metadata: Mapping[str, str], images: Tensor, labels: Tensor) -> str:
    """Return the SHA-256 over the metadata (the checksum aside), the shape, and both tensors' bytes."""
    described = {key: value for key, value in metadata.items() if key != "checksum"}
    digest = hashlib.sha256(json.dumps([described, list(images.shape)], sort_keys=True).encode())
    digest.update(images.numpy())
    digest.update(labels.numpy())
    return digest.hexdigest()


def save_split(path: str | Path, split: Split, metadata: Mapping[str, str] | None = None) -> None:
    """Write ``split`` to one safetensors file, whole or not at all.

    The file is written under a temporary name in the same folder, synced, and renamed into place. The same
    split and metadata give the same bytes (the library's own writer orders its header at random and leaves
    the file readable by its owner alone, so the few lines of the format are written here).

    Parameters
    ----------
    metadata
        Strings to keep beside the tensors, such as the source's options. The keys ``format``, ``classes``,
        ``mean``, ``std`` and ``checksum`` are ours.
    """
    path = Path(path)
    metadata = dict(metadata or {})
    for key, value in metadata.items():
        if key in _RESERVED:
            raise ValueError(f"the metadata key {key!r} is reserved")
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata must map strings to strings, not {key!r} to {value!r}")
    problem = _label_problem(split.labels, split.classes)
    if problem:
        raise ValleysError(f"{path} was not written: {problem}")
    images, labels = split.images.cpu().contiguous(), split.labels.cpu().contiguous()
    metadata |= {
        "format": _FORMAT,
        "classes": str(split.classes),
        "mean": json.dumps(split.mean),
        "std": json.dumps(split.std),
    }
    metadata["checksum"] = _checksum(metadata, images, labels)
    middle, end = labels.nbytes, labels.nbytes + images.nbytes  # labels first: their bytes are aligned
    header = json.dumps(
        {
            "__metadata__": dict(sorted(metadata.items())),
            "labels": {"dtype": "I64", "shape": list(labels.shape), "data_offsets": [0, middle]},
            "images": {"dtype": "U8", "shape": list(images.shape), "data_offsets": [middle, end]},
        },
        separators=(",", ":"),
    ).encode()
    header += b" " * (-len(header) % 8)

    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        file.write(labels.numpy())
        file.write(images.numpy())


def _read(path: Path, tensors: bool) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read a cache file's metadata and, if asked, its tensors; every failure is a ``ValleysError``."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise ValleysError(f"{path} {what}; run prepare_dataset to make it")
    found: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            names = set(file.keys())
            if tensors and names == {"images", "labels"}:
                # Copied out of the mapped file, so that no later change to the file reaches us.
                found = {name: file.get_tensor(name).clone() for name in sorted(names)}
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValleysError(
            f"{path} is not a whole safetensors file, truncated or damaged ({reason}); {_REMEDY}"
        ) from error
    if names != {"images", "labels"}:
        raise ValleysError(
            f"{path} holds the tensors {sorted(names)}; a split holds exactly images and labels; {_REMEDY}"
        )
    if metadata.get("format") != _FORMAT:
        raise ValleysError(
            f"{path} has the format {metadata.get('format')!r}, but this version of prepare_dataset writes "
            f"{_FORMAT!r}; {_REMEDY}"
        )
    missing = [key for key in _RESERVED if key not in metadata]
    if missing:
        raise ValleysError(f"{path} lacks the metadata {', '.join(missing)}; {_REMEDY}")
    return metadata, found


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of a cache file, the keys of ``save_split`` among them, without its tensors."""
    return _read(Path(path), tensors=False)[0]


def load_split(path: str | Path, verify: bool = True) -> Split:
    """Read a cache file into memory and check it.

    Always checked: that the file is whole, the tensors' names, types and shapes, the statistics, and the
    labels' range. ``verify`` adds the checksum, without which a flipped bit in the images goes unseen.

    Raises
    ------
    ValleysError
        On any of these; the line names the file, what is wrong, and what to do.
    """
    path = Path(path)
    metadata, tensors = _read(path, tensors=True)
    images, labels = tensors["images"], tensors["labels"]
    try:
        classes = int(metadata["classes"])
        mean, std = (tuple(float(value) for value in json.loads(metadata[key])) for key in ("mean", "std"))
    except (ValueError, TypeError) as error:
        raise ValleysError(f"{path} has unreadable classes, mean or std ({error}); {_REMEDY}") from error
    problem = _shape_problem(images, labels, classes, mean, std)
    if not problem and verify and _checksum(metadata, images, labels) != metadata["checksum"]:
        raise ValleysError(f"{path} is damaged: its contents do not match its SHA-256 checksum; {_REMEDY}")
    problem = problem or _label_problem(labels, classes)
    if problem:
        raise ValleysError(f"{path}: {problem}; {_REMEDY}")
    return Split(images, labels, classes, mean, std)
