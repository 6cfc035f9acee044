"""What an ascent over directions may begin at, and what that costs: for `search.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from statistics import median

from common import rounds
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from valleys.data.split import Split
from valleys.landscape import ascent, directions
from valleys.landscape.directions import Direction
from valleys.landscape.evaluator import CROSS_ENTROPY
from valleys.landscape.hessian import hessian_eigenvectors

STARTS = ("gaussian", "uniform", "constant", "hessian", "third order")
TURNS, ANGLE = 10, 0.3  # of the third order's ascent; radians of its first turn
MANY = 10  # times the images, where costs are measured


class Counted(Split):
    """A split that counts the images it gives."""

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches, and count their images in the attribute ``given``."""
        for images, labels in super().batches(batch_size):
            self.__dict__["given"] = self.__dict__.get("given", 0) + len(labels)
            yield images, labels


def third_order(loss: Callable[[Tensor], Tensor], weights: Tensor, start: Tensor, turns: int) -> Tensor:
    """Return a direction of large ``|D3L[u, u, u]| / (u'Hu)^1.5``, in fixed shrinking turns from `start`.

    A shifted power method, ``u <- normalise(gradient + shift * u)``, whose shift is such that u turns by an
    angle chosen beforehand. Where u'Hu is below a hundredth of its value at the start, it counts as that: the
    quotient is unbounded where the curvature vanishes.
    """
    u = start / start.norm()
    least = None
    for turn in range(turns):
        product, third = derivatives(loss, weights, u)
        curvature, cubic = float(product @ u), float(third @ u)
        least = abs(curvature) / 100 if least is None else least
        up = 3 * third / cubic - 3 * product / curvature * (curvature > least)
        up = up - (up @ u) * u
        if not (bool(up.isfinite().all()) and float(up.norm()) > 0):
            break
        angle = ANGLE * (1 - turn / turns)
        u = math.cos(angle) * u + math.sin(angle) * up / up.norm()
        u = u / u.norm()
    return u


def derivatives(loss: Callable[[Tensor], Tensor], weights: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``Hu`` and ``D3L[u, u, .]``, by forward mode over forward mode over reverse mode."""

    def product(at: Tensor) -> Tensor:
        return jvp(grad(loss), (at,), (u,))[1]

    return jvp(product, (weights,), (u,))


class Starts:
    """What ascents begin at, at one minimum, on the images searched on by one seed."""

    def __init__(self, model: nn.Module, search: Split, seed: int) -> None:
        self.model, self.search, self.seed = model.eval(), search, seed
        self.names = directions.parameter_group(self.model, "all")
        own = dict(model.named_parameters())
        self.weights = {name: own[name].detach().clone() for name in self.names}
        self.vectors = ascent.Vectors(self.weights, self.names)

    def loss(self, times: int = 1) -> Callable[[Tensor], Tensor]:
        """Return the mean loss on the images, each so many times, as a function of the weights."""
        images, labels = next(self.search.batches(len(self.search)))
        images, labels = images.repeat(times, 1, 1, 1), labels.repeat(times)
        buffers = dict(self.model.named_buffers())

        def loss(at: Tensor) -> Tensor:
            outputs = functional_call(self.model, self.vectors.direction(at) | buffers, (images,))
            return CROSS_ENTROPY(outputs, labels).mean()

        return loss

    def costs(self) -> dict[str, float]:
        """Return how many passes take as long as a product, on many images: Python's share is small."""
        loss, at = self.loss(MANY), self.vectors.vector(self.weights)
        u = self.vectors.vector(self.drawn("gaussian"))
        arms = {
            "pass": lambda: grad(loss)(at),
            "product": lambda: jvp(grad(loss), (at,), (u,)),
            "third": lambda: derivatives(loss, at, u),
        }
        taken = {name: median(times) for name, times in rounds(arms, 3).items()}
        return {name: taken[name] / taken["pass"] for name in ("product", "third")}

    def drawn(self, kind: str) -> Direction:
        """Return the direction that a first ascent from a kind begins at."""
        return directions.random_direction(kind, self.weights, key=f"search/{self.seed}/all/0", k=0)[0]

    def make(self, start: str, cost: Mapping[str, float]) -> tuple[Direction, float]:
        """Return the direction of a kind of start, and the passes that it costs."""
        if start == "hessian":
            images = Counted(**{f.name: getattr(self.search, f.name) for f in fields(Split)})
            found, _ = hessian_eigenvectors(self.model, images, CROSS_ENTROPY, self.names, 1)
            return found[0], cost["product"] * vars(images)["given"] / len(images)
        if start == "third order":
            at, u = self.vectors.vector(self.weights), self.vectors.vector(self.drawn("gaussian"))
            return self.vectors.direction(third_order(self.loss(), at, u, TURNS)), TURNS * cost["third"]
        return self.drawn(start), 0.0
