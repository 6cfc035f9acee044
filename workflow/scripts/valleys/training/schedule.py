"""The learning rate at each step and the epochs whose weights are kept for SWA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def learning_rate(epoch: int, recipe: Mapping[str, Any]) -> float:
    """Return the rate of 0-based `epoch` (Izmailov et al. 2018, released code).

    With t = epoch / swa.start: `lr` while t <= 0.5, then linear in t down to `swa.lr` at t = 0.9, and
    `swa.lr` from there to the end.
    """
    t = epoch / max(recipe["swa"]["start"], 1)
    if t <= 0.5:
        return recipe["lr"]
    ratio = recipe["swa"]["lr"] / recipe["lr"]
    return (
        recipe["lr"] * max(1.0 - (1.0 - ratio) * (t - 0.5) / 0.4, ratio) if t < 0.9 else recipe["swa"]["lr"]
    )


def cooldown_epochs(recipe: Mapping[str, Any]) -> int:
    """Return how many epochs the rate falls for: as many as averaging has, or as the recipe says."""
    return recipe["cooldown"]["epochs"] or recipe["epochs"] - recipe["swa"]["start"]


def cooldown_rate(epoch: int, recipe: Mapping[str, Any]) -> float:
    """Return the rate of 0-based `epoch` of the cooldown: linear from the averaging rate to nothing.

    With n epochs ``lr (1 - (epoch + 1/2) / n)``, the mean over the epoch of a rate that falls at every step.
    """
    settings = recipe["cooldown"]
    first = recipe["swa"]["lr"] if settings["lr"] is None else settings["lr"]
    return first * (1 - (epoch + 0.5) / cooldown_epochs(recipe))


def kept_epochs(recipe: Mapping[str, Any]) -> list[int]:
    """Return the 1-based epochs after which the iterate is kept for averaging."""
    start, every = recipe["swa"]["start"], recipe["swa"]["every"]
    return list(range(start + every, recipe["epochs"] + 1, every))
