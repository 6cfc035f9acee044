# What the rules read: functions of their wildcards.
import os
from dataclasses import replace


def cell_folder(cell):
    """The folder of one cell's artefacts."""
    return f"{ROOT}/cells/{cell.path}"


def cell_of(wildcards):
    """The cell that a job works on."""
    return Cell(wildcards.dataset, wildcards.model, wildcards.recipe, int(wildcards.seed))


def data_folder(wildcards):
    """The folder of the data that a cell is trained and measured on: its data set's, or its seed's own."""
    if experiment.differs_by_seed(wildcards.dataset):
        return f"{ROOT}/data/{wildcards.dataset}/seed-{wildcards.seed}"
    return f"{ROOT}/data/{wildcards.dataset}"


def train_file(wildcards):
    """The train images of a cell."""
    return f"{data_folder(wildcards)}/train.safetensors"


def test_file(wildcards):
    """The test images of a cell."""
    return f"{data_folder(wildcards)}/test.safetensors"


def iterates_folder(path):
    """The folder of a cell's iterates: one that goes when its readers are done, with execution.keep none."""
    return temp(directory(path)) if config["execution"]["keep"] == "none" else directory(path)


def solution_files(wildcards):
    """The solutions of a cell that are wanted, each in a file of its name."""
    cell = cell_of(wildcards)
    return named_files(cell, experiment.solutions_of(cell))


def named_files(cell, names):
    """The files of some of a cell's solutions."""
    return [f"{cell_folder(cell)}/{name}.safetensors" for name in names]


def start_files(wildcards):
    """The weights that training starts from, when they are another recipe's."""
    cell = experiment.start_cell(cell_of(wildcards))
    if cell is None:
        return {}
    solution = experiment.recipe(wildcards.recipe)["start_from"]["solution"]
    return {"start": f"{cell_folder(cell)}/{solution}.safetensors"}


def given_weights(wildcards):
    """The file that given weights come from: it is there, is made by another workflow's rule, or is done with."""
    cell, name = cell_of(wildcards), wildcards.solution
    path = originals.checkpoint(experiment, cell, name)
    (made,) = named_files(cell, [name])
    if not (os.path.exists(path) or os.path.exists(made) or internals.is_made(path)):
        key = f"checkpoints.{cell.recipe}.solutions.{name}"
        written = experiment.checkpoints[cell.recipe]["solutions"][name]
        raise WorkflowError(originals.no_such_weights(key, written, path))
    return schema.input_path(path)


def import_spec(wildcards):
    """Params of import_solution. A file that a rule makes needs no digest, as its time says when it changed."""
    cell, name = cell_of(wildcards), wildcards.solution
    spec = params_of.import_solution(cell.model, cell.recipe) | originals.choice(experiment, cell, name)
    return (
        spec
        if internals.is_made(originals.checkpoint(experiment, cell, name))
        else spec | originals.digest(experiment, cell, name)
    )


def probed_files(wildcards):
    """What a job of probes reads beside the data: solutions, directions that are not drawn from a seed, and swa."""
    cell = cell_of(wildcards)
    probes = experiment.bundles_of(cell)[wildcards.bundle]
    names = {name for probe in probes for name in experiment.probed_solutions(cell, probe)}
    files = {"solutions": named_files(cell, sorted(names))}
    files["directions"] = [
        f"{cell_folder(cell)}/probes/{probe}/directions.safetensors"
        for probe in probes
        if experiment.is_computed(probe)
    ]
    if any(experiment.looks_towards_swa(cell, probe) for probe in probes):
        (files["swa"],) = named_files(cell, ["swa"])
    return files


def direction_files(wildcards):
    """The solutions, and of kind pca the iterates, that a probe's computed directions are made from."""
    cell, probe = cell_of(wildcards), wildcards.probe
    files = {"solutions": named_files(cell, experiment.direction_inputs(cell, probe))}
    if KINDS[config["probes"][probe]["kind"]].iterates:
        files["iterates"] = f"{cell_folder(cell)}/iterates"
    for seed in target_seeds(wildcards):
        other = cell_folder(replace(cell, seed=seed))
        for name in experiment.probed_solutions(cell, probe):
            files[f"{name}_of_seed_{seed}"] = f"{other}/{name}.safetensors"
    return files


def line_ends(wildcards):
    """The two solutions that a line runs between; the second may be of another cell."""
    cell, line = cell_of(wildcards), config["lines"][wildcards.line]
    stop = experiment.stop_cell(cell, wildcards.line)
    if stop is None:
        raise ValleysError(f"line {wildcards.line}: no cell for its stop when it starts in {cell.path}")
    return {
        "start": f"{cell_folder(cell)}/{line['start']}.safetensors",
        "stop": f"{cell_folder(stop)}/{line['stop']}.safetensors",
    }


def line_files(wildcards):
    """What a line is measured from beside the data: its ends and, of a trained path, its bends."""
    files = line_ends(wildcards)
    if experiment.is_trained(wildcards.line):
        files["bends"] = f"{cell_folder(cell_of(wildcards))}/lines/{wildcards.line}-bends.safetensors"
    return files


def aligned_solutions(wildcards):
    """The solutions of a pair of seeds: this cell's, and the one that is aligned to it."""
    cell = cell_of(wildcards)
    other = alignment.partner(experiment, cell)
    if other is None:
        raise ValleysError(f"alignment: {cell.path} is the first of no pair; set alignment in its grid entry")
    (start,), (stop,) = (named_files(one, [alignment.SOLUTION]) for one in (cell, other))
    return {"start": start, "stop": stop}


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


def cell_parts(wildcards, table):
    """The files that make up one table of a cell."""
    cell = cell_of(wildcards)
    return [f"{cell_folder(cell)}/{part}" for part in outputs.parts(experiment, cell, table)]


def look_file(count):
    """What the look at so many seeds says of the claims, and whether more are added."""
    return f"{ROOT}/looks/{count}.parquet"


def reached():
    """The experiment that tables are of. Where seeds are added, with those of the look at which that stops.

    Until this is known, Snakemake makes the next look first and asks again.
    """
    if experiment.looks is None:
        return experiment
    for count in experiment.looks.counts:
        if stops(checkpoints.look.get(look=count).output[0]):
            break
    return experiment.at(count)


def stops(path):
    """Whether no seeds are added after a look."""
    from valleys.storage import tables

    key = path, os.stat(path).st_mtime_ns
    if key not in stops.found:
        stops.found[key] = bool(tables.read(path, "looks")["stops"][0].as_py())
    return stops.found[key]


stops.found = {}


def params_at(count):
    """Params of rules for the first so many of the seeds that are added."""
    return params_at.found.setdefault(int(count), Params(experiment.at(int(count))))


params_at.found = {}


def params_reached():
    """Params of rules for the seeds that tables are of."""
    return params_of if experiment.looks is None else params_at(len(reached().config["seeds"]))


def once_reached(files):
    """These files, when it is known which seeds they are of: for rules that read no file of a cell."""
    reached()
    return files


def look_files(wildcards):
    """What the claims are judged from at a look: files of cells by table, those of a study apart."""
    there = experiment.at(int(wildcards.look))
    files = {}
    for name in outputs.claim_tables(there):
        if name in there.studies:
            for table in ("curves", "directions", "solutions"):
                files[f"{name}/{table}"] = table_parts(table, study=name, of=there)
        elif is_stacked(name):
            files[name] = table_parts(name, of=there)
        else:
            files[name] = [f"{ROOT}/tables/{name}.parquet"]
    return files


def is_stacked(table):
    """Whether a table has the rows of files of cells."""
    return table in CELL_TABLES or table.endswith(LINES)


def parts_at(count):
    """All files of cells behind the tables of the first so many of the seeds that are added."""
    there = experiment.at(count)
    asked = [(table, None) for table in filter(is_stacked, outputs.tables(there))]
    asked += [(table, name) for name in there.studies for table in ("curves", "directions", "solutions")]
    return list(dict.fromkeys(path for table, study in asked for path in table_parts(table, study, of=there)))


def table_parts(table, study=None, of=None):
    """The files that make up one table of the whole experiment, or what a study takes from it.

    `of`: an experiment of other seeds than those of the run's tables.
    """
    of = reached() if of is None else of
    if table == "looks":
        return [look_file(count) for count in of.looks.counts if count <= len(of.config["seeds"])]
    return [
        f"{cell_folder(cell)}/{part}"
        for cell in outputs.cells_of(of, study or table)
        for part in outputs.parts(of, cell, table, study)
    ]


def all_data():
    """Every data set that a cell uses, prepared."""
    names = sorted({cell.dataset for cell in experiment.all_cells})
    return [f"{ROOT}/data/{name}/{part}.safetensors" for name in names for part in ("train", "test")]


def all_tables():
    """Every table of the experiment."""
    return [f"{ROOT}/tables/{name}.parquet" for name in outputs.tables(experiment)]


def experiment_files(name):
    """The tables and figures of one named experiment."""
    try:
        tables, figures = outputs.of_target(experiment, name)
    except ValleysError as error:
        raise WorkflowError(str(error))
    pictures = [f"{ROOT}/figures/{figure}.{kind}" for figure in figures for kind in ("png", "svg")]
    return [f"{ROOT}/tables/{table}.parquet" for table in tables] + pictures + panels_of(figures)


def panels_of(figures):
    """The folders of these figures' panels, where the config asks for panels in files of their own."""
    return [f"{ROOT}/panels/{name}" for name in figures] if "format" in config["figures"] else []


def all_figures():
    """Every figure of the experiment, as PNG and SVG."""
    return [
        f"{ROOT}/figures/{name}.{kind}" for name in outputs.figures(experiment) for kind in ("png", "svg")
    ]
