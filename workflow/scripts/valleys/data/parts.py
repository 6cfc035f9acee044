"""Parts of a set of images: disjoint ones drawn at random, and batches of some rows of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from valleys.data.loaders import TRIED, Batches, SplitBatches
from valleys.data.split import Split
from valleys.errors import ValleysError


def shuffled(count: int, seed: int) -> Tensor:
    """Return the numbers of ``range(count)`` in random order, int64."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def divide(count: int, shares: Sequence[float], seed: int) -> list[Tensor]:
    """Return disjoint random sets of rows that make up ``range(count)``.

    Parameters
    ----------
    count
        How many rows there are.
    shares
        Of each part, positive; they add up to 1.
    seed
        Of the draw.

    Returns
    -------
    list of Tensor
        Ascending int64 numbers of rows, a tensor a part.

    Raises
    ------
    ValleysError
        When a part would be empty.
    """
    ends = [round(end * count) for end in accumulate(shares, initial=0.0)]
    order = shuffled(count, seed)
    parts = [order[a:b].sort().values for a, b in pairwise(ends)]
    if not all(len(part) for part in parts):
        raise ValleysError(f"{count} images cannot be divided into {len(parts)} parts; give more images")
    return parts


def take(batches: Batches | Rows, rows: Tensor, batch_size: int) -> SplitBatches | Rows:
    """Return batches of some rows, ascending, of others: the same images in every pass."""
    if isinstance(batches, SplitBatches) and isinstance(batches.split, Split):
        return SplitBatches(batches.split.take(rows), batch_size)
    return Rows(batches, rows)


class Rows:
    """Some rows of a loader's batches, cut as these are."""

    def __init__(self, batches: Batches | Rows, rows: Tensor) -> None:
        self.batches, self.count = batches, len(rows)
        chosen = torch.zeros(len(batches), dtype=torch.bool)
        chosen[rows] = True
        sizes = [len(labels) for labels in batches.labels()]
        self.at = [part.nonzero().flatten() for part in chosen.split(sizes)]

    def __len__(self) -> int:
        """Return the number of images."""
        return self.count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(images, labels)`` of each batch that has such rows."""
        kept = getattr(self.batches, "kept", None)
        pairs = zip(kept, self.batches.labels(), strict=True) if kept is not None else self.batches
        for (images, labels), at in zip(pairs, self.at, strict=True):
            if len(at):
                there = at.to(labels.device)
                yield images[there], labels[there]

    def first(self) -> Tensor:
        """Return the first images, `loaders.TRIED` of them or what there is."""
        return next(iter(self))[0][:TRIED]

    def labels(self) -> Iterator[Tensor]:
        """Yield the labels batch by batch."""
        for labels, at in zip(self.batches.labels(), self.at, strict=True):
            if len(at):
                yield labels[at.to(labels.device)]
