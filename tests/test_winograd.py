"""Convolutions by minimal filtering are the convolutions, and run where they should."""

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from valleys import winograd
from valleys.data.split import Split
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.lines import probe_line


@pytest.mark.parametrize(
    "shape", [(3, 5, 4, 4), (2, 5, 7, 9), (1, 3, 16, 5), (7, 4, 14, 8), (2, 3, 1, 2), (5, 3, 33, 6)], ids=str
)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
def test_is_the_convolution(shape, layout):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64).to(memory_format=layout)
    weight = torch.randn(6, shape[1], 3, 3, dtype=torch.float64).to(memory_format=layout)
    bias = torch.randn(6, dtype=torch.float64)
    for given in (None, bias):
        found = winograd.conv2d(x, weight, given)
        torch.testing.assert_close(found, F.conv2d(x, weight, given, padding=1), rtol=1e-11, atol=1e-11)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_images_that_go_through_in_pieces(monkeypatch):
    x, weight = torch.randn(11, 4, 8, 8, dtype=torch.float64), torch.randn(5, 4, 3, 3, dtype=torch.float64)
    whole = winograd.conv2d(x, weight)
    for images in (1, 3, 11):
        monkeypatch.setattr(winograd, "_PIECE_BYTES", images * 36 * 4 * 4 * 8)
        torch.testing.assert_close(winograd.conv2d(x, weight), whole)


def test_error_in_float32():
    torch.manual_seed(0)
    x, weight = torch.randn(60, 256, 8, 8).relu(), torch.randn(128, 256, 3, 3)
    truth = F.conv2d(x.double(), weight.double(), padding=1)
    assert (winograd.conv2d(x, weight) - truth).norm() / truth.norm() < 4e-6


def wide(**given) -> nn.Conv2d:
    return nn.Conv2d(128, 256, 3, **{"padding": 1, **given})


class Own(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.fixture
def taken(monkeypatch) -> Iterator[list[int]]:
    """Yield a list that gets the number of images of each call that goes another way than torch's."""
    calls, real = [], winograd.conv2d

    def counted(x, weight, bias=None):
        calls.append(len(x))
        return real(x, weight, bias)

    monkeypatch.setattr(winograd, "conv2d", counted)
    return calls


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (wide(), (60, 128, 8, 8), True),
        (wide(padding="same", bias=False), (15, 128, 14, 16), True),
        (wide(), (240, 128, 4, 4), True),
        (wide(), (59, 128, 8, 8), False),  # too few tiles
        (wide(), (240, 128, 6, 6), False),  # tiles of twice the image
        (wide(), (240, 128, 3, 4), False),
        (wide(), (4, 128, 20, 32), False),
        (nn.Conv2d(128, 128, 3, padding=1), (60, 128, 8, 8), False),
        (nn.Conv2d(64, 512, 3, padding=1), (60, 64, 8, 8), False),
        (wide(stride=2), (60, 128, 8, 8), False),
        (wide(padding=0), (60, 128, 8, 8), False),
        (wide(padding="valid"), (60, 128, 8, 8), False),
        (wide(dilation=2, padding=2), (60, 128, 8, 8), False),
        (wide(groups=2), (60, 128, 8, 8), False),
        (wide(padding_mode="circular"), (60, 128, 8, 8), False),
        (nn.Conv2d(128, 256, 1), (60, 128, 8, 8), False),
        (Own(128, 256, 3, padding=1), (60, 128, 8, 8), False),
        (wide().double(), (60, 128, 8, 8), False),
    ],
    ids=lambda value: str(value),
)
def test_where_it_is_taken(layer, shape, expected, taken):
    x = torch.randn(shape, dtype=layer.weight.dtype)
    with torch.no_grad():
        before = layer(x)
        winograd.install(nn.Sequential(layer))
        torch.testing.assert_close(layer(x), before, rtol=1e-4, atol=1e-4)
    assert taken == [len(x)] * expected


def test_not_where_something_is_differentiated_or_bf16(taken):
    layer, x = wide(), torch.randn(60, 128, 8, 8)
    plain = copy.deepcopy(layer)
    winograd.install(layer)
    layer(x).sum().backward()
    plain(x).sum().backward()
    assert torch.equal(layer.weight.grad, plain.weight.grad)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer(x), plain(x))
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, torch.ones_like(x))
            ours, theirs = (forward_ad.unpack_dual(m(dual)).tangent for m in (layer, plain))
            assert torch.equal(ours, theirs)
        assert not taken
        layer(x)
        assert taken == [60]


def test_a_forward_pass_of_the_callers_own_stays(taken):
    layer = wide()
    layer.forward = lambda x: x + 1
    winograd.install(layer)
    x = torch.zeros(60, 128, 8, 8)
    with torch.no_grad():
        assert torch.equal(layer(x), x + 1)


@pytest.mark.parametrize("bn", ["frozen", "refreshed"])
def test_lines_take_it_and_leave_the_callers_network_alone(bn, taken, monkeypatch):
    torch.manual_seed(0)
    narrow = [nn.Conv2d(3, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU()]
    head = [nn.BatchNorm2d(256), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10)]
    model = nn.Sequential(*narrow, wide(bias=False), *head)
    images = torch.randint(0, 256, (120, 3, 8, 8), dtype=torch.uint8)
    split = Split(images, torch.randint(0, 10, (120,)), 10, (0.5,) * 3, (0.25,) * 3)
    direction = {name: torch.randn_like(p) / 30 for name, p in model.named_parameters()}

    def line():
        return probe_line(Evaluator(model, split, split, bn=bn, batch_size=60), direction, [-1.0, 0.0, 1.0])

    found = line()
    assert set(taken) == {60}
    assert "forward" not in vars(model[3])
    monkeypatch.setattr(winograd, "install", lambda model: None)
    taken.clear()
    for ours, theirs in zip(found, line(), strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)
        assert ours["test_loss"] == pytest.approx(theirs["test_loss"], rel=1e-5)
    assert not taken
