"""How far a solution is from a minimum: the gradient there, and what a step along it gains."""

from __future__ import annotations

import math

import torch
from scipy.optimize import minimize_scalar

from valleys.data.loaders import Batches
from valleys.errors import ValleysError
from valleys.landscape.ascent import Vectors
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.gradients import check_gradient, loss_and_gradient

FIRST = 1e-4
"""First step along the gradient, as a share of the norm of the weights."""
REFINED = 8
"""Passes that refine the least point between the two steps that hold it."""
BATCH = 128
"""Images at a time, where the caller has no other number: the graph of so many is alive at once."""
STEP_IMAGES = 5000
"""Train images that the step is sought on, where there are more: some 20 passes, which decide one number."""


def gradient_at_start(evaluator: Evaluator, few: Batches | None = None) -> tuple[float, float]:
    """Return the norm of the train loss's gradient at the start, and by how much the loss falls along it.

    The second says in the loss's own units how far from a minimum a solution is: a norm alone does not, as it
    has to be held against the curvature. The step is doubled until the loss rises again; Brent's method
    refines it.

    Parameters
    ----------
    evaluator
        With batch-norm statistics held (``frozen``); its weights are at the start afterwards.
    few
        A random part of its train images, on which the fall along the gradient of all is measured: it is a
        difference of losses of the same images, so that `STEP_IMAGES` of them tell it well. None: all.

    Returns
    -------
    norm, gain
        2-norm of the gradient, and the loss at the start less the least one found along minus the gradient:
        0 or more, in the loss's units. Both NaN where torch cannot differentiate the network, or gives
        another gradient than that of the losses (`gradients.check_gradient`), or a loss or gradient is not
        finite.

    Raises
    ------
    torch.OutOfMemoryError
        When the graph of a batch does not fit.
    """
    evaluator.reset()
    names = [name for name, parameter in evaluator.parameters.items() if parameter.is_floating_point()]
    try:
        check_gradient(evaluator, names)
        base, gradient = loss_and_gradient(evaluator, names)
    except torch.OutOfMemoryError:
        raise  # a RuntimeError too, which a smaller batch would not have
    except (RuntimeError, ValleysError):
        return math.nan, math.nan
    norm = float(gradient.double().norm())
    if not (math.isfinite(base) and math.isfinite(norm)):
        return math.nan, math.nan
    if norm == 0:
        return 0.0, 0.0
    direction = Vectors(evaluator.parameters, names).direction(-gradient / norm)
    size = float(sum(evaluator.start[name].double().square().sum() for name in names)) ** 0.5
    try:
        return norm, _fall(evaluator if few is None else evaluator.on(few), direction, FIRST * (size or 1.0))
    finally:
        evaluator.reset()


def _fall(evaluator: Evaluator, direction: dict, first: float) -> float:
    def loss(step: float) -> float:
        evaluator.move(direction, step)
        value = evaluator.train_loss()[0]
        return math.inf if math.isnan(value) else value

    at, least, step, value = 0.0, loss(0.0), first, loss(first)
    base = least
    while value < least and step < first * 2.0**40:
        at, least = step, value
        step *= 2
        value = loss(step)
    found = minimize_scalar(loss, bounds=(at / 2, step), method="bounded", options={"maxiter": REFINED})
    return max(0.0, base - min(least, float(found.fun)))
