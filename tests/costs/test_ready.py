"""What keeps a run from its end is told before its first job: absent data, too little memory."""

import pytest
import yte
from conftest import load_config
from priced import CELL, PAPER, ROOT, SMOKE, of
from valleys.costs import machine, ready
from valleys.costs.amounts import PCA_BYTES
from valleys.costs.rules import RULES
from valleys.landscape import computed
from workflow_runs import changed

PLANE = {"dataset": "cifar10", "model": "wrn28-10", "recipe": "wrn", "seed": "0", "plane": "iterates"}


def test_the_largest_job_is_named_with_what_would_help():
    costs = of(PAPER)
    jobs = [("train_sgd", PLANE), ("plane", PLANE), ("plane", {**PLANE, "seed": "4"}), ("all", {})]
    line = ready.beyond_memory(costs, jobs, 20_000, "; or raise it")
    assert line == (
        "a job of rule plane (cifar10/wrn28-10/wrn/4/iterates) takes 30.6 GB of memory by estimate, more "
        "than the 20 GB that a job may have; leave out planes with pca, or raise swa.every of the recipe; "
        "or raise it"
    )
    line = ready.beyond_memory(costs, jobs, 4_000)
    assert "(and jobs of 1 more rule)" in line
    assert ready.beyond_memory(costs, jobs, 64_000) is None
    assert ready.beyond_memory(costs, [], 1) is None
    assert ready.beyond_memory(costs, [("all", {})], 0) is None


def test_without_a_limit_it_is_the_machines(monkeypatch):
    monkeypatch.setattr(ready, "memory_mb", lambda: 100.0)
    assert "more than the 0.1 GB that this machine has; lower bn_refresh" in ready.beyond_memory(
        of(), [("refresh_bn", CELL)], None
    )
    monkeypatch.setattr(ready, "memory_mb", lambda: 1e6)
    assert ready.beyond_memory(of(), [("refresh_bn", CELL)], None) is None


def test_no_shipped_experiment_is_refused_by_the_profile_as_it_is():
    """A node of 64 GB; a plane through the iterates of WRN-28-10 would have taken 67."""
    profile = yte.process_yaml((ROOT / "profiles/slurm/config.yaml").read_text(), require_use_yte=True)
    assert of(PAPER)("plane", PLANE).memory_mb < 0.5 * profile["resources"]["mem_mb"]


def test_principal_components_are_priced_as_they_are_computed():
    """All iterates as they are stored, and two pieces in float64."""
    assert PCA_BYTES == 2 * 8 * computed.AT_ONCE
    costs = of(PAPER)
    (net,) = {costs.net("cifar10", "wrn28-10")}
    assert costs.components(net, 139) == 139 * net.bytes + PCA_BYTES
    assert costs.components(net, 3) == 9 * net.bytes
    assert costs.components(net, 0) == 0


@pytest.mark.parametrize("rule", ["prepare_dataset", "plane", "align"])
def test_advice_is_for_rules_that_there_are(rule):
    assert set(ready.ADVICE) <= set(RULES)
    key = ready.ADVICE.get(rule, ready.ELSE)
    assert key in ready.beyond_memory(of(PAPER), [(rule, {**PLANE, "dataset": "cifar10"})], 1)


def test_the_memory_of_this_machine_is_what_its_cgroup_leaves(tmp_path):
    whole = machine.memory_mb(tmp_path)
    assert whole == machine.memory_mb(tmp_path / "none") > 500
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/slurm/job_1/step_0\n")
    own = tmp_path / "sys/fs/cgroup/slurm/job_1/step_0"
    own.mkdir(parents=True)
    (own / "memory.max").write_text("max\n")
    assert machine.memory_mb(tmp_path) == whole
    (own.parent / "memory.max").write_text("400000000\n")
    assert machine.memory_mb(tmp_path) == 400
    old = tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes"
    old.parent.mkdir()
    old.write_text("300000000\n")
    assert machine.memory_mb(tmp_path) == 300


def test_only_data_that_a_job_is_to_read_can_be_missing():
    mine = {"source": "numpy", "train": "a.npz", "test": "b.npz"}
    experiment = of(changed(SMOKE, datasets={"digits": mine})).experiment
    job = ("prepare_dataset", {"dataset": "digits"})
    lines = ready.lacking_data(experiment, [job, job, ("evaluate", CELL)], "make data CONFIG=c.yaml")
    assert [line.partition(": there")[0] for line in lines] == [
        "config: datasets.digits.train: a.npz",
        "config: datasets.digits.test: b.npz",
    ]
    assert ready.lacking_data(experiment, [("evaluate", CELL)], "") == []
    assert len(ready.lacking_data(experiment, [job], "", lambda path: path == "a.npz")) == 1


def test_rules_of_another_workflow_may_have_our_names():
    costs = of()
    theirs = [("evaluate", {}), ("prepare_dataset", {"dataset": "theirs"}), ("prepare_dataset", {})]
    assert ready.beyond_memory(costs, theirs, 1) is None
    assert ready.lacking_data(costs.experiment, theirs, "") == []


def test_the_smoke_run_needs_no_file():
    experiment = of(load_config("config/smoke.yaml")).experiment
    assert ready.lacking_data(experiment, [("prepare_dataset", {"dataset": "digits"})], "") == []
