"""A user's batches: owned, told apart, and the same in every pass."""

import itertools
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from valleys import Evaluator, ValleysError, probe_line, refresh_bn
from valleys.data import loaders
from valleys.data.split import Split
from valleys.landscape import directions

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(90, 6, generator=GENERATOR)
Y = torch.randint(0, 3, (90,), generator=GENERATOR)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Linear(6, 3)


def bn_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3))


def pairs(*tensors, **options):
    return DataLoader(TensorDataset(*tensors), **{"batch_size": 30} | options)


def loss_at_start(net, train, **given):
    u, _ = directions.random_direction("gaussian", net)
    return probe_line(net, u, [0.0], train=train, **given)[0]["train_loss"]


def right(net, x=X, y=Y):
    with torch.no_grad():
        return nn.functional.cross_entropy(net(x).double(), y).item()


class Ring:
    """Hands out `count` buffers in turn, filled anew, as prefetchers with pinned memory do."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        buffers = [(torch.empty(30, 6), torch.empty(30, dtype=torch.int64)) for _ in range(self.count)]
        for i, start in enumerate(range(0, 90, 30)):
            images, labels = buffers[i % self.count]
            images.copy_(X[start : start + 30])
            labels.copy_(Y[start : start + 30])
            yield images, labels


class Arrays:
    """Views into one numpy array."""

    def __iter__(self):
        images, labels = np.empty((30, 6), np.float32), np.empty(30, np.int64)
        for start in range(0, 90, 30):
            images[:], labels[:] = X[start : start + 30].numpy(), Y[start : start + 30].numpy()
            yield torch.from_numpy(images), torch.from_numpy(labels)


REUSING = {"one buffer": Ring(1), "two": Ring(2), "three": Ring(3), "numpy": Arrays()}


@pytest.mark.parametrize("limit", [loaders.RESIDENT_BYTES, 100])
@pytest.mark.parametrize("name", REUSING)
def test_a_loader_that_refills_its_buffers_gives_all_its_images(net, name, limit, monkeypatch):
    monkeypatch.setattr(loaders, "RESIDENT_BYTES", limit)
    assert loss_at_start(net, REUSING[name]) == pytest.approx(right(net), rel=1e-6)
    whole = nn.Sequential(nn.BatchNorm1d(6), net)
    refresh_bn(whole, [X])
    assert loss_at_start(bn_net(), REUSING[name]) == pytest.approx(loss_at_start(bn_net(), [(X, Y)]))


@pytest.mark.parametrize("method", ["exact", "streaming"])
@pytest.mark.parametrize("name", REUSING)
def test_a_refresh_from_refilled_buffers_sees_all_images(name, method):
    net = bn_net()
    refresh_bn(net, REUSING[name], method)
    torch.testing.assert_close(net[0].running_mean, X.mean(0), rtol=0, atol=1e-6)
    torch.testing.assert_close(net[0].running_var, X.var(0, correction=0), rtol=1e-5, atol=0)


def test_what_an_evaluator_has_read_is_its_own(net):
    x, y = X.clone(), Y.clone()
    evaluator = Evaluator(net, [(x[i : i + 30], y[i : i + 30]) for i in (0, 30, 60)])
    x.zero_()
    y.fill_(0)
    u, _ = directions.random_direction("gaussian", net)
    assert probe_line(evaluator, u, [0.0])[0]["train_loss"] == pytest.approx(right(net), rel=1e-6)


def test_batches_of_a_data_loader_are_held_once(net):
    """A copy is made of each, and the loader's own let go."""
    evaluator = Evaluator(net, pairs(X, Y))
    kept = evaluator.train_batches.kept
    assert sum(x.untyped_storage().nbytes() for x in kept) == X.numel() * 4
    again = list(loaders.images_of(evaluator.train_batches, torch.device("cpu")))
    assert all(a is b for a, b in zip(kept, again, strict=True))  # ours are not copied a second time


class Changing(Dataset):
    """Images that numpy's random numbers decide, which torch's seed does not."""

    def __init__(self, change):
        self.change, self.random = change, np.random.default_rng(0)

    def __len__(self):
        return 90

    def __getitem__(self, i):
        return self.change(X[i], self.random), Y[i]


CHANGES = {
    "noise": lambda x, random: x + float(random.normal()),
    "flip": lambda x, random: x.flip(0) if random.random() < 0.5 else x,  # has the same sum
    "one pixel": lambda x, random: x + torch.eye(6)[random.integers(6)] * 1e-3,
}


@pytest.mark.parametrize("name", CHANGES)
def test_images_that_change_between_readings_are_noticed(net, name, monkeypatch):
    monkeypatch.setattr(loaders, "RESIDENT_BYTES", 1000)
    with pytest.raises(ValleysError, match="train: batch 0 has other images than when it was read first"):
        loss_at_start(net, DataLoader(Changing(CHANGES[name]), batch_size=30))


class Counting:
    """Other batches in each reading: `batches` of them, by the number of the reading."""

    def __init__(self, batches, change=lambda reading, x, y: (x, y)):
        self.batches, self.change, self.reading = batches, change, 0

    def __iter__(self):
        reading, self.reading = self.reading, self.reading + 1
        for start in range(0, 30 * self.batches[min(reading, len(self.batches) - 1)], 30):
            yield self.change(reading, X[start : start + 30], Y[start : start + 30])


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (Counting([3, 2]), "yields fewer batches than the 3 of its first reading"),
        (Counting([2, 3]), "yields more batches than the 2"),
        (Counting([3], lambda n, x, y: (x, y) if n < 2 else (x + 1, y)), "batch 0 has other images"),
        (Counting([3], lambda n, x, y: (x, y if n < 1 else y.flip(0))), "batch 0 has other labels"),
        ((batch for batch in pairs(X, Y)), "an iterator over more than"),
        (itertools.cycle([(X, Y)]), "an iterator over more than"),  # without end
    ],
)
def test_readings_that_differ_are_refused(net, loader, message, monkeypatch):
    monkeypatch.setattr(loaders, "RESIDENT_BYTES", 1000)
    u, _ = directions.random_direction("gaussian", net)
    with pytest.raises(ValleysError, match=message):
        probe_line(net, u, [-1.0, 0.0, 1.0], train=loader)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (X.to(torch.bfloat16), Y),
        (torch.complex(X, X), Y),
        (X > 0, Y),
        (X.reshape(90, 1, 2, 3).to(memory_format=torch.channels_last), Y.bool()),
        (X, torch.full((90,), torch.nan)),
        (X[:, 0], Y.to(torch.uint16)),
    ],
)
def test_all_types_of_batches_are_read_again(x, y, monkeypatch):
    monkeypatch.setattr(loaders, "RESIDENT_BYTES", 10)
    batches = loaders.LoaderBatches(pairs(x, y), "cpu")
    for _ in range(2):
        again = list(batches)
        assert torch.cat([images for images, _ in again]).equal(x)
        assert torch.cat([labels for _, labels in again]).nan_to_num().equal(y.nan_to_num())
    assert batches.kept is None


def test_a_picked_pair_of_more_tensors(net):
    three = pairs(X, torch.zeros(90, 1), Y)
    with pytest.raises(ValleysError, match=r"train: batch 0 .* valleys.data.loaders.pick\(loader, 0, 2\)"):
        loss_at_start(net, three)
    with pytest.raises(ValleysError, match="which of its tensors are images"):
        refresh_bn(bn_net(), three)
    expected = pytest.approx(right(net), rel=1e-6)
    assert loss_at_start(net, loaders.pick(three, 0, 2)) == expected
    assert loss_at_start(net, loaders.pick(iter(three), 0, 2)) == expected
    dicts = [{"pixels": x, "labels": y} for x, _, y in three]
    with pytest.raises(
        ValleysError, match=r"batch 0 is a dict of pixels, labels.*pick\(loader, 'pixels', 'lab"
    ):
        loss_at_start(net, dicts)
    assert loss_at_start(net, loaders.pick(dicts, "pixels", "labels")) == expected
    refresh_bn(bn_net(), loaders.pick(dicts, "pixels", "labels"))
    with pytest.raises(ValleysError, match=r"pick: batch 0 is a dict of pixels, labels; it has no"):
        loss_at_start(net, loaders.pick(dicts, "pixels", "label"))


class Named(NamedTuple):
    image: torch.Tensor
    label: torch.Tensor
    index: torch.Tensor


@pytest.mark.parametrize("kind", [Named, SimpleNamespace])
def test_parts_of_named_tuples_and_objects_are_picked_by_name(net, kind):
    made = [kind(image=x, label=y, index=i) for x, y, i in pairs(X, Y, torch.arange(90))]
    with pytest.raises(ValleysError, match=r"batch 0 is a .*valleys.data.loaders.pick\(loader, "):
        loss_at_start(net, made)
    picked = loaders.pick(made, "image", "label")
    assert loss_at_start(net, picked) == pytest.approx(right(net), rel=1e-6)
    with pytest.raises(ValleysError, match=r"pick: batch 0 is a .*; it has no"):
        loss_at_start(net, loaders.pick(made, "image", "target"))


def test_what_follows_the_pair_may_be_no_tensor(net):
    expected = pytest.approx(right(net), rel=1e-6)
    for more in (["a.png"] * 90, {"index": Y}, None):
        assert loss_at_start(net, [(X, Y, more)]) == expected


@pytest.mark.parametrize(
    "batches",
    [
        [(X.clone().requires_grad_(), Y)],
        [(X.to_sparse(), Y)],
        [(X[:1].expand(90, 6), Y)],
        [(X.T.contiguous().T, Y)],
        [(x, y) for x, y in zip(X.split(7), Y.split(7), strict=True)],
    ],
)
def test_batches_of_other_kinds_are_read_as_they_are(net, batches):
    x = torch.cat([x.detach().to_dense() for x, _ in batches])
    assert loss_at_start(net, batches) == pytest.approx(right(net, x), rel=1e-6)


class Raising(Dataset):
    def __len__(self):
        return 90

    def __getitem__(self, i):
        raise FileNotFoundError("no such image")


def used_up():
    found = iter(pairs(X, Y))
    list(found)
    return found


BAD = {
    "a tensor": (X, r"Tensor is no batches of images; give images.split\(100\)", "batch 0 is a Tensor"),
    "a number": (3, "int is no batches of images", "int is no loader"),
    "used up": (used_up(), "got no images.*an iterator gives them once", "yields no batches .*iterator"),
    "arrays": ([(X.numpy(), Y)], "ndarray, Tensor; .* turn arrays into tensors", "turn arrays into tensors"),
    "nested": ([((X, X), Y)], "a tuple of tuple, Tensor", "a tuple of tuple, Tensor"),
    "empty": ([(X, Y), (X[:0], Y[:0])], r"batch 1 has images of shape \(0, 6\)", r"images of shape \(0, 6\)"),
    "mixed": (
        [(X, Y), (X.double(), Y)],
        "batch 1 has images of torch.float64",
        "batch 1 has images of torch.f",
    ),
    "raising": (DataLoader(Raising()), "raises FileNotFoundError: no such image", "raises FileNotFoundError"),
    "in a worker": (
        DataLoader(Raising(), num_workers=1),
        "FileNotFoundError: no such image",
        "no such image",
    ),
    "float64": ([(X.double(), Y)], "BN refresh: the network raises", r"give images.to\(torch.float32\)"),
    "uint8": ([(X.to(torch.uint8), Y)], "BN refresh: the network raises", "scaled as in training"),
    "wrong width": ([(X[:, :5], Y)], "BN refresh: the network raises RuntimeError", r"images \(90, 5\)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_what_is_no_batches_of_images_is_one_line_at_each_door(name):
    batches, of_refresh, of_probe = BAD[name]
    with pytest.raises(ValleysError, match=of_refresh) as caught:
        refresh_bn(bn_net(), batches)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValleysError, match=of_probe) as caught:
        loss_at_start(bn_net(), batches)
    assert "\n" not in str(caught.value)


def test_a_split_is_to_be_cut_into_batches_for_a_refresh():
    split = Split(
        torch.zeros(4, 1, 2, 3, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), 3, (0.5,), (1,)
    )
    with pytest.raises(ValleysError, match=r"give split.batches\(1000\)"):
        refresh_bn(bn_net(), split)
    refresh_bn(nn.Sequential(nn.Flatten(), bn_net()), split.batches(2))


def test_tokens_stay_integers():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(20, 3))
    ids = torch.randint(0, 10, (90, 5))
    for kind in (torch.int64, torch.int32):
        assert loss_at_start(net, pairs(ids.to(kind), Y)) == pytest.approx(right(net, ids), rel=1e-6)
