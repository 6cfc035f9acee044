"""Whether refreshing batch norm alone makes another network of the one that is looked at."""

from __future__ import annotations

import math

from valleys.data import parts
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.growing import part_of

APART = 0.05
"""Train losses with stored and with refreshed statistics that are further apart, nats, are told."""
SOME = 5000
"""Train images that they are measured on, at most: they are two passes, and tell much less than a curve."""


def losses_apart(evaluator: Evaluator) -> tuple[float, float] | None:
    """Return the train loss at the start with stored and with refreshed statistics, where these are apart.

    So it is where training augments images so that their mean or variance is another, as crops with black
    borders do, where statistics were never refreshed after weights were averaged, and in a network that did
    not train.

    Parameters
    ----------
    evaluator
        Its weights are at the start afterwards.

    Returns
    -------
    stored, refreshed
        On the same `SOME` train images, drawn at random; None where they are less than `APART` apart, either
        is not finite, or batch norm is not refreshed.
    """
    if evaluator.bn != "refreshed":
        return None
    there, some = len(evaluator.train_batches), evaluator
    if there > SOME:
        some = evaluator.on(part_of(evaluator.train_batches, parts.shuffled(there, 0)[:SOME], evaluator))
    stored, refreshed = some.stored().train_loss, some.at_start().train_loss
    evaluator.reset()
    far = math.isfinite(stored) and math.isfinite(refreshed) and abs(refreshed - stored) > APART
    return (stored, refreshed) if far else None
