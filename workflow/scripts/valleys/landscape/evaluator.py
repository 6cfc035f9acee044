"""Loss and accuracy at points of weight space, on fixed, un-augmented images.

The caller's model is never touched: an `Evaluator` owns a copy and writes ``w + l * u`` into it. Sums over
images are accumulated in float64.
The batch-norm policy is part of every result:

``refreshed``
    Statistics recomputed over the probing train images at every point (`refresh_bn`), as the paper's code
    does; with the ``exact`` method that pass also gives the train loss, so that a point costs one pass over
    train and one over test.
``frozen``
    Statistics stay those stored with the solution.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from valleys.data import loaders
from valleys.data.loaders import Loader
from valleys.data.split import Split
from valleys.errors import ValleysError
from valleys.factories import one_line
from valleys.landscape import first_layer
from valleys.landscape.slopes import Slopes
from valleys.models import loss_checks, losses
from valleys.models.compilation import forward_of
from valleys.models.losses import Loss
from valleys.models.precision import autocast
from valleys.networks import checks, copies
from valleys.networks.batch_norm import bn_policy
from valleys.networks.bn_refresh import Method, Refresher
from valleys.networks.tensors import movable, random_numbers_kept

log = logging.getLogger("valleys")
#: Cross-entropy in nats, a value an image.
CROSS_ENTROPY = losses.build({"name": "cross_entropy"})


@dataclass(frozen=True)
class Point:
    """Mean loss (nats an image) and accuracy (share of images) on the two probing sets."""

    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float

    def asdict(self) -> dict[str, float]:
        """Return the four values by name."""
        return asdict(self)


class Evaluator:
    """Losses of one architecture at any weights, on fixed images, under one batch-norm policy.

    Parameters
    ----------
    model
        The solution to start from; copied (`copies.twin`), never changed.
    train, test
        Probing images: a split, or a loader of ``(images, labels)`` batches, which is read once
        (`loaders.LoaderBatches`). BN refresh uses all of `train`. Without `test`, its values are NaN.
    loss
        ``loss(outputs, labels)``: a value an image, or the batch's mean (`losses.PerImage`). It may hang on
        nothing but these, not on how images are cut into batches, which is tried (`loss_checks`). Or
        `losses.Totals`, for a network that returns losses itself.
    bn
        ``refreshed`` or ``frozen``.
    method, batch_size
        How BN is refreshed and how many images of a split go through the model at a time.
    precision
        Of the passes: ``fp32`` or ``bf16`` (`precision.autocast`). Weights move in float32 either way.
    drawn_from
        By name of the split, ``train`` or ``test``: the number of images that its own are a random subset
        of. Points then have each image's loss, for `with_errors`.
    compiled
        Whether passes that leave batch norm alone are compiled (`compilation.forward_of`): all but a refresh.
    metric
        ``metric(outputs, labels)`` in place of accuracy: a value an image, or the batch's mean.

    Attributes
    ----------
    shares_products : bool
        Whether points of a line or plane share products with images (`along`); false until it is set.

    Raises
    ------
    ValleysError
        For a loader that yields no pairs of tensors, or has nothing to read again; for a network or a loss
        that raises on the first images, and as `loss_checks.check`; for a network that cannot be copied, or
        is no function of its weights and of each image (`checks.check`), or whose batch norm cannot be
        followed (`batch_norm.bn_policy`).
    """

    def __init__(
        self,
        model: nn.Module,
        train: Split | Loader,
        test: Split | Loader | None = None,
        loss: Loss = CROSS_ENTROPY,
        *,
        bn: str = "refreshed",
        method: Method = "exact",
        batch_size: int = 1000,
        precision: str = "fp32",
        drawn_from: Mapping[str, int] | None = None,
        compiled: bool = False,
        metric: Loss | None = None,
    ) -> None:
        if bn not in ("refreshed", "frozen"):
            raise ValleysError(f"bn: {bn!r} is no policy; choose refreshed or frozen")
        self.bn = bn_policy(model, bn)
        self.model = copies.standing(model)
        self.loss = loss if isinstance(loss, losses.Totals) else losses.PerImage(loss)
        if metric is not None and isinstance(loss, losses.Totals):
            raise ValleysError("metric: it needs outputs, which a network that returns its loss has not")
        self.metric = None if metric is None else losses.PerImage(metric)
        self.method, self.batch_size = method, batch_size
        own = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.precision, self.device = precision, own
        self.parameters = dict(self.model.named_parameters())
        self.start = copies.snapshot(self.model)
        self.train_batches = loaders.batches(train, batch_size, own, "train")
        self.test_batches = None if test is None else loaders.batches(test, batch_size, own, "test")
        self.drawn_from = dict(drawn_from or {})
        self.by_image: dict[str, Tensor] = {}  # of the last pass over each split that `drawn_from` names
        self.points = 0
        self._at_start: dict[str, tuple[Point, dict[str, Tensor]]] = {}  # by precision
        # The network comes first, as a first pass may change it; but of images or labels that do not fit it,
        # the trial of the loss says more.
        refused = None
        try:
            self.eps = checks.check(self.model, next(iter(self.train_batches))[0], model)
        except ValleysError as error:
            refused = error
        with random_numbers_kept(own):
            self.sets = {
                name: loss_checks.check(
                    self.loss,
                    self._tried,
                    batches,
                    name,
                    dtype=_dtype(self.model),
                    by_image=name in self.drawn_from,
                    own=list(model.parameters()),
                )
                for name, batches in (("train", self.train_batches), ("test", self.test_batches))
                if batches is not None
            }
        if refused is not None:
            raise refused
        self.forward = forward_of(self.model, compiled)
        self.shares_products, self._inputs = False, first_layer.Inputs()
        self._along: tuple[Any, ...] = (first_layer.nowhere,)  # start and axes of the block that is entered
        self.refresher = Refresher(self.model) if self.bn == "refreshed" else None
        self.slopes = Slopes(self)

    @contextlib.contextmanager
    def along(self, start: Mapping[str, Tensor], *axes: Mapping[str, Tensor]) -> Iterator[first_layer.Place]:
        """Enter a block with many points ``start + x axes[0] + y axes[1]``: see `first_layer.shared`.

        With `shares_products`, products with images are computed once for all of them, also in blocks of the
        same axes within it. That rounds in other places, so the workflow, whose results are to stay, does not
        ask for it. Yields a function that takes the coordinates of the weights at hand; `move` calls
        it where the block has its direction. At weights that it was not called for, passes are as ever.
        """
        if not axes or not self.shares_products or self.forward is not self.model:  # the last: it is compiled
            yield first_layer.nowhere
        elif self._is_along(start, *axes):
            yield self._along[-1]
        else:
            count = len(self.train_batches) + (0 if self.test_batches is None else len(self.test_batches))
            outer = self._along
            with first_layer.shared(self.model, self._inputs, count, start, *axes) as place:
                self._along = start, *axes, place
                try:
                    yield place
                finally:
                    self._along = outer

    def _is_along(self, *wanted: Mapping[str, Tensor]) -> bool:
        *own, _ = self._along
        return len(own) == len(wanted) and all(map(operator.is_, own, wanted))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Make `state` (a state dict) the point that lines start from."""
        self._along[-1]()
        copies.load(self.model, state)
        self.start = copies.snapshot(self.model)
        self._at_start.clear()
        self.slopes.forget()

    def on(
        self,
        train: loaders.Batches,
        test: loaders.Batches | None = None,
        *,
        by_image: bool = False,
        accuracy: bool = False,
    ) -> Evaluator:
        """Return an evaluator of other images: it shares this one's network, start, loss and policy.

        One of the two at a time: moving one moves the other.

        Parameters
        ----------
        train, test
            Batches of the same kind of images as this one's, its parts mostly.
        by_image
            Whether points of train images have each image's loss.
        accuracy
            Whether points have an accuracy, where this one's have; else it is NaN.
        """
        other = copy.copy(self)
        other.train_batches, other.test_batches = train, test
        sets = {"train": train} | ({} if test is None else {"test": test})
        other.sets = {
            name: replace(
                own := self.sets.get(name, self.sets["train"]),
                factor=self.loss.factor(batches.labels()),
                classed=self.loss.classed(batches.labels()) if accuracy and own.classed else 0,
            )
            for name, batches in sets.items()
        }
        other.drawn_from = {"train": len(train)} if by_image else {}
        other.by_image, other._at_start = {}, {}
        other.slopes = Slopes(other)
        return other

    def of(self, model: nn.Module, train: loaders.Batches, eps: float) -> Evaluator:
        """Return an evaluator of another copy of the network on a few images, which moves by itself.

        Its losses have this one's factor (`loss_checks.check`), as all labels of a few may be ignored.

        Parameters
        ----------
        model
            A copy of the network in any number format, which becomes the evaluator's own.
        train
            Batches of some of the train images.
        eps
            Rounding of its passes, as `checks.check` returns it.
        """
        other = copy.copy(self)
        other.train_batches, other.test_batches, other.drawn_from = train, None, {}
        other.by_image, other._at_start = {}, {}
        other.model = other.forward = model
        other.eps, other.precision = eps, "fp32"
        other.parameters = {name: p.requires_grad_(False) for name, p in model.named_parameters()}
        other.start = copies.snapshot(model)
        other._inputs, other._along = first_layer.Inputs(), (first_layer.nowhere,)
        if other.refresher is not None:
            other.refresher = Refresher(model)
        other.slopes = Slopes(other)
        return other

    def move(self, direction: Mapping[str, Tensor], offset: float) -> None:
        """Set the weights to ``start + offset * direction``; parameters outside the direction to `start`."""
        with torch.no_grad():
            self._along[-1](*([offset] if self._is_along(self.start, direction) else []))
            for name, parameter in self.parameters.items():
                if name in direction:
                    torch.add(self.start[name], direction[name], alpha=offset, out=parameter.data)
                else:
                    parameter.data.copy_(self.start[name])

    def between(self, stop: Mapping[str, Tensor], t: float) -> None:
        """Set the weights to ``(1 - t) * start + t * stop``, exact at t = 0 and t = 1."""
        with torch.no_grad():
            self._along[-1]()
            for name, parameter in self.parameters.items():
                if not movable(parameter):
                    continue
                torch.mul(self.start[name], 1.0 - t, out=parameter.data)
                parameter.data.add_(stop[name].to(parameter), alpha=t)

    def set_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Set the weights to those given by name, of any precision; batch-norm statistics stay."""
        with torch.no_grad():
            self._along[-1]()
            for name, value in weights:
                self.parameters[name].data.copy_(value)

    def reset(self) -> None:
        """Put the starting weights and batch-norm statistics back."""
        self._along[-1]()
        copies.load(self.model, self.start)

    @torch.no_grad()
    def train_loss(self) -> tuple[float, float]:
        """Loss and accuracy on the probing train images at the present weights (refreshing BN if asked)."""
        self.points += 1
        if self.bn == "refreshed":
            with autocast(self.device, self.precision):
                logits = self.refresher.refresh(self.train_batches, self.method)
            if logits is not None:
                pairs = zip(logits, self.train_batches.labels(), strict=True)
                return self._mean(pairs, len(self.train_batches), "train")
        return self._pass(self.train_batches, "train")

    @torch.no_grad()
    def test_loss(self) -> tuple[float, float]:
        """Loss and accuracy on the probing test images, BN as `train_loss` left it; else NaN."""
        return (math.nan, math.nan) if self.test_batches is None else self._pass(self.test_batches, "test")

    @torch.no_grad()
    def stored(self) -> Point:
        """Return the values at the start with its stored BN statistics, in fp32: no refresh, no line."""
        self.reset()
        with self.in_precision("fp32"):
            return Point(*self._pass(self.train_batches, "train"), *self.test_loss())

    @contextlib.contextmanager
    def in_precision(self, precision: str) -> Iterator[None]:
        """Within the block, passes are of this precision."""
        own, self.precision = self.precision, precision
        try:
            yield
        finally:
            self.precision = own

    def train_slope(self, direction: Mapping[str, Tensor]) -> float:
        """Return the exact derivative of the train loss along `direction` (`Slopes.along`)."""
        self._along[-1]()  # the network is differentiated by its weights, not by what points share
        return self.slopes.along(direction)

    def point(self) -> Point:
        """Return train and test loss and accuracy at the present weights."""
        return Point(*self.train_loss(), *self.test_loss())

    def at_start(self) -> Point:
        """Return the values at the start, BN as the policy has it: the point at offset 0 of every line.

        Measured once in each precision, until `load`; the weights are left at the start.
        """
        if self.precision not in self._at_start:
            self.reset()
            self._at_start[self.precision] = self.point(), dict(self.by_image)
            self.reset()
        point, by_image = self._at_start[self.precision]
        self.by_image = dict(by_image)
        return point

    @torch.no_grad()
    def has_image_losses(self) -> bool:
        """Return whether the loss is one of each image, and not just the mean over a batch."""
        images, labels = next(iter(self.train_batches))
        outputs = losses.full_outputs(self.model(images))
        return self.loss.weighted is not None or self.loss.loss(outputs, labels).dim() > 0

    def _pass(self, batches: loaders.Batches, name: str) -> tuple[float, float]:
        def pairs() -> Iterator[tuple[Any, Tensor]]:
            for i, (images, labels) in enumerate(batches):
                self._inputs.begin((name, i), images)
                with autocast(self.device, self.precision):
                    outputs = self.forward(images)
                yield outputs, labels

        return self._mean(pairs(), len(batches), name)

    def _tried(self, images: Tensor) -> Any:
        """Return what the network makes of a few images, before anything is compiled."""
        with autocast(self.device, self.precision):
            return self.model(images)

    def _mean(self, pairs: Iterable[tuple[Any, Tensor]], count: int, name: str) -> tuple[float, float]:
        total, hits, kept, on = 0.0, 0, [], self.sets[name]
        with one_line(f"{name}: the network or the loss"):  # in a batch that `loss_checks` has not tried
            for outputs, labels in pairs:
                if self.metric is not None:  # counted first, as a loss may write into the outputs
                    hits = hits + self.metric(losses.full_outputs(outputs), labels).sum(dtype=torch.float64)
                elif on.classed:
                    hits = hits + self.loss.hits(outputs, labels)
                values = self.loss(losses.full_outputs(outputs), labels)
                total = total + values.sum(dtype=torch.float64)
                if name in self.drawn_from:
                    kept.append(values * on.factor)
        if kept:
            self.by_image[name] = torch.cat(kept)
        whole = on.classed if self.metric is None else count
        return on.factor * float(total) / count, float(hits) / whole if whole else math.nan


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def evaluator_for(
    model: nn.Module,
    splits: tuple[Split, Split],
    block: Mapping[str, Any],
    spec: Mapping[str, Any],
    compiled: bool = False,
) -> Evaluator:
    """Return the evaluator that a job's params ask for.

    Parameters
    ----------
    model
        The solution to start from.
    splits
        All train and all test images.
    block
        Of a probe, line or plane: ``train_images``, ``test_images`` (how many of them), ``bn`` and
        ``precision``; ``image_errors`` where points are to have the error that a subset brings.
    spec
        The rule's params: ``loss`` and ``bn_refresh``.
    compiled
        As `jobs.compiles` says.
    """
    whole = dict(zip(("train", "test"), splits, strict=True))
    train, test = (split.subset(block[f"{name}_images"]) for name, split in whole.items())
    parts = {"train": train, "test": test}
    drawn_from = {name: len(whole[name]) for name in parts if len(parts[name]) < len(whole[name])}
    settings = spec["bn_refresh"]
    return Evaluator(
        model,
        train,
        test,
        losses.build(spec["loss"], splits[0].task),
        bn=block["bn"],
        method=settings["method"],
        batch_size=settings["batch_size"],
        precision=block.get("precision", "fp32"),
        drawn_from=drawn_from if block.get("image_errors") else None,
        compiled=compiled,
    )


def check_finite(where: str, loss: float) -> None:
    """Raise unless the train loss at a solution is a number that others can be compared with.

    Raises
    ------
    ValleysError
        When it is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise ValleysError(
            f"the train loss at {where} is {loss}: there is no valley to look at; check that the weights are "
            "those of this model and are finite, and that images and labels are what the loss expects"
        )
