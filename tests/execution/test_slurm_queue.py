"""Jobs that dead runs left in a queue go; those of living runs stay. The queue here is a file."""

import os
import signal
import stat
import subprocess
import sys
import textwrap

import pytest
from run_records import SCRIPTS, record
from valleys.errors import ValleysError
from valleys.execution import runs, slurm_queue
from valleys.storage import files

OWN = "valleys_00000000-0000-0000-0000-000000000000"
OLD = "valleys_11111111-1111-1111-1111-111111111111"
OTHER = "valleys_22222222-2222-2222-2222-222222222222"

SQUEUE = """
if [ -e broken ]; then echo "squeue: error: no controller" >&2; exit 1; fi
echo "$@" >> asked
name=$(echo "$@" | sed -n "s/.*--name \\([^ ]*\\) .*/\\1/p" | sed "s/,/|/g")
grep -E "^[0-9]+.(${name:-.*})." queue
# A job that was cancelled takes a while to end: it is gone when it has been looked at once more.
grep -v "|COMPLETING|" queue > rest; cp rest queue
"""
SCANCEL = """
[ -e unheard ] && exit 1
for id in "$@"; do
    echo "$id" >> cancelled
    sed -i "s/^$id|\\([^|]*\\)|[A-Z]*|/$id|\\1|COMPLETING|/" queue
done
"""
SINFO = """
echo "$@" >> asked-nodes
[ -e broken ] && exit 1
cat nodes
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder with a queue, and programs that read and change it."""
    where = tmp_path / "site"
    where.mkdir()
    for name, body in (("squeue", SQUEUE), ("scancel", SCANCEL), ("sinfo", SINFO)):
        (where / name).write_text(f"#!/bin/sh\ncd {where}\n{body}")
        (where / name).chmod(0o755 | stat.S_IXUSR)
    (where / "queue").touch()
    monkeypatch.setenv("PATH", f"{where}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm_queue, "POLL_S", 0.01)
    return where


@pytest.fixture
def folder(tmp_path):
    """Snakemake's folder."""
    folder = tmp_path / "work" / ".snakemake"
    (folder / "locks").mkdir(parents=True)
    return folder


@pytest.fixture
def run(folder):
    """A run that has begun to work, by SLURM."""
    run = runs.Run("mine", folder)
    run.begin()
    run.claim([], ["results/mine/a"], queued=OWN)
    yield run
    run.end()


def put(site, *jobs):
    (site / "queue").write_text("".join(f"{i}|{name}|{state}|{where}\n" for i, name, state, where in jobs))


def cancelled(site):
    return (site / "cancelled").read_text().split() if (site / "cancelled").exists() else []


def left(folder):
    return sorted(path.name for path in (folder / "runs").glob("*.left"))


def cancel_left(run, wait_s=10.0):
    said, warned = [], []
    slurm_queue.cancel_left(run, ["results/mine/a"], said.append, warned.append, wait_s)
    return said, warned


def another(folder, name, queued, body="time.sleep(600)"):
    """A process that is a run of its own; it has printed a line when it works."""
    code = f"""
        import sys, time
        sys.path.insert(0, {str(SCRIPTS)!r})
        from valleys.execution import runs
        run = runs.Run({name!r}, {str(folder)!r})
        run.begin()
        run.clear_dead()
        run.claim([], ["results/{name}/x"], queued={queued!r})
        print("ready", flush=True)
        {body}
        """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def killed(folder, name="mine", queued=OLD):
    process = another(folder, name, queued)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_jobs_of_a_killed_run_are_cancelled_and_waited_for(site, folder):
    killed(folder)
    put(site, (4, OLD, "RUNNING", "/w"), (5, OLD, "PENDING", "/w"), (6, OTHER, "RUNNING", "/w"))
    run = runs.Run("mine", folder)
    assert run.begin()
    run.clear_dead()  # as a dry run does too: the record is set aside, not lost
    assert len(left(folder)) == 1
    run.claim([], ["results/mine/a"], queued=OWN)
    said, warned = cancel_left(run)
    assert cancelled(site) == ["4", "5"]
    assert (site / "queue").read_text() == f"6|{OTHER}|RUNNING|/w\n"
    assert len(said) == 1
    assert said[0].startswith("2 SLURM jobs (4, 5) are left of a run that has ended: cancelled")
    assert warned == left(folder) == []
    assert cancel_left(run) == ([], [])
    asked = (site / "asked").read_text().splitlines()
    assert asked[0].startswith(f"--name {OLD} ")  # of any user
    assert asked[-1].startswith(f"--user {os.getuid()} ")
    run.end()


def test_a_local_run_after_a_killed_one_on_the_cluster_ends_its_jobs_too(site, folder):
    killed(folder)
    put(site, (4, OLD, "RUNNING", "/w"))
    run = runs.Run("mine", folder)
    run.begin()
    run.clear_dead()
    run.claim([], ["results/mine/a"])
    cancel_left(run)
    assert cancelled(site) == ["4"]
    run.end()
    assert list((folder / "runs").glob("*.*")) == []


def test_jobs_of_a_living_run_and_of_another_experiment_stay(site, folder, run):
    alive = another(folder, "mine", OLD)
    killed(folder, "theirs", OTHER)
    try:
        put(site, (4, OLD, "RUNNING", folder.parent), (5, OTHER, "RUNNING", folder.parent))
        assert cancel_left(run) == ([], [])
        assert run.clear_dead() == []
        assert cancel_left(run) == ([], [])
        assert cancelled(site) == []
    finally:
        alive.kill()
        alive.wait()
    said, _ = cancel_left(run)
    assert "SLURM job 4 is left" in said[0]
    assert cancelled(site) == ["4"]


def test_a_run_that_was_stopped_leaves_its_name_one_that_succeeded_nothing(site, folder):
    for ending, names in (("sys.exit(1)", 1), ("run.succeeded()", 0)):
        another(folder, "mine", OLD, ending).wait()
        assert len(left(folder)) == names, ending
        assert list((folder / "runs").glob("*.run")) == []
        for path in (folder / "runs").glob("*.left"):
            path.unlink()
    another(folder, "mine", None, "sys.exit(1)").wait()  # not on a cluster
    assert left(folder) == []


def test_what_reaches_the_queue_late_is_cancelled_too(site, folder, run, monkeypatch):
    """An sbatch may outlive its Snakemake by a moment."""
    killed(folder)
    put(site, (4, OLD, "RUNNING", "/w"))
    ended, cancel = [], slurm_queue.cancel

    def cancel_and_submit(ids):
        cancel(ids)
        if not ended:
            with (site / "queue").open("a") as stream:
                stream.write(f"7|{OLD}|PENDING|/w\n")
        ended.extend(ids)

    monkeypatch.setattr(slurm_queue, "cancel", cancel_and_submit)
    cancel_left(run)
    assert ended == cancelled(site) == ["4", "7"]


@pytest.mark.parametrize("outputs", [["results/mine/a"], ["results/mine/b"]])
def test_beside_a_run_that_may_live_elsewhere_nothing_is_cancelled(site, folder, run, monkeypatch, outputs):
    monkeypatch.setattr(runs, "is_local", lambda _: False)
    path = record(folder)
    path.write_text(path.read_text().replace('"outputs"', f'"queued": "{OLD}", "outputs"'))
    path.write_text(path.read_text().replace("results/mine/a", outputs[0]))
    put(site, (4, OLD, "RUNNING", "/w"))
    if outputs == ["results/mine/a"]:
        with pytest.raises(ValleysError, match=rf"process 1 on node7 .*scancel --name={OLD}$"):
            cancel_left(run)
        put(site)
    assert cancel_left(run) == ([], [])
    assert cancelled(site) == []
    assert path.exists()


def test_jobs_that_do_not_end_stop_the_run(site, folder, run):
    killed(folder)
    put(site, (4, OLD, "RUNNING", "/w"))
    (site / "unheard").touch()
    with pytest.raises(ValleysError, match=r"SLURM job 4 of an earlier run is still .* \(RUNNING\) 0.2 s"):
        cancel_left(run, wait_s=0.2)
    (site / "unheard").unlink()
    cancel_left(run)
    assert cancelled(site) == ["4"]


@pytest.mark.parametrize("absent", [True, False])
def test_without_an_answer_of_squeue_the_run_goes_on_with_a_warning(site, folder, run, monkeypatch, absent):
    if absent:
        monkeypatch.setenv("PATH", str(folder))
    else:
        (site / "broken").touch()
    assert cancel_left(run) == ([], [])  # no earlier run, nothing to warn of
    killed(folder)
    run.clear_dead()
    said, (warned,) = cancel_left(run)
    assert said == []
    assert "squeue does not answer" in warned
    assert left(folder)[0] in warned  # and is asked about again next time


def test_no_cluster_is_asked_by_runs_that_have_nothing_to_do_with_one(site, folder):
    run = runs.Run("mine", folder)
    run.begin()
    killed(folder, queued=None)
    run.clear_dead()
    run.claim([], ["results/mine/a"])
    assert cancel_left(run) == ([], [])
    assert not (site / "asked").exists()
    run.end()


def test_jobs_without_a_record_are_told_of(site, folder, run):
    put(
        site,
        (4, OLD, "RUNNING", folder.parent),
        (5, OTHER, "RUNNING", "/elsewhere"),
        (6, OWN, "RUNNING", "/"),
    )
    put_by_hand = "7|analysis|RUNNING|" + str(folder.parent) + "\n"
    (site / "queue").write_text((site / "queue").read_text() + put_by_hand)
    said, (warned,) = cancel_left(run)
    assert said == []
    assert "SLURM job 4 in the queue is of a run in this folder that left no record" in warned
    assert cancelled(site) == []


def test_where_nothing_can_be_locked_nothing_is_cancelled(site, folder, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    killed(folder)
    put(site, (4, OLD, "RUNNING", folder.parent))
    monkeypatch.setattr(runs.fcntl, "lockf", refuse)
    run = runs.Run("mine", folder)
    assert not run.begin()
    run.claim([], ["results/mine/a"], queued=OWN)
    said, warned = cancel_left(run)
    assert said == cancelled(site) == []
    assert len(warned) == 1


def test_no_node_is_called_none_assigned(site):
    nodes = slurm_queue.BrokenNodes({"node3"})
    for name in ("None assigned", ""):
        nodes.add(name)
    assert nodes == {"node3"}
    assert not (site / "asked-nodes").exists()


def test_only_nodes_that_are_broken_are_avoided(site):
    nodes = slurm_queue.BrokenNodes()
    (site / "nodes").write_text("node1|down*\nnode2|mixed\nnode3|draining\nnode4|idle*\nnode5|allocated\n")
    nodes.add("node[1-5]")
    assert nodes == {"node1", "node3", "node4"}
    assert "--nodes node[1-5]" in (site / "asked-nodes").read_text()
    (site / "nodes").write_text("node6|idle\n")  # the job runs again, there
    nodes.add("node6")
    assert "node6" not in nodes


@pytest.mark.parametrize("answer", ["broken", "nothing"])
def test_where_slurm_does_not_say_which_is_broken_all_are_avoided(site, answer):
    (site / "nodes").touch()
    if answer == "broken":
        (site / "broken").touch()
    nodes = slurm_queue.BrokenNodes()
    nodes.add("node[1-2]")
    assert nodes == {"node[1-2]"}


def test_the_name_survives_in_a_record_of_this_boot(folder, run):
    """Dead for certain on this machine, wherever the folder is."""
    path = record(folder, boot=files.boot_id())
    path.write_text(path.read_text().replace('"outputs"', f'"queued": "{OLD}", "outputs"'))
    (found,) = run.records()
    assert (found.dead, found.queued, found.name) == (True, OLD, "mine")
