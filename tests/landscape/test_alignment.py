"""Rule align's own script: known permutations are undone, and barriers are those of a plain loop."""

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, fill_defaults, load_config
from small_iterates import TEST, TRAIN, Bag, trained
from valleys.config.experiment import Experiment
from valleys.config.params import Params
from valleys.data.cache import save_split
from valleys.models import solutions
from valleys.networks import symmetries
from valleys.networks.bn_refresh import refresh_bn
from valleys.storage import tables

pytestmark = pytest.mark.usefixtures("one_core")

MODEL = load_config("config/smoke.yaml")["models"]["mlp"]


def network(state):
    made = solutions.fresh(MODEL, (1, 4, 4), 3, seed=0).eval()
    made.load_state_dict(state)
    return made


def run(folder, first, second):
    """The row of the rule's table, after its script ran on these two solutions."""
    raw = load_config("config/smoke.yaml") | {"seeds": [0, 1]}
    raw["grid"] = [raw["grid"][0] | {"alignment": True}]
    config = fill_defaults(raw)
    found = Experiment(config)
    cell, model = found.cells[0], found.models["mlp"]
    about = {"model": model, "in_shape": (1, 4, 4), "classes": 3, "cell": cell.path, "bn_policy": "refreshed"}
    for name, part in (("train", TRAIN), ("test", TEST)):
        save_split(folder / f"{name}.safetensors", part)
    for name, state in (("start", first), ("stop", second)):
        solutions.save(folder / f"{name}.safetensors", state, about, solution="sgd", iterates=0)
    given = Bag({n: str(folder / f"{n}.safetensors") for n in ("train", "test", "start", "stop")})
    fake = Bag(
        input=given, config=config, threads=1, params=Bag(spec=Params(found).align(cell)), rule="align",
        output=Bag(table=str(folder / "alignment.parquet")), log=[folder / "log"],
        wildcards=Bag(cell.columns()),
    )  # fmt: skip
    script = ROOT / "workflow" / "scripts" / "align.py"
    exec(compile(script.read_text(), str(script), "exec"), {"snakemake": fake})
    (row,) = tables.read(folder / "alignment.parquet", "alignment").to_pylist()
    return row


@torch.no_grad()
def plain_barrier(first, second, part):
    """Greatest loss above the chord at 21 points, written out, batch norm refreshed at each."""
    losses = []
    for t in torch.linspace(0, 1, 21).tolist():
        made = network(first)
        for name, own in made.named_parameters():
            own.copy_((1 - t) * first[name].double() + t * second[name].double())
        refresh_bn(made, TRAIN.batches(len(TRAIN)))
        ((images, labels),) = part.batches(len(part))
        losses.append(F.cross_entropy(made(images).double(), labels).item())
    chord = [(1 - i / 20) * losses[0] + i / 20 * losses[-1] for i in range(21)]
    return max(0.0, *(loss - line for loss, line in zip(losses, chord, strict=True)))


def distance(first, second):
    names = dict(network(first).named_parameters())
    return sum((first[n].double() - second[n].double()).square().sum().item() for n in names) ** 0.5


def test_barriers_before_and_after_are_those_of_a_plain_loop(tmp_path):
    first, second = trained(MODEL, 0)[2], trained(MODEL, 1)[2]
    row = run(tmp_path, first, second)
    ((images, _),) = TRAIN.batches(len(TRAIN))
    found = symmetries.trace(network(first), images)
    # The same seed of the order of groups as the script's, the cell's.
    order = symmetries.align(found, first, second, seed=0)
    matched = found.permuted(second, order)
    for when, there in (("before", second), ("after", matched)):
        assert row[f"distance_{when}"] == pytest.approx(distance(first, there), rel=1e-5)
        for part, images in (("train", TRAIN), ("test", TEST)):
            own = plain_barrier(first, there, images)
            assert row[f"{part}_barrier_{when}"] == pytest.approx(own, rel=1e-3, abs=1e-6)
    assert row["train_barrier_before"] > 0.05  # two seeds, so there is something to measure
    assert row["distance_after"] < row["distance_before"]
    assert (row["seed"], row["other_seed"], row["points"]) == (0, 1, 21)


def test_a_permuted_copy_is_the_same_point_once_matched(tmp_path):
    state = trained(MODEL, 0)[2]
    ((images, _),) = TRAIN.batches(len(TRAIN))
    found = symmetries.trace(network(state), images)
    order = found.random(3)
    row = run(tmp_path, state, found.permuted(state, order))
    elsewhere = sum(int((units != torch.arange(len(units))).sum()) for units in order.values())
    assert row["moved"] == pytest.approx(elsewhere / sum(len(units) for units in order.values()))
    assert row["moved"] > 0.5
    assert row["train_barrier_before"] > 0.05
    assert row["distance_before"] > 1
    assert row["train_barrier_after"] == pytest.approx(0, abs=1e-6)
    assert row["distance_after"] == 0
