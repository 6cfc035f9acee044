"""Jobs that a dead run left in a SLURM queue: they go before a new run submits the same ones.

A Snakemake that is killed on the login node, or whose driver job ends without notice, cannot cancel its
jobs. They wait and run on, and a new run would submit the same ones: two jobs that write one file and one
state folder. All jobs of a run have one name, which its record says (`runs.Run.claim`), so it is certain
whose a job in the queue is. Those of runs of the experiment that have ended for certain are cancelled, and
the new run waits until they are gone: training saves its state at SIGTERM, from which the new job goes on.

A living run's jobs are never touched. Where a run of the same files may live (on another node of a shared
file system) and has jobs in the queue, the new run is refused.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from valleys.errors import ValleysError
from valleys.execution import runs

WAIT_S = 600.0  # for cancelled jobs to be gone: far beyond what SLURM gives them until SIGKILL (KillWait)
POLL_S = 1.0
ANSWER_S = 60.0  # for squeue and scancel to answer
AT_ONCE = 500  # job ids on one command line
UUID = 36  # characters at the end of a job's name that say the run


@dataclass(frozen=True)
class Queued:
    """A job in the queue: id, name, state and working folder."""

    id: str
    name: str
    state: str
    folder: str


def _ask(*command: str) -> list[str] | None:
    """Run one of SLURM's programs; return the lines it prints, or None where it fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return [line.strip() for line in done.stdout.splitlines()] if done.returncode == 0 else None


def queue(*which: str) -> list[Queued] | None:
    """Return the jobs, of those that squeue's options `which` choose, that wait, run or are about to end.

    None where there is no answer.
    """
    lines = _ask("squeue", *which, "--noheader", "--format", "%i|%j|%T|%Z")
    if lines is None:
        return None
    rows = (line.split("|", 3) for line in lines)
    return [Queued(*row) for row in rows if len(row) == 4]


def cancel(ids: Sequence[str]) -> None:
    """Cancel jobs; whether that has worked, the queue will tell."""
    for i in range(0, len(ids), AT_ONCE):
        _ask("scancel", *ids[i : i + AT_ONCE])


def broken_nodes(names: str) -> set[str] | None:
    """Return those of a list of nodes, as SLURM writes it, that are down, drained or silent.

    None where sinfo does not say.
    """
    lines = _ask("sinfo", "--noheader", "--Node", "--nodes", names, "--format", "%N|%T")
    rows = [line.split("|", 1) for line in lines or () if "|" in line]
    if not rows:
        return None
    bad = ("down", "drain", "fail", "error", "unknown", "power")
    return {name for name, state in rows if state.startswith(bad) or state.endswith("*")}


class BrokenNodes(set):
    """Nodes that later submissions avoid: those that have failed, not those that jobs went on to.

    The SLURM plugin (2.8.0) asks for the node of a job after it has seen the job fail with it. When SLURM has
    put the job back into the queue by then, the answer is "None assigned", with which sbatch refuses all that
    follows; when the job runs again, the answer is the healthy node that it runs on.
    """

    def add(self, names: str) -> None:
        """Add the nodes of `names` that are broken; all of them where SLURM does not say."""
        if names and not any(letter.isspace() for letter in names):
            found = broken_nodes(names)
            self.update({names} if found is None else found)


def cancel_left(
    run: runs.Run,
    outputs: Collection[str],
    say: Callable[[str], None],
    warn: Callable[[str], None],
    wait_s: float = WAIT_S,
) -> None:
    """Cancel what dead runs of the experiment have left in the queue, and wait until it is gone.

    Parameters
    ----------
    run
        This run, which has claimed its files.
    outputs
        Those that it will make.
    say, warn
        Take a line for the user.
    wait_s
        Seconds to wait at most.

    Raises
    ------
    ValleysError
        When jobs are left of a run of the same files that may be alive, or when cancelled jobs do not end.
    """
    records = run.records()
    mine = [record for record in records if record.name == run.name and record.queued]
    dead = {record.queued: record for record in mine if record.dead}
    unsure = {
        record.queued: record
        for record in mine
        if not record.dead and not record.held and set(record.about.get("outputs", ())) & set(outputs)
    }
    if dead or unsure:
        found = queue("--name", ",".join((*dead, *unsure)))  # of any user: folders may be shared
        if found is None:
            kept = ", ".join(sorted(record.path.name for record in (*dead.values(), *unsure.values())))
            warn(
                "squeue does not answer, so jobs of an earlier run may still be in the queue and write the "
                f"same files; look there before you go on (.snakemake/{runs.RUNS}: {kept})"
            )
            return
        for name, record in unsure.items():
            if any(job.name == name for job in found):
                raise ValleysError(
                    f"jobs of an earlier run ({record.who}), which may be alive, are in the queue: stop it; "
                    f"if it is dead, scancel --name={name}"
                )
        _cancel_and_wait(found, list(dead), say, wait_s)
        for record in dead.values():
            if record.path.suffix == runs.JOBS_LEFT:
                record.path.unlink(missing_ok=True)
    if run.queued:
        _warn_of_unrecorded(run, {record.queued for record in records} | {run.queued}, warn)


def _cancel_and_wait(
    jobs: list[Queued], names: Sequence[str], say: Callable[[str], None], wait_s: float
) -> None:
    """Cancel jobs, and wait until none of these names is in the queue."""
    if not jobs:
        return
    say(
        f"{_shown(jobs)} {_verb(jobs)} left of a run that has ended: cancelled, so that nothing is "
        "written twice. Waiting until they are gone; training saves its state."
    )
    deadline, asked = time.monotonic() + wait_s, set()
    while jobs:
        # Again for what had not reached the queue when its Snakemake died.
        cancel([job.id for job in jobs if job.id not in asked])
        asked |= {job.id for job in jobs}
        if time.monotonic() > deadline:
            states = ", ".join(sorted({job.state for job in jobs}))
            raise ValleysError(
                f"{_shown(jobs)} of an earlier run {_verb(jobs)} still in the queue ({states}) {wait_s:g} s "
                "after scancel; start again when they are gone"
            )
        time.sleep(POLL_S)
        found = queue("--name", ",".join(names))
        if found is not None:  # else the controller is busy
            jobs = found


def _warn_of_unrecorded(run: runs.Run, known: Collection[str | None], warn: Callable[[str], None]) -> None:
    """Tell of jobs that seem to be a run's in this folder of which there is no record."""
    prefix, here = run.queued[:-UUID], run.folder.parent
    unrecorded = [
        job
        for job in queue("--user", str(os.getuid())) or ()
        if job.name not in known and job.name.startswith(prefix) and Path(job.folder) == here
    ]
    if unrecorded:
        warn(
            f"{_shown(unrecorded)} in the queue {_verb(unrecorded)} of a run in this folder that left no "
            "record; if they make files of this experiment, scancel them"
        )


def _shown(jobs: Sequence[Queued]) -> str:
    ids = ", ".join(job.id for job in jobs[:5]) + (", ..." if len(jobs) > 5 else "")
    return f"SLURM job {ids}" if len(jobs) == 1 else f"{len(jobs)} SLURM jobs ({ids})"


def _verb(jobs: Sequence[Queued]) -> str:
    return "is" if len(jobs) == 1 else "are"
