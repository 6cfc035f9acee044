"""The paper's claims, each judged from the tables by a rule written here.

A verdict is ``supported``, ``refuted`` or ``inconclusive``. These rules cover all claims:

share
    The claim says that something is the case more often than not. Supported when the lower end of the Wilson
    interval of the share is above one half, refuted when the upper end is below it.
paired
    The claim says that a difference has a sign. Supported when the exact two-sided sign test over seeds has
    p < alpha and the difference has the claimed sign in most seeds, refuted when it has the other. With
    fewer seeds than can reach alpha (six at 0.05) the verdict is always inconclusive, and the note says so.
    Also for one value a seed that the claim puts above a given one: the difference is then taken from that.
symmetric
    The claim says that something is the case as often as not. Refuted when the Wilson interval of the share
    leaves out one half; else supported when it lies within 1/4 and 3/4, which takes 12 minima or more.
grid
    The claim says that a simulated number has a sign wherever it is simulated. Each row of the simulation has
    a normal interval from its Monte Carlo standard error, wide enough for all rows to hold together
    (Bonferroni). Supported when all intervals are on the claimed side of 0, refuted when one is on the other.
bound
    The claim says that a simulated number is not below a bound proved in docs/theory.md. With intervals as
    for grid: refuted when one row's interval is below its bound, else supported. A bound may be exact, and
    then the number lies on either side of it by chance; the note says in how many rows it is clearly above.
barrier
    The claim says that there is a barrier between two solutions, or that there is none. A seed's value is
    the greatest train loss above the chord between the ends, t in [0, 1], in nats. With the t interval of the
    mean over seeds: none when its upper end is below ``claims.barrier`` (0.1 nats), one when its lower end is
    above. Seeds with a loss between the ends that is not finite are left out; with fewer than two values
    inconclusive.

unchanged
    The claim says that something does not depend on a factor. Each seed has its change from the factor's
    first level to its last, as a share of the mean. Refuted when the exact two-sided sign test over seeds has
    p < alpha, whichever way; else supported when the t interval of the mean change lies within -1/4 and 1/4,
    and there are as many seeds as could have refuted it.
levels
    The claim says that something depends on a factor. Minima are independent runs with levels drawn at
    random: F ratio of the additive model of all factors against that without this one, of ranks (the index
    has a heavy tail: single minima reach ten times the median), with its permutation
    p (Freedman and Lane), adjusted by Holm over the factors of the study (for one probe). So a strong factor
    is no noise to the others, and minima left out at one level do not speak for another. Supported when
    that p is below alpha, else inconclusive: it is never shown that a factor has no influence. The effect
    is the greatest less the least of the levels' plain means.

Directions of one minimum are not independent: they share the weights, the images and, for most kinds, a mean
direction. The claims of experiments 5 and 12 therefore take one value a minimum (seed) first, and n counts
minima. The rules of these claims:

``test_loss_is_shifted`` (b = 0) and ``test_loss_is_shifted_and_lifted`` (b free), experiment 5
    A direction's value is the share of the shift gap that the best shift removes, 1 - xi_delta* / xi_0, which
    is never below 0; a minimum's is the mean over its directions. Paired rule against one half: supported
    when a shift removes most of the gap in significantly many minima, refuted when less than half.
``shift_is_symmetric`` (b = 0), experiment 5
    A minimum counts when delta* points to the side where the train loss rises less in more of its directions
    than it points to the other (ties are left out). Symmetric rule.
``bias_gains_on_measured_curves``, ``bias_lowers_test_loss``, experiment 4
    A direction's value is what a bias of R/8 to its flat side gains: of the measured train curve, in
    expectation under a shift uniform on +-R/4 (`valleys.measured_gain`), or of the measured test loss,
    unshifted. A minimum's is the mean over its asymmetric directions of one probe; minima without any are
    left out. Paired rule against 0. The note has the same of symmetric directions, a control.
``swa_paper_selection_exists``, experiment 2
    Share rule, over seeds: whether a descent epoch has a lower train loss and a higher test loss than swa,
    which is what the paper's code asks of an epoch to keep it.
``swa_test_loss_paper_selection``, experiment 2
    Never judged: the difference in test loss at epochs chosen for it. Always inconclusive; its size is given.
``matching_signs_flattens``, experiment 12
    A minimum's value is Spearman's correlation of sign agreement and asymmetry index, over all directions of
    kind sign in one parameter group, each counted as u and as -u. Paired rule against 0.

The claims of experiment 6 are told apart by what a line joins, not by its name (straight lines within a cell
are experiment 2):

``one_basin``, straight lines to another recipe's cell of the same seed
    Barrier rule, supported when there is none. Whether that recipe continued from the solution or began at
    the same initial weights is not in the tables: the config says it.
``line_looks_sharp_from_one_side``, the same lines
    m is the t of the least train loss. A seed counts when the rises from there at m - 1 and m + 1 (as far off
    as the two solutions are from each other; nearer, on both sides alike, where the line ends before) differ
    by c or more. Share rule. Where the minimum is at an end of the line a seed is left out.
``seeds_are_apart``, straight lines to another seed
    Barrier rule, supported when there is one. Neighbouring pairs of seeds share a solution; the interval
    takes them for independent.
``seeds_are_connected`` (``solutions_are_connected`` where the seed is the same), paths with trained bends
    Barrier rule, supported when there is none on the path. The note has the barrier on the straight line
    between the same ends, if that was measured.
Claims about studies go by a study's factors, whatever its name. A minimum's value is the mean over its
directions of the asymmetry index's size, |log of rise at -R over rise at R|: unlike the share of asymmetric
directions it has no threshold and does not end at 1, and unlike the index itself it does not depend on which
of u and -u was drawn. It is above 0 in any valley that is not symmetric along each direction; probes of
other kinds are the control. Minima with a train accuracy below 1/2 are left out, and the note counts them.

``asymmetry_survives_l2``, ``l2_does_not_change_asymmetry``, ``penalty_leaves_verdicts``, experiment 9
    Factor ``recipe.weight_decay``. Share rule over minima at each level, where one counts with one asymmetric
    direction or more; unchanged rule, by the least-squares line through a seed's levels, which are taken for
    equally far apart; share rule over directions whose verdict is the same with the penalty in the loss.
``bn_makes_asymmetric``, ``bn_directions_are_more_asymmetric``, ``bn_init_matters``, experiment 10
    Factors ``model.norm`` and ``model.norm_init``. Paired rule: batch norm less each other norm; within a
    minimum with batch norm, directions in its parameters less directions in all others; scales that began at
    ones less scales that began Gaussian.
``<factor>_changes_asymmetry``, experiment 11
    Each factor of a full or sampled design. Rule levels.
``<first recipe>_is_sharper``, experiment 6
    Factor ``recipe`` with two levels, and no other. Paired rule on the width R / |w| at which the loss has
    risen by the probe's target (second less first), and on the greatest eigenvalue (first less second).
``swa_gain``, ``swa_rise``
    Wherever each variant of a study has SWA and descent: test loss of descent less that of SWA, train loss
    of SWA less that of descent. Paired rule, at each level.
``asymmetric_direction_exists``
    Each level of any other factor; all variants of a full or sampled design together. Share rule over minima.

The effect of a grid or bound claim is that of the row nearest to failing, counted in standard errors.

Claims are judged separately for each data set, model and recipe, simulations for each shape of valley;
p-values are not corrected for the number of rows, which each row's note and the report state, but where the
rule says so. (With the six seeds of a sign test no correction would let any of several rows reach 0.05.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from valleys import measures, outcomes, stats
from valleys.studies import factor_name

SUPPORTED, REFUTED, INCONCLUSIVE = "supported", "refuted", "inconclusive"
_CELLS = ["dataset", "model", "recipe"]

_ROUNDING = 1e-12  # of a simulated number that equals its bound in every draw

Row = dict[str, Any]
Frames = Mapping[str, pd.DataFrame]


def judge(
    data: Frames,
    *,
    c: float = 2.0,
    alpha: float = 0.05,
    level: float = 0.95,
    barrier: float = 0.1,
    factors: outcomes.Order | None = None,
) -> list[Row]:
    """Return the rows of the ``claims`` table.

    Parameters
    ----------
    data
        The tables ``training, solutions, directions, asymmetry, theory_measured, shift, interpolation,
        toy_2d, theory_average, theory_gain`` as data frames; ``study``, all studies stacked, where there are
        any.
    c
        Level from which a direction counts as asymmetric.
    alpha
        Two-sided significance level of tests.
    level
        Confidence level of intervals.
    barrier
        Train-loss barriers below this (nats) count as none.
    factors
        Study to factor to its levels, in the order of the config.
    """
    rows = [*prevalence(data["asymmetry"], c, level)]
    rows += swa(data["solutions"], data["interpolation"], alpha, level)
    rows += paper_selection(data["training"], level)
    rows += shift(data["shift"], data["asymmetry"], alpha, level)
    rows += basin(data["interpolation"], c, level, barrier)
    rows += toy(data["toy_2d"], level)
    rows += sign(data["asymmetry"], data["directions"], alpha, level)
    rows += averaging(data["theory_average"], level)
    rows += gains(data["theory_gain"], level)
    rows += measured_gains(data["theory_measured"], alpha, level)
    rows += studies(data.get("study"), factors, c, alpha, level)
    return rows


def share_verdict(interval: stats.Interval, half: float = 0.5) -> str:
    """Return the verdict of the share rule for a Wilson interval (NaN bounds: inconclusive)."""
    if interval.low > half:
        return SUPPORTED
    return REFUTED if interval.high < half else INCONCLUSIVE


def paired_verdict(paired: stats.Paired, claimed_sign: int, alpha: float) -> str:
    """Return the verdict of the paired rule; `claimed_sign` is +1 or -1."""
    if not paired.p_sign < alpha:
        return INCONCLUSIVE
    majority = 1 if paired.positive > paired.negative else -1
    return SUPPORTED if majority == claimed_sign else REFUTED


def unchanged_verdict(paired: stats.Paired, alpha: float, margin: float = 0.25) -> str:
    """Return the verdict of the unchanged rule for changes as shares of the mean, one a seed."""
    if paired.p_sign < alpha:
        return REFUTED
    within = -margin < paired.low and paired.high < margin
    return SUPPORTED if within and paired.n >= stats.min_n_sign(alpha) else INCONCLUSIVE


def grid_verdict(low: np.ndarray, high: np.ndarray, claimed_sign: int) -> str:
    """Return the verdict of the grid rule for simultaneous intervals; `claimed_sign` is +1 or -1."""
    if claimed_sign < 0:
        low, high = -high, -low
    if (high < 0).any():
        return REFUTED
    return SUPPORTED if len(low) and (low > 0).all() else INCONCLUSIVE


def bound_verdict(high: np.ndarray) -> str:
    """Return the verdict of the bound rule for upper ends of what lies above the bound."""
    if not len(high):
        return INCONCLUSIVE
    return REFUTED if (high < -_ROUNDING).any() else SUPPORTED


def barrier_verdict(interval: stats.Interval, threshold: float, *, claimed: bool) -> str:
    """Return the verdict of the barrier rule (NaN bounds: inconclusive).

    Parameters
    ----------
    interval
        Of the mean barrier, nats.
    threshold
        Barriers below this count as none.
    claimed
        Whether the claim says that there is a barrier.
    """
    if interval.low > threshold:
        return SUPPORTED if claimed else REFUTED
    if interval.high < threshold:
        return REFUTED if claimed else SUPPORTED
    return INCONCLUSIVE


def symmetric_verdict(interval: stats.Interval, low: float = 0.25, high: float = 0.75) -> str:
    """Return the verdict of the symmetric rule for a Wilson interval (NaN bounds: inconclusive)."""
    if interval.low > 0.5 or interval.high < 0.5:
        return REFUTED
    return SUPPORTED if interval.low > low and interval.high < high else INCONCLUSIVE


def _share_row(
    claim: str, experiment: int, scope: str, statement: str, hits: int, n: int, **text: Any
) -> Row:
    interval = stats.wilson(hits, n, text.pop("level"))
    return {
        "claim": claim,
        "experiment": experiment,
        "scope": scope,
        "statement": statement,
        "verdict": share_verdict(interval),
        "measure": text["measure"],
        "effect": interval.estimate,
        "unit": "share",
        "low": interval.low,
        "high": interval.high,
        "n": n,
        "p_value": None,
        "test": "Wilson interval",
        "rule": "supported: interval above 0.5; refuted: below 0.5",
        "note": text.get("note", ""),
    }


def _paired_row(
    claim: str,
    scope: str,
    statement: str,
    differences: np.ndarray,
    *,
    sign: int,
    measure: str,
    unit: str,
    alpha: float,
    level: float,
    note: str = "",
    experiment: int = 2,
    at: float | None = None,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Row:
    """Return a row of the paired rule.

    With `at`, of values that the claim puts above or below it; the interval ends at `limits`, which values
    cannot pass.
    """
    differences = np.asarray(differences, dtype=np.float64)
    what, base = ("difference", 0.0) if at is None else ("value", at)
    side = "above" if sign > 0 else "below"
    differences = differences - base
    finite = np.isfinite(differences)
    paired = stats.paired(differences[finite], level=level)
    least = stats.min_n_sign(alpha)
    notes = [note] if note else []
    if not finite.all():
        left_out = int((~finite).sum())
        notes.append(f"{left_out} seed{'s' if left_out > 1 else ''} left out: not finite")
    if paired.n < least:
        notes.append(f"{paired.n} seeds cannot reach p < {alpha:g} in a sign test; {least} can")
    notes.append(
        f"{what} above {base:g} in {paired.positive} of {paired.n} seeds, below in {paired.negative}"
    )
    return {
        "claim": claim,
        "experiment": experiment,
        "scope": scope,
        "statement": statement,
        "verdict": paired_verdict(paired, sign, alpha),
        "measure": measure,
        "effect": paired.mean + base,
        "unit": unit,
        "low": float(np.clip(paired.low + base, *limits)),
        "high": float(np.clip(paired.high + base, *limits)),
        "n": paired.n,
        "p_value": paired.p_sign,
        "test": f"exact sign test; t interval of the {'paired difference' if at is None else 'mean'}",
        "rule": f"supported: p < {alpha:g} and {side} {base:g}; refuted: the other side",
        "note": "; ".join(notes),
    }


def prevalence(
    asymmetry: pd.DataFrame,
    c: float,
    level: float,
    *,
    experiment: int = 1,
    within: str = "",
    about: str = "",
) -> Iterator[Row]:
    """Experiment 1: asymmetric directions at SGD minima, by data set, model, recipe and probe.

    Twice: by Definition 1, which asks for slopes that differ by c throughout a window, and by the rises at
    -R and R alone. The first is the stricter: a curve whose slope grows within the window by a factor g has
    c* at most 1/g of the ratio of its slopes. Directions of kind sign are experiment 12. For studies: their
    experiment, what their scopes begin with, and a remark for the notes.
    """
    at_sgd = asymmetry[(asymmetry["solution"] == "sgd") & (asymmetry["kind"] != "sign")]
    for names, rows in at_sgd.groupby([*_CELLS, "probe"], sort=True):
        scope = within + "/".join(map(str, names))
        hit = rows["status"] == "asymmetric"
        by_minimum = hit.groupby(rows["seed"]).any()
        counts = rows["status"].value_counts()
        others = [f"{counts[s]} {s}" for s in ("not_minimum", "flat", "not_finite") if s in counts]
        per = rows.groupby("seed").size().max()
        yield _share_row(
            "asymmetric_direction_exists",
            experiment,
            scope,
            "most SGD minima have an asymmetric direction among those probed",
            int(by_minimum.sum()),
            len(by_minimum),
            measure="share of SGD minima (seeds) with at least one asymmetric direction",
            level=level,
            note=_joined(f"{per} directions a minimum", about),
        )
        yield _share_row(
            "directions_are_asymmetric",
            experiment,
            scope,
            "a direction at an SGD minimum is asymmetric (Definition 1) more often than not",
            int(hit.sum()),
            len(hit),
            measure="share of directions that are asymmetric, minima pooled",
            level=level,
            note=_joined(*others, measures.uncertain(rows), about),
        )
        index = rows["asymmetry_index"]
        yield _share_row(
            "rises_are_uneven",
            experiment,
            scope,
            f"at the ends of a line through an SGD minimum, one side has risen {c:g} times as much",
            int((index.abs() >= math.log(c)).sum()),
            len(rows),
            measure=f"share of directions whose rises at -R and R differ {c:g}-fold or more, minima pooled",
            level=level,
            note=_joined(f"steeper on the +u side in {(index < 0).sum()} of {len(rows)}", about),
        )


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def swa(solutions: pd.DataFrame, interpolation: pd.DataFrame, alpha: float, level: float) -> Iterator[Row]:
    """Experiment 2: SWA against the solution that SGD descends to from it, paired over seeds."""
    for names, rows in solutions.groupby(_CELLS, sort=True):
        scope = "/".join(map(str, names))
        if not {"swa", "descent"} <= set(rows["solution"]):
            continue  # not made, or not given
        wide = rows.pivot(index="seed", columns="solution")
        for column, sign, word, unit in (
            ("train_loss", 1, "train loss is higher", "nats"),
            ("test_loss", -1, "test loss is lower", "nats"),
            ("test_accuracy", 1, "test accuracy is higher", "share"),
        ):
            yield _paired_row(
                f"swa_{column}",
                scope,
                f"SWA's {word} than that of the solution SGD reaches from it",
                (wide[column]["swa"] - wide[column]["descent"]).to_numpy(),
                sign=sign,
                measure=f"{column.replace('_', ' ')} of swa - of descent",
                unit=unit,
                alpha=alpha,
                level=level,
            )
    lines = interpolation[
        (interpolation["start"] == "swa")
        & (interpolation["stop"] == "descent")
        & (measures.kind_of_line(interpolation) == "cell")
    ]
    for names, rows in lines.groupby([*_CELLS, "line"], sort=True):
        scope = "/".join(map(str, names))
        measured = pd.DataFrame([line_measures(line) for _, line in rows.groupby("seed")])
        about = f"BN {rows['bn_policy'].iloc[0]} on the line"
        if measured["mirror"].notna().any():
            yield _paired_row(
                "swa_on_flat_side",
                scope,
                "SWA lies on the flat side of the minimum on its line to descent",
                measured["mirror"].to_numpy(),
                sign=1,
                measure="train loss at swa's mirror image about the line's minimum - at swa",
                unit="nats",
                alpha=alpha,
                level=level,
                note=about,
            )
        yield _paired_row(
            "test_minimum_towards_swa",
            scope,
            "on the line the test loss is least nearer to SWA than the train loss is",
            measured["argmin"].to_numpy(),
            sign=-1,
            measure="t of least test loss - t of least train loss (swa at 0, descent at 1)",
            unit="distance from swa to descent",
            alpha=alpha,
            level=level,
            note=about,
        )


_JOINED = {  # claim, whether it says that there is a barrier, statement; by `measures.kind_of_line`
    "recipe": (
        "one_basin",
        False,
        "a solution and the one that another recipe reaches from it, or from the same initial weights, lie "
        "in one basin: no barrier on the straight line between them",
    ),
    "seed": (
        "seeds_are_apart",
        True,
        "solutions of two seeds are apart: a barrier lies on the straight line between them",
    ),
    "seed-path": (
        "seeds_are_connected",
        False,
        "solutions of two seeds are connected: no barrier on a path with trained bends between them",
    ),
    "recipe-path": (
        "solutions_are_connected",
        False,
        "solutions of two recipes are connected: no barrier on a path with trained bends between them",
    ),
    "cell-path": (
        "solutions_are_connected",
        False,
        "solutions of one cell are connected: no barrier on a path with trained bends between them",
    ),
}


def basin(interpolation: pd.DataFrame, c: float, level: float, barrier: float) -> Iterator[Row]:
    """Experiment 6: barriers between solutions of different cells, on straight lines and trained paths."""
    kinds = measures.kind_of_line(interpolation)
    joined = interpolation.assign(joins=kinds)[kinds != "cell"]
    for (*names, kind), rows in joined.groupby([*_CELLS, "line", "joins"], sort=True):
        scope = "/".join(map(str, names))
        yield _barrier_row(rows, interpolation, kind, scope, level, barrier)
        if kind == "recipe":
            yield _one_sided_row(rows, scope, c, level)


def _barrier_row(
    rows: pd.DataFrame, interpolation: pd.DataFrame, kind: str, scope: str, level: float, threshold: float
) -> Row:
    claim, claimed, statement = _JOINED[kind]
    found = measures.barriers(rows)
    train, test = (found[split][np.isfinite(found[split])] for split in ("train", "test"))
    interval = stats.mean_interval(train, level)
    notes = [_ends(rows)]
    if kind.endswith("-path"):
        notes.append(f"{rows['path'].iloc[0]} path")
        straight = measures.straight_twin(interpolation, rows)
        if len(straight):
            notes.append(
                f"on the straight line {measures.barriers(straight)['train'].mean():.3g} nats (mean)"
            )
    notes.append(f"test-loss barrier {test.mean() if len(test) else math.nan:.3g} nats (mean)")
    notes.append(f"BN {rows['bn_policy'].iloc[0]} on the line")
    if len(train) < len(found):
        notes.append(f"seeds with a train loss that is not finite, left out: {len(found) - len(train)}")
    if len(train) < 2:
        notes.append(f"n = {len(train)} has no interval")
    elif kind.startswith("seed"):
        notes.append("neighbouring pairs share a seed")
    above, below = (REFUTED, SUPPORTED) if not claimed else (SUPPORTED, REFUTED)
    return {
        "claim": claim,
        "experiment": 6,
        "scope": scope,
        "statement": statement,
        "verdict": barrier_verdict(interval, threshold, claimed=claimed),
        "measure": "greatest train loss above the chord between the two solutions, mean over seeds",
        "effect": interval.estimate,
        "unit": "nats",
        "low": max(interval.low, 0.0) if math.isfinite(interval.low) else math.nan,  # it cannot be less
        "high": interval.high,
        "n": len(train),
        "p_value": None,
        "test": "t interval of the mean",
        "rule": f"{below}: interval below {threshold:g} nats; {above}: above",
        "note": "; ".join(notes),
    }


def _ends(rows: pd.DataFrame) -> str:
    """Say which solutions a line joins: ``from swa to swa of recipe wide and the next seed (0-1, 1-2)``."""
    first = rows.iloc[0]
    stop = [f"recipe {first['stop_recipe']}"] if first["stop_recipe"] != first["recipe"] else []
    pairs = rows.drop_duplicates("seed").sort_values("seed")
    if (pairs["seed"] != pairs["stop_seed"]).any():
        named = ", ".join(f"{a}-{b}" for a, b in zip(pairs["seed"], pairs["stop_seed"], strict=True))
        stop.append(f"the next seed ({named})")
    words = f"from {first['start']} to {first['stop']}"
    return f"{words} of {' and '.join(stop)}" if stop else words


def _one_sided_row(rows: pd.DataFrame, scope: str, c: float, level: float) -> Row:
    found = pd.DataFrame([side_measures(line) for _, line in rows.groupby("seed")])
    steep = found.max(axis=1, skipna=False)
    hit = (steep >= c * found.min(axis=1)) & (steep > 0)
    n = int(steep.notna().sum())
    towards = (found["stop"] > found["start"])[hit]
    first = rows.iloc[0]
    start, stop = f"{first['start']} (t < m)", f"{first['stop']} of recipe {first['stop_recipe']} (t > m)"
    notes = [
        f"of these, steep towards {start} in {int((~towards).sum())}, towards {stop} in {int(towards.sum())}"
    ]
    if n < len(found):
        notes.append(f"seeds whose minimum is at an end of the line, left out: {len(found) - n}")
    return _share_row(
        "line_looks_sharp_from_one_side",
        6,
        scope,
        "on the line through two solutions the minimum looks sharp from one side and wide from the other",
        int(hit.sum()),
        n,
        measure=f"share of seeds in which the rises on the two sides of the line's minimum differ {c:g}-fold",
        level=level,
        note="; ".join(notes),
    )


def side_measures(line: pd.DataFrame) -> dict[str, float]:
    """Return how far the train loss of one seed's line rises on the two sides of its least value, at t = m.

    ``start`` is the rise at m - 1 and ``stop`` that at m + 1, or at the greatest distance from m that the
    line reaches on both sides; NaN when m is at the line's end or a rise is not finite.
    """
    line = line.sort_values("t")
    t, train = line["t"].to_numpy(), line["train_loss"].to_numpy()
    nothing = {"start": math.nan, "stop": math.nan}
    if not np.isfinite(train).any():
        return nothing
    at = int(np.nanargmin(train))
    reach = min(1.0, t[at] - t[0], t[-1] - t[at])
    rises = [np.interp(t[at] + side * reach, t, train) - train[at] for side in (-1, 1)]
    if reach <= 0 or not np.isfinite(rises).all():
        return nothing
    return dict(zip(("start", "stop"), map(float, rises), strict=True))


def line_measures(line: pd.DataFrame) -> dict[str, float]:
    """Return what one seed's swa-descent line says.

    ``mirror``: with the least train loss at t = m, the train loss at 2 m, which is swa's mirror image, less
    that at swa (t = 0). Where the line ends before 2 m, both points are as far from m as its end. NaN when m
    is not beyond swa, or at the line's end: then swa is on no side of a minimum. ``argmin``: t of the least
    test loss less t of the least train loss.
    """
    line = line.sort_values("t")
    t, train = line["t"].to_numpy(), line["train_loss"].to_numpy()
    m = t[train.argmin()]
    reach = min(m, t[-1] - m)
    mirror = np.interp(m + reach, t, train) - np.interp(m - reach, t, train) if reach > 0 else np.nan
    return {"mirror": mirror, "argmin": t[line["test_loss"].to_numpy().argmin()] - m}


_SELECTED = "epochs chosen by their test loss, as the paper's code does: biased towards the claim"


def paper_selection(training: pd.DataFrame, level: float) -> Iterator[Row]:
    """Experiment 2 as the paper's code selects: descent epochs whose test loss is above SWA's.

    The code keeps an epoch when its train loss is below SWA's and its test loss above; the last one kept is
    compared. That the test loss is then above SWA's is no finding. Whether there is such an epoch is one,
    though looking at all epochs makes it likely.
    """
    descent = training[training["phase"] == "descent"]
    for names, rows in descent.groupby(_CELLS, sort=True):
        scope = "/".join(map(str, names))
        kept = [selected_epochs(run) for _, run in rows.groupby("seed")]
        found = [run for run in kept if len(run)]
        yield _share_row(
            "swa_paper_selection_exists",
            2,
            scope,
            "SGD continued from SWA passes an epoch of lower train loss and higher test loss than SWA's",
            len(found),
            len(kept),
            measure="share of seeds with such an epoch among those of the descent",
            level=level,
            note=f"{_SELECTED}; {rows['epoch'].max()} epochs a seed, "
            f"such ones by seed: {', '.join(str(len(run)) for run in kept)}",
        )
        if not found:
            continue
        last, first = (pd.DataFrame([run.iloc[at] for run in found]) for at in (-1, 0))
        interval = stats.mean_interval(last["test_loss"], level)
        yield {
            "claim": "swa_test_loss_paper_selection",
            "experiment": 2,
            "scope": scope,
            "statement": "SWA's test loss is lower than at descent epochs chosen for a higher one (no test)",
            "verdict": INCONCLUSIVE,
            "measure": "test loss of swa - at the last epoch selected",
            "effect": interval.estimate,
            "unit": "nats",
            "low": interval.low,
            "high": interval.high,
            "n": interval.n,
            "p_value": None,
            "test": "t interval of the paired difference",
            "rule": "not judged: the selection fixes the sign",
            "note": f"{_SELECTED} by construction; seeds without such an epoch, left out: "
            f"{len(kept) - len(found)}; train loss of swa - at that epoch {last['train_loss'].mean():.3g}; "
            f"at the first such epoch, test loss {first['test_loss'].mean():.3g}, "
            f"train loss {first['train_loss'].mean():.3g}",
        }


def selected_epochs(run: pd.DataFrame) -> pd.DataFrame:
    """Return swa's ``train_loss`` and ``test_loss`` less those of each descent epoch that the paper keeps.

    Parameters
    ----------
    run
        One seed's rows of ``training`` in the phase descent; epoch 0 is swa.
    """
    run = run.sort_values("epoch").set_index("epoch")[["train_loss", "test_loss"]].astype(float)
    change = run.loc[0] - run.drop(index=0)
    return change[(change["train_loss"] > 0) & (change["test_loss"] < 0)]


def shift(shift: pd.DataFrame, asymmetry: pd.DataFrame, alpha: float, level: float) -> Iterator[Row]:
    """Experiment 5: whether the test loss along a direction is the train loss shifted, by cell and probe."""
    found = measures.shifts(shift, asymmetry)
    for names, rows in found.groupby([*_CELLS, "probe"], sort=True):
        scope = "/".join(map(str, names))
        fixed, free = (rows[rows["policy"] == policy] for policy in ("fixed", "free"))
        left = free["gap_zero"].reset_index(drop=True) / fixed["gap_zero"].reset_index(drop=True)
        yield _shifted_row(
            fixed,
            claim="test_loss_is_shifted",
            scope=scope,
            statement="along a direction the test loss is the train loss shifted",
            measure="share of the gap between test and train loss that the best shift removes, b = 0",
            alpha=alpha,
            level=level,
        )
        yield _shifted_row(
            free,
            claim="test_loss_is_shifted_and_lifted",
            scope=scope,
            statement="along a direction the test loss is the train loss shifted and lifted by a constant",
            measure="share of the gap left by the best constant that the best shift removes, b free",
            note=f"the constant alone removes {1 - _median(left):.0%} of the gap (median)",
            alpha=alpha,
            level=level,
        )
        yield _symmetric_row(fixed, free, scope, level)


def _shifted_row(rows: pd.DataFrame, *, note: str = "", **text: Any) -> Row:
    by_minimum = rows.groupby("seed")["share"].mean()  # of the directions that have a gap to remove
    notes = [note] if note else []
    notes.append(f"directions a minimum: {rows.groupby('seed').size().max()}")
    lost = int(rows["share"].isna().sum())
    if lost:
        notes.append(f"directions without a finite gap, left out: {lost}")
    size = rows["delta"].abs()
    notes.append(
        f"|delta*| is {_median(size):.2g} R (median), at the bound of R/4 in {(size > 0.2499).sum()}"
    )
    return _paired_row(
        differences=by_minimum.to_numpy(),
        sign=1,
        unit="share",
        note="; ".join(notes),
        experiment=5,
        at=0.5,
        limits=(0, 1),
        **text,
    )


def _symmetric_row(fixed: pd.DataFrame, free: pd.DataFrame, scope: str, level: float) -> Row:
    lean = fixed.groupby("seed")["towards_flat"].sum()  # NaN, where a loss is not finite, counts for nothing
    hits, n = int((lean > 0).sum()), int((lean != 0).sum())
    interval = stats.wilson(hits, n, level)
    notes = [
        f"of directions, {_of(rows['towards_flat'] > 0, rows['towards_flat'] != 0)} {policy}"
        for rows, policy in ((fixed, "with b = 0"), (free, "with b free"))
    ]
    if n < len(lean):
        notes.append(f"minima with as many on either side, left out: {len(lean) - n}")
    least = _least_symmetric(level)
    if n < least:
        notes.append(f"{n} minima cannot show symmetry; {least} can")
    return {
        "claim": "shift_is_symmetric",
        "experiment": 5,
        "scope": scope,
        "statement": "the test loss is shifted towards the flatter side as often as towards the steeper",
        "verdict": symmetric_verdict(interval),
        "measure": "share of SGD minima (seeds) where most delta* are towards the flatter side",
        "effect": interval.estimate,
        "unit": "share",
        "low": interval.low,
        "high": interval.high,
        "n": n,
        "p_value": None,
        "test": "Wilson interval",
        "rule": "refuted: interval leaves out 0.5; else supported: interval within 0.25 and 0.75",
        "note": "; ".join(notes),
    }


def _of(hit: pd.Series, counted: pd.Series) -> str:
    return f"{int(hit.sum())} of {int(counted.sum())}"


def _least_symmetric(level: float) -> int:
    """Return the least (even) number of minima that can show symmetry."""
    return next(
        n for n in range(2, 1000, 2) if symmetric_verdict(stats.wilson(n // 2, n, level)) == SUPPORTED
    )


def _median(values: Any) -> float:
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else math.nan


def sign(asymmetry: pd.DataFrame, directions: pd.DataFrame, alpha: float, level: float) -> Iterator[Row]:
    """Experiment 12: the asymmetry of a direction against its agreement in sign with w, by cell and group."""
    for names, rows in measures.signs(asymmetry, directions).groupby([*_CELLS, "group"], sort=True):
        probed = rows[~rows["mirrored"]]
        lost = int((~np.isfinite(probed["index"])).sum())
        notes = [f"directions a minimum: {probed.groupby('seed').size().max()}, each as u and as -u"]
        if lost:
            notes.append(f"{lost} of {len(probed)} directions left out: a side does not rise")
        yield _paired_row(
            "matching_signs_flattens",
            "/".join(map(str, names)),
            "the more entries of a direction have the sign of w, the flatter is its + side",
            measures.correlations(rows).to_numpy(),
            sign=1,
            measure="rank correlation of sign agreement and asymmetry index within a minimum (Spearman)",
            unit="correlation",
            alpha=alpha,
            level=level,
            note="; ".join(notes),
            experiment=12,
            at=0.0,
            limits=(-1, 1),
        )


def toy(toy_2d: pd.DataFrame, level: float) -> Iterator[Row]:
    """Experiment 7: the 2-D MLP, by recipe."""
    for recipe, rows in toy_2d.groupby("recipe", sort=True):
        counts = rows["status"].value_counts()
        others = [
            f"{n} {status}" for status, n in counts.items() if status not in ("asymmetric", "symmetric")
        ]
        yield _share_row(
            "toy_2d_asymmetric",
            7,
            f"2-D MLP/{recipe}",
            "a U(0,1) direction at the solution of one neuron is asymmetric more often than not",
            int((rows["status"] == "asymmetric").sum()),
            len(rows),
            measure="share of data draws whose line is asymmetric",
            level=level,
            note=", ".join(others),
        )


def _grid_row(
    claim: str,
    experiment: int,
    scope: str,
    statement: str,
    estimates: pd.Series,
    errors: pd.Series,
    *,
    measure: str,
    unit: str,
    level: float,
    sign: int = 1,
    bound: bool = False,
    note: str = "",
) -> Row:
    """Return the row of a claim about each of several simulated numbers, of which there is at least one."""
    low, high = stats.simultaneous(estimates, errors, level)
    at = int(np.argmin(sign * estimates.to_numpy() / np.maximum(errors.to_numpy(), 1e-300)))
    side = "above" if sign > 0 else "below"
    rule = f"supported: all intervals {side} 0; refuted: one on the other side"
    if bound:
        rule = "refuted: one interval below 0; else supported"
        above = f"clearly above in {int((low > 0).sum())} of {len(low)} rows"
        note = f"{above}; {note}" if note else above
    return {
        "claim": claim,
        "experiment": experiment,
        "scope": scope,
        "statement": statement,
        "verdict": bound_verdict(high) if bound else grid_verdict(low, high, sign),
        "measure": f"{measure}; of the row nearest to failing",
        "effect": float(estimates.iloc[at]),
        "unit": unit,
        "low": float(low[at]),
        "high": float(high[at]),
        "n": len(low),
        "p_value": None,
        "test": "normal intervals of all rows together (Bonferroni)",
        "rule": rule,
        "note": note,
    }


def _span(values: pd.Series) -> str:
    return f"{values.min():.2g} to {values.max():.2g}"


def averaging(theory_average: pd.DataFrame, level: float) -> Iterator[Row]:
    """Experiment 3: the average of SGD's iterates in simulated valleys, by shape."""
    for shape, rows in theory_average.groupby("shape", sort=False):
        scope = f"simulation/{shape}"
        uneven, even = rows[rows["c"] > 1], rows[rows["c"] == 1]
        if len(uneven):
            yield _grid_row(
                "average_on_flat_side",
                3,
                scope,
                "in an asymmetric valley the mean of averaged SGD iterates lies on the flat side",
                uneven["mean"],
                uneven["mean_se"],
                measure="mean of the average, flat side positive",
                unit="x",
                level=level,
                note=f"share of averages on the flat side: {_span(uneven['flat_share'])}",
            )
        bounded = uneven[uneven["bound_applies"]]
        if len(bounded):
            positive = int((bounded["bound"] > 0).sum())
            yield _grid_row(
                "average_bound_holds",
                3,
                scope,
                "the mean of averaged SGD iterates is not below the bound proved for it",
                bounded["mean"] - bounded["bound"],
                bounded["mean_se"],
                measure="mean of the average - bound",
                unit="x",
                level=level,
                bound=True,
                note=f"the bound applies in {len(bounded)} of {len(uneven)} rows with c > 1, "
                f"positive in {positive}",
            )
        for name, part in (("symmetric", even), ("asymmetric", uneven)):
            if len(part):
                ratio, kept = part["average_loss"] / part["iterate_loss"], part["loss_kept"]
                yield _grid_row(
                    "averaging_lowers_train_loss",
                    3,
                    f"{scope}/{name}",
                    "averaging SGD's iterates lowers the training loss",
                    part["loss_change"],
                    part["loss_change_se"],
                    sign=-1,
                    measure="training loss at the average - mean over its iterates",
                    unit="loss",
                    level=level,
                    note=f"lowered to {_span(ratio)} of it; at the mean of all averages {_span(kept)} stays",
                )


def gains(theory_gain: pd.DataFrame, level: float) -> Iterator[Row]:
    """Experiment 4: the expected gain of a bias under a random symmetric shift, by shape."""
    for shape, rows in theory_gain.groupby("shape", sort=False):
        scope = f"simulation/{shape}"
        uneven = rows[rows["c"] > 1]
        near = uneven[uneven["bias"] < uneven["limit"]]
        if len(near):
            far = uneven[uneven["bias"] >= uneven["limit"]]
            yield _grid_row(
                "bias_to_flat_side_gains",
                4,
                scope,
                "under a random symmetric shift a bias to the flat side, up to the stated limit, lowers the "
                "expected loss",
                near["gain"],
                near["gain_se"],
                measure="expected loss at the minimum - at the bias",
                unit="loss",
                level=level,
                note=f"{len(near)} of {len(uneven)} biases are below the limit; of the others "
                f"{int((far['gain'] < 0).sum())} lose",
            )
        yield _grid_row(
            "gain_bound_holds",
            4,
            scope,
            "the expected gain is not below the bound proved for it",
            rows["gain"] - rows["bound"],
            rows["gain_se"],
            measure="gain - bound",
            unit="loss",
            level=level,
            bound=True,
            note=f"symmetric valleys included; bound positive in {int((rows['bound'] > 0).sum())} rows",
        )


def measured_gains(theory_measured: pd.DataFrame, alpha: float, level: float) -> Iterator[Row]:
    """Experiment 4 on measured curves: a bias to the flat side of asymmetric directions, by probe."""
    found = measures.gains(theory_measured)
    found = found[(found["shift"] == "uniform") & (found["bias"] == found["scale"] / 2)]
    for names, rows in found.groupby([*_CELLS, "probe"], sort=True):
        at = rows[rows["scale"] == 0.25]
        here, control = (at[at["status"] == status] for status in ("asymmetric", "symmetric"))
        if here.empty:
            continue
        wide = rows[(rows["scale"] == 0.5) & (rows["status"] == "asymmetric")]
        about = f"asymmetric directions: {here['directions'].sum()} of {at['directions'].sum()}"
        for claim, column, statement, measure, others in (
            (
                "bias_gains_on_measured_curves",
                "gain",
                "under a random symmetric shift of the measured train loss a bias to the flat side of an "
                "asymmetric direction gains",
                "expected train loss at the minimum - at a bias of R/8, shift uniform on +-R/4",
                f"; with twice the shift and bias {wide['gain'].mean():.3g}",
            ),
            (
                "bias_lowers_test_loss",
                "test_gain",
                "the measured test loss is lower at a bias to the flat side of an asymmetric direction",
                "test loss at the minimum - at a bias of R/8",
                f"; train loss there {here['train_gain'].mean():.3g}",
            ),
        ):
            values = control[column]
            beside = f"along symmetric ones {values.mean():.3g}, above 0 in {_of(values > 0, values.notna())}"
            yield _paired_row(
                claim,
                "/".join(map(str, names)),
                statement,
                here[column].to_numpy(),
                sign=1,
                measure=measure,
                unit="nats",
                alpha=alpha,
                level=level,
                note=about + (f"; {beside} minima" if len(control) else "") + others,
                experiment=4,
                at=0.0,
            )


# Studies ---------------------------------------------------------------------------------------------


def studies(
    table: pd.DataFrame | None,
    factors: outcomes.Order | None,
    c: float,
    alpha: float,
    level: float,
) -> Iterator[Row]:
    """Experiments 6 and 8 to 11: what studies show, by their factors."""
    for study in outcomes.studies(table, factors):
        plain = study.minima[~study.minima["penalty"]]
        if study.design == "none":
            rows = study.directions[study.directions["trained"] & ~study.directions["penalty"]]
            about = {"experiment": 8, "within": f"{study.name}/", "about": _left_out(plain)}
            yield from prevalence(rows.assign(solution="sgd"), c, level, **about)
        elif study.design == "crossed":
            yield from _exists(study, plain, {}, "all variants", 11, level)
            yield from _crossed(study, plain, alpha, level)
        elif list(study.factors) == ["recipe"] and len(study.factors["recipe"]) == 2:
            yield from _sharper(study, plain, alpha, level)
        else:
            for factor, levels in study.factors.items():
                if factor == "recipe.weight_decay":
                    yield from _decay(study, plain, levels, alpha, level)
                elif factor == "model.norm":
                    yield from _norm(study, plain, levels, alpha, level)
                elif factor == "model.norm_init":
                    yield from _norm_init(study, plain, levels, alpha, level)
                else:
                    number = 11 if factor.startswith(("model", "recipe.loss")) else 1
                    for one in levels:
                        where = {"factor": factor, "level": one}
                        yield from _exists(study, plain, where, outcomes.label(factor, one), number, level)
            if {"model.norm", "model.norm_init"} & set(study.factors):
                yield from _bn_directions(study, plain, alpha, level)
        yield from _study_swa(study, plain, alpha, level)


def _left_out(minima: pd.DataFrame) -> str:
    """Say how many minima of some rows count as untrained."""
    cells = minima.drop_duplicates(outcomes.CELL)
    lost = int((~cells["trained"]).sum())
    if not lost:
        return ""
    return f"{lost} of {len(cells)} minima left out: train accuracy below {outcomes.TRAINED:g}"


def _without_index(minima: pd.DataFrame) -> str:
    lost = int((minima["directions"] - minima["indexed"]).sum())
    return f"{lost} of {int(minima['directions'].sum())} directions without an index" if lost else ""


def _exists(
    study: outcomes.Study,
    plain: pd.DataFrame,
    where: outcomes.Levels,
    name: str,
    experiment: int,
    level: float,
    claim: str = "asymmetric_direction_exists",
    statement: str = "most SGD minima have an asymmetric direction among those probed",
) -> Iterator[Row]:
    """Share of minima with an asymmetric direction, by probe, for some variants of a study."""
    for probe, all_rows in study.take(plain, where).groupby("probe", sort=True):
        rows = all_rows[all_rows["trained"]]
        directions = f"of directions {int(rows['asymmetric'].sum())} of {int(rows['directions'].sum())}"
        yield _share_row(
            claim,
            experiment,
            f"{study.name}/{name}/{probe}",
            statement,
            int((rows["asymmetric"] > 0).sum()),
            len(rows),
            measure="share of minima with at least one asymmetric direction (Definition 1)",
            level=level,
            note=_joined(directions, _left_out(all_rows)),
        )


def _decay(
    study: outcomes.Study, plain: pd.DataFrame, levels: list[Any], alpha: float, level: float
) -> Iterator[Row]:
    """Experiment 9: whether weight decay takes the asymmetry away or changes it."""
    factor = "recipe.weight_decay"
    for one in levels:
        yield from _exists(
            study,
            plain,
            {"factor": factor, "level": one},
            outcomes.label(factor, one),
            9,
            level,
            claim="asymmetry_survives_l2",
            statement="with weight decay or without, most SGD minima have an asymmetric direction",
        )
    parts = pd.concat([study.at(plain, factor, one) for one in levels])
    for probe, rows in parts.groupby("probe", sort=True):
        good = rows[rows["trained"]]
        wide = pd.DataFrame(
            {i: study.at(good, factor, one).set_index("seed")["index"] for i, one in enumerate(levels)}
        )
        whole = wide.dropna()
        steps = np.arange(len(levels)) - (len(levels) - 1) / 2
        slope = whole.to_numpy() @ (steps / (steps @ steps))
        change = slope * (len(levels) - 1) / whole.mean(axis=1).to_numpy()
        ends = " to ".join(f"{one:g}" for one in (levels[0], levels[-1]))
        means = ", ".join(
            f"{mean:.3g} at {one:g}" for one, mean in zip(levels, whole.mean(), strict=True) if len(whole)
        )
        paired = stats.paired(change, level=level)
        lost = rows["seed"].nunique() - len(whole)
        yield _paired_row(
            "l2_does_not_change_asymmetry",
            f"{study.name}/weight decay {ends}/{probe}",
            "weight decay does not change how asymmetric a minimum is",
            change,
            sign=1,
            measure="change of the mean |asymmetry index| from the first level to the last, over its mean",
            unit="share of the mean",
            alpha=alpha,
            level=level,
            experiment=9,
            note=_joined(
                f"mean |index| {means}" if means else "",
                f"seeds without a trained minimum at each level, left out: {lost}" if lost else "",
                _left_out(rows),
                _without_index(good),
            ),
        ) | {
            "verdict": unchanged_verdict(paired, alpha),
            "rule": f"refuted: p < {alpha:g}; else supported: interval within -0.25 and 0.25",
        }
    yield from _penalty(study, level)


def _penalty(study: outcomes.Study, level: float) -> Iterator[Row]:
    """Experiment 9: verdicts of Definition 1 with the penalty in the probed loss and without."""
    rows = study.directions[study.directions["trained"]]
    names = [*outcomes.CELL, "probe", "kind", "group", "k"]
    factor = "recipe.weight_decay"
    own = [*names, "status", outcomes.column(factor)]
    both = rows.loc[rows["penalty"], own].merge(
        rows.loc[~rows["penalty"], [*names, "status"]],
        on=names,
        suffixes=("", "_plain"),
        validate="one_to_one",
    )
    for (one, probe), part in both.groupby([outcomes.column(factor), "probe"], sort=True):
        same = part["status"] == part["status_plain"]
        moves = (part["status_plain"] + " to " + part["status"])[~same].value_counts()
        yield _share_row(
            "penalty_leaves_verdicts",
            9,
            f"{study.name}/{outcomes.label(factor, one)}/{probe}",
            "a direction's verdict is mostly the same whether or not the probed loss has the L2 penalty",
            int(same.sum()),
            len(part),
            measure="share of directions with the same verdict (Definition 1), minima pooled",
            level=level,
            note=_joined(
                *(f"{count} from {move}".replace("_", " ") for move, count in moves.items()),
                f"{part['seed'].nunique()} minima",
            ),
        )


def _contrast(
    claim: str,
    study: outcomes.Study,
    scope: str,
    statement: str,
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    comparisons: int,
    names: tuple[str, str],
    alpha: float,
    level: float,
    measure: str = "index",
    text: str = "mean |asymmetry index|",
    unit: str = "log ratio",
    experiment: int = 10,
) -> Row:
    """Return a row of the paired rule for ``first - second``, claimed to be above 0."""
    both = pd.concat([first, second])
    differences = outcomes.by_seed(first, second, measure)
    notes = []
    if measure == "index":
        shares = []
        for name, rows in zip(names, (first, second), strict=True):
            good = rows[rows["trained"]]
            shares.append(f"{name} {int(good['asymmetric'].sum())} of {int(good['directions'].sum())}")
        notes += [f"asymmetric directions: {', '.join(shares)}", _without_index(both[both["trained"]])]
    means = ", ".join(
        f"{name} {rows.loc[rows['trained'], measure].mean():.3g}"
        for name, rows in zip(names, (first, second), strict=True)
        if np.isfinite(rows.loc[rows["trained"], measure]).any()
    )
    notes += [f"means: {means}" if means else "", _left_out(both)]
    if comparisons > 1:
        notes.append(f"one of {comparisons} such comparisons in this study, p not corrected")
    return _paired_row(
        claim,
        f"{study.name}/{scope}",
        statement,
        differences.to_numpy(),
        sign=1,
        measure=f"{text}: {names[0]} - {names[1]}, within a seed",
        unit=unit,
        alpha=alpha,
        level=level,
        experiment=experiment,
        note=_joined(*notes),
    )


def _norm(
    study: outcomes.Study, plain: pd.DataFrame, levels: list[Any], alpha: float, level: float
) -> Iterator[Row]:
    """Experiment 10: batch norm against other norms, along directions over all parameters."""
    others = [one for one in levels if one != "batch"]
    whole = plain[plain["group"] == "all"]
    if len(others) == len(levels):
        return
    comparisons = len(others) * whole["probe"].nunique()
    for probe, rows in whole.groupby("probe", sort=True):
        batch = study.at(rows, "model.norm", "batch")
        for other in others:
            yield _contrast(
                "bn_makes_asymmetric",
                study,
                f"batch against {outcomes.text_of(other)}/{probe}",
                "minima of nets with batch norm are more asymmetric than those without",
                batch,
                study.at(rows, "model.norm", other),
                comparisons=comparisons,
                names=("batch", outcomes.text_of(other)),
                alpha=alpha,
                level=level,
            )


def _norm_init(
    study: outcomes.Study, plain: pd.DataFrame, levels: list[Any], alpha: float, level: float
) -> Iterator[Row]:
    """Experiment 10: scales that begin at one against scales that begin Gaussian."""
    if not {"ones", "gaussian"} <= set(levels):
        return
    probes = plain["probe"].nunique()
    for probe, rows in plain.groupby("probe", sort=True):
        yield _contrast(
            "bn_init_matters",
            study,
            f"ones against gaussian/{probe}",
            "with norm scales that begin at one a minimum is more asymmetric than with Gaussian ones",
            study.at(rows, "model.norm_init", "ones"),
            study.at(rows, "model.norm_init", "gaussian"),
            comparisons=probes,
            names=("ones", "gaussian"),
            alpha=alpha,
            level=level,
        )


def _bn_directions(study: outcomes.Study, plain: pd.DataFrame, alpha: float, level: float) -> Iterator[Row]:
    """Experiment 10: directions in the norm's parameters against those in all others, within a minimum.

    Probes are compared with those of the same kind, in the order of their names.
    """
    here = plain
    for factor, usual in (("model.norm", "batch"), ("model.norm_init", "ones")):
        if factor in study.factors:
            if usual not in study.factors[factor]:
                return
            here = study.at(here, factor, usual)
    pairs = []
    for _, rows in here.groupby("kind", sort=True):
        inside, outside = (
            sorted(set(rows.loc[rows["group"] == group, "probe"])) for group in ("bn", "not_bn")
        )
        pairs += zip(inside, outside, strict=False)
    for names in pairs:
        yield _contrast(
            "bn_directions_are_more_asymmetric",
            study,
            f"batch norm/{names[0]} against {names[1]}",
            "directions in batch norm's parameters are more asymmetric than directions in all others",
            *(here[here["probe"] == name] for name in names),
            comparisons=len(pairs),
            names=names,
            alpha=alpha,
            level=level,
        )


def _crossed(study: outcomes.Study, plain: pd.DataFrame, alpha: float, level: float) -> Iterator[Row]:
    """Experiment 11: factors of a full or sampled design, each with its p adjusted over all of them."""
    for probe, everything in plain.groupby("probe", sort=True):
        trained = everything[everything["trained"]]
        rows = trained[np.isfinite(trained["index"])]
        at = {factor: rows[outcomes.column(factor)].tolist() for factor in study.factors}
        tests = {
            factor: stats.factor_test(
                rows["index"].rank(), own, [at[other] for other in at if other != factor]
            )
            for factor, own in at.items()
        }
        adjusted = stats.holm([test.p for test in tests.values()])
        for (factor, test), holm in zip(tests.items(), adjusted, strict=True):
            levels = study.factors[factor]
            samples = {one: study.at(rows, factor, one)["index"].to_numpy() for one in levels}
            spread = stats.spread_of_means(list(samples.values()), level=level)
            name = factor_name(factor)
            means = ", ".join(
                f"{outcomes.text_of(one)} {values.mean():.3g} ({len(values)})"
                for one, values in samples.items()
                if len(values)
            )
            absent = [outcomes.text_of(one) for one, values in samples.items() if not len(values)]
            yield {
                "claim": f"{name.replace(' ', '_')}_changes_asymmetry",
                "experiment": 11,
                "scope": f"{study.name}/{probe}",
                "statement": f"how asymmetric a minimum is depends on the {name}",
                "verdict": SUPPORTED if holm < alpha else INCONCLUSIVE,
                "measure": "greatest - least of the levels' means of a minimum's mean |asymmetry index|",
                "effect": spread.estimate,
                "unit": "log ratio",
                "low": spread.low,
                "high": spread.high,
                "n": spread.n,
                "p_value": None if math.isnan(holm) else float(holm),
                "test": "permutation of residuals in the additive model of all factors (Freedman and Lane), "
                f"of ranks, p adjusted over {len(tests)} factors (Holm); "
                "bootstrap interval, which is no test: a spread is above 0 by chance alone",
                "rule": f"supported: adjusted p < {alpha:g}; else inconclusive: absence cannot be shown",
                "note": _joined(
                    f"means (minima): {means}" if means else "",
                    f"explains {test.explained:.0%} of the variance of ranks that the other factors leave; "
                    f"F = {test.f:.3g}, p = {test.p:.2g} before adjustment"
                    if math.isfinite(test.p)
                    else "no test: too few levels or minima",
                    f"no minimum at {', '.join(absent)}" if absent else "",
                    _left_out(everything),
                    f"{len(trained) - len(rows)} minima without an index" if len(trained) > len(rows) else "",
                ),
            }


def _sharper(study: outcomes.Study, plain: pd.DataFrame, alpha: float, level: float) -> Iterator[Row]:
    """Experiment 6: whether the first of two recipes ends in the sharper minimum."""
    names = tuple(outcomes.text_of(one) for one in study.factors["recipe"])
    measures_of = (
        ("width", "width: R / |w|, mean over directions", "share of the norm", -1),
        ("eigenvalue", "greatest Hessian eigenvalue", "nats per squared 2-norm", 1),
    )
    present = [
        (probe, rows, *about)
        for about in measures_of
        for probe, rows in plain.groupby("probe", sort=True)
        if np.isfinite(rows[about[0]]).any()
    ]
    for probe, rows, measure, text, unit, sign in present:
        sides = [study.at(rows, "recipe", one) for one in study.factors["recipe"]][::sign]
        yield _contrast(
            f"{names[0].replace('-', '_')}_is_sharper",
            study,
            f"{names[0]} against {names[1]}/{probe}",
            f"recipe {names[0]} ends in a sharper minimum than recipe {names[1]}",
            *sides,
            comparisons=len(present),
            names=names[::sign],
            alpha=alpha,
            level=level,
            measure=measure,
            text=text,
            unit=unit,
            experiment=6,
        )


def _study_swa(study: outcomes.Study, plain: pd.DataFrame, alpha: float, level: float) -> Iterator[Row]:
    """SWA against descent in a study that has both, by level."""
    cells = plain.drop_duplicates(outcomes.CELL)
    cells = cells[np.isfinite(cells["swa_gain"])]
    experiment = 9 if "recipe.weight_decay" in study.factors else 2
    groups = [(name, where) for name, where in study.groups() if len(study.take(cells, where))]
    for claim, statement, measure in (
        ("swa_gain", "SWA's test loss is lower than that of the solution SGD reaches from it",
         "test loss of descent - of swa"),
        ("swa_rise", "SWA's train loss is higher than that of the solution SGD reaches from it",
         "train loss of swa - of descent"),
    ):  # fmt: skip
        for name, where in groups:
            rows = study.take(cells, where)
            good = rows[rows["trained"]]
            several = f"one of {len(groups)} levels, p not corrected" if len(groups) > 1 else ""
            yield _paired_row(
                claim,
                f"{study.name}/{name}" if name else study.name,
                statement,
                good[claim].to_numpy(),
                sign=1,
                measure=measure,
                unit="nats",
                alpha=alpha,
                level=level,
                experiment=experiment,
                note=_joined(several, _left_out(rows)),
            )


def as_text(claims: pd.DataFrame) -> str:
    """Return the claims as a table for the terminal."""
    from tabulate import tabulate

    lines = []
    for row in claims.itertuples():
        effect = f"{row.effect:+.3g} [{row.low:+.3g}, {row.high:+.3g}] {row.unit}"
        lines.append([row.verdict, row.claim, row.scope, effect, row.n])
    return tabulate(lines, headers=["verdict", "claim", "scope", "effect [95 % interval]", "n"])
