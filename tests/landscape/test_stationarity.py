"""The gradient at a solution and what a step along it gains: exact on quadratics."""

import math

import pytest
import torch
from analytic_networks import classifier, on_function
from torch import nn
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.stationarity import gradient_at_start


def quadratic(diagonal, least=0.0):
    h = torch.tensor(diagonal, dtype=torch.float64)
    return lambda theta: (h.to(theta) * theta.square()).sum() / 2 + least


@pytest.mark.parametrize("scale", [2**-10, 1.0, 2**10])
@pytest.mark.parametrize(
    ("diagonal", "theta"),
    [((1.0, 1.0), (3.0, 4.0)), ((1.0, 100.0), (2.0, 0.125)), ((1.0, 2**13, 2**-10), (1.0, 2**-10, 5.0))],
)
def test_of_a_quadratic_it_is_exact(diagonal, theta, scale):
    """Along minus the gradient g a quadratic falls by (g.g)^2 / (2 g.Hg)."""
    evaluator = on_function(quadratic([scale * d for d in diagonal], 7.0), theta, dtype=torch.float64)
    norm, gain = gradient_at_start(evaluator)
    g = [scale * d * x for d, x in zip(diagonal, theta, strict=True)]
    squares = sum(x * x for x in g)
    curved = sum(scale * d * x * x for d, x in zip(diagonal, g, strict=True))
    assert norm == pytest.approx(math.sqrt(squares), rel=1e-12)
    # Never more than there is, and short of it by what eight refinements leave.
    assert (1 - 1e-3) * squares**2 / (2 * curved) < gain <= squares**2 / (2 * curved) * (1 + 1e-9)


def test_a_round_bowl_is_left_by_its_whole_depth_and_at_its_bottom_nothing_is_gained():
    _, gain = gradient_at_start(on_function(quadratic((2.0, 2.0)), (0.3, -0.4), dtype=torch.float64))
    assert gain == pytest.approx(0.25, rel=1e-3)
    assert gradient_at_start(on_function(quadratic((2.0, 2.0)), (0.0, 0.0))) == (0.0, 0.0)


def test_a_gain_is_never_below_0():
    """At a kink the gradient of one side leads up the other."""
    evaluator = on_function(lambda theta: theta.abs().sum(), (1e-12, 1.0), dtype=torch.float64)
    norm, gain = gradient_at_start(evaluator)
    assert norm == pytest.approx(math.sqrt(2))
    assert 0 <= gain <= 1


def test_a_step_that_leaves_the_finite_is_not_taken():
    """-log(1 - x): no loss beyond 1, a rise of no end before it; the fall is towards minus infinity."""
    wall = on_function(lambda theta: -torch.log(1 - theta.square()).sum(), (0.5,), dtype=torch.float64)
    norm, gain = gradient_at_start(wall)
    assert norm == pytest.approx(4 / 3)
    assert gain == pytest.approx(-math.log(0.75), rel=1e-2)


class _Raises(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, theta):
        return x * theta.sum()

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError("not differentiable")


class Stuck(nn.Module):
    """A network that has a loss but that torch cannot differentiate."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return _Raises.apply(x[:, :2], self.theta)


def images(width=3):
    x = torch.randn(20, width, generator=torch.Generator().manual_seed(0))
    return [(x, torch.zeros(20, dtype=torch.int64))]


def test_nan_where_torch_cannot_differentiate_or_a_loss_is_not_finite():
    assert all(math.isnan(x) for x in gradient_at_start(Evaluator(Stuck(), images(), bn="frozen")))
    lost = on_function(lambda theta: torch.log(theta).sum(), (-1.0,))
    assert all(math.isnan(x) for x in gradient_at_start(lost))
    steep = on_function(lambda theta: theta.sqrt().sum(), (0.0,))  # a finite loss, no finite gradient
    assert all(math.isnan(x) for x in gradient_at_start(steep))


def test_memory_that_is_short_is_no_nan(monkeypatch):
    def short(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("valleys.landscape.stationarity.loss_and_gradient", short)
    with pytest.raises(torch.OutOfMemoryError):
        gradient_at_start(on_function(quadratic((1.0,)), (1.0,)))


@pytest.mark.parametrize("norm", [True, False])
def test_of_a_network_it_is_torchs_gradient_and_leaves_the_weights(norm):
    net, train = classifier(norm=norm, dtype=torch.float64, steps=10)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    evaluator = Evaluator(net, train, bn="frozen")
    size, gain = gradient_at_start(evaluator)
    x, y = (torch.cat(each) for each in zip(*train, strict=True))
    nn.functional.cross_entropy(net(x), y).backward()
    expected = torch.cat([p.grad.flatten() for p in net.parameters()])
    assert size == pytest.approx(float(expected.norm()), rel=1e-9)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    base = evaluator.train_loss()[0]
    assert 0 < gain < base
    # No step on a grid of them falls further by more than the refinement leaves.
    unit = expected / expected.norm()
    sizes = [p.numel() for p in net.parameters()]
    pieces = zip(evaluator.parameters.items(), unit.split(sizes), strict=True)
    direction = {name: -piece.view(p.shape) for (name, p), piece in pieces}
    falls = []
    for step in torch.linspace(0, 20, 400).tolist():
        evaluator.move(direction, step)
        falls.append(base - evaluator.train_loss()[0])
    evaluator.reset()
    assert gain >= 0.99 * max(falls)


def test_trained_longer_a_network_has_less_to_gain():
    gains = []
    for steps in (5, 2000):
        net, train = classifier(dtype=torch.float64, steps=steps, labels="noise", width=2)
        gains.append(gradient_at_start(Evaluator(net, train, bn="frozen"))[1])
    assert gains[1] < 0.1 * gains[0]


def test_the_fall_is_measured_on_a_part_of_the_images_along_the_gradient_of_all():
    net, train = classifier(dtype=torch.float64, steps=10)
    evaluator = Evaluator(net, train, bn="frozen")
    size, gain = gradient_at_start(evaluator)
    part = Evaluator(net, train[:1], bn="frozen")
    norm, few = gradient_at_start(evaluator, part.train_batches)
    assert norm == size  # of all
    assert few != gain
    assert gradient_at_start(evaluator, evaluator.train_batches) == (size, gain)
    # The same step is sought as by hand on the part.
    own = {name: p.detach().clone() for name, p in evaluator.parameters.items()}
    x, y = (torch.cat(each) for each in zip(*train, strict=True))
    nn.functional.cross_entropy(net(x), y).backward()
    direction = {name: -p.grad / size for name, p in net.named_parameters()}
    falls = [part.train_loss()[0]]
    for step in torch.linspace(0, 20, 400).tolist():
        part.move(direction, step)
        falls.append(part.train_loss()[0])
    assert few == pytest.approx(falls[0] - min(falls), rel=0.01)
    assert all(torch.equal(own[name], p) for name, p in evaluator.parameters.items())
