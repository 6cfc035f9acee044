"""What each job of an experiment will cost: time, memory and disk, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from valleys.config import outputs
from valleys.config.experiment import Cell, Experiment
from valleys.costs import machine, sizes
from valleys.costs.machine import (
    BF16_AGAIN,
    BF16_CHECKED,
    CPU,
    FORKED_S,
    GPU,
    IMPORTS_S,
    MB,
    faster_by,
)
from valleys.costs.work import Cost, Data, Work
from valleys.data import counts
from valleys.data.options import DATASET_OPTIONS
from valleys.landscape.kinds import COMPUTED, SINGLE
from valleys.models.size import Size, measure
from valleys.storage.weights import describe

OPTIMIZER = (1.2, 75)  # seconds and MB that torch takes the first time an optimizer is made
CURVLINOPS = (2.0, 30)  # the same for the import of curvlinops
BACKWARD = 3  # forward and backward, in forward passes
RADIUS_PASSES = 8  # passes over the train images until a radius is found, in the mean: `lines.find_radius`
SLOPE_PASSES = 3  # an exact slope: a pass with tangents
ADAPTIVE_POINTS = 11  # of an adaptive probe, mean over curves of 31 points (docs/performance.md)
HESSIAN_PRODUCTS = (60, 30)  # Lanczos: products with the Hessian, and more for each eigenvector
HESSIAN_PASSES = 6  # one product: backward twice
RESIDENT_BYTES = 2 * 1024**3  # as `probe.RESIDENT_BYTES`: float images kept ready
CURVE_BYTES = 40  # a row of a table of curves, compressed
ON_DISK_BYTES = 32  # of memory for each image that stays in its file: label and row, and copies of both
DECODERS = 8  # threads at most that decode a data set; one for each five minutes of work
SMALL_FILE = 20e3  # a table of one cell, a log


class Costs:
    """Estimates for the jobs of one experiment.

    Parameters
    ----------
    experiment
        The checked config. Files of data sets are looked at for their size: the prepared ones when there are
        any, and again when `prepare_dataset` has made them anew, so that what is asked for follows the data
        within one run.
    local
        Whether jobs run on this machine, where they are forked (``execution.fork_server``) unless they use a
        GPU; on a cluster each starts anew.
    originals
        Whether to trust a count of the originals more than files that were prepared before this process
        started, of which the originals may have changed since. A job's own process need not.
    """

    def __init__(self, experiment: Experiment, *, local: bool = False, originals: bool = True) -> None:
        self.experiment, self.config = experiment, experiment.config
        execution = self.config["execution"]
        self.on_gpu = execution["device"] == "cuda"
        self.forked = local and execution["fork_server"]
        self.cpu = replace(faster_by(CPU, execution["cpu_speed"]), bf16=machine.bf16_gain())
        if self.forked:
            self.cpu = replace(self.cpu, start_s=FORKED_S * CPU.flops / self.cpu.flops)
        self.gpu = faster_by(GPU, execution["gpu_speed"])
        self.originals = originals
        self._cache: dict[Any, Any] = {}
        self._found: dict[str, Any] = {}

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def __call__(self, rule: str, wildcards: Mapping[str, Any]) -> Cost:
        """Return what a job costs.

        Parameters
        ----------
        rule
            Name of a rule that makes something.
        wildcards
            Of the job; a seed makes no difference but for which probes and planes apply.
        """
        if rule not in _MODELS:
            raise KeyError(f"no cost model of rule {rule}")
        wildcards = dict(wildcards.items())  # in Snakemake's, `in` looks at values
        seeded = rule in ("train_sgd", "probe")
        key = tuple((k, v) for k, v in sorted(wildcards.items()) if k != "seed" or seeded)
        # What is known of the data, and of a network that may have been a guess, is part of the question.
        state = self._prepared(wildcards["dataset"]) if "dataset" in wildcards else None
        net = self.net(wildcards["dataset"], wildcards["model"]) if state and "model" in wildcards else None
        return self._once((rule, key, state, net), lambda: _MODELS[rule](self, wildcards))

    def runtime(self, rule: str, wildcards: Mapping[str, Any], attempt: int = 1) -> int:
        """Return the minutes to ask for: twice the estimate and 10 more, times the attempt, limited."""
        wanted = attempt * (10 + math.ceil(2 * self(rule, wildcards).seconds / 60))
        return min(wanted, self.config["execution"]["max_runtime"] or wanted)

    def mem_mb(self, rule: str, wildcards: Mapping[str, Any], attempt: int = 1) -> int:
        """Return the MB to ask for: half as much again as the estimate and 500 more, times the attempt."""
        return attempt * (500 + math.ceil(1.5 * self(rule, wildcards).memory_mb))

    def gpus(self, rule: str) -> int:
        """Return the GPUs to ask for: one, for rules that use it, where ``execution.device`` is ``cuda``."""
        return int(self.on_gpu and rule in ON_GPU)

    # Sizes ------------------------------------------------------------------------------------------

    def data(self, dataset: str) -> Data:
        """Return the size of a data set: of its prepared files, else of its source, else assumed."""
        state = self._prepared(dataset)
        return self._once(("data", dataset, state), lambda: self._data(dataset, state))

    def _paths(self, dataset: str) -> list[Path]:
        folder = Path(self.experiment.root) / "data" / dataset
        return [folder / f"{part}.safetensors" for part in ("train", "test")]

    def _prepared(self, dataset: str) -> tuple[Any, ...]:
        """Return what changes when a data set's prepared files do: a name for what is known of it."""
        state = tuple(_stamp(path) for path in self._paths(dataset))
        self._found.setdefault(dataset, state)
        return state

    def _data(self, dataset: str, state: tuple[Any, ...]) -> Data:
        parts = [_prepared_as(path) for path in self._paths(dataset)]
        if not all(parts):
            return self.source(dataset)
        ((train, *shape), classes), ((test, *_), _) = parts
        prepared = Data(train, test, tuple(shape), classes)
        if self.originals and state == self._found[dataset]:  # from before: they may be out of date
            source = self.source(dataset)
            if source.measured:
                return replace(source, classes=prepared.classes)
        return prepared

    def source(self, dataset: str) -> Data:
        """Return the size of a data set by its source, counted where it can be (`data_costs`): once."""
        return self._once(("source", dataset), lambda: self._source(dataset))

    def _source(self, dataset: str) -> Data:
        spec = self.experiment.datasets[dataset]
        size = DATASET_OPTIONS[spec["source"]].size_of(spec)
        train, test, shape, classes = size.train, size.test, size.shape, size.classes
        counted, measured = True, False
        if not size.known:
            side = spec.get("size") or shape[-1]
            shape = (1 if spec.get("grayscale") else 3, side, side)
            counted = spec["max_train"] is not None and spec["max_test"] is not None
            if (found := counts.count(spec)) is not None:
                train, test, classes = found.train, found.test, found.classes or classes
                shape, measured = found.shape or shape, found.exact and found.shape is not None
                counted |= measured
        return Data(
            min(train, spec["max_train"] or train),
            min(test, spec["max_test"] or test),
            shape,
            spec["classes"] or classes,
            counted,
            measured,
        )

    def net(self, dataset: str, model: str) -> Size:
        """Return the size of a model for a data set's images; of a user's own, a guess until it is known."""
        data, spec = self.data(dataset), self.experiment.models[model]
        key = ("net", model, data.shape, data.classes)
        if "factory" not in spec:
            return self._once(key, lambda: measure(spec, data.shape, data.classes))
        found = self._cache.get(key) or self.measured(dataset, model)
        if found is None:
            return sizes.assumed(data.shape, data.classes)
        return self._once(key, lambda: found)

    def measured(self, dataset: str, model: str) -> Size | None:
        """Return the size of a user's own network as a job has measured it, None before there was one."""
        data, code = self.data(dataset), self.experiment.factory_code(model)
        spec = self.experiment.models[model]
        return sizes.known(spec, code, data.shape, data.classes, self.experiment.root)

    def measure_ahead(self) -> None:
        """Build and measure the users' networks that no job has measured (`sizes.ahead`)."""
        for dataset, model in sorted({(cell.dataset, cell.model) for cell in self.experiment.all_cells}):
            spec = self.experiment.models[model]
            if "factory" in spec:
                data, code = self.data(dataset), self.experiment.factory_code(model)
                sizes.ahead(spec, code, data.shape, data.classes, self.experiment.root)

    def guessed(self) -> list[str]:
        """Return the names of users' own networks whose size is a guess (`sizes.ASSUMED`)."""
        pairs = {(cell.dataset, cell.model) for cell in self.experiment.all_cells}
        own = {pair for pair in pairs if "factory" in self.experiment.models[pair[1]]}
        return sorted({model for dataset, model in own if self.measured(dataset, model) is None})

    def iterates(self, cell: Cell, keep: str | None = None) -> float:
        """Return the bytes of a cell's iterates once it is done.

        Parameters
        ----------
        keep
            As ``execution.keep``, which it is when left out.
        """
        return self.experiment.iterates_of(cell, keep) * self.net(cell.dataset, cell.model).bytes

    # Pieces of jobs ---------------------------------------------------------------------------------

    def _split(self, dataset: str, block: Mapping[str, Any]) -> tuple[int, int]:
        """Return the train and test images that a probe, line or plane looks at."""
        data = self.data(dataset)
        return min(data.train, block["train_images"] or data.train), min(
            data.test, block["test_images"] or data.test
        )

    def _point(self, w: Mapping[str, Any], block: Mapping[str, Any], *, test: bool = True) -> Work:
        """Return the work of one point: weights moved, statistics refreshed, one pass over each split."""
        net, (train, held) = self.net(w["dataset"], w["model"]), self._split(w["dataset"], block)
        twice = self._refreshes(w, block) and self.config["bn_refresh"]["method"] == "streaming"
        images = train * (2 if twice else 1) + held * test
        precision = block.get("precision", "fp32")
        return self._forward(net, images, precision=precision) + Work(
            bytes=12 * net.parameters, layers=2 * net.tensors
        )

    def _refreshes(self, w: Mapping[str, Any], block: Mapping[str, Any]) -> bool:
        return block["bn"] == "refreshed" and self.net(w["dataset"], w["model"]).buffers > 0

    def _forward(self, net: Size, images: int, batch: int | None = None, precision: str = "fp32") -> Work:
        batches = math.ceil(images / (batch or self.config["bn_refresh"]["batch_size"]))
        flops, traffic, layers = images * net.flops, images * net.elements * 8, batches * net.layers
        if precision == "bf16":
            return Work(bytes=traffic, layers=layers * (1 + machine.BF16_CASTS), halves=flops)
        return Work(flops, traffic, layers)  # each number is written once and read once

    def _training(self, net: Size, images: int, recipe: Mapping[str, Any]) -> Work:
        """Return the work of one epoch: forward, backward, and a step of SGD for each batch."""
        batch = min(recipe["batch_size"], images)
        steps = math.ceil(images / batch)
        step = Work(bytes=24 * net.parameters, layers=0.2 * net.tensors + 12)  # fused over tensors
        passes = self._forward(net, images, batch, recipe.get("precision", "fp32"))
        return BACKWARD * passes + steps * step

    def _job(
        self, rule: str, work: Work, memory: float, disk: float, more: tuple[float, float] = (0, 0)
    ) -> Cost:
        """Return the cost of a rule's job that does `work` and holds `memory` bytes beside torch.

        Parameters
        ----------
        more
            Seconds and MB of what it needs besides (`OPTIMIZER`, `CURVLINOPS`).
        """
        on_gpu = self.on_gpu and rule in ON_GPU
        machine = self.gpu if on_gpu else self.cpu
        extra = 0 if self.forked else more[0] * CPU.flops / self.cpu.flops
        seconds = machine.start_s + extra + work.seconds(machine)
        return Cost(seconds, machine.memory_mb + more[1] + memory / MB, disk, gpu=on_gpu)

    def _small(
        self, seconds: float, rows: float, disk: float = SMALL_FILE, *, times: float = 1, memory: float = 220
    ) -> Cost:
        """Return the cost of a job on tables: so long to start, and to look at each row so many times."""
        speed = CPU.flops / self.cpu.flops
        seconds = max(FORKED_S, seconds - IMPORTS_S) if self.forked else seconds
        return Cost(speed * (seconds + times * rows * 5e-6), memory + rows * 1e-3, disk)

    def _resident(
        self,
        dataset: str,
        net: Size,
        copies: float,
        activations: float,
        blocks: Sequence[Mapping[str, Any]] = (),
    ) -> float:
        """Return bytes: data set (read, then held), copies of the weights, activations if on this side.

        Of images that stay in their file, the largest subset that the `blocks` look at, if it is held.
        """
        data, limit = self.data(dataset), self.config["execution"]["resident_mb"] * MB
        subsets = [self._split(dataset, block) for block in blocks]
        held = copies * net.bytes
        for part, images in enumerate((data.train, data.test)):
            if images * data.pixels <= limit:
                held += 2 * images * (data.pixels + 8)
            else:
                sizes = [subset[part] * data.pixels for subset in subsets if subset[part] < images]
                held += ON_DISK_BYTES * images + 2 * max((s for s in sizes if s <= limit), default=0)
        return held if self.on_gpu else held + activations

    def _in_passes(self, w: Mapping[str, Any], blocks: list[Mapping[str, Any]]) -> float:
        """Return bytes of activations in passes without gradient, and of images kept as floats."""
        net, data = self.net(w["dataset"], w["model"]), self.data(w["dataset"])
        batch, exact = self.config["bn_refresh"]["batch_size"], self.config["bn_refresh"]["method"] == "exact"
        most = 0.0
        for block in blocks:
            train, test = self._split(w["dataset"], block)
            floats = sum(n * data.pixels * 4 for n in (train, test) if n * data.pixels * 4 <= RESIDENT_BYTES)
            at_once = train if exact and self._refreshes(w, block) else min(batch, train)
            # Input, output and a shortcut of one layer: 'exact' holds them for all images together.
            most = max(most, floats + at_once * net.widest * 4 * 3)
        return most

    def _rows(self, w: Mapping[str, Any]) -> float:
        """Return the rows of curves that a cell has."""
        cell = Cell(w["dataset"], w["model"], w["recipe"], int(w["seed"]))
        return self._once(("rows", cell), lambda: self._count_rows(cell))

    def _count_rows(self, cell: Cell) -> float:
        return sum(
            self._points(name) * self._directions(name) * self._solutions(cell, name)
            for name in self.experiment.probes_of(cell)
        )

    def _points(self, probe: str) -> float:
        """Return the points of a curve; of an adaptive probe, the mean over its curves that is expected."""
        spec = self.config["probes"][probe]
        return min(spec["points"], ADAPTIVE_POINTS) if spec.get("adaptive") else spec["points"]

    def _directions(self, probe: str) -> int:
        spec = self.config["probes"][probe]
        return 1 if spec["kind"] in SINGLE else spec["n"]

    def _solutions(self, cell: Cell, probe: str) -> int:
        return len(self.experiment.probed_solutions(cell, probe))

    def _all_rows(self) -> float:
        """Return the rows of curves of all cells of the grid."""
        cells = self.experiment.cells
        return self._once(
            "all rows", lambda: sum(self._rows({**cell.columns(), "seed": cell.seed}) for cell in cells)
        )

    # Rules ------------------------------------------------------------------------------------------

    def _prepare_dataset(self, w: Mapping[str, Any]) -> Cost:
        data, threads = self._to_prepare(w["dataset"]), self.decoders(w["dataset"])
        images = data.train + data.test
        seconds = self._decoding(w["dataset"]) / threads + images * (1e-6 + 4e-9 * data.pixels)
        memory = 2 * data.bytes  # what torchvision and numpy read comes as arrays
        if self._encoded(w["dataset"]):
            # 64 images a piece, two pieces a thread and part; names of files.
            memory = 64 * data.pixels * (8 * threads + 12) + 400 * images
        speed = CPU.flops / self.cpu.flops
        return Cost(speed * (CPU.start_s + seconds), CPU.memory_mb + memory / MB, data.bytes)

    def _to_prepare(self, dataset: str) -> Data:
        """Return the size of what `prepare_dataset` is to read: the originals', where that is known."""
        source = self.source(dataset)
        return source if source.measured else self.data(dataset)

    def decoders(self, dataset: str) -> int:
        """Return the threads that decode a data set when it is prepared."""
        return min(DECODERS, max(1, math.ceil(self._decoding(dataset) / 300)))

    def _decoding(self, dataset: str) -> float:
        """Return seconds that one core decodes a data set."""
        data = self._to_prepare(dataset)
        return (data.train + data.test) * (5e-5 + 2e-8 * data.pixels) * self._encoded(dataset)

    def _encoded(self, dataset: str) -> bool:
        return DATASET_OPTIONS[self.experiment.datasets[dataset]["source"]].encoded

    def _train_sgd(self, w: Mapping[str, Any]) -> Cost:
        recipe, data = self.experiment.recipe(w["recipe"]), self.data(w["dataset"])
        net = self.net(w["dataset"], w["model"])
        work = recipe["epochs"] * self._training(net, data.train, recipe)
        work += math.ceil(recipe["epochs"] / recipe["eval_every"]) * self._forward(net, data.test, 1000)
        cell = Cell(w["dataset"], w["model"], w["recipe"], int(w["seed"]))
        written = self.experiment.written_iterates(cell)
        work += Work(bytes=20 * written * net.bytes)  # and their checksums
        memory = self._resident(w["dataset"], net, 6, _in_training(net, data, recipe))
        disk = net.bytes + self.iterates(cell) + SMALL_FILE
        return self._job("train_sgd", work, memory, disk, OPTIMIZER)

    def _average(self, w: Mapping[str, Any]) -> Cost:
        net = self.net(w["dataset"], w["model"])
        kept = self.experiment.recipe(w["recipe"])["swa"]["window"] or self.experiment.all_iterates(
            w["recipe"]
        )
        work = Work(bytes=20 * kept * net.bytes)
        start = self.cpu.start_s if self.forked else 0.7 * self.cpu.start_s
        return Cost(start + work.seconds(self.cpu), 220 + 6 * net.bytes / MB, net.bytes)

    def _refresh_bn(self, w: Mapping[str, Any]) -> Cost:
        net = self.net(w["dataset"], w["model"])
        if not self.experiment.may_have_batch_norm(w["model"]):
            seconds = self.cpu.start_s + Work(bytes=20 * net.bytes).seconds(self.cpu)  # a copy
            return Cost(seconds, CPU.memory_mb + 2 * net.bytes / MB, net.bytes)
        data, block = self.data(w["dataset"]), WHOLE
        memory = self._resident(w["dataset"], net, 3, self._in_passes(w, [block]))
        return self._job("refresh_bn", self._forward(net, data.train), memory, net.bytes)

    def _import_solution(self, w: Mapping[str, Any]) -> Cost:
        net, data = self.net(w["dataset"], w["model"]), self.data(w["dataset"])
        memory = self._resident(w["dataset"], net, 4, self._in_passes(w, [WHOLE]))
        refreshed = self.experiment.checkpoints[w["recipe"]]["bn"] == "refreshed"
        work = self._forward(net, data.train) if refreshed else Work(bytes=20 * net.bytes)
        return self._job("import_solution", work, memory, net.bytes)

    def _descend(self, w: Mapping[str, Any]) -> Cost:
        recipe, data = self.experiment.recipe(w["recipe"]), self.data(w["dataset"])
        net, epochs = self.net(w["dataset"], w["model"]), recipe["descent"]["epochs"]
        refreshes = self._refreshes(w, WHOLE)
        measured = self._forward(net, data.train * (2 if refreshes else 1) + data.test)
        work = epochs * self._training(net, data.train, recipe) + (epochs + 1) * measured
        activations = max(_in_training(net, data, recipe), self._in_passes(w, [WHOLE]))
        memory = self._resident(w["dataset"], net, 6, activations)
        return self._job("descend", work, memory, net.bytes + SMALL_FILE, OPTIMIZER)

    def _evaluate(self, w: Mapping[str, Any]) -> Cost:
        data, net = self.data(w["dataset"]), self.net(w["dataset"], w["model"])
        work = 3 * self._forward(net, data.train + data.test, 1000)
        memory = self._resident(w["dataset"], net, 8, 1000 * net.widest * 4 * 3)
        return self._job("evaluate", work, memory, SMALL_FILE)

    def _make_directions(self, w: Mapping[str, Any]) -> Cost:
        spec, net = self.config["probes"][w["probe"]], self.net(w["dataset"], w["model"])
        train, n = self._split(w["dataset"], {"test_images": 1, **spec})[0], self._directions(w["probe"])
        passes, copies, activations = 0.0, 3.0 + 2 * n, 0.0
        if spec["kind"] == "gradient":
            passes, activations = BACKWARD, 1000 * net.elements * 4
        elif spec["kind"] == "hessian":
            passes = (HESSIAN_PRODUCTS[0] + HESSIAN_PRODUCTS[1] * n) * HESSIAN_PASSES
            copies += 2 * max(2 * n + 1, 20)  # Lanczos vectors, float64
            activations = 128 * net.elements * 4 * BACKWARD
        elif spec["kind"] == "pca":
            copies += 3 * self.experiment.all_iterates(w["recipe"])
        cell = Cell(w["dataset"], w["model"], w["recipe"], int(w["seed"]))
        solutions = self._solutions(cell, w["probe"])
        work = solutions * passes * self._forward(net, train, 128 if spec["kind"] == "hessian" else None)
        work += Work(bytes=10 * copies * net.bytes)
        blocks = [{"test_images": 1, **spec}]
        memory = self._resident(w["dataset"], net, copies, activations, blocks)
        more = CURVLINOPS if spec["kind"] == "hessian" else (0, 0)
        return self._job("directions", work, memory, solutions * n * 4 * net.parameters, more)

    def _probe(self, w: Mapping[str, Any]) -> Cost:
        cell = Cell(w["dataset"], w["model"], w["recipe"], int(w["seed"]))
        if self.config["execution"]["probe_jobs"] == "together":
            names = self.experiment.bundles_of(cell)[w["bundle"]]
        else:
            names = [w["bundle"]]
        net, work, rows, copies = self.net(w["dataset"], w["model"]), Work(), 0, 4.0
        for name in names:
            block = self.config["probes"][name]
            exact_point = self._point(w, {**block, "precision": "fp32"})
            line = (self._points(name) - 1) * self._point(w, block)  # lines share offset 0
            if block["precision"] == "bf16":
                again = BF16_AGAIN[block["bn"] if net.buffers else "none"]
                line += (BF16_CHECKED + again * (self._points(name) - 1 - BF16_CHECKED)) * exact_point
            if block["radius"] is None and block["relative"] is None:
                line += RADIUS_PASSES * self._point(w, block, test=False)
            if block["slopes"] == "exact":
                images = self._split(w["dataset"], block)[0]
                line += self._points(name) * SLOPE_PASSES * self._forward(net, images)
            times = self._directions(name) * self._solutions(cell, name)
            drawn = Work(bytes=20 * 4 * net.parameters, layers=10 * net.tensors)
            work += times * (line + drawn) + 3 * self._solutions(cell, name) * exact_point
            rows += times * self._points(name)
            if block["kind"] in COMPUTED:
                copies = max(copies, 4.0 + self._directions(name) * self._solutions(cell, name))
        blocks = [self.config["probes"][name] for name in names]
        exact = any(block["slopes"] == "exact" for block in blocks)
        passes = self._in_passes(w, blocks) * (2 if exact else 1)
        memory = self._resident(w["dataset"], net, copies, passes, blocks)
        return self._job("probe", work, memory, rows * CURVE_BYTES + SMALL_FILE)

    def _connect(self, w: Mapping[str, Any]) -> Cost:
        line, recipe = self.config["lines"][w["line"]], self.experiment.recipe(w["recipe"])
        net, data = self.net(w["dataset"], w["model"]), self.data(w["dataset"])
        steps = math.ceil(data.train / recipe["batch_size"])
        ends = Work(bytes=8 * (line["bends"] + 2) * net.parameters, layers=3 * net.tensors)
        work = line["epochs"] * (self._training(net, data.train, recipe) + steps * ends)
        activations = _in_training(net, data, recipe)
        memory = self._resident(w["dataset"], net, 6 + 4 * line["bends"], activations)
        return self._job("connect", work, memory, line["bends"] * 4 * net.parameters, OPTIMIZER)

    def _interpolate(self, w: Mapping[str, Any]) -> Cost:
        line, net = self.config["lines"][w["line"]], self.net(w["dataset"], w["model"])
        trained = line["path"] != "linear"
        first, last = (
            end if line[key] is None else line[key]
            for key, end in (("first", 0 if trained else -2), ("last", 1 if trained else 3))
        )
        points = round(last * line["divisions"]) - round(first * line["divisions"]) + 1
        work = (points + 2) * self._point(w, line)
        passes, copies = self._in_passes(w, [line]), 6 + line["bends"] * trained
        memory = self._resident(w["dataset"], net, copies, passes, [line])
        return self._job("interpolate", work, memory, points * CURVE_BYTES + SMALL_FILE)

    def _plane(self, w: Mapping[str, Any]) -> Cost:
        plane, net = self.config["planes"][w["plane"]], self.net(w["dataset"], w["model"])
        points = plane["points"] ** 2
        work = points * (self._point(w, plane) + Work(bytes=48 * net.parameters))
        work += 6 * self._point(w, plane, test=False)
        iterates = self.experiment.all_iterates(w["recipe"]) if plane["pca"] else 0
        passes = self._in_passes(w, [plane])
        memory = self._resident(w["dataset"], net, 15 + 3 * iterates, passes, [plane])
        return self._job("plane", work, memory, points * CURVE_BYTES + SMALL_FILE)

    def _detect(self, w: Mapping[str, Any]) -> Cost:
        rows = self._rows(w)
        return self._small(1.5, rows, rows * CURVE_BYTES, times=20)

    def _measure_gain(self, w: Mapping[str, Any]) -> Cost:
        rows = self._rows(w)
        return self._small(1.5, rows, rows * 20, times=20)

    def _aggregate(self, w: Mapping[str, Any]) -> Cost:
        rows = self._all_rows() if w["table"] in ("curves", "shift") else self._all_rows() / 20
        return self._small(1.2, rows, rows * CURVE_BYTES + SMALL_FILE)

    def _whole(self, w: Mapping[str, Any]) -> Cost:
        """Return the cost of a job that reads the tables of the whole experiment."""
        return self._small(2.5, self._all_rows(), 300e3, times=2, memory=320)

    def _report(self, w: Mapping[str, Any]) -> Cost:
        return self._small(2.5, self._all_rows(), 200e3 * len(outputs.figures(self.experiment)), memory=320)

    def _sensitivity(self, w: Mapping[str, Any]) -> Cost:
        return self._small(2.0, self._all_rows(), SMALL_FILE, times=10)

    def _toy_2d(self, w: Mapping[str, Any]) -> Cost:
        toy = self.config["toy_2d"]
        return self._small(1.0, toy["n_draws"], 1e5, times=500)

    def _simulate_theory(self, w: Mapping[str, Any]) -> Cost:
        theory = self.config["theory"]
        valleys = len(theory["shapes"]) * len(theory["ratios"])
        runs = valleys * len(theory["rates"]) * len(theory["noises"]) * len(theory["levels"])
        steps = runs * theory["chains"] * (theory["burn_in"] + theory["iterates"])
        shifts = valleys * len(theory["shifts"]) * len(theory["scales"]) * len(theory["biases"])
        seconds = 1.0 + 1.1e-8 * steps + 3e-8 * shifts * theory["draws"]
        return self._small(seconds, 0, SMALL_FILE)


WHOLE: Mapping[str, Any] = {"bn": "refreshed", "train_images": None, "test_images": None}
#: Rules whose jobs use a GPU where there is one.
ON_GPU = frozenset(
    {"train_sgd", "import_solution", "refresh_bn", "descend", "evaluate"}
    | {"directions", "probe", "connect", "interpolate", "plane"}
)
_MODELS: dict[str, Callable[[Costs, Mapping[str, Any]], Cost]] = {
    "prepare_dataset": Costs._prepare_dataset,
    "train_sgd": Costs._train_sgd,
    "average": Costs._average,
    "refresh_bn": Costs._refresh_bn,
    "import_solution": Costs._import_solution,
    "descend": Costs._descend,
    "evaluate": Costs._evaluate,
    "directions": Costs._make_directions,
    "probe": Costs._probe,
    "connect": Costs._connect,
    "interpolate": Costs._interpolate,
    "plane": Costs._plane,
    "detect": Costs._detect,
    "measure_gain": Costs._measure_gain,
    "aggregate": Costs._aggregate,
    "study": Costs._whole,
    "sensitivity": Costs._sensitivity,
    "claims": Costs._whole,
    "figures": Costs._whole,
    "report": Costs._report,
    "toy_2d": Costs._toy_2d,
    "simulate_theory": Costs._simulate_theory,
}
#: The rules there are costs for, in the order of their work.
RULES = tuple(_MODELS)


def _in_training(net: Size, data: Data, recipe: Mapping[str, Any]) -> float:
    """Return bytes of activations that a step of SGD holds, or an evaluation of a thousand images."""
    batch = min(recipe["batch_size"], data.train)
    return max(batch * net.elements * 4 * 1.3, min(1000, data.test) * net.widest * 4 * 3)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _prepared_as(path: Path) -> tuple[tuple[int, ...], int] | None:
    """Return the shape of the images of a prepared data file and its classes; None where there is none."""
    try:
        metadata, tensors = describe(path)
        return tensors["images"][1], int(metadata["classes"])
    except (OSError, ValueError, KeyError, SafetensorError):
        return None  # a damaged file is the business of the job that reads it
