"""Losses by name, each returning one value an image so that sums can be accumulated in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

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
