"""What studies found: levels, designs, minima, and what may be compared."""

import math

import pytest
from study_tables import FILTER, GAUSSIAN, UNIFORM, minimum, table, variants
from valleys.errors import ValleysError
from valleys.results import study_outcomes

A, B = "model.activation", "model.norm"
NAN = math.nan


def one(rows, **order):
    (found,) = study_outcomes.studies(table(rows), {"mine": order} if order else None)
    return found


def test_no_studies():
    assert study_outcomes.studies(None) == []
    assert study_outcomes.studies(table(minimum({}, 0, (1.0,))).iloc[:0]) == []


def test_each_study_of_a_stack_is_one():
    import pandas as pd

    stack = pd.concat([table(minimum({}, 0, (1.0,)), name) for name in ("b", "a")])
    assert [study.name for study in study_outcomes.studies(stack)] == ["a", "b"]


def test_designs():
    assert one(variants([({}, 1)])).design == "none"
    assert one(variants([({A: "relu"}, 1)])).design == "none"  # a factor with one level does not vary
    paired = one(variants([({A: "relu"}, 1), ({A: "tanh"}, 1)]))
    assert (paired.design, paired.base) == ("one_at_a_time", {})
    base = {A: "relu", B: "batch"}
    rows = variants([(base, 1), (base | {A: "tanh"}, 1), (base | {B: "none"}, 1), (base | {B: "group"}, 1)])
    assert (one(rows).design, one(rows).base) == ("one_at_a_time", base)
    full = variants([({A: a, B: b}, 1) for a in ("relu", "tanh") for b in ("batch", "none")])
    assert (one(full).design, one(full).base) == ("crossed", {})


def test_runs_with_seeds_of_their_own_are_not_paired():
    rows = minimum({A: "relu"}, 0, (1.0,)) + minimum({A: "tanh"}, 1, (1.0,))
    assert one(rows).design == "crossed"


def test_levels_are_in_the_order_of_the_config_and_numbers_by_size():
    rows = variants([({A: level}, 1) for level in ("tanh", "gelu", "relu", "elu")])
    assert one(rows, **{A: ["relu", "tanh", "unused"]}).factors == {A: ["relu", "tanh", "elu", "gelu"]}
    rows = variants([({"recipe.lr": level}, 1) for level in (0.1, 0, 0.01)])
    assert one(rows, **{"recipe.lr": [0.1, 0.01, 0]}).factors == {"recipe.lr": [0, 0.01, 0.1]}


def test_levels_that_are_lists_and_a_factor_named_as_a_column():
    rows = variants(
        [({"model.hidden": [8, 8], "recipe": "r"}, 1), ({"model.hidden": [16, 8], "recipe": "r"}, 2)]
    )
    study = one(rows)
    assert study.factors == {"model.hidden": [(16, 8), (8, 8)]}
    there = study.at(study.minima, "model.hidden", (16, 8))
    assert there["index"].tolist() == pytest.approx([2 + 0.001 * seed for seed in range(6)])
    assert study_outcomes.label("model.hidden", (16, 8)) == "hidden 16x8"
    rows = variants([({"recipe": "wide"}, 1), ({"recipe": "sharp"}, 2)])
    assert len(one(rows).at(one(rows).minima, "recipe", "sharp")) == 6
    assert study_outcomes.label("recipe", "sharp") == "sharp"


def test_other_factors_are_held_at_the_base():
    base = {A: "relu", B: "batch"}
    study = one(variants([(base, 1), (base | {A: "tanh"}, 2), (base | {B: "none"}, 3)]))
    at = {level: study.at(study.minima, A, level)["index"].round().tolist() for level in ("relu", "tanh")}
    assert at == {"relu": [1] * 6, "tanh": [2] * 6}
    labels = [label for label, _ in study.groups()]
    assert labels == ["activation relu", "activation tanh", "norm none"]
    assert [len(study.take(study.minima, where)) for _, where in study.groups()] == [6, 6, 6]


def test_a_minimum_is_the_mean_size_over_its_directions():
    rows = minimum({}, 0, (-2.0, 1.0, NAN, 3.0), radius=4.0, weight_norm=8.0)
    (row,) = one(rows).minima.to_dict("records")
    assert (row["index"], row["indexed"], row["plus_steep"]) == (2.0, 3, 1)
    assert (row["asymmetric"], row["directions"], row["relative"]) == (2, 4, 0.5)
    assert math.isnan(row["swa_gain"])
    assert math.isnan(row["eigenvalue"])


@pytest.mark.parametrize(("accuracy", "trained"), [(0.5, True), (0.49, False), (NAN, True)])
def test_minima_that_count(accuracy, trained):
    """A regression has no accuracy to go by."""
    study = one(minimum({}, 0, (1.0,), train_accuracy=accuracy))
    assert study.minima["trained"].tolist() == [trained]


def test_the_sgd_solution_is_looked_at():
    rows = minimum({}, 0, (1.0,), solution="swa") + minimum({}, 0, (2.0,))
    assert one(rows).minima["index"].tolist() == [2.0]
    assert one(rows[:1]).solution == "swa"


def test_width_is_known_where_the_radius_was_found():
    rows = minimum({}, 0, (1.0,), FILTER, radius=2.0) + minimum({}, 1, (1.0,), FILTER, radius=4.0)
    rows += minimum({}, 0, (1.0,), UNIFORM, weight_norm=8.0) + minimum(
        {}, 1, (1.0,), UNIFORM, weight_norm=9.0
    )
    rows += minimum({}, 0, (1.0,), GAUSSIAN, weight_norm=8.0, radius=2.0)
    rows += minimum({}, 1, (1.0,), GAUSSIAN, weight_norm=16.0, radius=4.0)
    study = one(rows)
    width = {(r["probe"], r["seed"]): r["width"] for r in study.minima.to_dict("records")}
    assert (width["filter", 0], width["filter", 1]) == (0.25, 0.5)
    assert all(math.isnan(width[probe, 0]) for probe in ("uniform-far", "gaussian-far"))  # fixed; relative


def test_pairs_by_seed():
    study = one(variants([({A: "relu"}, [1, 2, 3]), ({A: "tanh"}, [3, 3, 3])], seeds=range(3)))
    first, second = (study.at(study.minima, A, level) for level in ("relu", "tanh"))
    second = second.assign(trained=second["seed"] != 1)
    assert study_outcomes.by_seed(first, second, "index").to_dict() == {0: -2.0, 2: 0.0}
    with pytest.raises(ValleysError, match="two minima"):
        study_outcomes.by_seed(study.minima, second, "index")


def test_swa_that_another_made_is_left_out():
    swa = {"swa_gain": 0.1, "swa_rise": 0.2}
    asked = variants([({A: "relu"}, 1), ({A: "tanh"}, 1)], **swa)
    assert one(asked).minima["swa_gain"].tolist() == [0.1] * 12
    shared = variants([({A: "relu"}, 1)], **swa) + variants([({A: "tanh"}, 1)])
    assert one(shared).minima[["swa_gain", "swa_rise"]].isna().all(axis=None)
    for row in asked[-2:]:  # one seed diverged
        row["swa_gain"] = NAN
    assert one(asked).minima["swa_gain"].notna().sum() == 11
    untrained = variants([({A: "relu"}, 1)], **swa) + variants([({A: "tanh"}, 1)], train_accuracy=0.1)
    assert one(untrained).minima["swa_gain"].notna().sum() == 6


def test_the_rise_of_a_minimum_is_the_mean_of_its_directions_that_have_one():
    rows = minimum({A: "relu"}, 0, (1.0, 1.1, 1.2)) + minimum({A: "tanh"}, 0, (1.0,), rise=NAN)
    for row, rise in zip(rows, (2.0, 1.0, NAN), strict=False):
        row["rise"] = rise
    rises = one(rows).minima.set_index("model")["rise"]
    assert rises["m-relu"] == pytest.approx(1.5)
    assert math.isnan(rises["m-tanh"])
