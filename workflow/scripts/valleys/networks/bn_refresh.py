"""BN refresh: batch-norm statistics recomputed by one more look at the training set.

An average of weights has the statistics of no network (Izmailov et al. 2018, section 3.2).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from valleys import factories
from valleys.data import loaders
from valleys.errors import ValleysError
from valleys.networks.batch_norm import check_bn
from valleys.networks.bn_moments import Moments, Pooled
from valleys.networks.bn_passes import (
    Followed,
    lockstep_pass,
    normalise_and_keep,
    normalise_batch,
    streaming_pass,
)
from valleys.networks.copies import evaluating
from valleys.networks.tensors import put_back

Method = Literal["exact", "streaming"]


class Refresher:
    """Refreshes the batch norm of one network again and again: its modules are looked at once.

    `refresh_bn` and `refreshed_logits` are one use of it each.

    Parameters
    ----------
    model
        Its modules are to stay the same ones; their weights, statistics and modes may change.

    Raises
    ------
    ValleysError
        As `batch_norm.check_bn`.
    """

    def __init__(self, model: nn.Module) -> None:
        check_bn(model)
        self.model, self.followed = model, Followed(model)
        self.device = next((p.device for p in model.parameters()), None)
        self.modules = list(self.followed.names)
        self.has_other_buffers = bool(self._others())

    @torch.no_grad()
    def refresh(self, batches: Iterable[Tensor], method: Method = "exact") -> list[Tensor] | None:
        """Do what `refresh_bn` does, which has the parameters and errors."""
        images = loaders.images_of(batches, self.device)
        # Dropout off: the statistics are those of the deterministic network.
        with factories.one_line("BN refresh: the network"), self._evaluating(), self._others_kept():
            if method == "streaming":
                streaming_pass(self.followed, images)
                return None
            return lockstep_pass(self.followed, list(images), normalise_and_keep, Moments)

    def logits(self, batches: Iterable[Tensor]) -> list[Tensor]:
        """Do what `refreshed_logits` does, which has the parameters and errors."""
        with self._evaluating():
            return lockstep_pass(self.followed, list(batches), normalise_batch, Pooled)

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """As `copies.evaluating`, which walks through a network that is in eval mode several times."""
        if any(module.training for module in self.modules):
            with evaluating(self.model):
                yield
            return
        try:
            yield
        finally:
            for module in self.modules:
                if module.training:
                    module.training = False

    def _others(self) -> dict[str, Tensor]:
        """Return the buffers that are no batch-norm statistics: a queue, observers."""
        layers = self.followed.layers
        ours = {id(t) for m in layers for t in (m.running_mean, m.running_var, m.num_batches_tracked)}
        return {name: buffer for name, buffer in self.model.named_buffers() if id(buffer) not in ours}

    @contextlib.contextmanager
    def _others_kept(self) -> Iterator[None]:
        """After the block, buffers that are no batch-norm statistics are as before it."""
        if not self.has_other_buffers:
            yield
            return
        before = {name: buffer.clone() for name, buffer in self._others().items()}
        try:
            yield
        finally:
            put_back(dict(self.model.named_buffers()), before)


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
        Changed in place: ``running_mean`` and ``running_var`` of batch norm only, of all such layers, also
        those that training kept in eval mode. Layers may do more than normalise, as one that activates, if
        they derive from torch's and call ``F.batch_norm``. Instance norm's running statistics stay. Every
        module is left in the mode that it was in.
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
        When there are no images, a batch is no tensor of them, one value a channel is all there is, or the
        network or the loader raises; where batch norm cannot be followed (`check_bn`), or a layer is used
        more than once in a pass; for ``exact``, when batches take different paths.
    """
    if method not in get_args(Method):
        raise ValleysError(f"BN refresh: method: {method!r} is none; choose {' or '.join(get_args(Method))}")
    if not isinstance(model, nn.Module):
        raise ValleysError(f"BN refresh: {type(model).__name__} is no network; give a torch.nn.Module")
    return Refresher(model).refresh(batches, method)


def refreshed_logits(model: nn.Module, batches: Iterable[Tensor]) -> list[Tensor]:
    """Return the logits under whole-set batch-norm statistics as a differentiable function of the weights.

    The numbers are those of `refresh_bn` with ``exact``, to rounding. But the statistics are part of the
    computation, not constants, so that a derivative (forward or reverse mode) counts their dependence on the
    weights, and the stored ones are left as they are. Memory as there, times what the mode of
    differentiation needs (forward: two).

    Parameters
    ----------
    model
        Not changed; every module is left in the mode that it was in.
    batches
        Tensors (n, C, H, W) on the model's device.

    Raises
    ------
    ValleysError
        As `refresh_bn`.
    """
    return Refresher(model).logits(batches)
