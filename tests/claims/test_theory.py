"""Experiments 3 and 4 as simulated: rules grid and bound, inside the theorems and outside."""

import math

import pandas as pd
import pytest
from claim_tables import average, gain
from valleys.claims import judge_twelve
from valleys.claims.settings import Settings
from valleys.claims.theory import judge_averaging, judge_gains


def averaged(*tables):
    rows = list(judge_averaging(pd.concat(tables), Settings()))
    return {row["claim"]: row for row in rows}


def gained(*tables):
    rows = list(judge_gains(pd.concat(tables), Settings()))
    return {row["claim"]: row for row in rows}


@pytest.mark.parametrize(
    ("means", "verdict", "effect"),
    [
        ((0.5, 0.1), "supported", 0.1),
        ((0.5, 0.0197), "supported", 0.0197),  # 1.97 standard errors: each must pass by itself
        ((0.5, 0.019), "inconclusive", 0.019),
        ((0.5, -0.021), "inconclusive", -0.021),  # one of two: 2.24 standard errors it takes
        ((0.5, -0.1), "refuted", -0.1),
        ((-0.021,), "refuted", -0.021),
    ],
)
def test_grid_rule(means, verdict, effect):
    table = average((1.0, 0.0, math.nan, -0.5), *((2.0, mean, math.nan, -0.5) for mean in means))
    row = averaged(table)["average_on_flat_side"]
    assert (row["verdict"], row["effect"], row["n"]) == (verdict, effect, len(means))
    z = 2.241403 if len(means) == 2 else 1.959964  # normal quantile at 1 - 0.025 / rows
    assert (row["low"], row["high"]) == pytest.approx((effect - 0.01 * z, effect + 0.01 * z), abs=1e-6)
    assert (row["scope"], row["experiment"], row["number"]) == ("simulation/linear", 3, 6)


def test_only_rows_inside_the_theorems_decide():
    far, near = (2.0, -0.5, math.nan, -0.5), (16.0, 0.5, math.nan, -0.5)
    rows = averaged(average(far, inside=False), average(near))
    assert (rows["average_on_flat_side"]["verdict"], rows["average_on_flat_side"]["n"]) == ("supported", 1)
    assert rows["average_on_flat_side_outside"]["verdict"] == "refuted"
    assert [name for name, row in rows.items() if row["decides"]] == ["average_on_flat_side"]
    assert "average_on_flat_side" not in averaged(average(far, inside=False))
    rows = gained(gain((2.0, 0.5, -0.1, -0.2), inside=False), gain((2.0, 0.5, 0.1, 0.05)))
    assert rows["bias_to_flat_side_gains"]["verdict"] == "supported"
    assert rows["bias_to_flat_side_gains_outside"]["verdict"] == "refuted"
    assert [name for name, row in rows.items() if row["decides"]] == ["bias_to_flat_side_gains"]
    assert {row["number"] for row in rows.values()} == {7}


@pytest.mark.parametrize(
    ("means", "verdict"),
    [((0.01, -0.02), "supported"), ((0.0, 0.03), "refuted"), ((-0.03, 0.0), "refuted")],
)
def test_the_average_of_a_symmetric_valley_is_0_within_its_error(means, verdict):
    """2.24 standard errors for two rows."""
    rows = averaged(average(*((1.0, mean, math.nan, -0.5) for mean in means)))
    row = rows["symmetric_average_is_centred"]
    assert (row["verdict"], row["n"], row["decides"]) == (verdict, 2, False)
    assert "average_on_flat_side_outside" not in rows


@pytest.mark.parametrize(("seen", "verdict"), [(-0.3, "supported"), (0.01, "supported"), (0.03, "refuted")])
def test_a_symmetric_valley_gains_nothing(seen, verdict):
    rows = gained(gain((1.0, 0.5, seen, -0.5)))
    row = rows["symmetric_bias_gains_nothing"]
    assert (row["verdict"], row["effect"], row["decides"]) == (verdict, -seen, False)
    assert "bias_to_flat_side_gains" not in rows


def test_what_is_not_shown_to_differ_from_nothing_decides_no_claim():
    """That no difference is seen in symmetric valleys, or no bound is broken, shows neither."""
    rows = [
        *averaged(average((1.0, 0.01, math.nan, -0.5), (2.0, 0.2, 0.1, -0.5), inside=False)).values(),
        *gained(gain((1.0, 0.5, -0.3, -0.5), (2.0, 0.5, 0.1, 0.05), inside=False)).values(),
    ]
    bounds = [row for row in rows if row["rule"].startswith("refuted: one interval below 0")]
    assert {row["claim"] for row in bounds} == {
        "symmetric_average_is_centred", "average_bound_holds",
        "symmetric_bias_gains_nothing", "gain_bound_holds",
    }  # fmt: skip
    assert {(row["verdict"], row["p_for"], row["decides"]) for row in bounds} == {("supported", None, False)}
    assert {row["verdict"] for row in judge_twelve(rows, 0.05)} == {"not decidable"}


@pytest.mark.parametrize(
    ("bound", "verdict", "above"),
    [(0.1, "supported", 1), (0.2, "supported", 0), (0.21, "supported", 0), (0.24, "refuted", 0)],
)
def test_bound_rule(bound, verdict, above):
    row = averaged(average((2.0, 0.2, bound, -0.5), (2.0, 0.2, math.nan, -0.5)))["average_bound_holds"]
    assert (row["verdict"], row["n"]) == (verdict, 1)
    assert f"clearly above in {above} of 1 rows; the bound applies in 1 of 2 rows" in row["note"]
    row = gained(gain((2.0, 2.0, 0.2, bound)))["gain_bound_holds"]
    assert (row["verdict"], row["n"], row["experiment"]) == (verdict, 1, 4)


def test_a_vacuous_bound_is_counted_as_such():
    row = averaged(average((2.0, 0.2, -0.1, -0.5)))["average_bound_holds"]
    assert "positive in 0" in row["note"]
    assert "average_bound_holds" not in averaged(average((2.0, 0.2, math.nan, -0.5)))


def test_training_loss_under_averaging_is_judged_apart_for_symmetric_valleys():
    table = average((1.0, 0.0, math.nan, -0.5), (2.0, 0.2, math.nan, 0.5))
    rows = judge_averaging(table, Settings())
    rows = [row for row in rows if row["claim"] == "averaging_lowers_train_loss"]
    assert [(row["scope"], row["verdict"], row["effect"]) for row in rows] == [
        ("simulation/linear/symmetric", "supported", -0.5),
        ("simulation/linear/asymmetric", "refuted", 0.5),
    ]


def test_gains_are_claimed_below_the_limit_in_asymmetric_valleys():
    rows = [(2.0, 0.5, 0.1, 0.0), (2.0, 1.0, -0.3, -0.5), (1.0, 0.5, -0.3, -0.5)]
    row = gained(gain(*rows, inside=False))["bias_to_flat_side_gains_outside"]
    assert (row["verdict"], row["effect"], row["n"]) == ("supported", 0.1, 1)
    assert "1 of 2 biases are below the limit; of the others 1 lose" in row["note"]
    assert "bias_to_flat_side_gains_outside" not in gained(gain(*rows[1:], inside=False))


def test_shapes_are_judged_apart():
    both = pd.concat([average((2.0, 0.5, 0.1, -1.0)), average((2.0, -0.5, 0.1, -1.0), shape="softplus")])
    rows = [row for row in judge_averaging(both, Settings()) if row["claim"] == "average_on_flat_side"]
    assert [row["verdict"] for row in rows] == ["supported", "refuted"]
