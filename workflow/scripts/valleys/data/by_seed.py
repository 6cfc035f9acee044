"""The data of one seed of an experiment: train and test images cut anew, some train labels made wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from valleys.data.cache import write_split
from valleys.data.options import MAX_SEED, differs_by_seed, noise_problem
from valleys.data.sources.base import logger
from valleys.data.split import Split, channel_statistics, subset_indices
from valleys.data.tasks import CLASSIFICATION
from valleys.errors import ValleysError

_CHUNK = 1024  # images copied at a time


@dataclass(frozen=True)
class SeedPart:
    """The train or the test part of one seed, its images not read yet.

    Attributes
    ----------
    rows
        int64 (n,), ascending: of the train images, then the test images, that the seeds have in common.
    labels
        int64 (n,), CPU: those trained or tested on.
    clean_labels
        int64 (n,), CPU: before some were made wrong; None where none were.
    """

    rows: Tensor
    labels: Tensor
    clean_labels: Tensor | None = None

    @property
    def wrong(self) -> int:
        """Number of labels that were made wrong."""
        return 0 if self.clean_labels is None else int((self.labels != self.clean_labels).sum())


def parts_of(splits: tuple[Split, Split], spec: Mapping[str, Any], seed: int) -> tuple[SeedPart, SeedPart]:
    """Return the train and the test part of a seed, from what all seeds have in common.

    Both depend on the seed, the sizes and the entry alone. The cut and the wrong labels have random streams
    of their own, so that neither changes with the other.

    Parameters
    ----------
    splits
        Train and test images, as ``options.before_seeds`` has them read.
    spec
        The data set's entry as ``options.validate_dataset`` returns it.
    seed
        Of the experiment.

    Raises
    ------
    ValleysError
        When so small a share of the labels is to be made wrong that none is.
    """
    cut, noise = (np.random.default_rng(one) for one in np.random.SeedSequence(seed).spawn(2))
    n, both = len(splits[0]), torch.cat([split.labels.cpu() for split in splits])
    order = torch.arange(len(both))
    if spec["split"] == "by_seed":
        order = torch.from_numpy(cut.permutation(len(both)))
        chosen = [
            rows.sort().values[subset_indices(len(rows), spec[f"max_{part}"], spec["subset_seed"])]
            for rows, part in zip((order[:n], order[n:]), ("train", "test"), strict=True)
        ]
    else:
        chosen = [order[:n], order[n:]]
    train, test = (SeedPart(rows, both[rows]) for rows in chosen)
    if spec["label_noise"]:
        wrong = _made_wrong(train.labels, spec["label_noise"], splits[0].classes, noise)
        train = replace(train, labels=wrong, clean_labels=train.labels)
    return train, test


def _made_wrong(labels: Tensor, share: float, classes: int, draws: np.random.Generator) -> Tensor:
    """Return labels of which ``round(share * n)`` are another class, each of the others as likely."""
    if problem := noise_problem(share, len(labels)):
        raise ValleysError(f"label_noise: {problem}")
    count = round(share * len(labels))
    rows = torch.from_numpy(draws.choice(len(labels), count, replace=False))
    wrong = labels.clone()
    wrong[rows] = (labels[rows] + torch.from_numpy(draws.integers(1, classes, count))) % classes
    return wrong


def _chunks(splits: tuple[Split, Split], rows: Tensor) -> Iterator[Tensor]:
    """Yield the images at these rows of both splits together, a few at a time, uint8 (n, C, H, W)."""
    n = len(splits[0])
    for some in rows.split(_CHUNK):
        pieces = ((splits[0], some[some < n]), (splits[1], some[some >= n] - n))
        yield torch.cat([split.images[own] for split, own in pieces if len(own)])


def _statistics(
    base: Split, spec: Mapping[str, Any]
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return mean and std where they are known: given, or those of the same train images; else None."""
    if spec["split"] == "fixed":
        return base.mean, base.std
    return (base.mean if "mean" in spec else None), (base.std if "std" in spec else None)


def splits_of(splits: tuple[Split, Split], spec: Mapping[str, Any], seed: int) -> tuple[Split, Split]:
    """Return the train and the test split of a seed, in memory; mean and std are of its own train images.

    Parameters and errors are those of `parts_of`.
    """
    parts = parts_of(splits, spec, seed)
    images = [torch.cat(list(_chunks(splits, part.rows))) for part in parts]
    known = _statistics(splits[0], spec)
    found = channel_statistics(images[0]) if None in known else known
    mean, std = (new if old is None else old for new, old in zip(found, known, strict=True))
    train, test = (
        Split(of, part.labels, splits[0].classes, mean, std, splits[0].task)
        for of, part in zip(images, parts, strict=True)
    )
    return train, test


def write_seed(
    splits: tuple[Split, Split], spec: Mapping[str, Any], seed: int, paths: tuple[str | Path, str | Path]
) -> None:
    """Write the train and the test file of a seed; images that stay in their file are never all in memory.

    The train file has the tensor ``clean_labels`` too where some labels were made wrong. Both files say in
    their metadata how they were made: ``split``, ``seed``, and of train ``label_noise`` and ``wrong_labels``.

    Parameters
    ----------
    splits, spec, seed
        As `parts_of`.
    paths
        Of the two files (``cache.write_split``).

    Raises
    ------
    ValleysError
        As `parts_of`, or when a file cannot be written.
    """
    parts, classes, known = parts_of(splits, spec, seed), splits[0].classes, _statistics(splits[0], spec)
    made = {"split": spec["split"], "seed": str(seed)}
    noise = {"label_noise": str(spec["label_noise"]), "wrong_labels": str(parts[0].wrong)}
    for path, part, about in zip(paths, parts, (made | noise, made), strict=True):
        shape = (len(part.rows), *splits[0].in_shape)
        known = write_split(
            path,
            part.labels,
            _chunks(splits, part.rows),
            shape,
            classes,
            known,
            about,
            part.clean_labels,
            splits[0].task,
        )
        logger.info("%s: %d images of seed %d, %d labels wrong", path, len(part.rows), seed, part.wrong)
    if splits[0].task != CLASSIFICATION:
        return
    present = len((parts[0].labels if parts[0].clean_labels is None else parts[0].clean_labels).unique())
    if present < classes:
        logger.warning("the training images of seed %d show %d of the %d classes", seed, present, classes)


def check_seed(spec: Mapping[str, Any], seed: int | None, name: str) -> None:
    """Check that there is a seed where a data set's entry needs one, and that it can be one.

    Raises
    ------
    ValleysError
        When not.
    """
    if not differs_by_seed(spec):
        return
    key = "split" if spec["split"] == "by_seed" else "label_noise"
    if seed is None:
        raise ValleysError(
            f"datasets.{name}.{key}: {spec[key]} makes data of their own for each seed of an experiment; "
            "give a seed, or the folder seed-<seed> that the workflow prepared"
        )
    if not 0 <= seed <= MAX_SEED:
        raise ValleysError(f"datasets.{name}.{key}: the seed is {seed}; it must be 0 to {MAX_SEED}")
