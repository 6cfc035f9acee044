"""Rows of all judges say where the solutions that they are about are no minima."""

import math

import pandas as pd
import pytest
from claim_tables import (
    ALL_SIX,
    EMPTY,
    KEPT,
    asymmetry,
    descents,
    judge,
    measured,
    searched,
    signed,
    solutions,
    towards,
)
from study_claims import DECAY, norms
from study_tables import minimum, table
from valleys import claims
from valleys.claims.settings import Settings

PROBES = {
    name: {"rise": 2.0, "bn": "refreshed", "seek": seek}
    for name, seek in {"uniform": "", "search": "asymmetric", "even": "symmetric"}.items()
}
SETTINGS = Settings(probes=PROBES)
SIX = range(6)


def tables():
    """Six seeds of one cell: directions drawn, by sign, searched, and what is measured along them."""
    signs, sides = signed(*[[(0.625, 1.0)]] * 6), towards(*[(0.5,)] * 6, probe="search")
    along = [measured(*[[KEPT]] * 6, probe=probe, kind="searched") for probe in ("search", "even")]
    drawn = asymmetry(*[("asymmetric",)] * 6)
    return {
        "asymmetry": pd.concat([drawn, signs["asymmetry"], sides["asymmetry"]]),
        "directions": pd.concat([signs["directions"], sides["directions"]]),
        "searches": searched(*[True] * 6),
        "theory_measured": pd.concat(along),
        "solutions": solutions(ALL_SIX),
    }


ABOUT_SGD = {
    "random_directions_are_asymmetric", "directions_are_asymmetric", "rises_are_uneven",
    "matching_signs_flattens", "asymmetric_direction_is_found", "bias_gains_on_found_directions",
    "bias_gains_more_than_on_symmetric", "bias_lowers_test_loss", "swa_on_flat_side_of_found",
    "swa_train_loss_sgd", "swa_test_loss_sgd", "swa_test_accuracy_sgd",
}  # fmt: skip


def test_each_row_about_sgd_minima_counts_those_that_are_none():
    given = tables()
    gain = pd.Series(0.001, given["solutions"].index)
    gain[(given["solutions"]["solution"] == "sgd") & (given["solutions"]["seed"] < 2)] = 0.02
    rows = judge(SETTINGS, **given | {"solutions": given["solutions"].assign(gradient_gain=gain)})
    told = {claim for claim, row in rows.items() if "no minimum: 2 of 6 sgd solutions" in row["note"]}
    assert told == ABOUT_SGD
    assert [row["note"].count("no minimum") for row in rows.values()] == [c in ABOUT_SGD for c in rows]
    plain = judge(SETTINGS, **given)
    assert {c: row["verdict"] for c, row in rows.items()} == {c: row["verdict"] for c, row in plain.items()}
    assert not any("no minimum" in row["note"] for row in plain.values())


def test_a_user_s_own_weights_are_told_of_as_well():
    given = {"asymmetry": asymmetry(*[("asymmetric",)] * 6, solution="mine")}
    own = solutions(ALL_SIX).query("solution == 'sgd'").assign(solution="mine", gradient_gain=0.02)
    row = judge(SETTINGS, **given, solutions=own)["directions_are_asymmetric"]
    assert row["scope"] == "d/m/r at mine/uniform"
    assert "no minimum: 6 of 6 sgd solutions" in row["note"]


def of_study(rows, searches=None):
    given = {} if searches is None else {"searches": searches}
    return claims.judge({**EMPTY, **given, "study": table(rows)}, SETTINGS)


@pytest.mark.parametrize("gain", [0.02, 0.001, math.nan, None])
def test_contrasts_of_a_study_count_both_sides(gain):
    rows = norms({"batch": 3.0, "none": 2.0})
    for row in rows:
        row["gradient_gain"] = gain if "none" in row["levels"] else 0.001
    (row,) = [row for row in of_study(rows) if row["claim"] == "bn_makes_asymmetric"]
    assert ("no minimum: 6 of 12 sgd solutions" in row["note"]) == (gain == 0.02)
    assert row["verdict"] == "supported"


def test_untrained_minima_are_left_out_and_not_counted_again():
    rows = norms({"batch": 3.0, "none": 2.0})
    for row in rows:
        lost = "none" in row["levels"] and row["seed"] == 0
        row |= {"gradient_gain": 0.02, "train_accuracy": 0.1 if lost else 0.95}
    (row,) = [row for row in of_study(rows) if row["claim"] == "bn_makes_asymmetric"]
    assert "1 of 12 minima left out" in row["note"]
    assert "no minimum: 11 of 11 sgd" in row["note"]


def test_decay_says_it_once_a_row():
    rows = []
    for decay in (0, 0.005):
        for seed in SIX:
            about = {"model": "m", "recipe": f"r{decay}", "gradient_gain": 0.02 if decay else 0.001}
            rows += minimum({DECAY: decay}, seed, (2.0, -2.0), swa_gain=0.1, swa_gain_sgd=0.1, **about)
    looked_for = [
        searched(*[True] * 6).assign(dataset="digits", model="m", recipe=f"r{decay}") for decay in (0, 0.005)
    ]
    notes = {}
    for row in of_study(rows, pd.concat(looked_for)):
        notes.setdefault(row["claim"], []).append(row["note"])
    assert max(note.count("no minimum") for told in notes.values() for note in told) == 1
    for claim, count in {
        "asymmetric_direction_is_found_with_decay": "6 of 12",
        "l2_does_not_change_asymmetry": "6 of 12",
        "asymmetric_direction_is_found": "6 of 12",
        "asymmetry_survives_l2": "6 of 6",
        "swa_gain_sgd": "6 of 6",
    }.items():
        assert any(f"no minimum: {count} sgd" in note for note in notes[claim]), notes[claim]
    assert "no minimum" not in "".join(notes["swa_gain"])  # it is about descent


@pytest.mark.parametrize(("rise", "told"), [(0.13, True), (0.005, False), (-0.2, False)])
def test_rows_tell_where_refreshing_made_another_network(rise, told):
    given = tables()
    trained = descents(*[[(0.0, 0.0)]] * 6).query("phase == 'descent'").assign(phase="cooldown")
    own = given["solutions"].assign(gradient_gain=0.001)
    own.loc[own["solution"] == "sgd", "test_loss"] = 0.5 + rise + 0.01 * own["seed"] - 0.025
    rows = judge(SETTINGS, **given | {"training": trained, "solutions": own})
    words = f"with refreshed batch norm the test loss of sgd is {rise:.3g} nats higher (mean)"
    assert {claim for claim, row in rows.items() if words in row["note"]} == (ABOUT_SGD if told else set())
    assert any("with refreshed batch norm" in row["note"] for row in rows.values()) == told


def test_of_a_training_its_last_test_loss_counts():
    given = tables()
    trained = descents(*[[(0.0, 5.0), (0.0, 0.0)]] * 6).query("phase == 'descent'").assign(phase="cooldown")
    more = trained[trained["epoch"] == 0].assign(epoch=9, test_loss=math.nan)  # not measured at each epoch
    own = given["solutions"].assign(test_loss=0.55)
    for training in (trained, pd.concat([more, trained])):
        rows = judge(SETTINGS, **given | {"training": training, "solutions": own})
        assert "sgd is 0.05 nats higher (mean)" in rows["asymmetric_direction_is_found"]["note"]
