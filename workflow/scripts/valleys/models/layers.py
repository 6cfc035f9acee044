"""Pieces that a network's options choose: activations, norms, convolutions; and which layers are which."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from valleys.errors import ValleysError, did_you_mean
from valleys.models.options import NORM_INITS

ACTIVATION_MODULES = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
}
BATCH_NORMS = nn.modules.batchnorm._BatchNorm  # the common base of 1d, 2d and 3d (and of SyncBatchNorm)
NORM_LAYERS = (BATCH_NORMS, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.modules.instancenorm._InstanceNorm)


# ---- pieces that depend on the options ---------------------------------------------------------------------


class Norm(NamedTuple):
    """One normalisation: how to make it for a feature map and for a vector, of so many channels or features.

    Both are called with that number and the option ``groups``.
    """

    of_map: Callable[[int, int], nn.Module]
    of_vector: Callable[[int, int], nn.Module]


#: The normalisations that the option ``norm`` names; `options.NORMS` has the same names, without torch.
NORM_MAKERS: dict[str, Norm] = {
    "batch": Norm(lambda n, groups: nn.BatchNorm2d(n), lambda n, groups: nn.BatchNorm1d(n)),
    "group": Norm(
        lambda n, groups: nn.GroupNorm(group_count(n, groups, least=2), n),
        lambda n, groups: nn.GroupNorm(group_count(n, groups, least=8), n),
    ),
    "layer": Norm(lambda n, groups: nn.GroupNorm(1, n), lambda n, groups: nn.LayerNorm(n)),
    "none": Norm(lambda n, groups: nn.Identity(), lambda n, groups: nn.Identity()),
}


def _check_name(where: str, name: str, known: Iterable[str]) -> None:
    """Raise unless a name is one of those that are known."""
    if name not in known:
        raise ValleysError(
            f"{where}: {name!r}{did_you_mean(name, known)}; it must be one of: {', '.join(known)}"
        )


@dataclass(frozen=True)
class LayerMaker:
    """Makes the layers that depend on the options ``norm``, ``groups`` and ``activation``.

    Raises
    ------
    ValleysError
        When `norm` or `activation` names none.
    """

    norm: str
    groups: int
    activation: str

    def __post_init__(self) -> None:
        """Check the names."""
        _check_name("model.norm", self.norm, NORM_MAKERS)
        _check_name("model.activation", self.activation, ACTIVATION_MODULES)

    @property
    def bias(self) -> bool:
        """Whether convolutions and hidden linear layers need a bias: normalisation brings its own."""
        return self.norm == "none"

    def act(self) -> nn.Module:
        """Return a fresh activation."""
        return ACTIVATION_MODULES[self.activation]()

    def norm2d(self, channels: int) -> nn.Module:
        """Return the normalisation of a feature map."""
        return NORM_MAKERS[self.norm].of_map(channels, self.groups)

    def norm1d(self, features: int) -> nn.Module:
        """Return the normalisation of a vector."""
        return NORM_MAKERS[self.norm].of_vector(features, self.groups)

    def conv(self, c_in: int, c_out: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
        """Return a convolution padded so that stride 1 keeps the image size."""
        return nn.Conv2d(c_in, c_out, size, stride, padding=size // 2, bias=self.bias)


def group_count(channels: int, groups: int, least: int) -> int:
    """Return the largest divisor of `channels` up to `groups` that leaves `least` channels in each group.

    A group of one value normalises to 0 and a group of two to +1 and -1, whatever went in. A feature map has
    pixels to average over, a vector does not, hence the floor on the channels per group.
    """
    return max((g for g in range(1, groups + 1) if channels % g == 0 and channels // g >= least), default=1)


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
    _check_name("model.norm_init", how, NORM_INITS)
    for name, kind in norm_parameters(model).items():
        if kind == "norm_weight":
            weight = model.get_parameter(name)
            draw = torch.ones(weight.shape)
            if how == "uniform":
                draw.uniform_(0.0, 1.0, generator=generator)
            elif how == "gaussian":
                draw.normal_(0.0, 0.1, generator=generator)
            weight.copy_(draw)
