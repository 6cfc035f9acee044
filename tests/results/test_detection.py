"""Curves in tables become verdicts: Definition 1 and the shift, direction by direction."""

import math

import numpy as np
import pyarrow as pa
import pytest
from valleys.errors import ValleysError
from valleys.results import detection
from valleys.storage import tables

CONSTANTS = {"c": 2.0, "zeta_max": 0.25, "min_span": 0.25, "noise": 1e-6}
CELL = {"dataset": "d", "model": "m", "recipe": "r", "seed": 3}
OFFSETS = np.linspace(-2, 2, 41)


def name(k=0, solution="sgd"):
    return {**CELL, "solution": solution, "probe": "uniform", "kind": "uniform", "group": "all", "k": k}


def some(table, **values):
    """A row of a table, with some value of the right type where none is given."""
    kinds = {"string": "", "int64": 0, "float64": 0.0, "bool": False}
    columns = tables.declared()[table]["columns"]
    return {c["name"]: None if c.get("optional") else kinds[c["type"]] for c in columns} | values


def make(table, rows):
    return pa.Table.from_pylist([some(table, **row) for row in rows], schema=tables.schema(table))


def judge(curves, *, checksum="abc", known=None, shuffle=False):
    """Judge curves {k: (train, test)} at OFFSETS, all of one solution."""
    points = [
        {**name(k), "offset": x, "train_loss": a, "test_loss": b}
        for k, (train, test) in curves.items()
        for x, a, b in zip(OFFSETS, train, test, strict=True)
    ]
    if shuffle:
        points = [points[i] for i in np.random.default_rng(0).permutation(len(points))]
    known = curves if known is None else known
    about = {"radius": 2.0, "radius_status": "capped", "checksum": "abc"}
    directions = [{**name(k), **about} for k in known]
    stored = [
        {**CELL, "solution": "sgd", "checksum": checksum},
        {**CELL, "solution": "swa", "checksum": "other"},
    ]
    return detection.judge(
        make("curves", points), make("directions", directions), make("solutions", stored), CONSTANTS
    )


def valley(plus, minus, at=0.0):
    """A valley with slope `plus` on the right of its minimum and `minus` on the left."""
    x = OFFSETS - at
    return np.where(x > 0, plus * x, -minus * x) + 0.1


def test_an_asymmetric_valley():
    # Slopes 1 and 5: c* is 5 in every window; the widest with the smallest zeta starts at the first offset.
    (row,) = judge({0: (valley(1, 5), valley(1, 5))})
    assert {key: row[key] for key in name()} == name()
    assert (row["status"], row["flat_side"]) == ("asymmetric", 1)
    assert (row["radius"], row["radius_status"]) == (2.0, "capped")
    assert row["c_star"] == pytest.approx(5)
    assert (row["zeta"], row["r"], row["p"]) == pytest.approx((0.1, 2.0, 1.0))
    assert (row["rise_plus"], row["rise_minus"], row["rise"]) == pytest.approx((2, 10, 10))
    assert (row["minimum"], row["reach"]) == (0, 2)
    assert row["asymmetry_index"] == pytest.approx(math.log(5))
    assert row["argmin_offset"] == 0
    assert (row["shift"], row["shift_gap"]) == pytest.approx((0, 0), abs=1e-9)


def with_parts(size):
    """Curves table of an asymmetric valley (c* of 2.5), the error of its steep side given."""
    losses = valley(1, 2.5)
    points = [
        {**name(), "offset": x, "train_loss": y, "test_loss": y, "train_error": size * max(-x, 0)}
        | {"train_error_1": size * max(-x, 0), "train_error_2": 0.0, "train_error_3": 0.0}
        for x, y in zip(OFFSETS, losses, strict=True)
    ]
    return make("curves", points)


def judge_curves(curves):
    directions = make("directions", [{**name(), "radius": 2.0, "checksum": "abc"}])
    stored = make("solutions", [{**CELL, "solution": "sgd", "checksum": "abc"}])
    return detection.judge(curves, directions, stored, CONSTANTS)


@pytest.mark.parametrize(("size", "certain"), [(0.01, True), (0.5, False)])
def test_a_verdict_on_a_subset_of_images_is_certain_or_not(size, certain):
    (row,) = judge_curves(with_parts(size))
    assert (row["status"], row["certain"]) == ("asymmetric", certain)


def test_a_verdict_without_errors_says_nothing_of_them(tmp_path):
    (row,) = judge({0: (valley(1, 5), valley(1, 5))})
    assert "certain" not in row
    tables.write(tmp_path / "t", "asymmetry", [row])
    assert tables.read(tmp_path / "t", "asymmetry")["certain"].to_pylist() == [None]
    exact = with_parts(0.01).to_pandas().assign(train_slope=np.where(OFFSETS > 0, 1.0, -2.5))
    (row,) = judge_curves(pa.Table.from_pandas(exact, schema=tables.schema("curves"), preserve_index=False))
    assert "certain" not in row  # errors of exact slopes are not known
    broken = with_parts(0.01).to_pandas().assign(test_loss=math.inf)
    (row,) = judge_curves(pa.Table.from_pandas(broken, schema=tables.schema("curves"), preserve_index=False))
    assert row["status"] == "not_finite"
    assert "certain" not in row


def test_the_mirror_image_is_flat_on_the_other_side():
    (row,) = judge({0: (valley(5, 1), valley(5, 1))})
    assert (row["status"], row["flat_side"]) == ("asymmetric", -1)
    assert row["c_star"] == pytest.approx(5)
    assert row["asymmetry_index"] == pytest.approx(-math.log(5))


def test_a_symmetric_valley():
    parabola = OFFSETS**2
    (row,) = judge({0: (parabola, parabola)})
    assert row["status"] == "symmetric"
    assert row["c_star"] <= 1
    assert row["asymmetry_index"] == pytest.approx(0, abs=1e-12)


def test_below_the_threshold_is_symmetric():
    rows = judge({0: (valley(1, 1.9), valley(1, 1.9)), 1: (valley(1, 2.1), valley(1, 2.1))})
    assert [row["status"] for row in rows] == ["symmetric", "asymmetric"]
    assert [row["c_star"] for row in rows] == pytest.approx([1.9, 2.1])


def test_exact_slopes_are_used_where_a_curve_has_all_of_them():
    parabola, slopes = (
        OFFSETS**2,
        np.where(OFFSETS < 0, -6.0, 1.0),
    )  # not those of the parabola: which is used shows
    points = [
        {**name(k), "offset": x, "train_loss": y, "test_loss": y, "train_slope": s}
        for k in range(3)
        for x, y, s in zip(OFFSETS, parabola, slopes, strict=True)
    ]
    points[41 + 7]["train_slope"] = None  # of direction 1
    points[82 + 9]["train_slope"] = math.nan  # of direction 2
    directions = [{**name(k), "radius": 2.0, "checksum": "abc"} for k in range(3)]
    stored = [{**CELL, "solution": "sgd", "checksum": "abc"}]
    tables = make("curves", points), make("directions", directions), make("solutions", stored)
    rows = detection.judge(*tables, CONSTANTS)
    assert [row["status"] for row in rows] == ["asymmetric", "symmetric", "symmetric"]
    assert (rows[0]["c_star"], rows[0]["p"]) == (6.0, 1.0)


def test_no_minimum_and_no_slope():
    slope = -OFFSETS
    flat = np.full_like(OFFSETS, 0.3)
    rows = judge({0: (slope, slope), 1: (flat, flat)})
    assert [row["status"] for row in rows] == ["not_minimum", "flat"]
    assert all(math.isnan(row["c_star"]) for row in rows)


def test_the_shift_of_the_test_curve():
    # The test valley is the train valley moved by 0.3, two steps of the grid and more, and lifted by 0.05.
    (row,) = judge({0: (OFFSETS**2, (OFFSETS - 0.3) ** 2 + 0.05)})
    assert row["shift_free"] == pytest.approx(0.3, abs=0.01)
    assert row["shift_free_b"] == pytest.approx(0.05, abs=0.01)
    assert row["shift_free_gap"] == pytest.approx(0, abs=0.01)
    assert row["shift_gap"] >= row["shift_free_gap"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("which", [0, 1], ids=["train", "test"])
def test_a_curve_that_is_not_finite_says_so(bad, which, tmp_path):
    curves = [OFFSETS**2, OFFSETS**2]
    curves[which][-1] = bad
    rows = judge({0: curves, 1: (valley(1, 5), valley(1, 5))})
    assert [row["status"] for row in rows] == ["not_finite", "asymmetric"]
    assert rows[0]["flat_side"] == 0
    assert rows[0]["radius"] == 2.0
    words = {*name(), "status", "flat_side", "radius", "radius_status"}
    numbers = {key: value for key, value in rows[0].items() if key not in words}
    assert len(numbers) == 16
    assert all(math.isnan(value) for value in numbers.values())
    tables.write(tmp_path / "t", "asymmetry", rows)


def test_rows_fit_the_table_and_do_not_hang_on_the_order_of_points(tmp_path):
    curves = {k: (valley(1, 2 + k, at=0.1 * (k % 2)), OFFSETS**2) for k in range(3)}
    rows = judge(curves)
    tables.write(tmp_path / "one", "asymmetry", rows)
    by_number = sorted(judge(curves, shuffle=True), key=lambda row: row["k"])
    tables.write(tmp_path / "two", "asymmetry", by_number)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert [row["k"] for row in rows] == [0, 1, 2]


def test_curves_of_other_weights_are_an_error():
    with pytest.raises(ValleysError, match="probed from other weights") as caught:
        judge({7: (OFFSETS**2, OFFSETS**2)}, checksum="xyz")
    assert "d/m/r/3/sgd/uniform/uniform/all/7" in str(caught.value)


def test_a_curve_without_its_direction_or_solution_is_an_error():
    parabola = (OFFSETS**2, OFFSETS**2)
    with pytest.raises(ValleysError, match=r"d/m/r/3/sgd/uniform/uniform/all/1 has no row in .*directions"):
        judge({0: parabola, 1: parabola}, known=[0])
    points = [{**name(0, "descent"), "offset": x, "train_loss": x * x, "test_loss": x * x} for x in OFFSETS]
    directions = make("directions", [{**name(0, "descent"), "radius": 2.0, "checksum": "abc"}])
    with pytest.raises(ValleysError, match=r"descent/uniform/uniform/all/0 has no row in .*solutions"):
        detection.judge(
            make("curves", points), directions, make("solutions", [{**CELL, "solution": "sgd"}]), CONSTANTS
        )


def shift_rows(curves):
    points = [
        {**name(k), "offset": x, "train_loss": a, "test_loss": b}
        for k, (train, test) in curves.items()
        for x, a, b in zip(OFFSETS, train, test, strict=True)
    ]
    return detection.shift_curves(make("curves", points))


def test_the_shift_curve_of_a_shifted_and_lifted_valley(tmp_path):
    # The test valley is moved by 0.3 = 0.15 R and lifted by 0.05: with b free nothing is left at 0.15.
    rows = shift_rows({0: (OFFSETS**2, (OFFSETS - 0.3) ** 2 + 0.05)})
    tables.write(tmp_path / "t", "shift", rows)
    assert {key: rows[0][key] for key in name()} == name()
    found = {(row["policy"], round(row["delta_over_r"], 6)): row for row in rows}
    deltas = [delta for policy, delta in found if policy == "free"]
    assert deltas == pytest.approx(list(np.linspace(-0.25, 0.25, 21)))
    assert len(found) == len(rows) == 42
    assert found["free", 0.15]["gap"] == pytest.approx(0, abs=0.01)
    assert found["fixed", 0.15]["gap"] == pytest.approx(0.05, abs=0.01)
    # At no shift the difference at l is 0.09 - 0.6 l + 0.05, with l up to 1.5: midrange 0.14.
    assert found["free", 0.0]["gap"] == pytest.approx(0.9, abs=0.01)
    assert found["fixed", 0.0]["gap"] == pytest.approx(1.04, abs=0.01)
    for (policy, _), row in found.items():
        assert row["relative_gap"] == pytest.approx(row["gap"] / found[policy, 0.0]["gap"])


def test_the_shift_curve_and_the_best_shift_agree():
    curves = {0: (valley(1, 5), 1.1 * valley(1, 4, at=0.1)), 1: (OFFSETS**2, OFFSETS**2 + 0.1 * OFFSETS)}
    rows, verdicts = shift_rows(curves), judge(curves)
    for verdict in verdicts:
        for policy, best in (("fixed", "shift"), ("free", "shift_free")):
            gaps = [row["gap"] for row in rows if (row["k"], row["policy"]) == (verdict["k"], policy)]
            assert verdict[f"{best}_gap"] <= min(gaps) + 1e-8
            at = 4 * verdict[best] / 2.0 * 10 + 10  # where among the shifts of the table the best one lies
            assert abs(at - np.argmin(gaps)) < 1


def test_shift_curves_without_a_gap_or_not_finite(tmp_path):
    bad = OFFSETS**2
    bad[0] = math.inf
    rows = shift_rows({0: (OFFSETS**2, OFFSETS**2), 1: (OFFSETS**2, bad)})
    tables.write(tmp_path / "t", "shift", rows)
    assert len(rows) == 84
    assert all(math.isnan(row["relative_gap"]) for row in rows)
    assert all(math.isnan(row["gap"]) == (row["k"] == 1) for row in rows)


def test_no_curves_make_no_rows():
    assert judge({}) == []
    assert shift_rows({}) == []
