"""Averages of weights (SWA).

SWA: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018,
section 3. An average of weights has batch-norm statistics of no network: `networks.bn_refresh` recomputes
them.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from valleys.errors import ValleysError
from valleys.networks.tensors import movable, wide

log = logging.getLogger("valleys")
State = Mapping[str, Tensor]
#: Buffers of torch's own layers: running statistics, the vectors of spectral norm, what observers have seen.
_BUFFERS = re.compile(
    r"(.*\.)?(running_(mean|var)|num_batches_tracked|min_val|max_val|zero_point|parametrizations\.\w+\.\d+\._[uv])"
)
#: Parameters of torch's own layers: weights and biases, of recurrent ones, attention and parametrizations.
_PARAMETERS = re.compile(
    r"(.*\.)?((weight|bias)(_(ih|hh|hr)_l\d+(_reverse)?|_g|_orig)?|(in|q|k|v)_proj_(weight|bias)|bias_[kv]"
    r"|parametrizations\.\w+\.original\d*)"
)
#: Words in the names of what modules keep; a parameter is seldom called so.
_KEPT = re.compile(
    r"avg|average|buffers?|cache|cent(er|re)s?|cluster|codebook|counts?|counter|ema|history|ma|mask|max|mean|"
    r"memory|min|momentum|moving|observer|ptr|queue|running|size|states?|std|steps?|sum|target|total|tracked|"
    r"var|variance"
)


def average(
    iterates: Iterable[State | nn.Module],
    parameters: nn.Module | Iterable[str] | None = None,
    weights: Sequence[float] | None = None,
) -> dict[str, Tensor]:
    """Return the mean of a network's parameters over iterates, by default of equal weight, taken in float64.

    Parameters of real or complex numbers of any precision are averaged. Everything else is taken from the
    last iterate: buffers (batch-norm statistics, codebooks, counters), which describe the weights that they
    were kept beside, and parameters that are integers. Batch-norm statistics in the result mean nothing until
    `refresh_bn` has run. The vectors of spectral norm begin as the last iterate's too; power iteration makes
    them singular vectors of the averaged weight, as more training steps would.

    Parameters
    ----------
    iterates
        State dicts, or networks, with the same names and shapes, read one at a time (nothing but the sum is
        kept).
    parameters
        Which tensors are parameters: the network, or their names. A state dict does not say, so give it where
        a network has buffers that are not those of torch's layers. None: the iterates say so themselves if
        they are networks or have been taken with ``state_dict(keep_vars=True)``; else a network of the same
        tensors that is alive in this process does. Without one all is a parameter but buffers of torch's
        layers, which have known names.
    weights
        How much each iterate counts: as many numbers of 0 or more as there are iterates, not all 0; they need
        not add up to 1. `exponential_weights` are such.

    Raises
    ------
    ValleysError
        When there is no iterate; one is no state dict (but a path), has other names, shapes or types than the
        first, or values that are not finite; two are one and the same, which is what a network's
        ``state_dict()``, kept without a copy, becomes (parts that are frozen may be shared); `parameters` has
        names that the iterates have not; nothing says whether a tensor that changes is a parameter, and its
        name is that of a buffer.
    """
    if isinstance(iterates, Mapping | nn.Module | str) or not isinstance(iterates, Iterable):
        what = "one state dict" if isinstance(iterates, Mapping) else f"a {type(iterates).__name__}"
        raise ValleysError(f"average: iterates is {what}; give a list of state dicts")
    shares = None if weights is None else checked_weights(weights, len(weights))
    roles: _Roles | None = None
    total: dict[str, Tensor] = {}
    first: dict[str, Any] = {}
    last: dict[str, Any] = {}
    seen: dict[Any, tuple[int, list[float]]] = {}
    count = 0
    for count, iterate in enumerate(iterates, start=1):
        state = _state(iterate, count)
        if roles is None:
            roles, first = _Roles(iterate, state, parameters), {n: _kind(t) for n, t in state.items()}
        _check_alike(first, state, roles, count)
        sums = []
        for name, tensor in state.items():
            if roles.is_averaged(name, tensor):
                if tensor.layout != torch.strided or tensor.is_meta:
                    kind = "has no values" if tensor.is_meta else "is sparse"
                    raise ValleysError(f"average: {name} of iterate {count} {kind}; give dense tensors")
                value = wide(tensor.detach().clone())
                if not torch.isfinite(value).all():
                    raise ValleysError(
                        f"average: {name} of iterate {count} has values that are not finite; leave it out"
                    )
                sums.append(complex(value.sum()))
                if shares is not None:
                    value = value * (shares[count - 1] if count <= len(shares) else 0.0)
                total[name] = total[name] + value.to(total[name].device) if name in total else value
        places = tuple(_place(t) for n, t in state.items() if n in total and t.numel())
        before, then = seen.get(places, (0, None))
        if then == sums and places:
            raise ValleysError(
                f"iterates {before} and {count} are the same tensors; keep copies: "
                "{n: t.clone() for n, t in model.state_dict().items()}"
            )
        if isinstance(iterates, Iterator):
            seen.clear()  # memory of earlier ones may have been given back and be in use again
        seen[places] = count, sums
        roles.note_changes(last, state)
        last = state
    if roles is None:
        raise ValleysError("no iterates to average: the averaging window is empty")
    if not total:
        raise ValleysError("average: the iterates have no parameters of real or complex numbers")
    roles.check_guesses()
    whole = count if shares is None else sum(checked_weights(shares, count))
    mean = {
        name: (total[name] / whole).to(tensor) if name in total else _copy(tensor)
        for name, tensor in last.items()
    }
    _follow_spectral_norm(mean, last, set(total))
    return mean


def exponential_weights(count: int, decay: float) -> list[float]:
    """Return the weights that an exponential moving average gives to iterates.

    Of ``m = decay * m + (1 - decay) * w`` from the first iterate on: of the others each counts more than the
    one before it. The first counts ``decay ** (count - 1)``, which is most where there are few iterates.

    Parameters
    ----------
    count
        How many iterates.
    decay
        In (0, 1): 0.9 has a memory of about ten iterates.

    Raises
    ------
    ValleysError
        For another `decay`.
    """
    if not (isinstance(decay, int | float) and 0 < decay < 1):
        raise ValleysError(f"decay: {decay!r} is none; it must be between 0 and 1")
    return [(1 - decay if i else 1.0) * decay ** (count - 1 - i) for i in range(count)]


def checked_weights(weights: Sequence[float], count: int) -> list[float]:
    """Return weights of `count` iterates as floats.

    Raises
    ------
    ValleysError
        When there are more or fewer, one is below 0 or not finite, or all are 0.
    """
    found = [float(weight) for weight in weights]
    if len(found) != count:
        raise ValleysError(f"average: weights: {len(found)} numbers for {count} iterates; give one for each")
    if not all(math.isfinite(w) and w >= 0 for w in found) or not sum(found) > 0:
        raise ValleysError(f"average: weights: {found} must be finite, 0 or more, and not all 0")
    return found


def _follow_spectral_norm(mean: dict[str, Tensor], last: State, averaged: set[str]) -> None:
    """Bring the vectors u and v of torch's spectral norm, old and new, to the averaged weights."""
    ends = {".original": ".0._", "_orig": "_"}  # what follows the weight's name, and the vectors'
    for name in averaged:
        for end, stem in ends.items():
            u, v = (f"{name.removesuffix(end)}{stem}{letter}" for letter in "uv")
            if name.endswith(end) and u in mean and v in mean:
                mean[u], mean[v] = _singular_vectors(mean[name], last[name], mean[u], mean[v])


def _singular_vectors(weight: Tensor, before: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first singular vectors of a weight as spectral norm keeps them.

    Parameters
    ----------
    before
        The weight that the vectors u and v are of: shows which of its dimensions comes first in the matrix.
    """

    def matrix(tensor: Tensor, dim: int) -> Tensor:
        return tensor.detach().movedim(dim, 0).flatten(1).double()

    dims = [d for d in range(weight.dim()) if (weight.shape[d], weight.numel()) == (len(u), len(u) * len(v))]
    left, right = u.double(), v.double()
    if not dims:
        return u, v
    dim = max(dims, key=lambda d: float(left @ matrix(before, d) @ right))
    of, norm = matrix(weight, dim), math.inf
    for _ in range(1000):
        right = F.normalize(of.T @ left, dim=0)
        left = F.normalize(of @ right, dim=0)
        norm, earlier = float(left @ of @ right), norm
        if abs(norm - earlier) <= 1e-9 * norm:
            break
    return left.to(u), right.to(v)


class _Roles:
    """Which tensors of an iterate are parameters, as far as that is known."""

    def __init__(self, iterate: object, state: State, parameters: nn.Module | Iterable[str] | None) -> None:
        self.changed: set[str] = set()
        self.first = state
        self.known = self._known(iterate, state, parameters)

    @staticmethod
    def _known(
        iterate: object, state: State, parameters: nn.Module | Iterable[str] | None
    ) -> set[str] | None:
        if isinstance(parameters, str):
            raise ValleysError(f"average: parameters is {parameters!r}; give a network or a list of names")
        if parameters is not None:
            named = _named(parameters) if isinstance(parameters, nn.Module) else parameters
            names = set(named)
            if strange := sorted(names - set(state)):
                raise ValleysError(
                    f"average: iterate 1 has no {strange[0]}, which parameters names; give the network that "
                    "the iterates are of"
                )
            return names
        if isinstance(iterate, nn.Module):
            return set(_named(iterate))
        if names := {name for name, tensor in state.items() if isinstance(tensor, nn.Parameter)}:
            return names
        if all(not _floats(t) or _of_torch(name, state) for name, t in state.items()):
            return None  # as good as known, and no need to look around
        found = [set(_named(network)) for network in _alive(state)]
        return found[0] if found and all(names == found[0] for names in found) else None

    def is_averaged(self, name: str, tensor: Any) -> bool:
        """Whether a tensor is, or is taken for, a parameter that has a mean."""
        if not _floats(tensor):
            return False
        if self.known is not None:
            return name in self.known
        return not _is_torchs_buffer(name, self.first)

    def note_changes(self, before: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Remember which of the tensors whose role is a guess differ between neighbours."""
        if self.known is None and before:
            for name, tensor in state.items():
                guess = _floats(tensor) and not _of_torch(name, state)
                if guess and not torch.equal(tensor, before[name].to(tensor.device)):
                    self.changed.add(name)

    def check_guesses(self) -> None:
        """Raise where a guess may be wrong and matters."""
        words = {n: re.split(r"[\W_\d]+", n.rpartition(".")[2].lower()) for n in sorted(self.changed)}
        if doubtful := [name for name in words if any(map(_KEPT.fullmatch, words[name]))]:
            raise ValleysError(
                f"average: state dicts do not say whether {doubtful[0]} is a parameter or a buffer; give the "
                "network too: average(iterates, model)"
            )
        if words:
            log.warning(
                "average: taken for parameters, as their names say nothing else: %s", ", ".join(words)
            )


def _named(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a network by all of their names, tied ones too."""
    return dict(network.named_parameters(remove_duplicate=False))


def _floats(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and movable(tensor)


def _is_torchs_buffer(name: str, state: State) -> bool:
    if _BUFFERS.fullmatch(name):
        return True
    path, dot, leaf = name.rpartition(".")
    if leaf == "scale":  # of a fake quantisation
        return f"{path}{dot}zero_point" in state
    return leaf[-2:] in ("_u", "_v") and f"{name[:-2]}_orig" in state  # of spectral norm


def _of_torch(name: str, state: State) -> bool:
    """Whether a tensor is called as one of torch's own layers, parameter or buffer."""
    if name.endswith("_v") and f"{name[:-2]}_g" in state:  # of weight norm
        return True
    return _is_torchs_buffer(name, state) or _PARAMETERS.fullmatch(name) is not None


def _alive(state: State) -> list[nn.Module]:
    """Return the networks in this process that have exactly these tensors: most likely what they are of."""
    shapes = {name: tensor.shape for name, tensor in state.items() if isinstance(tensor, Tensor)}
    found = []
    for thing in gc.get_objects():
        if issubclass(type(thing), nn.Module) and not issubclass(type(thing), torch.jit.ScriptModule):
            with contextlib.suppress(Exception):  # others' objects, half made or half gone
                own = {**_named(thing), **dict(thing.named_buffers(remove_duplicate=False))}
                same = all(name in own and own[name].shape == shape for name, shape in shapes.items())
                if same and set(thing.state_dict()) == set(state):
                    found.append(thing)
    return found


def _state(iterate: object, count: int) -> dict[str, Any]:
    """Return an iterate's tensors by name."""
    if isinstance(iterate, nn.Module):
        iterate = iterate.state_dict()
    if not isinstance(iterate, Mapping):
        path = isinstance(iterate, str) or hasattr(iterate, "__fspath__")
        raise ValleysError(
            f"average: iterate {count} is a {type(iterate).__name__}; it must be a state dict or a network"
            + ("; torch.load(path) reads one" if path else "")
        )
    for name, value in iterate.items():
        if not isinstance(value, Tensor) and not str(name).endswith("_extra_state"):
            raise ValleysError(
                f"average: {name!r} of iterate {count} is a {type(value).__name__}, no tensor; give the "
                "state dict itself"
            )
    return dict(iterate)


def _kind(value: Any) -> tuple[Any, Any]:
    return (value.shape, value.dtype) if isinstance(value, Tensor) else (None, type(value))


def _check_alike(
    first: Mapping[str, tuple[Any, Any]], state: Mapping[str, Any], roles: _Roles, count: int
) -> None:
    """Raise unless an iterate has the tensors of the first one."""
    names = [f"lacks {n}" for n in first if n not in state] + [f"has {n}" for n in state if n not in first]
    if names:
        raise ValleysError(f"iterate {count} {names[0]}, unlike iterate 1: they are of two models")
    for name, value in state.items():
        (shape, dtype), (other, other_dtype) = _kind(value), first[name]
        if shape != other:
            raise ValleysError(
                f"iterate {count} has {name} of shape {tuple(shape)}, iterate 1 of {tuple(other)}: they are "
                "of two models"
            )
        if dtype != other_dtype and roles.is_averaged(name, value):
            raise ValleysError(
                f"iterate {count} has {name} as {dtype}, iterate 1 as {other_dtype}; give all in one type"
            )


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.data_ptr(), tensor.shape


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
