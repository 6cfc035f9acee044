"""Intervals and tests against hand-computed values, at every sample size."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests
from valleys.errors import ValleysError
from valleys.results.stats import (
    factor_test,
    holm,
    mean_interval,
    simultaneous,
    spread_of_means,
    wilson,
)

Z = 1.959963984540054


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (50, 50), (1, 1)])
def test_wilson(k, n):
    share = k / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    i = wilson(k, n)
    assert (i.estimate, i.low, i.high, i.n) == pytest.approx(
        (share, centre - half, centre + half, n), abs=1e-12
    )


def test_wilson_of_none():
    assert np.isnan([wilson(0, 0).estimate, wilson(0, 0).low, wilson(0, 0).high]).all()
    assert wilson(np.int64(2), np.int64(4)) == wilson(2, 4)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (0.5, 3), (0, -1)])
def test_wilson_bad_counts(k, n):
    with pytest.raises(ValleysError, match="counts"):
        wilson(k, n)


def test_wilson_level():
    assert wilson(5, 20, 0.5).high < wilson(5, 20).high
    with pytest.raises(ValleysError, match="level"):
        wilson(5, 20, 95)


def test_mean_interval():
    # s = 1, t(0.975, 2) = 4.302653
    i = mean_interval([1, 2, 3])
    assert (i.estimate, i.low, i.high) == pytest.approx(
        (2, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-6
    )
    assert math.isnan(mean_interval([]).estimate)
    one = mean_interval([4])
    assert (one.estimate, one.n) == (4, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)


@pytest.mark.parametrize("values", [[1, math.nan], [1, math.inf], [[1, 2]]])
def test_bad_values(values):
    with pytest.raises(ValleysError, match="values"):
        mean_interval(values)


def test_coverage():
    rng = np.random.default_rng(7)
    means = [mean_interval(v) for v in rng.normal(1, 2, (1000, 6))]
    assert 0.93 < np.mean([i.low <= 1 <= i.high for i in means]) < 0.97
    shares = [wilson(k, 50) for k in rng.binomial(50, 0.3, 500)]
    assert 0.92 < np.mean([i.low <= 0.3 <= i.high for i in shares]) < 0.98


def test_simultaneous_intervals_are_bonferronis():
    low, high = simultaneous([1.0, 2.0], [0.1, 0.0], 0.9)
    assert low == pytest.approx([1 - 1.959964 * 0.1, 2.0])  # 0.95 for each of two
    assert high == pytest.approx([1 + 1.959964 * 0.1, 2.0])
    assert len(simultaneous([], [])[0]) == 0
    with pytest.raises(ValleysError):
        simultaneous([1.0], [1.0], 1.0)


def test_holm_of_known_values():
    """The example of R's p.adjust: p = 0.01, 0.02, 0.03, 0.04, 0.05 gives 0.05, 0.08, 0.09, 0.09, 0.09."""
    assert holm([0.03, 0.01, 0.05, 0.02, 0.04]) == pytest.approx([0.09, 0.05, 0.09, 0.08, 0.09])
    assert holm([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


@pytest.mark.slow
@pytest.mark.long
def test_holm_is_that_of_statsmodels():
    """To the same bits, ties and ones included."""
    rng = np.random.default_rng(0)
    for n in range(1, 13):
        p = rng.choice([*rng.uniform(size=4), 0.01, 1.0], n)
        assert holm(p).tolist() == multipletests(p, method="holm")[1].tolist()


def test_holm_leaves_out_tests_that_were_not_made():
    found = holm([math.nan, 0.02, 0.01])
    assert math.isnan(found[0])
    assert found[1:] == pytest.approx([0.02, 0.02])


def test_holm_keeps_the_family_wise_error():
    rng = np.random.default_rng(0)
    hit = [(holm(rng.uniform(size=5)) < 0.1).any() for _ in range(2000)]
    assert 0.07 < np.mean(hit) < 0.12


def test_factor_test_is_the_f_test_of_one_factor():
    rng = np.random.default_rng(0)
    own = ["a"] * 8 + ["b"] * 9 + ["c"] * 7
    values = rng.normal(size=24) + np.array([{"a": 0.0, "b": 0.4, "c": 0.9}[level] for level in own])
    groups = [values[np.array(own) == level] for level in "abc"]
    want = scipy.stats.f_oneway(*groups)
    found = factor_test(values, own)
    assert found.f == pytest.approx(want.statistic)
    assert found.p == pytest.approx(want.pvalue, abs=0.02)
    within = sum(((group - group.mean()) ** 2).sum() for group in groups)
    assert found.explained == pytest.approx(1 - within / ((values - values.mean()) ** 2).sum())
    assert found == factor_test(values, own)


def test_factor_test_is_exact_for_few_values():
    """Of the 20 ways to divide 6 values in two threes, 2 are as extreme as this one."""
    assert factor_test([1.0, 2.0, 3.0, 11.0, 12.0, 13.0], list("aaabbb")).p == pytest.approx(0.1, abs=0.01)


def test_factor_test_allows_for_other_factors():
    """What a strong factor does is neither noise to a weak one nor ascribed to one that goes with it."""
    rng = np.random.default_rng(1)
    strong, weak = np.tile([0, 1], 20), np.repeat([0, 1], 20)
    companion = np.where(np.arange(40) % 5, strong, 1 - strong)
    values = 5 * strong + 0.5 * weak + rng.normal(0, 0.3, size=40)
    assert factor_test(values, weak.tolist()).p > 0.1
    assert factor_test(values, weak.tolist(), [strong.tolist()]).p < 0.001
    assert factor_test(values, companion.tolist()).p < 0.001
    assert factor_test(values, companion.tolist(), [strong.tolist()]).p > 0.05


def test_factor_test_is_right_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(400):
        strong, own = rng.integers(3, size=(2, 18))
        values = 3 * strong + rng.exponential(size=18)
        hits += factor_test(values, own.tolist(), [strong.tolist()], n_resamples=199).p <= 0.1
    assert 0.06 < hits / 400 < 0.14


def test_factor_test_that_cannot_be_made():
    for values, own, others in (
        ([1.0, 2.0], "aa", []),  # one level
        ([1.0, 2.0], "ab", []),  # nothing left for the error
        ([1.0, 2.0, 3.0, 4.0], "abab", ["xyxy"]),  # cannot be told from the other
        ([2.0, 2.0, 2.0], "aab", []),  # nothing varies
        ([], "", []),
    ):
        assert np.isnan(factor_test(values, list(own), [list(other) for other in others]).p)
    with pytest.raises(ValleysError, match="levels"):
        factor_test([1.0, 2.0], ["a"])


def test_spread_of_means():
    rng = np.random.default_rng(0)
    groups = [rng.normal(mean, 0.1, size=20) for mean in (0.0, 1.0, 3.0)]
    found = spread_of_means(groups)
    assert found.estimate == pytest.approx(groups[2].mean() - groups[0].mean())
    half = Z * 0.1 * math.sqrt(2 / 20)
    assert (found.estimate - found.low, found.high - found.estimate) == pytest.approx((half, half), rel=0.3)
    assert found == spread_of_means(groups)
    assert found.n == 60
    lone = spread_of_means([[1.0], [3.0], []])
    assert (lone.estimate, lone.n) == (2.0, 2)
    assert np.isnan([lone.low, lone.high, spread_of_means([[1.0, 2.0]]).estimate]).all()


@pytest.mark.parametrize("k", [math.nan, math.inf, -math.inf, -1, 1.5])
def test_counts_that_are_no_counts(k):
    for successes, n in ((k, 3), (2, k)):
        with pytest.raises(ValleysError, match="not counts"):
            wilson(successes, n)


def test_numbers_whose_squares_are_not_finite_are_refused():
    """A mean of infinity with bounds of infinity would say something that is not so."""
    with pytest.raises(ValleysError, match=r"beyond 1e\+150"):
        mean_interval([1e200, 1.0, 2.0])
    assert mean_interval([1e140, 1e140]).low == 1e140


@pytest.mark.parametrize("p", [-0.1, 1.1, math.inf, -math.inf])
def test_what_is_no_p_value_is_not_adjusted(p):
    with pytest.raises(ValleysError, match="between 0 and 1"):
        holm([0.5, p, math.nan])
