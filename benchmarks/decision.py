"""How few points and images a verdict needs: coarser grids, refined ones, and subsets of the images.

    python benchmarks/decision.py config.yaml [more configs] [--results DIR] [--points 11] [--subsets 8]

Grids: each stored curve of finished experiments is judged again on some of its points (no network runs for
that). ``every 3rd`` and so on are uniform; ``fine where close`` adds the other points where the coarse c*
is within a factor of 1.5 of c, or there is none; ``bisected`` halves the interval in which the curve bends
most until the verdict has stayed for three steps; ``adaptive`` is what probes with that key do
(`next_point`). The reference is the verdict on all points, of probes that have all. Then, what else
is read from adaptive curves, on a spline through their points (`spline.upsample`), beside every second or
third point read in the same way.

Images: along the first U(0, 1) direction at the first sgd solution of each model, to its stored radius, the
train loss on random subsets of n images (BN statistics from the same images where they are refreshed)
beside that on all. The error is that of the larger rise; ``expected`` is the standard error of a mean of n
of N images, from the spread of the rise over images with BN frozen.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import document, markdown, save
from precision import experiment
from scipy.interpolate import PchipInterpolator
from valleys.asymmetry import next_point, robustness
from valleys.asymmetry.definition import Detection, detect
from valleys.asymmetry.shifts import shift
from valleys.asymmetry.spline import upsample
from valleys.config.experiment import Experiment
from valleys.data.cache import load_split
from valleys.data.split import Split
from valleys.execution import jobs
from valleys.landscape import directions
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.lines import line_offsets, probe_line
from valleys.landscape.subsets import with_errors
from valleys.models import losses, solutions
from valleys.results import measured_gain
from valleys.storage import tables

DIRECTION = ["dataset", "model", "recipe", "seed", "solution", "probe", "kind", "group", "k"]
SHARES = (16, 8, 4, 2)  # subsets of a sixteenth of the images and so on


# ---- points


class Judge:
    """Verdicts on some of a curve's points, named by their distance from the middle."""

    def __init__(self, curve: pd.DataFrame, constants: Mapping[str, float]) -> None:
        self.x, self.y, self.test = (curve[c].to_numpy() for c in ("offset", "train_loss", "test_loss"))
        self.half, self.constants = len(self.x) // 2, constants

    def __call__(self, steps: Iterable[int]) -> Detection:
        """Return the verdict on the points at these distances."""
        at = sorted({self.half + sign * step for step in steps for sign in (1, -1)})
        return detect(self.x[at], self.y[at], **self.constants)

    def slope(self, sign: int, a: int, b: int) -> float:
        """Return the outward slope between two distances on one side."""
        return (self.y[self.half + sign * b] - self.y[self.half + sign * a]) / abs(self.x[self.half + b - a])

    def bends(self, steps: list[int], i: int) -> float:
        """Return how much the slope changes at the ends of interval i, times its width."""
        a, b = steps[i : i + 2]
        found = 0.0
        for sign in (1, -1):
            own = self.slope(sign, a, b)
            before = self.slope(sign, steps[i - 1], a) if i else -self.slope(-sign, 0, steps[1])
            after = self.slope(sign, b, steps[i + 2]) if i + 2 < len(steps) else own
            found = max(found, abs(own - before), abs(after - own))
        return found * (b - a)


def bisected(judge: Judge, patience: int = 3) -> tuple[str, int]:
    """Return verdict and number of points of a grid that is refined where the curve bends most."""
    steps = sorted({0, judge.half // 3, 2 * judge.half // 3, judge.half})
    status, same = judge(steps).status, 0
    while same < patience:
        open_ = [i for i in range(len(steps) - 1) if steps[i + 1] - steps[i] > 1]
        if not open_:
            break
        i = max(open_, key=lambda i: judge.bends(steps, i))
        steps = sorted([*steps, (steps[i] + steps[i + 1]) // 2])
        now = judge(steps).status
        same, status = (same + 1, status) if now == status else (0, now)
    return status, 2 * len(steps) - 1


def close(found: Detection, c: float, factor: float = 1.5) -> bool:
    """Whether a coarse verdict is none, or near the level c."""
    if found.status not in ("symmetric", "asymmetric"):
        return True
    return c / factor <= found.c_star <= c * factor


def wanted(x: np.ndarray, train: np.ndarray, test: np.ndarray, constants: Mapping[str, float]) -> list[int]:
    """Return the points that an adaptive probe would measure."""
    at = next_point.first_points(len(x))
    while (more := next_point.next_point(x, at, train[at], beside=test[at], **constants)) is not None:
        at = sorted([*at, more])
    return at


def adaptively(judge: Judge) -> tuple[str, int]:
    """Return verdict and number of points of a probe that is adaptive."""
    at = wanted(judge.x, judge.y, judge.test, judge.constants)
    y, _ = upsample(judge.x, at, judge.y[at])
    return detect(judge.x, y, **judge.constants).status, len(at)


def readings(
    x: np.ndarray, train: np.ndarray, test: np.ndarray, constants: Mapping[str, float]
) -> dict[str, float]:
    """Return what tables and claims have of a curve beside its verdict."""
    found = detect(x, train, **constants)
    fixed, free = (shift(x, train, test, free_offset=free) for free in (False, True))
    side = found.flat_side or (1 if found.rise_plus <= found.rise_minus else -1)
    at = (x / x[-1], train, test) if side > 0 else (-x[::-1] / x[-1], train[::-1], test[::-1])
    phi, phi_test = (PchipInterpolator(at[0], y) for y in at[1:])
    return {
        "c*": found.c_star,
        "shift gap, b = 0 [nats]": fixed.gap,
        "shift gap, b free [nats]": free.gap,
        "part of the gap that a shift removes, b = 0": 1 - fixed.gap / fixed.gap_at_zero,
        "part of the gap that a shift removes, b free": 1 - free.gap / free.gap_at_zero,
        "shift, b = 0 [R]": abs(fixed.delta) / x[-1],
        "gain of a bias of R/8 [nats]": measured_gain.gain(phi, "uniform", 0.25, 0.125),
        "change of the test loss there [nats]": float(phi_test(0) - phi_test(0.125)),
    }


def reads(curves: pd.DataFrame, constants: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return rows of what is read from curves on all points, on 11 of them, on those of adaptive probes."""
    rows = []
    for _, curve in curves.groupby(DIRECTION, sort=False):
        curve = curve.sort_values("offset")
        x, train, test = (curve[key].to_numpy() for key in ("offset", "train_loss", "test_loss"))
        step = (len(x) - 1) // 10
        if (len(x) - 1) % 10 or step < 2 or not np.isfinite([train, test]).all():
            continue
        found = {"all": readings(x, train, test, constants)}
        for way, at in (
            ("even", list(range(0, len(x), step))),
            ("adaptive", wanted(x, train, test, constants)),
        ):
            some = (upsample(x, at, y[at])[0] for y in (train, test))
            found[way] = readings(x, *some, constants) | {"points": len(at)}
        for key in found["all"]:
            row = {"reading": key, "of": len(x)} | {way: read[key] for way, read in found.items()}
            rows.append(row | {f"{way}_points": found[way]["points"] for way in ("even", "adaptive")})
    return rows


def grids(curves: pd.DataFrame, constants: Mapping[str, float], name: str) -> list[dict[str, Any]]:
    """Return a row for each curve and grid."""
    rows = []
    for names, curve in curves.groupby(DIRECTION, sort=False):
        curve = curve.sort_values("offset")
        if not np.isfinite(curve["train_loss"]).all():
            continue
        judge, n = Judge(curve, constants), len(curve)
        full = judge(range(judge.half + 1))
        found = {"bisected": bisected(judge), "adaptive": adaptively(judge)}
        for every in (2, 3, 5):
            if judge.half % every == 0 and judge.half // every >= 3:
                coarse = judge(range(0, judge.half + 1, every))
                used = 2 * (judge.half // every) + 1
                found[f"every {every}"] = coarse.status, used
                again = close(coarse, constants["c"])
                found[f"every {every}, fine where close"] = (
                    (full.status, n) if again else (coarse.status, used)
                )
        for grid, (status, used) in found.items():
            row = {"experiment": name, **dict(zip(DIRECTION, names, strict=True)), "points": n}
            rows.append(row | {"grid": grid, "used": used, "same": status == full.status})
    return rows


# ---- images


def images(given: Experiment, folder: Path, points: int, subsets: int) -> list[dict[str, Any]]:
    """Return rows of the subsets' errors, for the first cell of each model of the grid."""
    rows, seen = [], set()
    for cell in given.cells:
        if cell.model in seen:
            continue
        seen.add(cell.model)
        where = folder / "cells" / cell.path
        model, _ = solutions.load(where / "sgd.safetensors")
        train = load_split(folder / "data" / cell.dataset / "train.safetensors")
        loss = losses.build(given.recipe(cell.recipe)["loss"])
        weights = {name: p.detach() for name, p in model.named_parameters()}
        block = {"kind": "uniform", "n": 1, "share": 0.0}
        _, direction, _ = next(directions.draw(block, weights, f"{cell.path}/all"))
        about = pd.read_parquet(folder / "tables" / "directions.parquet")
        own = (about[["model", "recipe", "seed"]] == [cell.model, cell.recipe, cell.seed]).all(axis=1)
        chosen = about[own & (about["kind"] == "uniform") & (about["solution"] == "sgd") & (about["k"] == 0)]
        for bn, radius in chosen.groupby("bn_policy")["radius"].first().items():
            if bn == "none":
                bn = "frozen"
            offsets = line_offsets(radius, points)
            some = {"bn": bn, "offsets": offsets, "constants": given.config["asymmetry"]}
            spread = deviation(model, train, loss, direction, radius)
            full = line(model, train, loss, direction, **some)
            for share in SHARES:
                n = max(20, len(train) // share)
                expected = spread / math.sqrt(n) * math.sqrt(1 - n / len(train))
                for k in range(subsets):
                    found = line(model, part(train, n, k), loss, direction, whole=len(train), **some)
                    rows.append(
                        {"experiment": given.config["name"], "model": cell.model, "bn": bn, "n": n}
                        | {"of": len(train), "expected": expected, "error": found[0] / full[0] - 1}
                        | {"same": found[1].status == full[1].status, "certain": found[2]}
                        | {"c_star": found[1].c_star, "c_star_full": full[1].c_star}
                    )
            print(cell.path, bn, flush=True)
    return rows


def part(split: Split, n: int, seed: int) -> Split:
    """Return n random images."""
    at = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:n]
    return Split(split.images[at], split.labels[at], split.classes, split.mean, split.std)


def line(
    model, split, loss, direction, *, bn, offsets, constants, whole=None
) -> tuple[float, Detection, bool]:
    """Return the larger rise of the train loss, the verdict, and whether it is certain on a subset."""
    drawn_from = {} if whole is None else {"train": whole}
    evaluator = Evaluator(model, split, part(split, 1, 0), loss, bn=bn, batch_size=250, drawn_from=drawn_from)
    curve = with_errors(probe_line(evaluator, direction, offsets), drawn_from)
    values = [row["train_loss"] for row in curve]
    middle = values[len(values) // 2]
    parts = (
        [[row[f"train_error_{k}"] for row in curve] for k in (1, 2, 3)]
        if drawn_from
        else [[0.0] * len(curve)]
    )
    certain = robustness.is_robust(offsets, values, parts, **constants)
    return max(values[0], values[-1]) - middle, detect(offsets, values, **constants), certain


@torch.no_grad()
def deviation(model, split, loss, direction, radius: float) -> float:
    """Return the standard deviation over images of the larger rise, relative to its mean (BN frozen)."""
    evaluator = Evaluator(model, split, part(split, 1, 0), loss, bn="frozen", batch_size=250)
    by_image = []
    for offset in (0.0, radius, -radius):
        evaluator.move(direction, offset)
        by_image.append(torch.cat([loss(evaluator.model(x), y) for x, y in split.batches(250)]).double())
    rise = max((value - by_image[0] for value in by_image[1:]), key=lambda d: float(d.mean()))
    return float(rise.std() / rise.mean())


def main() -> None:
    """Measure, write the tables, and put them into their page (`common.PAGES`)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", type=Path, nargs="+", help="of finished experiments")
    parser.add_argument("--results", type=Path, nargs="+", help="folders that hold theirs (results)")
    parser.add_argument("--points", type=int, default=11, help="of the lines on subsets")
    parser.add_argument("--subsets", type=int, default=8)
    parser.add_argument("--grids", action="store_true", help="points only, which takes a minute")
    given = parser.parse_args()
    torch.set_num_threads(1)
    jobs.keep_memory()
    by_grid, by_images, by_reading = [], [], []
    folders = given.results or [Path("results")] * len(given.configs)
    for path, results in zip(given.configs, folders, strict=True):
        one = experiment(path)
        folder = results / one.config["name"]
        parts = [f"{cell.path}/{part}" for cell in one.all_cells for part in one.parts(cell, "curves")]
        curves = tables.concat([folder / "cells" / part for part in parts], "curves").to_pandas()
        by_grid += grids(curves, one.config["asymmetry"], one.config["name"])
        by_reading += reads(curves, one.config["asymmetry"])
        by_images += [] if given.grids else images(one, folder, given.points, given.subsets)
    save("decision_grids", by_grid)
    shown = [
        {
            "points": f"{points}",
            "grid": grid,
            "curves": f"{len(rows):,}",
            "points used": f"{rows['used'].mean():.1f}",
            "verdict of all points": f"{rows['same'].mean():.1%}",
        }
        for (points, grid), rows in pd.DataFrame(by_grid).groupby(["points", "grid"])
    ]
    document("decision_grids", markdown(shown))
    save("decision_adaptive", by_reading)
    shown = []
    for reading, rows in pd.DataFrame(by_reading).groupby("reading", sort=False):
        row = {
            "reading": reading,
            "curves": f"{len(rows):,}",
            "median size": f"{rows['all'].abs().median():.2g}",
        }
        for way, name in (("even", "11 even points"), ("adaptive", "adaptive points")):
            error = (rows[way] - rows["all"]).abs()
            row[f"error on {name}: median, 90 %"] = f"{error.median():.2g}, {error.quantile(0.9):.2g}"
        shown.append(row)
    document("decision_adaptive", markdown(shown))
    if given.grids:
        return
    save("decision_images", by_images)
    shown = [
        {
            "model": model,
            "BN": bn,
            "images": f"{n:,} of {rows['of'].iloc[0]:,}",
            "error of the rise, expected": f"{rows['expected'].iloc[0]:.1%}",
            "found (rms)": f"{np.sqrt((rows['error'] ** 2).mean()):.1%}",
            "verdict of all images": f"{rows['same'].sum()} of {len(rows)}",
            "of certain ones": f"{(rows['same'] & rows['certain']).sum()} of {rows['certain'].sum()}",
            "change of c*, median": f"{(rows['c_star'] - rows['c_star_full']).abs().median():.2f}",
        }
        for (model, bn, n), rows in pd.DataFrame(by_images).groupby(["model", "bn", "n"], sort=False)
    ]
    document("decision_images", markdown(shown))


if __name__ == "__main__":
    main()
