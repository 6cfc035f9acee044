"""Definition 1, shift and barrier, on curves whose constants are known in closed form."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from brute_force import brute_force
from valleys.asymmetry.barriers import barrier
from valleys.asymmetry.definition import detect, detect_many, reaches
from valleys.asymmetry.next_point import first_points, next_point
from valleys.asymmetry.robustness import errors_like, is_robust
from valleys.asymmetry.shifts import shift, shift_curve
from valleys.asymmetry.spline import upsample
from valleys.errors import ValleysError

GRID = np.linspace(-1, 1, 41)
UNEVEN = np.sort(np.concatenate([[0.0], np.geomspace(0.02, 1, 20), -np.geomspace(0.02, 1, 20)]))


def both_ways(offsets, losses):
    """Yield the curve and its mirror image, each with the sign of l on which the first one is flat."""
    yield losses, 1
    yield losses[::-1], -1


class TestClosedForms:
    @pytest.mark.parametrize("offsets", [GRID, UNEVEN, 30 * GRID], ids=["even", "uneven", "scaled"])
    @pytest.mark.parametrize("ratio", [1.5, 2.5, 40.0])
    def test_piecewise_linear(self, offsets, ratio):
        # phi = 0.3 l on the right, 0.3 ratio |l| on the left: c* = ratio and p = 0.3 in every window.
        curve = np.where(offsets > 0, 0.3 * offsets, -0.3 * ratio * offsets)
        for losses, side in both_ways(offsets, curve):
            d = detect(offsets, losses)
            assert d.status == ("asymmetric" if ratio >= 2 else "symmetric")
            assert d.flat_side == side
            assert d.c_star == pytest.approx(ratio)
            assert d.p == pytest.approx(0.3)
            assert (d.zeta, d.r) == (offsets[offsets > 0][0], offsets[-1])  # the widest of equals
            assert d.argmin_offset == 0
            ratio_seen = d.rise_ratio if side == 1 else 1 / d.rise_ratio
            assert ratio_seen == pytest.approx(ratio)
            assert d.asymmetry_index == pytest.approx(side * math.log(ratio))

    def test_flat_side_that_turns_steep_ends_the_window(self):
        # Slope 1 to l = 0.6, then 10; 5 on the left. Windows past 0.6 have p = 10 and level 1/2.
        x = GRID
        curve = np.where(x > 0, np.minimum(x, 0.6) + 10 * np.maximum(x - 0.6, 0), -5 * x)
        for losses, side in both_ways(x, curve):
            d = detect(x, losses)
            assert (d.flat_side, d.status) == (side, "asymmetric")
            assert (d.c_star, d.p, d.zeta, d.r) == pytest.approx((5, 1, 0.05, 0.6))

    def test_steep_side_that_turns_flat_ends_the_window(self):
        x = GRID
        curve = np.where(x > 0, x, 4 * np.minimum(-x, 0.5) + 0.1 * np.maximum(-x - 0.5, 0))
        d = detect(x, curve, zeta_max=0.25)
        assert (d.c_star, d.p, d.zeta, d.r, d.flat_side) == pytest.approx((4, 1, 0.05, 0.5, 1))
        # Windows that may start further out see only what lies there: slopes 1 and 0.1, the other way round.
        far = detect(x, curve, zeta_max=0.5)
        assert (far.c_star, far.zeta, far.r, far.flat_side) == pytest.approx((10, 0.5, 1.0, -1))

    @pytest.mark.parametrize("curvature", [2.5, 4.5, 9.0])
    def test_piecewise_quadratic(self, curvature):
        # a l^2 and a curvature l^2: c*(zeta, r) = curvature zeta / r, so the best window starts latest and is
        # narrowest: zeta = R/2, r = 3R/4.
        x = 2 * GRID
        curve = np.where(x > 0, 0.7 * x**2, 0.7 * curvature * x**2)
        slopes = np.where(x > 0, 1.4 * x, 1.4 * curvature * x)
        exact = detect(x, curve, slopes=slopes)
        assert exact.c_star == pytest.approx(curvature * 2 / 3)
        assert (exact.zeta, exact.r, exact.p) == pytest.approx((1.0, 1.5, 2.1))
        assert exact.status == ("asymmetric" if curvature >= 3 else "symmetric")
        # By quotients the slope of an interval is that at its middle: half a step further in at either end.
        step = x[1] - x[0]
        quotients = detect(x, curve)
        assert quotients.c_star == pytest.approx(curvature * (1.0 + step / 2) / (1.5 - step / 2))
        assert (quotients.zeta, quotients.r) == pytest.approx((1.0, 1.5))

    def test_quotients_bound_the_exact_level_and_converge(self):
        excess = []
        for n in (41, 161, 641):
            x = np.linspace(-4, 4, n)
            s = np.logaddexp(0, -3 * x) + np.logaddexp(0, x)  # softplus on either side: slopes -3 and 1
            s_prime = -3 / (1 + np.exp(3 * x)) + 1 / (1 + np.exp(-x))
            exact, seen = detect(x, s, slopes=s_prime, zeta_max=0.5), detect(x, s, zeta_max=0.5)
            assert exact.flat_side == seen.flat_side == 1
            excess.append(seen.c_star - exact.c_star)
        assert excess[0] > excess[1] > excess[2] >= 0
        assert excess[2] < 0.02

    def test_minimum_off_zero_raises_zeta(self):
        x = GRID
        curve = np.where(x > 0.15, x - 0.15, -6 * (x - 0.15))
        for losses, side in both_ways(x, curve):
            d = detect(x, losses)
            assert d.argmin_offset == pytest.approx(0.15 * side)
            assert (d.status, d.flat_side) == ("asymmetric", side)
            assert (d.zeta, d.r, d.c_star) == pytest.approx((0.15, 1.0, 6.0))


class TestNotAsymmetric:
    @pytest.mark.parametrize("offsets", [GRID, UNEVEN], ids=["even", "uneven"])
    @pytest.mark.parametrize(
        "curve", [np.square, np.abs, lambda x: x**4, lambda x: np.cosh(3 * x), lambda x: 1 - np.exp(-(x**2))]
    )
    def test_symmetric_curves(self, offsets, curve):
        d = detect(offsets, curve(offsets))
        assert d.status == "symmetric"
        assert d.c_star <= 1 + 1e-9
        assert d.flat_side == 0
        assert d.asymmetry_index == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize("curve", [np.square, np.abs, lambda x: x**4, lambda x: np.cosh(3 * x)])
    def test_symmetric_curves_with_noise(self, curve):
        rng = np.random.default_rng(0)
        noisy = curve(GRID) + 1e-3 * rng.standard_normal((200, 41))
        for noise in (1e-9, 5e-3):
            assert {d.status for d in detect_many(GRID, noisy, noise=noise)} == {"symmetric"}

    @pytest.mark.parametrize(
        "curve",
        [
            lambda x: x,
            lambda x: -x,
            np.exp,
            lambda x: -(x**2),
            lambda x: -np.abs(x),
            lambda x: (x - 0.5) ** 2,
        ],
    )
    def test_no_minimum(self, curve):
        d = detect(GRID, curve(GRID))
        assert d.status == "not_minimum"
        assert np.isnan([d.c_star, d.zeta, d.r, d.p]).all()
        assert d.flat_side == 0
        assert d.argmin_offset == GRID[np.argmin(curve(GRID))]

    def test_a_side_that_never_rises_is_no_infinite_level(self):
        for losses, _ in both_ways(GRID, np.maximum(0, -GRID)):
            d = detect(GRID, losses)
            assert d.status == "not_minimum"
            assert math.isnan(d.c_star)
            assert math.isnan(d.asymmetry_index)

    def test_lower_outside_by_no_more_than_noise(self):
        curve = np.abs(GRID)
        curve[-1] = -1e-4
        assert detect(GRID, curve).status == "not_minimum"
        assert detect(GRID, curve, noise=1e-3).status == "symmetric"

    @pytest.mark.parametrize("height", [0.0, 2.3])
    def test_constant(self, height):
        d = detect(GRID, np.full(41, height))
        assert d.status == "flat"
        assert math.isnan(d.c_star)
        assert math.isnan(d.rise_ratio)

    def test_flat_within_noise(self):
        curve = 1 + 1e-4 * GRID**2
        assert detect(GRID, curve).status == "symmetric"
        assert detect(GRID, curve, noise=1e-3).status == "flat"


def random_curves(rng, count, n):
    """Rough valleys of all verdicts, on even and uneven grids."""
    for _ in range(count):
        x = np.cumsum(rng.uniform(0.2, 1, n // 2)) if rng.random() < 0.5 else np.arange(1, n // 2 + 1) * 0.3
        x = np.concatenate([-x[::-1], [0.0], x])
        left, right = rng.lognormal(0, 1, 2)
        power = rng.uniform(0.5, 2.5)
        centre = rng.normal(0, 0.15) * x[-1]
        valley = np.abs(x - centre) ** power * np.where(x > centre, right, left)
        yield x, valley + rng.choice([0, 0.02, 0.3]) * rng.standard_normal(n)


class TestAgainstBruteForce:
    @pytest.mark.parametrize(
        "options",
        [
            {"c": 2.0, "zeta_max": 0.25, "min_span": 0.25},
            {"c": 1.2, "zeta_max": 0.5, "min_span": 0.5},
            {"c": 2.0, "zeta_max": 0.5, "min_span": 0.25, "minimum_within": 0.45},
            {"c": 3.0, "zeta_max": 0.4, "min_span": 0.1, "noise": 0.5},
        ],
    )
    @pytest.mark.parametrize("exact", [False, True], ids=["quotients", "slopes"])
    def test_agrees(self, options, exact):
        rng = np.random.default_rng(1)
        options = {"noise": 0.0, **options}
        seen = set()
        for x, losses in random_curves(rng, 150, 21):
            slopes = np.gradient(losses, x) if exact else None
            d = detect(x, losses, slopes=slopes, **options)
            status, *numbers = brute_force(x, losses, slopes=slopes, **options)
            assert d.status == status
            assert (d.c_star, d.flat_side, d.zeta, d.r, d.p) == pytest.approx(tuple(numbers), nan_ok=True)
            seen.add((status, d.flat_side))
        assert {("asymmetric", 1), ("asymmetric", -1), ("not_minimum", 0)} <= seen
        assert any(status == "symmetric" for status, _ in seen)

    def test_many_equals_one_by_one(self):
        curves = list(random_curves(np.random.default_rng(2), 100, 21))
        x, losses = np.stack([c[0] for c in curves]), np.stack([c[1] for c in curves])
        for many, one in zip(detect_many(x, losses), map(detect, x, losses), strict=True):
            assert asdict(many) == pytest.approx(asdict(one), nan_ok=True)

    def test_many_in_chunks(self, monkeypatch):
        losses = np.stack([c for _, c in random_curves(np.random.default_rng(3), 30, 21)])
        x = np.arange(-10, 11)
        whole = detect_many(x, losses)
        monkeypatch.setattr("valleys.asymmetry.definition._CHUNK", 7 * 21**2)
        assert repr(detect_many(x, losses)) == repr(whole)

    def test_many_of_none(self):
        assert detect_many(GRID, np.empty((0, 41))) == []


class TestInvariance:
    def test_mirror(self):
        for x, losses in random_curves(np.random.default_rng(4), 200, 21):
            d, mirrored = detect(x, losses), detect(x, losses[::-1])
            assert mirrored.status == d.status
            assert mirrored.flat_side == -d.flat_side
            assert mirrored.c_star == pytest.approx(d.c_star, nan_ok=True)
            assert (mirrored.rise_plus, mirrored.rise_minus) == (d.rise_minus, d.rise_plus)
            assert mirrored.asymmetry_index == pytest.approx(-d.asymmetry_index, nan_ok=True)
            if d.flat_side:
                assert (mirrored.zeta, mirrored.r, mirrored.p) == pytest.approx((d.zeta, d.r, d.p))

    @pytest.mark.parametrize(("length", "height", "level"), [(7.3, 1, 0), (1, 0.01, 5), (1e-3, 1e4, -1e3)])
    def test_scale(self, length, height, level):
        for x, losses in random_curves(np.random.default_rng(5), 100, 21):
            d = detect(x, losses, noise=0)
            scaled = detect(length * x, height * losses + level, noise=0)
            assert (scaled.status, scaled.flat_side) == (d.status, d.flat_side)
            assert scaled.c_star == pytest.approx(d.c_star, rel=1e-6, nan_ok=True)
            assert scaled.zeta == pytest.approx(length * d.zeta, nan_ok=True)
            assert scaled.p == pytest.approx(height / length * d.p, rel=1e-6, nan_ok=True)


class TestBadInput:
    @pytest.mark.parametrize(
        ("offsets", "losses", "word"),
        [
            (GRID[::-1], GRID**2, "increasing"),
            (np.zeros(41), GRID**2, "increasing"),
            (GRID[18:23], np.ones(4), "shape"),
            ([-1, 0, 1], [1, 0, 1], "points"),
            ([-3, -2, -1, 1, 2, 3], np.ones(6), "0 is not"),
            (GRID[:-1], GRID[:-1] ** 2, "symmetric"),
            (np.where(GRID == 1, 2, GRID), GRID**2, "symmetric"),
            (GRID, np.where(GRID == 0.5, np.nan, GRID**2), "finite"),
            (GRID, np.where(GRID == 1, np.inf, GRID**2), "finite"),
            (np.where(GRID == 1, np.nan, GRID), GRID**2, "finite"),
            (np.array([-1, -0.9, 0, 0.9, 1]), np.array([1, 0.8, 0, 0.8, 1]), "finer"),
            (GRID, np.ones((2, 41)), "shape"),
        ],
    )
    def test_curves(self, offsets, losses, word):
        with pytest.raises(ValleysError, match=word) as caught:
            detect(offsets, losses)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "options",
        [
            {"c": 1.0},
            {"zeta_max": 0.0},
            {"zeta_max": 1.0},
            {"minimum_within": 0.0},
            {"min_span": 0},
            {"min_span": 0.8},
            {"noise": -1},
            {"noise": math.nan},
            {"slopes": np.zeros(40)},
            {"slopes": np.full(41, np.nan)},
        ],
    )
    def test_options(self, options):
        with pytest.raises(ValleysError, match=next(iter(options))):
            detect(GRID, GRID**2, **options)


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


class TestHolds:
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


# --- ties and numbers that are hardly any ---


def two_to_one(offsets, slope=1.0, base=0.0, level=2.0):
    x = np.asarray(offsets, dtype=np.float64)
    return base + np.where(x > 0, slope * x, -level * slope * x)


@pytest.mark.parametrize("points", [5, 11, 21, 31, 41])
@pytest.mark.parametrize("radius", [1.0, 0.1, 0.3, 7.7])
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_slopes_of_exactly_c_to_one_are_asymmetric(points, radius, kind):
    """On paper c* = 2; in floating point a little less or more (0.1 has no exact binary value)."""
    offsets = np.linspace(-radius, radius, points)
    for base in (0.0, 0.1, 0.7):
        for slope in (1 / radius, 0.7 / radius, 1.9 / radius):
            found = detect(offsets, two_to_one(offsets, slope, base).astype(kind))
            assert (found.status, found.flat_side) == ("asymmetric", 1)
            assert found.c_star == pytest.approx(2, rel=1e-5)
            mirrored = detect(offsets, two_to_one(offsets, slope, base).astype(kind)[::-1])
            assert (mirrored.status, mirrored.flat_side) == ("asymmetric", -1)


@pytest.mark.parametrize("c", [1.1, 1.5, 3.0, 7.3])
def test_ties_are_ties_at_any_level(c):
    curves = np.stack([two_to_one(GRID, 0.3 * k, 0.1 * k, level=c) for k in range(1, 20)])
    assert {found.status for found in detect_many(GRID, curves, c=c)} == {"asymmetric"}


@pytest.mark.parametrize("level", [1.999, 1.9999, 2 - 1e-4])
def test_a_level_measurably_below_c_is_symmetric(level):
    assert detect(GRID, two_to_one(GRID, level=level)).status == "symmetric"


def test_equal_slopes_have_no_flat_side():
    for base in (0.0, 0.1, 0.7):
        found = detect(GRID, (two_to_one(GRID, 0.7, base, level=1.0)).astype(np.float32))
        assert (found.status, found.flat_side) == ("symmetric", 0)


def test_what_is_no_level_reaches_none():
    assert reaches([math.nan, -math.inf, 1.9, 2.0, 2 - 1e-6, math.inf], 2.0).tolist() == [
        *[False] * 3,
        *[True] * 3,
    ]


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e6, 1e20])
def test_units_of_loss_and_offsets_change_no_verdict(scale):
    rng = np.random.default_rng(0)
    curves = np.stack([two_to_one(GRID, level=2 + e) for e in (0.0, -0.01, 0.01, *rng.normal(0, 1, 20))])
    curves = np.concatenate([curves, (GRID**2 * rng.uniform(0.1, 9, (20, 1))) * np.where(GRID > 0, 1, 3)])
    before = [(d.status, d.flat_side) for d in detect_many(GRID, curves)]
    assert [(d.status, d.flat_side) for d in detect_many(GRID, curves * scale)] == before
    assert [(d.status, d.flat_side) for d in detect_many(GRID * scale, curves)] == before
    assert len({status for status, _ in before}) > 1


def test_windows_do_not_hang_on_the_rounding_of_offsets():
    """0.4 R in float32 is a little beyond 0.4 R; the window that starts there counts all the same."""
    for radius in (0.3, 0.7, 1.1):
        offsets = np.linspace(-radius, radius, 41)
        losses = two_to_one(offsets, base=0.2) + np.where(np.abs(offsets) < 0.39 * radius, 0.0, offsets**2)
        for zeta_max, min_span in ((0.4, 0.6), (0.4, 0.25), (0.15, 0.85)):
            options = {"zeta_max": zeta_max, "min_span": min_span}
            one, other = (detect(x, losses, **options) for x in (offsets, offsets.astype(np.float32)))
            assert other.status == one.status
            assert (other.c_star, other.zeta) == (
                pytest.approx(one.c_star, rel=1e-5),
                pytest.approx(one.zeta, rel=1e-6),
            )


V = two_to_one(GRID)


@pytest.mark.parametrize(
    ("losses", "line"),
    [
        (np.where(GRID == 0, math.nan, V), "1 of 41 are not finite"),
        (np.where(GRID > 0.99, math.inf, V), "1 of 41 are not finite"),
        (np.where(GRID > 0.99, -math.inf, V), "1 of 41 are not finite"),
        ([None, *V[1:]], "1 of 41 are not finite"),
        (V * 1.5e307, "beyond 1e\\+300"),
        (V + 1j, "complex numbers"),
        (np.ma.masked_greater(V, 1.5), "masked values"),
        (["a", *V[1:]], "not an array of real numbers"),
        ([[1.0], [2.0, 3.0]], "not an array of real numbers"),
    ],
)
def test_losses_that_are_no_curve_get_no_verdict(losses, line):
    with pytest.raises(ValleysError, match=line):
        detect(GRID, losses)


def test_slopes_beyond_float64_are_refused():
    with pytest.raises(ValleysError, match="a slope is beyond"):
        detect(GRID * 1e-200, V * 1e200)


@pytest.mark.parametrize("name", ["c", "zeta_max", "min_span", "minimum_within", "noise"])
@pytest.mark.parametrize("value", [None, "2", True, math.nan, math.inf, -1.0, [2.0]])
def test_constants_that_are_none_are_refused(name, value):
    with pytest.raises(ValleysError, match=f"^{name}: "):
        detect(GRID, V, **{name: value})


def test_constant_and_nearly_constant_curves_are_flat():
    for value in (0.0, 1.0, -3.0, 1e30):
        assert detect(GRID, np.full(41, value)).status == "flat"
    assert detect(GRID, 0.3 + 1e-10 * V).status == "flat"


def test_shift_and_barrier_say_nothing_of_what_float64_cannot_hold():
    with pytest.raises(ValleysError, match="not finite"):
        shift(GRID, V, np.where(GRID == 0, math.nan, V), free_offset=False)
    with pytest.raises(ValleysError, match="beyond 1e"):
        shift(GRID, np.full(41, -1.5e308), np.full(41, 1.5e308), free_offset=False)
    with pytest.raises(ValleysError, match="beyond 1e"):
        barrier([0, 0.5, 1], [-1.5e308, 1.5e308, -1.5e308])
    assert shift(GRID, np.ones(41), np.ones(41), free_offset=True).delta == 0
    assert barrier([0, 0.5, 1], [1, 1, 1]).height == 0
