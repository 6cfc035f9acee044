"""What an experiment makes: tables, figures, targets, and the files of a cell; entries are in `catalogue`."""

from __future__ import annotations

from valleys.config.alignment import partner
from valleys.config.averages import averages_of
from valleys.config.catalogue import FIGURES, LINES, TABLES, TARGETS, Figure, Table
from valleys.config.cells import Cell, Cells
from valleys.errors import ValleysError


def study_tables(experiment: Cells) -> list[str]:
    """Return the names of the tables of studies."""
    lines = [study for study in experiment.studies if experiment.study_lines(study)]
    return [*experiment.studies, *(f"{study}{LINES}" for study in lines)]


def tables(experiment: Cells) -> list[str]:
    """Return the names of the tables an experiment makes."""
    return [*_asked(experiment), *study_tables(experiment), "claims", "verdicts"]


def _asked(experiment: Cells) -> dict[str, Table]:
    """Return the tables of the catalogue that an experiment makes."""
    blocks = [experiment.config, *experiment.config["grid"], {"until": experiment.looks}]
    return {
        name: one
        for name, one in TABLES.items()
        if not one.asked or any(block.get(one.asked) for block in blocks)
    }


def claim_tables(experiment: Cells) -> list[str]:
    """Return the names of the tables that claims are judged from."""
    asked = _asked(experiment).items()
    return [*(name for name, table in asked if table.claims), *study_tables(experiment)]


def figure_tables(experiment: Cells) -> dict[str, list[str]]:
    """Return the figures an experiment makes, each with the tables it is drawn from."""
    made = _asked(experiment)
    return {
        name: needed
        for figure in FIGURES.values()
        if made.keys() >= set(figure.tables)
        for name, needed in _figures_of(experiment, figure).items()
    }


def figures(experiment: Cells) -> list[str]:
    """Return the names of the figures an experiment makes."""
    return list(figure_tables(experiment))


def _figures_of(experiment: Cells, figure: Figure) -> dict[str, list[str]]:
    """Return the figures of one kind, each with its tables."""
    tables, config = list(figure.tables), experiment.config
    if figure.part == "line":
        return {
            f"{figure.name}-{line}": found
            for line in config["lines"]
            if (found := _with_line(experiment, line))
        }
    if figure.part == "study":
        return {f"{figure.name}-{study}": [*tables, study] for study in experiment.studies}
    if figure.part == "plane":
        return {f"{figure.name}-{plane}": tables for plane in config["planes"]}
    if figure.part == "probe":
        together = {other.probes for other in FIGURES.values()}  # kinds with one figure of all probes
        kinds = experiment.grid_probes
        return {f"{figure.name}-{name}": tables for name, kind in kinds.items() if kind not in together}
    if figure.probes and figure.probes not in experiment.grid_probes.values():
        return {}
    return {figure.name: tables}


def _with_line(experiment: Cells, line: str) -> list[str]:
    """Return the tables that have rows of a line."""
    grid = any(line in experiment.lines_of(cell) for cell in experiment.cells)
    studies = [study for study in experiment.studies if line in experiment.study_lines(study)]
    return [*(FIGURES["line"].tables if grid else ()), *(f"{study}{LINES}" for study in studies)]


def of_target(experiment: Cells, name: str) -> tuple[list[str], list[str]]:
    """Return the tables and the figures that are made by the name of a target or study.

    Straight lines within a cell belong to ``swa``, all other lines of the grid's cells to ``basin``, as
    does a study of that name.

    Raises
    ------
    ValleysError
        For a target of simulations, where the config leaves them out.
    """
    made = _asked(experiment)
    tables: list[str] = []
    figures: list[str] = []
    if name in experiment.studies:
        lines = experiment.study_lines(name)
        tables = [name, *([f"{name}{LINES}"] if lines else [])]
        figures = [f"study-{name}", *(f"line-{line}" for line in lines)]
        if name != "basin":
            return tables, figures
    elsewhere = {
        f"line-{line}"
        for line in experiment.config["lines"]
        if (experiment.leaves_cell(line) or experiment.is_trained(line)) != (name == "basin")
    }
    kinds = [
        kind for kind in FIGURES.values() if name == kind.target or (name == "basin" and kind.part == "line")
    ]
    needed = [*TARGETS[name], *(table for kind in kinds for table in kind.tables)]
    if not made.keys() >= set(needed):
        raise ValleysError(f"target {name} is left out by the config's simulations: false; set it to true")
    tables += needed
    with_target = {"averages": "swa", "alignment": "basin"}
    tables += [table for table in made if with_target.get(table) == name]
    figures += [
        figure
        for kind in kinds
        for figure in _figures_of(experiment, kind)
        if figure not in {*elsewhere, *figures}
    ]
    return list(dict.fromkeys(tables)), figures


def cells_of(experiment: Cells, table: str) -> list[Cell]:
    """Return the cells whose rows a table stacks: the grid's, or a study's.

    Tables of searches have both, as one claim is about all minima that were searched at.
    """
    study = table.removesuffix(LINES)
    if study in experiment.studies:
        return sorted(experiment.studies[study])
    if table in TABLES and TABLES[table].per == "search":
        of_studies = {cell for study in searching_studies(experiment) for cell in experiment.studies[study]}
        return [*experiment.cells, *sorted(of_studies - set(experiment.cells))]
    return experiment.cells


def searching_studies(experiment: Cells) -> list[str]:
    """Return the studies that have a probe of kind searched."""
    return [
        study
        for study in experiment.studies
        if any(map(experiment.is_searched, experiment.study_probes(study)))
    ]


def parts(experiment: Cells, cell: Cell, table: str, study: str | None = None) -> list[str]:
    """Return the files, below a cell's folder, that hold its rows of a table.

    With `study`, only those with its probes: a cell may be probed for the grid or other studies as well.
    """
    per = "line" if table.endswith(LINES) else TABLES[table].per
    if per == "phase":  # given weights were not trained here
        if experiment.from_checkpoints(cell.recipe):
            return []
        return [
            f"{table}.parquet",
            *(
                f"{phase}.parquet"
                for phase, solution in (("cooldown", "sgd"), ("descent", "descent"))
                if solution in experiment.solutions_of(cell)
            ),
        ]
    if per == "bundle":
        bundles = experiment.bundles_of(cell)
        if study is not None:
            wanted = set(experiment.study_probes(study))
            bundles = {name: probes for name, probes in bundles.items() if wanted & set(probes)}
        return [f"probes/{bundle}/{table}.parquet" for bundle in bundles]
    if per == "search":
        searched = filter(experiment.is_searched, experiment.probes_of(cell))
        return [f"probes/{probe}/{table}.parquet" for probe in searched]
    if per == "averages":
        return [f"{table}.parquet"] if averages_of(experiment, cell) else []
    if per == "pair":
        return [f"{table}.parquet"] if partner(experiment, cell) else []
    if per == "line":
        return [f"lines/{line}.parquet" for line in experiment.lines_of(cell)]
    if per == "plane":
        return [f"planes/{plane}/{table}.parquet" for plane in experiment.planes_of(cell)]
    return [f"{table}.parquet"]
