"""Probes of kind searched in a run: their jobs, their files, and what a change of them makes again."""

import pytest
import torch
from valleys.landscape.kinds import SEARCH
from valleys.storage import tables
from valleys.storage.weights import load_weights
from workflow_runs import changed, load, planned, snakemake

pytestmark = pytest.mark.slow

SOUGHT = {"kind": "searched", "points": 21, "bn": "frozen", "search": {"restarts": 2, "steps": 3}}
SMOKE = load("config/smoke.yaml")
ALONE = SMOKE | {"studies": {}, "probes": {name: SMOKE["probes"][name] for name in ("uniform", "gradient")}}
CONFIG = changed(
    ALONE,
    probes={**ALONE["probes"], "sought": {**SOUGHT, "n": 2, "solutions": ["sgd"]}},
    planes={"found": {"span": ["sought/0", "sought/1"], "points": 5, "bn": "frozen"}},
)
CELL = "results/smoke/cells/digits/mlp/quick/seed-0"
JUDGED = {"detect": 1, "measure_gain": 1, "sensitivity": 1, "claims": 1, "report": 1}
"""Jobs that follow new curves of one cell, whatever their probe, beside tables and figures."""


def test_searched_probes_alone_have_a_job_of_the_search(tmp_path):
    without = changed(ALONE, planes={})
    jobs = planned(tmp_path, without)
    assert (jobs["directions"], jobs["probe"]) == (1, 2)  # the gradient's
    assert "search_directions" not in jobs
    jobs = planned(tmp_path, changed(CONFIG, probes__more=SOUGHT))
    assert (jobs["search_directions"], jobs["directions"], jobs["probe"], jobs["plane"]) == (2, 1, 4, 1)
    together = planned(tmp_path, changed(CONFIG, execution={"probe_jobs": "together"}))
    assert (together["search_directions"], together["probe"]) == (1, 1)


def test_the_target_makes_searches_and_no_other_curves(tmp_path):
    jobs = planned(tmp_path, CONFIG, "search")
    assert jobs["search_directions"] == 1
    assert {"aggregate", "train_sgd", "prepare_dataset"} <= set(jobs)
    assert not {"interpolate", "toy_2d", "claims", "report", "average", "directions"} & set(jobs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with a searched probe: folder."""
    folder = tmp_path_factory.mktemp("searched")
    status, text = snakemake(folder, CONFIG, "--cores", "2")
    assert status == 0, text
    return folder


def test_what_is_found_is_stored_measured_and_in_tables(finished):
    stored, about = load_weights(finished / CELL / "probes/sought/directions.safetensors")
    assert about["kind"] == "searched"
    weights, _ = load_weights(finished / CELL / "sgd.safetensors")
    parameters = {name for name in weights if "running" not in name and "num_batches" not in name}
    assert stored.keys() == {f"sgd/{k}/{name}" for k in (0, 1) for name in parameters}
    flat = [
        torch.cat([stored[f"sgd/{k}/{n}"].flatten() for n in sorted(parameters)]).double() for k in (0, 1)
    ]
    assert [float(u.norm()) for u in flat] == pytest.approx([1, 1], abs=1e-5)
    results = finished / "results" / "smoke" / "tables"
    searches = tables.read(results / "searches.parquet", "searches").to_pandas()
    assert searches.groupby(["solution", "probe", "k"]).size().to_dict() == {
        ("sgd", "sought", 0): 2,
        ("sgd", "sought", 1): 2,
    }
    assert searches.groupby("k")["chosen"].sum().tolist() == [1, 1]
    assert set(searches["steps"]) <= set(range(4))
    assert set(searches["floor"]) == {SEARCH["floor"]}
    curves = tables.read(results / "search_curves.parquet", "search_curves").to_pandas()
    assert set(curves["k"]) == {0, 1}
    directions = tables.read(results / "directions.parquet", "directions").to_pandas()
    own = directions[directions["probe"] == "sought"]
    assert own["k"].tolist() == [0, 1]
    assert own["norm"].tolist() == pytest.approx([1, 1], abs=1e-5)
    swa, _ = load_weights(finished / CELL / "swa.safetensors")
    apart = torch.cat([(swa[n].double() - weights[n].double()).flatten() for n in sorted(parameters)])
    assert own["towards_swa"].tolist() == pytest.approx([float(u @ apart) for u in flat], abs=1e-4)
    assert directions.loc[directions["probe"] != "sought", "towards_swa"].isna().all()
    probed = tables.read(results / "curves.parquet", "curves").to_pandas()
    assert (probed[probed["probe"] == "sought"].groupby("k").size() == 21).all()


def test_a_finished_run_has_nothing_to_do(finished):
    assert planned(finished, CONFIG) == {}
    written_out = {"search": {**SEARCH, "restarts": 2, "steps": 3}, "solutions": ["sgd"], "n": 2}
    assert "search_directions" not in planned(finished, changed(CONFIG, probes__sought=SOUGHT | written_out))


def test_options_of_a_search_search_again_and_probe_what_is_found(finished):
    jobs = planned(finished, changed(CONFIG, probes__sought__search={"restarts": 2, "steps": 4}))
    assert jobs.pop("figures") >= 1
    # Tables of curves (5) and of searches; the plane's two, which lies along what is found.
    assert jobs == {"search_directions": 1, "probe": 1, "plane": 1, "aggregate": 9, **JUDGED}


def test_how_curves_are_measured_searches_nothing_again(finished):
    jobs = planned(finished, changed(CONFIG, probes__sought__slopes="exact"))
    assert (jobs["probe"], jobs.get("search_directions", 0), jobs.get("plane", 0)) == (1, 0, 0)


def test_another_searched_probe_adds_its_own_jobs(finished):
    jobs = planned(finished, changed(CONFIG, probes__more=SOUGHT))
    assert jobs.pop("figures") >= 1
    assert jobs == {"search_directions": 1, "probe": 1, "aggregate": 7, **JUDGED}


def test_another_probe_leaves_searches_alone(finished):
    jobs = planned(finished, changed(CONFIG, probes__more={"kind": "gaussian", "n": 1, "points": 21}))
    assert jobs.pop("figures") >= 1
    assert jobs == {"probe": 1, "aggregate": 5, **JUDGED}
