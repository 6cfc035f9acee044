"""The library on a user's own network, loss and loader."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import valleys
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from valleys import Evaluator, ValleysError, average, probe_line, refresh_bn
from valleys.data import loaders
from valleys.data.split import Split
from valleys.landscape import directions
from valleys.models import losses

ROOT = Path(__file__).parents[1]


def make_data(n=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 1, 4, 4), generator=generator).to(torch.uint8)
    return Split(images, torch.randint(0, 3, (n,), generator=generator), 3, (0.5,), (0.25,))


def as_loader(split, **options):
    return DataLoader(TensorDataset(split.floats(slice(None)), split.labels), **{"batch_size": 20} | options)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).eval()


def draw(net, k=0):
    return directions.random_direction("gaussian", net, k=k)[0]


OFFSETS = [-1.0, 0.0, 0.5]


@pytest.mark.slow
@pytest.mark.long
def test_the_example_in_the_docs_runs_and_prints_a_verdict_a_direction():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "how-to" / "network.md").read_text(), re.S)
    assert len(blocks) == 5
    printed, names = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        for block in blocks:
            exec(compile(block, "docs/how-to/network.md", "exec"), names)
    lines = (
        r"(a?symmetric|not_minimum) (not )?found\n\[.*\] <TraceEstimate: trace .*>\n<Landscape of .*>\n"
        r"(\d: [a-z_]+, c\* \S+, rises \S+ and \S+\n){3}(not )?found: c\* \S+ on images not searched on .*\n"
    )
    assert re.fullmatch(lines, printed.getvalue())
    last = [point for point in names["curve"] if point["offset"] == 0]
    assert last[0]["train_loss"] < 0.2  # it has trained
    rises = max(names["found"].rise_minus, names["found"].rise_plus)
    assert rises == pytest.approx(1, rel=0.1)


def test_names_are_there_and_importing_them_is_lazy():
    for name in valleys.__all__:
        assert getattr(valleys, name) is not None
        assert name in dir(valleys)
    with pytest.raises(AttributeError, match="no attribute 'prob_line'"):
        valleys.prob_line  # noqa: B018
    code = "import sys, valleys; print(sorted({'torch', 'numpy', 'scipy', 'yaml'} & set(sys.modules)))"
    path = str(ROOT / "workflow" / "scripts")
    run = [sys.executable, "-c", f"import sys; sys.path.insert(0, {path!r}); {code}"]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
def test_a_loader_gives_the_curve_that_the_workflow_gives(net, bn):
    train, test = make_data(), make_data(30, 1)
    theirs = probe_line(Evaluator(net, train, test, bn=bn, batch_size=20), draw(net), OFFSETS)
    given = {"train": as_loader(train), "test": as_loader(test), "bn": bn}
    assert (
        probe_line(net, draw(net), OFFSETS, **given, loss=losses.build({"name": "cross_entropy"})) == theirs
    )
    for loss in (nn.CrossEntropyLoss(), F.cross_entropy):  # means over batches of 20, 20 and 8
        for ours, own in zip(probe_line(net, draw(net), OFFSETS, **given, loss=loss), theirs, strict=True):
            assert list(ours.values())[:-1] == pytest.approx(list(own.values())[:-1], rel=1e-5)


def test_exact_slopes_of_a_batch_mean_are_those_of_the_images(net):
    train = make_data()
    (own,) = probe_line(
        Evaluator(net, train, loss=losses.build({"name": "mse"})), draw(net), [0.3], exact=True
    )
    (ours,) = probe_line(
        net,
        draw(net),
        [0.3],
        exact=True,
        train=as_loader(train),
        loss=lambda z, y: F.mse_loss(z, F.one_hot(y, 3).float()),
    )
    assert ours["train_slope"] == pytest.approx(own["train_slope"], rel=1e-4)
    assert own["train_slope"] != 0


def test_a_shuffling_loader_is_read_once_and_leaves_random_numbers_alone(net):
    torch.manual_seed(5)
    after = torch.rand(1)
    torch.manual_seed(5)
    evaluator = Evaluator(net, as_loader(make_data(), shuffle=True))
    assert torch.equal(torch.rand(1), after)
    first = probe_line(evaluator, draw(net), OFFSETS)
    assert [p["train_loss"] for p in probe_line(evaluator, draw(net), OFFSETS)] == [
        p["train_loss"] for p in first
    ]
    assert all(p["test_loss"] != p["test_loss"] for p in first)  # NaN without a test loader


def test_a_set_too_large_to_keep_is_read_again_in_order(net, monkeypatch):
    kept = probe_line(net, draw(net), OFFSETS, train=as_loader(make_data()))
    monkeypatch.setattr(loaders, "RESIDENT_BYTES", 1000)
    again = probe_line(net, draw(net), OFFSETS, train=as_loader(make_data()))
    assert [p["train_loss"] for p in again] == [p["train_loss"] for p in kept]
    shuffled = as_loader(make_data(), shuffle=True)  # by torch's own random numbers, which are set back
    found = probe_line(net, draw(net), [0.0, 0.0], train=shuffled)
    assert found[0]["train_loss"] == found[1]["train_loss"] == pytest.approx(kept[1]["train_loss"])
    with pytest.raises(ValleysError, match=r"train: batch 0 has other images.*shuffle=False"):
        probe_line(
            net, draw(net), OFFSETS, train=as_loader(make_data(), shuffle=True, generator=torch.Generator())
        )
    with pytest.raises(ValleysError, match="iterator over more than"):
        Evaluator(net, iter(as_loader(make_data())))


def test_the_network_and_its_statistics_are_left_alone(net):
    before = {name: t.clone() for name, t in net.state_dict().items()}
    net.train()
    probe_line(net, draw(net), None, train=as_loader(make_data()))
    assert net.training
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


def test_without_offsets_the_curve_ends_where_the_loss_has_risen_by_one():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    net[1].weight.data *= 20  # the radius ends at twice the weights' norm
    curve = probe_line(net, draw(net), train=as_loader(make_data()))
    middle = curve[20]
    assert (len(curve), middle["offset"]) == (41, 0)
    rise = max(curve[0]["train_loss"], curve[-1]["train_loss"]) - middle["train_loss"]
    assert rise == pytest.approx(1, rel=0.1)


def test_outputs_that_are_no_classes_have_a_loss_and_no_accuracy():
    torch.manual_seed(0)
    net = nn.Linear(4, 2)
    x, y = torch.randn(10, 4), torch.randn(10, 2)
    (point,) = probe_line(net, draw(net), [0.0], train=[(x, y)], loss=F.mse_loss)
    assert point["train_loss"] == pytest.approx(F.mse_loss(net(x), y).item())
    assert point["train_accuracy"] != point["train_accuracy"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": []}, "train: it yields no batches"),
        ({"train": 3}, "train: int is no loader"),
        ({"train": [torch.zeros(2, 1, 4, 4)]}, r"train: batch 0 is a Tensor; .* pair"),
        ({"train": [{"x": 1}]}, "train: batch 0 is a dict"),
        (
            {"train": [(torch.zeros(2, 1, 4, 4), torch.zeros(3))]},
            r"\(2, 1, 4, 4\) and labels of shape \(3,\)",
        ),
        ({"loss": nn.CrossEntropyLoss(reduction="sum")}, "a sum over the batch"),
        ({"loss": lambda z, y: 1.0}, "loss: it returns float"),
        ({"loss": lambda z, y: z[:2]}, r"loss: it returns shape \(2, 3\) for 20 labels"),
        ({"bn": "fresh"}, "bn: 'fresh' is no policy; choose refreshed or frozen"),
        ({"direction": {}}, "direction: it is without entries"),
        ({"direction": {"1.weigth": torch.zeros(8, 16)}}, "no parameter '1.weigth', did you mean '1.weight'"),
        (
            {"direction": {"1.weight": torch.zeros(16, 8)}},
            r"shape \(16, 8\); that of the parameter is \(8, 16\)",
        ),
        (
            {"direction": {"1.weight": torch.zeros(8, 16)}},
            "all of its values are 0, so the line has length zero",
        ),
        (
            {"direction": {"1.weight": torch.full((8, 16), torch.nan)}},
            "'1.weight' has values that are not fin",
        ),
        ({"model": "net"}, "str is neither a network nor an Evaluator"),
    ],
)
def test_mistakes_are_one_line(net, change, message):
    given = {"model": net, "direction": draw(net), "train": as_loader(make_data()), "loss": F.cross_entropy}
    given |= change
    with pytest.raises(ValleysError, match=message) as caught:
        probe_line(given.pop("model"), given.pop("direction"), OFFSETS, **given)
    assert "\n" not in str(caught.value)


def test_a_network_needs_images_and_an_evaluator_has_them(net):
    with pytest.raises(ValleysError, match="a network needs train"):
        probe_line(net, draw(net), OFFSETS)
    with pytest.raises(ValleysError, match="bn is settled by the evaluator"):
        probe_line(Evaluator(net, as_loader(make_data())), draw(net), OFFSETS, bn="frozen")


def test_averaging_refuses_iterates_that_share_their_memory(net):
    with pytest.raises(ValleysError, match=r"iterates 1 and 2 are the same tensors; keep copies"):
        average([net.state_dict(), net.state_dict()])
    copies = [{n: t.clone() for n, t in net.state_dict().items()} for _ in range(2)]
    copies[1]["1.bias"] += 2
    assert torch.allclose(average(copies)["1.bias"], copies[0]["1.bias"] + 1)


def test_averaging_a_network_that_is_filled_in_turn_in_float64(net):
    """A generator's state dicts may be one network's, whose float64 tensors must not be kept by reference."""
    net = net.double()

    def filled():
        for value in (1.0, 3.0):
            net[1].bias.data.fill_(value)
            yield net.state_dict()

    assert average(filled())["1.bias"].tolist() == [2.0] * 8


def test_refresh_takes_a_loader(net):
    split = make_data()
    refresh_bn(net, as_loader(split))
    hidden = net[1](net[0](split.floats(slice(None))))
    assert torch.allclose(net[2].running_mean, hidden.mean(0), atol=1e-6)
