"""The examples folder, run as its README says."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from valleys.storage import tables
from workflow_runs import ROOT, planned, snakemake

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the folder, with the files that its scripts write."""
    copy = tmp_path_factory.mktemp("work") / "examples"
    shutil.copytree(ROOT / "examples", copy, ignore=shutil.ignore_patterns("results", "*.npz", "*.pt", ".*"))
    for command in (["pictures.py"], ["train.py", "0", "1"]):
        subprocess.run([sys.executable, *command], cwd=copy, check=True, env=dict(os.environ))
    return copy


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("tokens", "nats a letter"),
        ("regression", "mean squared error"),
        ("segmentation", "nats a pixel"),
    ],
)
def test_a_landscape_of_another_task(folder, name, first):
    """Each ends with three findings; losses are those of networks that have learnt."""
    done = subprocess.run(
        [sys.executable, f"{name}.py"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "workflow/scripts")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert first in lines[0]
    assert float(re.search(r"\d+\.\d+", lines[0]).group()) < 0.8
    assert [line[0] for line in lines[1:]] == ["<"] * 3
    assert "nan" not in done.stdout


def config(folder, name):
    return yaml.safe_load((folder / name).read_text(encoding="utf-8"))


def test_own_network_and_data(folder):
    """From a callable and from files: the same images, the same network, the same numbers."""
    given = config(folder, "config.yaml")
    target = "results/example/tables/solutions.parquet"
    status, text = snakemake(folder, given, target, "--cores", "2")
    assert status == 0, text
    rows = tables.read(folder / target, "solutions").to_pandas().set_index(["dataset", "solution"])
    assert len(rows) == 6
    assert rows.loc["stripes", "test_loss"].equals(rows.loc["stripes-npz", "test_loss"])
    assert rows["test_accuracy"].min() > 0.9
    net = folder / "nets.py"
    net.write_text(net.read_text().replace("x + self.body(x)", "x + 2 * self.body(x)"))
    assert planned(folder, given, target)["train_sgd"] == 2  # an edited network is another network


def test_own_weights(folder):
    shutil.copy(ROOT / "examples" / "nets.py", folder)
    given = config(folder, "checkpoints.yaml")
    results = "results/example-checkpoints"
    targets = [f"{results}/tables/{name}.parquet" for name in ("solutions", "asymmetry", "interpolation")]
    assert not {"train_sgd", "average"} & set(planned(folder, given))
    status, text = snakemake(folder, given, *targets, "--cores", "2")
    assert status == 0, text
    found = tables.read(folder / targets[0], "solutions").to_pandas()
    assert set(found["solution"]) == {"last", "averaged"}
    assert found["train_accuracy"].min() > 0.9  # they were trained on these images, normalised like this
    assert set(found["bn_policy"]) == {"stored"}
    net = folder / "nets.py"
    net.write_text(net.read_text().replace("x + self.body(x)", "x + 2 * self.body(x)"))
    again = planned(folder, given, *targets)
    assert again["import_solution"] == 4  # weights given are another function with another network
    assert {"evaluate", "probe", "interpolate"} <= set(again)
