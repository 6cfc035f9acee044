"""What is asked of ``valleys probe`` and ``path``: names, numbers and blocks of YAML on the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from valleys.config.experiment import Experiment
from valleys.config.params import Params, with_image_errors
from valleys.config.schema import check, read_yaml, with_defaults
from valleys.errors import ValleysError
from valleys.landscape.kinds import KINDS, SEARCH, SINGLE
from valleys.storage import files

#: Kinds that need no more than the solution and the train set.
LOCAL = [name for name, kind in KINDS.items() if kind.local]
#: Keys of a probe's block that are options of the command by the same name.
PROBE_KEYS = (
    *("n", "group", "share", "orthogonal", "points", "adaptive", "radius", "relative", "relative_to", "rise"),
    *("bn", "precision", "slopes", "train_images", "test_images", "search", "until"),
)
#: Keys of a line's block that are options of the command ``path`` by the same name.
PATH_KEYS = ("divisions", "bn", "train_images", "test_images", "until")
_OPTIONS = {"kind": "direction", "method": "bn-method", "barrier": "threshold"}


def parse_block(text: str, key: str, option: str) -> dict[str, Any]:
    """Return a config block written on the command line.

    Parameters
    ----------
    text
        ``name``, ``name:option=value,option=value``, a YAML or JSON mapping, or a YAML or JSON file of one.
        Values are YAML: ``preresnet:depth=20``, ``mlp:hidden=[16,8]``.
    key
        The block's key that the name stands for: ``arch``, ``source``, ``name`` or ``seek``.
    option
        Of the command line, for messages.

    Raises
    ------
    ValleysError
        When the text is none of these.
    """
    path = files.expand(text)
    try:
        if path.suffix in (".yaml", ".yml", ".json") and path.exists():
            files.check_regular(path, f"--{option}:")
            block = read_yaml(path.read_text(encoding="utf-8"), f"--{option}: {text}")
        elif text.lstrip().startswith("{"):
            block = read_yaml(text, f"--{option}: {text}")
        else:
            name, _, rest = text.partition(":")
            block = {key: name, **_pairs(rest)}
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        own = "; a network of your own is '{factory: \"module:attribute\"}'" if key == "arch" else ""
        raise ValleysError(
            f"--{option}: {text!r} is no name:option=value,... nor a mapping ({reason}){own}"
        ) from error
    if not isinstance(block, dict):
        raise ValleysError(f"--{option}: {text!r} holds {type(block).__name__}; it must be a mapping")
    return block


def _pairs(text: str) -> dict[str, Any]:
    pairs = {}
    for item in re.split(r",(?![^\[{]*[\]}])", text) if text else []:
        name, equals, value = item.partition("=")
        if not (name.strip() and equals):
            raise ValueError(f"{item!r} is no option=value")
        if name.strip() in pairs:
            raise ValueError(f"{name.strip()!r} is there twice")
        pairs[name.strip()] = read_yaml(value, repr(item))
    return pairs


@dataclass(frozen=True)
class Request:
    """Checked settings of a probe or a path.

    Attributes
    ----------
    block
        Of the probe, as in a config, with its defaults; of kind searched with those of ``search``. Or of the
        line, as `Params.interpolate` has it, and ``threshold``.
    loss, bn_refresh, asymmetry
        The config's blocks of that name, with their defaults.
    figure
        Spec of the figure (`valleys.config.params.Params.figure`).
    """

    block: dict[str, Any]
    loss: dict[str, Any]
    bn_refresh: dict[str, Any]
    asymmetry: dict[str, Any]
    figure: dict[str, Any]


def request(
    kind: str,
    given: Mapping[str, Any],
    loss: Mapping[str, Any],
    bn_refresh: Mapping[str, Any],
    asymmetry: Mapping[str, Any],
) -> Request:
    """Check what was asked for by the rules of the config, and fill in its defaults.

    Parameters
    ----------
    kind
        Of the directions: one of `LOCAL`.
    given
        Those of `PROBE_KEYS` that were given.
    loss, bn_refresh, asymmetry
        What was given of these blocks.

    Raises
    ------
    ValleysError
        With the option's name in place of the config's key.
    """
    if kind in KINDS and kind not in LOCAL:
        raise ValleysError(
            f"--direction: {kind!r} needs other solutions or iterates, which a run of the workflow has; "
            f"here there are {', '.join(LOCAL)}"
        )
    config, experiment = _experiment(
        loss, bn_refresh, probes={"given": {"kind": kind, "solutions": ["sgd"], **given}}, asymmetry=asymmetry
    )
    block = with_image_errors(config["probes"]["given"])
    del block["solutions"]
    if kind in SINGLE:
        block["n"] = 1
    if kind != "sign":
        block["share"] = 0.0
    if KINDS[kind].searched:
        block["search"] = SEARCH | block.get("search", {})
    blocks = (config[key] for key in ("bn_refresh", "asymmetry"))
    return Request(
        block, config["recipes"]["given"]["loss"], *blocks, Params(experiment).figure("curves-given")
    )


def path_request(
    given: Mapping[str, Any],
    loss: Mapping[str, Any],
    bn_refresh: Mapping[str, Any],
    threshold: float | None = None,
) -> Request:
    """Check what was asked of a path by the rules of the config, and fill in its defaults.

    Parameters
    ----------
    given
        Those of `PATH_KEYS` that were given.
    loss, bn_refresh
        What was given of these blocks.
    threshold
        Of the barrier; None takes the config's.

    Raises
    ------
    ValleysError
        With the option's name in place of the config's key.
    """
    ends = {"start": "sgd", "stop": "swa", "first": 0, "last": 1, "divisions": 20}
    claims = {} if threshold is None else {"barrier": threshold}
    config, experiment = _experiment(loss, bn_refresh, lines={"given": {**ends, **given}}, claims=claims)
    params = Params(experiment)
    spec = params.interpolate(experiment.cells[0], "given")
    block = spec["line"] | {"threshold": config["claims"]["barrier"]}
    blocks = (spec["loss"], spec["bn_refresh"], config["asymmetry"])
    return Request(block, *blocks, params.figure("line-given"))


def _experiment(
    loss: Mapping[str, Any], bn_refresh: Mapping[str, Any], **blocks: Mapping[str, Any]
) -> tuple[dict[str, Any], Experiment]:
    """Return a config with its defaults of one cell that is never trained, which only lends its blocks.

    Raises
    ------
    ValleysError
        With the option's name in place of the config's key.
    """
    config: dict[str, Any] = {
        "name": "given",
        "seeds": [0],
        "datasets": {"data": {"source": "digits"}},
        "models": {"model": {"arch": "mlp"}},
        "recipes": {"given": {"epochs": 2, "swa": {"start": 1, "lr": 0.1}, "lr": 0.1, "loss": dict(loss)}},
        "grid": [{"dataset": "data", "model": "model", "recipe": "given"}],
        "bn_refresh": dict(bn_refresh),
        **{name: dict(block) for name, block in blocks.items()},
    }
    try:
        check(config)
        return config, Experiment(with_defaults(config))
    except ValleysError as error:
        raise ValleysError(_as_option(str(error))) from None


def _as_option(message: str) -> str:
    """Name the option of the command line where a message names a key of the config."""
    found = re.match(
        r"config: (probes\.given\.search|probes\.given|lines\.given|bn_refresh|asymmetry|claims|"
        r"recipes\.given\.loss)"
        r"(?:\.(\w+))?: ",
        message,
    )
    if not found:
        return message
    key = found[2] or ""
    block = found[1].rpartition(".")[2]
    nested = block in ("loss", "search")  # blocks on the command line too
    option = block if nested else _OPTIONS.get(key, key.replace("_", "-"))
    detail = f"{key}: " if nested and key else ""
    return f"--{option}: {detail}{message[found.end() :]}" if option else message[found.end() :]
