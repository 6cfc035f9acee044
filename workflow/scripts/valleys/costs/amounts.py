"""What the jobs of an experiment have in common: sizes of data and networks, passes, memory; no rules."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from valleys.config.experiment import Cell, Experiment
from valleys.costs import machine, sizes
from valleys.costs.datasets import DataSizes
from valleys.costs.machine import CPU, FORKED_S, GPU, IMPORTS_S, MB, faster_by
from valleys.costs.sizes import Size
from valleys.costs.work import Cost, Data, Work
from valleys.data.tasks import task_of
from valleys.landscape.kinds import SINGLE

BACKWARD = 3  # forward and backward, in forward passes
ADAPTIVE_POINTS = 11  # of an adaptive probe, mean over curves of 31 points (benchmarks/README.md)
RESIDENT_BYTES = 2 * 1024**3  # as `loaders.RESIDENT_BYTES`: float images kept ready
READY_BYTES = 64 * 1024**2  # as `augment.READY_BYTES`: of images kept normalised for training
PCA_BYTES = 2 * 8 * 2**28  # twice `computed.AT_ONCE` in float64: a piece of the iterates, and a copy of it
ON_DISK_BYTES = 32  # of memory for each image that stays in its file: label and row, and copies of both
#: Activations of a layer that an exact refresh holds for all images. Frames of a residual network hold the
#: inputs of stage, block and branch beside the layer's own, and one more is under way. Measured: 6 of a
#: PreResNet-20, 4 of a resnet8, 3 of an MLP. What a job asks for has room beyond its plan.
HELD = 5
SMALL_FILE = 20e3  # a table of one cell, a log


class Amounts:
    """Amounts of work and memory that jobs of one experiment are made of; parameters as of `jobs.Costs`."""

    def __init__(self, experiment: Experiment, *, local: bool = False, originals: bool = True) -> None:
        self.experiment, self.config = experiment, experiment.config
        execution = self.config["execution"]
        self.on_gpu = execution["device"] == "cuda"
        self.forked = local and execution["fork_server"]
        self.cpu = replace(faster_by(CPU, execution["cpu_speed"]), bf16=machine.bf16_gain())
        if self.forked:
            self.cpu = replace(self.cpu, start_s=FORKED_S * CPU.flops / self.cpu.flops)
        self.gpu = faster_by(GPU, execution["gpu_speed"])
        self.datasets = DataSizes(experiment, originals)
        self._cache: dict[Any, Any] = {}
        self._sizes: dict[str, Size | None] = {}  # None: could not be measured
        self._seen: dict[Any, Any] | None = None  # what files said, within one question

    def looking_once(self) -> Amounts:
        """Return these amounts for one question: a copy that looks once at files that a run may change.

        The cost of a job asks for its data and its network some thirty times.
        """
        found = copy.copy(self)
        found._seen = {}
        return found

    def _look(self, key: Any, look: Callable[[], Any]) -> Any:
        if self._seen is None:
            return look()
        if key not in self._seen:
            self._seen[key] = look()
        return self._seen[key]

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` returned when it was first called under this key."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    # Sizes ------------------------------------------------------------------------------------------

    def data(self, dataset: str) -> Data:
        """Return the size of a data set: of its prepared files, else of its source, else assumed."""
        found: Data = self._look(dataset, lambda: self.datasets.of(dataset))
        return found

    def net(self, dataset: str, model: str) -> Size:
        """Return the size of a model for a data set's images; of a user's own, a guess until it is known.

        The first of ours that has not been measured yet has all such of the experiment measured.
        """
        found: Size = self._look((dataset, model), lambda: self._net(dataset, model))
        return found

    def _net(self, dataset: str, model: str) -> Size:
        found = self.measured(dataset, model)
        if found is None and "factory" not in self.experiment.models[model]:
            self._measure([(dataset, model), *self.pairs(own=False)])
            found = self.measured(dataset, model)
        data = self.data(dataset)
        return found or sizes.assumed(data.shape, data.classes)

    def measured(self, dataset: str, model: str) -> Size | None:
        """Return the size of a network that has been measured, None before it was."""
        question = self.question(dataset, model)
        found = self._sizes.get(question.key) or sizes.known(question, self.experiment.root)
        if found is not None:
            self._sizes[question.key] = found
        return found

    def measure_ahead(self) -> None:
        """Build and measure all networks whose size is not known, users' own too, in one other process."""
        self._measure([*self.pairs(own=False), *self.pairs(own=True)])

    def guessed(self) -> list[str]:
        """Return the names of models whose size is a guess (`sizes.ASSUMED`)."""
        pairs = {(cell.dataset, cell.model) for cell in self.experiment.all_cells}
        return sorted({model for dataset, model in pairs if self.measured(dataset, model) is None})

    def question(self, dataset: str, model: str) -> sizes.Question:
        """Return what `sizes` is asked for a model's size on a data set's images."""
        data = self.data(dataset)
        return self.once(
            ("question", model, dataset, data.shape, data.classes),
            lambda: sizes.Question(
                self.experiment.models[model],
                data.shape,
                data.classes,
                self.experiment.factory_code(model),
                task_of(self.experiment.datasets[dataset]),
            ),
        )

    def pairs(self, own: bool) -> list[tuple[str, str]]:
        """Return data sets and models of all cells: those of users' own networks, or of ours."""
        pairs = sorted({(cell.dataset, cell.model) for cell in self.experiment.all_cells})
        return [pair for pair in pairs if ("factory" in self.experiment.models[pair[1]]) == own]

    def _measure(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Have the unknown among these measured; those that cannot be are not tried again."""
        asked = {self.question(*pair).key: self.question(*pair) for pair in pairs if not self.measured(*pair)}
        asked = {key: question for key, question in asked.items() if key not in self._sizes}
        found = sizes.ahead(list(asked.values()), self.experiment.root) if asked else []
        self._sizes.update(zip(asked, found, strict=True))

    def iterates(self, cell: Cell, keep: str | None = None) -> float:
        """Return the bytes of a cell's iterates once it is done.

        Parameters
        ----------
        keep
            As ``execution.keep``, which it is when left out.
        """
        return self.experiment.iterates_of(cell, keep) * self.net(cell.dataset, cell.model).bytes

    # Passes -----------------------------------------------------------------------------------------

    def images(self, dataset: str, block: Mapping[str, Any]) -> tuple[int, int]:
        """Return the train and test images that a probe, line or plane looks at."""
        data = self.data(dataset)
        return min(data.train, block["train_images"] or data.train), min(
            data.test, block["test_images"] or data.test
        )

    def is_subset(self, dataset: str, block: Mapping[str, Any]) -> bool:
        """Return whether a probe looks at a part of the train images."""
        return self.images(dataset, block)[0] < self.data(dataset).train

    def point(self, w: Mapping[str, Any], block: Mapping[str, Any], *, test: bool = True) -> Work:
        """Return the work of one point: weights moved, statistics refreshed, one pass over each split."""
        net, (train, held) = self.net(w["dataset"], w["model"]), self.images(w["dataset"], block)
        twice = self.refreshes(w, block) and self.config["bn_refresh"]["method"] == "streaming"
        images = train * (2 if twice else 1) + held * test
        precision = block.get("precision", "fp32")
        return self.forward(net, images, precision=precision) + Work(
            bytes=12 * net.parameters, layers=2 * net.tensors
        )

    def refreshes(self, w: Mapping[str, Any], block: Mapping[str, Any]) -> bool:
        """Whether batch-norm statistics are recomputed at every point."""
        return block["bn"] == "refreshed" and self.net(w["dataset"], w["model"]).buffers > 0

    def forward(self, net: Size, images: int, batch: int | None = None, precision: str = "fp32") -> Work:
        """Return the work of one pass over so many images, in batches of `bn_refresh` unless said."""
        batches = math.ceil(images / (batch or self.config["bn_refresh"]["batch_size"]))
        flops, traffic, layers = images * net.flops, images * net.elements * 8, batches * net.layers
        if precision == "bf16":
            return Work(bytes=traffic, layers=layers * (1 + machine.BF16_CASTS), halves=flops)
        return Work(flops, traffic, layers)  # each number is written once and read once

    def training(self, net: Size, images: int, recipe: Mapping[str, Any]) -> Work:
        """Return the work of one epoch: forward, backward, and a step of SGD for each batch."""
        batch = min(recipe["batch_size"], images)
        steps = math.ceil(images / batch)
        step = Work(bytes=24 * net.parameters, layers=0.2 * net.tensors + 12)  # fused over tensors
        passes = self.forward(net, images, batch, recipe.get("precision", "fp32"))
        return BACKWARD * passes + steps * step

    # Jobs -------------------------------------------------------------------------------------------

    def network_job(self, work: Work, memory: float, disk: float, more: tuple[float, float] = (0, 0)) -> Cost:
        """Return the cost of a job that runs a network: it does `work` and holds `memory` bytes beside torch.

        Parameters
        ----------
        more
            Seconds and MB of what it needs besides (`OPTIMIZER`, `CURVLINOPS`).
        """
        machine = self.gpu if self.on_gpu else self.cpu
        extra = 0 if self.forked else more[0] * CPU.flops / self.cpu.flops
        seconds = machine.start_s + extra + work.seconds(machine)
        return Cost(seconds, machine.memory_mb + more[1] + memory / MB, disk, gpu=self.on_gpu)

    def small(
        self, seconds: float, rows: float, disk: float = SMALL_FILE, *, times: float = 1, memory: float = 220
    ) -> Cost:
        """Return the cost of a job on tables: so long to start, and to look at each row so many times."""
        speed = CPU.flops / self.cpu.flops
        seconds = max(FORKED_S, seconds - IMPORTS_S) if self.forked else seconds
        return Cost(speed * (seconds + times * rows * 5e-6), memory + rows * 1e-3, disk)

    def resident(
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
        subsets = [self.images(dataset, block) for block in blocks]
        held = copies * net.bytes
        for part, images in enumerate((data.train, data.test)):
            if images * data.each <= limit:
                held += 2 * images * (data.each + 8)
            else:
                sizes = [subset[part] * data.each for subset in subsets if subset[part] < images]
                held += ON_DISK_BYTES * images + 2 * max((s for s in sizes if s <= limit), default=0)
        return held if self.on_gpu else held + activations

    def components(self, net: Size, iterates: int) -> float:
        """Return bytes that principal components of so many iterates take: these, and a piece in float64."""
        held = iterates * net.bytes
        return held + min(2 * held, PCA_BYTES)

    def in_passes(self, w: Mapping[str, Any], blocks: list[Mapping[str, Any]]) -> float:
        """Return bytes of activations in passes without gradient, and of images kept as floats."""
        net, data = self.net(w["dataset"], w["model"]), self.data(w["dataset"])
        batch, exact = self.config["bn_refresh"]["batch_size"], self.config["bn_refresh"]["method"] == "exact"
        most = 0.0
        for block in blocks:
            train, test = self.images(w["dataset"], block)
            floats = sum(n * data.pixels * 4 for n in (train, test) if n * data.pixels * 4 <= RESIDENT_BYTES)
            at_once = train if exact and self.refreshes(w, block) else min(batch, train)
            held = HELD if at_once > batch else 3  # of one batch: input, output and a shortcut
            most = max(most, floats + at_once * net.widest * 4 * held)
        return most

    # Rows of tables ---------------------------------------------------------------------------------

    def rows(self, w: Mapping[str, Any]) -> float:
        """Return the rows of curves that a cell has."""
        cell = Cell(w["dataset"], w["model"], w["recipe"], int(w["seed"]))
        return self.once(("rows", cell), lambda: self._rows_of(cell))

    def _rows_of(self, cell: Cell) -> float:
        return sum(
            self.points(name) * self.directions(name) * self.solutions(cell, name)
            for name in self.experiment.probes_of(cell)
        )

    def points(self, probe: str) -> float:
        """Return the points of a curve; of an adaptive probe, the mean over its curves that is expected."""
        spec = self.config["probes"][probe]
        chosen = spec.get("adaptive") or spec.get("until")
        return min(spec["points"], ADAPTIVE_POINTS) if chosen else spec["points"]

    def directions(self, probe: str) -> int:
        """Return the directions that a probe draws at each solution."""
        spec = self.config["probes"][probe]
        return 1 if spec["kind"] in SINGLE else spec["n"]

    def solutions(self, cell: Cell, probe: str) -> int:
        """Return how many solutions of a cell a probe looks at."""
        return len(self.experiment.probed_solutions(cell, probe))

    def all_rows(self) -> float:
        """Return the rows of curves of all cells of the grid."""
        cells = self.experiment.cells
        return self.once(
            "all rows", lambda: sum(self.rows({**cell.columns(), "seed": cell.seed}) for cell in cells)
        )
