"""Whether derivatives of a network are those of its losses: compared with differences of losses."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from valleys.errors import ValleysError
from valleys.networks.checks import check
from valleys.networks.copies import MOVE, Watch, line, shake, standing, twin
from valleys.networks.tensors import copied, distance, floats_in, movable, put_back, vector_norm

NO_GRADIENT = "use a direction that is no gradient or eigenvector"


def differs(phi: Callable[[float], float], slope: float, scale: float, eps: float) -> float | None:
    """Return the central difference that a slope at 0 is not, or None where they agree.

    The two may differ by as much as a kink or the curvature between the points can make (half the second
    difference over the step, where the slope changes one way between them) and by rounding. Some steps are
    tried, until that leaves little room. Where the two disagree then, smaller steps decide, as long as
    rounding allows: the difference goes to the derivative as the step to 0, and not to another number. Kinks
    on both sides, as networks with relu have, can bend a curve the two ways and leave no second difference.

    Parameters
    ----------
    phi
        The loss at an offset.
    slope
        Its derivative at 0, as it is to be checked.
    scale
        An offset over which `phi` changes as losses along lines do.
    eps
        Relative rounding of the loss.
    """
    if not math.isfinite(slope):
        return None
    middle = phi(0.0)

    def compared(step: float) -> tuple[float, float, float, float]:
        """Return the room that there is at a step, the distance, the difference, and rounding's part."""
        low, high = phi(-step), phi(step)
        difference = (high - low) / (2 * step)
        bend = abs(high - 2 * middle + low) / step
        rounding = 8 * eps * max(abs(low), abs(middle), abs(high)) / step
        room = 0.75 * bend + rounding + 30 * eps ** (2 / 3) * max(abs(slope), abs(difference))
        return room, abs(slope - difference), difference, rounding

    best, found = scale * eps ** (1 / 3), []
    for step in (5 * best, best, 25 * best, best / 5):
        room, off, difference, _ = compared(step)
        if math.isfinite(room):
            found.append((room, off, difference, step))
            if room <= 0.01 * max(abs(slope), abs(difference)):
                break
    if not found:
        return None
    room, off, difference, step = min(found)
    if off <= room:
        return None
    for smaller in (3, 9, 27, 81):
        room, nearer, _, rounding = compared(step / smaller)
        if nearer <= max(room, off / 4):
            return None
        if rounding > off / 4:
            break
    return difference


def differentiable(
    model: nn.Module, batches: Iterable[tuple[Any, Tensor]], loss: Any, names: Sequence[str] | None = None
) -> nn.Module:
    """Return a `standing` copy whose parameters require gradients, which are those of the mean loss.

    Parameters
    ----------
    model
        The network; not changed.
    batches
        Of images and labels; the first is looked at.
    loss
        ``loss(outputs, labels)``: a value an image.
    names
        The parameters to differentiate by; None: all.

    Raises
    ------
    ValleysError
        As `standing` and `check`; and when the loss changes otherwise along its gradient, or changes with a
        parameter that torch gives no gradient for.
    """
    net = standing(model)
    images, labels = next(iter(batches))
    eps = check(net, images, model)
    for parameter in filter(movable, net.parameters()):
        parameter.requires_grad_(True)
    found = None
    fine = doubled(net, images)
    if fine is not None:
        with contextlib.suppress(Exception):  # of a loss that takes no float64
            found = _hidden_part(*fine, labels, loss, names)
    if found is None:
        coarse = max(eps, 1e-4) if next(net.parameters()).device.type == "cuda" else eps  # TF32
        try:
            found = _hidden_part(net, images, coarse, labels, loss, names)
        except RuntimeError as error:
            reason = line(error)
            raise ValleysError(f"network: torch cannot differentiate it ({reason}); {NO_GRADIENT}") from error
    if found:
        raise ValleysError(f"{found}; {NO_GRADIENT}")
    return net


def doubled(net: nn.Module, images: Any) -> tuple[nn.Module, Any, float] | None:
    """Return a copy in float64, its images, and the rounding that is left; None if it takes no float64.

    Differences of losses say little in float32: rounding over the step is as large as a slope's error may be.
    """
    try:
        made = twin(net).double()
        converted = torch.utils._pytree.tree_map(_double, images)
        with torch.no_grad(), Watch() as watch:
            made(copied(converted))
    except Exception:
        return None
    return made, converted, watch.eps


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _hidden_part(
    net: nn.Module, images: Any, eps: float, labels: Tensor, loss: Any, names: Sequence[str] | None
) -> str:
    """Say why the gradient by torch is not that of the mean loss of a batch; empty if it is."""
    own = {n: p for n, p in net.named_parameters() if p.requires_grad and (names is None or n in set(names))}

    def value() -> Tensor:
        return loss(net(copied(images)), labels).mean()

    at_start = value()
    grads = torch.autograd.grad(at_start, list(own.values()), allow_unused=True)
    gradient = {name: g for name, g in zip(own, grads, strict=True) if g is not None}
    before = {name: parameter.detach().clone() for name, parameter in own.items()}
    size, length = vector_norm(gradient), vector_norm(before)

    def phi(offset: float) -> float:
        for name, g in gradient.items():
            own[name].data.copy_(before[name]).add_(g / size, alpha=offset)
        return float(value())

    with torch.no_grad():
        if size > 0 and math.isfinite(size):
            other = differs(phi, size, (length or 1.0) / 50, eps)
            put_back(own, before)
            if other is not None:
                return hidden(size, other)
        unused = [name for name in own if name not in gradient]
        if unused:
            kept = floats_in(net(copied(images)))
            shake({name: own[name] for name in unused}, before, MOVE)
            apart = distance(kept, floats_in(net(copied(images))))
            put_back(own, before)
            if apart > 20 * eps:
                return (
                    f"network: torch gives no gradient for {unused[0]}, but outputs depend on it: forward "
                    "hides it from differentiation (no_grad, detach, .data, numpy)"
                )
    return ""


def hidden(slope: float, difference: float) -> str:
    """Return the message for a derivative that is not the one of the losses."""
    return (
        f"network: the derivative of the loss by torch, {slope:.6g}, is not that of its values, "
        f"{difference:.6g}: a part of forward is hidden from differentiation or has a gradient of its own "
        "(detach, no_grad, inference_mode, reentrant checkpointing, straight-through)"
    )
