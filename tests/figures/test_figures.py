"""Every figure on small tables that conform to the schemas: drawn, legible, reproducible."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import valleys
from figure_checks import overlaps
from figure_tables import MANY, NAMES, SPEC, make_rows, through_parquet
from valleys import figures
from valleys.errors import ValleysError
from valleys.storage import tables

pytestmark = pytest.mark.usefixtures("no_warnings")


def saved(figure, folder, style=SPEC["style"]):
    """The bytes of a figure's files: PNG, SVG."""
    png, svg = folder / "out" / "a.png", folder / "out" / "a.svg"
    figures.save(figure, png, svg, style)
    assert sorted(path.name for path in png.parent.iterdir()) == ["a.png", "a.svg"]
    return png.read_bytes(), svg.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_draws_and_saves_the_same_bytes(name, figure_data, tmp_path):
    figure = figures.draw(name, figure_data, SPEC)
    png, svg = saved(figure, tmp_path)
    assert png.startswith(b"\x89PNG")
    assert b"Matplotlib" not in png
    assert b"<svg" in svg
    assert b"dc:date" not in svg
    assert any(axes.lines for axes in figure.axes)
    assert saved(figures.draw(name, figure_data, SPEC), tmp_path) == (png, svg)
    style = {"dpi": 40, "font_size": 11}
    other = saved(figures.draw(name, figure_data, {**SPEC, "style": style}), tmp_path, style)
    assert other[1] != svg


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_several_cells_do_not_overlap(name, tmp_path):
    probes = ("uniform", "gaussian", "filter", "sign-half", "hessian_1", "pca_1", "bn-only-gaussian")
    cells = MANY if name.startswith("prevalence") else [*MANY, ("digits", "resnet8-plain", "quick")]
    frames = through_parquet(tmp_path, make_rows(cells, seeds=(0, 1), probes=probes))
    figure = figures.draw(name, frames, SPEC)
    assert overlaps(figure) == []
    if not name.startswith(("toy", "theory")):
        panels = {"training": 2, "curves-uniform": 2, "shift": len(probes), "sensitivity": 6}
        panels |= {"plane-solutions": 2, "plane-iterates": 2}
        assert len(figure.axes) == len(cells) * panels.get(name, 3)


def test_overlap_check_can_fail():
    from matplotlib.figure import Figure

    figure = Figure()
    figure.text(0.5, 0.5, "one")
    figure.text(0.51, 0.5, "other")
    assert overlaps(figure) == [("one", "other")]


@pytest.mark.slow
@pytest.mark.long
def test_same_bytes_in_another_process(tmp_path):
    """Nothing in a file hangs on hash seeds or addresses."""
    code = (
        "import sys; sys.path[:0] = [{scripts!r}]\n"
        "from valleys import figures\n"
        "from valleys.storage import tables\n"
        "data = {{'training': tables.read({table!r}, 'training').to_pandas()}}\n"
        "figure = figures.draw('training', data, {spec!r})\n"
        "figures.save(figure, {out!r} + '.png', {out!r} + '.svg', {style!r})\n"
    )
    data = through_parquet(tmp_path, {"training": make_rows()["training"]})
    table = str(tmp_path / "training.parquet")
    scripts = str(Path(valleys.__file__).parents[1])
    out = str(tmp_path / "far")
    code = code.format(scripts=scripts, table=table, spec=SPEC, out=out, style=SPEC["style"])
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONHASHSEED": "7"})
    figures.save(figures.draw("training", data, SPEC), tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "far.svg").read_bytes()


@pytest.mark.parametrize("name", [*NAMES, "sign", "search"])
def test_no_rows(name, tmp_path):
    frames = through_parquet(tmp_path, {key: [] for key in tables.declared()})
    figure = figures.draw(name, frames, SPEC)
    assert any("Nothing to draw" in t.get_text() for t in figure.texts)
    assert figures.caption(name, frames, SPEC).startswith("Nothing to draw")
    figures.save(figure, tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])


@pytest.mark.parametrize("name", ["curves-other", "line-other", "plane-other"])
def test_no_such_probe_or_line(name, figure_data):
    """A probe of the config that applies to no cell."""
    assert "other" in figures.draw(name, figure_data, SPEC).texts[0].get_text()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_one_seed_of_one_direction(name, tmp_path):
    frames = through_parquet(tmp_path, make_rows(seeds=(5,), solutions=("swa",), n=1))
    figures.save(figures.draw(name, frames, SPEC), tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])
    assert "nan" not in figures.caption(name, frames, SPEC)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("bad", [float("inf"), float("nan"), 1e30])
def test_diverged_run(bad, tmp_path):
    rows = make_rows()
    rows["training"][7]["train_loss"] = bad
    for name in ("curves", "interpolation"):
        for row in rows[name][:5]:
            row["train_loss"] = row["test_loss"] = bad
    rows["asymmetry"][0] |= {"rise_minus": bad, "status": "not_finite"}
    frames = through_parquet(tmp_path, rows)
    for name in NAMES[:4]:
        figure = figures.draw(name, frames, SPEC)
        figures.save(figure, tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])
        figures.caption(name, frames, SPEC)
    for axes in figures.draw("curves-uniform", frames, SPEC).axes:
        assert axes.get_ylim()[1] < 100 or bad == 1e30
    assert "1 epoch without a finite" in figures.caption("training", frames, SPEC) or bad == 1e30


def test_unknown_name(figure_data):
    for name in ("surface", "curves", "line-", "plane"):
        with pytest.raises(ValleysError, match="not known"):
            figures.draw(name, figure_data, SPEC)


def test_global_style_is_left_alone(figure_data):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    figures.draw("training", figure_data, SPEC)
    assert dict(mpl.rcParams) == before


@pytest.mark.slow
def test_names_are_not_read_as_mathematics(tmp_path):
    frames = through_parquet(tmp_path, make_rows([("a$b", "c$_d^", "quick")]))
    figure = figures.draw("training", frames, SPEC)
    figures.save(figure, tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])


def test_every_figure_of_the_config_is_known(experiment_config):
    from valleys.config import outputs
    from valleys.config.experiment import Experiment

    for name in outputs.figures(Experiment(experiment_config)):
        assert figures.title(name)
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", name)
