"""Copies of networks: without a graph, with their ties, modes and flags."""

import functools
import threading

import pytest
import torch
from odd_networks import COPIED, FACTORIES, LOSS, Net, batches, behind, probed, split
from torch import nn
from valleys.errors import ValleysError
from valleys.models import builder, losses
from valleys.networks import copies
from valleys.training import sgd
from valleys.training.evaluation import evaluate
from valleys.training.paths import CurveNet


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
