"""Given weights in a run: probed, imported again, refused in one line."""

import pytest
import torch
from checkpoint_makers import SPEC, A, B, network, same
from safetensors.torch import save_file
from valleys.models import solutions
from valleys.storage import tables
from workflow_runs import planned, snakemake

pytestmark = pytest.mark.slow

CONFIG = {
    "name": "own",
    "seeds": [0, 1],
    "datasets": {"digits": {"source": "digits", "train_size": 100, "max_test": 50}},
    "models": {"mlp": SPEC},
    "checkpoints": {
        "mine": {"solutions": {"sgd": "w/{seed}/last.pt", "swa": "w/{seed}/{model}.safetensors"}},
        "one": {"solutions": {"sgd": "w/one.pt"}, "bn": "refreshed"},
        # Names that code has for other things, and one with a dot.
        "named": {"solutions": {"last.1": "w/a.pt", "test": "w/b.pt", "append": "w/c.pt", "swa": "w/d.pt"}},
    },
    "grid": [{"dataset": "digits", "model": "mlp", "recipe": ["mine", "one", "named"]}],
    "probes": {
        "uniform": {"kind": "uniform", "n": 1, "points": 9},
        "frozen": {"kind": "uniform", "n": 1, "points": 9, "bn": "frozen"},
        "pca": {"kind": "pca", "n": 1, "points": 9},
        "to-swa": {"kind": "sgd_to_swa", "points": 9},
        "slope": {"kind": "gradient", "points": 9, "solutions": ["test"]},
        "signs": {"kind": "sign", "n": 1, "points": 9, "solutions": ["sgd", "last.1"]},
    },
    "lines": {
        "between": {"start": "sgd", "stop": "swa", "divisions": 4},
        "down": {"start": "swa", "stop": "descent"},
        "path": {"start": "sgd", "stop": "sgd", "stop_seed": "next", "path": "bezier"},
        "named": {"start": "last.1", "stop": "append", "divisions": 4, "first": 0, "last": 1},
        "across": {"start": "test", "stop": "sgd", "stop_recipe": "one", "divisions": 2},
    },
    "planes": {
        "iterates": {"pca": True},
        "three": {"through": ["test", "append", "swa"], "points": 3},
        "two": {"span": ["uniform/0", "slope/0"], "at": "test", "points": 3},
    },
    "toy_2d": {"n_draws": 5, "surface_points": 21},
    "theory": {"chains": 100, "burn_in": 10, "iterates": 10, "draws": 100, "rates": [0.05], "levels": [0.5]},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    for seed in CONFIG["seeds"]:
        (folder / f"w/{seed}").mkdir(parents=True)
        torch.save({"state_dict": network(seed).state_dict()}, folder / f"w/{seed}/last.pt")
        save_file(network(seed + 10).state_dict(), folder / f"w/{seed}/mlp.safetensors")
    torch.save(network(5).state_dict(), folder / "w/one.pt")
    for seed, name in enumerate("abcd"):
        torch.save(network(20 + seed).state_dict(), folder / f"w/{name}.pt")
    status, text = snakemake(folder, CONFIG, "--cores", "2")
    assert status == 0, text
    return folder


@pytest.mark.long
def test_given_weights_are_probed_and_nothing_is_trained(finished):
    found = {
        name: tables.read(finished / f"results/own/tables/{name}.parquet", name).to_pandas()
        for name in ("solutions", "directions", "interpolation", "training", "claims", "planes")
    }
    found = {
        name: table[table["recipe"] != "named"] if "recipe" in table else table
        for name, table in found.items()
    }
    about = found["solutions"].set_index(["recipe", "seed", "solution"])
    assert about["bn_policy"].to_dict() == {
        ("mine", 0, "sgd"): "stored",
        ("mine", 0, "swa"): "stored",
        ("mine", 1, "sgd"): "stored",
        ("mine", 1, "swa"): "stored",
        ("one", 0, "sgd"): "refreshed",
    }
    chosen = found["directions"].groupby(["recipe", "seed"])["probe"].unique().map(set).to_dict()
    drawn, both = {"uniform", "frozen", "signs"}, {"uniform", "frozen", "signs", "to-swa"}
    assert chosen == {("mine", 0): both, ("mine", 1): both, ("one", 0): drawn}
    assert set(found["interpolation"]["line"]) == {"between"}
    assert len(found["training"]) == len(found["planes"]) == 0
    compared = set(found["claims"]["claim"])
    assert "swa_test_loss_sgd" in compared
    assert not any(name.endswith(("_descent", "_last")) for name in compared)  # neither was given
    model, header = solutions.load(finished / "results/own/cells/digits/mlp/mine/seed-1/sgd.safetensors")
    assert same(model, network(1).state_dict())
    assert header["solution"] == "sgd"
    assert (finished / "results/own/report.html").exists()
    assert planned(finished, CONFIG) == {}


@pytest.mark.long
def test_solutions_may_have_any_name(finished):
    names = ("solutions", "asymmetry", "interpolation", "plane_points", "claims", "sensitivity", "shift")
    found = {
        name: tables.read(finished / f"results/own/tables/{name}.parquet", name).to_pandas() for name in names
    }
    here = {name: table[table["recipe"] == "named"] for name, table in found.items() if "recipe" in table}
    given = ["swa", "append", "last.1", "test"]  # the workflow's own first, then as the config file has them
    assert here["solutions"]["solution"].tolist() == given
    assert here["solutions"].set_index("solution")["distance_to_swa"].gt(0).to_dict() == {
        name: name != "swa" for name in given
    }
    model, header = solutions.load(finished / "results/own/cells/digits/mlp/named/seed-0/last.1.safetensors")
    assert same(model, network(20).state_dict())
    assert header["solution"] == "last.1"
    # Probes that list none of the names look at all of them; those that do at no other.
    looked = here["asymmetry"].groupby("probe")["solution"].unique().map(list).to_dict()
    assert looked == {"uniform": given, "frozen": given, "slope": ["test"], "signs": ["last.1"]}
    assert here["interpolation"].groupby("line")[["start", "stop"]].first().T.to_dict("list") == {
        "named": ["last.1", "append"],
        "across": ["test", "sgd"],
    }
    assert here["plane_points"].groupby("plane")["role"].unique().map(list).to_dict() == {
        "three": given,
        "two": given,
    }
    # What is claimed of SGD minima is judged of each, as of a recipe of its own.
    at = [f"named at {name}" for name in given if name != "swa"]
    scopes = set(found["claims"].loc[found["claims"]["claim"] == "directions_are_asymmetric", "scope"])
    assert scopes >= {f"digits/mlp/{name}/uniform" for name in (*at, "mine", "one")}
    assert not any(" at swa" in scope for scope in scopes)
    assert set(found["sensitivity"]["recipe"]) == {*at, "mine", "one"}
    assert "digits/mlp/named at last.1/all/1 nats" in set(
        found["claims"].loc[found["claims"]["claim"] == "matching_signs_flattens", "scope"]
    )
    assert "named at append" in (finished / "results/own/report.html").read_text()


@pytest.mark.long
def test_another_file_at_the_path_is_imported_again(finished):
    path = finished / "w/one.pt"
    torch.save(network(6).state_dict(), path)
    rules = planned(finished, CONFIG)
    assert rules["import_solution"] == 1
    assert rules["probe"] == 3
    assert not {"train_sgd", "prepare_dataset", "average"} & set(rules)


@pytest.mark.long
def test_weights_of_another_model_fail_in_one_line(finished, tmp_path):
    torch.save(network(0, {**SPEC, "hidden": [17]}).state_dict(), finished / "w/wrong.pt")
    config = CONFIG | {
        "checkpoints": {"one": {"solutions": {"sgd": "w/wrong.pt"}}},
        "name": "wrong",
        "lines": {},
        "planes": {},
        "probes": {"uniform": CONFIG["probes"]["uniform"]},
    }
    config["grid"] = [{"dataset": "digits", "model": "mlp", "recipe": "one"}]
    target = "results/wrong/cells/digits/mlp/one/seed-0/sgd.safetensors"
    status, text = snakemake(finished, config, target, "--cores", "1")
    assert status != 0
    assert "checkpoint w/wrong.pt does not fit the model: it has " in text
    assert not (finished / target).exists()


PAIR = {
    **{key: CONFIG[key] for key in ("datasets", "models", "toy_2d", "theory")},
    "name": "pair",
    "seeds": [0],
    "checkpoints": {"both": {"solutions": {"a": "w/both.pt#state_dict", "b": "w/both.pt#swa_state_dict"}}},
    "grid": [{"dataset": "digits", "model": "mlp", "recipe": "both"}],
    "probes": {"uniform": CONFIG["probes"]["uniform"]},
    "lines": {"between": {"start": "a", "stop": "b", "divisions": 2}},
}


CELL = "results/pair/cells/digits/mlp/both/seed-0"


def test_a_config_chooses_one_of_several_sets(tmp_path):
    (tmp_path / "w").mkdir()
    torch.save({"state_dict": A, "swa_state_dict": B}, tmp_path / "w/both.pt")
    targets = [f"{CELL}/{name}.safetensors" for name in "ab"]
    status, text = snakemake(tmp_path, PAIR, *targets, "--cores", "1")
    assert status == 0, text
    for target, state in zip(targets, (A, B), strict=True):
        assert same(solutions.load(tmp_path / target)[0], state)
    log = (tmp_path / "results/pair/logs/digits/mlp/both/seed-0/import_solution-a.log").read_text()
    assert "of the file were read: weights under 'state_dict'; left aside: 'swa_state_dict'" in log
    assert planned(tmp_path, PAIR, *targets) == {}
    # The choice is among what a solution depends on.
    given = {"a": "w/both.pt", "b": "w/both.pt#swa_state_dict"}
    other = PAIR | {"checkpoints": {"both": {"solutions": given}}}
    assert planned(tmp_path, other, *targets)["import_solution"] == 1
    status, text = snakemake(tmp_path, other, *targets, "--cores", "1")
    assert status != 0
    assert "checkpoint w/both.pt has weights of the model in 2 places: 'state_dict', 'swa_state_dict'" in text


def test_a_line_between_equal_weights_is_refused(tmp_path):
    (tmp_path / "w").mkdir()
    torch.save({"state_dict": A, "swa_state_dict": dict(A)}, tmp_path / "w/both.pt")
    status, text = snakemake(tmp_path, PAIR, f"{CELL}/lines/between.parquet", "--cores", "1")
    assert status != 0
    assert "error in rule interpolate: a (t = 0) and b (t = 1) are the same weights" in text
    assert "Traceback" not in text
    assert not (tmp_path / CELL / "lines/between.parquet").exists()
