"""Batch norm that does more than normalise, or cannot be followed."""

import copy
import warnings

import pytest
import torch
from bn_networks import DOORS, Activates, images, one_layer
from torch import nn
from torch.nn import functional as F
from valleys import Evaluator, probe_line
from valleys.errors import ValleysError
from valleys.landscape import directions
from valleys.networks.batch_norm import batch_norms
from valleys.networks.bn_refresh import refresh_bn, refreshed_logits


class ActivatesAfter(nn.BatchNorm2d):
    def forward(self, x):
        return torch.relu(super().forward(x))


class ActivatesBefore(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(torch.relu(x))


class OwnAffine(nn.BatchNorm2d):
    def forward(self, x):
        scale = self.weight.abs() + 1
        return F.batch_norm(x, self.running_mean, self.running_var, scale, None, self.training, 0.1, 1e-2)


class Casts(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


def instance_forward(channels):
    layer = nn.BatchNorm2d(channels)
    layer.forward = lambda x: torch.tanh(nn.BatchNorm2d.forward(layer, x))
    return layer


def net_with(norm):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), norm(6), nn.Tanh(), nn.Conv2d(6, 6, 3), norm(6), nn.Flatten(), nn.Linear(96, 3)
    )


def compiled_inside(channels):
    return torch.compile(nn.BatchNorm2d(channels), backend="eager")


FOLLOWED = {
    "activates": Activates,
    "activates after": ActivatesAfter,
    "activates before": ActivatesBefore,
    "own affine": OwnAffine,
    "casts": Casts,
    "forward set on the layer": instance_forward,
    "no affine": lambda n: nn.BatchNorm2d(n, affine=False),
    "no momentum": lambda n: nn.BatchNorm2d(n, momentum=None),
    "synchronised": nn.SyncBatchNorm,
    "data parallel": lambda n: nn.DataParallel(nn.BatchNorm2d(n)),
    "compiled": compiled_inside,
}


@pytest.mark.slow
@pytest.mark.parametrize("cut", [[24], [10, 9, 5]])
@pytest.mark.parametrize("kind", FOLLOWED)
def test_a_layer_may_do_more_than_normalise(kind, cut):
    net, x = net_with(FOLLOWED[kind]).double(), images(24, shift=3.0).double()
    forwards = [vars(layer).get("forward") for layer in batch_norms(net)]
    u, _ = directions.random_direction("gaussian", net)
    twin = net_with(FOLLOWED[kind]).double().train()
    plain = kind in ("synchronised", "compiled")  # whose train mode needs a GPU, or may differ
    if plain:
        twin = net_with(nn.BatchNorm2d).double().train()
    expected = twin(x)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(refreshed_logits(net, x.split(cut))), expected.detach())
        torch.testing.assert_close(torch.cat(refresh_bn(net, x.split(cut))), expected.detach())
        torch.testing.assert_close(net.eval()(x), expected.detach())
    assert [vars(layer).get("forward") for layer in batch_norms(net)] == forwards
    if "forward" in kind:
        return  # a copy of such a layer still calls the original
    data = [(part, torch.arange(len(part)) % 3) for part in x.split(cut)]
    evaluator = Evaluator(net, data, loss=nn.CrossEntropyLoss(reduction="none"))
    assert evaluator.bn == "refreshed"
    below, at, above = probe_line(evaluator, u, [0.5 - 1e-5, 0.5, 0.5 + 1e-5], exact=True)
    slope = (above["train_loss"] - below["train_loss"]) / 2e-5
    assert at["train_slope"] == pytest.approx(slope, rel=1e-4, abs=1e-7)


class Manual(nn.BatchNorm2d):
    def forward(self, x):
        mean, var = (t.view(1, -1, 1, 1) for t in (self.running_mean, self.running_var))
        return (x - mean) * torch.rsqrt(var + self.eps)


class Own(nn.Module):
    """No batch norm of torch's, but one."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, training=self.training)


class OwnByHand(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.register_buffer("moving_mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("moving_std", torch.ones(1, channels, 1, 1))

    def forward(self, x):
        if self.training:
            self.moving_mean.lerp_(x.detach().mean((0, 2, 3), keepdim=True), 0.1)
            self.moving_std.lerp_(x.detach().std((0, 2, 3), keepdim=True), 0.1)
        return (x - self.moving_mean) / self.moving_std


class OneStatistic(nn.Module):
    """As EvoNorm-B0, which has no mean."""

    def __init__(self, channels):
        super().__init__()
        self.v = nn.Parameter(torch.ones(channels, 1, 1))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        if self.training:
            self.running_var.lerp_(x.detach().var((0, 2, 3)), 0.1)
        spread = (self.running_var[:, None, None] + 1e-3).sqrt()
        return x / torch.maximum(spread, self.v * x + (x.var((2, 3), keepdim=True) + 1e-3).sqrt())


class Whitens(nn.Module):
    """As IterNorm, whose second statistic is a matrix."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(1, channels, 1))
        self.register_buffer("running_wm", torch.eye(channels)[None], persistent=False)

    def forward(self, x):
        flat = x.transpose(0, 1).flatten(1)[None]
        if self.training:
            self.running_mean.lerp_(flat.detach().mean(-1, keepdim=True), 0.1)
            self.running_wm.lerp_(
                torch.linalg.inv(torch.linalg.cholesky(torch.cov(flat[0].detach())))[None], 0.1
            )
        out = self.running_wm @ (flat - self.running_mean)
        return out.view(x.shape[1], len(x), *x.shape[2:]).transpose(0, 1)


class Scales(nn.Module):
    """One number for all channels."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("power", torch.ones(()))

    def forward(self, x):
        if self.training:
            self.power.lerp_(x.detach().square().mean(), 0.1)
        return x / self.power.sqrt()


class Queues(Scales):
    """Keeps what only training reads."""

    def forward(self, x):
        if self.training:
            self.power.lerp_(x.detach().square().mean(), 0.1)
        return x * 2


class Frozen(Own):
    """As detectron2's FrozenBatchNorm2d: its statistics are constants."""

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, training=False)


class OfTheBatch(nn.BatchNorm2d):
    def forward(self, x):
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True)


def scripted(channels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.BatchNorm2d(channels))


def traced(channels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(nn.BatchNorm2d(channels).eval(), torch.zeros(2, channels, 4, 4))


def exported(channels):
    return torch.export.export(nn.BatchNorm2d(channels).eval(), (torch.zeros(2, channels, 4, 4),)).module()


class WithoutStatistics(nn.BatchNorm2d):
    def __init__(self, channels):
        super().__init__(channels)
        self.running_mean = self.running_var = None


def sharing(channels, made=[]):  # noqa: B006
    layer = nn.BatchNorm2d(channels)
    if made:
        layer.running_mean, layer.running_var = made[0].running_mean, made[0].running_var
        made.clear()
    else:
        made.append(layer)
    return layer


REFUSED = {
    "by hand": (Manual, "layer 1 is a Manual, which normalises in a way of its own"),
    "own": (Own, "layer 1 is a Own with statistics of its own"),
    "own, by hand": (OwnByHand, "layer 1 is a OwnByHand with statistics of its own"),
    "own, one statistic": (OneStatistic, "layer 1 is a OneStatistic with statistics of its own"),
    "own, a matrix": (Whitens, "layer 1 is a Whitens with statistics of its own"),
    "own, a number": (Scales, "layer 1 is a Scales with statistics of its own"),
    "of the batch": (OfTheBatch, "training=True in eval mode|depend on the other images of its batch"),
    "scripted": (scripted, "layer of 1 is in TorchScript"),
    "traced": (traced, "layer of 1 is in TorchScript"),
    "exported": (exported, "is part of a traced graph"),
    "untracked": (lambda n: nn.BatchNorm2d(n, track_running_stats=False), "keeps no running statistics"),
    "statistics taken away": (WithoutStatistics, "keeps no running statistics"),
    "lazy": (lambda n: nn.LazyBatchNorm2d(), "layer 1 is lazy"),
    "sharing": (sharing, "layer 4 has the running statistics of 1"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_followed_is_refused_at_every_door(kind, door):
    norm, words = REFUSED[kind]
    net = net_with(norm)
    modes = [m.training for m in net.modules()]
    with pytest.raises(ValleysError, match=words) as error:
        DOORS[door](net, list(images(24).split(10)))
    assert "\n" not in str(error.value)
    assert [m.training for m in net.modules()] == modes


class Twice(nn.Module):
    """Uses its layer once, or more often where images are bright."""

    def __init__(self, when):
        super().__init__()
        self.norm, self.when = nn.BatchNorm2d(3), when

    def forward(self, x):
        for _ in range(2 if float(x.mean()) > self.when else 1):
            x = self.norm(x)
        return x.flatten(1)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("when", [-9, 0.5])
def test_a_layer_used_twice_is_refused_also_for_some_batches(door, when):
    batches = [images(10) * 0.01, images(10) * 0.01 + 1]
    with pytest.raises(ValleysError, match=r"layer norm is used 2 times|different paths"):
        DOORS[door](Twice(when), batches)


def test_constants_and_instance_norm_are_no_batch_norm():
    data = [(images(20), torch.arange(20) % 3)]
    for norm in (Frozen, Queues, lambda n: nn.InstanceNorm2d(n, track_running_stats=True)):
        net = net_with(norm)
        before = copy.deepcopy(net.state_dict())
        assert Evaluator(net, data).bn == "none"
        refresh_bn(net, [data[0][0]])
        assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())


def test_what_is_only_not_refreshed_may_be_frozen():
    data = [(images(20), torch.arange(20) % 3)]
    for norm in (Own, OwnByHand, OneStatistic, Whitens, Scales, Manual):
        evaluator = Evaluator(net_with(norm), data, bn="frozen")
        assert evaluator.bn == "frozen"
        assert evaluator.point().train_loss > 0
    with pytest.raises(ValleysError, match="keeps no running statistics"):
        Evaluator(net_with(lambda n: nn.BatchNorm2d(n, track_running_stats=False)), data, bn="frozen")


@pytest.mark.parametrize("method", ["exact", "streaming"])
def test_one_value_a_channel_has_no_variance(method):
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192))
    with pytest.raises(ValleysError, match="one value a channel"):
        refresh_bn(net, [images(1)], method)
    with pytest.raises(ValleysError, match="one value a channel"):
        refreshed_logits(net, [images(1)])
    refresh_bn(net, images(2).split(1), method)  # a batch of one among others
    refresh_bn(one_layer(), [images(1)], method)  # pixels
