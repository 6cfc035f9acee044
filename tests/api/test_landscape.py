"""One object for everything: its numbers are those of the functions, plain loops and dense matrices."""

import copy

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from valleys import Evaluator, Landscape, ValleysError, barrier, detect, probe_line
from valleys.landscape import directions
from valleys.networks.adapter import Adapter, called
from valleys.storage import tables

mpl.use("agg")
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(40, 6, generator=GENERATOR)
Y = torch.randint(0, 3, (40,), generator=GENERATOR)
DATA, TEST = [(X[:16], Y[:16]), (X[16:30], Y[16:30])], [(X[30:], Y[30:])]
NAMED = [{"x": x, "labels": y} for x, y in DATA]


class Net(nn.Sequential):
    def forward(self, x):
        return super().forward(x)


def trained(norm=True, seed=0):
    torch.manual_seed(seed)
    net = Net(nn.Linear(6, 7), nn.BatchNorm1d(7) if norm else nn.Identity(), nn.Tanh(), nn.Linear(7, 3))
    sgd = torch.optim.SGD(net.parameters(), lr=0.3)
    for _ in range(30):
        for x, y in DATA:
            sgd.zero_grad()
            F.cross_entropy(net(x), y).backward()
            sgd.step()
    return net


@pytest.fixture(scope="module")
def net():
    return trained()


@pytest.fixture(scope="module")
def landscape(net):
    return Landscape(net, DATA, nn.CrossEntropyLoss(), test=TEST, progress=False)


def hessian_of(net, loss_of=F.cross_entropy):
    """The dense Hessian in float64, batch norm held."""
    net = copy.deepcopy(net).double().eval()
    names = [name for name, _ in net.named_parameters()]
    shapes = [p.shape for p in net.parameters()]
    x, y = torch.cat([x for x, _ in DATA]).double(), torch.cat([y for _, y in DATA])

    def loss(flat):
        pieces = flat.split([s.numel() for s in shapes])
        values = {n: p.view(s) for n, p, s in zip(names, pieces, shapes, strict=True)}
        return loss_of(functional_call(net, values, (x,)), y)

    flat = torch.cat([p.detach().flatten() for p in net.parameters()])
    return torch.autograd.functional.hessian(loss, flat).numpy()


def test_a_line_is_that_of_probe_line_and_its_verdict_that_of_detect(net, landscape):
    line = landscape.line("gaussian", points=21, slopes=True)
    direction, _ = directions.random_direction("gaussian", net, key="all")
    assert all(torch.equal(line.direction[name], tensor) for name, tensor in direction.items())
    curve = probe_line(net, direction, line.offsets, train=DATA, test=TEST, loss=nn.CrossEntropyLoss())
    assert line.train_loss == pytest.approx([point["train_loss"] for point in curve])
    assert line.test_loss == pytest.approx([point["test_loss"] for point in curve])
    assert line.radius.status == "found"
    slopes = [point["train_slope"] for point in line.points]
    assert landscape.verdict(line, c=1.5) == detect(
        line.offsets, line.train_loss, slopes=slopes, noise=1e-6, c=1.5
    )


def test_a_given_direction_is_scaled_and_offsets_may_come_from_linspace(landscape):
    given = {"0.bias": torch.arange(7.0)}
    line = landscape.line(given, offsets=torch.linspace(-0.3, 0.3, 7))
    assert float(line.direction["0.bias"].norm()) == pytest.approx(1)
    assert line.verdict().status in ("asymmetric", "symmetric", "not_minimum", "flat")
    assert line.radius.status == "fixed"


def test_data_by_name_give_the_same_as_pairs(net, landscape):
    named = Landscape(net, NAMED, nn.CrossEntropyLoss(), inputs="x", progress=False)
    line, other = (one.line("uniform", radius=1.5, points=7) for one in (landscape, named))
    assert line.train_loss == pytest.approx(other.train_loss, rel=1e-6)
    assert named.hessian(2).values == pytest.approx(landscape.hessian(2).values, rel=1e-4)
    assert named.gradient().norm == pytest.approx(landscape.gradient().norm, rel=1e-4)


def test_the_gradient_is_that_of_the_mean_loss(net, landscape):
    model = copy.deepcopy(net).eval()
    x, y = torch.cat([x for x, _ in DATA]), torch.cat([y for _, y in DATA])
    F.cross_entropy(model(x), y).backward()
    found = landscape.gradient()
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert found.norm == pytest.approx(float(norm), rel=1e-4)
    for name, parameter in model.named_parameters():
        assert torch.allclose(found.direction[name] * found.norm, parameter.grad, atol=1e-5)


def test_eigenvalues_are_those_of_the_dense_hessian(net, landscape):
    dense = np.linalg.eigvalsh(hessian_of(net))[::-1]
    assert landscape.hessian(3).values == pytest.approx(dense[:3], rel=1e-4)
    loose = landscape.hessian(1, tolerance=1e-2)
    assert loose.values[0] == pytest.approx(dense[0], abs=2 * loose.residuals[0] + 1e-4 * dense[0])


def test_the_trace_lies_in_its_interval_about_as_often_as_it_says(net, landscape):
    trace = float(np.trace(hessian_of(net)))
    found = [landscape.trace(probes=20, seed=seed) for seed in range(40)]
    inside = sum(one.low <= trace <= one.high for one in found)
    assert inside >= 31  # 95 % of 40 is 38; fewer than 31 comes by chance in less than 1 of 1,000
    assert np.mean([one.value for one in found]) == pytest.approx(trace, rel=0.1)
    exact = landscape.trace(probes=200)
    assert exact.error < found[0].error


def test_the_density_has_the_moments_of_the_dense_spectrum_and_integrates_to_one(net, landscape):
    dense = np.linalg.eigvalsh(hessian_of(net))
    found = landscape.density(probes=30, steps=30)
    for power in (1, 2):
        moment, error = found.spectrum.moment(power)
        assert moment == pytest.approx(np.mean(dense**power), abs=4 * error)
    assert found.spectrum.nodes.max() == pytest.approx(dense[-1], rel=1e-3)
    frame = found.frame()
    area = np.trapezoid(frame["density"], frame["eigenvalue"])
    assert area == pytest.approx(1, abs=0.02)


def test_a_spectrum_of_fewer_dimensions_than_steps_is_whole(landscape, net):
    found = landscape.density(probes=3, steps=40, group="layer:3.bias")
    assert found.spectrum.nodes.shape == (3, 3)
    assert np.isfinite(found.frame()["density"]).all()
    with pytest.raises(ValleysError, match="probes: 1 is too few"):
        landscape.trace(probes=1)


def test_a_plane_and_a_path_are_those_of_a_plain_loop(net):
    other = trained(seed=1)
    landscape = Landscape(net, DATA, bn="frozen", progress=False)
    plane = landscape.plane(points=3, relative=0.2)
    first, second = landscape.random_direction(k=0), landscape.random_direction(k=1)
    along = sum(float((first[n] * second[n]).sum()) for n in first)
    rest = {n: second[n] - along * first[n] for n in first}
    size = float(torch.cat([t.flatten() for t in rest.values()]).norm())
    model = copy.deepcopy(net).eval()

    def loss(weights):
        with torch.no_grad():
            x, y = torch.cat([x for x, _ in DATA]), torch.cat([y for _, y in DATA])
            return float(F.cross_entropy(functional_call(model, weights, (x,)), y))

    own = dict(net.named_parameters())
    for point in plane.points:
        there = {n: w + point["x"] * first[n] + point["y"] * rest[n] / size for n, w in own.items()}
        assert point["train_loss"] == pytest.approx(loss(there), rel=1e-4)
    path = landscape.path(other, points=5)
    stop = dict(other.named_parameters())
    for point in path.points:
        there = {n: (1 - point["t"]) * w + point["t"] * stop[n] for n, w in own.items()}
        assert point["train_loss"] == pytest.approx(loss(there), rel=1e-4)
    losses = [point["train_loss"] for point in path.points]
    assert path.barrier == barrier([0, 0.25, 0.5, 0.75, 1], losses)
    with pytest.raises(ValleysError, match="length zero"):
        landscape.path(net)


def test_a_barriers_interval_is_over_examples(net):
    """Of the basic bootstrap; as wide as sampling says, and none where the loss gives a mean alone."""
    other = trained(seed=1)
    path = Landscape(net, DATA, bn="frozen", progress=False).path(other, points=5)
    assert path.by_example.shape == (5, 30)
    losses = [point["train_loss"] for point in path.points]
    assert path.by_example.mean(1) == pytest.approx(losses, rel=1e-5)
    low, high = path.interval()
    assert 0 <= low < path.barrier.height < high
    k = int(
        np.argmax(
            path.by_example.mean(1) - np.interp([0, 0.25, 0.5, 0.75, 1], [0, 1], [losses[0], losses[-1]])
        )
    )
    excess = path.by_example[k] - (1 - k / 4) * path.by_example[0] - k / 4 * path.by_example[-1]
    error = excess.std(ddof=1) / np.sqrt(30)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.4)

    def mean(outputs, labels):
        return F.cross_entropy(outputs, labels)

    of_mean = Landscape(net, DATA, lambda outputs, labels: mean(outputs, labels) * 1.0, progress=False)
    assert np.isnan(of_mean.path(other, points=3).interval()).all()
    assert Landscape(net, DATA, progress=False).path(other, points=3).points[0]["train_accuracy"] > 0.5


def test_a_path_until_it_is_settled_is_saved_as_the_workflows_table(net, tmp_path):
    path = Landscape(net, DATA, progress=False).path(trained(seed=1), points=3, until=0.9, threshold=1e-6)
    (written,) = path.save(tmp_path)
    rows = tables.read(written, "interpolation").to_pylist()
    assert [row["t"] for row in rows] == [0, 0.5, 1]
    assert {(row["images"], row["settled"]) for row in rows} == {(path.settled.images, True)}


def test_a_line_until_the_sign_of_its_index_is_settled(landscape):
    line = landscape.line("gaussian", until=0.95, index=True, points=11)
    assert line.settled.verdict == np.sign(line.verdict().asymmetry_index)


def test_a_trajectory_is_laid_by_the_checkpoints(net, landscape):
    states = [trained(seed=0).state_dict(), trained(seed=1).state_dict(), trained(seed=2).state_dict(), net]
    found = landscape.trajectory(states, points=3)
    marks = [mark for mark in found.marks if mark["role"] == "iterate"]
    assert [mark["epoch"] for mark in marks] == [1, 2, 3, 4]
    assert 0 < marks[0]["explained_y"] <= marks[0]["explained_x"] <= 1
    with pytest.raises(ValleysError, match=r"weights: what is given has no 0\.weight"):
        landscape.trajectory([{}] * 3)


def test_bn_refreshed_here_is_that_of_one_pass_over_all(net):
    stale = copy.deepcopy(net)
    stale[1].running_mean.zero_()
    landscape = Landscape(stale, NAMED, inputs="x", bn="frozen", progress=False)
    before = landscape.loss()["train_loss"]
    state = landscape.refresh_bn()
    x = torch.cat([x for x, _ in DATA])
    assert torch.allclose(state["1.running_mean"], stale[0](x).mean(0), atol=1e-5)
    assert landscape.loss()["train_loss"] != before
    assert not stale[1].running_mean.any()  # the user's own is left alone
    stale.load_state_dict(state)


@pytest.mark.parametrize(
    "measure",
    [
        lambda scape: scape.line(points=5),
        lambda scape: scape.plane(points=3),
        lambda scape: scape.trajectory([trained(seed=s) for s in range(3)], points=3),
        lambda scape: scape.path(trained(seed=1), points=3),
        lambda scape: scape.gradient(),
        lambda scape: scape.hessian(2),
        lambda scape: scape.trace(probes=3),
        lambda scape: scape.density(probes=2, steps=5),
        lambda scape: scape.search(restarts=1, steps=3),
        lambda scape: scape.sharpness("sam", "adaptive_average", n=3),
    ],
)
def test_what_is_measured_has_a_frame_a_picture_html_and_tables(landscape, measure, tmp_path):
    found = measure(landscape)
    frame = found.frame()
    assert len(frame) == len(found.rows()) > 0
    assert found.summary() in repr(found)
    assert "<table" in found._repr_html_()
    axes = found.plot()
    assert axes.has_data()
    axes.figure.savefig(tmp_path / "figure.png")
    parts = found.parts()
    if not parts:
        with pytest.raises(ValleysError, match="the workflow has no table of these"):
            found.save(tmp_path)
        return
    for path, (name, rows) in zip(found.save(tmp_path), parts.items(), strict=True):
        assert tables.read(path, name).num_rows == len(rows)


def test_nothing_that_is_measured_changes_the_network_or_the_landscape(net, landscape):
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    at_start = landscape.loss()
    landscape.line(points=5)
    landscape.hessian(1)
    landscape.search(restarts=1, steps=3)
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    assert Landscape(net, DATA, nn.CrossEntropyLoss(), test=TEST, progress=False).loss() == at_start
    assert landscape.loss() == at_start


def test_a_direction_of_no_kind_is_one_line(landscape):
    with pytest.raises(ValleysError, match="direction: 'normal' is none; choose from uniform"):
        landscape.line("normal")
    with pytest.raises(ValleysError, match="the network has no parameter"):
        landscape.line({"4.weight": torch.ones(3)})


def test_sharpness_takes_the_options_of_the_measures_that_are_asked_for(landscape):
    found = landscape.sharpness("sam", "filter_width", rho=0.1, n=3)
    assert found["sam"] > landscape.sharpness("sam", rho=0.05)["sam"] > 0
    assert [row["n"] for row in found.measures] == [0, 3]
    with pytest.raises(ValleysError, match="'peak' is no measure; choose from sam, "):
        landscape.sharpness("peak")
    with pytest.raises(ValleysError, match="'steps' is no option of sam"):
        landscape.sharpness("sam", steps=3)


def test_bars_are_shown_where_asked_for(net, capsys):
    Landscape(net, DATA).line(points=5)
    assert "0/5" in capsys.readouterr().err
    Landscape(net, DATA, progress=False).line(points=5)
    assert capsys.readouterr().err == ""


# ---- the network of one argument


def test_an_adapter_is_the_network_under_another_call():
    net = trained()
    adapter = Adapter(net, called)
    assert list(adapter.state_dict()) == list(net.state_dict())
    assert [name for name, _ in adapter.named_modules()] == [name for name, _ in net.named_modules()]
    adapter.eval()
    assert not net.training
    assert not net[1].training
    net.train()
    assert adapter.training
    other = copy.deepcopy(adapter)
    with torch.no_grad():
        other.get_parameter("0.weight").zero_()
    assert net[0].weight.any()
    assert not other.network[0].weight.any()
    assert other.double().network[0].weight.dtype == torch.float64
    with pytest.raises(ValleysError, match="a TorchScript module"):
        Adapter(torch.jit.trace(net.eval(), X), called)


def test_an_evaluator_takes_what_a_landscape_makes_of_a_network():
    adapter = Adapter(trained(norm=False), called)
    from valleys.data.inputs import Inputs

    data = [(Inputs({"x": x}, len(x)), y) for x, y in DATA]
    found = Evaluator(adapter, data).at_start().train_loss
    assert found == pytest.approx(Evaluator(trained(norm=False), DATA).at_start().train_loss)


# ---- averages


def iterates(epochs=6, seed=0):
    net = trained(seed=seed)
    sgd, found = torch.optim.SGD(net.parameters(), lr=0.3), []
    for _ in range(epochs):
        for x, y in DATA:
            sgd.zero_grad()
            F.cross_entropy(net(x), y).backward()
            sgd.step()
        found.append({name: tensor.clone() for name, tensor in net.state_dict().items()})
    return found


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, [1, 1, 1, 1]),
        ({"last": 2}, [0, 0, 1, 1]),
        ({"decay": 0.5}, [1, 1, 2, 4]),
        ({"weights": [0, 3, 1, 0]}, [0, 3, 1, 0]),
    ],
)
def test_averages_are_the_weighted_means_with_batch_norm_of_the_data(landscape, options, weights):
    states = iterates(4)
    found = landscape.average(states, most=1.0, **options)
    share = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    for name in ("0.weight", "1.bias", "3.weight"):
        mean = sum(w * state[name].double() for w, state in zip(share, states, strict=True))
        assert torch.allclose(found.state[name].double(), mean, atol=1e-7)
    net = trained()
    net.load_state_dict(found.state)
    x = torch.cat([x for x, _ in DATA])
    assert torch.allclose(net[1].running_mean, net[0](x).mean(0), atol=1e-5)
    loss = F.cross_entropy(net.eval()(x), torch.cat([y for _, y in DATA]))
    assert found.losses[-1]["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert found.members == [i for i, w in enumerate(weights) if w]
    assert [row["weight"] for row in found.losses[:-1]] == pytest.approx(share.tolist())
    assert "average of" in repr(found)
    assert found.plot().has_data()


def test_an_average_over_a_barrier_is_refused_by_the_pair(landscape):
    states = [*iterates(2), iterates(1, seed=1)[0]]
    with pytest.raises(ValleysError, match=r"between checkpoints 1 and 2 the train loss rises by"):
        landscape.average(states, most=0.01)


def test_a_greedy_soup_is_no_worse_than_its_best_and_leaves_the_other_basin_out(landscape):
    states = [*iterates(5), iterates(1, seed=1)[0]]
    found = landscape.average(states, greedy=True, most=0.02)
    tests = [row["test_loss"] for row in found.losses]
    assert tests[-1] <= min(tests[:-1])
    chosen = set(found.members)
    assert int(np.argmin(tests[:-1])) in chosen
    assert not (5 in chosen and len(chosen) > 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"last": 2, "decay": 0.9}, "last and decay exclude one another"),
        ({"greedy": True, "weights": [1, 1, 1]}, "weights and greedy exclude one another"),
        ({"last": 9}, "last: 9 is out of range; it must be 2 to 3"),
        ({"decay": 1.5}, "decay: 1.5 is none"),
        ({"weights": [1.0]}, "weights: 1 numbers for 3 iterates"),
        ({"weights": [1.0, -1.0, 2.0]}, "must be finite, 0 or more"),
    ],
)
def test_options_of_averages_that_do_not_go_are_one_line(landscape, options, words):
    with pytest.raises(ValleysError, match=words):
        landscape.average(iterates(3), most=9.0, **options)


def test_a_soup_without_test_data_is_one_line(net):
    with pytest.raises(ValleysError, match="greedy chooses by the test loss"):
        Landscape(net, DATA, progress=False).average(iterates(2), greedy=True)


# ---- symmetries


def deep(norm=True, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(6, 7), nn.BatchNorm1d(7) if norm else nn.Identity(), nn.ReLU(), nn.Linear(7, 3)]
    net = nn.Sequential(*layers)
    sgd = torch.optim.SGD(net.parameters(), lr=0.2)
    for _ in range(40):
        for x, y in DATA:
            sgd.zero_grad()
            F.cross_entropy(net(x), y).backward()
            sgd.step()
    return net


def test_a_permuted_copy_has_a_barrier_before_and_none_after():
    net = deep()
    order = torch.tensor([3, 1, 0, 6, 5, 2, 4])
    state = {n: t.clone() for n, t in net.state_dict().items()}
    for name in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
        state[name] = state[name][order]
    state["3.weight"] = state["3.weight"][:, order]
    found = Landscape(net, DATA, progress=False).align(state, points=11)
    assert all(torch.equal(found.state[name], tensor) for name, tensor in net.state_dict().items())
    assert found.before.barrier.height > 0.05
    assert found.after.barrier.height == pytest.approx(0, abs=1e-6)
    assert found.after.distance == 0
    assert found.moved == pytest.approx(6 / 7)
    assert len(found.frame()) == 22
    assert found.plot().has_data()


def test_another_seeds_solution_comes_nearer(net):
    first, second = deep(seed=0), deep(seed=1)
    found = Landscape(first, DATA, progress=False).align(second, points=5)
    assert found.after.distance < found.before.distance
    other = deep(seed=1)
    other.load_state_dict(found.state)
    x = torch.cat([x for x, _ in DATA])
    assert torch.allclose(other.eval()(x), second.eval()(x), atol=1e-5)


def test_an_audit_says_what_symmetries_move():
    net = deep(norm=False)
    landscape = Landscape(net, DATA, progress=False)
    found = landscape.audit(directions=2, spread=1.0)
    values = {row["measure"]: row for row in found.rows()}
    assert found.apart["network"] == 0
    assert max(found.apart.values()) < 1e-4
    for name in ("train_loss", "adaptive_sam"):
        assert abs(values[name]["rescaled_change"]) < 0.01, name
    assert abs(values["top eigenvalue"]["permuted_change"]) < 1e-3
    assert abs(values["top eigenvalue"]["rescaled_change"]) > 0.2
    assert "top eigenvalue" in found.moved()
    assert "train_loss" not in found.moved()
    assert "top eigenvalue" in repr(found)
    assert found.plot().has_data()
    assert landscape.loss() == Landscape(net, DATA, progress=False).loss()


def test_symmetries_are_for_networks_of_one_tensor(net):
    with pytest.raises(ValleysError, match="called with one tensor alone"):
        Landscape(net, NAMED, inputs="x", progress=False).align(net.state_dict())
