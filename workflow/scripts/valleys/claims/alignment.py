"""Experiment 6: barriers between two seeds' minima before and after their units are matched, below claim 9.

A value is one of a pair of seeds; no two pairs share a seed. Rule mean; no row decides.

``seeds_are_apart_as_trained``
    The barrier before, above `Settings.barrier`.
``seeds_are_joined_by_alignment``
    The barrier after, below `Settings.barrier`.
``alignment_lowers_barrier``
    The barrier after less that before, below 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from valleys.claims.rows import Row, barrier_row, joined, mean_row
from valleys.claims.settings import Settings
from valleys.results.measures import SETTING


def judge(alignment: pd.DataFrame | None, settings: Settings) -> Iterator[Row]:
    """Experiment 6: barriers between seeds up to the order of units, by setting; no row without pairs."""
    if alignment is None or alignment.empty:
        return
    for names, rows in alignment.groupby(SETTING, sort=True):
        pairs = rows.set_index("seed")
        before, after = pairs["train_barrier_before"], pairs["train_barrier_after"]
        tests = [f"{pairs[f'test_barrier_{when}'].mean():.3g}" for when in ("before", "after")]
        note = joined(
            f"pairs of seeds {', '.join(f'{row.seed}-{row.other_seed}' for row in rows.itertuples())}",
            f"units moved {pairs['moved'].mean():.0%} (mean)",
            f"test-loss barrier {tests[0]} before, {tests[1]} after (mean)",
            f"BN {rows['bn_policy'].iloc[0]} on the lines",
        )
        about = {"experiment": 6, "number": 9, "note": note, **settings.test}
        scope, chord = "/".join(map(str, names)), "greatest train loss above the chord"
        yield barrier_row(
            "seeds_are_apart_as_trained",
            scope,
            "minima of two seeds are apart as they were trained: a barrier lies on the straight line",
            before,
            claimed=True,
            at=settings.barrier,
            measure=f"{chord}, units as trained",
            **about,
        )
        yield barrier_row(
            "seeds_are_joined_by_alignment",
            scope,
            "minima of two seeds lie in one basin once their units are matched: no barrier on the line",
            after,
            claimed=False,
            at=settings.barrier,
            measure=f"{chord}, units matched",
            **about,
        )
        yield mean_row(
            "alignment_lowers_barrier",
            scope,
            "matching units lowers the barrier between minima of two seeds",
            after - before,
            sign=-1,
            measure=f"{chord}, units matched - as trained",
            unit="nats",
            **about,
        )
