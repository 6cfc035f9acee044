"""Top eigenvectors of the Hessian of the train loss, by curvlinops' operator and ARPACK's Lanczos iteration.

Apart from ``valleys.directions``, and imported by nothing but the job that needs it: curvlinops takes as long
to import as torch, and only this kind of direction uses it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import torch
from curvlinops import HessianLinearOperator
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, eigsh
from torch import Tensor, nn

from valleys import networks
from valleys.data import Split
from valleys.directions import Direction
from valleys.errors import ValleysError
from valleys.files import stable_seed
from valleys.losses import Loss

log = logging.getLogger("valleys")


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

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.split.batches(self.batch_size)


def hessian_eigenvectors(
    model: nn.Module, split: Split, loss: Loss, names: list[str], k: int, batch_size: int = 128
) -> tuple[list[Direction], list[float]]:
    """Return the eigenvectors of the `k` algebraically largest eigenvalues of the Hessian of the mean loss.

    Batch norm in eval mode: the statistics stored with the solution, held fixed. Products with the Hessian
    are taken in the weights' own precision, batch by batch; the iteration runs in float64 from a fixed start,
    so the result is the same on every run. It ends when each residual is below ten roundings of the
    eigenvalue, which bounds the eigenvalue's error; an eigenvector's is that over its gap to the next one. Of
    an eigenvalue that occurs more than once, Lanczos iteration may find fewer vectors than there are.

    Parameters
    ----------
    model
        The solution; not changed.
    split
        Images whose mean loss is differentiated.
    loss
        ``loss(logits, labels) -> (N,)``.
    names
        The parameters to differentiate by, in the model's order; all others are constants.
    k
        How many; below the number of entries of these parameters.

    Returns
    -------
    directions, eigenvalues
        By decreasing eigenvalue; unit 2-norm to rounding, the entry of largest magnitude positive.

    Raises
    ------
    ValleysError
        When k is too large, the Hessian is not finite or zero, or the iteration does not converge; for a
        network that is no function of its weights, or whose derivative by torch is not the loss's
        (`networks.differentiable`).
    """
    own = dict(model.named_parameters())
    weights = [own[name] for name in names]
    entries = sum(w.numel() for w in weights)
    if k >= entries:
        raise ValleysError(
            f"hessian gives at most {entries - 1} eigenvectors over a group of {entries} parameters, "
            f"not {k}; lower the probe's n or widen its group"
        )
    net = networks.differentiable(model, split.batches(networks.SOME), loss, names)
    own = dict(net.named_parameters())
    weights = [own[name] for name in names]
    operator = HessianLinearOperator(
        net,
        _MeanLoss(loss),
        weights,
        _Batches(split, batch_size),
        num_data=len(split),
        check_deterministic=False,  # that was checked; theirs costs as much as four products
    )
    products = operator.to_scipy()
    start = np.random.default_rng(stable_seed("hessian", entries)).standard_normal(entries)
    first = products @ start
    if not np.isfinite(first).all():
        raise ValleysError("the Hessian of the train loss is not finite at this solution")
    if not first.any():
        raise ValleysError(
            "the Hessian of the train loss is zero at this solution: it has no top eigenvector"
        )
    tolerance = 10 * torch.finfo(operator.dtype).eps
    try:
        values, vectors = eigsh(products, k=k, which="LA", v0=start, tol=tolerance, rng=0)
    except ArpackNoConvergence as error:
        raise ValleysError(
            f"the Hessian's top {k} eigenvectors did not converge, {len(error.eigenvalues)} did; lower n"
        ) from error
    except ArpackError as error:
        raise ValleysError(f"the Hessian's eigenvectors could not be found: {error}") from error
    order = np.argsort(-values, kind="stable")
    values, vectors = values[order], vectors[:, order]
    found = []
    for value, vector in zip(values, vectors.T, strict=True):
        residual = np.linalg.norm(products @ vector - value * vector)
        log.info("eigenvalue %.6g, residual %.2g", value, residual)
        # An eigenvector's sign is arbitrary: fix it so that a rerun gives the same direction.
        vector = vector * np.sign(vector[np.abs(vector).argmax()])
        pieces = torch.from_numpy(vector).split([w.numel() for w in weights])
        found.append({n: p.view(w.shape).to(w) for n, p, w in zip(names, pieces, weights, strict=True)})
    return found, [float(value) for value in values]
