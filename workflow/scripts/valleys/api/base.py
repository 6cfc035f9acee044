"""What a `Landscape` is made of: an evaluator of the user's network, and what its measurements share."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from valleys.api import batches, curves
from valleys.errors import ValleysError
from valleys.landscape import directions, lines, planes
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.growing import Settled
from valleys.networks import bn_refresh
from valleys.networks.tensors import vector_norm

log = logging.getLogger("valleys")
Weights = Mapping[str, Tensor] | nn.Module
#: Bytes that graphs of gradients may take while products with a Hessian are computed; then they go.
KEPT_BYTES = 4 * 1024**3


class Base:
    """The weights that are looked at, and where their loss is measured; `Landscape` has the parameters."""

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        loss: Any = "cross_entropy",
        *,
        test: Any = None,
        inputs: Hashable | Sequence[Hashable] | None = None,
        labels: Hashable | None = None,
        bn: str = "refreshed",
        method: bn_refresh.Method = "exact",
        precision: str = "fp32",
        metric: Any = None,
        progress: bool = True,
        name: str = "weights",
    ) -> None:
        ready = batches.prepare(model, data, loss, test, inputs, labels)
        options: dict[str, Any] = {"bn": bn, "method": method, "precision": precision, "metric": metric}
        self.evaluator = Evaluator(ready.network, ready.train, ready.test, ready.loss, **options)
        self.evaluator.shares_products = True
        self.model, self.progress = model, progress
        cell = {"dataset": "data", "model": type(model).__name__, "recipe": "own", "seed": 0}
        self.names = {**cell, "solution": name}
        self._hessians: dict[str, Any] = {}
        self._counts, self._told = ready.counts, False

    def __repr__(self) -> str:
        """Return what is looked at."""
        count = sum(p.numel() for p in self.weights.values())
        return f"<Landscape of {type(self.model).__name__}: {count:,} parameters, batch norm {self.bn}>"

    @property
    def bn(self) -> str:
        """The batch-norm policy: refreshed, frozen, or none for a network without batch norm."""
        return self.evaluator.bn

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights that are looked at, by parameter name."""
        return {name: self.evaluator.start[name] for name in self.evaluator.parameters}

    def loss(self) -> dict[str, float]:
        """Return loss and accuracy at the weights: ``train_loss``, ``train_accuracy``, and those of test."""
        self._tell_statistics()
        return self.evaluator.at_start().asdict()

    def group(self, group: str = "all") -> list[str]:
        """Return the parameters of a group: ``all``, ``bn``, ``conv``, ``classifier``, ``layer:<name>``..."""
        return directions.parameter_group(self.evaluator.model, group)

    def random_direction(
        self, kind: str = "gaussian", *, group: str = "all", k: int = 0, share: float = 0.5
    ) -> directions.Direction:
        """Return direction number `k` of a drawn kind, unit 2-norm (kinds: docs/reference/options.md)."""
        own = directions.restrict(self.weights, self.group(group))
        return directions.random_direction(kind, own, key=group, k=k, share=share)[0]

    def _bar(self, each: Iterable[Any], unit: str) -> Iterable[Any]:
        if self.progress and importlib.util.find_spec("tqdm"):
            with warnings.catch_warnings():  # a notebook without ipywidgets has a bar of text, which will do
                warnings.filterwarnings("ignore", message="IProgress not found")
                from tqdm.auto import tqdm

            return tqdm(each, unit=unit, leave=False)
        return each

    def _norm_of(self, direction: Mapping[str, Tensor]) -> float:
        """Return the 2-norm of the weights that a direction moves; 1 where they are all 0."""
        return vector_norm({name: self.weights[name] for name in direction if name in self.weights}) or 1.0

    def _line(
        self,
        rows: curves.Rows,
        unit: directions.Direction,
        kind: str,
        group: str,
        k: int,
        grid: Sequence[float],
        reach: lines.Radius,
        settled: Settled | None = None,
    ) -> curves.Line:
        return curves.Line(rows, unit, reach, kind, group, k, self.bn, grid, settled, names=self.names)

    def _tell_statistics(self) -> None:
        """Warn, once, where refreshed batch norm makes another network of the one that was given."""
        from valleys.landscape.statistics import losses_apart

        if self._told or self.bn != "refreshed":
            return
        self._told = True
        self._know_counts()
        if apart := losses_apart(self.evaluator):
            stored, refreshed = apart
            log.warning(
                "with refreshed batch norm the train loss at these weights is %.4g, with the network's own "
                "statistics %.4g; lines, planes and searches have the first, Landscape(..., bn='frozen') the "
                "second",
                refreshed,
                stored,
            )

    def _know_counts(self) -> None:
        """Count each batch's examples: parts of the data take some of each."""
        if self._counts is not None:
            batches.count_rows(self.evaluator.train_batches, self._counts)
            self._counts = None

    def _held(self) -> Evaluator:
        """Return the evaluator with batch norm held, as derivatives take it."""
        other = self.evaluator.on(self.evaluator.train_batches)
        other.bn = "none" if self.bn == "none" else "frozen"
        return other

    @contextlib.contextmanager
    def _hessian(self, group: str) -> Iterator[Any]:
        from valleys.landscape.hessian import Hessian

        if group not in self._hessians:
            at = self.evaluator
            at.reset()
            names, keep = self.group(group), KEPT_BYTES
            self._hessians[group] = Hessian(at.model, at.train_batches, at.loss, names, keep=keep)
        try:
            yield self._hessians[group]
        finally:
            self._hessians[group].release()

    def _state(self, weights: Weights) -> dict[str, Tensor]:
        """Return weights by parameter name, checked to be those of this network."""
        given = dict(weights.named_parameters()) if isinstance(weights, nn.Module) else dict(weights)
        for name, own in self.weights.items():
            if name not in given or given[name].shape != own.shape:
                what = "has no" if name not in given else f"has another shape {tuple(given[name].shape)} of"
                raise ValleysError(f"weights: what is given {what} {name}, {tuple(own.shape)} in the network")
        return {name: given[name].detach().to(self.weights[name].device) for name in self.weights}

    def _surface(
        self,
        plane: planes.Plane,
        xs: Sequence[float],
        ys: Sequence[float],
        marks: Mapping[str, Mapping[str, Tensor]],
        iterates: Iterable[tuple[int, Mapping[str, Tensor]]],
        state: Path | None,
    ) -> curves.Surface:
        self._tell_statistics()
        bar = functools.partial(self._bar, unit="row")
        rows = planes.surface(self.evaluator, plane, xs, ys, state=state, progress=bar)
        return curves.Surface(rows, planes.describe(plane, marks, iterates), self.bn, names=self.names)

    def _path(self, there: Mapping[str, Tensor], points: int) -> curves.Segment:
        self._tell_statistics()
        bar = functools.partial(self._bar, unit="point")
        return curves.measure_segment(self.evaluator, there, points, names=self.names, progress=bar)
