"""The smoke experiment with changes to its config, for tests of what follows from them."""

import copy

from conftest import fill_defaults, load_config
from valleys.config.experiment import Experiment

BASE = load_config("config/smoke.yaml") | {"studies": {}}
BASE["probes"] = {name: block for name, block in BASE["probes"].items() if block["kind"] != "searched"}


def changed(raw, path, value):
    """A copy of a config with the value at a dotted path set, or dropped when it is `...`."""
    new = copy.deepcopy(raw)
    *way, last = (int(key) if key.isdigit() else key for key in path.split("."))
    at = new
    for key in way:
        at = at[key] if isinstance(at, list) else at.setdefault(key, {})
    if value is ...:
        del at[last]
    elif isinstance(at, list) and last == len(at):
        at.append(value)
    else:
        at[last] = value
    return new


def experiment(*changes):
    """The smoke experiment, with (path, value) changes made before defaults are filled in.

    Where all probes are replaced, the planes that they span are left out.
    """
    raw = changed(BASE, "planes", {}) if "probes" in dict(changes) else BASE
    for path, value in changes:
        raw = changed(raw, path, value)
    return Experiment(fill_defaults(raw))


QUICK = "recipes.quick"


RECIPE = BASE["recipes"]["quick"]


STUDY = {"dataset": "digits", "model": "mlp", "recipe": "quick"}


PATH = {"start": "swa", "stop": "descent", "path": "bezier"}


def given(solutions, *changes):
    """An experiment on given weights alone, of two seeds where their paths have {seed}."""
    weights = {name: f"{name}-{{seed}}.pt" for name in solutions}
    plain = (
        ("recipes", {}),
        ("checkpoints", {"theirs": {"solutions": weights}}),
        ("grid.0.recipe", "theirs"),
    )
    return experiment(*plain, ("lines", {}), ("probes", {"u": {"kind": "uniform"}}), *changes)


def lined(*seeds, **lines):
    """An experiment of two recipes, the second without the greatest seed, with these lines."""
    return experiment(
        ("seeds", list(seeds)),
        ("recipes.wide", RECIPE),
        ("grid.1", {"dataset": "digits", "model": "mlp", "recipe": "wide", "seeds": sorted(seeds)[:-1]}),
        ("lines", lines),
    )


def study(**keys):
    """The smoke experiment with one study of some factors."""
    return experiment(("studies.s", STUDY | keys))
