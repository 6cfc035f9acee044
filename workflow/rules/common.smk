# The checked experiment, and the input functions that the rules share.
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str((Path(str(workflow.current_basedir)) / "../scripts").resolve()))

from snakemake.exceptions import WorkflowError
from valleys import config as valleys_config
from valleys.errors import ValleysError

try:
    valleys_config.check(config)
    validate(config, "../schemas/config.schema.yaml")
    experiment = valleys_config.Experiment(config)
    valleys_config.check_writable(experiment.root)
except ValleysError as error:
    raise WorkflowError(str(error))

ROOT = experiment.root
CELL = f"{ROOT}/cells/{{dataset}}/{{model}}/{{recipe}}/seed-{{seed}}"
LOGS = f"{ROOT}/logs/{{dataset}}/{{model}}/{{recipe}}/seed-{{seed}}"
BENCHMARKS = f"{ROOT}/benchmarks/{{dataset}}/{{model}}/{{recipe}}/seed-{{seed}}"
GPU = int(config["execution"]["device"] == "cuda")


wildcard_constraints:
    dataset=r"[^/]+",
    model=r"[^/]+",
    recipe=r"[^/]+",
    seed=r"\d+",
    solution="sgd|swa|descent",
    probe=r"[^/]+",
    line=r"[^/]+",
    plane=r"[^/]+",
    table=r"[a-z0-9_]+",
    figure=r"[A-Za-z0-9_.-]+",


def cell_folder(cell):
    """The folder of one cell's artefacts."""
    return f"{ROOT}/cells/{cell.path}"


def cell_of(wildcards):
    """The cell that a job works on."""
    return valleys_config.Cell(wildcards.dataset, wildcards.model, wildcards.recipe, int(wildcards.seed))


def solution_files(wildcards):
    """The refreshed solutions of a cell, by name."""
    return {name: f"{CELL.format(**wildcards)}/{name}.safetensors" for name in valleys_config.SOLUTIONS}


def probed_files(wildcards):
    """What a probe reads beside the data: its solutions and, if they are not drawn from a seed, its directions."""
    cell = CELL.format(**{k: v for k, v in wildcards.items() if k != "probe"})
    probe = config["probes"][wildcards.probe]
    files = {name: f"{cell}/{name}.safetensors" for name in probe["solutions"]}
    if experiment.is_computed(wildcards.probe):
        files["directions"] = f"{cell}/probes/{wildcards.probe}/directions.safetensors"
    return files


def direction_files(wildcards):
    """The solutions that a probe's computed directions are made from."""
    cell = CELL.format(**{k: v for k, v in wildcards.items() if k != "probe"})
    files = {name: f"{cell}/{name}.safetensors" for name in experiment.direction_inputs(wildcards.probe)}
    for seed in target_seeds(wildcards):
        other = cell_folder(replace(cell_of(wildcards), seed=seed))
        for name in config["probes"][wildcards.probe]["solutions"]:
            files[f"{name}_of_seed_{seed}"] = f"{other}/{name}.safetensors"
    return files


def plane_files(wildcards):
    """What a plane reads beside the data and the solutions: iterates, or directions that are not drawn from a seed."""
    cell = CELL.format(**{k: v for k, v in wildcards.items() if k != "plane"})
    files = {"iterates": f"{cell}/iterates"} if config["planes"][wildcards.plane]["pca"] else {}
    for axis, (probe, _) in zip("xy", experiment.spanning(wildcards.plane)):
        if experiment.is_computed(probe):
            files[f"directions_{axis}"] = f"{cell}/probes/{probe}/directions.safetensors"
    return files


def target_seeds(wildcards):
    """The seeds whose solutions a probe's directions lead to; none for most kinds."""
    return experiment.target_seeds(cell_of(wildcards), wildcards.probe)


def probe_tables(wildcards, table):
    """One table of every probe that applies to a cell."""
    cell = cell_of(wildcards)
    return [f"{cell_folder(cell)}/probes/{probe}/{table}.parquet" for probe in experiment.probes_of(cell)]


def table_parts(table):
    """The files that make up one table of the whole experiment."""
    return [
        f"{cell_folder(cell)}/{part}" for cell in experiment.cells for part in experiment.parts(cell, table)
    ]


def all_tables():
    """Every table of the experiment."""
    return [f"{ROOT}/tables/{name}.parquet" for name in experiment.tables()]


def experiment_files(name):
    """The tables and figures of one named experiment."""
    tables, figures = experiment.named(name)
    pictures = [f"{ROOT}/figures/{figure}.{kind}" for figure in figures for kind in ("png", "svg")]
    return [f"{ROOT}/tables/{table}.parquet" for table in tables] + pictures


def all_figures():
    """Every figure of the experiment, as PNG and SVG."""
    return [f"{ROOT}/figures/{name}.{kind}" for name in experiment.figures() for kind in ("png", "svg")]
