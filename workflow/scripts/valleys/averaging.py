"""Averages of weights (SWA) and refreshed batch-norm statistics.

SWA: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018,
section 3. An average of weights has batch-norm statistics of no network; they are recomputed by one more
look at the training set (section 3.2 there), here called *BN refresh*.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from valleys import factories, loaders
from valleys.errors import ValleysError

Method = Literal["exact", "streaming"]
Normalise = Callable[[Tensor], Tensor]


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
        When there is no iterate, or one has other names or shapes than the first; for a list of iterates that
        are one and the same, which is what a network's ``state_dict()``, kept without a copy, becomes.
    """
    if isinstance(iterates, Sequence):
        _check_apart(iterates)
    total: dict[str, Tensor] = {}
    last: Mapping[str, Tensor] = {}
    count = 0
    for count, iterate in enumerate(iterates, start=1):
        if total and {n: t.shape for n, t in iterate.items()} != {n: t.shape for n, t in total.items()}:
            raise ValleysError(f"iterate {count} has other tensors than iterate 1: they are of two models")
        for name, tensor in iterate.items():
            if tensor.is_floating_point():
                value = tensor.detach().to(torch.float64, copy=True)
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


def _check_apart(iterates: Sequence[Mapping[str, Tensor]]) -> None:
    """Raise when two neighbours share their memory: their values would be those of the last."""
    for i in range(1, len(iterates)):
        for name, tensor in iterates[i].items():
            other = iterates[i - 1].get(name)
            if tensor.is_floating_point() and tensor.numel() and other is not None:
                if tensor.data_ptr() == other.data_ptr():
                    raise ValleysError(
                        f"iterates {i} and {i + 1} are the same tensors; keep copies: "
                        "{n: t.clone() for n, t in model.state_dict().items()}"
                    )
                break


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
        Tensors (n, C, H, W), or ``(images, labels)`` pairs as a loader yields; moved to the model's device.
        Read once and copied, as a loader may fill one buffer again and again (`loaders.images_of`).

    Returns
    -------
    The logits of each batch under the refreshed statistics for ``exact``: the pass computes them anyway
    and they equal an eval-mode pass. ``None`` for ``streaming``.

    Raises
    ------
    ValleysError
        When there are no images, a batch is no tensor of them, or the network or the loader raises.
    """
    device = next((p.device for p in model.parameters()), None)
    images = loaders.images_of(batches, device)
    was_training = model.training
    try:
        model.eval()  # dropout off: the statistics are those of the deterministic network
        if method == "streaming":
            _streaming(model, images)
            return None
        return _lockstep(model, list(images), _alone, _Moments)
    except Exception as error:
        if isinstance(batches, loaders.Batches):  # the network has been tried on them
            raise
        with factories.one_line("BN refresh: the network"):
            raise error
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
        return _lockstep(model, list(batches), _by_batch, _Pooled)
    finally:
        model.train(was_training)


#: Values of a channel that torch's CPU kernel adds up in float32 before they are merged in float64.
PIECE = 4096


class _Moments:
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

    def extend(self, other: _Moments) -> None:
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

    def store(self) -> None:
        mean, variance = self.merged()
        self.layer.running_mean.copy_(mean)
        self.layer.running_var.copy_(variance)
        self.layer.num_batches_tracked.fill_(1)

    def normalise(self) -> Normalise:
        """Store the statistics; return the function that normalises by them."""
        self.store()
        return partial(_normalise, self.layer, self.layer.running_mean, self.layer.running_var)


class _Pooled(_Moments):
    """The same as a differentiable function of the inputs; stores nothing."""

    def add(self, x: Tensor) -> None:
        var, mean = torch.var_mean(x, dim=_all_but_channels(x), correction=0)
        self.take(x.numel() // x.shape[1], mean[None], var[None])

    def normalise(self) -> Normalise:
        layer = self.layer
        mean, variance = self.merged()
        scale = torch.rsqrt(variance + layer.eps)

        def normalise(x: Tensor) -> Tensor:
            shape = (1, -1) + (1,) * (x.dim() - 2)
            out = (x - mean.to(x.dtype).view(shape)) * scale.to(x.dtype).view(shape)
            if layer.affine:
                out = out * layer.weight.view(shape) + layer.bias.view(shape)
            return out

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


def _normalise(layer: _BatchNorm, mean: Tensor, variance: Tensor, x: Tensor) -> Tensor:
    return F.batch_norm(x, mean, variance, layer.weight, layer.bias, False, 0.0, layer.eps)


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
    moments = {id(layer): _Moments(layer) for layer in layers}

    def forward(layer: _BatchNorm, x: Tensor) -> Tensor:
        here = _Moments(layer)
        here.add(x)
        moments[id(layer)].extend(here)
        return _normalise(layer, *(value.to(here.means[0].dtype) for value in here.merged()), x)

    empty = True
    with _forward_as(layers, forward):
        for x in images:
            model(x)
            empty = False
    if empty:
        raise ValleysError("BN refresh got no images")
    for of_layer in moments.values():
        if of_layer.counts:  # else no image came by
            of_layer.store()


def _lockstep(
    model: nn.Module,
    images: list[Tensor],
    alone: Callable[[_BatchNorm, Tensor], Tensor],
    together: type[_Moments],
) -> list[Tensor]:
    """Run all batches through the model together, pausing each at every batch-norm layer.

    Each batch's forward pass is a coroutine (greenlet) on this one thread: at a batch-norm layer it hands
    its input over and sleeps until the layer's statistics over all batches are known.

    Parameters
    ----------
    alone
        What a batch-norm layer does to a batch that is the whole set.
    together
        Takes the statistics of a layer's inputs in all batches.
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

    given: list[Any] = images
    results: list[Any] = [None] * len(images)
    order = list(range(len(images)))
    with _forward_as(layers, forward):
        passes = [greenlet(model, parent=hub) for _ in images]
        while True:
            statistics, met = None, 0
            for i in order:
                results[i] = None  # or a batch's activation outlives its use
                results[i] = passes[i].switch(given[i])
                if not passes[i].dead:
                    layer, x = results[i]
                    statistics = statistics or together(layer)
                    if layer is statistics.layer:
                        statistics.add(x)  # now, while the processor's cache has it
                        met += 1
                    del x
            if statistics is None:
                return results
            if met < len(passes):
                raise ValleysError("batches took different paths through the model: use streaming")
            given = [statistics.normalise()] * len(images)
            order.reverse()  # the last batch's activation is the one in the cache


def _alone(layer: _BatchNorm, x: Tensor) -> Tensor:
    """Keep the statistics of a batch that is the whole set, and normalise it."""
    statistics = _Moments(layer)
    statistics.add(x)
    return statistics.normalise()(x)


def _by_batch(layer: _BatchNorm, x: Tensor) -> Tensor:
    """Normalise one batch that is the whole set by its own statistics; store nothing."""
    return F.batch_norm(x, None, None, layer.weight, layer.bias, True, 0.0, layer.eps)
