"""Files that the user gives: checkpoints of solutions and what data sets are read from, and their digests."""

from __future__ import annotations

import os
from pathlib import Path

from valleys.config.cells import Cell, Cells
from valleys.data.options import DATASET_OPTIONS, originals
from valleys.storage import files
from valleys.storage.weights import read_about


def no_such_weights(key: str, written: str, path: str) -> str:
    """Return the line on given weights that are not there.

    Parameters
    ----------
    key, written
        Of the config.
    path
        What `written` stands for: filled in, of a cell, with ``~`` expanded.
    """
    meant = "" if path == written else f", here {path}"
    where = "" if Path(path).is_absolute() else f" (seen from {Path.cwd()})"
    return f"config: {key}: {written}{meant}: there is no such file{where}; give the path of a state dict"


def _given_text(experiment: Cells, cell: Cell, solution: str) -> str:
    """Return where a solution of a cell with given weights comes from: a file, and what of it."""
    text = experiment.checkpoints[cell.recipe]["solutions"][solution]
    for key, value in cell.columns().items():
        text = text.replace(f"{{{key}}}", str(value))
    return os.path.expanduser(text)  # noqa: PTH111 (the text stays as it is: Snakemake compares it)


def checkpoint(experiment: Cells, cell: Cell, solution: str) -> str:
    """Return the file that a solution of a cell with given weights comes from."""
    return str(files.checkpoint_file(files.split_choice(_given_text(experiment, cell, solution))[0]))


def shards(experiment: Cells, cell: Cell, solution: str) -> list[str]:
    """Return the files that an index of shards names; none for a checkpoint in one file.

    Raises
    ------
    ValleysError
        When the checkpoint is there and no regular file, or no sound index.
    """
    path = Path(checkpoint(experiment, cell, solution))
    if not os.path.lexists(path):
        return []
    files.check_regular(path, "checkpoint")  # Snakemake opens it too
    return sorted({str(shard) for shard in files.shards(path).values()})


def choice(experiment: Cells, cell: Cell, solution: str) -> dict[str, str]:
    """Return ``choice``: what is read of a checkpoint with several sets of weights, from ``#`` on."""
    choice = files.split_choice(_given_text(experiment, cell, solution))[1]
    return {} if choice is None else {"choice": f"#{choice}"}


def digest(experiment: Cells, cell: Cell, solution: str) -> dict[str, str]:
    """Return ``original``: what names the contents of a checkpoint's files (`files.digest`).

    Of one that has been read and is gone, what the solution that was made of it says.
    """
    path = Path(checkpoint(experiment, cell, solution))
    if path.is_file():
        found = [files.digest(path), *map(files.digest, shards(experiment, cell, solution))]
        return {"original": files.fingerprint(found)}
    made = Path(experiment.root) / "cells" / cell.path / f"{solution}.safetensors"
    known = read_about(made).get("original")
    return {"original": known} if known else {}


def same_weights(
    experiment: Cells, cell: Cell, solution: str, other: Cell, other_solution: str
) -> str | None:
    """Return why two solutions are sure to be the same weights, if they are."""
    ends = ((cell, solution), (other, other_solution))
    if all(experiment.from_checkpoints(at.recipe) and name in experiment.available(at) for at, name in ends):
        chosen = [files.split_choice(_given_text(experiment, *end)) for end in ends]
        (first, at), (second, there) = ((os.path.realpath(path), choice) for path, choice in chosen)
        if (first, at) == (second, there):
            return (
                f"both are read from {_given_text(experiment, cell, solution)}; give two files, or with "
                "file.pt#key two sets of weights in one"
            )
    if (
        cell == other
        and {solution, other_solution} == {"last", "swa"}
        and not experiment.from_checkpoints(cell.recipe)
    ):
        recipe = experiment.recipes[cell.recipe]
        swa, made = recipe["swa"], experiment.all_iterates(cell.recipe)
        if min(swa["window"] or made, made) == 1 and not (recipe["epochs"] - swa["start"]) % swa["every"]:
            return (
                f"swa of recipe {cell.recipe} is the mean of one iterate, the last epoch's, which is "
                "last; lower swa.start or raise swa.window"
            )
    return None


def source_files(experiment: Cells, dataset: str) -> list[str]:
    """Return the files a data set is read from that exist now (of folders: `source_digests`)."""
    return [path for path in originals(experiment.datasets[dataset]) if Path(path).is_file()]


def source_digests(experiment: Cells, dataset: str) -> list[str]:
    """Return what names the contents of each file and folder a data set is read from (`files.digest`).

    Of a folder of images each one is asked for its size and time.
    """
    spec = experiment.datasets[dataset]
    suffixes, found = DATASET_OPTIONS[spec["source"]].suffixes, map(Path, originals(spec))
    return [files.digest(path, suffixes) for path in found if path.is_file() or path.is_dir()]
