"""Published measures of sharpness, against their formulas on networks of which they can be written down."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from valleys import Evaluator, ValleysError
from valleys.landscape import sharpness

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))


class Bowl(nn.Module):
    """Returns its weights for each input, so that any function of them can be a loss."""

    def __init__(self, start):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start))

    def forward(self, x):
        return self.w.expand(len(x), -1) + 0 * x[:, :1]


CURVATURE = torch.tensor([1.0, 4.0, 9.0])


def quadratic(outputs, _labels):
    return 0.5 * (CURVATURE * outputs.square()).sum(1)


START = [0.5, -0.2, 0.1]


@pytest.fixture
def bowl():
    labels = torch.zeros(60, dtype=torch.long)
    return Evaluator(Bowl(START), [(X, labels)], loss=quadratic, bn="frozen")


def value(w):
    return float(0.5 * (CURVATURE.double().numpy() * np.square(w)).sum())


def test_sam_is_the_rise_a_step_along_the_gradient(bowl):
    w = np.array(START)
    gradient = CURVATURE.numpy() * w
    found = sharpness.sam(bowl, ["w"], rho=0.05)
    there = w + 0.05 * gradient / np.linalg.norm(gradient)
    assert found.value == pytest.approx(value(there) - value(w), rel=1e-4)
    assert math.isnan(found.low)


def test_adaptive_sam_scales_by_the_weights(bowl):
    w = np.array(START)
    gradient, size = CURVATURE.numpy() * w, np.abs(w)
    there = w + 0.3 * size**2 * gradient / np.linalg.norm(size * gradient)
    assert sharpness.adaptive_sam(bowl, ["w"], rho=0.3).value == pytest.approx(
        value(there) - value(w), rel=1e-4
    )


def test_the_worst_case_of_a_bowl_is_the_corner_away_from_its_bottom(bowl):
    w = np.array(START)
    found = sharpness.adaptive_worst(bowl, ["w"], rho=0.1)
    assert found.value == pytest.approx(value(1.1 * w) - value(w), rel=1e-4)


def test_the_average_of_a_quadratic_is_half_its_weighted_trace(bowl):
    w = np.array(START)
    expected = 0.5 * 0.01 * float((CURVATURE.numpy() * w**2).sum())
    found = [sharpness.adaptive_average(bowl, ["w"], rho=0.1, n=40, seed=seed) for seed in range(40)]
    inside = sum(one.low <= expected <= one.high for one in found)
    assert inside >= 32
    assert np.mean([one.value for one in found]) == pytest.approx(expected, rel=0.15)


def classifier(factor=1.0):
    """A ReLU net; with a factor the first layer is as much larger and the second smaller."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        net[0].weight *= factor
        net[0].bias *= factor
        net[2].weight /= factor
    return net


def test_elementwise_measures_do_not_see_that_a_net_was_rescaled_and_sams_does():
    labels = torch.randint(0, 3, (60,), generator=torch.Generator().manual_seed(1))
    one, other = (Evaluator(classifier(f), [(X, labels)]) for f in (1.0, 5.0))
    names = list(one.parameters)
    for measure in ("adaptive_sam", "adaptive_worst", "adaptive_average", "filter_width"):
        values = [sharpness.MEASURES[measure](e, names).value for e in (one, other)]
        loose = measure == "filter_width"  # a radius is found to 10 % of the rise
        assert values[0] == pytest.approx(values[1], rel=0.1 if loose else 1e-3), measure
    plain = [sharpness.sam(e, names).value for e in (one, other)]
    assert plain[1] > 1.5 * plain[0]


def test_the_width_is_where_the_loss_has_risen(bowl):
    labels = torch.randint(0, 3, (60,), generator=torch.Generator().manual_seed(1))
    evaluator = Evaluator(classifier(), [(X, labels)])
    found = sharpness.filter_width(evaluator, list(evaluator.parameters), rise=0.5, n=4)
    assert 0.05 < found.value < 3
    assert found.low < found.value < found.high
    wider = sharpness.filter_width(evaluator, list(evaluator.parameters), rise=1.0, n=4)
    assert wider.value > found.value


def test_the_evaluator_is_left_at_its_start(bowl):
    for measure in ("sam", "adaptive_sam", "adaptive_worst", "adaptive_average"):
        sharpness.MEASURES[measure](bowl, ["w"])
        assert bowl.parameters["w"].tolist() == pytest.approx(START)


@pytest.mark.parametrize(("options", "words"), [({"rho": 0.0}, "0.0 is no size"), ({"n": 1}, "n: 1 draws")])
def test_sizes_of_no_use_are_one_line(bowl, options, words):
    with pytest.raises(ValleysError, match=words):
        sharpness.adaptive_average(bowl, ["w"], **options)
