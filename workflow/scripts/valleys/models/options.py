"""Which architectures there are and what options each takes: tables and checks without torch.

The Snakefile calls :func:`validate_spec` before any job starts, so nothing here may import torch.
:mod:`valleys.models` builds what these tables describe.
"""

from __future__ import annotations

import copy
import difflib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from valleys import factories
from valleys.errors import ValleysError

NORMS = ("batch", "group", "layer", "none")
ACTIVATIONS = ("relu", "gelu", "tanh", "sigmoid", "softplus", "silu")
NORM_INITS = ("ones", "uniform", "gaussian")
BLOCKS = ("auto", "basic", "bottleneck")

# Options that name one of a few things; every other option has the type of its default.
CHOICES = {"norm": NORMS, "activation": ACTIVATIONS, "norm_init": NORM_INITS, "block": BLOCKS}

# Where a fraction may lie: (lowest, highest, whether the lowest and the highest themselves are allowed).
RANGES = {"dropout": (0.0, 1.0, True, False), "compression": (0.0, 1.0, False, True)}

# Whole numbers are from 1 to 100,000, or to these: beyond, no machine holds the network.
MAXIMA = {"depth": 10_001, "width": 4096, "widen": 256, "growth": 1024, "hidden": 10_000_000}
LONGEST = 1000  # lists
MOST_WEIGHTS = 10**10  # of all layers of an mlp between hidden ones

# Layers per block unit and layers outside of blocks: a depth must be unit * n + rest with n >= 1.
DEPTH_RULES = {"basic": (6, 2), "bottleneck": (9, 2), "wrn": (6, 4), "densenet_bc": (6, 4)}


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


def pick(key: str, value: Any, valid: Iterable[str]) -> str:
    """Return `value` when it is one of `valid`, else raise a ValleysError that suggests the nearest one."""
    valid = tuple(valid)
    if isinstance(value, str) and value in valid:
        return value
    near = difflib.get_close_matches(str(value).lower(), valid, n=1, cutoff=0.0)
    raise ValleysError(f"{key}: {value!r} is not known; nearest is {near[0]!r} (valid: {', '.join(valid)})")


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
    arch = pick("model.arch", spec["arch"], ARCHS)
    full = {"arch": arch, **copy.deepcopy(ARCHS[arch].options)}
    for key, value in spec.items():
        if key != "arch":
            _check_option_name(arch, key, value)
            full[key] = _check_value(key, value, default=full[key])
    if arch == "preresnet":
        preresnet_blocks(full["depth"], full["block"])
    elif arch in DEPTH_RULES:
        blocks_for_depth(full["depth"], arch)
    return full


def _validate_factory(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Check the block of a model that a user's own callable builds."""
    for key in spec:
        if key not in ("factory", "kwargs"):
            raise ValleysError(
                f"model.{key}: {spec[key]!r} is set beside factory, which takes nothing but kwargs; "
                "put it there, or drop it"
            )
    factory, kwargs = factories.check("model", spec["factory"], spec.get("kwargs"))
    return {"factory": factory, "kwargs": kwargs}


def _check_option_name(arch: str, key: Any, value: Any) -> None:
    """Raise unless `arch` has an option `key`; show the value too, so that the line is easy to find."""
    options = ARCHS[arch].options
    if key not in options:
        near = difflib.get_close_matches(str(key).lower(), options, n=1, cutoff=0.0)[0]
        raise ValleysError(
            f"model.{key}: {value!r} is set, but {arch!r} has no option {key!r}; "
            f"nearest is {near!r} (valid: {', '.join(options)})"
        )


def _check_value(key: str, value: Any, *, default: Any) -> Any:
    """Return `value` in the type of `default`, or raise the error that says what would be right."""
    name, most = f"model.{key}", MAXIMA.get(key, 100_000)
    if key in CHOICES:
        return pick(name, value, CHOICES[key])
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        raise ValleysError(f"{name}: {value!r} is not a truth value; nearest is {bool(value)} (true, false)")
    if isinstance(default, int):
        if _is_positive_int(value, most):
            return value
        raise ValleysError(
            f"{name}: {value!r} is not a whole number >= 1 (at most {most}); the default is {default}"
        )
    if isinstance(default, float):
        low, high, with_low, with_high = RANGES[key]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and (low < value < high or (with_low and value == low) or (with_high and value == high)):
            return float(value)
        interval = f"{'[' if with_low else '('}{low:g}, {high:g}{']' if with_high else ')'}"
        raise ValleysError(f"{name}: {value!r} is not a number in {interval}; the default is {default}")
    if isinstance(value, list | tuple) and all(_is_positive_int(item, most) for item in value):
        if len(value) > LONGEST or sum(a * b for a, b in itertools.pairwise(value)) > MOST_WEIGHTS:
            raise ValleysError(
                f"{name}: {len(value)} layers with more weights than any machine holds; take fewer"
            )
        return list(value)
    raise ValleysError(
        f"{name}: {value!r} is not a list of whole numbers >= 1 (at most {most}); the default is {default}"
    )


def _is_positive_int(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


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
