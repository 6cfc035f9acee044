"""Data, networks and a loss of other tasks than images with classes: what `tasks.yaml` names.

Run by itself it writes ``diabetes.csv``, which stands for a file of your own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

Pair = tuple[Tensor, Tensor]


def letters(length: int = 32) -> tuple[Pair, Pair]:
    """Return the letters of this file, cut into texts (N, length); the last one of each part is padded."""
    text = Path(__file__).read_text(encoding="utf-8")
    known = sorted(set(text))
    numbers = torch.tensor([known.index(letter) for letter in text])
    cut = 2 * len(numbers) // 3 // length * length

    def texts(part: Tensor) -> Pair:
        pieces = list(part.split(length))
        padded = nn.utils.rnn.pad_sequence(pieces, batch_first=True)
        # What is no letter does not count: its label is -100.
        return padded, nn.utils.rnn.pad_sequence(pieces, batch_first=True, padding_value=-100)

    return texts(numbers[:cut]), texts(numbers[cut:])


class Transformer(nn.Module):
    """A causal transformer of one block."""

    def __init__(self, tokens: int, length: int, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.place = nn.Parameter(0.02 * torch.randn(length, width))
        self.block = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(width, tokens)

    def forward(self, ids: Tensor) -> Tensor:
        """Map tokens (N, T) to scores (N, T, tokens)."""
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], device=ids.device)
        return self.head(self.block(self.embed(ids) + self.place[: ids.shape[1]], src_mask=mask))


def transformer(vocab_size: int, in_shape: tuple[int]) -> nn.Module:
    """Return a network for texts; the workflow says how many tokens there are, and how long texts are."""
    return Transformer(vocab_size, in_shape[0])


def squares(train: int = 80, test: int = 40) -> tuple[DataLoader, DataLoader]:
    """Return loaders of noisy images (N, 1, 16, 16), a bright square each, and the classes of pixels."""
    generator = torch.Generator().manual_seed(0)

    def loader(count: int) -> DataLoader:
        labels = torch.zeros(count, 16, 16, dtype=torch.long)
        for image in labels:
            y, x = torch.randint(1, 9, (2,), generator=generator).tolist()
            image[y : y + 6, x : x + 6] = 1
        images = labels[:, None] + 0.5 * torch.randn(count, 1, 16, 16, generator=generator)
        labels[:, 0] = 255  # of the first row nobody has said what it is: it does not count
        return DataLoader(TensorDataset(images, labels), batch_size=20)

    return loader(train), loader(test)


class Pixels(nn.Module):
    """A small convolutional network that returns a mapping, as torchvision's do."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
            nn.Conv2d(8, classes, 3, padding=1),
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (N, C, H, W) to scores (N, classes, H, W)."""
        return {"out": self.layers(images)}


def pixels(in_chans: int, num_classes: int) -> nn.Module:
    """Return a network for masks."""
    return Pixels(in_chans, num_classes)


def huber(delta: float = 1.0) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss that forgives outliers, a value an example."""

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return F.huber_loss(outputs, labels, delta=delta, reduction="none").mean(1)

    return loss


if __name__ == "__main__":
    from sklearn.datasets import load_diabetes

    table = load_diabetes(as_frame=True).frame
    table["target"] = (table["target"] - table["target"].mean()) / table["target"].std()
    table.to_csv("diabetes.csv", index=False)
