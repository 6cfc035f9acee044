"""What the SLURM profile asks for beside time, memory and GPUs, and which failures are tried again."""

import re

import numpy as np
import pytest
from slurm_cluster import cluster, missing
from slurm_runs import CPUS, GPU_RULES, PROFILE, Run, filled_in, needs_slurm, rendered, settings, submitted
from workflow_runs import changed, load

pytestmark = pytest.mark.slow

SMOKE = load("config/smoke.yaml")
SMALL = changed(
    SMOKE | {"studies": {}, "planes": {}},
    name="small",
    datasets__digits={"source": "digits", "train_size": 100, "max_test": 50},
)
CELL = "results/small/cells/digits/mlp/quick/seed-0"
WANTED = {
    "QOS": "fast",
    "CONSTRAINT": "small|loopback",
    "RESERVATION": "course",
    "MAIL": "me@example.org",
    "EXTRA": "--nice=7",
    "MODULES": "touch loaded && export LOADED=yes",
}


# The profile as text --------------------------------------------------------------------------------


def test_nothing_is_asked_for_that_nobody_filled_in():
    text, profile = PROFILE.read_text(), rendered(PROFILE.parent)
    assert all(re.search(rf'(?m)^  {name}: "" #', text) for name in (*WANTED, "GPU_QOS", "GPU_CONSTRAINT"))
    asked = {*profile, *profile["default-resources"], *profile["set-resources"]["probe"]}
    assert not {"qos", "constraint", "slurm-reservation", "precommand", "slurm-array-jobs"} & asked
    assert profile["default-resources"]["slurm_extra"] == "'--signal=TERM@60'"


def test_what_is_filled_in_is_asked_for_by_all_jobs(tmp_path):
    profile = rendered(filled_in(tmp_path / "a", ARRAYS="probe,plane", **WANTED))
    assert profile["default-resources"] | {"disk_mb": 0} == {
        "disk_mb": 0,
        "slurm_partition": "'cpu'",
        "qos": "'fast'",
        "constraint": "'small|loopback'",
        "slurm_extra": "'--signal=TERM@60 --mail-user=me@example.org --mail-type=FAIL,TIME_LIMIT --nice=7'",
    }
    assert profile["slurm-reservation"] == "course"
    assert profile["precommand"] == WANTED["MODULES"]
    assert (profile["slurm-array-jobs"], profile["jobs"]) == ("probe,plane", 10**6)
    assert rendered(PROFILE.parent)["jobs"] == 100
    assert not {"qos", "constraint"} & set(profile["set-resources"]["probe"])


def test_jobs_with_a_gpu_may_ask_for_other_nodes(tmp_path):
    more = {"GPU_QOS": "gpus", "GPU_CONSTRAINT": "nvlink"}
    profile = rendered(filled_in(tmp_path / "a", QOS="fast", **more))
    assert profile["default-resources"]["qos"] == "'fast'"
    assert "constraint" not in profile["default-resources"]
    for rule in GPU_RULES:
        asked = profile["set-resources"][rule]
        assert (asked["qos"], asked["constraint"]) == ("'gpus'", "'nvlink'")
    without = rendered(filled_in(tmp_path / "b", GPUS=0, QOS="fast", **more))
    assert not any("qos" in asked for asked in without["set-resources"].values())


# On a cluster ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site():
    with cluster(accounting=missing(accounting=True) is None, cpus=CPUS) as running:
        reservation = ("ReservationName=course", "Users=root", "Nodes=ALL", "StartTime=now", "Duration=60")
        running.run("scontrol", "create", "reservation", *reservation)
        yield running


def run(site, folder, config, *targets, **values):
    """Run targets on the cluster; return Snakemake's status and output, and the jobs that were submitted."""
    before = set(submitted(site))
    one = Run(site, folder, config, filled_in(folder / "profile", **settings(site, **values)), *targets)
    try:
        status = one.process.wait(timeout=300)
    finally:
        one.stop()
    return status, one.text(), [job for i, job in submitted(site).items() if i not in before]


@needs_slurm
def test_slurm_is_asked_for_what_is_filled_in(site, tmp_path):
    if not site.accounting:
        pytest.skip("a QOS needs accounting")
    status, text, jobs = run(site, tmp_path, SMALL, f"{CELL}/raw/last.safetensors", **WANTED)
    assert status == 0, text
    assert {job["Comment"].split("_wildcards")[0] for job in jobs} == {
        "rule_prepare_dataset",
        "rule_train_sgd",
    }
    for job in jobs:
        assert (job["QOS"], job["Features"], job["Reservation"]) == ("fast", "small|loopback", "course")
        assert (job["MailUser"], job["MailType"]) == ("me@example.org", "FAIL,TIME_LIMIT")
        assert int(job["Nice"]) == 7
    assert (tmp_path / "loaded").exists()


@needs_slurm
def test_a_job_that_cannot_succeed_is_submitted_once(site, tmp_path):
    diverges = changed(SMALL, recipes__quick__lr=1e5, models__mlp__norm="none")
    status, text, jobs = run(
        site, tmp_path, diverges, f"{CELL}/raw/last.safetensors", RESERVATION="course", GPUS=0
    )
    assert status == 1
    trained = [job for job in jobs if job["Comment"].startswith("rule_train_sgd")]
    assert [job["JobState"] for job in trained] == ["FAILED"]
    assert "Not tried again, as it would fail in the same way: training diverged" in text


@needs_slurm
def test_nor_is_a_group_in_which_one_cannot(site, tmp_path):
    for part in ("train", "test"):
        images = np.arange(8 * 16, dtype=np.uint8).reshape(8, 4, 4)
        np.savez(tmp_path / f"{part}.npz", images=images, labels=np.arange(8) % 2)
    # A share that makes no label wrong: known when the labels have been counted.
    noisy = {"source": "numpy", "train": "train.npz", "test": "test.npz", "label_noise": 0.01}
    config = changed(SMALL, seeds=[0, 1], datasets__digits=noisy)
    ends = [f"results/small/data/digits/seed-{seed}/train.safetensors" for seed in config["seeds"]]
    status, text, jobs = run(site, tmp_path, config, *ends, RESERVATION="course", GPUS=0)
    assert status == 1
    states = {job["Comment"].split("_wildcards")[0]: job["JobState"] for job in jobs}
    assert states == {"rule_prepare_dataset": "COMPLETED", "rule_splits_split_dataset": "FAILED"}, text
    assert len(jobs) == 2
    assert text.count("Not tried again, as it would fail in the same way: ") == 1


@needs_slurm
def test_an_array_is_one_submission_of_all_that_are_ready(site, tmp_path):
    """More than SUBMITTED: the plugin would wait for ever."""
    three = changed(SMALL, seeds=[0, 1, 2])
    cells = [CELL.replace("seed-0", f"seed-{seed}") for seed in three["seeds"]]
    ends = [f"{cell}/raw/last.safetensors" for cell in cells]
    more = {"RESERVATION": "course", "ARRAYS": "train_sgd", "SUBMITTED": 2}
    status, text, jobs = run(site, tmp_path, three, *ends, **more)
    assert status == 0, text
    arrays = {job.get("ArrayJobId") for job in jobs if job["Comment"].startswith("rule_train_sgd")}
    assert len(arrays) == 1
    assert None not in arrays
    assert sum(job.get("ArrayJobId") in arrays for job in jobs) == 3
    assert all((tmp_path / end).exists() for end in ends)
