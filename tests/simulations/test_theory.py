"""The theorems' simulations, against naive loops, exact identities and the bounds of docs/theory.md."""

import itertools
import math

import numpy as np
import pytest
from conftest import fill_defaults, load_config
from scipy.integrate import quad
from valleys.errors import ValleysError
from valleys.simulations import theory
from valleys.simulations.theory import Linear, Noise, Quadratic, Softplus
from valleys.storage import tables

SHAPES = list(theory.SHAPES.values())
KINDS = ["uniform", "rademacher"]
RUN = {"chains": 2 * theory.BLOCK, "iterates": 200, "burn_in": 200, "seed": 3}


def within(values, expected, errors=4.5):
    """Whether a sample's mean is as expected, to so many standard errors."""
    return abs(values.mean() - expected) <= errors * values.std(ddof=1) / math.sqrt(len(values)) + 1e-12


# --- valleys ---


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("c", [1, 3])
def test_gradient_is_the_slope_of_the_loss(shape, c):
    valley = shape(c, 0.7, 0.3)
    x = np.array([-3.0, -1.0, -0.2, -0.01, 0.01, 0.2, 1.0, 3.0])
    h = 1e-6
    assert valley.gradient(x) == pytest.approx((valley.loss(x + h) - valley.loss(x - h)) / (2 * h), rel=1e-6)
    assert valley.loss(np.zeros(1))[0] == pytest.approx(0, abs=1e-15)
    assert (valley.loss(x) > 0).all()
    assert (np.diff(valley.gradient(x)) >= 0).all()
    if shape is not Quadratic:
        assert valley.gradient(np.array([-50.0, 50.0])) == pytest.approx([-0.7 * c, 0.7])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_valley_of_ratio_one_is_symmetric(shape):
    x = np.linspace(0.1, 5, 20)
    assert shape(1).loss(x) == pytest.approx(shape(1).loss(-x))
    assert (shape(1.5).loss(-x) > shape(1.5).loss(x)).all()


def test_far_out_the_softplus_valley_neither_overflows_nor_leaves_its_slopes():
    with np.errstate(all="raise", under="ignore"):
        assert Softplus(4).loss(np.array([-1e6, 1e6])) == pytest.approx([4e6, 1e6], rel=1e-5)


def test_softplus_point_inverts_the_slope():
    valley = Softplus(4, 1.3, 0.2)
    for slope in (-5, -0.1, 0.1, 1.2):
        assert valley.gradient(np.array([valley.point(slope)]))[0] == pytest.approx(slope)


@pytest.mark.parametrize("shape", [Linear, Quadratic])
@pytest.mark.parametrize("x", [-1.3, 0.8])
def test_integral_of_the_loss(shape, x):
    assert shape(3, 0.7).integral(x) == pytest.approx(quad(shape(3, 0.7).loss, 0, x)[0])


@pytest.mark.parametrize("numbers", [{"c": 0.5}, {"c": 2, "p": 0}, {"c": 2, "width": -1}, {"c": math.nan}])
def test_valleys_that_are_none(numbers):
    with pytest.raises(ValleysError, match="needs c of at least 1"):
        Linear(**numbers)


# --- noise ---


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_bounded_and_has_its_moments(kind):
    noise = Noise(kind, 3)
    values = noise.of((np.arange(100_000) + 0.5) / 100_000)
    assert np.abs(values).max() <= 3
    assert values.mean() == pytest.approx(0, abs=1e-9)
    assert (values**2).mean() == pytest.approx(noise.variance)
    assert np.abs(values).mean() == pytest.approx(noise.mean_abs)
    assert (values**4).mean() == pytest.approx(noise.fourth)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [1.0, 1.7, 6.0])
def test_overshoot_constants(kind, level):
    """M and R are the greatest of their ratios over all points a step can pass."""
    z = 1 + Noise(kind, level).of((np.arange(40_000) + 0.5) / 40_000)
    m, r = Noise(kind, level).overshoot(1.0)
    found = []
    for s in np.linspace(0, 0.99 * (1 + level), 50):
        over = np.maximum(z - s, 0)
        found.append((over.sum() / (over > 0).sum(), (over**2).sum() / over.sum()))
    assert np.max(found, axis=0) == pytest.approx((m, r), rel=1e-3)


def test_unknown_noise():
    with pytest.raises(ValleysError, match="'normal' is not uniform or rademacher"):
        Noise("normal", 1)


# --- chains ---


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_chains_are_those_of_a_naive_loop(shape, kind):
    valley, noise = shape(3, 0.8, 0.4), Noise(kind, 1.5)
    found = theory.simulate(
        valley, lr=0.1, noise=noise, chains=theory.BLOCK + 2, iterates=7, burn_in=5, seed=1, name="n"
    )
    for chain in (0, 5, theory.BLOCK, theory.BLOCK + 1):
        block, j = divmod(chain, theory.BLOCK)
        u = theory._random(1, "n", block).random((13, theory.BLOCK))[:, j]
        x = 0.1 * 3 * 0.8 * (2 * u[0] - 1)
        xs = []
        for t in range(12):
            xs.append(x)
            push = 1.5 * (2 * u[t + 1] - 1) if kind == "uniform" else (1.5 if u[t + 1] >= 0.5 else -1.5)
            x = x - 0.1 * (float(valley.gradient(np.array(x))) + push)
        kept = np.array(xs[5:])
        assert found.average[chain] == pytest.approx(kept.mean(), abs=1e-13)
        assert found.loss[chain] == pytest.approx(valley.loss(kept).mean(), abs=1e-13)
        assert found.steep[chain] == pytest.approx((kept < 0).mean())
        assert (found.first[chain], found.last[chain]) == pytest.approx((kept[0], x), abs=1e-13)
        assert (found.least[chain], found.greatest[chain]) == pytest.approx((min(xs), max(xs)), abs=1e-13)


def test_chains_do_not_hang_on_their_number_and_do_on_seed_and_name():
    def average(chains=30, seed=0, name="a"):
        run = {"lr": 0.1, "noise": Noise("uniform", 1), "iterates": 3, "burn_in": 1}
        return theory.simulate(Linear(2), chains=chains, seed=seed, name=name, **run).average

    first = average()
    assert (average() == first).all()
    assert (average(chains=theory.BLOCK + 30)[:30] == first).all()
    assert not (average(seed=1) == first).any()
    assert not (average(name="b") == first).any()
    more = average(chains=theory.BLOCK + 30)
    assert not (more[theory.BLOCK :] == first).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("c", "level"), [(2, 0.7), (2, 3), (5, 1.5), (1, 2)])
def test_identities_of_the_linear_valley(kind, c, level):
    """E[slope] and the second moment, exact for any number of steps with their boundary terms."""
    p, lr, noise = 0.8, 0.1, Noise(kind, level)
    run = theory.simulate(Linear(c, p), lr=lr, noise=noise, **RUN)
    n = RUN["iterates"]
    slope = p * (1 - run.steep) - c * p * run.steep
    assert within(slope + (run.last - run.first) / (lr * n), 0)
    squares = p**2 * (1 - run.steep) + (c * p) ** 2 * run.steep
    assert within(2 * run.loss - lr * squares + (run.last**2 - run.first**2) / (lr * n), lr * noise.variance)
    # Without them after a burn-in: Proposition 1.
    assert run.steep.mean() == pytest.approx(1 / (1 + c), abs=0.004)
    assert run.loss.mean() == pytest.approx(lr / 2 * (c * p**2 + noise.variance), rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [Quadratic, Softplus])
def test_mean_slope_of_other_valleys_is_nought(kind, shape):
    """For the quadratic valley: the mean is (c - 1) / (c + 1) of the mean distance."""
    valley, lr, n = shape(3), 0.1, 400
    rng = np.random.default_rng(0)
    x, total, size = np.zeros(20_000), np.zeros(20_000), np.zeros(20_000)
    for t in range(100 + n):
        if t >= 100:
            total += valley.gradient(x) if shape is Softplus else x
            size += np.abs(x)
        x = x - lr * (valley.gradient(x) + Noise(kind, 1).of(rng.random(20_000)))
    rest = total / n if shape is Softplus else total / n - (3 - 1) / (3 + 1) * size / n
    assert abs(rest.mean()) < 4.5 * rest.std() / math.sqrt(20_000) + 0.03 / (lr * n)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("c", "level"), [(1.5, 0.3), (2, 1), (4, 0.9), (8, 0.5)])
def test_small_noise_has_its_exact_mean(kind, c, level):
    """Proposition 2, from the first step on but for the way from start to stationary law."""
    run = theory.simulate(Linear(c), lr=0.1, noise=Noise(kind, level), **RUN)
    assert run.average.mean() == pytest.approx(0.1 * (c - 1) / 2, abs=0.0015)


def test_noise_on_a_lattice_may_leave_no_bias():
    """The example in docs/theory.md: c = 2, p = 1, noise +-1, start at 0."""
    valley, rng = Linear(2), np.random.default_rng(0)
    x, total = np.zeros(4000), np.zeros(4000)
    for _ in range(600):
        total += x
        x = x - (valley.gradient(x) + Noise("rademacher", 1).of(rng.random(4000)))
    assert within(total / 600, 0, errors=5)
    assert set(np.unique(x - valley.gradient(x))) == {-1.0, 0.0, 1.0}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [0.5, 1, 4])
def test_symmetric_valleys_have_no_bias(shape, kind, level):
    run = theory.simulate(shape(1), lr=0.1, noise=Noise(kind, level), **RUN)
    assert within(run.average, 0)
    assert within((run.average > 0) - 0.5, 0)


GRID = list(itertools.product(SHAPES, KINDS, (1.2, 3, 10), (0.3, 1.5, 5), (0.02, 0.1)))


@pytest.mark.slow
def test_bounds_on_the_average_are_never_violated():
    applied, positive = 0, 0
    for shape, kind, c, level, lr in GRID:
        valley, noise = shape(c, 1.0, 0.4), Noise(kind, level)
        bound = theory.average_bound(valley, lr, noise)
        if not math.isfinite(bound):
            continue
        run = theory.simulate(valley, lr=lr, noise=noise, chains=4096, iterates=200, burn_in=300, seed=1)
        error = run.average.std() / 64
        assert run.average.mean() > bound - 5 * error, (shape, kind, c, level, lr)
        if shape is Linear:  # the bounds from above, with room for the Monte Carlo error
            assert run.average.mean() < lr * (c + noise.variance) / 2 + 5 * error
            diffusion = noise.variance * (c - 1) / c
            assert run.average.mean() < lr / 2 * (diffusion + c + level) + 5 * error
        applied, positive = applied + 1, positive + (bound > 0)
    assert applied > 70
    assert positive > 55


def test_where_bounds_apply():
    noise = Noise("uniform", 0.5)
    assert theory.average_bound(Linear(4), 0.1, noise) == pytest.approx(0.15)
    assert theory.average_bound(Linear(2), 0.1, Noise("uniform", 2)) < 0  # vacuous
    assert math.isnan(theory.average_bound(Quadratic(8), 0.2, noise))
    assert theory.average_bound(Quadratic(1), 0.1, noise) == 0
    assert math.isnan(theory.average_bound(Softplus(4), 0.1, Noise("uniform", 1)))  # b = p
    assert math.isnan(theory.average_bound(Softplus(2), 0.1, noise))  # b = (c - 1) p / 2
    assert math.isnan(theory.average_bound(Softplus(4, width=0.1), 0.1, noise))  # too steep for the step
    assert theory.average_bound(Softplus(4), 0.1, noise) > 0


def test_the_bound_of_large_noise_tends_to_the_diffusions_mean():
    for c, kind in itertools.product((2, 6), KINDS):
        noise = Noise(kind, 1e4)
        expected = 0.1 * noise.variance * (c - 1) / (2 * c)
        assert theory.average_bound(Linear(c), 0.1, noise) == pytest.approx(expected, rel=1e-3)


# --- gain ---


def integrated(valley, bias, shift):
    """The expected gain by numerical integration."""
    d = shift.level
    if shift.kind == "rademacher":
        return np.mean([float(valley.loss(s)) - float(valley.loss(bias + s)) for s in (-d, d)])
    kinks = [point for point in (0.0, -bias) if -d < point < d]
    gain = quad(lambda s: float(valley.loss(s) - valley.loss(bias + s)), -d, d, points=kinks)[0]
    return gain / (2 * d)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("c", [1, 2.5, 8])
def test_closed_form_bound_and_limit_against_integration(shape, kind, c):
    valley, shift = shape(c, 0.7, 0.3), Noise(kind, 1.5)
    limit = theory.gain_limit(valley, shift)
    for bias in (0.1, 0.6, 1.5, 2.9):
        gain, exact = integrated(valley, bias, shift), theory.exact_gain(valley, bias, shift)
        if shape is Softplus and kind == "uniform":
            assert math.isnan(exact)
        else:
            assert exact == pytest.approx(gain, abs=1e-9)
        bound = theory.gain_bound(valley, bias, shift)
        assert gain >= bound - 1e-9
        assert (bound > 0) == (bias < limit)
        if c == 1:
            assert gain <= 1e-9
    if c == 1:
        assert limit == pytest.approx(0, abs=1e-15)
    else:
        best = integrated(valley, limit, shift)
        assert best > 0
        for other in (0.9 * limit, 1.1 * limit):
            assert integrated(valley, other, shift) <= best + 1e-12


@pytest.mark.parametrize("c", [2, 3, 7])
def test_formulas_of_the_document(c):
    p, d = 0.6, 1.4
    uniform, two = Noise("uniform", d), Noise("rademacher", d)
    linear, quadratic = Linear(c, p), Quadratic(c, p)
    assert theory.gain_limit(linear, uniform) == pytest.approx(d * (c - 1) / (c + 1))
    assert theory.gain_limit(linear, two) == pytest.approx(d)
    root = math.sqrt(c)
    assert theory.gain_limit(quadratic, uniform) == pytest.approx(d * (root - 1) / (root + 1))
    assert theory.gain_limit(quadratic, two) == pytest.approx(d * (c - 1) / (c + 1))
    for x in (0.3, 1.2):
        expected = p * x * (c - 1) / 2 - (1 + c) * p * x * x / (4 * d)
        assert theory.exact_gain(linear, x, uniform) == pytest.approx(expected)
        assert theory.exact_gain(linear, x, two) == pytest.approx(p * x * (c - 1) / 2)
    even = 2 * d * (c - 1) / (c + 1) if c <= 3 else d * (c + 1) / 4
    assert theory.exact_gain(linear, even, uniform) == pytest.approx(0, abs=1e-12)
    assert theory.exact_gain(linear, d * (c + 1) / 2, two) == pytest.approx(0, abs=1e-12)
    # The corollary for Definition 1, with zeta = 0: a step weaker than the bound used, never above it.
    for x in (0.1, 0.5, 1.0):
        corollary = p * x * ((1 + c) / 2 * (1 - x / d) - 1)
        assert theory.gain_bound(linear, x, uniform) >= corollary - 1e-12


# --- tables ---


def spec(**changes):
    block = fill_defaults(load_config("config/smoke.yaml"))["theory"]
    return {**block, "chains": 500, "draws": 500, "iterates": 20, "burn_in": 20, **changes}


def test_tables_have_the_declared_columns_and_their_rows(tmp_path):
    found = theory.run(spec())
    assert set(found) == {"theory_average", "theory_gain"}
    for name, columns in found.items():
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        tables.write(tmp_path / "t.parquet", name, rows)
    assert len(found["theory_average"]["c"]) == 3 * 2 * 1 * 2 * 2
    assert len(found["theory_gain"]["c"]) == 3 * 2 * 2 * 1 * 7


def test_a_larger_grid_leaves_rows_as_they_were():
    small = theory.averages(spec(shapes=["linear"], ratios=[4]))
    large = theory.averages(spec(shapes=["linear"], ratios=[1, 4.0], levels=[0.5, 1, 4]))
    assert all(row in large for row in small)
    few = theory.expected_gains(spec(shapes=["linear"], ratios=[4]))
    many = theory.expected_gains(spec(shapes=["quadratic", "linear"], ratios=[1, 4], scales=[1, 2]))
    assert all(row in many for row in few)


def test_rows_say_what_the_chains_say():
    (row,) = theory.averages(
        spec(shapes=["quadratic"], ratios=[3], noises=["uniform"], levels=[1], rates=[0.1])
    )
    valley = Quadratic(3)
    run = theory.simulate(
        valley, lr=0.1, noise=Noise("uniform", 1), chains=500, iterates=20, burn_in=20, seed=0,
        name="average/quadratic/3.0/0.1/uniform/1.0",
    )  # fmt: skip
    assert row["mean"] == run.average.mean()
    assert row["mean_se"] == pytest.approx(run.average.std(ddof=1) / math.sqrt(500))
    assert row["flat_share"] == (run.average > 0).mean()
    change = valley.loss(run.average) - run.loss
    assert (row["loss_change"], row["loss_change_se"]) == pytest.approx(
        (change.mean(), change.std(ddof=1) / math.sqrt(500))
    )
    assert (change <= 1e-15).all()  # Jensen
    assert row["loss_kept"] == pytest.approx(float(valley.loss(run.average.mean())) / run.loss.mean())
    # Its standard error to first order, against the jackknife over chains.
    n = 500
    means, losses = ((v.sum() - v) / (n - 1) for v in (run.average, run.loss))
    kept = valley.loss(means) / losses
    assert row["loss_kept_se"] == pytest.approx(math.sqrt((n - 1) * kept.var()), rel=0.05)


def test_gains_agree_with_the_closed_form():
    rows = theory.expected_gains(spec(draws=50_000))
    far = [(r["gain"] - r["exact"]) / r["gain_se"] for r in rows if math.isfinite(r["exact"])]
    assert np.abs(far).max() < 4.5


def test_rows_say_whether_they_are_inside():
    rows = theory.averages(spec(ratios=[1, 8, 16], levels=[0.5, 2], rates=[0.03]))
    inside = {(row["shape"], row["c"], row["level"]) for row in rows if row["inside"]}
    assert inside == {("linear", 16.0, 0.5)}
    rows = theory.expected_gains(spec(shapes=["linear"], ratios=[1, 4], scales=[2]))
    inside = {(row["c"], row["shift"], row["bias"] / 2) for row in rows if row["inside"]}
    assert inside == {(4.0, "rademacher", share) for share in (0.125, 0.25, 0.5, 0.75)}
