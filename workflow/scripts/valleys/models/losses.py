"""Losses, by name or a user's own, as one value an image, so that sums can be accumulated in float64.

The loss of a set must not hang on how the set is cut into batches: `loss_checks` tries a user's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from valleys import factories
from valleys.data.inputs import mapped
from valleys.data.tasks import CLASSIFICATION, IGNORED, TASKS, losses_of
from valleys.errors import ValleysError
from valleys.models.options import LOSSES
from valleys.models.precision import at_least_fp32

Loss = Callable[[Any, Tensor], Tensor]


def build(spec: Mapping[str, Any], task: str = CLASSIFICATION) -> Loss:
    """Return ``loss(outputs, labels) -> (N,)`` for a checked config block.

    Of a classification, of logits (N, C) and labels (N,): ``{"name": "cross_entropy"}`` in nats;
    ``{"name": "label_smoothing", "smoothing": 0.1}`` (Szegedy et al. 2016); ``{"name": "focal", "gamma": 2}``
    (Lin et al. 2017, eq. 4); ``{"name": "mse"}``, the mean over classes of the squared distance between
    logits and one-hot labels. Labels are integers of any width. Of a regression ``mse`` is the mean over the
    numbers of a label; of tokens and segmentation ``cross_entropy`` is that of each token or pixel
    (`OfParts`).

    ``{"factory": "module:attribute", "kwargs": {...}}`` is what a user's callable returns, for `PerImage`.

    Parameters
    ----------
    task
        Of `valleys.data.tasks.TASKS`.

    Raises
    ------
    ValleysError
        For a loss that the task has not; for a factory that cannot be found, raises, or returns no callable.
    """
    if "factory" in spec:
        made = factories.call(spec["factory"], factories.resolve(spec["factory"]), spec.get("kwargs", {}))
        if not callable(made) or isinstance(made, type):
            raise ValleysError(
                f"factory {spec['factory']!r} returns {type(made).__name__}; it must return a loss, which is "
                "called with (outputs, labels)"
            )
        return made
    name = spec["name"]
    if name not in TASKS[task].losses:
        raise ValleysError(f"loss: {name!r} is none of a {task}; {losses_of(task)}")
    if task == "regression":
        return squared_error
    return OfParts(task) if task in IGNORED else ByName(name, _formula(spec))


def squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over the numbers of a label of the squared distance to outputs as many, shape (N,)."""
    return (outputs.reshape(labels.shape) - labels).square().flatten(1).mean(1)


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
        their mean is one over weights, here those of the whole set (`factor`).

        A loss of which examples count differently has a method ``weights(labels)``, the sum of their weights,
        and ``values(outputs, labels)``, each value times its weight, as `OfParts` has.

        Or the name of a loss of `build` that has no options, or a config block of one.

    Raises
    ------
    ValleysError
        When it is none of these. When called, if `loss` returns something else.
    """

    def __init__(self, loss: Loss | str | Mapping[str, Any]) -> None:
        self.loss = loss.loss if isinstance(loss, PerImage) else _as_loss(loss)
        own = all(callable(getattr(self.loss, name, None)) for name in ("values", "weights"))
        self.weighted = self.loss if own else _of_torch(self.loss)

    def __call__(self, outputs: Any, labels: Tensor) -> Tensor:
        """Return the loss of each image, shape (N,)."""
        if self.weighted is not None:
            values = self.weighted.values(outputs, labels)
            if values.dim() == 1:
                return values
            # Of probabilities the mean is one over numbers, of classes one over weights.
            return values.flatten(1).sum(1) if self._weighs(labels) else values.flatten(1).mean(1)
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

    def _weighs(self, labels: Tensor) -> bool:
        """Whether the mean is one over weights: torch's is not, of labels that are probabilities."""
        is_torchs = isinstance(self.weighted, OfTorch)
        return self.weighted is not None and not (is_torchs and labels.is_floating_point())

    def batch_mean(self, values: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch by its values: their mean, or over the weights of its labels."""
        if not self._weighs(labels):
            return values.mean()
        return values.sum() / (self.weighted.weights(labels) or 1.0)

    def counted(self, labels: Tensor) -> float:
        """Return of how many labels the accuracy of a batch is a share."""
        return self.weighted.weights(labels) if isinstance(self.weighted, OfParts) else len(labels)

    def classed(self, labels: Iterable[Tensor]) -> int:
        """Return of how many labels the accuracy of a set is a share, where all that count are classes."""
        if isinstance(self.weighted, OfParts):
            return int(sum(map(self.weighted.weights, labels)))
        ignored = getattr(self.weighted, "ignore_index", -100)
        return sum(int((each.long() != ignored).sum()) for each in labels)

    def hits(self, outputs: Any, labels: Tensor) -> Tensor | None:
        """Return how many labels are those of the greatest score; None where outputs are no class scores."""
        if isinstance(self.weighted, OfParts):
            return self.weighted.hits(outputs, labels)
        is_scores = isinstance(outputs, Tensor) and outputs.dim() == 2 and outputs.shape[1] > 1
        if not is_scores or labels.dim() != 1 or labels.is_floating_point():
            return None
        return (outputs.argmax(1) == labels.long()).sum()

    def factor(self, labels: Iterable[Tensor]) -> float:
        """Return what the mean of the values is to be multiplied by for the loss of a set.

        Parameters
        ----------
        labels
            All of the set, batch by batch.

        Returns
        -------
        float
            Images over the sum of their weights for torch's cross-entropies of classes, else 1.

        Raises
        ------
        ValleysError
            When every label is ignored or has weight 0.
        """
        images, weights = 0, 0.0
        for each in labels:
            if not self._weighs(each):
                return 1.0
            images += len(each)
            weights += self.weighted.weights(each)
        if not weights > 0:
            raise ValleysError("loss: every label is ignored or has weight 0; there is nothing to average")
        return images / weights

    def on_set(self, labels: Iterable[Tensor]) -> Loss:
        """Return a loss whose plain mean over the images of a set is the loss of the set (`factor`).

        Parameters
        ----------
        labels
            All of the set, batch by batch.
        """
        factor = self.factor(labels)
        return self if factor == 1.0 else lambda outputs, targets: self(outputs, targets) * factor


class Totals:
    """The loss of a network that returns losses: of each example, or the sum over its batch.

    The loss of a set is the sum of all over how many they count: examples, or what the labels of each batch
    add up to, as tokens that are no padding.

    Parameters
    ----------
    counted
        Whether labels say how much each example counts; else each counts 1.
    """

    weighted = None

    def __init__(self, counted: bool = False) -> None:
        self.counted = counted

    def loss(self, outputs: Tensor, _labels: Tensor) -> Tensor:
        """Return what the network returned: (N,), or a number where it has the batch's sum alone."""
        return outputs

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return an example's part of the batch's sum, shape (N,)."""
        return outputs if outputs.dim() else (outputs / len(labels)).expand(len(labels))

    def factor(self, labels: Iterable[Tensor]) -> float:
        """Return the number of examples over how much they count, as `PerImage.factor`."""
        if not self.counted:
            return 1.0
        every = list(labels)
        return sum(map(len, every)) / float(sum(each.sum(dtype=torch.float64) for each in every))

    def on_set(self, labels: Iterable[Tensor]) -> Loss:
        """Return a loss whose plain mean over the examples of a set is the loss of the set."""
        factor = self.factor(labels)
        return self if factor == 1.0 else lambda outputs, targets: self(outputs, targets) * factor


@dataclass(frozen=True)
class OfParts:
    """Cross-entropy in nats of each token or pixel that counts; the loss of a set is the mean over these.

    So a set's loss does not hang on how much of which example is padding.

    Parameters
    ----------
    task
        ``tokens``: scores (N, T, V) at a token are for the next one; labels (N, T).
        ``segmentation``: scores (N, C, H, W); labels (N, H, W).
    """

    task: str

    @property
    def ignore_index(self) -> int:
        """The label of what does not count."""
        return IGNORED[self.task]

    def aligned(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (N, C, ...) with the label (N, ...) of each."""
        scores = outputs[:, :-1].transpose(1, 2) if self.task == "tokens" else outputs
        return scores, self._wanted(labels)

    def _wanted(self, labels: Tensor) -> Tensor:
        return (labels[:, 1:] if self.task == "tokens" else labels).long()

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the sum over each example's parts, shape (N,)."""
        return self.values(outputs, labels).flatten(1).sum(1)

    def values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the value of each part, 0 of one that does not count."""
        scores, wanted = self.aligned(outputs, labels)
        return F.cross_entropy(scores, wanted, ignore_index=self.ignore_index, reduction="none")

    def weights(self, labels: Tensor) -> float:
        """Return how many parts count."""
        return float((self._wanted(labels) != self.ignore_index).sum())

    def hits(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return how many parts have the greatest score where their label is."""
        scores, wanted = self.aligned(outputs, labels)
        return ((scores.argmax(1) == wanted) & (wanted != self.ignore_index)).sum()


@dataclass(frozen=True)
class OfTorch:
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

    def weights(self, labels: Tensor) -> float:
        """Return the sum of the weights of labels."""
        counted = _as_classes(labels)[labels != self.ignore_index]
        if self.weight is None:
            return counted.numel()
        return float(self.weight.detach().to(labels.device, torch.float64)[counted].sum())


def _of_torch(loss: Loss) -> OfTorch | None:
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
    if options.pop("reduction", "mean") != "mean" or not {f.name for f in fields(OfTorch)} > set(options):
        return None
    if not isinstance(options.get("weight"), Tensor | None):
        return None  # torch says what is wrong
    return OfTorch(function, **options)


def _as_loss(loss: Any) -> Loss:
    if isinstance(loss, str | Mapping):
        spec = {"name": loss} if isinstance(loss, str) else dict(loss)
        name = spec.get("name")
        options = LOSSES[name] if isinstance(name, str) and name in LOSSES else None
        if (
            options is None
            or spec.keys() != {"name", *options}
            or not all(option.accepts(spec[key]) for key, option in options.items())
        ):
            raise ValleysError(
                f"loss: {loss!r} names none; write cross_entropy, mse, {{'name': 'label_smoothing', "
                "'smoothing': 0.1} or {'name': 'focal', 'gamma': 2}, or give a function of (outputs, labels)"
            )
        return build(spec)
    if isinstance(loss, type):
        raise ValleysError(f"loss: {loss.__name__} is a class; give one of its objects, {loss.__name__}()")
    if not callable(loss):
        raise ValleysError(
            f"loss: {loss!r} cannot be called; give a function of (outputs, labels), as nn.CrossEntropyLoss()"
        )
    return loss


_WANTED = "it must return one value an image, or their mean"


def next_token(outputs: Any, labels: Tensor, ignore_index: int = -100) -> tuple[Tensor, Tensor]:
    """Return the sum over a batch of the cross-entropy of each next token in nats, and how many there are.

    Parameters
    ----------
    outputs
        Logits (N, T, V), or what has them as ``logits``; those at a token say what the next one is.
    labels
        Token numbers (N, T), mostly the network's own input; `ignore_index` where there is padding.
    """
    logits = outputs if isinstance(outputs, Tensor) else outputs.logits
    scores, following = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten().long()
    total = F.cross_entropy(at_least_fp32(scores), following, ignore_index=ignore_index, reduction="sum")
    return total, (following != ignore_index).sum()


def segmentation(outputs: Any, labels: Tensor, ignore_index: int = 255) -> tuple[Tensor, Tensor]:
    """Return the sum over a batch of the cross-entropy of each pixel in nats, and how many there are.

    Parameters
    ----------
    outputs
        Logits (N, C, H, W), or a mapping that has them as ``out``, as torchvision's networks return.
    labels
        Classes (N, H, W); `ignore_index` where a pixel has none.
    """
    logits = outputs if isinstance(outputs, Tensor) else outputs["out"]
    total = F.cross_entropy(at_least_fp32(logits), labels.long(), ignore_index=ignore_index, reduction="sum")
    return total, (labels != ignore_index).sum()


def full_outputs(outputs: Any) -> Any:
    """Return outputs in float32 at least (`precision.at_least_fp32`), also those in containers."""
    if isinstance(outputs, Tensor):
        return at_least_fp32(outputs)
    return mapped(outputs, lambda t: at_least_fp32(t) if t.is_floating_point() else t)
