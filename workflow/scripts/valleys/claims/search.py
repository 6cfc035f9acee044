"""Experiment 13: whether there is an asymmetric direction at the minima that SGD finds, by searching for one.

Rule share. The value of a minimum is 1 when the first direction that an ascent found at it (kind searched,
seek asymmetric) is asymmetric on images that the ascent did not see, else 0. One direction a minimum counts,
however many were searched for.

``asymmetric_direction_is_found``
    All minima of a probe together, those of studies too: at the headline rise they decide claim 1. Those of
    each setting stand beside, as do other rises.
``asymmetric_direction_of_mlps_is_found``
    The minima of MLPs: at the headline rise they decide claim 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd

from valleys.claims.rows import Row, count_of, joined, share_row
from valleys.claims.settings import Settings
from valleys.results import doubts
from valleys.results.measures import SETTING
from valleys.results.searches import are_asymmetric, are_found, of_first


def judge(searches: pd.DataFrame, settings: Settings) -> Iterator[Row]:
    """Experiment 13: directions found by ascent at SGD minima, by probe, and by setting and probe."""
    first = of_first(searches)
    for name, rows in first[first["solution"] == "sgd"].groupby("probe", sort=True):
        probe = str(name)
        scope = f"all settings/{probe}"
        about = f"settings: {rows.groupby(SETTING).ngroups}"
        decides = settings.is_headline(probe)
        yield found_row(rows, scope, settings, about=about, number=1, decides=decides)
        mlps = rows[rows["model"].map(settings.archs) == "mlp"]
        if len(mlps):
            yield found_row(
                mlps,
                scope,
                settings,
                claim="asymmetric_direction_of_mlps_is_found",
                statement="there is an asymmetric direction at the minima that SGD finds of MLPs",
                about=f"settings: {mlps.groupby(SETTING).ngroups}",
                number=3,
                decides=decides,
            )
        for names, own in rows.groupby(SETTING, sort=True):
            yield found_row(own, "/".join(map(str, (*names, probe))), settings, number=1)


def found_row(
    restarts: pd.DataFrame,
    scope: str,
    settings: Settings,
    *,
    number: int,
    claim: str = "asymmetric_direction_is_found",
    statement: str = "there is an asymmetric direction at the minima that SGD finds",
    experiment: int = 13,
    decides: bool = False,
    about: str = "",
) -> Row:
    """Return the row of some minima, from all restarts of their searches."""
    rows = restarts[restarts["chosen"]]
    hit = are_found(rows)
    median = rows["judge_c_star"].astype(float).median()
    begun = count_of(are_asymmetric(restarts, "start"), restarts["start_status"].notna())
    return share_row(
        claim,
        scope,
        statement,
        hit.to_numpy(),
        at=settings.found,
        measure="share of SGD minima at which the direction that an ascent found is asymmetric "
        "(Definition 1) on images that the ascent did not see",
        note=joined(
            about,
            _on_test(rows[hit]),
            f"asymmetric among the random directions that the ascents began at: {begun}",
            f"median c* on unseen train images {median:.3g}" if pd.notna(median) else "",
            f"at a rise of {_named(f'{rise:g}' for rise in rows['rise'])} nats",
            f"batch norm {_named(rows['bn_policy'])}",
            doubts.about(rows),
            "a miss is no proof that there is none",
        ),
        experiment=experiment,
        number=number,
        decides=decides,
        **settings.test,
    )


def _on_test(found: pd.DataFrame) -> str:
    """Say how many of the directions found are asymmetric on test images too."""
    known = found["test_status"].notna()
    if found.empty or not known.any():
        return "" if found.empty else "not measured on test images"
    return f"of those found, asymmetric on test images too: {count_of(are_asymmetric(found, 'test'), known)}"


def _named(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
