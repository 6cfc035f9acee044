"""Averages and alignment in a run: asked for after it is done, they are all that is made anew."""

import pytest
from valleys.storage import tables
from valleys.storage.weights import load_weights
from workflow_runs import changed, load, planned, snakemake

pytestmark = [pytest.mark.slow, pytest.mark.long]

PROBES = {"uniform": {"kind": "uniform", "n": 1, "points": 11}}
CONFIG = changed(load("config/smoke.yaml"), studies={}, planes={}, lines={}, probes=PROBES, seeds=[0, 1])
ASKED = {"ema": {"kind": "ema", "decay": 0.5}, "last": {"kind": "last", "k": 2}, "soup": {"kind": "greedy"}}
NAMED = [CONFIG["grid"][0] | {"averages": list(ASKED)}]
NEW = {"compare_averages": 2, "aggregate": 1, "claims": 1, "report": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run without averages."""
    folder = tmp_path_factory.mktemp("averages")
    status, text = snakemake(folder, CONFIG, "--cores", "2")
    assert status == 0, text
    return folder


@pytest.mark.parametrize(
    "config", [changed(CONFIG, averages=ASKED), changed(CONFIG, averages=ASKED, grid=NAMED)]
)
def test_averages_that_are_asked_for_later_are_all_that_is_made(finished, config):
    assert planned(finished, config) == NEW


def test_averages_by_the_target_swa_need_no_claims(finished):
    assert planned(finished, changed(CONFIG, averages=ASKED), "swa") == {
        "compare_averages": 2,
        "aggregate": 1,
    }


def test_averages_of_a_run(finished):
    before = {path: path.stat().st_mtime_ns for path in (finished / "results").rglob("*.safetensors")}
    config = changed(CONFIG, averages=ASKED)
    status, text = snakemake(finished, config, "--cores", "2")
    assert status == 0, text
    assert planned(finished, config) == {}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    results = finished / "results" / "smoke"
    found, solutions, claims = (
        tables.read(results / "tables" / f"{name}.parquet", name).to_pandas()
        for name in ("averages", "solutions", "claims")
    )
    assert found.groupby("seed")["average"].agg(list).tolist() == [["swa", *ASKED]] * 2
    own = solutions[solutions["solution"] == "swa"].set_index("seed")
    for row in found[found["average"] == "swa"].itertuples():
        for column in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
            assert getattr(row, column) == own.loc[row.seed, column]  # measured as that table's are
        assert (row.epochs, row.n_judged) == ("4 5 6", 100)
    rows = claims[claims["claim"] == "average_test_loss_swa"].set_index("scope")
    assert set(rows.index) == {f"digits/mlp/quick/{name}" for name in ASKED}
    wide = found.pivot(index="seed", columns="average", values="judged_loss")
    assert rows.loc["digits/mlp/quick/ema", "effect"] == pytest.approx((wide["ema"] - wide["swa"]).mean())
    assert set(rows["number"]) == {8}
    assert not rows["decides"].any()
    folder = results / "cells" / "digits" / "mlp" / "quick" / "seed-1" / "averages"
    assert load_weights(folder / "ema.safetensors")[1]["solution"] == "ema"
    page = (results / "report.html").read_text()
    assert 'aria-label="Table: Averages"' in page
    assert "Another average of the same iterates has a lower test loss than SWA" in page


def test_another_average_leaves_all_but_averages_and_what_follows(finished):
    config = changed(CONFIG, averages=ASKED | {"soup": {"kind": "greedy", "most": 0.5}})
    assert planned(finished, config) == NEW
    # Iterates that go when their readers are done stay for this one too.
    assert planned(finished, changed(CONFIG, averages=ASKED, execution__keep="none")) == {}


def test_alignment_that_is_asked_for_later_is_all_that_is_made(finished):
    config = changed(CONFIG, grid=[CONFIG["grid"][0] | {"alignment": True}], averages=ASKED)
    assert planned(finished, config) == {"align": 1, "aggregate": 1, "claims": 1, "report": 1}
    status, text = snakemake(finished, config, "--cores", "2")
    assert status == 0, text
    results = finished / "results" / "smoke" / "tables"
    found = tables.read(results / "alignment.parquet", "alignment").to_pandas()
    assert found[["seed", "other_seed", "solution"]].to_numpy().tolist() == [[0, 1, "sgd"]]
    assert found["distance_after"].item() < found["distance_before"].item()
    claims = tables.read(results / "claims.parquet", "claims").to_pandas().set_index("claim")
    difference = found["train_barrier_after"].item() - found["train_barrier_before"].item()
    assert claims.loc["alignment_lowers_barrier", "effect"] == pytest.approx(difference)
