"""What refreshed batch norm takes its statistics from: train images as they are, or augmented as in training.

    python benchmarks/augmented.py RESULTS... [--images 3000] [--threads N]

RESULTS are folders of finished runs. At each solution of their grids whose recipe augments, batch-norm
statistics are refreshed on some train images: once as the workflow does, on the images as they are, and once
on the same images, each augmented by one draw of the recipe's augmentation. The losses are of images as they
are.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from common import document, markdown, save
from valleys.data.augment import augment
from valleys.data.cache import load_split
from valleys.execution import jobs
from valleys.landscape.evaluator import CROSS_ENTROPY
from valleys.models import solutions
from valleys.networks.bn_refresh import refresh_bn
from valleys.results import stats
from valleys.storage import tables
from valleys.storage.files import stable_seed
from valleys.training.evaluation import evaluate
from verdicts import positive

KINDS = ("as they are", "augmented")
SOLUTIONS = ("sgd", "swa", "descent")


def measure(results: Path, images: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each cell of the grid, solution and kind of images that statistics are of."""
    config = tables.about(results / "tables" / "solutions.parquet")["config"]
    made = pd.read_parquet(results / "tables" / "solutions.parquet")
    for names in made[["dataset", "model", "recipe", "seed"]].drop_duplicates().itertuples(index=False):
        cell = results / "cells" / names.dataset / names.model / names.recipe / f"seed-{names.seed}"
        data = results / "data" / names.dataset
        data = data / f"seed-{names.seed}" if (data / f"seed-{names.seed}").is_dir() else data
        train, test = (load_split(data / f"{part}.safetensors").subset(images) for part in ("train", "test"))
        generator = torch.Generator().manual_seed(stable_seed("augmented", names.seed))
        spec = config["recipes"][names.recipe]["augment"]
        if not (spec["shift"] or spec["flip"]):
            continue
        moved = replace(train, images=augment(train.images, spec, generator))
        for name in SOLUTIONS:
            if not (path := cell / f"{name}.safetensors").is_file():
                continue
            model = solutions.load(path)[0].eval()
            for kind, split in zip(KINDS, (train, moved), strict=True):
                refresh_bn(model, [x for x, _ in split.batches(250)])
                row = {**names._asdict(), "solution": name, "statistics": kind, "images": len(train)}
                for part, images_of in (("train", train), ("test", test)):
                    row[f"{part}_loss"] = evaluate(model, images_of, CROSS_ENTROPY, 250)[0]
                print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
                yield row


def summary(rows: list[dict[str, Any]]) -> str:
    """Return the tables that the page shows: losses, and SWA's test loss less those of the others."""
    frame, shown, apart = pd.DataFrame(rows), [], []
    for names, part in frame.groupby(["dataset", "model", "recipe"], sort=True):
        setting = "/".join(names)
        wide = part.pivot(index="seed", columns=["solution", "statistics"], values="test_loss")
        train = part.pivot(index="seed", columns=["solution", "statistics"], values="train_loss")
        there = [name for name in SOLUTIONS if name in wide]
        for name in there:
            plain, moved = (wide[name, kind] for kind in KINDS)
            row = {"setting": setting, "solution": name}
            row |= {f"train loss, {kind}": f"{train[name, kind].mean():.3f}" for kind in KINDS}
            row |= {f"test loss, {kind}": f"{wide[name, kind].mean():.3f}" for kind in KINDS}
            row["test loss lower where augmented"] = f"{(moved < plain).sum()} of {len(wide)} seeds"
            shown.append(row)
        for other in (one for one in there if one != "swa" and "swa" in there):
            for kind in KINDS:
                found = wide["swa", kind] - wide[other, kind]
                mean = stats.mean_interval(found)
                apart.append(
                    {
                        "setting": setting,
                        "test loss of swa less that of": other,
                        "statistics of images": kind,
                        "nats (95 % t interval)": f"{mean.estimate:.4f} ({mean.low:.4f} to {mean.high:.4f})",
                        "above 0": f"{(found > 0).sum()} of {len(found)} seeds",
                    }
                )
    return "\n\n".join(markdown(table) for table in (shown, apart) if table)


def main() -> None:
    """Measure, write the rows, and put the tables into their page (`common.PAGES`)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help="folders of finished runs")
    parser.add_argument("--images", type=positive, default=3000, help="train and test images each")
    parser.add_argument("--threads", type=positive, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    jobs.keep_memory()
    rows = [row for run in given.results for row in measure(run, given.images)]
    save("augmented", rows)
    document("augmented", summary(rows))


if __name__ == "__main__":
    main()
