"""What jobs ask for, and how it follows the data within a run."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import fill_defaults
from priced import CELL, ROOT, SMOKE, of, prepared, with_data
from snakemake.iocontainers import Wildcards
from valleys.config.experiment import Experiment
from valleys.costs.jobs import Costs
from valleys.costs.work import Data
from workflow_runs import changed, snakemake


def test_the_snakefile_needs_no_torch():
    code = "import valleys.costs, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "workflow" / "scripts", check=True)


def test_requests_have_a_floor_and_grow_with_the_attempt():
    found = of()
    for rule in ("train_sgd", "detect"):
        runtime, memory = found.runtime(rule, CELL), found.mem_mb(rule, CELL)
        assert runtime >= 11
        assert memory >= 800
        assert isinstance(runtime, int)
        assert isinstance(memory, int)
        assert (found.runtime(rule, CELL, 3), found.mem_mb(rule, CELL, 3)) == (3 * runtime, 3 * memory)


def test_no_request_is_beyond_the_limit():
    limited = of(execution__max_runtime=15)
    assert [limited.runtime("train_sgd", CELL, attempt) for attempt in (1, 2, 3)] == [11, 15, 15]


def test_iterates_kept():
    found = of(recipes__quick__swa__window=2, planes={})
    (cell,) = found.experiment.cells
    size = found.net("digits", "mlp").bytes
    assert [found.iterates(cell, keep) / size for keep in ("all", "window", "none")] == [3, 2, 0]
    assert of(planes={}).iterates(cell, "window") == 3 * size
    less = of(recipes__quick__swa__window=2, planes={}, execution__keep="window")
    difference = found("train_sgd", CELL).disk - less("train_sgd", CELL).disk
    assert difference == found.net("digits", "mlp").bytes


def test_weights_files_are_as_large_as_told(tmp_path):
    """One weights file of the smoke run's model: the estimate but for the header."""
    from valleys.models import builder
    from valleys.storage.weights import save_weights

    model = builder.build(SMOKE["models"]["mlp"], in_shape=(1, 8, 8), classes=10)
    path = tmp_path / "w.safetensors"
    save_weights(path, model.state_dict())
    header = int.from_bytes(path.read_bytes()[:8], "little") + 8
    assert json.loads(path.read_bytes()[8:header])
    assert path.stat().st_size - header == pytest.approx(of().net("digits", "mlp").bytes, rel=0.01)


def test_requests_are_those_of_the_data_once_they_are_prepared(tmp_path, monkeypatch):
    """In one process, as within one run: nothing is kept of what was a guess."""
    monkeypatch.chdir(tmp_path)
    Path("mine_of_costs.py").write_text("def load(): raise AssertionError\n")
    spec = {"source": "callable", "factory": "mine_of_costs:load"}
    found = with_data(spec)
    guessed = {rule: found(rule, CELL) for rule in ("train_sgd", "refresh_bn", "evaluate")}
    assert not found.data("digits").counted
    prepared(24, 6)
    known = with_data(spec)
    for rule, before in guessed.items():
        assert found(rule, CELL) == known(rule, CELL)
        assert found(rule, CELL).seconds < before.seconds
        assert found.mem_mb(rule, CELL) < 1.5 * before.memory_mb + 500
    assert found.net("digits", "mlp") == known.net("digits", "mlp")
    assert found.data("digits") == Data(24, 6, (3, 8, 8), 2)
    prepared(2400, 6, shape=(1, 16, 16))  # and of other data, made later
    assert found.data("digits") == Data(2400, 6, (1, 16, 16), 2)
    assert found.net("digits", "mlp") == with_data(spec).net("digits", "mlp")


def test_wildcards_may_be_snakemakes(tmp_path, monkeypatch):
    """Whose `in` looks at values; a study may be called as one of them is."""
    monkeypatch.chdir(tmp_path)
    found = with_data({"source": "cifar10", "root": "."})
    snakemakes = Wildcards(fromdict=CELL)
    assert found("evaluate", snakemakes) == found("evaluate", CELL)
    prepared(24, 6)
    assert found("evaluate", snakemakes) == found("evaluate", CELL)
    assert found("evaluate", CELL) == with_data({"source": "cifar10", "root": "."})("evaluate", CELL)
    study = {"dataset": "digits", "model": "mlp", "recipe": "quick", "factors": {}}
    named = Costs(Experiment(fill_defaults({**SMOKE, "studies": {"dataset": study}})))
    of_study = Wildcards(fromdict={"study": "dataset"})
    assert named("study", of_study) == named("study", {"study": "dataset"})


@pytest.mark.slow
@pytest.mark.long
def test_a_run_asks_for_what_the_data_need(tmp_path, monkeypatch):
    """Of a callable nothing is known before it is called; each job is asked about when it is ready."""
    body = """
        import numpy as np
        def load():
            images, labels = np.arange(40 * 64, dtype=np.uint8).reshape(40, 8, 8), np.arange(40) % 2
            return (images, labels), (images, labels)
        """
    (tmp_path / "mine_of_costs.py").write_text(textwrap.dedent(body))
    raw = changed(
        SMOKE,
        datasets={"digits": {"source": "callable", "factory": "mine_of_costs:load"}},
        recipes__quick__batch_size=10,
        studies={},
    )
    target = "results/smoke/cells/digits/mlp/quick/seed-0/sgd.safetensors"

    def asked(*words):
        status, text = snakemake(tmp_path, raw, target, *words)
        assert status == 0, text
        return dict(re.findall(r"rule (\w+):.*?mem_mb=(\d+)", text, re.S))

    before, during = asked("-n"), asked("--cores", "1")
    assert set(before) == set(during) == {"prepare_dataset", "train_sgd", "cooldown", "refresh_bn"}
    assert before["prepare_dataset"] == during["prepare_dataset"]
    assert all(int(during[rule]) < int(before[rule]) for rule in ("train_sgd", "refresh_bn"))
    monkeypatch.chdir(tmp_path)
    assert int(during["train_sgd"]) == Costs(Experiment(fill_defaults(raw))).mem_mb("train_sgd", CELL)
