"""Panels, headings and marks: where they stand."""

import numpy as np
import pytest
from figure_checks import overlaps
from figure_tables import MANY, SPEC, make_rows, through_parquet
from matplotlib.backends.backend_agg import FigureCanvasAgg
from valleys import figures
from valleys.figures import layout

pytestmark = pytest.mark.usefixtures("no_warnings")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ["shift", "sensitivity", "theory-measured"])
@pytest.mark.parametrize("font_size", [9, 12])
def test_long_names_widen_no_column(name, font_size, tmp_path):
    probes = ("uniform", "gaussian", "filter", "pca_1")
    frames = through_parquet(tmp_path, make_rows(MANY, seeds=(0,), probes=probes))
    figure = figures.draw(name, frames, {**SPEC, "style": {"font_size": font_size}})
    FigureCanvasAgg(figure).draw()
    places = sorted({round(axes.get_position().x0, 4) for axes in figure.axes})
    assert len(places) >= 3
    steps = np.diff(places)
    assert steps.max() < 1.35 * steps.min()  # names are not broken: one may be wider than two panels
    assert overlaps(figure) == []
    for axes in figure.axes:  # and no heading runs out of the figure
        assert axes.get_tightbbox().x1 < figure.bbox.width + 1


def test_marks_that_are_present_stand_about_the_middle():
    assert layout.beside([True, True, True], 0.2) == pytest.approx([-0.2, 0, 0.2])
    left, _, right = layout.beside([True, False, True], 0.2)
    assert (left, right) == pytest.approx((-0.1, 0.1))
    assert layout.beside([False, True], 0.2)[1] == 0
