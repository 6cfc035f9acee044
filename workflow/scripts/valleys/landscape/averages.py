"""Averages of a network's checkpoints: barriers between members first, then the mean, batch norm and losses.

Stochastic weight averaging: Izmailov et al., UAI 2018, section 3. The last k alone: Kaddour, "Stop Wasting
My Time! Saving Days of ImageNet and BERT Training with Latest Weight Averaging", 2022. Greedy soup: Wortsman
et al., "Model soups", ICML 2022, recipe 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from valleys.asymmetry.barriers import barrier
from valleys.errors import ValleysError
from valleys.landscape.evaluator import Evaluator
from valleys.networks import bn_refresh
from valleys.networks.copies import snapshot
from valleys.training import averaging

State = dict[str, Tensor]
POINTS = 5
"""Points of the line between two members, both ends among them."""


class Members:
    """Checkpoints of one network, what has been measured of them, and averages of some.

    Parameters
    ----------
    evaluator
        Of the network, with the test images that a greedy soup is chosen on. It is left at other weights.
    states
        State dicts, in the order of training.
    parameters
        Their parameters, by name; state dicts will do.

    Attributes
    ----------
    losses
        ``train_loss`` and ``test_loss`` of each.
    barriers
        Rise of the train loss over the chord by pair of numbers, the smaller first: those tried so far.
    """

    def __init__(self, evaluator: Evaluator, states: Sequence[State], parameters: Sequence[State]) -> None:
        self.evaluator, self.states, self.parameters = evaluator, states, parameters
        self.barriers: dict[tuple[int, int], float] = {}
        self.losses = [self._losses(self.load(state)) for state in states]

    def over(self, members: Sequence[int], most: float) -> tuple[float, int, int] | None:
        """Return the barrier and the numbers of the first pair that is over `most`; None of no pair.

        Pairs are each member and the next, and the first and the last.
        """
        found = ((self.barrier(first, second), first, second) for first, second in _pairs(members))
        return next((one for one in found if one[0] > most), None)

    def greatest(self, members: Sequence[int]) -> tuple[float, int, int] | None:
        """Return the greatest barrier of the pairs of `over`, with their numbers; None of one member."""
        found = [(self.barrier(first, second), first, second) for first, second in _pairs(members)]
        return max(found, default=None, key=lambda one: one[0])

    def barrier(self, first: int, second: int) -> float:
        """Return how far the train loss rises between two checkpoints, over the chord; inf if not finite."""
        pair = min(first, second), max(first, second)
        if pair not in self.barriers:
            self.barriers[pair] = self.rise(self.states[pair[0]], self.parameters[pair[1]])
        return self.barriers[pair]

    def rise(self, start: State, stop: Mapping[str, Tensor]) -> float:
        """Return the barrier on the line from a state to other parameters, as `barrier`."""
        self.load(start)
        ts, found = [i / (POINTS - 1) for i in range(POINTS)], []
        for t in ts:
            self.evaluator.between(stop, t)
            found.append(self.evaluator.train_loss()[0])
        return barrier(ts, found).height if all(map(math.isfinite, found)) else math.inf

    def greedy(self, most: float) -> list[float]:
        """Return 1 for each checkpoint that joins a greedy soup, else 0.

        It begins with the checkpoint of least test loss. The others are tried in the order of theirs; one
        joins if the average's test loss does not rise, and no barrier to a member is above `most`.

        Raises
        ------
        ValleysError
            When the evaluator has no test images.
        """
        if self.evaluator.test_batches is None:
            raise ValleysError("average: greedy chooses by the test loss; give the landscape test data")
        tests = [one["test_loss"] if math.isfinite(one["test_loss"]) else math.inf for one in self.losses]
        order = sorted(range(len(tests)), key=tests.__getitem__)
        members, best = order[:1], tests[order[0]]
        for number in order[1:]:
            if any(self.barrier(number, other) > most for other in members):
                continue
            shares = [float(i in members or i == number) for i in range(len(tests))]
            loss = self._losses(self.load(self.mean(shares)))["test_loss"]
            if loss <= best:
                members, best = [*members, number], loss
        return [float(i in members) for i in range(len(tests))]

    def mean(self, shares: Sequence[float]) -> State:
        """Return the mean of checkpoints; one alone is itself."""
        chosen = chosen_of(shares)
        if len(chosen) == 1:
            return self.states[chosen[0]]
        return averaging.average(
            [self.states[i] for i in chosen], list(self.parameters[0]), [shares[i] for i in chosen]
        )

    def measured(self, shares: Sequence[float]) -> tuple[State, dict[str, float]]:
        """Return the mean of checkpoints, batch norm refreshed over the train images, and its losses."""
        own = self._losses(self.load(self.mean(shares)))
        evaluator = self.evaluator
        evaluator.reset()
        if evaluator.bn != "none":
            bn_refresh.refresh_bn(evaluator.model, evaluator.train_batches, evaluator.method)
        return dict(snapshot(evaluator.model)), own

    def load(self, state: Mapping[str, Tensor]) -> Evaluator:
        """Make a state dict the evaluator's start; tensors that it lacks stay."""
        own = self.evaluator.model.state_dict()
        self.evaluator.load({name: state.get(name, tensor) for name, tensor in own.items()})
        return self.evaluator

    def _losses(self, evaluator: Evaluator) -> dict[str, float]:
        point = evaluator.at_start()
        return {"train_loss": point.train_loss, "test_loss": point.test_loss}


def _pairs(members: Sequence[int]) -> list[tuple[int, int]]:
    """Return each member with the next, and the first with the last, none twice."""
    pairs = [*itertools.pairwise(members), (members[0], members[-1])]
    return [pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1]]


def chosen_of(shares: Sequence[float]) -> list[int]:
    """Return the numbers of those with a share."""
    return [i for i, share in enumerate(shares) if share > 0]
