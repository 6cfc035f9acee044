"""Hessian eigenvectors: those of the whole matrix, restricted to a group, the same on every run."""

import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torch import nn
from torch.func import functional_call
from valleys.data.split import Split, channel_statistics
from valleys.errors import ValleysError
from valleys.landscape.directions import parameter_group
from valleys.landscape.hessian import hessian_eigenvectors
from valleys.models import losses, solutions

LOSSES = {
    "cross_entropy": {},
    "label_smoothing": {"smoothing": 0.1},
    "focal": {"gamma": 2.0},
    "mse": {},
}
pytestmark = pytest.mark.usefixtures("one_thread")

CROSS_ENTROPY = losses.build({"name": "cross_entropy"})


class Small(nn.Module):
    """Some 150 parameters on the float32 images of a split, with or without batch norm."""

    def __init__(self, norm, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Linear(16, 6), nn.BatchNorm1d(6) if norm else nn.Identity(), nn.Tanh()
        )
        self.classifier = nn.Linear(6, 3)
        if norm:
            self.features[1].running_mean.normal_()
            self.features[1].running_var.uniform_(0.5, 2)
            nn.init.uniform_(self.features[1].weight)
        self.to(dtype)

    def forward(self, x):
        return self.classifier(self.features(x.flatten(1).to(self.classifier.weight.dtype)))


def whole_matrix(model, split, loss, names):
    """The full Hessian over the named parameters, by torch, from one batch of all images."""
    own = {n: p.detach() for n, p in model.named_parameters()}
    sizes, shapes = [own[n].numel() for n in names], [own[n].shape for n in names]

    def mean_loss(vector):
        moved = {n: p.view(s) for n, p, s in zip(names, vector.split(sizes), shapes, strict=True)}
        return loss(functional_call(model, own | moved, split.floats(slice(None))), split.labels).mean()

    at = torch.cat([own[n].reshape(-1) for n in names])
    return torch.func.hessian(mean_loss)(at)


def flat(direction):
    return torch.cat([d.reshape(-1) for d in direction.values()])


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("group", ["all", "classifier", "layer:features.0"])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_eigenpairs_are_those_of_the_whole_matrix(tiny_split, name, norm, group):
    model, loss = Small(norm).eval(), losses.build({"name": name, **LOSSES[name]})
    names = parameter_group(model, group)
    matrix = whole_matrix(model, tiny_split, loss, names)
    values, vectors = torch.linalg.eigh(matrix)
    # 20 images in batches of 7, 7 and 6: the mean is over images, not over batches.
    found, eigenvalues = hessian_eigenvectors(model, tiny_split, loss, names, 3, batch_size=7)
    top = values.flip(0)[:3]
    assert eigenvalues == pytest.approx(top.tolist(), rel=1e-10)
    for i, (direction, value) in enumerate(zip(found, eigenvalues, strict=True)):
        assert {n: d.shape for n, d in direction.items()} == {n: model.get_parameter(n).shape for n in names}
        v = flat(direction)
        assert float(v.norm()) == pytest.approx(1, abs=1e-12)
        assert float(v @ matrix @ v) == pytest.approx(value, rel=1e-10)  # the Rayleigh quotient
        torch.testing.assert_close(matrix @ v, value * v, rtol=0, atol=1e-10)
        assert v[v.abs().argmax()] > 0
        alone = (values - value).abs().sort().values[1] > 1e-4  # else any vector of the eigenspace will do
        if alone:
            assert abs(float(v @ vectors[:, -1 - i])) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("norm", [True, False])
def test_curvature_is_that_of_the_loss_along_the_line(tiny_split, norm):
    model = Small(norm).eval()
    names = parameter_group(model, "all")
    (direction,), (value,) = hessian_eigenvectors(model, tiny_split, CROSS_ENTROPY, names, 1)
    step, losses_at = 1e-3, []
    with torch.no_grad():
        for sign in (-1, 0, 1):
            moved = {n: p + sign * step * direction[n] for n, p in model.named_parameters()}
            logits = functional_call(model, moved, tiny_split.floats(slice(None)))
            losses_at.append(float(CROSS_ENTROPY(logits, tiny_split.labels).mean()))
    second = (losses_at[0] - 2 * losses_at[1] + losses_at[2]) / step**2
    assert second == pytest.approx(value, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", [True, False])
def test_single_precision_finds_the_same(tiny_split, norm):
    model, single = Small(norm).eval(), Small(norm, torch.float32).eval()
    names = parameter_group(model, "all")
    _, expected = hessian_eigenvectors(model, tiny_split, CROSS_ENTROPY, names, 3)
    exact = whole_matrix(model, tiny_split, CROSS_ENTROPY, names)
    found, eigenvalues = hessian_eigenvectors(single, tiny_split, CROSS_ENTROPY, names, 3)
    assert eigenvalues == pytest.approx(expected, rel=2e-6)
    for direction, value in zip(found, expected, strict=True):
        assert all(d.dtype == torch.float32 for d in direction.values())
        v = flat(direction).double()
        assert float(v @ exact @ v / (v @ v)) == pytest.approx(value, rel=1e-6)


def test_a_rerun_gives_the_same_bits_and_leaves_the_model_alone(tiny_split):
    model = Small(True, torch.float32).train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    names = parameter_group(model, "all")
    torch.manual_seed(1)
    first, one = hessian_eigenvectors(model, tiny_split, CROSS_ENTROPY, names, 2)
    torch.manual_seed(2)
    second, other = hessian_eigenvectors(model, tiny_split, CROSS_ENTROPY, names, 2)
    assert one == other
    assert all(torch.equal(a[n], b[n]) for a, b in zip(first, second, strict=True) for n in names)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("spec", [{"arch": "resnet8", "width": 8}, {"arch": "resnet8", "norm": "none"}])
@pytest.mark.parametrize("group", ["all", "conv"])
def test_convolutional_nets_as_they_are_stored(spec, group):
    """Channels-last weights, skip connections and frozen neighbours; residuals by double backward."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(30) % 3, 3, *channel_statistics(images))
    model = solutions.fresh(spec, split.in_shape, 3, seed=1).eval()
    names = parameter_group(model, group)
    found, values = hessian_eigenvectors(model, split, CROSS_ENTROPY, names, 2, batch_size=16)
    own = [model.get_parameter(n) for n in names]
    mean = CROSS_ENTROPY(model(split.floats(slice(None))), split.labels).mean()
    gradient = torch.autograd.grad(mean, own, create_graph=True)
    for direction, value in zip(found, values, strict=True):
        along = sum((g * direction[n]).sum() for g, n in zip(gradient, names, strict=True))
        product = torch.autograd.grad(along, own, retain_graph=True)
        residual = sum(
            float((h - value * direction[n]).square().sum()) for h, n in zip(product, names, strict=True)
        )
        assert residual**0.5 < 1e-5 * value


def test_too_many_eigenvectors_are_an_error(tiny_split):
    model = Small(True)
    with pytest.raises(
        ValleysError, match="at most 5 eigenvectors over a group of 6 parameters, not 6; lower"
    ):
        hessian_eigenvectors(model, tiny_split, CROSS_ENTROPY, parameter_group(model, "bn_weight"), 6)
    names = parameter_group(model, "bn_weight")
    found, values = hessian_eigenvectors(model, tiny_split, CROSS_ENTROPY, names, 5)
    assert len(found) == len(values) == 5
    assert values == sorted(values, reverse=True)


def test_a_hessian_that_is_zero_or_not_finite_is_an_error(tiny_split):
    model = Small(False)
    with torch.no_grad():
        model.classifier.weight.zero_()
    with pytest.raises(ValleysError, match="Hessian of the train loss is zero"):
        hessian_eigenvectors(model, tiny_split, CROSS_ENTROPY, parameter_group(model, "layer:features"), 1)
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    with pytest.raises(ValleysError, match="not finite"):
        hessian_eigenvectors(model, tiny_split, CROSS_ENTROPY, parameter_group(model, "all"), 1)


@pytest.mark.slow
def test_only_who_asks_for_a_hessian_imports_curvlinops():
    code = "import sys, valleys.landscape.probing; assert 'curvlinops' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "workflow/scripts")
