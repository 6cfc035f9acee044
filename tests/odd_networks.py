"""Networks and batches that several tests of `networks` share."""

import functools
import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune
from valleys import probe_line
from valleys.data.split import Split
from valleys.landscape import directions

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


def split():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 1, 2, 3), generator=generator).to(torch.uint8)
    return Split(images, torch.randint(0, 3, (40,), generator=generator), 3, (0.5,), (0.25,))


def flat(net):
    return nn.Sequential(nn.Flatten(), net)


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
