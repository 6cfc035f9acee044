"""Experiment 2: SGD and SWA in one neighbourhood."""

import math

import pandas as pd
import pytest
from claim_tables import bumps, by_claim, deciding, solutions
from valleys.claims import neighbours
from valleys.claims.settings import Settings

NEAR, ACROSS = "sgd_and_swa_are_neighbours", "swa_is_better_across_barriers"
ENDS = {"joins": "cell", "line": "sgd-swa", "start": "sgd", "stop": "swa"}


def of(*heights, differences=None, ends=ENDS, **settings):
    losses = solutions([-0.01 * (seed + 1) for seed in range(len(heights))], "test_loss")
    if differences is not None:
        losses = solutions(differences, "test_loss")
    return by_claim(
        neighbours.judge, Settings(**settings), interpolation=bumps(*heights, **ends), solutions=losses
    )


@pytest.mark.parametrize(("heights", "verdict"), [
    ([0.01, 0.02, 0.0, 0.03, 0.02, 0.01], "supported"),
    ([-0.5] * 6, "supported"),  # a valley
    ([0.5, 0.4, 0.6, 0.5, 0.3, 0.2], "refuted"),
    ([0.05, 0.15, 0.06, 0.2, 0.01, 0.12], "inconclusive"),
    ([0.01] * 5, "not decidable"),
])  # fmt: skip
def test_the_barrier_between_them(heights, verdict):
    row = of(*heights)[NEAR]
    assert (row["verdict"], row["n"], row["scope"]) == (verdict, len(heights), "d/m/r/sgd-swa")
    assert (row["experiment"], row["number"], row["decides"]) == (2, 10, True)
    assert not row["low"] < 0


def test_a_barrier_without_end_is_one():
    def with_one(height):
        table = bumps(*[height] * 8, **ENDS).reset_index(drop=True)
        table.loc[(table["t"] == 0.5) & (table["seed"] == 7), "train_loss"] = math.inf
        losses = solutions([-0.01] * 8, "test_loss")
        return by_claim(neighbours.judge, interpolation=table, solutions=losses)

    row = with_one(0.01)[NEAR]
    assert (row["verdict"], row["n"], row["p_for"]) == ("not decidable", 7, None)
    assert "a loss that is not finite puts 1 of 8 on the other side" in row["note"]
    assert "such a barrier on 1 of 8 lines" in with_one(0.01)[ACROSS]["note"]
    assert with_one(0.5)[NEAR]["verdict"] == "refuted"


def test_the_line_may_run_either_way_and_others_do_not_count():
    back = ENDS | {"start": "swa", "stop": "sgd"}
    assert of(*[0.01] * 6, ends=back)[NEAR]["verdict"] == "supported"
    for other in ({"stop": "descent"}, {"joins": "seed"}, {"joins": "recipe"}, {"path": "bezier"}):
        assert of(*[0.01] * 6, ends=ENDS | other) == {}


def test_controls_and_own_weights_decide_nothing_and_the_threshold_is_the_configs():
    heights = [0.5, 0.4, 0.6, 0.5, 0.3, 0.2]
    assert deciding(of(*heights, controls=["d"])) == deciding(of(*heights, checkpoints=["r"])) == set()
    assert of(*heights, barrier=1.0)[NEAR]["verdict"] == "supported"


def test_swa_across_barriers_takes_only_minima_that_are_apart():
    apart = [0.5] * 6 + [0.01] * 6
    for sign, verdict in ((-1, "supported"), (1, "refuted")):
        differences = [sign * 0.01 * (k + 1) for k in range(6)] + [-sign * 9.0] * 6
        row = of(*apart, differences=differences)[ACROSS]
        assert (row["verdict"], row["n"], row["number"], row["decides"]) == (verdict, 6, 10, False)
        assert "such a barrier on 6 of 12 lines" in row["note"]
    row = of(*[0.01] * 12)[ACROSS]
    assert (row["verdict"], row["n"]) == ("not decidable", 0)


def test_cells_without_both_solutions_have_no_comparison():
    table = pd.DataFrame(solutions([-0.1] * 6, "test_loss"))
    found = by_claim(
        neighbours.judge,
        interpolation=bumps(*[0.5] * 6, **ENDS),
        solutions=table[table["solution"] != "sgd"],
    )
    assert (found[ACROSS]["n"], found[ACROSS]["verdict"]) == (0, "not decidable")
