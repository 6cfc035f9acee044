"""Seconds until a job's own work begins: a process that imports for itself, and one forked from a warm one.

    python benchmarks/startup.py [--rounds 7] [--runs 3]

Jobs are Python processes as Snakemake starts them for a script, each given nothing to do once what its
rule imports is there, and one that imports only what Snakemake puts before a script. Then the smoke
experiment whole, with and without the fork server.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import yaml
from common import LIBRARY, ROOT, document, markdown, save
from valleys.execution import forkserver
from valleys.execution.forkserver_client import VARIABLE

PREAMBLE = f"import sys; sys.path.append({str(LIBRARY)!r}); import pickle, os; import snakemake.script\n"
CLIENT = ["-I", "-S", str(forkserver.CLIENT)]  # as `Internals.start_scripts_with` has Snakemake start them
JOBS = {
    "average": "import torch\nfrom valleys.models import solutions\n"
    "from valleys.training import averaging, sgd",
    "train": "import torch\nfrom valleys.data import cache\nfrom valleys.models import builder\n"
    "from valleys.storage import tables\n"
    "from valleys.training import sgd\n"
    "torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1).step()",
    "probe": "import torch\nfrom valleys.landscape import probing\nfrom valleys.models import solutions\n"
    "from valleys.storage import tables\nimport pyarrow",
    "figures": "from valleys import figures\nimport matplotlib.figure, scipy.stats",
}


def seconds(command: list[str]) -> float:
    """Return the time of one process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True)
    return time.perf_counter() - begin


def jobs(rounds: int, folder: Path) -> list[dict]:
    """Return a row for each kind of job, the ways in turns."""
    server = forkserver.start(LIBRARY)
    if server is None:
        sys.exit("startup: no fork server on this system")
    rows = []
    for name, body in JOBS.items():
        script, bare = folder / f"{name}.py", folder / "bare.py"
        script.write_text(PREAMBLE + body, encoding="utf-8")
        bare.write_text(PREAMBLE, encoding="utf-8")
        ways = {"cold": [str(script)], "forked": [*CLIENT, str(script)], "preamble": [str(bare)]}
        for command in ways.values():
            seconds(command)
        found: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, command in ways.items():
                found[way].append(seconds(command))
        row = {"what": name, "rounds": rounds, **{way: median(times) for way, times in found.items()}}
        rows.append(row)
        print(row, flush=True)
    server.stdin.close()
    server.wait()
    del os.environ[VARIABLE]
    return rows


def experiments(runs: int, folder: Path) -> dict:
    """Return the row of the smoke experiment."""
    config = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text(encoding="utf-8"))
    found: dict[str, list[float]] = {"cold": [], "forked": []}
    for run in range(runs):
        for way, times in found.items():
            at = folder / f"{way}-{run}"
            at.mkdir()
            chosen = {**config, "execution": {**config.get("execution", {}), "fork_server": way == "forked"}}
            (at / "config.yaml").write_text(yaml.safe_dump(chosen), encoding="utf-8")
            command = [sys.executable, "-m", "snakemake", "--cores", "all", "--quiet", "all"]
            command += ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(at)]
            command += ["--workflow-profile", str(ROOT / "profiles" / "default")]
            begin = time.perf_counter()
            subprocess.run([*command, "--configfile", str(at / "config.yaml")], check=True, cwd=at)
            times.append(time.perf_counter() - begin)
    row = {"what": "smoke run", "rounds": runs, **{way: median(times) for way, times in found.items()}}
    print(row, flush=True)
    return row


def main() -> None:
    """Measure, write the table, and put it into docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="processes of each kind and way")
    parser.add_argument("--runs", type=int, default=3, help="smoke runs each way")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [*jobs(given.rounds, Path(folder)), experiments(given.runs, Path(folder))]
    save("startup", rows)
    shown = [
        {
            "job": row["what"],
            "cold s": f"{row['cold']:.2f}",
            "forked s": f"{row['forked']:.2f}",
            "times faster": f"{row['cold'] / row['forked']:.1f}",
            "Snakemake's part s": f"{row['preamble']:.2f}" if "preamble" in row else "",
        }
        for row in rows
    ]
    document("startup", markdown(shown))


if __name__ == "__main__":
    main()
