"""Stored solutions: weights that know their own model, data shape and place in the workflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from valleys import files, models
from valleys.errors import ValleysError


def save(path: str | Path, state: Mapping[str, Tensor], about: Mapping[str, Any], **more: Any) -> None:
    """Write a state dict with what is needed to build its model.

    Parameters
    ----------
    about
        ``model`` (checked spec), ``in_shape``, ``classes``, ``solution`` and whatever came with it.
    more
        Entries that replace those in `about`.
    """
    files.save_weights(
        path, state, {key: value for key, value in {**about, **more}.items() if key != "checksum"}
    )


def load(path: str | Path, device: torch.device | str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """Build the model of a stored solution and load its weights; eval mode, on `device`.

    Raises
    ------
    ValleysError
        When the file is corrupt, was not written by this workflow, or does not fit its model.
    """
    state, about = files.load_weights(path)
    missing = [key for key in ("model", "in_shape", "classes") if key not in about]
    if missing:
        raise ValleysError(f"weights file {path} has no {', '.join(missing)} in its header; rerun train_sgd")
    model = fresh(about["model"], tuple(about["in_shape"]), about["classes"], device=device)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValleysError(f"weights file {path} does not fit its model: {reason}") from error
    return model.eval(), about


def by_name(paths: Iterable[str]) -> dict[str, str]:
    """Return the files of solutions by name: each is called as its solution is, which may be by any word."""
    return {Path(path).stem: path for path in paths}


def fresh(
    spec: Mapping[str, Any],
    in_shape: tuple[int, int, int],
    classes: int,
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
    model = models.build(spec, in_shape=in_shape, classes=classes)
    widths = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    # Convolutions of 4 channels run at half the speed channels-last on a CPU; wider ones gain from it.
    contiguous = "factory" in spec or (bool(widths) and min(widths) < 8)
    layout = torch.contiguous_format if contiguous else torch.channels_last
    return model.to(device=device, memory_format=layout)
