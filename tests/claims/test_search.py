"""Experiment 13."""

import math

import pandas as pd
import pytest
from claim_tables import judged, searched
from figure_tables import fill, through_parquet
from valleys.claims import search
from valleys.claims.settings import Settings

CLAIM, OF_MLPS = "asymmetric_direction_is_found", "asymmetric_direction_of_mlps_is_found"
PROBES = {"search": {"rise": 2.0, "bn": "frozen"}, "other": {"rise": 1.0, "bn": "frozen"}}
SETTINGS = Settings(probes=PROBES, archs={"m": "mlp", "n": "resnet8"})


def judge(table, claim=CLAIM, settings=SETTINGS):
    rows = judged(search.judge, settings, searches=table)
    return {row["scope"]: row for row in rows if row["claim"] == claim}


@pytest.mark.parametrize(
    ("hits", "n", "verdict"),
    [
        (13, 13, "supported"),  # (3/4)^13 = 0.024
        (12, 12, "inconclusive"),
        (0, 3, "refuted"),  # (1/4)^3 = 0.016
        (0, 2, "not decidable"),
        (2, 2, "not decidable"),
        (38, 40, "supported"),
        (36, 40, "inconclusive"),
        (6, 12, "inconclusive"),
        (20, 40, "refuted"),
    ],
)
def test_rule(hits, n, verdict):
    row = judge(searched(*[True] * hits, *[False] * (n - hits)))["d/m/r/search"]
    assert (row["effect"], row["n"], row["experiment"]) == (hits / n, n, 13)
    assert row["verdict"] == verdict
    assert (row["n_needed"] is None) == (verdict in ("supported", "refuted"))
    assert row["rule"] == "supported: mean above 0.75, p <= 0.025; refuted: below it"


@pytest.mark.parametrize(("hits", "n", "needed"), [(12, 12, 13), (2, 2, 3)])
def test_a_row_that_is_not_decided_says_how_many_minima_it_takes(hits, n, needed):
    assert judge(searched(*[True] * hits))["d/m/r/search"]["n_needed"] == needed > n


def test_all_settings_together_and_each():
    table = pd.concat([
        searched(*[True] * 7), searched(*[True] * 5, *[False] * 3).assign(model="n"),
        searched(False, False, False, probe="other"),
    ])  # fmt: skip
    found = {scope: (row["effect"], row["n"], row["verdict"]) for scope, row in judge(table).items()}
    assert found == {
        "all settings/other": (0.0, 3, "refuted"),
        "d/m/r/other": (0.0, 3, "refuted"),
        "all settings/search": (0.8, 15, "inconclusive"),
        "d/m/r/search": (1.0, 7, "inconclusive"),
        "d/n/r/search": (0.625, 8, "inconclusive"),
    }
    row = judge(table)["all settings/search"]
    assert "settings: 2; " in row["note"]


def test_what_decides():
    """All settings at the headline rise, for the claim about all nets and for that about MLPs."""
    table = pd.concat([searched(True), searched(True).assign(model="n"), searched(True, probe="other")])
    rows = judged(search.judge, SETTINGS, searches=table)
    assert [(row["claim"], row["scope"], row["number"], row["n"]) for row in rows if row["decides"]] == [
        (CLAIM, "all settings/search", 1, 2), (OF_MLPS, "all settings/search", 3, 1),
    ]  # fmt: skip
    assert {row["number"] for row in rows if row["claim"] == CLAIM} == {1}
    assert not any(row["decides"] for row in judged(search.judge, Settings(), searches=table))


@pytest.mark.parametrize(
    ("hits", "n", "verdict"), [(13, 13, "supported"), (2, 13, "refuted"), (9, 13, "inconclusive")]
)
def test_mlps(hits, n, verdict):
    other = searched(*[hits < 9] * 20).assign(model="n")
    table = pd.concat([searched(*[True] * hits, *[False] * (n - hits)), other])
    row = judge(table, OF_MLPS)["all settings/search"]
    assert (row["verdict"], row["n"]) == (verdict, n)
    assert judge(other, OF_MLPS) == {}


def test_one_direction_a_minimum_at_sgd_that_is_asymmetric_is_what_counts():
    hit = searched(True, True)
    others = [
        searched(False, False).assign(k=1),
        searched(False, False, solution="swa"),
        searched(None, None, probe="flattest").assign(seek="flat"),
    ]
    assert judge(pd.concat([hit, *others])) == judge(hit)
    own = judge(pd.concat([hit, searched(False, False, solution="mine")]))
    assert own["d/m/r at mine/search"]["effect"] == 0.0
    assert (own["all settings/search"]["effect"], own["all settings/search"]["n"]) == (0.5, 4)


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
    assert "at a rise of 1 nats; batch norm frozen; a miss is no proof that there is none" in note


def test_nothing_found_and_nothing_measured():
    note = judge(searched(False, False, judge_c_star=math.nan))["all settings/search"]["note"]
    assert "test images" not in note
    assert "nan" not in note
    table = searched(True, True, test_status=None, test_flat_rise=None)
    assert "not measured on test images" in judge(table)["all settings/search"]["note"]


def test_a_table_as_the_workflow_reads_it(tmp_path):
    """Nulls of restarts that were not chosen are no hits and no errors."""
    about = {"dataset": "d", "model": "m", "recipe": "r", "solution": "sgd", "probe": "search", "rise": 1.0}
    about |= {"seek": "asymmetric", "floor": 0.1, "bn_policy": "none", "start_status": "symmetric"}
    rows = []
    for seed in range(13):
        lost = dict.fromkeys(("found", "judge_c_star", "judge_status", "test_status"))
        rows.append(fill("searches", **about, seed=seed, restart=0, chosen=False, **lost))
        won = {"found": True, "judge_c_star": 4.0, "test_status": "asymmetric", "test_flat_rise": 0.3}
        rows.append(fill("searches", **about, seed=seed, restart=1, chosen=True, **won))
    row = judge(through_parquet(tmp_path, {"searches": rows})["searches"])["all settings/search"]
    assert (row["verdict"], row["n"], row["effect"]) == ("supported", 13, 1.0)
    assert "test images too: 13 of 13" in row["note"]
