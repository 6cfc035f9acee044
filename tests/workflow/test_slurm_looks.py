"""Seeds that are added until claims are decided, with the SLURM profile on a real, if small, cluster."""

from pathlib import Path

import pytest
from slurm_cluster import cluster, missing
from slurm_runs import CPUS, Run, filled_in, needs_slurm, settings, submitted
from valleys.storage import tables
from workflow_runs import changed, load, planned

pytestmark = [pytest.mark.slow, pytest.mark.long]

# Four rows decide claim 8, so against it p is 4 * 2 * 2^-n at least: 1 with 3 seeds, 1/8 with 6.
CONFIG = changed(
    load("config/smoke.yaml"),
    studies={},
    planes={},
    lines={},
    simulations=False,
    datasets__digits={"source": "digits", "train_size": 100, "max_test": 50},
    probes={"uniform": {"kind": "uniform", "n": 1, "points": 11, "solutions": ["sgd"]}},
    seeds={"until": "decided", "first": 3, "most": 6},
    claims={"alpha": 0.999},
)


@pytest.fixture(scope="module")
def site():
    with cluster(accounting=missing(accounting=True) is None, cpus=CPUS) as running:
        yield running


@needs_slurm
@pytest.mark.parametrize("cells", [3])
def test_looks_on_a_cluster(site, tmp_path, cells):
    run = Run(site, tmp_path, CONFIG, filled_in(tmp_path / "profile", **settings(site, CELLS=cells)))
    try:
        assert run.process.wait(timeout=1800) == 0, run.text()
    finally:
        run.stop()
    results = tmp_path / "results/smoke"
    frame = tables.read(results / "tables/looks.parquet", "looks").to_pandas()
    assert frame.drop_duplicates("look")[["seeds", "stops"]].values.tolist() == [[3, False], [6, True]]
    assert set(tables.read(results / "tables/solutions.parquet", "solutions")["seed"].to_pylist()) == set(
        range(6)
    )
    assert (results / "report.html").is_file()
    comments = [job["Comment"] for job in submitted(site).values() if Path(job["WorkDir"]) == tmp_path]
    assert sorted(c for c in comments if c.startswith("rule_look")) == [
        "rule_look_wildcards_3",
        "rule_look_wildcards_6",
    ]
    assert planned(tmp_path, CONFIG) == {}
