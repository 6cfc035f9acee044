import builtins
import hashlib
import io
import logging
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from valleys.data import cache
from valleys.data.cache import _write, load_split, save_split
from valleys.data.options import DATASET_OPTIONS
from valleys.data.sources import decoding
from valleys.data.sources.load import SOURCES, load_source, write_source
from valleys.data.split import subset_indices
from valleys.errors import ValleysError
from valleys.torchvision_compat import import_torchvision

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workflow" / "scripts"
CIFAR10 = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10"


def fails(spec, *words):
    """Load, expect the error, and check that it is one line with the words."""
    with pytest.raises(ValleysError) as caught:
        load_source(spec)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def pictures(n, height=5, width=4, channels=3, seed=0):
    """Random uint8 images (N, H, W, C), or (N, H, W) for one channel."""
    shape = (n, height, width) if channels == 1 else (n, height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def png(pixels, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels, **options).save(stream, "PNG")
    return stream.getvalue()


def chw(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


# --- options ---


def test_digits_needs_no_torchvision():
    code = (
        "import sys; from valleys.data.sources.load import load_source; load_source({'source': 'digits'}); "
        "print('torchvision' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_every_source_is_listed():
    assert set(SOURCES) == set(DATASET_OPTIONS)
    assert {"digits", "cifar10", "cifar100", "svhn", "stl10", "fashion_mnist"} < set(SOURCES)
    assert {"image_folder", "parquet", "numpy"} < set(SOURCES)
    assert all(SOURCES.values())


def test_load_source_validates():
    fails({"source": "digits", "trainsize": 3}, "datasets.digits", "did you mean 'train_size'")
    fails("digits", "mapping")
    with pytest.raises(ValleysError, match="datasets\\.mine"):
        load_source({"source": "digits", "trainsize": 3}, "mine")


# --- digits ---


def test_statistics_of_ones_own():
    train, test = load_source({"source": "digits", "mean": [0.5], "std": [0.25]})
    assert (train.mean, train.std, test.mean) == ((0.5,), (0.25,), (0.5,))
    found = load_source({"source": "digits", "mean": [0.5]})[0]
    assert found.std == load_source({"source": "digits"})[0].std != (0.25,)
    for spec, words in (
        ({"mean": [0.5, 0.5]}, r"datasets.digits.mean is \[0.5, 0.5\]; it must be 1 numbers, one a channel"),
        ({"std": [0]}, r"datasets.digits.std: \[0\]; .* each at least 1e-06"),
        ({"std": "0.25"}, "a list of numbers"),
        ({"mean": [True]}, "a list of numbers"),
    ):
        with pytest.raises(ValleysError, match=words):
            load_source({"source": "digits", **spec})


def test_digits():
    from sklearn.datasets import load_digits

    train, test = load_source({"source": "digits"})
    assert (len(train), len(test), train.in_shape, train.classes) == (800, 997, (1, 8, 8), 10)
    assert (train.mean, train.std) == (test.mean, test.std)
    scaled = train.images.double() / 255
    assert train.mean[0] == pytest.approx(float(scaled.mean()), rel=1e-12)
    assert train.std[0] == pytest.approx(float(scaled.std(correction=0)), rel=1e-12)
    order = np.random.default_rng(0).permutation(1797)
    original = load_digits()
    together = torch.cat((train.images, test.images))[:, 0]
    expected = [[[round(v * 255 / 16) for v in row] for row in image] for image in original.images[order]]
    assert together.tolist() == expected
    assert torch.cat((train.labels, test.labels)).tolist() == original.target[order].tolist()
    other, _ = load_source({"source": "digits", "split_seed": 1, "train_size": 100})
    assert len(other) == 100
    assert not torch.equal(other.images, train.images[:100])


def test_subsets_of_a_source():
    train, test = load_source({"source": "digits"})
    spec = {"source": "digits", "max_train": 60, "max_test": 40, "subset_seed": 9}
    small, small_test = load_source(spec)
    assert torch.equal(small.images, train.subset(60, 9).images)
    assert torch.equal(small_test.labels, test.subset(40, 9).labels)
    assert small.mean != train.mean  # of the images kept
    assert small_test.mean == small.mean
    assert len(load_source({"source": "digits", "max_train": 10_000})[0]) == 800


def test_progress_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="valleys"):
        load_source({"source": "digits", "max_train": 60})
    assert "digits train: 60 images of shape (1, 8, 8)" in caplog.messages


# --- numpy ---


def save_npz(folder, **parts):
    """Write train.npz and test.npz and return the options that read them."""
    for part in ("train", "test"):
        images, labels = parts.get(part, (pictures(6), np.array([0, 1, 2, 0, 1, 2])))
        np.savez(folder / f"{part}.npz", images=images, labels=labels)
    return {"source": "numpy", "train": str(folder / "train.npz"), "test": str(folder / "test.npz")}


def test_numpy(tmp_path):
    images, labels = pictures(7), np.array([0, 1, 4, 0, 1, 2, 3], dtype=np.uint8)
    train, test = load_source(save_npz(tmp_path, train=(images, labels)))
    assert torch.equal(train.images, chw(images))
    assert train.labels.tolist() == labels.tolist()
    assert train.labels.dtype == torch.int64
    assert (train.classes, test.classes, len(test)) == (5, 5, 6)


def test_numpy_grey(tmp_path):
    images, labels = pictures(3, channels=1), np.array([0, 1, 1])
    train, _ = load_source(save_npz(tmp_path, train=(images, labels), test=(images, labels)))
    assert train.in_shape == (1, 5, 4)
    assert torch.equal(train.images[:, 0], torch.from_numpy(images))


LABELS = np.array([0, 1, 2])


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ((pictures(3).astype(np.float32), LABELS), ["float32", "uint8"]),
        ((pictures(3)[:, 0, 0], LABELS), ["(3, 3)", "(N, H, W)"]),
        ((pictures(3, height=0), LABELS), ["(3, 0, 4, 3)"]),
        ((np.zeros((3, 3, 8, 8), np.uint8), LABELS), ["channels must come last"]),
        ((pictures(3), LABELS.astype(float)), ["float64", "integers"]),
        ((pictures(3), LABELS[:, None]), ["(3, 1)"]),
        ((pictures(3), LABELS[:2]), ["3 images but 2 labels"]),
        ((pictures(3), np.array([0, -1, 2])), ["train.npz, image 1", "the label is -1", "0 or more"]),
        ((pictures(3), np.array([0, 0, 0])), ["two classes"]),
        ((pictures(3), np.array([0, 10**9, 5])), ["image 1", "1000000000", "from 0"]),
        ((pictures(0), LABELS[:0]), ["train", "no images"]),
        ((np.array([{}, {}, {}]), LABELS), ["train.npz", "pickled"]),
    ],
)
def test_numpy_contents(tmp_path, part, words):
    fails(save_npz(tmp_path, train=part), *words)


def test_labels_against_classes(tmp_path):
    spec = save_npz(tmp_path, test=(pictures(3), np.array([0, 2, 3])))
    fails(spec, tmp_path / "test.npz", "image 2", "the label is 3", "0..2", "3 classes")
    train, _ = load_source({**spec, "classes": 7})
    assert train.classes == 7
    fails({**spec, "classes": 2}, tmp_path / "train.npz", "image 2", "the label is 2", "0..1")


def test_labels_are_checked_beyond_the_subset(tmp_path):
    # The number of classes must not depend on which images a subset keeps.
    labels = np.zeros(40, dtype=np.int64)
    labels[37] = 3
    spec = save_npz(tmp_path, train=(pictures(40), labels))
    assert load_source({**spec, "max_train": 5})[0].classes == 4


def test_train_and_test_shapes(tmp_path):
    spec = save_npz(tmp_path, test=(pictures(3, height=9), LABELS))
    fails(spec, "(3, 5, 4)", "(3, 9, 4)", "the same")


def test_numpy_files(tmp_path):
    spec = save_npz(tmp_path)
    path = tmp_path / "test.npz"
    whole = path.read_bytes()
    for damaged in (whole[:100], whole[:-10], b"", b"not a zip"):
        path.write_bytes(damaged)
        fails(spec, path, "npz")
    flipped = bytearray(whole)
    flipped[whole.index(b"\x93NUMPY") + 200] ^= 4
    path.write_bytes(flipped)
    fails(spec, path, "damaged")
    np.savez(path, images=pictures(3), label=LABELS)
    fails(spec, path, "lacks the array 'labels'", "images, label")
    with path.open("wb") as file:
        np.save(file, LABELS)
    fails(spec, path, "not an npz archive")
    path.unlink()
    fails(spec, path, "does not exist")


def test_a_numpy_file_that_unpacks_to_more_than_is_allowed(tmp_path):
    images = np.zeros((4000, 32, 32, 3), np.uint8)  # 12 MB that take 12 kB
    np.savez_compressed(tmp_path / "train.npz", images=images, labels=np.arange(4000) % 3)
    spec = save_npz(tmp_path, test=(pictures(3, height=32), LABELS))
    np.savez_compressed(tmp_path / "train.npz", images=images, labels=np.arange(4000) % 3)
    with pytest.raises(ValleysError, match=r"train.npz declares 0.0123 GB; execution.max_data_gb is 0.01"):
        load_source(spec, max_bytes=10e6)


def test_a_numpy_header_that_declares_more_than_its_file_has(tmp_path, monkeypatch):
    spec = save_npz(tmp_path)
    with zipfile.ZipFile(tmp_path / "train.npz", "w") as archive:
        for name, dtype, shape in (("images", "|u1", (10**9, 64, 64, 3)), ("labels", "<i8", (10**9,))):
            content = io.BytesIO()
            header = {"descr": dtype, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(content, header)
            archive.writestr(f"{name}.npy", content.getvalue())
    monkeypatch.setattr(np.lib.format, "read_array", lambda *a, **k: pytest.fail("was read"))
    with pytest.raises(ValleysError, match=r"train.npz declares 1.23e\+04 GB"):
        load_source(spec, max_bytes=16e9)


# --- callables ---


OWN = """
import numpy as np
import torch

def arrays(n=6, classes=3, dtype="uint8", channels=3, shape=None):
    shape = shape or (n, 5, 4, channels)
    images = (np.arange(int(np.prod(shape))) % 251).astype(dtype).reshape(shape)
    labels = np.arange(n) % classes
    return (images, labels), (images[:3], labels[:3])

def tensors(layout="CHW"):
    return tuple(
        tuple(map(torch.from_numpy, (images if layout == "HWC" else images.transpose(0, 3, 1, 2), labels)))
        for images, labels in arrays(shape=(6, 8, 8, 3))
    )

def grey():
    return tuple((images[..., 0], list(labels)) for images, labels in arrays())

def three():
    return [arrays()[0]] * 3

def none():
    pass

def lists():
    return tuple((images.tolist(), labels) for images, labels in arrays())

def brain(): return tuple((torch.rand(4, 1, 8, 8, dtype=torch.bfloat16), torch.arange(4)) for _ in "ab")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_data_under_test.py").write_text(OWN)

    def spec(name, **kwargs):
        return {"source": "callable", "factory": f"own_data_under_test:{name}", "kwargs": kwargs}

    yield spec
    sys.modules.pop("own_data_under_test", None)


def test_a_callable_returns_arrays_or_tensors(own):
    train, test = load_source(own("arrays", n=9))
    assert (train.in_shape, train.classes, len(train), len(test)) == ((3, 5, 4), 3, 9, 3)
    assert train.images[0, 1].flatten().tolist() == list(range(1, 60, 3)), "channels are not the last axis"
    as_arrays, as_tensors = (load_source(own(*args))[0] for args in (["arrays"], ["tensors"]))
    assert as_tensors.in_shape == (3, 8, 8)
    assert as_tensors.images[0, 1].flatten().tolist() == list(range(1, 192, 3))
    grey, _ = load_source(own("grey"))
    assert torch.equal(grey.images[:, 0], as_arrays.images[:, 0])
    assert torch.equal(grey.labels, as_arrays.labels)
    assert len(load_source({**own("arrays"), "max_train": 4})[0]) == 4


@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        (
            "arrays",
            {"dtype": "float32"},
            ["train", "images are float32", "uint8 (values from 0 to 1 times 255"],
        ),
        ("arrays", {"shape": (6, 3, 8, 8)}, ["channels must come last", "(N, H, W, C)"]),
        ("arrays", {"n": 6, "shape": (5, 5, 4, 3)}, ["5 images but 6 labels"]),
        ("arrays", {"classes": 1}, ["every training label", "two classes"]),
        ("arrays", {"size": 1}, ["called with (size=1)", "TypeError", "'size'"]),
        ("tensors", {"layout": "HWC"}, ["channels must come first", "(N, C, H, W)"]),
        ("three", {}, ["returns list that is no pair of pairs", "(train images, labels), (test images"]),
        ("none", {}, ["returns NoneType that is no pair of pairs"]),
        ("lists", {}, ["images are a list", "numpy array or a torch tensor"]),
        ("brain", {}, ["images are float32"]),
        ("nowhere", {}, ["there is no 'nowhere' in own_data_under_test"]),
    ],
)
def test_what_a_callable_returns_is_checked(own, name, kwargs, words):
    fails(own(name, **kwargs), *words)


# --- image folders ---


@pytest.fixture
def folders(tmp_path):
    """Two classes of PNGs, 5 high and 4 wide, in train and test."""
    images = pictures(8)
    for i, image in enumerate(images):
        folder = tmp_path / ("train" if i < 4 else "test") / ("dog" if i % 2 else "Cat")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    spec = {
        "source": "image_folder",
        "train": str(tmp_path / "train"),
        "test": str(tmp_path / "test"),
        "size": 4,
    }
    return spec, images, tmp_path


def test_image_folder(folders):
    spec, images, _ = folders
    train, test = load_source(spec)
    assert train.labels.tolist() == [0, 0, 1, 1]  # Cat, dog; by file name within
    assert torch.equal(
        train.images, chw(images[[0, 2, 1, 3], :4])
    )  # the shorter side is 4 already: crop only
    assert torch.equal(test.images, chw(images[[4, 6, 5, 7], :4]))
    grey, _ = load_source({**spec, "grayscale": True})
    assert grey.in_shape == (1, 4, 4)
    assert torch.equal(grey.images[0, 0], torch.tensor(np.array(Image.fromarray(images[0]).convert("L")))[:4])


@pytest.mark.parametrize(("height", "width"), [(30, 20), (20, 31), (16, 16), (7, 9), (16, 17), (17, 16)])
def test_resize_is_torchvision_s(tmp_path, height, width):
    transforms = import_torchvision("transforms")
    reference = transforms.Compose([transforms.Resize(16), transforms.CenterCrop(16)])
    image = Image.fromarray(pictures(1, height, width)[0])
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            image.save(tmp_path / part / name / "x.png")
    train, _ = load_source(
        {"source": "image_folder", "train": f"{tmp_path}/train", "test": f"{tmp_path}/test", "size": 16}
    )
    assert torch.equal(train.images[0], chw(np.asarray(reference(image))[None])[0])


def test_image_folder_subset_decodes_only_the_subset(folders):
    spec, _, tmp_path = folders
    rows = subset_indices(4, 1, 0).tolist()
    names = ["Cat/0.png", "Cat/2.png", "dog/1.png", "dog/3.png"]
    for row, name in enumerate(names):
        if row not in rows:
            (tmp_path / "train" / name).write_bytes(b"broken")
    assert len(load_source({**spec, "max_train": 1})[0]) == 1


def test_image_folder_errors(folders):
    spec, _, tmp_path = folders
    bad = tmp_path / "test" / "Cat" / "4.png"
    whole = bad.read_bytes()
    for damaged in (b"", b"text", whole[:60], whole[:-30]):
        bad.write_bytes(damaged)
        fails(spec, bad, "cannot be decoded")
    Image.fromarray(pictures(1, channels=1)[0].astype(np.uint16)).save(bad)
    fails(spec, bad, "8 bits")
    bad.write_bytes(whole)
    load_source(spec)
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "dogs")
    fails(spec, "only in train: dog", "only in test: dogs")
    for file in (tmp_path / "test" / "dogs").iterdir():
        file.unlink()
    fails(spec, tmp_path / "test", "dogs")
    fails({**spec, "train": str(tmp_path / "trian")}, tmp_path / "trian", "does not exist")
    (tmp_path / "empty").mkdir()
    fails({**spec, "train": str(tmp_path / "empty")}, tmp_path / "empty", "class folder")


# --- writing without holding ---


def many(folder, n=150, side=12, classes=3):
    """A synthetic ImageFolder: train and test PNGs and JPEGs of random sizes, all at least `side`."""
    chance = np.random.default_rng(0)
    for part, count in (("train", n), ("test", n // 3)):
        for i in range(count):
            place = folder / part / f"c{i % classes}"
            place.mkdir(parents=True, exist_ok=True)
            height, width = chance.integers(side, 2 * side, 2)
            image = Image.fromarray(pictures(1, height, width)[0])
            image.save(place / f"{i:03}.{'png' if i % 2 else 'jpg'}")
    return {"source": "image_folder", "train": f"{folder}/train", "test": f"{folder}/test", "size": side}


def written(spec, folder, **options):
    folder.mkdir(exist_ok=True)
    paths = [folder / "train.safetensors", folder / "test.safetensors"]
    write_source(spec, "some", paths, **options)
    return [path.read_bytes() for path in paths]


def held(spec, folder):
    folder.mkdir(exist_ok=True)
    for part, split in zip("ab", load_source(spec), strict=True):
        save_split(folder / part, split)
    return [(folder / part).read_bytes() for part in "ab"]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("more", [{}, {"max_train": 70, "max_test": 1, "mean": [0.5, 0.4, 0.3]}])
def test_written_a_few_at_a_time_is_the_same_file(tmp_path, workers, more, monkeypatch):
    spec = many(tmp_path) | more
    wanted = held(spec, tmp_path / "held")
    for chunk in (64, 7):
        monkeypatch.setattr("valleys.data.sources.base._CHUNK", chunk)
        assert written(spec, tmp_path / "out", workers=workers) == wanted


def test_every_source_is_written_as_it_is_read(tmp_path):
    chance = np.random.default_rng(0)
    for part, n in (("train", 90), ("test", 20)):
        np.savez(
            tmp_path / f"{part}.npz",
            images=chance.integers(0, 256, (n, 6, 5, 3), dtype=np.uint8),
            labels=np.arange(n) % 3,
        )
    numpy = {"source": "numpy", "train": f"{tmp_path}/train.npz", "test": f"{tmp_path}/test.npz"}
    digits = {"source": "digits", "max_test": 100, "std": [0.5]}
    for spec in (numpy, numpy | {"max_train": 80}, digits):
        assert written(spec, tmp_path / "out", workers=3) == held(spec, tmp_path / "held")


def test_digits_are_the_file_that_they_have_always_been(tmp_path):
    train, test = (hashlib.sha256(content).hexdigest() for content in written({"source": "digits"}, tmp_path))
    assert train == "704dfb814f66e289339728dee94189a2aa790a51b370c20f89ff91ca26b38be5"
    assert test == "bfb7e3ed8171d587691e359684b884e945aae9af02e85b5f4b2f91254e69f673"


@pytest.mark.parametrize("workers", [1, 3])
def test_few_images_are_in_memory_at_a_time(tmp_path, workers, monkeypatch):
    """Counted when a piece is decoded and when it has been written."""
    monkeypatch.setattr("valleys.data.sources.base._CHUNK", 5)
    ahead, most, decode = [0], [0], decoding._decode
    write = _write

    def counted(*arguments):
        ahead[0] += 1
        most[0] = max(most[0], ahead[0])
        return decode(*arguments)

    def writing(file, content):
        if getattr(content, "ndim", 0) == 4:
            ahead[0] -= len(content)
        write(file, content)

    monkeypatch.setattr(decoding, "_decode", counted)
    monkeypatch.setattr(cache, "_write", writing)
    written(many(tmp_path, n=300), tmp_path / "out", workers=workers)
    assert ahead[0] == 0
    # The other part's first piece is decoded too, for its shape, and with threads those that follow it.
    assert most[0] <= 5 * 2 * (1 if workers == 1 else 2 * workers + 2)


@pytest.mark.parametrize("workers", [1, 4])
def test_the_first_bad_image_is_named_and_nothing_is_left(tmp_path, workers):
    spec = many(tmp_path)
    for name in ("c1/100.jpg", "c2/140.jpg"):
        assert (tmp_path / "train" / name).is_file()
        (tmp_path / "train" / name).write_bytes(b"broken")
    with pytest.raises(ValleysError, match=r"c1/100.jpg cannot be decoded"):
        written(spec, tmp_path / "out", workers=workers)
    assert list((tmp_path / "out").iterdir()) == []


# --- parquet ---


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


# --- torchvision ---


@pytest.mark.parametrize("source", ["cifar10", "cifar100", "svhn", "stl10", "fashion_mnist"])
def test_absent_torchvision_data(tmp_path, source):
    expected = {"cifar10": "cifar-10-batches-py", "svhn": "train_32x32.mat", "fashion_mnist": "idx3"}
    fails(
        {"source": source, "root": str(tmp_path)},
        source,
        tmp_path,
        "download: true",
        expected.get(source, "unpacked"),
    )
    assert not list(tmp_path.iterdir())


def test_failed_download(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError("network is unreachable")

    monkeypatch.setattr(import_torchvision("datasets").CIFAR10, "download", refused)
    spec = {"source": "cifar10", "root": str(tmp_path), "download": True}
    fails(spec, "network is unreachable", tmp_path, "check the network")


@pytest.mark.parametrize("source", ["cifar10", "cifar100"])
def test_cifar(tmp_path, monkeypatch, source):
    datasets = import_torchvision("datasets")
    images = {"train": pictures(10, 32, 32, seed=1), "test": pictures(4, 32, 32, seed=2)}
    labels = {"train": [0, 1, 2, 3, 4, 4, 3, 2, 1, 0], "test": [0, 1, 2, 3]}

    def save(name, **content):
        (folder / name).write_bytes(pickle.dumps(content))

    def rows(part, low, high):
        return images[part][low:high].transpose(0, 3, 1, 2).reshape(high - low, -1)

    if source == "cifar10":
        folder = tmp_path / "cifar-10-batches-py"
        folder.mkdir()
        for i in range(5):
            low, high = 2 * i, 2 * i + 2
            save(f"data_batch_{i + 1}", data=rows("train", low, high), labels=labels["train"][low:high])
        save("test_batch", data=rows("test", 0, 4), labels=labels["test"])
    else:
        folder = tmp_path / "cifar-100-python"
        folder.mkdir()
        save("train", data=rows("train", 0, 10), fine_labels=labels["train"])
        save("test", data=rows("test", 0, 4), fine_labels=labels["test"])
    spec = {"source": source, "root": str(tmp_path)}
    fails(spec, "corrupted", tmp_path)  # torchvision knows the real files' MD5
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda _: True)
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda _: None)
    train, test = load_source(spec)
    assert torch.equal(train.images, chw(images["train"]))
    assert torch.equal(test.images, chw(images["test"]))
    assert (train.labels.tolist(), test.labels.tolist()) == (labels["train"], labels["test"])
    small, _ = load_source({**spec, "max_train": 3})
    assert torch.equal(small.images, train.subset(3, 0).images)


def test_svhn(tmp_path, monkeypatch):
    from scipy.io import savemat

    images = {"train": pictures(5, 32, 32, seed=1), "test": pictures(3, 32, 32, seed=2)}
    labels = {"train": [1, 2, 10, 4, 3], "test": [10, 1, 2]}  # ten stands for zero
    for part in images:
        content = {"X": images[part].transpose(1, 2, 3, 0), "y": np.array(labels[part], np.uint8)[:, None]}
        savemat(tmp_path / f"{part}_32x32.mat", content)
    monkeypatch.setattr(import_torchvision("datasets").SVHN, "_check_integrity", lambda _: True)
    train, test = load_source({"source": "svhn", "root": str(tmp_path)})
    assert torch.equal(train.images, chw(images["train"]))
    assert train.labels.tolist() == [1, 2, 0, 4, 3]
    assert test.labels.tolist() == [0, 1, 2]


def test_stl10(tmp_path, monkeypatch):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    images = {"train": pictures(4, 96, 96, seed=1), "test": pictures(2, 96, 96, seed=2)}
    labels = {"train": [1, 2, 3, 1], "test": [3, 1]}
    for part in images:
        images[part].transpose(0, 3, 2, 1).tofile(folder / f"{part}_X.bin")  # columns first
        np.array(labels[part], np.uint8).tofile(folder / f"{part}_y.bin")
    monkeypatch.setattr(import_torchvision("datasets").STL10, "_check_integrity", lambda _: True)
    train, test = load_source({"source": "stl10", "root": str(tmp_path)})
    assert torch.equal(train.images, chw(images["train"]))
    assert torch.equal(test.images, chw(images["test"]))
    assert train.labels.tolist() == [0, 1, 2, 0]


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    return header + array.tobytes()


def test_fashion_mnist(tmp_path):
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    images = {"train": pictures(5, 28, 28, 1, seed=1), "t10k": pictures(3, 28, 28, 1, seed=2)}
    labels = {"train": np.array([0, 1, 2, 3, 1], np.uint8), "t10k": np.array([3, 0, 1], np.uint8)}
    for part in images:
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images[part]))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels[part]))
    spec = {"source": "fashion_mnist", "root": str(tmp_path)}
    train, test = load_source(spec)
    assert train.in_shape == (1, 28, 28)
    assert torch.equal(train.images[:, 0], torch.from_numpy(images["train"]))
    assert test.labels.tolist() == [3, 0, 1]
    path = folder / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    for keep in (0, 10, 100, len(whole) - 1):  # torchvision itself checks only that the file is there
        path.write_bytes(whole[:keep])
        fails(spec, tmp_path, "fashion_mnist cannot be read")
    path.write_bytes(idx(images["train"][:4]))
    fails(spec, "4 images but 5 labels")
