"""Studies: variants of one base cell by factors, expanded from a few lines of config.

A factor is a key of the model (``model.activation``), of the recipe (``recipe.weight_decay``), or a choice
among named blocks (``dataset``, ``model``, ``recipe``). A design says which combinations of levels are run:

``one_at_a_time``
    The base, and each level of each factor by itself.
``full``
    Every combination.
``sample``
    ``runs`` combinations, each trained from a seed of its own. Run i takes, for each factor, the i-th of an
    endless sequence of random permutations of its levels (randomised blocks), so that levels are balanced,
    factors are independent of each other, and more runs leave those there are as they were. Main effects are
    then means over all other factors: a fraction of the full factorial's runs.

Imported by the Snakefile, so nothing here imports torch.
"""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from valleys.arch_options import validate_spec
from valleys.errors import ValleysError

NAMED = ("dataset", "model", "recipe")
DESIGNS = ("one_at_a_time", "full", "sample")
MOST = 100_000  # combinations, as the schema has it of `runs`


@dataclass(frozen=True)
class Variant:
    """One combination: names of its blocks, and the level of every factor of the study.

    Attributes
    ----------
    dataset, model, recipe
        Names; blocks that differ from the base's have names made of the base's and the levels.
    seeds
        Seeds to train it from.
    levels
        Factor to level.
    """

    dataset: str
    model: str
    recipe: str
    seeds: tuple[int, ...]
    levels: Mapping[str, Any]


def combinations(study: str, spec: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], int | None]]:
    """Yield the levels that each combination sets, and its own seed if the design gives it one.

    Parameters
    ----------
    study
        Name; the permutations of design ``sample`` are drawn from it and the factors' names.
    spec
        ``factors`` (factor to list of levels), ``design`` and, for ``sample``, ``runs``.
    """
    factors: Mapping[str, Sequence[Any]] = spec["factors"]
    if spec["design"] == "full":
        for levels in itertools.product(*factors.values()):
            yield dict(zip(factors, levels, strict=True)), None
    elif spec["design"] == "one_at_a_time":
        yield {}, None
        for factor, levels in factors.items():
            for level in levels:
                yield {factor: level}, None
    else:
        for run in range(spec["runs"]):
            yield {f: _blocked(f"{study}/{f}", levels, run) for f, levels in factors.items()}, run


def _blocked(stream: str, levels: Sequence[Any], run: int) -> Any:
    """Return the level of a run: blocks of all levels, each block in an order of its own."""
    block, at = divmod(run, len(levels))
    order = list(range(len(levels)))
    random.Random(f"{stream}/{block}").shuffle(order)  # seeded by text: SHA-512, the same everywhere
    return levels[order[at]]


class Expansion:
    """The variants of all studies, and the model and recipe blocks they need beside the config's own.

    Parameters
    ----------
    config
        With defaults filled in.
    models
        Checked specs of the config's models, by name.

    Attributes
    ----------
    models, recipes : dict
        Blocks by name: the config's own and the variants'.
    variants : dict
        Study to its list of `Variant`.

    Raises
    ------
    ValleysError
        When a factor is no key of its block, or a level no value for it.
    """

    def __init__(self, config: Mapping[str, Any], models: Mapping[str, Any]) -> None:
        self.config = config
        self.models: dict[str, Any] = dict(models)
        self.recipes: dict[str, Any] = dict(config["recipes"])
        self.variants: dict[str, list[Variant]] = {}
        for study, spec in config["studies"].items():
            self._check(study, spec)
            found: dict[tuple[Any, ...], Variant] = {}
            for levels, seed in combinations(study, spec):
                seeds = tuple(spec.get("seeds", config["seeds"])) if seed is None else (seed,)
                variant = self._variant(study, spec, levels, seeds)
                found.setdefault((variant.dataset, variant.model, variant.recipe, seeds), variant)
            self.variants[study] = list(found.values())

    def _check(self, study: str, spec: Mapping[str, Any]) -> None:
        where = f"config: studies.{study}"
        for key in NAMED:
            self._named(f"{where}.{key}", key, spec[key])
        for factor, levels in spec["factors"].items():
            head = factor.split(".")[0]
            if factor not in NAMED and (head not in ("model", "recipe") or factor == head + "."):
                raise ValleysError(
                    f"{where}.factors: {factor!r} is no factor; write dataset, model or recipe (names), "
                    "model.<option> or recipe.<key>"
                )
            if factor in NAMED:
                for level in levels:
                    self._named(f"{where}.factors.{factor}", factor, level)
            elif head == "model":
                self._model(f"{where}.factors", spec["model"], {factor.removeprefix("model."): levels[0]})
            else:
                self._recipe(f"{where}.factors", spec["recipe"], {factor.removeprefix("recipe."): levels[0]})
        count = math.prod(len(levels) for levels in spec["factors"].values())
        if spec["design"] == "full" and count > MOST:
            raise ValleysError(
                f"{where}.design: 'full' has {count} combinations; take 'sample', of at most {MOST}"
            )
        if spec["design"] == "sample" and not spec["factors"]:
            raise ValleysError(f"{where}.design: 'sample' needs factors to sample from")
        if spec["design"] == "sample" and "seeds" in spec:
            raise ValleysError(f"{where}.seeds: design 'sample' gives each run a seed of its own; drop it")
        if (spec["runs"] is None) == (spec["design"] == "sample"):
            missing = spec["runs"] is None
            raise ValleysError(
                f"{where}.runs: "
                + ("missing; design 'sample' needs it" if missing else "only for design 'sample'")
            )

    def _named(self, where: str, key: str, name: Any) -> None:
        known = self.config[f"{key}s"]
        if name not in known:
            raise ValleysError(f"{where}: {name!r} is not among {key}s; there are {', '.join(known)}")

    def _variant(
        self, study: str, spec: Mapping[str, Any], levels: Mapping[str, Any], seeds: tuple[int, ...]
    ) -> Variant:
        names = {key: levels.get(key, spec[key]) for key in NAMED}
        parts: dict[str, dict[str, Any]] = {"model": {}, "recipe": {}}
        for factor, level in levels.items():
            head, _, key = factor.partition(".")
            if key:
                parts[head][key] = level
        where = f"config: studies.{study}.factors"
        model = self._store(self.models, names["model"], *self._model(where, names["model"], parts["model"]))
        recipe = self._store(
            self.recipes, names["recipe"], *self._recipe(where, names["recipe"], parts["recipe"])
        )
        full = {}
        for factor in spec["factors"]:
            head, _, key = factor.partition(".")
            if not key:
                full[factor] = names[factor]
            else:
                full[factor] = _get({"model": self.models[model], "recipe": self.recipes[recipe]}, factor)
        return Variant(names["dataset"], model, recipe, seeds, full)

    def _model(self, where: str, base: str, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return a model's spec with other options, and those that differ from the base's."""
        own = self.models[base]
        if "factory" in own:
            return self._own_model(where, base, options)
        try:
            spec = validate_spec({**own, **options})
        except ValleysError as error:
            raise ValleysError(f"{where}: {error}") from None
        return spec, {key: spec[key] for key in options if spec[key] != own[key]}

    def _own_model(self, where: str, base: str, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the spec of a user's own network with other arguments, and those that differ."""
        own, spec = self.models[base], copy.deepcopy(self.models[base])
        for key, value in options.items():
            head, _, name = key.partition(".")
            if head != "kwargs" or name not in own["kwargs"]:
                known = ", ".join(f"model.kwargs.{name}" for name in own["kwargs"]) or "none"
                raise ValleysError(f"{where}: model.{key} is no argument of {base!r}; there are {known}")
            spec["kwargs"][name] = value
        return spec, {key: value for key, value in options.items() if _get(own, key) != value}

    def _recipe(self, where: str, base: str, keys: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return a recipe with other values of some keys, and those that differ from the base's."""
        own = self.recipes[base]
        recipe = copy.deepcopy(dict(own))
        for key, value in keys.items():
            *way, last = key.split(".")
            at = recipe
            for step in way:
                at = at.get(step) if isinstance(at, dict) else None
            if not isinstance(at, dict) or last not in at:
                raise ValleysError(
                    f"{where}: recipe.{key} is no key of recipe {base!r}; keys: {', '.join(own)}"
                )
            at[last] = value
        return recipe, {key: value for key, value in keys.items() if _get(own, key) != value}

    @staticmethod
    def _store(blocks: dict[str, Any], base: str, block: Any, changed: Mapping[str, Any]) -> str:
        if not changed:
            return base
        name = ".".join([base, *(f"{_short(key)}-{level_name(changed[key])}" for key in sorted(changed))])
        blocks[name] = block
        return name


def _get(block: Any, path: str) -> Any:
    for key in path.split("."):
        block = block[key]
    return block


def _short(key: str) -> str:
    """Return the part of a dotted key that says what it is."""
    parts = key.split(".")
    return parts[-2] if parts[-1] == "name" and len(parts) > 1 else parts[-1]


def factor_name(factor: str) -> str:
    """Return a factor's name for people: ``recipe.loss.name`` is the loss."""
    return _short(factor).replace("_", " ")


def level_name(level: Any) -> str:
    """Return a level as text that may stand in a file name."""
    if isinstance(level, bool):
        return "yes" if level else "no"
    if isinstance(level, float):
        return f"{level:g}"
    if isinstance(level, list):
        return "x".join(level_name(item) for item in level)
    return str(level)
