"""What an ascent of `find_asymmetric` should begin at: kinds of starts compared at equal passes.

    python benchmarks/search.py RESULTS [RESULTS ...] [--training-seeds 0 1 2 3] [--seeds 3] [--steps 60]

At the SGD solutions of finished runs, one ascent from each start: Gaussian, U(0, 1) and all ones directions,
the top eigenvector of the Hessian, and what an ascent of ``|D3L[u, u, u]| / (u'Hu)^1.5`` comes to. A pass is
one forward and one backward over the images searched on. What a start costs is taken off the steps of its
ascent: a Hessian or third-order product counts as many passes as take as long. A minimum's value is log c* on
the images judged on, log 0.5 where c* is less, there is none, or the flat side rises less than the floor. A
direction is confirmed where the test images, too, call it asymmetric and rise by the floor. Differences from
Gaussian are means over minima, each its mean over seeds of the search, with a t interval.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import document, markdown, save
from scipy import stats
from search_starts import STARTS, Starts
from torch import nn
from valleys.asymmetry.definition import Detection, detect
from valleys.data import parts
from valleys.data.cache import load_split
from valleys.data.split import Split
from valleys.execution import jobs
from valleys.landscape import ascent, searching
from valleys.landscape.directions import Direction
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.lines import line_offsets, probe_line
from valleys.models import solutions
from valleys.storage.files import stable_seed

RISE, FLOOR, POINTS = 1.0, 0.1, 21
CONSTANTS = {"c": 2.0, "zeta_max": 0.5, "min_span": 0.25, "minimum_within": 0.25, "noise": 1e-6}
LEAST = 0.5  # what counts as c* where there is none: a parabola's
KEPT = [f"{part}_{key}" for part in ("judge", "test") for key in ("status", "c_star", "flat_rise")] + [
    "found"
]
STEP_PASSES = len(ascent.OFFSETS) + 1 / 3  # over the images of a step


def divided(train: Split, seed: int) -> dict[str, Split]:
    """Return the parts that a search of this seed divides the train images into."""
    rows = parts.divide(len(train), list(searching.PARTS.values()), stable_seed("search parts", str(seed)))
    return {name: parts.rows_of(train, some) for name, some in zip(searching.PARTS, rows, strict=True)}


def judged(evaluator: Evaluator, direction: Direction, points: int) -> tuple[Detection, Detection]:
    """Return the verdicts on a direction by an evaluator's train and test images, as a search gives them."""
    evaluator.reset()
    radius = ascent.reach(evaluator, direction, RISE, near=0.02)
    offsets = line_offsets(radius.radius, points)
    curve = probe_line(evaluator, direction, offsets)
    values = ([row[f"{part}_loss"] for row in curve] for part in ("train", "test"))
    return tuple(detect(offsets, some, **CONSTANTS) for some in values)


def verdict(prefix: str, found: Detection) -> dict[str, Any]:
    """Return a verdict in columns named as those of a search."""
    flat_rise = min(found.rise_plus, found.rise_minus)
    about = {"status": found.status, "c_star": found.c_star, "flat_rise": flat_rise}
    return {f"{prefix}_{key}": value for key, value in about.items()}


def level(row: Mapping[str, Any], prefix: str = "") -> float:
    """Return the log of c* on the images judged on, that of `LEAST` where there is less, none or no floor."""
    c, flat = row[f"{prefix}judge_c_star"], row[f"{prefix}judge_flat_rise"]
    return math.log(max(c, LEAST) if math.isfinite(c) and flat >= FLOOR else LEAST)


def confirmed(row: Mapping[str, Any], prefix: str = "") -> bool:
    """Whether a direction is found on the images judged on and again on the test images."""
    images = (f"{prefix}judge", f"{prefix}test")
    return all(row[f"{part}_status"] == "asymmetric" and row[f"{part}_flat_rise"] >= FLOOR for part in images)


def compare(
    model: nn.Module, bn: str, splits: tuple[Split, Split], costs: dict[str, float], seed: int, steps: int
) -> Iterator[dict[str, Any]]:
    """Yield a row for each start: the direction by itself, and what its ascent comes to at equal passes."""
    images = divided(splits[0], seed)
    starts = Starts(model, images["search"], seed)
    if not costs:
        costs |= starts.costs()
    evaluator = Evaluator(model, *splits, bn=bn)
    on = Evaluator(model, images["judge"], splits[1], bn=bn)
    count = len(images["search"])
    a_step = STEP_PASSES * min(ascent.STEP_IMAGES, count // 2) / count
    for start in STARTS if bn == "frozen" else STARTS[:2]:
        begin = time.perf_counter()
        direction, spent = starts.make(start, costs)
        left = max(1, math.floor(steps - spent / a_step))
        options = {"rise": RISE, "floor": FLOOR, "points": POINTS, "constants": CONSTANTS}
        best = searching.find_asymmetric(
            evaluator, start=[direction], steps=left, restarts=1, seed=seed, **options
        ).best
        row = {"start": start, "start_passes": spent, "steps": best["steps"]}
        row |= {"passes": spent + best["steps"] * a_step, "end": best["end"]}
        row |= {"seconds": time.perf_counter() - begin} | {key: best.get(key, math.nan) for key in KEPT}
        before, test = judged(on, direction, POINTS)
        yield row | verdict("start_judge", before) | verdict("start_test", test)


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the table that the docs show."""
    table = pd.DataFrame(rows)
    table["value"] = [level(row) for row in rows]
    table["before"] = [level(row, "start_") for row in rows]
    for prefix in ("", "start_"):
        table[f"{prefix}confirmed"] = [confirmed(row, prefix) for row in rows]
    shown = []
    for bn, part in table.groupby("bn", sort=False):
        means = part.pivot_table(index="minimum", columns="start", values="value", aggfunc="mean", sort=False)
        for start in part["start"].unique():
            own = part[part["start"] == start]
            off = means[start] - means["gaussian"]
            low, high = interval(off)
            same = start == "gaussian"
            shown.append(
                {"BN": bn, "start": start, "minima": off.count(), "searches": len(own)}
                | {"passes of the start": f"{own['start_passes'].mean():.0f}"}
                | {"steps": f"{own['steps'].mean():.0f}", "all passes": f"{own['passes'].mean():.0f}"}
                | {"confirmed before": f"{own['start_confirmed'].mean():.0%}"}
                | {"after": f"{own['confirmed'].mean():.0%}"}
                | {"c* before": f"{math.exp(own['before'].mean()):.2f}"}
                | {"c* after": f"{math.exp(own['value'].mean()):.2f}"}
                | {"log c* less Gaussian's": "" if same else f"{off.mean():+.2f} ({low:+.2f} to {high:+.2f})"}
            )
    return shown


def by_model(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return c* after each start, a geometric mean over the searches at each network's minima."""
    table = pd.DataFrame(rows)
    table["value"] = [level(row) for row in rows]
    means = table.groupby(["model", "bn", "start"], sort=False)["value"].mean().unstack("start", sort=False)
    return [
        {"model": model, "BN": bn}
        | {start: "" if math.isnan(value) else f"{math.exp(value):.2f}" for start, value in own.items()}
        for (model, bn), own in means.iterrows()
    ]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % t interval of a mean."""
    values = np.asarray(values, dtype=float)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def main() -> None:
    """Measure, write the rows, and put the tables into their page (`common.PAGES`)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="results folders of finished runs")
    parser.add_argument("--training-seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--seeds", type=int, default=3, help="of the search, at each minimum")
    parser.add_argument("--steps", type=int, default=60, help="of an ascent whose start costs nothing")
    parser.add_argument("--threads", type=int, default=1, help="as a job of the workflow has")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    jobs.keep_memory()
    paths = [(r, p) for r in given.runs for p in sorted(r.glob("cells/*/*/*/*/sgd.safetensors"))]
    wanted = {f"seed-{seed}" for seed in given.training_seeds}
    paths = [(run, path) for run, path in paths if path.parent.name in wanted]
    if not paths:
        parser.error(f"{', '.join(map(str, given.runs))}: no SGD solutions of these seeds there")
    rows, costs = [], {}
    for seed, (run, path) in itertools.product(range(given.seeds), paths):
        model, about = solutions.load(path)
        dataset, name, recipe, training_seed = path.relative_to(run / "cells").parts[:4]
        splits = tuple(load_split(run / "data" / dataset / f"{p}.safetensors") for p in ("train", "test"))
        own = costs.setdefault(name, {})  # once for each network
        for bn in ("frozen", "refreshed") if about["model"]["norm"] == "batch" else ("frozen",):
            key = {
                "minimum": f"{run.name}/{dataset}/{name}/{recipe}/{training_seed}",
                "model": name,
                "bn": bn,
            }
            for row in compare(model, bn, splits, own, seed, given.steps):
                rows.append(key | {"seed": seed} | own | row)
                print(f"{key['minimum']} {bn} {seed} {row['start']}: {row['judge_c_star']:.2f}", flush=True)
        if path == paths[-1][1]:  # a run that is stopped later has these
            save("search", rows)
            document("search", markdown(summary(rows)))
            document("search_models", markdown(by_model(rows)))


if __name__ == "__main__":
    main()
