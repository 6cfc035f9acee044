"""Experiment 2 with epochs chosen as the paper's code chooses them."""

import math

import pytest
from claim_tables import HIGHER, KEPT, LOWER, by_claim, deciding, descents
from valleys.claims import paper_selection


def judge(table):
    return by_claim(paper_selection.judge, training=table)


@pytest.mark.parametrize(
    ("hits", "n", "verdict"),
    [(6, 6, "supported"), (0, 6, "refuted"), (3, 6, "inconclusive"), (5, 5, "not decidable")],
)
def test_whether_the_papers_selection_finds_an_epoch(hits, n, verdict):
    runs = [[LOWER, KEPT, HIGHER]] * hits + [[LOWER, HIGHER, (0.0, 0.1), (-0.1, 0.0)]] * (n - hits)
    rows = judge(descents(*runs))
    row = rows["swa_paper_selection_exists"]
    assert (row["verdict"], row["effect"], row["n"], row["experiment"]) == (verdict, hits / n, n, 2)
    assert "epochs chosen by their test loss, as the paper's code does: biased" in row["note"]
    assert ("swa_test_loss_paper_selection" in rows) == (hits > 0)
    assert {one["number"] for one in rows.values()} == {8}
    assert deciding(rows) == set()


def test_the_difference_at_selected_epochs_is_given_and_never_judged():
    runs = [[(-0.1, 0.1), LOWER, (-0.3, 0.2 + 0.01 * seed), HIGHER] for seed in range(8)]
    row = judge(descents(*runs, [LOWER]))["swa_test_loss_paper_selection"]
    assert (row["verdict"], row["p_value"], row["n"]) == ("not decidable", None, 8)
    assert row["effect"] == pytest.approx(-0.235)  # swa less the last epoch kept
    assert row["low"] < row["effect"] < row["high"] < 0
    assert row["rule"] == "not judged: the selection fixes the sign"
    for words in ("by construction", "left out: 1", "at that epoch 0.3;", "test loss -0.1, train loss 0.1"):
        assert words in row["note"]


def test_epochs_that_are_not_finite_are_not_selected():
    run = descents([(math.nan, 1.0), (-0.1, math.nan), KEPT])
    kept = paper_selection.selected_epochs(run[run["phase"] == "descent"])
    assert list(kept.index) == [3]
