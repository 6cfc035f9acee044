"""Figures of lines and paths: what is drawn, and what is said."""

import pytest
from figure_checks import overlaps, texts
from figure_tables import BETWEEN, MANY, SPEC, make_between, make_rows, through_parquet
from matplotlib.backends.backend_agg import FigureCanvasAgg
from valleys import figures
from valleys.results.stats import mean_interval

pytestmark = pytest.mark.usefixtures("no_warnings")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("seeds", [(0, 1, 2), (4,)])
def test_lines_between_cells_say_where_their_ends_are(name, seeds, tmp_path):
    cells = [*MANY, ("digits", "resnet8-plain", "quick")]
    frames = through_parquet(
        tmp_path, make_between(cells, seeds, recipe_name="large-batch-and-a-rather-long-name")
    )
    figure = figures.draw(name, frames, SPEC)
    assert overlaps(figure) == []
    figures.save(figure, tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])
    seen = [text for text, _ in texts(figure)]
    first, second = ("seed 4", "seed 5") if len(seeds) == 1 else ("a seed", "the next seed")
    if name == "line-to-recipe":
        first, second = "quick", "large-batch-and-a…"
    assert f"swa\n{first}" in seen
    assert f"swa\n{second}" in seen
    caption = figures.caption(name, frames, SPEC)
    full = "large-batch-and-a-rather-long-name" if name == "line-to-recipe" else second
    assert f"t = 0 is swa of {first}, t = 1 is swa of {full}" in caption


def test_barriers_are_told_with_their_intervals(tmp_path):
    frames = through_parquet(tmp_path, make_between())
    found = mean_interval([2.0, 3.0, 4.0], SPEC["level"])
    mean, low, high = (figures.number(value) for value in (found.estimate, found.low, found.high))
    numbers = f"{mean} ({low} to {high})"
    caption = figures.caption("line-to-seed", frames, SPEC)
    assert f"barrier: train {numbers}, test {numbers} nats" in caption
    caption = figures.caption("line-curve", frames, SPEC)
    assert "barrier: train 0.02 (0.02 to 0.02)" in caption
    assert f"on the straight line train {numbers}" in caption


@pytest.mark.slow
def test_a_path_is_drawn_with_the_straight_line_between_its_ends(tmp_path):
    def dotted(frames):
        loss = figures.draw("line-curve", frames, SPEC).axes[0]
        return [line for line in loss.lines if line.get_linestyle() == ":"]

    rows = make_between()
    train, _ = dotted(through_parquet(tmp_path, rows))
    assert train.get_xdata() == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert train.get_ydata().max() == pytest.approx(3.0 + 0.015)
    rows["interpolation"] = [row for row in rows["interpolation"] if row["line"] != "to-seed"]
    assert dotted(through_parquet(tmp_path, rows)) == []


def test_line_keeps_the_middle_readable(figure_data):
    """The test loss explodes at t = 3; the axes do not follow it."""
    loss, change, error = figures.draw("line-swa-descent", figure_data, SPEC).axes
    assert loss.get_ylim()[1] < 10
    assert loss.get_ylim()[0] >= 0
    assert change.get_ylim()[1] < 5
    assert error.get_ylim()[0] == 0
    names = {t.get_text() for t in loss.texts}
    assert names == {"swa", "descent"}


def test_line_caption(figure_data):
    # Per seed the test minimum lies at 0.25, 0.5, 0.75; the train minimum at 1 in all.
    said = figures.caption("line-swa-descent", figure_data, SPEC)
    i = mean_interval([0.25, 0.5, 0.75])
    low = f"{i.low:.3g}".replace("-", "−")
    assert f"train at t = 1 (1 to 1), test at t = 0.5 ({low} to {i.high:.3g})" in said
    assert "train loss at descent − at swa: −0.04 (−0.04 to −0.04) nats" in said


def test_a_lowest_point_at_the_end_of_a_line_is_drawn_whole(tmp_path):
    rows = make_rows()["interpolation"]
    for row in rows:
        row["train_loss"] = row["test_loss"] = 0.5 - 0.1 * row["t"]
    figure = figures.draw("line-swa-descent", through_parquet(tmp_path, {"interpolation": rows}), SPEC)
    FigureCanvasAgg(figure).draw()
    loss = figure.axes[0]
    carets = [line for line in loss.lines if line.get_marker() in (6, 7)]
    assert [float(line.get_xdata()[0]) for line in carets] == [3, 3]
    half = 3 / 72 * figure.dpi  # pixels
    for line in carets:
        assert line.get_clip_box().x1 > loss.bbox.x1 + half
        assert line.get_clip_path() is None
