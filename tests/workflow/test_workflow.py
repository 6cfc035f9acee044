"""The workflow as a user runs it: end to end, incrementally, killed, and with bad input."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import fill_defaults
from valleys import claims
from valleys.asymmetry import next_point
from valleys.cli.commands import VERDICTS, main
from valleys.config import outputs, versions
from valleys.config.experiment import Experiment
from valleys.config.params import Params
from valleys.report import rulegraph
from valleys.storage import tables
from valleys.storage.weights import load_weights
from workflow_runs import ROOT, changed, command, load, planned, snakemake

pytestmark = pytest.mark.slow

SMOKE = load("config/smoke.yaml")
ALONE = SMOKE | {"studies": {}}
JUDGED = {"detect": 1, "measure_gain": 1, "sensitivity": 1}
"""Jobs that follow new curves, or new constants of Definition 1, of one cell."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished smoke run: (folder, output)."""
    folder = tmp_path_factory.mktemp("smoke")
    status, text = snakemake(folder, SMOKE, "--cores", "2")
    assert status == 0, text
    return folder, text


def test_end_to_end(finished):
    folder, _ = finished
    results = folder / "results" / "smoke"
    for name in outputs.tables(Experiment(_filled(SMOKE))):
        path = results / "tables" / f"{name}.parquet"
        table = tables.read(path, tables.name_in(path))
        assert table.num_rows > 0, name
        assert tables.about(results / "tables" / f"{name}.parquet")["versions"]["torch"]
    training = tables.read(results / "tables" / "training.parquet", "training").to_pandas()
    assert training.groupby("phase").size().to_dict() == {
        "sgd": 3,
        "swa": 3,
        "cooldown": 3,
        "descent": 3,
    }
    solutions = tables.read(results / "tables" / "solutions.parquet", "solutions").to_pandas()
    assert sorted(solutions["solution"]) == ["descent", "sgd", "swa"]
    assert (solutions["bn_policy"] == "refreshed").all()
    curves = tables.read(results / "tables" / "curves.parquet", "curves").to_pandas()
    assert curves.groupby(["probe", "solution", "k"]).size().eq(21).all()
    # Every line passes through its solution's own loss, to rounding, as the solutions table has it.
    own = solutions.set_index("solution")["train_loss"]
    for row in curves[curves["offset"] == 0].itertuples():
        assert row.train_loss == pytest.approx(own[row.solution], rel=1e-5)
    shift = tables.read(results / "tables" / "shift.parquet", "shift").to_pandas()
    assert shift.groupby(["probe", "solution", "k", "policy"]).size().eq(21).all()
    assert (shift.loc[shift["delta_over_r"] == 0, "relative_gap"] == 1).all()
    line = (
        tables.read(results / "tables" / "interpolation.parquet", "interpolation").to_pandas().set_index("t")
    )
    assert line.loc[0.0, "test_loss"] == pytest.approx(
        solutions.set_index("solution").loc["swa", "test_loss"], rel=1e-5
    )
    planes = tables.read(results / "tables" / "planes.parquet", "planes").to_pandas()
    points = tables.read(results / "tables" / "plane_points.parquet", "plane_points").to_pandas()
    assert planes.groupby("plane").size().to_dict() == {"directions": 25, "iterates": 25, "solutions": 25}
    assert points.groupby("plane").size().to_dict() == {"directions": 3, "iterates": 6, "solutions": 3}
    (own_row,) = solutions[solutions["solution"] == "sgd"].to_dict("records")
    middle = planes[(planes["plane"] == "directions") & (planes["x"] == 0) & (planes["y"] == 0)]
    assert middle["test_loss"].item() == pytest.approx(own_row["test_loss"], rel=1e-5)
    path = points[points["role"] == "iterate"]
    assert path["epoch"].tolist() == [4, 5, 6]
    assert (path["explained_x"] + path["explained_y"]).to_numpy() == pytest.approx(
        [1] * 3
    )  # a plane has three
    distance = points[points["plane"] == "solutions"].set_index("role")
    assert distance.loc["swa", "x"] == pytest.approx(own_row["distance_to_swa"])
    pictures = sorted(p.suffix for p in (results / "figures").iterdir())
    assert pictures.count(".png") == pictures.count(".svg") == 18
    page = (results / "report.html").read_text()
    claims = tables.read(results / "tables" / "claims.parquet", "claims").to_pandas()
    for statement in claims["statement"].unique():
        assert statement[1:].replace("'", "&#39;") in page  # its first letter is a capital there
    logs = list((results / "logs").rglob("*.log"))
    assert any("epoch 6/6" in log.read_text() for log in logs)
    assert any("direction 2 of 2" in log.read_text() for log in logs)
    assert len(list((results / "benchmarks").rglob("*.tsv"))) >= 20


def test_a_run_that_makes_the_report_ends_with_verdicts_and_its_path_once(finished, monkeypatch):
    folder, text = finished
    said = f"{claims.verdicts_as_text(verdicts_in(folder))}\n\nreport: results/smoke/report.html\n"
    assert text.count(said) == 1
    assert text.index(said) > text.index("(100%) done")
    again = [*command(folder, SMOKE, "--cores", "1", "--forcerun", "report", "--nolock")]
    for who, times in (("", 1), ("later", 0)):  # make and replicate print them after it
        env = {**os.environ, VERDICTS: who}
        done = subprocess.run(again, capture_output=True, text=True, env=env, check=True)
        assert done.stdout.count("\nreport: ") == times
    assert planned(folder, SMOKE) == {}


def verdicts_in(folder):
    return tables.read(folder / "results/smoke/tables/verdicts.parquet", "verdicts").to_pandas()


def test_a_look_at_the_run_s_weights_has_the_run_s_curves_and_verdicts(finished, tmp_path):
    results = finished[0] / "results" / "smoke"
    weights = results / "cells" / "digits" / "mlp" / "quick" / "seed-0" / "swa.safetensors"
    options = ["--n", "2", "--points", "21", "--threads", "1", "--quiet"]
    command = ["probe", "--weights", weights, "--data", results / "data" / "digits", "--out", tmp_path]
    assert main([*map(str, command), *options]) == 0
    for name in ("curves", "directions", "asymmetry", "shift"):
        look, run = (
            tables.read(folder / "tables" / f"{name}.parquet", name).to_pandas()
            for folder in (tmp_path, results)
        )
        run = run[(run["probe"] == "uniform") & (run["solution"] == "swa")].reset_index(drop=True)
        pd.testing.assert_frame_equal(look, run, check_exact=True)


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_has_the_same_results_to_rounding(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    targets = [f"{QUICK}/{name}" for name in ("raw/sgd.safetensors", "probes/uniform/curves.parquet")]
    status, text = snakemake(tmp_path, changed(SMOKE, execution__compile=True), *targets, "--cores", "2")
    assert status == 0, text
    assert list((tmp_path / "compiled").rglob("*.cpp"))
    plain, fast = (load_weights(folder / targets[0])[0] for folder in (finished[0], tmp_path))
    for name, tensor in plain.items():
        torch.testing.assert_close(fast[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    plain, fast = (
        tables.read(folder / targets[1], "curves").to_pandas() for folder in (finished[0], tmp_path)
    )
    for name in ("offset", "train_loss", "test_loss"):
        assert fast[name].to_numpy() == pytest.approx(plain[name].to_numpy(), rel=0.02, abs=1e-3), name


def test_the_graph_of_rules_is_snakemakes(finished):
    folder, text = finished
    graph = rulegraph.read(folder / "results" / "smoke" / rulegraph.FILE)
    steps = int(re.search(r"(\d+) of \1 steps \(100%\) done", text)[1])
    assert sum(graph.jobs.values()) == steps - 1  # but for the target "all"
    _, dot = snakemake(folder, SMOKE, "--rulegraph")
    names = dict(re.findall(r'^\t(\d+)\[label = "(\w+)"', dot, re.M))
    edges = {(names[a], names[b]) for a, b in re.findall(r"^\t(\d+) -> (\d+)$", dot, re.M)}
    assert {edge for edge in graph.edges if edge[0] != edge[1]} == {e for e in edges if e[1] != "all"}
    page = (folder / "results" / "smoke" / "report.html").read_text(encoding="utf-8")
    for rule, count in graph.jobs.items():
        assert re.search(rf">{rule}</text><text[^>]*>{count} jobs?</text>", page), rule


def test_nothing_to_do_after_a_finished_run(finished):
    assert planned(finished[0], SMOKE) == {}


def test_named_targets_make_their_own_part(tmp_path):
    toy = planned(tmp_path, SMOKE, "toy")
    assert toy == {"toy_2d": 1, "figures": 3}
    prevalence = planned(tmp_path, SMOKE, "prevalence")
    assert prevalence["figures"] == 4  # prevalence, sensitivity and a figure for each of two probes
    assert prevalence["probe"] == 3
    assert "interpolate" not in prevalence
    gain = planned(tmp_path, SMOKE, "gain")
    assert (gain["figures"], gain["measure_gain"], gain["detect"]) == (1, 1, 1)
    assert "interpolate" not in gain
    study = planned(tmp_path, SMOKE, "bn")
    assert (study["train_sgd"], study["probe"], study["study"], study["figures"]) == (2, 2, 1, 1)
    assert not {"interpolate", "detect", "claims", "plane"} & set(study)
    assert planned(tmp_path, SMOKE, "theory") == {"simulate_theory": 1, "figures": 2}
    swa = planned(tmp_path, SMOKE, "swa")
    assert swa["interpolate"] == 1
    assert swa["figures"] == 2
    assert planned(tmp_path, SMOKE, "basin")["interpolate"] == 1  # its table; no line leaves a cell here
    assert "figures" not in planned(tmp_path, SMOKE, "basin")
    assert not {"probe", "detect", "toy_2d", "claims", "report", "plane"} & set(swa)
    planes = planned(tmp_path, SMOKE, "planes")
    assert (planes["plane"], planes["aggregate"], planes["figures"]) == (3, 2, 3)
    assert planes["directions"] == 1  # the gradient, which spans one of them
    assert not {"probe", "interpolate", "detect", "claims", "report"} & set(planes)


@pytest.mark.parametrize("keep", ["window", "none"])
def test_execution_keys_rerun_nothing(finished, keep):
    changes = {"checkpoint_every": 5, "device": "cpu", "compile": True, "resident_mb": 0, "keep": keep}
    changes |= {"cpu_speed": 3, "gpu_speed": 3}  # which ask for other resources
    config = changed(SMOKE, **{f"execution__{key}": value for key, value in changes.items()})
    assert planned(finished[0], config) == {}


def test_figure_style_redraws_only(finished):
    jobs = planned(finished[0], changed(SMOKE, figures={"dpi": 90}))
    assert jobs == {"figures": 18, "report": 1}


def test_figures_for_a_paper_leave_those_of_the_report(finished):
    block = {"format": "pdf", "width": 3.35, "font": "serif"}
    assert planned(finished[0], changed(SMOKE, figures=block)) == {"panels": 18}
    assert planned(finished[0], changed(SMOKE, figures=block), "toy") == {"panels": 3}


def test_a_new_seed_trains_just_that_seed(finished):
    jobs = planned(finished[0], changed(SMOKE, seeds=[0, 1]))
    once = ("train_sgd", "average", "descend", "evaluate", "directions", "interpolate", "detect")
    assert {rule: jobs[rule] for rule in once} == dict.fromkeys(once, 1)
    assert jobs["refresh_bn"] == 3
    assert (jobs["probe"], jobs["search_directions"]) == (3, 1)
    assert "prepare_dataset" not in jobs
    assert not {"toy_2d", "simulate_theory", "plane"} & set(jobs)  # a plane is of the smallest seed


def test_a_new_direction_kind_probes_just_that(finished):
    jobs = planned(finished[0], changed(SMOKE, probes__gaussian={"kind": "gaussian", "n": 2, "points": 21}))
    assert jobs.pop("figures") <= 7  # prevalence, sensitivity, shift, theory-measured and one figure a probe
    assert jobs == {"probe": 1, "aggregate": 5, **JUDGED, "claims": 1, "report": 1}


def test_more_directions_probe_that_kind_again(finished):
    jobs = planned(finished[0], changed(SMOKE, probes__uniform__n=3))
    assert jobs["probe"] == 2  # the grid's cell, and the study's other one
    assert not {"train_sgd", "average", "refresh_bn", "descend", "evaluate", "interpolate"} & set(jobs)


def test_another_window_averages_again_and_trains_nothing(finished):
    jobs = planned(finished[0], changed(SMOKE, recipes__quick__swa__window=2))
    assert "train_sgd" not in jobs
    assert "prepare_dataset" not in jobs
    assert jobs["average"] == jobs["descend"] == jobs["evaluate"] == jobs["interpolate"] == 1
    assert jobs["refresh_bn"] == 2  # swa and descent; sgd stays
    assert jobs["probe"] == 2  # the searched one says where swa lies; the gradient probe reads sgd only


def test_another_cooldown_trains_nothing_but_it(finished):
    jobs = planned(finished[0], changed(SMOKE, recipes__quick__cooldown={"epochs": 5}))
    assert jobs["cooldown"] == jobs["refresh_bn"] == 2  # sgd, of both cells
    assert not {"prepare_dataset", "split_dataset", "train_sgd", "average", "descend"} & set(jobs)


def test_the_solution_last_is_made_of_what_training_left(finished):
    """It is the end of the training that is done: asked for, it is refreshed and evaluated."""
    assert not (finished[0] / QUICK / "last.safetensors").exists()  # nobody asked
    wanted = changed(SMOKE, grid=[SMOKE["grid"][0] | {"solutions": ["sgd", "swa", "descent", "last"]}])
    jobs = planned(finished[0], wanted)
    assert jobs["refresh_bn"] == jobs["evaluate"] == 1
    trained = {"prepare_dataset", "split_dataset", "train_sgd", "cooldown", "average", "descend"}
    assert not trained & set(jobs)


def test_other_constants_judge_again_and_probe_nothing_but_what_is_searched_by_them(finished):
    jobs = planned(finished[0], changed(SMOKE, asymmetry={"c": 3}))
    assert (jobs.pop("search_directions"), jobs.pop("probe")) == (1, 1)
    assert set(jobs) == {*JUDGED, "study", "toy_2d", "aggregate", "claims", "figures", "report"}
    # curves and directions of what is searched, asymmetry and shift, which detect writes together,
    # theory_measured, and the tables of searches
    assert jobs["aggregate"] == 7


def test_a_new_plane_makes_just_that(finished):
    jobs = planned(finished[0], changed(SMOKE, planes__new={"through": ["swa", "descent", "sgd"]}))
    assert jobs == {"plane": 1, "aggregate": 2, "claims": 1, "figures": 4, "report": 1}
    jobs = planned(finished[0], changed(SMOKE, planes__iterates__points=6))
    assert jobs == {"plane": 1, "aggregate": 2, "claims": 1, "figures": 3, "report": 1}


def test_a_toy_setting_reruns_the_toy_only(finished):
    jobs = planned(finished[0], changed(SMOKE, toy_2d__n_draws=6))
    assert jobs == {"toy_2d": 1, "claims": 1, "figures": 3, "report": 1}


def test_a_theory_setting_reruns_the_simulations_only(finished):
    jobs = planned(finished[0], changed(SMOKE, theory__ratios=[1, 2]))
    assert jobs == {"simulate_theory": 1, "claims": 1, "figures": 2, "report": 1}


def test_a_raised_stage_version_remakes_that_stage(finished, monkeypatch):
    """Params carry the algorithm version: what depends on the stage is remade, what it depends on is not."""
    config = Params(Experiment(_filled(SMOKE)))
    before = config.detect()
    monkeypatch.setitem(versions.VERSIONS, "detect", versions.VERSIONS["detect"] + 1)
    assert config.detect() != before


def plan_of(folder, config, *args):
    """What `valleys plan` prints: {rule: (to do, done)}, and the text."""
    path = Path(folder) / "config-under-test.yaml"
    path.write_text(yaml.safe_dump(config))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow" / "scripts")}
    done = subprocess.run(
        [sys.executable, "-m", "valleys", "plan", str(path), *args],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^(\w+) +(\d+) +(\d+) +\S", done.stdout, re.M)
    return {rule: (int(todo), int(made)) for rule, todo, made in rows}, done.stdout


def counted(found):
    """The jobs to do of a plan, as `planned` gives those of a dry run."""
    return {rule: todo for rule, (todo, _) in found.items() if todo and rule != "total"}


def test_a_plan_has_the_jobs_of_a_dry_run(finished, tmp_path):
    folder, _ = finished
    before = sorted(str(path) for path in (folder / "results").rglob("*"))
    found, text = plan_of(folder, SMOKE)
    everything, _ = plan_of(tmp_path, SMOKE)
    assert counted(everything) == planned(tmp_path, SMOKE)
    assert counted(found) == {}
    assert {rule: made for rule, (_, made) in found.items()} == {
        rule: todo for rule, (todo, _) in everything.items()
    }
    assert "Longest path: -" in text
    assert sorted(str(path) for path in (folder / "results").rglob("*")) == before  # a plan changes nothing
    another = changed(SMOKE, seeds=[0, 1])
    found, text = plan_of(folder, another)
    assert counted(found) == planned(folder, another)
    line = next(line for line in text.splitlines() if line.startswith("train_sgd"))
    assert line.endswith("measured")
    found, _ = plan_of(folder, another, "toy")
    assert found["total"] == (0, 4)  # the simulation and its three figures
    style = changed(SMOKE, figures={"dpi": 90})
    assert counted(plan_of(folder, style)[0]) == planned(folder, style)


@pytest.mark.parametrize(("name", "cells"), [("paper", 100), ("imagenet", 3)])
def test_grids_for_a_cluster_pass_a_dry_run(tmp_path, name, cells):
    """The plan needs no data, a dry run what is to be read; training asks for a GPU and for hours."""
    config = load(f"config/{name}.yaml")
    experiment = Experiment(_filled(config))
    assert len(experiment.cells) == cells
    found, text = plan_of(tmp_path, config)
    for dataset in config["datasets"].values():
        if "root" in dataset:
            dataset["download"] = True  # when the job runs
        else:
            for part in ("train", "test"):
                (tmp_path / dataset[part]).mkdir(parents=True)
    assert found["train_sgd"] == (len(experiment.all_cells), 0)
    assert found["descend"][0] >= cells
    cell = experiment.cells[0]
    status, text = snakemake(tmp_path, config, f"results/{name}/cells/{cell.path}/training.parquet", "-n")
    assert status == 0, text
    asked = re.search(r"rule train_sgd:.*?resources: (.*?)$", text, re.M | re.S)[1]
    assert "gpu=1" in asked
    assert int(re.search(r"runtime=(\d+)", asked)[1]) > 60
    assert not (tmp_path / "results").exists()


def test_a_plan_of_a_bad_config_is_one_line(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(SMOKE | {"sedes": [1]}))
    done = subprocess.run(
        [sys.executable, "-m", "valleys", "plan", "c.yaml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow" / "scripts")},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: config: top level: unknown key 'sedes', did you mean 'seeds'?")
    assert done.stderr.count("\n") == 1


WINDOW = changed(ALONE, recipes__quick__swa__window=2, planes={}, probes={})
QUICK = "results/smoke/cells/digits/mlp/quick/seed-0"


def test_iterates_of_the_window_are_kept(tmp_path):
    """With keep window as many as are averaged, with none none: the same average, and a way to more."""
    target, found = f"{QUICK}/swa.safetensors", {}
    for keep in ("all", "window", "none"):
        (tmp_path / keep).mkdir()
        config = changed(WINDOW, execution__keep=keep)
        status, text = snakemake(tmp_path / keep, config, target, "--cores", "2")
        assert status == 0, text
        assert planned(tmp_path / keep, config, target) == {}
        found[keep] = sorted(p.name for p in (tmp_path / keep / QUICK / "iterates").glob("[de]*"))
    assert found["all"] == [f"epoch-{epoch:05d}.safetensors" for epoch in (4, 5, 6)]
    assert found["window"] == ["dropped.json", *found["all"][1:]]
    assert not (tmp_path / "none" / QUICK / "iterates").exists()
    assert len({(tmp_path / keep / target).read_bytes() for keep in found}) == 1

    longer = changed(WINDOW, execution__keep="window", recipes__quick__swa__window=3)
    text = failing(tmp_path / "window", longer, target)
    assert "keeps the last 2 iterates (execution.keep) and 3 are wanted; delete it to train again" in text

    none = changed(WINDOW, execution__keep="none")
    again = planned(tmp_path / "none", changed(none, recipes__quick__swa__window=3), target)
    assert again["train_sgd"] == again["average"] == 1
    gradient = changed(none, probes={"gradient": {"kind": "gradient", "points": 21, "solutions": ["sgd"]}})
    new = planned(tmp_path / "none", gradient, f"{QUICK}/probes/gradient/curves.parquet")
    assert "train_sgd" not in new  # principal components alone read the iterates
    assert new["directions"] == new["probe"] == 1


def test_all_iterates_are_written_where_a_plane_needs_them():
    config = changed(SMOKE, recipes__quick__swa__window=2, execution__keep="window", seeds=[0, 1])
    found = Experiment(_filled(config))
    first, second = found.cells
    assert [found.iterates_of(cell) for cell in (first, second)] == [3, 2]  # the plane is of one seed
    assert [found.iterates_of(cell, "none") for cell in (first, second)] == [0, 0]
    assert [found.written_iterates(cell, "none") for cell in (first, second)] == [3, 2]
    config = changed(config, probes__pca={"kind": "pca", "n": 2, "points": 21})
    assert Experiment(_filled(config)).iterates_of(second) == 3


def _filled(config):
    return fill_defaults(changed(config))


def test_more_directions_keep_those_that_are_done(finished, tmp_path):
    """Grow a probe for real: the first curves are the same numbers, read back and not probed again."""
    folder = tmp_path / "grown"
    shutil.copytree(finished[0], folder)
    cell = "results/smoke/cells/digits/mlp/quick/seed-0"
    curves = folder / cell / "probes/uniform/curves.parquet"
    before = tables.read(curves, "curves").to_pandas()
    config = changed(SMOKE, probes__uniform__n=3)
    target = f"{cell}/probes/uniform/curves.parquet"
    status, text = snakemake(folder, config, target, "--cores", "1")
    assert status == 0, text
    after = tables.read(curves, "curves").to_pandas()
    assert after[after["k"] < 2].reset_index(drop=True).equals(before)
    assert set(after["k"]) == {0, 1, 2}
    log = (folder / "results/smoke/logs/digits/mlp/quick/seed-0/probe-uniform.log").read_text()
    assert "direction 3 of 3" in log
    assert "direction 1 of 3" not in log


STUDY = changed(
    ALONE,
    name="study",
    datasets={"digits": {"source": "digits", "train_size": 100, "max_test": 50}},
    recipes__more={**SMOKE["recipes"]["quick"], "epochs": 2, "swa": {"start": 1, "lr": 0.05}}
    | {"start_from": {"recipe": "quick"}},
    execution__probe_jobs="together",
    studies={
        "l2": {"dataset": "digits", "model": "mlp", "recipe": "quick", "penalty": True}
        | {"factors": {"recipe.weight_decay": [5e-4, 0.01]}, "probes": ["uniform"]},
        "pair": {"dataset": "digits", "model": "mlp", "recipe": "quick", "probes": ["uniform"]}
        | {"factors": {"recipe": ["quick", "more"]}},
    },
)


def test_studies_and_probes_together(tmp_path):
    """Two studies that share a cell, one of them with a recipe that starts from another's solution."""
    targets = [f"results/study/tables/{name}.parquet" for name in ("l2", "pair")]
    status, text = snakemake(tmp_path, STUDY, *targets, "--cores", "2")
    assert status == 0, text
    cells = tmp_path / "results/study/cells/digits/mlp"
    assert sorted(p.name for p in cells.iterdir()) == ["more", "quick", "quick.weight_decay-0.01"]
    l2, pair = (tables.read(tmp_path / path, "study").to_pandas() for path in targets)
    assert l2.groupby(["recipe", "penalty"]).size().tolist() == [2] * 4  # of n = 2, at sgd alone
    assert set(pair["recipe"]) == {"quick", "more"}
    assert set(l2["probe"]) | set(pair["probe"]) == {"uniform"}
    # What starts from a solution begins with its loss, not with that of fresh weights.
    training = {
        name: tables.read(cells / name / "seed-0/training.parquet", "training").to_pandas()["train_loss"]
        for name in ("quick", "more")
    }
    assert training["more"].iloc[0] < (training["quick"].iloc[0] + training["quick"].iloc[-1]) / 2
    assert planned(tmp_path, STUDY, *targets) == {}
    # Another probe in the same job: the job runs again, and reads back what is done.
    shared = cells / "quick/seed-0/probes/together"
    before = tables.read(shared / "curves.parquet", "curves").to_pandas()
    gaussian = {"kind": "gaussian", "n": 1, "points": 21, "precision": "bf16"}
    more = changed(STUDY, probes__gaussian=gaussian, studies__pair__probes=["gaussian"])
    status, text = snakemake(tmp_path, more, targets[1], "--cores", "2")
    assert status == 0, text
    after = tables.read(shared / "curves.parquet", "curves").to_pandas()
    assert after[after["probe"] != "gaussian"].reset_index(drop=True).equals(before)
    measured = tables.read(shared / "directions.parquet", "directions").to_pandas().groupby("probe")
    assert set(measured["precision_error"].min().dropna().index) == {"gaussian"}
    assert measured["precision_error"].min()["gaussian"] > 0
    assert set(measured.get_group("uniform")["precision"]) == {"fp32"}
    log = (tmp_path / "results/study/logs/digits/mlp/quick/seed-0/probe-together.log").read_text()
    assert log.count("direction 1 of 1") == log.count("direction ") == 2  # the new one, at sgd and swa
    alone = planned(tmp_path, changed(more, execution__probe_jobs="separate"), targets[1])
    assert set(alone) == {"probe", "study"}  # nothing is trained for it


SEEDS = changed(
    ALONE,
    name="seeds",
    seeds=[0, 1],
    datasets={"digits": {"source": "digits", "train_size": 100, "max_test": 50}},
    probes={
        "hessian": {"kind": "hessian", "n": 2, "points": 9, "bn": "frozen", "train_images": 60},
        "head": {
            "kind": "hessian",
            "n": 1,
            "points": 9,
            "group": "classifier",
            "solutions": ["sgd"],
            "slopes": "exact",
        },
        "other": {"kind": "to_seed", "n": 1, "points": 9, "solutions": ["swa"]},
        "few": {"kind": "gaussian", "n": 4, "points": 21, "adaptive": True, "solutions": ["sgd"]},
        "settled": {"kind": "gaussian", "n": 2, "points": 21, "until": 0.95, "solutions": ["sgd"]},
    },
    planes={},
)


def seed_targets(*seeds):
    cells = [f"results/seeds/cells/digits/mlp/quick/seed-{seed}" for seed in seeds]
    return [f"{cell}/probes/{probe}/directions.parquet" for cell in cells for probe in SEEDS["probes"]]


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    """The probes of two seeds, by computed directions: folder."""
    folder = tmp_path_factory.mktemp("seeds")
    status, text = snakemake(folder, SEEDS, *seed_targets(0, 1), "--cores", "2")
    assert status == 0, text
    return folder


def test_hessian_directions_carry_their_eigenvalues(two_seeds):
    cell = two_seeds / "results/seeds/cells/digits/mlp/quick/seed-0"
    rows = tables.read(cell / "probes/hessian/directions.parquet", "directions").to_pandas()
    curves = tables.read(cell / "probes/hessian/curves.parquet", "curves").to_pandas()
    _, header = load_weights(cell / "probes/hessian/directions.safetensors")
    assert len(rows) == 4  # two at each of sgd and swa
    for solution, found in rows.groupby("solution"):
        values = found.sort_values("k")["eigenvalue"].tolist()
        assert values == [row["eigenvalue"] for row in header["columns"][solution]]
        assert values[0] > values[1] > 0
    assert rows["to_seed"].isna().all()
    assert rows["norm"].tolist() == pytest.approx([1] * 4)
    # Their loss, BN frozen, has a second difference near the eigenvalue: the offsets are not small.
    for row in rows.itertuples():
        line = curves[(curves["solution"] == row.solution) & (curves["k"] == row.k)].sort_values("offset")
        before, at, after = line["train_loss"].iloc[3:6]
        assert (before - 2 * at + after) / (row.radius / 4) ** 2 == pytest.approx(row.eigenvalue, rel=0.5)
    head = tables.read(cell / "probes/head/directions.parquet", "directions").to_pandas()
    assert head["entries"].item() == 170  # 16 x 10 weights, 10 biases
    assert head["eigenvalue"].notna().all()


def test_an_adaptive_probe_has_points_where_its_verdicts_need_them(two_seeds):
    cell = two_seeds / "results/seeds/cells/digits/mlp/quick/seed-0"
    curves = tables.read(cell / "probes/few/curves.parquet", "curves").to_pandas()
    rows = tables.read(cell / "probes/few/directions.parquet", "directions").to_pandas()
    sizes = curves.groupby("k").size()
    assert rows.sort_values("k")["points"].tolist() == sizes.tolist()
    assert set(curves["grid_points"]) == {21}
    constants = fill_defaults(SEEDS)["asymmetry"]
    for _, curve in curves.groupby("k"):
        curve = curve.sort_values("offset")
        x, train, test = (curve[key].to_numpy() for key in ("offset", "train_loss", "test_loss"))
        whole = np.linspace(-x[-1], x[-1], 21)
        at = np.abs(whole[:, None] - x).argmin(axis=0).tolist()
        assert whole[at] == pytest.approx(x)
        assert set(next_point.first_points(21)) <= set(at)
        assert next_point.next_point(whole, at, train, beside=test, **constants) is None


def test_a_probe_on_a_subset_has_the_errors_of_that_and_others_have_no_such_columns(two_seeds):
    cell = two_seeds / "results/seeds/cells/digits/mlp/quick/seed-0"
    paths = {probe: cell / f"probes/{probe}/curves.parquet" for probe in SEEDS["probes"]}
    columns = {probe: set(pq.read_schema(path).names) for probe, path in paths.items()}
    assert {"train_error", "train_error_3"} <= columns["hessian"]
    extras = tables.extras("curves")
    assert "test_error" not in columns["hessian"]  # all test images are used
    assert (extras & columns["head"], extras & columns["few"]) == (set(), {"grid_points"})
    # Of 100 train images there are too few for a look at some: all settle it.
    about = tables.read(cell / "probes/settled/directions.parquet", "directions").to_pandas()
    assert about[["settled", "confidence", "images"]].to_numpy().tolist() == [[True, 0.95, 100]] * 2
    assert "settled" not in pq.read_schema(cell / "probes/few/directions.parquet").names
    errors = tables.read(cell / "probes/hessian/curves.parquet", "curves").to_pandas()
    assert (errors.loc[errors["offset"] != 0, "train_error"] > 0).all()


def test_exact_slopes_are_in_the_table_of_the_probe_that_asks_for_them(two_seeds):
    cell = two_seeds / "results/seeds/cells/digits/mlp/quick/seed-0"
    plain = tables.read(cell / "probes/hessian/curves.parquet", "curves").to_pandas()
    assert plain["train_slope"].isna().all()
    line = tables.read(cell / "probes/head/curves.parquet", "curves").to_pandas().sort_values("offset")
    assert line["train_slope"].notna().all()
    # The loss is convex in the last layer: each difference quotient lies between the slopes at its ends.
    quotients = np.diff(line["train_loss"]) / np.diff(line["offset"])
    slopes = line["train_slope"].to_numpy()
    assert (slopes[:-1] < quotients).all()
    assert (quotients < slopes[1:]).all()


def test_directions_to_another_seed_lead_there(two_seeds):
    cells = {seed: two_seeds / f"results/seeds/cells/digits/mlp/quick/seed-{seed}" for seed in (0, 1)}
    swa = {seed: load_weights(cell / "swa.safetensors")[0] for seed, cell in cells.items()}
    for seed, other in ((0, 1), (1, 0)):
        found, _ = load_weights(cells[seed] / "probes/other/directions.safetensors")
        assert found.keys() == {f"swa/0/{n}" for n in swa[0] if "running" not in n and "num_batches" not in n}
        for name, tensor in found.items():
            parameter = name.split("/")[-1]
            assert (tensor == swa[other][parameter] - swa[seed][parameter]).all()
        (row,) = tables.read(cells[seed] / "probes/other/directions.parquet", "directions").to_pylist()
        assert (row["kind"], row["to_seed"], row["eigenvalue"]) == ("to_seed", other, None)
        assert row["norm"] == pytest.approx(sum(float(t.square().sum()) for t in found.values()) ** 0.5)


def test_a_new_seed_leaves_the_directions_of_others(two_seeds):
    assert planned(two_seeds, SEEDS, *seed_targets(0, 1)) == {}
    three = changed(SEEDS, seeds=[0, 1, 2])
    assert planned(two_seeds, three, *seed_targets(0, 1)) == {}
    jobs = planned(two_seeds, three, *seed_targets(0, 1, 2))
    assert jobs["train_sgd"] == 1
    assert (jobs["directions"], jobs["probe"]) == (3, 5)  # those of two probes are drawn
    # Only where a probe asks for more other seeds than there were does the new one make it go again.
    two = changed(three, probes__other__n=2)
    before = planned(two_seeds, changed(SEEDS, probes__other__n=2), *seed_targets(0, 1))
    assert before == {"directions": 2, "probe": 2}  # its n has changed
    jobs = planned(two_seeds, two, *seed_targets(0, 1))
    assert jobs["directions"] == jobs["probe"] == 2
    assert jobs["train_sgd"] == 1


def test_hessian_of_too_many_directions_is_explained(two_seeds):
    probe = {"kind": "hessian", "n": 16, "group": "bn_weight", "points": 9, "solutions": ["sgd"]}
    target = "results/seeds/cells/digits/mlp/quick/seed-0/probes/scale/directions.safetensors"
    text = failing(two_seeds, changed(SEEDS, probes__scale=probe), target)
    assert "at most 15 eigenvectors over a group of 16 parameters, not 16" in text


def test_a_hessian_probe_is_planned_beside_the_others(finished):
    jobs = planned(finished[0], changed(SMOKE, probes__hessian={"kind": "hessian", "n": 2, "points": 21}))
    assert jobs.pop("figures") <= 7  # prevalence, sensitivity, shift, theory-measured and one figure a probe
    assert jobs == {"directions": 1, "probe": 1, "aggregate": 5, **JUDGED, "claims": 1, "report": 1}


PATHS = changed(
    ALONE,
    name="paths",
    seeds=[0, 1],
    datasets={"digits": {"source": "digits", "train_size": 100, "max_test": 50}},
    recipes__wide={**SMOKE["recipes"]["quick"], "batch_size": 25},
    grid=[{"dataset": "digits", "model": "mlp", "recipe": ["quick", "wide"]}],
    probes={},
    planes={},
    lines={
        "own": {"start": "swa", "stop": "descent", "first": -1, "last": 2, "divisions": 2},
        "recipe": {"start": "swa", "stop": "swa", "stop_recipe": "wide", "divisions": 2},
        "seeds": {"start": "swa", "stop": "swa", "stop_seed": "next", "first": 0, "last": 1, "divisions": 4},
        "curve": {
            **{"start": "swa", "stop": "swa", "stop_seed": "next", "divisions": 4},
            **{"path": "bezier", "epochs": 30, "lr": 0.1},
        },
    },
)


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """Lines and paths between the cells of two recipes and two seeds, with claims and figures: folder."""
    folder = tmp_path_factory.mktemp("paths")
    status, text = snakemake(folder, PATHS, "basin", "results/paths/tables/claims.parquet", "--cores", "2")
    assert status == 0, text
    return folder


def test_lines_and_paths_between_cells(joined):
    """From trained cells to verdicts: the ends of each line have the losses that `evaluate` found there."""
    found = joined / "results/paths/tables"
    rows = tables.read(found / "interpolation.parquet", "interpolation").to_pandas()
    solutions = tables.read(found / "solutions.parquet", "solutions").to_pandas()
    own = solutions.set_index(["recipe", "seed", "solution"])["train_loss"]
    lines = rows.groupby("line").apply(lambda r: sorted({*zip(r.recipe, r.seed, strict=True)}))
    quick, wide = ([(recipe, 0), (recipe, 1)] for recipe in ("quick", "wide"))
    assert lines.to_dict() == {
        "own": quick + wide,
        "recipe": quick,
        "seeds": [("quick", 0), ("wide", 0)],
        "curve": [("quick", 0), ("wide", 0)],
    }
    for row in rows.itertuples():
        if row.t == 0:
            assert row.train_loss == pytest.approx(own[row.recipe, row.seed, row.start], rel=1e-5)
            assert row.offset == 0
        if row.t == 1:
            assert row.train_loss == pytest.approx(own[row.stop_recipe, row.stop_seed, row.stop], rel=1e-5)
    assert rows.groupby("line")["path"].first()["curve"] == "bezier"
    assert rows[rows["line"] == "recipe"]["t"].agg(["min", "max"]).tolist() == [-2, 3]
    ends = rows[rows["t"] == 1].set_index(["line", "recipe", "seed"])["offset"]
    for recipe in ("quick", "wide"):  # a straight line is the shortest path
        assert ends["curve", recipe, 0] > 1.001 * ends["seeds", recipe, 0] > 0
    claims = tables.read(found / "claims.parquet", "claims").to_pandas()
    basin = claims[claims["experiment"] == 6].groupby("claim")["scope"].apply(list).to_dict()
    assert basin == {
        "one_basin": ["digits/mlp/quick/recipe"],
        "line_looks_sharp_from_one_side": ["digits/mlp/quick/recipe"],
        "seeds_are_apart": ["digits/mlp/quick/seeds", "digits/mlp/wide/seeds"],
        "seeds_are_connected": ["digits/mlp/quick/curve", "digits/mlp/wide/curve"],
    }
    between = rows[rows["t"].between(0.01, 0.99)].groupby(["line", "recipe"])["train_loss"].max()
    for recipe in ("quick", "wide"):
        assert between["curve", recipe] < between["seeds", recipe]
    figures = {path.stem for path in (joined / "results/paths/figures").glob("*.svg")}
    assert figures == {"line-recipe", "line-seeds", "line-curve"}
    assert not list((joined / "results/paths/cells").rglob("connect-*"))  # state, removed when done


def test_a_new_seed_measures_just_its_own_lines(joined):
    assert planned(joined, PATHS, "basin") == {}
    jobs = planned(joined, changed(PATHS, seeds=[0, 1, 2]), "basin")
    assert jobs["train_sgd"] == 2
    assert jobs["connect"] == 2  # from seed 1 to seed 2, of both recipes
    assert jobs["interpolate"] == 2 + 1 + 2 + 2  # own, recipe, seeds, curve


def test_settings_of_a_path_train_its_bends_again_and_nothing_else(joined):
    jobs = planned(joined, changed(PATHS, lines__curve__epochs=31), "basin")
    assert jobs == {"connect": 2, "interpolate": 2, "aggregate": 1, "figures": 3}
    jobs = planned(joined, changed(PATHS, lines__curve__divisions=5), "basin")
    assert jobs == {"interpolate": 2, "aggregate": 1, "figures": 3}
    target = "results/paths/tables/claims.parquet"
    assert planned(joined, changed(PATHS, claims={"barrier": 0.2}), target)["claims"] == 1


def test_bends_of_other_ends_are_refused(joined, tmp_path):
    import shutil

    cells = "results/paths/cells/digits/mlp"
    shutil.copytree(joined / "results", tmp_path / "results")
    bends = [
        tmp_path / cells / recipe / "seed-0/lines/curve-bends.safetensors" for recipe in ("quick", "wide")
    ]
    shutil.copy(bends[1], bends[0])
    text = failing(tmp_path, PATHS, f"{cells}/quick/seed-0/lines/curve.parquet")
    assert "has another start and stop than this line; delete it and rerun" in text


def test_a_line_from_the_greatest_seed_is_explained(joined):
    target = "results/paths/cells/digits/mlp/quick/seed-1/lines/seeds.parquet"
    status, text = snakemake(joined, PATHS, target, "-n")
    assert status != 0
    assert "line seeds: no cell for its stop when it starts in digits/mlp/quick/seed-1" in text


LONG = changed(
    ALONE,
    name="long",
    recipes__quick__epochs=150,
    recipes__quick__swa__start=140,
    recipes__quick__eval_every=150,
)
CELL = "results/long/cells/digits/mlp/quick/seed-0"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A training that nothing stops; its folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    status, text = snakemake(folder, LONG, f"{CELL}/raw/last.safetensors", "--cores", "1")
    assert status == 0, text
    return folder


def test_a_killed_training_job_resumes_bit_identical(undisturbed, tmp_path):
    """Kill the job of a real Snakemake run, twice; reruns go on from its checkpoint, to the same bits."""
    target, folder = f"{CELL}/raw/last.safetensors", tmp_path

    def last_saved():
        found = (folder / CELL / "state").rglob("checkpoint.pt")
        return max((path.stat().st_mtime_ns for path in found), default=0)

    for number in (signal.SIGKILL, signal.SIGTERM):
        before = last_saved()
        run = subprocess.Popen(
            command(folder, LONG, target, "--cores", "1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
        )
        deadline = time.monotonic() + 120
        job = None
        while time.monotonic() < deadline and run.poll() is None:
            job = next(iter(_training_processes(run.pid)), None)
            if job and last_saved() > before:
                time.sleep(0.1)
                os.kill(job, number)
                break
            time.sleep(0.01)
        text, _ = run.communicate(timeout=60)
        assert run.returncode != 0, text
        assert job is not None
        assert not (folder / target).exists()

    status, text = snakemake(folder, LONG, target, "--cores", "1")
    assert status == 0, text
    log = (folder / "results/long/logs/digits/mlp/quick/seed-0/train_sgd.log").read_text()
    assert "resumed from" in log
    assert not list((folder / CELL / "state").glob("train-*"))
    # SIGKILL may leave a temporary file behind; it is gone when the run is done.
    assert not list(folder.rglob("*.tmp"))
    first, _ = load_weights(undisturbed / target)
    second, _ = load_weights(folder / target)
    assert all((first[k] == second[k]).all() for k in first)
    assert (undisturbed / target).read_bytes() == (folder / target).read_bytes()
    table = Path(CELL) / "training.parquet"
    assert (undisturbed / table).read_bytes() == (folder / table).read_bytes()


def _training_processes(parent):
    """Process ids of the train_sgd script among the descendants of a process."""
    import psutil

    found = []
    for process in psutil.Process(parent).children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.Error:  # it has just ended
            continue
        if words and words[-1].endswith("train_sgd.py"):
            found.append(process.pid)
    return found


CIFAR = ROOT.parent / "shared" / "data" / "cifar10"


@pytest.mark.long
@pytest.mark.skipif(not CIFAR.is_dir(), reason=f"the CIFAR-10 parquet files are not at {CIFAR}")
def test_cifar10_from_parquet_to_verdicts(tmp_path):
    """Real colour images, a published architecture, both computed and drawn directions."""
    source = {"source": "parquet", "train": str(CIFAR / "train.parquet"), "test": str(CIFAR / "test.parquet")}
    config = changed(
        ALONE,
        name="cifar",
        datasets={"cifar10": {**source, "max_train": 128, "max_test": 64}},
        models={"preresnet20": {"arch": "preresnet", "depth": 20}},
        grid=[{"dataset": "cifar10", "model": "preresnet20", "recipe": "quick"}],
        recipes__quick__epochs=3,
        recipes__quick__swa__start=1,
        recipes__quick__augment={"shift": 4, "flip": True},
        probes={
            "uniform": {"kind": "uniform", "n": 1, "points": 9, "solutions": ["swa"]},
            "bn": {"kind": "gaussian", "group": "bn_weight", "n": 1, "points": 9, "solutions": ["swa"]},
        },
        planes={},
        bn_refresh={"batch_size": 64},
    )
    cell = "results/cifar/cells/cifar10/preresnet20/quick/seed-0"
    status, text = snakemake(tmp_path, config, f"{cell}/asymmetry.parquet", "--cores", "2")
    assert status == 0, text
    rows = tables.read(tmp_path / cell / "asymmetry.parquet", "asymmetry").to_pandas()
    assert sorted(rows["probe"]) == ["bn", "uniform"]
    directions = tables.read(tmp_path / cell / "probes/bn/directions.parquet", "directions").to_pandas()
    assert directions["entries"].item() == 688  # scales of PreResNet-20's batch norms
    training = tables.read(tmp_path / cell / "training.parquet", "training").to_pandas()
    assert training["train_loss"].notna().all()


# Bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**SMOKE, "sedes": [1]}, "unknown key 'sedes', did you mean 'seeds'?"),
        (changed(SMOKE, recipes__quick__epcohs=3), "config: recipes.quick: unknown key 'epcohs'"),
        (changed(SMOKE, models__mlp__arch="resnet88"), "did you mean 'resnet8'?"),
        (changed(SMOKE, datasets__digits__source="digit"), "did you mean 'digits'"),
        (changed(SMOKE, name="../escape"), "config: name: '../escape' cannot be a name"),
        (changed(SMOKE, probes__uniform__kind="unifrom"), "did you mean 'uniform'?"),
    ],
)
def test_config_mistakes_fail_at_once_with_one_line(tmp_path, config, message):
    start = time.monotonic()
    status, text = snakemake(tmp_path, config, "-n")
    assert status != 0
    assert message in text
    assert "Traceback" not in text
    assert time.monotonic() - start < 20  # a hang guard; about a second where the machine is idle
    assert not (tmp_path / "results").exists()


def failing(folder, config, target=None):
    args = [target] if target else []
    status, text = snakemake(folder, config, *args, "--cores", "2")
    assert status != 0, text
    assert "Traceback" not in text, text
    return text


def test_missing_and_truncated_data_files(tmp_path):
    missing = changed(
        SMOKE, datasets__digits={"source": "parquet", "train": "nowhere.parquet", "test": "nowhere.parquet"}
    )
    text = failing(tmp_path, missing, "results/smoke/data/digits/train.safetensors")
    assert "nowhere.parquet" in text
    (tmp_path / "short.parquet").write_bytes(b"PAR1 and no more")
    short = changed(
        SMOKE, datasets__digits={"source": "parquet", "train": "short.parquet", "test": "short.parquet"}
    )
    text = failing(tmp_path, short, "results/smoke/data/digits/train.safetensors")
    assert "short.parquet" in text


def test_damaged_intermediates_are_named(finished, tmp_path):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    data = folder / "results/smoke/data/digits/train.safetensors"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 4
    data.write_bytes(content)
    text = failing(folder, SMOKE)
    assert "train.safetensors is damaged" in text
    assert "rerun prepare_dataset" in text


def test_divergence_is_explained(tmp_path):
    config = changed(SMOKE, recipes__quick__lr=1e5, models__mlp__norm="none")
    text = failing(tmp_path, config, "results/smoke/cells/digits/mlp/quick/seed-0/raw/sgd.safetensors")
    assert "training diverged" in text
    assert "lower the recipe's lr" in text


def test_unwritable_results_folder(tmp_path):
    (tmp_path / "results").write_text("a file where the folder should be")
    status, text = snakemake(tmp_path, SMOKE, "--cores", "2")
    assert status != 0
    assert "results" in text
    assert "Traceback" not in text
