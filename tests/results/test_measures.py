"""What claims and figures take from tables: curves at all points, counts, what subsets leave uncertain."""

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from valleys.results import detection, measured_gain, measures, sensitivity
from valleys.results.stats import wilson
from valleys.storage import tables

pytestmark = pytest.mark.usefixtures("no_warnings")

X = np.linspace(-2, 2, 31)
CONSTANTS = {"c": 2.0, "zeta_max": 0.5, "min_span": 0.25, "minimum_within": 0.25, "noise": 1e-9}
CELL = {"dataset": "d", "model": "m", "recipe": "r", "seed": 0}
BLANK = {"string": "", "int64": 0, "float64": 1.0}


def losses(k):
    """Train and test loss of direction k: smooth valleys, the more asymmetric the greater k."""

    def valley(x):
        return np.log(np.exp(2 * x) + np.exp(-(2 + k) * x)) + 0.1 * x**2

    return valley(X) - valley(0), 1.3 * valley(X - 0.1) - valley(0) + 0.2


SOME = [0, 3, 6, 9, 12, 14, 15, 18, 21, 24, 27, 30]  # of the points
ALL = list(range(31))


def rows(measured, **more):
    """The curves table's rows: a direction for each list of points, None for a probe that is not adaptive."""
    found = []
    for k, at in enumerate(measured):
        points = list(zip(X, *losses(k), strict=True))
        for x, train, test in [points[i] for i in (ALL if at is None else at)]:
            row = {**CELL, "solution": "sgd", "probe": "u", "kind": "uniform", "group": "all", "k": k}
            row |= {"bn_policy": "none", "offset": x, "train_loss": train, "test_loss": test}
            found.append(row | {"train_accuracy": 0.5 + x / 10, "test_accuracy": 0.5} | more)
            found[-1]["grid_points"] = None if at is None else 31
    return found


def frame(measured, **more):
    return pa.Table.from_pylist(rows(measured, **more), schema=tables.schema("curves")).to_pandas()


def table(measured):
    return pa.Table.from_pylist(rows(measured), schema=tables.schema("curves"))


@pytest.mark.parametrize("measured", [(None, None), (ALL, ALL)])
def test_whole_curves_stay_as_they_are(measured):
    given = frame(measured)
    assert measures.on_all_points(given) is given
    assert measures.on_all_points(given.drop(columns="grid_points")).equals(given.drop(columns="grid_points"))


def test_adaptive_curves_get_the_points_left_out():
    found, whole = measures.on_all_points(frame((SOME, ALL, SOME))), frame((ALL, ALL, ALL))
    assert found["k"].tolist() == whole["k"].tolist()  # in the order they had
    assert found["offset"].tolist() == pytest.approx(whole["offset"].tolist(), abs=1e-14)
    for split in ("train", "test"):
        apart = (found[f"{split}_loss"] - whole[f"{split}_loss"]).abs()
        assert (apart[found["k"] == 1] == 0).all()
        assert (apart[found["k"] == 0].iloc[SOME] == 0).all()  # those measured
        assert 0 < apart.max() < 0.02 * whole[f"{split}_loss"].max()
    assert found["train_accuracy"].tolist() == pytest.approx(whole["train_accuracy"].tolist())
    assert found["train_slope"].isna().all()


def test_exact_slopes_and_errors_are_carried_on():
    slopes = frame((SOME,))
    slopes["train_slope"] = np.gradient(losses(0)[0], X)[SOME]
    for part in ("train_error", "test_error", *measures.ERROR_PARTS):
        slopes[part] = 0.01 * slopes["offset"] ** 2
    found = measures.on_all_points(slopes)
    assert np.isfinite(found["train_slope"]).all()
    assert found["train_slope"].iloc[SOME].tolist() == slopes["train_slope"].tolist()
    assert found["train_error_2"].tolist() == pytest.approx((0.01 * X**2).tolist())


def test_where_a_loss_is_not_finite_those_left_out_are_unknown():
    given = frame((SOME, SOME))
    given.loc[4, "test_loss"] = math.inf
    found = measures.on_all_points(given)
    assert found.groupby("k").size().tolist() == [31, 31]
    assert np.isfinite(found["train_loss"]).all()
    assert np.isfinite(found.loc[found["k"] == 1, "test_loss"]).all()
    one = found.loc[found["k"] == 0, "test_loss"]
    assert one.iloc[SOME].tolist() == given.loc[given["k"] == 0, "test_loss"].tolist()
    assert one.drop(one.index[SOME]).isna().all()


def directions(n):
    """The directions table of n directions."""
    blank = {c["name"]: BLANK[c["type"]] for c in tables.declared()["directions"]["columns"]}
    one = {**CELL, "solution": "sgd", "probe": "u", "kind": "uniform", "group": "all", "radius": 2.0}
    return pa.Table.from_pylist([blank | one | {"k": k} for k in range(n)], tables.schema("directions"))


def judged(measured, curves=None):
    curves = table(measured) if curves is None else curves
    stored = {c["name"]: BLANK[c["type"]] for c in tables.declared()["solutions"]["columns"]}
    stored = pa.Table.from_pylist([stored | CELL | {"solution": "sgd"}], schema=tables.schema("solutions"))
    about = directions(len(set(curves["k"].to_pylist())))
    return detection.judge(curves, about, stored, CONSTANTS)


def test_whoever_reads_curves_hardly_sees_that_points_were_left_out():
    """Verdicts, shifts, gains and their sensitivity, near those of all points."""
    whole, some = judged((ALL,) * 4), judged((SOME,) * 4)
    for one, other in zip(whole, some, strict=True):
        assert (one["status"], one["flat_side"]) == (other["status"], other["flat_side"])
        for key in ("c_star", "shift", "shift_gap", "shift_free_gap", "rise_plus"):
            assert other[key] == pytest.approx(one[key], rel=0.05, abs=2e-3), key
    assert {row["status"] for row in whole} == {"symmetric", "asymmetric"}
    for measured in ((ALL,) * 4, (SOME, ALL, SOME, SOME)):
        gaps = detection.shift_curves(table(measured))
        gains = measured_gain.rows(table(measured), pa.Table.from_pylist(judged(measured)))
        shares = sensitivity.rows(table(measured), CONSTANTS, 0.95)
        found = [[row["gap"] for row in gaps], [row["gain"] for row in gains], [row["n"] for row in shares]]
        if measured[0] is ALL:
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


def test_rises_that_differ_by_exactly_c_are_uneven():
    index = pd.Series([math.log(2) - 1e-12, -math.log(2) + 1e-12, math.log(2), 0.69, 0.0, math.nan])
    assert measures.uneven(index, 2.0).tolist() == [True, True, True, False, False, False]
    assert measures.uneven(index.iloc[:0], 2.0).tolist() == []


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("subset", [True, False])
def test_tables_that_lack_columns_are_judged_and_drawn_as_those_that_have_them_empty(adaptive, subset):
    """A file has no column of which no row has a value (`tables.extras`): here adaptive, there a subset."""
    from valleys import figures

    measured = frame((SOME, SOME) if adaptive else (ALL, ALL))
    for part in ("train_error", "test_error", *measures.ERROR_PARTS):
        measured[part] = 0.01 * measured["offset"] ** 2 if subset else math.nan
    measured["grid_points"] = measured["grid_points"] if adaptive else math.nan
    lacking = measured.dropna(axis="columns", how="all").assign(train_slope=measured["train_slope"])
    assert len(lacking.columns) == len(measured.columns) - 6 + (1 if adaptive else 0) + (5 if subset else 0)
    filled, found = (measures.on_all_points(curves) for curves in (measured, lacking))
    assert found.equals(filled[found.columns])
    parts = [("curves", "curves", lacking), ("a", "study", pd.DataFrame(columns=["levels"]))]
    data = tables.stack(parts)
    assert set(data["curves"]) == set(tables.schema("curves").names)
    assert "certain" in data["study"]
    verdicts = judged(None, pa.Table.from_pandas(lacking, preserve_index=False))
    assert all(("certain" in row) is subset for row in verdicts)
    data |= {"directions": directions(2).to_pandas(), "asymmetry": pd.DataFrame(verdicts)}
    spec = {"style": {}, "swa_start": {}, "c": 2.0, "level": 0.95}
    assert "asymmetric 0 of 2" in figures.caption("curves-u", data, spec)
