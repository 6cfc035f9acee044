"""Each loss equals its formula written out by hand, one value an image."""

import math

import pytest
import torch
from valleys.errors import ValleysError
from valleys.models.losses import build

LABELS = [2, 0, 1, 2]


def logits():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2


def probabilities(row):
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def naive(spec, row, label):
    p = probabilities(row)
    if spec["name"] == "cross_entropy":
        return -math.log(p[label])
    if spec["name"] == "label_smoothing":
        s = spec["smoothing"]
        target = [s / len(p) + (1 - s) * (c == label) for c in range(len(p))]
        return -sum(t * math.log(q) for t, q in zip(target, p, strict=True))
    if spec["name"] == "focal":
        return -((1 - p[label]) ** spec["gamma"]) * math.log(p[label])
    return sum((x - (c == label)) ** 2 for c, x in enumerate(row)) / len(row)


SPECS = [
    {"name": "cross_entropy"},
    {"name": "label_smoothing", "smoothing": 0.1},
    {"name": "label_smoothing", "smoothing": 1.0},
    {"name": "focal", "gamma": 2},
    {"name": "focal", "gamma": 0.5},
    {"name": "mse"},
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_losses_equal_their_formulas(spec):
    values = build(spec)(logits(), torch.tensor(LABELS))
    expected = [naive(spec, row, label) for row, label in zip(logits().tolist(), LABELS, strict=True)]
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_gradients_are_right(spec):
    loss = build(spec)
    assert torch.autograd.gradcheck(lambda x: loss(x, torch.tensor(LABELS)), logits().requires_grad_())


def test_limits_are_cross_entropy():
    x, y = logits(), torch.tensor(LABELS)
    expected = build({"name": "cross_entropy"})(x, y)
    torch.testing.assert_close(build({"name": "focal", "gamma": 0})(x, y), expected)
    torch.testing.assert_close(build({"name": "label_smoothing", "smoothing": 0.0})(x, y), expected)


def test_known_values():
    even = torch.zeros(1, 10)
    zero = torch.tensor([3])
    assert build({"name": "cross_entropy"})(even, zero).item() == pytest.approx(math.log(10))
    assert build({"name": "mse"})(even, zero).item() == pytest.approx(0.1)
    assert build({"name": "focal", "gamma": 2})(even, zero).item() == pytest.approx(0.81 * math.log(10))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_types_shapes_and_the_callers_tensors_are_kept(spec):
    x, y = logits().float(), torch.tensor(LABELS)
    before = x.clone()
    values = build(spec)(x, y)
    assert (values.shape, values.dtype) == ((4,), torch.float32)
    assert torch.equal(x, before)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2])
def test_focal_has_a_gradient_where_the_image_is_certain(gamma):
    x = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)  # cross-entropy is exactly 0 here
    value = build({"name": "focal", "gamma": gamma})(x, torch.tensor([0]))
    value.sum().backward()
    assert value.item() == 0
    assert torch.isfinite(x.grad).all()


def test_focal_is_exact_for_small_losses():
    gap = 14.0  # 1 - p is about 2e-6, of which float32 keeps little in 1 - exp(-nll)
    x = torch.tensor([[gap, 0.0, 0.0]])
    nll = math.log1p(2 * math.exp(-gap))
    expected = (-math.expm1(-nll)) ** 2 * nll
    loss = build({"name": "focal", "gamma": 2})
    own = build({"name": "cross_entropy"})(x, torch.tensor([0])).item()
    assert loss(x, torch.tensor([0])).item() == pytest.approx((-math.expm1(-own)) ** 2 * own, rel=1e-5)
    assert loss(x.double(), torch.tensor([0])).item() == pytest.approx(expected, rel=1e-9)


def test_an_unknown_name_is_one_line():
    with pytest.raises(ValleysError, match="'hinge' is none of a classification; write cross_entropy, "):
        build({"name": "hinge"})
