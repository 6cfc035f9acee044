"""The examples folder, run as its README says."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from valleys.storage import tables
from workflow_runs import ROOT, planned, snakemake

pytestmark = [pytest.mark.slow, pytest.mark.long]


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
        ("huggingface", "GPT-2:"),
    ],
)
def test_a_landscape_of_another_task(folder, name, first):
    """Each ends with its findings; losses are those of networks that have learnt."""
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
    found = [line for line in lines[1:] if not line.startswith("ViT:")]
    assert [line[0] for line in found] == ["<"] * len(found)
    assert len(found) in (3, 4)
    assert "nan" not in done.stdout


def test_other_tasks_in_the_workflow(folder):
    """Losses and accuracies of all solutions are those of a plain pass; a loss edited is a new one."""
    given = config(folder, "tasks.yaml")
    subprocess.run([sys.executable, "tasks.py"], cwd=folder, check=True)
    results = folder / "results" / "example-tasks"
    targets = [f"results/example-tasks/tables/{name}.parquet" for name in ("solutions", "interpolation")]
    targets += ["results/example-tasks/tables/claims.parquet", "results/example-tasks/figures/training.png"]
    status, text = snakemake(folder, given, *targets, "--cores", "2")
    assert status == 0, text
    rows = tables.read(folder / targets[0], "solutions").to_pandas()
    assert len(rows) == 9
    probe = subprocess.run(
        [sys.executable, "-c", PLAIN, str(results)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "workflow/scripts")},
        capture_output=True,
        text=True,
    )
    assert probe.returncode == 0, probe.stderr
    plain = json.loads(probe.stdout)
    for row in rows.to_dict("records"):
        for part in ("train", "test"):
            loss, accuracy = plain[f"{row['dataset']} {row['solution']} {part}"]
            assert row[f"{part}_loss"] == pytest.approx(loss, rel=1e-5)
            assert row[f"{part}_accuracy"] == pytest.approx(accuracy, rel=1e-6, nan_ok=True)
    learnt = rows.set_index(["dataset", "solution"])["test_loss"]
    assert learnt["squares", "swa"] < 0.2
    assert learnt["letters", "swa"] < 3.3  # of log 60, 4.1, by guessing
    assert learnt["diabetes", "swa"] < 0.3
    code = folder / "tasks.py"
    code.write_text(code.read_text().replace("delta: float = 1.0", "delta: float = 2.0"))
    assert planned(folder, given, targets[0])["train_sgd"] == 3  # all that comes from this file


PLAIN = """
import json, sys
from pathlib import Path
import torch
from torch.nn import functional as F
from valleys.data.cache import load_split
from valleys.models import solutions

root, found = Path(sys.argv[1]), {}
for dataset, model, recipe in (
    ("diabetes", "mlp", "huber"), ("letters", "transformer", "long"), ("squares", "pixels", "plain")
):
    for name in ("sgd", "swa", "descent"):
        net, _ = solutions.load(root / "cells" / dataset / model / recipe / "seed-0" / f"{name}.safetensors")
        for part in ("train", "test"):
            folder = root / "data" / dataset / ("seed-0" if dataset == "diabetes" else "")
            split = load_split(folder / f"{part}.safetensors")
            with torch.no_grad():
                outputs, y = net(split.floats(slice(None))), split.labels
            if dataset == "diabetes":
                found[f"{dataset} {name} {part}"] = float(F.huber_loss(outputs, y, delta=0.5)), float("nan")
                continue
            scores = outputs[:, :-1].transpose(1, 2) if dataset == "letters" else outputs
            y, ignored = (y[:, 1:], -100) if dataset == "letters" else (y, 255)
            right = (scores.argmax(1) == y)[y != ignored].double().mean()
            loss = F.cross_entropy(scores, y, ignore_index=ignored)
            found[f"{dataset} {name} {part}"] = float(loss), float(right)
print(json.dumps(found))
"""


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
