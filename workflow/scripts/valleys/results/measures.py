"""What claims, figures and the report take from the tables: verdicts counted, shifts and signs, barriers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from valleys.asymmetry.barriers import barrier_on
from valleys.asymmetry.definition import reaches
from valleys.asymmetry.spline import upsample
from valleys.config.catalogue import SOLUTIONS
from valleys.results.stats import wilson
from valleys.storage.tables import filled

SETTING = ["dataset", "model", "recipe"]
"""Columns that name a cell but for its seed (`valleys.config.cells.Cell.setting`)."""
SOLUTION = [*SETTING, "seed", "solution"]
"""Columns that name a solution."""
OF_SOLUTION = "gradient_gain", "refreshed_rise"
"""Columns that tables of directions have where `valleys.results.doubts.with_solutions` has added them."""
DIRECTION = [*SETTING, "seed", "solution", "probe", "kind", "group", "k"]
ERROR_PARTS = ["train_error_1", "train_error_2", "train_error_3"]
"""Independent parts of the error of a train curve that a subset of images brings (`subsets.with_errors`)."""
POLICIES = ("fixed", "free")
"""Values of the shift table's ``policy``: b = 0, and the best b for each shift."""


LEFT_OUT = "the simulations that this claim also rests on were left out (simulations: false)"
"""Note on a claim of a run without simulations: the rows of networks decide it alone."""


def user_solutions_as_recipes(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with each solution under a user's own name as the sgd solution of a recipe of its own.

    So what is told of SGD minima is told of each such solution too. The recipe is ``<recipe> at <name>``;
    rows of the workflow's own solutions are as they were.
    """
    own = ~table["solution"].isin(SOLUTIONS)
    if not own.any():
        return table
    named = table["recipe"] + " at " + table["solution"]
    return table.assign(
        recipe=table["recipe"].where(~own, named), solution=table["solution"].where(~own, "sgd")
    )


def with_own_minima(data: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return tables by name, those of directions by `user_solutions_as_recipes`."""
    of_directions = ("asymmetry", "directions", "shift", "theory_measured", "searches", "search_curves")
    return {
        name: user_solutions_as_recipes(table) if name in of_directions else table
        for name, table in data.items()
    }


def shifts(shift: pd.DataFrame, asymmetry: pd.DataFrame, solution: str = "sgd") -> pd.DataFrame:
    """Return one row a direction and policy: the best shift and what it removes of the gap.

    Probes of kind ``sign`` are left out: they have an experiment of their own.

    Parameters
    ----------
    shift, asymmetry
        The tables of those names.
    solution
        Directions at this solution only.

    Returns
    -------
    DataFrame
        The names of the direction, ``policy``, ``gap_zero`` and ``gap`` (at no shift and at delta*),
        ``share`` (1 - gap / gap_zero; NaN where there is no gap to remove), ``delta`` (delta* / R) and
        ``towards_flat``: the sign of delta*, positive towards the side on which the train loss rises less
        about its own least point; NaN where it has no index.
    """
    at_zero = shift.loc[
        (shift["delta_over_r"] == 0) & (shift["solution"] == solution) & (shift["kind"] != "sign"),
        [*DIRECTION, "policy", "gap"],
    ].rename(columns={"gap": "gap_zero"})
    both = at_zero.merge(asymmetry, on=DIRECTION, how="inner", validate="many_to_one")
    free = both["policy"] == "free"
    best = both["shift"].where(~free, both["shift_free"])
    gap = both["shift_gap"].where(~free, both["shift_free_gap"])
    there = both["gap_zero"] > 0
    return both[[*DIRECTION, "policy", "gap_zero"]].assign(
        gap=gap,
        share=1 - (gap / both["gap_zero"].where(there)),
        delta=best / both["radius"],
        towards_flat=np.sign(best) * np.sign(both["asymmetry_index"]),
    )


def uncertain(asymmetry: pd.DataFrame) -> str:
    """Return how many verdicts the choice of a subset of images may have made; nothing without a subset."""
    if "certain" not in asymmetry:
        return ""
    known = asymmetry.loc[asymmetry["certain"].notna(), "certain"].astype(bool)
    if known.empty:
        return ""
    return f"verdict of {(~known).sum()} of {len(known)} on a subset of the images might be another on all"


def on_all_points(curves: pd.DataFrame) -> pd.DataFrame:
    """Return curves with each at all points of its probe; those that an adaptive one left out, interpolated.

    Losses, and the parts of their errors, are on a cubic spline through the points measured
    (`spline.upsample`), accuracies and standard errors on straight lines. Where a loss measured is not
    finite, those left out are NaN. So all curves of a probe are alike to whoever judges, compares or averages
    them. Columns that a table without subsets or adaptive probes lacks are null (`tables.filled`).
    """
    if "grid_points" not in curves:
        return curves
    sizes = curves.groupby(DIRECTION, sort=False)["offset"].transform("size")
    if not (some := sizes < curves["grid_points"].fillna(0)).any():
        return curves
    curves = filled(curves, "curves")
    more = [_on_all_points(curve) for _, curve in curves[some].groupby(DIRECTION, sort=False)]
    return pd.concat([curves[~some], *more]).sort_index(kind="stable").reset_index(drop=True)


def _on_all_points(curve: pd.DataFrame) -> pd.DataFrame:
    """Return an adaptive curve's rows at all points, under the index of its first."""
    first = curve.index.min()
    curve = curve.sort_values("offset")
    x, half = curve["offset"].to_numpy(), int(curve["grid_points"].iloc[0]) // 2
    at = np.rint(x / x[-1] * half).astype(int) + half
    offsets = x[-1] * np.arange(-half, half + 1) / half
    offsets[at] = x

    def between(column: str, slopes: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        values = curve[column].to_numpy(dtype=np.float64, na_value=math.nan)
        if np.isfinite(values).all():
            return upsample(offsets, at.tolist(), values, slopes)
        spread = np.full(len(offsets), math.nan)
        spread[at] = values
        return spread, np.full(len(offsets), math.nan)

    exact = curve["train_slope"].to_numpy(dtype=np.float64, na_value=math.nan)
    slopes = exact if np.isfinite(exact).all() else None
    rows = curve.iloc[[0] * len(offsets)].copy()
    rows["offset"] = offsets
    rows["train_loss"], steepness = between("train_loss", slopes)
    rows["test_loss"], _ = between("test_loss")
    rows["train_slope"] = math.nan if slopes is None else steepness
    for column in ("train_accuracy", "test_accuracy", "train_error", "test_error"):
        rows[column] = np.interp(offsets, x, curve[column].to_numpy(dtype=np.float64, na_value=math.nan))
    for column in ERROR_PARTS:
        rows[column], _ = between(column)
    rows.index = pd.Index([first] * len(offsets))
    return rows


def signs(asymmetry: pd.DataFrame, directions: pd.DataFrame, solution: str = "sgd") -> pd.DataFrame:
    """Return the probed directions of kind ``sign``, each as u and as -u.

    The curve along -u is that along u reversed: its entries agree in sign with w where those of u do not, and
    its asymmetry index is minus that of u. So both are known from one probe.

    Returns
    -------
    DataFrame
        The names of the direction, ``agreement`` (measured share of entries with the sign of w), ``index``
        (positive: steeper on the -u side; NaN where a rise is not positive) and ``mirrored`` (whether the row
        is -u of the probed direction).
    """
    probed = asymmetry[(asymmetry["kind"] == "sign") & (asymmetry["solution"] == solution)]
    about = directions[[*DIRECTION, "sign_agreement"]]
    rows = probed.filter([*DIRECTION, "asymmetry_index", *OF_SOLUTION]).merge(
        about, on=DIRECTION, validate="one_to_one"
    )
    rows = rows.rename(columns={"sign_agreement": "agreement", "asymmetry_index": "index"})
    mirror = rows.assign(agreement=1 - rows["agreement"], index=-rows["index"], mirrored=True)
    return pd.concat([rows.assign(mirrored=False), mirror], ignore_index=True)


def gains(theory_measured: pd.DataFrame, solution: str = "sgd") -> pd.DataFrame:
    """Return what a bias to the flat side gains, one row a minimum: means over its directions of a probe.

    Probes of kind ``sign`` are left out: they have an experiment of their own.

    Parameters
    ----------
    theory_measured
        The table of that name.
    solution
        Directions at this solution only.

    Returns
    -------
    DataFrame
        ``dataset, model, recipe, probe, status, shift, scale, bias, seed``, the means of ``gain``,
        ``train_gain``, ``test_gain`` and ``rise``, and ``directions``: how many. With ``gradient_gain``
        where the table has it.
    """
    rows = theory_measured[(theory_measured["solution"] == solution) & (theory_measured["kind"] != "sign")]
    by = rows.groupby([*SOLUTION, "probe", "status", "shift", "scale", "bias"], sort=False)
    of = rows.columns.intersection(["gain", "train_gain", "test_gain", "rise", *OF_SOLUTION], sort=False)
    return by[list(of)].mean().assign(directions=by.size()).reset_index()


def falls_short(directions: pd.DataFrame) -> pd.Series:
    """Return along which directions the loss does not rise, within reach, by what R is found for.

    There it levels off, as where outputs no longer hang on the image, or rises too slowly. Definition 1 then
    compares slopes lower down than along other directions.

    Parameters
    ----------
    directions
        Rows with ``radius_status``: of the table ``asymmetry`` or ``study``.
    """
    return directions["radius_status"] == "capped"


def short_of(short: int, asymmetric: int, directions: int, rise: float | None) -> str:
    """Say how many directions `falls_short` names, and how shares count them; nothing where there are none.

    Parameters
    ----------
    short, asymmetric, directions
        How many it names, how many of these are asymmetric by their slopes, and how many there are.
    rise
        That R is found for, nats; None where R is set.
    """
    if rise is None or not short:
        return ""
    return (
        f"the loss rises by less than {rise:g} nats along {short} of {directions} "
        f"({asymmetric} asymmetric lower down), which count as undecided"
    )


LEAST_REACH = 0.1
"""How far from one half some share of agreeing signs has to be for `sign_slope`. Fixed on 2026-11-27."""


def sign_slope(points: pd.DataFrame) -> float:
    """Return the slope of the index on the share of agreeing signs, by least squares: a dose-response.

    All directions count, each as u and as -u, as `signs` has them: u has the share s and the index y, -u has
    1 - s and -y. With both the line goes through index 0 at a share of one half, so that

        slope = sum (s - 1/2) y / sum (s - 1/2)^2

    over the directions probed. That it goes there is no assumption: -u of a direction drawn with share s is
    one drawn with 1 - s, so the mean index at 1 - s is minus that at s. An intercept would be one number more
    to estimate from the same directions.

    Parameters
    ----------
    points
        Rows of `signs` of one minimum and group.

    Returns
    -------
    float
        Log ratio per share from 0 to 1. NaN where no share with an index is `LEAST_REACH` from one half.
    """
    points = points[np.isfinite(points["index"]) & np.isfinite(points["agreement"])]
    dose = points["agreement"].to_numpy(dtype=np.float64) - 0.5
    if not len(dose) or np.abs(dose).max() < LEAST_REACH:
        return math.nan
    return float(dose @ points["index"].to_numpy(dtype=np.float64) / (dose @ dose))


def sign_slopes(points: pd.DataFrame) -> pd.Series:
    """Return `sign_slope` by seed, for rows of `signs` of one cell and group."""
    return pd.Series({seed: sign_slope(rows) for seed, rows in points.groupby("seed")}, dtype=float)


FACTOR = 2.0
"""Rises of two groups whose medians differ by more are not compared. Fixed on 2026-11-27."""


def equal_rises(first: pd.DataFrame, second: pd.DataFrame) -> str:
    """Return why two groups cannot be compared, as their curves rise by different amounts; empty if they can.

    How uneven a curve is grows with how far it goes. So a contrast of two groups says something about them
    only where their curves rise alike.

    Parameters
    ----------
    first, second
        With rises in nats as column ``rise`` (the table asymmetry, `gains`, `study_outcomes`), one a curve or
        minimum; those that are not finite are left out. Where a group has none, nothing is said.
    """
    both = (_finite(rows["rise"]) for rows in (first, second))
    medians = [float(np.median(values)) for values in both if len(values)]
    if len(medians) < 2 or max(medians) <= FACTOR * min(medians):
        return ""
    return (
        f"not comparable: median rises {medians[0]:.3g} and {medians[1]:.3g} nats differ more than "
        f"{FACTOR:g}-fold"
    )


def _finite(values: pd.Series) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    return values[np.isfinite(values)]


def swa_sides(directions: pd.DataFrame, asymmetry: pd.DataFrame) -> pd.DataFrame:
    """Return on which side of a searched direction SWA lies, one row a minimum and probe.

    Parameters
    ----------
    directions, asymmetry
        The tables of those names. Of `directions` those count that have ``towards_swa``, are of kind searched
        at solution sgd, and have a flat side (c* above 1). A search for symmetric ones is a probe of its own.

    Returns
    -------
    DataFrame
        `SOLUTION`, ``probe``; ``offset``, mean over the minimum's directions of
        ``towards_swa`` times the flat side (2-norm units, above 0: SWA is on the flat side); ``share``, the
        same of ``towards_swa / R``; ``directions``: how many. With ``gradient_gain`` if `asymmetry` has it.
    """
    columns = [*SOLUTION, "probe", "offset", "share", "directions"]
    if "towards_swa" not in directions:
        return pd.DataFrame(columns=columns)
    known = directions[directions["towards_swa"].notna() & (directions["kind"] == "searched")]
    verdicts = asymmetry[asymmetry["flat_side"] != 0].filter([*DIRECTION, "flat_side", *OF_SOLUTION])
    both = known[known["solution"] == "sgd"].merge(verdicts, on=DIRECTION, validate="one_to_one")
    both["offset"] = both["towards_swa"].astype(float) * both["flat_side"]
    both["share"] = both["offset"] / both["radius"]
    by = both.groupby([*SOLUTION, "probe"], sort=False)
    of = both.columns.intersection(["offset", "share", *OF_SOLUTION], sort=False)
    return by[list(of)].mean().assign(directions=by.size()).reset_index()


LINE = [*SETTING, "line", "seed"]


def prevalence(asymmetry: pd.DataFrame, level: float, c: float) -> pd.DataFrame:
    """Count verdicts and uneven rises by cell (seeds together), probe and solution.

    Parameters
    ----------
    asymmetry
        The table of that name.
    level
        Of the Wilson intervals.
    c
        Rises about the curve's own least point that differ by this factor or more count as uneven.

    Returns
    -------
    DataFrame
        Columns dataset, model, recipe, probe, solution, n, and for each of "asymmetric", "uneven" and
        "not_minimum" the count, ``<status>_share``, ``<status>_low`` and ``<status>_high``; then the counts
        "symmetric", "flat" and "not_finite", and the medians of c_star and asymmetry_index over the rows
        that have them.
    """
    rows = []
    for key, part in asymmetry.groupby([*SETTING, "probe", "solution"], sort=False):
        row = dict(zip([*SETTING, "probe", "solution"], key, strict=True)) | {"n": len(part)}
        counts = part["status"].value_counts()
        hits = {status: int(counts.get(status, 0)) for status in ("asymmetric", "not_minimum")}
        hits["uneven"] = int(uneven(part["asymmetry_index"], c).sum())
        for status, count in hits.items():
            share = wilson(count, len(part), level)
            row |= {status: count, f"{status}_share": share.estimate}
            row |= {f"{status}_low": share.low, f"{status}_high": share.high}
        row |= {status: int(counts.get(status, 0)) for status in ("symmetric", "flat", "not_finite")}
        rows.append(
            row | {"c_star": part["c_star"].median(), "asymmetry_index": part["asymmetry_index"].median()}
        )
    return pd.DataFrame(rows)


def uneven(index: pd.Series, c: float) -> pd.Series:
    """Return where two rises, by their asymmetry index, differ by a factor of c or more (`reaches`)."""
    return pd.Series(reaches(np.exp(index.abs()), c), index=index.index)


def kind_of_line(interpolation: pd.DataFrame) -> pd.Series:
    """Return, for each row of the table of that name, what its line joins.

    ``cell``: two solutions of one cell; ``recipe``: cells of two recipes at one seed; ``seed``: cells of two
    seeds (and of two recipes, perhaps); each followed by ``-path`` where the bends are trained.
    """
    other_seed = interpolation["stop_seed"] != interpolation["seed"]
    other_recipe = interpolation["stop_recipe"] != interpolation["recipe"]
    kind = np.where(other_seed, "seed", np.where(other_recipe, "recipe", "cell"))
    trained = interpolation["path"] != "linear"
    return pd.Series(
        np.where(trained, np.char.add(kind, "-path"), kind), index=interpolation.index, dtype=str
    )


def barriers(interpolation: pd.DataFrame) -> pd.DataFrame:
    """Return one row a line and seed: the barrier between its two ends, t in [0, 1], on train and on test.

    Returns
    -------
    DataFrame
        ``dataset, model, recipe, line, seed``, and ``train`` and ``test``: greatest loss above the chord
        between the two ends (nats); inf where a loss between them is not finite.
    """
    rows = []
    between = interpolation[interpolation["t"].between(-1e-9, 1 + 1e-9)]
    for names, line in between.groupby(LINE, sort=False):
        line = line.sort_values("t")
        row = dict(zip(LINE, names, strict=True))
        for split in ("train", "test"):
            row[split] = barrier_on(line["t"].tolist(), line[f"{split}_loss"].tolist()).height
        rows.append(row)
    return pd.DataFrame(rows, columns=[*LINE, "train", "test"])


def straight_twin(interpolation: pd.DataFrame, path: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a straight line between the same solutions as `path`, over all its seeds, or none.

    Parameters
    ----------
    interpolation
        The table of that name.
    path
        Its rows of one line of one cell, all seeds.
    """
    about = path.iloc[0]
    ends = [*SETTING, "start", "stop", "stop_recipe"]
    linear = interpolation[
        (interpolation["path"] == "linear") & (interpolation[ends] == about[ends]).all(axis=1)
    ]
    pairs = path.groupby("seed")["stop_seed"].first()
    for _, line in linear.groupby("line", sort=False):
        if line.groupby("seed")["stop_seed"].first().equals(pairs):
            return line
    return interpolation.iloc[:0]
