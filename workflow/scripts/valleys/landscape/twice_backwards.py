"""Products with the Hessian of a mean loss by differentiating twice backwards, on graphs that may be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from valleys.networks.tensors import address_of, addresses_of

Loss = Callable[[Any, Tensor], Tensor]
Gradient = tuple[Tensor | None, ...]
#: Images by which it is told how much memory a graph takes.
SOME = 7


class Products:
    """The Hessian of the mean loss over batches: its products with vectors.

    A product goes back through the graph of each batch's gradient. Making that graph takes about as long as
    going back through it; where graphs are kept, each is made once.

    Parameters
    ----------
    net, loss, weights
        The network, ``loss(outputs, labels) -> (N,)``, and the parameters to differentiate by.
    batches, count
        Of images and labels, and how many images there are; read for each product where not all are kept.
    keep
        Bytes that graphs may take, of the first batches as far as that goes. It is compared with what the
        graph of a few images saves.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Loss,
        weights: list[Tensor],
        batches: Iterable[tuple[Any, Tensor]],
        count: int,
        keep: int = 0,
    ) -> None:
        self.net, self.loss, self.weights = net, loss, weights
        self.batches, self.count, self.keep = batches, count, keep
        self.sizes = [w.numel() for w in weights]
        self.release()

    def release(self) -> None:
        """Let go of the graphs."""
        self.graphs: list[Gradient] = []
        self.kept_images, self.bytes_an_image = 0, 0.0

    def operator(self) -> LinearOperator:
        """Return it as an operator of scipy, in float64."""
        return LinearOperator((sum(self.sizes), sum(self.sizes)), matvec=self, dtype=np.float64)

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """Return the product with a vector, float64 (entries,).

        Batches are added up in float64, or where graphs are kept in the weights' own format.
        """
        pieces = torch.from_numpy(np.asarray(vector, dtype=np.float64).reshape(-1)).split(self.sizes)
        along = [p.view(w.shape).to(w) for p, w in zip(pieces, self.weights, strict=True)]
        kind = None if self.keep else torch.float64
        total = [torch.zeros(w.shape, dtype=kind or w.dtype, device=w.device) for w in self.weights]
        for gradient, is_kept in self._gradients():
            parts = [
                (g, u) for g, u in zip(gradient, along, strict=True) if g is not None and g.requires_grad
            ]
            if not parts:
                continue
            of, beside = zip(*parts, strict=True)
            second = torch.autograd.grad(
                of, self.weights, beside, retain_graph=is_kept or None, allow_unused=True
            )
            for into, h in zip(total, second, strict=True):
                if h is not None:
                    into += h
        return torch.cat([t.flatten() for t in total]).double().cpu().numpy()

    def _gradients(self) -> Iterator[tuple[Gradient, bool]]:
        """Yield the gradient of each batch's part with its graph, and whether that is kept."""
        for gradient in self.graphs:
            yield gradient, True
        if self.kept_images == self.count:
            return
        have = len(self.graphs)
        for i, (images, labels) in enumerate(self.batches):
            if i < have:
                continue
            if self.keep and not self.bytes_an_image:
                self.bytes_an_image = self._saved(images, labels) or 1.0
            fits = (self.kept_images + len(labels)) * self.bytes_an_image <= self.keep
            gradient = self._gradient(images, labels)
            is_kept = bool(self.keep) and fits and i == len(self.graphs)
            if is_kept:
                self.graphs.append(gradient)
                self.kept_images += len(labels)
            yield gradient, is_kept

    def _gradient(self, images: Any, labels: Tensor) -> Gradient:
        with sdpa_kernel(SDPBackend.MATH):  # the one kernel of attention with a second derivative
            value = self.loss(self.net(images), labels).sum() / self.count
        return torch.autograd.grad(value, self.weights, create_graph=True, allow_unused=True)

    def _saved(self, images: Any, labels: Tensor) -> float:
        """Return how many bytes an image the graph of a batch's gradient saves, but for the parameters."""
        sizes: dict[int, int] = {}
        if isinstance(images, Tensor):
            images, labels = images[:SOME], labels[:SOME]

        def note(tensor: Tensor) -> Tensor:
            sizes[address_of(tensor)] = tensor.untyped_storage().nbytes()
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self._gradient(images, labels)
        own = addresses_of(self.net.parameters())
        return sum(size for address, size in sizes.items() if address not in own) / len(labels)
