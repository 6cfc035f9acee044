"""Loss and accuracy of a network on a split."""

from __future__ import annotations

import torch
from torch import nn

from valleys.data.split import Split
from valleys.models import losses
from valleys.networks.copies import evaluating


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Split, loss: losses.Loss, batch_size: int = 1000
) -> tuple[float, float]:
    """Return mean loss and accuracy of `model` in eval mode, un-augmented, summed in float64."""
    total = torch.zeros((), dtype=torch.float64, device=split.device)
    hits = torch.zeros((), dtype=torch.int64, device=split.device)
    with evaluating(model):
        for images, labels in split.batches(batch_size):
            logits = model(images)
            total += loss(logits, labels).sum(dtype=torch.float64)
            hits += (logits.argmax(1) == labels).sum()
    return float(total) / len(split), int(hits) / len(split)
