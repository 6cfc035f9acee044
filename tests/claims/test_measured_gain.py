"""Experiment 4 on measured curves."""

import numpy as np
import pandas as pd
import pytest
from claim_tables import PAIR, judge, measured


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([(0.1, 0.3)] * 6, "supported"),
        ([(-0.1, -0.3)] * 6, "refuted"),
        ([(0.1, 0.3)] * 5, "inconclusive"),
        ([(0.1, 0.3)] * 4 + [(-0.1, -0.2)] * 4, "inconclusive"),
        # Most directions gain, but in each minimum the mean is a loss.
        ([(0.1, 0.1, 0.1, -0.9)] * 6, "refuted"),
    ],
)
def test_a_bias_on_measured_curves(values, verdict, which):
    pairs = [[(v, 0.0) if which == 0 else (0.0, v) for v in seed] for seed in values]
    rows = judge(theory_measured=measured(*pairs))
    row, other = rows[PAIR[which]], rows[PAIR[1 - which]]
    assert (row["verdict"], row["n"], row["experiment"]) == (verdict, len(values), 4)
    assert row["effect"] == pytest.approx(np.mean([np.mean(v) for v in values]))
    assert (row["unit"], row["scope"]) == ("nats", "d/m/r/uniform")
    assert other["verdict"] == "inconclusive"


def test_symmetric_directions_are_a_control_in_the_note():
    both = pd.concat([
        measured(*[[(0.1, 0.2)] * 2] * 6),
        measured(*[[(-0.3, 0.4)]] * 5, [(0.5, -0.6)], status="symmetric"),
    ])  # fmt: skip
    rows = judge(theory_measured=both)
    gain, test = (rows[claim]["note"] for claim in PAIR)
    assert "asymmetric directions: 12 of 18; along symmetric ones -0.167, above 0 in 1 of 6 minima" in gain
    assert "with twice the shift and bias 0.3" in gain
    assert "along symmetric ones 0.233, above 0 in 5 of 6 minima; train loss there -0.25" in test


@pytest.mark.parametrize("names", [{"kind": "sign"}, {"solution": "swa"}, {"status": "symmetric"}])
def test_without_asymmetric_directions_there_is_no_such_claim(names):
    assert judge(theory_measured=measured(*[[(0.1, 0.1)]] * 6, **names)) == {}
