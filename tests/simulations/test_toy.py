"""The one-neuron experiment: draws, the scan over angles, reproducibility, tables."""

import warnings

import numpy as np
import pytest
from valleys.asymmetry.definition import Detection, detect
from valleys.errors import ValleysError
from valleys.simulations import neuron, toy


@pytest.fixture(scope="module")
def tables():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return toy.run({})


def test_data():
    """The labels are those of the released code: 0 about +1."""
    x, y = toy.draw_data(2000, 20, seed=0)
    assert x.shape == y.shape == (2000, 40)
    assert x[y == 0].mean() == pytest.approx(1, abs=0.02)
    assert x[y == 1].mean() == pytest.approx(-1, abs=0.02)
    assert x[y == 1].std() == pytest.approx(1, abs=0.02)
    assert (y.sum(axis=1) == 20).all()


def test_draws_do_not_depend_on_their_number():
    for function in (
        lambda n: toy.draw_data(n, 20, 5)[0],
        lambda n: toy.initial(n, 5),
        lambda n: toy.directions(n, 5),
    ):
        assert (function(3) == function(9)[:3]).all()
        assert len(np.unique(function(9)[:, 0])) == 9
    assert (toy.directions(5, 0) != toy.directions(5, 1)).any()


def test_start_and_directions():
    start, u = toy.initial(500, 0), toy.directions(500, 0)
    assert -1 < start.min() < -0.9
    assert 0.9 < start.max() < 1
    assert np.linalg.norm(u, axis=1) == pytest.approx(1)
    assert (u > 0).all()


def test_tables_have_their_rows(tables):
    main, curves, heights = tables["toy_2d"], tables["toy_2d_curves"], tables["toy_2d_surface"]
    assert {len(v) for v in main.values()} == {100}
    probed = int((main["status"] != "no_minimum").sum())
    assert 90 < probed < 100
    assert {len(v) for v in curves.values()} == {probed * 31}
    assert {len(v) for v in tables["toy_2d_scans"].values()} == {probed * 3}
    assert {len(v) for v in tables["toy_2d_angles"].values()} == {probed * 3 * 180}
    assert {len(v) for v in heights.values()} == {61 * 61}
    first = ["recipe", "draw", "weight", "bias", "loss", "gradient_norm", "separable"]
    first += ["direction_weight", "direction_bias"]
    assert set(main) == {*first, *Detection.__dataclass_fields__}
    assert list(curves) == ["recipe", "draw", "offset", "loss"]
    assert list(heights) == ["weight", "bias", "loss"]
    assert set(main["recipe"]) == set(toy.RECIPES)


def test_tables_agree_with_one_another(tables):
    main, curves = tables["toy_2d"], tables["toy_2d_curves"]
    for row in (0, 31, *np.flatnonzero(np.isfinite(main["loss"]))[[-1, -20]]):
        mine = (curves["recipe"] == main["recipe"][row]) & (curves["draw"] == main["draw"][row])
        offsets, losses = curves["offset"][mine], curves["loss"][mine]
        assert losses[offsets == 0] == pytest.approx(main["loss"][row])
        for name, value in detect(offsets, losses).asdict().items():
            assert main[name][row] == value or (np.isnan(main[name][row]) and np.isnan(value))


def test_verdicts(tables):
    main = tables["toy_2d"]
    converged = (main["recipe"] == "converged") & ~main["separable"]
    released = main["recipe"] == "released"
    assert set(main["status"][released]) <= {"asymmetric", "symmetric", "not_minimum"}
    assert set(main["status"][converged]) == {"asymmetric", "symmetric"}
    assert (main["argmin_offset"][converged] == 0).all()
    assert (main["gradient_norm"][converged] < 1e-10).all()
    draws = main["draw"][converged]
    assert (main["loss"][converged] <= main["loss"][released][draws]).all()


def test_the_released_point_is_the_average_of_the_iterates(tables):
    main = tables["toy_2d"]
    x, y = toy.draw_data(50, 10, 0)
    average = neuron.train_gd(x, y, 0.01, 30, toy.initial(50, 0))[1]
    released = main["recipe"] == "released"
    assert np.stack([main["weight"], main["bias"]], axis=-1)[released] == pytest.approx(average)


def test_angles_cover_half_a_turn_and_random_ones_the_first_quarter():
    assert toy.angles(4) == pytest.approx([0, 45, 90, 135])
    weights = toy.random_weights(180)
    assert weights.sum() == pytest.approx(1)
    assert (weights[91:] == 0).all()
    drawn = np.rad2deg(np.arctan2(*np.random.default_rng(0).uniform(0, 1, (2, 200_000))))
    counts = np.bincount(np.round(drawn).astype(int), minlength=180) / 200_000
    assert weights == pytest.approx(counts, abs=0.001)


def test_a_scan_is_definition_1_along_each_angle(tables):
    """Against single lines with slopes by hand."""
    found = tables["toy_2d_angles"]
    x, y = toy.draw_data(50, 10, 0)
    wb = neuron.converge(x, y)[0]
    for row in np.flatnonzero(found["recipe"] == "converged")[::3571]:
        draw, turn, rise = found["draw"][row], np.deg2rad(found["angle"][row]), found["rise"][row]
        u = np.array([np.cos(turn), np.sin(turn)])
        offsets = found["radius"][row] * np.linspace(-1, 1, 41)
        losses = [neuron.loss(wb[draw] + step * u, x[draw], y[draw]) for step in offsets]
        slopes = [neuron.gradient(wb[draw] + step * u, x[draw], y[draw]) @ u for step in offsets]
        one = detect(offsets, losses, slopes=slopes)
        assert (found["status"][row], found["flat_side"][row]) == (one.status, one.flat_side)
        assert found["c_star"][row] == pytest.approx(one.c_star)
        rises = (one.rise_minus, one.rise_plus)
        assert max(rises) == pytest.approx(rise)
        if one.flat_side:
            assert found["flat_rise"][row] == pytest.approx(rises[one.flat_side > 0])
        else:
            assert np.isnan(found["flat_rise"][row])


def test_the_mirror_of_a_draw_has_the_mirrored_scan():
    """Other labels exchange the sides of each line; points mirrored at 0 turn an angle t into 180 - t."""
    x, y = toy.draw_data(3, 10, 5)
    s = toy._spec({"angles": 12})
    wb, other = neuron.converge(x, y)[0], neuron.converge(x, 1 - y)[0]
    one, two = (toy.scan(at[1], x[1], labels[1], 2.0, s) for at, labels in ((wb, y), (other, 1 - y)))
    assert other == pytest.approx(-wb, abs=1e-6)
    assert one["c_star"] == pytest.approx(two["c_star"], rel=1e-4)
    assert one["radius"] == pytest.approx(two["radius"], rel=1e-6)
    mirrored = toy.scan(neuron.converge(-x, y)[0][1], -x[1], y[1], 2.0, s)
    assert one["c_star"][1:] == pytest.approx(mirrored["c_star"][:0:-1], rel=1e-4)


def test_a_summary_counts_angles():
    nan = np.nan
    scanned = {
        "angle": np.array([0.0, 45.0, 90.0, 135.0]),
        "status": np.array(["asymmetric", "symmetric", "asymmetric", "not_minimum"]),
        "c_star": np.array([9.0, 1.5, 3.0, nan]),
        "flat_rise": np.array([0.05, 0.5, 0.2, nan]),
    }
    told = toy.summary(scanned, 0.1)
    assert (told["asymmetric_angles"], told["found"]) == (0.5, True)
    assert told["asymmetric_random"] == pytest.approx(toy.random_weights(4)[[0, 2]].sum())
    assert (told["angle"], told["c_star"], told["flat_rise"]) == (90.0, 3.0, 0.2)
    told = toy.summary(scanned, 0.3)  # only the symmetric one has risen
    assert (told["found"], told["angle"]) == (False, 45.0)
    told = toy.summary(scanned, 1.0)
    assert not told["found"]
    assert np.isnan(told["c_star"])


def test_scans_sum_the_angles_up(tables):
    scans, every = tables["toy_2d_scans"], tables["toy_2d_angles"]
    for row in (0, 77, 200):
        mine = np.all([every[name] == scans[name][row] for name in ("recipe", "draw", "rise")], axis=0)
        told = toy.summary({name: every[name][mine] for name in every}, 0.1)
        assert {name: scans[name][row] for name in told} == pytest.approx(told, nan_ok=True)


def test_reproducible(tables):
    for name, table in toy.run({"seed": 0}).items():
        for column, values in table.items():
            assert np.array_equal(values, tables[name][column], equal_nan=values.dtype.kind == "f")
    fewer = toy.run({"n_draws": 4, "angles": 3})["toy_2d"]
    assert fewer["c_star"][:4] == pytest.approx(tables["toy_2d"]["c_star"][:4], nan_ok=True)


def test_separable_draws_are_rows_without_a_minimum():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tables = toy.run({"n_per_class": 2, "n_draws": 20, "surface_points": 3, "angles": 3})
    main, curves = tables["toy_2d"], tables["toy_2d_curves"]
    converged = main["recipe"] == "converged"
    apart = main["separable"] & converged
    assert 0 < apart.sum() < 20
    assert ((main["status"] == "no_minimum") == apart).all()
    assert np.isnan(main["weight"][apart]).all()
    assert np.isnan(main["c_star"][apart]).all()
    assert (main["flat_side"][apart] == 0).all()
    probed = set(curves["draw"][curves["recipe"] == "converged"])
    assert probed == set(main["draw"][converged & ~apart])
    assert set(curves["draw"][curves["recipe"] == "released"]) == set(range(20))
    scans = tables["toy_2d_scans"]
    assert set(scans["draw"][scans["recipe"] == "converged"]) == probed


def test_all_separable():
    tables = toy.run({"n_per_class": 1, "n_draws": 3, "surface_points": 3, "angles": 3})
    assert list(tables["toy_2d"]["status"][3:]) == ["no_minimum"] * 3


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"draws": 3}, "unknown key 'draws'"),
        ({"n_draws": 0}, "n_draws"),
        ({"epochs": 1.5}, "epochs"),
        ({"epochs": 0}, "epochs is 0"),
        ({"angles": 0}, "angles is 0"),
        ({"points": 20}, "points is 20"),
        ({"rises": [1, -2]}, "rises is -2"),
        ({"floor": -1}, "floor is -1"),
        ({"lr": -1}, "lr"),
        ({"step": 0.4}, "steps"),
        ({"c": 0.5}, "c:"),
        ({"step": 7.5}, "points"),
    ],
)
def test_bad_spec(spec, word):
    with pytest.raises(ValleysError, match=word):
        toy.run(spec)
