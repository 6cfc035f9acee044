"""Batch-norm statistics that are those of the whole set."""

import contextlib
import copy

import pytest
import torch
from bn_networks import DOORS, deep_net, images, one_layer, statistics
from torch import nn
from torch.optim.swa_utils import update_bn
from valleys.errors import ValleysError
from valleys.networks.batch_norm import batch_norms
from valleys.networks.bn_refresh import refresh_bn, refreshed_logits


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
