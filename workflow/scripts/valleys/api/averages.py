"""Averages of a user's checkpoints: options checked, barriers between members first, then mean and losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from valleys.api import measures
from valleys.errors import ValleysError
from valleys.landscape.averages import Members, chosen_of
from valleys.landscape.evaluator import Evaluator
from valleys.training import averaging

State = dict[str, Tensor]


def average(
    evaluator: Evaluator,
    checkpoints: Sequence[State | nn.Module],
    parameters: Sequence[State],
    last: int | None,
    decay: float | None,
    weights: Sequence[float] | None,
    greedy: bool,
    most: float,
) -> measures.Averaged:
    """Return an average of checkpoints, whose parameters are given as well; else as `Landscape.average`."""
    given = {"last": last, "decay": decay, "weights": weights, "greedy": greedy or None}
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) > 1:
        raise ValleysError(f"average: {' and '.join(chosen)} exclude one another; give one")
    count = len(checkpoints)
    if count < 2:
        raise ValleysError(f"average: {count} checkpoints are too few; give two or more")
    if last is not None and not 2 <= last <= count:
        raise ValleysError(f"average: last: {last!r} is out of range; it must be 2 to {count}, what there is")
    before = evaluator.start
    states = [dict(one.state_dict()) if isinstance(one, nn.Module) else dict(one) for one in checkpoints]
    members = Members(evaluator, states, parameters)
    try:
        if greedy:
            shares = members.greedy(most)
        else:
            shares = _shares(count, last, decay, weights)
            if over := members.over(chosen_of(shares), most):
                height, first, second = over
                raise ValleysError(
                    f"average: between checkpoints {first} and {second} the train loss rises by {height:.3g},"
                    f" above most={most:g}: they lie in no one basin; leave one out, or raise most"
                )
        return _result(members, shares)
    finally:
        evaluator.load(before)


def _shares(
    count: int, last: int | None, decay: float | None, weights: Sequence[float] | None
) -> list[float]:
    if decay is not None:
        return averaging.exponential_weights(count, decay)
    if weights is not None:
        return averaging.checked_weights(weights, count)
    return [float(i >= count - (last or count)) for i in range(count)]


def _result(members: Members, shares: Sequence[float]) -> measures.Averaged:
    """Return the average with its losses."""
    state, own = members.measured(shares)
    rows = [{"number": i, **loss, "weight": shares[i] / sum(shares)} for i, loss in enumerate(members.losses)]
    rows.append({"number": -1, **own, "weight": math.nan})
    pairs = [{"first": a, "second": b, "barrier": height} for (a, b), height in members.barriers.items()]
    return measures.Averaged(state, rows, pairs)
