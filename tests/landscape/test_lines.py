"""Curves along directions: right values, what is refused, radii."""

import math

import numpy as np
import pytest
import torch
from naive_lines import BLOCK, LOSS, draw, make_evaluator, make_model, make_split, naive
from torch import nn
from valleys.errors import ValleysError
from valleys.landscape.evaluator import Evaluator, Point
from valleys.landscape.lines import Radius, check_against, find_radius, line_offsets, probe_line
from valleys.landscape.probing import probe_solution
from valleys.networks import tensors


@pytest.mark.slow
@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("batch_size", [1000, 17])
def test_line_against_a_naive_reference(norm, bn, batch_size):
    evaluator = make_evaluator(norm, bn=bn, batch_size=batch_size)
    direction = draw(make_model(norm))
    rows = probe_line(evaluator, direction, [-2.0, 0.0, 1.5])
    for row in rows:
        loss, accuracy = naive(make_model(norm), direction, row["offset"], bn)
        assert row["train_loss"] == pytest.approx(loss, rel=2e-5)
        assert row["train_accuracy"] == pytest.approx(accuracy)
        loss, accuracy = naive(make_model(norm), direction, row["offset"], bn, test=True)
        assert row["test_loss"] == pytest.approx(loss, rel=2e-5)
        assert row["test_accuracy"] == pytest.approx(accuracy)
    assert evaluator.bn == (bn if norm == "batch" else "none")


@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_lines_share_their_point_at_offset_0(bn, precision):
    """It has the values that it has measured by itself, and is measured anew from other weights."""
    model, offsets = make_model(), [-1.0, 0.0, 1.0]
    evaluator = make_evaluator(bn=bn, precision=precision, drawn_from={"train": 100})
    alone = make_evaluator(bn=bn, precision=precision, drawn_from={"train": 100})
    curves = [probe_line(evaluator, draw(model, k), offsets) for k in range(3)]
    assert evaluator.points == 7
    for k, curve in enumerate(curves):
        alone.move(draw(model, k), 0.0)
        point = alone.point()
        assert {key: curve[1][key] for key in point.asdict()} == point.asdict()
        assert torch.equal(curve[1]["by_image"]["train"], alone.by_image["train"])
    other = make_model()
    with torch.no_grad():
        other.classifier.weight.mul_(2)
    evaluator.load(other.state_dict())
    again = probe_line(evaluator, draw(model), [0.0])
    assert again[0]["train_loss"] != curves[0][1]["train_loss"]


def test_line_offsets_contain_an_exact_zero_and_are_symmetric():
    offsets = line_offsets(0.7, 41)
    assert len(offsets) == 41
    assert offsets[20] == 0.0
    assert offsets == [-o for o in reversed(offsets)]
    assert offsets[-1] == pytest.approx(0.7)


class Curve:
    """Stands in for an `Evaluator`: a train loss that is a function of the offset."""

    def __init__(self, phi):
        self.phi, self.at, self.points = phi, 0.0, 0

    def move(self, direction, offset):
        self.at = offset

    def train_loss(self):
        self.points += 1
        return self.phi(self.at), 0.0

    def at_start(self):
        self.points += 1
        return Point(self.phi(0.0), 0.0, math.nan, math.nan)

    def reset(self):
        self.at = 0.0


@pytest.mark.parametrize(("first", "points"), [(1.0, 3), (0.97, 3), (1.04, 3), (0.5, 5), (2.0, 5)])
def test_a_radius_that_meets_the_rise_is_not_looked_for_further(first, points):
    curve = Curve(lambda x: x * x)
    found = find_radius(curve, {}, rise=1.0, first=first, cap=100.0)
    assert found.radius == pytest.approx(1.0, abs=0.05)
    assert curve.points == points


@pytest.mark.parametrize("first", [1e-4, 0.3, 50.0])
@pytest.mark.parametrize(
    ("phi", "radius"),
    [
        (lambda x: 2 + x * x, 1.0),
        (lambda x: 5 * max(x, 0) + 0.1 * max(-x, 0), 0.2),
        (lambda x: 0.1 * max(x, 0) + 5 * max(-x, 0), 0.2),
        (lambda x: math.exp(min(abs(x), 700)) - 1, math.log(2)),
        (lambda x: x * x if abs(x) < 3 else math.nan, 1.0),
    ],
)
def test_radius_meets_the_rise(phi, radius, first):
    curve = Curve(phi)
    found = find_radius(curve, {}, rise=1.0, first=first, cap=100.0)
    assert found.status == "found"
    larger = max(phi(found.radius), phi(-found.radius)) - phi(0.0)
    assert 0.88 <= larger <= 1.12
    assert found.radius == pytest.approx(radius, rel=0.12)
    assert curve.points < 60
    assert curve.at == 0.0


def test_radius_is_capped_where_the_rise_is_never_met():
    assert find_radius(Curve(lambda x: 0.5), {}, rise=1.0, first=1.0, cap=7.0) == Radius(7.0, "capped")
    assert find_radius(Curve(lambda x: -abs(x)), {}, rise=1.0, first=9.0, cap=7.0).status == "capped"


@pytest.mark.parametrize(
    ("at_cap", "status"), [(0.95, "found"), (1.0, "found"), (1.05, "found"), (0.8, "capped")]
)
def test_a_rise_that_is_near_enough_at_the_cap_is_found(at_cap, status):
    curve = Curve(lambda x: at_cap * (x / 4) ** 2)
    assert find_radius(curve, {}, rise=1.0, first=4.0, cap=4.0) == Radius(4.0, status)
    assert find_radius(curve, {}, rise=1.0, first=1.0, cap=4.0).status == status


@pytest.mark.parametrize("first", [1e-3, 1.0, 6.0])
@pytest.mark.parametrize(
    ("phi", "status", "reach"),
    [
        (lambda x: math.nan if x else 0.5, "jump", (0, 1e-8)),
        (lambda x: math.inf if x else 0.5, "jump", (0, 1e-8)),
        (lambda x: math.nan if x > 0 else 0.5, "jump", (0, 1e-8)),
        (lambda x: 5.0 if x else 0.5, "jump", (0, 1e-8)),
        (lambda x: 0.1 * abs(x) if abs(x) < 3 else math.nan, "jump", (2.97, 3)),
        (lambda x: 0.1 * abs(x) if x < 3 else math.inf, "jump", (2.97, 3)),
        (lambda x: 0.1 * abs(x) if abs(x) < 3 else 40.0, "jump", (2.97, 3.03)),
        (lambda x: -math.inf if x else 0.5, "capped", (7, 7)),
        (lambda x: -math.inf if 0 < abs(x) < 3 else x * x, "jump", (2.97, 3.03)),
        (lambda x: -5 * abs(x), "capped", (7, 7)),
        (lambda x: -100 + x * x, "found", (0.9, 1.1)),
        (lambda x: 1e-3 * abs(x), "capped", (7, 7)),
        (lambda x: 1e15 * x * x, "found", (3e-8, 3.4e-8)),
        (lambda x: -abs(x) if x < 0 else x, "found", (0.9, 1.1)),
    ],
)
def test_the_status_of_a_radius_is_true(phi, status, reach, first):
    found = find_radius(Curve(phi), {}, rise=1.0, first=first, cap=7.0)
    assert found.status == status
    assert reach[0] <= found.radius <= reach[1]
    if status == "found":
        assert 0.88 <= max(phi(found.radius), phi(-found.radius)) - phi(0.0) <= 1.12


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_no_radius_about_a_loss_that_is_no_number(loss):
    curve = Curve(lambda x: loss if x == 0 else x * x)
    with pytest.raises(ValleysError, match=f"the train loss at the solution is {loss}"):
        find_radius(curve, {}, rise=1.0, first=1.0, cap=7.0)
    assert curve.at == 0.0
    with pytest.raises(ValleysError, match=f"the train loss at direction 0 is {loss}"):
        check_against("direction 0", loss, loss)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_line_through_weights_whose_loss_is_no_number(value):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    direction = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    with torch.no_grad():
        model[1].bias[0] = value
    evaluator = Evaluator(model, make_split(60), make_split(30, 1), LOSS, bn="frozen")
    with pytest.raises(ValleysError, match="the train loss at the solution is nan"):
        probe_line(evaluator, direction, [-1.0, 0.0, 1.0])
    with pytest.raises(ValleysError, match="the train loss at the solution is nan"):
        probe_line(evaluator, direction)


@pytest.mark.parametrize("key", ["rise", "first", "cap"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "1", None])
def test_a_radius_is_looked_for_between_positive_numbers(key, value):
    given = {"rise": 1.0, "first": 1.0, "cap": 7.0} | {key: value}
    with pytest.raises(ValleysError, match=f"find_radius: {key}: "):
        find_radius(Curve(lambda x: x * x), {}, **given)


NO_DIRECTION = {
    "without entries": {},
    "has no parameter 'x'": {"x": torch.ones(2)},
    "length zero": {"weight": torch.zeros(3, 4)},
    "not finite": {"weight": torch.full((3, 4), math.nan)},
    "has shape": {"weight": torch.ones(4, 3)},
    "complex": {"weight": torch.ones(3, 4) * 1j},
    "'weight' is a ndarray": {"weight": np.ones((3, 4))},
    "it is a Tensor": torch.ones(12),
    "it is a list": [torch.ones(3, 4)],
}


@pytest.mark.parametrize("words", NO_DIRECTION)
def test_a_direction_must_fit_at_each_door(words):
    """A direction that moves nothing would be ``capped``, one of NaN a ``jump``."""
    net, direction = torch.nn.Linear(4, 3), NO_DIRECTION[words]
    evaluator = Evaluator(net, [(torch.randn(8, 4), torch.arange(8) % 3)])
    for door in (
        lambda: find_radius(evaluator, direction, rise=1.0, first=0.1, cap=9.0),
        lambda: probe_line(evaluator, direction),
    ):
        with pytest.raises(ValleysError, match=f"direction: .*{words}"):
            door()


@pytest.mark.parametrize("offsets", [[0.0, math.nan], [math.inf], [1e39], ["a"], [None], 0.5])
def test_offsets_must_be_numbers(offsets):
    net = torch.nn.Linear(4, 3)
    evaluator = Evaluator(net, [(torch.randn(8, 4), torch.arange(8) % 3)])
    with pytest.raises(ValleysError, match=r"^offsets: "):
        probe_line(evaluator, {"weight": torch.ones(3, 4)}, offsets)


def solution(evaluator, tmp_path, n=3, **changes):
    block = {**BLOCK, "n": n, **changes}
    state = tmp_path / "curves.pt"
    found = probe_solution(evaluator, block, "cell", stored=[], check_stored_bn=True, state=state)
    return list(found)


@pytest.mark.slow
def test_fixed_and_relative_radius(tmp_path):
    norm = tensors.vector_norm(dict(make_model().named_parameters()))
    cases = [({"radius": 0.7}, 0.7), ({"relative": 0.25}, 0.25 * norm)]
    head = {n: p for n, p in make_model().named_parameters() if n.startswith("classifier")}
    part = {"relative": 0.25, "relative_to": "group", "group": "classifier"}
    for changes, radius in [*cases, (part, 0.25 * tensors.vector_norm(head))]:
        (_, row), *_ = solution(make_evaluator(), tmp_path / str(radius), **changes)
        assert row["radius"] == pytest.approx(radius)
        assert row["radius_status"] == "fixed"
