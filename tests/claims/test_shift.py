"""Experiment 5."""

import math

import numpy as np
import pandas as pd
import pytest
from claim_tables import by_claim, deciding, judged, shifted
from valleys.claims import shift
from valleys.claims.settings import Settings

SHIFTED = ("test_loss_is_shifted", "test_loss_is_shifted_and_lifted")


def judge(**tables):
    return by_claim(shift.judge, Settings(probes={"uniform": {"rise": 2.0}}), **tables)


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ([(0.6, 0.8)] * 6, "supported"),
        ([(0.4, 0.2)] * 6, "refuted"),
        ([(0.6, 0.8)] * 5, "not decidable"),
        ([(0.6, 0.8)] * 5 + [(0.1, 0.2)], "inconclusive"),
        ([(0.5, 0.5)] * 8, "inconclusive"),
        # Of 60 directions 54 lose more than half, but in each minimum the mean is below one half.
        ([(0.51,) * 9 + (0.0,)] * 6, "refuted"),
    ],
)
def test_share_of_the_gap_that_a_shift_removes(shares, verdict):
    rows = judge(**shifted(*shares))
    means = [np.mean(row) for row in shares]
    for claim in SHIFTED:
        row = rows[claim]
        assert (row["verdict"], row["n"], row["experiment"]) == (verdict, len(shares), 5)
        assert row["effect"] == pytest.approx(np.mean(means))
        assert row["low"] <= row["effect"] <= row["high"]
        assert (row["scope"], row["number"], row["decides"]) == ("d/m/r/uniform", 7, False)
        assert "at a rise of 2 nats" in row["note"]
        assert "above 0.5" in row["rule"]
        assert f"directions a minimum: {len(shares[0])}" in row["note"]


def test_b_fixed_and_b_free_are_judged_apart():
    rows = judge(**shifted(*[(0.2,)] * 6, free=[(0.9,)] * 6))
    assert [rows[claim]["verdict"] for claim in SHIFTED] == ["refuted", "supported"]
    assert "the constant alone removes 75% of the gap" in rows[SHIFTED[1]]["note"]
    assert "|delta*| is 0.1 R (median), at the bound of R/4 in 0" in rows[SHIFTED[0]]["note"]
    assert (
        "at the bound of R/4 in 6"
        in judge(**shifted(*[(0.2,)] * 6, deltas=[(-0.25,)] * 6))[SHIFTED[0]]["note"]
    )


def test_the_shift_is_judged_at_sgd_and_by_probe():
    parts = [
        shifted(*[(0.9,)] * 6),
        shifted(*[(0.1,)] * 6, solution="swa"),
        shifted(*[(0.1,)] * 6, probe="other"),
        shifted(*[(0.1,)] * 6, probe="s", kind="sign"),
    ]
    data = {name: pd.concat([part[name] for part in parts]) for name in ("shift", "asymmetry")}
    rows = [row for row in judged(shift.judge, **data) if row["claim"] == SHIFTED[0]]
    assert [(row["scope"], row["verdict"]) for row in rows] == [
        ("d/m/r/other", "refuted"),
        ("d/m/r/uniform", "supported"),
    ]


def test_no_gap_and_curves_that_are_not_finite_count_for_nothing():
    data = shifted(*[(0.9, 0.8, 0.7)] * 6)
    for table, columns in (("shift", ["gap"]), ("asymmetry", ["shift", "shift_gap", "shift_free_gap"])):
        rows = data[table]
        rows.loc[rows["k"] == 1, columns] = math.nan
        rows.loc[rows["k"] == 2, [c for c in columns if "gap" in c]] = 0.0
    row = judge(**data)[SHIFTED[0]]
    assert (row["verdict"], row["effect"]) == ("supported", pytest.approx(0.9))
    assert "directions without a finite gap, left out: 12" in row["note"]


LEANS = {
    "to the flatter side": ([(0.1, 0.1, 0.1)] * 8, "refuted"),
    "to the steeper": ([(-0.1, -0.1, -0.1)] * 8, "refuted"),
    # One of three directions more to a side: a lean of a third, at every minimum.
    "little": ([(0.1, 0.1, -0.1)] * 8, "supported"),
    "to both": ([(0.1, 0.1, -0.1), (-0.1, 0.1, -0.1)] * 6, "supported"),
    "half of the minima one way": ([(0.1, 0.1, 0.1), (0.1, -0.1, -0.1)] * 3, "inconclusive"),
    "to no side": ([(0.0, 0.0, 0.0)] * 6, "supported"),
    "of one minimum": ([(0.1, 0.1, 0.1)], "not decidable"),
}


@pytest.mark.parametrize("what", LEANS)
@pytest.mark.parametrize("flat", [1, -1])
def test_symmetry_of_the_shift(what, flat):
    lean, verdict = LEANS[what]
    data = shifted(*[(0.5,) * 3] * len(lean), deltas=flat * np.array(lean), flat=flat)
    rows = judge(**data)
    row = rows["shift_is_symmetric"]
    assert (row["verdict"], row["n"], row["number"]) == (verdict, len(lean), 7)
    assert row["effect"] == pytest.approx(np.mean(np.sign(lean)))
    assert "within -0.5 and 0.5" in row["rule"]
    towards, moved = (np.array(lean) > 0).sum(), (np.array(lean) != 0).sum()
    assert f"of directions, {towards} of {moved} with b = 0" in row["note"]
    assert deciding(rows) == set()


def test_a_minimum_none_of_whose_curves_has_a_shift_is_left_out():
    data = shifted(*[(0.5, 0.5)] * 7)
    lost = data["asymmetry"]["seed"] == 6
    data["asymmetry"].loc[lost, "shift"] = math.nan
    row = judge(**data)["shift_is_symmetric"]
    assert row["n"] == 6
    assert "left out, not finite: 1" in row["note"]
