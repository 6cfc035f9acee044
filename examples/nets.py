"""A network of one's own: any callable that returns a `torch.nn.Module` from images to logits."""

from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions and a short cut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images in, images out."""
        return nn.functional.relu(x + self.body(x))


def build(width: int, blocks: int, num_classes: int, in_chans: int) -> nn.Module:
    """Return a small residual network; `num_classes` and `in_chans` come from the data set."""
    stem = nn.Conv2d(in_chans, width, 3, padding=1)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)]
    return nn.Sequential(stem, *(Block(width) for _ in range(blocks)), *head)
