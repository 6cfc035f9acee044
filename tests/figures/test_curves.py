"""Figures of curves: what is drawn, and what is said."""

import numpy as np
import pytest
from figure_tables import SPEC
from valleys import figures

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_curves_are_rises_over_radius(figure_data):
    figure = figures.draw("curves-uniform", figure_data, SPEC)
    mean = next(line for line in figure.axes[0].lines if line.get_linewidth() == 1.6)
    assert mean.get_xdata() == pytest.approx(np.linspace(-1, 1, 11))
    assert mean.get_ydata()[[0, 5, 10]] == pytest.approx([4, 0, np.mean([0.5, 1.5, 2.5, 3.5])])
    test = [line for line in figure.axes[0].lines if line.get_linewidth() == 1.6][1]
    assert test.get_ydata()[[0, 5]] == pytest.approx([3.9, 0])


def test_curves_of_an_adaptive_probe_are_drawn_at_all_points(figure_data):
    """Some curves have some of the points: the mean at each offset is over all of them."""
    curves = figure_data["curves"]
    fewer = (curves["k"] == 0) & (curves["seed"] < 2)
    at = curves.groupby(["seed", "solution", "k"]).cumcount()
    some = curves.assign(grid_points=11)[~fewer | ~at.isin([1, 3, 7])].reset_index(drop=True)
    assert len(some) < len(curves)
    means = []
    for table in (curves, some):
        axes = figures.draw("curves-uniform", {**figure_data, "curves": table}, SPEC).axes[0]
        means.append(next(line for line in axes.lines if line.get_linewidth() == 1.6))
    assert means[1].get_xdata() == pytest.approx(np.linspace(-1, 1, 11))
    assert means[1].get_ydata() == pytest.approx(means[0].get_ydata(), abs=0.05)


def test_curves_caption(figure_data):
    said = figures.caption("curves-uniform", figure_data, SPEC)
    assert "digits / mlp at sgd: 4 nats at −R and 2 at +R, asymmetric 6 of 12" in said
    assert "R is 2 to 5 in 2-norm of weights (6 of 24 curves do not reach the target rise)" in said


@pytest.mark.parametrize(("times", "scale"), [(1, "linear"), (50, "linear"), (1e5, "symlog")])
def test_losses_that_explode_are_on_a_logarithmic_axis(figure_data, times, scale):
    """So that the side that stays low shows; with labels that people read."""
    curves = figure_data["curves"].copy()
    up = curves["offset"] > 0
    curves.loc[up, ["train_loss", "test_loss"]] *= times
    figure = figures.draw("curves-uniform", {**figure_data, "curves": curves}, SPEC)
    axes = figure.axes[0]
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    mean = next(line for line in axes.lines if line.get_linewidth() == 1.6).get_ydata()
    assert low < mean.min()
    assert high > mean.max()
    if scale == "symlog":
        figure.canvas.draw()
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert {"0", "1", "100"} <= set(labels)
        assert "10⁵" in labels
        assert not any("$" in label for label in labels)


def test_the_least_point_of_the_train_curves_is_marked(figure_data):
    table = figure_data["asymmetry"].assign(minimum=-0.2 * figure_data["asymmetry"]["radius"])
    for least, expected in ((table, [-0.2]), (table.assign(minimum=float("nan")), [])):
        figure = figures.draw("curves-uniform", figure_data | {"asymmetry": least}, SPEC)
        (axes, *_) = figure.axes
        marks = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"]
        assert marks == pytest.approx(expected)
