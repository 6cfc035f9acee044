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
    blank = {c["name"]: BLANK.get(c["type"]) for c in tables.declared()["directions"]["columns"]}
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
        for key in ("c_star", "shift", "shift_gap", "shift_free_gap", "rise_plus", "rise"):
            assert other[key] == pytest.approx(one[key], rel=0.05, abs=2e-3), key
        assert other["asymmetry_index"] == pytest.approx(one["asymmetry_index"], abs=0.01)
    assert {row["status"] for row in whole} == {"symmetric", "asymmetric"}
    for measured in ((ALL,) * 4, (SOME, ALL, SOME, SOME)):
        gaps = detection.shift_curves(table(measured))
        gains = measured_gain.rows(table(measured), pa.Table.from_pylist(judged(measured)), CONSTANTS)
        shares = sensitivity.rows(table(measured), CONSTANTS, 0.95)
        found = [[row["gap"] for row in gaps], [row["gain"] for row in gains], [row["n"] for row in shares]]
        if measured[0] is ALL:
            expected = found
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=0.05, abs=1e-2)


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


def signed(points, **names):
    """Tables of directions of kind sign at one minimum: (share of agreeing signs, index) of each."""
    about = {**CELL, "solution": "sgd", "probe": "signs", "kind": "sign", "group": "all"} | names
    rows = [
        {**about, "k": k, "sign_agreement": share, "asymmetry_index": index}
        for k, (share, index) in enumerate(points)
    ]
    return pd.DataFrame(rows)


def slopes(points):
    rows = signed(points)
    return measures.sign_slopes(measures.signs(rows, rows))


def test_the_slope_on_the_share_of_signs_is_that_of_a_line_through_one_half():
    line = [(share, 3.0 * (share - 0.5)) for share in (1 / 8, 1 / 4, 1 / 2, 3 / 4, 7 / 8)]
    assert slopes(line).to_dict() == pytest.approx({CELL["seed"]: 3.0})
    # As u and as -u: an offset that all directions share is no part of it, as -u of each has the opposite.
    lifted = [(share, index + 0.7) for share, index in line]
    assert slopes(lifted).item() == pytest.approx(3.0)
    assert slopes([(1 - share, -index) for share, index in line]).item() == pytest.approx(3.0)
    rng = np.random.default_rng(0)
    noisy = [(share, index + rng.normal(0, 0.2)) for share, index in line * 5]
    both = np.array(noisy + [(1 - share, -index) for share, index in noisy])
    assert slopes(noisy).item() == pytest.approx(np.polyfit(both[:, 0], both[:, 1], 1)[0])


def test_a_slope_needs_shares_away_from_one_half_and_an_index():
    assert math.isnan(slopes([(0.49, 0.3), (0.52, -0.4)]).item())
    assert math.isnan(slopes([(0.25, math.nan), (math.nan, 1.0)]).item())
    assert slopes([(0.25, -1.0), (0.75, math.nan)]).item() == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("first", "second", "differ"),
    [
        ([2.0, 2.1, 1.9], [1.0, 1.1, 1.05], False),
        ([2.0], [1.0], False),
        ([2.0, 2.01], [1.0, 1.0], True),
        ([0.23] * 6, [226.0] * 6, True),
        ([math.nan, 2.0], [2.0, math.nan, math.inf], False),
        ([math.nan], [1.0], False),
        ([], [], False),
    ],
)
def test_rises_that_differ_more_than_twofold_are_not_compared(first, second, differ):
    first, second = (pd.DataFrame({"rise": rises}, dtype=float) for rises in (first, second))
    told = measures.equal_rises(first, second)
    assert bool(told) is differ
    other = measures.equal_rises(second, first)
    assert bool(other) is differ
    if len(first) == 6:
        assert told == "not comparable: median rises 0.23 and 226 nats differ more than 2-fold"


def test_on_which_side_of_what_was_found_swa_lies():
    about = {**CELL, "probe": "found", "kind": "searched", "group": "all", "solution": "sgd"}
    sides = [(0.4, 1, 2.0), (-0.1, -1, 1.0), (0.2, 0, 1.0)]  # towards SWA, flat side, R
    rows = [
        {**about, "seed": seed, "k": k, "towards_swa": (-1) ** seed * towards, "flat_side": side, "radius": r}
        for seed in (0, 1)
        for k, (towards, side, r) in enumerate(sides)
    ]
    rows.append(
        {**about, "solution": "swa", "seed": 0, "k": 0, "towards_swa": None, "flat_side": 1, "radius": 1}
    )
    rows.append(
        {**about, "kind": "gaussian", "seed": 0, "k": 0, "towards_swa": 9.0, "flat_side": 1, "radius": 1}
    )
    table = pd.DataFrame(rows)
    directions, asymmetry = table.drop(columns="flat_side"), table[[*measures.DIRECTION, "flat_side"]]
    found = measures.swa_sides(directions, asymmetry).set_index("seed")
    assert found["offset"].to_dict() == pytest.approx({0: 0.25, 1: -0.25})
    assert found["share"].to_dict() == pytest.approx({0: 0.15, 1: -0.15})
    assert found["directions"].tolist() == [2, 2]
    assert measures.swa_sides(directions.drop(columns="towards_swa"), asymmetry).empty


def test_directions_short_of_the_rise():
    rows = pd.DataFrame({"radius_status": ["capped", "found", "jump", "fixed", "capped"]})
    assert measures.falls_short(rows).tolist() == [True, False, False, False, True]
    told = (
        "the loss rises by less than 2 nats along 2 of 5 (1 asymmetric lower down), which count as undecided"
    )
    assert measures.short_of(2, 1, 5, 2.0) == told
    assert measures.short_of(0, 0, 5, 2.0) == ""
    assert measures.short_of(2, 1, 5, None) == ""
