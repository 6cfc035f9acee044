"""Which point of a curve is measured next."""

import numpy as np
import pytest
from valleys.asymmetry.definition import detect
from valleys.asymmetry.next_point import first_points, next_point
from valleys.asymmetry.spline import upsample
from valleys.errors import ValleysError


def test_first_points_are_symmetric_with_the_middle_and_the_ends():
    assert first_points(31) == [0, 5, 9, 12, 15, 18, 21, 25, 30]
    assert first_points(21) == [0, 3, 6, 8, 10, 12, 14, 17, 20]
    for points in range(5, 203, 2):
        at = first_points(points)
        assert [points - 1 - i for i in reversed(at)] == at
        assert {0, points // 2, points - 1} < set(at)
        assert len(at) == min(points, 9)


class TestNextPoint:
    X = np.linspace(-1, 1, 31)

    def probed(self, y, slopes=None, **constants):
        """Return the numbers of the points that a curve asks for in all, and the verdict on them."""
        at = first_points(len(self.X))
        given = lambda: None if slopes is None else slopes[at]  # noqa: E731
        while (i := next_point(self.X, at, y[at], slopes=given(), **constants)) is not None:
            assert i not in at
            at = sorted([*at, i])
        between, steepness = upsample(self.X, at, y[at], given())
        exact = None if slopes is None else steepness
        return at, detect(self.X, between, slopes=exact, **constants)

    @staticmethod
    def valley(x, steep, at=0.0, power=2.0):
        return np.where(x > at, 1.0, steep) * np.abs(x - at) ** power

    @pytest.mark.parametrize("mirror", [1, -1])
    def test_a_smooth_curve_far_from_the_level_needs_few(self, mirror):
        for steep, status in ((1.0, "symmetric"), (9.0, "asymmetric")):
            at, found = self.probed(self.valley(mirror * self.X, steep))
            assert len(at) <= 11
            assert found.status == status

    @pytest.mark.parametrize("mirror", [1, -1])
    def test_near_the_level_it_needs_more_but_not_all(self, mirror):
        y = self.valley(mirror * self.X, 6.0, power=1.5)
        level = detect(self.X, y).c_star
        needed = {}
        for factor in (0.5, 0.99, 1.01, 2.0):
            at, found = self.probed(y, c=level * factor)
            assert found.status == ("asymmetric" if factor < 1 else "symmetric")
            needed[factor] = len(at)
        assert max(needed[0.5], needed[2.0]) < min(needed[0.99], needed[1.01])
        assert max(needed.values()) < 25
        # What is measured there is where the level is made: the ends of the intervals of sup and inf.
        at, found = self.probed(y, c=level * 0.99)
        assert found.c_star == pytest.approx(level, rel=0.01)

    def test_points_come_where_the_slope_changes(self):
        """A kink between the first points draws the next ones to its side."""
        for kink in (0.5, 0.8, -0.5, -0.8):
            y = 20 * np.maximum(np.sign(kink) * self.X - abs(kink), 0) + self.X**2
            at, _ = self.probed(y)
            more = self.X[sorted(set(at) - set(first_points(31)))]
            assert len(more)
            assert (np.sign(kink) * more > 0).all()
            assert (np.abs(upsample(self.X, at, y[at])[0] - y) < 0.08 * np.ptp(y)).all()

    @pytest.mark.parametrize("at", [0.28, 0.3, -0.28, 0.22, -0.22])
    @pytest.mark.parametrize("steep", [1.0, 40.0])
    def test_a_minimum_near_the_bound_is_found_out(self, at, steep):
        y = self.valley(self.X, steep, at)
        measured, found = self.probed(y)
        assert found.status == detect(self.X, y).status
        assert len(measured) < 26

    def test_a_minimum_far_beyond_the_bound_needs_few(self):
        at, found = self.probed(self.valley(self.X, 1.0, 0.8))
        assert (len(at) < 12, found.status) == (True, "not_minimum")

    def test_a_flat_curve_needs_all(self):
        at, found = self.probed(0 * self.X)
        assert (len(at), found.status) == (31, "flat")
        # Flat at the first points alone.
        y = np.where(np.isin(np.arange(31), first_points(31)), 0.0, 1e-3 * np.abs(self.X))
        assert np.ptp(y[first_points(31)]) < 1e-9
        assert self.probed(y)[1].status == detect(self.X, y).status != "flat"

    def test_exact_slopes_are_believed(self):
        """With slopes that the losses do not tell of, more points are needed."""
        y = self.valley(self.X, 9.0, power=1.5)
        slopes = np.where(self.X > 0, 1.5, -13.5) * np.abs(self.X) ** 0.5
        at, found = self.probed(y, slopes)
        assert found.status == "asymmetric"
        many, other = self.probed(y, np.where(self.X > 0, 4 * slopes, slopes))
        assert len(many) > len(at)
        assert other.status == "symmetric"

    @pytest.mark.slow
    def test_the_verdict_is_that_of_all_points(self):
        """On random valleys, most of them near a change."""
        random, x = np.random.default_rng(0), self.X
        used, wrong, naive = [], 0, 0
        for _ in range(400):
            steep, at, power = random.lognormal(0, 1.0), random.normal(0, 0.15), random.uniform(1.5, 3)
            ripple, phase = random.normal(0, 0.02), random.uniform(0, 6)
            y = self.valley(x, steep, at, power) + ripple * np.sin(4 * x + phase)
            status = detect(x, y).status
            points, found = self.probed(y)
            used.append(len(points))
            wrong += found.status != status
            first = first_points(31)
            naive += detect(x, upsample(x, first, y[first])[0]).status != status
        assert naive > 10  # of the first nine
        assert wrong <= 2
        assert np.mean(used) < 12

    def test_the_shape_of_a_second_curve_counts(self):
        """But not its verdict, and not where it is unknown."""
        smooth, at = self.X**2, first_points(31)
        assert next_point(self.X, at, smooth[at]) is None
        kinked = smooth + 20 * np.maximum(self.X - 0.55, 0)
        more = next_point(self.X, at, smooth[at], beside=kinked[at])
        assert self.X[more] > 0
        steep = np.where(self.X > 0, 3.0, 1.0) * smooth
        assert detect(self.X, steep).status != detect(self.X, smooth).status
        for beside in (steep, 0 * smooth, np.where(self.X > 0.9, np.inf, kinked), np.full(31, np.nan)):
            assert next_point(self.X, at, smooth[at], beside=beside[at]) is None

    def test_all_measured_needs_none_and_bad_input(self):
        assert next_point(self.X, range(31), 0 * self.X) is None
        with pytest.raises(ValleysError, match="not finite"):
            next_point([-2, -1, 0, 1, 2], [0, 2, 4], [1, 0, np.inf])
