"""Directions computed from losses and iterates: gradient and principal components."""

import copy
import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from valleys.errors import ValleysError
from valleys.landscape import computed
from valleys.landscape.computed import Sources, compute, gradient, principal_components, tensors_to_store
from valleys.landscape.directions import restrict, unit, weights_of
from valleys.landscape.kinds import COMPUTED
from valleys.models import losses
from valleys.storage.weights import save_weights

CROSS_ENTROPY = losses.build({"name": "cross_entropy"})


def flat(direction):
    return torch.cat([d.reshape(-1).double() for d in direction.values()])


def equal(one, other):
    return list(one) == list(other) and all(torch.equal(one[n], other[n]) for n in one)


class Double(nn.Module):
    """A float64 net with batch norm on the float32 images of a split."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Linear(16, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)]
        self.layers = nn.Sequential(*layers).double()
        bn = self.layers[1]
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return self.layers(x.flatten(1).double())


def full_loss(model, split):
    return CROSS_ENTROPY(model(split.floats(slice(None))), split.labels).mean()


@pytest.mark.parametrize("batch_size", [3, 7, 20, 500])
def test_gradient_is_that_of_the_mean_loss(tiny_split, batch_size):
    model = Double()
    before = copy.deepcopy(model.state_dict())
    model.train()
    found = gradient(model, tiny_split, CROSS_ENTROPY, batch_size)
    assert equal(model.state_dict(), before), "the running statistics were changed"
    model.eval()
    expected = torch.autograd.grad(full_loss(model, tiny_split), list(model.parameters()))
    assert list(found) == [n for n, _ in model.named_parameters()]
    for d, e in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(d, e, rtol=1e-10, atol=1e-14)
        assert not d.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_gradient_equals_finite_differences(tiny_split):
    model = Double().eval()
    found = gradient(model, tiny_split, CROSS_ENTROPY)
    step = 1e-5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            entries = parameter.view(-1)
            for i in range(0, entries.numel(), 5):
                value = entries[i].item()
                sides = []
                for sign in (1, -1):
                    entries[i] = value + sign * step
                    sides.append(full_loss(model, tiny_split).item())
                entries[i] = value
                slope = (sides[0] - sides[1]) / (2 * step)
                assert found[name].view(-1)[i].item() == pytest.approx(slope, rel=1e-5, abs=1e-9), (name, i)


def trajectory(n=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    scale = torch.tensor([5.0, 2.0, 1.0, 0.3, 0.2, 0.1])
    return [
        {"a": x[:4].reshape(2, 2), "skipped": torch.full((3,), float(i)), "b": x[4:]}
        for i, x in enumerate(torch.randn(n, 6, generator=g) * scale + 3)
    ]


def test_principal_components_are_those_of_the_svd():
    states = trajectory()
    found = principal_components(iter(states), ["a", "b"], 3)
    matrix = np.stack([flat(restrict(s, ["a", "b"])).numpy() for s in states])
    _, sizes, vectors = np.linalg.svd(matrix - matrix.mean(0))
    for component, size, vector in zip(found, sizes, vectors, strict=False):
        assert [(n, tuple(d.shape), d.dtype) for n, d in component.items()] == [
            ("a", (2, 2), torch.float32),
            ("b", (2,), torch.float32),
        ]
        scaled, length = unit(component)
        assert abs(float(flat(scaled) @ torch.from_numpy(vector))) == pytest.approx(1, abs=1e-6)
        assert length == pytest.approx(size, rel=1e-5)
        assert flat(component)[flat(component).abs().argmax()] > 0
    assert len(found) == 3


@pytest.mark.parametrize("at_once", [1, 8, 24, 40, 10**6])
def test_principal_components_are_the_same_in_pieces(monkeypatch, at_once):
    """Of 1, 1, 3 and 5 columns, some of which cut a tensor; of one piece to the last bit."""
    states = trajectory()
    whole = principal_components(iter(states), ["a", "b"], 3)
    rows = torch.stack([flat(restrict(s, ["a", "b"])) for s in states]).double()
    rows -= rows.mean(0)
    vectors = torch.linalg.eigh(rows @ rows.T)[1]
    by_hand = [vectors[:, -1 - i] @ rows for i in range(3)]
    by_hand = [each * torch.sign(each[each.abs().argmax()]) for each in by_hand]
    monkeypatch.setattr(computed, "AT_ONCE", at_once)
    found = principal_components(iter(states), ["a", "b"], 3)
    for one, other, hand in zip(whole, found, by_hand, strict=True):
        assert torch.equal(flat(one), hand.float())
        torch.testing.assert_close(flat(other), flat(one), rtol=1e-5, atol=1e-6)
        if at_once == 10**6:
            assert torch.equal(flat(other), flat(one))


def test_principal_components_need_enough_iterates():
    with pytest.raises(ValleysError, match="at least 4 iterates for 3 components, there are 3"):
        principal_components(trajectory(3), ["a", "b"], 3)
    assert len(principal_components(trajectory(4), ["a", "b"], 3)) == 3


def test_rounding_noise_is_no_component():
    line = [{"a": torch.tensor([1.0, 2.0, 3.0]) * i} for i in range(6)]
    (only,) = principal_components(line, ["a"], 1)
    assert flat(unit(only)[0]).tolist() == pytest.approx([i / math.sqrt(14) for i in (1, 2, 3)])
    with pytest.raises(ValleysError, match="pca"):
        principal_components(line, ["a"], 2)
    with pytest.raises(ValleysError, match="pca"):
        principal_components([{"a": torch.ones(3)}] * 4, ["a"], 1)


# --- kinds ---


def sources(tiny_split, **more):
    torch.manual_seed(1)
    networks = {name: Double().eval() for name in ("sgd", "swa", "descent")}
    with torch.no_grad():
        for k, network in enumerate(networks.values()):
            for parameter in network.parameters():
                parameter.add_(k)
    return Sources(networks, tiny_split, CROSS_ENTROPY, **more)


def test_each_kind_gives_directions_over_the_group_and_the_columns_it_has(tiny_split, tmp_path):
    given = sources(tiny_split, group="layer:layers.3", n=2, seed=4)
    weights = {name: weights_of(network) for name, network in given.networks.items()}
    save_weights(tmp_path / "other.safetensors", weights["swa"], {})
    given = replace(
        given,
        iterates=lambda: iter(weights.values()),
        others={"sgd": {7: tmp_path / "other.safetensors"}},
    )
    columns = {"hessian": {"eigenvalue"}, "to_seed": {"to_seed"}}
    lengths = {"hessian": 2, "pca": 1}
    for kind in COMPUTED.keys() - {"searched"}:
        found = compute(kind, replace(given, n=lengths.get(kind, 1)), "sgd")
        assert len(found.directions) == lengths.get(kind, 1), kind
        assert all(list(d) == ["layers.3.weight", "layers.3.bias"] for d in found.directions), kind
        own = [columns[kind]] * len(found.directions) if kind in columns else []
        assert [set(row) for row in found.columns] == own, kind
    up = compute("to_seed", given, "sgd")
    assert up.columns == [{"to_seed": 7}]
    assert flat(up.directions[0]).tolist() == pytest.approx([1.0] * 21)
    assert flat(compute("sgd_to_swa", given, "sgd").directions[0]).tolist() == pytest.approx([1.0] * 21)
    tensors, stored = tensors_to_store("hessian", given, ["swa"])
    assert {name.split("/", 2)[0] for name in tensors} == {"swa"}
    assert {name.split("/", 2)[1] for name in tensors} == {"0", "1"}
    assert list(stored) == ["swa"]


def test_an_unknown_kind_is_an_error(tiny_split):
    with pytest.raises(
        ValleysError, match="unknown computed direction kind 'gradeint'; choose from gradient"
    ):
        compute("gradeint", sources(tiny_split), "sgd")


def test_kind_searched_is_a_search_with_default_settings_on_the_train_images(tiny_split, monkeypatch):
    asked = []

    def searches(evaluator, n, **given):
        asked.append((evaluator, n, given))
        yield from (
            SimpleNamespace(direction={"layers.3.bias": torch.full((3,), float(k))}) for k in range(n)
        )

    monkeypatch.setitem(sys.modules, "valleys.landscape.searching", SimpleNamespace(searches=searches))
    monkeypatch.delattr("valleys.landscape.searching", raising=False)
    given = sources(tiny_split, group="layer:layers.3", n=2, seed=4)
    found = compute("searched", given, "swa")
    assert [flat(u).tolist() for u in found.directions] == [[0.0] * 3, [1.0] * 3]
    assert list(found.columns) == []
    ((evaluator, n, options),) = asked
    assert (n, options.pop("state_of")(0)) == (2, None)
    assert options == {"group": "layer:layers.3", "seed": 4}
    own = given.networks["swa"].state_dict()
    assert all(torch.equal(evaluator.start[name], tensor) for name, tensor in own.items())
    assert len(evaluator.train_batches) == len(tiny_split)
    assert evaluator.test_batches is None
    assert evaluator.bn == "refreshed"
