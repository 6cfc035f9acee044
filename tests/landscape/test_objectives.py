"""Objectives of a search: their values on curves that are known, and their derivatives."""

import math

import pytest
import torch
from valleys.landscape.kinds import SEEKS
from valleys.landscape.objectives import DIP, MARGIN, MOST, OBJECTIVES, OFFSETS, PENALTY

RISE, FLOOR = 1.0, 0.1


def value(seek, rises, radius=1.5, rise=RISE, floor=FLOOR):
    found = OBJECTIVES[seek](
        torch.tensor(rises, dtype=torch.float64), torch.tensor(radius, dtype=torch.float64), rise, floor
    )
    return float(found)


def curve(phi):
    return [float(phi(s)) for s in OFFSETS]


def kink(steep, flat):
    return curve(lambda s: flat * s if s > 0 else -steep * s)


def test_each_thing_to_seek_has_an_objective_and_offsets_are_the_window():
    assert set(OBJECTIVES) == set(SEEKS)
    assert OFFSETS == (-1.0, -0.75, -0.5, 0.5, 0.75, 1.0)


@pytest.mark.parametrize("flat", [1.0, 0.5, 0.3])
def test_of_straight_sides_it_is_the_log_of_the_ratio_of_slopes(flat):
    # But for the smoothing of the clamp, which is below 1 % at six times half the floor.
    assert value("asymmetric", kink(1.0, flat)) == pytest.approx(math.log(1 / flat), abs=0.01)
    assert value("asymmetric", kink(1.0, 1.0)) == pytest.approx(0.0, abs=1e-9)


def test_of_a_parabola_it_is_the_log_of_the_least_over_the_greatest_secant():
    # Secants of s^2 over (1/2, 3/4) and (3/4, 1) are 1.25 and 1.75; smoothing blurs by 0.05 each.
    assert value("asymmetric", curve(lambda s: s * s)) == pytest.approx(math.log(1.25 / 1.75), abs=0.06)


def test_it_is_in_units_of_the_rise():
    phi = curve(lambda s: s * s - 0.4 * s**3)
    scaled = [0.02 * rise for rise in phi]
    assert value("asymmetric", scaled, 7.0, 0.02 * RISE, 0.02 * FLOOR) == pytest.approx(
        value("asymmetric", phi)
    )


def test_a_slope_below_half_of_the_floor_counts_as_that():
    def of(flat):
        """A flat side that has risen well and goes on with a slope."""
        return value("asymmetric", [1.0, 0.75, 0.5, 0.9, 0.9 + flat / 4, 0.9 + flat / 2])

    for slope in (-0.2, -1.0):  # falling, even
        assert of(slope) == pytest.approx(math.log(1.0 / (FLOOR / 2)), abs=1e-3)
    assert of(-0.2) > of(0.0) > of(FLOOR / 2) > of(0.1) > of(0.3)
    assert of(-1.0) - of(0.0) < 0.1  # there is next to nothing to gain below
    assert of(FLOOR / 2) - of(FLOOR) > 0.3


def test_a_flat_side_that_does_not_rise_as_asked_for_is_paid_for():
    floor = 0.8 * MOST * RISE / MARGIN
    wanted = MARGIN * floor
    base = [1.0, 0.75, 0.5]
    free = value("asymmetric", [*base, wanted, wanted, wanted], floor=floor)
    for end in (0.8, 0.5, 0.0, -1.0):
        # All three a constant: slopes stay, so what changes is the two penalties.
        at = end * wanted
        paid = free - value("asymmetric", [*base, at, at, at], floor=floor)
        dip = max(0.0, 1 - end / DIP)
        assert paid == pytest.approx(PENALTY * ((1 - end) ** 2 + dip**2))
    # With a floor near the rise no more than a share of the rise is asked for.
    most = value("asymmetric", [*base, MOST, MOST, MOST], floor=0.9)
    assert most == pytest.approx(value("asymmetric", [*base, 0.9, 0.9, 0.9], floor=0.9))
    less = 0.9 * MOST
    assert most > value("asymmetric", [*base, less, less, less], floor=0.9)


def test_symmetric_is_greatest_at_equal_rises_and_flat_at_the_greatest_radius():
    assert value("symmetric", curve(lambda s: s * s)) == pytest.approx(0.0, abs=1e-12)
    values = [value("symmetric", [1.0, 0, 0, 0, 0, end]) for end in (0.9, 0.5, 0.1, 0.0, -1.0)]
    assert values == sorted(values, reverse=True)
    assert values[1] == pytest.approx(-(math.log(2) ** 2), rel=1e-3)
    assert value("flat", [1.0] * 6, 3.0) == pytest.approx(math.log(3.0))


@pytest.mark.parametrize("seek", SEEKS)
def test_derivatives_are_those_of_differences(seek):
    generator = torch.Generator().manual_seed(0)
    shapes = [
        [1.0, 0.6, 0.3, 0.1, 0.2, 0.3],
        [1.0, 0.6, 0.3, 0.02, 0.01, 0.03],  # both penalties
        [1.0, 0.6, 0.3, -0.2, 0.4, -0.1],
    ]
    for shape in shapes:
        rises = torch.tensor(shape, dtype=torch.float64)
        rises += 0.02 * torch.randn(6, dtype=torch.float64, generator=generator)
        radius = torch.tensor(1.7, dtype=torch.float64)
        point = torch.cat([rises, radius[None]]).requires_grad_(True)
        OBJECTIVES[seek](point[:6], point[6], RISE, FLOOR).backward()
        for i in range(7):
            ends = []
            for sign in (1, -1):
                moved = point.detach().clone()
                moved[i] += sign * 1e-6
                ends.append(value(seek, moved[:6].tolist(), float(moved[6])))
            assert float(point.grad[i]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-7)
    assert (point.grad[6] != 0) == (seek == "flat")
