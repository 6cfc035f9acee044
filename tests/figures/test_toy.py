"""Figures of the 2-D MLP: what is said."""

import pytest
from figure_tables import SPEC
from valleys import figures

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_toy_captions(figure_data):
    surface = figures.caption("toy-surface", figure_data, SPEC)
    assert (
        f"lowest loss on the grid is {figures.number(figure_data['toy_2d_surface']['loss'].min())} nats"
        in surface
    )
    assert "recipe converged: loss 0.3 nats at weight 1, bias 0.5; rise 5 nats" in surface
    curves = figures.caption("toy-curves", figure_data, SPEC)
    assert "recipe released: 75 % of 4 draws asymmetric" in curves
    assert "recipe converged: 100 % of 4 draws asymmetric" in curves
    assert "median rise 6.5 nats at the lower end of the line and 0.75 at the upper" in curves


def test_draws_without_a_minimum_are_told_apart(figure_data):
    toy = figure_data["toy_2d"].copy()
    toy.loc[(toy["recipe"] == "converged") & (toy["draw"] == 3), "status"] = "no_minimum"
    curves = figures.caption("toy-curves", figure_data | {"toy_2d": toy}, SPEC)
    assert "recipe converged: 100 % of 3 draws asymmetric" in curves
    assert "1 further draws have no minimum" in curves
