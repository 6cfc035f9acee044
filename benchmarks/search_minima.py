"""At how many minima `find_asymmetric` finds an asymmetric direction that test images confirm, and how fast.

    python benchmarks/search_minima.py RESULTS [RESULTS ...] --training-seeds 10 11 12 13

At the SGD solutions of finished runs, one search each with its default options at each rise, BN refreshed and
frozen. Confirmed: found on the train images judged on, and on test images c* is at least 2 and the flat side
rises by the floor. Seconds are of a core: evaluator, search and judgement.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from common import document, markdown, save
from valleys.data.cache import load_split
from valleys.execution import jobs
from valleys.landscape.searching import find_asymmetric
from valleys.models import solutions
from valleys.results.searches import are_asymmetric, are_found

KEPT = ("found", "judge_status", "judge_c_star", "judge_flat_rise", "test_status", "test_c_star")
KEPT += ("test_flat_rise", "search_c_star", "start_status", "start_c_star", "best_step", "passes")


def confirmed(row: dict[str, Any]) -> bool:
    """Whether a direction is found, and test images agree."""
    table = pd.DataFrame([row])
    return bool((are_found(table) & are_asymmetric(table, "test")).item())


def main() -> None:
    """Search, write the rows, and put the tables into their page (`common.PAGES`)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="results folders of finished runs")
    parser.add_argument("--training-seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--rises", type=float, nargs="+", default=[1.0, 2.0])
    given = parser.parse_args()
    torch.set_num_threads(1)
    jobs.keep_memory()
    wanted, rows = {f"seed-{seed}" for seed in given.training_seeds}, []
    paths = [(r, p) for r in given.runs for p in sorted(r.glob("cells/*/*/*/*/sgd.safetensors"))]
    for run, path in ((run, path) for run, path in paths if path.parent.name in wanted):
        model, about = solutions.load(path)
        dataset, name, recipe, seed = path.relative_to(run / "cells").parts[:4]
        train, test = (load_split(run / "data" / dataset / f"{p}.safetensors") for p in ("train", "test"))
        for bn in ("refreshed", "frozen") if about["model"]["norm"] == "batch" else ("none",):
            for rise in given.rises:
                begin = time.process_time()
                policy = "frozen" if bn == "none" else bn
                options = {"train": train, "test": test, "bn": policy, "batch_size": 1000}
                search = find_asymmetric(model, rise=rise, seed=f"{name}/{recipe}/{seed}", **options)
                row = {"network": name, "recipe": recipe, "seed": seed, "bn": bn, "rise": rise}
                row |= {"core_seconds": time.process_time() - begin, "reason": search.reason}
                row |= {"floor": search.best["floor"]} | {key: search.best[key] for key in KEPT}
                rows.append(row | {"confirmed": confirmed(row)})
                print(*(f"{k}={v}" for k, v in rows[-1].items()), flush=True)
    if not rows:
        parser.error(f"{', '.join(map(str, given.runs))}: no SGD solutions of these seeds there")
    save("search_minima", rows)
    document("search_minima", markdown(summary(rows)))
    misses = [{key: row[key] for key in MISS} for row in rows if not row["confirmed"]]
    document("search_misses", markdown([shown(row) for row in misses]) if misses else "None.")


MISS = (
    "network",
    "bn",
    "seed",
    "rise",
    "reason",
    "judge_c_star",
    "judge_flat_rise",
    "test_c_star",
    "test_flat_rise",
)


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with three digits a number."""
    return {k: f"{v:.3g}" if isinstance(v, float) else "" if v is None else v for k, v in row.items()}


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the table that the docs show: one row a network, policy and rise, and one a rise."""
    table, found = pd.DataFrame(rows), []
    for names, own in table.groupby(["network", "bn", "rise"], sort=False):
        found.append(dict(zip(("network", "BN", "rise"), names, strict=True)) | _counts(own))
    for rise, own in table.groupby("rise", sort=False):
        found.append({"network": "all", "BN": "", "rise": rise} | _counts(own))
    return found


def _counts(own: pd.DataFrame) -> dict[str, Any]:
    return {
        "minima": len(own),
        "found": int(own["found"].sum()),
        "confirmed on test": int(own["confirmed"].sum()),
        "random starts asymmetric": int((own["start_status"] == "asymmetric").sum()),
        "c* (median)": f"{own['judge_c_star'].median():.1f}",
        "of random starts": f"{own['start_c_star'].median():.1f}",
        "core seconds (greatest)": f"{own['core_seconds'].max():.0f}",
    }


if __name__ == "__main__":
    main()
