"""What a data set's entry in the configuration may say. Pure Python: importing this imports no torch.

``DATASET_OPTIONS`` names the sources and their options; ``validate_dataset`` checks one entry against the
table and fills in the defaults. Reading the data themselves is the business of `data.sources`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from valleys import factories
from valleys.errors import ValleysError
from valleys.options import Option, block_schema, check_name, check_options


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
    "mean": Option(
        "numbers",
        "subtracted from pixels in [0, 1], by channel; left out, the train set's mean",
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
        if option.kind == "numbers" and filled[key] is None:
            del filled[key]  # not in the params of data sets prepared before there were any
    if "factory" in filled:
        filled["factory"], filled["kwargs"] = factories.check(where, filled["factory"], filled["kwargs"])
    for key in {"mean", "std"} & set(filled):
        check_channels(name, key, filled[key], image_shape(filled)[0])
    return filled


def schema() -> dict[str, Any]:
    """Return JSON schema of a data set's entry, for editors: it says what `validate_dataset` checks."""
    tables = {name: (s.description, {**s.options, **COMMON_OPTIONS}) for name, s in DATASET_OPTIONS.items()}
    return block_schema("source", tables, "Where the images come from.", or_null=True)
