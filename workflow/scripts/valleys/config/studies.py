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

A variant's name is its base's and, for each key that differs, the key and the level: the name says what it is
(`variant_name`), and no two different blocks have one name.

Imported by the Snakefile, so nothing here imports torch.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from valleys.errors import ValleysError
from valleys.models.options import validate_spec

NAMED = ("dataset", "model", "recipe")
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
        ``factors`` (factor to list of levels), ``design`` and, for ``sample``, ``runs`` and ``first_run``.
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
        for run in range(spec["first_run"], spec["first_run"] + spec["runs"]):
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
        When a factor is no key of its block, a level no value for it, or two different blocks would have one
        name.
    """

    def __init__(self, config: Mapping[str, Any], models: Mapping[str, Any]) -> None:
        self.config = config
        self.models: dict[str, Any] = dict(models)
        self.recipes: dict[str, Any] = dict(config["recipes"])
        self.variants: dict[str, list[Variant]] = {}
        self._origins: dict[tuple[str, str], str] = {}  # what made a block that the config has not
        for study, spec in config["studies"].items():
            self._check(study, spec)
            found: dict[tuple[Any, ...], Variant] = {}
            for levels, seed in combinations(study, spec):
                seeds = tuple(spec.get("seeds", config["seeds"])) if seed is None else (seed,)
                variant = self._variant(study, spec, levels, seeds)
                found.setdefault((variant.dataset, variant.model, variant.recipe, seeds), variant)
            self.variants[study] = list(found.values())
            self._check_apart(study, spec)

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
            for level in levels:
                if not is_plain(level) or level != json.loads(json.dumps(level)):  # the second: not a number
                    raise ValleysError(
                        f"{where}.factors.{factor}: {level!r} cannot be a level; use numbers, text, true, "
                        "false, null, and lists and mappings of these with text for keys"
                    )
            if factor in NAMED:
                for level in levels:
                    self._named(f"{where}.factors.{factor}", factor, level)
            elif head == "model":
                self._model(f"{where}.factors", spec["model"], {factor.removeprefix("model."): levels[0]})
            else:
                self._recipe(f"{where}.factors", spec["recipe"], {factor.removeprefix("recipe."): levels[0]})
        called: dict[str, str] = {}
        for factor in spec["factors"]:
            other = called.setdefault(factor_name(factor), factor)
            if other != factor:
                raise ValleysError(
                    f"{where}.factors: {other!r} and {factor!r} would both be called "
                    f"{factor_name(factor)!r} in claims and figures; put them in two studies"
                )
        for factor, other in itertools.permutations(spec["factors"], 2):
            if factor.startswith(f"{other}.") and other not in NAMED:
                raise ValleysError(
                    f"{where}.factors: {factor!r} is a part of {other!r}, whose levels would set it too; "
                    "put them in two studies"
                )
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

    def _check_apart(self, study: str, spec: Mapping[str, Any]) -> None:
        """Check that no two levels are one number of two types: a study's rows are told apart by `==`."""
        for factor in spec["factors"]:
            seen: dict[Any, str] = {}
            for level in (variant.levels[factor] for variant in self.variants[study]):
                if seen.setdefault(hashable(level), _text(level)) != _text(level):
                    raise ValleysError(
                        f"config: studies.{study}.factors.{factor}: {level!r} is another level, or the "
                        "base's value, but for the type of a number; write both alike, or leave one out"
                    )

    def _named(self, where: str, key: str, name: Any) -> None:
        known = self.config[f"{key}s"]
        if not isinstance(name, str) or name not in known:
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
        model = self._store(
            where, "model", names["model"], *self._model(where, names["model"], parts["model"])
        )
        recipe = self._store(
            where, "recipe", names["recipe"], *self._recipe(where, names["recipe"], parts["recipe"])
        )
        full = {}
        for factor in spec["factors"]:
            head, _, key = factor.partition(".")
            if not key:
                full[factor] = names[factor]
                continue
            try:
                full[factor] = _get({"model": self.models[model], "recipe": self.recipes[recipe]}, factor)
            except (KeyError, TypeError):
                raise ValleysError(
                    f"{where}: {head} {names[head]!r} has no {factor}; put {head} and {factor} in two studies"
                ) from None
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
        return spec, {key: spec[key] for key in options if not _same(spec[key], own[key])}

    def _own_model(self, where: str, base: str, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the spec of a user's own network with other arguments, and those that differ."""
        own, spec = self.models[base], copy.deepcopy(self.models[base])
        for key, value in options.items():
            head, _, name = key.partition(".")
            if head != "kwargs" or name not in own["kwargs"]:
                known = ", ".join(f"model.kwargs.{name}" for name in own["kwargs"]) or "none"
                raise ValleysError(f"{where}: model.{key} is no argument of {base!r}; there are {known}")
            spec["kwargs"][name] = value
        # To a network of one's own 8 and 8.0 may be different things.
        return spec, {key: value for key, value in options.items() if _text(_get(own, key)) != _text(value)}

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
        return recipe, {key: value for key, value in keys.items() if not _same(_get(own, key), value)}

    def _store(self, where: str, kind: str, base: str, block: Any, changed: Mapping[str, Any]) -> str:
        """Keep a variant's block under its name, and return that."""
        if not changed:
            return base
        blocks = {"model": self.models, "recipe": self.recipes}[kind]
        name = variant_name(base, changed)
        if name in blocks and _text(blocks[name]) != _text(block):
            levels = ", ".join(f"{kind}.{key} {level!r}" for key, level in changed.items())
            other = self._origins.get((kind, name), f"config: {kind}s")
            raise ValleysError(
                f"{where}: {kind} {base!r} with {levels} would be called {name!r}, as another {kind} is "
                f"({other}); rename that one, or {base!r}"
            )
        if name not in blocks:
            self._origins[kind, name] = where
            blocks[name] = block
        return name


def _get(block: Any, path: str) -> Any:
    for key in path.split("."):
        block = block[key]
    return block


def _short(key: str) -> str:
    """Return a dotted key without what every key of its kind has: ``loss.name``, ``kwargs.width``."""
    return key.removeprefix("kwargs.").removesuffix(".name")


def factor_name(factor: str) -> str:
    """Return a factor's name for people: ``recipe.loss.name`` is the loss, ``recipe.swa.lr`` the swa lr."""
    return _short(factor.partition(".")[2] or factor).replace("_", " ").replace(".", " ")


_LONGEST = 150  # characters of a variant's name, as of any name in the schema
_WORD = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_TAKEN = re.compile(r"yes|no|.*-[0-9a-f]{8}")  # what other levels are called


def variant_name(base: str, changed: Mapping[str, Any]) -> str:
    """Return the name of a block that differs from another in some keys: it says which, and their levels.

    Parameters
    ----------
    base
        Name of the other block.
    changed
        Dotted key to level.
    """
    name = ".".join([base, *(f"{_short(key)}-{level_name(changed[key])}" for key in sorted(changed))])
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 9]}-{_digits(name)}"


def level_name(level: Any) -> str:
    """Return a level as text that may stand in a file name; different levels have different texts.

    Numbers, short lists of them, plain words in small letters, true (``yes``), false (``no``) and null
    (``None``) are written out. Anything else, a word that means one of these too, is written with letters and
    digits alone and with 8 digits that name the level. Levels of different types differ: 1, 1.0, ``"1"`` and
    true.
    """
    plain = _plain_name(level)
    if plain is not None:
        return plain
    text = _text(level)
    said = json.dumps(level, ensure_ascii=False, default=repr).lower()
    words = re.sub(r"[^a-z0-9]+", "-", said).strip("-")[:24].strip("-")
    return f"{words or 'level'}-{_digits(text)}"


def _plain_name(level: Any) -> str | None:
    """Return the text of a level that needs no digits beside it, None of others."""
    if level is None or isinstance(level, bool):
        return {True: "yes", False: "no", None: "None"}[level]
    if isinstance(level, int):
        text = str(level) if abs(level) < 10**20 else None
    elif isinstance(level, float):
        text = repr(level).replace("e+", "e") if math.isfinite(level) else None
    elif isinstance(level, str):
        text = level if _WORD.fullmatch(level) and not _TAKEN.fullmatch(level) else None
    elif isinstance(level, list) and 1 < len(level) <= 8:
        numbers = all(isinstance(item, int | float) and not isinstance(item, bool) for item in level)
        names = [_plain_name(item) for item in level] if numbers else [None]
        text = None if None in names else "x".join(map(str, names))
    else:
        text = None
    return text


@dataclass(frozen=True, order=True)
class Json:
    """A level that is true, false or a mapping, as JSON; no string equals it."""

    text: str


def hashable(level: Any) -> Any:
    """Return a level to group rows by: lists as tuples; mappings, and true, which equals 1, as JSON."""
    if isinstance(level, bool | Mapping):
        return Json(json.dumps(level, sort_keys=True))
    return tuple(map(hashable, level)) if isinstance(level, list) else level


def is_plain(value: Any) -> bool:
    """Whether a value comes back as it was from JSON, as which files keep it."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _text(value: Any) -> str:
    """Return what tells values apart, types included; the order of a mapping's keys has no part in it."""

    def typed(one: Any) -> Any:
        if isinstance(one, Mapping):
            return {f"{type(key).__name__} {key}": typed(item) for key, item in one.items()}
        return [typed(item) for item in one] if isinstance(one, list | tuple) else one

    return json.dumps(typed(value), sort_keys=True, default=repr)


def _same(one: Any, other: Any) -> bool:
    """Whether two values of a key of our own mean the same: 1 and 1.0 do, 1 and true do not."""
    both = [isinstance(v, int | float) and not isinstance(v, bool) for v in (one, other)]
    return one == other if all(both) else _text(one) == _text(other)


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
