"""How often each rule gives a false verdict where none should be given, by simulation.

Run by itself it writes the table of docs/experiments.md; tests/claims/test_error_rates.py runs fewer samples.
Minima have a mean of their own, so that the three directions of one are correlated (intraclass correlation).
The claim is on its edge in every sample: there each false verdict is as likely as it gets.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats as sps

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow" / "scripts"), str(ROOT / "benchmarks")]

from valleys.claims import rules, verdicts  # noqa: E402
from valleys.results import inference, stats  # noqa: E402

ALPHA = {"alpha": 0.05, "level": 0.95}
DIRECTIONS = 3
DECIDED = (rules.SUPPORTED, rules.REFUTED)


def indices(rng, n, correlation, shape="normal"):
    """Values of n minima with mean 0: means of correlated directions' values."""
    own = {
        "normal": lambda size: rng.standard_normal(size),
        "heavy tails": lambda size: rng.standard_t(3, size),
        "skewed": lambda size: rng.exponential(size=size) - 1,
    }[shape]
    between, within = np.sqrt(correlation), np.sqrt(1 - correlation)
    return between * own(n) + within * own((DIRECTIONS, n)).mean(axis=0)


def shares(rng, n, correlation, at):
    """Shares of asymmetric directions of n minima: each has a probability of its own, `at` on average."""
    total = (1 - correlation) / correlation
    own = rng.beta(at * total, (1 - at) * total, n)
    return rng.binomial(DIRECTIONS, own) / DIRECTIONS


def decided(evidence):
    return rules.verdict(evidence, ALPHA["alpha"]) in DECIDED


def of_means(rng, n, correlation, shape):
    return decided(inference.mean(indices(rng, n, correlation, shape), 0.0, **ALPHA))


def of_shares(rng, n, correlation, at):
    return decided(inference.share(shares(rng, n, correlation, at), at, **ALPHA))


def of_equivalence(rng, n, correlation, margin):
    return decided(inference.equivalence(margin + 0.2 * indices(rng, n, correlation), margin, **ALPHA))


def of_levels(rng, n, correlation, factors):
    """Whether any of some factors without influence is said to have one, among runs that share nothing."""
    values = sps.rankdata(indices(rng, n, correlation))
    levels = [rng.permutation(np.arange(n) % 4) for _ in range(factors)]
    p = [
        stats.factor_test(values, own, [o for o in levels if o is not own], n_resamples=199).p
        for own in levels
    ]
    return min(stats.holm(p)) <= ALPHA["alpha"]


def of_twelve(rng, n, correlation, rows):
    """Whether any of twelve claims on their edge gets a verdict; each hangs on so many rows."""
    made = []
    for number in range(1, 13):
        for k in range(rows):
            found = inference.mean(indices(rng, n, correlation), 0.0, **ALPHA)
            row = {"number": number, "decides": True, "claim": "c", "scope": str(k), "verdict": "", "n": n}
            row |= {"effect": 0.0, "low": 0.0, "high": 0.0, "unit": "", "n_needed": None}
            made.append(row | {"p_for": found.p_for, "p_against": found.p_against})
    return any(row["verdict"] in DECIDED for row in verdicts.judge_twelve(made, ALPHA["alpha"]))


def of_pooled(rng, n, correlation, at):
    """The rule of release 0.1.0, for comparison: directions of all minima as if independent, against 1/2."""
    hits = round(shares(rng, n, correlation, at).sum() * DIRECTIONS)
    interval = stats.wilson(hits, n * DIRECTIONS, 0.95)
    return interval.low > at or interval.high < at


CASES = (
    ("mean", of_means, 12, 0.7, "normal"),
    ("mean", of_means, 6, 0.7, "normal"),
    ("mean", of_means, 24, 0.7, "normal"),
    ("mean", of_means, 12, 0.7, "heavy tails"),
    ("mean", of_means, 12, 0.7, "skewed"),
    ("share", of_shares, 12, 0.7, 0.25),
    ("share", of_shares, 60, 0.7, 0.25),
    ("share", of_shares, 60, 0.7, 0.75),
    ("share", of_shares, 60, 0.1, 0.25),
    ("equivalence", of_equivalence, 12, 0.7, 0.25),
    ("levels, 5 factors together", of_levels, 48, 0.7, 5),
    ("twelve claims together", of_twelve, 12, 0.7, 1),
    ("twelve claims of 3 rows together", of_twelve, 12, 0.7, 3),
    ("directions pooled, as 0.1.0 did", of_pooled, 12, 0.7, 0.5),
)
_SLOW = {of_levels: 10, of_twelve: 20}


def rate(case, samples, seed=0):
    """How many of so many samples get a verdict, and how many there were (fewer of slow cases)."""
    _, rule, n, correlation, about = case
    samples = max(40, samples // _SLOW.get(rule, 1))
    rng = np.random.default_rng(seed)
    return sum(rule(rng, n, correlation, about) for _ in range(samples)), samples


def main(samples=4000):
    import common

    found = []
    for case in CASES:
        hits, count = rate(case, samples)
        interval = sps.binomtest(hits, count).proportion_ci(0.95, "wilson")
        name, _, n, correlation, about = case
        found.append(
            {
                "rule": name,
                "n": n,
                "correlation of directions": correlation,
                "about": about,
                "false verdicts": f"{hits / count:.1%}",
                "95 % interval": f"{interval.low:.1%} to {interval.high:.1%}",
                "samples": count,
            }
        )
    common.document("error rates", common.markdown(found), ROOT / "docs" / "experiments.md")
    print(pd.DataFrame(found).to_string(index=False))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
