"""Claims about studies: chosen by factors and not by names, each verdict where its rule says so."""

import pytest
from study_claims import DECAY, LEVELS, NORM, judge, only
from study_tables import GAUSSIAN, minimum, variants


def test_prevalence_of_a_study_without_factors():
    seeds = range(13)
    rows = variants([({}, 2.0)], seeds) + variants([({}, 0.1)], seeds, GAUSSIAN)
    found = judge(rows + minimum({}, 13, (0.0, 0.0), train_accuracy=0.2))
    shares = {row["scope"]: row for row in found["directions_are_asymmetric"]}
    assert {scope: row["verdict"] for scope, row in shares.items()} == {
        "mine/digits/m-base/r/uniform-far": "supported",
        "mine/digits/m-base/r/gaussian-far": "refuted",
    }
    every = [row for group in found.values() for row in group]
    assert {(row["experiment"], row["number"], row["decides"]) for row in every} == {(8, 2, False)}
    row = shares["mine/digits/m-base/r/uniform-far"]
    assert (row["n"], row["effect"]) == (13, 1.0)  # not the untrained one
    assert "directions at each minimum: 2" in row["note"]
    assert "1 of 14 minima left out: train accuracy below 0.5" in row["note"]
    assert set(found) == {"directions_are_asymmetric", "rises_are_uneven"}


def test_penalised_rows_are_no_further_directions():
    found = judge(variants([({}, 2.0)]) + variants([({}, 2.0)], penalty=True))
    row = only(found, "directions_are_asymmetric")
    assert row["n"] == 6
    assert "directions at each minimum: 2" in row["note"]


@pytest.mark.parametrize(("gain", "verdict"), [(0.1, "supported"), (-0.1, "refuted"), (None, "inconclusive")])
def test_swa_at_each_level(gain, verdict):
    rows = []
    for levels, seed in ((at, seed) for at in LEVELS for seed in range(6)):
        own = (0.1 if seed % 2 else -0.1) if gain is None else gain
        swa = {"swa_gain": own if levels[DECAY] == 0.005 else 0.2, "swa_rise": 0.3}
        swa |= {f"{key}_sgd": value for key, value in swa.items()}
        rows += minimum(levels, seed, (2.0,), **swa) + minimum(levels, seed, (2.0,), GAUSSIAN, **swa)
    found = judge(rows)
    for claim in ("swa_gain", "swa_gain_sgd", "swa_rise", "swa_rise_sgd"):
        decides = claim.startswith("swa_gain")
        assert [(row["number"], row["decides"]) for row in found[claim]] == [(4, decides)] * 3
    assert not any(row["decides"] for row in judge(rows, controls=["digits"])["swa_gain"])
    sgd = {row["scope"]: row for row in found["swa_gain_sgd"]}["mine/weight decay 0.005"]
    assert (sgd["verdict"], sgd["measure"]) == (verdict, "test loss of sgd - of swa")
    last = {row["scope"]: row for row in found["swa_gain"]}["mine/weight decay 0.005"]
    assert (last["verdict"], last["n"], last["experiment"]) == (verdict, 6, 9)  # once, not once a probe
    assert "one of 3 levels, p not corrected" in last["note"]
    assert [row["effect"] for row in found["swa_rise"]] == pytest.approx([0.3] * 3)


@pytest.mark.parametrize(
    ("factor", "experiment"), [("model.width", 11), ("recipe.loss.name", 11), ("recipe.lr", 1)]
)
def test_other_factors_have_prevalence_by_level(factor, experiment):
    found = judge(variants([({factor: 1}, 2.0), ({factor: 2}, 0.1)]))
    rows = found["most_directions_are_asymmetric"]
    verdicts = [(row["verdict"], row["effect"], row["n"], row["experiment"]) for row in rows]
    assert verdicts == [("supported", 1.0, 6, experiment), ("refuted", 0.0, 6, experiment)]
    assert all("one of 2 levels, p not corrected" in row["note"] for row in rows)
    assert set(found) == {"most_directions_are_asymmetric"}
    number = 11 if experiment == 11 else 2
    assert {(row["number"], row["decides"]) for row in rows} == {(number, False)}


def test_swa_in_another_study_stands_below_the_claim_about_swa():
    swa = {"swa_gain": 0.1, "swa_rise": 0.2}
    found = judge(variants([({"model.width": 1}, 2.0), ({"model.width": 2}, 2.0)], **swa))
    rows = [*found["swa_gain"], *found["swa_rise"]]
    assert {(row["number"], row["decides"], row["verdict"]) for row in rows} == {(8, False, "supported")}
    assert "swa_gain_sgd" not in found


def test_a_minimum_counts_by_the_share_of_its_directions_that_are_asymmetric():
    """One asymmetric direction among several is not enough, and a half is no more than a half."""
    factor = "model.width"
    indices = {1: (2.0, 2.0, 0.1), 2: (2.0, 0.1, 0.1), 3: (2.0, 0.1)}
    found = judge([
        row for level, sizes in indices.items() for seed in range(80)
        for row in minimum({factor: level}, seed, sizes)
    ])  # fmt: skip
    rows = found["most_directions_are_asymmetric"]
    assert [row["verdict"] for row in rows] == ["supported", "refuted", "inconclusive"]
    assert [row["effect"] for row in rows] == pytest.approx([2 / 3, 1 / 3, 1 / 2])
    assert [row["n"] for row in rows] == [80] * 3
    assert "of directions 160 of 240" in rows[0]["note"]


def test_directions_short_of_the_rise_are_undecided_in_studies_too():
    rows = variants([({"model.width": 1}, 2.0), ({"model.width": 2}, 0.1)], seeds=range(40))
    for row in rows:
        row["radius_status"] = "capped" if row["k"] == 0 else "found"
    found = judge(rows)["most_directions_are_asymmetric"]
    assert [(row["verdict"], row["effect"]) for row in found] == [
        ("inconclusive", 1.0),
        ("inconclusive", 0.0),
    ]
    assert [row["low"] < 0.5 < row["high"] for row in found] == [True, True]
    told = "the loss rises by less than 2 nats along 40 of 80 ({} asymmetric lower down), which count as und"
    for row, asymmetric in zip(found, (40, 0), strict=True):
        assert told.format(asymmetric) in row["note"]


def test_a_study_of_two_kinds_of_factors_has_the_claims_of_both():
    base = {DECAY: 0, NORM: "batch"}
    rows = variants([(base, 2.0), (base | {DECAY: 0.1}, 2.0), (base | {NORM: "none"}, 1.0)])
    found = judge(rows)
    assert {"asymmetry_survives_l2", "l2_does_not_change_asymmetry", "bn_makes_asymmetric"} <= set(found)
    assert only(found, "l2_does_not_change_asymmetry")["n"] == 6
    assert only(found, "bn_makes_asymmetric")["verdict"] == "supported"
