"""Simulations of the paper's two theorems in one dimension, and bounds proved in docs/theory.md.

Source of the claims: He, Huang and Yuan, "Asymmetric Valleys", NeurIPS 2019, Theorems 1 and 2. The constants
of its theorems were not at hand; what is computed here is what docs/theory.md proves, under its assumptions.

Theorem 2 (experiment 3): the mean of SGD's iterates in an asymmetric valley lies on its flat side. Chains of
``x <- x - lr * (gradient(x) + noise)`` are run side by side, with bounded noise of mean zero.
Theorem 1 (experiment 4): under a random symmetric shift of the loss, the expected loss at a point biased to
the flat side is below that at the minimum.

Valleys have their minimum, 0, at x = 0 and their flat side at x > 0. All numbers are float64. Every row of a
table has its own random streams, named by what is simulated, and every block of chains has one of its own:
neither the grid nor the number of chains changes a chain.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import product
from math import inf, isfinite, log, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valleys.errors import ValleysError

Floats = NDArray[np.float64]
Columns = dict[str, list[Any]]

BLOCK = 4096  # chains of one random stream; with another number every result changes


# Valleys --------------------------------------------------------------------------------------------


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


# Random numbers -------------------------------------------------------------------------------------


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


def _random(seed: int, name: str, block: int) -> np.random.Generator:
    """Return the random stream of a named thing's block."""
    words = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], dtype="<u4")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(*words.tolist(), block)))


# Theorem 2: chains ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chains:
    """What is kept of each chain, shape (chains,) each.

    Attributes
    ----------
    average : ndarray
        Mean of the iterates after the burn-in.
    loss : ndarray
        Mean of their losses.
    steep : ndarray
        Share of them below 0.
    first, last : ndarray
        The first of them, and the iterate after the last.
    """

    average: Floats
    loss: Floats
    steep: Floats
    first: Floats
    last: Floats


def simulate(
    valley: Valley,
    *,
    lr: float,
    noise: Noise,
    chains: int,
    iterates: int,
    burn_in: int,
    seed: int,
    name: str = "",
) -> Chains:
    """Run chains of SGD side by side, from starts uniform on +-lr c p, and average over time.

    Parameters
    ----------
    valley
        The loss.
    lr : float
        Step size.
    noise
        Added to the gradient, independently at each step.
    chains : int
        How many; the first n are the same whatever their number.
    iterates : int
        How many are averaged, after ``burn_in`` others.
    seed, name
        Of the random streams.
    """
    parts = []
    for block in range(-(-chains // BLOCK)):
        rng = _random(seed, name, block)
        parts.append(_block(valley, lr, noise, iterates, burn_in, rng))
    return Chains(
        *(np.concatenate([getattr(p, f) for p in parts])[:chains] for f in Chains.__dataclass_fields__)
    )


def _block(
    valley: Valley, lr: float, noise: Noise, iterates: int, burn_in: int, rng: np.random.Generator
) -> Chains:
    u = np.empty(BLOCK)
    total, losses, below = np.zeros(BLOCK), np.zeros(BLOCK), np.zeros(BLOCK)
    x = Noise("uniform", lr * valley.c * valley.p).of(rng.random(out=u))
    first = x.copy()
    for t in range(burn_in + iterates):
        if t == burn_in:
            first = x.copy()
        if t >= burn_in:
            total += x
            losses += valley.loss(x)
            below += x < 0
        step = valley.gradient(x)
        step += noise.of(rng.random(out=u))
        step *= lr
        x -= step
    return Chains(total / iterates, losses / iterates, below / iterates, first, x)


def average_bound(valley: Valley, lr: float, noise: Noise) -> float:
    """Return a lower bound on the mean of the average, in the long run (docs/theory.md, Theorem 2).

    NaN where its assumptions do not hold; a bound of 0 or less says nothing.
    """
    c, p, b, variance = valley.c, valley.p, noise.level, noise.variance
    if isinstance(valley, Linear):
        if b <= p:
            return lr * (c - 1) * p / 2
        m, r = noise.overshoot(p)
        m = min(c * p, m)
        at_once = variance if (c - 1) * p >= 2 * b else 0.0
        bound = lr / (2 * c * p) * ((c - 1) * variance + at_once + (c * p - m) ** 2 - r * m)
        if b <= c * p:
            bound = max(bound, lr * ((c * p**2 + variance) / (2 * p) - (p + b)))
        return bound
    if isinstance(valley, Quadratic):
        if lr * c * p > 1:
            return nan
        rho = 1 - lr * p
        least = lr**2 * variance / (1 - (1 - lr * c * p) ** 2)
        second = lr**2 * variance / (1 - rho**2)
        fourth = (6 * lr**2 * variance * rho**2 * second + lr**4 * noise.fourth) / (1 - rho**4)
        return (c - 1) / (c + 1) * max(lr * noise.mean_abs, least**1.5 / sqrt(fourth))
    if isinstance(valley, Softplus):
        beta = b / p
        if not beta < min(1.0, (c - 1) / 2) or lr * p * (1 + c) > 4 * valley.width:
            return nan
        low, high = (c - beta) / (1 + c), (c + beta) / (1 + c)
        bend = p * (1 + c) / valley.width**2 * min(s * (1 - s) * (2 * s - 1) for s in (low, high))
        curvature = p * c / (valley.width * (1 + c))
        steepest = b / -valley.point(-b)
        return bend * lr * variance / (4 * curvature * steepest)
    raise ValleysError(f"theory: no bound is known for {type(valley).__name__}")


# Theorem 1: gain ------------------------------------------------------------------------------------


def gains(valley: Valley, bias: float, shifts: Floats) -> Floats:
    """Return, for each shift, by how much the shifted loss at ``bias`` is below that at the minimum."""
    return valley.loss(shifts) - valley.loss(bias + shifts)


def exact_gain(valley: Valley, bias: float, shift: Noise) -> float:
    """Return the expected gain in closed form; NaN where there is none."""
    ends = np.array([-shift.level, shift.level])
    if shift.kind == "rademacher":
        return float(gains(valley, bias, ends).mean())
    low, high = valley.integral(ends) - valley.integral(bias + ends)
    return float((high - low) / (2 * shift.level))


def expected_slope(valley: Valley, x: float, shift: Noise) -> float:
    """Return the derivative of the expected shifted loss at x, exactly."""
    ends = x + np.array([-shift.level, shift.level])
    if shift.kind == "rademacher":
        return float(valley.gradient(ends).mean())
    low, high = valley.loss(ends)
    return float((high - low) / (2 * shift.level))


def gain_bound(valley: Valley, bias: float, shift: Noise) -> float:
    """Return the lower bound ``-bias E[L'(bias + shift)]`` on the expected gain (Theorem 1a)."""
    return -bias * expected_slope(valley, bias, shift)


def gain_limit(valley: Valley, shift: Noise) -> float:
    """Return the bias up to which the bound is positive: where the expected shifted loss is least.

    By halving, as the expected slope does not fall: from 0 (a symmetric valley) to the shift's bound, beyond
    which every shifted slope is positive.
    """
    low, high = 0.0, shift.level
    for _ in range(60):
        middle = (low + high) / 2
        if expected_slope(valley, middle, shift) < 0:
            low = middle
        else:
            high = middle
    return low


# Tables ---------------------------------------------------------------------------------------------


def run(spec: dict[str, Any]) -> dict[str, Columns]:
    """Run both experiments and return their tables, as columns of equal length.

    Parameters
    ----------
    spec : dict
        The config's block ``theory``.

    Returns
    -------
    dict
        ``theory_average`` and ``theory_gain``, with the columns declared in workflow/schemas/tables.yaml.
    """
    return {"theory_average": _stack(averages(spec)), "theory_gain": _stack(expected_gains(spec))}


def averages(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of ``theory_average``: experiment 3."""
    rows = []
    grid = product(spec["shapes"], spec["ratios"], spec["rates"], spec["noises"], spec["levels"])
    for shape, c, lr, kind, level in grid:
        valley = SHAPES[shape](c, spec["slope"], spec["width"])
        noise, lr = Noise(kind, level), float(lr)
        chains = simulate(
            valley,
            lr=lr,
            noise=noise,
            name=f"average/{shape}/{valley.c!r}/{lr!r}/{kind}/{noise.level!r}",
            **{key: spec[key] for key in ("chains", "iterates", "burn_in", "seed")},
        )
        mean, mean_se = _mean(chains.average)
        at_average = valley.loss(chains.average)
        loss, loss_se = _mean(at_average)
        iterate_loss, iterate_loss_se = _mean(chains.loss)
        kept = float(valley.loss(mean)) / iterate_loss
        moves = valley.gradient(mean) * (chains.average - mean) - kept * chains.loss  # the ratio, linearised
        steep, steep_se = _mean(chains.steep)
        bound = average_bound(valley, lr, noise)
        row = {"shape": shape, "c": valley.c, "lr": lr, "noise": kind, "level": noise.level}
        row |= {key: spec[key] for key in ("chains", "iterates", "burn_in")}
        row |= {"mean": mean, "mean_se": mean_se, "flat_share": float((chains.average > 0).mean())}
        row |= {"steep_iterates": steep, "steep_iterates_se": steep_se}
        row |= {"average_loss": loss, "average_loss_se": loss_se}
        row |= {"iterate_loss": iterate_loss, "iterate_loss_se": iterate_loss_se}
        row |= {"loss_change": loss - iterate_loss, "loss_change_se": _mean(at_average - chains.loss)[1]}
        row |= {"loss_kept": kept, "loss_kept_se": _mean(moves)[1] / iterate_loss}
        rows.append(row | {"bound_applies": isfinite(bound), "bound": bound})
    return rows


def expected_gains(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of ``theory_gain``: experiment 4."""
    rows = []
    for kind, scale in product(spec["shifts"], spec["scales"]):
        shift = Noise(kind, scale)
        blocks = range(-(-spec["draws"] // BLOCK))
        name = f"gain/{kind}/{shift.level!r}"
        drawn = np.concatenate([_random(spec["seed"], name, k).random(BLOCK) for k in blocks])
        shifts = shift.of(drawn[: spec["draws"]])
        for shape, c in product(spec["shapes"], spec["ratios"]):
            valley = SHAPES[shape](c, spec["slope"], spec["width"])
            limit = gain_limit(valley, shift)
            for share in spec["biases"]:
                bias = share * shift.level
                gain, gain_se = _mean(gains(valley, bias, shifts))
                row = {"shape": shape, "c": valley.c, "shift": kind, "scale": shift.level, "bias": bias}
                row |= {"draws": spec["draws"], "gain": gain, "gain_se": gain_se}
                row |= {"exact": exact_gain(valley, bias, shift), "bound": gain_bound(valley, bias, shift)}
                rows.append(row | {"limit": limit})
    return rows


def _mean(values: Floats) -> tuple[float, float]:
    """Return a mean and its standard error, which is infinite for one value."""
    n = len(values)
    return float(values.mean()), float(values.std(ddof=1) / sqrt(n)) if n > 1 else inf


def _stack(rows: list[dict[str, Any]]) -> Columns:
    """Turn rows into columns."""
    return {name: [row[name] for row in rows] for name in rows[0]}
