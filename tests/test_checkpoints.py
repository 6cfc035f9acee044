"""Weights from elsewhere: read as tensors only, fitted to a model, or refused in one line."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from valleys import averaging, checkpoints, solutions, tables
from valleys.data import Split
from valleys.errors import ValleysError
from workflow_runs import planned, snakemake

SPEC = {"arch": "mlp", "hidden": [16], "norm": "batch"}


def network(seed=0, spec=SPEC):
    model = solutions.fresh(spec, (1, 8, 8), 10, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (50, 1, 8, 8), generator=generator).to(torch.uint8)
    split = Split(images, torch.zeros(50, dtype=torch.int64), 10, (0.5,), (0.25,))
    averaging.refresh_bn(model, split.batches(50))  # statistics that are not those of a fresh layer
    return model.eval()


def same(model, state):
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


class Averaged(nn.Module):
    """What torch.optim.swa_utils.AveragedModel's state dict looks like."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.register_buffer("n_averaged", torch.tensor(3))


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda model: model.state_dict(),
        lambda model: {"epoch": 3, "state_dict": model.state_dict()},
        lambda model: {"model": model.state_dict(), "optimizer": {"lr": 0.1}},
        lambda model: nn.DataParallel(model).state_dict(),
        lambda model: {"net": {f"module._orig_mod.{k}": v for k, v in model.state_dict().items()}},
        lambda model: Averaged(model).state_dict(),
    ],
)
def test_what_training_scripts_save(tmp_path, wrapped):
    model, other = network(0), network(1)
    torch.save(wrapped(model), tmp_path / "last.pt")
    checkpoints.fit(other, checkpoints.read(tmp_path / "last.pt"), "last.pt")
    assert same(other, model.state_dict())


def test_safetensors_and_other_types(tmp_path):
    model, other = network(0), network(1)
    half = {n: t.half() if t.is_floating_point() else t for n, t in model.state_dict().items()}
    half = {n: t for n, t in half.items() if not n.endswith("num_batches_tracked")}
    save_file(half, tmp_path / "w.safetensors")
    checkpoints.fit(other, checkpoints.read(tmp_path / "w.safetensors"), "w")
    assert {p.dtype for p in other.parameters()} == {torch.float32}
    for name, tensor in half.items():
        assert torch.equal(other.state_dict()[name], tensor.float() if tensor.is_floating_point() else tensor)


class Bomb:
    """Runs a command when it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_a_pickle_that_runs_code_is_refused(tmp_path, protocol):
    mark, path = tmp_path / "mark", tmp_path / "evil.pt"
    found = {"state_dict": network().state_dict(), "extra": Bomb(mark)}
    if protocol == "torch":
        torch.save(found, path)
    else:
        path.write_bytes(pickle.dumps(found))
    with pytest.raises(ValleysError, match="convert it where you trust it"):
        checkpoints.read(path)
    assert not mark.exists()


def test_a_whole_model_is_refused_with_the_way_to_convert_it(tmp_path):
    torch.save(network(), tmp_path / "model.pt")
    with pytest.raises(ValleysError, match=r"model\.pt holds more than tensors.*state_dict\(\)"):
        checkpoints.read(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "cannot be read|holds more"),
        (b"not a checkpoint at all", "cannot be read|holds more"),
        ({"epoch": 3, "lr": 0.1}, "is no state dict and has none under state_dict.* it holds 'epoch', 'lr'"),
        ([torch.zeros(3)], "it holds list"),
    ],
)
def test_files_that_are_no_checkpoint(tmp_path, content, message):
    path = tmp_path / "x.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValleysError, match=message) as error:
        checkpoints.read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_cut_safetensors_file(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValleysError, match="no whole safetensors file"):
        checkpoints.read(path)


def test_another_architecture_is_named_by_its_first_differences():
    state = network(spec={**SPEC, "hidden": [16, 8]}).state_dict()
    with pytest.raises(
        ValleysError, match=r"mine\.pt does not fit the model: it has beside.* and 3 more and has"
    ):
        checkpoints.fit(network(), state, "mine.pt")
    state = network(spec={**SPEC, "hidden": [17]}).state_dict()
    with pytest.raises(ValleysError, match=r"has .*\(17, 64\) for \(16, 64\)"):
        checkpoints.fit(network(), state, "mine.pt")
    state = {"a": torch.zeros(1)}
    with pytest.raises(ValleysError, match=r"lacks .* and 4 more and has beside the model's a$"):
        checkpoints.fit(network(), state, "mine.pt")


def test_values_must_be_finite():
    state = network().state_dict()
    name = next(iter(state))
    state[name][0] = float("nan")
    with pytest.raises(ValleysError, match=f"{name} has values that are not finite"):
        checkpoints.fit(network(), state, "mine.pt")


# In the workflow ------------------------------------------------------------------------------------

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
    "theory": {"chains": 100, "burn_in": 10, "iterates": 10, "draws": 100, "rates": [0.1], "levels": [0.5]},
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
    assert not found["claims"]["claim"].str.startswith("swa_").any()  # there is no descent
    model, header = solutions.load(finished / "results/own/cells/digits/mlp/mine/seed-1/sgd.safetensors")
    assert same(model, network(1).state_dict())
    assert header["solution"] == "sgd"
    assert (finished / "results/own/report.html").exists()
    assert planned(finished, CONFIG) == {}


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
    assert "digits/mlp/named at last.1/all" in set(
        found["claims"].loc[found["claims"]["claim"] == "matching_signs_flattens", "scope"]
    )
    assert "named at append" in (finished / "results/own/report.html").read_text()


def test_another_file_at_the_path_is_imported_again(finished):
    path = finished / "w/one.pt"
    torch.save(network(6).state_dict(), path)
    rules = planned(finished, CONFIG)
    assert rules["import_solution"] == 1
    assert rules["probe"] == 3
    assert not {"train_sgd", "prepare_dataset", "average"} & set(rules)


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
