"""Barriers above a chord."""

import numpy as np
import pytest
from valleys.asymmetry.barriers import barrier, barrier_on
from valleys.errors import ValleysError


class TestBarrier:
    def test_height_above_the_chord(self):
        t = np.linspace(-1, 2, 61)
        b = barrier(t, 1 + 2 * t + 4 * t * (1 - t))
        assert (b.height, b.at) == pytest.approx((1, 0.5))

    def test_convex_has_none(self):
        t = np.linspace(0, 1, 11)
        assert barrier(t, (t - 0.3) ** 2).height == 0
        assert barrier([0, 1], [3, 5]).asdict() == {"height": 0.0, "at": 0.0}

    def test_outside_is_ignored(self):
        assert barrier([-1, 0, 0.4, 1, 2], [9, 0, 2, 1, 9]).asdict() == pytest.approx(
            {"height": 1.6, "at": 0.4}
        )

    @pytest.mark.parametrize(
        ("t", "losses", "word"),
        [
            ([0, 0.5, 0.9], [1, 2, 3], "at 1"),
            ([0.1, 1], [1, 2], "at 0"),
            ([0, 1], [1, 2, 3], "shape"),
            ([1, 0], [1, 2], "increasing"),
            ([0, 1], [1, np.nan], "finite"),
        ],
    )
    def test_bad_input(self, t, losses, word):
        with pytest.raises(ValleysError, match=word):
            barrier(t, losses)

    @pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
    def test_on_a_line_whose_loss_is_not_finite_it_is_without_end(self, bad):
        assert barrier_on([-1, 0, 0.4, 0.5, 1], [bad, 0, bad, bad, 1]).asdict() == {
            "height": np.inf,
            "at": 0.4,
        }
        assert barrier_on([0, 1], [1, bad]).asdict() == {"height": np.inf, "at": 1.0}
        plain = barrier_on([-1, 0, 0.4, 1, 2], [bad, 0, 2, 1, bad])
        assert plain.asdict() == pytest.approx({"height": 1.6, "at": 0.4})
        with pytest.raises(ValleysError, match="at 0"):
            barrier_on([0.1, 1], [1, 2])

    def test_what_float64_cannot_hold_has_none(self):
        with pytest.raises(ValleysError, match="beyond 1e"):
            barrier([0, 0.5, 1], [-1.5e308, 1.5e308, -1.5e308])
        assert barrier([0, 0.5, 1], [1, 1, 1]).height == 0
