"""Reference pages that are made from code: config keys, tables and commands.

    python docs/reference/write.py      # after a change of a key: writes the keys into config/README.md

A test compares `config/README.md` with what this makes. The site (`docs/hooks.py`) has the tables and the
commands as pages as well, made when it is built.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT / "workflow" / "schemas"
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from valleys.cli import arguments  # noqa: E402

README = ROOT / "config" / "README.md"
MARKS = ("<!-- keys -->\n", "<!-- /keys -->\n")


def config_readme() -> str:
    """Return the text of ``config/README.md``, with the keys that the schema has now between its marks."""
    before, rest = README.read_text(encoding="utf-8").split(MARKS[0])
    return before + MARKS[0] + "\n" + keys() + "\n" + MARKS[1] + rest.split(MARKS[1])[1]


# Config keys ----------------------------------------------------------------------------------------


def keys() -> str:
    """Return every key of a config, a table for each block, as Markdown."""
    whole = yaml.safe_load((SCHEMAS / "config.schema.yaml").read_text(encoding="utf-8"))
    lines = []
    for name, block in whole["properties"].items():
        block = _resolved(block, whole)
        lines += [f"### `{name}`", "", _sentence(block.get("description", "")), ""]
        entries, prefix = block, ""
        if "additionalProperties" in block and isinstance(block["additionalProperties"], dict):
            entries, prefix = _resolved(block["additionalProperties"], whole), "<name>."
        elif block.get("type") == "array" and "properties" in block["items"]:
            entries = _resolved(block["items"], whole)
        for one in (_resolved(one, whole) for one in block.get("anyOf", ())):
            entries = one if "properties" in one else entries
        rows = list(_rows(entries, whole, prefix))
        if rows:
            lines += ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
            lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
        if block.get("examples"):
            examples = block["examples"][: 2 if "anyOf" in block else 1]  # one of each kind of value
            lines += ["```yaml", f"{name}: {' # or '.join(map(_flow, examples))}", "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _rows(block: dict[str, Any], whole: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for each key of a block, those of blocks within it after it."""
    required = block.get("required", [])
    for name, entry in block.get("properties", {}).items():
        entry = _resolved(entry, whole)
        if "properties" in entry:
            yield f"`{prefix}{name}`", "a mapping", "", _cell(entry.get("description", ""))
            yield from _rows(entry, whole, f"{prefix}{name}.")
            continue
        default = "required" if name in required else _default(entry)
        yield f"`{prefix}{name}`", _cell(_value(entry, whole)), default, _cell(entry.get("description", ""))


def _resolved(entry: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """Return an entry with what it refers to in its own file, its own words first."""
    while str(entry.get("$ref", "")).startswith("#/$defs/"):
        rest = {key: value for key, value in entry.items() if key != "$ref"}
        entry = whole["$defs"][entry["$ref"].removeprefix("#/$defs/")] | rest
    return entry


_TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
_TYPES |= {"object": "a mapping"}


def _value(entry: dict[str, Any], whole: dict[str, Any]) -> str:
    """Return which values a key takes, in words."""
    if "enum" in entry:
        return ", ".join(f"`{value}`" for value in entry["enum"])
    for both in ("anyOf", "oneOf"):
        if both in entry:
            return " or ".join(_value(_resolved(one, whole), whole) for one in entry[both])
    kinds = entry.get("type", "string")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds == ["null"]:
        return "null"
    if kinds[0] == "array":
        items = _resolved(entry.get("items", {}), whole)
        return "a list of " + _value(items, whole).replace("text", "names") + (" or null" * ("null" in kinds))
    words = " or ".join(_TYPES[kind] for kind in kinds if kind != "null") + _bounds(entry)
    return words + (" or null" if "null" in kinds else "")


def _bounds(entry: dict[str, Any]) -> str:
    """Return the least value a number may have; the greatest ones are there against slips alone."""
    if "exclusiveMinimum" in entry:
        return f" above {entry['exclusiveMinimum']:g}"
    return f" from {entry['minimum']:g}" if "minimum" in entry else ""


def _default(entry: dict[str, Any]) -> str:
    if "default" not in entry:
        return ""
    value = entry["default"]
    return "" if value in ({}, []) else f"`{_flow(value)}`"


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    if not isinstance(value, dict | list):
        return json.dumps(value)
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip()


def _cell(text: str) -> str:
    return _sentence(text).replace("|", "\\|")


def _sentence(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


# Tables ---------------------------------------------------------------------------------------------


_TABLES = """# Tables

Every result is a Parquet table in `results/<name>/tables/`. Each table is checked against
`workflow/schemas/tables.yaml` when it is written, and this page is made from that file.

A value may be absent (null) where the type says *optional*.
"""


def tables() -> str:
    """Return the columns of every table as Markdown."""
    whole = yaml.safe_load((SCHEMAS / "tables.yaml").read_text(encoding="utf-8"))
    lines = [_TABLES]
    for name, table in whole.items():
        if name.startswith("_"):
            continue
        lines += [f"## `{name}`", "", _sentence(table["meaning"]), ""]
        lines += ["| column | type | unit | meaning |", "| --- | --- | --- | --- |"]
        for column in _flat(table["columns"]):
            kind = column["type"] + (", optional" if column.get("optional") else "")
            unit, meaning = column.get("unit", ""), _cell(column["meaning"])
            lines.append(f"| `{column['name']}` | {kind} | {unit} | {meaning} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _flat(columns: list[Any]) -> Iterator[dict[str, Any]]:
    for column in columns:
        if isinstance(column, list):
            yield from _flat(column)
        else:
            yield column


# Commands -------------------------------------------------------------------------------------------


_COMMANDS = """# Commands

In a clone, set `PYTHONPATH=workflow/scripts` and write `python -m valleys`. After `pip install '.[cli]'` the
command is `valleys`. A command exits with 0 when all went well. Bad input gives one line and another number.
"""


def command_help() -> str:
    """Return the help of each command as Markdown."""
    os.environ["COLUMNS"] = "100"
    sys.argv[0] = "valleys"
    top = arguments.parser()
    lines = [_COMMANDS, "```", top.format_help().rstrip(), "```", ""]
    (subparsers,) = [a for a in top._actions if isinstance(a, argparse._SubParsersAction)]
    for name, one in subparsers.choices.items():
        lines += [f"## `valleys {name}`", "", "```", one.format_help().rstrip(), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    README.write_text(config_readme(), encoding="utf-8")
