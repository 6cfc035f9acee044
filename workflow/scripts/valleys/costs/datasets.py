"""How many images of which shape each data set has, before a job has read it; not what they cost."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from valleys.config.experiment import Experiment
from valleys.costs.work import Data
from valleys.data import counts
from valleys.data.options import DATASET_OPTIONS, before_seeds
from valleys.storage.weights import describe

DECODERS = 8  # threads at most that decode a data set; one for each five minutes of work


class DataSizes:
    """Sizes of the data sets of one experiment.

    Parameters
    ----------
    experiment, originals
        As of `valleys.costs.jobs.Costs`.
    """

    def __init__(self, experiment: Experiment, originals: bool) -> None:
        self.experiment, self.originals = experiment, originals
        self._cache: dict[Any, Any] = {}
        self._found: dict[str, Any] = {}

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def of(self, dataset: str) -> Data:
        """Return the size of a data set: of its prepared files, else of its source, else assumed."""
        whole, spec = self.before_seeds(dataset), self.experiment.datasets[dataset]
        if spec["split"] == "fixed":
            return whole
        train, test = whole.train, whole.test
        return replace(
            whole, train=min(train, spec["max_train"] or train), test=min(test, spec["max_test"] or test)
        )

    def before_seeds(self, dataset: str) -> Data:
        """Return the size of what all seeds have in common, known as `of` has it."""
        state = self.state(dataset)
        return self._once(("data", dataset, state), lambda: self._data(dataset, state))

    def _paths(self, dataset: str) -> list[str]:
        return [f"{self.experiment.root}/data/{dataset}/{part}.safetensors" for part in ("train", "test")]

    def state(self, dataset: str) -> tuple[Any, ...]:
        """Return what changes when a data set's prepared files do: a name for what is known of it."""
        state = tuple(_stamp(path) for path in self._paths(dataset))
        self._found.setdefault(dataset, state)
        return state

    def _data(self, dataset: str, state: tuple[Any, ...]) -> Data:
        parts = [_prepared_as(path) for path in self._paths(dataset)]
        if not all(parts):
            return self.source(dataset)
        ((train, *shape), classes, itemsize), ((test, *_), _, _) = parts
        prepared = Data(train, test, tuple(shape), classes, itemsize=itemsize)
        if self.originals and state == self._found[dataset]:  # from before: they may be out of date
            source = self.source(dataset)
            if source.measured:
                return replace(source, classes=prepared.classes)
        return prepared

    def source(self, dataset: str) -> Data:
        """Return the size of what all seeds have in common by its source, counted where it can be: once."""
        return self._once(("source", dataset), lambda: self._source(dataset))

    def _source(self, dataset: str) -> Data:
        spec = before_seeds(self.experiment.datasets[dataset])
        size = DATASET_OPTIONS[spec["source"]].size_of(spec)
        train, test, shape, classes = size.train, size.test, size.shape, size.classes
        counted, measured, itemsize = True, False, 1
        if not size.known:
            side = spec.get("size") or shape[-1]
            shape = (1 if spec.get("grayscale") else 3, side, side)
            counted = spec["max_train"] is not None and spec["max_test"] is not None
            if (found := counts.count(spec)) is not None:
                train, test, classes = found.train, found.test, found.classes or classes
                shape, measured = found.shape or shape, found.exact and found.shape is not None
                itemsize = found.itemsize
                counted |= measured
        return Data(
            min(train, spec["max_train"] or train),
            min(test, spec["max_test"] or test),
            shape,
            spec["classes"] or classes,
            counted,
            measured,
            itemsize,
        )

    def to_prepare(self, dataset: str) -> Data:
        """Return the size of what `prepare_dataset` is to read: the originals', where that is known."""
        source = self.source(dataset)
        return source if source.measured else self.before_seeds(dataset)

    def decoders(self, dataset: str) -> int:
        """Return the threads that decode a data set when it is prepared."""
        return min(DECODERS, max(1, math.ceil(self.decoding(dataset) / 300)))

    def decoding(self, dataset: str) -> float:
        """Return seconds that one core decodes a data set."""
        data = self.to_prepare(dataset)
        return (data.train + data.test) * (5e-5 + 2e-8 * data.pixels) * self.encoded(dataset)

    def encoded(self, dataset: str) -> bool:
        """Return whether the originals are encoded images, which have to be decoded."""
        return DATASET_OPTIONS[self.experiment.datasets[dataset]["source"]].encoded


def _stamp(path: str) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 (asked for each job: a Path takes longer than the look)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _prepared_as(path: str) -> tuple[tuple[int, ...], int, int] | None:
    """Return shape, classes and bytes a number of a prepared data file's images; None where there is none."""
    try:
        metadata, tensors = describe(Path(path))
        kind, shape = tensors["images"]
        return shape, int(metadata["classes"]), {"F32": 4, "I64": 8}.get(kind, 1)
    except (OSError, ValueError, KeyError, SafetensorError):
        return None  # a damaged file is the business of the job that reads it
