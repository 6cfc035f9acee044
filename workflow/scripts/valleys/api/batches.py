"""What a user's data yields, as batches of inputs and labels; and a user's loss, as the loss of a set.

Two kinds of loss. ``loss(outputs, labels)`` needs to be told which part of a batch is the labels; the rest is
what the network is called with. ``loss(model, batch)``, told by its first parameter's name, calls the network
itself and may take batches of any shape. Either may return a value an example, their mean, or a pair (sum,
count): with padding or weights a mean over a batch is not one over the set.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from valleys.data.inputs import Inputs, leaves, mapped
from valleys.data.loaders import LoaderBatches, what
from valleys.errors import ValleysError
from valleys.factories import one_line
from valleys.models.losses import PerImage, Totals
from valleys.networks.adapter import Adapter, called, scored
from valleys.networks.copies import evaluating
from valleys.networks.tensors import random_numbers_kept

#: Names that a first parameter has in ``loss(model, batch)``.
MODEL_NAMES = ("model", "net", "network", "module")
#: Keys that labels are found under where nothing is said.
LABEL_KEYS = ("labels", "label", "targets", "target")
#: Batches that a loss is tried on, and the greatest relative difference between two cuts of one.
TRIED, TOLERANCE = 8, 1e-4

_WANTED = "return one value an example, their mean, or (sum, count)"

Keys = Hashable | Sequence[Hashable] | None


@dataclass(frozen=True)
class Prepared:
    """A network, a loss and data as an `Evaluator` takes them.

    `counts` returns how much a batch counts, where the loss gives a sum and a count.
    """

    network: nn.Module
    loss: Any
    train: Iterable[Any]
    test: Iterable[Any] | None
    counts: Callable[[Inputs], float] | None = None


def prepare(model: nn.Module, data: Any, loss: Any, test: Any, inputs: Keys, labels: Hashable) -> Prepared:
    """Return what an `Evaluator` takes, for batches and losses of any shape.

    Raises
    ------
    ValleysError
        For a batch in which labels are not told from inputs; a loss that returns something else than a value
        an example, their mean or (sum, count); a loss of a set that hangs on how it is cut into batches.
    """
    if not isinstance(model, nn.Module):
        raise ValleysError(f"Landscape: {type(model).__name__} is no network; give a torch.nn.Module")
    sets = {"data": _readable(data, "data")} | ({} if test is None else {"test": _readable(test, "test")})
    with random_numbers_kept(torch.device("cpu")):
        first = _first(sets["data"])
    if _takes_model(loss):
        if inputs is not None or labels is not None:
            raise ValleysError("Landscape: inputs and labels are for loss(outputs, labels); leave them out")
        return _of_own(model, loss, sets)
    plain = inputs is None and labels is None
    if plain and _is_pair(first) and not _returns_pair(model, loss, first):
        return Prepared(model, loss, sets["data"], sets.get("test"))

    def split(batch: Any) -> tuple[Any, Any]:
        return _divided(batch, inputs, labels)

    pair = split(first)
    targets = pair[1]
    if not isinstance(targets, Tensor) or targets.dim() == 0 or _returns_pair(model, loss, pair):
        if isinstance(loss, str | Mapping):
            raise ValleysError(f"Landscape: labels are {type(targets).__name__}; {loss!r} takes one tensor")

        def whole(network: nn.Module, batch: Any) -> Any:
            given, targets = split(batch)
            return loss(called(network, given), targets)

        return _of_own(model, whole, sets)
    scores = isinstance(loss, str | Mapping) or PerImage(loss).weighted is not None
    network = Adapter(model, scored if scores else called)

    def pairs(batch: Any) -> tuple[Inputs, Tensor]:
        given, targets = split(batch)
        return Inputs(given, len(targets)), targets

    found = {name: _Mapped(each, pairs) for name, each in sets.items()}
    return Prepared(network, loss, found["data"], found.get("test"))


# ---- data


class _Mapped:
    """A loader with each batch changed; it can be read again if the loader can."""

    def __init__(self, loader: Iterable[Any], change: Callable[[Any], Any]) -> None:
        self.loader, self.change = loader, change

    def __iter__(self) -> Iterator[Any]:
        return (self.change(batch) for batch in self.loader)


def _readable(data: Any, name: str) -> Iterable[Any]:
    """Return data as something that can be read more than once: a single batch is a set of one."""
    if isinstance(data, Tensor | Mapping) or (isinstance(data, tuple) and _is_pair(data)):
        return [data]
    if hasattr(data, "floats"):  # a split
        return data
    if not isinstance(data, Iterable):
        raise ValleysError(f"{name}: {type(data).__name__} is no data; give a DataLoader, or one batch")
    # Copies, as a loader may fill one buffer again and again.
    return [mapped(batch, torch.clone) for batch in data] if isinstance(data, Iterator) else data


def _first(data: Iterable[Any]) -> Any:
    if hasattr(data, "floats"):
        return next(data.batches(2))
    with one_line("data: reading it"):
        for batch in data:
            return batch
    raise ValleysError("data: it yields no batches; give a loader that does")


def _is_pair(batch: Any) -> bool:
    return (
        isinstance(batch, tuple | list)
        and len(batch) == 2
        and all(isinstance(part, Tensor) for part in batch)
    )


def _divided(batch: Any, inputs: Keys, labels: Hashable) -> tuple[Any, Any]:
    """Return what the network is called with, and the labels."""
    if labels is None:
        labels = _labels_of(batch)
    targets = _part(batch, labels)
    if inputs is not None:
        several = isinstance(inputs, tuple | list)
        chosen = {key: _part(batch, key) for key in (inputs if several else [inputs])}
        if not several:
            return next(iter(chosen.values())), targets
        by_name = all(isinstance(key, str) for key in chosen)
        return (chosen if by_name else tuple(chosen.values())), targets
    if isinstance(batch, Mapping):
        return {key: value for key, value in batch.items() if key != labels}, targets
    if isinstance(batch, tuple | list):
        at = labels % len(batch) if isinstance(labels, int) else labels
        rest = [part for i, part in enumerate(batch) if i != at]
        return (rest[0] if len(rest) == 1 else tuple(rest)), targets
    raise ValleysError(
        f"data: batches are {what(batch)}; say what the network takes, as in inputs=('image', 'mask')"
    )


def _labels_of(batch: Any) -> Hashable:
    """Return where a batch's labels are, where that is plain."""
    if isinstance(batch, Mapping):
        found = [key for key in LABEL_KEYS if key in batch]
        if len(found) == 1:
            return found[0]
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return 1
    example = "labels='y'" if not isinstance(batch, tuple | list) else "inputs=(0, 1), labels=2"
    raise ValleysError(
        f"data: batches are {what(batch)}; which part is the labels? Say so, as in {example}, or give a "
        "loss(model, batch)"
    )


def _part(batch: Any, at: Hashable) -> Any:
    try:
        return batch[at]
    except (LookupError, TypeError):
        if not isinstance(batch, Mapping) and isinstance(at, str) and hasattr(batch, at):
            return getattr(batch, at)
    raise ValleysError(f"data: batches are {what(batch)}; they have no {at!r}")


# ---- losses


def _takes_model(loss: Any) -> bool:
    """Whether a loss is ``loss(model, batch)``: its first parameter is called so."""
    if isinstance(loss, str | Mapping | nn.Module) or not callable(loss):
        return False
    try:
        names = list(inspect.signature(loss).parameters)
    except (TypeError, ValueError):
        return False
    return bool(names) and names[0] in MODEL_NAMES


@torch.no_grad()
def _returns_pair(model: nn.Module, loss: Any, pair: tuple[Any, Any]) -> bool:
    """Whether a loss returns (sum, count); of one that raises the evaluator says what is wrong."""
    if isinstance(loss, str | Mapping) or not callable(loss) or isinstance(loss, type):
        return False
    given, targets = pair
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    try:
        with evaluating(model), random_numbers_kept(device):
            given = Inputs(given, 1).to(device).clone().value
            value = loss(called(model, given), Inputs(targets, 1).to(device).clone().value)
    except Exception:
        return False
    return isinstance(value, tuple | list)


def _of_own(model: nn.Module, loss: Callable[..., Any], sets: Mapping[str, Any]) -> Prepared:
    """Return a network that returns losses, with what each batch counts for its labels."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def measure(batch: Inputs) -> tuple[Tensor, Tensor | None]:
        value = batch.to(device).clone().value
        called_it = one_line("loss: given the network and a batch, it")
        with torch.no_grad(), evaluating(model), random_numbers_kept(device), called_it:
            return _taken_apart(loss(model, value), len(batch))

    counted = False

    def pairs(batch: Any) -> tuple[Inputs, Tensor]:
        given = Inputs(batch, _examples(batch))
        count = measure(given)[1] if counted else None
        each = 1.0 if count is None else float(count) / len(given)
        return given, torch.full((len(given),), each, dtype=torch.float64)

    with random_numbers_kept(device), one_line("data: reading it"):
        some = [mapped(batch, torch.clone) for batch in itertools.islice(sets["data"], TRIED)]
    tried = [Inputs(value, _examples(value)) for value in some]
    counted = measure(tried[0])[1] is not None
    for batch in tried:
        _check_cuts(batch, measure)
    found = {name: _Mapped(each, pairs) for name, each in sets.items()}
    network = Adapter(model, lambda net, value: _taken_apart(loss(net, value), _examples(value))[0])
    counts = (lambda batch: float(measure(batch)[1])) if counted else None  # type: ignore[arg-type]
    return Prepared(network, Totals(counted), found["data"], found.get("test"), counts)


def count_rows(batches: LoaderBatches, counts: Callable[[Inputs], float]) -> None:
    """Replace what each example of a batch counts on average by what it counts itself.

    A part of a set takes some examples of each batch. Each is passed through the network once by itself.

    Raises
    ------
    ValleysError
        When batches are too large to be kept, or the loss takes no single example.
    """
    if batches.kept is None:
        raise ValleysError(
            "data: they are read anew for each pass, and the loss says how much a whole batch counts; "
            "return one value an example, or give less data"
        )
    for inputs, labels in zip(batches.kept, batches.labels(), strict=True):
        own = [counts(inputs[i : i + 1]) for i in range(len(inputs))]
        if abs(sum(own) - float(labels.sum())) > 1e-6 * max(1.0, sum(own)):
            raise ValleysError(
                f"loss: its counts do not add up: {sum(own):g} example by example, {float(labels.sum()):g} "
                "for the batch; let the count be a sum over examples"
            )
        labels.copy_(torch.tensor(own, dtype=labels.dtype))


def _examples(value: Any) -> int:
    """Return how many examples a batch has: the rows that most of its tensors have, the first of a tie."""
    rows = [len(tensor) for tensor in leaves(value) if tensor.dim()]
    if not rows or not max(rows):
        raise ValleysError(f"data: a batch is {what(value)}; it must hold tensors with a row an example")
    return max(rows, key=rows.count)


def _taken_apart(value: Any, examples: int) -> tuple[Tensor, Tensor | None]:
    """Return losses by example, or their sum as a number; and the count where the loss gives one."""
    if isinstance(value, tuple | list) and len(value) == 2:
        total, count = value
        if not isinstance(total, Tensor) or total.dim() or not float(count) >= 0:
            raise ValleysError(
                "loss: of a pair (sum, count) it must return a tensor of one number, and a number"
            )
        return total, torch.as_tensor(count)
    if not isinstance(value, Tensor) and isinstance(getattr(value, "loss", None), Tensor):
        value = value.loss  # of a Hugging Face network that was given labels
    if not isinstance(value, Tensor) or value.is_complex():
        raise ValleysError(f"loss: it returns {type(value).__name__}; {_WANTED}")
    if value.dim() == 0:
        return value * examples, None
    if len(value) != examples:
        raise ValleysError(f"loss: it returns shape {tuple(value.shape)} for {examples} examples; {_WANTED}")
    return value.flatten(1).mean(1) if value.dim() > 1 else value, None


def _check_cuts(batch: Inputs, measure: Callable[[Inputs], tuple[Tensor, Tensor | None]]) -> None:
    """Check that the loss of a batch is the same however it is cut."""

    def mean(parts: list[Inputs]) -> float:
        total, weight = 0.0, 0.0
        for part in parts:
            losses, count = measure(part)
            total += float(losses.sum(dtype=torch.float64))
            weight += len(part) if count is None else float(count)
        return total / weight if weight else float("nan")

    n = len(batch)
    whole = mean([batch])
    for at in {1, n // 2} - {0, n}:
        try:
            cut = mean([batch[:at], batch[at:]])
        except ValleysError:
            return  # a network for batches of one size
        if abs(cut - whole) > TOLERANCE * max(abs(whole), abs(cut)):
            raise ValleysError(
                f"loss: it hangs on how examples are cut into batches: {whole:.6g} for {n} in one batch, "
                f"{cut:.6g} for {at} and {n - at}; return (sum, count), the sum over all that counts (tokens "
                "that are no padding) and how much that is, or one value an example"
            )
