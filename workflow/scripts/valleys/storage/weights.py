"""Weights as safetensors, with a checksum and what is known of them; no network is built here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valleys.errors import ValleysError

if TYPE_CHECKING:
    from torch import Tensor
from valleys.storage.files import SEAL, atomic, fingerprint

_HEADER = "valleys"  # the one entry of a weights file's header


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes of `tensors`, in name order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f".encode())
        digest.update(tensor.reshape(-1).view(dtype=_byte_type()).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def _byte_type() -> Any:
    import torch

    return torch.uint8


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] = {}) -> None:
    """Write a state dict as safetensors, with its checksum and JSON-able `metadata` in the header.

    All metadata is one header entry, sorted JSON: safetensors orders several entries at random. It carries a
    fingerprint of its own beside the tensors' checksum.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = json.loads(json.dumps({**metadata, "checksum": checksum(tensors)}))  # as it will be read
    header[SEAL] = fingerprint(header)
    with atomic(path) as temporary:
        try:
            save_file(tensors, str(temporary), metadata={_HEADER: json.dumps(header, sort_keys=True)})
        except SafetensorError as error:
            raise OSError(str(error)) from error


def load_weights(
    path: str | Path, verify: bool = True, *, ours: bool = False
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights written by `save_weights`: the tensors and the metadata, `checksum` among it.

    A file that `save_weights` did not write has empty metadata, and its tensors are not verified.

    Parameters
    ----------
    ours
        Refuse such a file: one of this workflow's may have lost its metadata to a flipped bit.

    Raises
    ------
    ValleysError
        When the file is absent, truncated, not safetensors, or its bytes do not match its checksum.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ValleysError(f"weights file {path} does not exist; rerun the rule that makes it")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(_HEADER, "{}"))
            if not isinstance(metadata, dict):
                raise ValueError("its header holds no mapping")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise ValleysError(
            f"weights file {path} is truncated or corrupt ({error}); delete it and rerun"
        ) from error
    seal = metadata.pop(SEAL, None)
    right = (not metadata and not ours) or (
        seal == fingerprint(metadata) and metadata.get("checksum") == checksum(tensors)
    )
    if verify and not right:
        raise ValleysError(f"weights file {path} does not match its checksum; delete it and rerun")
    return tensors, metadata


def describe(path: str | Path) -> tuple[dict[str, str], dict[str, tuple[str, tuple[int, ...]]]]:
    """Return metadata, and type and shape of each tensor, of any safetensors file: without torch, unchecked.

    Raises
    ------
    OSError, ValueError, safetensors.SafetensorError
        When the file is absent, truncated, or no safetensors file.
    """
    from safetensors import safe_open

    # Not for torch, whose view of a file is one it could write to: Linux refuses that of a file larger than
    # memory.
    with safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in sorted(file.keys())}
        described = {name: (s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
        return file.metadata() or {}, described


def read_about(path: str | Path) -> dict[str, Any]:
    """Return the metadata of a weights file, without torch and unchecked; nothing where there are none."""
    from safetensors import SafetensorError

    try:
        found = json.loads(describe(path)[0][_HEADER])
    except (OSError, ValueError, KeyError, SafetensorError):
        return {}
    return found if isinstance(found, dict) else {}


def relabel(source: str | Path, target: str | Path, **more: Any) -> None:
    """Copy a weights file with other metadata, checked against its checksum.

    Parameters
    ----------
    more
        Entries that replace those in the source's metadata.

    Raises
    ------
    ValleysError
        As `load_weights`, and when the source is no file of `save_weights`.
    """
    tensors, about = load_weights(source, ours=True)
    save_weights(target, tensors, about | more)
