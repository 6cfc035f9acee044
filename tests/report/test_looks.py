"""The path of the decision in the report: a row a look, with each claim's verdict and what was decided."""

import pandas as pd
from valleys.claims import CLAIMS, looks
from valleys.report.looks import path_of


def table(*steps):
    """The looks table: at each step the verdicts of claims 1 and 2, and their states; of others nothing."""
    rows = []
    for number, step in enumerate(steps, 1):
        for claim in CLAIMS:
            verdict, state = step.get(claim.number, ("not decidable", looks.NEVER))
            row = {"look": number, "looks": 3, "seeds": 8 * number, "most": 24, "alpha": 0.05 / 3}
            row |= {"number": claim.number, "claim": claim.name, "verdict": verdict, "state": state}
            rows.append(row | {"effect": "", "n": 8, "p_adjusted": 0.01, "stops": number == len(steps)})
    return pd.DataFrame(rows)


def test_there_is_no_path_where_seeds_are_a_list():
    assert path_of(None) is None
    assert path_of(pd.DataFrame()) is None


def test_each_look_says_what_was_decided():
    found = path_of(
        table(
            {1: ("supported", looks.DECIDED), 2: ("inconclusive", looks.WAITED)},
            {1: ("supported", looks.DECIDED), 2: ("refuted", looks.DECIDED)},
        )
    )
    assert [(row["look"], row["seeds"]) for row in found["rows"]] == [(1, 8), (2, 16)]
    assert [row["outcome"] for row in found["rows"]] == [
        "claim 1 decided, claim 2 waited for: more seeds",
        "claims 1, 2 decided: no claim is waited for, so it stops",
    ]
    assert [mark["mark"] for mark in found["rows"][1]["marks"][:3]] == ["✓", "✗", "–"]
    words = found["rows"][0]["marks"][1]["words"]
    assert words == "claim 2: inconclusive, n = 8, adjusted p 0.01; waited for"
    assert (found["alpha"], found["all"], found["seeds"], found["most"]) == ("0.0167", "0.05", 16, 24)


def test_the_last_look_ends_with_claims_open():
    open_claim = {2: ("inconclusive", looks.WAITED)}
    (*_, last) = path_of(table(open_claim, open_claim, open_claim))["rows"]
    assert last["outcome"] == "no claim decided, claim 2 waited for: the last look"
