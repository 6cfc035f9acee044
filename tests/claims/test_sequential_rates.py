"""Adding seeds until claims are decided gives no more false verdicts than a run of fixed seeds may."""

import sys
from pathlib import Path

import pytest
from scipy import stats as sps

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from sequential import CASES, rate

HELD = [case for case in CASES if case.rule != "uncorrected"]


def name_of(case):
    return f"{case.first} to {case.most}, {case.on_edge} and {case.true}, {case.shape}"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("case", HELD, ids=name_of)
def test_false_verdicts_at_any_look_are_no_more_than_one_in_twenty(case):
    false, samples, seeds = rate(case, 100)
    # At a true rate of 5 %, so many or more come by chance once in a thousand.
    assert sps.binomtest(false, samples, 0.05, alternative="greater").pvalue > 0.001
    assert case.first <= seeds <= case.most


@pytest.mark.slow
@pytest.mark.long
def test_looks_that_each_have_all_of_alpha_give_more():
    (plain,) = (case for case in CASES if (case.rule, case.most) == ("uncorrected", 14))
    (false, samples, _), (fewer, _, _) = (rate(case, 300) for case in (plain, HELD[0]))  # of the same values
    assert false > fewer
    assert false / samples > 0.05
