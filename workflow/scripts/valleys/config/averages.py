"""Averages of iterates that a config asks for: which a cell has, their options, and mistakes in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from valleys.config.cells import Cell, Cells
from valleys.errors import ValleysError
from valleys.landscape.kinds import AVERAGES


def block_of(experiment: Cells, name: str) -> dict[str, Any]:
    """Return an average's block: ``kind``, the option of that kind, and ``most``."""
    spec = experiment.config["averages"][name]
    own = {key: spec.get(key, default) for key, default in AVERAGES[spec["kind"]].items()}
    return {"kind": spec["kind"], **own, "most": spec["most"]}


def averaged(experiment: Cells, recipe: str) -> int:
    """Return how many iterates SWA averages in a recipe: none of given weights."""
    if experiment.from_checkpoints(recipe):
        return 0
    return experiment.recipe(recipe)["swa"]["window"] or experiment.all_iterates(recipe)


def averages_of(experiment: Cells, cell: Cell) -> list[str]:
    """Return the averages of a cell: those wanted of it that its iterates are enough for.

    Each takes two at least. Given weights have no iterates.
    """
    there = averaged(experiment, cell.recipe)
    return [
        name
        for name in experiment.config["averages"]
        if name in experiment.wants(cell).averages and _least(block_of(experiment, name)) <= there
    ]


def check_averages(experiment: Cells) -> None:
    """Check that averages have the options of their kinds, and that entries of the grid have the iterates.

    Raises
    ------
    ValleysError
        For the first mistake.
    """
    for name, spec in experiment.config["averages"].items():
        _check_block(name, spec)
    for i, entry in enumerate(experiment.config["grid"]):
        recipes = entry["recipe"] if isinstance(entry["recipe"], list) else [entry["recipe"]]
        for name in entry.get("averages", ()):
            most = max(averaged(experiment, recipe) for recipe in recipes)
            least = _least(block_of(experiment, name))
            if least > most:
                given = all(map(experiment.from_checkpoints, recipes))
                why = (
                    "given weights have no iterates; leave it out"
                    if given
                    else f"it takes {least} iterates, and recipe {' and '.join(recipes)} averages {most}; "
                    f"leave it out, or have it take {most} or fewer"
                )
                raise ValleysError(f"config: grid.{i}.averages: {name!r}: {why}")


def _check_block(name: str, spec: Mapping[str, Any]) -> None:
    where, kind = f"config: averages.{name}", spec["kind"]
    if name == "swa":
        raise ValleysError(f"{where}: that is what the others are compared with; choose another name")
    own = AVERAGES[kind]
    for key in ("decay", "k", "weights"):
        if key in spec and key not in own:
            (of,) = (other for other, options in AVERAGES.items() if key in options)
            has = f"has {', '.join(own)}" if own else "has no option but most"
            raise ValleysError(f"{where}.{key}: is of kind {of}; kind {kind} {has}")
        if key in own and own[key] is None and key not in spec:
            raise ValleysError(f"{where}: kind {kind} needs {key}")
    if sum(weight > 0 for weight in spec.get("weights", (1, 1))) < 2:
        raise ValleysError(f"{where}.weights: {spec['weights']} is no average; two or more must be above 0")


def _least(block: Mapping[str, Any]) -> int:
    return {"last": block.get("k"), "weighted": len(block.get("weights") or ())}.get(block["kind"]) or 2
