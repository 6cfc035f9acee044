"""Data of other tasks than images with classes: read, kept, cut, and what is wrong with them."""

import sys

import numpy as np
import pytest
import torch
from source_images import fails, pictures
from valleys.data.by_seed import splits_of, write_seed
from valleys.data.cache import load_split, save_split
from valleys.data.options import validate_dataset
from valleys.data.sources.load import load_source, write_source
from valleys.data.split import Split, Tally, channel_statistics
from valleys.errors import ValleysError

RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 7, (30, 5))
MASKS = np.where(pictures(20)[..., 0] > 99, 255, 1)
ZEROS = np.zeros((3, 4), int)
NUMBERS = RNG.normal(3.0, 2.0, (1500, 3, 4)).astype(np.float32)


def save(folder, **arrays):
    """Write the same arrays as train.npz and test.npz; return the options that read them."""
    for part in ("train", "test"):
        np.savez(folder / f"{part}.npz", **arrays)
    return {"source": "numpy", "train": str(folder / "train.npz"), "test": str(folder / "test.npz")}


CASES = {
    "regression": {"inputs": NUMBERS, "labels": RNG.normal(size=(1500, 2))},
    "regression of images": {"images": pictures(40), "labels": np.arange(40.0)},
    "tokens": {"inputs": TOKENS},
    "tokens with padding": {
        "inputs": RNG.integers(0, 7, (30, 5)),
        "labels": np.where(np.eye(30, 5), -100, 3),
    },
    "segmentation": {"images": pictures(20), "labels": MASKS},
    "segmentation of numbers": {"inputs": NUMBERS[:30, :, None], "labels": np.zeros((30, 1, 4), int)},
    "classification of numbers": {"inputs": NUMBERS, "labels": np.arange(1500) % 3},
}


def of(case):
    return {"task": case.split()[0]}


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_is_what_is_read(tmp_path, case):
    """Through the files of the workflow and in memory: the same numbers, and the same bytes."""
    spec = save(tmp_path, **CASES[case]) | of(case)
    splits = load_source(spec)
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    write_source(spec, "x", paths)
    for path, split in zip(paths, splits, strict=True):
        again = load_split(path)
        assert torch.equal(again.images, split.images)
        assert torch.equal(again.labels, split.labels)
        assert (again.kind, again.mean, again.std) == (split.kind, split.mean, split.std)
        save_split(tmp_path / "again", split)
        assert (tmp_path / "again").read_bytes() == path.read_bytes()
        assert load_split(path, resident_mb=0).labels.shape == split.labels.shape
    given = CASES[case]
    labels = given.get("labels", given.get("inputs"))
    assert splits[0].labels.flatten().tolist() == pytest.approx(labels.flatten().tolist())


@pytest.mark.parametrize("case", CASES)
def test_each_seed_cuts_anew(tmp_path, case):
    spec = validate_dataset("x", save(tmp_path, **CASES[case]) | of(case) | {"split": "by_seed"})
    whole = load_source({**spec, "split": "fixed"})
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    write_seed(whole, spec, 3, paths)
    for path, split in zip(paths, splits_of(whole, spec, 3), strict=True):
        again = load_split(path)
        assert torch.equal(again.images, split.images)
        assert (again.kind, again.mean, again.std) == (split.kind, split.mean, split.std)

    def of_each(splits):
        """What the labels of each example add up to, sorted."""
        sums = [split.labels.float().view(len(split), -1).sum(1) for split in splits]
        return torch.cat(sums).sort().values.tolist()

    assert of_each(map(load_split, paths)) == pytest.approx(of_each(whole))


def test_statistics_are_those_of_all_numbers_in_whatever_pieces():
    images = torch.from_numpy(NUMBERS)
    mean, std = channel_statistics(images)
    double = images.double()
    assert mean == pytest.approx(double.mean((0, 2)).tolist(), rel=1e-12)
    assert std == pytest.approx(double.std((0, 2), unbiased=False).tolist(), rel=1e-12)
    for size in (7, 64, 1024, 1500):
        tally = Tally()
        for piece in images.split(size):
            tally.add(piece)
        assert tally.statistics() == (mean, std)
    assert channel_statistics(torch.full((9, 2), 0.1))[1] == (1.0, 1.0)  # as a constant pixel has


@pytest.mark.parametrize(
    ("task", "arrays", "words"),
    [
        ("tokens", {"inputs": np.zeros((3, 4))}, ["float64", "integers (N, T)"]),
        ("tokens", {"inputs": np.zeros((3, 4, 2), int)}, ["(3, 4, 2)", "integers (N, T)"]),
        ("tokens", {"inputs": np.full((3, 4), -1)}, ["row 0: the token is -1", "0 or more"]),
        ("tokens", {"inputs": ZEROS, "labels": np.zeros((3, 3), int)}, ["shape (3, 4)"]),
        (
            "tokens",
            {"inputs": ZEROS, "labels": np.full((3, 4), -100)},
            ["no label"],
        ),
        ("tokens", {"inputs": ZEROS, "labels": np.full((3, 4), -7)}, ["-7", "or -100 where"]),
        ("segmentation", {"images": pictures(3)}, ["lacks the array 'labels'"]),
        ("segmentation", {"images": pictures(3), "labels": np.zeros((3, 4, 5), int)}, ["shape (3, 5, 4)"]),
        ("segmentation", {"inputs": NUMBERS[:3], "labels": ZEROS}, ["(N, C, H, W)"]),
        ("regression", {"inputs": NUMBERS[:3], "labels": [1.0, np.nan, 2.0]}, ["row 1: the label is nan"]),
        ("regression", {"inputs": NUMBERS[:3], "labels": np.zeros((3, 2, 2))}, ["(N,) or (N, K)"]),
        ("regression", {"inputs": NUMBERS[:3], "labels": [1.0, 2.0]}, ["3 inputs but 2 labels"]),
        ("regression", {"inputs": NUMBERS[:3] * np.inf, "labels": np.zeros(3)}, ["the input is", "finite"]),
        ("regression", {"inputs": np.array(["a"]), "labels": np.zeros(1)}, ["must be numbers"]),
        (
            "regression",
            {"inputs": np.zeros((3, 8, 8, 3)), "labels": np.zeros(3)},
            ["channels must come"],
        ),
        (
            "regression",
            {"inputs": NUMBERS, "images": pictures(3), "labels": np.zeros(3)},
            ["keep one of them"],
        ),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, task, arrays, words):
    fails(save(tmp_path, **arrays) | {"task": task}, *words)


def test_a_test_label_or_token_that_train_does_not_know(tmp_path):
    spec = save(tmp_path, inputs=ZEROS) | {"task": "tokens", "classes": 2}
    np.savez(tmp_path / "test.npz", inputs=np.full((3, 4), 5))
    fails(spec, "label is 5", "0..1")
    assert (
        load_source(spec | {"classes": None})[0].classes == 6
    )  # there is a vocabulary before there are data
    spec = save(tmp_path, images=pictures(3), labels=np.zeros((3, 5, 4), int)) | {"task": "segmentation"}
    np.savez(tmp_path / "test.npz", images=pictures(3), labels=np.ones((3, 5, 4), int))
    fails(spec, "test.npz", "label is 1", "0..0")


LOADERS = """
import torch
from torch.utils.data import DataLoader, TensorDataset

def pairs(n=10):
    x = torch.arange(n * 6.0).view(n, 6)
    return [DataLoader(TensorDataset(x, x.sum(1)), batch_size=4)] * 2

def texts():
    return [DataLoader(torch.arange(20).view(5, 4) % 3, batch_size=2)] * 2

def dicts():
    return [iter([{"x": torch.zeros(2)}])] * 2

def ragged():
    return [iter([(torch.zeros(2, n), torch.zeros(2)) for n in (3, 4)])] * 2

def empty():
    return [iter([]), iter([])]
"""


@pytest.fixture
def loaders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "loaders_under_test.py").write_text(LOADERS)
    yield lambda name, task: {"source": "callable", "factory": f"loaders_under_test:{name}", "task": task}
    sys.modules.pop("loaders_under_test", None)


def test_a_factory_may_return_loaders(loaders):
    train, test = load_source(loaders("pairs", "regression"))
    assert train.images.flatten().tolist() == list(range(60))
    assert train.labels[1].item() == sum(range(6, 12))
    assert len(test) == 10
    train, _ = load_source(loaders("texts", "tokens"))
    assert torch.equal(train.images, torch.arange(20).view(5, 4) % 3)
    assert torch.equal(train.labels, train.images)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dicts", ["train: batch 0 is a dict of x", "pair (inputs, labels)"]),
        ("ragged", ["batches are not alike"]),
        ("empty", ["yields no batches"]),
    ],
)
def test_loaders_that_are_none(loaders, name, words):
    fails(loaders(name, "regression"), *words)


def test_splits_know_their_task():
    tokens = torch.zeros(3, 4).long()
    Split(tokens, tokens, 2, (), (), "tokens")
    for change in (
        (tokens, tokens[:, :3], 2, (), (), "tokens"),
        (tokens, tokens, 2, (0.0,), (1.0,), "tokens"),
        (tokens.float(), tokens, 2, (), (), "tokens"),
        (tokens.float(), tokens[:, 0], 2, (0.0,) * 4, (1.0,) * 4, "regression"),
        (torch.zeros(3, 1, 2, 2), torch.zeros(3, 2, 1).long(), 2, (0.0,), (1.0,), "segmentation"),
    ):
        with pytest.raises(ValueError, match=r"must be|channels"):
            Split(*change)


def test_a_damaged_label_is_found(tmp_path):
    labels = torch.tensor([[0.0], [float("nan")]])
    split = Split(torch.zeros(2, 3), labels, 1, (0.0,) * 3, (1.0,) * 3, "regression")
    with pytest.raises(ValleysError, match="label of image 1 is nan; labels must be finite numbers"):
        save_split(tmp_path / "x", split)
