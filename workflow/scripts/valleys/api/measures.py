"""Gradient, spectrum of the Hessian, sharpness and averages: what is measured of weights and no curve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from valleys.api.outcomes import Outcome, Rows
from valleys.landscape.directions import Direction
from valleys.landscape.growing import Settled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from valleys.landscape.spectrum import Density as Spectrum

Floats = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Gradient(Outcome):
    """The gradient of the train loss, batch norm held.

    Attributes
    ----------
    norm
        Its 2-norm.
    gain
        By how much the loss falls along it, as far as a line search finds: 0 at a minimum.
    direction
        The gradient over its norm, by parameter name; empty where the norm is 0.
    """

    norm: float
    gain: float
    direction: Direction

    def rows(self) -> Rows:
        """Return one row."""
        return [{"gradient_norm": self.norm, "gradient_gain": self.gain}]

    def summary(self) -> str:
        """Return norm and gain."""
        return f"gradient of norm {self.norm:.4g}; along it the loss falls by {self.gain:.3g}"

    def draw(self, axes: Axes) -> None:
        """Draw the norm by parameter."""
        sizes = [float(t.norm()) * self.norm for t in self.direction.values()]
        axes.barh(list(self.direction), sizes)
        axes.invert_yaxis()
        axes.set_xlabel("2-norm of the gradient")


@dataclass(frozen=True, repr=False)
class Eigenpairs(Outcome):
    """The top of the Hessian's spectrum.

    Attributes
    ----------
    values
        Largest first.
    residuals
        ``|H v - value v|`` of each: a bound of the value's error.
    directions
        The eigenvectors, by parameter name.
    interval, settled
        With ``until``: the interval of the largest eigenvalue, and how many examples it took. Its residual
        and eigenvector then are of half of these examples.
    """

    values: list[float]
    residuals: list[float]
    directions: list[Direction]
    interval: tuple[float, float] | None = None
    settled: Settled | None = None

    def rows(self) -> Rows:
        """Return a dict an eigenvalue."""
        rows: Rows = [
            {"eigenvalue": value, "residual": residual}
            for value, residual in zip(self.values, self.residuals, strict=True)
        ]
        if self.interval is not None:
            rows[0] |= dict(zip(("low", "high"), self.interval, strict=True))
        return rows

    def summary(self) -> str:
        """Return the largest eigenvalues."""
        if self.interval is not None:
            low, high = self.interval
            return f"eigenvalue {self.values[0]:.4g}, {low:.4g} to {high:.4g}, {self.settled}"
        return "eigenvalues " + ", ".join(f"{value:.4g}" for value in self.values[:5])

    def draw(self, axes: Axes) -> None:
        """Draw the eigenvalues."""
        axes.plot(range(1, len(self.values) + 1), self.values, "o")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("number")
        axes.set_ylabel("eigenvalue")


@dataclass(frozen=True, repr=False)
class TraceEstimate(Outcome):
    """The Hessian's trace, estimated.

    Attributes
    ----------
    value, error, low, high
        Mean over random vectors, its standard error, and the 95 % interval; with ``until`` that of this.
    samples
        The estimate of each vector.
    settled
        With ``until``: how many examples it took.
    """

    value: float
    error: float
    low: float
    high: float
    samples: Floats
    settled: Settled | None = None

    def rows(self) -> Rows:
        """Return one row."""
        return [{"trace": self.value, "error": self.error, "low": self.low, "high": self.high}]

    def summary(self) -> str:
        """Return the trace with its interval."""
        if self.settled is not None:
            return f"trace {self.value:.4g}, {self.low:.4g} to {self.high:.4g}, {self.settled}"
        return f"trace {self.value:.4g}, 95 % interval {self.low:.4g} to {self.high:.4g}"

    def draw(self, axes: Axes) -> None:
        """Draw the estimate of each vector, and their mean with its interval."""
        axes.plot(self.samples, "o", ms=3)
        axes.axhline(self.value, lw=1)
        axes.axhspan(self.low, self.high, alpha=0.2)
        axes.set_xlabel("random vector")
        axes.set_ylabel("trace")


@dataclass(frozen=True, repr=False)
class DensityEstimate(Outcome):
    """The Hessian's spectral density, estimated.

    Attributes
    ----------
    spectrum
        Nodes and weights of the quadrature (`valleys.landscape.spectrum.Density`).
    width
        Standard deviation of the Gaussian that it is smoothed by.
    """

    spectrum: Spectrum
    width: float

    def rows(self) -> Rows:
        """Return the density at 400 eigenvalues, with its standard error."""
        nodes = self.spectrum.nodes
        values = np.linspace(nodes.min() - 4 * self.width, nodes.max() + 4 * self.width, 400)
        density, error = self.spectrum.on(values, self.width)
        return [
            {"eigenvalue": float(v), "density": float(d), "error": float(e)}
            for v, d, e in zip(values, density, error, strict=True)
        ]

    def summary(self) -> str:
        """Return the extremes and the mean."""
        mean, error = self.spectrum.moment(1)
        low, high = self.spectrum.nodes.min(), self.spectrum.nodes.max()
        return f"eigenvalues {low:.4g} to {high:.4g}, mean {mean:.4g} with standard error {error:.2g}"

    def draw(self, axes: Axes) -> None:
        """Draw the density on a logarithmic axis, with a band of its standard error."""
        frame = self.frame()
        line = axes.semilogy(frame["eigenvalue"], frame["density"].clip(lower=1e-12))[0]
        axes.fill_between(
            frame["eigenvalue"],
            (frame["density"] - frame["error"]).clip(lower=1e-12),
            (frame["density"] + frame["error"]).clip(lower=1e-12),
            color=line.get_color(),
            alpha=0.25,
            lw=0,
        )
        axes.set_ylim(bottom=max(1e-9, float(frame["density"].max()) * 1e-7))
        axes.set_xlabel("eigenvalue")
        axes.set_ylabel("density")


@dataclass(frozen=True, repr=False)
class SharpnessOf(Outcome):
    """Published measures of sharpness.

    Attributes
    ----------
    measures
        A dict a measure: ``measure``, ``value``, ``low`` and ``high`` (95 %, of means over draws), ``n``,
        ``rho``.
    """

    measures: Rows

    def rows(self) -> Rows:
        """Return a dict a measure."""
        return self.measures

    def __getitem__(self, measure: str) -> float:
        """Return the value of a measure."""
        return next(row["value"] for row in self.measures if row["measure"] == measure)

    def summary(self) -> str:
        """Return all values."""
        return ", ".join(f"{row['measure']} {row['value']:.3g}" for row in self.measures)

    def draw(self, axes: Axes) -> None:
        """Draw the rises as bars, with their intervals; the width, which is a length, is in the title."""
        rises = [row for row in self.measures if row["measure"] != "filter_width"]
        names, values = ([row[key] for row in rises] for key in ("measure", "value"))
        low = [np.nan_to_num(row["value"] - row["low"]) for row in rises]
        high = [np.nan_to_num(row["high"] - row["value"]) for row in rises]
        axes.barh(names, values, xerr=[low, high])
        axes.invert_yaxis()
        axes.set_xlabel("rise in loss")
        if len(rises) < len(self.measures):
            axes.set_title(f"filter-normalised width {self['filter_width']:.3g}", fontsize="medium")


@dataclass(frozen=True, repr=False)
class Averaged(Outcome):
    """An average of checkpoints.

    Attributes
    ----------
    state
        A state dict, batch norm refreshed over the data: ``model.load_state_dict(averaged.state)``.
    losses
        A dict a checkpoint: ``number``, its ``train_loss`` and ``test_loss``, its ``weight`` in the average
        (0: left out). The last is the average's own, ``number`` -1.
    barriers
        A dict a pair that was tried: ``first``, ``second``, ``barrier``.
    """

    state: dict[str, Any]
    losses: Rows
    barriers: Rows

    @property
    def members(self) -> list[int]:
        """The numbers of the checkpoints in it, from 0."""
        return [row["number"] for row in self.losses if row["number"] >= 0 and row["weight"] > 0]

    def rows(self) -> Rows:
        """Return a dict a checkpoint, the average's own last."""
        return self.losses

    def summary(self) -> str:
        """Return what it is of, and its losses."""
        own = self.losses[-1]
        test = f", test loss {own['test_loss']:.4g}" if math.isfinite(own["test_loss"]) else ""
        count = len(self.losses) - 1
        return f"average of {len(self.members)} of {count}: train loss {own['train_loss']:.4g}{test}"

    def draw(self, axes: Axes) -> None:
        """Draw the losses of the checkpoints, and those of the average as lines."""
        each, own = self.losses[:-1], self.losses[-1]
        for i, part in enumerate(("train", "test")):
            if math.isfinite(own[f"{part}_loss"]):
                axes.plot(
                    [r["number"] for r in each], [r[f"{part}_loss"] for r in each], f"C{i}o", label=part
                )
                axes.axhline(own[f"{part}_loss"], color=f"C{i}", lw=1, ls="--")
        axes.legend(frameon=False, title="dashed: the average")
        axes.set_xlabel("checkpoint")
        axes.set_ylabel("loss")
