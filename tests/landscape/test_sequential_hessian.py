"""Trace and eigenvalue on as many images as they need: of linear networks, whose Hessian is known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn
from torch.nn import functional as F
from valleys import Landscape
from valleys.errors import ValleysError
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.hessian import Hessian
from valleys.landscape.sequential_hessian import eigenvalue_until, trace_until
from valleys.models.losses import build

COUNT, WIDE = 8_000, 40


def linear(count=COUNT, width=6, size=500, seed=0, heavy=False):
    """An evaluator of x -> w x with squared error, whose Hessian is 2 E[x x'], and that matrix."""
    random = np.random.default_rng(seed)
    scale = np.linspace(2.0, 0.5, width)
    x = random.standard_normal((count, width)) * scale
    if heavy:  # a tenth of the images has most of the trace
        x *= np.where(random.random((count, 1)) < 0.1, 5.0, 0.5)
    x = torch.tensor(x, dtype=torch.float32)
    y = torch.zeros(count, 1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Linear(width, 1, bias=False)
    batches = list(zip(x.split(size), y.split(size), strict=True))
    at = Evaluator(net, batches, loss=build({"name": "mse"}, "regression"))
    whole = 2 * x.double().numpy().T @ x.double().numpy() / count
    return at, whole


def both(at, **options):
    names = list(at.parameters)
    return trace_until(at, names, **options), eigenvalue_until(at, names, **options)[0]


@pytest.mark.parametrize(
    ("width", "heavy"), [(6, False), (6, True), (WIDE, False)], ids=["plain", "heavy tails", "wide"]
)
def test_intervals_hold_the_values_of_all_images_as_often_as_they_say(width, heavy):
    at, whole = linear(width=width, heavy=heavy)
    true = np.trace(whole), np.linalg.eigvalsh(whole)[-1]
    runs = [both(at, confidence=0.9, within=0.25, seed=seed) for seed in range(8 if heavy else 20)]
    for value, found in zip(true, zip(*runs, strict=True), strict=True):
        missed = sum(not one.low <= value <= one.high for one in found)
        assert missed <= binom.ppf(0.999, len(found), 0.1)
        early = [one for one in found if one.settled.images < COUNT]
        assert len(early) > len(found) / 2
        assert all(
            abs(one.value - value) <= 0.25 * one.value for one in early if one.low <= value <= one.high
        )
        assert all(one.high - one.low <= 0.5 * one.value + 1e-9 for one in early)


def test_plain_ones_take_a_small_share_of_the_images():
    at, _ = linear()
    for found in both(at, confidence=0.95, within=0.2):
        assert found.settled.verdict == found.value
        assert found.settled.images <= 0.3 * COUNT
        assert found.settled.looks[-1] == (found.settled.images, found.value)
        assert "settled at 95%" in str(found.settled)


def test_a_sample_that_fits_its_vector_is_not_believed():
    # 40 directions on 96 images each half: the sample's eigenvalue is far above that of all images.
    at, whole = linear(width=WIDE)
    found, _ = eigenvalue_until(at, list(at.parameters), confidence=0.95, within=0.05, budget=192)
    assert found.settled.verdict is None
    assert found.low <= np.linalg.eigvalsh(whole)[-1] <= found.high
    assert "not settled" in str(found.settled)


def test_on_all_images_they_are_those_of_the_hessian():
    at, whole = linear(count=150)
    trace, eigenvalue = both(at, confidence=0.95, within=0.1)
    assert eigenvalue.settled.images == trace.settled.images == 150
    assert eigenvalue.value == pytest.approx(np.linalg.eigvalsh(whole)[-1], rel=1e-4)
    assert trace.value == pytest.approx(np.trace(whole), rel=0.1)
    assert trace.low - 1e-4 <= np.trace(whole) <= trace.high + 1e-4


def test_ignored_labels_do_not_count_and_groups_weigh_what_they_have():
    random = torch.Generator().manual_seed(1)
    x = torch.randn(1600, 5, generator=random)
    y = torch.randint(0, 3, (1600,), generator=random)
    y[:800] = torch.where(torch.rand(800, generator=random) < 0.9, -100, y[:800])
    y[:16] = -100  # whole groups of nothing, wherever they fall
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Linear(5, 3)
    at = Evaluator(net, list(zip(x.split(100), y.split(100), strict=True)), loss=nn.CrossEntropyLoss())
    names = list(at.parameters)
    of_all = Hessian(at.model, at.train_batches, at.loss, names)
    dense = np.stack([of_all @ row for row in np.eye(of_all.entries)])
    missed = 0
    for seed in range(5):
        trace, eigenvalue = both(at, confidence=0.9, within=0.15, seed=seed)
        missed += not trace.low <= np.trace(dense) <= trace.high
        missed += not eigenvalue.low <= np.linalg.eigvalsh(dense)[-1] <= eigenvalue.high
    assert missed <= binom.ppf(0.999, 10, 0.1)


def test_the_same_seed_gives_the_same_and_another_another_order():
    at, _ = linear(count=3000)
    first, again, other = (both(at, confidence=0.95, within=0.2, seed=seed) for seed in (4, 4, 5))
    assert [one.value for one in first] == [one.value for one in again]
    assert first[0].value != other[0].value


def test_a_landscape_has_them_and_counts_what_they_pass():
    at, whole = linear()
    data = list(at.train_batches)
    landscape = Landscape(at.model, data, F.mse_loss, progress=False)
    trace = landscape.trace(until=0.95, within=0.2)
    pair = landscape.hessian(until=0.95, within=0.2)
    assert trace.low <= np.trace(whole) <= trace.high
    assert pair.interval[0] <= np.linalg.eigvalsh(whole)[-1] <= pair.interval[1]
    assert trace.settled.images <= trace.settled.passed
    assert pair.settled.images < pair.settled.passed
    assert math.isclose(sum(float((d**2).sum()) for d in pair.directions[0].values()), 1, rel_tol=1e-5)
    assert {"low", "high", "eigenvalue"} <= set(pair.rows()[0])
    for said in (str(trace), str(pair)):
        assert "of 8,000 examples" in said


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda scape: scape.hessian(2, until=0.95), "k: 2"),
        (lambda scape: scape.hessian(until=0.95, tolerance=0.1), "tolerance: 0.1"),
        (lambda scape: scape.trace(until=0.95, tolerance=0.1), "tolerance: 0.1"),
        (lambda scape: scape.trace(until=0.3), "until: 0.3"),
        (lambda scape: scape.hessian(until="yes"), "until: 'yes'"),
        (lambda scape: scape.trace(until=0.95, within=0), "within: 0"),
        (lambda scape: scape.hessian(until=0.95, within="a tenth"), "within: 'a tenth'"),
        (lambda scape: scape.hessian(until=0.95, budget=10), "budget: 10"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(ask, says):
    at, _ = linear(count=400)
    landscape = Landscape(at.model, list(at.train_batches), F.mse_loss, progress=False)
    with pytest.raises(ValleysError, match=says) as error:
        ask(landscape)
    assert "\n" not in str(error.value)
