"""The layers that options choose, and which layers of a network are which."""

import pytest
import torch
from small_models import CIFAR, images, small
from torch import nn
from valleys.errors import ValleysError
from valleys.models import layers
from valleys.models.builder import build
from valleys.models.layers import classifier_name, init_norm_weights, norm_parameters
from valleys.models.options import ARCHS, NORMS


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


@pytest.mark.parametrize("arch", ARCHS)
def test_classifier_name(arch):
    model = small(arch, classes=7)
    name = classifier_name(model)
    assert model.get_submodule(name).out_features == 7
    assert name == {"vgg16": "classifier.6", "resnet50": "fc"}.get(arch, "classifier")


def test_classifier_name_needs_a_linear_layer():
    with pytest.raises(ValleysError, match="no linear layer"):
        classifier_name(nn.ReLU())


def test_every_normalisation_can_be_made_and_is_known_as_one():
    assert tuple(layers.NORM_MAKERS) == NORMS
    for norm in NORMS:
        make = layers.LayerMaker(norm, groups=4, activation="relu")
        for module in (make.norm2d(8), make.norm1d(8)):
            assert isinstance(module, nn.Identity) == (norm == "none")
            assert len(norm_parameters(module)) == len(list(module.parameters()))


@pytest.mark.parametrize(("norm", "activation"), [("batsh", "relu"), ("batch", "rleu")])
def test_a_layer_that_nothing_makes_is_one_line(norm, activation):
    with pytest.raises(ValleysError, match=r"^model.(norm|activation): .*, did you mean"):
        layers.LayerMaker(norm, 4, activation)
