"""The graph of rules that made a report: taken from Snakemake's jobs when a run starts, laid out in layers.

`of_jobs` is called by the Snakefile, which knows the jobs; the report draws what it wrote. The layout is
Sugiyama's (layers by longest path, long lines led through each layer, rows ordered by the mean place of their
neighbours), with no other program and no package, since a graph of some twenty rules asks for no more.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valleys.errors import ValleysError

Edge = tuple[str, str]

FILE = "rulegraph.json"
WIDTH, HEIGHT = 128, 40  # of a box, CSS pixels
_GAP, _RISE = 16, 34  # between boxes of a layer, between layers
_LANE = 22  # that a line takes where it passes a layer
_SWEEPS = 12


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

    def plain(job: Any) -> str:
        return str(job.rule.name).removeprefix(around[0]).removesuffix(around[1])

    depth: dict[Any, int] = {}
    edges = set()
    todo = [job for job in dependencies if job.rule.name == target]
    while todo:  # a stack of our own: chains of jobs can be longer than Python's
        job = todo[-1]
        needed = list(dependencies.get(job, ()))
        open_ = [other for other in needed if other not in depth]
        if open_:
            todo += open_
            continue
        todo.pop()
        if job in depth:
            continue
        depth[job] = 1 + max((depth[other] for other in needed), default=-1)
        edges |= {(plain(other), plain(job)) for other in needed}
    places: dict[str, list[int]] = {}
    for job, place in depth.items():
        places.setdefault(plain(job), []).append(place)
    return RuleGraph(
        jobs={rule: len(found) for rule, found in places.items()},
        edges=sorted(edges),
        depth={rule: round(sum(found) / len(found), 3) for rule, found in places.items()},
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


# Layout ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Box:
    """A rule's box: its left upper corner in CSS pixels."""

    rule: str
    jobs: int
    x: float
    y: float


@dataclass(frozen=True)
class Drawing:
    """What the template draws.

    Attributes
    ----------
    width, height
        CSS pixels.
    boxes
        By layer, from left to right.
    lines
        SVG path data, and whether the line goes back: up to a rule that stands above.
    """

    width: float
    height: float
    boxes: Sequence[Box]
    lines: Sequence[tuple[str, bool]]


def lay_out(graph: RuleGraph) -> Drawing:
    """Place rules in layers, each below all that it needs.

    Lines that a longer way implies are left out. Rules may need one another by turns (different jobs of
    them): then a line goes back, to the rule whose jobs come earlier on average.
    """
    nodes = sorted(graph.jobs)
    forward, back = _acyclic(graph)
    forward = _reduced(forward)
    layer = _layers(nodes, forward)
    rows, chains = _rows(nodes, forward, layer)
    _order(rows, chains, {rule for edge in back for rule in edge})
    place = _places(rows)
    width = max((x + _size(node) / 2 for row in rows for node in row for x in (place[node],)), default=0)
    tops = [i * (HEIGHT + _RISE) for i in range(len(rows))]
    boxes = [
        Box(node, graph.jobs[node], place[node] - WIDTH / 2, tops[i])
        for i, row in enumerate(rows)
        for node in row
        if isinstance(node, str)
    ]
    lines = []
    for chain in chains:
        start = layer[chain[0]]
        points = [(place[node], tops[start + i]) for i, node in enumerate(chain)]
        lines.append((_down(points), False))
    right = width
    for a, b in back:
        path, right = _up(place[a], tops[layer[a]], place[b], tops[layer[b]], right)
        lines.append((path, True))
    return Drawing(right + 1, len(rows) * (HEIGHT + _RISE) - _RISE if rows else 0, boxes, lines)


def _reach(edges: Iterable[Edge]) -> dict[str, set[str]]:
    """Return all rules that each can be followed to."""
    after: dict[str, set[str]] = {}
    for a, b in edges:
        after.setdefault(a, set()).add(b)
    found = {}
    for node in after:
        seen: set[str] = set()
        todo = [node]
        while todo:
            new = after.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        found[node] = seen
    return found


def _acyclic(graph: RuleGraph) -> tuple[set[Edge], list[Edge]]:
    """Split edges into those of a graph without cycles and those that go back."""
    edges = {(a, b) for a, b in graph.edges if a != b}
    reach = _reach(edges)
    place = {rule: (graph.depth[rule], rule) for rule in graph.jobs}
    back = {(a, b) for a, b in edges if a in reach.get(b, ()) and place[a] > place[b]}
    return edges - back, sorted(back)


def _reduced(edges: set[Edge]) -> set[Edge]:
    """Leave out each edge whose ends are joined by a longer way too (the transitive reduction)."""
    reach = _reach(edges)
    return {(a, b) for a, b in edges if not any(b in reach.get(other, ()) for x, other in edges if x == a)}


def _layers(nodes: Sequence[str], edges: set[Edge]) -> dict[str, int]:
    """Return each rule's layer: longest way from those that need none; these stand right above a reader."""
    before: dict[str, list[str]] = {node: [] for node in nodes}
    after: dict[str, list[str]] = {node: [] for node in nodes}
    for a, b in edges:
        before[b].append(a)
        after[a].append(b)
    layer: dict[str, int] = {}

    def find(node: str) -> int:
        if node not in layer:
            layer[node] = 1 + max((find(other) for other in before[node]), default=-1)
        return layer[node]

    for node in nodes:
        find(node)
    for node in nodes:
        if after[node] and not before[node]:
            layer[node] = min(layer[other] for other in after[node]) - 1
    return layer


Node = str | tuple[str, str, int]  # a rule, or where a line passes a layer


def _rows(
    nodes: Sequence[str], edges: set[Edge], layer: Mapping[str, int]
) -> tuple[list[list[Node]], list[list[Node]]]:
    """Return what stands in each layer, and each line as the nodes it goes through."""
    rows: list[list[Node]] = [[] for _ in range(1 + max(layer.values(), default=-1))]
    for node in nodes:
        rows[layer[node]].append(node)
    chains: list[list[Node]] = []
    for a, b in sorted(edges):
        passed: list[Node] = [(a, b, i) for i in range(layer[a] + 1, layer[b])]
        for node in passed:
            rows[node[2]].append(node)
        chains.append([a, *passed, b])
    return rows, chains


def _order(rows: list[list[Node]], chains: Sequence[Sequence[Node]], last: set[str]) -> None:
    """Order each layer so that few lines cross; the best of some sweeps down and up is kept.

    Rules of `last` end their layer: from there a line can go back.
    """
    for row in rows:
        row.sort(key=lambda node: node in last)
    pairs = [pair for chain in chains for pair in itertools.pairwise(chain)]
    above: dict[Node, list[Node]] = {node: [] for row in rows for node in row}
    below: dict[Node, list[Node]] = {node: [] for row in rows for node in row}
    for a, b in pairs:
        above[b].append(a)
        below[a].append(b)
    best, fewest = [list(row) for row in rows], _crossings(rows, above)
    for sweep in range(_SWEEPS):
        near = above if sweep % 2 == 0 else below
        order = range(1, len(rows)) if sweep % 2 == 0 else range(len(rows) - 2, -1, -1)
        at = {node: i for row in rows for i, node in enumerate(row)}
        for i in order:
            mean = {
                n: sum(at[o] for o in near[n]) / len(near[n]) if near[n] else float(at[n]) for n in rows[i]
            }
            rows[i].sort(key=lambda node: (node in last, mean[node], str(node)))
            at |= {node: k for k, node in enumerate(rows[i])}
        crossings = _crossings(rows, above)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    rows[:] = best


def _crossings(rows: Sequence[Sequence[Node]], above: Mapping[Node, Sequence[Node]]) -> int:
    count = 0
    for upper, lower in itertools.pairwise(rows):
        at = {node: i for i, node in enumerate(upper)}
        ends = [at[node] for b in lower for node in sorted(above[b], key=at.__getitem__)]
        groups = [k for k, b in enumerate(lower) for _ in above[b]]
        count += sum(
            ends[i] > ends[j] and groups[i] != groups[j]
            for i in range(len(ends))
            for j in range(i + 1, len(ends))
        )
    return count


def _size(node: Node) -> float:
    return WIDTH if isinstance(node, str) else _LANE


def _places(rows: Sequence[Sequence[Node]]) -> dict[Node, float]:
    """Return the middle of each node, every layer centred on the widest."""
    widths = [sum(_size(node) + _GAP for node in row) - _GAP for row in rows]
    place = {}
    for row, width in zip(rows, widths, strict=True):
        x = (max(widths) - width) / 2
        for node in row:
            place[node] = x + _size(node) / 2
            x += _size(node) + _GAP
    return place


def _down(points: Sequence[tuple[float, float]]) -> str:
    """Return a line from below the first box to above the last, straight past those between."""
    (x, y), *rest = points
    parts = [f"M{x:g} {y + HEIGHT:g}"]
    y += HEIGHT
    for i, (to, top) in enumerate(rest):
        middle = (y + top) / 2
        parts.append(f"C{x:g} {middle:g} {to:g} {middle:g} {to:g} {top:g}")
        if i < len(rest) - 1:
            parts.append(f"V{top + HEIGHT:g}")
        x, y = to, top + HEIGHT
    return " ".join(parts)


def _up(x: float, y: float, to: float, top: float, right: float) -> tuple[str, float]:
    """Return a line from the right of a box around to the right of one above, and how far right it goes."""
    far = max(right, x + WIDTH / 2 + _LANE, to + WIDTH / 2 + _LANE)
    start, end = y + HEIGHT / 2, top + HEIGHT / 2
    path = f"M{x + WIDTH / 2:g} {start:g} C{far:g} {start:g} {far:g} {end:g} {to + WIDTH / 2:g} {end:g}"
    return path, far
