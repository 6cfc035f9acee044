"""The architectures: a class and a builder each; what their options are stands in `options`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from valleys.models.layers import LayerMaker
from valleys.models.options import blocks_for_depth, preresnet_blocks
from valleys.torchvision_compat import import_torchvision

Spec = Mapping[str, Any]
Shape = tuple[int, int, int]
Builder = Callable[[Spec, LayerMaker, Shape, int], nn.Module]
#: What builds each architecture, by its name in `options.ARCHS`. Called with the checked spec, the layers
#: that its options choose, the shape (C, H, W) of an image and the number of classes; weights are drawn
#: afterwards.
BUILDERS: dict[str, Builder] = {}


def architecture(function: Builder) -> Builder:
    """Enter a function as the builder of the architecture of its name."""
    BUILDERS[function.__name__] = function
    return function


class MLP(nn.Module):
    """Fully connected network: (linear, norm, activation) for each hidden width, then a linear classifier."""

    def __init__(self, make: LayerMaker, n_in: int, hidden: list[int], classes: int):
        super().__init__()
        layers: list[nn.Module] = []
        for n_out in hidden:
            layers += [nn.Linear(n_in, n_out, bias=make.bias), make.norm1d(n_out), make.act()]
            n_in = n_out
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(n_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        return self.classifier(self.features(x.flatten(1)))


@architecture
def mlp(spec: Spec, make: LayerMaker, shape: Shape, classes: int) -> nn.Module:
    """Return a fully connected network on the flattened image."""
    return MLP(make, math.prod(shape), spec["hidden"], classes)


class PreActBlock(nn.Module):
    """Pre-activation residual block: norm and activation come before each convolution.

    ``c_mid == c_out`` gives the basic block (3x3, 3x3), otherwise the bottleneck (1x1, 3x3, 1x1).
    A 1x1 projection replaces the identity where the shape changes. Its input is the block's raw input, as in
    the SWA authors' PreResNet, or with ``preact_project`` the pre-activated one, as in the wide ResNet.
    Without ``skip`` there is neither identity nor projection.
    """

    def __init__(
        self,
        make: LayerMaker,
        c_in: int,
        c_mid: int,
        c_out: int,
        stride: int,
        *,
        skip: bool = True,
        dropout: float = 0.0,
        preact_project: bool = False,
    ):
        super().__init__()
        if c_mid == c_out:
            shapes = [(c_in, c_out, 3, stride), (c_out, c_out, 3, 1)]
        else:
            shapes = [(c_in, c_mid, 1, 1), (c_mid, c_mid, 3, stride), (c_mid, c_out, 1, 1)]
        self.preact = nn.Sequential(make.norm2d(c_in), make.act())
        branch: list[nn.Module] = [make.conv(*shapes[0])]
        for shape in shapes[1:]:
            branch += [make.norm2d(shape[0]), make.act()]
            branch += [nn.Dropout(dropout)] if dropout else []
            branch += [make.conv(*shape)]
        self.branch = nn.Sequential(*branch)
        self.skip = skip
        self.preact_project = preact_project
        self.project = None
        if skip and (stride != 1 or c_in != c_out):
            self.project = nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branch's output plus the shortcut."""
        h = self.preact(x)
        out = self.branch(h)
        if not self.skip:
            return out
        if self.project is None:
            return out + x
        return out + self.project(h if self.preact_project else x)


class PreResNet(nn.Module):
    """Pre-activation ResNet: stem, three stages (stride 2 into the second and third), pool, classifier.

    He et al. 2016, "Identity Mappings in Deep Residual Networks". The stem has `width` channels; each stage
    has `n` blocks, `widen` times 1, 2 and 4 times as wide, with `expansion` as many channels at their ends.
    """

    def __init__(
        self,
        make: LayerMaker,
        channels: int,
        classes: int,
        *,
        n: int,
        width: int,
        widen: int = 1,
        expansion: int = 1,
        **block_options: Any,
    ):
        super().__init__()
        self.stem = make.conv(channels, width)
        stages, c_in = [], width
        for stage in range(3):
            blocks, c_mid = [], width * widen * 2**stage
            for i in range(n):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(PreActBlock(make, c_in, c_mid, c_mid * expansion, stride, **block_options))
                c_in = c_mid * expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.final = nn.Sequential(make.norm2d(c_in), make.act())
        self.classifier = nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        x = self.final(self.stages(self.stem(x)))
        return self.classifier(x.mean((2, 3)))


@architecture
def resnet8(spec: Spec, make: LayerMaker, shape: Shape, classes: int) -> nn.Module:
    """Return a PreResNet of three basic blocks."""
    return PreResNet(make, shape[0], classes, n=1, width=spec["width"], skip=spec["skip"])


@architecture
def preresnet(spec: Spec, make: LayerMaker, shape: Shape, classes: int) -> nn.Module:
    """Return a PreResNet of the depth and block asked for."""
    block, n = preresnet_blocks(spec["depth"], spec["block"])
    options = {"width": spec["width"], "expansion": 4 if block == "bottleneck" else 1, "skip": spec["skip"]}
    return PreResNet(make, shape[0], classes, n=n, **options)


@architecture
def wrn(spec: Spec, make: LayerMaker, shape: Shape, classes: int) -> nn.Module:
    """Return a wide ResNet (Zagoruyko and Komodakis 2016, "Wide Residual Networks")."""
    _, n = blocks_for_depth(spec["depth"], "wrn")
    options = {"widen": spec["widen"], "dropout": spec["dropout"], "preact_project": True}
    return PreResNet(make, shape[0], classes, n=n, width=16, **options)


class VGG16(nn.Module):
    """VGG-16 of Simonyan and Zisserman 2015 with the small classifier of the SWA authors' CIFAR code.

    ``norm: batch`` is VGG-16-BN, ``norm: none`` the plain VGG-16. Unlike in that code and in torchvision, the
    convolutions before a normalisation have no bias (it would cancel): 4,224 parameters fewer in VGG-16-BN.
    """

    WIDTHS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool") + (512, 512, 512, "pool") * 2

    def __init__(self, make: LayerMaker, channels: int, classes: int, *, dropout: float):
        super().__init__()
        layers: list[nn.Module] = []
        for width in self.WIDTHS:
            if width == "pool":
                layers += [nn.MaxPool2d(2)]
            else:
                layers += [make.conv(channels, width), make.norm2d(width), make.act()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(512, 512),
            make.act(),
            nn.Dropout(dropout),
            nn.Linear(512, 512),
            make.act(),
            nn.Linear(512, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        return self.classifier(self.features(x).mean((2, 3)))


@architecture
def vgg16(spec: Spec, make: LayerMaker, shape: Shape, classes: int) -> nn.Module:
    """Return a VGG-16."""
    return VGG16(make, shape[0], classes, dropout=spec["dropout"])


class DenseLayer(nn.Module):
    """Bottleneck layer of DenseNet-B: appends `growth` channels to its input."""

    def __init__(self, make: LayerMaker, c_in: int, growth: int):
        super().__init__()
        c_mid = 4 * growth
        self.branch = nn.Sequential(
            *(make.norm2d(c_in), make.act(), make.conv(c_in, c_mid, size=1)),
            *(make.norm2d(c_mid), make.act(), make.conv(c_mid, growth)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the input with the new channels behind it."""
        return torch.cat([x, self.branch(x)], dim=1)


class DenseNetBC(nn.Module):
    """DenseNet-BC of Huang et al. 2017, "Densely Connected Convolutional Networks", for 32x32 images.

    Three dense blocks of `n` layers; between them a transition that compresses the channels and halves the
    image.
    """

    def __init__(
        self, make: LayerMaker, channels: int, classes: int, *, n: int, growth: int, compression: float
    ):
        super().__init__()
        c = 2 * growth
        self.stem = make.conv(channels, c)
        layers: list[nn.Module] = []
        for block in range(3):
            if block > 0:
                c_out = max(1, math.floor(c * compression))
                layers += [make.norm2d(c), make.act(), make.conv(c, c_out, size=1), nn.AvgPool2d(2)]
                c = c_out
            for _ in range(n):
                layers.append(DenseLayer(make, c, growth))
                c += growth
        self.features = nn.Sequential(*layers)
        self.final = nn.Sequential(make.norm2d(c), make.act())
        self.classifier = nn.Linear(c, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        x = self.final(self.features(self.stem(x)))
        return self.classifier(x.mean((2, 3)))


@architecture
def densenet_bc(spec: Spec, make: LayerMaker, shape: Shape, classes: int) -> nn.Module:
    """Return a DenseNet-BC of the depth asked for."""
    _, n = blocks_for_depth(spec["depth"], "densenet_bc")
    options = {"growth": spec["growth"], "compression": spec["compression"]}
    return DenseNetBC(make, shape[0], classes, n=n, **options)


@architecture
def resnet50(spec: Spec, make: LayerMaker, shape: Shape, classes: int) -> nn.Module:
    """Return torchvision's ResNet-50 (He et al. 2015, "Deep Residual Learning") with our options set into it.

    Its last layer is called ``fc``. Its in-place ReLU objects give way to ours; without normalisation the
    convolutions get the bias that they lack.
    """
    model = import_torchvision("models").resnet50(num_classes=classes, norm_layer=make.norm2d)
    if shape[0] != 3:
        model.conv1 = nn.Conv2d(shape[0], 64, 7, stride=2, padding=3, bias=False)
    for name, module in model.named_modules():
        if hasattr(module, "relu"):
            module.relu = make.act()
        if make.bias and isinstance(module, nn.Conv2d) and "downsample" not in name:
            module.bias = nn.Parameter(torch.zeros(module.out_channels))
    return model
