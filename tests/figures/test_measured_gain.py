"""The figure of gains on measured curves: what is drawn, and what is said."""

import numpy as np
import pytest
from figure_tables import SPEC
from valleys import figures

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_measured_gains_are_means_over_minima(figure_data):
    (panel,) = figures.draw("theory-measured", figure_data, SPEC).axes
    means = {bars.lines[0].get_color(): bars.lines[0].get_ydata() for bars in panel.containers[::2]}
    # Scale 1/4, biases of 1/8 and 1/4, seeds 0 to 2.
    assert [list(y) for y in means.values()] == [
        pytest.approx(y) for y in ([0.0635, 0.126], [-0.03025, -0.0615])
    ]
    tests = [bars.lines[0].get_ydata()[0] for bars in panel.containers[1::2]]
    assert tests == pytest.approx([0.0635 / 2, -0.03025 / 2])
    assert [t.get_text() for t in panel.texts] == ["n = 6 + 3", "uniform"]
    text = figures.caption("theory-measured", figure_data, SPEC)
    assert "• digits / mlp, uniform: asymmetric +0.0635 (0.061 to 0.066) nats" in text
    assert "positive in 0 % of all rows of the table with the window of Definition 1, and in 0 %" not in text


def test_wide_intervals_do_not_hide_the_means(figure_data):
    table = figure_data["theory_measured"]
    asymmetric = table["status"] == "asymmetric"
    table = table[~asymmetric | (table["seed"] < 2)]  # two minima, far apart: an interval 12.7 times as wide
    table = table.assign(gain=table["gain"].where(~asymmetric | (table["seed"] == 0), 0.12))
    (panel,) = figures.draw("theory-measured", figure_data | {"theory_measured": table}, SPEC).axes
    low, high = panel.get_ylim()
    drawn = np.concatenate([bars.lines[0].get_ydata() for bars in panel.containers])
    assert low < drawn.min() < 0 < drawn.max() < high
    assert high - low < 2.5 * (drawn.max() - drawn.min())
