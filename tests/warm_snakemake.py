"""Dry runs of Snakemake, each a fork of one process that has imported it: half of a dry run is imports.

Run by itself it is that process: it reads a line of JSON for each run and answers with the exit status.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import traceback
from pathlib import Path

LIBRARIES = (
    "snakemake.cli",
    "pandas",
    "pyarrow.parquet",
    "yaml",
    "jsonschema",
    "safetensors.numpy",
    "networkx",
)


class Warm:
    """The process, started when it is first asked; it ends with this one."""

    def __init__(self):
        self.server = None

    def run(self, argv, folder, output, timeout):
        """Run ``python -m snakemake`` with these arguments in a folder; return its exit status."""
        if self.server is None or self.server.poll() is not None:
            self.server = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        asked = {"argv": argv, "folder": str(folder), "output": str(output), "timeout": timeout}
        self.server.stdin.write(json.dumps({**asked, "environment": environment}) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


def serve():
    import importlib

    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        process = os.fork()
        if process == 0:
            os._exit(run(asked))
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def run(asked):
    """Become the process that is asked for."""
    os.setsid()
    signal.alarm(int(asked["timeout"]))  # which ends it
    with Path(asked["output"]).open("wb", buffering=0) as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv[:] = ["snakemake", *asked["argv"]]
    sys.path[0] = asked["folder"]  # as of ``python -m``
    status = 0
    try:
        runpy.run_module("snakemake", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    serve()
