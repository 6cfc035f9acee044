"""How often the rule that adds seeds until claims are decided gives a false verdict, by simulation.

    python benchmarks/sequential.py [--samples 400]

In each sample some claims lie exactly on their edge: the paired differences of seeds are symmetric about 0,
so that every verdict on them is false. Others are true, by far, and decided at the first look. Looks, tests,
verdicts and the rule that stops are the workflow's own (`valleys.config.looks`, `valleys.results.inference`,
`valleys.claims.verdicts`, `valleys.claims.looks`). *uncorrected* looks as often, with all of alpha at each.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import common
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import stats as sps
from valleys.claims import looks, rules, verdicts
from valleys.config.looks import doubled
from valleys.results import inference

ALPHA = 0.05
TRUE = 3.0
"""Mean of the differences of a claim that is true, in standard deviations."""


class Case(NamedTuple):
    """What is simulated: the looks, how many claims are on their edge and true, and the differences."""

    rule: str
    first: int
    most: int
    on_edge: int
    true: int
    shape: str


CASES = (
    Case("looks at alpha / K", 7, 14, 1, 0, "normal"),
    Case("looks at alpha / K", 7, 14, 1, 0, "heavy tails"),
    Case("looks at alpha / K", 7, 14, 1, 0, "signs"),
    Case("looks at alpha / K", 8, 24, 1, 0, "normal"),
    Case("looks at alpha / K", 7, 14, 12, 0, "normal"),
    Case("looks at alpha / K", 12, 16, 1, 11, "normal"),
    Case("uncorrected", 7, 14, 1, 0, "normal"),
    Case("uncorrected", 8, 24, 1, 0, "normal"),
)
SLOW = 10
"""Of a case of twelve claims there are as many times fewer samples."""


def differences(rng: Generator, shape: str, n: int) -> NDArray[np.float64]:
    """Return n differences that are symmetric about 0, with a variance of 1 where they have one."""
    if shape == "signs":
        return rng.choice([-1.0, 1.0], n)
    return rng.standard_t(3, n) / np.sqrt(3) if shape == "heavy tails" else rng.standard_normal(n)


def sample(rng: Generator, case: Case) -> tuple[bool, int]:
    """Return whether a claim on its edge gets a verdict where sampling stops, and the seeds there."""
    counts = doubled(case.first, case.most)
    alpha = ALPHA if case.rule == "uncorrected" else ALPHA / len(counts)
    values = [differences(rng, case.shape, case.most) for _ in range(case.on_edge)]
    values += [TRUE + differences(rng, case.shape, case.most) for _ in range(case.true)]
    for seeds in counts:
        rows = [_row(number, one[:seeds], alpha) for number, one in enumerate(values, 1)]
        twelve = verdicts.judge_twelve(rows, alpha)
        path = looks.path(twelve, rows, [], seeds=seeds, looks=counts, alpha=alpha)
        if path[0]["stops"]:
            break
    return any(row["verdict"] in (rules.SUPPORTED, rules.REFUTED) for row in path[: case.on_edge]), seeds


def _row(number: int, values: NDArray[np.float64], alpha: float) -> dict[str, Any]:
    """Return what verdicts and looks take of a row of the rule mean."""
    p_for, p_against = inference.sign_flip(values)
    row = {"number": number, "decides": True, "claim": "c", "scope": "s", "n": len(values), "n_needed": None}
    row |= {"effect": 0.0, "low": 0.0, "high": 0.0, "unit": "", "verdict": rules.INCONCLUSIVE}
    return row | {"p_for": p_for, "p_against": p_against}


def rate(case: Case, samples: int, seed: int = 0) -> tuple[int, int, float]:
    """Return how many of so many samples have a false verdict, how many there were, and their mean seeds."""
    rng = np.random.default_rng(seed)
    samples = samples if case.on_edge + case.true == 1 else max(20, samples // SLOW)
    found = [sample(rng, case) for _ in range(samples)]
    return sum(false for false, _ in found), samples, float(np.mean([seeds for _, seeds in found]))


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the table that the page shows."""
    shown = []
    for row in found:
        interval = sps.binomtest(row["false"], row["samples"]).proportion_ci(0.95, "wilson")
        counts = ", ".join(map(str, doubled(row["first"], row["most"])))
        shown.append(
            {
                "rule": row["rule"],
                "looks at": f"{counts} seeds",
                "claims on their edge": row["on_edge"],
                "true claims": row["true"],
                "differences": row["shape"],
                "false verdicts": f"{row['false'] / row['samples']:.1%}",
                "95 % interval": f"{interval.low:.1%} to {interval.high:.1%}",
                "seeds, mean": f"{row['seeds']:.1f}",
                "samples": row["samples"],
            }
        )
    return shown


def main() -> None:
    """Simulate all cases, and write the table into its page (`common.PAGES`)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=400, help="of each case; fewer where it is slow")
    given = parser.parse_args()
    rows = []
    for case in CASES:
        false, samples, seeds = rate(case, given.samples)
        rows.append({**case._asdict(), "false": false, "samples": samples, "seeds": seeds})
        print(rows[-1], flush=True)
    common.save("sequential", rows)
    common.document("sequential", common.markdown(summary(rows)))


if __name__ == "__main__":
    main()
