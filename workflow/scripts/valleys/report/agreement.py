"""Whether two runs give the same verdicts on the twelve claims (``valleys compare``, ``valleys replicate``).

A verdict is decided when it is supported or refuted. Agreement of B with A is the share of the verdicts
decided in A that are the same in B; a contradiction is a claim supported in one and refuted in the other.
Both were fixed on 2026-11-27.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from valleys.storage import tables

DECIDED = ("supported", "refuted")


@dataclass(frozen=True)
class Agreement:
    """How the verdicts of two runs go together.

    Attributes
    ----------
    rows : list of dict
        One a claim: ``number, claim, statement, verdict_a, verdict_b, effect_a, effect_b`` and ``agreement``,
        which is ``same``, ``contradicts`` (supported against refuted) or ``open`` (one of them, or both, is
        not decided).
    """

    rows: list[dict[str, Any]]

    def count(self, agreement: str) -> int:
        """Return how many claims are ``same``, ``contradicts`` or ``open``."""
        return sum(row["agreement"] == agreement for row in self.rows)

    def decided(self, side: str) -> int:
        """Return how many claims are decided in a run, ``a`` or ``b``."""
        return sum(row[f"verdict_{side}"] in DECIDED for row in self.rows)

    def summary(self) -> str:
        """Say it in a sentence or two."""
        rest = self.decided("a") - self.count("same") - self.count("contradicts")
        return (
            f"{self.decided('a')} of {len(self.rows)} claims are decided in A, {self.decided('b')} in B. "
            f"Of A's, {self.count('same')} have the same verdict in B, {self.count('contradicts')} the "
            f"contrary one, and {rest} are open there."
        )


def agree(a: pd.DataFrame, b: pd.DataFrame) -> Agreement:
    """Return how the verdicts of two ``verdicts`` tables go together.

    Claims that one of them does not have are left out.
    """
    both = a.merge(b, on="number", suffixes=("_a", "_b"), validate="one_to_one").sort_values("number")
    return Agreement([_row(row) for row in both.to_dict("records")])


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    first, second = row["verdict_a"], row["verdict_b"]
    if first in DECIDED and second in DECIDED:
        agreement = "same" if first == second else "contradicts"
    else:
        agreement = "open"
    return {
        "number": int(row["number"]),
        "claim": row["claim_a"],
        "statement": row["statement_a"],
        "verdict_a": first,
        "verdict_b": second,
        "effect_a": row["effect_a"],
        "effect_b": row["effect_b"],
        "agreement": agreement,
    }


def verdicts_of(folder: Path) -> pd.DataFrame:
    """Return the ``verdicts`` table of a finished run.

    Raises
    ------
    ValleysError
        When the folder has none, or it is damaged.
    """
    return tables.read(tables.of_run(folder, "verdicts"), "verdicts").to_pandas()


def as_text(found: Agreement) -> str:
    """Return the agreement as a table for the terminal, and its summary."""
    from tabulate import tabulate

    heads = ["", "claim", "A", "B", "agreement"]
    lines = [
        [row["number"], row["statement"], row["verdict_a"], row["verdict_b"], row["agreement"]]
        for row in found.rows
    ]
    text = tabulate(lines, heads, maxcolwidths=[None, 60, None, None, None], disable_numparse=True)
    return f"{text}\n\n{found.summary()}"
