"""What speaks against taking a solution for a minimum."""

import math

import pandas as pd
from claim_tables import CELL
from valleys.results import doubts


def solved(**gains):
    """The solutions table of one cell: gains along the gradient by solution, seed by seed."""
    return pd.DataFrame(
        {**CELL, "seed": seed, "solution": name, "gradient_gain": gain}
        for name, values in gains.items()
        for seed, gain in enumerate(values)
    )


def test_what_is_no_minimum_is_counted_by_solution():
    table = solved(sgd=[0.002, 0.011, 0.5, 0.01], swa=[0.0, 0.0], descent=[0.02, math.nan, math.inf])
    assert doubts.about(table) == (
        "no minimum: 2 of 4 sgd and 1 of 1 descent solutions, where the loss falls by more than 0.01 nats "
        "along minus the gradient"
    )
    assert doubts.about(table[table["solution"] == "swa"]) == ""
    assert doubts.about(solved(sgd=[0.01, math.nan])) == ""  # at the bound it is one
    assert doubts.about(table.drop(columns="gradient_gain")) == ""  # of a run before it was measured
    assert doubts.about(solved(sgd=[None, None])) == ""
