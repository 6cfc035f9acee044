"""Weights from elsewhere: a state dict of safetensors or of ``torch.save``, fitted to a model.

Where the model's tensors stand in a file is found from the model's own names: the *place* is what comes
before each of them, keys of the file and prefixes of names alike, as in ``state_dict.model``. A file with
different weights for the model in several places is refused unless one is chosen:
``last.pt#swa_state_dict``.

Nothing that a file says is run: pickles are loaded with ``weights_only=True``, and one that needs more than
well-known records is refused with the way to convert it.
"""

from __future__ import annotations

import itertools
import logging
import pickle
import pickletools
import re
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from valleys.errors import ValleysError, shown
from valleys.networks import copies
from valleys.storage import files
from valleys.storage.state import require

log = logging.getLogger("valleys")

#: Keys under which training scripts keep a state dict, in the order in which they are looked for.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
#: Parts of names that torch.compile, FSDP and checkpointed activations put anywhere.
INNER = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
#: Last parts of names of counters and index tables, which no output of a network hangs on: `AveragedModel`,
#: thop, batch norm, Hugging Face.
COUNTERS = frozenset({"n_averaged", "total_ops", "total_params", "num_batches_tracked", "position_ids"})
#: First parts of names of a loss's own tensors, in modules that have network and loss beside each other.
LOSSES = frozenset({"criterion", "criterions", "loss", "loss_fn", "loss_func", "loss_function"})
SHOWN = 3  # names in an error
_DEPTH = 8  # of mappings in a file
_PLACES = 50  # in one mapping that are looked at closely

Keys = tuple[str, ...]


class Weights(dict[str, Tensor]):
    """A state dict from a file, with all that stands there.

    Attributes
    ----------
    sets
        All mappings of the file that have tensors, by the keys that lead to them.
    taken
        The keys of the mapping that this state dict is.
    choice
        What the user chose of it (after ``#``), if anything.
    """

    sets: dict[Keys, dict[str, Any]]
    taken: Keys
    choice: str | None


# --- reading ----------------------------------------------------------------------------------------------


def read(path: str | Path) -> Weights:
    """Read the state dict in a file.

    Parameters
    ----------
    path
        ``.safetensors``, or what `torch.save` wrote under others (``.pt``, ``.pth``, ``.ckpt``): a state
        dict, or a mapping that has one under one of `WRAPPERS` or another key. An index of shards, or a
        folder of Hugging Face's, will do. ``#`` and a key at the end choose one of several state dicts.

    Returns
    -------
    Weights
        Tensors by name, on the CPU. Of several state dicts the first of `WRAPPERS`, with a warning in the
        log; `fit` finds the others in it.

    Raises
    ------
    ValleysError
        When the file is absent, corrupt, holds no state dict, or is a pickle of more than tensors.
    """
    weights = find(path)
    others = [".".join(keys) for keys in weights.sets if keys != weights.taken and _is_weights(keys)]
    if others and weights.choice is None:
        log.warning(
            "checkpoint %s: read the weights under %r; it has %s too, which %s#%s would read",
            *(path, ".".join(weights.taken), _some(others), path, others[0]),
        )
    return weights


def load(model: nn.Module, weights: Weights, where: str) -> str:
    """Put a file's weights into a model; what the workflow and the command line do.

    Unlike `fit`, this refuses a file that has different weights for the model in several places.

    Parameters
    ----------
    model
        Changed in place.
    weights
        As `find` returned them.
    where
        Names the file in errors.

    Returns
    -------
    str
        What was read, for the log: the place, and what was left aside.

    Raises
    ------
    ValleysError
        As `fit`.
    """
    return _fit(model, weights, where, several=False)


def find(path: str | Path) -> Weights:
    """Read all that stands in a file: `read` without its warning, for `load`."""
    path, choice = files.split_choice(files.expand(path))
    path = files.checkpoint_file(path)
    files.check_regular(path, "checkpoint")
    by_name = files.shards(path)
    if by_name:
        found: Any = {}
        for shard in dict.fromkeys(by_name.values()):
            there = _content(shard)
            there = there if isinstance(there, Mapping) else {}
            # A name that the index gives to another shard is not read here.
            found |= {name: value for name, value in there.items() if by_name.get(name, shard) == shard}
        lacking = [name for name in by_name if name not in found]
        if lacking:
            raise ValleysError(
                f"checkpoint {path}: its shards lack {_some(lacking)}; fetch all of its shards again"
            )
    else:
        found = _content(path)
    sets = dict(_sets(found))
    if not sets:
        named = isinstance(found, Mapping) and found
        told = _some([f"{k!r}{_kind(v)}" for k, v in found.items()]) if named else type(found).__name__
        raise ValleysError(
            f"checkpoint {path} is no state dict and has none under {', '.join(WRAPPERS)}; it holds {told}"
        )
    if choice is not None:
        choice = _resolved(sets, choice, str(path))
    taken = _first(sets, choice)
    named = _under(taken, sets[taken], _plain(choice or ""))
    weights = Weights({name: sets[taken][theirs] for name, theirs in named.items()})
    weights.sets, weights.taken, weights.choice = sets, taken, choice
    return weights


def _kind(value: Any) -> str:
    """Say of which class an object was whose class is not at hand."""
    return f" (a whole {type(value).__qualname__})" if isinstance(value, _Record) else ""


def _sets(found: Any, keys: Keys = (), seen: set[int] | None = None) -> Iterator[tuple[Keys, dict[str, Any]]]:
    """Yield all mappings that have tensors by name, by the keys that lead to them.

    Of one that is there several times, what is in it is looked at once: a small file can hold more paths than
    anyone can follow.
    """
    seen = set() if seen is None else seen
    first = id(found) not in seen
    seen.add(id(found))
    if isinstance(found, list | tuple):
        found = {str(i): value for i, value in enumerate(found)} if keys and first else {}
    if not isinstance(found, Mapping) or len(keys) > _DEPTH:
        return
    # Moments of optimisers are under numbers: they have no names of the network's.
    named = {key: _as_tensor(value) for key, value in found.items() if isinstance(key, str)}
    if any(isinstance(value, Tensor) for value in named.values()):
        yield keys, named
    for key, value in named.items() if first else ():
        if isinstance(value, Mapping | list | tuple):
            yield from _sets(value, (*keys, key), seen)


def _as_tensor(value: Any) -> Any:
    if isinstance(value, _Array):
        value = value.value
    if isinstance(value, np.ndarray):
        try:
            return torch.from_numpy(value.copy())
        except TypeError:  # text, dates
            return None
    return value


def _tensors(named: Mapping[str, Any]) -> list[str]:
    return [name for name, value in named.items() if isinstance(value, Tensor)]


def _is_weights(keys: Keys) -> bool:
    """Whether tensors under these keys may be weights: an optimiser's state is known by its name."""
    return not any(re.match("optim|lr_sched|sched|scaler|amp$|rng", key) for key in keys)


def _resolved(sets: Mapping[Keys, Mapping[str, Any]], choice: str, where: str) -> str:
    """Return the whole path in a file of what a user chose: that, or a part of it that one path has."""
    wanted = _plain(choice)
    named = {_plain(".".join((*keys, name))) for keys, named in sets.items() for name in _tensors(named)}
    if any(_within(name, wanted) for name in named):
        return choice
    found = {f".{name}".partition(f".{wanted}.")[0][1:] for name in named if f".{wanted}." in f".{name}"}
    paths = sorted(f"{before}.{wanted}" for before in found)
    if not paths:
        raise ValleysError(f"checkpoint {where}: it holds nothing under {choice!r}; it has {_listed(sets)}")
    if len(paths) > 1:
        raise ValleysError(
            f"checkpoint {where}: it has {choice!r} in {len(paths)} places; choose one of {_some(paths, 8)}"
        )
    return paths[0]


def _first(sets: Mapping[Keys, Mapping[str, Any]], choice: str | None) -> Keys:
    """Return the keys of the set that is read when no model says which."""
    there = [keys for keys in sets if _is_weights(keys)] or list(sets)
    if choice is not None:
        there = [keys for keys, named in sets.items() if _under(keys, named, _plain(choice))]
    for wrapper in WRAPPERS if choice is None else ():
        for keys in there:
            if keys and keys[0] == wrapper:
                return keys
    return max(there, key=lambda keys: len(_under(keys, sets[keys], _plain(choice or ""))))


def _under(keys: Keys, named: Mapping[str, Any], wanted: str) -> dict[str, str]:
    """Return the names of a set's tensors at or below a place, by their names below it or in the set."""
    at = _plain(".".join(keys))
    if _within(at, wanted):
        return {name: name for name in _tensors(named)}
    found = {_plain(".".join((*keys, name))): name for name in _tensors(named)}
    return {place.removeprefix(f"{wanted}."): n for place, n in found.items() if _within(place, wanted)}


def _listed(sets: Mapping[Keys, Mapping[str, Any]]) -> str:
    """Name the places of a file's sets and, of names, their first parts."""
    places = [".".join(keys) for keys in sets if keys]
    places += [name.partition(".")[0] for name in _tensors(sets.get((), {})) if "." in name]
    return _some(list(dict.fromkeys(places)) or ["no keys"], 8)


# --- files ------------------------------------------------------------------------------------------------


def _content(path: Path) -> Any:
    """Return what is in one file, told by its first bytes, whatever its name ends with."""
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
        told = f" ({_some(strange or ['a pickle of another protocol than that of torch.save'])})"
        raise ValleysError(
            f"checkpoint {path} holds more than tensors{told}, and code in it could be run; convert it "
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


class _Record:
    """Stands for an object of a class that is not imported."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Record:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Mapping:
    """Stands for a class of dicts: one that is no more than that."""

    def __new__(cls, *args: Any, **kwargs: Any) -> OrderedDict[Any, Any]:
        return OrderedDict()


class _List:
    """Stands for a class of lists: one that is no more than that."""

    def __new__(cls, *args: Any) -> list[Any]:
        return []


class _Dtype(_Record):
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


class _Array(_Record):
    """A numpy array, of plain numbers."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
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
        "numpy.ndarray": type("ndarray", (_Record,), {}),
        "numpy.core.multiarray.scalar": _scalar,
        "numpy.core.multiarray._reconstruct": _Array,
        "collections.deque": _List,
    }
    if core in known:
        return known[core]
    if not any(core == record or (record[-1] == "." and core.startswith(record)) for record in _RECORDS):
        return None
    if _MAPPINGS.search(core):
        return _Mapping
    return type(name.rpartition(".")[2], (_Record,), {})


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


# --- fitting ----------------------------------------------------------------------------------------------


def fit(model: nn.Module, state: Mapping[str, Tensor], where: str) -> str:
    """Load a state dict into a model of the same parameters, whatever stands before their names.

    What stands before them is the same for all. Beside them there may be what is no part of a network:
    counters, a loss's tensors, metrics. Other names outside of what stands before the network's are left
    aside. A batch-norm layer's ``num_batches_tracked`` may be missing, and one of two names of a tensor that
    the model shares. Tensors are cast to the model's types where that changes no more than their precision.

    Parameters
    ----------
    model
        Changed in place.
    state
        As `read` returned it. Where its file has different weights for the model under several keys, those
        are taken that `read` took.
    where
        Names the file in errors.

    Returns
    -------
    str
        What was read, for the log.

    Raises
    ------
    ValleysError
        When names or shapes differ from the model's (the first few are named), several prefixes would do, or
        a value is not finite or of a type that the model's tensor cannot have.
    """
    return _fit(model, state, where, several=True)


@dataclass
class _Place:
    """Where a file may have a model's tensors: ``keys`` and then ``prefix`` come before their names."""

    keys: Keys
    prefix: str
    tensors: dict[str, Tensor]
    lacks: list[str]
    shapes: list[str]
    beside: list[str]  # that may be a network's
    harmless: list[str]

    @property
    def name(self) -> str:
        return ".".join([*self.keys, *([self.prefix[:-1]] if self.prefix else [])])

    @property
    def whole(self) -> bool:
        return not (self.lacks or self.shapes)


def _fit(model: nn.Module, state: Mapping[str, Tensor], where: str, *, several: bool) -> str:
    whole = model.state_dict()
    own = {name: tensor for name, tensor in whole.items() if isinstance(tensor, Tensor)}  # no extra state
    tied = _tied(own)
    sets, choice = {(): dict(state)}, None
    if isinstance(state, Weights):
        sets, choice = state.sets, state.choice
    places = [place for keys, named in sets.items() for place in _places(own, tied, keys, named)]
    _share(places)
    if choice is not None:
        wanted = _plain(choice)
        exact = [place for place in places if _plain(place.name) == wanted and place.whole]
        places = exact or [place for place in places if _within(_plain(place.name), wanted)]
        if not places:
            raise ValleysError(
                f"checkpoint {where} does not fit the model: none of its tensors is under {choice!r}; the "
                f"file has {_listed(sets)}"
            )
    fitting = [place for place in places if place.whole and not place.beside]
    if not fitting:
        raise ValleysError(f"checkpoint {where} does not fit the model: {_misfit(places, own, state)}")
    place = fitting[0]
    if len(fitting) > _PLACES or len(_twins(place, fitting)) < len(fitting) - 1:
        taken = [p for p in fitting if several and p.keys == getattr(state, "taken", None)]
        if len(taken) != 1:
            raise ValleysError(
                f"checkpoint {where} has weights of the model in {len(fitting)} places: "
                f"{_some([repr(p.name) for p in fitting], 8)}; choose one by its key, as in "
                f"{files.split_choice(where)[0]}#{fitting[-1].name}"
            )
        (place,) = taken
    for name, tensor in place.tensors.items():
        _check_cast(own[name], tensor, f"checkpoint {where}: {name}")
    for names in tied:
        there = [name for name in names if name in place.tensors]
        for name in there[1:]:
            if not torch.equal(place.tensors[there[0]], place.tensors[name]):
                raise ValleysError(
                    f"checkpoint {where} has different values for {there[0]} and {name}, which are one "
                    "tensor of the model; build the model without tying them"
                )
    copies.load(model, {**whole, **_filled(place.tensors, tied)})
    return _told(place, _twins(place, fitting), sets)


def _plain(place: str) -> str:
    """Return a place without the parts that wrappers put into names, however its parts are divided."""
    parts = re.split(r"[./:]", place)
    return ".".join(part for part in parts if part and part not in INNER)


def _within(place: str, wanted: str) -> bool:
    return not wanted or place == wanted or place.startswith(f"{wanted}.")


def _stripped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in INNER) if "_" in name else name


def _tied(own: Mapping[str, Tensor]) -> list[list[str]]:
    """Return groups of names under which a model has one and the same tensor."""
    groups: dict[Any, list[str]] = {}
    for name, tensor in own.items():
        if tensor.numel():
            key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
            groups.setdefault(key, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _filled(tensors: Mapping[str, Tensor], tied: list[list[str]]) -> dict[str, Tensor]:
    """Return tensors with those that have a second name under both."""
    filled = dict(tensors)
    for names in tied:
        there = next((name for name in names if name in filled), None)
        if there is not None:
            filled |= dict.fromkeys(names, filled[there])
    return filled


def _places(
    own: Mapping[str, Tensor], tied: list[list[str]], keys: Keys, named: Mapping[str, Any]
) -> list[_Place]:
    """Return the places in one mapping where some of the model's names stand, the fullest first."""
    there = {_stripped(name): value for name, value in named.items() if isinstance(value, Tensor)}
    if len(there) < len(_tensors(named)):  # two names would become one
        there = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    by_name = {_stripped(name): name for name in own}
    if len(by_name) < len(own):
        by_name = {name: name for name in own}
    depth = max((name.count(".") + 1 for name in by_name), default=0)
    counts: Counter[str] = Counter()
    for name in there:
        parts = name.split(".")
        for i in range(max(len(parts) - depth, 0), len(parts)):
            if ".".join(parts[i:]) in by_name:
                counts["".join(f"{part}." for part in parts[:i])] += 1
    # Wrong places are many for a model of few names; those of the most names are the ones to tell of.
    most = max(counts.values(), default=0)
    found: list[_Place] = []
    for prefix, count in counts.most_common():
        if 2 * count < most or sum(place.whole for place in found) > _PLACES:
            break
        tensors = {by_name[n]: there[prefix + n] for n in by_name if prefix + n in there}
        lacks = [n for n in own if n not in _filled(tensors, tied) and not n.endswith("num_batches_tracked")]
        for n, t in tensors.items():  # torch 0.3 saved single numbers so
            if not own[n].dim() and not t.is_nested and t.shape == (1,):
                tensors[n] = t.reshape(())
        shapes = [
            f"{n} {tuple(t.shape)} for {tuple(own[n].shape)}"
            for n, t in tensors.items()
            if not t.is_nested and t.shape != own[n].shape
        ]
        if (lacks or shapes) and len(found) > _PLACES:
            continue
        extra = [n[len(prefix) :] for n in there if n.startswith(prefix) and n[len(prefix) :] not in by_name]
        beside, harmless = _sorted_out(extra, {n: there[prefix + n] for n in extra}, by_name)
        found.append(_Place(keys, prefix, tensors, lacks, shapes, beside, harmless))
    return found


def _sorted_out(
    extra: list[str], tensors: Mapping[str, Tensor], own: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Divide the names beside a model's own into those that may be a network's and those that are not."""
    modules, layers = ({cut(name, ".")[0] for name in own} for cut in (str.partition, str.rpartition))
    by_module: dict[str, list[str]] = {}
    for name in extra:
        by_module.setdefault(name.partition(".")[0], []).append(name)
    # Metrics: modules that the model has not, of counts and single numbers. A layer has a weight.
    metrics = {
        module
        for module, names in by_module.items()
        if module not in modules
        and all("." in name for name in names)
        and all(tensors[n].dtype in (torch.int32, torch.int64) or not tensors[n].dim() for n in names)
    }
    beside, harmless = [], []
    for name in extra:
        module, (layer, _, last) = name.partition(".")[0], name.rpartition(".")
        loss = module in LOSSES and module not in modules
        counter = last in COUNTERS and (last != "num_batches_tracked" or layer in layers)
        (harmless if counter or loss or module in metrics else beside).append(name)
    return beside, harmless


def _share(places: list[_Place]) -> None:
    """Take out of what stands beside a place in its mapping what is below another that is whole."""
    for place, other in itertools.permutations(places, 2):
        if other.whole and place.keys == other.keys and len(other.prefix) > len(place.prefix):
            below = other.prefix.removeprefix(place.prefix)
            if other.prefix.startswith(place.prefix):
                place.harmless += [name for name in place.beside if name.startswith(below)]
                place.beside = [name for name in place.beside if not name.startswith(below)]


def _misfit(places: list[_Place], own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Say what the fullest place lacks and has, or where there is none, what the state dict does."""
    if places:
        place = max(places, key=lambda p: len(p.tensors) - len(p.shapes))
        lacks, beside, shapes = place.lacks, place.beside, place.shapes
        under = f"under {place.name!r} " if place.name else ""
    else:
        lacks = [name for name in own if not name.endswith("num_batches_tracked")]
        beside, shapes, under = [name for name in state if name not in own], [], ""
    texts = [f"lacks {_some(lacks)}"] if lacks else []
    texts += [f"has beside the model's {_some(beside)}"] if beside else []
    texts += [f"has {_some(shapes)}"] if shapes else []
    return f"{under}it {' and '.join(texts)}"


def _twins(place: _Place, others: list[_Place]) -> list[_Place]:
    """Return those of other places that have the same values."""
    return [other for other in others if other is not place and _same(place.tensors, other.tensors)]


def _same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    def equal(a: Tensor, b: Tensor) -> bool:
        return _strange(a) == _strange(b) == "" and a.dtype == b.dtype and torch.equal(a, b)

    return first.keys() == second.keys() and all(equal(first[n], second[n]) for n in first)


def _strange(tensor: Tensor) -> str:
    """Say what a tensor is that is not plain numbers in memory."""
    if type(tensor) not in (Tensor, nn.Parameter):
        return f"a {type(tensor).__name__}"
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.is_quantized:
        return f"quantised ({str(tensor.dtype).removeprefix('torch.')})"
    if tensor.layout != torch.strided:
        return f"sparse ({str(tensor.layout).removeprefix('torch.')})"
    return "on the device meta, without values" if tensor.is_meta else ""


def _check_cast(own: Tensor, tensor: Tensor, what: str) -> None:
    """Raise unless a tensor keeps its values, to rounding, in the model's type."""
    if strange := _strange(tensor):
        raise ValleysError(f"{what} is {strange}; give plain tensors of {_type(own)}")
    kinds = [
        "complex" if t.is_complex() else "float" if t.is_floating_point() and t.itemsize > 1 else "other"
        for t in (own, tensor)
    ]
    if "other" not in kinds or kinds == ["other", "float"]:
        finite = torch.isfinite(tensor.detach())
        if not finite.all():
            raise ValleysError(f"{what} has values that are not finite")
    if kinds[0] != "other":
        if kinds[0] != kinds[1]:
            raise ValleysError(
                f"{what} is {_type(tensor)}, the model's {_type(own)}; give weights of the model's kind "
                "of number, not quantised"
            )
        if not torch.isfinite(tensor.detach().to(own.dtype)).all():
            raise ValleysError(
                f"{what} has values of up to {float(tensor.abs().max()):.3g} in {_type(tensor)}, beyond the "
                f"range of the model's {_type(own)}"
            )
    elif tensor.dtype != own.dtype:
        try:
            cast = tensor.detach().to(own.dtype)
            kept = not tensor.is_complex() and torch.equal(cast.to(tensor.dtype), tensor.detach())
        except (RuntimeError, TypeError):  # packed formats, which torch does not compute with
            kept = False
        if not kept:
            raise ValleysError(
                f"{what} is {_type(tensor)} with values that the model's {_type(own)} cannot have"
            )


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _told(place: _Place, twins: list[_Place], sets: Mapping[Keys, Mapping[str, Any]]) -> str:
    """Say which weights were read and what was left aside."""
    told = f"weights under {place.name!r}" if place.name else "weights"
    if twins:
        told += f", the same as under {_some([repr(twin.name) for twin in twins])}"
    here = [n for n in _tensors(sets[place.keys]) if not _stripped(n).startswith(place.prefix)]
    aside = [*here, *place.harmless]
    for keys in sets:
        if keys != place.keys:
            aside += [repr(".".join(keys))] if keys else _tensors(sets[keys])
    return told + (f"; left aside: {_some(aside)}" if aside else "")


def _some(names: list[str], many: int = SHOWN) -> str:
    more = f" and {len(names) - many} more" if len(names) > many else ""
    told = (shown(name).replace("\n", "\\n") for name in names[:many])
    return ", ".join(name if len(name) < 200 else f"{name[:200]}..." for name in told) + more
