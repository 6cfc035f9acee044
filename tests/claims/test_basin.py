"""Experiment 6: lines and paths between cells."""

import math

import numpy as np
import pandas as pd
import pytest
from claim_tables import SWA, T, bumps, by_claim, deciding, line
from valleys.claims import basin
from valleys.claims.settings import Settings

BARRIERS = {
    "clearly above": ((0.5, 0.6, 0.55, 0.5, 0.7, 0.4), "above"),
    "clearly below": ((0.01, 0.02, 0.015, 0.01, 0.0, 0.03), "below"),
    "none at all": ((0.0,) * 6, "below"),
    "a valley instead": ((-0.5, -0.4, -0.6, -0.1, -0.2, -0.3), "below"),  # a barrier is never below 0
    "between": ((0.05, 0.15, 0.1, 0.06, 0.14, 0.12), "unclear"),
    "above on average only": ((0.0, 0.5, 0.4, 0.0, 0.0, 0.01), "unclear"),
    "too few": ((5.0,) * 5, "undecidable"),
    "one seed": ((5.0,), "undecidable"),
}
VERDICTS = {"unclear": "inconclusive", "undecidable": "not decidable"}


def judge(table, **settings):
    return by_claim(basin.judge, Settings(**settings), interpolation=table)


@pytest.mark.parametrize("what", BARRIERS)
@pytest.mark.parametrize(
    ("claim", "joins", "path", "supported_when"),
    [
        ("one_basin", "recipe", "linear", "below"),
        ("seeds_are_apart", "seed", "linear", "above"),
        ("seeds_are_connected", "seed", "bezier", "below"),
        ("solutions_are_connected", "recipe", "chain", "below"),
        ("solutions_are_connected", "cell", "bezier", "below"),
    ],
)
def test_the_barrier(what, claim, joins, path, supported_when):
    heights, side = BARRIERS[what]
    t = T if path == "linear" else np.linspace(0, 1, 11)
    stop = {"stop": "descent"} if joins == "cell" else {}
    rows = judge(bumps(*heights, joins=joins, t=t, path=path, **stop))
    row = rows[claim]
    assert row["verdict"] == VERDICTS.get(side, "supported" if side == supported_when else "refuted")
    # The grid of straight lines here has t = 0.5 only between the ends: that is where the bump is greatest.
    assert row["effect"] == pytest.approx(max(0, np.mean(heights)))
    assert (row["n"], row["unit"], row["experiment"]) == (len(heights), "nats", 6)
    assert row["scope"] == "d/m/r/between"
    assert not row["low"] < 0
    assert f"test-loss barrier {max(0, 2 * np.mean(heights)):.3g} nats" in row["note"]
    assert {row["number"] for row in rows.values()} == {9}
    assert deciding(rows) == {"one_basin"} & {claim}


def test_the_barrier_that_counts_as_none_is_the_configs():
    table = bumps(0.5, 0.6, 0.55, 0.5, 0.6, 0.55)
    verdicts = []
    for threshold in (0.1, 0.55, 1.0):
        row = judge(table, barrier=threshold)["one_basin"]
        verdicts.append(row["verdict"])
        assert f"below {threshold:g}" in row["rule"]
    assert verdicts == ["refuted", "inconclusive", "supported"]


def test_the_note_says_what_is_joined_and_how():
    straight = bumps(2.0, 3.0, joins="seed")
    elsewhere = bumps(9.0, 9.0, joins="seed", line="other", start="sgd", stop="sgd")
    path = bumps(0.01, 0.02, joins="seed", t=np.linspace(0, 1, 5), path="bezier", line="curve")
    rows = judge(pd.concat([elsewhere, straight, path]))
    note = rows["seeds_are_connected"]["note"]
    assert "from swa to swa of the next seed (0-1, 1-2)" in note
    assert "bezier path; on the straight line 2.5 nats (mean)" in note
    assert "neighbouring pairs share a seed" in note
    note = judge(bumps(0.1, 0.2))["one_basin"]["note"]
    assert "from swa to swa of recipe wide" in note
    assert "straight" not in note
    assert "share a seed" not in note


def test_losses_between_the_ends_that_are_not_finite_are_left_out_and_counted():
    table = bumps(*[0.5, 0.6] * 3, 0.5).reset_index(drop=True)
    inside = table.index[(table["t"] == 0.5) & (table["seed"] == 6)]
    table.loc[inside, "train_loss"] = np.inf
    table.loc[table["t"] > 2.5, ["train_loss", "test_loss"]] = np.nan  # beyond the ends: no matter
    row = judge(table)["one_basin"]
    assert (row["verdict"], row["n"], row["effect"]) == ("refuted", 6, pytest.approx(0.55))
    assert "left out, not finite: 1" in row["note"]
    assert row["p_against"] is not None
    table["train_loss"] = np.nan
    row = judge(table)["one_basin"]
    assert (row["verdict"], row["n"]) == ("not decidable", 0)


@pytest.mark.parametrize(("low", "high"), [(0.01, 0.02), (0.05, 0.08)])
def test_no_barrier_is_not_supported_by_leaving_out_one_without_end(low, high):
    table = bumps(*[low, high] * 3, low).reset_index(drop=True)
    assert judge(table)["one_basin"]["verdict"] == "supported"
    table.loc[(table["t"] == 0.5) & (table["seed"] == 6), "train_loss"] = np.inf
    row = judge(table)["one_basin"]
    assert (row["verdict"], row["p_for"], row["n"]) == ("not decidable", None, 6)
    assert row["note"].startswith("a loss that is not finite puts 1 of 7 on the other side; ")
    apart = bumps(*[0.5, 0.6] * 3, 0.5, joins="seed").reset_index(drop=True)
    apart.loc[(apart["t"] == 0.5) & (apart["seed"] == 6), "train_loss"] = np.inf
    assert judge(apart)["seeds_are_apart"]["verdict"] == "supported"  # which needs none left out


def sided(*ratios, least=0.5, t=T):
    """One line a seed to another recipe, least at t = `least`, rising so many times as steeply beyond it."""
    table = []
    for seed, ratio in enumerate(ratios):
        train = np.where(t > least, ratio, 1.0) * np.abs(t - least)
        table.append(line(train, train, seed=seed, t=t, line="between", **SWA, stop_recipe="wide"))
    return pd.concat(table)


@pytest.mark.parametrize(
    ("ratios", "verdict", "effect", "towards"),
    [
        ([4] * 6, "supported", 1.0, "swa (t < m) in 0, towards swa of recipe wide (t > m) in 6"),
        ([0.25] * 6, "supported", 1.0, "swa (t < m) in 6, towards swa of recipe wide (t > m) in 0"),
        (
            [2, 0.5, 4, 0.25, 2, 2],
            "supported",
            1.0,
            "swa (t < m) in 2, towards swa of recipe wide (t > m) in 4",
        ),
        ([1.5] * 6, "refuted", 0.0, "swa (t < m) in 0, towards swa of recipe wide (t > m) in 0"),
        ([4, 4, 4, 1, 1, 1], "inconclusive", 0.5, "in 3"),
        ([4, 4, 4, 4, 4], "not decidable", 1.0, "in 5"),
        ([0.0] * 6, "supported", 1.0, "swa (t < m) in 6"),  # does not rise at all on one side
    ],
)
def test_a_minimum_that_looks_sharp_from_one_side(ratios, verdict, effect, towards):
    row = judge(sided(*ratios))["line_looks_sharp_from_one_side"]
    assert (row["verdict"], row["effect"], row["n"]) == (verdict, effect, len(ratios))
    assert (row["number"], row["decides"]) == (9, False)
    assert towards in row["note"]


def test_sides_are_compared_as_far_as_the_line_reaches_on_both():
    def one(least, t):
        return basin.side_measures(sided(3, least=least, t=t))

    assert one(0.5, T) == pytest.approx({"start": 1.0, "stop": 3.0})
    assert one(2.5, T) == pytest.approx({"start": 0.5, "stop": 1.5})  # it ends at 3
    assert one(0.0, np.linspace(0, 1, 5)) == pytest.approx({"start": math.nan, "stop": math.nan}, nan_ok=True)
    row = judge(pd.concat([sided(4, 4), sided(4, least=-2.0).assign(seed=2, stop_seed=2)]))
    found = row["line_looks_sharp_from_one_side"]
    assert (found["n"], found["effect"]) == (2, 1.0)
    assert "left out: 1" in found["note"]
    assert math.isnan(basin.side_measures(line(0 * T, T).assign(train_loss=np.nan))["start"])
