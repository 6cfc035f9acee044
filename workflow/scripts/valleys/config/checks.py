"""Contradictions between keys of a config, each told in one line; a key by itself is the schema's."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from valleys.config import originals
from valleys.config.alignment import check_alignment
from valleys.config.averages import check_averages
from valleys.config.catalogue import LINES, SOLUTIONS, TABLES, TARGETS
from valleys.config.cells import Cell, Cells
from valleys.config.probe_checks import (
    check_count,
    check_directions,
    check_joined_seeds,
    check_lines,
    check_planes,
    check_probes,
    check_windows,
)
from valleys.config.schema import WILDCARD, ignores_case, input_path
from valleys.config.studies import is_plain
from valleys.config.styles import check_font
from valleys.config.versions import VERSIONS
from valleys.data.options import DATASET_OPTIONS, image_shape
from valleys.data.tasks import CLASSIFICATION, IGNORED, TASKS, losses_of, task_of
from valleys.errors import ValleysError, did_you_mean
from valleys.factories import check as check_factory
from valleys.landscape.kinds import NEEDS

NOT_SOLUTIONS = ("iterate", "iterates")  # what tables and rules call those
NAMES_CLASSES = ("timm", "torchvision")  # packages whose num_classes is the number of outputs
PLACES = ("dataset", "model", "recipe", "seed")  # filled in the paths of checkpoints


def check_blocks(experiment: Cells) -> None:
    """Check what can be checked before there are cells: factories, names, paths, fonts.

    Raises
    ------
    ValleysError
        For the first mistake.
    """
    for check in (_check_factories, _check_names, _check_paths, _check_figures):
        check(experiment)


def check_cells(experiment: Cells) -> None:
    """Check recipes, probes, lines, planes and given weights, and how they fit the cells.

    Raises
    ------
    ValleysError
        For the first mistake.
    """
    for check in (
        _check_recipes,
        _check_tasks,
        _check_classes,
        _check_shifts,
        check_windows,
        check_probes,
        check_joined_seeds,
        check_directions,
        check_lines,
        check_planes,
        check_averages,
        check_alignment,
        _check_batches_of_one,
        _check_given,
        _check_theory,
    ):
        check(experiment)


def _check_factories(experiment: Cells) -> None:
    """Check that the modules of all factories are there and can be parsed; nothing is imported."""
    blocks = [("models", experiment.models), ("datasets", experiment.datasets)]
    for block, of in (("recipes", experiment.recipes), ("checkpoints", experiment.checkpoints)):
        losses = {f"{name}.loss": one.get("loss", {}) for name, one in of.items()}
        for name, loss in losses.items():
            if "factory" in loss:
                check_factory(f"config: {block}.{name}", loss["factory"], loss.get("kwargs"))
        blocks.append((block, {name: {"kwargs": {}, **loss} for name, loss in losses.items()}))
    for block, specs in blocks:
        for name, spec in specs.items():
            try:
                if "factory" in spec and not is_plain(spec["kwargs"]):
                    raise ValleysError(
                        f"kwargs: {spec['kwargs']!r} holds more than numbers, text, true, false, null, "
                        "and lists and mappings of these with text for keys, which is what files keep"
                    )
                experiment.code_of(spec)
            except ValleysError as error:
                raise ValleysError(f"config: {block}.{name}: {error}") from None


def _check_names(experiment: Cells) -> None:
    """Check that what grid entries and studies choose from exists, and that studies' names are free."""
    entries = [(f"grid.{i}", entry) for i, entry in enumerate(experiment.config["grid"])]
    entries += [(f"studies.{name}", spec) for name, spec in experiment.config["studies"].items()]
    for where, entry in entries:
        for key in ("probes", "lines", "averages"):
            known = list(experiment.config[key])
            for name in entry.get(key, ()):
                if name not in known:
                    raise ValleysError(
                        f"config: {where}.{key}: {name!r} is not among {key}{did_you_mean(name, known)}; "
                        f"there are {', '.join(known) or 'none'}"
                    )
    for name in experiment.checkpoints:
        if name in experiment.recipes:
            raise ValleysError(f"config: checkpoints: {name!r} is a recipe too; choose another name")
    for block in ("datasets", "models"):
        for name in experiment.config[block]:
            if name.endswith((".log", ".tsv")):  # names a folder, beside files that are called so
                raise ValleysError(
                    f"config: {block}: {name!r} ends as log files and benchmarks do; choose another name"
                )
    _check_case(experiment)
    for name in experiment.config["studies"]:
        if name.endswith(LINES):
            raise ValleysError(
                f"config: studies: {name!r} ends as the table of a study's lines does; choose another"
            )
    taken = {*TABLES, "all", "data", "most_seeds", *TARGETS, *VERSIONS} - {"basin"}
    for name in experiment.config["studies"]:
        if name in taken or name.removesuffix(LINES) in {*taken, *experiment.config["studies"]} - {name}:
            raise ValleysError(
                f"config: studies: {name!r} is the name of a table or target, or of a rule; choose another"
            )


def _check_case(experiment: Cells) -> None:
    """Check that no two names are one file on a disk that takes capital letters for small ones."""
    if not ignores_case(Path.cwd()):
        return
    blocks = {key: experiment.config[key] for key in ("datasets", "probes", "lines", "planes", "averages")}
    blocks |= {"models": experiment.models, "recipes": [*experiment.recipes, *experiment.checkpoints]}
    for block, names in (*blocks.items(), ("checkpoints: solutions", [*SOLUTIONS, *experiment.own_names])):
        seen: dict[str, str] = {}
        for name in names:
            other = seen.setdefault(name.lower(), name)
            if other != name:
                raise ValleysError(
                    f"config: {block}: {other!r} and {name!r} are one file name on this disk; rename one"
                )


def _check_paths(experiment: Cells) -> None:
    """Check that no path has braces that Snakemake would take for a wildcard."""
    for name, spec in experiment.datasets.items():
        for key in ("train", "test", "files"):
            value = spec.get(key) or []
            for path in [value] if isinstance(value, str) else value:
                try:
                    input_path(path)
                except ValleysError as error:
                    raise ValleysError(f"config: datasets.{name}.{key}: {error}") from None
    for name, block in experiment.checkpoints.items():
        for solution, path in block["solutions"].items():
            for found in WILDCARD.findall(path):
                if found[1:-1] not in PLACES and WILDCARD.search(os.path.relpath(path)):
                    raise ValleysError(
                        f"config: checkpoints.{name}.solutions.{solution}: {path}: {found} is not filled "
                        f"in; {', '.join(f'{{{key}}}' for key in PLACES)} are, and a file's name has no "
                        "other braces"
                    )


def _check_figures(experiment: Cells) -> None:
    """Check that the font of figures is known here."""
    if "font" in experiment.config["figures"]:
        check_font("config: figures.font", experiment.config["figures"]["font"])


def check_solutions(experiment: Cells) -> None:
    """Check that solutions named anywhere are the workflow's or given ones, which some cell has."""
    for name, block in experiment.checkpoints.items():
        for taken in set(NOT_SOLUTIONS) & set(block["solutions"]):
            raise ValleysError(
                f"config: checkpoints.{name}.solutions: {taken!r} is what the workflow calls the weights "
                "that are averaged; choose another name"
            )
    for i, entry in enumerate(experiment.config["grid"]):
        _check_known(experiment, f"grid.{i}.solutions", entry.get("solutions", ()))
    for cell in experiment.cells:
        if not experiment.solutions_of(cell):
            raise ValleysError(
                f"config: grid: solutions leave none for recipe {cell.recipe!r}; "
                f"it has {', '.join(experiment.available(cell))}"
            )
    for name, probe in experiment.config["probes"].items():
        _check_known(experiment, f"probes.{name}.solutions", probe["solutions"])
    for name, line in experiment.config["lines"].items():
        for end in ("start", "stop"):
            _check_known(experiment, f"lines.{name}.{end}", [line[end]])
    for name, plane in experiment.config["planes"].items():
        for i, solution in enumerate(plane["through"] or ()):
            _check_known(experiment, f"planes.{name}.through.{i}", [solution])
        _check_known(experiment, f"planes.{name}.at", [plane["at"]])


def _check_known(experiment: Cells, where: str, names: Iterable[str]) -> None:
    known = [*SOLUTIONS, *experiment.own_names]
    for name in names:
        if name not in known:
            raise ValleysError(
                f"config: {where}: {name!r} is no solution{did_you_mean(name, known)}; "
                f"choose from {', '.join(known)}"
            )
        if name not in SOLUTIONS and not any(name in experiment.available(cell) for cell in experiment.cells):
            recipes = [r for r, block in experiment.checkpoints.items() if name in block["solutions"]]
            raise ValleysError(
                f"config: {where}: no cell has {name!r}; add recipe {recipes[0]!r} to the grid"
            )


def _check_recipes(experiment: Cells) -> None:
    """Check that recipes keep iterates to average, and start from recipes there are."""
    for name, recipe in experiment.recipes.items():
        if "start_from" in recipe:
            _check_start(experiment, name)
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
        kept = experiment.all_iterates(name)
        if swa["window"] is not None and swa["window"] > kept:
            raise ValleysError(f"{where}.swa.window: {swa['window']} is more than the {kept} iterates kept")
        for key, momentum in (("", recipe["momentum"]), ("descent.", recipe["descent"]["momentum"])):
            if recipe["nesterov"] and momentum == 0:
                raise ValleysError(f"{where}.nesterov: needs {key}momentum above 0")


def _check_start(experiment: Cells, name: str) -> None:
    """Check that the recipes which `name` starts from, one after the other, exist and end somewhere."""
    where, known = f"config: recipes.{name}.start_from.recipe", list(experiment.recipes)
    passed = [name]
    while start := experiment.recipes[passed[-1]].get("start_from"):
        if start["recipe"] in experiment.checkpoints:
            raise ValleysError(
                f"{where}: {start['recipe']!r} is of checkpoints; choose a recipe that is trained here"
            )
        if start["recipe"] not in known:
            raise ValleysError(
                f"{where}: {start['recipe']!r} is not among recipes{did_you_mean(start['recipe'], known)}; "
                f"there are {', '.join(known)}"
            )
        if start["recipe"] in passed:
            raise ValleysError(f"{where}: goes in a circle: {' -> '.join([*passed, start['recipe']])}")
        passed.append(start["recipe"])


def _check_batches_of_one(experiment: Cells) -> None:
    """Check that batch norm on vectors gets two images or more; jobs find the rest."""
    for cell in experiment.trained_cells:
        model = experiment.models[cell.model]
        if model.get("arch") != "mlp" or model["norm"] != "batch" or not model["hidden"]:
            continue
        ones = [
            f"{key}.train_images"
            for key, block in _measured(experiment, cell)
            if block["train_images"] == 1 and block["bn"] == "refreshed"
        ]
        if not experiment.from_checkpoints(cell.recipe) and experiment.recipe(cell.recipe)["batch_size"] == 1:
            ones.append(f"recipes.{cell.recipe}.batch_size")
        if ones:
            raise ValleysError(
                f"config: {ones[0]}: 1 gives the batch norm of model {cell.model} one value a channel, "
                "of which it can take no statistics; choose 2 or more"
            )


def _measured(experiment: Cells, cell: Cell) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield key and block of all that a cell is measured along; nothing of one that is trained only."""
    if cell in experiment.wanted:
        for key, of in (
            ("probes", experiment.probes_of),
            ("lines", experiment.lines_of),
            ("planes", experiment.planes_of),
        ):
            yield from ((f"{key}.{name}", experiment.config[key][name]) for name in of(cell))


def _check_tasks(experiment: Cells) -> None:
    """Check that each cell's network, loss and augmentation are some for the task of its data."""
    for cell in experiment.all_cells:
        name = task_of(experiment.datasets[cell.dataset])
        task, of = TASKS[name], f"data set {cell.dataset}, whose task is {name}"
        model, recipe = experiment.models[cell.model], experiment.recipe(cell.recipe)
        given = experiment.from_checkpoints(cell.recipe)
        if "factory" not in model and not task.archs:
            raise ValleysError(
                f"config: models.{cell.model}.arch: {model['arch']!r} is none for {of}; give a network of "
                "your own, factory: module:attribute"
            )
        loss = recipe["loss"]
        if "factory" not in loss and loss["name"] not in task.losses:
            block = "checkpoints" if given else "recipes"
            raise ValleysError(
                f"config: {block}.{cell.recipe}.loss.name: {loss['name']!r} is none for {of}; "
                f"{losses_of(name)}"
            )
        augment = {} if given else recipe["augment"]
        for key in ("shift", "flip"):
            if augment.get(key) and name in IGNORED:
                raise ValleysError(
                    f"config: recipes.{cell.recipe}.augment.{key}: {augment[key]!r} would move inputs "
                    f"and not labels of {of}; leave it out"
                )


def _check_classes(experiment: Cells) -> None:
    """Check that networks of known packages are not told another number of classes than the data have.

    What a factory of the user's own makes of its arguments only its code knows, which jobs run.
    """
    for dataset, name in dict.fromkeys((cell.dataset, cell.model) for cell in experiment.all_cells):
        model, data = experiment.models[name], experiment.datasets[dataset]
        package = model.get("factory", "").partition(".")[0].partition(":")[0]
        given = model["kwargs"].get("num_classes") if package in NAMES_CLASSES else None
        if given is None or task_of(data) != CLASSIFICATION:
            continue
        size = DATASET_OPTIONS[data["source"]].size_of(data)
        classes = data["classes"] or (size.classes if size.known else None)
        if classes not in (None, given):
            raise ValleysError(
                f"config: models.{name}.kwargs.num_classes: {given!r}, but data set {dataset} has "
                f"{classes} classes; make it {classes}, or leave it out: it is passed by itself"
            )


def _check_shifts(experiment: Cells) -> None:
    """Check that images reflect less than all of them, where their size is known."""
    for cell in experiment.trained_cells:
        side = image_shape(experiment.datasets[cell.dataset])[1]
        augment = (
            {} if experiment.from_checkpoints(cell.recipe) else experiment.recipes[cell.recipe]["augment"]
        )
        if side and augment.get("pad_mode") == "reflect" and augment["shift"] >= side:
            raise ValleysError(
                f"config: recipes.{cell.recipe}.augment.shift: {augment['shift']}; to pad by reflection "
                f"it must be below the side of the images of data set {cell.dataset}, {side}"
            )


def _check_given(experiment: Cells) -> None:
    """Check that given weights can be looked for, and that no line has the same weights at both ends."""
    for cell in experiment.all_cells:
        for name in experiment.solutions_of(cell) if experiment.from_checkpoints(cell.recipe) else ():
            try:
                originals.shards(experiment, cell, name)
            except ValleysError as error:
                raise ValleysError(f"config: checkpoints.{cell.recipe}.solutions.{name}: {error}") from None
        for where, solution, other, name in _spans(experiment, cell):
            if reason := originals.same_weights(experiment, cell, solution, other, name):
                raise ValleysError(
                    f"config: {where}: {solution} of {cell.path} and {name} of {other.path} are the same "
                    f"weights, with a line of length zero between them: {reason}"
                )


def _spans(experiment: Cells, cell: Cell) -> Iterator[tuple[str, str, Cell, str]]:
    """Yield what runs from one solution of a cell to another, of this cell or of another."""
    for line in experiment.lines_of(cell):
        spec = experiment.config["lines"][line]
        yield f"lines.{line}", spec["start"], experiment.stop_cell(cell, line) or cell, spec["stop"]
    for probe in experiment.probes_of(cell):
        kind = experiment.config["probes"][probe]["kind"]
        if kind in NEEDS:
            yield f"probes.{probe}", NEEDS[kind][0], cell, NEEDS[kind][1]
        for seed in experiment.target_seeds(cell, probe):
            for name in experiment.probed_solutions(cell, probe):
                yield f"probes.{probe}", name, replace(cell, seed=seed), name
    for plane in experiment.planes_of(cell):
        for start, stop in itertools.combinations(experiment.config["planes"][plane]["through"] or (), 2):
            yield f"planes.{plane}.through", start, cell, stop


def _check_theory(experiment: Cells) -> None:
    """Check that simulations end in a lifetime, and that SGD does not diverge in them."""
    theory = experiment.config["theory"]
    valleys = len(theory["shapes"]) * len(theory["ratios"])
    runs = valleys * len(theory["rates"]) * len(theory["noises"]) * len(theory["levels"])
    steps = runs * theory["chains"] * (theory["burn_in"] + theory["iterates"])
    shifts = valleys * len(theory["shifts"]) * len(theory["scales"]) * len(theory["biases"])
    check_count("config: theory", "steps of SGD", steps, "chains * (burn_in + iterates) * rows")
    check_count("config: theory", "shifts", shifts * theory["draws"], "draws * rows")
    toy = experiment.config["toy_2d"]
    points = toy["n_draws"] * 2 * toy["n_per_class"]
    check_count("config: toy_2d", "data of the toy", points, "n_draws * 2 * n_per_class")
    check_count("config: toy_2d", "steps of the toy", points * toy["epochs"], "epochs * data")
    offsets = toy["n_draws"] * math.ceil(toy["reach"] / toy["step"])
    check_count("config: toy_2d", "points of the toy's curves", offsets, "n_draws * reach / step")
    scanned = toy["n_draws"] * toy["angles"] * len(toy["rises"]) * toy["points"]
    check_count("config: toy_2d", "points of the toy's scan", scanned, "n_draws * angles * rises * points")
    steepest = max(theory["ratios"]) * theory["slope"]
    if "quadratic" in theory["shapes"] and max(theory["rates"]) * steepest >= 2:
        raise ValleysError(
            f"config: theory.rates: {max(theory['rates'])} diverges in a quadratic valley of curvature "
            f"{steepest:g}; it must be below {2 / steepest:g}"
        )
