"""Config files are read as Snakemake reads them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from valleys.config.reading import check_arguments, load
from valleys.errors import ValleysError

ROOT = Path(__file__).parents[2]


def test_json_is_read_as_snakemake_does(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{\n\t"rate": 1e-3,\n\t"name": "a\\tb", "on": [true, null]\n}')
    assert load(path) == {"rate": 0.001, "name": "a\tb", "on": [True, None]}


WRONG = {
    "absent.yaml": "error: config file absent.yaml does not exist; give the path of a YAML file",
    "folder": "error: config file folder is a folder; give the path of a YAML file",
    "latin.yaml": "error: config file latin.yaml cannot be read: it is not UTF-8",
    "list.yaml": "error: config file list.yaml holds a list; it must be a mapping of keys",
    "c.yaml swa sign": "error: --configfile: 'swa' is no config file; every word after --configfile is taken "
    "for one, so write a target before it: snakemake swa sign --configfile c.yaml",
}


@pytest.fixture
def configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("latin.yaml").write_bytes(b"name: \xe9\n")
    Path("list.yaml").write_text("- a\n")
    for name in ("c.yaml", "more.yaml"):
        Path(name).write_text("name: x\n")


@pytest.mark.slow
@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_file_on_snakemakes_command_line_is_one_line(configs, words):
    """Snakemake opens it before it reads the Snakefile."""
    asked = ["-n", "--snakefile", str(ROOT / "Snakefile"), "--configfile", *words.split()]
    done = subprocess.run([sys.executable, "-m", "snakemake", *asked], capture_output=True, text=True)
    assert done.returncode == 1
    first, *lines = done.stderr.splitlines()
    assert first.startswith("Using workflow specific profile")
    assert len(lines) == 1
    assert lines[0].startswith(WRONG[words])


@pytest.mark.slow
def test_a_default_config_that_is_absent_is_one_line(tmp_path):
    asked = ["-n", "--snakefile", str(ROOT / "Snakefile")]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *asked], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "config file config.yaml does not exist; give the path of a YAML file" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["swa"],
        ["--configfile"],
        ["swa", "--configfile", "c.yaml"],
        ["--configfile", "c.yaml", "more.yaml", "-n", "swa"],
        ["--configfile=c.yaml", "swa"],
        ["--configfile", "c.yaml", "--", "swa"],
    ],
)
def test_right_words_are_left_to_snakemake(configs, words):
    check_arguments(words)


def test_a_pipe_is_left_to_snakemake(configs):
    """It can be read once."""
    os.mkfifo("pipe")
    check_arguments(["--configfile", "pipe"])


@pytest.mark.parametrize("option", ["--configfile", "--configfiles"])
def test_each_of_several_files_is_looked_at(configs, option):
    with pytest.raises(ValleysError, match=r"latin\.yaml cannot be read"):
        check_arguments([option, "c.yaml", "latin.yaml"])
