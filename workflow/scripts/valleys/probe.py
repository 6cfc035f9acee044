"""Loss and accuracy along lines through weight space, on fixed, un-augmented images.

The caller's model is never touched: an `Evaluator` owns a copy and writes ``w + l * u`` into it. Sums over
images are accumulated in float64. In float32 on a CPU wide convolutions take fewer products (`winograd`).
The batch-norm policy is part of every result:

``refreshed``
    Statistics recomputed over the probing train images at every point (`bn_refresh.refresh_bn`), as the
    paper's code does; with the ``exact`` method that pass also gives the train loss, so that a point costs
    one pass over train and one over test.
``frozen``
    Statistics stay those stored with the solution.
``none``
    The model has no batch-norm layer.

Slopes of a line's train loss are left to differences between its points, or computed exactly
(`Evaluator.train_slope`).
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from valleys import directions, winograd
from valleys.asymmetry import next_point, robustness
from valleys.asymmetry.spline import finer
from valleys.data import loaders
from valleys.data.loaders import Loader
from valleys.data.split import Split
from valleys.direction_kinds import RANDOM
from valleys.errors import ValleysError
from valleys.factories import one_line
from valleys.models import loss_checks, losses
from valleys.models.compilation import forward_of
from valleys.models.losses import Loss
from valleys.models.precision import autocast
from valleys.networks import checks, copies, derivatives
from valleys.networks.batch_norm import bn_policy
from valleys.networks.bn_refresh import Method, refresh_bn, refreshed_logits
from valleys.networks.tensors import movable, random_numbers_kept, vector_norm
from valleys.storage.state import load_checkpoint, save_checkpoint

log = logging.getLogger("valleys")

#: Cross-entropy in nats, a value an image.
CROSS_ENTROPY = losses.build({"name": "cross_entropy"})
#: How far (relative, plus as much absolutely) a line's loss may be from a solution's own, by precision.
TOLERANCE = {"fp32": 1e-5, "bf16": 0.02}
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


class CurvePoint(TypedDict):
    """A point of a line: its offset, the values of `Point`, and the slope where it was asked for.

    ``by_image`` (split to a tensor of losses) is there if the evaluator was told what its images are drawn
    from; `with_errors` puts its columns in the place of that.
    """

    offset: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    train_slope: float | None
    by_image: NotRequired[dict[str, Tensor]]


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
        if not compiled:
            winograd.install(self.model)
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


def line_offsets(radius: float, points: int) -> list[float]:
    """Return `points` (odd) evenly spaced offsets from -radius to radius; the middle one is exactly 0.

    Raises
    ------
    ValleysError
        When `points` is even or below 3, or `radius` is not finite.
    """
    if points < 3 or points % 2 != 1 or not math.isfinite(radius):
        raise ValleysError(
            f"line_offsets: {points} points to {radius}; give an odd number of 3 or more and a finite radius"
        )
    half = points // 2
    return [radius * i / half for i in range(-half, half + 1)]


def probe_line(
    evaluator: Evaluator | nn.Module,
    direction: Mapping[str, Tensor],
    offsets: Iterable[float] | None = None,
    exact: bool = False,
    **given: Any,
) -> list[CurvePoint]:
    """Return ``offset``, the four values of `Point` and ``train_slope`` at each offset.

    Parameters
    ----------
    evaluator
        Starts at the solution. Or the network itself, with what `Evaluator` takes besides as `given`; for
        more than one line an evaluator made once spares reading the images each time.
    direction
        By parameter name, of the parameters' shapes; parameters that are not in it stay.
    offsets
        In 2-norm units of `direction`, if that has norm 1. None: 41 from -R to R, with R where the train
        loss has risen by 1 (`find_radius`).
    exact
        Whether to take slopes, in units of loss per unit of offset, by `Evaluator.train_slope`; else they are
        None. They change none of the other values.
    given
        ``train``, ``test``, ``loss``, ``bn`` and the other parameters of `Evaluator`, for a network.

    Raises
    ------
    ValleysError
        When `direction` does not fit the network, an offset is not finite, the train loss at offset 0 is not,
        or as `Evaluator`.
    """
    if not isinstance(evaluator, Evaluator):
        evaluator = _evaluator(evaluator, given)
    elif given:
        raise ValleysError(f"probe_line: {', '.join(given)} is settled by the evaluator; leave it out")
    _check_direction(direction, evaluator.parameters)
    if offsets is None:
        norm = vector_norm(evaluator.parameters)
        radius = find_radius(evaluator, direction, rise=1.0, first=norm / 50, cap=2 * norm)
        offsets = line_offsets(radius.radius, 41)
    offsets = _checked_offsets(offsets)
    rows: list[CurvePoint] = []
    try:
        for offset in offsets:
            evaluator.move(direction, offset)
            slope = evaluator.train_slope(direction) if exact else None
            point = evaluator.point() if offset else evaluator.at_start()
            if not offset:
                check_finite("the solution", point.train_loss)
            rows.append(
                {
                    "offset": offset,
                    "train_loss": point.train_loss,
                    "train_accuracy": point.train_accuracy,
                    "test_loss": point.test_loss,
                    "test_accuracy": point.test_accuracy,
                    "train_slope": slope,
                }
            )
            if evaluator.drawn_from:
                rows[-1]["by_image"] = dict(evaluator.by_image)
    finally:
        evaluator.reset()
    return rows


def _evaluator(model: object, given: Mapping[str, Any]) -> Evaluator:
    if not isinstance(model, nn.Module):
        raise ValleysError(f"probe_line: {type(model).__name__} is neither a network nor an Evaluator")
    if "train" not in given:
        raise ValleysError("probe_line: a network needs train, a loader of (images, labels), beside it")
    return Evaluator(model, **given)


def _checked_offsets(offsets: Any) -> list[float]:
    try:
        found = [float(offset) for offset in offsets]
    except (TypeError, ValueError) as error:
        raise ValleysError(f"offsets: not a list of numbers ({error})") from error
    if strange := [offset for offset in found if not abs(offset) <= torch.finfo(torch.float32).max]:
        raise ValleysError(f"offsets: {strange[0]} is not finite in float32; give finite numbers")
    return found


def _check_direction(direction: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    if not isinstance(direction, Mapping) or not direction:
        what = f"a {type(direction).__name__}" if not isinstance(direction, Mapping) else "without entries"
        raise ValleysError(f"direction: it is {what}; give tensors by parameter name")
    for name, tensor in direction.items():
        if not isinstance(tensor, Tensor):
            raise ValleysError(f"direction: {name!r} is a {type(tensor).__name__}; it must be a tensor")
        if name not in parameters:
            near = difflib.get_close_matches(name, list(parameters), n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ValleysError(f"direction: the network has no parameter {name!r}{hint}")
        if tensor.shape != parameters[name].shape:
            raise ValleysError(
                f"direction: {name!r} has shape {tuple(tensor.shape)}; that of the parameter is "
                f"{tuple(parameters[name].shape)}"
            )
        own = parameters[name].dtype
        if not movable(parameters[name]) or (tensor.is_complex() and not own.is_complex):
            raise ValleysError(
                f"direction: {name!r} is {tensor.dtype} and the parameter {own}, through which there is no "
                "such line; leave it out"
            )
        if not torch.isfinite(tensor).all():
            raise ValleysError(f"direction: {name!r} has values that are not finite")
    if not any(tensor.any() for tensor in direction.values()):
        raise ValleysError(
            "direction: all of its values are 0, so the line has length zero; of a difference of weights, "
            "give two that differ"
        )


def checked_points(count: int) -> list[int]:
    """Return which of a curve's points are measured in both precisions: the ends and the middle."""
    return sorted({0, count // 2, count - 1})


def settle(
    evaluator: Evaluator,
    direction: Mapping[str, Tensor],
    curve: list[CurvePoint],
    constants: Mapping[str, float],
    offsets: Sequence[float] | None = None,
) -> tuple[list[CurvePoint], dict[str, Any]]:
    """Return a curve whose verdict does not hang on the precision of its passes, and how it came about.

    A curve in bf16 is compared with fp32 at its ends and in the middle. Where errors like those found there
    (`errors_like`) could change its verdict by Definition 1 (`robustness.holds`), all of its points
    are measured again in fp32.

    Parameters
    ----------
    curve
        As `probe_line` returned it, in the evaluator's precision.
    constants
        Of Definition 1 (the config's ``asymmetry``).
    offsets
        All of the curve's, if it was measured at some.

    Returns
    -------
    curve, columns
        ``precision`` of the curve returned, and ``precision_error``: root mean square of the differences in
        train loss (its units) that bf16 made at the points compared; None where nothing was compared.
    """
    if evaluator.precision == "fp32":
        return curve, {"precision": "fp32", "precision_error": None}
    own, losses = ([row[key] for row in curve] for key in ("offset", "train_loss"))
    offsets = own if offsets is None else offsets
    checked = checked_points(len(offsets))
    with evaluator.in_precision("fp32"):
        exact = probe_line(evaluator, direction, [offsets[i] for i in checked])
        found = {point["offset"]: point["train_loss"] for point in exact}
        differences = [row["train_loss"] - found[row["offset"]] for row in curve if row["offset"] in found]
        error = math.sqrt(sum(d * d for d in differences) / len(differences))
        if math.isfinite(error) and all(map(math.isfinite, losses)):
            at = measured_at(offsets, curve)
            errors = robustness.errors_like(finer(offsets, at, losses)[0], checked, differences)
            if robustness.holds(offsets, losses, errors[at], at=at, **constants):
                return curve, {"precision": "bf16", "precision_error": error}
        curve = _with_these(evaluator, direction, own, exact)
        return curve, {"precision": "fp32", "precision_error": error}


def probe_adaptively(
    evaluator: Evaluator,
    direction: Mapping[str, Tensor],
    offsets: Sequence[float],
    constants: Mapping[str, float],
    exact: bool = False,
) -> tuple[list[CurvePoint], dict[str, Any]]:
    """Return a curve on as many of the offsets as its shape and verdict need, and how it came about.

    Some points first (`next_point.first_points`), then one by one the point that is needed most
    (`next_point`), until none is. A point's values are those it has in `probe_line` at all offsets.
    The curve is to be read through `spline.finer`.

    Parameters
    ----------
    offsets
        All of them, uniform and symmetric about 0.
    constants
        Of Definition 1 (the config's ``asymmetry``).
    exact
        As in `probe_line`.

    Returns
    -------
    curve, columns
        The points in the order of their offsets, and the columns of `settle`.
    """
    first = [offsets[i] for i in next_point.first_points(len(offsets))]
    curve = probe_line(evaluator, direction, first, exact)
    curve = _refined(evaluator, direction, offsets, curve, constants, exact)
    curve, measured = settle(evaluator, direction, curve, constants, offsets)
    if measured["precision"] != evaluator.precision:  # other points may be needed in fp32
        with evaluator.in_precision(measured["precision"]):
            curve = _refined(evaluator, direction, offsets, curve, constants, exact)
    return curve, measured


def _refined(
    evaluator: Evaluator,
    direction: Mapping[str, Tensor],
    offsets: Sequence[float],
    curve: list[CurvePoint],
    constants: Mapping[str, float],
    exact: bool,
) -> list[CurvePoint]:
    """Return the curve with the points that it needs beside its own."""
    columns = ("train_loss", "test_loss", "train_slope")
    while True:
        train, test, slopes = ([row[key] for row in curve] for key in columns)
        # One loss that is not finite settles the verdict; test losses are NaN where there are no test images.
        if not all(map(math.isfinite, train)) or any(map(math.isinf, test)):
            return curve
        known = None if any(slope is None or not math.isfinite(slope) for slope in slopes) else slopes
        at = measured_at(offsets, curve)
        wanted = next_point.next_point(offsets, at, train, slopes=known, beside=test, **constants)
        if wanted is None:
            return curve
        curve = _with_these(evaluator, direction, [offsets[wanted]], curve, exact)


def measured_at(offsets: Sequence[float], curve: list[CurvePoint]) -> list[int]:
    """Return the numbers of the offsets that the curve has, as `spline.finer` takes them."""
    there = {row["offset"] for row in curve}
    return [i for i, offset in enumerate(offsets) if offset in there]


def _with_these(
    evaluator: Evaluator,
    direction: Mapping[str, Tensor],
    offsets: Sequence[float],
    curve: list[CurvePoint],
    exact: bool = False,
) -> list[CurvePoint]:
    """Return the curve with the points at these offsets, measured where it has none."""
    there = {row["offset"] for row in curve}
    more = probe_line(evaluator, direction, [offset for offset in offsets if offset not in there], exact)
    return sorted([*curve, *more], key=lambda row: row["offset"])


#: Columns that `with_errors` adds.
ERRORS = ("train_error", "test_error", "train_error_1", "train_error_2", "train_error_3")


def with_errors(curve: list[CurvePoint], drawn_from: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return a curve on a random subset of images with the errors that the choice of these brings.

    The error of a point is the standard error of its rise over offset 0: with d_i the change of image i's
    loss from 0 to there, s their standard deviation, and n images drawn from N,
    ``s / sqrt(n) * sqrt(1 - n / N)``. It is an error against the mean over all N images, of train and test
    split alike; seen as a sample of endless images, leave the last factor out. Errors of points of one curve
    hang together, being made by the same images: those of the train loss are given a second time as the
    three greatest of their independent parts (principal components of their covariance), whose sum, each
    times a standard normal number, is an error that the whole curve may have.

    Where batch norm is refreshed from the subset, its statistics have errors of their own, which are not in
    this (docs/performance.md).

    Parameters
    ----------
    curve
        Rows with ``by_image``; one is at offset 0.
    drawn_from
        As in `Evaluator`.

    Returns
    -------
    The rows with the columns `ERRORS` in place of ``by_image``, in units of the loss; None of a split of
    which all images are used. Without `drawn_from`: the curve as it is.
    """
    if not drawn_from:
        return curve
    none = dict.fromkeys(ERRORS)
    rows = [{key: value for key, value in row.items() if key != "by_image"} | none for row in curve]
    (zero,) = (row["by_image"] for row in curve if row["offset"] == 0)
    for name, whole in drawn_from.items():
        change = torch.stack([row["by_image"][name].double() - zero[name].double() for row in curve])
        n = change.shape[1]
        if n < 2:
            continue
        change -= change.mean(dim=1, keepdim=True)
        covariance = (change @ change.T * ((1 - n / whole) / (n * (n - 1)))).cpu()
        for row, variance in zip(rows, covariance.diag().tolist(), strict=True):
            row[f"{name}_error"] = math.sqrt(variance) if variance >= 0 else math.nan
        if name == "train" and torch.isfinite(covariance).all():
            values, vectors = torch.linalg.eigh(covariance)
            for part, i in enumerate(range(-1, -4, -1), start=1):
                along = vectors[:, i] * values[i].clamp(min=0).sqrt()
                along = along * along[along.abs().argmax()].sign()  # a sign that does not hang on LAPACK
                for row, value in zip(rows, along.tolist(), strict=True):
                    row[f"train_error_{part}"] = value
    return rows


def interpolate(
    evaluator: Evaluator,
    move: Callable[[float], None],
    ts: Iterable[float],
    report: Callable[[int], None] = print,
) -> list[dict[str, float]]:
    """Return ``t`` and the values of `Point` at each t; ``move(t)`` sets the evaluator's weights."""
    rows = []
    try:
        for t in ts:
            move(t)
            rows.append({"t": t, **evaluator.point().asdict()})
            report(len(rows))
    finally:
        evaluator.reset()
    return rows


@dataclass(frozen=True)
class Radius:
    """A radius and how it came about.

    Attributes
    ----------
    radius : float
        In 2-norm units of the direction.
    status : str
        ``fixed``; ``found``; ``capped``: the rise is not met within reach; ``jump``: the loss leaps over the
        target, or is no longer finite, so that no radius has that rise.
    """

    radius: float
    status: str


def find_radius(
    evaluator: Evaluator,
    direction: Mapping[str, Tensor],
    *,
    rise: float,
    first: float,
    cap: float,
    tolerance: float = 0.1,
) -> Radius:
    """Find R so that the larger of ``phi(R) - phi(0)`` and ``phi(-R) - phi(0)`` is `rise`, on train loss.

    Bracketing by doubling or halving from `first`; then, as a rise is close to a power of R, the power law
    through the bracket's ends says where to look next (bisection of log R where an end has no finite
    positive rise, and in every third step, so that the bracket shrinks whatever the curve). Ends when the
    rise is within `tolerance` (relative) of its target or the bracket is narrower than 1 %. A loss of NaN or
    infinity counts as a rise beyond any target, one of minus infinity as a fall.

    Parameters
    ----------
    rise
        Target in the loss's units (nats for cross-entropy).
    first, cap
        First trial and greatest radius allowed, in 2-norm units.

    Returns
    -------
    Radius
        ``found``; ``capped``, with `cap`, when the rise is not met there; ``jump`` when within that last
        1 % the loss rises by more than `rise` at once or stops being finite. Of the latter it is the end of
        the bracket that is nearer to 0.

    Raises
    ------
    ValleysError
        A `rise`, `first` or `cap` that is not a positive number, a direction that does not fit the network,
        or a loss at 0 that is not finite.
    """
    if isinstance(evaluator, nn.Module):
        raise ValleysError("find_radius: a network is no evaluator; give Evaluator(model, train, loss=loss)")
    if isinstance(evaluator, Evaluator):  # not a function of one's own in its place
        _check_direction(direction, evaluator.parameters)
    try:
        base = evaluator.at_start().train_loss
        check_finite("the solution", base)
        for name, value in (("rise", rise), ("first", first), ("cap", cap)):
            if not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
                why = "; are all weights 0?" if value == 0 else ""
                raise ValleysError(f"find_radius: {name}: {value!r} is not a finite number above 0{why}")

        def larger(radius: float) -> float:
            rises = []
            for sign in (1.0, -1.0):
                evaluator.move(direction, sign * radius)
                value = evaluator.train_loss()[0] - base
                rises.append(math.inf if math.isnan(value) else value)
            return max(rises)

        def met(value: float) -> bool:
            return abs(value - rise) <= tolerance * rise

        low = high = min(first, cap)
        at_low = at_high = larger(high)
        while at_high < rise and not met(at_high):
            if high >= cap:
                return Radius(cap, "capped")
            low, at_low = high, at_high
            high = min(2 * high, cap)
            at_high = larger(high)
        # Not below 2**-40 of the first trial: a loss that jumps at once has no radius to find.
        while at_low >= rise and not met(at_low) and low > first * 2.0**-40:
            high, at_high = low, at_low
            low = low / 2
            at_low = larger(low)
        for trial in range(30):
            for radius, value in ((low, at_low), (high, at_high)):
                if met(value):
                    return Radius(radius, "found")
            share = 0.5
            if trial % 3 < 2 and at_low > 0 and math.isfinite(at_high) and at_high > at_low:
                share = math.log(rise / at_low) / math.log(at_high / at_low)
            middle = low * (high / low) ** min(max(share, 0.02), 0.98)
            value = larger(middle)
            if value < rise:
                low, at_low = middle, value
            else:
                high, at_high = middle, value
            if high / low < 1.01:
                break
        if not math.isfinite(at_high):
            return Radius(low, "jump")
        steep = at_low >= rise or at_high - at_low > rise
        return Radius(math.sqrt(low * high), "jump" if steep else "found")
    finally:
        evaluator.reset()


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


def check_against(where: str, found: float, stored: float, tolerance: float = 1e-5, on: str = "line") -> None:
    """Raise unless a line's (or plane's: `on`) train loss at a stored solution equals that solution's own.

    Raises
    ------
    ValleysError
        When they differ by more than `tolerance` (relative, plus as much absolutely): it does not pass
        through the solution, or was measured on other images or another BN policy. When `stored` is not
        finite.
    """
    check_finite(where, stored)
    if not abs(found - stored) <= tolerance * (1.0 + abs(stored)):
        raise ValleysError(
            f"self-check failed: {where} has train loss {found:.8g} on the {on} and {stored:.8g} when the "
            f"stored solution is evaluated by itself; delete the cell's cached solutions and rerun"
        )


def stored_directions(stored: Mapping[str, Tensor], solution: str) -> list[dict[str, Tensor]]:
    """Pick a solution's directions, in order, out of tensors named ``<solution>/<k>/<parameter>``."""
    found: dict[int, dict[str, Tensor]] = {}
    for name, tensor in stored.items():
        owner, k, parameter = name.split("/", 2)
        if owner == solution:
            found.setdefault(int(k), {})[parameter] = tensor
    return [found[k] for k in sorted(found)]


def stored_columns(header: Mapping[str, Any], solution: str, k: int) -> dict[str, Any]:
    """Return the columns that just some computed kinds have, out of a direction file's header; else null."""
    rows = header.get("columns", {}).get(solution, [])
    return {"eigenvalue": None, "to_seed": None} | (rows[k] if k < len(rows) else {})


def probe_solution(
    evaluator: Evaluator,
    block: Mapping[str, Any],
    *,
    key: str,
    stored: list[dict[str, Tensor]],
    check_stored_bn: bool,
    state: Path,
    constants: Mapping[str, float] | None = None,
    save_every_s: float = 5.0,
) -> Iterator[tuple[list[dict[str, float]], dict[str, Any]]]:
    """Probe a solution along the directions of one probe, resuming from `state`.

    Every curve is checked to pass through the solution's own loss.

    Parameters
    ----------
    evaluator
        Starts at the solution.
    block
        A probe's config block: ``kind, n, group, share, points, radius, relative, rise, slopes``, and
        ``adaptive`` if it is.
    key
        Name of the random stream.
    stored
        Directions of computed kinds.
    check_stored_bn
        Whether the stored BN statistics are those of the probing set, so that the solution as stored must
        have the curve's loss at 0. Otherwise (refreshed on a subset) it is compared after a refresh.
    state
        File that keeps finished directions, by number.
    constants
        Of Definition 1, for an evaluator in bf16 (`settle`) and for adaptive probes (`probe_adaptively`).

    Yields
    ------
    curve, row
        Points of the line, and the direction's columns of the ``directions`` table (without the names).
    """
    model = evaluator.model
    names = directions.parameter_group(model, block["group"])
    weights = {name: evaluator.parameters[name].detach() for name in names}
    weight_norm, group_norm = vector_norm(evaluator.parameters), vector_norm(weights)
    random = block["kind"] in RANDOM
    done: dict[int, Any] = load_checkpoint(state) if state.exists() else {}
    saved_at = time.monotonic()
    # A fiftieth of the weights' norm is within a few doublings of where trained nets rise by 1 nat. Later
    # directions start from the radius of direction 0, which is the same however many are asked for.
    first = done[0][1]["radius"] if 0 in done else weight_norm / 50
    with evaluator.in_precision("fp32"):
        own = evaluator.stored() if check_stored_bn or evaluator.bn != "refreshed" else evaluator.at_start()
    check_finite("the solution", own.train_loss)
    resumed = len(done)
    for k, direction, norm in directions.draw(block, weights, key, stored):
        if k not in done:
            if block["radius"] is not None:
                radius = Radius(float(block["radius"]), "fixed")
            elif block["relative"] is not None:
                norm_of = group_norm if block["relative_to"] == "group" else weight_norm
                radius = Radius(block["relative"] * norm_of, "fixed")
            else:
                radius = find_radius(
                    evaluator, direction, rise=block["rise"], first=first, cap=2 * weight_norm
                )
                first = radius.radius if k == 0 else first
            offsets = line_offsets(radius.radius, block["points"])
            exact = block["slopes"] == "exact"
            if block.get("adaptive"):
                curve, measured = probe_adaptively(evaluator, direction, offsets, constants or {}, exact)
                measured["points"] = len(curve)
                curve = [{**row, "grid_points": len(offsets)} for row in curve]
            else:
                curve = probe_line(evaluator, direction, offsets, exact=exact)
            check_against(
                f"direction {k} at offset 0",
                next(row["train_loss"] for row in curve if row["offset"] == 0),
                own.train_loss,
                TOLERANCE[evaluator.precision],
            )
            if not block.get("adaptive"):
                curve, measured = settle(evaluator, direction, curve, constants or {})
            curve = with_errors(curve, evaluator.drawn_from)
            row = {
                "k": k,
                "key": key if random else "",
                "norm": norm,
                "entries": sum(w.numel() for w in weights.values()),
                "group_norm": group_norm,
                "projection": directions.inner(direction, weights),
                "sign_agreement": directions.sign_agreement(direction, weights),
                "radius": radius.radius,
                "radius_status": radius.status,
                **measured,
            }
            done[k] = [curve, row]
            if time.monotonic() - saved_at > save_every_s:
                save_checkpoint(state, done)
                saved_at = time.monotonic()
            log.info(
                "direction %d of %d: R %.4g (%s), loss %.4f | %.4f | %.4f at -R, 0, R, %d points, %s",
                k + 1,
                block["n"],
                radius.radius,
                radius.status,
                curve[0]["train_loss"],
                own.train_loss,
                curve[-1]["train_loss"],
                len(curve),
                measured["precision"],
            )
        yield tuple(done[k])
    if len(done) > resumed:
        # Curves share their point at offset 0; that all began there shows when it is measured again.
        evaluator.reset()
        again = evaluator.point().train_loss
        check_against(
            "the start after the last direction", again, own.train_loss, TOLERANCE[evaluator.precision]
        )
        evaluator.reset()
    save_checkpoint(state, done)


def line_between(
    evaluator: Evaluator,
    stop: nn.Module,
    line: Mapping[str, Any],
    check_stored_bn: bool,
    at: Callable[[float], Mapping[str, Tensor]] | None = None,
) -> list[dict[str, float]]:
    """Return the points of a line or path between two stored solutions, checked at both ends.

    Parameters
    ----------
    evaluator
        Starts at the solution of t = 0.
    stop
        The solution of t = 1.
    line
        A line's config block: ``first, last, divisions``; t runs in steps of 1/divisions.
    check_stored_bn
        As in `probe_solution`.
    at
        Gives the weights at t on a path with trained bends (`paths.WeightPath.at`); ``None``: the
        straight line.

    Raises
    ------
    ValleysError
        When the two ends are the same weights, or a loss at an end is not that of its solution.
    """
    state = stop.state_dict()
    names = f"{line['start']} (t = 0) and {line['stop']} (t = 1)"
    directions.check_apart(evaluator.start, state, evaluator.parameters, names)
    d = line["divisions"]
    ts = [i / d for i in range(round(line["first"] * d), round(line["last"] * d) + 1)]

    def report(count: int) -> None:
        if count % 20 == 0 or count == len(ts):
            log.info("%d of %d points", count, len(ts))

    def move(t: float) -> None:
        if at is None:
            evaluator.between(state, t)
        else:
            evaluator.place(at(t).items())

    points = interpolate(evaluator, move, ts, report)
    if check_stored_bn or evaluator.bn != "refreshed":
        by_t = {point["t"]: point["train_loss"] for point in points}
        check_against(f"{line['start']} (t = 0)", by_t[0.0], evaluator.stored().train_loss)
        if evaluator.bn != "frozen":  # a frozen line carries the statistics of its start
            evaluator.load(state)
            check_against(f"{line['stop']} (t = 1)", by_t[1.0], evaluator.stored().train_loss)
    return points
