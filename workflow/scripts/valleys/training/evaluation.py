"""Loss and accuracy of a network on a split, and what the ``solutions`` table says of it; no lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from valleys.data.split import Split
from valleys.models import losses
from valleys.networks.copies import evaluating
from valleys.networks.tensors import vector_norm


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Split, loss: losses.Loss, batch_size: int = 1000
) -> tuple[float, float]:
    """Return mean loss and accuracy of `model` in eval mode, un-augmented, summed in float64.

    The accuracy is NaN where there are no classes.
    """
    each = losses.PerImage(loss)
    total = torch.zeros((), dtype=torch.float64, device=split.device)
    hits = torch.zeros((), dtype=torch.float64, device=split.device)
    with evaluating(model):
        for images, labels in split.batches(batch_size):
            outputs = model(images)
            total += each(outputs, labels).sum(dtype=torch.float64)
            found = each.hits(outputs, labels)
            hits += math.nan if found is None else found
    mean = float(total) * each.factor([split.labels]) / len(split)
    return mean, float(hits) / each.counted(split.labels)


def solution_row(
    model: nn.Module,
    splits: tuple[Split, Split],
    loss: losses.Loss,
    others: Mapping[str, Mapping[str, Tensor] | None],
) -> dict[str, Any]:
    """Return the columns of the ``solutions`` table that come of the network: as its weights are stored.

    Parameters
    ----------
    splits
        Train and test images.
    others
        Weights of the solutions that the table has distances to, by name; None where there are none.

    Returns
    -------
    dict
        ``train_loss, train_accuracy, n_train`` and those of test; ``weight_norm`` and ``distance_to_<name>``
        (2-norms); ``parameters``.
    """
    row: dict[str, Any] = {}
    own = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for part, split in zip(("train", "test"), splits, strict=True):
        row[f"{part}_loss"], row[f"{part}_accuracy"] = evaluate(model, split, loss)
        row[f"n_{part}"] = len(split)
    row["weight_norm"] = vector_norm(own)
    for name, weights in others.items():
        apart = None if weights is None else vector_norm({n: weights[n] - w for n, w in own.items()})
        row[f"distance_to_{name}"] = apart
    return row | {"parameters": sum(p.numel() for p in own.values())}
