"""`Landscape`: everything that this library measures around a user's own weights, from one object."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from valleys.api import alignment, averages, curves, measures
from valleys.api.base import Weights
from valleys.api.curvature import Curvature
from valleys.asymmetry.definition import Detection
from valleys.errors import ValleysError
from valleys.landscape import directions, lines, planes, searching
from valleys.landscape.kinds import DRAWN, SEARCH
from valleys.landscape.sequential import curve_until
from valleys.networks import bn_refresh
from valleys.networks.tensors import check_apart, vector_norm


class Landscape(Curvature):
    """The loss of a network around its weights, on data that does not change.

    The network is copied and never changed. All lengths are 2-norms over the parameters that a direction is
    over; losses are in the loss's own units (nats for cross-entropy).

    Parameters
    ----------
    model
        Any ``torch.nn.Module``, at the weights that are looked at.
    data
        A ``DataLoader`` or any iterable of batches, or one batch; read once, and its batches are kept. A
        batch is a pair of tensors (input, labels), or a dict, tuple or object of any depth. Then `inputs` and
        `labels` say which parts are which, where it is not plain.
    loss
        ``loss(outputs, labels)``, or ``loss(model, batch)``, whose first parameter is called ``model``,
        ``net``, ``network`` or ``module``. It returns a value an example, their mean, or a pair (sum, count):
        with padding, ignored labels or weights only the pair gives the loss of the whole set. Or a name:
        ``cross_entropy``, ``mse``; or a config block of one.
    test
        Data of the same kind to compare with; without, test losses are NaN.
    inputs, labels
        Keys, numbers or attributes of a batch: what the network is called with (several: by name, or in
        order), and the labels. By default the labels are under ``labels``, ``label``, ``targets`` or
        ``target``, or second of two, and the network is called with all the rest.
    bn
        ``refreshed``: batch-norm statistics are those of `data` at every point; ``frozen``: as stored.
    method
        How they are refreshed, ``exact`` or ``streaming`` (`valleys.refresh_bn`).
    precision
        Of the passes: ``fp32`` or ``bf16``.
    metric
        ``metric(outputs, labels)``, a value an example or their mean, which then stands in place of accuracy.
        Without, that is there where outputs are class scores. Not with ``loss(model, batch)``.
    progress
        Whether bars are shown on a terminal or in a notebook.
    name
        Of the weights, in tables.

    Raises
    ------
    ValleysError
        For data whose labels cannot be told, a loss that hangs on how data are cut into batches, and a
        network that is no function of its weights; the message says what to change.

    Examples
    --------
    >>> landscape = Landscape(model, train_loader, torch.nn.CrossEntropyLoss(), test=test_loader)
    >>> landscape.line("gaussian").verdict().status
    'symmetric'
    """

    def line(
        self,
        direction: str | Mapping[str, Tensor] = "gaussian",
        *,
        rise: float = 1.0,
        radius: float | None = None,
        points: int = 31,
        offsets: Iterable[float] | None = None,
        group: str = "all",
        k: int = 0,
        slopes: bool = False,
        until: float | None = None,
        index: bool = False,
        budget: int | None = None,
        seed: int = 0,
    ) -> curves.Line:
        """Return the loss along a direction, on both sides of the weights.

        Parameters
        ----------
        direction
            A drawn kind (``gaussian``, ``uniform``, ``filter``, ...), ``gradient``, or tensors by parameter
            name, which are scaled to unit norm.
        rise
            How high it goes: to where the larger of the two rises is this. Not with `radius` or `offsets`.
        radius, points
            Evenly spaced offsets from -radius to radius, an odd number of them.
        offsets
            Or these offsets.
        group, k
            The parameters that a drawn direction is over, and its number.
        slopes
            Whether to take exact derivatives at each point as well.
        until
            A confidence, such as 0.95: examples are added at random until the verdict by Definition 1 is
            settled at it, and points are chosen among `points`. Not with `offsets` or `slopes`.
        index
            With `until`: settle the sign of the asymmetry index (`valleys.asymmetry_index`) instead.
        budget, seed
            With `until`: examples at most, and the seed of their order.

        Raises
        ------
        ValleysError
            As `valleys.probe_line` and `valleys.find_radius`; for a confidence, or a budget, that is none.
        """
        kind = direction if isinstance(direction, str) else "given"
        unit = self._direction(direction, group, k)
        if until is not None and (offsets is not None or slopes):
            raise ValleysError(f"line: until goes without {'slopes' if slopes else 'offsets'}; drop one")
        self._tell_statistics()
        if until is not None:
            own = self._norm_of(unit)
            options = {"rise": rise, "radius": radius, "points": points, "budget": budget, "seed": seed}
            options |= {"first": own / 50, "cap": 2 * own, "constants": {"noise": curves.NOISE}}
            options["index"] = index
            self._know_counts()
            rows, *found = curve_until(self.evaluator, unit, confidence=until, **options)
            return self._line([dict(row) for row in rows], unit, kind, group, k, *found)
        bar = functools.partial(self._bar, unit="point")
        axes = () if slopes else (unit,)  # slopes differentiate the network as it is
        with self.evaluator.along(self.evaluator.start, *axes):
            if offsets is not None:
                offsets = list(offsets)
                reach = lines.Radius(max(map(abs, offsets), default=0.0), "fixed")
            elif radius is not None:
                reach, offsets = lines.Radius(float(radius), "fixed"), lines.line_offsets(radius, points)
            else:
                reach = self.radius(unit, rise=rise)
                offsets = lines.line_offsets(reach.radius, points)
            curve = lines.probe_line(self.evaluator, unit, offsets, exact=slopes, progress=bar)
        return self._line([dict(point) for point in curve], unit, kind, group, k, (), reach)

    def radius(self, direction: Mapping[str, Tensor], *, rise: float = 1.0) -> lines.Radius:
        """Return how far the weights can move along a direction until the loss has risen by `rise`."""
        self._tell_statistics()
        own = self._norm_of(direction)
        with self.evaluator.along(self.evaluator.start, direction):
            return lines.find_radius(self.evaluator, direction, rise=rise, first=own / 50, cap=2 * own)

    def verdict(self, curve: curves.Line, **constants: Any) -> Detection:
        """Return the verdict on a line by Definition 1 of the paper; parameters as `valleys.detect`'s."""
        return curve.verdict(**constants)

    def search(
        self,
        *,
        rise: float = 1.0,
        seek: str = SEARCH["seek"],
        group: str = "all",
        restarts: int = SEARCH["restarts"],
        steps: int = SEARCH["steps"],
        floor: float = SEARCH["floor"],
        seed: int = 0,
        state: Path | None = None,
    ) -> curves.Found:
        """Search for the most asymmetric direction, and judge it on examples that it was not searched on.

        Parameters and errors as `valleys.find_asymmetric`.
        """
        self._tell_statistics()
        self._know_counts()
        found = searching.find_asymmetric(
            self.evaluator,
            rise=rise,
            seek=seek,
            group=group,
            restarts=restarts,
            steps=steps,
            floor=floor,
            seed=seed,
            constants={"noise": curves.NOISE},
            state=state,
            progress=functools.partial(self._bar, unit="step"),
        )
        return curves.Found(found, group, names=self.names)

    def plane(
        self,
        first: str | Mapping[str, Tensor] = "gaussian",
        second: str | Mapping[str, Tensor] = "gaussian",
        *,
        points: int = 21,
        relative: float = 0.25,
        group: str = "all",
        state: Path | None = None,
    ) -> curves.Surface:
        """Return the loss on a square grid about the weights, along two directions.

        Parameters
        ----------
        first, second
            As `line`'s direction; the second is made orthogonal to the first.
        points
            Of a side; odd, so that the weights are one of them.
        relative
            Half a side, as a share of the 2-norm of the weights.
        group
            The parameters that drawn directions are over.
        state
            A file that keeps finished rows, so that a stopped plane goes on.
        """
        pair = self._direction(first, group, 0), self._direction(second, group, 1)
        plane = planes.spanned(self.weights, *pair)
        xs, ys = planes.sides({"points": points, "relative": relative}, [], vector_norm(self.weights))
        return self._surface(plane, xs, ys, {self.names["solution"]: self.weights}, (), state)

    def trajectory(
        self,
        checkpoints: Iterable[Weights],
        *,
        points: int = 21,
        margin: float = 0.2,
        state: Path | None = None,
    ) -> curves.Surface:
        """Return the loss on the plane of the first two principal components of checkpoints.

        Parameters
        ----------
        checkpoints
            State dicts, or networks, in the order of training; three or more.
        points, margin
            Of a side, and the room around what lies on it, as a share of its longer side.
        state
            As `plane`'s.
        """
        states = [self._state(one) for one in checkpoints]
        plane = planes.principal(lambda: states, list(self.weights)).to(self.evaluator.device)
        marks = {self.names["solution"]: self.weights}
        rows = planes.describe(plane, marks, enumerate(states, 1))
        xs, ys = planes.sides({"points": points, "margin": margin}, rows, vector_norm(self.weights))
        return self._surface(plane, xs, ys, marks, enumerate(states, 1), state)

    def path(
        self,
        other: Weights,
        *,
        points: int = 21,
        until: float | None = None,
        threshold: float = 0.1,
        budget: int | None = None,
        seed: int = 0,
    ) -> curves.Segment:
        """Return the loss on the straight line to other weights, with its barrier.

        Batch norm at the ends is as everywhere: refreshed at each point, or frozen as these weights have it.

        Parameters
        ----------
        other
            A state dict or a network of the same parameters.
        points
            Evenly spaced, both ends among them.
        until, threshold
            A confidence, such as 0.95: examples are added at random until it is settled at it whether the
            barrier is above the threshold (units of the loss).
        budget, seed
            With `until`: examples at most, and the seed of their order.
        """
        there = self._state(other)
        check_apart(self.weights, there, self.weights, "the two ends of a path")
        if until is None:
            return self._path(there, points)
        self._tell_statistics()
        self._know_counts()
        options = {"until": until, "threshold": threshold, "budget": budget, "seed": seed}
        return curves.measure_segment(self.evaluator, there, points, **options, names=self.names)

    def refresh_bn(self) -> dict[str, Tensor]:
        """Make the batch-norm statistics here those of the data; return the state dict, for one's network."""
        evaluator = self.evaluator
        evaluator.reset()
        bn_refresh.refresh_bn(evaluator.model, evaluator.train_batches, evaluator.method)
        evaluator.load(evaluator.model.state_dict())
        self._hessians.clear()
        return {name: tensor.clone() for name, tensor in evaluator.model.state_dict().items()}

    def average(
        self,
        checkpoints: Iterable[Weights],
        *,
        last: int | None = None,
        decay: float | None = None,
        weights: Sequence[float] | None = None,
        greedy: bool = False,
        most: float = 0.1,
    ) -> measures.Averaged:
        """Return an average of checkpoints, with batch norm refreshed over the data, and its losses.

        Members must lie in one basin. The barrier between each and the next, and between the first and the
        last, is measured first, and an average over one is refused.

        Parameters
        ----------
        checkpoints
            State dicts with buffers, or networks, in the order of training.
        last
            Take the last so many alone, each as much (LAWA: Kaddour 2022).
        decay
            Weights of an exponential moving average (`valleys.training.averaging.exponential_weights`).
        weights
            Or these, a number a checkpoint.
        greedy
            A greedy soup (Wortsman et al. 2022, recipe 1). It begins with the checkpoint of least test loss.
            The others are tried in the order of theirs; one joins if the average's test loss does not rise.
            So `test` is what is chosen on: judge the result on other data. Of pairs over a barrier the second
            is left out.
        most
            Greatest barrier between members, in the loss's units.

        Returns
        -------
        Averaged
            Without any of these options, of equal weight: SWA.

        Raises
        ------
        ValleysError
            For fewer than two checkpoints, a barrier above `most`, options that exclude one another, and
            as `valleys.average`.
        """
        given = list(checkpoints)
        own = [self._state(one) for one in given]
        return averages.average(self.evaluator, given, own, last, decay, weights, greedy, most)

    def align(self, other: Weights, *, points: int = 21, seed: int = 0) -> alignment.Aligned:
        """Put the units of another solution in the order in which it is nearest to this one.

        By weight matching (Ainsworth et al. 2023). What other solutions are apart by may be no more than the
        order of their units: the barrier is measured before and after, with batch norm as everywhere.

        Parameters
        ----------
        other
            A state dict with its buffers, or a network.
        points
            Of each path.
        seed
            Of the order in which groups of units are gone through.

        Raises
        ------
        ValleysError
            For a network that is not called with one tensor, that cannot be traced, or of which no units are
            known to be free (`valleys.networks.symmetries.trace`).
        """
        return alignment.align(self, other, points, seed)

    def audit(
        self, *, directions: int = 10, spread: float = 0.5, rise: float = 1.0, seed: int = 0
    ) -> alignment.Audit:
        """Measure this network and two copies that compute the same, and report which measures moved.

        One copy has its units permuted, the other has them rescaled by ``exp(spread * N(0, 1))`` where that
        changes nothing. What differs between them is no property of the function that the network computes.

        Parameters
        ----------
        directions
            Of each drawn kind, at each copy: measures over them have a sampling error, which is reported.
        spread, seed
            Of the factors and the permutation.
        rise
            That lines go to.

        Raises
        ------
        ValleysError
            As `align`.
        """
        return alignment.audit(self, directions, spread, rise, seed)

    def _direction(self, direction: str | Mapping[str, Tensor], group: str, k: int) -> directions.Direction:
        if isinstance(direction, str):
            if direction == "gradient":
                return self.gradient().direction
            if direction not in DRAWN:
                raise ValleysError(
                    f"direction: {direction!r} is none; choose from {', '.join(DRAWN)}, gradient, or give "
                    "tensors by parameter name"
                )
            return self.random_direction(direction, group=group, k=k)
        lines.check_direction(direction, self.evaluator.parameters)
        own = {name: tensor.to(self.evaluator.parameters[name]) for name, tensor in direction.items()}
        return directions.unit(own)[0]
