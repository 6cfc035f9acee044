"""Experiment 6: barriers between solutions of different cells.

Claims are told apart by what a line joins, not by its name (straight lines within a cell are experiment 2):

``one_basin``, straight lines to another recipe's cell of the same seed
    Barrier rule, supported when there is none. Whether that recipe continued from the solution or began at
    the same initial weights is not in the tables: the config says it.
``line_looks_sharp_from_one_side``, the same lines
    m is the t of the least train loss. A seed counts when the rises from there at m - 1 and m + 1 (as far off
    as the two solutions are from each other; nearer, on both sides alike, where the line ends before) differ
    by c or more. Share rule. Where the minimum is at an end of the line a seed is left out.
``seeds_are_apart``, straight lines to another seed
    Barrier rule, supported when there is one. Neighbouring pairs of seeds share a solution; the interval
    takes them for independent.
``seeds_are_connected`` (``solutions_are_connected`` where the seed is the same), paths with trained bends
    Barrier rule, supported when there is none on the path. The note has the barrier on the straight line
    between the same ends, if that was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from valleys.asymmetry.definition import reaches
from valleys.claims.rows import Row, by_seed_of, share_row
from valleys.claims.rules import REFUTED, SUPPORTED, barrier_verdict
from valleys.results import measures, stats
from valleys.results.measures import SETTING

_JOINED = {  # claim, whether it says that there is a barrier, statement; by `measures.kind_of_line`
    "recipe": (
        "one_basin",
        False,
        "a solution and the one that another recipe reaches from it, or from the same initial weights, lie "
        "in one basin: no barrier on the straight line between them",
    ),
    "seed": (
        "seeds_are_apart",
        True,
        "solutions of two seeds are apart: a barrier lies on the straight line between them",
    ),
    "seed-path": (
        "seeds_are_connected",
        False,
        "solutions of two seeds are connected: no barrier on a path with trained bends between them",
    ),
    "recipe-path": (
        "solutions_are_connected",
        False,
        "solutions of two recipes are connected: no barrier on a path with trained bends between them",
    ),
    "cell-path": (
        "solutions_are_connected",
        False,
        "solutions of one cell are connected: no barrier on a path with trained bends between them",
    ),
}


def judge(interpolation: pd.DataFrame, c: float, level: float, barrier: float) -> Iterator[Row]:
    """Experiment 6: barriers between solutions of different cells, on straight lines and trained paths."""
    kinds = measures.kind_of_line(interpolation)
    joined = interpolation.assign(joins=kinds)[kinds != "cell"]
    for (*names, kind), rows in joined.groupby([*SETTING, "line", "joins"], sort=True):
        scope = "/".join(map(str, names))
        yield _barrier_row(rows, interpolation, kind, scope, level, barrier)
        if kind == "recipe":
            yield _one_sided_row(rows, scope, c, level)


def _barrier_row(
    rows: pd.DataFrame, interpolation: pd.DataFrame, kind: str, scope: str, level: float, threshold: float
) -> Row:
    claim, claimed, statement = _JOINED[kind]
    found = measures.barriers(rows)
    train, test = (found[split][np.isfinite(found[split])] for split in ("train", "test"))
    interval = stats.mean_interval(train, level)
    notes = [_ends(rows)]
    if kind.endswith("-path"):
        notes.append(f"{rows['path'].iloc[0]} path")
        straight = measures.straight_twin(interpolation, rows)
        if len(straight):
            notes.append(
                f"on the straight line {measures.barriers(straight)['train'].mean():.3g} nats (mean)"
            )
    notes.append(f"test-loss barrier {test.mean() if len(test) else math.nan:.3g} nats (mean)")
    notes.append(f"BN {rows['bn_policy'].iloc[0]} on the line")
    if len(train) < len(found):
        notes.append(f"seeds with a train loss that is not finite, left out: {len(found) - len(train)}")
    if len(train) < 2:
        notes.append(f"n = {len(train)} has no interval")
    elif kind.startswith("seed"):
        notes.append("neighbouring pairs share a seed")
    above, below = (REFUTED, SUPPORTED) if not claimed else (SUPPORTED, REFUTED)
    return {
        "claim": claim,
        "experiment": 6,
        "scope": scope,
        "statement": statement,
        "verdict": barrier_verdict(interval, threshold, claimed=claimed),
        "measure": "greatest train loss above the chord between the two solutions, mean over seeds",
        "effect": interval.estimate,
        "unit": "nats",
        "low": max(interval.low, 0.0) if math.isfinite(interval.low) else math.nan,  # it cannot be less
        "high": interval.high,
        "n": len(train),
        "p_value": None,
        "by_seed": by_seed_of(found.set_index("seed")["train"]),
        "test": "t interval of the mean",
        "rule": f"{below}: interval below {threshold:g} nats; {above}: above",
        "note": "; ".join(notes),
    }


def _ends(rows: pd.DataFrame) -> str:
    """Say which solutions a line joins: ``from swa to swa of recipe wide and the next seed (0-1, 1-2)``."""
    first = rows.iloc[0]
    stop = [f"recipe {first['stop_recipe']}"] if first["stop_recipe"] != first["recipe"] else []
    pairs = rows.drop_duplicates("seed").sort_values("seed")
    if (pairs["seed"] != pairs["stop_seed"]).any():
        named = ", ".join(f"{a}-{b}" for a, b in zip(pairs["seed"], pairs["stop_seed"], strict=True))
        stop.append(f"the next seed ({named})")
    words = f"from {first['start']} to {first['stop']}"
    return f"{words} of {' and '.join(stop)}" if stop else words


def _one_sided_row(rows: pd.DataFrame, scope: str, c: float, level: float) -> Row:
    found = pd.DataFrame([side_measures(line) for _, line in rows.groupby("seed")])
    steep = found.max(axis=1, skipna=False)
    hit = reaches(steep, c * found.min(axis=1)) & (steep > 0)
    n = int(steep.notna().sum())
    towards = (found["stop"] > found["start"])[hit]
    first = rows.iloc[0]
    start, stop = f"{first['start']} (t < m)", f"{first['stop']} of recipe {first['stop_recipe']} (t > m)"
    notes = [
        f"of these, steep towards {start} in {int((~towards).sum())}, towards {stop} in {int(towards.sum())}"
    ]
    if n < len(found):
        notes.append(f"seeds whose minimum is at an end of the line, left out: {len(found) - n}")
    return share_row(
        "line_looks_sharp_from_one_side",
        6,
        scope,
        "on the line through two solutions the minimum looks sharp from one side and wide from the other",
        int(hit.sum()),
        n,
        measure=f"share of seeds in which the rises on the two sides of the line's minimum differ {c:g}-fold",
        level=level,
        note="; ".join(notes),
    )


def side_measures(line: pd.DataFrame) -> dict[str, float]:
    """Return how far the train loss of one seed's line rises on the two sides of its least value, at t = m.

    ``start`` is the rise at m - 1 and ``stop`` that at m + 1, or at the greatest distance from m that the
    line reaches on both sides; NaN when m is at the line's end or a rise is not finite.
    """
    line = line.sort_values("t")
    t, train = line["t"].to_numpy(), line["train_loss"].to_numpy()
    nothing = {"start": math.nan, "stop": math.nan}
    if not np.isfinite(train).any():
        return nothing
    at = int(np.nanargmin(train))
    reach = min(1.0, t[at] - t[0], t[-1] - t[at])
    rises = [np.interp(t[at] + side * reach, t, train) - train[at] for side in (-1, 1)]
    if reach <= 0 or not np.isfinite(rises).all():
        return nothing
    return dict(zip(("start", "stop"), map(float, rises), strict=True))
