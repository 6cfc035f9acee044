"""Below claim 9: barriers between seeds, units as trained and matched, a value a pair."""

import numpy as np
import pandas as pd
import pytest
from claim_tables import CELL, by_claim, judged
from valleys.claims import alignment
from valleys.claims.settings import Settings

APART, JOINED, LOWER = (
    "seeds_are_apart_as_trained",
    "seeds_are_joined_by_alignment",
    "alignment_lowers_barrier",
)
HIGH, LOW = [0.5, 0.7, 0.6, 0.9, 0.8, 0.65], [0.01, 0.0, 0.02, 0.03, 0.01, 0.0]


def table(before, after, **cell):
    rows = []
    for i, (high, low) in enumerate(zip(before, after, strict=True)):
        known = {
            "train_barrier_before": high,
            "train_barrier_after": low,
            "moved": 0.5,
            "bn_policy": "refreshed",
        }
        known |= {"test_barrier_before": 1.0, "test_barrier_after": 0.5, "solution": "sgd"}
        rows.append({**CELL, **cell, "seed": 2 * i, "other_seed": 2 * i + 1, **known})
    return pd.DataFrame(rows)


def of(frame, **settings):
    return by_claim(alignment.judge, Settings(**settings), alignment=frame)


@pytest.mark.parametrize(
    ("before", "after", "verdicts"),
    [
        (HIGH, LOW, ("supported", "supported", "supported")),
        (LOW, HIGH, ("refuted", "refuted", "refuted")),
        (HIGH, HIGH, ("supported", "refuted", "inconclusive")),
    ],
)
def test_barriers_before_and_after(before, after, verdicts):
    rows = of(table(before, after))
    assert tuple(rows[claim]["verdict"] for claim in (APART, JOINED, LOWER)) == verdicts
    assert rows[APART]["effect"] == pytest.approx(np.mean(before))
    assert rows[JOINED]["effect"] == pytest.approx(np.mean(after))
    assert rows[LOWER]["effect"] == pytest.approx(np.mean(after) - np.mean(before))
    for row in rows.values():
        assert (row["n"], row["number"], row["decides"], row["scope"]) == (6, 9, False, "d/m/r")
        assert row["low"] <= row["effect"] <= row["high"]
        assert "pairs of seeds 0-1, 2-3, 4-5" in row["note"]
        assert "units moved 50%" in row["note"]


def test_the_limit_is_that_of_the_config():
    assert of(table(HIGH, LOW), barrier=2.0)[APART]["verdict"] == "refuted"
    assert of(table(HIGH, LOW), barrier=0.001)[JOINED]["verdict"] != "supported"


def test_settings_are_judged_apart_and_a_run_without_has_no_rows():
    both = pd.concat([table(HIGH, LOW, model="a"), table(LOW, HIGH, model="b")])
    rows = judged(alignment.judge, alignment=both)
    found = {row["scope"]: row["verdict"] for row in rows if row["claim"] == LOWER}
    assert found == {"d/a/r": "supported", "d/b/r": "refuted"}
    assert judged(alignment.judge, alignment=None) == []
