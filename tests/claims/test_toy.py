"""Experiment 7."""

import pandas as pd
from claim_tables import EMPTY, toy
from valleys import claims


def test_toy_recipes_are_judged_apart_and_other_statuses_are_counted():
    data = pd.concat(
        [toy(*["asymmetric"] * 9, "flat", "not_minimum"), toy(*["symmetric"] * 9, recipe="converged")]
    )
    rows = claims.judge({**EMPTY, "toy_2d": data})
    assert [(r["scope"], r["verdict"], r["n"]) for r in rows] == [
        ("2-D MLP/converged", "refuted", 9),
        ("2-D MLP/paper", "supported", 11),
    ]
    assert set(rows[1]["note"].split(", ")) == {"1 flat", "1 not_minimum"}
