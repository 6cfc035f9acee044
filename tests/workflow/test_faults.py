"""A few tries of each fault of tests/faults.py; ``make faults`` makes many."""

import os
import shutil
import signal
import subprocess
import time

import faults
import psutil
import pytest
import torch
from valleys.data.cache import save_split
from valleys.data.split import Split
from valleys.storage import state, tables
from valleys.storage.state import save_checkpoint
from valleys.storage.weights import save_weights
from workflow_runs import ROOT, command, snakemake

pytestmark = pytest.mark.slow

TOY = "toy"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """One of each stored artefact, where a run has it."""
    folder = tmp_path_factory.mktemp("stored")
    root = folder / faults.RESULTS
    split = Split(torch.arange(300).byte().view(3, 1, 10, 10), torch.tensor([0, 1, 0]), 2, (0.5,), (0.2,))
    save_split(root / "data" / "d" / "train.safetensors", split)
    save_weights(root / "cells" / "sgd.safetensors", {"w": torch.randn(40)}, {"model": {"arch": "mlp"}})
    save_checkpoint(root / "cells" / "state" / "c.pt", {"w": torch.randn(40), "epoch": 3})
    rows = [{"recipe": "released", "draw": i, "offset": 0.1 * i, "loss": 0.3 * i * i} for i in range(30)]
    tables.write(root / "tables" / "toy_2d_curves.parquet", "toy_2d_curves", rows, {"c": 2})
    return folder


def test_damaged_artefacts_are_refused_with_one_line_or_are_as_they_were(stored):
    before = faults.contents(stored)
    rows = list(faults.corrupt(stored, 600))
    kinds = {row["fault"].split(":")[0] for row in rows}
    assert kinds == {"checkpoint", "data set", "data set left on disk", "table", "weights"}
    assert {row["outcome"] for row in rows} == {"refused", "as it was"}, rows
    assert sum(row["outcome"] == "refused" for row in rows) > 400
    assert faults.contents(stored) == before


def test_the_suite_can_tell_a_wrong_number(stored, monkeypatch):
    """Without the check of the checksum the same damage gives other numbers, and the suite says so."""
    monkeypatch.setattr(state, "load_checkpoint", lambda path: {"w": path.read_bytes()})
    rows = list(faults.corrupt(stored, 50))
    assert any(row["outcome"] == "WRONG" for row in rows)
    assert not any(row["outcome"] == "WRONG" for row in rows if not row["fault"].startswith("checkpoint"))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The folder of an undisturbed run of the quickest experiment."""
    folder = tmp_path_factory.mktemp("toy")
    status, text = snakemake(folder, faults.SMOKE, TOY, "--cores", "2")
    assert status == 0, text
    return folder


def runs_still(pid):
    """Whether a process works on; one whose parent was killed may wait to be reaped."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@pytest.mark.long
def test_a_killed_snakemake_needs_no_unlocking_and_leaves_no_job(toy, tmp_path):
    want = faults.contents(toy)
    process = faults.start(tmp_path, faults.SMOKE, TOY)
    deadline = time.monotonic() + 120
    while not (jobs := faults.jobs_of(process)) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    assert jobs
    assert all(want[path] == digest for path, digest in faults.contents(tmp_path).items())
    status, text = faults.run(tmp_path, faults.SMOKE, TOY)
    assert status == 0, text
    assert "Removed the lock of a run that was killed." in text
    assert faults.contents(tmp_path) == want
    assert not list((tmp_path / ".snakemake" / "locks").glob("*"))
    deadline = time.monotonic() + 10
    while any(map(runs_still, jobs.values())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(runs_still, jobs.values()))


@pytest.mark.long
def test_killed_jobs_that_are_tried_again_make_the_same(toy):
    rows = list(faults.kill_and_retry(toy, 3, targets=(TOY,)))
    assert len({(row["where"], row["fault"]) for row in rows}) == 3
    assert {row["outcome"] for row in rows} == {"same bytes"}


@pytest.mark.long
def test_a_second_run_is_refused_and_does_not_harm_the_first(toy, tmp_path):
    first = faults.start(tmp_path, faults.SMOKE, TOY)
    deadline = time.monotonic() + 120
    while not faults.jobs_of(first) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)  # alive for as long as this takes
    try:
        second = subprocess.run(
            command(tmp_path, faults.SMOKE, TOY, "--cores", "1"), capture_output=True, text=True, cwd=tmp_path
        )
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert second.returncode != 0
    assert f"Another run of this experiment: process {first.pid} on " in second.stdout + second.stderr
    assert "cannot be locked" in second.stdout + second.stderr
    assert first.wait(timeout=120) == 0
    assert faults.contents(tmp_path) == faults.contents(toy)


def test_a_finished_run_can_be_moved(toy, tmp_path):
    new = tmp_path / "new"
    shutil.copytree(toy, new)
    status, text = snakemake(new, faults.SMOKE, TOY, "-n")
    assert status == 0, text
    assert "Nothing to be done" in text
    made = [path for path in (new / faults.RESULTS).rglob("*") if path.is_file() and "logs" not in path.parts]
    assert made
    assert not [path for path in made if os.fsencode(toy) in path.read_bytes()]
    assert not [path for path in made if os.fsencode(ROOT) in path.read_bytes()]
