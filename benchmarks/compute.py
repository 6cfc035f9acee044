"""Training, probing, BN refresh and Hessian eigenvectors, beside a plain reference loop and the bare network.

    python benchmarks/compute.py [--models preresnet-20 vgg-16-bn] [--images 500] [--rounds 5] [--threads N]

Each measure has three ways, run in turns: ``ours``, the functions that the workflow calls; ``reference``,
the same work as plain research code does it (`reference.py`), in fp32 also where the measure is in bf16;
``limit``, the network alone on tensors that are ready (its forward pass, or forward, backward and optimiser
step), as many images as the measure needs. The reference has a process of its own, since
`jobs.keep_memory` would speed it up too. Images are random: no way is faster on others. Rates are
images a second through the measure's *useful* passes, so that the ratio to the limit is 1 where nothing but
the network takes time.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import os
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import reference
import torch
from common import document, markdown, rounds, save
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from valleys.costs import sizes
from valleys.data.split import Split
from valleys.execution import jobs
from valleys.landscape import directions, hessian
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.lines import probe_line
from valleys.models import losses, precision, solutions
from valleys.networks import bn_refresh
from valleys.training.trainer import Trainer

SPECS = {
    "preresnet-20": {"arch": "preresnet", "depth": 20},
    "vgg-16-bn": {"arch": "vgg16", "norm": "batch"},
}
SHAPE, CLASSES, BATCH = (3, 32, 32), 10, 128
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
POINTS = (-0.5, 0.25, 0.5)  # not 0, which the lines of an evaluator share
RECIPE = {
    "lr": 0.05,
    "batch_size": BATCH,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
    "loss": {"name": "cross_entropy"},
    "augment": {"shift": 4, "flip": True},
}


def split(count: int, seed: int, shape: tuple[int, int, int] = SHAPE) -> Split:
    """Return random images with random labels."""
    generator = torch.Generator().manual_seed(seed)
    return Split(
        images=torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator),
        labels=torch.randint(0, CLASSES, (count,), generator=generator),
        classes=CLASSES,
        mean=(0.49, 0.48, 0.45),
        std=(0.25, 0.24, 0.26),
    )


def network(spec: dict, shape: tuple[int, int, int] = SHAPE, classes: int = CLASSES) -> nn.Module:
    """Return a fresh network in the memory format that the workflow would choose."""
    return solutions.fresh(spec, shape, classes, seed=0)


def plain_network(spec: dict, shape: tuple[int, int, int] = SHAPE, classes: int = CLASSES) -> nn.Module:
    """Return the same network as torch makes it."""
    return network(spec, shape, classes).to(memory_format=torch.contiguous_format)


def ready(images: Split, batch: int) -> list[Tensor]:
    """Return normalised batches."""
    return [x for x, _ in images.batches(batch)]


@torch.no_grad()
def forwards(model: nn.Module, batches: list[Tensor]) -> None:
    """Run the bare network in eval mode."""
    model.eval()
    for images in batches:
        model(images)


class Elsewhere:
    """The reference in a process of its own, without what `jobs.keep_memory` does to this one."""

    def __init__(self, name: str, images: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.here, there = context.Pipe()
        self.process = context.Process(target=_serve, args=(there, name, images, threads), daemon=True)
        self.process.start()

    def call(self, measure: str) -> None:
        """Run the reference of a measure once."""
        self.here.send(measure)
        if (problem := self.here.recv()) is not None:
            raise RuntimeError(problem)

    def close(self) -> None:
        """End the process."""
        self.here.send(None)
        self.process.join()


def _serve(there, name: str, images: int, threads: int) -> None:
    torch.set_num_threads(threads)
    ways = {measure: found["reference"] for measure, _, _, found in measures(name, images)}
    while (measure := there.recv()) is not None:
        try:
            ways[measure]()
            there.send(None)
        except Exception as error:
            there.send(repr(error))


class _Never:
    """A stop signal that does not come."""

    received = None


def training(spec: dict, train: Split, kind: str = "fp32") -> dict[str, Callable[[], object]]:
    """Return an epoch in three ways."""
    trainer = Trainer(network(spec), train, {**RECIPE, "precision": kind}, seed=0)
    plain, bare = plain_network(spec), network(spec)
    settings = {k: RECIPE[k] for k in ("lr", "momentum", "nesterov", "weight_decay")}
    plain_optimizer = torch.optim.SGD(plain.parameters(), **settings)
    bare_optimizer = torch.optim.SGD(bare.parameters(), **settings)
    loader = reference.loader(train, BATCH, train=True)
    batches = list(train.batches(BATCH))

    def limit() -> None:
        bare.train()
        for images, labels in batches:
            bare_optimizer.zero_grad()
            with precision.autocast(images.device, kind):
                logits = bare(images)
            nn.functional.cross_entropy(logits.float(), labels).backward()
            bare_optimizer.step()

    return {
        "ours": lambda: trainer.run_epoch(RECIPE["lr"], _Never()),
        "reference": lambda: reference.train_epoch(plain, loader, plain_optimizer),
        "limit": limit,
    }


def probing(
    spec: dict, train: Split, test: Split, bn: str, kind: str = "fp32"
) -> dict[str, Callable[[], object]]:
    """Return a line of three points in three ways; the reference is in fp32 whatever the kind."""
    model = network(spec).eval()
    weights = dict(model.named_parameters())
    direction, _ = directions.random_direction("uniform", weights, key="benchmark", k=0)
    evaluator = Evaluator(model, train, test, losses.build(RECIPE["loss"]), bn=bn, precision=kind)
    plain, bare = plain_network(spec), copy.deepcopy(model).requires_grad_(False)
    loaders = [reference.loader(s, BATCH, train=False) for s in (train, test)]
    batches = [*ready(train, BATCH), *ready(test, BATCH)]

    def limit() -> None:
        with precision.autocast(batches[0].device, kind):
            for _ in POINTS:
                forwards(bare, batches)

    return {
        "ours": lambda: probe_line(evaluator, direction, POINTS),
        "reference": lambda: reference.line(plain, direction, POINTS, *loaders, refresh=bn == "refreshed"),
        "limit": limit,
    }


def refreshing(spec: dict, train: Split, method: str) -> dict[str, Callable[[], object]]:
    """Return a BN refresh in three ways."""
    model, plain, bare = network(spec), plain_network(spec), network(spec).requires_grad_(False)
    loader, batches = reference.loader(train, BATCH, train=False), ready(train, BATCH)
    return {
        "ours": lambda: bn_refresh.refresh_bn(model, train.batches(BATCH), method),
        "reference": lambda: update_bn(loader, plain),
        "limit": lambda: forwards(bare, batches),
    }


def curving(spec: dict, train: Split) -> dict[str, Callable[[], object]]:
    """Return the top two Hessian eigenvectors over the classifier in two ways, and as many bare products."""
    model = network(spec).eval()
    names = directions.parameter_group(model, "classifier")
    loss = losses.build(RECIPE["loss"])
    weights = [dict(model.named_parameters())[name] for name in names]
    entries = sum(w.numel() for w in weights)
    batches = list(train.batches(BATCH))
    loader = reference.loader(train, BATCH, train=False)
    products = 0

    def product(vector: np.ndarray, images_and_labels) -> np.ndarray:
        """One product by double backward, the gradient's graph built anew."""
        nonlocal products
        products += 1
        pieces = torch.from_numpy(vector).float().split([w.numel() for w in weights])
        total = [torch.zeros_like(w) for w in weights]
        for images, labels in images_and_labels:
            value = nn.functional.cross_entropy(model(images), labels, reduction="sum") / len(train)
            first = torch.autograd.grad(value, weights, create_graph=True)
            along = sum((g * p.view_as(g)).sum() for g, p in zip(first, pieces, strict=True))
            for t, second in zip(total, torch.autograd.grad(along, weights), strict=True):
                t += second
        return torch.cat([t.flatten() for t in total]).double().numpy()

    def lanczos() -> None:
        operator = LinearOperator((entries, entries), matvec=lambda v: product(v, loader), dtype=float)
        eigsh(operator, k=2, which="LA", tol=1e-6)

    lanczos()
    count, vector = products, np.ones(entries)
    return {
        "ours": lambda: hessian.hessian_eigenvectors(model, train, loss, names, 2),
        "reference": lanczos,
        "limit": lambda: [product(vector, batches) for _ in range(count)],
    }


def matmul_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """Return the machine's GFLOP/s in a large matrix product."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    times = rounds({"product": lambda: a @ b}, 9)["product"]
    return 2 * size**3 / median(times) / 1e9


def measures(name: str, images: int) -> list[tuple[str, int, float, dict[str, Callable[[], object]]]]:
    """Return (measure, images a call, forward passes' worth of FLOPs an image, ways)."""
    spec = SPECS[name]
    train, test = split(images, 0), split(images, 1)
    both = 2 * images * len(POINTS)
    return [
        ("training", images, 3, training(spec, train)),
        ("training, bf16", images, 3, training(spec, train, "bf16")),
        ("line, BN frozen", both, 1, probing(spec, train, test, "frozen")),
        ("line, BN frozen, bf16", both, 1, probing(spec, train, test, "frozen", "bf16")),
        ("line, BN refreshed", both, 1, probing(spec, train, test, "refreshed")),
        ("line, BN refreshed, bf16", both, 1, probing(spec, train, test, "refreshed", "bf16")),
        ("BN refresh, exact", images, 1, refreshing(spec, train, "exact")),
        ("BN refresh, streaming", images, 1, refreshing(spec, train, "streaming")),
        ("Hessian, top 2", images, 0, curving(spec, split(min(images, 256), 2))),
    ]


def main() -> None:
    """Measure, write the table, and put it into their page (`common.PAGES`)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=SPECS, default=list(SPECS))
    parser.add_argument("--images", type=int, default=500, help="in each of the two sets")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    jobs.keep_memory()  # as every job does
    peak = {kind: matmul_rate(dtype) for kind, dtype in PRECISIONS.items()}
    print({k: round(v) for k, v in peak.items()}, "GFLOP/s of matrix products", flush=True)
    rows = []
    for name in given.models:
        flops = sizes.measure(SPECS[name], SHAPE, CLASSES).flops
        elsewhere = Elsewhere(name, given.images, given.threads)
        for measure, images, passes, ways in measures(name, given.images):
            ways["reference"] = partial(elsewhere.call, measure)
            times = rounds(ways, given.rounds)
            row = {"model": name, "measure": measure, "images": images, "threads": given.threads}
            row |= {way: images / median(taken) for way, taken in times.items()}
            row |= {"rounds": given.rounds, "matmul_gflops": peak["bf16" if "bf16" in measure else "fp32"]}
            row["gflops"] = row["ours"] * passes * flops / 1e9
            rows.append(row)
            print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        elsewhere.close()
    save("compute", rows)
    shown = [
        {
            "model": row["model"],
            "measure": row["measure"],
            "images/s": f"{row['ours']:,.0f}",
            "of the bare network": f"{row['ours'] / row['limit']:.2f}",
            "times the reference": f"{row['ours'] / row['reference']:.1f}",
            "of matmul": f"{row['gflops'] / row['matmul_gflops']:.0%}" if row["gflops"] else "",
        }
        for row in rows
    ]
    document("compute", markdown(shown))


if __name__ == "__main__":
    main()
