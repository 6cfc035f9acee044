# ruff: noqa: E501 (tables of choices)
"""Random configs that the schema accepts: small runs of odd but legal combinations.

    python tests/config_generator.py --plan 200 --run 20 --seed 0 [--out FOLDER]

draws configs number 0 to 199 of seed 0, checks each, has Snakemake build the graph of its jobs, and runs the first
20 whole: to the report, then ``claims``, ``compare``, ``plan``, and a dry run that must have nothing to do. Each
refusal must be one line; what that names is taken back, until the rest is accepted. Each config lies in a folder
of its own with the files it names; those that fail are listed.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow" / "scripts"), str(ROOT / "tests")]

NETS = """
import torch
from torch import nn

def build(classes, in_shape, width=4, act="relu", deep=None, opts=None):
    size = in_shape[0] * in_shape[1] * in_shape[2]
    norm = nn.BatchNorm1d(width, **(opts or {}))
    body = [nn.Linear(size, width), norm, nn.ReLU() if act == "relu" else nn.Tanh()]
    sizes = [width, *(deep or [])]
    body += [nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])]
    return nn.Sequential(nn.Flatten(), *body, nn.Linear(sizes[-1], classes))

def images(n=60):
    import numpy as np
    draw = np.random.default_rng(0)
    return tuple((draw.integers(0, 256, (n, 6, 6), dtype=np.uint8), np.arange(n) % 3) for _ in range(2))
"""

Block = dict[str, Any]
OPTS: list[Any] = [{"eps": 0.1}, {"affine": False, "momentum": None}, {}, None]


class Generator:
    """Draws configs; `files` are the given weights that the last one names: path to (model, data set)."""

    def __init__(self, seed: int | str) -> None:
        self.r = random.Random(f"config {seed}")  # by text: the same on every machine

    # --- choices

    def some(self, items: list[Any], least: int = 1, most: int | None = None) -> list[Any]:
        """A few of some items, in a random order."""
        most = min(len(items), most or len(items))
        return self.r.sample(items, self.r.randint(min(least, most), most))

    def maybe(self, block: Block, key: str, *values: Any, p: float = 0.3) -> None:
        """Set a key to one of some values, now and then."""
        if self.r.random() < p:
            block[key] = self.r.choice(values)

    def name(self, *names: str) -> str:
        """One of some names, at times an odd one."""
        odd = ["A.b", "0", "1.5", "x--y", "null", "True", "all-1", "e1", "lr-0.1", "sgd2"]
        return self.r.choice(names) if self.r.random() < 0.85 else self.r.choice(odd)

    # --- blocks

    def config(self) -> Block:
        """A config without defaults."""
        r = self.r
        self.datasets = dict(self.dataset() for _ in range(r.choice([1, 1, 1, 2])))
        self.models = dict(self.model() for _ in range(r.choice([1, 1, 2, 2, 3])))
        self.recipes: Block = {}
        for _ in range(r.choice([1, 1, 2, 3])):
            name = self.name("quick", "slow", "big.batch", "r")
            self.recipes.setdefault(name, self.recipe())
        config: Block = {"name": self.name("run", "a.b-c_d"), "seeds": self.seeds()}
        config |= {"datasets": self.datasets, "models": self.models, "recipes": self.recipes}
        self.checkpoints = dict([self.given()] if r.random() < 0.25 else [])
        self.solutions = ["sgd", "swa", "descent"]
        for block in self.checkpoints.values():
            self.solutions += [name for name in block["solutions"] if name not in self.solutions]
        self.probes = dict(self.probe() for _ in range(r.choice([0, 1, 1, 2, 2, 3])))
        self.lines = dict(self.line() for _ in range(r.choice([0, 0, 1, 1, 2])))
        config |= {"probes": self.probes, "lines": self.lines}
        config["planes"] = dict(self.plane() for _ in range(r.choice([0, 0, 1, 2])))
        config["grid"] = [self.entry() for _ in range(r.choice([1, 1, 1, 2]))]
        if r.random() < 0.6:
            config["studies"] = dict(self.study() for _ in range(r.choice([1, 1, 2])))
        if self.checkpoints:
            config["checkpoints"] = self.checkpoints
        config["bn_refresh"] = self.keys(method=["exact", "streaming"], batch_size=[2, 50, 1000])
        config["asymmetry"] = self.keys(
            p=0.15,
            c=[1.5, 4],
            zeta_max=[0.25, 0.5],
            minimum_within=[0.1],
            min_span=[0.1, 0.5],
            noise=[0, 1e-4],
        )
        config["toy_2d"] = {"n_draws": r.choice([1, 3]), "surface_points": 5} | self.keys(
            step=[0.25, 1.0],
            n_per_class=[1, 5],
            seed=[7],
            lr=[0.001, 1],
            epochs=[1, 3],
            reach=[2.0, 7.5],
            angles=[1, 9],
            rises=[[2], [0.1, 30]],
            points=[9, 21],
            floor=[0, 1],
        )
        config["theory"] = {
            "chains": 50,
            "burn_in": r.choice([0, 10]),
            "iterates": r.choice([1, 20]),
            "draws": 50,
        }
        config["theory"] |= self.keys(
            shapes=[["linear"], ["softplus", "quadratic"]], ratios=[[1], [1, 4], [3]], rates=[[0.06], [0.05, 0.01]],
            noises=[["uniform"], ["rademacher"]], levels=[[0.5], [4, 1]], scales=[[2], [0.001]], biases=[[1], [0.5, 3]],
            slope=[0.1, 0.9], width=[0.01, 3], shifts=[["rademacher"]],
        )  # fmt: skip
        config["claims"] = self.keys(alpha=[0.01, 0.9], level=[0.5, 0.99], barrier=[1e-6, 5])
        config["figures"] = self.keys(
            dpi=[50, 72], width=[2, 3.5, 12], palette=["Dark2", "tableau-colorblind10"], font_size=[1, 5, 14],
            font=["serif", "sans-serif", "DejaVu Serif"], format=["pdf", "svg"],
        )  # fmt: skip
        config["execution"] = {"checkpoint_every": r.choice([1, 2, 10])} | self.keys(
            keep=["all", "window", "none"], probe_jobs=["together"], fork_server=[False], resident_mb=[0, 1e-3],
            max_runtime=[1, 600], cpu_speed=[0.1, 8], device=["cpu"], p=0.4,
        )  # fmt: skip
        config = copy.deepcopy(config)
        if r.random() < 0.3:
            config = {key: value for key, value in config.items() if value not in ({}, [])}
        return config

    def keys(self, p: float = 0.3, **values: list[Any]) -> Block:
        """Some keys, each with one of its values."""
        block: Block = {}
        for key, choices in values.items():
            self.maybe(block, key, *choices, p=p)
        return block

    def seeds(self) -> list[int]:
        """Seeds: few, and at times large."""
        return self.r.choice([[0], [0], [1, 0], [0, 1, 2], [5, 3], [2**53 - 1, 0], [2**31]])

    def dataset(self) -> tuple[str, Block]:
        """Digits, or what is made on the fly."""
        block: Block = {"source": self.r.choice(["digits"] * 6 + ["numpy", "callable", "image_folder"])}
        if block["source"] == "digits":
            block["train_size"] = self.r.choice([40, 60, 101])
            block["max_test"] = self.r.choice([1, 30, 50])
            block |= self.keys(split_seed=[3], classes=[10, 12])
        elif block["source"] == "numpy":
            block |= {
                "train": "data/train.npz",
                "test": "data/*.npz" if self.r.random() < 0.1 else "data/test.npz",
            }
        elif block["source"] == "image_folder":
            block |= {"train": "data/seen", "test": "data/unseen", "size": self.r.choice([5, 8])}
            self.maybe(block, "grayscale", True)
        else:
            block |= {"factory": "own_nets:images", "kwargs": self.keys(n=[40, 90])}
            self.maybe(block, "files", "own_nets.py", ["own_nets.py"])
        block |= self.keys(p=0.15, max_train=[30, 1000], subset_seed=[4], mean=[[0.5]], std=[[0.25]])
        block |= self.keys(p=0.15, split=["by_seed", "fixed"], label_noise=[0.1, 0.5])
        return self.name("digits", "d-2"), block

    def model(self) -> tuple[str, Block]:
        """A small network."""
        r = self.r
        kind = r.choice(["mlp", "mlp", "mlp", "resnet8", "factory"])
        if kind == "factory":
            kwargs = self.keys(width=[2, 5], act=["relu", "tanh"], deep=[[3], [4, 2], None], opts=OPTS)
            return self.name("own", "net"), {"factory": "own_nets:build", "kwargs": kwargs}
        block: Block = {"arch": kind} | self.keys(
            norm=["batch", "batch", "group", "layer", "none"], groups=[1, 2, 32], norm_init=["uniform", "gaussian"],
            activation=["relu", "gelu", "tanh", "sigmoid", "softplus", "silu"], p=0.5,
        )  # fmt: skip
        block |= (
            self.keys(hidden=[[8], [4, 4], [], [1]])
            if kind == "mlp"
            else self.keys(width=[1, 2, 4], skip=[False])
        )
        return self.name("mlp", "small", "m"), block

    def recipe(self) -> Block:
        """How to train, for an epoch or a few."""
        r = self.r
        epochs = r.choice([1, 2, 3, 4, 5])
        block: Block = {"epochs": epochs, "lr": r.choice([0.1, 0.05, 1e-3, 1e-3, 3.0])}
        block["swa"] = {"start": r.choice([0, 0, r.randrange(epochs)]), "lr": r.choice([0.05, 1e-3])}
        block["swa"] |= self.keys(p=0.25, every=[1, 2], window=[1, 2, None])
        block |= self.keys(
            batch_size=[1, 7, 16, 50, 10**6], momentum=[0, 0.5], nesterov=[True], weight_decay=[0, 0.01],
            precision=["bf16"], eval_every=[1, 2, 100],
        )  # fmt: skip
        loss = self.keys(
            name=["cross_entropy", "label_smoothing", "mse", "focal"], smoothing=[0, 0.3, 1], gamma=[0, 1.5]
        )
        augment = self.keys(shift=[1, 3, 20], flip=[True], pad_mode=["reflect", "zero"])
        descent = {"epochs": 1} | self.keys(lr=[0.01, 1e-4], momentum=[0])
        block |= {key: value for key, value in (("loss", loss), ("augment", augment)) if value}
        block["descent"] = descent
        if self.recipes and r.random() < 0.5:
            block["start_from"] = {"recipe": r.choice(list(self.recipes))}
            self.maybe(block["start_from"], "solution", "swa", "descent", "sgd")
        return block

    def given(self) -> tuple[str, Block]:
        """Weights made on the fly; one that a network has not may be found at the end of a run."""
        names = self.some(["sgd", "swa", "descent", "theirs", "v1.0", "ema"], most=3)
        path = self.r.choice(
            [
                "given/{model}-{dataset}.%s.pt",
                "given/{dataset} {model} {seed} %s.safetensors",
                "given/{model}{dataset}.ckpt#%s",
            ]
        )
        block: Block = {"solutions": {name: path % name for name in names}} | self.keys(
            bn=["refreshed", "stored"]
        )
        return self.name("given", "hub"), block

    def chosen(self) -> list[str]:
        """Names of solutions."""
        return self.some(self.solutions, most=3)

    def probe(self) -> tuple[str, Block]:
        """Directions of any kind with any options."""
        from valleys.landscape.kinds import GROUPS, KINDS

        block: Block = {"kind": self.r.choice([*KINDS, "uniform", "gaussian", "sign"])}
        block |= {"n": self.r.choice([1, 2, 3]), "points": self.r.choice([9, 11, 21])}
        block |= self.keys(
            group=[*GROUPS, "layer:0", "layer:fc"], share=[0, 1, 0.3], solutions=[self.chosen(), self.chosen()],
            adaptive=[True, True, False], rise=[0.01, 10], bn=["frozen"], precision=["bf16"],
            slopes=["exact"], train_images=[1, 2, 20, 10**6], test_images=[1, 20], relative_to=["group"],
        )  # fmt: skip
        if block["kind"] == "searched":
            block["search"] = {"steps": self.r.choice([1, 3])} | self.keys(
                seek=["symmetric", "flat"], restarts=[1, 2], floor=[0.001, 0.5]
            )
        if self.r.random() < 0.5:
            block |= self.r.choice([{"radius": 1.0}, {"relative": 0.1}, {"radius": 1e6}, {"relative": 1e-6}])
        return self.name("uniform", "p2", "far-out"), block

    def line(self) -> tuple[str, Block]:
        """A line or a trained path."""
        block: Block = {"start": self.r.choice(self.solutions), "stop": self.r.choice(self.solutions)}
        block |= {"divisions": self.r.choice([1, 2, 5]), "epochs": 1}
        block |= self.keys(
            stop_recipe=[*self.recipes, *self.checkpoints], stop_seed=["next", "own"], path=["bezier", "chain"],
            bends=[1, 3], lr=[0.01], bn=["frozen"], train_images=[2, 20], test_images=[1],
        )  # fmt: skip
        if "path" not in block:
            block |= self.keys(first=[0, -0.5], last=[1, 1.75])
        return self.name("line", "a-b", "tunnel"), block

    def plane(self) -> tuple[str, Block]:
        """A plane of any kind."""
        block: Block = {"points": self.r.choice([3, 4])}
        if self.probes and self.r.random() < 0.4:
            chosen = [f"{self.r.choice(list(self.probes))}/{k}" for k in (0, self.r.choice([0, 1]))]
            block |= {"span": chosen, "at": self.r.choice(self.solutions)}
        elif self.r.random() < 0.5:
            block["pca"] = True
        else:
            block["through"] = self.some(self.solutions, least=3, most=3)
        block |= self.keys(
            margin=[0, 2], bn=["frozen"], precision=["bf16"], train_images=[20], test_images=[1], seeds=[1, 2],
            relative=[1e-3],
        )  # fmt: skip
        return self.name("plane", "xy"), block

    def one_or_more(self, names: Block) -> Any:
        """A name, or a list of names."""
        return self.some(list(names)) if self.r.random() < 0.5 else self.r.choice(list(names))

    def entry(self) -> Block:
        """An entry of the grid."""
        names = {"dataset": self.datasets, "model": self.models, "recipe": self.recipes | self.checkpoints}
        block: Block = {key: self.one_or_more(known) for key, known in names.items()}
        return block | self.keys(
            p=0.2,
            seeds=[self.seeds()],
            probes=[self.some(list(self.probes), 0)],
            lines=[self.some(list(self.lines), 0)],
            solutions=[self.chosen()],
        )

    def study(self) -> tuple[str, Block]:
        """A study of any design, its factors keys of the model, the recipe, or names."""
        r = self.r
        model, recipe = r.choice(list(self.models)), r.choice(list(self.recipes))
        block: Block = {"dataset": r.choice(list(self.datasets)), "model": model, "recipe": recipe}
        factors: Block = {
            "recipe.lr": [0.1, 0.02], "recipe.swa.lr": [0.05, 0.02, 1], "recipe.descent.lr": [0.02],
            "recipe.loss.name": ["mse", "cross_entropy"], "recipe.weight_decay": [0, 0.1], "recipe.batch_size": [20, 50],
            "recipe.augment.flip": [True, False], "recipe.augment": [{"flip": True, "shift": 1}, {}],
            "recipe.momentum": [0.9, 0], "recipe.precision": ["bf16", "fp32"], "recipe.epochs": [5, 6],
            "recipe.loss": [{"name": "mse"}, {"name": "focal", "gamma": 1}], "recipe.swa.window": [1, None], "recipe.nesterov": [True, False],
            "recipe.descent": [{"epochs": 1}, {"epochs": 2, "lr": 0.1}], "recipe.swa": [{"start": 0, "lr": 0.01}],
            "dataset": list(self.datasets), "model": list(self.models), "recipe": list(self.recipes),
        }  # fmt: skip
        if "arch" in self.models[model]:
            factors |= {"model.norm": ["batch", "none"], "model.activation": ["relu", "tanh", "softplus"]}
            factors |= (
                {"model.hidden": [[4], [3, 3]]}
                if self.models[model]["arch"] == "mlp"
                else {"model.width": [1, 2]}
            )
        for key in self.models[model].get("kwargs", {}):
            factors[f"model.kwargs.{key}"] = {
                "width": [2, 3],
                "act": ["tanh", "relu", None, False, "no", "1", 1.5],
                "deep": [[2], [3, 2], None],
                "opts": OPTS,
            }[key]
        names = self.some(list(factors), 0, 3)
        block["factors"] = {name: factors[name] for name in names}
        block["design"] = r.choice(["one_at_a_time", "full", "sample"])
        if block["design"] == "sample":
            block["runs"] = r.choice([1, 3])
        else:
            self.maybe(block, "seeds", [0], [7, 1])
        block |= self.keys(
            probes=[self.some(list(self.probes), 0)], lines=[self.some(list(self.lines), 0)], penalty=[True],
            solutions=[["swa"], ["sgd", "swa", "descent"], ["descent", "swa"]],
        )  # fmt: skip
        return r.choice(["study_a", "basin", "weight_decay", "bn", "x"]), block


# --- one config after the other -----------------------------------------------------------------------------


def draw(seed: int, i: int) -> Block:
    """The config of a number, as it is drawn: more often than not, something in it is refused."""
    return Generator(f"{seed}/{i}").config()


def settle(config: Block) -> tuple[Block | None, list[str]]:
    """Check a config, and take back what is refused until all is accepted.

    Returns the accepted rest, None where there is none, and the lines of refusal.
    """
    config, lines = copy.deepcopy(config), []
    for _ in range(30):
        line = refused(config)
        if line is None:
            return config, lines
        lines.append(line)
        if not take_back(config, line):
            break
    return None, lines


def take_back(config: Block, line: str) -> bool:
    """Remove the key that a line names, or its whole block; return whether there is such."""
    named = line.removeprefix("config: ").split(" ")[0].removesuffix(":")
    at, way = config, []
    while True:  # names may have dots in them
        keys = range(len(at)) if isinstance(at, list) else at if isinstance(at, dict) else ()
        found = [key for key in keys if f"{named}.".startswith(f"{key}.")]
        if not found:
            break
        key = max(found, key=lambda key: len(str(key)))
        way.append((at, key))
        at, named = at[key], named[len(str(key)) + 1 :]
    if not way or (len(way) == 1 and way[0][1] not in ("studies", "asymmetry")):
        return config.pop("studies", None) is not None  # its variant of a recipe or model is named
    at, key = way[min(1, len(way) - 1)] if way[0][1] in ("probes", "lines", "planes", "studies") else way[-1]
    del at[key]
    return True


def refused(config: Block) -> str | None:
    """Check a config in every way that a plan does; return the line that refuses it, None where none does."""
    from valleys.config import outputs
    from valleys.config.experiment import Experiment
    from valleys.config.params import Params
    from valleys.config.schema import check, with_defaults
    from valleys.costs.jobs import Costs
    from valleys.errors import ValleysError

    try:
        check(config)
        experiment = Experiment(with_defaults(copy.deepcopy(config)))
    except ValleysError as error:
        return str(error)
    costs, params = Costs(experiment), Params(experiment)
    for rule, wildcards in jobs_of(experiment):
        cost = costs(rule, wildcards)
        assert cost.seconds > 0, (rule, wildcards)
        assert cost.memory_mb > 0, (rule, wildcards)
        assert costs.runtime(rule, wildcards) >= 1
    for name in (*outputs.figures(experiment), *outputs.tables(experiment)):
        json.dumps(params.figure(name) if name in outputs.figures(experiment) else name)
    for study in experiment.studies:
        json.dumps([params.study(study), params.provenance(study)])
    json.dumps(params.results())
    return None


def jobs_of(experiment: Any) -> list[tuple[str, Block]]:
    """The jobs of the cells of an experiment, as rule and wildcards."""
    found: list[tuple[str, Block]] = [
        (rule, {}) for rule in ("toy_2d", "simulate_theory", "claims", "report")
    ]
    found += [("prepare_dataset", {"dataset": dataset}) for dataset in experiment.datasets]
    for cell in experiment.trained_cells:
        names = {**cell.columns(), "seed": str(cell.seed)}
        if experiment.differs_by_seed(cell.dataset):
            found += [("split_dataset", {"dataset": cell.dataset, "seed": names["seed"]})]
        given = experiment.from_checkpoints(cell.recipe)
        rules = ["import_solution"] if given else ["train_sgd", "average", "refresh_bn", "descend"]
        found += [(rule, {**names, "solution": "sgd"}) for rule in rules]
        found += [("probe", {**names, "bundle": bundle}) for bundle in experiment.bundles_of(cell)]
        found += [
            ("search_directions" if experiment.is_searched(p) else "directions", {**names, "probe": p})
            for p in experiment.probes_of(cell)
            if experiment.is_computed(p)
        ]
        found += [("interpolate", {**names, "line": line}) for line in experiment.lines_of(cell)]
        found += [
            ("connect", {**names, "line": line})
            for line in experiment.lines_of(cell)
            if experiment.is_trained(line)
        ]
        found += [("plane", {**names, "plane": plane}) for plane in experiment.planes_of(cell)]
        found += [
            (rule, names) for rule in ("evaluate", "detect", "measure_gain") if cell in experiment.wanted
        ]
    return found


def lay_out(folder: Path) -> None:
    """Write the files to a folder that a config may name; not the weights (`give_weights`)."""
    import numpy as np
    from PIL import Image

    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "own_nets.py").write_text(NETS)
    rng = np.random.default_rng(0)
    for part, n in (("train", 50), ("test", 20)):
        images = rng.integers(0, 256, (n, 8, 8), dtype=np.uint8)
        np.savez(folder / "data" / f"{part}.npz", images=images, labels=np.arange(n) % 4)
    for part, n in (("seen", 42), ("unseen", 9)):
        for i in range(n):
            path = folder / "data" / part / "abc"[i % 3] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)).save(path)


def give_weights(config: Block) -> None:
    """Write the weights that an accepted config names to the present folder: each of the net that its cell has."""
    import torch
    from safetensors.torch import save_file
    from valleys.config import originals
    from valleys.config.experiment import Experiment
    from valleys.config.schema import with_defaults
    from valleys.data.sources import load
    from valleys.models import builder

    experiment = Experiment(with_defaults(copy.deepcopy(config)))
    sets: dict[str, Block] = {}
    for cell in experiment.all_cells:
        for k, name in enumerate(
            experiment.available(cell) if experiment.from_checkpoints(cell.recipe) else ()
        ):
            train, _ = load.load_source(experiment.datasets[cell.dataset], cell.dataset, seed=cell.seed)
            torch.manual_seed(cell.seed % 1000 + 17 * k)
            sys.modules.pop("own_nets", None)
            spec, shape = experiment.models[cell.model], tuple(train.images.shape[1:])
            state = builder.build(spec, in_shape=shape, classes=train.classes).state_dict()
            path = Path(originals.checkpoint(experiment, cell, name))
            path.parent.mkdir(parents=True, exist_ok=True)
            if choice := originals.choice(experiment, cell, name):
                sets.setdefault(str(path), {})[choice["choice"].removeprefix("#")] = state
            elif path.suffix == ".safetensors":
                save_file(state, path)
            else:
                torch.save(state, path)
    for path, states in sets.items():
        torch.save({"epoch": 3, **states, "raw": next(iter(states.values()))}, path)


def command(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Python's in a folder, with the library on its path."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow" / "scripts"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *more],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


def snakemake(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the workflow on the config in a folder."""
    where = ["--snakefile", str(ROOT / "Snakefile"), "--workflow-profile", str(ROOT / "profiles" / "default")]
    return command(folder, "snakemake", *where, "--configfile", "config.yaml", *more)


def verdict(done: subprocess.CompletedProcess[str]) -> str:
    """Say how a command ended: well, with a line that says what is wrong, or with a fault of ours."""
    if done.returncode == 0:
        return "ok"
    text = done.stdout + done.stderr
    lines = [line for line in text.splitlines() if line.startswith(("error in rule", "error: ", "config: "))]
    return f"refused: {lines[0]}" if lines and "Traceback" not in text else "FAULT"


def planned(path: Path) -> str | None:
    """Have Snakemake build the graph of jobs, in this process; return the line that says why it cannot."""
    from valleys.costs import plan
    from valleys.errors import ValleysError

    try:
        plan.read_jobs(path)
    except ValleysError as error:
        return str(error)
    return None


def run_whole(folder: Path, root: str) -> str:
    """Run a config to its report and do with that what one does; say how it went."""
    done = snakemake(folder, "--cores", "1")
    (folder / "run.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        return verdict(done)
    for more in (("claims", "config.yaml"), ("compare", root, root), ("plan", "config.yaml")):
        done = command(folder, "valleys", *more)
        if done.returncode:
            return f"FAULT in {more[0]}: {done.stderr[-500:]}"
    done = snakemake(folder, "-n")
    text = done.stdout + done.stderr
    return "run" if "Nothing to be done" in text else f"FAULT: not done after a run: {text[-800:]}"


def one(config: Block, folder: Path, *, plan: bool, run: bool) -> str:
    """Check a config in a folder of its own, and go on as far as is asked; say how far it came."""
    lay_out(folder)
    os.chdir(folder)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    found, lines = settle(config)
    wrong = [line for line in lines if not re.fullmatch("config: .+", line)]
    if wrong or found is None:
        return f"FAULT: {wrong}" if wrong else f"refused: {lines[-1]}"
    (folder / "refused.txt").write_text("\n".join(lines))
    path.write_text(yaml.safe_dump(found, sort_keys=False))
    if plan or run:
        give_weights(found)
        if line := planned(path):
            return f"FAULT: {line}"
    return run_whole(folder, f"results/{found['name']}") if run else "planned" if plan else "accepted"


def main() -> int:
    """Draw, plan and run; return 1 where anything was at fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", type=int, default=20, help="configs to draw and to plan")
    parser.add_argument("--run", type=int, default=2, help="of those, how many are run whole")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first config")
    parser.add_argument("--no-dry-run", action="store_true", help="check only, but for --run")
    parser.add_argument("--out", type=Path, default=None, help="folder to keep everything in")
    asked = parser.parse_args()
    out = (asked.out or Path(tempfile.mkdtemp(prefix="configs-"))).resolve()
    counts: dict[str, int] = {}
    faults = []
    for i in range(asked.first, asked.first + asked.plan):
        began, run = time.monotonic(), i < asked.first + asked.run
        try:
            told = one(draw(asked.seed, i), out / str(i), plan=not asked.no_dry_run, run=run)
        except Exception as error:
            traceback.print_exc()
            told = f"FAULT: {type(error).__name__}: {error}"
        kind = told.partition(":")[0]
        counts[kind] = counts.get(kind, 0) + 1
        faults += [f"{i} ({out / str(i)}): {told}"] if "FAULT" in told else []
        print(f"{i}: {told} ({time.monotonic() - began:.1f} s)", flush=True)
    print(json.dumps(counts), *faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
