"""Networks through torch.compile: the numbers of the network itself, resumable, and off unless asked for."""

import shutil

import pytest
import torch
from small_training import RECIPE, make_split, same
from torch import nn
from valleys.errors import ValleysError
from valleys.execution import jobs
from valleys.landscape import directions
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.lines import probe_line
from valleys.models import compilation
from valleys.training import sgd

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")


@pytest.fixture(autouse=True)
def forget():
    """Code compiled by one test is none of the next one's."""
    yield
    torch._dynamo.reset()


def fresh():
    """A network of few layers, as each takes a second to compile."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4))


def counted(monkeypatch):
    """Count the calls that reach the compiler."""
    shapes, compile_ = [], torch.compile

    def counting(model, **options):
        network = compile_(model, **options)
        return lambda images: shapes.append(tuple(images.shape)) or network(images)

    monkeypatch.setattr(torch, "compile", counting)
    return shapes


def test_a_network_is_itself_unless_asked():
    net = fresh()
    assert compilation.forward_of(net, False) is net
    assert not jobs.compiles({"execution": {"compile": False}})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert jobs.arithmetic(torch.device("cpu"), compiled=False) == "cpu"
        assert jobs.arithmetic(torch.device("cpu"), compiled=True) == "cpu, compiled"
        torch.set_num_threads(2)
        assert jobs.arithmetic(torch.device("cpu")) == "cpu, 2 threads"
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.long
def test_a_compiled_line_is_that_of_the_network(monkeypatch):
    net = fresh()
    train, test = make_split(40), make_split(24, 1)
    direction, _ = directions.random_direction("uniform", dict(net.named_parameters()), key="a", k=0)
    shapes = counted(monkeypatch)
    for bn in ("frozen", "refreshed"):
        lines = [
            probe_line(
                Evaluator(net, train, test, bn=bn, batch_size=20, compiled=compiled),
                direction,
                [-0.5, 0.0, 0.5],
            )
            for compiled in (False, True)
        ]
        for plain, fast in zip(*lines, strict=True):
            assert plain.pop("train_slope") is fast.pop("train_slope") is None
            assert fast == pytest.approx(plain, rel=1e-4, abs=1e-5)
        assert lines[1][0]["train_loss"] != lines[1][2]["train_loss"]  # it follows the weights
    # Frozen: two batches of train and two of test a point. Refreshed: the refresh gives the train loss.
    assert shapes.count((20, 1, 8, 8)) == 3 * (2 + 1) + 3 * 1
    assert shapes.count((4, 1, 8, 8)) == 3 + 3


@pytest.mark.slow
@pytest.mark.long
def test_compiled_training_follows_the_network_and_resumes_to_the_same_bits(tmp_path, monkeypatch):
    splits, recipe = (make_split(40), make_split(24, 1)), {**RECIPE, "epochs": 4}
    shapes = counted(monkeypatch)

    def train(name, epochs, compiled):
        net = fresh()
        rows = sgd.train(
            net,
            splits,
            {**recipe, "epochs": epochs},
            seed=0,
            state_dir=tmp_path / name,
            checkpoint_every=2,
            compiled=compiled,
        )
        return net.state_dict(), rows

    plain, rows = train("plain", 4, False)
    assert not shapes
    fast, fast_rows = train("fast", 4, True)
    assert shapes == [(16, 1, 8, 8), (16, 1, 8, 8), (8, 1, 8, 8)] * 4
    for row, other in zip(rows, fast_rows, strict=True):
        assert other["train_loss"] == pytest.approx(row["train_loss"], rel=1e-3)
    for name, tensor in plain.items():
        torch.testing.assert_close(fast[name], tensor, rtol=0.02, atol=1e-3, msg=name)
    train("halves", 2, True)
    torch._dynamo.reset()  # as in another process
    assert same(train("halves", 4, True)[0], fast)


def test_what_cannot_be_compiled_is_one_line(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    forward = compilation.forward_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.ReLU()), True)
    told = r"torch cannot compile Sequential \(.*No working C\+\+ compiler.*; set it to false$"
    with pytest.raises(ValleysError, match=told):
        forward(torch.zeros(3, 1, 2, 2))
