"""The train loss and its gradient: torch's own of the plain mean, and differences in float64."""

import pytest
import torch
from analytic_networks import classifier
from torch import nn
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.gradients import loss_and_gradient
from valleys.models.losses import build

WEIGHTS = torch.tensor([0.2, 1.0, 3.0])


def evaluator_of(norm=True, dtype=torch.float64, **options):
    net, train = classifier(norm=norm, dtype=dtype, steps=10)
    return net, train, Evaluator(net, train, **options)


@pytest.mark.parametrize(
    ("norm", "loss", "plain"),
    [
        (True, "cross_entropy", nn.functional.cross_entropy),
        (False, nn.CrossEntropyLoss(weight=WEIGHTS), nn.CrossEntropyLoss(weight=WEIGHTS.double())),
        (False, lambda o, y: o[:, 0].square(), lambda o, y: o[:, 0].square().mean()),
        (True, lambda o, y: nn.functional.cross_entropy(o, y), nn.functional.cross_entropy),
    ],
)
def test_with_frozen_statistics_it_is_that_of_the_mean_loss_of_all_images(norm, loss, plain):
    net, train, evaluator = evaluator_of(norm, loss=loss, bn="frozen")
    value, gradient = loss_and_gradient(evaluator, list(evaluator.parameters))
    x, y = (torch.cat(each) for each in zip(*train, strict=True))
    expected = plain(net(x), y)
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=1e-12)
    assert value == pytest.approx(evaluator.train_loss()[0], rel=1e-12)
    torch.testing.assert_close(gradient, torch.cat([p.grad.flatten() for p in net.parameters()]))


@pytest.mark.parametrize(
    "loss", ["cross_entropy", "mse", build({"name": "focal", "gamma": 2}), nn.CrossEntropyLoss(WEIGHTS)]
)
@pytest.mark.parametrize("bn", ["frozen", "refreshed"])
def test_it_is_the_difference_quotient_also_where_statistics_follow_the_weights(loss, bn):
    _, _, evaluator = evaluator_of(loss=loss, bn=bn)
    names, h = list(evaluator.parameters), 1e-5
    value, gradient = loss_and_gradient(evaluator, names)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        u = torch.randn(len(gradient), dtype=torch.float64, generator=generator)
        sizes = [p.numel() for p in evaluator.parameters.values()]
        pieces = zip(evaluator.parameters.items(), u.split(sizes), strict=True)
        direction = {name: piece.view(p.shape) for (name, p), piece in pieces}
        ends = []
        for step in (h, -h):
            evaluator.move(direction, step)
            ends.append(evaluator.train_loss()[0])
        evaluator.reset()
        assert float(gradient @ u) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6, abs=1e-9)
    assert value == pytest.approx(evaluator.train_loss()[0], rel=1e-9)


def test_frozen_and_refreshed_gradients_differ():
    found = [
        loss_and_gradient(e, list(e.parameters))[1]
        for e in (evaluator_of(bn=bn)[2] for bn in ("frozen", "refreshed"))
    ]
    assert (found[0] - found[1]).norm() > 0.01 * found[0].norm()


def test_the_gradient_of_some_parameters_is_a_part_of_the_whole_and_of_unused_ones_0():
    net, train = classifier(dtype=torch.float64)
    net.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    evaluator = Evaluator(net, train)
    names = list(evaluator.parameters)
    assert names[0] == "unused"
    _, whole = loss_and_gradient(evaluator, names)
    assert whole[:2].tolist() == [0.0, 0.0]
    _, part = loss_and_gradient(evaluator, names[-1:])
    assert torch.equal(part, whole[-3:])
    assert loss_and_gradient(evaluator, ["unused"])[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bn", ["frozen", "refreshed"])
def test_the_evaluator_is_left_as_it_is_also_after_an_error(bn):
    _, _, evaluator = evaluator_of(bn=bn)
    evaluator.move({"0.weight": torch.ones(8, 6, dtype=torch.float64)}, 0.1)  # at any weights

    def state():
        return {n: t.clone() for n, t in evaluator.model.state_dict().items()}

    before, loss = state(), evaluator.loss

    def check():
        assert all(torch.equal(before[name], tensor) for name, tensor in state().items())
        assert not any(p.requires_grad or p.grad is not None for p in evaluator.parameters.values())
        assert not evaluator.model.training

    loss_and_gradient(evaluator, list(evaluator.parameters))
    check()

    def fails(outputs, labels):
        raise RuntimeError("out of luck")

    evaluator.loss = fails
    with pytest.raises(RuntimeError, match="out of luck"):
        loss_and_gradient(evaluator, list(evaluator.parameters))
    evaluator.loss = loss
    check()


def test_bf16_rounds_the_gradient_and_leaves_it_in_the_parameters_format():
    fine, coarse = (evaluator_of(dtype=torch.float32, precision=p)[2] for p in ("fp32", "bf16"))
    (_, exact), (_, rounded) = (loss_and_gradient(e, list(e.parameters)) for e in (fine, coarse))
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert (exact - rounded).norm() < 0.05 * exact.norm()
