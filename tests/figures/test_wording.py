"""How numbers and lists are written for people."""

import pytest
from figure_tables import SPEC, make_rows, through_parquet
from valleys import figures

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_long_findings_are_cut(tmp_path):
    cells = [("digits", f"m{i}", "quick") for i in range(9)]
    frames = through_parquet(tmp_path, make_rows(cells, seeds=(0,), n=1))
    said = figures.caption("training", frames, SPEC)
    assert "m5:" in said
    assert "m6:" not in said
    assert "and 3 more" in said


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.5, "−0.5"),
        (1234.6, "1235"),
        (0.12345, "0.123"),
        (3.2e-7, "3.20 × 10⁻⁷"),
        (999.7, "1000"),
        (float("nan"), "not finite"),
    ],
)
def test_number(value, text):
    assert figures.number(value) == text
