"""What is told before the first job: absent data, too little memory; and data made ready on their own."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from valleys.costs import plan
from workflow_runs import ROOT, changed, load, planned, snakemake

pytestmark = pytest.mark.slow

SMOKE = load("config/smoke.yaml")
TRAIN = "results/smoke/data/digits/train.safetensors"
ABSENT = changed(SMOKE, datasets__digits={"source": "cifar10", "root": "data"})


def valleys(folder, config, command, *words):
    """What a command of the library says of a config: status, output, errors."""
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [sys.executable, "-m", "valleys", command, "c.yaml", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow" / "scripts")},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.long
def test_absent_data_are_told_by_a_dry_run_a_run_and_the_plan(tmp_path):
    line = (
        "config: datasets.digits.root: data: there is no cifar-10-batches-py/data_batch_1 (seen from "
        f"{tmp_path}); make data CONFIG="
    )
    for words in (["-n"], ["--cores", "1"]):
        status, text = snakemake(tmp_path, ABSENT, TRAIN, *words)
        assert status == 1
        assert f"{line}config-under-test.yaml fetches it" in text
        assert "Traceback" not in text
        assert "rule prepare_dataset" not in text
    status, table, errors = valleys(tmp_path, ABSENT, "plan", TRAIN)
    assert (status, errors) == (0, "")
    assert f"\nMissing: {line}c.yaml fetches it" in table
    assert not (tmp_path / "results").exists()
    # Of data that have been read the originals may go.
    assert "prepare_dataset" in planned(tmp_path, SMOKE, TRAIN)
    (tmp_path / TRAIN).parent.mkdir(parents=True)
    for part in ("train", "test"):
        (tmp_path / f"results/smoke/data/digits/{part}.safetensors").write_bytes(b"x")
    status, text = snakemake(tmp_path, ABSENT, TRAIN, "-n")
    assert status == 0, text


@pytest.mark.long
def test_a_job_too_large_is_refused_by_a_limit_and_told_of_this_machine(tmp_path):
    limit = ("--resources", "mem_mb=100")
    status, text = snakemake(tmp_path, SMOKE, TRAIN, "-n", *limit)
    assert status == 1
    told = r"a job of rule prepare_dataset \(digits\) takes 0\.35\d? GB of memory by estimate, more than the "
    assert re.search(
        told + "0.1 GB that a job may have; set max_train of the data set; or raise the li", text
    )
    status, text = snakemake(tmp_path, SMOKE, TRAIN, "-n", "--resources", "mem_mb=400")
    assert status == 0, text
    huge = changed(SMOKE, datasets__digits={"source": "callable", "factory": "huge_of_ready:load"})
    (tmp_path / "huge_of_ready.py").write_text("def load(): raise AssertionError\n")
    huge["models"]["mlp"] = {"arch": "mlp", "hidden": [90_000, 90_000]}  # 32 GB of weights
    target = "results/smoke/cells/digits/mlp/quick/seed-0/raw/last.safetensors"
    own = " that this machine has; lower the recipe's batch_size"
    status, text = snakemake(tmp_path, huge, target, "-n")
    assert status == 0, text
    assert own in text
    status, text = snakemake(tmp_path, huge, target, "--cores", "1")
    assert status == 1
    assert f"{own}, or execution.resident_mb; or say with --resources mem_mb=N that it may" in text
    assert "rule prepare_dataset" not in text
    status, table, errors = valleys(tmp_path, huge, "plan", target, "--cores", "1")
    assert (status, errors) == (0, "")
    assert "Too large: a job of rule train_sgd (digits/mlp/quick/0) takes " in table


@pytest.mark.long
def test_the_plan_by_a_profile_fails_where_a_job_is_too_large(tmp_path):
    profile = tmp_path / "profile"
    profile.mkdir()
    text = (ROOT / "profiles/slurm/config.yaml").read_text()
    for memory, status in (("64000", 0), ("300", 1)):
        (profile / "config.yaml").write_text(re.sub(r"(?m)^  MEMORY: \d+", f"  MEMORY: {memory}", text))
        found, table, errors = valleys(tmp_path, SMOKE, "plan", TRAIN, "--profile", "profile")
        assert found == status, errors
        assert "prepare_dataset" in table
        assert errors.startswith("error: a job of rule prepare_dataset (digits) takes") == bool(status)
        assert errors.count("\n") == status
    for folder, line in (("none", "--profile: none/config.yaml does not exist"), ("bad", "is no profile")):
        if folder == "bad":
            (tmp_path / "bad").mkdir()
            (tmp_path / "bad" / "config.yaml").write_text("a: [")
        found, table, errors = valleys(tmp_path, SMOKE, "plan", TRAIN, "--profile", folder)
        assert (found, table, errors.count("\n")) == (1, "", 1)
        assert line in errors


@pytest.mark.long
def test_data_are_prepared_checked_and_told(tmp_path):
    config = changed(
        SMOKE,
        datasets={**SMOKE["datasets"], "mine": {"source": "numpy", "train": "a.npz", "test": "b.npz"}},
        grid=[*SMOKE["grid"], {"dataset": "mine", "model": "mlp", "recipe": "quick"}],
    )
    status, told, errors = valleys(tmp_path, config, "data", "--cores", "1")
    assert status == 1
    (line,) = told.splitlines()
    assert re.fullmatch(
        r"digits: [\d,]+ train and [\d,]+ test examples of 1 x 8 x 8, 10 classes, [\d.]+ kB in "
        r"results/smoke/data/digits, checksums right",
        line,
    )
    assert [row for row in errors.splitlines() if row.startswith("error: ")] == [
        f"error: config: datasets.mine.{key}: {file}.npz: there is no such file or folder (seen from "
        f"{tmp_path}); it must be a {key.replace('train', 'training')} npz file"
        for key, file in (("train", "a"), ("test", "b"))
    ]
    # A run finds them done, and data that were damaged since are told.
    assert planned(tmp_path, SMOKE, TRAIN) == {}
    path = tmp_path / TRAIN
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    status, told, errors = valleys(tmp_path, SMOKE, "data", "--cores", "1")
    assert (status, told) == (1, "")
    assert "error: config: datasets.digits: results/smoke/data/digits/train.safetensors is damaged" in errors


def test_the_target_data_makes_all_data_sets_and_no_more(tmp_path):
    assert planned(tmp_path, SMOKE, "data") == {"prepare_dataset": 1}


@pytest.mark.long
def test_the_plan_counts_the_files_that_a_run_leaves(tmp_path, monkeypatch):
    """Outputs, folders of iterates and their files, logs, benchmarks, folders, and Snakemake's records."""
    monkeypatch.chdir(tmp_path)
    target = "results/smoke/cells/digits/mlp/quick/seed-0/solutions.parquet"
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(SMOKE))
    total = plan.make("c.yaml", [target]).total
    assert total.todo >= 8
    status, text = snakemake(tmp_path, SMOKE, target, "--cores", "1")
    assert status == 0, text
    left = [path for top in ("results", ".snakemake/metadata") for path in (tmp_path / top).rglob("*")]
    assert total.files == pytest.approx(len(left), abs=8), sorted(map(str, left))  # states, the graph, sizes
    assert plan.make("c.yaml", [target]).total.files == 0


def test_what_cannot_succeed_is_tried_once(tmp_path):
    config = changed(SMOKE, recipes__quick__lr=1e5, models__mlp__norm="none")
    target = "results/smoke/cells/digits/mlp/quick/seed-0/raw/last.safetensors"
    status, text = snakemake(tmp_path, config, target, "--cores", "1", "--retries", "3")
    assert status == 1
    assert text.count("error in rule train_sgd: training diverged") == 1
    assert "Not tried again, as it would fail in the same way: training diverged: the loss is not" in text
    assert "Trying to restart" not in text


def test_what_may_succeed_is_tried_again(tmp_path):
    """A full disk: the folder of the results cannot be written to once."""
    (tmp_path / "flaky_of_ready.py").write_text(
        "from pathlib import Path\n"
        "import numpy as np\n"
        "def load():\n"
        "    if not Path('once').exists():\n"
        "        Path('once').touch()\n"
        "        from valleys.errors import PassingError\n"
        "        raise PassingError('the disk is full')\n"
        "    images, labels = np.zeros((8, 4, 4), np.uint8), np.arange(8) % 2\n"
        "    return (images, labels), (images, labels)\n"
    )
    config = changed(SMOKE, datasets__digits={"source": "callable", "factory": "flaky_of_ready:load"})
    status, text = snakemake(tmp_path, config, TRAIN, "--cores", "1", "--retries", "1")
    assert status == 0, text
    assert "the disk is full (may pass, so it is tried again if retries are left)" in text
    assert "Trying to restart" in text
