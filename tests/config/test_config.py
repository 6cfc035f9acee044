"""A mistake in the config is one clear line, and a stage depends on just the keys that change it."""

import contextlib
import copy
import json
import os
import re
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import ROOT, fill_defaults, load_config
from valleys.config import versions
from valleys.config.experiment import CELL_TABLES, RULES, Cell, Experiment, load
from valleys.config.schema import check, check_files, input_path, read_yaml
from valleys.costs.jobs import RULES as COSTS
from valleys.costs.jobs import Costs
from valleys.errors import ValleysError
from valleys.landscape import directions
from valleys.models import builder
from valleys.storage.weights import save_weights

BASE = load_config("config/smoke.yaml") | {"studies": {}}


def changed(raw, path, value):
    """A copy of a config with the value at a dotted path set, or dropped when it is `...`."""
    new = copy.deepcopy(raw)
    *way, last = (int(key) if key.isdigit() else key for key in path.split("."))
    at = new
    for key in way:
        at = at[key] if isinstance(at, list) else at.setdefault(key, {})
    if value is ...:
        del at[last]
    elif isinstance(at, list) and last == len(at):
        at.append(value)
    else:
        at[last] = value
    return new


def experiment(*changes):
    """The smoke experiment, with (path, value) changes made before defaults are filled in.

    Where all probes are replaced, the planes that they span are left out.
    """
    raw = changed(BASE, "planes", {}) if "probes" in dict(changes) else BASE
    for path, value in changes:
        raw = changed(raw, path, value)
    return Experiment(fill_defaults(raw))


# --- what is accepted ---


@pytest.mark.parametrize(
    "path", ["config.yaml", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("config/*.yaml"))]
)
def test_shipped_configs_pass(path):
    found = Experiment(fill_defaults(load_config(path)))
    assert found.cells
    assert found.root == f"results/{found.name}"


def test_defaults_are_filled_in(experiment_config):
    recipe = experiment_config["recipes"]["quick"]
    assert (recipe["momentum"], recipe["weight_decay"], recipe["nesterov"]) == (0.9, 5e-4, False)
    assert recipe["loss"] == {"name": "cross_entropy", "smoothing": 0.1, "gamma": 2}
    assert recipe["swa"] == {"start": 3, "lr": 0.05, "every": 1, "window": None}
    assert experiment_config["asymmetry"] == {
        "c": 2,
        "zeta_max": 0.5,
        "minimum_within": 0.25,
        "min_span": 0.25,
        "noise": 1e-6,
    }
    assert experiment_config["probes"]["uniform"]["solutions"] == ["sgd", "swa"]
    assert experiment_config["bn_refresh"] == {"method": "exact", "batch_size": 250}


def test_reading_the_config_imports_no_torch():
    code = "import sys, valleys.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "workflow/scripts")


# --- mistakes ---

QUICK = "recipes.quick"
RECIPE = BASE["recipes"]["quick"]
STUDY = {"dataset": "digits", "model": "mlp", "recipe": "quick"}

PATH = {"start": "swa", "stop": "descent", "path": "bezier"}
FOUR = ("epochs", "batch_size", "eval_every", "weight_decay")
NPZ = {"source": "numpy", "train": "a.npz", "test": "a.npz"}
MISTAKES = {
    "unknown top-level key": ("seedz", [0], ["top level", "'seedz'", "did you mean 'seeds'?"]),
    "mistyped recipe key": (f"{QUICK}.epcohs", 6, [QUICK, "'epcohs'", "did you mean 'epochs'?"]),
    "mistyped probe key": ("probes.uniform.pionts", 9, ["probes.uniform", "did you mean 'points'?"]),
    "mistyped swa key": (f"{QUICK}.swa.windw", 2, [f"{QUICK}.swa", "did you mean 'window'?"]),
    "key that is a number": ("recipes.quick.7", 1, [QUICK, "unknown key 7"]),
    "missing key": ("seeds", ..., ["top level", "missing seeds"]),
    "missing recipe key": (f"{QUICK}.lr", ..., [QUICK, "missing lr"]),
    "text for an integer": (f"{QUICK}.epochs", "six", [f"{QUICK}.epochs", "'six'", "integer"]),
    "float for an integer": (f"{QUICK}.epochs", 6.0, [f"{QUICK}.epochs", "6.0", "integer"]),
    "float for a seed": ("seeds.0", 0.0, ["seeds.0", "0.0", "integer"]),
    "truth value for an integer": (f"{QUICK}.epochs", True, [f"{QUICK}.epochs", "True", "integer"]),
    "infinite rate": (f"{QUICK}.lr", float("inf"), [f"{QUICK}.lr", "inf"]),
    "rate that is no number": (f"{QUICK}.lr", float("nan"), [f"{QUICK}.lr", "nan"]),
    "rate YAML reads as text": (f"{QUICK}.lr", "1e-3", [f"{QUICK}.lr", "'1e-3'", "number"]),
    "negative seed": ("seeds", [-1], ["seeds.0", "-1"]),
    "seeds twice": ("seeds", [1, 1], ["seeds", "1, 1", "unique"]),
    "no grid": ("grid", [], ["grid", "[]"]),
    "unknown loss": (f"{QUICK}.loss.name", "cross_entropi", ["loss.name", "did you mean 'cross_entropy'?"]),
    "unknown device": ("execution.device", "gpu", ["execution.device", "'gpu'", "auto, cpu, cuda"]),
    "unknown solution": ("lines.swa-descent.start", "swaa", ["swa-descent.start", "did you mean 'swa'?"]),
    "unknown architecture": ("models.mlp.arch", "mpl", ["models.mlp", "'mpl'", "'mlp'"]),
    "unknown model option": ("models.mlp.hiden", [3], ["models.mlp", "'hiden'", "did you mean 'hidden'?"]),
    "wrong model option": ("models.mlp.norm", "bacth", ["models.mlp", "norm", "'bacth'", "'batch'"]),
    "unknown source": ("datasets.digits.source", "digit", ["digits.source", "did you mean 'digits'?"]),
    "unknown data key": ("datasets.digits.trainsize", 5, ["datasets.digits", "did you mean 'train_size'?"]),
    "grid with an unknown model": ("grid.0.model", "mlpp", ["grid.0.model", "'mlpp'", "did you mean 'mlp'?"]),
    "grid with an unknown recipe": ("grid.0.recipe", ["quick", "slow"], ["grid.0.recipe", "'slow'", "quick"]),
    "grid with a bad name": ("grid.0.dataset", "../x", ["grid.0.dataset", "'../x'", "cannot be a name"]),
    "grid with a bad name in a list": ("grid.0.model", ["mlp", "a b"], ["grid.0.model.1", "'a b'", "name"]),
    "grid with a number": ("grid.0.model", 3, ["grid.0.model", "3"]),
    "swa starts at the end": (f"{QUICK}.swa.start", 6, [f"{QUICK}.swa.start", "6", "at most 5"]),
    "swa starts after the end": (f"{QUICK}.swa.start", 7, [f"{QUICK}.swa.start", "7", "at most 5"]),
    "swa keeps none": (f"{QUICK}.swa.every", 4, [f"{QUICK}.swa.start", "3", "at most 2"]),
    "window too long": (f"{QUICK}.swa.window", 4, [f"{QUICK}.swa.window", "4", "3 iterates"]),
    "nesterov without momentum": (QUICK, RECIPE | {"nesterov": True, "momentum": 0}, [f"{QUICK}.nesterov"]),
    "nesterov descent without momentum": (
        QUICK,
        RECIPE | {"nesterov": True, "descent": {"momentum": 0}},
        [f"{QUICK}.nesterov: needs descent.momentum above 0"],
    ),
    "reflects more than there is": (
        f"{QUICK}.augment",
        {"shift": 8, "pad_mode": "reflect"},
        [f"{QUICK}.augment.shift: 8", "below", "digits, 8"],
    ),
    "a mean for each of three channels": ("datasets.digits.mean", [0.5] * 3, ["digits.mean", "1 numbers"]),
    "deviations of no picture": (
        "datasets.digits",
        {"source": "image_folder", "train": "a", "test": "b", "size": 8, "std": [0.2]},
        ["digits.std is [0.2]; it must be 3 numbers, one a channel"],
    ),
    "even points": ("probes.uniform.points", 20, ["probes.uniform.points", "20", "odd"]),
    "points too few for zeta_max": ("asymmetry.zeta_max", 0.05, ["uniform.points", "21", "zeta_max", "41"]),
    "window constants at odds": ("asymmetry.min_span", 0.8, ["min_span", "0.8", "zeta_max", "0.5"]),
    "toy steps that miss the reach": ("toy_2d.step", 1.0, ["toy_2d.step: 1.0", "reach, 7.5", "whole number"]),
    "toy steps too long": ("toy_2d.step", 6, ["toy_2d.step", "6", "zeta_max", "3.75"]),
    "steps too long for a valley": ("theory.rates", [0.1, 0.5], ["theory.rates", "0.5", "below 0.5"]),
    "steep side that is flat": ("theory.ratios", [0.5], ["theory.ratios.0", "0.5"]),
    "unknown shape": ("theory.shapes", ["linaer"], ["theory.shapes.0", "did you mean 'linear'?"]),
    "noise that is none": ("theory.levels", [0], ["theory.levels.0", "0"]),
    "unknown kind": ("probes.uniform.kind", "unifrom", ["probes.uniform.kind", "did you mean 'uniform'?"]),
    "unknown group": ("probes.uniform.group", "batchnorm", ["uniform.group", "classifier"]),
    "group of a layer without a name": ("probes.uniform.group", "layer:", ["'layer:' names no layer"]),
    "group of no layer's name": ("probes.uniform.group", "layer:<name>", ["uniform.group", "names no layer"]),
    "filter over batch norm": ("probes.uniform", {"kind": "filter", "group": "bn"}, ["filter", "bn"]),
    "to_seed with one seed": ("probes.other", {"kind": "to_seed"}, ["probes.other", "second seed"]),
    "name with a path": ("name", "../x", ["name", "'../x'", "cannot be a name"]),
    "name with a line end": ("name", "x\n", ["name", "cannot be a name"]),
    "probe name with a path": ("probes.a/b", {"kind": "uniform"}, ["probes", "'a/b'", "cannot be a name"]),
    "recipe name with a space": ("recipes.a b", RECIPE, ["'a b'", "cannot be a name"]),
    "data set called like a log file": (
        "",
        BASE | {"datasets": BASE["datasets"] | {"toy_2d.log": {"source": "digits"}}},
        ["config: datasets", "'toy_2d.log' ends as log files"],
    ),
    "model called like a benchmark": (
        "",
        BASE | {"models": BASE["models"] | {"a.tsv": {"arch": "mlp"}}},
        ["config: models", "'a.tsv' ends as log files"],
    ),
    "study name with a capital": ("studies.A-b", {}, ["'A-b'", "use small letters, digits and '_'"]),
    "hidden model name": ("models..x", {}, ["models"]),
    "grid with an unknown probe": ("grid.0.probes", ["unifrom"], ["grid.0.probes", "mean 'uniform'?"]),
    "grid with an unknown line": ("grid.0.lines", ["x"], ["grid.0.lines", "'x'", "swa-descent"]),
    "start that is none": (f"{QUICK}.start_from", {"recipe": "quik"}, [QUICK, "did you mean 'quick'?"]),
    "start from itself": (f"{QUICK}.start_from", {"recipe": "quick"}, [QUICK, "circle: quick -> quick"]),
    "study with an unknown model": ("studies.s", STUDY | {"model": "m"}, ["studies.s.model", "'m'", "mlp"]),
    "study with an unknown probe": ("studies.s", STUDY | {"probes": ["m"]}, ["studies.s.probes", "'m'"]),
    "study named as a table": ("studies.curves", STUDY, ["studies", "'curves'", "table or target"]),
    "study named as a rule": ("studies.train_sgd", STUDY, ["studies", "'train_sgd'", "or of a rule"]),
    "seed beyond 64 bits": ("seeds", [2**63], ["seeds.0", "64 bits"]),
    "seed of 5000 digits": ("seeds", [1 << 20_000], ["seeds.0", "20001 bits"]),
    "seed that loses digits": ("seeds", [2**53], ["seeds.0", "9007199254740991"]),
    "huge argument": ("models.mlp", {"factory": "a:b", "kwargs": {"n": -(2**63) - 1}}, ["kwargs.n", "64 bits"]),  # noqa: E501
    "rate beyond float32": (f"{QUICK}.lr", 1e308, [f"{QUICK}.lr", "1e+308", "out of range"]),
    "rate that float32 has not": (f"{QUICK}.lr", 5e-324, [f"{QUICK}.lr", "out of range"]),
    "momentum that is 1 in float32": (f"{QUICK}.momentum", 1 - 1e-12, [f"{QUICK}.momentum", "0.999999"]),
    "decay that float32 has not": (f"{QUICK}.weight_decay", 1e-40, [f"{QUICK}.weight_decay", "out of range"]),
    "endless training": (f"{QUICK}.epochs", 10**12, [f"{QUICK}.epochs", "maximum of 1000000"]),
    "endless curves": ("probes.uniform.points", 10**9 + 1, ["uniform.points", "maximum"]),
    "endless directions": ("probes.uniform", {"kind": "uniform", "n": 10**6, "points": 1001}, ["n * points"]),
    "endless line": ("lines.swa-descent.first", -1e9, ["swa-descent.first", "minimum"]),
    "endless theory": ("theory", {"chains": 10**8, "iterates": 10**7}, ["theory: chains * (burn_in + iterates)"]),  # noqa: E501
    "endless toy": ("toy_2d", {"step": 1e-6, "reach": 1e3}, ["toy_2d: n_draws * reach / step"]),
    "huge network": ("models.mlp.hidden", [10**6, 10**6], ["model.hidden", "more weights than any machine"]),
    "wide network": ("models.mlp", {"arch": "resnet8", "width": 10**9}, ["model.width", "at most 4096"]),
    "huge image": ("datasets.digits", {"source": "parquet", "train": "a", "test": "a", "size": 10**9}, ["size"]),  # noqa: E501
    "deviation of nothing": ("datasets.digits.std", [0], ["digits.std", "at least 1e-06"]),
    "endless study": (
        "studies",
        {"s": STUDY | {"design": "full", "factors": {f"recipe.{k}": list(range(1, 100)) for k in FOUR}}},
        ["studies.s.design", "96059601 combinations"],
    ),
    "a path that a rule cannot have": ("datasets.digits", NPZ | {"train": "a{seed}.npz"}, ["train", "{seed}"]),  # noqa: E501
    "study named as a target": ("studies.swa", STUDY, ["studies", "'swa'", "table or target"]),
    "study with a bad name": ("studies.S-1", STUDY, ["studies", "'S-1'", "name"]),
    "factor that is none": ("studies.s", STUDY | {"factors": {"width": [1]}}, ["'width'", "model.<option>"]),
    "factor of no model": ("studies.s", STUDY | {"factors": {"model.widht": [1]}}, ["studies.s", "widht"]),
    "factor of no recipe": ("studies.s", STUDY | {"factors": {"recipe.lrr": [1]}}, ["recipe.lrr", "lr"]),
    "level that is none": ("studies.s", STUDY | {"factors": {"model.norm": ["bacth"]}}, ["'bacth'", "batch"]),
    "level of another type": ("studies.s", STUDY | {"factors": {"recipe.epochs": ["x"]}}, ["epochs", "'x'"]),
    "level out of range": ("studies.s", STUDY | {"factors": {"recipe.epochs": [2]}}, ["swa.start", "2"]),
    "named level that is none": ("studies.s", STUDY | {"factors": {"recipe": ["x"]}}, ["factors.recipe"]),
    "sample without runs": (
        "studies.s", STUDY | {"design": "sample", "factors": {"model.norm": ["batch"]}}, ["runs", "missing"],
    ),
    "runs without sample": ("studies.s", STUDY | {"runs": 3}, ["studies.s.runs", "only for design 'sample'"]),
    "sample of nothing": ("studies.s", STUDY | {"design": "sample", "runs": 2}, ["s.design", "factors"]),
    "sample with seeds": (
        "studies.s",
        STUDY | {"design": "sample", "runs": 2, "seeds": [1], "factors": {"model.norm": ["batch"]}},
        ["studies.s.seeds", "seed of its own"],
    ),
    "line to itself": ("lines.swa-descent.stop", "swa", ["lines.swa-descent", "'swa'", "stop_recipe"]),
    "line to no recipe": ("lines.swa-descent.stop_recipe", "quik", ["stop_recipe", "did you mean 'quick'?"]),
    "line to its own recipe": ("lines.swa-descent.stop_recipe", "quick", ["swa-descent", "'quick'", "grid"]),
    "line to no seed": ("lines.swa-descent.stop_seed", "next", ["lines.swa-descent", "greater seed"]),
    "line to a seed by number": ("lines.swa-descent.stop_seed", 1, ["stop_seed", "1", "own, next"]),
    "unknown path": ("lines.swa-descent.path", "beziér", ["lines.swa-descent.path", "'bezier'?"]),
    "path beyond its ends": ("lines.x", PATH | {"last": 2}, ["lines.x.last", "2", "bezier", "leave"]),
    "path before its start": ("lines.x", PATH | {"first": -1}, ["lines.x.first", "-1", "bezier", "leave"]),
    "path with frozen statistics": ("lines.x", PATH | {"bn": "frozen"}, ["lines.x.bn", "'refreshed'"]),
    "path without bends": ("lines.x", PATH | {"bends": 0}, ["lines.x.bends", "0"]),
    "line that starts in itself": ("lines.swa-descent.last", 0.5, ["swa-descent.last", "0.5"]),
    "plane of nothing": ("planes.new", {}, ["planes.new", "nothing given", "one of through, pca and span"]),
    "plane of two kinds": ("planes.solutions.pca", True, ["planes.solutions", "through and pca given"]),
    "mistyped plane key": ("planes.solutions.margn", 1, ["planes.solutions", "did you mean 'margin'?"]),
    "plane through two": ("planes.solutions.through", ["sgd", "swa"], ["s.through", "three different"]),
    "plane through one twice": (
        "planes.solutions.through", ["sgd", "swa", "sgd"], ["solutions.through", "three different"]
    ),
    "plane through an unknown": (
        "planes.solutions.through.2", "decent", ["solutions.through.2", "did you mean 'descent'?"]
    ),
    "plane of too few points": ("planes.solutions.points", 2, ["solutions.points", "2"]),
    "plane of two iterates": (f"{QUICK}.swa.start", 4, ["iterates.pca", "quick keeps 2", "at least 3"]),
    "span of one": ("planes.directions.span", ["uniform/0"], ["directions.span", "two different"]),
    "span of the same twice": ("planes.directions.span.1", "uniform/00", ["s.span", "two different"]),
    "span without a number": ("planes.directions.span.1", "uniform", ["'uniform'", "<probe>/<k>"]),
    "span of an unknown probe": ("planes.directions.span.1", "unifrom/1", ["did you mean 'uniform'?"]),
    "span beyond the last": ("planes.directions.span.1", "uniform/2", ["'uniform/2'", "has 2 direction(s)"]),
    "span of a single kind": ("planes.directions.span.1", "gradient/1", ["'gradient/1'", "1 direction(s)"]),
    "span at another solution": ("planes.directions.at", "swa", ["gradient", "no directions at swa", "sgd"]),
    "span of the same under another name": (
        "",
        BASE
        | {
            "probes": {name: {"kind": "uniform", "n": n} for name, n in (("u", 1), ("v", 4))},
            "planes": {"p": {"span": ["u/0", "v/0"]}},
        },
        ["planes.p.span", "two different directions"],
    ),
    "components of too few iterates": ("probes.p", {"kind": "pca", "n": 3}, ["p.n", "keeps 3", "at least 4"]),
    "exact slopes of a streaming refresh": (
        "",
        BASE | {"bn_refresh": {"method": "streaming"}, "probes": {"u": {"kind": "pca", "slopes": "exact"}}},
        ["probes.u.slopes", "exact", "streaming"],
    ),
    "exact slopes in bf16": (
        None,
        BASE | {"probes": {"u": {"kind": "pca", "slopes": "exact", "precision": "bf16"}}},
        ["probes.u.precision", "bf16", "exact"],
    ),
    "unknown slopes": ("probes.uniform.slopes", "exakt", ["uniform.slopes", "did you mean 'exact'?"]),
}  # fmt: skip


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_one_line_with_its_place(what):
    path, value, words = MISTAKES[what]
    if path == "models..x":
        raw = copy.deepcopy(BASE)
        raw["models"][".x"] = {"arch": "mlp"}
        words = ["config: models", "'.x'", "cannot be a name"]
    else:
        raw = changed(BASE, path, value) if path else value
    with pytest.raises(ValleysError) as caught:
        Experiment(fill_defaults(raw))
    message = str(caught.value)
    assert message.startswith("config: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_the_base_of_the_mistakes_is_right():
    assert len(experiment().cells) == 1


# --- cells ---


def test_grid_is_expanded_in_order_and_without_repeats():
    raw = changed(BASE, "models.deep", {"arch": "mlp", "hidden": [8, 8]})
    raw = changed(raw, "seeds", [10, 9])
    raw["grid"] = [
        {"dataset": "digits", "model": ["mlp", "deep"], "recipe": "quick"},
        {"dataset": ["digits"], "model": "mlp", "recipe": ["quick", "quick"], "seeds": [9, 2]},
    ]
    cells = Experiment(fill_defaults(raw)).cells
    assert [(c.model, c.seed) for c in cells] == [
        ("deep", 9),
        ("deep", 10),
        ("mlp", 2),
        ("mlp", 9),
        ("mlp", 10),
    ]
    assert cells[0].path == "digits/deep/quick/seed-9"
    assert cells[0].columns() == {"dataset": "digits", "model": "deep", "recipe": "quick", "seed": 9}


def test_cells_are_ordered_by_name_then_by_number():
    cells = [Cell("b", "a", "a", 0), Cell("a", "a", "a", 10), Cell("a", "a", "a", 9), Cell("a", "b", "a", 1)]
    assert [cells.index(c) for c in sorted(cells)] == [2, 1, 3, 0]
    assert len({Cell("a", "a", "a", 1), Cell("a", "a", "a", 1)}) == 1


def test_probes_on_norm_parameters_are_skipped_without_norm():
    probes = {
        "whole": {"kind": "uniform"},
        "scale": {"kind": "uniform", "group": "bn_weight"},
        "norm": {"kind": "gaussian", "group": "bn"},
        "head": {"kind": "uniform", "group": "classifier"},
    }
    found = experiment(
        ("probes", probes),
        ("models.plain", {"arch": "mlp", "norm": "none"}),
        ("models.default", {"arch": "mlp"}),  # its norm is none by default
        ("grid.0.model", ["mlp", "plain", "default"]),
    )
    by_model = {cell.model: cell for cell in found.cells}
    assert found.probes_of(by_model["mlp"]) == ["whole", "scale", "norm", "head"]
    assert found.probes_of(by_model["plain"]) == found.probes_of(by_model["default"]) == ["whole", "head"]
    assert found.parts(by_model["plain"], "curves") == [
        f"probes/{p}/curves.parquet" for p in ("whole", "head")
    ]


def test_probes_on_groups_that_an_architecture_has_not_are_skipped():
    """And only those: of an mlp ``conv`` is its hidden layers."""
    groups = ("all", "not_bn", "bn", "bn_weight", "bn_bias", "conv", "classifier")
    found = experiment(
        ("probes", {name: {"kind": "uniform", "group": name} for name in groups}),
        ("models.linear", {"arch": "mlp", "norm": "batch", "hidden": []}),
        ("models.pixels", {"arch": "resnet8", "norm": "batch"}),
        ("grid.0.model", ["mlp", "linear", "pixels"]),
    )
    for cell in found.cells:
        net, there = builder.build(found.models[cell.model], in_shape=(1, 8, 8), classes=10), []
        for group in groups:
            with contextlib.suppress(ValleysError):  # an empty group
                there += [group] if directions.parameter_group(net, group) else []
        assert found.probes_of(cell) == there, cell.model


def seeded(*seeds, n=2, **probe):
    """An experiment that probes towards other seeds."""
    return experiment(("seeds", list(seeds)), ("probes.other", {"kind": "to_seed", "n": n, **probe}))


def targets(found):
    return {cell.seed: found.target_seeds(cell, "other") for cell in found.cells}


def test_directions_to_other_seeds_go_to_smaller_ones_first():
    assert targets(seeded(3, 7, 5, 0)) == {0: [3, 5], 3: [0, 5], 5: [3, 0], 7: [5, 3]}
    assert targets(seeded(0, 1, 2, n=1)) == {0: [1], 1: [0], 2: [1]}
    assert targets(seeded(4, 9, n=10)) == {4: [9], 9: [4]}, "fewer than n when there are no more"
    found = seeded(0, 1)
    assert all(found.target_seeds(cell, "gradient") == [] for cell in found.cells)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_greater_seed_leaves_complete_targets_as_they_were(n):
    for count in range(2, 6):
        before, after = targets(seeded(*range(count), n=n)), targets(seeded(*range(count + 1), n=n))
        changed = {seed for seed in before if before[seed] != after[seed]}
        assert changed == {seed for seed in before if len(before[seed]) < n}
        # Directions already probed keep their numbers.
        assert all(after[seed][: len(before[seed])] == before[seed] for seed in before)


def test_a_cell_without_other_seeds_has_no_direction_to_one():
    found = experiment(
        ("seeds", [0, 1]),
        ("probes.other", {"kind": "to_seed"}),
        ("models.alone", {"arch": "mlp"}),
        ("grid.1", {"dataset": "digits", "model": "alone", "recipe": "quick", "seeds": [5]}),
    )
    applies = {cell.path: "other" in found.probes_of(cell) for cell in found.cells}
    assert applies == {
        "digits/alone/quick/seed-5": False,
        "digits/mlp/quick/seed-0": True,
        "digits/mlp/quick/seed-1": True,
    }


def lined(*seeds, **lines):
    """An experiment of two recipes, the second without the greatest seed, with these lines."""
    return experiment(
        ("seeds", list(seeds)),
        ("recipes.wide", RECIPE),
        ("grid.1", {"dataset": "digits", "model": "mlp", "recipe": "wide", "seeds": sorted(seeds)[:-1]}),
        ("lines", lines),
    )


def stops(found, line):
    """Where a line that starts in each cell stops."""
    ends = {(cell.recipe, cell.seed): found.stop_cell(cell, line) for cell in found.cells}
    assert {at for at, stop in ends.items() if stop} == {
        (cell.recipe, cell.seed) for cell in found.cells if line in found.lines_of(cell)
    }
    return {at: (stop.recipe, stop.seed) for at, stop in ends.items() if stop}


def test_lines_apply_where_the_other_end_exists():
    swa = {"start": "swa", "stop": "swa"}
    found = lined(
        3,
        7,
        5,
        own={"start": "swa", "stop": "descent"},
        recipe=swa | {"stop_recipe": "wide"},
        next=swa | {"stop_seed": "next"},
        both={"start": "sgd", "stop": "swa", "stop_recipe": "wide", "stop_seed": "next"},
    )
    cells = [("quick", 3), ("quick", 5), ("quick", 7), ("wide", 3), ("wide", 5)]
    assert stops(found, "own") == {cell: cell for cell in cells}
    assert stops(found, "recipe") == {("quick", 3): ("wide", 3), ("quick", 5): ("wide", 5)}
    assert stops(found, "next") == {
        ("quick", 3): ("quick", 5),
        ("quick", 5): ("quick", 7),
        ("wide", 3): ("wide", 5),
    }
    assert stops(found, "both") == {("quick", 3): ("wide", 5)}
    quick = {cell.seed: cell for cell in found.cells if cell.recipe == "quick"}
    assert found.parts(quick[7], "interpolation") == ["lines/own.parquet"]
    assert found.interpolate(quick[3], "both")["line"]["stop_recipe"] == "wide"
    assert found.interpolate(quick[3], "both")["line"]["stop_seed"] == 5
    with pytest.raises(ValleysError, match="line next: no cell for its stop"):
        found.interpolate(quick[7], "next")


def test_greater_seeds_change_no_line_to_the_next():
    line = {"next": {"start": "swa", "stop": "swa", "stop_seed": "next"}}
    for count in range(2, 6):
        before, after = (stops(lined(*range(n), **line), "next") for n in (count, count + 2))
        assert before.items() <= after.items()
        assert len(before) == (count - 1) + (count - 2)


def test_default_ends_of_straight_lines_and_of_paths():
    found = experiment(
        ("lines.straight", {"start": "swa", "stop": "sgd"}),
        ("lines.path", PATH),
        ("lines.chain", PATH | {"path": "chain", "first": 0, "last": 1.0, "lr": 0.3, "bends": 2}),
    )
    (cell,) = found.cells
    ends = {line: found.interpolate(cell, line)["line"] for line in found.config["lines"]}
    assert {line: (spec["first"], spec["last"]) for line, spec in ends.items()} == {
        "swa-descent": (-1, 2),
        "straight": (-2, 3),
        "path": (0, 1),
        "chain": (0, 1),
    }
    assert found.connect(cell, "path")["line"] == {"path": "bezier", "bends": 1, "epochs": 10, "lr": 0.05}
    assert found.connect(cell, "chain")["line"] == {"path": "chain", "bends": 2, "epochs": 10, "lr": 0.3}


def test_lines_within_a_cell_are_for_swa_and_others_for_basin():
    assert experiment().named("basin") == (["interpolation"], [])
    swa = {"start": "swa", "stop": "swa"}
    found = lined(
        0,
        1,
        own={"start": "swa", "stop": "descent"},
        path=PATH,
        recipe=swa | {"stop_recipe": "wide"},
        next=swa | {"stop_seed": "next"},
    )
    assert found.named("swa")[1] == ["training", "line-own"]
    assert found.named("basin")[1] == ["line-path", "line-recipe", "line-next"]


def test_parts_and_figures_name_tables_that_are_declared():
    from valleys.storage import tables

    found = experiment()
    assert set(found.tables()) == set(tables.declared()) - {"study", "comparison"}
    assert found.parts(found.cells[0], "training") == ["training.parquet", "descent.parquet"]
    assert found.parts(found.cells[0], "interpolation") == ["lines/swa-descent.parquet"]
    assert found.parts(found.cells[0], "asymmetry") == ["asymmetry.parquet"]
    assert "curves-uniform" in found.figures()
    for figure in found.figures():
        assert set(found.figure_tables(figure)) <= set(tables.declared())


def test_planes_go_to_the_smallest_seeds_that_have_their_directions():
    found = experiment(
        ("seeds", [3, 0, 7]),
        ("grid.1", {"dataset": "digits", "model": "plain", "recipe": "quick", "seeds": [5]}),
        ("models.plain", {"arch": "mlp", "norm": "none"}),
        ("probes.scale", {"kind": "uniform", "group": "bn_weight"}),
        ("probes.other", {"kind": "to_seed", "n": 3}),
        ("planes.solutions.seeds", 2),
        ("planes.scale", {"span": ["scale/0", "scale/9"]}),
        ("planes.others", {"span": ["other/0", "other/1"]}),
        ("planes.too-many", {"span": ["other/0", "other/2"]}),
    )
    planes = {f"{cell.model}/{cell.seed}": found.planes_of(cell) for cell in found.cells}
    assert planes == {
        "mlp/0": ["solutions", "iterates", "directions", "scale", "others"],
        "mlp/3": ["solutions"],
        "mlp/7": [],
        "plain/5": ["solutions", "iterates", "directions"],
    }
    assert found.parts(found.cells[1], "plane_points") == ["planes/solutions/plane_points.parquet"]
    assert "plane-too-many" in found.figures()


def test_a_cell_without_all_solutions_has_no_plane():
    found = experiment(("grid.0.solutions", ["sgd"]), ("grid.0.lines", []))
    assert found.planes_of(found.cells[0]) == []
    assert experiment().planes_of(found.cells[0]) == list(found.config["planes"])


def test_more_directions_leave_a_plane_that_two_of_them_span():
    assert "plane directions" not in differences(("probes.uniform.n", 3))
    old, new = (experiment(*c).provenance("planes") for c in ((), (("probes.uniform.n", 3),)))
    assert old == new


def test_probes_of_kind_sign_have_one_figure_together():
    assert "sign" not in experiment().figures()
    probes = {
        "a": {"kind": "sign", "share": 1},
        "b": {"kind": "sign", "group": "conv"},
        "sign": {"kind": "uniform"},
    }
    found = experiment(("probes", probes)).figures()
    assert [name for name in found if name.startswith(("curves", "sign"))] == ["curves-sign", "sign"]


def test_the_default_probes_signs_and_controls():
    probes = Experiment(fill_defaults(load_config("config.yaml"))).config["probes"]
    signs = {(p["group"], p["share"]) for p in probes.values() if p["kind"] == "sign"}
    # Shares below one half are the mirror images of those above.
    shares = {"all": (0.5, 0.75, 1)} | dict.fromkeys(("bn_weight", "conv", "classifier"), (1,))
    assert signs == {(group, share) for group, some in shares.items() for share in some}
    controls = {"uniform_symmetric", "constant", "sign_w", "gaussian"}
    assert controls < {p["kind"] for p in probes.values()}
    rule = [probes["uniform"][key] for key in ("radius", "relative", "rise", "bn")]
    for name, probe in probes.items():
        if probe["kind"] in controls | {"sign"} and name != "far-control":
            assert [probe[key] for key in ("radius", "relative", "rise", "bn")] == rule


def test_source_files_are_those_that_exist(tmp_path):
    for name in ("b.parquet", "a.parquet", "test.parquet"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.parquet").mkdir()
    spec = {
        "source": "parquet",
        "train": [f"{tmp_path}/[abf]*.parquet", f"{tmp_path}/none"],
        "test": f"{tmp_path}/test.parquet",
    }
    found = experiment(("datasets.own", spec), ("datasets.digits", BASE["datasets"]["digits"]))
    assert found.source_files("own") == [f"{tmp_path}/{n}.parquet" for n in ("a", "b", "test")]
    assert found.source_files("digits") == []


# --- what is wanted of a cell ---


def test_a_grid_entry_chooses_solutions_probes_and_lines():
    found = experiment(("grid.0.solutions", ["sgd"]), ("grid.0.probes", ["uniform"]), ("grid.0.lines", []))
    cell = found.cells[0]
    assert found.solutions_of(cell) == ["sgd"]
    assert found.probes_of(cell) == ["uniform"]
    assert found.probe(cell, "uniform")["probes"]["uniform"]["solutions"] == ["sgd"]
    assert found.parts(cell, "training") == ["training.parquet"]
    assert found.parts(cell, "interpolation") == []
    assert "curves-gradient" not in found.figures()
    assert "line-swa-descent" not in found.figures()


def test_a_line_makes_its_ends():
    found = experiment(("grid.0.solutions", ["sgd"]))
    assert found.solutions_of(found.cells[0]) == ["sgd", "swa", "descent"]


def test_entries_for_one_cell_add_up():
    one = {"dataset": "digits", "model": "mlp", "recipe": "quick", "solutions": ["sgd"], "lines": []}
    grid = [one | {"probes": ["gradient"]}, one | {"probes": ["uniform"], "solutions": ["swa"]}]
    found = experiment(("grid", grid))
    assert len(found.cells) == 1
    assert found.probes_of(found.cells[0]) == ["uniform", "gradient"]
    assert found.solutions_of(found.cells[0]) == ["sgd", "swa"]


def test_probes_together_are_one_job_with_the_same_blocks():
    apart, together = experiment(), experiment(("execution.probe_jobs", "together"))
    cell = apart.cells[0]
    assert apart.bundles_of(cell) == {"uniform": ["uniform"], "gradient": ["gradient"]}
    assert together.bundles_of(cell) == {"together": ["uniform", "gradient"]}
    blocks = {name: apart.probe(cell, name)["probes"][name] for name in ("uniform", "gradient")}
    assert together.probe(cell, "together")["probes"] == blocks
    assert together.parts(cell, "curves") == ["probes/together/curves.parquet"]


def test_a_started_recipe_trains_from_its_start():
    found = experiment(("recipes.more", BASE["recipes"]["quick"] | {"start_from": {"recipe": "quick"}}))
    assert found.train_sgd("mlp", "more", 0)["recipe"]["start_from"] == {"recipe": "quick", "solution": "sgd"}
    assert "start_from" not in found.train_sgd("mlp", "quick", 0)["recipe"]


START = {"epochs": 6, "lr": 0.1, "swa": {"start": 3, "lr": 0.05}}
STARTS = {
    "recipe not in the grid": ({"recipe": "first"}, {}),
    "its average": ({"recipe": "first", "solution": "swa"}, {"keep": "window"}),
    "its descent, nothing kept": ({"recipe": "first", "solution": "descent"}, {"keep": "none"}),
    "one that is itself started": ({"recipe": "second"}, {}),
}


@pytest.mark.parametrize(("start", "execution"), STARTS.values(), ids=STARTS)
def test_a_recipe_starts_from_cells_that_nobody_else_wants(start, execution):
    """Costs and plan know them, tables do not."""
    found = experiment(
        ("recipes.first", START),
        ("recipes.second", START | {"start_from": {"recipe": "first", "solution": "swa"}}),
        ("recipes.quick", RECIPE | {"start_from": start}),
        ("probes.other", {"kind": "to_seed"}),
        ("lines.next", {"start": "sgd", "stop": "sgd", "stop_seed": "next"}),
        ("grid.0.seeds", [0, 1]),
        ("execution", execution),
        ("studies.norms", STUDY | {"factors": {"model.norm": ["batch", "none"]}, "seeds": [5]}),
    )
    more = set(found.trained_cells) - set(found.all_cells)
    passed = {"first"} | ({"second"} if start["recipe"] == "second" else set())
    assert {cell.recipe for cell in more} == passed
    assert len(more) == 4 * len(passed)  # seeds 0 and 1, and two models with seed 5
    assert not more & set(found.wanted)
    priced = Costs(found)
    for cell in more:
        assert found.solutions_of(cell) == found.probes_of(cell) == found.planes_of(cell) == []
        wildcards = {**cell.columns(), "seed": str(cell.seed), "solution": "sgd"}
        for rule in ("train_sgd", "average", "refresh_bn", "descend"):
            assert priced(rule, wildcards).seconds > 0
        made = {"window": 3, "none": 0}.get(execution.get("keep"), 3)
        assert found.iterates_of(cell) == made


def test_studies_may_be_named_as_methods_of_snakemakes_lists():
    names = {name: STUDY | {"factors": {"model.norm": ["none"]}} for name in ("items", "get", "keys", "x")}
    assert list(experiment(("studies", names)).studies) == list(names)
    assert set(COSTS) == set(RULES)


def test_checkpoints_have_no_other_places_than_those_filled_in():
    given = {"solutions": {"sgd": "a-{seed}-{model}-{dataset}-{recipe}.pt", "best": "a-{epoch}.pt"}}
    with pytest.raises(
        ValleysError, match=r"given\.solutions\.best: a-\{epoch\}\.pt: \{epoch\} is not filled in"
    ):
        experiment(("checkpoints.given", given), ("grid.0.recipe", "given"))


def test_paths_below_a_folder_with_braces_are_made_relative(tmp_path, monkeypatch):
    folder = tmp_path / "a{seed}b"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert input_path(str(folder / "x" / "a.npz")) == "x/a.npz"
    assert input_path(str(tmp_path / "a.npz")) == str(tmp_path / "a.npz")
    assert input_path("{x.npz") == "{x.npz"
    for path in (str(folder / "{x}.npz"), str(tmp_path / "{y}" / "a.npz")):
        with pytest.raises(ValleysError, match="in a path for a wildcard"):
            input_path(path)


def test_blocks_that_hold_themselves_are_refused():
    loop = {}
    loop["a"] = [loop]
    with pytest.raises(ValleysError, match="more than 50 deep"):
        check(BASE | {"models": {"m": {"factory": "a:b", "kwargs": loop}}})


def test_training_starts_from_no_given_weights():
    given = {"solutions": {"sgd": "a.pt"}}
    with pytest.raises(ValleysError, match="is of checkpoints; choose a recipe"):
        experiment(("checkpoints.given", given), (QUICK, RECIPE | {"start_from": {"recipe": "given"}}))


def study(**keys):
    """The smoke experiment with one study of some factors."""
    return experiment(("studies.s", STUDY | keys))


def test_a_study_has_tables_figures_and_a_target_of_its_own():
    found = study(factors={"recipe.weight_decay": [0, 0.1]}, solutions=["sgd", "swa"], lines=["swa-descent"])
    assert {"s", "s_lines"} < set(found.tables())
    assert found.named("s") == (["s", "s_lines"], ["study-s", "line-swa-descent"])
    assert found.cells == experiment().cells  # other tables are of the grid's cells alone
    assert [cell.recipe for cell in found.cells_of("s")] == [
        "quick", "quick.weight_decay-0", "quick.weight_decay-0.1",
    ]  # fmt: skip
    base = found.cells[0]
    assert base in found.studies["s"]  # shared: trained once
    assert found.figure_needs()["line-swa-descent"] == ["interpolation", "s_lines"]
    params = found.study("s")
    assert [cell["levels"]["recipe.weight_decay"] for cell in params["cells"]] == [0.0005, 0, 0.1]
    assert found.train_sgd("mlp", "quick.weight_decay-0.1", 0)["recipe"]["weight_decay"] == 0.1


def test_a_study_of_another_level_trains_just_that():
    few = study(factors={"model.activation": ["relu", "tanh"]})
    more = study(factors={"model.activation": ["relu", "tanh", "gelu"]})
    assert {c.model for c in set(more.all_cells) - set(few.all_cells)} == {"mlp.activation-gelu"}
    assert set(few.all_cells) < set(more.all_cells)


# --- weights from elsewhere, by any name ---


def given(solutions, *changes):
    """An experiment on given weights alone, of two seeds where their paths have {seed}."""
    weights = {name: f"{name}-{{seed}}.pt" for name in solutions}
    plain = (
        ("recipes", {}),
        ("checkpoints", {"theirs": {"solutions": weights}}),
        ("grid.0.recipe", "theirs"),
    )
    return experiment(*plain, ("lines", {}), ("probes", {"u": {"kind": "uniform"}}), *changes)


def test_probes_look_at_own_names_unless_they_list_one():
    def looked(solutions, listed):
        found = given(solutions, ("probes.u.solutions", listed))
        return found.probed_solutions(found.cells[0], "u")

    assert looked(["mine"], ["sgd", "swa"]) == ["mine"]
    assert looked(["mine", "swa", "b"], ["sgd", "swa"]) == ["swa", "mine", "b"]
    assert looked(["mine", "sgd", "b"], ["b", "sgd"]) == ["b", "sgd"]
    assert looked(["sgd", "swa", "descent"], ["swa", "sgd"]) == ["swa", "sgd"]
    found = given(["mine", "other", "swa"], ("grid.0.solutions", ["other"]))
    assert found.solutions_of(found.cells[0]) == ["other"]


def test_lines_and_planes_need_the_solutions_they_name():
    line = {"start": "mine", "stop": "swa"}
    plane = {"through": ["mine", "other", "swa"]}
    span = {"span": ["u/0", "u/1"], "at": "mine"}
    found = given(["mine", "other", "swa"], ("lines.x", line), ("planes", {"p": plane, "q": span}))
    assert [found.lines_of(cell) for cell in found.cells] == [["x"]]
    assert found.planes_of(found.cells[0]) == ["p", "q"]
    assert found.plane("theirs", "p")["plane"]["at"] == "mine"


NAMES = {
    "unknown to a probe": (("probes.u.solutions", ["mne"]), "probes.u.solutions: 'mne' is no.* mean 'mine'"),
    "unknown to a line": (
        ("lines.x", {"start": "mne", "stop": "mine"}),
        "lines.x.start: 'mne' is no solution",
    ),
    "unknown to a plane": (
        ("planes", {"p": {"through": ["mine", "other", "c"]}}),
        r"planes.p.through.2: 'c' is no solution; choose from sgd, swa, descent, mine, other",
    ),
    "unknown to the grid": (("grid.0.solutions", ["c"]), "grid.0.solutions: 'c' is no solution"),
    "not there": (
        ("lines.x", {"start": "mine", "stop": "swa"}),
        "lines.x: no line runs from 'mine' to 'swa': theirs has mine, other",
    ),
    "not all there": (
        ("planes", {"p": {"through": ["mine", "other", "swa"]}}),
        "planes.p: no cell has all of its solutions: theirs has mine, other",
    ),
    "no cell": (("grid.0.recipe", "more"), "probes.u.solutions: no cell has 'mine'; add recipe 'theirs'"),
    "taken": (
        ("checkpoints.theirs.solutions.iterate", "a.pt"),
        "solutions: 'iterate' is what .* another name",
    ),
    "none left": (("grid.0.solutions", ["sgd"]), "grid: solutions leave none for recipe 'theirs'; it has"),
}


@pytest.mark.parametrize("what", NAMES)
def test_a_solution_that_is_not_there_is_named(what):
    change, words = NAMES[what]
    more = [("checkpoints.more", {"solutions": {"sgd": "x.pt"}}), ("probes.u.solutions", ["mine"])]
    names = ["mine", "other"]
    if what == "none left":
        change, more, names = ("grid.0.solutions", ["sgd"]), [], ["swa"]
    with pytest.raises(ValleysError, match=words):
        given(names, *more, change)


def test_a_choice_in_a_file_is_no_part_of_its_path():
    found = given(["mine", "other"], ("checkpoints.theirs.solutions.mine", "run-{seed}.pt#model.ema{seed}"))
    cell = found.cells[0]
    assert found.checkpoint(cell, "mine") == "run-0.pt"
    assert found.checkpoint_choice(cell, "mine") == {"choice": "#model.ema0"}
    assert found.checkpoint(cell, "other") == "other-0.pt"
    assert found.checkpoint_choice(cell, "other") == {}  # as before there was a choice
    assert found.checkpoint_shards(cell, "mine") == []


def test_given_weights_have_no_iterates():
    found = given(["mine"])
    assert {found.iterates_of(found.cells[0], keep) for keep in ("none", "window", "all")} == {0}


def test_shards_are_found_and_checked(tmp_path):
    (tmp_path / "a.bin").touch()
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text('{"weight_map": {"x": "a.bin", "y": "a.bin"}}')
    found = given(["mine"], ("checkpoints.theirs.solutions.mine", str(tmp_path)))
    assert found.checkpoint(found.cells[0], "mine") == str(index)
    assert found.checkpoint_shards(found.cells[0], "mine") == [str(tmp_path / "a.bin")]
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(ValleysError, match=r"solutions\.mine: checkpoint .*pipe\.pt is a pipe"):
        given(["mine"], ("checkpoints.theirs.solutions.mine", str(tmp_path / "pipe.pt")))
    index.write_text('{"weight_map": {"x": "../a.bin"}}')
    with pytest.raises(ValleysError, match=r"config: checkpoints\.theirs\.solutions\.mine: .*shard '\.\./"):
        given(["mine"], ("checkpoints.theirs.solutions.mine", str(tmp_path)))


SAME = {
    "a line": (("a.pt", "a.pt"), ("lines.x", {"start": "sgd", "stop": "swa"})),
    "a line, by another path": (("a.pt", "./b/../a.pt"), ("lines.x", {"start": "sgd", "stop": "swa"})),
    "a line, by key": (("a.pt#ema", "a.pt#ema"), ("lines.x", {"start": "sgd", "stop": "swa"})),
    "a line to another seed": (
        ("a.pt", "b-{seed}.pt"),
        ("lines.x", {"start": "sgd", "stop": "sgd", "stop_seed": "next"}),
    ),
    "a direction": (("a.pt", "a.pt"), ("probes.x", {"kind": "sgd_to_swa"})),
    "a direction to another seed": (("a.pt", "b-{seed}.pt"), ("probes.x", {"kind": "to_seed"})),
    "a plane": (("a.pt", "a.pt"), ("planes", {"x": {"through": ["sgd", "other", "swa"]}})),
}


@pytest.mark.parametrize("case", SAME)
def test_what_runs_from_weights_to_themselves_is_refused(case):
    (sgd, swa), change = SAME[case]
    paths = {"sgd": sgd, "swa": swa, "other": "c-{seed}.pt"}
    solutions = ("checkpoints.theirs.solutions", paths)
    with pytest.raises(ValleysError, match=r"config: \w+\.x.* are the same weights.* read from a\.pt"):
        given(["sgd", "swa", "other"], solutions, ("seeds", [0, 1]), change)
    differ = {"sgd": "{seed}.pt#model", "swa": "{seed}.pt#ema", "other": "c-{seed}.pt"}
    given(["sgd", "swa", "other"], ("checkpoints.theirs.solutions", differ), ("seeds", [0, 1]), change)


def test_an_average_of_the_last_iterate_alone_is_sgd():
    line = ("lines.x", {"start": "sgd", "stop": "swa"})
    with pytest.raises(ValleysError, match=r"lines\.x: .*swa of recipe quick is the mean of one iterate"):
        experiment(line, ("recipes.quick.swa.window", 1), ("planes", {}))
    experiment(line, ("recipes.quick.swa.window", 2), ("planes", {}))
    swa = ("recipes.quick.swa", {"start": 1, "every": 4, "lr": 0.1})  # of epoch 5; sgd is of epoch 6
    experiment(line, swa, ("planes", {}))
    experiment(("recipes.quick.swa.window", 1), ("planes", {}))  # nothing joins the two


def test_params_of_cells_without_own_names_are_as_they_were():
    assert "solutions" not in experiment().figure("shift")
    assert given(["mine"]).figure("shift")["solutions"] == ["mine"]


# --- slices ---


def slices(found):
    """The params of every rule, by a name that says for what."""
    config = found.config
    params = {f"prepare_dataset {d}": found.prepare_dataset(d) for d in config["datasets"]}
    for cell in found.cells:
        at = f"{cell.model}/{cell.recipe}/{cell.seed}"
        params[f"train_sgd {at}"] = found.train_sgd(cell.model, cell.recipe, cell.seed)
        params[f"descend {at}"] = found.descend(cell.recipe, cell.seed)
        params |= {f"probe {bundle}": found.probe(cell, bundle) for bundle in found.bundles_of(cell)}
        params |= {f"plane {plane}": found.plane(cell.recipe, plane) for plane in config["planes"]}
        for line in found.lines_of(cell):
            params.setdefault(f"interpolate {line}", found.interpolate(cell, line))  # of the first cell
            if found.is_trained(line):
                params.setdefault(f"connect {line}", found.connect(cell, line))
    for recipe in config["recipes"]:
        params[f"average {recipe}"] = found.average(recipe)
        params[f"evaluate {recipe}"] = found.evaluate(recipe)
        for probe in config["probes"]:
            params[f"directions {probe}"] = found.directions(recipe, probe)
    params |= {f"figure {name}": found.figure(name) for name in found.figures()}
    params |= {f"study {name}": found.study(name) for name in found.studies}
    params["refresh_bn"] = found.refresh_bn("mlp")
    stages = ("detect", "measure_gain", "sensitivity", "toy_2d", "simulate_theory", "claims", "report")
    for stage in stages:
        params[stage] = getattr(found, stage)()
    return copy.deepcopy(params)


def differences(*changes):
    """What differs after changes to the smoke config: names of params that changed, came or went."""
    old, new = slices(experiment()), slices(experiment(*changes))
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


FIGURES = {f"figure {name}" for name in ("training", "prevalence", "curves-uniform", "curves-gradient")}
FIGURES |= {"figure shift", "figure line-swa-descent", "figure toy-surface", "figure toy-curves"}
FIGURES |= {f"figure plane-{name}" for name in ("solutions", "iterates", "directions")}
FIGURES |= {"figure theory-average", "figure theory-gain", "figure theory-measured", "figure sensitivity"}
RUN = "mlp/quick/0"
PROBES = {"probe uniform", "probe gradient"}
LOSS = {f"train_sgd {RUN}", f"descend {RUN}", "evaluate quick", "interpolate swa-descent"} | PROBES
PLANES = {"plane solutions", "plane iterates", "plane directions"}
LOSS |= {"directions uniform", "directions gradient"} | PLANES
REFRESH = {"refresh_bn", f"descend {RUN}", "interpolate swa-descent"} | PROBES | PLANES

CHANGES = {
    "nothing": ("recipes.quick.momentum", 0.9, set()),  # the default, written out
    "averaging window": ("recipes.quick.swa.window", 2, {"average quick"}),
    "figure style": ("figures.dpi", 99, FIGURES),
    "device": ("execution.device", "cpu", set()),
    "checkpoints": ("execution.checkpoint_every", 1, set()),
    "experiment name": ("name", "other", set()),
    "learning rate": ("recipes.quick.lr", 0.2, {f"train_sgd {RUN}"}),
    "start of averaging": ("recipes.quick.swa.start", 2, {f"train_sgd {RUN}"} | FIGURES),
    "descent": ("recipes.quick.descent.lr", 0.002, {f"descend {RUN}"}),
    "weight decay": ("recipes.quick.weight_decay", 0.1, {f"train_sgd {RUN}", f"descend {RUN}"}),
    "loss": ("recipes.quick.loss.name", "mse", LOSS),
    "another seed": ("seeds", [0, 1], {"train_sgd mlp/quick/1", "descend mlp/quick/1"}),
    "data": ("datasets.digits.train_size", 201, {"prepare_dataset digits"}),
    "another data set": ("datasets.more", {"source": "digits"}, {"prepare_dataset more"}),
    "model": ("models.mlp.hidden", [17], {f"train_sgd {RUN}"}),
    "another model": ("models.unused", {"arch": "mlp"}, set()),
    "another probe": (
        "probes.new", {"kind": "gaussian"},
        {"probe new", "directions new", "figure curves-new", "report"},
    ),
    "another probe of kind sign": (
        "probes.new", {"kind": "sign"},
        {"probe new", "directions new", "figure sign", "report"},
    ),
    "more directions": ("probes.uniform.n", 3, {"probe uniform", "directions uniform"}),
    "more of one direction": ("probes.gradient.n", 3, set()),
    "share of another kind": ("probes.uniform.share", 0.9, set()),
    "points": ("probes.gradient.points", 31, {"probe gradient"}),
    "line": ("lines.swa-descent.divisions", 5, {"interpolate swa-descent"}),
    "another path": ("lines.new", PATH, {"interpolate new", "connect new", "figure line-new", "report"}),
    "barrier": ("claims.barrier", 0.2, {"claims"}),
    "grid of a plane": ("planes.solutions.points", 6, {"plane solutions"}),
    "margin": ("planes.iterates.margin", 1, {"plane iterates"}),
    "margin of a span": ("planes.directions.margin", 1, set()),
    "width of a span": ("planes.directions.relative", 0.1, {"plane directions"}),
    "width of another plane": ("planes.solutions.relative", 0.1, set()),
    "solution of another plane": ("planes.iterates.at", "descent", set()),
    "another plane": (
        "planes.new", {"through": ["swa", "sgd", "descent"]}, {"plane new", "figure plane-new", "report"},
    ),
    "a plane of more seeds": ("planes.solutions.seeds", 2, set()),
    "slopes": ("probes.gradient.slopes", "exact", {"probe gradient"}),
    "the default precision": ("probes.gradient.precision", "fp32", set()),  # written out
    "precision of a probe": ("probes.gradient.precision", "bf16", {"probe gradient"}),
    "a probe that is not adaptive": ("probes.gradient.adaptive", False, set()),  # the default, written out
    "an adaptive probe": ("probes.gradient.adaptive", True, {"probe gradient"}),
    "images of a probe": (
        "probes.gradient.train_images", 50, {"probe gradient", "directions gradient"},
    ),
    "precision of a plane": ("planes.iterates.precision", "bf16", {"plane iterates"}),
    "precision of training": ("recipes.quick.precision", "bf16", {f"train_sgd {RUN}", f"descend {RUN}"}),
    "noise": ("asymmetry.noise", 1e-5, {"detect", "sensitivity"}),
    "level c": ("asymmetry.c", 3, {"detect", "sensitivity", "toy_2d", "claims"} | FIGURES),
    "alpha": ("claims.alpha", 0.01, {"claims"}),
    "toy": ("toy_2d.n_draws", 6, {"toy_2d"}),
    "theory": ("theory.chains", 1001, {"simulate_theory"}),
    "jobs": ("execution.probe_jobs", "separate", set()),
    "iterates kept": ("execution.keep", "none", set()),
    "where images are": ("execution.resident_mb", 0, set()),
    "a faster core": ("execution.cpu_speed", 2, set()),
    "a limit of runtime": ("execution.max_runtime", 60, set()),
    "batch norm": ("bn_refresh.method", "streaming", REFRESH),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_reaches_just_the_stages_it_decides(what):
    path, value, expected = CHANGES[what]
    assert differences((path, value)) == expected


@pytest.mark.parametrize(
    ("path", "value", "reached"),
    [
        ("lines.p.epochs", 20, {"connect p"}),
        ("lines.p.bends", 2, {"connect p"}),
        ("lines.p.lr", 0.5, {"connect p"}),
        ("lines.p.divisions", 9, {"interpolate p"}),
        ("lines.p.path", "chain", {"connect p", "interpolate p"}),
        ("recipes.quick.swa.lr", 0.06, {f"train_sgd {RUN}", "connect p"}),
        ("recipes.quick.momentum", 0.8, {f"train_sgd {RUN}", "connect p"}),
        ("bn_refresh.method", "streaming", REFRESH | {"interpolate p"}),
        ("lines.swa-descent.epochs", 20, set()),  # a straight line has no bends
    ],
)
def test_a_change_of_a_path_reaches_just_what_it_decides(path, value, reached):
    old, new = (slices(experiment(("lines.p", PATH), *more)) for more in ((), ((path, value),)))
    assert {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)} == reached


def test_share_counts_for_the_kind_sign():
    first, second = (
        found.probe(found.cells[0], "s")
        for found in (experiment(("probes", {"s": {"kind": "sign", "share": share}})) for share in (0.1, 0.9))
    )
    assert first != second
    assert (first["probes"]["s"]["share"], second["probes"]["s"]["share"]) == (0.1, 0.9)


def test_constants_reach_a_probe_in_bf16():
    """Which of its curves are measured again hangs on them."""
    rounded = ("probes.gradient.precision", "bf16")
    old, new = (slices(experiment(rounded, *more)) for more in ((), (("asymmetry.c", 3),)))
    assert old["probe gradient"] != new["probe gradient"]
    assert old["probe uniform"] == new["probe uniform"]


def test_a_probe_without_a_subset_has_the_params_it_had():
    """Before there were adaptive probes and errors of subsets: cached curves stay."""
    block = experiment().probe(experiment().cells[0], "uniform")
    assert set(block) == {"version", "probes", "loss", "bn_refresh"}
    assert set(block["probes"]["uniform"]) == {
        *("kind", "n", "group", "share", "solutions", "points", "radius", "relative", "relative_to", "rise"),
        *("bn", "slopes", "train_images", "test_images"),
    }


def test_constants_reach_an_adaptive_probe():
    """At how many points its curves are measured hangs on them."""
    adaptive = ("probes.gradient.adaptive", True)
    old, new = (slices(experiment(adaptive, *more)) for more in ((), (("asymmetry.c", 3),)))
    assert old["probe gradient"] != new["probe gradient"]
    assert old["probe uniform"] == new["probe uniform"]
    assert old["probe gradient"]["probes"]["gradient"]["adaptive"] is True
    assert old["probe gradient"]["probes"]["gradient"]["next_point"] == 1


@pytest.mark.parametrize("key", ["train_images", "test_images"])
def test_a_probe_on_a_subset_of_images_is_told_so(key):
    found = slices(experiment((f"probes.gradient.{key}", 50)))
    assert found["probe gradient"]["probes"]["gradient"]["image_errors"] == 1
    assert "image_errors" not in found["probe uniform"]["probes"]["uniform"]


def test_every_slice_carries_its_stages_version(monkeypatch):
    old = slices(experiment())
    for name in {name.split()[0].replace("figure", "figures") for name in old}:
        monkeypatch.setitem(versions.VERSIONS, name, 99)
    assert all(params["version"] == 99 for params in slices(experiment()).values())
    assert all(params["version"] != 99 for params in old.values())


def test_results_leave_out_style_and_execution():
    one = experiment(("figures.dpi", 77), ("execution.device", "cpu")).results()
    assert one == experiment().results()
    assert experiment(("toy_2d.seed", 5)).results() != one


def test_provenance_of_a_table_is_what_decides_it():
    found = experiment(("figures.dpi", 77))
    for table in CELL_TABLES:
        about = found.provenance(table)
        assert not {"figures", "execution", "claims", "toy_2d"} & about.keys()
        assert ("probes" in about) == (
            table in ("directions", "curves", "asymmetry", "theory_measured", "shift")
        )
        assert ("lines" in about) == (table == "interpolation")
        assert ("planes" in about) == (table in ("planes", "plane_points"))
        assert about["recipes"] == found.config["recipes"]


def test_batches_of_one_image_are_refused_where_batch_norm_has_one_value():
    one, model = ("recipes.quick.batch_size", 1), {"arch": "mlp", "hidden": [8], "norm": "batch"}
    for other in ({**model, "norm": "layer"}, {**model, "hidden": []}, {"arch": "resnet8"}):
        experiment(one, ("models.mlp", other))
    experiment(("recipes.quick.batch_size", 2), ("models.mlp", model))
    with pytest.raises(
        ValleysError, match=r"quick.batch_size: 1 gives the batch norm of model mlp one value"
    ):
        experiment(one, ("models.mlp", model))
    study = {"dataset": "digits", "model": "mlp", "recipe": "quick", "factors": {"recipe.batch_size": [1]}}
    with pytest.raises(ValleysError, match=r"recipes.quick.batch_size-1.batch_size: 1 gives the batch norm"):
        experiment(("models.mlp", model), ("studies", {"size": study}))


@pytest.mark.parametrize(
    ("key", "block"),
    [
        ("probes.one", {"kind": "uniform", "train_images": 1}),
        ("lines.one", {"start": "sgd", "stop": "swa", "train_images": 1}),
        ("planes.one", {"pca": True, "train_images": 1}),
    ],
)
def test_one_image_to_refresh_batch_norm_on_is_refused(key, block):
    model = ("models.mlp", {"arch": "mlp", "hidden": [8], "norm": "batch"})
    with pytest.raises(ValleysError, match=f"{key}.train_images: 1 gives the batch norm of model mlp one"):
        experiment(model, (key, block))
    experiment(model, (key, {**block, "train_images": 2}))
    experiment(model, (key, {**block, "bn": "frozen"}))
    experiment(("models.mlp", {"arch": "mlp", "hidden": [8], "norm": "layer"}), (key, block))


def test_averages_of_a_users_network_are_remade_and_no_others(tmp_path, monkeypatch):
    (tmp_path / "own_average.py").write_text("def build(): ...\n")
    monkeypatch.chdir(tmp_path)
    found = experiment(("models.own", {"factory": "own_average:build"}))
    assert found.average("quick", "mlp") == {"version": 1, "window": None}
    assert found.average("quick", "own") == {"version": 1, "window": None, "buffers": "last"}


# --- names and keys of given weights, originals, keys twice ---


def test_given_weights_depend_on_the_code_of_their_network(tmp_path, monkeypatch):
    nets = tmp_path / "given_nets.py"
    nets.write_text("def build(): ...\n")
    monkeypatch.chdir(tmp_path)

    def params(**kwargs):
        model = ("models.mlp", {"factory": "given_nets:build", "kwargs": kwargs})
        return given(["mine"], model).import_solution("mlp", "theirs")

    before = params()
    assert params() == before
    assert params(width=3) != before
    nets.write_text("def build(): return 1\n")
    assert params() != before
    installed = given(["mine"], ("models.mlp", {"factory": "torchvision.models:resnet18"}))
    assert installed.import_solution("mlp", "theirs")["code"].startswith("torchvision ")
    assert "code" not in given(["mine"]).import_solution("mlp", "theirs")


@pytest.mark.parametrize("name", ["x_lines", "lines_lines"])
def test_a_study_is_not_called_as_a_table_of_lines(name):
    with pytest.raises(ValleysError, match=f"'{name}' ends as the table of a study's lines does"):
        experiment(("studies", {name: STUDY}))


def test_names_are_as_long_as_files_may_be_called():
    experiment(("probes", {"q" * 150: {"kind": "uniform"}}))
    with pytest.raises(ValleysError, match=r"config: probes: 'q+' is too long"):
        experiment(("probes", {"q" * 151: {"kind": "uniform"}}))


def originals(source, **paths):
    more = {"size": 8} if source == "image_folder" else {}
    return experiment(("datasets.own", {"source": source, **paths, **more}))


def test_a_path_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a.npz", "b.npz", "w.pt"):
        (tmp_path / name).write_bytes(b"")
    found = originals("numpy", train="~/a.npz", test="~/b.npz")
    assert found.source_files("own") == [f"{tmp_path}/a.npz", f"{tmp_path}/b.npz"]
    assert found.prepare_dataset("own")["source"]["train"] == "~/a.npz"  # as it was in results there are
    weights = given(["mine"], ("checkpoints.theirs.solutions.mine", "~/w.pt"))
    assert weights.checkpoint(weights.cells[0], "mine") == f"{tmp_path}/w.pt"
    odd = originals("numpy", train="~nobody-of-that-name/a.npz", test="./~/b.npz")
    assert odd.source_files("own") == []


def test_a_path_with_the_characters_of_a_pattern_is_itself(tmp_path):
    folder = tmp_path / "set [1] *?"
    folder.mkdir()
    for name in ("a.npz", "b.npz"):
        (folder / name).write_bytes(b"")
    found = originals("numpy", train=f"{folder}/a.npz", test=f"{folder}/b.npz")
    assert found.source_files("own") == [f"{folder}/a.npz", f"{folder}/b.npz"]


def test_a_pattern_reaches_into_folders_as_the_reader_does(tmp_path):
    (tmp_path / "x" / "y").mkdir(parents=True)
    for name in ("a.parquet", "x/b.parquet", "x/y/c.parquet"):
        (tmp_path / name).write_bytes(b"")
    found = originals("parquet", train=f"{tmp_path}/**/*.parquet", test=f"{tmp_path}/a.parquet")
    assert len(found.source_files("own")) == 4


def test_a_changed_image_of_a_folder_is_noticed(tmp_path):
    (tmp_path / "away").mkdir()
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(3):
                (tmp_path / part / name / f"{i}.png").write_bytes(b"image")

    def params():
        return originals("image_folder", train=f"{tmp_path}/train", test=f"{tmp_path}/test").prepare_dataset(
            "own"
        )

    first, cat = params(), tmp_path / "train" / "cat"
    assert len(first["originals"]) == 2
    assert params() == first
    (cat / ".DS_Store").write_bytes(b"x")
    (cat / "notes.txt").write_bytes(b"x")
    assert params() == first  # what is no image of it
    seen = [first]
    for change in (
        lambda: (cat / "3.png").write_bytes(b"image"),  # added
        lambda: (cat / "3.png").rename(cat / "4.png"),
        lambda: (cat / "4.png").rename(cat / "5.PNG"),
        lambda: (cat / "5.PNG").unlink(),  # back to the first
        lambda: (cat / "0.png").write_bytes(b"another"),
        lambda: os.utime(cat / "1.png", ns=(1, 1)),  # replaced by one of that size, with its time kept
        lambda: (tmp_path / "train" / "emu").mkdir(),
        lambda: (tmp_path / "train" / "ant").symlink_to(tmp_path / "away"),
        lambda: (tmp_path / "away" / "0.jpeg").write_bytes(b"image"),  # behind a link
    ):
        change()
        seen.append(params())
    back = 4
    assert seen[back] == first
    assert len({json.dumps(one) for one in seen}) == len(seen) - 1
    (tmp_path / "away" / "loop").symlink_to(tmp_path / "train")  # ends
    assert params() != seen[-1]


def replace_by_older(path):
    """Put another file in its place, as `mv` does one that was made long before."""
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(1, path.stat().st_mtime_ns - 10**15))


def test_an_original_that_an_older_file_replaces_is_noticed(tmp_path):
    for name in ("a.npz", "b.npz"):
        (tmp_path / name).write_bytes(name.encode())

    def params():
        found = originals("numpy", train=f"{tmp_path}/a.npz", test=f"{tmp_path}/b.npz")
        return found.prepare_dataset("own")

    first = params()
    assert params() == first
    replace_by_older(tmp_path / "b.npz")
    second = params()
    assert second != first
    (tmp_path / "a.npz").rename(tmp_path / "c.npz")
    (tmp_path / "a.npz").symlink_to("c.npz")
    assert params() == second
    (tmp_path / "a.npz").unlink()
    (tmp_path / "a.npz").symlink_to("b.npz")
    assert params() != second


def test_weights_that_an_older_file_replaces_are_noticed_and_read_ones_may_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = given(["mine"])
    cell = found.cells[0]
    weights = tmp_path / found.checkpoint(cell, "mine")
    assert found.checkpoint_digest(cell, "mine") == {}
    weights.write_bytes(b"weights")
    first = found.checkpoint_digest(cell, "mine")
    replace_by_older(weights)
    second = found.checkpoint_digest(cell, "mine")
    assert len({json.dumps(first), json.dumps(second), "{}"}) == 3
    made = f"{found.root}/cells/{cell.path}/mine.safetensors"
    save_weights(made, {"w": torch.zeros(2)}, second)
    weights.unlink()
    assert found.checkpoint_digest(cell, "mine") == second


def test_each_shard_of_weights_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "w.safetensors.index.json").write_text(json.dumps(index))
    for name in ("one", "two"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    found = given(["mine"], ("checkpoints.theirs.solutions.mine", "w.safetensors.index.json"))
    before = found.checkpoint_digest(found.cells[0], "mine")
    replace_by_older(tmp_path / "two.safetensors")
    assert found.checkpoint_digest(found.cells[0], "mine") != before


def test_a_folder_that_a_callable_reads_counts_whole(tmp_path, monkeypatch):
    (tmp_path / "given_data.py").write_text("def read(): ...\n")
    (tmp_path / "raw").mkdir()
    monkeypatch.chdir(tmp_path)
    spec = ("datasets.own", {"source": "callable", "factory": "given_data:read", "files": ["raw"]})
    before = experiment(spec).prepare_dataset("own")
    (tmp_path / "raw" / "any.bin").write_bytes(b"1")
    assert experiment(spec).prepare_dataset("own") != before
    assert "originals" not in experiment().prepare_dataset("digits")


TWICE = {
    "a: 1\nb: 2\na: 3": (3, "a is there twice, first in line 1"),
    "x:\n  lr: 1\n  y: {lr: 2, lr: 3}": (3, "x.y.lr is there twice, first in line 3"),
    "x:\n- {p: 1}\n- q: 1\n  'q': 2": (4, "x.1.q is there twice, first in line 3"),
    "yes: 1\ntrue: 2": (2, "true is there twice"),
    "1: a\n0x1: b": (2, "0x1 is there twice"),
    '{"a": 1, "b": {"c": 1,\n"c": 2}}': (2, "b.c is there twice"),
    "base: &b {lr: 1, lr: 2}\nmore: *b": (1, "base.lr is there twice"),
    "b: &b {lr: 1}\nc: &c {lr: 2}\nm:\n  <<: *b\n  <<: *c": (5, "m.<< is there twice"),
}


@pytest.mark.parametrize("text", TWICE)
def test_a_key_that_is_there_twice_is_refused_with_its_line(text, tmp_path):
    line, words = TWICE[text]
    with pytest.raises(ValleysError, match=f"^c.yaml, line {line}: {re.escape(words)}.* drop one"):
        read_yaml(text, "c.yaml")
    (tmp_path / "c").write_text(text)
    with pytest.raises(ValleysError, match=f"^config file .*c, line {line}: "):
        check_files([tmp_path / "c"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "base: &b {lr: 1, n: 2}\nmore: {<<: *b, lr: 3}",  # a merge, and what it brings set anew
        "a: &a {x: 1}\nb: &b {x: 2}\nc: {<<: [*a, *b]}",
        "a: {lr: 1}\nb: {lr: 2}",
        '1: a\n"1": b\n1.5: c',
        "a: [b, b]",
        "loop: &l\n  again: *l",
        "d: 2020-01-01\ne: 1e-3\nf: .nan",
    ],
)
def test_other_yaml_is_read_as_ever(text, tmp_path):
    assert repr(read_yaml(text, "c.yaml")) == repr(yaml.safe_load(text))
    (tmp_path / "c").write_text(text)
    check_files([tmp_path / "c"])


def test_json_is_read_as_snakemake_does(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{\n\t"rate": 1e-3,\n\t"name": "a\\tb", "on": [true, null]\n}')
    assert load(path) == {"rate": 0.001, "name": "a\tb", "on": [True, None]}


def test_json_with_tabs_is_looked_at_too(tmp_path):
    (tmp_path / "c.json").write_text('{\n\t"a": 1,\n\t"a": 2\n}')
    with pytest.raises(ValleysError, match=r"c\.json, line 3: a is there twice"):
        check_files([tmp_path / "c.json"])
