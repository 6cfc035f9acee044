"""Data sets of torchvision, from small files in their formats."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from source_images import chw, fails, pictures
from valleys.data.sources.load import load_source
from valleys.torchvision_compat import import_torchvision

CIFAR10 = Path(__file__).resolve().parents[4] / "shared" / "data" / "cifar10"


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
