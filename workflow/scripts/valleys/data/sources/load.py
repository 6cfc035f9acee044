"""One entry of a config's ``datasets`` into a training and a test split, by its source."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from valleys.data import by_seed
from valleys.data.cache import write_split
from valleys.data.channels import check_channels, check_scale
from valleys.data.options import DATASET_OPTIONS, before_seeds, differs_by_seed, validate_dataset
from valleys.data.sources.base import Original, logger
from valleys.data.sources.examples import classes_of
from valleys.data.split import Split, channel_statistics, subset_indices
from valleys.data.tasks import CLASSIFICATION, task_of
from valleys.errors import ValleysError


def _check_labels(original: Original, part: str, classes: int | None) -> int:
    """Check one part's labels and return the number of classes."""
    labels = original.labels
    if not len(labels):
        raise ValleysError(f"the {part} part of the data set has no images; at least one is needed")
    known = int(labels.max()) + 1 if classes is None else classes
    outside = (labels < 0) | (labels >= known)
    if outside.any():
        row = int(outside.argmax())
        wanted = "0 or more" if classes is None else f"in 0..{known - 1}, there being {known} classes"
        raise ValleysError(f"{original.where(row)}: the label is {labels[row]}; it must be {wanted}")
    if part == "train" and classes is None and known > len(labels):
        row = int(labels.argmax())
        raise ValleysError(
            f"{original.where(row)}: the label is {labels[row]}, which makes {known} classes for "
            f"{len(labels)} images; labels must number the classes from 0 (or set 'classes')"
        )
    return known


def _classes(spec: Mapping[str, Any], originals: dict[str, Original]) -> int:
    """Check the labels of both parts and return the number of classes, tokens or outputs."""
    task = task_of(spec)
    if task != CLASSIFICATION:
        for part, original in originals.items():
            if not len(original.labels):
                raise ValleysError(f"the {part} part of the data set has no examples; at least one is needed")
        return classes_of(originals, task, spec["classes"])
    classes = _check_labels(originals["train"], "train", spec["classes"])
    if classes < 2:
        raise ValleysError(
            f"every training label of the source {spec['source']!r} is 0; "
            f"a classifier needs two classes or more"
        )
    _check_labels(originals["test"], "test", classes)
    return classes


@dataclass(frozen=True)
class _Chosen:
    """The images of one part that are kept: labels, shape (N, C, H, W), and the images a few at a time."""

    labels: torch.Tensor
    shape: tuple[int, ...]
    are_pixels: bool
    chunks: Iterator[torch.Tensor]


def _choose(
    spec: Mapping[str, Any], name: str, max_bytes: float, workers: int
) -> tuple[_Chosen, _Chosen, int, tuple[Sequence[float] | None, Sequence[float] | None]]:
    """Return the two parts, the number of classes, and mean and std where the entry gives them."""
    spec = validate_dataset(name, spec)
    asked = {**spec, "max_bytes": max_bytes, "workers": workers}
    read = DATASET_OPTIONS[spec["source"]].module().read
    originals = dict(zip(("train", "test"), read(asked), strict=True))
    classes = _classes(spec, originals)

    chosen = {}
    for part, original in originals.items():
        rows = subset_indices(len(original.labels), spec[f"max_{part}"], spec["subset_seed"]).numpy()
        chunks = (torch.from_numpy(np.ascontiguousarray(images)) for images in original.take(rows))
        first = next(chunks)  # for the shape
        labels, shape = torch.from_numpy(original.labels[rows]), (len(rows), *first.shape[1:])
        chosen[part] = _Chosen(labels, shape, first.dtype == torch.uint8, itertools.chain([first], chunks))
        logger.info("%s %s: %d images of shape %s", spec["source"], part, len(rows), shape[1:])
    train, test = chosen["train"], chosen["test"]
    if train.shape[1:] != test.shape[1:]:
        raise ValleysError(
            f"training images of the source {spec['source']!r} have the shape {train.shape[1:]} (C, H, W) "
            f"but test images {test.shape[1:]}; they must be the same"
        )
    present = len(train.labels.unique())
    if present < classes and task_of(spec) == CLASSIFICATION:
        logger.warning("the training images kept show %d of the %d classes", present, classes)
    if task_of(spec) == "tokens":
        return train, test, classes, ((), ())
    return train, test, classes, tuple(_given(name, spec, key, train) for key in ("mean", "std"))


def _name_of(spec: Mapping[str, Any]) -> str:
    """Return what messages call an entry without a name: its source."""
    return str(spec.get("source", "?")) if isinstance(spec, Mapping) else "?"


def load_source(
    spec: Mapping[str, Any],
    name: str | None = None,
    max_bytes: float = math.inf,
    seed: int | None = None,
) -> tuple[Split, Split]:
    """Read the data set that ``spec`` describes into memory.

    Parameters
    ----------
    spec
        An entry of the configuration, as ``validate_dataset`` takes or returns it; it is validated here.
    name
        The data set's name in the configuration, for messages; by default the source's name.
    max_bytes
        Of the arrays in one npz file: more is refused by what its headers declare, before they are read.
    seed
        Of an experiment, where the entry has ``split: by_seed`` or ``label_noise``.

    Returns
    -------
    train, test : Split
        On the CPU. Both carry the mean and std of the training images kept, or those given, and the same
        ``classes``.

    Raises
    ------
    ValleysError
        When the entry is wrong, or the files are absent, damaged or of the wrong kind; when the data hang on
        a seed and none is given.
    """
    name = _name_of(spec) if name is None else name
    spec = validate_dataset(name, spec)
    by_seed.check_seed(spec, seed, name)
    *parts, classes, given = _choose(before_seeds(spec), name, max_bytes, workers=1)
    images = []
    for part in parts:
        first = next(part.chunks)
        images.append(torch.empty(part.shape, dtype=first.dtype))
        done = 0
        for chunk in itertools.chain([first], part.chunks):
            images[-1][done : done + len(chunk)] = chunk
            done += len(chunk)
    mean, std = (
        found if value is None else value
        for found, value in zip(channel_statistics(images[0]), given, strict=True)
    )
    train, test = (
        Split(x, part.labels, classes, mean, std, task_of(spec))
        for x, part in zip(images, parts, strict=True)
    )
    return by_seed.splits_of((train, test), spec, seed) if differs_by_seed(spec) else (train, test)


def write_source(
    spec: Mapping[str, Any],
    name: str,
    paths: Sequence[str | Path],
    max_bytes: float = math.inf,
    workers: int = 1,
    accept: Callable[[tuple[int, ...], int, str], None] | None = None,
) -> None:
    """Read the data set that ``spec`` describes and write its two splits; the images are never all in memory.

    Of an entry whose data hang on a seed, what all seeds have in common; ``by_seed`` makes theirs of it.

    The files are, to the byte, what ``save_split`` makes of the splits of `load_source`.

    Parameters
    ----------
    spec, name, max_bytes
        As `load_source`.
    paths
        Files of the train and the test split (``cache.write_split``).
    workers
        Threads that decode, for sources of encoded images.
    accept
        Called with the shape of one input, the classes and the task as soon as these are known, before
        anything is written; it may raise.

    Raises
    ------
    ValleysError
        As `load_source`, or when a file cannot be written.
    """
    spec = before_seeds(validate_dataset(name, spec))
    train, test, classes, given = _choose(spec, name, max_bytes, workers)
    if accept is not None:
        accept(tuple(train.shape[1:]), classes, task_of(spec))
    for path, part in zip(paths, (train, test), strict=True):
        given = write_split(path, part.labels, part.chunks, part.shape, classes, given, task=task_of(spec))
        n, *shape = part.shape
        logger.info("%s: %d images of shape %s, %d classes", path, n, tuple(shape), classes)


def _given(name: str, spec: Mapping[str, Any], key: str, train: _Chosen) -> tuple[float, ...] | None:
    """Return the channel statistics that an entry gives in place of those found, if it does."""
    values = spec.get(key)
    if values is None:
        return None
    check_channels(name, key, values, train.shape[1])
    if train.are_pixels:
        check_scale(name, key, values)
    return tuple(float(value) for value in values)
