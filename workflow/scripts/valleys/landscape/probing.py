"""What rules run at a solution: all curves of a probe or line, searches, as rows of their tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from valleys.data.split import Split
from valleys.landscape import directions, growing
from valleys.landscape.adaptive import confirm_precision, probe_adaptively
from valleys.landscape.evaluator import Evaluator, check_finite, evaluator_for, log
from valleys.landscape.kinds import DRAWN, KINDS
from valleys.landscape.lines import Radius, check_against, find_radius, interpolate, line_offsets, probe_line
from valleys.landscape.sequential import curve_until, segment_until, without_errors
from valleys.landscape.subsets import with_errors
from valleys.models import solutions
from valleys.networks import tensors
from valleys.networks.tensors import vector_norm
from valleys.storage.state import load_checkpoint, save_checkpoint
from valleys.storage.weights import checksum, load_weights

if TYPE_CHECKING:
    from valleys.landscape.searching import Search

#: How far (relative, plus as much absolutely) a line's loss may be from a solution's own, by precision.
TOLERANCE = {"fp32": 1e-5, "bf16": 0.02}


def evaluator_at(
    path: str | Path,
    device: torch.device | str,
    splits: tuple[Split, Split],
    block: Mapping[str, Any],
    spec: Mapping[str, Any],
    compiled: bool = False,
) -> tuple[Evaluator, dict[str, Any]]:
    """Return the evaluator at a stored solution, and what the solution's file says of it.

    Parameters
    ----------
    path, device
        As `solutions.load`.
    splits, block, spec, compiled
        As `evaluator_for`.
    """
    model, about = solutions.load(path, device)
    return evaluator_for(model, splits, block, spec, compiled), about


def stored_directions(stored: Mapping[str, Tensor], solution: str) -> list[dict[str, Tensor]]:
    """Pick a solution's directions, in order, out of tensors named ``<solution>/<k>/<parameter>``."""
    found: dict[int, dict[str, Tensor]] = {}
    for name, tensor in stored.items():
        owner, k, parameter = name.split("/", 2)
        if owner == solution:
            found.setdefault(int(k), {})[parameter] = tensor
    return [found[k] for k in sorted(found)]


def read_directions(path: str | Path | None, solution: str) -> list[dict[str, Tensor]]:
    """Return a solution's directions, in order, out of the file of a computed kind; none without a file."""
    if path is None:
        return []
    return stored_directions(load_weights(path, ours=True)[0], solution)


def swa_beside(path: str | Path | None, block: Mapping[str, Any], solution: str) -> dict[str, Tensor] | None:
    """Return the averaged solution that `probe_solution` says the way to: for searched directions at ``sgd``.

    Parameters
    ----------
    path
        Its file; ``None`` in a cell without one.
    block
        The probe's config block.
    solution
        Where it probes.
    """
    if path is None or not KINDS[block["kind"]].searched or solution != "sgd":
        return None
    return load_weights(path, ours=True)[0]


#: Columns of the ``directions`` table that just some computed kinds have.
NO_COLUMNS = {"eigenvalue": None, "to_seed": None}


@dataclass
class Rows:
    """Rows of the tables ``curves`` and ``directions``, of the probes that were added."""

    curves: list[dict[str, Any]] = field(default_factory=list)
    directions: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        probed: Iterable[tuple[list[dict[str, float]], dict[str, Any]]],
        label: Mapping[str, Any],
        block: Mapping[str, Any],
        bn: str,
        columns: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Add the rows of one solution and probe.

        Parameters
        ----------
        probed
            As `probe_solution` yields it.
        label
            ``dataset, model, recipe, seed, solution, probe`` and ``checksum`` (of the solution's weights).
        block
            The probe's config block: its ``kind`` and ``group`` are columns.
        bn
            The evaluator's batch-norm policy.
        columns
            What a computed kind says of each direction besides (`computed.Found`); none of other kinds.
        """
        about = {**label, "kind": block["kind"], "group": block["group"], "bn_policy": bn}
        names = {key: value for key, value in about.items() if key != "checksum"}
        for curve, row in probed:
            more = NO_COLUMNS | dict(columns[row["k"]] if row["k"] < len(columns) else {})
            self.curves += [{**names, "k": row["k"], **point} for point in curve]
            self.directions.append({**about, **row, **more})


@dataclass
class Searched:
    """What was found by the searches that were added, as it is stored.

    Attributes
    ----------
    directions
        Tensors named ``<solution>/<k>/<parameter>``, which `stored_directions` reads.
    searches, search_curves
        Rows of these tables.
    """

    directions: dict[str, Tensor] = field(default_factory=dict)
    searches: list[dict[str, Any]] = field(default_factory=list)
    search_curves: list[dict[str, Any]] = field(default_factory=list)

    def add(self, found: Iterable[Search], label: Mapping[str, Any]) -> None:
        """Add the searches of one solution, in the order of their directions.

        Parameters
        ----------
        label
            ``dataset, model, recipe, seed, solution, probe, kind, group``.
        """
        for k, search in enumerate(found):
            name = f"{label['solution']}/{k}"
            self.directions |= {f"{name}/{parameter}": u for parameter, u in search.direction.items()}
            self.searches += [{**label, "k": k, **row} for row in search.restarts]
            self.search_curves += [{**label, "k": k, **row} for row in search.curves]


def state_key(
    block: Mapping[str, Any],
    spec: Mapping[str, Any],
    precision: str,
    about: Mapping[str, Any],
    data: Iterable[str],
    arithmetic: str,
    stored: Mapping[str, Tensor],
) -> dict[str, Any]:
    """Return the key of finished directions: all that decides a curve (`solutions.state_key`).

    How many directions there are does not, nor at which other solutions; the constants of Definition 1 do for
    curves that are measured by their verdict.

    Parameters
    ----------
    block, spec
        Of the probe; params of the rule.
    precision
        Of the evaluator.
    about
        The solution's metadata.
    data, arithmetic
        As in `solutions.state_key`.
    stored
        What the file of a computed kind has.
    """
    judged = precision != "fp32" or block.get("adaptive") or block.get("until")
    shared = ("loss", "bn_refresh", "version", *(["asymmetry"] if judged else []))
    decisive = [{k: v for k, v in block.items() if k not in ("n", "solutions")}, *map(spec.get, shared)]
    return solutions.state_key(decisive, [about], data, arithmetic, stored=checksum(stored))


def search_options(
    block: Mapping[str, Any], cell: str, constants: Mapping[str, float], state: Path
) -> dict[str, Any]:
    """Return the options of `searching.searches` for a probe of kind searched.

    Parameters
    ----------
    block
        Of the probe, with its ``search`` whole.
    cell
        As in `probe_solution`: it names the random stream.
    constants
        Of Definition 1.
    state
        Folder with a file for each direction, to go on from.
    """
    options = {key: block[key] for key in ("group", "rise", "points")} | block["search"]
    return options | {"seed": cell, "constants": constants, "state_of": lambda k: state / f"{k}.pt"}


def search_key(
    spec: Mapping[str, Any], about: Mapping[str, Any], data: Iterable[str], arithmetic: str
) -> dict[str, Any]:
    """Return the key of a search's state: all that decides it, as `state_key` has it of curves.

    How many directions there are does not, as each hangs on those before it alone, nor at which other
    solutions.

    Parameters
    ----------
    spec
        Params of the rule.
    about, data, arithmetic
        As in `state_key`.
    """
    block = {k: v for k, v in spec["probe"].items() if k not in ("n", "solutions")}
    return solutions.state_key({**spec, "probe": block}, [about], data, arithmetic)


def probe_solution(
    evaluator: Evaluator,
    block: Mapping[str, Any],
    cell: str,
    *,
    stored: list[dict[str, Tensor]],
    check_stored_bn: bool,
    state: Path,
    constants: Mapping[str, float] | None = None,
    swa: Mapping[str, Tensor] | None = None,
    save_every_s: float = 5.0,
) -> Iterator[tuple[list[dict[str, float]], dict[str, Any]]]:
    """Probe a solution along the directions of one probe, resuming from `state`.

    Every curve is checked to pass through the solution's own loss.

    Parameters
    ----------
    evaluator
        Starts at the solution.
    block
        A probe's config block: ``kind, n, group, share, points, radius, relative, rise, slopes``, and
        ``adaptive`` and ``until`` if it has these. With ``until`` images are added until each curve's verdict
        is settled at that confidence (`sequential.curve_until`).
    cell
        Path of the solution's place in the workflow, or any name: with the group it names the random stream.
    stored
        Directions of computed kinds.
    check_stored_bn
        Whether the stored BN statistics are those of the probing set, so that the solution as stored must
        have the curve's loss at 0. Otherwise (refreshed on a subset) it is compared after a refresh.
    state
        File that keeps finished directions, by number.
    constants
        Of Definition 1, for an evaluator in bf16 (`confirm_precision`) and for adaptive probes
        (`probe_adaptively`).
    swa
        Weights of the cell's averaged solution: rows then have ``towards_swa``. It has no part in a curve,
        so that the state goes without it.

    Yields
    ------
    curve, row
        Points of the line, and the direction's columns of the ``directions`` table (without the names).
    """
    model = evaluator.model
    names, key = directions.parameter_group(model, block["group"]), f"{cell}/{block['group']}"
    weights = {name: evaluator.parameters[name].detach() for name in names}
    weight_norm, group_norm = vector_norm(evaluator.parameters), vector_norm(weights)
    random = block["kind"] in DRAWN
    done: dict[int, Any] = load_checkpoint(state) if state.exists() else {}
    saved_at = time.monotonic()
    # A fiftieth of the weights' norm is within a few doublings of where trained nets rise by 1 nat. Later
    # directions start from the radius of direction 0, which is the same however many are asked for.
    first = done[0][1]["radius"] if 0 in done else weight_norm / 50
    with evaluator.in_precision("fp32"):
        own = evaluator.stored() if check_stored_bn or evaluator.bn != "refreshed" else evaluator.at_start()
    check_finite("the solution", own.train_loss)
    resumed, images = len(done), len(evaluator.train_batches)
    for k, direction, norm in directions.draw(block, weights, key, stored):
        if k not in done:
            radius = None
            if block["radius"] is not None:
                radius = Radius(float(block["radius"]), "fixed")
            elif block["relative"] is not None:
                norm_of = group_norm if block["relative_to"] == "group" else weight_norm
                radius = Radius(block["relative"] * norm_of, "fixed")
            reach = {"rise": block["rise"], "first": first, "cap": 2 * weight_norm}
            if block.get("until"):
                curve, radius, measured = _until(
                    evaluator, direction, block, radius, reach, k, constants or {}
                )
            else:
                radius = radius or find_radius(evaluator, direction, **reach)
                curve, measured = _curve(evaluator, direction, block, radius, constants or {})
            if measured.get("images", images) == images:
                check_against(
                    f"direction {k} at offset 0",
                    next(row["train_loss"] for row in curve if row["offset"] == 0),
                    own.train_loss,
                    TOLERANCE[evaluator.precision],
                )
            first = radius.radius if k == 0 and radius.status != "fixed" else first
            row = {
                "k": k,
                "key": key if random else "",
                "norm": norm,
                "entries": sum(w.numel() for w in weights.values()),
                "group_norm": group_norm,
                "projection": directions.inner(direction, weights),
                "sign_agreement": directions.sign_agreement(direction, weights),
                "radius": radius.radius,
                "radius_status": radius.status,
                **measured,
            }
            done[k] = [curve, row]
            if time.monotonic() - saved_at > save_every_s:
                save_checkpoint(state, done)
                saved_at = time.monotonic()
            log.info(
                "direction %d of %d: R %.4g (%s), loss %.4f | %.4f | %.4f at -R, 0, R, %d points, %s",
                k + 1,
                block["n"],
                radius.radius,
                radius.status,
                curve[0]["train_loss"],
                own.train_loss,
                curve[-1]["train_loss"],
                len(curve),
                measured["precision"],
            )
        curve, row = done[k]
        if swa is not None:
            row = {**row, "towards_swa": directions.inner(direction, swa) - row["projection"]}
        yield curve, row
    if len(done) > resumed:
        # Curves share their point at offset 0; that all began there shows when it is measured again.
        evaluator.reset()
        again = evaluator.point().train_loss
        check_against(
            "the start after the last direction", again, own.train_loss, TOLERANCE[evaluator.precision]
        )
        evaluator.reset()
    save_checkpoint(state, done)


def _curve(
    evaluator: Evaluator,
    direction: Mapping[str, Tensor],
    block: Mapping[str, Any],
    radius: Radius,
    constants: Mapping[str, float],
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a curve on all of the evaluator's images, and the columns that say how it was measured."""
    offsets, exact = line_offsets(radius.radius, block["points"]), block["slopes"] == "exact"
    if block.get("adaptive"):
        curve, measured = probe_adaptively(evaluator, direction, offsets, constants, exact)
        measured["points"] = len(curve)
        curve = [{**row, "grid_points": len(offsets)} for row in curve]
    else:
        curve = probe_line(evaluator, direction, offsets, exact=exact)
        curve, measured = confirm_precision(evaluator, direction, curve, constants)
    made_of = {}
    if evaluator.bn == "refreshed" and evaluator.drawn_from:
        made_of = growing.errors_by_group(evaluator, lambda x: evaluator.move(direction, x), curve)
    return with_errors(curve, evaluator.drawn_from, made_of), measured


def _until(
    evaluator: Evaluator,
    direction: Mapping[str, Tensor],
    block: Mapping[str, Any],
    radius: Radius | None,
    reach: Mapping[str, float],
    k: int,
    constants: Mapping[str, float],
) -> tuple[list[dict[str, Any]], Radius, dict[str, Any]]:
    """Return a curve on as many images as its verdict needs, its R, and what says how it was measured."""
    curve, offsets, found, settled = curve_until(
        evaluator,
        direction,
        confidence=block["until"],
        radius=None if radius is None else radius.radius,
        points=block["points"],
        seed=k,
        constants=constants,
        **reach,
    )
    log.info("direction %d: %s", k + 1, settled)
    measured = {"precision": "fp32", "precision_error": None, "points": len(curve)}
    measured |= {"settled": settled.verdict is not None, "confidence": settled.confidence}
    measured |= {"images": settled.images, "passed": settled.passed}
    return [{**row, "grid_points": len(offsets)} for row in curve], found, measured


def line_between(
    evaluator: Evaluator,
    stop: nn.Module,
    line: Mapping[str, Any],
    check_stored_bn: bool,
    at: Callable[[float], Mapping[str, Tensor]] | None = None,
) -> list[dict[str, float]]:
    """Return the points of a line or path between two stored solutions, checked at both ends.

    Parameters
    ----------
    evaluator
        Starts at the solution of t = 0.
    stop
        The solution of t = 1.
    line
        A line's config block: ``first, last, divisions``; t runs in steps of 1/divisions. With ``until``
        images are added until it is settled whether the barrier is above ``threshold``
        (`sequential.segment_until`); points say how many, in ``images``, and whether it is, in ``settled``.
    check_stored_bn
        As in `probe_solution`.
    at
        Gives the weights at t on a path with trained bends (`paths.WeightPath.at`); ``None``: the
        straight line.

    Raises
    ------
    ValleysError
        When the two ends are the same weights, or a loss at an end is not that of its solution.
    """
    state = stop.state_dict()
    names = f"{line['start']} (t = 0) and {line['stop']} (t = 1)"
    tensors.check_apart(evaluator.start, state, evaluator.parameters, names)
    d = line["divisions"]
    ts = [i / d for i in range(round(line["first"] * d), round(line["last"] * d) + 1)]

    if line.get("until"):
        options = {"confidence": line["until"], "threshold": line["threshold"], "points": ts}
        rows, settled = segment_until(evaluator, state, **options)
        log.info("barrier against %g: %s", line["threshold"], settled)
        return without_errors(rows, settled)

    def report(count: int) -> None:
        if count % 20 == 0 or count == len(ts):
            log.info("%d of %d points", count, len(ts))

    def move(t: float) -> None:
        if at is None:
            evaluator.between(state, t)
        else:
            evaluator.set_weights(at(t).items())

    points = interpolate(evaluator, move, ts, report)
    if check_stored_bn or evaluator.bn != "refreshed":
        by_t = {point["t"]: point["train_loss"] for point in points}
        check_against(f"{line['start']} (t = 0)", by_t[0.0], evaluator.stored().train_loss)
        if evaluator.bn != "frozen":  # a frozen line carries the statistics of its start
            evaluator.load(state)
            check_against(f"{line['stop']} (t = 1)", by_t[1.0], evaluator.stored().train_loss)
    return points
