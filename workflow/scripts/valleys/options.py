"""Options of a block of the config: a table of them, the check of a block, and the same as JSON schema.

Pure Python, so that the Snakefile and the library read tables without torch and without jsonschema. Which
options there are is said by `data.options` and `models.options`; keys of other blocks stand in
``workflow/schemas/config.schema.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from valleys.errors import ValleysError, did_you_mean, number_hint

_ONE = {"int": "whole number", "number": "number"}
_LISTS = {"ints": "int", "numbers": "number"}
_PLAIN = {"bool": "true or false", "str": "text that is not empty", "path": "a path"}
_PLAIN |= {"paths": "a path, a glob pattern, or a list of one or more paths or patterns"}
_PLAIN |= {"names": "a name, or a list of one or more"}
_PLAIN |= {"factory": "module:attribute", "kwargs": "a mapping"}


@dataclass(frozen=True)
class Option:
    """One option: the kind of value it takes, and what it is when left out.

    ``kind`` is one of ``int``, ``number``, ``bool``, ``str``, ``path`` (a string), ``paths`` (a string, a
    glob pattern, or a non-empty list of either), ``names`` (a string or a non-empty list),
    ``ints`` (a list), ``numbers`` (a non-empty list),
    ``choice`` (one of `choices`), ``factory`` (``module:attribute``) and ``kwargs`` (a mapping); the last
    two are checked by `factories.check`. Bounds are of a number, or of each in a list; ``above`` and
    ``below`` are not reached.
    """

    kind: str
    help: str
    default: Any = None
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    examples: tuple[Any, ...] = ()

    def accepts(self, value: Any) -> bool:
        """Whether a value is one that the option takes; null is not."""
        if self.kind in _LISTS:
            return (
                isinstance(value, list | tuple)
                and (len(value) > 0 or self.kind == "ints")
                and all(self._is_number(v, _LISTS[self.kind]) for v in value)
            )
        if self.kind in ("paths", "names") and isinstance(value, list | tuple):
            return len(value) > 0 and all(isinstance(item, str) and item for item in value)
        if self.kind in _ONE:
            return self._is_number(value, self.kind)
        if self.kind == "bool":
            return isinstance(value, bool)
        if self.kind == "choice":
            return isinstance(value, str) and value in self.choices
        return self.kind in ("factory", "kwargs") or (isinstance(value, str) and value != "")

    def _is_number(self, value: Any, kind: str) -> bool:
        right = isinstance(value, int if kind == "int" else int | float) and not isinstance(value, bool)
        return (
            right
            and value == value  # no NaN
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def wanted(self) -> str:
        """Return what the option takes, in words that go on from ``it must be``."""
        if self.kind == "choice":
            return f"one of: {', '.join(self.choices)}"
        bounds = [("at least", self.minimum), ("above", self.above), ("at most", self.maximum)]
        bounds += [("below", self.below)]
        limits = " and ".join(f"{word} {number(n)}" for word, n in bounds if n is not None)
        if self.kind in _LISTS:
            return f"a list of {_ONE[_LISTS[self.kind]]}s" + (f", each {limits}" if limits else "")
        if self.kind in _ONE:
            return f"a {_ONE[self.kind]}" + (f" {limits}" if limits else "")
        return _PLAIN[self.kind]

    def schema(self, *, or_null: bool = False) -> dict[str, Any]:
        """Return the option as JSON schema.

        Parameters
        ----------
        or_null
            Whether null stands for the default of an option that need not be given.
        """
        text, name = {"type": "string", "minLength": 1}, self.kind
        bounds = {"minimum": self.minimum, "exclusiveMinimum": self.above}
        bounds |= {"maximum": self.maximum, "exclusiveMaximum": self.below}
        bounds = {key: bound for key, bound in bounds.items() if bound is not None}
        one = {"type": "integer" if name in ("int", "ints") else "number", **bounds}
        made: dict[str, Any] = text
        if name in _ONE:
            made = one
        elif name in _LISTS:
            made = {"type": "array", "minItems": int(name != "ints"), "items": one}
        elif name == "bool":
            made = {"type": "boolean"}
        elif name == "choice":
            made = {"enum": list(self.choices)}
        elif name in ("paths", "names"):
            made = {"anyOf": [text, {"type": "array", "minItems": 1, "items": text}]}
        elif name == "kwargs":
            made = {"type": "object"}
        if or_null and not self.required:
            made = {"anyOf": [made, {"type": "null"}]}
        shown = {} if self.default is None else {"default": self.default}
        shown |= {"examples": list(self.examples)} if self.examples else {}
        return {**made, "description": self.help, **shown}


def number(value: float) -> str:
    """Return a number as one writes it: 10000000, 0.5, 1e-06."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def check_name(where: str, name: Any, known: Mapping[str, Any], key: str) -> str:
    """Check what names the table of a block's options.

    Parameters
    ----------
    where, key
        The block's place in the config, and the key that holds the name, for messages.
    known
        The tables by name.

    Raises
    ------
    ValleysError
        When it is none of those.
    """
    if isinstance(name, str) and name in known:
        return name
    hint = did_you_mean(name, known)
    raise ValleysError(f"{where}.{key}: {name!r} is not known{hint}; it must be one of: {', '.join(known)}")


def check_options(
    where: str, given: Mapping[Any, Any], options: Mapping[str, Option], owner: str, *, or_null: bool = False
) -> dict[str, Any]:
    """Check the options given in a block, and return all of the table's, with defaults, in its order.

    Parameters
    ----------
    where, owner
        The block's place in the config, and what has the options (``the source 'digits'``), for messages.
    given
        The block without the key that names the table.
    or_null
        Whether null stands for the default.

    Raises
    ------
    ValleysError
        For an unknown key (with the nearest known one), a missing key, or a value that its option does not
        take.
    """
    for key in given:
        if key not in options:
            hint, known = did_you_mean(key, options), ", ".join(options)
            raise ValleysError(f"{where}: unknown key {key!r}{hint}; {owner} takes: {known}")
    filled = {}
    for key, option in options.items():
        value = given.get(key)
        if key not in given or (value is None and or_null):
            if option.required:
                raise ValleysError(
                    f"{where}: missing {key}, which {owner} needs: {option.wanted()} ({option.help})"
                )
            filled[key] = list(option.default) if isinstance(option.default, list) else option.default
            continue
        if not option.accepts(value):
            hint = did_you_mean(value, option.choices) if option.kind == "choice" else ""
            kind = _LISTS.get(option.kind, option.kind)
            read = number_hint(value, whole=kind == "int") if kind in _ONE else ""
            default = "" if option.default is None else f"; the default is {_written(option.default)}"
            raise ValleysError(
                f"{where}.{key}: {value!r}{hint}; it must be {option.wanted()} ({option.help}){default}{read}"
            )
        value = list(value) if isinstance(value, tuple) else value
        filled[key] = float(value) if option.kind == "number" else value
    return filled


def _written(value: Any) -> str:
    """Return a value as YAML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def block_schema(
    key: str, tables: Mapping[str, tuple[str, Mapping[str, Option]]], what: str, *, or_null: bool = False
) -> dict[str, Any]:
    """Return JSON schema of a block whose options depend on a name in it.

    Parameters
    ----------
    key
        That holds the name.
    tables
        By name: a description and the options.
    what
        Description of the key.
    """
    properties = {
        name: {option: one.schema(or_null=or_null) for option, one in options.items()}
        for name, (_, options) in tables.items()
    }
    branches = [
        {
            "if": {"properties": {key: {"const": name}}, "required": [key]},
            "then": {
                "additionalProperties": False,
                "properties": {key: {}, **properties[name]},
                "required": [option for option, one in options.items() if one.required],
            },
        }
        for name, (_, options) in tables.items()
    ]
    names = {"enum": list(tables), "enumDescriptions": [text for text, _ in tables.values()]}
    return {
        "type": "object",
        "required": [key],
        "properties": {key: {"description": what, **names}},
        "allOf": branches,
    }
