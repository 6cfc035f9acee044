"""Exact derivatives of the train loss along a direction, compared with differences of losses; no curves."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from valleys.data import loaders
from valleys.data.inputs import Inputs
from valleys.errors import ValleysError
from valleys.landscape import directions
from valleys.models import losses
from valleys.networks import checks, copies, derivatives
from valleys.networks.bn_refresh import Refresher
from valleys.networks.tensors import vector_norm

log = logging.getLogger("valleys")
NO_SLOPES = "take slopes from differences of losses (slopes: differences, exact=False)"


class Losses(Protocol):
    """What slopes need of an `evaluator.Evaluator`, which see."""

    model: nn.Module
    parameters: dict[str, Tensor]
    loss: losses.PerImage
    sets: dict[str, Any]
    train_batches: loaders.Batches
    bn: str
    refresher: Refresher | None
    method: str
    batch_size: int
    device: torch.device
    precision: str
    forward: Any
    drawn_from: dict[str, int]
    by_image: dict[str, Tensor]
    points: int
    eps: float
    slopes: Slopes

    def train_loss(self) -> tuple[float, float]:
        """Return mean loss and accuracy on the train images."""

    def in_precision(self, precision: str) -> contextlib.AbstractContextManager[None]:
        """Return a context in which passes are of this precision."""

    def of(self, model: nn.Module, train: loaders.Batches, eps: float) -> Losses:
        """Return the same of another copy of the network, on other images."""


class Slopes:
    """Exact slopes of the train loss, at the weights that an evaluator has at present.

    Attributes
    ----------
    backwards : bool
        Whether forward mode is known to fail in this network.
    """

    def __init__(self, evaluator: Losses) -> None:
        self.evaluator, self.backwards = evaluator, False
        self._checked: Mapping[str, Tensor] | None = None  # the direction whose slope was last compared
        self._fine: Slopes | None = None  # where that is done

    def forget(self) -> None:
        """Compare the next slope again, whatever its direction: the weights are others."""
        self._checked = None

    @torch.no_grad()
    def along(self, direction: Mapping[str, Tensor]) -> float:
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
        if self.evaluator.bn == "refreshed" and self.evaluator.method == "streaming":
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
                copies.load(self._fine.evaluator.model, copies.snapshot(self.evaluator.model))
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

    def _in_double(self) -> Slopes | None:
        """Return slopes of a copy in float64 on some of the train images; None if that cannot be."""
        images, labels = next(iter(self.evaluator.train_batches))
        cut, size = isinstance(images, Tensor | Inputs), checks.SOME // 2
        if cut and self.evaluator.bn == "refreshed" and len(images) > 1:
            # In two batches, as these have one set of statistics, for which they wait for each other.
            size = min(size, len(images)) // 2
        found = derivatives.doubled(self.evaluator.model, images[:size] if cut else images)
        if found is None:
            return None
        model, converted, eps = found
        pairs = [(converted, labels[:size] if cut else labels)]
        if cut and self.evaluator.bn == "refreshed" and len(images) > 1:
            pairs.append((_like(images[size : 2 * size], converted), labels[size : 2 * size]))
        train = loaders.batches(pairs, self.evaluator.batch_size, self.evaluator.device, "train")
        return self.evaluator.of(model, train, eps).slopes

    def _compared(self, direction: Mapping[str, Tensor], slope: float | None) -> tuple[float, float] | None:
        """As `_wrong`, with the own slope and losses; the evaluator is left as it was."""
        if slope is None:
            slope = self._slope_backwards(direction) if self.backwards else self._slope_forwards(direction)
        here, by_image, points = (
            copies.snapshot(self.evaluator.model),
            dict(self.evaluator.by_image),
            self.evaluator.points,
        )
        own = {name: self.evaluator.parameters[name].detach().clone() for name in direction}

        def phi(offset: float) -> float:
            for name, u in direction.items():
                torch.add(own[name], u.to(own[name]), alpha=offset, out=self.evaluator.parameters[name].data)
            return self.evaluator.train_loss()[0]

        length, unit = vector_norm(own), vector_norm(direction)
        # Some fiftieths of the weights' norm are where the loss of trained networks has risen by about 1.
        scale = (length or 1.0) / (50 * unit) if unit else 0.0
        eps = self.evaluator.eps
        if self.evaluator.device.type == "cuda" and eps > torch.finfo(torch.float64).eps:
            eps = max(eps, 1e-4)  # TF32
        try:
            with self.evaluator.in_precision("fp32"):
                other = derivatives.differs(phi, slope, scale, eps) if scale else None
        finally:
            copies.load(self.evaluator.model, here)
            self.evaluator.by_image, self.evaluator.points = by_image, points
        return None if other is None else (slope, other)

    def _slope_forwards(self, direction: Mapping[str, Tensor]) -> float:
        with forward_ad.dual_level():
            own = {name: self.evaluator.parameters[name].detach() for name in direction}
            duals = {name: forward_ad.make_dual(own[name], u.to(own[name])) for name, u in direction.items()}
            with _replaced(self.evaluator.model, duals):
                tangents = [forward_ad.unpack_dual(loss).tangent for loss in self._train_losses()]
        # None where nothing depends on the direction.
        return sum(0.0 if t is None else float(t) for t in tangents) / len(self.evaluator.train_batches)

    def _slope_backwards(self, direction: Mapping[str, Tensor]) -> float:
        own = {name: self.evaluator.parameters[name] for name in direction}
        try:
            for parameter in own.values():  # themselves, as a network may refer to them in any way
                parameter.requires_grad_(True)
            with torch.enable_grad():
                losses = self._train_losses()
                if self.evaluator.bn == "refreshed":  # one graph, as the statistics are those of all batches
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
        return sum(terms) / len(self.evaluator.train_batches)

    def _train_losses(self) -> Iterator[Tensor]:
        """Yield the sum of losses over each batch of train images, as a function of the parameters."""
        if self.evaluator.bn == "refreshed":
            logits = self.evaluator.refresher.logits(x for x, _ in self.evaluator.train_batches)
        else:
            logits = (self.evaluator.model(x) for x, _ in self.evaluator.train_batches)
        for batch, labels in zip(logits, self.evaluator.train_batches.labels(), strict=True):
            yield (
                self.evaluator.loss(batch, labels).sum(dtype=torch.float64)
                * self.evaluator.sets["train"].factor
            )


def _like(images: Any, converted: Any) -> Any:
    """Return images in the number format of others; numbers of tokens are none."""
    return images.to(converted.dtype) if converted.is_floating_point() else images


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
