"""Colours: palettes by name, and what must not look alike."""

import pytest
from figure_tables import SPEC
from matplotlib.colors import to_hex
from valleys import figures
from valleys.errors import ValleysError
from valleys.figures import style

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_unknown_palette(figure_data):
    with pytest.raises(ValleysError, match=r"figures\.palette"):
        figures.draw("training", figure_data, {**SPEC, "style": {"palette": "rainbow"}})


def test_the_style_file_is_one_of_matplotlibs():
    import matplotlib.pyplot as plt

    with plt.style.context("valleys.figures.valleys"):
        assert plt.rcParams["pdf.fonttype"] == 42
        assert plt.rcParams["svg.fonttype"] == "none"
        assert plt.rcParams["figure.figsize"] == [3.35, 2.3]
        cycle = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    look = style.Look(style.STYLE)
    assert cycle == [to_hex(look.nth(i)) for i in range(10)]


def test_figures_are_drawn_in_the_style_of_the_file():
    import matplotlib as mpl

    told = mpl.rc_params_from_file(style.MPLSTYLE, use_default_template=False)
    drawn = style.rc({**style.STYLE, "font_size": 8, "font": "serif"})
    differ = {key for key in told if told[key] != drawn[key]}
    assert differ == {"font.family", "figure.constrained_layout.use"}
    assert drawn["font.family"][:2] == [told["font.serif"][0], "serif"]
    assert style.rc({**style.STYLE, "font": "Some Family"})["font.family"] == ["Some Family", "sans-serif"]


@pytest.mark.parametrize("palette", ["petroff10", "tableau-colorblind10", "Dark2"])
def test_palettes_keep_what_meets_apart(palette):
    look = style.Look({**style.STYLE, "palette": palette})
    for things in (
        ("train", "test"),
        ("sgd", "swa", "descent", "last"),
        ("released", "converged"),
        ("fixed", "free"),
    ):
        assert len({look.colour(thing) for thing in things}) == len(things)


@pytest.mark.parametrize("palette", ["petroff10", "tableau-colorblind10", "Dark2"])
def test_solutions_under_names_of_ones_own_have_a_colour_and_a_mark(palette):
    names = ("sgd", "swa", "descent", "last", "mine", "test")
    look = style.Look({**style.STYLE, "palette": palette}, ("mine", "test"))
    assert len({look.marker(name) for name in names}) == 6
    assert len({str(look.of_solution(name)) for name in names}) == 6
    plain = style.Look({**style.STYLE, "palette": palette})
    for name in (*names[:4], "train", "test"):  # the test loss, not the weights of that name
        assert look.colour(name) == plain.colour(name)
