"""One neuron: its loss, gradient, training, minimum and lines."""

import numpy as np
import pytest
from valleys.simulations import neuron, toy


@pytest.fixture(scope="module")
def data():
    return toy.draw_data(30, 20, seed=3)


def test_loss_by_hand():
    x, y = np.array([0.5, -2.0]), np.array([1.0, 0.0])
    z = 3 * x - 1
    expected = -(np.log(1 / (1 + np.exp(-z[0]))) + np.log(1 - 1 / (1 + np.exp(-z[1])))) / 2
    assert neuron.loss([3, -1], x, y) == pytest.approx(expected)
    assert neuron.loss([0, 0], x, y) == pytest.approx(np.log(2))
    assert neuron.loss([-1e4, 0], x, y) == pytest.approx((5e3 + 2e4) / 2)  # far out: linear, no overflow


def test_gradient_against_differences(data):
    x, y = data
    wb = np.random.default_rng(0).normal(0, 2, (30, 2))
    g, h = neuron.gradient(wb, x, y), 1e-6
    for k, e in enumerate(np.eye(2)):
        difference = (neuron.loss(wb + h * e, x, y) - neuron.loss(wb - h * e, x, y)) / (2 * h)
        assert g[:, k] == pytest.approx(difference, abs=1e-8)


def test_gradient_descent_against_a_loop(data):
    x, y = data
    start = toy.initial(30, 3)
    last, average = neuron.train_gd(x, y, 0.01, 30, start)
    assert (start == toy.initial(30, 3)).all()  # left as it was
    for draw in (0, 17):
        w, b = start[draw]
        seen = []
        for _ in range(30):
            p = 1 / (1 + np.exp(-(w * x[draw] + b)))
            dw, db = np.mean((p - y[draw]) * x[draw]), np.mean(p - y[draw])
            w, b = w - 0.01 * dw, b - 0.01 * db
            seen.append((w, b))
        assert last[draw] == pytest.approx(seen[-1], abs=1e-12)
        assert average[draw] == pytest.approx(np.mean(seen, axis=0), abs=1e-12)  # the start is not counted
    assert (neuron.loss(last, x, y) < neuron.loss(start, x, y)).all()


def test_slope_against_differences(data):
    x, y = data
    wb, u = np.random.default_rng(0).normal(0, 2, (30, 2)), toy.directions(30, 3)
    difference = (neuron.loss(wb + 1e-6 * u, x, y) - neuron.loss(wb - 1e-6 * u, x, y)) / 2e-6
    assert neuron.slope(wb, u, x, y) == pytest.approx(difference, abs=1e-8)


def test_converged_is_the_minimum(data):
    x, y = data
    wb, apart = neuron.converge(x, y)
    assert not apart.any()
    assert np.linalg.norm(neuron.gradient(wb, x, y), axis=1).max() < 1e-10
    long = neuron.train_gd(x, y, 1.0, 5000, np.zeros((30, 2)))[0]
    assert wb == pytest.approx(long, abs=1e-4)


def test_hard_data_converge_or_are_separable():
    x, y = toy.draw_data(2000, 4, seed=1)
    wb, apart = neuron.converge(x, y)
    assert 0.2 < apart.mean() < 0.9
    assert (np.isnan(wb).all(axis=1) == apart).all()
    assert np.linalg.norm(neuron.gradient(wb, x, y)[~apart], axis=1).max() < 1e-10


def test_newton_steps_never_climb(data):
    x, y = data
    far = np.random.default_rng(0).normal(0, 8, (30, 2))  # where a full step overshoots
    before = neuron.loss(far, x, y)
    assert (neuron.loss(neuron._newton_step(far, x, y), x, y) <= before * (1 + 1e-12)).all()


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
    assert neuron.separable(np.array(one + zero), np.array([1, 1, 0, 0])) == expected


def test_lines_are_convex_with_the_minimum_at_converged(data):
    x, y = data
    wb, _ = neuron.converge(x, y)
    offsets = 0.5 * np.arange(-15, 16)
    curves = neuron.line(wb, toy.directions(30, 3), x, y, offsets)
    assert curves.shape == (30, 31)
    assert (np.diff(curves, 2) > -1e-12).all()
    assert (curves.argmin(axis=1) == 15).all()
    assert curves[:, 15] == pytest.approx(neuron.loss(wb, x, y))


def test_line_point_by_point(data):
    x, y = data
    wb, u = np.array([0.3, -0.2]), np.array([0.6, 0.8])
    curve = neuron.line(wb, u, x[0], y[0], [-1, 0, 2])
    assert curve == pytest.approx([neuron.loss(wb + t * u, x[0], y[0]) for t in (-1, 0, 2)])


def test_surface(data):
    x, y = data
    weights, biases, losses = neuron.surface(x[0], y[0], (-2, 3), (-1, 1), 11)
    assert losses.shape == (11, 11)
    assert losses[7, 2] == pytest.approx(neuron.loss([weights[7], biases[2]], x[0], y[0]))
    assert (weights[0], weights[-1], biases[-1]) == (-2, 3, 1)


@pytest.mark.parametrize("rise", [0.01, 2, 10])
def test_the_higher_end_of_a_line_has_risen_by_the_rise_at_its_radius(data, rise):
    x, y = data
    u = toy.directions(30, 3)
    for wb in (neuron.converge(x, y)[0], toy.initial(30, 3)):
        reach = neuron.radius(wb, u, x, y, rise)
        ends = [neuron.loss(wb + side * reach[:, None] * u, x, y) for side in (-1, 1)]
        assert np.max(ends, axis=0) - neuron.loss(wb, x, y) == pytest.approx(rise, rel=1e-9)


def test_separable_data_have_a_radius_too():
    """One side falls for ever, the other rises."""
    x, y = np.array([[1.0, 2.0, -1.0, -2.0]]), np.array([[0.0, 0.0, 1.0, 1.0]])
    reach = neuron.radius([[0.0, 0.0]], [[1.0, 0.0]], x, y, 2.0)
    assert neuron.loss(reach[:, None] * [[1.0, 0.0]], x, y) == pytest.approx(np.log(2) + 2)
