"""Time and memory of probing as points, directions, images and parameters grow.

    python benchmarks/size.py [--rounds 3]

Each measurement is a process of its own, for its peak memory: fresh weights, random images, lines with BN
refreshed at each point. One size varies at a time. ``exponent`` is the slope of log seconds (of probing,
start-up left out) against log size: 1 is linear. For parameters (wide ResNets; two tiny images, so that
weights are what counts), ``copies`` is the slope of peak memory against the bytes of the weights.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import child, document, markdown, save

BASE = {"points": 9, "directions": 1, "images": 250, "spec": {"arch": "preresnet", "depth": 20}, "side": 32}
WIDE = {**BASE, "points": 5, "images": 2, "side": 8}
SIZES: dict[str, list[dict[str, Any]]] = {
    "points": [{**BASE, "points": n} for n in (5, 9, 17, 33)],
    "directions": [{**BASE, "directions": n} for n in (1, 2, 4, 8)],
    "images": [{**BASE, "images": n} for n in (250, 500, 1000, 2000)],
    "parameters": [{**WIDE, "spec": {"arch": "wrn", "depth": 28, "widen": widen}} for widen in (2, 4, 6, 10)],
}


def one(case: dict[str, Any]) -> None:
    """Probe once; print seconds, peak MB and the number of parameters."""
    import torch
    from compute import RECIPE, split
    from valleys.execution import jobs
    from valleys.landscape import directions
    from valleys.landscape.evaluator import Evaluator
    from valleys.landscape.lines import line_offsets, probe_line
    from valleys.models import losses, solutions

    torch.set_num_threads(1)
    jobs.keep_memory()
    shape = (3, case["side"], case["side"])
    train, test = (split(case["images"], seed, shape) for seed in (0, 1))
    model = solutions.fresh(case["spec"], shape, train.classes, seed=0).eval()
    weights = {name: p.detach() for name, p in model.named_parameters()}
    begin = time.perf_counter()
    evaluator = Evaluator(model, train, test, losses.build(RECIPE["loss"]), batch_size=250)
    block = {"kind": "uniform", "n": case["directions"], "share": 0.0}
    for _, direction, _ in directions.draw(block, weights, "benchmark"):
        probe_line(evaluator, direction, line_offsets(1.0, case["points"]))
    seconds = time.perf_counter() - begin
    peak = jobs.peak_memory()
    count = sum(w.numel() for w in weights.values())
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "parameters": count}))


def main() -> None:
    """Measure, write the table, and put it into their page (`common.PAGES`)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(json.loads(given.one))
        return
    rows = []
    for turn in range(given.rounds):
        for what, cases in SIZES.items():
            for case in cases:
                with tempfile.TemporaryDirectory() as folder:
                    command = [sys.executable, str(Path(__file__).resolve()), "--one", json.dumps(case)]
                    found = json.loads(child(command, Path(folder))[2].splitlines()[-1])
                size = found["parameters"] if what == "parameters" else case[what]
                spec = json.dumps(case["spec"])
                rows.append({"round": turn, "varies": what, "size": size, **case, "spec": spec, **found})
                print({k: rows[-1][k] for k in ("varies", "size", "seconds", "peak_mb")}, flush=True)
    save("size", rows)
    document("size", markdown([summary(what, rows) for what in SIZES]))


def summary(what: str, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return the line of the table for one of the sizes."""
    by_size: dict[float, list[dict[str, Any]]] = {}
    for row in rows:
        if row["varies"] == what:
            by_size.setdefault(row["size"], []).append(row)
    sizes = sorted(by_size)
    seconds, peaks = ([median(r[k] for r in by_size[s]) for s in sizes] for k in ("seconds", "peak_mb"))
    exponent = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    copies = np.polyfit(np.array(sizes) * 4 / 1e6, peaks, 1)[0] if what == "parameters" else None
    return {
        "varies": what,
        "sizes": ", ".join(f"{s / 1e6:.1f}M" if s >= 1e6 else f"{s:,}" for s in sizes),
        "seconds": ", ".join(f"{s:.2g}" if s < 10 else f"{s:.0f}" for s in seconds),
        "exponent": f"{exponent:.2f}",
        "peak MB": ", ".join(f"{p:,.0f}" for p in peaks),
        "copies of the weights": "" if copies is None else f"{copies:.1f}",
    }


if __name__ == "__main__":
    main()
