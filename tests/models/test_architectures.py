"""The architectures have the published sizes, take the images they should, and can be called over weights."""

import copy

import pytest
import torch
from small_models import CIFAR, SMALL, images, small
from torch import nn
from torch.func import functional_call, vmap
from valleys.errors import ValleysError
from valleys.models import architectures, options
from valleys.models.architectures import PreActBlock
from valleys.models.builder import build
from valleys.models.options import ARCHS


def count(model):
    return sum(p.numel() for p in model.parameters())


def preresnet_size(n, expansion):
    """Three stages of n blocks by hand: weights of convolutions, two numbers per normalised channel."""
    total, c_in = 3 * 16 * 9, 16
    for w in (16, 32, 64):
        out = w * expansion
        for i in range(n):
            if expansion == 1:
                total += 9 * c_in * w + 9 * w * w + 2 * (c_in + w)
            else:
                total += c_in * w + 9 * w * w + w * out + 2 * (c_in + w + w)
            total += c_in * out if i == 0 and c_in != out else 0
            c_in = out
    return total + 2 * c_in + (c_in + 1) * 10


@pytest.mark.parametrize(
    ("spec", "published_millions", "exact"),
    [
        ({"depth": 20}, "0.27", 272_282),
        ({"depth": 56}, "0.86", 855_578),
        ({"depth": 110}, "1.73", 1_730_522),
        ({"depth": 164}, "1.70", 1_703_258),
        ({"depth": 110, "block": "bottleneck"}, "1.15", 1_146_842),  # what the SWA authors call 110
    ],
)
def test_preresnet_has_the_published_size(spec, published_millions, exact):
    model = build({"arch": "preresnet", **spec}, in_shape=CIFAR, classes=10)
    depth, bottleneck = spec["depth"], spec["depth"] == 164 or "block" in spec
    by_hand = preresnet_size((depth - 2) // 9, 4) if bottleneck else preresnet_size((depth - 2) // 6, 1)
    assert count(model) == exact == by_hand
    assert f"{count(model) / 1e6:.2f}" == published_millions
    weighted = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    projections = [name for name, _ in model.named_modules() if name.endswith("project")]
    assert len(weighted) - len(projections) == depth


VGG_CONVS = 14_714_688  # 13 convolutions with their 4,224 biases, as in torchvision's vgg16


VGG_CLASSIFIER = 2 * (512 * 512 + 512) + 513 * 10


@pytest.mark.parametrize(
    ("spec", "in_shape", "classes", "exact"),
    [
        ({"arch": "resnet50"}, (3, 224, 224), 1000, 25_557_032),
        ({"arch": "wrn"}, CIFAR, 10, 36_479_194),
        ({"arch": "densenet_bc"}, CIFAR, 10, 769_162),
        ({"arch": "vgg16", "norm": "none"}, CIFAR, 10, VGG_CONVS + VGG_CLASSIFIER),
        ({"arch": "vgg16"}, CIFAR, 10, VGG_CONVS + VGG_CLASSIFIER - 4_224 + 2 * 4_224),
        ({"arch": "mlp"}, (1, 8, 8), 10, 64 * 64 + 64 + 64 * 64 + 64 + 65 * 10),
        ({"arch": "mlp", "hidden": []}, (1, 8, 8), 10, 65 * 10),
        ({"arch": "resnet8"}, (1, 8, 8), 10, 5_094),
        ({"arch": "resnet8", "norm": "none"}, (1, 8, 8), 10, 5_034),
        ({"arch": "resnet8", "skip": False}, (1, 8, 8), 10, 5_094 - 4 * 8 - 8 * 16),
    ],
)
def test_size(spec, in_shape, classes, exact):
    with torch.device("meta") if spec["arch"] in ("resnet50", "wrn") else torch.device("cpu"):
        assert count(build(spec, in_shape=in_shape, classes=classes)) == exact


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 32), (3, 96)])
def test_image_sizes(arch, channels, side):
    spec = SMALL[arch][0]
    if side < ARCHS[arch].min_size:
        with pytest.raises(ValleysError, match=f"at least {ARCHS[arch].min_size}x.*got {side}x{side}"):
            build(spec, in_shape=(channels, side, side), classes=5)
        return
    model = build(spec, in_shape=(channels, side, side), classes=5).eval()
    with torch.no_grad():
        assert model(torch.randn(2, channels, side, side)).shape == (2, 5)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["vgg16", "densenet_bc", "resnet8", "preresnet", "wrn", "resnet50"])
def test_smallest_size_runs(arch):
    side = ARCHS[arch].min_size
    model = build(SMALL[arch][0], in_shape=(1, side, side), classes=5).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 1, side, side)).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["mlp", "resnet8", "vgg16", "densenet_bc", "resnet50"])
def test_bias_only_without_norm(arch):
    hidden = nn.Linear if arch == "mlp" else nn.Conv2d
    for norm in ("batch", "none"):
        model = small(arch, norm=norm)
        bias = {
            m.bias is not None
            for name, m in model.named_modules()
            if isinstance(m, hidden) and not any(s in name for s in ("classifier", "project", "downsample"))
        }
        assert bias == {norm == "none"}


@pytest.mark.parametrize("arch", ["resnet8", "preresnet"])
def test_without_skip_the_branches_are_the_only_path(arch):
    for skip in (True, False):
        model = small(arch, norm="none", skip=skip)
        blocks = [m for m in model.modules() if isinstance(m, PreActBlock)]
        assert any(b.project is not None for b in blocks) == skip
        nn.init.zeros_(blocks[0].branch[-1].weight)
        varies = model(images(arch)).std(dim=0).max() > 1e-6
        assert varies == skip


def test_block_is_the_identity_when_its_branch_is_zero():
    block = small("preresnet").stages[0][1]
    nn.init.zeros_(block.branch[-1].weight)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), x)


def test_functional_call_vmap_and_deepcopy():
    model = small("resnet8", norm="none").double()  # vmap adds up in another order
    x = images("resnet8").double()
    twin = copy.deepcopy(model)
    stack = {k: torch.stack([v, 2 * v]) for k, v in model.named_parameters()}
    out = vmap(lambda p: functional_call(model, p, (x,)))(stack)
    assert out.shape == (2, 4, 5)
    torch.testing.assert_close(out[0], model(x))
    torch.testing.assert_close(twin(x), model(x), rtol=0, atol=0)
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(2)
    torch.testing.assert_close(out[1], twin(x))
    per_example = vmap(
        torch.func.grad(lambda p, one: functional_call(model, p, (one[None],)).square().sum()),
        in_dims=(None, 0),
    )(dict(model.named_parameters()), x)
    model(x).square().sum().backward()
    torch.testing.assert_close(per_example["stem.weight"].sum(0), model.stem.weight.grad)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
def test_vmap_over_weights_in_every_architecture(arch):
    model = small(arch, norm="group").eval()
    x = images(arch, n=2)
    stack = {k: v.detach()[None] for k, v in model.named_parameters()}
    with torch.no_grad():
        out = vmap(lambda p: functional_call(model, p, (x,)))(stack)
        torch.testing.assert_close(out[0], model(x), rtol=1e-3, atol=1e-4)


def test_every_architecture_has_options_and_a_builder():
    assert set(architectures.BUILDERS) == set(ARCHS)


def test_an_architecture_without_a_builder_is_one_line(monkeypatch):
    monkeypatch.setitem(options.ARCHS, "convnext", options.Arch("made up", {**ARCHS["mlp"].options}))
    with pytest.raises(ValleysError, match=r"^model.arch: 'convnext' has options, but no builder in .*\.py$"):
        build({"arch": "convnext"}, in_shape=CIFAR, classes=5)
