"""Simulations of the paper's two theorems in one dimension, and bounds proved in docs/theory.md.

Source of the claims: He, Huang and Yuan, "Asymmetric Valleys", NeurIPS 2019, Theorems 1 and 2. Their
statements are recalled, not read. Each row says whether it is inside the recalled assumptions (`regimes`).
The bounds are what docs/theory.md proves, under its own assumptions.

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
from dataclasses import dataclass
from itertools import product
from math import inf, isfinite, nan, sqrt
from typing import Any

import numpy as np

from valleys.errors import ValleysError
from valleys.simulations.regimes import inside_theorem_1, inside_theorem_2
from valleys.simulations.shapes import SHAPES, Floats, Linear, Noise, Quadratic, Softplus, Valley

Columns = dict[str, list[Any]]

BLOCK = 4096  # chains of one random stream; with another number every result changes


# Random numbers -------------------------------------------------------------------------------------


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
    least, greatest : ndarray
        Of all iterates, those of the burn-in too.
    """

    average: Floats
    loss: Floats
    steep: Floats
    first: Floats
    last: Floats
    least: Floats
    greatest: Floats


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
    first, least, greatest = x.copy(), x.copy(), x.copy()
    for t in range(burn_in + iterates):
        if t == burn_in:
            first = x.copy()
        if t >= burn_in:
            total += x
            losses += valley.loss(x)
            below += x < 0
        np.minimum(least, x, out=least)
        np.maximum(greatest, x, out=greatest)
        step = valley.gradient(x)
        step += noise.of(rng.random(out=u))
        step *= lr
        x -= step
    return Chains(total / iterates, losses / iterates, below / iterates, first, x, least, greatest)


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
        reached = float(chains.least.min()), float(chains.greatest.max())
        row |= {"inside": inside_theorem_2(valley, noise, reached)}
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
                rows.append(row | {"limit": limit, "inside": inside_theorem_1(valley, bias, shift)})
    return rows


def _mean(values: Floats) -> tuple[float, float]:
    """Return a mean and its standard error, which is infinite for one value."""
    n = len(values)
    return float(values.mean()), float(values.std(ddof=1) / sqrt(n)) if n > 1 else inf


def _stack(rows: list[dict[str, Any]]) -> Columns:
    """Turn rows into columns."""
    return {name: [row[name] for row in rows] for name in rows[0]}
