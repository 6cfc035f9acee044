"""Planes in 3-D: the traces are the plane's numbers, and the page needs nothing from elsewhere."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, browser
from valleys.api.curves import Surface
from valleys.api.surfaces import Plane, figure, write
from valleys.cli.commands import main
from valleys.errors import ValleysError
from valleys.storage import tables

ROOT = Path(__file__).parents[2]
XS, YS = np.linspace(-1, 3, 9), np.linspace(-2, 1, 7)
CELL = {"dataset": "data", "model": "Net", "recipe": "own", "seed": 0}


def bowl(x, y):
    return 0.5 + (x - 0.3) ** 2 + 2 * y**2


def points(train=bowl, test=None):
    rows = []
    for y in YS:
        for x in XS:
            other = float("nan") if test is None else test(x, y)
            losses = {"train_loss": train(x, y), "test_loss": other}
            rows.append({"x": x, "y": y, **losses, "train_accuracy": 0.5, "test_accuracy": 0.5})
    return rows


def mark(role, x, y, epoch=None, distance=0.0):
    none = {"explained_x": None, "explained_y": None}
    return {"role": role, "x": x, "y": y, "epoch": epoch, "distance": distance, **none}


MARKS = [
    mark("weights", 0.0, 0.0),
    mark("iterate", 1.0, 0.5, 2, 0.7),
    mark("iterate", 2.0, 0.5, 1, 0.9),
    mark("swa", 0.25, -1.75, distance=1.5),
]


def surface(rows=None, marks=MARKS, name="weights"):
    return Surface(rows or points(), marks, "frozen", names={**CELL, "solution": name})


def of(drawn, name):
    (trace,) = [trace for trace in drawn.data if trace.name == name]
    return trace


def test_a_trace_has_the_planes_losses_and_coordinates():
    plane = surface(points(test=lambda x, y: 9 + x - y))
    drawn = plane.plot_3d()
    for split in ("train", "test"):
        trace = of(drawn, f"{split} loss")
        assert (np.array(trace.x) == plane.xs).all()
        assert (np.array(trace.y) == plane.ys).all()
        assert (np.array(trace.z) == plane.grid(f"{split}_loss")).all()
        assert trace.z[2][5] == (bowl(XS[5], YS[2]) if split == "train" else 9 + XS[5] - YS[2])
    assert drawn.layout.scene.zaxis.type == "linear"
    low, high = drawn.layout.scene.zaxis.range
    assert low < plane.grid().min() < plane.grid().max() < high  # nothing is cut off
    assert drawn.layout.scene.aspectratio.y == pytest.approx(3 / 4)  # lengths in one unit


def test_rows_in_another_order_give_the_same():
    rows = points()
    mixed = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    assert (Plane.of(mixed, []).losses["train"] == Plane.of(rows, []).losses["train"]).all()
    assert np.isnan(Plane.of(rows[1:], []).losses["train"][0, 0])  # a point that was not measured


def test_marks_lie_on_the_surface_iterates_in_their_order():
    drawn = surface().plot_3d()
    span = np.ptp(drawn.layout.scene.zaxis.range)
    path = of(drawn, "iterates")
    assert (list(path.x), list(path.y)) == ([2.0, 1.0], [0.5, 0.5])
    assert list(path.customdata) == pytest.approx([bowl(2, 0.5), bowl(1, 0.5)])  # points of the grid
    assert path.text[0] == "iterate 1, 0.9 out of the plane"
    there = of(drawn, "weights")
    lifted = there.z[0] - bowl(0, 0)
    assert 0 < lifted < 0.03 * span
    assert list(there.customdata) == [pytest.approx(bowl(0, 0))]
    between = np.mean([bowl(x, y) for x in (0.0, 0.5) for y in (-2.0, -1.5)])
    assert list(of(drawn, "swa (projected)").customdata) == [pytest.approx(between)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_left_out(bad):
    rows = points()
    for row in rows[:10]:  # the lowest y, and one of the next
        row["train_loss"] = bad
    plane = surface(rows, [*MARKS, mark("outside", 9.0, 0.0), mark("last", -1.0, -2.0)])
    drawn = plane.plot_3d()
    found, told = np.array(of(drawn, "train loss").z), plane.grid()
    assert np.isnan(found.ravel()[:10]).all()
    assert (found.ravel()[10:] == told.ravel()[10:]).all()
    assert "10 points whose loss is not finite are left out" in drawn.layout.title.text
    for name in ("outside", "last", "swa (projected)"):  # beside the plane, on and next to such points
        assert len(of(drawn, name).x) == 0
    assert len(of(drawn, "weights").x) == 1
    text = drawn.to_json()
    assert "NaN" not in text
    assert "Infinity" not in text
    with pytest.raises(ValleysError, match="none of its 63 train losses is finite"):
        surface(points(lambda x, y: bad)).plot_3d()


def test_a_spike_is_cut_off_as_contours_are():
    rows = points()
    rows[-1]["train_loss"] = 1e9
    plane = surface(rows, [*MARKS, mark("last", XS[-1], YS[-1])])
    drawn = plane.plot_3d()
    high = np.quantile(plane.grid(), 0.9)
    assert 0 < drawn.layout.scene.zaxis.range[1] - high < 0.05 * high
    assert drawn.layout.scene.zaxis.type == "linear"
    assert f"losses above {high:.3g} are drawn at that height" in drawn.layout.title.text
    trace = of(drawn, "train loss")
    assert np.array(trace.z) == pytest.approx(np.minimum(plane.grid(), high))
    assert trace.text[-1][-1] == "x 3<br>y 1<br>train loss 1e+09"  # to be read all the same
    assert trace.text[0][-1] == f"x 3<br>y -2<br>train loss {bowl(3, -2):.5g}"
    assert trace.cmax == pytest.approx(high)
    lost = of(drawn, "last")
    assert high < lost.z[0] < drawn.layout.scene.zaxis.range[1]
    assert lost.customdata[0] == 1e9


def test_an_exploding_loss_has_a_logarithmic_axis():
    plane = surface(points(lambda x, y: 0.01 + np.exp(4 * x**2) - 1))
    for drawn in (plane.plot_3d(), surface().plot_3d(log=True)):
        trace, axis = of(drawn, "train loss"), drawn.layout.scene.zaxis
        assert axis.type == "log"
        values = np.array(trace.z)
        assert np.allclose(trace.surfacecolor, np.log10(values))
        low, high = np.log10([values.min(), values.max()])
        assert axis.range[0] < low < high < axis.range[1]
        assert (trace.cmin, trace.cmax) == pytest.approx((low, high))
        assert 3 <= len(axis.tickvals) <= 10
        assert np.allclose(trace.colorbar.tickvals, np.log10(axis.tickvals))
        assert all(float(word) == value for word, value in zip(axis.ticktext, axis.tickvals, strict=True))
    assert plane.plot_3d(log=False).layout.scene.zaxis.type == "linear"
    with pytest.raises(ValleysError, match=r"log: the least loss is -1\.5, and a logarithm"):
        surface(points(lambda x, y: x - 0.5)).plot_3d(log=True)


@pytest.mark.parametrize("train", [lambda x, y: 2.0, lambda x, y: 0.0])
def test_a_flat_plane_is_drawn(train):
    drawn = surface(points(train)).plot_3d()
    low, high = drawn.layout.scene.zaxis.range
    assert low < train(0, 0) < high
    if train(0, 0) > 0:
        axis = surface(points(train)).plot_3d(log=True).layout.scene.zaxis
        assert axis.range[0] < np.log10(2) < axis.range[1]
        assert list(axis.tickvals) == [2.0]


def test_a_short_logarithmic_axis_has_numbers_too():
    axis = surface(points(lambda x, y: 0.71 + 0.001 * x)).plot_3d(log=True).layout.scene.zaxis
    assert list(axis.tickvals) == pytest.approx([0.709, 0.713])
    assert list(axis.ticktext) == ["0.709", "0.713"]


def test_a_menu_has_each_loss_of_each_plane():
    both = Plane.of(points(test=lambda x, y: 7 + x), MARKS, "one")
    drawn = figure([both, Plane.of(points(), [], "two")])
    buttons = drawn.layout.updatemenus[0].buttons
    assert [button.label for button in buttons] == ["one, train loss", "one, test loss", "two, train loss"]
    shown = np.array([button.args[0]["visible"] for button in buttons])
    assert (shown.sum(0) == 1).all()  # each trace belongs to one view
    assert [trace.visible for trace in drawn.data] == list(shown[0])
    assert drawn.data[list(shown[1]).index(True)].name == "test loss"
    ranges = [button.args[1]["scene.zaxis"]["range"] for button in buttons]
    assert ranges[0] == ranges[2] == list(drawn.layout.scene.zaxis.range)
    assert ranges[1][0] < 6 < 10 < ranges[1][1]
    assert not any("camera" in key for button in buttons for key in button.args[1])
    assert not surface().plot_3d().layout.updatemenus  # nothing to choose


# ---- the page

EVIL = "</title></script><img src=x onerror=alert(1)><b>bold</b>&amp;"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "new" / "plane.html"
    rows, marks = points(test=lambda x, y: 7 + x), [*MARKS, mark(EVIL, 0.0, 0.5)]
    drawn = figure([Plane.of(rows, marks, EVIL)])
    assert write(drawn, path, EVIL) == path
    return path, drawn, surface(rows, marks)


def test_a_page_has_its_script_and_its_numbers_in_it(page, tmp_path):
    path, drawn, _ = page
    text = path.read_text(encoding="utf-8")
    tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", text.replace(script_in(text), ""))
    assert tags
    assert not [tag for tag in tags if re.search(r"\b(?:src|href)\s*=", tag)]
    assert "cdn.plot.ly" not in text.replace(script_in(text), "")
    assert 4e6 < path.stat().st_size < 6e6
    assert write(drawn, tmp_path / "again.html", EVIL).read_bytes() == path.read_bytes()
    assert "<img" not in text.replace(script_in(text), "")
    assert not [trace.name for trace in drawn.data if "<" in trace.name]
    surface().plot_3d(tmp_path / "plane.html")
    assert embedded(tmp_path / "plane.html")[0][0]["name"] == "train loss"


def script_in(text):
    """The script of plotly.js: by far the longest."""
    return max(re.findall(r"<script[^>]*>(.*?)</script>", text, re.S), key=len)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
def test_a_browser_asks_for_nothing_and_turns_it(page):
    path, _, plane = page
    with browser() as opened:
        opened.open(path)
        opened.until("document.querySelector('#surface')?._fullLayout?.scene?.zaxis?.range?.length === 2")
        read = "JSON.stringify(Array.from(document.querySelector('#surface')._fullData[0].z, r => [...r]))"
        assert np.allclose(json.loads(opened.run(read)), plane.grid())
        menu = "document.querySelector('#surface').layout.updatemenus[0].buttons[1]"
        opened.run("Plotly.relayout('surface', {'scene.camera.eye': {x: 2, y: 0.5, z: 1}}).then(() => 1)")
        opened.run(f"Plotly.update('surface', ...{menu}.args).then(() => 1)")
        low, high = opened.run("document.querySelector('#surface')._fullLayout.scene.zaxis.range")
        assert low < 6 < 10 < high
        assert opened.run("document.querySelector('#surface')._fullLayout.scene.camera.eye.x") == 2
        software = [one for one in opened.complaints if one["source"] == "rendering"]  # drawn without a GPU
        assert opened.complaints == software
        assert opened.run("document.title") == EVIL
        assert opened.run("document.querySelector('.gtitle').textContent") == EVIL
        assert opened.run("document.querySelectorAll('img, b').length") == 0
        check_label(opened)
        assert opened.requests == [path.resolve().as_uri()]


def check_label(opened):
    """Move the pointer until a point of the surface is under it; what is said must be that point's."""
    opened.size(1000, 800)
    opened.run(
        "document.querySelector('#surface').on('plotly_hover', e => { window.under = e.points[0] }) && 1"
    )
    label = "document.querySelector('#surface .hoverlayer, #surface .hovertext')?.innerHTML ?? ''"
    for x, y in itertools.product(range(350, 700, 50), range(250, 600, 50)):
        opened.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        opened.run("new Promise(done => setTimeout(done, 100))")
        under = opened.run("window.under && [under.fullData.type, under.x, under.y, under.z]")
        shown = opened.run(label)
        if under and shown and under[0] == "surface" and under[1] != under[2]:
            _, x, y, loss = under
            words = re.sub(r"<[^>]+>", " ", shown).replace("−", "-").split()
            assert words == ["x", f"{x:.4g}", "y", f"{y:.4g}", "test", "loss", f"{loss:.5g}"]
            assert loss == pytest.approx(7 + x)
            return
    pytest.fail("no point of the surface was under the pointer")


# ---- without plotly, and from the command line


def test_without_plotly_there_is_one_line(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "plotly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(ValleysError, match="needs the package plotly: pip install plotly") as caught:
        surface().plot_3d()
    assert "\n" not in str(caught.value)


def test_plotly_is_loaded_when_it_is_needed():
    code = "import sys, valleys.api.surfaces; sys.exit(bool({'plotly', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT / "workflow/scripts").returncode == 0


def saved(folder, seeds=(0,), names=("flat",)):
    rows = [
        {**CELL, "seed": s, "plane": name, "bn_policy": "frozen", **p, "train_loss": p["train_loss"] + s}
        for name in names
        for s in seeds
        for p in points()
    ]
    marks = [{**CELL, "seed": s, "plane": name, **m} for name in names for s in seeds for m in MARKS]
    tables.write(folder / "planes.parquet", "planes", rows)
    tables.write(folder / "plane_points.parquet", "plane_points", marks)


def embedded(path):
    """The figure in a page: traces and layout."""
    text = path.read_text(encoding="utf-8")
    call = text[text.rindex("Plotly.newPlot(") :]
    decoder = json.JSONDecoder()
    traces, end = decoder.raw_decode(call, call.index("["))
    layout, _ = decoder.raw_decode(call, call.index("{", end))
    return traces, layout


def test_the_command_draws_a_run_at_its_lowest_seed(tmp_path, capsys):
    saved(tmp_path / "tables", seeds=(7, 3), names=("flat", "pca"))
    assert main(["surface", str(tmp_path)]) == 0
    path = tmp_path / "tables" / "planes.html"
    assert capsys.readouterr().out.strip() == str(path)
    traces, layout = embedded(path)
    labels = [button["label"] for button in layout["updatemenus"][0]["buttons"]]
    assert labels == [f"{name}: data / Net (seed 3), train loss" for name in ("flat", "pca")]
    assert [trace["name"] for trace in traces].count("iterates") == 2
    assert layout["scene"]["zaxis"]["range"][0] == pytest.approx(3.5, abs=0.5)  # of seed 3, not 7
    only = tmp_path / "one.html"
    assert main(["surface", str(tmp_path), "--plane", "pca", "--log", "-o", str(only)]) == 0
    traces, layout = embedded(only)
    assert layout["title"]["text"] == "pca: data / Net (seed 3)"
    assert layout["scene"]["zaxis"]["type"] == "log"
    assert "updatemenus" not in layout


def test_the_command_draws_what_a_landscape_saved(tmp_path):
    plane = surface()
    plane.save(tmp_path)
    for given in (tmp_path, tmp_path / "planes.parquet"):
        assert main(["surface", str(given)]) == 0
        assert embedded(tmp_path / "planes.html")[0][0]["name"] == "train loss"
        (tmp_path / "planes.html").unlink()


def test_the_command_leaves_out_a_plane_without_a_finite_loss(tmp_path, capsys):
    saved(tmp_path, names=("flat", "pca"))
    rows = tables.read(tmp_path / "planes.parquet", "planes").to_pylist()
    lost = [{**row, "train_loss": float("nan")} if row["plane"] == "flat" else row for row in rows]
    tables.write(tmp_path / "planes.parquet", "planes", lost)
    assert main(["surface", str(tmp_path)]) == 0
    line = "flat: data / Net (seed 0): none of its 63 train losses is finite"
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "planes.html"), f"left out: {line}"]
    assert embedded(tmp_path / "planes.html")[1]["title"]["text"] == "pca: data / Net (seed 0)"
    assert main(["surface", str(tmp_path), "--plane", "flat"]) == 1
    assert capsys.readouterr().err.strip() == f"error: {tmp_path / 'planes.parquet'}: {line}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "table nowhere does not exist; give a results folder or a planes.parquet"),
        (["empty"], "empty has no tables/planes.parquet"),
        ([".", "--plane", "flatt"], "has no plane 'flatt', did you mean 'flat'?; there are flat"),
        ([".", "-o", "x.png"], "--output: x.png ends in '.png'; use .html"),
        (["none"], "none/planes.parquet has no rows"),
        (["alone"], "plane_points.parquet does not exist"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path)
    (tmp_path / "empty").mkdir()
    saved(tmp_path / "none", seeds=())
    saved(tmp_path / "alone")
    (tmp_path / "alone" / "plane_points.parquet").unlink()
    assert main(["surface", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert line.startswith("error: ")
