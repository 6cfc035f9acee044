"""How planning grows with the grid: time and memory of Snakemake's graph at 2,000 to 50,000 jobs.

    python benchmarks/plan_scale.py [--jobs 2000 10000 50000] [--rounds 1] [--profile FILE]

The grid is that of config/paper.yaml with as many seeds as make the number of jobs; nothing is done yet, and
nothing trains. Each measurement is a process of its own:

``plan``
    ``python -m valleys plan``: the graph, and a price for each job.
``dry run``
    ``snakemake -n``.
``dry run, SLURM``
    the same with profiles/slurm.

Of each, ``own_part.py`` tells which share of the seconds is ours: the rest is Snakemake's.
"""

from __future__ import annotations

import argparse
import os
import pstats
import re
import sys
import tempfile
from pathlib import Path
from statistics import median

import yaml
from common import LIBRARY, ROOT, child, document, markdown, save
from valleys.data.presence import IN_ROOT

SNAKEMAKE = [
    *("snakemake", "--snakefile", str(ROOT / "Snakefile")),
    *("--workflow-profile", str(ROOT / "profiles" / "default"), "--configfile", "config.yaml"),
]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(LIBRARY), "PYTHONDONTWRITEBYTECODE": "1"}
STEPS = ("plan", "dry run", "dry run, SLURM")


def grid(jobs: int) -> tuple[dict, int]:
    """Return config/paper.yaml with seeds for about so many jobs, and how many there are then."""
    config = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text(encoding="utf-8"))
    counts = {}
    for seeds in (2, 3):
        counts[seeds] = count({**config, "seeds": list(range(seeds))})
    each = counts[3] - counts[2]
    seeds = max(2, round((jobs - counts[2]) / each) + 2)
    return {**config, "seeds": list(range(seeds))}, counts[2] + (seeds - 2) * each


def count(config: dict) -> int:
    """Return the jobs of a config, from the last line of its plan."""
    with tempfile.TemporaryDirectory() as folder:
        return int(re.search(r"(?m)^total +(\d+)", run("plan", config, Path(folder))[3]).group(1))


def command(step: str) -> list[str]:
    """Return the module of one measurement, and its arguments."""
    if step == "plan":
        return ["valleys", "plan", "config.yaml"]
    if step == "dry run, SLURM":
        return [*SNAKEMAKE, "-n", "--quiet", "rules", "--profile", str(ROOT / "profiles" / "slurm")]
    return [*SNAKEMAKE, "-n", "--quiet", "rules"]


def run(step: str, config: dict, folder: Path) -> tuple[float, float, float, str]:
    """Return seconds, those of our own part, MB and output of one measurement in a folder."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for spec in config["datasets"].values():  # a dry run looks for their names
        for name in IN_ROOT[spec["source"]]:
            path = folder / spec["root"] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    share, script = folder / "share.txt", ROOT / "benchmarks" / "own_part.py"
    seconds, mb, text = child([sys.executable, str(script), str(share), *command(step)], folder, ENVIRONMENT)
    return seconds, seconds * float(share.read_text(encoding="utf-8")), mb, text


def measure(jobs: int, rounds: int) -> list[dict]:
    """Return a row for each measurement of a grid of about so many jobs."""
    config, exact = grid(jobs)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for step in STEPS:
            found = [run(step, config, Path(name)) for _ in range(rounds)]
            row = {"measurement": step, "jobs": exact, "seeds": len(config["seeds"]), "rounds": rounds}
            row["seconds"] = median(seconds for seconds, *_ in found)
            row["own_seconds"] = median(own for _, own, _, _ in found)
            row["peak_mb"] = max(mb for _, _, mb, _ in found)
            rows.append(row)
            print({k: round(v, 1) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    return rows


def profiled(jobs: int, path: Path) -> None:
    """Write a profile of building the graph, and print where its time goes."""
    config, exact = grid(jobs)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        child(
            [sys.executable, "-m", "cProfile", "-o", str(path), "-m", *command("dry run")],
            Path(folder),
            ENVIRONMENT,
        )
    print(f"{exact} jobs")
    pstats.Stats(str(path)).sort_stats("cumulative").print_stats(60)


def main() -> None:
    """Measure, write the table, and put it into docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[2000, 10_000, 50_000])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--profile", type=Path, help="profile a dry run of the first size into this file instead"
    )
    given = parser.parse_args()
    if given.profile:
        profiled(given.jobs[0], given.profile.resolve())
        return
    rows = [row for jobs in given.jobs for row in measure(jobs, given.rounds)]
    save("plan_scale", rows)
    shown = [
        {
            "measurement": row["measurement"],
            "jobs": f"{row['jobs']:,}",
            "seconds": f"{row['seconds']:.1f}",
            "our own": f"{row['own_seconds']:.1f}",
            "Snakemake's": f"{row['seconds'] - row['own_seconds']:.1f}",
            "ms a job": f"{1000 * row['seconds'] / row['jobs']:.1f}",
            "peak MB": f"{row['peak_mb']:.0f}",
        }
        for row in rows
    ]
    document("plan_scale", markdown(shown))


if __name__ == "__main__":
    main()
