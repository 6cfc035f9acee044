"""The SLURM profile on a real, if small, cluster: jobs preempted, killed, late, and what becomes of them."""

import os
import re
import signal
from pathlib import Path

import psutil
import pytest
import yaml
from slurm_cluster import cluster, missing
from slurm_runs import (
    CPUS,
    GPU_RULES,
    PROFILE,
    Run,
    filled_in,
    job_of,
    needs_slurm,
    rendered,
    rules_with,
    settings,
    submitted,
    wait,
)
from workflow_runs import ROOT, changed, load, snakemake

pytestmark = pytest.mark.slow

SMOKE = load("config/smoke.yaml")
WHOLE = changed(
    SMOKE,
    studies__bn__factors={"model.norm": ["batch"]},  # no other cells
    planes={"directions": SMOKE["planes"]["directions"]},
)
"""Every rule and every group."""
SMALL = changed(
    SMOKE | {"studies": {}, "planes": {}},
    name="small",
    datasets__digits={"source": "digits", "train_size": 100, "max_test": 50},
)
LONG = changed(
    SMALL,
    name="long",
    seeds=[0, 1, 2],
    recipes__quick__epochs=600,
    recipes__quick__swa__start=590,
    recipes__quick__eval_every=600,
    execution__checkpoint_every=5,
)
"""Trains long enough for a test to step in."""
CELLS = "results/long/cells/digits/mlp/quick"
KILLED, OUT_OF_TIME, UNDISTURBED = LONG["seeds"]

# The profile as text --------------------------------------------------------------------------------


def test_the_profile_asks_for_gpus_where_networks_run(tmp_path):
    profile = rendered(filled_in(tmp_path / "a", GPU_MODEL="a100", GPU_PARTITION="accel"))
    asking = {rule for rule, wanted in profile["set-resources"].items() if wanted.get("gpu")}
    assert asking == set(GPU_RULES) == rules_with(r"(?m)^ +gpu=")
    for rule in asking:
        assert profile["set-resources"][rule] == {
            "gpu": 1,
            "gpu_model": "'a100'",
            "slurm_partition": "'accel'",
        }
    assert profile["default-resources"]["slurm_partition"] == "'cpu'"
    assert "slurm_account" not in profile["default-resources"]


def test_the_profile_without_gpus_asks_for_none(tmp_path):
    profile = rendered(filled_in(tmp_path / "a", GPUS=0, GPU_MODEL="a100", ACCOUNT="lab"))
    assert all(not wanted.get("gpu") for wanted in profile["set-resources"].values())
    assert "a100" not in yaml.safe_dump(profile["set-resources"])
    assert "slurm_partition" not in yaml.safe_dump(profile["set-resources"])
    assert profile["default-resources"]["slurm_account"] == "'lab'"


def test_the_profile_names_rules_that_exist():
    profile = rendered(PROFILE.parent)
    rules = rules_with("")
    assert set(profile["set-resources"]) <= rules
    assert set(profile["groups"]) <= rules
    assert set(profile["group-components"]) <= set(profile["groups"].values())
    # What trains for hours loses nothing to another job's failure, nor does what cannot be repeated: with
    # execution.keep none, iterates are gone when their readers have finished.
    assert not {"train_sgd", "connect", "probe"} & set(profile["groups"])
    assert not {"average", "directions", "plane"} & set(profile["groups"])


def test_what_a_cluster_decides_is_not_overridden():
    """profiles/default is loaded beside --profile, and wins."""
    default = yaml.safe_load((ROOT / "profiles" / "default" / "config.yaml").read_text())
    here = rendered(PROFILE.parent)
    for name in set(default) & set(here):
        assert default[name] == here[name], name


@pytest.mark.long
@pytest.mark.parametrize(("cells", "share"), [(1, 0.65), (8, 0.25)])
def test_the_shipped_experiment_makes_few_submissions(tmp_path, cells, share):
    """Its 800 jobs fit into groups that do not wait for themselves, whatever starts from or leads to what."""
    profile = filled_in(tmp_path / "profile", CELLS=cells, GPU_MODEL="a100")
    status, text = snakemake(tmp_path, load("config.yaml"), "--profile", str(profile), "-n")
    assert status == 0, text
    jobs = int(re.search(r"(?m)^total +(\d+)$", text).group(1))
    submissions = len(re.findall(r"Group job |(?m:^rule )", text))
    assert jobs > 700
    assert 20 < submissions < share * jobs


# On a cluster ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site():
    """Two nodes, with accounting where that can be had; jobs go to the first while it has room."""
    with cluster(nodes=2, accounting=missing(accounting=True) is None, cpus=CPUS) as running:
        yield running


def training_of(seed):
    """The comment of a seed's training."""
    return f"rule_train_sgd_wildcards_digits_mlp_quick_{seed}"


def training_process(folder, seed):
    """The process id of a seed's training, once it has begun."""
    log = str(folder / "results/long/logs/digits/mlp/quick" / f"seed-{seed}" / "train_sgd.log")
    for process in psutil.process_iter():
        try:
            if process.name().startswith("python") and any(f.path == log for f in process.open_files()):
                return process.pid
        except psutil.Error:  # it has just ended
            continue
    return None


def hold(folder, seeds, run):
    """Stop trainings (SIGSTOP) as they get a checkpoint, so that a test comes before their end.

    SLURM wakes a process (SIGCONT) when it takes its job away.
    """
    left = set(seeds)

    def held():
        for seed in sorted(left):
            state = folder / CELLS / f"seed-{seed}" / "state"
            if list(state.rglob("checkpoint.pt")) and (process := training_process(folder, seed)):
                os.kill(process, signal.SIGSTOP)
                left.remove(seed)
        return not left

    wait(f"seeds {seeds} have checkpoints", held, run)


def requeued(site, job, run):
    """Wait until SLURM has put a job back into its queue, and have it run at once: not after two minutes."""
    wait(
        f"job {job} is back in the queue",
        lambda: submitted(site)[job]["Restarts"] == "1" and submitted(site)[job]["JobState"] == "PENDING",
        run,
    )
    site.run("scontrol", "update", f"JobId={job}", "StartTime=now")


def has_resumed(folder, seed):
    log = folder / "results/long/logs/digits/mlp/quick" / f"seed-{seed}" / "train_sgd.log"
    return log.exists() and "resumed from" in log.read_text()


@pytest.fixture(scope="module")
def disturbed(site, tmp_path_factory):
    """Three seeds, all preempted; then one is told to stop and one runs out of time."""
    folder = tmp_path_factory.mktemp("disturbed")
    profile = filled_in(folder / "profile", **settings(site, WALLTIME=5, NOTICE=1))
    ends = [f"{CELLS}/seed-{seed}/{end}.parquet" for seed in LONG["seeds"] for end in ("cooldown", "descent")]
    run = Run(site, folder, LONG, profile, *ends)
    comments = {seed: training_of(seed) for seed in LONG["seeds"]}
    try:
        hold(folder, LONG["seeds"], run)
        first = {seed: job_of(site, comments[seed], folder) for seed in LONG["seeds"]}
        whole = ("--partition=urgent", f"--cpus-per-task={CPUS}", f"--nodelist={site.nodes[0]}")
        account = ["--account=lab"] if site.accounting else []
        site.run("sbatch", *whole, "--output=/dev/null", "--wrap=true", *account)
        for job in first.values():
            requeued(site, job, run)
        wait("the killed one goes on", lambda: has_resumed(folder, KILLED), run)
        site.run("scancel", "--signal=TERM", first[KILLED])
        wait("the slow one goes on", lambda: has_resumed(folder, OUT_OF_TIME), run)
        os.kill(wait("it trains", lambda: training_process(folder, OUT_OF_TIME), run), signal.SIGSTOP)
        site.run("scontrol", "update", f"JobId={first[OUT_OF_TIME]}", "TimeLimit=1")
        wait("the other goes on", lambda: has_resumed(folder, UNDISTURBED), run)
        yield folder, first, comments, run
    finally:
        run.stop()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The same trainings, undisturbed and without a cluster."""
    folder = tmp_path_factory.mktemp("reference")
    targets = [f"{CELLS}/seed-{seed}/raw/last.safetensors" for seed in LONG["seeds"]]
    status, text = snakemake(folder, LONG, *targets, "--cores", "2")
    assert status == 0, text
    return folder


@pytest.fixture(scope="module")
def whole(site, disturbed, tmp_path_factory):
    """The whole smoke experiment, under way: it takes longest, so other tests run beside it."""
    folder = tmp_path_factory.mktemp("whole")
    run = Run(site, folder, WHOLE, filled_in(folder / "profile", **settings(site)))
    try:
        yield folder, run
    finally:
        run.stop()


@needs_slurm
def test_jobs_of_a_killed_snakemake_end_before_the_next_run_submits_theirs(site, whole, reference, tmp_path):
    target = f"{CELLS}/seed-{KILLED}/raw/last.safetensors"
    started = []
    for name in ("first", "again"):
        profile = filled_in(tmp_path / name, **settings(site))
        started.append(run := Run(site, tmp_path, LONG, profile, target))
        try:
            if name == "again":
                text = run.finish()
            else:
                hold(tmp_path, [KILLED], run)
                run.process.kill()
                run.process.wait()
                orphan = job_of(site, training_of(KILLED), tmp_path)
                assert submitted(site)[orphan]["JobState"] == "RUNNING"
        finally:
            run.stop()
    assert re.search(rf"SLURM job {orphan} is left of a run that has ended: cancelled", text)
    jobs, new = submitted(site), job_of(site, training_of(KILLED), tmp_path)
    assert (jobs[orphan]["JobState"], jobs[new]["JobState"]) == ("CANCELLED", "COMPLETED")
    assert int(new) > int(orphan)
    assert jobs[orphan]["EndTime"] <= jobs[new]["SubmitTime"]
    assert has_resumed(tmp_path, KILLED)
    assert (tmp_path / target).read_bytes() == (reference / target).read_bytes()
    assert not [path.name for path in (tmp_path / ".snakemake/runs").glob("*.*")]


@needs_slurm
def test_killed_preempted_and_late_jobs_go_on(site, disturbed, reference):
    folder, first, comments, run = disturbed
    run.finish()
    jobs = submitted(site)
    by_seed = {
        seed: [
            job["JobState"]
            for job in jobs.values()
            if job.get("Comment") == comments[seed] and Path(job["WorkDir"]) == folder
        ]
        for seed in LONG["seeds"]
    }
    assert all(jobs[job]["Restarts"] == "1" for job in first.values())  # preempted, under the same id
    assert jobs[first[KILLED]]["JobState"] == "FAILED"
    # FAILED where training ended at the notice, TIMEOUT where at the limit. SLURM looks twice a minute.
    assert jobs[first[OUT_OF_TIME]]["JobState"] in ("FAILED", "TIMEOUT")
    limits = {seed: jobs[first[seed]]["TimeLimit"] for seed in LONG["seeds"]}
    assert limits == {KILLED: "00:05:00", OUT_OF_TIME: "00:01:00", UNDISTURBED: "00:05:00"}
    assert all(states.count("COMPLETED") == 1 for states in by_seed.values()), by_seed
    for seed in LONG["seeds"]:
        assert has_resumed(folder, seed)
        for name in ("raw/last.safetensors", "training.parquet"):
            path = f"{CELLS}/seed-{seed}/{name}"
            assert (folder / path).read_bytes() == (reference / path).read_bytes(), path
        assert not list((folder / CELLS / f"seed-{seed}" / "state").glob("train-*"))
    failed = {path.stem for path in (folder / "slurm-logs").rglob("*.log")}
    assert failed >= {first[KILLED], first[OUT_OF_TIME]}
    assert "Job preemption" in run.text() or not site.accounting


@needs_slurm
def test_a_new_seed_is_all_that_is_submitted(site, disturbed):
    folder, *_, run = disturbed
    run.finish()
    before = {i for i, job in submitted(site).items() if Path(job["WorkDir"]) == folder}
    more = changed(LONG, seeds=[*LONG["seeds"], 3], recipes__quick=LONG["recipes"]["quick"])
    profile = filled_in(folder / "added", **settings(site))
    again = Run(site, folder, more, profile, "results/long/tables/training.parquet")
    try:
        text = again.finish()
    finally:
        again.stop()
    comments = [
        job["Comment"]
        for i, job in submitted(site).items()
        if i not in before and Path(job["WorkDir"]) == folder
    ]
    assert sorted(comments) == [
        "rule_aggregate_wildcards_training",
        "rule_average_wildcards_digits_mlp_quick_3",
        "rule_solutions-digits-mlp-quick-seed3_cooldown",  # for this table nothing joins the two
        "rule_solutions-digits-mlp-quick-seed3_descend_refresh_bn",
        "rule_train_sgd_wildcards_digits_mlp_quick_3",
    ]
    assert text.count("has been submitted with SLURM jobid") == len(comments)


@needs_slurm
@pytest.mark.skipif(missing(accounting=True) is not None, reason=str(missing(accounting=True)))
def test_accounting_knows_the_jobs(site, disturbed):
    """The runs above asked sacct how their jobs fare."""
    *_, comments, run = disturbed
    run.finish()
    rows = site.run("sacct", "-X", "-n", "-P", "--format=Comment,Account,State").splitlines()
    assert f"{comments[KILLED]}|lab|FAILED" in rows
    assert f"{comments[OUT_OF_TIME]}|lab|COMPLETED" in rows


@needs_slurm
def test_the_smoke_experiment_from_data_to_report(site, whole):
    folder, run = whole
    run.finish()
    results = folder / "results/smoke"
    assert (results / "report.html").exists()
    jobs = {
        job["Comment"].removeprefix("rule_"): job
        for job in submitted(site).values()
        if Path(job["WorkDir"]) == folder
    }
    assert {name.split("_wildcards_")[0].split("-digits")[0] for name in jobs} == {
        *("prepare_dataset", "train_sgd", "average", "solutions"),
        *("directions", "search_directions", "probe", "lines", "plane"),
        *("judge_detect_measure_gain", "simulations_simulate_theory_toy_2d"),
        *("aggregate", "study", "sensitivity", "summary_claims_figures_report"),
    }
    # Six jobs in one submission.
    assert "solutions-digits-mlp-quick-seed0_cooldown_descend_evaluate_refresh_bn" in jobs
    for name, job in jobs.items():
        runs_network = name.startswith(("solutions", "lines", *GPU_RULES))
        assert job["Partition"] == ("gpu" if runs_network else "cpu"), name
        assert job.get("TresPerJob") == ("gres:gpu:fake:1" if runs_network else None), name
        assert job["JobName"].startswith("valleys_")
        assert job["Requeue"] == "1"
        assert job["Account"] == ("lab" if site.accounting else "(null)")
    assert len(list((results / "logs").rglob("*.log"))) >= 40
    assert not list((folder / "slurm-logs").rglob("*.log"))  # SLURM's own, kept of what fails
    assert "Guessed SLURM account" not in run.text()


@needs_slurm
def test_jobs_of_a_node_that_dies_go_on_elsewhere(site, reference, tmp_path):
    """The last test of the cluster: it loses its first node."""
    target, trained = (f"{CELLS}/seed-{KILLED}/raw/{name}.safetensors" for name in ("swa", "last"))
    profile = filled_in(tmp_path / "profile", **settings(site))
    run = Run(site, tmp_path, LONG, profile, target)
    try:
        hold(tmp_path, [KILLED], run)
        job = job_of(site, training_of(KILLED), tmp_path)
        assert submitted(site)[job]["NodeList"] == site.nodes[0]
        lost = training_process(tmp_path, KILLED)
        site.lose(site.nodes[0])
        wait("its processes are gone", lambda: not psutil.pid_exists(lost), run)
        requeued(site, job, run)
        run.finish()
    finally:
        run.stop()
    about = submitted(site)[job]
    assert (about["JobState"], about["NodeList"], about["Restarts"]) == ("COMPLETED", site.nodes[1], "1")
    assert job_of(site, training_of(KILLED), tmp_path) == job  # SLURM's own doing, no new submission
    assert has_resumed(tmp_path, KILLED)
    assert (tmp_path / trained).read_bytes() == (reference / trained).read_bytes()
    after = submitted(site)[job_of(site, f"rule_average_wildcards_digits_mlp_quick_{KILLED}", tmp_path)]
    # The plugin learns which node it was if it asks sacct before SLURM has put the job back. If it asks when
    # the job runs again it hears of the other node, which must not be left out.
    assert after["ExcNodeList"] in (site.nodes[0], "(null)")


@needs_slurm
def test_without_accounting(tmp_path):
    """squeue alone tells that a job was cancelled, and that its second try is done."""
    target = "results/small/tables/theory_gain.parquet"
    with cluster(cpus=CPUS) as site:
        profile = filled_in(tmp_path / "profile", **settings(site, GPUS=0))
        run = Run(site, tmp_path, SMALL, profile, target)
        try:
            job = wait("a job runs", lambda: next(iter(submitted(site)), None), run)
            site.run("scancel", job)
            run.finish()
        finally:
            run.stop()
        states = sorted(job["JobState"] for job in submitted(site).values())
    assert states == ["CANCELLED", "COMPLETED"]
    assert (tmp_path / target).exists()
