"""Parts of a set of images: disjoint and complete, of a split and of a loader, kept or read again."""

import pytest
import torch
from naive_lines import Doubles, make_split
from torch.utils.data import DataLoader, TensorDataset
from valleys.data import loaders, parts
from valleys.errors import ValleysError

SHARES = [0.5, 0.25, 0.25]


@pytest.mark.parametrize("count", [8, 9, 10, 11, 41, 1000])
def test_parts_are_disjoint_and_complete_and_of_their_shares(count):
    found = parts.divide(count, SHARES, 3)
    assert torch.cat(found).sort().values.tolist() == list(range(count))
    assert all(part.tolist() == sorted(part.tolist()) for part in found)
    assert [len(part) for part in found] == pytest.approx([share * count for share in SHARES], abs=1)


def test_the_seed_decides_and_parts_are_drawn_at_random():
    one, same, other = (parts.divide(400, SHARES, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])
    assert 150 < one[0].double().mean() < 250  # not the first half


def test_a_part_that_would_be_empty_is_refused():
    with pytest.raises(ValleysError, match="2 images cannot be divided into 3 parts; give more images"):
        parts.divide(2, SHARES, 0)


def loader_of(n=41, size=7, **options):
    images = torch.arange(n * 2, dtype=torch.float32).view(n, 2)
    return DataLoader(TensorDataset(images, torch.arange(n)), batch_size=size, **options)


def of(batches):
    pairs = list(batches)
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]), [len(y) for _, y in pairs]


@pytest.mark.parametrize("kept", [True, False])
def test_rows_of_a_loader_are_the_rows(monkeypatch, kept):
    if not kept:
        monkeypatch.setattr(loaders, "RESIDENT_BYTES", 20)
    whole = loaders.batches(loader_of(), 99, "cpu")
    assert (whole.kept is not None) == kept
    images, labels, _ = of(whole)
    seen = []
    for rows in parts.divide(41, SHARES, 0):
        part = parts.take(whole, rows, 5)
        assert isinstance(part, parts.Rows)
        for _ in range(2):  # the same in every pass
            x, y, sizes = of(part)
            assert torch.equal(x, images[rows])
            assert torch.equal(y, labels[rows])
        assert len(part) == len(rows)
        assert [len(each) for each in part.labels()] == sizes
        assert torch.equal(torch.cat(list(part.labels())), y)
        assert torch.equal(part.first(), x[: sizes[0]])
        # Rows of these rows: what a step draws.
        some = torch.tensor([0, 3, len(rows) - 1])
        again = parts.take(part, some, 5)
        assert torch.equal(of(again)[0], x[some])
        assert len(again) == 3
        seen += y.tolist()
    assert sorted(seen) == list(range(41))


def test_batches_without_a_row_are_left_out():
    part = parts.take(loaders.batches(loader_of(), 99, "cpu"), torch.tensor([1, 2, 40]), 5)
    assert of(part)[2] == [2, 1]
    assert len(list(part.labels())) == 2


def test_a_loader_that_gives_other_images_when_read_again_is_refused(monkeypatch):
    monkeypatch.setattr(loaders, "RESIDENT_BYTES", 20)
    data = loader_of()
    part = parts.take(loaders.batches(data, 99, "cpu", "train"), torch.tensor([0, 40]), 5)
    data.dataset.tensors[0][40] += 1.0
    with pytest.raises(ValleysError, match="train: batch 5 has other images than when it was read first"):
        of(part)


@pytest.mark.parametrize("kept", [True, False])
def test_rows_of_a_split_are_a_split(monkeypatch, kept):
    if not kept:
        monkeypatch.setattr(loaders, "RESIDENT_BYTES", 20)
    split = make_split(30)
    whole = loaders.batches(split, 8, "cpu")
    images, labels, _ = of(whole)
    rows = torch.tensor([0, 4, 9, 10, 11, 29])
    part = parts.take(whole, rows, 4)
    x, y, sizes = of(part)
    assert torch.equal(x, images[rows])
    assert torch.equal(y, labels[rows])
    assert sizes == [4, 2]  # batches of their own size
    assert part.split.mean == split.mean
    assert torch.equal(of(parts.take(part, torch.tensor([1, 5]), 4))[0], images[rows[[1, 5]]])
    assert torch.equal(split.images, make_split(30).images)


def test_what_stands_in_for_a_split_is_cut_as_a_loader():
    whole = loaders.batches(Doubles(make_split(30)), 8, "cpu")
    part = parts.take(whole, torch.tensor([0, 9, 29]), 8)
    x, y, sizes = of(part)
    assert x.dtype == torch.float64
    assert torch.equal(x, of(whole)[0][[0, 9, 29]])
    assert torch.equal(y, of(whole)[1][[0, 9, 29]])
    assert sizes == [1, 1, 1]
