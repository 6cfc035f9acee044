"""Which units of a network are free to be permuted and rescaled, and how another's are put in their order."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from valleys.errors import ValleysError
from valleys.models import builder
from valleys.models.options import validate_spec
from valleys.networks import symmetries
from valleys.networks.copies import evaluating

SHIPPED = {
    "mlp": {"arch": "mlp", "hidden": [16, 12], "norm": "batch"},
    "mlp, none": {"arch": "mlp", "hidden": [16, 12], "norm": "none"},
    "mlp, tanh": {"arch": "mlp", "hidden": [16, 12], "norm": "none", "activation": "tanh"},
    "resnet8": {"arch": "resnet8"},
    "resnet8, none": {"arch": "resnet8", "norm": "none"},
    "resnet8, layer": {"arch": "resnet8", "norm": "layer"},
    "resnet8, no skip": {"arch": "resnet8", "skip": False},
    "preresnet": {"arch": "preresnet", "depth": 20},
    "bottleneck": {"arch": "preresnet", "depth": 29, "block": "bottleneck"},
    "wrn": {"arch": "wrn", "depth": 10, "widen": 2},
    "densenet": {"arch": "densenet_bc", "depth": 22, "growth": 4},
}


def built(spec, seed=0):
    torch.manual_seed(seed)
    net = builder.build(validate_spec(spec), in_shape=(3, 16, 16), classes=10).eval()
    for module in net.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    return net


def images(seed=5):
    return torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def apart(net, state, x):
    other = copy.deepcopy(net)
    other.load_state_dict(state)
    with evaluating(net), evaluating(other):
        first, second = net(x).double(), other(x).double()
    return float((first - second).abs().max() / first.abs().max())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_permuted_copy_computes_the_same_and_is_recovered_exactly(name):
    net = built(SHIPPED[name])
    found = symmetries.trace(net, images())
    order = found.random(seed=3)
    state = found.permuted(net.state_dict(), order)
    changed = [n for n, t in net.state_dict().items() if not torch.equal(t, state[n])]
    assert changed
    assert apart(net, state, images(7)) < 1e-5
    back = symmetries.align(found, net.state_dict(), state)
    again = found.permuted(state, back)
    assert all(torch.equal(again[n], t) for n, t in net.state_dict().items())


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("mlp", "batch norm"),
        ("mlp, none", "relu"),
        ("mlp, tanh", None),
        ("resnet8", "batch norm"),
        ("resnet8, none", "relu"),
        ("resnet8, layer", None),
        ("densenet", "batch norm"),
    ],
)
def test_a_rescaled_copy_computes_the_same(name, how):
    net = built(SHIPPED[name])
    found = symmetries.trace(net, images())
    assert set(found.scaled.values()) == ({how} if how else set())
    state = found.rescaled(net.state_dict(), seed=1)
    assert apart(net, state, images(7)) < 1e-4  # batch norm's eps is not scaled
    moved = [n for n, t in net.state_dict().items() if not torch.equal(t, state[n])]
    assert bool(moved) == bool(how)


def test_the_first_and_the_last_layer_keep_what_is_outside():
    net = built(SHIPPED["mlp, none"])
    found = symmetries.trace(net, images())
    fixed = {("features.0.weight", 1), ("classifier.weight", 0), ("classifier.bias", 0)}
    assert not fixed & {(axis.name, axis.dim) for axis in found.axes}
    assert sorted(found.sizes[group] for group in found.moving) == [12, 16]


class Own(nn.Module):
    """A user's: functions, a flattened image, a residual sum, and units that look at each other."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.first, self.second, self.third = nn.Linear(6 * 64, 9), nn.Linear(9, 9), nn.Linear(9, 8)
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        x = torch.relu(self.first(x.view(x.size(0), -1)))
        x = x + F.gelu(self.second(x))
        return self.last(self.third(x).softmax(1))


def test_a_users_network_and_an_operation_that_is_not_known():
    torch.manual_seed(0)
    net = Own().eval()
    found = symmetries.trace(net, images())
    sizes = sorted(found.sizes[group] for group in found.moving)
    assert sizes == [6, 9]  # those of `third` are read by a softmax, which is not in the list
    state = found.permuted(net.state_dict(), found.random())
    assert apart(net, state, images(7)) < 1e-5
    assert torch.equal(state["third.bias"], net.third.bias)


class Looks(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(12, 5), nn.Linear(5, 2)

    def forward(self, x):
        x = self.first(x.flatten(1))
        return self.last(x) if x.sum() > 0 else self.last(-x)


def test_networks_of_which_nothing_is_known_are_one_line():
    with pytest.raises(ValleysError, match="the network cannot be traced"):
        symmetries.trace(Looks(), torch.randn(2, 3, 2, 2))
    with pytest.raises(ValleysError, match="no units of this network can be permuted"):
        symmetries.trace(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.randn(2, 3, 2, 2))


def test_alignment_brings_a_noisy_copy_nearest():
    net = built(SHIPPED["resnet8"])
    found = symmetries.trace(net, images())
    torch.manual_seed(1)
    noisy = {
        n: t + 0.02 * torch.randn_like(t) if t.is_floating_point() else t for n, t in net.state_dict().items()
    }
    order = found.random(seed=2)
    there = found.permuted(noisy, order)
    back = symmetries.align(found, net.state_dict(), there)
    assert all(torch.equal(order[group][back[group]], torch.arange(len(back[group]))) for group in order)
