"""Lines, planes, eigenvalues, traces and verdicts beside other tools, in alternating rounds of one process.

    pip install --no-deps -r benchmarks/requirements-peers.txt
    python benchmarks/peers.py [--networks mlp preresnet-20] [--tasks line ...] [--rounds N] [--quick]

Every tool gets the same trained network, 500 images in batches of 125, one thread, and batch norm as
stored. A call begins from the network and does all that a user has to call (`peers_tools.py`), our checks
among it. What counts as equal: losses within 1e-5 of a plain loop in float64 (every eighth of a plane's);
both eigenvalues right to 1 %, with residuals of at most 1 % by products in float64; a trace with a standard
error of at most 1 %. Tools without such a tolerance get the loosest setting of a ladder that reaches it;
finding it is not timed. Plain Hutchinson estimates that take more than `MOST` products are timed over 20 and
scaled, as the table says. A tool that is not there or fails has its error in its row.

PreResNet-20 takes 100 images for all but the line. Rows that are not measured now stay, if they are of this
machine.

A verdict takes two rows. With the range known: ours measures as many of 31 points as its verdict needs,
others the line of 31, and `valleys.detect` is called on it. From a network: the range where the loss rises
by 1 is looked for as well; others take lines of 31, twice as far each until the loss rises by 1, and then one
as far as the last line says.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import peers_tools as tools
import torch
import torch.nn.functional as F
from common import RESULTS, document, machine, markdown, save
from peers_accuracy import rows as accuracy_rows
from peers_tools import OURS, PLAIN, Problem
from torch import nn
from valleys.asymmetry.definition import detect
from valleys.asymmetry.spline import upsample
from valleys.landscape import adaptive
from valleys.landscape.lines import line_offsets
from valleys.models import solutions
from valleys.networks.bn_refresh import refresh_bn

NETWORKS = {
    "mlp": ({"arch": "mlp", "hidden": [512, 512]}, 5, 0.01),
    "preresnet-20": ({"arch": "preresnet", "depth": 20}, 12, 0.05),
}
IMAGES, BATCH = 500, 125
#: Of this network a tool takes minutes on all images for all but a line; times are linear in images.
LONG_TASKS = ("plane", "eigenvalues", "trace", "verdict, range known", "verdict")
FEWER = {("preresnet-20", task): 100 for task in LONG_TASKS}
ROUNDS = {"mlp": 3, "preresnet-20": 1}
WARM_S = 10.0
APART = 8  # points of a plane that are compared
SAME, RESIDUAL, TIGHT, ERROR, MOST = 1e-5, 1e-2, 1e-4, 1e-2, 600
CONSTANTS = {"c": 2.0, "zeta_max": 0.5, "min_span": 0.25, "minimum_within": 0.25, "noise": 1e-6}
LADDERS = {
    "hessian-eigenthings": [4, 6, 8, 12, 16, 24, 32, 48, 64],
    "": [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7],
}
PRODUCTS = [9, 18, 30, 45, 60, 90, 150, 240, 390, MOST]


def trained(spec: Mapping[str, Any], epochs: int, lr: float, images: int) -> tuple[nn.Module, Any]:
    """Return a network trained on noisy pictures of ten kinds, in the mode for use, and its batches."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    y = torch.arange(IMAGES) % 10
    kinds = F.interpolate(torch.randn(10, 3, 8, 8, generator=generator), size=(32, 32), mode="bilinear")
    x = 0.4 * kinds[y] + torch.randn(IMAGES, 3, 32, 32, generator=generator)
    model = solutions.fresh(spec, (3, 32, 32), 10, seed=0)
    model = model.to(memory_format=torch.contiguous_format)  # as users have it
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(IMAGES, generator=generator).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    refresh_bn(model, [x])
    x, y = x[:images], y[:images]
    size = min(BATCH, max(1, images // 4))
    return model.eval(), list(zip(x.split(size), y.split(size), strict=True))


def problem(name: str, images: int) -> Problem:
    """Return what is measured; the line and the plane reach to where the loss has risen by 1 along u."""
    model, batches = trained(*NETWORKS[name], images)
    u, v = tools.directions(model)
    bare = Problem(model, batches, u, v, 0.0, 0.0)
    radius = tools.landscape(bare).radius(u, rise=1.0).radius
    return Problem(model, batches, u, v, radius, radius)


class Rows:
    """The rows of a task: the first call of each tool gives its result, the next its seconds, in turns.

    Of lines and planes a first call is one of the rounds where that of every tool takes over `WARM_S`.
    """

    def __init__(self, network: str, task: str, images: int, rounds: int) -> None:
        self.about = {"network": network, "task": task, "images": images, "rounds": rounds}
        self.rounds = rounds
        self.errors: dict[str, str] = {}
        self.found: dict[str, dict[str, Any]] = {}
        self.arms: dict[str, Callable[[], Any]] = {}
        self.scale: dict[str, float] = {}

    def add(self, tool: str, begin: Callable[[], tuple[Callable[[], Any], dict[str, Any]]]) -> None:
        """Take a tool in: `begin` returns the call to time, and what is known of its result."""
        try:
            self.arms[tool], self.found[tool] = begin()
        except Exception as error:
            self.errors[tool] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        print(self.about["network"], self.about["task"], tool, self.found.get(tool), flush=True)

    def rows(self) -> list[dict[str, Any]]:
        """Time all tools and return a row each."""
        first = {tool: self.found[tool].pop("first", 0.0) for tool in self.arms}
        counts = min(first.values(), default=0.0) > WARM_S  # beside that a first call costs no more
        taken = {tool: [first[tool]] if counts else [] for tool in self.arms}
        for _ in range(self.rounds - counts):
            for tool, call in self.arms.items():
                begin = time.perf_counter()
                call()
                taken[tool].append(time.perf_counter() - begin)
        seconds = {tool: median(times) * self.scale.get(tool, 1.0) for tool, times in taken.items()}
        made = []
        for tool in (*self.arms, *self.errors):
            row = {**self.about, "tool": tool, "seconds": seconds.get(tool, math.nan)}
            row["ratio"] = row["seconds"] / seconds.get(OURS, math.nan)
            row |= {"off": math.nan, "equal": False, "note": ""} | self.found.get(tool, {})
            made.append(row | ({"note": self.errors[tool]} if tool in self.errors else {}))
            print(made[-1], flush=True)
        return made


def losses(
    given: Problem, rows: Rows, ways: Mapping[str, Callable[[Problem], np.ndarray]], plane: bool
) -> None:
    """Add each tool's line or plane."""
    points = [(x, y) for y in given.side for x in given.side] if plane else [(t, 0.0) for t in given.offsets]
    some = slice(None, None, APART if plane else 1)  # a loop in float64 takes minutes for each of these
    reference = tools.moved(given, points[some], torch.float64)

    def begin(way: Callable[[Problem], np.ndarray]) -> tuple[Callable[[], Any], dict[str, Any]]:
        start = time.perf_counter()
        found = way(given)
        seconds = time.perf_counter() - start
        off = np.abs(np.asarray(found, dtype=float).reshape(-1)[some] - reference)
        off = math.inf if np.isnan(off).any() else float(off.max())
        return lambda: way(given), {"off": off, "equal": off <= SAME, "first": seconds}

    for tool, way in ways.items():
        rows.add(tool, lambda way=way: begin(way))


def residual(given: Problem, pairs: tools.Pairs) -> float:
    """Return the greatest residual of eigenpairs over their eigenvalues, by products in float64."""
    model = given.copy().double()
    weights = list(model.parameters())
    vectors = [
        [
            piece.view_as(w)
            for piece, w in zip(torch.from_numpy(v).split([w.numel() for w in weights]), weights, strict=True)
        ]
        for v in (vector / np.linalg.norm(vector) for vector in pairs[1])
    ]
    products = [0.0] * len(vectors)
    for x, y in given.batches:
        value = F.cross_entropy(model(x.double()), y, reduction="sum") / sum(len(y) for _, y in given.batches)
        first = torch.autograd.grad(value, weights, create_graph=True)
        for i, vector in enumerate(vectors):
            products[i] = products[i] + tools.flat(
                torch.autograd.grad(first, weights, vector, retain_graph=i + 1 < len(vectors))
            )
    found = [
        np.linalg.norm(product - value * tools.flat(vector)) / abs(value)
        for value, vector, product in zip(pairs[0], vectors, products, strict=True)
    ]
    return float(max(found))


def eigenvalues(given: Problem, rows: Rows) -> None:
    """Add each tool's top two eigenpairs, at the loosest setting that reaches the residual.

    A pair of small residual may be that of another eigenvalue. Values by orthogonal vectors are none too
    large, so that all are compared with the greater of ours at a tight tolerance and of curvlinops'.
    """
    known = np.array(our_values := tools.PAIRS[OURS](given, TIGHT)[0])
    found: dict[str, np.ndarray] = {}

    def right(values: np.ndarray) -> bool:
        return bool((np.abs(values / known - 1.0) <= RESIDUAL).all())

    def begin(
        tool: str, way: Callable[[Problem, float], tools.Pairs]
    ) -> tuple[Callable[[], Any], dict[str, Any]]:
        for setting in [RESIDUAL] if tool == OURS else LADDERS.get(tool, LADDERS[""]):
            pairs = way(given, setting)
            found[tool], off = np.array(pairs[0]), residual(given, pairs)
            if tool == "curvlinops":
                known[:] = np.maximum(our_values, found[tool])
            if off <= RESIDUAL and right(found[tool]):
                break
        note = f"{'steps' if setting > 1 else 'tolerance'} {setting:g}; "
        note += ", ".join(f"{value:.4g}" for value in pairs[0])
        return lambda: way(given, setting), {"off": off, "equal": off <= RESIDUAL, "note": note}

    for tool, way in tools.PAIRS.items():
        rows.add(tool, lambda tool=tool, way=way: begin(tool, way))
    for tool, about in rows.found.items():
        about["equal"] = about["equal"] and right(found[tool])


def traces(given: Problem, rows: Rows) -> None:
    """Add each tool's trace with a standard error of 1 %."""
    count = {"hutchinson": 0, "hutch++": MOST}

    def begin(
        tool: str, way: Callable[[Problem, float], tools.Traced]
    ) -> tuple[Callable[[], Any], dict[str, Any]]:
        kind = "hutch++" if tool in ("hessian-eigenthings", "curvlinops") else "hutchinson"
        if tool == OURS:
            value, error = way(given, ERROR)
            note = f"{value:.4g}"
            return lambda: way(given, ERROR), {
                "off": error / abs(value),
                "equal": error <= ERROR * value,
                "note": note,
            }
        pilot = 20
        if tool == "hessian-eigenthings":
            for products in PRODUCTS:
                value, error = way(given, products)
                if error <= ERROR * abs(value):
                    break
            count[kind] = pilot = products
        elif tool == "PyHessian":
            while True:  # as the error that is estimated is itself one of few
                value, error = way(given, pilot)
                count[kind] = max(pilot, math.ceil(pilot * (error / (ERROR * abs(value))) ** 2))
                if count[kind] == pilot or count[kind] > MOST:
                    break
                pilot = count[kind]
        else:
            pilot = count[kind] if count[kind] <= MOST else 20
            value, error = way(given, pilot)
        note = f"{value:.4g} by {pilot} products"
        if count[kind] > pilot:
            rows.scale[tool] = count[kind] / pilot
            note += f", scaled to the {count[kind]:,} that 1 % takes"
        off = error / abs(value) * math.sqrt(pilot / max(pilot, count[kind]))
        note += "; gives no error" if math.isnan(error) else ""
        equal = math.isnan(error) or off <= 1.2 * ERROR
        return lambda: way(given, pilot), {"off": off, "equal": equal, "note": note}

    for tool, way in tools.TRACES.items():
        rows.add(tool, lambda tool=tool, way=way: begin(tool, way))


def our_verdict(given: Problem, find: bool) -> tuple[Any, int]:
    """Return the verdict along u by as many points as it needs, and how many passes that took."""
    landscape = tools.landscape(given)
    evaluator = landscape.evaluator
    radius = landscape.radius(given.u, rise=1.0).radius if find else given.radius
    offsets = line_offsets(radius, tools.LINE)
    curve, _ = adaptive.probe_adaptively(evaluator, given.u, offsets, CONSTANTS)
    at = adaptive.measured_at(offsets, curve)
    values, _ = upsample(offsets, at, [point["train_loss"] for point in curve])
    return detect(offsets, values, **CONSTANTS), evaluator.points


def their_verdict(given: Problem, line: Callable[[Problem], np.ndarray], find: bool) -> tuple[Any, int]:
    """Return the verdict by whole lines: where the range is not known, the last line says where to look."""
    radius, passes = given.norm / 50 if find else given.radius, 0
    for _ in range(12):
        tried = Problem(given.model, given.batches, given.u, given.v, radius, given.half)
        values, passes = line(tried), passes + tools.LINE
        middle = tools.LINE // 2
        rises = np.maximum(values[middle:], values[middle::-1]) - values[middle]  # at each distance
        if not find or abs(rises[-1] - 1.0) <= 0.1:
            break
        beyond = int(np.argmax(~(rises < 1.0)))  # 0: none is
        steps = beyond - 1 + (1.0 - rises[beyond - 1]) / (rises[beyond] - rises[beyond - 1])
        radius *= float(steps) / middle if beyond and math.isfinite(steps) else 2.0
    return detect(tried.offsets, values, **CONSTANTS), passes


def verdicts(given: Problem, rows: Rows, find: bool) -> None:
    """Add ours and each tool that has lines."""
    known = detect(
        given.offsets, tools.moved(given, [(t, 0.0) for t in given.offsets], torch.float64), **CONSTANTS
    )

    def begin(call: Callable[[], tuple[Any, int]]) -> tuple[Callable[[], Any], dict[str, Any]]:
        verdict, passes = call()
        note = f"{verdict.status}, c* {verdict.c_star:.3g}, {passes} points"
        return call, {
            "off": abs(verdict.c_star - known.c_star),
            "equal": verdict.status == known.status,
            "note": note,
        }

    for tool, line in tools.LINES.items():
        if tool == OURS:
            rows.add(tool, lambda: begin(lambda: our_verdict(given, find)))
        elif tool != PLAIN:
            rows.add(tool, lambda line=line: begin(lambda: their_verdict(given, line, find)))


TASKS: dict[str, Callable[[Problem, Rows], None]] = {
    "line": lambda given, rows: losses(given, rows, tools.LINES, plane=False),
    "plane": lambda given, rows: losses(given, rows, tools.PLANES, plane=True),
    "eigenvalues": eigenvalues,
    "trace": traces,
    "verdict, range known": lambda given, rows: verdicts(given, rows, find=False),
    "verdict": lambda given, rows: verdicts(given, rows, find=True),
}
WORDS = {
    "line": f"line of {tools.LINE} points",
    "plane": f"plane of {tools.SIDE} x {tools.SIDE}",
    "eigenvalues": "top 2 eigenvalues, residual 1 %",
    "trace": "trace to 1 %",
    "verdict, range known": "verdict, range known",
    "verdict": "network to verdict",
}


def shown(row: Mapping[str, Any]) -> dict[str, str]:
    """Return a row as text."""
    missing = math.isnan(row["seconds"])
    return {
        "network": row["network"],
        "task": WORDS[row["task"]] + (f", {row['images']} images" if row["images"] != IMAGES else ""),
        "tool": row["tool"],
        "seconds": "" if missing else f"{row['seconds']:.3g}",
        "times ours": "" if missing else f"{row['ratio']:.2f}",
        "off by": "" if math.isnan(row["off"]) else f"{row['off']:.1e}",
        "equal": "" if missing else "yes" if row["equal"] else "**no**",
        "result": row["note"],
    }


def others(networks: Sequence[str], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows that are not measured now, if they were measured on this machine."""
    if not (RESULTS / "peers.parquet").exists():
        return []
    table = pd.read_parquet(RESULTS / "peers.parquet")
    here = (table[list(machine())] == pd.Series(machine())).all(axis=1)
    now = table["network"].isin(networks) & table["task"].isin(tasks)
    return table[here & ~now].drop(columns=list(machine())).to_dict("records")


def write(rows: Sequence[Mapping[str, Any]]) -> None:
    """Put all rows into benchmarks/README.md, and the fastest other tool into docs/performance.md."""
    document("peers", markdown([shown(row) for row in rows]))
    document("peers_best", markdown(best(rows)))


def best(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each network and task: ours, and the fastest other tool whose result is equal."""
    found = []
    for ours in (row for row in rows if row["tool"] == OURS):
        others = [
            row
            for row in rows
            if (row["network"], row["task"]) == (ours["network"], ours["task"])
            and row["tool"] not in (OURS, PLAIN)
            and row["equal"]
            and not math.isnan(row["seconds"])
        ]
        mine = shown(ours)
        its = shown(min(others, key=lambda row: row["seconds"])) if others else dict.fromkeys(mine, "")
        found.append(
            {
                "network": mine["network"],
                "task": mine["task"],
                "valleys, s": mine["seconds"],
                "fastest other": its["tool"] or "none is right",
                "its s": its["seconds"],
                "times ours": its["times ours"],
            }
        )
    return found


def main() -> None:
    """Measure, and write the tables into the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--rounds", type=int, help="of each task; else 3 for the MLP, 1 for the other")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--quick", action="store_true", help="one round, 100 images: whether it works")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = others(given.networks, given.tasks)
    for name in given.networks:
        for task in given.tasks:
            images = 100 if given.quick else FEWER.get((name, task), given.images)
            rounds = 1 if given.quick else given.rounds or ROUNDS[name]
            made = Rows(name, task, images, rounds)
            TASKS[task](problem(name, images), made)
            rows += made.rows()
            rows.sort(key=lambda row: (list(NETWORKS).index(row["network"]), list(TASKS).index(row["task"])))
            save("peers", rows)
            write(rows)  # what there is, should it be stopped
    accuracy = accuracy_rows()
    save("peers_accuracy", accuracy)
    document("peers_accuracy", markdown(accuracy))


if __name__ == "__main__":
    main()
