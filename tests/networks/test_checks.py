"""Defects that make a loss no function of weights are one line; ordinary networks pass."""

import copy
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from odd_networks import (
    DEFECTS,
    FACTORIES,
    LOSS,
    Folds,
    Net,
    Net2,
    batches,
    behind,
    flat,
    plain,
    registers,
    split,
)
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from valleys import probe_line
from valleys.errors import ValleysError
from valleys.landscape import computed, directions, hessian, planes
from valleys.landscape.evaluator import Evaluator
from valleys.models import builder
from valleys.networks import checks, copies
from valleys.training.paths import connect


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
