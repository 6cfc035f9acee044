"""Which rows the recalled theorems are about: worked out by hand."""

import math

import pytest
from valleys.simulations import theory
from valleys.simulations.regimes import inside_theorem_1, inside_theorem_2
from valleys.simulations.shapes import Linear, Noise, Quadratic, Softplus

FAR = (-100.0, 100.0)


@pytest.mark.parametrize(
    ("c", "level", "inside"),
    [
        (8, 0.5, False),  # c' = 8.5; exp(8 / 3) / 6 = 2.40
        (13, 0.1, False),  # 13.1; 12.70
        (13.5, 0.5, True),  # 14; 15.00
        (16, 0.5, True),  # 16.5; 34.5
        (16, 0.999, True),
        (16, 2, False),  # a+ = nu = 2, so c = 8: 18; 2.40
        (32, 2, True),  # c = 16: 34; 34.52
        (32, 2.2, False),  # c = 14.5: 34.2; 21.3
        (32, 4, False),  # c = 8: 36; 2.40
        (1, 0.01, False),
    ],
)
@pytest.mark.parametrize("p", [1.0, 0.25])
def test_linear_valleys_inside_theorem_2(c, level, inside, p):
    """Slopes are -cp and p, and the noise in units of p: c' = c + b / p."""
    for kind in ("uniform", "rademacher"):
        assert inside_theorem_2(Linear(c, p), Noise(kind, level * p), FAR) == inside


@pytest.mark.parametrize("valley", [Quadratic(32), Softplus(32)])
def test_a_smooth_minimum_is_never_inside_theorem_2(valley):
    """Its slope is 0 at the minimum, so nothing above 0 is below all slopes."""
    assert not inside_theorem_2(valley, Noise("uniform", 1e-6), (-1.0, 1.0))


class Bent(Linear):
    """A kink, and a flat side that is twice as steep beyond 1."""

    def gradient(self, x):
        return super().gradient(x) * (2 if x > 1 else 1)


def test_how_far_chains_got_counts():
    """Within 1 c = 20: 20.5 < exp(20 / 3) / 6 = 131. Beyond, a+ = 2 and c = 10: 20.5 > 4.7."""
    noise = Noise("uniform", 0.5)
    assert inside_theorem_2(Bent(20), noise, (-5.0, 0.9))
    assert not inside_theorem_2(Bent(20), noise, (-5.0, 1.1))


def test_a_very_steep_valley_does_not_overflow():
    assert inside_theorem_2(Linear(1e6), Noise("uniform", 0.5), FAR)


@pytest.mark.parametrize(
    ("valley", "kind", "bias", "inside"),
    [
        (Linear(2), "rademacher", 1.9, True),  # delta 2: zeta 0.1, r 3.9
        (Linear(2), "rademacher", 2.0, False),  # zeta must be above 0
        (Linear(2), "rademacher", 3.0, False),
        (Linear(2), "uniform", 0.5, False),  # not +-delta
        (Linear(1), "rademacher", 0.5, False),  # no level above 1
        (Quadratic(3), "rademacher", 0.9, True),  # 3 (2 - l) > 2 + l: l < 1
        (Quadratic(3), "rademacher", 1.1, False),
    ],
)
def test_biases_inside_theorem_1(valley, kind, bias, inside):
    assert inside_theorem_1(valley, bias, Noise(kind, 2.0)) == inside


@pytest.mark.parametrize("shape", [Linear, Quadratic, Softplus])
@pytest.mark.parametrize("c", [1.5, 4, 32])
def test_inside_theorem_1_its_bound_is_ours(shape, c):
    """With the shift gap 0 it is (c_i - 1) p_i l / 2; p_i and c_i p_i are slopes at the window's ends."""
    shift, valley = Noise("rademacher", 1.0), shape(c)
    for bias in (0.1, 0.5, 0.9):
        p = float(valley.gradient(1 + bias))
        level = -float(valley.gradient(bias - 1)) / p
        bound = (level - 1) * p * bias / 2
        assert theory.gain_bound(valley, bias, shift) == pytest.approx(bound)
        assert (
            inside_theorem_1(valley, bias, shift) == (bound > 0) == (bias < theory.gain_limit(valley, shift))
        )


def test_with_the_greater_of_its_two_ends_theorem_1_fails():
    """docs/theory.md: r is as great as one likes in the linear valley, so a bias of 2 delta is allowed."""
    valley, shift = Linear(2), Noise("rademacher", 1.0)
    r, zeta, bias = 100.0, 0.01, 2.0
    assert 0 < bias <= max(r - shift.level, shift.level - zeta)
    claimed = (2 - 1) * bias * 1 / 2
    assert claimed > 0 > theory.exact_gain(valley, bias, shift)
    assert not inside_theorem_1(valley, bias, shift)
    assert math.isclose(theory.exact_gain(valley, bias, shift), -0.5)
