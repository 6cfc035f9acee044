"""The config of a replicate: the same experiment on seeds that the first has not used."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from valleys import factories
from valleys.config import schema
from valleys.config.experiment import Experiment
from valleys.config.reading import load
from valleys.errors import ValleysError
from valleys.storage import files


def seeds_of(config: Mapping[str, Any]) -> list[int]:
    """Return all seeds that a config with defaults trains from, in order: of cells, and of sampled runs."""
    found = set(config["seeds"])
    for entry in config["grid"]:
        found |= set(entry.get("seeds", ()))
    for study in config.get("studies", {}).values():
        found |= set(study.get("seeds", ()))
        if study["design"] == "sample":
            found |= set(range(study["first_run"], study["first_run"] + study["runs"]))
    return sorted(found)


def replica(config: Mapping[str, Any], seeds: Sequence[int] | None = None, name: str = "") -> dict[str, Any]:
    """Return the config of a replicate: nothing random is shared with the first run.

    The first of the top-level seeds becomes the first of the fresh ones, and so on; lists of grid entries and
    studies follow. Sampled studies go on with runs after all seeds of the first. The simulations get seeds of
    their own.

    Parameters
    ----------
    config
        Checked, with defaults.
    seeds
        As many as the config's own at least; left out, those after the greatest that it uses.
    name
        Of the experiment; left out, its name and ``-replicate``.

    Raises
    ------
    ValleysError
        When there are too few seeds, one that the first run has used, or a list has a seed that is not among
        the top-level ones.
    """
    used = seeds_of(config)
    own = config["seeds"]
    fresh = list(range(max(used) + 1, max(used) + 1 + len(own))) if seeds is None else list(seeds)
    if len(set(fresh)) < len(own):
        raise ValleysError(
            f"--seeds: {len(set(fresh))} seeds; the experiment has {len(own)}, and each needs one of its own"
        )
    both = sorted(set(fresh) & set(used))
    if both:
        raise ValleysError(
            f"--seeds: {both[0]} is a seed of the first run; a replicate needs others, as from "
            f"{max(used) + 1}"
        )
    to = dict(zip(own, fresh, strict=False))

    def moved(values: Sequence[int], where: str) -> list[int]:
        strange = [seed for seed in values if seed not in to]
        if strange:
            raise ValleysError(
                f"config: {where}: {strange[0]} is not among the seeds at the top, so a replicate has no "
                "seed for it; list it there"
            )
        return [to[seed] for seed in values]

    made = copy.deepcopy(dict(config))
    made["name"] = name or f"{config['name']}-replicate"
    made["seeds"] = fresh[: len(own)]
    for i, entry in enumerate(made["grid"]):
        if "seeds" in entry:
            entry["seeds"] = moved(entry["seeds"], f"grid.{i}.seeds")
    for key, study in made.get("studies", {}).items():
        if study["design"] == "sample":
            # By whole multiples of `runs`, which keeps levels balanced, and past the seeds of cells too.
            study["first_run"] += study["runs"] * -(-(max(used) + 1 - study["first_run"]) // study["runs"])
        elif "seeds" in study:
            study["seeds"] = moved(study["seeds"], f"studies.{key}.seeds")
    for block in ("toy_2d", "theory"):
        made[block]["seed"] = max(fresh) + 1 + config[block]["seed"]
    return made


def _added(given: Mapping[str, Any], fresh: Sequence[int]) -> dict[str, Any]:
    """Return ``seeds`` and ``claims`` of the replicate of a config whose seeds are added: with as many looks.

    Raises
    ------
    ValleysError
        When the seeds have gaps: those that are added follow each other.
    """
    if list(fresh) != list(range(fresh[0], fresh[0] + len(fresh))):
        raise ValleysError(
            f"--seeds: {', '.join(map(str, fresh[:4]))}, ... have gaps; seeds that are added until the "
            f"claims are decided follow each other: write {fresh[0]}-{fresh[0] + len(fresh) - 1}"
        )
    return {"seeds": {**given["seeds"], "start": fresh[0]}, "claims": given["claims"]}


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of a list as ``12-23`` or ``12,13,20-25``.

    Raises
    ------
    ValleysError
        When it is none.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise ValleysError(f"--seeds: {text!r} is no list of seeds; write 12-23, or 12,13,20-25")
        found += range(int(first), int(last or first) + 1)
    return found


@dataclass(frozen=True)
class Replica:
    """Where a replicate is: the first run's results, its own, and its config file."""

    first: Path
    folder: Path
    config: Path


def write(path: Path, seeds: Sequence[int] | None = None, name: str = "") -> Replica:
    """Write the config of a replicate into its results folder; the same call writes the same file.

    Where seeds are added until claims are decided, they are in the replicate too, with looks of its own.

    Raises
    ------
    ValleysError
        For a config that is none, as a run does, and as `replica`.
    """
    config = load(path)
    factories.look_beside([path])  # not beside the config that is made here
    schema.check(config)
    first = Experiment(schema.with_defaults(config))
    made = replica(first.config, seeds, name)
    if first.looks is not None:
        made |= _added(first.given, made["seeds"])
    folder = Path(Experiment(copy.deepcopy(made)).root)
    schema.check_writable(folder)
    where = folder / "config.yaml"
    about = f"# The replicate of {first.config['name']} on fresh seeds, made by valleys replicate.\n"
    text = about + yaml.safe_dump(
        made, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True
    )
    if not where.is_file() or where.read_text(encoding="utf-8") != text:
        files.write_text(where, text)
    return Replica(Path(first.root), folder, where)
