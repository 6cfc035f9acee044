"""The sensitivity figure: what is drawn, and what is said."""

import pytest
from figure_tables import SPEC
from valleys import figures

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_sensitivity_panels(figure_data):
    figure = figures.draw("sensitivity", figure_data, SPEC)
    assert len(figure.axes) == 6
    dotted = [[line.get_linestyle() for line in axes.lines].count(":") for axes in figure.axes]
    assert dotted == [0, 0, 0, 0, 1, 0]  # rows of min_span, columns of zeta_max
    (line,) = (bars.lines[0] for bars in figure.axes[0].containers)
    assert line.get_ydata() == pytest.approx([100 * 9 / 60, 100 * 8 / 60, 100 * 6 / 60])
    text = figures.caption("sensitivity", figure_data, SPEC)
    assert "• digits / mlp, uniform: 13.3 % as set; 10 % to 15 % over all settings (n = 60)" in text
