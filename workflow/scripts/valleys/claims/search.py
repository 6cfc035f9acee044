"""Experiment 13: whether there is an asymmetric direction at the minima that SGD finds, by searching for one.

``asymmetric_direction_is_found``
    A minimum is a hit when the first direction that an ascent found at it (kind searched, seek asymmetric)
    is asymmetric on images that the ascent did not see. Rule found over minima: all of a probe together, and
    those of each setting. One direction a minimum counts, however many were searched for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd

from valleys.claims.rows import Row, count_of, joined, share_row
from valleys.claims.rules import MOST, SUPPORTED, share_verdict
from valleys.results import stats
from valleys.results.measures import SETTING
from valleys.results.searches import are_asymmetric, are_found, of_first


def judge(searches: pd.DataFrame, level: float) -> Iterator[Row]:
    """Experiment 13: directions found by ascent at SGD minima, by probe, and by setting and probe."""
    first = of_first(searches)
    for probe, rows in first[first["solution"] == "sgd"].groupby("probe", sort=True):
        settings = list(rows.groupby(SETTING, sort=True))
        yield _row(rows, str(probe), f"settings: {len(settings)}", level)
        for names, own in settings:
            yield _row(own, "/".join(map(str, (*names, probe))), "", level)


def _row(restarts: pd.DataFrame, scope: str, about: str, level: float) -> Row:
    """Return the row of some minima, from all restarts of their searches."""
    rows = restarts[restarts["chosen"]]
    hit, n = are_found(rows), len(rows)
    least = _least_found(level)
    median = rows["judge_c_star"].astype(float).median()
    begun = count_of(are_asymmetric(restarts, "start"), restarts["start_status"].notna())
    return share_row(
        "asymmetric_direction_is_found",
        13,
        scope,
        "there is an asymmetric direction at the minima that SGD finds",
        int(hit.sum()),
        n,
        measure="share of SGD minima at which the direction that an ascent found is asymmetric "
        "(Definition 1) on images that the ascent did not see",
        level=level,
        half=MOST,
        note=joined(
            about,
            f"{n} minima cannot support it; {least} can" if n < least else "",
            _on_test(rows[hit]),
            f"asymmetric among the random directions that the ascents began at: {begun}",
            f"median c* on unseen train images {median:.3g}" if pd.notna(median) else "",
            f"rise {_named(f'{rise:g}' for rise in rows['rise'])} nats",
            f"batch norm {_named(rows['bn_policy'])}",
            "a miss is no proof that there is none",
        ),
    )


def _on_test(found: pd.DataFrame) -> str:
    """Say how many of the directions found are asymmetric on test images too."""
    known = found["test_status"].notna()
    if found.empty or not known.any():
        return "" if found.empty else "not measured on test images"
    return f"of those found, asymmetric on test images too: {count_of(are_asymmetric(found, 'test'), known)}"


def _named(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def _least_found(level: float) -> int:
    """Return the least number of minima that can support the claim."""
    return next(n for n in range(1, 10_000) if share_verdict(stats.wilson(n, n, level), MOST) == SUPPORTED)
