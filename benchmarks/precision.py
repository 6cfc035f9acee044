"""What bf16 does to curves: loss, c* and verdict along the directions of a finished experiment, beside fp32.

    python benchmarks/precision.py config.yaml [more configs] [--results DIR] [--cells N] [--directions N]

The first directions of each drawn probe (no Hessian eigenvectors and the like) at each solution of the first
seeds of each model and recipe are measured in both precisions, in turns, at all points of the probe's grid.
The error is that of the train loss at one point; verdicts are Definition 1's with the config's constants.
``flagged`` are the curves that a probing job would measure again in fp32 (`confirm_precision`): of those
whose verdict differs, all should be.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import document, markdown, save
from snakemake.utils import validate
from valleys.asymmetry import robustness
from valleys.asymmetry.definition import detect_many
from valleys.config.experiment import Experiment
from valleys.config.schema import SCHEMA_FILE
from valleys.data.cache import load_split
from valleys.execution import jobs
from valleys.landscape import directions
from valleys.landscape.adaptive import checked_points
from valleys.landscape.evaluator import Evaluator, evaluator_for
from valleys.landscape.kinds import COMPUTED
from valleys.landscape.lines import probe_line
from valleys.landscape.probing import TOLERANCE
from valleys.models import solutions
from valleys.results import measures
from valleys.storage import tables


def experiment(path: Path) -> Experiment:
    """Return a checked config with its defaults."""
    import yaml

    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    validate(config, str(SCHEMA_FILE))
    return Experiment(config)


def curve(evaluator: Evaluator, direction: Any, offsets: list[float], precision: str) -> Any:
    """Return train losses and seconds of one curve."""
    begin = time.perf_counter()
    with evaluator.in_precision(precision):
        rows = probe_line(evaluator, direction, offsets)
    return np.array([row["train_loss"] for row in rows]), time.perf_counter() - begin


def measure(given: Experiment, folder: Path, cells: int, count: int) -> list[dict[str, Any]]:
    """Measure the first directions of each probe in a few cells."""
    seen: dict[tuple[str, str], int] = {}
    rows = []
    for cell in given.all_cells:
        seen[cell.model, cell.recipe] = seen.get((cell.model, cell.recipe), 0) + 1
        if seen[cell.model, cell.recipe] > cells:
            continue
        where = folder / "cells" / cell.path
        splits = tuple(
            load_split(folder / "data" / cell.dataset / f"{name}.safetensors") for name in ("train", "test")
        )
        for bundle in given.bundles_of(cell):
            spec = given.probe(cell, bundle)
            stored = tables.read(where / "probes" / bundle / "curves.parquet", "curves").to_pandas()
            for name, block in spec["probes"].items():
                if block["kind"] in COMPUTED:
                    continue
                for solution in block["solutions"]:
                    model, _ = solutions.load(where / f"{solution}.safetensors")
                    evaluator = evaluator_for(model, splits, block, spec)
                    names = directions.parameter_group(evaluator.model, block["group"])
                    weights = {n: evaluator.parameters[n].detach() for n in names}
                    some = dict(block, n=min(count, block["n"]))
                    for k, direction, _ in directions.draw(some, weights, f"{cell.path}/{block['group']}"):
                        chosen = (stored["probe"] == name) & (stored["solution"] == solution)
                        own = stored[chosen & (stored["k"] == k)].sort_values("offset")
                        row = compare(evaluator, direction, own, given.config["asymmetry"])
                        rows.append(
                            {"experiment": given.config["name"], **cell.columns()}
                            | {"probe": name, "solution": solution, "k": k, "bn": evaluator.bn, **row}
                        )
        print(cell.path, len(rows), flush=True)
    return rows


def compare(evaluator: Evaluator, direction: Any, stored: pd.DataFrame, constants: Any) -> dict[str, Any]:
    """Return one direction's row."""
    offsets = measures.on_all_points(stored)["offset"].tolist()
    fp32, slow = curve(evaluator, direction, offsets, "fp32")
    bf16, fast = curve(evaluator, direction, offsets, "bf16")
    own, given = fp32[np.isin(offsets, stored["offset"])], stored["train_loss"]
    within = max(1e-4, TOLERANCE[evaluator.precision])  # it may be in bf16
    assert np.allclose(own, given, rtol=within, atol=0.1 * within), "the stored curve is another's"
    exact, rounded = detect_many(offsets, np.stack([fp32, bf16]), **constants)
    at = checked_points(len(offsets))
    errors = robustness.errors_like(bf16, at, (bf16 - fp32)[at])
    return {
        "points": len(offsets),
        "rise": float(max(fp32[0], fp32[-1]) - fp32[len(fp32) // 2]),
        "max_error": float(np.abs(bf16 - fp32).max()),
        "rms_error": float(np.sqrt(np.mean((bf16 - fp32) ** 2))),
        "checked_error": float(np.sqrt(np.mean((bf16 - fp32)[at] ** 2))),
        "c_star": exact.c_star,
        "c_star_bf16": rounded.c_star,
        "status": exact.status,
        "status_bf16": rounded.status,
        "flagged": not robustness.is_robust(offsets, bf16, errors, **constants),
        "fp32_s": slow,
        "bf16_s": fast,
    }


def summary(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the table that the docs show, a row a model (variants of a study together) and BN policy."""
    shown = []
    for (model, bn), part in rows.groupby([rows["model"].str.split(".").str[0], "bn"], sort=False):
        relative = (part["max_error"] / part["rise"].abs()).median()
        error, change = part["max_error"], (part["c_star_bf16"] - part["c_star"]).abs()
        differ = part["status"] != part["status_bf16"]
        shown.append(
            {
                "model": model,
                "BN": bn,
                "curves": len(part),
                "times as fast": f"{part['fp32_s'].sum() / part['bf16_s'].sum():.2f}",
                "max error, nats (median, worst)": f"{error.median():.1e}, {error.max():.1e}",
                "of the rise": f"{relative:.1%}",
                "change of c* (median, worst)": f"{change.median():.2f}, {change.max():.2f}",
                "verdicts that differ": int(differ.sum()),
                "of these flagged": int((differ & part["flagged"]).sum()),
                "flagged in all": int(part["flagged"].sum()),
            }
        )
    return shown


def main() -> None:
    """Measure, write the table, and put it into their page (`common.PAGES`)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", type=Path, nargs="+", help="of finished experiments")
    parser.add_argument("--results", type=Path, nargs="+", help="folders that hold theirs (results)")
    parser.add_argument("--cells", type=int, default=2, help="seeds of each model and recipe")
    parser.add_argument("--directions", type=int, default=4, help="of each probe and solution")
    given = parser.parse_args()
    torch.set_num_threads(1)
    jobs.keep_memory()
    rows = []
    folders = given.results or [Path("results")] * len(given.configs)
    for path, results in zip(given.configs, folders, strict=True):
        one = experiment(path)
        rows += measure(one, results / one.config["name"], given.cells, given.directions)
    save("precision", rows)
    document("precision", markdown(summary(pd.DataFrame(rows))))


if __name__ == "__main__":
    main()
