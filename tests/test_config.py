"""A mistake in the config is one clear line, and a stage depends on just the keys that change it."""

import copy
import subprocess
import sys

import pytest
from conftest import ROOT, fill_defaults, load_config
from valleys import config
from valleys.config import Cell, Experiment
from valleys.errors import ValleysError

BASE = load_config("config/smoke.yaml")


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
    """The smoke experiment, with (path, value) changes made before defaults are filled in."""
    raw = BASE
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
    "unknown model option": ("models.mlp.hiden", [3], ["models.mlp", "hiden", "nearest is 'hidden'"]),
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
    "even points": ("probes.uniform.points", 20, ["probes.uniform.points", "20", "odd"]),
    "points too few for zeta_max": ("asymmetry.zeta_max", 0.05, ["uniform.points", "21", "zeta_max", "41"]),
    "window constants at odds": ("asymmetry.min_span", 0.8, ["min_span", "0.8", "zeta_max", "0.5"]),
    "toy steps too long": ("toy_2d.step", 6, ["toy_2d.step", "6", "zeta_max", "3.75"]),
    "steps too long for a valley": ("theory.rates", [0.1, 0.5], ["theory.rates", "0.5", "below 0.5"]),
    "steep side that is flat": ("theory.ratios", [0.5], ["theory.ratios.0", "0.5"]),
    "unknown shape": ("theory.shapes", ["linaer"], ["theory.shapes.0", "did you mean 'linear'?"]),
    "noise that is none": ("theory.levels", [0], ["theory.levels.0", "0"]),
    "unknown kind": ("probes.uniform.kind", "unifrom", ["probes.uniform.kind", "did you mean 'uniform'?"]),
    "unknown group": ("probes.uniform.group", "batchnorm", ["uniform.group", "classifier"]),
    "filter over batch norm": ("probes.uniform", {"kind": "filter", "group": "bn"}, ["filter", "bn"]),
    "to_seed with one seed": ("probes.other", {"kind": "to_seed"}, ["probes.other", "second seed"]),
    "name with a path": ("name", "../x", ["name", "'../x'", "cannot be a name"]),
    "name with a line end": ("name", "x\n", ["name", "cannot be a name"]),
    "probe name with a path": ("probes.a/b", {"kind": "uniform"}, ["probes", "'a/b'", "cannot be a name"]),
    "recipe name with a space": ("recipes.a b", RECIPE, ["'a b'", "cannot be a name"]),
    "hidden model name": ("models..x", {}, ["models"]),
    "exact slopes of a streaming refresh": (
        "",
        BASE | {"bn_refresh": {"method": "streaming"}, "probes": {"u": {"kind": "pca", "slopes": "exact"}}},
        ["probes.u.slopes", "exact", "streaming"],
    ),
    "unknown slopes": ("probes.uniform.slopes", "exakt", ["uniform.slopes", "did you mean 'exact'?"]),
    "line to itself": ("lines.swa-descent.stop", "swa", ["lines.swa-descent", "'swa'"]),
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


def test_parts_and_figures_name_tables_that_are_declared():
    from valleys import tables

    found = experiment()
    assert set(found.tables()) == set(tables.declared())
    assert found.parts(found.cells[0], "training") == ["training.parquet", "descent.parquet"]
    assert found.parts(found.cells[0], "interpolation") == ["lines/swa-descent.parquet"]
    assert found.parts(found.cells[0], "asymmetry") == ["asymmetry.parquet"]
    assert "curves-uniform" in found.figures()
    for figure in found.figures():
        assert set(found.figure_tables(figure)) <= set(tables.declared())


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
    for probe in probes.values():
        if probe["kind"] in controls | {"sign"}:
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


# --- slices ---


def slices(found):
    """The params of every rule, by a name that says for what."""
    config = found.config
    params = {f"prepare_dataset {d}": found.prepare_dataset(d) for d in config["datasets"]}
    for cell in found.cells:
        at = f"{cell.model}/{cell.recipe}/{cell.seed}"
        params[f"train_sgd {at}"] = found.train_sgd(cell.model, cell.recipe, cell.seed)
        params[f"descend {at}"] = found.descend(cell.recipe, cell.seed)
    for recipe in config["recipes"]:
        params[f"average {recipe}"] = found.average(recipe)
        params[f"evaluate {recipe}"] = found.evaluate(recipe)
        for probe in config["probes"]:
            params[f"probe {probe}"] = found.probe(recipe, probe)
            params[f"directions {probe}"] = found.directions(recipe, probe)
        params |= {f"interpolate {line}": found.interpolate(recipe, line) for line in config["lines"]}
    params |= {f"figure {name}": found.figure(name) for name in found.figures()}
    stages = ("refresh_bn", "detect", "measure_gain", "sensitivity", "toy_2d", "simulate_theory")
    for stage in (*stages, "claims", "report"):
        params[stage] = getattr(found, stage)()
    return copy.deepcopy(params)


def differences(*changes):
    """What differs after changes to the smoke config: names of params that changed, came or went."""
    old, new = slices(experiment()), slices(experiment(*changes))
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


FIGURES = {f"figure {name}" for name in ("training", "prevalence", "curves-uniform", "curves-gradient")}
FIGURES |= {"figure shift", "figure line-swa-descent", "figure toy-surface", "figure toy-curves"}
FIGURES |= {"figure theory-average", "figure theory-gain", "figure theory-measured", "figure sensitivity"}
RUN = "mlp/quick/0"
PROBES = {"probe uniform", "probe gradient"}
LOSS = {f"train_sgd {RUN}", f"descend {RUN}", "evaluate quick", "interpolate swa-descent"} | PROBES
LOSS |= {"directions uniform", "directions gradient"}
REFRESH = {"refresh_bn", f"descend {RUN}", "interpolate swa-descent"} | PROBES

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
    "slopes": ("probes.gradient.slopes", "exact", {"probe gradient"}),
    "noise": ("asymmetry.noise", 1e-5, {"detect", "sensitivity"}),
    "level c": ("asymmetry.c", 3, {"detect", "sensitivity", "toy_2d", "claims"} | FIGURES),
    "alpha": ("claims.alpha", 0.01, {"claims"}),
    "toy": ("toy_2d.n_draws", 6, {"toy_2d"}),
    "theory": ("theory.chains", 1001, {"simulate_theory"}),
    "batch norm": ("bn_refresh.method", "streaming", REFRESH),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_reaches_just_the_stages_it_decides(what):
    path, value, expected = CHANGES[what]
    assert differences((path, value)) == expected


def test_share_counts_for_the_kind_sign():
    first, second = (
        experiment(("probes", {"s": {"kind": "sign", "share": share}})).probe("quick", "s")
        for share in (0.1, 0.9)
    )
    assert first != second
    assert (first["probe"]["share"], second["probe"]["share"]) == (0.1, 0.9)


def test_every_slice_carries_its_stages_version(monkeypatch):
    old = slices(experiment())
    for name in {name.split()[0].replace("figure", "figures") for name in old}:
        monkeypatch.setitem(config.VERSIONS, name, 99)
    assert all(params["version"] == 99 for params in slices(experiment()).values())
    assert all(params["version"] != 99 for params in old.values())


def test_results_leave_out_style_and_execution():
    one = experiment(("figures.dpi", 77), ("execution.device", "cpu")).results()
    assert one == experiment().results()
    assert experiment(("toy_2d.seed", 5)).results() != one


def test_provenance_of_a_table_is_what_decides_it():
    found = experiment(("figures.dpi", 77))
    for table in config.CELL_TABLES:
        about = found.provenance(table)
        assert not {"figures", "execution", "claims", "toy_2d"} & about.keys()
        assert ("probes" in about) == (
            table in ("directions", "curves", "asymmetry", "theory_measured", "shift")
        )
        assert ("lines" in about) == (table == "interpolation")
        assert about["recipes"] == found.config["recipes"]
