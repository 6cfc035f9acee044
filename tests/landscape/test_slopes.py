"""Exact slopes: those of differences, forwards and backwards, on every kind of batch norm."""

import copy
import math

import pytest
import torch
from naive_lines import LOSS, Doubles, double_evaluator, draw, make_evaluator, make_model, make_split
from valleys.asymmetry.definition import detect
from valleys.errors import ValleysError
from valleys.landscape import directions
from valleys.landscape.lines import line_offsets, probe_line
from valleys.models import losses
from valleys.networks import bn_refresh


@pytest.mark.parametrize("batch_size", [1000, 17])
@pytest.mark.parametrize(
    ("norm", "bn"),
    [
        ("batch", "refreshed"),
        ("batch", "frozen"),
        ("group", "frozen"),
        ("layer", "refreshed"),
        ("none", "frozen"),
    ],
)
def test_exact_slopes_against_central_differences(norm, bn, batch_size):
    evaluator = double_evaluator(norm, bn=bn, batch_size=batch_size)
    direction, h = draw(evaluator.model), 1e-5
    for offset in (-2.0, 0.0, 1.5):
        losses = []
        for step in (h, -h):
            evaluator.move(direction, offset + step)
            losses.append(evaluator.train_loss()[0])
        evaluator.move(direction, offset)
        slope = evaluator.train_slope(direction)
        assert slope == pytest.approx((losses[0] - losses[1]) / (2 * h), rel=1e-6, abs=1e-9)
        assert abs(slope) > 1e-4


def test_refreshed_and_frozen_slopes_differ_and_the_slope_at_0_is_the_gradients():
    refreshed, frozen = (double_evaluator("batch", bn=bn) for bn in ("refreshed", "frozen"))
    direction = draw(frozen.model)
    slopes = [e.train_slope(direction) for e in (refreshed, frozen)]
    assert slopes[0] != pytest.approx(slopes[1], rel=1e-3)
    twin = copy.deepcopy(frozen.model).requires_grad_(True)
    split = Doubles(make_split(60))
    LOSS(twin(split.floats(slice(None))), split.labels).mean().backward()
    inner = sum((p.grad * direction[n]).sum() for n, p in twin.named_parameters())
    assert slopes[1] == pytest.approx(inner.item(), rel=1e-9)


@pytest.mark.parametrize("name", ["label_smoothing", "focal", "mse"])
def test_exact_slopes_of_other_losses(name):
    loss = losses.build({"name": name, "smoothing": 0.1, "gamma": 2})
    evaluator, h = double_evaluator("batch", loss), 1e-5
    direction = draw(evaluator.model)
    values = []
    for offset in (h, -h):
        evaluator.move(direction, offset)
        values.append(evaluator.train_loss()[0])
    evaluator.reset()
    assert evaluator.train_slope(direction) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6)


def test_a_direction_in_a_group_has_its_own_slope_and_one_without_effect_has_none():
    evaluator, h = double_evaluator("batch"), 1e-5
    names = directions.parameter_group(evaluator.model, "bn_weight")
    direction = directions.restrict(draw(evaluator.model), names)
    values = []
    for offset in (h, -h):
        evaluator.move(direction, offset)
        values.append(evaluator.train_loss()[0])
    evaluator.reset()
    assert evaluator.train_slope(direction) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6)
    assert evaluator.train_slope({}) == 0.0


@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
def test_asking_for_slopes_changes_no_other_value_and_no_weight(bn):
    evaluator, direction, offsets = make_evaluator(bn=bn), draw(make_model()), [-1.0, 0.0, 0.5]
    before = {name: tensor.clone() for name, tensor in evaluator.model.state_dict().items()}
    parameters = dict(evaluator.model.named_parameters())
    plain = probe_line(evaluator, direction, offsets)
    exact = probe_line(evaluator, direction, offsets, exact=True)
    assert [row.pop("train_slope") for row in plain] == [None] * 3
    assert all(isinstance(row.pop("train_slope"), float) for row in exact)
    assert plain == exact
    assert all(torch.equal(before[k], v) for k, v in evaluator.model.state_dict().items())
    assert all(parameters[k] is v for k, v in evaluator.model.named_parameters())


def test_slopes_of_a_streaming_refresh_are_refused():
    evaluator = make_evaluator(method="streaming")
    with pytest.raises(ValleysError, match="exact slopes with refreshed BN need"):
        evaluator.train_slope(draw(make_model()))
    assert math.isfinite(make_evaluator(bn="frozen", method="streaming").train_slope(draw(make_model())))


@pytest.mark.slow
def test_detection_from_differences_converges_to_that_from_exact_slopes():
    """On a net near a minimum, with statistics that follow the weights; the same windows on every grid."""
    evaluator = double_evaluator("batch")
    images, labels = evaluator.train_batches.split.floats(slice(None)), evaluator.train_batches.split.labels
    weights = list(evaluator.model.requires_grad_(True).parameters())
    optimiser = torch.optim.Adam(weights, lr=0.01)
    for _ in range(40):  # down the refreshed loss, by reverse mode through the same pass
        optimiser.zero_grad()
        LOSS(bn_refresh.refreshed_logits(evaluator.model, [images])[0], labels).mean().backward()
        optimiser.step()
    evaluator.load(evaluator.model.requires_grad_(False).state_dict())
    direction = draw(evaluator.model, kind="uniform")
    rows = probe_line(evaluator, direction, line_offsets(2.0, 129), exact=True)
    x, y, slope = ([row[key] for row in rows] for key in ("offset", "train_loss", "train_slope"))
    apart = []
    for step in (8, 4, 2, 1):
        options = {"zeta_max": 0.5, "min_span": 0.5}
        found = [detect(x[::step], y[::step], slopes=s, **options) for s in (None, slope[::step])]
        assert found[0].status == found[1].status != "not_minimum"
        apart.append(abs(found[0].c_star - found[1].c_star))
    assert apart[3] < apart[2] < apart[1] < apart[0]
    assert apart[3] < 0.2 * apart[0]
