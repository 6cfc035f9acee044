"""Averages of a user's checkpoints: barriers between members first, then the mean, batch norm and losses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

from valleys.api import measures
from valleys.asymmetry.barriers import barrier
from valleys.errors import ValleysError
from valleys.landscape.evaluator import Evaluator
from valleys.networks import bn_refresh
from valleys.networks.copies import snapshot
from valleys.training import averaging

State = dict[str, Tensor]
POINTS = 5
"""Points of the line between two members, both ends among them."""


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
    members = _Members(evaluator, states, parameters, most)
    try:
        if greedy:
            shares = members.greedy()
        else:
            shares = _shares(count, last, decay, weights)
            members.check_barriers([i for i, share in enumerate(shares) if share > 0])
        return members.result(shares)
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


class _Members:
    """Checkpoints, what has been measured of them, and averages of some."""

    def __init__(
        self, evaluator: Evaluator, states: list[State], parameters: Sequence[State], most: float
    ) -> None:
        self.evaluator, self.states, self.parameters, self.most = evaluator, states, parameters, most
        self.barriers: dict[tuple[int, int], float] = {}
        self.losses = [self._losses(self._load(state)) for state in states]

    def check_barriers(self, members: list[int]) -> None:
        pairs = [*itertools.pairwise(members), (members[0], members[-1])]
        for first, second in dict.fromkeys(pairs):
            if first != second and (height := self.barrier(first, second)) > self.most:
                raise ValleysError(
                    f"average: between checkpoints {first} and {second} the train loss rises by {height:.3g},"
                    f" above most={self.most:g}: they lie in no one basin; leave one out, or raise most"
                )

    def barrier(self, first: int, second: int) -> float:
        """Return how far the train loss rises between two checkpoints."""
        pair = min(first, second), max(first, second)
        if pair not in self.barriers:
            self._load(self.states[pair[0]])
            ts, losses = [i / (POINTS - 1) for i in range(POINTS)], []
            for t in ts:
                self.evaluator.between(self.parameters[pair[1]], t)
                losses.append(self.evaluator.train_loss()[0])
            finite = all(map(math.isfinite, losses))
            self.barriers[pair] = barrier(ts, losses).height if finite else math.inf
        return self.barriers[pair]

    def greedy(self) -> list[float]:
        """Return 1 for each checkpoint that joins a greedy soup, else 0."""
        tests = [loss["test_loss"] for loss in self.losses]
        if not all(map(math.isfinite, tests)):
            raise ValleysError("average: greedy chooses by the test loss; give the landscape test data")
        order = sorted(range(len(tests)), key=tests.__getitem__)
        members, best = order[:1], tests[order[0]]
        for number in order[1:]:
            if any(self.barrier(number, other) > self.most for other in members):
                continue
            shares = [float(i in members or i == number) for i in range(len(tests))]
            loss = self._losses(self._load(self.mean(shares)))["test_loss"]
            if loss <= best:
                members, best = [*members, number], loss
        return [float(i in members) for i in range(len(tests))]

    def mean(self, shares: Sequence[float]) -> State:
        """Return the mean of checkpoints; one alone is itself."""
        chosen = [i for i, share in enumerate(shares) if share > 0]
        if len(chosen) == 1:
            return self.states[chosen[0]]
        return averaging.average(
            [self.states[i] for i in chosen], list(self.parameters[0]), [shares[i] for i in chosen]
        )

    def result(self, shares: Sequence[float]) -> measures.Averaged:
        """Return the average with its losses."""
        own = self._losses(self._load(self.mean(shares)))
        evaluator = self.evaluator
        evaluator.reset()
        if evaluator.bn != "none":
            bn_refresh.refresh_bn(evaluator.model, evaluator.train_batches, evaluator.method)
        rows = [
            {"number": i, **loss, "weight": shares[i] / sum(shares)} for i, loss in enumerate(self.losses)
        ]
        rows.append({"number": -1, **own, "weight": math.nan})
        pairs = [{"first": a, "second": b, "barrier": height} for (a, b), height in self.barriers.items()]
        return measures.Averaged(dict(snapshot(evaluator.model)), rows, pairs)

    def _load(self, state: State) -> Evaluator:
        own = self.evaluator.model.state_dict()
        self.evaluator.load({name: state.get(name, tensor) for name, tensor in own.items()})
        return self.evaluator

    def _losses(self, evaluator: Evaluator) -> dict[str, float]:
        point = evaluator.at_start()
        return {"train_loss": point.train_loss, "test_loss": point.test_loss}
