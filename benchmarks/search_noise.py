"""What becomes of a found direction on other images, where nets are fitted to random labels.

    python benchmarks/search_noise.py [--models mlp resnet8] [--seeds 3] [--epochs 150]

Digits of scikit-learn. All labels, train and test, are permuted at random, and a net is trained by
`sgd.train` until it knows the train labels by heart; another is trained on the true labels by the same
recipe. Then `find_asymmetric`, with its defaults. Its direction is judged on the images searched on, on those
chosen on, on those judged on and on the test images; where labels are permuted, also on the test images with
their true labels. The net was fitted to all but the test images. BN is frozen.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from common import document, markdown, save
from search import CONSTANTS, FLOOR, POINTS, RISE, divided, judged, verdict
from torch import nn
from valleys.data.sources.load import load_source
from valleys.data.split import Split
from valleys.execution import jobs
from valleys.landscape.evaluator import CROSS_ENTROPY, Evaluator
from valleys.landscape.searching import find_asymmetric
from valleys.models import solutions
from valleys.networks.bn_refresh import refresh_bn
from valleys.training import sgd
from valleys.training.evaluation import evaluate

MODELS = {
    "mlp": {"arch": "mlp", "hidden": [64, 64]},
    "resnet8": {"arch": "resnet8", "width": 8, "norm": "batch"},
}
SOURCE = {"source": "digits", "train_size": 800, "split_seed": 0}
IMAGES = ("search", "choose", "judge", "test", "test, true")


def recipe(epochs: int) -> dict[str, Any]:
    """Return a recipe that nets learn labels by heart with: no augmentation and no weight decay."""
    rates = {"lr": 0.05, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0}
    swa = {"start": epochs, "lr": 0.005, "every": 1}
    more = {"loss": {"name": "cross_entropy"}, "augment": {}, "eval_every": epochs, "swa": swa}
    return {"epochs": epochs, "batch_size": 32, **rates, **more}


def permuted(split: Split, seed: int) -> Split:
    """Return a split whose labels are dealt anew."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return replace(split, labels=split.labels[order])


def trained(spec: dict[str, Any], splits: tuple[Split, Split], seed: int, epochs: int) -> nn.Module:
    """Return a network trained on these labels, its batch-norm statistics those of the train images."""
    model = solutions.fresh(spec, splits[0].in_shape, splits[0].classes, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        sgd.train(model, splits, recipe(epochs), seed=seed, state_dir=Path(folder))
    refresh_bn(model, splits[0].batches(1000))
    return model.eval()


def measure(name: str, labels: str, seed: int, true: tuple[Split, Split], epochs: int) -> Iterator:
    """Yield a row for each set of images that the direction found at one net is judged on."""
    begin = time.perf_counter()
    dealt = tuple(permuted(split, 2 * seed + k) for k, split in enumerate(true))
    splits = dealt if labels == "random" else true
    model = trained(MODELS[name], splits, seed, epochs)
    own = {"model": name, "labels": labels, "seed": seed}
    for part, split in zip(("train", "test"), splits, strict=True):
        own[f"{part}_loss"], own[f"{part}_accuracy"] = evaluate(model, split, CROSS_ENTROPY, 1000)
    options = {"rise": RISE, "floor": FLOOR, "points": POINTS, "constants": CONSTANTS}
    search = find_asymmetric(Evaluator(model, *splits, bn="frozen"), seed=seed, **options)
    own |= {"verdict": search.verdict, "seconds": time.perf_counter() - begin}
    kept = ("status", "c_star", "flat_rise")
    for images in IMAGES[:4]:
        yield own | {"images": images} | {key: search.best.get(f"{images}_{key}", math.nan) for key in kept}
    if labels == "random":  # along the same curve, to the R of the images judged on
        judge = Evaluator(model, divided(splits[0], seed)["judge"], true[1], bn="frozen")
        _, test = judged(judge, search.direction, POINTS)
        about = {key: verdict("true", test)[f"true_{key}"] for key in kept}
        yield own | {"images": IMAGES[4]} | about


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the table that the docs show."""
    shown = []
    table = pd.DataFrame(rows)
    for (model, labels, images), own in table.groupby(["model", "labels", "images"], sort=False):
        c = own["c_star"]
        found = (own["status"] == "asymmetric") & (own["flat_rise"] >= FLOOR)
        shown.append(
            {"model": model, "labels": labels}
            | {f"accuracy, {part}": f"{own[f'{part}_accuracy'].mean():.0%}" for part in ("train", "test")}
            | {"images": images, "found": f"{found.sum()} of {len(own)}"}
            | {"without c*": int(c.isna().sum()), "c* of the others, median": said("{:.2f}", c.median())}
            | {"least and greatest": said("{:.2f} to {:.2f}", c.min(), c.max())}
            | {"flat side's rise, median": f"{own['flat_rise'].median():.2f}"}
        )
    return shown


def said(text: str, *values: float) -> str:
    """Return numbers in a text, or nothing where there are none."""
    return "" if any(map(math.isnan, values)) else text.format(*values)


def main() -> None:
    """Train, search, write the rows, and put the table into their page (`common.PAGES`)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3, help="networks of each kind")
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--threads", type=int, default=1, help="as a job of the workflow has")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    jobs.keep_memory()
    true = load_source(SOURCE, "digits")
    rows = []
    for name in given.models:
        for labels in ("random", "true"):
            for seed in range(given.seeds):
                for row in measure(name, labels, seed, true, given.epochs):
                    rows.append(row)
                    print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    save("search_noise", rows)
    document("search_noise", markdown(summary(rows)))


if __name__ == "__main__":
    main()
