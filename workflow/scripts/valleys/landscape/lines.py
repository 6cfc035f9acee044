"""Curves along a direction or between two solutions, at offsets that are given; and how far to go."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from valleys.asymmetry.grids import RISE_TOLERANCE
from valleys.errors import ValleysError, did_you_mean
from valleys.landscape.evaluator import Evaluator, check_finite
from valleys.networks.tensors import movable, vector_norm


class CurvePoint(TypedDict):
    """A point of a line: its offset, the values of `Point`, and the slope where it was asked for.

    ``by_image`` (split to a tensor of losses) is there if the evaluator was told what its images are drawn
    from; `with_errors` puts its columns in the place of that.
    """

    offset: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    train_slope: float | None
    by_image: NotRequired[dict[str, Tensor]]


def line_offsets(radius: float, points: int) -> list[float]:
    """Return `points` (odd) evenly spaced offsets from -radius to radius; the middle one is exactly 0.

    Raises
    ------
    ValleysError
        When `points` is even or below 3, or `radius` is not finite.
    """
    if points < 3 or points % 2 != 1 or not math.isfinite(radius):
        raise ValleysError(
            f"line_offsets: {points} points to {radius}; give an odd number of 3 or more and a finite radius"
        )
    half = points // 2
    return [radius * i / half for i in range(-half, half + 1)]


def probe_line(
    evaluator: Evaluator | nn.Module,
    direction: Mapping[str, Tensor],
    offsets: Iterable[float] | None = None,
    exact: bool = False,
    progress: Callable[[Iterable[float]], Iterable[float]] = iter,
    **given: Any,
) -> list[CurvePoint]:
    """Return ``offset``, the four values of `Point` and ``train_slope`` at each offset.

    Parameters
    ----------
    evaluator
        Starts at the solution. Or the network itself, with what `Evaluator` takes besides as `given`; for
        more than one line an evaluator made once spares reading the images each time.
    direction
        By parameter name, of the parameters' shapes; parameters that are not in it stay.
    offsets
        In 2-norm units of `direction`, if that has norm 1. None: 41 from -R to R, with R where the train
        loss has risen by 1 (`find_radius`).
    exact
        Whether to take slopes, in units of loss per unit of offset, by `Evaluator.train_slope`; else they are
        None. They change none of the other values.
    progress
        Wraps the offsets, as ``tqdm`` does.
    given
        ``train``, ``test``, ``loss``, ``bn`` and the other parameters of `Evaluator`, for a network.

    Raises
    ------
    ValleysError
        When `direction` does not fit the network, an offset is not finite, the train loss at offset 0 is not,
        or as `Evaluator`.
    """
    if not isinstance(evaluator, Evaluator):
        evaluator = _evaluator(evaluator, given)
    elif given:
        raise ValleysError(f"probe_line: {', '.join(given)} is settled by the evaluator; leave it out")
    check_direction(direction, evaluator.parameters)
    if offsets is None:
        norm = vector_norm(evaluator.parameters)
        radius = find_radius(evaluator, direction, rise=1.0, first=norm / 50, cap=2 * norm)
        offsets = line_offsets(radius.radius, 41)
    offsets = _checked_offsets(offsets)
    rows: list[CurvePoint] = []
    try:
        for offset in progress(offsets):
            evaluator.move(direction, offset)
            slope = evaluator.train_slope(direction) if exact else None
            point = evaluator.point() if offset else evaluator.at_start()
            if not offset:
                check_finite("the solution", point.train_loss)
            rows.append(
                {
                    "offset": offset,
                    "train_loss": point.train_loss,
                    "train_accuracy": point.train_accuracy,
                    "test_loss": point.test_loss,
                    "test_accuracy": point.test_accuracy,
                    "train_slope": slope,
                }
            )
            if evaluator.drawn_from:
                rows[-1]["by_image"] = dict(evaluator.by_image)
    finally:
        evaluator.reset()
    return rows


def _evaluator(model: object, given: Mapping[str, Any]) -> Evaluator:
    if not isinstance(model, nn.Module):
        raise ValleysError(f"probe_line: {type(model).__name__} is neither a network nor an Evaluator")
    if "train" not in given:
        raise ValleysError("probe_line: a network needs train, a loader of (images, labels), beside it")
    return Evaluator(model, **given)


def _checked_offsets(offsets: Any) -> list[float]:
    try:
        found = [float(offset) for offset in offsets]
    except (TypeError, ValueError) as error:
        raise ValleysError(f"offsets: not a list of numbers ({error})") from error
    if strange := [offset for offset in found if not abs(offset) <= torch.finfo(torch.float32).max]:
        raise ValleysError(f"offsets: {strange[0]} is not finite in float32; give finite numbers")
    return found


def check_direction(direction: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    """Raise unless a direction has finite entries, not all 0, of parameters' names and shapes."""
    if not isinstance(direction, Mapping) or not direction:
        what = f"a {type(direction).__name__}" if not isinstance(direction, Mapping) else "without entries"
        raise ValleysError(f"direction: it is {what}; give tensors by parameter name")
    for name, tensor in direction.items():
        if not isinstance(tensor, Tensor):
            raise ValleysError(f"direction: {name!r} is a {type(tensor).__name__}; it must be a tensor")
        if name not in parameters:
            near = did_you_mean(name, parameters)
            raise ValleysError(f"direction: the network has no parameter {name!r}{near}")
        if tensor.shape != parameters[name].shape:
            raise ValleysError(
                f"direction: {name!r} has shape {tuple(tensor.shape)}; that of the parameter is "
                f"{tuple(parameters[name].shape)}"
            )
        own = parameters[name].dtype
        if not movable(parameters[name]) or (tensor.is_complex() and not own.is_complex):
            raise ValleysError(
                f"direction: {name!r} is {tensor.dtype} and the parameter {own}, through which there is no "
                "such line; leave it out"
            )
        if not torch.isfinite(tensor).all():
            raise ValleysError(f"direction: {name!r} has values that are not finite")
    if not any(tensor.any() for tensor in direction.values()):
        raise ValleysError(
            "direction: all of its values are 0, so the line has length zero; of a difference of weights, "
            "give two that differ"
        )


def interpolate(
    evaluator: Evaluator,
    move: Callable[[float], None],
    ts: Iterable[float],
    report: Callable[[int], None] = print,
) -> list[dict[str, float]]:
    """Return ``t`` and the values of `Point` at each t; ``move(t)`` sets the evaluator's weights."""
    rows = []
    try:
        for t in ts:
            move(t)
            rows.append({"t": t, **evaluator.point().asdict()})
            report(len(rows))
    finally:
        evaluator.reset()
    return rows


@dataclass(frozen=True)
class Radius:
    """A radius and how it came about.

    Attributes
    ----------
    radius : float
        In 2-norm units of the direction.
    status : str
        ``fixed``; ``found``; ``capped``: the rise is not met within reach; ``jump``: the loss leaps over the
        target, or is no longer finite, so that no radius has that rise.
    """

    radius: float
    status: str


def find_radius(
    evaluator: Evaluator,
    direction: Mapping[str, Tensor],
    *,
    rise: float,
    first: float,
    cap: float,
    tolerance: float = RISE_TOLERANCE,
) -> Radius:
    """Find R so that the larger of ``phi(R) - phi(0)`` and ``phi(-R) - phi(0)`` is `rise`, on train loss.

    Bracketing by doubling or halving from `first`; then, as a rise is close to a power of R, the power law
    through the bracket's ends says where to look next (bisection of log R where an end has no finite
    positive rise, and in every third step, so that the bracket shrinks whatever the curve). Ends when the
    rise is within `tolerance` (relative) of its target or the bracket is narrower than 1 %. A loss of NaN or
    infinity counts as a rise beyond any target, one of minus infinity as a fall.

    Parameters
    ----------
    rise
        Target in the loss's units (nats for cross-entropy).
    first, cap
        First trial and greatest radius allowed, in 2-norm units.

    Returns
    -------
    Radius
        ``found``; ``capped``, with `cap`, when the rise is not met there; ``jump`` when within that last
        1 % the loss rises by more than `rise` at once or stops being finite. Of the latter it is the end of
        the bracket that is nearer to 0.

    Raises
    ------
    ValleysError
        A `rise`, `first` or `cap` that is not a positive number, a direction that does not fit the network,
        or a loss at 0 that is not finite.
    """
    if isinstance(evaluator, nn.Module):
        raise ValleysError("find_radius: a network is no evaluator; give Evaluator(model, train, loss=loss)")
    if isinstance(evaluator, Evaluator):  # not a function of one's own in its place
        check_direction(direction, evaluator.parameters)
    try:
        base = evaluator.at_start().train_loss
        check_finite("the solution", base)
        for name, value in (("rise", rise), ("first", first), ("cap", cap)):
            if not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
                why = "; are all weights 0?" if value == 0 else ""
                raise ValleysError(f"find_radius: {name}: {value!r} is not a finite number above 0{why}")

        def larger(radius: float) -> float:
            rises = []
            for sign in (1.0, -1.0):
                evaluator.move(direction, sign * radius)
                value = evaluator.train_loss()[0] - base
                rises.append(math.inf if math.isnan(value) else value)
            return max(rises)

        def met(value: float) -> bool:
            return abs(value - rise) <= tolerance * rise

        low = high = min(first, cap)
        at_low = at_high = larger(high)
        while at_high < rise and not met(at_high):
            if high >= cap:
                return Radius(cap, "capped")
            low, at_low = high, at_high
            high = min(2 * high, cap)
            at_high = larger(high)
        # Not below 2**-40 of the first trial: a loss that jumps at once has no radius to find.
        while at_low >= rise and not met(at_low) and low > first * 2.0**-40:
            high, at_high = low, at_low
            low = low / 2
            at_low = larger(low)
        for trial in range(30):
            for radius, value in ((low, at_low), (high, at_high)):
                if met(value):
                    return Radius(radius, "found")
            share = 0.5
            if trial % 3 < 2 and at_low > 0 and math.isfinite(at_high) and at_high > at_low:
                share = math.log(rise / at_low) / math.log(at_high / at_low)
            middle = low * (high / low) ** min(max(share, 0.02), 0.98)
            value = larger(middle)
            if value < rise:
                low, at_low = middle, value
            else:
                high, at_high = middle, value
            if high / low < 1.01:
                break
        if not math.isfinite(at_high):
            return Radius(low, "jump")
        steep = at_low >= rise or at_high - at_low > rise
        return Radius(math.sqrt(low * high), "jump" if steep else "found")
    finally:
        evaluator.reset()


def check_against(where: str, found: float, stored: float, tolerance: float = 1e-5, on: str = "line") -> None:
    """Raise unless a line's (or plane's: `on`) train loss at a stored solution equals that solution's own.

    Raises
    ------
    ValleysError
        When they differ by more than `tolerance` (relative, plus as much absolutely): it does not pass
        through the solution, or was measured on other images or another BN policy. When `stored` is not
        finite.
    """
    check_finite(where, stored)
    if not abs(found - stored) <= tolerance * (1.0 + abs(stored)):
        raise ValleysError(
            f"self-check failed: {where} has train loss {found:.8g} on the {on} and {stored:.8g} when the "
            f"stored solution is evaluated by itself; delete the cell's cached solutions and rerun"
        )
