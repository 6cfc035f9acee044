"""The asymmetry index is taken about the curve's own least point, which lies between its offsets too."""

import math

import numpy as np
import pytest
from valleys.asymmetry.definition import detect, detect_many

SIZES = (11, 21, 41)


def off_centre(points, radius, centre, height):
    """A symmetric parabola of which the least point lies at `centre`."""
    x = np.linspace(-radius, radius, points)
    return x, height * ((x - centre) / radius) ** 2 + 0.3, 2 * height * (x - centre) / radius**2


@pytest.mark.parametrize("points", SIZES)
@pytest.mark.parametrize("share", [1 / 6, -1 / 6, 0.1, -0.13, 0.24])
@pytest.mark.parametrize("height", [1.0, 2.0, 10.0])
@pytest.mark.parametrize("exact", [False, True], ids=["quotients", "slopes"])
def test_a_symmetric_parabola_off_centre_has_index_0(points, share, height, exact):
    radius = 7.0
    x, losses, slopes = off_centre(points, radius, share * radius, height)
    found = detect(x, losses, slopes=slopes if exact else None)
    assert found.asymmetry_index == pytest.approx(0, abs=1e-3)
    assert found.minimum == pytest.approx(share * radius, abs=1e-3 * radius)
    assert found.reach == pytest.approx((1 - abs(share)) * radius, abs=1e-3 * radius)
    assert found.rise == pytest.approx(height * (1 - abs(share)) ** 2, rel=1e-3)
    # About the solution it is far from even: that is what the rises at -R and R say.
    assert abs(math.log(found.rise_minus / found.rise_plus)) > 0.3


def softplus(x):
    return 3 * (0.5 * np.logaddexp(0, -6 * x) + 1.2 * np.logaddexp(0, 2 * x))


@pytest.mark.parametrize("points", [21, 41])
@pytest.mark.parametrize("shift", [0.0, 0.07, -0.11])
def test_a_smooth_asymmetric_valley_has_the_index_of_its_formula(points, shift):
    fine = np.linspace(-0.3, 0.3, 600_001)
    least = fine[softplus(fine - shift).argmin()]
    reach = 1 - abs(least)
    bottom, plus, minus = (softplus(at - shift) for at in (least, least + reach, least - reach))
    x = np.linspace(-1, 1, points)
    found = detect(x, softplus(x - shift))
    assert found.minimum == pytest.approx(least, abs=5e-4)
    assert found.rise == pytest.approx(max(plus, minus) - bottom, rel=1e-3)
    assert found.asymmetry_index == pytest.approx(math.log((minus - bottom) / (plus - bottom)), abs=1e-3)


@pytest.mark.parametrize("ratio", [1.0, 5.0, 40.0])
def test_a_kink_on_the_grid_is_the_least_point(ratio):
    # A spline through these points falls below the kink; no convex curve through them does.
    x = np.linspace(-1, 1, 21)
    found = detect(x, np.where(x > 0.2, x - 0.2, ratio * (0.2 - x)))
    assert found.minimum == pytest.approx(0.2, abs=1e-9)
    assert found.rise == pytest.approx(0.8 * ratio, rel=1e-3)
    assert found.asymmetry_index == pytest.approx(math.log(ratio), abs=1e-3)


@pytest.mark.parametrize("level", [1.0, 3.0])
def test_a_kink_between_offsets_is_found_to_within_a_step(level):
    x = np.linspace(-1, 1, 41)
    found = detect(x, np.where(x > 0.12, x - 0.12, level * (0.12 - x)))
    assert found.minimum == pytest.approx(0.12, abs=0.05)
    assert found.asymmetry_index == pytest.approx(math.log(level), abs=0.1)


def test_a_flat_bottom_keeps_its_lowest_point():
    x = np.linspace(-1, 1, 41)
    found = detect(x, x**4)
    assert (found.minimum, found.reach, found.rise, found.asymmetry_index) == (0, 1, 1, 0)


def test_a_steep_side_that_explodes():
    # As with frozen batch norm: hundreds of nats on one side, less than one on the other.
    x = np.linspace(-1, 1, 41)
    curve = np.where(x > 0.05, 0.8 * (x - 0.05), 20 * np.expm1(4 * (0.05 - x)) / 4)
    found = detect(x, curve)
    steep = 5 * math.expm1(4 * 0.95)
    assert found.minimum == pytest.approx(0.05, abs=1e-3)
    assert found.asymmetry_index == pytest.approx(math.log(steep / (0.8 * 0.95)), abs=0.01)


def test_the_least_point_is_sought_within_the_share_allowed():
    x, losses, _ = off_centre(21, 1.0, 0.23, 1.0)
    assert detect(x, losses, minimum_within=0.25).minimum == pytest.approx(0.23, abs=1e-4)
    # The lowest point within 0.21 is at 0.2; the least one lies further out, lower by less than the noise.
    found = detect(x, losses, minimum_within=0.21, noise=1e-2)
    assert found.minimum == pytest.approx(0.21)


def test_what_is_no_minimum_has_no_index():
    x = np.linspace(-1, 1, 21)
    for curve in (x, (x - 0.5) ** 2, np.full(21, 2.0), np.maximum(0, -x)):
        found = detect(x, curve)
        assert found.status in ("not_minimum", "flat")
        assert np.isnan([found.minimum, found.reach, found.rise, found.asymmetry_index]).all()


def test_a_side_that_ends_below_the_least_point_has_no_index():
    x = np.linspace(-1, 1, 21)
    curve = x**2
    curve[-1] = 0.0
    found = detect(x, curve)
    assert found.status == "symmetric"
    assert math.isnan(found.asymmetry_index)
    assert found.rise == 1


def test_mirrored_curves_have_the_opposite_index():
    rng = np.random.default_rng(0)
    x = np.linspace(-2, 2, 21)
    for centre, left, right in zip(rng.uniform(-0.4, 0.4, 50), *rng.lognormal(0, 1, (2, 50)), strict=True):
        curve = np.where(x > centre, right, left) * np.abs(x - centre) ** rng.uniform(1, 3)
        one, other = detect(x, curve), detect(x, curve[::-1])
        assert other.minimum == pytest.approx(-one.minimum, nan_ok=True, abs=1e-9)
        assert other.asymmetry_index == pytest.approx(-one.asymmetry_index, nan_ok=True, abs=1e-7)
        assert other.rise == pytest.approx(one.rise, nan_ok=True)


def test_grids_of_their_own_change_nothing():
    # Rows on one grid share the work of a spline; rows on grids of other shapes do not.
    even = np.linspace(-1, 1, 21)
    uneven = np.sign(even) * np.abs(even) ** 1.3
    grids = np.stack([even, uneven, 3 * even])
    curves = np.stack([(even - 0.13) ** 2, softplus(uneven), (3 * even - 0.4) ** 2])
    for many, grid, curve in zip(detect_many(grids, curves), grids, curves, strict=True):
        one = detect(grid, curve)
        assert many.asymmetry_index == pytest.approx(one.asymmetry_index, abs=1e-12)
        assert many.minimum == pytest.approx(one.minimum, abs=1e-12)
