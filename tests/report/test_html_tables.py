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


def test_averages_have_their_means_and_how_many_were_refused():
    rows = []
    for seed in range(3):
        for name, kind, loss in (("swa", "equal", 0.4), ("ema", "ema", 0.3 + 0.1 * seed)):
            gone = name == "ema" and seed == 2
            measured = dict.fromkeys(("train_loss", "test_loss", "judged_loss"), None if gone else loss)
            measured |= dict.fromkeys(("train_accuracy", "test_accuracy"), None if gone else 0.5)
            measured |= dict.fromkeys(("barrier_to_swa", "distance_to_swa"), None if gone else 0.0)
            about = {"dataset": "d", "model": "m", "recipe": "r", "seed": seed, "average": name, "kind": kind}
            about |= {"iterates": 4 + gone, "barrier": 0.5 * seed, "refused": "a pair" if gone else None}
            rows.append(about | measured)
    table = html_tables.averages_table(pd.DataFrame(rows), 0.95)
    heads = [column["name"] for column in table["columns"]]
    swa, ema = (dict(zip(heads, (cell.text for cell in row), strict=True)) for row in table["rows"])
    assert (swa["refused"], ema["refused"], ema["seeds"]) == ("0", "1", "3")
    assert (swa["iterates"], ema["iterates"]) == ("4", "4 to 5")
    assert swa["test loss, judged [nats]"] == "0.4 ± 0"
    assert ema["test loss, judged [nats]"] == "0.35 ± 0.64"  # of the two that were made
    assert ema["barrier between members [nats]"] == "0.5 ± 1.2"  # of all
    assert "the half of the test images that chose nothing" in table["text"]
