"""The workflow as a module of another one."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from valleys.report import rulegraph
from valleys.storage import tables
from workflow_runs import ROOT, load

pytestmark = pytest.mark.slow

OUTER = """
configfile: "outer.yaml"


module valleys:
    snakefile:
        "{snakefile}"
    config:
        config["landscape"]
    prefix:
        "landscape"


use rule * from valleys as valleys_*


onstart:
    valleys.onstart()
    shell("test -S $VALLEYS_FORKSERVER && touch served")


rule epochs:
    default_target: True
    input:
        table="landscape/results/smoke/cells/digits/mlp/quick/seed-0/training.parquet",
        report="landscape/results/smoke/report.html",
    output:
        "epochs.txt",
    params:
        factor=config["factor"],
    shell:
        "echo {{params.factor}} {{input.table}} > {{output}}"
"""


@pytest.fixture
def outer(tmp_path):
    (tmp_path / "Snakefile").write_text(OUTER.format(snakefile=ROOT / "Snakefile"))
    settings = load("config/smoke.yaml") | {"studies": {}, "planes": {}}
    (tmp_path / "outer.yaml").write_text(yaml.safe_dump({"landscape": settings, "factor": 3}))
    return tmp_path


def snakemake(folder, *args, timeout=300):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", *args],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    return done.returncode, done.stdout


def test_another_workflow_asks_for_the_report(outer):
    status, text = snakemake(outer, "-n", "landscape/results/smoke/report.html")
    assert status == 0, text
    jobs = dict(re.findall(r"^valleys_(\w+) +(\d+)$", text, re.M))
    assert jobs["train_sgd"] == jobs["claims"] == jobs["report"] == "1"
    assert not re.search(r"^epochs +1", text, re.M)


@pytest.mark.long
def test_another_workflow_builds_on_a_table_of_ours_with_a_config_of_its_own(outer):
    status, text = snakemake(outer, timeout=900)
    assert status == 0, text
    path = "landscape/results/smoke/cells/digits/mlp/quick/seed-0/training.parquet"
    assert (outer / "epochs.txt").read_text() == f"3 {path}\n"
    assert tables.read(outer / path, "training").num_rows == 6
    # Our onstart ran: jobs were forked, and the report draws our rules by their own names.
    assert (outer / "served").exists()
    graph = rulegraph.read(outer / "landscape/results/smoke" / rulegraph.FILE)
    jobs = re.findall(r"^valleys_(\w+) +(\d+)$", text, re.M)
    assert graph.jobs == {rule: int(count) for rule, count in jobs}
    page = (outer / "landscape/results/smoke/report.html").read_text(encoding="utf-8")
    assert re.search(r">train_sgd</text><text[^>]*>1 job</text>", page)
    assert not (outer / "results").exists()
    status, text = snakemake(outer, "-n")
    assert status == 0, text
    assert "Nothing to be done" in text


def test_a_mistake_in_the_modules_config_is_named(outer):
    settings = yaml.safe_load((outer / "outer.yaml").read_text())
    settings["landscape"]["recipes"]["quick"]["epoch"] = 3
    (outer / "outer.yaml").write_text(yaml.safe_dump(settings))
    status, text = snakemake(outer, "-n")
    assert status != 0
    assert "config: recipes.quick: unknown key 'epoch', did you mean 'epochs'?" in text
