"""Stored solutions rebuild their own model, or say why not."""

import contextlib

import pytest
import torch
from conftest import ROOT, fill_defaults, load_config
from valleys.config.experiment import Experiment
from valleys.config.params import Params
from valleys.config.versions import VERSIONS
from valleys.data.cache import save_split
from valleys.data.split import Split
from valleys.errors import ValleysError
from valleys.execution import forkserver_client
from valleys.models import solutions
from valleys.models.options import validate_spec
from valleys.storage import files
from valleys.storage.weights import checksum, relabel, save_weights
from valleys.training import trainer

SPEC = validate_spec({"arch": "resnet8", "width": 2, "norm": "batch"})
ABOUT = {"model": SPEC, "in_shape": (1, 8, 8), "classes": 3, "solution": "sgd"}


def fresh(seed=0, **spec):
    return solutions.fresh({**SPEC, **spec}, (1, 8, 8), 3, seed=seed)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_a_solution_comes_back_as_it_was(tmp_path):
    model = fresh().train()
    with torch.no_grad():
        model(torch.randn(16, 1, 8, 8))  # running statistics of their own
    solutions.save(tmp_path / "w", model.state_dict(), ABOUT, iterates=40)
    loaded, about = solutions.load(tmp_path / "w")
    assert equal(loaded.state_dict(), model.state_dict())
    assert not loaded.training
    assert loaded.stem.weight.is_contiguous(memory_format=torch.channels_last)
    images = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(images), model.eval()(images))
    assert about.pop("checksum") == checksum(model.state_dict())
    assert about == {**ABOUT, "in_shape": [1, 8, 8], "iterates": 40}


def test_what_came_with_one_solution_goes_on_to_the_next(tmp_path):
    solutions.save(tmp_path / "one", fresh(0).state_dict(), ABOUT)
    _, about = solutions.load(tmp_path / "one")
    other = fresh(1).state_dict()
    solutions.save(tmp_path / "two", other, about, solution="swa")
    _, found = solutions.load(tmp_path / "two")
    assert found["solution"] == "swa"
    assert found["checksum"] == checksum(other) != about["checksum"]


def test_one_seed_is_one_set_of_initial_weights():
    torch.manual_seed(1)
    one = fresh(5)
    torch.manual_seed(2)
    assert equal(one.state_dict(), fresh(5).state_dict())
    assert not equal(one.state_dict(), fresh(6).state_dict())
    torch.manual_seed(3)
    free = solutions.fresh(SPEC, (1, 8, 8), 3)
    torch.manual_seed(3)
    assert equal(free.state_dict(), solutions.fresh(SPEC, (1, 8, 8), 3).state_dict())


def test_weights_that_say_nothing_of_their_model_are_an_error(tmp_path):
    save_weights(tmp_path / "w", fresh().state_dict(), {"model": SPEC})
    with pytest.raises(ValleysError, match="has no in_shape, classes in its header"):
        solutions.load(tmp_path / "w")


@pytest.mark.parametrize("other", [{"width": 4}, {"norm": "none"}])
def test_weights_of_another_model_are_an_error(tmp_path, other):
    solutions.save(tmp_path / "w", fresh(**other).state_dict(), ABOUT)
    with pytest.raises(ValleysError, match="does not fit its model") as caught:
        solutions.load(tmp_path / "w")
    assert str(tmp_path / "w") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_an_error(tmp_path):
    path = tmp_path / "w"
    solutions.save(path, fresh().state_dict(), ABOUT)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValleysError, match="truncated or corrupt"):
        solutions.load(path)


# --- the key of resumable state: what each stage reads, and nothing else ---

PATH = {"start": "swa", "stop": "descent", "path": "bezier", "bn": "refreshed"}
WORLD = {"train": 0, "test": 0, "std": 0.3, "classes": 3, "code": None, "weights": 0, "threads": 1, "seed": 0}
WORLD |= {"version": 0}
#: One input each: what it is changed to, in the world of a job or at a path of its config.
INPUTS = {
    "train images": {"train": 1},
    "test images": {"test": 1},
    "normalisation": {"std": 0.4},
    "classes": {"classes": 4},
    "code of the network": {"code": "f00d"},
    "weights": {"weights": 7},
    "threads": {"threads": 2},
    "version of the stage": {"version": 1},
    "seed": {"seed": 1},
    "network": {"models.mlp.activation": "tanh"},
    "loss": {"recipes.quick.loss.name": "mse"},
    "precision of training": {"recipes.quick.precision": "bf16"},
    "learning rate": {"recipes.quick.lr": 0.2},
    "rate of averaging": {"recipes.quick.swa.lr": 0.2},
    "descent": {"recipes.quick.descent.lr": 0.2},
    "cooldown": {"recipes.quick.cooldown.lr": 0.2},
    "batch size": {"recipes.quick.batch_size": 10},
    "refresh": {"bn_refresh.method": "streaming"},
    "images at a time": {"bn_refresh.batch_size": 10},
    "points": {"probes.uniform.points": 31},
    "precision of a probe": {"probes.uniform.precision": "bf16"},
    "images of a probe": {"probes.uniform.train_images": 10},
    "steps of a search": {"probes.s.search.steps": 9},
    "rise of a search": {"probes.s.rise": 2.0},
    "bends": {"lines.p.bends": 2},
    "grid": {"planes.solutions.points": 7},
    "images of a plane": {"planes.solutions.test_images": 10},
    "compiled": {"execution.compile": True},
    "more directions": {"probes.uniform.n": 3},
    "more searches": {"probes.s.n": 2},
    "searches at another solution": {"probes.s.solutions": ["sgd", "descent"]},
    "constants of the verdict": {"asymmetry.c": 3},
    "averaging window": {"recipes.quick.swa.window": 2},
    "style": {"figures.dpi": 99},
    "checkpoints": {"execution.checkpoint_every": 1},
    "where images are": {"execution.resident_mb": 0},
    "kept iterates": {"execution.keep": "window"},
}
DATA = {"train images", "test images", "normalisation", "classes"}
NETWORK = {"network", "code of the network", "threads", "version of the stage"}
TRAINED = {"loss", "precision of training", "batch size", "seed"}
PASSES = {"loss", "refresh", "images at a time"}
KEYED = {
    "train_sgd": DATA | NETWORK | TRAINED | {"learning rate", "rate of averaging", "compiled"},
    "cooldown": DATA | NETWORK | TRAINED | {"weights", "rate of averaging", "cooldown", "compiled"},
    "descend": DATA | NETWORK | TRAINED | {"weights", "descent", "compiled", "refresh", "images at a time"},
    "connect": (DATA | NETWORK | TRAINED | {"weights", "rate of averaging", "bends"}) - {"test images"},
    # The seed is in the folder that the state lies in.
    "probe": DATA | NETWORK | PASSES
    | {"weights", "points", "precision of a probe", "images of a probe", "compiled"},
    "search_directions": DATA | NETWORK | PASSES
    | {"weights", "steps of a search", "rise of a search", "constants of the verdict", "compiled"},
    "plane": DATA | NETWORK | PASSES | {"weights", "grid", "images of a plane"},
}  # fmt: skip


class Bag(dict):
    """What Snakemake gives a script: names to values, as attributes too."""

    __getattr__ = dict.__getitem__


def key_of(stage, folder, monkeypatch, **changes):
    """The key of a stage's state, from its own script: run until it asks where its state is."""
    world = {key: changes.pop(key, value) for key, value in WORLD.items()}
    raw = {**load_config("config/smoke.yaml"), "seeds": [0, 1]}
    raw["lines"] = {"p": dict(PATH)}
    raw["probes"]["s"] = {"kind": "searched", "points": 21, "solutions": ["sgd"]}
    for path, value in changes.items():
        *way, last = path.split(".")
        at = raw
        for step in way:
            at = at.setdefault(step, {})
        at[last] = value
    config = fill_defaults(raw)
    with monkeypatch.context() as patch:
        patch.setitem(VERSIONS, stage, VERSIONS[stage] + world["version"])
        experiment = Experiment(config)
        cell = next(cell for cell in experiment.cells if cell.seed == world["seed"])
        spec = {
            "train_sgd": lambda: Params(experiment).train_sgd(cell.model, cell.recipe, cell.seed),
            "cooldown": lambda: Params(experiment).cooldown(cell.recipe, cell.seed),
            "descend": lambda: Params(experiment).descend(cell.recipe, cell.seed),
            "connect": lambda: Params(experiment).connect(cell, "p"),
            "probe": lambda: Params(experiment).probe(cell, "uniform"),
            "search_directions": lambda: Params(experiment).search_directions(cell, "s"),
            "plane": lambda: Params(experiment).plane(cell.recipe, "solutions"),
        }[stage]()
    code = {"code": world["code"]} if world["code"] else {}
    spec |= code if stage == "train_sgd" else {}
    for part in ("train", "test"):
        generator = torch.Generator().manual_seed(world[part])
        images = torch.randint(0, 256, (20, 1, 4, 4), dtype=torch.uint8, generator=generator)
        split = Split(images, torch.arange(20) % 3, world["classes"], (0.5,), (world["std"],))
        save_split(folder / f"{part}.safetensors", split)
    model = experiment.models["mlp"]
    about = {"model": model, "in_shape": (1, 4, 4), "classes": world["classes"], "cell": cell.path, **code}
    given = Bag({part: str(folder / f"{part}.safetensors") for part in ("train", "test")}, solutions=[])
    for i, name in enumerate(("sgd", "swa", "descent")):
        net = solutions.fresh(model, (1, 4, 4), world["classes"], seed=world["weights"] + i)
        about |= {"solution": name, "iterates": 0, "bn_policy": "stored"}  # and not checked for it
        solutions.save(folder / f"{name}.safetensors", net.state_dict(), about)
        given.solutions.append(str(folder / f"{name}.safetensors"))
    given |= {"swa": given.solutions[1], "start": given.solutions[1], "stop": given.solutions[2]}
    if stage == "train_sgd":
        del given["start"]
    words = ("table", "weights", "bends", "curves", "planes", "searches", "search_curves")
    fake = Bag(
        input=given, params=Bag(spec=spec), config=config, threads=world["threads"], rule=stage,
        output=Bag({word: str(folder / "a" / "b" / "c" / word) for word in words}), log=[folder / "log"],
        wildcards=Bag(cell.columns(), line="p", plane="solutions", bundle="uniform", probe="s"),
    )  # fmt: skip
    found = []

    class Enough(Exception):
        pass

    def stop(cell, stage, key):
        found.append(files.fingerprint(key))
        raise Enough

    threads = torch.get_num_threads()
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "state_folder", stop)
        patch.delenv(forkserver_client.VARIABLE, raising=False)
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            patch.setenv(variable, "1")
        script = ROOT / "workflow" / "scripts" / f"{stage}.py"
        with contextlib.suppress(Enough):
            exec(compile(script.read_text(), str(script), "exec"), {"snakemake": fake})
    torch.set_num_threads(threads)
    return found[0]


def test_every_stage_with_state_is_listed():
    scripts = (ROOT / "workflow" / "scripts").glob("*.py")
    assert {path.stem for path in scripts if "state_folder(" in path.read_text()} == set(KEYED)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("stage", KEYED)
def test_a_stage_resumes_from_state_of_the_same_inputs_alone(stage, tmp_path, monkeypatch):
    before = key_of(stage, tmp_path, monkeypatch)
    assert key_of(stage, tmp_path, monkeypatch) == before
    # A plane is evaluated before its key is made, which compiled networks take a C++ compiler for.
    tried = {name: change for name, change in INPUTS.items() if (stage, name) != ("plane", "compiled")}
    changed = {n for n, change in tried.items() if key_of(stage, tmp_path, monkeypatch, **change) != before}
    assert changed == KEYED[stage]


def test_training_that_starts_from_weights_goes_by_them(tmp_path, monkeypatch):
    one = {**ABOUT, "checksum": "a"}
    keys = {
        files.fingerprint(solutions.state_key({}, [{**one, **more}], [], "cpu"))
        for more in ({}, {"checksum": "b"}, {"model": {}}, {"code": "c"}, {"in_shape": [1]}, {"classes": 9})
    }
    assert len(keys) == 6
    assert files.fingerprint(solutions.state_key({}, [{**one, "iterates": 3}], [], "cpu")) in keys


def test_weights_given_carry_the_code_of_their_network(tmp_path):
    solutions.save(tmp_path / "one", fresh().state_dict(), {**ABOUT, "code": "f00d"})
    _, about = solutions.load(tmp_path / "one")
    solutions.save(tmp_path / "two", fresh().state_dict(), about, solution="swa")
    relabel(tmp_path / "two", tmp_path / "three", bn_policy="none")
    assert solutions.identity(solutions.load(tmp_path / "three")[1])["code"] == "f00d"
