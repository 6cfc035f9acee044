"""A mistake in the config is one clear line."""

import copy
import re

import pytest
from config_changes import BASE, PATH, QUICK, RECIPE, STUDY, changed, experiment, given
from conftest import fill_defaults
from valleys.config.experiment import Experiment
from valleys.config.params import Params
from valleys.errors import ValleysError

FOUR = ("epochs", "batch_size", "eval_every", "weight_decay")


NPZ = {"source": "numpy", "train": "a.npz", "test": "a.npz"}


TABLE = {"source": "table", "train": "a.csv", "train_size": 5, "labels": "y", "task": "regression"}
TOKENS = {"source": "numpy", "train": "a.npz", "test": "a.npz", "task": "tokens"}


MISTAKES = {
    "width that no page has": ("figures.width", 0.1, ["figures.width", "0.1", "minimum of 2"]),
    "format of no figure": ("figures.format", "bmp", ["figures.format", "'bmp'", "pdf, svg, png"]),
    "font that is not here": (
        "figures.font",
        "Sans Nowhere",
        ["figures.font", "'Sans Nowhere' is no font family of this machine", "choose serif, sans-serif"],
    ),
    "mistyped font": ("figures.font", "serfi", ["figures.font", "'serfi'", "did you mean 'serif'?"]),
    "loss that the task has not": (
        "datasets.digits",
        TABLE,
        [f"{QUICK}.loss.name", "'cross_entropy' is none for data set digits, whose task is regress", "mse"],
    ),
    "architecture that the task has not": (
        "datasets.digits",
        TOKENS,
        ["models.mlp.arch", "'mlp' is none for data set digits, whose task is tokens", "factory"],
    ),
    "loss of ours and of one's own": (
        f"{QUICK}.loss",
        {"name": "mse", "factory": "a:b"},
        [f"{QUICK}.loss.name", "'mse' is set beside factory", "drop it"],
    ),
    "arguments of no factory": (
        f"{QUICK}.loss",
        {"kwargs": {"a": 1}},
        [f"{QUICK}.loss.kwargs", "arguments of a factory; name one"],
    ),
    "outputs of torchvision's that the data have not": (
        "models.mlp",
        {"factory": "torchvision.models:resnet18", "kwargs": {"num_classes": 100}},
        ["models.mlp.kwargs.num_classes", "100, but data set digits has 10 classes; make it 10"],
    ),
    "loss that cannot be found": (
        f"{QUICK}.loss",
        {"factory": "nowhere_at_all:loss"},
        ["recipes.quick.loss", "nowhere_at_all", "neither in"],
    ),
    "loss that is no callable": (f"{QUICK}.loss", {"factory": "x y"}, [f"{QUICK}.loss", "'x y' names no"]),
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
    "toy scan of an even number": ("toy_2d.points", 20, ["toy_2d.points: 20", "must be odd"]),
    "toy scan too coarse": ("toy_2d.points", 3, ["toy_2d.points", "3", "5"]),
    "no angle": ("toy_2d.angles", 0, ["toy_2d.angles", "0"]),
    "a switch that is none": ("simulations", "none", ["config: simulations: 'none'", "one neuron"]),
    "no rise": ("toy_2d.rises", [0], ["toy_2d.rises.0", "0"]),
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
    "endless scan": ("toy_2d", {"n_draws": 10**4, "angles": 10**5}, ["n_draws * angles * rises * points"]),
    "endless toy": ("toy_2d", {"step": 1e-6, "reach": 1e3}, ["toy_2d: n_draws * reach / step"]),
    "huge network": ("models.mlp.hidden", [10**6, 10**6], ["mlp.hidden", "more weights than any machine"]),
    "wide network": ("models.mlp", {"arch": "resnet8", "width": 10**9}, ["models.mlp.width", "at most 4096"]),
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


def test_checkpoints_have_no_other_places_than_those_filled_in():
    given = {"solutions": {"sgd": "a-{seed}-{model}-{dataset}-{recipe}.pt", "best": "a-{epoch}.pt"}}
    with pytest.raises(
        ValleysError, match=r"given\.solutions\.best: a-\{epoch\}\.pt: \{epoch\} is not filled in"
    ):
        experiment(("checkpoints.given", given), ("grid.0.recipe", "given"))


def test_training_starts_from_no_given_weights():
    given = {"solutions": {"sgd": "a.pt"}}
    with pytest.raises(ValleysError, match="is of checkpoints; choose a recipe"):
        experiment(("checkpoints.given", given), (QUICK, RECIPE | {"start_from": {"recipe": "given"}}))


NAMES = {
    "unknown to a probe": (("probes.u.solutions", ["mne"]), "probes.u.solutions: 'mne' is no.* mean 'mine'"),
    "unknown to a line": (
        ("lines.x", {"start": "mne", "stop": "mine"}),
        "lines.x.start: 'mne' is no solution",
    ),
    "unknown to a plane": (
        ("planes", {"p": {"through": ["mine", "other", "c"]}}),
        r"planes.p.through.2: 'c' is no solution; choose from sgd, swa, descent, last, mine, other",
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


def test_an_average_of_the_last_iterate_alone_is_last():
    line = ("lines.x", {"start": "last", "stop": "swa"})
    with pytest.raises(ValleysError, match=r"lines\.x: .*swa of recipe quick is the mean of one iterate"):
        experiment(line, ("recipes.quick.swa.window", 1), ("planes", {}))
    experiment(line, ("recipes.quick.swa.window", 2), ("planes", {}))
    swa = ("recipes.quick.swa", {"start": 1, "every": 4, "lr": 0.1})  # of epoch 5; last is of epoch 6
    experiment(line, swa, ("planes", {}))
    experiment(("recipes.quick.swa.window", 1), ("planes", {}))  # nothing joins the two


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


@pytest.mark.parametrize("name", ["x_lines", "lines_lines"])
def test_a_study_is_not_called_as_a_table_of_lines(name):
    with pytest.raises(ValleysError, match=f"'{name}' ends as the table of a study's lines does"):
        experiment(("studies", {name: STUDY}))


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ({"kind": "gaussian"}, "true is for kind sign alone, not gaussian; drop it"),
        ({"kind": "sign", "share": 0}, "with share 0 all terms of <u, w> have one sign"),
        ({"kind": "sign", "share": 1}, "with share 1 all terms of <u, w> have one sign"),
    ],
)
def test_what_cannot_be_orthogonal_is_refused(probe, words):
    with pytest.raises(ValleysError) as caught:
        experiment(("probes", {"s": {**probe, "orthogonal": True}}))
    assert f"probes.s.orthogonal: {words}" in str(caught.value)
    assert "\n" not in str(caught.value)
    experiment(("probes", {"s": {**probe, "orthogonal": False}}))


def test_a_plane_is_spanned_by_signs_that_are_orthogonal_and_ones_that_are_not():
    signs = {"kind": "sign", "share": 0.25, "solutions": ["sgd"]}
    probes = ("probes", {"a": signs, "b": signs | {"orthogonal": True}, "c": signs})
    experiment(probes, ("planes", {"p": {"span": ["a/0", "b/0"]}}))
    with pytest.raises(ValleysError, match="two different directions"):
        experiment(probes, ("planes", {"p": {"span": ["a/0", "c/0"]}}))


UNTIL = {"kind": "gaussian", "until": 0.95}
UNTILS = {
    "searched": (
        UNTIL | {"kind": "searched"},
        ".until: kind searched has parts of the images of its own; drop it",
    ),
    "exact slopes": (
        UNTIL | {"slopes": "exact"},
        ".until: it needs slopes: differences, and slopes is exact; drop one",
    ),
    "bf16": (
        UNTIL | {"precision": "bf16"},
        ".until: it needs precision: fp32, and precision is bf16; drop one",
    ),
    "a certainty": (UNTIL | {"until": 1}, ".until: 1 is greater than or equal to the maximum of 1"),
    "a percentage": (UNTIL | {"until": 95}, ".until: 95 is greater than or equal to the maximum of 1"),
    "less than a coin": (UNTIL | {"until": 0.3}, ".until: 0.3 is less than the minimum of 0.5"),
}


@pytest.mark.parametrize("name", UNTILS)
def test_what_cannot_be_measured_until_it_is_settled_is_refused(name):
    probe, message = UNTILS[name]
    with pytest.raises(ValleysError, match=re.escape(f"config: probes.odd{message}")):
        experiment(("probes", {"odd": probe}))


UNTIL_LINES = {
    "bends": ({"path": "bezier"}, ".until: it needs path: linear, and path is bezier; drop one"),
    "both ends alone": (
        {"divisions": 1},
        ".until: it needs divisions: 2 or more, and divisions is 1; drop one",
    ),
    "a certainty": ({"until": 1}, ".until: 1 is greater than or equal to the maximum of 1"),
}


@pytest.mark.parametrize("name", UNTIL_LINES)
def test_what_has_no_barrier_to_settle_is_refused(name):
    line, message = UNTIL_LINES[name]
    with pytest.raises(ValleysError, match=re.escape(f"config: lines.odd{message}")):
        experiment(("lines", {"odd": {"start": "sgd", "stop": "swa", "until": 0.95} | line}))


def test_the_params_of_a_line_have_until_and_the_threshold_only_where_it_is_asked_for():
    line = {"start": "sgd", "stop": "swa"}
    found = experiment(("lines", {"plain": line, "settled": line | {"until": 0.95}}))
    cell, params = found.cells[0], Params(found)
    plain, settled = (params.interpolate(cell, name)["line"] for name in ("plain", "settled"))
    assert set(settled) - set(plain) == {"until", "threshold"}
    some = {"train_images": 50}
    found = experiment(("lines", {"plain": line | some, "settled": line | some | {"until": 0.95}}))
    params = Params(found)
    plain, settled = (params.interpolate(cell, name)["line"] for name in ("plain", "settled"))
    assert set(settled) - set(plain) == {"until", "threshold", "image_errors"}
    assert settled["threshold"] == found.config["claims"]["barrier"]


SOUGHT = {"kind": "searched", "points": 21}
SEARCHES = {
    "of another kind": (
        {"kind": "gaussian", "search": {}},
        ".search: kind gaussian is not searched for; drop it, or set kind to searched",
    ),
    "to a radius": (
        SOUGHT | {"radius": 2.0},
        ".radius: 2.0 is set, but kind searched goes to a given rise; drop it, and set rise",
    ),
    "to a share of the norm": (
        SOUGHT | {"relative": 0.5},
        ".relative: 0.5 is set, but kind searched goes to a given rise; drop it, and set rise",
    ),
    "to a share of the group's norm": (
        SOUGHT | {"relative_to": "group"},
        ".relative_to: 'group' is set, but kind searched goes to a given rise; drop it, and set rise",
    ),
    "floor at the rise": (
        SOUGHT | {"search": {"floor": 1}},
        ".search.floor: 1 is not below rise 1, which is that of the steeper side; lower it, or raise rise",
    ),
    "rise below the default floor": (
        SOUGHT | {"rise": 0.05},
        ".search.floor: 0.1 is not below rise 0.05, which is that of the steeper side; "
        "lower it, or raise rise",
    ),
    "mistyped option": (
        SOUGHT | {"search": {"step": 9}},
        ".search: unknown key 'step', did you mean 'steps'?; keys here: floor, restarts, seek, steps",
    ),
    "mistyped aim": (
        SOUGHT | {"search": {"seek": "asymetric"}},
        ".search.seek: 'asymetric', did you mean 'asymmetric'?; choose from asymmetric, symmetric, flat",
    ),
    "no steps": (SOUGHT | {"search": {"steps": 0}}, ".search.steps: 0 is less than the minimum of 1"),
    "no restarts": (
        SOUGHT | {"search": {"restarts": 0}},
        ".search.restarts: 0 is less than the minimum of 1",
    ),
    "no block": (SOUGHT | {"search": 60}, ".search: 60 is not of type 'object' ("),
}


@pytest.mark.parametrize("what", SEARCHES)
def test_a_mistake_in_a_search_is_one_line_with_its_place(what):
    block, line = SEARCHES[what]
    with pytest.raises(ValleysError) as error:
        experiment(("probes.new", block))
    said = str(error.value)
    assert said.startswith(f"config: probes.new{line}")
    assert said.endswith(line) or line.endswith("(")
    assert "\n" not in said


@pytest.mark.parametrize(
    "block",
    [
        {},
        {"search": {}},
        {"rise": 0.05, "search": {"floor": 0.01}},
        {
            "relative_to": "all",
            "slopes": "exact",
            "adaptive": True,
            "search": {"seek": "flat", "restarts": 1},
        },
    ],
)
def test_a_search_may_leave_out_any_of_its_options(block):
    assert experiment(("probes.new", SOUGHT | block)).is_searched("new")


def test_two_searches_span_a_plane_where_they_differ():
    probes = {"a": SOUGHT | {"n": 2}, "b": SOUGHT | {"search": {"seek": "flat"}}, "c": SOUGHT}

    def spanned(*span):
        return experiment(("probes", probes), ("planes", {"p": {"span": list(span)}})).spanning("p")

    assert spanned("a/0", "b/0") == [("a", 0), ("b", 0)]
    assert spanned("a/0", "a/1") == [("a", 0), ("a", 1)]
    with pytest.raises(ValleysError, match=r"planes.p.span: it must be two different directions, not"):
        spanned("a/0", "c/0")
    with pytest.raises(ValleysError, match=r"planes.p.span: 'b/1': probe b has 1 direction\(s\)"):
        spanned("a/0", "b/1")
