"""Networks as they are built: every combination of options, and the first weights."""

import sys

import pytest
import torch
from small_models import CIFAR, SMALL, images, small
from torch import nn
from valleys.errors import ValleysError
from valleys.models import builder
from valleys.models.builder import build
from valleys.models.layers import ACTIVATION_MODULES, has_batch_norm, norm_parameters
from valleys.models.options import ACTIVATIONS, ARCHS, NORMS


@pytest.mark.slow
@pytest.mark.long
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


NETS = """
import torch
from torch import nn

def flat(outputs=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))

def of_values(outputs=3):
    class Net(nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(1) * x.max().item())
    return Net(64, outputs)

def passed_on(**kwargs):
    return flat(kwargs.get("num_classes", 1000))

def no_network():
    return 3
"""


@pytest.fixture
def own_nets(tmp_path, monkeypatch):
    (tmp_path / "nets_of_outputs.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("nets_of_outputs", None)


def test_outputs_of_a_factory_are_checked_without_data(own_nets):
    def check(name, classes, **kwargs):
        spec = {"factory": f"nets_of_outputs:{name}", "kwargs": kwargs}
        builder.check_outputs({"net": spec}, (1, 8, 8), classes, "classification")

    before = torch.get_rng_state()
    check("flat", 10)
    check("passed_on", 7)
    check("of_values", 10)  # only its values would tell
    check("no_network", 10)  # its job says so
    expected = r"config: models\.net: factory .*flat': the network returns the shape \(2, 3\); it must map "
    with pytest.raises(ValleysError, match=rf"{expected}images \(2, 1, 8, 8\) to logits \(2, 10\)"):
        check("flat", 10, outputs=3)
    with pytest.raises(ValleysError, match=r"the shape \(2, 10\); .* \(2, 7\)"):
        check("flat", 7)
    assert torch.equal(before, torch.get_rng_state())


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


def test_caller_seeds_the_weights():
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(small("resnet8", norm_init="uniform").state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["final.0.weight"], states[2]["final.0.weight"])
    assert not torch.equal(states[0]["stem.weight"], states[2]["stem.weight"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "expansion"), [(20, 1), (56, 1), (110, 1), (29, 4), (164, 4), (182, 4), (1001, 4), (170, 1)]
)
def test_a_block_follows_the_depth(depth, expansion):
    with torch.device("meta"):
        model = build({"arch": "preresnet", "depth": depth, "width": 1}, in_shape=CIFAR, classes=10)
    assert model.classifier.in_features == 4 * expansion
