"""Losses, by name or a user's own, as one value an image, so that sums can be accumulated in float64.

The loss of a set must not hang on how the set is cut into batches. What a user's loss does is therefore tried
before the first pass (`PerImage.check`), at outputs of the network and labels from all over the set.
"""

from __future__ import annotations

import copy
import functools
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from valleys.errors import ValleysError
from valleys.factories import one_line
from valleys.loaders import TRIED, Batches
from valleys.precision import full

log = logging.getLogger("valleys")

Loss = Callable[[Any, Tensor], Tensor]


def build(spec: Mapping[str, Any]) -> Loss:
    """Return ``loss(logits (N, C), labels (N,)) -> (N,)`` for a checked config block.

    ``{"name": "cross_entropy"}`` in nats; ``{"name": "label_smoothing", "smoothing": 0.1}`` (Szegedy et al.
    2016); ``{"name": "focal", "gamma": 2}`` (Lin et al. 2017, eq. 4); ``{"name": "mse"}``, the mean over
    classes of the squared distance between logits and one-hot labels. Labels are integers of any width.
    """
    return ByName(spec["name"], _formula(spec))


@dataclass(frozen=True)
class ByName:
    """A loss of `build`."""

    name: str
    formula: Loss

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each image, shape (N,)."""
        return self.formula(logits, _as_classes(labels))


def _as_classes(labels: Tensor) -> Tensor:
    """Return labels as torch's losses take them: int64, unless they are probabilities."""
    return labels if labels.is_floating_point() else labels.long()


def _formula(spec: Mapping[str, Any]) -> Loss:
    name = spec["name"]
    if name == "cross_entropy":
        return lambda logits, labels: F.cross_entropy(logits, labels, reduction="none")
    if name == "label_smoothing":
        smoothing = spec["smoothing"]
        return lambda logits, labels: F.cross_entropy(
            logits, labels, reduction="none", label_smoothing=smoothing
        )
    if name == "focal":
        gamma = spec["gamma"]

        def focal(logits: Tensor, labels: Tensor) -> Tensor:
            nll = F.cross_entropy(logits, labels, reduction="none")
            # 1 - p without cancellation; above 0, so that the gradient is finite at p = 1 for gamma < 1.
            missed = (-torch.expm1(-nll)).clamp_min(torch.finfo(nll.dtype).tiny)
            return missed**gamma * nll

        return focal
    if name == "mse":
        return lambda logits, labels: (
            (logits - F.one_hot(labels, logits.shape[1]).to(logits)).square().mean(dim=1)
        )
    raise KeyError(name)  # names are checked with the config


class PerImage:
    """Any loss as one that returns a value an image, as those of `build` do.

    Parameters
    ----------
    loss
        ``loss(outputs, labels)`` that returns a value an image, (N,) or (N, ...), of which the mean over the
        rest is taken, or the mean over the batch as one number. That is given to each image of its batch, so
        that the mean over batches counts images; it has the rounding of float32.

        ``nn.CrossEntropyLoss`` and ``nn.NLLLoss`` with ``reduction="mean"``, and the functions that they call
        (as they are, or in a `functools.partial`), are taken apart: with class weights or ``ignore_index``
        their mean is one over weights, here those of the whole set (`OnSet.factor`).

        Or the name of a loss of `build` that has no options, or a config block of one.

    Raises
    ------
    ValleysError
        When it is none of these. When called, if `loss` returns something else.
    """

    def __init__(self, loss: Loss | str | Mapping[str, Any]) -> None:
        self.loss = _as_loss(loss)
        self.weighted = _of_torch(self.loss)

    def __call__(self, outputs: Any, labels: Tensor) -> Tensor:
        """Return the loss of each image, shape (N,)."""
        if self.weighted is not None:
            values = self.weighted.values(outputs, labels)
            if values.dim() == 1:
                return values
            # Of probabilities the mean is one over numbers, of classes one over weights.
            return values.flatten(1).mean(1) if labels.is_floating_point() else values.flatten(1).sum(1)
        values = self.loss(outputs, labels)
        if not isinstance(values, Tensor) or values.is_complex():
            got = "complex numbers" if isinstance(values, Tensor) else type(values).__name__
            raise ValleysError(f"loss: it returns {got} for {len(labels)} labels; {_WANTED}")
        if values.dim() == 0:
            return values.expand(len(labels))
        if len(values) != len(labels):
            raise ValleysError(
                f"loss: it returns shape {tuple(values.shape)} for {len(labels)} labels; {_WANTED}"
            )
        if values.dim() == 1:
            return values
        return (values if values.is_floating_point() else values.double()).flatten(1).mean(1)

    @torch.no_grad()
    def check(
        self,
        network: Callable[[Tensor], Any],
        batches: Batches,
        name: str,
        *,
        dtype: torch.dtype = torch.float32,
        by_image: bool = False,
    ) -> OnSet:
        """Try the network and the loss on a few images, and return how the loss of a set is made of values.

        That the loss does not hang on how the set is cut is tried on two cuts, of outputs for some of the first
        images with labels from all over the set, so that classes, weights and padding mix as they may. Losses
        of `build` and torch's cross-entropies are known not to.

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

        Raises
        ------
        ValleysError
            When network or loss raises; for labels outside of the outputs' columns; for cross-entropy over one
            column; for a loss that is not the same twice, changes its labels, or hangs on how images are cut
            into batches.
        """
        seen: set[torch.Size] = set()
        on = None
        for images, labels in _tried(batches):
            if labels.shape[1:] in seen:
                continue
            seen.add(labels.shape[1:])
            outputs, images, labels = self._outputs(network, images, labels, batches, name, dtype)
            on = on or self._on_set(outputs, labels, batches, name)
            values = self._values(outputs, labels, name)
            if not _finite(outputs) or not torch.isfinite(values).all():
                log.warning("%s: outputs or losses of its first images are not finite at the start", name)
            if isinstance(self.loss, ByName) or self.weighted is not None:
                break
            self._check_cuts(network, outputs, images, labels, batches, name, by_image)
            if len(seen) == 4:
                break
        assert on is not None
        return on

    def _outputs(
        self,
        network: Callable[[Tensor], Any],
        images: Tensor,
        labels: Tensor,
        batches: Batches,
        name: str,
        dtype: torch.dtype,
    ) -> tuple[Any, Tensor, Tensor]:
        """Return the outputs, and the images and labels they are of: the whole batch where a few do not pass."""
        try:
            return full_outputs(network(images.clone())), images, labels
        except Exception:  # a network for batches of one size, or one that says below what it cannot do
            images, labels = next(iter(batches))
        advice = ""
        if images.dtype != dtype and (images.is_floating_point() or images.dtype == torch.uint8):
            how = "" if images.is_floating_point() else ", scaled as in training"
            advice = f"; the network's parameters are {dtype}: give images.to({dtype}){how}"
        with one_line(f"{name}: the network, given images {tuple(images.shape)} of {images.dtype},", advice):
            return full_outputs(network(images.clone())), images, labels

    def _values(self, outputs: Any, labels: Tensor, name: str) -> Tensor:
        advice = ""
        if not isinstance(outputs, Tensor):
            advice = "; give a loss that takes what the network returns, as in "
            inside = "[0]" if isinstance(outputs, tuple | list) else ".logits"
            advice += f"lambda outputs, labels: F.cross_entropy(outputs{inside}, labels, reduction='none')"
        elif labels.dtype in _NARROW:
            advice = "; torch's losses take classes as labels.long() and probabilities as labels.float()"
        shape = (
            f"outputs {tuple(outputs.shape)} of {outputs.dtype}"
            if not advice or isinstance(outputs, Tensor)
            else f"a {type(outputs).__name__}"
        )
        with one_line(
            f"loss: given {shape} and labels {tuple(labels.shape)} of {labels.dtype} ({name}), it", advice
        ):
            return self(outputs, labels)

    def _on_set(self, outputs: Any, labels: Tensor, batches: Batches, name: str) -> OnSet:
        """Check labels against the outputs' columns; return how values make the loss of the set."""
        if not isinstance(outputs, Tensor):
            return OnSet(1.0, 0)
        ignored = self.weighted.ignore_index if self.weighted is not None else -100
        known = self.weighted is not None or isinstance(self.loss, ByName)
        columns = outputs.shape[1] if outputs.dim() > 1 else 1
        if known and columns == 1:
            raise _one_column(outputs)
        if labels.is_floating_point() or labels.is_complex():
            return OnSet(1.0, 0)
        classed, outside = 0, None
        total = torch.zeros((), dtype=torch.float64, device=labels.device)
        for i, each in enumerate(batches.labels()):
            each = each.long()
            right = (each >= 0) & (each < columns)
            left_out = each == ignored
            if isinstance(self.loss, ByName):
                left_out = torch.zeros_like(right)
            wrong = each[~(right | left_out)]
            if len(wrong) and outside is None:
                outside = f"{name}: batch {i} has the label {int(wrong[0])}"
            classed += int((right & ~left_out).sum())
            if self.weighted is not None and outside is None:
                total += self.weighted.weights(each, columns)
        if known and outside is not None:
            raise ValleysError(
                f"{outside} and the network {columns} outputs; labels must be in 0..{columns - 1}"
                + (f", or {ignored} to be ignored" if self.weighted is not None else "")
            )
        if outside is not None and outputs.is_cuda:
            self._try_on_cpu(outputs, batches, outside)
        factor = 1.0
        if self.weighted is not None:
            if not float(total) > 0:
                raise ValleysError(
                    f"{name}: every label is ignored ({ignored}) or has weight 0; nothing is left"
                )
            factor = len(batches) / float(total)
        scores = outputs.dim() == 2 and columns > 1 and labels.dim() == 1 and outside is None
        return OnSet(factor, classed if scores else 0)

    def _try_on_cpu(self, outputs: Tensor, batches: Batches, outside: str) -> None:
        """Find out whether such labels are an error there, since on a GPU it ends the process's use of it."""
        rows = _rows(batches, next(batches.labels()).shape[1:], 1024).cpu()
        outputs = outputs.cpu()[torch.arange(len(rows)) % len(outputs)]
        try:
            self.loss(outputs, rows)
        except Exception as error:  # or the loss has tensors of its own on the GPU, which says nothing
            if isinstance(error, IndexError) or re.search("out of bounds|Class values", str(error)):
                raise ValleysError(
                    f"{outside}, at which the loss raises {type(error).__name__}: {error}"
                ) from error

    def _check_cuts(
        self,
        network: Callable[[Tensor], Any],
        outputs: Any,
        images: Tensor,
        labels: Tensor,
        batches: Batches,
        name: str,
        by_image: bool,
    ) -> None:
        n = len(images)
        whole_rows = _has_rows(outputs, n)
        size = outputs[0].numel() if whole_rows and isinstance(outputs, Tensor) else images[0].numel()
        most = 1024 if labels.dim() == 1 and whole_rows else 64 if whole_rows else 4
        rows = _rows(batches, labels.shape[1:], max(2, min(most, _NUMBERS // (2 * size))))
        times = max(2, -(-8 // len(rows)))  # at least 8 rows, and each label with two outputs or more
        rows = rows.repeat_interleave(times, dim=0)
        at = torch.arange(len(rows), device=images.device) % n

        if not _finite(outputs) or not torch.isfinite(self._values(outputs, labels, name)).all():
            # Numbers that are fit for probabilities and for logits.
            outputs = mapped(outputs, lambda t: torch.rand_like(t) if t.is_floating_point() else t)

        def of(cut: slice) -> Tensor:
            if whole_rows:
                given = mapped(outputs, lambda t: t[at[cut]] if t.dim() and len(t) == n else t)
            else:
                given = full_outputs(network(images[at[cut]]))
            each = rows[cut].clone()
            values = self._values(given, each, name)
            if not torch.equal(each.nan_to_num(), rows[cut].nan_to_num()):
                raise ValleysError(
                    "loss: it changes the labels that it is given; let it change a copy (labels.clone())"
                )
            return values.double()

        everything = slice(0, len(rows))
        whole = of(everything)
        if not torch.equal(of(everything).nan_to_num(), whole.nan_to_num()):
            raise ValleysError(
                "loss: it gives another value for the same outputs and labels; it must not be random nor "
                "keep what it has seen"
            )
        raw = self.loss(mapped(outputs, torch.clone), labels.clone())
        is_mean = raw.dim() == 0
        if is_mean and by_image:
            raise ValleysError('loss: errors of a subset need one value an image; use reduction="none"')
        eps = torch.finfo(raw.dtype).eps if raw.is_floating_point() else 0.0
        step = 2 * -(-len(rows) // 128)
        third = max(2, len(rows) // 3)
        ones = any(len(each) == 1 for each in batches.labels())
        for starts in (
            list(range(0, len(rows), step)),
            [0, third],
            *([list(range(min(8, len(rows))))] if ones else []),
        ):
            stops = [*starts[1:], len(rows)]
            parts = torch.cat([of(slice(a, b)) for a, b in zip(starts, stops, strict=True)])
            scale = max(1e-4, 16 * eps) * float(parts.abs().nan_to_num().max())
            one, other = (whole.mean(), parts.mean()) if is_mean else (whole, parts)
            apart = ~torch.isclose(one, other, rtol=0.0, atol=scale, equal_nan=True)
            if not apart.any():
                continue
            if is_mean:
                sums = float(parts[starts].sum())
                if abs(sums - float(one)) <= 1e-3 * abs(float(one)):
                    raise ValleysError(
                        'loss: it returns a sum over the batch; use reduction="mean" or "none"'
                    )
            worst = int(apart.nonzero()[0]) if not is_mean else 0
            a, b = (float(v) if is_mean else float(v[worst]) for v in (one, other))
            what = "its mean" if is_mean else "the value of an image"
            raise ValleysError(
                f"loss: {what} hangs on how images are cut into batches: {a:.6g} in one batch of {len(rows)}, "
                f"{b:.6g} in {len(starts)} of the same images ({name}); {_cut_advice(outputs, labels)}"
            )
        if isinstance(outputs, Tensor) and (outputs.dim() == 1 or outputs.shape[1] == 1) and not whole.any():
            tried = torch.randn_like(outputs)
            if not self._values(tried, labels.clone(), name).any():
                raise _one_column(outputs)


@dataclass(frozen=True)
class OnSet:
    """How the values of images make the loss and the accuracy of a set.

    Attributes
    ----------
    factor
        The loss is the mean of the images' values times this: images over the sum of weights.
    classed
        The number of images whose label is a class; the accuracy is a share of these. 0 where outputs are no
        class scores (N, C), C > 1, or labels no classes (N,): there is no accuracy.
    """

    factor: float
    classed: int


@dataclass(frozen=True)
class _Weighted:
    """One of torch's cross-entropies, whose mean is one over weights."""

    function: Callable[..., Tensor]
    weight: Tensor | None = None
    ignore_index: int = -100
    label_smoothing: float = 0.0

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the value of each label times its weight."""
        options: dict[str, Any] = {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}
        if self.weight is not None and isinstance(outputs, Tensor):
            options["weight"] = self.weight.detach().to(outputs)
        return self.function(
            outputs, _as_classes(labels), ignore_index=self.ignore_index, reduction="none", **options
        )

    def weights(self, labels: Tensor, columns: int) -> Tensor:
        """Return the sum of the weights of int64 labels, in float64."""
        counted = labels[labels != self.ignore_index]
        if self.weight is None:
            return torch.tensor(counted.numel(), dtype=torch.float64, device=labels.device)
        if self.weight.shape != (columns,):
            raise ValleysError(
                f"loss: it has weights of shape {tuple(self.weight.shape)} for {columns} outputs; "
                "there must be one a column"
            )
        return self.weight.detach().to(labels.device, torch.float64)[counted].sum()


def _of_torch(loss: Loss) -> _Weighted | None:
    """Return a loss as one of torch's cross-entropies with the mean over the batch, if it is one."""
    if type(loss) in (nn.CrossEntropyLoss, nn.NLLLoss):
        function = F.cross_entropy if type(loss) is nn.CrossEntropyLoss else F.nll_loss
        names = ["weight", "ignore_index", "label_smoothing", "reduction"]
        options = {name: getattr(loss, name) for name in names if hasattr(loss, name)}
    elif isinstance(loss, functools.partial) and not loss.args:
        function, options = loss.func, dict(loss.keywords)
    else:
        function, options = loss, {}
    if function is not F.cross_entropy and function is not F.nll_loss:
        return None
    if options.pop("reduction", "mean") != "mean" or not {f.name for f in fields(_Weighted)} > set(options):
        return None
    return _Weighted(function, **options)


def _as_loss(loss: Any) -> Loss:
    if isinstance(loss, str | Mapping):
        try:
            return build({"name": loss} if isinstance(loss, str) else loss)
        except KeyError:
            raise ValleysError(
                f"loss: {loss!r} names none; write cross_entropy, mse, {{'name': 'label_smoothing', 'smoothing': "
                "0.1} or {'name': 'focal', 'gamma': 2}, or give a function of (outputs, labels)"
            ) from None
    if isinstance(loss, type):
        raise ValleysError(f"loss: {loss.__name__} is a class; give one of its objects, {loss.__name__}()")
    if not callable(loss):
        raise ValleysError(
            f"loss: {loss!r} cannot be called; give a function of (outputs, labels), as nn.CrossEntropyLoss()"
        )
    return loss


_WANTED = "it must return one value an image, or their mean"
_NARROW = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32)
#: Of outputs, that losses are tried on.
_NUMBERS = 2**22


def _one_column(outputs: Tensor) -> ValleysError:
    return ValleysError(
        f"loss: the network's outputs {tuple(outputs.shape)} have one column, over which cross-entropy is "
        "always 0; give two columns, or a loss on one, as F.binary_cross_entropy_with_logits(outputs[:, 0], "
        "labels.float(), reduction='none')"
    )


def _cut_advice(outputs: Any, labels: Tensor) -> str:
    if (
        isinstance(outputs, Tensor)
        and outputs.shape != labels.shape
        and (outputs.shape == (*labels.shape, 1) or labels.shape == (*outputs.shape, 1))
    ):
        return (
            f"outputs {tuple(outputs.shape)} and labels {tuple(labels.shape)} may have been broadcast: let both "
            "have one shape (squeeze(1))"
        )
    return (
        'return one value an image (reduction="none"); nn.CrossEntropyLoss with weight or ignore_index is '
        "weighted right if given as it is"
    )


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return what a network may return with its tensors changed: tensors, or containers or objects of them."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        new = copy.copy(value)
        for key, item in value.items():
            new[key] = mapped(item, change)  # type: ignore[index]
        return new
    if isinstance(value, tuple | list):
        items = [mapped(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{f.name: mapped(getattr(value, f.name), change) for f in fields(value) if f.init}
        )
    if hasattr(value, "__dict__") and any(isinstance(item, Tensor) for item in vars(value).values()):
        new = copy.copy(value)
        vars(new).update({key: mapped(item, change) for key, item in vars(value).items()})
        return new
    return value


def full_outputs(outputs: Any) -> Any:
    """Return outputs in float32 at least (`precision.full`), also those in containers."""
    if isinstance(outputs, Tensor):
        return full(outputs)
    return mapped(outputs, lambda t: full(t) if t.is_floating_point() else t)


def _has_rows(outputs: Any, n: int) -> bool:
    """Whether the outputs of n images can be cut by images: tensors have n rows."""
    found: list[bool] = []
    mapped(outputs, lambda t: found.append(t.dim() > 0 and len(t) == n) or t)  # type: ignore[func-returns-value]
    return all(found) if isinstance(outputs, Tensor) else any(found)


def _finite(outputs: Any) -> bool:
    found: list[Tensor] = []
    mapped(outputs, lambda t: found.append(torch.isfinite(t).all()) or t)  # type: ignore[func-returns-value]
    return all(map(bool, found))


def _tried(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield some of the first images with their labels, then some of each other batch that is kept."""
    images = batches.first()
    each = batches.labels()
    yield images, next(each)[: len(images)]
    for images, labels in zip((batches.kept or [])[1:], each, strict=False):
        yield images[:TRIED], labels[:TRIED]


def _rows(batches: Batches, shape: torch.Size, most: int) -> Tensor:
    """Return labels of a shape from all over a set that differ, from the least to the greatest sum of each."""
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
