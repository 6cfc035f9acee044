"""What makes a claim ``supported``, ``refuted``, ``inconclusive`` or ``not decidable``.

Each row takes one value a minimum, and n counts minima or seeds, never directions.
`valleys.results.inference` gives it two one-sided p-values: ``p_for``, of the hypothesis that the claim is
false, and ``p_against``, of the hypothesis that it is true. Supported: ``p_for <= alpha / 2``. Refuted:
``p_against <= alpha / 2``. Not decidable: n is so small that no data could reach either. Inconclusive: all
else. A row that is not decided says the n that it would take. These rules give the p-values:

share
    The claim says that something is the case in more than a given share of minima. A minimum's value is 0 or
    1, or the share of its directions. Hoeffding's inequality, which holds for any distribution on [0, 1]. A
    direction along which the loss does not rise as asked for counts against either verdict.
mean
    The claim says that a mean lies on one side of a number: a difference within a seed above 0, a barrier
    below 0.1 nats. Exact sign-flip permutation test, Student's interval. Where a loss that is not finite puts
    a value on the other side, there is no verdict.
equivalence
    The claim says that something changes little: by less than a quarter. Two one-sided t tests.
grid
    The claim says that a simulated number has a sign in each row of a simulation. Normal p-values from the
    Monte Carlo standard errors: all rows must have the sign, one with the other refutes (Bonferroni).
bound
    A simulated number is not below a bound proved in docs/theory.md. Refuted when one row's interval, of all
    together (Bonferroni), is below its bound; else supported. Such rows decide no claim.
levels
    The claim says that something depends on a factor. F ratio of the additive model of all factors against
    that without this one, of ranks, with its permutation p (Freedman and Lane), adjusted by Holm over the
    factors of the study. It is never shown that a factor has no influence.

The twelve claims take the p-values of the rows that decide them (`valleys.claims.verdicts`).

Constants. They stand in the config (``claims``), were fixed on 2026-11-27, before the run whose results are
published, and have not been changed since. ``alpha`` 0.05. ``rise`` 2 nats: that by which the loss rises in
the paper's own plots of asymmetric directions. ``found`` 3/4: "most" minima, as in experiment 13 since it was
written. ``decent`` 1/4: what we take "decent probability" for. ``margin`` 1/4: a change by less is little.
``barrier`` 0.1 nats, as before. How directions count along which the loss does not rise as asked for was
fixed on 2026-11-29.
"""

from __future__ import annotations

import numpy as np

from valleys.results.inference import Evidence

SUPPORTED, REFUTED, INCONCLUSIVE = "supported", "refuted", "inconclusive"
NOT_DECIDABLE = "not decidable"
VERDICTS = (SUPPORTED, REFUTED, INCONCLUSIVE, NOT_DECIDABLE)
_ROUNDING = 1e-12  # of a simulated number that equals its bound in every draw


def verdict(evidence: Evidence, alpha: float) -> str:
    """Return the verdict on one row.

    Parameters
    ----------
    evidence
        With its one-sided p-values.
    alpha
        Two-sided level: each p-value is compared with half of it.
    """
    if evidence.least > alpha / 2:
        return NOT_DECIDABLE
    if evidence.p_for <= alpha / 2:
        return SUPPORTED
    return REFUTED if evidence.p_against <= alpha / 2 else INCONCLUSIVE


def bound_verdict(high: np.ndarray) -> str:
    """Return the verdict of the bound rule for upper ends of what lies above the bound."""
    if not len(high):
        return NOT_DECIDABLE
    return REFUTED if (high < -_ROUNDING).any() else SUPPORTED
