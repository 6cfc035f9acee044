"""Read original data sets into a training and a test ``Split``.

Every source is reduced to the same thing first: all labels, and a way to decode chosen images, a few at a
time. Labels are checked and subsets drawn on that, so ``max_train`` and ``max_test`` save the decoding too;
`write_source` never holds more than the images being decoded. A source's own library (torchvision,
scikit-learn, pyarrow, PIL) is imported when that source is read and not before. The sources and their options
are listed in ``valleys.dataset_options``.
"""

from __future__ import annotations

import glob
import io
import itertools
import logging
import math
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from valleys import factories
from valleys.data import Split, channel_statistics, subset_indices, write_split
from valleys.dataset_options import DATASET_OPTIONS, check_channels, validate_dataset
from valleys.errors import ValleysError
from valleys.storage import files
from valleys.storage.state import require

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger("valleys")

_LOG_EVERY = 10_000  # images between two lines of progress
_CHUNK = 64  # images decoded, or copied, at a time
_PARQUET_BATCH = 1024  # rows read at a time
# Formats that PIL decodes itself: for others, as EPS, it starts a program.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MAX_PIXELS = 178_956_970  # of one image, before and after it is resized; PIL's own limit
_TILE = (322, 323)  # TIFF's tags of a tile's width and height, and of the bytes of strips and tiles
_STRIP_BYTES = (279, 325)
_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "fine_label", "labels")

# What torchvision looks for under `root`, for the message when it is not there.
_EXPECTED_FILES = {
    "cifar10": "cifar-10-batches-py/ (unpacked from cifar-10-python.tar.gz)",
    "cifar100": "cifar-100-python/ (unpacked from cifar-100-python.tar.gz)",
    "svhn": "train_32x32.mat and test_32x32.mat",
    "stl10": "stl10_binary/ (unpacked from stl10_binary.tar.gz)",
    "fashion_mnist": "FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte (unpacked)",
}


@dataclass(frozen=True)
class _Original:
    """One part of a source, not decoded yet.

    ``take`` yields the images of the given ascending rows, a few at a time, as uint8 (n, C, H, W); ``where``
    names a row in an error message.
    """

    labels: np.ndarray
    take: Callable[[np.ndarray], Iterator[np.ndarray]]
    where: Callable[[int], str]


def _line(error: BaseException) -> str:
    """Return an exception's message on one line, or its type when it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _from_array(images: np.ndarray, labels: np.ndarray, what: str) -> _Original:
    """Wrap images already in memory, uint8 (N, C, H, W)."""
    if len(images) != len(labels):
        raise ValleysError(f"{what} has {len(images)} images but {len(labels)} labels; there must be as many")

    def take(rows: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(rows), _CHUNK):
            yield images[rows[start : start + _CHUNK]]

    return _Original(np.asarray(labels, dtype=np.int64), take, lambda row: f"{what}, image {row}")


def _progress(done: int, more: int, total: int, what: str) -> None:
    """Log a line of progress when the last ``more`` images pass a round number, and at the end."""
    if done // _LOG_EVERY > (done - more) // _LOG_EVERY or done == total:
        logger.info("decoded %d of %d images of %s", done, total, what)


# --- decoding ---------------------------------------------------------------------------------------------


def _decode(source: Any, where: str, size: int | None, grayscale: bool) -> np.ndarray:
    """Decode one encoded image (bytes or a path) to uint8 (C, H, W).

    With ``size`` the shorter side is resized to it (bilinear, antialiased) and the centre square cropped.
    """
    require("PIL")
    from PIL import Image, UnidentifiedImageError

    encoded = isinstance(source, bytes)
    length = len(source) if encoded else files.check_regular(source, wanted="remove it").stat().st_size
    try:
        with Image.open(io.BytesIO(source) if encoded else source, formats=_FORMATS) as opened:
            _check_size(opened, size, length)
            image = opened
            deep = image.mode in ("I", "F") or image.mode.startswith("I;")
            if not deep:
                image = image.convert("L" if grayscale else "RGB")
    except Exception as error:  # PIL's decoders raise many types on damaged input
        reason = _line(error)
        if isinstance(error, UnidentifiedImageError):
            reason = f"it is none of {', '.join(_FORMATS)}"
        raise ValleysError(
            f"{where} cannot be decoded as an image ({reason}); replace or remove it"
        ) from error
    if deep:
        raise ValleysError(f"{where} has pixels of mode {image.mode}; convert it to 8 bits a channel")
    if size is not None:
        image = _square(image, size)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if grayscale else pixels.transpose(2, 0, 1)


def _check_size(image: Image.Image, size: int | None, length: int) -> None:
    """Raise when an image, by its header, takes absurdly much memory to decode or to resize."""
    width, height = image.size
    needs = {f"{width} x {height} pixels": width * height}
    if size is not None and min(width, height) > 0:
        wide, high = (side * size // min(width, height) for side in (width, height))
        needs[f"{width} x {height} pixels, which become {wide} x {high},"] = wide * high
    tags = getattr(image, "tag_v2", {})
    if all(tag in tags for tag in _TILE):
        needs["tiles of {} x {} pixels".format(*(tags[tag] for tag in _TILE))] = math.prod(
            float(tags[tag]) for tag in _TILE
        )
    for told, pixels in needs.items():
        if pixels > _MAX_PIXELS:
            raise ValueError(f"{told} are beyond the limit of {_MAX_PIXELS:,}")
    for tag in _STRIP_BYTES:
        counts = tags.get(tag, ())
        if (most := max(counts if isinstance(counts, tuple) else (counts,), default=0)) > length:
            raise ValueError(f"it declares a strip of {most:,} bytes, beyond the limit of its {length:,}")


def _square(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to ``size`` and crop the centre square, as torchvision's transforms do."""
    from PIL import Image

    width, height = image.size
    short = min(width, height)
    if short != size:
        width, height = (size if side == short else int(size * side / short) for side in (width, height))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _decoded(
    encoded: Iterable[tuple[Any, str]], total: int, what: str, spec: Mapping[str, Any]
) -> Iterator[np.ndarray]:
    """Decode ``total`` images, each given with its name in messages, and yield them some at a time.

    All have the shape of the first. ``spec``: ``size``, ``grayscale`` and ``workers``, threads that decode.
    """

    def decode(part: Sequence[tuple[Any, str]]) -> list[np.ndarray]:
        return [_decode(source, where, spec["size"], spec["grayscale"]) for source, where in part]

    shape, first, done = None, "", 0
    for part, images in _in_order(decode, _parts(encoded), spec["workers"]):
        for image, (_, where) in zip(images, part, strict=True):
            if shape is None:
                shape, first = image.shape, where
            if image.shape != shape:
                (_, height, width), (_, height_0, width_0) = image.shape, shape
                raise ValleysError(
                    f"{where} is {width}x{height} pixels but {first} is {width_0}x{height_0}; "
                    f"all must have the same size: set the option 'size'"
                )
        done += len(images)
        _progress(done, len(images), total, what)
        yield np.stack(images)
    if done != total:  # the caller gives exactly `total`
        raise ValleysError(f"{what} gave {done} of the {total} images asked for; is it being written to?")


def _parts(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield `_CHUNK` items at a time."""
    items = iter(items)
    while part := list(itertools.islice(items, _CHUNK)):
        yield part


def _in_order(work: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[tuple[Any, Any]]:
    """Yield each item with ``work(item)``, done by so many threads; no more than two a thread are waiting.

    Threads, not processes: PIL lets others run while it decodes and resizes, and images need no sending.
    """
    if workers == 1:
        for item in items:
            yield item, work(item)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Any, Any]] = deque()
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > 2 * workers:
                item, done = waiting.popleft()
                yield item, done.result()
        for item, done in waiting:
            yield item, done.result()


# --- digits -----------------------------------------------------------------------------------------------


def _digits(spec: Mapping[str, Any]) -> tuple[_Original, _Original]:
    """Read scikit-learn's digits; values 0..16 become 0..255."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValleysError(
            "the source 'digits' needs scikit-learn; install it with: pip install scikit-learn"
        ) from error
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    order = np.random.default_rng(spec["split_seed"]).permutation(len(images))
    parts = order[: spec["train_size"]], order[spec["train_size"] :]
    return tuple(
        _from_array(images[rows], digits.target[rows], f"digits {name}")
        for rows, name in zip(parts, ("train", "test"), strict=True)
    )


# --- torchvision ------------------------------------------------------------------------------------------


def _torchvision(spec: Mapping[str, Any]) -> tuple[_Original, _Original]:
    """Read one of torchvision's data sets from ``root``."""
    from valleys.torchvision_compat import import_torchvision

    name = spec["source"]
    root = files.expand(spec["root"])
    datasets = import_torchvision("datasets")
    by_train = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion_mnist": "FashionMNIST"}
    by_split = {"svhn": "SVHN", "stl10": "STL10"}
    parts = []
    for part in ("train", "test"):
        logger.info("reading %s %s from %s", name, part, root)
        try:
            if name in by_train:
                read = getattr(datasets, by_train[name])(
                    root, train=part == "train", download=spec["download"]
                )
                images, labels = read.data, read.targets
            else:
                read = getattr(datasets, by_split[name])(root, split=part, download=spec["download"])
                images, labels = read.data, read.labels
            images, labels = np.asarray(images), np.asarray(labels)
        except Exception as error:  # absent, damaged or no network: torchvision raises many types
            remedy = (
                "check the network, or put the files there by hand"
                if spec["download"]
                else "put the files there, or set download: true"
            )
            raise ValleysError(
                f"{name} cannot be read from the root {root} ({_line(error)}); "
                f"expected there: {_EXPECTED_FILES[name]}; {remedy}"
            ) from error
        if images.ndim == 3:  # Fashion-MNIST is grey
            images = images[:, None]
        elif name.startswith("cifar"):  # channels come last
            images = images.transpose(0, 3, 1, 2)
        parts.append(_from_array(images, labels, f"{name} {part}"))
    return parts[0], parts[1]


# --- image folders ----------------------------------------------------------------------------------------


def _image_folder(spec: Mapping[str, Any]) -> tuple[_Original, _Original]:
    """Read folders of image files, the classes in torchvision's order."""
    from valleys.torchvision_compat import import_torchvision

    image_folder = import_torchvision("datasets").ImageFolder
    listed = {}
    for part in ("train", "test"):
        folder = files.expand(spec[part])
        if not folder.is_dir():
            raise ValleysError(
                f"the {part} folder {folder} does not exist; it must hold one sub-folder per class"
            )
        try:
            listed[part] = image_folder(folder)
        except OSError as error:  # no class folder, or one without images
            raise ValleysError(f"the {part} folder {folder} cannot be used: {_line(error)}") from error
    train, test = listed["train"], listed["test"]
    if train.classes != test.classes:
        only = [
            f"only in {part}: {', '.join(names)}"
            for part, names in (
                ("train", sorted(set(train.classes) - set(test.classes))),
                ("test", sorted(set(test.classes) - set(train.classes))),
            )
            if names
        ]
        raise ValleysError(
            f"the class folders of {spec['train']} and {spec['test']} differ ({'; '.join(only)}); "
            f"both must have the same sub-folders"
        )
    return tuple(_files(listed[part].samples, spec, f"the {part} folder {spec[part]}") for part in listed)


def _files(samples: Sequence[tuple[str, int]], spec: Mapping[str, Any], what: str) -> _Original:
    """Wrap a list of image files and labels."""

    def take(rows: np.ndarray) -> Iterator[np.ndarray]:
        encoded = ((samples[row][0], samples[row][0]) for row in rows)
        return _decoded(encoded, len(rows), what, spec)

    labels = np.array([label for _, label in samples], dtype=np.int64)
    return _Original(labels, take, lambda row: samples[row][0])


# --- parquet ----------------------------------------------------------------------------------------------


def _parquet(spec: Mapping[str, Any]) -> tuple[_Original, _Original]:
    """Read parquet files of encoded images."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ValleysError(
            "the source 'parquet' needs pyarrow; install it with: pip install pyarrow"
        ) from error
    return _parquet_part(spec, "train"), _parquet_part(spec, "test")


def _paths(given: str | Sequence[str], part: str) -> list[Path]:
    """Expand a path, a glob pattern, or a list of them; the files of a pattern are sorted by name."""
    paths: list[Path] = []
    for item in [given] if isinstance(given, str) else given:
        path = files.expand(item)
        if path.is_dir():
            raise ValleysError(
                f"the {part} path {path} is a folder; give its files, for instance {path}/*.parquet"
            )
        if path.is_file():
            paths.append(path)
            continue
        wanted = "give a parquet file, a pattern or a list"
        if not glob.has_magic(str(path)):
            files.check_regular(path, f"the {part} file", wanted)
        matches = sorted(map(Path, files.matching(item)))
        if not matches:
            raise ValleysError(f"the {part} pattern {path} matches no file; {wanted}")
        paths.extend(files.check_regular(match, f"the {part} file", wanted) for match in matches)
    return paths


def _column(names: Sequence[str], option: str, given: str | None, usual: Sequence[str], path: Path) -> str:
    """Return the column to read: the one given, else the first usual one that the file has."""
    for name in usual if given is None else (given,):
        if name in names:
            return name
    wanted = repr(given) if given is not None else f"named {' or '.join(map(repr, usual))}"
    raise ValleysError(
        f"{path} has no column {wanted}; it has: {', '.join(names)}; set {option} to the one that is meant"
    )


def _damaged(path: Path, error: BaseException) -> ValleysError:
    """Return the error for a parquet file that pyarrow cannot read."""
    return ValleysError(
        f"{path} is not a whole parquet file, truncated or damaged ({_line(error)}); fetch or write it again"
    )


def _check_parquet(path: Path, columns: Sequence[str], max_bytes: float) -> None:
    """Raise when a file's footer declares more labels, or more of a group's images, than memory takes."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        about = file.metadata
        needs = [8.0 * about.num_rows]
        for group in range(about.num_row_groups):
            found = about.row_group(group)
            parts = (found.column(i) for i in range(found.num_columns))
            needs += [c.total_uncompressed_size for c in parts if c.path_in_schema.split(".")[0] in columns]
    if max(needs) > max_bytes:
        raise _too_large(path, max(needs), max_bytes)


def _too_large(path: Path, size: float, max_bytes: float) -> ValleysError:
    return ValleysError(
        f"{path} declares {size / 1e9:.3g} GB; execution.max_data_gb is {max_bytes / 1e9:g}, "
        "raise it if that is right"
    )


def _parquet_labels(path: Path, column: str) -> np.ndarray:
    """Read a file's labels, which must be integers, none missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            kind = file.schema_arrow.field(column).type
            if not pa.types.is_integer(kind):
                raise ValleysError(
                    f"{path}: the label column {column!r} has the type {kind}; it must hold integers"
                )
            values = file.read(columns=[column]).column(column)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    if values.null_count:
        row = values.is_null().to_numpy().argmax()
        raise ValleysError(
            f"{path}, row {row}: the label in column {column!r} is missing; it must be an integer"
        )
    return values.to_numpy().astype(np.int64)


def _parquet_bytes(path: Path, column: str, rows: np.ndarray) -> Iterator[tuple[bytes, str]]:
    """Yield the encoded images of a file's ascending ``rows``, each with its name in messages.

    Only the image column is read, a batch of rows at a time, and only row groups that hold a chosen row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def is_binary(kind: pa.DataType) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    try:
        with pq.ParquetFile(path) as file:
            kind = file.schema_arrow.field(column).type
            nested = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
            if not is_binary(kind.field("bytes").type if nested else kind):
                raise ValleysError(
                    f"{path}: the image column {column!r} has the type {kind}; "
                    f"it must hold encoded images: binary, or struct<bytes: binary, path: string>"
                )
            low = 0
            for group in range(file.num_row_groups):
                high = low + file.metadata.row_group(group).num_rows
                wanted = rows[(rows >= low) & (rows < high)]
                if len(wanted):
                    for batch in file.iter_batches(_PARQUET_BATCH, row_groups=[group], columns=[column]):
                        here = wanted[(wanted >= low) & (wanted < low + batch.num_rows)]
                        values = batch.column(0).take(pa.array(here - low))
                        for row, value in zip(here, values.to_pylist(), strict=True):
                            value = value.get("bytes") if nested and value is not None else value
                            where = f"{path}, row {row}"
                            if value is None:
                                raise ValleysError(
                                    f"{where}: column {column!r} holds no image bytes; the image itself "
                                    f"must be in the file, not only its path"
                                )
                            yield value, where
                        low += batch.num_rows
                low = high
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _parquet_part(spec: Mapping[str, Any], part: str) -> _Original:
    """Find one part's files and columns and read its labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    require("pyarrow")
    columns, labels = [], []
    paths = _paths(spec[part], part)
    for path in paths:
        try:
            names = pq.read_schema(path).names
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error
        columns.append(_column(names, "image_column", spec["image_column"], _IMAGE_COLUMNS, path))
        label_column = _column(names, "label_column", spec["label_column"], _LABEL_COLUMNS, path)
        _check_parquet(path, (columns[-1], label_column), spec["max_bytes"])
        labels.append(_parquet_labels(path, label_column))
    starts = np.cumsum([0, *(len(values) for values in labels)])

    def encoded(rows: np.ndarray) -> Iterator[tuple[bytes, str]]:
        for path, column, low, high in zip(paths, columns, starts[:-1], starts[1:], strict=True):
            here = rows[(rows >= low) & (rows < high)] - low
            if len(here):
                yield from _parquet_bytes(path, column, here)

    def take(rows: np.ndarray) -> Iterator[np.ndarray]:
        return _decoded(encoded(rows), len(rows), f"parquet {part}", spec)

    def where(row: int) -> str:
        file = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{paths[file]}, row {row - starts[file]}"

    return _Original(np.concatenate(labels), take, where)


# --- numpy ------------------------------------------------------------------------------------------------


def _numpy(spec: Mapping[str, Any]) -> tuple[_Original, _Original]:
    """Read npz files."""
    train, test = (_npz(files.expand(spec[part]), part, spec["max_bytes"]) for part in ("train", "test"))
    return train, test


def _npz(path: Path, part: str, max_bytes: float) -> _Original:
    """Read one npz file's images and labels, once their headers have the right types, shapes and sizes."""
    files.check_regular(path, f"the {part} file", "give an npz file with images and labels")
    found = {}
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValleysError(
                    f"{path} is not an npz archive; save it with numpy.savez(images=, labels=)"
                )
            missing = [key for key in ("images", "labels") if key not in file]
            if missing:
                raise ValleysError(
                    f"{path} lacks the array {missing[0]!r}; it has: {', '.join(file.files) or 'nothing'}"
                )
            members = {key: _member(file, key) for key in ("images", "labels")}
            # By the archive's directory first, as a header can be a bomb too.
            size = float(sum(member.file_size for member in members.values()))
            if size <= max_bytes:
                declared = {key: _npy_header(file, member) for key, member in members.items()}
                _check_arrays(str(path), *declared["images"], *declared["labels"])
                sizes = {k: math.prod(shape) * dtype.itemsize for k, (dtype, shape) in declared.items()}
                size = sum(sizes.values())
            if size > max_bytes:
                raise _too_large(path, size, max_bytes)
            for key, member in members.items():
                if sizes[key] > member.file_size:
                    raise ValleysError(
                        f"{path}: {key} are {sizes[key]:,} bytes by their header, and {member.file_size:,} "
                        "are in the file; write it again"
                    )
            found = {key: file[key] for key in ("images", "labels")}
    except ValleysError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many types on damaged input
        raise ValleysError(
            f"{path} cannot be read as an npz file: truncated, damaged or pickled ({_line(error)}); "
            f"write it again"
        ) from error
    return _from_array(_channels_first(found["images"]), found["labels"], str(path))


def _member(file: np.lib.npyio.NpzFile, key: str) -> zipfile.ZipInfo:
    """Return an archive's entry of an array."""
    return file.zip.getinfo(f"{key}.npy" if f"{key}.npy" in file.zip.namelist() else key)


def _npy_header(file: np.lib.npyio.NpzFile, member: zipfile.ZipInfo) -> tuple[np.dtype, tuple[int, ...]]:
    """Return dtype and shape that an array of an archive declares; its values are not read."""
    with file.zip.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(stream)
    return dtype, shape


def _check_arrays(
    where: str,
    images: np.dtype,
    images_shape: tuple[int, ...],
    labels: np.dtype,
    labels_shape: tuple[int, ...],
    layout: str = "HWC",
) -> None:
    """Raise unless dtypes and shapes are those of images (channels last, or first: ``CHW``) and labels."""
    wanted = f"(N, H, W) or (N, {', '.join(layout)})"
    if images != np.uint8 or len(images_shape) not in (3, 4) or 0 in images_shape[1:]:
        hint = ""
        if images.kind == "f":
            hint = " (values from 0 to 1 times 255, rounded)"
        elif images.hasobject:
            hint = ", not pickled objects"
        raise ValleysError(
            f"{where}: images are {images} of shape {images_shape}; they must be uint8{hint}, {wanted}"
        )
    if len(images_shape) == 4:
        channels, other = images_shape[3], images_shape[1]
        if layout == "CHW":
            channels, other = other, channels
        if channels > 4 and other <= 4:
            place = "last" if layout == "HWC" else "first"
            raise ValleysError(
                f"{where}: images have the shape {images_shape}; channels must come {place}, "
                f"(N, {', '.join(layout)})"
            )
    if labels.kind not in "iu" or len(labels_shape) != 1:
        raise ValleysError(
            f"{where}: labels are {labels} of shape {labels_shape}; they must be integers of shape (N,)"
        )


def _channels_first(images: np.ndarray) -> np.ndarray:
    """Return images (N, H, W) or (N, H, W, C) as (N, C, H, W)."""
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


# --- callables --------------------------------------------------------------------------------------------


def _callable(spec: Mapping[str, Any]) -> tuple[_Original, _Original]:
    """Call a user's own function and check what it returns."""
    factory, wanted = spec["factory"], "it must return (train images, labels), (test images, labels)"
    parts = factories.call(factory, factories.resolve(factory), spec["kwargs"])
    try:
        (train, test) = ((images, labels) for images, labels in parts)
    except (TypeError, ValueError) as error:
        raise ValleysError(
            f"factory {factory!r} returns {type(parts).__name__} that is no pair of pairs; {wanted}"
        ) from error
    return _returned(*train, f"factory {factory!r}, train"), _returned(*test, f"factory {factory!r}, test")


def _returned(images: Any, labels: Any, where: str) -> _Original:
    """Check one part's images and labels, arrays or tensors, and wrap them."""
    arrays = []
    for name, value in (("images", images), ("labels", labels)):
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
            value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        elif not isinstance(value, np.ndarray) and not (name == "labels" and isinstance(value, list | tuple)):
            raise ValleysError(
                f"{where}: {name} are a {type(value).__name__}; they must be a numpy array or a torch tensor"
            )
        arrays.append(np.asarray(value))
    layout = "CHW" if isinstance(images, torch.Tensor) else "HWC"
    pixels, numbers = arrays
    _check_arrays(where, pixels.dtype, pixels.shape, numbers.dtype, numbers.shape, layout)
    if layout == "CHW":
        return _from_array(pixels[:, None] if pixels.ndim == 3 else pixels, numbers, where)
    return _from_array(_channels_first(pixels), numbers, where)


# --- all of them ------------------------------------------------------------------------------------------

_LOADERS: dict[str, Callable[[Mapping[str, Any]], tuple[_Original, _Original]]] = {
    "digits": _digits,
    "cifar10": _torchvision,
    "cifar100": _torchvision,
    "svhn": _torchvision,
    "stl10": _torchvision,
    "fashion_mnist": _torchvision,
    "image_folder": _image_folder,
    "parquet": _parquet,
    "numpy": _numpy,
    "callable": _callable,
}

SOURCES: dict[str, str] = {name: source.description for name, source in DATASET_OPTIONS.items()}
"""Every source by name, with a line about it; the options are in ``dataset_options.DATASET_OPTIONS``."""


def _check_labels(original: _Original, part: str, classes: int | None) -> int:
    """Check one part's labels and return the number of classes."""
    labels = original.labels
    if not len(labels):
        raise ValleysError(f"the {part} part of the data set has no images; at least one is needed")
    known = int(labels.max()) + 1 if classes is None else classes
    outside = (labels < 0) | (labels >= known)
    if outside.any():
        row = int(outside.argmax())
        wanted = "0 or more" if classes is None else f"in 0..{known - 1}, there being {known} classes"
        raise ValleysError(f"{original.where(row)}: the label is {labels[row]}; it must be {wanted}")
    if part == "train" and classes is None and known > len(labels):
        row = int(labels.argmax())
        raise ValleysError(
            f"{original.where(row)}: the label is {labels[row]}, which makes {known} classes for "
            f"{len(labels)} images; labels must number the classes from 0 (or set 'classes')"
        )
    return known


@dataclass(frozen=True)
class _Chosen:
    """The images of one part that are kept: labels, shape (N, C, H, W), and the images a few at a time."""

    labels: torch.Tensor
    shape: tuple[int, ...]
    chunks: Iterator[torch.Tensor]


def _choose(
    spec: Mapping[str, Any], name: str | None, max_bytes: float, workers: int
) -> tuple[_Chosen, _Chosen, int, tuple[Sequence[float] | None, Sequence[float] | None]]:
    """Return the two parts, the number of classes, and mean and std where the entry gives them."""
    if name is None:
        name = str(spec.get("source", "?")) if isinstance(spec, Mapping) else "?"
    spec = validate_dataset(name, spec)
    asked = {**spec, "max_bytes": max_bytes, "workers": workers}
    originals = dict(zip(("train", "test"), _LOADERS[spec["source"]](asked), strict=True))
    classes = _check_labels(originals["train"], "train", spec["classes"])
    if classes < 2:
        raise ValleysError(
            f"every training label of the source {spec['source']!r} is 0; "
            f"a classifier needs two classes or more"
        )
    _check_labels(originals["test"], "test", classes)

    chosen = {}
    for part, original in originals.items():
        rows = subset_indices(len(original.labels), spec[f"max_{part}"], spec["subset_seed"]).numpy()
        chunks = (torch.from_numpy(np.ascontiguousarray(images)) for images in original.take(rows))
        first = next(chunks)  # for the shape
        labels, shape = torch.from_numpy(original.labels[rows]), (len(rows), *first.shape[1:])
        chosen[part] = _Chosen(labels, shape, itertools.chain([first], chunks))
        logger.info("%s %s: %d images of shape %s", spec["source"], part, len(rows), shape[1:])
    train, test = chosen["train"], chosen["test"]
    if train.shape[1:] != test.shape[1:]:
        raise ValleysError(
            f"training images of the source {spec['source']!r} have the shape {train.shape[1:]} (C, H, W) "
            f"but test images {test.shape[1:]}; they must be the same"
        )
    seen = len(train.labels.unique())
    if seen < classes:
        logger.warning("the training images kept show %d of the %d classes", seen, classes)
    return train, test, classes, tuple(_given(name, spec, key, train.shape[1]) for key in ("mean", "std"))


def load_source(
    spec: Mapping[str, Any], name: str | None = None, max_bytes: float = math.inf
) -> tuple[Split, Split]:
    """Read the data set that ``spec`` describes into memory.

    Parameters
    ----------
    spec
        An entry of the configuration, as ``validate_dataset`` takes or returns it; it is validated here.
    name
        The data set's name in the configuration, for messages; by default the source's name.
    max_bytes
        Of the arrays in one npz file: more is refused by what its headers declare, before they are read.

    Returns
    -------
    train, test : Split
        On the CPU. Both carry the mean and std of the training images kept, or those given, and the same
        ``classes``.

    Raises
    ------
    ValleysError
        When the entry is wrong, or the files are absent, damaged or of the wrong kind.
    """
    *parts, classes, given = _choose(spec, name, max_bytes, workers=1)
    images = []
    for part in parts:
        images.append(torch.empty(part.shape, dtype=torch.uint8))
        done = 0
        for chunk in part.chunks:
            images[-1][done : done + len(chunk)] = chunk
            done += len(chunk)
    mean, std = (
        found if value is None else value
        for found, value in zip(channel_statistics(images[0]), given, strict=True)
    )
    train, test = (Split(x, part.labels, classes, mean, std) for x, part in zip(images, parts, strict=True))
    return train, test


def write_source(
    spec: Mapping[str, Any],
    name: str,
    paths: Sequence[str | Path],
    max_bytes: float = math.inf,
    workers: int = 1,
) -> None:
    """Read the data set that ``spec`` describes and write its two splits; the images are never all in memory.

    The files are, to the byte, what ``save_split`` makes of the splits of `load_source`.

    Parameters
    ----------
    spec, name, max_bytes
        As `load_source`.
    paths
        Files of the train and the test split (``data.write_split``).
    workers
        Threads that decode, for sources of encoded images.

    Raises
    ------
    ValleysError
        As `load_source`, or when a file cannot be written.
    """
    train, test, classes, given = _choose(spec, name, max_bytes, workers)
    for path, part in zip(paths, (train, test), strict=True):
        given = write_split(path, part.labels, part.chunks, part.shape, classes, given)
        n, *shape = part.shape
        logger.info("%s: %d images of shape %s, %d classes", path, n, tuple(shape), classes)


def _given(name: str, spec: Mapping[str, Any], key: str, channels: int) -> tuple[float, ...] | None:
    """Return the channel statistics that an entry gives in place of those found, if it does."""
    values = spec.get(key)
    if values is None:
        return None
    check_channels(name, key, values, channels)
    return tuple(float(value) for value in values)
