"""Colours: palettes by name, and what must not look alike."""

import pytest
from figure_tables import SPEC
from valleys import figures
from valleys.errors import ValleysError
from valleys.figures import style

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_unknown_palette(figure_data):
    with pytest.raises(ValleysError, match=r"figures\.palette"):
        figures.draw("training", figure_data, {**SPEC, "style": {"palette": "rainbow"}})


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
