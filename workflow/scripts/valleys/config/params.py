"""Params of each rule: the slice of the config that its result depends on. They make a job run again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from valleys.config import originals, outputs, styles
from valleys.config.alignment import SOLUTION, partner
from valleys.config.averages import averages_of, block_of
from valleys.config.catalogue import LINES, TABLES
from valleys.config.cells import Cell, Cells
from valleys.config.versions import VERSIONS
from valleys.data.options import before_seeds
from valleys.errors import ValleysError
from valleys.landscape.kinds import SEARCH, SINGLE

OFF = {"precision": "fp32", "adaptive": False, "orthogonal": False, "optimizer": "sgd"}
"""Options that params name only where they are on: a new option remakes no result that is without it."""


def _without_off(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block without the options that are off (`OFF`)."""
    return {key: value for key, value in block.items() if key not in OFF or value != OFF[key]}


def _of_a_step(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a step of training depends on: a recipe's keys but those of its schedule and its start.

    Descent and trained paths take it whole, so that none of them drops an option of the optimiser.
    """
    first = ("batch_size", "momentum", "nesterov", "weight_decay", "loss", "augment", "precision")
    others = {"epochs", "lr", "eval_every", "swa", "cooldown", "descent", "start_from", *first}
    keys = [*first, *(key for key in recipe if key not in others)]
    return _without_off({key: recipe[key] for key in keys})


def with_image_errors(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return the block of a probe or line with ``image_errors`` where it looks at a subset of images."""
    subset = block["train_images"] is not None or block["test_images"] is not None
    return {**block, **({"image_errors": 2} if subset else {})}


def _is_fixed(probe: Mapping[str, Any]) -> bool:
    """Whether a probe's R is set; else it is found for a rise."""
    return probe.get("radius") is not None or probe.get("relative") is not None


class Params:
    """Params of each rule for the jobs of one experiment, by the rule's name.

    All but `provenance` and `results` hold the ``version`` of their stage (`valleys.config.versions`).
    """

    def __init__(self, experiment: Cells) -> None:
        self.experiment, self.config = experiment, experiment.config
        self._digests: dict[str, list[str]] = {}

    def prepare_dataset(self, dataset: str) -> dict[str, Any]:
        """Params of ``prepare_dataset``: the source and, if it is a user's callable, what names its code.

        Of originals also what names their contents: one that takes another's place may be older than what was
        made of that, and Snakemake goes by which is newer.
        """
        source, digests = before_seeds(self.experiment.datasets[dataset]), self._digests_of(dataset)
        more = {"originals": digests} if digests else {}
        return self._stage("prepare_dataset", source=source, **self.experiment.code_of(source), **more)

    def split_dataset(self, dataset: str, seed: int) -> dict[str, Any]:
        """Params of ``split_dataset``: what of the entry is done for each seed anew, and the seed."""
        spec = self.experiment.datasets[dataset]
        keys = ["split", "label_noise"]
        if spec["split"] == "by_seed":
            keys += ["max_train", "max_test", "subset_seed", *(key for key in ("mean", "std") if key in spec)]
        return self._stage("split_dataset", source={key: spec[key] for key in keys}, seed=int(seed))

    def train_sgd(self, model: str, recipe: str, seed: int) -> dict[str, Any]:
        """Params of ``train_sgd``: all of the recipe but the averaging window, cooldown and descent.

        Of a user's own network also what names its code.
        """
        full = self.experiment.recipe(recipe)
        kept = {key: value for key, value in full.items() if key not in ("swa", "cooldown", "descent")}
        kept["swa"] = {key: value for key, value in full["swa"].items() if key != "window"}
        spec = self.experiment.models[model]
        keys = {
            "model": spec,
            "recipe": _without_off(kept),
            "seed": int(seed),
            **self.experiment.code_of(spec),
        }
        return self._stage("train_sgd", **keys)

    def cooldown(self, recipe: str, seed: int) -> dict[str, Any]:
        """Params of ``cooldown``: what one step of SGD needs, and how long and from which rate it falls."""
        full = self.experiment.recipe(recipe)
        kept = {**_of_a_step(full), **{key: full[key] for key in ("epochs", "eval_every", "cooldown")}}
        kept["swa"] = {key: full["swa"][key] for key in ("start", "lr")}
        return self._stage("cooldown", recipe=kept, seed=int(seed))

    def average(self, recipe: str) -> dict[str, Any]:
        """Params of ``average``."""
        return self._stage("average", window=self.experiment.recipe(recipe)["swa"]["window"])

    def refresh_bn(self, model: str) -> dict[str, Any]:
        """Params of ``refresh_bn``: how, or None for a model without batch norm."""
        may = self.experiment.may_have_batch_norm(model)
        return self._stage("refresh_bn", bn_refresh=self.config["bn_refresh"] if may else None)

    def import_solution(self, model: str, recipe: str) -> dict[str, Any]:
        """Params of ``import_solution``: the model, and how to refresh batch-norm statistics, if at all.

        Of a user's own network also what names its code.
        """
        refreshed = self.experiment.checkpoints[recipe]["bn"] == "refreshed"
        spec, settings = self.experiment.models[model], self.config["bn_refresh"] if refreshed else None
        return self._stage(
            "import_solution", model=spec, bn_refresh=settings, **self.experiment.code_of(spec)
        )

    def descend(self, recipe: str, seed: int) -> dict[str, Any]:
        """Params of ``descend``: what one step of SGD needs, and the descent's own block."""
        full = self.experiment.recipe(recipe)
        kept = {key: value for key, value in _of_a_step(full).items() if key != "momentum"}
        kept["descent"] = full["descent"]
        return self._stage("descend", recipe=kept, seed=int(seed), bn_refresh=self.config["bn_refresh"])

    def evaluate(self, recipe: str) -> dict[str, Any]:
        """Params of ``evaluate``."""
        kept = {"sharpness": self.config["sharpness"]} if self.config["sharpness"] else {}
        return self._stage("evaluate", loss=self.experiment.recipe(recipe)["loss"], **kept)

    def compare_averages(self, cell: Cell) -> dict[str, Any]:
        """Params of ``compare_averages``: the averages of the cell, and which iterates they are of."""
        recipe = self.experiment.recipe(cell.recipe)
        return self._stage(
            "compare_averages",
            averages={name: block_of(self.experiment, name) for name in averages_of(self.experiment, cell)},
            window=recipe["swa"]["window"],
            loss=recipe["loss"],
            bn_refresh=self.config["bn_refresh"],
        )

    def directions(self, recipe: str, probe: str) -> dict[str, Any]:
        """Params of ``directions``: the kind, how many, and the loss that a gradient is of."""
        spec = self.config["probes"][probe]
        kept = {key: spec[key] for key in ("kind", "group", "train_images")}
        kept["n"] = 1 if spec["kind"] in SINGLE else spec["n"]
        return self._stage("directions", probe=kept, loss=self.experiment.recipe(recipe)["loss"])

    def search_directions(self, cell: Cell, probe: str) -> dict[str, Any]:
        """Params of ``search_directions``: what is searched for, how and where, and Definition 1."""
        spec = self.config["probes"][probe]
        keys = ("kind", "n", "group", "rise", "points", "bn", "precision", "train_images", "test_images")
        block = {key: spec[key] for key in keys} | {"search": SEARCH | spec.get("search", {})}
        block["solutions"] = self.experiment.probed_solutions(cell, probe)
        return self._stage(
            "search_directions",
            probe=block,
            asymmetry=self.config["asymmetry"],
            loss=self.experiment.recipe(cell.recipe)["loss"],
            bn_refresh=self.config["bn_refresh"],
        )

    def probe(self, cell: Cell, bundle: str) -> dict[str, Any]:
        """Params of ``probe``: the blocks of the probes that one job does, by name."""
        blocks = {}
        for name in self.experiment.bundles_of(cell)[bundle]:
            block = dict(self.config["probes"][name], solutions=self.experiment.probed_solutions(cell, name))
            if block["kind"] in SINGLE:
                block["n"] = 1
            if block["kind"] != "sign":
                block["share"] = 0.0
            block.pop("search", None)  # what it found is an input
            blocks[name] = with_image_errors(_without_off(block))
        # A curve in bf16 is measured again where its verdict hangs on that, an adaptive one at more points:
        # they depend on the constants.
        judged = any({"precision", "adaptive", "until"} & set(block) for block in blocks.values())
        more = {"asymmetry": self.config["asymmetry"]} if judged else {}
        loss = self.experiment.recipe(cell.recipe)["loss"]
        return self._stage("probe", probes=blocks, loss=loss, bn_refresh=self.config["bn_refresh"], **more)

    def connect(self, cell: Cell, line: str) -> dict[str, Any]:
        """Params of ``connect``: the path, and what one step of SGD needs."""
        full, spec = self.experiment.recipe(cell.recipe), self.config["lines"][line]
        recipe = _of_a_step(full)
        kept = {key: spec[key] for key in ("path", "bends", "epochs")}
        kept["lr"] = full["swa"]["lr"] if spec["lr"] is None else spec["lr"]
        return self._stage("connect", recipe=recipe, line=kept, seed=cell.seed)

    def interpolate(self, cell: Cell, line: str) -> dict[str, Any]:
        """Params of ``interpolate``: the points, and which solutions are at the ends.

        How the bends of a trained path came about is the ``connect`` rule's: their file is an input.
        """
        spec, stop = self.config["lines"][line], self.experiment.stop_cell(cell, line)
        if stop is None:
            raise ValleysError(f"line {line}: no cell for its stop when it starts in {cell.path}")
        keys = ("start", "stop", "path", "divisions", "bn", "train_images", "test_images")
        kept = {key: spec[key] for key in keys}
        kept |= {"stop_recipe": stop.recipe, "stop_seed": stop.seed}
        ends = {"first": 0, "last": 1} if self.experiment.is_trained(line) else {"first": -2, "last": 3}
        kept |= {key: end if spec[key] is None else spec[key] for key, end in ends.items()}
        if "until" in spec:
            kept |= {"until": spec["until"], "threshold": self.config["claims"]["barrier"]}
            kept = with_image_errors(kept)  # what is settled is of all images, not of the subset
        return self._stage(
            "interpolate",
            line=kept,
            loss=self.experiment.recipe(cell.recipe)["loss"],
            bn_refresh=self.config["bn_refresh"],
        )

    def align(self, cell: Cell) -> dict[str, Any]:
        """Params of ``align``: whose solution is aligned to the cell's."""
        other = partner(self.experiment, cell)
        if other is None:
            raise ValleysError(f"alignment: {cell.path} is the first of no pair")
        return self._stage(
            "align",
            solution=SOLUTION,
            other_seed=other.seed,
            loss=self.experiment.recipe(cell.recipe)["loss"],
            bn_refresh=self.config["bn_refresh"],
        )

    def plane(self, recipe: str, plane: str) -> dict[str, Any]:
        """Params of ``plane``: how it is laid, its grid, and ``at``, the solution whose statistics it keeps.

        Of a probe that spans it, what remakes a drawn direction; computed ones are read from their file.
        """
        return self._stage(
            "plane",
            plane=self._plane_block(plane),
            loss=self.experiment.recipe(recipe)["loss"],
            bn_refresh=self.config["bn_refresh"],
        )

    def detect(self) -> dict[str, Any]:
        """Params of ``detect``."""
        return self._stage("detect", asymmetry=self.config["asymmetry"])

    def study(self, study: str) -> dict[str, Any]:
        """Params of ``study``: its probes, and levels and weight decay of each of its cells."""
        spec = self.config["studies"][study]
        cells = [
            {
                **cell.columns(),
                "levels": dict(levels),
                "weight_decay": self.experiment.recipe(cell.recipe)["weight_decay"]
                if spec["penalty"]
                else None,
            }
            for cell, levels in sorted(self.experiment.studies[study].items(), key=lambda item: item[0])
        ]
        chosen = {"probes": self.experiment.study_probes(study), "solutions": list(spec["solutions"])}
        return self._stage("study", asymmetry=self.config["asymmetry"], cells=cells, **chosen)

    def measure_gain(self) -> dict[str, Any]:
        """Params of ``measure_gain``: Definition 1; its other constants are in the code."""
        return self._stage("measure_gain", asymmetry=self.config["asymmetry"])

    def sensitivity(self) -> dict[str, Any]:
        """Params of ``sensitivity``."""
        return self._stage(
            "sensitivity", asymmetry=self.config["asymmetry"], level=self.config["claims"]["level"]
        )

    def toy_2d(self) -> dict[str, Any]:
        """Params of ``toy_2d``."""
        constants = {
            key: self.config["asymmetry"][key] for key in ("c", "zeta_max", "min_span", "minimum_within")
        }
        return self._stage("toy_2d", toy_2d={**self.config["toy_2d"], **constants})

    def simulate_theory(self) -> dict[str, Any]:
        """Params of ``simulate_theory``."""
        return self._stage("simulate_theory", theory=self.config["theory"])

    def claims(self) -> dict[str, Any]:
        """Params of ``claims``: its constants, and of each probe what says which rows decide."""
        probes = {}
        for name, block in self.config["probes"].items():
            probes[name] = {"rise": None if _is_fixed(block) else block["rise"]}
            probes[name] |= {key: block[key] for key in ("bn", "kind")}
            if self.experiment.is_searched(name):
                probes[name]["seek"] = (SEARCH | block.get("search", {}))["seek"]
            if block.get("orthogonal"):
                probes[name]["orthogonal"] = True
        spec = {**self.config["claims"], "c": self.config["asymmetry"]["c"], "factors": self._factors()}
        spec |= {
            "probes": probes,
            "archs": {name: m.get("arch", "") for name, m in self.experiment.models.items()},
        }
        spec |= {"checkpoints": list(self.experiment.checkpoints)} if self.experiment.checkpoints else {}
        spec |= {} if self.config["simulations"] else {"simulations": False}
        return self._stage("claims", claims=spec)

    def figure(self, figure: str) -> dict[str, Any]:
        """Params of ``figures``: the style, and the blocks that are drawn as text or marks."""
        return self._stage("figures", **self._drawn(figure, styles.of_report(self.config["figures"])))

    def panels(self, figure: str) -> dict[str, Any]:
        """Params of ``panels``, of a config that asks for them."""
        return self._stage("panels", **self._drawn(figure, styles.of_panels(self.config["figures"])))

    def _drawn(self, figure: str, style: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return what a figure is drawn with beside its tables."""
        kind, _, study = figure.partition("-")
        order = {"factors": {study: self._factors()[study]}} if kind == "study" else {}
        order |= {"solutions": self.experiment.own_names} if self.experiment.own_names else {}
        return {
            **order,
            "style": style,
            "swa_start": {name: r["swa"]["start"] for name, r in self.config["recipes"].items()},
            "c": self.config["asymmetry"]["c"],
            "level": self.config["claims"]["level"],
        }

    def report(self) -> dict[str, Any]:
        """Params of ``report``."""
        return self._stage(
            "report", figures=outputs.figures(self.experiment), tables=outputs.tables(self.experiment)
        )

    def look(self) -> dict[str, Any]:
        """Params of ``look``, of an experiment that has the seeds of one (`Experiment.at`).

        ``added`` are the cells of these seeds: a row rests on them where it has fewer values without.
        """
        looks = self.experiment.looks
        assert looks is not None, "the seeds of this config are a list"
        return self._stage(
            "look",
            look={"seeds": len(self.config["seeds"]), "looks": list(looks.counts)},
            added=[list(cell.columns().values()) for cell in self.experiment.added_cells()],
            claims=self.claims(),
            studies={study: self.study(study) for study in self.experiment.studies},
        )

    def provenance(self, table: str) -> dict[str, Any]:
        """Return the config blocks that decide a table's content; kept in its metadata."""
        cells = ("name", "seeds", "datasets", "models", "recipes", "grid")
        cells += ("checkpoints",) if self.experiment.checkpoints else ()
        study = table.removesuffix(LINES) if table in outputs.study_tables(self.experiment) else None
        if study:
            table, cells = (
                "asymmetry" if table in self.experiment.studies else "interpolation",
                (*cells, "studies"),
            )
        about = {key: self.config[key] for key in (*cells, *TABLES[table].blocks)}
        others = {"averages", "alignment"} - {table}  # have no part in it
        about["grid"] = [{k: v for k, v in entry.items() if k not in others} for entry in about["grid"]]
        if study:  # its own block, probes and lines: others have no part in it
            about["studies"] = {study: self.config["studies"][study]}
            for key, wanted in (
                ("probes", self.experiment.study_probes(study)),
                ("lines", self.experiment.study_lines(study)),
            ):
                if key in about:
                    about[key] = {name: self.config[key][name] for name in wanted}
        if TABLES[table].per == "search":  # other probes have no part in them
            probes = self.config["probes"].items()
            about["probes"] = {name: spec for name, spec in probes if self.experiment.is_searched(name)}
            if studies := outputs.searching_studies(self.experiment):
                about["studies"] = {name: self.config["studies"][name] for name in studies}
        if TABLES[table].per == "plane":  # with their probes: other probes have no part in them
            about["planes"] = {
                name: {**self._plane_block(name), "seeds": spec["seeds"]}
                for name, spec in self.config["planes"].items()
            }
        return about

    def results(self) -> dict[str, Any]:
        """Return the part of the config that decides results: all but style and execution."""
        # Keys that are newer than some finished runs, which have nothing to do as long as these are not used.
        off = () if self.config["averages"] else ("averages",)
        off += ("simulations",) if self.config["simulations"] else ()
        return {k: v for k, v in self.config.items() if k not in ("figures", "execution", *off)}

    def _factors(self) -> dict[str, dict[str, list[Any]]]:
        """Return each study's factors and levels, in order."""
        return {name: spec["factors"] for name, spec in self.config["studies"].items()}

    def _plane_block(self, plane: str) -> dict[str, Any]:
        spec = self.config["planes"][plane]
        keys = ("points", "bn", "precision", "train_images", "test_images")
        kept = _without_off({key: spec[key] for key in keys})
        if spec["through"]:
            return kept | {key: spec[key] for key in ("through", "margin")} | {"at": spec["through"][0]}
        if spec["pca"]:
            return kept | {key: spec[key] for key in ("pca", "margin")} | {"at": "swa"}
        span = []
        for probe, k in self.experiment.spanning(plane):
            block = self.config["probes"][probe]
            share = block["share"] if block["kind"] == "sign" else 0.0
            kept_of = {"kind": block["kind"], "group": block["group"], "share": share, "k": k}
            span.append(kept_of | ({"orthogonal": True} if block.get("orthogonal") else {}))
        return kept | {key: spec[key] for key in ("at", "relative")} | {"span": span}

    def _digests_of(self, dataset: str) -> list[str]:
        """Return `originals.source_digests`, looked at once: a folder may have a million images."""
        if dataset not in self._digests:
            self._digests[dataset] = originals.source_digests(self.experiment, dataset)
        return self._digests[dataset]

    def _stage(self, stage: str, **keys: Any) -> dict[str, Any]:
        return {"version": VERSIONS[stage], **keys}
