"""Figures for a paper: each panel alone says all it shows, at the width that was asked for."""

import pytest
from figure_checks import overlaps, texts
from figure_tables import (
    BETWEEN,
    MANY,
    NAMES,
    ONE,
    SPEC,
    make_between,
    make_rows,
    through_parquet,
    with_signs,
)
from matplotlib.text import Text
from search_tables import with_searches
from valleys import figures
from valleys.config.styles import COLUMN

pytestmark = pytest.mark.usefixtures("no_warnings")
STYLE = {"format": "png", "width": COLUMN, "dpi": 60}


def paper(**style):
    return {**SPEC, "style": {**STYLE, **style}}


def outside(figure):
    """Texts that are seen and run out of the figure by more than a pixel."""
    box = figure.bbox
    return [
        text
        for text, at in texts(figure)
        if min(at.x0 - box.x0, at.y0 - box.y0, box.x1 - at.x1, box.y1 - at.y1) < -1
    ]


def check_panels(name, frames, spec):
    """Draw each panel alone; return their names."""
    figure = figures.draw(name, frames, spec)
    found = figures.panels(figure, name)
    assert found
    for axes in found.values():
        figure.show_alone(axes)
        assert figure.get_figwidth() == spec["style"]["width"]
        assert [other for other in figure.axes if other.get_visible()] == [axes]
        assert overlaps(figure) == []
        assert outside(figure) == []
        seen = [t for t in axes.findobj(Text) if t.get_text() and t.get_visible()]
        assert min(t.get_fontsize() for t in seen) >= 7
        assert axes.get_xlabel() or not axes.axison
    return list(found)


@pytest.mark.slow
@pytest.mark.parametrize("font", ["serif", "sans-serif"])
@pytest.mark.parametrize("name", NAMES)
def test_each_panel_alone_is_whole_at_the_width_of_a_column(name, font, tmp_path):
    frames = through_parquet(tmp_path, make_rows([("digits", "resnet8-bn", "quick")], seeds=(0, 1)))
    names = check_panels(name, frames, paper(font=font))
    assert all(panel.startswith(f"{name}-") for panel in names)
    assert len(set(names)) == len(names)


@pytest.mark.slow
@pytest.mark.parametrize("width", [2.4, 7.0])
@pytest.mark.parametrize("name", ["line-swa-descent", "curves-uniform", "plane-solutions"])
def test_each_panel_alone_is_whole_at_other_widths(name, width, tmp_path):
    frames = through_parquet(tmp_path, make_rows(seeds=(0, 1)))
    check_panels(name, frames, paper(width=width, font_size=8))


@pytest.mark.slow
def test_panels_of_searches_signs_and_lines_between_cells(tmp_path):
    names = check_panels("search", with_searches(tmp_path, seeks=("asymmetric", "flat")), paper())
    assert names == [f"search-digits-mlp-{letter}" for letter in "abc"]
    assert check_panels("sign", with_signs(tmp_path), paper()) == ["sign-digits-mlp-a", "sign-digits-mlp-b"]
    frames = through_parquet(tmp_path, make_between())
    for name in BETWEEN:
        check_panels(name, frames, paper())


@pytest.mark.slow
def test_long_names_are_broken(tmp_path):
    frames = through_parquet(tmp_path, make_rows(MANY, seeds=(0,)))
    names = check_panels("training", frames, paper(width=4.5))
    assert names[:2] == ["training-digits-resnet8-bn-quick-a", "training-digits-resnet8-bn-quick-b"]


def test_a_further_network_renames_no_panel(tmp_path):
    one, two = (
        figures.panels(figures.draw("training", frames, paper()), "training")
        for frames in (
            through_parquet(tmp_path, make_rows(cells, seeds=(0,)))
            for cells in (ONE, [("a-first", "mlp", "quick"), *ONE])
        )
    )
    assert set(one) < set(two)
    assert next(iter(two)) == "training-a-first-mlp-a"


def test_panels_have_the_legend_that_they_need(tmp_path):
    figure = figures.draw("search", with_searches(tmp_path), paper())
    levels, curves = figures.panels(figure, "search").values()

    def legend():
        return [text.get_text() for text in figure.legends[0].get_texts()]

    everything = legend()
    figure.show_alone(levels)
    assert "asymmetric" in legend()
    assert "window of c*" not in legend()
    figure.show_alone(curves)
    assert "asymmetric" not in legend()
    assert {*legend()} < {*everything}
    assert "window of c*" in legend()


def test_a_narrow_figure_has_its_panels_below_each_other(tmp_path):
    frames = through_parquet(tmp_path, make_rows(seeds=(0, 1)))
    for style in ({"width": COLUMN}, STYLE):
        figure = figures.draw("training", frames, {**SPEC, "style": style})
        assert figure.get_figwidth() == COLUMN
        assert overlaps(figure) == []
        loss, accuracy = figure.axes
        assert loss.get_position().y0 > accuracy.get_position().y1
        assert loss.get_title("left") == accuracy.get_title("left") == "digits / mlp"
    usual = figures.draw("training", frames, SPEC)
    assert usual.get_figwidth() == 7
    assert [axes.get_title("left") for axes in usual.axes] == ["digits / mlp", ""]


def test_panels_that_share_an_axis_have_one_scale_alone_too(tmp_path):
    frames = through_parquet(tmp_path, make_rows(seeds=(0, 1), probes=("uniform", "gaussian")))
    figure = figures.draw("shift", frames, paper())
    first, second = figures.panels(figure, "shift").values()
    assert first.get_ylim() == second.get_ylim() == (0, 1.5)
    figure.show_alone(second)
    assert [t.get_text() for t in second.get_yticklabels() if t.get_visible()]
    assert second.get_ylabel() == first.get_ylabel() != ""


def test_nothing_to_draw_is_no_panel(tmp_path):
    frames = through_parquet(tmp_path, {"training": []})
    figure = figures.draw("training", frames, paper())
    assert figures.panels(figure, "training") == {}
    assert figures.save_panels(figure, "training", tmp_path / "out", STYLE) == []
    assert list((tmp_path / "out").iterdir()) == []
    assert outside(figure) == []


def test_a_pdf_has_its_fonts_its_width_and_the_same_bytes(tmp_path):
    frames = through_parquet(tmp_path, make_rows(seeds=(0,)))
    style = {"format": "pdf", "width": COLUMN, "font": "serif"}
    spec = {**SPEC, "style": style}
    paths = figures.save_panels(figures.draw("training", frames, spec), "training", tmp_path / "a", style)
    assert [path.name for path in paths] == ["training-digits-mlp-a.pdf", "training-digits-mlp-b.pdf"]
    pdf = paths[0].read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"STIXGeneral" in pdf
    assert b"DejaVu" not in pdf
    assert b"CreationDate" not in pdf
    assert f"/MediaBox [ 0 0 {COLUMN * 72:g} ".encode() in pdf
    again = figures.save_panels(figures.draw("training", frames, spec), "training", tmp_path / "b", style)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_text_of_an_svg_is_text(tmp_path):
    frames = through_parquet(tmp_path, make_rows(seeds=(0,)))
    for font, family in (
        ("serif", "font-family: 'STIXGeneral'"),
        ("sans-serif", "font-family: 'DejaVu Sans'"),
    ):
        style = {"format": "svg", "width": COLUMN, "font": font}
        figure = figures.draw("training", frames, {**SPEC, "style": style})
        (path, _) = figures.save_panels(figure, "training", tmp_path / font, style)
        svg = path.read_text()
        assert ">epoch</text>" in svg
        assert family in svg
        assert svg.count(f"{font}; text-anchor") > 5  # the generic family comes last


def test_a_family_by_its_name_is_used(tmp_path):
    frames = through_parquet(tmp_path, make_rows(seeds=(0,)))
    figure = figures.draw("training", frames, paper(font="DejaVu Serif"))
    path = tmp_path / "a.pdf"
    figures.save_as(figure, path, {**STYLE, "font": "DejaVu Serif"})
    assert b"DejaVuSerif" in path.read_bytes()
