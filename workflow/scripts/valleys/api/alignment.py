"""Solutions up to symmetry: units put in another's order, and what symmetries do to measures."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from valleys.api.base import Base, Weights
from valleys.api.curves import Segment
from valleys.api.outcomes import Outcome, Rows
from valleys.landscape import sharpness
from valleys.landscape.alignment import match, symmetries_of
from valleys.networks import copies
from valleys.networks.tensors import distance, tensors_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARPNESS = ("sam", "adaptive_sam", "adaptive_average", "filter_width")
"""Measures of an audit beside lines and the Hessian's greatest eigenvalue."""
COPIES = ("permuted", "rescaled")


@dataclass(frozen=True, repr=False)
class Aligned(Outcome):
    """Another solution with its units in the order of this one's.

    Attributes
    ----------
    state
        Its state dict, units reordered: the same function.
    before, after
        The paths from these weights to it, as it was and as it is now.
    moved
        The share of units that have another place.
    """

    state: dict[str, Any]
    before: Segment
    after: Segment
    moved: float

    def rows(self) -> Rows:
        """Return the points of both paths."""
        both = {"before": self.before, "after": self.after}
        return [{"path": name, **point} for name, path in both.items() for point in path.points]

    def summary(self) -> str:
        """Return the barriers."""
        before, after = self.before.summary(), self.after.summary()
        return f"{self.moved:.0%} of the units moved; before: {before}; after: {after}"

    def draw(self, axes: Axes) -> None:
        """Draw the train loss on both paths."""
        for name, path in (("as it was", self.before), ("aligned", self.after)):
            axes.plot([p["t"] for p in path.points], [p["train_loss"] for p in path.points], ".-", label=name)
        axes.legend(frameon=False)
        axes.set_xlabel("t")
        axes.set_ylabel("train loss")


@dataclass(frozen=True, repr=False)
class Audit(Outcome):
    """Measures of a network and of copies that compute the same.

    Attributes
    ----------
    measured
        A dict a measure: ``measure``; its value for ``network``, ``permuted`` and ``rescaled``, which is NaN
        where no unit can be rescaled; and ``<copy>_error``, the standard error of the copy's difference from
        the network, which random draws bring.
    apart
        The greatest difference of outputs, relative, by copy.
    """

    measured: Rows
    apart: dict[str, float]

    def rows(self) -> Rows:
        """Return a dict a measure, with the copies' differences as shares of the network's value."""
        rows = []
        for row in self.measured:
            own = row["network"]
            rows.append(row | {f"{name}_change": _change(own, row[name]) for name in COPIES})
        return rows

    def moved(self, tolerance: float = 0.2) -> list[str]:
        """Return the measures that differ at a copy, by more than a share of their value and than chance.

        Chance is 2.6 standard errors: 1 of 100 differences is as great where nothing moved.
        """
        return [
            row["measure"]
            for row in self.rows()
            if any(
                abs(row[f"{name}_change"]) > tolerance
                and abs(row[name] - row["network"]) > 2.6 * row[f"{name}_error"]
                for name in COPIES
            )
        ]

    def summary(self) -> str:
        """Return what moved."""
        moved = self.moved()
        return f"moved by a symmetry, by more than 20 % and than chance: {', '.join(moved) or 'nothing'}"

    def draw(self, axes: Axes) -> None:
        """Draw the change of each measure, with 2.6 standard errors."""
        rows = self.rows()
        names = [row["measure"] for row in rows]
        for i, name in enumerate(COPIES):
            places = [k + 0.4 * i for k in range(len(rows))]
            errors = [260 * row[f"{name}_error"] / abs(row["network"] or 1.0) for row in rows]
            changes = [100 * row[f"{name}_change"] for row in rows]
            axes.barh(places, changes, height=0.38, xerr=errors, label=name, error_kw={"lw": 0.8})
        axes.set_yticks([k + 0.2 for k in range(len(rows))], names)
        axes.invert_yaxis()
        axes.legend(frameon=False)
        axes.set_xlabel("change [%]")


def align(landscape: Base, other: Weights, points: int, seed: int) -> Aligned:
    """Return the other solution aligned; parameters and errors as `Landscape.align`."""
    found = symmetries_of(landscape.evaluator)
    state = dict(other.state_dict()) if isinstance(other, nn.Module) else dict(other)
    there = landscape._state(state)
    whole = {**landscape.evaluator.model.state_dict(), **state}
    aligned, share = match(found, landscape.weights, {**whole, **there}, seed)
    after = landscape._path(landscape._state(aligned), points)
    before = landscape._path(there, points)
    kept = {name: tensor for name, tensor in aligned.items() if name in state}
    return Aligned(kept, before, after, share, names=landscape.names)


def audit(landscape: Base, directions: int, spread: float, rise: float, seed: int) -> Audit:
    """Return what symmetries do to measures; parameters and errors as `Landscape.audit`."""
    found, evaluator = symmetries_of(landscape.evaluator), landscape.evaluator
    images = evaluator.train_batches.first()
    start = copies.snapshot(evaluator.model)
    states = {"network": start, "permuted": found.permuted(start, found.random(seed))}
    if found.scaled:
        states["rescaled"] = found.rescaled(start, seed, spread)
    measured: dict[str, dict[str, tuple[float, float]]] = {}
    apart: dict[str, float] = {}
    try:
        own: list[Tensor] = []
        for name, state in states.items():
            evaluator.load(state)
            landscape._hessians.clear()
            with torch.no_grad():
                outputs = [t.clone() for t in tensors_in(evaluator.model(images))]
            own = own or outputs
            apart[name] = distance(own, outputs)
            for measure, found_here in _measures(landscape, directions, rise).items():
                measured.setdefault(measure, {})[name] = found_here
    finally:
        evaluator.load(start)
        landscape._hessians.clear()
    rows = []
    for measure, values in measured.items():
        value, error = values["network"]
        row: dict[str, Any] = {"measure": measure, "network": value}
        for name in COPIES:
            other, also = values.get(name, (math.nan, math.nan))
            row |= {name: other, f"{name}_error": math.hypot(error, also)}
        rows.append(row)
    return Audit(rows, apart, names=landscape.names)


def _measures(landscape: Any, directions: int, rise: float) -> dict[str, tuple[float, float]]:
    """Return measures at the present weights, each with its standard error: 0 where nothing is drawn."""
    found = {
        "train_loss": (landscape.loss()["train_loss"], 0.0),
        "top eigenvalue": (landscape.hessian(1).values[0], 0.0),
    }
    for one in sharpness.measure(landscape._held(), landscape.group(), SHARPNESS):
        found[one.measure] = one.value, one.error
    for kind in ("gaussian", "filter"):
        lines = [landscape.line(kind, k=k, rise=rise, points=21) for k in range(directions)]
        judged = [line.verdict() for line in lines]
        found[f"{kind}: radius"] = _mean([line.radius.radius for line in lines])
        found[f"{kind}: |index|"] = _mean([abs(one.asymmetry_index) for one in judged])
        found[f"{kind}: share asymmetric"] = _mean([float(one.status == "asymmetric") for one in judged])
    return found


def _mean(values: list[float]) -> tuple[float, float]:
    """Return the mean of the values that there are, and its standard error."""
    known = [value for value in values if math.isfinite(value)]
    if len(known) < 2:
        return (known[0] if known else math.nan), math.nan
    return statistics.mean(known), statistics.stdev(known) / math.sqrt(len(known))


def _change(own: float, other: float) -> float:
    if own == other:
        return 0.0
    return (other - own) / abs(own) if own else math.inf
