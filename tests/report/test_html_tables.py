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
