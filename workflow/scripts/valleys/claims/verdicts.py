"""The twelve claims that the paper and its successors make, and the one verdict on each.

Rows of the ``claims`` table belong to a claim by their ``number``, and some of them decide it (``decides``):
those of the headline rise, of the settings that are no controls, of the simulations inside the theorem's
regime. Which ones is said where the row is made, and in words in `CLAIMS`. A claim holds where all the rows
that decide it hold, so its p-value for is the greatest of theirs, and its p-value against the least, times
their number (`inference.all_of`). Claim 11 asks whether anything matters: one row is enough.

Twelve claims are judged in one run. The two-sided p-values are therefore adjusted together by Holm's method:
with a probability of 1 - alpha no verdict of the twelve is false. A claim is supported or refuted when the
adjusted p is at most alpha, inconclusive when not, and not decidable when no row decides it, or when one that
must hold could not be decided by any data and none is against.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from valleys.claims.rules import INCONCLUSIVE, NOT_DECIDABLE, REFUTED, SUPPORTED
from valleys.results import inference, stats
from valleys.results.measures import LEFT_OUT


@dataclass(frozen=True)
class Claim:
    """One of the twelve.

    Attributes
    ----------
    number : int
        1 to 12, in the order of docs/experiments.md.
    name : str
        Short, as in the table.
    statement : str
        What is claimed, in a sentence.
    rule : str
        Which rows decide, in a sentence.
    any_row : bool
        Whether one row that holds is enough; else all must.
    simulated : bool
        Whether rows of simulations are among those that decide.
    """

    number: int
    name: str
    statement: str
    rule: str
    any_row: bool = False
    simulated: bool = False


CLAIMS = (
    Claim(
        1,
        "asymmetric_directions_exist",
        "At the minima that SGD finds there is an asymmetric direction, in all networks and data sets",
        "a search finds one, on images that it did not see, at more than 3/4 of all minima",
    ),
    Claim(
        2,
        "random_directions_are_asymmetric",
        "Random U(0,1) directions are asymmetric with decent probability",
        "mean over all minima of the share of their directions that is asymmetric: above 1/4",
    ),
    Claim(
        3,
        "not_only_deep_nets",
        "Simple networks have asymmetric valleys too: an MLP, and one neuron",
        "claims 1 and 2 over the minima of MLPs, and a scan over all angles finds an asymmetric "
        "direction of one neuron in more than 3/4 of the data draws; all three must hold",
        simulated=True,
    ),
    Claim(
        4,
        "l2_has_little_effect",
        "An L2 penalty has little effect: valleys stay asymmetric, and averaging still gains",
        "the index changes by less than a quarter from no decay to the greatest; claim 1 over the "
        "minima of all decays; SWA's test loss is lower at each decay; all must hold",
    ),
    Claim(
        5,
        "batch_norm_makes_asymmetric",
        "Batch norm is an important reason for asymmetric valleys",
        "the index is greater with batch norm than with no norm, group norm and layer norm, with its "
        "statistics frozen and refreshed; all must hold",
    ),
    Claim(
        6,
        "averaging_goes_to_the_flat_side",
        "Averaged SGD lies on the flat side of an asymmetric valley (Theorem 2)",
        "in the simulations inside the theorem's regime, on the line from SWA to descent, and along the "
        "directions found; all must hold",
        simulated=True,
    ),
    Claim(
        7,
        "flat_side_bias_gains",
        "A bias to the flat side of an asymmetric valley gains, and more than in a symmetric one (Theorem 1)",
        "in the simulations inside the theorem's regime, along the directions found, and there more than "
        "along the most symmetric ones; all must hold",
        simulated=True,
    ),
    Claim(
        8,
        "swa_generalises_better",
        "SWA has a higher training loss and a lower test loss than SGD",
        "against SGD with its rate decayed and against descent from SWA, on all data sets but the "
        "controls; all must hold",
    ),
    Claim(
        9,
        "sharp_and_wide_in_one_basin",
        "A sharp and a wide minimum can lie in one basin",
        "no barrier on the line between the large-batch and the small-batch minimum, and the first is "
        "the sharper; both must hold",
    ),
    Claim(
        10,
        "sgd_and_swa_are_neighbours",
        "SGD and SWA lie in one neighbourhood",
        "no barrier on the line between them, on all data sets but the controls; all must hold",
    ),
    Claim(
        11,
        "structure_matters",
        "How asymmetric a network's valleys are depends on its structure or its loss (an open question)",
        "a factor of the sampled study changes the index; one is enough",
        any_row=True,
    ),
    Claim(
        12,
        "signs_decide_the_flat_side",
        "A direction is flatter the more of its entries have the sign of the weights (Li et al. 2024)",
        "slope of the index on the share of matching signs, along directions at right angles to the "
        "weights, on all data sets but the controls; all must hold",
    ),
)
"""All twelve, in order."""


def judge_twelve(
    claims: Iterable[Mapping[str, Any]], alpha: float, simulations: bool = True
) -> list[dict[str, Any]]:
    """Return the rows of the ``verdicts`` table, one a claim.

    Parameters
    ----------
    claims
        Rows of the ``claims`` table.
    alpha
        Two-sided level that holds for the twelve together.
    simulations
        Whether the simulations were run; if not, claims that also rest on them say so.
    """
    rows = list(claims)
    found = [_of_claim(one, [row for row in rows if row["number"] == one.number]) for one in CLAIMS]
    adjusted = stats.holm([math.nan if row["p_value"] is None else row["p_value"] for row in found])
    for row, p in zip(found, adjusted, strict=True):
        row["p_adjusted"] = None if math.isnan(p) else float(p)
        if row["verdict"] is None:
            side = SUPPORTED if row.pop("is_for") else REFUTED
            row["verdict"] = side if p <= alpha else INCONCLUSIVE
        row.pop("is_for", None)
    if not simulations:
        for one, row in zip(CLAIMS, found, strict=True):
            if one.simulated:
                row["note"] = "; ".join(filter(None, (row["note"], LEFT_OUT)))
    return found


def _of_claim(claim: Claim, rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a claim's row but for what the adjustment over all twelve says."""
    deciding = [row for row in rows if row["decides"]]
    tested = [row for row in deciding if _is_number(row["p_for"]) and row["verdict"] != NOT_DECIDABLE]
    about = {"number": claim.number, "claim": claim.name, "statement": claim.statement, "rule": claim.rule}
    about |= {"verdict": NOT_DECIDABLE, "effect": "", "n": 0, "p_value": None, "decided_by": len(deciding)}
    about["rows"] = len(rows)
    if not tested:
        why = _why_not(deciding) if deciding else "nothing in this run decides it"
        return about | {"note": why}
    p_for, p_against = (np.array([row[key] for row in tested], dtype=np.float64) for key in _P)
    if claim.any_row:
        one, other = min(1.0, len(p_for) * float(p_for.min())), 1.0
        shown = tested[int(p_for.argmin())]
    else:
        one, other = inference.all_of(p_for, p_against)
        shown = tested[int(p_against.argmin() if other < one else p_for.argmax())]
    undecidable = len(tested) < len(deciding) and not claim.any_row
    notes = [_tally(deciding)]
    if undecidable:
        notes.append(_why_not(deciding))
    if one <= other and undecidable:  # what cannot be decided may be false, so the claim cannot be supported
        return about | {"effect": effect_text(shown), "n": int(shown["n"]), "note": "; ".join(notes)}
    return about | {
        "verdict": None,
        "is_for": one <= other,
        "effect": effect_text(shown),
        "n": int(shown["n"]),
        "p_value": inference.two_sided(one, other),
        "note": "; ".join(notes),
    }


_P = ("p_for", "p_against")


def _is_number(value: Any) -> bool:
    return value is not None and not pd.isna(value)


def _tally(rows: list[Mapping[str, Any]]) -> str:
    """Say what the rows that decide say: ``4 rows decide: 3 supported, 1 inconclusive (name scope)``."""
    verdicts = [row["verdict"] for row in rows]
    parts = []
    for verdict in dict.fromkeys(verdicts):
        which = [f"{row['claim']} {row['scope']}" for row in rows if row["verdict"] == verdict]
        named = "" if verdict == SUPPORTED or len(which) > 3 else f" ({', '.join(which)})"
        parts.append(f"{len(which)} {verdict}{named}")
    return f"{len(rows)} {'row decides' if len(rows) == 1 else 'rows decide'}: {', '.join(parts)}"


def _why_not(rows: list[Mapping[str, Any]]) -> str:
    """Say which rows no data could decide, and what it takes."""
    parts = []
    for row in rows:
        if row["verdict"] == NOT_DECIDABLE:
            needed = (
                "" if not _is_number(row["n_needed"]) else f": n = {row['n']}, it takes {row['n_needed']}"
            )
            parts.append(f"{row['claim']} {row['scope']}{needed}")
    return f"not decidable: {', '.join(parts)}" if parts else ""


def effect_text(row: Mapping[str, Any]) -> str:
    """Return the effect of a row with its interval, unit and what it is of."""
    low, high = (f"{row[end]:+.3g}" for end in ("low", "high"))
    return f"{row['effect']:+.3g} [{low}, {high}] {row['unit']} ({row['claim']}, {row['scope']})"
