"""Theorem 1 on measured curves: exact gains of the interpolated curve, and a bound that none falls below."""

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy.integrate import quad
from scipy.interpolate import PchipInterpolator
from valleys.errors import ValleysError
from valleys.results import measured_gain
from valleys.simulations import theory
from valleys.storage import tables

CELL = {"dataset": "d", "model": "m", "recipe": "r", "seed": 3}
CONSTANTS = {"c": 2.0, "zeta_max": 0.5, "min_span": 0.25, "minimum_within": 0.25, "noise": 1e-6}
X = np.linspace(-1, 1, 33)


def valley(c, p=1.0, x=X):
    """Slope p on the flat side, c p on the steep one: PCHIP is exact but for the intervals next to 0."""
    return np.where(x > 0, p * x, -c * p * x)


def rows_of(train, test=None, zeta=1 / 16, r=1.0):
    return measured_gain.direction_rows(X, train, train if test is None else test, zeta, r)


def wobbly(seed):
    rng = np.random.default_rng(seed)
    return 3 * X**2 * (1 + 2 * (X < 0)) + 0.2 * rng.normal(size=len(X)).cumsum() * X**2


@pytest.mark.parametrize("c", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("law", measured_gain.LAWS)
def test_the_linear_valley_gains_what_theory_says(c, law):
    x = np.linspace(-1, 1, 4001)  # fine: the kink is rounded over one interval
    phi = PchipInterpolator(x, valley(c, 0.7, x))
    for scale, bias in ((0.25, 0.125), (0.25, 0.375), (0.5, 0.25)):
        exact = theory.exact_gain(theory.Linear(c, 0.7), bias, theory.Noise(law, scale))
        assert measured_gain.gain(phi, law, scale, bias) == pytest.approx(exact, abs=2e-5)


def test_the_uniform_shift_is_integrated_exactly():
    phi = PchipInterpolator(X, wobbly(0))
    for scale, bias in ((0.25, 0.1), (0.5, 0.5)):
        value, _ = quad(lambda d, b=bias: phi(d) - phi(b + d), -scale, scale, limit=500)
        assert measured_gain.gain(phi, "uniform", scale, bias) == pytest.approx(value / (2 * scale), abs=1e-6)


def test_every_row_of_a_direction():
    rows = rows_of(valley(5), test=(X - 0.25) ** 2)
    grid = {(row["shift"], row["scale"], row["bias"]) for row in rows}
    assert len(rows) == len(grid) == 2 * 11
    assert all(scale + bias <= 1 for _, scale, bias in grid)
    for row in rows:
        if row["bias"] >= X[17]:  # before it, the kink is rounded
            assert row["train_gain"] == pytest.approx(-row["bias"])
        assert row["test_gain"] == pytest.approx(0.25**2 - (row["bias"] - 0.25) ** 2, abs=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_no_gain_is_below_a_bound_convex_or_not(seed):
    rows = [row for zeta in (1 / 16, 1 / 4, 1 / 2) for row in rows_of(wobbly(seed), zeta=zeta)]
    for row in rows:
        for bound in (row["bound"], row["best_bound"]):
            assert math.isnan(bound) or row["gain"] >= bound - 1e-12
    if seed == 0:
        assert any(row["best_bound"] > 0 for row in rows), "the test would say nothing"


def test_the_bound_of_the_linear_valley_is_the_corollarys():
    # A shift of +-1/4, zeta = b = 1/16: always beyond zeta + b, so b (q - p) / 2, with q = 5. At a kink PCHIP
    # has slope 0, which it makes up for within an interval by a slope of 4/3: that is p, and not 1.
    (row,) = (
        r for r in rows_of(valley(5)) if (r["shift"], r["scale"], r["bias"]) == ("rademacher", 0.25, 0.0625)
    )
    assert row["bound"] == pytest.approx(0.0625 * (5 - 4 / 3) / 2)
    assert row["gain"] == pytest.approx(0.0625 * 2)
    assert row["bound"] - 1e-12 <= row["best_bound"] <= row["gain"] + 1e-12


def test_there_is_no_bound_without_a_steep_side_or_beyond_the_window():
    falling = np.where(X < -0.1, -1.0, valley(2))
    assert all(math.isnan(row["bound"]) for row in rows_of(falling))
    reach = {row["scale"] + row["bias"]: row["bound"] for row in rows_of(valley(5), r=0.5)}
    assert all(math.isnan(bound) == (end > 0.5) for end, bound in reach.items())


def test_a_symmetric_curve_gains_nothing():
    assert all(row["gain"] <= 1e-12 for row in rows_of(X**2))


def test_extremes_of_slopes_are_those_of_a_fine_grid():
    phi = PchipInterpolator(X, wobbly(3))
    slopes = measured_gain._Slopes(phi)
    for low, high in ((-1, 1), (-0.3, 0.111), (0.01, 0.02)):
        fine = phi.derivative()(np.linspace(low, high, 20001))
        found = slopes.extremes(low, high)
        assert found == pytest.approx((fine.min(), fine.max()), abs=1e-4)
        assert found[0] <= fine.min() + 1e-12
        assert found[1] >= fine.max() - 1e-12


def some(table, **values):
    kinds = {"string": "", "int64": 0, "float64": 0.0, "bool": False}
    return {c["name"]: kinds[c["type"]] for c in tables.declared()[table]["columns"]} | values


def make(directions, radius=2.0, kind="uniform"):
    """Tables of directions {k: (train, verdict)} with the test loss equal to the train loss."""
    names = {**CELL, "solution": "sgd", "probe": "uniform", "kind": kind, "group": "all"}
    points = [
        some("curves", **names, k=k, offset=radius * x, train_loss=y, test_loss=y, train_slope=math.nan)
        for k, (train, _) in directions.items()
        for x, y in zip(X, train, strict=True)
    ]
    verdicts = [
        some("asymmetry", **names, k=k, zeta=radius / 16, r=radius, **about)
        for k, (_, about) in directions.items()
    ]
    return tuple(
        pa.Table.from_pylist(rows, schema=tables.schema(table))
        for table, rows in (("curves", points), ("asymmetry", verdicts))
    )


def test_the_flat_side_is_found_and_turned_to(tmp_path):
    both = {"status": "asymmetric", "rise_plus": 1.0, "rise_minus": 1.0}
    even = {"status": "symmetric", "flat_side": 0}
    found = measured_gain.rows(
        *make(
            {
                0: (valley(5), both | {"flat_side": 1}),
                1: (valley(5)[::-1], both | {"flat_side": -1}),
                2: (valley(1.2), even | {"rise_plus": 1.0, "rise_minus": 1.2}),
                3: (valley(1.2)[::-1], even | {"rise_plus": 1.2, "rise_minus": 1.0}),
            }
        ),
        CONSTANTS,
    )
    tables.write(tmp_path / "t", "theory_measured", found)
    values = {
        k: [{c: row[c] for c in ("gain", "bound", "test_gain")} for row in found if row["k"] == k]
        for k in range(4)
    }
    for plus, minus in ((0, 1), (2, 3)):
        for one, other in zip(values[plus], values[minus], strict=True):
            assert one == pytest.approx(other, nan_ok=True)
    assert [row["flat_side"] for row in found[::22]] == [1, -1, 1, -1]


def test_directions_without_a_minimum_are_left_out():
    about = {
        k: (valley(5), {"status": status, "flat_side": 1})
        for k, status in enumerate(("not_minimum", "flat", "not_finite", "symmetric"))
    }
    assert {row["k"] for row in measured_gain.rows(*make(about), CONSTANTS)} == {3}
    assert measured_gain.rows(*make({}), CONSTANTS) == []


def test_a_curve_without_a_verdict_is_an_error():
    curves, verdicts = make({0: (valley(5), {"status": "symmetric"})})
    with pytest.raises(ValleysError, match=r"d/m/r/3/sgd/uniform/uniform/all/0 has no row in .*asymmetry"):
        measured_gain.rows(curves, verdicts.slice(0, 0), CONSTANTS)


def skewed(x):
    """A smooth valley of which the side x < 0 is steeper, with its least point at 0."""
    return np.where(x > 0, 1.0, 3.0) * x**2


@pytest.mark.parametrize("kind", ["uniform", "searched"])
@pytest.mark.parametrize("centre", [0.1, -0.15])
def test_gains_are_counted_from_the_curves_own_least_point(kind, centre):
    """A symmetric valley beside the solution gains nothing, in whichever direction it lies."""
    shape = 2.0 * (X - centre) ** 2
    verdict = {"status": "symmetric", "minimum": 2 * centre, "rise": 1.3}
    curves, verdicts = make({0: (shape, verdict)}, kind=kind)
    found = measured_gain.rows(curves, verdicts, CONSTANTS)
    reach = 1 - abs(centre)
    assert {(row["kind"], row["rise"]) for row in found} == {(kind, 1.3)}
    for row in found:
        size = 2.0 * (row["bias"] * reach) ** 2
        assert row["gain"] == pytest.approx(-size, abs=2e-3)
        assert row["train_gain"] == row["test_gain"] == pytest.approx(-size, abs=2e-3)


def test_an_asymmetric_valley_off_centre_is_as_one_in_its_middle():
    x = np.linspace(-1, 1, 33)
    middle = measured_gain.rows(*make({0: (skewed(x), {"status": "asymmetric"})}), CONSTANTS)
    for centre in (0.125, -0.125):
        reach = 1 - abs(centre)
        shape = skewed((x - centre) / reach)
        verdict = {"status": "asymmetric", "minimum": 2 * centre}
        off = measured_gain.rows(*make({0: (shape, verdict)}), CONSTANTS)
        assert {row["flat_side"] for row in off} == {1}
        for one, other in zip(middle, off, strict=True):
            for key in ("gain", "train_gain", "test_gain"):
                assert other[key] == pytest.approx(one[key], abs=0.02)
            assert math.isnan(one["bound"]) == math.isnan(other["bound"])


def test_exact_slopes_give_the_window_where_a_curve_has_them():
    curves, verdicts = make({0: (skewed(X), {"status": "asymmetric", "minimum": 0.0})})
    slopes = np.where(X > 0, 2.0, 6.0) * X / 2.0
    exact = curves.to_pandas().assign(train_slope=np.where(X > 0, slopes, 100 * slopes))
    exact = pa.Table.from_pandas(exact, schema=curves.schema, preserve_index=False)
    own = measured_gain.rows(exact, verdicts, CONSTANTS)
    plain = measured_gain.rows(curves, verdicts, CONSTANTS)
    assert [row["gain"] for row in own] == [row["gain"] for row in plain]
    assert [row["bound"] for row in own] != [row["bound"] for row in plain]
