"""What claims and figures take from tables: curves at all points, counts, what subsets leave uncertain."""

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from valleys import asymmetry, detection, measured_gain, measures, sensitivity, tables
from valleys.stats import wilson

pytestmark = pytest.mark.usefixtures("no_warnings")

X = np.linspace(-2, 2, 31)
CONSTANTS = {"c": 2.0, "zeta_max": 0.5, "min_span": 0.25, "minimum_within": 0.25, "noise": 1e-9}
CELL = {"dataset": "d", "model": "m", "recipe": "r", "seed": 0}


def losses(k):
    """Train and test loss of direction k: smooth valleys, the more asymmetric the greater k."""

    def valley(x):
        return np.log(np.exp(2 * x) + np.exp(-(2 + k) * x)) + 0.1 * x**2

    return valley(X) - valley(0), 1.3 * valley(X - 0.1) - valley(0) + 0.2


def rows(steps, **more):
    """The curves table's rows: one direction for each step, None for a probe that is not adaptive."""
    found = []
    for k, step in enumerate(steps):
        for x, train, test in list(zip(X, *losses(k), strict=True))[:: step or 1]:
            row = {**CELL, "solution": "sgd", "probe": "u", "kind": "uniform", "group": "all", "k": k}
            row |= {"bn_policy": "none", "offset": x, "train_loss": train, "test_loss": test}
            found.append(row | {"train_accuracy": 0.5 + x / 10, "test_accuracy": 0.5, "step": step} | more)
    return found


def frame(steps, **more):
    return pa.Table.from_pylist(rows(steps, **more), schema=tables.schema("curves")).to_pandas()


def table(steps):
    return pa.Table.from_pylist(rows(steps), schema=tables.schema("curves"))


@pytest.mark.parametrize("steps", [(None, None), (1, 1)])
def test_whole_curves_stay_as_they_are(steps):
    given = frame(steps)
    assert measures.on_all_points(given) is given
    assert measures.on_all_points(given.drop(columns="step")).equals(given.drop(columns="step"))


def test_coarse_curves_get_the_points_between():
    found, whole = measures.on_all_points(frame((3, 1, 3))), frame((1, 1, 1))
    assert found["k"].tolist() == whole["k"].tolist()  # in the order they had
    assert found["offset"].tolist() == pytest.approx(whole["offset"].tolist(), abs=1e-14)
    for split in ("train", "test"):
        apart = (found[f"{split}_loss"] - whole[f"{split}_loss"]).abs()
        assert (apart[found["k"] == 1] == 0).all()
        assert (apart[::3][found["k"][::3] == 0] == 0).all()  # those measured
        assert 0 < apart.max() < 0.02 * whole[f"{split}_loss"].max()
    assert found["train_accuracy"].tolist() == pytest.approx(whole["train_accuracy"].tolist())
    assert found["train_slope"].isna().all()
    assert found.drop_duplicates(measures.DIRECTION)["step"].tolist() == [3, 1, 3]


def test_exact_slopes_and_errors_are_carried_on():
    slopes = frame((3,))
    slopes["train_slope"] = np.gradient(losses(0)[0], X)[::3]
    for part in ("train_error", "test_error", *measures.ERROR_PARTS):
        slopes[part] = 0.01 * slopes["offset"] ** 2
    found = measures.on_all_points(slopes)
    assert np.isfinite(found["train_slope"]).all()
    assert found["train_slope"].iloc[::3].tolist() == pytest.approx(slopes["train_slope"].tolist())
    assert found["train_error_2"].tolist() == pytest.approx((0.01 * X**2).tolist())


def test_a_curve_that_is_not_finite_stays_coarse():
    given = frame((3, 3))
    given.loc[4, "test_loss"] = math.inf
    assert measures.on_all_points(given).groupby("k").size().tolist() == [11, 31]


def judged(steps):
    directions = [
        {**{c["name"]: {"string": "", "int64": 0, "float64": 1.0}[c["type"]] for c in columns}, **row}
        for columns in [tables.declared()["directions"]["columns"]]
        for row in (
            {
                **CELL,
                "solution": "sgd",
                "probe": "u",
                "kind": "uniform",
                "group": "all",
                "k": k,
                "radius": 2.0,
            }
            for k in range(len(steps))
        )
    ]
    about = pa.Table.from_pylist(directions, schema=tables.schema("directions"))
    columns = tables.declared()["solutions"]["columns"]
    stored = {c["name"]: {"string": "", "int64": 0, "float64": 1.0}[c["type"]] for c in columns}
    stored = pa.Table.from_pylist([stored | CELL | {"solution": "sgd"}], schema=tables.schema("solutions"))
    return detection.judge(table(steps), about, stored, CONSTANTS)


def test_whoever_reads_curves_hardly_sees_that_they_are_coarse():
    """Verdicts, shifts, gains and their sensitivity, near those of all points."""
    whole, coarse = judged((1,) * 4), judged((3,) * 4)
    for one, other in zip(whole, coarse, strict=True):
        assert (one["status"], one["flat_side"]) == (other["status"], other["flat_side"])
        for key in ("c_star", "shift", "shift_gap", "shift_free_gap", "rise_plus"):
            assert other[key] == pytest.approx(one[key], rel=0.05, abs=2e-3), key
    assert {row["status"] for row in whole} == {"symmetric", "asymmetric"}
    raw = [asymmetry.shift(X[::3], *(y[::3] for y in losses(k)), free_offset=True).gap for k in range(4)]
    assert raw[0] < 0.95 * whole[0]["shift_free_gap"]  # what eleven points by themselves would say
    for steps in ((1,) * 4, (3, 1, 3, 3)):
        gaps = detection.shift_curves(table(steps))
        gains = measured_gain.rows(table(steps), pa.Table.from_pylist(judged(steps)))
        shares = sensitivity.rows(table(steps), CONSTANTS, 0.95)
        found = [[row["gap"] for row in gaps], [row["gain"] for row in gains], [row["n"] for row in shares]]
        if steps[0] == 1:
            expected = found
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=0.05, abs=5e-3)


@pytest.mark.parametrize(
    ("certain", "text"),
    [
        ([], ""),
        ([None, None], ""),
        ([None, True, True], "verdict of 0 of 2 on a subset of the images might be another on all"),
        ([False, True, None], "verdict of 1 of 2 on a subset of the images might be another on all"),
    ],
)
def test_what_a_subset_leaves_uncertain(certain, text):
    assert measures.uncertain(pd.DataFrame({"certain": pd.Series(certain, dtype=object)})) == text
    assert measures.uncertain(pd.DataFrame({"status": [""]})) == ""


def test_prevalence_counts_uneven_rises_on_either_side(figure_data):
    rows = figure_data["asymmetry"][figure_data["asymmetry"]["solution"] == "sgd"]
    index = np.log([2.0, 0.5, 1.99, 0.51, 7.0]).tolist() + [np.nan] * (len(rows) - 5)
    counts = measures.prevalence(rows.assign(asymmetry_index=index), 0.95, 2.0).iloc[0]
    assert (counts["uneven"], counts["n"]) == (3, len(rows))
    assert counts["uneven_high"] == wilson(3, len(rows)).high
