"""The files of the weights that are averaged: their names, and those that were dropped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from valleys.errors import ValleysError
from valleys.storage import files
from valleys.storage.weights import load_weights
from valleys.training.schedule import kept_epochs

DROPPED = "dropped.json"


def note_dropped(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Leave a note in a folder of iterates that lacks some of a recipe's, for `iterate_files` to find."""
    lacking = [epoch for epoch in kept_epochs(recipe) if not (folder / iterate_name(epoch)).exists()]
    if lacking:
        files.write_text(folder / DROPPED, json.dumps({"epochs": lacking}) + "\n")


def iterate_files(
    folder: str | Path, window: int | None = None, epochs: Sequence[int] | None = None
) -> list[Path]:
    """Return the files of the iterates, in order of their epochs.

    Parameters
    ----------
    folder
        As `train` filled it.
    window
        The last so many; ``None``: all of the recipe's.
    epochs
        The epochs of the recipe's iterates (`kept_epochs`), to check that none of those wanted is missing.

    Raises
    ------
    ValleysError
        When the folder was thinned (``execution.keep``) to fewer than that, or has lost one.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("epoch-*.safetensors"))
    if (folder / DROPPED).exists() and (window is None or window > len(paths)):
        raise ValleysError(
            f"iterates folder {folder} keeps the last {len(paths)} iterates (execution.keep) and "
            f"{'all' if window is None else window} are wanted; delete it to train again"
        )
    wanted = list(epochs or ())[-window:] if window else list(epochs or ())
    lacking = [name for name in map(iterate_name, wanted) if not (folder / name).is_file()]
    if lacking:
        raise ValleysError(f"iterates folder {folder} lacks {lacking[0]}; delete the folder to train again")
    return paths[-window:] if window else paths


def read_iterates(folder: str | Path, recipe: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the epoch and the state dict of each iterate of a recipe, in order (`iterate_files`)."""
    for path in iterate_files(folder, epochs=kept_epochs(recipe)):
        state, header = load_weights(path, ours=True)
        yield header["epoch"], state


def publish_iterates(state: Path, folder: Path, recipe: Mapping[str, Any]) -> None:
    """Move the iterates of a finished training to `folder` and delete its `state` folder."""
    note_dropped(state / "iterates", recipe)
    # First the checkpoint: one without the iterates that it has behind it must not be resumed from.
    (state / "checkpoint.pt").unlink(missing_ok=True)
    files.publish_folder(state / "iterates", folder)
    shutil.rmtree(state)


def iterate_name(epoch: int) -> str:
    """Return the file name of an epoch's weights."""
    return f"epoch-{epoch:05d}.safetensors"
