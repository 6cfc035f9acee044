"""Averages of weights (SWA) and refreshed batch-norm statistics.

SWA: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018,
section 3. An average of weights has batch-norm statistics of no network; they are recomputed by one more
look at the training set (section 3.2 there), here called *BN refresh*.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import gc
import logging
import math
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from greenlet import GreenletExit, getcurrent, greenlet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from valleys import factories, networks, switches
from valleys.data import loaders
from valleys.errors import ValleysError

log = logging.getLogger("valleys")

Method = Literal["exact", "streaming"]
State = Mapping[str, Tensor]

# ---- averages ----------------------------------------------------------------------------------------------

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
    iterates: Iterable[State | nn.Module], parameters: nn.Module | Iterable[str] | None = None
) -> dict[str, Tensor]:
    """Return the equal-weight mean of a network's parameters over iterates, accumulated in float64.

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
                value = networks.wide(tensor.detach().clone())
                if not torch.isfinite(value).all():
                    raise ValleysError(
                        f"average: {name} of iterate {count} has values that are not finite; leave it out"
                    )
                sums.append(complex(value.sum()))
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
    mean = {
        name: (total[name] / count).to(tensor) if name in total else _copy(tensor)
        for name, tensor in last.items()
    }
    _follow_spectral_norm(mean, last, set(total))
    return mean


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
    return isinstance(tensor, Tensor) and networks.movable(tensor)


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


# ---- batch norm: which layers, and whether their statistics can be recomputed ------------------------------

Forward = Callable[["_BatchNorm", Tensor, "_Affine"], Tensor]


class _Affine(NamedTuple):
    """What a layer does to normalised values, and the eps of the normalisation."""

    weight: Tensor | None
    bias: Tensor | None
    eps: float


Normalise = Callable[[Tensor, _Affine], Tensor]


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch-norm layers of `model` that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def bn_policy(model: nn.Module, bn: str) -> str:
    """Return `bn` for a network with batch norm, ``none`` for one without.

    Parameters
    ----------
    bn
        ``refreshed`` or ``frozen``.

    Raises
    ------
    ValleysError
        When a batch-norm layer keeps no running statistics, which makes its output hang on the batch in eval
        mode too; for ``refreshed``, as `check_bn`.
    """
    if bn == "refreshed":
        check_bn(model)
    elif untracked := next((p for p in _problems(model) if p.always), None):
        raise ValleysError(f"batch-norm layer {untracked.layer} {untracked.what}")
    return bn if batch_norms(model) or has_unseen_bn(model) else "none"


def has_unseen_bn(model: nn.Module) -> bool:
    """Whether `check_bn` raises: batch norm that can be frozen, but not refreshed."""
    return any(True for _ in _problems(model))


def check_bn(model: nn.Module) -> None:
    """Raise when `model` has batch norm whose statistics cannot be recomputed, as far as its layers show.

    What only a pass shows, a pass finds: a layer used twice, one that normalises in a way of its own, and a
    call of ``F.batch_norm`` that takes each batch's own statistics in eval mode.

    Raises
    ------
    ValleysError
        For a layer without running statistics, with those of another layer, or one that is lazy and has seen
        no batch; for batch norm in a scripted, traced or exported network, which cannot be seen into, or of
        the user's own making.
    """
    for problem in _problems(model):
        raise ValleysError(f"batch-norm layer {problem.layer} {problem.what}")


class _Problem(NamedTuple):
    layer: str
    what: str
    always: bool = False  # also where statistics are not refreshed


def _problems(model: nn.Module) -> Iterator[_Problem]:
    """Yield what is wrong with batch-norm layers, in words that follow the layer's name."""
    owners: dict[Any, str] = {}
    closed: list[str] = []
    for name, module in model.named_modules():
        name = name or type(module).__name__
        if any(name.startswith(prefix) for prefix in closed):
            continue
        if isinstance(module, torch.jit.ScriptModule):
            closed.append(f"{name}." if "." in name or module is not model else "")
            if _compiled_batch_norm(module):
                how = "is in TorchScript, which cannot be seen into; give the network that it was made of"
                yield _Problem(f"of {name}", how)
        elif isinstance(module, torch.fx.GraphModule) and _traced_batch_norm(module):
            how = "is part of a traced graph, not a layer; give the network that it was made of"
            yield _Problem(f"of {name}", how)
        elif isinstance(module, _BatchNorm):
            if any(map(is_lazy, [*module.parameters(), *module.buffers()])):
                yield _Problem(name, "is lazy and has seen no batch; run one through the network first", True)
            elif module.running_mean is None or module.running_var is None:
                yield _Problem(name, "keeps no running statistics; set track_running_stats", True)
            else:
                other = owners.setdefault(_key(module.running_mean), name)
                if other != name:
                    yield _Problem(name, f"has the running statistics of {other}; give it its own")
        elif not isinstance(module, _InstanceNorm) and _updates_statistics(module):
            yield _Problem(
                name,
                f"is a {type(module).__name__} with statistics of its own, which cannot be recomputed; "
                "derive it from torch's BatchNorm1d to 3d, or leave them as stored (bn: frozen)",
            )


def _key(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.numel()


def _compiled_batch_norm(module: torch.jit.ScriptModule) -> bool:
    if any(name.endswith("running_mean") for name, _ in module.named_buffers()):
        return True
    with contextlib.suppress(Exception):  # a container has no forward and so no graph
        return "batch_norm(" in str(module.inlined_graph)
    return False


def _traced_batch_norm(module: torch.fx.GraphModule) -> bool:
    called = (n.target for n in module.graph.nodes if n.op == "call_function")
    return any("batch_norm" in getattr(f, "__name__", str(f)) for f in called)


def _updates_statistics(module: nn.Module) -> bool:
    """Whether a module that is none of torch's keeps the mean and variance of what it is given in train mode.

    One whose statistics are constants (torchvision's FrozenBatchNorm2d) does not: a copy is tried.
    """
    own = dict(module.named_buffers(recurse=False))
    kept = [n for n, t in own.items() if t.is_floating_point() and t.dim() and re.search("mean|var|std", n)]
    if not any("mean" in name for name in kept) or len(kept) < 2:
        return False
    channels = own[next(name for name in kept if "mean" in name)].numel()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for area in ((), (3, 3), (3,), (3, 3, 3)):
            with contextlib.suppress(Exception):
                twin = copy.deepcopy(module).train()
                before = own[kept[0]]
                twin(torch.randn(4, channels, *area).to(before))
                return not all(torch.equal(getattr(twin, name), own[name]) for name in kept)
    return True


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block `model` is in eval mode; after it every module is in the mode that it was in."""
    before = {module: module.training for module in model.modules()}
    own = model.training
    try:
        model.eval()
        yield
    finally:
        if own:  # a network's own train() may do more, as undo what its eval() did
            model.train()
        for module, training in before.items():
            if module.training != training:
                module.training = training


@contextlib.contextmanager
def _others_kept(model: nn.Module) -> Iterator[None]:
    """After the block, buffers that are no batch-norm statistics (a queue, observers) are as before it."""
    layers = batch_norms(model)
    ours = {id(t) for m in layers for t in (m.running_mean, m.running_var, m.num_batches_tracked)}
    before = {name: b.clone() for name, b in model.named_buffers() if id(b) not in ours}
    try:
        yield
    finally:
        if before:
            networks.put_back(dict(model.named_buffers()), before)


@torch.no_grad()
def refresh_bn(model: nn.Module, batches: Iterable[Tensor], method: Method = "exact") -> list[Tensor] | None:
    """Set the running statistics of every batch-norm layer to those of the images in `batches`.

    ``exact``
        The statistics of the whole set at every layer: layer k sees inputs that were normalised by the
        whole set's statistics at the layers before it. Independent of how the images are cut into
        batches, to rounding, and equal to one train-mode pass over a single batch that holds them all.
        All batches go through the network in lock-step, so the activations of the whole set at one layer
        are in memory at a time.
    ``streaming``
        One pass batch after batch in train mode, each normalised by its own statistics; means and
        variances pooled over images (law of total variance), so a short last batch counts for what it
        holds. Constant memory; from the second batch-norm layer on the result depends on the batch size.

    Variances are those of the population (divided by n). `torch.optim.swa_utils.update_bn` gives every
    batch the same weight, drops the variance between batch means and stores n/(n-1) times the variance.

    Parameters
    ----------
    model
        Changed in place: ``running_mean`` and ``running_var`` of batch norm only, of all such layers, also
        those that training kept in eval mode. Layers may do more than normalise, as one that activates, if
        they derive from torch's and call ``F.batch_norm``. Instance norm's running statistics stay. Every
        module is left in the mode that it was in.
    batches
        Tensors (n, C, H, W), or ``(images, labels)`` pairs as a loader yields; moved to the model's device.
        Read once and copied, as a loader may fill one buffer again and again (`loaders.images_of`).

    Returns
    -------
    The logits of each batch under the refreshed statistics for ``exact``: the pass computes them anyway
    and they equal an eval-mode pass. ``None`` for ``streaming``.

    Raises
    ------
    ValleysError
        When there are no images, a batch is no tensor of them, one value a channel is all there is, or the
        network or the loader raises; where batch norm cannot be followed (`check_bn`), or a layer is used
        more than once in a pass; for ``exact``, when batches take different paths.
    """
    if method not in get_args(Method):
        raise ValleysError(f"BN refresh: method: {method!r} is none; choose {' or '.join(get_args(Method))}")
    if not isinstance(model, nn.Module):
        raise ValleysError(f"BN refresh: {type(model).__name__} is no network; give a torch.nn.Module")
    device = next((p.device for p in model.parameters()), None)
    images = loaders.images_of(batches, device)
    check_bn(model)
    # Dropout off: the statistics are those of the deterministic network.
    with factories.one_line("BN refresh: the network"), evaluating(model), _others_kept(model):
        if method == "streaming":
            _streaming(model, images)
            return None
        return _lockstep(model, list(images), _alone, _Moments)


def refreshed_logits(model: nn.Module, batches: Iterable[Tensor]) -> list[Tensor]:
    """Return the logits under whole-set batch-norm statistics as a differentiable function of the weights.

    The numbers are those of `refresh_bn` with ``exact``, to rounding. But the statistics are part of the
    computation, not constants, so that a derivative (forward or reverse mode) counts their dependence on the
    weights, and the stored ones are left as they are. Memory as there, times what the mode of
    differentiation needs (forward: two).

    Parameters
    ----------
    model
        Not changed; every module is left in the mode that it was in.
    batches
        Tensors (n, C, H, W) on the model's device.

    Raises
    ------
    ValleysError
        As `refresh_bn`.
    """
    check_bn(model)
    with evaluating(model):
        return _lockstep(model, list(batches), _by_batch, _Pooled)


#: Values of a channel that torch's CPU kernel adds up in float32 before they are merged in float64.
PIECE = 4096


class _Moments:
    """Mean and variance by channel of a layer's inputs, and what the layer then does to each of these.

    They are pooled by the law of total variance, in float64, and become the layer's own.
    """

    def __init__(self, layer: _BatchNorm) -> None:
        self.layer = layer
        self.counts: list[int] = []
        self.means: list[Tensor] = []  # (groups, channels), as the variances
        self.variances: list[Tensor] = []

    def add(self, x: Tensor) -> None:
        """Take an input in: (n, channels, ...)."""
        kind = torch.promote_types(x.dtype, torch.float32)
        if x.device.type != "cpu":
            var, mean = torch.var_mean(x.to(kind), dim=_all_but_channels(x), correction=0)
            self.take(x.numel() // x.shape[1], mean[None], var[None])
            return
        for piece, groups in _in_groups(x):
            # Batch norm's own kernel is faster than `var_mean`, many times so where channels are last.
            # It wants running statistics, not updated here, whose type is that of its result.
            unused = torch.zeros(2, piece.shape[1], dtype=kind)
            mean, var = torch.batch_norm_update_stats(piece, *unused, 0.0)
            self.take(piece.numel() // piece.shape[1], mean.view(groups, -1), var.view(groups, -1))

    def take(self, count: int, means: Tensor, variances: Tensor) -> None:
        """Add groups of `count` values a channel."""
        self.counts += [count] * len(means)
        self.means.append(means)
        self.variances.append(variances)

    def extend(self, other: _Moments) -> None:
        """Add what the other has been given."""
        self.counts += other.counts
        self.means += other.means
        self.variances += other.variances

    def merged(self) -> tuple[Tensor, Tensor]:
        """Return mean and population variance, in float64."""
        each = torch.cat(self.means).double()
        counts = torch.tensor(self.counts, dtype=torch.float64, device=each.device)
        shares = counts[:, None] / sum(self.counts)
        mean = (shares * each).sum(0)
        return mean, (shares * (torch.cat(self.variances).double() + (each - mean).square())).sum(0)

    def whole(self) -> tuple[Tensor, Tensor]:
        """Return what `merged` does, of the whole set, which must have a variance."""
        if sum(self.counts) < 2:
            raise ValleysError(f"BN refresh: {self.layer} gets one value a channel; give more images")
        return self.merged()

    def store(self) -> None:
        mean, variance = self.whole()
        self.layer.running_mean.copy_(mean)
        self.layer.running_var.copy_(variance)
        if self.layer.num_batches_tracked is not None:
            self.layer.num_batches_tracked.fill_(1)

    def normalise(self) -> Normalise:
        """Store the statistics; return the function that normalises by them."""
        self.store()
        return partial(_normalise, self.layer.running_mean, self.layer.running_var)


class _Pooled(_Moments):
    """The same as a differentiable function of the inputs; stores nothing."""

    def add(self, x: Tensor) -> None:
        kind = torch.promote_types(x.dtype, torch.float32)
        var, mean = torch.var_mean(x.to(kind), dim=_all_but_channels(x), correction=0)
        self.take(x.numel() // x.shape[1], mean[None], var[None])

    def normalise(self) -> Normalise:
        mean, variance = self.whole()

        def normalise(x: Tensor, affine: _Affine) -> Tensor:
            shape, kind = (1, -1) + (1,) * (x.dim() - 2), torch.promote_types(x.dtype, torch.float32)
            scale = torch.rsqrt(variance + affine.eps)
            out = (x.to(kind) - mean.to(kind).view(shape)) * scale.to(kind).view(shape)
            if affine.weight is not None:
                out = out * affine.weight.view(shape)
            if affine.bias is not None:
                out = out + affine.bias.view(shape)
            return out.to(x.dtype)

        return normalise


def _in_groups(x: Tensor) -> list[tuple[Tensor, int]]:
    """Return all values of x (n, c, ...) as tensors (rows, groups * c, ...), with the numbers of groups.

    The kernel adds up a channel's values in float32 one by one. Here every `groups`-th row is a group, and
    the kernel sees each of its channels as a channel: it adds up `PIECE` values or so instead of all, in one
    call. Nothing is copied where x is contiguous or channels-last.
    """
    last = x.movedim(1, -1)
    rows = last.flatten(0, -2) if last.is_contiguous() else x.flatten(2) if x.dim() > 2 else x
    count, channels, *area = rows.shape
    groups = min(count, max(1, count * math.prod(area) // PIECE))
    whole = count - count % groups
    found = [(rows[:whole].reshape(-1, groups * channels, *area), groups)]
    return found if whole == count else [*found, (rows[whole:], 1)]


def _all_but_channels(x: Tensor) -> list[int]:
    return [d for d in range(x.dim()) if d != 1]


def _normalise(mean: Tensor, variance: Tensor, x: Tensor, affine: _Affine) -> Tensor:
    return _batch_norm(x, mean, variance, affine, training=False)


def _batch_norm(
    x: Tensor, mean: Tensor | None, variance: Tensor | None, affine: _Affine, training: bool
) -> Tensor:
    """Do what torch's ``F.batch_norm`` does, also while `_passes` has something else in its place."""
    cudnn = torch.backends.cudnn.enabled
    return torch.batch_norm(x, affine.weight, affine.bias, mean, variance, training, 0.0, affine.eps, cudnn)


#: Classes whose layers normalise and do nothing else, in eval mode.
_PLAIN = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


@contextlib.contextmanager
def _passes(model: nn.Module, forward: Forward) -> Iterator[Callable[[Tensor], Any]]:
    """Yield what runs a batch through the model, with ``forward(layer, x, affine)`` where it normalises.

    torch's own layers have their forward pass replaced. Others, which may do more, run theirs, and the call
    of ``F.batch_norm`` in it is the place. Within one pass a layer may be used once.

    Raises
    ------
    ValleysError
        From a pass: for a layer that is used twice or never comes to ``F.batch_norm``, and for a call of
        ``F.batch_norm`` that takes the batch's own statistics.
    """
    names = {module: name or type(module).__name__ for name, module in model.named_modules()}
    layers = batch_norms(model)
    by_statistics = {_key(layer.running_mean): layer for layer in layers}
    used: dict[object, set[nn.Module]] = defaultdict(set)  # by pass: each has a greenlet of its own

    def meet(layer: _BatchNorm, x: Tensor, affine: _Affine) -> Tensor:
        here = used[getcurrent()]
        if layer in here:
            raise ValleysError(
                f"batch-norm layer {names[layer]} is used 2 times or more in one pass, with statistics of "
                "each; give every use a layer of its own"
            )
        here.add(layer)
        return forward(layer, x, affine)

    def plain(x: Tensor, *, layer: _BatchNorm) -> Tensor:
        return meet(layer, x, _Affine(layer.weight, layer.bias, layer.eps))

    def watched(*inputs: Any, layer: _BatchNorm, own: Callable[..., Any], **more: Any) -> Any:
        found = own(*inputs, **more)
        if layer not in used[getcurrent()]:
            raise ValleysError(
                f"batch-norm layer {names[layer]} is a {type(layer).__name__}, which normalises in a way of "
                "its own; call F.batch_norm in it, or use torch's BatchNorm1d to 3d"
            )
        return found

    def batch_norm(
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if training:
            raise ValleysError(
                "batch norm: F.batch_norm is called with training=True in eval mode, so that every batch is "
                "normalised by its own statistics; use torch's BatchNorm1d to 3d"
            )
        layer = None if running_mean is None else by_statistics.get(_key(running_mean))
        affine = _Affine(weight, bias, eps)
        if layer is None:  # constants
            return _normalise(running_mean, running_var, input, affine)
        return meet(layer, input, affine)

    def run(x: Tensor) -> Any:
        used.pop(getcurrent(), None)
        return model(x)

    own = {layer: vars(layer).get("forward") for layer in layers}
    for layer in layers:
        if own[layer] is None and type(layer).forward in _PLAIN:
            layer.forward = partial(plain, layer=layer)
        else:
            layer.forward = partial(watched, layer=layer, own=layer.forward)
    try:
        with _eagerly(model), _batch_norm_is(batch_norm):
            yield run
    finally:
        for layer, forward_of_its_own in own.items():
            if forward_of_its_own is None:
                del layer.forward  # uncovers the class's method again
            else:
                layer.forward = forward_of_its_own
        used.clear()


_torchs: list[Callable[..., Tensor]] = []  # F.batch_norm as it was found, while another stands in for it
_of_threads: dict[int, Callable[..., Tensor]] = {}  # the others, by thread
_changing = threading.Lock()


def _of_this_thread(*inputs: Any, **more: Any) -> Tensor:
    return _of_threads.get(threading.get_ident(), _torchs[0])(*inputs, **more)


@contextlib.contextmanager
def _batch_norm_is(function: Callable[..., Tensor]) -> Iterator[None]:
    """Within the block, ``F.batch_norm`` is `function` in this thread; others may train meanwhile."""
    thread = threading.get_ident()
    with _changing:
        if not _of_threads:
            _torchs[:], F.batch_norm = [F.batch_norm], _of_this_thread
        _of_threads[thread] = function
    try:
        yield
    finally:
        with _changing:
            del _of_threads[thread]
            if not _of_threads:
                F.batch_norm = _torchs[0]


def _eagerly(model: nn.Module) -> contextlib.AbstractContextManager[object]:
    """Return a context in which what `torch.compile` made of the model's parts runs as it was written."""
    compiled = any(
        hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) is not None
        for m in model.modules()
    )
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()


def _streaming(model: nn.Module, images: Iterable[Tensor]) -> None:
    moments = {layer: _Moments(layer) for layer in batch_norms(model)}

    def forward(layer: _BatchNorm, x: Tensor, affine: _Affine) -> Tensor:
        here = _Moments(layer)
        with torch.no_grad():
            here.add(x)
        moments[layer].extend(here)
        return _normalise(*(value.to(here.means[0].dtype) for value in here.merged()), x, affine)

    empty = True
    with _passes(model, forward) as run:
        for x in images:
            run(x)
            empty = False
    if empty:
        raise ValleysError("BN refresh got no images")
    for of_layer in moments.values():
        if of_layer.counts:  # else no image came by
            of_layer.store()


def _lockstep(
    model: nn.Module,
    images: list[Tensor],
    alone: Forward,
    together: type[_Moments],
) -> list[Tensor]:
    """Run all batches through the model together, pausing each at every batch-norm layer.

    Each batch's forward pass is a coroutine (greenlet) on this one thread: at a batch-norm layer it hands
    its input over and sleeps until the layer's statistics over all batches are known. While it sleeps,
    torch's switches (`switches`) are those of the caller, and when it goes on, its own again.

    Parameters
    ----------
    alone
        What a batch-norm layer does to a batch that is the whole set.
    together
        Takes the statistics of a layer's inputs in all batches.
    """
    if not images:
        raise ValleysError("BN refresh got no images")
    if len(images) == 1 or not batch_norms(model):
        with _passes(model, alone) as run:
            return [run(x) for x in images]
    hub, outside = getcurrent(), switches.Switches()

    def forward(layer: _BatchNorm, x: Tensor, affine: _Affine) -> Tensor:
        if outside.hold():
            return hub.switch((layer, x))(x, affine)
        with switches.Switches().instead(outside):
            normalise = hub.switch((layer, x))
        return normalise(x, affine)

    given: list[Any] = images
    results: list[Any] = [None] * len(images)
    order = list(range(len(images)))
    with _passes(model, forward) as run:
        passes = [greenlet(run, parent=hub) for _ in images]
        for a_pass in passes:
            a_pass.gr_context = contextvars.copy_context()
        try:
            while True:
                statistics, met = None, 0
                for i in order:
                    results[i] = None  # or a batch's activation outlives its use
                    results[i] = passes[i].switch(given[i])
                    if passes[i].dead:
                        outside.set()
                    else:
                        layer, x = results[i]
                        statistics = statistics or together(layer)
                        if layer is statistics.layer:
                            statistics.add(x)  # now, while the processor's cache has it
                            met += 1
                        del x
                if statistics is None:
                    return results
                if met < len(passes):
                    raise ValleysError("batches took different paths through the model: use streaming")
                given = [statistics.normalise()] * len(images)
                order.reverse()  # the last batch's activation is the one in the cache
        finally:
            for a_pass in passes:
                if not a_pass.dead:  # its `with` blocks end here, under its own switches
                    with contextlib.suppress(Exception):
                        a_pass.throw(GreenletExit)
            outside.set()


def _alone(layer: _BatchNorm, x: Tensor, affine: _Affine) -> Tensor:
    """Keep the statistics of a batch that is the whole set, and normalise it."""
    statistics = _Moments(layer)
    with torch.no_grad():  # the network may have gradients on where the caller has not
        statistics.add(x)
    return statistics.normalise()(x, affine)


def _by_batch(layer: _BatchNorm, x: Tensor, affine: _Affine) -> Tensor:
    """Normalise one batch that is the whole set by its own statistics; store nothing."""
    if x.numel() == x.shape[1]:
        raise ValleysError(f"BN refresh: {layer} gets one value a channel; give more images")
    return _batch_norm(x, None, None, affine, training=True)
