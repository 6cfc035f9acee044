"""Shifts between curves that are known."""

import math

import numpy as np
import pytest
from valleys.asymmetry.shifts import shift, shift_curve
from valleys.errors import ValleysError


def valley(x):
    return 0.8 * np.logaddexp(0, -3 * x) + 0.5 * np.logaddexp(0, 2 * x)


class TestShift:
    X = np.linspace(-4, 4, 161)

    @pytest.mark.parametrize("d0", [-0.55, 0.0, 0.35, 0.8])
    @pytest.mark.parametrize(("b0", "free"), [(0.0, False), (0.3, True), (-0.2, True)])
    def test_recovers_shift_on_the_grid(self, d0, b0, free):
        # test(l) = train(l - d0) + b0: at grid shifts the interpolation is exact.
        s = shift(self.X, valley(self.X), valley(self.X - d0) + b0, free_offset=free)
        assert (s.delta, s.b) == pytest.approx((d0, b0), abs=1e-6)
        assert s.gap == pytest.approx(0, abs=1e-6)
        assert s.radius == 3
        assert not s.at_bound

    @pytest.mark.parametrize("free", [False, True])
    def test_recovers_shift_between_grid_points(self, free):
        s = shift(self.X, valley(self.X), valley(self.X - 0.3123) + 0.1 * free, free_offset=free)
        assert s.delta == pytest.approx(0.3123, abs=2e-3)
        assert s.b == pytest.approx(0.1 * free, abs=2e-3)
        assert s.gap < 2e-3
        assert s.gap_at_zero > 50 * s.gap

    def test_b_is_not_free_in_the_paper(self):
        train = valley(self.X)
        fixed = shift(self.X, train, train + 0.3, free_offset=False)
        free = shift(self.X, train, train + 0.3, free_offset=True)
        assert fixed.b == 0
        assert fixed.gap_at_zero == pytest.approx(0.3)
        assert (free.b, free.gap, free.delta) == pytest.approx((0.3, 0, 0), abs=1e-12)

    def test_gap_by_hand(self):
        # Test minus train is 0.1 everywhere but 0.5 at 0: largest 0.5; half the range 0.2, about 0.3.
        x = np.linspace(-1, 1, 11)
        train, test = np.zeros(11), 0.1 + 0.4 * (np.abs(x) < 0.1)
        fixed = shift_curve(x, train, test, [0.0], free_offset=False)
        free = shift_curve(x, train, test, [0.0], free_offset=True)
        assert (fixed[0], free[0]) == pytest.approx((0.5, 0.2))
        assert shift(x, train, test, max_shift=0.0, free_offset=True).b == pytest.approx(0.3)

    def test_shift_beyond_the_bound_is_said(self):
        s = shift(self.X, valley(self.X), valley(self.X - 1), max_shift=0.5, free_offset=False)
        assert s.delta == pytest.approx(0.5)
        assert s.at_bound

    def test_constants_do_not_shift(self):
        s = shift(self.X, np.ones(161), np.full(161, 2.0), free_offset=False)
        assert (s.delta, s.gap, s.gap_at_zero) == (0, 1, 1)

    def test_curve_of_gaps(self):
        train, test = valley(self.X), valley(self.X - 0.4)
        deltas = np.arange(9) * 0.1
        gaps = shift_curve(self.X, train, test, deltas, free_offset=False)
        kept = np.abs(self.X) <= 3.2 + 1e-9
        expected = [np.abs(valley(self.X + d - 0.4) - train)[kept].max() for d in deltas]
        assert gaps == pytest.approx(expected, abs=1e-3)
        assert gaps.argmin() == 4
        s = shift(self.X, train, test, max_shift=0.8, free_offset=False)
        assert gaps[0] == pytest.approx(s.gap_at_zero)
        assert s.gap <= gaps.min() + 1e-12

    def test_shift_is_no_worse_than_a_fine_grid(self):
        rng = np.random.default_rng(6)
        x = np.linspace(-1, 1, 21)
        for free in (False, True):
            for _ in range(20):
                train, test = x**2 + 0.1 * rng.standard_normal((2, 21))
                s = shift(x, train, test, free_offset=free)
                fine = shift_curve(x, train, test, np.linspace(-0.25, 0.25, 2001), free_offset=free)
                assert s.gap <= fine.min() * 1.01
                assert s.gap <= s.gap_at_zero

    def test_bad_input(self):
        good = valley(self.X)
        with pytest.raises(ValleysError, match="test"):
            shift(self.X, good, np.where(self.X == 0, np.nan, good), free_offset=True)
        with pytest.raises(ValleysError, match="train"):
            shift(self.X, good[None], good, free_offset=True)
        with pytest.raises(ValleysError, match="max_shift"):
            shift(self.X, good, good, max_shift=4, free_offset=True)
        with pytest.raises(ValleysError, match="max_shift"):
            shift(self.X, good, good, max_shift=-1, free_offset=True)
        with pytest.raises(ValleysError, match="beyond"):
            shift_curve(self.X, good, good, [0, 1], max_shift=0.5, free_offset=True)
        with pytest.raises(ValleysError, match="deltas"):
            shift_curve(self.X, good, good, [], free_offset=True)

    def test_what_float64_cannot_hold_has_none(self):
        curve = np.abs(self.X)
        with pytest.raises(ValleysError, match="not finite"):
            shift(self.X, curve, np.where(self.X == 0, math.nan, curve), free_offset=False)
        with pytest.raises(ValleysError, match="beyond 1e"):
            shift(self.X, np.full(161, -1.5e308), np.full(161, 1.5e308), free_offset=False)
        assert shift(self.X, np.ones(161), np.ones(161), free_offset=True).delta == 0
