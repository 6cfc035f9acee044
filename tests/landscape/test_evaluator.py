"""Losses at points of weight space; an untouched model."""

import math

import pytest
import torch
from naive_lines import LOSS, draw, make_evaluator, make_model, make_split
from valleys.data import parts
from valleys.errors import ValleysError
from valleys.landscape import directions
from valleys.landscape.evaluator import Evaluator, evaluator_for
from valleys.landscape.lines import find_radius, line_offsets, probe_line
from valleys.models import solutions
from valleys.networks import bn_refresh


def test_streaming_refresh_is_used_when_asked():
    streaming = make_evaluator(method="streaming", batch_size=20)
    exact = make_evaluator(batch_size=20)
    assert streaming.point().train_loss == pytest.approx(exact.point().train_loss, rel=0.05)
    assert streaming.point().train_loss != exact.point().train_loss


@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
def test_bf16_rounds_the_passes_and_not_the_weights(bn):
    fp32, bf16 = (make_evaluator(bn=bn, precision=name) for name in ("fp32", "bf16"))
    direction, offsets = draw(make_model()), [-2.0, 0.0, 1.5]
    exact, rounded = (probe_line(evaluator, direction, offsets) for evaluator in (fp32, bf16))
    for a, b in zip(exact, rounded, strict=True):
        assert b["train_loss"] != a["train_loss"]
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=0.02)
        assert b["test_loss"] == pytest.approx(a["test_loss"], rel=0.02)
    bf16.move(direction, 1.5)
    fp32.move(direction, 1.5)
    for name, weights in bf16.parameters.items():
        assert torch.equal(weights, fp32.parameters[name])
    assert bf16.stored() == fp32.stored()  # what solutions are compared with is never rounded
    with bf16.in_precision("fp32"):
        assert probe_line(bf16, direction, offsets) == exact
    assert bf16.precision == "bf16"


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"train_images": 20, "test_images": None, "image_errors": 1}, {"train": 60}),
        ({"train_images": 20, "test_images": 9, "image_errors": 1}, {"train": 60, "test": 30}),
        ({"train_images": 60, "test_images": 99, "image_errors": 1}, {}),  # all of them
        ({"train_images": 20, "test_images": 9}, {}),  # a line or plane
    ],
)
def test_an_evaluator_knows_what_its_images_are_drawn_from(block, expected):
    spec = {"loss": {"name": "cross_entropy"}, "bn_refresh": {"method": "exact", "batch_size": 50}}
    splits = make_split(60), make_split(30, 1)
    assert evaluator_for(make_model(), splits, {"bn": "frozen", **block}, spec).drawn_from == expected


def test_the_callers_model_never_changes():
    model = make_model().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    evaluator = Evaluator(model, make_split(60), make_split(30, 1), LOSS)
    direction = draw(model)
    probe_line(evaluator, direction, [-1.0, 1.0])
    find_radius(evaluator, direction, rise=0.5, first=0.1, cap=100.0)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


def test_the_evaluator_is_back_at_its_start_even_after_an_error():
    evaluator = make_evaluator()
    before = evaluator.stored()

    def offsets():
        yield 3.0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe_line(evaluator, draw(make_model()), offsets())
    assert evaluator.stored() == before


def test_a_direction_in_a_group_moves_that_group_only():
    model = make_model()
    evaluator = Evaluator(model, make_split(60), make_split(30, 1), LOSS)
    names = directions.parameter_group(model, "classifier")
    direction = directions.restrict(draw(model), names)
    evaluator.move(draw(model, 1), 1.0)  # leave it elsewhere first
    evaluator.move(direction, 2.0)
    for name, parameter in evaluator.parameters.items():
        own = dict(model.named_parameters())[name]
        assert torch.equal(parameter, own) == (name not in names)


def test_interpolation_is_exact_at_both_ends():
    start, stop = make_model(), solutions.fresh({"arch": "resnet8"}, (1, 8, 8), 4, seed=9)
    evaluator = Evaluator(start, make_split(60), make_split(30, 1), LOSS)
    for t, model in ((0.0, start), (1.0, stop)):
        evaluator.between(stop.state_dict(), t)
        assert all(
            torch.equal(a, b) for a, b in zip(evaluator.parameters.values(), model.parameters(), strict=True)
        )
    evaluator.between(stop.state_dict(), -0.5)
    for name, a, b in zip(evaluator.parameters, start.parameters(), stop.parameters(), strict=True):
        torch.testing.assert_close(evaluator.parameters[name], 1.5 * a - 0.5 * b, msg=name)


def test_options_that_are_none_are_refused():
    net, images = torch.nn.BatchNorm1d(4), torch.randn(8, 4)
    train = [(images, torch.arange(8) % 4)]
    with pytest.raises(ValleysError, match="precision: 'fp16' is none; choose fp32 or bf16"):
        Evaluator(net, train, precision="fp16")
    with pytest.raises(ValleysError, match="method: 'cumulative' is none; choose exact or streaming"):
        bn_refresh.refresh_bn(net, train, "cumulative")
    with pytest.raises(ValleysError, match="find_radius: a network is no evaluator"):
        find_radius(net, {"weight": torch.ones(4)}, rise=1.0, first=0.1, cap=9.0)
    for radius, points in ((1.0, 4), (1.0, 1), (math.nan, 5)):
        with pytest.raises(ValleysError, match="line_offsets: "):
            line_offsets(radius, points)


def part_of(evaluator, rows):
    return parts.take(evaluator.train_batches, torch.tensor(rows), evaluator.batch_size)


@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
def test_an_evaluator_of_other_images_is_that_of_these_images(bn):
    whole, rows = make_evaluator(bn=bn), list(range(5, 40))
    at_start = whole.at_start()
    some = whole.on(part_of(whole, rows), whole.test_batches)
    plain = Evaluator(make_model(), make_split(60).take(torch.tensor(rows)), make_split(30, 1), bn=bn)
    direction, offsets = draw(make_model()), [-1.0, 0.0, 1.5]
    for one, other in zip(
        probe_line(some, direction, offsets), probe_line(plain, direction, offsets), strict=True
    ):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-6)
        assert one["test_loss"] == pytest.approx(other["test_loss"], rel=1e-6)
        assert math.isnan(one["train_accuracy"])
        assert "by_image" not in one
    assert some.model is whole.model
    assert some.train_slope(direction) == pytest.approx(plain.train_slope(direction), rel=1e-5)
    # The whole one has its own values still, measured before or not.
    assert whole.at_start() == at_start != some.at_start()
    assert whole.on(part_of(whole, rows)).test_loss() == pytest.approx((math.nan, math.nan), nan_ok=True)


def test_an_evaluator_of_other_images_weighs_their_classes_and_has_each_images_loss():
    loss = torch.nn.CrossEntropyLoss(weight=torch.tensor([0.1, 1.0, 2.0, 5.0]))
    whole = Evaluator(
        make_model(), make_split(60), make_split(30, 1), loss, bn="frozen", drawn_from={"test": 99}
    )
    rows = [i for i, label in enumerate(make_split(60).labels.tolist()) if label in (0, 3)]
    some = whole.on(part_of(whole, rows), whole.test_batches, by_image=True)
    split = make_split(60)
    with torch.no_grad():
        expected = loss(make_model()(split.floats(torch.tensor(rows))), split.labels[rows]).item()
    assert some.point().train_loss == pytest.approx(expected, rel=1e-6)
    assert some.by_image["train"].shape == (len(rows),)
    assert some.by_image["train"].mean().item() == pytest.approx(expected, rel=1e-6)
    assert set(some.by_image) == {"train"}
    assert whole.by_image == {}
    assert whole.drawn_from == {"test": 99}
