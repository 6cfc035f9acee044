"""Lines through weight space: right values, an untouched model, radii, resumption."""

import copy
import math

import numpy as np
import pytest
import torch
from naive_lines import LOSS, make_split, naive
from torch import nn
from valleys.asymmetry import next_point, robustness
from valleys.asymmetry.definition import detect, detect_many
from valleys.asymmetry.spline import upsample
from valleys.errors import ValleysError
from valleys.landscape import directions
from valleys.landscape.adaptive import checked_points, confirm_precision, probe_adaptively
from valleys.landscape.evaluator import Evaluator, Point, evaluator_for
from valleys.landscape.lines import Radius, check_against, find_radius, line_offsets, probe_line
from valleys.landscape.probing import Rows, line_between, probe_solution, stored_directions
from valleys.landscape.subsets import ERRORS, with_errors
from valleys.models import losses, solutions
from valleys.networks import bn_refresh, tensors
from valleys.networks.batch_norm import batch_norms
from valleys.storage.state import load_checkpoint

BLOCK = {
    "kind": "uniform",
    "n": 3,
    "group": "all",
    "share": 0.0,
    "points": 7,
    "radius": None,
    "relative": None,
    "relative_to": "all",
    "rise": 0.5,
    "bn": "refreshed",
    "slopes": "differences",
}


def make_model(norm="batch"):
    model = solutions.fresh({"arch": "resnet8", "norm": norm}, (1, 8, 8), 4, seed=3)
    if norm == "batch":
        bn_refresh.refresh_bn(model, make_split(60).batches(60))
    return model.eval()


def make_evaluator(norm="batch", **options):
    return Evaluator(make_model(norm), make_split(60), make_split(30, 1), LOSS, **options)


def draw(model, k=0, kind="gaussian"):
    weights = dict(model.named_parameters())
    return directions.random_direction(kind, weights, key="test", k=k)[0]


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


CONSTANTS = {"c": 2.0, "zeta_max": 0.5, "min_span": 0.25, "minimum_within": 0.25, "noise": 1e-6}


def test_a_curve_in_bf16_stays_where_its_verdict_holds(monkeypatch):
    """And is measured again in fp32 where errors as large as those found could change it."""
    direction, offsets = draw(make_model()), line_offsets(2.0, 9)
    evaluator = make_evaluator(precision="bf16")
    rounded = probe_line(evaluator, direction, offsets)
    exact = probe_line(make_evaluator(), direction, offsets)
    at = checked_points(9)
    assert at == [0, 4, 8]
    differences = [rounded[i]["train_loss"] - exact[i]["train_loss"] for i in at]
    size = math.sqrt(sum(d * d for d in differences) / 3)
    asked = []

    def is_robust(offsets, losses, error, **constants):
        asked.append((losses, error, constants))
        return verdict

    monkeypatch.setattr(robustness, "is_robust", is_robust)
    verdict = True
    curve, columns = confirm_precision(evaluator, direction, rounded, CONSTANTS)
    assert curve == rounded
    assert columns == {"precision": "bf16", "precision_error": pytest.approx(size)}
    verdict = False
    curve, columns = confirm_precision(evaluator, direction, rounded, CONSTANTS)
    assert curve == exact
    assert columns == {"precision": "fp32", "precision_error": pytest.approx(size)}
    losses = [row["train_loss"] for row in rounded]
    errors = robustness.errors_like(losses, at, differences)
    assert asked[0] == (losses, pytest.approx(errors), {**CONSTANTS, "at": list(range(9))})
    assert evaluator.precision == "bf16"


@pytest.fixture
def asks(monkeypatch):
    """What `next_point` is to answer, in order, and what it was asked about."""
    answers, asked = [], []

    def answer(offsets, at, losses, **options):
        asked.append((list(offsets), list(at), list(losses), options))
        return answers.pop(0)

    monkeypatch.setattr(next_point, "next_point", answer)
    return answers, asked


FIRST = [0, 3, 6, 8, 10, 12, 14, 17, 20]  # of 21


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
def test_an_adaptive_curve_has_points_of_the_whole_grid(asks, bn, exact):
    answers, asked = asks
    direction, offsets = draw(make_model()), line_offsets(1.5, 21)
    whole = probe_line(make_evaluator(bn=bn), direction, offsets, exact)
    for given in ([None], [4, 15, None]):
        answers[:], asked[:] = given, []
        evaluator = make_evaluator(bn=bn)
        curve, columns = probe_adaptively(evaluator, direction, offsets, CONSTANTS, exact)
        at = sorted([*FIRST, *given[:-1]])
        assert curve == [whole[i] for i in at]  # to the last bit
        assert columns == {"precision": "fp32", "precision_error": None}
        assert evaluator.points == len(at)  # none is measured twice
        slopes = [whole[i]["train_slope"] for i in at] if exact else None
        losses = [whole[i]["train_loss"] for i in at]
        assert asked[0][1] == FIRST
        options = {"slopes": slopes, "beside": [whole[i]["test_loss"] for i in at], **CONSTANTS}
        assert asked[-1] == (offsets, at, losses, options)


def test_an_adaptive_curve_ends_when_nothing_is_wanted():
    """By the real rule: what it has is what it would ask for, and the verdict that of all points."""
    for k in range(6):
        direction, offsets = draw(make_model(), k=k), line_offsets(2.0, 31)
        curve, _ = probe_adaptively(make_evaluator(), direction, offsets, CONSTANTS)
        losses, test = ([row[key] for row in curve] for key in ("train_loss", "test_loss"))
        at = [i for i, offset in enumerate(offsets) if offset in {row["offset"] for row in curve}]
        assert next_point.next_point(offsets, at, losses, beside=test, **CONSTANTS) is None
        whole = [row["train_loss"] for row in probe_line(make_evaluator(), direction, offsets)]
        between = upsample(offsets, at, losses)[0]
        one, other = detect_many(offsets, [between, whole], **CONSTANTS)
        assert one.status == other.status
        assert 9 <= len(curve) < 31


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


def test_lines_that_did_not_begin_at_one_start_are_found_out(tmp_path):
    """As they share their point at offset 0, it is measured again after the last."""
    evaluator = make_evaluator()
    moved, evaluator.move = evaluator.move, lambda *given: (moved(*given), wander())

    def wander():
        for tensor in evaluator.start.values():
            if tensor.is_floating_point():
                tensor.mul_(1.01)

    with pytest.raises(ValleysError, match="self-check failed: the start after the last direction"):
        solution(evaluator, tmp_path)


def test_a_loss_that_is_not_finite_settles_the_verdict(asks):
    direction, offsets = draw(make_model("none"), kind="uniform"), line_offsets(1e12, 21)
    curve, _ = probe_adaptively(make_evaluator("none"), direction, offsets, CONSTANTS)
    assert len(curve) == 9
    assert not all(math.isfinite(row["train_loss"]) for row in curve)
    assert asks[1] == []


def test_an_adaptive_curve_in_bf16_settles_first(asks, monkeypatch):
    """Where it goes back to fp32, it is asked once more what it needs, as fp32 has it."""
    answers, asked = asks
    direction, offsets = draw(make_model()), line_offsets(1.5, 21)
    exact = probe_line(make_evaluator(), direction, offsets)
    rounded = probe_line(make_evaluator(precision="bf16"), direction, offsets)
    cases = [  # verdict holds against rounding, points asked for: the curve
        (True, [None], rounded, FIRST),
        (True, [7, None], rounded, [*FIRST, 7]),
        (False, [None, None], exact, FIRST),
        (False, [7, None, 1, None], exact, [*FIRST, 1, 7]),
    ]
    for holds, given, points, at in cases:
        told = []

        def stands(offsets, losses, error, *, at, holds=holds, told=told, **_):
            told.append((list(offsets), losses, list(error), at))
            return holds

        monkeypatch.setattr(robustness, "is_robust", stands)
        answers[:] = given
        evaluator = make_evaluator(precision="bf16")
        curve, columns = probe_adaptively(evaluator, direction, offsets, CONSTANTS)
        assert (answers, curve) == ([], [points[i] for i in sorted(at)])
        assert columns["precision"] == ("bf16" if holds else "fp32")
        assert evaluator.precision == "bf16"
        ((all_, losses, errors, judged_at),) = told
        before = sorted({*FIRST, *given[: given.index(None)]})
        assert (all_, judged_at) == (offsets, before)
        assert losses == [rounded[i]["train_loss"] for i in before]
        differences = [rounded[i]["train_loss"] - exact[i]["train_loss"] for i in (0, 10, 20)]
        whole = upsample(offsets, before, losses)[0]
        assert errors == pytest.approx(robustness.errors_like(whole, [0, 10, 20], differences)[before])
    assert asked[-1][2] == [exact[i]["train_loss"] for i in sorted([*FIRST, 1, 7])]


def subset_evaluator(**options):
    return make_evaluator(drawn_from={"train": 100, "test": 40}, **options)


@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
def test_errors_of_a_subset_are_those_of_a_mean_of_paired_differences(bn):
    direction, offsets = draw(make_model()), line_offsets(1.5, 7)
    rows = probe_line(subset_evaluator(bn=bn), direction, offsets)
    plain = probe_line(make_evaluator(bn=bn), direction, offsets)
    losses = {name: [row["by_image"][name].double() for row in rows] for name in ("train", "test")}
    found = with_errors(rows, {"train": 100, "test": 40})
    for i, row in enumerate(found):
        for name, n, whole in (("train", 60, 100), ("test", 30, 40)):
            change = losses[name][i] - losses[name][3]
            assert change.mean().item() == pytest.approx(
                plain[i][f"{name}_loss"] - plain[3][f"{name}_loss"], abs=1e-6
            )
            expected = change.std().item() / math.sqrt(n) * math.sqrt(1 - n / whole)
            assert row[f"{name}_error"] == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert {key: row[key] for key in plain[i]} == plain[i]  # no other value changes
        assert set(row) == {*plain[i], *ERRORS}
    assert [found[3][key] for key in ERRORS] == pytest.approx([0.0] * 5, abs=1e-9)
    assert found[0]["train_error"] > 0


def test_the_parts_of_the_errors_are_their_covariance():
    generator = torch.Generator().manual_seed(0)
    shapes = torch.tensor([[2.0, 1.0, 0.0, 1.0, 3.0], [1.0, 0.5, 0.0, -0.5, -1.0]], dtype=torch.float64)
    changes = shapes.T @ torch.randn(2, 500, dtype=torch.float64, generator=generator)  # points, images
    curve = [{"offset": x, "by_image": {"train": changes[i]}} for i, x in enumerate((-2, -1, 0, 1, 2))]
    found = with_errors(curve, {"train": 2000})
    parts = torch.tensor([[row[f"train_error_{k}"] for row in found] for k in (1, 2, 3)], dtype=torch.float64)
    expected = torch.cov(changes) / 500 * 0.75
    assert torch.allclose(parts.T @ parts, expected, atol=1e-12)
    assert parts[2].abs().max() < 1e-8  # two shapes, two parts
    assert (parts**2).sum(1)[0] > (parts**2).sum(1)[1]
    errors = [row["train_error"] for row in found]
    assert errors == pytest.approx(expected.diag().sqrt().tolist())
    assert all(row["test_error"] is None for row in found)


def test_the_error_of_a_subset_is_about_that_against_all_images():
    """On many subsets of one set, in units of what is given for each."""
    whole, direction = make_split(240), draw(make_model())
    full = probe_line(Evaluator(make_model(), whole, bn="frozen"), direction, [-1.0, 0.0, 1.0])
    z = []
    for seed in range(40):
        evaluator = Evaluator(make_model(), whole.subset(80, seed), bn="frozen", drawn_from={"train": 240})
        rows = with_errors(probe_line(evaluator, direction, [-1.0, 0.0, 1.0]), {"train": 240})
        for i in (0, 2):
            rise, true = (c[i]["train_loss"] - c[1]["train_loss"] for c in (rows, full))
            z.append((rise - true) / rows[i]["train_error"])
    assert 0.75 < torch.tensor(z).square().mean().sqrt().item() < 1.25


def test_errors_where_a_loss_is_not_finite_or_one_image_was_taken():
    values = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0], [1.0, math.inf, 2.0]])
    curve = [{"offset": x, "by_image": {"train": values[i]}} for i, x in enumerate((-1, 0, 1))]
    found = with_errors(curve, {"train": 9})
    assert [row["train_error"] for row in found[:2]] == [pytest.approx(0.72, abs=0.01), 0.0]
    assert math.isnan(found[2]["train_error"])
    assert all(row["train_error_1"] is None for row in found)
    one = [{"offset": 0.0, "by_image": {"train": torch.ones(1)}}]
    assert with_errors(one, {"train": 9}) == [{"offset": 0.0, **dict.fromkeys(ERRORS)}]


def test_without_a_subset_a_curve_stays_as_it_is():
    curve = probe_line(make_evaluator(), draw(make_model()), [0.0])
    assert "by_image" not in curve[0]
    assert with_errors(curve, {}) is curve


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


def test_a_curve_in_fp32_is_compared_with_nothing():
    evaluator = make_evaluator()
    curve = probe_line(evaluator, draw(make_model()), [-1.0, 0.0, 1.0])
    points = evaluator.points
    assert confirm_precision(evaluator, {}, curve, CONSTANTS) == (
        curve,
        {"precision": "fp32", "precision_error": None},
    )
    assert evaluator.points == points


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


# --- exact slopes ---


class Doubles:
    """A split whose images are float64, for derivatives to many digits."""

    def __init__(self, split):
        self.split, self.images, self.labels = split, split.images, split.labels

    def __len__(self):
        return len(self.split)

    def floats(self, at):
        return self.split.floats(at).double()


def double_evaluator(norm, loss=LOSS, activation="tanh", **options):
    model = solutions.fresh({"arch": "resnet8", "norm": norm, "activation": activation}, (1, 8, 8), 4, seed=3)
    if norm == "batch":
        bn_refresh.refresh_bn(model, make_split(60).batches(60))
    return Evaluator(
        model.double().eval(), Doubles(make_split(60)), Doubles(make_split(30, 1)), loss, **options
    )


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


class Backwards(torch.autograd.Function):
    """The identity, with a derivative in reverse mode only."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@pytest.mark.parametrize("batch_size", [1000, 17])
@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
def test_a_network_without_forward_mode_is_differentiated_backwards(bn, batch_size):
    forwards, backwards = (double_evaluator("batch", bn=bn, batch_size=batch_size) for _ in range(2))
    backwards.model.final.register_forward_hook(lambda module, inputs, out: Backwards.apply(out))
    direction = draw(forwards.model)
    for evaluator in (forwards, backwards):
        evaluator.move(direction, 0.5)
    before = {name: id(p) for name, p in backwards.model.named_parameters()}
    expected = forwards.train_slope(direction)
    for _ in range(2):
        assert backwards.train_slope(direction) == pytest.approx(expected, rel=1e-9)
    assert (forwards.slopes.backwards, backwards.slopes.backwards) == (False, True)
    assert {name: id(p) for name, p in backwards.model.named_parameters()} == before
    assert backwards.train_slope({}) == 0.0


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


def solution(evaluator, tmp_path, n=3, **changes):
    block = {**BLOCK, "n": n, **changes}
    state = tmp_path / "curves.pt"
    found = probe_solution(evaluator, block, "cell", stored=[], check_stored_bn=True, state=state)
    return list(found)


def test_probe_solution_passes_through_the_stored_loss_and_meets_the_rise(tmp_path):
    evaluator = make_evaluator()
    own = evaluator.stored().train_loss
    results = solution(evaluator, tmp_path)
    assert [row["k"] for _, row in results] == [0, 1, 2]
    for curve, row in results:
        assert len(curve) == 7
        assert curve[3]["offset"] == 0.0
        assert curve[3]["train_loss"] == pytest.approx(own, rel=1e-5)
        if row["radius_status"] == "found":
            rises = [curve[i]["train_loss"] - own for i in (0, -1)]
            assert max(rises) == pytest.approx(0.5, rel=0.15)
        assert row["entries"] == sum(p.numel() for p in make_model().parameters())
        assert row["group_norm"] == pytest.approx(tensors.vector_norm(dict(make_model().named_parameters())))
        assert row["key"] == "cell/all"


def test_fixed_and_relative_radius(tmp_path):
    norm = tensors.vector_norm(dict(make_model().named_parameters()))
    cases = [({"radius": 0.7}, 0.7), ({"relative": 0.25}, 0.25 * norm)]
    head = {n: p for n, p in make_model().named_parameters() if n.startswith("classifier")}
    part = {"relative": 0.25, "relative_to": "group", "group": "classifier"}
    for changes, radius in [*cases, (part, 0.25 * tensors.vector_norm(head))]:
        (_, row), *_ = solution(make_evaluator(), tmp_path / str(radius), **changes)
        assert row["radius"] == pytest.approx(radius)
        assert row["radius_status"] == "fixed"


def test_self_check_finds_a_line_that_misses_its_solution(tmp_path):
    evaluator = make_evaluator()
    for layer in batch_norms(evaluator.model):
        layer.running_var.mul_(1.5)  # stored statistics that are not those of the images
    evaluator.load(evaluator.model.state_dict())
    with pytest.raises(ValleysError, match="self-check failed: direction 0 at offset 0"):
        solution(evaluator, tmp_path)


def test_more_directions_later_probe_only_the_new_ones(tmp_path):
    fresh = solution(make_evaluator(), tmp_path / "whole", n=4)
    first = make_evaluator()
    solution(first, tmp_path / "grown", n=3)
    second = make_evaluator()
    grown = solution(second, tmp_path / "grown", n=4)
    assert grown == fresh
    assert second.points < 0.6 * first.points
    third = make_evaluator()
    assert solution(third, tmp_path / "grown", n=2) == fresh[:2]
    assert third.points == 0


def test_a_killed_probe_goes_on_from_its_last_saved_direction(tmp_path):
    whole = solution(make_evaluator(), tmp_path / "whole")
    block, state = dict(BLOCK), tmp_path / "killed.pt"
    options = {"cell": "cell", "stored": [], "check_stored_bn": True, "state": state, "save_every_s": 0.0}
    killed = probe_solution(make_evaluator(), block, **options)
    next(killed), next(killed)
    killed.close()
    assert sorted(load_checkpoint(state)) == [0, 1]
    assert list(probe_solution(make_evaluator(), block, **options)) == whole


def test_an_adaptive_probe_resumes_and_tells_its_points(tmp_path, monkeypatch):
    answers = iter([None, 1, 2, None, None])
    monkeypatch.setattr(next_point, "next_point", lambda *_, **__: next(answers))
    options = {"cell": "cell", "stored": [], "check_stored_bn": True, "constants": CONSTANTS}
    block = {**BLOCK, "points": 21, "adaptive": True}
    first, state = make_evaluator(), tmp_path / "curves.pt"
    found = list(probe_solution(first, {**block, "n": 2}, state=state, **options))
    assert [(len(curve), row["points"]) for curve, row in found] == [(9, 9), (11, 11)]
    again = list(probe_solution(make_evaluator(), block, state=state, **options))
    assert again[:2] == found
    assert again[2][1]["points"] == 9
    whole = list(
        probe_solution(make_evaluator(), block | {"adaptive": False}, state=tmp_path / "x", **options)
    )
    for (curve, _), (points, _), at in zip(again, whole, (FIRST, [0, 1, 2, *FIRST[1:]], FIRST), strict=True):
        assert curve == [points[i] | {"grid_points": 21} for i in at]
    assert "points" not in whole[0][1]


def test_an_adaptive_probe_on_a_subset_has_errors_at_all_of_its_points(tmp_path, monkeypatch):
    options = {"cell": "cell", "stored": [], "check_stored_bn": False, "constants": CONSTANTS}
    block, curves = {**BLOCK, "points": 21, "n": 1}, []
    for adaptive in (True, False):
        monkeypatch.setattr(
            next_point, "next_point", lambda x, at, *_, **__: min(set(range(len(x))) - set(at), default=None)
        )
        given = block | {"adaptive": adaptive}
        ((curve, _),) = probe_solution(subset_evaluator(), given, state=tmp_path / str(adaptive), **options)
        curves.append(curve)
    assert curves[0] == [row | {"grid_points": 21} for row in curves[1]]
    assert all(row["train_error"] > 0 for row in curves[0] if row["offset"])


def test_stored_directions_are_picked_by_solution_and_number():
    stored = {f"{s}/{k}/w.x": torch.tensor([float(k)]) for s in ("sgd", "swa") for k in range(11)}
    found = stored_directions(stored, "swa")
    assert [d["w.x"].item() for d in found] == list(range(11))
    assert stored_directions(stored, "descent") == []


def test_rows_of_tables_have_the_names_and_the_columns_of_some_kinds():
    label = {"dataset": "d", "solution": "swa", "checksum": "abc"}
    probed = [([{"offset": 0.0}, {"offset": 1.0}], {"k": k, "radius": 2.0}) for k in (0, 1)]
    found, block = Rows(), {"kind": "hessian", "group": "all", "n": 2}
    found.add(iter(probed), label, block, "frozen", [{"eigenvalue": 3.5}, {"to_seed": 4}])
    found.add(iter(probed[:1]), label, {**block, "kind": "uniform"}, "none")
    assert [(row["eigenvalue"], row["to_seed"]) for row in found.directions] == [
        (3.5, None),
        (None, 4),
        (None, None),
    ]
    names = {"dataset": "d", "solution": "swa", "kind": "hessian", "group": "all", "bn_policy": "frozen"}
    assert found.curves[1] == {**names, "k": 0, "offset": 1.0}
    assert found.directions[1] == {**names, "k": 1, "radius": 2.0, "checksum": "abc", "eigenvalue": None} | {
        "to_seed": 4
    }
    assert len(found.curves) == 6


@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
def test_line_between_two_solutions(bn):
    stop = solutions.fresh({"arch": "resnet8"}, (1, 8, 8), 4, seed=9)
    bn_refresh.refresh_bn(stop, make_split(60).batches(60))
    evaluator = make_evaluator(bn=bn)
    line = {"start": "swa", "stop": "descent", "first": -1, "last": 2, "divisions": 4}
    points = line_between(evaluator, stop, line, check_stored_bn=True)
    assert [p["t"] for p in points] == [i / 4 for i in range(-4, 9)]
    broken = copy.deepcopy(stop)
    for layer in batch_norms(broken):
        layer.running_var.mul_(1.5)
    if bn == "refreshed":
        with pytest.raises(ValleysError, match=r"self-check failed: descent \(t = 1\)"):
            line_between(make_evaluator(), broken, line, check_stored_bn=True)
