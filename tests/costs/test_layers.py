"""Layers that probes name are looked for before any job."""

import pytest
import yaml
from conftest import fill_defaults, load_config
from valleys.config.experiment import Experiment
from valleys.costs import layers, plan, sizes
from valleys.costs.jobs import Costs
from valleys.errors import ValleysError

RESNET = {"arch": "resnet8", "norm": "none"}


def costs(model, group, **more):
    config = load_config("config/smoke.yaml")
    config |= {"models": {"net": model}, "studies": {}, "planes": {}, "lines": {}, **more}
    config["grid"] = [{"dataset": "digits", "model": "net", "recipe": "quick"}]
    config["probes"] = {"one": {"kind": "uniform", "n": 2, "points": 21, "group": group}}
    return Costs(Experiment(fill_defaults(config)))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_a_layer_that_is_missing_is_told_with_the_nearest(monkeypatch):
    layers.check(costs(RESNET, "layer:stages"))
    with pytest.raises(ValleysError) as caught:
        layers.check(costs(RESNET, "layer:stage"))
    expected = "config: probes.one.group: 'layer:stage': model net has no layer 'stage', did you mean 'stages"
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(sizes, "answers_of_a_process", None)  # from here on it is known
    with pytest.raises(ValleysError):
        layers.check(costs(RESNET, "layer:stag"))
    layers.check(costs(RESNET, "layer:stages.0"))


def test_nothing_is_asked_without_need(monkeypatch):
    monkeypatch.setattr(sizes, "answers_of_a_process", None)
    layers.check(costs(RESNET, "all"))
    layers.check(costs({"factory": "torchvision.models:resnet18"}, "layer:missing"))  # built by jobs alone


@pytest.mark.slow
def test_a_dry_run_and_a_plan_say_so(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(costs(RESNET, "layer:stage").config))
    with pytest.raises(ValleysError, match="model net has no layer 'stage'"):
        plan.make(path)
