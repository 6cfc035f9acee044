"""Parquet files of encoded images: layouts, subsets, and what is wrong with them by row."""

import builtins
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from source_images import chw, fails, pictures, png
from valleys.data.cache import load_split, save_split
from valleys.data.sources.load import load_source
from valleys.data.split import subset_indices

CIFAR10 = Path(__file__).resolve().parents[4] / "shared" / "data" / "cifar10"


def table(images, labels, layout="struct", image_column="img", label_column="label"):
    """Return a table in the Hugging Face layout, or with a plain binary column."""
    encoded = [image if image is None or isinstance(image, bytes) else png(image) for image in images]
    if layout == "struct":
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        column = pa.array([{"bytes": item, "path": f"{i}.png"} for i, item in enumerate(encoded)], kind)
    else:
        column = pa.array(encoded, layout)
    labels = labels if isinstance(labels, pa.Array) else pa.array(np.asarray(labels))
    return pa.table({"id": pa.array(range(len(encoded))), image_column: column, label_column: labels})


def save_parquet(folder, train=None, test=None, **options):
    """Write train.parquet and test.parquet and return the options that read them."""
    default = table(pictures(6), [0, 1, 2, 0, 1, 2])
    pq.write_table(default if train is None else train, folder / "train.parquet", **options)
    pq.write_table(default if test is None else test, folder / "test.parquet", **options)
    return {"source": "parquet", "train": str(folder / "train.parquet"), "test": str(folder / "test.parquet")}


@pytest.mark.parametrize(
    ("layout", "image_column", "label_column"),
    [
        ("struct", "img", "label"),
        ("struct", "image", "fine_label"),
        (pa.binary(), "image", "labels"),
        (pa.large_binary(), "img", "label"),
    ],
)
def test_parquet(tmp_path, layout, image_column, label_column):
    images, labels = pictures(6), np.array([0, 1, 2, 0, 3, 2], dtype=np.int32)
    data = table(images, labels, layout, image_column, label_column)
    train, test = load_source(save_parquet(tmp_path, train=data))
    assert torch.equal(train.images, chw(images))
    assert train.labels.tolist() == labels.tolist()
    assert (train.classes, len(test)) == (4, 6)


def test_parquet_named_columns_and_grey(tmp_path):
    images = pictures(6, channels=1)
    data = table(images, [0, 1, 2, 0, 1, 2], image_column="picture", label_column="breed")
    spec = save_parquet(tmp_path, data, data) | {"image_column": "picture", "label_column": "breed"}
    train, _ = load_source({**spec, "grayscale": True})
    assert torch.equal(train.images[:, 0], torch.from_numpy(images))
    assert load_source(spec)[0].in_shape == (3, 5, 4)
    assert load_source({**spec, "size": 3})[0].in_shape == (3, 3, 3)


@pytest.mark.parametrize("row_group_size", [1, 7, 100])
def test_parquet_subset_over_files_and_row_groups(tmp_path, monkeypatch, row_group_size):
    monkeypatch.setattr("valleys.data.sources.parquet._PARQUET_BATCH", 3)
    images, labels = pictures(40), np.arange(40) % 5
    parts = [slice(0, 11), slice(11, 12), slice(12, 40)]
    for i, part in enumerate(parts):
        pq.write_table(
            table(images[part], labels[part]), tmp_path / f"part-{i}.parquet", row_group_size=row_group_size
        )
    spec = {
        "source": "parquet",
        "train": str(tmp_path / "part-*.parquet"),
        "test": str(tmp_path / "part-0.parquet"),
    }
    train, _ = load_source(spec)
    assert torch.equal(train.images, chw(images))
    assert train.labels.tolist() == labels.tolist()
    listed, _ = load_source({**spec, "train": [str(tmp_path / f"part-{i}.parquet") for i in (2, 0)]})
    assert torch.equal(listed.images, chw(np.concatenate((images[12:], images[:11]))))
    small, _ = load_source({**spec, "max_train": 9, "subset_seed": 2})
    rows = subset_indices(40, 9, 2)
    assert torch.equal(small.images, chw(images)[rows])
    assert small.labels.tolist() == labels[rows].tolist()


def test_parquet_subset_decodes_only_the_subset(tmp_path):
    rows = subset_indices(20, 3, 0).tolist()
    images = [image if i in rows else b"broken" for i, image in enumerate(pictures(20))]
    spec = save_parquet(tmp_path, train=table(images, np.arange(20) % 3))
    assert len(load_source({**spec, "max_train": 3})[0]) == 3
    fails(spec, "train.parquet, row", "cannot be decoded")


INTS = [0, 1, 2, 0, 1, 2]


def sized(row, height, width):
    images = list(pictures(6))
    images[row] = pictures(1, height, width)[0]
    return images


def replaced(row, value):
    images = list(pictures(6))
    images[row] = value
    return images


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (lambda: table(replaced(3, b"junk"), INTS), ["train.parquet, row 3", "cannot be decoded"]),
        (lambda: table(replaced(3, b""), INTS), ["train.parquet, row 3", "cannot be decoded"]),
        (
            lambda: table(replaced(3, png(pictures(1)[0])[:-30]), INTS),
            ["train.parquet, row 3", "cannot be decoded"],
        ),
        (lambda: table(replaced(3, None), INTS), ["train.parquet, row 3", "no image bytes"]),
        (lambda: table(replaced(3, None), INTS, pa.binary()), ["train.parquet, row 3", "no image bytes"]),
        (lambda: table(sized(4, 6, 7), INTS), ["train.parquet, row 4", "7x6", "row 0 is 4x5", "'size'"]),
        (lambda: table(pictures(6), [0, 1, -1, 0, 1, 2]), ["train.parquet, row 2", "the label is -1"]),
        (lambda: table(pictures(6), [0.0, 1, 2, 0, 1, 2]), ["train.parquet", "type double", "integers"]),
        (lambda: table(pictures(6), pa.array(list("abcdef"))), ["type string", "integers"]),
        (lambda: table(pictures(6), pa.array([0, 1, None, 0, 1, 2])), ["row 2", "missing"]),
        (lambda: table(pictures(6), INTS, image_column="photo"), ["'img' or 'image'", "id, photo, label"]),
        (
            lambda: table(pictures(6), INTS, label_column="breed"),
            ["'label' or", "id, img, breed", "label_column"],
        ),
        (lambda: table(pictures(6), INTS).slice(0, 0), ["no images"]),
        (lambda: pa.table({"img": INTS, "label": INTS}), ["type int64", "struct<bytes"]),
    ],
)
def test_parquet_contents(tmp_path, train, words):
    fails(save_parquet(tmp_path, train=train()), *words)


def test_parquet_row_is_counted_within_its_file(tmp_path):
    for i, images in enumerate((pictures(6), replaced(2, b"junk"))):
        pq.write_table(table(images, INTS if i == 0 else [0, 1, 2, 9, 1, 2]), tmp_path / f"{i}.parquet")
    spec = {"source": "parquet", "train": str(tmp_path / "?.parquet"), "test": str(tmp_path / "0.parquet")}
    fails(spec, tmp_path / "1.parquet", "row 2", "cannot be decoded")
    fails({**spec, "classes": 5}, tmp_path / "1.parquet", "row 3", "the label is 9", "0..4")


def test_parquet_named_column_is_missing(tmp_path):
    spec = save_parquet(tmp_path)
    fails({**spec, "image_column": "image"}, "no column 'image'", "id, img, label", "image_column")
    fails({**spec, "label_column": "y"}, "no column 'y'", "label_column")


def test_parquet_files(tmp_path):
    spec = save_parquet(tmp_path)
    path = tmp_path / "train.parquet"
    whole = path.read_bytes()
    for damaged in (whole[:-100], whole[:50], b"", b"text" * 100, b"\0" * 200 + whole[200:]):
        path.write_bytes(damaged)
        fails(spec, path, "parquet")
    path.unlink()
    fails(spec, path, "does not exist")
    fails({**spec, "train": str(tmp_path)}, tmp_path, "is a folder")
    fails({**spec, "train": str(tmp_path / "x*.parquet")}, "x*.parquet", "matches no file")


def test_without_pyarrow(tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name.split(".")[0] in ("pyarrow", "sklearn"):
            raise ImportError(name)
        return real(name, *rest)

    spec = save_parquet(tmp_path)
    monkeypatch.setattr(builtins, "__import__", missing)
    fails(spec, "needs pyarrow", "pip install pyarrow")
    fails({"source": "digits"}, "needs scikit-learn")


@pytest.mark.skipif(not CIFAR10.is_dir(), reason=f"no real CIFAR-10 at {CIFAR10}")
def test_real_cifar10(tmp_path):
    spec = {
        "source": "parquet",
        "train": str(CIFAR10 / "train.parquet"),
        "test": str(CIFAR10 / "test.parquet"),
        "max_train": 2000,
        "max_test": 300,
    }
    train, test = load_source(spec)
    assert (len(train), len(test), train.in_shape, train.classes) == (2000, 300, (3, 32, 32), 10)
    counts = torch.bincount(train.labels)
    assert len(counts) == 10
    assert counts.min() > 130
    assert counts.max() < 270
    # The published statistics of CIFAR-10.
    assert train.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.01)
    assert train.std == pytest.approx((0.247, 0.243, 0.262), abs=0.01)
    save_split(tmp_path / "train.safetensors", train)
    assert torch.equal(load_split(tmp_path / "train.safetensors").images, train.images)
