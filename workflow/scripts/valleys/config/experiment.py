"""An experiment: the config expanded into cells, and what is made of each.

Imported by the Snakefile, so nothing here imports torch.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from valleys import factories
from valleys.config.schema import (
    WILDCARD,
    Config,
    check,
    check_plain,
    ignores_case,
    input_path,
    read_yaml,
    with_defaults,
)
from valleys.config.studies import Expansion, is_plain
from valleys.config.versions import VERSIONS
from valleys.data.options import IMAGE_SUFFIXES, image_shape, validate_dataset
from valleys.errors import ValleysError, did_you_mean
from valleys.landscape.kinds import COMPUTED, GROUPS, KINDS, NEEDS, SINGLE
from valleys.models.options import validate_spec
from valleys.storage import files
from valleys.storage.weights import read_about

SOLUTIONS = ("sgd", "swa", "descent")
NOT_SOLUTIONS = ("iterate", "iterates")  # what tables and this module call those
PLACES = ("dataset", "model", "recipe", "seed")  # filled in the paths of checkpoints
CELL_TABLES = ("training", "solutions", "directions", "curves", "asymmetry", "theory_measured", "shift")
CELL_TABLES += ("interpolation", "planes", "plane_points")
TOY_TABLES = ("toy_2d", "toy_2d_curves", "toy_2d_surface")
THEORY_TABLES = ("theory_average", "theory_gain")
TARGETS = ("prevalence", "swa", "shift", "sign", "planes", "toy", "theory", "gain", "all")
#: Names of rules, which a study's target shares its name space with (`valleys.costs` has a cost of each).
RULES = ("prepare_dataset", "train_sgd", "average", "refresh_bn", "import_solution", "descend", "evaluate")
RULES += ("directions", "probe", "connect", "interpolate", "plane", "detect", "measure_gain", "aggregate")
RULES += ("study", "sensitivity", "claims", "figures", "report", "toy_2d", "simulate_theory")
LINES = "_lines"  # ends the name of a study's table of lines
#: What no computer does in a lifetime, by what is counted: more of it is a slip.
MOST = {
    "curve points of a probe": 10**8,
    "points of a line": 10**6,
    "steps of SGD": 10**14,
    "shifts": 10**12,
    "data of the toy": 10**8,
    "steps of the toy": 10**12,
    "points of the toy's curves": 10**7,
}


def load(path: str | Path) -> dict[str, Any]:
    """Read a config file, as it stands there: neither checked nor with defaults.

    Raises
    ------
    ValleysError
        When it cannot be read, is no YAML mapping in UTF-8, or has a key twice.
    """
    where = f"config file {path}"
    files.check_regular(path, "config file", "give the path of a YAML file")
    check_plain(path)
    try:
        found = read_yaml(Path(path).read_text(encoding="utf-8"), where)
    except UnicodeDecodeError as error:
        raise ValleysError(f"{where} cannot be read: it is not UTF-8 ({error}); save it as UTF-8") from error
    except OSError as error:
        raise ValleysError(
            f"{where} cannot be read ({error.strerror}); give the path of a YAML file"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()).replace('in "<unicode string>", ', "in ")
        tabs = "; YAML is indented by spaces, not tabs" if r"'\t'" in reason else ""
        raise ValleysError(f"{where} cannot be read: it is no YAML ({reason}){tabs}") from error
    if not isinstance(found, dict):
        what = "is empty" if found is None else f"holds a {type(found).__name__}"
        raise ValleysError(f"{where} {what}; it must be a mapping of keys, as config.yaml is")
    return found


def no_such_weights(key: str, written: str, path: str) -> str:
    """Return the line on given weights that are not there.

    Parameters
    ----------
    key, written
        Of the config.
    path
        What `written` stands for: filled in, of a cell, with ``~`` expanded.
    """
    meant = "" if path == written else f", here {path}"
    where = "" if Path(path).is_absolute() else f" (seen from {Path.cwd()})"
    return f"config: {key}: {written}{meant}: there is no such file{where}; give the path of a state dict"


@dataclass(frozen=True, order=True)
class Cell:
    """One trained network: data set x model x recipe x seed (all but the seed by name)."""

    dataset: str
    model: str
    recipe: str
    seed: int

    @property
    def path(self) -> str:
        """The cell's folder below ``results/<name>/cells``."""
        return f"{self.dataset}/{self.model}/{self.recipe}/seed-{self.seed}"

    @property
    def kin(self) -> tuple[str, str, str]:
        """All but the seed."""
        return self.dataset, self.model, self.recipe

    def columns(self) -> dict[str, Any]:
        """Return the columns that name the cell in every table."""
        return {"dataset": self.dataset, "model": self.model, "recipe": self.recipe, "seed": self.seed}


@dataclass
class Wanted:
    """What is to be made of a cell: names of solutions, probes and lines."""

    solutions: set[str] = field(default_factory=set)
    probes: set[str] = field(default_factory=set)
    lines: set[str] = field(default_factory=set)

    def add(self, solutions: Iterable[str], probes: Iterable[str], lines: Iterable[str]) -> None:
        """Want these as well."""
        self.solutions.update(solutions)
        self.probes.update(probes)
        self.lines.update(lines)


def chosen_solutions(listed: Iterable[str], there: Iterable[str]) -> list[str]:
    """Return the solutions that a list of names takes of those `there`.

    A list that has none of the user's own names takes in all of those: given weights are looked at without
    an edit of each probe. One that has some is taken as it is.
    """
    listed, there = list(listed), list(there)
    return [*(name for name in listed if name in there), *([] if _own(listed) else _own(there))]


def _own(names: Iterable[str]) -> list[str]:
    return [name for name in names if name not in SOLUTIONS]


def _laid_by(plane: Config) -> list[str]:
    """Return the solutions that a plane's block names."""
    return list(plane["through"] or ()) + ([plane["at"]] if plane["span"] else [])


def _but_later(block: Mapping[str, Any]) -> dict[str, Any]:
    """Leave defaults of later keys out of a job's params: those of jobs done before there was a choice."""
    later = {"precision": "fp32", "adaptive": False}
    return {key: value for key, value in block.items() if key not in later or value != later[key]}


def with_algorithms(block: Mapping[str, Any]) -> dict[str, Any]:
    """Note in a probe's block which algorithms it takes that others do not.

    ``image_errors``: it looks at a subset of images, so that its curves have their errors. ``next_point``:
    it is adaptive. The numbers are like those of `valleys.config.versions`, but of such probes alone.
    """
    subset = block["train_images"] is not None or block["test_images"] is not None
    more = {"image_errors": 1} if subset else {}
    return {**block, **more, **({"next_point": 1} if block.get("adaptive") else {})}


class Experiment:
    """A checked config with defaults filled in: its cells and the slice each stage depends on.

    Parameters
    ----------
    config
        As returned by Snakemake's ``validate``.

    Raises
    ------
    ValleysError
        When names do not resolve or values contradict each other.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.name: str = config["name"]
        self.root = f"results/{self.name}"
        self.datasets = self._named("datasets", validate_dataset)
        expansion = Expansion(config, self._named("models", lambda name, spec: validate_spec(spec)))
        self.models, self.recipes = expansion.models, expansion.recipes
        self.checkpoints: dict[str, Any] = config["checkpoints"]
        self._codes: dict[str, str | None] = {}
        self._digests: dict[str, list[str]] = {}
        self._check_factories()
        self._check_names()
        self._check_paths()
        self.wanted: dict[Cell, Wanted] = {}
        self.cells = sorted(self._cells())
        self.studies = {
            study: self._study(config["studies"][study], variants)
            for study, variants in expansion.variants.items()
        }
        self._check_solutions()
        self._check_recipes()
        self._check_shifts()
        self._check_windows()
        self._check_probes()
        self._check_directions()
        self._check_lines()
        self._check_planes()
        self._check_batches_of_one()
        self._check_given()
        self._check_theory()

    def _named(self, block: str, check_one: Any) -> dict[str, Any]:
        checked = {}
        for name, spec in self.config[block].items():
            try:
                checked[name] = check_one(name, spec)
            except ValleysError as error:
                where = f"{block}.{name}"
                text = str(error) if str(error).startswith(where) else f"{where}: {error}"
                raise ValleysError(f"config: {text}") from None
        return checked

    def _check_factories(self) -> None:
        """Check that the modules of all factories are there and can be parsed; nothing is imported."""
        for block, specs in (("models", self.models), ("datasets", self.datasets)):
            for name, spec in specs.items():
                try:
                    if "factory" in spec and not is_plain(spec["kwargs"]):
                        raise ValleysError(
                            f"kwargs: {spec['kwargs']!r} holds more than numbers, text, true, false, null, "
                            "and lists and mappings of these with text for keys, which is what files keep"
                        )
                    self._code(spec)
                except ValleysError as error:
                    raise ValleysError(f"config: {block}.{name}: {error}") from None

    def _code(self, spec: Mapping[str, Any]) -> dict[str, str]:
        """Return ``code``, naming the source of a block's factory; nothing of a block without one."""
        if "factory" not in spec:
            return {}
        factory = spec["factory"]
        if factory not in self._codes:
            self._codes[factory] = factories.version(factory)
        code = self._codes[factory]
        return {} if code is None else {"code": code}

    def factory_code(self, model: str) -> str | None:
        """Return what names the code of a model's factory (`factories.version`); None of an architecture."""
        return self._code(self.models[model]).get("code")

    def _cells(self) -> Iterator[Cell]:
        seen: set[Cell] = set()
        for i, entry in enumerate(self.config["grid"]):
            axes = []
            for key in ("dataset", "model", "recipe"):
                names = entry[key] if isinstance(entry[key], list) else [entry[key]]
                known = list(self.config[key + "s"])
                known += list(self.checkpoints) if key == "recipe" else []
                for name in names:
                    if name not in known:
                        raise ValleysError(
                            f"config: grid.{i}.{key}: {name!r} is not among {key}s"
                            f"{did_you_mean(name, known)}; there are {', '.join(known)}"
                        )
                axes.append(names)
            for values in itertools.product(*axes, entry.get("seeds", self.config["seeds"])):
                cell = Cell(*values)
                if self.is_given(cell.recipe) and not self._has_file(cell, entry):
                    continue
                self._want(cell, entry)
                if cell not in seen:
                    seen.add(cell)
                    yield cell

    def is_given(self, recipe: str) -> bool:
        """Whether a recipe is the name of checkpoints: its cells are not trained."""
        return recipe in self.checkpoints

    def available(self, cell: Cell) -> list[str]:
        """Return the solutions that a cell can have, in order: the three, or those given."""
        if not self.is_given(cell.recipe):
            return list(SOLUTIONS)
        given = self.checkpoints[cell.recipe]["solutions"]
        return [*(name for name in SOLUTIONS if name in given), *_own(given)]

    @property
    def own_names(self) -> list[str]:
        """The names of the user's own that checkpoints have for solutions, in the order of the config."""
        return list(dict.fromkeys(n for block in self.checkpoints.values() for n in _own(block["solutions"])))

    def _given_text(self, cell: Cell, solution: str) -> str:
        """Return where a solution of a cell with given weights comes from: a file, and what of it."""
        text = self.checkpoints[cell.recipe]["solutions"][solution]
        for key, value in cell.columns().items():
            text = text.replace(f"{{{key}}}", str(value))
        return os.path.expanduser(text)  # noqa: PTH111 (the text stays as it is: Snakemake compares it)

    def checkpoint(self, cell: Cell, solution: str) -> str:
        """Return the file that a solution of a cell with given weights comes from."""
        return str(files.checkpoint_file(files.split_choice(self._given_text(cell, solution))[0]))

    def checkpoint_shards(self, cell: Cell, solution: str) -> list[str]:
        """Return the files that an index of shards names; none for a checkpoint in one file.

        Raises
        ------
        ValleysError
            When the checkpoint is there and no regular file, or no sound index.
        """
        path = Path(self.checkpoint(cell, solution))
        if not os.path.lexists(path):
            return []
        files.check_regular(path, "checkpoint")  # Snakemake opens it too
        return sorted({str(shard) for shard in files.shards(path).values()})

    def checkpoint_choice(self, cell: Cell, solution: str) -> dict[str, str]:
        """Return ``choice``: what is read of a checkpoint with several sets of weights, from ``#`` on."""
        choice = files.split_choice(self._given_text(cell, solution))[1]
        return {} if choice is None else {"choice": f"#{choice}"}

    def checkpoint_digest(self, cell: Cell, solution: str) -> dict[str, str]:
        """Return ``original``: what names the contents of a checkpoint's files (`files.digest`).

        Of one that has been read and is gone, what the solution that was made of it says.
        """
        path = Path(self.checkpoint(cell, solution))
        if path.is_file():
            found = [files.digest(path), *map(files.digest, self.checkpoint_shards(cell, solution))]
            return {"original": files.fingerprint(found)}
        made = Path(self.root) / "cells" / cell.path / f"{solution}.safetensors"
        known = read_about(made).get("original")
        return {"original": known} if known else {}

    def _same_weights(self, cell: Cell, solution: str, other: Cell, other_solution: str) -> str | None:
        """Return why two solutions are sure to be the same weights, if they are."""
        ends = ((cell, solution), (other, other_solution))
        if all(self.is_given(at.recipe) and name in self.available(at) for at, name in ends):
            chosen = [files.split_choice(self._given_text(*end)) for end in ends]
            (first, at), (second, there) = ((os.path.realpath(path), choice) for path, choice in chosen)
            if (first, at) == (second, there):
                return (
                    f"both are read from {self._given_text(cell, solution)}; give two files, or with "
                    "file.pt#key two sets of weights in one"
                )
        if cell == other and {solution, other_solution} == {"sgd", "swa"} and not self.is_given(cell.recipe):
            recipe = self.recipes[cell.recipe]
            swa, made = recipe["swa"], self.all_iterates(cell.recipe)
            if min(swa["window"] or made, made) == 1 and not (recipe["epochs"] - swa["start"]) % swa["every"]:
                return (
                    f"swa of recipe {cell.recipe} is the mean of one iterate, the last epoch's, which is "
                    "sgd; lower swa.start or raise swa.window"
                )
        return None

    def _has_file(self, cell: Cell, entry: Mapping[str, Any]) -> bool:
        """Whether a cell has weights of its own: without {seed} in their paths, the first seed has them."""
        texts = self.checkpoints[cell.recipe]["solutions"].values()
        return any("{seed}" in text for text in texts) or cell.seed == next(
            iter(entry.get("seeds", self.config["seeds"]))
        )

    def _want(self, cell: Cell, entry: Mapping[str, Any]) -> None:
        """Note what an entry of the grid, or a study, wants of a cell."""
        probes, lines = (entry.get(key, list(self.config[key])) for key in ("probes", "lines"))
        solutions = chosen_solutions(entry.get("solutions", SOLUTIONS), self.available(cell))
        self.wanted.setdefault(cell, Wanted()).add(solutions, probes, lines)

    def _study(self, spec: Mapping[str, Any], variants: list[Any]) -> dict[Cell, Mapping[str, Any]]:
        """Return the cells of a study, each with the levels of its factors."""
        found: dict[Cell, Mapping[str, Any]] = {}
        for variant in variants:
            for seed in variant.seeds:
                cell = Cell(variant.dataset, variant.model, variant.recipe, seed)
                self._want(cell, spec)
                found[cell] = variant.levels
        return found

    def _check_names(self) -> None:
        """Check that what grid entries and studies choose from exists, and that studies' names are free."""
        entries = [(f"grid.{i}", entry) for i, entry in enumerate(self.config["grid"])]
        entries += [(f"studies.{name}", spec) for name, spec in self.config["studies"].items()]
        for where, entry in entries:
            for key in ("probes", "lines"):
                known = list(self.config[key])
                for name in entry.get(key, ()):
                    if name not in known:
                        raise ValleysError(
                            f"config: {where}.{key}: {name!r} is not among {key}{did_you_mean(name, known)}; "
                            f"there are {', '.join(known) or 'none'}"
                        )
        for name in self.checkpoints:
            if name in self.recipes:
                raise ValleysError(f"config: checkpoints: {name!r} is a recipe too; choose another name")
        for block in ("datasets", "models"):
            for name in self.config[block]:
                if name.endswith((".log", ".tsv")):  # names a folder, beside files that are called so
                    raise ValleysError(
                        f"config: {block}: {name!r} ends as log files and benchmarks do; choose another name"
                    )
        self._check_case()
        for name in self.config["studies"]:
            if name.endswith(LINES):
                raise ValleysError(
                    f"config: studies: {name!r} ends as the table of a study's lines does; choose another"
                )
        taken = {*CELL_TABLES, *TOY_TABLES, *THEORY_TABLES, *TARGETS, *RULES}
        for name in self.config["studies"]:
            if name in taken or name.removesuffix(LINES) in {*taken, *self.config["studies"]} - {name}:
                raise ValleysError(
                    f"config: studies: {name!r} is the name of a table or target, or of a rule; choose "
                    "another"
                )

    def _check_case(self) -> None:
        """Check that no two names are one file on a disk that takes capital letters for small ones."""
        if not ignores_case(Path.cwd()):
            return
        blocks = {key: self.config[key] for key in ("datasets", "probes", "lines", "planes")}
        blocks |= {"models": self.models, "recipes": [*self.recipes, *self.checkpoints]}
        for block, names in (*blocks.items(), ("checkpoints: solutions", [*SOLUTIONS, *self.own_names])):
            seen: dict[str, str] = {}
            for name in names:
                other = seen.setdefault(name.lower(), name)
                if other != name:
                    raise ValleysError(
                        f"config: {block}: {other!r} and {name!r} are one file name on this disk; rename one"
                    )

    def _check_paths(self) -> None:
        """Check that no path has braces that Snakemake would take for a wildcard."""
        for name, spec in self.datasets.items():
            for key in ("train", "test", "files"):
                value = spec.get(key) or []
                for path in [value] if isinstance(value, str) else value:
                    try:
                        input_path(path)
                    except ValleysError as error:
                        raise ValleysError(f"config: datasets.{name}.{key}: {error}") from None
        for name, block in self.checkpoints.items():
            for solution, path in block["solutions"].items():
                for found in WILDCARD.findall(path):
                    if found[1:-1] not in PLACES and WILDCARD.search(os.path.relpath(path)):
                        raise ValleysError(
                            f"config: checkpoints.{name}.solutions.{solution}: {path}: {found} is not filled "
                            f"in; {', '.join(f'{{{key}}}' for key in PLACES)} are, and a file's name has no "
                            "other braces"
                        )

    def _check_solutions(self) -> None:
        """Check that solutions named anywhere are the workflow's or given ones, which some cell has."""
        for name, block in self.checkpoints.items():
            for taken in set(NOT_SOLUTIONS) & set(block["solutions"]):
                raise ValleysError(
                    f"config: checkpoints.{name}.solutions: {taken!r} is what the workflow calls the weights "
                    "that are averaged; choose another name"
                )
        for i, entry in enumerate(self.config["grid"]):
            self._check_known(f"grid.{i}.solutions", entry.get("solutions", ()))
        for cell in self.cells:
            if not self.solutions_of(cell):
                raise ValleysError(
                    f"config: grid: solutions leave none for recipe {cell.recipe!r}; "
                    f"it has {', '.join(self.available(cell))}"
                )
        for name, probe in self.config["probes"].items():
            self._check_known(f"probes.{name}.solutions", probe["solutions"])
        for name, line in self.config["lines"].items():
            for end in ("start", "stop"):
                self._check_known(f"lines.{name}.{end}", [line[end]])
        for name, plane in self.config["planes"].items():
            for i, solution in enumerate(plane["through"] or ()):
                self._check_known(f"planes.{name}.through.{i}", [solution])
            self._check_known(f"planes.{name}.at", [plane["at"]])

    def _check_known(self, where: str, names: Iterable[str]) -> None:
        known = [*SOLUTIONS, *self.own_names]
        for name in names:
            if name not in known:
                raise ValleysError(
                    f"config: {where}: {name!r} is no solution{did_you_mean(name, known)}; "
                    f"choose from {', '.join(known)}"
                )
            if name not in SOLUTIONS and not any(name in self.available(cell) for cell in self.cells):
                recipes = [r for r, block in self.checkpoints.items() if name in block["solutions"]]
                raise ValleysError(
                    f"config: {where}: no cell has {name!r}; add recipe {recipes[0]!r} to the grid"
                )

    def _check_recipes(self) -> None:
        variants = {k: v for k, v in self.recipes.items() if k not in self.config["recipes"]}
        check({**self.config, "recipes": {**self.config["recipes"], **variants}})
        self.recipes |= with_defaults({"recipes": copy.deepcopy(variants)})[
            "recipes"
        ]  # of levels that are blocks
        for name, recipe in self.recipes.items():
            if "start_from" in recipe:
                self._check_start(name)
            swa, where = recipe["swa"], f"config: recipes.{name}"
            if swa["every"] > recipe["epochs"]:
                raise ValleysError(
                    f"{where}.swa.every: {swa['every']} keeps no iterate in {recipe['epochs']} epochs; it "
                    f"must be at most {recipe['epochs']}"
                )
            if swa["start"] + swa["every"] > recipe["epochs"]:
                raise ValleysError(
                    f"{where}.swa.start: {swa['start']} leaves no iterate to average in {recipe['epochs']} "
                    f"epochs; it must be at most {recipe['epochs'] - swa['every']}"
                )
            kept = self.all_iterates(name)
            if swa["window"] is not None and swa["window"] > kept:
                raise ValleysError(
                    f"{where}.swa.window: {swa['window']} is more than the {kept} iterates kept"
                )
            for key, momentum in (("", recipe["momentum"]), ("descent.", recipe["descent"]["momentum"])):
                if recipe["nesterov"] and momentum == 0:
                    raise ValleysError(f"{where}.nesterov: needs {key}momentum above 0")

    def _check_batches_of_one(self) -> None:
        """Check that batch norm on vectors gets two images or more; jobs find the rest."""
        for cell in self.trained_cells:
            model = self.models[cell.model]
            if model.get("arch") != "mlp" or model["norm"] != "batch" or not model["hidden"]:
                continue
            ones = [
                f"{key}.train_images"
                for key, block in self._measured(cell)
                if block["train_images"] == 1 and block["bn"] == "refreshed"
            ]
            if not self.is_given(cell.recipe) and self.recipe(cell.recipe)["batch_size"] == 1:
                ones.append(f"recipes.{cell.recipe}.batch_size")
            if ones:
                raise ValleysError(
                    f"config: {ones[0]}: 1 gives the batch norm of model {cell.model} one value a channel, "
                    "of which it can take no statistics; choose 2 or more"
                )

    def _measured(self, cell: Cell) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield key and block of all that a cell is measured along; nothing of one that is trained only."""
        if cell in self.wanted:
            for key, of in (("probes", self.probes_of), ("lines", self.lines_of), ("planes", self.planes_of)):
                yield from ((f"{key}.{name}", self.config[key][name]) for name in of(cell))

    def _check_shifts(self) -> None:
        """Check that images reflect less than all of them, where their size is known."""
        for cell in self.trained_cells:
            side = image_shape(self.datasets[cell.dataset])[1]
            augment = {} if self.is_given(cell.recipe) else self.recipes[cell.recipe]["augment"]
            if side and augment.get("pad_mode") == "reflect" and augment["shift"] >= side:
                raise ValleysError(
                    f"config: recipes.{cell.recipe}.augment.shift: {augment['shift']}; to pad by reflection "
                    f"it must be below the side of the images of data set {cell.dataset}, {side}"
                )

    def _check_start(self, name: str) -> None:
        """Check that the recipes which `name` starts from, one after the other, exist and end somewhere."""
        where, known = f"config: recipes.{name}.start_from.recipe", list(self.recipes)
        passed = [name]
        while start := self.recipes[passed[-1]].get("start_from"):
            if start["recipe"] in self.checkpoints:
                raise ValleysError(
                    f"{where}: {start['recipe']!r} is of checkpoints; choose a recipe that is trained here"
                )
            if start["recipe"] not in known:
                raise ValleysError(
                    f"{where}: {start['recipe']!r} is not among recipes"
                    f"{did_you_mean(start['recipe'], known)}; there are {', '.join(known)}"
                )
            if start["recipe"] in passed:
                raise ValleysError(f"{where}: goes in a circle: {' -> '.join([*passed, start['recipe']])}")
            passed.append(start["recipe"])

    def _check_windows(self) -> None:
        zeta_max, min_span = (self.config["asymmetry"][key] for key in ("zeta_max", "min_span"))
        if min_span > (1 - zeta_max) * (1 + 1e-9):
            raise ValleysError(
                f"config: asymmetry.min_span: {min_span} leaves no window beside zeta_max {zeta_max}; "
                f"it must be at most {1 - zeta_max:g}"
            )
        half = math.ceil(1 / zeta_max - 1e-9)  # the first of so many offsets is at most zeta_max R
        for name, probe in self.config["probes"].items():
            if probe["points"] < 2 * half + 1:
                raise ValleysError(
                    f"config: probes.{name}.points: {probe['points']} put the first offset beyond zeta_max "
                    f"{zeta_max} of the radius; there must be at least {2 * half + 1}"
                )
        toy = self.config["toy_2d"]
        steps = toy["reach"] / toy["step"]
        if round(steps) < half:
            raise ValleysError(
                f"config: toy_2d.step: {toy['step']} is beyond zeta_max {zeta_max} of the reach; "
                f"it must be at most {toy['reach'] / half:g}"
            )
        if abs(steps - round(steps)) > 1e-6 * steps:  # as `toy` has it
            raise ValleysError(
                f"config: toy_2d.step: {toy['step']}: the reach, {toy['reach']}, is not a whole number of "
                "steps; change one of them"
            )

    def _check_probes(self) -> None:
        for name, probe in self.config["probes"].items():
            where, kinds = f"config: probes.{name}", list(KINDS)
            if probe["kind"] not in kinds:
                raise ValleysError(
                    f"{where}.kind: unknown kind {probe['kind']!r}{did_you_mean(probe['kind'], kinds)}; "
                    f"choose from {', '.join(kinds)}"
                )
            if probe["group"] in ("layer:", "layer:<name>"):
                raise ValleysError(
                    f"{where}.group: {probe['group']!r} names no layer; write one, as in layer:fc"
                )
            if probe["group"] not in GROUPS and not probe["group"].startswith("layer:"):
                raise ValleysError(
                    f"{where}.group: unknown group {probe['group']!r}"
                    f"{did_you_mean(probe['group'], list(GROUPS))}; "
                    f"choose from {', '.join(GROUPS)}"
                )
            if probe["kind"] == "filter" and probe["group"].startswith("bn"):
                raise ValleysError(
                    f"{where}: kind filter leaves group {probe['group']} at zero; choose another kind"
                )
            self._check_count(where, "curve points of a probe", probe["n"] * probe["points"], "n * points")
            if probe["points"] % 2 == 0:
                raise ValleysError(
                    f"{where}.points: {probe['points']} is even; it must be odd, to include offset 0"
                )
            if probe["radius"] is not None and probe["relative"] is not None:
                raise ValleysError(f"{where}: radius and relative both fix the radius; give one of them")
            refreshed = self.config["bn_refresh"]["method"]
            if probe["slopes"] == "exact" and probe["bn"] == "refreshed" and refreshed == "streaming":
                raise ValleysError(
                    f"{where}.slopes: exact needs bn_refresh.method exact where bn is refreshed; "
                    "the loss of method streaming hangs on the batches"
                )
            if probe["slopes"] == "exact" and probe["precision"] != "fp32":
                raise ValleysError(
                    f"{where}.precision: {probe['precision']} has no exact slopes; "
                    "choose precision fp32 or slopes: differences"
                )
            if probe["kind"] == "to_seed" and not any(self._other_seeds(cell) for cell in self.all_cells):
                raise ValleysError(
                    f"{where}: kind to_seed needs a second seed of some cell; add one to seeds"
                )

    def _check_directions(self) -> None:
        """Check that recipes keep the iterates that probes take components of."""
        for cell in self.all_cells:
            for name in self.probes_of(cell):
                probe, kept = self.config["probes"][name], self.all_iterates(cell.recipe)
                if probe["kind"] == "pca" and kept <= probe["n"]:
                    raise ValleysError(
                        f"config: probes.{name}.n: recipe {cell.recipe} keeps {kept} iterate(s); "
                        f"{probe['n']} component(s) need at least {probe['n'] + 1}"
                    )

    def _check_lines(self) -> None:
        recipes = [*self.recipes, *self.checkpoints]
        for name, line in self.config["lines"].items():
            where, recipe = f"config: lines.{name}", line["stop_recipe"]
            if recipe is not None and recipe not in recipes:
                raise ValleysError(
                    f"{where}.stop_recipe: {recipe!r} is not among recipes{did_you_mean(recipe, recipes)}; "
                    f"there are {', '.join(recipes)}"
                )
            if line["start"] == line["stop"] and not self.leaves_cell(name):
                raise ValleysError(
                    f"{where}: start and stop are both {line['start']!r} of one cell; change one of them, or "
                    "give stop_recipe or stop_seed"
                )
            if line["path"] != "linear":
                self._check_trained(where, line)
            length = (3 if line["last"] is None else line["last"]) - (line["first"] or -2)
            counted = math.ceil(length * line["divisions"])
            self._check_count(where, "points of a line", counted, "(last - first) * divisions")
            if all(self.stop_cell(cell, name) is None for cell in self.all_cells):
                if recipe is None:
                    reason = "no cell has one of a greater seed beside it; add a seed"
                else:
                    seed = "a greater seed" if line["stop_seed"] == "next" else "the same seed"
                    reason = (
                        f"no cell of another recipe has one of recipe {recipe!r} with its data set and model "
                        f"and {seed}; add it to the grid"
                    )
                raise ValleysError(f"{where}: {reason}")
            own = _own([line["start"], line["stop"]])
            if own and not any(name in self.lines_of(cell) for cell in self.all_cells):
                raise ValleysError(
                    f"{where}: no line runs from {line['start']!r} to {line['stop']!r}: {self._who_has(own)}"
                )

    @staticmethod
    def _check_count(where: str, what: str, count: int, keys: str) -> None:
        """Check that a product of keys, each of which may be large, is not absurd."""
        if count > MOST[what]:
            raise ValleysError(f"{where}: {keys} is {count}; at most {MOST[what]} {what} are taken")

    def _who_has(self, names: Iterable[str]) -> str:
        """Say what the recipes have that have one of some solutions."""
        cells = {cell.recipe: self.available(cell) for cell in self.cells}
        told = {r: there for r, there in cells.items() if set(names) & set(there)}
        return "; ".join(f"{recipe} has {', '.join(there)}" for recipe, there in told.items())

    @staticmethod
    def _check_trained(where: str, line: Mapping[str, Any]) -> None:
        """Check the keys of a line whose path has trained bends."""
        for key, end in (("first", 0), ("last", 1)):
            if line[key] not in (None, end):
                raise ValleysError(
                    f"{where}.{key}: {line[key]} is beyond the ends of a {line['path']} path, which runs "
                    "from t = 0 to t = 1; leave the key out"
                )
        if line["bn"] != "refreshed":
            raise ValleysError(
                f"{where}.bn: {line['bn']!r} would take one end's statistics for a trained path; "
                "use 'refreshed'"
            )

    def _check_planes(self) -> None:
        for name, plane in self.config["planes"].items():
            where = f"config: planes.{name}"
            given = [key for key in ("through", "span") if plane[key] is not None]
            given += ["pca"] if plane["pca"] else []
            if len(given) != 1:
                raise ValleysError(
                    f"{where}: {' and '.join(given) or 'nothing'} given to lay it by; "
                    "give just one of through, pca and span"
                )
            if given == ["through"] and (len(plane["through"]) != 3 or len(set(plane["through"])) != 3):
                raise ValleysError(
                    f"{where}.through: it must be three different solutions, not {plane['through']}"
                )
            if given == ["pca"]:
                for recipe in dict.fromkeys(cell.recipe for cell in self.cells):
                    if self.is_given(recipe):
                        continue
                    kept = self.all_iterates(recipe)
                    if kept < 3:
                        raise ValleysError(
                            f"{where}.pca: recipe {recipe} keeps {kept} iterate(s); two components need at "
                            "least 3"
                        )
            if given == ["span"]:
                self._check_span(f"{where}.span", plane)
            own, names = _own(_laid_by(plane)), set(_laid_by(plane))
            if own and not any(names <= set(self.solutions_of(cell)) for cell in self.cells):
                raise ValleysError(f"{where}: no cell has all of its solutions: {self._who_has(own)}")

    def _check_span(self, where: str, plane: Config) -> None:
        probes, chosen = self.config["probes"], []
        for text in plane["span"]:
            name, _, k = text.rpartition("/")
            if not (name and k.isascii() and k.isdigit()):
                raise ValleysError(f"{where}: {text!r} is no direction; write <probe>/<k>, as in uniform/0")
            if name not in probes:
                raise ValleysError(
                    f"{where}: {name!r} is not among probes{did_you_mean(name, list(probes))}; "
                    f"there are {', '.join(probes) or 'none'}"
                )
            n = 1 if probes[name]["kind"] in SINGLE else probes[name]["n"]
            if int(k) >= n:
                raise ValleysError(f"{where}: {text!r}: probe {name} has {n} direction(s), numbered from 0")
            if not chosen_solutions(probes[name]["solutions"], [plane["at"]]):
                raise ValleysError(
                    f"{where}: probe {name} has no directions at {plane['at']}; add it to its solutions, or "
                    f"set at to one of {', '.join(probes[name]['solutions'])}"
                )
            # What a direction depends on, beside the cell: the probe's name has no part in it.
            probe = probes[name]
            share = probe["share"] if probe["kind"] == "sign" else None
            images = probe["train_images"] if probe["kind"] in ("gradient", "hessian") else None
            chosen.append((probe["kind"], probe["group"], share, images, int(k)))
        if len(chosen) != 2 or chosen[0] == chosen[1]:
            raise ValleysError(f"{where}: it must be two different directions, not {plane['span']}")

    def _check_given(self) -> None:
        """Check that given weights can be looked for, and that no line has the same weights at both ends."""
        for cell in self.all_cells:
            for name in self.solutions_of(cell) if self.is_given(cell.recipe) else ():
                try:
                    self.checkpoint_shards(cell, name)
                except ValleysError as error:
                    raise ValleysError(
                        f"config: checkpoints.{cell.recipe}.solutions.{name}: {error}"
                    ) from None
            for where, solution, other, name in self._spans(cell):
                if reason := self._same_weights(cell, solution, other, name):
                    raise ValleysError(
                        f"config: {where}: {solution} of {cell.path} and {name} of {other.path} are the same "
                        f"weights, with a line of length zero between them: {reason}"
                    )

    def _spans(self, cell: Cell) -> Iterator[tuple[str, str, Cell, str]]:
        """Yield what runs from one solution of a cell to another, of this cell or of another."""
        for line in self.lines_of(cell):
            spec = self.config["lines"][line]
            yield f"lines.{line}", spec["start"], self.stop_cell(cell, line) or cell, spec["stop"]
        for probe in self.probes_of(cell):
            kind = self.config["probes"][probe]["kind"]
            if kind in NEEDS:
                yield f"probes.{probe}", NEEDS[kind][0], cell, NEEDS[kind][1]
            for seed in self.target_seeds(cell, probe):
                for name in self.probed_solutions(cell, probe):
                    yield f"probes.{probe}", name, replace(cell, seed=seed), name
        for plane in self.planes_of(cell):
            for start, stop in itertools.combinations(self.config["planes"][plane]["through"] or (), 2):
                yield f"planes.{plane}.through", start, cell, stop

    def _check_theory(self) -> None:
        theory = self.config["theory"]
        valleys = len(theory["shapes"]) * len(theory["ratios"])
        runs = valleys * len(theory["rates"]) * len(theory["noises"]) * len(theory["levels"])
        steps = runs * theory["chains"] * (theory["burn_in"] + theory["iterates"])
        shifts = valleys * len(theory["shifts"]) * len(theory["scales"]) * len(theory["biases"])
        self._check_count("config: theory", "steps of SGD", steps, "chains * (burn_in + iterates) * rows")
        self._check_count("config: theory", "shifts", shifts * theory["draws"], "draws * rows")
        toy = self.config["toy_2d"]
        points = toy["n_draws"] * 2 * toy["n_per_class"]
        self._check_count("config: toy_2d", "data of the toy", points, "n_draws * 2 * n_per_class")
        self._check_count("config: toy_2d", "steps of the toy", points * toy["epochs"], "epochs * data")
        offsets = toy["n_draws"] * math.ceil(toy["reach"] / toy["step"])
        self._check_count("config: toy_2d", "points of the toy's curves", offsets, "n_draws * reach / step")
        steepest = max(theory["ratios"]) * theory["slope"]
        if "quadratic" in theory["shapes"] and max(theory["rates"]) * steepest >= 2:
            raise ValleysError(
                f"config: theory.rates: {max(theory['rates'])} diverges in a quadratic valley of curvature "
                f"{steepest:g}; it must be below {2 / steepest:g}"
            )

    # What to make -----------------------------------------------------------------------------------

    @property
    def all_cells(self) -> list[Cell]:
        """The cells of the grid and of all studies."""
        return sorted(self.wanted)

    def start_cell(self, cell: Cell) -> Cell | None:
        """Return the cell that the training of another starts from; None where weights are fresh or given.

        It may be none of `all_cells`: then it is trained as far as that takes, and is in no table.
        """
        start = self.recipe(cell.recipe).get("start_from")
        return None if start is None else replace(cell, recipe=start["recipe"])

    @property
    def trained_cells(self) -> list[Cell]:
        """`all_cells`, and those that their training starts from, one after the other."""
        found: set[Cell] = set()
        for cell in self.all_cells:
            at: Cell | None = cell
            while at is not None and at not in found:
                found.add(at)
                at = self.start_cell(at)
        return sorted(found)

    def _wants(self, cell: Cell) -> Wanted:
        """Return what the grid and studies want of a cell; nothing of one that others start from only."""
        return self.wanted.get(cell) or Wanted()

    def solutions_of(self, cell: Cell) -> list[str]:
        """Return the solutions made of a cell: those asked for, and the ends of its lines."""
        wanted = self._wants(cell).solutions | self._line_ends.get(cell, set())
        return [name for name in self.available(cell) if name in wanted]

    def probes_of(self, cell: Cell) -> list[str]:
        """Return the probes that apply to a cell.

        One on normalisation layers needs a model with some, one towards other seeds needs another seed, and
        all need one of their solutions. An mlp without hidden layers has neither norms nor hidden weights.
        """
        model = self.models[cell.model]
        plain = model.get("norm") == "none"
        empty = ("bn", "bn_weight", "bn_bias", "conv") if model.get("hidden") == [] else ()
        alone = not self._other_seeds(cell)
        made = {*self.solutions_of(cell), *(() if self.is_given(cell.recipe) else ("iterates",))}
        return [
            name
            for name, probe in self.config["probes"].items()
            if name in self._wants(cell).probes
            and not (plain and "bn" in probe["group"].split("_"))
            and probe["group"] not in empty
            and not (alone and probe["kind"] == "to_seed")
            and made >= {*NEEDS.get(probe["kind"], ()), *(["iterates"] if probe["kind"] == "pca" else [])}
            and self.probed_solutions(cell, name)
        ]

    def probed_solutions(self, cell: Cell, probe: str) -> list[str]:
        """Return the solutions of a cell that a probe looks at."""
        return chosen_solutions(self.config["probes"][probe]["solutions"], self.solutions_of(cell))

    def bundles_of(self, cell: Cell) -> dict[str, list[str]]:
        """Return the jobs that probe a cell: name to probes (``execution.probe_jobs``)."""
        probes = self.probes_of(cell)
        if self.config["execution"]["probe_jobs"] == "together":
            return {"together": probes} if probes else {}
        return {name: [name] for name in probes}

    def _other_seeds(self, cell: Cell) -> list[int]:
        """Return the other seeds of a cell's data set, model and recipe: nearest smaller first, then greater.

        Seeds are mostly added above those there are. In this order, such a seed comes after all targets that
        a cell has, so that only cells with fewer than n targets get another and are probed again. (Greater
        ones first would change the last n cells each time, a cyclic order some of the first as well.)
        """
        there = self._seeds_of.get(cell.kin, [])
        smaller = [seed for seed in reversed(there) if seed < cell.seed]
        return smaller + [seed for seed in there if seed > cell.seed]

    @functools.cached_property
    def _seeds_of(self) -> dict[tuple[str, str, str], list[int]]:
        """Seeds by data set, model and recipe, in order."""
        found: dict[tuple[str, str, str], list[int]] = {}
        for cell in self.all_cells:
            found.setdefault(cell.kin, []).append(cell.seed)
        return found

    def target_seeds(self, cell: Cell, probe: str) -> list[int]:
        """Return the seeds that a probe's directions lead to, in order; none but for kind ``to_seed``."""
        spec = self.config["probes"][probe]
        return self._other_seeds(cell)[: spec["n"]] if spec["kind"] == "to_seed" else []

    def leaves_cell(self, line: str) -> bool:
        """Whether a line's stop is a solution of another cell than its start."""
        spec = self.config["lines"][line]
        return spec["stop_recipe"] is not None or spec["stop_seed"] == "next"

    def is_trained(self, line: str) -> bool:
        """Whether a line is a path with trained bends, which the ``connect`` rule makes."""
        return self.config["lines"][line]["path"] != "linear"

    def stop_cell(self, cell: Cell, line: str) -> Cell | None:
        """Return the cell of a line's stop, for the line that starts in `cell`; none where there is no such.

        A line with ``stop_recipe`` starts in cells of other recipes than that. Seed ``next`` is the least
        greater seed of the stop's recipe, without wrap-around: greater seeds that are added change no line
        there was, and only give the cell that had the greatest one a line.
        """
        if not self.leaves_cell(line):
            return cell
        spec = self.config["lines"][line]
        if spec["stop_recipe"] == cell.recipe:
            return None
        kin = (cell.dataset, cell.model, spec["stop_recipe"] or cell.recipe)
        there = self._seeds_of.get(kin, [])
        if spec["stop_seed"] == "next":
            seed = next((seed for seed in there if seed > cell.seed), None)
        else:
            seed = cell.seed if cell.seed in there else None
        return None if seed is None else Cell(*kin, seed)

    def lines_of(self, cell: Cell) -> list[str]:
        """Return the lines that start in a cell: those wanted of it whose two ends exist.

        Paths with trained bends start in trained cells only: they take from the recipe how to train.
        """
        wanted, found = self._wants(cell).lines, []
        for line, spec in self.config["lines"].items():
            stop = self.stop_cell(cell, line)
            if line in wanted and stop is not None:
                there = all(spec[end] in self.available(at) for end, at in (("start", cell), ("stop", stop)))
                if there and not (self.is_given(cell.recipe) and self.is_trained(line)):
                    found.append(line)
        return found

    def spanning(self, plane: str) -> list[tuple[str, int]]:
        """Return probe and number of the two directions that span a plane; none for other planes."""
        chosen = self.config["planes"][plane]["span"] or []
        return [(probe, int(k)) for probe, _, k in (text.rpartition("/") for text in chosen)]

    def planes_of(self, cell: Cell) -> list[str]:
        """Return the planes that a cell gets: those for so many seeds, whose solutions and directions it has.

        A trained cell gets none unless all of its solutions are made, which are marked on each plane.
        """
        made, given = self.solutions_of(cell), self.is_given(cell.recipe)
        if not given and len(made) < len(SOLUTIONS):
            return []
        rank = self._seeds_of[cell.kin].index(cell.seed)
        return [
            name
            for name, plane in self.config["planes"].items()
            if not (plane["pca"] and given)
            and set(made) >= set(_laid_by(plane))
            and rank < plane["seeds"]
            and all(self._has(cell, *chosen) for chosen in self.spanning(name))
        ]

    def _has(self, cell: Cell, probe: str, k: int) -> bool:
        """Whether direction k of a probe exists in a cell."""
        if probe not in self.probes_of(cell):
            return False
        return self.config["probes"][probe]["kind"] != "to_seed" or k < len(self.target_seeds(cell, probe))

    def iterates_of(self, cell: Cell, keep: str | None = None) -> int:
        """Return how many of a cell's iterates stay, the last ones, by `keep`, else ``execution.keep``.

        With ``window`` they are those that are averaged; all where principal components are taken of them.
        """
        keep = self.config["execution"]["keep"] if keep is None else keep
        return 0 if keep == "none" else self.written_iterates(cell, keep)

    def written_iterates(self, cell: Cell, keep: str | None = None) -> int:
        """Return how many iterates training writes: with ``none`` as with ``window``, to go in the end."""
        keep = self.config["execution"]["keep"] if keep is None else keep
        made = self.all_iterates(cell.recipe)
        pca = any(self.config["planes"][plane]["pca"] for plane in self.planes_of(cell))
        pca = pca or any(self.config["probes"][probe]["kind"] == "pca" for probe in self.probes_of(cell))
        if pca or keep == "all" or self.is_given(cell.recipe):
            return made
        return self.recipe(cell.recipe)["swa"]["window"] or made

    def all_iterates(self, recipe: str) -> int:
        """Return how many iterates the averaging phase of a recipe has (`schedule.kept_epochs`)."""
        if self.is_given(recipe):
            return 0
        full = self.recipe(recipe)
        return (full["epochs"] - full["swa"]["start"]) // full["swa"]["every"]

    @functools.cached_property
    def _line_ends(self) -> dict[Cell, set[str]]:
        """Solutions by cell that a line starts or stops in; its stop may be in another cell."""
        found: dict[Cell, set[str]] = {}
        for cell in self.wanted:
            for line in self.lines_of(cell):
                spec, stop = self.config["lines"][line], self.stop_cell(cell, line)
                found.setdefault(cell, set()).add(spec["start"])
                found.setdefault(stop or cell, set()).add(spec["stop"])
        return found

    def source_files(self, dataset: str) -> list[str]:
        """Return the files a data set is read from that exist now (of folders: `source_digests`)."""
        return [path for path in self._originals(dataset) if Path(path).is_file()]

    def _originals(self, dataset: str) -> list[str]:
        found: list[str] = []
        for key in ("train", "test", "files"):
            value = self.datasets[dataset].get(key) or []
            for pattern in [value] if isinstance(value, str) else value:
                found += files.matching(pattern)
        return found

    def source_digests(self, dataset: str) -> list[str]:
        """Return what names the contents of each file and folder a data set is read from (`files.digest`).

        They are looked at once: a folder of a million images is asked for as many sizes and times.
        """
        if dataset not in self._digests:
            suffixes = IMAGE_SUFFIXES if self.datasets[dataset]["source"] == "image_folder" else ()
            found = map(Path, self._originals(dataset))
            self._digests[dataset] = [
                files.digest(path, suffixes) for path in found if path.is_file() or path.is_dir()
            ]
        return self._digests[dataset]

    def direction_inputs(self, cell: Cell, probe: str) -> list[str]:
        """Return the solutions that a probe's computed directions are made from or for."""
        spec = self.config["probes"][probe]
        return sorted({*self.probed_solutions(cell, probe), *NEEDS.get(spec["kind"], ())})

    def is_computed(self, probe: str) -> bool:
        """Whether a probe's directions are computed and stored by the ``directions`` rule."""
        return self.config["probes"][probe]["kind"] in COMPUTED

    def parts(self, cell: Cell, table: str, study: str | None = None) -> list[str]:
        """Return the files, below a cell's folder, that hold its rows of a table.

        With `study`, only those with its probes: a cell may be probed for the grid or other studies as well.
        """
        if table == "training" and self.is_given(cell.recipe):
            return []
        if table == "training":
            descent = ["descent.parquet"] if "descent" in self.solutions_of(cell) else []
            return ["training.parquet", *descent]
        if table in ("curves", "directions"):
            bundles = self.bundles_of(cell)
            if study is not None:
                wanted = set(self._study_probes(study))
                bundles = {name: probes for name, probes in bundles.items() if wanted & set(probes)}
            return [f"probes/{bundle}/{table}.parquet" for bundle in bundles]
        if table == "interpolation" or table.endswith(LINES):
            return [f"lines/{line}.parquet" for line in self.lines_of(cell)]
        if table in ("planes", "plane_points"):
            return [f"planes/{plane}/{table}.parquet" for plane in self.planes_of(cell)]
        return [f"{table}.parquet"]

    def cells_of(self, table: str) -> list[Cell]:
        """Return the cells whose rows a table stacks: the grid's, or a study's."""
        study = table.removesuffix(LINES)
        return sorted(self.studies[study]) if study in self.studies else self.cells

    def study_tables(self) -> list[str]:
        """Return the names of the tables of studies."""
        lines = [study for study in self.studies if self._study_lines(study)]
        return [*self.studies, *(f"{study}{LINES}" for study in lines)]

    def tables(self) -> list[str]:
        """Return the names of the tables this experiment makes."""
        return [*CELL_TABLES, "sensitivity", *TOY_TABLES, *THEORY_TABLES, *self.study_tables(), "claims"]

    def claim_tables(self) -> list[str]:
        """Return the names of the tables that claims are judged from."""
        return [
            *("training", "solutions", "directions", "asymmetry", "theory_measured", "shift"),
            *("interpolation", "toy_2d", *THEORY_TABLES),
            *self.study_tables(),
        ]

    def figure_needs(self) -> dict[str, list[str]]:
        """Return the figures this experiment makes, each with the tables it is drawn from."""
        used = {name for cell in self.cells for name in self.probes_of(cell)}
        probes = {name: spec for name, spec in self.config["probes"].items() if name in used}
        sign = [name for name, spec in probes.items() if spec["kind"] == "sign"]  # have one figure together
        needs = {"training": ["training"], "prevalence": ["asymmetry"], "sensitivity": ["sensitivity"]}
        needs |= {f"curves-{p}": ["curves", "directions", "asymmetry"] for p in probes if p not in sign}
        for line in self.config["lines"]:
            tables = ["interpolation"] if any(line in self.lines_of(cell) for cell in self.cells) else []
            tables += [f"{study}{LINES}" for study in self.studies if line in self._study_lines(study)]
            needs |= {f"line-{line}": tables} if tables else {}
        needs |= {f"plane-{plane}": ["planes", "plane_points"] for plane in self.config["planes"]}
        needs |= {"shift": ["shift", "asymmetry"]}
        needs |= {"sign": ["asymmetry", "directions"]} if sign else {}
        needs |= {"toy-surface": list(TOY_TABLES), "toy-curves": ["toy_2d", "toy_2d_curves"]}
        needs |= {"theory-average": ["theory_average"], "theory-gain": ["theory_gain"]}
        needs |= {"theory-measured": ["theory_measured"]}
        return needs | {f"study-{study}": [study] for study in self.studies}

    def _study_probes(self, study: str) -> list[str]:
        return self.config["studies"][study].get("probes", list(self.config["probes"]))

    def _study_lines(self, study: str) -> list[str]:
        return self.config["studies"][study]["lines"]

    def named(self, name: str) -> tuple[list[str], list[str]]:
        """Return the tables and the figures of one experiment, by the name of its target.

        Straight lines within a cell belong to ``swa``, all other lines of the grid's cells to ``basin``, as
        does a study of that name.
        """
        tables: list[str] = []
        figures: list[str] = []
        if name in self.studies:
            lines = self._study_lines(name)
            tables = [name, *([f"{name}{LINES}"] if lines else [])]
            figures = [f"study-{name}", *(f"line-{line}" for line in lines)]
            if name != "basin":
                return tables, figures
        more, words = {
            "prevalence": (
                ("solutions", "directions", "curves", "asymmetry", "sensitivity"),
                ("prevalence", "sensitivity", "curves"),
            ),
            "swa": (("training", "solutions", "interpolation"), ("training", "line")),
            "basin": (("interpolation",), ("line",)),
            "shift": (("curves", "asymmetry", "shift"), ("shift",)),
            "sign": (("directions", "asymmetry"), ("sign",)),
            "planes": (("planes", "plane_points"), ("plane",)),
            "toy": (TOY_TABLES, ("toy",)),
            "theory": (THEORY_TABLES, ("theory-average", "theory-gain")),
            "gain": (("curves", "asymmetry", "theory_measured"), ("theory-measured",)),
        }[name]
        other = {
            f"line-{line}"
            for line in self.config["lines"]
            if (self.leaves_cell(line) or self.is_trained(line)) != (name == "basin")
        }
        figures += [
            figure
            for figure in self.figures()
            if {figure, figure.split("-")[0]} & set(words) and figure not in {*other, *figures}
        ]
        return [*tables, *more], figures

    def figures(self) -> list[str]:
        """Return the names of the figures this experiment makes."""
        return list(self.figure_needs())

    def figure_tables(self, figure: str) -> list[str]:
        """Return the tables a figure is drawn from."""
        return self.figure_needs()[figure]

    # What each stage depends on ---------------------------------------------------------------------

    def _stage(self, stage: str, **keys: Any) -> dict[str, Any]:
        return {"version": VERSIONS[stage], **keys}

    def recipe(self, name: str) -> dict[str, Any]:
        """Return a recipe's block with its defaults; of checkpoints, what there is: the loss."""
        return self.checkpoints[name] if self.is_given(name) else self.recipes[name]

    def prepare_dataset(self, dataset: str) -> dict[str, Any]:
        """Params of ``prepare_dataset``: the source and, if it is a user's callable, what names its code.

        Of originals also what names their contents: one that takes another's place may be older than what was
        made of that, and Snakemake goes by which is newer.
        """
        source, digests = self.datasets[dataset], self.source_digests(dataset)
        more = {"originals": digests} if digests else {}
        return self._stage("prepare_dataset", source=source, **self._code(source), **more)

    def train_sgd(self, model: str, recipe: str, seed: int) -> dict[str, Any]:
        """Params of ``train_sgd``: all of the recipe but the averaging window and the descent.

        Of a user's own network also what names its code.
        """
        full = self.recipe(recipe)
        kept = {key: value for key, value in full.items() if key not in ("swa", "descent")}
        kept["swa"] = {key: value for key, value in full["swa"].items() if key != "window"}
        spec = self.models[model]
        keys = {"model": spec, "recipe": _but_later(kept), "seed": int(seed), **self._code(spec)}
        return self._stage("train_sgd", **keys)

    def average(self, recipe: str, model: str | None = None) -> dict[str, Any]:
        """Params of ``average``.

        A user's own network may have buffers, which older versions averaged too; ours have none but those of
        batch norm.
        """
        more = {"buffers": "last"} if model is not None and "factory" in self.models[model] else {}
        return self._stage("average", window=self.recipe(recipe)["swa"]["window"], **more)

    def refresh_bn(self, model: str) -> dict[str, Any]:
        """Params of ``refresh_bn``: how, or None for a model without batch norm."""
        may = self.may_have_batch_norm(model)
        return self._stage("refresh_bn", bn_refresh=self.config["bn_refresh"] if may else None)

    def may_have_batch_norm(self, model: str) -> bool:
        """Whether a model has batch norm or, being a user's own, cannot be told to have none."""
        return self.models[model].get("norm", "batch") == "batch"

    def import_solution(self, model: str, recipe: str) -> dict[str, Any]:
        """Params of ``import_solution``: the model, and how to refresh batch-norm statistics, if at all.

        Of a user's own network also what names its code.
        """
        refreshed = self.checkpoints[recipe]["bn"] == "refreshed"
        spec, settings = self.models[model], self.config["bn_refresh"] if refreshed else None
        return self._stage("import_solution", model=spec, bn_refresh=settings, **self._code(spec))

    def descend(self, recipe: str, seed: int) -> dict[str, Any]:
        """Params of ``descend``: what one step of SGD needs, and the descent's own block."""
        full = self.recipe(recipe)
        keys = ("batch_size", "nesterov", "weight_decay", "loss", "augment", "precision", "descent")
        kept = _but_later({key: full[key] for key in keys})
        return self._stage("descend", recipe=kept, seed=int(seed), bn_refresh=self.config["bn_refresh"])

    def evaluate(self, recipe: str) -> dict[str, Any]:
        """Params of ``evaluate``."""
        return self._stage("evaluate", loss=self.recipe(recipe)["loss"])

    def directions(self, recipe: str, probe: str) -> dict[str, Any]:
        """Params of ``directions``: the kind, how many, and the loss that a gradient is of."""
        spec = self.config["probes"][probe]
        kept = {key: spec[key] for key in ("kind", "group", "train_images")}
        kept["n"] = 1 if spec["kind"] in SINGLE else spec["n"]
        return self._stage("directions", probe=kept, loss=self.recipe(recipe)["loss"])

    def probe(self, cell: Cell, bundle: str) -> dict[str, Any]:
        """Params of ``probe``: the blocks of the probes that one job does, by name."""
        blocks = {}
        for name in self.bundles_of(cell)[bundle]:
            block = dict(self.config["probes"][name], solutions=self.probed_solutions(cell, name))
            if block["kind"] in SINGLE:
                block["n"] = 1
            if block["kind"] != "sign":
                block["share"] = 0.0
            blocks[name] = with_algorithms(_but_later(block))
        # A curve in bf16 is measured again where its verdict hangs on that, an adaptive one at more points:
        # they depend on the constants.
        judged = any({"precision", "adaptive"} & set(block) for block in blocks.values())
        more = {"asymmetry": self.config["asymmetry"]} if judged else {}
        loss = self.recipe(cell.recipe)["loss"]
        return self._stage("probe", probes=blocks, loss=loss, bn_refresh=self.config["bn_refresh"], **more)

    def connect(self, cell: Cell, line: str) -> dict[str, Any]:
        """Params of ``connect``: the path, and what one step of SGD needs."""
        full, spec = self.recipe(cell.recipe), self.config["lines"][line]
        keys = ("batch_size", "momentum", "nesterov", "weight_decay", "loss", "augment", "precision")
        recipe = _but_later({key: full[key] for key in keys})
        kept = {key: spec[key] for key in ("path", "bends", "epochs")}
        kept["lr"] = full["swa"]["lr"] if spec["lr"] is None else spec["lr"]
        return self._stage("connect", recipe=recipe, line=kept, seed=cell.seed)

    def interpolate(self, cell: Cell, line: str) -> dict[str, Any]:
        """Params of ``interpolate``: the points, and which solutions are at the ends.

        How the bends of a trained path came about is the ``connect`` rule's: their file is an input.
        """
        spec, stop = self.config["lines"][line], self.stop_cell(cell, line)
        if stop is None:
            raise ValleysError(f"line {line}: no cell for its stop when it starts in {cell.path}")
        keys = ("start", "stop", "path", "divisions", "bn", "train_images", "test_images")
        kept = {key: spec[key] for key in keys}
        kept |= {"stop_recipe": stop.recipe, "stop_seed": stop.seed}
        ends = {"first": 0, "last": 1} if self.is_trained(line) else {"first": -2, "last": 3}
        kept |= {key: end if spec[key] is None else spec[key] for key, end in ends.items()}
        return self._stage(
            "interpolate",
            line=kept,
            loss=self.recipe(cell.recipe)["loss"],
            bn_refresh=self.config["bn_refresh"],
        )

    def plane(self, recipe: str, plane: str) -> dict[str, Any]:
        """Params of ``plane``: how it is laid, its grid, and ``at``, the solution whose statistics it keeps.

        Of a probe that spans it, what remakes a drawn direction; computed ones are read from their file.
        """
        return self._stage(
            "plane",
            plane=self._laid(plane),
            loss=self.recipe(recipe)["loss"],
            bn_refresh=self.config["bn_refresh"],
        )

    def _laid(self, plane: str) -> dict[str, Any]:
        spec = self.config["planes"][plane]
        keys = ("points", "bn", "precision", "train_images", "test_images")
        kept = _but_later({key: spec[key] for key in keys})
        if spec["through"]:
            return kept | {key: spec[key] for key in ("through", "margin")} | {"at": spec["through"][0]}
        if spec["pca"]:
            return kept | {key: spec[key] for key in ("pca", "margin")} | {"at": "swa"}
        span = []
        for probe, k in self.spanning(plane):
            block = self.config["probes"][probe]
            share = block["share"] if block["kind"] == "sign" else 0.0
            span.append({"kind": block["kind"], "group": block["group"], "share": share, "k": k})
        return kept | {key: spec[key] for key in ("at", "relative")} | {"span": span}

    def detect(self) -> dict[str, Any]:
        """Params of ``detect``."""
        return self._stage("detect", asymmetry=self.config["asymmetry"])

    def study(self, study: str) -> dict[str, Any]:
        """Params of ``study``: its probes, and levels and weight decay of each of its cells."""
        spec = self.config["studies"][study]
        cells = [
            {
                **cell.columns(),
                "levels": dict(levels),
                "weight_decay": self.recipe(cell.recipe)["weight_decay"] if spec["penalty"] else None,
            }
            for cell, levels in sorted(self.studies[study].items(), key=lambda item: item[0])
        ]
        chosen = {"probes": self._study_probes(study), "solutions": list(spec["solutions"])}
        return self._stage("study", asymmetry=self.config["asymmetry"], cells=cells, **chosen)

    def measure_gain(self) -> dict[str, Any]:
        """Params of ``measure_gain``: its constants are in the code."""
        return self._stage("measure_gain")

    def sensitivity(self) -> dict[str, Any]:
        """Params of ``sensitivity``."""
        return self._stage(
            "sensitivity", asymmetry=self.config["asymmetry"], level=self.config["claims"]["level"]
        )

    def toy_2d(self) -> dict[str, Any]:
        """Params of ``toy_2d``."""
        constants = {
            key: self.config["asymmetry"][key] for key in ("c", "zeta_max", "min_span", "minimum_within")
        }
        return self._stage("toy_2d", toy_2d={**self.config["toy_2d"], **constants})

    def simulate_theory(self) -> dict[str, Any]:
        """Params of ``simulate_theory``."""
        return self._stage("simulate_theory", theory=self.config["theory"])

    def claims(self) -> dict[str, Any]:
        """Params of ``claims``."""
        spec = {**self.config["claims"], "c": self.config["asymmetry"]["c"], "factors": self._factors()}
        return self._stage("claims", claims=spec)

    def _factors(self) -> dict[str, dict[str, list[Any]]]:
        """Return each study's factors and levels, in order."""
        return {name: spec["factors"] for name, spec in self.config["studies"].items()}

    def figure(self, figure: str) -> dict[str, Any]:
        """Params of ``figures``: the style, and the blocks that are drawn as text or marks."""
        kind, _, study = figure.partition("-")
        order = {"factors": {study: self._factors()[study]}} if kind == "study" else {}
        order |= {"solutions": self.own_names} if self.own_names else {}
        return self._stage(
            "figures",
            **order,
            style=self.config["figures"],
            swa_start={name: r["swa"]["start"] for name, r in self.config["recipes"].items()},
            c=self.config["asymmetry"]["c"],
            level=self.config["claims"]["level"],
        )

    def report(self) -> dict[str, Any]:
        """Params of ``report``."""
        return self._stage("report", figures=self.figures(), tables=self.tables())

    def provenance(self, table: str) -> dict[str, Any]:
        """Return the config blocks that decide a table's content; kept in its metadata."""
        cells = ("name", "seeds", "datasets", "models", "recipes", "grid")
        cells += ("checkpoints",) if self.checkpoints else ()
        study = table.removesuffix(LINES) if table in self.study_tables() else None
        if study:
            table, cells = "asymmetry" if table in self.studies else "interpolation", (*cells, "studies")
        more = {
            "training": ("bn_refresh",),
            "solutions": ("bn_refresh",),
            "directions": ("bn_refresh", "probes"),
            "curves": ("bn_refresh", "probes"),
            "asymmetry": ("bn_refresh", "probes", "asymmetry"),
            "theory_measured": ("bn_refresh", "probes", "asymmetry"),
            "sensitivity": ("bn_refresh", "probes", "asymmetry"),
            "shift": ("bn_refresh", "probes"),
            "interpolation": ("bn_refresh", "lines"),
            "planes": ("bn_refresh",),
            "plane_points": (),
        }
        about = {key: self.config[key] for key in (*cells, *more[table])}
        if study:  # its own block, probes and lines: others have no part in it
            about["studies"] = {study: self.config["studies"][study]}
            for key, wanted in (("probes", self._study_probes(study)), ("lines", self._study_lines(study))):
                if key in about:
                    about[key] = {name: self.config[key][name] for name in wanted}
        if table in ("planes", "plane_points"):  # with their probes: other probes have no part in them
            about["planes"] = {
                name: {**self._laid(name), "seeds": spec["seeds"]}
                for name, spec in self.config["planes"].items()
            }
        return about

    def results(self) -> dict[str, Any]:
        """Return the part of the config that decides results: all but style and execution."""
        return {k: v for k, v in self.config.items() if k not in ("figures", "execution")}
