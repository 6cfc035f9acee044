"""The line between two sets of given weights, without a config (``python -m valleys path``)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valleys.cli.given import name_of, read, read_model
from valleys.cli.probe import right
from valleys.cli.requests import Request
from valleys.storage import files

if TYPE_CHECKING:
    from valleys.api.curves import Segment

LINE = "path"  # the line's name in tables and figures


@dataclass(frozen=True)
class Joined:
    """A finished path: what was measured, of which weights, and where it was written."""

    segment: Segment
    request: Request
    read: tuple[str, str]
    whole: int
    table: Path
    figure: Path


def join(
    weights: Path,
    to: Path,
    data: str,
    model: str | None,
    wanted: Request,
    folder: Path,
    *,
    device: str = "auto",
    progress: Any = iter,
) -> Joined:
    """Measure the loss on the straight line from `weights` to `to`; write table and figure.

    Parameters
    ----------
    weights, to, data, model, device
        As `read` takes them. Both files are of one network.
    folder
        Gets ``tables`` and ``figures``.
    progress
        Wraps the iterator over points.

    Raises
    ------
    ValleysError
        As `read`; for weights of two networks, or the same weights twice.
    """
    from valleys import figures
    from valleys.api.curves import measure_segment
    from valleys.landscape.evaluator import check_finite, evaluator_for
    from valleys.networks.tensors import check_apart
    from valleys.storage import tables

    given = read(weights, data, model, device)
    about, splits = given.about, given.splits
    stop, other = read_model(to, about["model"], splits[0], given.device, of_this=True)
    evaluator = evaluator_for(given.net, splits, wanted.block, vars(wanted))
    there = {name: stop.state_dict()[name] for name in evaluator.parameters}
    check_apart(evaluator.start, there, there, f"--weights {weights} and --to {to}")
    here, there_cell = (given.cell(one) for one in (about, other))
    first, last = _names(weights, to, about, other)
    names = {**here.columns(), "solution": first, "stop": last}
    names |= {"stop_recipe": there_cell.recipe, "stop_seed": there_cell.seed}
    block = wanted.block
    options = {"until": block.get("until"), "threshold": block["threshold"]}
    points = block["divisions"] + 1
    segment = measure_segment(evaluator, there, points, **options, names=names, progress=progress)
    for path, end in ((weights, segment.points[0]), (to, segment.points[-1])):
        check_finite(str(path), end["train_loss"])
    rows = [{**row, "line": LINE} for row in segment.parts()["interpolation"]]
    config = {"lines": {LINE: block}, "loss": wanted.loss, "bn_refresh": wanted.bn_refresh}
    config |= {"model": about["model"], "weights": [about["checksum"], other["checksum"]]}
    table = folder / "tables" / "interpolation.parquet"
    tables.write(table, "interpolation", rows, config)
    png = figures.write(f"line-{LINE}", tables.frames([table]), wanted.figure, folder / "figures")
    return Joined(segment, wanted, (about["read"], other["read"]), len(splits[0]), table, png)


def _names(weights: Path, to: Path, about: dict[str, Any], other: dict[str, Any]) -> tuple[str, str]:
    """Return names for the two ends: those of the solutions, or of the files where these say no more."""
    solutions = str(about["solution"]), str(other["solution"])
    stems = tuple(name_of(files.split_choice(path)[0].stem) for path in (weights, to))
    pair = stems if solutions[0] == solutions[1] == "given" else solutions
    return (pair[0], pair[1]) if pair[0] != pair[1] or about.get("cell") != other.get("cell") else ("A", "B")


def verdict(joined: Joined) -> str:
    """Return what was found, in a few lines for the terminal."""
    segment, block = joined.segment, joined.request.block
    points, names = segment.points, segment.names
    lines = [
        f"{names['dataset']} / {names['model']}: {len(points)} points, distance {segment.distance:.4g}, "
        f"batch norm {segment.bn}"
    ]
    for point, end in ((points[0], names["solution"]), (points[-1], names["stop"])):
        lines.append(
            f"  t = {point['t']:.0f}, {end}: train loss {point['train_loss']:.4g}"
            f"{right(point['train_accuracy'], ' right')}, test loss {point['test_loss']:.4g}"
        )
    images = segment.settled.images if segment.settled else block["train_images"] or joined.whole
    images = min(images, joined.whole)
    whole, found = images == joined.whole, segment.barrier
    exact = whole or not math.isfinite(found.height)
    low, high = (math.nan, math.nan) if exact else segment.interval()
    known = f" ({low:.3g} to {high:.3g})" if math.isfinite(high) else ""
    tested = "the same share of the test images" if segment.settled and not whole else "test images"
    lines.append(
        f"barrier {found.height:.4g}{known} at t = {found.at:.2g} on {images:,} of {joined.whole:,} train "
        f"images, {segment.barrier_of('test').height:.4g} on {tested} [nats]"
    )
    return "\n".join([*lines, _settled(segment, block["threshold"], whole)])


def _settled(segment: Segment, threshold: float, whole: bool) -> str:
    """Return whether the barrier is above the threshold, and how sure that is."""
    if segment.settled is None and not whole:
        return (
            f"Whether it is above {threshold:g} on all train images is not settled; --until 0.95 settles it."
        )
    if segment.settled is not None and segment.settled.verdict is None:
        return f"Whether it is above {threshold:g} is {segment.settled}; more --train-images may do."
    settled = segment.settled
    above = segment.barrier.height > threshold if settled is None else settled.verdict
    sure = f" (at {settled.confidence:.0%})" if settled is not None and not whole else ""
    word = "above" if above else "not above"
    return f"The barrier on the straight line is {word} {threshold:g}{sure}."
