"""Studies expand to the variants that their design says, and keep what is done when they grow."""

import collections
import itertools
import json

import pyarrow as pa
import pytest
from conftest import fill_defaults, load_config
from valleys import detection, studies
from valleys.config import Experiment

FACTORS = {"model.activation": ["relu", "tanh", "gelu"], "recipe.loss.name": ["cross_entropy", "mse"]}


def expanded(design, runs=None, factors=None):
    spec = {"factors": FACTORS if factors is None else factors, "design": design, "runs": runs}
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


@pytest.mark.parametrize(
    ("level", "text"), [(True, "yes"), (5e-4, "0.0005"), ([8, 16], "8x16"), ("tanh", "tanh"), (3, "3")]
)
def test_levels_can_stand_in_file_names(level, text):
    assert studies.level_name(level) == text


def test_factors_have_names_for_people():
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
    from valleys import tables

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
        | {"solution": name, "train_loss": t, "test_loss": 2 * t, "weight_norm": 3.0, "checksum": "c"}
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
    assert row["swa_rise"] is row["swa_gain"] is row["eigenvalue"] is None


def test_rows_say_what_swa_gains():
    rows = study_rows(ASYMMETRIC, None, solutions=("sgd", "swa", "descent"))
    assert [(row["swa_rise"], row["swa_gain"]) for row in rows] == [(0.25, -0.5)]


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
