"""Experiment 1."""

import pandas as pd
import pytest
from claim_tables import EMPTY, asymmetry, judge, signed
from valleys import claims


def test_prevalence_over_directions():
    # Each of eight minima has one asymmetric direction of five.
    one = ("asymmetric", "symmetric", "symmetric", "not_minimum", "flat")
    rows = judge(asymmetry=asymmetry(*[one] * 8))
    share = rows["directions_are_asymmetric"]
    assert (share["verdict"], share["effect"], share["n"]) == ("refuted", 0.2, 40)
    assert share["scope"] == "d/m/r/uniform"
    assert share["note"] == "minima: 8, directions at each: 5; 8 not_minimum; 8 flat"
    assert set(rows) == {"directions_are_asymmetric", "rises_are_uneven"}


def test_prevalence_notes_verdicts_that_hang_on_a_subset_of_images():
    table = asymmetry(["asymmetric", "symmetric"], ["asymmetric", "symmetric"])
    noted = {}
    for name, known in (("all", table), ("subset", table.assign(certain=[True, False, False, True]))):
        rows = judge(asymmetry=known)
        noted[name] = rows["directions_are_asymmetric"]["note"]
    assert "verdict of 2 of 4 on a subset of the images might be another on all" in noted["subset"]
    assert "subset" not in noted["all"]


def test_prevalence_can_be_refuted_and_inconclusive():
    rows = judge(asymmetry=asymmetry(*[("symmetric",)] * 6))
    assert rows["directions_are_asymmetric"]["verdict"] == "refuted"
    rows = judge(asymmetry=asymmetry(*[("asymmetric",), ("symmetric",)] * 4))
    assert rows["directions_are_asymmetric"]["verdict"] == "inconclusive"


def test_prevalence_counts_sgd_minima_only():
    table = pd.concat([
        asymmetry(*[("asymmetric",)] * 6, solution="swa"), asymmetry(*[("symmetric",)] * 6, solution="sgd"),
    ])  # fmt: skip
    rows = judge(asymmetry=table)
    assert rows["directions_are_asymmetric"]["n"] == 6
    assert rows["directions_are_asymmetric"]["verdict"] == "refuted"


@pytest.mark.parametrize(
    ("c", "n", "verdict"), [(4.9, 8, "refuted"), (5.1, 0, "refuted"), (0.99, 16, "inconclusive")]
)
def test_uneven_rises(c, n, verdict):
    # Of five directions one rises five times as much at -R, one evenly; the rest, with no ratio, are even.
    one = ("asymmetric", "symmetric", "flat", "not_minimum", "flat")
    rows = claims.judge({**EMPTY, "asymmetry": asymmetry(*[one] * 8)}, c=c)
    (row,) = (row for row in rows if row["claim"] == "rises_are_uneven")
    assert (row["effect"], row["n"], row["verdict"]) == (n / 40, 40, verdict)
    assert "steeper on the +u side in 0 of 40" in row["note"]


def test_prevalence_leaves_kind_sign_to_its_own_experiment():
    rows = claims.judge({**EMPTY, **signed([(0.5, 1.0)])})
    assert {row["experiment"] for row in rows} == {12}


def test_weights_under_names_of_ones_own_are_minima_too():
    rows = claims.judge(
        {
            **EMPTY,
            "asymmetry": pd.concat([
                asymmetry(("asymmetric",) * 4, ("symmetric",)),
                asymmetry(("symmetric",) * 3, solution="mine"),
                asymmetry(("flat",) * 9, solution="swa"),
            ]),
        }
    )  # fmt: skip
    found = {
        row["scope"]: (row["effect"], row["n"]) for row in rows if row["claim"] == "directions_are_asymmetric"
    }
    assert found == {"d/m/r/uniform": (0.8, 5), "d/m/r at mine/uniform": (0.0, 3)}
