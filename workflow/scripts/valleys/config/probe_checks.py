"""Contradictions in probes, lines and planes of a config, each told in one line; `checks` has the others.

Each function takes the experiment and raises `ValleysError` for the first mistake.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from valleys.config.cells import Cells, chosen_solutions, named_in, own_of
from valleys.config.schema import Config
from valleys.errors import ValleysError, did_you_mean
from valleys.landscape.kinds import GROUPS, KINDS, SEARCH, SINGLE, why_not_orthogonal

#: What no computer does in a lifetime, by what is counted: more of it is a slip.
MOST = {
    "curve points of a probe": 10**8,
    "points of a line": 10**6,
    "steps of SGD": 10**14,
    "shifts": 10**12,
    "data of the toy": 10**8,
    "steps of the toy": 10**12,
    "points of the toy's curves": 10**7,
    "points of the toy's scan": 10**10,
}


def check_windows(experiment: Cells) -> None:
    """Check that the windows of Definition 1 have room on the curves of probes and of the toy."""
    zeta_max, min_span = (experiment.config["asymmetry"][key] for key in ("zeta_max", "min_span"))
    if min_span > (1 - zeta_max) * (1 + 1e-9):
        raise ValleysError(
            f"config: asymmetry.min_span: {min_span} leaves no window beside zeta_max {zeta_max}; "
            f"it must be at most {1 - zeta_max:g}"
        )
    half = math.ceil(1 / zeta_max - 1e-9)  # the first of so many offsets is at most zeta_max R
    for name, probe in experiment.config["probes"].items():
        if probe["points"] < 2 * half + 1:
            raise ValleysError(
                f"config: probes.{name}.points: {probe['points']} put the first offset beyond zeta_max "
                f"{zeta_max} of the radius; there must be at least {2 * half + 1}"
            )
    toy = experiment.config["toy_2d"]
    steps = toy["reach"] / toy["step"]
    if round(steps) < half:
        raise ValleysError(
            f"config: toy_2d.step: {toy['step']} is beyond zeta_max {zeta_max} of the reach; "
            f"it must be at most {toy['reach'] / half:g}"
        )
    if abs(steps - round(steps)) > 1e-6 * steps:  # as `toy` has it
        raise ValleysError(
            f"config: toy_2d.step: {toy['step']}: the reach, {toy['reach']}, is not a whole number of "
            "steps; change one of them"
        )
    if toy["points"] < 2 * half + 1 or toy["points"] % 2 == 0:
        raise ValleysError(
            f"config: toy_2d.points: {toy['points']}: it must be odd, to include offset 0, and with zeta_max "
            f"{zeta_max} at least {2 * half + 1}"
        )


def check_probes(experiment: Cells) -> None:
    """Check each probe's kind, group, points and slopes."""
    for name, probe in experiment.config["probes"].items():
        where, kinds = f"config: probes.{name}", list(KINDS)
        if probe["kind"] not in kinds:
            raise ValleysError(
                f"{where}.kind: unknown kind {probe['kind']!r}{did_you_mean(probe['kind'], kinds)}; "
                f"choose from {', '.join(kinds)}"
            )
        if probe["group"] in ("layer:", "layer:<name>"):
            raise ValleysError(f"{where}.group: {probe['group']!r} names no layer; write one, as in layer:fc")
        if probe["group"] not in GROUPS and not probe["group"].startswith("layer:"):
            raise ValleysError(
                f"{where}.group: unknown group {probe['group']!r}"
                f"{did_you_mean(probe['group'], list(GROUPS))}; "
                f"choose from {', '.join(GROUPS)}"
            )
        if probe["kind"] == "filter" and probe["group"].startswith("bn"):
            raise ValleysError(
                f"{where}: kind filter leaves group {probe['group']} at zero; choose another kind"
            )
        check_count(where, "curve points of a probe", probe["n"] * probe["points"], "n * points")
        if probe["points"] % 2 == 0:
            raise ValleysError(
                f"{where}.points: {probe['points']} is even; it must be odd, to include offset 0"
            )
        if probe["radius"] is not None and probe["relative"] is not None:
            raise ValleysError(f"{where}: radius and relative both fix the radius; give one of them")
        if probe.get("orthogonal") and (why := why_not_orthogonal(probe["kind"], probe["share"])):
            raise ValleysError(f"{where}.orthogonal: {why}")
        _check_search(where, probe)
        _check_until(where, probe)
        refreshed = experiment.config["bn_refresh"]["method"]
        if probe["slopes"] == "exact" and probe["bn"] == "refreshed" and refreshed == "streaming":
            raise ValleysError(
                f"{where}.slopes: exact needs bn_refresh.method exact where bn is refreshed; "
                "the loss of method streaming hangs on the batches"
            )
        if probe["slopes"] == "exact" and probe["precision"] != "fp32":
            raise ValleysError(
                f"{where}.precision: {probe['precision']} has no exact slopes; "
                "choose precision fp32 or slopes: differences"
            )
        if KINDS[probe["kind"]].seeds and not any(
            experiment.other_seeds(cell) for cell in experiment.all_cells
        ):
            own = _only_by_seed(experiment)
            reason = f"needs a second seed of some cell{'; add one to seeds' if own is None else ''}"
            more = "" if own is None else f", {_no_two(experiment, own)}"
            raise ValleysError(f"{where}: kind {probe['kind']} {reason}{more}")


def _check_until(where: str, probe: Config) -> None:
    """Check what a probe that adds images until its verdicts are settled cannot have."""
    if "until" not in probe:
        return
    if KINDS[probe["kind"]].searched:
        raise ValleysError(f"{where}.until: kind searched has parts of the images of its own; drop it")
    for key, wanted in (("slopes", "differences"), ("precision", "fp32")):
        _check_until_has(where, probe, key, wanted, probe[key] == wanted)


def _check_until_has(where: str, block: Config, key: str, wanted: str, fits: bool) -> None:
    if not fits:
        raise ValleysError(f"{where}.until: it needs {key}: {wanted}, and {key} is {block[key]}; drop one")


def _check_search(where: str, probe: Config) -> None:
    """Check the keys that a probe of kind searched has and has not."""
    if not KINDS[probe["kind"]].searched:
        if "search" in probe:
            raise ValleysError(
                f"{where}.search: kind {probe['kind']} is not searched for; drop it, or set kind to searched"
            )
        return
    for key, off in (("radius", None), ("relative", None), ("relative_to", "all")):
        if probe[key] != off:
            raise ValleysError(
                f"{where}.{key}: {probe[key]!r} is set, but kind searched goes to a given rise; drop it, "
                "and set rise"
            )
    floor = (SEARCH | probe.get("search", {}))["floor"]
    if floor >= probe["rise"]:
        raise ValleysError(
            f"{where}.search.floor: {floor:g} is not below rise {probe['rise']:g}, which is that of the "
            "steeper side; lower it, or raise rise"
        )


def check_joined_seeds(experiment: Cells) -> None:
    """Check that nobody asks by name for what joins two seeds of data that differ by seed.

    Entries that name no probes and lines have those that apply.
    """
    for where, entry, datasets in _entries(experiment):
        own = next(filter(experiment.differs_by_seed, datasets), None)
        if own is None:
            continue
        lines, probes = experiment.config["lines"], experiment.config["probes"]
        no_two = _no_two(experiment, own)
        for name in entry.get("lines", ()):
            if lines[name]["stop_seed"] == "next":
                raise ValleysError(f"config: {where}.lines: {name!r} has stop_seed next, {no_two}")
        for name in entry.get("probes", ()):
            kind = probes[name]["kind"]
            if KINDS[kind].seeds:
                raise ValleysError(f"config: {where}.probes: {name!r} is of kind {kind}, {no_two}")


def _entries(experiment: Cells) -> Iterator[tuple[str, Mapping[str, Any], list[str]]]:
    """Yield each entry of the grid, and each study, with its place and the data sets of its cells."""
    for i, entry in enumerate(experiment.config["grid"]):
        names = entry["dataset"]
        yield f"grid.{i}", entry, names if isinstance(names, list) else [names]
    for study, cells in experiment.studies.items():
        names = list(dict.fromkeys(cell.dataset for cell in cells))
        yield f"studies.{study}", experiment.config["studies"][study], names


def _only_by_seed(experiment: Cells) -> str | None:
    """Return the first data set that has cells, if all of these differ by seed."""
    names = list(dict.fromkeys(cell.dataset for cell in experiment.all_cells))
    return names[0] if names and all(map(experiment.differs_by_seed, names)) else None


def _no_two(experiment: Cells, dataset: str) -> str:
    """Return the end of a line on what joins two seeds of a data set that differs by seed."""
    spec = experiment.datasets[dataset]
    key, right = ("split", "fixed") if spec["split"] == "by_seed" else ("label_noise", 0)
    what = "images" if key == "split" else "labels"
    return (
        f"but datasets.{dataset}.{key} is {spec[key]}, so that two seeds were trained on other {what}; "
        f"drop it here, or set {key} to {right}"
    )


def check_directions(experiment: Cells) -> None:
    """Check that recipes keep the iterates that probes take components of."""
    for cell in experiment.all_cells:
        for name in experiment.probes_of(cell):
            probe, kept = experiment.config["probes"][name], experiment.all_iterates(cell.recipe)
            if KINDS[probe["kind"]].iterates and kept <= probe["n"]:
                raise ValleysError(
                    f"config: probes.{name}.n: recipe {cell.recipe} keeps {kept} iterate(s); "
                    f"{probe['n']} component(s) need at least {probe['n'] + 1}"
                )


def check_lines(experiment: Cells) -> None:
    """Check that each line has two ends that differ and some cell to start in."""
    recipes = [*experiment.recipes, *experiment.checkpoints]
    for name, line in experiment.config["lines"].items():
        where, recipe = f"config: lines.{name}", line["stop_recipe"]
        if recipe is not None and recipe not in recipes:
            raise ValleysError(
                f"{where}.stop_recipe: {recipe!r} is not among recipes{did_you_mean(recipe, recipes)}; "
                f"there are {', '.join(recipes)}"
            )
        if line["start"] == line["stop"] and not experiment.leaves_cell(name):
            raise ValleysError(
                f"{where}: start and stop are both {line['start']!r} of one cell; change one of them, or "
                "give stop_recipe or stop_seed"
            )
        if line["path"] != "linear":
            _check_trained(where, line)
        if "until" in line:
            _check_until_has(where, line, "path", "linear", line["path"] == "linear")
            _check_until_has(where, line, "divisions", "2 or more", line["divisions"] >= 2)
        length = (3 if line["last"] is None else line["last"]) - (line["first"] or -2)
        counted = math.ceil(length * line["divisions"])
        check_count(where, "points of a line", counted, "(last - first) * divisions")
        if all(experiment.stop_cell(cell, name) is None for cell in experiment.all_cells):
            own = _only_by_seed(experiment)
            if line["stop_seed"] == "next" and own is not None:
                reason = f"stop_seed is next, {_no_two(experiment, own)}"
            elif recipe is None:
                reason = "no cell has one of a greater seed beside it; add a seed"
            else:
                seed = "a greater seed" if line["stop_seed"] == "next" else "the same seed"
                reason = (
                    f"no cell of another recipe has one of recipe {recipe!r} with its data set and model "
                    f"and {seed}; add it to the grid"
                )
            raise ValleysError(f"{where}: {reason}")
        own = own_of([line["start"], line["stop"]])
        if own and not any(name in experiment.lines_of(cell) for cell in experiment.all_cells):
            raise ValleysError(
                f"{where}: no line runs from {line['start']!r} to {line['stop']!r}: "
                f"{_who_has(experiment, own)}"
            )


def _check_trained(where: str, line: Mapping[str, Any]) -> None:
    """Check the keys of a line whose path has trained bends."""
    for key, end in (("first", 0), ("last", 1)):
        if line[key] not in (None, end):
            raise ValleysError(
                f"{where}.{key}: {line[key]} is beyond the ends of a {line['path']} path, which runs "
                "from t = 0 to t = 1; leave the key out"
            )
    if line["bn"] != "refreshed":
        raise ValleysError(
            f"{where}.bn: {line['bn']!r} would take one end's statistics for a trained path; use 'refreshed'"
        )


def check_planes(experiment: Cells) -> None:
    """Check that each plane is laid in one way, and by solutions and directions that some cell has."""
    for name, plane in experiment.config["planes"].items():
        where = f"config: planes.{name}"
        given = [key for key in ("through", "span") if plane[key] is not None]
        given += ["pca"] if plane["pca"] else []
        if len(given) != 1:
            raise ValleysError(
                f"{where}: {' and '.join(given) or 'nothing'} given to lay it by; "
                "give just one of through, pca and span"
            )
        if given == ["through"] and (len(plane["through"]) != 3 or len(set(plane["through"])) != 3):
            raise ValleysError(
                f"{where}.through: it must be three different solutions, not {plane['through']}"
            )
        if given == ["pca"]:
            for recipe in dict.fromkeys(cell.recipe for cell in experiment.cells):
                if experiment.from_checkpoints(recipe):
                    continue
                kept = experiment.all_iterates(recipe)
                if kept < 3:
                    raise ValleysError(
                        f"{where}.pca: recipe {recipe} keeps {kept} iterate(s); two components need at "
                        "least 3"
                    )
        if given == ["span"]:
            _check_span(experiment, f"{where}.span", plane)
        own, names = own_of(named_in(plane)), set(named_in(plane))
        if own and not any(names <= set(experiment.solutions_of(cell)) for cell in experiment.cells):
            raise ValleysError(f"{where}: no cell has all of its solutions: {_who_has(experiment, own)}")


def _check_span(experiment: Cells, where: str, plane: Config) -> None:
    """Check the two directions that span a plane."""
    probes, chosen = experiment.config["probes"], []
    for text in plane["span"]:
        name, _, k = text.rpartition("/")
        if not (name and k.isascii() and k.isdigit()):
            raise ValleysError(f"{where}: {text!r} is no direction; write <probe>/<k>, as in uniform/0")
        if name not in probes:
            raise ValleysError(
                f"{where}: {name!r} is not among probes{did_you_mean(name, list(probes))}; "
                f"there are {', '.join(probes) or 'none'}"
            )
        n = 1 if probes[name]["kind"] in SINGLE else probes[name]["n"]
        if int(k) >= n:
            raise ValleysError(f"{where}: {text!r}: probe {name} has {n} direction(s), numbered from 0")
        if not chosen_solutions(probes[name]["solutions"], [plane["at"]]):
            raise ValleysError(
                f"{where}: probe {name} has no directions at {plane['at']}; add it to its solutions, or "
                f"set at to one of {', '.join(probes[name]['solutions'])}"
            )
        # What a direction depends on, beside the cell: the probe's name has no part in it.
        probe = probes[name]
        signs = probe["share"], probe.get("orthogonal", False)
        images = probe["train_images"] if probe["kind"] in ("gradient", "hessian", "searched") else None
        search = None
        if KINDS[probe["kind"]].searched:
            search = [probe[key] for key in ("rise", "bn", "precision")], SEARCH | probe.get("search", {})
        drawn = signs if probe["kind"] == "sign" else None
        chosen.append((probe["kind"], probe["group"], drawn, images, search, int(k)))
    if len(chosen) != 2 or chosen[0] == chosen[1]:
        raise ValleysError(f"{where}: it must be two different directions, not {plane['span']}")


def _who_has(experiment: Cells, names: Iterable[str]) -> str:
    """Say what the recipes have that have one of some solutions."""
    cells = {cell.recipe: experiment.available(cell) for cell in experiment.cells}
    told = {r: there for r, there in cells.items() if set(names) & set(there)}
    return "; ".join(f"{recipe} has {', '.join(there)}" for recipe, there in told.items())


def check_count(where: str, what: str, count: int, keys: str) -> None:
    """Check that a product of keys, each of which may be large, is not absurd."""
    if count > MOST[what]:
        raise ValleysError(f"{where}: {keys} is {count}; at most {MOST[what]} {what} are taken")
