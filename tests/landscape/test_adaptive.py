"""Curves measured where the verdict needs them."""

import math

import pytest
from naive_lines import CONSTANTS, FIRST, draw, make_evaluator, make_model
from valleys.asymmetry import next_point, robustness
from valleys.asymmetry.definition import detect_many
from valleys.asymmetry.spline import upsample
from valleys.landscape.adaptive import checked_points, confirm_precision, probe_adaptively
from valleys.landscape.lines import line_offsets, probe_line


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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_a_loss_that_is_not_finite_settles_the_verdict(asks):
    direction, offsets = draw(make_model("none"), kind="uniform"), line_offsets(1e12, 21)
    curve, _ = probe_adaptively(make_evaluator("none"), direction, offsets, CONSTANTS)
    assert len(curve) == 9
    assert not all(math.isfinite(row["train_loss"]) for row in curve)
    assert asks[1] == []


@pytest.mark.slow
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


def test_a_curve_in_fp32_is_compared_with_nothing():
    evaluator = make_evaluator()
    curve = probe_line(evaluator, draw(make_model()), [-1.0, 0.0, 1.0])
    points = evaluator.points
    assert confirm_precision(evaluator, {}, curve, CONSTANTS) == (
        curve,
        {"precision": "fp32", "precision_error": None},
    )
    assert evaluator.points == points
