"""Two solutions up to the order of their units: weight matching, and the barrier before and after.

Ainsworth et al., "Git Re-Basin", ICLR 2023, section 3.2. Batch norm is repaired by statistics refreshed at
every point, which Jordan et al., "REPAIR", ICLR 2023, find is needed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from valleys.asymmetry.barriers import barrier_on
from valleys.errors import ValleysError
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.lines import interpolate
from valleys.networks import symmetries
from valleys.networks.tensors import vector_norm

POINTS = 21
"""Points of the line between two solutions, both ends among them."""


def symmetries_of(evaluator: Evaluator) -> symmetries.Symmetries:
    """Return what units of the evaluator's network may be in another order (`symmetries.trace`).

    Raises
    ------
    ValleysError
        For a network that is not called with one tensor, and as `symmetries.trace`.
    """
    images = evaluator.train_batches.first()
    if not isinstance(images, Tensor):
        raise ValleysError("symmetries: they are known of networks that are called with one tensor alone")
    evaluator.reset()
    return symmetries.trace(copy.deepcopy(evaluator.model), images)


def match(
    found: symmetries.Symmetries,
    here: Mapping[str, Tensor],
    whole: Mapping[str, Tensor],
    seed: int = 0,
) -> tuple[dict[str, Tensor], float]:
    """Return a state dict with its units in the order nearest to other weights, and the share that moved.

    Parameters
    ----------
    found
        Symmetries of the network.
    here
        Parameters that stay, by name.
    whole
        The state dict to reorder, buffers too.
    seed
        Of the order in which groups of units are gone through.
    """
    order = symmetries.align(found, here, {name: whole[name] for name in here}, seed=seed)
    moved = sum(int((units != torch.arange(len(units))).sum()) for units in order.values())
    return found.permuted(whole, order), moved / sum(found.sizes[group] for group in found.moving)


def compare(evaluator: Evaluator, other: nn.Module, seed: int) -> dict[str, Any]:
    """Return the row of the table ``alignment``: barriers to another solution before and after matching.

    Parameters
    ----------
    evaluator
        At the solution that stays.
    other
        The solution whose units are reordered; not changed.
    seed
        As of `match`.

    Returns
    -------
    dict
        ``moved`` (share of units), ``points``, ``bn_policy``; with ``_before`` and ``_after`` each of
        ``distance`` (2-norm), ``train_barrier`` and ``test_barrier`` (in the loss's units; inf where a loss
        is not finite).

    Raises
    ------
    ValleysError
        As `symmetries_of`.
    """
    here = {name: evaluator.start[name].clone() for name in evaluator.parameters}
    whole = {name: tensor.detach().clone() for name, tensor in other.state_dict().items()}
    state, moved = match(symmetries_of(evaluator), here, whole, seed)
    row: dict[str, Any] = {"moved": moved, "points": POINTS, "bn_policy": evaluator.bn}
    ts = [i / (POINTS - 1) for i in range(POINTS)]
    for when, there in (("before", whole), ("after", state)):
        row[f"distance_{when}"] = vector_norm({name: there[name] - own for name, own in here.items()})
        points = interpolate(evaluator, partial(evaluator.between, there), ts, lambda count: None)
        for part in ("train", "test"):
            losses = [point[f"{part}_loss"] for point in points]
            row[f"{part}_barrier_{when}"] = barrier_on(ts, losses).height
    return row
