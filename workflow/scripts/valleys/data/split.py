"""A split: inputs and labels in memory or in their file, with the statistics that normalise them.

Inputs are images mostly, and called so. Of other tasks (`data.tasks`) they are any numbers, or tokens.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from valleys.data import on_disk
from valleys.data.on_disk import ImagesOnDisk, Index
from valleys.data.tasks import CLASSIFICATION, IGNORED, said
from valleys.errors import ValleysError


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set, the training or the test images.

    Attributes
    ----------
    images
        uint8, shape (N, C, H, W): a tensor, or `ImagesOnDisk` where they stay in their file. Or float32,
        shape (N, ...), numbers that are no pixels; of task ``tokens`` int64, shape (N, T).
    labels
        int64, shape (N,), each in ``[0, classes)``. Of task ``regression`` float32, shape (N, classes); of
        ``tokens`` int64, shape (N, T), and of ``segmentation`` (N, H, W), some of them `tasks.IGNORED`.
    classes
        Number of classes, of tokens, or of numbers in a label.
    mean, std
        Per channel (the second axis), of the *training* images, pixels scaled to [0, 1]; the test split
        carries the same numbers. Tokens have none.
    task
        Of `tasks.TASKS`.
    """

    images: Tensor | ImagesOnDisk
    labels: Tensor
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    task: str = CLASSIFICATION

    def __post_init__(self) -> None:
        """Refuse tensors of the wrong type or shape (cheap checks only; no value is read)."""
        problem = shape_problem(self.images, self.labels, self.classes, self.mean, self.std, self.task)
        if problem:
            raise ValueError(problem)

    def __len__(self) -> int:
        """Return the number of images."""
        return self.images.shape[0]

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one image, (C, H, W), or of one input of another kind."""
        return tuple(self.images.shape[1:])

    @property
    def kind(self) -> tuple[tuple[int, ...], int, str]:
        """What a network is built for: `in_shape`, classes and task."""
        return self.in_shape, self.classes, self.task

    @property
    def has_pixels(self) -> bool:
        """Whether inputs are images of bytes, which can be shifted and mirrored."""
        return self.images.dtype == torch.uint8

    @property
    def device(self) -> torch.device:
        """The device that batches are on. It holds the labels, and the images unless they are in a file."""
        return self.labels.device

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        """Mean and std as (C, 1, 1) tensors, or as many axes as an input has, beside the batches."""
        shape = (-1, *[1] * (self.images.ndim - 2))
        return (
            torch.tensor(self.mean, dtype=torch.float32, device=self.device).view(shape),
            torch.tensor(self.std, dtype=torch.float32, device=self.device).view(shape),
        )

    def checksum(self) -> str:
        """Return the SHA-256 of all that the split holds; its images must be in memory."""
        about = {"classes": self.classes, "mean": self.mean, "std": self.std, **said(self.task)}
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
        return self.take(subset_indices(len(self), n, seed))

    def take(self, rows: Tensor) -> Split:
        """Return the split that has the images at these rows (int64), ascending.

        Of images in a file, those that are few enough for memory are read into it.
        """
        if isinstance(self.images, ImagesOnDisk):
            images = self.images.subset(rows)
        else:
            images = self.images[rows.to(self.device)]
        part = replace(self, images=images, labels=self.labels[rows.to(self.device)])
        return part.to(self.device)

    def to(self, device: torch.device | str) -> Split:
        """Return the split with its tensors on ``device``; the tensors are shared if already there.

        Images in a file stay there: their batches will be on ``device``.
        """
        images = self.images if isinstance(self.images, ImagesOnDisk) else self.images.to(device)
        return replace(self, images=images, labels=self.labels.to(device))

    def normalise(self, images: Tensor) -> Tensor:
        """Turn uint8 images (..., C, H, W) into float32: ``(x / 255 - mean) / std``.

        Other numbers are not divided by 255, and tokens are returned as they are.
        """
        if images.dtype == torch.int64:
            return images
        mean, std = self._scale
        values = images.to(torch.float32, copy=True)
        return (values.div_(255) if self.has_pixels else values).sub_(mean).div_(std)

    def floats(self, index: Index) -> Tensor:
        """Return the images at ``index`` (a slice, a number or an index tensor), normalised float32."""
        return self.normalise(self.images[index].to(self.device))

    def pixels(self, indices: Iterable[Index]) -> Iterator[Tensor]:
        """Yield the uint8 images at each index, on the split's device.

        From a file to a GPU by way of pinned memory, the next ones read while these are in use.
        """
        if isinstance(self.images, ImagesOnDisk) and self.device.type == "cuda":
            for images in on_disk.ahead(partial(self.images.read, pinned=True), indices):
                yield images.to(self.device, non_blocking=True)
        else:
            for index in indices:
                yield self.images[index].to(self.device)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(normalised images, labels)`` in order, the last batch as long as what is left."""
        parts = [slice(start, start + batch_size) for start in range(0, len(self), batch_size)]
        for part, images in zip(parts, self.pixels(parts), strict=True):
            yield self.normalise(images), self.labels[part]


def shape_problem(
    images: Tensor | ImagesOnDisk,
    labels: Tensor,
    classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    task: str = CLASSIFICATION,
) -> str | None:
    """Say what is wrong with the parts of a split, label values aside, or return None."""
    if 0 in images.shape:
        return f"images have the empty shape {tuple(images.shape)}; at least one image is needed"
    problem = _inputs_problem(images, task) or _labels_problem(images, labels, classes, task)
    if problem:
        return problem
    if classes < 1:
        return f"classes is {classes}; it must be at least 1"
    channels = 0 if task == "tokens" else images.shape[1]
    if len(mean) != channels or len(std) != channels:
        return f"mean and std hold {len(mean)} and {len(std)} numbers for {channels} channels"
    if not all(math.isfinite(m) for m in mean) or not all(math.isfinite(s) and s > 0 for s in std):
        return f"mean {list(mean)} and std {list(std)} must be finite, and std above 0"
    return None


def _inputs_problem(images: Tensor | ImagesOnDisk, task: str) -> str | None:
    is_right = images.dtype == torch.uint8 and images.ndim == 4
    is_right |= images.dtype == torch.float32 and images.ndim >= 2
    wanted = "uint8 (N, C, H, W), or float32 (N, ...)"
    if task == "tokens":
        is_right, wanted = images.dtype == torch.int64 and images.ndim == 2, "int64 (N, T)"
    given = f"images are {images.dtype} of shape {tuple(images.shape)}"
    return None if is_right else f"{given}; they must be {wanted}"


def _labels_problem(images: Tensor | ImagesOnDisk, labels: Tensor, classes: int, task: str) -> str | None:
    n, *rest = images.shape
    dtype, shape, what = torch.int64, (n,), "one for each image"
    if task == "regression":
        dtype, shape, what = torch.float32, (n, classes), "numbers for each input"
    elif task == "tokens":
        shape, what = (n, *rest), "one for each token"
    elif task == "segmentation":
        shape, what = (n, *rest[1:]), "one for each pixel"
    if labels.dtype == dtype and tuple(labels.shape) == shape:
        return None
    return (
        f"labels are {labels.dtype} of shape {tuple(labels.shape)}; they must be "
        f"{str(dtype).removeprefix('torch.')} of shape {shape}, {what}"
    )


def label_problem(labels: Tensor, classes: int, task: str = CLASSIFICATION) -> str | None:
    """Name the first label outside ``[0, classes)``, or one that is no finite number, or return None."""
    if task == "regression":
        wrong, wanted = ~torch.isfinite(labels), "labels must be finite numbers"
    else:
        wrong, wanted = (labels < 0) | (labels >= classes), f"labels must lie in 0..{classes - 1}"
    if task in IGNORED:
        wrong &= labels != IGNORED[task]
        wanted += f", or be {IGNORED[task]} where none counts"
    outside = wrong.nonzero()
    if not len(outside):
        return None
    at = tuple(outside[0].tolist())
    value = labels[at].item()
    return f"the label of image {at[0]} is {value}; {wanted}"


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

    Counted a few images at a time; counts are exact. Of other numbers mean and squares are kept, in float64,
    `PIECE` inputs at a time. Either way the pieces that they come in make no difference.
    """

    PIECE = 1024

    def __init__(self) -> None:
        self.counts = torch.zeros((), dtype=torch.int64)
        self.waiting: list[Tensor] = []
        self.count, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, images: Tensor) -> None:
        """Count images (N, C, ...)."""
        if images.dtype != torch.uint8:
            *whole, rest = torch.cat([*self.waiting, images.cpu()]).split(self.PIECE)
            self.waiting = [rest]
            for piece in whole:
                self._add(piece)
            return
        channels = images.transpose(0, 1).flatten(1)
        self.counts = (
            self.counts + torch.stack([channel.bincount(minlength=256) for channel in channels]).cpu()
        )

    def _add(self, inputs: Tensor) -> None:
        """Add to mean and squared differences from it (Chan, Golub and LeVeque 1983)."""
        channels = inputs.double().transpose(0, 1).flatten(1)
        n, mean = channels.shape[1], channels.mean(1)
        squares = (channels - mean[:, None]).square().sum(1)
        total, apart = self.count + n, mean - self.mean
        self.squares = self.squares + squares + apart.square() * self.count * n / total
        self.mean, self.count = self.mean + apart * n / total, total

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of each channel, as `channel_statistics` does."""
        for rest in self.waiting:
            self._add(rest)
        if self.count:
            deviations = (self.squares / self.count).sqrt()
            deviations[deviations <= 1e-12 * self.mean.abs()] = 1.0  # rounding, of a constant
            return tuple(self.mean.tolist()), tuple(deviations.tolist())
        mean, std = [], []
        for counts in self.counts.tolist():
            # In integers, so that the difference loses nothing.
            count, first, second = (sum(n * value**k for value, n in enumerate(counts)) for k in range(3))
            variance = (count * second - first**2) / count**2
            mean.append(first / count / 255)
            std.append(math.sqrt(variance) / 255 if variance > 0 else 1.0)
        return tuple(mean), tuple(std)


def channel_statistics(images: Tensor, chunk: int = 4096) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation (of the population) per channel of the inputs of a split.

    Of uint8 images scaled to [0, 1], and exact (`Tally`), ``chunk`` images at a time; of float32 as they are;
    none of tokens. A channel that is constant gets std 1, so that normalising it gives zeros rather than a
    division by zero.
    """
    if images.dtype == torch.int64:
        return (), ()
    if images.dtype not in (torch.uint8, torch.float32) or images.ndim < 2 or 0 in images.shape:
        raise ValueError(
            f"images are {images.dtype} {tuple(images.shape)}; non-empty uint8 (N, C, H, W) is needed"
        )
    tally = Tally()
    for part in images.split(chunk):
        tally.add(part)
    return tally.statistics()
