"""What all sources share: checks of labels, subsets, statistics, and writing without holding."""

import hashlib
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from source_images import fails, pictures, save_npz
from valleys.data import cache
from valleys.data.cache import _write, save_split
from valleys.data.options import validate_dataset
from valleys.data.sources import decoding
from valleys.data.sources.load import load_source, write_source
from valleys.errors import ValleysError

LABELS = np.array([0, 1, 2])


def test_load_source_validates():
    fails({"source": "digits", "trainsize": 3}, "datasets.digits", "did you mean 'train_size'")
    fails("digits", "mapping")
    with pytest.raises(ValleysError, match="datasets\\.mine"):
        load_source({"source": "digits", "trainsize": 3}, "mine")


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


def test_statistics_of_pixels_are_on_the_scale_of_0_to_1(tmp_path):
    caffe, scaled = [123.675, 116.28, 103.53], r"\[0.485, 0.456, 0.406\]"
    with pytest.raises(ValleysError, match=rf"datasets\.x\.mean: .* 255 first; .* {scaled}"):
        validate_dataset("x", {"source": "cifar10", "root": "r", "mean": caffe})
    with pytest.raises(ValleysError, match=r"datasets\.x\.std: \[58\.4\] .* \[0\.229\]"):
        validate_dataset("x", {"source": "digits", "std": [58.4]})
    spec = save_npz(tmp_path)  # known to hold pixels when it is read
    for reading in (load_source, lambda spec: write_source(spec, "x", (tmp_path / "a", tmp_path / "b"))):
        with pytest.raises(ValleysError, match="numbers above 1, but pixels are divided by 255"):
            reading({**spec, "mean": caffe})
    assert not (tmp_path / "a").exists()
    for right in ({"mean": [0], "std": [1]}, {"mean": [0.5], "std": [1 / 255]}):  # as they are, or 0 to 255
        validate_dataset("x", {"source": "digits", **right})


def test_statistics_of_other_numbers_are_of_any_scale(tmp_path):
    inputs = np.arange(12, dtype=np.float32).reshape(6, 2)
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", inputs=inputs, labels=np.arange(6) % 2)
    spec = {"source": "numpy", **{part: str(tmp_path / f"{part}.npz") for part in ("train", "test")}}
    assert load_source({**spec, "mean": [5.0, 6.0], "std": [3.0, 4.0]})[0].mean == (5.0, 6.0)


def test_what_does_not_fit_the_data_is_said_before_they_are_written(tmp_path):
    asked = []

    def refuse(*kind):
        asked.append(kind)
        raise ValleysError("no")

    paths = (tmp_path / "train", tmp_path / "test")
    with pytest.raises(ValleysError, match="no"):
        write_source({"source": "digits"}, "digits", paths, accept=refuse)
    assert asked == [((1, 8, 8), 10, "classification")]
    assert not list(tmp_path.iterdir())


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
