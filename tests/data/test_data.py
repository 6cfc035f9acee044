import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from valleys.data import cache
from valleys.data.augment import (
    apply_augmentation,
    augment,
    draw_augmentation,
    draw_permutation,
    epoch_batches,
)
from valleys.data.cache import load_split, read_metadata, save_split, write_split
from valleys.data.split import Split, channel_statistics, subset_indices
from valleys.errors import ValleysError

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make_split(n=50, channels=3, height=6, width=5, classes=4, seed=0):
    g = generator(seed)
    images = torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8, generator=g)
    labels = torch.randint(0, classes, (n,), generator=g)
    return Split(images, labels, classes, *channel_statistics(images))


def fails(path, *words, **options):
    """Load, expect the error, and check that it is one line that names the file and the words."""
    with pytest.raises(ValleysError) as caught:
        load_split(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), "prepare_dataset", *words):
        assert word in message, message


# --- the split ---


def test_importing_needs_no_reader_of_originals():
    code = (
        "import sys, valleys.data; "
        "print(sorted({'torchvision', 'PIL', 'sklearn', 'pandas', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_floats_are_normalised():
    split = make_split()
    x = split.images.numpy().astype(np.float64) / 255
    mean, std = x.mean(axis=(0, 2, 3)), x.std(axis=(0, 2, 3))
    np.testing.assert_allclose(split.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(split.std, std, rtol=1e-12)
    expected = (x - mean[:, None, None]) / std[:, None, None]
    whole = split.floats(slice(None))
    assert whole.dtype == torch.float32
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    assert torch.equal(split.floats(slice(3, 9)), whole[3:9])
    assert torch.equal(split.floats(7), whole[7])
    index = torch.tensor([4, 1, 4])
    assert torch.equal(split.floats(index), whole[index])


def test_statistics_do_not_depend_on_the_chunk():
    split = make_split(n=37)
    for chunk in (1, 5, 37, 1000):
        assert channel_statistics(split.images, chunk) == (split.mean, split.std)


def test_statistics_of_a_large_nearly_constant_channel():
    images = torch.full((2000, 1, 16, 16), 250, dtype=torch.uint8)
    images[0, 0, 0, 0] = 251
    _, std = channel_statistics(images)
    n = images.numel()
    assert std[0] == pytest.approx(np.sqrt((n - 1) / n**2) / 255, rel=1e-12)


def test_constant_channel_normalises_to_zero():
    images = torch.full((4, 2, 3, 3), 7, dtype=torch.uint8)
    images[:2, 1] = 9
    mean, std = channel_statistics(images)
    assert std[0] == 1.0
    split = Split(images, torch.zeros(4, dtype=torch.int64), 2, mean, std)
    assert split.floats(slice(None))[:, 0].abs().max() < 1e-7


def test_subset_is_fixed_and_nested():
    split = make_split(n=50)
    small, again, large = split.subset(8, 3), split.subset(8, 3), split.subset(20, 3)
    assert torch.equal(small.images, again.images)
    assert torch.equal(small.labels, again.labels)
    assert len(small) == 8
    rows = subset_indices(50, 8, 3)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert torch.equal(small.images, split.images[rows])
    assert torch.equal(small.labels, split.labels[rows])
    assert set(rows.tolist()) <= set(subset_indices(50, 20, 3).tolist())
    assert not torch.equal(rows, subset_indices(50, 8, 4))
    assert (small.mean, small.std, small.classes, small.in_shape) == (split.mean, split.std, 4, (3, 6, 5))
    assert len(large) == 20
    assert split.subset(None, 0) is split
    assert split.subset(50, 0) is split
    assert split.subset(51, 0) is split


def test_subset_indices_do_not_change_between_versions():
    # Results on a subset are only comparable while this holds.
    assert subset_indices(100, 5, 0).tolist() == [19, 44, 71, 90, 93]


@pytest.mark.parametrize("n", [0, -3, True, 2.0])
def test_subset_of_nothing(n):
    with pytest.raises(ValleysError, match="1 or more"):
        make_split().subset(n, 0)


def test_to_shares_and_moves():
    split = make_split()
    assert split.to("cpu").images is split.images
    assert split.to("meta").device.type == "meta"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"images": torch.zeros(5, 1, 2, 2)}, "uint8"),
        ({"images": torch.zeros(5, 2, 2, dtype=torch.uint8)}, "(N, C, H, W)"),
        ({"images": torch.zeros(0, 1, 2, 2, dtype=torch.uint8), "labels": torch.zeros(0).long()}, "empty"),
        ({"labels": torch.zeros(5)}, "int64"),
        ({"labels": torch.zeros(4).long()}, "(5,)"),
        ({"classes": 0}, "classes"),
        ({"mean": (0.0, 0.0)}, "1 channels"),
        ({"std": (0.0,)}, "above 0"),
        ({"mean": (float("nan"),)}, "finite"),
    ],
)
def test_split_refuses(change, word):
    good = {
        "images": torch.zeros(5, 1, 2, 2, dtype=torch.uint8),
        "labels": torch.zeros(5).long(),
        "classes": 2,
        "mean": (0.0,),
        "std": (1.0,),
    }
    Split(**good)
    with pytest.raises(ValueError, match=re.escape(word)):
        Split(**{**good, **change})


# --- augmentation ---


def reference(images, spec, offsets, flips):
    """One image at a time, in numpy."""
    p = spec["shift"]
    mode = {"zero": "constant", "reflect": "reflect"}[spec["pad_mode"]]
    out = []
    for i, image in enumerate(images.numpy()):
        padded = np.pad(image, ((0, 0), (p, p), (p, p)), mode=mode)
        y, x = int(offsets[0, i]), int(offsets[1, i])
        crop = padded[:, y : y + image.shape[1], x : x + image.shape[2]]
        out.append(crop[:, :, ::-1] if flips[i] else crop)
    return torch.from_numpy(np.stack(out))


@pytest.mark.parametrize(
    ("shift", "flip", "pad_mode", "channels"),
    [
        *itertools.product((0, 1, 2, 4), (False, True), ("zero", "reflect"), (1, 3)),
        (9, True, "zero", 2),  # further than the image is wide
    ],
)
def test_augment_equals_the_plain_loop(shift, flip, pad_mode, channels):
    images = make_split(n=64, channels=channels).images
    before = images.clone()
    spec = {"shift": shift, "flip": flip, "pad_mode": pad_mode}
    got = augment(images, spec, generator(5))
    offsets, flips = draw_augmentation(64, spec, generator(5))
    assert torch.equal(got, reference(images, spec, offsets, flips))
    assert got.dtype == torch.uint8
    assert got.is_contiguous()
    assert torch.equal(images, before)


def test_draws_are_what_they_are_said_to_be():
    g = generator(1)
    expected = torch.randint(0, 5, (2, 30), generator=g), torch.randint(0, 2, (30,), generator=g).bool()
    got = draw_augmentation(30, {"shift": 2, "flip": True}, generator(1))
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


def test_shifts_and_flips_are_uniform_and_independent():
    # Read off the augmented images themselves: every pixel is its own address.
    n, side, p = 20_000, 8, 2
    image = torch.arange(1, side * side + 1, dtype=torch.uint8).view(1, 1, side, side)
    out = augment(image.expand(n, -1, -1, -1), {"shift": p, "flip": True}, generator(7))
    inner = out[:, 0, p : side - p, p : side - p].long() - 1  # always inside the original
    flips = inner[:, 0, 1] < inner[:, 0, 0]
    left = torch.where(flips, inner[:, 0, -1], inner[:, 0, 0])  # leftmost original pixel of the window
    dy, dx = left // side, left % side
    cell = (dy * (2 * p + 1) + dx) * 2 + flips
    counts = torch.bincount(cell, minlength=50).double()
    assert len(counts) == 50
    chi2 = ((counts - n / 50) ** 2 / (n / 50)).sum()
    assert 24 < chi2 < 86  # 49 degrees of freedom: 0.1 % on either side


def test_nothing_asked_draws_nothing():
    images = make_split().images
    for spec in (None, {}, {"shift": 0, "flip": False}):
        g = generator(3)
        assert augment(images, spec, g) is images
        assert torch.equal(g.get_state(), generator(3).get_state())


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"shfit": 1}, "shfit"),
        ({"shift": -1}, "0 or more"),
        ({"shift": 1.5}, "0 or more"),
        ({"shift": True}, "0 or more"),
        ({"flip": 1}, "true or false"),
        ({"pad_mode": "wrap"}, "zero, reflect"),
        ({"pad_mode": "reflect", "shift": 5}, "below the image side, 5"),
    ],
)
def test_augment_refuses(spec, word):
    split = make_split()
    with pytest.raises(ValleysError, match=word):
        augment(split.images, spec, generator())
    with pytest.raises(ValleysError, match=word):  # at once, not at the first batch
        epoch_batches(split, torch.arange(5), 2, generator(), spec)


# --- batches ---

SPEC = {"shift": 2, "flip": True, "pad_mode": "zero"}


def test_epoch_covers_everything_once():
    split = make_split(n=50)
    order = draw_permutation(split, generator(2))
    batches = list(epoch_batches(split, order, 16, generator(3), None))
    assert [len(labels) for _, labels in batches] == [16, 16, 16, 2]
    images, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    assert sorted(order.tolist()) == list(range(50))
    assert torch.equal(images, split.floats(order))
    assert torch.equal(labels, split.labels[order])
    assert images.dtype == torch.float32
    dropped = list(epoch_batches(split, order, 16, generator(3), None, drop_last=True))
    assert [len(labels) for _, labels in dropped] == [16, 16, 16]
    assert len(list(epoch_batches(split, order, 25, generator(3), None, drop_last=True))) == 2
    assert list(epoch_batches(split, order, 60, generator(3), None, drop_last=True)) == []


def test_epoch_augments_as_augment_does():
    split = make_split(n=20)
    order, g = draw_permutation(split, generator(2)), generator(4)
    for i, (images, labels) in enumerate(epoch_batches(split, order, 8, generator(4), SPEC)):
        chosen = order[8 * i : 8 * i + 8]
        assert torch.equal(images, split.normalise(augment(split.images[chosen], SPEC, g)))
        assert torch.equal(labels, split.labels[chosen])


@pytest.mark.parametrize("start", range(6))
def test_resume_gives_the_tail(start):
    split = make_split(n=50)
    order = draw_permutation(split, generator(2))
    g, states, whole = generator(3), [], []
    states.append(g.get_state())
    for batch in epoch_batches(split, order, 12, g, SPEC):
        whole.append(batch)
        states.append(g.get_state())  # as a checkpoint taken after this step would
    assert len(whole) == 5
    resumed = torch.Generator()
    resumed.set_state(states[start])
    tail = list(epoch_batches(split, order, 12, resumed, SPEC, start=start))
    assert len(tail) == 5 - start
    for (images, labels), (images_0, labels_0) in zip(tail, whole[start:], strict=True):
        assert torch.equal(images, images_0)
        assert torch.equal(labels, labels_0)
    assert torch.equal(resumed.get_state(), states[-1])


def test_bad_batches():
    with pytest.raises(ValleysError, match="batch_size is 0"):
        epoch_batches(make_split(), torch.arange(5), 0, generator(), None)
    with pytest.raises(ValueError, match="start is -1"):
        epoch_batches(make_split(), torch.arange(5), 2, generator(), None, start=-1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("pad_mode", ["zero", "reflect"])
def test_same_batches_on_the_gpu(pad_mode):
    split = make_split(n=50)
    order = draw_permutation(split, generator(2))
    spec = {**SPEC, "pad_mode": pad_mode}
    on_cpu = list(epoch_batches(split, order, 12, generator(3), spec))
    on_gpu = list(epoch_batches(split.to("cuda"), order, 12, generator(3), spec))
    for (images, labels), (images_0, labels_0) in zip(on_gpu, on_cpu, strict=True):
        torch.testing.assert_close(images.cpu(), images_0, rtol=1e-6, atol=1e-6)
        assert torch.equal(labels.cpu(), labels_0)
    assert torch.equal(split.to("cuda").subset(7, 1).images.cpu(), split.subset(7, 1).images)


# --- the cache file ---


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
