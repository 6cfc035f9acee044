"""Search for a direction at a solution: as asymmetric, as symmetric or as flat as can be at a given rise.

The train images are divided at random into three parts. An ascent over directions sees the first; of all
directions that it comes by, the second chooses one; the third, and the test images, only judge that one.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from valleys.asymmetry.definition import Detection, detect, detect_many
from valleys.data import parts
from valleys.errors import ValleysError
from valleys.landscape import ascent, directions, search_rows
from valleys.landscape.directions import Direction
from valleys.landscape.evaluator import Evaluator, check_finite
from valleys.landscape.gradients import loss_and_gradient
from valleys.landscape.kinds import SEARCH
from valleys.landscape.lines import check_direction, line_offsets, probe_line
from valleys.landscape.search_options import Options
from valleys.landscape.search_rows import Seen
from valleys.networks import checks, copies, derivatives
from valleys.networks.tensors import movable
from valleys.storage.files import stable_seed
from valleys.storage.state import load_checkpoint, save_checkpoint

PARTS = {"search": 0.5, "choose": 0.25, "judge": 0.25}
"""Shares of the train images."""
GRADIENT_IMAGES = 4096  # of the gradient at w where BN is refreshed: all of them are in one graph
LEAST = 8  # train images: two in the smallest part
CHECK_EVERY = 10  # steps between looks at the images chosen on
CHECK_POINTS = 21
DRAWS, LOW = 200, 0.1  # of the bootstrap over images; the quantile of c* that chooses
SPARE = 1.5  # the flat side of a direction that is chosen rises by this many times the floor
SAVE_EVERY_S = 5.0


@dataclass(frozen=True)
class Search:
    """What a search came to.

    Attributes
    ----------
    verdict : str
        "found" or "not found" where an asymmetric direction is searched for: whether, on the images judged
        on, c* is at least c and the flat side rises by the floor. Else "measured".
    reason : str
        Why it is not found, in a line; else empty.
    direction : dict of Tensor
        The best that was seen, by parameter name, over the parameters of the group; unit 2-norm. +u is the
        flat side.
    restarts : list of dict
        A row a restart: columns of the table ``searches``.
    curves : list of dict
        Points of the curves of the direction and of the random one that its ascent began at: columns of the
        table ``search_curves``.
    """

    verdict: str
    reason: str
    direction: Direction
    restarts: list[dict[str, Any]]
    curves: list[dict[str, Any]]

    @property
    def best(self) -> dict[str, Any]:
        """The row of the restart that gave the direction."""
        return next(row for row in self.restarts if row["chosen"])

    @property
    def passes(self) -> int:
        """Passes forward and backward over the images searched on, of all restarts."""
        return sum(row["passes"] for row in self.restarts)


def find_asymmetric(
    evaluator: Evaluator | nn.Module,
    *,
    rise: float = 1.0,
    group: str = "all",
    seek: str = SEARCH["seek"],
    restarts: int = SEARCH["restarts"],
    steps: int = SEARCH["steps"],
    floor: float = SEARCH["floor"],
    points: int = 41,
    seed: int | str = 0,
    start: str | Sequence[Mapping[str, Tensor]] = "gaussian",
    orthogonal_to: Sequence[Mapping[str, Tensor]] = (),
    constants: Mapping[str, float] | None = None,
    state: Path | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    **given: Any,
) -> Search:
    """Search for the most asymmetric direction at a solution, and judge it on images not searched on.

    Each restart ascends `objectives.OBJECTIVES` from another random direction (`ascent.ascend`). Every few
    steps the images chosen on say how strong the direction is: by the 10 % quantile of c* over a bootstrap
    of these images, where the flat side rises by the floor. (Where the loss is just the mean over a batch, by
    c* itself.) The strongest of all is judged. Memory: 14 copies of the group's parameters, and for the
    step's images what training holds.

    Parameters
    ----------
    evaluator
        Starts at the solution; its train images are divided (`PARTS`). Or the network itself, with what
        `Evaluator` takes besides as `given`: ``train``, a loader, ``test``, ``loss``, ``bn``, ``precision``.
    rise
        How high the curve is looked at: R is where the larger of the two rises is this, in the loss's units.
    group
        Of parameters that the direction is over (`directions.parameter_group`).
    seek
        ``asymmetric``; ``symmetric``, the least size of the asymmetry index; ``flat``, the greatest R.
    restarts, steps
        How many ascents, and the steps of each.
    floor
        Least rise on the flat side of a direction that counts as found; below `rise`.
    points
        Of the curves that are judged; odd.
    seed
        Of parts, random directions and images a step. The same seed gives the same result, bit by bit on one
        CPU.
    start
        What ascents begin at: a kind of random directions (`directions.drawn_kinds`), or directions, one a
        restart and then again from the first.
    orthogonal_to
        Directions that this one is to be orthogonal to.
    constants
        Of Definition 1, as `asymmetry.detect` takes them: ``c, zeta_max, min_span, minimum_within, noise``.
    state
        File to go on from after a stop; written every few seconds.
    progress
        Wraps an iterable over all steps, as ``tqdm`` does.

    Returns
    -------
    Search

    Raises
    ------
    ValleysError
        For an option out of range, an empty group, one in which no direction is left, fewer than 8 train
        images, a train loss at the solution that is not finite, or a network that torch cannot differentiate.
    """
    if isinstance(evaluator, nn.Module):
        if "train" not in given:
            raise ValleysError("find_asymmetric: a network needs train, a loader of (images, labels)")
        evaluator = Evaluator(evaluator, **given)
    elif not isinstance(evaluator, Evaluator):
        raise ValleysError(
            f"find_asymmetric: {type(evaluator).__name__} is neither a network nor an Evaluator"
        )
    elif given:
        raise ValleysError(f"find_asymmetric: {', '.join(given)} is settled by the evaluator; leave it out")
    options = Options(
        rise,
        group,
        seek,
        restarts,
        steps,
        floor,
        points,
        str(seed),
        start,
        {"noise": 1e-6, **(constants or {})},
    )
    options.check()
    try:
        return _Searching(evaluator, options, orthogonal_to).run(state, progress)
    finally:
        evaluator.reset()  # also after an exception: the parts share its network


def searches(
    evaluator: Evaluator,
    n: int,
    *,
    state_of: Callable[[int], Path | None] = lambda k: None,
    **options: Any,
) -> Iterator[Search]:
    """Yield `n` searches, each for a direction orthogonal to those found before.

    Parameters
    ----------
    state_of
        The file of `find_asymmetric`'s ``state``, by number of the direction.
    options
        As in `find_asymmetric`. All directions have the same parts of the images.
    """
    found: list[Direction] = []
    for k in range(n):
        search = find_asymmetric(evaluator, orthogonal_to=found, state=state_of(k), **options)
        found.append(search.direction)
        yield search


class _Searching:
    """One search: the parts of the images, and what is done on each."""

    def __init__(
        self, evaluator: Evaluator, options: Options, orthogonal_to: Sequence[Mapping[str, Tensor]]
    ) -> None:
        self.options, self.count = options, len(evaluator.train_batches)
        # Later directions of a solution begin elsewhere, and see other images a step.
        self.stream = f"{options.seed}/{options.group}/{len(orthogonal_to)}"
        if self.count < LEAST:
            raise ValleysError(
                f"find_asymmetric: {self.count} train images are too few to search, choose and judge on; "
                f"give {LEAST} or more"
            )
        model, whole = evaluator.model, evaluator.train_batches
        self.names = [
            name
            for name in directions.parameter_group(model, options.group)
            if movable(evaluator.parameters[name])
        ]
        own = {name: evaluator.parameters[name] for name in self.names}
        copies.check_real("searched", own)
        self.weights = {name: w.detach().clone() for name, w in own.items()}
        for given in (*orthogonal_to, *(() if isinstance(options.start, str) else options.start)):
            check_direction(given, evaluator.parameters)
        evaluator.reset()
        # By the seed alone: all directions of a solution are searched for and judged on the same parts.
        rows = parts.divide(self.count, list(PARTS.values()), stable_seed("search parts", options.seed))
        batches = [parts.take(whole, some, evaluator.batch_size) for some in rows]
        self.sizes = dict(zip(PARTS, map(len, rows), strict=True))
        self.on = {
            name: evaluator.on(some, evaluator.test_batches if name == "judge" else None, by_image=True)
            for name, some in zip(PARTS, batches, strict=True)
        }
        self.precision, self.bn = evaluator.precision, evaluator.bn
        self.bias_level = search_rows.bias_level(evaluator)
        self.loss = self._measured("search").train_loss()[0]
        check_finite("the solution", self.loss)
        self.by_image = evaluator.has_image_losses()
        evaluator.reset()
        some = [tensor[: checks.SOME] for tensor in next(iter(batches[0]))]
        derivatives.differentiable(model, iter([some]), evaluator.loss, self.names)
        vectors = ascent.Vectors(self.on["search"].parameters, self.names)
        begin = self._measured("search")
        if self.bn == "refreshed" and len(batches[0]) > GRADIENT_IMAGES:
            generator = torch.Generator().manual_seed(stable_seed("search gradient", options.seed))
            some = torch.randperm(len(batches[0]), generator=generator)[:GRADIENT_IMAGES].sort().values
            begin = evaluator.on(parts.take(batches[0], some, evaluator.batch_size))
        _, gradient = loss_and_gradient(begin, self.names)
        evaluator.reset()
        basis = ascent.orthonormal([gradient.to(vectors.dtype), *map(vectors.vector, orthogonal_to)])
        if len(basis) >= sum(vectors.sizes):
            raise ValleysError(
                f"find_asymmetric: group: {options.group!r} has {sum(vectors.sizes)} entries; orthogonal to "
                f"the gradient and {len(orthogonal_to)} directions there is none left; choose a larger group"
            )
        self.vectors = vectors
        self.problem = ascent.Problem(
            self.names, basis, options.seek, options.rise, options.floor, options.steps
        )

    def _measured(self, part: str) -> Evaluator:
        """Return the evaluator of a part, at the solution."""
        self.on[part].reset()
        return self.on[part]

    def run(self, state: Path | None, progress: Callable[[Iterable[int]], Iterable[int]]) -> Search:
        """Do all restarts, from where `state` is, and judge the strongest direction."""
        options = self.options
        # What a search is known by: a state left by another one, of other options say, is of no use.
        of = f"{options.named()} {self.sizes} {self.vectors.sizes} {self.loss:.3g} {len(self.problem.basis)}"
        kept: dict[str, Any] = {"of": of, "done": [], "now": None}
        if state is not None and state.exists() and (before := load_checkpoint(state)).get("of") == of:
            kept = before
        bar = iter(progress(range(options.restarts * options.steps)))
        for _ in itertools.islice(bar, len(kept["done"]) * options.steps):
            pass
        for number in range(len(kept["done"]), options.restarts):
            self._restart(number, kept, state, bar)
        for _ in bar:  # the steps of restarts that ended early
            pass
        return self._result(kept)

    def _restart(self, number: int, kept: dict[str, Any], state: Path | None, bar: Iterator[int]) -> None:
        device = next(iter(self.weights.values())).device
        now = kept["now"]
        if now is None:
            begun = ascent.begin(self._measured("search"), self.problem, self._start(number))
            now = {"at": begun.state(), "best": self._score(0, begun.direction)}
        at = ascent.Ascent(**{k: v.to(device) if isinstance(v, Tensor) else v for k, v in now["at"].items()})
        best = now["best"]
        for _ in itertools.islice(bar, at.step):
            pass
        saved_at = time.monotonic()
        for step in ascent.ascend(self._measured("search"), self.problem, at, f"{self.stream}/{number}"):
            next(bar, None)
            if step.step % CHECK_EVERY == 0 or step.step == self.options.steps:
                looked = self._score(step.step, ascent.without(step.average, self.problem.basis))
                best = max(best, looked, key=lambda one: one["score"])
            if state is not None and time.monotonic() - saved_at > SAVE_EVERY_S:
                save_checkpoint(state, {**kept, "now": {"at": at.state(), "best": best}})
                saved_at = time.monotonic()
        kept["done"].append(
            {
                "restart": number,
                "steps": at.step,
                "passes": math.ceil(at.passes),
                "end": at.end,
                "objective": at.objective,
                "best_step": best["step"],
                "score": best["score"],
                "direction": best["direction"],
            }
        )
        kept["now"] = None
        if state is not None:
            save_checkpoint(state, kept)

    def _start(self, number: int) -> Direction:
        start = self.options.start
        if not isinstance(start, str):
            return self.vectors.direction(self.vectors.vector(start[number % len(start)]))
        return directions.random_direction(start, self.weights, key=f"search/{self.stream}", k=number)[0]

    def _score(self, step: int, vector: Tensor) -> dict[str, Any]:
        """Return how strong a direction is on the images chosen on; greater is better."""
        size = float(vector.norm())
        if not size > 0:
            return {"step": step, "score": [-math.inf], "direction": vector.clone()}
        vector = vector / size
        seen = self._look("choose", self.vectors.direction(vector), CHECK_POINTS, near=0.1)
        if self.options.seek == "asymmetric":
            levels = [self._level(one) for one in self._resampled(seen, DRAWS) or [seen.found]]
            lows = np.quantile(levels, [LOW, 0.5])
            # Where most draws have no level, the more common case decides, and at last c* as it is.
            score = [*map(float, lows), float(np.nan_to_num(seen.found.c_star, nan=-1.0))]
        elif self.options.seek == "symmetric":
            index = seen.found.asymmetry_index
            score = [-abs(index) if math.isfinite(index) else -math.inf]
        else:
            score = [seen.radius.radius if seen.found.status in ("asymmetric", "symmetric") else 0.0]
        return {"step": step, "score": score, "direction": vector}

    def _level(self, found: Detection) -> float:
        """Return c* where the flat side rises by more than the floor, else 0."""
        lifted = min(found.rise_plus, found.rise_minus) >= SPARE * self.options.floor
        return found.c_star if lifted and math.isfinite(found.c_star) else 0.0

    def _look(self, part: str, direction: Direction, points: int, near: float = 0.02) -> Seen:
        """Measure a direction's curve on a part, in fp32, out to the rise asked for there."""
        evaluator = self._measured(part)
        with evaluator.in_precision("fp32"):
            radius = ascent.reach(evaluator, direction, self.options.rise, near)
            offsets = line_offsets(radius.radius, points)
            curve = probe_line(evaluator, direction, offsets)
        values, test = ([row[key] for row in curve] for key in ("train_loss", "test_loss"))
        by_image = torch.stack([row["by_image"]["train"] for row in curve])
        return Seen(radius, offsets, values, test, by_image, self._detect(offsets, values))

    def _detect(self, offsets: Sequence[float], values: Sequence[float]) -> Detection:
        if not all(map(math.isfinite, values)):
            return search_rows.NO_CURVE
        return detect(offsets, values, **self.options.constants)

    def _resampled(self, seen: Seen, draws: int) -> list[Detection]:
        """Judge curves over images drawn anew, with replacement; none where images have no loss each."""
        if not self.by_image:
            return []
        losses = seen.by_image.double().cpu().numpy()
        if not np.isfinite(losses).all():
            return []
        count = losses.shape[1]
        generator = np.random.default_rng(stable_seed("bootstrap", count, draws))
        weights = generator.multinomial(count, np.full(count, 1 / count), size=draws) / count
        return detect_many(seen.offsets, weights @ losses.T, **self.options.constants)

    def _result(self, kept: dict[str, Any]) -> Search:
        chosen, options = max(kept["done"], key=lambda row: row["score"]), self.options
        rows, curves, reason, direction = [], [], "", {}
        for done in kept["done"]:
            vector = done["direction"].to(next(iter(self.weights.values())).device)
            found = self.vectors.direction(vector)
            choose = self._look("choose", found, self.options.points)
            if choose.found.rise_plus > choose.found.rise_minus:
                found = {name: -tensor for name, tensor in found.items()}
                choose = self._look("choose", found, self.options.points)
            start = self._start(done["restart"])
            began = self._look("judge", start, self.options.points)
            row = {
                "seek": self.options.seek,
                "rise": self.options.rise,
                "floor": self.options.floor,
                "bn_policy": self.bn,
                "precision": self.precision,
                "start": self.options.start if isinstance(self.options.start, str) else "given",
                **{k: v for k, v in done.items() if k not in ("score", "direction")},
                "chosen": done is chosen,
                "found": None,
            }
            row |= {f"{name}_images": count for name, count in self.sizes.items()}
            seen = {"search": self._look("search", found, self.options.points), "choose": choose}
            for name, one in seen.items():
                row |= search_rows.columns(name, one.found)
            row |= dict.fromkeys(search_rows.JUDGED) | search_rows.columns("start", began.found)
            del row["start_flat_rise"]
            if done is chosen:
                direction = found
                seen["judge"] = self._look("judge", found, self.options.points)
                reason, judged = self._judged(seen["judge"])
                row |= judged
                curves = [
                    point for name, one in seen.items() for point in search_rows.points("found", name, one)
                ]
                curves += search_rows.points("start", "judge", began)
            rows.append(row)
        if options.seek != "asymmetric":
            return Search("measured", "", direction, rows, curves)
        return Search("not found" if reason else "found", reason, direction, rows, curves)

    def _judged(self, seen: Seen) -> tuple[str, dict[str, Any]]:
        """Return why a direction is not found, and the columns of what is judged."""
        reason = search_rows.why_not(seen, self.options.rise, self.options.floor, self.options.constants)
        row = search_rows.judged(seen, self._resampled(seen, DRAWS))
        row["bias_level"] = self.bias_level
        if all(map(math.isfinite, seen.test)):
            row |= search_rows.columns("test", self._detect(seen.offsets, seen.test))
        if self.options.seek == "asymmetric":
            row["found"] = not reason
        return reason, row
