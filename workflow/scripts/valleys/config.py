"""The config: checked against its schema, expanded into cells, cut into the slice each stage depends on.

Imported by the Snakefile, so nothing here imports torch. The slices are what makes reruns incremental: a
rule's params hold just the keys that change its result.
"""

from __future__ import annotations

import difflib
import glob
import itertools
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError, validators

from valleys.arch_options import validate_spec
from valleys.dataset_options import validate_dataset
from valleys.direction_kinds import COMPUTED, GROUPS, KINDS, NEEDS, SINGLE
from valleys.errors import ValleysError
from valleys.stages import VERSIONS

SCHEMA_FILE = Path(__file__).parents[2] / "schemas" / "config.schema.yaml"
SOLUTIONS = ("sgd", "swa", "descent")
CELL_TABLES = ("training", "solutions", "directions", "curves", "asymmetry", "theory_measured", "shift")
CELL_TABLES += ("interpolation",)
TOY_TABLES = ("toy_2d", "toy_2d_curves", "toy_2d_surface")
THEORY_TABLES = ("theory_average", "theory_gain")

Config = Mapping[str, Any]

# JSON schema counts 6.0 as an integer, and infinities and NaN as numbers; the workflow cannot use them.
_Validator = validators.extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
            "number": lambda _, value: (
                isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            ),
        }
    ),
)


def check(config: Config, schema: Mapping[str, Any] | None = None) -> None:
    """Check types, names and keys against the JSON schema, with one clear line for the first mistake.

    Snakemake's ``validate`` uses the same schema and fills in the defaults; it is called after this, which
    is here for the message: the key's full path and, for an unknown key or value, the nearest valid one.

    Raises
    ------
    ValleysError
        For the mistake nearest to the root.
    """
    schema = schema or yaml.safe_load(SCHEMA_FILE.read_text(encoding="utf-8"))
    errors = sorted(_Validator(schema).iter_errors(config), key=lambda e: len(e.absolute_path))
    if errors:
        error = errors[0]
        while error.context:  # of anyOf, the branch that got furthest says what the user meant
            error = max(error.context, key=lambda e: (len(e.absolute_path), e.validator != "type"))
        raise ValleysError(_explain(error))


def check_writable(folder: str | Path) -> None:
    """Check that `folder` exists and can be written to, or can be made.

    Raises
    ------
    ValleysError
        When what exists of its path is no folder or is not writable.
    """
    path = Path(folder)
    while not path.exists() and path != path.parent:
        path = path.parent
    if not path.is_dir():
        raise ValleysError(f"results folder {folder}: {path} is a file; remove it or run elsewhere")
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValleysError(f"results folder {folder}: {path} is not writable; make it so or run elsewhere")


def _explain(error: ValidationError) -> str:
    where = "config: " + (".".join(str(part) for part in error.absolute_path) or "top level")
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = list(error.schema.get("properties", {}))
        for key in error.instance:
            if key not in known:
                near, keys = _nearest(str(key), known), ", ".join(sorted(known))
                return f"{where}: unknown key {key!r}{near}; keys here: {keys}"
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return f"{where}: missing {', '.join(missing)}"
    if error.validator == "enum":
        known = [str(value) for value in error.validator_value]
        hint = _nearest(str(error.instance), known)
        return f"{where}: {error.instance!r}{hint}; choose from {', '.join(known)}"
    if error.validator == "pattern":
        return (
            f"{where}: {error.instance!r} cannot be a name; use letters, digits, '_', '-' and '.', "
            "beginning with a letter or digit"
        )
    return f"{where}: {error.message}"


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True, order=True)
class Cell:
    """One trained network: data set x model x recipe x seed (all but the seed by name)."""

    dataset: str
    model: str
    recipe: str
    seed: int

    @property
    def path(self) -> str:
        """The cell's folder below ``results/<name>/cells``."""
        return f"{self.dataset}/{self.model}/{self.recipe}/seed-{self.seed}"

    @property
    def kin(self) -> tuple[str, str, str]:
        """All but the seed."""
        return self.dataset, self.model, self.recipe

    def columns(self) -> dict[str, Any]:
        """Return the columns that name the cell in every table."""
        return {"dataset": self.dataset, "model": self.model, "recipe": self.recipe, "seed": self.seed}


class Experiment:
    """A checked config with defaults filled in: its cells and the slice each stage depends on.

    Parameters
    ----------
    config
        As returned by Snakemake's ``validate``.

    Raises
    ------
    ValleysError
        When names do not resolve or values contradict each other.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.name: str = config["name"]
        self.root = f"results/{self.name}"
        self.models = self._named("models", lambda name, spec: validate_spec(spec))
        self.datasets = self._named("datasets", validate_dataset)
        self.cells = sorted(self._cells())
        self._check_recipes()
        self._check_windows()
        self._check_probes()
        self._check_lines()
        self._check_theory()

    def _named(self, block: str, check_one: Any) -> dict[str, Any]:
        checked = {}
        for name, spec in self.config[block].items():
            try:
                checked[name] = check_one(name, spec)
            except ValleysError as error:
                where = f"{block}.{name}"
                text = str(error) if str(error).startswith(where) else f"{where}: {error}"
                raise ValleysError(f"config: {text}") from None
        return checked

    def _cells(self) -> Iterator[Cell]:
        seen: set[Cell] = set()
        for i, entry in enumerate(self.config["grid"]):
            axes = []
            for key in ("dataset", "model", "recipe"):
                names = entry[key] if isinstance(entry[key], list) else [entry[key]]
                known = list(self.config[key + "s"])
                for name in names:
                    if name not in known:
                        raise ValleysError(
                            f"config: grid.{i}.{key}: {name!r} is not among {key}s"
                            f"{_nearest(name, known)}; there are {', '.join(known)}"
                        )
                axes.append(names)
            for values in itertools.product(*axes, entry.get("seeds", self.config["seeds"])):
                cell = Cell(*values)
                if cell not in seen:
                    seen.add(cell)
                    yield cell

    def _check_recipes(self) -> None:
        for name, recipe in self.config["recipes"].items():
            swa, where = recipe["swa"], f"config: recipes.{name}"
            if swa["start"] + swa["every"] > recipe["epochs"]:
                raise ValleysError(
                    f"{where}.swa.start: {swa['start']} leaves no iterate to average in {recipe['epochs']} "
                    f"epochs; it must be at most {recipe['epochs'] - swa['every']}"
                )
            kept = (recipe["epochs"] - swa["start"]) // swa["every"]
            if swa["window"] is not None and swa["window"] > kept:
                raise ValleysError(
                    f"{where}.swa.window: {swa['window']} is more than the {kept} iterates kept"
                )
            if recipe["nesterov"] and recipe["momentum"] == 0:
                raise ValleysError(f"{where}.nesterov: needs momentum above 0")

    def _check_windows(self) -> None:
        zeta_max, min_span = (self.config["asymmetry"][key] for key in ("zeta_max", "min_span"))
        if min_span > (1 - zeta_max) * (1 + 1e-9):
            raise ValleysError(
                f"config: asymmetry.min_span: {min_span} leaves no window beside zeta_max {zeta_max}; "
                f"it must be at most {1 - zeta_max:g}"
            )
        half = math.ceil(1 / zeta_max - 1e-9)  # the first of so many offsets is at most zeta_max R
        for name, probe in self.config["probes"].items():
            if probe["points"] < 2 * half + 1:
                raise ValleysError(
                    f"config: probes.{name}.points: {probe['points']} put the first offset beyond zeta_max "
                    f"{zeta_max} of the radius; there must be at least {2 * half + 1}"
                )
        toy = self.config["toy_2d"]
        if round(toy["reach"] / toy["step"]) < half:
            raise ValleysError(
                f"config: toy_2d.step: {toy['step']} is beyond zeta_max {zeta_max} of the reach; "
                f"it must be at most {toy['reach'] / half:g}"
            )

    def _check_probes(self) -> None:
        for name, probe in self.config["probes"].items():
            where, kinds = f"config: probes.{name}", list(KINDS)
            if probe["kind"] not in kinds:
                raise ValleysError(
                    f"{where}.kind: unknown kind {probe['kind']!r}{_nearest(probe['kind'], kinds)}; "
                    f"choose from {', '.join(kinds)}"
                )
            if probe["group"] not in GROUPS and not probe["group"].startswith("layer:"):
                raise ValleysError(
                    f"{where}.group: unknown group {probe['group']!r}"
                    f"{_nearest(probe['group'], list(GROUPS))}; "
                    f"choose from {', '.join(GROUPS)}"
                )
            if probe["kind"] == "filter" and probe["group"].startswith("bn"):
                raise ValleysError(
                    f"{where}: kind filter leaves group {probe['group']} at zero; choose another kind"
                )
            if probe["points"] % 2 == 0:
                raise ValleysError(
                    f"{where}.points: {probe['points']} is even; it must be odd, to include offset 0"
                )
            if probe["radius"] is not None and probe["relative"] is not None:
                raise ValleysError(f"{where}: radius and relative both fix the radius; give one of them")
            refreshed = self.config["bn_refresh"]["method"]
            if probe["slopes"] == "exact" and probe["bn"] == "refreshed" and refreshed == "streaming":
                raise ValleysError(
                    f"{where}.slopes: exact needs bn_refresh.method exact where bn is refreshed; "
                    "the loss of method streaming hangs on the batches"
                )
            if probe["kind"] == "to_seed" and not any(self._other_seeds(cell) for cell in self.cells):
                raise ValleysError(
                    f"{where}: kind to_seed needs a second seed of some cell; add one to seeds"
                )

    def _check_lines(self) -> None:
        for name, line in self.config["lines"].items():
            if line["start"] == line["stop"]:
                raise ValleysError(f"config: lines.{name}: start and stop are both {line['start']!r}")

    def _check_theory(self) -> None:
        theory = self.config["theory"]
        steepest = max(theory["ratios"]) * theory["slope"]
        if "quadratic" in theory["shapes"] and max(theory["rates"]) * steepest >= 2:
            raise ValleysError(
                f"config: theory.rates: {max(theory['rates'])} diverges in a quadratic valley of curvature "
                f"{steepest:g}; it must be below {2 / steepest:g}"
            )

    # What to make -----------------------------------------------------------------------------------

    def probes_of(self, cell: Cell) -> list[str]:
        """Return the probes that apply to a cell.

        One on normalisation layers needs a model with some, and one towards other seeds needs another seed.
        """
        plain = self.models[cell.model].get("norm") == "none"
        alone = not self._other_seeds(cell)
        return [
            name
            for name, probe in self.config["probes"].items()
            if not (plain and probe["group"].startswith("bn")) and not (alone and probe["kind"] == "to_seed")
        ]

    def _other_seeds(self, cell: Cell) -> list[int]:
        """Return the other seeds of a cell's data set, model and recipe: nearest smaller first, then greater.

        Seeds are mostly added above those there are. In this order, such a seed comes after all targets that
        a cell has, so that only cells with fewer than n targets get another and are probed again. (Greater
        ones first would change the last n cells each time, a cyclic order some of the first as well.)
        """
        there = [c.seed for c in self.cells if c.kin == cell.kin]
        smaller = sorted((seed for seed in there if seed < cell.seed), reverse=True)
        return smaller + sorted(seed for seed in there if seed > cell.seed)

    def target_seeds(self, cell: Cell, probe: str) -> list[int]:
        """Return the seeds that a probe's directions lead to, in order; none but for kind ``to_seed``."""
        spec = self.config["probes"][probe]
        return self._other_seeds(cell)[: spec["n"]] if spec["kind"] == "to_seed" else []

    def source_files(self, dataset: str) -> list[str]:
        """Return the files a data set is read from that exist now (none for sources that are folders)."""
        found: list[str] = []
        for key in ("train", "test"):
            value = self.datasets[dataset].get(key) or []
            for pattern in [value] if isinstance(value, str) else value:
                found += sorted(p for p in glob.glob(pattern) if Path(p).is_file())  # noqa: PTH207 (absolute patterns)
        return found

    def direction_inputs(self, probe: str) -> list[str]:
        """Return the solutions that a probe's computed directions are made from or for."""
        spec = self.config["probes"][probe]
        return sorted({*spec["solutions"], *NEEDS.get(spec["kind"], ())})

    def is_computed(self, probe: str) -> bool:
        """Whether a probe's directions are computed and stored by the ``directions`` rule."""
        return self.config["probes"][probe]["kind"] in COMPUTED

    def parts(self, cell: Cell, table: str) -> list[str]:
        """Return the files, below a cell's folder, that hold its rows of a table."""
        if table == "training":
            return ["training.parquet", "descent.parquet"]
        if table in ("curves", "directions"):
            return [f"probes/{probe}/{table}.parquet" for probe in self.probes_of(cell)]
        if table == "interpolation":
            return [f"lines/{line}.parquet" for line in self.config["lines"]]
        return [f"{table}.parquet"]

    def tables(self) -> list[str]:
        """Return the names of the tables this experiment makes."""
        return [*CELL_TABLES, "sensitivity", *TOY_TABLES, *THEORY_TABLES, "claims"]

    def claim_tables(self) -> list[str]:
        """Return the names of the tables that claims are judged from."""
        return [
            *("training", "solutions", "directions", "asymmetry", "theory_measured", "shift"),
            *("interpolation", "toy_2d", *THEORY_TABLES),
        ]

    def figure_needs(self) -> dict[str, list[str]]:
        """Return the figures this experiment makes, each with the tables it is drawn from."""
        probes = self.config["probes"]
        sign = [name for name, spec in probes.items() if spec["kind"] == "sign"]  # have one figure together
        needs = {"training": ["training"], "prevalence": ["asymmetry"], "sensitivity": ["sensitivity"]}
        needs |= {f"curves-{p}": ["curves", "directions", "asymmetry"] for p in probes if p not in sign}
        needs |= {f"line-{line}": ["interpolation"] for line in self.config["lines"]}
        needs |= {"shift": ["shift", "asymmetry"]}
        needs |= {"sign": ["asymmetry", "directions"]} if sign else {}
        needs |= {"toy-surface": list(TOY_TABLES), "toy-curves": ["toy_2d", "toy_2d_curves"]}
        needs |= {"theory-average": ["theory_average"], "theory-gain": ["theory_gain"]}
        return needs | {"theory-measured": ["theory_measured"]}

    def named(self, name: str) -> tuple[list[str], list[str]]:
        """Return the tables and the figures of one experiment, by the name of its target."""
        tables, words = {
            "prevalence": (
                ("solutions", "directions", "curves", "asymmetry", "sensitivity"),
                ("prevalence", "sensitivity", "curves"),
            ),
            "swa": (("training", "solutions", "interpolation"), ("training", "line")),
            "shift": (("curves", "asymmetry", "shift"), ("shift",)),
            "sign": (("directions", "asymmetry"), ("sign",)),
            "toy": (TOY_TABLES, ("toy",)),
            "theory": (THEORY_TABLES, ("theory-average", "theory-gain")),
            "gain": (("curves", "asymmetry", "theory_measured"), ("theory-measured",)),
        }[name]
        return list(tables), [f for f in self.figures() if f in words or f.split("-")[0] in words]

    def figures(self) -> list[str]:
        """Return the names of the figures this experiment makes."""
        return list(self.figure_needs())

    def figure_tables(self, figure: str) -> list[str]:
        """Return the tables a figure is drawn from."""
        return self.figure_needs()[figure]

    # What each stage depends on ---------------------------------------------------------------------

    def _stage(self, stage: str, **keys: Any) -> dict[str, Any]:
        return {"version": VERSIONS[stage], **keys}

    def recipe(self, name: str) -> dict[str, Any]:
        """Return a recipe's block with its defaults."""
        return self.config["recipes"][name]

    def prepare_dataset(self, dataset: str) -> dict[str, Any]:
        """Params of ``prepare_dataset``."""
        return self._stage("prepare_dataset", source=self.datasets[dataset])

    def train_sgd(self, model: str, recipe: str, seed: int) -> dict[str, Any]:
        """Params of ``train_sgd``: all of the recipe but the averaging window and the descent."""
        full = self.recipe(recipe)
        kept = {key: value for key, value in full.items() if key not in ("swa", "descent")}
        kept["swa"] = {key: value for key, value in full["swa"].items() if key != "window"}
        return self._stage("train_sgd", model=self.models[model], recipe=kept, seed=int(seed))

    def average(self, recipe: str) -> dict[str, Any]:
        """Params of ``average``."""
        return self._stage("average", window=self.recipe(recipe)["swa"]["window"])

    def refresh_bn(self) -> dict[str, Any]:
        """Params of ``refresh_bn``."""
        return self._stage("refresh_bn", bn_refresh=self.config["bn_refresh"])

    def descend(self, recipe: str, seed: int) -> dict[str, Any]:
        """Params of ``descend``: what one step of SGD needs, and the descent's own block."""
        full = self.recipe(recipe)
        keys = ("batch_size", "nesterov", "weight_decay", "loss", "augment", "descent")
        kept = {key: full[key] for key in keys}
        return self._stage("descend", recipe=kept, seed=int(seed), bn_refresh=self.config["bn_refresh"])

    def evaluate(self, recipe: str) -> dict[str, Any]:
        """Params of ``evaluate``."""
        return self._stage("evaluate", loss=self.recipe(recipe)["loss"])

    def directions(self, recipe: str, probe: str) -> dict[str, Any]:
        """Params of ``directions``: the kind, how many, and the loss that a gradient is of."""
        spec = self.config["probes"][probe]
        kept = {key: spec[key] for key in ("kind", "group", "train_images")}
        kept["n"] = 1 if spec["kind"] in SINGLE else spec["n"]
        return self._stage("directions", probe=kept, loss=self.recipe(recipe)["loss"])

    def probe(self, recipe: str, probe: str) -> dict[str, Any]:
        """Params of ``probe``."""
        spec = dict(self.config["probes"][probe])
        if spec["kind"] in SINGLE:
            spec["n"] = 1
        if spec["kind"] != "sign":
            spec["share"] = 0.0
        return self._stage(
            "probe", probe=spec, loss=self.recipe(recipe)["loss"], bn_refresh=self.config["bn_refresh"]
        )

    def interpolate(self, recipe: str, line: str) -> dict[str, Any]:
        """Params of ``interpolate``."""
        return self._stage(
            "interpolate",
            line=self.config["lines"][line],
            loss=self.recipe(recipe)["loss"],
            bn_refresh=self.config["bn_refresh"],
        )

    def detect(self) -> dict[str, Any]:
        """Params of ``detect``."""
        return self._stage("detect", asymmetry=self.config["asymmetry"])

    def measure_gain(self) -> dict[str, Any]:
        """Params of ``measure_gain``: its constants are in the code."""
        return self._stage("measure_gain")

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
        """Params of ``claims``."""
        return self._stage("claims", claims={**self.config["claims"], "c": self.config["asymmetry"]["c"]})

    def figure(self, figure: str) -> dict[str, Any]:
        """Params of ``figures``: the style, and the blocks that are drawn as text or marks."""
        return self._stage(
            "figures",
            style=self.config["figures"],
            swa_start={name: r["swa"]["start"] for name, r in self.config["recipes"].items()},
            c=self.config["asymmetry"]["c"],
            level=self.config["claims"]["level"],
        )

    def report(self) -> dict[str, Any]:
        """Params of ``report``."""
        return self._stage("report", figures=self.figures(), tables=self.tables())

    def provenance(self, table: str) -> dict[str, Any]:
        """Return the config blocks that decide a table's content; kept in its metadata."""
        cells = ("name", "seeds", "datasets", "models", "recipes", "grid")
        more = {
            "training": ("bn_refresh",),
            "solutions": ("bn_refresh",),
            "directions": ("bn_refresh", "probes"),
            "curves": ("bn_refresh", "probes"),
            "asymmetry": ("bn_refresh", "probes", "asymmetry"),
            "theory_measured": ("bn_refresh", "probes", "asymmetry"),
            "sensitivity": ("bn_refresh", "probes", "asymmetry"),
            "shift": ("bn_refresh", "probes"),
            "interpolation": ("bn_refresh", "lines"),
        }
        return {key: self.config[key] for key in (*cells, *more[table])}

    def results(self) -> dict[str, Any]:
        """Return the part of the config that decides results: all but style and execution."""
        return {k: v for k, v in self.config.items() if k not in ("figures", "execution")}
