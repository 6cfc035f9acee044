"""Verdicts under errors of the losses."""

import numpy as np
import pytest
from valleys.asymmetry.robustness import errors_like, is_robust


class TestIsRobust:
    X = np.linspace(-1, 1, 21)
    STEEP = np.where(X > 0, 4 * X, -X)  # c* = 4

    def test_small_errors_change_nothing(self):
        assert is_robust(self.X, self.STEEP, 1e-3)
        assert is_robust(self.X, self.X**2, 1e-3)

    def test_large_errors_do(self):
        assert not is_robust(self.X, self.STEEP, 0.1)

    def test_it_is_the_verdict_that_counts(self):
        """Near the level c an error matters that does not elsewhere."""
        assert not is_robust(self.X, self.STEEP, 1e-3, c=4.0)
        assert is_robust(self.X, self.STEEP, 1e-3, c=3.0)

    def test_no_error_changes_nothing(self):
        assert is_robust(self.X, self.STEEP, 0.0, c=4.0)
        assert is_robust(self.X, self.STEEP, np.zeros((2, 21)), c=4.0)

    def test_errors_that_hang_together_change_less(self):
        """An error of a whole side scales its slopes; independent ones of its size roughen them."""
        side = np.where(self.X > 0, 0.1 * self.STEEP, 0.0)
        assert is_robust(self.X, self.STEEP, side[None])  # c* of 4 against 2
        assert not is_robust(self.X, self.STEEP, np.diag(side))
        assert not is_robust(self.X, self.STEEP, side)  # independent ones of a size for each point
        assert is_robust(self.X, self.STEEP, 1e-3 * side)
        assert not is_robust(self.X, self.STEEP, side[None], c=3.9)

    def test_errors_of_several_parts_add_up(self):
        parts = np.stack([np.where(self.X > 0, self.X, 0.0), np.where(self.X < 0, -self.X, 0.0)])
        found = [is_robust(self.X, self.STEEP, size * parts) for size in (0.05, 0.5)]
        assert found == [True, False]

    def test_errors_at_some_points_are_carried_to_the_others(self):
        """By the spline: slopes over the gaps change less than by independent errors everywhere."""
        at = [0, 4, 7, 10, 12, 16, 20]
        y = np.where(self.X > 0, 5.0, 1.0) * self.X**2
        found = [
            (is_robust(self.X, y, size), is_robust(self.X, y[at], np.full(7, size), at=at))
            for size in (1e-3, 0.05, 1.0)
        ]
        assert found == [(True, True), (False, True), (False, False)]
        everywhere = np.linspace(0.01, 0.03, 21)
        for size in (1, 10):
            given = [is_robust(self.X, y, size * everywhere, at=part) for part in (None, range(21))]
            assert given[0] == given[1]


def test_errors_like_those_found_are_of_one_size_about_the_minimum():
    losses = [1.2, 1.05, 1.0, 1.02, 1.1]
    errors = errors_like(losses, [0, 2, 4], [0.03, 0.0, -0.04])
    assert errors == pytest.approx(np.full(5, 0.05 / np.sqrt(3)), rel=0.03)
    assert errors_like(losses, [0, 2, 4], [0.0, 0.0, 0.0]).tolist() == [0.0] * 5


def test_errors_like_those_found_grow_with_the_rise_far_from_it():
    losses = [501.0, 51.0, 1.0, 1.1, 1.2]
    errors = errors_like(losses, [0, 2, 4], [50.0, 0.1, 0.1])
    assert errors == pytest.approx([50, 5, 0.1, 0.1, 0.1], rel=0.03)
