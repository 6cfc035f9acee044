"""Verdicts follow from their stated rules, with both outcomes possible."""

import math

import numpy as np
import pytest
from claim_tables import judge, toy
from valleys.claims import rules
from valleys.results import stats


def test_paired_verdict_takes_the_majoritys_sign():
    paired = stats.paired([1.0] * 9 + [-100.0])
    assert paired.mean < 0
    assert rules.paired_verdict(paired, 1, 0.05) == "supported"
    assert rules.paired_verdict(paired, -1, 0.05) == "refuted"
    assert rules.paired_verdict(stats.paired([]), 1, 0.05) == "inconclusive"


@pytest.mark.parametrize(
    ("hits", "n", "verdict"),
    [
        (4, 4, "supported"),  # Wilson: n / (n + 1.96^2) = 0.510 from below
        (3, 3, "inconclusive"),  # 0.438
        (0, 4, "refuted"),
        (0, 3, "inconclusive"),
        (5, 10, "inconclusive"),
        (9, 10, "supported"),  # 0.596
        (1, 10, "refuted"),
        (8, 10, "inconclusive"),  # 0.490
    ],
)
def test_share_rule(hits, n, verdict):
    row = judge(toy_2d=toy(*["asymmetric"] * hits, *["symmetric"] * (n - hits)))["toy_2d_asymmetric"]
    assert (row["verdict"], row["effect"], row["n"]) == (verdict, hits / n, n)
    z = 1.959964
    centre = (hits / n + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(hits / n * (1 - hits / n) / n + z * z / (4 * n * n))
    assert (row["low"], row["high"]) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert row["p_value"] is None


def test_no_rows_are_inconclusive():
    assert rules.grid_verdict(np.array([]), np.array([]), 1) == "inconclusive"
    assert rules.bound_verdict(np.array([])) == "inconclusive"
