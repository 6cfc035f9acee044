"""All that the workflow takes of Snakemake beside its documented interface; no other module or rule does.

Seen in Snakemake 9.27.0 and its SLURM plugin 2.8.0. Attributes like these may go in any version. Where one is
gone, a line in Snakemake's log says what is lost by it, and the run goes on without.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from valleys.errors import ValleysError

SEEN = "9.27.0"
SLURM = "snakemake_executor_plugin_slurm"  # the module of the plugin's executor
STANDING_LIMIT = (100, 1)  # jobs, seconds: Snakemake's rate limit where nobody asks for one

T = TypeVar("T")


@dataclass(frozen=True)
class PlannedJob:
    """A job that is to run: its rule's name, its first output, and the graph of all jobs.

    `dependencies` has of each job the jobs whose files it reads.
    """

    rule: str
    output: str
    dependencies: Mapping[Any, Any]


class Internals:
    """What a Snakefile asks of its ``workflow`` object.

    Parameters
    ----------
    workflow
        The object of that name in a Snakefile.
    warn
        Takes a line for the user; each is told once.
    """

    def __init__(self, workflow: Any, warn: Callable[[str], None]) -> None:
        self._workflow, self._warn = workflow, warn
        self._told: set[str] = set()

    def _ask(self, read: Callable[[Any], T], otherwise: T, lost: str) -> T:
        """Return what `read` takes from the workflow; where that is gone say what is lost."""
        try:
            return read(self._workflow)
        except (AttributeError, TypeError) as error:  # TypeError: a method that now wants other arguments
            if lost not in self._told:
                self._told.add(lost)
                self._warn(f"Snakemake {_version()} is not as {SEEN} was ({error}), so {lost}.")
            return otherwise

    def is_main_process(self) -> bool:
        """Return whether this is the process that plans and starts jobs, not one that runs a job."""
        return self._ask(
            lambda workflow: bool(workflow.is_main_process),
            False,
            "the lock of a killed run stays, jobs it left in a queue are not looked for, each job starts "
            "some seconds later, and the report has no graph of rules",
        )

    def is_module(self) -> bool:
        """Return whether this workflow is a module of another one, whose config it has."""
        return self._ask(
            lambda workflow: bool(workflow.modifier.skip_configfile),
            False,
            "config files of a workflow that this is a module of must not be YTE templates either",
        )

    def is_made(self, path: str) -> bool:
        """Return whether a rule, of this workflow or of one that it is a module of, makes a file."""
        return self._ask(
            lambda workflow: any(rule.is_producer(path) for rule in workflow.rules),
            False,
            "given weights must be there before the run: those that a rule makes count as missing",
        )

    def files(self) -> tuple[set[str], set[str]]:
        """Return the inputs of the planned jobs, and the outputs of those that are to run."""

        def read(workflow: Any) -> tuple[set[str], set[str]]:
            kept = workflow.persistence
            return set(map(str, kept.all_inputfiles())), set(map(str, kept.all_outputfiles()))

        return self._ask(read, (set(), set()), "two runs that start in the same instant are not kept apart")

    def queue_name(self) -> str | None:
        """Return the name that all jobs of this run have in SLURM's queue; None with another executor."""

        def read(workflow: Any) -> str | None:
            executor = workflow.scheduler._executor
            return executor.run_uuid if _is_slurm(executor) else None

        return self._ask(
            read,
            None,
            "jobs that this run leaves in SLURM's queue, if it is killed, must be cancelled by hand",
        )

    def replace_failed_nodes(self, kind: Callable[[set[str]], set[str]]) -> None:
        """Have the SLURM plugin note nodes that have failed in a set of this kind."""

        def replace(workflow: Any) -> None:
            executor = workflow.scheduler._executor
            if _is_slurm(executor):
                executor._failed_nodes = kind(executor._failed_nodes)

        self._ask(replace, None, "a healthy node may be avoided after a job has failed")

    def is_dry_run(self) -> bool:
        """Return whether jobs are shown and none is run."""
        return self._ask(
            lambda workflow: bool(workflow.dryrun),
            False,
            "a dry run on this machine is refused where a job takes more memory than it has",
        )

    def jobs_to_run(self) -> list[tuple[str, Mapping[str, str]]]:
        """Return rule and wildcards of each job that is to run."""
        return self._ask(
            lambda workflow: [(job.rule.name, job.wildcards_dict) for job in workflow.dag.needrun_jobs()],
            [],
            "data that are missing, and a job too large for its node, are found by the job itself",
        )

    def seeded_jobs(self) -> list[Mapping[str, str]]:
        """Return the wildcards of each job of a seed that is planned, of those that need not run too."""
        return self._ask(
            lambda workflow: [w for job in workflow.dag.jobs if "seed" in (w := job.wildcards_dict)],
            [],
            "a dry run does not say how many jobs all seeds that may be added would take",
        )

    def memory_limit(self) -> tuple[bool, int | None]:
        """Return whether there is a limit to a job's memory, and its MB; None is what this machine has."""

        def read(workflow: Any) -> tuple[bool, int | None]:
            given = workflow.global_resources.get("mem_mb")
            given = getattr(given, "value", given)
            return given is not None or bool(workflow.local_exec), None if given is None else int(given)

        return self._ask(read, (False, None), "a job too large for its node is found when it runs")

    def when_planned(self, check: Callable[[], None]) -> None:
        """Have a function called when the graph of jobs is made and none has run, in a dry run too.

        Snakemake's own ``onstart`` is left out in a dry run.
        """

        def replace(workflow: Any) -> None:
            module = importlib.import_module("snakemake.workflow")
            usual = module.JobScheduler

            def make(of: Any, *args: Any, **options: Any) -> Any:
                if of is workflow:
                    check()
                return usual(of, *args, **options)

            module.JobScheduler = make

        self._ask(
            replace, None, "data that are missing, and a job too large for its node, are found by the job"
        )

    def give_up_on(self, for_good: Callable[[str], str | None], say: Callable[[str], None]) -> None:
        """Have a job that failed not tried again where that would be of no use.

        Parameters
        ----------
        for_good
            Of a job's log: why it cannot succeed, None where it may.
        say
            Takes a line for the user.
        """

        def replace(workflow: Any) -> None:
            usual = workflow.scheduler._handle_error

            def handle(job: Any, *args: Any, **options: Any) -> None:
                logs = [str(log) for one in (job.jobs if job.is_group() else [job]) for log in one.log]
                reason = next(filter(None, map(for_good, logs)), None)
                if reason is not None and job.restart_times > job.attempt - 1:
                    say(f"Not tried again, as it would fail in the same way: {reason}")
                    job._attempt = job.restart_times + 1  # not `attempt`, which would price it anew
                usual(job, *args, **options)

            workflow.scheduler._handle_error = handle

        self._ask(replace, None, "a job that cannot succeed is tried again, as often as retries says")

    def lift_rate_limit(self) -> None:
        """Drop Snakemake's standing limit of 100 jobs a second; one that somebody asks for stays.

        For each job that ends, Snakemake leaves one more timer, and each timer has all ready jobs looked at
        again once a second: a run of 700 jobs had 580 threads and lost minutes (benchmarks/README.md). No
        job is over that fast.
        """

        def lift(workflow: Any) -> None:
            limit, scheduler = workflow.scheduling_settings.max_jobs_per_timespan, workflow.scheduler
            if limit and (limit.max_jobs, limit.timespan) == STANDING_LIMIT and scheduler.job_rate_limiter:
                scheduler.job_rate_limiter = None

        self._ask(lift, None, "a run of many jobs may take some minutes longer")

    def is_forkable(self, least: int) -> bool:
        """Return whether `least` jobs or more are to run, as processes of this machine and environment."""

        def read(workflow: Any) -> bool:
            elsewhere = not workflow.local_exec or workflow.deployment_settings.deployment_method
            return not elsewhere and len(list(workflow.dag.needrun_jobs())) >= least

        return self._ask(read, False, "there is no fork server: each job starts anew, some seconds later")

    def start_scripts_with(self, client: Path, scripts: Path) -> None:
        """Have Python scripts of a folder that take one thread started as ``python -I -S client SCRIPT``.

        Snakemake's own command, ``python SCRIPT``, imports a part of Snakemake before the script's first
        line, which takes each job a tenth of a second of processor time. Scripts of other folders, of a
        workflow that has this one as a module, are started as always.
        """

        def replace(_: Any) -> None:
            kind = importlib.import_module("snakemake.script").PythonScript
            usual = kind.execute_script

            def execute(script: Any, path: str, edit: bool = False) -> None:
                path_of = Path(script.path.get_path_or_uri(secret_free=True))
                own = path_of.resolve().parent == scripts
                if own and int(script.threads) == 1:
                    command = "{python:q} -I -S {client:q} {path:q}"
                    script._execute_cmd(command, python=sys.executable, client=str(client), path=path)
                else:
                    usual(script, path, edit)

            kind.execute_script = execute

        self._ask(replace, None, "each job starts some seconds later")

    def planned(self, rule: Any) -> PlannedJob | None:
        """Return a rule's job that is to run, if there is one; `rule` is an attribute of ``rules``."""

        def read(workflow: Any) -> PlannedJob | None:
            name, dag = rule.rule.name, workflow.dag
            found = (str(job.output[0]) for job in dag.needrun_jobs() if job.rule.name == name)
            output = next(found, None)
            return output and PlannedJob(name, output, dag.dependencies)

        return self._ask(read, None, "the report has no graph of rules")


def job_graph(workflow: Any) -> Any:
    """Return the graph of jobs behind ``snakemake.api``'s object for a workflow, when it has been built.

    Raises
    ------
    ValleysError
        Where this version of Snakemake does not give it away.
    """
    try:
        return workflow._workflow.dag
    except AttributeError as error:
        raise ValleysError(
            f"Snakemake {_version()} is not as {SEEN} was ({error}): its graph of jobs cannot be read"
        ) from error


def threads_of(job: Any) -> int:
    """Return a job's threads; where its rule says a number, without asking for memory and time as well.

    Snakemake's own attribute evaluates them all together, which takes a quarter of a plan's time.
    """
    try:
        said = job.rule.resources["_cores"]
        return int(job.threads if said.is_evaluable() else said.value)
    except (AttributeError, KeyError, TypeError):
        return int(job.threads)


def _is_slurm(executor: Any) -> bool:
    return type(executor).__module__.partition(".")[0] == SLURM


def _version() -> str:
    try:
        return metadata.version("snakemake")
    except metadata.PackageNotFoundError:
        return "(of an unknown version)"
