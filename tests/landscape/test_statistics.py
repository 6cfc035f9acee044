"""Whether refreshed batch norm alone changes the loss: against plain passes."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from valleys import Evaluator, Landscape
from valleys.landscape import statistics

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
BATCHES = list(zip(X.split(20), Y.split(20), strict=True))


def network(shift, norm=True, seed=0):
    """A network whose stored mean of each unit is the data's own plus `shift`."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(4, 3), nn.BatchNorm1d(3) if norm else nn.Identity(), nn.Tanh(), nn.Linear(3, 2)
    )
    if norm:
        with torch.no_grad():
            out = net[0](X)
            net[1].running_mean.copy_(out.mean(0) + shift)
            net[1].running_var.copy_(out.var(0))
    return net.eval()


def losses_of(net, images=X, labels=Y):
    """Mean loss with stored statistics, and with those of the images, which are then one batch."""
    stored = F.cross_entropy(net(images), labels).item()
    return stored, F.cross_entropy(copy.deepcopy(net).train()(images), labels).item()


@pytest.mark.parametrize(("shift", "told"), [(0.0, False), (3.0, True)])
def test_losses_are_told_where_statistics_change_them(shift, told):
    net = network(shift)
    evaluator = Evaluator(net, BATCHES)
    assert statistics.losses_apart(evaluator) == (pytest.approx(losses_of(net), rel=1e-4) if told else None)
    assert torch.equal(evaluator.model[1].running_mean, net[1].running_mean)


@pytest.mark.parametrize(("norm", "bn"), [(True, "frozen"), (False, "refreshed")])
def test_where_nothing_is_refreshed_there_is_nothing_to_tell(norm, bn):
    assert statistics.losses_apart(Evaluator(network(3.0, norm), BATCHES, bn=bn)) is None


def test_of_many_images_some_are_enough(monkeypatch):
    monkeypatch.setattr(statistics, "SOME", 32)
    monkeypatch.setattr(statistics, "APART", 0.0)
    net = network(3.0)
    rows = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:32]
    found = statistics.losses_apart(Evaluator(net, BATCHES))
    assert found == pytest.approx(losses_of(net, X[rows], Y[rows]), rel=1e-4)


def test_losses_that_are_not_finite_are_not_compared():
    net = network(3.0)
    with torch.no_grad():
        net[3].weight.fill_(torch.inf)
    assert statistics.losses_apart(Evaluator(net, BATCHES)) is None


@pytest.mark.parametrize(
    "measure",
    [
        lambda landscape: landscape.loss(),
        lambda landscape: landscape.line(radius=0.1, points=5),
        lambda landscape: landscape.line(rise=0.1, points=5, until=0.95),
        lambda landscape: landscape.radius(landscape.random_direction(), rise=0.1),
        lambda landscape: landscape.plane(points=3),
        lambda landscape: landscape.path(network(0.0, seed=1), points=3),
        lambda landscape: landscape.search(rise=0.05, restarts=1, steps=1, floor=0.01),
    ],
    ids=["loss", "line", "until", "radius", "plane", "path", "search"],
)
def test_a_landscape_warns_once(measure, caplog):
    def said():
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    Landscape(network(0.0), BATCHES, progress=False).loss()
    Landscape(network(3.0), BATCHES, bn="frozen", progress=False).loss()
    assert said() == []
    landscape = Landscape(network(3.0), BATCHES, progress=False)
    measure(landscape)
    stored, refreshed = losses_of(network(3.0))
    (text,) = said()
    assert f"is {refreshed:.4g}, with the network's own statistics {stored:.4g}; " in text
    measure(landscape)
    assert len(said()) == 1
