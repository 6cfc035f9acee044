"""What the report says of the looks at the claims, where seeds were added until these were decided."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from valleys.report.html_tables import p_value_cell
from valleys.report.sections import MARKS, look

_DECIDED, _WAITED = "decided", "waited for"


def path_of(looks: pd.DataFrame | None) -> dict[str, Any] | None:
    """Return the path of the decision, a row a look; None where the seeds were a list.

    Parameters
    ----------
    looks
        The ``looks`` table.
    """
    if looks is None or looks.empty:
        return None
    rows = [_row(part.sort_values("number")) for _, part in looks.groupby("look", sort=True)]
    first = looks.iloc[0]
    return {
        "rows": rows,
        "looks": int(first["looks"]),
        "most": int(first["most"]),
        "alpha": f"{first['alpha']:.3g}",
        "all": f"{first['alpha'] * first['looks']:.3g}",
        "seeds": rows[-1]["seeds"],
    }


def _row(part: pd.DataFrame) -> dict[str, Any]:
    first = part.iloc[0]
    waited = part.loc[part["state"] == _WAITED, "number"].tolist()
    decided = part.loc[part["state"] == _DECIDED, "number"].tolist()
    outcome = f"{_numbers(decided)} decided" if decided else "no claim decided"
    if waited:
        outcome += f", {_numbers(waited)} waited for"
    if first["stops"]:
        outcome += ": the last look" if waited else ": no claim is waited for, so it stops"
    else:
        outcome += ": more seeds"
    return {
        "look": int(first["look"]),
        "seeds": int(first["seeds"]),
        "outcome": outcome,
        "marks": [_mark(row) for row in part.to_dict("records")],
    }


def _mark(row: dict[str, Any]) -> dict[str, Any]:
    p = p_value_cell(row["p_adjusted"]).text
    return {
        "number": row["number"],
        "mark": MARKS[row["verdict"]],
        "look": look(row["verdict"]),
        "words": f"claim {row['number']}: {row['verdict']}, n = {row['n']}, adjusted p {p}; {row['state']}",
    }


def _numbers(numbers: Iterable[int]) -> str:
    listed = list(map(str, numbers))
    return f"claim {listed[0]}" if len(listed) == 1 else f"claims {', '.join(listed)}"
