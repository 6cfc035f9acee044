"""Definition 1 on curves whose constants are known in closed form, and against brute force."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from brute_force import brute_force
from valleys.asymmetry.definition import detect, detect_many, reaches
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
            assert (d.minimum, d.reach) == (0, offsets[-1])
            assert d.rise == max(d.rise_plus, d.rise_minus)
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
        assert np.isnan([d.asymmetry_index, d.minimum, d.reach, d.rise]).all()

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
