"""How many images of which shape each data set has, before a job has read it; not what they cost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from valleys.config.experiment import Experiment
from valleys.costs.work import Data
from valleys.data import counts

DECODERS = 8  # threads at most that decode a data set; one for each five minutes of work
ENCODED = ("image_folder", "parquet")  # sources whose images are decoded
#: Images (train, test), shape and classes of data that are the same for everyone.
KNOWN: dict[str, tuple[int, int, tuple[int, int, int], int]] = {
    "cifar10": (50_000, 10_000, (3, 32, 32), 10),
    "cifar100": (50_000, 10_000, (3, 32, 32), 100),
    "svhn": (73_257, 26_032, (3, 32, 32), 10),
    "stl10": (5_000, 8_000, (3, 96, 96), 10),
    "fashion_mnist": (60_000, 10_000, (1, 28, 28), 10),
}
#: What cannot be counted before `prepare_dataset` has run (`data_costs`) is taken to be as large as these.
ASSUMED: dict[str, tuple[int, int, int, int]] = {  # train, test, side, classes
    "parquet": (50_000, 10_000, 32, 10),
    "numpy": (50_000, 10_000, 32, 10),
    "callable": (50_000, 10_000, 32, 10),
    "image_folder": (1_281_167, 50_000, 224, 1000),
}


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
        state = self.state(dataset)
        return self._once(("data", dataset, state), lambda: self._data(dataset, state))

    def _paths(self, dataset: str) -> list[Path]:
        folder = Path(self.experiment.root) / "data" / dataset
        return [folder / f"{part}.safetensors" for part in ("train", "test")]

    def state(self, dataset: str) -> tuple[Any, ...]:
        """Return what changes when a data set's prepared files do: a name for what is known of it."""
        state = tuple(_stamp(path) for path in self._paths(dataset))
        self._found.setdefault(dataset, state)
        return state

    def _data(self, dataset: str, state: tuple[Any, ...]) -> Data:
        headers = [_header(path) for path in self._paths(dataset)]
        if not all(headers):
            return self.source(dataset)
        (train, *shape), (test, *_) = (header["images"]["shape"] for header in headers)
        prepared = Data(train, test, tuple(shape), int(headers[0]["__metadata__"]["classes"]))
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
        source, counted, measured = spec["source"], True, False
        if source == "digits":
            train, test, shape, classes = spec["train_size"], 1797 - spec["train_size"], (1, 8, 8), 10
        elif source in KNOWN:
            train, test, shape, classes = KNOWN[source]
        else:
            train, test, side, classes = ASSUMED[source]
            side = spec.get("size") or side
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

    def to_prepare(self, dataset: str) -> Data:
        """Return the size of what `prepare_dataset` is to read: the originals', where that is known."""
        source = self.source(dataset)
        return source if source.measured else self.of(dataset)

    def decoders(self, dataset: str) -> int:
        """Return the threads that decode a data set when it is prepared."""
        return min(DECODERS, max(1, math.ceil(self.decoding(dataset) / 300)))

    def decoding(self, dataset: str) -> float:
        """Return seconds that one core decodes a data set."""
        data = self.to_prepare(dataset)
        encoded = self.experiment.datasets[dataset]["source"] in ENCODED
        return (data.train + data.test) * (5e-5 + 2e-8 * data.pixels) * encoded


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _header(path: Path) -> dict[str, Any] | None:
    """Return the header of a safetensors file without reading on; None where there is no such file."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, 1 << 20)))
        return header if header["images"]["shape"] and header["__metadata__"]["classes"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a damaged file is the business of the job that reads it
