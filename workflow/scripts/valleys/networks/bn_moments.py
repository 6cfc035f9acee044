"""Means and variances of batch-norm inputs, summed batch by batch in float64; no passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from valleys.errors import ValleysError


class Affine(NamedTuple):
    """What a layer does to normalised values, and the eps of the normalisation."""

    weight: Tensor | None
    bias: Tensor | None
    eps: float


Normalise = Callable[[Tensor, Affine], Tensor]
#: Values of a channel that torch's CPU kernel adds up in float32 before they are merged in float64.
PIECE = 4096


class Moments:
    """Mean and variance by channel of a layer's inputs, and what the layer then does to each of these.

    They are pooled by the law of total variance, in float64, and become the layer's own.
    """

    def __init__(self, layer: _BatchNorm) -> None:
        self.layer = layer
        self.counts: list[int] = []
        self.means: list[Tensor] = []  # (groups, channels), as the variances
        self.variances: list[Tensor] = []

    def add(self, x: Tensor) -> None:
        """Take an input in: (n, channels, ...)."""
        kind = torch.promote_types(x.dtype, torch.float32)
        if x.device.type != "cpu":
            var, mean = torch.var_mean(x.to(kind), dim=_all_but_channels(x), correction=0)
            self.take(x.numel() // x.shape[1], mean[None], var[None])
            return
        for piece, groups in _in_groups(x):
            # Batch norm's own kernel is faster than `var_mean`, many times so where channels are last.
            # It wants running statistics, not updated here, whose type is that of its result.
            unused = torch.zeros(2, piece.shape[1], dtype=kind)
            mean, var = torch.batch_norm_update_stats(piece, *unused, 0.0)
            self.take(piece.numel() // piece.shape[1], mean.view(groups, -1), var.view(groups, -1))

    def take(self, count: int, means: Tensor, variances: Tensor) -> None:
        """Add groups of `count` values a channel."""
        self.counts += [count] * len(means)
        self.means.append(means)
        self.variances.append(variances)

    def extend(self, other: Moments) -> None:
        """Add what the other has been given."""
        self.counts += other.counts
        self.means += other.means
        self.variances += other.variances

    def merged(self) -> tuple[Tensor, Tensor]:
        """Return mean and population variance, in float64."""
        each = torch.cat(self.means).double()
        counts = torch.tensor(self.counts, dtype=torch.float64, device=each.device)
        shares = counts[:, None] / sum(self.counts)
        mean = (shares * each).sum(0)
        return mean, (shares * (torch.cat(self.variances).double() + (each - mean).square())).sum(0)

    def whole(self) -> tuple[Tensor, Tensor]:
        """Return what `merged` does, of the whole set, which must have a variance."""
        if sum(self.counts) < 2:
            raise ValleysError(f"BN refresh: {self.layer} gets one value a channel; give more images")
        return self.merged()

    def store(self) -> None:
        """Put the moments into the layer's running statistics."""
        mean, variance = self.whole()
        self.layer.running_mean.copy_(mean)
        self.layer.running_var.copy_(variance)
        if self.layer.num_batches_tracked is not None:
            self.layer.num_batches_tracked.fill_(1)

    def normalise(self) -> Normalise:
        """Store the statistics; return the function that normalises by them."""
        self.store()
        return partial(normalised, self.layer.running_mean, self.layer.running_var)


class Pooled(Moments):
    """The same as a differentiable function of the inputs; stores nothing."""

    def add(self, x: Tensor) -> None:
        """Take in the inputs of one batch, shape (n, channels, ...)."""
        kind = torch.promote_types(x.dtype, torch.float32)
        var, mean = torch.var_mean(x.to(kind), dim=_all_but_channels(x), correction=0)
        self.take(x.numel() // x.shape[1], mean[None], var[None])

    def normalise(self) -> Normalise:
        """Return the function that normalises by the moments of all batches."""
        mean, variance = self.whole()

        def normalise(x: Tensor, affine: Affine) -> Tensor:
            shape, kind = (1, -1) + (1,) * (x.dim() - 2), torch.promote_types(x.dtype, torch.float32)
            scale = torch.rsqrt(variance + affine.eps)
            out = (x.to(kind) - mean.to(kind).view(shape)) * scale.to(kind).view(shape)
            if affine.weight is not None:
                out = out * affine.weight.view(shape)
            if affine.bias is not None:
                out = out + affine.bias.view(shape)
            return out.to(x.dtype)

        return normalise


def _in_groups(x: Tensor) -> list[tuple[Tensor, int]]:
    """Return all values of x (n, c, ...) as tensors (rows, groups * c, ...), with the numbers of groups.

    The kernel adds up a channel's values in float32 one by one. Here every `groups`-th row is a group, and
    the kernel sees each of its channels as a channel: it adds up `PIECE` values or so instead of all, in one
    call. Nothing is copied where x is contiguous or channels-last.
    """
    last = x.movedim(1, -1)
    rows = last.flatten(0, -2) if last.is_contiguous() else x.flatten(2) if x.dim() > 2 else x
    count, channels, *area = rows.shape
    groups = min(count, max(1, count * math.prod(area) // PIECE))
    whole = count - count % groups
    found = [(rows[:whole].reshape(-1, groups * channels, *area), groups)]
    return found if whole == count else [*found, (rows[whole:], 1)]


def _all_but_channels(x: Tensor) -> list[int]:
    return [d for d in range(x.dim()) if d != 1]


def normalised(mean: Tensor, variance: Tensor, x: Tensor, affine: Affine) -> Tensor:
    """Return `x`, shape (n, channels, ...), normalised by these moments."""
    return batch_normalised(x, mean, variance, affine, training=False)


def batch_normalised(
    x: Tensor, mean: Tensor | None, variance: Tensor | None, affine: Affine, training: bool
) -> Tensor:
    """Do what torch's ``F.batch_norm`` does, also while `_passes` has something else in its place."""
    cudnn = torch.backends.cudnn.enabled
    return torch.batch_norm(x, affine.weight, affine.bias, mean, variance, training, 0.0, affine.eps, cudnn)
