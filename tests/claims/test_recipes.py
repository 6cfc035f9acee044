"""Experiment 6 as a study of two recipes."""

import numpy as np
import pytest
from study_claims import SIX, TWICE, judge, recipes


@pytest.mark.parametrize(("narrow", "wide", "verdict"), [
    (SIX, TWICE, "supported"), (TWICE, SIX, "refuted"), (SIX, SIX[::-1], "inconclusive"),
])  # fmt: skip
def test_which_recipe_is_sharper(narrow, wide, verdict):
    rows = recipes({"big": narrow, "small": wide}, {"big": wide, "small": narrow})
    width, curvature = judge(rows, order={"recipe": ["big", "small"]})["big_is_sharper"]
    for row in (width, curvature):
        assert (row["verdict"], row["n"], row["experiment"]) == (verdict, 6, 6)
    assert width["effect"] == pytest.approx(np.mean(wide) - np.mean(narrow))
    assert width["measure"].endswith("small - big, within a seed")
    assert curvature["measure"].endswith("big - small, within a seed")
    assert [(row["number"], row["decides"]) for row in (width, curvature)] == [(9, True), (9, False)]
    assert curvature["unit"] == "nats per squared 2-norm"


def test_the_configs_order_says_which_recipe_is_first():
    rows = recipes({"big": SIX, "small": TWICE}, {"big": TWICE, "small": SIX})
    found = judge(rows, order={"recipe": ["small", "big"]})
    assert {row["verdict"] for row in found["small_is_sharper"]} == {"refuted"}
