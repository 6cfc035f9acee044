"""``valleys data``: the data sets of a config fetched where that can be, prepared, checked and told.

Meant for a cluster's login node: the nodes that work may have no network. What makes a data set is the
workflow's own rule, so a run that follows finds it done.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from valleys.config.experiment import Experiment
from valleys.costs import plan, plan_text
from valleys.data import presence
from valleys.errors import ValleysError
from valleys.storage import files


def prepare(config: Path, cores: str, say: Callable[[str], None]) -> list[str]:
    """Fetch, prepare and check the data sets that the cells of a config use.

    Parameters
    ----------
    cores
        A number, or ``all``.
    say
        Takes a line for each data set that is there.

    Returns
    -------
    A line for each that is not.
    """
    experiment, problems, there = plan.experiment_of(config), [], []
    for name in sorted({cell.dataset for cell in experiment.all_cells}):
        spec = experiment.datasets[name]
        try:
            if not all(path.is_file() for path in _paths(experiment, name)):
                fetch(name, spec, say)
                problems += (absent := presence.absent(name, spec, f"make data CONFIG={config}"))
                there += [] if absent else [name]
            else:
                there.append(name)
        except ValleysError as error:
            problems.append(str(error))
    targets = [str(path) for name in there for path in _paths(experiment, name)]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(plan.SNAKEFILE), "--cores", cores]
    command += ["--configfile", str(config), "--keep-going", "--quiet", "progress", "rules", "--", *targets]
    if targets and subprocess.run(command, check=False).returncode:
        problems.append("not all data sets could be prepared: Snakemake says above why")
    for name in there:
        try:
            say(told(name, experiment))
        except ValleysError as error:
            problems.append(f"config: datasets.{name}: {error}")
    return problems


def _paths(experiment: Experiment, name: str) -> list[Path]:
    return [Path(experiment.root) / "data" / name / f"{part}.safetensors" for part in ("train", "test")]


def fetch(name: str, spec: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Have torchvision download a data set of its own that is not there, whatever ``download`` says.

    Raises
    ------
    ValleysError
        When that fails.
    """
    if not presence.lacking(spec):
        return
    from valleys.data.sources import torchvision

    say(f"{name}: fetching {spec['source']} into {files.expand(spec['root'])}")
    torchvision.read({**spec, "download": True})


def told(name: str, experiment: Experiment) -> str:
    """Check the prepared files of a data set; return a line on them.

    Raises
    ------
    ValleysError
        When one is not there or damaged.
    """
    from valleys.data.cache import load_split

    paths = _paths(experiment, name)
    for path in paths:
        files.check_regular(path, wanted="prepare_dataset has failed, see its log")
    train, test = (
        load_split(path, resident_mb=experiment.config["execution"]["resident_mb"]) for path in paths
    )
    shape, bytes_ = " x ".join(map(str, train.in_shape)), sum(path.stat().st_size for path in paths)
    split = "; each seed has a cut of its own" if experiment.differs_by_seed(name) else ""
    return (
        f"{name}: {len(train):,} train and {len(test):,} test examples of {shape}, {train.classes} "
        f"{'classes' if train.task == 'classification' else 'outputs'}, {plan_text.size(bytes_)} in "
        f"{paths[0].parent}, checksums right{split}"
    )
