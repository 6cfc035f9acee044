"""A spline through some of a curve's points."""

import numpy as np
import pytest
from valleys.asymmetry.definition import detect
from valleys.asymmetry.spline import upsample


class TestUpsample:
    X = np.linspace(-1, 1, 31)
    AT = np.arange(0, 31, 3)

    def test_a_cubic_comes_back(self):
        """Nearly: losses of a nat are almost in the straight part of asinh(y / 10), small ones are."""
        at, x = [0, 2, 8, 15, 18, 23, 30], self.X
        for size, within in ((1, 2e-3), (0.01, 1e-8)):
            cubic = size * (x**3 - 0.3 * x**2 + x)
            exact = size * (3 * x**2 - 0.6 * x + 1)
            for slopes in (None, exact[at]):
                y, slope = upsample(x, at, cubic[at], slopes)
                assert y == pytest.approx(cubic, abs=within)
                assert slope == pytest.approx(exact, abs=30 * within)

    @pytest.mark.parametrize("mirror", [1, -1])
    def test_a_curve_that_explodes_stays_low_on_its_flat_side(self, mirror):
        """As with BN frozen: a nat on one side, ten million on the other."""
        x = mirror * self.X
        curve = np.where(x < 0, 1 - np.exp(4 * x), np.expm1(16 * x))
        steep = mirror * np.where(x < 0, -4 * np.exp(4 * x), 16 * np.exp(16 * x))
        for slopes in (None, steep[self.AT]):
            y, slope = upsample(self.X, self.AT, curve[self.AT], slopes)
            assert y[x < -0.2] == pytest.approx(curve[x < -0.2], abs=0.5)
            assert y[x > 0.4] == pytest.approx(curve[x > 0.4], rel=0.05)
            assert (mirror * slope[x > 0.4] > 0).all()
        found = detect(self.X, upsample(self.X, self.AT, curve[self.AT])[0])
        assert (found.status, found.flat_side) == ("asymmetric", -mirror)

    def test_what_is_given_stays_to_the_last_bit(self):
        values, slopes = np.random.default_rng(0).standard_normal((2, 11))
        y, _ = upsample(self.X, self.AT, values)
        assert (y[self.AT] == values).all()
        y, slope = upsample(self.X, self.AT, values, slopes)
        assert (y[self.AT] == values).all()
        assert (slope[self.AT] == slopes).all()
        whole = np.random.default_rng(1).standard_normal(31)
        assert (upsample(self.X, list(range(31)), whole)[0] == whole).all()
