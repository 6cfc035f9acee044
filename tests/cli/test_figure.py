"""``valleys figure``: a figure of a finished run for a paper, and one clear line for what makes no sense."""

import pytest
from conftest import fill_defaults, load_config
from figure_tables import ONE, make_rows
from report_rows import claim
from study_tables import variants
from valleys.cli.commands import main
from valleys.config.experiment import Experiment
from valleys.config.params import Params
from valleys.errors import ValleysError
from valleys.storage import tables

NORM, DECAY = "model.norm", "recipe.weight_decay"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The tables of a finished run, as far as figures take them, of a config with a study of two factors."""
    folder = tmp_path_factory.mktemp("run")
    config = load_config("config/smoke.yaml")
    (study,) = [{**block} for block in list(config["studies"].values())[:1]]
    factors = {DECAY: [0.001, 0], NORM: ["none", "batch"]}  # no order that anything sorts by
    config["studies"] = {"mine": study | {"factors": factors, "design": "one_at_a_time"}}
    made = Params(Experiment(fill_defaults(config))).results()
    rows = make_rows(ONE, seeds=(0, 1)) | {"claims": [claim()]}
    for name in ("training", "claims", "asymmetry", "interpolation"):
        tables.write(folder / "tables" / f"{name}.parquet", name, rows[name], made)
    levels = [
        ({DECAY: decay, NORM: norm}, 1.0) for decay, norm in ((0, "batch"), (0.001, "batch"), (0, "none"))
    ]
    tables.write(folder / "tables" / "mine.parquet", "study", variants(levels), made)
    return folder


def test_a_file_a_panel_in_a_folder(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["figure", str(run), "training", "--font", "serif"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"training/training-digits-mlp-{letter}.pdf" for letter in "ab"]
    for path in printed:
        pdf = (tmp_path / path).read_bytes()
        assert b"/MediaBox [ 0 0 241.2 " in pdf  # 3.35 inches
        assert b"STIXGeneral" in pdf


def test_one_file_of_a_figure_or_of_a_panel(run, tmp_path, capsys):
    whole, part = tmp_path / "whole.svg", tmp_path / "far" / "part.pdf"
    assert main(["figure", str(run), "training", "--width", "5.5", "-o", str(whole)]) == 0
    assert ">accuracy [%]</text>" in whole.read_text()
    assert ">loss [nats]</text>" in whole.read_text()
    assert 'width="396pt"' in whole.read_text()
    panel = ["--panel", "training-digits-mlp-b"]
    assert main(["figure", str(run), "training", *panel, "-o", str(part)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(whole), str(part)]
    svg = tmp_path / "part.svg"
    assert main(["figure", str(run), "training", *panel, "-o", str(svg)]) == 0
    assert ">accuracy [%]</text>" in svg.read_text()
    assert ">loss [nats]</text>" not in svg.read_text()


def test_chosen_panels_in_a_folder(run, tmp_path):
    chosen = ["--panel", "training-digits-mlp-a", "--format", "png", "--dpi", "60"]
    assert main(["figure", str(run), "training", *chosen, "-o", str(tmp_path / "x")]) == 0
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["training-digits-mlp-a.png"]


def test_factors_come_in_the_order_of_the_study(run, tmp_path, capsys):
    """The metadata of tables, which the config is read from, are sorted."""
    assert main(["figure", str(run), "study-mine", "-o", str(tmp_path)]) == 0
    names = [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()]
    assert names[0].startswith("study-mine-weight-decay")
    assert names[-1].startswith("study-mine-norm")


MISTAKES = {
    "width": (["--width", "0.1"], "--width: 0.1 is less than the minimum of 2"),
    "font": (["--font", "Nowhere"], "--font: 'Nowhere' is no font family of this machine; choose serif"),
    "font size": (["--font-size", "0"], "--font-size: 0.0 is less than the minimum of 1"),
    "format": (["--format", "bmp"], "--format: 'bmp'; choose from pdf, svg, png"),
    "output": (["-o", "a.bmp"], "--output: 'bmp'; choose from pdf, svg, png"),
    "two formats": (["-o", "a.pdf", "--format", "svg"], "--format: 'svg', but --output a.pdf ends in .pdf"),
    "palette": (["--palette", "dark"], "--palette: 'dark', did you mean 'Dark2'?; choose from"),
    "panel": (["--panel", "training-digits-mlp-z"], "has no panel 'training-digits-mlp-z', did you mean"),
    "two panels": (
        ["-o", "a.pdf", "--panel", "training-digits-mlp-a", "--panel", "training-digits-mlp-b"],
        "--output: a.pdf is one file, for 2 panels; give a folder",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments, told = MISTAKES[name]
    assert main(["figure", str(run), "training", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert told in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("key", "value"), [("width", 0.1), ("font", "Nowhere"), ("format", "bmp")])
def test_the_config_and_the_command_line_say_the_same(key, value, run, tmp_path, capsys):
    raw = {**load_config("config/smoke.yaml"), "figures": {key: value}}
    with pytest.raises(ValleysError) as raised:
        Experiment(fill_defaults(raw))
    assert main(["figure", str(run), "training", f"--{key}", str(value), "-o", str(tmp_path)]) == 1
    assert (
        capsys.readouterr().err
        == str(raised.value).replace(f"config: figures.{key}", f"error: --{key}") + "\n"
    )


def test_no_such_figure_or_run(run, tmp_path, capsys):
    assert main(["figure", str(run), "trainin"]) == 1
    assert "has no figure 'trainin', did you mean 'training'?; there are" in capsys.readouterr().err
    assert main(["figure", str(tmp_path), "training"]) == 1
    assert "has no tables/claims.parquet; give the folder of a finished run" in capsys.readouterr().err
