"""The networks: :func:`build` turns the config block of a model into an ``nn.Module``.

Every forward pass is plain (nothing is written to parameters or activations in place), so
``torch.func.functional_call``, ``torch.func.vmap`` and ``copy.deepcopy`` work. The last linear layer is
called ``classifier`` or lies in it, except torchvision's ``fc``; :func:`classifier_name` finds it in any
model.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from valleys import factories
from valleys.arch_options import (
    ACTIVATIONS,
    ARCHS,
    NORM_INITS,
    NORMS,
    Arch,
    blocks_for_depth,
    pick,
    preresnet_blocks,
    validate_spec,
)
from valleys.errors import ValleysError
from valleys.networks import bn_refresh, checks, copies
from valleys.networks.batch_norm import bn_policy, has_unseen_bn
from valleys.networks.tensors import random_numbers_kept
from valleys.torchvision_compat import import_torchvision

__all__ = [
    "ACTIVATIONS",
    "ARCHS",
    "NORMS",
    "NORM_INITS",
    "Arch",
    "build",
    "classifier_name",
    "has_batch_norm",
    "init_norm_weights",
    "norm_parameters",
    "validate_spec",
]

ACTIVATION_MODULES = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
}

# The argument of He et al. 2015 ("Delving Deep into Rectifiers") for any activation f: weights of variance
# gain^2 / fan_in keep the second moment of the pre-activations when gain^2 E[f(z)^2] = 1 for z ~ N(0, 1).
GAINS = {
    "relu": math.sqrt(2.0),
    "gelu": 1.53353,
    "tanh": 1.59254,
    "sigmoid": 1.84623,
    "softplus": 1.04187,
    "silu": 1.67653,
}

BATCH_NORMS = nn.modules.batchnorm._BatchNorm  # the common base of 1d, 2d and 3d (and of SyncBatchNorm)
NORM_LAYERS = (BATCH_NORMS, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.modules.instancenorm._InstanceNorm)


# ---- pieces that depend on the options ---------------------------------------------------------------------


@dataclass(frozen=True)
class Kit:
    """Makes the layers that depend on the options ``norm``, ``groups`` and ``activation``."""

    norm: str
    groups: int
    activation: str

    @property
    def bias(self) -> bool:
        """Whether convolutions and hidden linear layers need a bias: normalisation brings its own."""
        return self.norm == "none"

    def act(self) -> nn.Module:
        """Return a fresh activation."""
        return ACTIVATION_MODULES[self.activation]()

    def norm2d(self, channels: int) -> nn.Module:
        """Return the normalisation of a feature map."""
        if self.norm == "batch":
            return nn.BatchNorm2d(channels)
        if self.norm == "group":
            return nn.GroupNorm(group_count(channels, self.groups, least=2), channels)
        return nn.GroupNorm(1, channels) if self.norm == "layer" else nn.Identity()

    def norm1d(self, features: int) -> nn.Module:
        """Return the normalisation of a vector."""
        if self.norm == "batch":
            return nn.BatchNorm1d(features)
        if self.norm == "group":
            return nn.GroupNorm(group_count(features, self.groups, least=8), features)
        return nn.LayerNorm(features) if self.norm == "layer" else nn.Identity()

    def conv(self, c_in: int, c_out: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
        """Return a convolution padded so that stride 1 keeps the image size."""
        return nn.Conv2d(c_in, c_out, size, stride, padding=size // 2, bias=self.bias)


def group_count(channels: int, groups: int, least: int) -> int:
    """Return the largest divisor of `channels` up to `groups` that leaves `least` channels in each group.

    A group of one value normalises to 0 and a group of two to +1 and -1, whatever went in. A feature map has
    pixels to average over, a vector does not, hence the floor on the channels per group.
    """
    return max((g for g in range(1, groups + 1) if channels % g == 0 and channels // g >= least), default=1)


# ---- the architectures -------------------------------------------------------------------------------------


class MLP(nn.Module):
    """Fully connected network: (linear, norm, activation) for each hidden width, then a linear classifier."""

    def __init__(self, kit: Kit, n_in: int, hidden: list[int], classes: int):
        super().__init__()
        layers: list[nn.Module] = []
        for n_out in hidden:
            layers += [nn.Linear(n_in, n_out, bias=kit.bias), kit.norm1d(n_out), kit.act()]
            n_in = n_out
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(n_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        return self.classifier(self.features(x.flatten(1)))


class PreActBlock(nn.Module):
    """Pre-activation residual block: norm and activation come before each convolution.

    ``c_mid == c_out`` gives the basic block (3x3, 3x3), otherwise the bottleneck (1x1, 3x3, 1x1).
    A 1x1 projection replaces the identity where the shape changes. Its input is the block's raw input, as in
    the SWA authors' PreResNet, or with ``preact_project`` the pre-activated one, as in the wide ResNet.
    Without ``skip`` there is neither identity nor projection.
    """

    def __init__(
        self,
        kit: Kit,
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
        self.preact = nn.Sequential(kit.norm2d(c_in), kit.act())
        branch: list[nn.Module] = [kit.conv(*shapes[0])]
        for shape in shapes[1:]:
            branch += [kit.norm2d(shape[0]), kit.act()]
            branch += [nn.Dropout(dropout)] if dropout else []
            branch += [kit.conv(*shape)]
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
        kit: Kit,
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
        self.stem = kit.conv(channels, width)
        stages, c_in = [], width
        for stage in range(3):
            blocks, c_mid = [], width * widen * 2**stage
            for i in range(n):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(PreActBlock(kit, c_in, c_mid, c_mid * expansion, stride, **block_options))
                c_in = c_mid * expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.final = nn.Sequential(kit.norm2d(c_in), kit.act())
        self.classifier = nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        x = self.final(self.stages(self.stem(x)))
        return self.classifier(x.mean((2, 3)))


class VGG16(nn.Module):
    """VGG-16 of Simonyan and Zisserman 2015 with the small classifier of the SWA authors' CIFAR code.

    ``norm: batch`` is VGG-16-BN, ``norm: none`` the plain VGG-16. Unlike in that code and in torchvision, the
    convolutions before a normalisation have no bias (it would cancel): 4,224 parameters fewer in VGG-16-BN.
    """

    WIDTHS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool") + (512, 512, 512, "pool") * 2

    def __init__(self, kit: Kit, channels: int, classes: int, *, dropout: float):
        super().__init__()
        layers: list[nn.Module] = []
        for width in self.WIDTHS:
            if width == "pool":
                layers += [nn.MaxPool2d(2)]
            else:
                layers += [kit.conv(channels, width), kit.norm2d(width), kit.act()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(512, 512),
            kit.act(),
            nn.Dropout(dropout),
            nn.Linear(512, 512),
            kit.act(),
            nn.Linear(512, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        return self.classifier(self.features(x).mean((2, 3)))


class DenseLayer(nn.Module):
    """Bottleneck layer of DenseNet-B: appends `growth` channels to its input."""

    def __init__(self, kit: Kit, c_in: int, growth: int):
        super().__init__()
        c_mid = 4 * growth
        self.branch = nn.Sequential(
            *(kit.norm2d(c_in), kit.act(), kit.conv(c_in, c_mid, size=1)),
            *(kit.norm2d(c_mid), kit.act(), kit.conv(c_mid, growth)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the input with the new channels behind it."""
        return torch.cat([x, self.branch(x)], dim=1)


class DenseNetBC(nn.Module):
    """DenseNet-BC of Huang et al. 2017, "Densely Connected Convolutional Networks", for 32x32 images.

    Three dense blocks of `n` layers; between them a transition that compresses the channels and halves the
    image.
    """

    def __init__(self, kit: Kit, channels: int, classes: int, *, n: int, growth: int, compression: float):
        super().__init__()
        c = 2 * growth
        self.stem = kit.conv(channels, c)
        layers: list[nn.Module] = []
        for block in range(3):
            if block > 0:
                c_out = max(1, math.floor(c * compression))
                layers += [kit.norm2d(c), kit.act(), kit.conv(c, c_out, size=1), nn.AvgPool2d(2)]
                c = c_out
            for _ in range(n):
                layers.append(DenseLayer(kit, c, growth))
                c += growth
        self.features = nn.Sequential(*layers)
        self.final = nn.Sequential(kit.norm2d(c), kit.act())
        self.classifier = nn.Linear(c, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        x = self.final(self.features(self.stem(x)))
        return self.classifier(x.mean((2, 3)))


def resnet50(kit: Kit, channels: int, classes: int) -> nn.Module:
    """Return torchvision's ResNet-50 (He et al. 2015, "Deep Residual Learning") with our options set into it.

    Its last layer is called ``fc``. Its in-place ReLU objects give way to ours; without normalisation the
    convolutions get the bias that they lack.
    """
    model = import_torchvision("models").resnet50(num_classes=classes, norm_layer=kit.norm2d)
    if channels != 3:
        model.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    for name, module in model.named_modules():
        if hasattr(module, "relu"):
            module.relu = kit.act()
        if kit.bias and isinstance(module, nn.Conv2d) and "downsample" not in name:
            module.bias = nn.Parameter(torch.zeros(module.out_channels))
    return model


# ---- build -------------------------------------------------------------------------------------------------


def build(spec: Mapping[str, Any], *, in_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Build the network that `spec` describes, with initial weights from the global random generator.

    Parameters
    ----------
    spec
        Config block of a model, ``{"arch": name, option: value, ...}``; see :data:`ARCHS`. Or
        ``{"factory": "module:attribute", "kwargs": {...}}``: see :func:`from_factory`.
    in_shape
        Channels, height and width of one image; images come as floats (N, C, H, W), already normalised.
    classes
        Number of logits.

    Raises
    ------
    ValleysError
        When the spec is wrong or the architecture cannot take images of that size.
    """
    spec = validate_spec(spec)
    if "factory" in spec:
        return from_factory(spec, in_shape, classes)
    arch = spec["arch"]
    _, height, width = in_shape
    least = ARCHS[arch].min_size
    if min(height, width) < least:
        fits = ", ".join(name for name, other in ARCHS.items() if other.min_size <= min(height, width))
        raise ValleysError(
            f"model.arch: {arch!r} needs images of at least {least}x{least}, got {height}x{width} "
            f"(these take them: {fits})"
        )
    kit = Kit(spec["norm"], spec["groups"], spec["activation"])
    model = _make(spec, kit, in_shape, classes)
    _initialise(model, kit)
    if spec["norm_init"] != "ones":
        seed = int(torch.randint(2**63 - 1, ()))  # drawn from the global generator: the caller's seed rules
        init_norm_weights(model, spec["norm_init"], torch.Generator().manual_seed(seed))
    return model


def from_factory(spec: Mapping[str, Any], in_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Build a user's own network and check that it maps images to logits.

    The factory is called with its ``kwargs`` and, as far as its signature names them and ``kwargs`` does not
    set them, ``num_classes`` and ``classes`` (the number of classes), ``in_chans`` and ``in_channels`` (those
    of an image) and ``in_shape`` (channels, height, width). One that takes ``**kwargs`` is called again with
    ``num_classes``, and then ``in_chans``, if its network does not fit the images without. What it draws from
    torch's global generator follows the caller's seed.

    Raises
    ------
    ValleysError
        When the factory cannot be found or raises; when what it returns is no module of float32 parameters
        that maps two images, in eval mode, to logits of shape (2, classes); when it cannot be copied or is no
        function of its weights and of each image (`valleys.networks`); or when a batch-norm layer is not
        one whose statistics can be recomputed (`valleys.networks.bn_refresh.refresh_bn`).
    """
    factory = spec["factory"]
    values = {"num_classes": classes, "classes": classes, "in_shape": tuple(in_shape)}
    values |= {"in_chans": in_shape[0], "in_channels": in_shape[0]}
    make = factories.resolve(factory)
    given = factories.offered(make, values, spec["kwargs"])
    guesses = factories.guesses(make, given, {key: values[key] for key in ("num_classes", "in_chans")})
    model = _first_that_fits(factory, [(make, arguments) for arguments in guesses], in_shape, classes)
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32 or not parameter.requires_grad:
            what = f"is {parameter.dtype}" if parameter.dtype != torch.float32 else "requires no gradient"
            raise ValleysError(
                f"factory {factory!r}: parameter {name} {what}; all must be float32 and trained (what is "
                "fixed can be a buffer)"
            )
    places: dict[tuple[int, int], str] = {}
    for name, tensor in model.state_dict().items():
        first = places.setdefault((tensor.data_ptr(), tensor.numel()), name) if tensor.numel() else name
        if first != name:
            raise ValleysError(
                f"factory {factory!r}: {first} and {name} are one tensor; weights files keep no tied weights"
            )
    if not any(True for _ in model.parameters()):
        raise ValleysError(
            f"factory {factory!r} returns a module without parameters; there is nothing to train"
        )
    try:
        _can_be_probed(model, in_shape)
    except ValleysError as error:
        raise ValleysError(f"factory {factory!r}: {error}") from error
    return model


def _can_be_probed(model: nn.Module, in_shape: tuple[int, int, int]) -> None:
    """Raise unless a network can be copied after a step of training and is a function of its weights.

    Both are needed when it has been trained, and are known before.
    """
    images = torch.rand(4, *in_shape, generator=torch.Generator().manual_seed(0)) - 0.5
    trained = copies.twin(model).train()
    with random_numbers_kept(torch.device("cpu")):
        with contextlib.suppress(Exception):  # what is wrong with it, training will say
            trained(images.clone()).sum().backward()
        checks.check(copies.standing(trained), images, model)


def _first_that_fits(
    factory: str, calls: Iterable[tuple[Any, Mapping[str, Any]]], in_shape: tuple[int, int, int], classes: int
) -> nn.Module:
    """Make one call (callable, arguments) after the other until its network maps images to logits.

    Each call finds the random state of the first. When none fits, the first one's error is raised.
    """
    state, errors = torch.get_rng_state(), []
    for make, arguments in calls:
        torch.set_rng_state(state)
        try:
            model = factories.call(factory, make, arguments)
            if not isinstance(model, nn.Module):
                raise ValleysError(
                    f"factory {factory!r} returns {type(model).__name__}; it must be a torch.nn.Module"
                )
            _dry_run(factory, model, in_shape, classes)
            return model
        except ValleysError as error:
            errors.append(error)
    raise errors[0]


@torch.no_grad()
def _dry_run(factory: str, model: nn.Module, in_shape: tuple[int, int, int], classes: int) -> None:
    """Raise unless a module maps two images to logits; its mode and the random state stay as they are."""
    images = torch.zeros(2, *in_shape)
    with torch.random.fork_rng(devices=[]), copies.evaluating(model):
        try:
            logits = factories.call(factory, model, {}, images)
        except ValleysError as error:
            channels, height, width = in_shape
            raise ValleysError(
                f"{error}; images here have {channels} channel{'s' * (channels > 1)} of {height} x {width} "
                "pixels: set the network for them in kwargs, or name a function of your own that does"
            ) from error
    wanted = f"it must map images {tuple(images.shape)} to logits (2, {classes})"
    if not isinstance(logits, Tensor):
        raise ValleysError(f"factory {factory!r}: the network returns {type(logits).__name__}; {wanted}")
    if tuple(logits.shape) != (2, classes) or not logits.is_floating_point():
        kind = "" if logits.is_floating_point() else f" of {logits.dtype}"
        raise ValleysError(
            f"factory {factory!r}: the network returns the shape {tuple(logits.shape)}{kind}; {wanted}, one "
            "for each class (kwargs can set the number)"
        )
    with torch.random.fork_rng(devices=[]):
        try:
            bn_policy(model, "frozen")
            if not has_unseen_bn(model):  # else it may be that statistics stay as they are
                bn_refresh.refreshed_logits(model, [images])
        except ValleysError as error:
            raise ValleysError(f"factory {factory!r}: {error}") from error


def _make(spec: dict[str, Any], kit: Kit, in_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return the network of a checked spec; its weights are not ours yet."""
    channels = in_shape[0]
    match spec["arch"]:
        case "mlp":
            return MLP(kit, math.prod(in_shape), spec["hidden"], classes)
        case "resnet8":
            return PreResNet(kit, channels, classes, n=1, width=spec["width"], skip=spec["skip"])
        case "preresnet":
            block, n = preresnet_blocks(spec["depth"], spec["block"])
            expansion = 4 if block == "bottleneck" else 1
            options = {"width": spec["width"], "expansion": expansion, "skip": spec["skip"]}
            return PreResNet(kit, channels, classes, n=n, **options)
        case "wrn":  # Zagoruyko and Komodakis 2016, "Wide Residual Networks"
            _, n = blocks_for_depth(spec["depth"], "wrn")
            options = {"widen": spec["widen"], "dropout": spec["dropout"], "preact_project": True}
            return PreResNet(kit, channels, classes, n=n, width=16, **options)
        case "vgg16":
            return VGG16(kit, channels, classes, dropout=spec["dropout"])
        case "densenet_bc":
            _, n = blocks_for_depth(spec["depth"], "densenet_bc")
            options = {"growth": spec["growth"], "compression": spec["compression"]}
            return DenseNetBC(kit, channels, classes, n=n, **options)
        case "resnet50":
            return resnet50(kit, channels, classes)
    raise AssertionError(f"{spec['arch']} is in ARCHS but not here")


@torch.no_grad()
def _initialise(model: nn.Module, kit: Kit) -> None:
    """Draw He-normal weights with the activation's gain and zero the biases.

    The classifier keeps torch's own draw, so that first logits are small.

    With normalisation the fan is that of the outputs, as in the published code of these networks. Without it
    nothing downstream mends the scale of the signal, so the fan of the inputs keeps it.
    """
    last = model.get_submodule(classifier_name(model))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if module is not last:
                by_outputs = isinstance(module, nn.Conv2d) and kit.norm != "none"
                fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
                std = GAINS[kit.activation] / math.sqrt(fan_out if by_outputs else fan_in)
                module.weight.normal_(0.0, std)
            if module.bias is not None:
                module.bias.zero_()
    if kit.norm == "none":
        # Each residual branch would add a variance as large as its input's, doubling it block by block.
        # Dividing the branches' last weights by sqrt(blocks) keeps the growth over all blocks below e.
        # Zeroing them (Fixup) would too, but then the branches' other weights start without a gradient, and
        # the start is a point that may be probed.
        ends = _branch_ends(model)
        for conv in ends:
            conv.weight.mul_(len(ends) ** -0.5)


def _branch_ends(model: nn.Module) -> list[nn.Conv2d]:
    """Return the last convolution of every residual branch that has a shortcut around it."""
    ours = [m.branch[-1] for m in model.modules() if isinstance(m, PreActBlock) and m.skip]
    torchvisions = [m.conv3 for m in model.modules() if hasattr(m, "conv3")]
    return ours + torchvisions


# ---- looking into a model ----------------------------------------------------------------------------------


def classifier_name(model: nn.Module) -> str:
    """Return the dotted name of the last ``nn.Linear`` in module order."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise ValleysError(f"model: {type(model).__name__} has no linear layer, so no classifier")
    return names[-1]


def norm_parameters(model: nn.Module) -> dict[str, str]:
    """Map the name of each parameter of a normalisation layer to ``norm_weight`` or ``norm_bias``."""
    return {
        f"{name}.{kind}" if name else kind: f"norm_{kind}"
        for name, module in model.named_modules()
        if isinstance(module, NORM_LAYERS)
        for kind, _ in module.named_parameters(recurse=False)
    }


def has_batch_norm(model: nn.Module) -> bool:
    """Whether any layer is a batch normalisation, so that running statistics must be kept right."""
    return any(isinstance(module, BATCH_NORMS) for module in model.modules())


@torch.no_grad()
def init_norm_weights(model: nn.Module, how: str, generator: torch.Generator | None = None) -> None:
    """Set the scales of all normalisation layers; their shifts stay.

    Parameters
    ----------
    model
        Changed where it is.
    how
        ``ones``, ``uniform`` (U(0, 1)) or ``gaussian`` (mean 0, standard deviation 0.1).
    generator
        Source of the draws, on the CPU: draws are made there, so that they are the same on every device.
    """
    pick("model.norm_init", how, NORM_INITS)
    for name, kind in norm_parameters(model).items():
        if kind == "norm_weight":
            weight = model.get_parameter(name)
            draw = torch.ones(weight.shape)
            if how == "uniform":
                draw.uniform_(0.0, 1.0, generator=generator)
            elif how == "gaussian":
                draw.normal_(0.0, 0.1, generator=generator)
            weight.copy_(draw)
