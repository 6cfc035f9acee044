"""Weights from elsewhere: a state dict of safetensors or of ``torch.save``, fitted to a model.

Nothing that a file says is run: pickles are loaded with ``weights_only=True``, and one that needs more is
refused with the way to convert it.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from valleys.errors import ValleysError
from valleys.files import require

#: Keys under which training scripts keep a state dict, in the order in which they are looked for.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
#: What wrappers put before each name: `torch.compile`, `DataParallel`, `AveragedModel`, Lightning.
PREFIXES = ("_orig_mod.", "module.", "model.", "net.")
SHOWN = 3  # names in an error


def read(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict in a file.

    Parameters
    ----------
    path
        ``.safetensors``, or what `torch.save` wrote under others (``.pt``, ``.pth``, ``.ckpt``): a state
        dict, or a mapping that has one under one of `WRAPPERS`.

    Returns
    -------
    dict
        Tensors by name, on the CPU.

    Raises
    ------
    ValleysError
        When the file is absent, corrupt, holds no state dict, or is a pickle of more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ValleysError(f"checkpoint {path} does not exist; give the path of a state dict")
    return _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValleysError(
            f"checkpoint {path} is no whole safetensors file ({error}); save it again"
        ) from error


def _pickled(path: Path) -> dict[str, Tensor]:
    require("torch")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValleysError(
            f"checkpoint {path} holds more than tensors, and code in it could be run; convert it where you "
            "trust it: torch.save(torch.load(path, weights_only=False)['state_dict'], 'new.pt'), or "
            "torch.load(...).state_dict() where the whole model was saved"
        ) from error
    except Exception as error:  # torch raises what it likes on bytes that are no checkpoint
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValleysError(
            f"checkpoint {path} cannot be read ({reason}); save the state dict again"
        ) from error
    state = _unwrapped(found)
    if state is None:
        named = isinstance(found, Mapping)
        keys = ", ".join(map(repr, list(found)[:SHOWN])) if named else type(found).__name__
        raise ValleysError(
            f"checkpoint {path} is no state dict and has none under {', '.join(WRAPPERS)}; it holds {keys}"
        )
    return state


def _unwrapped(found: Any) -> dict[str, Tensor] | None:
    """Return the state dict that `found` is or holds, if any."""
    if not isinstance(found, Mapping):
        return None
    if found and all(isinstance(value, Tensor) for value in found.values()):
        return {str(name): tensor for name, tensor in found.items()}
    for key in WRAPPERS:
        if (state := _unwrapped(found.get(key))) is not None:
            return state
    return None


def fit(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict into a model of the same parameters, whatever a wrapper put before their names.

    Tensors are cast to the model's types. ``n_averaged`` of `AveragedModel` is left out, and a batch-norm
    layer's ``num_batches_tracked`` may be missing; all else must be there, in the right shape.

    Parameters
    ----------
    model
        Changed in place.
    state
        As `read` returned it.
    where
        Names the file in errors.

    Raises
    ------
    ValleysError
        When names or shapes differ from the model's (the first few are named), or a value is not finite.
    """
    own = model.state_dict()
    state = _without_prefixes({n: t for n, t in state.items() if n != "n_averaged"}, own)
    counts = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")}
    state = {**counts, **state}
    problems = []
    for text, names in (
        ("lacks", [name for name in own if name not in state]),
        ("has beside the model's", [name for name in state if name not in own]),
    ):
        if names:
            problems.append(f"{text} {_some(names)}")
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if shapes:
        problems.append(f"has {_some(shapes)}")
    if problems:
        raise ValleysError(f"checkpoint {where} does not fit the model: it {' and '.join(problems)}")
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValleysError(f"checkpoint {where}: {name} has values that are not finite")
    model.load_state_dict(state)


def _without_prefixes(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off what all names begin with and the model's do not."""
    while not set(state) & set(own):
        prefix = next((p for p in PREFIXES if state and all(name.startswith(p) for name in state)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
