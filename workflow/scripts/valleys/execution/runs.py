"""Which runs of Snakemake are alive in a folder, so that a lock never outlives its run.

Snakemake locks the files of a run by lists in ``.snakemake/locks`` that do not say whose they are. After a
SIGKILL or a power cut they stay, and every later run is refused until somebody unlocks the folder by hand.
Two runs that start in the same instant can both pass the check.

Each run of this workflow therefore keeps a record in ``.snakemake/runs`` and holds an advisory lock of the
operating system on it, which ends with the process however that ends. A new run removes the lists of dead
ones (`clear_dead`), and compares its files with those of the living once more when it starts (`claim`).

A record whose lock is free belongs to a dead run only where its holder would have been seen: on the same
machine since it booted, or on a disk that no other machine can have mounted. On a file system that several
nodes share, the record of another node is never taken for dead; the message names node and process instead.

On a cluster jobs outlive a Snakemake that is killed. A run that submits notes the name its jobs have in the
queue (`claim`), and its record stays as ``*.left`` when it ends, until `slurm_queue` has seen to them.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import logging
import os
import platform
import select
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from valleys.errors import ValleysError
from valleys.storage.files import boot_id

VARIABLE = "VALLEYS_RUN"  # names the Snakemake process that a job belongs to
RUNS, LOCKS = "runs", "locks"  # within .snakemake
JOBS_LEFT = ".left"  # the record of a run that has ended, with jobs on a cluster
# Those of one machine alone; whatever is not here may be shared.
LOCAL_FILE_SYSTEMS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "ramfs", "overlay"}

_OWN: set[Path] = set()  # this process's records

log = logging.getLogger("valleys")


def is_local(folder: str | Path) -> bool:
    """Return whether a folder is on a file system that only this machine can have mounted."""
    try:
        device = Path(folder).stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            if before.split()[2] == number:
                return after.split()[0] in LOCAL_FILE_SYSTEMS
    except (OSError, IndexError):
        pass
    return False


def _merged(text: str) -> dict[str, Any]:
    """Return the mappings in lines of JSON together; the last may be cut off by a kill."""
    found: dict[str, Any] = {}
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError):
            found.update(json.loads(line))
    return found


@dataclass
class Record:
    """A run's record.

    Attributes
    ----------
    path
        Its file.
    about
        ``name, host, boot, pid, since`` and, once it works, ``inputs``, ``outputs`` and ``queued``, the name
        of its jobs on a cluster (null where they run here).
    held
        Whether its lock is held: it lives for certain.
    dead
        Whether it is dead for certain.
    """

    path: Path
    about: dict[str, Any]
    held: bool
    dead: bool

    @property
    def who(self) -> str:
        """The run, for a message."""
        return f"process {self.about.get('pid')} on {self.about.get('host')} since {self.about.get('since')}"

    @property
    def name(self) -> str | None:
        """The run's experiment."""
        return self.about.get("name")

    @property
    def queued(self) -> str | None:
        """The name of the run's jobs on a cluster."""
        return self.about.get("queued")

    def retire(self) -> None:
        """Remove the record, or set it aside where jobs of the run may be left on a cluster."""
        _retire(self.path, self.queued)


def _retire(path: Path, queued: str | None) -> None:
    with contextlib.suppress(FileNotFoundError):
        if queued:
            path.replace(path.with_suffix(JOBS_LEFT))
        else:
            path.unlink()


class Run:
    """This process's record in a folder.

    Parameters
    ----------
    name
        Of the experiment: runs of different ones have no file in common but the data sets' originals.
    folder
        Snakemake's own, ``.snakemake``.
    """

    def __init__(self, name: str, folder: str | Path = ".snakemake") -> None:
        self.name, self.folder = name, Path(folder).absolute()
        self.stream: IO[str] | None = None
        self.queued: str | None = None

    def begin(self) -> bool:
        """Make the record and lock it; return whether the file system allows that.

        Where it does not (no writing, no locks), nothing is known of other runs, and Snakemake's lists count.
        """
        try:
            (self.folder / RUNS).mkdir(parents=True, exist_ok=True)
            with self._exclusive():
                handle, path = tempfile.mkstemp(".run", "", self.folder / RUNS, text=True)
                self.path, self.owner, self.stream = Path(path), os.getpid(), os.fdopen(handle, "w")
                _OWN.add(self.path)
                fcntl.lockf(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                since = time.strftime("%Y-%m-%d %H:%M:%S")
                self._append(
                    name=self.name, host=platform.node(), boot=boot_id(), pid=os.getpid(), since=since
                )
        except OSError:
            self.end()
            return False
        atexit.register(self.end)
        return True

    def succeeded(self) -> None:
        """Say that all jobs have ended: none can be left on a cluster."""
        self.queued = None

    def end(self) -> None:
        """Remove the record, or set it aside (`Record.retire`)."""
        if self.stream is not None and os.getpid() == self.owner:  # and not a fork of it
            with contextlib.suppress(OSError):
                _retire(self.path, self.queued)
            self.stream.close()
            _OWN.discard(self.path)
        self.stream = None

    def clear_dead(self) -> list[str]:
        """Remove the records of dead runs, and Snakemake's lists of those of this experiment.

        The lists stay as long as any run of the experiment lives. Returns the names of the lists removed.
        """
        if self.stream is None:
            return []
        removed = []
        with contextlib.suppress(OSError), self._exclusive():
            others = [record for record in self._others() if record.name == self.name]
            dead = [record for record in others if record.dead]
            if dead and len(dead) == len(others):
                below = f"results/{self.name}/"
                for path in sorted((self.folder / LOCKS).glob("*.lock")):
                    if any(line.startswith(below) for line in path.read_text().splitlines()):
                        path.unlink(missing_ok=True)
                        removed.append(path.name)
                for record in dead:
                    record.retire()
        return removed

    def claim(self, inputs: Iterable[str], outputs: Iterable[str], queued: str | None = None) -> None:
        """Note the files of the jobs to run, unless a living run has claimed some of them.

        Parameters
        ----------
        queued
            The name that the run's jobs will have in a cluster's queue.

        Raises
        ------
        ValleysError
            When one has: names it and a file.
        """
        self.queued = queued
        if self.stream is None:
            return
        inputs, outputs = set(inputs), set(outputs)
        with self._exclusive():
            for record in self._others():
                their = {key: set(record.about.get(key, ())) for key in ("inputs", "outputs")}
                shared = their["inputs"] & outputs | their["outputs"] & (inputs | outputs)
                if record.held and shared:
                    raise ValleysError(
                        f"another run ({record.who}) makes or reads {min(shared)}; wait for it or stop it"
                    )
            self._append(inputs=sorted(inputs), outputs=sorted(outputs), queued=queued)
            os.fsync(self.stream.fileno())  # else a power cut would lose whose the jobs are

    def working(self) -> list[Record]:
        """Return the records of other runs of the experiment that have begun to work and may be alive."""
        if self.stream is None:
            return []
        with self._exclusive():
            others = [record for record in self._others() if record.name == self.name]
        return [record for record in others if "outputs" in record.about and not record.dead]

    def records(self) -> list[Record]:
        """Return the records of other runs in the folder, of those that have ended with jobs left too."""
        if self.stream is None:
            return []
        with self._exclusive():
            found = list(self._others())
            for path in sorted((self.folder / RUNS).glob(f"*{JOBS_LEFT}")):
                with contextlib.suppress(OSError):
                    found.append(Record(path, _merged(path.read_text()), held=False, dead=True))
        return found

    def _append(self, **more: Any) -> None:
        """Add a line to the record. In place, since the lock is on this very file."""
        assert self.stream is not None
        json.dump(more, self.stream)
        self.stream.write("\n")
        self.stream.flush()

    def _others(self) -> Iterator[Record]:
        """Go through the records of other processes."""
        own, local = boot_id(), is_local(self.folder)
        for path in sorted((self.folder / RUNS).glob("*.run")):
            if path in _OWN:  # opening it would be enough to lose its lock, when it is closed
                continue
            try:
                with path.open("r+") as stream:
                    try:
                        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        held = False
                    except OSError:
                        held = True
                    about = _merged(stream.read())
            except OSError:
                continue
            yield Record(path, about, held, dead=not held and (local or about.get("boot") == own))

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold off other runs that look at the records."""
        with (self.folder / RUNS / "lock").open("a") as stream:
            fcntl.lockf(stream, fcntl.LOCK_EX)
            yield


# ---- jobs end with their run


def _start_time(pid: int) -> str:
    """Return when a process started, in the kernel's own unit: with its number, that names it for good."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _pid_namespace() -> str:
    """Return whose process numbers this process sees: a container may have its own."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def name_to_jobs() -> None:
    """Name this process to the jobs that it will start, by an environment variable."""
    os.environ[VARIABLE] = f"{os.getpid()} {_start_time(os.getpid())} {boot_id()} {_pid_namespace()}"


def _end() -> None:
    log.warning("Snakemake has ended; so does this job")
    os.kill(os.getpid(), signal.SIGTERM)


def end_with_run() -> None:
    """Send this process SIGTERM when the Snakemake process that it belongs to is gone, at once if it is.

    A SIGKILL of Snakemake leaves its jobs behind, some of which have only begun to start; the next run would
    start the same ones beside them. SIGTERM lets training save its state. Does nothing where processes cannot
    be watched (not Linux), or when the variable names no process of this machine and container.
    """
    pid, started, boot, numbers = [*os.environ.get(VARIABLE, "").split(), "", "", "", ""][:4]
    here = (boot, numbers) == (boot_id(), _pid_namespace())
    if not (here and numbers and started and pid.isdigit() and hasattr(os, "pidfd_open")):
        return
    process = None
    try:
        process = os.pidfd_open(int(pid))
    except ProcessLookupError:
        pass
    except OSError:  # a kernel without it
        return
    if process is None or _start_time(int(pid)) != started:  # or its number is another's by now
        _end()
        return

    def watch() -> None:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.poll()
        _end()

    threading.Thread(target=watch, daemon=True).start()
