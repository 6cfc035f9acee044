"""Experiment 1."""

import numpy as np
import pandas as pd
import pytest
from claim_tables import asymmetry, judged, signed
from valleys.claims import prevalence
from valleys.claims.settings import Settings
from valleys.results import inference

PROBES = {
    "uniform": {"rise": 2.0, "bn": "refreshed"},
    "uniform-10": {"rise": 10.0, "bn": "refreshed"},
    "frozen": {"rise": 2.0, "bn": "frozen"},
    "gaussian": {"rise": 2.0, "bn": "refreshed"},
    "head": {"rise": 2.0, "bn": "refreshed"},
}
SETTINGS = Settings(probes=PROBES, archs={"m": "mlp", "n": "resnet8"})
ONE_OF_THREE = ("asymmetric", "symmetric", "flat")


def judge(table, settings=SETTINGS, study=None):
    """Rows by claim and scope."""
    rows = judged(prevalence.judge, settings, asymmetry=table, study=study)
    return {(row["claim"], row["scope"]): row for row in rows}


def pooled(table, settings=SETTINGS):
    return judge(table, settings)["random_directions_are_asymmetric", "all settings/uniform"]


@pytest.mark.parametrize(
    ("hits", "n", "verdict"),
    [
        (13, 26, "supported"),
        (12, 40, "inconclusive"),
        (0, 12, "inconclusive"),  # (3/4)^12 = 0.032
        (0, 13, "refuted"),
        (2, 33, "refuted"),
        (3, 3, "supported"),  # (1/4)^3 = 0.016
        (2, 2, "not decidable"),
    ],
)
def test_decent_probability_over_minima(hits, n, verdict):
    row = pooled(asymmetry(*[["asymmetric"] * 3] * hits, *[["symmetric"] * 3] * (n - hits)))
    assert (row["verdict"], row["n"], row["effect"]) == (verdict, n, pytest.approx(hits / n))
    assert (row["number"], row["decides"], row["experiment"]) == (2, True, 1)


def test_the_value_of_a_minimum_is_the_share_of_its_directions():
    row = pooled(asymmetry(ONE_OF_THREE, ONE_OF_THREE * 2, ("asymmetric",)))
    assert (row["n"], row["effect"]) == (3, pytest.approx((1 / 3 + 1 / 3 + 1) / 3))
    assert "at a rise of 2 nats; " in row["note"]
    assert "directions at each minimum: 6; 3 flat" in row["note"]


@pytest.mark.parametrize(
    ("hits", "misses", "short_hits", "short_misses", "verdict", "low_of", "high_of"),
    [
        (60, 0, 0, 0, "supported", 60, 60),
        (30, 0, 30, 0, "supported", 30, 60),  # a half is enough
        (6, 30, 24, 0, "inconclusive", 6, 30),  # supported if all counted by their slopes
        (0, 60, 0, 0, "refuted", 0, 0),
        (0, 57, 0, 3, "refuted", 0, 3),
        (0, 40, 0, 20, "inconclusive", 0, 20),  # refuted if all counted by their slopes
    ],
)
def test_directions_short_of_the_rise_count_against_either_verdict(
    hits, misses, short_hits, short_misses, verdict, low_of, high_of
):
    counts = {"asymmetric": hits + short_hits, "symmetric": misses + short_misses}
    table = asymmetry(*[[status] for status, count in counts.items() for _ in range(count)])
    n = len(table)
    first, last = table.index < short_hits, table.index >= n - short_misses
    row = pooled(table.assign(radius_status=np.where(first | last, "capped", "found")))
    assert (row["verdict"], row["n"], row["effect"]) == (verdict, n, (hits + short_hits) / n)
    for end, of in (("low", low_of), ("high", high_of)):
        plain = inference.share([1.0] * of + [0.0] * (n - of), 0.25, alpha=0.05, level=0.95)
        assert row[end] == getattr(plain, end)


def test_a_note_says_how_many_directions_are_short_of_the_rise():
    table = asymmetry(*[ONE_OF_THREE] * 6).assign(radius_status=["found", "capped", "capped"] * 6)
    said = (
        "; the loss rises by less than 2 nats along 12 of 18 (0 asymmetric lower down), which count as undec"
    )
    rows = judge(table)
    for claim in ("random_directions_are_asymmetric", "random_directions_of_mlps"):
        assert said in rows[claim, "all settings/uniform"]["note"]
    for claim in ("directions_are_asymmetric", "rises_are_uneven"):
        assert said in rows[claim, "d/m/r/uniform"]["note"]
    assert "rises by less" not in pooled(table.assign(radius_status="found"))["note"]


def test_minima_of_all_settings_count_alike():
    table = pd.concat([
        asymmetry(*[["asymmetric"]] * 4), asymmetry(*[["symmetric"]] * 4, model="n"),
        asymmetry(*[["symmetric"]] * 4, recipe="q"),
    ])  # fmt: skip
    rows = judge(table)
    row = rows["random_directions_are_asymmetric", "all settings/uniform"]
    assert (row["n"], row["effect"]) == (12, pytest.approx(1 / 3))
    assert "settings: 3; at a rise of 2 nats" in row["note"]
    mlps = rows["random_directions_of_mlps", "all settings/uniform"]
    assert (mlps["n"], mlps["effect"], mlps["number"], mlps["decides"]) == (8, 0.5, 3, True)
    beside = {scope: row for (claim, scope), row in rows.items() if claim == "directions_are_asymmetric"}
    assert {scope: row["effect"] for scope, row in beside.items()} == {
        "d/m/r/uniform": 1.0, "d/m/q/uniform": 0.0, "d/n/r/uniform": 0.0,
    }  # fmt: skip
    assert not any(row["decides"] for row in beside.values())


def of_study(*statuses, **more):
    """Rows of the study table: one minimum a status, at seeds 0, 1, ..."""
    about = {"penalty": False, "train_accuracy": 0.9, "levels": "{}"} | more
    return asymmetry(*[[status] for status in statuses], model="v").assign(**about)


def test_minima_of_studies_count_once():
    grid = asymmetry(*[["asymmetric"]] * 2)
    both = of_study("symmetric", "symmetric")
    rows = judge(grid, study=pd.concat([both, both, grid.assign(**both[[*ABOUT]].iloc[0])]))
    row = rows["random_directions_are_asymmetric", "all settings/uniform"]
    assert (row["n"], row["effect"]) == (4, 0.5)


ABOUT = ("penalty", "train_accuracy", "levels")


@pytest.mark.parametrize(
    ("more", "counts"),
    [
        ({"penalty": True}, False),
        ({"train_accuracy": 0.4}, False),
        ({"levels": '{"recipe.loss.name": "mse"}'}, False),
        ({"levels": '{"recipe.loss": {"name": "focal"}}'}, False),
        ({"levels": '{"recipe.loss.name": "cross_entropy", "model.norm": "none"}'}, True),
    ],
)
def test_which_minima_of_studies_count(more, counts):
    rows = judge(asymmetry(["asymmetric"]), study=of_study("symmetric", **more))
    assert rows["random_directions_are_asymmetric", "all settings/uniform"]["n"] == 1 + counts


def test_without_an_mlp_nothing_is_said_of_mlps():
    assert "random_directions_of_mlps" not in {claim for claim, _ in judge(asymmetry(["flat"], model="n"))}


def test_what_decides():
    """U(0,1) directions over all parameters, statistics refreshed, at the headline rise: nothing else."""
    parts = [asymmetry(["asymmetric"], probe=probe) for probe in PROBES]
    parts[3]["kind"], parts[4]["group"] = "gaussian", "head"
    rows = judge(pd.concat(parts))
    assert {scope for (_, scope), row in rows.items() if row["decides"]} == {"all settings/uniform"}
    assert ("random_directions_are_asymmetric", "all settings/gaussian") in rows
    assert ("random_directions_of_mlps", "all settings/gaussian") not in rows
    assert {row["number"] for row in rows.values()} == {2, 3}
    other = judge(pd.concat(parts), Settings(probes=PROBES, rise=10.0))
    assert {scope for (_, scope), row in other.items() if row["decides"]} == {"all settings/uniform-10"}


def test_prevalence_notes_verdicts_that_hang_on_a_subset_of_images():
    table = asymmetry(["asymmetric", "symmetric"], ["asymmetric", "symmetric"])
    assert "subset" not in pooled(table)["note"]
    note = pooled(table.assign(certain=[True, False, False, True]))["note"]
    assert "verdict of 2 of 4 on a subset of the images might be another on all" in note


def test_prevalence_counts_sgd_minima_only():
    table = pd.concat([
        asymmetry(*[("asymmetric",)] * 13, solution="swa"), asymmetry(*[("symmetric",)] * 13),
    ])  # fmt: skip
    assert (pooled(table)["n"], pooled(table)["verdict"]) == (13, "refuted")


@pytest.mark.parametrize(
    ("c", "share", "verdict"), [(4.9, 0.2, "refuted"), (5.1, 0.0, "refuted"), (0.99, 0.4, "inconclusive")]
)
def test_uneven_rises(c, share, verdict):
    # Of five directions one rises five times as much at -R, one evenly; the rest, with no ratio, are even.
    one = ("asymmetric", "symmetric", "flat", "not_minimum", "flat")
    table = asymmetry(*[one] * 24)
    row = judge(table, Settings(c=c, probes=PROBES))["rises_are_uneven", "d/m/r/uniform"]
    assert (row["effect"], row["n"], row["verdict"]) == (pytest.approx(share), 24, verdict)
    assert (row["number"], row["decides"]) == (2, False)
    assert "steeper on the +u side in 0 of 120" in row["note"]


def test_prevalence_leaves_kind_sign_to_its_own_experiment():
    assert judge(signed([(0.5, 1.0)])["asymmetry"]) == {}


def test_weights_under_names_of_ones_own_are_minima_too():
    rows = judge(
        pd.concat([
            asymmetry(("asymmetric",) * 4, ("symmetric",)),
            asymmetry(("symmetric",) * 3, solution="mine"),
            asymmetry(("flat",) * 9, solution="swa"),
        ])
    )  # fmt: skip
    found = {
        scope: (row["effect"], row["n"])
        for (claim, scope), row in rows.items()
        if claim == "directions_are_asymmetric"
    }
    assert found == {"d/m/r/uniform": (0.5, 2), "d/m/r at mine/uniform": (0.0, 1)}
