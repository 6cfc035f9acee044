"""Directions computed from a solution's losses or iterates: the gradient and principal components."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from valleys.data.split import Split
from valleys.errors import ValleysError
from valleys.landscape.directions import Direction
from valleys.models.losses import Loss, PerImage
from valleys.networks import checks, copies, derivatives


@torch.inference_mode(False)
@torch.enable_grad()
def gradient(model: nn.Module, split: Split, loss: Loss, batch_size: int = 500) -> Direction:
    """Return the gradient of the mean loss over a split at the model's weights, not normalised.

    Batch norm in eval mode: the statistics stored with the solution. Accumulated batch by batch, so that one
    batch's graph is alive at a time. Parameters without use have a gradient of 0, integers none. The model is
    left as it is.

    Raises
    ------
    ValleysError
        For a network that is no function of its weights, or whose derivative by torch is not the loss's
        (`derivatives.differentiable`).
    """
    loss = PerImage(loss).on_set([split.labels])
    net = derivatives.differentiable(model, split.batches(checks.SOME), loss)
    names, parameters = zip(*((n, p) for n, p in net.named_parameters() if p.requires_grad), strict=True)
    total = [torch.zeros_like(p) for p in parameters]
    for images, labels in split.batches(batch_size):
        part = loss(net(images), labels).sum() / len(split)
        for into, g in zip(total, torch.autograd.grad(part, parameters, allow_unused=True), strict=True):
            if g is not None:
                into += g
    return dict(zip(names, total, strict=True))


def principal_components(
    iterates: Iterable[Mapping[str, Tensor]], names: list[str], k: int
) -> list[Direction]:
    """Return the first `k` principal components of a trajectory's weights, by decreasing variance.

    The Gram matrix of the centred iterates is decomposed (n x n for n iterates), which takes the memory of
    the n iterates three times over and never a matrix of the size of the weights squared.

    Raises
    ------
    ValleysError
        When the trajectory has fewer than k + 1 iterates, or spans fewer than k dimensions.
    """
    states = [{n: s[n] for n in names} for s in iterates]
    if len(states) < k + 1:
        raise ValleysError(f"pca needs at least {k + 1} iterates for {k} components, there are {len(states)}")
    copies.check_real("pca", states[0])
    shapes = {n: states[0][n].shape for n in names}
    sizes = [shape.numel() for shape in shapes.values()]
    rows = torch.empty((len(states), sum(sizes)), dtype=torch.float64)
    for row in rows:
        state = states.pop(0)  # lets go of it
        torch.cat([state[n].double().reshape(-1) for n in names], out=row)
    for columns in rows.split(sizes, dim=1):
        columns -= columns.contiguous().mean(0)
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    components = []
    for i in range(k):
        if (
            values[-1 - i] <= 1e-13 * values[-1]
        ):  # rounding: scaled to unit length it would pass for a direction
            raise ValleysError(f"pca needs a trajectory of {k} dimensions, this one has {i}")
        flat = vectors[:, -1 - i] @ rows
        # An eigenvector's sign is arbitrary: fix it so that a rerun gives the same direction.
        flat = flat * torch.sign(flat[flat.abs().argmax()])
        pieces = flat.split(sizes)
        components.append({n: p.view(shapes[n]).float() for n, p in zip(names, pieces, strict=True)})
    return components
