"""The cache file of a split: the same bytes always, whole or refused."""

import hashlib
import json
import os
from dataclasses import replace

import pytest
import torch
from random_splits import make_split
from safetensors.torch import save_file
from valleys.data import cache
from valleys.data.augment import apply_augmentation
from valleys.data.cache import load_split, read_metadata, save_split, write_split
from valleys.data.split import Split
from valleys.errors import ValleysError


def fails(path, *words, **options):
    """Load, expect the error, and check that it is one line that names the file and the words."""
    with pytest.raises(ValleysError) as caught:
        load_split(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), "prepare_dataset", *words):
        assert word in message, message


def test_round_trip(tmp_path):
    split = make_split()
    path = tmp_path / "new" / "train.safetensors"
    save_split(path, split, {"source": "digits", "note": 'ä " \\ \n'})
    got = load_split(path)
    assert torch.equal(got.images, split.images)
    assert torch.equal(got.labels, split.labels)
    assert (got.classes, got.mean, got.std) == (split.classes, split.mean, split.std)
    metadata = read_metadata(path)
    assert metadata["source"] == "digits"
    assert metadata["note"] == 'ä " \\ \n'
    assert json.loads(metadata["mean"]) == list(split.mean)
    assert len(metadata["checksum"]) == 64
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_views_and_repeated_writes_give_the_same_bytes(tmp_path):
    split = make_split()
    strided = Split(
        split.images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        split.labels,
        4,
        split.mean,
        split.std,
    )
    assert not strided.images.is_contiguous()
    save_split(tmp_path / "a", split, {"x": "1", "y": "2"})
    save_split(tmp_path / "b", strided, {"y": "2", "x": "1"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_loading_twice_is_independent_of_the_file(tmp_path):
    split, path = make_split(), tmp_path / "s"
    save_split(path, split)
    got = load_split(path)
    path.write_bytes(b"\0" * path.stat().st_size)  # in place, as a careless copy would
    assert torch.equal(got.images, split.images)


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "s"
    save_split(path, make_split(seed=0))
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ValleysError, match="No space left on device") as caught:
        save_split(path, make_split(seed=1))
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["s"]


def test_bad_labels_are_not_written(tmp_path):
    split = make_split(classes=4)
    bad = Split(split.images, split.labels.clamp(min=1), 3, split.mean, split.std)
    with pytest.raises(ValleysError, match=r"labels must lie in 0\.\.2"):
        save_split(tmp_path / "s", bad)
    assert not list(tmp_path.iterdir())


def test_metadata_keys_are_guarded(tmp_path):
    with pytest.raises(ValueError, match="'mean' is reserved"):
        save_split(tmp_path / "s", make_split(), {"mean": "0"})
    with pytest.raises(TypeError, match="strings"):
        save_split(tmp_path / "s", make_split(), {"n": 1})


#: SHA-256 of files that were written before images could be written a few at a time: (split, metadata).
WRITTEN = {
    "f75ea01a9977e66161d4e14d2012e07e7c362bab1a2287d1537b66068e5776ae": (50, 3, 6, 5, 4, 0),
    "6cecf2dc5a491e46434312e19b02ea71c1a0e285f32f52abb098358868bca4d7": (7, 1, 8, 8, 3, 1),
    "2a7d2a89bb480441ce736a55fd3e7b3a74a08d8489668b1685d098f277033345": (2100, 3, 4, 4, 10, 2),
}


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("wanted", WRITTEN)
def test_files_are_what_they_have_always_been(tmp_path, wanted):
    path, split = tmp_path / "split.safetensors", make_split(*WRITTEN[wanted])
    save_split(path, split)
    assert sha(path) == wanted
    for size in (1, 3, 50, 5000):  # statistics found on the way, whatever the pieces
        path.unlink()
        found = write_split(path, split.labels, split.images.split(size), split.images.shape, split.classes)
        assert found == (split.mean, split.std)
        assert sha(path) == wanted


def test_files_with_given_statistics_are_what_they_have_always_been(tmp_path):
    path, split = tmp_path / "split.safetensors", make_split(5, 3, 4, 4, 2, 0)
    given = (0.5, 0.25, 0.125), (0.1, 0.2, 0.3)
    wanted = "d1faeb44e7a5c46728b6d695da436f5435957d5718d6287c0c87d97ce2b2837e"
    save_split(path, replace(split, mean=given[0], std=given[1]), {"source": "x"})
    assert sha(path) == wanted
    parts = (split.labels, split.images.split(2), split.images.shape, 2)
    write_split(path, *parts, given, {"source": "x"})
    assert sha(path) == wanted
    mean, std = write_split(path, *parts[:1], split.images.split(2), *parts[2:], (None, given[1]))
    assert (mean, std) == (split.mean, given[1])
    assert load_split(path).mean == split.mean


def test_no_more_and_no_fewer_images_than_said(tmp_path):
    split = make_split(5)
    for n in (4, 6):
        with pytest.raises(ValueError, match="bytes of images were given"):
            write_split(tmp_path / "a", torch.zeros(n).long(), [split.images], (n, 3, 6, 5), 4)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_on_the_way_leaves_nothing(tmp_path):
    def images():
        yield make_split(3).images
        raise ValleysError("the fourth image is broken")

    with pytest.raises(ValleysError, match="fourth"):
        write_split(tmp_path / "a", torch.zeros(5).long(), images(), (5, 3, 6, 5), 4)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_gives_back_other_bytes_is_noticed(tmp_path, monkeypatch):
    read = os.pread
    monkeypatch.setattr("os.pread", lambda *a: read(*a).replace(b"\x07", b"\x08"))
    with pytest.raises(ValleysError, match="was not written: its disk gives back other bytes"):
        save_split(tmp_path / "a", make_split())
    assert list(tmp_path.iterdir()) == []


def test_files_of_many_blocks(tmp_path, monkeypatch):
    """The images are moved up block by block, over their own old place."""
    path, split = tmp_path / "split.safetensors", make_split(200)
    save_split(path, split)
    wanted = sha(path)
    for block in (1, 7, 64, 1000):
        monkeypatch.setattr(cache, "_BLOCK", block)
        write_split(path, split.labels, split.images.split(9), split.images.shape, 4)
        assert sha(path) == wanted


def test_missing_file(tmp_path):
    fails(tmp_path / "absent", "does not exist")
    fails(tmp_path, "is not a file")


@pytest.mark.parametrize("keep", [0, 5, 8, 100, -1])
def test_truncated_file(tmp_path, keep):
    path = tmp_path / "s"
    save_split(path, make_split())
    path.write_bytes(path.read_bytes()[:keep])
    fails(path, "truncated or damaged", "delete it")
    fails(path, "truncated or damaged", verify=False)


def test_every_flipped_bit_is_seen(tmp_path):
    path = tmp_path / "s"
    save_split(path, make_split(n=5, channels=1, height=2, width=2), {"source": "digits"})
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        fails(path, "delete it")


@pytest.mark.parametrize("resident_mb", [100, 0])
def test_a_flipped_bit_in_the_clean_labels_is_seen(tmp_path, resident_mb):
    split, path = make_split(), tmp_path / "s"
    clean = (split.labels + 1) % 4
    about = (split.labels, [split.images], split.images.shape, split.classes, (split.mean, split.std))
    write_split(path, *about, clean_labels=clean)
    assert torch.equal(cache.clean_labels(path), clean)
    assert torch.equal(load_split(path, resident_mb=resident_mb).labels, split.labels)
    content = bytearray(path.read_bytes())
    at = len(content) - split.images.numel() - 8 * len(split)
    assert content[at] == clean[0]
    content[at] ^= 1
    path.write_bytes(content)
    fails(path, "checksum", resident_mb=resident_mb)
    with pytest.raises(ValleysError, match="was not written: the label of image 0 is 4"):
        write_split(path, *about, clean_labels=split.labels * 0 + 4)


def test_flipped_bit_in_an_image_names_the_checksum(tmp_path):
    path = tmp_path / "s"
    save_split(path, make_split())
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    fails(path, "SHA-256", "delete it")
    load_split(path, verify=False)  # what verify is for


def write(path, tensors=None, **metadata):
    """Write a file as another program might: by the library, the checksum not ours."""
    split = make_split()
    good = {
        "format": "valleys-split-1",
        "classes": "4",
        "mean": json.dumps(split.mean),
        "std": json.dumps(split.std),
        "checksum": "0" * 64,
    }
    metadata = {key: value for key, value in {**good, **metadata}.items() if value is not None}
    save_file({"images": split.images, "labels": split.labels} | (tensors or {}), path, metadata=metadata)


@pytest.mark.parametrize(
    ("tensors", "metadata", "word"),
    [
        ({"other": torch.zeros(1)}, {}, "exactly images and labels"),
        ({"images": torch.zeros(50, 3, 2, 2, dtype=torch.bfloat16)}, {}, "uint8"),
        ({"images": torch.zeros(50, 2, 2, dtype=torch.uint8)}, {}, "(N, C, H, W)"),
        ({"labels": torch.zeros(50, dtype=torch.int32)}, {}, "int64"),
        ({"labels": torch.zeros(49, dtype=torch.int64)}, {}, "one for each image"),
        ({"labels": torch.arange(50) // 10}, {}, "image 40 is 4; labels must lie in 0..3"),
        ({"labels": -torch.ones(50, dtype=torch.int64)}, {}, "image 0 is -1"),
        ({}, {"classes": "four"}, "unreadable classes"),
        ({}, {"classes": "3"}, "labels must lie in 0..2"),
        ({}, {"mean": "[1, 2"}, "unreadable"),
        ({}, {"mean": "3"}, "unreadable"),
        ({}, {"mean": "[0.5]"}, "3 channels"),
        ({}, {"std": "[0.5, 0, 1]"}, "above 0"),
        ({}, {"std": None}, "lacks the metadata std"),
        ({}, {"format": None}, "format None"),
    ],
)
def test_foreign_contents(tmp_path, tensors, metadata, word):
    path = tmp_path / "s"
    write(path)
    load_split(path, verify=False)
    fails(path, "SHA-256")
    write(path, tensors, **metadata)
    fails(path, word, verify=False)
    if "labels must lie" not in word and "image 0" not in word:
        fails(path, word)  # the same reason is found first when the checksum is verified too


def test_apply_augmentation_takes_given_numbers():
    image = torch.arange(9, dtype=torch.uint8).view(1, 1, 3, 3)
    spec = {"shift": 1, "flip": True, "pad_mode": "reflect"}
    got = apply_augmentation(image, spec, torch.tensor([[0], [2]]), torch.tensor([True]))
    # Up by one and right by one, reflected about the edge pixels, then mirrored.
    assert got[0, 0].tolist() == [[4, 5, 4], [1, 2, 1], [4, 5, 4]]
