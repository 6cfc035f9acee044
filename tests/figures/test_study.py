"""Figures of studies: what is drawn follows from what the table holds, and is told as drawn."""

import json
import math

import numpy as np
import pytest
from figure_checks import overlaps, texts
from figure_tables import SPEC
from matplotlib.colors import to_hex
from study_tables import FILTER, GAUSSIAN, HESSIAN, UNIFORM, minimum, variants
from valleys import figures
from valleys.figures import study as study_figure
from valleys.figures import style
from valleys.results.stats import mean_interval, wilson
from valleys.storage import tables

DECAY, NORM, INIT = "recipe.weight_decay", "model.norm", "model.norm_init"
pytestmark = pytest.mark.usefixtures("no_warnings")


def data(folder, rows, name="mine", other=True):
    """The studies as a script meets them; another study stands beside the one that is drawn."""
    studies = {name: rows} | ({"other": minimum({}, 0, (5.0,))} if other else {})
    for study, content in studies.items():
        tables.write(folder / f"{study}.parquet", "study", content)
    return tables.frames(folder / f"{study}.parquet" for study in studies)


def drawn(folder, rows, **spec):
    frames = data(folder, rows)
    figure = figures.draw("study-mine", frames, {**SPEC, **spec})
    figures.save(figure, folder / "a.png", folder / "a.svg", SPEC["style"])
    assert overlaps(figure) == []
    return figure, figures.caption("study-mine", frames, {**SPEC, **spec})


def panels(figure):
    """Panels by the measure written above them and the factor at their row's start."""
    found, factor = {}, ""
    for axes in figure.axes:
        factor = axes.get_title(loc="left") or factor
        (measure,) = {t.get_text() for t in axes.texts} & set(study_figure._MEASURES.values())
        found[measure, factor] = axes
    return found


def labels(axes):
    return [tick.get_text() for tick in axes.get_yticklabels()]


def norms(seeds=range(3)):
    base = {NORM: "batch", INIT: "ones"}
    parts = [(base, 3.0), (base | {NORM: "none"}, 1.0), (base | {INIT: "gaussian"}, 0.5)]
    return variants(parts, seeds) + variants(parts, seeds, probe=GAUSSIAN)


def test_a_panel_alone_has_its_measure_its_levels_and_its_legend(tmp_path):
    style = {"style": {"format": "pdf", "width": 3.35}}
    figure = figures.draw("study-mine", data(tmp_path, norms()), {**SPEC, **style})
    alone = figures.panels(figure, "study-mine")
    index, share = (alone[f"study-mine-norm-{letter}"] for letter in "ab")
    assert (index.get_xlabel(), share.get_xlabel()) == ("|asymmetry index|", "asymmetric [%]")
    for axes, legend in ((index, ["uniform-far", "gaussian-far", "one minimum"]), (share, None)):
        figure.show_alone(axes)
        assert overlaps(figure) == []
        assert [tick.get_text() for tick in axes.get_yticklabels() if tick.get_visible()] == labels(axes)
        assert "batch" in labels(axes)
        legend = legend or ["uniform-far", "gaussian-far"]
        assert [text.get_text() for text in figure.legends[0].get_texts()] == legend


@pytest.mark.slow
def test_one_row_of_panels_a_factor(tmp_path):
    figure, caption = drawn(tmp_path, norms(), factors={"mine": {INIT: ["ones"], NORM: ["none", "batch"]}})
    found = panels(figure)
    assert set(found) == {
        (m, f) for m in ("|asymmetry index|", "asymmetric [%]") for f in ("norm", "norm init")
    }
    assert labels(found["|asymmetry index|", "norm"]) == ["none", "batch"]  # as in the config
    assert labels(found["|asymmetry index|", "norm init"]) == ["ones", "gaussian"]
    assert "Other factors are held at norm init ones, norm batch." in caption
    seen = [text for text, _ in texts(figure)]
    assert {"uniform-far", "gaussian-far", "one minimum"} <= set(seen)
    assert not any("train accuracy" in text for text in seen)


def test_means_and_shares_are_the_tables(tmp_path):
    sizes = [1.0, 2.0, 4.0]
    figure, caption = drawn(tmp_path, variants([({DECAY: 0}, sizes), ({DECAY: 0.1}, 0.5)], range(3)))
    found = panels(figure)
    axes = found["|asymmetry index|", "weight decay"]
    points = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 3]
    assert [1.0, 2.0, 4.0] in [sorted(x) for x in points]
    interval = mean_interval(sizes)
    ends = {round(x, 9) for bars in axes.collections for path in bars.get_paths() for x, _ in path.vertices}
    assert {round(interval.low, 9), round(interval.high, 9)} <= ends
    share = wilson(4, 6)
    axes = found["asymmetric [%]", "weight decay"]
    ends = {round(x, 6) for bars in axes.collections for path in bars.get_paths() for x, _ in path.vertices}
    assert {round(100 * share.low, 6), round(100 * share.high, 6)} <= ends
    assert "4/6" in [text.get_text() for text in axes.texts]
    low, high = (figures.number(max(end, 0.0)) for end in (interval.low, interval.high))
    assert f"weight decay, uniform-far: 0 2.33 ({low} to {high}), 4 of 6 asymmetric; 0.1 " in caption
    assert "+u is the steeper side of 6 of 12 directions" in caption


def test_untrained_minima_are_crosses_and_have_no_part_in_means(tmp_path):
    rows = variants([({DECAY: 0}, [1.0, 2.0, 90.0]), ({DECAY: 0.1}, 0.5)], range(3))
    for row in rows[4:6]:
        row["train_accuracy"] = 0.2
    figure, caption = drawn(tmp_path, rows)
    axes = panels(figure)["|asymmetry index|", "weight decay"]
    crosses = [line.get_xdata().tolist() for line in axes.lines if line.get_marker() == "x"]
    assert [x for x in crosses if x] == [[90.0]]
    assert axes.get_xlim()[1] < 10
    assert "weight decay, uniform-far: 0 1.5 (" in caption
    assert "6 minima at sgd, 1 of them below 50 % train accuracy and left out (crosses" in caption
    assert "train accuracy < 50 %" in [text for text, _ in texts(figure)]


def test_all_minima_untrained(tmp_path):
    rows = variants([({DECAY: 0}, 1.0), ({DECAY: 0.1}, 0.5)], range(3), train_accuracy=0.1)
    _, caption = drawn(tmp_path, rows)
    assert "weight decay, uniform-far: no trained minimum" in caption


def test_swa_and_the_penalty(tmp_path):
    levels = [({DECAY: 0}, 1.0), ({DECAY: 0.1}, 0.5)]
    swa = {"swa_gain": 0.25, "swa_rise": 0.125}
    rows = variants(levels, range(3), **swa) + variants(levels[1:], range(3), penalty=True, **swa)
    figure, caption = drawn(tmp_path, rows + variants(levels, range(3), probe=GAUSSIAN, **swa))
    found = panels(figure)
    assert {measure for measure, _ in found} == {
        "|asymmetry index|", "asymmetric [%]", "swa − descent, train [nats]", "descent − swa, test [nats]",
    }  # fmt: skip
    assert "weight decay, descent − swa, test [nats]: 0 0.25 (0.25 to 0.25); 0.1 0.25" in caption
    assert "weight decay, uniform-far, with penalty: 0.1 0.501" in caption
    hollow = [
        line for line in found["asymmetric [%]", "weight decay"].lines
        if line.get_marker() == "o" and to_hex(line.get_markerfacecolor()) == "#ffffff"
    ]  # fmt: skip
    assert len(hollow) == 1
    joined = [
        line for line in found["descent − swa, test [nats]", "weight decay"].lines if line.get_lw() == 0.5
    ]
    assert len(joined) == 3  # seeds
    assert all(np.ptp(line.get_ydata()) == pytest.approx(1.0) for line in joined)


def pair(seeds=range(3), swa=False):
    rows = []
    for (name, factor), seed in ((each, seed) for each in (("large", 1.0), ("small", 2.0)) for seed in seeds):
        about = {"recipe": name, "swa_gain": 0.1, "swa_rise": 0.1} if swa else {"recipe": name}
        radius = factor * (2 + seed)
        rows += minimum({"recipe": name}, seed, (0.5, 0.6), FILTER, radius=radius, **about)
        rows += minimum({"recipe": name}, seed, (0.1,), HESSIAN, eigenvalue=30 / factor + seed, **about)
    return rows


def test_width_and_curvature(tmp_path):
    figure, caption = drawn(tmp_path, pair())
    found = panels(figure)
    width, curvature = found["width R / |w|", "recipe"], found["top eigenvalue", "recipe"]
    lines = [sorted(line.get_xdata()) for line in width.lines if line.get_lw() == 0.5]
    assert lines == [[0.25, 0.5], [0.375, 0.75], [0.5, 1.0]]
    lines = [sorted(line.get_xdata()) for line in curvature.lines if line.get_lw() == 0.5]
    assert lines == [[15, 30], [16, 31], [17, 32]]
    assert "recipe, width R / |w|, filter: large 0.375 (" in caption
    assert "recipe, top eigenvalue, hessian: large 31 (" in caption


@pytest.mark.slow
def test_six_measures_stand_in_two_rows(tmp_path):
    figure, _ = drawn(tmp_path, pair(swa=True))
    assert len(figure.axes) == 6
    assert len({round(axes.get_position().y0, 3) for axes in figure.axes}) == 2


def test_no_factors(tmp_path):
    figure, caption = drawn(tmp_path, variants([({}, 2.0)]) + variants([({}, 0.1)], probe=GAUSSIAN))
    assert len(figure.axes) == 2
    assert "digits / m-base / r, uniform-far: 2 (" in caption
    assert "Other factors" not in caption


@pytest.mark.slow
@pytest.mark.long
def test_a_large_design_is_readable(tmp_path):
    factors = {
        "model.activation": ["relu", "gelu", "tanh", "sigmoid", "softplus"],
        NORM: ["batch", "group", "layer", "none"],
        "recipe.loss.name": ["cross_entropy", "mse", "label_smoothing", "focal"], "model.width": [4, 8, 16],
        "model.depth": [8, 14, 20], "model.skip": [True, False],
    }  # fmt: skip
    rows = []
    for run in range(36):
        levels = {factor: values[(run + run // 7) % len(values)] for factor, values in factors.items()}
        for probe in (UNIFORM, GAUSSIAN):
            rows += minimum(
                levels, run, (1.0 + run / 36, 2.0), probe, train_accuracy=0.3 if run == 3 else 0.9
            )
    figure, caption = drawn(tmp_path, rows, factors={"mine": factors})
    assert len(figure.axes) == 2 * len(factors)
    assert figure.get_figwidth() <= 9.5
    for axes in figure.axes[::2]:
        heights = np.diff([box.y0 for text, box in texts(figure) if text in labels(axes)])
        assert (np.abs(heights) > 8).all()  # pixels of a line of text, at 100 a inch
    assert "Means at a level are over all levels of the other factors." in caption
    assert "label_smoothing" in caption


@pytest.mark.parametrize("index", [math.nan, math.inf])
def test_no_index_at_all(index, tmp_path):
    rows = variants([({DECAY: 0}, 1.0), ({DECAY: 0.1}, 0.5)], range(2))
    for row in rows[:4]:
        row["asymmetry_index"] = index
    _, caption = drawn(tmp_path, rows)
    assert "nan" not in caption
    assert "+u is the steeper side of 2 of 4 directions" in caption


def test_one_seed(tmp_path):
    _, caption = drawn(tmp_path, variants([({DECAY: 0}, 1.0), ({DECAY: 0.1}, 0.5)], range(1)))
    assert "2 minima at sgd" in caption


@pytest.mark.parametrize("palette", ["petroff10", "tableau-colorblind10", "Dark2"])
def test_probes_differ_in_colour_and_marker(palette, tmp_path):
    frames = data(tmp_path, norms())
    look = style.Look({**style.STYLE, "palette": palette})
    study = study_figure._one_study("mine", frames, SPEC)
    assert len({(str(one.colour), one.marker) for one in study_figure._series(study, look)}) == 2
    assert len({one.marker for one in study_figure._series(study, look)}) == 2


def test_nothing_to_draw(tmp_path):
    frames = data(tmp_path, minimum({}, 0, (1.0,)))
    assert figures.caption("study-absent", frames, SPEC) == (
        "Nothing to draw: no direction was probed in the study absent."
    )
    tables.write(tmp_path / "mine.parquet", "study", [])
    frames = tables.frames([tmp_path / "mine.parquet"])
    assert "Nothing to draw" in figures.draw("study-mine", frames, SPEC).texts[0].get_text()
    assert figures.title("study-l2") == "Study: l2"


@pytest.mark.slow
def test_same_bytes(tmp_path):
    frames = data(tmp_path, norms())
    for i in range(2):
        figure = figures.draw("study-mine", frames, SPEC)
        figures.save(figure, tmp_path / f"{i}.png", tmp_path / f"{i}.svg", SPEC["style"])
    assert (tmp_path / "0.svg").read_bytes() == (tmp_path / "1.svg").read_bytes()


def test_levels_survive_parquet(tmp_path):
    frames = data(tmp_path, norms())
    assert {frozenset(json.loads(text)) for text in frames["study"]["levels"]} == {
        frozenset({NORM, INIT}), frozenset(),
    }  # fmt: skip
    assert set(frames["study"]["study"]) == {"mine", "other"}


def test_marks_lie_about_the_label_of_their_level(tmp_path):
    levels = [({DECAY: 0}, 1.0), ({DECAY: 0.1}, 0.5)]
    figure, _ = drawn(tmp_path, variants(levels, range(3)) + variants(levels[1:], range(3), penalty=True))
    for measure in ("|asymmetry index|", "asymmetric [%]"):
        axes = panels(figure)[measure, "weight decay"]
        heights = sorted(float(bars.lines[0].get_ydata()[0]) for bars in axes.containers)
        assert heights == pytest.approx([0, 1 - 0.37 / 2, 1 + 0.37 / 2])
