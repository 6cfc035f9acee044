"""The shift figure: what is drawn, and what is said."""

import numpy as np
import pytest
from figure_tables import SPEC, with_signs
from valleys import figures

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_shift_curves_are_medians(figure_data):
    figure = figures.draw("shift", figure_data, SPEC)
    (panel,) = figure.axes
    fixed, free = (line for line in panel.lines if line.get_linewidth() == 1.6)
    assert fixed.get_xdata() == pytest.approx(np.arange(-10, 11) / 40)
    assert fixed.get_ydata()[[10, 14]] == pytest.approx([1, 0.5 / 1.5])
    assert free.get_ydata()[[10, 14]] == pytest.approx([1, 0.2])
    assert [t.get_text() for t in panel.texts] == ["n = 12", "uniform"]  # three seeds of four, sgd only


def test_shift_leaves_out_kind_sign_and_what_is_not_finite(tmp_path):
    frames = with_signs(tmp_path)
    assert len(figures.draw("shift", frames, SPEC).axes) == 1
    bad = frames["shift"]["delta_over_r"].where(frames["shift"]["k"] == 0, np.nan) * np.nan
    for table in (frames["shift"].assign(relative_gap=bad, gap=bad),):
        figures.draw("shift", frames | {"shift": table}, SPEC)
        assert "no gap to remove" in figures.caption("shift", frames | {"shift": table}, SPEC)


def test_shift_caption(figure_data):
    # gap at no shift 0.4 in both; 0.2 and 0.05 at the best.
    said = figures.caption("shift", figure_data, SPEC)
    assert (
        "digits / mlp, uniform: b = 0: 50 % left at |δ*| = 0.1 R; b free: 12.5 % left at |δ*| = 0.1 R" in said
    )
    assert "Directions at sgd" in said
