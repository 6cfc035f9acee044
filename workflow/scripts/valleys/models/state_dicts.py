"""The state dicts in a file's content: which there are, and which one is meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from valleys.errors import ValleysError
from valleys.models.checkpoint_files import Array, Record, content_of, some_names
from valleys.storage import files

#: Keys under which training scripts keep a state dict, in the order in which they are looked for.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
#: Parts of names that torch.compile, FSDP and checkpointed activations put anywhere.
INNER = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_DEPTH = 8  # of mappings in a file
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


def find(path: str | Path) -> Weights:
    """Read all that stands in a file: `read` without its warning, for `load`."""
    path, choice = files.split_choice(files.expand(path))
    path = files.checkpoint_file(path)
    files.check_regular(path, "checkpoint")
    by_name = files.shards(path)
    if by_name:
        found: Any = {}
        for shard in dict.fromkeys(by_name.values()):
            there = content_of(shard)
            there = there if isinstance(there, Mapping) else {}
            # A name that the index gives to another shard is not read here.
            found |= {name: value for name, value in there.items() if by_name.get(name, shard) == shard}
        lacking = [name for name in by_name if name not in found]
        if lacking:
            raise ValleysError(
                f"checkpoint {path}: its shards lack {some_names(lacking)}; fetch all of its shards again"
            )
    else:
        found = content_of(path)
    sets = dict(_sets(found))
    if not sets:
        named = isinstance(found, Mapping) and found
        content = (
            some_names([f"{k!r}{_kind(v)}" for k, v in found.items()]) if named else type(found).__name__
        )
        raise ValleysError(
            f"checkpoint {path} is no state dict and has none under {', '.join(WRAPPERS)}; it holds {content}"
        )
    if choice is not None:
        choice = _resolved(sets, choice, str(path))
    taken = _first(sets, choice)
    named = _under(taken, sets[taken], plain_name(choice or ""))
    weights = Weights({name: sets[taken][theirs] for name, theirs in named.items()})
    weights.sets, weights.taken, weights.choice = sets, taken, choice
    return weights


def _kind(value: Any) -> str:
    """Say of which class an object was whose class is not at hand."""
    return f" (a whole {type(value).__qualname__})" if isinstance(value, Record) else ""


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
    if isinstance(value, Array):
        value = value.value
    if isinstance(value, np.ndarray):
        try:
            return torch.from_numpy(value.copy())
        except TypeError:  # text, dates
            return None
    return value


def tensors_of(named: Mapping[str, Any]) -> list[str]:
    """Return the names of the tensors in a mapping."""
    return [name for name, value in named.items() if isinstance(value, Tensor)]


def is_weights(keys: Keys) -> bool:
    """Whether tensors under these keys may be weights: an optimiser's state is known by its name."""
    return not any(re.match("optim|lr_sched|sched|scaler|amp$|rng", key) for key in keys)


def _resolved(sets: Mapping[Keys, Mapping[str, Any]], choice: str, where: str) -> str:
    """Return the whole path in a file of what a user chose: that, or a part of it that one path has."""
    wanted = plain_name(choice)
    named = {
        plain_name(".".join((*keys, name))) for keys, named in sets.items() for name in tensors_of(named)
    }
    if any(within(name, wanted) for name in named):
        return choice
    found = {f".{name}".partition(f".{wanted}.")[0][1:] for name in named if f".{wanted}." in f".{name}"}
    paths = sorted(f"{before}.{wanted}" for before in found)
    if not paths:
        raise ValleysError(
            f"checkpoint {where}: it holds nothing under {choice!r}; it has {listed_names(sets)}"
        )
    if len(paths) > 1:
        raise ValleysError(
            f"checkpoint {where}: it has {choice!r} in {len(paths)} places; "
            f"choose one of {some_names(paths, 8)}"
        )
    return paths[0]


def _first(sets: Mapping[Keys, Mapping[str, Any]], choice: str | None) -> Keys:
    """Return the keys of the set that is read when no model says which."""
    there = [keys for keys in sets if is_weights(keys)] or list(sets)
    if choice is not None:
        there = [keys for keys, named in sets.items() if _under(keys, named, plain_name(choice))]
    for wrapper in WRAPPERS if choice is None else ():
        for keys in there:
            if keys and keys[0] == wrapper:
                return keys
    return max(there, key=lambda keys: len(_under(keys, sets[keys], plain_name(choice or ""))))


def _under(keys: Keys, named: Mapping[str, Any], wanted: str) -> dict[str, str]:
    """Return the names of a set's tensors at or below a place, by their names below it or in the set."""
    at = plain_name(".".join(keys))
    if within(at, wanted):
        return {name: name for name in tensors_of(named)}
    found = {plain_name(".".join((*keys, name))): name for name in tensors_of(named)}
    return {place.removeprefix(f"{wanted}."): n for place, n in found.items() if within(place, wanted)}


def listed_names(sets: Mapping[Keys, Mapping[str, Any]]) -> str:
    """Name the places of a file's sets and, of names, their first parts."""
    places = [".".join(keys) for keys in sets if keys]
    places += [name.partition(".")[0] for name in tensors_of(sets.get((), {})) if "." in name]
    return some_names(list(dict.fromkeys(places)) or ["no keys"], 8)


def plain_name(place: str) -> str:
    """Return a place without the parts that wrappers put into names, however its parts are divided."""
    parts = re.split(r"[./:]", place)
    return ".".join(part for part in parts if part and part not in INNER)


def within(place: str, wanted: str) -> bool:
    """Return whether a place is the wanted one or below it."""
    return not wanted or place == wanted or place.startswith(f"{wanted}.")
