"""Sizes of networks: as torch builds them, measured in one process, kept, shipped, and else a guess."""

import json
import os
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import pytest
import torch
from conftest import fill_defaults, load_config
from torch.utils.flop_counter import FlopCounterMode
from valleys.config.experiment import Experiment
from valleys.costs import shipped, sizes
from valleys.costs.jobs import Costs
from valleys.costs.sizes import Question, measure
from valleys.models.builder import build
from valleys.models.options import ARCHS, validate_spec
from workflow_runs import changed

ROOT = Path(__file__).parents[2]
IMAGE = (3, 32, 32)
OTHERS = [
    ({"arch": "mlp", "hidden": [16], "norm": "batch"}, (1, 8, 8), 10),
    ({"arch": "resnet8", "width": 8, "norm": "none", "skip": False}, (1, 9, 7), 10),
    ({"arch": "preresnet", "depth": 29, "block": "bottleneck", "norm": "layer"}, IMAGE, 100),
    ({"arch": "vgg16", "norm": "none"}, (3, 96, 96), 10),
    ({"arch": "densenet_bc", "depth": 22, "compression": 0.7, "norm": "group"}, (3, 33, 33), 10),
    ({"arch": "wrn", "depth": 10, "widen": 2, "norm_init": "gaussian"}, IMAGE, 10),
    ({"arch": "resnet50", "norm": "none"}, (3, 64, 64), 1000),
]
SPECS = [*(({"arch": arch}, IMAGE, 10) for arch in ARCHS), *OTHERS]
SHIPPED_CONFIGS = sorted((ROOT / "config").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "shape", "classes"), SPECS)
def test_sizes_are_those_of_the_network(spec, shape, classes):
    drawn = torch.get_rng_state()
    found = measure(spec, shape, classes)
    assert torch.equal(torch.get_rng_state(), drawn)
    model = build(spec, in_shape=shape, classes=classes).eval()
    parameters = list(model.parameters())
    assert found.parameters == sum(p.numel() for p in parameters)
    assert found.tensors == len(parameters)
    assert found.buffers == sum(b.numel() for b in model.buffers())

    written = []

    def wrote(module, inputs, output):
        if not any(module.children()):
            written.append(output.numel())

    for module in model.modules():
        if not isinstance(module, torch.nn.Identity | torch.nn.Dropout):
            module.register_forward_hook(wrote)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *shape))
    assert found.flops == pytest.approx(counter.get_total_flops(), rel=0.01)
    # Besides what modules write there are additions, concatenations and the last mean.
    assert sum(written) <= found.elements <= 1.5 * sum(written)
    assert found.widest >= max(written)
    assert found.layers >= len(written)


@pytest.mark.slow
def test_published_sizes():
    """Table 1 of He et al. 2016, of Huang et al. 2017, and of Zagoruyko and Komodakis 2016."""
    published = [
        (1.7e6, {"arch": "preresnet", "depth": 110}),
        (1.7e6, {"arch": "preresnet", "depth": 164}),
        (0.8e6, {"arch": "densenet_bc", "depth": 100}),
        (36.5e6, {"arch": "wrn", "depth": 28, "widen": 10}),
    ]
    for parameters, spec in published:
        assert measure(spec, IMAGE, 10).parameters == pytest.approx(parameters, rel=0.04)


@pytest.mark.slow
@pytest.mark.long
def test_shipped_sizes_are_those_that_make_sizes_writes():
    rows = [json.loads(json.dumps(shipped.row(question))) for question in shipped.asked(SHIPPED_CONFIGS)]
    assert rows == json.loads(sizes.SHIPPED.read_text()), "run make sizes"


def test_the_guess_is_a_preresnet_of_any_image():
    for shape, classes in ((IMAGE, 10), ((3, 96, 96), 100), ((1, 28, 28), 10), ((1, 8, 8), 3)):
        found, truth = sizes.assumed(shape, classes), measure(sizes.ASSUMED, shape, classes)
        assert astuple(found) == pytest.approx(astuple(truth), rel=0.08)


def experiment(root, **paths):
    raw = changed(load_config("config/smoke.yaml"), studies={}, **paths)
    return Experiment(fill_defaults(raw | {"name": root}))


MODELS = {"mlp": {"arch": "mlp", "hidden": [7]}, "other": {"arch": "mlp", "hidden": [9], "norm": "batch"}}


@pytest.mark.slow
@pytest.mark.long
def test_all_networks_are_measured_at_once_and_then_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "torch")  # as in the Snakefile's process
    started, run = [], subprocess.run
    monkeypatch.setattr(sizes.subprocess, "run", lambda *a, **k: started.append(a) or run(*a, **k))
    grid = [{"dataset": "digits", "model": ["mlp", "other"], "recipe": "quick"}]
    found = experiment("two", models=MODELS, grid=grid)
    nets = [Costs(found).net("digits", model).parameters for model in ("mlp", "other")]
    assert nets == [64 * 7 + 7 + 80, 64 * 9 + 2 * 9 + 100]
    assert len(started) == 1
    assert len(list(sizes.KEPT.iterdir())) == 2
    assert not Path("results").exists()
    assert Costs(found).guessed() == []


@pytest.mark.slow
@pytest.mark.long
def test_where_nothing_can_be_written_they_are_measured_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "torch")
    Path(".snakemake").write_text("a file, so that no folder can be made")
    costs = Costs(experiment("x", models={"mlp": {"arch": "mlp", "hidden": [7]}}))
    assert costs.net("digits", "mlp").tensors == 4
    assert costs.guessed() == []


def test_what_cannot_be_measured_is_a_guess_that_is_said(tmp_path, monkeypatch, caplog):
    """VGG-16 takes no images of 8 x 8: its job will say so."""
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(sizes, "measure", lambda *a: asked.append(a) or build(a[0], in_shape=a[1], classes=2))
    costs = Costs(experiment("x", models={"mlp": {"arch": "vgg16"}}))
    assert [costs.net("digits", "mlp") for _ in range(2)] == [sizes.assumed((1, 8, 8), 10)] * 2
    assert len(asked) == 1
    assert costs.guessed() == ["mlp"]
    assert "vgg16 cannot be measured; taken for preresnet" in caplog.text


@pytest.mark.slow
def test_a_process_that_is_ended_keeps_what_it_had_answered(tmp_path, monkeypatch):
    (tmp_path / "ends_of_sizes.py").write_text("import os\n\ndef build():\n    os._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    ours = Question(validate_spec({"arch": "mlp"}), (1, 9, 9), 10)
    theirs = Question({"factory": "ends_of_sizes:build", "kwargs": {}}, IMAGE, 10)
    found = sizes.ahead([ours, theirs], tmp_path)
    assert found[0] == measure(ours.spec, ours.shape, 10)
    assert found[1] is None


def test_an_edited_architecture_is_another_question(monkeypatch):
    question = Question(validate_spec({"arch": "mlp"}), IMAGE, 10)
    before = question.key
    monkeypatch.setattr(sizes, "_library_code", lambda: "edited")
    assert Question(question.spec, IMAGE, 10).key != before
