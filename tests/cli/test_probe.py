"""A first look from the command line: the workflow's tables and figure, a verdict, errors of one line."""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import save_file
from valleys.asymmetry import next_point
from valleys.cli.arguments import parser
from valleys.cli.commands import main
from valleys.cli.probe import images_for, probe, share_in_words
from valleys.cli.requests import PROBE_KEYS, parse_block, request
from valleys.config.schema import SCHEMA_FILE
from valleys.data.by_seed import write_seed
from valleys.data.cache import save_split
from valleys.data.options import validate_dataset
from valleys.data.sources import load
from valleys.errors import ValleysError
from valleys.landscape import directions, probing
from valleys.landscape.evaluator import Evaluator
from valleys.landscape.hessian import Hessian
from valleys.landscape.kinds import SEARCH
from valleys.models import solutions
from valleys.storage import tables
from valleys.storage.weights import checksum, save_weights

DATA = "digits:train_size=120,max_test=60"
MODEL = "mlp:hidden=[8],norm=batch"
MODEL_FILE = "{arch: mlp, hidden: [8], norm: batch}"
QUICK = ["--points", "11", "--n", "2", "--quiet"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder with weights that do not know their model, weights that do, and prepared data."""
    folder = tmp_path_factory.mktemp("trained")
    splits = load.load_source({"source": "digits", "train_size": 120, "max_test": 60})
    train, test = splits
    spec = {"arch": "mlp", "hidden": [8], "norm": "batch"}
    net = solutions.fresh(spec, train.in_shape, train.classes, seed=1)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(10):
        for x, y in train.batches(40):
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            sgd.step()
    save_file(net.state_dict(), folder / "own.safetensors")
    about = {"model": spec, "in_shape": train.in_shape, "classes": train.classes, "solution": "swa"}
    about |= {"cell": "digits/small/quick/seed-4", "iterates": 3, "bn_policy": "refreshed"}
    solutions.save(folder / "theirs.safetensors", net.state_dict(), about)
    for part, split in (("train", train), ("test", test)):
        save_split(folder / "prepared" / f"{part}.safetensors", split)
    return folder, net, train, test


def run(folder, *more, weights="own.safetensors", **options):
    command = ["probe", "--weights", str(folder / weights), *QUICK, *more]
    for key, value in ({"data": DATA, "model": MODEL} | options).items():
        command += [] if value is None else [f"--{key.replace('_', '-')}", str(value)]
    return main(command)


def test_data_of_a_seed_are_taken_from_their_folder_and_named_by_the_data_set(trained, tmp_path):
    folder, _, *splits = trained
    own = tmp_path / "digits" / "seed-3"
    spec = validate_dataset("digits", {"split": "by_seed", "label_noise": 0.1})
    write_seed(tuple(splits), spec, 3, (own / "train.safetensors", own / "test.safetensors"))
    assert run(folder, data=own, out=tmp_path / "look") == 0
    curves = tables.read(tmp_path / "look/tables/curves.parquet", "curves").to_pandas()
    assert set(curves["dataset"]) == {"digits"}


@pytest.mark.parametrize("seed", [-1, 2**53, 2**63])
def test_a_seed_that_tables_cannot_hold_is_refused(trained, tmp_path, seed):
    with pytest.raises(
        ValleysError, match=rf"--seed: {seed} is out of range; it must be 0 to 9007199254740991"
    ):
        probe(trained[0] / "own.safetensors", DATA, MODEL, None, tmp_path, seed=seed)


def test_curvature_is_that_of_the_hessian_on_the_images_probed_on(trained, tmp_path, capsys):
    folder, net, train, _ = trained
    assert run(folder, "--curvature", out=tmp_path / "x") == 0
    (row,) = tables.read(tmp_path / "x/tables/solutions.parquet", "solutions").to_pylist()
    at = Evaluator(net, train, bn="frozen")
    (value,), _ = Hessian(at.model, at.train_batches, at.loss, list(at.parameters)).top(1)[1:]
    assert row["curvature_eigenvalue"] == pytest.approx(value, rel=1e-3)
    assert row["curvature_trace_low"] <= row["curvature_trace"] <= row["curvature_trace_high"]
    assert row["curvature_trace"] > value
    said = capsys.readouterr().out
    assert f"largest eigenvalue of the Hessian {row['curvature_eigenvalue']:.4g} (" in said
    assert "trace of the Hessian " in said
    assert said.count("on 120 train images") == 2


@pytest.mark.slow
def test_a_look_writes_the_tables_and_the_figure_of_the_workflow(trained, tmp_path, capsys):
    folder, net, train, _ = trained
    assert run(folder, out=tmp_path / "x") == 0
    printed = capsys.readouterr().out
    read = {}
    for path in sorted((tmp_path / "x" / "tables").iterdir()):
        assert tables.name_in(path) == path.stem
        read[path.stem] = tables.read(path, path.stem).to_pandas()
    assert {name: len(frame) for name, frame in read.items()} == {
        "asymmetry": 2,
        "curves": 22,
        "directions": 2,
        "shift": 84,
        "solutions": 1,
    }
    pictures = sorted(path.name for path in (tmp_path / "x" / "figures").iterdir())
    assert pictures == ["curves-uniform.png", "curves-uniform.svg", "curves-uniform.txt"]
    assert "digits / mlp, solution given" in printed
    for status, count in read["asymmetry"]["status"].value_counts().items():
        assert f"{status:12} {count:4} of 2" in printed
    assert "is open; try a greater --n" in printed  # two directions decide nothing
    # The curve is the engine's own, along the direction that its row names.
    row = read["directions"].iloc[1]
    direction, _ = directions.random_direction("uniform", net, key=row["key"], k=1)
    curve = read["curves"][read["curves"]["k"] == 1]
    ours = probing.probe_line(Evaluator(net, train, batch_size=250), direction, curve["offset"])
    assert [p["train_loss"] for p in ours] == curve["train_loss"].tolist()


@pytest.mark.slow
def test_weights_of_the_workflow_know_their_model_cell_and_stream(trained, tmp_path):
    folder = trained[0]
    assert run(folder, weights="theirs.safetensors", data=folder / "prepared", model=None, out=tmp_path) == 0
    row = tables.read(tmp_path / "tables" / "directions.parquet", "directions").to_pylist()[0]
    assert (row["dataset"], row["model"], row["recipe"], row["seed"]) == ("digits", "small", "quick", 4)
    assert (row["solution"], row["key"]) == ("swa", "digits/small/quick/seed-4/all")
    (own,) = tables.read(tmp_path / "tables" / "solutions.parquet", "solutions").to_pylist()
    assert (own["bn_policy"], own["iterates"]) == ("refreshed", 3)


@pytest.mark.slow
def test_a_checkpoint_of_a_training_script_is_taken_out_of_its_wrapper(trained, tmp_path):
    state = {f"module.{name}": tensor for name, tensor in trained[1].state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "own.pt")
    assert run(tmp_path, weights="own.pt", out=tmp_path / "pt") == 0
    assert run(trained[0], out=tmp_path / "st") == 0
    one, other = (tables.read(tmp_path / k / "tables" / "curves.parquet", "curves") for k in ("pt", "st"))
    assert one.equals(other)


def test_the_tables_say_what_made_them(trained, tmp_path):
    assert run(trained[0], "--bn", "frozen", "--c", "3", out=tmp_path) == 0
    about = tables.about(tmp_path / "tables" / "curves.parquet")["config"]
    assert about["probes"]["uniform"]["bn"] == "frozen"
    assert about["asymmetry"]["c"] == 3
    assert about["data"] == {"source": "digits", "train_size": 120, "max_test": 60}
    assert about["weights"] == checksum(trained[1].state_dict())


@pytest.mark.slow
def test_more_directions_keep_those_that_are_done(trained, tmp_path, monkeypatch):
    assert run(trained[0], out=tmp_path) == 0
    first = pq.read_table(tmp_path / "tables" / "curves.parquet").to_pandas()
    measured, engine = [], probing.probe_line

    def counted(*given, **options):
        measured.append(1)
        return engine(*given, **options)

    monkeypatch.setattr(probing, "probe_line", counted)
    assert run(trained[0], "--n", "3", out=tmp_path) == 0
    assert len(measured) == 1
    again = pq.read_table(tmp_path / "tables" / "curves.parquet").to_pandas()
    assert len(again) == 33
    assert again[again["k"] < 2].reset_index(drop=True).equals(first)
    measured.clear()
    assert run(trained[0], "--c", "3", out=tmp_path) == 0  # judged again, not probed
    assert measured == []


@pytest.mark.slow
def test_an_adaptive_look_measures_some_of_the_points(trained, tmp_path, capsys, monkeypatch):
    answers = iter([None, 1, 2, None])
    monkeypatch.setattr(next_point, "next_point", lambda *_, **__: next(answers))
    whole, some = tmp_path / "whole", tmp_path / "some"
    assert run(trained[0], "--points", "21", out=whole) == 0
    assert "points a curve" not in capsys.readouterr().out
    assert run(trained[0], "--points", "21", "--adaptive", out=some) == 0
    assert "  10.0 of 21 points a curve, all in 0 of 2" in capsys.readouterr().out
    rows, all_rows = (
        tables.read(path / "tables" / "curves.parquet", "curves").to_pandas() for path in (some, whole)
    )
    assert rows.groupby("k").size().tolist() == [9, 11]
    assert rows["grid_points"].tolist() == [21] * 20
    same = [frame.drop(columns="grid_points") for frame in (rows, all_rows)]
    assert len(same[0].merge(same[1], how="inner")) == 20  # as they are
    about = tables.read(some / "tables" / "directions.parquet", "directions")
    assert about["points"].to_pylist() == [9, 11]
    assert tables.about(some / "tables" / "curves.parquet")["config"]["probes"]["uniform"]["adaptive"] is True
    # Judged by other constants it is probed anew, as it may need other points.
    answers = iter([None, None])
    assert run(trained[0], "--points", "21", "--adaptive", "--c", "3", out=some) == 0


@pytest.mark.slow
def test_a_look_until_its_verdicts_are_settled_says_on_how_many_images(trained, tmp_path, capsys):
    data = {"data": "digits:train_size=800,max_test=60"}
    assert run(trained[0], "--until", "0.8", "--rise", "2", out=tmp_path, **data) == 0
    printed = capsys.readouterr().out
    about = tables.read(tmp_path / "tables" / "directions.parquet", "directions").to_pandas()
    assert about["settled"].all()
    assert set(about["confidence"]) == {0.8}
    images = about["images"]
    assert (images >= 192).all()
    assert f"settled at 80%: 2 of 2 verdicts, on {images.median():,.0f} of 800 train images" in printed
    judged = tables.read(tmp_path / "tables" / "asymmetry.parquet", "asymmetry").to_pandas()
    assert judged["certain"].tolist() == [True, True]
    # All images have the same verdicts; a limit on images leaves some open, and they say so.
    assert run(trained[0], "--rise", "2", out=tmp_path / "all", **data) == 0
    whole = tables.read(tmp_path / "all" / "tables" / "asymmetry.parquet", "asymmetry").to_pandas()
    assert whole["status"].tolist() == judged["status"].tolist()
    capsys.readouterr()
    few = ("--until", "0.999999", "--rise", "0.01", "--train-images", "200")
    assert run(trained[0], *few, out=tmp_path / "few", **data) == 0
    assert "not settled on 200 images: more --train-images" in capsys.readouterr().out


@pytest.mark.slow
def test_a_look_at_some_of_the_images_tells_what_that_leaves_open(trained, tmp_path, capsys):
    assert run(trained[0], "--train-images", "60", out=tmp_path) == 0
    printed = capsys.readouterr().out
    curves = tables.read(tmp_path / "tables" / "curves.parquet", "curves").to_pandas()
    errors = []
    for _, curve in curves.groupby("k"):
        rises = (curve["train_loss"] - curve["train_loss"].iloc[5]).to_numpy()
        errors.append(curve["train_error"].to_numpy()[rises.argmax()] / rises.max())
    error = (errors[0] + errors[1]) / 2
    assert f"the greatest rise of a curve is known to {error:.1%} (median); 5% takes" in printed
    assert re.search(r"60 of 120 train images: verdict of [012] of 2 on a subset", printed)
    assert re.search(r"along its gradient, of norm \S+, the loss of 60 train images falls by \S+", printed)
    judged = tables.read(tmp_path / "tables" / "asymmetry.parquet", "asymmetry")
    assert set(judged["certain"].to_pylist()) <= {True, False}
    assert run(trained[0], out=tmp_path / "all") == 0
    printed = capsys.readouterr().out
    assert "train images" not in printed
    assert re.search(r"along its gradient, of norm \S+, the train loss falls by \S+ nats", printed)
    names = pq.read_schema(tmp_path / "all" / "tables" / "curves.parquet").names
    assert not {"train_error", "test_error"} & set(names)


def test_weights_that_are_no_minimum_are_not_helped_by_more_directions(trained, tmp_path, capsys):
    train = trained[2]
    fresh = solutions.fresh(
        {"arch": "mlp", "hidden": [8], "norm": "batch"}, train.in_shape, train.classes, seed=3
    )
    save_file(fresh.state_dict(), tmp_path / "fresh.safetensors")
    words = ["probe", "--weights", str(tmp_path / "fresh.safetensors"), "--model", MODEL, "--data", DATA]
    assert main([*words, "--out", str(tmp_path / "look"), *QUICK, "--radius", "0.01"]) == 0
    printed = capsys.readouterr().out
    assert "not_minimum     2 of 2" in printed
    assert "the weights are no minimum along it; train on, or end with a cooldown" in printed
    assert "--n" not in printed
    assert "By Definition 1" not in printed


@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
def test_statistics_that_are_not_those_of_the_images_are_told(trained, tmp_path, capsys, bn):
    folder, net, train, _ = trained
    assert run(folder, bn=bn, out=tmp_path / "as-they-are") == 0
    assert "statistics in the file" not in capsys.readouterr().out
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    (name,) = [name for name in state if name.endswith("running_mean")]
    state[name] += 2
    save_file(state, tmp_path / "other.safetensors")
    assert run(tmp_path, weights="other.safetensors", bn=bn, out=tmp_path / "look") == 0
    printed = capsys.readouterr().out
    own = solutions.fresh({"arch": "mlp", "hidden": [8], "norm": "batch"}, train.in_shape, train.classes)
    own.load_state_dict(state)
    losses = {}
    for policy in ("frozen", "refreshed"):
        losses[policy] = Evaluator(own, train, bn=policy).at_start().train_loss
    assert losses["frozen"] - losses["refreshed"] > 0.05
    words = (
        f"is {losses['refreshed']:.4g}, with the statistics in the file {losses['frozen']:.4g}; the curves"
    )
    assert (words in printed) == (bn == "refreshed")


@pytest.mark.parametrize(
    ("found", "short", "words"),
    [
        ((20, 0), (0, 0), "most directions of this kind are asymmetric (share 84% to 100%)"),
        ((0, 20), (0, 0), "most directions of this kind are not asymmetric (share 0% to 16%)"),
        ((10, 10), (0, 0), "is open; try a greater --n (share 30% to 70%)"),
        ((18, 0), (2, 0), "most directions of this kind are asymmetric (share 70% to 100%)"),
        ((12, 0), (8, 0), "is open; try a smaller --rise"),
        ((0, 12), (0, 8), "is open; try a smaller --rise"),
    ],
)
def test_directions_short_of_the_rise_leave_the_share_open(found, short, words):
    statuses = [
        (status, reached)
        for reached, counts in (("found", found), ("capped", short))
        for status, count in zip(("asymmetric", "symmetric"), counts, strict=True)
        for _ in range(count)
    ]
    judged = pd.DataFrame(statuses, columns=["status", "radius_status"])
    assert words in share_in_words(judged, 2.0, 0.95)


def test_images_that_an_error_takes():
    """n of N images have the error s sqrt(1/n - 1/N): with s of 1 and N of 1000, 0.05 takes 286."""
    error = (1 / 100 - 1 / 1000) ** 0.5
    assert images_for(0.05, error, 100, 1000) == 286
    assert images_for(error, error, 100, 1000) == 100
    assert images_for(1e-9, error, 100, 1000) == 1000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gradient", "hessian"])
def test_directions_that_are_computed_at_the_solution(trained, tmp_path, kind):
    assert run(trained[0], "--relative", "0.1", direction=kind, out=tmp_path) == 0
    rows = tables.read(tmp_path / "tables" / "directions.parquet", "directions").to_pylist()
    assert len(rows) == (1 if kind == "gradient" else 2)
    assert {row["radius_status"] for row in rows} == {"fixed"}
    values = [row["eigenvalue"] for row in rows]
    assert values == sorted(values, reverse=True) if kind == "hessian" else values == [None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "absent.safetensors"}, "absent.safetensors does not exist"),
        ({"model": None}, "--model: .*own.safetensors does not say which model it is of"),
        ({"model": "mlp:hidden=[9]"}, "checkpoint .*own.safetensors does not fit the model: .*"),
        ({"model": "mlq"}, "'mlq' is not known, did you mean 'mlp'"),
        ({"model": "mlp:hidden"}, "--model: 'mlp:hidden' is no name:option=value"),
        ({"model": "{arch: [}"}, "--model: .* nor a mapping"),
        ({"data": "digit"}, "datasets.digit.source: 'digit' is not known, did you mean 'digits'"),
        ({"data": "digits:train_sise=3"}, "unknown key 'train_sise', did you mean 'train_size'"),
        ({"data": "."}, r"--data: folder \. lacks train.safetensors"),
        ({"direction": "unifrom"}, "--direction: unknown kind 'unifrom', did you mean 'uniform'"),
        ({"direction": "pca"}, "--direction: 'pca' needs other solutions or iterates"),
        ({"points": "10"}, "--points: 10 is even"),
        ({"n": "0"}, "--n: 0 is less than the minimum of 1"),
        ({"bn": "fresh"}, "--bn: 'fresh'.*; choose from refreshed, frozen"),
        ({"bn_method": "exat"}, "--bn-method: 'exat', did you mean 'exact'"),
        ({"relative_to": "some"}, "--relative-to: 'some'"),
        ({"radius": "1", "relative": "1"}, "radius and relative both fix the radius"),
        ({"group": "convs"}, "--group: unknown group 'convs', did you mean 'conv'"),
        ({"group": "layer:nowhere"}, "parameter group 'layer:nowhere' is empty"),
        ({"c": "1"}, "--c: 1.0 is less than or equal to the minimum of 1"),
        ({"loss": "mze"}, "--loss: name: 'mze', did you mean 'mse'"),
        ({"loss": "focal:gama=2"}, "--loss: unknown key 'gama', did you mean 'gamma'"),
        ({"data": f"{DATA},split=by_seed"}, "give a seed, or the folder seed-<seed>"),
        ({"device": "gpu"}, "--device: 'gpu' is none; choose from auto, cpu, cuda"),
        ({"threads": "0"}, "--threads: 0 is not a whole number"),
    ],
)
def test_mistakes_are_one_line(trained, tmp_path, capsys, options, message):
    assert run(trained[0], **{"out": tmp_path, **options}) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert re.match(f"error: .*{message}", line), line
    assert not (tmp_path / "tables").exists()


def test_images_of_another_shape_are_refused(trained, tmp_path, capsys):
    weights = tmp_path / "w.safetensors"
    save_weights(weights, trained[1].state_dict(), {"model": {}, "in_shape": [3, 32, 32], "classes": 10})
    assert main(["probe", "--weights", str(weights), "--data", DATA, "--out", str(tmp_path)]) == 1
    assert "--data: its images have shape (1, 8, 8) and 10 classes" in capsys.readouterr().err


def test_wrong_arguments_are_one_line(capsys):
    for arguments in (["probe"], ["prob"], ["probe", "--n", "many", "--weights", "w", "--data", "d"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")


def test_help_names_the_defaults_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["probe", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    schema = yaml.safe_load(SCHEMA_FILE.read_text())
    properties = schema["$defs"]["probe"]["properties"]
    for key in PROBE_KEYS:
        option, default = f"--{key.replace('_', '-')}", properties[key].get("default")
        assert option in text
        if key in ("adaptive", "orthogonal"):  # switches
            continue
        told = text.split(f"{option} {key.upper()} ")[1].split(" --")[0]
        assert default is None or f"({default})" in told, key
    assert set(PROBE_KEYS) == set(properties) - {"kind", "solutions"}
    refresh = schema["properties"]["bn_refresh"]["properties"]
    assert f"({refresh['method']['default']})" in text
    assert f"({refresh['batch_size']['default']})" in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--direction", "searched", "--radius", "2"],
            "--radius: 2.0 is set, but kind searched goes to a given",
        ),
        (
            ["--search", "flat"],
            "--search: kind uniform is not searched for; drop it, or set kind to searched",
        ),
        (
            ["--direction", "searched", "--search", "asymetric"],
            "--search: seek: 'asymetric', did you mean 'asymmetric'?; choose from asymmetric, symmetric",
        ),
        (
            ["--direction", "searched", "--search", "flat:step=2"],
            "--search: unknown key 'step', did you mean 'steps'?; keys here: floor, restarts, seek, steps",
        ),
        (
            ["--direction", "searched", "--search", "asymmetric:floor=2"],
            "--search: floor: 2 is not below rise 1, which is that of the steeper side",
        ),
        (
            ["--direction", "gaussian", "--orthogonal"],
            "--orthogonal: true is for kind sign alone, not gaussian; drop it",
        ),
        (
            ["--direction", "sign", "--share", "1", "--orthogonal"],
            "--orthogonal: with share 1 all terms of <u, w> have one sign and it cannot be 0; take a share",
        ),
        (["--direction", "searched", "--search", "flat:2"], "--search: 'flat:2' is no name:option=value,..."),
    ],
)
def test_a_mistake_in_what_directions_are_asked_for_names_the_option(arguments, line, capsys, tmp_path):
    assert main(["probe", "--weights", "w", "--data", DATA, "--out", str(tmp_path), *arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {line}")
    assert said.count("\n") == 1


def test_a_request_for_a_search_has_all_of_its_options():
    block = request("searched", {"search": {"seek": "flat"}}, {}, {}, {}).block
    assert (block["n"], block["search"]) == (1, SEARCH | {"seek": "flat"})
    assert request("searched", {}, {}, {}, {}).block["search"] == SEARCH
    assert "search" not in request("uniform", {}, {}, {}, {}).block


@pytest.mark.slow
def test_a_look_along_a_searched_direction_has_the_tables_of_its_search(trained, tmp_path, capsys):
    search = ["--direction", "searched", "--search", "flat:steps=2,restarts=2", "--n", "1"]
    assert run(trained[0], *search, out=tmp_path) == 0
    printed = capsys.readouterr().out
    read = {path.stem: tables.read(path, path.stem) for path in (tmp_path / "tables").iterdir()}
    assert read.keys() >= {"searches", "search_curves", "curves", "directions", "asymmetry"}
    searches = read["searches"].to_pandas()
    assert searches["restart"].tolist() == [0, 1]
    assert (searches[["dataset", "solution", "kind", "k"]].drop_duplicates().to_numpy()).tolist() == [
        ["digits", "given", "searched", 0]
    ]
    row = searches[searches["chosen"]].iloc[0]
    lines = printed.splitlines()
    (at,) = [
        i
        for i, line in enumerate(lines)
        if line.startswith("direction 0, as flat as can be at a rise of 1 nat")
    ]
    assert lines[at].endswith(": measured")
    assert lines[at + 1].startswith(
        f"  on {row['judge_images']} train images not searched on: {row['judge_status']}"
    )
    assert f"on the {row['search_images']} searched on" in lines[at + 2]
    assert f"2 restarts, {2 * row['passes']} passes" in lines[at + 4]
    assert (tmp_path / "figures" / "search.png").exists()
    assert "directions of this kind" not in printed  # no share of what was searched for says anything
    assert len(read["curves"]) == 11


def test_the_parser_takes_what_help_shows(tmp_path):
    assert parser().parse_args(["compare", "a", "b"]).output is None


@pytest.mark.slow
def test_one_of_several_sets_of_weights_is_probed_and_named(trained, tmp_path, capsys):
    net = trained[1]
    other = {name: tensor * 1.5 for name, tensor in net.state_dict().items()}
    torch.save({"state_dict": net.state_dict(), "swa_state_dict": other}, tmp_path / "last.pt")
    assert run(tmp_path, weights="last.pt", out=tmp_path / "x") == 1
    said = capsys.readouterr().err
    assert "has weights of the model in 2 places: 'state_dict', 'swa_state_dict'; choose one" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "x").exists()
    assert run(tmp_path, weights="last.pt#state_dict", out=tmp_path / "x") == 0
    assert "last.pt#state_dict: weights under 'state_dict'; left aside: 'swa_state_dict'" in (
        capsys.readouterr().out
    )
    about = tables.about(tmp_path / "x" / "tables" / "curves.parquet")["config"]
    assert about["weights"] == checksum(net.state_dict())


@pytest.mark.slow
def test_weights_name_no_code_to_run_and_no_folder_to_write_to(trained, tmp_path, capsys):
    """What stands in the header of a weights file may be a stranger's."""
    _, net, train, _ = trained
    about = {"in_shape": train.in_shape, "classes": train.classes, "iterates": 0, "cell": "../x/../y/seed-1"}
    about |= {"model": {"factory": "os:system", "kwargs": {"command": f"touch {tmp_path}/made"}}}
    about |= {"solution": "../../../escaped\x1b[31m"}
    solutions.save(tmp_path / "evil.safetensors", net.state_dict(), about)
    assert run(tmp_path, weights="evil.safetensors", model=None, out=tmp_path / "a" / "out") == 1
    assert "names the factory 'os:system', code that would be run; if you trust it" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
    assert run(tmp_path, weights="evil.safetensors", out=tmp_path / "a" / "out") == 0
    printed = capsys.readouterr().out
    assert "digits / mlp, solution given" in printed
    assert "\x1b" not in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "evil.safetensors"]
    for wrong in ({"model": None}, {"in_shape": 3}, {"iterates": "many"}, {"classes": [1]}):
        solutions.save(tmp_path / "evil.safetensors", net.state_dict(), about, **wrong)
        assert run(tmp_path, weights="evil.safetensors", out=tmp_path / "a" / "out") == 1
        assert f"its header has no sound {next(iter(wrong))}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("resnet8", {"arch": "resnet8"}),
        ("mlp:hidden=[16, 8],norm=batch", {"arch": "mlp", "hidden": [16, 8], "norm": "batch"}),
        ("{arch: mlp, hidden: [16, 8]}", {"arch": "mlp", "hidden": [16, 8]}),
        (
            '{"factory": "nets:build", "kwargs": {"width": 3}}',
            {"factory": "nets:build", "kwargs": {"width": 3}},
        ),
    ],
)
def test_blocks_are_written_in_three_ways(tmp_path, text, block):
    assert parse_block(text, "arch", "model") == block
    path = tmp_path / "block.json"
    path.write_text(json.dumps(block))
    assert parse_block(str(path), "arch", "model") == block
    path.write_text("[1]")
    with pytest.raises(ValleysError, match="holds list; it must be a mapping"):
        parse_block(str(path), "arch", "model")


def curves_of(folder):
    return tables.read(folder / "tables" / "curves.parquet", "curves").to_pandas()["train_loss"].tolist()


NETS = """
from torch import nn

def build(width, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.{kind}(), nn.Linear(width, num_classes))
"""


@pytest.mark.slow
@pytest.mark.long
def test_a_look_into_the_same_folder_is_at_what_it_is_asked_for(tmp_path, monkeypatch):
    """Network, its code, images, their normalisation: each is probed anew where it is another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    rng = np.random.default_rng(0)

    def write(images=None):
        images = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8) if images is None else images
        for part in ("train", "test"):
            np.savez(f"{part}.npz", images=images, labels=np.arange(40) % 4)
        return images

    def code(kind):
        sys.modules.pop("look_nets", None)
        importlib.invalidate_caches()
        (tmp_path / "look_nets.py").write_text(NETS.format(kind=kind) + "#" * len(seen))

    seen = []

    def look(model, data="numpy:train=train.npz,test=test.npz"):
        for out in ("same", f"fresh-{len(seen)}"):
            assert run(tmp_path, weights="w.safetensors", data=data, model=model, out=out) == 0
        found, fresh = curves_of(tmp_path / "same"), curves_of(tmp_path / f"fresh-{len(seen)}")
        assert found == fresh
        assert found not in seen
        seen.append(found)

    first, own = write(), '{factory: "look_nets:build", kwargs: {width: 6}}'
    mlp = solutions.fresh({"arch": "mlp", "hidden": [6], "norm": "none"}, (1, 8, 8), 4, seed=1)
    save_file(mlp.state_dict(), "w.safetensors")
    look("mlp:hidden=[6],norm=none")
    look("mlp:hidden=[6],norm=none,activation=tanh")
    look("mlp:hidden=[6],norm=none", data="numpy:train=train.npz,test=test.npz,mean=[0.4],std=[0.3]")
    write()
    look("mlp:hidden=[6],norm=none")
    write(first)
    state = dict(zip(("1.weight", "1.bias", "3.weight", "3.bias"), mlp.state_dict().values(), strict=True))
    save_file(state, "w.safetensors")
    for kind in ("GELU", "Sigmoid"):
        code(kind)
        look(own)


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("model", "mlp:hidden=[8],hidden=[4]", "'hidden' is there twice"),
        ("model", "{arch: mlp, norm: batch, norm: none}", "line 1: norm is there twice"),
        ("data", "digits:train_size=120,train_size=80", "'train_size' is there twice"),
        ("loss", "{name: mse, name: focal}", "name is there twice"),
    ],
)
def test_an_option_that_is_there_twice_is_refused(trained, tmp_path, capsys, option, text, words):
    assert run(trained[0], out=tmp_path / "x", **{option: text}) == 1
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_paths_in_the_home_folder(trained, tmp_path, monkeypatch):
    folder = trained[0]
    monkeypatch.setenv("HOME", str(folder))
    assert run(Path("~"), weights="theirs.safetensors", data="~/prepared", model=None, out="~/home-look") == 0
    assert (folder / "home-look" / "tables" / "curves.parquet").is_file()
    (folder / "m.yaml").write_text(MODEL_FILE)
    assert run(Path("~"), model="~/m.yaml", out=tmp_path) == 0
