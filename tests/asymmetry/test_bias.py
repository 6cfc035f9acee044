"""Definition 1 along biases of the last layer: what docs/theory.md proves, on trained and fresh nets."""

import math

import numpy as np
import pytest
import torch
from naive_lines import Doubles
from scipy.optimize import brentq
from scipy.special import expit
from small_training import RECIPE, fresh, make_split
from torch.nn.functional import cross_entropy
from valleys.asymmetry.bias import bias_level, bias_rise, bias_zeta
from valleys.asymmetry.definition import detect
from valleys.data.split import Split
from valleys.errors import ValleysError
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.lines import find_radius, line_offsets, probe_line
from valleys.training import sgd

BIAS, CLASSES = "classifier.bias", 4


def chosen(counts, n=400):
    """So many images of each class."""
    split = make_split(n)
    at = torch.cat([(split.labels == k).nonzero()[:count, 0] for k, count in enumerate(counts)])
    return Split(split.images[at], split.labels[at], CLASSES, split.mean, split.std)


BALANCED, UNEVEN = chosen([20] * CLASSES), chosen([5, 12, 20, 60])


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    """A net with random weights and one that is trained on balanced classes, in float64."""
    trained = fresh()
    sgd.train(
        trained, (BALANCED, make_split(40, 1)), RECIPE, seed=0, state_dir=tmp_path_factory.mktemp("state")
    )
    return {"fresh": fresh().double().eval(), "trained": trained.double().eval()}


def evaluator_of(net, split=BALANCED, loss="cross_entropy"):
    return Evaluator(net, Doubles(split), loss=loss, bn="frozen")


def along(k):
    unit = torch.zeros(CLASSES, dtype=torch.float64)
    unit[k] = 1.0
    return {BIAS: unit}


def outputs(net, split):
    with torch.no_grad():
        return net(Doubles(split).floats(slice(None)))


def log_odds(net, split, k):
    z = outputs(net, split)
    others = [j for j in range(CLASSES) if j != k]
    return (z[:, k] - z[:, others].logsumexp(1)).numpy()


def lowest_along(net, split, k):
    """Where the loss is least along a class's bias: where the mean probability is the class's share."""
    odds, share = log_odds(net, split, k), float((split.labels == k).double().mean())
    return brentq(lambda x: float(expit(odds + x).mean()) - share, -100, 100)


def rise_of(net, split, k, offset):
    """Loss at an offset of a class's bias above the least one on the line."""
    z, at = outputs(net, split), (offset, lowest_along(net, split, k))
    high, low = (float(cross_entropy(z + x * along(k)[BIAS], split.labels.long())) for x in at)
    return high - low


def at_lowest(net, split, k):
    """An evaluator whose lines along a class's bias start where the loss is least."""
    evaluator = evaluator_of(net, split)
    state = {name: value.clone() for name, value in evaluator.start.items()}
    state[BIAS][k] += lowest_along(net, split, k)
    evaluator.load(state)
    return evaluator


def curve(evaluator, k, radius, points=41):
    rows = probe_line(evaluator, along(k), line_offsets(radius, points))
    return [row["offset"] for row in rows], [row["train_loss"] for row in rows]


def slopes_at(evaluator, k, offsets):
    for offset in offsets:
        evaluator.move(along(k), offset)
        yield evaluator.train_slope(along(k))


class TestSlope:
    @pytest.mark.parametrize("which", ["fresh", "trained"])
    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_it_is_the_mean_probability_less_the_share(self, nets, which, smoothing):
        loss = {"name": "label_smoothing", "smoothing": smoothing} if smoothing else "cross_entropy"
        evaluator, z = evaluator_of(nets[which], UNEVEN, loss), outputs(nets[which], UNEVEN)
        for k in range(CLASSES):
            share = (1 - smoothing) * float((UNEVEN.labels == k).double().mean()) + smoothing / CLASSES
            for offset in (-7.0, -1.0, 0.0, 2.5):
                probability = (z + offset * along(k)[BIAS]).softmax(1)[:, k].mean()
                evaluator.move(along(k), offset)
                assert evaluator.train_slope(along(k)) == pytest.approx(float(probability) - share, abs=1e-12)
            for offset, limit in ((-80.0, -share), (80.0, 1 - share)):
                evaluator.move(along(k), offset)
                assert evaluator.train_slope(along(k)) == pytest.approx(limit, abs=1e-12)
            assert bias_level(share) == pytest.approx((1 - share) / share)

    def test_along_any_direction_of_the_last_layer_it_has_the_limits_of_proposition_3(self, nets):
        evaluator = evaluator_of(nets["trained"], UNEVEN)
        generator, names = torch.Generator().manual_seed(5), ("classifier.weight", BIAS)
        direction = {
            name: torch.randn(evaluator.parameters[name].shape, generator=generator, dtype=torch.float64)
            for name in names
        }
        before = outputs(evaluator.model, UNEVEN)
        evaluator.move(direction, 1.0)
        moved = outputs(evaluator.model, UNEVEN) - before
        true = moved.gather(1, UNEVEN.labels.long()[:, None])[:, 0]
        limits = {1e4: (moved.max(1).values - true).mean(), -1e4: (moved.min(1).values - true).mean()}
        for offset, limit in limits.items():
            evaluator.move(direction, offset)
            assert evaluator.train_slope(direction) == pytest.approx(float(limit), rel=1e-9)

    def test_along_a_weight_from_a_feature_that_is_never_negative_the_share_is_the_features(self, nets):
        evaluator = evaluator_of(nets["trained"], UNEVEN)
        before, mine, levels = outputs(evaluator.model, UNEVEN), UNEVEN.labels == 2, []
        for feature in range(evaluator.parameters["classifier.weight"].shape[1]):
            unit = torch.zeros_like(evaluator.parameters["classifier.weight"])
            unit[2, feature] = 1.0
            evaluator.move({"classifier.weight": unit}, 1.0)
            f = (outputs(evaluator.model, UNEVEN) - before)[:, 2]
            assert f.min() > -1e-12  # after a ReLU
            share = float(f[mine].sum() / f.sum().clamp_min(1e-300))
            if not 0.01 < share < 0.99:
                continue  # silent on one side or on all images
            slopes = []
            for offset in (-1e6, 1e6):
                evaluator.move({"classifier.weight": unit}, offset)
                slopes.append(evaluator.train_slope({"classifier.weight": unit}))
            levels.append(-slopes[1] / slopes[0])
            assert levels[-1] == pytest.approx(bias_level(share), rel=1e-3)
        assert len(levels) > 3


class TestFarOut:
    @pytest.mark.parametrize("which", ["fresh", "trained"])
    @pytest.mark.parametrize("split", [BALANCED, UNEVEN], ids=["balanced", "uneven"])
    def test_definition_1_holds_from_zeta_on(self, nets, which, split):
        """At a minimum or not; the window's p is at most the share, and no r is too large."""
        evaluator = evaluator_of(nets[which], split)
        for k in range(CLASSES):
            share, sign = float((split.labels == k).double().mean()), 1
            odds = log_odds(nets[which], split, k)
            if share >= 0.5:
                share, sign, odds = 1 - share, -1, -odds
            c = 0.9 * bias_level(share)
            zeta = bias_zeta(odds, share, c)
            radius = max(2 * zeta, 4 * np.abs(odds).max()) * 1.1  # the lowest point lies within a quarter
            found = detect(*curve(evaluator, k, radius), c=c)
            assert found.status == "asymmetric"
            assert found.flat_side == -sign
            assert c <= found.c_star
            assert found.p <= share * (1 + 1e-12)
            # Far enough out for every image the window's two slopes are the limits.
            far = detect(*curve(evaluator, k, 10 * radius), c=c)
            assert far.c_star == pytest.approx(bias_level(share), rel=1e-6)

    @pytest.mark.slow
    @pytest.mark.long
    @pytest.mark.parametrize("which", ["fresh", "trained"])
    def test_at_a_rise_of_one_nat_it_is_not_so_and_near_0_it_is_a_parabola(self, nets, which):
        c = 0.9 * bias_level(1 / CLASSES)
        assert bias_rise(1 / CLASSES, c) > 1
        for k in range(CLASSES):
            evaluator = at_lowest(nets[which], BALANCED, k)
            radius = find_radius(evaluator, along(k), rise=1.0, first=1.0, cap=100.0, tolerance=0.01)
            near = detect(*curve(evaluator, k, radius.radius))
            assert radius.status == "found"
            assert 2 / 3 < near.c_star < c
            offsets, values = curve(evaluator, k, 0.01)
            slopes = list(slopes_at(evaluator, k, offsets))
            assert detect(offsets, values, slopes=slopes).c_star == pytest.approx(2 / 3, rel=0.01)


class TestZetaAndRise:
    @pytest.mark.parametrize("which", ["fresh", "trained"])
    @pytest.mark.parametrize("part", [0.5, 0.9, 0.999])
    def test_zeta_is_where_the_slope_is_c_times_the_share_and_within_its_bounds(self, nets, which, part):
        evaluator, share = evaluator_of(nets[which]), 1 / CLASSES
        c = 1 + part * (bias_level(share) - 1)
        for k in range(CLASSES):
            odds = log_odds(nets[which], BALANCED, k)
            zeta = bias_zeta(odds, share, c)
            evaluator.move(along(k), zeta)
            assert zeta > 0
            assert evaluator.train_slope(along(k)) == pytest.approx(c * share, rel=1e-9)
            middle = math.log((1 + c) / (bias_level(share) - c))
            assert middle - odds.max() <= zeta <= middle - odds.min()
            low = bias_rise(share, c)
            assert 0 < low <= rise_of(nets[which], BALANCED, k, zeta) + 1e-12

    def test_the_bound_on_the_rise_is_met_where_all_images_have_the_same_outputs(self):
        for share, c in ((0.1, 2.0), (0.1, 8.9), (0.3, 1.5)):
            lowest = math.log(share / (1 - share))  # log-odds at the line's lowest point
            zeta = bias_zeta(np.full(7, lowest), share, c)
            loss = [np.logaddexp(0, a) - share * a for a in (lowest, lowest + zeta)]
            assert bias_rise(share, c) == pytest.approx(loss[1] - loss[0], rel=1e-9)

    def test_a_side_that_is_steep_from_the_start_has_zeta_0(self):
        assert bias_zeta([20.0, 30.0], 0.1, 5.0) == 0

    def test_an_early_end_of_the_window_may_pass_the_level_of_all_windows(self):
        """Most images of the class are sure; then the flat side is flatter than its limit for a long way."""
        odds, mine = np.array([40.0] * 9 + [0.0] + [-4.0] * 90), np.arange(100) < 10
        offsets = np.linspace(-16, 16, 65)
        loss = [(np.logaddexp(0, odds + x) - mine * (odds + x)).mean() for x in offsets]
        assert detect(offsets, loss).c_star > 5 * bias_level(0.1)


class TestOtherLosses:
    def test_squared_error_is_symmetric_about_its_lowest_point(self, nets):
        evaluator = evaluator_of(nets["trained"], UNEVEN, "mse")
        for k in range(CLASSES):
            _, (minus, middle, plus) = curve(evaluator, k, 1.0, 3)
            lowest = (minus - plus) / (2 * (plus + minus - 2 * middle))
            state = {name: value.clone() for name, value in evaluator.start.items()}
            state[BIAS][k] += lowest
            moved = evaluator_of(nets["trained"], UNEVEN, "mse")
            moved.load(state)
            for radius in (1.0, 100.0):
                found = detect(*curve(moved, k, radius))
                assert found.asymmetry_index == pytest.approx(0, abs=1e-9)
                assert found.status == "symmetric"
                assert found.c_star < 1
            # From where it was, the far index is small too, as the loss is a parabola all the way.
            assert abs(detect(*curve(evaluator, k, 1e4)).asymmetry_index) < 1e-2


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: bias_level(0.0), "share: 0.0 is not between 0 and 1"),
        (lambda: bias_level(1), "share: 1 is not between 0 and 1"),
        (lambda: bias_level(math.nan), "share: nan is not between"),
        (lambda: bias_level("half"), "share: 'half' is not a number"),
        (lambda: bias_level(True), "share: True is not a number"),
        (lambda: bias_rise(0.5, 2.0), "share: 0.5 is not below 1/2.*give 1 - share"),
        (lambda: bias_rise(0.1, 9.0), r"c: 9.0 is not above 1 and below \(1 - share\) / share = 9"),
        (lambda: bias_rise(0.1, 1.0), "c: 1.0 is not above 1"),
        (lambda: bias_rise(0.1, math.nan), "c: nan is not a number"),
        (lambda: bias_zeta([], 0.1, 2.0), r"log_odds: expected one for each image.*got shape \(0,\)"),
        (lambda: bias_zeta([[1.0]], 0.1, 2.0), r"log_odds: expected .*got shape \(1, 1\)"),
        (lambda: bias_zeta([1.0, math.inf], 0.1, 2.0), "log_odds: 1 of 2 are not finite"),
    ],
)
def test_bad_input_is_named(call, said):
    with pytest.raises(ValleysError, match=said):
        call()
