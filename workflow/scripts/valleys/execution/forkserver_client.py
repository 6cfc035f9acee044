"""What hands a job to the fork server (`forkserver`): a program that starts in hundredths of a second.

    python -I -S forkserver_client.py SCRIPT [ARGUMENT ...]

Run for each job of a local run in place of ``python SCRIPT``, so it imports little: no module of this
package, and none that takes long.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys

VARIABLE = "VALLEYS_FORKSERVER"  # the environment variable that tells jobs where the server listens
FORWARDED = tuple(getattr(signal, n) for n in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"))
STARTED = b"S"  # what a fork answers once it has a whole request; until then the client can still run it
STATUS = struct.Struct("!i")  # how the fork ended, as `os.waitstatus_to_exitcode` gives it


def main(script: str, *arguments: str) -> None:
    """Run a script in a fork of the server, or in this process's place where that cannot be reached."""
    if address := os.environ.get(VARIABLE):
        submit(address, [script, *arguments])
    os.execv(sys.executable, [sys.executable, script, *arguments])


def submit(address: str, argv: list[str]) -> None:
    """Run a script in a fork of the server at a socket, and end this process as that ends.

    Returns only when the server cannot take it. Signals that ask a process to stop are passed on. When this
    process is killed, the server's end of the connection closes and the fork is killed.
    """
    asked = {"argv": argv, "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109 (pathlib is slow)
    request = json.dumps(asked).encode()
    # What this process was told to ignore (SIGINT, by a shell that put it in the background) stays ignored.
    handlers = {n: h for n in FORWARDED if (h := signal.getsignal(n)) != signal.SIG_IGN}
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(address)
        socket.send_fds(connection, [struct.pack("!I", len(request))], [1, 2])
        connection.sendall(request)
        # Python itself writes a signal's number into the connection, at once. A handler of ours would wait
        # for the interpreter, which a signal that comes just before a call that waits does not wake.
        connection.setblocking(False)
        signal.set_wakeup_fd(connection.fileno(), warn_on_full_buffer=False)
        for number in handlers:
            signal.signal(number, lambda *_: None)
        if _receive(connection, 1) != STARTED:
            raise ConnectionError("the server ended before it took the job")
    except OSError:
        signal.set_wakeup_fd(-1)
        connection.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        return
    _end_as(connection)


def _receive(connection: socket.socket, size: int) -> bytes:
    """Wait until a socket that does not block has something; return up to `size` bytes, none at its end."""
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    waiting.poll()
    return connection.recv(size)


def _end_as(connection: socket.socket) -> None:
    """Wait for the fork's status and end this process with it, by the same signal if it was one."""
    answer = b""
    with contextlib.suppress(OSError):
        while len(answer) < STATUS.size and (piece := _receive(connection, STATUS.size - len(answer))):
            answer += piece
    if len(answer) < STATUS.size:
        print("error: the fork server ended while this job ran in it", file=sys.stderr, flush=True)
        os._exit(1)
    (status,) = STATUS.unpack(answer)
    if status < 0:
        if -status in FORWARDED:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
