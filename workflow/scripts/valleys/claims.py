"""The paper's claims, each judged from the tables by a rule written here.

A verdict is ``supported``, ``refuted`` or ``inconclusive``. Six rules cover all claims so far:

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

The effect of a grid or bound claim is that of the row nearest to failing, counted in standard errors.

Claims are judged separately for each data set, model and recipe, simulations for each shape of valley;
p-values are not corrected for the number of rows, which each row's note and the report state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from valleys import measures, stats

SUPPORTED, REFUTED, INCONCLUSIVE = "supported", "refuted", "inconclusive"
_CELLS = ["dataset", "model", "recipe"]

_ROUNDING = 1e-12  # of a simulated number that equals its bound in every draw

Row = dict[str, Any]
Frames = Mapping[str, pd.DataFrame]


def judge(
    data: Frames, *, c: float = 2.0, alpha: float = 0.05, level: float = 0.95, barrier: float = 0.1
) -> list[Row]:
    """Return the rows of the ``claims`` table.

    Parameters
    ----------
    data
        The tables ``training, solutions, directions, asymmetry, theory_measured, shift, interpolation,
        toy_2d, theory_average, theory_gain`` as data frames.
    c
        Level from which a direction counts as asymmetric.
    alpha
        Two-sided significance level of tests.
    level
        Confidence level of intervals.
    barrier
        Train-loss barriers below this (nats) count as none.
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


def prevalence(asymmetry: pd.DataFrame, c: float, level: float) -> Iterator[Row]:
    """Experiment 1: asymmetric directions at SGD minima, by data set, model, recipe and probe.

    Twice: by Definition 1, which asks for slopes that differ by c throughout a window, and by the rises at
    -R and R alone. The first is the stricter: a curve whose slope grows within the window by a factor g has
    c* at most 1/g of the ratio of its slopes. Directions of kind sign are experiment 12.
    """
    at_sgd = asymmetry[(asymmetry["solution"] == "sgd") & (asymmetry["kind"] != "sign")]
    for names, rows in at_sgd.groupby([*_CELLS, "probe"], sort=True):
        scope = "/".join(map(str, names))
        hit = rows["status"] == "asymmetric"
        by_minimum = hit.groupby(rows["seed"]).any()
        counts = rows["status"].value_counts()
        others = [f"{counts[s]} {s}" for s in ("not_minimum", "flat", "not_finite") if s in counts]
        per = rows.groupby("seed").size().max()
        yield _share_row(
            "asymmetric_direction_exists",
            1,
            scope,
            "most SGD minima have an asymmetric direction among those probed",
            int(by_minimum.sum()),
            len(by_minimum),
            measure="share of SGD minima (seeds) with at least one asymmetric direction",
            level=level,
            note=f"{per} directions a minimum",
        )
        yield _share_row(
            "directions_are_asymmetric",
            1,
            scope,
            "a direction at an SGD minimum is asymmetric (Definition 1) more often than not",
            int(hit.sum()),
            len(hit),
            measure="share of directions that are asymmetric, minima pooled",
            level=level,
            note="; ".join(others),
        )
        index = rows["asymmetry_index"]
        yield _share_row(
            "rises_are_uneven",
            1,
            scope,
            f"at the ends of a line through an SGD minimum, one side has risen {c:g} times as much",
            int((index.abs() >= math.log(c)).sum()),
            len(rows),
            measure=f"share of directions whose rises at -R and R differ {c:g}-fold or more, minima pooled",
            level=level,
            note=f"steeper on the +u side in {(index < 0).sum()} of {len(rows)}",
        )


def swa(solutions: pd.DataFrame, interpolation: pd.DataFrame, alpha: float, level: float) -> Iterator[Row]:
    """Experiment 2: SWA against the solution that SGD descends to from it, paired over seeds."""
    for names, rows in solutions.groupby(_CELLS, sort=True):
        scope = "/".join(map(str, names))
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


def as_text(claims: pd.DataFrame) -> str:
    """Return the claims as a table for the terminal."""
    from tabulate import tabulate

    lines = []
    for row in claims.itertuples():
        effect = f"{row.effect:+.3g} [{row.low:+.3g}, {row.high:+.3g}] {row.unit}"
        lines.append([row.verdict, row.claim, row.scope, effect, row.n])
    return tabulate(lines, headers=["verdict", "claim", "scope", "effect [95 % interval]", "n"])
