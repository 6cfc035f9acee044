"""The sign figure: what is drawn, and what is said."""

import pytest
from figure_checks import overlaps
from figure_tables import MANY, SPEC, make_signs, through_parquet, with_signs
from valleys import figures

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_signs(tmp_path):
    frames = with_signs(tmp_path)
    figure = figures.draw("sign", frames, SPEC)
    figures.save(figure, tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])
    assert overlaps(figure) == []
    assert len(figure.axes) == 2
    for axes in figure.axes:
        (means,) = (line for line in axes.lines if line.get_linewidth() == 0.8 and len(line.get_xdata()) > 2)
        # -u of share 1 is drawn at 0; that of 0.25 too, at 75; at 50 there are directions probed.
        assert means.get_xdata() == pytest.approx([0, 25, 50, 75, 100])
        assert means.get_ydata() == pytest.approx([-2.1, -0.9, 0.1, 0.9, 2.1])


@pytest.mark.slow
def test_signs_of_several_cells_do_not_overlap(tmp_path):
    cells = [*MANY, ("digits", "resnet8-plain", "quick")]
    rows = make_signs(cells, groups=("all", "bn_weight", "conv", "classifier"))
    for name in ("asymmetry", "directions"):  # a cell without a group
        rows[name] = [r for r in rows[name] if (r["model"], r["group"]) != ("resnet8-plain", "bn_weight")]
    figure = figures.draw("sign", through_parquet(tmp_path, rows), SPEC)
    assert overlaps(figure) == []
    assert len(figure.axes) == 12
    assert [t.get_text() for axes in figure.axes for t in axes.texts].count("not probed") == 1


@pytest.mark.parametrize("bad", [float("nan"), 1e30])
def test_signs_without_an_index(tmp_path, bad):
    frames = with_signs(tmp_path, seeds=(0,), n=1)
    for rows in (slice(-1, None), slice(None)):
        table = frames["asymmetry"].copy()
        table.loc[table.index[rows], "asymmetry_index"] = bad
        figures.draw("sign", frames | {"asymmetry": table}, SPEC)
        assert "nan" not in figures.caption("sign", frames | {"asymmetry": table}, SPEC)


def test_sign_caption(tmp_path):
    said = figures.caption("sign", with_signs(tmp_path), SPEC)
    assert "digits / mlp, conv: −0.9 at 25 %, 0.1 at 50 %, 2.1 at 100 %" in said
    assert "(3 seeds)" in said
