"""What is tried before the first pass over a set: the network, the loss and the labels, on a few images.

The loss of a set must not hang on how the set is cut into batches. Whether a user's loss keeps to that is
tried on two cuts, of outputs for some of the first images with labels from all over the set, so that classes,
weights and padding mix as they may. Losses of `losses.build` and torch's cross-entropies (`losses.PerImage`)
are known to.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from valleys.data.inputs import leaves, mapped
from valleys.data.loaders import TRIED, Batches
from valleys.errors import ValleysError
from valleys.factories import one_line
from valleys.models.losses import ByName, OfParts, OfTorch, PerImage, Totals, full_outputs

#: Of outputs that a loss is tried on at once, at most.
NUMBERS = 2**22
#: Shapes of labels that a loss is tried on, where they are not all of one.
SHAPES = 4


@dataclass(frozen=True)
class OnSet:
    """How the values of images make the loss and the accuracy of a set.

    Attributes
    ----------
    factor
        The loss is the mean of the images' values times this: images over the sum of weights.
    classed
        The number of images whose label is a class; the accuracy is a share of these. Of `losses.OfParts`, of
        tokens or pixels that count. 0 where outputs are no class scores (N, C), C > 1, or labels no classes
        (N,): there is no accuracy.
    """

    factor: float
    classed: int


@torch.no_grad()
def check(
    loss: PerImage | Totals,
    network: Callable[[Tensor], Any],
    batches: Batches,
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    by_image: bool = False,
    own: Sequence[Tensor] = (),
) -> OnSet:
    """Try a network and a loss on some images, and return how the loss of their set is made of values.

    Parameters
    ----------
    network
        Maps images to outputs.
    batches, name
        The set, and its name in messages.
    dtype
        Of the network's parameters, for advice.
    by_image
        Whether values of single images are wanted, which a mean over the batch has not.
    own
        Parameters of the user's network, of which `network` is a copy.

    Raises
    ------
    ValleysError
        When network or loss raises; for labels outside of the outputs' columns; for cross-entropy over one
        column; for a loss that is not the same twice, changes its labels, computes with the user's network,
        or hangs on how images are cut into batches.
    """
    if isinstance(loss, Totals):  # tried where it was made (`valleys.api.batches`)
        return OnSet(loss.factor(batches.labels()), 0)
    trial = _Trial(loss, network, batches, name, dtype)
    found, seen = None, set()
    for images, labels in _tried(batches):
        if labels.shape[1:] in seen:
            continue
        seen.add(labels.shape[1:])
        outputs, images, labels = trial.outputs(images, labels)
        found = found or trial.on_set(outputs, labels)
        trial.values(mapped(outputs, torch.clone), labels.clone())
        if trial.known:
            break
        trial.apart_from(own, outputs, labels)
        # Also on outputs that differ much, as those of a fresh network may be all alike and weights not show.
        varied = _varied(outputs)
        if trial.fits(varied, labels):
            trial.cuts(varied, images, labels, by_image)
        trial.cuts(outputs, images, labels, by_image)
        if len(seen) == SHAPES:
            break
    assert found is not None  # there is a batch
    return found


@dataclass(frozen=True)
class _Trial:
    loss: PerImage
    network: Callable[[Tensor], Any]
    batches: Batches
    name: str
    dtype: torch.dtype

    @property
    def known(self) -> bool:
        """Whether the loss is a cross-entropy or the like that needs no trial."""
        return isinstance(self.loss.loss, ByName) or isinstance(self.loss.weighted, OfParts | OfTorch)

    def outputs(self, images: Tensor, labels: Tensor) -> tuple[Any, Tensor, Tensor]:
        """Return outputs and what they are of: a whole batch where the network takes no part of one."""
        try:
            return full_outputs(self.network(images.clone())), images, labels
        except Exception:  # it may be made for batches of one size; what else it is shows below
            images, labels = next(iter(self.batches))
        return self.outputs_of(images), images, labels

    def outputs_of(self, images: Tensor) -> Any:
        advice = ""
        if images.dtype != self.dtype and (images.is_floating_point() or images.dtype == torch.uint8):
            how = "" if images.is_floating_point() else ", scaled as in training"
            advice = f"; the network's parameters are {self.dtype}: give images.to({self.dtype}){how}"
        given = f"images {tuple(images.shape)} of {images.dtype}"
        with one_line(f"{self.name}: the network, given {given},", advice):
            return full_outputs(self.network(images.clone()))

    def values(self, outputs: Any, labels: Tensor) -> Tensor:
        """Return the loss of each image."""
        advice = ""
        given = f"outputs of type {type(outputs).__name__}"
        if isinstance(outputs, Tensor):
            given = f"outputs {tuple(outputs.shape)} of {outputs.dtype}"
            if not labels.is_floating_point() and labels.dtype != torch.int64:
                advice = "; torch's losses take classes as labels.long() and probabilities as labels.float()"
        else:
            inside = "[0]" if isinstance(outputs, tuple | list) else ".logits"
            if isinstance(outputs, Mapping) and outputs:
                inside = f"[{next(iter(outputs))!r}]"
            advice = "; give a loss that takes what the network returns, as in lambda outputs, labels: "
            advice += f"F.cross_entropy(outputs{inside}, labels, reduction='none')"
        given += f" and labels {tuple(labels.shape)} of {labels.dtype} ({self.name})"
        with one_line(f"loss: given {given}, it", advice):
            return self.loss(outputs, labels)

    def apart_from(self, own: Sequence[Tensor], outputs: Any, labels: Tensor) -> None:
        """Check that the loss has no part of the user's network in it, which stays where it is."""
        own = [parameter for parameter in own if parameter.requires_grad]
        found: tuple[Tensor | None, ...] = ()
        # A loss that cannot be differentiated says nothing; what else it raises has been seen.
        with torch.enable_grad(), contextlib.suppress(Exception):
            value = self.loss(mapped(outputs, torch.clone), labels.clone()).sum()
            if own and value.requires_grad:
                found = torch.autograd.grad(value, own, allow_unused=True)
        if any(gradient is not None for gradient in found):
            raise ValleysError(
                "loss: it computes with the network's own weights, which do not move as those of the "
                "evaluator's copy do; let it be a function of outputs and labels (penalties left out)"
            )

    def fits(self, outputs: Any, labels: Tensor) -> bool:
        """Whether the loss takes outputs."""
        try:
            self.loss(mapped(outputs, torch.clone), labels.clone())
        except Exception:
            return False
        return True

    def on_set(self, outputs: Any, labels: Tensor) -> OnSet:
        """Check all labels against the columns of outputs; return how values make the loss of the set."""
        if not isinstance(outputs, Tensor):
            return OnSet(self.loss.factor(self.batches.labels()), 0)
        weighted = self.loss.weighted
        if isinstance(weighted, OfParts):
            outputs = weighted.aligned(outputs, labels)[0]
        columns = outputs.shape[1] if outputs.dim() > 1 else 1
        if self.known and columns == 1:
            raise _one_column(outputs)
        if labels.is_floating_point() or labels.is_complex():
            return OnSet(self.loss.factor(self.batches.labels()), 0)
        ignored = getattr(weighted, "ignore_index", -100)
        classed, outside = 0, None
        for i, each in enumerate(self.batches.labels()):
            each = each.long()
            left_out = (each == ignored) & (not isinstance(self.loss.loss, ByName))
            inside = (each >= 0) & (each < columns) & ~left_out
            classed += int(inside.sum())
            wrong = each[~(inside | left_out)]
            if outside is None and len(wrong):
                outside = f"{self.name}: batch {i} has the label {int(wrong[0])}"
        if self.known and outside is not None:
            also = "" if weighted is None else f", or {ignored} to be ignored"
            raise ValleysError(
                f"{outside} and the network {columns} outputs; labels must be in 0..{columns - 1}{also}"
            )
        if outside is not None and outputs.is_cuda:
            self.on_cpu(outputs, outside)
        weight = getattr(weighted, "weight", None)
        if weight is not None and (weight.shape != (columns,) or not weight.isfinite().all()):
            of = "that are not finite" if weight.shape == (columns,) else f"of shape {tuple(weight.shape)}"
            raise ValleysError(f"loss: it has weights {of} for {columns} outputs; give a number a column")
        if isinstance(weighted, OfParts):
            labels = self.batches.labels
            return OnSet(self.loss.factor(labels()), self.loss.classed(labels()))
        scores = outputs.dim() == 2 and columns > 1 and labels.dim() == 1 and outside is None
        return OnSet(self.loss.factor(self.batches.labels()), classed if scores else 0)

    def on_cpu(self, outputs: Tensor, outside: str) -> None:
        """Find out whether such labels are an error on the CPU: on a GPU that ends the use of it."""
        rows = _rows(self.batches, next(self.batches.labels()).shape[1:], 1024).cpu()
        outputs = outputs.cpu()[torch.arange(len(rows)) % len(outputs)]
        try:
            self.loss(outputs, rows)
        except Exception as error:  # or the loss has tensors of its own on the GPU, which says nothing
            if isinstance(error, IndexError) or re.search("out of bounds|Class values", str(error)):
                raise ValleysError(
                    f"{outside}, at which the loss raises {type(error).__name__}: {error}"
                ) from error

    def cuts(self, outputs: Any, images: Tensor, labels: Tensor, by_image: bool) -> None:
        """Check that the loss is the same twice, and on a set however that is cut into batches."""
        n = len(images)
        by_rows = _has_rows(outputs, n)
        size = outputs[0].numel() if by_rows and isinstance(outputs, Tensor) else images[0].numel()
        most = 4 if not by_rows else 1024 if labels.dim() == 1 else 64
        rows = _rows(self.batches, labels.shape[1:], max(2, min(most, NUMBERS // (4 * size))))
        # Eight rows at least, each label with two or more outputs, as losses may take no batch of one; some
        # labels more often than others, for losses that count them.
        often = max(2, -(-8 // len(rows))) + torch.arange(len(rows), device=rows.device) % 3
        rows = rows.repeat_interleave(often, dim=0)
        at = torch.arange(len(rows), device=images.device) % n

        def of(start: int, stop: int) -> Tensor:
            here, each = at[start:stop], rows[start:stop].clone()
            if by_rows:
                given = mapped(outputs, lambda t: t[here] if t.dim() and len(t) == n else t)
            else:
                given = self.outputs_of(images[here])
            values = self.values(given, each).double()
            if not torch.allclose(each, rows[start:stop], rtol=0.0, atol=0.0, equal_nan=True):
                raise ValleysError(
                    "loss: it changes the labels that it is given; let it change a copy (labels.clone())"
                )
            return values

        raw = self.loss.loss(mapped(outputs, torch.clone), labels.clone())
        is_mean = raw.dim() == 0
        if is_mean and by_image:
            raise ValleysError('loss: errors of a subset need one value an image; use reduction="none"')
        rounding = max(1e-4, 16 * torch.finfo(raw.dtype).eps if raw.is_floating_point() else 0.0)
        whole = of(0, len(rows))
        again = of(0, len(rows))
        if _apart(whole, again, rounding).any():
            raise ValleysError(
                "loss: it gives another value for the same outputs and labels; it must not be random nor "
                "keep what it has seen"
            )
        small = 2 * -(-len(rows) // 128)  # 64 batches at most
        cuts = [list(range(0, len(rows) - 1, small)), [0, max(2, len(rows) // 3)]]
        if any(len(each) == 1 for each in self.batches.labels()):
            cuts.append(list(range(8)))
        for starts in cuts:
            stops = [*starts[1:], len(rows)]
            parts = torch.cat([of(*ends) for ends in zip(starts, stops, strict=True)])
            one, other = (whole.mean(), parts.mean()) if is_mean else (whole, parts)
            apart = _apart(one, other, rounding, parts)
            if not apart.any():
                continue
            if is_mean and not _apart(one, parts[starts].sum(), 1e-3):
                raise ValleysError('loss: it returns a sum over the batch; use reduction="mean" or "none"')
            a, b = (float(values[apart][0]) for values in (one, other))
            what = "its mean" if is_mean else "the value of an image"
            raise ValleysError(
                f"loss: {what} hangs on how images are cut into batches: {a:.6g} in one batch of "
                f"{len(rows)}, {b:.6g} in {len(starts)} of the same images ({self.name}); "
                f"{_advice(outputs, labels)}"
            )
        one_column = isinstance(outputs, Tensor) and (outputs.dim() == 1 or outputs.shape[1] == 1)
        if one_column and not whole.any() and not self.values(_varied(outputs), labels).any():
            raise _one_column(outputs)


def _apart(one: Tensor, other: Tensor, rounding: float, scale: Tensor | None = None) -> Tensor:
    """Return where values differ by more than a share of the greatest of some (by default: of the first)."""
    greatest = float((one if scale is None else scale).abs().nan_to_num(0.0, 0.0).max())
    return ~torch.isclose(one, other, rtol=0.0, atol=rounding * greatest, equal_nan=True)


def _one_column(outputs: Tensor) -> ValleysError:
    return ValleysError(
        f"loss: the network's outputs {tuple(outputs.shape)} have one column, over which cross-entropy is "
        "always 0; give two columns, or a loss on one, as F.binary_cross_entropy_with_logits(outputs[:, 0], "
        "labels.float(), reduction='none')"
    )


def _advice(outputs: Any, labels: Tensor) -> str:
    if isinstance(outputs, Tensor):
        one, other = tuple(outputs.shape), tuple(labels.shape)
        if one == (*other, 1) or other == (*one, 1):
            return (
                f"outputs {one} and labels {other} may have been broadcast against each other: let both have "
                "one shape (squeeze(1))"
            )
    return (
        'return one value an image (reduction="none"); nn.CrossEntropyLoss with weight or ignore_index is '
        "weighted right if given as it is"
    )


def _has_rows(outputs: Any, n: int) -> bool:
    """Whether the outputs of n images can be cut by images: tensors have n rows."""
    found = [t.dim() > 0 and len(t) == n for t in leaves(outputs)]
    return all(found) if isinstance(outputs, Tensor) else any(found)


def _varied(outputs: Any) -> Any:
    """Return outputs of the same kind (logits, probabilities, their logarithms) that differ much."""
    generator = torch.Generator().manual_seed(0)  # a user's random numbers are left alone

    def change(given: Tensor) -> Tensor:
        if not given.is_floating_point() or not given.numel():
            return given
        noise = 3 * torch.randn(given.shape, generator=generator).to(given)
        if not torch.isfinite(given).all():
            return noise.sigmoid()  # fit for probabilities and for logits
        classes = given.dim() > 1 and given.shape[1] > 1
        if given.min() >= 0 and given.max() <= 1:
            return noise.softmax(1) if classes and _all_near(given.sum(1), 1.0) else noise.sigmoid()
        if classes and _all_near(given.logsumexp(1), 0.0):
            return noise.log_softmax(1)
        return given + noise * (1 + given.std(correction=0))

    return mapped(outputs, change)


def _all_near(values: Tensor, number: float) -> bool:
    return bool(((values - number).abs() < 1e-3).all())


def _tried(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield some of the first images with their labels, then some of each other batch that is kept."""
    images = batches.first()
    each = batches.labels()
    yield images, next(each)[: len(images)]
    for images, labels in zip((batches.kept or [])[1:], each, strict=False):
        yield images[:TRIED], labels[:TRIED]


def _rows(batches: Batches, shape: torch.Size, most: int) -> Tensor:
    """Return labels of a shape from all over a set that differ, least to greatest by the sum of each."""
    keys = []
    for each in batches.labels():
        sums = (each.abs() if each.is_complex() else each).reshape(len(each), -1).double().sum(1).cpu()
        keys.append(sums if each.shape[1:] == shape else torch.full_like(sums, torch.nan))
    ordered, places = torch.cat(keys).sort()
    other = torch.ones(len(ordered), dtype=torch.bool)
    other[1:] = ordered[1:] != ordered[:-1]
    places = places[other & ~ordered.isnan()]
    if not len(places):  # labels are NaN
        return next(each for each in batches.labels() if each.shape[1:] == shape)[:1]
    if len(places) > most:
        places = places[torch.linspace(0, len(places) - 1, most).long()]
    found: list[Tensor] = [torch.empty(0)] * len(places)
    start = 0
    for each in batches.labels():
        for i in ((places >= start) & (places < start + len(each))).nonzero().flatten().tolist():
            found[i] = each[int(places[i]) - start]
        start += len(each)
    return torch.stack(found)
