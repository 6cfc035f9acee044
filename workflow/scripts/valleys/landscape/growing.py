"""Losses on more and more images, until they settle a verdict.

Images are added in random order, and at each *look* the verdict is taken on those so far, with the errors
that their choice brings. There are few looks: half of all images is the last before all of them, half of that
the one before, and so on. Each may be wrong with an equal part of ``1 - confidence``, so that by the union
bound (Bonferroni) a settled verdict is wrong with at most that chance, however often it was looked at. This
is a group-sequential design with looks that are fixed beforehand. Confidence sequences allow a look at every
image; they are known for means of bounded numbers, and Definition 1 is a function of a whole curve. The last
look, at all images, has no error.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from valleys.asymmetry import confidence as settling
from valleys.asymmetry.confidence import GROUPS
from valleys.asymmetry.grids import Floats
from valleys.data import parts
from valleys.data.loaders import Batches, LoaderBatches
from valleys.errors import ValleysError
from valleys.landscape.evaluator import Evaluator

LEAST = 128  # images of the first look where each has a loss of its own, at least
LEAST_OF_GROUP = 8  # images
GATHERED_BYTES = 256 * 1024**2  # of images of a user's loader that are put into batches anew


@dataclass(frozen=True)
class Settled:
    """A verdict on some of the images, and how sure it is.

    Attributes
    ----------
    verdict : str, int, bool, float or None
        A status of Definition 1, the sign of an index, whether a barrier is above its threshold, or an
        estimate that is near enough; None where the images that were allowed did not settle it.
    confidence : float
        Chance that it is the verdict of all images, at least.
    images, total : int
        Train images that it took, and that there are.
    looks : tuple of (int, verdict)
        Images and verdict of each look.
    passed : int
        Images that went through the network at a point of the curve or in a product with the Hessian, all
        looks together.
    """

    verdict: str | int | bool | float | None
    confidence: float
    images: int
    total: int
    looks: tuple[tuple[int, Any], ...]
    passed: int

    def __str__(self) -> str:
        """Return what was found, in a line."""
        on = f"{self.images:,} of {self.total:,} examples"
        if self.verdict is None:
            return f"not settled at {self.confidence:.0%} on {on}"
        if self.images == self.total:
            return f"settled on all {self.total:,} examples"
        return f"settled at {self.confidence:.0%} on {on}"


class Growing:
    """Losses at points of weight space on more and more of an evaluator's images.

    Where batch norm is refreshed, a loss hangs on all images that its statistics are of. Errors then come
    from `GROUPS` random groups: in each, statistics are refreshed and losses taken as if there were no
    others, so that their spread has the errors of both. What remains is the bias that statistics of few
    images bring; it shrinks as 1 over their number, is estimated from groups against all, and counts as an
    error. Without refreshed statistics, and with a loss for each image, errors come from these losses, and
    images that were seen are not passed again.

    Parameters
    ----------
    evaluator
        Its images are all there are; its weights are moved.
    seed
        Of the order in which images come.
    """

    def __init__(self, evaluator: Evaluator, seed: int = 0) -> None:
        self.evaluator, self.there = evaluator, len(evaluator.train_batches)
        self.total = evaluator.drawn_from.get("train", self.there)
        self.order = parts.shuffled(self.there, seed)
        test = evaluator.test_batches
        self.test_order = None if test is None else parts.shuffled(len(test), seed)
        # A factor: the mean is one over weights of labels, and hangs on all of them.
        self.in_groups = evaluator.bn == "refreshed" or evaluator.sets["train"].factor != 1
        if not self.in_groups:
            evaluator.reset()
            self.in_groups = not evaluator.has_image_losses()
        self.least = GROUPS * LEAST_OF_GROUP if self.in_groups else LEAST
        self.images, self.passed = 0, 0
        self._parts: list[Evaluator] = []
        self._known: dict[float, list[_Seen]] = {}

    def grow(self, images: int) -> None:
        """Go on to this many images."""
        if self.in_groups:
            self._known.clear()
            self._parts = [self._on(0, images), *(self.groups(images) if images < self.total else [])]
        else:
            self._parts.append(self._on(self.images, images))
        self.images = images

    def groups(self, images: int) -> list[Evaluator]:
        """Return evaluators of the groups that so many images make: `GROUPS`, or fewer of few images."""
        count = min(GROUPS, images // LEAST_OF_GROUP)
        edges = [round(k * images / count) for k in range(count + 1)] if count > 1 else []
        return [self._on(a, b) for a, b in itertools.pairwise(edges)]

    def _on(self, first: int, last: int) -> Evaluator:
        at = self.evaluator
        train = part_of(at.train_batches, self.order[first:last], at)
        test = None
        if self.test_order is not None:
            ends = [round(end * len(self.test_order) / self.there) for end in (first, last)]
            chosen = self.test_order[slice(*ends)]
            test = part_of(at.test_batches, chosen, at) if len(chosen) else None
        return at.on(train, test, by_image=not self.in_groups, accuracy=True)

    def so_far(self) -> Evaluator:
        """Return an evaluator of the images so far."""
        return self._on(0, self.images)

    def forget(self) -> None:
        """Forget all points: another line begins."""
        self._known.clear()

    def point(self, place: float, move: Callable[[float], None]) -> dict[str, float]:
        """Return the four values of `Point` at a place, on the images so far.

        Parameters
        ----------
        place
            Names the point.
        move
            Sets the weights for it.
        """
        seen = self._known.setdefault(place, [])
        for part in self._parts[len(seen) :]:
            move(place)
            train, test = part.train_loss(), part.test_loss()
            size, tested = len(part.train_batches), 0 if part.test_batches is None else len(part.test_batches)
            own = None if self.in_groups else part.by_image["train"].double().cpu().numpy()
            seen.append(_Seen(size, train, tested, test, own))
            self.passed += size
        used = seen[:1] if self.in_groups else seen
        return {
            "train_loss": _mean([(s.size, s.train[0]) for s in used]),
            "train_accuracy": _mean([(s.size, s.train[1]) for s in used]),
            "test_loss": _mean([(s.tested, s.test[0]) for s in used if s.tested]),
            "test_accuracy": _mean([(s.tested, s.test[1]) for s in used if s.tested]),
        }

    def errors(self, places: Sequence[float]) -> tuple[Floats, float]:
        """Return what the errors of the train losses at places are made of, and their degrees of freedom.

        Returns
        -------
        deviations : ndarray, shape (m, len(places))
            ``deviations.T @ deviations`` is the covariance, against the means over all images.
        freedom : float
            Of that covariance.
        """
        n, left = self.images, 1 - self.images / self.total
        if left == 0:
            return np.zeros((1, len(places))), math.inf
        if not self.in_groups:
            values = np.stack([np.concatenate([s.own for s in self._known[p]]) for p in places], axis=1)
            return (values - values.mean(axis=0)) * math.sqrt(left / (n * (n - 1))), n - 1
        whole = np.array([self._known[p][0].train[0] for p in places])
        groups = np.array([[s.train[0] for s in self._known[p][1:]] for p in places]).T
        return spread(whole, groups, left), len(groups) - 1


def spread(whole: Floats, groups: Floats, left: float) -> Floats:
    """Return what the errors of values are made of, which hang on the set of images as a whole.

    Parameters
    ----------
    whole : ndarray, shape (n,)
        Of all images so far.
    groups : ndarray, shape (m, n)
        Of m groups of them, each by itself.
    left : float
        Share of all images that are not among them.

    Returns
    -------
    ndarray, shape (m + 1, n)
        As of `Growing.errors`: the groups' part, and the bias.
    """
    count = len(groups)
    own = (groups - groups.mean(axis=0)) * math.sqrt(left / (count * (count - 1)))
    return np.concatenate([own, (groups.mean(axis=0) - whole)[None] * left / (count - 1)])


def errors_by_group(
    evaluator: Evaluator, move: Callable[[float], None], curve: Sequence[Mapping[str, float]]
) -> dict[str, Floats]:
    """Return what the errors of a curve on a subset of images are made of, batch norm's refresh among them.

    Parameters
    ----------
    evaluator
        Of the subset; ``drawn_from`` says of how many images.
    move
        Sets the weights for an offset.
    curve
        Rows with ``offset``, ``train_loss`` and ``test_loss``, as that evaluator measured them.

    Returns
    -------
    dict
        By name of the split, ``deviations`` of `Growing.errors`; nothing of a split that is not a subset, and
        nothing at all where there are too few images for groups. Test losses count as drawn from as many
        images as train losses where that makes their errors greater: they hang on the statistics of these.
    """
    growing = Growing(evaluator)
    parts_ = growing.groups(growing.there)
    if not parts_ or "train" not in evaluator.drawn_from:
        return {}
    found: dict[str, list[list[float]]] = {"train": [], "test": []}
    for row in curve:
        move(row["offset"])
        for name, value in zip(found, zip(*(_losses(part) for part in parts_), strict=True), strict=True):
            found[name].append(list(value))
    lefts = {
        name: 1 - len(batches) / evaluator.drawn_from[name]
        for name, batches in (("train", evaluator.train_batches), ("test", evaluator.test_batches))
        if name in evaluator.drawn_from and batches is not None
    }
    return {
        name: spread(
            np.array([row[f"{name}_loss"] for row in curve]),
            np.array(found[name]).T,
            max(left, lefts["train"]),
        )
        for name, left in lefts.items()
    }


def _losses(part: Evaluator) -> tuple[float, float]:
    return part.train_loss()[0], part.test_loss()[0]


@dataclass(frozen=True)
class _Seen:
    """What one part of the images gave at a point: sizes, (loss, accuracy) of each split, losses by image."""

    size: int
    train: tuple[float, float]
    tested: int
    test: tuple[float, float]
    own: Floats | None


def part_of(batches: Batches, rows: Tensor, at: Evaluator) -> Any:
    """Return batches of some rows; in as few of them as there can be, where they are tensors alike."""
    found = parts.take(batches, rows.sort().values, at.batch_size)
    if not isinstance(found, parts.Rows):
        return found
    pairs = list(found)
    for each in zip(*pairs, strict=True):
        kinds = {(x.shape[1:], x.dtype) if isinstance(x, Tensor) else None for x in each}
        if (
            len(kinds) > 1
            or None in kinds
            or sum(x.numel() * x.element_size() for x in each) > GATHERED_BYTES
        ):
            return found
    images, labels = (torch.cat(each).split(at.batch_size) for each in zip(*pairs, strict=True))
    return LoaderBatches(list(zip(images, labels, strict=True)), at.device)


def _mean(pairs: list[tuple[int, float]]) -> float:
    """Return the mean of values that count so many times; NaN of none."""
    if len(pairs) == 1:
        return pairs[0][1]
    return math.fsum(n * x for n, x in pairs) / sum(n for n, _ in pairs) if pairs else math.nan


def check_confidence(confidence: Any) -> None:
    """Raise a `ValleysError` for what is no confidence that `until_settled` takes."""
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0.5 <= confidence < 1:
        raise ValleysError(f"until: {confidence!r} is no confidence; give a share such as 0.95, 0.5 or more")


def until_settled(
    growing: Growing, confidence: float, budget: int | None, judge: Callable[[float], Any]
) -> Settled:
    """Add images until a verdict is settled.

    Parameters
    ----------
    growing
        Has no images yet.
    confidence
        Chance that a settled verdict is that of all images, at least; from 0.5 to below 1.
    budget
        Images at most; None: all.
    judge
        Gives the verdict on the images so far when it may be wrong with the chance that it is told; None
        where they do not settle it.

    Raises
    ------
    ValleysError
        For a confidence or a budget that is not as described.
    """
    check_confidence(confidence)
    least = min(growing.least, growing.there)
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or budget < least):
        raise ValleysError(f"budget: {budget!r} examples are too few for a first look; give {least} or more")
    counts = settling.looks(growing.there, least, budget)
    alpha = (1 - confidence) / max(1, sum(count < growing.total for count in counts))
    found: list[tuple[int, Any]] = []
    for count in counts:
        growing.grow(count)
        found.append((count, judge(alpha)))
        if found[-1][1] is not None:
            break
    return Settled(found[-1][1], float(confidence), found[-1][0], growing.total, tuple(found), growing.passed)
