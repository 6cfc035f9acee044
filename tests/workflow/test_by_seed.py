"""Data of their own for each seed: their jobs, what a change makes again, and a run to its tables."""

import pytest
import torch
from valleys.cli.commands import main
from valleys.data.cache import clean_labels, load_split, read_metadata
from valleys.storage import tables
from workflow_runs import changed, load, planned, snakemake

pytestmark = pytest.mark.slow

SMOKE = load("config/smoke.yaml")
DIGITS = {"source": "digits", "train_size": 200, "max_test": 200, "split": "by_seed", "label_noise": 0.1}
LINES = {**SMOKE["lines"], "seeds": {"start": "sgd", "stop": "sgd", "stop_seed": "next", "divisions": 1}}
CONFIG = changed(
    SMOKE,
    datasets={"digits": DIGITS, "plain": {"source": "digits", "train_size": 200}},
    grid=[{"dataset": ["digits", "plain"], "model": "mlp", "recipe": "quick"}],
    seeds=[0, 1],
    studies={},
    planes={},
    probes={"uniform": {"kind": "uniform", "n": 1, "points": 21}},
    lines=LINES,
)
TABLES = [f"results/smoke/tables/{name}.parquet" for name in ("solutions", "curves", "interpolation")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The tables of two seeds of two data sets, one of which differs by seed: folder."""
    folder = tmp_path_factory.mktemp("by-seed")
    status, text = snakemake(folder, CONFIG, *TABLES, "--cores", "2")
    assert status == 0, text
    return folder


def of(folder, seed, part):
    return folder / f"results/smoke/data/digits/seed-{seed}/{part}.safetensors"


def test_only_data_that_differ_by_seed_have_a_job_a_seed(tmp_path):
    jobs = planned(tmp_path, CONFIG, *TABLES)
    assert (jobs["prepare_dataset"], jobs["split_dataset"], jobs["train_sgd"]) == (2, 2, 4)
    assert jobs["interpolate"] == 5  # one within each cell; the one to the next seed is of the plain data
    plain = changed(CONFIG, datasets__digits={"source": "digits"})
    assert "split_dataset" not in planned(tmp_path, plain, *TABLES)


def test_each_seed_is_trained_on_its_own_images_and_labels(finished):
    trains, tests = zip(
        *[[load_split(of(finished, seed, part)) for part in ("train", "test")] for seed in (0, 1)],
        strict=True,
    )
    assert [len(split) for split in (*trains, *tests)] == [200] * 4
    assert not torch.equal(trains[0].images, trains[1].images)
    assert trains[0].mean != trains[1].mean
    for seed, train in enumerate(trains):
        wrong = int((train.labels != clean_labels(of(finished, seed, "train"))).sum())
        assert wrong == int(read_metadata(of(finished, seed, "train"))["wrong_labels"]) == 20
    rows = tables.read(finished / TABLES[0], "solutions").to_pandas()
    for (dataset, _), some in rows.groupby(["dataset", "seed"]):
        assert set(some["classes"]) == {10}
        assert some["wrong_labels"].fillna(0).unique().tolist() == [20 if dataset == "digits" else 0]
        assert set(some["n_train"]) == {200}
    lines = tables.read(finished / TABLES[2], "interpolation").to_pandas()
    assert set(lines.loc[lines["line"] == "seeds", "dataset"]) == {"plain"}


def test_a_seed_more_makes_its_split_and_no_other(finished):
    jobs = planned(finished, changed(CONFIG, seeds=[0, 1, 2]), *TABLES)
    assert (jobs["split_dataset"], jobs["train_sgd"]) == (1, 2)
    assert "prepare_dataset" not in jobs
    assert planned(finished, CONFIG, *TABLES) == {}


def test_another_share_of_wrong_labels_reads_no_original_again(finished):
    jobs = planned(finished, changed(CONFIG, datasets__digits__label_noise=0.2), *TABLES)
    assert (jobs["split_dataset"], jobs["train_sgd"]) == (2, 2)
    assert "prepare_dataset" not in jobs


def test_a_look_at_weights_takes_the_folder_of_their_seed(finished, tmp_path):
    weights = finished / "results/smoke/cells/digits/mlp/quick/seed-1/swa.safetensors"
    command = ["probe", "--weights", weights, "--data", of(finished, 1, "train").parent, "--out", tmp_path]
    assert main([*map(str, command), "--n", "1", "--points", "21", "--threads", "1", "--quiet"]) == 0
    look = tables.read(tmp_path / "tables/curves.parquet", "curves").to_pandas()
    run = tables.read(finished / TABLES[1], "curves").to_pandas()
    run = run[(run["dataset"] == "digits") & (run["seed"] == 1) & (run["solution"] == "swa")]
    assert look["train_loss"].tolist() == run["train_loss"].tolist()
    assert look["test_loss"].tolist() == run["test_loss"].tolist()


@pytest.mark.parametrize("path", ["given-{seed}.safetensors", "given.safetensors"])
def test_given_weights_are_measured_on_the_split_of_their_seed(finished, path):
    made = finished / "results/smoke/cells/digits/mlp/quick"
    for seed in (0, 1):
        (finished / path.format(seed=seed)).write_bytes((made / f"seed-{seed}/swa.safetensors").read_bytes())
    mine = changed(
        CONFIG,
        name="given",
        datasets={"digits": DIGITS},
        grid=[{"dataset": "digits", "model": "mlp", "recipe": "mine"}],
        checkpoints={"mine": {"solutions": {"swa": path}, "bn": "stored"}},
        lines={},
    )
    table = "results/given/tables/solutions.parquet"
    status, text = snakemake(finished, mine, table, "--cores", "2")
    assert status == 0, text
    given, own = (
        tables.read(finished / name, "solutions").to_pandas().set_index("seed") for name in (table, TABLES[0])
    )
    own = own[(own["dataset"] == "digits") & (own["solution"] == "swa")]
    seeds = [0, 1] if "{seed}" in path else [0]
    assert given.index.tolist() == seeds
    # Without {seed} the first seed has them: those of seed 1 were written last.
    expected = own["train_loss"].loc[seeds].tolist() if len(seeds) == 2 else None
    assert expected is None or given["train_loss"].tolist() == pytest.approx(expected, rel=1e-6)
    assert len(seeds) == 2 or given["train_loss"][0] > own["train_loss"][1]  # not their own split


def test_what_joins_two_seeds_is_refused_before_a_job_starts(tmp_path):
    asked = changed(CONFIG, grid=[{**CONFIG["grid"][0], "lines": ["seeds"]}])
    status, text = snakemake(tmp_path, asked, "-n")
    assert status != 0
    assert "config: grid.0.lines: 'seeds' has stop_seed next, but datasets.digits.split is by_seed" in text
    assert "Traceback" not in text
