"""A SLURM cluster on loopback, for tests: munged, slurmctld, a slurmd a node and, if wanted, accounting.

    python tests/slurm_cluster.py [--accounting] [--nodes N] -- command...

runs a command with the cluster up (`SLURM_CONF` set) and stops it again. It needs root, since slurmd starts
jobs in the names of users, and the daemons of Debian's `slurm-wlm` and `munge`; accounting needs `slurmdbd`
and `mariadb-server` too. No systemd and no cgroups are needed. All files, keys and sockets lie in one folder;
every daemon runs as a child of this process in the foreground and is stopped by its process id.

Nodes pretend to have GPUs, of a type `fake`, so that requests for them can be tested without one; two
partitions, `cpu` and `gpu`, share them, and jobs of a third, `urgent`, preempt theirs. All nodes are this
machine under names of their own, each with a daemon and a port; jobs go to the first that has room.
`Cluster.lose` takes one away as a power cut does.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

DAEMONS = ("munged", "slurmctld", "slurmd")
ACCOUNTING_DAEMONS = ("slurmdbd", "mariadbd", "mariadb-install-db")
CLIENTS = ("sbatch", "srun", "scancel", "scontrol", "sinfo", "squeue", "sacct", "sacctmgr", "sshare")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
"""Debian keeps daemons where an ordinary user's PATH does not lead."""

CONFIG = """\
ClusterName=valleys
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0,defer_batch
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait={kill_wait}
OverTimeLimit=0
MinJobAge=3600
InactiveLimit=0
ReturnToService=2
SlurmdTimeout=300
GresTypes=gpu
{accounting}
SlurmdParameters=config_overrides
{nodes}
PartitionName=cpu Nodes=ALL Default=YES MaxTime=1-0 PriorityTier=1 GraceTime={grace} State=UP
PartitionName=gpu Nodes=ALL MaxTime=1-0 PriorityTier=1 GraceTime={grace} State=UP
PartitionName=urgent Nodes=ALL MaxTime=1-0 PriorityTier=9 State=UP
"""

NODE = """\
NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=64000 \
Gres=gpu:fake:{gpus} Weight={weight} Feature=small,loopback"""

ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={ports[1]}
AccountingStoragePass={folder}/munge/socket
AccountingStorageEnforce=associations
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment"""

DATABASE = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost=localhost
DbdPort={ports[1]}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
"""


def missing(accounting: bool = False) -> str | None:
    """Return why a cluster cannot be started here, or None."""
    if os.geteuid() != 0:
        return "starting a SLURM cluster needs root"
    wanted = [*DAEMONS, "sbatch", "srun", *(ACCOUNTING_DAEMONS if accounting else ())]
    absent = [name for name in wanted if shutil.which(name, path=PATH) is None]
    packages = "slurm-wlm munge slurmdbd mariadb-server" if accounting else "slurm-wlm munge"
    return f"not installed: {', '.join(absent)} (Debian: {packages})" if absent else None


class Cluster:
    """A running cluster; `environment` is what a client needs, `folder` holds everything it writes."""

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int,
        accounting: bool,
        cpus: int,
        gpus: int,
        kill_wait: int,
        grace: int,
    ):
        self.folder, self.accounting = folder, accounting
        self.nodes = [f"node{number}" for number in range(1, nodes + 1)]
        self.cpus, self.gpus, self.kill_wait, self.grace = cpus, gpus, kill_wait, grace
        self.environment = {
            **os.environ,
            "PATH": f"{folder}/bin:{PATH}",
            "SLURM_CONF": str(folder / "slurm.conf"),
            # The client library looks for the server of "localhost" at this socket.
            "MYSQL_UNIX_PORT": str(folder / "mariadb.socket"),
        }
        self._daemons: list[tuple[str, subprocess.Popen]] = []

    def start(self) -> None:
        """Start the daemons, each when the one before it answers."""
        self._write_files()
        self._launch(
            "munged",
            *("--foreground", "--force", f"--key-file={self.folder}/munge/key"),
            *(f"--{name}={self.folder}/munge/{name}" for name in ("socket", "pid-file", "log-file")),
            f"--seed-file={self.folder}/munge/seed",
        )
        self._until("munged answers", lambda: (self.folder / "munge/socket").exists())
        if self.accounting:
            self._start_accounting()
        self._launch("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        self._until("slurmctld answers", lambda: self._succeeds("scontrol", "ping"))
        for name in self.nodes:
            self._launch("slurmd", "-D", "-N", name, "-f", str(self.folder / "slurm.conf"), label=name)
        idle = [f"idle {len(self.nodes)}"]
        self._until(
            "all nodes are idle",
            lambda: self.run("sinfo", "-h", "-p", "cpu", "-o", "%T %D").splitlines() == idle,
        )

    def _write_files(self) -> None:
        ports = _free_ports(2 + len(self.nodes))
        self.folder.chmod(0o755)  # munged wants its socket where anyone can reach it
        for name in ("munge", "state", "bin", *(f"spool-{node}" for node in self.nodes)):
            (self.folder / name).mkdir(mode=0o755)
        # Snakemake drops SLURM_* from the environment of its job steps and, in a job, from its own; with them
        # goes what says where this cluster's settings are. These clients know it by themselves.
        settings = shlex.quote(self.environment["SLURM_CONF"])
        for name in CLIENTS:
            client = self.folder / "bin" / name
            real = shlex.quote(shutil.which(name, path=PATH) or name)
            client.write_text(f'#!/bin/sh\nSLURM_CONF={settings} exec {real} "$@"\n')
            client.chmod(0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        text = CONFIG.format(
            **{name: getattr(self, name) for name in ("folder", "kill_wait", "grace")},
            ports=ports,
            nodes="\n".join(
                NODE.format(name=name, port=ports[2 + i], cpus=self.cpus, gpus=self.gpus, weight=1 + i)
                for i, name in enumerate(self.nodes)
            ),
            accounting=ACCOUNTING.format(folder=self.folder, ports=ports)
            if self.accounting
            else "AccountingStorageType=accounting_storage/none",
        )
        (self.folder / "slurm.conf").write_text(text)
        # A GPU is known by its device file; any file will do.
        for number in range(self.gpus):
            (self.folder / f"gpu{number}").touch()
        gpus = "".join(f"Name=gpu Type=fake File={self.folder}/gpu{i}\n" for i in range(self.gpus))
        (self.folder / "gres.conf").write_text(gpus)
        database = self.folder / "slurmdbd.conf"
        database.write_text(DATABASE.format(folder=self.folder, ports=ports))
        database.chmod(0o600)  # slurmdbd refuses another

    def _start_accounting(self) -> None:
        data = self.folder / "mariadb"
        shared = ("--no-defaults", "--user=root", f"--datadir={data}")
        self.run("mariadb-install-db", *shared, "--auth-root-authentication-method=socket", "--skip-test-db")
        self._launch(
            "mariadbd",
            *shared,
            "--skip-networking",
            f"--socket={self.folder}/mariadb.socket",
            f"--pid-file={self.folder}/mariadb.pid",
            "--innodb-buffer-pool-size=64M",
        )
        self._until("mariadbd answers", lambda: (self.folder / "mariadb.socket").exists())
        # It finds its configuration beside slurm.conf.
        self._launch("slurmdbd", "-D")
        self._until("slurmdbd answers", lambda: self._succeeds("sacctmgr", "-n", "list", "cluster"))
        self.run("sacctmgr", "-i", "add", "cluster", "valleys")
        self.run("sacctmgr", "-i", "add", "account", "lab", "Cluster=valleys")
        self.run("sacctmgr", "-i", "add", "qos", "fast")
        self.run("sacctmgr", "-i", "add", "user", "root", "Account=lab", "QosLevel=normal,fast")

    def _launch(self, name: str, *args: str, label: str | None = None) -> None:
        with (self.folder / f"{label or name}.out").open("ab") as output:
            process = subprocess.Popen(
                [shutil.which(name, path=PATH) or name, *args],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,  # a Ctrl-C is for the command, not for the daemons
                preexec_fn=_end_with_parent,
            )
        self._daemons.append((label or name, process))

    def _until(self, what: str, condition, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            dead = [name for name, process in self._daemons if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                why = f"{dead[0]} ended" if dead else f"not within {seconds:g} s"
                raise RuntimeError(f"waiting until {what}: {why}\n{self.logs()}")
            time.sleep(0.1)

    def logs(self, lines: int = 20) -> str:
        """Return the ends of the daemons' logs."""
        found = [*sorted(self.folder.glob("*.out")), *sorted(self.folder.glob("*.log"))]
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
            for path in found
        )

    def run(self, *command: str, check: bool = True) -> str:
        """Run a client command; return its output, stripped."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def _succeeds(self, *command: str) -> bool:
        done = subprocess.run(command, env=self.environment, capture_output=True, timeout=60)
        return done.returncode == 0

    def lose(self, node: str) -> None:
        """Take a node away as a power cut does, with all that runs on it, and have SLURM notice at once."""
        (daemon,) = [process for name, process in self._daemons if name == node]
        # Each step of a job is a child of a process "slurmstepd", which the daemon has started and left.
        steps = self.run("squeue", "-h", "-w", node, "-t", "running,completing", "-o", "%A").split()
        daemon.kill()
        daemon.wait()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                about = " ".join(process.cmdline())
                if about.startswith("slurmstepd:") and any(f"[{job}." in about for job in steps):
                    for each in (process, *process.children(recursive=True)):
                        each.kill()
        self._daemons = [each for each in self._daemons if each[0] != node]
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def stop(self) -> None:
        """Cancel what still runs, then stop the daemons in the order opposite to their start."""
        if any(name in self.nodes for name, _ in self._daemons):
            with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
                self.run("scancel", "--user=root", "--signal=KILL", "--full", check=False)
                self.run("scancel", "--user=root", check=False)
                deadline = time.monotonic() + 15
                while self.run("squeue", "-h") and time.monotonic() < deadline:
                    time.sleep(0.2)
        for _, process in reversed(self._daemons):
            for number in (signal.SIGTERM, signal.SIGKILL):
                if process.poll() is None:
                    process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=15)
                    break
        self._daemons.clear()


def _end_with_parent() -> None:
    """Ask Linux for SIGTERM when the process that started this one ends, be it by SIGKILL."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _free_ports(count: int) -> list[int]:
    """Return TCP ports that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def cluster(*, nodes=1, accounting=False, cpus=2, gpus=4, kill_wait=10, grace=0):
    """Run a cluster in a temporary folder; it is gone afterwards, files included."""
    folder = Path(tempfile.mkdtemp(prefix="valleys-slurm-"))
    running = Cluster(
        folder, nodes=nodes, accounting=accounting, cpus=cpus, gpus=gpus, kill_wait=kill_wait, grace=grace
    )
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Run a command with a cluster up; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accounting", action="store_true", help="with slurmdbd and MariaDB")
    parser.add_argument("--nodes", type=int, default=1, help="how many")
    parser.add_argument("--cpus", type=int, default=2, help="that a node pretends to have")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    why = missing(given.accounting)
    if why:
        sys.exit(f"slurm_cluster: {why}")
    with cluster(nodes=given.nodes, accounting=given.accounting, cpus=given.cpus) as running:
        return subprocess.run(given.command, env=running.environment).returncode


if __name__ == "__main__":
    sys.exit(main())
