"""The networks have the published sizes, run with every option, and can be taken apart by name."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap
from valleys.errors import ValleysError
from valleys.models import builder
from valleys.models.architectures import PreActBlock
from valleys.models.builder import build
from valleys.models.layers import (
    ACTIVATION_MODULES,
    classifier_name,
    has_batch_norm,
    init_norm_weights,
    norm_parameters,
)
from valleys.models.options import ACTIVATIONS, ARCHS, NORMS

CIFAR = (3, 32, 32)

# One small spec and image side for each architecture; vgg16 and resnet50 have no small version.
SMALL = {
    "mlp": ({"arch": "mlp", "hidden": [16, 16]}, 8),
    "resnet8": ({"arch": "resnet8"}, 8),
    "preresnet": ({"arch": "preresnet", "depth": 14, "width": 4}, 8),
    "vgg16": ({"arch": "vgg16"}, 32),
    "densenet_bc": ({"arch": "densenet_bc", "depth": 16, "growth": 4}, 8),
    "wrn": ({"arch": "wrn", "depth": 10, "widen": 1, "dropout": 0.1}, 8),
    "resnet50": ({"arch": "resnet50"}, 32),
}


def count(model):
    return sum(p.numel() for p in model.parameters())


def small(arch, channels=3, classes=5, **options):
    spec, side = SMALL[arch]
    return build({**spec, **options}, in_shape=(channels, side, side), classes=classes)


def images(arch, n=4, channels=3):
    side = SMALL[arch][1]
    return torch.randn(n, channels, side, side)


# ---- sizes


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


# ---- every option runs


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("arch", ARCHS)
def test_every_combination_starts_finite(arch, norm, activation):
    torch.manual_seed(0)
    model = small(arch, norm=norm, activation=activation)
    logits = model(images(arch, n=2))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    activations = {type(m) for m in model.modules()} & set(ACTIVATION_MODULES.values())
    assert activations == {ACTIVATION_MODULES[activation]}
    assert has_batch_norm(model) == (norm == "batch")
    assert bool(norm_parameters(model)) == (norm != "none")
    assert not any(getattr(m, "inplace", False) for m in model.modules())


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


@pytest.mark.parametrize("arch", ["vgg16", "densenet_bc", "resnet8", "preresnet", "wrn", "resnet50"])
def test_smallest_size_runs(arch):
    side = ARCHS[arch].min_size
    model = build(SMALL[arch][0], in_shape=(1, side, side), classes=5).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 1, side, side)).isfinite().all()


@pytest.mark.parametrize("arch", ["preresnet", "wrn", "densenet_bc"])
def test_deep_network_without_norm_keeps_its_signal(arch):
    depth = {"preresnet": 110, "wrn": 40, "densenet_bc": 40}[arch]
    torch.manual_seed(0)
    spec = {**SMALL[arch][0], "depth": depth, "norm": "none"}
    logits = build(spec, in_shape=(3, 8, 8), classes=10)(torch.randn(16, 3, 8, 8))
    assert 0.01 < logits.std() < 10


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gain_keeps_the_second_moment(activation):
    z = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    density = torch.exp(-z * z / 2)
    second = (ACTIVATION_MODULES[activation]()(z) ** 2 * density).sum() / density.sum()
    assert builder.GAINS[activation] ** 2 * second == pytest.approx(1.0, abs=1e-4)


# ---- normalisation


def test_group_counts_divide_the_channels():
    model = build({"arch": "wrn", "depth": 10, "widen": 3, "norm": "group"}, in_shape=CIFAR, classes=10)
    groups = {m.num_channels: m.num_groups for m in model.modules() if isinstance(m, nn.GroupNorm)}
    assert groups == {16: 8, 48: 24, 96: 32, 192: 32}
    model = small("resnet8", norm="group", groups=3, width=6)
    groups = {m.num_channels: m.num_groups for m in model.modules() if isinstance(m, nn.GroupNorm)}
    assert groups == {6: 3, 12: 3, 24: 3}


def test_group_norm_of_an_mlp_is_more_than_signs():
    model = small("mlp", norm="group", hidden=[64])
    normed = model.features[:2](images("mlp").flatten(1))
    assert normed.detach().abs().round(decimals=3).unique().numel() > 100


def test_layer_norm_kind():
    norms = (nn.GroupNorm, nn.LayerNorm)
    conv = [m for m in small("resnet8", norm="layer").modules() if isinstance(m, norms)]
    assert {(type(m), m.num_groups) for m in conv} == {(nn.GroupNorm, 1)}
    assert [type(m) for m in small("mlp", norm="layer").modules() if isinstance(m, norms)] == 2 * [
        nn.LayerNorm
    ]


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


def test_norm_parameters_are_named_by_kind():
    model = small("resnet8")
    kinds = norm_parameters(model)
    assert kinds["final.0.weight"] == "norm_weight"
    assert kinds["final.0.bias"] == "norm_bias"
    assert len(kinds) == 2 * sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 14
    assert kinds.keys() <= dict(model.named_parameters()).keys()
    assert norm_parameters(nn.LayerNorm(3)) == {"weight": "norm_weight", "bias": "norm_bias"}


def norm_weights(model):
    return torch.cat(
        [model.get_parameter(n).detach() for n, k in norm_parameters(model).items() if k == "norm_weight"]
    )


def test_init_norm_weights():
    model = small("resnet8", width=64)
    assert (norm_weights(model) == 1).all()
    init_norm_weights(model, "uniform", torch.Generator().manual_seed(3))
    uniform = norm_weights(model)
    assert 0 <= uniform.min() < 0.05
    assert 0.95 < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.05
    init_norm_weights(model, "gaussian", torch.Generator().manual_seed(3))
    gaussian = norm_weights(model)
    assert abs(gaussian.mean()) < 0.02
    assert abs(gaussian.std() - 0.1) < 0.02
    init_norm_weights(model, "uniform", torch.Generator().manual_seed(3))
    assert torch.equal(norm_weights(model), uniform)
    init_norm_weights(model, "ones", torch.Generator())
    assert (norm_weights(model) == 1).all()
    with pytest.raises(ValleysError, match="gaussian"):
        init_norm_weights(model, "gauss", torch.Generator())


def test_caller_seeds_the_weights():
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(small("resnet8", norm_init="uniform").state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["final.0.weight"], states[2]["final.0.weight"])
    assert not torch.equal(states[0]["stem.weight"], states[2]["stem.weight"])


# ---- skip connections


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


# ---- taking models apart


@pytest.mark.parametrize("arch", ARCHS)
def test_classifier_name(arch):
    model = small(arch, classes=7)
    name = classifier_name(model)
    assert model.get_submodule(name).out_features == 7
    assert name == {"vgg16": "classifier.6", "resnet50": "fc"}.get(arch, "classifier")


def test_classifier_name_needs_a_linear_layer():
    with pytest.raises(ValleysError, match="no linear layer"):
        classifier_name(nn.ReLU())


def test_functional_call_vmap_and_deepcopy():
    model = small("resnet8", norm="none")
    x = images("resnet8")
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


@pytest.mark.parametrize("arch", ARCHS)
def test_vmap_over_weights_in_every_architecture(arch):
    model = small(arch, norm="group").eval()
    x = images(arch, n=2)
    stack = {k: v.detach()[None] for k, v in model.named_parameters()}
    with torch.no_grad():
        out = vmap(lambda p: functional_call(model, p, (x,)))(stack)
        torch.testing.assert_close(out[0], model(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("depth", "expansion"), [(20, 1), (56, 1), (110, 1), (29, 4), (164, 4), (182, 4), (1001, 4), (170, 1)]
)
def test_auto_block(depth, expansion):
    with torch.device("meta"):
        model = build({"arch": "preresnet", "depth": depth, "width": 1}, in_shape=CIFAR, classes=10)
    assert model.classifier.in_features == 4 * expansion
