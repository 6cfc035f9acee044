"""Files of somebody else's weights, opened so that nothing in them can run; `state_dicts` looks into them."""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from valleys.errors import ValleysError, shown
from valleys.storage import files
from valleys.storage.state import require

SHOWN = 3  # names in an error


def content_of(path: Path) -> Any:
    """Return what is in one file, known by its first bytes, whatever its name ends with."""
    files.check_regular(path, "checkpoint")
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise ValleysError(f"checkpoint {path} cannot be read (it is empty); copy it again")
    text = head.lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        raise ValleysError(
            f"checkpoint {path} cannot be read (it is a pointer of Git LFS, not the file it stands for); "
            "fetch it with: git lfs pull"
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<error")):
        raise ValleysError(
            f"checkpoint {path} cannot be read (it is a web page, perhaps of an error, not weights); "
            "download the file itself"
        )
    looks_so = head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size
    if looks_so or (path.suffix == ".safetensors" and head[:2] != b"PK" and head[:1] != b"\x80"):
        return _safetensors(path)
    other = {b"\x89HDF": "HDF5, as of Keras", b"\x1f\x8b": "gzip: unpack it", b"BZh": "bzip2: unpack it"}
    other |= {b"\x93NUMPY": "a numpy array", b"GGUF": "GGUF", b"7z\xbc\xaf": "7z: unpack it"}
    if head[257:262] == b"ustar":
        other[head[:1]] = "a tar archive: unpack it, or where you trust it, save it anew with torch.save"
    for magic, name in other.items():
        if head.startswith(magic):
            raise ValleysError(
                f"checkpoint {path} cannot be read (it is {name}); give a state dict of torch.save, or "
                "safetensors"
            )
    if head.startswith(b"PK"):
        _check_zip(path, size)
    elif head[:1] != b"\x80":
        raise ValleysError(
            f"checkpoint {path} cannot be read (it begins with {head[:8]!r}, as neither torch.save nor "
            "safetensors writes); give a state dict of torch.save, or safetensors"
        )
    return _pickled(path)


def _check_zip(path: Path, size: int) -> None:
    """Check that a zip archive is whole, of torch.save, and no larger inside than out."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ValleysError(
            f"checkpoint {path} cannot be read (it is a zip archive cut short or damaged: {_reason(error)}); "
            "copy it again"
        ) from error
    names = {member.filename.rpartition("/")[2] for member in members}
    kind = None
    if "constants.pkl" in names:
        kind = "TorchScript, which is code: where you trust it, torch.save torch.jit.load(path).state_dict()"
    elif {"archive_format", "serialized_exported_program.json"} & names or "models/model.json" in {
        member.filename for member in members
    }:
        kind = "of torch.export: where you trust it, torch.save torch.export.load(path).state_dict"
    elif names and all(name.endswith(".npy") for name in names):
        kind = "an npz file of numpy: torch.save its arrays by name, as tensors"
    elif "data.pkl" not in names:
        kind = "a zip archive that torch.save did not write"
    if kind:
        raise ValleysError(f"checkpoint {path} cannot be read ({kind}); give a state dict of torch.save")
    if (total := sum(member.file_size for member in members)) > 4 * size + 2**20:
        raise ValleysError(
            f"checkpoint {path} cannot be read (it declares {total / 1e9:.3g} GB in a file of "
            f"{size / 1e9:.3g} GB); save the state dict again"
        )


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        raise ValleysError(
            f"checkpoint {path} is no whole safetensors file ({_reason(error)}); save it again"
        ) from error


def _pickled(path: Path) -> Any:
    require("torch")
    try:
        return _loaded(path)
    except pickle.UnpicklingError as error:
        needed = _globals(path)
        records = {name: stand_in for name in needed if (stand_in := _stand_in(name)) is not None}
        if records:
            try:
                with torch.serialization.safe_globals([(what, name) for name, what in records.items()]):
                    return _loaded(path)
            except Exception:
                pass
        strange = [name for name in needed if name not in records]
        listed = f" ({some_names(strange or ['a pickle of another protocol than that of torch.save'])})"
        raise ValleysError(
            f"checkpoint {path} holds more than tensors{listed}, and code in it could be run; convert it "
            "where you trust it, and only if you trust where it came from: "
            "torch.save(torch.load(path, weights_only=False)['state_dict'], 'new.pt'), or "
            "torch.load(...).state_dict() where the whole model was saved"
        ) from error
    except Exception as error:  # torch raises what it likes on bytes that are no checkpoint
        raise ValleysError(
            f"checkpoint {path} cannot be read ({_reason(error)}); save the state dict again"
        ) from error


def _loaded(path: Path) -> Any:
    with path.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of protocols: what cannot be read is an error
        # Of the stream: of a path torch goes by what its name ends with.
        return torch.load(stream, map_location="cpu", weights_only=True)


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__


# --- records beside tensors -------------------------------------------------------------------------------

#: Classes, or packages of them, whose objects training scripts save beside the weights. None of their code is
#: imported or run: the objects are read as empty records, which nothing looks at.
_RECORDS = (
    *("argparse.Namespace", "types.SimpleNamespace", "pathlib.", "datetime.", "decimal.", "uuid.", "typing."),
    *("collections.", "torch.torch_version.", "torch.optim.", "torch.cuda.amp.", "torch.amp."),
    *("numpy.random.", "numpy.dtypes."),
    *("omegaconf.", "hydra.", "yacs.", "easydict.", "addict.", "ml_collections.", "munch.", "mmengine."),
    *("mmcv.", "pytorch_lightning.", "lightning.", "lightning_fabric.", "torchmetrics.", "transformers."),
    *("accelerate.", "timm.", "fastai.", "ignite.", "__main__."),
    *(f"builtins.{name}" for name in ("list", "dict", "tuple", "frozenset", "int", "float", "str", "bool")),
)
_MAPPINGS = re.compile(r"(Dict|dict|CfgNode|Munch)$")


class Record:
    """Stands for an object of a class that is not imported."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Record:
        """Take whatever the file gives."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        """Take the state that the file gives: none of it is used."""
        pass


class _Mapping:
    """Stands for a class of dicts: one that is no more than that."""

    def __new__(cls, *args: Any, **kwargs: Any) -> OrderedDict[Any, Any]:
        return OrderedDict()


class _List:
    """Stands for a class of lists: one that is no more than that."""

    def __new__(cls, *args: Any) -> list[Any]:
        return []


class _Dtype(Record):
    """A numpy dtype: its letter and size, as in ``f8``."""

    def __init__(self, code: Any = "", *args: Any) -> None:
        self.code = str(code)
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    def values(self, content: Any) -> np.ndarray | None:
        """Return the numbers that some bytes hold; None where they are none."""
        if re.fullmatch(r"b1|[iu][1248]|f[248]|c(8|16)", self.code) and isinstance(content, bytes):
            kind = np.dtype(self.order + self.code)
            return np.frombuffer(content, kind).astype(kind.newbyteorder("="))
        return None


class Array(Record):
    """A numpy array, of plain numbers."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        """Take the values that the file gives, if they are an array."""
        if isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _Dtype):
            _, shape, kind, by_columns, content = state
            flat = kind.values(content)
            if flat is not None and flat.size == int(np.prod(shape, dtype=object)):
                self.value = flat.reshape(shape, order="F" if by_columns else "C")


def _scalar(kind: Any = None, content: Any = None, *args: Any) -> Any:
    """Return a numpy scalar as Python's number."""
    values = kind.values(content) if isinstance(kind, _Dtype) else None
    return values[0].item() if values is not None and values.size == 1 else None


def _stand_in(name: str) -> Any:
    """Return what is read in the place of a class or function that a pickle names; None: it is refused."""
    core = name.replace("numpy._core.", "numpy.core.")
    known = {
        "numpy.dtype": _Dtype,
        "numpy.ndarray": type("ndarray", (Record,), {}),
        "numpy.core.multiarray.scalar": _scalar,
        "numpy.core.multiarray._reconstruct": Array,
        "collections.deque": _List,
    }
    if core in known:
        return known[core]
    if not any(core == record or (record[-1] == "." and core.startswith(record)) for record in _RECORDS):
        return None
    if _MAPPINGS.search(core):
        return _Mapping
    return type(name.rpartition(".")[2], (Record,), {})


def _globals(path: Path) -> list[str]:
    """Return the names of classes and functions that a pickle of torch.save has and torch does not know."""
    from torch._weights_only_unpickler import _get_allowed_globals

    found: dict[str, None] = {}
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = next(n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl")
                content = archive.read(name)
        else:
            content = path.read_bytes()
        at = 0
        while at < len(content) and content[at : at + 1] == b"\x80":
            recent: list[str] = []
            memo: list[str] = []
            for code, value, position in pickletools.genops(content[at:]):
                if code.name == "GLOBAL" or (code.name == "STACK_GLOBAL" and len(recent) > 1):
                    module, name = value.split(" ", 1) if code.name == "GLOBAL" else recent[-2:]
                    renamed = IMPORT_MAPPING.get(module, module), name  # protocol 2 has Python 2's names
                    module, name = NAME_MAPPING.get((module, name), renamed)
                    found[f"{module}.{name}"] = None
                elif code.name == "MEMOIZE":
                    memo.append(recent[-1] if recent else "")
                elif code.name in ("BINGET", "LONG_BINGET") and value < len(memo):
                    recent.append(memo[value])
                elif isinstance(value, str) and "UNICODE" in code.name:
                    recent.append(value)
                end = position or 0
            at += end + 1
    except Exception:  # damaged: what was found so far will do for a message
        pass
    known = _get_allowed_globals()
    return [name for name in found if name not in known]


def some_names(names: list[str], many: int = SHOWN) -> str:
    """Return the first names of many, as they are told to a person."""
    more = f" and {len(names) - many} more" if len(names) > many else ""
    printable = (shown(name).replace("\n", "\\n") for name in names[:many])
    return ", ".join(name if len(name) < 200 else f"{name[:200]}..." for name in printable) + more
