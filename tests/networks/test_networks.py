"""What a network may be: copies without a graph, defects that make a loss no function of weights, slopes."""

import copy
import functools
import math
import random
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint
from valleys import probe_line
from valleys.data.split import Split
from valleys.errors import ValleysError
from valleys.landscape import computed, directions, hessian, planes
from valleys.landscape.evaluator import Evaluator
from valleys.models import builder, losses
from valleys.networks import checks, copies, derivatives
from valleys.training import sgd
from valleys.training.evaluation import evaluate
from valleys.training.paths import CurveNet, connect

LOSS = nn.CrossEntropyLoss(reduction="none")


def batches(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(60, 6, generator=generator).to(dtype)
    return list(zip(x.split(20), torch.randint(0, 3, (60,), generator=generator).split(20), strict=True))


class Net(nn.Module):
    """Two layers and any forward pass."""

    def __init__(self, run=None, **held):
        super().__init__()
        self.a, self.b, self.run = nn.Linear(6, 8), nn.Linear(8, 3), run or plain
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.run(self, x)


def plain(net, x):
    return net.b(torch.tanh(net.a(x)))


def behind(first):
    return nn.Sequential(first, nn.Tanh(), nn.Linear(8, 3))


def probed(net, dtype=torch.float32, exact=False, **options):
    direction = directions.random_direction("gaussian", net)[0]
    return direction, probe_line(
        net, direction, [-0.5, 0.0, 0.5], exact, train=batches(dtype), loss=LOSS, **options
    )


# ---- what is no function of the weights --------------------------------------------------------------------


class StaysInTrain(nn.Dropout):
    def train(self, mode=True):
        return super().train(True)


class Statistics(nn.BatchNorm1d):
    def train(self, mode=True):
        return super().train(True)


class Stateful(nn.Module):
    """Keeps what `update` makes of its state and the input, as a buffer or as a plain attribute."""

    def __init__(self, update, buffer):
        super().__init__()
        self.layer, self.update = nn.Linear(6, 3), update
        self.register_buffer("state", torch.zeros(6)) if buffer else setattr(self, "state", torch.zeros(6))

    def forward(self, x):
        self.state = self.update(self.state, x).detach()
        return self.layer(x + self.state)


class FirstBatch(nn.Module):
    """Sets a parameter by the first batch, as ActNorm does."""

    def __init__(self):
        super().__init__()
        self.scale, self.layer = nn.Parameter(torch.ones(6)), nn.Linear(6, 3)
        self.register_buffer("ready", torch.tensor(False))

    def forward(self, x):
        if not self.ready:
            self.scale.data.copy_(1 / x.std(0))
            self.ready.fill_(True)
        return self.layer(x * self.scale)


class Folds(nn.Module):
    """Two branches that eval() adds up: kept beside them, or in place of them."""

    def __init__(self, remove):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 3), nn.Linear(6, 3), None
        self.remove = remove

    def train(self, mode=True):
        if not mode and self.a is not None:
            total = [p.data + q.data for p, q in zip(self.a.parameters(), self.b.parameters(), strict=True)]
            if self.remove:
                self.a = self.b = None
                self.c = nn.Linear(6, 3)
                self.c.weight.data, self.c.bias.data = total
            else:
                self.total = torch.cat([t.flatten() for t in total])
        return super().train(mode)

    def forward(self, x):
        if self.c is not None:
            return self.c(x)
        if self.training:
            return self.a(x) + self.b(x)
        return F.linear(x, self.total[:18].view(3, 6), self.total[18:])


class Merges(nn.Module):
    """LoRA: the product of two factors is added to the weights in eval mode."""

    def __init__(self):
        super().__init__()
        self.layer, self.merged = nn.Linear(6, 3), False
        self.down, self.up = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(3, 2))

    def train(self, mode=True):
        if self.merged is mode:
            self.layer.weight.data.add_(self.up @ self.down, alpha=-1.0 if mode else 1.0)
            self.merged = not mode
        return super().train(mode)

    def forward(self, x):
        return self.layer(x) + (0 if self.merged else x @ (self.up @ self.down).T)


class Keeps(nn.Module):
    """Computes with a copy of its weights that it makes once."""

    def __init__(self, make, used=None):
        super().__init__()
        self.layer, self.head, self.make, self.used = nn.Linear(6, 3), nn.Linear(3, 3), make, used

    def forward(self, x):
        if self.used is None:
            self.used = self.make(self.layer)
        weight = torch.as_tensor(self.used[0])
        return self.head(F.linear(x, weight))


def kept(make):
    net = Keeps(make)
    with torch.no_grad():
        net(batches()[0][0])
    return net


def normalised(layer):
    return [F.normalize(layer.weight, dim=1)]


def cloned(layer):
    return [p.data.clone() for p in layer.parameters()]


def as_arrays(layer):
    return [p.detach().numpy().copy() for p in layer.parameters()]


def drops_paths(net, x):
    return net.b(torch.tanh(net.a(x)) * (random.random() > 0.2))


def noise(net, x):
    return plain(net, x) + 1e-3 * torch.from_numpy(np.random.randn(len(x), 3)).float()


def own_generator(net, x):
    return plain(net, x) + torch.randn(3, generator=net.generator)


def counts(net, x):
    net.calls += 1
    return plain(net, x) / net.calls


def registers(net, x):
    net.register_buffer("seen", x.mean(0), persistent=net.persistent)
    return plain(net, x)


def centred_in_place(net, x):
    return plain(net, x.sub_(x.mean(1, keepdim=True)))


def masked_in_place(net, x):
    x[:, 0] = 0
    return plain(net, x)


def attends_over_the_batch(net, x):
    h = net.a(x)
    return net.b(torch.softmax(h @ h.T, 1) @ h)


def train_true(net, x):
    return net.b(F.batch_norm(net.a(x), None, None, training=True))


def traced_in_train_mode():
    net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    return torch.jit.trace(net, batches()[0][0], check_trace=False)


def observed():
    import torch.ao.quantization as quantization

    net = behind(nn.Linear(6, 8))
    net.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    return quantization.prepare_qat(net.train())


def refers_to_the_original():
    net = behind(nn.Linear(6, 8))
    net[0].register_forward_hook(lambda module, inputs, out: out + net[2].bias.sum())
    return net


RANDOM = "draws random numbers in eval mode"
DEFECTS = {
    "dropout without training": (lambda: Net(lambda net, x: net.b(F.dropout(net.a(x)))), RANDOM + r" \(bern"),
    "dropout in train mode": (lambda: behind(StaysInTrain(0.5)), "given images"),
    "dropout that stays": (
        lambda: nn.Sequential(nn.Linear(6, 8), StaysInTrain(0.5), nn.Linear(8, 3)),
        RANDOM + r".*\(1: in train mode after eval",
    ),
    "dropped paths": (lambda: Net(drops_paths), RANDOM),
    "rrelu": (lambda: Net(lambda net, x: net.b(F.rrelu(net.a(x), training=True))), RANDOM),
    "gumbel": (lambda: Net(lambda net, x: net.b(F.gumbel_softmax(net.a(x)))), RANDOM),
    "noise by numpy": (lambda: Net(noise), RANDOM),
    "a generator of its own": (
        lambda: Net(own_generator, generator=torch.Generator()),
        "differ from pass to pass",
    ),
    "traced in train mode": (traced_in_train_mode, RANDOM),
    "a count": (lambda: Net(counts, calls=0), "keeps something from one pass"),
    "relu in place": (lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 3)), "input in place"),
    "centred in place": (lambda: Net(centred_in_place), "input in place"),
    "masked in place": (lambda: Net(masked_in_place), "input in place"),
    "mean of inputs, a buffer": (
        lambda: Stateful(lambda s, x: 0.9 * s + 0.1 * x.mean(0), buffer=True),
        "changes state, and with it",
    ),
    "hidden state": (lambda: Stateful(lambda s, x: torch.tanh(s + x[-1]), buffer=False), "keeps something"),
    "observers": (observed, "pass in eval mode changes"),
    "set by the first batch": (FirstBatch, "changes its parameter scale; if it is set by the first"),
    "a buffer of the first pass": (lambda: Net(registers, persistent=True), "new tensor seen; pass a"),
    "folded by eval()": (lambda: Folds(remove=False), "merges or folds"),
    "folded before": (lambda: Folds(remove=False).eval(), "merges or folds"),
    "folded into other parameters": (lambda: Folds(remove=True), r"change parameter a\.weight"),
    "merged by eval()": (Merges, r"change parameter layer\.weight"),
    "merged before": (lambda: Merges().eval(), r"change parameter layer\.weight"),
    "cached at the first pass": (lambda: Keeps(normalised), r"copy of layer\.weight that it keeps"),
    "cached before": (lambda: kept(normalised), r"copy of layer\.weight that it keeps"),
    "cloned": (lambda: kept(cloned), r"copy of layer\.weight that it keeps"),
    "arrays": (lambda: kept(as_arrays), r"copy of layer\.weight that it keeps"),
    "tensors in a list": (
        lambda: Net(lambda net, x: plain(net, x) @ net.ws[0], ws=[torch.randn(3, 3, requires_grad=True)]),
        r"tensor of shape \(3, 3\) that requires a gradient",
    ),
    "layers in a list": (
        lambda: Net(lambda net, x: net.layers[0](plain(net, x)), layers=[nn.Linear(3, 3)]),
        "none of its parameters",
    ),
    "no use of parameters": (lambda: Net(lambda net, x: x[:, :3]), "moving all of its parameters does not"),
    "frozen by jit": (lambda: torch.jit.freeze(torch.jit.script(Net2().eval())), "has no parameters"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(3)), "0.weight has no shape yet"),
    "statistics of the batch": (
        lambda: nn.Sequential(nn.Linear(6, 8), Statistics(8), nn.Linear(8, 3)),
        r"depend on the other images.*\(1: in train mode",
    ),
    "batch_norm in train mode": (lambda: Net(train_true), "depend on the other images"),
    "attention over the batch": (lambda: Net(attends_over_the_batch), "depend on the other images"),
    "softmax over the batch": (
        lambda: Net(lambda net, x: torch.softmax(plain(net, x), 0)),
        "depend on the other images",
    ),
    "a hook with the original": (refers_to_the_original, r"a copy of it computes with 2\.bias"),
}  # fmt: skip


class Net2(nn.Module):
    """A network that TorchScript compiles."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


@pytest.mark.parametrize("name", DEFECTS)
def test_what_is_no_function_of_the_weights_is_one_line(name):
    make, words = DEFECTS[name]
    torch.manual_seed(0)
    random.seed(0)
    net = make()
    with pytest.raises(ValleysError, match=words) as caught:
        Evaluator(net, batches(), loss=LOSS)
    assert "\n" not in str(caught.value)


def test_weights_kept_by_a_context_are_found():
    net = behind(parametrizations.weight_norm(nn.Linear(6, 8)))
    with parametrize.cached(), pytest.raises(ValleysError, match=r"a copy of 0\.parametrizations"):
        Evaluator(net, batches(), loss=LOSS)


# ---- what is one -------------------------------------------------------------------------------------------


def with_values(change):
    net = behind(nn.Linear(6, 8))
    for parameter in net.parameters():
        parameter.data = change(parameter.data)
    return net


def low_precision(net, x):
    with torch.autocast("cpu", torch.bfloat16):
        return plain(net, x).float()


def fixed_noise(net, x):
    return plain(net, x) + torch.randn(3, generator=torch.Generator().manual_seed(3))


def counts_quietly(net, x):
    net.calls += 1
    return plain(net, x)


def in_inference():
    with torch.inference_mode():
        return Net()


def one_for_all():
    return nn.Parameter(torch.ones(1).expand(3))


def at_most(net, x):
    net.a.weight.data = torch.renorm(net.a.weight.data, 2, 0, 9.0)
    return plain(net, x)


def dead():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.constant_(net[0].bias, -100.0)
    return net


ORDINARY = {
    "plain": Net,
    "with unused layers": lambda: Net(c=nn.Linear(8, 3), d=nn.BatchNorm1d(8), constant=torch.randn(8)),
    "with an unused head": lambda: Net(
        lambda net, x: net.b(net.c(net.a(x))), c=nn.BatchNorm1d(8), aux=nn.Sequential(nn.BatchNorm1d(8))
    ),
    "frozen": lambda: Net().requires_grad_(False),
    "zero": lambda: with_values(torch.zeros_like),
    "huge": lambda: with_values(lambda w: w * 1e6),
    "tiny": lambda: with_values(lambda w: w * 1e-6),
    "not a number": lambda: with_values(lambda w: w * math.nan),
    "dead": dead,
    "signs": lambda: Net(lambda net, x: net.b(torch.sign(net.a(x)))),
    "bfloat16 inside": lambda: Net(low_precision),
    "the same numbers each time": lambda: Net(fixed_noise),
    "numbers without effect": lambda: Net(lambda net, x: plain(net, x) + 0 * torch.rand(3)),
    "a buffer that counts": lambda: Net(counts_quietly, calls=torch.tensor(0)),
    "weights of limited norm": lambda: Net(at_most),
    "a buffer of each pass": lambda: Net(registers, persistent=False),
    "one number for all": lambda: Net(lambda net, x: plain(net, x) * net.g, g=one_for_all()),
    "batches of one size": lambda: Net(lambda net, x: plain(net, x.view(20, 6))),
    "in place, later": lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)),
    "scripted": lambda: torch.jit.script(Net2()),
    "traced": lambda: torch.jit.trace(Net2(), batches()[0][0]),
    "traced by fx": lambda: torch.fx.symbolic_trace(Net2()),
    "made in inference mode": in_inference,
    "an average": lambda: torch.optim.swa_utils.AveragedModel(Net()),
    "deployed": lambda: Folds(remove=True).eval(),
    "objects": lambda: Net(lambda net, x: plain(net, x)),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_network_passes_and_nothing_is_changed(name):
    torch.manual_seed(0)
    net = ORDINARY[name]()
    state = {n: t.clone() for n, t in net.state_dict().items()}
    data = batches()
    seen = [x.clone() for x, _ in data]
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    modes = [m.training for m in net.modules()]
    trained = [p.requires_grad for p in net.parameters()]
    evaluator = Evaluator(net, data, loss=LOSS)
    assert torch.equal(drawn[0], torch.get_rng_state())
    assert drawn[1:] == (random.getstate(), np.random.get_state()[1].tolist())
    assert all(torch.equal(a, b) for a, (b, _) in zip(seen, data, strict=True))
    for before, after in ((state, net.state_dict()), (state, evaluator.model.state_dict())):
        assert all(torch.equal(before[n].nan_to_num(), t.nan_to_num()) for n, t in after.items())
    assert modes == [m.training for m in net.modules()]
    assert trained == [p.requires_grad for p in net.parameters()]
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("wrap", [lambda t: {"logits": t}, lambda t: (t, t.mean()), lambda t: Outputs(t)])
def test_outputs_of_any_kind_are_looked_into(wrap):
    images = batches()[0][0]
    checks.check(copies.standing(Net(lambda net, x: wrap(plain(net, x)))), images)
    with pytest.raises(ValleysError, match="draws random numbers"):
        checks.check(copies.standing(Net(lambda net, x: wrap(F.dropout(plain(net, x))))), images)


class Outputs:
    def __init__(self, logits):
        self.logits = logits


def test_one_image_and_whole_numbers_as_input():
    embedding = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 3))
    checks.check(copies.standing(embedding), torch.randint(0, 9, (1, 3)))
    checks.check(copies.standing(embedding), torch.randint(0, 9, (40, 3)))


# ---- copies ------------------------------------------------------------------------------------------------


class KeepsLast(nn.Linear):
    def forward(self, x):
        self.seen = [super().forward(x)]
        return self.seen[0]


class Hooked(nn.Module):
    """A hook that is a method, as in feature extractors."""

    def __init__(self):
        super().__init__()
        self.a, self.gain = nn.Linear(6, 3), nn.Parameter(torch.ones(3))
        self.a.register_forward_hook(self.scaled)

    def scaled(self, module, inputs, out):
        return out * self.gain

    def forward(self, x):
        return self.a(x)


class View(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.flat = self.layer.weight.view(-1)

    def forward(self, x):
        return F.linear(x, self.flat.view(3, 6), self.layer.bias)


class Recurrent(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.layer(x[:, None].expand(-1, 3, -1))[0][:, -1])


def pruned():
    layer = nn.Linear(6, 8)
    prune.l1_unstructured(layer, "weight", 0.5)
    return behind(layer)


def partly():
    net = behind(nn.Linear(6, 8))
    net[0].register_forward_hook(functools.partial(lambda other, m, i, o: o + other.bias.sum(), net[2]))
    return net


def wrapped_recurrent():
    return Recurrent(nn.utils.weight_norm(nn.LSTM(6, 8, batch_first=True), "weight_hh_l0"))


COPIED = {
    "weight_norm": lambda: behind(nn.utils.weight_norm(nn.Linear(6, 8))),
    "spectral_norm": lambda: behind(nn.utils.spectral_norm(nn.Linear(6, 8))),
    "parametrized": lambda: behind(parametrizations.weight_norm(nn.Linear(6, 8))),
    "pruned": pruned,
    "an activation": lambda: behind(KeepsLast(6, 8)),
    "a method": Hooked,
    "a partial": partly,
    "a view": View,
    "weight_norm of an LSTM": wrapped_recurrent,
}


@pytest.mark.parametrize("name", COPIED)
def test_what_a_pass_left_behind_is_copied_and_moves(name):
    """After a step of training, and as the network itself would be moved."""
    torch.manual_seed(0)
    net = COPIED[name]()
    data = batches()
    LOSS(net(data[0][0]), data[0][1]).mean().backward()
    grads = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    state = {n: t.clone() for n, t in net.state_dict().items()}
    direction, curve = probed(net)
    assert all(torch.equal(state[n], t) for n, t in net.state_dict().items())
    kept = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(grads, kept, strict=True))
    net.eval()
    own = {n: p.detach().clone() for n, p in net.named_parameters()}
    for point in curve:
        with torch.no_grad():
            for n, p in net.named_parameters():
                p.copy_(own[n] + point["offset"] * direction[n])
            right = torch.cat([LOSS(net(x), y) for x, y in data]).mean().item()
        assert point["train_loss"] == pytest.approx(right, rel=1e-5)


class Same(nn.Linear):
    def __deepcopy__(self, memo):
        return self


def holding(value):
    net = behind(nn.Linear(6, 8))
    net[1].held = value
    return net


def test_what_cannot_be_copied_is_named(tmp_path):
    with (tmp_path / "log").open("w") as file:
        for value in (threading.Lock(), file, (i for i in range(3)), {"a": [threading.Lock()]}):
            with pytest.raises(ValleysError, match=r"attribute 'held' of 1 \(Tanh\).*cannot be copied"):
                copies.twin(holding(value))
    net = behind(nn.Linear(6, 8))
    net[0].register_forward_hook(functools.partial(lambda lock, *_: None, threading.Lock()))
    with pytest.raises(ValleysError, match=r"a hook of 0 \(Linear\) cannot be copied"):
        copies.twin(net)
    with pytest.raises(ValleysError, match=r"returns the same 0\.weight, not a copy"):
        copies.twin(behind(Same(6, 8)))


def test_a_copy_keeps_ties_modes_and_flags():
    net = Net(tied=nn.Linear(6, 8))
    net.tied.weight = net.a.weight
    net.a.eval()
    net.b.weight.requires_grad_(False)
    made = copies.twin(net)
    assert made.tied.weight is made.a.weight
    assert made.a.weight.data_ptr() != net.a.weight.data_ptr()
    assert [m.training for m in made.modules()] == [m.training for m in net.modules()]
    assert [p.requires_grad for p in made.parameters()] == [p.requires_grad for p in net.parameters()]


# ---- slopes ------------------------------------------------------------------------------------------------


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


# ---- gradients and the workflow ----------------------------------------------------------------------------


def split():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 1, 2, 3), generator=generator).to(torch.uint8)
    return Split(images, torch.randint(0, 3, (40,), generator=generator), 3, (0.5,), (0.25,))


def flat(net):
    return nn.Sequential(nn.Flatten(), net)


class Kinds(nn.Module):
    """Has a parameter of complex numbers, one of integers, and one of neither length nor use."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.randn(6, 8, dtype=torch.cfloat) / 3)
        self.b = nn.Linear(8, 3)
        self.k = nn.Parameter(torch.tensor([1, 2, 3]), requires_grad=False)
        self.none = nn.Parameter(torch.empty(0, 2))

    def forward(self, x):
        return self.b((x.flatten(1).to(self.a.dtype) @ self.a).abs()) * self.k


@pytest.mark.parametrize("backwards", [False, True])
def test_complex_parameters_move_in_both_parts_and_integers_stay(backwards):
    torch.manual_seed(0)
    net = Kinds()
    x, y = map(torch.cat, zip(*batches(), strict=True))
    u, _ = directions.random_direction("gaussian", net)
    assert u.keys() == {"a", "b.weight", "b.bias", "none"}
    assert directions.inner(u, u) == pytest.approx(1)
    assert float(u["a"].imag.abs().max()) > 0
    evaluator = Evaluator(net, batches(), loss=LOSS)
    evaluator.slopes.backwards = backwards

    def loss(offset):
        twin = copy.deepcopy(net)
        own = dict(twin.named_parameters())
        with torch.no_grad():
            for name, tensor in u.items():
                own[name].add_(offset * tensor)
            return float(LOSS(twin(x), y).double().mean())

    for row in probe_line(evaluator, u, [-0.5, 0.0, 0.5], exact=True):
        at = row["offset"]
        assert row["train_loss"] == pytest.approx(loss(at), abs=1e-6)
        slope = (loss(at + 1e-2) - loss(at - 1e-2)) / 2e-2
        assert row["train_slope"] == pytest.approx(slope, abs=2e-3 * abs(slope) + 1e-4)
    own = dict(net.named_parameters())
    other = {n: p.detach() + u[n] if n in u else p.detach() for n, p in own.items()}
    third, _ = directions.random_direction("gaussian", net, k=1)
    plane = planes.spanned(own, u, third)
    assert plane.project(other) == pytest.approx((1, 0, 0), abs=1e-6)
    evaluator.set_weights(plane.at(0.5, 0.0))
    assert evaluator.train_loss()[0] == pytest.approx(loss(0.5), abs=1e-6)
    found = computed.gradient(flat(net), split(), LOSS)
    assert found.keys() == {f"1.{name}" for name in u}
    for refused in (
        lambda: hessian.hessian_eigenvectors(flat(net), split(), LOSS, ["1.a"], 1),
        lambda: connect(net, net, None, {}, {}, seed=0),
        lambda: computed.principal_components([own] * 3, ["a"], 1),
    ):
        with pytest.raises(
            ValleysError, match=r"parameter (1\.)?a is torch.complex64; it takes those of real"
        ):
            refused()
    for direction in ({"k": torch.ones(3)}, {"b.bias": torch.ones(3, dtype=torch.cfloat)}):
        with pytest.raises(ValleysError, match="through which there is no such line"):
            probe_line(evaluator, direction, [0.0])


class Versioned(nn.Linear):
    """Takes state dicts of its own version only, as torchvision's MNASNet does."""

    _version = 2

    def _load_from_state_dict(self, state, prefix, about, *more):
        if about.get("version") != 2:
            raise ValueError(f"version should be 2 instead of {about.get('version')}")
        super()._load_from_state_dict(state, prefix, about, *more)


class Unsaved(nn.BatchNorm1d):
    """Has statistics that are not in the state dict."""

    def __init__(self, features):
        super().__init__(features)
        self._non_persistent_buffers_set.update(self._buffers)


@pytest.mark.parametrize(
    "make", [lambda: behind(Versioned(6, 8)), lambda: behind(nn.Linear(6, 8)).append(Unsaved(3))]
)
def test_a_line_ends_where_it_began_whatever_the_state_dict_says(make):
    torch.manual_seed(0)
    net = make()
    evaluator = Evaluator(net, batches(), loss=LOSS)
    stored = evaluator.stored()
    probe_line(evaluator, directions.random_direction("gaussian", net)[0], [-1.0, 0.0, 1.0])
    assert evaluator.stored() == stored
    evaluator.load({name: tensor.clone() for name, tensor in net.state_dict().items()})
    assert evaluator.stored() == stored


def test_a_lazy_network_has_no_directions_yet():
    with pytest.raises(ValleysError, match=r"0\.weight has no shape yet"):
        directions.random_direction("uniform", nn.Sequential(nn.LazyLinear(3)))


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


FACTORIES = """
from torch import nn
from torch.nn import functional as F

class Drops(nn.Module):
    def forward(self, x):
        return F.dropout(x)

class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        import threading
        self.lock = threading.Lock()
    def forward(self, x):
        return x

class Opens(nn.Module):
    def forward(self, x):
        if self.training:
            self.rows = (row for row in x)
        return x

def net(last):
    first = nn.utils.weight_norm(nn.Linear(6, 8))
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(8, 3), last)

def good(): return net(nn.Identity())
def random(): return net(Drops())
def locked(): return net(Locked())
def opens(): return net(Opens())
def in_place(): return nn.Sequential(nn.ReLU(inplace=True), net(nn.Identity()))
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("random", "draws random numbers in eval mode"),
        ("locked", r"attribute 'lock' of 4 \(Locked\)"),
        ("opens", r"attribute 'rows' of 4 \(Opens\)"),
        ("in_place", "changes its input in place"),
    ],
)
def test_a_factory_is_refused_before_training(name, words, tmp_path, monkeypatch):
    (tmp_path / f"nets_{name}.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValleysError, match=rf"factory 'nets_{name}:{name}': network: .*{words}"):
        builder.build({"factory": f"nets_{name}:{name}"}, in_shape=(1, 2, 3), classes=3)


def test_weight_norm_descends_and_connects(tmp_path, monkeypatch):
    (tmp_path / "nets_good.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net = builder.build({"factory": "nets_good:good"}, in_shape=(1, 2, 3), classes=3)
    recipe = {"batch_size": 20, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0, "augment": None}
    recipe |= {"loss": {"name": "cross_entropy"}, "descent": {"epochs": 2, "lr": 0.1, "momentum": 0.9}}
    data = (split(), split())
    rows = sgd.descend(net, data, recipe, seed=0, refresh=lambda n: None, state_dir=tmp_path)
    own = evaluate(net.eval(), data[0], losses.build(recipe["loss"]))
    assert rows[-1]["train_loss"] == pytest.approx(own[0])
    assert rows[-1]["train_loss"] != rows[0]["train_loss"]
    weights = dict(net.named_parameters())
    curve = CurveNet(net.train(), "bezier", weights, weights)
    images = next(split().batches(40))[0]
    assert torch.allclose(curve(images), net(images), atol=1e-6)


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
