"""Paths with trained bends: their points and lengths, what is trained, and resumption to the same bits."""

import copy
import itertools
import math
import os
import signal

import numpy as np
import pytest
import torch
from small_training import SPEC, make_split
from torch import nn
from valleys.asymmetry.barriers import barrier
from valleys.errors import ValleysError
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.probing import line_between
from valleys.models import losses, solutions
from valleys.networks import bn_refresh
from valleys.networks.batch_norm import batch_norms
from valleys.storage.weights import checksum
from valleys.training import paths
from valleys.training.paths import CurveNet, WeightPath
from valleys.training.signals import Stopped
from valleys.training.trainer import Trainer

RECIPE = {
    "batch_size": 16,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 5e-4,
    "loss": {"name": "cross_entropy"},
    "augment": {"shift": 1, "flip": True, "pad_mode": "zero"},
}
LINE = {"path": "bezier", "bends": 1, "epochs": 4, "lr": 0.05}


def make_model(seed=0, spec=SPEC):
    model = solutions.fresh(spec, (1, 8, 8), 4, seed=seed)
    if batch_norms(model):
        bn_refresh.refresh_bn(model, make_split(72).batches(72))
    return model.eval()


def weights(model):
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def random_points(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        {"a": torch.randn(3, 2, generator=generator), "b": torch.randn(4, generator=generator)}
        for _ in range(n)
    ]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# --- points of a path ---


@pytest.mark.parametrize("bends", [1, 2, 5])
@pytest.mark.parametrize("kind", ["bezier", "chain"])
def test_a_path_begins_and_ends_exactly_in_its_ends(kind, bends):
    points = random_points(bends + 2)
    path = WeightPath(kind, points)
    assert same(path.at(0.0), points[0])
    assert same(path.at(1.0), points[-1])
    for t in np.linspace(0, 1, 23):
        assert sum(paths.coefficients(kind, bends + 2, t)) == pytest.approx(1)
    before = copy.deepcopy(points)
    path.at(0.3)
    assert all(same(a, b) for a, b in zip(points, before, strict=True)), "control points are not written to"


def test_bezier_against_de_casteljau():
    points = random_points(5)
    for t in (0.1, 0.5, 0.83):
        level = [{k: v.double() for k, v in point.items()} for point in points]
        while len(level) > 1:
            level = [{k: (1 - t) * a[k] + t * b[k] for k in a} for a, b in itertools.pairwise(level)]
        found = WeightPath("bezier", points).at(t)
        for name, expected in level[0].items():
            torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=1e-6)


def test_a_chain_passes_through_its_bends_in_even_time():
    points = random_points(4)
    path = WeightPath("chain", points)
    for k, point in enumerate(points):
        for name, tensor in path.at(k / 3).items():
            torch.testing.assert_close(tensor, point[name], rtol=1e-5, atol=1e-6)
    for name, tensor in path.at(0.5).items():
        torch.testing.assert_close(tensor, (points[1][name] + points[2][name]) / 2)


def test_a_straight_path_goes_on_beyond_its_ends():
    start, stop = random_points(2)
    found = WeightPath("linear", [start, stop]).at(-1.5)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, 2.5 * start[name] - 1.5 * stop[name])


@pytest.mark.parametrize(
    ("kind", "points", "t", "message"),
    [
        ("bezier", 3, -0.1, "no point at t = -0.1"),
        ("chain", 3, 1.1, "no point at t = 1.1"),
        ("spline", 3, 0.5, "'spline'"),
        ("linear", 3, 0.5, "3 control points"),
    ],
)
def test_points_that_are_not_on_a_path(kind, points, t, message):
    with pytest.raises(ValleysError, match=message):
        paths.coefficients(kind, points, t)


# --- arc length ---


def test_lengths_of_straight_segments_are_exact():
    points = [{"w": torch.tensor(p)} for p in ([0.0, 0.0], [3.0, 4.0], [3.0, 16.0])]
    assert WeightPath("linear", points[:2]).lengths([-2, 0, 0.5, 1, 3]) == pytest.approx([-10, 0, 2.5, 5, 15])
    assert WeightPath("chain", points).lengths([0, 0.25, 0.5, 0.75, 1]) == pytest.approx([0, 2.5, 5, 11, 17])


def test_length_of_a_bezier_curve_against_fine_chords_and_a_closed_form():
    points = random_points(4)
    path, ts = WeightPath("bezier", points), np.linspace(0, 1, 4001)
    at = np.array(
        [np.concatenate([v.double().numpy().ravel() for v in path.at(float(t)).values()]) for t in ts]
    )
    chords = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(at, axis=0), axis=1))])
    found = path.lengths([0.0, 0.25, 1.0, 0.5])  # in any order
    assert found == pytest.approx([chords[0], chords[1000], chords[4000], chords[2000]], rel=1e-4)
    # A parabola y = x^2, x from 0 to 1.
    parabola = [{"w": torch.tensor(p)} for p in ([0.0, 0.0], [0.5, 0.0], [1.0, 1.0])]
    exact = math.sqrt(5) / 2 + math.asinh(2) / 4
    assert WeightPath("bezier", parabola).lengths([1.0]) == pytest.approx([exact], rel=1e-12)


# --- what is trained ---


@pytest.mark.parametrize("bends", [1, 3])
@pytest.mark.parametrize("kind", ["bezier", "chain"])
def test_untrained_bends_lie_on_the_straight_line(kind, bends):
    start, stop = weights(make_model(0)), weights(make_model(1))
    curve = CurveNet(make_model(0), kind, start, stop, bends)
    path = WeightPath(kind, [start, *curve.named_bends(), stop])
    for t in (0.2, 0.5, 0.9):
        for name, tensor in path.at(t).items():
            torch.testing.assert_close(tensor, (1 - t) * start[name] + t * stop[name], rtol=1e-4, atol=1e-6)
    length = WeightPath("linear", [start, stop]).lengths([1.0])[0]
    assert path.lengths([0.5, 1.0]) == pytest.approx([length / 2, length], rel=1e-5)


@pytest.mark.parametrize("bends", [1, 2])
@pytest.mark.parametrize("kind", ["bezier", "chain"])
def test_a_step_is_that_of_the_network_at_the_drawn_t(kind, bends):
    """Output and gradient against a plain network whose weights are set to phi(t)."""
    start, stop = make_model(0), make_model(1)
    curve = CurveNet(start, kind, weights(start), weights(stop), bends, weight_decay=0.1)
    with torch.no_grad():
        curve.bends += 0.01 * torch.randn(curve.bends.shape, generator=torch.Generator().manual_seed(5))
    images, labels = make_split(16).floats(slice(None)), make_split(16).labels
    curve.train()
    torch.manual_seed(3)
    logits = curve(images)
    nn.functional.cross_entropy(logits, labels).backward()

    torch.manual_seed(3)
    t = float(torch.rand(()))
    assert 0 < t < 1
    plain = copy.deepcopy(start).train()
    points = [weights(start), *curve.named_bends(), weights(stop)]
    plain.load_state_dict(WeightPath(kind, points).at(t), strict=False)
    expected = plain(images)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    squares = sum(p.square().sum() for p in plain.parameters())
    (nn.functional.cross_entropy(expected, labels) + 0.1 / 2 * squares).backward()
    along = torch.cat([p.grad.reshape(-1) for p in plain.parameters()])
    shares = paths.coefficients(kind, bends + 2, t)[1:-1]
    for share, gradient in zip(shares, curve.bends.grad, strict=True):
        torch.testing.assert_close(gradient, share * along, rtol=1e-3, atol=1e-4)


def test_the_base_networks_statistics_have_no_part():
    start, stop = make_model(0), make_model(1)
    spoilt = copy.deepcopy(start)
    for layer in batch_norms(spoilt):
        layer.running_mean.fill_(7.0)
        layer.running_var.fill_(0.01)
    first, second = (
        paths.connect(base, stop, make_split(72), RECIPE, LINE, seed=0) for base in (start, spoilt)
    )
    assert same(first[0], second[0])


def test_the_ends_are_neither_trained_nor_changed():
    start, stop = make_model(0), make_model(1)
    before = [copy.deepcopy(model.state_dict()) for model in (start, stop)]
    bends = paths.connect(start, stop, make_split(72), RECIPE, LINE, seed=0)
    assert same(start.state_dict(), before[0])
    assert same(stop.state_dict(), before[1])
    assert not start.training
    assert all(p.requires_grad for p in start.parameters())
    assert bends[0].keys() == weights(start).keys()
    curve = CurveNet(start, "bezier", weights(start), weights(stop), 2)
    assert [name for name, _ in curve.named_parameters()] == ["bends"]
    assert list(curve.state_dict()) == ["bends"]


def test_rate_of_garipov_et_al():
    rates = [paths.bend_rate(e, 100, 0.1) for e in range(100)]
    assert rates[:51] == [0.1] * 51
    assert rates[70] == pytest.approx(0.1 * (1 - 0.99 * 0.5))
    assert rates[90:] == pytest.approx([0.001] * 10)


@pytest.mark.slow
def test_training_lowers_the_barrier():
    split = make_split(72)
    ends = []
    for seed in (0, 1):
        model = make_model(seed)
        trainer = Trainer(model, split, {**RECIPE, "lr": 0.1}, seed=seed)
        trainer.run(15, lambda epoch: 0.1, lambda epoch, row: None)
        bn_refresh.refresh_bn(model, split.batches(72))
        ends.append(model.eval())
    line = {"start": "swa", "stop": "swa", "first": 0, "last": 1, "divisions": 10}
    heights = []
    for epochs in (0, 30):
        curve = None
        if epochs:
            bends = paths.connect(*ends, split, RECIPE, {**LINE, "epochs": epochs}, seed=0)
            curve = WeightPath("bezier", [weights(ends[0]), *bends, weights(ends[1])]).at
        evaluator = Evaluator(ends[0], split, split, losses.build(RECIPE["loss"]))
        points = line_between(evaluator, ends[1], line, True, curve)  # checks both ends
        heights.append(barrier([p["t"] for p in points], [p["train_loss"] for p in points]).height)
    assert heights[1] < 0.5 * heights[0]


# --- killed and resumed ---


class Interrupt(Exception):
    pass


@pytest.mark.parametrize("how", ["killed", "terminated"])
@pytest.mark.parametrize("at_step", [1, 7, 13])
def test_a_stopped_run_resumes_to_identical_bytes(tmp_path, monkeypatch, how, at_step):
    """Without warning (SIGKILL: the last checkpoint counts) and by SIGTERM (the step just done is saved)."""

    def run(state):
        return paths.connect(
            *(make_model(0), make_model(1), make_split(72), RECIPE, {**LINE, "bends": 2}),
            seed=0,
            state=state / "checkpoint.pt",
            checkpoint_every=1,
        )

    about = {"path": "bezier", "start": "a", "stop": "b"}
    paths.save_bends(tmp_path / "whole.safetensors", run(tmp_path / "whole"), about)
    steps, step = 0, torch.optim.SGD.step

    def counted(self, *args, **kwargs):
        nonlocal steps
        steps += 1
        if steps == at_step:
            if how == "killed":
                raise Interrupt
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", counted)
        with pytest.raises(Interrupt if how == "killed" else Stopped):
            run(tmp_path / "stopped")
    torch.manual_seed(99)  # what another process would have
    paths.save_bends(tmp_path / "stopped.safetensors", run(tmp_path / "stopped"), about)
    assert (tmp_path / "stopped.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_divergence_names_the_lines_rate():
    plain = [make_model(seed, SPEC | {"norm": "none"}) for seed in (0, 1)]
    with pytest.raises(ValleysError, match=r"training diverged.*; lower the line's lr \(now 1e\+20\)$"):
        paths.connect(*plain, make_split(72), RECIPE, {**LINE, "lr": 1e20}, seed=0)


# --- stored ---


def test_bends_are_stored_with_their_ends(tmp_path):
    start, *bends, stop = random_points(4)
    about = {"path": "chain", "start": "one", "stop": "two"}
    file = tmp_path / "bends.safetensors"
    paths.save_bends(file, bends, about)
    path = paths.load_path(file, start, stop, about)
    assert path.kind == "chain"
    assert all(same(a, b) for a, b in zip(path.points, [start, *bends, stop], strict=True))
    for key in about:
        with pytest.raises(ValleysError, match=f"has another {key} than this line; delete it and rerun"):
            paths.load_path(file, start, stop, about | {key: "other"})
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValleysError, match="does not match its checksum"):
        paths.load_path(file, start, stop, about)
    assert checksum(bends[0]) != checksum(bends[1])


def test_self_check_finds_a_path_that_misses_its_ends():
    start, stop = make_model(0), make_model(1)
    other = weights(make_model(2))
    line = {"start": "swa", "stop": "sgd", "first": 0, "last": 1, "divisions": 2}
    for ends, place in (((other, weights(stop)), "t = 0"), ((weights(start), other), "t = 1")):
        evaluator = Evaluator(start, make_split(72), make_split(30, 1), losses.build(RECIPE["loss"]))
        curve = WeightPath("bezier", [ends[0], weights(start), ends[1]])
        with pytest.raises(ValleysError, match=f"self-check failed: .*{place}"):
            line_between(evaluator, stop, line, True, curve.at)


def test_there_is_no_path_from_weights_to_themselves():
    start, stop, line = make_model(), make_model(), {**LINE, "start": "sgd", "stop": "swa", "divisions": 2}
    with pytest.raises(ValleysError, match="start and stop are the same weights"):
        paths.connect(start, stop, make_split(72), RECIPE, LINE, seed=0)
    evaluator = Evaluator(start, make_split(72), batch_size=72)
    with pytest.raises(ValleysError, match=r"sgd \(t = 0\) and swa \(t = 1\) are the same weights"):
        line_between(evaluator, stop, {**line, "first": 0, "last": 1}, False)
