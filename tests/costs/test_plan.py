"""The plan: prices, the longest path, and what is printed. Counts against Snakemake's: test_workflow.py."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import fill_defaults, load_config
from valleys.cli.commands import main
from valleys.config.experiment import Experiment
from valleys.costs import plan, plan_text
from valleys.costs.jobs import Costs
from valleys.costs.plan import Job
from valleys.errors import ValleysError
from workflow_runs import ROOT, changed, planned, snakemake

SMOKE = load_config("config/smoke.yaml")
HEAD = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


@pytest.fixture
def experiment():
    return Experiment(fill_defaults({**SMOKE, "seeds": [0, 1, 2]}))


def benchmark(path, seconds, memory):
    path.write_text(f"{HEAD}{seconds}\t0:00:01\t{memory}\t1\t1\t1\t0\t0\t90\t1\n")
    return path


def cell(rule, seed, **more):
    wildcards = {"dataset": "digits", "model": "mlp", "recipe": "quick", "seed": str(seed)}
    return {"rule": rule, "wildcards": wildcards, "todo": True} | more


def test_longest_path_by_hand():
    """A diamond with a tail, listed out of order; the finished job costs nothing."""
    names = {"end": (3, 4), "left": (2,), "done": (), "start": (), "right": (1, 2)}
    number = {name: i for i, name in enumerate(names)}
    after = {
        "end": ("left", "right"),
        "left": ("start",),
        "done": (),
        "start": (),
        "right": ("done", "start"),
    }
    jobs = [Job("x", {}, True, after=tuple(number[n] for n in after[name])) for name in names]
    seconds = [1.0, 5.0, 0.0, 10.0, 20.0]
    assert plan.longest_path(jobs, seconds) == 10 + 20 + 1
    order = plan.in_order(jobs)
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert all(order.index(other) < order.index(i) for i, job in enumerate(jobs) for other in job.after)
    assert plan.longest_path([], []) == 0


def test_benchmarks_are_read_as_they_are(tmp_path):
    seconds, memory = plan.took(benchmark(tmp_path / "a", 12.5, 400))
    assert (seconds, memory) == (12.5, pytest.approx(419.4, abs=0.1))
    assert plan.took(benchmark(tmp_path / "b", 0.1, 2.5)) == (0.1, 0)  # seen before it had begun
    assert plan.took(benchmark(tmp_path / "c", 3, "NA")) == (3, 0)
    for text in ("", HEAD, "s\tmax_rss\nx\t1\n", "other\n1\n"):
        (tmp_path / "d").write_text(text)
        assert plan.took(tmp_path / "d") is None
    assert plan.took(tmp_path / "absent") is None
    assert plan.took(None) is None


def test_memory_is_that_of_the_log_where_the_fork_server_ran_the_job(tmp_path):
    path, log = benchmark(tmp_path / "a", 12.5, 10.7), tmp_path / "a.log"
    assert plan.took(path, log) == (12.5, 0)  # no log
    log.write_text("10:00:00 epoch 1/1\n10:00:01 peak memory 6370 MB\n", encoding="utf-8")
    assert plan.took(path, log) == (12.5, 6370)
    log.write_text("10:00:01 peak memory 6370 MB\n10:00:02 error: no\n", encoding="utf-8")
    assert plan.took(path, log) == (12.5, 0)


def test_prices_are_measured_scaled_or_estimated(experiment, tmp_path):
    costs = Costs(experiment)
    train, done = costs("train_sgd", cell("train_sgd", 0)["wildcards"]), {"todo": False}
    other = {**cell("train_sgd", 0)["wildcards"], "model": "mlp.norm-none"}
    jobs = [
        Job(**cell("train_sgd", 0, **done, benchmark=benchmark(tmp_path / "0", 30, 300))),
        Job(**cell("train_sgd", 1, **done, benchmark=benchmark(tmp_path / "1", 50, 500))),
        Job(**cell("train_sgd", 2, threads=2)),
        Job(**cell("train_sgd", 0) | {"wildcards": other}),
        Job(**cell("evaluate", 2, after=(2,))),
        Job(**cell("evaluate", 0, **done, benchmark=tmp_path / "lost")),
    ]
    found = plan.price(jobs, experiment)
    rows = {row.rule: row for row in found.rows}
    assert list(rows) == ["train_sgd", "evaluate"]
    row = rows["train_sgd"]
    assert (row.todo, row.done, row.origins) == (2, 2, {"measured", "scaled"})
    scaled = costs("train_sgd", other).seconds * 80 / (2 * train.seconds)
    assert row.core_hours * 3600 == pytest.approx(40 * 2 + scaled)
    assert row.gpu_hours == 0
    assert row.memory_mb >= 500 * 1.048
    assert row.longest * 3600 == pytest.approx(max(40, scaled))
    assert row.files == 2 * experiment.iterates_of(experiment.cells[0])  # and those that a graph tells of
    row = rows["evaluate"]
    assert (row.todo, row.done, row.origins) == (1, 1, {"estimated"})
    single = costs("evaluate", jobs[4].wildcards).seconds
    assert found.longest * 3600 == pytest.approx(max(40 + single, scaled))
    assert found.measurements == 2
    assert (found.total.todo, found.total.done) == (3, 3)
    assert found.total.longest == rows["train_sgd"].longest
    table = plan_text.as_text(found).splitlines()
    assert table[0].split()[-6:] == ["longest", "memory", "disk", "files", "time", "is"]
    assert table[2].split()[-1] == "mixed"
    assert found.iterates["none"] == 0
    sizes = [costs.net("digits", model).bytes for model in ("mlp", "mlp.norm-none")]
    assert found.iterates["all"] == 3 * (3 * sizes[0] + sizes[1])  # three seeds, and the study's other cell


def test_gpu_hours_are_those_of_jobs_on_one(tmp_path):
    found = Experiment(fill_defaults({**SMOKE, "execution": {"device": "cuda"}}))
    jobs = [Job(**cell("train_sgd", 0)), Job(**cell("detect", 0))]
    train, detect = plan.price(jobs, found).rows
    assert train.gpu_hours == train.core_hours > 0
    assert detect.gpu_hours == 0 < detect.core_hours


def test_text_says_where_figures_come_from(experiment, tmp_path):
    jobs = [Job(**cell("train_sgd", 0))]
    text = plan_text.as_text(plan.price(jobs, experiment), cores=2)
    assert "All figures are estimates" in text
    assert "With 2 cores: at least" in text
    head, _, line, _, total = text.splitlines()[:5]
    assert head.split()[:4] == ["rule", "to", "do", "done"]
    assert line.split()[:3] == ["train_sgd", "1", "0"]
    assert line.endswith("estimated")
    assert total.split()[:3] == ["total", "1", "0"]
    jobs.append(Job(**cell("train_sgd", 1, todo=False, benchmark=benchmark(tmp_path / "1", 50, 500))))
    text = plan_text.as_text(plan.price(jobs, experiment))
    assert "Finished jobs read: 1." in text
    assert "With" not in text
    assert text.splitlines()[2].endswith("measured")
    mine = {"digits": {"source": "parquet", "train": "a.parquet", "test": "b.parquet"}}
    text = plan_text.as_text(plan.price(jobs[:1], Experiment(fill_defaults({**SMOKE, "datasets": mine}))))
    assert "assumed: the size of data set digits" in text


def test_the_table_fits_100_columns():
    """The longest names and numbers that a row can have, and each sentence below."""
    rows = [
        plan.Row(
            "search_directions", 50_000, 9_999, 98_765, 98_765, 1_234, 123e3, 123e9, 10**7, {"measured"}
        ),
        plan.Row("compare_averages", 1, 0, 1 / 60, 1 / 60, 1 / 60, 99.9e3, 1.23e12, 99_999, {"scaled"}),
    ]
    kept = dict.fromkeys(plan.KEPT, 1.23e12)
    found = plan.Plan(rows, 1234.0, kept, "window", 5, ["a"] * 9, ["b"] * 9, ["no such file"], "no", "no")
    lines = plan_text.as_text(found, 2).splitlines()
    assert max(map(len, lines)) <= 100
    assert max(map(len, lines)) > 95
    assert lines[-2:] == ["Missing: no such file", "Too large: no"]
    assert "10 M" in lines[2]


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (0, "-"),
        (0.5 / 3600, "0.5 s"),
        (59.9 / 3600, "60 s"),
        (1 / 60, "1 min"),
        (0.5, "30 min"),
        (2.345, "2.35 h"),
        (1234, "1,234 h"),
    ],
)
def test_times_are_short(hours, text):
    assert plan_text.hours(hours) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 kB"), (1500, "1.5 kB"), (2.5e7, "25 MB"), (3e9, "3 GB"), (1.25e13, "12.5 TB")]
)
def test_sizes_are_short(size, text):
    assert plan_text.size(size) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (99_999, "99,999"), (100_000, "100 k"), (999_499, "999 k"), (1_234_567, "1.23 M")],
)
def test_counts_are_short(number, text):
    assert plan_text.count(number) == text


def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValleysError, match=r"config file none\.yaml does not exist"):
        plan.make("none.yaml")
    Path("c.yaml").write_text("name: x\n")
    assert main(["plan", "c.yaml"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["plan", "c.yaml", "--cores", "many"]) == 1
    assert "'many' is not a whole number" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("command", ["plan", "claims"])
@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "is a folder; give the path of a YAML file"),
        (b"", "is empty; it must be a mapping"),
        (b"# nothing\n", "is empty; it must be a mapping"),
        (b"- 1\n", "holds a list; it must be a mapping"),
        (b"text\n", "holds a str; it must be a mapping"),
        (b"a: 1\n\tb: 2\n", "indented by spaces, not tabs"),
        (b"name: \xff\xfe\n", "it is not UTF-8"),
        ("name: x\n".encode("utf-16"), "it is not UTF-8"),
        (b"\0", "it is no YAML"),
        (b"a: [1\n", "it is no YAML"),
        (b"a: 1\n---\nb: 2\n", "it is no YAML"),
        (b"a: " + b"[" * 3000, "it is no YAML"),
        (b"when: 2020-13-45\n", "it is no YAML"),
    ],
)
def test_config_files_that_are_none_are_one_line(tmp_path, monkeypatch, capsys, command, content, line):
    monkeypatch.chdir(tmp_path)
    path = Path("c.yaml")
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    assert main([command, "c.yaml"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: config file c.yaml ")
    assert line in told
    assert told.count("\n") == 1


GIVEN = changed(
    SMOKE,
    checkpoints={"theirs": {"solutions": {"sgd": "old.pt", "mine": "w/net-{seed}.pt"}}},
    grid=[{"dataset": "digits", "model": "mlp", "recipe": "theirs", "solutions": ["mine"]}],
    **{key: {} for key in ("recipes", "studies", "probes", "lines", "planes")},
)


def told(folder, config, *words):
    """What `plan` and a dry run say of a config that no graph can be made of."""
    status, text = snakemake(folder, config, *words, "-n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow" / "scripts")}
    done = subprocess.run(
        [sys.executable, "-m", "valleys", "plan", "config-under-test.yaml", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (status, done.returncode, done.stdout) == (1, 1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    return done.stderr, text


@pytest.mark.slow
@pytest.mark.long
def test_missing_weights_are_told_by_their_key_and_as_the_user_wrote_them(tmp_path):
    line, dry = told(tmp_path, GIVEN)
    wanted = (
        "config: checkpoints.theirs.solutions.mine: w/net-{seed}.pt, here w/net-0.pt: there is no such file "
        f"(seen from {tmp_path}); give the path of a state dict"
    )
    assert line == f"error: no plan of config-under-test.yaml: {wanted}\n"
    assert wanted in dry
    for text in (line, dry):  # a file of the workflow's own, which another rule would read
        assert "raw/mine" not in text
    absolute = changed(GIVEN, checkpoints__theirs__solutions__mine=f"{tmp_path}/none.pt")
    line, dry = told(tmp_path, absolute)
    wanted = f"solutions.mine: {tmp_path}/none.pt: there is no such file; give"
    assert wanted in line
    assert wanted in dry


@pytest.mark.slow
def test_the_import_of_weights_goes_by_what_names_their_contents(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(GIVEN))
    weights = tmp_path / "w" / "net-0.pt"
    weights.parent.mkdir()
    seen = []
    for content in (b"one", b"other"):
        weights.write_bytes(content)
        with plan.graph_of(tmp_path / "c.yaml") as graph:
            specs = [job.params.spec for job in graph.jobs if job.rule.name == "import_solution"]
        assert len(specs) == 1
        seen.append(specs[0].pop("original"))
    assert seen[0] != seen[1]


@pytest.mark.slow
def test_weights_that_have_been_read_may_go(tmp_path):
    """The solution that was made of them is still there."""
    solution = tmp_path / "results/smoke/cells/digits/mlp/theirs/seed-0/mine.safetensors"
    solution.parent.mkdir(parents=True)
    solution.write_bytes(b"x")
    jobs = planned(tmp_path, GIVEN)
    assert "evaluate" in jobs
    assert not {"import_solution", "refresh_bn"} & set(jobs)


@pytest.mark.slow
def test_weights_may_be_made_by_another_workflow(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(GIVEN))
    (tmp_path / "Snakefile").write_text(
        f"""
configfile: "c.yaml"
module valleys:
    snakefile: {str(ROOT / "Snakefile")!r}
    config: config
use rule * from valleys
rule make_weights:
    output: "w/net-{{n}}.pt"
    shell: "touch {{output}}"
"""
    )
    target = "results/smoke/cells/digits/mlp/theirs/seed-0/mine.safetensors"
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", target], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rule make_weights" in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("nosuch", "MissingRuleException: No rule to produce nosuch"),
        ("results/smoke/tables/nosuch.parquet", "nosuch"),
        ("results/other/report.html", "MissingRuleException: No rule to produce results/other/report.html"),
    ],
)
def test_targets_that_nothing_makes_are_told(tmp_path, target, reason):
    line, _ = told(tmp_path, SMOKE, target)
    assert line.startswith("error: no plan of config-under-test.yaml: ")
    assert reason in line


@pytest.mark.slow
def test_a_results_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "results").touch()
    line, dry = told(tmp_path, SMOKE)
    wanted = "results folder results/smoke: results is a file; remove it or run elsewhere"
    assert line == f"error: no plan of config-under-test.yaml: {wanted}\n"
    assert wanted in dry


@pytest.mark.parametrize("cores", ["0", "-1", "1.5", "\u00b2", "", "1e3", "two"])
def test_cores_are_a_whole_number(tmp_path, monkeypatch, capsys, cores):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "none.yaml", f"--cores={cores}"]) == 1
    assert capsys.readouterr().err == f"error: --cores: {cores!r} is not a whole number >= 1, nor 'all'\n"


@pytest.mark.slow
def test_a_plan_can_be_made_beside_a_run(tmp_path):
    """Of a run that has locked the folder, or that was killed and left its lock."""
    (tmp_path / "config-under-test.yaml").write_text(yaml.safe_dump(SMOKE))
    locks = tmp_path / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text(str(tmp_path / "results/smoke/report.html") + "\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow" / "scripts")}
    done = subprocess.run(
        [sys.executable, "-m", "valleys", "plan", "config-under-test.yaml"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "train_sgd" in done.stdout


@pytest.mark.slow
def test_seeds_that_are_added_have_a_least_and_a_most(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    seeds = {"until": "decided", "first": 7, "most": 14}
    config = changed(SMOKE, seeds=seeds, studies={}, planes={}, simulations=False)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    assert main(["plan", "mine.yaml"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Seeds are added until the claims are decided, with looks at 7, 14 seeds.")
    least, most = text.split("The most, 14 seeds:")
    for part, trained, looks in ((least, 7, 1), (most, 14, 2)):
        assert re.search(rf"^train_sgd +{trained} +0 ", part, re.M)
        assert re.search(rf"^look +{looks} +0 ", part, re.M)
    assert main(["plan", "mine.yaml", "toy"]) == 1  # simulations are left out
    assert main(["plan", "mine.yaml", "shift"]) == 0
    assert "The most" not in capsys.readouterr().out
