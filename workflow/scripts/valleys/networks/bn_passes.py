"""Passes through a network that stop at each batch-norm layer, so that its statistics can be set first."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from greenlet import GreenletExit, getcurrent, greenlet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from valleys.errors import ValleysError
from valleys.networks import switches
from valleys.networks.batch_norm import batch_norms, memory_key
from valleys.networks.bn_moments import Affine, Moments, batch_normalised, normalised

Forward = Callable[["_BatchNorm", Tensor, "Affine"], Tensor]
#: Classes whose layers normalise and do nothing else, in eval mode.
_PLAIN = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


class Followed:
    """A network, and what passes that stop at its batch norm need to know of its modules.

    Found once: its modules are to stay the same ones.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.names = {module: name or type(module).__name__ for name, module in model.named_modules()}
        self.layers = batch_norms(model)
        self.is_compiled = any(
            hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) is not None for m in self.names
        )


@contextlib.contextmanager
def _passes(network: Followed, forward: Forward) -> Iterator[Callable[[Tensor], Any]]:
    """Yield what runs a batch through the model, with ``forward(layer, x, affine)`` where it normalises.

    torch's own layers have their forward pass replaced. Others, which may do more, run theirs, and the call
    of ``F.batch_norm`` in it is the place. Within one pass a layer may be used once.

    Raises
    ------
    ValleysError
        From a pass: for a layer that is used twice or never comes to ``F.batch_norm``, and for a call of
        ``F.batch_norm`` that takes the batch's own statistics.
    """
    names, layers = network.names, network.layers
    by_statistics = {memory_key(layer.running_mean): layer for layer in layers}
    used: dict[object, set[nn.Module]] = defaultdict(set)  # by pass: each has a greenlet of its own

    def meet(layer: _BatchNorm, x: Tensor, affine: Affine) -> Tensor:
        here = used[getcurrent()]
        if layer in here:
            raise ValleysError(
                f"batch-norm layer {names[layer]} is used 2 times or more in one pass, with statistics of "
                "each; give every use a layer of its own"
            )
        here.add(layer)
        return forward(layer, x, affine)

    def plain(x: Tensor, *, layer: _BatchNorm) -> Tensor:
        return meet(layer, x, Affine(layer.weight, layer.bias, layer.eps))

    def watched(*inputs: Any, layer: _BatchNorm, own: Callable[..., Any], **more: Any) -> Any:
        found = own(*inputs, **more)
        if layer not in used[getcurrent()]:
            raise ValleysError(
                f"batch-norm layer {names[layer]} is a {type(layer).__name__}, which normalises in a way of "
                "its own; call F.batch_norm in it, or use torch's BatchNorm1d to 3d"
            )
        return found

    def batch_norm(
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if training:
            raise ValleysError(
                "batch norm: F.batch_norm is called with training=True in eval mode, so that every batch is "
                "normalised by its own statistics; use torch's BatchNorm1d to 3d"
            )
        layer = None if running_mean is None else by_statistics.get(memory_key(running_mean))
        affine = Affine(weight, bias, eps)
        if layer is None:  # constants
            return normalised(running_mean, running_var, input, affine)
        return meet(layer, input, affine)

    def run(x: Tensor) -> Any:
        used.pop(getcurrent(), None)
        return network.model(x)

    own = {layer: vars(layer).get("forward") for layer in layers}
    for layer in layers:
        if own[layer] is None and type(layer).forward in _PLAIN:
            layer.forward = partial(plain, layer=layer)
        else:
            layer.forward = partial(watched, layer=layer, own=layer.forward)
    try:
        with _eagerly(network), _batch_norm_is(batch_norm):
            yield run
    finally:
        for layer, forward_of_its_own in own.items():
            if forward_of_its_own is None:
                del layer.forward  # uncovers the class's method again
            else:
                layer.forward = forward_of_its_own
        used.clear()


_torchs: list[Callable[..., Tensor]] = []  # F.batch_norm as it was found, while another stands in for it
_of_threads: dict[int, Callable[..., Tensor]] = {}  # the others, by thread
_changing = threading.Lock()


def _of_this_thread(*inputs: Any, **more: Any) -> Tensor:
    return _of_threads.get(threading.get_ident(), _torchs[0])(*inputs, **more)


@contextlib.contextmanager
def _batch_norm_is(function: Callable[..., Tensor]) -> Iterator[None]:
    """Within the block, ``F.batch_norm`` is `function` in this thread; others may train meanwhile."""
    thread = threading.get_ident()
    with _changing:
        if not _of_threads:
            _torchs[:], F.batch_norm = [F.batch_norm], _of_this_thread
        _of_threads[thread] = function
    try:
        yield
    finally:
        with _changing:
            del _of_threads[thread]
            if not _of_threads:
                F.batch_norm = _torchs[0]


def _eagerly(network: Followed) -> contextlib.AbstractContextManager[object]:
    """Return a context in which what `torch.compile` made of the network's parts runs as it was written."""
    eager = network.is_compiled
    return torch.compiler.set_stance("force_eager") if eager else contextlib.nullcontext()


def streaming_pass(network: Followed, images: Iterable[Tensor]) -> None:
    """Set running statistics in one pass: each layer normalises by what it has seen so far."""
    moments = {layer: Moments(layer) for layer in network.layers}

    def forward(layer: _BatchNorm, x: Tensor, affine: Affine) -> Tensor:
        here = Moments(layer)
        with torch.no_grad():
            here.add(x)
        moments[layer].extend(here)
        return normalised(*(value.to(here.means[0].dtype) for value in here.merged()), x, affine)

    empty = True
    with _passes(network, forward) as run:
        for x in images:
            run(x)
            empty = False
    if empty:
        raise ValleysError("BN refresh got no images")
    for of_layer in moments.values():
        if of_layer.counts:  # else no image came by
            of_layer.store()


def lockstep_pass(
    network: Followed,
    images: list[Tensor],
    alone: Forward,
    together: type[Moments],
) -> list[Tensor]:
    """Run all batches through the model together, pausing each at every batch-norm layer.

    Each batch's forward pass is a coroutine (greenlet) on this one thread: at a batch-norm layer it hands
    its input over and sleeps until the layer's statistics over all batches are known. While it sleeps,
    torch's switches (`switches`) are those of the caller, and when it goes on, its own again.

    Parameters
    ----------
    alone
        What a batch-norm layer does to a batch that is the whole set.
    together
        Takes the statistics of a layer's inputs in all batches.
    """
    if not images:
        raise ValleysError("BN refresh got no images")
    if len(images) == 1 or not network.layers:
        with _passes(network, alone) as run:
            return [run(x) for x in images]
    hub, outside = getcurrent(), switches.Switches()

    def forward(layer: _BatchNorm, x: Tensor, affine: Affine) -> Tensor:
        if outside.hold():
            return hub.switch((layer, x))(x, affine)
        with switches.Switches().instead(outside):
            normalise = hub.switch((layer, x))
        return normalise(x, affine)

    given: list[Any] = images
    results: list[Any] = [None] * len(images)
    order = list(range(len(images)))
    with _passes(network, forward) as run:
        passes = [greenlet(run, parent=hub) for _ in images]
        for a_pass in passes:
            a_pass.gr_context = contextvars.copy_context()
        try:
            while True:
                statistics, met = None, 0
                for i in order:
                    results[i] = None  # or a batch's activation outlives its use
                    results[i] = passes[i].switch(given[i])
                    if passes[i].dead:
                        outside.set()
                    else:
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
        finally:
            for a_pass in passes:
                if not a_pass.dead:  # its `with` blocks end here, under its own switches
                    with contextlib.suppress(Exception):
                        a_pass.throw(GreenletExit)
            outside.set()


def normalise_and_keep(layer: _BatchNorm, x: Tensor, affine: Affine) -> Tensor:
    """Keep the statistics of a batch that is the whole set, and normalise it."""
    statistics = Moments(layer)
    with torch.no_grad():  # the network may have gradients on where the caller has not
        statistics.add(x)
    return statistics.normalise()(x, affine)


def normalise_batch(layer: _BatchNorm, x: Tensor, affine: Affine) -> Tensor:
    """Normalise one batch that is the whole set by its own statistics; store nothing."""
    if x.numel() == x.shape[1]:
        raise ValleysError(f"BN refresh: {layer} gets one value a channel; give more images")
    return batch_normalised(x, None, None, affine, training=True)
