"""Studies expand to the variants that their design says, and keep what is done when they grow."""

import collections
import datetime
import itertools
import json
import re

import pyarrow as pa
import pytest
import yaml
from conftest import fill_defaults, load_config
from valleys.config import studies
from valleys.config.experiment import Experiment
from valleys.config.schema import SCHEMA_FILE
from valleys.errors import ValleysError
from valleys.results import detection, study_outcomes

FACTORS = {"model.activation": ["relu", "tanh", "gelu"], "recipe.loss.name": ["cross_entropy", "mse"]}


def expanded(design, runs=None, factors=None):
    spec = {
        "factors": FACTORS if factors is None else factors,
        "design": design,
        "runs": runs,
        "first_run": 0,
    }
    return list(studies.combinations("s", spec))


def test_full_is_every_combination():
    found = [tuple(levels.values()) for levels, seed in expanded("full") if seed is None]
    assert found == list(itertools.product(*FACTORS.values()))


def test_one_at_a_time_is_the_base_and_each_level():
    found = [levels for levels, _ in expanded("one_at_a_time")]
    assert found[0] == {}
    assert len(found) == 6
    assert all(len(levels) == 1 for levels in found[1:])


def test_a_sample_is_balanced_and_each_run_has_its_seed():
    found = expanded("sample", 60)
    assert [seed for _, seed in found] == list(range(60))
    for factor, levels in FACTORS.items():
        counts = collections.Counter(run[factor] for run, _ in found)
        assert set(counts.values()) == {60 // len(levels)}
        blocks = [found[i : i + len(levels)] for i in range(0, 60, len(levels))]
        assert all({run[factor] for run, _ in block} == set(levels) for block in blocks)
    # Factors are independent of each other: no combination is had far more often than others.
    pairs = collections.Counter(tuple(run.values()) for run, _ in found)
    assert len(pairs) == 6
    assert max(pairs.values()) <= 20


def test_a_greater_sample_keeps_its_runs():
    assert expanded("sample", 40)[:17] == expanded("sample", 17)


def test_a_factor_of_its_own_leaves_the_others_as_they_were():
    more = expanded("sample", 12, {"model.skip": [True, False], **FACTORS})
    assert [{f: run[f] for f in FACTORS} for run, _ in more] == [run for run, _ in expanded("sample", 12)]


# --- names of variants ---


@pytest.mark.parametrize(
    ("level", "text"),
    [
        *((True, "yes"), (5e-4, "0.0005"), ([8, 16], "8x16"), ("tanh", "tanh"), (3, "3"), (None, "None")),
        ("none", "none"),
    ],
)
def test_levels_can_stand_in_file_names(level, text):
    assert studies.level_name(level) == text


LEVELS = [
    *(1, 1.0, "1", True, "yes", "true", "True", "1.0", False, 0, 0.0, "no", "0", -1, "-1"),
    *(None, "None", "null", "", " ", "level", float("inf"), "inf", [], {}, "[]", [1], [1.0], [[1]], ["1"]),
    *([16, 8], "16x8", ["16", "8"], [16, 8.0], [16, True], ["a", "b"], "axb", "a-b", "a b", "a/b", "a.b"),
    *(0.1234567, 0.1234568, 0.02, 0.020000000000000004, 1e-5, 1e22, 10**22, 10**400),
    *("../x", "..", "/etc", "{seed}", "é", "e", "\n", "x" * 300, "x" * 301, "ReLU", "relu", "RELU"),
    *({"a": 1}, {"a": 1.0}, {"a": True}, {"b": 1}, {"a": {"b": 1}}, '{"a": 1}', "a-1"),
]


def test_different_levels_have_different_names_that_are_safe_anywhere():
    names = [studies.level_name(level) for level in LEVELS]
    small = {"none", "None"}  # as there were; a disk that takes them for one is looked for (config)
    assert len({name if name in small else name.lower() for name in names}) == len(LEVELS)
    schema = yaml.safe_load(SCHEMA_FILE.read_text())["$defs"]["name"]["pattern"]
    assert all(re.search(schema, studies.variant_name("quick", {"lr": level})) for level in LEVELS)
    # A name with digits of its own is not taken for another level's.
    assert studies.level_name(studies.level_name("a/b")) != studies.level_name("a/b")


@pytest.mark.parametrize("level", LEVELS)
def test_levels_come_back_from_their_table(level):
    read = studies.hashable(json.loads(json.dumps(level)))
    assert study_outcomes.text_of(read) == studies.level_name(level)
    equal = [one for one in LEVELS if studies.hashable(one) == read]
    assert level in equal
    assert all(type(one) is type(level) or {type(one), type(level)} == {int, float} for one in equal)


def named(studies_=(), **blocks):
    """The smoke experiment with more blocks, and with studies of its cell called s0, s1, ..."""
    raw = load_config("config/smoke.yaml")
    for block, more in blocks.items():
        raw[block] = {**raw[block], **more}
    base = {"dataset": "digits", "model": "mlp", "recipe": "quick"}
    raw["studies"] = {f"s{i}": {**base, **spec} for i, spec in enumerate(studies_)}
    return Experiment(fill_defaults(raw))


def test_the_key_is_part_of_a_variant_s_name():
    factors = [{"recipe.lr": [0.02]}, {"recipe.swa.lr": [0.02]}, {"recipe.descent.lr": [0.02]}]
    found = named([{"factors": one} for one in factors])
    assert found.recipes["quick.lr-0.02"]["lr"] == 0.02
    assert found.recipes["quick.swa.lr-0.02"]["swa"]["lr"] == 0.02
    assert found.recipes["quick.descent.lr-0.02"]["descent"]["lr"] == 0.02
    for study, levels in ((s, levels) for s in found.studies for levels in found.studies[s].items()):
        (factor,) = found.config["studies"][study]["factors"]
        cell, told = levels
        block = found.recipe(cell.recipe)
        for key in factor.split(".")[1:]:
            block = block[key]
        assert told[factor] == block


def test_a_name_that_another_block_has_is_refused():
    quick = load_config("config/smoke.yaml")["recipes"]["quick"]
    study = [{"factors": {"recipe.lr": [0.02]}}]
    words = r"s0\.factors: recipe 'quick' with recipe\.lr 0\.02 would be called 'quick\.lr-0\.02', as another"
    with pytest.raises(ValleysError, match=words):
        named(study, recipes={"quick.lr-0.02": {**quick, "lr": 0.3}})
    assert (
        named(study, recipes={"quick.lr-0.02": {**quick, "lr": 0.02}}).recipes["quick.lr-0.02"]["lr"] == 0.02
    )


def test_long_names_are_cut_and_stay_apart():
    base = "q" * 145
    names = {studies.variant_name(base, {"lr": lr}) for lr in (0.1, 0.2, 0.3)}
    assert len(names) == 3
    assert {len(name) for name in names} == {150}


def test_names_that_differ_in_case_are_refused_where_a_disk_takes_them_for_one(monkeypatch):
    probes = {"Uniform": {"kind": "uniform"}}
    named(probes=probes)
    monkeypatch.setattr("valleys.config.checks.ignores_case", lambda folder: True)
    with pytest.raises(ValleysError, match="probes: 'uniform' and 'Uniform' are one file name on this disk"):
        named(probes=probes)


def test_a_level_may_be_a_whole_block():
    found = named([{"factors": {"recipe.loss": [{"name": "mse"}, {"name": "focal", "gamma": 3}]}}])
    losses = [found.recipe(cell.recipe)["loss"] for cell in found.studies["s0"]]
    assert {"name": "mse", "smoothing": 0.1, "gamma": 2} in losses  # with its defaults
    assert {"name": "focal", "smoothing": 0.1, "gamma": 3} in losses


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"recipe": [["quick"]]}, r"factors.recipe: \['quick'\] is not among recipes"),
        ({"model": [{"mlp": 1}]}, r"factors.model: {'mlp': 1} is not among models"),
        ({"recipe.swa": [{"start": 2}]}, "swa: missing lr"),
        ({"recipe.lr": [float("nan")]}, "nan cannot be a level"),
        ({"recipe.lr": [datetime.date(2020, 1, 1)]}, "cannot be a level"),
        ({"model.hidden": [{1: 2}]}, "cannot be a level"),
        ({"recipe.loss": [{"name": "mse"}], "recipe.loss.name": ["mse"]}, "would both be called 'loss'"),
        ({"recipe.swa.every": [True]}, "True is not of type 'integer'"),
        (
            {"recipe.augment": [{}], "recipe.augment.flip": [True]},
            "is a part of 'recipe.augment'",
        ),
        ({"recipe.swa.window": [1], "recipe.swa": [{"start": 0, "lr": 1}]}, "whose levels would set it too"),
    ],
)
def test_levels_and_factors_that_cannot_be(factors, words):
    with pytest.raises(ValleysError, match=words):
        named([{"factors": factors}])


def test_a_factor_is_in_every_model_and_recipe_of_its_study():
    """What is a key of the base alone is no level of the others."""
    width = {"factors": {"model": ["mlp", "wide"], "model.hidden": [[4]]}}
    with pytest.raises(ValleysError, match=r"model .wide. has no model\.hidden; put"):
        named([width], models={"wide": {"arch": "resnet8"}})
    quick = load_config("config/smoke.yaml")["recipes"]["quick"]
    more = {"on": {**quick, "start_from": {"recipe": "quick"}}}
    start = {"recipe": "on", "factors": {"recipe": ["quick"], "recipe.start_from.solution": ["swa"]}}
    with pytest.raises(ValleysError, match=r"recipe .quick. has no recipe\.start_from\.solution"):
        named([start], recipes=more)


def test_arguments_of_an_own_network_keep_their_types(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text("def build(**kwargs): ...\n")
    monkeypatch.chdir(tmp_path)
    models = {"own": {"factory": "own_nets:build", "kwargs": {"act": "relu", "width": 8}}}
    levels = [
        "ReLU",
        "../x",
        "{seed}",
        "",
        "a/b",
        "1",
        1,
        True,
        "yes",
        None,
        "None",
        "x" * 300,
        [1, 2],
        {"a": 1},
    ]
    found = named([{"model": "own", "factors": {"model.kwargs.act": levels}}], models=models)
    given = {cell.model: levels["model.kwargs.act"] for cell, levels in found.studies["s0"].items()}
    assert list(map(repr, given.values())) == list(map(repr, ["relu", *levels]))
    assert all(found.models[name]["kwargs"]["act"] == level for name, level in given.items())
    with pytest.raises(ValleysError, match=r"8\.0 is another level, or the base's value, but for the type"):
        named([{"model": "own", "factors": {"model.kwargs.width": [8.0]}}], models=models)
    models["own"]["kwargs"] = {
        "act": {1: "relu"}
    }  # JSON has text for keys: later jobs would get {"1": "relu"}
    with pytest.raises(ValleysError, match=r"models\.own: kwargs: .* with text for keys"):
        named(models=models)


def test_rows_of_levels_that_python_takes_for_equal_stay_apart():
    found = study_outcomes._ordered([studies.hashable(v) for v in (1, True, "true", 2)], [])
    assert len(found) == 4
    assert list(
        map(study_outcomes.text_of, study_outcomes._ordered(list(map(studies.hashable, (True, False))), []))
    ) == [
        "no",
        "yes",
    ]


def test_factors_have_names_for_people():
    assert studies.factor_name("recipe.swa.lr") == "swa lr"
    assert studies.factor_name("model.kwargs.width") == "width"
    assert studies.factor_name("recipe.loss.name") == "loss"
    assert studies.factor_name("model.norm_init") == "norm init"
    assert studies.factor_name("recipe") == "recipe"


def test_the_base_is_the_cell_of_the_grid():
    raw = load_config("config/smoke.yaml")
    spec = {
        "dataset": "digits",
        "model": "mlp",
        "recipe": "quick",
        "factors": {"model.norm": ["batch", "none"]},
    }
    found = Experiment(fill_defaults({**raw, "studies": {"s": spec}}))
    assert sorted({cell.model for cell in found.studies["s"]}) == ["mlp", "mlp.norm-none"]
    assert found.models["mlp.norm-none"] == {**found.models["mlp"], "norm": "none"}
    assert [json.dumps(levels) for levels in found.studies["s"].values()] == [
        '{"model.norm": "batch"}', '{"model.norm": "none"}',
    ]  # fmt: skip


# --- rows of a study's table ---

CELL = {"dataset": "d", "model": "m", "recipe": "r", "seed": 0}
ABOUT = CELL | {"solution": "sgd", "probe": "p", "kind": "uniform", "group": "all", "k": 0}
CONSTANTS = {"c": 2.0, "zeta_max": 0.5, "min_span": 0.25, "minimum_within": 0.25, "noise": 1e-6}


def study_rows(losses, decay, projection=0.0, solutions=("sgd",), extra=(), slopes=None):
    """Rows of a study of one cell, whose curve has these losses at -4, ..., 4."""
    from valleys.storage import tables

    def table(name, rows):
        blank = {c["name"]: None for c in tables.declared()[name]["columns"]}
        return pa.Table.from_pylist([blank | row for row in rows], schema=tables.schema(name))

    point = {"train_accuracy": 1.0, "test_accuracy": 1.0}
    curves = [
        ABOUT | point | {"bn_policy": "frozen", "offset": float(i - 4), "train_loss": x, "test_loss": x}
        for i, x in enumerate(losses)
    ]
    for row, slope in zip(curves, slopes or [], strict=False):
        row["train_slope"] = slope
    direction = ABOUT | {"bn_policy": "frozen", "checksum": "c", "radius": 4.0, "projection": projection}
    direction |= {"radius_status": "fixed"}
    direction |= {"sign_agreement": 0.5}
    stored = [
        CELL
        | point
        | {
            "solution": name,
            "train_loss": t,
            "test_loss": 2 * t,
            "weight_norm": 3.0,
            "gradient_gain": 0.25 if name == "sgd" else None,
            "checksum": "c",
        }
        for name, t in zip(solutions, (1.0, 1.5, 1.25), strict=False)
    ]
    curves += [row | {"probe": "other"} for row in curves] if extra else []
    spec = {"asymmetry": CONSTANTS, "probes": ["p"], "solutions": list(solutions)}
    spec["cells"] = [CELL | {"levels": {"recipe.weight_decay": decay}, "weight_decay": decay}]
    return detection.study(
        table("curves", curves), table("directions", [direction]), table("solutions", stored), spec
    )


ASYMMETRIC = [16.0, 12.0, 8.0, 4.0, 0.0, 1.0, 2.0, 3.0, 4.0]


def test_rows_carry_levels_and_the_solution():
    (row,) = study_rows(ASYMMETRIC, None)
    assert json.loads(row["levels"]) == {"recipe.weight_decay": None}
    assert (row["status"], row["penalty"], row["bn_policy"]) == ("asymmetric", False, "frozen")
    assert (row["train_loss"], row["test_loss"], row["weight_norm"]) == (1.0, 2.0, 3.0)
    assert row["gradient_gain"] == 0.25
    assert row["swa_rise"] is row["swa_gain"] is row["eigenvalue"] is None


def test_rows_say_what_swa_gains():
    rows = study_rows(ASYMMETRIC, None, solutions=("sgd", "swa", "descent"))
    assert [(row["swa_rise"], row["swa_gain"]) for row in rows] == [(0.25, -0.5)]
    assert [(row["swa_rise_sgd"], row["swa_gain_sgd"]) for row in rows] == [(0.5, -1.0)]


def test_swa_is_held_against_what_was_made():
    (row,) = study_rows(ASYMMETRIC, None, solutions=("sgd", "swa"))
    assert (row["swa_rise"], row["swa_gain"]) == (None, None)
    assert (row["swa_rise_sgd"], row["swa_gain_sgd"]) == (0.5, -1.0)


def test_other_probes_are_left_out():
    assert len(study_rows(ASYMMETRIC, None, extra=True)) == 1


def test_the_penalty_is_that_of_the_moved_weights():
    plain, penalised = study_rows(ASYMMETRIC, 0.5, projection=1.0)
    assert (plain["penalty"], penalised["penalty"]) == (False, True)
    assert plain["rise_plus"] == 4.0
    assert penalised["rise_plus"] == 4.0 + 0.5 * (4 * 1 + 8)  # decay * (l <w, u> + l^2 / 2) at l = 4
    assert penalised["rise_minus"] == 16.0 + 0.5 * (-4 * 1 + 8)


def test_the_penalty_is_part_of_exact_slopes():
    slopes = [-4.0] * 4 + [0.0] + [1.0] * 4
    plain, penalised = study_rows(ASYMMETRIC, 0.5, projection=1.0, slopes=slopes)
    assert (plain["c_star"], plain["p"]) == (4.0, 1.0)
    # Its slope is decay * (<w, u> + l): 1 and 1.5 at l of 1 and 2, 0 and -0.5 at -1 and -2.
    assert (penalised["zeta"], penalised["r"], penalised["p"]) == (1.0, 2.0, 2.5)
    assert penalised["c_star"] == 4 / 2.5


def test_without_weight_decay_there_is_no_penalty():
    assert [row["penalty"] for row in study_rows(ASYMMETRIC, 0.0)] == [False]
