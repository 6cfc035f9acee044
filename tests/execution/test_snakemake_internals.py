"""What is taken of Snakemake's internals: where an attribute is gone a line says so, and the run goes on."""

import os
import re
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest
import yaml
from valleys.errors import ValleysError
from valleys.execution.snakemake_internals import SEEN, SLURM, Internals, job_graph, threads_of
from workflow_runs import ROOT, load


class Executor(SimpleNamespace):
    """As that of the SLURM plugin."""


Executor.__module__ = SLURM


@pytest.fixture
def rule():
    return SimpleNamespace(rule=SimpleNamespace(name="report"))


@pytest.fixture
def workflow():
    """All that is asked of Snakemake's object, as it is in the version that is pinned."""
    jobs = [
        SimpleNamespace(rule=SimpleNamespace(name=name), output=[name], wildcards_dict={"of": name})
        for name in ("a", "b", "report")
    ]
    return SimpleNamespace(
        is_main_process=True,
        dryrun=True,
        global_resources={"mem_mb": SimpleNamespace(value=64000)},
        local_exec=True,
        modifier=SimpleNamespace(skip_configfile=True),
        rules=[SimpleNamespace(is_producer=lambda path: path == "made")],
        persistence=SimpleNamespace(all_inputfiles=lambda: ["in"], all_outputfiles=lambda: ["out"]),
        deployment_settings=SimpleNamespace(deployment_method=set()),
        scheduling_settings=SimpleNamespace(max_jobs_per_timespan=SimpleNamespace(max_jobs=100, timespan=1)),
        scheduler=SimpleNamespace(
            _executor=Executor(run_uuid="valleys_1", _failed_nodes={"node3"}),
            job_rate_limiter=object(),
            _handle_error=print,
        ),
        dag=SimpleNamespace(needrun_jobs=lambda: jobs, dependencies=dict.fromkeys("ab", ())),
    )


def asked(workflow, rule, warn):
    """All that the rules ask, in words."""
    internals = Internals(workflow, warn)
    internals.lift_rate_limit()
    internals.replace_failed_nodes(frozenset)
    internals.give_up_on(str, warn)
    planned = internals.planned(rule)
    return {
        "main": internals.is_main_process(),
        "module": internals.is_module(),
        "made": internals.is_made("made"),
        "files": internals.files(),
        "queue": internals.queue_name(),
        "forkable": internals.is_forkable(least=3),
        "planned": planned and (planned.rule, planned.output, len(planned.dependencies)),
        "dry": internals.is_dry_run(),
        "memory": internals.memory_limit(),
        "jobs": internals.jobs_to_run(),
    }


ALL = {
    "main": True,
    "module": True,
    "made": True,
    "files": ({"in"}, {"out"}),
    "queue": "valleys_1",
    "forkable": True,
    "planned": ("report", "report", 2),
    "dry": True,
    "memory": (True, 64000),
    "jobs": [(name, {"of": name}) for name in ("a", "b", "report")],
}
NONE = {
    "main": False,
    "module": False,
    "made": False,
    "files": (set(), set()),
    "queue": None,
    "forkable": False,
    "planned": None,
    "dry": False,
    "memory": (False, None),
    "jobs": [],
}


def test_nothing_is_lost_while_all_is_there(workflow, rule):
    told = []
    assert asked(workflow, rule, told.append) == ALL
    assert told == []
    assert workflow.scheduler.job_rate_limiter is None
    assert workflow.scheduler._executor._failed_nodes == frozenset({"node3"})


@pytest.mark.parametrize(
    ("path", "without", "lost"),
    [
        ("is_main_process", ["main"], ["the lock of a killed run stays"]),
        ("modifier", ["module"], ["must not be YTE templates"]),
        ("modifier.skip_configfile", ["module"], ["must not be YTE templates"]),
        ("rules", ["made"], ["those that a rule makes count as missing"]),
        ("persistence", ["files"], ["two runs that start in the same instant"]),
        ("persistence.all_inputfiles", ["files"], ["two runs that start in the same instant"]),
        ("persistence.all_outputfiles", ["files"], ["two runs that start in the same instant"]),
        ("scheduler", ["queue"], ["a run of many jobs", "a healthy node", "cannot succeed", "by hand"]),
        ("scheduler._executor", ["queue"], ["a healthy node may be avoided", "cancelled by hand"]),
        ("scheduler._executor.run_uuid", ["queue"], ["must be cancelled by hand"]),
        ("scheduler._executor._failed_nodes", [], ["a healthy node may be avoided"]),
        ("scheduler._handle_error", [], ["a job that cannot succeed is tried again"]),
        ("dryrun", ["dry"], ["a dry run on this machine is refused"]),
        ("global_resources", ["memory"], ["a job too large for its node is found when it runs"]),
        ("scheduler.job_rate_limiter", [], ["a run of many jobs may take some minutes longer"]),
        ("scheduling_settings", [], ["a run of many jobs may take some minutes longer"]),
        ("local_exec", ["forkable"], ["there is no fork server"]),
        ("deployment_settings", ["forkable"], ["there is no fork server"]),
        ("dag", ["forkable", "planned", "jobs"], ["no graph", "there is no fork server", "data that are"]),
        (
            "dag.needrun_jobs",
            ["forkable", "planned", "jobs"],
            ["no graph", "there is no fork server", "data that are"],
        ),
        ("dag.dependencies", ["planned"], ["the report has no graph of rules"]),
    ],
)
def test_where_an_attribute_is_gone_one_line_says_what_is_lost(workflow, rule, path, without, lost):
    *owners, name = path.split(".")
    owner = workflow
    for one in owners:
        owner = getattr(owner, one)
    delattr(owner, name)
    told = []
    assert asked(workflow, rule, told.append) == ALL | {key: NONE[key] for key in without}
    assert len(told) == len(lost)
    for line, words in zip(told, lost, strict=True):
        assert line.startswith("Snakemake ")
        assert f"is not as {SEEN} was (" in line
        assert name in line
        assert words in line
        assert "\n" not in line


def test_a_method_that_wants_other_arguments_counts_as_gone(workflow, rule):
    workflow.dag.needrun_jobs = lambda which: []
    told = []
    assert asked(workflow, rule, told.append) == ALL | {"forkable": False, "planned": None, "jobs": []}
    assert len(told) == 3


@pytest.mark.parametrize(
    ("folder", "threads", "handed"), [("mine", 1, True), ("mine", 2, False), ("other", 1, False)]
)
def test_only_scripts_of_the_folder_that_take_one_thread_are_handed_over(
    workflow, monkeypatch, tmp_path, folder, threads, handed
):
    usual, commands = [], []

    class PythonScript(SimpleNamespace):
        def execute_script(self, path, edit=False):
            usual.append(path)

    monkeypatch.setitem(sys.modules, "snakemake.script", SimpleNamespace(PythonScript=PythonScript))
    (tmp_path / "rules").mkdir()
    Internals(workflow, pytest.fail).start_scripts_with(tmp_path / "client.py", tmp_path / "mine")
    source = f"{tmp_path}/rules/../{folder}/probe.py"  # as Snakemake writes it
    script = PythonScript(
        path=SimpleNamespace(get_path_or_uri=lambda secret_free: source),
        threads=threads,
        _execute_cmd=lambda command, **names: commands.append(names),
    )
    script.execute_script("written.py")
    assert usual == ([] if handed else ["written.py"])
    client = {"python": sys.executable, "client": f"{tmp_path}/client.py", "path": "written.py"}
    assert commands == ([client] if handed else [])


def test_a_snakemake_that_starts_scripts_otherwise_is_told(workflow, monkeypatch):
    monkeypatch.setitem(sys.modules, "snakemake.script", SimpleNamespace())
    told = []
    Internals(workflow, told.append).start_scripts_with("client.py", "scripts")
    assert len(told) == 1
    assert "each job starts some seconds later" in told[0]


def test_what_is_lost_is_told_once(workflow):
    del workflow.rules
    told = []
    internals = Internals(workflow, told.append)
    assert [internals.is_made(path) for path in ("a", "b")] == [False, False]
    assert len(told) == 1


def test_another_executor_has_no_queue_and_that_is_no_loss(workflow):
    workflow.scheduler._executor = SimpleNamespace()
    told = []
    internals = Internals(workflow, told.append)
    internals.replace_failed_nodes(frozenset)
    assert internals.queue_name() is None
    assert told == []


def test_memory_is_limited_where_somebody_says_so_or_jobs_run_here(workflow):
    for given, local, found in (
        ({"mem_mb": 500}, False, (True, 500)),
        ({}, True, (True, None)),
        ({}, False, (False, None)),
    ):
        workflow.global_resources, workflow.local_exec = given, local
        assert Internals(workflow, pytest.fail).memory_limit() == found


def test_a_check_of_the_planned_run_comes_before_its_scheduler_and_not_before_anothers(workflow, monkeypatch):
    made = []
    module = SimpleNamespace(JobScheduler=lambda *words, **options: made.append((words, options)) or "it")
    monkeypatch.setitem(sys.modules, "snakemake.workflow", module)
    Internals(workflow, pytest.fail).when_planned(lambda: made.append("checked"))
    assert module.JobScheduler("another", 1) == "it"
    assert module.JobScheduler(workflow, 2, a=3) == "it"
    assert made == [(("another", 1), {}), "checked", ((workflow, 2), {"a": 3})]
    del module.JobScheduler
    told = []
    Internals(workflow, told.append).when_planned(pytest.fail)
    assert "are found by the job" in told[0]


class Failed(SimpleNamespace):
    """A job of Snakemake that has failed; of a group, with its `jobs`."""

    def is_group(self):
        return hasattr(self, "jobs")

    @property
    def attempt(self):
        return self._attempt


@pytest.mark.parametrize(
    ("logs", "retries", "attempt", "told"),
    [
        ([["hopeless"]], 5, 6, 1),
        ([["late"]], 5, 1, 0),
        ([["late"], ["hopeless"]], 5, 6, 1),
        ([["late"], []], 5, 1, 0),
        ([["hopeless"]], 0, 1, 0),  # none is left anyway
    ],
)
def test_a_hopeless_job_is_handed_over_as_tried_for_the_last_time(workflow, logs, retries, attempt, told):
    seen, said = [], []
    workflow.scheduler._handle_error = lambda job, *words, **options: seen.append((job.attempt, options))
    Internals(workflow, pytest.fail).give_up_on(
        lambda log: "diverged" if log == "hopeless" else None, said.append
    )
    jobs = [Failed(log=log) for log in logs]
    more = {"jobs": jobs} if len(jobs) > 1 else {"log": logs[0]}
    workflow.scheduler._handle_error(Failed(_attempt=1, restart_times=retries, **more), postprocess_job=False)
    assert seen == [(attempt, {"postprocess_job": False})]
    assert said == told * ["Not tried again, as it would fail in the same way: diverged"]


def test_a_rate_limit_that_somebody_asks_for_stays(workflow):
    workflow.scheduling_settings.max_jobs_per_timespan.max_jobs = 5
    Internals(workflow, print).lift_rate_limit()
    assert workflow.scheduler.job_rate_limiter is not None


def test_a_plan_without_the_graph_of_jobs_is_one_line():
    with pytest.raises(ValleysError, match=f"is not as {SEEN} was .*its graph of jobs cannot be read"):
        job_graph(SimpleNamespace())


def test_threads_that_a_rule_says_are_read_without_its_other_resources():
    class Job:
        def __init__(self, **cores):
            self.asked = 0
            said = SimpleNamespace(is_evaluable=lambda: "value" not in cores, **cores)
            self.rule = SimpleNamespace(resources={"_cores": said})

        @property
        def threads(self):
            self.asked += 1
            return 7

    said, computed, gone = Job(value=2), Job(), Job()
    del gone.rule.resources["_cores"]
    assert [(threads_of(job), job.asked) for job in (said, computed, gone)] == [(2, 0), (7, 1), (7, 1)]


def test_rules_ask_snakemake_for_the_config_files_and_their_own_place_themselves_and_no_more():
    rules = [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]
    asked = {name for path in rules for name in re.findall(r"\bworkflow\.(?!rst\b)(\w+)", path.read_text())}
    assert asked == {"configfiles", "overwrite_configfiles", "current_basedir"}


@pytest.mark.slow
@pytest.mark.long
def test_a_run_goes_on_with_all_of_it_gone(tmp_path):
    """Snakemake itself is whole: its internals are hidden from this workflow alone."""
    driver = """
        import sys
        from valleys.execution import snakemake_internals
        from snakemake.cli import main

        class Hidden:
            is_main_process = True

        whole = snakemake_internals.Internals.__init__
        snakemake_internals.Internals.__init__ = lambda self, _, warn: whole(self, Hidden(), warn)
        main(sys.argv[1:])
        """
    config = load("config/smoke.yaml")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    made = [f"results/{config['name']}/tables/{name}.parquet" for name in ("toy_2d", "theory_gain")]
    options = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "config.yaml", "--cores", "1"]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(driver), *options, *made],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow" / "scripts")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert all((tmp_path / path).is_file() for path in made)
    told = [line for line in done.stdout.splitlines() if f"is not as {SEEN} was" in line]
    assert [line.partition(", so ")[2].split()[:3] for line in told] == [
        ["config", "files", "of"],
        ["two", "runs", "that"],
        ["jobs", "that", "this"],
        ["a", "healthy", "node"],
        ["a", "job", "that"],
        ["a", "run", "of"],
        ["the", "report", "has"],
        ["there", "is", "no"],
    ]
