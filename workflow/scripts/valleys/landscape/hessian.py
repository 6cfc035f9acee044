"""The Hessian of the train loss: products by curvlinops, top eigenvectors by ARPACK's Lanczos iteration.

Apart from `directions`, and imported by nothing but the job that needs it: curvlinops takes as long
to import as torch, and only this kind of direction uses it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from curvlinops import HessianLinearOperator
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn

from valleys.data.loaders import Batches
from valleys.data.split import Split
from valleys.errors import ValleysError
from valleys.landscape import krylov, twice_backwards
from valleys.landscape.directions import Direction
from valleys.models.losses import Loss, PerImage, Totals
from valleys.networks import checks, copies, derivatives
from valleys.storage.files import stable_seed

log = logging.getLogger("valleys")
#: Images that derivatives are tried on where graphs are kept: a `Landscape` has tried its network on more.
FEW = 7


class _MeanLoss(nn.Module):
    """A loss with one value an image as curvlinops takes it: a module that says how it reduces."""

    reduction = "mean"  # curvlinops weights each batch's mean by its share of the images

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.loss(logits, labels).mean()


class _Batches:
    """A split's batches, normalised anew for each product, so that no set of floats stays in memory."""

    def __init__(self, split: Split, batch_size: int) -> None:
        self.split, self.batch_size = split, batch_size

    def __len__(self) -> int:
        return len(self.split)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.split.batches(self.batch_size)

    def labels(self) -> list[Tensor]:
        return [self.split.labels]


def _first(batches: _Batches | Batches, size: int) -> tuple[Any, Tensor]:
    """Return the first images of a set and their labels, so many of them or what there is."""
    if isinstance(batches, _Batches):
        return next(batches.split.batches(size))
    images, labels = next(iter(batches))
    return images[:size], labels[:size]


def _products(
    net: nn.Module,
    loss: Loss,
    weights: list[Tensor],
    batches: _Batches | Batches,
    start: np.ndarray,
    keep: int,
) -> tuple[LinearOperator, np.ndarray, twice_backwards.Products | None]:
    """Return the Hessian over all batches and its product with `start`: curvlinops' where these are right.

    They are by forward over reverse mode, on a network whose registered parameters are replaced. Operations
    without forward mode and parameters without use, in any batch, make them fail; a network that refers to
    its parameters in a list gets others than its own. There it is differentiated twice backwards, and also
    where graphs may be kept, as that is faster; then these products come third.
    """
    count = len(batches)
    size = FEW if keep else min(getattr(batches, "batch_size", checks.SOME), checks.SOME)
    some = [_first(batches, size)]
    backward = twice_backwards.Products(net, loss, weights, batches, count, keep)
    if not isinstance(some[0][0], Tensor):  # which curvlinops takes apart in ways of its own
        return backward.operator(), backward(start), backward
    found, reasons = [], []
    trial = twice_backwards.Products(net, loss, weights, some, len(some[0][1]))
    for make in (lambda: _curvlinops(net, loss, weights, some, len(some[0][1])), trial.operator):
        try:
            found.append(make() @ start)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            found.append(None)
            reasons.append(copies.line(error))
    forwards, backwards = found
    if forwards is None and backwards is None:
        reason = f"torch cannot differentiate it twice ({reasons[1]})"
        raise ValleysError(f"network: {reason}; {derivatives.NO_GRADIENT}")
    if forwards is not None and backwards is not None:
        apart = np.linalg.norm(forwards - backwards)  # not finite: either will say so
        if apart > 0.05 * np.linalg.norm(backwards):
            forwards, reasons = None, [f"curvlinops' product is {apart:.3g} from that"]
    if keep and backwards is not None:
        return backward.operator(), backward(start), backward
    if forwards is not None:
        products = _curvlinops(net, loss, weights, batches, count)
        try:
            return products, products @ start, None
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # of another batch, as where experts get no image of it
            reasons = [copies.line(error)]
    log.info("Hessian products by differentiating twice backwards (%s)", reasons[0])
    return backward.operator(), backward(start), None


def _curvlinops(
    net: nn.Module, loss: Loss, weights: list[Tensor], batches: Iterable[tuple[Tensor, Tensor]], count: int
) -> LinearOperator:
    # Not checked for being deterministic: that was done, and costs as much as four products.
    options = {"num_data": count, "check_deterministic": False}
    return HessianLinearOperator(net, _MeanLoss(loss), weights, batches, **options).to_scipy()


class OnOthers:
    """Products with a Hessian over other images than its own (`Hessian.on`)."""

    def __init__(self, products: LinearOperator | twice_backwards.Products) -> None:
        self.products = products

    @torch.inference_mode(False)
    @torch.enable_grad()
    def __matmul__(self, vector: np.ndarray) -> np.ndarray:
        """Return the product with a vector, float64 (entries,)."""
        return self.products(vector)


class Hessian:
    """The Hessian of the mean loss over some images, by a solution's weights: products with it.

    Batch norm in eval mode: the statistics stored with the solution, held fixed. Products are taken in the
    weights' own precision, batch by batch.

    Parameters
    ----------
    model
        The solution; not changed.
    batches
        Of images and labels; read for each product.
    loss
        ``loss(logits, labels) -> (N,)``, or the batch's mean; `losses.Totals` of a network that returns it.
    names
        The parameters to differentiate by, in the model's order; all others are constants.
    keep
        Bytes that graphs of gradients may take. Products then go back through these, and are about twice as
        fast, with another rounding. 0: curvlinops' products, as the workflow has them.

    Attributes
    ----------
    entries : int
        Of these parameters together.
    products : scipy.sparse.linalg.LinearOperator
        Shape (entries, entries), float64.

    Raises
    ------
    ValleysError
        When the Hessian is not finite or zero; for a network that is no function of its weights, or whose
        derivative by torch is not the loss's (`derivatives.differentiable`).
    """

    @torch.inference_mode(False)
    @torch.enable_grad()
    def __init__(
        self,
        model: nn.Module,
        batches: _Batches | Batches,
        loss: Loss | Totals,
        names: list[str],
        keep: int = 0,
    ) -> None:
        own = dict(model.named_parameters())
        copies.check_real("hessian", {name: own[name] for name in names})
        self.per_image = loss if isinstance(loss, Totals) else PerImage(loss)
        loss = self.per_image.on_set(batches.labels())
        size = FEW if keep else checks.SOME
        net = derivatives.differentiable(model, iter([_first(batches, size)]), loss, names)
        own = dict(net.named_parameters())
        self.net = net
        self.names, self.weights = names, [own[name] for name in names]
        self.entries = sum(w.numel() for w in self.weights)
        self.start = np.random.default_rng(stable_seed("hessian", self.entries)).standard_normal(self.entries)
        self.products, first, self._kept = _products(net, loss, self.weights, batches, self.start, keep)
        self._first = first
        if not np.isfinite(first).all():
            raise ValleysError("the Hessian of the train loss is not finite at this solution")
        if not first.any():
            raise ValleysError(
                "the Hessian of the train loss is zero at this solution: it has no top eigenvector"
            )

    @torch.inference_mode(False)
    @torch.enable_grad()
    def __matmul__(self, vector: np.ndarray) -> np.ndarray:
        """Return the product with a vector, float64 (entries,)."""
        return self.products @ vector

    def release(self) -> None:
        """Let go of the graphs that are kept; the next product makes them again."""
        if self._kept is not None:
            self._kept.release()

    def on(self, batches: Batches, keep: int = 0) -> OnOthers:
        """Return products with the Hessian of the same network's loss over other images.

        Parameters
        ----------
        batches
            Of images and labels.
        keep
            Bytes that graphs may take, where these products go back through graphs.
        """
        loss, count = self.per_image.on_set(batches.labels()), len(batches)
        if self._kept is None:
            return OnOthers(_curvlinops(self.net, loss, self.weights, batches, count))
        return OnOthers(twice_backwards.Products(self.net, loss, self.weights, batches, count, keep))

    def direction(self, vector: np.ndarray) -> Direction:
        """Return a vector as tensors by name."""
        pieces = torch.from_numpy(vector).split([w.numel() for w in self.weights])
        return {
            n: p.view(w.shape).to(w.detach())
            for n, p, w in zip(self.names, pieces, self.weights, strict=True)
        }

    @torch.inference_mode(False)
    @torch.enable_grad()
    def top(self, k: int, tolerance: float | None = None) -> tuple[list[Direction], list[float], list[float]]:
        """Return the `k` algebraically largest eigenvalues, by decreasing value, with their eigenvectors.

        The iteration runs in float64 from a fixed start, so the result is the same on every run. It ends when
        each residual is below `tolerance` times the eigenvalue, which bounds the eigenvalue's error; an
        eigenvector's is that over its gap to the next one. Of an eigenvalue that occurs more than once,
        Lanczos iteration may find fewer vectors than there are. With a tolerance of one's own that is looked
        at after each product (`krylov.top`), not every ten or twenty as ARPACK does.

        Parameters
        ----------
        k
            How many; below the number of entries of these parameters.
        tolerance
            Relative; None: ten roundings of the weights' number format.

        Returns
        -------
        directions, eigenvalues, residuals
            Directions have unit 2-norm to rounding, the entry of largest magnitude positive. Residuals are
            ``|H v - value v|``.

        Raises
        ------
        ValleysError
            When k is too large, or the iteration does not converge.
        """
        _check_count(k, self.entries)
        if tolerance is not None:
            values, vectors, residuals = krylov.top(self.products, self.start, self._first, k, tolerance)
            return self._signed(vectors), [float(v) for v in values], [float(r) for r in residuals]
        tolerance = 10 * torch.finfo(self.weights[0].dtype).eps
        try:
            values, vectors = eigsh(self.products, k=k, which="LA", v0=self.start, tol=tolerance, rng=0)
        except ArpackNoConvergence as error:
            raise ValleysError(
                f"the Hessian's top {k} eigenvectors did not converge, {len(error.eigenvalues)} did; lower n"
            ) from error
        except ArpackError as error:
            raise ValleysError(f"the Hessian's eigenvectors could not be found: {error}") from error
        order = np.argsort(-values, kind="stable")
        values, vectors = values[order], vectors[:, order].T
        residuals = []
        for value, vector in zip(values, vectors, strict=True):
            residuals.append(float(np.linalg.norm(self.products @ vector - value * vector)))
            log.info("eigenvalue %.6g, residual %.2g", value, residuals[-1])
        return self._signed(vectors), [float(value) for value in values], residuals

    def _signed(self, vectors: Iterable[np.ndarray]) -> list[Direction]:
        """Return eigenvectors as directions, of a sign that is the same in a rerun: it is arbitrary."""
        return [self.direction(v * np.sign(v[np.abs(v).argmax()])) for v in vectors]


def hessian_eigenvectors(
    model: nn.Module, split: Split, loss: Loss, names: list[str], k: int, batch_size: int = 128
) -> tuple[list[Direction], list[float]]:
    """Return the eigenvectors of the `k` largest eigenvalues of the Hessian on a split: `Hessian.top`."""
    entries = sum(dict(model.named_parameters())[name].numel() for name in names)
    _check_count(k, entries)  # before anything is differentiated
    found, values, _ = Hessian(model, _Batches(split, batch_size), loss, names).top(k)
    return found, values


def _check_count(k: int, entries: int) -> None:
    if k >= entries:
        raise ValleysError(
            f"hessian gives at most {entries - 1} eigenvectors over a group of {entries} parameters, "
            f"not {k}; lower the probe's n or widen its group"
        )
