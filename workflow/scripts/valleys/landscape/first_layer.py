"""Passes at many points of a line or a plane that share the product of the images with the first layer.

A linear layer that gets the images themselves has the outputs ``a + x b + y c`` at ``start + x u + y v``: `a`
is those at the start, `b` and `c` are the images' products with the layer's part of u and v. These three are
computed once a batch. Each point then takes additions in place of a product, which in an MLP of
3072-512-512-10 is five sixths of a pass. Outputs are the layer's to rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Weights = Mapping[str, Tensor]
Place = Callable[..., None]
#: Bytes of outputs that are kept for all images; a layer that would take more computes as ever.
KEPT_BYTES = 2**30


def nowhere(*at: float) -> None:
    """Take the coordinates of weights where no product is shared."""


class Inputs:
    """The images of the pass at hand, by which a layer knows its input again."""

    def __init__(self) -> None:
        self.key: Hashable = None
        self.images: Tensor | None = None
        self.version = 0

    def begin(self, key: Hashable, images: Any) -> None:
        """Say which batch is next: `key` is the same at each pass over it."""
        known = isinstance(images, Tensor) and images.is_contiguous() and not images.is_inference()
        self.key, self.images = key, images if known else None  # inference tensors have no version
        self.version = images._version if known else 0

    def are(self, x: Tensor) -> bool:
        """Return whether a tensor is these images, flattened at most, and unchanged."""
        images = self.images
        return (
            images is not None
            and x.data_ptr() == images.data_ptr()
            and (x.dtype, x.numel(), x.device) == (images.dtype, images.numel(), images.device)
            and x.is_contiguous()
            and x._version == self.version
        )


class _Linear:
    """What a linear layer does in place of its ``forward``, at points that are sums of some parts."""

    def __init__(self, layer: nn.Linear, parts: Sequence[tuple[Tensor, ...]], inputs: Inputs) -> None:
        self.layer, self.parts, self.inputs = layer, parts, inputs
        self.at: tuple[float, ...] = ()
        self.kept: dict[Hashable, tuple[int, list[Tensor]]] = {}  # with the version of the images

    def __call__(self, x: Tensor) -> Tensor:
        """Return the layer's outputs: by its weights, unless these have coordinates and `x` is the images."""
        changed = torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type)
        if not self.at or changed or not self.inputs.are(x):
            return F.linear(x, self.layer.weight, self.layer.bias)
        key, version = self.inputs.key, self.inputs.version
        if key not in self.kept or self.kept[key][0] != version:
            self.kept[key] = version, [F.linear(x, *part) for part in self.parts]
        start, first, *others = self.kept[key][1]
        outputs = torch.add(start, first, alpha=self.at[0])
        for share, other in zip(self.at[1:], others, strict=True):
            outputs.add_(other, alpha=share)
        return outputs


@contextlib.contextmanager
def shared(model: nn.Module, inputs: Inputs, count: int, start: Weights, *axes: Weights) -> Iterator[Place]:
    """Have linear layers of the images themselves compute as the module says, within the block.

    Yields a function that is called with the coordinates of the weights whenever these are set: one an axis,
    or none for weights that are no such point. All else in the network computes with its weights.

    Parameters
    ----------
    model
        A network that nobody differentiates meanwhile.
    inputs
        Whoever passes a batch through the network tells it so first.
    count
        Number of images of all batches together.
    start, axes
        Weights by parameter name; what an axis does not have stays.
    """
    layers = []
    for name, layer in model.named_modules():
        if type(layer) is not nn.Linear or not _is_plain(layer):
            continue
        own = [f"{name}.{key}".lstrip(".") for key, _ in layer.named_parameters(recurse=False)]
        size = layer.out_features * (1 + len(axes))
        fits = size <= layer.in_features and size * count * layer.weight.element_size() <= KEPT_BYTES
        if fits and set(own) <= start.keys():  # else they are another layer's too, under its name
            pairs = list(zip(own, layer.parameters(recurse=False), strict=True))
            parts = [
                tuple(weights[n].to(p) if n in weights else torch.zeros_like(p) for n, p in pairs)
                for weights in (start, *axes)
            ]
            layers.append(_Linear(layer, parts, inputs))
    before = [vars(linear.layer).get("forward") for linear in layers]  # of a block around this one

    def place(*at: float) -> None:
        for linear in layers:
            linear.at = at

    try:
        for linear in layers:
            linear.layer.forward = linear
        yield place
    finally:
        for linear, other in zip(layers, before, strict=True):
            if other is None:
                del linear.layer.forward
            else:
                linear.layer.forward = other
        inputs.begin(None, None)


def _is_plain(layer: nn.Linear) -> bool:
    """Return whether a layer computes with its weight and bias alone, not with what hooks make of others."""
    own = [name for name, _ in layer.named_parameters(recurse=False)]
    replaced = vars(layer).get("forward")
    hooked = layer._forward_pre_hooks or not (replaced is None or isinstance(replaced, _Linear))
    return own in (["weight"], ["weight", "bias"]) and not hooked
