"""Errors that a subset of images brings."""

import math

import pytest
import torch
from naive_lines import draw, make_evaluator, make_model, make_split, subset_evaluator
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.lines import line_offsets, probe_line
from valleys.landscape.subsets import ERRORS, with_errors


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


@pytest.mark.slow
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
