"""The training figure: what is drawn, and what is said."""

import pytest
from figure_tables import SPEC
from valleys import figures

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_training_lines(figure_data):
    figure = figures.draw("training", figure_data, SPEC)
    loss = figure.axes[0]
    mean = next(line for line in loss.lines if line.get_linewidth() == 1.6 and line.get_linestyle() == "--")
    assert list(mean.get_xdata()) == [2, 4, 6, 8]
    assert list(mean.get_ydata()) == pytest.approx([2 / e + 1 for e in (2, 4, 6, 8)])
    assert max(line.get_ydata().max() for line in loss.lines if len(line.get_xdata()) > 2) < 99  # no descent
    assert any(line.get_xdata()[0] == 4 == line.get_xdata()[1] for line in loss.lines)  # SWA's start


def test_training_caption(figure_data):
    # Test loss at the last epoch: 2 / 8 + seed, mean over seeds 0, 1, 2.
    said = figures.caption("training", figure_data, SPEC)
    assert "digits / mlp: train loss 0.125 nats, test loss 1.25 nats, test accuracy 80 % (3 seeds)" in said
