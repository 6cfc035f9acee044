"""Experiment 12."""

import math

import pandas as pd
import pytest
from claim_tables import EMPTY, judge, signed
from valleys import claims

RISING = [(0.5, 0.1), (0.5, -0.2), (0.75, 0.5), (1.0, 2.0)]


@pytest.mark.parametrize(
    ("seeds", "verdict"),
    [
        ([RISING] * 6, "supported"),
        ([[(a, -i) for a, i in RISING]] * 6, "refuted"),
        ([RISING] * 5, "inconclusive"),
        ([RISING] * 3 + [[(a, -i) for a, i in RISING]] * 3, "inconclusive"),
    ],
)
def test_agreement_in_sign_against_asymmetry(seeds, verdict):
    row = judge(**signed(*seeds))["matching_signs_flattens"]
    assert (row["verdict"], row["n"], row["experiment"], row["scope"]) == (
        verdict,
        len(seeds),
        12,
        "d/m/r/all",
    )
    assert -1 <= row["low"] <= row["effect"] <= row["high"] <= 1
    assert "directions a minimum: 4, each as u and as -u" in row["note"]


def test_each_direction_counts_as_u_and_as_minus_u():
    """All probed ones agree in half or more, so that the other half of the range comes from their mirrors."""
    found = judge(**signed([(0.6, 1.0), (0.9, 3.0)]))["matching_signs_flattens"]
    assert found["effect"] == pytest.approx(1.0)  # (0.1, -3), (0.4, -1), (0.6, 1), (0.9, 3)
    found = judge(**signed([(1.0, 1.0), (1.0, 1.0)]))["matching_signs_flattens"]  # one share is enough
    assert found["effect"] == pytest.approx(1.0)


def test_groups_are_judged_apart_and_other_directions_do_not_count():
    down = [(a, -i) for a, i in RISING]
    parts = [
        signed(*[RISING] * 6),
        signed(*[down] * 6, group="conv"),
        signed(*[down] * 6, solution="swa"),
        signed(*[down] * 6, group="bn", kind="gaussian"),
    ]
    data = {name: pd.concat([part[name] for part in parts]) for name in ("directions", "asymmetry")}
    rows = [r for r in claims.judge({**EMPTY, **data}) if r["claim"] == "matching_signs_flattens"]
    assert [(r["scope"], r["verdict"]) for r in rows] == [
        ("d/m/r/all", "supported"),
        ("d/m/r/conv", "refuted"),
    ]


def test_directions_without_an_index_are_left_out():
    row = judge(**signed(*[[*RISING, (0.9, math.nan)]] * 6))["matching_signs_flattens"]
    assert row["verdict"] == "supported"
    assert "6 of 30 directions left out: a side does not rise" in row["note"]
    row = judge(**signed(*[[(0.9, math.nan)]] * 6))["matching_signs_flattens"]
    assert (row["verdict"], row["n"]) == ("inconclusive", 0)
    assert "6 seeds left out: not finite" in row["note"]
