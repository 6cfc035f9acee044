"""The line between two sets of given weights from the command line: numbers, verdict, errors of one line."""

import math
import re

import pytest
import torch
from safetensors.torch import save_file
from torch.func import functional_call
from torch.nn import functional as F
from valleys.api.curves import Segment
from valleys.cli import arguments
from valleys.cli.commands import main
from valleys.config.experiment import Experiment
from valleys.config.reading import load as load_config
from valleys.config.schema import with_defaults
from valleys.data.sources import load
from valleys.models import solutions
from valleys.storage import tables

DATA = "digits:train_size=400,max_test=60"
MODEL = "mlp:hidden=[8],norm=batch"
SPEC = {"arch": "mlp", "hidden": [8], "norm": "batch"}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Folder with weights of two seeds that do not know their model, the nets, and the images."""
    folder = tmp_path_factory.mktemp("two")
    train, test = load.load_source({"source": "digits", "train_size": 400, "max_test": 60})
    nets = []
    for seed in (1, 2):
        net = solutions.fresh(SPEC, train.in_shape, train.classes, seed=seed)
        sgd = torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9)
        for _ in range(20):
            for x, y in train.batches(40):
                sgd.zero_grad()
                F.cross_entropy(net(x), y).backward()
                sgd.step()
        save_file(net.state_dict(), folder / f"{'ab'[seed - 1]}.safetensors")
        nets.append(net)
    return folder, nets, train, test


def run(folder, out, *more, weights="a.safetensors", to="b.safetensors", model=MODEL):
    command = ["path", "--weights", str(folder / weights), "--to", str(folder / to), "--data", DATA]
    command += ["--out", str(out), "--quiet", *([] if model is None else ["--model", model])]
    return main([*command, *more])


def rows_of(out):
    return tables.read(out / "tables" / "interpolation.parquet", "interpolation").to_pylist()


def test_losses_are_those_of_a_plain_loop_and_the_verdict_follows_from_them(two, tmp_path, capsys):
    folder, nets, train, _ = two
    assert run(folder, tmp_path, "--divisions", "4") == 0
    rows, (x, y) = rows_of(tmp_path), next(iter(train.batches(len(train))))
    ends = [dict(net.named_parameters()) for net in nets]
    net = nets[0].train()  # batch norm takes the batch's own statistics: those of all images
    losses = []
    for t in (0, 0.25, 0.5, 0.75, 1):
        there = {name: (1 - t) * w + t * ends[1][name] for name, w in ends[0].items()}
        with torch.no_grad():
            losses.append(float(F.cross_entropy(functional_call(net, there, (x,)), y)))
    assert [row["train_loss"] for row in rows] == pytest.approx(losses, rel=1e-4)
    distance = math.sqrt(sum(float(((ends[1][n] - w).detach() ** 2).sum()) for n, w in ends[0].items()))
    assert [row["offset"] for row in rows] == pytest.approx([t * distance for t in (0, 0.25, 0.5, 0.75, 1)])
    assert {(row["start"], row["stop"], row["line"]) for row in rows} == {("a", "b", "path")}
    over = (v - (1 - t / 4) * losses[0] - t / 4 * losses[-1] for t, v in enumerate(losses))
    height = max(over)
    said = capsys.readouterr().out
    assert f"barrier {height:.4g} at t = " in said
    assert height > 0.1
    assert said.count("read ") == 2
    assert "The barrier on the straight line is above 0.1.\n" in said
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == ["line-path.png", "line-path.svg", "line-path.txt"]
    assert run(folder, tmp_path, "--divisions", "4", "--threshold", f"{2 * height}") == 0
    assert f"is not above {2 * height:g}.\n" in capsys.readouterr().out


def test_a_verdict_on_some_of_the_images_takes_until(two, tmp_path, capsys):
    folder, _, train, _ = two
    assert run(folder, tmp_path / "some", "--train-images", "60") == 0
    said = capsys.readouterr().out
    found = re.search(r"barrier (\S+) \((\S+) to (\S+)\) at t = \S+ on 60 of 400 train images", said)
    height, low, high = map(float, found.groups())
    assert low < height < high
    assert "Whether it is above 0.1 on all train images is not settled; --until 0.95 settles it." in said
    assert run(folder, tmp_path / "until", "--until", "0.9") == 0
    said, (row, *_) = capsys.readouterr().out, rows_of(tmp_path / "until")
    assert row["settled"]
    assert row["images"] < len(train)
    assert f"on {row['images']} of 400 train images" in said
    assert "is above 0.1 (at 90%).\n" in said
    near = str(height)  # what 60 images find is nowhere near enough to tell from what 400 do
    options = ("--until", "0.99", "--train-images", "60", "--threshold", near)
    assert run(folder, tmp_path / "open", *options) == 0
    assert not rows_of(tmp_path / "open")[0]["settled"]
    said = capsys.readouterr().out
    assert "is not settled at 99% on 60 of 400 examples; more --train-images may do." in said


def test_ends_have_the_names_of_their_solutions_and_cells(two, tmp_path):
    _, (one, other), train, _ = two
    about = {"model": SPEC, "in_shape": train.in_shape, "classes": train.classes}
    for name, net, seed in (("sgd", one, 4), ("sgd", other, 5), ("swa", other, 4)):
        cell = {"solution": name, "cell": f"digits/small/quick/seed-{seed}"}
        solutions.save(tmp_path / f"{name}-{seed}.safetensors", net.state_dict(), about | cell)
    for to, expected in (("sgd-5", ("sgd", "sgd", 4, 5)), ("swa-4", ("sgd", "swa", 4, 4))):
        names = {"weights": "sgd-4.safetensors", "to": f"{to}.safetensors", "model": None}
        assert run(tmp_path, tmp_path / to, "--divisions", "2", **names) == 0
        row = rows_of(tmp_path / to)[0]
        assert (row["start"], row["stop"], row["seed"], row["stop_seed"]) == expected
        assert (row["dataset"], row["model"], row["recipe"]) == ("digits", "small", "quick")


@pytest.mark.parametrize(
    ("more", "options", "line"),
    [
        ((), {"to": "absent.safetensors"}, "absent.safetensors does not exist"),
        ((), {"to": "a.safetensors"}, "a.safetensors are the same weights"),
        ((), {"model": None}, "--model: .*a.safetensors does not say which model it is of"),
        ((), {"to": "gelu.safetensors"}, '--to: .* is of the network .*"gelu"'),
        (("--divisions", "0"), {}, "--divisions: 0 is less than the minimum of 1"),
        (("--divisions", "1", "--until", "0.95"), {}, "--until: it needs divisions: 2 or more"),
        (("--until", "95"), {}, "--until: 95.0 is greater than or equal to the maximum of 1"),
        (("--threshold", "-1"), {}, "--threshold: -1.0 is less than or equal to the minimum of 0"),
        (("--bn", "cold"), {}, "--bn: 'cold'"),
        (("--train-images", "0"), {}, "--train-images: 0"),
        (("--device", "tpu"), {}, "--device: 'tpu' is none"),
    ],
)
def test_what_cannot_be_joined_is_one_line_and_leaves_nothing(two, tmp_path, capsys, more, options, line):
    folder, (net, _), train, _ = two
    about = {"model": SPEC | {"activation": "gelu"}, "in_shape": train.in_shape, "classes": train.classes}
    solutions.save(folder / "gelu.safetensors", net.state_dict(), about)
    assert run(folder, tmp_path / "out", *more, **options) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert re.search(line, error)
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_on_the_way_is_above_every_threshold():
    points = [{"t": t, "train_loss": v, "test_loss": v} for t, v in ((0, 1.0), (0.5, math.inf), (1, 1.0))]
    segment = Segment(points, 1.0, "none", torch.empty(0).numpy())
    for found in (segment.barrier, segment.barrier_of("test")):
        assert (found.height, found.at) == (math.inf, 0.5)


def test_the_helps_examples_are_files_of_the_default_run():
    config = load_config("config.yaml")
    experiment = Experiment(with_defaults(config))
    paths = {cell.path: cell for cell in experiment.all_cells}
    text = arguments._EXAMPLES + arguments._PATH_EXAMPLES
    found = re.findall(r"results/default/cells/(\S+?/seed-\d+)/(\w+)\.safetensors", text)
    assert len(found) == 3
    for path, solution in found:
        assert solution in experiment.solutions_of(paths[path])
    data = re.findall(r"--data results/default/data/(\S+)", text)
    assert {path.split("/")[0] for path in data} == {path.split("/")[0] for path, _ in found}
    assert set(data) <= {f"{cell.dataset}/seed-{cell.seed}" for cell in experiment.all_cells}
