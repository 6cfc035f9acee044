"""A dead run's lock goes by itself; a living one's stays, wherever it lives."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from run_records import SCRIPTS, record
from valleys.errors import ValleysError
from valleys.execution import runs
from valleys.storage import files

OURS, THEIRS = ("results/mine/a\n", "results/theirs/a\n")


@pytest.fixture
def folder(tmp_path):
    """Snakemake's folder with the lists of two experiments."""
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "0.input.lock").write_text("data/train.parquet\nresults/mine/b\n")
    (tmp_path / "locks" / "0.output.lock").write_text(OURS)
    (tmp_path / "locks" / "1.output.lock").write_text(THEIRS)
    return tmp_path


def locks(folder):
    return sorted(path.name for path in (folder / "locks").iterdir())


def another(folder, body="time.sleep(600)", name="mine"):
    """A process with a record in the folder; it has printed a line when it is there."""
    code = f"""
        import sys, time
        sys.path.insert(0, {str(SCRIPTS)!r})
        from valleys.execution import runs
        run = runs.Run({name!r}, {str(folder)!r})
        run.begin()
        run.claim(["results/{name}/b"], ["results/{name}/a"])
        print("ready", flush=True)
        {body}
        """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.fixture
def run(folder):
    run = runs.Run("mine", folder)
    yield run
    run.end()


def test_a_killed_run_leaves_a_record_and_its_lists_are_removed(folder, run):
    other = another(folder)
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert len(list((folder / "runs").glob("*.run"))) == 1
    assert run.begin()
    assert run.clear_dead() == ["0.input.lock", "0.output.lock"]
    assert locks(folder) == ["1.output.lock"]
    assert list((folder / "runs").glob("*.run")) == [run.path]
    assert run.clear_dead() == []


def test_the_lists_of_a_living_run_stay(folder, run):
    alive = another(folder)
    try:
        assert run.begin()
        assert run.clear_dead() == []
        assert len(locks(folder)) == 3
        unrelated = runs.Run("theirs", folder)
        assert unrelated.begin()
        assert unrelated.clear_dead() == []  # no dead run of it: the list may be of another version's run
        unrelated.end()
        assert runs.Run("mine", folder).clear_dead() == []  # has not begun
        assert len(locks(folder)) == 3
    finally:
        alive.kill()
        alive.wait()


def test_one_living_run_of_the_experiment_keeps_the_lists_of_a_dead_one(folder, run):
    dead = another(folder)
    os.kill(dead.pid, signal.SIGKILL)
    dead.wait()
    code = f"""
        import sys, time
        sys.path.insert(0, {str(SCRIPTS)!r})
        from valleys.execution import runs
        run = runs.Run("mine", {str(folder)!r})
        run.begin()
        print("ready", flush=True)
        time.sleep(600)
        """
    alive = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert alive.stdout.readline()
    assert run.begin()
    assert run.clear_dead() == []
    assert len(locks(folder)) == 3
    alive.terminate()
    alive.wait()
    for path in (folder / "runs").glob("*.run"):  # as if it had ended by itself
        if json.loads(path.read_text().splitlines()[0])["pid"] == alive.pid:
            path.unlink()
    assert run.clear_dead() == ["0.input.lock", "0.output.lock"]


def test_a_run_that_ends_by_itself_leaves_no_record(folder, run):
    for ending in ("pass", "sys.exit(3)", "raise RuntimeError"):
        process = another(folder, ending)
        process.wait()
        assert list((folder / "runs").glob("*.run")) == [], ending


@pytest.mark.parametrize("local", [True, False])
def test_another_nodes_record_is_dead_only_on_a_disk_of_this_machine(folder, run, monkeypatch, local):
    """Locks may not reach from node to node; on a disk of our own the other boot is one before this."""
    monkeypatch.setattr(runs, "is_local", lambda _: local)
    path = record(folder)
    assert run.begin()
    assert bool(run.clear_dead()) is local
    assert path.exists() is not local
    assert ("0.output.lock" in locks(folder)) is not local
    assert [r.who for r in run.working()] == ([] if local else ["process 1 on node7 since then"])
    # Once somebody has unlocked the folder by hand, that record stops nobody.
    run.claim([], ["results/mine/a"])


def test_a_record_cut_off_by_a_kill_still_names_its_run(folder, run):
    path = record(folder, boot=files.boot_id())
    path.write_text(path.read_text()[:-9])
    assert run.begin()
    assert run.clear_dead() == ["0.input.lock", "0.output.lock"]


def test_of_two_runs_that_both_passed_the_check_one_goes_on(folder, run):
    other = another(folder)
    assert run.begin()
    for inputs, outputs in (([], ["results/mine/a"]), (["results/mine/a"], []), ([], ["results/mine/b"])):
        with pytest.raises(ValleysError, match=r"another run \(process \d+ on .*\) makes or reads") as caught:
            run.claim(inputs, outputs)
        assert str(other.pid) in str(caught.value)
    run.claim(["results/mine/b"], ["results/mine/c"])  # both may read
    assert len(run.working()) == 1
    other.kill()
    other.wait()
    run.claim([], ["results/mine/a"])


def test_where_nothing_can_be_locked_nothing_is_removed(folder, run, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    record(folder, boot=files.boot_id())
    monkeypatch.setattr(fcntl, "lockf", refuse)
    assert not run.begin()
    assert run.clear_dead() == []
    assert run.working() == []
    run.claim([], ["results/mine/a"])
    assert len(locks(folder)) == 3


def test_this_disk_is_told_from_a_shared_one(tmp_path):
    assert runs.is_local("/proc") is False
    assert runs.is_local(tmp_path / "none") is False
    assert isinstance(runs.is_local(tmp_path), bool)


WATCHED = f"""
import sys, time
sys.path.insert(0, {str(SCRIPTS)!r})
from valleys.execution import runs
runs.end_with_run()
print("ready", flush=True)
time.sleep(20)
"""


def announced(pid):
    """What a Snakemake process of this number says to its jobs."""
    return f"{pid} {runs._start_time(pid)} {files.boot_id()} {runs._pid_namespace()}"


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="for Linux")
def test_a_job_ends_when_snakemake_is_killed(monkeypatch):
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    environment = {**os.environ, runs.VARIABLE: announced(owner.pid)}
    job = subprocess.Popen([sys.executable, "-c", WATCHED], stdout=subprocess.PIPE, env=environment)
    assert job.stdout.readline() == b"ready\n"
    time.sleep(0.1)
    assert job.poll() is None
    owner.kill()
    owner.wait()
    assert job.wait(timeout=10) == -signal.SIGTERM


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="for Linux")
@pytest.mark.parametrize("number", ["free", "another's"])
def test_a_job_that_starts_when_snakemake_is_dead_ends_at_once(number):
    """Else it would run beside the same job of the next run."""
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    said = announced(owner.pid)
    owner.kill()
    owner.wait()
    if number == "another's":
        said = said.replace(f"{owner.pid} ", f"{os.getpid()} ", 1)
    done = subprocess.run(
        [sys.executable, "-c", WATCHED], env={**os.environ, runs.VARIABLE: said}, capture_output=True
    )
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"")


def test_a_run_announces_itself(monkeypatch):
    monkeypatch.setenv(runs.VARIABLE, "")
    runs.name_to_jobs()
    assert os.environ[runs.VARIABLE] == announced(os.getpid())


@pytest.mark.parametrize(
    "said",
    [
        *("", "1", "x", "999999999 1 x", "999999999 1 {boot}", "999999999 1 {boot} another-container"),
        *("{pid} {started} another-boot {numbers}", "999999999 1 another-boot {numbers}"),
    ],
)
def test_a_variable_that_names_no_run_of_here_ends_nothing(said):
    said = said.format(
        pid=os.getpid(),
        started=runs._start_time(os.getpid()),
        boot=files.boot_id(),
        numbers=runs._pid_namespace(),
    )
    body = WATCHED.replace("time.sleep(20)", "time.sleep(0.3)")
    done = subprocess.run([sys.executable, "-c", body], env={**os.environ, runs.VARIABLE: said})
    assert done.returncode == 0
