"""Resumable state of a job that was stopped: written with ``torch.save``, read with ``weights_only=True``.

What goes into it is the business of who is stopped (`training.trainer`).
"""

from __future__ import annotations

import hashlib
import importlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valleys.errors import ValleysError

if TYPE_CHECKING:
    pass
from valleys.storage.files import atomic

#: The oldest packages with which a file's content cannot have code run or memory overwritten, and why older
#: ones can. The package's dependencies have the same bounds (`tests/models/test_pins.py`).
LEAST = {
    "torch": ("2.6", "torch.load(weights_only=True) runs code (CVE-2025-32434)"),
    "pyarrow": ("14.0.1", "reading Parquet or Arrow runs code (CVE-2023-47248)"),
    "PIL": ("10.3", "decoding images overflows buffers (CVE-2023-4863, CVE-2024-28219)"),
}


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write resumable state (tensors, numbers, strings, lists, dicts) atomically.

    A SHA-256 of the ``torch.save`` bytes follows them: torch does not notice a flipped bit in a tensor.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    with atomic(path) as temporary, temporary.open("wb") as stream:
        stream.write(buffer.getbuffer())
        stream.write(hashlib.sha256(buffer.getbuffer()).digest())


def require(package: str) -> None:
    """Raise unless a package that opens files from elsewhere is as new as `LEAST` says.

    Parameters
    ----------
    package
        A key of `LEAST`: the name it is imported by.

    Raises
    ------
    ValleysError
        When it is older.
    """
    least, why = LEAST[package]
    found = str(importlib.import_module(package).__version__)

    def numbers(version: str) -> list[int]:
        return [int(part) for part in re.match(r"[\d.]*", version).group().split(".") if part]

    if numbers(found) < numbers(least):
        name = {"PIL": "pillow"}.get(package, package)
        raise ValleysError(f"{name} {found} is installed, with which {why}; install {name} >= {least}")


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read state written by `save_checkpoint`, without running any code it may hold.

    Raises
    ------
    ValleysError
        When the file is truncated, corrupt, or holds more than plain data, or torch is too old (`LEAST`).
    """
    import pickle

    import torch

    require("torch")
    try:
        content = memoryview(Path(path).read_bytes())
        body, digest = content[:-32], content[-32:]
        if hashlib.sha256(body).digest() != digest:
            raise ValueError("it does not match its checksum")
        return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValleysError(
            f"checkpoint {path} is corrupt ({reason}); delete it to train from the start"
        ) from error
