"""Points that share the first layer's product have the losses of points that do not, for any network."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from valleys.data.split import Split
from valleys.landscape import adaptive, first_layer, planes
from valleys.landscape.directions import random_direction
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.lines import find_radius, line_offsets, probe_line

pytestmark = pytest.mark.usefixtures("one_thread")

CONSTANTS = {"c": 2.0, "zeta_max": 0.5, "min_span": 0.25, "minimum_within": 0.25, "noise": 1e-6}


def split(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(count) % 3, 3, (0.5,), (0.3,))


class Net(nn.Module):
    """Flattened images through `change`, the layer `first`, and others."""

    def __init__(self, first=None, change=None):
        super().__init__()
        torch.manual_seed(0)
        self.first = first or nn.Linear(64, 8)
        self.change = change or (lambda x: x)
        self.rest = nn.Sequential(nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Linear(8, 3))

    def forward(self, x):
        return self.rest(self.first(self.change(x.flatten(1))))


class Twice(Net):
    """The layer gets the images and then their squares; another layer gets the images as well."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(64, 8, bias=False)

    def forward(self, x):
        x = x.flatten(1)
        return self.rest(self.first(x) * self.gate(x).sigmoid() + self.first(x.square()))


class Tied(Net):
    """The first layer's weight is a later one's too."""

    def forward(self, x):
        x = x.flatten(1)
        hidden = self.first(x).tanh()
        return self.rest(self.first(hidden @ self.first.weight))


def pruned():
    layer = nn.Linear(64, 8)
    prune.random_unstructured(layer, "weight", 0.5)
    return layer


def hooked():
    layer = nn.Linear(64, 8)
    layer.register_forward_hook(lambda layer, inputs, output: 2 * output)
    layer.register_forward_pre_hook(lambda layer, inputs: (inputs[0] + 1,))
    return layer


NETWORKS = {
    "plain": (Net, True),
    "without a bias": (lambda: Net(nn.Linear(64, 8, bias=False)), True),
    "twice": (Twice, True),
    "tied": (Tied, True),
    "input changed": (lambda: Net(change=lambda x: 2 * x), False),
    "input changed in place": (lambda: Net(change=lambda x: x.clone().mul_(2)), False),
    "part of the input": (lambda: Net(nn.Linear(32, 8), change=lambda x: x[:, :32]), False),
    "pruned": (lambda: Net(pruned()), False),
    "weight norm": (lambda: Net(parametrizations.weight_norm(nn.Linear(64, 8))), False),
    "hooks": (lambda: Net(hooked()), False),
    "too wide": (lambda: Net(nn.Sequential(nn.Linear(64, 100), nn.Linear(100, 8))), False),
}


def evaluators(network, **options):
    """Two evaluators of the same weights, of which the second shares products."""
    net = network().eval()
    made = [Evaluator(net, split(20), split(14, 1), batch_size=8, **options) for _ in range(2)]
    made[1].shares_products = True
    return made


def direction_of(evaluator, k=0):
    weights = {name: p.detach() for name, p in evaluator.parameters.items()}
    return random_direction("gaussian", weights, key="test", k=k)[0]


def same(rows, others):
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        for key, value in row.items():
            assert value is None or other[key] == pytest.approx(value, rel=2e-5, abs=1e-6), key


@pytest.fixture
def counted(monkeypatch):
    """Of each call of a linear layer within a block, whether its outputs were a sum of kept ones."""
    found = []

    class Watched(first_layer._Linear):
        def __call__(self, x):
            outputs = super().__call__(x)
            found.append(bool(self.at) and bool(self.kept) and self.inputs.are(x))
            return outputs

    monkeypatch.setattr(first_layer, "_Linear", Watched)
    return found


@pytest.mark.parametrize("bn", ["frozen", "refreshed"])
@pytest.mark.parametrize("name", NETWORKS)
def test_lines_and_planes_are_the_same_to_rounding(name, bn, counted):
    network, shares = NETWORKS[name]
    plain, shared = evaluators(network, bn=bn)
    u, v = direction_of(plain), direction_of(plain, 1)
    offsets = line_offsets(0.8, 7)
    with shared.along(shared.start, u):
        found = probe_line(shared, u, offsets)
    same(probe_line(plain, u, offsets), found)
    plane = planes.spanned(dict(plain.parameters), u, v)
    sides = [-0.5, 0.0, 0.5], [-0.5, 0.25]
    same(planes.surface(plain, plane, *sides), planes.surface(shared, plane, *sides))
    assert any(counted) == shares
    assert not [layer for layer in shared.model.modules() if "forward" in vars(layer)]


def test_the_point_at_the_weights_has_the_same_bits():
    plain, shared = evaluators(Net, bn="frozen")
    u = direction_of(plain)
    with shared.along(shared.start, u):
        probe_line(shared, u, [0.5])
        assert probe_line(shared, u, [0.0]) == probe_line(plain, u, [0.0])


def test_only_the_layer_s_own_part_of_a_direction_counts(counted):
    plain, shared = evaluators(Net, bn="frozen")
    u = direction_of(plain)
    for names in (["first.weight"], ["first.bias"], ["rest.2.weight"]):
        part = {name: u[name] for name in names}
        with shared.along(shared.start, part):
            same(probe_line(plain, part, [-1.0, 1.0]), probe_line(shared, part, [-1.0, 1.0]))
    assert any(counted)


def test_other_weights_within_a_block_are_measured_as_ever(counted):
    plain, shared = evaluators(Net, bn="frozen")
    u, v = direction_of(plain), direction_of(plain, 1)
    there = {name: p.detach() + 0.1 for name, p in plain.parameters.items()}
    with shared.along(shared.start, u):
        shared.move(u, 0.3)
        assert shared.point() != plain.at_start()
        counted.clear()
        assert shared.at_start() == plain.at_start()
        for evaluator in (plain, shared):
            evaluator.move(v, 0.3)
        assert shared.point() == plain.point()
        for evaluator in (plain, shared):
            evaluator.between(there, 0.5)
        assert shared.point() == plain.point()
        for evaluator in (plain, shared):
            evaluator.set_weights(there.items())
        assert shared.point() == plain.point()
        for evaluator in (plain, shared):
            evaluator.load({**evaluator.start, **there})
            evaluator.move(u, 0.3)  # from another start
        assert shared.point() == plain.point()
        assert not any(counted)
        with shared.along(shared.start, v):  # a block in a block
            same(probe_line(plain, v, [0.4]), probe_line(shared, v, [0.4]))
        assert any(counted)


def test_a_radius_and_an_adaptive_line_take_each_product_once(monkeypatch):
    plain, shared = evaluators(Net, bn="frozen")
    u, made = direction_of(plain), []
    linear = first_layer.F.linear
    monkeypatch.setattr(first_layer.F, "linear", lambda x, *rest: made.append(x.shape) or linear(x, *rest))
    options = {"rise": 0.5, "first": 0.1, "cap": 50.0}
    with shared.along(shared.start, u):
        radius = find_radius(shared, u, **options)
        assert radius.radius == pytest.approx(find_radius(plain, u, **options).radius, rel=1e-3)
        made.clear()
        curve, _ = adaptive.probe_adaptively(shared, u, line_offsets(radius.radius, 21), CONSTANTS)
    assert len(curve) > 3
    # Of five batches, of train and test, the radius left three; the rest layers and offset 0 are plain.
    first = [shape for shape in made if shape[-1] == 64]
    assert len(first) <= 2 * 2 + 5


@pytest.mark.parametrize("bn", ["frozen", "refreshed"])
def test_slopes_within_a_block_are_those_of_the_weights(bn):
    net = Net().eval()
    plain, sharing = (Evaluator(net, split(20), None, batch_size=20, bn=bn) for _ in range(2))
    sharing.shares_products = True
    direction = direction_of(plain)
    rows = probe_line(plain, direction, [-0.5, 0.0, 0.5], exact=True)
    with sharing.along(sharing.start, direction):
        others = probe_line(sharing, direction, [-0.5, 0.0, 0.5], exact=True)
    assert [row["train_slope"] for row in others] == [row["train_slope"] for row in rows]
    assert len({row["train_slope"] for row in rows}) == 3
    assert not sharing.slopes.backwards  # forward mode saw the layer's weights


def test_in_half_precision_and_compiled_nothing_is_shared(counted):
    plain, shared = evaluators(Net, bn="frozen", precision="bf16")
    u = direction_of(plain)
    with shared.along(shared.start, u):
        assert probe_line(shared, u, [0.5]) == probe_line(plain, u, [0.5])
    assert not any(counted)
    shared.forward = lambda images: shared.model(images)  # as a compiled network
    with shared.along(shared.start, u) as place:
        place(0.5)
        assert not [layer for layer in shared.model.modules() if "forward" in vars(layer)]


def test_more_than_is_kept_is_computed_as_ever(counted, monkeypatch):
    monkeypatch.setattr(first_layer, "KEPT_BYTES", 34 * 16 * 4 - 1)
    _, shared = evaluators(Net, bn="frozen")
    u = direction_of(shared)
    with shared.along(shared.start, u):
        assert math.isfinite(probe_line(shared, u, [0.5])[0]["train_loss"])
    assert not any(counted)
