"""What samples say: p-values against those of other ways, intervals, and the n it would take."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as sps
from valleys.claims import rules
from valleys.results import inference

TEST = {"alpha": 0.05, "level": 0.95}


def naive_sign_flip(values):
    sums = [sum(s * v for s, v in zip(signs, values, strict=True)) for signs in all_signs(len(values))]
    seen = sum(values)
    return (
        sum(s >= seen - 1e-12 for s in sums) / len(sums),
        sum(s <= seen + 1e-12 for s in sums) / len(sums),
    )


def all_signs(n):
    return itertools.product((-1, 1), repeat=n)


@pytest.mark.parametrize("values", [[1.0, 2.0, -0.5], [0.3], [1.0, 1.0, 1.0, -1.0], [0.0, 0.0, 1.0]])
def test_sign_flips_are_all_sign_patterns(values):
    assert inference.sign_flip(values) == pytest.approx(naive_sign_flip(values))


def test_a_mean_far_above_is_for_and_below_is_against():
    values = np.linspace(0.5, 1.5, 12)
    above = inference.mean(values, 0.0, **TEST)
    assert above.p_for == 2**-12
    assert above.p_against == 1
    below = inference.mean(values, 0.0, above=False, **TEST)
    assert (below.p_for, below.p_against) == (above.p_against, above.p_for)
    assert rules.verdict(above, 0.05) == "supported"
    assert rules.verdict(below, 0.05) == "refuted"
    assert (above.low, above.high) == pytest.approx(sps.ttest_1samp(values, 0).confidence_interval(0.95))


def test_the_mean_is_held_against_the_number_given():
    values = np.linspace(0.5, 1.5, 12)
    assert rules.verdict(inference.mean(values, 2.0, **TEST), 0.05) == "refuted"
    assert rules.verdict(inference.mean(values, 1.0, **TEST), 0.05) == "inconclusive"


@pytest.mark.parametrize(("n", "decidable"), [(0, False), (1, False), (5, False), (6, True)])
def test_too_few_values_decide_nothing_and_the_row_says_how_many_would(n, decidable):
    found = inference.mean(np.ones(n), 0.0, **TEST)
    assert (rules.verdict(found, 0.05) == "supported") is decidable
    if not decidable:
        assert rules.verdict(found, 0.05) == "not decidable"
        assert found.n_needed == 6


def test_the_n_that_is_named_gives_the_power():
    rng = np.random.default_rng(0)
    values = rng.normal(0.4, 1, 12)
    values = 0.4 + (values - values.mean()) / values.std(ddof=1)  # effect 0.4 to the digit
    found = inference.mean(values, 0.0, **TEST)
    assert rules.verdict(found, 0.05) == "inconclusive"
    hits = [sps.ttest_1samp(rng.normal(0.4, 1, found.n_needed), 0).pvalue <= 0.05 for _ in range(2000)]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.03)


def test_an_effect_of_nothing_has_no_n():
    assert inference.mean([1.0, -1.0] * 6, 0.0, **TEST).n_needed is None


def test_many_values_take_random_signs_and_one_answer():
    values = np.random.default_rng(1).normal(0.3, 1, 24)
    once, again = inference.mean(values, 0.0, **TEST), inference.mean(values, 0.0, **TEST)
    assert once == again
    assert once.p_for == pytest.approx(sps.ttest_1samp(values, 0, alternative="greater").pvalue, abs=0.02)


@pytest.mark.parametrize(("hits", "n", "at"), [(12, 12, 0.5), (10, 12, 0.25), (3, 40, 0.25), (40, 40, 0.75)])
def test_a_share_is_never_nearer_to_a_verdict_than_the_exact_binomial_test(hits, n, at):
    values = np.repeat([1.0, 0.0], [hits, n - hits])
    found = inference.share(values, at, **TEST)
    assert found.p_for >= sps.binomtest(hits, n, at, alternative="greater").pvalue * (1 - 1e-12)
    assert found.p_against >= sps.binomtest(hits, n, at, alternative="less").pvalue * (1 - 1e-12)
    assert found.low <= hits / n <= found.high


def test_the_ends_of_a_shares_interval_are_the_shares_just_not_rejected():
    found = inference.share(np.repeat([1.0, 0.0], [20, 20]), 0.25, **TEST)
    for end in (found.low, found.high):
        assert 40 * inference.relative_entropy(0.5, end) == pytest.approx(math.log(2 / 0.05))


@pytest.mark.parametrize("values", [[0.5] * 40, [0.0] * 40, [1.0] * 40, [0.25] * 40])
@pytest.mark.parametrize(("down", "up"), [(0.0, 0.0), (0.5, 0.25), (0.25, 1.0)])
def test_what_is_undecided_counts_against_either_verdict(values, down, up):
    """For the claim what fewer hits say, against it what more say."""
    values = np.array(values)
    least, most = np.clip(values - down, 0, 1), np.clip(values + up, 0, 1)
    found = inference.share(values, 0.25, **TEST, least=least, most=most)
    fewer, more = (inference.share(part, 0.25, **TEST) for part in (least, most))
    assert found.estimate == values.mean()
    assert (found.p_for, found.low) == (fewer.p_for, fewer.low)
    assert (found.p_against, found.high) == (more.p_against, more.high)


def test_no_number_of_minima_decides_what_hangs_on_the_undecided():
    values = np.full(40, 0.3)
    assert inference.share(values, 0.25, **TEST).n_needed > 40
    assert inference.share(values, 0.25, **TEST, least=values - 0.1, most=values).n_needed is None
    above = inference.share(np.full(40, 0.5), 0.25, **TEST, least=values, most=np.full(40, 0.6))
    assert above.n_needed == inference.share(values, 0.25, **TEST).n_needed


@pytest.mark.parametrize(("share", "verdict"), [(1.0, "supported"), (0.25, "inconclusive"), (0.0, "refuted")])
def test_shares_of_sixty_minima(share, verdict):
    values = np.repeat([1.0, 0.0], [int(60 * share), 60 - int(60 * share)])
    assert rules.verdict(inference.share(values, 0.25, **TEST), 0.05) == verdict


def test_minima_that_are_all_hits_need_so_many():
    assert rules.verdict(inference.share(np.ones(12), 0.75, **TEST), 0.05) == "inconclusive"
    assert inference.share(np.ones(12), 0.75, **TEST).n_needed == 13
    assert rules.verdict(inference.share(np.ones(13), 0.75, **TEST), 0.05) == "supported"
    assert rules.verdict(inference.share(np.ones(2), 0.75, **TEST), 0.05) == "not decidable"


@pytest.mark.parametrize(
    ("centre", "verdict"), [(0.0, "supported"), (0.25, "inconclusive"), (0.6, "refuted"), (-0.6, "refuted")]
)
def test_equivalence_within_the_margin(centre, verdict):
    values = centre + 0.1 * np.linspace(-1, 1, 12)
    found = inference.equivalence(values, 0.25, **TEST)
    assert rules.verdict(found, 0.05) == verdict
    assert (rules.verdict(found, 0.05) == "supported") == (found.low > -0.25 and found.high < 0.25)


def test_equivalence_is_two_one_sided_t_tests():
    values = np.random.default_rng(2).normal(0.1, 0.2, 12)
    both = [
        sps.ttest_1samp(values, -0.25, alternative="greater").pvalue,
        sps.ttest_1samp(values, 0.25, alternative="less").pvalue,
    ]
    assert inference.equivalence(values, 0.25, **TEST).p_for == pytest.approx(max(both))


def test_values_that_do_not_scatter_are_within_or_beyond():
    assert rules.verdict(inference.equivalence([0.1] * 3, 0.25, **TEST), 0.05) == "supported"
    assert rules.verdict(inference.equivalence([0.3] * 3, 0.25, **TEST), 0.05) == "refuted"


def test_a_simulation_holds_where_all_its_rows_do():
    good, at, low, high = inference.simulated([1.0, 0.5], [0.1, 0.1], level=0.95)
    assert rules.verdict(good, 0.05) == "supported"
    assert at == 1
    assert good.estimate == 0.5
    assert low[0] < 1.0 < high[0]
    assert high[0] - low[0] > 2 * 1.96 * 0.1
    one_against = inference.simulated([1.0, -0.5], [0.1, 0.1], level=0.95)[0]
    assert rules.verdict(one_against, 0.05) == "refuted"
    assert rules.verdict(inference.simulated([1.0, 0.05], [0.1, 0.1], level=0.95)[0], 0.05) == "inconclusive"
    assert rules.verdict(inference.simulated([-1.0], [0.1], sign=-1, level=0.95)[0], 0.05) == "supported"


def test_all_of_several_claims():
    assert inference.all_of([0.01, 0.2], [0.9, 0.6]) == (0.2, 1.0)
    assert inference.all_of([0.5, 0.5], [0.01, 1.0]) == (0.5, 0.02)
    assert inference.two_sided(0.02, 0.9) == 0.04
    assert inference.two_sided(1.0, 1.0) == 1.0
