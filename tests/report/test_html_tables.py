"""Texts in the cells of the report's tables."""

import pandas as pd
import pytest
from valleys.report import html_tables


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.2, 0.3, 0.4], "0.30 ± 0.25"),
        ([1500.0, 1700.0], "1600 ± 1271"),
        ([2.0], "2"),
        ([], "–"),
        ([float("nan"), 2.0, 2.0], "2 ± 0 (1 not finite)"),
    ],
)
def test_plus_minus(values, text):
    assert html_tables._plus_minus(pd.Series(values, dtype=float), 0.95) == text


def test_measures_of_sharpness_are_shown_where_a_run_has_them():
    measured = (
        "train_loss",
        "test_loss",
        "train_accuracy",
        "test_accuracy",
        "gradient_norm",
        "gradient_gain",
    )
    row = dict.fromkeys((*measured, "weight_norm", "distance_to_swa"), 1.0)
    row |= {"dataset": "d", "model": "m", "recipe": "r", "seed": 0, "solution": "sgd", "bn_policy": "none"}

    def heads(**more):
        table = html_tables.solutions_table(pd.DataFrame([row | more]), 0.95)
        return [column["name"] for column in table["columns"]]

    assert heads() == heads(sharpness_sam=None, hessian_trace=float("nan"))
    assert heads(sharpness_sam=0.1, hessian_trace=None) == [*heads(), "SAM sharpness [nats]"]
