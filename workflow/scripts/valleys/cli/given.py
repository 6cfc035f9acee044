"""Data, networks and weights that the command line names."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valleys.cli.requests import parse_block
from valleys.config.experiment import Cell
from valleys.data.tasks import CLASSIFICATION, said
from valleys.errors import ValleysError
from valleys.storage import files
from valleys.storage.weights import checksum, load_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from valleys.data.split import Split

_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_HEADER = {"model": dict, "in_shape": list, "classes": int, "solution": str, "cell": str, "task": str}
_HEADER |= {"iterates": int, "bn_policy": str}  # what a weights file says of itself
_MAX_BYTES = 16e9  # of images: what execution.max_data_gb is by default
_CONFIG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # as the schema has it


@dataclass(frozen=True)
class Given:
    """What ``--weights``, ``--data`` and ``--model`` name, read.

    Attributes
    ----------
    net, about
        The network in eval mode, and what the file says of it (`read_model`).
    splits
        Train and test images, on `device`.
    dataset, source
        The data set's name, and what made it (`read_data`).
    contents
        Checksums of the images.
    device
        Where all of it is.
    """

    net: nn.Module
    about: dict[str, Any]
    splits: tuple[Split, Split]
    dataset: str
    source: dict[str, Any]
    contents: list[str]
    device: torch.device

    def cell(self, about: Mapping[str, Any], seed: int = 0) -> Cell:
        """Return the cell that the tables name for weights of this network, by what their file says."""
        network = self.about["model"]
        return cell_of(about, self.dataset, str(network.get("arch", network.get("factory", "model"))), seed)


def read(weights: Path, data: str, model: str | None, device: str) -> Given:
    """Read images, network and weights, and put them on a device.

    Parameters
    ----------
    weights, data, model
        As `read_model`, `read_data` and `parse_block` take them.
    device
        ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    ValleysError
        As these do.
    """
    from valleys.execution import jobs

    jobs.keep_memory()
    where = jobs.pick_device({"execution": {"device": device}})
    splits, dataset, source = read_data(data)
    contents = source.get("prepared") or [split.checksum() for split in splits]
    splits = tuple(split.to(where) for split in splits)
    spec = None if model is None else parse_block(model, "arch", "model")
    net, about = read_model(weights, spec, splits[0], where)
    return Given(net, about, splits, dataset, source, contents, where)


def read_data(text: str) -> tuple[tuple[Split, Split], str, dict[str, Any]]:
    """Return train and test images, the data set's name, and what made them.

    Parameters
    ----------
    text
        A data source as `parse_block` takes it, or a folder with ``train.safetensors`` and
        ``test.safetensors``, as the workflow prepares them below ``results/<name>/data``; those of one seed
        are in a folder in that of the data set.

    Raises
    ------
    ValleysError
        When the source or its files are not right.
    """
    from valleys.data.cache import RESIDENT_MB, load_split, read_metadata
    from valleys.data.sources import load

    folder = files.expand(text)
    paths = [folder / f"{part}.safetensors" for part in ("train", "test")]
    if folder.is_dir() and not all(path.is_file() for path in paths):
        raise ValleysError(
            f"--data: folder {folder} lacks train.safetensors or test.safetensors; give one that the "
            "workflow prepared, or a source, as in digits:train_size=800"
        )
    if folder.is_dir():
        abouts, whole = [read_metadata(path) for path in paths], folder.resolve()
        train, test = (load_split(path, resident_mb=RESIDENT_MB) for path in paths)
        name = whole.parent.name if "seed" in abouts[0] else whole.name
        return (train, test), name_of(name), {"prepared": [about["checksum"] for about in abouts]}
    block = parse_block(text, "source", "data")
    name = name_of(str(block.get("source", "data")))
    return load.load_source(block, name, _MAX_BYTES), name, block


def read_model(
    weights: Path, spec: Mapping[str, Any] | None, train: Split, device: Any, *, of_this: bool = False
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network with its weights, in eval mode, and what the file says about them.

    Parameters
    ----------
    weights
        A solution of the workflow, which knows its own model, or a state dict as `checkpoints.read` takes it.
        ``#`` and a key at the end choose one of several.
    spec
        The model's config block; None takes the file's.
    train
        Gives shape of the images and number of classes.
    of_this
        For ``--to``: whether a file that names another model than `spec` is refused.

    Raises
    ------
    ValleysError
        When the file cannot be read, no model is known, or it fits neither the weights nor the images.
    """
    from valleys import factories
    from valleys.models import checkpoints, solutions, state_dicts

    found, about = state_dicts.find(weights), _header(weights)
    theirs = about.get("model", spec)
    if of_this and theirs != spec:
        ours, theirs = (json.dumps(one) for one in (spec, theirs))
        raise ValleysError(
            f"--to: {weights} is of the network {theirs}, --weights of {ours}; give two of one network"
        )
    if spec is None and "model" not in about:
        raise ValleysError(
            f"--model: {weights} does not say which model it is of; name one, as in preresnet:depth=20"
        )
    if spec is None and "factory" in about["model"]:  # the file may be a stranger's
        raise ValleysError(
            f"--model: {weights} names the factory {about['model']['factory']!r}, code that would be run; if "
            f"you trust it, give it yourself: --model '{json.dumps(about['model'])}'"
        )
    if "in_shape" in about:
        task = about.get("task", CLASSIFICATION)
        theirs, ours = (tuple(about["in_shape"]), about["classes"]), (train.in_shape, train.classes)
        if task != train.task:
            raise ValleysError(
                f"--data: its task is {train.task}, but {weights} is of a network for {task}; say task={task}"
            )
        if theirs != ours:
            raise ValleysError(
                f"--data: its images have shape {ours[0]} and {ours[1]} classes; {weights} is of a "
                f"network for images {theirs[0]} and {theirs[1]} classes"
            )
    spec = about["model"] if spec is None else spec
    net = solutions.fresh(spec, *train.kind, device=device)
    taken = checkpoints.load(net, found, str(weights))
    now = {"model": spec, "in_shape": train.in_shape, "classes": train.classes}
    now |= said(train.task)
    now["code"] = factories.version(spec["factory"]) if "factory" in spec else None  # that which was built
    known = {"solution": "given", "iterates": 0, **about, **now, "read": f"{weights}: {taken}"}
    if not _CONFIG_NAME.fullmatch(str(known["solution"])):  # names files
        known["solution"] = "given"
    return net.eval(), known | {"checksum": checksum(net.state_dict())}


def _header(weights: Path) -> dict[str, Any]:
    """Return what a weights file says of itself; nothing where it is none of the workflow's.

    Raises
    ------
    ValleysError
        When it cannot be read, or does not make sense.
    """
    path = files.split_choice(weights)[0]
    if path.suffix != ".safetensors" or zipfile.is_zipfile(path):
        return {}
    about = load_weights(path)[1]  # with its checksum, if it has one
    wrong = [key for key, kind in _HEADER.items() if key in about and not isinstance(about[key], kind)]
    if wrong or ("in_shape" in about) != ("classes" in about):
        raise ValleysError(
            f"{weights}: its header has no sound {wrong[0] if wrong else 'in_shape and classes'}; it is "
            "none of the workflow's"
        )
    return about


def name_of(text: str) -> str:
    """Return a text as a name that may stand in a path."""
    return _NAME.sub("-", text).strip("-.") or "given"


def cell_of(about: Mapping[str, Any], dataset: str, model: str, seed: int) -> Cell:
    """Return the cell that the tables name: the workflow's own where the weights came from it."""
    name = f"({_CONFIG_NAME.pattern})"
    found = re.fullmatch(rf"{name}/{name}/{name}/seed-([0-9]{{1,19}})", str(about.get("cell", "")))
    return Cell(*found.groups()[:3], int(found[4])) if found else Cell(dataset, name_of(model), "given", seed)
