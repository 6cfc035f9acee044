"""Experiment 2, and by it the paired rule."""

import math

import numpy as np
import pandas as pd
import pytest
from claim_tables import ALL_SIX, EMPTY, T, bumps, judge, line, solutions
from valleys import claims
from valleys.claims import swa

CASES = {
    "six of six above": (ALL_SIX, "supported", 2 / 64),
    "six of six below": ([-x for x in ALL_SIX], "refuted", 2 / 64),
    "five of five above": (ALL_SIX[:5], "inconclusive", 2 / 32),
    "five of six above": ([-0.9, *ALL_SIX[1:]], "inconclusive", 14 / 64),
    "three of six above": ([-1, 1, -1, 1, -1, 1], "inconclusive", 1.0),
    "six above and one tie": ([*ALL_SIX, 0.0], "supported", 2 / 64),
    "five above and one tie": ([*ALL_SIX[:5], 0.0], "inconclusive", 2 / 32),
    "nine of ten above, mean below": ([0.01] * 9 + [-5.0], "supported", 22 / 1024),
    "all ties": ([0.0] * 8, "inconclusive", 1.0),
    "one seed": ([0.1], "inconclusive", 1.0),
}


@pytest.mark.parametrize("what", CASES)
def test_train_loss_of_swa_above(what):
    differences, verdict, p = CASES[what]
    row = judge(solutions=solutions(differences))["swa_train_loss"]
    assert row["verdict"] == verdict
    assert row["p_value"] == pytest.approx(p)
    assert row["effect"] == pytest.approx(np.mean(differences), abs=1e-12)
    assert (row["n"], row["unit"], row["scope"], row["experiment"]) == (len(differences), "nats", "d/m/r", 2)
    above, below = (np.array(differences) > 0).sum(), (np.array(differences) < 0).sum()
    assert f"above 0 in {above} of {len(differences)} seeds, below in {below}" in row["note"]


@pytest.mark.parametrize(("column", "sign"), [("train_loss", 1), ("test_loss", -1), ("test_accuracy", 1)])
def test_the_claimed_sign(column, sign):
    found = [
        judge(solutions=solutions(s * np.array(ALL_SIX), column))[f"swa_{column}"] for s in (sign, -sign)
    ]
    assert [row["verdict"] for row in found] == ["supported", "refuted"]
    assert (found[0]["effect"] > 0) == (sign > 0)
    assert f"{'above' if sign > 0 else 'below'} 0" in found[0]["rule"]
    others = {"train_loss", "test_loss", "test_accuracy"} - {column}
    rows = judge(solutions=solutions(ALL_SIX, column))
    assert all(rows[f"swa_{other}"]["verdict"] == "inconclusive" for other in others)


def test_too_few_seeds_are_said_to_be_too_few():
    five, six = (judge(solutions=solutions(ALL_SIX[:n]))["swa_train_loss"]["note"] for n in (5, 6))
    assert "5 seeds cannot reach p < 0.05 in a sign test; 6 can" in five
    assert "cannot" not in six


def test_alpha_and_level_are_used():
    data = {**EMPTY, "solutions": solutions(ALL_SIX)}
    strict = claims.judge(data, alpha=0.01)[0]
    assert strict["verdict"] == "inconclusive"
    assert "6 seeds cannot reach p < 0.01 in a sign test; 8 can" in strict["note"]
    wide, narrow = (claims.judge(data, level=level)[0] for level in (0.99, 0.5))
    assert wide["low"] < narrow["low"] < narrow["effect"] < narrow["high"] < wide["high"]


def test_the_interval_is_students():
    row = judge(solutions=solutions([0.1, 0.3]))["swa_train_loss"]
    half = 12.7062 * 0.1  # t(0.975, 1) times sd / sqrt(2), sd = 0.2 / sqrt(2)
    assert (row["low"], row["high"]) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_seed_that_diverged_is_left_out_and_named(bad):
    row = judge(solutions=solutions([*ALL_SIX, bad]))["swa_train_loss"]
    assert (row["verdict"], row["n"]) == ("supported", 6)
    assert "1 seed left out: not finite" in row["note"]


def test_each_cell_is_judged_by_itself():
    both = pd.concat([solutions(ALL_SIX, model="a"), solutions([-x for x in ALL_SIX], model="b")])
    rows = [row for row in claims.judge({**EMPTY, "solutions": both}) if row["claim"] == "swa_train_loss"]
    assert [(row["scope"], row["verdict"]) for row in rows] == [("d/a/r", "supported"), ("d/b/r", "refuted")]


def test_line_measures_on_a_known_line():
    # Train loss (t - 1)^2, steeper beyond 1: at t = 2 it is 1.5, at t = 0 it is 1. Test is least at t = 0.5.
    train = np.where(T > 1, 1.5, 1.0) * (T - 1) ** 2
    found = swa.line_measures(line(train, (T - 0.5) ** 2))
    assert found == pytest.approx({"mirror": 0.5, "argmin": -0.5})
    shuffled = line(train, (T - 0.5) ** 2).sample(frac=1, random_state=0)
    assert swa.line_measures(shuffled) == pytest.approx(found)


def test_the_mirror_image_is_about_the_lines_minimum_wherever_it_lies():
    # Least at 1.5 and steeper beyond: at t = 3 it is 1.5 * 2.25, at swa 2.25.
    train = np.where(T > 1.5, 1.5, 1.0) * (T - 1.5) ** 2
    assert swa.line_measures(line(train, train))["mirror"] == pytest.approx(0.5 * 2.25)
    # Least at 2: the line ends one step beyond, so both points are at distance 1.
    train = np.where(T > 2, 3.0, 1.0) * (T - 2) ** 2
    assert swa.line_measures(line(train, train))["mirror"] == pytest.approx(2.0)


def test_a_line_without_a_minimum_beyond_swa_has_no_mirror_image():
    short = np.linspace(0, 1.5, 7)
    for falling in (short, -short):  # least at swa, least at the end
        assert math.isnan(swa.line_measures(line(falling, falling, t=short))["mirror"])
    rows = judge(interpolation=pd.concat(line(short, short, seed=s, t=short) for s in range(6)))
    assert "swa_on_flat_side" not in rows
    assert rows["test_minimum_towards_swa"]["n"] == 6


@pytest.mark.parametrize(("steep", "least", "verdicts"), [
    (1.5, 0.5, ("supported", "supported")),
    (0.5, 1.5, ("refuted", "refuted")),
    (1.0, 1.0, ("inconclusive", "inconclusive")),
])  # fmt: skip
def test_verdicts_on_the_line(steep, least, verdicts):
    train = np.where(T > 1, steep, 1.0) * (T - 1) ** 2
    table = pd.concat(line(train, (T - least) ** 2, seed=s) for s in range(6))
    other = pd.concat(
        line(-train, -train, seed=s, line="back", start="descent", stop="swa") for s in range(6)
    )
    rows = judge(interpolation=pd.concat([table, other]))
    found = [rows[claim] for claim in ("swa_on_flat_side", "test_minimum_towards_swa")]
    assert tuple(row["verdict"] for row in found) == verdicts
    assert [row["effect"] for row in found] == pytest.approx([steep - 1, least - 1])
    assert all(row["scope"] == "d/m/r/swa-descent" for row in found)
    assert all("BN refreshed on the line" in row["note"] for row in found)


def test_swa_claims_take_straight_lines_within_a_cell_only():
    train = (T - 1) ** 2
    own = pd.concat(line(train, T**2, seed=s) for s in range(6))
    same = {"start": "swa", "stop": "descent"}
    others = [bumps(*[1.0] * 6, joins=joins, line=f"x-{joins}", **same) for joins in ("recipe", "seed")] + [
        bumps(*[1.0] * 6, joins="cell", line="x-path", path="bezier", t=np.linspace(0, 1, 5), **same)
    ]
    rows = claims.judge({**EMPTY, "interpolation": pd.concat([own, *others])})
    swa = [row["scope"] for row in rows if row["experiment"] == 2]
    assert swa == ["d/m/r/swa-descent"] * 2
    assert len([row for row in rows if row["experiment"] == 6]) == 4
