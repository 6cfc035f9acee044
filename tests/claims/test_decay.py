"""Experiment 9: weight decay."""

import numpy as np
import pandas as pd
import pytest
from claim_tables import searched
from study_claims import DECAY, LEVELS, PROBES, judge, only
from study_tables import GAUSSIAN, UNIFORM, variants


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
CHANGES = {
    "none": ((2.0, 2.0, 2.0 + NOISE), "supported"),
    "up": ((1.0, 1.5, 2.0 + NOISE), "refuted"),
    "down": ((2.0, 1.5, 1.0 + NOISE), "refuted"),
    "small, one way": ((2.0, 2.0, 2.1 + NOISE), "supported"),  # clearly there, and little
    "on the edge": ((2.0, 2.0, 2.57 + 2 * NOISE), "inconclusive"),  # 0.57 / 2.285 = 0.249
    "noise": ((2.0, 2.0, 2.0 + 50 * NOISE), "inconclusive"),
    "there and back": ((1.0, 3.0, 1.0 + NOISE), "supported"),
}


def leveled(sizes, **values):
    parts = [(at, list(np.broadcast_to(size, 6))) for at, size in zip(LEVELS, sizes, strict=True)]
    return variants(parts, **values)


@pytest.mark.parametrize("what", CHANGES)
def test_l2_does_not_change_asymmetry(what):
    sizes, verdict = CHANGES[what]
    row = only(judge(leveled(sizes)), "l2_does_not_change_asymmetry")
    assert (row["verdict"], row["experiment"], row["n"]) == (verdict, 9, 6)
    assert (row["number"], row["decides"]) == (4, True)
    first, _, last = (np.broadcast_to(size, 6) for size in sizes)
    assert row["effect"] == pytest.approx(((last - first) / ((first + last) / 2)).mean())


def test_one_seed_shows_no_absence_of_change():
    row = only(judge(variants([(at, 2.0) for at in LEVELS], seeds=[0])), "l2_does_not_change_asymmetry")
    assert (row["verdict"], row["n"], row["n_needed"]) == ("not decidable", 1, 2)


def test_levels_at_other_rises_are_not_compared():
    rows = variants([(LEVELS[0], 2.0)], rise=5.0) + variants([(at, 2.0) for at in LEVELS[1:]])
    row = only(judge(rows), "l2_does_not_change_asymmetry")
    assert (row["verdict"], row["p_for"], row["decides"]) == ("not decidable", None, True)
    assert "median rises 5 and 2 nats differ more than 2-fold" in row["note"]


@pytest.mark.parametrize(("level", "refused"), [(0, True), (1, False), (2, True)])
def test_levels_where_the_loss_levels_off_below_the_rise_are_not_compared(level, refused):
    """The first level is compared with the last."""
    rows = [
        row
        for at, one in enumerate(LEVELS)
        for row in variants([(one, 2.0)], radius_status="capped" if at == level else "found")
    ]
    row = only(judge(rows), "l2_does_not_change_asymmetry")
    assert row["verdict"] == ("not decidable" if refused else "supported")
    assert ("the loss does not rise as asked for along 12 of 12 of" in row["note"]) == refused


def test_only_the_headline_rise_and_kind_decide():
    rows = leveled((2.0, 2.0, 2.0)) + leveled((2.0, 2.0, 2.0), probe=GAUSSIAN)
    rows += leveled((2.0, 2.0, 2.0), probe=UNIFORM | {"probe": "uniform-10"})
    found = [row for group in judge(rows).values() for row in group]
    assert {row["number"] for row in found} == {4}
    assert [row["scope"] for row in found if row["decides"]] == ["mine/weight decay 0 to 0.005/uniform-far"]


def found_at(hits, **about):
    """Searches at the minima of each level, six seeds each: at so many there is an asymmetric direction."""
    parts = []
    for level, count in zip(LEVELS, hits, strict=True):
        names = {"dataset": "digits", "model": f"m-{level[DECAY]}", "recipe": "r"}
        parts.append(searched(*[True] * count, *[False] * (6 - count)).assign(**names, **about))
    return pd.concat(parts)


@pytest.mark.parametrize(
    ("hits", "verdict"), [((6, 6, 6), "supported"), ((1, 1, 1), "refuted"), ((6, 6, 3), "inconclusive")]
)
def test_directions_are_found_at_the_minima_of_all_decays(hits, verdict):
    claim, probes = "asymmetric_direction_is_found_with_decay", PROBES | {"search": {"rise": 2.0}}
    others = found_at((0, 0, 0)).assign(dataset="mnist")  # not of this study
    searches = pd.concat([found_at(hits), found_at((0, 0, 0), solution="swa"), others])
    rows = leveled((2.0, 2.0, 2.0))
    row = only(judge(rows, searches=searches, probes=probes), claim)
    assert (row["verdict"], row["n"], row["scope"]) == (verdict, 18, "mine/all decays/search")
    assert (row["number"], row["experiment"], row["decides"]) == (4, 9, True)
    counts = ", ".join(f"{n} of 6 at {at[DECAY]:g}" for n, at in zip(hits, LEVELS, strict=True))
    assert f"found: {counts}" in row["note"]
    assert not only(judge(rows, searches=searches), claim)["decides"]
    for untrained in rows[:2]:
        untrained["train_accuracy"] = 0.1
    assert only(judge(rows, searches=searches), claim)["n"] == 17


def test_a_seed_without_all_levels_has_no_trend():
    rows = variants([(at, 2.0) for at in LEVELS])
    for row in rows[-2:]:
        row["train_accuracy"] = 0.1
    row = only(judge(rows), "l2_does_not_change_asymmetry")
    assert row["n"] == 5
    assert "seeds without a trained minimum at both ends, left out: 1" in row["note"]
    assert "1 of 18 minima left out" in row["note"]


@pytest.mark.parametrize(("same", "verdict"), [(12, "supported"), (0, "refuted"), (6, "inconclusive")])
def test_penalty_leaves_verdicts(same, verdict):
    rows = variants([(at, 2.0) for at in LEVELS[:2]])
    more = variants([(LEVELS[1], 2.0)], penalty=True)
    for row in more[same:]:
        row["status"] = "not_minimum"
    row = only(judge(rows + more), "penalty_leaves_verdicts")
    assert (row["verdict"], row["n"], row["effect"]) == (verdict, 6, same / 12)
    assert row["scope"] == "mine/weight decay 0.0005/uniform-far"
    assert same == 12 or f"{12 - same} from asymmetric to not minimum" in row["note"]
