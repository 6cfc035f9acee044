"""Experiment 10: norms and their initial scales."""

import math

import pytest
from study_claims import PROBES, judge, norms, only
from study_tables import GAUSSIAN, UNIFORM


@pytest.mark.parametrize(("batch", "verdict"), [
    (3.0, "supported"), (1.0, "refuted"), ([1.0, 3.0] * 3, "inconclusive"),
])  # fmt: skip
def test_batch_norm_makes_asymmetric(batch, verdict):
    rows = norms({"batch": batch, "group": 2.0, "none": 2.0})
    rows += norms({"batch": 9.0, "group": 2.0}, probe=UNIFORM | {"probe": "only-bn", "group": "bn"})
    found = judge(rows)["bn_makes_asymmetric"]
    assert [row["scope"] for row in found] == [
        "mine/batch against group/uniform-far", "mine/batch against none/uniform-far",
    ]  # fmt: skip
    assert {(row["verdict"], row["experiment"], row["n"]) for row in found} == {(verdict, 10, 6)}
    assert "one of 2 such comparisons in this study, p not corrected" in found[0]["note"]
    assert {(row["number"], row["decides"]) for row in found} == {(5, True)}


def test_effects_of_batch_norm_are_within_seeds():
    row, _ = judge(norms({"batch": [3, 4, 5, 6, 7, 8], "group": [2, 3, 4, 5, 6, 7], "none": 0.5}))[
        "bn_makes_asymmetric"
    ]
    assert (row["effect"], row["low"], row["high"], row["p_value"]) == pytest.approx((1, 1, 1, 2 / 64))
    assert "asymmetric directions: batch 12 of 12, group 12 of 12" in row["note"]


@pytest.mark.parametrize(("inside", "verdict"), [
    (3.0, "supported"), (1.0, "refuted"), ([1.0, 3.0] * 3, "inconclusive"),
])  # fmt: skip
def test_directions_of_batch_norm(inside, verdict):
    """Within minima with batch norm: the other norm's, where it is the other way, do not count."""
    rows = norms({"batch": inside, "group": 0.1}, probe=UNIFORM | {"probe": "u-bn", "group": "bn"})
    rows += norms({"batch": 2.0, "group": 9.0}, probe=UNIFORM | {"probe": "u-not", "group": "not_bn"})
    row = only(judge(rows), "bn_directions_are_more_asymmetric")
    assert (row["verdict"], row["n"]) == (verdict, 6)
    assert row["scope"] == "mine/batch norm/u-bn against u-not"


@pytest.mark.parametrize(("gaussian", "verdict"), [
    (1.0, "supported"), (3.0, "refuted"), ([1.0, 3.0] * 3, "inconclusive"),
])  # fmt: skip
def test_initial_scales(gaussian, verdict):
    rows = norms({"batch": 2.0, "none": 0.0}, {"uniform": 9.0, "gaussian": gaussian})
    row = only(judge(rows), "bn_init_matters")
    assert (row["verdict"], row["n"], row["experiment"]) == (verdict, 6, 10)
    assert abs(row["effect"]) == pytest.approx(0.0 if verdict == "inconclusive" else 1.0, abs=0.01)


def test_untrained_minima_have_no_part_in_a_comparison():
    rows = norms({"batch": 3.0, "none": 2.0})
    for row in rows[-2:]:
        row |= {"train_accuracy": 0.1, "asymmetry_index": 99.0}
    row = only(judge(rows), "bn_makes_asymmetric")
    assert (row["n"], row["verdict"], row["n_needed"]) == (5, "not decidable", 6)
    assert row["effect"] == pytest.approx(1.0)
    assert "1 of 12 minima left out" in row["note"]


@pytest.mark.parametrize("index", [math.nan, math.inf])
def test_directions_without_an_index_are_counted(index):
    rows = norms({"batch": 3.0, "none": 2.0})
    rows[0]["asymmetry_index"] = index
    row = only(judge(rows), "bn_makes_asymmetric")
    assert row["n"] == 6
    assert "1 of 24 directions without an index" in row["note"]
    for row in rows[:12]:
        row["asymmetry_index"] = index
    row = only(judge(rows), "bn_makes_asymmetric")
    assert (row["n"], row["verdict"]) == (0, "not decidable")
    assert "means: none 2" in row["note"]
    assert "12 of 24 directions without an index" in row["note"]


@pytest.mark.parametrize(("rise", "refused"), [(3.9, False), (4.1, True), (0.9, True)])
def test_nets_at_other_rises_are_not_compared(rise, refused):
    """Medians of 2 nats against another rise: two-fold is still equal."""
    rows = norms({"batch": 3.0}, rise=rise) + norms({"none": 2.0})
    row = only(judge(rows), "bn_makes_asymmetric")
    assert (row["verdict"], row["p_for"] is None) == (
        ("not decidable", True) if refused else ("supported", False)
    )
    assert ("differ more than 2-fold" in row["note"]) == refused
    assert row["decides"]


@pytest.mark.parametrize(("short", "refused"), [(6, False), (7, True)])
@pytest.mark.parametrize("at", ["batch", "none"])
def test_nets_whose_loss_mostly_levels_off_below_the_rise_are_not_compared(at, short, refused):
    """Of 12 directions of each more than a half."""
    rows = norms({"batch": 3.0, "none": 2.0})
    for row in rows[:short] if at == "batch" else rows[-short:]:
        row["radius_status"] = "capped"
    row = only(judge(rows), "bn_makes_asymmetric")
    assert (row["verdict"], row["p_for"] is None) == (
        ("not decidable", True) if refused else ("supported", False)
    )
    assert (f"the loss does not rise as asked for along {short} of 12 of {at}" in row["note"]) == refused


def test_what_decides():
    """Not another rise, kind or group; not scales and not the norm's own parameters."""
    sizes, inits = {"batch": 3.0, "none": 2.0}, {"gaussian": 1.0}
    rows = norms(sizes, inits) + norms(sizes, inits, probe=GAUSSIAN)
    rows += norms(sizes, inits, probe=UNIFORM | {"probe": "u-10"})
    rows += norms(sizes, inits, probe=UNIFORM | {"probe": "u-bn", "group": "bn"})
    rows += norms(sizes, inits, probe=UNIFORM | {"probe": "u-not", "group": "not_bn"})
    found = [row for group in judge(rows).values() for row in group]
    assert {row["scope"] for row in found if row["decides"]} == {"mine/batch against none/uniform-far"}
    assert {row["number"] for row in found} == {5}
    refreshed = PROBES | {"u-10": {"rise": 2.0, "bn": "refreshed"}}
    both = [row["scope"] for row in judge(rows, probes=refreshed)["bn_makes_asymmetric"] if row["decides"]]
    assert both == ["mine/batch against none/u-10", "mine/batch against none/uniform-far"]
