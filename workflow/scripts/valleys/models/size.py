"""Sizes of the networks that ``valleys.models`` builds, worked out on paper, as the Snakefile has no torch.

`measure` walks the layers of an architecture as `build` lays them and adds up parameters, buffers, and
what one image costs on its way forward. A test compares the sums with networks that torch has built.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from valleys.models.options import blocks_for_depth, preresnet_blocks, validate_spec

VGG_WIDTHS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool") + (512, 512, 512, "pool") * 2


@dataclass(frozen=True)
class Size:
    """What a network is, and what it does to one image.

    Attributes
    ----------
    parameters
        Entries of all trained tensors.
    buffers
        Entries of running batch-norm statistics.
    flops
        Floating-point operations forward: twice the multiply-adds of convolutions and linear layers.
    elements
        Numbers that the layers of a forward pass write, all together: what a backward pass keeps.
    widest
        The most of them that one layer writes.
    layers
        Layers that run one after the other: operations to start, whatever their size.
    tensors
        Parameter tensors.
    """

    parameters: int
    buffers: int
    flops: int
    elements: int
    widest: int
    layers: int
    tensors: int

    @property
    def bytes(self) -> int:
        """Size of a weights file: parameters and statistics in float32."""
        return 4 * (self.parameters + self.buffers)


class _Tally:
    """Adds up layers; keeps the channels and the sides of the feature map that flows through them."""

    def __init__(self, norm: str, shape: tuple[int, int, int]) -> None:
        self.norm = norm
        self.channels, self.height, self.width = shape
        self.parameters = self.buffers = self.flops = self.elements = self.widest = 0
        self.layers = self.tensors = 0

    def _wrote(self, elements: int) -> None:
        self.elements += elements
        self.widest = max(self.widest, elements)
        self.layers += 1

    def pixelwise(self) -> None:
        """An activation, an addition, a concatenation: one number out for each of the map."""
        self._wrote(self.channels * self.height * self.width)

    def conv(self, c_out: int, size: int = 3, stride: int = 1, bias: bool | None = None) -> None:
        """A convolution padded by half its size; with a bias where there is no norm, unless told."""
        bias = self.norm == "none" if bias is None else bias
        weights = self.channels * c_out * size**2
        self.height, self.width = ((side - 1) // stride + 1 for side in (self.height, self.width))
        self.parameters += weights + c_out * bias
        self.tensors += 1 + bias
        self.flops += 2 * weights * self.height * self.width
        self.channels = c_out
        self.pixelwise()

    def linear(self, n_out: int, bias: bool = True) -> None:
        """A linear layer on the map as it is, flattened."""
        n_in = self.channels * self.height * self.width
        self.parameters += n_in * n_out + n_out * bias
        self.tensors += 1 + bias
        self.flops += 2 * n_in * n_out
        self.channels, self.height, self.width = n_out, 1, 1
        self.pixelwise()

    def norm_act(self, act: bool = True) -> None:
        """A normalisation, if there is one, and the activation after it."""
        if self.norm != "none":
            self.parameters += 2 * self.channels
            self.tensors += 2
            self.buffers += 2 * self.channels + 1 if self.norm == "batch" else 0
            self.pixelwise()
        if act:
            self.pixelwise()

    def pool(self, factor: int = 2) -> None:
        """Pooling without overlap."""
        self.height, self.width = self.height // factor, self.width // factor
        self.pixelwise()

    def mean(self) -> None:
        """The mean over all pixels."""
        self.height = self.width = 1
        self.pixelwise()

    def branch_off(self) -> tuple[int, int, int]:
        """Return the map as it is, for `shortcut`."""
        return self.channels, self.height, self.width

    def shortcut(self, start: tuple[int, int, int], stride: int, *, norm: bool = False) -> None:
        """Add the map `start`, projected by a 1x1 convolution without bias where its shape is another."""
        end = self.branch_off()
        if start[0] != end[0] or stride != 1:
            self.channels, self.height, self.width = start
            self.conv(end[0], 1, stride, bias=False)
            if norm:
                self.norm_act(act=False)
        self.pixelwise()

    def size(self) -> Size:
        """Return the sums."""
        return Size(
            self.parameters,
            self.buffers,
            self.flops,
            self.elements,
            self.widest,
            self.layers,
            self.tensors,
        )


def measure(spec: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Size:
    """Return the size of the network that a model's config block describes.

    Parameters
    ----------
    spec
        ``{"arch": name, option: value, ...}``; see `valleys.models.options`.
    shape
        Channels, height and width of one image.
    classes
        Number of logits.

    Raises
    ------
    ValleysError
        When the spec is wrong.
    """
    spec = validate_spec(spec)
    net = _Tally(spec["norm"], shape)
    match spec["arch"]:
        case "mlp":
            for width in spec["hidden"]:
                net.linear(width, bias=net.norm == "none")
                net.norm_act()
        case "resnet8":
            _preresnet(net, n=1, width=spec["width"], skip=spec["skip"])
        case "preresnet":
            block, n = preresnet_blocks(spec["depth"], spec["block"])
            expansion = 4 if block == "bottleneck" else 1
            _preresnet(net, n=n, width=spec["width"], expansion=expansion, skip=spec["skip"])
        case "wrn":
            _, n = blocks_for_depth(spec["depth"], "wrn")
            _preresnet(net, n=n, width=16, widen=spec["widen"])
        case "vgg16":
            for width in VGG_WIDTHS:
                if width == "pool":
                    net.pool()
                else:
                    net.conv(width)
                    net.norm_act()
            net.mean()
            for _ in range(2):
                net.linear(512)
                net.pixelwise()
        case "densenet_bc":
            _densenet(net, spec)
        case "resnet50":
            _resnet50(net)
    net.linear(classes)
    return net.size()


def _preresnet(
    net: _Tally, *, n: int, width: int, widen: int = 1, expansion: int = 1, skip: bool = True
) -> None:
    net.conv(width)
    for stage in range(3):
        c_mid = width * widen * 2**stage
        for i in range(n):
            stride = 2 if stage > 0 and i == 0 else 1
            start = net.branch_off()
            net.norm_act()
            if expansion == 1:
                net.conv(c_mid, stride=stride)
            else:
                net.conv(c_mid, 1)
                net.norm_act()
                net.conv(c_mid, stride=stride)
            net.norm_act()
            net.conv(c_mid * expansion, 3 if expansion == 1 else 1)
            if skip:
                net.shortcut(start, stride)
    net.norm_act()
    net.mean()


def _densenet(net: _Tally, spec: Mapping[str, Any]) -> None:
    _, n = blocks_for_depth(spec["depth"], "densenet_bc")
    growth = spec["growth"]
    net.conv(2 * growth)
    for block in range(3):
        if block > 0:
            net.norm_act()
            net.conv(max(1, math.floor(net.channels * spec["compression"])), 1)
            net.pool()
        for _ in range(n):
            kept = net.channels
            net.norm_act()
            net.conv(4 * growth, 1)
            net.norm_act()
            net.conv(growth)
            net.channels = kept + growth
            net.pixelwise()
    net.norm_act()
    net.mean()


def _resnet50(net: _Tally) -> None:
    net.conv(64, 7, 2)
    net.norm_act()
    net.height, net.width = ((side - 1) // 2 + 1 for side in (net.height, net.width))
    net.pixelwise()
    for stage, n in enumerate((3, 4, 6, 3)):
        for i in range(n):
            stride, width = 2 if stage > 0 and i == 0 else 1, 64 * 2**stage
            start = net.branch_off()
            net.conv(width, 1)
            net.norm_act()
            net.conv(width, 3, stride)
            net.norm_act()
            net.conv(4 * width, 1)
            net.norm_act(act=False)
            net.shortcut(start, stride, norm=True)
            net.pixelwise()
    net.mean()
