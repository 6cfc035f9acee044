"""Experiments 3 and 4 as simulated: rules grid and bound."""

import math

import pandas as pd
import pytest
from claim_tables import EMPTY, average, gain, judge
from valleys import claims


@pytest.mark.parametrize(
    ("means", "verdict", "effect"),
    [
        ((0.5, 0.1), "supported", 0.1),
        ((0.5, 0.021), "inconclusive", 0.021),  # 2.1 standard errors: enough for one row, not for two
        ((0.5, -0.021), "inconclusive", -0.021),
        ((0.5, -0.1), "refuted", -0.1),
        ((0.021,), "supported", 0.021),
    ],
)
def test_grid_rule(means, verdict, effect):
    table = average((1.0, -0.9, math.nan, -0.5), *((2.0, mean, math.nan, -0.5) for mean in means))
    row = judge(theory_average=table)["average_on_flat_side"]
    assert (row["verdict"], row["effect"], row["n"]) == (verdict, effect, len(means))
    z = 2.241403 if len(means) == 2 else 1.959964  # normal quantile at 1 - 0.025 / rows
    assert (row["low"], row["high"]) == pytest.approx((effect - 0.01 * z, effect + 0.01 * z), abs=1e-6)
    assert (row["scope"], row["experiment"]) == ("simulation/linear", 3)


@pytest.mark.parametrize(
    ("bound", "verdict", "above"),
    [(0.1, "supported", 1), (0.2, "supported", 0), (0.21, "supported", 0), (0.24, "refuted", 0)],
)
def test_bound_rule(bound, verdict, above):
    table = average((2.0, 0.2, bound, -0.5), (2.0, 0.2, math.nan, -0.5))
    row = judge(theory_average=table)["average_bound_holds"]
    assert (row["verdict"], row["n"]) == (verdict, 1)
    assert f"clearly above in {above} of 1 rows; the bound applies in 1 of 2 rows" in row["note"]
    row = judge(theory_gain=gain((2.0, 2.0, 0.2, bound)))["gain_bound_holds"]
    assert (row["verdict"], row["n"], row["experiment"]) == (verdict, 1, 4)


def test_a_vacuous_bound_is_counted_as_such():
    row = judge(theory_average=average((2.0, 0.2, -0.1, -0.5)))["average_bound_holds"]
    assert "positive in 0" in row["note"]
    assert "average_bound_holds" not in judge(theory_average=average((2.0, 0.2, math.nan, -0.5)))


def test_training_loss_under_averaging_is_judged_apart_for_symmetric_valleys():
    data = {**EMPTY, "theory_average": average((1.0, 0.0, math.nan, -0.5), (2.0, 0.2, math.nan, 0.5))}
    rows = [row for row in claims.judge(data) if row["claim"] == "averaging_lowers_train_loss"]
    assert [(row["scope"], row["verdict"], row["effect"]) for row in rows] == [
        ("simulation/linear/symmetric", "supported", -0.5),
        ("simulation/linear/asymmetric", "refuted", 0.5),
    ]


def test_gains_are_claimed_below_the_limit_in_asymmetric_valleys():
    rows = [(2.0, 0.5, 0.1, 0.0), (2.0, 1.0, -0.3, -0.5), (1.0, 0.5, -0.3, -0.5)]
    row = judge(theory_gain=gain(*rows))["bias_to_flat_side_gains"]
    assert (row["verdict"], row["effect"], row["n"]) == ("supported", 0.1, 1)
    assert "1 of 2 biases are below the limit; of the others 1 lose" in row["note"]
    worse = judge(theory_gain=gain((2.0, 0.5, -0.1, -0.2)))["bias_to_flat_side_gains"]
    assert worse["verdict"] == "refuted"
    assert "bias_to_flat_side_gains" not in judge(theory_gain=gain(*rows[1:]))


def test_shapes_are_judged_apart():
    both = pd.concat([average((2.0, 0.5, 0.1, -1.0)), average((2.0, -0.5, 0.1, -1.0), shape="softplus")])
    rows = [
        r for r in claims.judge({**EMPTY, "theory_average": both}) if r["claim"] == "average_on_flat_side"
    ]
    assert [r["verdict"] for r in rows] == ["supported", "refuted"]
