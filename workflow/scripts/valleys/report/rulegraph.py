"""The graph of rules that made a report: taken from Snakemake's jobs, and kept; not its layout.

`of_jobs` is called by the Snakefile when a run starts, which knows the jobs; the page draws what it wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valleys.errors import ValleysError

Edge = tuple[str, str]

FILE = "rulegraph.json"


@dataclass(frozen=True)
class RuleGraph:
    """Rules with their numbers of jobs, and which rule's files each needs.

    Attributes
    ----------
    jobs
        Number of jobs by rule.
    edges
        Pairs (rule, rule that reads its files).
    depth
        By rule, over its jobs: mean number of steps on the longest way to one from a job that needs none.
    """

    jobs: Mapping[str, int]
    edges: Sequence[Edge]
    depth: Mapping[str, float]

    def to_json(self) -> str:
        """Return the graph as JSON; the same graph gives the same text."""
        rules = {rule: {"jobs": n, "depth": self.depth[rule]} for rule, n in sorted(self.jobs.items())}
        return json.dumps({"rules": rules, "edges": sorted(self.edges)}) + "\n"


def of_jobs(
    dependencies: Mapping[Any, Iterable[Any]], target: str = "report", around: tuple[str, str] = ("", "")
) -> RuleGraph:
    """Return the rules behind the jobs of rule `target`, those included.

    Parameters
    ----------
    dependencies
        Of each job the jobs whose files it reads (``workflow.dag.dependencies``); a job's name is
        ``job.rule.name``.
    target
        The rule's name.
    around
        What names begin and end with where the workflow is a module of another: left out.
    """
    import networkx as nx  # half a second, which each job's reading of the Snakefile would take too

    graph = nx.DiGraph((other, job) for job, needed in dependencies.items() for other in needed)
    graph.add_nodes_from(dependencies)
    reports = {job for job in graph if job.rule.name == target}
    graph = graph.subgraph(reports.union(*(nx.ancestors(graph, job) for job in reports)))
    name = {job: str(job.rule.name).removeprefix(around[0]).removesuffix(around[1]) for job in graph}
    depths: dict[str, list[int]] = {}
    for depth, generation in enumerate(nx.topological_generations(graph)):
        for job in generation:
            depths.setdefault(name[job], []).append(depth)
    return RuleGraph(
        jobs={rule: len(found) for rule, found in depths.items()},
        edges=sorted({(name[other], name[job]) for other, job in graph.edges}),
        depth={rule: round(sum(found) / len(found), 3) for rule, found in depths.items()},
    )


def read(path: str | Path) -> RuleGraph | None:
    """Return the graph that a run's start wrote, None where there is none.

    Raises
    ------
    ValleysError
        When the file is not such a graph.
    """
    path = Path(path)
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        jobs = {rule: int(about["jobs"]) for rule, about in raw["rules"].items()}
        depth = {rule: float(about["depth"]) for rule, about in raw["rules"].items()}
        edges = [(str(a), str(b)) for a, b in raw["edges"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValleysError(
            f"{path} is no graph of rules; delete it and rerun: a run writes it at its start"
        ) from error
    unknown = sorted({rule for edge in edges for rule in edge} - set(jobs))
    if unknown:
        raise ValleysError(f"{path}: edge of {unknown[0]!r}, which is not in rules; delete it and rerun")
    return RuleGraph(jobs, edges, depth)
