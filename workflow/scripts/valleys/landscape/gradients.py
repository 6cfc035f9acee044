"""The train loss and its gradient at the weights that an evaluator has at present."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from valleys.data.inputs import Inputs
from valleys.landscape.evaluator import Evaluator
from valleys.models import losses
from valleys.models.precision import autocast
from valleys.networks import derivatives


def loss_and_gradient(evaluator: Evaluator, names: Sequence[str]) -> tuple[float, Tensor]:
    """Return the train loss and its gradient, in the evaluator's precision and by its batch-norm policy.

    With ``refreshed`` statistics these follow the weights, as in `refreshed_logits`: all train images are in
    one graph. Else one batch's graph is alive at a time.

    Parameters
    ----------
    evaluator
        At any weights; left as it is.
    names
        The parameters to differentiate by.

    Returns
    -------
    loss, gradient
        In the loss's units; one vector of the parameters' entries in order, 0 for those without use.

    Raises
    ------
    RuntimeError
        When torch cannot differentiate the network.
    """
    own = [evaluator.parameters[name] for name in names]
    batches, factor = evaluator.train_batches, evaluator.sets["train"].factor
    total, gradient = 0.0, None
    try:
        for parameter in own:  # themselves, as a network may refer to them in any way
            parameter.requires_grad_(True)
        with torch.enable_grad(), autocast(evaluator.device, evaluator.precision):
            images = (x for x, _ in batches)
            refreshed = evaluator.bn == "refreshed"
            outputs = evaluator.refresher.logits(images) if refreshed else map(evaluator.model, images)
            parts: list[Tensor] = []
            for batch, labels in zip(outputs, batches.labels(), strict=True):
                values = evaluator.loss(losses.full_outputs(batch), labels)
                parts.append(values.sum(dtype=torch.float64) * factor / len(batches))
                if not refreshed:
                    gradient = _added(gradient, parts[-1], own)
                    parts[-1] = parts[-1].detach()
            if refreshed:
                gradient = _added(None, sum(parts), own)
            total = sum(float(part.detach()) for part in parts)
    finally:
        for parameter in own:
            parameter.requires_grad_(False)
    return total, gradient


def check_gradient(evaluator: Evaluator, names: Sequence[str]) -> None:
    """Raise unless the gradient by torch is that of the losses, on some train images.

    Parameters
    ----------
    evaluator
        At its start; not changed.
    names
        The parameters to differentiate by.

    Raises
    ------
    ValleysError
        As `derivatives.differentiable`.
    """
    images, labels = next(iter(evaluator.train_batches))
    if isinstance(images, Tensor | Inputs):
        images, labels = images[:_SOME], labels[:_SOME]
    derivatives.differentiable(evaluator.model, iter([(images, labels)]), evaluator.loss, names)


_SOME = 32  # images that tell a gradient that is not the losses' from one that is


def _added(total: Tensor | None, loss: Tensor, own: Sequence[Tensor]) -> Tensor:
    if not loss.requires_grad:
        found: Sequence[Tensor | None] = [None] * len(own)
    else:
        found = torch.autograd.grad(loss, own, allow_unused=True)
    flat = torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(own, found, strict=True)]
    )
    return flat if total is None else total.add_(flat)
