"""Verdicts on a part of the images: bounds that hold at once, and how often a settled verdict is wrong."""

import math

import numpy as np
import pytest
from valleys.asymmetry import confidence
from valleys.asymmetry.confidence import looks, settled_barrier, settled_index, settled_status
from valleys.asymmetry.definition import detect
from valleys.asymmetry.robustness import is_robust
from valleys.errors import ValleysError

X = np.linspace(-1, 1, 15)


def kinked(c, x=X, power=1.0):
    """c times as steep on the left."""
    return np.where(x > 0, 1.0, c) * np.abs(x) ** power


def by_image(draw, curve, n, noise=1.0):
    """Losses (n, points) of images whose mean is a curve: each has a steepness and a slope of its own."""
    own = draw.gamma(0.5, 2, size=(n, 1)), draw.standard_normal((n, 1))
    values = own[0] * curve + noise * own[1] * X
    return values - values.mean(axis=0) + curve


def deviations(values, left=1.0):
    n = len(values)
    return (values - values.mean(axis=0)) * math.sqrt(left / (n * (n - 1)))


CURVES = {
    "asymmetric": kinked(4),
    "symmetric": kinked(1.2, power=2.0),
    "not_minimum": X + 0.1 * X**2,
    "off centre": kinked(3, X - X[8]),
    "shallow": kinked(2.5, power=1.5) * 1e-3,
}


@pytest.mark.parametrize("name", CURVES)
def test_without_errors_it_is_the_verdict_and_with_great_ones_none(name):
    curve, shapes = CURVES[name], np.eye(15)
    expected = detect(X, curve).status
    for size, verdict in ((0, expected), (1e-9, expected), (10, None)):
        assert settled_status(X, curve, size * shapes, alpha=0.05) == verdict


def test_a_status_is_settled_where_all_curves_within_the_bounds_have_it():
    """Bounds of one function alone are those of its confidence interval."""
    shape = np.zeros((1, 15))
    shape[0, :7] = -X[:7]  # the slope of the left side is uncertain, all else is known
    for c, error, verdict in (
        (3, 0.3, "asymmetric"),
        (3, 0.6, None),
        (1.4, 0.2, "symmetric"),
        (1.4, 0.4, None),
    ):
        assert settled_status(X, kinked(c), error * shape, alpha=0.05) == verdict


@pytest.mark.parametrize(
    ("curve", "far", "verdict"),
    [(X, -1.0, "not_minimum"), (-X, -1.0, "not_minimum"), (np.abs(X), -5.0, "not_minimum")],
)
def test_a_curve_that_is_surely_lower_outside_is_no_minimum(curve, far, verdict):
    lower = np.where(np.abs(X) == 1, far, curve) if far < -1 else curve
    assert settled_status(X, lower, 1e-3 * np.eye(15), alpha=0.05) == verdict


def test_all_bounds_hold_at_once_as_often_as_they_say():
    draw = np.random.default_rng(0)
    functions, root = draw.standard_normal((40, 5)), draw.standard_normal((5, 5))
    truth, freedom, hold = draw.standard_normal(5), 12, []
    for _ in range(800):
        sample = truth + draw.standard_normal((freedom + 1, 5)) @ root
        band = confidence.Band(sample.mean(axis=0), deviations(sample), freedom, functions, 0.2)
        low, high = band._bounds(band.width)
        hold.append(bool(((low <= functions @ truth) & (functions @ truth <= high)).all()))
    assert 0.78 < np.mean(hold) < 0.9  # 0.8 at least; a little more, as few draws know the width


def test_more_alpha_is_a_narrower_band():
    made_of = (np.zeros(5), np.eye(5), math.inf, np.eye(5))
    widths = [confidence.Band(*made_of, alpha).width for alpha in (0.01, 0.05, 0.5)]
    assert widths == sorted(widths, reverse=True)
    assert widths[1] == pytest.approx(2.57, abs=0.05)  # P(max of five |z| > 2.57) = 0.05


def sequentially(draw, curve, total=1600, noise=1.0):
    """The verdict of a group-sequential look at images whose mean is the curve; and the share it took."""
    values = by_image(draw, curve, total, noise)
    counts = looks(total, 100)
    for n in counts[:-1]:
        part = values[:n]
        found = settled_status(
            X,
            part.mean(axis=0),
            deviations(part, 1 - n / total),
            alpha=0.05 / (len(counts) - 1),
            freedom=n - 1,
        )
        if found is not None:
            return found, n / total
    return detect(X, curve).status, 1.0


@pytest.mark.slow
@pytest.mark.long
def test_planted_curves_are_settled_rightly_and_easy_ones_soon():
    """200 of them: at most 5 % wrong, by the upper end of what chance would make of 5 %."""
    draw = np.random.default_rng(1)
    wrong, shares = 0, []
    for _ in range(200):
        c, power = math.exp(draw.uniform(0, math.log(6))), draw.choice([1.0, 1.5, 2.0])
        curve = kinked(c, X - draw.uniform(-0.1, 0.1), power)
        found, share = sequentially(draw, curve)
        wrong += found != detect(X, curve).status
        if c > 5 or c < 1.2:
            shares.append(share)
    assert wrong <= 10
    assert len(shares) > 30
    assert np.median(shares) <= 0.3


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("c", "wrong"), [(2.02, "symmetric"), (1.98, "asymmetric")])
def test_beside_the_threshold_errors_are_as_rare(c, wrong):
    draw = np.random.default_rng(2)
    found = [sequentially(draw, kinked(c), 800, noise=2.0)[0] for _ in range(150)]
    assert found.count(wrong) <= 0.05 * len(found)


def test_copies_of_a_noisy_curve_settle_the_wrong_verdict_and_bounds_do_not():
    """A noisy curve looks less asymmetric than it is, and its copies with more noise do so all the more."""
    draw, x, fooled = np.random.default_rng(2), np.linspace(-1, 1, 31), 0
    curve = kinked(2.1, x)
    assert detect(x, curve).status == "asymmetric"
    for _ in range(40):
        images = curve * draw.gamma(2, 0.5, (100, 1)) + 0.3 * draw.standard_normal((100, 31))
        y, errors = images.mean(axis=0), deviations(images)
        fooled += detect(x, y).status == "symmetric" and is_robust(x, y, errors)
        assert settled_status(x, y, errors, alpha=0.05, freedom=99) != "symmetric"
    assert fooled > 20


def test_an_index_has_the_sign_that_its_error_allows():
    shape = np.zeros((1, 15))
    shape[0, 0] = 1.0  # the rise at -R
    for error, sign in ((0.0, 1), (0.3, 1), (0.8, None)):
        assert settled_index(X, kinked(2), error * shape, alpha=0.05) == sign
    assert settled_index(X, kinked(2)[::-1], 0.1 * shape, alpha=0.05) == -1
    # log(rise) has the error of the rise over the rise: 1.96 of them are log 2 at 0.707.
    assert settled_index(X, kinked(2), 0.70 * shape, alpha=0.05) == 1
    assert settled_index(X, kinked(2), 0.72 * shape, alpha=0.05) is None


T = np.linspace(0, 1, 5)


@pytest.mark.parametrize(
    ("height", "error", "above"),
    [(0.3, 0.15, True), (0.13, 0.01, True), (0.13, 0.02, None), (0.02, 0.02, False), (0.02, 0.06, None)],
)
def test_a_barrier_is_above_its_threshold_or_not_or_open(height, error, above):
    losses = 1 + T + height * np.sin(np.pi * T)
    shape = np.zeros((1, 5))
    shape[0, 2] = error
    assert settled_barrier(T, losses, shape, alpha=0.05, threshold=0.1) is above


def test_what_ends_have_in_common_is_no_error_of_a_barrier():
    """An error that is a straight line moves the chord as it does the curve."""
    losses = 1 + 0.3 * np.sin(np.pi * T)
    assert settled_barrier(T, losses, np.array([5 + 3 * T]), alpha=0.05) is True


def test_looks_double():
    assert looks(1000, 100) == [125, 250, 500, 1000]
    assert looks(1000, 100, 600) == [150, 300, 600]
    assert looks(90, 100) == [90]
    assert looks(200, 100) == [100, 200]


@pytest.mark.parametrize(
    ("made_of", "alpha", "message"),
    [
        (np.zeros((3, 14)), 0.05, r"deviations: need finite numbers, shape \(m, 15\), got shape \(3, 14\)"),
        (np.full((2, 15), np.nan), 0.05, "deviations: need finite numbers"),
        (np.zeros((2, 15)), 1.0, "alpha: 1.0 is not a chance between 0 and 1"),
    ],
)
def test_mistakes_are_one_line(made_of, alpha, message):
    with pytest.raises(ValleysError, match=message):
        settled_status(X, kinked(2), made_of, alpha=alpha)
    with pytest.raises(ValleysError, match=message):
        settled_index(X, kinked(2), made_of, alpha=alpha)
