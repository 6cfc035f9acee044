"""A config file: read, checked against its schema, defaults filled in; `experiment` says what it means."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError, validators
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from valleys import factories
from valleys.data import options
from valleys.errors import ValleysError, did_you_mean, number_hint
from valleys.landscape.kinds import GROUPS, KINDS
from valleys.models import options as model_options
from valleys.storage import schemas

SCHEMA_FILE = schemas.schema("config.schema.yaml")
Config = Mapping[str, Any]
WILDCARD = re.compile(r"\{[^{}]*\}")
SMALLEST, LARGEST = 1e-30, 1e30  # of numbers but 0, well within float32
DEEPEST = 50  # blocks within blocks


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value == 0 or SMALLEST <= abs(value) <= LARGEST  # not NaN, either


# JSON schema counts 6.0 as an integer, and infinities and NaN as numbers; the workflow cannot use them.
_Validator = validators.extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
            "number": lambda _, value: _is_number(value),
        }
    ),
)


@functools.cache
def _schema() -> Mapping[str, Any]:
    """Return the config's schema, read once: to read it takes ten times as long as to check a config."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(SCHEMA_FILE.read_text(encoding="utf-8"), loader)


# What options.schema.yaml says to an editor, the library checks by the tables that it is made from.
_LEFT = {"$defs": dict.fromkeys(("dataset", "model", "kind", "group"), True)}
_REGISTRY = Registry().with_resource("options.schema.yaml", DRAFT202012.create_resource(_LEFT))


def options_schema() -> dict[str, Any]:
    """Return ``options.schema.yaml``: what data sets, models and probes may say, from our tables."""
    layers = {"type": "string", "pattern": "^layer:."}
    defs = {
        "dataset": options.schema(),
        "model": model_options.schema(),
        "kind": {"enum": list(KINDS), "enumDescriptions": [kind.help for kind in KINDS.values()]},
        "group": {"anyOf": [{"enum": [name for name in GROUPS if ":" not in name]}, layers]},
    }
    made = "Made by `python -m valleys options --schema`; do not edit."
    return {"$schema": Draft202012Validator.META_SCHEMA["$id"], "$comment": made, "$defs": defs}


def check(config: Config) -> None:
    """Check types, names and keys against the JSON schema, with one clear line for the first mistake.

    The message has the key's full path and, for an unknown key or value, the nearest valid one. Options of
    data sets and models are checked by their tables, when an `Experiment` is made. A config with defaults
    filled in may be checked again.

    Raises
    ------
    ValleysError
        For the mistake nearest to the root.
    """
    _check_plain_values(config)
    found = _Validator(_schema(), registry=_REGISTRY).iter_errors(config)
    errors = sorted(found, key=lambda e: len(e.absolute_path))
    if errors:
        error = errors[0]
        while error.context:  # of anyOf, the branch that got furthest says what the user meant
            error = max(error.context, key=lambda e: (len(e.absolute_path), e.validator != "type"))
        raise ValleysError(_explain(error))
    _check_losses(config)


def _check_losses(config: Config) -> None:
    """Check that no loss is given an option of another one, which it would not use."""
    filled = set(_schema()["properties"]) <= set(config)  # a loss then has the options of all
    own = {"factory", "kwargs"}
    every = set(_schema()["$defs"]["loss"]["properties"]) - own
    for block in ("recipes", "checkpoints"):
        for name, one in config.get(block, {}).items():
            loss = one.get("loss", {})
            chosen = loss.get("name", "cross_entropy")
            if filled and loss.keys() - own == every:
                continue
            _check_own_loss(f"config: {block}.{name}.loss", loss)
            if "factory" in loss:
                continue
            for key in sorted(loss.keys() - {"name", *model_options.LOSSES[chosen]}):
                (other,) = (loss for loss, known in model_options.LOSSES.items() if key in known)
                raise ValleysError(
                    f"config: {block}.{name}.loss.{key}: {loss[key]!r} is set, but {chosen} has no option "
                    f"{key!r}; drop it, or set name to {other}"
                )


def _check_own_loss(where: str, loss: Mapping[str, Any]) -> None:
    """Check that a loss is either one of ours or one of a factory's."""
    if "factory" in loss:
        factories.check_alone(where, loss)
    elif "kwargs" in loss:
        raise ValleysError(
            f"{where}.kwargs: {loss['kwargs']!r} are arguments of a factory; name one, or drop it"
        )


def read_yaml(text: str, where: str) -> Any:
    """Read JSON or YAML, as Snakemake does, but refuse a key that is there twice: the last would win.

    Parameters
    ----------
    where
        Names the text in the error.

    Raises
    ------
    ValleysError
        For the first such key, with its line. What a merge (``<<``) brings may be set again.
    yaml.YAMLError
        As ``yaml.safe_load``.
    """
    found, is_json = None, False
    with contextlib.suppress(ValueError):
        found, is_json = json.loads(text), True
        text = text.replace("\t", " ")  # JSON has tabs between words alone, YAML has none
    keys, seen = yaml.SafeLoader(""), set[int]()
    todo: list[tuple[Any, tuple[str, ...]]] = [(yaml.compose(text, yaml.SafeLoader), ())]
    doubled: list[tuple[int, str]] = []
    while todo:
        node, way = todo.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += [(item, (*way, str(i))) for i, item in enumerate(node.value)][::-1]
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[Any, int] = {}
        todo += [(value, (*way, str(key.value))) for key, value in reversed(node.value)]
        for key, _ in node.value:
            line, path = key.start_mark.line + 1, (*way, str(key.value))
            if isinstance(key, yaml.ScalarNode):  # others, safe_load refuses
                name = key.value if key.tag.endswith(":merge") else keys.construct_object(key)
                if name in lines:
                    doubled.append((line, f"{'.'.join(path)} is there twice, first in line {lines[name]}"))
                lines.setdefault(name, line)
    if doubled:
        line, what = min(doubled)
        raise ValleysError(f"{where}, line {line}: {what}; drop one, as the last would win in silence")
    return found if is_json else yaml.safe_load(text)


def check_files(paths: Iterable[str | Path]) -> None:
    """Check that no config file has a key twice, as `read_yaml`; Snakemake, which read them, does not see it.

    Raises
    ------
    ValleysError
        For the first such key.
    """
    for path in map(Path, paths):
        if path.is_file():  # and no pipe, which has been read
            with contextlib.suppress(yaml.YAMLError):
                read_yaml(path.read_text(encoding="utf-8"), f"config file {path}")


def _check_plain_values(value: object, at: tuple[str, ...] = ()) -> None:
    """Check what no schema says: integers are of 64 bits, as files keep them, and blocks end somewhere."""
    where = "config: " + (".".join(at[:8]) or "top level")
    if isinstance(value, int) and value.bit_length() > 63:
        raise ValleysError(
            f"{where}: an integer of {value.bit_length()} bits; it must fit in 64, with its sign"
        )
    if len(at) > DEEPEST:
        raise ValleysError(f"{where}: blocks lie in each other, or in themselves, more than {DEEPEST} deep")
    entries = value.items() if isinstance(value, Mapping) else enumerate(value) if _is_list(value) else ()
    for key, item in entries:
        _check_plain_values(key, (*at, "a key"))
        _check_plain_values(item, (*at, str(key)))


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def check_plain(path: str | Path) -> None:
    """Check that a config file is no YTE template, whose expressions Snakemake runs when it reads the file.

    Raises
    ------
    ValleysError
        When it is. A file that cannot be read is left to whoever reads it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if "__use_yte__" in text or ("\\" in text and "__use_yte__" in _keys(text)):
        raise ValleysError(
            f"config file {path}: __use_yte__ makes it a template, whose Python code runs when Snakemake "
            "reads it; write the config out"
        )


def _keys(text: str) -> list[str]:
    """Return the top-level keys of a YAML text, as far as it is one: escapes may spell them."""
    try:
        return [str(key) for key in yaml.safe_load(text) or ()]
    except (yaml.YAMLError, TypeError):
        return []


def input_path(path: str) -> str:
    """Return a path as an input of a rule, where Snakemake takes ``{word}`` for a wildcard.

    Below the folder of the run it is made relative, so that braces in that folder's own name do no harm.

    Raises
    ------
    ValleysError
        When the path has such braces even so.
    """
    if not WILDCARD.search(path):
        return path
    relative = os.path.relpath(path)
    if relative.startswith(os.pardir) or WILDCARD.search(relative):
        raise ValleysError(
            f"{path}: Snakemake takes {WILDCARD.search(path)[0]} in a path for a wildcard; rename the file "
            "or folder, or give the path of a link to it"
        )
    return relative


def check_writable(folder: str | Path) -> None:
    """Check that `folder` exists and can be written to, or can be made.

    Raises
    ------
    ValleysError
        When what exists of its path is no folder or is not writable.
    """
    path = Path(folder)
    while not path.exists() and path != path.parent:
        path = path.parent
    if not path.is_dir():
        raise ValleysError(f"results folder {folder}: {path} is a file; remove it or run elsewhere")
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValleysError(f"results folder {folder}: {path} is not writable; make it so or run elsewhere")


def ignores_case(folder: Path) -> bool:
    """Whether a folder's disk takes small and capital letters in names for the same."""
    return any(
        other != one and other.exists() and other.samefile(one)
        for one in (folder, *folder.parents)
        if (other := one.with_name(one.name.swapcase()) if one.name else one)
    )


def _explain(error: ValidationError) -> str:
    where = "config: " + (".".join(str(part) for part in error.absolute_path) or "top level")
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = list(error.schema.get("properties", {}))
        for key in error.instance:
            if key not in known:
                near, keys = did_you_mean(key, known), ", ".join(sorted(known))
                return f"{where}: unknown key {key!r}{near}; keys here: {keys}"
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return f"{where}: missing {', '.join(missing)}"
    if error.validator == "enum":
        known = [str(value) for value in error.validator_value]
        hint = did_you_mean(error.instance, known)
        return f"{where}: {error.instance!r}{hint}; choose from {', '.join(known)}"
    if error.validator == "type" and isinstance(error.instance, float) and "number" in error.validator_value:
        size = f"{SMALLEST:g} to {LARGEST:g}"
        return f"{where}: {error.instance!r} is out of range; it must be 0, or {size} in size"
    if error.validator == "pattern":
        right = "letters, digits, '_', '-' and '.', beginning with a letter or digit"
        if error.validator_value.startswith("^[a-z]"):  # of studies, whose tables and rules have their names
            right = "small letters, digits and '_', beginning with a letter"
        return f"{where}: {error.instance!r} cannot be a name; use {right}"
    if error.validator == "type":
        hint = ""
        if {"number", "integer"} & set(_as_list(error.validator_value)):
            hint = number_hint(error.instance, whole="number" not in error.validator_value)
        return f"{where}: {error.message}{_meaning(error.schema)}{hint}"
    return f"{where}: {error.message}"


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _meaning(schema: Mapping[str, Any]) -> str:
    """Return the end of a sentence that says what a key means: the first sentence of its description."""
    text = schema.get("description", "").partition(". ")[0].rstrip(".")
    return f" ({text})" if text else ""


def with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """Fill in the defaults of the config's schema, in place; those of data sets and models are left out.

    Parameters
    ----------
    config
        Checked (`valleys.config.schema.check`).
    """
    for probe in config.get("probes", {}).values():
        if probe["kind"] in KINDS:
            probe.setdefault("n", KINDS[probe["kind"]].n)
    plain = Draft202012Validator.VALIDATORS["properties"]

    def properties(validator: Any, schemas: Any, instance: Any, schema: Any) -> Iterator[Any]:
        for name, one in schemas.items():
            if "default" in one and isinstance(instance, dict):
                instance.setdefault(name, json.loads(json.dumps(one["default"])))
        yield from plain(validator, schemas, instance, schema)

    filling = validators.extend(Draft202012Validator, {"properties": properties})
    for _ in filling(_schema(), registry=_REGISTRY).iter_errors(config):
        pass  # the caller has checked
    return config
