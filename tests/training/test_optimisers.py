"""Each stage that trains runs the optimiser of the recipe."""

import itertools

import pytest
import torch
import yaml
from conftest import fill_defaults, load_config
from small_training import RECIPE, fresh, make_split
from valleys.config.experiment import Experiment
from valleys.config.params import Params
from valleys.config.schema import SCHEMA_FILE
from valleys.errors import ValleysError
from valleys.training import optimisers, paths, sgd
from valleys.training.trainer import Trainer


def test_nesterov_without_momentum_is_refused():
    recipe = {**RECIPE, "nesterov": True}
    Trainer(fresh(), make_split(40), recipe, seed=0)
    with pytest.raises(ValleysError, match="nesterov: needs momentum above 0"):
        Trainer(fresh(), make_split(40), {**recipe, "momentum": 0}, seed=0)


def test_the_schema_has_the_optimisers_there_are():
    recipe = yaml.safe_load(SCHEMA_FILE.read_text(encoding="utf-8"))["$defs"]["recipe"]
    assert recipe["properties"]["optimizer"]["enum"] == list(optimisers.OPTIMISERS)


def test_an_unknown_optimiser_is_one_line():
    with pytest.raises(ValleysError, match=r"^recipe.optimizer: 'lion' is not known \(valid: sgd"):
        Trainer(fresh(), make_split(40), {**RECIPE, "optimizer": "lion"}, seed=0)


@pytest.fixture
def stepped(monkeypatch):
    """The options that steps of a made-up optimiser were made with, one a step."""
    found = []

    class Sign(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                found.append(group["blend"])
                for p in group["params"]:
                    p.add_(p.grad.sign(), alpha=-group["lr"])

    def sign(parameters, recipe):
        return Sign(parameters, {"lr": recipe["lr"], "blend": recipe["blend"]})

    monkeypatch.setitem(optimisers.OPTIMISERS, "sign", sign)
    return found


STAGES = ("train_sgd", "descend", "connect")


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_steps_with_the_recipes_optimiser_and_its_options(stage, stepped, tmp_path):
    """The key and an option that no other has come by the params of each stage's job."""
    experiment = Experiment(fill_defaults(load_config("config/smoke.yaml")))
    params = Params(experiment)
    experiment.recipes["quick"] |= {"optimizer": "sign", "blend": 0.3}
    (cell,) = itertools.islice(experiment.cells, 1)
    line = {"path": "bezier", "bends": 1, "epochs": 1, "lr": 0.001}
    split, net = make_split(40), fresh()
    if stage == "train_sgd":
        recipe = params.train_sgd("mlp", "quick", 0)["recipe"]
        sgd.train(net, (split, split), recipe, seed=0, state_dir=tmp_path)
    elif stage == "descend":
        recipe = params.descend("quick", 0)["recipe"]
        sgd.descend(net, (split, split), recipe, seed=0, refresh=lambda net: None, state_dir=tmp_path)
    else:
        recipe = params.connect(cell, next(iter(experiment.config["lines"])))["recipe"]
        paths.connect(net, fresh(1), split, recipe, line, seed=0)
    assert stepped
    assert set(stepped) == {0.3}
