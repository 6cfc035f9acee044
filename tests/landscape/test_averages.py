"""Rule compare_averages' own script, against a plain loop; refusals, and the halves of the test images."""

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, fill_defaults, load_config
from small_iterates import TEST, TRAIN, Bag, split, trained
from valleys.config.experiment import Experiment
from valleys.config.params import Params
from valleys.data.cache import save_split
from valleys.data.split import Split
from valleys.errors import ValleysError
from valleys.landscape import averages
from valleys.models import solutions
from valleys.networks.bn_refresh import refresh_bn
from valleys.storage import tables
from valleys.storage.weights import load_weights, save_weights
from valleys.training.iterates import iterate_name

pytestmark = pytest.mark.usefixtures("one_core")

EPOCHS = (4, 5, 6)
ASKED = {
    "ema": {"kind": "ema", "decay": 0.5},
    "last": {"kind": "last", "k": 2},
    "mine": {"kind": "weighted", "weights": [3, 1, 0]},
    "soup": {"kind": "greedy"},
}


def scattered(model, seed):
    """Three state dicts around a solution, so that averages of them gain."""
    (state,) = trained(model, seed, (15,))
    names = dict(solutions.fresh(model, (1, 4, 4), 3, seed=0).named_parameters())
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            n: t + 0.1 * torch.randn(t.shape, generator=generator) if n in names else t
            for n, t in state.items()
        }
        for _ in EPOCHS
    ]


def plain_mean(model, states, weights):
    """The network of a weighted mean, written out, batch norm refreshed over the train images."""
    network = solutions.fresh(model, (1, 4, 4), 3, seed=0).eval()
    own, total = dict(network.named_parameters()), sum(weights)
    with torch.no_grad():
        for name, parameter in own.items():
            mean = sum(w * state[name].double() for w, state in zip(weights, states, strict=True)) / total
            parameter.copy_(mean)
    refresh_bn(network, TRAIN.batches(len(TRAIN)))
    return network


@torch.no_grad()
def plain_loss(network, part, rows=None):
    """Mean cross-entropy and accuracy on images, in one batch."""
    ((images, labels),) = part.batches(len(part))
    if rows is not None:
        images, labels = images[rows], labels[rows]
    outputs = network.eval()(images)
    return F.cross_entropy(outputs.double(), labels).item(), (
        outputs.argmax(1) == labels
    ).float().mean().item()


def plain_soup(model, states, rows):
    """Numbers of the checkpoints that join a greedy soup, where none is over a barrier."""

    def loss(members):
        weights = [float(i in members) for i in range(len(states))]
        return plain_loss(plain_mean(model, states, weights), TEST, rows)[0]

    order = sorted(range(len(states)), key=lambda i: loss([i]))
    members, best = order[:1], loss(order[:1])
    for i in order[1:]:
        if (now := loss([*members, i])) <= best:
            members, best = [*members, i], now
    return sorted(members)


def run(folder, states, asked, seed=0):
    """The rows of the rule's table by name, after its script ran on these iterates."""
    config = fill_defaults(load_config("config/smoke.yaml") | {"averages": asked, "seeds": [seed]})
    found = Experiment(config)
    cell, model = found.cells[0], found.models["mlp"]
    for name, part in (("train", TRAIN), ("test", TEST)):
        save_split(folder / f"{name}.safetensors", part)
    (folder / "iterates").mkdir()
    for epoch, state in zip(EPOCHS, states, strict=True):
        save_weights(folder / "iterates" / iterate_name(epoch), state, {"epoch": epoch})
    swa = plain_mean(model, states, [1.0] * len(states)).state_dict()
    about = {"model": model, "in_shape": (1, 4, 4), "classes": 3, "cell": cell.path, "bn_policy": "refreshed"}
    solutions.save(folder / "swa.safetensors", swa, about, solution="swa", iterates=len(states))
    given = Bag({name: str(folder / f"{name}.safetensors") for name in ("train", "test", "swa")})
    fake = Bag(
        input=Bag(given, iterates=str(folder / "iterates")), config=config, threads=1,
        params=Bag(spec=Params(found).compare_averages(cell)), rule="compare_averages",
        output=Bag(table=str(folder / "averages.parquet"), weights=str(folder / "averages")),
        log=[folder / "log"], wildcards=Bag(cell.columns()),
    )  # fmt: skip
    script = ROOT / "workflow" / "scripts" / "compare_averages.py"
    exec(compile(script.read_text(), str(script), "exec"), {"snakemake": fake})
    rows = tables.read(folder / "averages.parquet", "averages").to_pandas()
    assert rows["average"].tolist() == ["swa", *asked]
    return rows.set_index("average"), model


@pytest.mark.parametrize("seed", [0, 7, 11])
def test_rows_are_those_of_a_plain_loop(tmp_path, seed):
    model = load_config("config/smoke.yaml")["models"]["mlp"]
    states = scattered(model, seed)
    rows, model = run(tmp_path, states, ASKED, seed)
    choosing, judging = averages.halves(TEST, seed)
    lookup = {image.numpy().tobytes(): i for i, image in enumerate(TEST.images)}
    chosen_on, judged_on = (
        torch.tensor([lookup[image.numpy().tobytes()] for image in part.images])
        for part in (choosing, judging)
    )
    soup = plain_soup(model, states, chosen_on)
    assert len(soup) == 2
    assert soup != plain_soup(model, states, judged_on)  # so that the half it is chosen on is seen
    weights = {"swa": [1, 1, 1], "ema": [1, 1, 2], "last": [0, 1, 1], "mine": [3, 1, 0]}
    weights["soup"] = [float(i in soup) for i in range(3)]
    swa = plain_mean(model, states, [1, 1, 1])
    for name, own in weights.items():
        row, network = rows.loc[name], plain_mean(model, states, own)
        assert pd.isna(row["refused"])
        assert row["epochs"] == " ".join(str(e) for e, w in zip(EPOCHS, own, strict=True) if w)
        assert row["iterates"] == sum(w > 0 for w in own)
        for part, images in (("train", TRAIN), ("test", TEST)):
            found = row[f"{part}_loss"], row[f"{part}_accuracy"]
            assert found == pytest.approx(plain_loss(network, images), rel=1e-4)
        judged = row["judged_loss"], row["judged_accuracy"]
        assert judged == pytest.approx(plain_loss(network, TEST, judged_on), rel=1e-4)
        assert row["n_judged"] == len(judged_on) == 21
        apart = [(a - b).square().sum() for a, b in zip(network.parameters(), swa.parameters(), strict=True)]
        assert row["distance_to_swa"] == pytest.approx(sum(apart).sqrt().item(), abs=1e-5)
        if name != "swa":
            state, about = load_weights(tmp_path / "averages" / f"{name}.safetensors")
            for key, tensor in network.state_dict().items():
                assert torch.allclose(state[key].float(), tensor.float(), atol=1e-5)
            assert (about["solution"], about["iterates"]) == (name, row["iterates"])
    assert len({round(rows.loc[name, "judged_loss"], 6) for name in weights}) > 3  # they are not all alike


def test_the_barrier_is_the_greatest_between_neighbours_and_ends(tmp_path):
    model = load_config("config/smoke.yaml")["models"]["mlp"]
    states = [*trained(model, 0)[:2], trained(model, 1)[2]]
    rows, model = run(tmp_path, states, {"ema": {"kind": "ema", "most": 100}})

    def barrier(first, second):
        ts = [0.0, 0.25, 0.5, 0.75, 1.0]
        on = [plain_loss(plain_mean(model, [first, second], [1 - t, t]), TRAIN)[0] for t in ts]
        return max(0.0, *(x - ((1 - t) * on[0] + t * on[-1]) for t, x in zip(ts, on, strict=True)))

    known = {(a, b): barrier(states[a], states[b]) for a, b in ((0, 1), (1, 2), (0, 2))}
    worst = max(known, key=known.get)
    assert known[worst] > 0.05
    for name in ("swa", "ema"):
        row = rows.loc[name]
        assert row["barrier"] == pytest.approx(known[worst], rel=1e-3)
        assert (row["barrier_first"], row["barrier_second"]) == tuple(EPOCHS[i] for i in worst)


def test_an_average_over_a_barrier_is_refused_by_its_pair_and_the_others_are_made(tmp_path):
    model = load_config("config/smoke.yaml")["models"]["mlp"]
    states = [trained(model, 1)[2], *trained(model, 0)[1:]]
    asked = {
        "ema": {"kind": "ema", "most": 0.02},
        "last": {"kind": "last", "k": 2, "most": 0.02},
        "soup": {"kind": "greedy", "most": 0.02},
    }
    rows, _ = run(tmp_path, states, asked)
    row = rows.loc["ema"]
    assert row["barrier"] > 0.02
    pair = f"epochs {row['barrier_first']:.0f} and {row['barrier_second']:.0f}"
    assert pair in ("epochs 4 and 5", "epochs 4 and 6")
    assert row["refused"].startswith(f"between the iterates of {pair} the train loss rises by ")
    assert row["refused"].endswith(", above most=0.02")
    assert row[["train_loss", "test_loss", "judged_loss", "distance_to_swa"]].isna().all()
    made = rows.loc[["swa", "last", "soup"]]
    assert made["refused"].isna().all()
    assert made["judged_loss"].notna().all()
    assert sorted(path.stem for path in (tmp_path / "averages").iterdir()) == ["last", "soup"]
    # A soup is never refused: it leaves out what is over a barrier.
    assert rows.loc["soup", "epochs"] in ("4", "5", "6", "5 6")
    assert "ema is refused: between the iterates of" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("n", [2, 41, 100])
def test_halves_are_disjoint_all_there_is_and_of_the_seed(n):
    part = split(n, 5)
    part = Split(torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1), part.labels, 3, (0.4,), (0.2,))
    choosing, judging = averages.halves(part, 3)
    first, second = ([int(image) for image in half.images] for half in (choosing, judging))
    assert not set(first) & set(second)
    assert sorted(first + second) == list(range(n))
    assert (len(first), len(second)) == (n // 2, n - n // 2)
    assert first == sorted(first)
    assert torch.equal(choosing.labels, part.labels[first])
    again = averages.halves(part, 3)[0]
    assert torch.equal(again.images, choosing.images)
    if n > 2:
        assert not torch.equal(averages.halves(part, 4)[0].images, choosing.images)


def test_one_test_image_is_one_line():
    with pytest.raises(ValleysError, match="1 test images leave no half to judge on; give two or more"):
        averages.halves(split(1, 0), 0)
