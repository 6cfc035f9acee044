"""Cells of a config, and the solutions, probes, lines and planes of each; nothing is checked or made here.

Imported by the Snakefile, so nothing here imports torch.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from valleys import factories
from valleys.config.catalogue import DEFAULT_SOLUTIONS, SOLUTIONS
from valleys.config.cell import Cell, Wanted, kept
from valleys.config.looks import Looks
from valleys.config.schema import Config, check, with_defaults
from valleys.config.studies import Expansion
from valleys.data.options import differs_by_seed, validate_dataset
from valleys.errors import ValleysError, did_you_mean
from valleys.landscape.kinds import COMPUTED, KINDS, NEEDS
from valleys.models.options import validate_spec


def chosen_solutions(listed: Iterable[str], there: Iterable[str], *, given: bool = False) -> list[str]:
    """Return the solutions that a list of names takes of those `there`.

    A list that has none of the user's own names takes in all of those: given weights are looked at without
    an edit of each probe. One that has some is taken as it is. Of `given` weights ``last`` is such a name
    too: who has weights of that name wants them looked at, while that of a trained cell is made if asked for.
    """
    listed, there = list(listed), list(there)
    last = {"last"} if given else set()

    def own(names: list[str]) -> list[str]:
        return [name for name in names if name in {*own_of(names), *last}]

    return [*(name for name in listed if name in there), *([] if own(listed) else own(there))]


def own_of(names: Iterable[str]) -> list[str]:
    """Return those names of solutions that are the user's own."""
    return [name for name in names if name not in SOLUTIONS]


def named_in(plane: Config) -> list[str]:
    """Return the solutions that the block of a plane names."""
    return list(plane["through"] or ()) + ([plane["at"]] if plane["span"] else [])


class Cells:
    """A config with defaults filled in, its blocks by name, and the cells of its grid and studies.

    `valleys.config.experiment.Experiment` is one that was checked.

    Parameters
    ----------
    config
        As returned by Snakemake's ``validate``.

    Raises
    ------
    ValleysError
        When a block of data sets, models or studies is wrong.
    """

    looks: Looks | None = None
    """Of a config whose seeds are added until claims are decided."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.name: str = config["name"]
        self.root = f"results/{self.name}"
        self.datasets = self._named("datasets", validate_dataset)
        self._expansion = Expansion(config, self._named("models", lambda name, spec: validate_spec(spec)))
        self.models, self.recipes = self._expansion.models, self._expansion.recipes
        self.checkpoints: dict[str, Any] = config["checkpoints"]
        self._codes: dict[str, str | None] = {}
        self.wanted: dict[Cell, Wanted] = {}
        self.cells: list[Cell] = []
        self.studies: dict[str, dict[Cell, Mapping[str, Any]]] = {}

    def expand(self) -> None:
        """Find the cells of the grid and of each study."""
        self.cells = sorted(self._cells())
        self.studies = {
            study: self._study(self.config["studies"][study], variants)
            for study, variants in self._expansion.variants.items()
        }

    def complete_variants(self) -> None:
        """Check recipes of studies by the schema, and fill in defaults of levels that are blocks."""
        variants = {k: v for k, v in self.recipes.items() if k not in self.config["recipes"]}
        check({**self.config, "recipes": {**self.config["recipes"], **variants}})
        self.recipes |= with_defaults({"recipes": copy.deepcopy(variants)})["recipes"]

    def _named(self, block: str, check_one: Any) -> dict[str, Any]:
        checked = {}
        for name, spec in self.config[block].items():
            try:
                checked[name] = check_one(name, spec)
            except ValleysError as error:
                where, text = f"{block}.{name}", str(error)
                if text.startswith(("model.", "model:")):  # which model is known here
                    text = where + text.removeprefix("model")
                raise ValleysError(
                    f"config: {text if text.startswith(where) else f'{where}: {text}'}"
                ) from None
        return checked

    def code_of(self, spec: Mapping[str, Any]) -> dict[str, str]:
        """Return ``code``, naming the source of a block's factory; nothing of a block without one."""
        if "factory" not in spec:
            return {}
        factory = spec["factory"]
        if factory not in self._codes:
            self._codes[factory] = factories.version(factory)
        code = self._codes[factory]
        return {} if code is None else {"code": code}

    def factory_code(self, model: str) -> str | None:
        """Return what names the code of a model's factory (`factories.version`); None of an architecture."""
        return self.code_of(self.models[model]).get("code")

    def recipe(self, name: str) -> dict[str, Any]:
        """Return a recipe's block with its defaults; of checkpoints, what there is: the loss.

        Of a loss of the user's own, what names its code stands in its block.
        """
        block = self.checkpoints[name] if self.from_checkpoints(name) else self.recipes[name]
        loss = block["loss"]
        if "factory" not in loss:
            return block
        own = {"factory": loss["factory"], "kwargs": loss.get("kwargs", {}), **self.code_of(loss)}
        return {**block, "loss": own}

    def may_have_batch_norm(self, model: str) -> bool:
        """Whether a model has batch norm or, being a user's own, cannot be told to have none."""
        return self.models[model].get("norm", "batch") == "batch"

    def _cells(self) -> Iterator[Cell]:
        seen: set[Cell] = set()
        for i, entry in enumerate(self.config["grid"]):
            axes = []
            for key in ("dataset", "model", "recipe"):
                names = entry[key] if isinstance(entry[key], list) else [entry[key]]
                known = list(self.config[key + "s"])
                known += list(self.checkpoints) if key == "recipe" else []
                for name in names:
                    if name not in known:
                        raise ValleysError(
                            f"config: grid.{i}.{key}: {name!r} is not among {key}s"
                            f"{did_you_mean(name, known)}; there are {', '.join(known)}"
                        )
                axes.append(names)
            for values in itertools.product(*axes, entry.get("seeds", self.config["seeds"])):
                cell = Cell(*values)
                if self.from_checkpoints(cell.recipe) and not self._has_file(cell, entry):
                    continue
                self._want(cell, entry)
                if cell not in seen:
                    seen.add(cell)
                    yield cell

    def from_checkpoints(self, recipe: str) -> bool:
        """Whether a recipe is the name of checkpoints: its cells are not trained."""
        return recipe in self.checkpoints

    def available(self, cell: Cell) -> list[str]:
        """Return the solutions that a cell can have, in order: the three, or those given."""
        if not self.from_checkpoints(cell.recipe):
            return list(SOLUTIONS)
        given = self.checkpoints[cell.recipe]["solutions"]
        return [*(name for name in SOLUTIONS if name in given), *own_of(given)]

    @property
    def own_names(self) -> list[str]:
        """The names of the user's own that checkpoints have for solutions, in the order of the config."""
        return list(
            dict.fromkeys(n for block in self.checkpoints.values() for n in own_of(block["solutions"]))
        )

    def _has_file(self, cell: Cell, entry: Mapping[str, Any]) -> bool:
        """Whether a cell has weights of its own: without {seed} in their paths, the first seed has them."""
        texts = self.checkpoints[cell.recipe]["solutions"].values()
        return any("{seed}" in text for text in texts) or cell.seed == next(
            iter(entry.get("seeds", self.config["seeds"]))
        )

    def _want(self, cell: Cell, entry: Mapping[str, Any]) -> None:
        """Note what an entry of the grid, or a study, wants of a cell."""
        keys = ("probes", "lines", "averages")
        probes, lines, averages = (entry.get(key, list(self.config[key])) for key in keys)
        solutions = chosen_solutions(
            entry.get("solutions", self._default_solutions(cell)),
            self.available(cell),
            given=self.from_checkpoints(cell.recipe),
        )
        wanted = self.wanted.setdefault(cell, Wanted())
        wanted.add(solutions, probes, lines, averages, alignment=entry.get("alignment", False))

    def _default_solutions(self, cell: Cell) -> Sequence[str]:
        """Return the solutions of a cell whose entry names none: the usual three, or all that are given."""
        return self.available(cell) if self.from_checkpoints(cell.recipe) else DEFAULT_SOLUTIONS

    def _study(self, spec: Mapping[str, Any], variants: list[Any]) -> dict[Cell, Mapping[str, Any]]:
        """Return the cells of a study, each with the levels of its factors."""
        found: dict[Cell, Mapping[str, Any]] = {}
        for variant in variants:
            for seed in variant.seeds:
                cell = Cell(variant.dataset, variant.model, variant.recipe, seed)
                self._want(cell, {**spec, "averages": []})
                found[cell] = variant.levels
        return found

    # What to make -----------------------------------------------------------------------------------

    @functools.cached_property
    def all_cells(self) -> list[Cell]:
        """The cells of the grid and of all studies."""
        return sorted(self.wanted)

    def own_networks(self, dataset: str) -> dict[str, Mapping[str, Any]]:
        """Return config blocks, by name, of the models of a factory that a data set has."""
        names = sorted({cell.model for cell in self.all_cells if cell.dataset == dataset})
        return {name: self.models[name] for name in names if "factory" in self.models[name]}

    def start_cell(self, cell: Cell) -> Cell | None:
        """Return the cell that the training of another starts from; None where weights are fresh or given.

        It may be none of `all_cells`: then it is trained as far as that takes, and is in no table.
        """
        start = self.recipe(cell.recipe).get("start_from")
        return None if start is None else replace(cell, recipe=start["recipe"])

    def added_cells(self) -> list[Cell]:
        """Return the cells that there are for the seeds at the top, and not for an entry's or study's own."""
        others = Cells({**self.config, "seeds": [-1]})  # which no cell has by itself
        others.expand()
        return sorted(self.wanted.keys() - others.wanted.keys())

    @property
    def trained_cells(self) -> list[Cell]:
        """`all_cells`, and those that their training starts from, one after the other."""
        found: set[Cell] = set()
        for cell in self.all_cells:
            at: Cell | None = cell
            while at is not None and at not in found:
                found.add(at)
                at = self.start_cell(at)
        return sorted(found)

    def wants(self, cell: Cell) -> Wanted:
        """Return what the grid and studies want of a cell; nothing of one that others start from only."""
        return self.wanted.get(cell) or Wanted()

    @kept
    def solutions_of(self, cell: Cell) -> list[str]:
        """Return the solutions made of a cell: those asked for, and the ends of its lines."""
        wanted = self.wants(cell).solutions | self._line_ends.get(cell, set())
        return [name for name in self.available(cell) if name in wanted]

    @kept
    def probes_of(self, cell: Cell) -> list[str]:
        """Return the probes that apply to a cell.

        One on normalisation layers needs a model with some, one towards other seeds needs another seed, and
        all need one of their solutions. An mlp without hidden layers has neither norms nor hidden weights.
        """
        model = self.models[cell.model]
        plain = model.get("norm") == "none"
        empty = ("bn", "bn_weight", "bn_bias", "conv") if model.get("hidden") == [] else ()
        alone = not self.other_seeds(cell)
        made = {*self.solutions_of(cell), *(() if self.from_checkpoints(cell.recipe) else ("iterates",))}
        return [
            name
            for name, probe in self.config["probes"].items()
            if name in self.wants(cell).probes
            and not (plain and "bn" in probe["group"].split("_"))
            and probe["group"] not in empty
            and not (alone and KINDS[probe["kind"]].seeds)
            and made
            >= {*NEEDS.get(probe["kind"], ()), *(["iterates"] if KINDS[probe["kind"]].iterates else [])}
            and self.probed_solutions(cell, name)
        ]

    @functools.cached_property
    def grid_probes(self) -> dict[str, str]:
        """The probes that some cell of the grid has, each with its kind."""
        used = {name for cell in self.cells for name in self.probes_of(cell)}
        return {name: spec["kind"] for name, spec in self.config["probes"].items() if name in used}

    @kept
    def probed_solutions(self, cell: Cell, probe: str) -> list[str]:
        """Return the solutions of a cell that a probe looks at."""
        listed, given = self.config["probes"][probe]["solutions"], self.from_checkpoints(cell.recipe)
        return chosen_solutions(listed, self.solutions_of(cell), given=given)

    @kept
    def bundles_of(self, cell: Cell) -> dict[str, list[str]]:
        """Return the jobs that probe a cell: name to probes (``execution.probe_jobs``)."""
        probes = self.probes_of(cell)
        if self.config["execution"]["probe_jobs"] == "together":
            return {"together": probes} if probes else {}
        return {name: [name] for name in probes}

    def differs_by_seed(self, dataset: str) -> bool:
        """Whether each seed has data of its own: no line or direction then joins two of them.

        A network at the other end was trained on other images, or on other labels.
        """
        return differs_by_seed(self.datasets[dataset])

    def other_seeds(self, cell: Cell) -> list[int]:
        """Return the other seeds of a cell's data set, model and recipe: nearest smaller first, then greater.

        None where the data differ by seed.

        Seeds are mostly added above those there are. In this order, such a seed comes after all targets that
        a cell has, so that only cells with fewer than n targets get another and are probed again. (Greater
        ones first would change the last n cells each time, a cyclic order some of the first as well.)
        """
        there = [] if self.differs_by_seed(cell.dataset) else self._seeds_of.get(cell.setting, [])
        smaller = [seed for seed in reversed(there) if seed < cell.seed]
        return smaller + [seed for seed in there if seed > cell.seed]

    def repeats_of(self, cell: Cell) -> list[Cell]:
        """Return the cells of `all_cells` that have a cell's data set, model and recipe, by seed."""
        return [replace(cell, seed=seed) for seed in self._seeds_of.get(cell.setting, [])]

    @functools.cached_property
    def _seeds_of(self) -> dict[tuple[str, str, str], list[int]]:
        """Seeds by data set, model and recipe, in order."""
        found: dict[tuple[str, str, str], list[int]] = {}
        for cell in self.all_cells:
            found.setdefault(cell.setting, []).append(cell.seed)
        return found

    def target_seeds(self, cell: Cell, probe: str) -> list[int]:
        """Return the seeds that a probe's directions lead to, in order; most kinds lead to none."""
        spec = self.config["probes"][probe]
        return self.other_seeds(cell)[: spec["n"]] if KINDS[spec["kind"]].seeds else []

    def leaves_cell(self, line: str) -> bool:
        """Whether a line's stop is a solution of another cell than its start."""
        spec = self.config["lines"][line]
        return spec["stop_recipe"] is not None or spec["stop_seed"] == "next"

    def is_trained(self, line: str) -> bool:
        """Whether a line is a path with trained bends, which the ``connect`` rule makes."""
        return self.config["lines"][line]["path"] != "linear"

    def stop_cell(self, cell: Cell, line: str) -> Cell | None:
        """Return the cell of a line's stop, for the line that starts in `cell`; none where there is no such.

        A line with ``stop_recipe`` starts in cells of other recipes than that. Seed ``next`` is the least
        greater seed of the stop's recipe, without wrap-around: greater seeds that are added change no line
        there was, and only give the cell that had the greatest one a line. There is none where the data
        differ by seed.
        """
        if not self.leaves_cell(line):
            return cell
        spec = self.config["lines"][line]
        if spec["stop_recipe"] == cell.recipe:
            return None
        kin = (cell.dataset, cell.model, spec["stop_recipe"] or cell.recipe)
        there = self._seeds_of.get(kin, [])
        if spec["stop_seed"] == "next":
            there = [] if self.differs_by_seed(cell.dataset) else there
            seed = next((seed for seed in there if seed > cell.seed), None)
        else:
            seed = cell.seed if cell.seed in there else None
        return None if seed is None else Cell(*kin, seed)

    @kept
    def lines_of(self, cell: Cell) -> list[str]:
        """Return the lines that start in a cell: those wanted of it whose two ends exist.

        Paths with trained bends start in trained cells only: they take from the recipe how to train.
        """
        wanted, found = self.wants(cell).lines, []
        for line, spec in self.config["lines"].items():
            stop = self.stop_cell(cell, line)
            if line in wanted and stop is not None:
                there = all(spec[end] in self.available(at) for end, at in (("start", cell), ("stop", stop)))
                if there and not (self.from_checkpoints(cell.recipe) and self.is_trained(line)):
                    found.append(line)
        return found

    def spanning(self, plane: str) -> list[tuple[str, int]]:
        """Return probe and number of the two directions that span a plane; none for other planes."""
        chosen = self.config["planes"][plane]["span"] or []
        return [(probe, int(k)) for probe, _, k in (text.rpartition("/") for text in chosen)]

    @kept
    def planes_of(self, cell: Cell) -> list[str]:
        """Return the planes that a cell gets: those for so many seeds, whose solutions and directions it has.

        A trained cell gets none unless all of its solutions are made, which are marked on each plane.
        """
        made, given = self.solutions_of(cell), self.from_checkpoints(cell.recipe)
        if not given and not set(DEFAULT_SOLUTIONS) <= set(made):
            return []
        rank = self._seeds_of[cell.setting].index(cell.seed)
        return [
            name
            for name, plane in self.config["planes"].items()
            if not (plane["pca"] and given)
            and set(made) >= set(named_in(plane))
            and rank < plane["seeds"]
            and all(self._has(cell, *chosen) for chosen in self.spanning(name))
        ]

    def _has(self, cell: Cell, probe: str, k: int) -> bool:
        """Whether direction k of a probe exists in a cell."""
        if probe not in self.probes_of(cell):
            return False
        return not KINDS[self.config["probes"][probe]["kind"]].seeds or k < len(
            self.target_seeds(cell, probe)
        )

    def iterates_of(self, cell: Cell, keep: str | None = None) -> int:
        """Return how many of a cell's iterates stay, the last ones, by `keep`, else ``execution.keep``.

        With ``window`` they are those that are averaged; all where principal components are taken of them.
        """
        keep = self.config["execution"]["keep"] if keep is None else keep
        return 0 if keep == "none" else self.written_iterates(cell, keep)

    def written_iterates(self, cell: Cell, keep: str | None = None) -> int:
        """Return how many iterates training writes: with ``none`` as with ``window``, to go in the end."""
        keep = self.config["execution"]["keep"] if keep is None else keep
        made = self.all_iterates(cell.recipe)
        pca = any(self.config["planes"][plane]["pca"] for plane in self.planes_of(cell))
        pca = pca or any(
            KINDS[self.config["probes"][probe]["kind"]].iterates for probe in self.probes_of(cell)
        )
        if pca or keep == "all" or self.from_checkpoints(cell.recipe):
            return made
        return self.recipe(cell.recipe)["swa"]["window"] or made

    def all_iterates(self, recipe: str) -> int:
        """Return how many iterates the averaging phase of a recipe has (`schedule.kept_epochs`)."""
        if self.from_checkpoints(recipe):
            return 0
        full = self.recipe(recipe)
        return (full["epochs"] - full["swa"]["start"]) // full["swa"]["every"]

    def cooldown_epochs(self, recipe: str) -> int:
        """Return the epochs that lead to a recipe's sgd solution (`schedule.cooldown_epochs`)."""
        full = self.recipe(recipe)
        return full["cooldown"]["epochs"] or full["epochs"] - full["swa"]["start"]

    @functools.cached_property
    def _line_ends(self) -> dict[Cell, set[str]]:
        """Solutions by cell that a line starts or stops in; its stop may be in another cell."""
        found: dict[Cell, set[str]] = {}
        for cell in self.wanted:
            for line in self.lines_of(cell):
                spec, stop = self.config["lines"][line], self.stop_cell(cell, line)
                found.setdefault(cell, set()).add(spec["start"])
                found.setdefault(stop or cell, set()).add(spec["stop"])
        return found

    def direction_inputs(self, cell: Cell, probe: str) -> list[str]:
        """Return the solutions that a probe's computed directions are made from or for."""
        spec = self.config["probes"][probe]
        return sorted({*self.probed_solutions(cell, probe), *NEEDS.get(spec["kind"], ())})

    def is_computed(self, probe: str) -> bool:
        """Whether a probe's directions are computed once and stored, by a rule before ``probe``."""
        return self.config["probes"][probe]["kind"] in COMPUTED

    def is_searched(self, probe: str) -> bool:
        """Whether a probe's directions are found and stored by the ``search_directions`` rule."""
        return KINDS[self.config["probes"][probe]["kind"]].searched

    def looks_towards_swa(self, cell: Cell, probe: str) -> bool:
        """Whether a probe's searched directions begin at sgd and the cell has swa: its side is then told."""
        at_sgd = self.is_searched(probe) and "sgd" in self.probed_solutions(cell, probe)
        return at_sgd and "swa" in self.solutions_of(cell)

    def study_probes(self, study: str) -> list[str]:
        """Return the probes of a study: those it names, else all."""
        return self.config["studies"][study].get("probes", list(self.config["probes"]))

    def study_lines(self, study: str) -> list[str]:
        """Return the lines of a study."""
        return self.config["studies"][study]["lines"]
