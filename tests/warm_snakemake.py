"""Runs of Snakemake, each a fork of one process that has imported it: half of a dry run is imports.

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

LIBRARIES = ("snakemake.cli", "snakemake.report", "snakemake.executors.dryrun", "smart_open")
LIBRARIES += ("pandas", "pyarrow.parquet", "yaml", "jsonschema", "safetensors.numpy", "networkx")
OURS = ("config.params", "config.outputs", "costs.rules", "costs.plan", "execution.runs")
OURS += ("execution.slurm_queue", "execution.snakemake_internals", "report.rulegraph", "storage.tables")
SCRIPTS = Path(__file__).resolve().parents[1] / "workflow" / "scripts"


class Warm:
    """The process, started when it is first asked; it ends with this one, as the server of jobs does."""

    def __init__(self):
        self.server = None
        self.jobs = None

    def server_of_jobs(self):
        """Return the address of a fork server for jobs, started when it is first asked."""
        from valleys.execution import forkserver
        from valleys.execution.forkserver_client import VARIABLE

        if self.jobs is None or self.jobs[0].poll() is not None:
            process = forkserver.start(SCRIPTS)
            self.jobs = process, os.environ.pop(VARIABLE)
        return self.jobs[1]

    def run(self, argv, folder, output, timeout, jobs=None):
        """Run ``python -m snakemake`` with these arguments in a folder; return its exit status.

        With `jobs` the run takes the fork server at that address in place of one of its own.
        """
        if self.server is None or self.server.poll() is not None:
            self.server = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        asked = {"argv": argv, "folder": str(folder), "output": str(output), "timeout": timeout, "jobs": jobs}
        self.server.stdin.write(json.dumps({**asked, "environment": environment}) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


def serve():
    import importlib

    sys.path.insert(1, str(SCRIPTS))
    for name in (*LIBRARIES, *(f"valleys.{own}" for own in OURS)):
        importlib.import_module(name)
    sys.modules["snakemake.cli"].get_argument_parser()  # which imports all plugins
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
    if asked["jobs"]:
        have_jobs_served_at(asked["jobs"])
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


def have_jobs_served_at(address):
    """Have any number of jobs forked from a server that is there already."""
    from valleys.execution import forkserver
    from valleys.execution.forkserver_client import VARIABLE
    from valleys.execution.snakemake_internals import Internals

    def start(scripts, report=None):
        os.environ[VARIABLE] = address
        return address

    is_forkable = Internals.is_forkable
    forkserver.start, Internals.is_forkable = start, lambda own, least: is_forkable(own, 1)


if __name__ == "__main__":
    serve()
