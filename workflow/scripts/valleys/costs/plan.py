"""What a run will take before it starts: Snakemake's own graph of jobs, priced by ``valleys.costs``.

``python -m valleys plan CONFIG`` builds the graph as a dry run does, in one process and once, and prints for
each rule how many jobs there are to do and done, and what those to do will cost. A cost is one of

``measured``
    the mean of what finished jobs of this run took that differ in their seed only;
``scaled``
    the estimate, times what finished jobs of the same rule took over what they had been estimated to take;
``estimated``
    the cost model's alone.

What a finished job took is in its file below ``benchmarks/`` (Snakemake writes it), so it is that of the
machine it ran on, and of its load.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import io
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from valleys import factories
from valleys.config.cells import Cells
from valleys.config.experiment import Experiment
from valleys.config.reading import load
from valleys.config.schema import check, with_defaults
from valleys.costs import ready
from valleys.costs.jobs import Costs
from valleys.costs.rules import RULES
from valleys.costs.work import Cost
from valleys.errors import ValleysError
from valleys.execution.snakemake_internals import job_graph, threads_of
from valleys.storage import files

SNAKEFILE = Path(__file__).resolve().parents[4] / "Snakefile"
PROFILE = SNAKEFILE.parent / "profiles" / "default" / "config.yaml"
KEPT = ("all", "window", "none")
HOUR = 3600.0


@dataclass(frozen=True)
class Job:
    """One job of the graph.

    Attributes
    ----------
    rule, wildcards
        Which.
    todo
        Whether it is to be run.
    threads
        Cores that it takes.
    benchmark, log
        Files with what it took, if it has run.
    after
        Numbers of the jobs whose outputs it reads.
    files
        Files and folders that it leaves, but for those in a folder that is an output (`Cost.files`).
    """

    rule: str
    wildcards: Mapping[str, str]
    todo: bool
    threads: int = 1
    benchmark: Path | None = None
    log: Path | None = None
    after: tuple[int, ...] = ()
    files: int = 0

    @property
    def but_seed(self) -> tuple[Any, ...]:
        """All but the seed."""
        return self.rule, *sorted((k, v) for k, v in self.wildcards.items() if k != "seed")


@dataclass(frozen=True)
class Price:
    """Seconds and MB of one job, and where they come from."""

    seconds: float
    memory_mb: float
    disk: float
    gpu: bool
    origin: str
    files: int = 0


@dataclass
class Row:
    """One rule's line of the plan; `longest` and `memory_mb` are those of its largest job."""

    rule: str
    todo: int = 0
    done: int = 0
    core_hours: float = 0.0
    gpu_hours: float = 0.0
    longest: float = 0.0
    memory_mb: float = 0.0
    disk: float = 0.0
    files: int = 0
    origins: set[str] = field(default_factory=set)

    def add(self, job: Job, price: Price | None) -> None:
        """Count a job; `price` of one to do."""
        if price is None:
            self.done += 1
            return
        self.todo += 1
        self.core_hours += price.seconds * job.threads / HOUR
        self.gpu_hours += price.seconds * price.gpu / HOUR
        self.longest = max(self.longest, price.seconds / HOUR)
        self.memory_mb = max(self.memory_mb, price.memory_mb)
        self.disk += price.disk
        self.files += job.files + price.files
        self.origins.add(price.origin)


@dataclass(frozen=True)
class Plan:
    """The plan of one experiment.

    Attributes
    ----------
    rows
        By rule, in the order of their work.
    longest
        Hours of the longest chain of jobs to do: what is left with as many cores and GPUs as jobs.
    iterates
        Bytes of all cells' iterates when everything is done, by ``execution.keep``.
    keep
        What the config says of them.
    measurements
        Finished jobs whose benchmark file was read.
    assumed
        Data sets whose size is not known yet.
    guessed
        Users' own networks whose size is not known yet.
    missing
        A line for each original of a data set that is not there.
    refused
        Why a cluster's profile allows no such run; None where it does, or none was given.
    too_large
        Why this machine does not.
    """

    rows: Sequence[Row]
    longest: float
    iterates: Mapping[str, float]
    keep: str
    measurements: int
    assumed: Sequence[str]
    guessed: Sequence[str] = ()
    missing: Sequence[str] = ()
    refused: str | None = None
    too_large: str | None = None

    @property
    def total(self) -> Row:
        """The sum of all rows; the longest job and memory are the greatest."""
        found = Row("total")
        for row in self.rows:
            for key in ("todo", "done", "core_hours", "gpu_hours", "disk", "files"):
                setattr(found, key, getattr(found, key) + getattr(row, key))
            for key in ("longest", "memory_mb"):
                setattr(found, key, max(getattr(found, key), getattr(row, key)))
        return found


def make(
    configfile: str | Path,
    targets: Iterable[str] = (),
    *,
    local: bool = False,
    measure: bool = False,
    limit_mb: int | None = None,
) -> Plan:
    """Return the plan of a config file, for a run in the present folder.

    Parameters
    ----------
    targets
        Files or named targets; without, everything.
    local
        Whether the run is one on this machine, where starting a job takes less.
    measure
        Whether to build users' own networks for their size, if no job has: it runs their code.
    limit_mb
        Memory that a job of a cluster may have (`memory_limit`).

    Raises
    ------
    ValleysError
        When the config is wrong, or Snakemake cannot build the graph.
    """
    experiment: Cells = experiment_of(Path(configfile))
    if measure:
        Costs(experiment).measure_ahead()
    jobs = read_jobs(Path(configfile), targets)
    experiment = _with_seeds_of(experiment, jobs)
    todo, costs = [(job.rule, job.wildcards) for job in jobs if job.todo], Costs(experiment, local=local)
    return replace(
        price(jobs, experiment, local=local),
        missing=ready.lacking_data(experiment, todo, f"make data CONFIG={configfile}"),
        refused=limit_mb and ready.beyond_memory(costs, todo, limit_mb, ready.RAISE),
        too_large=ready.beyond_memory(costs, todo, None) if local else None,
    )


def _with_seeds_of(experiment: Experiment, jobs: Sequence[Job]) -> Cells:
    """Return an experiment with no more of the seeds that are added than there are jobs of."""
    if experiment.looks is None:
        return experiment
    paths = {
        (w["dataset"], w["model"], w["recipe"], w["seed"])
        for w in (j.wildcards for j in jobs)
        if "seed" in w and "recipe" in w
    }
    asked = [cell for cell in experiment.trained_cells if (*cell.setting, str(cell.seed)) in paths]
    for count in experiment.looks.counts:
        found = experiment.at(count)
        if set(asked) <= set(found.trained_cells):
            return found
    return experiment


def bounds(configfile: str | Path, targets: Sequence[str] = ()) -> list[tuple[str, Sequence[str]]]:
    """Return what there are plans of: a heading and the targets of each.

    One with no heading; or the least and the most, where seeds are added until claims are decided and no
    targets are given.
    """
    looks = experiment_of(Path(configfile)).looks
    if looks is None:
        return [("", targets)]
    least = f"{looks.sentence()}\n\nThe least, to the next look:"
    most = [(f"The most, {looks.most} seeds:", ("all", "most_seeds"))]
    return [(least, targets), *([] if targets else most)]


def memory_limit(profile: Path) -> int | None:
    """Return the MB that a job may ask for by a Snakemake profile, None where it does not say.

    Raises
    ------
    ValleysError
        When there is no such profile, or it cannot be read.
    """
    path = files.check_regular(profile / "config.yaml", "--profile:", "give the folder of a profile")
    try:
        from yte import process_yaml

        found = process_yaml(path.read_text(encoding="utf-8"), require_use_yte=True)
        limit = (found.get("resources") or {}).get("mem_mb")
        return None if limit is None else int(limit)
    except Exception as error:  # of YTE, of YAML, or of an expression in it
        reason = " ".join(str(error).split())
        raise ValleysError(f"--profile: {path} is no profile that can be read ({reason}); mend it") from error


def experiment_of(configfile: Path) -> Experiment:
    """Return the experiment of a config file, checked as a run checks it."""
    config = copy.deepcopy(load(configfile))  # without aliases
    factories.look_beside([configfile])
    check(config)
    return Experiment(with_defaults(config))


@contextlib.contextmanager
def graph_of(configfile: Path, targets: Iterable[str] = ()) -> Iterator[Any]:
    """Within the block, Snakemake's graph of jobs for a run in the present folder.

    By Snakemake's Python interface: of its outputs none has both wildcards and dependencies, and printing the
    jobs of a large grid takes longer than building their graph. The graph object is internal to Snakemake,
    whose version is pinned; a test compares the counts with those that a dry run prints.

    Raises
    ------
    ValleysError
        When Snakemake cannot build the graph, with its reason.
    """
    from snakemake.api import SnakemakeApi
    from snakemake.settings.enums import Quietness
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings

    profile = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    triggers = DAGSettings().rerun_triggers
    chosen = frozenset(trigger for trigger in triggers if str(trigger) in profile["rerun-triggers"])
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        try:
            workflow = api.workflow(
                resource_settings=ResourceSettings(cores=sys.maxsize),
                config_settings=ConfigSettings(configfiles=[configfile.resolve()]),
                snakefile=SNAKEFILE,
            )
            settings = DAGSettings(
                targets=set(targets),
                rerun_triggers=chosen,
                force_incomplete=profile.get("rerun-incomplete", False),
            )
            with contextlib.redirect_stdout(io.StringIO()):  # its drawing, which is not what is wanted
                workflow.dag(settings).printd3dag()
            graph = job_graph(workflow)
        except Exception as error:
            raise ValleysError(f"no plan of {configfile}: {_reason(error)}") from error
        yield graph


def _reason(error: BaseException) -> str:
    """Return why Snakemake cannot build a graph, on one line.

    A line of this workflow's own is taken out of what Snakemake has put around it: the rule, the file it is
    in and where that was. Snakemake's own errors are left whole, but for their line breaks.
    """
    inner, around = error, None
    while inner is not None and inner is not around:
        if isinstance(inner, ValleysError):
            return " ".join(str(inner).split())
        inner, around = inner.__cause__ or inner.__context__, inner
    kind, text = type(error).__name__, " ".join(str(error).split())
    own = re.search(r"(?:WorkflowError|ValleysError): (config: .*?)(?: Wildcards:|$)", text)
    if own or text.startswith(("config: ", "results folder ")):
        return own[1] if own else text
    return f"{kind}: {text}" if text else kind


def read_jobs(configfile: Path, targets: Iterable[str] = ()) -> list[Job]:
    """Return the jobs of Snakemake's graph (`graph_of`) that make something, finished ones among them."""
    with graph_of(configfile, targets) as graph:
        made = [job for job in graph.jobs if job.output]
        number = {job: i for i, job in enumerate(made)}
        left = _files_left(made, graph)
        return [
            Job(
                rule=job.rule.name,
                wildcards=dict(job.wildcards_dict),
                todo=bool(graph.needrun(job)),
                threads=threads_of(job),
                benchmark=Path(job.benchmark) if job.benchmark else None,
                log=Path(job.log[0]) if job.log else None,
                after=tuple(number[other] for other in graph.dependencies[job] if other in number),
                files=left[i],
            )
            for i, job in enumerate(made)
        ]


def _files_left(jobs: Sequence[Any], graph: Any) -> list[int]:
    """Return how many files and folders each of Snakemake's jobs leaves: a folder counts where it is first.

    Those are outputs that stay, the log, the benchmark, and Snakemake's record of each output.
    """
    counts, seen = [0] * len(jobs), {".", "/"}
    for i in sorted(range(len(jobs)), key=lambda i: graph.needrun(jobs[i])):  # what is there needs no folder
        job = jobs[i]
        stay = [path for path in job.output if path not in job.temp_output]
        kept = [*stay, *job.log, *([job.benchmark] if job.benchmark else [])]
        counts[i] = len(kept) + len(stay)
        for path in kept:
            folder = os.path.dirname(path)  # noqa: PTH120 (of each file of a large plan)
            while folder and folder not in seen:
                seen.add(folder)
                counts[i] += 1
                folder = os.path.dirname(folder)  # noqa: PTH120
    return counts


def price(jobs: Sequence[Job], experiment: Cells, *, local: bool = False) -> Plan:
    """Return the plan of these jobs, run on this machine (`Costs`) or elsewhere."""
    costs = Costs(experiment, local=local)
    finished = {
        i: found for i, job in enumerate(jobs) if not job.todo and (found := took(job.benchmark, job.log))
    }
    estimates = [costs(job.rule, job.wildcards) for job in jobs]
    by_cell: dict[Any, list[tuple[float, float]]] = defaultdict(list)
    by_rule: dict[str, list[tuple[float, float, Cost]]] = defaultdict(list)
    for i, (seconds, memory) in finished.items():
        by_cell[jobs[i].but_seed].append((seconds, memory))
        by_rule[jobs[i].rule].append((seconds, memory, estimates[i]))
    factors = {rule: _factors(found) for rule, found in by_rule.items()}

    prices: list[Price | None] = []
    for job, estimate in zip(jobs, estimates, strict=True):
        if not job.todo:
            prices.append(None)
        elif job.but_seed in by_cell:
            seconds, memory = zip(*by_cell[job.but_seed], strict=True)
            peak = max(memory) or estimate.memory_mb
            rest = (estimate.disk, estimate.gpu, "measured", estimate.files)
            prices.append(Price(sum(seconds) / len(seconds), peak, *rest))
        else:
            slower, larger = factors.get(job.rule, (1.0, 1.0))
            origin = "scaled" if job.rule in factors else "estimated"
            seconds, memory = estimate.seconds * slower, estimate.memory_mb * larger
            prices.append(Price(seconds, memory, estimate.disk, estimate.gpu, origin, estimate.files))

    rows = {rule: Row(rule) for rule in RULES}
    for job, found in zip(jobs, prices, strict=True):
        rows[job.rule].add(job, found)
    used, trained = {cell.dataset for cell in experiment.all_cells}, experiment.trained_cells
    return Plan(
        rows=[row for row in rows.values() if row.todo or row.done],
        longest=longest_path(jobs, [p.seconds if p else 0.0 for p in prices]) / HOUR,
        iterates={keep: sum(costs.iterates(cell, keep) for cell in trained) for keep in KEPT},
        keep=experiment.config["execution"]["keep"],
        measurements=len(finished),
        assumed=sorted(name for name in used if not costs.data(name).counted),
        guessed=costs.guessed(),
    )


def _factors(found: Sequence[tuple[float, float, Cost]]) -> tuple[float, float]:
    """Return how many times longer, and larger, jobs were than estimated."""
    slower = sum(seconds for seconds, _, _ in found) / sum(cost.seconds for _, _, cost in found)
    known = [(memory, cost.memory_mb) for _, memory, cost in found if memory > 0]
    larger = sum(m for m, _ in known) / sum(c for _, c in known) if known else 1.0
    return slower, larger


def took(path: Path | None, log: Path | None = None) -> tuple[float, float] | None:
    """Return seconds and greatest resident MB of a finished job; 0 MB where nothing tells.

    Parameters
    ----------
    path
        Its benchmark. Of a job that the fork server ran it has the memory of the program that waited for it.
    log
        Its log, which has the job's own (`jobs.job`).
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        seconds = sum(float(row["s"]) for row in rows) / len(rows)
        memory = [float(row["max_rss"]) * 1.048576 for row in rows if row["max_rss"] not in ("NA", "-")]
    except (AttributeError, OSError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None  # not written, or half written: then it is not known
    peak = max([*memory, _logged_peak(log)], default=0.0)
    return seconds, peak if peak > 50 else 0.0  # Python alone takes more: the first look came too early


def _logged_peak(log: Path | None) -> float:
    """Return the MB that a job's log says it took; 0 where it says nothing."""
    try:
        found = re.search(r"peak memory (\d+) MB$", files.last_line(log)) if log else None
    except OSError:
        return 0.0
    return float(found[1]) if found else 0.0


def in_order(jobs: Sequence[Job]) -> list[int]:
    """Return the numbers of jobs so that each comes after those it depends on."""
    waiting = [len(job.after) for job in jobs]
    followers: list[list[int]] = [[] for _ in jobs]
    for i, job in enumerate(jobs):
        for other in job.after:
            followers[other].append(i)
    order = [i for i, count in enumerate(waiting) if count == 0]
    for i in order:  # grows as it is read
        for follower in followers[i]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                order.append(follower)
    return order


def longest_path(jobs: Sequence[Job], seconds: Sequence[float]) -> float:
    """Return the seconds of the dearest chain of jobs, each after the one before."""
    ends = [0.0] * len(jobs)
    for i in in_order(jobs):
        ends[i] = seconds[i] + max((ends[other] for other in jobs[i].after), default=0.0)
    return max(ends, default=0.0)
