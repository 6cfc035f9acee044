"""Images that are added until a verdict is settled: what errors are, when it ends, what it gives back."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from valleys.asymmetry.definition import detect
from valleys.data.split import Split
from valleys.errors import ValleysError
from valleys.landscape import growing, sequential
from valleys.landscape.directions import random_direction
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.growing import GROUPS, Growing, errors_by_group, until_settled
from valleys.landscape.lines import find_radius, line_offsets, probe_line
from valleys.landscape.subsets import ERRORS
from valleys.models.losses import build
from valleys.networks.tensors import vector_norm

COUNT = 1600


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "batch norm"])
def trained(request):
    """A network on images of noise with labels that are partly known, and the images."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(COUNT, 8, generator=generator)
    y = (x @ torch.randn(8, 3, generator=generator) + torch.randn(COUNT, 3, generator=generator)).argmax(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norms = [nn.BatchNorm1d(12)] if request.param else []
        net = nn.Sequential(nn.Linear(8, 12), *norms, nn.ReLU(), nn.Linear(12, 3))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(6):
        for a in range(0, COUNT, 100):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x[a : a + 100]), y[a : a + 100]).backward()
            optimiser.step()
    optimiser.zero_grad()
    return net.eval(), x, y


def batches(x, y, size=200):
    return list(zip(x.split(size), y.split(size), strict=True))


def evaluator(trained, n=COUNT, drawn_from=None, test=400):
    net, x, y = trained
    return Evaluator(net, batches(x[:n], y[:n]), batches(x[:test], y[:test]), drawn_from=drawn_from)


def direction(at, k=0):
    return random_direction("gaussian", {n: p.detach() for n, p in at.parameters.items()}, key="test", k=k)[0]


def reach(at):
    own = vector_norm(at.parameters)
    return {"first": own / 50, "cap": 2 * own}


def test_at_all_images_it_is_the_curve_of_all(trained):
    at = evaluator(trained)
    u, more = direction(at), Growing(at, seed=3)
    for images in (400, 800, COUNT):
        more.grow(images)
        found = {x: more.point(x, lambda x: at.move(u, x)) for x in (-1.0, 0.0, 1.5)}
        made_of, _ = more.errors(list(found))
        assert made_of.any() == (images < COUNT)
    for row in probe_line(at, u, list(found)):
        for key, value in found[row["offset"]].items():
            assert value == pytest.approx(row[key], rel=1e-5), key


def test_images_that_were_seen_are_not_passed_again_but_where_statistics_hang_on_all(trained):
    at = evaluator(trained)
    more = Growing(at)
    for images in (400, COUNT):
        more.grow(images)
        more.point(0.0, lambda x: at.move({}, x))
    assert more.passed == (400 + 400 + COUNT if more.in_groups else COUNT)


def test_errors_by_image_are_those_of_a_mean(trained):
    net, x, y = trained
    at = Evaluator(net, batches(x, y), bn="frozen")
    u, more, places = direction(at), Growing(at, seed=1), [0.0, 2.0]
    more.grow(300)
    more.grow(500)
    for place in places:
        more.point(place, lambda x: at.move(u, x))
    made_of, freedom = more.errors(places)
    rows = more.order[:500]
    changed = {n: p + 2.0 * u[n] for n, p in at.start.items() if n in u}
    losses = [
        nn.functional.cross_entropy(torch.func.functional_call(net, w, (x[rows],)), y[rows], reduction="none")
        for w in ({}, changed)
    ]
    expected = torch.cov(torch.stack(losses).double()) / 500 * (1 - 500 / COUNT)
    assert freedom == 499
    assert made_of.T @ made_of == pytest.approx(expected.detach().numpy(), rel=1e-4)


@pytest.mark.slow
def test_errors_by_group_have_those_of_refreshed_statistics(trained):
    """As curves on many subsets spread."""
    at, errors, rises = evaluator(trained), [], []
    u = direction(at, k=1)
    for seed in range(60):
        more = Growing(at, seed=seed)
        more.grow(400)
        found = [more.point(x, lambda x: at.move(u, x))["train_loss"] for x in (0.0, 4.0)]
        rises.append(found[1] - found[0])
        made_of, _ = more.errors([0.0, 4.0])
        errors.append(np.linalg.norm(made_of @ [-1, 1]))
    truth = [row["train_loss"] for row in probe_line(at, u, [0.0, 4.0])]
    off = np.sqrt(np.mean((np.array(rises) - (truth[1] - truth[0])) ** 2))
    # 60 draws know a standard deviation to 9 %; errors by group may only be too large.
    assert 0.75 * off < np.mean(errors) < 1.5 * off


def test_a_subset_of_images_has_errors_by_group(trained):
    at = evaluator(trained, 480, {"train": COUNT, "test": 800})
    u = direction(at)
    curve = probe_line(at, u, [-2.0, 0.0, 2.0])
    made_of = errors_by_group(at, lambda x: at.move(u, x), curve)
    assert set(made_of) == {"train", "test"}
    assert made_of["train"].shape == (GROUPS + 1, 3)
    groups = growing.Growing(at).groups(480)
    at.move(u, 2.0)
    own = np.array([group.train_loss()[0] for group in groups])
    left = 1 - 480 / COUNT
    expected = (own - own.mean()) * math.sqrt(left / (GROUPS * (GROUPS - 1)))
    assert made_of["train"][:-1, 2] == pytest.approx(expected)
    bias = (own.mean() - curve[2]["train_loss"]) * left / (GROUPS - 1)
    assert made_of["train"][-1, 2] == pytest.approx(bias)
    assert errors_by_group(evaluator(trained, 12, {"train": 20}), lambda x: None, curve) == {}


@pytest.mark.parametrize("k", [0, 1])
def test_a_curve_is_settled_as_all_images_have_it(trained, k):
    at = evaluator(trained)
    u = direction(at, k)
    curve, offsets, radius, settled = sequential.curve_until(at, u, confidence=0.95, rise=2.0, **reach(at))
    full = find_radius(at, u, rise=2.0, **reach(at))
    whole = probe_line(at, u, line_offsets(full.radius, 31))
    found = detect([p["offset"] for p in whole], [p["train_loss"] for p in whole])
    assert settled.verdict == found.status
    assert settled.images == settled.looks[-1][0] <= settled.total == COUNT
    assert [verdict for _, verdict in settled.looks[:-1]] == [None] * (len(settled.looks) - 1)
    assert (len(offsets), offsets[-1]) == (31, radius.radius)
    assert radius.radius == pytest.approx(full.radius, rel=0.3)
    assert set(ERRORS) <= set(curve[0])
    by_offset = {row["offset"]: row["train_error"] for row in curve}
    if settled.images < COUNT:
        assert by_offset.pop(0.0) == pytest.approx(0, abs=1e-9)
        assert min(by_offset.values()) > 0
    else:
        assert set(by_offset.values()) == {None}
    # The same seed, the same curve; weights are at their start again.
    assert all(torch.equal(p, at.start[n]) for n, p in at.parameters.items())
    assert sequential.curve_until(at, u, confidence=0.95, rise=2.0, **reach(at))[0] == curve


def test_a_budget_ends_it_unsettled(trained):
    at = evaluator(trained)
    options = {"confidence": 1 - 1e-9, "rise": 0.01, "budget": 200, **reach(at)}
    curve, *_, settled = sequential.curve_until(at, direction(at), **options)
    assert (settled.verdict, settled.images) == (None, 200)
    assert str(settled) == "not settled at 100% on 200 of 1,600 examples"
    assert all(row["train_error"] > 0 for row in curve if row["offset"])


def test_of_a_subset_even_all_images_leave_errors(trained):
    at = evaluator(trained, 400, {"train": COUNT})
    *_, settled = sequential.curve_until(at, direction(at), confidence=1 - 1e-9, rise=0.01, **reach(at))
    assert (settled.verdict, settled.images, settled.total) == (None, 400, COUNT)


def test_all_images_settle_what_is_close(trained):
    at = evaluator(trained)
    *_, settled = sequential.curve_until(at, direction(at), confidence=1 - 1e-9, rise=0.01, **reach(at))
    assert settled.images == COUNT
    assert settled.verdict is not None
    assert str(settled) == "settled on all 1,600 examples"


def test_the_sign_of_an_index_is_that_of_all_images(trained):
    at = evaluator(trained)
    for k in range(4):
        u = direction(at, k)
        *_, found, settled = sequential.curve_until(
            at, u, index=True, confidence=0.95, rise=2.0, points=15, **reach(at)
        )
        offsets = line_offsets(found.radius, 15)
        whole = detect(offsets, [row["train_loss"] for row in probe_line(at, u, offsets)])
        assert settled.verdict == np.sign(whole.asymmetry_index)
        assert settled.images < COUNT or abs(whole.asymmetry_index) < 0.2


def test_a_barrier_is_settled(trained):
    at = evaluator(trained)
    net, *_ = trained
    far = {n: p.detach() + 3.0 * direction(at)[n] for n, p in net.named_parameters()}
    near = {n: p.detach() + 1e-3 * direction(at)[n] for n, p in net.named_parameters()}
    for stop in (far, near):
        rows, settled = sequential.segment_until(at, stop, confidence=0.95, threshold=0.1, points=9)
        losses = np.array([row["train_loss"] for row in rows])
        ts = np.array([row["t"] for row in rows])
        over = losses - (1 - ts) * losses[0] - ts * losses[-1]
        assert settled.verdict is bool(over.max() > 0.1)
        assert len(rows) == 9
        assert settled.images < COUNT
    with pytest.raises(ValleysError, match="path: points: 2 is too few for a barrier"):
        sequential.segment_until(at, far, confidence=0.95, threshold=0.1, points=2)


def test_a_barrier_does_not_hang_on_points_beyond_its_ends(trained):
    at = evaluator(trained)
    stop = {n: p.detach() + 3.0 * direction(at)[n] for n, p in trained[0].named_parameters()}
    ts = [i / 4 for i in range(-4, 9)]
    options = {"confidence": 0.95, "threshold": 0.1}
    rows, settled = sequential.segment_until(at, stop, points=ts, **options)
    inner, alone = sequential.segment_until(at, stop, points=5, **options)
    assert [row["t"] for row in rows] == ts
    assert [row for row in rows if 0 <= row["t"] <= 1] == inner
    assert (settled.verdict, settled.images) == (alone.verdict, alone.images)
    assert all(math.isfinite(row["train_loss"]) and math.isfinite(row["test_loss"]) for row in rows)


@pytest.mark.parametrize(
    ("loss", "in_groups"),
    [
        (nn.CrossEntropyLoss(), False),
        (build({"name": "cross_entropy"}), False),
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])), True),  # a mean over weights
        (nn.CrossEntropyLoss(ignore_index=1), True),
        (lambda outputs, labels: nn.functional.cross_entropy(outputs, labels) + 0.0, True),  # a mean alone
    ],
)
def test_losses_that_hang_on_other_images_are_taken_in_groups(trained, loss, in_groups):
    net, x, y = trained
    at = Evaluator(net, batches(x, y), loss=loss, bn="frozen")
    u, more = direction(at), Growing(at)
    assert more.in_groups == in_groups
    (whole,) = probe_line(at, u, [1.0])
    for images in (400, COUNT):
        more.grow(images)
        found = more.point(1.0, lambda x: at.move(u, x))
    for key in ("train_loss", "train_accuracy"):
        assert found[key] == pytest.approx(whole[key], rel=1e-5), key


def test_images_of_a_split_and_of_a_loader_give_the_same(trained):
    net, x, y = trained
    images = (x * 20 + 128).clamp(0, 255).round().to(torch.uint8).view(COUNT, 1, 1, 8)
    split = Split(images, y, 3, (128.0 / 255,), (20.0 / 255,))
    wrapped = nn.Sequential(nn.Flatten(), net)
    loaders = batches(split.floats(slice(0, COUNT)), y)
    found = []
    for data in (split, loaders):
        at = Evaluator(wrapped, data, batch_size=250)
        more = Growing(at)
        more.grow(400)
        found.append(more.point(1.0, lambda x, at=at: at.move(direction(at), x))["train_loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize(
    ("confidence", "budget", "message"),
    [
        (1.0, None, "until: 1.0 is no confidence; give a share such as 0.95, 0.5 or more"),
        (0.3, None, "until: 0.3 is no confidence"),
        (True, None, "until: True is no confidence"),
        ("0.95", None, "until: '0.95' is no confidence"),
        (0.95, 20, r"budget: 20 examples are too few for a first look; give (128|192) or more"),
        (0.95, 200.0, "budget: 200.0 examples are too few"),
    ],
)
def test_mistakes_are_one_line(trained, confidence, budget, message):
    with pytest.raises(ValleysError, match=message):
        until_settled(Growing(evaluator(trained)), confidence, budget, lambda alpha: None)


def test_the_looks_share_what_may_be_wrong(trained):
    more, given = Growing(evaluator(trained)), []
    settled = until_settled(more, 0.95, None, lambda alpha: given.append(alpha))
    looks = [images for images, _ in settled.looks]
    assert looks[-1] == COUNT
    assert given == pytest.approx([0.05 / (len(looks) - 1)] * len(looks))
    assert settled.verdict is None  # as this judge never says anything
