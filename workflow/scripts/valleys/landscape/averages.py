"""Averages of a network's checkpoints: barriers between members first, then the mean, batch norm and losses.

Stochastic weight averaging: Izmailov et al., UAI 2018, section 3. The last k alone: Kaddour, "Stop Wasting
My Time! Saving Days of ImageNet and BERT Training with Latest Weight Averaging", 2022. Greedy soup: Wortsman
et al., "Model soups", ICML 2022, recipe 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from valleys.asymmetry.barriers import barrier_on
from valleys.data.split import Split, subset_indices
from valleys.errors import ValleysError
from valleys.landscape.directions import weights_of
from valleys.landscape.evaluator import Evaluator
from valleys.models import losses
from valleys.networks import bn_refresh
from valleys.networks.copies import snapshot
from valleys.training import averaging
from valleys.training.evaluation import evaluate, solution_row

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
        return barrier_on(ts, found).height

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


def shares_of(block: Mapping[str, Any], count: int) -> list[float]:
    """Return how much each of `count` iterates counts in an average that is not chosen by losses.

    Parameters
    ----------
    block
        ``kind`` (ema, last or weighted) and the option of that kind: ``decay``, ``k`` or ``weights``.

    Raises
    ------
    ValleysError
        As `averaging.exponential_weights` and `averaging.checked_weights`.
    """
    if block["kind"] == "ema":
        return averaging.exponential_weights(count, block["decay"])
    own = [1.0] * block["k"] if block["kind"] == "last" else [float(x) for x in block["weights"]]
    return averaging.checked_weights([0.0] * (count - len(own)) + own, count)


def halves(test: Split, seed: int) -> tuple[Split, Split]:
    """Return two disjoint parts of the test images: to choose on, and to judge on.

    Drawn without replacement by `seed`; the second has the odd image. Their images keep their order.

    Raises
    ------
    ValleysError
        For fewer than two images.
    """
    if len(test) < 2:
        raise ValleysError(f"averages: {len(test)} test images leave no half to judge on; give two or more")
    chosen = torch.zeros(len(test), dtype=torch.bool)
    chosen[subset_indices(len(test), len(test) // 2, seed)] = True
    choosing, judging = (test.take(torch.nonzero(which)[:, 0]) for which in (chosen, ~chosen))
    return choosing, judging


def compare(
    swa: nn.Module,
    iterates: Mapping[int, State],
    splits: tuple[Split, Split],
    spec: Mapping[str, Any],
    seed: int,
) -> Iterator[tuple[dict[str, Any], State | None]]:
    """Yield SWA and then each average of the same iterates: its row of the table ``averages``, its state.

    Only a greedy soup is chosen on test images: on one of their `halves`. The losses that averages are
    compared by are on the other half.

    Parameters
    ----------
    swa
        The SWA solution; not changed.
    iterates
        What SWA averaged: state dicts by epoch, in order.
    splits
        All train and all test images.
    spec
        Params of the rule: ``averages`` (name to ``kind``, its option, ``most``), ``loss``, ``bn_refresh``.
    seed
        Of the halves.

    Raises
    ------
    ValleysError
        As `halves`, `Evaluator` and `averaging.average`. An average over a barrier raises nothing: its row
        names the pair, it has no losses, and its state is None.
    """
    choosing, judging = halves(splits[1], seed)
    loss, settings = losses.build(spec["loss"], splits[0].task), spec["bn_refresh"]
    evaluator = Evaluator(
        swa, splits[0], choosing, loss, method=settings["method"], batch_size=settings["batch_size"]
    )
    epochs, states, there = list(iterates), list(iterates.values()), weights_of(swa)
    members = Members(evaluator, states, [{name: state[name] for name in there} for state in states])
    own = snapshot(swa)

    def row(name: str, kind: str, shares: Sequence[float], state: State | None) -> dict[str, Any]:
        chosen = chosen_of(shares)
        found = members.greatest(chosen)
        about = {"average": name, "kind": kind, "iterates": len(chosen), "bn_policy": evaluator.bn}
        about["epochs"] = " ".join(str(epochs[i]) for i in chosen)
        height, *pair = found or (None, None, None)
        first, second = (None if i is None else epochs[i] for i in pair)
        about |= {"barrier": height, "barrier_first": first, "barrier_second": second, "refused": None}
        about["n_judged"] = len(judging)
        if state is None:
            most = spec["averages"][name]["most"]
            why = (
                f"between the iterates of epochs {first} and {second} the train loss rises by {height:.3g}, "
                f"above most={most:g}"
            )
            return about | dict.fromkeys(_MEASURED) | {"refused": why}
        about["barrier_to_swa"] = members.rise(state, there) if name != "swa" else 0.0
        members.load(state)
        measured = solution_row(evaluator.model, splits, loss, {"swa": there})
        measured["judged_loss"], measured["judged_accuracy"] = evaluate(evaluator.model, judging, loss)
        return about | {key: measured[key] for key in _MEASURED if key in measured}

    yield row("swa", "equal", [1.0] * len(states), own), None
    for name, block in spec["averages"].items():
        greedy = block["kind"] == "greedy"
        shares = members.greedy(block["most"]) if greedy else shares_of(block, len(states))
        found = None if greedy else members.greatest(chosen_of(shares))
        refused = found is not None and found[0] > block["most"]
        state = None if refused else members.measured(shares)[0]
        yield row(name, block["kind"], shares, state), state


_MEASURED = (
    "train_loss", "train_accuracy", "test_loss", "test_accuracy", "judged_loss", "judged_accuracy",
    "distance_to_swa", "barrier_to_swa",
)  # fmt: skip
