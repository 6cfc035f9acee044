"""Seconds for a verdict: an adaptive line of the library beside a plain loop over the whole grid.

    python benchmarks/verdicts.py [--data FOLDER] [--run RESULTS ...] [--rounds 5] [--points 31] [--threads N]

A round takes one U(0, 1) direction at a trained net, to where the loss has risen by 1 nat, and judges it by
Definition 1: by ``ours`` (`probe_adaptively`, in fp32 and in bf16) and by the ``reference``
(`reference.line` at all points, fp32, in a process of its own), in turns. Weights are trained on the images
that are probed, those of CIFAR-10 where FOLDER has its ``train.parquet`` and ``test.parquet``, else random
ones. With RESULTS, folders of finished runs, minima are their SGD solutions instead, on 250 images of each of
their sets. A verdict of the library is right where the reference's losses give the same.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import compute
import reference
import torch
from common import document, markdown, save
from torch import nn
from valleys.asymmetry.definition import Detection, detect
from valleys.asymmetry.spline import upsample
from valleys.data.cache import load_split
from valleys.data.sources import load
from valleys.data.split import Split
from valleys.execution import jobs
from valleys.landscape import directions
from valleys.landscape.adaptive import measured_at, probe_adaptively
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.lines import find_radius, line_offsets, probe_line
from valleys.models import losses, solutions
from valleys.networks import bn_refresh, tensors
from valleys.training.trainer import Trainer

IMAGES = {"preresnet-20": 100, "vgg-16-bn": 40}  # in each of the two sets
OF_A_RUN = 250
EPOCHS = 60
CONSTANTS = {"c": 2.0, "zeta_max": 0.5, "min_span": 0.25, "minimum_within": 0.25, "noise": 1e-6}


def images(folder: Path | None, count: int) -> tuple[Split, Split]:
    """Return train and test images."""
    if folder is None:
        return compute.split(count, 0), compute.split(count, 1)
    files = {part: str(folder / f"{part}.parquet") for part in ("train", "test")}
    source = {"source": "parquet", **files, "max_train": count, "max_test": count}
    return load.load_source(source, "cifar10")


def trained(name: str, train: Split) -> nn.Module:
    """Return a network trained on these images, its batch-norm statistics theirs."""
    recipe = compute.RECIPE | {"batch_size": 25, "lr": 0.02}
    trainer = Trainer(compute.network(compute.SPECS[name]), train, recipe, seed=0)
    for epoch in range(EPOCHS):
        trainer.run_epoch(0.02 if epoch < 2 * EPOCHS // 3 else 0.002, compute._Never())
    bn_refresh.refresh_bn(trainer.model, train.batches(compute.BATCH))
    return trainer.model.eval()


def direction_of(model: nn.Module, k: int) -> dict[str, torch.Tensor]:
    """Return direction number k."""
    return directions.random_direction("uniform", dict(model.named_parameters()), key="benchmark", k=k)[0]


class Minimum(NamedTuple):
    """A trained network, with what builds another like it, and the images to look at it on."""

    name: str
    spec: dict[str, Any]
    model: nn.Module
    splits: tuple[Split, Split]


def fresh_minima(names: list[str], folder: Path | None) -> Iterator[Minimum]:
    """Train a network of each name."""
    for name in names:
        splits = images(folder, IMAGES[name])
        yield Minimum(name, compute.SPECS[name], trained(name, splits[0]), splits)


def minima_of(runs: list[Path]) -> Iterator[Minimum]:
    """Take the SGD solutions of finished runs."""
    for results in runs:
        for path in sorted(results.glob("cells/*/*/*/*/sgd.safetensors")):
            model, about = solutions.load(path)
            dataset, name, recipe, _ = path.relative_to(results / "cells").parts[:4]
            splits = _some_of(results / "data" / dataset)
            yield Minimum(f"{name} of `{dataset}`, {recipe}", about["model"], model, splits)


@cache
def _some_of(folder: Path) -> tuple[Split, Split]:
    train, test = (load_split(folder / f"{part}.safetensors").subset(OF_A_RUN) for part in ("train", "test"))
    return train, test


class Reference:
    """The plain loop in a process of its own, without what `jobs.keep_memory` does to this one."""

    def __init__(self, minimum: Minimum, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.here, there = context.Pipe()
        state = {key: value.numpy() for key, value in minimum.model.state_dict().items()}
        parts = [(s.images.numpy(), s.labels.numpy(), s.classes, s.mean, s.std) for s in minimum.splits]
        given = (there, minimum.spec, state, parts, threads)
        self.process = context.Process(target=_serve, args=given, daemon=True)
        self.process.start()

    def line(self, k: int, offsets: list[float], bn: str) -> tuple[list[float], float]:
        """Return train losses, and seconds that they took."""
        self.here.send((k, offsets, bn))
        return self.here.recv()

    def close(self) -> None:
        """End the process."""
        self.here.send(None)
        self.process.join()


def _serve(there, spec: dict, state: dict, parts: list, threads: int) -> None:
    torch.set_num_threads(threads)
    splits = [Split(torch.from_numpy(x), torch.from_numpy(y), *more) for x, y, *more in parts]
    model = compute.plain_network(spec, splits[0].in_shape, splits[0].classes).eval()
    model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    loaders = [reference.loader(split, compute.BATCH, train=False) for split in splits]
    while (asked := there.recv()) is not None:
        k, offsets, bn = asked
        direction = direction_of(model, k)
        begin = time.perf_counter()
        values = reference.line(model, direction, offsets, *loaders, refresh=bn == "refreshed")
        there.send(([train for train, _ in values], time.perf_counter() - begin))


def judged(curve: list, offsets: list[float]) -> Detection:
    """Return the verdict on an adaptive curve."""
    at = measured_at(offsets, curve)
    losses, _ = upsample(offsets, at, [row["train_loss"] for row in curve])
    return detect(offsets, losses, **CONSTANTS)


def measure(minimum: Minimum, number: int, rounds: int, points: int, threads: int) -> list[dict[str, Any]]:
    """Return a row for each BN policy, precision and direction."""
    name, _, model, splits = minimum
    plain = Reference(minimum, threads)
    loss, rows = losses.build(compute.RECIPE["loss"]), []
    for bn in ("frozen", "refreshed"):
        ours = {p: Evaluator(model, *splits, loss, bn=bn, precision=p) for p in compute.PRECISIONS}
        norm = tensors.vector_norm(ours["fp32"].parameters)
        for k in range(rounds):
            direction = direction_of(model, k)
            radius = find_radius(ours["fp32"], direction, rise=1.0, first=norm / 50, cap=2 * norm)
            offsets = line_offsets(radius.radius, points)
            if not k:  # neither way pays for what is done once
                plain.line(k, offsets[:1], bn)
                for evaluator in ours.values():
                    probe_line(evaluator, direction, offsets[:1])
            values, seconds = plain.line(k, offsets, bn)
            wanted = detect(offsets, values, **CONSTANTS).status
            for precision, evaluator in ours.items():
                begin = time.perf_counter()
                curve, about = probe_adaptively(evaluator, direction, offsets, CONSTANTS)
                found = judged(curve, offsets)
                taken = time.perf_counter() - begin
                row = {"model": name, "bn": bn, "precision": precision, "minimum": number, "k": k}
                row |= {"points": len(curve), "settled": about["precision"]}
                row |= {"status": found.status, "status_reference": wanted}
                rows.append(row | {"ours_s": taken, "reference_s": seconds, "all_points": points})
                print(
                    {key: round(v, 3) if isinstance(v, float) else v for key, v in rows[-1].items()},
                    flush=True,
                )
    plain.close()
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the table that the docs show."""
    shown = []
    for key in dict.fromkeys((row["model"], row["bn"], row["precision"]) for row in rows):
        part = [row for row in rows if (row["model"], row["bn"], row["precision"]) == key]
        ours, plain = (median(row[f"{way}_s"] for row in part) for way in ("ours", "reference"))
        points = sum(row["points"] for row in part) / len(part)
        same = sum(row["status"] == row["status_reference"] for row in part)
        shown.append(
            dict(zip(("model", "BN", "precision"), key, strict=True))
            | {"points, mean": f"{points:.1f} of {part[0]['all_points']}", "s a verdict": f"{ours:.2f}"}
            | {"reference, s": f"{plain:.2f}", "times as fast": f"{plain / ours:.1f}"}
            | {"same verdict": f"{same} of {len(part)}"}
        )
    return shown


def positive(text: str) -> int:
    """Return a number of directions."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def main() -> None:
    """Measure, write the table, and put it into their page (`common.PAGES`)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=compute.SPECS, default=list(compute.SPECS))
    parser.add_argument("--data", type=Path, help="folder with train.parquet and test.parquet of CIFAR-10")
    parser.add_argument("--run", type=Path, nargs="+", help="results folders of finished runs")
    parser.add_argument("--rounds", type=positive, default=5, help="directions at each minimum")
    parser.add_argument("--points", type=int, default=31)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    jobs.keep_memory()  # as every job does
    rows = []
    minima = minima_of(given.run) if given.run else fresh_minima(given.models, given.data)
    for number, minimum in enumerate(minima):
        rows += measure(minimum, number, given.rounds, given.points, given.threads)
    if not rows:
        folders = ", ".join(map(str, given.run))
        parser.error(f"{folders}: no SGD solutions there: give the folders of finished runs")
    name = "verdicts_run" if given.run else "verdicts"
    save(name, rows)
    document(name, markdown(summary(rows)))


if __name__ == "__main__":
    main()
