"""The figure of the scan over all angles: what is drawn, and what is said."""

import numpy as np
import pytest
from figure_tables import SPEC
from valleys import figures

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_the_figure_shows_what_the_table_holds(figure_data):
    axes = figures.draw("toy-angles", figure_data, SPEC).axes
    assert len(axes) == 3 * 2  # two recipes and the shares, a column a rise
    for panel, level in zip(axes[:2], (5.0, 9.0), strict=True):
        draws, (median,) = panel.lines[:4], panel.lines[4:5]
        for line in (*draws, median):
            assert line.get_xdata() == pytest.approx(np.arange(0, 180, 15))
            assert line.get_ydata() == pytest.approx([level, 1.0] * 6)
    for line in axes[4].lines:
        assert line.get_ydata() == pytest.approx([100, 0] * 6)


def test_a_median_needs_half_of_the_draws(figure_data):
    table = figure_data["toy_2d_angles"].copy()
    table.loc[(table["draw"] > 0) & (table["angle"] == 30), "c_star"] = np.nan
    panel = figures.draw("toy-angles", figure_data | {"toy_2d_angles": table}, SPEC).axes[0]
    assert np.isnan(panel.lines[4].get_ydata()).tolist() == [angle == 30 for angle in range(0, 180, 15)]
    assert panel.lines[0].get_ydata()[2] == 5.0


def test_the_caption_counts_finds(figure_data):
    said = figures.caption("toy-angles", figure_data, SPEC)
    assert (
        "recipe converged, rise 2 nats: an asymmetric direction whose flat side rises enough in 3 of 4"
        in said
    )
    assert "50 % of all angles and 25 % of U(0, 1) directions are asymmetric" in said
    assert "greatest c* of a draw 9 (median)" in said
