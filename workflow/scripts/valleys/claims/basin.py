"""Experiment 6: barriers between solutions of different cells (claim 9).

Claims are told apart by what a line joins, not by its name (straight lines within a cell are experiment 2).
The value of a seed is the barrier on its line. Rule mean, against `Settings.barrier`:

``one_basin``, straight lines to another recipe's cell of the same seed
    The barrier is below. Decides claim 9. Whether that recipe continued from the solution or began at the
    same initial weights is not in the tables: the config says it.
``seeds_are_apart``, straight lines to another seed
    The barrier is above. Beside. Neighbouring pairs of seeds share a solution; the test takes them for
    independent.
``seeds_are_connected`` (``solutions_are_connected`` where the seed is the same), paths with trained bends
    The barrier on the path is below. Beside. The note has the barrier on the straight line between the same
    ends, if that was measured.

Rule share, against one half:

``line_looks_sharp_from_one_side``, the lines of ``one_basin``
    m is the t of the least train loss. A seed's value is 1 where the rises from there at m - 1 and m + 1 (as
    far off as the two solutions are from each other; nearer, on both sides alike, where the line ends before)
    differ by c or more, else 0. Where the minimum is at an end of the line a seed is left out. Beside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from valleys.asymmetry.definition import reaches
from valleys.claims.rows import Row, barrier_row, joined, share_row
from valleys.claims.settings import Settings
from valleys.results import measures
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


def judge(interpolation: pd.DataFrame, settings: Settings) -> Iterator[Row]:
    """Experiment 6: barriers between solutions of different cells, on straight lines and trained paths."""
    kinds = measures.kind_of_line(interpolation)
    apart = interpolation.assign(joins=kinds)[kinds != "cell"]
    for (*names, kind), rows in apart.groupby([*SETTING, "line", "joins"], sort=True):
        scope = "/".join(map(str, names))
        yield _barrier_row(rows, interpolation, kind, scope, settings)
        if kind == "recipe":
            yield _one_sided_row(rows, scope, settings)


def _barrier_row(
    rows: pd.DataFrame, interpolation: pd.DataFrame, kind: str, scope: str, settings: Settings
) -> Row:
    claim, claimed, statement = _JOINED[kind]
    found = measures.barriers(rows).set_index("seed")
    notes = [_ends(rows)]
    if kind.endswith("-path"):
        notes.append(f"{rows['path'].iloc[0]} path")
        straight = measures.straight_twin(interpolation, rows)
        if len(straight):
            notes.append(
                f"on the straight line {measures.barriers(straight)['train'].mean():.3g} nats (mean)"
            )
    notes.append(f"test-loss barrier {found['test'].mean():.3g} nats (mean)")
    notes.append(f"BN {rows['bn_policy'].iloc[0]} on the line")
    if len(found) > 1 and kind.startswith("seed"):
        notes.append("neighbouring pairs share a seed")
    return barrier_row(
        claim,
        scope,
        statement,
        found["train"],
        claimed=claimed,
        at=settings.barrier,
        measure="greatest train loss above the chord between the two solutions, mean over seeds",
        note=joined(*notes),
        experiment=6,
        number=9,
        decides=kind == "recipe",
        **settings.test,
    )


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


def _one_sided_row(rows: pd.DataFrame, scope: str, settings: Settings) -> Row:
    found = pd.DataFrame([side_measures(line) for _, line in rows.groupby("seed")])
    steep = found.max(axis=1, skipna=False)
    hit = reaches(steep, settings.c * found.min(axis=1)) & (steep > 0)
    towards = (found["stop"] > found["start"])[hit]
    first = rows.iloc[0]
    start, stop = f"{first['start']} (t < m)", f"{first['stop']} of recipe {first['stop_recipe']} (t > m)"
    known = steep.notna()
    lost = int((~known).sum())
    return share_row(
        "line_looks_sharp_from_one_side",
        scope,
        "on the line through two solutions the minimum looks sharp from one side and wide from the other",
        hit[known].to_numpy(dtype=np.float64),
        at=0.5,
        measure="share of seeds in which the rises on the two sides of the line's minimum differ "
        f"{settings.c:g}-fold",
        note=joined(
            f"of these, steep towards {start} in {int((~towards).sum())}, towards {stop} in "
            f"{int(towards.sum())}",
            f"seeds whose minimum is at an end of the line, left out: {lost}" if lost else "",
        ),
        experiment=6,
        number=9,
        **settings.test,
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
