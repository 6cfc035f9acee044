"""Weights from elsewhere: `read` a file of somebody else's training, `fit` its weights to a network."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from valleys.errors import ValleysError
from valleys.models.checkpoint_files import some_names
from valleys.models.state_dicts import (
    INNER,
    Keys,
    Weights,
    find,
    is_weights,
    listed_names,
    plain_name,
    tensors_of,
    within,
)
from valleys.networks import copies
from valleys.storage import files

log = logging.getLogger("valleys")
#: Last parts of names of counters and index tables, which no output of a network hangs on: `AveragedModel`,
#: thop, batch norm, Hugging Face.
COUNTERS = frozenset({"n_averaged", "total_ops", "total_params", "num_batches_tracked", "position_ids"})
#: First parts of names of a loss's own tensors, in modules that have network and loss beside each other.
LOSSES = frozenset({"criterion", "criterions", "loss", "loss_fn", "loss_func", "loss_function"})
_PLACES = 50  # in one mapping that are looked at closely


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
    others = [".".join(keys) for keys in weights.sets if keys != weights.taken and is_weights(keys)]
    if others and weights.choice is None:
        log.warning(
            "checkpoint %s: read the weights under %r; it has %s too, which %s#%s would read",
            *(path, ".".join(weights.taken), some_names(others), path, others[0]),
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
        wanted = plain_name(choice)
        exact = [place for place in places if plain_name(place.name) == wanted and place.whole]
        places = exact or [place for place in places if within(plain_name(place.name), wanted)]
        if not places:
            raise ValleysError(
                f"checkpoint {where} does not fit the model: none of its tensors is under {choice!r}; the "
                f"file has {listed_names(sets)}"
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
                f"{some_names([repr(p.name) for p in fitting], 8)}; choose one by its key, as in "
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
    return _describe(place, _twins(place, fitting), sets)


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
    if len(there) < len(tensors_of(named)):  # two names would become one
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
    texts = [f"lacks {some_names(lacks)}"] if lacks else []
    texts += [f"has beside the model's {some_names(beside)}"] if beside else []
    texts += [f"has {some_names(shapes)}"] if shapes else []
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


def _describe(place: _Place, twins: list[_Place], sets: Mapping[Keys, Mapping[str, Any]]) -> str:
    """Say which weights were read and what was left aside."""
    text = f"weights under {place.name!r}" if place.name else "weights"
    if twins:
        text += f", the same as under {some_names([repr(twin.name) for twin in twins])}"
    here = [n for n in tensors_of(sets[place.keys]) if not _stripped(n).startswith(place.prefix)]
    aside = [*here, *place.harmless]
    for keys in sets:
        if keys != place.keys:
            aside += [repr(".".join(keys))] if keys else tensors_of(sets[keys])
    return text + (f"; left aside: {some_names(aside)}" if aside else "")
