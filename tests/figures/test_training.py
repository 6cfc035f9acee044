"""The training figure: what is drawn, and what is said."""

import pandas as pd
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


def means(figure, style):
    lines = [line for line in figure.axes[0].lines if line.get_linestyle() == style]
    return [line for line in lines if line.get_linewidth() == 1.6]


def test_the_cooldown_is_dotted_from_where_averaging_begins(figure_data):
    figure = figures.draw("training", figure_data, SPEC)
    train, test = means(figure, ":")
    assert list(train.get_xdata()) == [5, 6, 7, 8]
    assert list(train.get_ydata()) == pytest.approx([0.25 / e for e in (5, 6, 7, 8)])
    assert list(test.get_xdata()) == [6, 8]
    assert list(means(figure, "-")[0].get_xdata()) == list(range(1, 9))  # and is no part of the schedule
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "rate cooled down (sgd)" in words
    table = figure_data["training"]
    without = {**figure_data, "training": table[table["phase"] != "cooldown"]}
    figure = figures.draw("training", without, SPEC)
    assert "rate cooled down (sgd)" not in [text.get_text() for text in figure.legends[0].get_texts()]
    assert all(not len(line.get_xdata()) for line in means(figure, ":"))


def test_a_cooldown_longer_than_averaging_is_not_shaded(figure_data):
    table = figure_data["training"].copy()
    longer = table[(table["phase"] == "cooldown") & (table["epoch"] == 8)].assign(epoch=12)
    figure = figures.draw("training", {**figure_data, "training": pd.concat([table, longer])}, SPEC)
    axes = figure.axes[0]
    assert axes.get_xlim() == (0, 12)
    (shade,) = axes.patches
    assert shade.get_bbox().x1 == 8


def test_training_caption(figure_data):
    # Test loss at the last epoch: 2 / 8 + seed, mean over seeds 0, 1, 2.
    said = figures.caption("training", figure_data, SPEC)
    ends = "test loss 1.25 nats, test accuracy 80 %"
    swa, sgd = f"train loss 0.125 nats, {ends}", f"train loss 0.0312 nats, {ends}"
    assert f"digits / mlp: {swa}; cooled down {sgd} (3 seeds)" in said
