"""Segmentation: a small convolutional network that tells squares from their ground, pixel by pixel."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from valleys import Landscape, losses

torch.manual_seed(0)


def pictures(count: int) -> tuple[Tensor, Tensor]:
    """Return noisy images (N, 1, 16, 16) of a bright square each, and the classes of their pixels."""
    labels = torch.zeros(count, 16, 16, dtype=torch.long)
    for image in labels:
        y, x = torch.randint(1, 9, (2,)).tolist()
        image[y : y + 6, x : x + 6] = 1
    images = labels[:, None] + 0.5 * torch.randn(count, 1, 16, 16)
    labels[:, 0] = 255  # of the first row nobody has said what it is: it does not count
    return images, labels


model = nn.Sequential(
    *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
    *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1)),
)
images, labels = pictures(80)
data = [(images[i : i + 20], labels[i : i + 20]) for i in range(0, 80, 20)]
adam = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(20):
    for x, y in data:
        adam.zero_grad()
        F.cross_entropy(model(x), y, ignore_index=255).backward()
        adam.step()

landscape = Landscape(model, data, losses.segmentation, test=[pictures(40)], progress=False)
print(f"{landscape.loss()['train_loss']:.3f} nats a pixel, on test {landscape.loss()['test_loss']:.3f}")
for found in (landscape.line("uniform"), landscape.hessian(1), landscape.density(probes=2, steps=15)):
    print(found)
