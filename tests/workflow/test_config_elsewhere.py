"""A config in another folder: modules of its factories are found beside it, when it is read and in jobs."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from valleys import factories
from valleys.cli.commands import main
from valleys.config import replicas
from valleys.errors import ValleysError
from workflow_runs import ROOT, changed, command, load

SMOKE = load("config/smoke.yaml")
MODULE = """
import numpy as np

def load(n):
    from {name}_parts import SIDE
    images = np.arange(n * SIDE * SIDE, dtype=np.uint8).reshape(n, SIDE, SIDE)
    return (images, np.arange(n) % 2), (images[:8], np.arange(8) % 2)
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch, request):
    """The name of a module beside a config, c.yaml, that is not in the folder of the run, the current one."""
    name = f"beside_{abs(hash(request.node.name))}"
    folder, run = tmp_path / "a: b", tmp_path / "run"  # a colon, which no path variable can hold
    folder.mkdir()
    run.mkdir()
    (folder / f"{name}.py").write_text(MODULE.format(name=name))
    (folder / f"{name}_parts.py").write_text("SIDE = 8\n")
    (folder / "types.py").write_text("1 / 0\n")  # also the name of a module that Python itself needs
    mine = {"source": "callable", "factory": f"{name}:load", "kwargs": {"n": 16}}
    config = changed(SMOKE, studies={}, datasets__digits=mine)
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(run)
    monkeypatch.setenv(factories.FOLDERS, "[]")
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name, folder, config


def test_the_message_says_where_a_module_was_looked_for(elsewhere, tmp_path):
    name, _, _ = elsewhere
    with pytest.raises(ValleysError, match=r"is neither in .*/run, the folder of the run, nor installed"):
        factories.code(f"{name}:load")
    (tmp_path / "empty").mkdir()
    factories.look_beside([tmp_path / "empty" / "c.yaml"])
    with pytest.raises(ValleysError, match=r"the run, nor in .*/empty, beside the config, nor installed"):
        factories.code(f"{name}:load")


def test_the_folder_of_the_run_comes_first(elsewhere, tmp_path):
    name, folder, _ = elsewhere
    factories.look_beside([folder / "c.yaml"])
    beside = factories.code(f"{name}:load")
    (folder / f"{name}_parts.py").write_text("SIDE = 4\n")
    assert factories.code(f"{name}:load") != beside  # what it imports counts too
    (tmp_path / "run" / f"{name}.py").write_text("def load(): return 'here'\n")
    assert factories.resolve(f"{name}:load")() == "here"


def test_processes_of_a_process_find_it(elsewhere):
    name, folder, _ = elsewhere
    factories.look_beside([folder / "c.yaml"])
    ask = f"from valleys import factories; print(factories.resolve('{name}:load')(8)[0][0].shape)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow" / "scripts")}
    done = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True)
    assert done.stdout == "(8, 8, 8)\n", done.stderr


def test_a_replicate_looks_beside_the_first_config(elsewhere):
    _, folder, _ = elsewhere
    replicas.write(folder / "c.yaml")
    assert json.loads(os.environ[factories.FOLDERS]) == [str(folder)]


@pytest.mark.slow
def test_a_plan_and_a_job_find_it(elsewhere, tmp_path, capsys):
    _, folder, config = elsewhere
    assert main(["plan", str(folder / "c.yaml")]) == 0
    assert "prepare_dataset" in capsys.readouterr().out
    words = command(folder, config, "results/smoke/data/digits/train.safetensors", "--cores", "1")
    words[words.index("--directory") + 1] = str(tmp_path / "run")
    environment = {key: value for key, value in os.environ.items() if key != factories.FOLDERS}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    images = load_file(tmp_path / "run" / "results" / "smoke" / "data" / "digits" / "train.safetensors")
    assert any(np.asarray(array).shape[0] == 16 for array in images.values())
