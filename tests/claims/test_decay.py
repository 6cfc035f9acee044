"""Experiment 9: weight decay."""

import numpy as np
import pytest
from study_claims import LEVELS, judge, only
from study_tables import variants


@pytest.mark.parametrize(("sizes", "verdict"), [
    ([2.0] * 6, "supported"), ([0.1] * 6, "refuted"), ([2.0, 0.1] * 3, "inconclusive"),
])  # fmt: skip
def test_asymmetry_survives_l2(sizes, verdict):
    found = judge(variants([(LEVELS[0], 2.0), (LEVELS[1], 2.0), (LEVELS[2], sizes)]))
    rows = {row["scope"]: row for row in found["asymmetry_survives_l2"]}
    assert len(rows) == 3
    row = rows["mine/weight decay 0.005/uniform-far"]
    assert (row["verdict"], row["experiment"], row["n"]) == (verdict, 9, 6)
    assert rows["mine/weight decay 0/uniform-far"]["verdict"] == "supported"


NOISE = np.array([0.01, -0.01, 0.02, -0.02, 0.03, -0.03])
TRENDS = {
    "none": ((2.0, 2.0, 2.0 + NOISE), "supported"),
    "up": ((1.0, 1.5, 2.0 + NOISE), "refuted"),
    "down": ((2.0, 1.5, 1.0 + NOISE), "refuted"),
    "small, one way": ((2.0, 2.0, 2.1 + NOISE), "refuted"),
    "noise": ((2.0, 2.0, 2.0 + 50 * NOISE), "inconclusive"),
    "not a line": ((1.0, 3.0, 1.0 + NOISE), "supported"),
}


@pytest.mark.parametrize("what", TRENDS)
def test_l2_does_not_change_asymmetry(what):
    sizes, verdict = TRENDS[what]
    parts = [(at, list(np.broadcast_to(size, 6))) for at, size in zip(LEVELS, sizes, strict=True)]
    row = only(judge(variants(parts)), "l2_does_not_change_asymmetry")
    assert (row["verdict"], row["experiment"], row["n"]) == (verdict, 9, 6)
    values = np.array([size for _, size in parts])
    change = (values[2] - values[0]) / values.mean(axis=0)  # of three levels the middle one has no weight
    assert row["effect"] == pytest.approx(change.mean())
    assert "refuted: p < 0.05; else supported: interval within" in row["rule"]


def test_few_seeds_show_no_absence_of_change():
    row = only(
        judge(variants([(at, [2.0] * 5) for at in LEVELS], seeds=range(5))), "l2_does_not_change_asymmetry"
    )
    assert (row["verdict"], row["n"]) == ("inconclusive", 5)
    assert "6 can" in row["note"]


def test_a_seed_without_all_levels_has_no_trend():
    rows = variants([(at, 2.0) for at in LEVELS])
    for row in rows[-2:]:
        row["train_accuracy"] = 0.1
    row = only(judge(rows), "l2_does_not_change_asymmetry")
    assert row["n"] == 5
    assert "seeds without a trained minimum at each level, left out: 1" in row["note"]
    assert "1 of 18 minima left out" in row["note"]


@pytest.mark.parametrize(("same", "verdict"), [(12, "supported"), (0, "refuted"), (6, "inconclusive")])
def test_penalty_leaves_verdicts(same, verdict):
    rows = variants([(at, 2.0) for at in LEVELS[:2]])
    more = variants([(LEVELS[1], 2.0)], penalty=True)
    for row in more[same:]:
        row["status"] = "not_minimum"
    row = only(judge(rows + more), "penalty_leaves_verdicts")
    assert (row["verdict"], row["n"], row["effect"]) == (verdict, 12, same / 12)
    assert row["scope"] == "mine/weight decay 0.0005/uniform-far"
    assert same == 12 or f"{12 - same} from asymmetric to not minimum" in row["note"]
