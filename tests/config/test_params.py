"""Params of the rules: a stage depends on just the keys that change it.

Those of the shipped configs are recorded in params_hashes.json: after a change of them a finished run has
work to do. Where that is meant, ``make stamp`` records them anew.
"""

import copy
import hashlib
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config_changes import BASE, PATH, experiment, given
from conftest import fill_defaults, load_config
from valleys.config import outputs, versions
from valleys.config.alignment import partner
from valleys.config.averages import averages_of
from valleys.config.catalogue import CELL_TABLES
from valleys.config.experiment import Experiment
from valleys.config.params import Params

RECORD = Path(__file__).with_name("params_hashes.json")
SHIPPED = ("config.yaml", *(f"config/{name}.yaml" for name in ("smoke", "paper", "cifar10", "imagenet")))


def params_by_rule(found):
    """The params of all jobs of an experiment, by rule and what the job is of."""
    params, of = {}, Params(found)

    def note(rule, what, block):
        # Versions have a record of their own; code of packages and files of the user's are this machine's.
        params.setdefault(rule, {})[what] = {
            key: value for key, value in block.items() if key not in ("version", "code", "originals")
        }

    for dataset in found.datasets:
        note("prepare_dataset", dataset, of.prepare_dataset(dataset))
    for cell in found.trained_cells:
        if found.differs_by_seed(cell.dataset):
            where = f"{cell.dataset} {cell.seed}"
            note("split_dataset", where, of.split_dataset(cell.dataset, cell.seed))
        if found.from_checkpoints(cell.recipe):
            note("import_solution", cell.path, of.import_solution(cell.model, cell.recipe))
        else:
            note("train_sgd", cell.path, of.train_sgd(cell.model, cell.recipe, cell.seed))
            note("cooldown", cell.path, of.cooldown(cell.recipe, cell.seed))
            note("average", cell.path, of.average(cell.recipe))
            note("refresh_bn", cell.path, of.refresh_bn(cell.model))
            note("descend", cell.path, of.descend(cell.recipe, cell.seed))
        note("evaluate", cell.path, of.evaluate(cell.recipe))
        if averages_of(found, cell):
            note("compare_averages", cell.path, of.compare_averages(cell))
        if partner(found, cell):
            note("align", cell.path, of.align(cell))
        for bundle in found.bundles_of(cell):
            note("probe", f"{cell.path} {bundle}", of.probe(cell, bundle))
        for probe in filter(found.is_computed, found.probes_of(cell)):
            if found.is_searched(probe):
                note("search_directions", f"{cell.path} {probe}", of.search_directions(cell, probe))
            else:
                note("directions", f"{cell.path} {probe}", of.directions(cell.recipe, probe))
        for line in found.lines_of(cell):
            note("interpolate", f"{cell.path} {line}", of.interpolate(cell, line))
            if found.is_trained(line):
                note("connect", f"{cell.path} {line}", of.connect(cell, line))
        for plane in found.planes_of(cell):
            note("plane", f"{cell.path} {plane}", of.plane(cell.recipe, plane))
    made = [table for table in CELL_TABLES if table in outputs.tables(found)]
    for table in (*made, "sensitivity", *outputs.study_tables(found)):
        note("provenance", table, of.provenance(table))
    for study in found.studies:
        note("study", study, of.study(study))
    for figure in outputs.figures(found):
        note("figures", figure, of.figure(figure))
    for rule in STAGES:
        note(rule, "", getattr(of, rule)())
    note("results", "", of.results())
    return params


STAGES = ("detect", "measure_gain", "sensitivity", "toy_2d", "simulate_theory", "claims", "report")


def present(path):
    """A hash of the params of each rule of a shipped config."""
    found = params_by_rule(Experiment(fill_defaults(load_config(path))))
    return {rule: hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16] for rule, of in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED)
def test_params_of_shipped_configs_are_as_recorded(path):
    recorded, now = json.loads(RECORD.read_text())[path], present(path)
    changed = [rule for rule in recorded.keys() | now.keys() if recorded.get(rule) != now.get(rule)]
    assert not changed, (
        f"{path}: params of {', '.join(sorted(changed))} changed, so that a finished run makes these again; "
        "where that is meant, run 'make stamp'"
    )


def test_more_directions_leave_a_plane_that_two_of_them_span():
    assert "plane directions" not in differences(("probes.uniform.n", 3))
    old, new = (Params(experiment(*c)).provenance("planes") for c in ((), (("probes.uniform.n", 3),)))
    assert old == new


def test_a_started_recipe_trains_from_its_start():
    found = experiment(("recipes.more", BASE["recipes"]["quick"] | {"start_from": {"recipe": "quick"}}))
    assert Params(found).train_sgd("mlp", "more", 0)["recipe"]["start_from"] == {
        "recipe": "quick",
        "solution": "sgd",
    }
    assert "start_from" not in Params(found).train_sgd("mlp", "quick", 0)["recipe"]


def test_probes_together_are_one_job_with_the_same_blocks():
    apart, together = experiment(), experiment(("execution.probe_jobs", "together"))
    cell = apart.cells[0]
    assert apart.bundles_of(cell) == {"uniform": ["uniform"], "gradient": ["gradient"]}
    assert together.bundles_of(cell) == {"together": ["uniform", "gradient"]}
    blocks = {name: Params(apart).probe(cell, name)["probes"][name] for name in ("uniform", "gradient")}
    assert Params(together).probe(cell, "together")["probes"] == blocks
    assert outputs.parts(together, cell, "curves") == ["probes/together/curves.parquet"]


def test_default_ends_of_straight_lines_and_of_paths():
    found = experiment(
        ("lines.straight", {"start": "swa", "stop": "sgd"}),
        ("lines.path", PATH),
        ("lines.chain", PATH | {"path": "chain", "first": 0, "last": 1.0, "lr": 0.3, "bends": 2}),
    )
    (cell,) = found.cells
    ends = {line: Params(found).interpolate(cell, line)["line"] for line in found.config["lines"]}
    assert {line: (spec["first"], spec["last"]) for line, spec in ends.items()} == {
        "swa-descent": (-1, 2),
        "straight": (-2, 3),
        "path": (0, 1),
        "chain": (0, 1),
    }
    assert Params(found).connect(cell, "path")["line"] == {
        "path": "bezier",
        "bends": 1,
        "epochs": 10,
        "lr": 0.05,
    }
    assert Params(found).connect(cell, "chain")["line"] == {
        "path": "chain",
        "bends": 2,
        "epochs": 10,
        "lr": 0.3,
    }


def test_params_of_figures_name_solutions_under_own_names_alone():
    assert "solutions" not in Params(experiment()).figure("shift")
    assert Params(given(["mine"])).figure("shift")["solutions"] == ["mine"]


def slices(found):
    """The params of every rule, by a name that says for what."""
    config = found.config
    params = {f"prepare_dataset {d}": Params(found).prepare_dataset(d) for d in config["datasets"]}
    for cell in found.cells:
        at = f"{cell.model}/{cell.recipe}/{cell.seed}"
        params[f"train_sgd {at}"] = Params(found).train_sgd(cell.model, cell.recipe, cell.seed)
        params[f"cooldown {at}"] = Params(found).cooldown(cell.recipe, cell.seed)
        params[f"descend {at}"] = Params(found).descend(cell.recipe, cell.seed)
        if found.differs_by_seed(cell.dataset):
            own = Params(found).split_dataset(cell.dataset, cell.seed)
            params[f"split_dataset {cell.dataset} {cell.seed}"] = own
        params |= {f"probe {bundle}": Params(found).probe(cell, bundle) for bundle in found.bundles_of(cell)}
        params |= {f"plane {plane}": Params(found).plane(cell.recipe, plane) for plane in config["planes"]}
        searched = filter(found.is_searched, found.probes_of(cell))
        params |= {f"search {probe}": Params(found).search_directions(cell, probe) for probe in searched}
        for line in found.lines_of(cell):
            params.setdefault(
                f"interpolate {line}", Params(found).interpolate(cell, line)
            )  # of the first cell
            if found.is_trained(line):
                params.setdefault(f"connect {line}", Params(found).connect(cell, line))
    for recipe in config["recipes"]:
        params[f"average {recipe}"] = Params(found).average(recipe)
        params[f"evaluate {recipe}"] = Params(found).evaluate(recipe)
        for probe in config["probes"]:
            if found.is_searched(probe):
                continue
            params[f"directions {probe}"] = Params(found).directions(recipe, probe)
    params |= {f"figure {name}": Params(found).figure(name) for name in outputs.figures(found)}
    params |= {f"study {name}": Params(found).study(name) for name in found.studies}
    params["refresh_bn"] = Params(found).refresh_bn("mlp")
    for stage in STAGES:
        params[stage] = getattr(Params(found), stage)()
    return copy.deepcopy(params)


def differences(*changes):
    """What differs after changes to the smoke config: names of params that changed, came or went."""
    old, new = slices(experiment()), slices(experiment(*changes))
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


FIGURES = {f"figure {name}" for name in ("training", "prevalence", "curves-uniform", "curves-gradient")}


FIGURES |= {"figure shift", "figure line-swa-descent"}
FIGURES |= {"figure toy-surface", "figure toy-curves", "figure toy-angles"}


FIGURES |= {f"figure plane-{name}" for name in ("solutions", "iterates", "directions")}


FIGURES |= {"figure theory-average", "figure theory-gain", "figure theory-measured", "figure sensitivity"}


SIMULATED = {f"figure {name}" for name in ("toy-surface", "toy-curves", "toy-angles")}
SIMULATED |= {"figure theory-average", "figure theory-gain"}


RUN = "mlp/quick/0"


PROBES = {"probe uniform", "probe gradient"}


COOLED = f"cooldown {RUN}"


TRAINING = ("train_sgd", "cooldown", "descend")


TRAINED = {f"{rule} {RUN}" for rule in TRAINING}


LOSS = {f"train_sgd {RUN}", COOLED, f"descend {RUN}", "evaluate quick", "interpolate swa-descent"} | PROBES


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
    "start of averaging": ("recipes.quick.swa.start", 2, {f"train_sgd {RUN}", COOLED} | FIGURES),
    "cooldown": ("recipes.quick.cooldown.epochs", 5, {COOLED}),
    "rate of the cooldown": ("recipes.quick.cooldown.lr", 0.02, {COOLED}),
    "the default cooldown": ("recipes.quick.cooldown", {"epochs": None, "lr": None}, set()),  # written out
    "rate of averaging": ("recipes.quick.swa.lr", 0.02, {f"train_sgd {RUN}", COOLED}),
    "descent": ("recipes.quick.descent.lr", 0.002, {f"descend {RUN}"}),
    "weight decay": ("recipes.quick.weight_decay", 0.1, TRAINED),
    "loss": ("recipes.quick.loss.name", "mse", LOSS),
    "another seed": ("seeds", [0, 1], {f"{rule} mlp/quick/1" for rule in TRAINING}),
    "data": ("datasets.digits.train_size", 201, {"prepare_dataset digits"}),
    "wrong labels": ("datasets.digits.label_noise", 0.1, {"split_dataset digits 0"}),
    "no wrong labels": ("datasets.digits.label_noise", 0, set()),  # the default, written out
    "a split by seed": (  # of all images, not of the 200 that are kept of the test images
        "datasets.digits.split", "by_seed", {"prepare_dataset digits", "split_dataset digits 0"},
    ),
    "a fixed split": ("datasets.digits.split", "fixed", set()),  # the default, written out
    "another data set": ("datasets.more", {"source": "digits"}, {"prepare_dataset more"}),
    "model": ("models.mlp.hidden", [17], {f"train_sgd {RUN}"}),
    "another model": ("models.unused", {"arch": "mlp"}, {"claims"}),
    "another probe": (
        "probes.new", {"kind": "gaussian"},
        {"probe new", "directions new", "figure curves-new", "claims", "report"},
    ),
    "another probe of kind sign": (
        "probes.new", {"kind": "sign"},
        {"probe new", "directions new", "figure sign", "claims", "report"},
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
    "precision of training": ("recipes.quick.precision", "bf16", TRAINED),
    "noise": ("asymmetry.noise", 1e-5, {"detect", "measure_gain", "sensitivity"}),
    "level c": ("asymmetry.c", 3, {"detect", "measure_gain", "sensitivity", "toy_2d", "claims"} | FIGURES),
    "alpha": ("claims.alpha", 0.01, {"claims"}),
    "toy": ("toy_2d.n_draws", 6, {"toy_2d"}),
    "theory": ("theory.chains", 1001, {"simulate_theory"}),
    "simulations, as by default": ("simulations", True, set()),
    "no simulations": ("simulations", False, {"claims", "report"} | SIMULATED),
    "jobs": ("execution.probe_jobs", "separate", set()),
    "iterates kept": ("execution.keep", "none", set()),
    "where images are": ("execution.resident_mb", 0, set()),
    "a faster core": ("execution.cpu_speed", 2, set()),
    "a limit of runtime": ("execution.max_runtime", 60, set()),
    "batch norm": ("bn_refresh.method", "streaming", REFRESH),
}  # fmt: skip


def test_what_is_averaged_leaves_the_cooldown():
    found = [experiment(("planes", {}), ("recipes.quick.swa", {"start": 3, "lr": 0.05} | more)) for more in (
        {}, {"every": 3}, {"window": 1},
    )]  # fmt: skip
    cooldowns = [Params(one).cooldown("quick", 0) for one in found]
    assert cooldowns[0] == cooldowns[1] == cooldowns[2]
    assert cooldowns[0]["recipe"]["swa"] == {"start": 3, "lr": 0.05}
    assert len({json.dumps(Params(one).average("quick")) for one in found}) == 2  # of the window


def test_a_seed_more_makes_just_its_own_data():
    for options in ({"split": "by_seed"}, {"label_noise": 0.1}):
        data = ("datasets.digits", {"source": "digits", "train_size": 200, **options})
        old, new = slices(experiment(data)), slices(experiment(data, ("seeds", [0, 1])))
        changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        assert changed == {
            "split_dataset digits 1",
            "train_sgd mlp/quick/1",
            "cooldown mlp/quick/1",
            "descend mlp/quick/1",
        }
    data = {"source": "digits", "split": "by_seed"}
    more = slices(experiment(("datasets.digits", {**data, "max_train": 50, "std": [0.5]})))
    assert more["prepare_dataset digits"]["source"]["max_train"] is None
    assert more["split_dataset digits 0"]["source"] | {"max_train": 50, "std": [0.5]} == {
        "split": "by_seed", "label_noise": 0.0, "max_train": 50, "max_test": None, "subset_seed": 0,
        "std": [0.5],
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
        ("recipes.quick.swa.lr", 0.06, {f"train_sgd {RUN}", COOLED, "connect p"}),
        ("recipes.quick.momentum", 0.8, {f"train_sgd {RUN}", COOLED, "connect p"}),
        ("bn_refresh.method", "streaming", REFRESH | {"interpolate p"}),
        ("lines.swa-descent.epochs", 20, set()),  # a straight line has no bends
    ],
)
def test_a_change_of_a_path_reaches_just_what_it_decides(path, value, reached):
    old, new = (slices(experiment(("lines.p", PATH), *more)) for more in ((), ((path, value),)))
    assert {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)} == reached


SOUGHT = {"kind": "searched", "points": 21, "rise": 2.0}


@pytest.mark.parametrize(
    ("path", "value", "reached"),
    [
        ("probes.s.search", {"steps": 9}, {"search s"}),
        ("probes.s.search", {"seek": "flat"}, {"search s", "claims"}),
        ("probes.s.search", {"steps": 60, "seek": "asymmetric"}, set()),  # the defaults, written out
        ("probes.s.search", {}, set()),
        ("probes.s.n", 1, set()),
        ("probes.s.n", 2, {"search s", "probe s"}),
        ("probes.s.rise", 3.0, {"search s", "probe s", "claims"}),
        ("probes.s.points", 31, {"search s", "probe s"}),
        ("probes.s.solutions", ["swa"], {"search s", "probe s"}),
        ("probes.s.precision", "bf16", {"search s", "probe s"}),
        ("probes.s.share", 0.1, set()),
        ("probes.s.slopes", "exact", {"probe s"}),
        ("probes.s.adaptive", True, {"probe s"}),
        ("asymmetry.noise", 1e-5, {"search s", "detect", "measure_gain", "sensitivity"}),
        ("bn_refresh.method", "streaming", REFRESH | {"search s", "probe s"}),
        ("recipes.quick.loss.name", "mse", LOSS | {"search s", "probe s"}),
        ("claims.alpha", 0.01, {"claims"}),
    ],
)
def test_a_change_of_a_search_reaches_just_what_it_decides(path, value, reached):
    old, new = (slices(experiment(("probes.s", SOUGHT), *more)) for more in ((), ((path, value),)))
    assert {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)} == reached


def test_params_of_a_search_have_all_of_its_options_and_those_of_its_curves_have_none():
    found = experiment(("probes.s", SOUGHT | {"search": {"steps": 9}}))
    (cell,) = found.cells
    params = Params(found).search_directions(cell, "s")
    assert set(params) == {"version", "probe", "asymmetry", "loss", "bn_refresh"}
    assert params["probe"] == {
        **{"kind": "searched", "n": 1, "group": "all", "rise": 2.0, "points": 21, "bn": "refreshed"},
        **{"precision": "fp32", "train_images": None, "test_images": None, "solutions": ["sgd", "swa"]},
        "search": {"seek": "asymmetric", "restarts": 3, "steps": 9, "floor": 0.1},
    }
    assert "search" not in Params(found).probe(cell, "s")["probes"]["s"]


def test_claims_are_told_of_each_probe_what_decides():
    probes = {
        "plain": {"kind": "uniform"},
        "far": {"kind": "uniform", "relative": 0.25, "bn": "frozen"},
        "s": SOUGHT | {"search": {"steps": 9}},
        "even": SOUGHT | {"search": {"seek": "symmetric"}},
        "signs": {"kind": "sign", "share": 0.25, "orthogonal": True, "rise": 2.0},
    }
    spec = Params(experiment(("probes", probes))).claims()["claims"]
    assert spec["probes"] == {
        "plain": {"rise": 1.0, "bn": "refreshed", "kind": "uniform"},
        "far": {"rise": None, "bn": "frozen", "kind": "uniform"},
        "s": {"rise": 2.0, "bn": "refreshed", "kind": "searched", "seek": "asymmetric"},
        "even": {"rise": 2.0, "bn": "refreshed", "kind": "searched", "seek": "symmetric"},
        "signs": {"rise": 2.0, "bn": "refreshed", "kind": "sign", "orthogonal": True},
    }
    assert "checkpoints" not in spec
    assert Params(given(["sgd"])).claims()["claims"]["checkpoints"] == ["theirs"]


def test_another_probe_leaves_the_tables_of_searches():
    more = ("probes.new", {"kind": "gaussian"})
    for table in ("searches", "search_curves"):
        old, new = (Params(experiment(("probes.s", SOUGHT), *c)).provenance(table) for c in ((), (more,)))
        assert old == new
        assert list(old["probes"]) == ["s"]


def test_share_counts_for_the_kind_sign():
    first, second = (
        Params(found).probe(found.cells[0], "s")
        for found in (experiment(("probes", {"s": {"kind": "sign", "share": share}})) for share in (0.1, 0.9))
    )
    assert first != second
    assert (first["probes"]["s"]["share"], second["probes"]["s"]["share"]) == (0.1, 0.9)


def test_orthogonal_directions_are_others_and_plain_ones_are_as_before():
    plain, off, on = (
        Params(found).probe(found.cells[0], "s")
        for found in (
            experiment(("probes", {"s": {"kind": "sign", "share": 0.25, **more}}))
            for more in ({}, {"orthogonal": False}, {"orthogonal": True})
        )
    )
    assert plain == off != on
    assert "orthogonal" not in plain["probes"]["s"]
    assert on["probes"]["s"]["orthogonal"] is True


def test_constants_reach_a_probe_in_bf16():
    """Which of its curves are measured again hangs on them."""
    rounded = ("probes.gradient.precision", "bf16")
    old, new = (slices(experiment(rounded, *more)) for more in ((), (("asymmetry.c", 3),)))
    assert old["probe gradient"] != new["probe gradient"]
    assert old["probe uniform"] == new["probe uniform"]


def test_params_name_options_that_are_on_alone():
    """Options that are off are not among them."""
    block = Params(experiment()).probe(experiment().cells[0], "uniform")
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


@pytest.mark.parametrize("key", ["train_images", "test_images"])
def test_a_probe_on_a_subset_of_images_is_told_so(key):
    found = slices(experiment((f"probes.gradient.{key}", 50)))
    assert found["probe gradient"]["probes"]["gradient"]["image_errors"] == 2
    assert "image_errors" not in found["probe uniform"]["probes"]["uniform"]


def test_every_slice_carries_its_stages_version(monkeypatch):
    old = slices(experiment())
    for name in {name.split()[0].replace("figure", "figures") for name in old}:
        monkeypatch.setitem(versions.VERSIONS, name, 99)
    assert all(params["version"] == 99 for params in slices(experiment()).values())
    assert all(params["version"] != 99 for params in old.values())


def test_files_for_a_paper_leave_the_figures_of_the_report_as_they_were():
    usual = Params(experiment()).figure("training")
    block = {"format": "pdf", "width": 3.35, "font": "serif", "font_size": 8, "palette": "Dark2"}
    of = Params(experiment(("figures", block)))
    own = usual["style"] | {"palette": "Dark2"}
    assert of.figure("training") == usual | {"style": own}
    assert of.panels("training")["style"] == usual["style"] | block
    assert Params(experiment(("figures", {"format": "pdf"}))).panels("training")["style"]["width"] == 3.35
    wide = Params(experiment(("figures", {"width": 12, "font": "serif"}))).figure("training")
    assert wide["style"] == usual["style"] | {"width": 12, "font": "serif"}


def test_results_leave_out_style_and_execution():
    one = Params(experiment(("figures.dpi", 77), ("execution.device", "cpu"))).results()
    assert one == Params(experiment()).results()
    assert Params(experiment(("toy_2d.seed", 5))).results() != one


def test_a_run_with_simulations_names_the_switch_nowhere():
    """Runs that were finished before there was one have nothing to do."""
    assert "simulations" not in Params(experiment()).results()
    assert Params(experiment(("simulations", False))).results()["simulations"] is False


def test_provenance_of_a_table_is_what_decides_it():
    found = experiment(("figures.dpi", 77))
    for table in CELL_TABLES:
        about = Params(found).provenance(table)
        assert not {"figures", "execution", "claims", "toy_2d"} & about.keys()
        assert ("probes" in about) == (
            table
            in (
                *("directions", "curves", "asymmetry", "theory_measured", "shift"),
                *("searches", "search_curves"),
            )
        )
        assert ("lines" in about) == (table == "interpolation")
        assert ("planes" in about) == (table in ("planes", "plane_points"))
        assert about["recipes"] == found.config["recipes"]


def test_given_weights_depend_on_the_code_of_their_network(tmp_path, monkeypatch):
    nets = tmp_path / "given_nets.py"
    nets.write_text("def build(): ...\n")
    monkeypatch.chdir(tmp_path)

    def params(**kwargs):
        model = ("models.mlp", {"factory": "given_nets:build", "kwargs": kwargs})
        return Params(given(["mine"], model)).import_solution("mlp", "theirs")

    before = params()
    assert params() == before
    assert params(width=3) != before
    nets.write_text("def build(): return 1\n")
    assert params() != before
    installed = given(["mine"], ("models.mlp", {"factory": "torchvision.models:resnet18"}))
    assert Params(installed).import_solution("mlp", "theirs")["code"].startswith("torchvision ")
    assert "code" not in Params(given(["mine"])).import_solution("mlp", "theirs")


if __name__ == "__main__" and "--write" in sys.argv:
    RECORD.write_text(json.dumps({path: present(path) for path in SHIPPED}, indent=1) + "\n")
