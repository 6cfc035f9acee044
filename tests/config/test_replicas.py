"""Replicates share nothing random with the first run."""

import copy
from pathlib import Path

import pytest
import yaml
from valleys.config import replicas, schema
from valleys.config.reading import load
from valleys.errors import ValleysError

SAMPLE = {
    "dataset": "digits",
    "model": "mlp",
    "recipe": "quick",
    "factors": {"model.norm": ["batch", "none"]},
}


@pytest.fixture
def config():
    found = load("config/smoke.yaml")
    found["seeds"] = [0, 1, 5]
    found["grid"][0]["seeds"] = [1, 5]
    found["studies"]["drawn"] = SAMPLE | {"probes": ["uniform"], "design": "sample", "runs": 4}
    schema.check(copy.deepcopy(found))
    return schema.with_defaults(found)


def test_every_list_moves_the_same_way(config):
    made = replicas.replica(config, [20, 21, 22])
    assert (made["name"], made["seeds"]) == (f"{config['name']}-replicate", [20, 21, 22])
    assert made["grid"][0]["seeds"] == [21, 22]
    assert made["studies"]["bn"]["seeds"] == [20]
    schema.check(copy.deepcopy(made))


def test_nothing_random_is_shared(config):
    made = replicas.replica(config)
    assert made["seeds"] == [6, 7, 8]
    # The first run's cells use seed 5, which is above its sampled runs 0 to 3: these go on after both.
    assert made["studies"]["drawn"]["first_run"] == 8
    assert not set(replicas.seeds_of(made)) & set(replicas.seeds_of(config))
    for block in ("toy_2d", "theory"):
        assert made[block]["seed"] not in {config[block]["seed"], *replicas.seeds_of(config)}


@pytest.mark.parametrize(
    ("seeds", "message"),
    [([20, 21], "2 seeds; the experiment has 3"), ([3, 20, 21], "3 is a seed of the first run")],
)
def test_seeds_that_will_not_do(config, seeds, message):
    with pytest.raises(ValleysError, match=message):
        replicas.replica(config, seeds)


def test_a_seed_that_is_not_at_the_top(config):
    config["grid"][0]["seeds"] = [9]
    with pytest.raises(ValleysError, match=r"grid.0.seeds: 9 is not among the seeds at the top"):
        replicas.replica(config)


def test_lists_of_seeds():
    assert replicas.parse_seeds("12-14, 20") == [12, 13, 14, 20]
    for text in ("", "a", "5-3", "1-"):
        with pytest.raises(ValleysError, match="is no list of seeds"):
            replicas.parse_seeds(text)


def test_seeds_that_are_added_are_added_in_the_replicate_too(tmp_path, monkeypatch):
    found = load("config/smoke.yaml")
    found |= {"seeds": {"until": "decided", "first": 7, "most": 14}, "studies": {}}
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(found))
    for seeds, start in ((None, 14), (list(range(50, 70)), 50)):
        made = load(replicas.write(Path("mine.yaml"), seeds).config)
        assert made["seeds"] == {"until": "decided", "first": 7, "most": 14, "start": start}
        assert (made["claims"]["alpha"], made["claims"]["level"]) == (0.05, 0.95)
        assert made["name"] == "smoke-replicate"
    with pytest.raises(ValleysError, match=r"--seeds: 50, 52, 54, 56, ... have gaps; .* write 50-63"):
        replicas.write(Path("mine.yaml"), list(range(50, 90, 2)))
