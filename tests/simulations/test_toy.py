"""The one-neuron experiment: calculus, training, reproducibility, tables."""

import warnings

import numpy as np
import pytest
from valleys.asymmetry.definition import Detection, detect
from valleys.errors import ValleysError
from valleys.simulations import toy


@pytest.fixture(scope="module")
def data():
    return toy.draw_data(30, 20, seed=3)


@pytest.fixture(scope="module")
def tables():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return toy.run({})


def test_data(data):
    x, y = toy.draw_data(2000, 20, seed=0)
    assert x.shape == y.shape == (2000, 40)
    assert x[y == 1].mean() == pytest.approx(1, abs=0.02)
    assert x[y == 0].mean() == pytest.approx(-1, abs=0.02)
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


def test_loss_by_hand():
    x, y = np.array([0.5, -2.0]), np.array([1.0, 0.0])
    z = 3 * x - 1
    expected = -(np.log(1 / (1 + np.exp(-z[0]))) + np.log(1 - 1 / (1 + np.exp(-z[1])))) / 2
    assert toy.loss([3, -1], x, y) == pytest.approx(expected)
    assert toy.loss([0, 0], x, y) == pytest.approx(np.log(2))
    assert toy.loss([-1e4, 0], x, y) == pytest.approx((5e3 + 2e4) / 2)  # far out: linear, no overflow


def test_gradient_against_differences(data):
    x, y = data
    wb = np.random.default_rng(0).normal(0, 2, (30, 2))
    g, h = toy.gradient(wb, x, y), 1e-6
    for k, e in enumerate(np.eye(2)):
        difference = (toy.loss(wb + h * e, x, y) - toy.loss(wb - h * e, x, y)) / (2 * h)
        assert g[:, k] == pytest.approx(difference, abs=1e-8)


def test_gradient_descent_against_a_loop(data):
    x, y = data
    start = toy.initial(30, 3)
    end = toy.train_gd(x, y, 0.01, 30, start)
    assert (start == toy.initial(30, 3)).all()  # left as it was
    for draw in (0, 17):
        w, b = start[draw]
        for _ in range(30):
            p = 1 / (1 + np.exp(-(w * x[draw] + b)))
            dw, db = np.mean((p - y[draw]) * x[draw]), np.mean(p - y[draw])
            w, b = w - 0.01 * dw, b - 0.01 * db
        assert end[draw] == pytest.approx([w, b], abs=1e-12)
    assert (toy.loss(end, x, y) < toy.loss(start, x, y)).all()


def test_converged_is_the_minimum(data):
    x, y = data
    wb, apart = toy.converge(x, y)
    assert not apart.any()
    assert np.linalg.norm(toy.gradient(wb, x, y), axis=1).max() < 1e-10
    long = toy.train_gd(x, y, 1.0, 5000, np.zeros((30, 2)))
    assert wb == pytest.approx(long, abs=1e-4)


def test_hard_data_converge_or_are_separable():
    x, y = toy.draw_data(2000, 4, seed=1)
    wb, apart = toy.converge(x, y)
    assert 0.2 < apart.mean() < 0.9
    assert (np.isnan(wb).all(axis=1) == apart).all()
    assert np.linalg.norm(toy.gradient(wb, x, y)[~apart], axis=1).max() < 1e-10


def test_newton_steps_never_climb(data):
    x, y = data
    far = np.random.default_rng(0).normal(0, 8, (30, 2))  # where a full step overshoots
    before = toy.loss(far, x, y)
    assert (toy.loss(toy._newton_step(far, x, y), x, y) <= before * (1 + 1e-12)).all()


@pytest.mark.parametrize(
    ("one", "zero", "expected"),
    [
        ([1, 2], [-1, 0], True),
        ([-1, 0], [1, 2], True),
        ([1, 2], [0, 1], True),
        ([0, 2], [1, -1], False),
        ([0, 3], [1, 2], False),
    ],
)
def test_separable(one, zero, expected):
    assert toy.separable(np.array(one + zero), np.array([1, 1, 0, 0])) == expected


def test_lines_are_convex_with_the_minimum_at_converged(data):
    x, y = data
    wb, _ = toy.converge(x, y)
    offsets = 0.5 * np.arange(-15, 16)
    curves = toy.line(wb, toy.directions(30, 3), x, y, offsets)
    assert curves.shape == (30, 31)
    assert (np.diff(curves, 2) > -1e-12).all()
    assert (curves.argmin(axis=1) == 15).all()
    assert curves[:, 15] == pytest.approx(toy.loss(wb, x, y))


def test_line_point_by_point(data):
    x, y = data
    wb, u = np.array([0.3, -0.2]), np.array([0.6, 0.8])
    curve = toy.line(wb, u, x[0], y[0], [-1, 0, 2])
    assert curve == pytest.approx([toy.loss(wb + t * u, x[0], y[0]) for t in (-1, 0, 2)])


def test_surface(data):
    x, y = data
    weights, biases, losses = toy.surface(x[0], y[0], (-2, 3), (-1, 1), 11)
    assert losses.shape == (11, 11)
    assert losses[7, 2] == pytest.approx(toy.loss([weights[7], biases[2]], x[0], y[0]))
    assert (weights[0], weights[-1], biases[-1]) == (-2, 3, 1)


def test_tables_have_their_rows(tables):
    main, curves, heights = tables["toy_2d"], tables["toy_2d_curves"], tables["toy_2d_surface"]
    assert {len(v) for v in main.values()} == {100}
    assert {len(v) for v in curves.values()} == {100 * 31}
    assert {len(v) for v in heights.values()} == {61 * 61}
    first = ["recipe", "draw", "weight", "bias", "loss", "gradient_norm", "separable"]
    first += ["direction_weight", "direction_bias"]
    assert list(main) == first + list(Detection.__dataclass_fields__)
    assert list(curves) == ["recipe", "draw", "offset", "loss"]
    assert list(heights) == ["weight", "bias", "loss"]
    assert set(main["recipe"]) == set(toy.RECIPES)


def test_tables_agree_with_one_another(tables):
    main, curves = tables["toy_2d"], tables["toy_2d_curves"]
    for row in (0, 31, 50, 99):
        mine = (curves["recipe"] == main["recipe"][row]) & (curves["draw"] == main["draw"][row])
        offsets, losses = curves["offset"][mine], curves["loss"][mine]
        assert losses[offsets == 0] == pytest.approx(main["loss"][row])
        for name, value in detect(offsets, losses).asdict().items():
            assert main[name][row] == value or (np.isnan(main[name][row]) and np.isnan(value))


def test_verdicts(tables):
    main = tables["toy_2d"]
    converged = main["recipe"] == "converged"
    assert set(main["status"]) <= {"asymmetric", "symmetric", "not_minimum"}
    assert set(main["status"][converged]) <= {"asymmetric", "symmetric"}
    assert (main["argmin_offset"][converged] == 0).all()
    assert (main["gradient_norm"][converged] < 1e-10).all()
    assert (main["loss"][converged] <= main["loss"][~converged]).all()
    assert not main["separable"].any()


def test_reproducible(tables):
    for name, table in toy.run({"seed": 0}).items():
        for column, values in table.items():
            assert np.array_equal(values, tables[name][column], equal_nan=values.dtype.kind == "f")
    fewer = toy.run({"n_draws": 4})["toy_2d"]
    assert fewer["c_star"][:4] == pytest.approx(tables["toy_2d"]["c_star"][:4], nan_ok=True)


def test_separable_draws_are_rows_without_a_minimum():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tables = toy.run({"n_per_class": 2, "n_draws": 20, "surface_points": 3})
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
    assert set(curves["draw"][curves["recipe"] == "paper"]) == set(range(20))


def test_all_separable():
    tables = toy.run({"n_per_class": 1, "n_draws": 3, "surface_points": 3})
    assert list(tables["toy_2d"]["status"][3:]) == ["no_minimum"] * 3


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"draws": 3}, "unknown key 'draws'"),
        ({"n_draws": 0}, "n_draws"),
        ({"epochs": 1.5}, "epochs"),
        ({"lr": -1}, "lr"),
        ({"step": 0.4}, "steps"),
        ({"c": 0.5}, "c:"),
        ({"step": 7.5}, "points"),
    ],
)
def test_bad_spec(spec, word):
    with pytest.raises(ValleysError, match=word):
        toy.run(spec)
