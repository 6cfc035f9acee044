"""How many images a verdict at 95 % takes: `sequential.curve_until` beside the adaptive curve of all images.

    python benchmarks/until.py RESULTS... [--seeds 12 ...] [--directions 1] [--rise 2] [--threads N]

RESULTS are folders of runs that have trained. At each SGD solution that they have, and along the same U(0, 1)
directions, the verdict is taken in turns: until it is settled, and by `probe_adaptively` on all train images,
in both cases with the search for the radius. Batch norm is refreshed. A settled verdict is right where it is
that of all images at the radius that they give.

Rows are written after each minimum. What was measured before, by the same options, is not measured again:
delete ``results/until.parquet`` to begin anew.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import RESULTS, document, markdown, save
from common import rows as known
from valleys.data.cache import load_split
from valleys.execution import jobs
from valleys.landscape import sequential
from valleys.landscape.adaptive import probe_adaptively
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.lines import find_radius, line_offsets
from valleys.models import losses, solutions
from valleys.networks import tensors
from verdicts import CONSTANTS, direction_of, judged, positive

POINTS = 31
CONFIDENCE = 0.95


def minima(runs: list[Path], seeds: list[int]) -> Iterator[tuple[dict[str, Any], Path, Path]]:
    """Yield setting and seed, an SGD solution of it, and the train images of its seed."""
    below = seeds * len(runs) if len(seeds) == 1 else seeds
    for results, end in zip(runs, below, strict=True):
        cells = sorted((results / "cells").glob("*/*/*/seed-*"))
        for cell in (c for c in cells if int(c.name.removeprefix("seed-")) < end):
            dataset, model, recipe, seed = cell.parts[-4:]
            paths = cell / "sgd.safetensors", cell / "raw" / "sgd.safetensors"
            data = results / "data" / dataset
            own = data / seed if (data / seed).is_dir() else data
            for path in [p for p in paths if p.exists()][:1]:
                about = {
                    "setting": f"{model} of `{dataset}`, {recipe}",
                    "seed": int(seed.removeprefix("seed-")),
                }
                yield about, path, own / "train.safetensors"


def measure(about: dict[str, Any], path: Path, images: Path) -> list[dict[str, Any]]:
    """Return a row for each direction."""
    model, _ = solutions.load(path)
    train, loss = load_split(images), losses.build({"name": "cross_entropy"})
    at = Evaluator(model, train, loss=loss, batch_size=500)
    norm, rows = tensors.vector_norm(at.parameters), []
    reach = {"rise": about["rise"], "first": norm / 50, "cap": 2 * norm}
    options = {"confidence": CONFIDENCE, "points": POINTS, "constants": CONSTANTS, **reach}
    for k in range(about["directions"]):
        direction = direction_of(model, k)
        begin = time.perf_counter()
        *_, settled = sequential.curve_until(at, direction, seed=k, **options)
        ours, begin = time.perf_counter() - begin, time.perf_counter()
        offsets = line_offsets(find_radius(at, direction, **reach).radius, POINTS)
        curve, _ = probe_adaptively(at, direction, offsets, CONSTANTS)
        found, whole = judged(curve, offsets), time.perf_counter() - begin
        row = {**about, "k": k, "total": settled.total}
        row |= {"images": settled.images, "verdict": settled.verdict, "of_all": found.status}
        row |= {"c_star": found.c_star, "until_s": ours, "all_s": whole, "looks": len(settled.looks)}
        rows.append(row)
        print({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()}, flush=True)
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the table that the page shows."""
    shown = []
    for name in dict.fromkeys(row["setting"] for row in rows):
        part = [row for row in rows if row["setting"] == name]
        early = [row for row in part if row["images"] < row["total"]]
        right = sum(row["verdict"] == row["of_all"] for row in early)
        ratio = sum(row["until_s"] for row in part) / sum(row["all_s"] for row in part)
        shown.append(
            {
                "setting": name,
                "images": f"{part[0]['total']:,}",
                "verdicts": len(part),
                "settled before all": len(early),
                "of these as all have it": right,
                "share of images, median": f"{median(r['images'] / r['total'] for r in part):.0%}",
                "seconds, of those of all": f"{ratio:.2f}",
            }
        )
    return shown


def main() -> None:
    """Measure, write the table, and put it into its page (`common.PAGES`)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RESULTS", help="folders of runs that have trained"
    )
    parser.add_argument(
        "--seeds",
        type=positive,
        nargs="+",
        default=[12],
        help="of each setting: those below this; or of each run",
    )
    parser.add_argument("--directions", type=positive, default=1, help="at each minimum")
    parser.add_argument("--rise", type=float, default=2.0, help="nats")
    parser.add_argument("--threads", type=positive, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    if len(given.seeds) not in (1, len(given.runs)):
        parser.error(
            f"--seeds: {len(given.seeds)} numbers for {len(given.runs)} runs; give one, or one a run"
        )
    torch.set_num_threads(given.threads)
    jobs.keep_memory()
    found = known("until") if (RESULTS / "until.parquet").is_file() else []
    rows = []
    for about, path, images in minima(given.runs, given.seeds):
        about |= {"rise": given.rise, "directions": given.directions}
        own = [row for row in found if all(row[key] == value for key, value in about.items())]
        if not own:
            own = measure(about, path, images)
            found += own
            save("until", found)
        rows += own
    if not rows:
        parser.error(f"{', '.join(map(str, given.runs))}: no SGD solutions there")
    document("until", markdown(summary(rows)))


if __name__ == "__main__":
    main()
