"""Figures of the simulations: what is drawn, and what is said."""

import pytest
from figure_tables import SPEC
from valleys import figures

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_theory_captions(figure_data):
    said = figures.caption("theory-average", figure_data, SPEC)
    assert "1000 chains a row, 20 iterates averaged after 10 others. 48 of 72 rows are asymmetric" in said
    assert (
        "linear: the mean is on the flat side in 16 of 16 rows with c > 1; and in 4 of the 4 inside Theorem 2"
        in said
    )
    assert "there 0.2 to 0.4 of the iterates' training loss stays" in said
    assert (
        "with c = 1 the mean is 0 standard errors from 0; the average has 0.25 of the iterates' loss" in said
    )
    said = figures.caption("theory-gain", figure_data, SPEC)
    # gain > 0 at c = 2: 0.25; at c = 4: 0.25, 1; twice for shifts and scales each. The limit is 0.5 d.
    assert "linear: a gain for 8 of 8 biases below the limit and for 4 of 16 others" in said
    assert "at most 2 standard errors from the closed form" in said
    assert "2 times the bound in the 8" in figures.caption("theory-average", figure_data, SPEC)
    assert "inside Theorem 1" in said
    assert "drawn for d = 2, told of all 2 values of d" in said


def test_theory_figures_show_what_the_tables_hold(figure_data):
    top = figures.draw("theory-average", figure_data, SPEC).axes[0]
    assert top.get_yscale() == "log"
    bounds = [line for line in top.lines if line.get_marker() == "_"]
    rings = [line for line in top.lines if line.get_markersize() == 7]
    assert sorted(len(line.get_xdata()) for line in rings) == [
        0,
        0,
        1,
        1,
    ]  # c = 4, noise up to 0.5, two kinds
    assert len(bounds) == 4  # a noise each, of its positive bounds only
    assert all(len(line.get_xdata()) == 1 for line in bounds)
    axes = figures.draw("theory-gain", figure_data, SPEC).axes
    assert len(axes) == 4
    limits = [line.get_xdata()[0] for line in axes[0].lines if line.get_marker() == "|"]
    assert limits == [0.5, 0.5]
