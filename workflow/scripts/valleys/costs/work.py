"""Amounts of work, data and memory that costs are reckoned in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from valleys.costs.machine import Machine


@dataclass(frozen=True)
class Work:
    """Operations, bytes and starts of operations; adds up, and multiplies by a number of times.

    ``halves`` are operations of products in bfloat16, ``flops`` all others.
    """

    flops: float = 0.0
    bytes: float = 0.0
    layers: float = 0.0
    halves: float = 0.0

    def __add__(self, other: Work) -> Work:
        """Do both."""
        return Work(
            self.flops + other.flops,
            self.bytes + other.bytes,
            self.layers + other.layers,
            self.halves + other.halves,
        )

    def __mul__(self, times: float) -> Work:
        """Do it so many times."""
        return Work(self.flops * times, self.bytes * times, self.layers * times, self.halves * times)

    __rmul__ = __mul__

    def seconds(self, machine: Machine) -> float:
        """Return how long it takes, without starting up."""
        products = (self.flops + self.halves / machine.bf16) / machine.flops
        return products + self.bytes / machine.traffic + self.layers * machine.layer_s


@dataclass(frozen=True)
class Data:
    """Images of a data set: how many, (C, H, W), classes; whether they are counted or assumed.

    ``measured``: number and shape are those of the originals' files. ``itemsize``: bytes of one number.
    """

    train: int
    test: int
    shape: tuple[int, ...]
    classes: int
    counted: bool = True
    measured: bool = field(default=False, compare=False)
    itemsize: int = 1

    @property
    def pixels(self) -> int:
        """Numbers in one image."""
        return math.prod(self.shape)

    @property
    def each(self) -> int:
        """Bytes of one image as it is stored."""
        return self.pixels * self.itemsize

    @property
    def bytes(self) -> int:
        """Both splits, and a label of eight bytes."""
        return (self.train + self.test) * (self.each + 8)


@dataclass(frozen=True)
class Cost:
    """One job: seconds from start to end, main memory, bytes that it leaves on disk, whether on a GPU.

    ``files``: those in a folder that is its output.
    """

    seconds: float
    memory_mb: float
    disk: float
    gpu: bool = False
    files: int = 0
