"""Somebody's own training of torchvision's vision transformer on CIFAR-10, by a loop of the usual kind.

    python cifar10.py ../data/cifar10-parquet 0 1

The folder has train.parquet and test.parquet, as the Hugging Face hub has them.

It leaves vit-0.pt, ... with two sets of weights: those after the last step, and the average over all
steps of the last two epochs. cifar10.yaml probes them.
"""

import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from valleys.torchvision_compat import declare_operators

declare_operators()  # where torchvision was built for another torch than the one that is there
from torchvision.models import VisionTransformer  # noqa: E402

SIZES = {"image_size": 32, "patch_size": 4, "num_layers": 3, "num_heads": 4, "hidden_dim": 64, "mlp_dim": 128}
EPOCHS, AVERAGED, BATCH, RATE = 6, 2, 128, 1e-3
MEAN, STD = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])


def read(path: Path) -> tuple[Tensor, Tensor]:
    """Return images as (N, 3, 32, 32) and labels as (N,)."""
    table = pd.read_parquet(path)
    pixels = np.stack([np.asarray(Image.open(BytesIO(image["bytes"]))) for image in table["img"]])
    images = (torch.from_numpy(pixels) / 255 - MEAN) / STD
    return images.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(table["label"].to_numpy(copy=True))


def shifted(images: Tensor) -> Tensor:
    """Return a batch mirrored by chance, and moved by up to 4 pixels."""
    images = images.flip(3) if torch.rand(()) < 0.5 else images
    y, x = torch.randint(0, 9, (2,)).tolist()
    return nn.functional.pad(images, (4, 4, 4, 4))[:, :, y : y + 32, x : x + 32]


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images whose class the network gives."""
    model.eval()
    right = [
        (model(x).argmax(1) == y).sum() for x, y in zip(images.split(500), labels.split(500), strict=True)
    ]
    return float(sum(right)) / len(labels)


def main(folder: str, *seeds: str) -> None:
    """Train one network for each seed."""
    images, labels = read(Path(folder) / "train.parquet")
    test = read(Path(folder) / "test.parquet")
    for seed in map(int, seeds or ["0"]):
        torch.manual_seed(seed)
        model = VisionTransformer(num_classes=10, **SIZES)
        averaged = AveragedModel(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-len(labels) // BATCH))
        for epoch in range(EPOCHS):
            model.train()
            for at in torch.randperm(len(labels)).split(BATCH):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(shifted(images[at])), labels[at]).backward()
                optimizer.step()
                schedule.step()
                if epoch >= EPOCHS - AVERAGED:
                    averaged.update_parameters(model)
            print(f"seed {seed}, epoch {epoch + 1}: test accuracy {accuracy(model, *test):.3f}", flush=True)
        print(f"seed {seed}, averaged: test accuracy {accuracy(averaged, *test):.3f}", flush=True)
        torch.save({"model": model.state_dict(), "averaged": averaged.state_dict()}, f"vit-{seed}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
