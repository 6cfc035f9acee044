"""What valleys is compared with: training and probing written the plain way, as research code does it.

A `DataLoader` over PIL images with torchvision's transforms, a loss read with ``.item()`` at each batch,
`torch.optim.swa_utils.update_bn`, and at each point of a line three passes: batch-norm statistics, train
loss, test loss. Written for this comparison; nothing of the workflow uses it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from common import LIBRARY  # noqa: F401  (puts the library on the path)
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, Dataset
from valleys.data.split import Split
from valleys.torchvision_compat import import_torchvision


class Pictures(Dataset):
    """A split as PIL images with a transform."""

    def __init__(self, split: Split, augment: bool):
        transforms = import_torchvision().transforms
        self.pictures = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in split.images]
        self.labels = split.labels.tolist()
        first = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()] if augment else []
        last = [transforms.ToTensor(), transforms.Normalize(split.mean, split.std)]
        self.transform = transforms.Compose([*first, *last])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        """Return one transformed image and its label."""
        return self.transform(self.pictures[i]), self.labels[i]


def loader(split: Split, batch_size: int, train: bool, workers: int = 0) -> DataLoader:
    """Return a loader: shuffled and augmented for training."""
    return DataLoader(Pictures(split, augment=train), batch_size, shuffle=train, num_workers=workers)


def train_epoch(model: nn.Module, batches: DataLoader, optimizer: torch.optim.Optimizer) -> float:
    """Train for an epoch; return the mean loss."""
    model.train()
    total, correct, count = 0.0, 0, 0
    for images, labels in batches:
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
        correct += (logits.argmax(1) == labels).sum().item()
        count += len(labels)
    return total / count


@torch.no_grad()
def mean_loss(model: nn.Module, batches: DataLoader) -> tuple[float, float]:
    """Return mean loss and accuracy in eval mode."""
    model.eval()
    total, correct, count = 0.0, 0, 0
    for images, labels in batches:
        logits = model(images)
        total += F.cross_entropy(logits, labels).item() * len(labels)
        correct += (logits.argmax(1) == labels).sum().item()
        count += len(labels)
    return total / count, correct / count


def line(
    model: nn.Module,
    direction: Mapping[str, Tensor],
    offsets: Sequence[float],
    train: DataLoader,
    test: DataLoader,
    refresh: bool,
) -> list[tuple[float, float]]:
    """Return train and test loss at each offset."""
    values = []
    for offset in offsets:
        moved = copy.deepcopy(model)
        for name, parameter in moved.named_parameters():
            parameter.data.add_(direction[name], alpha=offset)
        if refresh:
            update_bn(train, moved)
        values.append((mean_loss(moved, train)[0], mean_loss(moved, test)[0]))
    return values
