"""Verdicts follow from their stated rules, with each outcome possible."""

import math

import numpy as np
import pandas as pd
import pytest
from valleys.claims import rows, rules
from valleys.results.inference import Evidence

TEST = {"alpha": 0.05, "level": 0.95, "experiment": 1}
ABOUT = ("a_claim", "d/m/r", "something holds")
FAR = np.linspace(0.5, 1.5, 12)


def evidence(p_for, p_against, least=0.0):
    return Evidence(0.0, 0.0, 0.0, 5, p_for, p_against, least, None)


@pytest.mark.parametrize(
    ("p_for", "p_against", "least", "verdict"),
    [
        (0.025, 1.0, 0.0, "supported"),
        (0.026, 1.0, 0.0, "inconclusive"),
        (1.0, 0.025, 0.0, "refuted"),
        (0.5, 0.5, 0.0, "inconclusive"),
        (0.03, 1.0, 0.03, "not decidable"),
    ],
)
def test_each_p_value_is_held_against_half_of_alpha(p_for, p_against, least, verdict):
    assert rules.verdict(evidence(p_for, p_against, least), 0.05) == verdict


def mean(values, **more):
    about = {"sign": 1, "measure": "m", "unit": "nats"}
    return rows.mean_row(*ABOUT, values, **about | TEST | more)


def share(values, **more):
    return rows.share_row(*ABOUT, values, **{"at": 0.5, "measure": "m"} | TEST | more)


def equivalence(values, **more):
    about = {"margin": 0.25, "measure": "m", "unit": "share of the mean"}
    return rows.equivalence_row(*ABOUT, values, **about | TEST | more)


def grid(estimates, **more):
    errors = pd.Series(np.full(len(estimates), 0.1))
    return rows.grid_row(*ABOUT, pd.Series(estimates), errors, **{"measure": "m", "unit": "x"} | TEST | more)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (mean(FAR), "supported"),
        (mean(FAR, sign=-1), "refuted"),
        (mean(FAR, at=1.0), "inconclusive"),
        (mean(FAR[:5]), "not decidable"),
        (mean([]), "not decidable"),
        (share(np.ones(12)), "supported"),
        (share(np.zeros(12)), "refuted"),
        (share(np.repeat([0.0, 1.0], 6)), "inconclusive"),
        (share(np.ones(5)), "not decidable"),
        (equivalence(0.05 * FAR), "supported"),
        (equivalence(-FAR), "refuted"),
        (equivalence(0.25 * FAR), "inconclusive"),
        (equivalence([0.1]), "not decidable"),
        (grid([1.0, 2.0]), "supported"),
        (grid([1.0, -2.0]), "refuted"),
        (grid([1.0, -2.0], sign=-1), "refuted"),
        (grid([1.0, 0.05]), "inconclusive"),
        (grid([1.0, -0.05], bound=True), "supported"),
        (grid([1.0, -2.0], bound=True), "refuted"),
    ],
)
def test_each_rule_has_each_outcome(row, verdict):
    assert row["verdict"] == verdict
    assert (row["n_needed"] is not None) <= (verdict in ("inconclusive", "not decidable"))


def test_a_row_says_what_a_reader_needs():
    values = pd.Series([0.1, 0.3, -0.2, math.inf, 0.4, 0.2, 0.3], index=[3, 4, 5, 6, 7, 8, 9])
    row = mean(values, note="said", number=8, decides=True)
    assert (row["number"], row["decides"], row["n"]) == (8, True, 6)
    assert row["p_value"] == pytest.approx(2 * min(row["p_for"], row["p_against"]))
    assert row["note"].startswith(f"n for 80 % power at the effect seen: {row['n_needed']}; said")
    assert "left out, not finite: 1" in row["note"]
    assert "above 0 in 5 of 6, below in 1" in row["note"]
    assert row["by_seed"].startswith('{"3": 0.1')


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("values", "end", "refused"), [
    (FAR, math.inf, False), (FAR, -math.inf, True), (-FAR, math.inf, True), (-FAR, -math.inf, False),
    (FAR, math.nan, False),
])  # fmt: skip
def test_a_value_without_end_on_the_other_side_leaves_no_verdict(values, end, refused, sign):
    """For either verdict: it is left out of the mean, where it would speak against that verdict."""
    row, plain = mean([*values, end], sign=sign), mean(values, sign=sign)
    assert (row["effect"], row["n"]) == (plain["effect"], plain["n"])
    assert row["verdict"] == ("not decidable" if refused else plain["verdict"])
    told = f"a loss that is not finite puts 1 of {len(values) + 1} on the other side; "
    assert row["note"].startswith(told) == refused


def test_a_row_that_cannot_be_decided_says_what_it_takes():
    row = mean(FAR[:5])
    assert row["note"].startswith("n = 5 cannot decide it, whatever the data; 6 can")


def test_a_refused_row_has_no_p_value():
    row = rows.refused_row(mean(FAR, note="said"), "the rises differ")
    assert (row["verdict"], row["p_value"], row["p_for"]) == ("not decidable", None, None)
    assert row["note"].startswith("the rises differ; said")
    open_ = mean([*FAR[:8], -9.0], note="said; twice")
    assert open_["note"].startswith("n for 80 % power")
    refused = rows.refused_row(open_, "the rises differ")
    assert refused["note"] == "the rises differ; " + open_["note"].partition("; ")[2]


def test_intervals_end_at_their_limits():
    row = mean([0.0, 0.0, 0.0, 0.0, 0.0, 0.9], limits=(0, 1))
    assert row["low"] == 0.0


def test_bounds_without_rows_are_not_decidable():
    assert rules.bound_verdict(np.array([])) == "not decidable"
