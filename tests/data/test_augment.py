"""Augmentation against a plain loop, and batches of an epoch that can be resumed."""

import itertools

import numpy as np
import pytest
import torch
from random_splits import generator, make_split
from valleys.data.augment import augment, draw_augmentation, draw_permutation, epoch_batches
from valleys.errors import ValleysError


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
