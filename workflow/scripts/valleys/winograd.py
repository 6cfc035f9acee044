"""Convolutions of 3x3 by minimal filtering F(4x4, 3x3), in torch's own matrix products.

Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks* (CVPR 2016), section 4.3: a tile of 4x4
outputs takes 36 products for each pair of channels where the convolution takes 144. On a CPU in float32 wide
convolutions run at the rate of a matrix product, and oneDNN has no such kernel for x86, so fewer products are
what is left to gain. Nothing here can be differentiated: it is for probes.
"""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

# Lavin and Gray's B^T, G and A^T: what input, kernel and products are multiplied with on either side.
_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))

# Where it pays, found with `benchmarks/winograd.py`: elsewhere the transforms cost what the products save.
_CHANNELS, _PAIRS = 128, 128 * 256  # at least: channels on either side, and pairs of them
_SIDES, _SPARE = (4, 16), 1.35  # least and longest; how many times the image its tiles may be
_TILES = 240  # at least, of all images together: the kernel is transformed once for all
#: Of the transformed input of the images that go through together: more would leave the cache.
_PIECE_BYTES = 20 << 20


def install(model: nn.Module) -> None:
    """Let the convolutions of `model` take this way where it pays and nothing is differentiated.

    That is with kernels of 3x3, stride 1 and a padding of 1 zero, one group, in float32 on a CPU; 128
    channels or more on either side, and as many pairs as 128 and 256 have; images of 4 to 16 pixels a side
    there; and images enough in a batch. Any other call is as before, and so are layers whose forward pass is
    not that of `torch.nn.Conv2d`.
    """
    for layer in model.modules():
        if type(layer) is nn.Conv2d and "forward" not in vars(layer) and _fits(layer):
            layer.forward = partial(_forward, layer)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the convolution with a 3x3 kernel, stride 1 and a padding of 1.

    As `torch.nn.functional.conv2d`, but for rounding: in float32 the error is 2e-6 to 3e-6 of the result's
    norm, 4e-7 to 8e-7 there.

    Parameters
    ----------
    x
        Images, (N, C, H, W), on a CPU; channels-last is fastest.
    weight
        (O, C, 3, 3).
    bias
        (O,), or none.

    Returns
    -------
    Tensor
        (N, O, H, W), channels-last.
    """
    (count, channels, height, width), outputs = x.shape, len(weight)
    (down, up), (right, left) = _transforms(height, x.dtype), _transforms(width, x.dtype)
    rows, columns = _tiles(height), _tiles(width)
    kernel = _transformed(weight)
    result = torch.empty((count, outputs, height, width), dtype=x.dtype, memory_format=torch.channels_last)
    at_once = max(1, _PIECE_BYTES // (36 * rows * columns * channels * x.element_size()))
    for images, into in zip(x.split(at_once), result.split(at_once), strict=True):
        n = len(images)
        # (H, W, n, C): so every step is a product of matrices that are in memory as they should be.
        u = images.permute(2, 3, 0, 1).reshape(height, width * n * channels)
        u = torch.matmul(right, (down @ u).view(6 * rows, width, n * channels))
        u = u.view(6, rows, 6, columns * n, channels)
        m = u.new_empty(6, rows, 6, columns * n, outputs)
        for i in range(6):
            for row in range(rows):
                torch.bmm(u[i, row], kernel[i], out=m[i, row])
        y = torch.matmul(left, m.view(6 * rows, 6 * columns, n * outputs))
        y = (up @ y.view(6 * rows, width * n * outputs)).view(height, width, n, outputs)
        into.copy_((y if bias is None else y.add_(bias)).permute(2, 3, 0, 1))
    return result


def _forward(layer: nn.Conv2d, x: Tensor) -> Tensor:
    if pays(layer, x):
        return conv2d(x, layer.weight, layer.bias)
    return nn.Conv2d.forward(layer, x)


def _fits(layer: nn.Conv2d) -> bool:
    return (
        layer.kernel_size == (3, 3)
        and layer.stride == layer.dilation == (1, 1)
        and layer.padding in ((1, 1), "same")
        and layer.padding_mode == "zeros"
        and layer.groups == 1
        and min(layer.in_channels, layer.out_channels) >= _CHANNELS
        and layer.in_channels * layer.out_channels >= _PAIRS
    )


def pays(layer: nn.Conv2d, x: Tensor) -> bool:
    """Whether a call of this layer with `x`, here and now, is one that `install` changes."""
    if not _fits(layer) or x.dim() != 4 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    if not x.dtype == layer.weight.dtype == torch.float32 or torch.is_grad_enabled():
        return False
    if any(forward_ad.unpack_dual(t).tangent is not None for t in (x, layer.weight)):
        return False
    count, _, *sides = x.shape
    tiles = _tiles(sides[0]) * _tiles(sides[1])
    return (
        all(_SIDES[0] <= side <= _SIDES[1] for side in sides)
        and 16 * tiles <= _SPARE * sides[0] * sides[1]
        and count * tiles >= _TILES
    )


def _tiles(side: int) -> int:
    return -(-side // 4)


@cache
def _transforms(side: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the matrices of a side of this length: to its tiles, (6 tiles, side), and back, (side, 6 tiles).

    Places in a tile come first, tiles second. The rows of zeros around the image and what the last tile has
    beyond it are left out.
    """
    tiles = _tiles(side)
    there = torch.zeros(6, tiles, 4 * tiles + 2, dtype=torch.float64)
    back = torch.zeros(tiles, 4, 6, tiles, dtype=torch.float64)
    for tile in range(tiles):
        there[:, tile, 4 * tile : 4 * tile + 6] = torch.tensor(_INPUT, dtype=torch.float64)
        back[tile, :, :, tile] = torch.tensor(_OUTPUT, dtype=torch.float64)
    there = there[:, :, 1 : side + 1].reshape(6 * tiles, side)
    return there.to(dtype).contiguous(), back.reshape(4 * tiles, 6 * tiles)[:side].to(dtype).contiguous()


def _transformed(weight: Tensor) -> Tensor:
    """Return G w G^T of each pair of channels, (6, 6, C, O)."""
    outputs, channels = weight.shape[:2]
    one = torch.tensor(_KERNEL, dtype=torch.float64)
    both = torch.kron(one, one).to(weight.dtype)
    return (both @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(6, 6, channels, outputs)
