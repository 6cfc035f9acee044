"""Losses by name, each returning one value an image so that sums can be accumulated in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from valleys.errors import ValleysError

Loss = Callable[[Tensor, Tensor], Tensor]


def build(spec: Mapping[str, Any]) -> Loss:
    """Return ``loss(logits (N, C), labels (N,)) -> (N,)`` for a checked config block.

    ``{"name": "cross_entropy"}`` in nats; ``{"name": "label_smoothing", "smoothing": 0.1}`` (Szegedy et al.
    2016); ``{"name": "focal", "gamma": 2}`` (Lin et al. 2017, eq. 4); ``{"name": "mse"}``, the mean over
    classes of the squared distance between logits and one-hot labels.
    """
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
    """Any loss as one that returns a value an image, as `build` returns them.

    Parameters
    ----------
    loss
        ``loss(outputs, labels)`` that returns a value an image, (N,) or (N, ...), or the mean over the batch
        as one number: torch's losses with ``reduction="mean"`` or ``"none"``. A mean is given to each image
        of its batch, so that the mean over batches counts images; it has the rounding of float32.

    Raises
    ------
    ValleysError
        When called, if `loss` returns a sum over the batch, or anything else. To tell a sum from a mean the
        first batch that has a loss is passed twice.
    """

    def __init__(self, loss: Callable[[Any, Tensor], Tensor]) -> None:
        self.loss = loss
        self._is_mean = False

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each image, shape (N,)."""
        values = self.loss(outputs, labels)
        if isinstance(values, Tensor) and values.dim() == 0:
            self._check_mean(outputs, labels, values)
            return values.expand(len(labels))
        if not isinstance(values, Tensor) or len(values) != len(labels):
            got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise ValleysError(
                f"loss: it returns {got} for {len(labels)} labels; it must return one value an image, "
                "or their mean"
            )
        return values.flatten(1).mean(1) if values.dim() > 1 else values

    @torch.no_grad()
    def _check_mean(self, outputs: Tensor, labels: Tensor, value: Tensor) -> None:
        if self._is_mean:
            return
        outputs, once = outputs.detach(), float(value.detach())
        twice = float(self.loss(torch.cat([outputs, outputs]), torch.cat([labels, labels])))
        if not (math.isfinite(once) and math.isfinite(twice)) or once == 0:
            return  # says nothing; the next batch may
        if abs(twice - once) > 1e-3 * abs(once):
            raise ValleysError('loss: it returns a sum over the batch; use reduction="mean" or "none"')
        self._is_mean = True
