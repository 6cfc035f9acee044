"""Averages of weights, and batch-norm statistics that are those of the whole set."""

import collections
import contextlib
import copy
import gc
import threading
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from valleys import Evaluator, probe_line
from valleys.errors import ValleysError
from valleys.landscape import directions
from valleys.models import builder
from valleys.networks.batch_norm import batch_norms
from valleys.networks.bn_refresh import refresh_bn, refreshed_logits
from valleys.networks.switches import Switches
from valleys.training.averaging import average


def deep_net(seed=0, depth=20):
    torch.manual_seed(seed)
    net = builder.build({"arch": "preresnet", "depth": depth, "width": 4}, in_shape=(3, 8, 8), classes=5)
    for layer in batch_norms(net):  # statistics that are nobody's
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
    return net


def one_layer():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())


def statistics(net):
    return torch.cat([torch.cat([m.running_mean, m.running_var]) for m in batch_norms(net)])


def images(n, seed=1, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    # Later images are brighter, so that batches differ and equal weighting of unequal batches shows.
    x = torch.randn(n, 3, 8, 8, generator=generator)
    return x + shift * torch.linspace(0, 1, n).view(-1, 1, 1, 1)


@pytest.mark.parametrize("cut", [[24], [10, 10, 4], [1, 23]])
def test_refreshed_logits_are_those_of_a_refresh_and_differentiable(cut):
    net = deep_net().double()
    x, before = images(24, shift=3.0).double(), statistics(net).clone()
    logits = torch.cat(refreshed_logits(net, x.split(cut)))
    assert torch.equal(statistics(net), before)
    assert net.training
    twin = copy.deepcopy(net)
    torch.testing.assert_close(logits, torch.cat(refresh_bn(twin, [x])), rtol=1e-9, atol=1e-9)
    # The same gradient as train mode on one batch, which is the refreshed network with its statistics moving.
    first, second = net.stem.weight, twin.stem.weight
    (ours,) = torch.autograd.grad(logits.square().sum(), first)
    (reference,) = torch.autograd.grad(twin.train()(x).square().sum(), second)
    torch.testing.assert_close(ours, reference, rtol=1e-7, atol=1e-9)


def test_refreshed_logits_need_images():
    with pytest.raises(ValleysError, match="no images"):
        refreshed_logits(deep_net(), [])


def test_average_is_the_mean_in_float64():
    states = [{"w": torch.tensor([1.0, 2.0]) * k, "num_batches_tracked": torch.tensor(k)} for k in (1, 2, 6)]
    mean = average(iter(states))
    assert torch.equal(mean["w"], torch.tensor([3.0, 6.0]))
    assert mean["num_batches_tracked"] == 6
    assert mean["w"].dtype == torch.float32
    # In float32 a running sum of these loses the small term altogether.
    big = [{"w": torch.tensor([2.0**25])}, {"w": torch.tensor([1.0])}, {"w": torch.tensor([-(2.0**25)])}]
    assert average(big)["w"].item() == pytest.approx(1 / 3)


def test_average_matches_torch_swa():
    base = deep_net()
    swa = torch.optim.swa_utils.AveragedModel(base)
    states = []
    for seed in range(4):
        other = deep_net(seed)
        states.append(other.state_dict())
        swa.update_parameters(other)
    ours = average(states)
    for name, parameter in swa.module.named_parameters():
        torch.testing.assert_close(ours[name], parameter.detach(), rtol=1e-5, atol=1e-6)


def test_average_refuses_nothing_and_strangers():
    with pytest.raises(ValleysError, match="window is empty"):
        average([])
    with pytest.raises(ValleysError, match="iterate 2"):
        average([{"w": torch.zeros(2)}, {"w": torch.zeros(3)}])


def test_exact_is_the_statistic_of_the_whole_set_in_one_layer():
    net, x = one_layer(), images(50, shift=3.0)
    refresh_bn(net, x.split(7))
    out = net[0](x).double()
    torch.testing.assert_close(net[1].running_mean.double(), out.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        net[1].running_var.double(), out.var((0, 2, 3), correction=0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("size", [1000, 60, 50, 13, 2])
def test_exact_does_not_depend_on_the_batch_size_in_a_deep_net(size):
    x = images(60, shift=2.0)
    whole, cut = deep_net(), deep_net()
    refresh_bn(whole, [x])
    refresh_bn(cut, x.split(size))
    torch.testing.assert_close(statistics(cut), statistics(whole), rtol=2e-4, atol=2e-5)


def test_exact_equals_one_train_mode_pass_and_returns_its_logits():
    x = images(40)
    net, reference = deep_net(), deep_net()
    logits = torch.cat(refresh_bn(net, x.split(11)))
    reference.train()
    with torch.no_grad():
        expected = reference(x)
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(net.eval()(x), expected, rtol=1e-3, atol=1e-4)


def test_agrees_with_update_bn_on_equal_batches():
    """Batches that are equal in content: every batch statistic is the set's, so all methods must agree."""
    x = images(16)
    batches = [x, x.flip(0), x.roll(3, 0)]
    results = []
    for method in ("exact", "streaming", "torch"):
        net = deep_net()
        if method == "torch":
            update_bn(batches, net)
        else:
            refresh_bn(net, batches, method)
        results.append(net)
    exact, streaming, torch_net = results
    torch.testing.assert_close(statistics(exact), statistics(streaming), rtol=1e-3, atol=1e-5)
    for ours, theirs in zip(batch_norms(exact), batch_norms(torch_net), strict=True):
        torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=1e-3, atol=1e-4)
        # torch stores n/(n-1) times the variance; n is at least 16 images of 2x2 pixels here
        torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1 / 60, atol=1e-4)


def test_mean_agrees_with_update_bn_on_equal_sizes_and_differs_on_a_short_last_batch():
    x = images(48, shift=4.0)
    truth = one_layer()[0](x).mean((0, 2, 3))

    def means(sizes):
        ours, theirs = one_layer(), one_layer()
        refresh_bn(ours, x.split(sizes))
        update_bn(x.split(sizes), theirs)
        return ours[1].running_mean, theirs[1].running_mean

    ours, theirs = means([16, 16, 16])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    ours, theirs = means([45, 3])
    torch.testing.assert_close(ours, truth, rtol=1e-4, atol=1e-5)
    assert (theirs - truth).abs().max() > 0.1 * (truth.abs().max())  # torch counts 3 images as much as 45


def test_streaming_pools_the_variance_between_batches():
    x = torch.cat([images(20) - 5, images(10, seed=2) + 5])
    net = one_layer()
    assert refresh_bn(net, x.split([20, 10]), "streaming") is None
    out = net[0](x)
    torch.testing.assert_close(net[1].running_mean, out.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net[1].running_var, out.var((0, 2, 3), correction=0), rtol=1e-4, atol=1e-4)


def test_streaming_is_exact_for_the_first_layer_only():
    x = images(60, shift=6.0)
    exact, streaming = deep_net(), deep_net()
    refresh_bn(exact, x.split(10))
    refresh_bn(streaming, x.split(10), "streaming")
    first, *_, last = zip(batch_norms(exact), batch_norms(streaming), strict=True)
    torch.testing.assert_close(first[0].running_mean, first[1].running_mean, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(last[0].running_mean, last[1].running_mean, rtol=1e-2, atol=1e-2)


def test_only_running_statistics_change():
    net = deep_net().train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    rng = torch.get_rng_state()
    refresh_bn(net, [(images(8), "labels are ignored")])
    changed = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert all("running_" in k or "num_batches" in k for k in changed)
    assert net.training
    assert torch.equal(rng, torch.get_rng_state())
    assert all("forward" not in vars(m) for m in net.modules())
    copy.deepcopy(net)


class Counts(nn.Module):
    """Keeps a queue of what it was given, in eval mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("queue", torch.zeros(3))
        self.register_buffer("at", torch.zeros((), dtype=torch.long), persistent=False)

    def forward(self, x):
        self.queue[self.at % 3] = x.detach().mean()
        self.at += 1
        return x


@pytest.mark.parametrize("method", ["exact", "streaming"])
def test_buffers_that_are_no_statistics_stay(method):
    net = nn.Sequential(Counts(), nn.BatchNorm2d(3))
    refresh_bn(net, torch.randn(9, 3, 4, 4).split(3), method)
    assert int(net[0].at) == 0
    assert not net[0].queue.any()
    assert net[1].running_mean.any()


def test_no_images_and_no_batch_norm():
    with pytest.raises(ValleysError, match="no images"):
        refresh_bn(deep_net(), [])
    with pytest.raises(ValleysError, match="no images"):
        refresh_bn(deep_net(), [], "streaming")
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    before = plain.state_dict()["1.weight"].clone()
    assert len(refresh_bn(plain, images(8).split(4))) == 2
    assert torch.equal(before, plain.state_dict()["1.weight"])


def test_a_failing_forward_leaves_the_layers_as_they_were():
    net = one_layer()
    with pytest.raises(ValleysError, match="BN refresh: the network raises RuntimeError"):
        refresh_bn(net, [torch.zeros(2, 5, 8, 8), torch.zeros(2, 5, 8, 8)])
    assert all("forward" not in vars(m) for m in net.modules())


SHAPES = {
    "features": (9000, 6),  # more rows than a group holds, and not a multiple of it
    "sequences": (60, 6, 301),
    "images": (61, 6, 17, 19),
    "large images": (3, 6, 90, 91),  # each of them more than a group holds
    "one image": (1, 6, 3, 3),
    "volumes": (21, 6, 9, 8, 7),
}


@pytest.mark.parametrize("order", ["contiguous", "channels-last", "strided"])
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_of_any_layout_are_those_of_float64(kind, order, dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SHAPES[kind], generator=generator)
    x += torch.arange(6.0).view(1, -1, *[1] * (x.dim() - 2))
    x = x.to(dtype)
    if order == "channels-last":
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    elif order == "strided":
        x = torch.stack([x, torch.zeros_like(x)], dim=-1)[..., 0]
    layer = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[x.dim()](6)
    refresh_bn(layer, x.split(max(1, len(x) // 2)))
    wide, over = x.double(), [d for d in range(x.dim()) if d != 1]
    within = 2e-6 if dtype == torch.float32 else 2e-5
    for found, exact in (
        (layer.running_mean, wide.mean(over)),
        (layer.running_var, wide.var(over, correction=0)),
    ):
        torch.testing.assert_close(found.double(), exact, rtol=within, atol=within)


class Forked(nn.Module):
    """Takes one of two ways, by the images, or neither."""

    def __init__(self):
        super().__init__()
        self.ways = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])

    def forward(self, x):
        way = int(x.mean().round())
        return self.ways[way](x) if way < 2 else x


@pytest.mark.parametrize("means", [(0, 1), (1, 0), (0, 2), (2, 0), (0, 0, 1), (0, 1, 2)])
def test_batches_that_take_different_paths_are_refused(means):
    net, batches = Forked(), [images(4) * 0.01 + mean for mean in means]
    with pytest.raises(ValleysError, match="different paths through the model: use streaming"):
        refresh_bn(net, batches)
    assert all("forward" not in vars(m) for m in net.modules())
    refresh_bn(net, batches, "streaming")


# --- averages by role ---


class Keeps(nn.Module):
    """Has a parameter of its own and buffers of many kinds."""

    def __init__(self):
        super().__init__()
        self.linear, self.cls_token = nn.Linear(2, 2), nn.Parameter(torch.zeros(2))
        self.norm = nn.InstanceNorm2d(2, track_running_stats=True)
        for name in ("running_max", "codebook", "r"):
            self.register_buffer(name, torch.zeros(2))
        self.register_buffer("table", torch.full((2,), 0.1))
        self.register_buffer("seen", torch.tensor(0))

    def at(self, k):
        with torch.no_grad():
            for name, tensor in self.state_dict().items():
                if name != "table":
                    tensor.fill_(k)
        return self


def clones(net, ks=(1, 2, 6)):
    return [{name: t.clone() for name, t in net.at(k).state_dict().items()} for k in ks]


PARAMETERS = ["linear.weight", "linear.bias", "cls_token"]
WAYS = {
    "state dicts, while the network lives": lambda net: average(clones(net)),
    "the network beside them": lambda net: average(iter(clones(net)), net),
    "names beside them": lambda net: average(clones(net), PARAMETERS),
    "networks": lambda net: average([copy.deepcopy(net.at(k)) for k in (1, 2, 6)]),
    "networks one by one": lambda net: average(net.at(k) for k in (1, 2, 6)),
    "parameters that know that they are": lambda net: average(
        copy.deepcopy(net.at(k).state_dict(keep_vars=True)) for k in (1, 2, 6)
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_parameters_are_averaged_and_buffers_are_those_of_the_last(way):
    net = Keeps()
    found = WAYS[way](net)
    assert found.keys() == net.state_dict().keys()
    for name, tensor in found.items():
        value = 0.1 if name == "table" else 3 if name in PARAMETERS else 6
        assert torch.equal(tensor, torch.full_like(tensor, value)), name
    assert not any(t.requires_grad for t in found.values())


def test_without_the_network_what_cannot_be_told_is_refused_or_said(caplog):
    net = Keeps()
    kept = clones(net)
    del net
    gc.collect()
    with pytest.raises(
        ValleysError, match=r"whether codebook is a parameter or a buffer; .*\(iterates, model"
    ):
        average(kept)
    rest = [{n: t for n, t in state.items() if n not in ("codebook", "running_max")} for state in kept]
    assert torch.equal(average(rest)["cls_token"], torch.full((2,), 3.0))
    assert "taken for parameters, as their names say nothing else: cls_token, r" in caplog.text


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.complex128]
)
def test_all_kinds_of_numbers_are_averaged(dtype):
    values = torch.tensor([[1.0, 60000.0], [3.0, 64000.0], [5.0, 62000.0]]).to(dtype)
    if dtype.is_complex:
        values = values * 1j
    found = average([{"weight": row, "steps": torch.tensor(k)} for k, row in enumerate(values)])
    assert found["weight"].dtype == dtype
    wide = torch.promote_types(dtype, torch.float64)
    assert torch.equal(found["weight"], values.to(wide).mean(0).to(dtype))
    assert found["steps"] == 2


@pytest.mark.parametrize(
    ("make", "dim"),
    [
        (lambda: nn.utils.spectral_norm(nn.Linear(5, 4)), 0),
        (lambda: nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)), 0),
        (lambda: nn.utils.spectral_norm(nn.ConvTranspose2d(4, 4, 3)), 1),
        (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(5, 4)), 0),
        (lambda: nn.utils.parametrizations.spectral_norm(nn.ConvTranspose2d(4, 4, 3)), 1),
        (lambda: nn.utils.parametrizations.spectral_norm(nn.ConvTranspose2d(3, 5, 3)), 1),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_spectral_norm_divides_by_the_norm_of_the_average(make, dim, beside):
    torch.manual_seed(0)
    nets = [make().eval() for _ in range(4)]
    kept = [net.state_dict() for net in nets]
    with torch.no_grad():
        average_of = make().eval()
        average_of.load_state_dict(average(kept, nets[0] if beside else None))
        with contextlib.suppress(RuntimeError):  # the old one computes its weight before a pass
            average_of(torch.zeros(1, average_of.weight.shape[1 - dim], 4, 4))
        with contextlib.suppress(RuntimeError):
            average_of(torch.zeros(1, average_of.weight.shape[1]))
        matrix = average_of.weight.movedim(dim, 0).flatten(1)
        assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(1, abs=1e-3)


def test_weight_norm_has_no_buffers():
    net = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    one, three = ({n: t * k for n, t in net.state_dict().items()} for k in (1, 3))
    assert all(torch.equal(t, 2 * one[n]) for n, t in average([one, three]).items())


def test_a_frozen_part_may_be_shared_and_aliases_are_refused():
    def of(k, body):
        return {"body.weight": body, "head.weight": torch.full((2,), float(k))}

    body = torch.ones(3)
    kept = [of(k, body) for k in (1, 2, 6)]
    assert torch.equal(average(kept)["head.weight"], torch.full((2,), 3.0))
    for same in (
        [kept[0], dict(kept[0])],
        [kept[0], kept[1], dict(kept[0])],
        {3: kept[0], 4: dict(kept[0])}.values(),
        collections.deque([kept[0], kept[0]]),
        (state for state in [kept[0], kept[0]]),
    ):
        with pytest.raises(ValleysError, match="are the same tensors; keep copies"):
            average(same)


def test_a_network_that_trains_between_iterates_needs_no_copies():
    net = nn.Linear(2, 1)

    def training():
        for k in (1.0, 2.0, 6.0):
            nn.init.constant_(net.weight, k)
            yield net.state_dict()

    assert torch.equal(average(training())["weight"], torch.full((1, 2), 3.0))


WEIGHT = {"weight": torch.ones(2)}
NO_STATES = {
    "paths": (["a.pt", "b.pt"], "iterate 1 is a str; .*torch.load"),
    "a path": ("a.pt", "iterates is a str"),
    "one state": (WEIGHT, "iterates is one state dict"),
    "one network": (nn.Linear(1, 1), "iterates is a Linear"),
    "nothing": (None, "iterates is a NoneType"),
    "checkpoints": ([{"model": WEIGHT, "epoch": 3}], "'model' of iterate 1 is a dict"),
    "not finite": ([WEIGHT, {"weight": torch.tensor([0, torch.nan])}], "weight of iterate 2 has values"),
    "fewer": ([WEIGHT | {"bias": torch.ones(1)}, {"weight": torch.zeros(2)}], "iterate 2 lacks bias"),
    "more": ([WEIGHT, WEIGHT | {"bias": torch.ones(1)}], "iterate 2 has bias"),
    "another type": ([WEIGHT, {"weight": torch.ones(2).half()}], "iterate 2 has weight as torch.float16"),
    "no numbers": ([{"weight": torch.ones(2).int()}], "no parameters of real or complex"),
    "sparse": ([{"weight": torch.ones(2).to_sparse()}], "is sparse"),
}


@pytest.mark.parametrize("case", NO_STATES)
def test_what_is_no_iterate_is_one_line(case):
    iterates, words = NO_STATES[case]
    with pytest.raises(ValleysError, match=words) as error:
        average(iterates)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [("weight", "is 'weight'"), (["bias"], "has no bias"), (nn.Linear(1, 1), "no bias")],
)
def test_parameters_of_another_network_are_refused(parameters, words):
    with pytest.raises(ValleysError, match=words):
        average([WEIGHT], parameters)


# --- batch norm that does more, or cannot be followed ---


class Activates(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: calls ``F.batch_norm`` itself."""

    def forward(self, x):
        use = not self.training or self.track_running_stats
        mean, var = (self.running_mean, self.running_var) if use else (None, None)
        x = F.batch_norm(x, mean, var, self.weight, self.bias, self.training, self.momentum, self.eps)
        return F.silu(x)


class ActivatesAfter(nn.BatchNorm2d):
    def forward(self, x):
        return torch.relu(super().forward(x))


class ActivatesBefore(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(torch.relu(x))


class OwnAffine(nn.BatchNorm2d):
    def forward(self, x):
        scale = self.weight.abs() + 1
        return F.batch_norm(x, self.running_mean, self.running_var, scale, None, self.training, 0.1, 1e-2)


class Casts(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


def instance_forward(channels):
    layer = nn.BatchNorm2d(channels)
    layer.forward = lambda x: torch.tanh(nn.BatchNorm2d.forward(layer, x))
    return layer


def net_with(norm):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), norm(6), nn.Tanh(), nn.Conv2d(6, 6, 3), norm(6), nn.Flatten(), nn.Linear(96, 3)
    )


def compiled_inside(channels):
    return torch.compile(nn.BatchNorm2d(channels), backend="eager")


FOLLOWED = {
    "activates": Activates,
    "activates after": ActivatesAfter,
    "activates before": ActivatesBefore,
    "own affine": OwnAffine,
    "casts": Casts,
    "forward set on the layer": instance_forward,
    "no affine": lambda n: nn.BatchNorm2d(n, affine=False),
    "no momentum": lambda n: nn.BatchNorm2d(n, momentum=None),
    "synchronised": nn.SyncBatchNorm,
    "data parallel": lambda n: nn.DataParallel(nn.BatchNorm2d(n)),
    "compiled": compiled_inside,
}


@pytest.mark.parametrize("cut", [[24], [10, 9, 5]])
@pytest.mark.parametrize("kind", FOLLOWED)
def test_a_layer_may_do_more_than_normalise(kind, cut):
    net, x = net_with(FOLLOWED[kind]).double(), images(24, shift=3.0).double()
    forwards = [vars(layer).get("forward") for layer in batch_norms(net)]
    u, _ = directions.random_direction("gaussian", net)
    twin = net_with(FOLLOWED[kind]).double().train()
    plain = kind in ("synchronised", "compiled")  # whose train mode needs a GPU, or may differ
    if plain:
        twin = net_with(nn.BatchNorm2d).double().train()
    expected = twin(x)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(refreshed_logits(net, x.split(cut))), expected.detach())
        torch.testing.assert_close(torch.cat(refresh_bn(net, x.split(cut))), expected.detach())
        torch.testing.assert_close(net.eval()(x), expected.detach())
    assert [vars(layer).get("forward") for layer in batch_norms(net)] == forwards
    if "forward" in kind:
        return  # a copy of such a layer still calls the original
    data = [(part, torch.arange(len(part)) % 3) for part in x.split(cut)]
    evaluator = Evaluator(net, data, loss=nn.CrossEntropyLoss(reduction="none"))
    assert evaluator.bn == "refreshed"
    below, at, above = probe_line(evaluator, u, [0.5 - 1e-5, 0.5, 0.5 + 1e-5], exact=True)
    slope = (above["train_loss"] - below["train_loss"]) / 2e-5
    assert at["train_slope"] == pytest.approx(slope, rel=1e-4, abs=1e-7)


class Manual(nn.BatchNorm2d):
    def forward(self, x):
        mean, var = (t.view(1, -1, 1, 1) for t in (self.running_mean, self.running_var))
        return (x - mean) * torch.rsqrt(var + self.eps)


class Own(nn.Module):
    """No batch norm of torch's, but one."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, training=self.training)


class OwnByHand(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.register_buffer("moving_mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("moving_std", torch.ones(1, channels, 1, 1))

    def forward(self, x):
        if self.training:
            self.moving_mean.lerp_(x.detach().mean((0, 2, 3), keepdim=True), 0.1)
            self.moving_std.lerp_(x.detach().std((0, 2, 3), keepdim=True), 0.1)
        return (x - self.moving_mean) / self.moving_std


class Frozen(Own):
    """As detectron2's FrozenBatchNorm2d: its statistics are constants."""

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, training=False)


class OfTheBatch(nn.BatchNorm2d):
    def forward(self, x):
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True)


def scripted(channels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.BatchNorm2d(channels))


def traced(channels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(nn.BatchNorm2d(channels).eval(), torch.zeros(2, channels, 4, 4))


def exported(channels):
    return torch.export.export(nn.BatchNorm2d(channels).eval(), (torch.zeros(2, channels, 4, 4),)).module()


class WithoutStatistics(nn.BatchNorm2d):
    def __init__(self, channels):
        super().__init__(channels)
        self.running_mean = self.running_var = None


def sharing(channels, made=[]):  # noqa: B006
    layer = nn.BatchNorm2d(channels)
    if made:
        layer.running_mean, layer.running_var = made[0].running_mean, made[0].running_var
        made.clear()
    else:
        made.append(layer)
    return layer


REFUSED = {
    "by hand": (Manual, "layer 1 is a Manual, which normalises in a way of its own"),
    "own": (Own, "layer 1 is a Own with statistics of its own"),
    "own, by hand": (OwnByHand, "layer 1 is a OwnByHand with statistics of its own"),
    "of the batch": (OfTheBatch, "training=True in eval mode|depend on the other images of its batch"),
    "scripted": (scripted, "layer of 1 is in TorchScript"),
    "traced": (traced, "layer of 1 is in TorchScript"),
    "exported": (exported, "is part of a traced graph"),
    "untracked": (lambda n: nn.BatchNorm2d(n, track_running_stats=False), "keeps no running statistics"),
    "statistics taken away": (WithoutStatistics, "keeps no running statistics"),
    "lazy": (lambda n: nn.LazyBatchNorm2d(), "layer 1 is lazy"),
    "sharing": (sharing, "layer 4 has the running statistics of 1"),
}
DOORS = {
    "refresh_bn": lambda net, x: refresh_bn(net, x),
    "streaming": lambda net, x: refresh_bn(net, x, "streaming"),
    "refreshed_logits": lambda net, x: refreshed_logits(net, x),
    "Evaluator": lambda net, x: Evaluator(net, [(p, torch.zeros(len(p)).long()) for p in x]).train_loss(),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_followed_is_refused_at_every_door(kind, door):
    norm, words = REFUSED[kind]
    net = net_with(norm)
    modes = [m.training for m in net.modules()]
    with pytest.raises(ValleysError, match=words) as error:
        DOORS[door](net, list(images(24).split(10)))
    assert "\n" not in str(error.value)
    assert [m.training for m in net.modules()] == modes


class Twice(nn.Module):
    """Uses its layer once, or more often where images are bright."""

    def __init__(self, when):
        super().__init__()
        self.norm, self.when = nn.BatchNorm2d(3), when

    def forward(self, x):
        for _ in range(2 if float(x.mean()) > self.when else 1):
            x = self.norm(x)
        return x.flatten(1)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("when", [-9, 0.5])
def test_a_layer_used_twice_is_refused_also_for_some_batches(door, when):
    batches = [images(10) * 0.01, images(10) * 0.01 + 1]
    with pytest.raises(ValleysError, match=r"layer norm is used 2 times|different paths"):
        DOORS[door](Twice(when), batches)


def test_constants_and_instance_norm_are_no_batch_norm():
    data = [(images(20), torch.arange(20) % 3)]
    for norm in (Frozen, lambda n: nn.InstanceNorm2d(n, track_running_stats=True)):
        net = net_with(norm)
        before = copy.deepcopy(net.state_dict())
        assert Evaluator(net, data).bn == "none"
        refresh_bn(net, [data[0][0]])
        assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())


def test_what_is_only_not_refreshed_may_be_frozen():
    data = [(images(20), torch.arange(20) % 3)]
    for norm in (Own, OwnByHand, Manual):
        evaluator = Evaluator(net_with(norm), data, bn="frozen")
        assert evaluator.bn == "frozen"
        assert evaluator.point().train_loss > 0
    with pytest.raises(ValleysError, match="keeps no running statistics"):
        Evaluator(net_with(lambda n: nn.BatchNorm2d(n, track_running_stats=False)), data, bn="frozen")


@pytest.mark.parametrize("method", ["exact", "streaming"])
def test_one_value_a_channel_has_no_variance(method):
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192))
    with pytest.raises(ValleysError, match="one value a channel"):
        refresh_bn(net, [images(1)], method)
    with pytest.raises(ValleysError, match="one value a channel"):
        refreshed_logits(net, [images(1)])
    refresh_bn(net, images(2).split(1), method)  # a batch of one among others
    refresh_bn(one_layer(), [images(1)], method)  # pixels


@pytest.mark.parametrize("batches", [[8], [4, 4], [], ["bad"]])
@pytest.mark.parametrize("frozen", [(1,), (0, 1), (2,)])
def test_every_module_is_left_in_its_mode(batches, frozen):
    net = one_layer().train()
    for i in frozen:
        net[i].eval()
    before = [m.training for m in net.modules()]
    given = [images(4) if n != "bad" else torch.zeros(1) for n in batches]
    for door in ("refresh_bn", "streaming", "refreshed_logits"):
        with contextlib.suppress(ValleysError, RuntimeError):
            DOORS[door](net, given)
        assert [m.training for m in net.modules()] == before


# --- regions of the network under torch's switches ---


class Passes(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Dispatches(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class DefaultDtype:
    def __enter__(self):
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *error):
        torch.set_default_dtype(self.before)


REGIONS = {
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no autocast": lambda: torch.autocast("cpu", enabled=False),
    "a function mode": Passes,
    "a dispatch mode": Dispatches,
    "a device": lambda: torch.device("cpu"),
    "a default dtype": DefaultDtype,
    "attention kernels": lambda: torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    "hooks": lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t),
}


class Regional(nn.Module):
    """Has batch norm in a region, and may fail there half-way, in a batch of seven images."""

    def __init__(self, region):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.Conv2d(6, 6, 3))
        self.norm = nn.BatchNorm2d(6)
        self.outer = nn.Sequential(nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(96, 3))
        self.region, self.fails = region, False

    def within(self, x):
        x = self.norm(self.inner(x))
        if self.fails and len(x) == 7:
            raise KeyError("half-way")
        return x + 0

    def forward(self, x):
        if self.region in ("reentrant", "not reentrant"):
            x = checkpoint(self.within, x, use_reentrant=self.region == "reentrant")
        else:
            with REGIONS[self.region]():
                x = self.within(x)
        return self.outer(x.clone().float())


@pytest.fixture
def same_switches():
    before = Switches()
    yield
    assert before.hold()


@pytest.mark.usefixtures("same_switches")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("around", [contextlib.nullcontext, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("region", [*REGIONS, "reentrant", "not reentrant"])
def test_regions_of_a_network_stay_its_own(region, around):
    torch.manual_seed(0)
    one, many = Regional(region), Regional(region)
    many.load_state_dict(one.state_dict())
    x = images(37, shift=2.0)
    near = {"rtol": 3e-2, "atol": 3e-2} if region == "autocast" else {"rtol": 1e-4, "atol": 1e-5}
    with around():
        before = Switches()
        whole, cut = refresh_bn(one, [x]), refresh_bn(many, x.split(10))
        assert before.hold()
        torch.testing.assert_close(torch.cat(cut), torch.cat(whole), **near)
        torch.testing.assert_close(statistics(many), statistics(one), **near)
        torch.testing.assert_close(torch.cat(refreshed_logits(many, x.split(10))), torch.cat(whole), **near)
        assert before.hold()
        many.fails = True
        for door in (refresh_bn, refreshed_logits):
            with pytest.raises((ValleysError, KeyError), match="'half-way'"):
                door(many, x.split(10))
            assert before.hold()
        assert F.batch_norm.__module__ == "torch.nn.functional"


@pytest.mark.usefixtures("same_switches")
@pytest.mark.filterwarnings("ignore")
def test_batches_that_part_in_a_region_leave_no_trace():
    net = Regional("no_grad")
    net.within = lambda x: net.norm(net.inner(x)) if len(x) == 10 else net.inner[0](x) * 1
    with pytest.raises(ValleysError, match="different paths"):
        refresh_bn(net, images(37).split(10))


def test_another_thread_may_train_meanwhile():
    started, done, found = threading.Event(), threading.Event(), []

    class Waits(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = Activates(3)

        def forward(self, x):
            started.set()
            assert done.wait(60)
            return self.norm(x)

    def train():
        started.wait(60)
        x = images(4)
        found.append(nn.BatchNorm2d(3)(x))  # in train mode
        found.append(torch.cat(refresh_bn(Activates(3), x.split(2))))
        done.set()

    other = threading.Thread(target=train)
    other.start()
    refresh_bn(Waits(), images(8).split(4))
    other.join()
    torch.testing.assert_close(found[1], F.silu(found[0]).detach(), rtol=1e-4, atol=1e-5)
    assert F.batch_norm.__module__ == "torch.nn.functional"


def test_context_variables_of_the_caller_are_seen_in_every_pass():
    import contextvars

    width = contextvars.ContextVar("width", default=1.0)

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            return self.norm(x) * width.get()

    width.set(0.0)
    assert not torch.cat(refresh_bn(Reads(), images(8).split(4))).any()
