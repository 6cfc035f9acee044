"""Where the boxes and lines of the graph of rules stand: networkx's graphs, in layers from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np

from valleys.report.rulegraph import Edge, RuleGraph

WIDTH, HEIGHT = 128, 40  # of a box, CSS pixels
_GAP, _RISE = 16, 34  # between boxes of a layer, between layers
_LANE = 22  # that a line takes where it passes a layer


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
    them): then a line goes back, to the rule whose jobs come earlier on average. Within a layer the order is
    that of the graph's Fiedler vector, in which what is joined by a line stands close together.
    """
    down, back, layer = _layered(graph)
    # A line that passes layers is a chain of places in them, which take part in the ordering.
    chains = [[a, *((a, b, i) for i in range(layer[a] + 1, layer[b])), b] for a, b in sorted(down.edges)]
    places = nx.Graph(pair for chain in chains for pair in pairwise(chain))
    places.add_nodes_from(down)
    layer |= {node: node[2] for node in places if node not in layer}
    returns = {rule for edge in back for rule in edge}  # last of a layer: from there a line can go around
    order = _spectral_order(places, returns)
    rows = [
        sorted((node for node in order if layer[node] == i), key=returns.__contains__)
        for i in range(1 + max(layer.values(), default=-1))
    ]
    size = {node: WIDTH if node in graph.jobs else _LANE for node in places}
    middle, width = {}, max((sum(size[node] + _GAP for node in row) - _GAP for row in rows), default=0)
    for row in rows:
        x = (width - sum(size[node] + _GAP for node in row) + _GAP) / 2
        for node in row:
            middle[node] = x + size[node] / 2
            x += size[node] + _GAP
    top = {node: i * (HEIGHT + _RISE) for node, i in layer.items()}
    boxes = [
        Box(node, graph.jobs[node], middle[node] - WIDTH / 2, top[node])
        for row in rows
        for node in row
        if node in graph.jobs
    ]
    lines = [(_down([(middle[node], top[node]) for node in chain]), False) for chain in chains]
    for a, b in back:
        width = max(width, middle[a] + WIDTH / 2 + _LANE, middle[b] + WIDTH / 2 + _LANE)
        start, end = (f"{middle[rule] + WIDTH / 2:g} {top[rule] + HEIGHT / 2:g}" for rule in (a, b))
        lines.append((f"M{start} C{width:g} {start.split()[1]} {width:g} {end.split()[1]} {end}", True))
    return Drawing(width + 1, max(len(rows) * (HEIGHT + _RISE) - _RISE, 0), boxes, lines)


def _layered(graph: RuleGraph) -> tuple[nx.DiGraph, list[Edge], dict[Any, int]]:
    """Return the graph of lines that go down, the edges that go back, and each rule's layer."""
    needs = nx.DiGraph(edge for edge in sorted(graph.edges) if edge[0] != edge[1])
    needs.add_nodes_from(sorted(graph.jobs))
    turn = {rule: i for i, part in enumerate(nx.strongly_connected_components(needs)) for rule in part}
    place = {rule: (graph.depth[rule], rule) for rule in graph.jobs}
    back = [(a, b) for a, b in needs.edges if turn[a] == turn[b] and place[a] > place[b]]
    needs.remove_edges_from(back)
    down = nx.transitive_reduction(needs)
    layer = {rule: i for i, rules in enumerate(nx.topological_generations(down)) for rule in rules}
    for rule in [rule for rule in down if down.out_degree(rule) and not down.in_degree(rule)]:
        layer[rule] = min(layer[reader] for reader in down[rule]) - 1  # right above its reader
    return down, back, layer


def _spectral_order(graph: Any, last: set[str]) -> list[Any]:
    """Return the nodes by the graph's Fiedler vector, from the side that nodes of `last` are not on.

    `networkx.spectral_ordering` itself has its nodes in sets, so each process would draw another picture.
    """
    nodes = sorted(graph, key=str)
    if len(nodes) < 3:
        return nodes
    vector = np.linalg.eigh(nx.laplacian_matrix(graph, nodelist=nodes).toarray().astype(float))[1][:, 1]
    ends = [node in last for node in nodes] if last else [True] + [False] * (len(nodes) - 1)
    vector = vector if vector[ends].sum() >= 0 else -vector
    # Rounded, since what is joined to the same nodes is level but for the last bits.
    value = dict(zip(nodes, vector.round(6), strict=True))
    return sorted(nodes, key=value.__getitem__)


def _down(points: Sequence[tuple[float, float]]) -> str:
    """Return a line from below the first box to above the last, straight past those between."""
    path = ""
    for (x, above), (to, below) in pairwise(points):
        start, middle = above + HEIGHT, (above + HEIGHT + below) / 2
        path += f"{'V' if path else f'M{x:g} '}{start:g} "
        path += f"C{x:g} {middle:g} {to:g} {middle:g} {to:g} {below:g} "
    return path.rstrip()
