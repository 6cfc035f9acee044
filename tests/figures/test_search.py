"""The figure of searches: what is drawn, and what is said."""

import math

import numpy as np
import pytest
from figure_checks import overlaps
from figure_tables import MANY, SPEC, through_parquet
from search_tables import make_searches, with_searches
from valleys import figures

pytestmark = pytest.mark.usefixtures("no_warnings")
ALL = ("asymmetric", "symmetric", "flat")


def points(axes):
    """Markers by whether they are filled: sorted x of each line's height, from the top."""
    found = {True: {}, False: {}}
    for line in axes.lines:
        if line.get_marker() == "o":
            lanes = np.rint(line.get_ydata()).astype(int)
            for lane, x in zip(lanes, line.get_xdata(), strict=True):
                found[line.get_markerfacecolor() != "white"].setdefault(int(lane), []).append(x)
    return {filled: {lane: sorted(xs) for lane, xs in lanes.items()} for filled, lanes in found.items()}


def upright(axes, style):
    """Places of lines from bottom to top of a panel, by their dashes."""
    return [
        line.get_xdata()[0]
        for line in axes.lines
        if line.get_linestyle() == style and list(line.get_ydata()) == [0, 1] and line.get_marker() != "o"
    ]


def test_each_minimum_is_a_point_filled_where_it_is_asymmetric(tmp_path):
    figure = figures.draw("search", with_searches(tmp_path, strengths=[4.5, 2.1, 1.5]), SPEC)
    figures.save(figure, tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])
    assert overlaps(figure) == []
    assert len(figure.axes) == 2
    drawn, hollow = (points(figure.axes[0])[filled] for filled in (True, False))
    assert drawn[0] == pytest.approx([2.25])
    assert hollow[0] == pytest.approx([0.75, 1.05])
    assert drawn[1] == pytest.approx([2.52, 5.4])
    assert drawn[2] == pytest.approx([2.1, 4.5])
    assert (drawn[3], hollow[3]) == (pytest.approx([4.05]), pytest.approx([1.35, 1.89]))
    counts = [text.get_text() for text in figure.axes[0].texts if "/" in text.get_text()]
    assert counts == ["1/3", "2/3", "2/3", "1/3"]


def test_a_flat_side_that_hardly_rises_is_not_filled(tmp_path):
    frames = with_searches(tmp_path)
    table = frames["searches"].assign(test_flat_rise=0.05, search_flat_rise=0.05)
    drawn = points(figures.draw("search", frames | {"searches": table}, SPEC).axes[0])
    assert set(drawn[True]) == {2}
    assert set(drawn[False]) == {0, 1, 3}


def test_reference_lines(tmp_path):
    axes = figures.draw("search", with_searches(tmp_path, bias_level=9.0), {**SPEC, "c": 2.5}).axes[0]
    assert upright(axes, "-") == [2.5]
    assert upright(axes, "-.") == [9.0]
    for absent in (None, math.nan):
        figure = figures.draw("search", with_searches(tmp_path, bias_level=absent), SPEC)
        assert upright(figure.axes[0], "-.") == []
        (legend,) = figure.legends
        assert not any("any weights" in text.get_text() for text in legend.get_texts())


def test_curves_of_the_smallest_seed_have_their_flat_side_at_the_right(tmp_path):
    """Also that of the random start, which is flatter towards -u at the second seed."""
    for seeds, start in (((0, 1), 1.5), ((1,), 1.5), ((7, 3), 1.625)):
        rows = make_searches(seeds=seeds)
        figure = figures.draw("search", through_parquet(tmp_path, rows), SPEC)
        assert figure.axes[1].texts[-1].get_text() == f"seed {min(seeds)}"
        curves = [line for line in figure.axes[1].lines if len(line.get_xdata()) == 21]
        assert [line.get_linestyle() for line in curves] == ["-", ":", "-", "--"]
        for line, c in zip(curves, (start, 2.4 * start, 2 * start, 1.8 * start), strict=True):
            ends = dict(zip(np.round(line.get_xdata(), 9), line.get_ydata(), strict=True))
            assert (ends[-1], ends[0], ends[1]) == pytest.approx((1, 0, 1 / c))


def test_other_directions_give_a_scale(tmp_path):
    figure = figures.draw("search", with_searches(tmp_path, seeks=ALL), SPEC)
    assert overlaps(figure) == []
    scale = figure.axes[2]
    at = {
        line.get_marker() + str(line.get_xdata()[0]): sorted(line.get_ydata())
        for line in scale.lines
        if line.get_marker() in "osD"
    }
    assert at["o0.5"] == pytest.approx([3, 3.25, 3.5])
    assert at["s1.25"] == pytest.approx([1.05] * 3)
    assert at["D3.0"] == pytest.approx([1.5] * 3)
    assert at["o1.0"] == pytest.approx([1.5] * 7 + [1.625, 1.75])
    said = figures.caption("search", with_searches(tmp_path, seeks=ALL), SPEC)
    assert "flattest (medians): R 3 times the random start's, ratio of rises 1.5" in said
    assert "most symmetric (medians): R 1.25 times the random start's, ratio of rises 1.05" in said
    assert "ratio of rises" not in figures.caption("search", with_searches(tmp_path), SPEC)


def test_a_network_that_was_searched_for_other_directions_alone(tmp_path):
    only = figures.draw("search", with_searches(tmp_path, seeks=("flat",)), SPEC)
    assert len(only.axes) == 1
    first, other = make_searches(MANY[:1], seeks=("flat",)), make_searches([("digits", "mlp", "quick")])
    frames = through_parquet(tmp_path, {name: first[name] + other[name] for name in first})
    figure = figures.draw("search", frames, SPEC)
    assert overlaps(figure) == []
    assert len(figure.axes) == 6
    assert "no search for an" in figure.axes[0].texts[0].get_text()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("seeks", [("asymmetric",), ALL])
def test_many_minima_of_several_networks_do_not_overlap(seeks, tmp_path):
    cells = [*MANY, *(("digits", f"mlp-{i}", "quick") for i in range(3))]
    frames = with_searches(tmp_path, cells=cells, seeds=range(20), seeks=seeks)
    figure = figures.draw("search", frames, SPEC)
    assert overlaps(figure) == []
    assert len(figure.axes) == 5 * (2 if len(seeks) == 1 else 3)
    figures.save(figure, tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])


@pytest.mark.parametrize("seeds", [(5,), (5, 6, 7)])
def test_without_a_c_star(seeds, tmp_path):
    frames = with_searches(tmp_path, seeds=seeds, strengths=[math.nan] * len(seeds), seeks=ALL)
    figure = figures.draw("search", frames, SPEC)
    figures.save(figure, tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])
    assert overlaps(figure) == []
    assert "none" in [text.get_text() for text in figure.axes[0].get_xticklabels()]
    said = figures.caption("search", frames, SPEC)
    assert "nan" not in said
    assert f"0 of {len(seeds)} " in said
    assert "no c*" in said


def test_those_with_a_c_star_leave_no_room_for_none(tmp_path):
    axes = figures.draw("search", with_searches(tmp_path), SPEC).axes[0]
    assert "none" not in [text.get_text() for text in axes.get_xticklabels()]
    axes = figures.draw("search", with_searches(tmp_path, strengths=[3.0, math.nan, -1.0]), SPEC).axes[0]
    none = axes.get_xticks()[0]
    assert axes.get_xticklabels()[0].get_text() == "none"
    assert points(axes)[False][2] == pytest.approx([none, none])


def test_without_test_images_or_curves(tmp_path):
    frames = with_searches(tmp_path)
    table = frames["searches"].assign(test_status=None, test_c_star=math.nan, test_flat_rise=math.nan)
    curves = frames["search_curves"]
    for kept in (curves[curves["images"] != "test"], curves.iloc[:0], curves.assign(loss=math.nan)):
        data = {"searches": table, "search_curves": kept}
        figure = figures.draw("search", data, SPEC)
        figures.save(figure, tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])
        assert "no test images" in [text.get_text() for text in figure.axes[0].texts]
        assert "test loss asymmetric" not in figures.caption("search", data, SPEC)


def test_caption(tmp_path):
    said = figures.caption("search", with_searches(tmp_path, k=2, strengths=[3.0, 2.5, 1.5]), SPEC)
    assert "Directions at sgd, at a rise of 1 nats; batch-norm statistics: frozen" in said
    assert "images searched on and unseen ones: 500 and 250." in said
    assert "Any weights reach c* up to 9 along an output's bias." in said
    assert "Of further directions, orthogonal to those before, 4 of 6 were found." not in said
    assert "Of further directions, orthogonal to those before, 2 of 3 were found." in said
    assert (
        "digits / mlp, search-asymmetric: 2 of 3 (20.8 % to 93.9 %); test loss asymmetric at 2; random start "
        "asymmetric at 0; median c* 1.25 (random start), 3 (searched on), 2.5 (unseen), 2.25 (test)"
    ) in said


def test_minima_of_sgd_and_of_names_of_ones_own(tmp_path):
    rows = make_searches()
    for name in rows:
        rows[name] += [row | {"solution": "swa"} for row in rows[name]]
    plain = figures.caption("search", with_searches(tmp_path), SPEC)
    assert figures.caption("search", through_parquet(tmp_path, rows), SPEC) == plain
    for name in rows:
        rows[name] = [row | {"solution": {"swa": "mine"}.get(row["solution"], "sgd")} for row in rows[name]]
    said = figures.caption("search", through_parquet(tmp_path, rows), SPEC)
    assert "digits / mlp / quick at mine, search-asymmetric: 3 of 3" in said
    assert len(figures.draw("search", through_parquet(tmp_path, rows), SPEC).axes) == 4
