"""What a data set's entry in the configuration may say. Pure Python: importing this imports no torch.

``DATASET_OPTIONS`` names the sources and their options; ``validate_dataset`` checks one entry against the
table and fills in the defaults. Reading the data themselves is the business of `data.sources`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from valleys import factories
from valleys.errors import ValleysError


@dataclass(frozen=True)
class Option:
    """One option: the kind of value it takes, and what it is when left out.

    ``kind`` is one of ``int``, ``bool``, ``str``, ``path`` (a string), ``paths`` (a string, a glob pattern,
    or a non-empty list of either), ``factory`` (``module:attribute``) and ``kwargs`` (a mapping). An optional
    option may also be given as null, which means its default.
    """

    kind: str
    help: str
    default: Any = None
    required: bool = False
    minimum: int | None = None
    maximum: int | None = None
    least: float | None = None  # of numbers in a list


@dataclass(frozen=True)
class Source:
    """One kind of original: what it is, and the options it takes beside the common ones."""

    description: str
    options: Mapping[str, Option]


MAX_SEED = 2**53 - 1  # as in the config's schema
_IMAGES = 10**10
_NUMBER = 1e6  # of means and deviations of pixels in [0, 1]

COMMON_OPTIONS: dict[str, Option] = {
    "max_train": Option(
        "int", "keep only this many training images, a fixed random subset", minimum=1, maximum=_IMAGES
    ),
    "max_test": Option(
        "int", "keep only this many test images, a fixed random subset", minimum=1, maximum=_IMAGES
    ),
    "subset_seed": Option("int", "seed of those subsets", default=0, minimum=0, maximum=MAX_SEED),
    "classes": Option(
        "int", "number of classes; left out, the largest training label plus one", minimum=2, maximum=10**7
    ),
    "mean": Option("numbers", "subtracted from pixels in [0, 1], by channel; left out, the train set's mean"),
    "std": Option(
        "numbers", "what that is divided by, by channel; left out, the train set's deviation", least=1e-6
    ),
}

#: Names of files that an image folder is read for end so: torchvision's.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_DIGITS = 1797  # images in scikit-learn's data set

_SIDE = 16_384  # pixels
_SIZE = Option(
    "int",
    "resize the shorter side to this many pixels, then crop the centre square",
    minimum=1,
    maximum=_SIDE,
)
_GRAYSCALE = Option("bool", "decode to one channel instead of RGB", default=False)


def _torchvision(description: str) -> Source:
    """Return the entry of a data set that torchvision reads."""
    return Source(
        description,
        {
            "root": Option(
                "path", "folder that holds (or, with download, will hold) the files", required=True
            ),
            "download": Option("bool", "let torchvision download the files when absent", default=False),
        },
    )


DATASET_OPTIONS: dict[str, Source] = {
    "digits": Source(
        "scikit-learn's 1797 grey 8x8 handwritten digits, shipped with the package, cut at random",
        {
            "train_size": Option(
                "int", "training images; the rest is test", default=800, minimum=1, maximum=_DIGITS - 1
            ),
            "split_seed": Option("int", "seed of the cut", default=0, minimum=0, maximum=MAX_SEED),
        },
    ),
    "cifar10": _torchvision("CIFAR-10, 32x32 colour, 50000 + 10000 images, 10 classes"),
    "cifar100": _torchvision("CIFAR-100, 32x32 colour, 50000 + 10000 images, 100 classes"),
    "svhn": _torchvision("Street View House Numbers, 32x32 colour, 73257 + 26032 images, 10 classes"),
    "stl10": _torchvision("STL-10, 96x96 colour, 5000 + 8000 labelled images, 10 classes"),
    "fashion_mnist": _torchvision("Fashion-MNIST, 28x28 grey, 60000 + 10000 images, 10 classes"),
    "image_folder": Source(
        "folders of image files, one sub-folder per class, in torchvision's ImageFolder order; read "
        "again when a file's path, size or time is another",
        {
            "train": Option("path", "folder of the training classes", required=True),
            "test": Option("path", "folder of the test classes, the same names", required=True),
            "size": replace(_SIZE, required=True),
            "grayscale": _GRAYSCALE,
        },
    ),
    "parquet": Source(
        "parquet files of encoded images and integer labels, as on the Hugging Face hub",
        {
            "train": Option("paths", "training file, glob pattern, or a list of them", required=True),
            "test": Option("paths", "test file, glob pattern, or a list of them", required=True),
            "image_column": Option("str", "column of the images; left out, img or image"),
            "label_column": Option("str", "column of the labels; left out, label, fine_label or labels"),
            "size": _SIZE,
            "grayscale": _GRAYSCALE,
        },
    ),
    "numpy": Source(
        "npz files with the arrays images (N, H, W[, C]), uint8, and labels (N), integer",
        {
            "train": Option("path", "training npz file", required=True),
            "test": Option("path", "test npz file", required=True),
        },
    ),
    "callable": Source(
        "a callable of the user's that returns (train images, labels), (test images, labels): images uint8, "
        "as arrays (N, H, W[, C]) or torch tensors (N[, C], H, W), and labels (N), integer",
        {
            "factory": Option(
                "factory", "module:attribute, in the folder of the run or installed", required=True
            ),
            "kwargs": Option("kwargs", "its arguments"),
            "files": Option(
                "paths", "what it reads, files and folders: when one of these changes it is called again"
            ),
        },
    ),
}


def nearest(word: object, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the known word nearest to ``word``, or nothing."""
    match = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f" (did you mean {match[0]!r}?)" if match else ""


def _check(where: str, value: Any, option: Option) -> None:
    """Raise unless ``value`` is of the kind that ``option`` takes."""
    if option.kind == "int":
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValleysError(f"{where} is {value!r}; it must be an integer: {option.help}")
        if option.minimum is not None and value < option.minimum:
            raise ValleysError(f"{where} is {value}; it must be at least {option.minimum}")
        if option.maximum is not None and value > option.maximum:
            raise ValleysError(f"{where} is {value}; it must be at most {option.maximum}")
    elif option.kind == "bool":
        if not isinstance(value, bool):
            raise ValleysError(f"{where} is {value!r}; it must be true or false: {option.help}")
    elif option.kind == "numbers":
        found = value if isinstance(value, list | tuple) else []
        right = all(
            isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= _NUMBER for v in found
        )
        if not found or not right:
            raise ValleysError(
                f"{where} is {value!r}; it must be a list of numbers, {_NUMBER:g} at most: {option.help}"
            )
        if option.least is not None and min(found) < option.least:
            raise ValleysError(f"{where} is {value!r}; each must be at least {option.least:g}")
    elif option.kind in ("factory", "kwargs"):
        return  # checked together, by `factories.check`
    elif option.kind == "paths" and isinstance(value, list | tuple):
        if not value or not all(isinstance(item, str) and item for item in value):
            raise ValleysError(f"{where} is {value!r}; a list here must hold one or more paths")
    elif not isinstance(value, str) or not value:
        raise ValleysError(f"{where} is {value!r}; it must be a non-empty string: {option.help}")


#: Channels and the shorter side in pixels of data that are the same for everyone.
_SHAPES = {"digits": (1, 8), "fashion_mnist": (1, 28), "stl10": (3, 96)}
_SHAPES |= dict.fromkeys(("cifar10", "cifar100", "svhn"), (3, 32))


def image_shape(spec: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return channels and the shorter side in pixels of a data set's images; None where it does not tell.

    Parameters
    ----------
    spec
        As `validate_dataset` returns it.
    """
    if "grayscale" in spec:
        return 1 if spec["grayscale"] else 3, spec["size"]
    return _SHAPES.get(spec["source"], (None, None))


def check_channels(name: str, key: str, values: Sequence[float], channels: int | None) -> None:
    """Check that ``mean`` or ``std`` has a number for each channel, where it is known how many there are.

    Raises
    ------
    ValleysError
        When it has not.
    """
    if channels not in (None, len(values)):
        raise ValleysError(
            f"datasets.{name}.{key} is {values!r}; it must be {channels} numbers, one a channel"
        )


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
    known_sources = ", ".join(DATASET_OPTIONS)
    if source is None:
        raise ValleysError(f"{where} has no key 'source'; it must be one of: {known_sources}")
    if not isinstance(source, str) or source not in DATASET_OPTIONS:
        hint = nearest(source, DATASET_OPTIONS)
        raise ValleysError(f"{where}.source is {source!r}{hint}; it must be one of: {known_sources}")
    options = {**DATASET_OPTIONS[source].options, **COMMON_OPTIONS}
    for key in spec:
        if key != "source" and key not in options:
            raise ValleysError(
                f"{where} has the unknown key {key!r}{nearest(key, options)}; "
                f"the source {source!r} takes: {', '.join(options)}"
            )
    filled: dict[str, Any] = {"source": source}
    for key, option in options.items():
        value = spec.get(key)
        if value is None:
            if option.required:
                raise ValleysError(
                    f"{where} lacks the key {key!r}, which the source {source!r} needs: {option.help}"
                )
            if option.kind != "numbers":  # not in the params of data sets prepared before there were any
                filled[key] = option.default
            continue
        _check(f"{where}.{key}", value, option)
        filled[key] = list(value) if isinstance(value, tuple) else value
    if "factory" in filled:
        filled["factory"], filled["kwargs"] = factories.check(where, filled["factory"], filled["kwargs"])
    for key in {"mean", "std"} & set(filled):
        check_channels(name, key, filled[key], image_shape(filled)[0])
    return filled
