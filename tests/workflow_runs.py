"""Helpers that run the real workflow in a folder of its own."""

import copy
import re
import sys
from pathlib import Path

import yaml
from warm_snakemake import Warm

ROOT = Path(__file__).parents[1]


def load(name):
    return yaml.safe_load((ROOT / name).read_text())


def changed(config, **paths):
    """A deep copy with dotted keys (dots written as two underscores) set."""
    config = copy.deepcopy(config)
    for path, value in paths.items():
        *parents, last = path.split("__")
        block = config
        for key in parents:
            block = block[key]
        block[last] = value
    return config


def command(folder, config, *args):
    path = Path(folder) / "config-under-test.yaml"
    path.write_text(yaml.safe_dump(config))
    return [
        sys.executable,
        "-m",
        "snakemake",
        *args,
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--directory",
        str(folder),
        "--workflow-profile",
        str(ROOT / "profiles" / "default"),
        "--configfile",
        str(path),
    ]


WARM = Warm()


def snakemake(folder, config, *args, timeout=300, own_server=False):
    """Run the workflow; return (exit status, output).

    Jobs are forks of one server of all runs of these tests, as the imports of a server take as long as a
    small run; with `own_server` of that which the workflow starts.
    """
    output = Path(folder) / "output-under-test.log"
    argv = command(folder, config, *args)[3:]
    served = not own_server and "-n" not in args
    status = WARM.run(argv, folder, output, timeout, WARM.server_of_jobs() if served else None)
    text = output.read_text(encoding="utf-8", errors="replace")
    output.unlink()
    return status, text


def planned(folder, config, *args):
    """Dry run (of targets, if given); return {rule: number of jobs}, empty when there is nothing to do."""
    status, text = snakemake(folder, config, *args, "-n")
    assert status == 0, text
    stats = re.search(r"Job stats:\njob +count\n-+ +-+\n(.*?)\n\n", text, re.S)
    if stats is None:
        assert "Nothing to be done" in text, text
        return {}
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", stats.group(1), re.M))
    return {rule: int(count) for rule, count in jobs.items() if rule not in ("total", "all", *args)}
