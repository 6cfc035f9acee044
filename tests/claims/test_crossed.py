"""Experiment 11: sampled designs."""

import json

import pytest
from study_claims import FACTORS, judge, only, sample
from study_tables import table
from valleys.claims import judge_twelve
from valleys.results import stats


def test_the_factor_that_matters_is_found():
    found = judge(sample(lambda levels: 1.0 * (levels["model.activation"] == "tanh")))
    verdicts = {
        claim: only(found, claim)["verdict"] for claim in found if claim.endswith("changes_asymmetry")
    }
    assert verdicts == {
        "activation_changes_asymmetry": "supported",
        "loss_changes_asymmetry": "inconclusive",
        "skip_changes_asymmetry": "inconclusive",
    }
    row = only(found, "activation_changes_asymmetry")
    assert (row["n"], row["experiment"], row["unit"]) == (36, 11, "log ratio")
    assert (row["number"], row["decides"]) == (11, True)
    assert row["p_value"] == pytest.approx(3 * 2 * row["p_for"])  # the least of three, by Holm
    assert row["p_against"] == 1.0
    assert row["low"] < row["effect"] < row["high"]
    assert row["effect"] == pytest.approx(1.0, abs=0.15)
    assert "before adjustment" in row["note"]
    everything = only(found, "most_directions_are_asymmetric")
    assert (everything["scope"], everything["n"]) == ("mine/all variants/uniform-far", 36)
    assert (everything["verdict"], everything["effect"], everything["experiment"]) == ("supported", 1.0, 11)
    assert (everything["number"], everything["decides"]) == (11, False)


def test_p_values_are_adjusted_over_the_factors():
    rows = sample(lambda levels: 0.04 * (levels["recipe.loss.name"] == "mse"), start=1)
    found = {c: only(judge(rows), c) for c in judge(rows) if c.endswith("changes_asymmetry")}
    frame = table(rows).drop_duplicates("seed")
    index = frame["asymmetry_index"].abs().round(9)
    levels = {factor: [json.loads(text)[factor] for text in frame["levels"]] for factor in FACTORS}
    plain = [
        stats.factor_test(index.rank(), own, [levels[o] for o in levels if o != factor]).p
        for factor, own in levels.items()
    ]
    assert [row["p_value"] for row in found.values()] == pytest.approx(stats.holm(plain))


def test_the_claim_has_the_least_of_the_adjusted_p_values():
    """Rows carry p before the adjustment: the verdict on the claim pays for their number itself, once."""
    rows = sample(lambda levels: 0.04 * (levels["recipe.loss.name"] == "mse"), start=1)
    found = [row for rows in judge(rows).values() for row in rows]
    factors = [row for row in found if row["decides"]]
    assert len(factors) == len(FACTORS)
    claim = judge_twelve(found, 0.05)[10]
    assert claim["p_value"] == pytest.approx(min(row["p_value"] for row in factors))
    assert 0 < claim["p_value"] < 1


def test_a_strong_factor_does_not_hide_a_weak_one():
    strong = {"mse": 0.0, "focal": 4.0}
    rows = sample(lambda at: strong[at["recipe.loss.name"]] + 0.3 * at["model.skip"])
    found = judge(rows)
    assert only(found, "skip_changes_asymmetry")["verdict"] == "supported"
    assert only(found, "loss_changes_asymmetry")["verdict"] == "supported"
    assert only(found, "activation_changes_asymmetry")["verdict"] == "inconclusive"


def test_adjustment_can_decide():
    """One p just below alpha among three factors is not enough."""
    for start in range(200):
        rows = sample(lambda levels: 0.06 * (levels["recipe.loss.name"] == "mse"), start=start)
        row = only(judge(rows), "loss_changes_asymmetry")
        plain = float(row["note"].split("p = ")[1].split(" ")[0])
        if plain < 0.05 < row["p_value"]:
            assert row["verdict"] == "inconclusive"
            return
    pytest.fail("no such sample")


def test_levels_that_did_not_train_are_named():
    rows = sample(lambda levels: 0.0)
    for row in rows:
        if json.loads(row["levels"])["recipe.loss.name"] == "mse":
            row["train_accuracy"] = 0.1
    row = only(judge(rows), "loss_changes_asymmetry")
    assert (row["verdict"], row["p_value"]) == ("not decidable", None)
    assert "no minimum at mse" in row["note"]
    assert "left out: train accuracy below 0.5" in row["note"]


@pytest.mark.parametrize(("rise", "refused"), [(3.9, False), (4.1, True)])
def test_a_factor_whose_levels_are_at_other_rises_is_refused(rise, refused):
    rows = sample(lambda levels: 1.0 * (levels["model.activation"] == "tanh"))
    for row in rows:
        if json.loads(row["levels"])["model.activation"] == "tanh":
            row["rise"] = rise
    found = judge(rows)
    row = only(found, "activation_changes_asymmetry")
    assert row["verdict"] == ("not decidable" if refused else "supported")
    assert (row["p_for"] is None, "differ more than 2-fold" in row["note"]) == (refused, refused)
    assert only(found, "skip_changes_asymmetry")["verdict"] == "inconclusive"


def test_a_factor_with_a_level_short_of_the_rise_is_refused():
    rows = sample(lambda levels: 1.0 * (levels["model.activation"] == "tanh"))
    for row in rows:
        if json.loads(row["levels"])["model.activation"] == "relu":
            row["radius_status"] = "capped"
    found = judge(rows)
    row = only(found, "activation_changes_asymmetry")
    assert (row["verdict"], row["p_for"]) == ("not decidable", None)
    assert "not comparable: the loss does not rise as asked for along" in row["note"]
    assert only(found, "skip_changes_asymmetry")["verdict"] == "inconclusive"


def test_rows_at_another_rise_stand_beside():
    rows = sample(lambda levels: 0.0)
    row = only(judge(rows, rise=10.0), "skip_changes_asymmetry")
    assert (row["decides"], row["number"]) == (False, 11)
