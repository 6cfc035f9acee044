"""Which architectures there are and what options each takes: tables and checks without torch.

The Snakefile calls :func:`validate_spec` before any job starts, so nothing here may import torch.
:mod:`valleys.models` builds what these tables describe.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from valleys import factories
from valleys.errors import ValleysError
from valleys.options import Option, block_schema, check_name, check_options

NORMS = ("batch", "group", "layer", "none")
ACTIVATIONS = ("relu", "gelu", "tanh", "sigmoid", "softplus", "silu")
NORM_INITS = ("ones", "uniform", "gaussian")
BLOCKS = ("auto", "basic", "bottleneck")

_MOST = 100_000  # of whole numbers; beyond these bounds no machine holds the network

#: Every option by name; its default is the architecture's.
OPTIONS: dict[str, Option] = {
    "hidden": Option(
        "ints", "units of each hidden layer", minimum=1, maximum=10_000_000, examples=([64, 64],)
    ),
    "width": Option("int", "channels of the first stage", minimum=1, maximum=4096),
    "depth": Option("int", "layers", minimum=1, maximum=10_001, examples=(20, 110, 164)),
    "block": Option(
        "choice", "auto: bottleneck from depth 164 on, or where only that fits the depth", choices=BLOCKS
    ),
    "skip": Option("bool", "false: without the connections around blocks"),
    "growth": Option("int", "channels that each layer adds", minimum=1, maximum=1024),
    "compression": Option("number", "share of channels that a transition keeps", above=0, maximum=1),
    "widen": Option("int", "how many times wider than a plain ResNet", minimum=1, maximum=256),
    "dropout": Option("number", "share of units dropped in training", minimum=0, below=1),
    "norm": Option("choice", "layers that normalise", choices=NORMS),
    "groups": Option("int", "groups of norm group", minimum=1, maximum=_MOST),
    "activation": Option("choice", "nonlinearity between layers", choices=ACTIVATIONS),
    "norm_init": Option("choice", "weights of norm layers at the start", choices=NORM_INITS),
}
_FACTORY = Option(
    "factory",
    "module:attribute of a callable that returns a torch.nn.Module, images (N, C, H, W) to logits (N, "
    "classes). The module is in the folder of the run, beside the config file, or installed. An edit of its "
    "code, or of what it imports from those folders or from elsewhere on Python's path, or another release "
    "of an installed package, makes anew what depends on it, given weights too",
    examples=("nets:build",),
)
_KWARGS = Option(
    "kwargs",
    "arguments of the factory: numbers, text, true, false, null, and lists and mappings of these. "
    "num_classes or classes, in_chans or in_channels, and in_shape are passed as well where its signature "
    "names them",
)
LONGEST = 1000  # lists
MOST_WEIGHTS = 10**10  # of all layers of an mlp between hidden ones

# Layers per block unit and layers outside of blocks: a depth must be unit * n + rest with n >= 1.
DEPTH_RULES = {"basic": (6, 2), "bottleneck": (9, 2), "wrn": (6, 4), "densenet_bc": (6, 4)}


#: Losses by name, each with its options (`models.losses.build`).
LOSSES: dict[str, dict[str, Option]] = {
    "cross_entropy": {},
    "label_smoothing": {
        "smoothing": Option("number", "share of a label spread over all classes", 0.1, minimum=0, maximum=1)
    },
    "mse": {},
    "focal": {
        "gamma": Option("number", "power of 1 - p that weighs an image", 2, minimum=0, maximum=100),
    },
}


@dataclass(frozen=True)
class Arch:
    """One architecture.

    Attributes
    ----------
    description
        One line for listings.
    options
        Every option it takes, with its default.
    min_size
        The smallest image side it can take.
    """

    description: str
    options: dict[str, Any]
    min_size: int = 1


_COMMON = {"norm": "batch", "groups": 32, "activation": "relu", "norm_init": "ones"}

ARCHS: dict[str, Arch] = {
    "mlp": Arch(
        "fully connected network on the flattened image",
        {"hidden": [64, 64], **_COMMON, "norm": "none"},
    ),
    "resnet8": Arch(
        "pre-activation ResNet with three basic blocks, for small images",
        {"width": 4, "skip": True, **_COMMON},
        min_size=4,
    ),
    "preresnet": Arch(
        "pre-activation ResNet for 32x32 images (He et al. 2016)",
        {"depth": 20, "block": "auto", "width": 16, "skip": True, **_COMMON},
        min_size=4,
    ),
    "vgg16": Arch(
        "VGG-16 for 32x32 images (Simonyan and Zisserman 2015)",
        {"dropout": 0.5, **_COMMON},
        min_size=32,
    ),
    "densenet_bc": Arch(
        "DenseNet-BC for 32x32 images (Huang et al. 2017)",
        {"depth": 100, "growth": 12, "compression": 0.5, **_COMMON},
        min_size=4,
    ),
    "wrn": Arch(
        "wide ResNet for 32x32 images (Zagoruyko and Komodakis 2016)",
        {"depth": 28, "widen": 10, "dropout": 0.0, **_COMMON},
        min_size=4,
    ),
    "resnet50": Arch(
        "torchvision's ResNet-50 for ImageNet (He et al. 2015)",
        {**_COMMON},
        min_size=16,
    ),
}


def _table(arch: str) -> dict[str, Option]:
    """Return the options of an architecture."""
    return {key: replace(OPTIONS[key], default=value) for key, value in ARCHS[arch].options.items()}


def validate_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Check the config block of a model and fill in the defaults; builds nothing, imports no torch.

    Parameters
    ----------
    spec
        ``{"arch": name, option: value, ...}``, or ``{"factory": "module:attribute", "kwargs": {...}}`` for a
        user's own network, which is not looked for here.

    Returns
    -------
    dict
        ``arch`` and every option of that architecture, in the order of its table; or ``factory`` and
        ``kwargs``.

    Raises
    ------
    ValleysError
        On an unknown architecture, option or value.
    """
    if not isinstance(spec, Mapping):
        raise ValleysError(f"model: {spec!r} is not a mapping; write for example {{arch: resnet8}}")
    if "factory" in spec:
        return _validate_factory(spec)
    if "arch" not in spec:
        raise ValleysError(
            f"model.arch: missing; choose one of: {', '.join(ARCHS)} (or give factory: module:attribute)"
        )
    arch = check_name("model", spec["arch"], ARCHS, "arch")
    given = {key: value for key, value in spec.items() if key != "arch"}
    full = {"arch": arch, **check_options("model", given, _table(arch), f"the architecture {arch!r}")}
    hidden = full.get("hidden", ())
    if len(hidden) > LONGEST or sum(a * b for a, b in itertools.pairwise(hidden)) > MOST_WEIGHTS:
        raise ValleysError(
            f"model.hidden: {len(hidden)} layers with more weights than any machine holds; take fewer"
        )
    if arch == "preresnet":
        preresnet_blocks(full["depth"], full["block"])
    elif arch in DEPTH_RULES:
        blocks_for_depth(full["depth"], arch)
    return full


def _validate_factory(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Check the block of a model that a user's own callable builds."""
    factories.check_alone("model", spec)
    factory, kwargs = factories.check("model", spec["factory"], spec.get("kwargs"))
    return {"factory": factory, "kwargs": kwargs}


def blocks_for_depth(depth: int, *kinds: str) -> tuple[str, int]:
    """Return the first of `kinds` whose rule ``unit * n + rest`` gives `depth`, and its ``n``."""
    for kind in kinds:
        unit, rest = DEPTH_RULES[kind]
        n, remainder = divmod(depth - rest, unit)
        if n >= 1 and remainder == 0:
            return kind, n
    rules = [DEPTH_RULES[kind] for kind in kinds]
    nearest = min(
        (unit * max(1, round((depth - rest) / unit)) + rest for unit, rest in rules),
        key=lambda candidate: abs(candidate - depth),
    )
    formulas = " or ".join(f"{unit}n+{rest}" for unit, rest in rules)
    raise ValleysError(f"model.depth: {depth} does not fit; nearest is {nearest} (valid: {formulas}, n >= 1)")


def preresnet_blocks(depth: int, block: str) -> tuple[str, int]:
    """Return the block (``basic`` or ``bottleneck``) of a PreResNet and how many each stage has.

    ``auto`` follows the published sizes: basic blocks (6n+2) below depth 164, so that 110 has 1.73M
    parameters, and bottlenecks (9n+2) from 164 on, which has 1.70M. The code of the SWA authors switches at
    depth 44, so their "PreResNet-110" is ``{depth: 110, block: bottleneck}`` here (1.15M). When the depth
    fits only the other block, ``auto`` takes that one.
    """
    if block != "auto":
        return blocks_for_depth(depth, block)
    return blocks_for_depth(depth, *(("basic", "bottleneck") if depth < 164 else ("bottleneck", "basic")))


def schema() -> dict[str, Any]:
    """Return JSON schema of a model's block, for editors: it says what `validate_spec` checks."""
    tables = {name: (arch.description, _table(name)) for name, arch in ARCHS.items()}
    by_name = block_schema("arch", tables, "The architecture; or give `factory`, a network of your own.")
    own = {"factory": _FACTORY.schema(), "kwargs": _KWARGS.schema()}
    return {
        "if": {"required": ["factory"]},
        "then": {"additionalProperties": False, "required": ["factory"], "properties": own},
        "else": by_name,
    }
