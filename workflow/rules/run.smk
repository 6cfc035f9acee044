# This run beside others, what it does before its first job and when all are done (onstart, onsuccess in the Snakefile).
import os

from valleys.cli.commands import VERDICTS, verdicts_of
from valleys.costs import ready
from valleys.execution import forkserver, retries, runs, slurm_queue
from valleys.report import rulegraph
from valleys.storage import files

# A dead run's lock goes by itself (valleys/execution/runs.py). Jobs of this process end when it does.
run = runs.Run(experiment.name)
if internals.is_main_process() and run.begin():
    if run.clear_dead():
        logger.info("Removed the lock of a run that was killed.")
    for other in run.working():
        logger.info(f"Another run of this experiment: {other.who}.")
runs.name_to_jobs()


def check_ready():
    """Refuse a run, and a dry run, whose data are not there or whose jobs take more memory than there is."""
    jobs = internals.jobs_to_run()
    made = next(iter(workflow.overwrite_configfiles), "config.yaml")
    fetch = "download: true" if internals.is_module() else f"make data CONFIG={os.path.relpath(made)}"
    lines = ready.lacking_data(experiment, jobs, fetch, internals.is_made)
    limited, most = internals.memory_limit()
    if limited:
        remedy = "; or say with --resources mem_mb=N that it may" if most is None else ready.RAISE
        line = ready.beyond_memory(costs, jobs, most, remedy)
        if line and most is None and internals.is_dry_run():
            logger.warning(line)
        elif line:
            lines.append(line)
    if lines:
        raise WorkflowError("\n".join(lines))
    if experiment.looks and jobs and internals.is_dry_run():
        logger.warning(ready.seeds_to_come(experiment, len(jobs), internals.seeded_jobs()))


if internals.is_main_process():
    internals.when_planned(check_ready)


def claim_files():
    """Refuse to run beside another run of the same files, even one that started in the same instant.

    Jobs that a dead run has left on a cluster are ended first (valleys/execution/slurm_queue.py).
    """
    if internals.is_main_process():
        inputs, outputs = internals.files()
        try:
            run.claim(inputs, outputs, queued=internals.queue_name())
            slurm_queue.cancel_left(run, outputs, logger.info, logger.warning)
        except ValleysError as error:
            raise WorkflowError(str(error))
        internals.replace_failed_nodes(slurm_queue.BrokenNodes)
        internals.give_up_on(retries.Failures().reason, logger.error)


def start_fork_server():
    """Have the jobs of a local run forked from one process that has imported torch; of a few it is not worth it."""
    if internals.is_main_process() and config["execution"]["fork_server"] and internals.is_forkable(least=3):
        if forkserver.start(SCRIPTS, logger.info):
            internals.start_scripts_with(forkserver.CLIENT, SCRIPTS)


reports = []  # that this run makes


def write_rulegraph():
    """Write down which rules, with how many jobs, are behind the report that this run is to make.

    As a module of another workflow, rules may have other names here and the report a folder before its path.
    """
    if internals.is_main_process() and (report := internals.planned(rules.report)):
        reports.append(Path(report.output))
        graph = rulegraph.of_jobs(report.dependencies, report.rule, report.rule.partition("report")[::2])
        files.write_text(Path(report.output).with_name(rulegraph.FILE), graph.to_json())


def tell_verdicts():
    """Print the verdicts and where the report is, if this run has made it, unless who started the run does."""
    for report in reports if os.environ.get(VERDICTS) != "later" else ():
        try:
            print(verdicts_of(report.parent), flush=True)
        except ValleysError as error:
            logger.warning(str(error))
