"""Figures of planes: what is drawn, and what is said."""

import itertools

import numpy as np
import pandas as pd
import pytest
from figure_checks import overlaps
from figure_tables import MANY, ONE, SPEC, make_rows, through_parquet
from matplotlib.backends.backend_agg import FigureCanvasAgg
from valleys import figures
from valleys.figures import plane

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_plane_marks(figure_data):
    left, right = figures.draw("plane-solutions", figure_data, SPEC).axes
    for axes in (left, right):
        marks = {line.get_marker(): line for line in axes.lines}
        assert set(marks) == {"o", "s", "D", "+", "x"}
        places = {k: (float(line.get_xdata()[0]), float(line.get_ydata()[0])) for k, line in marks.items()}
        # Of the grid's points (steps 1 and 2) those nearest to (2, 0) and (3, 2).
        assert places == {"o": (0, 0), "s": (4, 0), "D": (3, 1), "+": (2, 0), "x": (3, 2)}
        assert axes.get_aspect() == 1
    assert left.child_axes[0].get_ylabel() == "train loss [nats]"
    axes = figures.draw("plane-iterates", figure_data, SPEC).axes[0]
    path = next(line for line in axes.lines if len(line.get_xdata()) == 4)
    assert path.get_xdata() == pytest.approx([0, 1, 2, 3])
    filled = {line.get_marker(): line.get_markerfacecolor() != "none" for line in axes.lines}
    assert (filled["s"], filled["D"]) == (True, False)
    ends = {k: [line.get_xdata()[0] for line in axes.lines if line.get_marker() == k] for k in "^v"}
    assert ends == {"^": [0], "v": [3]}


def test_plane_is_that_of_the_lowest_seed(figure_data):
    more = {name: figure_data[name].assign(seed=7) for name in ("planes", "plane_points")}
    more["planes"]["train_loss"] += 5
    both = {name: pd.concat([more[name], figure_data[name]]) for name in more}
    assert figures.caption("plane-solutions", both, SPEC) == figures.caption(
        "plane-solutions", figure_data, SPEC
    )


@pytest.mark.parametrize("low", [0.0, 1e-7, 0.02, 3.0])
@pytest.mark.parametrize("high", [0.0, 1e-3, 600.0])
def test_levels_rise_and_are_dense_near_the_least(low, high):
    levels = plane._levels(low + high * np.linspace(0, 1, 50) ** 2)
    steps = np.diff(levels)
    assert levels[0] == low
    assert (steps > 0).all()
    assert (np.diff(steps[1:]) > 0).all() or high == 0
    assert high == 0 or levels[-1] == pytest.approx(low + 0.81 * high, rel=0.02)
    assert len(set(plane._distinct(levels))) == len(levels) or high == 0


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), 1e30])
def test_plane_with_losses_that_are_not_finite(figure_data, bad):
    table = figure_data["planes"].copy()
    for rows in (table["x"] > 4, table["x"] > -9):
        table.loc[rows, "train_loss"] = bad
        figure = figures.draw("plane-solutions", figure_data | {"planes": table}, SPEC)
        assert overlaps(figure) == []
        said = figures.caption("plane-solutions", figure_data | {"planes": table}, SPEC)
        assert "nan" not in said
    assert ("no finite train loss" in said) == (bad != 1e30)


@pytest.mark.slow
@pytest.mark.long
def test_planes_stay_within_the_figure(tmp_path):
    three = [*MANY, ("digits", "resnet8-plain", "quick")]
    for cells, style in itertools.product((ONE, three), ({}, {"font_size": 12}, {"width": 12.0})):
        frames = through_parquet(tmp_path, make_rows(cells, seeds=(0,)))
        for name in ("plane-solutions", "plane-iterates"):
            figure = figures.draw(name, frames, {**SPEC, "style": style})
            FigureCanvasAgg(figure).draw()
            wide, high = figure.bbox.size
            for axes in figure.axes:
                box = axes.get_tightbbox()
                assert box.x0 > -1
                assert box.x1 < wide + 1
                assert box.y0 > -1
                assert box.y1 < high + 1


def test_plane_captions(figure_data):
    said = figures.caption("plane-solutions", figure_data, SPEC)
    assert (
        "digits / mlp (seed 0): least train loss 0.01 nats, 2 from sgd, 2 from swa, 1.41 from descent;"
        " least test loss 0.05 nats, 3.61 from sgd, 2.24 from swa, 1 from descent; grid step 1 by 2" in said
    )
    said = figures.caption("plane-iterates", figure_data, SPEC)
    assert "out of the plane: sgd 1.5, descent 1.5, iterates 1.25 to 2" in said
    assert "the axes have 50 % and 25 % of the iterates' variance" in said
    assert "Batch-norm statistics: refreshed" in said
