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
_TORCH_TYPES = {
    "F64": "torch.float64",
    "F32": "torch.float32",
    "F16": "torch.float16",
    "BF16": "torch.bfloat16",
    "I64": "torch.int64",
    "I32": "torch.int32",
    "U8": "torch.uint8",
    "BOOL": "torch.bool",
}


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


def read_about(path: str | Path) -> dict[str, Any]:
    """Return the metadata of a weights file, without torch and unchecked; nothing where there are none."""
    try:
        with Path(path).open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, 100 << 20)))
        found = json.loads(header["__metadata__"][_HEADER])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def relabel(source: str | Path, target: str | Path, **more: Any) -> None:
    """Copy a weights file with other metadata, checked against its checksum, without importing torch.

    The bytes are those that `save_weights` would write. Starting torch takes most of a second, which a job
    that leaves the weights as they are need not pay.

    Parameters
    ----------
    more
        Entries that replace those in the source's metadata.

    Raises
    ------
    ValleysError
        As `load_weights`, and when the source is no file of `save_weights`.
    """
    source = Path(source)
    if not source.is_file():
        raise ValleysError(f"weights file {source} does not exist; rerun the rule that makes it")
    content = memoryview(source.read_bytes())
    try:
        length = int.from_bytes(content[:8], "little")
        entries = json.loads(bytes(content[8 : 8 + length]))
        about = json.loads(entries.pop("__metadata__")[_HEADER])
        data = content[8 + length :]
        digest = hashlib.sha256()
        for name in sorted(entries):
            kind, shape, (start, stop) = (entries[name][key] for key in ("dtype", "shape", "data_offsets"))
            digest.update(f"{name}\x1f{_TORCH_TYPES[kind]}\x1f{tuple(shape)}\x1f".encode())
            digest.update(data[start:stop])
        if sum(stop - start for start, stop in (e["data_offsets"] for e in entries.values())) != len(data):
            raise ValueError("more data than tensors")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValleysError(f"weights file {source} is truncated or corrupt; delete it and rerun") from error
    seal = about.pop(SEAL, None)
    if seal != fingerprint(about) or about.get("checksum") != digest.hexdigest():
        raise ValleysError(f"weights file {source} does not match its checksum; delete it and rerun")
    about = json.loads(json.dumps(about | more))
    about[SEAL] = fingerprint(about)
    header = json.dumps(
        {"__metadata__": {_HEADER: json.dumps(about, sort_keys=True)}, **entries}, separators=(",", ":")
    )
    encoded = header.encode()
    encoded += b" " * (-len(encoded) % 8)  # the format starts tensors at a multiple of 8
    with atomic(target) as temporary, temporary.open("wb") as stream:
        stream.write(len(encoded).to_bytes(8, "little"))
        stream.write(encoded)
        stream.write(data)
