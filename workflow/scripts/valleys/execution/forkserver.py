"""One warm process that the jobs of a local run are forked from: imports are paid once, not in each job.

Importing torch, its optimisers, pandas and scipy takes a job of this workflow two to four seconds of
processor time; most jobs of a small grid work for less. Snakemake starts each job as a Python process of its
own. When a fork server runs (`start`), that process hands its script over (`forkserver_client.submit`)
and waits: a fork of the server runs the script in the caller's folder, environment and output streams, gets
the signals that the caller gets, and ends with it, however it ends. Results are those of a process started
anew: each job has an untouched copy of modules that have done nothing but be imported.

Python's `multiprocessing.forkserver` serves the one process that started it; here the clients are others.
Linux only (it needs ``pidfd_open``): elsewhere, and whenever the server cannot be started or reached, a job
simply runs where it is.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import random
import runpy
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from valleys.execution import forkserver_client
from valleys.execution.forkserver_client import STARTED, STATUS, VARIABLE

CLIENT = Path(forkserver_client.__file__)
SHORT_FOLDERS = ("/tmp", "/dev/shm", "/var/tmp")  # folders with names that leave room for a socket's
# torch._dynamo is what torch imports at an optimiser's first step, as long as all the rest of it.
MODULES = (
    "torch",
    "torch._dynamo",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "safetensors.torch",
    "scipy.stats",
    "scipy.optimize",
)
MODULES += ("curvlinops", "matplotlib.figure", "matplotlib.backends.backend_agg", "snakemake.script")


# ---- the parent: Snakemake


def start(scripts: Path, report: Callable[[str], None] | None = None) -> subprocess.Popen[bytes] | None:
    """Start a server for the children of this process, and set the environment variable that names it.

    `scripts` is the folder that the package ``valleys`` is in. The server ends when this process does, after
    the jobs that then still run. Nothing is started (None) where forks cannot be watched, or where no folder
    can have its socket: `report` is then told why, and jobs start by themselves.
    """
    if not hasattr(os, "pidfd_open") or not hasattr(socket, "send_fds"):
        return None
    try:
        listener, address = _listen()
    except OSError as error:
        if report is not None:
            report(f"No fork server, so each job starts anew and takes some seconds more: {error}.")
        return None
    # Forked jobs compute with one thread (`jobs.job`); libraries read that when they are imported.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    # pyarrow brings an allocator with a thread of its own; a fork should come from a process without others.
    alone = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
    # A user's own modules are found in forks as in any process: where PYTHONPATH says.
    path = os.pathsep.join(filter(None, [str(scripts), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **threads, **alone, "PYTHONPATH": path}
    server = subprocess.Popen(
        [sys.executable, "-m", "valleys.execution.forkserver", address, str(listener.fileno())],
        pass_fds=[listener.fileno()],
        stdin=subprocess.PIPE,  # its end tells the server that this process ended
        stdout=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # Ctrl-C is for Snakemake and its jobs, which pass it on
    )
    listener.close()  # the server's copy is the only one: when it dies, jobs are refused at once
    os.environ[VARIABLE] = address
    return server


def _listen() -> tuple[socket.socket, str]:
    """Return a socket that listens, and its path, in a new folder.

    In the folder for temporary files; if it cannot be there, in a usual one. A socket's path has 107 bytes at
    most, which a long ``TMPDIR`` leaves no room in.

    Raises
    ------
    OSError
        When it can be in none of them.
    """
    failed = None
    for parent in (None, *SHORT_FOLDERS):  # None: as tempfile finds it, from TMPDIR on
        folder = None
        # Made by this process, so that it is there before any job; one that comes too early waits.
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            folder = tempfile.mkdtemp(prefix="valleys-", dir=parent)  # 0700: nobody else can have code run
            address = os.path.join(folder, "socket")  # noqa: PTH118 (as it is; no folder is looked up)
            listener.bind(address)
            listener.listen(128)
            return listener, address
        except OSError as error:
            failed = failed or error
            listener.close()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
    raise failed or OSError("no folder for its socket")


# ---- the server


def main(address: str, descriptor: int) -> None:
    """Import, and fork a process for each connection to a listening socket until standard input ends.

    `address` is the socket's file, which is removed at the end; `descriptor` the socket, from the parent.
    """
    folder = Path(address).parent
    try:
        listener = socket.socket(fileno=descriptor)
        preload()
        connection = serve(listener)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if connection is not None:
        run(connection)
    shutil.rmtree(folder, ignore_errors=True)


def preload() -> None:
    """Import and read what jobs need, and let the garbage collector be: pages that it touches are copied."""
    package = importlib.import_module("valleys")
    ours = [module.name for module in pkgutil.walk_packages(package.__path__, "valleys.")]
    for name in [*MODULES, *ours]:
        importlib.import_module(name)
    # What nearly each job reads: how tables are declared, and the versions that it writes into them.
    from valleys.storage import tables

    tables.declared()
    tables.versions()
    gc.collect()
    gc.freeze()


def serve(listener: socket.socket) -> socket.socket | None:
    """Fork for each connection; return it in the fork, and None in the server once all is over."""
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    waiting.register(sys.stdin, selectors.EVENT_READ)
    running: dict[int, tuple[int, socket.socket]] = {}  # process descriptor to process and its client
    accepting = True
    while accepting or running:
        for key, _ in waiting.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                process = os.fork()
                if process == 0:
                    # Only its own connection may stay open in a fork, or others would not see theirs close.
                    waiting.close()
                    listener.close()
                    for descriptor, (_, other) in running.items():
                        os.close(descriptor)
                        other.close()
                    return connection
                descriptor = os.pidfd_open(process)
                waiting.register(descriptor, selectors.EVENT_READ)
                running[descriptor] = process, connection
            elif key.fileobj is sys.stdin:
                accepting = False
                waiting.unregister(listener)
                waiting.unregister(sys.stdin)
                listener.close()
            else:
                process, connection = running.pop(key.fd)
                waiting.unregister(key.fd)
                os.close(key.fd)
                status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                with contextlib.suppress(OSError):  # its client may be gone
                    connection.sendall(STATUS.pack(status))
                connection.close()
    return None


# ---- a fork


def run(connection: socket.socket) -> NoReturn:
    """Become the process that a client asks for, with its streams, folder and environment; run its script."""
    request, streams = _receive(connection)
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    for descriptor, source in enumerate([null, *streams]):
        os.dup2(source, descriptor)
        os.close(source)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    os.environ.pop(VARIABLE, None)
    random.seed()  # as every new process; what decides results draws from generators of its own
    threading.Thread(target=_obey, args=(connection,), daemon=True).start()
    connection.sendall(STARTED)
    sys.argv[:] = request["argv"]
    os._exit(_status_of(sys.argv[0]))


def _receive(connection: socket.socket) -> tuple[Mapping[str, Any], list[int]]:
    """Return a client's request and its two output streams; end where it ended before it had asked."""
    head, streams, _, _ = socket.recv_fds(connection, 4, 2)
    if len(head) < 4 or len(streams) < 2:
        os._exit(1)
    missing, request = struct.unpack("!I", head)[0], b""
    while missing:
        piece = connection.recv(missing)
        if not piece:
            os._exit(1)
        request, missing = request + piece, missing - len(piece)
    return json.loads(request), list(streams)


def _obey(connection: socket.socket) -> None:
    """Give this process the signals that its client passes on; end it when the client is gone."""
    while True:
        try:
            number = connection.recv(1)
        except OSError:
            number = b""
        if not number:
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), number[0])


def _status_of(script: str) -> int:
    """Run a script as the interpreter would; return its exit status."""
    status = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return status & 0xFF


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
