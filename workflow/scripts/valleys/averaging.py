"""Averages of weights (SWA) and refreshed batch-norm statistics.

SWA: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018,
section 3. An average of weights has batch-norm statistics of no network; they are recomputed by one more
look at the training set (section 3.2 there), here called *BN refresh*.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from valleys.errors import ValleysError

Method = Literal["exact", "streaming"]


def average(iterates: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the equal-weight mean of state dicts, accumulated in float64.

    Floating tensors are averaged; others (``num_batches_tracked``) are taken from the last state dict.
    Batch-norm statistics in the result mean nothing until `refresh_bn` has run.

    Parameters
    ----------
    iterates
        State dicts with the same names and shapes, read one at a time (nothing but the sum is kept).

    Raises
    ------
    ValleysError
        When there is no iterate, or one has other names or shapes than the first.
    """
    total: dict[str, Tensor] = {}
    last: Mapping[str, Tensor] = {}
    count = 0
    for count, iterate in enumerate(iterates, start=1):
        if total and {n: t.shape for n, t in iterate.items()} != {n: t.shape for n, t in total.items()}:
            raise ValleysError(f"iterate {count} has other tensors than iterate 1: they are of two models")
        for name, tensor in iterate.items():
            if tensor.is_floating_point():
                value = tensor.detach().to(torch.float64)
                total[name] = total[name] + value if name in total else value
            else:
                total[name] = tensor
        last = iterate
    if count == 0:
        raise ValleysError("no iterates to average: the averaging window is empty")
    return {
        name: (total[name] / count).to(tensor.dtype) if tensor.is_floating_point() else tensor.clone()
        for name, tensor in last.items()
    }


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch-norm layers of `model` that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


@torch.no_grad()
def refresh_bn(model: nn.Module, batches: Iterable[Tensor], method: Method = "exact") -> list[Tensor] | None:
    """Set the running statistics of every batch-norm layer to those of the images in `batches`.

    ``exact``
        The statistics of the whole set at every layer: layer k sees inputs that were normalised by the
        whole set's statistics at the layers before it. Independent of how the images are cut into
        batches, to rounding, and equal to one train-mode pass over a single batch that holds them all.
        All batches go through the network in lock-step, so the activations of the whole set at one layer
        are in memory at a time.
    ``streaming``
        One pass batch after batch in train mode, each normalised by its own statistics; means and
        variances pooled over images (law of total variance), so a short last batch counts for what it
        holds. Constant memory; from the second batch-norm layer on the result depends on the batch size.

    Variances are those of the population (divided by n). `torch.optim.swa_utils.update_bn` gives every
    batch the same weight, drops the variance between batch means and stores n/(n-1) times the variance.

    Parameters
    ----------
    model
        Changed in place: ``running_mean`` and ``running_var`` only. Left in the mode it was in.
    batches
        Tensors (n, C, H, W) on the model's device, or ``(images, labels)`` pairs as a loader yields.

    Returns
    -------
    The logits of each batch under the refreshed statistics for ``exact``: the pass computes them anyway
    and they equal an eval-mode pass. ``None`` for ``streaming``.

    Raises
    ------
    ValleysError
        When there are no images.
    """
    images = (batch[0] if isinstance(batch, (tuple, list)) else batch for batch in batches)
    was_training = model.training
    try:
        model.eval()  # dropout off: the statistics are those of the deterministic network
        if method == "streaming":
            _streaming(model, images)
            return None
        return _lockstep(model, list(images), _whole, _stored)
    finally:
        model.train(was_training)


def refreshed_logits(model: nn.Module, batches: Iterable[Tensor]) -> list[Tensor]:
    """Return the logits under whole-set batch-norm statistics as a differentiable function of the weights.

    The numbers are those of `refresh_bn` with ``exact``, to rounding. But the statistics are part of the
    computation, not constants, so that a derivative (forward or reverse mode) counts their dependence on the
    weights, and the stored ones are left as they are. Memory as there, times what the mode of
    differentiation needs (forward: two).

    Parameters
    ----------
    model
        Not changed; left in the mode it was in.
    batches
        Tensors (n, C, H, W) on the model's device.

    Raises
    ------
    ValleysError
        When there are no images.
    """
    was_training = model.training
    try:
        model.eval()
        return _lockstep(model, list(batches), _by_batch, _pooled)
    finally:
        model.train(was_training)


class _Moments:
    """Count, mean and sum of squared deviations by channel, merged in float64 (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count, self.mean, self.m2 = 0, None, None

    def add(self, x: Tensor) -> None:
        dims = [d for d in range(x.dim()) if d != 1]
        count = x.numel() // x.shape[1]
        var, mean = torch.var_mean(x, dim=dims, correction=0)
        mean, m2 = mean.double(), var.double() * count
        if self.mean is None:
            self.count, self.mean, self.m2 = count, mean, m2
            return
        total, delta = self.count + count, mean - self.mean
        self.m2 = self.m2 + m2 + delta.square() * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def store(self, layer: _BatchNorm) -> None:
        layer.running_mean.copy_(self.mean)
        layer.running_var.copy_(self.m2 / self.count)
        layer.num_batches_tracked.fill_(1)


def _normalise(layer: _BatchNorm, x: Tensor) -> Tensor:
    return F.batch_norm(
        x, layer.running_mean, layer.running_var, layer.weight, layer.bias, False, 0.0, layer.eps
    )


@contextlib.contextmanager
def _forward_as(layers: list[_BatchNorm], forward) -> Iterator[None]:
    """Within the block, ``layer(x)`` is ``forward(layer, x)`` for the given layers."""
    for layer in layers:
        layer.forward = lambda x, layer=layer: forward(layer, x)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # uncovers the class's method again


def _streaming(model: nn.Module, images: Iterable[Tensor]) -> None:
    layers = batch_norms(model)
    moments = {id(layer): _Moments() for layer in layers}

    def forward(layer: _BatchNorm, x: Tensor) -> Tensor:
        moments[id(layer)].add(x)
        return _by_batch(layer, x)

    empty = True
    with _forward_as(layers, forward):
        for x in images:
            model(x)
            empty = False
    if empty:
        raise ValleysError("BN refresh got no images")
    for layer in layers:
        moments[id(layer)].store(layer)


Normalise = Callable[[Tensor], Tensor]


def _lockstep(
    model: nn.Module,
    images: list[Tensor],
    alone: Callable[[_BatchNorm, Tensor], Tensor],
    together: Callable[[_BatchNorm, Iterator[Tensor]], Normalise],
) -> list[Tensor]:
    """Run all batches through the model together, pausing each at every batch-norm layer.

    Each batch's forward pass is a coroutine (greenlet) on this one thread: at a batch-norm layer it hands
    its input over and sleeps until the layer's statistics over all batches are known.

    Parameters
    ----------
    alone
        What a batch-norm layer does to a batch that is the whole set.
    together
        Takes a layer and its inputs of all batches; returns what the layer does to each.
    """
    if not images:
        raise ValleysError("BN refresh got no images")
    layers = batch_norms(model)
    if len(images) == 1 or not layers:
        with _forward_as(layers, alone):
            return [model(x) for x in images]
    from greenlet import getcurrent, greenlet

    hub = getcurrent()

    def forward(layer: _BatchNorm, x: Tensor) -> Tensor:
        return hub.switch((layer, x))(x)

    with _forward_as(layers, forward):
        passes = [greenlet(model, parent=hub) for _ in images]
        handed = [run.switch(x) for run, x in zip(passes, images, strict=True)]
        while not passes[0].dead:
            layer = handed[0][0]
            if any(at is not layer for at, _ in handed):
                raise ValleysError("batches took different paths through the model: use streaming")
            normalise = together(layer, (x for _, x in handed))
            for i, run in enumerate(passes):
                handed[i] = None  # or a batch's activation outlives its use
                handed[i] = run.switch(normalise)
    return handed


def _stored(layer: _BatchNorm, inputs: Iterator[Tensor]) -> Normalise:
    """Keep the inputs' statistics as the layer's, to normalise by."""
    moments = _Moments()
    for x in inputs:
        moments.add(x)
    moments.store(layer)
    return partial(_normalise, layer)


def _pooled(layer: _BatchNorm, inputs: Iterator[Tensor]) -> Normalise:
    """Normalise by the inputs' statistics, pooled by the law of total variance in float64; store nothing."""
    counts, means, variances = [], [], []
    for x in inputs:
        var, mean = torch.var_mean(x, dim=[d for d in range(x.dim()) if d != 1], correction=0)
        counts.append(x.numel() // x.shape[1])
        means.append(mean.double())
        variances.append(var.double())
    shares = torch.tensor(counts, dtype=torch.float64, device=means[0].device)[:, None] / sum(counts)
    means = torch.stack(means)
    mean = (shares * means).sum(0)
    variance = (shares * (torch.stack(variances) + (means - mean).square())).sum(0)
    scale = torch.rsqrt(variance + layer.eps)

    def normalise(x: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (x.dim() - 2)
        out = (x - mean.to(x.dtype).view(shape)) * scale.to(x.dtype).view(shape)
        if layer.affine:
            out = out * layer.weight.view(shape) + layer.bias.view(shape)
        return out

    return normalise


def _by_batch(layer: _BatchNorm, x: Tensor) -> Tensor:
    """Normalise one batch that is the whole set by its own statistics; store nothing."""
    return F.batch_norm(x, None, None, layer.weight, layer.bias, True, 0.0, layer.eps)


def _whole(layer: _BatchNorm, x: Tensor) -> Tensor:
    """Normalise one batch that is the whole set, keeping its population statistics: one fused kernel."""
    out = F.batch_norm(
        x, layer.running_mean, layer.running_var, layer.weight, layer.bias, True, 1.0, layer.eps
    )
    count = x.numel() // x.shape[1]
    layer.running_var.mul_((count - 1) / count)  # torch stores the unbiased variance
    layer.num_batches_tracked.fill_(1)
    return out
