"""Valleys in one dimension, and bounded noise: what the two theorems are simulated with.

Valleys have their minimum, 0, at x = 0 and their flat side at x > 0. All numbers are float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import log, nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valleys.errors import ValleysError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Valley(ABC):
    """A convex valley with its minimum, 0, at x = 0.

    Attributes
    ----------
    c : float
        How many times steeper the side x < 0 is than the side x > 0; 1 is symmetric.
    p : float
        Slope of the flat side (`Quadratic`: its curvature).
    width : float
        Length over which a `Softplus` valley is rounded; no part in the others.
    """

    c: float
    p: float = 1.0
    width: float = 0.5

    def __post_init__(self) -> None:
        """Check the numbers, and make them floats: YAML may have given whole ones."""
        for name in ("c", "p", "width"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if not (self.c >= 1 and self.p > 0 and self.width > 0):
            raise ValleysError(f"theory: {self} needs c of at least 1, and p and width above 0")

    @abstractmethod
    def loss(self, x: ArrayLike) -> Floats:
        """Return the loss."""

    @abstractmethod
    def gradient(self, x: ArrayLike) -> Floats:
        """Return the slope; at a kink that of the flat side."""

    def at_minimum(self) -> tuple[float, float]:
        """Return the slopes just left and just right of the minimum: 0, but at a kink."""
        return 0.0, 0.0

    @abstractmethod
    def integral(self, x: ArrayLike) -> Floats:
        """Return the integral of the loss from 0 to x; NaN where no elementary function is."""


class Linear(Valley):
    """Slope -c p on the left, p on the right."""

    def loss(self, x: ArrayLike) -> Floats:
        """Return the loss."""
        return self.gradient(x) * x

    def gradient(self, x: ArrayLike) -> Floats:
        """Return the slope; at the kink that of the flat side."""
        return np.where(np.less(x, 0), -self.c * self.p, self.p)

    def at_minimum(self) -> tuple[float, float]:
        """Return the slopes of the two sides."""
        return -self.c * self.p, self.p

    def integral(self, x: ArrayLike) -> Floats:
        """Return the integral of the loss from 0 to x."""
        return self.gradient(x) * np.square(x) / 2


class Quadratic(Valley):
    """Curvature c p on the left, p on the right."""

    def loss(self, x: ArrayLike) -> Floats:
        """Return the loss."""
        return self.gradient(x) * x / 2

    def gradient(self, x: ArrayLike) -> Floats:
        """Return the slope."""
        return np.where(np.less(x, 0), self.c * self.p, self.p) * x

    def integral(self, x: ArrayLike) -> Floats:
        """Return the integral of the loss from 0 to x."""
        return self.gradient(x) * np.square(x) / 6


class Softplus(Valley):
    """Two softplus functions, so that the slope runs smoothly from -c p to p over a few widths.

    The slope is ``p ((1 + c) s - c)`` with ``s = sigmoid(x / width + log c)``.
    """

    def loss(self, x: ArrayLike) -> Floats:
        """Return the loss."""
        z = np.asarray(x, dtype=np.float64) / self.width
        rise = _softplus(z + log(self.c)) - np.log1p(self.c)
        return self.p * self.width * ((1 + self.c) * rise - self.c * z)

    def gradient(self, x: ArrayLike) -> Floats:
        """Return the slope."""
        z = np.asarray(x, dtype=np.float64) * (0.5 / self.width) + 0.5 * log(self.c)
        half = 0.5 * self.p * (1 + self.c)  # sigmoid(2 z) = (1 + tanh z) / 2
        return half * np.tanh(z) + (half - self.p * self.c)

    def integral(self, x: ArrayLike) -> Floats:
        """Return NaN: it is a dilogarithm."""
        return np.full(np.shape(x), nan)

    def point(self, slope: float) -> float:
        """Return where the slope has a value strictly between -c p and p."""
        s = (self.c + slope / self.p) / (1 + self.c)
        return self.width * (log(s / (1 - s)) - log(self.c))


def _softplus(z: Floats) -> Floats:
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


SHAPES: dict[str, type[Valley]] = {"linear": Linear, "quadratic": Quadratic, "softplus": Softplus}


@dataclass(frozen=True)
class Noise:
    """Symmetric bounded random numbers: for SGD's noise and for shifts of the loss.

    Attributes
    ----------
    kind : str
        "uniform" on [-level, level], or "rademacher": -level or level.
    level : float
        The bound.
    """

    kind: str
    level: float

    def __post_init__(self) -> None:
        """Refuse kinds there are not, and make the level a float."""
        object.__setattr__(self, "level", float(self.level))
        if self.kind not in ("uniform", "rademacher"):
            raise ValleysError(f"theory: {self.kind!r} is not uniform or rademacher")

    def of(self, u: Floats) -> Floats:
        """Return the values that numbers uniform on [0, 1) stand for."""
        if self.kind == "uniform":
            return (2 * self.level) * u - self.level
        return np.copysign(self.level, u - 0.5)

    @property
    def variance(self) -> float:
        """Mean square."""
        return self.level**2 / (3 if self.kind == "uniform" else 1)

    @property
    def mean_abs(self) -> float:
        """Mean absolute value."""
        return self.level / (2 if self.kind == "uniform" else 1)

    @property
    def fourth(self) -> float:
        """Mean fourth power."""
        return self.level**4 / (5 if self.kind == "uniform" else 1)

    def overshoot(self, p: float) -> tuple[float, float]:
        """Return M and R of docs/theory.md, for a level of at least p: how far steps overshoot a point.

        With Z = p + noise and s from 0 to p + level: M is the greatest E[Z - s | Z > s], R the greatest
        E[(Z - s)+^2] / E[(Z - s)+].
        """
        most = p + self.level
        return (most / 2, 2 * most / 3) if self.kind == "uniform" else (most, most)
