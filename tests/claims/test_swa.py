"""Experiment 2: SWA's losses, and its side of a valley; and by them the rule mean."""

import math

import numpy as np
import pandas as pd
import pytest
from claim_tables import ALL_SIX, T, bumps, by_claim, deciding, judged, line, solutions, towards
from valleys.claims import swa
from valleys.claims.settings import Settings

CASES = {
    "six of six above": (ALL_SIX, "supported", 2 / 64),
    "six of six below": ([-x for x in ALL_SIX], "refuted", 2 / 64),
    "five of five above": (ALL_SIX[:5], "not decidable", 2 / 32),
    "one far below": ([-0.9, *ALL_SIX[1:]], "inconclusive", 1.0),
    "three of six above": ([-1, 1, -1, 1, -1, 1], "inconclusive", 1.0),
    "all ties": ([0.0] * 8, "inconclusive", 1.0),
    "one seed": ([0.1], "not decidable", 1.0),
}
FOUR = {f"swa_{split}_loss_{other}" for split in ("train", "test") for other in ("descent", "sgd")}


def of(*data, **settings):
    """Rows by claim of tables that are given as dicts."""
    tables = {name: table for part in data for name, table in part.items()}
    return by_claim(swa.judge, Settings(**settings), **tables)


@pytest.mark.parametrize("what", CASES)
def test_train_loss_of_swa_above(what):
    differences, verdict, p = CASES[what]
    for other in ("descent", "sgd"):
        row = of({"solutions": solutions(differences)})[f"swa_train_loss_{other}"]
        assert row["verdict"] == verdict
        assert row["p_value"] == pytest.approx(p)
        assert row["effect"] == pytest.approx(np.mean(differences), abs=1e-12)
        assert (row["n"], row["unit"], row["scope"]) == (len(differences), "nats", "d/m/r")
        assert (row["experiment"], row["number"], row["decides"]) == (2, 8, True)
        assert other in row["measure"]


@pytest.mark.parametrize(("column", "sign"), [("train_loss", 1), ("test_loss", -1), ("test_accuracy", 1)])
def test_the_claimed_sign(column, sign):
    name = f"swa_{column}_descent"
    tables = [{"solutions": solutions(s * np.array(ALL_SIX), column)} for s in (sign, -sign)]
    assert [of(table)[name]["verdict"] for table in tables] == ["supported", "refuted"]
    rows = of(tables[0])
    assert f"{'above' if sign > 0 else 'below'} 0" in rows[name]["rule"]
    others = {"train_loss", "test_loss", "test_accuracy"} - {column}
    assert all(rows[f"swa_{other}_sgd"]["verdict"] == "inconclusive" for other in others)


def test_a_row_tells_where_the_other_solution_is_no_minimum():
    table = solutions(ALL_SIX)
    gain = np.where(table["solution"] == "sgd", 0.02, 0.001)
    rows = of({"solutions": table.assign(gradient_gain=gain)})
    assert "no minimum: 6 of 6 sgd solutions" in rows["swa_train_loss_sgd"]["note"]
    assert "no minimum" not in rows["swa_train_loss_descent"]["note"]
    plain = of({"solutions": table})
    for claim, row in rows.items():
        assert row["verdict"] == plain[claim]["verdict"]


def test_losses_decide_but_of_controls_and_of_a_users_own_weights():
    table = {"solutions": solutions(ALL_SIX)}
    assert deciding(of(table)) == FOUR
    assert deciding(of(table, controls=["d"])) == set()
    assert deciding(of(table, checkpoints=["r"])) == set()
    assert len(of(table, controls=["d"])) == 6


def test_swa_is_compared_with_what_was_made():
    table = solutions(ALL_SIX)
    assert {claim[-4:] for claim in of({"solutions": table[table["solution"] != "descent"]})} == {"_sgd"}
    assert of({"solutions": table[table["solution"] != "swa"]}) == {}


def test_alpha_and_level_are_used():
    table = {"solutions": solutions(ALL_SIX)}
    strict = of(table, alpha=0.01)["swa_train_loss_sgd"]
    assert (strict["verdict"], strict["n_needed"]) == ("not decidable", 8)
    wide, narrow = (of(table, level=level)["swa_train_loss_sgd"] for level in (0.99, 0.5))
    assert wide["low"] < narrow["low"] < narrow["effect"] < narrow["high"] < wide["high"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_seed_that_diverged_is_left_out_and_counted(bad):
    row = of({"solutions": solutions([*ALL_SIX, bad])})["swa_train_loss_sgd"]
    assert (row["verdict"], row["n"]) == ("supported", 6)
    assert "left out, not finite: 1" in row["note"]


def test_each_setting_is_judged_by_itself():
    both = pd.concat([solutions(ALL_SIX, model="a"), solutions([-x for x in ALL_SIX], model="b")])
    rows = judged(swa.judge, **everything(solutions=both))
    found = [(row["scope"], row["verdict"]) for row in rows if row["claim"] == "swa_train_loss_sgd"]
    assert found == [("d/a/r", "supported"), ("d/b/r", "refuted")]


def everything(**tables):
    known = {**towards((1.0,)), "solutions": solutions([0.1]), "interpolation": line(T, T)}
    return {name: table.iloc[:0] for name, table in known.items()} | tables


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
    rows = of({"interpolation": pd.concat(line(short, short, seed=s, t=short) for s in range(6))})
    assert (rows["swa_on_flat_side"]["verdict"], rows["swa_on_flat_side"]["n"]) == ("not decidable", 0)
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
    rows = of({"interpolation": pd.concat([table, other])})
    found = [rows[claim] for claim in ("swa_on_flat_side", "test_minimum_towards_swa")]
    assert tuple(row["verdict"] for row in found) == verdicts
    assert [row["effect"] for row in found] == pytest.approx([steep - 1, least - 1])
    assert all((row["scope"], row["number"]) == ("d/m/r/swa-descent", 6) for row in found)
    assert all("BN refreshed on the line" in row["note"] for row in found)
    assert deciding(rows) == {"swa_on_flat_side"}
    assert deciding(of({"interpolation": table}, controls=["d"])) == set()


def test_swa_claims_take_straight_lines_within_a_cell_only():
    same = {"start": "swa", "stop": "descent"}
    others = [bumps(*[1.0] * 6, joins=joins, line=f"x-{joins}", **same) for joins in ("recipe", "seed")] + [
        bumps(*[1.0] * 6, joins="cell", line="x-path", path="bezier", t=np.linspace(0, 1, 5), **same)
    ]
    assert of({"interpolation": pd.concat(others)}) == {}


PROBES = {
    "searched": {"rise": 2.0, "seek": "asymmetric"},
    "searched-10": {"rise": 10.0, "seek": "asymmetric"},
    "searched-symmetric": {"rise": 2.0, "seek": "symmetric"},
}
SIDE = "swa_on_flat_side_of_found"


@pytest.mark.parametrize(("offsets", "flat", "verdict"), [
    ([(0.5, 0.3)] * 6, 1, "supported"),
    ([(0.5, 0.3)] * 6, -1, "refuted"),
    ([(-0.5,)] * 6, -1, "supported"),
    ([(0.5, -0.5)] * 6, 1, "inconclusive"),
    ([(0.5,)] * 5, 1, "not decidable"),
    # Two of three directions one way, but their mean is the other.
    ([(0.1, 0.1, -0.9)] * 6, 1, "refuted"),
])  # fmt: skip
def test_the_side_of_the_direction_found(offsets, flat, verdict):
    row = of(towards(*offsets, flat=flat), probes=PROBES)[SIDE]
    assert (row["verdict"], row["n"], row["scope"]) == (verdict, len(offsets), "d/m/r/searched")
    assert row["effect"] == pytest.approx(flat * np.mean(offsets))
    assert (row["number"], row["decides"]) == (6, True)
    assert "at a rise of 2 nats" in row["note"]


def test_which_directions_found_count_and_decide():
    data = towards(*[(0.5,)] * 6)
    assert deciding(of(data, probes=PROBES, controls=["d"])) == set()
    assert not of(towards(*[(0.5,)] * 6, probe="searched-10"), probes=PROBES)[SIDE]["decides"]
    for nothing in (
        towards(*[(0.5,)] * 6, probe="searched-symmetric"),
        towards(*[(0.5,)] * 6, kind="uniform"),
        towards(*[(0.5,)] * 6, solution="swa"),
        towards(*[(0.5,)] * 6, flat=0),
        towards(*[(None,)] * 6),
    ):
        assert of(nothing, probes=PROBES) == {}
