"""Experiment 13."""

import math

import pandas as pd
import pytest
from claim_tables import EMPTY, searched
from figure_tables import fill, through_parquet
from valleys import claims
from valleys.results import stats

CLAIM = "asymmetric_direction_is_found"


def judge(table, **options):
    rows = claims.judge({**EMPTY, "searches": table}, **options)
    return {row["scope"]: row for row in rows if row["claim"] == CLAIM}


@pytest.mark.parametrize(
    ("hits", "n", "verdict"),
    [
        (12, 12, "supported"),  # Wilson: 12 / (12 + 1.96^2) = 0.757 from below
        (11, 12, "inconclusive"),
        (11, 11, "inconclusive"),  # 0.741
        (3, 12, "refuted"),
        (6, 12, "refuted"),  # 0.746 from above
        (7, 12, "inconclusive"),
        (20, 20, "supported"),
        (19, 20, "supported"),  # 0.764
        (18, 20, "inconclusive"),
        (0, 2, "refuted"),
        (0, 1, "inconclusive"),
    ],
)
def test_rule(hits, n, verdict):
    row = judge(searched(*[True] * hits, *[False] * (n - hits)))["d/m/r/search"]
    interval = stats.wilson(hits, n)
    assert (row["low"], row["effect"], row["high"]) == (interval.low, hits / n, interval.high)
    assert (row["verdict"], row["n"], row["experiment"]) == (verdict, n, 13)
    assert row["rule"] == "supported: interval above 0.75; refuted: below 0.75"
    assert (f"{n} minima cannot support it; 12 can" in row["note"]) == (n < 12)


def test_the_least_number_of_minima_follows_the_level():
    assert "1 minima cannot support it; 9 can" in judge(searched(True), level=0.9)["search"]["note"]
    few = searched(*[True] * 9)
    assert judge(few, level=0.9)["search"]["verdict"] == "supported"
    assert judge(few, level=0.95)["search"]["verdict"] == "inconclusive"


def test_all_settings_together_and_each():
    table = pd.concat([
        searched(*[True] * 7), searched(*[True] * 5, *[False] * 3).assign(model="n"),
        searched(False, False, probe="other"),
    ])  # fmt: skip
    found = {scope: (row["effect"], row["n"], row["verdict"]) for scope, row in judge(table).items()}
    assert found == {
        "other": (0.0, 2, "refuted"),
        "d/m/r/other": (0.0, 2, "refuted"),
        "search": (0.8, 15, "inconclusive"),
        "d/m/r/search": (1.0, 7, "inconclusive"),
        "d/n/r/search": (0.625, 8, "inconclusive"),
    }
    assert judge(table)["search"]["note"].startswith("settings: 2; ")


def test_one_direction_a_minimum_at_sgd_that_is_asymmetric_is_what_counts():
    hit = searched(True, True)
    others = [
        searched(False, False).assign(k=1),
        searched(False, False, solution="swa"),
        searched(None, None, probe="flattest").assign(seek="flat"),
    ]
    assert judge(pd.concat([hit, *others])) == judge(hit)
    own = pd.concat([hit, searched(False, False, solution="mine")])
    assert judge(own)["d/m/r at mine/search"]["effect"] == 0.0
    assert (judge(own)["search"]["effect"], judge(own)["search"]["n"]) == (0.5, 4)


def test_note():
    table = searched(
        *[True] * 3, False, test_status=["asymmetric"] * 2 + ["symmetric", "asymmetric"],
        test_flat_rise=[0.1, 0.09, 0.5, 0.5], judge_c_star=[2.5, 3.0, 4.0, math.nan],
    )  # fmt: skip
    table.loc[1, "start_status"] = "asymmetric"
    note = judge(table)["d/m/r/search"]["note"]
    assert "of those found, asymmetric on test images too: 1 of 3" in note
    assert "asymmetric among the random directions that the ascents began at: 1 of 8" in note
    assert "median c* on unseen train images 3;" in note
    assert "rise 1 nats; batch norm frozen; a miss is no proof that there is none" in note


def test_nothing_found_and_nothing_measured():
    note = judge(searched(False, False, judge_c_star=math.nan))["search"]["note"]
    assert "test images" not in note
    assert "nan" not in note
    note = judge(searched(True, True, test_status=None, test_flat_rise=None))["search"]["note"]
    assert "not measured on test images" in note


def test_a_table_as_the_workflow_reads_it(tmp_path):
    """Nulls of restarts that were not chosen are no hits and no errors."""
    about = {"dataset": "d", "model": "m", "recipe": "r", "solution": "sgd", "probe": "search", "rise": 1.0}
    about |= {"seek": "asymmetric", "floor": 0.1, "bn_policy": "none", "start_status": "symmetric"}
    rows = []
    for seed in range(12):
        lost = dict.fromkeys(("found", "judge_c_star", "judge_status", "test_status"))
        rows.append(fill("searches", **about, seed=seed, restart=0, chosen=False, **lost))
        won = {"found": True, "judge_c_star": 4.0, "test_status": "asymmetric", "test_flat_rise": 0.3}
        rows.append(fill("searches", **about, seed=seed, restart=1, chosen=True, **won))
    row = judge(through_parquet(tmp_path, {"searches": rows})["searches"])["search"]
    assert (row["verdict"], row["n"], row["effect"]) == ("supported", 12, 1.0)
    assert "test images too: 12 of 12" in row["note"]
