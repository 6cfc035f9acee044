"""Slopes, gradients and curvature are those of the losses, or are refused."""

import copy
import functools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from odd_networks import COPIED, DEFECTS, LOSS, Net, Net2, Recurrent, batches, flat, probed, split
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint
from valleys import Landscape, probe_line
from valleys.data.split import Split
from valleys.errors import ValleysError
from valleys.landscape import computed, directions, hessian, stationarity
from valleys.landscape.evaluator import Evaluator
from valleys.networks import copies, derivatives


class Sign(torch.autograd.Function):
    """Straight-through: a step with the derivative of the identity."""

    @staticmethod
    def forward(ctx, w):
        return torch.sign(w)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 0.97 * gradient


class Tied(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.a, self.head, self.how = nn.Linear(6, 6), nn.Linear(6, 3), how
        if how not in ("list", "nested"):
            self.b = nn.Linear(6, 6)
        if how == "parametrized":
            parametrize.register_parametrization(self.a, "weight", nn.Tanh())
            self.b.weight = self.a.parametrizations.weight.original
        elif how == "list":
            self.held = [self.a.weight]
        elif how == "nested":
            self.held = {"weights": (self.a.weight,)}
        elif how == "layer":
            self.b = self.a
        else:
            self.b.weight = self.a.weight

    def forward(self, x):
        h = torch.tanh(self.a(x))
        if self.how in ("list", "nested"):
            held = self.held[0] if self.how == "list" else self.held["weights"][0]
            return self.head(torch.tanh(F.linear(h, held)))
        return self.head(torch.tanh(self.b(h)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)

    def forward(self, x):
        return self.head(self.layer(self.a(x[:, None] * torch.arange(1.0, 4.0).to(x)[:, None]))[:, 0])


def without_graph(net, x):
    with torch.no_grad():
        hidden = net.a(x)
    return net.b(torch.tanh(hidden))


def through_checkpoint(net, x):
    return net.b(checkpoint(net.a, x, use_reentrant=False))


RIGHT = {
    **{f"tied: {how}": functools.partial(Tied, how) for how in ("weight", "list", "nested", "layer")},
    "tied: parametrized": lambda: Tied("parametrized"),
    "lstm": lambda: Recurrent(nn.LSTM(6, 8, batch_first=True)),
    "gru": lambda: Recurrent(nn.GRU(6, 8, batch_first=True)),
    "attention": Attention,
    "weight_norm": COPIED["weight_norm"],
    "checkpoint": lambda: Net(through_checkpoint),
    "no_grad": lambda: Net(without_graph),  # tangents pass there
    "relu": lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)),
    "scripted": lambda: torch.jit.script(Net2()),
}


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
def test_exact_slopes_are_those_of_the_losses(name, bn):
    torch.manual_seed(0)
    net, h = RIGHT[name]().double(), 1e-5
    direction = directions.random_direction("gaussian", net)[0]
    evaluator = Evaluator(net, batches(torch.float64), loss=LOSS, bn=bn)
    low, at, high = probe_line(evaluator, direction, [0.5 - h, 0.5, 0.5 + h], exact=True)
    difference = (high["train_loss"] - low["train_loss"]) / (2 * h)
    assert at["train_slope"] == pytest.approx(difference, rel=1e-5, abs=1e-9)


def quantized(net, x):
    weight = net.a.weight
    return net.b(torch.tanh(F.linear(x, weight + (torch.round(8 * weight) / 8 - weight).detach())))


def stops(net, x):
    return net.b(torch.tanh(net.a(x)) + 0.1 * torch.tanh(net.a(x)).detach())


def in_inference_mode(net, x):
    with torch.inference_mode():
        hidden = net.a(x)
    return net.b(torch.tanh(hidden.clone()))


def through_numpy(net, x):
    return net.b(torch.from_numpy(x.numpy() @ net.a.weight.detach().numpy().T))


def reentrant(net, x):
    return net.b(torch.tanh(checkpoint(net.a, x, use_reentrant=True)))


HIDDEN = {
    "straight-through": lambda: Net(lambda net, x: net.b(F.linear(x, Sign.apply(net.a.weight)))),
    "rounded": lambda: Net(quantized),
    "stop-gradient": lambda: Net(stops),
    "inference_mode": lambda: Net(in_inference_mode),
    "numpy": lambda: Net(through_numpy),
    "data": lambda: Net(lambda net, x: net.b(F.linear(x, net.a.weight.data.clone()))),
    "wrong derivative": lambda: Net(lambda net, x: net.b(Wrong.apply(net.a(x)))),
    "reentrant": lambda: Net(reentrant),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", HIDDEN)
def test_a_slope_that_is_not_the_losses_is_refused_and_the_losses_are_not(name, dtype):
    torch.manual_seed(0)
    net = HIDDEN[name]().to(dtype)
    with pytest.raises(ValleysError, match=r"network: .*exact=False") as caught:
        probed(net, dtype, exact=True)
    assert "\n" not in str(caught.value)
    direction, curve = probed(net, dtype)
    with torch.no_grad():
        for n, p in net.named_parameters():
            p.add_(direction[n], alpha=0.5)
        right = torch.cat([LOSS(net(x), y) for x, y in batches(dtype)]).mean().item()
    assert curve[2]["train_loss"] == pytest.approx(right, rel=1e-5)
    assert torch.autograd.forward_ad._is_fwd_grad_enabled()


class Normed(nn.Module):
    """Batch norm, a part of the network, and what hides that part from differentiation."""

    def __init__(self, how):
        super().__init__()
        self.part = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.rest = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
        self.how = how

    def forward(self, x):
        return self.rest(self.how(self.part, x))


def stopped(part, x):
    return part(x) * part[1].weight.detach()


def not_recorded(part, x):
    with torch.inference_mode():
        hidden = part(x)
    return hidden.clone()


WITHIN = {
    "stop-gradient": stopped,
    "inference_mode": not_recorded,
    "reentrant": lambda part, x: checkpoint(part, x, use_reentrant=True),
    "wrong derivative": lambda part, x: Wrong.apply(part(x)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", WITHIN)
def test_a_part_with_batch_norm_that_is_hidden_is_refused_whatever_its_statistics(name, dtype, bn):
    """With refreshed ones, batches wait for each other within the part, and slopes follow the statistics."""
    torch.manual_seed(0)
    evaluator = Evaluator(Normed(WITHIN[name]).to(dtype), batches(dtype), loss=LOSS, bn=bn)
    direction = directions.random_direction("gaussian", evaluator.model)[0]
    with pytest.raises(ValleysError, match=r"network: .*exact=False"):
        probe_line(evaluator, direction, [-0.5, 0.5], exact=True)
    assert torch.autograd.forward_ad._is_fwd_grad_enabled()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", WITHIN)
def test_a_gradient_that_hides_a_part_has_no_norm_and_is_no_direction(name, dtype):
    torch.manual_seed(0)
    net = Normed(WITHIN[name]).to(dtype)
    held = Evaluator(net, batches(dtype), loss=LOSS, bn="frozen")
    norm, gain = stationarity.gradient_at_start(held)
    assert math.isnan(norm)
    assert math.isnan(gain)
    landscape = Landscape(net, batches(dtype), LOSS)
    for ask in (landscape.gradient, lambda: landscape.line("gradient")):
        with pytest.raises(ValleysError, match=r"network: "):
            ask()


def test_the_gradient_of_a_plain_network_is_taken():
    torch.manual_seed(0)
    net = Normed(lambda part, x: part(x))
    norm, gain = stationarity.gradient_at_start(Evaluator(net, batches(), loss=LOSS, bn="frozen"))
    assert norm > 0
    assert gain > 0
    assert Landscape(net, batches(), LOSS).gradient().norm == pytest.approx(norm)


@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
def test_what_slopes_are_compared_with_moves_with_the_weights(monkeypatch, bn):
    seen = []
    differs = derivatives.differs

    def watched(phi, slope, scale, eps):
        seen.append((slope, phi(scale) - phi(-scale)))
        return differs(phi, slope, scale, eps)

    monkeypatch.setattr(derivatives, "differs", watched)
    torch.manual_seed(0)
    net = Normed(lambda part, x: part(x)).double()
    evaluator = Evaluator(net, batches(torch.float64), loss=LOSS, bn=bn)
    direction = directions.random_direction("gaussian", evaluator.model)[0]
    probe_line(evaluator, direction, [-0.5, 0.5], exact=True)
    ((slope, change),) = seen
    assert abs(slope) > 1e-6
    assert abs(change) > 1e-6


def test_one_slope_of_each_line_is_compared(monkeypatch):
    compared = []
    differs = derivatives.differs
    monkeypatch.setattr(derivatives, "differs", lambda *a: compared.append(a[1]) or differs(*a))
    evaluator = Evaluator(Net(), batches(), loss=LOSS)
    lines = [directions.random_direction("gaussian", evaluator.model, k=k)[0] for k in range(3)]
    before = [probe_line(evaluator, u, [-0.5, 0.5], exact=True) for u in lines]
    assert len(compared) == 3
    monkeypatch.setattr(derivatives, "differs", lambda *a: None)
    assert before == [probe_line(evaluator, u, [-0.5, 0.5], exact=True) for u in lines]


@pytest.mark.parametrize("eps", [torch.finfo(torch.float64).eps, torch.finfo(torch.float32).eps])
def test_a_kink_is_no_wrong_slope_and_a_wrong_one_is_found(eps):
    def rounded(value):
        return float(np.float32(value)) if eps > 1e-10 else value

    smooth = lambda t: rounded(1 + 3 * t + 5 * t * t)  # noqa: E731
    kink = lambda t: rounded(1 + (3 * t if t > 0 else t))  # noqa: E731
    assert derivatives.differs(smooth, 3.0, 1.0, eps) is None
    assert derivatives.differs(kink, 3.0, 1.0, eps) is None
    assert derivatives.differs(kink, 1.0, 1.0, eps) is None
    assert derivatives.differs(lambda t: rounded(1.0), 0.0, 1.0, eps) is None
    assert derivatives.differs(lambda t: rounded(math.inf), 1.0, 1.0, eps) is None
    assert derivatives.differs(smooth, 3.2, 1.0, eps) == pytest.approx(3.0, rel=0.1)
    assert derivatives.differs(kink, 4.0, 1.0, eps) is not None
    assert derivatives.differs(smooth, 0.0, 1.0, eps) is not None


class Experts(nn.Module):
    """Sends each image to one of two layers; the first 20 images come to both, others perhaps not."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(6, 3), nn.Linear(6, 3)])

    def forward(self, x):
        to = (x[:, 0] > 1.2).long()
        out = x.new_zeros(len(x), 3)
        for i, expert in enumerate(self.experts):
            if (to == i).any():
                out = out.index_add(0, (to == i).nonzero()[:, 0], expert(x[to == i]))
        return out


@pytest.mark.parametrize("kink", [0.3, 0.03, 0.01])
def test_kinks_that_bend_a_curve_both_ways_are_no_wrong_slope(kink):
    """Opposite ones on both sides, nearer than the first steps: the second difference is 0 at every step."""
    eps = 2.3e-16
    at = kink * 5 * eps ** (1 / 3)  # of the first step, at a scale of 1

    def phi(x, m=1e-3):
        return 0.5 + x + m * (max(x - at, 0) - max(-x - at, 0))

    assert derivatives.differs(phi, 1.0, 1.0, eps) is None
    assert derivatives.differs(phi, 1.01, 1.0, eps) == pytest.approx(1.0, abs=2e-3)


def test_curvature_where_some_batches_leave_a_part_out():
    torch.manual_seed(0)
    data, net = split(), flat(Experts())
    images, _ = next(data.batches(40))
    there = images.flatten(1)[:, 0] > 1.2
    order = torch.cat([there.nonzero()[:1], (~there).nonzero(), there.nonzero()[1:]])[:, 0]
    data = Split(data.images[order], data.labels[order], 3, (0.5,), (0.25,))
    assert 1 < int(there.sum()) < 30
    _, (value,) = hessian.hessian_eigenvectors(net, data, LOSS, ["1.experts.1.bias"], 1, batch_size=5)
    logits = copies.twin(net)(images)[there].detach()
    p = logits.softmax(1)
    whole = (torch.diag_embed(p) - p[:, :, None] * p[:, None]).sum(0) / 40
    assert value == pytest.approx(float(torch.linalg.eigvalsh(whole)[-1]), rel=1e-4)


def test_a_gradient_is_zero_in_unused_layers_and_leaves_the_network_alone():
    torch.manual_seed(0)
    net = flat(Net(c=nn.Linear(2, 2)))
    net[1].b.requires_grad_(False)
    found = computed.gradient(net, split(), LOSS)
    assert not found["1.c.weight"].any()
    assert found["1.b.weight"].any()
    assert net.training
    assert [p.requires_grad for p in net[1].b.parameters()] == [False, False]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HIDDEN)
def test_a_gradient_that_is_not_the_losses_is_refused(name):
    torch.manual_seed(0)
    with pytest.raises(ValleysError, match="no gradient or eigenvector"):
        computed.gradient(flat(HIDDEN[name]()), split(), LOSS)


def test_a_gradient_that_passes_a_part_by_is_refused():
    torch.manual_seed(0)
    with pytest.raises(ValleysError, match=r"no gradient for 1\.a\.weight, but outputs depend"):
        computed.gradient(flat(Net(without_graph)), split(), LOSS)
    with pytest.raises(ValleysError, match="draws random numbers"):
        computed.gradient(flat(DEFECTS["gumbel"][0]()), split(), LOSS)


def test_gradients_are_those_of_tied_weights():
    torch.manual_seed(0)
    net = flat(Tied("weight")).double()
    data = split()
    images = torch.cat([x for x, _ in data.batches(40)])
    with pytest.raises(ValleysError, match="given images"):  # the split's are float32
        computed.gradient(net, data, LOSS)
    found = computed.gradient(net.float(), data, LOSS)
    twin = copy.deepcopy(net)
    LOSS(twin(images), data.labels).mean().backward()
    for name, parameter in twin.named_parameters():
        assert torch.allclose(found[name], parameter.grad, atol=1e-7)


CURVED = {name: make for name, make in RIGHT.items() if name not in ("no_grad", "relu")}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*CURVED, "unused"])
def test_curvature_is_that_of_the_gradient(name):
    torch.manual_seed(0)
    net = flat(CURVED[name]() if name in CURVED else Net(c=nn.Linear(2, 2)))
    names = [n for n, _ in net.named_parameters()]
    (vector,), (value,) = hessian.hessian_eigenvectors(net, split(), LOSS, names, 1)
    assert net.training
    twin = copies.twin(net).eval().double()
    images, labels = next(split().batches(40))
    own = {n: p.detach().clone() for n, p in twin.named_parameters()}
    slopes = []
    for h in (1e-5, -1e-5):
        for n, p in twin.named_parameters():
            p.data.copy_(own[n] + h * vector[n])
        mean = LOSS(twin(images.double()), labels).mean()
        found = torch.autograd.grad(mean, list(twin.parameters()), allow_unused=True)
        pairs = zip(found, vector.values(), strict=True)
        slopes.append(sum(float((g * u).sum()) for g, u in pairs if g is not None))
    assert value == pytest.approx((slopes[0] - slopes[1]) / 2e-5, rel=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["straight-through", "stop-gradient", "wrong derivative", "reentrant"])
def test_a_hessian_of_another_function_is_refused(name):
    torch.manual_seed(0)
    net = flat(HIDDEN[name]())
    names = [n for n, _ in net.named_parameters()]
    with pytest.raises(ValleysError, match="no gradient or eigenvector"):
        hessian.hessian_eigenvectors(net, split(), LOSS, names, 1)
    with pytest.raises(ValleysError, match="draws random numbers"):
        hessian.hessian_eigenvectors(flat(DEFECTS["rrelu"][0]()), split(), LOSS, names[:1], 1)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_found_where_the_caller_has_them_switched_off(mode):
    torch.manual_seed(0)
    net, data = flat(Net()), split()
    found = computed.gradient(net, data, LOSS)
    value = hessian.hessian_eigenvectors(net, data, LOSS, ["1.a.bias"], 1)[1]
    with mode():
        again = computed.gradient(net, data, LOSS)
        assert hessian.hessian_eigenvectors(net, data, LOSS, ["1.a.bias"], 1)[1] == value
    assert all(torch.equal(found[name], again[name]) for name in found)
