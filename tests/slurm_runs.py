"""Runs of the workflow on the SLURM cluster of the tests, by the shipped profile as a user fills it in."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yte
from slurm_cluster import missing
from workflow_runs import ROOT, command

PROFILE = ROOT / "profiles" / "slurm" / "config.yaml"
GPU_RULES = ["train_sgd", "cooldown", "import_solution", "refresh_bn", "descend", "evaluate"]
GPU_RULES += [
    "directions",
    "search_directions",
    "probe",
    "connect",
    "interpolate",
    "plane",
    "compare_averages",
    "align",
]

CPUS = 8
"""Of the node, or so it says."""
ASKING_OFTEN = """
import sys
from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor
Executor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, seconds: None)
sys.exit(main())
"""
"""Snakemake, but that it asks how its jobs fare at a steady pace: these are short."""
AT_ONCE = ("--slurm-init-seconds-before-status-checks", "2")

ASKED = os.environ.get("VALLEYS_TEST_SLURM") == "1"
"""These tests take minutes, and beside much other work some of them fail."""
WHY_NOT = missing() if ASKED else "starts a SLURM cluster: set VALLEYS_TEST_SLURM=1 to run it"
needs_slurm = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


def filled_in(folder, **values):
    """A copy of the profile with some of its `__variables__` set, as a user would set them; its folder."""
    text = PROFILE.read_text()
    for name, value in values.items():
        text, count = re.subn(rf"(?m)^  {name}: ([^#\n]*?)( *#.*)?$", f"  {name}: {value!r}", text)
        assert count == 1, name
    folder.mkdir()
    (folder / "config.yaml").write_text(text)
    return folder


def rendered(folder):
    return yte.process_yaml((folder / "config.yaml").read_text(), require_use_yte=True)


def rules_with(pattern):
    """Names of the rules whose definition matches a regular expression."""
    texts = [path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk")]
    blocks = [block for text in texts for block in re.split(r"(?m)^rule ", text)[1:]]
    return {block.split(":")[0] for block in blocks if re.search(pattern, block)}


def submitted(site):
    """What SLURM knows of each job, by id: {id: {"Comment": ..., "JobState": ..., ...}}."""
    lines = site.run("scontrol", "--oneliner", "show", "jobs").splitlines()
    found = [dict(re.findall(r"(?:^| )([A-Z]\w+)=(\S*)", line)) for line in lines]
    return {job["JobId"]: job for job in found if "JobId" in job}


def job_of(site, comment, folder):
    """The newest job of a folder's runs with a comment; the comment says the rule and its wildcards."""
    ids = [
        int(i)
        for i, job in submitted(site).items()
        if job.get("Comment") == comment and Path(job["WorkDir"]) == folder
    ]
    return str(max(ids)) if ids else None


def wait(what, condition, run=None, seconds=600):
    """Wait for a condition and return its value; not beyond the end of a run that should bring it about."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        ended = run is not None and run.process.poll() is not None
        assert not ended, f"the run ended while waiting until {what}:\n{run.text()}"
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{run.text() if run else ''}"
        time.sleep(0.02)
    return value


class Run:
    """A Snakemake that submits to a cluster."""

    def __init__(self, site, folder, config, profile, *targets):
        self.output = folder / f"{profile.name}.txt"
        python, _m, _snakemake, *arguments = command(folder, config, *targets, "--profile", str(profile))
        arguments += AT_ONCE
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [python, "-c", ASKING_OFTEN, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=site.environment,
            )

    def text(self):
        return self.output.read_text()

    def finish(self, seconds=900):
        self.process.wait(timeout=seconds)
        assert self.process.returncode == 0, self.text()
        return self.text()

    def stop(self):
        """End it as Ctrl-C does, if a test failed before its end: it cancels its jobs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()


def settings(site, **more):
    """The profile's variables for the cluster of the tests."""
    if site.accounting:
        return {"GPU_MODEL": "fake", "STATUS": "sacct", "ACCOUNT": "lab", **more}
    return {"GPU_MODEL": "fake", "STATUS": "squeue", **more}
