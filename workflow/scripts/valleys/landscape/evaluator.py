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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from valleys.data import loaders
from valleys.data.loaders import Loader
from valleys.data.split import Split
from valleys.errors import ValleysError
from valleys.factories import one_line
from valleys.landscape import directions
from valleys.models import loss_checks, losses
from valleys.models.compilation import forward_of
from valleys.models.losses import Loss
from valleys.models.precision import autocast
from valleys.networks import checks, copies, derivatives
from valleys.networks.batch_norm import bn_policy
from valleys.networks.bn_refresh import Method, refresh_bn, refreshed_logits
from valleys.networks.tensors import movable, random_numbers_kept, vector_norm

log = logging.getLogger("valleys")
#: Cross-entropy in nats, a value an image.
CROSS_ENTROPY = losses.build({"name": "cross_entropy"})
NO_SLOPES = "take slopes from differences of losses (slopes: differences, exact=False)"


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
        nothing but these, not on how images are cut into batches, which is tried (`loss_checks`).
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
    ) -> None:
        if bn not in ("refreshed", "frozen"):
            raise ValleysError(f"bn: {bn!r} is no policy; choose refreshed or frozen")
        self.bn = bn_policy(model, bn)
        self.model = copies.standing(model)
        self.loss, self.method, self.batch_size = losses.PerImage(loss), method, batch_size
        own = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.precision, self.device = precision, own
        self.parameters = dict(self.model.named_parameters())
        self.start = copies.snapshot(self.model)
        self._train = loaders.batches(train, batch_size, own, "train")
        self._test = None if test is None else loaders.batches(test, batch_size, own, "test")
        self.drawn_from = dict(drawn_from or {})
        self.by_image: dict[str, Tensor] = {}  # of the last pass over each split that `drawn_from` names
        self.points = 0
        self._at_start: dict[str, tuple[Point, dict[str, Tensor]]] = {}  # by precision
        self.backwards = False  # whether forward mode is known to fail in this network
        # The network comes first, as a first pass may change it; but of images or labels that do not fit it,
        # the trial of the loss says more.
        refused = None
        try:
            self._eps = checks.check(self.model, next(iter(self._train))[0], model)
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
                for name, batches in (("train", self._train), ("test", self._test))
                if batches is not None
            }
        if refused is not None:
            raise refused
        self.forward = forward_of(self.model, compiled)
        self._checked: Mapping[str, Tensor] | None = None  # the direction whose slope was last compared
        self._fine: Evaluator | None = None  # where that is done

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Make `state` (a state dict) the point that lines start from."""
        copies.load(self.model, state)
        self.start = copies.snapshot(self.model)
        self._at_start.clear()
        self._checked = None

    def move(self, direction: Mapping[str, Tensor], offset: float) -> None:
        """Set the weights to ``start + offset * direction``; parameters outside the direction to `start`."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if name in direction:
                    torch.add(self.start[name], direction[name], alpha=offset, out=parameter.data)
                else:
                    parameter.data.copy_(self.start[name])

    def between(self, stop: Mapping[str, Tensor], t: float) -> None:
        """Set the weights to ``(1 - t) * start + t * stop``, exact at t = 0 and t = 1."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if not movable(parameter):
                    continue
                torch.mul(self.start[name], 1.0 - t, out=parameter.data)
                parameter.data.add_(stop[name].to(parameter), alpha=t)

    def place(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Set the weights to those given by name, of any precision; batch-norm statistics stay."""
        with torch.no_grad():
            for name, value in weights:
                self.parameters[name].data.copy_(value)

    def reset(self) -> None:
        """Put the starting weights and batch-norm statistics back."""
        copies.load(self.model, self.start)

    @torch.no_grad()
    def train_loss(self) -> tuple[float, float]:
        """Loss and accuracy on the probing train images at the present weights (refreshing BN if asked)."""
        self.points += 1
        if self.bn == "refreshed":
            with autocast(self.device, self.precision):
                logits = refresh_bn(self.model, self._train, self.method)
            if logits is not None:
                pairs = zip(logits, self._train.labels(), strict=True)
                return self._mean(pairs, len(self._train), "train")
        return self._pass(self._train, "train")

    @torch.no_grad()
    def test_loss(self) -> tuple[float, float]:
        """Loss and accuracy on the probing test images, BN as `train_loss` left it; else NaN."""
        return (math.nan, math.nan) if self._test is None else self._pass(self._test, "test")

    @torch.no_grad()
    def stored(self) -> Point:
        """Return the values at the start with its stored BN statistics, in fp32: no refresh, no line."""
        self.reset()
        with self.in_precision("fp32"):
            return Point(*self._pass(self._train, "train"), *self.test_loss())

    @contextlib.contextmanager
    def in_precision(self, precision: str) -> Iterator[None]:
        """Within the block, passes are of this precision."""
        own, self.precision = self.precision, precision
        try:
            yield
        finally:
            self.precision = own

    @torch.no_grad()
    def train_slope(self, direction: Mapping[str, Tensor]) -> float:
        """Return the derivative of the train loss along `direction` at the present weights, exactly.

        By forward-mode differentiation (dual numbers), which needs no graph: one pass over the train images
        that carries a tangent with each activation. ``frozen`` and ``none``: batch by batch, statistics
        constant. ``refreshed``: the derivative of the refreshed loss itself, in which the statistics of the
        whole set follow the weights (`bn_refresh.refreshed_logits`); all batches are in memory together, with
        their tangents. Where the loss has a kink (ReLU) the derivative is one of those on its two sides.

        A network with an operation that has no forward mode (torch has none for some layers, in some memory
        layouts) is differentiated backwards: the gradient's inner product with `direction`, which takes more
        memory and gives the same number.

        The first slope along a direction is compared with a central difference of losses. If it is another
        one, as where forward mode loses its tangents without a word (reentrant checkpointing), the gradient
        is tried.

        Parameters
        ----------
        direction
            By parameter name; parameters that are not in it stay.

        Returns
        -------
        float
            Units of loss per unit of `direction`.

        Raises
        ------
        ValleysError
            For ``refreshed`` with method ``streaming``, whose loss hangs on the batches; for a network of
            which torch gives a derivative that is not the loss's.
        """
        if self.bn == "refreshed" and self.method == "streaming":
            raise ValleysError(
                "exact slopes with refreshed BN need bn_refresh.method exact, or else slopes: differences"
            )
        if not self.backwards:
            try:
                slope = self._slope_forwards(direction)
            except RuntimeError as error:
                log.info("slopes by the gradient: no forward mode in this network (%s)", error)
            else:
                wrong = self._wrong(direction, slope)
                if wrong is None:
                    return slope
                log.info("slopes by the gradient: forward mode gives %.6g, differences %.6g", *wrong)
            self.backwards = True
        try:
            slope = self._slope_backwards(direction)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ValleysError(
                f"network: torch cannot differentiate it ({copies.line(error)}); {NO_SLOPES}"
            ) from error
        wrong = self._wrong(direction, slope)
        if wrong is not None:
            raise ValleysError(f"{derivatives.hidden(*wrong)}; {NO_SLOPES}")
        return slope

    def _wrong(self, direction: Mapping[str, Tensor], slope: float) -> tuple[float, float] | None:
        """Return a slope along `direction` and the difference that it is not; None where they agree.

        Once for each line. On some images and in float64 (`doubled`), where the network and the loss
        take that; else on all images as they are, where `slope` is the one.
        """
        if self._checked is direction:
            return None
        if self._fine is None:
            self._fine = self._in_double() or self
        found = None
        if self._fine is not self:
            self._fine.backwards = self.backwards
            try:
                copies.load(self._fine.model, copies.snapshot(self.model))
                found = self._fine._compared(direction, None)
            except ValleysError:
                raise
            except Exception as error:
                log.info("slopes are compared in the network's own precision (%s)", error)
                self._fine = self
        if self._fine is self:
            found = self._compared(direction, slope)
        if found is None:
            self._checked = direction
        return found

    def _in_double(self) -> Evaluator | None:
        """Return an evaluator of a copy in float64 on some of the train images; None if that cannot be."""
        images, labels = next(iter(self._train))
        cut, size = isinstance(images, Tensor), checks.SOME // 2
        if cut and self.bn == "refreshed" and len(images) > 1:
            # In two batches, as these have one set of statistics, for which they wait for each other.
            size = min(size, len(images)) // 2
        found = derivatives.doubled(self.model, images[:size] if cut else images)
        if found is None:
            return None
        fine = copy.copy(self)
        fine.model, converted, fine._eps = found
        pairs = [(converted, labels[:size] if cut else labels)]
        if cut and self.bn == "refreshed" and len(images) > 1:
            pairs.append((images[size : 2 * size].to(converted.dtype), labels[size : 2 * size]))
        fine._train = loaders.batches(pairs, self.batch_size, self.device, "train")
        fine.forward, fine.precision, fine.drawn_from = fine.model, "fp32", {}
        fine.parameters = dict(fine.model.named_parameters())
        for parameter in fine.parameters.values():
            parameter.requires_grad_(False)
        return fine

    def _compared(self, direction: Mapping[str, Tensor], slope: float | None) -> tuple[float, float] | None:
        """As `_wrong`, with this evaluator's own slope and losses, which are all as they were then."""
        if slope is None:
            slope = self._slope_backwards(direction) if self.backwards else self._slope_forwards(direction)
        here, by_image, points = copies.snapshot(self.model), dict(self.by_image), self.points
        own = {name: self.parameters[name].detach().clone() for name in direction}

        def phi(offset: float) -> float:
            for name, u in direction.items():
                torch.add(own[name], u.to(own[name]), alpha=offset, out=self.parameters[name].data)
            return self.train_loss()[0]

        length, unit = vector_norm(own), vector_norm(direction)
        # Some fiftieths of the weights' norm are where the loss of trained networks has risen by about 1.
        scale = (length or 1.0) / (50 * unit) if unit else 0.0
        eps = self._eps
        if self.device.type == "cuda" and eps > torch.finfo(torch.float64).eps:
            eps = max(eps, 1e-4)  # TF32
        try:
            with self.in_precision("fp32"):
                other = derivatives.differs(phi, slope, scale, eps) if scale else None
        finally:
            copies.load(self.model, here)
            self.by_image, self.points = by_image, points
        return None if other is None else (slope, other)

    def _slope_forwards(self, direction: Mapping[str, Tensor]) -> float:
        with forward_ad.dual_level():
            own = {name: self.parameters[name].detach() for name in direction}
            duals = {name: forward_ad.make_dual(own[name], u.to(own[name])) for name, u in direction.items()}
            with _replaced(self.model, duals):
                tangents = [forward_ad.unpack_dual(loss).tangent for loss in self._train_losses()]
        # None where nothing depends on the direction.
        return sum(0.0 if t is None else float(t) for t in tangents) / len(self._train)

    def _slope_backwards(self, direction: Mapping[str, Tensor]) -> float:
        own = {name: self.parameters[name] for name in direction}
        try:
            for parameter in own.values():  # themselves, as a network may refer to them in any way
                parameter.requires_grad_(True)
            with torch.enable_grad():
                losses = self._train_losses()
                if self.bn == "refreshed":  # one graph, as the statistics are those of all batches
                    losses = [sum(losses)]
                for loss in losses:
                    if loss.requires_grad:
                        loss.backward()
            terms = [
                directions.inner({name: direction[name].to(parameter)}, {name: parameter.grad})
                for name, parameter in own.items()
                if parameter.grad is not None
            ]
        finally:
            for parameter in own.values():
                parameter.requires_grad_(False)
                parameter.grad = None
        return sum(terms) / len(self._train)

    def _train_losses(self) -> Iterator[Tensor]:
        """Yield the sum of losses over each batch of train images, as a function of the parameters."""
        if self.bn == "refreshed":
            logits = refreshed_logits(self.model, (x for x, _ in self._train))
        else:
            logits = (self.model(x) for x, _ in self._train)
        for batch, labels in zip(logits, self._train.labels(), strict=True):
            yield self.loss(batch, labels).sum(dtype=torch.float64) * self.sets["train"].factor

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

    def _pass(self, batches: loaders.Batches, name: str) -> tuple[float, float]:
        def logits(images: Tensor) -> Tensor:
            with autocast(self.device, self.precision):
                return self.forward(images)

        return self._mean(((logits(x), y) for x, y in batches), len(batches), name)

    def _tried(self, images: Tensor) -> Any:
        """Return what the network makes of a few images, before anything is compiled."""
        with autocast(self.device, self.precision):
            return self.model(images)

    def _mean(self, pairs: Iterable[tuple[Any, Tensor]], count: int, name: str) -> tuple[float, float]:
        total, hits, kept, on = 0.0, 0, [], self.sets[name]
        with one_line(f"{name}: the network or the loss"):  # in a batch that `loss_checks` has not tried
            for outputs, labels in pairs:
                if on.classed:  # counted first, as a loss may write into the outputs
                    hits = hits + (outputs.argmax(1) == labels.long()).sum()
                values = self.loss(losses.full_outputs(outputs), labels)
                total = total + values.sum(dtype=torch.float64)
                if name in self.drawn_from:
                    kept.append(values * on.factor)
        if kept:
            self.by_image[name] = torch.cat(kept)
        return on.factor * float(total) / count, float(hits) / on.classed if on.classed else math.nan


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


@contextlib.contextmanager
def _replaced(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block, the model computes with these tensors in place of its parameters.

    As `torch.func.functional_call` does, but for passes that are interleaved (`bn_refresh.refreshed_logits`).
    """
    parameters = dict(model.named_parameters())
    new = {id(parameters[name]): value for name, value in values.items()}
    own: list[tuple[Any, Any, Tensor]] = []
    try:
        for module in model.modules():
            if isinstance(module, torch.jit.ScriptModule):
                raise RuntimeError("a ScriptModule's parameters cannot be replaced")
            for held in (module._parameters, *_lists_of(module)):  # a tied one is in several of them
                for key, tensor in list(held.items() if isinstance(held, dict) else enumerate(held)):
                    if id(tensor) in new:
                        own.append((held, key, tensor))
                        held[key] = new[id(tensor)]
        yield
    finally:
        for held, key, tensor in own:
            held[key] = tensor


def _lists_of(module: nn.Module) -> list[Any]:
    """Return lists and dicts that a module keeps, as they may hold parameters (``_flat_weights``)."""
    names = ("_parameters", "_buffers", "_modules")
    return [v for k, v in vars(module).items() if k not in names and type(v) in (list, dict)]


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
        losses.build(spec["loss"]),
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
