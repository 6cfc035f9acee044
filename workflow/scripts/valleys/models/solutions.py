"""Stored solutions: weights that know their own model, data shape and place in the workflow."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from valleys.data.split import Split
from valleys.data.tasks import CLASSIFICATION, said
from valleys.errors import ValleysError
from valleys.models import builder
from valleys.networks import copies
from valleys.networks.batch_norm import check_bn
from valleys.storage import files
from valleys.storage.weights import load_weights, save_weights

log = logging.getLogger("valleys")


def save(path: str | Path, state: Mapping[str, Tensor], about: Mapping[str, Any], **more: Any) -> None:
    """Write a state dict with what is needed to build its model.

    Parameters
    ----------
    about
        ``model`` (checked spec), ``in_shape``, ``classes``, ``solution`` and whatever came with it.
    more
        Entries that replace those in `about`.
    """
    save_weights(path, state, {key: value for key, value in {**about, **more}.items() if key != "checksum"})


def load(path: str | Path, device: torch.device | str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """Build the model of a stored solution and load its weights; eval mode, on `device`.

    Raises
    ------
    ValleysError
        When the file is corrupt, was not written by this workflow, or does not fit its model.
    """
    state, about = load_weights(path)
    missing = [key for key in ("model", "in_shape", "classes") if key not in about]
    if missing:
        raise ValleysError(f"weights file {path} has no {', '.join(missing)} in its header; rerun train_sgd")
    task = about.get("task", CLASSIFICATION)
    model = fresh(about["model"], tuple(about["in_shape"]), about["classes"], task, device=device)
    try:
        copies.load(model, state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValleysError(f"weights file {path} does not fit its model: {reason}") from error
    return model.eval(), about


def describe(spec: Mapping[str, Any], split: Split, cell: str) -> dict[str, Any]:
    """Return what a stored solution says of itself, for `save`.

    Parameters
    ----------
    spec
        A rule's params: ``model`` and, if they are there, ``code`` (of a user's own network) and ``original``
        (the file that its weights were taken from).
    split
        Of the data.
    cell
        Path of its place in the workflow.
    """
    about = {"model": spec["model"], "in_shape": split.in_shape, "classes": split.classes, "cell": cell}
    about |= said(split.task)
    return about | {key: spec[key] for key in ("code", "original") if key in spec}


def identity(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the function that a stored solution is: its weights alone do not.

    Parameters
    ----------
    about
        A solution's metadata, as `load` returns it.

    Returns
    -------
    dict
        ``model`` (spec), ``code`` (of a user's own network: names its source), ``in_shape``, ``classes`` and
        ``checksum`` (of the weights).
    """
    return {key: about.get(key) for key in ("model", "code", "in_shape", "classes", "checksum")}


def state_key(
    spec: Any, about: Iterable[Mapping[str, Any]], data: Iterable[str], arithmetic: str, **more: Any
) -> dict[str, Any]:
    """Return the key of state that a job may resume from (`state_folder`): all that it goes by.

    Parameters
    ----------
    spec
        What decides the result of the stage's params, its version included.
    about
        Metadata of each solution that is read, in order.
    data
        Checksum of each part of the data set that is read.
    arithmetic
        What the last bits hang on (`valleys.execution.jobs.arithmetic`).
    more
        What else is read.
    """
    solutions = [identity(one) for one in about]
    return {"spec": spec, "solutions": solutions, "data": list(data), "arithmetic": arithmetic, **more}


def load_all(
    paths: Iterable[str], device: torch.device | str = "cpu"
) -> tuple[dict[str, nn.Module], dict[str, dict[str, Any]]]:
    """Return the networks and the metadata of solutions by name (`by_name`, `load`)."""
    loaded = {name: load(path, device) for name, path in by_name(paths).items()}
    return {n: net for n, (net, _) in loaded.items()}, {n: about for n, (_, about) in loaded.items()}


def by_name(paths: Iterable[str]) -> dict[str, str]:
    """Return the files of solutions by name: each is called as its solution is, which may be by any word."""
    return {Path(path).stem: path for path in paths}


def to_train(
    start: str | Path | None,
    spec: Mapping[str, Any],
    split: Split,
    *,
    seed: int,
    device: torch.device | str = "cpu",
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Return a network to train and the metadata of what it starts from: a solution's file, or nothing.

    Raises
    ------
    ValleysError
        As `load`; for batch norm whose statistics could not be refreshed after training (`check_bn`).
    """
    if start:
        model, about = load(start, device)
        log.info("starting from %s of %s", about["solution"], about["cell"])
    else:
        about = None
        model = fresh(spec, *split.kind, seed=seed, device=device)
    check_bn(model)
    log.info("%d parameters on %s", sum(p.numel() for p in model.parameters()), device)
    return model, [about] if about else []


def fresh(
    spec: Mapping[str, Any],
    in_shape: tuple[int, ...],
    classes: int,
    task: str = CLASSIFICATION,
    *,
    seed: int | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Build a model; with `seed`, its initial weights are those of that seed on every device.

    Convolutions run channels-last, but for narrow ones and for a user's own network: code like
    ``x.view(len(x), -1)`` fails on that layout.
    """
    if seed is not None:
        torch.manual_seed(files.stable_seed("init", seed))
    model = builder.build(spec, in_shape=in_shape, classes=classes, task=task)
    widths = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    # Convolutions of 4 channels run at half the speed channels-last on a CPU; wider ones gain from it.
    contiguous = "factory" in spec or (bool(widths) and min(widths) < 8)
    layout = torch.contiguous_format if contiguous else torch.channels_last
    return model.to(device=device, memory_format=layout)
