"""What is counted for the prevalence figure and the report."""

import numpy as np
import pytest
from valleys import measures
from valleys.stats import wilson

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_prevalence_counts_uneven_rises_on_either_side(figure_data):
    rows = figure_data["asymmetry"][figure_data["asymmetry"]["solution"] == "sgd"]
    index = np.log([2.0, 0.5, 1.99, 0.51, 7.0]).tolist() + [np.nan] * (len(rows) - 5)
    counts = measures.prevalence(rows.assign(asymmetry_index=index), 0.95, 2.0).iloc[0]
    assert (counts["uneven"], counts["n"]) == (3, len(rows))
    assert counts["uneven_high"] == wilson(3, len(rows)).high
